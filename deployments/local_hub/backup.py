"""`backup`: a copy of a store that is a store itself, made while the server runs and writes.

How it works:

- The database first, as SQLite copies it at one moment, under a name of its own. Then the content that this copy names.
  Content is only ever added, and comes before the line that names it: so all that was acknowledged when the backup
  began is in the copy. Nothing is removed from the store meanwhile (`locks`).
- A file is read through and hashed on its way; what is not what its name says is not copied, and named in the end. It
  gets its name in the copy when it is whole and flushed; what has its name there already is not copied again.
- The copied database gets its name last. Killed before, a backup leaves the copy as it was, and a first one leaves no
  Hub; the next backup goes on with the content that is missing.
- On one disk a file of the store and of the copy are one and the same (a hard link): files under a digest are never
  written to. Across disks, or where others could open the store's, it is a copy.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import stat
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from io import FileIO
from pathlib import Path

from deployments.local_hub.database import BUSY_TIMEOUT, fsync_folder
from deployments.local_hub.locks import reading, removing
from deployments.local_hub.permissions import OTHERS
from deployments.local_hub.xet.hashes import to_text
from deployments.local_hub.xet.xorb import parse, unpack_ends

DATABASE = "hub.sqlite3"
SIDECARS = ("-wal", "-shm", "-journal")
MARK = "backup"  # the setting that only a copy has which was never served
BUFFER = 1024 * 1024  # bytes read in one go


class BackupError(RuntimeError):
    """A backup that cannot be made; the message says why."""


class UnreadableError(Exception):
    """A file of the store that cannot be read; the system's word for why."""


@dataclass
class Copied:
    """What a backup did; `began` in seconds since the epoch, sizes in bytes."""

    began: float
    files: int = 0
    size: int = 0
    there: int = 0
    there_size: int = 0
    linked: int = 0
    damaged: list[str] = field(default_factory=list)
    """What the store itself does not have as it should, and the copy neither."""


@dataclass(frozen=True)
class Wanted:
    """A file that the copied database names: its path in the store and its bytes, None where they are not known."""

    path: str
    size: int | None


def backup(root: Path, target: Path) -> Copied:
    """Bring the copy in the folder `target` up to what the store in `root` has now. BackupError where it cannot be."""
    _apart(root, target)
    if target.is_dir():
        _is_copy(root, target)  # before anything is written to it
    target.mkdir(parents=True, exist_ok=True, mode=0o700)
    with reading(root), removing(target):
        _is_copy(root, target)
        target.chmod(0o700)
        copied = Copied(time.time())
        database = _copy_database(root, target)
        with closing(sqlite3.connect(database)) as connection:
            for wanted in _named(connection, root):
                _bring(root, target, wanted, copied)
        (target / "tmp" / "backup.part").unlink(missing_ok=True)
        _name_database(target, database)
    return copied


def _apart(root: Path, target: Path) -> None:
    if not (root / DATABASE).is_file():
        raise BackupError(f"{root} holds no Hub")
    here, there = root.resolve(), target.resolve()
    if here == there or here in there.parents or there in here.parents:
        raise BackupError(f"{target} and {root} lie in each other: a copy needs a folder of its own")


def _is_copy(root: Path, target: Path) -> None:
    """BackupError unless the target is empty, begun by a backup, or a copy of this store that was never served."""
    if (target / DATABASE).is_file():
        ours, theirs = _settings(root / DATABASE), _settings(target / DATABASE)
        if ours["secret"] != theirs.get("secret"):
            raise BackupError(f"{target} holds another store: it is not written over. Give another folder")
        if MARK not in theirs:
            raise BackupError(
                f"{target} was served since it was a copy, so it has what {root} does not have: it is not written over."
                " Give another folder"
            )
        return
    begun = {
        "content",
        "xorbs",
        "tmp",
        "serving.lock",
        "removal.lock",
        *(f"{DATABASE}.part{end}" for end in ("", *SIDECARS)),
    }
    others = sorted(path.name for path in target.iterdir() if path.name not in begun)
    if others:
        raise BackupError(f"{target} has other files ({', '.join(others[:3])}): give a folder of the backup's own")


def _settings(path: Path) -> dict[str, bytes]:
    try:
        with closing(sqlite3.connect(path, timeout=BUSY_TIMEOUT)) as connection:
            return dict(connection.execute("SELECT key, value FROM setting").fetchall())
    except sqlite3.Error as error:
        raise BackupError(f"{path} cannot be read as a Hub's database: {error}") from None


# the database


def _copy_database(root: Path, target: Path) -> Path:
    part = target / f"{DATABASE}.part"
    for name in ("", *SIDECARS):  # what a killed backup has left
        Path(f"{part}{name}").unlink(missing_ok=True)
    part.touch(0o600)
    with (
        closing(sqlite3.connect(root / DATABASE, timeout=BUSY_TIMEOUT)) as source,
        closing(sqlite3.connect(part, isolation_level=None)) as copy,
    ):
        source.backup(copy)  # in one step, so it is of one moment
        copy.execute("INSERT OR REPLACE INTO setting VALUES (?, ?)", (MARK, str(time.time()).encode()))
        copy.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return part


def _name_database(target: Path, part: Path) -> None:
    """Put the new database in the old one's place, which has nothing left beside it that belongs to it."""
    old = target / DATABASE
    if old.exists():
        with closing(sqlite3.connect(old, timeout=BUSY_TIMEOUT)) as connection:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    for name in SIDECARS:
        if Path(f"{old}{name}").exists():
            raise BackupError(
                f"Somebody has {old} open: the new content is in the copy, its database is the old one yet"
            )
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(old)
    fsync_folder(target)


def _named(connection: sqlite3.Connection, root: Path) -> Iterator[Wanted]:
    """Every file that the database names. Content that came by Xet has none of its own: its xorbs have it."""
    query = "SELECT sha256, size, MIN(xet IS NOT NULL) FROM holding GROUP BY sha256, size ORDER BY sha256"
    for sha256, size, built in connection.execute(query):
        path = f"content/{sha256[:2]}/{sha256}"
        if not built or (root / path).is_file():
            yield Wanted(path, size)
    for digest, hashes, ends in connection.execute("SELECT hash, hashes, ends FROM xorb ORDER BY hash"):
        name = to_text(digest)
        yield Wanted(f"xorbs/{name[:2]}/{name}", unpack_ends(hashes, ends).packed_ends[-1])


# the files


def _bring(root: Path, target: Path, wanted: Wanted, copied: Copied) -> None:
    source, goal = root / wanted.path, target / wanted.path
    if goal.is_file() and not goal.is_symlink() and goal.stat().st_size == wanted.size:
        copied.there += 1
        copied.there_size += goal.stat().st_size
        return
    for folder in (goal.parent.parent, goal.parent, target / "tmp"):
        if not folder.is_dir():
            folder.mkdir(mode=0o700)
            fsync_folder(folder.parent)
    part = target / "tmp" / "backup.part"
    part.unlink(missing_ok=True)
    try:
        linked = _put(source, part)
    except UnreadableError as error:
        part.unlink(missing_ok=True)
        copied.damaged.append(f"{wanted.path}: it cannot be read: {error}")
        return
    size = part.stat().st_size
    if size != wanted.size or _digest(part, wanted.path) != goal.name:
        part.unlink()
        copied.damaged.append(f"{wanted.path}: it is not what its name says")
        return
    part.replace(goal)
    fsync_folder(goal.parent)
    copied.files += 1
    copied.size += size
    copied.linked += linked


def _put(source: Path, part: Path) -> bool:
    """The file once more: as a link, where it is on the same disk and nobody else may open it; else as a copy."""
    try:
        found = source.lstat()
        reader = source.open("rb", buffering=0)
    except OSError as error:
        raise UnreadableError(error.strerror) from None
    with reader:
        if stat.S_ISREG(found.st_mode) and not found.st_mode & OTHERS and found.st_dev == part.parent.stat().st_dev:
            try:
                os.link(source, part, follow_symlinks=False)
            except OSError:  # a file system without links, or with too many to this file
                part.unlink(missing_ok=True)
            else:
                return True
        with part.open("xb") as writer:
            for block in _blocks(reader):
                writer.write(block)
            writer.flush()
            os.fsync(writer.fileno())
    return False


def _blocks(reader: FileIO) -> Iterator[bytes]:
    while True:
        try:
            block = reader.read(BUFFER)
        except OSError as error:  # of the store's disk, and not of the copy's
            raise UnreadableError(error.strerror) from None
        if not block:
            return
        yield block


def _digest(part: Path, path: str) -> str:
    """What a file should be called by its bytes."""
    with part.open("rb") as file:
        if path.startswith("content/"):
            return hashlib.file_digest(file, "sha256").hexdigest()
        try:
            return to_text(parse(file)[0])
        except ValueError as error:
            return str(error)
