"""What a run has done so far: counted as it happens, shown while it works, kept when it ends.

A progress artifact (shards, bytes, rate, time left) is updated at most every `SHOW_EVERY` seconds, and a table
artifact with the final figures is left behind. Counting never changes what is done.
"""

import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import cast
from uuid import UUID

from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact

from tasks.report.sentences import number, size
from tasks.values.models import Receipt

SHOW_EVERY = 5.0  # seconds between updates of the progress artifact: each is a request to the Prefect server


@dataclass
class Progress:
    """The counts of one run."""

    planned: int
    """Shards of the dataset."""
    on_hub: int
    """Those of them that were on the Hub when the run began."""
    total: int
    """Shards to publish in this run."""
    total_bytes: int
    """Bytes of their images."""
    counts: Counter[str] = field(default_factory=Counter)
    failures: list[dict[str, str]] = field(default_factory=list)
    seconds: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    _found: set[str] = field(default_factory=set)
    _artifact: UUID | None = None
    _images_sent: int = 0  # bytes of images, as `total_bytes` counts them: a shard is a little larger
    _started: float = field(default_factory=time.monotonic)
    _shown: float = field(default_factory=time.monotonic)
    _failures_shown: float = -SHOW_EVERY

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        """Count the seconds of a stage."""
        start = time.monotonic()
        try:
            yield
        finally:
            self.seconds[stage] += time.monotonic() - start

    def staged(self, receipt: Receipt, embedded: bool) -> None:
        """A shard is staged: embedded now, or found as an earlier run left it."""
        self.counts["shards embedded" if embedded else "shards found staged"] += 1
        if not embedded:
            self._found.add(receipt.name)
        self.counts["bytes staged"] += receipt.size
        self.counts["rows"] += receipt.rows
        self.show()

    def failed(self, shard: str, error: Exception) -> None:
        """A shard could not be staged: shown at once, in a table that names each with its reason."""
        self.counts["shards failed"] += 1
        self.failures.append({"shard": shard, "kind": type(error).__name__, "why": str(error)})
        self.show()
        if time.monotonic() - self._failures_shown >= SHOW_EVERY:
            self.show_failures()

    def show_failures(self) -> None:
        """Show the table of the shards that failed, as it is by now."""
        self._failures_shown = time.monotonic()
        create_table_artifact(
            list(self.failures),
            key="failed-shards",
            description=f"{number(len(self.failures), 'shard')} could not be staged; the others are published",
        )

    def damaged(self, receipt: Receipt) -> None:
        """A staged shard was damaged before it could be sent: what was found is not what an earlier run left."""
        self.counts["shards found damaged"] += 1
        if receipt.name in self._found:
            self._found.remove(receipt.name)
            self.counts["shards found staged"] -= 1

    def committed(self, receipts: Sequence[Receipt]) -> None:
        """A batch is visible on the Hub."""
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
        """How far it is, in one line."""
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
            f"{size(self._images_sent)} of {size(self.total_bytes)}, {size(round(rate))}/s{ending}{failed}"
        )

    def leave(self, key: str, description: str) -> None:
        """Leave the final figures as a table artifact, and with it the last of the failures."""
        if self.failures:
            self.show_failures()
        rows: list[dict[str, object]] = [{"what": what, "value": value} for what, value in self.counts.items()]
        rows += [{"what": f"seconds: {stage}", "value": round(spent, 2)} for stage, spent in self.seconds.items()]
        create_table_artifact(rows, key=key, description=description)
