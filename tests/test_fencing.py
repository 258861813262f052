"""Commits of a run that has lost its target, of a plan that is no longer true, and of what the repo would not keep.

The Hub is the real local one behind a layer that breaks requests and counts them (`tests.counted_hub`).
"""

import math
import os
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count
from pathlib import Path
from types import SimpleNamespace

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from tasks import commit as stage
from tasks.commit import ContestedTarget, commit
from tasks.commit.other_files import Besides, as_recorded
from tasks.disk.files import sha256_of
from tasks.disk.staging import RECEIPT_SUFFIX, Staging
from tasks.hub import heads, reading
from tasks.hub.budget import Fence
from tasks.hub.client import Hub
from tasks.hub.errors import OversizedFile, StaleHead, Transient
from tasks.hub.lacking import TooLargeForHub
from tasks.hub.newest_head import NewestHead
from tasks.hub.repo_rules import IgnoredByRepo, NotInLfs
from tasks.record.ask_shards import NO_DIGEST
from tasks.record.remote import CARD, INDEX, RECORD, Correction, NewerLayout, Remote, read_remote
from tasks.record.removals import as_file
from tasks.remove import RemovalRefused
from tasks.report.evidence import RemovalPlan
from tasks.runs.lease import TargetLost
from tasks.transfer import transfer
from tasks.values.errors import PushError
from tasks.values.models import HASHED_FOLDERS, DatasetIdentity, Receipt
from tests.hub_within import Breakable

Staged = Callable[[int], list[Receipt]]
DATASET = DatasetIdentity(name="Aphasia", subjects=2, images=4, size=100)
CARD_TEXT = "---\nlicense: cc0-1.0\n---\nthe same whatever the record says\n"
INFO = r"/api/datasets/lab/[^/]+/revision/main$"  # what says the head


@pytest.fixture
def hub(counted: Hub) -> Hub:
    counted.prepare(private=True)
    return counted


def besides(**texts: bytes) -> Besides:
    files = {f"bids/{name}": data for name, data in texts.items()}
    return Besides(
        lambda record, existing: f"---\nlicense: cc0-1.0\n---\n{len(record.shards)} shards\n",
        files,
        as_recorded(files),
        DATASET,
    )


def publish(
    hub: Hub,
    staging: Staging,
    receipts: list[Receipt],
    what: Besides,
    before: Remote | None = None,
    fence: Fence = lambda: None,
) -> Remote:
    sent = transfer(hub, staging, receipts)
    lines = [one.line() for one in receipts]
    return commit(hub, before or read_remote(hub), lines, [one.operation for one in sent], what, fence)


def by_hand(hub: Hub, *operations: CommitOperationAdd | CommitOperationDelete) -> str:
    return hub.commit(operations, "By hand", hub.head())


def another_version(staging: Staging, receipt: Receipt) -> Receipt:
    """A staged shard of the same path with other bytes, as another dataset has it."""
    file = staging.folder / f"{receipt.file}.other.parquet"
    file.write_bytes(os.urandom(receipt.size))
    changed = {"sha256": sha256_of(file), "digest": "9" * 64, "file": str(file.relative_to(staging.folder))}
    other = receipt.model_copy(update=changed)
    file.with_suffix(RECEIPT_SUFFIX).write_text(other.model_dump_json())
    return other


def history(hub: Hub) -> list[str]:
    return [one.title for one in hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset")]


# The lease.


def test_a_run_that_loses_its_target_between_two_tries_commits_nothing(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    before, asked = read_remote(hub), []

    def fence() -> None:
        asked.append(hub.head())
        if len(asked) == 2:
            raise TargetLost("another run has it")

    by_hand(hub, CommitOperationAdd("notes.md", b"so that the first try is refused"))
    count = len(history(hub))
    with pytest.raises(TargetLost):
        publish(hub, staging, staged(1), besides(), before, fence)
    assert len(asked) == 2 and len(history(hub)) == count
    assert not read_remote(hub).record.shards


def test_a_run_that_has_lost_its_target_does_not_even_try(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged
) -> None:
    def fence() -> None:
        raise TargetLost("another run has it")

    start = len(breakable.asked())
    with pytest.raises(TargetLost):
        publish(hub, staging, staged(1), besides(), None, fence)
    assert not [one for one in breakable.asked(start) if "/commit/" in one.path]


# A commit of somebody else.


def test_a_line_that_somebody_else_has_changed_since_stays_as_they_have_it_and_the_others_go_on(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    first, second = staged(2)
    theirs = another_version(staging, first)
    before = read_remote(hub)
    publish(hub, staging, [theirs], besides())
    after = publish(hub, staging, [first, second], besides(), before)
    assert after.overtaken == {first.path} and after.contested
    found = read_remote(hub)
    assert found.record.shards == {first.path: theirs.line(), second.path: second.line()}
    assert hub.listing(found.commit).files[first.path].sha256 == theirs.sha256


def test_a_line_changed_before_an_earlier_batch_of_the_same_plan_is_not_overwritten_by_a_later_one(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    first, second = staged(2)
    theirs = another_version(staging, second)
    before = read_remote(hub)
    planned = replace(besides(), planned=before.record)
    publish(hub, staging, [theirs], besides())
    after = publish(hub, staging, [first], planned, before)  # goes on top of theirs, and knows of their line from now
    commits = len(history(hub))
    after = publish(hub, staging, [second], planned, after)
    assert after.overtaken == {second.path} and after.contested
    assert len(history(hub)) == commits  # nothing of it is left to commit
    assert publish(hub, staging, [second], planned, read_remote(hub)).contested  # and it is to be planned again
    assert read_remote(hub).record.shards == {first.path: first.line(), second.path: theirs.line()}


def test_a_commit_that_is_too_large_is_made_in_halves_which_tell_of_all_that_others_have_changed(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged, caplog: pytest.LogCaptureFixture
) -> None:
    first, second, third, fourth = receipts = staged(4)
    before, theirs = read_remote(hub), [another_version(staging, one) for one in (first, fourth)]
    publish(hub, staging, theirs, besides())
    breakable.break_on({"fault": "status", "path": "/commit/", "status": 413, "times": 2})
    asked: list[int] = []
    start = len(breakable.asked())
    after = publish(hub, staging, receipts, besides(README=b"1"), before, lambda: asked.append(1))
    tries = [one for one in breakable.asked(start) if "/commit/" in one.path]
    assert len(asked) == len(tries)  # whether it still holds the target is asked before each of them
    assert after.contested and after.overtaken == {first.path, fourth.path} and after.seconds == math.inf
    lines = {one.path: one.line() for one in (second, third, *theirs)}
    assert read_remote(hub).record == after.record and after.record.shards == lines
    one = "Publish 1 shard of 1 subject"
    assert history(hub)[:3] == [one, one, "Update the card and the dataset's own texts"]  # the texts come first
    for made in hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset")[:3]:  # each with a true record
        there = {path for path in hub.listing(made.commit_id).files if path.startswith("data/")}
        assert read_remote(hub, made.commit_id).record.shards.keys() == there
    told = [record.getMessage() for record in caplog.records if record.name.endswith(".bids_push.hub")]
    assert told == [
        f"{hub.target.endpoint} takes no commit of {count} shards at once (413). It is made in halves; "
        f"BIDS_PUSH_BATCH_SHARDS={count // 2} in the worker's environment has batches be as small from the start."
        for count in (4, 2)
    ]


def test_how_long_the_hub_took_for_a_commit_is_known_also_where_its_answer_was_lost(
    breakable: Breakable, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(monotonic=count(100, 7).__next__, sleep=time.sleep)  # seven seconds between two looks
    monkeypatch.setattr(stage, "time", clock)
    first = commit(hub, read_remote(hub), [], [], besides(README=b"1"))
    assert (first.seconds, first.contested) == (7, False)
    breakable.break_on({"fault": "lose_response", "path": "/commit/", "times": 1})
    second = commit(hub, first, [], [], besides(README=b"2"))
    assert (second.seconds, second.contested) == (7, True)  # whether it was ours, nobody can say: it is looked at again
    assert hub.read("bids/README", second.commit) == b"2" and len(history(hub)) == 3


def test_what_others_have_changed_is_known_also_where_the_answer_to_the_commit_was_lost(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged
) -> None:
    first, second = staged(2)
    planned = replace(besides(), planned=read_remote(hub).record)
    publish(hub, staging, [another_version(staging, first)], besides())
    breakable.break_on({"fault": "lose_response", "path": "/commit/", "times": 1})
    after = publish(hub, staging, [first, second], planned)
    assert after.overtaken == {first.path} and after.contested
    assert after.record.shards[second.path] == second.line() and len(history(hub)) == 3


def test_a_single_shard_that_is_too_large_for_a_commit_is_not_cut(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged
) -> None:
    breakable.break_on({"fault": "status", "path": "/commit/", "status": 413, "times": -1})
    with pytest.raises(TooLargeForHub):
        publish(hub, staging, staged(1), besides())
    assert breakable.broken == 1


def test_the_same_line_made_by_somebody_else_is_no_conflict(hub: Hub, staging: Staging, staged: Staged) -> None:
    first, second = staged(2)
    before = read_remote(hub)
    publish(hub, staging, [first], besides())
    after = publish(hub, staging, [first, second], besides(), before)
    assert not after.overtaken and set(after.record.shards) == {first.path, second.path}


def test_a_text_that_somebody_else_has_published_since_stays_as_they_have_it(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    before = read_remote(hub)
    commit(hub, before, [], [], besides(README=b"theirs"))
    after = publish(hub, staging, staged(1), besides(README=b"ours", CHANGES=b"1.0"), before)
    assert after.overtaken == {"bids/README"}
    assert (hub.read("bids/README", after.commit), hub.read("bids/CHANGES", after.commit)) == (b"theirs", b"1.0")
    assert after.record.texts["bids/README"] == as_recorded({"bids/README": b"theirs"})[0]
    assert read_remote(hub).record == after.record
    assert hub.read(CARD, after.commit) == (after.card or "").encode()


def removal(target: Remote, shard: str) -> RemovalPlan:
    """An approved removal of a shard, planned at this head."""
    return RemovalPlan(commit=target.commit, shards={shard: as_file(target.record.shards[shard])})


def test_what_was_to_be_removed_and_was_published_anew_meanwhile_stays(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    (first,) = staged(1)
    before = publish(hub, staging, [first], besides(README=b"one"))
    theirs = another_version(staging, first)
    publish(hub, staging, [theirs], besides(README=b"two"))
    gone = replace(besides(), remove=removal(before, first.path), planned=before.record)
    with pytest.raises(RemovalRefused):
        commit(hub, before, [], [], gone)
    assert {first.path, "bids/README"} <= hub.listing(hub.head()).files.keys()


def test_a_commit_that_removes_says_so_in_its_title(hub: Hub, staging: Staging, staged: Staged) -> None:
    before = publish(hub, staging, staged(2), besides())
    path = sorted(before.record.shards)[0]
    commit(hub, before, [], [], replace(besides(), remove=removal(before, path), planned=before.record))
    assert history(hub)[0] == "Remove 1 shard of 1 subject, as approved"


def test_a_run_that_waits_for_its_turn_to_commit_asks_all_the_time_whether_it_still_may(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It has used up the commits of an hour, and loses its target while it waits."""
    before = commit(hub, read_remote(hub), [], [], besides(README=b"1"))
    monkeypatch.setenv("BIDS_PUSH_COMMITS_PER_HOUR", "1")
    waited: list[float] = []
    clock = SimpleNamespace(monotonic=time.monotonic, sleep=waited.append)
    monkeypatch.setattr("tasks.hub.budget.time", clock)

    def lost() -> None:
        assert sum(waited) < 3600, "it has waited for an hour and asked nobody"
        if len(waited) > 2:
            raise TargetLost("another run has taken it over")

    with pytest.raises(TargetLost):
        commit(hub, before, [], [], besides(README=b"2"), lost)
    assert len(waited) == 3 and hub.head() == before.commit


def test_a_card_is_made_from_the_one_that_is_there(hub: Hub) -> None:
    by_hand(hub, CommitOperationAdd(CARD, b"---\nlicense: cc0-1.0\n---\ntheirs"))
    of = replace(besides(README=b"1"), card_of=lambda record, existing: f"{existing} and ours")
    after = commit(hub, read_remote(hub), [], [], of)
    assert (hub.read(CARD, after.commit) or b"").endswith(b"theirs and ours")


def test_a_commit_that_brings_no_card_leaves_the_one_that_is_there(hub: Hub, staging: Staging, staged: Staged) -> None:
    first, second = staged(2)
    before = publish(hub, staging, [first], besides())
    after = publish(hub, staging, [second], replace(besides(), with_card=False), before)
    assert hub.read(CARD, after.commit) == (after.card or "").encode() == hub.read(CARD, before.commit)
    assert read_remote(hub).record.shards == {first.path: first.line(), second.path: second.line()}


def test_each_commit_of_a_removal_in_several_says_in_its_title_what_leaves_with_it(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(2)
    before = publish(hub, staging, receipts, besides())
    rows = {receipt.path: (receipt.images[0].path,) for receipt in receipts}
    left = replace(besides(), remove=RemovalPlan(commit=before.commit, rows=rows), leaving=rows)
    for receipt in receipts:
        before = publish(hub, staging, [another_version(staging, receipt)], left, before)
        left = left.after_commit()
    removal = "Publish 1 shard of 1 subject; Remove 1 image of 1 shard of 1 subject, as approved"
    assert history(hub)[:2] == [removal, removal]


def test_a_line_whose_shard_is_nowhere_leaves_the_record_and_one_whose_shard_is_back_stays(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    first, second = staged(2)
    publish(hub, staging, [first, second], besides())
    by_hand(hub, CommitOperationDelete(first.path))
    lost = {one.path: one.sha256 for one in (first, second)}
    assert replace(besides(), lost=lost).any(read_remote(hub))
    after = commit(hub, read_remote(hub), [], [], replace(besides(), lost=lost))
    assert set(after.record.shards) == set(read_remote(hub).record.shards) == {second.path}
    assert second.path in hub.listing(after.commit).files


def test_somebody_who_commits_before_each_try_is_told(
    hub: Hub, staging: Staging, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = count()

    def other() -> None:
        by_hand(hub, CommitOperationAdd("notes.md", b"%d" % next(numbers)))

    with pytest.raises(ContestedTarget) as raised:
        publish(hub, staging, staged(1), besides(), None, other)
    assert str(raised.value) == (
        f"somebody else committed to {hub.target} 8 times while this batch was being committed. The shards are sent "
        "and staged; start the run again when the other writer is done."
    )
    assert len(history(hub)) == 1 + stage.COMMIT_TRIES


def test_a_newer_bids_push_that_publishes_meanwhile_is_not_undone(hub: Hub, staging: Staging, staged: Staged) -> None:
    before = publish(hub, staging, staged(1), besides())
    newer = before.record.model_copy(update={"layout": HASHED_FOLDERS + 1})
    theirs = by_hand(hub, CommitOperationAdd(INDEX, newer.dump_index()))
    with pytest.raises(NewerLayout, match=f"^{hub.target} was published by a newer bids-push"):
        publish(hub, staging, staged(2), besides(), before)
    assert hub.head() == theirs


# What landed.


def test_a_text_whose_commit_was_answered_500_is_tried_again_until_it_is_there(breakable: Breakable, hub: Hub) -> None:
    before = commit(hub, read_remote(hub), [], [], besides(README=b"old"))
    breakable.break_on({"fault": "status", "path": "/commit/", "status": 500})
    with pytest.raises(Transient):
        commit(hub, before, [], [], besides(README=b"new"))
    commit(hub, before, [], [], besides(README=b"new"))
    assert hub.read("bids/README", hub.head()) == b"new"


def test_a_hub_that_does_not_take_the_texts_is_told_with_what_was_being_sent(breakable: Breakable, hub: Hub) -> None:
    before = read_remote(hub)
    breakable.break_on({"fault": "status", "path": "/preupload/", "status": 403, "times": -1})
    with pytest.raises(PushError, match=f"^sending 4 texts to {hub.target}: "):
        commit(hub, before, [], [], besides(README=b"1"))
    assert not read_remote(hub).record.texts


def test_a_text_whose_commit_lost_to_another_one_is_committed_on_top_of_it(hub: Hub) -> None:
    before = commit(hub, read_remote(hub), [], [], besides(README=b"old"))
    by_hand(hub, CommitOperationAdd("notes.md", b"by hand"))
    commit(hub, before, [], [], besides(README=b"new"))
    assert hub.read("bids/README", hub.head()) == b"new" and hub.read("notes.md", hub.head()) == b"by hand"


@pytest.mark.parametrize("what", ["all", "shard", "other bytes", "line", "text", "text's line", "dataset", "card",
                                  "index", "removed file", "removed line", "damaged line"])  # fmt: skip
def test_a_commit_counts_as_landed_only_where_all_of_it_is_there(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged, what: str
) -> None:
    """Its answer is lost, and somebody takes one part of it out before the run can look."""
    gone, kept, new = staged(3)
    before = publish(hub, staging, [gone, kept], besides(README=b"old"))
    asked = replace(
        besides(README=b"new"),
        remove=removal(before, gone.path),
        record=True,
        card_of=lambda record, existing: CARD_TEXT,
    )
    sent = [one.operation for one in transfer(hub, staging, [new])]
    breakable.break_on({"fault": "lose_response", "path": "/commit/"})
    record = before.record.updated([new.line()], [gone.path], asked.recorded, DATASET)
    parts: dict[str, list[CommitOperationAdd | CommitOperationDelete]] = {
        "all": [],
        "shard": [CommitOperationDelete(new.path)],
        "other bytes": [CommitOperationAdd(new.path, os.urandom(new.size))],
        "line": [CommitOperationAdd(RECORD, record.updated(remove=[new.path]).dump())],
        "text": [CommitOperationAdd("bids/README", b"old")],
        "text's line": [CommitOperationAdd(INDEX, before.record.dump_index())],
        "dataset": [CommitOperationAdd(INDEX, record.model_copy(update={"dataset": None}).dump_index())],
        "card": [CommitOperationAdd(CARD, CARD_TEXT.encode() + b"mine")],
        "index": [CommitOperationDelete(INDEX)],
        "removed file": [CommitOperationAdd(gone.path, b"back")],
        "removed line": [CommitOperationAdd(RECORD, record.updated([gone.line()]).dump())],
        "damaged line": [CommitOperationAdd(RECORD, record.dump() + b"?\n")],
    }
    looks = Meddled(hub.target, hub.token)
    looks.__dict__["meddle"] = lambda: by_hand(hub, *parts[what]) if parts[what] else None
    try:
        after = commit(looks, before, [new.line()], sent, asked)
        answered = True
        assert after.contested and not after.overtaken and after == replace(read_remote(hub), contested=True)
    except Transient:  # what has not landed is tried again
        answered = False
    assert breakable.broken == 1 and answered is (what == "all")


@pytest.mark.parametrize("file", [RECORD, INDEX, CARD])
def test_a_commit_of_the_record_and_the_card_alone_counts_as_landed_only_where_they_are_there(
    breakable: Breakable, hub: Hub, file: str
) -> None:
    asked = Besides(lambda record, existing: CARD_TEXT, {})
    looks = Meddled(hub.target, hub.token)
    looks.__dict__["meddle"] = lambda: by_hand(hub, CommitOperationDelete(file))
    breakable.break_on({"fault": "lose_response", "path": "/commit/"})
    with pytest.raises(Transient):
        commit(looks, read_remote(hub), [], [], asked)


class Meddled(Hub):
    """A Hub where somebody does something right after each commit, before anybody can look."""

    def commit(self, operations: list[CommitOperationAdd | CommitOperationDelete], message: str, parent: str) -> str:  # type: ignore[override]
        try:
            return super().commit(operations, message, parent)
        finally:
            self.__dict__["meddle"]()


# A Hub that is behind.


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Looks come after moments, and patience ends soon."""
    monkeypatch.setattr(heads, "STALE_PAUSES", (0.05, 0.1))
    monkeypatch.setattr(heads, "STALE_PATIENCE", 0.3)
    monkeypatch.setattr(stage, "BEHIND_PAUSES", (0.05,) * stage.COMMIT_TRIES)


def test_a_head_from_before_our_own_commit_is_waited_for_and_the_log_says_so(
    breakable: Breakable, hub: Hub, quick: None, caplog: pytest.LogCaptureFixture
) -> None:
    old = hub.head()
    new = by_hand(hub, CommitOperationAdd("notes.md", b"1"))
    breakable.break_on({"fault": "old_head", "path": INFO, "commit": old, "times": 2})
    assert hub.head() == new
    assert breakable.broken == 2
    assert f"names {old[:12]} as the head" in caplog.text and "Looking again" in caplog.text


def test_a_head_that_stays_old_ends_in_a_name_and_the_next_run_takes_it_as_it_is(
    breakable: Breakable, hub: Hub, quick: None
) -> None:
    old = hub.head()
    by_hand(hub, CommitOperationAdd("notes.md", b"1"))
    breakable.break_on({"fault": "old_head", "path": INFO, "commit": old, "times": -1})
    with pytest.raises(StaleHead, match=r"older than.*start again"):
        hub.head()
    assert hub.head() == old


def test_a_machine_of_the_hub_that_does_not_know_our_commit_yet_is_behind(
    breakable: Breakable, hub: Hub, quick: None
) -> None:
    old = hub.head()
    new = by_hand(hub, CommitOperationAdd("notes.md", b"1"))
    breakable.break_on(
        {"fault": "status", "path": f"/commits/{new}", "status": 404, "times": -1},
        {"fault": "old_head", "path": INFO, "commit": old, "times": -1},
    )
    with pytest.raises(StaleHead):
        hub.head()


def test_a_newer_head_of_somebody_else_and_a_history_written_anew_are_the_head(
    breakable: Breakable, hub: Hub, quick: None
) -> None:
    hub.head()
    other = Hub(hub.target, hub.token)
    newer = by_hand(other, CommitOperationAdd("notes.md", b"1"))
    assert hub.head() == newer
    hub.api.super_squash_history(hub.target.repo_id, repo_type="dataset")
    assert hub.head() == other.api.dataset_info(hub.target.repo_id).sha != newer


def test_a_hub_without_a_list_of_commits_is_believed(breakable: Breakable, hub: Hub, quick: None) -> None:
    old = hub.head()
    by_hand(hub, CommitOperationAdd("notes.md", b"1"))
    breakable.break_on(
        {"fault": "status", "path": "/commits/", "status": 404, "times": -1},
        {"fault": "old_head", "path": INFO, "commit": old},
    )
    assert hub.head() == old


def test_another_process_on_this_machine_remembers_the_newest_head(
    breakable: Breakable, hub: Hub, quick: None, tmp_path: Path
) -> None:
    file = tmp_path / "target" / "head"
    first = replace(hub, newest=NewestHead(file))
    old = first.head()
    by_hand(first, CommitOperationAdd("notes.md", b"1"))
    breakable.break_on({"fault": "old_head", "path": INFO, "commit": old, "times": -1})
    with pytest.raises(StaleHead):
        replace(hub, newest=NewestHead(file)).head()
    assert replace(hub, newest=NewestHead(file)).head() == old  # the branch may have been set back on purpose
    file.write_bytes(b"\xff damaged")
    assert replace(hub, newest=NewestHead(file)).head() == old


def test_a_repo_that_was_deleted_and_is_made_anew_is_not_behind(hub: Hub, quick: None) -> None:
    by_hand(hub, CommitOperationAdd("notes.md", b"1"))
    hub.api.delete_repo(hub.target.repo_id, repo_type="dataset")
    hub.prepare(private=True)
    assert hub.head() == hub.api.dataset_info(hub.target.repo_id).sha


def test_a_head_at_least_as_new_as_a_given_commit_is_asked_for(breakable: Breakable, hub: Hub, quick: None) -> None:
    old = hub.head()
    new = by_hand(hub, CommitOperationAdd("notes.md", b"1"))
    breakable.break_on({"fault": "old_head", "path": INFO, "commit": old, "times": 1})
    assert Hub(hub.target, hub.token).head(at_least=new) == new


def test_a_hub_that_refuses_the_head_which_it_names_is_behind_and_waited_for(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged, quick: None
) -> None:
    receipts, before = staged(1), read_remote(hub)
    new = by_hand(Hub(hub.target, hub.token), CommitOperationAdd("notes.md", b"1"))
    breakable.break_on({"fault": "old_head", "path": INFO, "commit": before.commit, "times": 2})
    publish(hub, staging, receipts, besides(), before)
    assert breakable.broken == 2
    assert set(read_remote(hub).record.shards) == {receipts[0].path} and new != hub.head()
    breakable.break_on({"fault": "status", "path": "/commit/", "status": 412, "times": -1})
    before = read_remote(hub)
    with pytest.raises(StaleHead) as raised:
        commit(hub, before, [], [], besides(README=b"1"))
    assert str(raised.value) == (
        f"the Hub refuses to commit on top of {before.commit[:12]}, which it names as the head of {hub.target}: one of "
        "its machines is behind. Start again when the Hub is well; the shards are sent and staged."
    )
    assert breakable.broken == stage.COMMIT_TRIES


# What a repo does not take.


@pytest.mark.parametrize(
    ("file", "rule", "error", "said"),
    [
        (".gitignore", "# ours\n*.nii\ndata/\n", IgnoredByRepo, "by line 3: data/"),
        (".gitignore", "*.parquet", IgnoredByRepo, r"by line 1: \*.parquet"),
        (".gitattributes", "*.nii filter=lfs\n*.parquet -filter\n", NotInLfs, r"by line 2: \*.parquet -filter"),
    ],
)
def test_rules_of_the_repo_that_keep_a_shard_out_are_found_before_anything_is_committed(
    hub: Hub, staging: Staging, staged: Staged, file: str, rule: str, error: type[Exception], said: str
) -> None:
    receipts = staged(2)
    by_hand(hub, CommitOperationAdd(file, rule.encode()))
    count = len(history(hub))
    with pytest.raises(error, match=f"{receipts[0].path}.*{said}.*start again"):
        publish(hub, staging, receipts, besides())
    assert len(history(hub)) == count and not read_remote(hub).record.shards


@pytest.mark.parametrize("rule", ["bids/", "README.md", "*.jsonl"])
def test_rules_of_the_repo_that_keep_the_record_the_card_or_a_text_out_are_found_before_anything_is_committed(
    hub: Hub, staging: Staging, staged: Staged, rule: str
) -> None:
    by_hand(hub, CommitOperationAdd(".gitignore", rule.encode()))
    count = len(history(hub))
    with pytest.raises(IgnoredByRepo, match=f"by line 1: {rule.replace('*', '.')}"):
        publish(hub, staging, staged(1), besides(README=b"1"))
    assert len(history(hub)) == count


def test_a_shard_that_the_repo_held_when_it_was_sent_and_not_when_it_is_committed_is_there_then(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    """Its line was lost, its file was there, and so the client would leave it out of the commit."""
    (receipt,) = staged(1)
    publish(hub, staging, [receipt], besides())
    by_hand(hub, CommitOperationAdd(RECORD, b""))
    before = read_remote(hub)
    sent = [one.operation for one in transfer(hub, staging, [receipt])]
    by_hand(hub, CommitOperationDelete(receipt.path))
    after = commit(hub, before, [receipt.line()], sent, besides())
    assert hub.listing(after.commit).files[receipt.path].sha256 == receipt.sha256


def test_a_record_larger_than_any_is_named_and_not_read_to_its_end(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "LARGEST_TEXT", 1 << 20)
    by_hand(hub, CommitOperationAdd(RECORD, b"x" * (1 << 20) + b"x"))
    with pytest.raises(OversizedFile, match=f"{RECORD} in .*older version"):
        read_remote(hub)
    by_hand(hub, CommitOperationAdd(RECORD, b"x" * (1 << 20)))
    assert not read_remote(hub).record.shards


# Lines that were read from shards, where somebody has edited the record.


def with_a_lost_line(hub: Hub, staging: Staging, receipts: list[Receipt]) -> tuple[Remote, Receipt]:
    """A target whose record lost the line of its first shard, as a run reads it; and that shard."""
    publish(hub, staging, receipts, besides())
    lost = receipts[0]
    text = (hub.read(RECORD, hub.head()) or b"").splitlines(keepends=True)
    by_hand(hub, CommitOperationAdd(RECORD, b"".join(line for line in text if lost.path.encode() not in line)))
    remote = read_remote(hub)
    line = lost.line().model_copy(update={"digest": NO_DIGEST})
    found = replace(remote, record=remote.record.with_lines([line]), corrected=(Correction(None, line),))
    return found, lost


def mended(remote: Remote) -> Besides:
    return replace(besides(), record=remote.to_mend, corrected=remote.corrected)


@pytest.mark.parametrize("meanwhile", [False, True])
def test_a_line_that_was_read_from_its_shard_is_in_the_record_from_the_next_commit_on(
    hub: Hub, staging: Staging, staged: Staged, meanwhile: bool
) -> None:
    before, lost = with_a_lost_line(hub, staging, staged(2))
    if meanwhile:
        by_hand(hub, CommitOperationAdd("notes.md", b"so that the first try is refused"))
    commit(hub, before, (), (), mended(before))
    after = read_remote(hub)
    assert after.record.shards[lost.path].digest == NO_DIGEST and not after.to_mend
    assert len(after.record.shards) == 2


def test_a_line_that_somebody_else_has_written_meanwhile_counts_and_not_the_one_that_was_read(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(2)
    before, lost = with_a_lost_line(hub, staging, receipts)
    publish(hub, staging, [lost], besides())
    commit(hub, before, (), (), mended(before))
    assert read_remote(hub).record.shards[lost.path] == lost.line()


def test_a_shard_that_is_published_has_its_own_line_and_not_the_one_that_was_read(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(2)
    before, lost = with_a_lost_line(hub, staging, receipts)
    publish(hub, staging, [lost], mended(before), before)
    assert read_remote(hub).record.shards[lost.path] == lost.line()


def test_a_commit_whose_answer_was_lost_had_not_landed_if_the_line_that_was_read_is_not_there(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged
) -> None:
    before, lost = with_a_lost_line(hub, staging, staged(2))
    breakable.break_on({"fault": "status", "status": 500, "path": "/commit/", "times": 1})
    with pytest.raises(Transient):
        commit(hub, before, (), (), mended(before))
    commit(hub, before, (), (), mended(before))
    assert lost.path in read_remote(hub).record.shards
