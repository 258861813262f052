"""Several groups of shards on their way to the Hub at the same time: how many, and what becomes of them in every end.

On a real Prefect server and a real local Hub that counts what it is asked. Each shard is a group of its own.
"""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State

from deployments.local_stack import REPO, wait_until
from flows.push_bids import push_bids
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.runs import lease
from tasks.runs.lease import variable_name
from tests import bids_examples
from tests.counted_hub import CONTENT, CountedHub
from tests.figures import figures
from tests.images import nifti1

pytestmark = pytest.mark.usefixtures("prefect_server")
SUBJECTS = 8
IN_FLIGHT = 3
BEGINS = re.compile(r"/xet-write-token/")  # the first request that a group makes for its content
ENDS = re.compile(r"/v[12]/shards$")  # and the last one: all of it is there
SECONDS = 120

PUSH = """
import sys
from flows.push_bids import push_bids
source, repo, root = sys.argv[1:]
push_bids(source, repo, defacing="no faces", staging_root=root, return_state=True)
"""


@pytest.fixture
def hub(counted_by_flows: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("BIDS_PUSH_TRANSFER_SHARDS", "1")
    monkeypatch.setenv("BIDS_PUSH_TRANSFERS", str(IN_FLIGHT))
    return counted_by_flows


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A dataset with bytes that no Hub and no client has seen."""
    header = bytearray(nifti1((100, 100, 1))[:352])
    header[42:48] = b"".join(n.to_bytes(2, "little") for n in (100, 100, 20))
    files: dict[str, bids_examples.Content] = {"dataset_description.json": bids_examples.description()}
    for number in range(SUBJECTS):
        sub = f"sub-{number:02}"
        files[f"{sub}/anat/{sub}_T1w.nii"] = bytes(header) + os.urandom(800_000)
    return bids_examples.write(tmp_path / "source", files)


def push(source: Path, hub: Hub, root: Path) -> State[Any]:
    return push_bids(source, hub.target.repo_id, defacing="no faces", staging_root=root, return_state=True)


def shards_on(hub: Hub) -> dict[str, str | None]:
    return {path: file.sha256 for path, file in hub.listing(hub.head()).files.items() if path.startswith("data/")}


def commits(hub: Hub) -> int:
    return len(hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset"))


def size_of(staging: Staging) -> int:
    return sum(receipt.size for receipt in staging.receipts())


def taken(server: CountedHub, since: int) -> list[int]:
    """The bytes of each piece of content that the Hub took: it answered well."""
    asked = server.asked(since)
    return [one.received for one in asked if CONTENT.search(one.path) and one.method == "POST" and one.status == 200]


def content_sent(server: CountedHub, since: int) -> int:
    """The bytes of content that the Hub took."""
    return sum(taken(server, since))


@contextmanager
def held_back(server: CountedHub, groups: int) -> Iterator[None]:
    """Hold the last request of the first so many groups, until the block ends."""
    server.break_on({"fault": "hold", "path": ENDS.pattern, "times": groups})
    try:
        yield
    finally:
        server.break_on()


def test_groups_are_sent_at_the_same_time_and_never_more_than_the_setting_says(
    server: CountedHub, hub: Hub, source: Path, root: Path
) -> None:
    start = len(server.asked())
    ended: list[State[Any]] = []
    with held_back(server, SUBJECTS):  # whatever has begun does not end
        run = threading.Thread(target=lambda: ended.append(push(source, hub, root)))
        run.start()
        wait_until("as many groups have begun as may", lambda: begun(server, start) >= IN_FLIGHT, SECONDS)
        wait_until("all shards are staged", lambda: len(staged(root, hub)) == SUBJECTS, SECONDS)
        assert begun(server, start) == IN_FLIGHT
    run.join(SECONDS)
    assert ended[0].name == "Staged" and len(shards_on(hub)) == SUBJECTS


def test_the_card_is_in_the_first_commit_the_last_and_some_between_and_says_all_in_the_end(
    hub: Hub, tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_BATCH_SHARDS", "1")
    monkeypatch.setattr("flows.rounds.CARD_AT", 3)
    files: dict[str, bids_examples.Content] = {"dataset_description.json": bids_examples.description()}
    files |= {f"sub-{number}/anat/sub-{number}_T1w.nii": nifti1((2, 2, number)) for number in range(1, 8)}
    assert push(bids_examples.write(tmp_path / "many", files), hub, root).name == "Staged"
    history = hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset")
    held = [hub.listing(one.commit_id).files for one in reversed(history)]
    shards = [sum(path.startswith("data/") for path in one) for one in held]
    cards = [one["README.md"].blob_id if "README.md" in one else None for one in held]
    with_card = [now for now, card, before in zip(shards[1:], cards[1:], cards, strict=False) if card != before]
    assert shards[-7:] == [1, 2, 3, 4, 5, 6, 7]
    assert with_card == [1, 4, 7]  # in the second, the record it is made on has three times as many
    assert "7 subjects" in (hub.read("README.md", history[0].commit_id) or b"").decode()


def begun(server: CountedHub, since: int) -> int:
    """The groups whose content has been begun."""
    return sum(BEGINS.search(one.path) is not None for one in server.asked(since))


def staged(root: Path, hub: Hub) -> list[str]:
    return [one.name for one in Staging.of(root, hub.target).receipts()]


def test_a_group_that_is_refused_ends_the_run_with_its_error_and_the_next_sends_only_what_is_missing(
    server: CountedHub, hub: Hub, source: Path, root: Path
) -> None:
    start = len(server.asked())
    server.break_on({"fault": "status", "status": 403, "path": ENDS.pattern, "after": 3})
    state = push(source, hub, root)
    assert state.name == "NotAllowed", state.message
    assert not [thread.name for thread in threading.enumerate() if thread.name.startswith("pipeline")]
    server.break_on()
    again = push(source, hub, root)
    assert again.name == "Staged" and len(shards_on(hub)) == SUBJECTS
    whole = size_of(Staging.of(root, hub.target))
    assert content_sent(server, start) <= whole * (1 + 1 / SUBJECTS) * 1.02


def test_a_shard_that_is_damaged_among_several_on_their_way_is_staged_again_and_the_others_go_on(
    server: CountedHub, hub: Hub, source: Path, root: Path
) -> None:
    server.break_on({"fault": "status", "status": 403, "path": r"/preupload/", "times": -1})
    assert push(source, hub, root).name == "NotAllowed"
    server.break_on()
    staging = Staging.of(root, hub.target)
    receipts = staging.receipts()
    file = staging.folder / receipts[2].file
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    state = push(source, hub, root)
    counted = figures(state)
    assert (counted["shards found damaged"], counted["shards sent"]) == (1, SUBJECTS)
    assert shards_on(hub) == {one.path: one.sha256 for one in staging.receipts()}
    assert {one.path for one in receipts} <= shards_on(hub).keys()


def test_a_run_that_loses_its_target_with_groups_on_their_way_commits_nothing(
    server: CountedHub, hub: Hub, source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    noticed = threading.Event()
    renew = lease.Lease.renew

    def watched(held: lease.Lease, client: SyncPrefectClient) -> None:
        renew(held, client)
        if held._lost:
            noticed.set()

    monkeypatch.setattr(lease, "RENEW_EVERY", 0.2)
    monkeypatch.setattr(lease.Lease, "renew", watched)
    start = len(server.asked())
    ended: list[State[Any]] = []
    with held_back(server, IN_FLIGHT):
        run = threading.Thread(target=lambda: ended.append(push(source, hub, root)))
        run.start()
        wait_until("groups are on their way", lambda: begun(server, start) == IN_FLIGHT, SECONDS)
        before = commits(hub)
        with get_client(sync_client=True) as client:
            client.delete_variable_by_name(variable_name(hub.target))
        assert noticed.wait(SECONDS)
    run.join(SECONDS)
    assert ended[0].name == "TargetLost", ended[0].message
    assert commits(hub) == before and not shards_on(hub)
    assert begun(server, start) == IN_FLIGHT


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_of_a_run_that_is_killed_or_ended_only_what_was_on_its_way_is_sent_again_by_the_next(
    server: CountedHub, hub: Hub, source: Path, root: Path, tmp_path: Path, how: signal.Signals
) -> None:
    start = len(server.asked())
    environment = {**os.environ, "HF_ENDPOINT": hub.target.endpoint, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-c", PUSH, str(source), hub.target.repo_id, str(root)]
    server.break_on({"fault": "hold", "path": ENDS.pattern, "after": 3, "times": -1})  # three are through, three not
    with subprocess.Popen(command, cwd=REPO, env=environment, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until("three more have begun", lambda: begun(server, start) >= 3 + IN_FLIGHT, SECONDS)
            # of all three only where the client's own limit of requests at a time, which it finds by trying, lets it
            wait_until("bytes of theirs are there", lambda: len(taken(server, start)) > 3, SECONDS)
            process.send_signal(how)
            process.wait(SECONDS)  # with nobody answering its threads
        finally:
            process.kill()
    server.break_on()
    assert not shards_on(hub)
    assert push(source, hub, root).name == "Staged"
    whole = size_of(Staging.of(root, hub.target))
    assert len(shards_on(hub)) == SUBJECTS
    again = whole * IN_FLIGHT / SUBJECTS  # nobody is told of a group's bytes before its last request
    assert content_sent(server, start) <= (whole + again) * 1.02
