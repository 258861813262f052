"""When somebody was last told that content is here: it stays for a while after that, also where no commit names it.

Clients ask before they send, leave out what they are told is here, and commit hours or days later. So each route that
says "we have it" notes when it did, in the database and before it answers: the LFS batch and what confirms an upload,
copies between repos, and Xet's answers about xorbs and chunks. Whatever is sent is noted likewise, whether it was new
or not. `garbage` removes nothing whose last note is younger than the days that it is asked to keep.

A note costs a transaction, so one is made anew only when the last one is a day old, and a day is added to what is kept.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable
from typing import Any

from deployments.local_hub.database import Database
from deployments.local_hub.git import IDS_PER_QUERY

STEP = 24 * 3600.0  # seconds that a note may be older than the promise


def promise_content(database: Database, repo: int, sha256s: Iterable[str]) -> None:
    """Note that the writers of a repo were told that it holds these contents."""
    query = "SELECT sha256 FROM holding WHERE repo = ? AND promised < ? AND sha256 IN ({marks})"
    since = time.time() - STEP
    old = [row[0] for row in _in_parts(database.read(), query, (repo, since), set(sha256s))]
    if old:
        with database.write() as connection:
            now = time.time()
            rows = [(now, repo, sha256) for sha256 in old]
            connection.executemany("UPDATE holding SET promised = ? WHERE repo = ? AND sha256 = ?", rows)


def promise_xorbs(database: Database, xorbs: Iterable[bytes]) -> None:
    """Note that somebody was told that these xorbs are here."""
    query = "SELECT hash FROM xorb WHERE promised < ? AND hash IN ({marks})"
    old = [row[0] for row in _in_parts(database.read(), query, (time.time() - STEP,), set(xorbs))]
    if old:
        with database.write() as connection:
            keep_promise(connection, old)


def keep_promise(connection: sqlite3.Connection, xorbs: Iterable[bytes]) -> None:
    """Note it in the caller's transaction."""
    now = time.time()
    connection.executemany("UPDATE xorb SET promised = ? WHERE hash = ?", [(now, xorb) for xorb in xorbs])


def _in_parts(
    connection: sqlite3.Connection, query: str, first: tuple[object, ...], keys: set[str] | set[bytes]
) -> list[tuple[Any, ...]]:
    found: list[tuple[Any, ...]] = []
    wanted = list(keys)
    for start in range(0, len(wanted), IDS_PER_QUERY):
        some = wanted[start : start + IDS_PER_QUERY]
        found += connection.execute(query.format(marks=",".join("?" * len(some))), (*first, *some)).fetchall()
    return found
