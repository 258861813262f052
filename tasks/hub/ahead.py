"""Files that are read back from the Hub in their order, the next ones while one is looked at.

A Hub that is far away takes longer to begin an answer than to send a small shard, and one connection may be slower than
the line. The bytes go through anonymous temporary files, so that nothing has to be deleted afterwards.
"""

import tempfile
from collections import deque
from collections.abc import Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from threading import Event
from types import TracebackType
from typing import BinaryIO, Protocol, Self

from tasks.hub.reading import Reading

AT_ONCE = 4  # files
AHEAD_BYTES = 256 << 20  # of this machine's disk, for files that nobody has asked for yet; a larger one is not ahead


class Listed(Protocol):
    """Anything that is a file of the repo."""

    @property
    def path(self) -> str:
        """Its path there."""

    @property
    def size(self) -> int:
        """Its bytes, as far as is known before they are read."""


@dataclass(frozen=True)
class Copy:
    """What the Hub has sent of a file."""

    file: BinaryIO
    size: int
    sha256: str
    """Taken here, of the bytes that came."""


@dataclass(frozen=True)
class _WhileWanted:
    """A file that takes bytes as long as anybody wants them, so that a run that ends waits for none of them."""

    file: BinaryIO
    ended: Event

    def write(self, data: bytes) -> int:
        if self.ended.is_set():
            raise InterruptedError("nobody waits for it any more")
        return self.file.write(data)


class Ahead:
    """Reads files of one commit back, each when it is asked for or before."""

    def __init__(self, hub: Reading, files: Iterable[Listed], commit: str) -> None:
        self._hub = hub
        self._commit = commit
        self._later = deque(files)
        self._begun: dict[str, tuple[Listed, Future[Copy]]] = {}
        self._ended = Event()
        self._threads = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="read-back")

    def take(self, file: Listed) -> Copy:
        """Return what the Hub sends of a file. If this raises, the file may be asked for again.

        Raises:
            NoSuchFile: the Hub says that there is none.
            Transient: it does not answer.
            OSError: this machine's disk does not take the bytes.
        """
        self._begin()
        if file.path not in self._begun:
            if self._later and self._later[0].path == file.path:
                self._later.popleft()
            return self._read(file)
        _, begun = self._begun.pop(file.path)
        self._begin()
        return begun.result()

    def _begin(self) -> None:
        """Begin to read whatever may be read by now."""
        while self._later and len(self._begun) < AT_ONCE:
            if sum(file.size for file, _ in self._begun.values()) + self._later[0].size > AHEAD_BYTES:
                return
            file = self._later.popleft()
            self._begun[file.path] = file, self._threads.submit(copy_context().run, self._read, file)

    def _read(self, file: Listed) -> Copy:
        copy = tempfile.TemporaryFile()  # noqa: SIM115 - whoever takes it closes it
        try:
            return Copy(copy, *self._hub.read_back(file.path, self._commit, _WhileWanted(copy, self._ended)))
        except BaseException:
            copy.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self._ended.set()
        self._threads.shutdown(cancel_futures=True)
        for _file, begun in self._begun.values():
            if not begun.cancelled() and begun.exception() is None:
                begun.result().file.close()
