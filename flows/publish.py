"""The middle of a push: shards are staged, transferred and committed, all three at the same time.

How it works: a round (`_Round`) asks the workers to stage the missing shards, group by group. As soon as a receipt is
there, its shard goes into the next group to be sent. Up to `BIDS_PUSH_TRANSFERS` groups are sent at a time, each in a
thread and a task run of its own, because a group leaves the wire idle at its beginning and its end. What was sent is
committed batch by batch, one after the other, in another thread. The main thread does no work itself: it takes what has
ended and decides what begins (`flows.pipeline`). So nothing waits longer than it takes to fill what is sent or
committed together. Each task run names those that it came after, so that the run's graph in the UI shows the chain.

Memory is bounded by `BIDS_PUSH_TRANSFER_BYTES`: the client holds about two bytes for each byte that it is sending.

If a commit of somebody else was found on the way, the run looks at the target again when it is through, and publishes
what is still missing. It repeats this until nobody else has committed.
"""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any, cast

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger

from flows.pipeline import Pipeline
from flows.run_graph import Steps, quoted, run_after, that_ran
from tasks.commit import ContestedTarget, commit_batch
from tasks.commit.other_files import Besides
from tasks.commit.to_commit import ToCommit
from tasks.disk.content_cache import ContentCache
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.record.published import Work
from tasks.record.remote import Remote
from tasks.report.progress import Progress
from tasks.runs.lease import Lease
from tasks.stage import Group, NotStaged, StagedGroup, groups, stage_group
from tasks.transfer import Batches, Transferred, transfer_group
from tasks.values.errors import PushError
from tasks.values.models import Image, Receipt, ShardSpec
from tasks.values.settings import Settings

#: Rounds of staging and sending in one run. A staged file that is damaged before it is sent is staged again. If a disk
#: damages it each time, a person has to look at the disk.
ROUNDS = 3
#: Rounds in which somebody else has committed meanwhile. Two runs that publish different datasets to one target would
#: go on for ever, each undoing the other's work.
CONTESTS = 5
CARD_AT = 1.1  # times as many shards as it was written for: then the card is written anew while more are sent

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
    ran: dict[str, State[Any]] = field(default_factory=dict)
    """The last task run that each shard has come through, by the shard's path. The graph shows the next one after
    it.
    """
    commits: list[State[Any]] = field(default_factory=list)

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
            with Pipeline(Settings().transfers + 1) as pipeline:  # and one that commits
                done = _Round(self, pipeline, remote, besides)
                done.publish(work)
            remote, besides, damaged = done.remote, besides.after_commit(), done.damaged
            if not damaged and not done.contested:
                return remote
            unsound += bool(damaged)
            if unsound == ROUNDS:
                raise StagingUnsound(
                    f"{summary(damaged)} were damaged in {self.staging.folder} each time they were staged, before they "
                    "could be sent. Check that disk, and who writes there. The other shards are published."
                )
            damaged_paths = {receipt.path for receipt in damaged}
            if not done.contested:
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

    def submit(
        self, group: Group, missing: frozenset[str], redo: frozenset[str], refresh: bool = False
    ) -> PrefectFuture[StagedGroup]:
        """Let a worker stage a group. A group that is staged already comes back through Prefect's cache."""
        task = stage_group.with_options(result_storage=self.staging.results, refresh_cache=refresh or bool(redo))
        submit = cast(Callable[..., PrefectFuture[StagedGroup]], task.submit)  # its typed overloads know no wait_for
        arguments = quoted(group), missing, redo, self.source, self.staging
        return submit(*arguments, wait_for=list(self.steps.last))

    def outcome(self, future: PrefectFuture[StagedGroup], missing: Collection[str]) -> dict[str, Receipt]:
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

    def after(self, receipts: Iterable[Receipt]) -> list[State[Any]]:
        """Return the last task runs that these shards have come through, each once."""
        ran = (self.ran[receipt.path] for receipt in receipts)
        return list({state.state_details.task_run_id: state for state in ran}.values())


@dataclass
class _Round:
    """One round of staging, transferring and committing. Only the main thread touches it."""

    run: Publishing
    pipeline: Pipeline
    remote: Remote
    """What the target holds after the last commit."""
    besides: Besides
    """What the next commit has to bring besides its batch."""
    damaged: list[Receipt] = field(default_factory=list)
    """The receipts of staged files that were damaged before they were sent."""
    contested: bool = False
    """Whether a commit of somebody else was found."""
    _staging: int = 0
    """The number of groups that are still to be staged."""
    _to_send: deque[tuple[Receipt, ...]] = field(default_factory=deque)
    _sending: dict[int, int] = field(default_factory=dict)
    """The bytes of each group that is being sent, by its number."""
    _committing: bool = False
    _on_card: int = 0
    """The number of shards that the record had with the last commit that brought the card."""

    def __post_init__(self) -> None:
        settings = Settings()
        self._transfers, self._bytes = settings.transfers, settings.transfer_bytes
        self._staged: Batches[Receipt] = Batches(settings.transfer_shards, self._bytes // self._transfers)
        self._sent = ToCommit(settings.batch_shards, settings.batch_bytes)
        self._groups, self._batches = count(1), count(1)
        self._staging_timer = self.run.progress.timer("stage, overlapped with upload")

    def publish(self, work: Work) -> None:
        """Publish the missing shards. Then commit what else there is, if no batch has taken it along."""
        self._stage(work)
        self.pipeline.run()
        if self.besides.any(self.remote):
            self._commit((), "the card and the dataset's own texts", last=True)
            self.pipeline.run()

    def _stage(self, work: Work) -> None:
        """Ask the workers to stage the missing shards."""
        specs = {spec.path: spec for spec in work.missing}
        redo = frozenset(spec.path for spec in work.stage)
        for group in groups(self.run.plan):
            if missing := group.paths & specs.keys():
                self._ask(group, {path: specs[path] for path in missing}, redo & missing)

    def _ask(self, group: Group, missing: dict[str, ShardSpec], redo: frozenset[str], refresh: bool = False) -> None:
        """Ask a worker to stage a group's missing shards."""
        future = self.run.submit(group, frozenset(missing), redo, refresh)
        self._staging += 1
        self.pipeline.after(future, partial(self._was_staged, group, missing, redo, refresh))

    def _was_staged(
        self,
        group: Group,
        missing: dict[str, ShardSpec],
        redo: frozenset[str],
        refreshed: bool,
        future: PrefectFuture[StagedGroup],
    ) -> None:
        """Take the receipts of a group's missing shards."""
        run = self.run
        receipts = run.outcome(future, missing.keys())
        unknown = missing.keys() - receipts.keys() - run.failed.keys()
        if unknown and not refreshed:  # the cached result is of fewer shards
            self._ask(group, {path: missing[path] for path in unknown}, redo & unknown, refresh=True)
        run.contents.remember(pair for path, one in receipts.items() for pair in embedded(missing[path], one))
        for path, receipt in receipts.items():
            run.ran[path] = that_ran(future.state)
            run.progress.staged(receipt, embedded=path in redo)
            self._to_send.extend(self._staged.add(receipt))
        self._staging -= 1
        if not self._staging:
            self._to_send.extend(self._staged.rest())
            self._staging_timer()
        self._go_on()

    def _go_on(self) -> None:
        """Begin whatever may begin now."""
        while self._to_send and self._fits(self._to_send[0]):
            self._send(self._to_send.popleft())
        all_sent = not (self._staging or self._to_send or self._sending)
        if self._sent and not self._committing and (all_sent or self._sent.full):
            batch = self._sent.take()
            label = f"{next(self._batches)}: {summary([one.receipt for one in batch])}"
            self._commit(batch, label, last=all_sent and not self._sent)

    def _fits(self, group: Sequence[Receipt]) -> bool:
        """Return whether a group may be sent beside those that are on their way. One that is too large goes alone."""
        if not self._sending:
            return True
        return len(self._sending) < self._transfers and sum(self._sending.values()) + _size(group) <= self._bytes

    def _send(self, group: tuple[Receipt, ...]) -> None:
        """Send the content of a group of shards."""
        run = self.run
        run.lease.require()
        number = next(self._groups)
        after, arguments = run.after(group), (run.hub, run.staging, quoted(group), quoted(self._fence))
        work = partial(run_after, after, transfer_group, *arguments, f"{number}: {summary(group)}")
        self._sending[number] = _size(group)
        self.pipeline.begin(work, partial(self._was_sent, number, group, run.progress.timer("transfer")))

    def _was_sent(
        self,
        number: int,
        group: tuple[Receipt, ...],
        stop: Callable[[], None],
        future: Future[tuple[tuple[Transferred, ...], State[Any]]],
    ) -> None:
        """Take what was sent. The receipts of damaged staged files go into `damaged`."""
        stop()
        sent, ran = future.result()
        del self._sending[number]
        self.run.ran |= {receipt.path: ran for receipt in group}
        for one in sent:
            self._sent.add(one)
        for receipt in set(group).difference(one.receipt for one in sent):
            get_run_logger().warning("%s: the staged file is damaged; it is staged again.", receipt.name)
            self.run.progress.damaged(receipt)
            self.damaged.append(receipt)
        self._go_on()

    def _commit(self, batch: tuple[Transferred, ...], label: str, last: bool) -> None:
        """Commit a batch that was transferred, with everything that is true after it.

        The card costs by all shards, and not by the batch. So it comes along with the first commit, with the last one,
        and between them whenever the record has grown by a tenth.
        """
        run = self.run
        after = [*run.commits[-1:], *run.after(one.receipt for one in batch)] or run.steps.last
        besides = replace(self.besides, with_card=last or len(self.remote.record.shards) >= CARD_AT * self._on_card)
        values = (quoted(self.remote), quoted(batch), quoted(besides), quoted(self._fence))
        work = partial(run_after, after, commit_batch, run.hub, *values, label)
        self._committing = True
        begun = run.progress.timer("commit")
        self.pipeline.begin(work, partial(self._was_committed, batch, besides.with_card, begun))

    def _was_committed(
        self,
        batch: tuple[Transferred, ...],
        with_card: bool,
        stop: Callable[[], None],
        future: Future[tuple[Remote, State[Any]]],
    ) -> None:
        """Take what the target holds after a commit."""
        stop()
        self.remote, ran = future.result()
        self._sent.took(self.remote.seconds, len(batch))
        self._on_card = len(self.remote.record.shards) if with_card else self._on_card
        self.besides = self.besides.after_commit()
        self._committing = False
        self.contested = self.contested or self.remote.contested
        self.run.commits.append(ran)
        self.run.steps.last = (ran,)
        if batch:
            visible = [one.receipt for one in batch if one.receipt.path not in self.remote.overtaken]
            self.run.staging.remember(visible, self.remote.commit)
            self.run.progress.committed(visible)
        self._go_on()

    def _fence(self) -> None:
        """Check, before each try of what asks the Hub, that it may still begin."""
        self.pipeline.require_open()
        self.run.lease.require()


def _size(group: Iterable[Receipt]) -> int:
    return sum(receipt.size for receipt in group)


def embedded(spec: ShardSpec, receipt: Receipt) -> Iterator[tuple[Image, str]]:
    """Yield each image of a staged shard, with the sha256 that it had."""
    return zip(spec.rows, (content.sha256 for content in receipt.images), strict=True)


def summary(receipts: Sequence[Receipt]) -> str:
    """Return a few words for some shards."""
    return receipts[0].name if len(receipts) == 1 else f"{receipts[0].name} and {len(receipts) - 1} more"
