"""Which content each repo holds: received in full, hashed here, and so free to be committed.

Content is stored once for the whole Hub, but a digest alone opens nothing: a repo can only commit and serve content
that was sent to it (or copied from a repo its writer can read).
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterable

from deployments.local_hub.database import Database
from deployments.local_hub.git import IDS_PER_QUERY


class Holdings:
    """The table of who holds what."""

    def __init__(self, database: Database):
        self._database = database

    def add(self, connection: sqlite3.Connection, repo: int, sha256: str, size: int, xet: str | None = None) -> None:
        """Record verified content of `size` bytes; `xet` is its Xet hash if it can be reconstructed from xorbs."""
        connection.execute(
            "INSERT INTO holding (repo, sha256, size, xet, pushed, promised) VALUES (?, ?, ?, ?, ?5, ?5)"
            " ON CONFLICT (repo, sha256) DO UPDATE SET xet = COALESCE(excluded.xet, xet), promised = excluded.promised,"
            " deleted = NULL",
            (repo, sha256, size, xet, time.time()),
        )

    def size(self, repo: int, sha256: str, connection: sqlite3.Connection | None = None) -> int | None:
        """Bytes of content the repo holds; None if it does not."""
        query = "SELECT size FROM holding WHERE repo = ? AND sha256 = ? AND deleted IS NULL"
        row = (connection or self._database.read()).execute(query, (repo, sha256)).fetchone()
        return None if row is None else int(row[0])

    def xet_hashes(self, repo: int, sha256s: Iterable[str]) -> dict[str, str]:
        """The Xet hash of each of these contents that has one, in a query for 500."""
        wanted = list(set(sha256s))
        found: dict[str, str] = {}
        for start in range(0, len(wanted), IDS_PER_QUERY):
            some = wanted[start : start + IDS_PER_QUERY]
            marks = ",".join("?" * len(some))
            query = (
                f"SELECT sha256, xet FROM holding WHERE repo = ? AND sha256 IN ({marks})"
                " AND xet IS NOT NULL AND deleted IS NULL"
            )
            found.update(self._database.read().execute(query, (repo, *some)))
        return found

    def copy(self, connection: sqlite3.Connection, source: int, target: int, sha256: str) -> bool:
        """Let another repo hold the same content; False if the source does not hold it."""
        query = (
            "INSERT INTO holding (repo, sha256, size, xet, pushed, promised)"
            " SELECT ?1, sha256, size, xet, ?2, ?2 FROM holding WHERE repo = ?3 AND sha256 = ?4"
            " ON CONFLICT (repo, sha256) DO UPDATE SET promised = excluded.promised, deleted = NULL"
        )
        if self.size(source, sha256, connection) is None:
            return False
        connection.execute(query, (target, time.time(), source, sha256))
        return True

    def ever(self, repo: int, sha256: str) -> bool:
        """Whether the repo holds content, or held it before it was deleted for good."""
        query = "SELECT 1 FROM holding WHERE repo = ? AND sha256 = ?"
        return self._database.read().execute(query, (repo, sha256)).fetchone() is not None

    def mark_deleted(self, connection: sqlite3.Connection, repo: int, sha256s: Iterable[str]) -> None:
        """Have the repo hold this content no more, in the caller's transaction; the bytes stay where they are."""
        query = "UPDATE holding SET deleted = ? WHERE repo = ? AND sha256 = ? AND deleted IS NULL"
        connection.executemany(query, [(time.time(), repo, sha256) for sha256 in sha256s])

    def was_deleted(self, repo: int, sha256: str) -> bool:
        """Whether this content was taken out of the repo for good, and not sent again."""
        query = "SELECT 1 FROM holding WHERE repo = ? AND sha256 = ? AND deleted NOT NULL"
        return self._database.read().execute(query, (repo, sha256)).fetchone() is not None

    def deleted(self, repo: int) -> set[str]:
        """The content that was taken out of the repo for good."""
        query = "SELECT sha256 FROM holding WHERE repo = ? AND deleted NOT NULL"
        return {row[0] for row in self._database.read().execute(query, (repo,))}

    def pushed(self, repo: int) -> dict[str, float]:
        """When each content came to the repo, in seconds since the epoch."""
        return dict(
            self._database.read().execute("SELECT sha256, pushed FROM holding WHERE repo = ?", (repo,)).fetchall()
        )
