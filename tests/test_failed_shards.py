"""The file that does not forget what failed verification: it makes runs stricter, never laxer."""

import json
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
    still_failed,
    write_failed,
)
from tasks.disk.staging import CannotWrite, Staging

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
