"""The chain: load, plan, stage, upload, verify, approve (suspended), cleanup."""

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from prefect.utilities.annotations import quote

from flows.connect import BlockName, Folder, RepoId, Revision, connect, ends_readably, staging_of
from flows.tail import Evidence, tail, tail_again
from tasks import report as words
from tasks.approve import at_its_gate, claim, has_claimed
from tasks.card import card, side_files
from tasks.contents import Contents
from tasks.errors import PushError
from tasks.hub import Hub
from tasks.lease import Lease, holding
from tasks.load import load_dataset
from tasks.models import Dataset, Image, Receipt, Removed, ShardSpec, Verification
from tasks.plan import plan_shards
from tasks.progress import Progress
from tasks.published import Published, read_target
from tasks.resume import Work, decide
from tasks.run import ThisRun, named_for_the_night
from tasks.settings import Settings
from tasks.stage import groups, stage_shard, stage_shards
from tasks.staging import Staging
from tasks.upload import Changes, Sent, batches, commit_batch, outdated, transfer_group
from tasks.write import WRITER_SETTINGS

T = TypeVar("T")

#: Threads, because embedding reads, writes and hashes, and all three release the GIL.
WORKERS = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=Settings().stage_workers))


#: Rounds of staging and sending in one run. A staged file that is damaged before it is sent is staged again, and a disk
#: that damages it each time has to be looked at by a person.
ROUNDS = 3


class ShardsFailed(PushError):
    """Some shards could not be staged. The others are published; no gate opens."""


class StagingUnsound(PushError):
    """What is staged does not stay as it was written."""


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
        failed: dict[str, str] = {}
        target = publish(hub, lease, wave, source, staging, contents, target, changes, progress, failed)
        progress.leave(f"push-{run.id}", f"What this run did for {hub.target}")
        if failed:
            raise ShardsFailed(failures(failed, len(shards)))

        later = {spec.path for spec in waiting}
        published = [spec for spec in shards if spec.path not in later]
        expected = [target.record.shards[spec.path] for spec in published]
        receipts = [receipt for spec in published if (receipt := staging.read_receipt(spec))]
        sent = frozenset(spec.path for spec in wave.missing)
        evidence = Evidence(expected, receipts, sent, work.drift, work.removed, source=source)
        return tail(hub, staging, run, verification, evidence)


def publish(
    hub: Hub,
    lease: Lease,
    work: Work,
    source: Path,
    staging: Staging,
    contents: Contents,
    target: Published,
    changes: Changes,
    progress: Progress,
    failed: dict[str, str],
) -> Published:
    """Stage and upload the missing shards, the two overlapped; what the target holds in the end.

    A shard whose staged file is damaged before it is sent is staged again.
    """
    for _ in range(ROUNDS):
        damaged: list[Receipt] = []
        receipts = stage_missing(work, source, staging, contents, progress, failed)
        sent = send(hub, lease, staging, receipts, progress, damaged)
        target = make_visible(hub, lease, sent, target, changes, progress)
        changes = changes.made()
        if not damaged:
            return target
        work = work.again(receipt.path for receipt in damaged)
    raise StagingUnsound(
        f"{damaged[0].name} and {len(damaged) - 1} more were damaged in {staging.folder} each time they were staged, "
        "before they could be sent. Check that disk, and who writes there. The other shards are published."
    )


def stage_missing(
    work: Work,
    source: Path,
    staging: Staging,
    contents: Contents,
    progress: Progress,
    failed: dict[str, str],
) -> Iterator[Receipt]:
    """The receipts of the missing shards, each as soon as it is staged; failures into `failed`."""
    futures: dict[PrefectFuture[Any], tuple[bool, tuple[ShardSpec, ...]]] = {}
    for specs, redo in ((work.send, False), (work.stage, True)):
        for group in groups(specs):
            futures[submit(group, source, staging, redo)] = redo, group
    with progress.timed("stage, overlapped with upload"):
        for future in as_completed(list(futures)):
            redo, staged = futures[future]
            receipts = outcomes(future, staged, failed, progress)
            contents.remember(pair for spec, receipt in receipts for pair in embedded(spec, receipt))
            for _, receipt in receipts:
                progress.staged(receipt, embedded=redo)
                yield receipt


def submit(group: Sequence[ShardSpec], source: Path, staging: Staging, redo: bool) -> PrefectFuture[Any]:
    """Have a worker stage a large shard, or several small ones."""
    if len(group) == 1:
        task = stage_shard.with_options(result_storage=staging.results, refresh_cache=redo)
        return task.submit(unseen(group[0]), source, staging, redo)
    label = f"{group[0].name} and {len(group) - 1} more"
    return stage_shards.submit(unseen(group), source, staging, redo, label)


def outcomes(
    future: PrefectFuture[Any], group: Sequence[ShardSpec], failed: dict[str, str], progress: Progress
) -> list[tuple[ShardSpec, Receipt]]:
    """The shards of a group that are staged; the others into `failed`."""
    try:
        result = future.result()
    except PushError as error:
        result = [error] * len(group)
    receipts = [result] if isinstance(result, Receipt) else result
    for spec, why in zip(group, receipts, strict=True):
        if isinstance(why, PushError):
            failed[spec.name] = str(why)
            progress.failed(spec.name, why)
    return [(spec, receipt) for spec, receipt in zip(group, receipts, strict=True) if isinstance(receipt, Receipt)]


def embedded(spec: ShardSpec, receipt: Receipt) -> Iterator[tuple[Image, str]]:
    """Each image of a staged shard, with the sha256 that it had."""
    return zip(spec.images, (content.sha256 for content in receipt.images), strict=True)


def send(
    hub: Hub,
    lease: Lease,
    staging: Staging,
    receipts: Iterator[Receipt],
    progress: Progress,
    damaged: list[Receipt],
) -> Iterator[Sent]:
    """Transfer shards as they come, group by group; those whose staged file is damaged into `damaged`."""
    settings = Settings()
    for number, group in enumerate(batches(receipts, settings.transfer_shards, settings.transfer_bytes), start=1):
        lease.require()
        with progress.timed("transfer"):
            sent = transfer_group(hub, staging, unseen(group), f"{number}: {summary(group)}")
        yield from sent
        for receipt in set(group).difference(one.receipt for one in sent):
            get_run_logger().warning("%s: the staged file is damaged; it is staged again.", receipt.name)
            progress.damaged(receipt)
            damaged.append(receipt)


def make_visible(
    hub: Hub, lease: Lease, sent: Iterator[Sent], target: Published, changes: Changes, progress: Progress
) -> Published:
    """Commit what was transferred, batch by batch, and then what no shard took along; what the target holds then."""
    settings = Settings()
    for number, batch in enumerate(batches(sent, settings.batch_shards, settings.batch_bytes), start=1):
        receipts = [one.receipt for one in batch]
        lease.require()
        with progress.timed("commit"):
            target = commit_batch(hub, unseen(target), unseen(batch), unseen(changes), f"{number}: {summary(receipts)}")
        changes = changes.made()
        progress.committed(receipts)
    if changes.any(target):
        lease.require()
        target = commit_batch(hub, unseen(target), (), unseen(changes), "the card and the dataset's own texts")
    return target


def unseen(value: T) -> T:
    """A task's argument that Prefect hands over without walking through it: that takes longer than the task."""
    return cast(T, quote(value))


def summary(receipts: Sequence[Receipt]) -> str:
    """A group of shards in a few words."""
    return receipts[0].name if len(receipts) == 1 else f"{receipts[0].name} and {len(receipts) - 1} more"


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
