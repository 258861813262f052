"""Which chunks of which xorbs a writer may build a file on: a xorb holds chunks of many files, and of many repos.

A chunk's hash is no proof that its bytes are known, and a shard can name any xorb. So a writer may build on the xorbs
that this account has sent, and on the chunks that were given to a repo to which it may write; nobody is told of others.
The Hub tells of any xorb by hashes under a key, so that only who has a chunk finds it ("Xet Protocol Specification",
section Shards, chunk_hash_hmac_key). Here the chunks of repos that one may not write to are sent again.

A set of chunks is a number with a bit for each: a xorb has 8,192 at most.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import cache

from deployments.local_hub.database import Database


def chunk_set(start: int, end: int) -> int:
    """Chunks `start` to `end`."""
    return ((1 << (end - start)) - 1) << start


def give(connection: sqlite3.Connection, repo: int, xorb: bytes, chunks: int) -> None:
    """Note in the caller's transaction that a repo was given these chunks, besides those that it has."""
    row = connection.execute("SELECT chunks FROM given WHERE xorb = ? AND repo = ?", (xorb, repo)).fetchone()
    every = chunks if row is None else chunks | int.from_bytes(row[0], "little")
    packed = every.to_bytes(-(-every.bit_length() // 8), "little")
    if row is None or packed != row[0]:
        connection.execute("INSERT OR REPLACE INTO given VALUES (?, ?, ?)", (xorb, repo, packed))


class Rights:
    """What one account may build on, as it is now."""

    def __init__(self, database: Database, account: str, writable: Callable[[int], bool]):
        self._database = database
        self._account = account
        self._writable = cache(writable)
        self._chunks: dict[bytes, int] = {}  # of the xorbs asked about: a shard names the same ones again and again

    def sent(self, xorb: bytes) -> bool:
        """Whether the account has sent this xorb."""
        query = "SELECT 1 FROM xorb_sender WHERE xorb = ? AND account = ?"
        return self._database.read().execute(query, (xorb, self._account)).fetchone() is not None

    def chunks(self, xorb: bytes, count: int) -> int:
        """The chunks of a xorb, which has `count`, that the account may build on."""
        if xorb not in self._chunks:
            self._chunks[xorb] = self._look_up(xorb, count)
        return self._chunks[xorb]

    def _look_up(self, xorb: bytes, count: int) -> int:
        if self.sent(xorb):
            return chunk_set(0, count)
        found = 0
        for repo, chunks in self._database.read().execute("SELECT repo, chunks FROM given WHERE xorb = ?", (xorb,)):
            if self._writable(repo):
                found |= int.from_bytes(chunks, "little")
        return found & chunk_set(0, count)
