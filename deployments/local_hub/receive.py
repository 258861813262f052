"""Bodies that stream in: written to a temporary file and hashed block by block, refused when size or digest differ.

A body that was cut short, is longer than it said, or has another digest leaves nothing behind: its temporary file is
removed. What is kept has been fsynced. Memory holds one block of each body, whatever its size.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import uuid
from collections.abc import AsyncIterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from deployments.local_hub.errors import HubError, bad_request, too_large

BLOCK = 1024 * 1024  # bytes hashed and written in one go: large enough that the hop to a thread costs nothing


@dataclass(frozen=True)
class Received:
    """A body on disk, durable but not yet under its name; `sha256` is empty where none was asked for."""

    path: Path
    size: int
    sha256: str

    def discard(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)


async def receive(
    stream: AsyncIterator[bytes],
    folder: Path,
    executor: Executor,
    *,
    limit: int,
    size: int | None = None,
    sha256: str | None = None,
    hashed: bool = True,
    durable: bool = True,
) -> Received:
    """Write a body to a new file in `folder`.

    `limit` is the most it may have, in bytes; `size` and `sha256` what it must have, where that is known; `hashed`
    is off for bodies whose own format holds the hashes they are checked by. Raises 413 or 400, and whatever the
    transport raises when the client goes away, with nothing left on disk.
    """
    path = folder / uuid.uuid4().hex
    writer = _Writer(path, hashed)
    loop = asyncio.get_running_loop()
    pending: list[bytes] = []
    held = total = 0
    try:
        async for piece in stream:
            total += len(piece)
            if total > (limit if size is None else size):
                raise too_large(limit) if size is None else bad_request(f"The body has more than {size} bytes")
            pending.append(piece)
            held += len(piece)
            if held >= BLOCK:
                block, pending, held = pending, [], 0
                await loop.run_in_executor(executor, writer.write, block)
        digest = await loop.run_in_executor(executor, writer.finish, pending, durable)
        if size is not None and total != size:
            raise bad_request(f"The body has {total} bytes where {size} were announced")
        if sha256 is not None and digest != sha256:
            raise HubError(422, f"The body's sha256 is {digest}, not {sha256}")
        return Received(path, total, digest)
    except BaseException:
        writer.discard()
        raise


class _Writer:
    def __init__(self, path: Path, hashed: bool):
        self._path = path
        self._file = path.open("xb", buffering=0)
        self._hash = hashlib.sha256() if hashed else None

    def write(self, block: list[bytes]) -> None:
        for piece in block:
            if self._hash is not None:
                self._hash.update(piece)
            view = memoryview(piece)
            while view:
                view = view[self._file.write(view) :]

    def finish(self, block: list[bytes], durable: bool) -> str:
        self.write(block)
        if durable:
            os.fsync(self._file.fileno())
        self._file.close()
        return self._hash.hexdigest() if self._hash is not None else ""

    def discard(self) -> None:
        self._file.close()
        self._path.unlink(missing_ok=True)
