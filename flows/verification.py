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
from tasks.disk.sample_rounds import read_round, write_round
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
    staging, settings, now, log = held.staging, Settings(), datetime.now(UTC), get_run_logger()
    before, damaged = read_failed(staging)
    kept, lost = read_round(staging.round, settings.sample_nights, now)
    a_night = evidence.whole and level != "listing"
    tonight = kept.begun(evidence.expected, settings.sample_nights, now) if a_night else kept
    if damaged:
        log.warning("%s", damaged)
    if a_night and lost:
        log.info("%s", lost)
    reading = Reading(
        round=tonight,
        least=settings.sample_shards,
        sent=evidence.sent,
        failed_before=frozenset(before),
        texts=evidence.texts,
        own_commit=evidence.own_commit,
        commit=evidence.commit,
        read=evidence.read,
    )
    report = held.steps.take(verify_target, held.hub, quoted(evidence.expected), level, quoted(reading), ReadBack())

    failed = still_failed(before, report.failures, report.right, report.gone, report.commit, now)
    write_failed(staging, failed)
    right = set(report.right)
    after = tonight.after(shard for shard in evidence.expected if shard.path in right)
    if a_night or right:
        write_round(staging.round, after)
    if a_night:
        held.status.rotated(after, after.places(len(evidence.expected), settings.sample_shards))
    report.require_good(before, partial(staged_copy, staging))
    mended = sorted(before.keys() - failed.keys())
    held.status.verified(report, " ".join(filter(None, (sentences.verified(report, mended), damaged))))
    log.info("%s", sentences.verified(report, mended))
    return report


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
