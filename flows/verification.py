"""Verification as every run does it: look at the Hub, remember what was found, and stop if something is not right.

The quiet night, the night that publishes only texts, the run at its gate and the cleanup all come through here. So each
of them says in its state what it has checked, and at which commit. Each reads back the shards that failed before. None
goes on while one of them is not right.
"""

from collections.abc import Collection, Sequence
from datetime import UTC, datetime
from functools import partial

from prefect.logging import get_run_logger

from flows.run_graph import quoted
from flows.target import HeldTarget
from tasks.disk.failed_shards import read_failed, staged_copy, still_failed, write_failed
from tasks.disk.sample_rounds import Round, read_round, write_round
from tasks.record.published import disagreement
from tasks.report import sentences
from tasks.report.evidence import Evidence, VerificationReport
from tasks.values.models import Listing, PublicationRecord, PublishedShard, Verification
from tasks.values.settings import Settings
from tasks.verify import ReadBack, Reading, verify_target


def verified(held: HeldTarget, level: Verification, evidence: Evidence) -> VerificationReport:
    """Verify the target after the last step, and return the report if nothing failed.

    What was found is kept in the staging folder and in the target's status. A verification that could not look at the
    Hub ends with its own error, and changes nothing there.

    Raises:
        VerificationFailed: something that should be on the Hub is not there, or is not right.
    """
    staging, now, log = held.staging, datetime.now(UTC), get_run_logger()
    before, damaged = read_failed(staging)
    if damaged:
        log.warning("%s", damaged)
    tonight = _round_of_tonight(held, evidence, level, now)
    reading = _reading(evidence, tonight, before)
    report = held.steps.take(verify_target, held.hub, quoted(evidence.expected), level, quoted(reading), ReadBack())

    failed = still_failed(before, report.failures, report.right, report.gone, report.commit, now)
    write_failed(staging, failed)
    _remember_round(held, evidence, level, tonight, report)
    report.require_good(before, partial(staged_copy, staging))
    mended = sorted(before.keys() - failed.keys())
    held.status.verified(report, " ".join(filter(None, (sentences.verified(report, mended), damaged))))
    log.info("%s", sentences.verified(report, mended))
    return report


def _rotates(evidence: Evidence, level: Verification) -> bool:
    """Return whether this verification is a night of the sample's round."""
    return evidence.whole and level != "listing"


def _round_of_tonight(held: HeldTarget, evidence: Evidence, level: Verification, now: datetime) -> Round:
    """Return the round of the sample, a night further if this verification is a night of it."""
    nights = Settings().sample_nights
    kept, lost = read_round(held.staging.round, nights, now)
    if not _rotates(evidence, level):
        return kept
    if lost:
        get_run_logger().info("%s", lost)
    return kept.begun(evidence.expected, nights, now)


def _reading(evidence: Evidence, tonight: Round, before: Collection[str]) -> Reading:
    """Return what `verify_target` has to know in order to choose and read."""
    return Reading(
        round=tonight,
        least=Settings().sample_shards,
        sent=evidence.sent,
        failed_before=frozenset(before),
        texts=evidence.texts,
        own_commit=evidence.own_commit,
        commit=evidence.commit,
        read=evidence.read,
    )


def _remember_round(
    held: HeldTarget, evidence: Evidence, level: Verification, tonight: Round, report: VerificationReport
) -> None:
    """Keep which shards were read back and are right."""
    right = set(report.right)
    after = tonight.after(shard for shard in evidence.expected if shard.path in right)
    if _rotates(evidence, level) or right:
        write_round(held.staging.round, after)
    if _rotates(evidence, level):
        held.status.rotated(after, after.places(len(evidence.expected), Settings().sample_shards))


def expected_on_hub(
    before: PublicationRecord, after: PublicationRecord, listing: Listing, in_place: Collection[str]
) -> Sequence[PublishedShard]:
    """Return everything that has to be on the Hub when a run has done its part, sorted by path.

    First, this is what the run has published, or has found in order, even if somebody else has taken its line out of
    the record meanwhile. Second, it is every other line of the record that agrees with the listing: a shard that waits
    for room or could not be staged, in its published version, and one that the dataset no longer has. A line that does
    not agree was reported as drift, and this run has no part in mending it.

    Args:
        before: the record as the run found it.
        after: the record now.
        listing: the files of the repo as the run found them.
        in_place: paths of shards that the run has published, or has found in order.
    """
    lines = {path: line for path, line in before.shards.items() if path in in_place} | dict(after.shards)
    return [line for path, line in sorted(lines.items()) if path in in_place or disagreement(line, listing) is None]
