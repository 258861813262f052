"""The middle of a push: shards are staged, transferred and committed, all three at the same time, in rounds.

`flows.rounds` has what goes on in a round. A shard whose staged file is damaged before it is sent is staged again, in
another round. If a commit of somebody else was found on the way, the run looks at the target again when it is through,
and publishes what is still missing. It repeats this until nobody else has committed.
"""

from collections.abc import Callable, Collection
from dataclasses import replace

from flows.cluster import Cluster, cluster
from flows.pipeline import Pipeline
from flows.publishing import Publishing, summary
from flows.rounds import Round, RoundOfMachines, RoundOfThreads
from tasks.commit import ContestedTarget
from tasks.commit.other_files import Besides
from tasks.record.published import Work
from tasks.record.remote import Remote
from tasks.values.errors import PushError
from tasks.values.settings import Settings

#: Rounds of staging and sending in one run. A staged file that is damaged before it is sent is staged again. If a disk
#: damages it each time, a person has to look at the disk.
ROUNDS = 3
#: Rounds in which somebody else has committed meanwhile. Two runs that publish different datasets to one target would
#: go on for ever, each undoing the other's work.
CONTESTS = 5

PlanAgain = Callable[[], tuple[Work, Remote, Besides]]
"""A function that returns what is still to do, by what the target holds now."""


class StagingUnsound(PushError):
    """Staged files do not stay as they were written."""


def publish_missing(run: Publishing, work: Work, remote: Remote, besides: Besides, plan_again: PlanAgain) -> Remote:
    """Stage, send and commit the missing shards.

    A shard whose staged file is damaged before it is sent is staged again. If somebody else has committed meanwhile,
    the rest is planned again.

    Args:
        run: what the run has done so far. The shards that could not be staged are in its `failed` afterwards.
        work: the work to do.
        remote: what the target holds.
        besides: what the commits have to bring besides shards.
        plan_again: returns these three anew, by what the target holds then.

    Returns:
        What the target holds at the end.

    Raises:
        StagingUnsound: a staged file is damaged every time.
        ContestedTarget: somebody else commits every time.
    """
    unsound = contests = 0
    with cluster(run.held.run.id) as machines:
        while True:
            with Pipeline(Settings().transfers + 1) as pipeline:  # and one that commits
                done = _round(run, pipeline, remote, besides, machines)
                done.publish(work)
            remote, besides, damaged = done.remote, besides.after_commit(), done.damaged
            if not damaged and not done.contested:
                return remote
            unsound += bool(damaged)
            if unsound == ROUNDS:
                raise StagingUnsound(
                    f"{summary(damaged)} were damaged in {run.held.staging.folder} each time they were staged, before "
                    "they could be sent. Check that disk, and who writes there. The other shards are published."
                )
            damaged_paths = {receipt.path for receipt in damaged}
            if not done.contested:
                work = work.to_stage_again(damaged_paths)
                continue
            contests += 1
            if contests == CONTESTS:
                raise ContestedTarget(
                    f"somebody else goes on committing to {run.held.hub.target}, and changes what this run has "
                    "published. What both have in common is published, and nothing of theirs was removed. Find out who "
                    "it is (the repo's list of commits says so), and start again when one of the two has ended for "
                    "good."
                )
            work, remote, besides = plan_again()
            work = _as_it_is_now(work, run.failed.keys(), damaged_paths)


def _round(run: Publishing, pipeline: Pipeline, remote: Remote, besides: Besides, machines: Cluster | None) -> Round:
    """Return a round of whoever stages and sends in this run."""
    if machines is None:
        return RoundOfThreads(run, pipeline, remote, besides)
    return RoundOfMachines(run, pipeline, remote, besides, machines=machines)


def _as_it_is_now(work: Work, failed: Collection[str], damaged: Collection[str]) -> Work:
    """Return the work as it is now in this run.

    Shards that have failed in it are left out, and damaged ones are staged again.
    """
    missing = [spec for spec in work.missing if spec.path not in failed]
    staged = {spec.path for spec in work.send}.difference(damaged)
    return replace(
        work,
        send=tuple(spec for spec in missing if spec.path in staged),
        stage=tuple(spec for spec in missing if spec.path not in staged),
    )
