"""Images in git-annex and DataLad trees: their keys, and their sizes even where the content was not fetched.

A locked file is a symbolic link into `.git/annex/objects/.../KEY/KEY`, dangling until it is fetched. An unlocked one
that was not fetched is a small text file, `/annex/objects/KEY` (git-annex, "pointer file format"); once fetched, it
cannot be told from any other file, and has no key here. The key holds the size and, in most backends, a digest
(git-annex, "key format": `BACKEND-s123--NAME`).
"""

import os
import re
import stat
from dataclasses import dataclass

POINTER_MARK = b"/annex/objects/"
MAX_POINTER = 1024  # bytes: the mark, a key, a line end; an image is larger, so no image is opened for this
_LINK = re.compile(r"(?:^|/)annex/objects/(?:.*/)?([^/]+)$")
_SIZE = re.compile(r"^[A-Z0-9_]+(?:-[a-zA-Z]\d+)*?-s(\d+)(?:-[a-zA-Z]\d+)*--")


@dataclass(frozen=True, slots=True)
class FileFacts:
    """What is known of a file without reading its content. `size` is bytes, 0 if nothing knows it."""

    size: int
    mtime_ns: int
    annex_key: str | None
    fetched: bool


def size_in_key(key: str) -> int:
    """The content's size in bytes as the key says it, or 0."""
    match = _SIZE.match(key)
    return int(match.group(1)) if match else 0


def pointer_key(data: bytes) -> str | None:
    """The key that an unlocked, unfetched file's text points to."""
    if not data.startswith(POINTER_MARK):
        return None
    first_line = data.split(b"\n", 1)[0].strip()
    return first_line.decode("utf-8", "surrogateescape").rsplit("/", 1)[-1]


def file_facts(path: str) -> FileFacts:
    """Size, time and annex key of a file; one that is not there, or not fetched, is no error here."""
    try:
        own = os.lstat(path)
    except FileNotFoundError:  # gone since the walk: what is there is compared with the index in the end
        return FileFacts(0, 0, None, fetched=False)
    key = None
    found: os.stat_result | None = own
    if stat.S_ISLNK(own.st_mode):
        match = _LINK.search(os.readlink(path))  # noqa: PTH115 - as below
        key = match.group(1) if match else None
        try:
            found = os.stat(path)  # noqa: PTH116 - once an image: pathlib doubles the cost
        except OSError:
            found = None
    if found is None:
        return FileFacts(size_in_key(key or ""), own.st_mtime_ns, key, fetched=False)
    if key is None and len(POINTER_MARK) < found.st_size <= MAX_POINTER:
        key = _key_in_pointer_file(path)
        if key is not None:
            return FileFacts(size_in_key(key), found.st_mtime_ns, key, fetched=False)
    return FileFacts(found.st_size, found.st_mtime_ns, key, fetched=True)


def _key_in_pointer_file(path: str) -> str | None:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - as above
            return pointer_key(stream.read(MAX_POINTER))
    except OSError:  # unreadable: the shard's staging names it
        return None
