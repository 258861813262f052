"""The middle of a push: shards are staged, transferred and committed, the three overlapped.

How it works: the workers stage the missing shards, several small ones in one task run. The main thread takes each
receipt as soon as it is there (`_stage`), transfers shards group by group (`_send`), and commits them batch by batch
(`_make_visible`), while the workers go on. Each step is a generator over the one before, so nothing is held back
longer than its group or batch takes to fill.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, cast

from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger
from prefect.utilities.annotations import quote

from tasks.contents import Contents
from tasks.errors import PushError
from tasks.hub import Hub
from tasks.lease import Lease
from tasks.models import Image, Receipt, ShardSpec
from tasks.progress import Progress
from tasks.published import Published
from tasks.resume import Work
from tasks.settings import Settings
from tasks.stage import groups, stage_shard, stage_shards
from tasks.staging import Staging
from tasks.upload import Changes, Sent, batches, commit_batch, transfer_group

T = TypeVar("T")

#: Rounds of staging and sending in one run. A staged file that is damaged before it is sent is staged again, and a disk
#: that damages it each time has to be looked at by a person.
ROUNDS = 3


class StagingUnsound(PushError):
    """What is staged does not stay as it was written."""


@dataclass
class Push:
    """One run's way from missing shards to published ones."""

    hub: Hub
    lease: Lease
    source: Path
    staging: Staging
    contents: Contents
    progress: Progress
    failed: dict[str, str] = field(default_factory=dict)
    """Shards that could not be staged: name -> why."""

    def publish(self, work: Work, target: Published, changes: Changes) -> Published:
        """Stage and upload the missing shards; what the target holds in the end.

        A shard whose staged file is damaged before it is sent is staged again.

        Raises:
            StagingUnsound: it is damaged every time.
        """
        for _ in range(ROUNDS):
            damaged: list[Receipt] = []
            sent = self._send(self._stage(work), damaged)
            target = self._make_visible(sent, target, changes)
            changes = changes.made()
            if not damaged:
                return target
            work = work.again(receipt.path for receipt in damaged)
        raise StagingUnsound(
            f"{summary(damaged)} were damaged in {self.staging.folder} each time they were staged, before they could "
            "be sent. Check that disk, and who writes there. The other shards are published."
        )

    def _stage(self, work: Work) -> Iterator[Receipt]:
        """The receipts of the missing shards, each as soon as it is staged."""
        futures: dict[PrefectFuture[Any], tuple[bool, tuple[ShardSpec, ...]]] = {}
        for specs, redo in ((work.send, False), (work.stage, True)):
            for group in groups(specs):
                futures[self._submit(group, redo)] = redo, group
        with self.progress.timed("stage, overlapped with upload"):
            for future in as_completed(list(futures)):
                redo, group = futures[future]
                receipts = self._outcomes(future, group)
                self.contents.remember(pair for spec, receipt in receipts for pair in embedded(spec, receipt))
                for _, receipt in receipts:
                    self.progress.staged(receipt, embedded=redo)
                    yield receipt

    def _submit(self, group: Sequence[ShardSpec], redo: bool) -> PrefectFuture[Any]:
        """Have a worker stage a large shard, or several small ones."""
        if len(group) == 1:
            task = stage_shard.with_options(result_storage=self.staging.results, refresh_cache=redo)
            return task.submit(unseen(group[0]), self.source, self.staging, redo)
        return stage_shards.submit(unseen(group), self.source, self.staging, redo, summary(group))

    def _outcomes(self, future: PrefectFuture[Any], group: Sequence[ShardSpec]) -> list[tuple[ShardSpec, Receipt]]:
        """The shards of a group that are staged; the others into `failed`."""
        try:
            result = future.result()
        except PushError as error:
            result = [error] * len(group)
        outcomes = list(zip(group, [result] if isinstance(result, Receipt) else result, strict=True))
        for spec, outcome in outcomes:
            if isinstance(outcome, PushError):
                self.failed[spec.name] = str(outcome)
                self.progress.failed(spec.name, outcome)
        return [(spec, outcome) for spec, outcome in outcomes if isinstance(outcome, Receipt)]

    def _send(self, receipts: Iterator[Receipt], damaged: list[Receipt]) -> Iterator[Sent]:
        """Transfer shards as they come, group by group; those whose staged file is damaged into `damaged`."""
        settings = Settings()
        groups = batches(receipts, settings.transfer_shards, settings.transfer_bytes)
        for number, group in enumerate(groups, start=1):
            self.lease.require()
            with self.progress.timed("transfer"):
                sent = transfer_group(self.hub, self.staging, unseen(group), f"{number}: {summary(group)}")
            yield from sent
            for receipt in set(group).difference(one.receipt for one in sent):
                get_run_logger().warning("%s: the staged file is damaged; it is staged again.", receipt.name)
                self.progress.damaged(receipt)
                damaged.append(receipt)

    def _make_visible(self, sent: Iterator[Sent], target: Published, changes: Changes) -> Published:
        """Commit what was transferred, batch by batch, and then what no shard took along."""
        settings = Settings()
        for number, batch in enumerate(batches(sent, settings.batch_shards, settings.batch_bytes), start=1):
            receipts = [one.receipt for one in batch]
            target = self._commit(target, batch, changes, f"{number}: {summary(receipts)}")
            changes = changes.made()
            self.progress.committed(receipts)
        if changes.any(target):
            target = self._commit(target, (), changes, "the card and the dataset's own texts")
        return target

    def _commit(self, target: Published, batch: Sequence[Sent], changes: Changes, label: str) -> Published:
        self.lease.require()
        with self.progress.timed("commit"):
            return commit_batch(self.hub, unseen(target), unseen(batch), unseen(changes), label)


def embedded(spec: ShardSpec, receipt: Receipt) -> Iterator[tuple[Image, str]]:
    """Each image of a staged shard, with the sha256 that it had."""
    return zip(spec.images, (content.sha256 for content in receipt.images), strict=True)


def unseen(value: T) -> T:
    """A task's argument that Prefect hands over without walking through it: that takes longer than the task."""
    return cast(T, quote(value))


def summary(shards: Sequence[ShardSpec] | Sequence[Receipt]) -> str:
    """A group of shards in a few words."""
    return shards[0].name if len(shards) == 1 else f"{shards[0].name} and {len(shards) - 1} more"
