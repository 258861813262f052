"""What a push does about removals: what its gate asks about, and the way from a person's approval to the one commit.

The approval is about what the gate showed, perhaps days ago. So the dataset and the record are looked at again, by the
same steps as in any push. Only what was approved and is *still* missing in the dataset leaves the repo. Shards that
were held back for approved rows are staged and sent in that commit. Nothing else is published with it.
"""

import socket
from collections.abc import Sequence

from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Completed, Failed

from flows.carry_out import closed
from flows.target import HeldTarget
from flows.values import Approved
from flows.verification import verified
from tasks.approve import read_gate, write_gate
from tasks.card import Pictures
from tasks.record.kept_removals import open_again, read_kept
from tasks.record.published import Work
from tasks.record.remote import Remote
from tasks.record.removals import Removals, pictures_of
from tasks.record.removed_before import read_removed, write_removed
from tasks.remove import plan_removal, require_gone
from tasks.report import artifacts, sentences
from tasks.report.evidence import Evidence, Kept, RemovalPlan, VerificationFailed
from tasks.report.lineage import artifact_key, record_publication
from tasks.report.status import is_open
from tasks.runs.this_run import ThisRun
from tasks.values.format import number
from tasks.values.models import Listing, PublicationRecord, Removed, Verification


def to_ask(held: HeldTarget, removed: Removed, removals: Removals) -> Removals:
    """Return the removals that this run's gate asks about: those that nobody has decided to keep, or none.

    If the run is to ask again, it asks about all of them. They stay open then, until somebody has answered.
    """
    log = get_run_logger()
    if ThisRun.flow_run().parameters.get("removed") == "delete":
        log.warning(
            "removed=delete is taken as ask: nothing published is removed unless a person approves it at a gate."
        )
    again = bool(removals) and is_to_ask_again(removed)
    undecided = removals.without(read_kept(held.staging))
    if removed == "keep" or not (undecided or again):
        return Removals()
    if not held.run.deployed:
        log.warning("This run has no deployment, so it cannot wait at a gate: run push-bids/manual with removed=ask.")
        return Removals()
    if again:
        open_again(held.staging, removals)
    return removals if again else undecided


def is_to_ask_again(removed: Removed) -> bool:
    """Return whether this run asks about what somebody decided to keep. A night that a schedule starts never does.

    Otherwise a decision would last for one night if somebody left this in the parameters of the nightly.
    """
    if removed != "ask again":
        return False
    if ThisRun.flow_run().auto_scheduled:
        get_run_logger().warning("removed=ask again is taken as ask, since a schedule has started this run.")
        return False
    return True


def asked_already(held: HeldTarget, asked: Removals) -> bool:
    """Return whether there is nothing to ask, or the target's open gate asks exactly this.

    Then that gate stays open.
    """
    gate = read_gate(held.staging)
    return not asked or (gate is not None and gate.removals == asked and is_open(gate))


def planned_removal(
    held: HeldTarget, approved: Approved, work: Work, remote: Remote, listing: Listing, pictures: Pictures
) -> RemovalPlan:
    """Return which of the approved removals leave the repo now. Log what stays, and why."""
    gate, going = approved.gate, {spec.path for spec in work.missing}
    there = {path: held.hub.sha256_of(path, remote.commit) for path in gate.removals.texts if path in listing.files}
    shown = {picture.path for picture in pictures.shown.values()}
    plan = plan_removal(
        gate,
        approved.approval,
        work.removals,
        remote,
        listing,
        there,
        pictures_of(gate.removals, listing, shown),
    )
    no_room = tuple(
        Kept(file=path, why="no room in the staging folder: it waits until staged shards are let go")
        for path in plan.rows
        if path not in going
    )
    rows = {path: images for path, images in plan.rows.items() if path in going}
    plan = plan.model_copy(update={"rows": rows, "kept": (*plan.kept, *no_room)})
    for kept in plan.kept:
        get_run_logger().warning("Approved, and not removed: %s: %s", kept.file, kept.why)
    return plan


def remember_removed(held: HeldTarget, plan: RemovalPlan, record: PublicationRecord) -> None:
    """Remember which images this removal takes, before it does: if they come back one day, a person is asked."""
    images = {image.path for path in plan.shards for image in record.shards[path].images}
    images |= {image for rows in plan.rows.values() for image in rows}
    write_removed(held.staging, read_removed(held.staging).with_more(images))


def nothing_removed(held: HeldTarget, approved: Approved, plan: RemovalPlan) -> State:
    """Return the end of a run that has nothing left to remove of what was approved."""
    write_gate(held.staging, closed(held))
    said = f"Nothing was removed from the Hub: {plan.kept[0].file}: {plan.kept[0].why}." if plan.kept else ""
    if len(plan.kept) > 1:
        said += f" And {len(plan.kept) - 1:,} more that were approved."
    if approved.staged is None:
        return Completed(name="Kept", message=said)
    return approved.staged.model_copy(update={"message": f"{approved.staged.message} {said}"})


def removed_state(
    held: HeldTarget,
    approved: Approved,
    plan: RemovalPlan,
    evidence: Evidence,
    level: Verification,
    failed: Sequence[str],
) -> State:
    """Verify what the removal has left, and return the state in which the run ends, which says what was removed."""
    write_gate(held.staging, closed(held))
    plan = plan.model_copy(update={"rows": {path: of for path, of in plan.rows.items() if path not in failed}})
    removed = sentences.gone_from_the_hub(plan)
    try:
        report = verified(held, level, evidence)
        require_gone(held.hub, plan, report.commit)
    except VerificationFailed as error:
        raise VerificationFailed(f"{removed} After that: {error}") from error
    record_publication(held.hub, report, evidence.source, held.steps.last)
    create_markdown_artifact(
        artifacts.removed(held.hub, plan, approved.approval.note, plan.commit, report.commit),
        key=artifact_key("removed", held.hub.target),
        description=f"What was removed from {held.hub.target}",
    )
    parts = [f"{removed} The head is {report.commit[:12]}.", *_what_else(held, approved, plan, evidence)]
    message = "\n".join(filter(None, parts))
    if failed:
        return Failed(
            name="ShardsFailed",
            message=f"{message} Not staged, so that their published version stays: {', '.join(failed[:20])}. Mend them "
            "and start the run again.",
        )
    return Completed(name="Removed", message=message)


def _what_else(held: HeldTarget, approved: Approved, plan: RemovalPlan, evidence: Evidence) -> list[str]:
    """Return what else is to be said: what was not removed, what became of the staged files, and what is left."""
    where = f"{held.staging.folder} on {socket.gethostname()}"
    return [
        f"Not removed: {number(len(plan.kept), 'file')}, the first being {plan.kept[0].file}: {plan.kept[0].why}."
        if plan.kept
        else "",
        approved.staged.message or "" if approved.staged else "",
        *sentences.after_a_removal(plan, evidence.named, held.staging.receipts(), where),
    ]
