"""Python's search for objects that only refer to each other, made rarer while a run works.

A run keeps nearly all that it makes (rows, lines of the record, receipts) to its end. The search goes through what was
made after each 700 new objects, and through all there is again and again, and finds next to nothing: that was a tenth
of the processor's time of a night with nothing to do (902 sessions, 14,506 rows; `python -m benchmarks.small_shards`).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

#: New objects before a search through them, and searches of one generation before one of the next (`gc.set_threshold`).
#: At this first number the search costs next to nothing already, and what waits for it is a few megabytes.
RARELY = (10_000, 10, 10)


@contextmanager
def few_collections() -> Iterator[None]:
    """Make the search rarer, unless somebody has made it rarer still, and leave it as it was."""
    before = gc.get_threshold()
    if 0 < before[0] < RARELY[0]:
        gc.set_threshold(*RARELY)
    try:
        yield
    finally:
        gc.set_threshold(*before)
