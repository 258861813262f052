"""What a push says on its way, and the states in which it ends before its gate."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from huggingface_hub import constants
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.target import HeldTarget
from flows.values import Found, SentWave, Wave
from flows.verification import expected_on_hub, verified
from tasks.approve import read_gate
from tasks.bids.not_fetched import Absent, absent
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.record.modes import changed_modes
from tasks.record.published import Drift, Work, disagreement
from tasks.record.removals import find_removals
from tasks.record.still_here import gone_or_left_out, in_words
from tasks.record.still_named import still_named, subjects_gone
from tasks.report import artifacts, sentences
from tasks.report.dry_run import Rehearsal, dry_run
from tasks.report.evidence import Evidence
from tasks.report.lineage import artifact_key
from tasks.report.status import is_open, status_at
from tasks.values.errors import PushError
from tasks.values.format import in_units, number
from tasks.values.kinds import noun
from tasks.values.models import Listing, PublicationRecord, Verification
from tasks.values.preflight_rules import Checked


class ShardsFailed(PushError):
    """Some shards could not be staged. The others are published, and no gate opens."""


def say_what_was_found(held: HeldTarget, found: Found) -> None:
    """Log, and keep for the target's status, what is on the Hub already, what is staged, and what is neither."""
    work = found.work
    _log_what_is_to_do(work)
    if work.removals:
        where = gone_or_left_out(work.removals.files, found.here)
        get_run_logger().warning("%s, and still on the Hub: %s.", where.capitalize(), work.removals.sentence())
    if found.here:
        get_run_logger().warning("%s", in_words(found.here))
    if found.named:
        get_run_logger().warning("%s", sentences.still_named_in(found.named))
    held.status.found(work, found.named, found.here, there=bool(found.remote.commit))
    if work.missing or work.drift:
        held.status.show("Running", read_gate(held.staging))
    _say_what_is_written_anew(held, work, found.remote.record)
    _say_what_is_not_stripped(held, work, found.checked)


def _log_what_is_to_do(work: Work) -> None:
    """Log how many shards are on the Hub, staged, to be embedded, and held back."""
    planned = len(work.done) + len(work.missing) + len(work.held_back)
    get_run_logger().info(
        "%s of %s were on the Hub; %s to do: %s staged already, %s to embed%s.",
        f"{len(work.done):,}",
        number(planned, "shard"),
        f"{len(work.missing):,}",
        f"{len(work.send):,}",
        f"{len(work.stage):,}",
        f"; {len(work.held_back):,} held back, since published {noun(work.removals.inside)}s would go"
        if work.held_back
        else "",
    )


def _say_what_is_written_anew(held: HeldTarget, work: Work, record: PublicationRecord) -> None:
    """Log, and keep for the run's state, that shards are written anew because bids-push lays them out otherwise now."""
    held.status.anew = sentences.written_anew(record, work)
    if held.status.anew:
        get_run_logger().info("%s", held.status.anew)


def _say_what_is_not_stripped(held: HeldTarget, work: Work, checked: Checked) -> None:
    """Log, and keep for the run's state, that `strip` does not reach the shards that stay as they were published."""
    held.status.unstripped = sentences.not_stripped(checked.statement.strip, work)
    if held.status.unstripped:
        get_run_logger().warning("%s", held.status.unstripped)


def say_what_was_changed(held: HeldTarget, drift: Sequence[Drift]) -> None:
    """Log, and keep for the target's status, what somebody else has changed, before a commit may take its place."""
    for one in drift:
        get_run_logger().warning("Changed on the Hub by somebody else: %s: %s", one.path, one.what)
    held.status.found_changed(drift)


def say_what_is_published(held: HeldTarget, found: Found, sent: SentWave) -> None:
    """Keep for the target's status what the Hub holds after this run has done its part."""
    before, after, plan = found.remote.record.shards, sent.after.record, found.shards
    lines = {**before, **after.shards}  # verification names what somebody took out meanwhile
    removals = find_removals(plan, after, replace(found.listing, commit=sent.after.commit), found.texts)
    held.status.published(
        on_hub=sum(lines[spec.path].digest == spec.digest for spec in plan if spec.path in lines),
        failed=sorted(sent.failed),
        earlier=earlier_of(sent.failed, after, found.listing),
        held_back=len(found.work.held_back),
        removals=removals,
        named=still_named(subjects_gone(removals.shards, plan), found.texts),
        here={path: why for path, why in found.here.items() if path in removals.files},
    )


def earlier_of(failed: Collection[str], record: PublicationRecord, listing: Listing) -> list[str]:
    """Return the paths of those shards that could not be staged of which the Hub keeps an earlier version, sorted."""
    lines = record.shards
    return sorted(path for path in failed if path in lines and disagreement(lines[path], listing) is None)


def say_what_is_committed(held: HeldTarget, found: Found, sent: SentWave) -> None:
    """Keep for the run's state what was committed, if this run has published no shard."""
    before, after = found.remote, sent.after
    if sent.shards or after.commit == before.commit:
        return
    parts = [sentences.some_of(sent.texts, "file")] if sent.texts else []
    parts += ["the card (README.md)"] if after.card != before.card else []
    if modes := changed_modes(found.dataset, before.record):
        parts.append(f"the modes of {sentences.some_of(modes, 'file')}")
    held.status.committed = f"Committed without a shard, as {after.commit[:12]}: {', '.join(parts) or 'the record'}."


def skipped(later: FlowRun, repo_id: str, revision: str) -> State:
    """Return the end of a night that is left to a later one, which is due or done.

    It was missed, or came while another night was working.
    """
    due = f" of {later.expected_start_time.astimezone():%Y-%m-%d %H:%M}" if later.expected_start_time else ""
    why = f"Nothing was done: this night could not begin when it was due, and the one{due} does its work too."
    status = status_at(Target(constants.ENDPOINT, repo_id, revision))
    return Completed(name="Skipped", message="\n".join(filter(None, (why, status))))


def log_waiting(wave: Wave) -> None:
    """Log what has to wait until staged shards are let go."""
    if wave.waiting:
        get_run_logger().warning(
            "max_staged_bytes: this run publishes %s shards; %s wait until the staged ones are let go at the gate. "
            "Start the run again then, or leave it to the nightly run.",
            f"{len(wave.work.missing):,}",
            f"{len(wave.waiting):,}",
        )


def show_findings(hub: Hub, checked: Checked) -> None:
    """Log what was found, a line for each finding, and leave all of it as an artifact."""
    log = get_run_logger()
    for finding in checked.warnings:
        log.warning("Check before publication: %s", finding)
    for finding in checked.lifted:
        log.warning("Allowed, although it would stop the push: %s", finding)
    if checked.idle:
        log.warning("%s", sentences.idle(checked))
    if checked.statement.strip:
        log.info("Stripped from what this push publishes: %s", ", ".join(checked.statement.strip))
    log.info("Faces: %s.", checked.statement.defacing)
    if checked.findings or checked.idle or checked.unstripped:
        create_markdown_artifact(
            artifacts.findings(checked),
            key=artifact_key("findings", hub.target),
            description=f"What was found before the publication of {hub.target}",
        )


def show_dry_run(held: HeldTarget, rehearsal: Rehearsal) -> State:
    """Leave what would be done as an artifact, and return the state in which the run ends."""
    create_markdown_artifact(
        dry_run(held.hub, rehearsal), key=f"dry-run-{held.run.id}", description=f"Dry run for {held.hub.target}"
    )
    return Completed(name="DryRun", message=rehearsal.sentence())


def shards_failed(
    held: HeldTarget, verification: Verification, evidence: Evidence, found: Found, sent: SentWave
) -> State:
    """End a run that could not stage all shards, after verifying what it and others have published.

    Raises:
        ShardsFailed: always, if the verification is good.
        PushError: the verification failed; its error has both messages.
    """
    earlier = earlier_of(sent.failed, sent.after.record, found.listing)
    failed = failures(sent.failed, len(found.shards), earlier, absent(found.dataset.rows, found.folder))
    try:
        verified(held, verification, evidence)
    except PushError as error:
        raise type(error)(f"{error}\n{failed}") from error
    raise ShardsFailed(failed)


def nothing_to_publish(held: HeldTarget, verification: Verification, found: Found) -> State:
    """Return the end of a night with nothing changed.

    What is on the Hub is verified first, at the commit that was read.
    """
    work, record, listing = found.work, found.remote.record, found.listing
    everything = expected_on_hub(record, record, listing, {spec.path for spec in work.done})
    evidence = Evidence(everything, (), whole=True, commit=found.remote.commit, read=(record, listing))
    verified(held, verification, evidence)
    staged = held.staging.staged_shards()
    gate = read_gate(held.staging)
    ask = (
        f"{gate.flow_run_name} waits at its gate for a decision about them."
        if gate and is_open(gate)
        else "cleanup-staging/cleanup asks about them."
    )
    left = f" {in_units(sum(staged.values()))} are still staged: {ask}" if staged else ""
    held_back = f" Besides, {number(len(work.held_back), 'shard')} held back." if work.held_back else ""
    return Completed(
        name="NothingToPublish",
        message=f"All of it is on {held.hub.target} already: {number(len(work.done), 'shard')}.{held_back}{left}",
    )


def failures(
    failed: Mapping[str, PushError], total: int, earlier: Collection[str], not_here: Absent | None = None
) -> str:
    """Return the message with which a run ends if shards could not be staged.

    Args:
        failed: the errors of these shards, by path.
        total: the number of shards of the dataset.
        earlier: the paths of those of which the Hub keeps an earlier version.
        not_here: the files whose content is not on this machine.
    """
    kept = dict.fromkeys(earlier, " (the Hub keeps its earlier version)")
    listed = "\n".join(f"  {Path(path).stem}{kept.get(path, '')}: {why}" for path, why in sorted(failed.items())[:20])
    more = f"\n  and {len(failed) - 20} more" if len(failed) > 20 else ""
    return (
        f"{len(failed)} of {number(total, 'shard')} could not be staged; the others are published. Nothing "
        f"was deleted, and no gate was opened. Mend these and start the run again:\n{listed}{more}"
        + (f"\n{not_here}" if not_here else "")
    )
