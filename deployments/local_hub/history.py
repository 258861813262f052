"""What a repo's history reaches: every object from a ref, a commit or a tag on, and the content that is named there.

Nothing is believed but an object that hashes to its own id: what is reached decides what may be removed.
"""

from __future__ import annotations

import hashlib
import sqlite3
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from dulwich.objects import Commit, Tag, Tree

from deployments.local_hub.git import BLOB, COMMIT, POINTER_MAX_SIZE, TAG, TREE, parse_pointer

KINDS = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}

Damaged = Callable[[str, str], None]  # told an object's id, and what is wrong with it


@dataclass(frozen=True, slots=True)
class Reached:
    """An object that is reached; `named` is digest and size of the content, where it is an LFS pointer."""

    oid: str
    kind: int
    named: tuple[str, int] | None = None


def unpacked(oid: str, kind: int, data: bytes) -> bytes:
    """A stored object's bytes; ValueError, with what is wrong, unless they hash to its id."""
    try:
        raw = zlib.decompress(data)
    except zlib.error as error:
        raise ValueError(f"cannot be unpacked: {error}") from None
    header = KINDS.get(kind, b"?") + b" " + str(len(raw)).encode() + b"\0"
    if hashlib.sha1(header + raw, usedforsecurity=False).hexdigest() != oid:
        raise ValueError("is not what its id says")
    return raw


def reached(
    connection: sqlite3.Connection, repo: int, start: Iterable[str], seen: set[str], damaged: Damaged
) -> Iterator[Reached]:
    """What is reached from these ids on and is not in `seen`, which it is added to.

    `damaged` is told of each object that is missing or cannot be read; what it would have led to is not reached.
    """
    waiting = list(start)
    while waiting:
        oid = waiting.pop()
        if oid in seen:
            continue
        seen.add(oid)
        query = "SELECT kind, size, data FROM git_object WHERE repo = ? AND oid = ?"
        row = connection.execute(query, (repo, oid)).fetchone()
        if row is None:
            damaged(oid, "is missing")
            continue
        kind, size, data = row
        if kind == BLOB and size > POINTER_MAX_SIZE:
            yield Reached(oid, kind)  # too long for a pointer: it leads nowhere
            continue
        try:
            raw = unpacked(oid, kind, data)
            waiting += leads_to(kind, raw)
        except ValueError as error:
            damaged(oid, str(error))
            continue
        yield Reached(oid, kind, parse_pointer(raw) if kind == BLOB else None)


def leads_to(kind: int, raw: bytes) -> list[str]:
    """The ids that an object names."""
    if kind == TREE:
        return [sha.decode() for _, _, sha in Tree.from_string(raw).items()]
    if kind == TAG:
        return [Tag.from_string(raw).object[1].decode()]
    if kind == COMMIT:
        commit = Commit.from_string(raw)
        return [commit.tree.decode(), *(parent.decode() for parent in commit.parents)]
    return []
