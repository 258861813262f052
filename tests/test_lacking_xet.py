"""Hubs that lack a part of Xet, git-LFS or a route, over a connection and in whole flows.

The Hub is the real local one behind a layer that answers in its place and counts (`tests.counted_hub`).
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from prefect.client.schemas.objects import State

from flows.push_bids import push_bids
from flows.restore_bids import restore_bids
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.hub.lacking import RouteMissing
from tasks.record.remote import read_remote
from tasks.values.models import Receipt
from tests.counted_hub import Asked, CountedHub
from tests.lacking import (
    COMMIT,
    CREATE,
    FILE,
    INFO,
    INFO_AT,
    MAY_WRITE,
    PATHS_INFO,
    PREUPLOAD,
    TREE,
    WHOAMI,
    XET_SHARDS,
    XET_TOKEN,
    XORBS,
    YAML,
    route_of,
)
from tests.test_failing_hub import commits, holds, publish, unheard_of
from tests.way_back import files

Staged = Callable[[int], list[Receipt]]
XET = ["xet-write-token", "/v1/xorbs/", "/shards$"]
#: What hf_xet asks for besides, and does without: whether a Hub has parts already, leave to send some, its own figures.
TRIED_BY_XET = re.compile(r"/v1/(chunks|xorb-grants|telemetry)\b")


@pytest.fixture(autouse=True)
def _xet(monkeypatch: pytest.MonkeyPatch) -> None:
    """Content is sent by Xet at first. What a run learns of its Hub ends with the test."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)


@pytest.fixture
def hub(counted: Hub) -> Hub:
    counted.prepare(private=True)
    return counted


def missing(path: str, status: int = 404) -> dict[str, object]:
    return {"fault": "status", "path": path, "status": status, "times": -1}


def sent_by_lfs(asked: list[Asked]) -> int:
    return sum(one.method == "PUT" and one.path.startswith("/lfs/") and one.status == 200 for one in asked)


@pytest.mark.parametrize("path", XET)
@pytest.mark.parametrize("status", [404, 405, 501])
def test_a_hub_without_a_part_of_xet_is_sent_content_by_lfs_from_then_on(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, path: str, status: int,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    receipts = [unheard_of(staging, one) for one in staged(2)]
    server.break_on(missing(path, status))
    start = len(server.asked())
    after = publish(hub, staging, receipts[:1])
    refused = server.broken
    publish(hub, staging, receipts[1:], after)
    assert holds(hub, receipts) and commits(hub) == 3
    assert sent_by_lfs(server.asked(start)) == 2
    assert server.broken == refused, "Xet was asked again"
    said = [record.message for record in caplog.records if "HF_HUB_DISABLE_XET=1" in record.message]
    assert len(said) == 1 and f"answered {status} to" in said[0]


@pytest.mark.parametrize("path", XET)
def test_a_hub_that_takes_content_in_no_way_is_named_with_its_route_and_nothing_is_committed(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, path: str
) -> None:
    receipts = [unheard_of(staging, one) for one in staged(1)]
    server.break_on(missing(path), missing("/objects/batch"))
    with pytest.raises(RouteMissing, match=r"has no route POST /datasets/\S+\.git/info/lfs/objects/batch"):
        publish(hub, staging, receipts)
    assert commits(hub) == 1
    server.break_on()
    publish(hub, staging, receipts)
    assert holds(hub, receipts)


def test_a_hub_with_xet_alone_is_named_with_the_setting_that_keeps_it_from_being_asked(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    receipts = [unheard_of(staging, one) for one in staged(1)]
    server.break_on(missing("/objects/batch"))
    with pytest.raises(RouteMissing, match="unset HF_HUB_DISABLE_XET in the worker's environment"):
        publish(hub, staging, receipts)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    publish(hub, staging, receipts)
    assert holds(hub, receipts)


@pytest.mark.parametrize("path", ["/preupload/", "/commit/"])
def test_a_route_that_is_missing_over_a_connection_is_no_missing_repo(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, path: str
) -> None:
    receipts = staged(1)
    server.break_on(missing(path))
    with pytest.raises(RouteMissing, match=f"{path}main"):
        publish(hub, staging, receipts)
    assert server.broken == 1 and commits(hub) == 1


# Whole flows.


def push(source: Path, hub: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", **parameters}
    return push_bids(source, hub.target.repo_id, staging_root=root, return_state=True, **given)


def asked_for(asked: list[Asked]) -> set[str]:
    routes = {route_of({"method": one.method, "raw_path": one.path.encode()}) for one in asked}
    return {route for route in routes if not TRIED_BY_XET.search(route)}


@pytest.mark.usefixtures("prefect_server", "counted_by_flows")
def test_whole_flows_ask_for_the_routes_that_the_page_names_and_for_no_other(
    server: CountedHub, own_bids: Path, counted: Hub, tmp_path: Path
) -> None:
    start = len(server.asked())
    assert push(own_bids, counted, tmp_path / "staging", dry_run=True).name == "DryRun"
    assert push(own_bids, counted, tmp_path / "staging").name == "Staged"
    pushed = len(server.asked())
    by_xet = {XET_TOKEN, XORBS, XET_SHARDS}
    expected = {WHOAMI, INFO, INFO_AT, CREATE, MAY_WRITE, TREE, PATHS_INFO, PREUPLOAD, YAML, COMMIT, FILE}
    assert asked_for(server.asked(start)[: pushed - start]) - by_xet - WITNESSES == expected
    assert push(own_bids, counted, tmp_path / "staging").name == "NothingToPublish"
    night = {WHOAMI, INFO, INFO_AT, MAY_WRITE, TREE, FILE}
    assert asked_for(server.asked(pushed)) == night
    nights = len(server.asked())
    assert restore_bids(counted.target.repo_id, str(tmp_path / "back"), return_state=True).name == "Restored"
    assert asked_for(server.asked(nights)) == {INFO_AT, TREE, FILE}


#: Asked after a dry run's first 404: whether a repo that does not exist yet is there by any route.
WITNESSES = {"GET /api/{type}/{namespace}/{name}/refs"}


@pytest.mark.usefixtures("prefect_server", "counted_by_flows")
def test_a_whole_push_without_xet_and_without_what_it_can_do_without_ends_as_with_them(
    server: CountedHub, bids: Path, counted: Hub, tmp_path: Path
) -> None:
    lacks = ["xet-write-token", "/whoami-v2", "/auth-check", "/paths-info/", "/validate-yaml"]
    server.break_on(*map(missing, lacks))
    state = push(bids, counted, tmp_path / "staging")
    assert state.name == "Staged", state.message
    remote = read_remote(counted)
    assert remote.record.shards.keys() == {
        path for path in counted.listing(remote.commit).files if path.startswith("data/")
    }
    assert restore_bids(counted.target.repo_id, str(tmp_path / "back"), return_state=True).name == "Restored"
    back = files(tmp_path / "back")
    assert {path: data for path, data in files(bids).items() if path in back} == back
    assert {path for path in files(bids) if path.endswith(".nii.gz")} <= back.keys()


@pytest.mark.usefixtures("prefect_server", "counted_by_flows")
@pytest.mark.parametrize("path", ["/commit/", "/resolve/"])
def test_a_whole_push_to_a_hub_that_lacks_a_route_ends_in_its_name_without_a_stack_trace_and_the_next_goes_on(
    server: CountedHub, bids: Path, counted: Hub, tmp_path: Path, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    server.break_on(missing(path))
    state = push(bids, counted, tmp_path / "staging")
    assert (state.type.value, state.name) == ("FAILED", "RouteMissing"), state.message
    assert path in (state.message or "") and "What a Hub must have" in (state.message or "")
    assert "Traceback" not in caplog.text
    server.break_on()
    assert push(bids, counted, tmp_path / "staging").name in ("Staged", "NothingToPublish")
    assert not read_remote(counted).damaged
