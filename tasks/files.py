"""Files that are there whole or not at all.

A reader never sees half a file: the bytes go to a temporary name beside the target, are flushed to the disk, renamed
over it, and the folder's entry is flushed too. What a crash leaves behind ends in `TEMPORARY_SUFFIX` and is never
taken for a finished file.
"""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

TEMPORARY_SUFFIX = ".part"


def sync_folder(folder: Path) -> None:
    """Flush a folder's entries to the disk, so that a rename in it survives a power cut."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[BinaryIO]:
    """Open `path` for writing so that it appears whole, and durable, when the block ends without an error.

    Without `durable` nothing is flushed: a kill loses nothing, a power cut may lose the file or leave it short. That is
    for what is hashed before it is believed again, and costs little to make again.

    The temporary name is unique to the target, not to the writer: two runs never write one target
    (`tasks.staging`), and what a killed writer left is overwritten by the next one instead of piling up.
    After an error the temporary file is emptied, not unlinked: deleting is `tasks.cleanup`'s alone.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(path.name + TEMPORARY_SUFFIX)
    stream = temporary.open("wb")
    try:
        yield stream
        stream.flush()
        if durable:
            os.fsync(stream.fileno())
        stream.close()
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # what the stream still holds does not fit on a full disk now either
            stream.close()
        with suppress(OSError):  # the first error is the one to tell
            os.truncate(temporary, 0)
        raise
    if durable:
        sync_folder(path.parent)


def write_whole(path: Path, data: bytes, durable: bool = True) -> None:
    """Write `data` to `path`, whole, and durable as `whole_file` says."""
    with whole_file(path, durable) as stream:
        stream.write(data)


def sha256_of(path: Path) -> str:
    """The sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
