"""Writes files so that they are there whole or not at all.

A reader never sees half a file. The bytes go to a temporary name beside the target, are flushed to the disk, and are
renamed over the target; then the folder's entry is flushed too. What a crash leaves behind ends in `TEMPORARY_SUFFIX`,
and is never taken for a finished file. If something else has the temporary name (a link, a FIFO, a file with a second
name), it is neither followed nor emptied: the write fails.
"""

import errno
import hashlib
import os
import stat
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
def whole_file(path: Path, durable: bool = True, writer: str = "") -> Iterator[BinaryIO]:
    """Open `path` for writing. The file appears there whole, and flushed, when the block ends without an error.

    The temporary name belongs to the target, not to the writer. Two runs never write one target (`tasks.disk.staging`),
    and what a killed writer left is overwritten by the next one instead of piling up. A process on another machine may
    live on after its run; it is a `writer` with a name of its own, so that two never write into one file. After an
    error the temporary file is emptied and not unlinked: only `tasks.cleanup` deletes what is staged.

    Args:
        path: the file to write; its folder is made if needed.
        writer: what the temporary name has in it, if others may write the same file: letters and digits.
        durable: whether to flush to the disk. Without it, a kill loses nothing, and a power cut may lose the file or
            leave it short. That is for data which is hashed before it is believed again, and costs little to make
            again.

    Raises:
        OSError: the file cannot be written, or something else has the temporary name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{path.name}{'.' if writer else ''}{writer}{TEMPORARY_SUFFIX}")
    stream = os.fdopen(_emptied(temporary, os.O_CREAT), "wb")
    try:
        yield stream
        stream.flush()
        if durable:
            os.fsync(stream.fileno())
        stream.close()
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # on a full disk, what the stream still holds does not fit now either
            stream.close()
        with suppress(OSError):  # the first error is the one to report
            os.close(_emptied(temporary))
        raise
    if durable:
        sync_folder(path.parent)


def _emptied(path: Path, flags: int = 0) -> int:
    """Return a descriptor of the file, after emptying it.

    Raises:
        OSError: there is no such file, it is not a regular file, or it has another name elsewhere. It stays as it is.
    """
    with suppress(FileNotFoundError):
        _require_own(path.lstat(), path)
    descriptor = os.open(path, os.O_WRONLY | os.O_NOFOLLOW | os.O_NONBLOCK | flags, 0o666)
    try:
        _require_own(os.fstat(descriptor), path)
        os.ftruncate(descriptor, 0)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _require_own(status: os.stat_result, path: Path) -> None:
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        raise OSError(errno.EEXIST, "something else has this name", str(path))


def write_whole(path: Path, data: bytes, durable: bool = True, writer: str = "") -> None:
    """Write `data` to `path` as `whole_file` does."""
    with whole_file(path, durable, writer) as stream:
        stream.write(data)


def sha256_of(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
