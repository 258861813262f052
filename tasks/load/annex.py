"""Images in git-annex, DataLad and git LFS trees: their keys, and their sizes even if nothing was fetched.

A locked file is a symbolic link into `.git/annex/objects/.../KEY/KEY`, which leads nowhere until it is fetched. A small
text file stands for an unlocked file that was not fetched, and for one of git LFS (`tasks.bids.annex`). Once it is
fetched, it looks like any other file, and has no key here.
"""

import os
import re
import stat
from typing import NamedTuple

from tasks.bids.annex import POINTER_MARK, AnnexKey, lfs_size, pointer_key

MAX_POINTER = 1024  # bytes: the mark, a key, a line end; an image is larger, so no image is opened for this
_SIZE = re.compile(r"-s(\d+)(?=-|$)")
_LINK = re.compile(r"(?:^|/)annex/objects/(?:.*/)?([^/]+)$")


class FileFacts(NamedTuple):
    """What is known about a file without reading its content. `size` is bytes, or 0 if nothing states it."""

    size: int
    mtime_ns: int
    annex_key: str | None
    fetched: bool
    ctime_ns: int = 0
    inode: int = 0
    executable: bool | None = None
    """Whether its owner may execute it, which is all that git keeps of a mode; None if it is not here. An object of
    git-annex is read-only, and executable if the file was.
    """


def file_facts(path: str, was_read: bool = False) -> FileFacts:
    """Return size, times, inode and annex key of a file. A file that is missing or not fetched is no error here.

    Args:
        path: the file.
        was_read: whether it was read in this load, and is no stand-in. Then it is not opened to find that out.
    """
    try:
        own = os.lstat(path)
    except FileNotFoundError:  # gone since the walk; the index is compared with the tree at the end
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
        return FileFacts(AnnexKey.parse(key).size or 0, own.st_mtime_ns, key, fetched=False)
    if key is None and not was_read and len(POINTER_MARK) < found.st_size <= MAX_POINTER:
        start = _start(path)
        key = pointer_key(start)
        size = AnnexKey.parse(key).size or 0 if key else lfs_size(start)
        if size is not None:
            return FileFacts(size, found.st_mtime_ns, key, fetched=False)
    return FileFacts(
        found.st_size,
        found.st_mtime_ns,
        key,
        fetched=True,
        ctime_ns=found.st_ctime_ns,
        inode=found.st_ino,
        executable=bool(found.st_mode & stat.S_IXUSR),
    )


def content_size(path: str) -> int | None:
    """Return the bytes of a file, or of its content if that was not fetched; None if nothing states them."""
    try:
        own = os.lstat(path)
        if stat.S_ISLNK(own.st_mode):
            match = _LINK.search(os.readlink(path))  # noqa: PTH115 - once a file: pathlib doubles the cost
            size = _SIZE.search(match.group(1).partition("--")[0]) if match else None
            if size:
                return int(size.group(1))
        elif not len(POINTER_MARK) < own.st_size <= MAX_POINTER:
            return own.st_size
        facts = file_facts(path)
    except OSError:
        return None
    return facts.size if facts.fetched or facts.size else None


def _start(path: str) -> bytes:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - as above
            return stream.read(MAX_POINTER)
    except OSError:  # unreadable: the shard's staging names it
        return b""
