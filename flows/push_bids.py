"""The chain: load, plan, stage, upload, verify, approve (suspended), cleanup."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.connect import BlockName, Folder, RepoId, Revision, connect, ends_readably, staging_of
from flows.publish import Push, unseen
from flows.tail import Evidence, tail, tail_again
from tasks import report as words
from tasks.approve import at_its_gate, claim, has_claimed
from tasks.card import card, side_files
from tasks.contents import Contents
from tasks.errors import PushError
from tasks.hub import Hub
from tasks.lease import holding
from tasks.load import load_dataset
from tasks.models import Dataset, Removed, ShardSpec, Verification
from tasks.plan import plan_shards
from tasks.progress import Progress
from tasks.published import read_target
from tasks.resume import Work, decide
from tasks.run import ThisRun, named_for_the_night
from tasks.settings import Settings
from tasks.staging import Staging
from tasks.upload import Changes, outdated
from tasks.write import WRITER_SETTINGS

#: Threads, because embedding reads, writes and hashes, and all three release the GIL.
WORKERS = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=Settings().stage_workers))


class ShardsFailed(PushError):
    """Some shards could not be staged. The others are published; no gate opens."""


@flow(
    name="push-bids",
    flow_run_name=partial(named_for_the_night, "push"),
    task_runner=WORKERS,
    persist_result=False,
)
@ends_readably
def push_bids(
    source: Path,
    repo_id: RepoId,
    revision: Revision = "main",
    private: bool = True,
    verification: Verification = "sample",
    removed: Removed = "keep",
    staging_root: Folder = "",
    max_staged_bytes: int = 0,
    dry_run: bool = False,
    token_block: BlockName = "",
) -> State:
    """Publish a BIDS dataset on the Hugging Face Hub, verify it there, and ask before anything staged is deleted.

    Only what is missing on the Hub is embedded and sent, so the same run may be started every night.

    Args:
        source: The BIDS dataset's folder, as the worker sees it.
        repo_id: The dataset repo on the Hub, as namespace/name. Made if it is missing.
        revision: The branch to publish on.
        private: Whether a repo that has to be made is private. An existing one stays as it is.
        verification: listing: compare every shard's size and sha256 with the Hub's listing. sample: and read some
            shards back, byte for byte. full: and read every shard back.
        removed: What to do with published shards that the dataset no longer has. keep: report them. delete: remove
            them from the repo, in the same commit as the record.
        staging_root: Where shards wait until you let them go. Empty: BIDS_PUSH_STAGING_ROOT of the worker.
        max_staged_bytes: How many bytes may be staged at a time. A run publishes what fits, opens its gate, and says
            how many shards wait for the next run. 0: BIDS_PUSH_MAX_STAGED_BYTES of the worker, or no limit.
        dry_run: Load, plan and compare, publish nothing, and show what would be done.
        token_block: The name of a Prefect Secret block that holds the Hub's token. Empty: HF_TOKEN of the worker.
    """
    hub = connect(repo_id, revision, token_block)
    staging = staging_of(hub, staging_root)
    run = ThisRun.of(hub.target)
    with holding(staging, hub.target, run) as lease:
        if gate := at_its_gate(staging, run):
            return tail_again(hub, staging, run, verification, gate)

        dataset = load_dataset(source)
        shards = plan_shards(unseen(dataset), WRITER_SETTINGS)
        target, listing = read_target(hub, make=not dry_run, private=private)
        contents = Contents(staging.folder.parent / "contents.sqlite", source)
        work = decide(shards, target.record, listing, contents.unchanged, staging.read_whole)
        if dry_run:
            return show_dry_run(hub, run, dataset, shards, work)

        changes = Changes(
            card_of=partial(card, dataset, repo_id),
            texts=outdated(side_files(dataset), listing),
            remove=work.removed if removed == "delete" else (),
            record=bool(target.damaged),
        )
        if not (work.missing or changes.any(target)) and not has_claimed(staging, run.id):
            return nothing_to_publish(hub, staging, work)
        log_drift(work)
        claim(staging, hub.target, run)
        wave, waiting = work.wave(max_staged_bytes or Settings().max_staged_bytes, staging.staged_bytes())
        log_waiting(wave, waiting)
        staging.require_room(sum(spec.room for spec in wave.stage))

        progress = Progress(len(wave.missing), sum(spec.size for spec in wave.missing))
        push = Push(hub, lease, source, staging, contents, progress)
        done = push.publish(wave, target, changes)
        progress.leave(f"push-{run.id}", f"What this run did for {hub.target}")
        if push.failed:
            raise ShardsFailed(failures(push.failed, len(shards)))

        later = {spec.path for spec in waiting}
        published = [spec for spec in shards if spec.path not in later]
        lines = {**target.record.shards, **done.record.shards}  # what somebody took out meanwhile, verification names
        expected = [lines[spec.path] for spec in published]
        receipts = [receipt for spec in published if (receipt := staging.read_receipt(spec))]
        sent = frozenset(spec.path for spec in wave.missing)
        evidence = Evidence(
            expected,
            receipts,
            sent,
            work.drift,
            work.removed,
            source=source,
            waiting=len(waiting),
            left_out=dataset.left_out,
        )
        return tail(hub, staging, run, verification, evidence)


def log_waiting(wave: Work, waiting: Sequence[ShardSpec]) -> None:
    """Say what has to wait until staged shards are let go."""
    if waiting:
        get_run_logger().warning(
            "max_staged_bytes: this run publishes %s shards; %s wait until the staged ones are let go at the gate. "
            "Start the run again then, or leave it to the nightly run.",
            f"{len(wave.missing):,}",
            f"{len(waiting):,}",
        )


def show_dry_run(hub: Hub, run: ThisRun, dataset: Dataset, shards: Sequence[ShardSpec], work: Work) -> State:
    """Leave what would be done as an artifact."""
    create_markdown_artifact(
        words.dry_run(hub, dataset, shards, work), key=f"dry-run-{run.id}", description=f"Dry run for {hub.target}"
    )
    missing = words.number(len(work.missing), "shard")
    return Completed(name="DryRun", message=f"{missing} of {len(shards):,} would be published. Nothing was sent.")


def nothing_to_publish(hub: Hub, staging: Staging, work: Work) -> State:
    """The end of a night with nothing changed."""
    staged = staging.receipts()
    left = (
        f" {words.size(sum(r.size for r in staged))} are still staged: cleanup-staging/manual asks about them."
        if staged
        else ""
    )
    return Completed(
        name="NothingToPublish",
        message=f"All {words.number(len(work.done), 'shard')} are on {hub.target} already.{left}",
    )


def log_drift(work: Work) -> None:
    """Say what somebody else changed on the Hub, and what the dataset no longer has."""
    log = get_run_logger()
    for drift in work.drift:
        log.warning("Changed on the Hub by somebody else: %s: %s", drift.path, drift.what)
    for path in work.removed:
        log.warning("Published, and no longer in the dataset: %s (removed=delete takes it from the repo)", path)


def failures(failed: dict[str, str], total: int) -> str:
    """The sentence in which a run ends when shards could not be staged."""
    listed = "\n".join(f"  {name}: {why}" for name, why in sorted(failed.items())[:20])
    more = f"\n  and {len(failed) - 20} more" if len(failed) > 20 else ""
    return (
        f"{len(failed)} of {words.number(total, 'shard')} could not be staged; the others are published. Nothing was "
        f"deleted, and no gate was opened. Mend these and start the run again:\n{listed}{more}"
    )
