"""Finds, reads and hashes files in a folder that cannot be trusted, without following or opening anything else.

Many can write to a staging folder: a colleague who tidies up, a backup that is restored, a script that went wrong. So
it may hold links that lead out of it, FIFOs on which an open waits for ever, devices, hard links to files elsewhere,
and names that are no text. Here a file is **ordinary** if it is a regular file, has no other name (no hard link), and
its name is Unicode. Only an ordinary file is opened, and only after it was looked at:

- each folder on the way to it is opened with O_NOFOLLOW, relative to the one before,
- the file is opened with O_NOFOLLOW and O_NONBLOCK, relative to its folder, and must be the one that was looked at.
"""

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path, PurePosixPath

from tasks.values.models import Identity
from tasks.values.names import is_unicode

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_KINDS = {
    stat.S_IFLNK: "it is a symlink",
    stat.S_IFDIR: "it is a folder",
    stat.S_IFIFO: "it is a FIFO",
    stat.S_IFSOCK: "it is a socket",
    stat.S_IFBLK: "it is a device",
    stat.S_IFCHR: "it is a device",
}
LARGEST_TEXT = 512 << 20  # bytes: the gate of 100,000 shards has a tenth of it; a larger file is none of ours


class NotOrdinary(OSError):
    """A file is not ordinary, so it is not opened. `strerror` says why."""

    def __init__(self, why: str) -> None:
        super().__init__(errno.EINVAL, why)


class ChangedMeanwhile(OSError):
    """A file was written to, or replaced, while it was read."""

    def __init__(self) -> None:
        super().__init__(errno.ESTALE, "it changed while it was read")


#: The errors that mean "there is no ordinary file here". The disk is not to blame for them.
NOT_ORDINARY = (FileNotFoundError, NotADirectoryError, IsADirectoryError, NotOrdinary, ChangedMeanwhile)


def identity(status: os.stat_result) -> Identity:
    """Return the identity of a file, from its status."""
    return Identity(inode=status.st_ino, size=status.st_size, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns)


def oddity(status: os.stat_result) -> str | None:
    """Return what keeps a file with this status from being ordinary, or None if nothing does."""
    if not stat.S_ISREG(status.st_mode):
        return _KINDS.get(stat.S_IFMT(status.st_mode), "it is not a regular file")
    if status.st_nlink > 1:
        return "it has another name elsewhere (a hard link)"
    return None


@dataclass(frozen=True, slots=True)
class Entry:
    """A file, folder or anything else below a folder."""

    name: str
    """Relative to the folder. Bytes that are not UTF-8 are surrogates in it."""
    status: os.stat_result
    """The status of the entry itself, not of what it links to."""

    @property
    def is_folder(self) -> bool:
        """Whether it is a folder, and not a link to one."""
        return stat.S_ISDIR(self.status.st_mode)

    @property
    def oddity(self) -> str | None:
        """What keeps it from being an ordinary file, or None."""
        return oddity(self.status) or (None if is_unicode(self.name) else "its name is not UTF-8")


def entries(folder: Path, below: str = "") -> list[Entry]:
    """Return everything in a folder at any depth, sorted by name. No link is followed.

    What cannot be reached without following a link has no entries, and neither has a folder that does not exist.

    Args:
        folder: the folder that the names are relative to.
        below: the folder below it to look in; "" is the folder itself.
    """
    try:
        with opened(folder, PurePosixPath(below).parts) as top:
            return sorted(_entries(top, below), key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []


def _entries(top: int, below: str) -> Iterator[Entry]:
    for inner, folders, files, descriptor in os.fwalk(".", dir_fd=top, follow_symlinks=False):
        for name in (*folders, *files):
            try:
                status = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
            except FileNotFoundError:  # gone since the folder was read
                continue
            yield Entry(os.path.normpath(f"{below or '.'}/{inner}/{name}"), status)


@contextmanager
def opened(folder: Path, parts: Sequence[str]) -> Iterator[int]:
    """Open a folder below `folder` and yield its descriptor. Neither `folder` nor any step on the way may be a symlink.

    Raises:
        NotADirectoryError: one of them is a symlink.
        OSError: it cannot be opened.
    """
    descriptor = os.open(folder, _FOLDER)
    try:
        for part in parts:
            inner = os.open(part, _FOLDER, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _inside(folder: Path, name: str) -> Iterator[tuple[int, str]]:
    """Open the folder that the file `name` is in. Yield its descriptor and the last part of the name."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise NotOrdinary("its name leaves the target's folder")
    with opened(folder, path.parts[:-1]) as parent:
        yield parent, path.name


def looked_at(parent: int, name: str) -> os.stat_result:
    """Return the status of an ordinary file in an open folder.

    Raises:
        NotOrdinary: it is something else.
        OSError: there is no such file, or it cannot be looked at.
    """
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if why := oddity(status):
        raise NotOrdinary(why)
    return status


@contextmanager
def _opened_file(parent: int, name: str) -> Iterator[tuple[BufferedReader, Identity]]:
    """Open an ordinary file for reading. Yield the stream and the file's identity.

    Raises:
        NotOrdinary, OSError: as `looked_at`.
        ChangedMeanwhile: it is not the file that was looked at.
    """
    before = identity(looked_at(parent, name))
    with os.fdopen(os.open(name, _FILE, dir_fd=parent), "rb") as stream:
        if identity(os.fstat(stream.fileno())) != before:
            raise ChangedMeanwhile
        yield stream, before


def sha256_in(parent: int, name: str) -> tuple[str, Identity]:
    """Return the sha256 of an ordinary file in an open folder, and its identity, which was the same before and after.

    Raises:
        NotOrdinary, ChangedMeanwhile, OSError: it cannot be read as one file that nobody writes to.
    """
    with _opened_file(parent, name) as (stream, found):
        sha256 = hashlib.file_digest(stream, "sha256").hexdigest()
    if identity(looked_at(parent, name)) != found:
        raise ChangedMeanwhile
    return sha256, found


def sha256_below(folder: Path, name: str) -> tuple[str, Identity]:
    """Return what `sha256_in` returns, for a file below a folder, by its relative name."""
    with _inside(folder, name) as (parent, last):
        return sha256_in(parent, last)


def status_below(folder: Path, name: str) -> os.stat_result:
    """Return the status of an ordinary file below a folder, by its relative name. Raises as `looked_at`."""
    with _inside(folder, name) as (parent, last):
        return looked_at(parent, last)


def read_below(folder: Path, name: str) -> bytes:
    """Return the bytes of a small ordinary file below a folder, by its relative name. Raises as `looked_at`.

    Raises:
        NotOrdinary: it is larger than `LARGEST_TEXT`, too.
    """
    with _inside(folder, name) as (parent, last), _opened_file(parent, last) as (stream, found):
        if found.size > LARGEST_TEXT:
            raise NotOrdinary(f"it is larger than {LARGEST_TEXT >> 20} MiB")
        return stream.read()
