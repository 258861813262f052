"""What one run has done so far of turning missing shards into published ones, as every round of it has to know."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger

from flows.part import Asked, Errand
from flows.run_graph import that_ran
from flows.target import HeldTarget
from tasks.disk.content_cache import ContentCache
from tasks.record.published import Work
from tasks.report.progress import Progress
from tasks.stage import groups
from tasks.values.errors import PushError
from tasks.values.models import Image, Receipt, ShardSpec


@dataclass
class Publishing:
    """The part of one run that turns missing shards into published ones."""

    held: HeldTarget
    source: Path
    plan: Sequence[ShardSpec]
    contents: ContentCache
    progress: Progress
    failed: dict[str, PushError] = field(default_factory=dict)
    """The errors of shards that could not be staged, by the shard's path in the repo."""
    ran: dict[str, State[Any]] = field(default_factory=dict)
    """The last task run that each shard has come through, by the shard's path. The graph shows the next one after
    it.
    """
    commits: list[State[Any]] = field(default_factory=list)

    @property
    def errand(self) -> Errand:
        """What a machine of a cluster has to know of this run."""
        held = self.held
        return Errand(self.source, held.staging.folder, held.hub.target, held.token_block, held.run.id)

    def asked(self, work: Work) -> Iterator[Asked]:
        """Yield what is asked for of each group of the plan, so that all missing shards are staged."""
        staging = self.held.staging
        missing = {spec.path for spec in work.missing}
        redo = {spec.path: staging.identity_of(staging.name_of(spec)) for spec in work.stage}
        for group in groups(self.plan):
            if wanted := group.paths & missing:
                yield Asked(group, wanted, {path: redo[path] for path in wanted & redo.keys()})

    def staged(self, asked: Asked, receipts: Sequence[Receipt], ran: State[Any]) -> None:
        """Note shards of a group that a task run has staged, or found staged."""
        specs = {spec.path: spec for spec in asked.group.specs}
        self.contents.remember(pair for one in receipts for pair in embedded(specs[one.path], one))
        came_through = that_ran(ran)
        for receipt in receipts:
            self.ran[receipt.path] = came_through
            self.progress.staged(receipt, embedded=receipt.path in asked.redo)

    def could_not_stage(self, failures: Mapping[str, PushError]) -> None:
        """Note the shards that could not be staged."""
        for path, why in failures.items():
            self.failed[path] = why
            self.progress.failed(Path(path).stem, why)

    def damaged(self, receipt: Receipt) -> None:
        """Note a staged file that was damaged before it was sent."""
        get_run_logger().warning("%s: the staged file is damaged; it is staged again.", receipt.name)
        self.progress.damaged(receipt)

    def after(self, receipts: Iterable[Receipt]) -> list[State[Any]]:
        """Return the last task runs that these shards have come through, each once."""
        ran = (self.ran[receipt.path] for receipt in receipts)
        return list({state.state_details.task_run_id: state for state in ran}.values())


def embedded(spec: ShardSpec, receipt: Receipt) -> Iterator[tuple[Image, str]]:
    """Yield each image of a staged shard, with the sha256 that it had."""
    return zip(spec.rows, (content.sha256 for content in receipt.images), strict=True)


def summary(receipts: Sequence[Receipt]) -> str:
    """Return a few words for some shards."""
    return receipts[0].name if len(receipts) == 1 else f"{receipts[0].name} and {len(receipts) - 1} more"
