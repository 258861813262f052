"""The values of a gate: what it showed, what is still so, and a verification that failed."""

from pathlib import Path

import pytest

from tasks.disk.failed_shards import FailedShard, Failure
from tasks.disk.staging import Staging, receipt_name
from tasks.report.evidence import (
    Approval,
    Choice,
    Gate,
    RemovalPlan,
    ShardCheck,
    Shown,
    VerificationFailed,
    VerificationReport,
    copies,
    not_as_shown,
    receipts_at,
    shown_as,
    still_there,
)
from tasks.values.models import Receipt
from tests.test_failed_shards import NOW, failure

SHARD = b"four"


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging(tmp_path / "target")


def staged(staging: Staging, name: str, data: bytes | None = SHARD) -> Receipt:
    """A shard in the staging folder with its receipt, which says that it has four bytes."""
    receipt = Receipt(
        path=f"data/{name}/{name}.parquet",
        digest="d" * 64,
        sha256="f" * 64,
        size=len(SHARD),
        rows=2,
        images=(),
        name=name,
        file=f"shards/{name}/{name}.{'d' * 12}.parquet",
    )
    file = staging.folder / receipt.file
    file.parent.mkdir(parents=True)
    if data is not None:
        file.write_bytes(data)
    (staging.folder / receipt_name(receipt)).write_text(receipt.model_dump_json())
    return receipt


def test_a_gate_shows_a_shard_by_its_file_its_path_in_the_repo_and_its_bytes(staging: Staging) -> None:
    assert shown_as(staged(staging, "sub-a")) == Shown(
        file=f"shards/sub-a/sub-a.{'d' * 12}.parquet", path="data/sub-a/sub-a.parquet", size=4, sha256="f" * 64
    )


def test_a_shard_with_another_size_or_none_is_no_copy(staging: Staging) -> None:
    whole = staged(staging, "sub-a")
    others = [staged(staging, "sub-b", b"five!"), staged(staging, "sub-c", b""), staged(staging, "sub-d", None)]
    assert copies(staging, [*others, whole]) == [whole]
    (staging.folder / whole.file).rename(staging.folder / "elsewhere")
    (staging.folder / whole.file).symlink_to(staging.folder / "elsewhere")
    assert copies(staging, [whole]) == []


def test_shards_that_are_gone_have_another_size_or_another_receipt_are_not_as_a_gate_showed_them(
    staging: Staging,
) -> None:
    receipts = [staged(staging, f"sub-{letter}") for letter in "abcd"]
    gate = Gate(flow_run_id="1", flow_run_name="push", shown=tuple(map(shown_as, receipts)))
    assert not_as_shown(staging, gate) == []

    _, gone, grown, anew = receipts
    (staging.folder / gone.file).unlink()
    (staging.folder / grown.file).write_bytes(b"five!")
    receipt = anew.model_copy(update={"sha256": "e" * 64})
    (staging.folder / receipt_name(anew)).write_text(receipt.model_dump_json())
    assert not_as_shown(staging, gate) == [shown_as(gone), shown_as(grown), shown_as(anew)]
    showed = receipts_at(staging, gate)  # one whose copy is gone is verified on the Hub all the same
    assert [receipt.name for receipt in showed] == ["sub-a", "sub-b", "sub-c"]
    assert [receipt.name for receipt in still_there(showed, not_as_shown(staging, gate))] == ["sub-a"]


def report(*failures: Failure, right: int = 0) -> VerificationReport:
    checks = tuple(
        ShardCheck(path=f"data/{number}", size=1, sha256="f" * 64, rows=1, how="listing") for number in range(right)
    )
    return VerificationReport(
        repo_id="lab/study", revision="main", commit="c" * 40, level="sample", checks=checks, failures=failures
    )


def test_a_verification_in_which_nothing_failed_is_returned_as_it_is() -> None:
    good = report(right=2)
    assert good.require_good() is good


@pytest.mark.parametrize(
    ("names", "right", "first"),
    [
        (["sub-a"], 0, "1 of 1 is not on the Hub as it should be, at commit cccccccccccc of lab/study. Nothing was"),
        (["sub-a"], 2, "1 of 3 is not on the Hub as it should be, at commit cccccccccccc of lab/study. Nothing was"),
        (["sub-a", "sub-b"], 3, "2 of 5 are not on the Hub as they should be, at commit cccccccccccc of lab/study. "),
    ],
)
def test_a_verification_that_failed_says_of_how_many_at_which_commit_and_what_is_left_of_each(
    names: list[str], right: int, first: str
) -> None:
    before = {"data/sub-a/sub-a.parquet": FailedShard(**failure("sub-a").model_dump(), since=NOW, commit="b" * 40)}
    failed = report(*map(failure, names), right=right)
    with pytest.raises(VerificationFailed) as error:
        failed.require_good(before, lambda one: f"STAGED {one.path}.")
    said = str(error.value)
    assert said.startswith(first) and "Nothing was deleted, and no gate was opened.\n" in said
    assert "failed since 2026-11-24" in said
    assert all(f"STAGED data/{name}/{name}.parquet." in said for name in names)
    with pytest.raises(VerificationFailed) as error:
        failed.require_good()
    assert "since" not in str(error.value) and "STAGED" not in str(error.value)


@pytest.mark.parametrize(
    ("what", "there"),
    [
        ({}, False),
        ({"pictures": ("pictures/anat_T1w.png",), "kept": ({"file": "a", "why": "b"},)}, False),
        ({"shards": {"data/sub-1/sub-1.parquet": {"size": 9, "sha256": "f" * 64}}}, True),
        ({"texts": {"bids/x.tsv": {"size": 9, "sha256": "f" * 64}}}, True),
        ({"rows": {"data/sub-1/sub-1.parquet": ("a",)}}, True),
    ],
)
def test_a_plan_of_a_removal_is_one_if_a_shard_a_text_or_rows_leave_by_it(what: dict[str, object], there: bool) -> None:
    assert bool(RemovalPlan.model_validate({"commit": "c" * 40, **what})) is there


@pytest.mark.parametrize(
    ("opened", "by", "counts"), [("c" * 40, "1", True), ("c" * 40, "2", False), (None, "1", False), (None, "2", False)]
)
def test_an_approval_counts_at_the_gate_of_its_own_run_once_that_was_opened(
    opened: str | None, by: str, counts: bool
) -> None:
    gate = Gate(flow_run_id="1", flow_run_name="push", opened_at_commit=opened)
    assert gate.is_answered_by(Approval(flow_run_id=by, decision=Choice.DELETE)) is counts
