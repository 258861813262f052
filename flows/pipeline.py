"""What goes on at the same time in one run: the workers' task runs, and task runs in threads of the pipeline's own.

How it works:

- Everything is decided in the main thread, so that nothing of the run needs a lock. Whatever ends, in any thread, is
  put into a queue. `run` takes it from there, in the order in which it ended, and calls what was to come after it.
- If that raises, nothing more begins: a thread that asks (`require_open`), as each try does, is refused. What is on its
  way ends first, and then the error goes on. So the first error is the one that the run shows.
- If a person cancels the run, or the system ends it, what is being sent is broken off too.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from queue import SimpleQueue
from threading import Event
from types import TracebackType
from typing import Any, Protocol, Self, TypeVar

from tasks.hub.connection import break_off

F = TypeVar("F", bound="Ending")
T = TypeVar("T")


class Ending(Protocol):
    """Anything that ends at some time: a future of Prefect's, or one of Python's."""

    def add_done_callback(self, fn: Callable[[Any], None], /) -> None:
        """Have a function called when it ends."""


class Closed(Exception):
    """The run ends, because of an error or because it was cancelled; so nothing more begins."""


class Pipeline:
    """What has begun and not ended yet."""

    def __init__(self, threads: int) -> None:
        self._ended: SimpleQueue[Callable[[], None]] = SimpleQueue()
        self._going_on = 0
        self._closed = Event()
        self._threads = ThreadPoolExecutor(threads, thread_name_prefix="pipeline")

    def after(self, work: F, then: Callable[[F], None]) -> None:
        """Have `then` called with `work` in the main thread, once it has ended."""
        self._going_on += 1
        work.add_done_callback(lambda _: self._ended.put(lambda: then(work)))

    def begin(self, work: Callable[[], T], then: Callable[[Future[T]], None]) -> None:
        """Do `work` in a thread of the pipeline, in the run's context, and call `then` in the main thread after it."""
        self.after(self._threads.submit(copy_context().run, work), then)

    def run(self) -> None:
        """Go on until nothing goes on any more.

        Raises:
            Exception: the first error of whatever is called after something has ended.
        """
        while self._going_on:
            then = self._ended.get()
            self._going_on -= 1
            then()

    def require_open(self) -> None:
        """Check that more may begin.

        Raises:
            Closed: the run ends.
        """
        if self._closed.is_set():
            raise Closed("The run ends because of an error elsewhere, or because it was cancelled.")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._closed.set()
        if kind and not issubclass(kind, Exception):  # a signal: nobody waits for what is being sent
            break_off()
        self._threads.shutdown(cancel_futures=True)
