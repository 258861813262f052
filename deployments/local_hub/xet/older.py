"""Stores of before 0.9, whose tables said of a xorb only which repos have something to do with it: taken over once.

Each repo is given the chunks of the files that it holds, and no other chunk of their xorbs.
"""

from __future__ import annotations

from deployments.local_hub.database import Database
from deployments.local_hub.xet.store import Ranges, give_ranges


def take_over(database: Database) -> bool:
    """Bring the tables of an older store to what they are now, in one transaction; False where that is not needed."""
    query = "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = 'xet_file'"
    if database.read().execute(query).fetchone() is None:
        return False
    with database.write() as connection:
        connection.execute(
            "INSERT OR IGNORE INTO reconstruction SELECT holding.repo, xet_file.hash, xet_file.size, xet_file.sha256,"
            " xet_file.ranges FROM holding JOIN xet_file ON xet_file.sha256 = holding.sha256"
        )
        for repo, ranges in connection.execute("SELECT repo, ranges FROM reconstruction").fetchall():
            give_ranges(connection, repo, Ranges(ranges))
        connection.execute("DROP TABLE xet_file")
        connection.execute("DROP TABLE IF EXISTS xorb_holder")
    return True
