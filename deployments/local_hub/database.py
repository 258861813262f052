"""The Hub's one SQLite database: everything that has to change together, changed in one transaction.

Readers have a connection a thread and never wait; writers queue on one lock and each commit is fsynced (WAL with
synchronous=FULL), so an acknowledged write survives SIGKILL and a power cut, and half a write is never seen.
The `token` command opens the same file while the server runs: SQLite's own locks arbitrate.
"""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

BUSY_TIMEOUT = 30.0  # seconds a writer of another process is waited for
READER_CACHE_KIB = 512  # page cache of each reader; pages live in the kernel's cache anyway

# former_name: what a repo was called before it was moved, for as long as no other repo is called so.
# git_object: kind is git's type number (1 commit, 2 tree, 3 blob, 4 tag), data is zlib's, sha256 and content_size are
# those an LFS pointer names. holding: content that was sent to the repo and verified; xet is the hash under which it
# can be reconstructed, if it came by Xet. xorb: hashes and ends are those of its chunks, batch is common to the xorbs
# that one shard named. xorb_sender: accounts that sent it. given: the chunks of a xorb that were given to a repo, sent
# to it or in a file that it holds, a bit for each. chunk: those that clients ask about. reconstruction: which chunks of
# which xorbs make up a file that the repo holds. promised: when somebody was last told that it is here, or sent it
# (`promises`). deleted: when it was taken out of the repo for good (`rewrite`); nobody is given it from then on.
# abandoned: what a ref pointed at before it was moved elsewhere or deleted.
SCHEMA = """
CREATE TABLE IF NOT EXISTS setting (
    key TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS account (
    name TEXT PRIMARY KEY COLLATE NOCASE, kind TEXT NOT NULL CHECK (kind IN ('user', 'org')), created REAL NOT NULL);
CREATE TABLE IF NOT EXISTS membership (
    org TEXT NOT NULL COLLATE NOCASE REFERENCES account, account TEXT NOT NULL COLLATE NOCASE REFERENCES account,
    role TEXT NOT NULL CHECK (role IN ('read', 'write')), PRIMARY KEY (org, account));
CREATE TABLE IF NOT EXISTS token (
    digest BLOB PRIMARY KEY, account TEXT NOT NULL COLLATE NOCASE REFERENCES account,
    role TEXT NOT NULL CHECK (role IN ('read', 'write')), created REAL NOT NULL, expires REAL);
CREATE TABLE IF NOT EXISTS repo (
    id INTEGER PRIMARY KEY AUTOINCREMENT, type TEXT NOT NULL, namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE, private INTEGER NOT NULL, created REAL NOT NULL,
    gated TEXT CHECK (gated IN ('auto', 'manual')), UNIQUE (type, namespace, name));
CREATE TABLE IF NOT EXISTS former_name (
    type TEXT NOT NULL, namespace TEXT NOT NULL COLLATE NOCASE, name TEXT NOT NULL COLLATE NOCASE,
    repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE, PRIMARY KEY (type, namespace, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS git_object (
    repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE, oid TEXT NOT NULL, kind INTEGER NOT NULL,
    size INTEGER NOT NULL, data BLOB NOT NULL, sha256 TEXT, content_size INTEGER, PRIMARY KEY (repo, oid));
CREATE TABLE IF NOT EXISTS ref (
    repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE, name TEXT NOT NULL, oid TEXT NOT NULL,
    PRIMARY KEY (repo, name)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS abandoned (
    repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE, oid TEXT NOT NULL, moment REAL NOT NULL,
    PRIMARY KEY (repo, oid)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS holding (
    repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE, sha256 TEXT NOT NULL, size INTEGER NOT NULL, xet TEXT,
    pushed REAL NOT NULL, promised REAL NOT NULL, deleted REAL, PRIMARY KEY (repo, sha256)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS discussion (
    repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE, number INTEGER NOT NULL, title TEXT NOT NULL,
    author TEXT NOT NULL, created REAL NOT NULL, status TEXT NOT NULL, base TEXT, description TEXT NOT NULL,
    merged TEXT, events TEXT NOT NULL DEFAULT '[]', PRIMARY KEY (repo, number)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holding_by_xet ON holding (repo, xet);
CREATE TABLE IF NOT EXISTS xorb (
    hash BLOB PRIMARY KEY, hashes BLOB NOT NULL, ends BLOB NOT NULL, batch INTEGER, promised REAL NOT NULL);
CREATE INDEX IF NOT EXISTS xorb_by_batch ON xorb (batch);
CREATE TABLE IF NOT EXISTS xorb_sender (
    xorb BLOB NOT NULL, account TEXT NOT NULL COLLATE NOCASE REFERENCES account,
    PRIMARY KEY (xorb, account)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS given (
    xorb BLOB NOT NULL, repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE, chunks BLOB NOT NULL,
    PRIMARY KEY (xorb, repo)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS given_by_repo ON given (repo);
CREATE TABLE IF NOT EXISTS chunk (
    hash BLOB NOT NULL, xorb BLOB NOT NULL, PRIMARY KEY (hash, xorb)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reconstruction (
    repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE, hash TEXT NOT NULL, size INTEGER NOT NULL,
    sha256 TEXT NOT NULL, ranges BLOB NOT NULL, PRIMARY KEY (repo, hash)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS reconstruction_by_sha256 ON reconstruction (repo, sha256);
CREATE INDEX IF NOT EXISTS git_object_by_sha256 ON git_object (repo, sha256) WHERE sha256 IS NOT NULL;
"""


class Database:
    """Connections to one database file; `read` for queries, `write` for a transaction."""

    def __init__(self, path: Path):
        self.path = path
        self._local = threading.local()
        self._write_lock = threading.Lock()
        new = not path.exists()
        self._writer = self._connect()
        if new:
            path.chmod(0o600)  # it holds token digests and the signing key
        with self.write() as connection:
            for statement in SCHEMA.split(";"):
                connection.execute(statement)
            _add_columns(connection)
            for key, value in [("secret", secrets.token_bytes(32)), ("store", secrets.token_bytes(8))]:
                connection.execute("INSERT OR IGNORE INTO setting VALUES (?, ?)", (key, value))
        settings = dict(self._writer.execute("SELECT key, value FROM setting").fetchall())
        self.secret: bytes = settings["secret"]
        self.store_id: str = settings["store"].hex()

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA cache_size = -{READER_CACHE_KIB}")
        return connection

    def read(self) -> sqlite3.Connection:
        """This thread's connection, for queries."""
        connection: sqlite3.Connection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = self._connect()
        return connection

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the database as it is now, whatever is written while the block lasts."""
        connection = self._connect()
        try:
            connection.execute("BEGIN")
            connection.execute("SELECT 1 FROM setting").fetchone()  # from here on; BEGIN alone waits for the first look
            yield connection
        finally:
            connection.close()

    @contextmanager
    def write(self) -> Iterator[sqlite3.Connection]:
        """One transaction, alone: durable when the block ends, undone when it raises."""
        with self._write_lock:
            self._writer.execute("BEGIN IMMEDIATE")
            try:
                yield self._writer
                self._writer.execute("COMMIT")
            except BaseException:
                self._writer.execute("ROLLBACK")
                raise

    def damage(self) -> list[str]:
        """What SQLite itself finds wrong with the file; empty if nothing."""
        rows = self._writer.execute("PRAGMA integrity_check").fetchall()
        astray = self._writer.execute("PRAGMA foreign_key_check").fetchall()
        return [str(row[0]) for row in rows if row[0] != "ok"] + [
            f"table {table}: a line speaks of a {parent} that is not there" for table, _, parent, _ in astray
        ]

    def forget_backup(self) -> None:
        """Where this is a backup: it is served now, and a store of its own that no backup writes over."""
        if self.read().execute("SELECT 1 FROM setting WHERE key = 'backup'").fetchone() is not None:
            with self.write() as connection:
                connection.execute("DELETE FROM setting WHERE key = 'backup'")

    def fold(self) -> None:
        """Fold the write-ahead log into the file, where nobody else has it open."""
        self._writer.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Fold the write-ahead log into the file and let go of it."""
        self._writer.close()


def _add_columns(connection: sqlite3.Connection) -> None:
    """What the tables of an older store do not have."""
    if "gated" not in _columns(connection, "repo"):
        connection.execute("ALTER TABLE repo ADD COLUMN gated TEXT")
    if "deleted" not in _columns(connection, "holding"):
        connection.execute("ALTER TABLE holding ADD COLUMN deleted REAL")
    for table in ("holding", "xorb"):
        if "promised" not in _columns(connection, table):  # when it was is not known: as if it were now
            connection.execute(f"ALTER TABLE {table} ADD COLUMN promised REAL NOT NULL DEFAULT 0")
            connection.execute(f"UPDATE {table} SET promised = ?", (time.time(),))


def _columns(connection: sqlite3.Connection, table: str) -> set[str]:
    return {row[1] for row in connection.execute(f"PRAGMA table_info({table})")}


def fsync_folder(folder: Path) -> None:
    """Make names in a folder durable; without it a file can survive a power cut under no name."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
