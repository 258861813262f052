"""A repo that is there already shows no more to no more people than was asked for; one that is made is set up so."""

from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from prefect.client.schemas.objects import State

from flows.push_bids import push_bids
from tasks.hub.client import Hub
from tasks.hub.errors import NotAllowed, RepoIsNotGated, RepoIsPublic, RepoMissing
from tasks.record.remote import RECORD
from tests.counted_hub import CountedHub


@pytest.fixture
def hub(counted: Hub) -> Hub:
    """A target whose repo is not there yet."""
    return counted


def settings(hub: Hub) -> tuple[bool | None, str | bool | None]:
    found = hub.api.dataset_info(hub.target.repo_id)
    return found.private, found.gated


def make(hub: Hub, private: bool, gated: Any = "", published: bool = False) -> None:
    """As people and earlier runs have left it."""
    hub.api.create_repo(hub.target.repo_id, repo_type="dataset", private=private)
    if gated:
        hub.api.update_repo_settings(hub.target.repo_id, repo_type="dataset", gated=gated)
    if published:
        hub.commit([CommitOperationAdd("data/sub-1/sub-1.parquet", b"PAR1\0")], "An earlier run", hub.head())


@pytest.mark.parametrize("private", [True, False])
@pytest.mark.parametrize("gated", ["no", "auto", "manual"])
def test_a_repo_that_a_run_makes_is_set_up_as_asked_and_is_so_for_the_next(hub: Hub, private: bool, gated: Any) -> None:
    hub.prepare(private, gated)
    assert settings(hub) == (private, False if gated == "no" else gated)
    hub.commit([CommitOperationAdd("data/sub-1/sub-1.parquet", b"PAR1\0")], "A run", hub.head())
    hub.prepare(private, gated)
    assert settings(hub) == (private, False if gated == "no" else gated)


@pytest.mark.parametrize("published", [True, False])
def test_a_public_repo_is_not_published_to_where_a_private_one_was_asked_for(hub: Hub, published: bool) -> None:
    make(hub, private=False, published=published)
    with pytest.raises(RepoIsPublic, match=r"/settings\).*private=false"):
        hub.prepare(private=True)
    assert settings(hub) == (False, False)
    hub.prepare(private=False)


def test_a_private_repo_may_stay_so_where_a_public_one_was_asked_for(hub: Hub) -> None:
    make(hub, private=True, published=True)
    hub.prepare(private=False)
    assert settings(hub) == (True, False)


@pytest.mark.parametrize(
    ("there", "asked", "good"),
    [("", "no", True), ("", "auto", False), ("", "manual", False), ("auto", "no", True), ("auto", "auto", True),
     ("auto", "manual", False), ("manual", "no", True), ("manual", "auto", True), ("manual", "manual", True)],
)  # fmt: skip
def test_a_repo_that_opens_to_more_people_than_asked_is_not_published_to_and_never_changed(
    hub: Hub, there: str, asked: Any, good: bool
) -> None:
    make(hub, private=True, gated=there, published=True)
    if good:
        hub.prepare(True, asked)
    else:
        with pytest.raises(RepoIsNotGated, match=rf"gated={asked}.*start again with gated={there or 'no'}"):
            hub.prepare(True, asked)
    assert settings(hub) == (True, there or False)


@pytest.mark.parametrize("holds", ["nothing", "README.md", RECORD, "bids/README", "data/sub-1/sub-1.parquet"])
def test_a_repo_that_holds_nothing_is_gated_as_asked_since_a_run_that_made_it_was_killed(hub: Hub, holds: str) -> None:
    make(hub, private=True)
    if holds != "nothing":
        hub.commit([CommitOperationAdd(holds, b"---\nlicense: cc0-1.0\n---\n")], "By hand", hub.head())
    if holds == "nothing":
        hub.prepare(True, "manual")
        assert settings(hub) == (True, "manual")
    else:
        with pytest.raises(RepoIsNotGated):
            hub.prepare(True, "manual")
        assert settings(hub) == (True, False)


@pytest.mark.parametrize("status", [404, 405])
def test_a_hub_that_cannot_say_whether_a_token_may_write_is_asked_by_the_first_write(
    server: CountedHub, hub: Hub, status: int
) -> None:
    server.break_on({"fault": "status", "path": "/auth-check", "status": status, "times": -1})
    hub.prepare(private=True)
    reader = Hub(hub.target, server.token("lab", "read"))
    reader.prepare(private=True)
    assert server.broken == 2
    with pytest.raises(NotAllowed, match="write role"):
        reader.commit([CommitOperationAdd("notes.md", b"1")], "No right to", reader.head())


def test_a_token_that_may_not_see_the_repo_is_told_so_by_a_hub_without_that_route_too(
    server: CountedHub, hub: Hub
) -> None:
    hub.prepare(private=True)
    server.break_on(
        {"fault": "status", "path": "/auth-check", "status": 404, "times": -1},
        {"fault": "status", "path": f"/api/datasets/{hub.target.repo_id}(/|$)", "status": 404, "after": 1, "times": -1},
    )
    with pytest.raises(RepoMissing):
        hub.prepare(private=True)


def push(source: Path, hub: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", **parameters}
    return push_bids(source, hub.target.repo_id, staging_root=root, return_state=True, **given)


@pytest.mark.usefixtures("prefect_server", "counted_by_flows")
def test_a_push_to_a_public_repo_stops_before_anything_is_staged_or_sent_and_the_dry_run_says_so(
    server: CountedHub, bids: Path, hub: Hub, tmp_path: Path
) -> None:
    make(hub, private=False)
    start, head = len(server.asked()), hub.head()
    state = push(bids, hub, tmp_path, dry_run=True)
    assert state.name == "DryRun" and "RepoIsPublic" in (state.message or "")
    state = push(bids, hub, tmp_path)
    assert (state.type.value, state.name) == ("FAILED", "RepoIsPublic")
    assert server.content_received(start) == 0 and hub.head() == head
    assert not list(tmp_path.rglob("*.parquet"))
