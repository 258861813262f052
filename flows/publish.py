"""The middle of a push: shards are staged, transferred and committed, all three at the same time.

How it works: the workers stage the missing shards, group by group. The main thread takes each receipt as soon as it is
there (`_stage`), transfers shards as they come (`_send`), and commits them batch by batch (`_make_visible`), while the
workers go on. Each of the three is a generator over the one before. So nothing waits longer than it takes to fill what
is sent or committed together. Each task run names those that it came after, so that the run's graph in the UI shows the
chain.

If a commit of somebody else was found on the way, the run looks at the target again when it is through, and publishes
what is still missing. It repeats this until nobody else has committed.
"""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, cast

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger

from flows.run_graph import Steps, quoted, run_after, that_ran
from tasks.commit import ContestedTarget, commit_batch
from tasks.commit.other_files import Besides
from tasks.disk.content_cache import ContentCache
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.record.published import Work
from tasks.record.remote import Remote
from tasks.report.progress import Progress
from tasks.runs.lease import Lease
from tasks.stage import Group, NotStaged, StagedGroup, groups, stage_group
from tasks.transfer import Transferred, batches, transfer_group
from tasks.values.errors import PushError
from tasks.values.models import Image, Receipt, ShardSpec
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


@dataclass
class Publishing:
    """The part of one run that turns missing shards into published ones."""

    hub: Hub
    lease: Lease
    source: Path
    plan: Sequence[ShardSpec]
    staging: Staging
    contents: ContentCache
    progress: Progress
    steps: Steps
    failed: dict[str, PushError] = field(default_factory=dict)
    """The errors of shards that could not be staged, by the shard's path in the repo."""
    _ran: dict[str, State[Any]] = field(default_factory=dict)
    """The last task run that each shard has come through, by the shard's path. The graph shows the next one after
    it.
    """
    _commits: list[State[Any]] = field(default_factory=list)
    _contested: bool = False
    """Whether a commit of somebody else was found in this round."""

    def publish(self, work: Work, remote: Remote, besides: Besides, plan_again: PlanAgain) -> Remote:
        """Stage and upload the missing shards.

        A shard whose staged file is damaged before it is sent is staged again. If somebody else has committed
        meanwhile, the rest is planned again.

        Returns:
            What the target holds at the end.

        Raises:
            StagingUnsound: a staged file is damaged every time.
            ContestedTarget: somebody else commits every time.
        """
        unsound = contests = 0
        while True:
            damaged: list[Receipt] = []
            self._contested = False
            remote = self._make_visible(self._send(self._stage(work), damaged), remote, besides)
            besides = besides.after_commit()
            if not damaged and not self._contested:
                return remote
            unsound += bool(damaged)
            if unsound == ROUNDS:
                raise StagingUnsound(
                    f"{summary(damaged)} were damaged in {self.staging.folder} each time they were staged, before they "
                    "could be sent. Check that disk, and who writes there. The other shards are published."
                )
            damaged_paths = {receipt.path for receipt in damaged}
            if not self._contested:
                work = work.to_stage_again(damaged_paths)
                continue
            contests += 1
            if contests == CONTESTS:
                raise ContestedTarget(
                    f"somebody else goes on committing to {self.hub.target}, and changes what this run has published. "
                    "What both have in common is published, and nothing of theirs was removed. Find out who it is (the "
                    "repo's list of commits says so), and start again when one of the two has ended for good."
                )
            work, remote, besides = plan_again()
            work = self._as_it_is_now(work, damaged_paths)

    def _as_it_is_now(self, work: Work, damaged: Collection[str]) -> Work:
        """Return the work as it is now in this run.

        Shards that have failed in it are left out, and damaged ones are staged again.
        """
        missing = [spec for spec in work.missing if spec.path not in self.failed]
        staged = {spec.path for spec in work.send}.difference(damaged)
        return replace(
            work,
            send=tuple(spec for spec in missing if spec.path in staged),
            stage=tuple(spec for spec in missing if spec.path not in staged),
        )

    def _stage(self, work: Work) -> Iterator[Receipt]:
        """Yield the receipts of the missing shards, each as soon as it is staged."""
        specs = {spec.path: spec for spec in work.missing}
        redo = frozenset(spec.path for spec in work.stage)
        asked: dict[PrefectFuture[StagedGroup], tuple[Group, frozenset[str]]] = {}
        for group in groups(self.plan):
            if missing := group.paths & specs.keys():
                asked[self._submit(group, missing, redo & missing)] = group, missing
        with self.progress.timed("stage, overlapped with upload"):
            for future in as_completed(list(asked)):
                group, missing = asked[future]
                receipts = self._outcome(future, missing)
                if unknown := missing.difference(receipts, self.failed):  # the cached result is of fewer shards
                    future = self._submit(group, unknown, redo & unknown, refresh=True)
                    receipts |= self._outcome(future, unknown)
                self.contents.remember(pair for path, one in receipts.items() for pair in embedded(specs[path], one))
                for path, receipt in receipts.items():
                    self._ran[path] = that_ran(future.state)
                    self.progress.staged(receipt, embedded=path in redo)
                    yield receipt

    def _submit(
        self, group: Group, missing: frozenset[str], redo: frozenset[str], refresh: bool = False
    ) -> PrefectFuture[StagedGroup]:
        """Let a worker stage a group. A group that is staged already comes back through Prefect's cache."""
        task = stage_group.with_options(result_storage=self.staging.results, refresh_cache=refresh or bool(redo))
        submit = cast(Callable[..., PrefectFuture[StagedGroup]], task.submit)  # its typed overloads know no wait_for
        arguments = quoted(group), missing, redo, self.source, self.staging
        return submit(*arguments, wait_for=list(self.steps.last))

    def _outcome(self, future: PrefectFuture[StagedGroup], missing: frozenset[str]) -> dict[str, Receipt]:
        """Return the receipts of a group's missing shards, by path.

        Shards that could not be staged go into `failed`.
        """
        try:
            receipts = future.result().receipts
        except NotStaged as error:
            receipts = error.receipts
            for path, why in error.failures.items():
                self.failed[path] = why
                self.progress.failed(Path(path).stem, why)
        return {receipt.path: receipt for receipt in receipts if receipt.path in missing}

    def _send(self, receipts: Iterator[Receipt], damaged: list[Receipt]) -> Iterator[Transferred]:
        """Transfer shards as they come, some together. The receipts of damaged staged files go into `damaged`."""
        settings = Settings()
        groups = batches(receipts, settings.transfer_shards, settings.transfer_bytes)
        for number, group in enumerate(groups, start=1):
            self.lease.require()
            with self.progress.timed("transfer"):
                label = f"{number}: {summary(group)}"
                sent, ran = run_after(self._after(group), transfer_group, self.hub, self.staging, quoted(group), label)
            self._ran |= {receipt.path: ran for receipt in group}
            yield from sent
            for receipt in set(group).difference(one.receipt for one in sent):
                get_run_logger().warning("%s: the staged file is damaged; it is staged again.", receipt.name)
                self.progress.damaged(receipt)
                damaged.append(receipt)

    def _make_visible(self, sent: Iterator[Transferred], remote: Remote, besides: Besides) -> Remote:
        """Commit what was transferred, batch by batch. Then commit the rest, if no batch has taken it along."""
        settings = Settings()
        for number, batch in enumerate(batches(sent, settings.batch_shards, settings.batch_bytes), start=1):
            receipts = [one.receipt for one in batch]
            remote = self._commit(remote, batch, besides, f"{number}: {summary(receipts)}")
            besides = besides.after_commit()
            visible = [receipt for receipt in receipts if receipt.path not in remote.overtaken]
            self.staging.remember(visible, remote.commit)
            self.progress.committed(visible)
        if besides.any(remote):
            remote = self._commit(remote, (), besides, "the card and the dataset's own texts")
        return remote

    def _commit(self, remote: Remote, batch: Sequence[Transferred], besides: Besides, label: str) -> Remote:
        after = [*self._commits[-1:], *self._after(one.receipt for one in batch)] or self.steps.last
        with self.progress.timed("commit"):
            remote, ran = run_after(
                after,
                commit_batch,
                self.hub,
                quoted(remote),
                quoted(batch),
                quoted(besides),
                quoted(self.lease.require),
                label,
            )
        self._contested = self._contested or remote.contested
        self._commits.append(ran)
        self.steps.last = (ran,)
        return remote

    def _after(self, receipts: Iterable[Receipt]) -> list[State[Any]]:
        """Return the last task runs that these shards have come through, each once."""
        ran = (self._ran[receipt.path] for receipt in receipts)
        return list({state.state_details.task_run_id: state for state in ran}.values())


def embedded(spec: ShardSpec, receipt: Receipt) -> Iterator[tuple[Image, str]]:
    """Yield each image of a staged shard, with the sha256 that it had."""
    return zip(spec.rows, (content.sha256 for content in receipt.images), strict=True)


def summary(receipts: Sequence[Receipt]) -> str:
    """Return a few words for some shards."""
    return receipts[0].name if len(receipts) == 1 else f"{receipts[0].name} and {len(receipts) - 1} more"
