"""Writes a file from a thread of its own, so that the caller reads and hashes the next bytes meanwhile.

How it works: the caller takes a buffer, fills it, and hands it on; the thread writes it and puts it back. There are
`BUFFERS` of them, so a slow disk holds the caller and not the memory. The thread also asks the kernel to begin with
the disk's work every `WRITE_OUT` bytes: without that, the fsync at the file's end finds all of it still to do. An
error of the thread is raised in the caller at its next call, and at the latest by `finish`.
"""

import os
from queue import Empty, SimpleQueue
from threading import Thread
from typing import BinaryIO

BUFFER = 256 << 10  # bytes: read, hashed and written while they are in the caches
BUFFERS = 16  # a writer that waits for the disk for a moment does not stop the hashing
WRITE_OUT = 8 << 20  # bytes


class Behind:
    """Writes to `stream`, a file on a disk, from a thread that `finish` ends. Takes part in one thread's work only."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._free: SimpleQueue[bytearray] = SimpleQueue()
        self._filled: SimpleQueue[bytes | memoryview | None] = SimpleQueue()
        self._made = 0
        self._error: BaseException | None = None
        self._thread = Thread(target=self._run, name="write-behind", daemon=True)
        self._thread.start()

    def buffer(self) -> memoryview:
        """A buffer to fill and `write`; waits until one is free."""
        if self._made < BUFFERS:
            try:
                return memoryview(self._free.get_nowait())
            except Empty:
                self._made += 1
                return memoryview(bytearray(BUFFER))
        return memoryview(self._free.get())

    def write(self, data: bytes | memoryview) -> None:
        """Have `data` written: bytes, or a buffer's filled part, which is the thread's from now on.

        Raises:
            OSError: something before `data` could not be written.
        """
        if self._error:
            raise self._error
        self._filled.put(data)

    def finish(self) -> None:
        """Wait until all is written, and end the thread; a second time does nothing.

        Raises:
            OSError: something could not be written.
        """
        if self._thread.is_alive():
            self._filled.put(None)
            self._thread.join()
        if self._error:
            raise self._error

    def _run(self) -> None:
        written = begun = 0
        while (data := self._filled.get()) is not None:
            if self._error is None:
                try:
                    self._stream.write(data)
                    written += len(data)
                    if written - begun >= WRITE_OUT:
                        self._begin_write_out(begun, written)
                        begun = written
                except BaseException as error:  # noqa: BLE001 it is raised in the caller's thread
                    self._error = error
            if isinstance(data, memoryview):
                self._free.put(data.obj)  # type: ignore[arg-type]

    def _begin_write_out(self, begin: int, end: int) -> None:
        # POSIX_FADV_DONTNEED on dirty pages begins to write them and keeps them; only clean ones would be dropped
        if hasattr(os, "posix_fadvise"):
            self._stream.flush()
            os.posix_fadvise(self._stream.fileno(), begin, end - begin, os.POSIX_FADV_DONTNEED)
