"""Looks into many small files: one after the other, or in threads where the disk is what takes the time.

Threads pay only for waiting. On files that are in memory already, eight of them took twice the processor time of one
(14,500 files of a dataset on two cores: 4.5 s and 2.3 s), because they wait for each other instead.
"""

import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

READERS = 8  # threads
#: Files that are looked into at a time. To hand one over takes longer than to read a small file, and `chunksize` of
#: `map` means nothing to threads.
TOGETHER = 32
WAITS = 0.0005  # seconds without the processor for a file, from which on threads pay

T = TypeVar("T")
R = TypeVar("R")


def look_into_each(look: Callable[[T], R], files: Iterable[T]) -> Iterator[R]:
    """Yield what `look` returns for each file, in their order."""
    rest = _together(files)
    for some in rest:
        begun, worked = time.monotonic(), time.thread_time()
        found = [look(file) for file in some]
        waited = time.monotonic() - begun - (time.thread_time() - worked)
        yield from found
        if waited > WAITS * len(some):
            break
    with ThreadPoolExecutor(READERS) as readers:
        for found in readers.map(lambda some: [look(file) for file in some], rest):
            yield from found


def _together(files: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(files)
    while some := list(islice(rest, TOGETHER)):
        yield some
