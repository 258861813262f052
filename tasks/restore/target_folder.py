"""The folder that a dataset is restored into: what is in it stays, and what comes is whole or not there.

A file is written under a temporary name beside its place, hashed on the way, flushed, and given its name only if it has
the bytes that it should have. Its name is given by a hard link, which fails where something has that name by then;
a rename would replace it. So nothing of the user's is ever overwritten, however late it came.

A dataset has thousands of small files, and to flush one takes longer than to write it. So small files wait for each
other under their temporary names. They are flushed together, which a disk does in a few writes, and then get their
names (`Arrivals`).

Each folder on the way is opened with O_NOFOLLOW, relative to the one before, so no link leads out of the folder. The
folder itself may be reached through a link, since a person has named it.

The writer of a temporary file holds a lock on it. One that nobody holds is the leftover of a run that was killed, and
is removed; those of a run that works at the same time in the same folder are left alone.
"""

import errno
import fcntl
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

from tasks.disk.staging import NO_ROOM, CannotWrite, DiskFull
from tasks.disk.untrusted import opened
from tasks.values.format import in_units

TEMPORARY = re.compile(r"\.bids-push-[0-9a-f]{16}\.part")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_EXISTING = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
#: What the system says where a file system has no hard links, as on a USB stick.
NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)

TOGETHER = 16  # files that wait for each other: each holds two of the 256 or more files that a process may have open
TOGETHER_BYTES = 8 << 20  # bytes of files that wait for each other: a larger file is worth a flush of its own
FLUSHES = 16  # flushes at the same time

MEANWHILE = "something got this name while it was fetched. It was left as it is: start again, which compares the two"
OTHER_BYTES = "a file with other bytes is there already. It was left as it is: move it away, and start again"


class NotRestored(Exception):
    """One file is not restored. The message says why; the others go on."""


@dataclass(frozen=True)
class Into:
    """The folder that files are restored into."""

    folder: Path

    def prepare(self) -> None:
        """Make the folder if it is missing, and check that files can be written in it.

        Raises:
            CannotWrite: they cannot.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            why = None if os.access(self.folder, os.W_OK | os.X_OK) else "no right to write there"
        except OSError as error:
            why = error.strerror or str(error)
        if why:
            raise CannotWrite(
                f"nothing can be restored into {self.folder} ({why}). Give the user who runs this the right to write "
                "there, or name another folder in `into`."
            )

    def require_room(self, sizes: Iterable[tuple[str, int]]) -> None:
        """Check that the files which are not there yet fit on the disk.

        Args:
            sizes: path and bytes of each file.

        Raises:
            DiskFull: they do not fit; nothing was written.
        """
        needed = sum(size for path, size in sizes if not self._taken(path))
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise DiskFull(
                f"the files that are missing in {self.folder} have {in_units(needed)}, and its disk has "
                f"{in_units(free)} free. Nothing was written. Make room there, name a folder on a larger disk in "
                "`into`, or restore a part: subjects, sessions, datatypes or paths."
            )

    def _taken(self, path: str) -> bool:
        """Return whether something has this path already, whatever it is."""
        try:
            with self._place(path) as (parent, name):
                os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return False
        except (NotRestored, OSError):
            return True
        return True

    def remove_leftovers(self, paths: Iterable[str]) -> int:
        """Remove the temporary files of runs that were killed, in the folders of these files, and return how many.

        Where the file system has no locks, nobody knows whether another run still writes them, and they stay.
        """
        removed = 0
        for folder in sorted({path.rpartition("/")[0] for path in paths}):
            with suppress(OSError), opened(self.folder, folder.split("/") if folder else ()) as parent:
                removed += sum(
                    _removed(parent, one.name) for one in os.scandir(parent) if TEMPORARY.fullmatch(one.name)
                )
        return removed

    def has(self, path: str, size: int, same: Callable[[BufferedReader], bool]) -> bool:
        """Return whether a file is there already.

        Args:
            path: its path.
            size: its bytes.
            same: says whether a file of this size has the right bytes.

        Raises:
            NotRestored: something else is there.
        """
        try:
            with self._place(path) as (parent, name):
                status = os.stat(name, dir_fd=parent, follow_symlinks=False)
                if not stat.S_ISREG(status.st_mode):
                    raise NotRestored(
                        "something that is no file is there already, such as a link. It was left as it is"
                    )
                with os.fdopen(os.open(name, _EXISTING, dir_fd=parent), "rb") as stream:
                    if status.st_size != size or not same(stream):
                        raise NotRestored(OTHER_BYTES)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def writing(self) -> Iterator[None]:
        """Turn the system's error about a full disk into one for people.

        Raises:
            DiskFull: the block says that there is no room.
        """
        try:
            yield
        except OSError as error:
            if error.errno in NO_ROOM:
                raise DiskFull(
                    f"the disk of {self.folder} is full ({error.strerror}). Make room there, and start again: what is "
                    "restored stays, and is not fetched again."
                ) from error
            raise

    def is_executable(self, path: str) -> bool:
        """Return whether a file that is there is executable for its owner."""
        with self._place(path) as (parent, name):
            return bool(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode & stat.S_IXUSR)

    def write(
        self, path: str, size: int, sha256: str, chunks: Iterable[bytes | memoryview], executable: bool = False
    ) -> "Unnamed":
        """Write a file under a temporary name, and return it. Whoever has it must close it.

        Args:
            path: its path.
            size: its bytes.
            sha256: of its bytes.
            chunks: its bytes as they come.
            executable: whether everybody who may read it (by this user's umask) may execute it too.

        Raises:
            NotRestored: other bytes came.
            DiskFull: they do not fit.
            OSError: the system does not let it be written.
        """
        with self.writing(), ExitStack() as made:
            parent, name = made.enter_context(self._place(path, make=True))
            temporary, stream = made.enter_context(_temporary(parent, executable))
            digest, came = hashlib.sha256(), 0
            for chunk in chunks:
                digest.update(chunk)
                came += stream.write(chunk)
            if (came, digest.hexdigest()) != (size, sha256):
                raise NotRestored(
                    f"the Hub sends other bytes than were published: {came} bytes, sha256 "
                    f"{digest.hexdigest()[:12]}, where {size} bytes, sha256 {sha256[:12]}, were published"
                )
            stream.flush()
            return Unnamed(path, size, stream, parent, temporary, name, made.pop_all())

    def flush(self, paths: Iterable[str]) -> None:
        """Flush the folders of these files, so that their names survive a power cut."""
        with ThreadPoolExecutor(FLUSHES) as pool:
            list(pool.map(self._flush_folder, {path.rpartition("/")[0] for path in paths}))

    def _flush_folder(self, folder: str) -> None:
        with suppress(OSError), opened(self.folder, folder.split("/") if folder else ()) as parent:
            os.fsync(parent)

    @contextmanager
    def _place(self, path: str, make: bool = False) -> Iterator[tuple[int, str]]:
        """Open the folder that a file belongs into. Yield its descriptor and the file's name in it.

        Raises:
            NotRestored: a link, or something else that is no folder, is on the way.
            FileNotFoundError: there is no such folder, and it is not to be made.
        """
        *folders, name = path.split("/")
        descriptor = os.open(self.folder, _FOLDER)
        try:
            for depth, part in enumerate(folders, start=1):
                if make:
                    with suppress(FileExistsError):
                        os.mkdir(part, dir_fd=descriptor)
                try:
                    inner = os.open(part, _FOLDER, dir_fd=descriptor)
                except NotADirectoryError as error:
                    on_the_way = "/".join(folders[:depth])
                    raise NotRestored(
                        f"{on_the_way} is a link or a file, and no folder. It was left as it is"
                    ) from error
                os.close(descriptor)
                descriptor = inner
            yield descriptor, name
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Unnamed:
    """A file that has come whole, under its temporary name."""

    path: str
    size: int
    _stream: BinaryIO
    _parent: int
    _temporary: str
    _name: str
    _made: ExitStack

    def flush(self) -> OSError | None:
        """Write its bytes to the disk, and return why that failed, if it did."""
        try:
            os.fsync(self._stream.fileno())
        except OSError as error:
            return error
        return None

    def take_name(self) -> None:
        """Give the file its name.

        Raises:
            NotRestored: something has it by now.
        """
        _give_name(self._parent, self._temporary, self._name)

    def close(self) -> None:
        """Close the file and remove its temporary name. If it has no other name, its bytes are gone too."""
        self._made.close()


class Arrivals:
    """Files that come one after the other. Small ones are flushed together before they get their names.

    Used with `with`: at its end all have their names, also where the block ends with an error.
    """

    def __init__(
        self,
        into: Into,
        naming: Callable[[str], AbstractContextManager[None]],
        restored: Callable[[str, int], None],
    ) -> None:
        """Take files.

        Args:
            into: the folder.
            naming: surrounds what is done for the file of this path; it may swallow that one file's errors.
            restored: is told the path and the bytes of each file that has its name.
        """
        self._into, self._naming, self._restored = into, naming, restored
        self._waiting: list[Unnamed] = []
        self._pool = ThreadPoolExecutor(FLUSHES)

    def put(
        self, path: str, size: int, sha256: str, chunks: Iterable[bytes | memoryview], executable: bool = False
    ) -> None:
        """Write a file. It gets its name at the end of the block, or sooner.

        Arguments and errors are those of `Into.write`, but for those that `naming` swallows. One more error:

        Raises:
            NotRestored: something has the path of one of the files by now.
        """
        with self._naming(path):
            self._waiting.append(self._into.write(path, size, sha256, chunks, executable))
        if len(self._waiting) == TOGETHER or sum(file.size for file in self._waiting) >= TOGETHER_BYTES:
            self._give_names()

    def _give_names(self) -> None:
        files, self._waiting = self._waiting, []
        with ExitStack() as closing:
            for file in files:
                closing.callback(file.close)
            for file, error in zip(files, self._flushed(files), strict=True):
                with self._naming(file.path), self._into.writing():
                    if error:
                        raise error
                    file.take_name()
                    self._restored(file.path, file.size)

    def _flushed(self, files: Sequence[Unnamed]) -> Iterable[OSError | None]:
        """Flush these files. Return for each the reason if that failed, else None."""
        return map(Unnamed.flush, files) if len(files) < 2 else self._pool.map(Unnamed.flush, files)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self._pool:
            self._give_names()


def has_sha256(sha256: str) -> Callable[[BufferedReader], bool]:
    """Return a function that says whether a stream has the bytes with this sha256."""
    return lambda stream: hashlib.file_digest(stream, "sha256").hexdigest() == sha256


@contextmanager
def _temporary(parent: int, executable: bool) -> Iterator[tuple[str, BinaryIO]]:
    """Make a temporary file in an open folder.

    Yield its name and the stream to write to. At the end the name is removed.
    """
    name = f".bids-push-{secrets.token_hex(8)}.part"
    mode = 0o777 if executable else 0o666  # less the umask, as git makes files
    with os.fdopen(os.open(name, _NEW, mode, dir_fd=parent), "wb") as stream:
        try:
            with suppress(OSError):  # a file system without locks
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield name, stream
        finally:
            with suppress(FileNotFoundError):
                os.unlink(name, dir_fd=parent)


def _give_name(parent: int, temporary: str, name: str) -> None:
    """Give a file its name.

    Raises:
        NotRestored: something has it by now.
    """
    try:
        os.link(temporary, name, src_dir_fd=parent, dst_dir_fd=parent, follow_symlinks=False)
    except FileExistsError as error:
        raise NotRestored(MEANWHILE) from error
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        if any(one.name == name for one in os.scandir(parent)):
            raise NotRestored(MEANWHILE) from error
        os.rename(temporary, name, src_dir_fd=parent, dst_dir_fd=parent)


def _removed(parent: int, name: str) -> bool:
    """Remove a temporary file, unless somebody is writing it or it is no file. Return whether it was removed."""
    try:
        with os.fdopen(os.open(name, _EXISTING, dir_fd=parent), "rb") as stream:
            if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
                return False
            fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
            os.unlink(name, dir_fd=parent)
    except OSError:
        return False
    return True
