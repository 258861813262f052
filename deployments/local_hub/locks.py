"""The locks of a store's folder, held by processes and not by threads: the kernel lets go of them however one ends.

`serving.lock` is the server's alone, and of whoever needs that no server runs. `removal.lock` is shared by those that
read content which they have found in the database (`check`, `backup`, `export`, `gc plan`), and held alone by who
removes content: nothing that they have found goes before they have read it.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class HubInUseError(RuntimeError):
    """Another process has this folder for itself; the message says what to do."""


def take_for_serving(root: Path) -> int:
    """The folder for one server alone: the lock's handle, to be closed in the end."""
    return _take(
        root / "serving.lock",
        fcntl.LOCK_EX,
        f"Another server already serves {root}, or content is being removed from it. Stop that one first, or wait",
    )


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """While the block lasts nobody removes content."""
    why = f"Content is being removed from {root}, or it is being backed up into: wait until that is done"
    handle = _take(root / "removal.lock", fcntl.LOCK_SH, why)
    try:
        yield
    finally:
        os.close(handle)


@contextmanager
def removing(root: Path) -> Iterator[None]:
    """While the block lasts no server serves the folder, and nobody relies on content that is in it."""
    serving = _take(root / "serving.lock", fcntl.LOCK_EX, f"A server serves {root}: stop it first, then try again")
    try:
        why = f"{root} is being checked, exported or backed up: wait until that is done, then try again"
        readers = _take(root / "removal.lock", fcntl.LOCK_EX, why)
        try:
            yield
        finally:
            os.close(readers)
    finally:
        os.close(serving)


def _take(path: Path, how: int, otherwise: str) -> int:
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(handle, how | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise HubInUseError(otherwise) from None
    return handle
