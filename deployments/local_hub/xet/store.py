"""What Xet content this Hub has: xorbs as files, their indexes and the files' chunk ranges in the database.

A xorb is accepted when every chunk unpacks and all hashes agree with its name. A file is accepted when its chunks are
here, the writer may build on them (`rights`), the file's hash follows from them, and the sha256 of the bytes is what
was claimed. It is the repo's from then on: another repo's file of the same hash has a line and chunk ranges of its own.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from deployments.local_hub.database import Database, fsync_folder
from deployments.local_hub.errors import HubError, bad_request
from deployments.local_hub.holdings import Holdings
from deployments.local_hub.promises import keep_promise, promise_xorbs
from deployments.local_hub.receive import Received
from deployments.local_hub.xet import shard as shards
from deployments.local_hub.xet.hashes import ChunkTree, file_hash, is_dedup_key, range_hash, to_text
from deployments.local_hub.xet.rights import Rights, chunk_set, give
from deployments.local_hub.xet.xorb import HEADER_SIZE, XetFormatError, Xorb, pack_ends, parse, unpack, unpack_ends

CHUNKS_KEPT = 128 * 1024  # chunks of xorbs whose index stays in memory, about 100 bytes each
FILES_PER_TRANSACTION = 500
RANGES_HELD = 100_000  # chunk ranges of files that wait for their transaction
SIZE_LIMIT = 500 * 10**9  # bytes of one file (Hub documentation, "Repository limitations and recommendations")
CHECKERS = os.cpu_count() or 1  # files of a shard whose sha256 is computed at the same time
PIECE = 1024 * 1024  # bytes put together before they are handed on
READ_BUFFER = 1024 * 1024  # bytes read in one go; no memory map, whose pages would count as this process's memory
NEIGHBOURS = 256  # xorbs named in one answer about known chunks: 16 GiB of content, an answer of 12 MB
RANGE = struct.Struct("<32sIII")  # xorb, first chunk, chunk after the last, bytes unpacked


@dataclass(frozen=True, slots=True)
class ChunkRange:
    """Chunks `start` to `end` of a xorb, `size` bytes unpacked: a piece of a file."""

    xorb: bytes
    start: int
    end: int
    size: int


@dataclass(frozen=True, slots=True)
class Ranges:
    """The chunk ranges of a file as the database holds them, 44 bytes each: they may be many."""

    packed: bytes

    def __len__(self) -> int:
        return len(self.packed) // RANGE.size

    def __iter__(self) -> Iterator[ChunkRange]:
        return (ChunkRange(*each) for each in RANGE.iter_unpack(self.packed))

    def __contains__(self, value: object) -> bool:
        return any(value == each for each in self)


@dataclass(frozen=True, slots=True)
class XetFile:
    """A file that can be put together: its bytes are those of the ranges in order."""

    hash: str
    size: int
    sha256: str
    ranges: Ranges


class XetStore:
    """Xorbs and files of one Hub."""

    def __init__(self, root: Path, database: Database, holdings: Holdings):
        self.folder = root / "xorbs"
        self.folder.mkdir(exist_ok=True)
        self._database = database
        self._holdings = holdings
        self._indexes: OrderedDict[bytes, Xorb] = OrderedDict()
        self._kept = 0  # chunks of those
        self._lock = threading.Lock()
        self._placing = threading.Lock()  # one xorb can be packed in two ways: file and index have to be of the same
        self._checkers = ThreadPoolExecutor(CHECKERS, "xet-check")

    def close(self) -> None:
        """Let go of the threads that check."""
        self._checkers.shutdown()

    # xorbs

    def path(self, digest: bytes) -> Path:
        """Where a xorb is, or would be."""
        name = to_text(digest)
        return self.folder / name[:2] / name

    def index(self, digest: bytes) -> Xorb | None:
        """The index of a xorb; None if it is not here."""
        with self._lock:
            found = self._indexes.get(digest)
            if found is not None:
                self._indexes.move_to_end(digest)
                return found
        row = self._database.read().execute("SELECT hashes, ends FROM xorb WHERE hash = ?", (digest,)).fetchone()
        if row is None:
            return None
        found = unpack_ends(row[0], row[1])
        with self._lock:
            if digest not in self._indexes:
                self._indexes[digest] = found
                self._kept += found.chunks
            while self._kept > CHUNKS_KEPT:
                self._kept -= self._indexes.popitem(last=False)[1].chunks
        return found

    def add_xorb(self, repo: int, account: str, digest: bytes, received: Received) -> None:
        """Check a received xorb and keep it, for a repo and its sender. 400 if it is not what its name says."""
        try:
            with received.path.open("rb", buffering=READ_BUFFER) as stream:
                computed, index = parse(stream)
            if computed != digest:
                raise XetFormatError(f"its hash is {to_text(computed)}")
            with self._placing:
                self._keep_xorb(digest, received, index)
        except XetFormatError as error:
            raise bad_request(f"Xorb {to_text(digest)}: {error}") from None
        finally:
            received.discard()
        with self._database.write() as connection:
            connection.execute("INSERT OR IGNORE INTO xorb_sender VALUES (?, ?)", (digest, account))
            give(connection, repo, digest, chunk_set(0, index.chunks))
            keep_promise(connection, [digest])  # also where it was here before

    def _keep_xorb(self, digest: bytes, received: Received, index: Xorb) -> None:
        if self.index(digest) is not None and self.path(digest).is_file():
            return
        self._place(digest, received, index)
        with self._database.write() as connection:
            connection.execute(
                "INSERT INTO xorb (hash, hashes, ends, promised) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (hash) DO UPDATE SET ends = excluded.ends, promised = excluded.promised",
                (digest, index.hashes, pack_ends(index), time.time()),
            )
            keys = (index.hash_range(number, number + 1) for number in range(index.chunks))
            connection.executemany(
                "INSERT OR IGNORE INTO chunk VALUES (?, ?)", [(key, digest) for key in keys if is_dedup_key(key)]
            )
        with self._lock:
            old = self._indexes.pop(digest, None)
            self._kept -= 0 if old is None else old.chunks

    def _place(self, digest: bytes, received: Received, index: Xorb) -> None:
        if received.size > index.packed_ends[-1]:
            with received.path.open("r+b") as file:
                file.truncate(index.packed_ends[-1])  # the footer: it repeats the index
        target = self.path(digest)
        if not target.parent.is_dir():
            target.parent.mkdir(exist_ok=True)
            fsync_folder(self.folder)
        received.path.replace(target)
        fsync_folder(target.parent)

    # files

    def register(self, repo: int, rights: Rights, stream_path: Path) -> Iterator[int]:
        """Check every file of a shard and let the repo hold it; yields how many are done.

        Raises 400 where a file or xorb is not what the shard says; files before it in the shard stay registered.
        """
        batch: list[tuple[XetFile, bytes | None]] = []
        done = 0
        seen: list[bytes] = []
        with stream_path.open("rb") as stream:
            try:
                for checked in self._checked(repo, rights, shards.read(stream)):
                    if isinstance(checked, bytes):
                        seen.append(checked)
                        continue
                    batch.append(checked)
                    done += 1
                    yield done
                    if len(batch) == FILES_PER_TRANSACTION or sum(len(file.ranges) for file, _ in batch) > RANGES_HELD:
                        self._hold(repo, batch)
                        batch = []
            except XetFormatError as error:
                raise bad_request(f"Shard: {error}") from None
        self._hold(repo, batch)
        self._group(seen)

    def _checked(
        self, repo: int, rights: Rights, described: Iterator[shards.ShardFile | shards.ShardXorb]
    ) -> Iterator[tuple[XetFile, bytes | None] | bytes]:
        """Files and the hashes of xorbs in the shard's order, a few of them checked at the same time."""
        waiting: deque[Future[tuple[XetFile, bytes | None] | bytes]] = deque()
        for each in described:
            if isinstance(each, shards.ShardFile):
                waiting.append(self._checkers.submit(self._check_file, repo, rights, each))
            else:
                waiting.append(self._checkers.submit(self._check_xorb, rights, each))
            if len(waiting) > 2 * CHECKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()

    def has_xorb(self, digest: bytes, rights: Rights) -> bool:
        """Whether all of a xorb is here and may be built on."""
        index = self.index(digest)
        return index is not None and self._usable(digest, index, rights) == chunk_set(0, index.chunks)

    def _usable(self, digest: bytes, index: Xorb, rights: Rights) -> int:
        return rights.chunks(digest, index.chunks) if self.path(digest).is_file() else 0

    def _check_xorb(self, rights: Rights, described: shards.ShardXorb) -> bytes:
        index = self.index(described.hash)
        if index is None or not self.has_xorb(described.hash, rights):
            raise _not_uploaded(f"xorb {to_text(described.hash)}")
        sizes = [end - start for start, end in zip((0, *index.unpacked_ends), index.unpacked_ends, strict=False)]
        if index.hashes != described.hashes or tuple(sizes) != described.sizes:
            raise XetFormatError(f"xorb {to_text(described.hash)} has other chunks than the shard says")
        return described.hash

    def _check_file(self, repo: int, rights: Rights, described: shards.ShardFile) -> tuple[XetFile, bytes | None]:
        name = to_text(described.hash)
        tree = ChunkTree()
        packed = bytearray()
        first: bytes | None = None
        size = 0
        usable_of: dict[bytes, int] = {}
        for term in described.terms:
            index = self.index(term.xorb)
            # what is here and not the writer's is as what is not here, also where the shard says something wrong of it
            if term.xorb not in usable_of:
                usable_of[term.xorb] = 0 if index is None else self._usable(term.xorb, index, rights)
            usable = usable_of[term.xorb]
            if index is None or not usable:
                raise _not_uploaded(f"file {name}: xorb {to_text(term.xorb)}")
            if term.end <= index.chunks and chunk_set(term.start, term.end) & ~usable:
                raise _not_uploaded(f"file {name}: chunks {term.start} to {term.end} of xorb {to_text(term.xorb)}")
            if term.end > index.chunks or index.unpacked(term.start, term.end) != term.size:
                raise XetFormatError(f"file {name}: a chunk range of xorb {to_text(term.xorb)} is out of bounds")
            if range_hash(index.hash_range(term.start, term.end)) != term.proof:
                raise XetFormatError(f"file {name}: the proof for a chunk range of xorb {to_text(term.xorb)} is wrong")
            start = index.unpacked_start(term.start)
            for number in range(term.start, term.end):
                end = index.unpacked_ends[number]
                tree.add(index.hash_range(number, number + 1), end - start)
                start = end
            first = first or index.hash_range(term.start, term.start + 1)
            packed += RANGE.pack(term.xorb, term.start, term.end, term.size)
            size += term.size
            if size > SIZE_LIMIT:
                raise XetFormatError(f"file {name}: a file has at most {SIZE_LIMIT} bytes")
        if file_hash(tree) != described.hash:
            raise XetFormatError(f"file {name}: its hash does not follow from its chunks")
        known = self.file(repo, name)
        if known is None or not all(self.path(each.xorb).is_file() for each in known.ranges):
            ranges = Ranges(bytes(packed))
            known = XetFile(name, size, self._sha256(XetFile(name, size, "", ranges)), ranges)
        if described.sha256 is not None and to_text(described.sha256) != known.sha256:
            raise XetFormatError(f"file {name}: its sha256 is {known.sha256}, not {to_text(described.sha256)}")
        return known, first

    def _hold(self, repo: int, batch: list[tuple[XetFile, bytes | None]]) -> None:
        with self._database.write() as connection:
            for file, first_chunk in batch:
                connection.execute(
                    "INSERT OR REPLACE INTO reconstruction VALUES (?, ?, ?, ?, ?)",
                    (repo, file.hash, file.size, file.sha256, file.ranges.packed),
                )
                self._holdings.add(connection, repo, file.sha256, file.size, file.hash)
                give_ranges(connection, repo, file.ranges)
                if first_chunk is not None:  # clients ask about the first chunk of every file
                    begin = next(iter(file.ranges)).xorb
                    connection.execute("INSERT OR IGNORE INTO chunk VALUES (?, ?)", (first_chunk, begin))

    def _group(self, xorbs: list[bytes]) -> None:
        """Remember which xorbs came together: an answer about one of them tells of the others."""
        if not xorbs:
            return
        with self._database.write() as connection:
            row = connection.execute("SELECT COALESCE(MAX(batch), 0) + 1 FROM xorb").fetchone()
            connection.executemany(
                "UPDATE xorb SET batch = ? WHERE hash = ? AND batch IS NULL", [(row[0], xorb) for xorb in xorbs]
            )
            keep_promise(connection, xorbs)  # the client remembers for weeks that they are here

    def file(self, repo: int, name: str, *, committed: bool = False) -> XetFile | None:
        """A file of the repo by its Xet hash; with `committed`, only if some commit of the repo names its content."""
        query = (
            "SELECT size, sha256, ranges FROM reconstruction WHERE repo = ? AND hash = ? AND NOT EXISTS"
            " (SELECT 1 FROM holding WHERE holding.repo = reconstruction.repo"
            " AND holding.sha256 = reconstruction.sha256 AND deleted NOT NULL)"
        )
        if committed:
            query += (
                " AND EXISTS (SELECT 1 FROM git_object WHERE git_object.repo = reconstruction.repo"
                " AND git_object.sha256 = reconstruction.sha256)"
            )
        row = self._database.read().execute(query, (repo, name)).fetchone()
        return None if row is None else XetFile(name, row[0], row[1], Ranges(row[2]))

    def by_sha256(self, repo: int, sha256: str) -> XetFile | None:
        """A file of the repo by the sha256 of its bytes."""
        query = "SELECT hash FROM reconstruction WHERE repo = ? AND sha256 = ?"
        row = self._database.read().execute(query, (repo, sha256)).fetchone()
        return None if row is None else self.file(repo, row[0])

    def copy(self, connection: sqlite3.Connection, source: int, target: int, sha256: str) -> None:
        """Give another repo, in the caller's transaction, what content of this one is made of, where it came by Xet."""
        query = "SELECT hash, size, sha256, ranges FROM reconstruction WHERE repo = ? AND sha256 = ?"
        for row in connection.execute(query, (source, sha256)).fetchall():
            connection.execute("INSERT OR IGNORE INTO reconstruction VALUES (?, ?, ?, ?, ?)", (target, *row))
            give_ranges(connection, target, Ranges(row[3]))

    def read(self, file: XetFile, start: int, stop: int) -> Iterator[bytes]:
        """The bytes `start` to `stop` of a file, put together from its xorbs."""
        ready: list[bytes] = []
        held = position = 0
        for each in file.ranges:
            if position + each.size > start and position < stop:
                for chunk in self._read_range(each, max(start - position, 0), min(stop - position, each.size)):
                    ready.append(chunk)
                    held += len(chunk)
                    if held >= PIECE:
                        yield b"".join(ready)
                        ready, held = [], 0
            position += each.size
            if position >= stop:
                break
        if ready:
            yield b"".join(ready)

    def _read_range(self, chunk_range: ChunkRange, start: int, stop: int) -> Iterator[bytes]:
        """The chunks that hold the bytes `start` to `stop` of a chunk range, the first and the last one cut."""
        index = self.index(chunk_range.xorb)
        if index is None:
            raise HubError(500, f"Xorb {to_text(chunk_range.xorb)} is missing from the store")
        first, last = trim(index, chunk_range.start, chunk_range.end, start, stop)
        position = index.unpacked_start(first) - index.unpacked_start(chunk_range.start)
        with self.path(chunk_range.xorb).open("rb", buffering=READ_BUFFER) as stream:
            stream.seek(index.packed(first, last)[0])
            for number in range(first, last):
                packed_start, packed_stop = index.packed(number, number + 1)
                if packed_stop - packed_start <= HEADER_SIZE:
                    raise XetFormatError(f"the chunks of xorb {to_text(chunk_range.xorb)} lie elsewhere")
                packed = stream.read(packed_stop - packed_start)
                if len(packed) < packed_stop - packed_start:
                    raise XetFormatError(f"xorb {to_text(chunk_range.xorb)} ends early")
                size = index.unpacked(number, number + 1)
                chunk = unpack(packed[4], packed[HEADER_SIZE:], size)
                if position < start or position + size > stop:
                    chunk = chunk[max(start - position, 0) : stop - position]
                position += size
                yield chunk

    def _sha256(self, file: XetFile) -> str:
        digest = hashlib.sha256()
        for each in file.ranges:
            for chunk in self._read_range(each, 0, each.size):
                digest.update(chunk)
        return digest.hexdigest()

    # de-duplication

    def known_chunks(self, chunk: bytes, rights: Rights) -> bytes | None:
        """A shard that names the chunks around one, those that may be built on; None where that one may not."""
        database = self._database.read()
        rows = database.execute(
            "SELECT xorb.hash, xorb.batch FROM chunk JOIN xorb ON xorb.hash = chunk.xorb WHERE chunk.hash = ? LIMIT ?",
            (chunk, NEIGHBOURS),
        ).fetchall()
        for digest, batch in rows:
            index = self.index(digest)
            if index is None or not _has(index, self._usable(digest, index, rights), chunk):
                continue
            found = [digest]
            if batch is not None:
                query = (
                    "SELECT hash FROM xorb WHERE batch = ? AND rowid >= (SELECT rowid FROM xorb WHERE hash = ?) LIMIT ?"
                )
                found += [row[0] for row in database.execute(query, (batch, digest, NEIGHBOURS)) if row[0] != digest]
            told = list(self._named(found, rights))
            promise_xorbs(self._database, (named for named, _, _ in told))
            return shards.write_xorbs(told)
        return None

    def _named(self, xorbs: list[bytes], rights: Rights) -> Iterator[tuple[bytes, Xorb, int]]:
        for digest in xorbs:
            index = self.index(digest)
            usable = 0 if index is None else self._usable(digest, index, rights)
            if index is not None and usable:
                yield digest, index, usable

    # damage

    def damage(self) -> Iterator[str]:
        """Xorbs and files that are not what they were, re-read from disk."""
        for (digest,) in self._database.read().execute("SELECT hash FROM xorb").fetchall():
            yield from self._xorb_damage(digest)
        for found in self._files():
            try:
                digest = self._sha256(found)
            except (OSError, HubError, XetFormatError, struct.error, IndexError) as error:
                yield f"file {found.hash} (sha256 {found.sha256}) cannot be put together: {error}"
                continue
            if digest != found.sha256:
                yield f"file {found.hash}: its sha256 is {digest}, not {found.sha256}"

    def _files(self) -> Iterator[XetFile]:
        """Every file, once for each way in which it is put together.

        A few lines at a time: reading them may take days, and an open query would keep the log from being folded in.
        """
        after: tuple[int, str] = (0, "")
        seen: set[bytes] = set()
        query = (
            "SELECT repo, hash, size, sha256, ranges FROM reconstruction WHERE (repo, hash) > (?, ?)"
            " ORDER BY repo, hash LIMIT ?"
        )
        while rows := self._database.read().execute(query, (*after, FILES_PER_TRANSACTION)).fetchall():
            for _, name, size, sha256, ranges in rows:
                key = hashlib.sha256(f"{name} {size} {sha256} ".encode() + ranges).digest()
                if key not in seen:
                    seen.add(key)
                    yield XetFile(name, size, sha256, Ranges(ranges))
            after = (rows[-1][0], rows[-1][1])

    def _xorb_damage(self, digest: bytes) -> Iterator[str]:
        path = self.path(digest)
        label = f"xorbs/{path.parent.name}/{path.name}"
        try:
            with path.open("rb", buffering=READ_BUFFER) as stream:
                computed, index = parse(stream)
        except (OSError, ValueError) as error:
            yield f"{label}: {error}"
            return
        if computed != digest:
            yield f"{label}: its hash is {to_text(computed)}"
        elif index != self.index(digest):
            yield f"{label}: its chunks lie elsewhere than the database says"


def give_ranges(connection: sqlite3.Connection, repo: int, ranges: Iterable[ChunkRange]) -> None:
    """Note in the caller's transaction that a repo was given the chunks of a file."""
    by_xorb: dict[bytes, int] = {}
    for each in ranges:
        by_xorb[each.xorb] = by_xorb.get(each.xorb, 0) | chunk_set(each.start, each.end)
    for xorb, chunks in by_xorb.items():
        give(connection, repo, xorb, chunks)


def _has(index: Xorb, usable: int, chunk: bytes) -> bool:
    return any(usable >> number & 1 and index.hash_range(number, number + 1) == chunk for number in range(index.chunks))


def _not_uploaded(what: str) -> XetFormatError:
    return XetFormatError(
        f"{what} was not uploaded, or not by this account nor to a repo that it may write to. If the client remembers"
        " that it was, begin again with a new HF_XET_CACHE folder"
    )


def trim(index: Xorb, first: int, last: int, start: int, stop: int) -> tuple[int, int]:
    """The chunks of `first` to `last` that hold the bytes `start` to `stop` of that range."""
    base = index.unpacked_start(first)
    while first < last - 1 and index.unpacked_ends[first] - base <= start:
        first += 1
    while last - 1 > first and index.unpacked_ends[last - 2] - base >= stop:
        last -= 1
    return first, last
