"""What a run has done so far: counted as it happens, shown while it works, kept when it ends.

A progress artifact (shards, bytes, rate, time left) is updated at most every `SHOW_EVERY` seconds. A table artifact
with the final figures is left behind. Counting never changes what is done.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from tasks.values.format import in_units, number
from tasks.values.models import Receipt

SHOW_EVERY = 5.0  # seconds between updates of the progress artifact: each is a request to the Prefect server


@dataclass
class Progress:
    """The counts of one run."""

    planned: int
    """The number of shards of the dataset."""
    on_hub: int
    """The number of shards that were on the Hub when the run began."""
    total: int
    """The number of shards to publish in this run."""
    total_bytes: int
    """The bytes of their images."""
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _found: set[str] = field(default_factory=set)
    _artifact: UUID | None = None
    _images_sent: int = 0  # bytes of images, as `total_bytes` counts them: a shard is a little larger
    _started: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)
    _failures_shown: float = -SHOW_EVERY

    def timer(self, stage: str) -> Callable[[], None]:
        """Return a function that counts the seconds from now on for a stage. What goes on at one time adds up."""
        start = time.monotonic()

        def stop() -> None:
            self.seconds[stage] += time.monotonic() - start

        return stop

    def staged(self, receipt: Receipt, embedded: bool) -> None:
        """Count a shard that is staged.

        Args:
            receipt: the shard's receipt.
            embedded: whether it was embedded now, and not found as an earlier run left it.
        """
        self.counts["shards embedded" if embedded else "shards found staged"] += 1
        if not embedded:
            self._found.add(receipt.name)
        self.counts["bytes staged"] += receipt.size
        self.counts["rows"] += receipt.rows
        self.show()

    def failed(self, shard: str, error: Exception) -> None:
        """Count a shard that could not be staged. A table that names each one with its reason shows it at once."""
        self.counts["shards failed"] += 1
        self.failures.append({"shard": shard, "kind": type(error).__name__, "why": str(error)})
        self.show()
        if time.monotonic() - self._failures_shown >= SHOW_EVERY:
            self.show_failures()

    def show_failures(self) -> None:
        """Show the table of the shards that have failed so far."""
        self._failures_shown = time.monotonic()
        create_table_artifact(
            list(self.failures),
            key="failed-shards",
            description=f"{number(len(self.failures), 'shard')} could not be staged; the others are published",
        )

    def damaged(self, receipt: Receipt) -> None:
        """Count a staged shard that turned out damaged before it could be sent: it is not what an earlier run left."""
        self.counts["shards found damaged"] += 1
        if receipt.name in self._found:
            self._found.remove(receipt.name)
            self.counts["shards found staged"] -= 1

    def committed(self, receipts: Sequence[Receipt]) -> None:
        """Count a batch that is now visible on the Hub."""
        self.counts["commits"] += 1
        self.counts["shards sent"] += len(receipts)
        self.counts["bytes sent"] += sum(receipt.size for receipt in receipts)
        self._images_sent += sum(image.size for receipt in receipts for image in receipt.images)
        self.show()

    def show(self) -> None:
        """Update the progress artifact, unless it was updated a moment ago."""
        finished = self.counts["shards sent"] >= self.total
        if not finished and time.monotonic() - self._shown < SHOW_EVERY:
            return
        self._shown = time.monotonic()
        percent = round(100 * self.counts["shards sent"] / self.total, 1) if self.total else 100.0
        if self._artifact is None:
            created = create_progress_artifact(percent, key="push-progress", description=self.sentence())
            self._artifact = cast(UUID, created)  # in async code the same function gives a coroutine
        else:
            update_progress_artifact(self._artifact, progress=percent, description=self.sentence())

    def sentence(self) -> str:
        """Return one line that says how far the run is."""
        counts = self.counts
        elapsed = max(time.monotonic() - self._started, 1e-3)
        rate = self._images_sent / elapsed
        left = max(self.total_bytes - self._images_sent, 0)
        ending = f", about {left / rate / 60:.0f} min left" if left and rate else ""
        failed = f"; {number(counts['shards failed'], 'shard')} failed" if self.failures else ""
        return (
            f"{self.on_hub:,} of {number(self.planned, 'shard')} were on the Hub; {self.total:,} to do: "
            f"{counts['shards found staged']:,} found staged, {counts['shards embedded']:,} embedded, "
            f"{counts['shards sent']:,} sent; "
            f"{in_units(self._images_sent)} of {in_units(self.total_bytes)}, {in_units(round(rate))}/s{ending}{failed}"
        )

    def leave(self, key: str, description: str) -> None:
        """Leave the final figures as a table artifact. Show the last failures too."""
        if self.failures:
            self.show_failures()
        rows: list[dict[str, object]] = [{"what": what, "value": value} for what, value in self.counts.items()]
        rows += [{"what": f"seconds: {stage}", "value": round(spent, 2)} for stage, spent in self.seconds.items()]
        create_table_artifact(rows, key=key, description=description)
