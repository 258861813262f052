"""The chain: load, plan, stage, upload, verify, approve (suspended), cleanup."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.connect import BlockName, RepoId, Revision, connect, ends_readably, staging_of
from flows.tail import Evidence, tail, tail_again
from tasks import report as words
from tasks.approve import at_its_gate, claim, has_claimed
from tasks.card import card, side_files
from tasks.contents import Contents
from tasks.errors import PushError
from tasks.hub import Hub
from tasks.load import load_dataset
from tasks.models import Dataset, Receipt, Removed, ShardSpec, Verification
from tasks.plan import plan_shards
from tasks.progress import Progress
from tasks.published import Published, read_target
from tasks.resume import Work, decide
from tasks.run import ThisRun, named_for_the_night
from tasks.settings import Settings
from tasks.stage import stage_shard
from tasks.staging import Staging
from tasks.upload import Changes, batches, commit_batch, outdated, transfer_batch
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
    staging_root: Path | None = None,
    dry_run: bool = False,
    token_block: BlockName | None = None,
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
        dry_run: Load, plan and compare, publish nothing, and show what would be done.
        token_block: The name of a Prefect Secret block that holds the Hub's token. Empty: HF_TOKEN of the worker.
    """
    hub = connect(repo_id, revision, token_block)
    staging = staging_of(hub, staging_root)
    run = ThisRun.of(hub.target)
    with staging.held():
        if gate := at_its_gate(staging, run):
            return tail_again(hub, staging, run, verification, gate)

        dataset = load_dataset(source)
        shards = plan_shards(dataset, WRITER_SETTINGS)
        target, listing = read_target(hub, make=not dry_run, private=private)
        contents = Contents(staging.folder.parent / "contents.sqlite", source)
        work = decide(shards, target.record, listing, contents.unchanged, staging.read_intact)
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
        staging.require_room(sum(spec.size for spec in work.stage))

        progress = Progress(len(work.missing), sum(spec.size for spec in work.missing))
        failed: dict[str, str] = {}
        staged = stage_missing(work, source, staging, contents, progress, failed)
        target = upload(hub, staging, staged, target, changes, progress)
        progress.leave(f"push-{run.id}", f"What this run did for {hub.target}")
        if failed:
            raise ShardsFailed(failures(failed, len(shards)))

        expected = [target.record.shards[spec.path] for spec in shards]
        receipts = [receipt for spec in shards if (receipt := staging.read_receipt(spec))]
        sent = frozenset(spec.path for spec in work.missing)
        evidence = Evidence(expected, receipts, sent, work.drift, work.removed, source=source)
        return tail(hub, staging, run, verification, evidence)


def stage_missing(
    work: Work,
    source: Path,
    staging: Staging,
    contents: Contents,
    progress: Progress,
    failed: dict[str, str],
) -> Iterator[Receipt]:
    """Stage the missing shards on the workers; each receipt as soon as it is there, failures into `failed`."""
    futures = {
        stage_shard.with_options(result_storage=staging.results, refresh_cache=redo).submit(
            spec, source, staging, redo
        ): (spec, redo)
        for specs, redo in ((work.send, False), (work.stage, True))
        for spec in specs
    }
    with progress.timed("stage, overlapped with upload"):
        for future in as_completed(list(futures)):
            spec, redo = futures[future]
            try:
                receipt = future.result()
            except PushError as error:
                failed[spec.name] = str(error)
                progress.failed(spec.name, error)
                continue
            contents.remember(zip(spec.images, (image.sha256 for image in receipt.images), strict=True))
            progress.staged(receipt, embedded=redo)
            yield receipt


def upload(
    hub: Hub, staging: Staging, receipts: Iterator[Receipt], target: Published, changes: Changes, progress: Progress
) -> Published:
    """Transfer and commit batch after batch while others are staged; what the target holds in the end."""
    settings = Settings()
    for number, batch in enumerate(batches(receipts, settings.batch_shards, settings.batch_bytes), start=1):
        label = f"batch {number}: {batch[0].name} and {len(batch) - 1} more"
        with progress.timed("transfer"):
            operations = transfer_batch(hub, staging, batch, label)
        with progress.timed("commit"):
            lines = [receipt.published() for receipt in batch]
            target = commit_batch(hub, target, lines, operations, changes, label)
        changes = changes.made()
        progress.committed(batch)
    if changes.any(target):
        target = commit_batch(hub, target, (), (), changes, "the card and the dataset's own texts")
    return target


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
