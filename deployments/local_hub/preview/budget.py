"""What one preview may cost, and the reading that is paid for."""

from __future__ import annotations

import struct
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

READ_LIMIT = 128 * 1024 * 1024  # bytes from the store: half of a T1w of 250 MB
INFLATE_LIMIT = 256 * 1024 * 1024  # bytes that gzip gives
SECONDS = 2.0  # of a processor
PATIENCE = 10.0  # seconds of a clock: a machine that is busy, or a disk that is slow

Read = Callable[[int, int], bytes]  # the bytes from `start` to `stop`


class NotShownError(ValueError):
    """There is nothing to show, and why, for a person."""


@dataclass
class Budget:
    """What is left of a preview's budget: bytes, and seconds from when the thread that spends it made it."""

    read: int = READ_LIMIT
    inflated: int = INFLATE_LIMIT
    seconds: float = SECONDS
    _worked: float = field(default_factory=time.thread_time)
    _began: float = field(default_factory=time.monotonic)

    def pay(self, *, read: int = 0, inflated: int = 0) -> None:
        """NotShownError for what is over the budget."""
        self.read -= read
        self.inflated -= inflated
        if self.read < 0 or self.inflated < 0:
            raise NotShownError("it is too large to be shown here")
        if time.thread_time() - self._worked > self.seconds or time.monotonic() - self._began > PATIENCE:
            raise NotShownError("it takes too long to be shown here")


@dataclass(frozen=True)
class Source:
    """A file of the store, of which parts are read within a budget."""

    _read: Read
    size: int
    budget: Budget

    def read(self, start: int, stop: int) -> bytes:
        """The bytes from `start` to `stop`; NotShownError where the file does not have them."""
        if not 0 <= start <= stop <= self.size:
            raise NotShownError("it is damaged: it speaks of bytes that it does not have")
        self.budget.pay(read=stop - start)
        return self._read(start, stop)


#: What reading bytes leads to that are not what they say: other lengths, other types, other numbers.
MALFORMED = (
    LookupError,
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    RecursionError,
    struct.error,
    zlib.error,
)


@contextmanager
def as_not_shown() -> Iterator[None]:
    """Whatever is wrong with strangers' bytes is a NotShownError."""
    try:
        yield
    except NotShownError:
        raise
    except MALFORMED as error:
        raise NotShownError("it cannot be read") from error
