"""A file on the Hub that a library can read like a local one: only the parts that it asks for are fetched.

The end of the file comes with the first request. A shard has its footer there, and the columns beside the files' bytes.
"""

import io
from functools import cached_property
from typing import Any

from tasks.hub.client import Hub

TAIL = 512 << 10  # bytes at the end that are fetched first: more than the footer and the texts of a session
BLOCK = 256 << 10  # bytes that are fetched at least where more is needed before the end
MOST = 64 << 20  # bytes that are ever read into memory at once; no footer or column of texts of ours comes near


class RemoteFile(io.RawIOBase):
    """A file at one commit. Its bytes are as the Hub sends them now, and not verified."""

    def __init__(self, hub: Hub, path: str, size: int, commit: str) -> None:
        self._hub, self._path, self._size, self._commit = hub, path, size, commit
        self._at = 0

    def part(self, start: int, size: int) -> bytes:
        """Return some bytes, from memory if they are there.

        Raises:
            ValueError: the file has no such part, or nothing of ours is as large.
            Transient: the Hub does not answer, or stops in the middle.
        """
        if start < 0 or size < 0 or start + size > self._size or size > MOST:
            raise ValueError("it names a part of itself that it does not have")
        if start >= self.tail_start:
            begin = start - self.tail_start
            return self._tail[begin : begin + size]
        least = min(max(size, BLOCK), self._size - start)
        return b"".join(self._hub.stream(self._path, self._commit, start, least))[:size]

    @property
    def tail_start(self) -> int:
        """The first byte of the end that is fetched first."""
        return max(self._size - TAIL, 0)

    @cached_property
    def _tail(self) -> bytes:
        left = self._size - self.tail_start
        return b"".join(self._hub.stream(self._path, self._commit, self.tail_start, left)) if left else b""

    def readable(self) -> bool:
        """It can be read."""
        return True

    def seekable(self) -> bool:
        """It can be read from anywhere."""
        return True

    def tell(self) -> int:
        """The position."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go to a position."""
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        return self._at

    def read(self, size: int = -1) -> bytes:
        """Read from the position on."""
        left = max(self._size - self._at, 0)
        found = self.part(self._at, left if size < 0 else min(size, left))
        self._at += len(found)
        return found

    def readinto(self, buffer: Any) -> int:
        """Read into a buffer."""
        found = self.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)
