"""What a commit is to bring, what is left of it once others have committed, and what is still to be brought after it.

What it does on a Hub is in `tests/test_fencing.py`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from hashlib import sha256

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.utils.sha import git_hash

from tasks.commit import overtaken
from tasks.commit.batch import Batch, landed
from tasks.commit.other_files import Besides, as_recorded, holds, outdated
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.record.record_files import WHOLE
from tasks.record.remote import CARD, INDEX, RECORD, Correction, Remote
from tasks.record.removals import as_file
from tasks.report.evidence import RemovalPlan
from tasks.values.models import (
    DatasetIdentity,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    PublishedText,
)

DATASET = DatasetIdentity(name="Aphasia", subjects=2, images=4, size=100)
OTHER = DATASET.model_copy(update={"name": "Another"})
COMMIT = "c" * 40
A, B, C = (f"data/sub-{name}/sub-{name}.parquet" for name in "abc")
README, CHANGES = "bids/README", "bids/CHANGES"


def line(path: str, version: int = 1) -> PublishedShard:
    return PublishedShard(path=path, digest="0" * 64, sha256=f"{version:064x}", size=1, rows=0, images=())


def record_of(*shards: PublishedShard, **texts: bytes) -> PublicationRecord:
    return PublicationRecord().updated(shards, (), as_recorded({f"bids/{name}": data for name, data in texts.items()}))


def card_of(record: PublicationRecord, existing: str | None) -> str:
    return f"{len(record.shards)} shards\n"


def besides(**texts: bytes) -> Besides:
    files = {f"bids/{name}": data for name, data in texts.items()}
    return Besides(card_of, files, as_recorded(files), DATASET)


def batch(of: Besides, *shards: PublishedShard, deleted: tuple[str, ...] = (), forget: tuple[str, ...] = ()) -> Batch:
    return Batch(shards, (), of.texts, tuple(CommitOperationDelete(path) for path in deleted), (*deleted, *forget), of)


def remote(record: PublicationRecord, **changed: object) -> Remote:
    return replace(Remote(COMMIT, record, card_of(record, None)), **changed)  # type: ignore[arg-type]


# Which of it somebody else has published since it was planned.


@pytest.mark.parametrize(
    ("planned", "now", "late"),
    [
        pytest.param([], [], set(), id="nothing there before and nothing now"),
        pytest.param([line(A, 1)], [line(A, 1)], set(), id="the line that it is to take the place of"),
        pytest.param([line(A, 1)], [line(A, 2)], set(), id="the line that it would write"),
        pytest.param([], [line(A, 2)], set(), id="the line that it would write, new"),
        pytest.param([line(A, 1)], [line(A, 3)], {A}, id="a third one"),
        pytest.param([], [line(A, 3)], {A}, id="a new one"),
        pytest.param([line(A, 1)], [], {A}, id="taken out by somebody"),
        pytest.param([line(B, 1)], [line(B, 3)], set(), id="a line that it does not write"),
        pytest.param([line(A, 1), line(C, 1)], [line(A, 3), line(C, 3)], {A}, id="one that it writes and one not"),
    ],
)
def test_a_line_is_overtaken_if_it_is_neither_as_planned_from_nor_as_it_would_be_written(
    planned: list[PublishedShard], now: list[PublishedShard], late: set[str]
) -> None:
    of = replace(besides(), planned=record_of(*planned))
    assert overtaken(of, record_of(*now), [line(A, 2)]) == late


@pytest.mark.parametrize(
    ("planned", "now", "late"),
    [
        pytest.param({}, {}, set(), id="nothing there before and nothing now"),
        pytest.param({"README": b"1"}, {"README": b"1"}, set(), id="the text that it is to take the place of"),
        pytest.param({"README": b"1"}, {"README": b"2"}, set(), id="the text that it would write"),
        pytest.param({"README": b"1"}, {"README": b"3"}, {README}, id="a third one"),
        pytest.param({}, {"README": b"3"}, {README}, id="a new one"),
        pytest.param({"README": b"1"}, {}, {README}, id="taken out by somebody"),
        pytest.param({"CHANGES": b"1"}, {"CHANGES": b"3"}, set(), id="a text that it does not write"),
    ],
)
def test_a_text_is_overtaken_if_it_is_neither_as_planned_from_nor_as_it_would_be_written(
    planned: dict[str, bytes], now: dict[str, bytes], late: set[str]
) -> None:
    of = replace(
        besides(README=b"2"), recorded=as_recorded({README: b"2", CHANGES: b"1"}), planned=record_of(**planned)
    )
    assert overtaken(of, record_of(**now), []) == late


def test_a_line_to_be_dropped_is_overtaken_if_somebody_else_has_written_it_anew() -> None:
    was = record_of(line(A), line(B), README=b"1", CHANGES=b"1")
    lost = {A: "", B: "", README: "", CHANGES: ""}
    of = replace(besides(), recorded=as_recorded({README: b"1"}), lost=lost, planned=was)
    assert overtaken(of, was, []) == set()
    now = record_of(line(A), line(B, 2), README=b"1", CHANGES=b"2")
    assert overtaken(of, now, []) == {B, CHANGES}
    assert overtaken(of, record_of(), []) == set()  # somebody has dropped them already


def test_a_plan_that_names_no_record_was_made_from_the_present_one() -> None:
    assert overtaken(besides(README=b"2"), record_of(line(A), README=b"1"), [line(A, 2)]) == set()


def test_a_plan_that_was_made_from_an_empty_record_was_made_from_that_one() -> None:
    of = replace(besides(README=b"2"), planned=PublicationRecord())
    assert overtaken(of, record_of(line(A), README=b"1"), [line(A, 2)]) == {A, README}


# Whether there is anything to do.


NOTHING = Besides(card_of, {}, as_recorded({README: b"1"}), DATASET)
THERE = remote(record_of(line(A), README=b"1").updated(dataset=DATASET))
FILE = as_file(line(A))


def test_where_everything_is_as_it_should_be_there_is_nothing_to_do() -> None:
    assert NOTHING.any(THERE) is False


@pytest.mark.parametrize(
    "changed",
    [
        {"texts": {README: b"1"}},
        {"remove": RemovalPlan(commit=COMMIT, shards={A: FILE})},
        {"lost": {A: "1" * 64}},
        {"record": True},
        {"recorded": as_recorded({README: b"2"})},
        {"recorded": as_recorded({README: b"1", CHANGES: b"1"})},
        {"card_of": lambda record, existing: "another card"},
        {"same_card": lambda card, existing: False},
    ],
    ids=["a text", "a removal", "a lost line", "the record", "a changed text", "a new text", "a card", "no same card"],
)
def test_each_thing_that_is_to_be_brought_is_something_to_do(changed: dict[str, object]) -> None:
    assert replace(NOTHING, **changed).any(THERE) is True  # type: ignore[arg-type]


def test_the_identity_of_the_dataset_is_something_to_do_only_where_the_record_has_none() -> None:
    nameless = remote(record_of(line(A), README=b"1"))
    assert NOTHING.any(nameless) is True
    assert replace(NOTHING, dataset=None).any(nameless) is False
    assert replace(NOTHING, dataset=OTHER).any(THERE) is False


def test_rows_alone_that_leave_their_shards_are_brought_by_the_shards() -> None:
    rows = RemovalPlan(commit=COMMIT, rows={A: ("sub-a/anat/sub-a_T1w.nii.gz",)})
    assert replace(NOTHING, remove=rows).any(THERE) is False


def test_a_card_is_made_from_the_record_and_the_present_card_and_compared_with_that() -> None:
    def card(record: PublicationRecord, existing: str | None) -> str:
        return f"{sorted(record.shards)} {existing}"

    seen: list[tuple[str, str | None]] = []

    def same(made: str, existing: str | None) -> bool:
        seen.append((made, existing))
        return True

    assert replace(NOTHING, card_of=card, same_card=same).any(THERE) is False
    assert seen == [(f"['{A}'] 1 shards\n", "1 shards\n")]


# What is left after a commit, and after somebody else's.


WHOLE_PLAN = Besides(
    card_of,
    {README: b"1"},
    as_recorded({README: b"1", CHANGES: b"2"}),
    DATASET,
    RemovalPlan(commit=COMMIT, shards={A: FILE}),
    {B: "1" * 64},
    record_of(line(A)),
    record=True,
    same_card=lambda card, existing: True,
    leaving={A: ("sub-a/anat/sub-a_T1w.nii.gz",)},
)


def test_after_a_commit_only_what_goes_into_every_commit_is_left() -> None:
    left = WHOLE_PLAN.after_commit()
    assert left == replace(WHOLE_PLAN, texts={}, remove=None, lost={}, record=False)
    assert not left.any(remote(record_of(README=b"1", CHANGES=b"2").updated(dataset=DATASET)))


@pytest.mark.parametrize("damaged", [(), ("line 1: it cannot be read",)])
def test_after_somebody_elses_commit_what_they_have_is_not_sent_and_no_removal_is_left(
    damaged: tuple[str, ...],
) -> None:
    theirs = remote(record_of(line(B)), damaged=damaged)
    texts = {README: b"1", CHANGES: b"2"}
    there, less = listing({README: b"1", CHANGES: b"theirs"}), {A: ("sub-a/anat/sub-a_T2w.nii.gz",)}
    again = WHOLE_PLAN.planned_again(theirs, texts, there, (), less | {B: ("sub-b/anat/sub-b_T1w.nii.gz",)})
    left = replace(WHOLE_PLAN, texts={CHANGES: b"2"}, remove=None, planned=theirs.record, record=bool(damaged))
    assert again == replace(left, leaving=less)  # of the rows that were approved, those that are still to leave
    assert not WHOLE_PLAN.planned_again(theirs, texts, there, (), {}).leaving


def listing(files: Mapping[str, bytes]) -> Listing:
    return Listing(COMMIT, {path: ListedFile(path, len(data), None, git_hash(data)) for path, data in files.items()})


def test_a_text_that_the_repo_does_not_hold_or_holds_with_other_bytes_is_outdated() -> None:
    there = listing({README: b"1", CHANGES: b"2"})
    assert outdated({README: b"1", CHANGES: b"3", "bids/new": b""}, there) == {CHANGES: b"3", "bids/new": b""}
    assert outdated({README: b"1", CHANGES: b"2"}, there) == {}
    assert not holds(None, b"")


def test_texts_are_recorded_in_the_order_of_their_paths_with_size_and_sha256() -> None:
    assert as_recorded({README: b"read me", CHANGES: b""}) == (
        PublishedText(path=CHANGES, size=0, sha256=sha256(b"").hexdigest()),
        PublishedText(path=README, size=7, sha256=sha256(b"read me").hexdigest()),
    )


@pytest.mark.parametrize("path", ["README.md", RECORD, "bids/record/index.json", "bids/../README", "notes.md"])
def test_a_text_whose_path_is_none_of_ours_is_in_no_record(path: str) -> None:
    assert as_recorded({path: b"1"}) == ()


# One commit.


@pytest.mark.parametrize(
    ("one", "any_left"),
    [
        (batch(besides()), False),
        (batch(besides(), line(A)), True),
        (batch(besides(README=b"1")), True),
        (batch(besides(), forget=(A,)), True),
    ],
)
def test_a_commit_is_for_shards_texts_or_lines_to_be_dropped(one: Batch, any_left: bool) -> None:
    assert one.any() is any_left


def test_what_others_have_changed_since_is_not_recorded_and_what_was_there_already_is() -> None:
    of = replace(besides(README=b"2", CHANGES=b"2"), recorded=as_recorded({README: b"2", CHANGES: b"2", "bids/x": b""}))
    without = replace(batch(of), texts={README: b"2"})
    assert [text.path for text in without.recorded_texts()] == [README, "bids/x"]
    assert batch(of).recorded_texts() == of.recorded


def test_the_record_after_a_commit_has_its_lines_its_texts_and_the_dataset_and_not_what_leaves() -> None:
    before = record_of(line(A), line(B), README=b"1", CHANGES=b"1")
    one = batch(besides(README=b"2"), line(C), deleted=(A,), forget=(CHANGES,))
    change = one.record(remote(before.updated(dataset=OTHER)))
    record = change.record
    assert record.shards == {B: line(B), C: line(C)}
    assert record.texts == {README: as_recorded({README: b"2"})[0]}
    assert record.dataset == DATASET
    assert change.written == {RECORD: record.dump()}


def large() -> PublicationRecord:
    """The record of a repo whose first file holds more than is written whole by each commit."""
    shards = [line(f"data/sub-{number}/sub-{number}.parquet") for number in range(WHOLE // 150)]
    text = PublicationRecord().updated(shards).dump()
    assert len(text) > WHOLE
    return PublicationRecord.read(text)[0]


def test_a_commit_to_a_large_record_writes_the_lines_that_it_changes_and_no_others() -> None:
    before, there = large(), "data/sub-7/sub-7.parquet"
    one = batch(besides(), line(A), forget=(there, "bids/text", "data/sub-gone/sub-gone.parquet"))
    (data,) = one.record(remote(before)).written.values()
    assert [part.split(b'"path":"')[1].split(b'"')[0].decode() for part in data.splitlines()] == [there, A]


def test_a_commit_of_texts_alone_writes_no_line_of_a_large_record() -> None:
    assert batch(besides(README=b"2")).record(remote(large())).written == {}


@pytest.mark.parametrize("why", ["damaged", "asked for"])
def test_a_damaged_record_is_written_anew_however_large(why: str) -> None:
    before, of = remote(large()), replace(besides(), record=why == "asked for")
    if why == "damaged":
        before = replace(before, damaged=("line 1: it cannot be read",))
    change = batch(of, line(A)).record(before)
    assert change.written == {RECORD: change.record.dump()}


# Whether all of it is there, so that only the commit's answer was lost.


class Lists(Hub):
    """A Hub that lists these files at the commit, and is asked for nothing else."""

    def __init__(self, files: Mapping[str, ListedFile]) -> None:
        super().__init__(Target("http://nobody-is-asked.invalid", "lab/data"), "a token")
        self.__dict__["files"] = files

    def listed(self, paths: Sequence[str], commit: str) -> dict[str, ListedFile]:
        assert commit == COMMIT
        return {path: self.__dict__["files"][path] for path in paths if path in self.__dict__["files"]}


SENT = line(C)
#: A commit that publishes a shard and a text, removes a shard, and forgets a line of another one and of a text.
SENDS = batch(besides(README=b"new"), SENT, deleted=(A,), forget=(B, CHANGES))
AFTER = remote(PublicationRecord().updated([SENT], (), as_recorded({README: b"new"}), DATASET))
FILES: dict[str, ListedFile] = {
    C: ListedFile(C, SENT.size, SENT.sha256),
    README: ListedFile(README, 3, None, git_hash(b"new")),
    **{path: ListedFile(path, 1, None, "0" * 40) for path in (RECORD, INDEX, CARD)},
}


def test_a_commit_of_which_everything_is_there_has_landed_whatever_else_is_there() -> None:
    assert landed(Lists(FILES), AFTER, SENDS)
    more = AFTER.record.updated([line("data/sub-d/sub-d.parquet")], (), as_recorded({"bids/x": b""}))
    assert landed(Lists({**FILES, "notes.md": FILES[CARD]}), remote(more), SENDS)


@pytest.mark.parametrize(
    "found",
    [
        pytest.param(AFTER.record.updated([line(C, 2)]), id="another line of the shard"),
        pytest.param(AFTER.record.updated(remove=[C]), id="no line of the shard"),
        pytest.param(AFTER.record.updated(texts=as_recorded({README: b"old"})), id="another line of the text"),
        pytest.param(AFTER.record.updated(remove=[README]), id="no line of the text"),
        pytest.param(AFTER.record.updated([line(A)]), id="the line of the removed shard"),
        pytest.param(AFTER.record.updated([line(B)]), id="the line of the forgotten shard"),
        pytest.param(AFTER.record.updated(texts=as_recorded({CHANGES: b""})), id="the line of the forgotten text"),
        pytest.param(AFTER.record.updated(dataset=OTHER), id="another dataset"),
        pytest.param(AFTER.record.model_copy(update={"dataset": None}), id="no dataset"),
    ],
)
def test_a_commit_has_not_landed_while_the_record_says_anything_else_than_it_was_to(found: PublicationRecord) -> None:
    assert not landed(Lists(FILES), remote(found), SENDS)


@pytest.mark.parametrize("path", [C, README, RECORD, INDEX, CARD])
def test_a_commit_has_not_landed_while_a_file_of_it_is_missing(path: str) -> None:
    assert not landed(Lists({one: file for one, file in FILES.items() if one != path}), AFTER, SENDS)


@pytest.mark.parametrize(
    "file",
    [
        pytest.param(ListedFile(C, SENT.size + 1, SENT.sha256), id="a shard of another size"),
        pytest.param(ListedFile(C, SENT.size, "9" * 64), id="a shard with other bytes"),
        pytest.param(ListedFile(C, SENT.size, None, "0" * 40), id="a shard in git itself"),
        pytest.param(ListedFile(README, 3, None, git_hash(b"old")), id="a text with other bytes"),
        pytest.param(ListedFile(A, 1, line(A).sha256), id="the file that was to be removed"),
    ],
)
def test_a_commit_has_not_landed_while_a_file_is_not_as_it_was_to_be(file: ListedFile) -> None:
    assert not landed(Lists({**FILES, file.path: file}), AFTER, SENDS)


def test_a_commit_has_landed_only_with_a_card_that_says_what_its_own_would() -> None:
    edited = replace(AFTER, card="1 shards\nedited\n")
    assert not landed(Lists(FILES), edited, SENDS)
    assert not landed(Lists(FILES), replace(AFTER, card=None), SENDS)

    def keeps_the_rest(record: PublicationRecord, existing: str | None) -> str:
        return f"{len(record.shards)} shards\n" + (existing or "").partition("\n")[2]

    assert landed(Lists(FILES), edited, replace(SENDS, besides=replace(SENDS.besides, card_of=keeps_the_rest)))
    alike = replace(SENDS.besides, same_card=lambda made, existing: made[:8] == (existing or "")[:8])
    assert landed(Lists(FILES), edited, replace(SENDS, besides=alike))


def test_a_commit_that_mends_the_record_has_landed_once_no_line_is_damaged() -> None:
    mends = replace(SENDS, besides=replace(SENDS.besides, record=True))
    damaged = replace(AFTER, damaged=("line 1: it cannot be read",))
    assert landed(Lists(FILES), AFTER, mends) and not landed(Lists(FILES), damaged, mends)
    assert landed(Lists(FILES), damaged, SENDS)  # it was not to mend anything


def test_a_commit_of_the_record_and_the_card_alone_has_landed_once_they_are_there() -> None:
    alone = {path: FILES[path] for path in (RECORD, INDEX, CARD)}
    assert landed(Lists(alone), remote(PublicationRecord()), batch(Besides(card_of, {})))


def test_a_commit_that_names_no_dataset_has_landed_whichever_the_record_names() -> None:
    nameless = replace(SENDS, besides=replace(SENDS.besides, dataset=None))
    assert landed(Lists(FILES), AFTER, nameless)


# What is taken up of a plan.


def test_of_a_plan_only_what_nobody_else_has_changed_is_sent_and_recorded() -> None:
    sent = [CommitOperationAdd(path, b"") for path in (A, B)]
    of = replace(besides(README=b"1", CHANGES=b"2"), lost={C: line(C).sha256})
    before = remote(record_of(line(C)))
    one = Batch.of(Lists({}), before, [line(A), line(B)], sent, of, frozenset([A, README, C]))
    assert (one.shards, one.sent, one.texts) == ((line(B),), (sent[1],), {CHANGES: b"2"})
    assert not one.forget and not one.deletions
    assert one.besides == of  # what has landed is judged by all of the plan


def test_a_line_of_the_record_is_dropped_only_where_it_is_as_planned_and_stands_for_no_file() -> None:
    of = replace(besides(), lost={A: line(A).sha256, B: line(B).sha256, C: "9" * 64, README: "8" * 64, "no/line": ""})
    lost_text = as_recorded({CHANGES: b"1"})[0]
    of = replace(of, lost={**of.lost, CHANGES: lost_text.sha256})
    before = remote(record_of(line(A), line(B), line(C), README=b"1", CHANGES=b"1"))
    there = {B: ListedFile(B, 1, line(B).sha256)}
    assert Batch.of(Lists(there), before, [], [], of, frozenset()).forget == (A, CHANGES)


def test_what_a_person_approved_to_be_removed_leaves_with_its_line() -> None:
    before = remote(record_of(line(A), line(B)))
    of = replace(besides(), remove=RemovalPlan(commit=COMMIT, shards={A: as_file(line(A))}))
    one = Batch.of(Lists({}), before, [], [], of, frozenset())
    assert one.forget == one.removed == (A,)


def test_a_line_that_was_read_from_a_shard_is_written_only_where_the_commit_neither_brings_nor_removes_that_shard() -> (
    None
):
    before = remote(record_of(line(A), line(B), line(C)))
    read = tuple(Correction(line(path), line(path, 2)) for path in (A, B, C))
    of = replace(besides(), corrected=read, remove=RemovalPlan(commit=COMMIT, shards={B: as_file(line(B))}))
    one = Batch.of(Lists({}), before, [line(A, 3)], [], of, frozenset())
    assert one.corrected == (line(C, 2),)
