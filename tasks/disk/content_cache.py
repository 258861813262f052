"""A small cache in the target's staging folder: the bytes that each image had when this machine last hashed it.

An image without a git-annex key is known only by its content. Reading every image every night to see that it has not
changed would cost the dataset's size. So the sha256 that is taken while an image is embedded is kept, with the size,
mtime, ctime and inode that the file had then. It is believed while all four stay the same (git's rule). Somebody who
edits a file and sets its mtime back still changes its ctime.

The cache also serves images whose key holds no digest of the content, or none that staging could compare. A URL key is
an address, and what is fetched from there may differ the next time. A WORM key is a name, a size and a time: no more
than this cache compares, and taken from a file on another machine at another date. Whoever restores a file's time with
other bytes gets the same key. If such an image is not fetched, nothing here knows its content, and it counts as
changed. Its shard then fails, and the error names the command that fetches it.

Lines are only added to the file, each with its CRC-32 before it. So it needs no lock, since the run that works on the
target is the only writer, and it needs nothing of a file system but that a file can grow. If an image has two lines,
the later one counts. A line that was cut short by a crash or a full disk, or damaged, is ignored. When most lines are
out of date, the file is written anew.

The whole cache is disposable. Without it, or if it cannot be read or written, each image is read once more, and nothing
is embedded or sent because of that. (`contents.sqlite` in the staging root is the cache of earlier versions. It is no
longer read, because it has no ctime.)
"""

import hashlib
import json
import os
import zlib
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from tasks.bids.annex import AnnexKey
from tasks.disk.files import sha256_of, write_whole
from tasks.values.models import Image, ImageContent

FILE = "contents.jsonl"  # its name in the target's staging folder
FEW = 1000  # lines that may be out of date without the file being written anew

#: Size, mtime, ctime (ns) and inode of a file: while all are the same, nobody has written to it.
_Stat = tuple[int, int, int, int]


def _line(path: str, stat: _Stat, sha256: str) -> bytes:
    # ASCII: names that are not UTF-8 are lone surrogates in Python; JSON writes them as \udcXX and gives them back
    text = json.dumps([path, *stat, sha256], separators=(",", ":")).encode()
    return b"%08x %b\n" % (zlib.crc32(text), text)


def _read(data: bytes) -> Iterator[tuple[str, _Stat, str]]:
    """Yield path, file status and sha256 of each undamaged line."""
    sound = [line[9:] for line in data.split(b"\n") if line[:9] == b"%08x " % zlib.crc32(line[9:])]
    for value in json.loads(b"[%b]" % b",".join(sound)):  # all at once: a third of the time of one by one
        with suppress(ValueError, TypeError):  # of another version
            path, size, mtime_ns, ctime_ns, inode, sha256 = value
            yield path, (size, mtime_ns, ctime_ns, inode), sha256


class ContentCache:
    """The known contents of one dataset's images."""

    def __init__(self, cache: Path, root: Path) -> None:
        self._cache = cache
        self._root = Path(os.path.realpath(root))
        self._known: dict[str, tuple[_Stat, str]] = {}
        self._torn = False
        """Whether the file ends in the middle of a line. Then the next line needs a line end before it."""
        self.images_read = 0
        """The number of images that were read because neither a digest in a key nor the cache knew them."""
        with suppress(OSError):  # no file yet, or the disk cannot be read or written: this run goes without
            self._load()

    def _load(self) -> None:
        if not self._cache.is_file():  # a pipe of that name would block the run
            return
        data = self._cache.read_bytes()
        self._known = {path: (stat, sha256) for path, stat, sha256 in _read(data)}
        self._torn = not data.endswith(b"\n")
        if data.count(b"\n") > 2 * len(self._known) + FEW:
            lines = (_line(path, *known) for path, known in self._known.items())
            write_whole(self._cache, b"".join(lines), durable=False)
            self._torn = False

    def knows(self, path: str) -> bool:
        """Return whether this machine has hashed the image at this path before."""
        return path in self._known

    def unchanged(self, images: Iterable[Image], published: Iterable[ImageContent]) -> bool:
        """Return whether these images have the bytes that were published.

        An image whose git-annex key identifies its content is settled by the digest of its shard, which covers the key.
        If the key's digest is a sha256, that is compared too. Only the other images are looked up here. An image is
        read if its size, times or inode differ from those at its last hashing.
        """
        by_path = {content.path: content for content in published}
        read: list[tuple[Image, str]] = []
        try:
            return all(self._as_published(image, by_path.get(image.path), read) for image in images)
        finally:
            self.remember(read)

    def _as_published(self, image: Image, content: ImageContent | None, read: list[tuple[Image, str]]) -> bool:
        if content is None or content.size != image.size:
            return False
        if image.content is not None:
            return hashlib.sha256(image.content).hexdigest() == content.sha256
        key = AnnexKey.parse(image.annex_key)
        if key.digest is not None:
            return key.algorithm != "sha256" or key.digest == content.sha256
        return self._sha256(image, read) == content.sha256

    def sha256(self, image: Image) -> str | None:
        """Return the sha256 of an image's present bytes, or None if it cannot be read (staging will say why)."""
        read: list[tuple[Image, str]] = []
        sha256 = self._sha256(image, read)
        self.remember(read)
        return sha256

    def _sha256(self, image: Image, read: list[tuple[Image, str]]) -> str | None:
        """Return what `sha256` returns. An image that had to be read for it is added to `read`."""
        if image.content is not None:
            return hashlib.sha256(image.content).hexdigest()
        known = self._known.get(image.path)
        if known and known[0] == _stat(image):
            return known[1]
        path = self._root / image.path
        try:
            if path.stat().st_size != image.size:  # a stand-in for content not fetched, or a change since the plan
                return None
            sha256 = sha256_of(path)
        except OSError:
            return None
        self.images_read += 1
        read.append((image, sha256))
        return sha256

    def remember(self, hashed: Iterable[tuple[Image, str]]) -> None:
        """Keep these sha256. Losing them in a crash costs a read, so nothing is flushed to the disk."""
        new = {image.path: (_stat(image), sha256) for image, sha256 in hashed if image.content is None}
        new = {path: known for path, known in new.items() if self._known.get(path) != known}
        if not new:
            return
        self._known |= new
        lines = b"\n" * self._torn + b"".join(_line(path, *known) for path, known in new.items())
        self._torn = True
        with suppress(OSError):
            self._cache.parent.mkdir(parents=True, exist_ok=True)
            if self._cache.exists() and not self._cache.is_file():
                return
            with self._cache.open("ab", buffering=0) as stream:
                self._torn = stream.write(lines) != len(lines)


def _stat(image: Image) -> _Stat:
    return image.size, image.mtime_ns, image.ctime_ns, image.inode
