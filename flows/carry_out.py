"""What a person decided at a gate, carried out: what is kept is remembered, and what was let go is removed here."""

from collections.abc import Sequence
from datetime import UTC, datetime

from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.run_graph import quoted
from flows.target import HeldTarget
from tasks.approve import write_gate
from tasks.cleanup import clean_up, look_for_leftovers, plan_cleanup
from tasks.disk.staging import Staging
from tasks.record.kept_removals import Keeping, forget, keep
from tasks.report import artifacts, sentences
from tasks.report.evidence import (
    Approval,
    Choice,
    CleanupResult,
    Fate,
    Gate,
    Leftovers,
    Shown,
    StagedFile,
    VerificationReport,
    not_as_shown,
)
from tasks.report.lineage import artifact_key
from tasks.values.format import in_units, number
from tasks.values.models import Receipt


def note_what_is_kept(held: HeldTarget, gate: Gate, approval: Approval) -> None:
    """Remember a decision to keep removals, so that nobody is asked again; and forget one that is not so any more."""
    if approval.removals is Fate.KEEP:
        run, now = held.run, datetime.now(UTC)
        decision = Keeping(
            removals=gate.removals, at=now, flow_run_id=run.id, flow_run_name=run.name, note=approval.note
        )
        keep(held.staging, decision)
    elif approval.removals is Fate.REMOVE:
        forget(held.staging, gate.removals)


def staged_files_decided(
    held: HeldTarget, gate: Gate, report: VerificationReport, receipts: Sequence[Receipt], approval: Approval
) -> State | None:
    """Do what the person says about the staged files, and return the state. None if they were not asked about them."""
    if approval.decision is None:
        return None
    if approval.decision is Choice.KEEP:
        left = how_to_open(receipts, gate.stale) if receipts or gate.stale else no_copies_any_more(held.staging, gate)
        return Completed(name="Kept", message=f"Kept, as decided at the gate: {left}")
    return clean_up_staged(held, gate, report, receipts, approval)


def clean_up_staged(
    held: HeldTarget, gate: Gate, report: VerificationReport, receipts: Sequence[Receipt], approval: Approval
) -> State:
    """Remove the staged files that a person let go, show what was freed, and return the state that says so."""
    gone = not_as_shown(held.staging, gate)
    no_copies = no_copies_any_more(held.staging, gate) if gone else ""
    leftovers = leftovers_besides(held, receipts) if approval.remove_stale else Leftovers()
    plan = plan_cleanup(held.staging, gate, approval, report, leftovers)
    result = held.steps.take(clean_up, held.hub, plan)
    create_markdown_artifact(
        artifacts.cleanup(plan, result, approval.note, no_copies),
        key=artifact_key("freed", held.hub.target),
        description=f"What was freed for {held.hub.target}",
    )
    if result.refused:
        left = () if approval.removals is Fate.REMOVE else _left_to_decide(gate, result, gone)
        write_gate(held.staging, gate.model_copy(update={"shown": left}))
        return _refused(result, "Retry the run" if left else "run cleanup-staging/cleanup", no_copies)
    if approval.removals is Fate.REMOVE:  # still to be done: a Retry of this run asks about them, and about no file
        write_gate(held.staging, gate.model_copy(update={"shown": (), "stale": ()}))
    else:
        write_gate(held.staging, closed(held))
    return _cleaned_up(result, report, no_copies)


def _left_to_decide(gate: Gate, result: CleanupResult, gone: Sequence[Shown]) -> tuple[Shown, ...]:
    """Return what a gate showed that was not removed, and was not gone before."""
    decided = {staged.file for staged in result.removed} | {shown.file for shown in gone}
    return tuple(shown for shown in gate.shown if shown.file not in decided)


def _refused(result: CleanupResult, ask_again: str, no_copies: str) -> State:
    """Return the end of a cleanup that did not remove all of it."""
    refused = result.refused[0]
    message = (
        f"{_freed(result)}; {number(len(result.refused), 'file')} not removed, the first being {refused.file}: "
        f"{refused.why}. To be asked about what else is staged, {ask_again}. {no_copies}"
    ).strip()
    get_run_logger().warning("%s", message)
    return Failed(name="CleanupRefused", message=message)


def _cleaned_up(result: CleanupResult, report: VerificationReport, no_copies: str) -> State:
    """Return the end of a cleanup that removed all of it."""
    earlier = ", stale shards in its history" if any(staged.commit for staged in result.removed) else ""
    shards = any(staged.is_shard for staged in result.removed)
    listed = f"; the Hub lists all of it at {report.commit[:12]}{earlier}." if shards else "."
    return Completed(name="CleanedUp", message=f"{_freed(result)}{listed} {no_copies}".strip())


def _freed(result: CleanupResult) -> str:
    return f"{in_units(result.freed)} in {number(len(result.removed), 'file')} freed"


def leftovers_besides(held: HeldTarget, receipts: Sequence[Receipt]) -> Leftovers:
    """Return what is staged besides these shards, after the last step."""
    return held.steps.take(look_for_leftovers, held.hub, held.staging, quoted(receipts))


def no_copies_any_more(staging: Staging, gate: Gate) -> str:
    """Return what became of the staged shards that a gate showed and that are not as it showed them."""
    gone = not_as_shown(staging, gate)
    changed = [shown.file for shown in gone if staging.size_of(shown.file) is not None]
    known = sentences.gone_already(gone, len(gate.shown)) if gone else ""
    return " ".join(filter(None, (known, sentences.changed_copies(changed, staging.folder))))


def how_to_open(receipts: Sequence[Receipt], stale: Sequence[StagedFile]) -> str:
    """Return what is still staged, and how somebody can decide about it."""
    staged_bytes = in_units(sum(receipt.size for receipt in receipts))
    staged = f"{number(len(receipts), 'shard')}, {staged_bytes}, verified and still staged"
    return (
        f"{staged if receipts else sentences.stale_files(stale)}. To let them go, run the deployment "
        "cleanup-staging/cleanup and decide at its gate."
    )


def closed(held: HeldTarget) -> Gate:
    """Return the gate of this run after all of it was decided and done."""
    return Gate(flow_run_id=held.run.id, flow_run_name=held.run.name, target=str(held.hub.target))
