"""LFS content: one file for each sha256, under its name only when it is whole and durable."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from deployments.local_hub.database import fsync_folder
from deployments.local_hub.receive import Received

READ_BLOCK = 1024 * 1024  # bytes read and sent in one go


class Content:
    """The files of `content/`, by the first two digits of their sha256."""

    def __init__(self, root: Path):
        self.folder = root / "content"
        self.folder.mkdir(exist_ok=True)

    def path(self, sha256: str) -> Path:
        """Where content is, or would be."""
        return self.folder / sha256[:2] / sha256

    def has(self, sha256: str) -> bool:
        """Whether the content is here."""
        return self.path(sha256).is_file()

    def place(self, received: Received) -> None:
        """Give received content its name; a second copy of the same bytes is dropped."""
        target = self.path(received.sha256)
        if target.is_file() and target.stat().st_size == received.size:
            received.discard()
            return
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            fsync_folder(self.folder)
        received.path.replace(target)
        fsync_folder(target.parent)

    def damage(self) -> Iterator[str]:
        """What does not have the digest it is named for, re-read from disk."""
        for path in sorted(self.folder.glob("*/*")):
            label = f"content/{path.parent.name}/{path.name}"
            try:
                with path.open("rb", buffering=0) as file:
                    digest = hashlib.file_digest(file, "sha256").hexdigest()
            except OSError as error:
                yield f"{label}: it cannot be read: {error.strerror}"
                continue
            if digest != path.name:
                yield f"{label}: its sha256 is {digest}"


def read_range(path: Path, start: int, stop: int) -> Iterator[bytes]:
    """The bytes `start` to `stop` of a file, block by block; raises OSError where the file ends early."""
    handle = os.open(path, os.O_RDONLY)
    try:
        while start < stop:
            block = os.pread(handle, min(READ_BLOCK, stop - start), start)
            if not block:
                raise OSError(f"{path.name} ends at byte {start}, {stop} were expected")
            start += len(block)
            yield block
    finally:
        os.close(handle)
