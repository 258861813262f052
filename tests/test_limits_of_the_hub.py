"""Whole runs against a Hub with the limits of the real one, made small: nothing is refused, and each wait is told."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows.push_bids import push_bids
from tasks.hub.client import Hub
from tests import bids_examples
from tests.counted_hub import CountedHub
from tests.images import nifti1

pytestmark = pytest.mark.usefixtures("prefect_server")
WINDOW = 4  # seconds: 300 on the real Hub
HOUR = 6  # seconds: 3,600 there
API, COMMITS = 15, 3  # whether the first is reached depends on how fast this machine is: tests/test_budget.py


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedHub]:
    limits = f"api={API},window={WINDOW},commits={COMMITS},hour={HOUR}"
    hub = CountedHub(tmp_path_factory.mktemp("limited") / "hub", "--limits", limits)
    with hub:
        yield hub


@pytest.fixture
def source(tmp_path: Path) -> Path:
    files: dict[str, bids_examples.Content] = {"dataset_description.json": bids_examples.description()}
    files |= {f"sub-{number}/anat/sub-{number}_T1w.nii": nifti1((2, 2, number)) for number in range(1, 9)}
    return bids_examples.write(tmp_path / "source", files)


def shards_on(hub: Hub) -> int:
    return sum(path.startswith("data/") for path in hub.listing(hub.head()).files)


def push(source: Path, hub: Hub, root: Path) -> State[Any]:
    return push_bids(source, hub.target.repo_id, defacing="no faces", staging_root=root, return_state=True)


def test_a_push_keeps_to_the_limits_and_says_when_it_waits_why_and_for_how_long(
    server: CountedHub,
    counted_by_flows: Hub,
    source: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("BIDS_PUSH_BATCH_SHARDS", "1")  # eight commits, where three may be made
    monkeypatch.setenv("BIDS_PUSH_COMMITS_PER_HOUR", str(COMMITS))
    monkeypatch.setattr("tasks.hub.budget.HOUR", HOUR + 0.5)
    with caplog.at_level(logging.WARNING):
        state = push(source, counted_by_flows, root)
    assert state.name == "Staged", state.message
    assert {one.status for one in server.asked()} <= {200, 201, 404}
    waits = [record.message for record in caplog.records if "Waiting" in record.message]
    assert any(f"{COMMITS} commits were made to {server.endpoint} within an hour" in line for line in waits)
    assert shards_on(counted_by_flows) == 8


def test_a_push_by_an_account_whose_commits_others_have_used_up_waits_and_goes_on(
    server: CountedHub,
    counted_by_flows: Hub,
    source: Path,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("BIDS_PUSH_BATCH_SHARDS", "1")
    monkeypatch.setattr("tasks.hub.errors.CommitsUsedUp.retry_after", 2.0)  # ten minutes of a real hour
    start = len(server.asked())
    with caplog.at_level(logging.WARNING):
        state = push(source, counted_by_flows, root)
    assert state.name == "Staged", state.message
    refused = [one for one in server.asked(start) if one.status == 429]
    assert refused and all("/commit/" in one.path for one in refused)
    told = [record.message for record in caplog.records if "asks for a pause of 2 s" in record.message]
    assert len(told) == len(refused) and "repository commits (3 per hour)" in told[0]
    assert shards_on(counted_by_flows) == 8
