"""The last part of a push, which both flows share: verify, approve (suspended), cleanup."""

import socket
from collections.abc import Callable, Sequence

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.carry_out import (
    how_to_open,
    leftovers_besides,
    no_copies_any_more,
    note_what_is_kept,
    staged_files_decided,
)
from flows.open_gate import asked, open_gate, show_evidence, where_and_until
from flows.target import HeldTarget
from flows.values import Approved
from flows.verification import verified
from tasks.disk.staging import Staging
from tasks.remove import RemovalNotApproved
from tasks.report import sentences
from tasks.report.evidence import (
    Evidence,
    Fate,
    Gate,
    Leftovers,
    VerificationReport,
    not_as_shown,
    receipts_at,
    still_there,
)
from tasks.report.lineage import record_publication
from tasks.values.models import Receipt, Verification

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
        return Completed(name="Staged", message=how_to_open(evidence.receipts, leftovers.stale if leftovers else ()))
    leftovers = leftovers or leftovers_besides(held, evidence.receipts)
    where = where_and_until(held.staging)
    gate = open_gate(held, evidence, report, leftovers, where)
    held.status.show("Suspended", gate)
    return _decide(held, gate, report, evidence.receipts, where, remove)


def tail_again(held: HeldTarget, verification: Verification, gate: Gate, remove: Remove = never_asked) -> State:
    """Do what `tail` does for a run that comes back to its gate, and only with the shards that the gate showed.

    They are verified again, at the present head of the target. Those that are gone or changed are logged.
    """
    gone = not_as_shown(held.staging, gate)
    receipts = receipts_at(held.staging, gate)
    there = still_there(receipts, gone)
    if not (there or gate.stale or gate.removals):
        said = f"There is nothing left to decide. {no_copies_any_more(held.staging, gate)}"
        return Completed(name="NothingStaged", message=said)
    report = verified(held, verification, Evidence([receipt.line() for receipt in receipts], receipts))
    where = where_and_until(held.staging)
    if gone:
        get_run_logger().warning("%s", sentences.gone_already(gone, len(gate.shown)))
        evidence = Evidence((), there, removals=gate.removals, asked=gate.removals, named=gate.named, here=gate.here)
        artifact = show_evidence(held, evidence, report, leftovers_besides(held, there), where)
        gate = gate.model_copy(update={"artifact": artifact})
    return _decide(held, gate, report, there, where, remove)


def _decide(
    held: HeldTarget,
    gate: Gate,
    report: VerificationReport,
    receipts: Sequence[Receipt],
    where: sentences.Where,
    remove: Remove,
) -> State:
    """Ask, and do what the person says."""
    approval = asked(held, gate, report, receipts, where)
    get_run_logger().info("Decided at the gate: %s. Note: %s", sentences.decided(approval), approval.note or "none")
    note_what_is_kept(held, gate, approval)
    staged = staged_files_decided(held, gate, report, receipts, approval)
    if approval.removals is not Fate.REMOVE:
        return staged or Completed(name="Kept", message="Kept on the Hub, as decided at the gate.")
    ended = remove(Approved(gate, approval, staged))
    if staged is None or not staged.is_failed() or ended.is_failed():
        return ended
    return staged.model_copy(update={"message": ended.message})  # which says both: what was removed, and what stays


def _remember(staging: Staging, receipts: Sequence[Receipt], report: VerificationReport) -> None:
    """Note in the receipts which commit holds what was verified, for the time when the head has moved on."""
    on_hub = {(check.path, check.size, check.sha256) for check in report.checks}
    staging.remember((one for one in receipts if (one.path, one.size, one.sha256) in on_hub), report.commit)
