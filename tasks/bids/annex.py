"""git-annex's names for contents (keys), and the small files that stand in for content that was not fetched.

A key is `BACKEND-s123--NAME` (git-annex, "internals/key_format"). An unlocked file that was not fetched is a small
text, `/annex/objects/KEY` (git-annex, "internals/pointer file"). git LFS has such a text too, with the size of the
content in it (git-lfs, "docs/spec.md").
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

POINTER_MARK = b"/annex/objects/"
LFS_MARK = b"version https://git-lfs.github.com/spec/"
LONGEST_POINTER = 32 << 10  # bytes; git-annex page "internals/pointer file": a larger file is never one

#: The backends whose digest hashlib can compute (git-annex page "backends") -> hashlib's name, and for BLAKE2 the
#: digest's length in bytes. Of the other backends, SKEIN, BLAKE2BP and BLAKE2SP are digests that nothing here can
#: compute. WORM holds a name, a size and a time, and URL an address: the content may change under the same key.
_ALGORITHMS: Mapping[str, tuple[str, int | None]] = {
    "MD5": ("md5", None),
    "SHA1": ("sha1", None),
    **{f"SHA{bits}": (f"sha{bits}", None) for bits in (224, 256, 384, 512)},
    **{f"SHA3_{bits}": (f"sha3_{bits}", None) for bits in (224, 256, 384, 512)},
    **{f"BLAKE2B{bits}": ("blake2b", bits // 8) for bits in (160, 224, 256, 384, 512)},
    **{f"BLAKE2S{bits}": ("blake2s", bits // 8) for bits in (160, 224, 256)},
}


def stand_in(start: bytes) -> str | None:
    """Return whose stand-in a file with this beginning is: "git-annex", "git LFS", or None if it is none."""
    if POINTER_MARK in start.partition(b"\n")[0]:
        return "git-annex"
    return "git LFS" if start.startswith(LFS_MARK) else None


class NotFetched(FileNotFoundError):
    """Only the stand-in of a text is here. `holder` says whose it is, as `stand_in` does."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def require_fetched(data: bytes) -> None:
    """Check that a text is not a stand-in.

    A stand-in begins at the first byte; an ordinary text may mention one further on.

    Raises:
        NotFetched: it is a stand-in.
    """
    if data.startswith((POINTER_MARK, LFS_MARK)) and (holder := stand_in(data)):
        raise NotFetched(holder)


NOT_IN_ANNEX = "not fetched from git-annex: run `git annex get` or `datalad get` on it"


def unfetched(error: FileNotFoundError) -> str:
    """Return why a text could not be read and what to do about it. A link without a target counts as git-annex's."""
    if isinstance(error, NotFetched) and error.holder == "git LFS":
        return "not fetched from git LFS: run `git lfs pull`"
    return NOT_IN_ANNEX


def lfs_size(data: bytes) -> int | None:
    """Return the size of the content in bytes that a git LFS pointer states, or None for any other text."""
    found = re.search(rb"^size (\d+)$", data, re.MULTILINE) if data.startswith(LFS_MARK) else None
    return int(found[1]) if found else None


def identifies_content(key: str | None) -> bool:
    """Return whether the same key always means the same bytes.

    Such a key holds a digest, which staging has compared with the content.
    """
    return AnnexKey.parse(key).digest is not None


def pointer_key(data: bytes) -> str | None:
    """Return the key in the text of an unlocked file that was not fetched, or None for any other text."""
    if not data.startswith(POINTER_MARK):
        return None
    first_line = data.split(b"\n", 1)[0].strip()
    return first_line.decode("utf-8", "surrogateescape").rsplit("/", 1)[-1]


class Hasher(Protocol):
    """A hash object of hashlib."""

    def update(self, data: memoryview, /) -> None:
        """Add bytes to what is hashed."""

    def hexdigest(self) -> str:
        """Return the digest of all bytes that were added."""


@dataclass(frozen=True, slots=True)
class AnnexKey:
    """What a git-annex key says about the content: its size in bytes and a digest, each None if the key does not say.

    Source: git-annex's pages "internals/key_format" (`BACKEND-s123-m1234--NAME`) and "backends" (if the backend's name
    ends with E, the file's extension follows the digest).
    """

    size: int | None
    algorithm: str | None
    """The name that hashlib has for it."""
    digest: str | None
    length: int | None = None
    """Bytes of the digest, for algorithms that leave the choice."""

    @classmethod
    def parse(cls, key: str | None) -> "AnnexKey":
        """Read a key. None, and text that is no key, give a value that says nothing."""
        fields, separator, name = (key or "").partition("--")
        if not separator:
            return cls(None, None, None)
        backend, *rest = fields.split("-")
        size = next((int(part[1:]) for part in rest if re.fullmatch(r"s\d+", part)), None)
        algorithm, length = _ALGORITHMS.get(backend.removesuffix("E"), (None, None))
        if algorithm is None:
            return cls(size, None, None)
        return cls(size, algorithm, name.partition(".")[0].lower(), length)

    def hasher(self) -> "Hasher":
        """Return a hash object that computes the key's kind of digest.

        Raises:
            ValueError: the key holds no digest.
        """
        if self.algorithm is None:
            raise ValueError("this key holds no digest")
        if self.length is not None:
            return (hashlib.blake2b if self.algorithm == "blake2b" else hashlib.blake2s)(digest_size=self.length)
        return hashlib.new(self.algorithm, usedforsecurity=False)
