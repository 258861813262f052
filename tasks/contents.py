"""Which bytes an image had when this machine last hashed it: a small cache beside the staging.

An image without a git-annex key is known by its content only. Reading it again every night to see that it has not
changed would cost the dataset's size; so the sha256 taken while it was embedded is kept with the size and the mtime
it had then, and is believed while both are the same (rsync's and git's rule). The cache is disposable: without it,
each image is read once more, and nothing is embedded or sent for it.

So is one whose key holds no digest of the content. A URL key is an address, and what is fetched from there may differ
the next time. A WORM key is a name, a size and a time: no more than this cache compares, and of another machine's file
at another date; who restores a time with the file gets the same key for other bytes. Where such an image is not
fetched, nothing here knows its content, and it counts as changed: its shard then fails with the command to fetch it.
"""

import os
import sqlite3
from collections.abc import Iterable
from contextlib import closing, suppress
from pathlib import Path

from tasks.annex import identifies_content
from tasks.files import sha256_of
from tasks.models import Image, ImageContent
from tasks.names import is_unicode

_TABLE = """CREATE TABLE IF NOT EXISTS contents
    (path TEXT PRIMARY KEY, size INTEGER NOT NULL, mtime_ns INTEGER NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID"""


def as_stored(path: str) -> str | bytes:
    """A path as SQLite can hold it: as text, or as bytes where they are not UTF-8. SQLite keeps the two apart."""
    return path if is_unicode(path) else os.fsencode(path)


class Contents:
    """The known contents of one dataset's images."""

    def __init__(self, cache: Path, root: Path) -> None:
        self._cache = cache
        self._root = Path(os.path.realpath(root))
        self._known: dict[str, tuple[int, int, str]] = {}
        self.images_read = 0
        """Images that had to be read, since neither a digest in a key nor the cache knew them."""
        cache.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._load()
        except sqlite3.OperationalError:
            pass  # a full disk, a busy or forbidden file: this run goes without
        except sqlite3.DatabaseError:
            cache.replace(cache.with_name(cache.name + ".damaged"))
            self._load()

    def _connect(self) -> closing[sqlite3.Connection]:
        return closing(sqlite3.connect(self._cache, timeout=30, isolation_level=None))

    def _load(self) -> None:
        prefix = f"{self._root}/"
        with self._connect() as database:
            database.execute("PRAGMA journal_mode = WAL")
            database.execute(_TABLE)
            for first in {as_stored(prefix), os.fsencode(prefix)}:
                rows = database.execute("SELECT path, size, mtime_ns, sha256 FROM contents WHERE path >= ?", (first,))
                for path, size, mtime_ns, sha256 in rows:
                    if path[: len(first)] != first:
                        break
                    self._known[os.fsdecode(path[len(first) :])] = (size, mtime_ns, sha256)

    def knows(self, path: str) -> bool:
        """Whether this machine has hashed the image with this path before."""
        return path in self._known

    def unchanged(self, images: Iterable[Image], published: Iterable[ImageContent]) -> bool:
        """Whether these images have the bytes that were published.

        An image whose git-annex key identifies its content is settled by the digest of its shard, which holds the key:
        only the others are looked up here, and read where their size or mtime is not the one they were last hashed
        under.
        """
        by_path = {content.path: content for content in published}
        for image in images:
            content = by_path.get(image.path)
            if content is None or content.size != image.size:
                return False
            if not identifies_content(image.annex_key) and self.sha256(image) != content.sha256:
                return False
        return True

    def sha256(self, image: Image) -> str | None:
        """The sha256 of an image's bytes now; None where it cannot be read (staging will say why)."""
        known = self._known.get(image.path)
        if known and known[:2] == (image.size, image.mtime_ns):
            return known[2]
        path = self._root / image.path
        try:
            if (
                path.stat().st_size != image.size
            ):  # the stand-in of one that was not fetched, or a change since the plan
                return None
            sha256 = sha256_of(path)
        except OSError:
            return None
        self.images_read += 1
        self.remember([(image, sha256)])
        return sha256

    def remember(self, hashed: Iterable[tuple[Image, str]]) -> None:
        """Keep what was hashed; losing it to a crash costs a read, so nothing is flushed for it."""
        rows = {image.path: (image.size, image.mtime_ns, sha256) for image, sha256 in hashed}
        self._known |= rows
        with suppress(sqlite3.OperationalError), self._connect() as database:
            database.execute("PRAGMA synchronous = OFF")
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT OR REPLACE INTO contents VALUES (?, ?, ?, ?)",
                [(as_stored(f"{self._root}/{path}"), *row) for path, row in rows.items()],
            )
            database.execute("COMMIT")
