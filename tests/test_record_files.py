"""The files of a large record: what commits write, what a reader needs, and what somebody else does to them."""

import random
from collections.abc import Iterator

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from hypothesis import given
from hypothesis import strategies as st

from tasks.commit import commit
from tasks.commit.other_files import Besides
from tasks.hub.client import Hub
from tasks.record.drift import drift_around
from tasks.record.record_files import FAN, WHOLE, RecordChange, files_to_write, in_order, is_segment
from tasks.record.remote import INDEX, RECORD, read_remote
from tasks.remove import RemovalRefused, merged_segments
from tasks.values.models import PublicationRecord, PublishedShard, RecordFile, segments_in

SMALL = 2_000  # bytes up to which the records of these tests are one file
FIRST, LATER = "bids/record/lines-000001-0.jsonl", "bids/record/lines-000002-0.jsonl"


def line(number: int, version: int = 0, images: int = 1) -> PublishedShard:
    """A shard's line of some 300 bytes; each version is another one."""
    path = f"data/sub-{number}/sub-{number}.parquet"
    one = {"path": f"sub-{number}/anat/sub-{number}_T1w.nii.gz", "size": 9, "sha256": "b" * 64}
    of = {"path": path, "digest": f"{version:064x}", "sha256": f"{number:064x}", "size": 10, "rows": images}
    return PublishedShard.model_validate({**of, "images": tuple(one for _ in range(images))})


class Files:
    """The record's files as a repo has them, and what was written to it so far."""

    def __init__(self) -> None:
        self.there: dict[str, bytes] = {}
        self.index = b""
        self.written = 0

    def take(self, made: RecordChange) -> None:
        """Have a commit do to the files what it is to do."""
        merged = {one.path_in_repo for one in merged_segments(made)}
        assert merged <= self.there.keys() and not merged & made.written.keys()
        self.there = {path: data for path, data in self.there.items() if path not in merged} | made.written
        self.index = made.record.dump_index()
        self.written += sum(map(len, made.written.values()))
        assert self.read().files == tuple(file for file in made.record.files if file.size)

    def read(self) -> PublicationRecord:
        """Read the record as anybody does: by the index."""
        segments = {path: self.there[path] for path in segments_in(self.index) or ()}
        assert list(segments) == in_order(self.there)
        record, damaged = PublicationRecord.read(self.there.get(RECORD, b""), self.index, segments=segments)
        assert not damaged and [file.path for file in record.files[1:]] == list(segments)
        return record

    def commit(self, add: list[PublishedShard], remove: frozenset[str] = frozenset(), whole: int = SMALL) -> None:
        """Do what a commit does: on top of what is there."""
        before = self.read()
        after = before.updated(add, remove)
        self.take(files_to_write(before, after, {one.path for one in add} | remove & before.shards.keys(), whole=whole))


NUMBERS = st.integers(0, 30)


@given(st.lists(st.tuples(st.lists(NUMBERS, max_size=8), st.sets(NUMBERS, max_size=3)), max_size=40))
def test_whatever_is_committed_the_files_say_the_same_as_one_file_would(
    commits: list[tuple[list[int], set[int]]],
) -> None:
    files, should = Files(), dict[str, PublishedShard]()
    for version, (add, remove) in enumerate(commits):
        lines = {one.path: one for one in (line(number, version) for number in add)}
        gone = frozenset(line(number).path for number in remove) - lines.keys()
        files.commit(list(lines.values()), gone)
        should = {path: one for path, one in should.items() if path not in gone} | lines
        assert files.read().shards == should


def test_segments_are_in_the_order_of_their_numbers_however_long_these_are() -> None:
    paths = [
        f"bids/record/lines-{number}-{level}.jsonl" for number, level in (("000002", 9), ("999999", 0), ("1000000", 1))
    ]
    assert in_order([RECORD, *reversed(paths), "bids/record/index.json"]) == paths


def test_a_record_is_one_file_up_to_that_size_to_the_byte() -> None:
    before = Files()
    before.commit([line(number) for number in range(4)])
    record = before.read()
    added = [line(4)]
    after = record.updated(added)
    whole = len(record.dump()) + len(after.dump_lines({added[0].path}))
    made = files_to_write(record, after, {added[0].path}, whole=whole)
    assert made.written.keys() == {RECORD}
    made = files_to_write(record, after, {added[0].path}, whole=whole - 1)
    assert made.written.keys() == {FIRST} and made.record.files[0] == record.files[0]


def test_segments_that_hold_more_than_the_first_file_become_it() -> None:
    """As many bytes as it has may be beside it, and not one more."""
    files = Files()
    files.commit([line(number) for number in range(10, 18)], whole=0)
    for number in range(18, 26):  # each line has the same length
        files.commit([line(number)], whole=0)
    assert len(files.read().files) > 1 and len(files.there[RECORD].splitlines()) == 8
    files.commit([line(26)], whole=0)
    assert files.there.keys() == {RECORD} and len(files.there[RECORD].splitlines()) == 17


def test_eight_segments_of_a_level_become_one_of_the_next() -> None:
    files = Files()
    files.commit([line(number) for number in range(100, 300)])
    seen = []
    for number in range(66):
        files.commit([line(number + 10)])
        seen.append([(file.path[-14:-8], int(file.path[-7])) for file in files.read().files[1:]])
    levels = [[level for _, level in one] for one in seen]
    assert levels[0] == [0] and levels[6] == [0] * 7 and levels[7] == [1] and levels[8] == [1, 0]
    assert levels[55] == [1] * 7 and levels[62] == [1] * 7 + [0] * 7 and levels[63] == [2] and levels[65] == [2, 0, 0]
    assert [name for name, _ in seen[1]] == ["000001", "000002"]


def test_a_record_that_is_small_is_one_file_as_ever() -> None:
    files = Files()
    for number in range(4):
        files.commit([line(number)])
    assert files.there.keys() == {RECORD} and b"segments" not in files.index


def test_commits_cost_by_their_batch_and_not_by_the_dataset() -> None:
    """Twice the shards in twice the commits: twice the bytes, and not four times; and few files to read."""
    costs, most = [], 0
    for commits in (80, 160):
        files = Files()
        for number in range(commits):
            files.commit([line(5 * number + one) for one in range(5)])
            most = max(most, len(files.there))
        size = sum(map(len, files.there.values()))
        assert len(files.read().shards) == 5 * commits
        costs.append(files.written / size)
    assert costs[1] < 1.5 * costs[0] < 12 and most <= 3 * FAN, (costs, most)


def test_a_shard_that_is_written_again_in_each_commit_does_not_make_the_record_grow() -> None:
    files = Files()
    for number in range(50):
        files.commit([line(number)])
    for version in range(500):
        files.commit([line(7, version)])
    size = sum(map(len, files.there.values()))
    assert size <= 2.2 * len(files.read().dump()) and len(files.there) <= 3 * FAN


def test_a_commit_that_changes_no_line_of_a_large_record_writes_none() -> None:
    files = Files()
    for number in range(50):
        files.commit([line(number)])
    before = files.read()
    made = files_to_write(before, before, (), whole=SMALL)
    assert not made.written and not made.merged and made.record.files == before.files


def test_a_damaged_record_is_written_anew_as_one_file() -> None:
    files = Files()
    for number in range(50):
        files.commit([line(number)])
    before = files.read()
    assert len(before.files) > 1
    made = files_to_write(before, before, (), anew=True, whole=SMALL)
    assert made.written == {RECORD: before.dump()} and made.merged == before.files[1:]


@pytest.mark.parametrize(
    "path", ["bids/record/index.json", "bids/record/lines-1-0.jsonl", "bids/record/../lines-000001-0.jsonl",
             "bids/record/lines-000001-0.jsonl/x", "data/lines-000001-0.jsonl", RECORD]
)  # fmt: skip
def test_nothing_but_a_segment_is_taken_for_one(path: str) -> None:
    assert not is_segment(path) and is_segment(FIRST)


@pytest.mark.parametrize(
    "merged",
    [
        RecordFile(path="data/sub-1/sub-1.parquet"),
        RecordFile(path=RECORD),
        RecordFile(path="bids/record/mine.jsonl"),
        RecordFile(path=LATER, shards=(line(1).path, line(2).path)),
    ],
)
def test_nothing_leaves_the_repo_but_a_segment_whose_lines_the_commit_writes(merged: RecordFile) -> None:
    segment = RecordFile(path="bids/record/lines-000003-1.jsonl", shards=(line(1).path,))
    record = PublicationRecord(files=(RecordFile(path=RECORD), segment))
    for other in ((), (RecordFile(path=FIRST, shards=(line(1).path,)),)):
        with pytest.raises(RemovalRefused, match=r"no segment of the record.*Nothing was removed"):
            merged_segments(RecordChange(record, {segment.path: b""}, (*other, merged)))


# On a Hub.


def shards(numbers: Iterator[int] | range, images: int = 2_000) -> list[PublishedShard]:
    """Lines of a quarter of a megabyte each."""
    return [line(number, images=images) for number in numbers]


def bring(hub: Hub, lines: list[PublishedShard]) -> PublicationRecord:
    """Commit these shards, and return the record that anybody reads then."""
    files = [CommitOperationAdd(one.path, f"shard {one.path} {one.digest}".encode()) for one in lines]
    commit(hub, read_remote(hub), lines, files, Besides(lambda record, card: "---\n---\n", {}))
    remote = read_remote(hub)
    assert not remote.damaged
    return remote.record


def paths(hub: Hub) -> set[str]:
    """The files of the record in the repo."""
    return {path for path in hub.listing(hub.head()).files if path == RECORD or is_segment(path)}


def test_on_a_hub_a_large_record_is_committed_in_segments_read_back_and_merged_in_the_same_commit(hub: Hub) -> None:
    record = bring(hub, shards(range(8)))
    assert len(hub.read(RECORD, hub.head()) or b"") > WHOLE and paths(hub) == {RECORD}
    first = hub.read(RECORD, hub.head())
    record = bring(hub, shards(range(8, 9)))
    assert paths(hub) == {RECORD, FIRST} and len(record.shards) == 9 and hub.read(RECORD, hub.head()) == first
    again = [line(3, version=1, images=2_000)]
    record = bring(hub, again)
    assert paths(hub) == {RECORD, FIRST, LATER} and record.shards[again[0].path] == again[0]
    record = bring(hub, shards(range(9, 17)))  # more bytes beside the first file than in it
    assert paths(hub) == {RECORD} and len(record.shards) == 17 and record.shards[again[0].path] == again[0]


def test_on_a_hub_an_index_that_cannot_be_read_or_is_gone_costs_no_line(hub: Hub) -> None:
    bring(hub, shards(range(8)))
    whole = bring(hub, shards(range(8, 10)))
    for by_hand in (CommitOperationAdd(INDEX, b"{"), CommitOperationDelete(INDEX)):
        hub.commit([by_hand], "By hand", hub.head())
        assert read_remote(hub).record.shards == whole.shards
    record = bring(hub, shards(range(10, 11)))
    assert len(record.shards) == 11


def test_on_a_hub_a_segment_that_somebody_took_away_or_damaged_is_told_and_the_record_is_mended(hub: Hub) -> None:
    bring(hub, shards(range(8)))
    bring(hub, shards(range(8, 10)))
    hub.commit([CommitOperationDelete(FIRST)], "By hand", hub.head())
    remote = read_remote(hub)
    assert len(remote.record.shards) == 8
    assert remote.damaged == (f"{FIRST}: it is not in the repo; its lines are written anew, with their shards",)
    told = [one.what for one in drift_around(remote, hub.listing(remote.commit), {}, ())]
    assert any(FIRST in what for what in told)
    assert len(bring(hub, shards(range(8, 10))).shards) == 10 and paths(hub) == {RECORD}
    bring(hub, shards(range(10, 11)))
    (segment,) = paths(hub) - {RECORD}
    data = hub.read(segment, hub.head()) or b""
    hub.commit([CommitOperationAdd(segment, data[:1000] + b"\n")], "By hand", hub.head())
    (what,) = read_remote(hub).damaged
    assert what == f"{segment}: line 1: it is that of {line(10).path}, and cannot be read; it is written anew"
    assert len(bring(hub, shards(range(10, 11))).shards) == 11 and paths(hub) == {RECORD}


def test_on_a_hub_what_an_index_names_that_is_no_segment_is_never_read_or_removed(hub: Hub) -> None:
    bring(hub, shards(range(8)))
    theirs = "bids/record/mine.jsonl"
    index = (hub.read(INDEX, hub.head()) or b"").replace(b"{\n", b'{\n "segments": ["data/sub-1/sub-1.parquet"],\n', 1)
    hub.commit([CommitOperationAdd(INDEX, index), CommitOperationAdd(theirs, b"mine")], "By hand", hub.head())
    before = set(hub.listing(hub.head()).files)
    record = bring(hub, shards(range(8, 20)))
    assert len(record.shards) == 20 and before <= set(hub.listing(hub.head()).files)
    assert hub.read(theirs, hub.head()) == b"mine"


def test_a_line_in_a_later_file_counts_whatever_the_order_of_paths_is() -> None:
    draw = random.Random(3)
    files, should = Files(), dict[str, PublishedShard]()
    for version in range(300):
        numbers = draw.sample(range(60), 4)
        files.commit([line(number, version) for number in numbers])
        should |= {line(number).path: line(number, version) for number in numbers}
    assert files.read().shards == should
