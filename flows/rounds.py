"""A round of staging, sending and committing: by threads of this machine, or by the machines of a cluster.

How it works: a round asks for the missing shards to be staged, group by group. What was sent is committed batch by
batch, one after the other, in a thread. The main thread does no work itself: it takes what has ended and decides what
begins (`flows.pipeline`). Each task run names those that it came after, so that the run's graph in the UI shows the
chain. Who stages and sends is what the two rounds differ in:

- `RoundOfThreads`: as soon as a receipt is there, its shard goes into the next group to be sent. Up to
  `BIDS_PUSH_TRANSFERS` groups are sent at a time, each in a thread and a task run of its own, because a group leaves
  the wire idle at its beginning and its end. Memory is bounded by `BIDS_PUSH_TRANSFER_BYTES`: the client holds about
  two bytes for each byte that it is sending.
- `RoundOfMachines`: groups are put together to parts of about `BIDS_PUSH_PART_BYTES`, since what Dask and Prefect need
  for one is a quarter of a second. A machine stages and sends a part (`flows.part`). Only as many are asked for at a
  time as keep the cluster busy, so what waits costs no memory.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import count
from typing import Any, cast

from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture

from flows.cluster import Cluster
from flows.part import Asked, Done, Part, parts
from flows.pipeline import Pipeline
from flows.publishing import Publishing, summary
from flows.run_graph import quoted, run_after
from tasks.commit import commit_batch
from tasks.commit.other_files import Besides
from tasks.commit.to_commit import ToCommit
from tasks.record.published import Work
from tasks.record.remote import Remote
from tasks.stage import NotStaged, StagedGroup, stage_group
from tasks.transfer import Batches, Transferred, transfer_group
from tasks.values.models import Receipt
from tasks.values.settings import Settings

SHARDS_A_PART = 512  # in a part that a machine does, however small they are
CARD_AT = 1.1  # times as many shards as it was written for: then the card is written anew while more are sent


@dataclass
class Round(ABC):
    """One round. Only the main thread touches it."""

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
    """The number of groups, or parts, that are still to be staged."""
    _committing: bool = False
    _on_card: int = 0
    """The number of shards that the record had with the last commit that brought the card."""

    def __post_init__(self) -> None:
        settings = Settings()
        self._sent = ToCommit(settings.batch_shards, settings.batch_bytes)
        self._batches = count(1)
        self._staging_timer = self.run.progress.timer("stage, overlapped with upload")

    def publish(self, work: Work) -> None:
        """Publish the missing shards. Then commit what else there is, if no batch has taken it along."""
        self._stage(work)
        self.pipeline.run()
        if self.besides.any(self.remote):
            self._commit((), "the card and the dataset's own texts", last=True)
            self.pipeline.run()

    @abstractmethod
    def _stage(self, work: Work) -> None:
        """Ask for the missing shards to be staged."""

    @property
    def _all_sent(self) -> bool:
        """Whether everything that can be sent in this round was sent."""
        return not self._staging

    def _found_damaged(self, receipt: Receipt) -> None:
        self.run.damaged(receipt)
        self.damaged.append(receipt)

    def _go_on(self) -> None:
        """Begin whatever may begin now."""
        all_sent = self._all_sent
        if self._sent and not self._committing and (all_sent or self._sent.full):
            batch = self._sent.take()
            label = f"{next(self._batches)}: {summary([one.receipt for one in batch])}"
            self._commit(batch, label, last=all_sent and not self._sent)

    def _commit(self, batch: tuple[Transferred, ...], label: str, last: bool) -> None:
        """Commit a batch that was transferred, with everything that is true after it.

        The card costs by all shards, and not by the batch. So it comes along with the first commit, with the last one,
        and between them whenever the record has grown by a tenth.
        """
        run = self.run
        after = [*run.commits[-1:], *run.after(one.receipt for one in batch)] or run.held.steps.last
        besides = replace(self.besides, with_card=last or len(self.remote.record.shards) >= CARD_AT * self._on_card)
        values = (quoted(self.remote), quoted(batch), quoted(besides), quoted(self._fence))
        work = partial(run_after, after, commit_batch, run.held.hub, *values, label)
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
        self.run.held.steps.last = (ran,)
        if batch:
            visible = [one.receipt for one in batch if one.receipt.path not in self.remote.overtaken]
            self.run.held.staging.remember(visible, self.remote.commit)
            self.run.progress.committed(visible)
        self._go_on()

    def _fence(self) -> None:
        """Check, before each try of what asks the Hub, that it may still begin."""
        self.pipeline.require_open()
        self.run.held.lease.require()


@dataclass
class RoundOfThreads(Round):
    """A round in which threads of this machine stage and send."""

    _to_send: deque[tuple[Receipt, ...]] = field(default_factory=deque)
    _sending: dict[int, int] = field(default_factory=dict)
    """The bytes of each group that is being sent, by its number."""

    def __post_init__(self) -> None:
        super().__post_init__()
        settings = Settings()
        self._transfers, self._bytes = settings.transfers, settings.transfer_bytes
        self._staged: Batches[Receipt] = Batches(settings.transfer_shards, self._bytes // self._transfers)
        self._groups = count(1)

    @property
    def _all_sent(self) -> bool:
        return not (self._staging or self._to_send or self._sending)

    def _stage(self, work: Work) -> None:
        for asked in self.run.asked(work):
            self._ask(asked)

    def _ask(self, asked: Asked) -> None:
        """Ask a thread to stage a group's missing shards. A group that is staged comes back through Prefect's cache."""
        held = self.run.held
        task = stage_group.with_options(result_storage=held.staging.results, refresh_cache=asked.anew)
        submit = cast(Callable[..., PrefectFuture[StagedGroup]], task.submit)  # its typed overloads know no wait_for
        arguments = quoted(asked.group), asked.missing, quoted(asked.redo), self.run.source, held.staging
        self._staging += 1
        future = submit(*arguments, wait_for=list(held.steps.last))
        self.pipeline.after(future, partial(self._was_staged, asked))

    def _was_staged(self, asked: Asked, future: PrefectFuture[StagedGroup]) -> None:
        """Take the receipts of a group's missing shards."""
        try:
            receipts = future.result().receipts
        except NotStaged as error:
            receipts = error.receipts
            self.run.could_not_stage(error.failures)
        wanted = [receipt for receipt in receipts if receipt.path in asked.missing]
        if again := asked.again(wanted, self.run.failed.keys()):
            self._ask(again)
        self.run.staged(asked, wanted, future.state)
        for receipt in wanted:
            self._to_send.extend(self._staged.add(receipt))
        self._staging -= 1
        if not self._staging:
            self._to_send.extend(self._staged.rest())
            self._staging_timer()
        self._go_on()

    def _go_on(self) -> None:
        while self._to_send and self._fits(self._to_send[0]):
            self._send(self._to_send.popleft())
        super()._go_on()

    def _fits(self, group: Sequence[Receipt]) -> bool:
        """Return whether a group may be sent beside those that are on their way. One that is too large goes alone."""
        if not self._sending:
            return True
        return len(self._sending) < self._transfers and sum(self._sending.values()) + _size(group) <= self._bytes

    def _send(self, group: tuple[Receipt, ...]) -> None:
        """Send the content of a group of shards."""
        run, held = self.run, self.run.held
        held.lease.require()
        number = next(self._groups)
        after, arguments = run.after(group), (held.hub, held.staging, quoted(group), quoted(self._fence))
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
            self._found_damaged(receipt)
        self._go_on()


@dataclass
class RoundOfMachines(Round):
    """A round in which the machines of a cluster stage and send."""

    machines: Cluster = field(kw_only=True)
    _parts: deque[Part] = field(default_factory=deque)
    """The parts that nobody was asked for yet."""

    def _stage(self, work: Work) -> None:
        asked = self.run.asked(work)
        self._parts.extend(parts(asked, self.run.errand, Settings().part_bytes, SHARDS_A_PART))
        self._staging = len(self._parts)
        self._ask()

    def _ask(self) -> None:
        """Ask the cluster for as many parts as keep it busy."""
        going_on = self._staging - len(self._parts)
        for _ in range(min(len(self._parts), self.machines.parts_at_a_time - going_on)):
            self.run.held.lease.require()
            part = self._parts.popleft()
            self.pipeline.after(self.machines.submit(part, self.run.held.steps.last), partial(self._was_done, part))

    def _was_done(self, part: Part, future: PrefectFuture[Done]) -> None:
        """Take what a machine has done."""
        run, done = self.run, self.machines.result(part, future)
        run.could_not_stage(done.failed)
        for asked in part.asked:
            run.staged(asked, [one for one in done.receipts if one.path in asked.missing], future.state)
        sent = {one.receipt.path for one in done.sent}
        for one in done.sent:
            self._sent.add(one)
        for receipt in done.receipts:
            if receipt.path not in sent:
                self._found_damaged(receipt)
        self._staging -= 1
        if not self._staging:
            self._staging_timer()
        self._ask()
        self._go_on()


def _size(group: Iterable[Receipt]) -> int:
    return sum(receipt.size for receipt in group)
