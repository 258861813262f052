"""Git objects and refs of the Hub's repositories: git's own formats and ids (dulwich), kept in the Hub's database.

Objects are immutable, so what is parsed once is cached by its id: trees as mappings, blobs as what a listing shows of
them. An LFS file is a blob too, the pointer of the git-LFS specification; its sha256 and size are read off it when it
is written, so that a listing opens no blob.
"""

from __future__ import annotations

import re
import sqlite3
import threading
import time
import zlib
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from dulwich.objects import Blob, Commit, ObjectID, ShaFile, Tag, Tree
from dulwich.refs import Ref, check_ref_format

from deployments.local_hub.database import Database
from deployments.local_hub.errors import revision_not_found

COMMIT, TREE, BLOB, TAG = 1, 2, 3, 4  # git's type numbers
NAMES = {COMMIT: "commit", TREE: "tree", BLOB: "blob"}
FILE_MODE = 0o100644
FOLDER_MODE = 0o040000

TREE_CACHE_ENTRIES = 200_000  # about 50 MB: two whole listings of the largest repo the Hub's limits allow
BLOB_CACHE_ENTRIES = 100_000
COMMIT_CACHE_ENTRIES = 10_000
IDS_PER_QUERY = 500  # under SQLite's limit on parameters

PART_OF_REF = 250  # bytes between two slashes of a ref's name: git keeps a ref as a file, and locks it as *.lock

SHORT_OID = re.compile(r"[0-9a-f]{7,40}")
POINTER_MAX_SIZE = 1024  # bytes; a longer blob is no pointer (git-lfs, docs/spec.md)
POINTER = re.compile(rb"version https://git-lfs\.github\.com/spec/v1\noid sha256:([0-9a-f]{64})\nsize ([0-9]{1,18})\n")


@dataclass(frozen=True, slots=True)
class Entry:
    """A name's target in a tree: git's mode and the object's id."""

    mode: int
    oid: str

    @property
    def is_folder(self) -> bool:
        """Whether the target is a tree."""
        return self.mode == FOLDER_MODE


Folder = Mapping[str, Entry]


@dataclass(frozen=True, slots=True)
class BlobInfo:
    """What a listing shows of a blob: its size in bytes and, for an LFS pointer, digest and size of the content."""

    blob_size: int
    sha256: str | None
    size: int


@dataclass(frozen=True, slots=True)
class CommitInfo:
    """A commit, parsed; `date` in seconds since the epoch."""

    oid: str
    tree: str
    parents: tuple[str, ...]
    author: str
    date: float
    message: str

    @property
    def title(self) -> str:
        """The first line of the message."""
        return self.message.split("\n", 1)[0]

    @property
    def description(self) -> str:
        """The message without its title."""
        return self.message.partition("\n")[2].strip("\n")


def pointer(sha256: str, size: int) -> bytes:
    """The text git stores in place of content kept elsewhere (git-lfs, docs/spec.md)."""
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()


def parse_pointer(data: bytes) -> tuple[str, int] | None:
    """Digest and size named by an LFS pointer; None for any other blob."""
    match = POINTER.fullmatch(data) if len(data) <= POINTER_MAX_SIZE else None
    return None if match is None else (match[1].decode(), int(match[2]))


@dataclass(frozen=True, slots=True)
class Packed:
    """An object as the database holds it; `named` are digest and size of the content, where it is an LFS pointer."""

    oid: str
    kind: int
    size: int
    data: bytes
    named: tuple[str, int] | None


def pack(made: ShaFile) -> Packed:
    """Hash and compress an object."""
    data = made.as_raw_string()
    named = parse_pointer(data) if made.type_num == BLOB else None
    return Packed(made.id.decode(), made.type_num, len(data), zlib.compress(data, 1), named)


def tree_of(folder: Folder) -> Tree:
    """A folder as git writes it."""
    tree = Tree()
    for name, entry in folder.items():
        tree.add(name.encode("utf-8", "surrogateescape"), entry.mode, ObjectID(entry.oid.encode()))
    return tree


class Git:
    """Objects and refs of all repositories of one Hub."""

    def __init__(self, database: Database):
        self._database = database
        self._trees: _Cache[Folder] = _Cache(TREE_CACHE_ENTRIES, len)
        self._blobs: _Cache[BlobInfo] = _Cache(BLOB_CACHE_ENTRIES)
        self._commits: _Cache[CommitInfo] = _Cache(COMMIT_CACHE_ENTRIES)

    # objects

    def add(self, connection: sqlite3.Connection, repo: int, made: ShaFile) -> str:
        """Store an object inside the caller's transaction, once; returns its id."""
        return self.add_packed(connection, repo, pack(made))

    def add_packed(self, connection: sqlite3.Connection, repo: int, packed: Packed) -> str:
        """Store an object that was packed before the transaction."""
        sha256, content_size = packed.named or (None, None)
        connection.execute(
            "INSERT OR IGNORE INTO git_object VALUES (?, ?, ?, ?, ?, ?, ?)",
            (repo, packed.oid, packed.kind, packed.size, packed.data, sha256, content_size),
        )
        return packed.oid

    def read(self, repo: int, oid: str, connection: sqlite3.Connection | None = None) -> tuple[int, bytes] | None:
        """An object's git type number and bytes, or None; a writer passes its connection to see its own work."""
        query = "SELECT kind, data FROM git_object WHERE repo = ? AND oid = ?"
        row = (connection or self._database.read()).execute(query, (repo, oid)).fetchone()
        return None if row is None else (row[0], zlib.decompress(row[1]))

    def _read_kind(self, repo: int, oid: str, kind: int, connection: sqlite3.Connection | None = None) -> bytes:
        """The bytes of an object of this kind.

        Raises:
            LookupError: the repo has no such object.
        """
        found = self.read(repo, oid, connection)
        if found is None or found[0] != kind:
            raise LookupError(f"{NAMES[kind]} {oid} is missing")
        return found[1]

    def objects(self, repo: int) -> list[tuple[str, int]]:
        """The id and git type number of every object of the repo."""
        query = "SELECT oid, kind FROM git_object WHERE repo = ?"
        return self._database.read().execute(query, (repo,)).fetchall()

    def tree(self, repo: int, oid: str, connection: sqlite3.Connection | None = None) -> Folder:
        """A folder by its tree id, in git's order."""
        folder = self._trees.get(oid)
        if folder is None:
            tree = Tree.from_string(self._read_kind(repo, oid, TREE, connection))
            folder = {
                name.decode("utf-8", "surrogateescape"): Entry(mode, sha.decode()) for name, mode, sha in tree.items()
            }
            self._trees.put(oid, folder)
        return folder

    def blob(self, repo: int, oid: str) -> bytes:
        """A blob's bytes (an LFS file's pointer)."""
        return self._read_kind(repo, oid, BLOB)

    def blobs(self, repo: int, oids: Iterable[str]) -> dict[str, BlobInfo]:
        """What a listing shows of many blobs, in a query for 500 that are not cached."""
        infos: dict[str, BlobInfo] = {}
        unknown: list[str] = []
        for oid in set(oids):
            info = self._blobs.get(oid)
            if info is None:
                unknown.append(oid)
            else:
                infos[oid] = info
        for start in range(0, len(unknown), IDS_PER_QUERY):
            some = unknown[start : start + IDS_PER_QUERY]
            marks = ",".join("?" * len(some))
            query = f"SELECT oid, size, sha256, content_size FROM git_object WHERE repo = ? AND oid IN ({marks})"
            for oid, size, sha256, content_size in self._database.read().execute(query, (repo, *some)):
                infos[oid] = BlobInfo(size, sha256, size if content_size is None else content_size)
                self._blobs.put(oid, infos[oid])
        return infos

    def pointers(self, repo: int) -> dict[str, tuple[str, int]]:
        """The LFS pointers of the repo, by their ids: digest and bytes of the content."""
        query = "SELECT oid, sha256, content_size FROM git_object WHERE repo = ? AND sha256 NOT NULL"
        return {oid: (sha256, size) for oid, sha256, size in self._database.read().execute(query, (repo,))}

    def names(self, repo: int, sha256: str) -> bool:
        """Whether some commit of the repo has had a file with this content."""
        query = "SELECT 1 FROM git_object WHERE repo = ? AND sha256 = ?"
        return self._database.read().execute(query, (repo, sha256)).fetchone() is not None

    def commit(self, repo: int, oid: str, connection: sqlite3.Connection | None = None) -> CommitInfo:
        """A commit by its id."""
        info = self._commits.get(oid)
        if info is None:
            made = Commit.from_string(self._read_kind(repo, oid, COMMIT, connection))
            info = CommitInfo(
                oid,
                made.tree.decode(),
                tuple(parent.decode() for parent in made.parents),
                made.author.rpartition(b" <")[0].decode("utf-8", "replace"),
                float(made.author_time),
                made.message.decode("utf-8", "replace"),
            )
            self._commits.put(oid, info)
        return info

    def add_commit(
        self,
        connection: sqlite3.Connection,
        repo: int,
        *,
        tree: str,
        parents: Iterable[str],
        author: str,
        message: str,
        now: float,
    ) -> str:
        """Store a commit in UTC under the account's name; returns its id."""
        made = Commit()
        made.tree = tree.encode()
        made.parents = [ObjectID(parent.encode()) for parent in parents]
        made.author = made.committer = f"{author} <{author}@users.noreply.local>".encode()
        made.author_time = made.commit_time = int(now)
        made.author_timezone = made.commit_timezone = 0
        made.encoding = None
        made.message = message.encode()
        return self.add(connection, repo, made)

    def add_blob(self, connection: sqlite3.Connection, repo: int, data: bytes) -> str:
        """Store a file's bytes; returns the blob's id."""
        return self.add(connection, repo, Blob.from_string(data))

    def add_tree(self, connection: sqlite3.Connection, repo: int, folder: Folder) -> str:
        """Store a folder; returns the tree's id."""
        return self.add(connection, repo, tree_of(folder))

    def add_tag(
        self,
        connection: sqlite3.Connection,
        repo: int,
        *,
        name: str,
        target: str,
        author: str,
        message: str,
        now: float,
    ) -> str:
        """Store an annotated tag; returns its id."""
        made = Tag()
        made.name = name.encode()
        made.object = (Commit, target.encode())
        made.tagger = f"{author} <{author}@users.noreply.local>".encode()
        made.tag_time = int(now)
        made.tag_timezone = 0
        made.message = message.encode()
        return self.add(connection, repo, made)

    def common_ancestor(
        self, repo: int, one: str, other: str, connection: sqlite3.Connection | None = None
    ) -> str | None:
        """The newest commit on the first-parent history of both; None if they share none."""
        seen: set[str] = set()
        here: list[str | None] = [one, other]
        while any(here):
            for side, oid in enumerate(here):
                if oid is None:
                    continue
                if oid in seen:
                    return oid
                seen.add(oid)
                parents = self.commit(repo, oid, connection).parents
                here[side] = parents[0] if parents else None
        return None

    def changes(
        self, repo: int, before: str | None, after: str, connection: sqlite3.Connection | None = None
    ) -> dict[str, str | None]:
        """The files that differ between two commits: their blob in the later one, None for those deleted."""
        found: dict[str, str | None] = {}
        old = Entry(FOLDER_MODE, self.commit(repo, before, connection).tree) if before is not None else None
        new = Entry(FOLDER_MODE, self.commit(repo, after, connection).tree)
        pending: list[tuple[str, Entry | None, Entry | None]] = [("", old, new)]
        while pending:
            path, was, now = pending.pop()
            if was == now:
                continue
            if was is not None and not was.is_folder:
                found.setdefault(path, None)
            if now is not None and not now.is_folder:
                found[path] = now.oid
            inner_was = self.tree(repo, was.oid, connection) if was is not None and was.is_folder else {}
            inner_now = self.tree(repo, now.oid, connection) if now is not None and now.is_folder else {}
            prefix = f"{path}/" if path else ""
            pending.extend(
                (prefix + name, inner_was.get(name), inner_now.get(name)) for name in {*inner_was, *inner_now}
            )
        return found

    # refs

    def refs(self, repo: int, connection: sqlite3.Connection | None = None) -> dict[str, str]:
        """Every ref of the repo by its full name, with the id it points at."""
        query = "SELECT name, oid FROM ref WHERE repo = ? ORDER BY name"
        return dict((connection or self._database.read()).execute(query, (repo,)).fetchall())

    def set_ref(self, connection: sqlite3.Connection, repo: int, name: str, oid: str) -> None:
        """Point a ref at an object, inside the transaction that stored the object."""
        connection.execute("INSERT OR REPLACE INTO ref VALUES (?, ?, ?)", (repo, name, oid))

    def move_ref(self, connection: sqlite3.Connection, repo: int, name: str, oid: str) -> None:
        """Point a ref elsewhere than to what continues it, and note what it has left (`garbage`)."""
        self._leave(connection, repo, name)
        self.set_ref(connection, repo, name, oid)

    def _leave(self, connection: sqlite3.Connection, repo: int, name: str) -> None:
        query = "INSERT OR REPLACE INTO abandoned SELECT repo, oid, ? FROM ref WHERE repo = ? AND name = ?"
        connection.execute(query, (time.time(), repo, name))

    def delete_ref(self, connection: sqlite3.Connection, repo: int, name: str) -> bool:
        """Remove a ref; False where there was none."""
        self._leave(connection, repo, name)
        return connection.execute("DELETE FROM ref WHERE repo = ? AND name = ?", (repo, name)).rowcount > 0

    def peel(self, repo: int, oid: str, connection: sqlite3.Connection | None = None) -> str:
        """The commit an id stands for: itself, or the target of an annotated tag."""
        found = self._commits.get(oid)
        if found is not None:
            return oid
        stored = self.read(repo, oid, connection)
        if stored is None or stored[0] not in (COMMIT, TAG):
            raise LookupError(f"{oid} is no commit")
        return Tag.from_string(stored[1]).object[1].decode() if stored[0] == TAG else oid

    def resolve(self, repo: int, revision: str, connection: sqlite3.Connection | None = None) -> str:
        """The commit of a branch, tag, pull request, full ref or commit id (7 characters or more); 404 otherwise."""
        reader = connection or self._database.read()
        for name in (f"refs/heads/{revision}", f"refs/tags/{revision}", revision):
            row = reader.execute("SELECT oid FROM ref WHERE repo = ? AND name = ?", (repo, name)).fetchone()
            if row is not None:
                return self.peel(repo, row[0], connection)
        if SHORT_OID.fullmatch(revision):
            query = "SELECT oid FROM git_object WHERE repo = ? AND oid BETWEEN ? AND ? AND kind = 1 LIMIT 2"
            rows = reader.execute(query, (repo, revision, revision + "g")).fetchall()
            if len(rows) == 1:
                return str(rows[0][0])
        raise revision_not_found(revision)

    def entry(self, repo: int, commit: str, path: str) -> Entry | None:
        """The file or folder at a path of a commit; the root folder for an empty path."""
        found = Entry(FOLDER_MODE, self.commit(repo, commit).tree)
        for name in path.split("/") if path else []:
            if not found.is_folder:
                return None
            inner = self.tree(repo, found.oid).get(name)
            if inner is None:
                return None
            found = inner
        return found


def is_ref_name(name: str) -> bool:
    """Whether git would take this as a branch's or tag's name (git-check-ref-format)."""
    try:
        return (
            max(len(part.encode()) for part in name.split("/")) <= PART_OF_REF
            and not name.startswith(("-", "refs/"))
            and name != "HEAD"
            and check_ref_format(Ref(b"refs/heads/" + name.encode()))
        )
    except UnicodeEncodeError:
        return False


Value = TypeVar("Value")


class _Cache(Generic[Value]):
    """The most recently used values by id, up to a total weight; safe to use from several threads."""

    def __init__(self, capacity: int, weight: Callable[[Value], int] = lambda value: 1):
        self._capacity = capacity
        self._weight = weight
        self._values: OrderedDict[str, Value] = OrderedDict()
        self._total = 0
        self._lock = threading.Lock()

    def get(self, key: str) -> Value | None:
        with self._lock:
            value = self._values.get(key)
            if value is not None:
                self._values.move_to_end(key)
            return value

    def put(self, key: str, value: Value) -> None:
        with self._lock:
            if key in self._values:
                return
            self._values[key] = value
            self._total += self._weight(value) + 1
            while self._total > self._capacity and len(self._values) > 1:
                _, oldest = self._values.popitem(last=False)
                self._total -= self._weight(oldest) + 1
