"""What a verification says of a listing and a record that the run has read already, without asking the Hub at all.

What the Hub is asked for, and what it sends, is in `tests/test_verify.py`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from hashlib import sha256

import pytest
from huggingface_hub.utils.sha import git_hash

from tasks.disk.failed_shards import Cause, Failure
from tasks.disk.sample_rounds import Round
from tasks.disk.staging import Target
from tasks.hub.ahead import Ahead
from tasks.hub.client import Hub
from tasks.report.evidence import ShardCheck, VerificationReport
from tasks.values.models import ImageContent, ListedFile, Listing, PublicationRecord, PublishedShard
from tasks.verify import ReadBack, Reading, verify

COMMIT = "c" * 40
HUB = Hub(Target("http://nobody-is-asked.invalid", "lab/data", "a-branch"), "a token")
README = "bids/README"


def line(name: str, *files: str) -> PublishedShard:
    """A shard with these files of a session's datatypes."""
    images = tuple(ImageContent(path=f"sub-{name}/{file}", size=1, sha256="b" * 64) for file in files)
    path = f"data/sub-{name}/sub-{name}.parquet"
    shard_sha256 = sha256(path.encode()).hexdigest()
    return PublishedShard(path=path, digest="0" * 64, sha256=shard_sha256, size=100, rows=len(images), images=images)


A = line("a", "anat/sub-a_T1w.nii.gz", "anat/sub-a_T1w.json")
B = line("b", "eeg/sub-b_task-x_eeg.edf", "eeg/sub-b_task-x_eeg.json", "eeg/sub-b_channels.tsv")
C = line("c", "anat/sub-c_T1w.nii.gz")
SHARDS = (A, B, C)


def listed(*shards: PublishedShard, **changed: object) -> dict[str, ListedFile]:
    files = {one.path: ListedFile(one.path, one.size, one.sha256) for one in shards}
    return {path: replace(file, **changed) for path, file in files.items()}  # type: ignore[arg-type]


def read(files: dict[str, ListedFile], *lines: PublishedShard) -> Reading:
    """What a run has read: these files, and a record of these lines."""
    record = PublicationRecord().updated(lines)
    return Reading(Round(datetime.now(UTC), nights=2), commit=COMMIT, read=(record, Listing(COMMIT, files)))


SOUND = read(listed(*SHARDS), *SHARDS)


class Reads(ReadBack):
    """Finds each shard right, and takes as long for it as the clock says."""

    def __init__(self, clock: list[float], seconds: float, size: int) -> None:
        super().__init__()
        self._clock, self._seconds, self._each = clock, seconds, size
        self.order: list[str] = []

    def read(self, ahead: Ahead, shard: PublishedShard, commit: str) -> Failure | None:
        assert commit == COMMIT
        self.order.append(shard.path)
        self.size += self._each
        self._clock[0] += self._seconds
        return None


@pytest.mark.parametrize(
    ("seconds", "numbers"), [(1.0, [5]), (5.0, [3, 5]), (10.0, [2, 4, 5]), (10.5, [1, 2, 3, 4, 5]), (0.0, [5])]
)
def test_the_log_says_at_most_every_ten_seconds_and_at_the_end_how_much_was_read_back(
    seconds: float, numbers: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [3.0]
    monkeypatch.setattr("tasks.verify.monotonic", lambda: clock[0])
    shards = MANY[:5]
    said: list[str] = []
    found = Reads(clock, seconds, 1_500_000_000_000)
    report = verify(HUB, shards, "full", read(listed(*shards), *shards), said.append, found)
    megabytes = ["1,500,000", "3,000,000", "4,500,000", "6,000,000", "7,500,000"]
    assert said == [f"read back {number} of 5 shards, {megabytes[number - 1]} MB" for number in numbers]
    assert found.order == list(report.right) == [shard.path for shard in shards]
    assert report.bytes_read_back == 5 * 1_500_000_000_000


def test_those_that_failed_before_are_read_back_first_and_once() -> None:
    found = Reads([0.0], 0.0, 1)
    verify(HUB, SHARDS, "full", replace(SOUND, failed_before=frozenset([C.path])), found=found)
    assert found.order == [C.path, A.path, B.path]


def failed(reading: Reading, *expected: PublishedShard) -> tuple[Failure, ...]:
    return verify(HUB, expected, "listing", reading).failures


def test_a_report_names_the_target_the_commit_the_level_and_each_shard_with_its_rows_by_kind() -> None:
    said: list[str] = []
    report = verify(HUB, SHARDS, "listing", SOUND, said.append)
    assert report == VerificationReport(
        repo_id="lab/data",
        revision="a-branch",
        commit=COMMIT,
        level="listing",
        checks=(
            ShardCheck(path=A.path, size=100, sha256=A.sha256, rows=2, how="listing", beside=1),
            ShardCheck(path=B.path, size=100, sha256=B.sha256, rows=3, how="listing", recordings=1, beside=2),
            ShardCheck(path=C.path, size=100, sha256=C.sha256, rows=1, how="listing"),
        ),
    )
    assert not said  # nothing was read back


@pytest.mark.parametrize("level", ["sample", "full"])
def test_where_nothing_is_expected_nothing_is_read_back_at_any_level(level: str) -> None:
    report = verify(HUB, (), level, SOUND)  # type: ignore[arg-type]
    assert report == VerificationReport(repo_id="lab/data", revision="a-branch", commit=COMMIT, level=level)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changed", "cause", "what"),
    [
        ({"size": 99}, Cause.CHANGED, "99 bytes in the repo, 100 expected"),
        ({"sha256": "d" * 64}, Cause.CHANGED, f"sha256 dddddddddddd in the repo, {B.sha256[:12]} expected"),
        ({"sha256": None}, Cause.REGULAR, "100 bytes of text, 100 bytes expected"),
        ({"sha256": None, "size": 99}, Cause.REGULAR, "99 bytes of text, 100 bytes expected"),
    ],
)
def test_a_shard_that_the_repo_lists_otherwise_fails_with_what_was_found_and_no_other_does(
    changed: dict[str, object], cause: Cause, what: str
) -> None:
    report = verify(HUB, SHARDS, "listing", read(listed(A, C) | listed(B, **changed), *SHARDS))
    assert report.failures == (Failure(path=B.path, what=what, cause=cause, size=100, sha256=B.sha256),)
    assert [check.path for check in report.checks] == [A.path, C.path]


@pytest.mark.parametrize("lines", [(A, C), (A, B.model_copy(update={"rows": 4}), C)], ids=["none", "another"])
def test_a_shard_of_which_the_record_has_another_line_or_none_fails_and_no_other_does(
    lines: tuple[PublishedShard, ...],
) -> None:
    what = "the record has another line for it, or none"
    assert failed(read(listed(*SHARDS), *lines), *SHARDS) == (
        Failure(path=B.path, what=what, cause=Cause.RECORD, size=100, sha256=B.sha256),
    )


def test_failures_are_in_the_order_of_their_paths_shards_and_texts_together() -> None:
    reading = replace(read(listed(*SHARDS, size=1), *SHARDS), texts={"tables/participants.parquet": b"", README: b""})
    paths = [failure.path for failure in failed(reading, C, A, B)]
    assert paths == [README, A.path, B.path, C.path, "tables/participants.parquet"]


# Shards that a listing lacks are asked for by name: a page of it may be short.


class Asked(Hub):
    """A Hub that has these files if it is asked for them by name."""

    there: frozenset[str] = frozenset()
    asked: tuple[tuple[str, ...], ...] = ()

    def listed(self, paths: Sequence[str], commit: str) -> dict[str, ListedFile]:
        assert commit == COMMIT
        self.asked = (*self.asked, tuple(paths))
        return {path: ListedFile(path, 1, None) for path in paths if path in self.there}


def asked(there: Iterable[str]) -> Asked:
    hub = Asked(HUB.target, HUB.token)
    hub.there = frozenset(there)
    return hub


MANY = tuple(line(f"{number:04}") for number in range(1_002))
SHORT = (Cause.SHORT_LISTING, "it is in the repo, and not in the listing")
GONE = (Cause.CHANGED, "it is not in the repo")


@pytest.mark.parametrize("number", [1, 3, 999, 1_000, 1_001, 1_002])
def test_at_most_a_thousand_shards_that_a_listing_lacks_are_asked_for_and_if_all_are_there_it_was_short(
    number: int,
) -> None:
    hub = asked(shard.path for shard in MANY)
    report = verify(hub, MANY[:number], "listing", read({}, *MANY))
    assert hub.asked == (tuple(shard.path for shard in MANY[:number][:1_000]),)
    assert {(failure.cause, failure.what) for failure in report.failures} == {SHORT}
    assert len(report.failures) == number and not report.checks


def test_where_one_of_those_asked_for_is_not_there_only_those_that_are_were_left_out_of_the_listing() -> None:
    report = verify(asked([A.path]), (A, *MANY), "listing", read({}, A, *MANY))
    causes = {failure.path: (failure.cause, failure.what) for failure in report.failures}
    assert causes == {A.path: SHORT} | {shard.path: GONE for shard in MANY}


def test_where_none_is_there_all_are_gone_and_where_none_is_missing_nothing_is_asked() -> None:
    hub = asked([])
    assert {failure.cause for failure in verify(hub, SHARDS, "listing", read({}, *SHARDS)).failures} == {Cause.CHANGED}
    assert hub.asked == ((A.path, B.path, C.path),)
    hub = asked([])
    assert not verify(hub, SHARDS, "listing", SOUND).failures and not hub.asked


# The dataset's own texts.


@pytest.mark.parametrize(
    ("there", "what"),
    [(None, "it is not in the repo"), (b"read you", "the repo has other text"), (b"short", "the repo has other text")],
)
def test_a_text_that_the_repo_does_not_hold_as_it_is_fails(there: bytes | None, what: str) -> None:
    files = listed(*SHARDS)
    if there is not None:
        files[README] = ListedFile(README, len(there), None, git_hash(there))
    reading = replace(read(files, *SHARDS), texts={README: b"read me."})
    assert failed(reading, *SHARDS) == (
        Failure(path=README, what=what, size=8, sha256=sha256(b"read me.").hexdigest()),
    )


def test_a_text_that_the_repo_holds_as_it_is_does_not_fail() -> None:
    files = listed(*SHARDS) | {README: ListedFile(README, 8, None, git_hash(b"read me."))}
    assert not failed(replace(read(files, *SHARDS), texts={README: b"read me."}), *SHARDS)


# Shards that failed before.


def test_a_shard_that_failed_before_and_is_not_expected_is_looked_at_as_the_record_has_it() -> None:
    reading = replace(read(listed(A, C) | listed(B, size=1), *SHARDS), failed_before=frozenset([B.path]))
    report = verify(HUB, (C,), "listing", reading)
    assert [failure.path for failure in report.failures] == [B.path] and not report.gone
    assert [check.path for check in report.checks] == [C.path]


def test_shards_that_failed_before_and_that_nobody_knows_any_more_are_gone_in_the_order_of_their_paths() -> None:
    gone = [f"data/sub-{name}/sub-{name}.parquet" for name in "zyx"]
    report = verify(HUB, SHARDS, "listing", replace(SOUND, failed_before=frozenset(gone)))
    assert report.gone == tuple(sorted(gone)) and len(report.checks) == 3


def test_a_shard_that_failed_before_is_compared_as_it_is_expected_and_not_as_the_record_has_it() -> None:
    new = B.model_copy(update={"size": 200})
    reading = replace(read(listed(*SHARDS), *SHARDS), failed_before=frozenset([B.path]))
    assert [failure.what for failure in failed(reading, A, new)] == ["100 bytes in the repo, 200 expected"]
