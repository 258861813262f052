"""The code that deletes, tested hardest: what it removes, and everything that it must refuse."""

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.cleanup import NotApproved, execute, plan_cleanup, receipt_name, result_name, stale_files
from tasks.evidence import Approval, Choice, CleanupPlan, Gate, Removal, ShardCheck, VerificationReport, shown_as
from tasks.models import ListedFile, Receipt, ShardSpec
from tasks.stage import stage
from tasks.staging import Staging

Staged = Callable[[int], list[Receipt]]
RUN = "the-run"
YES = Approval(flow_run_id=RUN, decision=Choice.DELETE)


def report(receipts: Sequence[Receipt]) -> VerificationReport:
    checks = [ShardCheck(path=r.path, size=r.size, sha256=r.sha256, rows=r.rows, how="listing") for r in receipts]
    return VerificationReport(repo_id="lab/x", revision="main", commit="c" * 40, level="listing", checks=tuple(checks))


def gate(receipts: Sequence[Receipt], stale: tuple[Removal, ...] = ()) -> Gate:
    return Gate(flow_run_id=RUN, flow_run_name="run", opened_at_commit="c" * 40,
                shown=tuple(shown_as(r) for r in receipts), stale=stale)  # fmt: skip


def on_hub(receipts: Sequence[Receipt]) -> Mapping[str, ListedFile]:
    return {r.path: ListedFile(r.path, r.size, r.sha256) for r in receipts}


def clean(staging: Staging, receipts: Sequence[Receipt], held: Mapping[str, ListedFile] | None = None) -> object:
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts))
    return execute(plan, lambda paths: on_hub(receipts) if held is None else held)


def files(staging: Staging) -> set[str]:
    return {p.relative_to(staging.folder).as_posix() for p in staging.folder.rglob("*") if not p.is_dir()}


def test_what_was_approved_and_verified_goes_with_its_receipts_and_empty_folders(
    staging: Staging, staged: Staged
) -> None:
    receipts = staged(3)
    expected = sum((staging.folder / r.file).stat().st_size + (staging.folder / receipt_name(r)).stat().st_size
                   for r in receipts)  # fmt: skip
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts))
    assert plan.size == expected
    result = execute(plan, lambda paths: on_hub(receipts))
    assert result.freed == expected and not result.refused
    assert files(staging) == set()
    assert staging.folder.is_dir() and not staging.shards.exists()


def test_nothing_goes_without_the_decision_to_delete(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    keep = Approval(flow_run_id=RUN, decision=Choice.KEEP)
    with pytest.raises(NotApproved):
        plan_cleanup(staging, gate(receipts), keep, report(receipts))


def test_an_approval_of_another_run_or_of_a_gate_that_was_never_open_does_not_count(
    staging: Staging, staged: Staged
) -> None:
    receipts = staged(1)
    other = Approval(flow_run_id="another-run", decision=Choice.DELETE)
    with pytest.raises(NotApproved):
        plan_cleanup(staging, gate(receipts), other, report(receipts))
    claimed = Gate(flow_run_id=RUN, flow_run_name="run")
    with pytest.raises(NotApproved):
        plan_cleanup(staging, claimed, YES, report(receipts))


def test_a_shard_that_the_gate_did_not_show_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(3)
    plan = plan_cleanup(staging, gate(receipts[:2]), YES, report(receipts))
    assert [(kept.file, kept.why) for kept in plan.kept] == [(receipts[2].file, "it was not shown at the gate")]
    execute(plan, lambda paths: on_hub(receipts))
    assert files(staging) == {receipts[2].file, receipt_name(receipts[2])}


def test_a_shard_that_the_last_verification_did_not_find_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(2)
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts[:1]))
    assert [kept.file for kept in plan.kept] == [receipts[1].file]
    assert {removal.path for removal in plan.removals} == {receipts[0].path}


@pytest.mark.parametrize("change", ["gone", "other size", "other sha256", "in git, not LFS"])
def test_a_shard_that_the_hub_lost_since_stays(staging: Staging, staged: Staged, change: str) -> None:
    receipts = staged(2)
    held = dict(on_hub(receipts))
    lost = held.pop(receipts[0].path)
    if change != "gone":
        held[lost.path] = {
            "other size": replace(lost, size=lost.size + 1),
            "other sha256": replace(lost, sha256="0" * 64),
            "in git, not LFS": replace(lost, sha256=None),
        }[change]
    result = clean(staging, receipts, held)
    assert {receipts[0].file, receipt_name(receipts[0])} == files(staging)
    assert len(result.refused) == 2 and "Hub" in result.refused[0].why  # type: ignore[attr-defined]


def test_a_hub_that_does_not_answer_in_the_middle_stops_the_cleanup(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts))

    def unreachable(paths: Sequence[str]) -> Mapping[str, ListedFile]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        execute(plan, unreachable)
    assert {receipts[0].file, receipt_name(receipts[0])} == files(staging)


def planned(staging: Staging, receipts: Sequence[Receipt]) -> CleanupPlan:
    return plan_cleanup(staging, gate(receipts), YES, report(receipts))


def test_a_file_swapped_for_a_symlink_is_not_followed_and_stays(
    staging: Staging, staged: Staged, tmp_path: Path
) -> None:
    receipts = staged(1)
    plan = planned(staging, receipts)
    precious = tmp_path / "precious.parquet"
    file = staging.folder / receipts[0].file
    file.rename(precious)
    file.symlink_to(precious)
    result = execute(plan, lambda paths: on_hub(receipts))
    assert precious.exists() and file.is_symlink()
    assert (receipts[0].file, "it is not a regular file") in {(kept.file, kept.why) for kept in result.refused}


def test_a_folder_swapped_for_a_symlink_is_not_entered(staging: Staging, staged: Staged, tmp_path: Path) -> None:
    receipts = staged(1)
    plan = planned(staging, receipts)
    subject = (staging.folder / receipts[0].file).parent
    elsewhere = tmp_path / "elsewhere"
    subject.rename(elsewhere)
    subject.symlink_to(elsewhere)
    result = execute(plan, lambda paths: on_hub(receipts))
    assert len(list(elsewhere.iterdir())) == 2
    assert subject.is_symlink() and not result.removed


def test_the_targets_folder_itself_swapped_for_a_symlink_is_not_entered(
    staging: Staging, staged: Staged, tmp_path: Path
) -> None:
    receipts = staged(1)
    plan = planned(staging, receipts)
    staging.folder.rename(tmp_path / "elsewhere")
    staging.folder.symlink_to(tmp_path / "elsewhere")
    result = execute(plan, lambda paths: on_hub(receipts))
    assert not result.removed and (tmp_path / "elsewhere" / receipts[0].file).exists()


def test_a_file_that_was_written_to_since_it_was_planned_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(2)
    plan = planned(staging, receipts)
    grown, touched = (staging.folder / r.file for r in receipts)
    grown.write_bytes(grown.read_bytes() + b"x")
    os.utime(touched, ns=(1, 1))
    result = execute(plan, lambda paths: on_hub(receipts))
    assert grown.exists() and touched.exists()
    assert {kept.why for kept in result.refused} == {"it has changed since the cleanup was planned", "its shard stays"}
    assert all((staging.folder / receipt_name(r)).exists() for r in receipts)


@pytest.mark.parametrize("name", ["../outside.parquet", "/etc/hostname", "shards/../../outside.parquet"])
def test_a_name_that_leaves_the_folder_is_refused(staging: Staging, staged: Staged, name: str) -> None:
    receipts = staged(1)
    outside = staging.folder.parent / "outside.parquet"
    outside.write_bytes(b"mine")
    status = outside.stat()
    removal = Removal(file=name, size=status.st_size, mtime_ns=status.st_mtime_ns, kind="stale")
    result = execute(CleanupPlan(folder=staging.folder, removals=(removal,)), lambda paths: on_hub(receipts))
    assert outside.read_bytes() == b"mine"
    assert [kept.why for kept in result.refused] == ["its name leaves the target's folder"]


def test_foreign_files_stay_and_so_do_their_folders(staging: Staging, staged: Staged) -> None:
    receipts = staged(2)
    notes = staging.folder / "notes.txt"
    beside = (staging.folder / receipts[0].file).parent / "my-analysis.csv"
    for foreign in (notes, beside):
        foreign.write_text("mine")
    clean(staging, receipts)
    assert files(staging) == {p.relative_to(staging.folder).as_posix() for p in (notes, beside)}


def test_stale_files_are_our_leftovers_and_go_only_if_the_form_says_so(staging: Staging, staged: Staged) -> None:
    receipts = staged(2)
    folder = (staging.folder / receipts[0].file).parent
    leftover = folder / "sub-old_ses-1.0123456789ab.parquet.part"  # and receipts[1], whole but of no plan any more
    foreign = folder / "thesis.docx"
    leftover.write_bytes(b"half a shard")
    foreign.write_bytes(b"mine")
    stale = stale_files(staging, receipts[:1])
    assert {removal.file for removal in stale} == {
        leftover.relative_to(staging.folder).as_posix(),
        receipts[1].file,
        receipt_name(receipts[1]),
    }
    for approval, kept in ((YES, True), (YES.model_copy(update={"remove_stale": True}), False)):
        plan = plan_cleanup(staging, gate(receipts[:1], stale), approval, report(receipts[:1]))
        execute(plan, lambda paths: on_hub(receipts))
        assert leftover.exists() is kept
        assert (staging.folder / receipts[1].file).exists() is kept
        assert foreign.exists()


def test_an_interrupted_cleanup_can_be_repeated(staging: Staging, staged: Staged) -> None:
    receipts = staged(3)
    plan = planned(staging, receipts)
    (staging.folder / receipts[0].file).unlink()
    result = execute(plan, lambda paths: on_hub(receipts))
    assert result.gone_before == (receipts[0].file,) and not result.refused
    again = execute(plan, lambda paths: on_hub(receipts))
    assert not again.removed and not again.refused and files(staging) == set()


def test_the_hub_is_asked_before_each_batch_is_unlinked_and_not_once_for_all(
    staging: Staging, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.cleanup.ASK_AT_ONCE", 2)
    receipts = staged(5)
    there: list[int] = []

    def held(paths: Sequence[str]) -> Mapping[str, ListedFile]:
        there.append(sum((staging.folder / r.file).exists() for r in receipts))
        return on_hub(receipts)

    execute(planned(staging, receipts), held)
    assert there == [5, 3, 1]


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_shown_verified_held_or_tampered_with_only_what_is_all_of_it_goes(
    data: st.DataObject, shards: Sequence, bids: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tasks.stage import stage

    staging = Staging(tmp_path_factory.mktemp("staging"))
    receipts = [stage(spec, bids, staging) for spec in shards[:4]]
    subset = st.sets(st.sampled_from(range(4)))
    shown, verified, held, tampered = (data.draw(subset) for _ in range(4))
    plan = plan_cleanup(staging, gate([receipts[n] for n in shown]), YES, report([receipts[n] for n in verified]))
    for number in tampered:
        os.utime(staging.folder / receipts[number].file, ns=(1, 1))
    execute(plan, lambda paths: on_hub([receipts[n] for n in held]))
    left = {n for n in range(4) if (staging.folder / receipts[n].file).exists()}
    assert left == set(range(4)) - ((shown & verified & held) - tampered)


# Prefect's results: small shards share one


def test_a_result_that_several_shards_share_goes_with_the_last_of_them_and_stays_while_one_stays(
    staging: Staging, shards: tuple[ShardSpec, ...], bids: Path
) -> None:
    receipts = [stage(spec, bids, staging, result="stage-1-" + "a" * 64) for spec in shards[:3]]
    result = staging.results / receipts[0].result
    result.parent.mkdir()
    result.write_bytes(b"three receipts")
    assert stale_files(staging, receipts) == ()
    plan = plan_cleanup(staging, gate(receipts[:2]), YES, report(receipts))
    execute(plan, lambda paths: on_hub(receipts))
    assert result.exists() and files(staging) == {
        receipts[2].file, receipt_name(receipts[2]), result_name(receipts[2])
    }  # fmt: skip
    assert clean(staging, receipts[2:]).freed > 0  # type: ignore[attr-defined]
    assert files(staging) == set()


@pytest.mark.parametrize("name", ["notes.txt", "stage-1-" + "a" * 64 + "\n"])
def test_a_receipt_that_names_a_file_of_somebody_else_as_its_result_takes_nothing_along(
    staging: Staging, staged: Staged, name: str
) -> None:
    receipts = staged(1)
    precious = staging.results / name
    precious.parent.mkdir(parents=True, exist_ok=True)
    precious.write_bytes(b"not ours")
    written = staging.folder / receipt_name(receipts[0])
    written.write_text(json.dumps(json.loads(written.read_text()) | {"result": name}))
    clean(staging, receipts)
    assert precious.read_bytes() == b"not ours" and (staging.folder / receipts[0].file).exists()
