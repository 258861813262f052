"""A source that gives each machine of a cluster so many bytes a second, as storage with many clients does.

Dask's workers load it (`--preload benchmarks.slow_source`). BENCH_SOURCE_MB_PER_S is the rate of one process.
"""

import os
import time
from collections.abc import Iterator
from threading import Lock


def dask_setup(_worker: object) -> None:
    """Called by Dask in each worker process, when it begins."""
    from tasks.embed.source import Source

    rate, lock, real = float(os.environ["BENCH_SOURCE_MB_PER_S"]) * 1e6, Lock(), Source.steps
    due = [0.0]  # when all that was read so far would have come

    def slow(self: Source, buffer: memoryview, up_to: int | None = None) -> Iterator[memoryview]:
        for step in real(self, buffer, up_to):
            with lock:
                due[0] = max(due[0], time.monotonic()) + len(step) / rate
                pause = due[0] - time.monotonic()
            time.sleep(max(pause, 0))
            yield step

    Source.steps = slow  # type: ignore[method-assign]
