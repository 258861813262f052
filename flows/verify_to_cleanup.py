"""The last part of a push, which both flows share: verify, approve (suspended), cleanup."""

import socket
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.run_graph import quoted
from flows.target import HeldTarget
from flows.verification import verified
from tasks.approve import Question, ask, write_gate
from tasks.cleanup import clean_up, look_for_leftovers, plan_cleanup
from tasks.disk.staging import Staging
from tasks.record.kept_removals import Keeping, forget, keep
from tasks.remove import RemovalNotApproved
from tasks.report import artifacts, sentences
from tasks.report.evidence import (
    Approval,
    Choice,
    Evidence,
    Fate,
    Gate,
    Leftovers,
    StagedFile,
    VerificationReport,
    not_as_shown,
    shown_as,
)
from tasks.report.gate_text import asked_about, gate_text
from tasks.report.lineage import artifact_key, record_publication
from tasks.runs.this_run import ui_link
from tasks.values.format import number, size
from tasks.values.models import Receipt, Verification
from tasks.values.settings import Settings


@dataclass(frozen=True)
class Approved:
    """The removals that a person approved at this run's gate, after the staged files were decided."""

    gate: Gate
    approval: Approval
    staged: State | None
    """The state that says what became of the staged files; None if there were none to decide about."""


Remove = Callable[[Approved], State]
"""A function that removes what was approved, by the present dataset and record, and returns the run's final state."""


def never_asked(approved: Approved) -> State:
    """Refuse a removal, for a flow that knows no dataset, so that its gate never asks about removals.

    Raises:
        RemovalNotApproved: always.
    """
    raise RemovalNotApproved(f"this run's gate asked about no removal: {approved.gate.removals.sentence()}")


def tail(
    held: HeldTarget,
    verification: Verification,
    evidence: Evidence,
    remove: Remove = never_asked,
    leftovers: Leftovers | None = None,
) -> State:
    """Verify, ask a person, and remove what they let go.

    Args:
        held: the target.
        verification: how deep to look.
        evidence: what the run brings to its gate.
        remove: removes what was approved to leave the repo.
        leftovers: what else is in the staging folder, if it was looked at before.

    Returns:
        The state in which the run ends.
    """
    report = verified(held, verification, evidence)
    if not (evidence.receipts or evidence.asked):
        leftovers = leftovers or leftovers_besides(held, ())
        if not leftovers.stale:
            looked_in = f"{held.staging.folder} on {socket.gethostname()}"
            return Completed(name="NothingStaged", message=sentences.nothing_staged(leftovers, looked_in))
    _remember(held.staging, evidence.receipts, report)
    if evidence.expected:
        record_publication(held.hub, report, evidence.source, held.steps.last)
    if not held.run.deployed:
        return Completed(name="Staged", message=_how_to_open(evidence.receipts, leftovers.stale if leftovers else ()))
    leftovers = leftovers or leftovers_besides(held, evidence.receipts)
    where = _where(held.staging)
    gate = _open(held, evidence, report, leftovers, where)
    held.status.show("Suspended", gate)
    return _decide(held, gate, report, evidence.receipts, where, remove)


def tail_again(held: HeldTarget, verification: Verification, gate: Gate, remove: Remove = never_asked) -> State:
    """Do what `tail` does for a run that comes back to its gate, and only with the shards that the gate showed.

    They are verified again, at the present head of the target. Those that are gone or changed are logged.
    """
    gone = not_as_shown(held.staging, gate)
    shown = set(gate.shown)
    receipts = [receipt for receipt in held.staging.receipts() if shown_as(receipt) in shown]
    shown.difference_update(gone)
    there = [receipt for receipt in receipts if shown_as(receipt) in shown]
    if not (there or gate.stale or gate.removals):
        said = f"There is nothing left to decide. {_no_copies_any_more(held.staging, gate)}"
        return Completed(name="NothingStaged", message=said)
    report = verified(held, verification, Evidence([receipt.line() for receipt in receipts], receipts))
    where = _where(held.staging)
    if gone:
        get_run_logger().warning("%s", sentences.gone_already(gone, len(gate.shown)))
        evidence = Evidence((), there, removals=gate.removals, asked=gate.removals, named=gate.named, here=gate.here)
        artifact = _show_evidence(held, evidence, report, leftovers_besides(held, there), where)
        gate = gate.model_copy(update={"artifact": artifact})
    return _decide(held, gate, report, there, where, remove)


def leftovers_besides(held: HeldTarget, receipts: Sequence[Receipt]) -> Leftovers:
    """Return what is staged besides these shards, after the last step."""
    return held.steps.take(look_for_leftovers, held.hub, held.staging, quoted(receipts))


def _remember(staging: Staging, receipts: Sequence[Receipt], report: VerificationReport) -> None:
    """Note in the receipts which commit holds what was verified, for the time when the head has moved on."""
    on_hub = {(check.path, check.size, check.sha256) for check in report.checks}
    staging.remember((one for one in receipts if (one.path, one.size, one.sha256) in on_hub), report.commit)


def _where(staging: Staging) -> sentences.Where:
    """Return this machine's staging folder, and when a question that is asked now is closed."""
    expires = datetime.now(UTC) + timedelta(days=Settings().gate_days)
    return sentences.Where(staging.folder, socket.gethostname(), expires)


def _open(
    held: HeldTarget, evidence: Evidence, report: VerificationReport, leftovers: Leftovers, where: sentences.Where
) -> Gate:
    """Write down what the gate shows, and show all of it as an artifact."""
    hub, staging, run = held.hub, held.staging, held.run
    artifact = _show_evidence(held, evidence, report, leftovers, where)
    gate = Gate(
        flow_run_id=run.id,
        flow_run_name=run.name,
        target=str(hub.target),
        opened_at_commit=report.commit,
        expires=where.expires,
        shown=tuple(shown_as(receipt) for receipt in evidence.receipts),
        stale=leftovers.stale,
        waiting=evidence.waiting,
        removals=evidence.asked,
        named=evidence.named if evidence.asked else {},
        here={path: why for path, why in evidence.here.items() if path in evidence.asked.files},
        drift=len({one.path for one in evidence.drift}),
        artifact=artifact,
    )
    write_gate(staging, gate)
    return gate


def _show_evidence(
    held: HeldTarget, evidence: Evidence, report: VerificationReport, leftovers: Leftovers, where: sentences.Where
) -> str:
    """Show all that a gate is about as an artifact, and return its id."""
    artifact = create_markdown_artifact(
        artifacts.evidence(held.hub, report, evidence, leftovers, where),
        key=artifact_key("evidence", held.hub.target),
        description=f"Evidence for the cleanup of {held.hub.target}",
    )
    return str(artifact)


def _no_copies_any_more(staging: Staging, gate: Gate) -> str:
    """Return what became of the staged shards that a gate showed and that are not as it showed them."""
    gone = not_as_shown(staging, gate)
    changed = [shown.file for shown in gone if staging.size_of(shown.file) is not None]
    known = sentences.gone_already(gone, len(gate.shown)) if gone else ""
    return " ".join(filter(None, (known, sentences.changed_copies(changed, staging.folder))))


def _decide(
    held: HeldTarget,
    gate: Gate,
    report: VerificationReport,
    receipts: Sequence[Receipt],
    where: sentences.Where,
    remove: Remove,
) -> State:
    """Ask, and do what the person says. The process ends while the run waits, and a new one comes back here."""
    hub, staging, run = held.hub, held.staging, held.run
    artifact = ui_link("All of the evidence", f"artifacts/artifact/{gate.artifact}")
    gone = not_as_shown(staging, gate)
    text, picture = gate_text(hub, report, receipts, gate, where, gone, artifact)
    waits = held.status.message(sentences.waiting(str(hub.target), receipts, where, gate.stale), gate, here=True)
    fence = held.lease.require
    approval = ask(hub.target.repo_id, run, question_of(gate, text, picture, waits, where), fence)
    get_run_logger().info("Decided at the gate: %s. Note: %s", sentences.decided(approval), approval.note or "none")
    _note_what_is_kept(held, gate, approval)
    staged = _staged(held, gate, report, receipts, approval)
    if approval.removals is not Fate.REMOVE:
        return staged or Completed(name="Kept", message="Kept on the Hub, as decided at the gate.")
    ended = remove(Approved(gate, approval, staged))
    if staged is None or not staged.is_failed() or ended.is_failed():
        return ended
    return staged.model_copy(update={"message": ended.message})  # which says both: what was removed, and what stays


def question_of(gate: Gate, text: str, picture: str, waits: str, where: sentences.Where) -> Question:
    """Return what a person is asked at a gate.

    What the gate showed decides it: an answer that was given before a copy changed is an answer still.
    """
    return Question(
        evidence=text,
        picture=picture,
        files=where.files if gate.shown or gate.stale else "",
        waits=waits,
        expires=where.expires,
        removals=asked_about(gate),
        stale=bool(gate.stale),
        copies=bool(gate.shown),
    )


def _note_what_is_kept(held: HeldTarget, gate: Gate, approval: Approval) -> None:
    """Remember a decision to keep removals, so that nobody is asked again; and forget one that is not so any more."""
    if approval.removals is Fate.KEEP:
        run, now = held.run, datetime.now(UTC)
        decision = Keeping(
            removals=gate.removals, at=now, flow_run_id=run.id, flow_run_name=run.name, note=approval.note
        )
        keep(held.staging, decision)
    elif approval.removals is Fate.REMOVE:
        forget(held.staging, gate.removals)


def _staged(
    held: HeldTarget, gate: Gate, report: VerificationReport, receipts: Sequence[Receipt], approval: Approval
) -> State | None:
    """Do what the person says about the staged files, and return the state. None if they were not asked about them."""
    if approval.decision is None:
        return None
    if approval.decision is Choice.KEEP:
        left = _how_to_open(receipts, gate.stale) if receipts or gate.stale else _no_copies_any_more(held.staging, gate)
        return Completed(name="Kept", message=f"Kept, as decided at the gate: {left}")
    return _clean_up(held, gate, report, receipts, approval)


def _clean_up(
    held: HeldTarget, gate: Gate, report: VerificationReport, receipts: Sequence[Receipt], approval: Approval
) -> State:
    hub, staging = held.hub, held.staging
    gone = not_as_shown(staging, gate)
    no_copies = _no_copies_any_more(staging, gate) if gone else ""
    leftovers = leftovers_besides(held, receipts) if approval.remove_stale else Leftovers()
    plan = plan_cleanup(staging, gate, approval, report, leftovers)
    result = held.steps.take(clean_up, hub, plan)
    create_markdown_artifact(
        artifacts.cleanup(plan, result, approval.note, no_copies),
        key=artifact_key("freed", hub.target),
        description=f"What was freed for {hub.target}",
    )
    freed = f"{size(result.freed)} in {number(len(result.removed), 'file')} freed"
    if result.refused:
        refused = result.refused[0]
        left_out = {staged.file for staged in result.removed} | {shown.file for shown in gone}
        shown = () if approval.removals is Fate.REMOVE else tuple(s for s in gate.shown if s.file not in left_out)
        write_gate(staging, gate.model_copy(update={"shown": shown}))
        ask_again = "Retry the run" if shown else "run cleanup-staging/cleanup"
        message = (
            f"{freed}; {number(len(result.refused), 'file')} not removed, the first being {refused.file}: "
            f"{refused.why}. To be asked about what else is staged, {ask_again}. {no_copies}"
        ).strip()
        get_run_logger().warning("%s", message)
        return Failed(name="CleanupRefused", message=message)
    if approval.removals is Fate.REMOVE:  # still to be done: a Retry of this run asks about them, and about no file
        write_gate(staging, gate.model_copy(update={"shown": (), "stale": ()}))
    else:
        write_gate(staging, closed(held))
    earlier = ", stale shards in its history" if any(staged.commit for staged in result.removed) else ""
    shards = any(staged.is_shard for staged in result.removed)
    listed = f"{freed}; the Hub lists all of it at {report.commit[:12]}{earlier}." if shards else f"{freed}."
    return Completed(name="CleanedUp", message=" ".join(filter(None, (listed, no_copies))))


def closed(held: HeldTarget) -> Gate:
    """Return the gate of this run after all of it was decided and done."""
    return Gate(flow_run_id=held.run.id, flow_run_name=held.run.name, target=str(held.hub.target))


def _how_to_open(receipts: Sequence[Receipt], stale: Sequence[StagedFile]) -> str:
    staged_bytes = size(sum(receipt.size for receipt in receipts))
    staged = f"{number(len(receipts), 'shard')}, {staged_bytes}, verified and still staged"
    return (
        f"{staged if receipts else sentences.stale_files(stale)}. To let them go, run the deployment "
        "cleanup-staging/cleanup and decide at its gate."
    )
