"""The file that does not forget what failed verification: it makes runs stricter, never laxer."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tasks.disk.failed_shards import (
    WAY_OUT,
    WHAT,
    Cause,
    FailedShard,
    Failure,
    explained,
    read_failed,
    staged_copy,
    still_failed,
    unsound_shards,
    write_failed,
)
from tasks.disk.staging import CannotWrite, Staging
from tasks.values.models import Receipt

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)
LATER = NOW + timedelta(days=3)


def failure(name: str, cause: Cause = Cause.OTHER_BYTES, what: str = "other bytes") -> Failure:
    return Failure(path=f"data/{name}/{name}.parquet", what=what, cause=cause, size=9, sha256="a" * 64)


A, B, C = failure("sub-a"), failure("sub-b"), failure("sub-c")


def failed(*failures: Failure) -> dict[str, FailedShard]:
    return still_failed({}, failures, (), (), "c" * 40, NOW)


def test_a_shard_leaves_the_list_only_when_its_bytes_were_right_or_the_record_has_it_no_more() -> None:
    before = failed(A, B, C)
    assert set(still_failed(before, [], [], [], "d" * 40, LATER)) == {A.path, B.path, C.path}
    assert set(still_failed(before, [], [A.path], [B.path], "d" * 40, LATER)) == {C.path}


def test_a_shard_that_fails_again_keeps_the_day_since_when_and_tells_what_was_found_last() -> None:
    again = still_failed(failed(A), [failure("sub-a", Cause.CHANGED, "gone"), B], [], [], "d" * 40, LATER)
    assert (again[A.path].since, again[B.path].since) == (NOW, LATER)
    assert (again[A.path].what, again[A.path].cause, again[A.path].commit) == ("gone", Cause.CHANGED, "d" * 40)


def test_what_is_kept_comes_back(staging: Staging) -> None:
    write_failed(staging, failed(A, B))
    assert read_failed(staging) == (failed(A, B), "")
    write_failed(staging, {})
    assert read_failed(staging) == ({}, "")


def test_no_file_is_made_where_nothing_ever_failed(staging: Staging) -> None:
    write_failed(staging, {})
    assert read_failed(staging) == ({}, "") and not staging.failed.exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"shards": 3}', '{"other": []}', "\xff\xfe", "[" * 99_999])
def test_a_damaged_file_is_told_and_knows_nothing(staging: Staging, text: str) -> None:
    staging.folder.mkdir(parents=True)
    staging.failed.write_text(text, encoding="latin-1")
    known, said = read_failed(staging)
    assert not known and str(staging.failed) in said and "verification=full" in said


def test_a_damaged_entry_is_told_and_costs_no_other(staging: Staging) -> None:
    write_failed(staging, failed(A, B))
    entries = json.loads(staging.failed.read_bytes())
    entries["shards"][0].pop("since")
    staging.failed.write_text(json.dumps(entries))
    known, said = read_failed(staging)
    assert set(known) == {B.path} and "is damaged" in said


def test_a_folder_in_the_place_of_the_file_is_told_before_anything_is_called_verified(staging: Staging) -> None:
    staging.failed.mkdir(parents=True)
    (staging.failed / "something").touch()
    assert "is damaged" in read_failed(staging)[1]
    with pytest.raises(CannotWrite):
        write_failed(staging, failed(A))


def test_each_cause_has_its_own_words_and_its_way_out() -> None:
    assert set(WHAT) == set(WAY_OUT) == set(Cause)
    for cause in Cause:
        said = explained([failure("sub-a", cause)], {}, lambda _: "STAGED")
        assert WHAT[cause] in said and WAY_OUT[cause] in said and "data/sub-a/sub-a.parquet: other bytes." in said
        assert ("STAGED" in said) == (cause in (Cause.OTHER_BYTES, Cause.NOT_SERVED))


def test_many_failures_are_told_by_cause_and_the_first_are_named() -> None:
    many = [failure(f"sub-{number:02}") for number in range(25)]
    said = explained([*many, failure("sub-x", Cause.CHANGED)], failed(many[0]), lambda _: "")
    assert "sub-19" in said and "sub-20" not in said and "and 5 more" in said and "sub-x" in said
    assert said.count("failed since 2026-11-24") == 1
    assert said.count(WAY_OUT[Cause.OTHER_BYTES]) == said.count(WAY_OUT[Cause.CHANGED]) == 1


def test_the_file_is_whole_whenever_it_is_read(staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    write_failed(staging, failed(A))

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(Exception, match="is full"):
        write_failed(staging, failed(A, B))
    assert set(read_failed(staging)[0]) == {A.path}


def test_a_sentence_of_each_failure_says_what_was_found_since_when_and_what_is_staged() -> None:
    changed = failure("sub-b", Cause.CHANGED, "it is gone")
    said = explained([A, changed, C], failed(A), lambda one: f"A copy of {one.path} is staged.")
    assert said.splitlines() == [
        f"{WHAT[Cause.CHANGED]}:",
        f"  {changed.path}: it is gone.",
        WAY_OUT[Cause.CHANGED],
        f"{WHAT[Cause.OTHER_BYTES]}:",
        f"  {A.path}: other bytes (failed since 2026-11-24). A copy of {A.path} is staged.",
        f"  {C.path}: other bytes. A copy of {C.path} is staged.",
        WAY_OUT[Cause.OTHER_BYTES],
    ]


def test_as_many_failures_as_are_named_leave_no_more_to_count() -> None:
    assert "more" not in explained([failure(f"sub-{n:02}", Cause.CHANGED) for n in range(20)], {}, lambda _: "")
    many = explained([failure(f"sub-{n:04}", Cause.CHANGED) for n in range(1_021)], {}, lambda _: "")
    assert "\n  and 1,001 more\n" in many


def test_a_damaged_file_is_told_with_all_of_what_it_means(staging: Staging) -> None:
    staging.folder.mkdir(parents=True)
    staging.failed.write_text("{")
    assert read_failed(staging) == (
        {},
        f"{staging.failed} is damaged: shards may have failed verification that are not known any more. A run with "
        "verification=full reads all of them back.",
    )


def test_failed_shards_are_kept_in_the_order_of_their_paths(staging: Staging) -> None:
    write_failed(staging, failed(B, C, A))
    kept = json.loads(staging.failed.read_bytes())["shards"]
    assert [one["path"] for one in kept] == [A.path, B.path, C.path]
    assert kept[0] == {
        "path": A.path,
        "what": "other bytes",
        "cause": "other bytes",
        "size": 9,
        "sha256": "a" * 64,
        "since": "2026-11-24T02:00:00Z",
        "commit": "c" * 40,
    }


def test_a_file_that_cannot_be_written_is_named(staging: Staging) -> None:
    staging.failed.mkdir(parents=True)
    with pytest.raises(CannotWrite, match=str(staging.failed)):
        write_failed(staging, failed(A))


@pytest.mark.parametrize(
    ("count", "said"),
    [
        (0, ""),
        (1, "Failed verification, and not right since: 1 shard: sub-0000."),
        (2, "Failed verification, and not right since: 2 shards: sub-0000, sub-0001."),
        (5, "Failed verification, and not right since: 5 shards: sub-0000, sub-0001, sub-0002, sub-0003, sub-0004."),
        (1_006, "Failed verification, and not right since: 1,006 shards: sub-0000, sub-0001, sub-0002, sub-0003, "
                "sub-0004 and 1,001 more."),
    ],
)  # fmt: skip
def test_shards_that_failed_are_named_by_a_run_that_did_not_look_at_them(count: int, said: str) -> None:
    assert unsound_shards(failed(*(failure(f"sub-{number:04}") for number in reversed(range(count))))) == said


def test_the_staged_copy_of_a_shard_is_looked_at_before_it_is_called_intact(
    staging: Staging, staged: Callable[[int], list[Receipt]]
) -> None:
    other, receipt = staged(2)
    missing = Failure(path=receipt.path, what="not served", size=receipt.size, sha256=receipt.sha256)
    file = staging.folder / receipt.file
    assert staged_copy(staging, missing) == f"It is still staged here, intact: {file}"
    assert staged_copy(staging, missing.model_copy(update={"sha256": "b" * 64})) == "It is not staged here any more."
    assert staged_copy(staging, missing.model_copy(update={"path": other.path})) == "It is not staged here any more."
    file.write_bytes(bytes(receipt.size))
    assert staged_copy(staging, missing) == f"The staged file is not intact: {file}"


def test_of_two_staged_copies_with_the_same_bytes_the_whole_one_is_named_whichever_comes_first(
    staging: Staging, staged: Callable[[int], list[Receipt]]
) -> None:
    (receipt,) = staged(1)
    missing = Failure(path=receipt.path, what="not served", size=receipt.size, sha256=receipt.sha256)
    whole = (staging.folder / receipt.file).read_bytes()
    name = receipt.file.split(".")[0]
    copies = {staging.folder / f"{name}.{digest}.parquet": digest for digest in ("0" * 12, "f" * 12)}
    for copy, digest in copies.items():
        file = copy.relative_to(staging.folder).as_posix()
        copy.write_bytes(whole)
        staging.write_receipt(
            receipt.model_copy(update={"file": file, "digest": digest * 5 + "0000", "identity": None})
        )
    first, last = copies
    for damaged in (first, staging.folder / receipt.file):
        damaged.write_bytes(bytes(receipt.size))
    assert staged_copy(staging, missing) == f"It is still staged here, intact: {last}"
    last.write_bytes(bytes(receipt.size))
    assert staged_copy(staging, missing) == f"The staged file is not intact: {first}"
