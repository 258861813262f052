"""git-annex's names for contents: what a key says, and the stand-ins for files that were not fetched.

A key is `BACKEND-s123--NAME` (git-annex, "internals/key_format"); an unlocked file that was not fetched is a small
text, `/annex/objects/KEY` (git-annex, "internals/pointer file"). So is one of git LFS, with the size of the content in
it (git-lfs, "docs/spec.md").
"""

import re
from dataclasses import dataclass

POINTER_MARK = b"/annex/objects/"
LFS_MARK = b"version https://git-lfs.github.com/spec/"
LONGEST_POINTER = 32 << 10  # bytes; git-annex page "internals/pointer file": a larger file is never one

#: The backends whose key is a digest of the content (git-annex page "backends"). Of the others WORM holds a name, a
#: size and a time, and URL an address: what is there may change under the same key.
_OF_CONTENT = re.compile(r"(?:MD5|SHA1|SHA(?:3_)?(?:224|256|384|512)|SKEIN\d+|BLAKE2(?:B|BP|S|SP)\d+)E?-")


def stand_in(start: bytes) -> str | None:
    """Whose stand-in a small file that begins with `start` is: "git-annex", "git LFS", or None."""
    if POINTER_MARK in start.partition(b"\n")[0]:
        return "git-annex"
    return "git LFS" if start.startswith(LFS_MARK) else None


class NotFetched(FileNotFoundError):
    """Of a text only the stand-in is here. `holder` is whose, as `stand_in` says it."""

    def __init__(self, holder: str) -> None:
        super().__init__(holder)
        self.holder = holder


def require_fetched(data: bytes) -> None:
    """Check that a text is not a stand-in. A stand-in is one from its first byte on; a text may well speak of one.

    Raises:
        NotFetched: it is.
    """
    if data.startswith((POINTER_MARK, LFS_MARK)) and (holder := stand_in(data)):
        raise NotFetched(holder)


def unfetched(error: FileNotFoundError) -> str:
    """What a text is that could not be read so, and what to do; a link without a target is one of git-annex."""
    if isinstance(error, NotFetched) and error.holder == "git LFS":
        return "not fetched from git LFS: run `git lfs pull`"
    return "not fetched from git-annex: run `git annex get` or `datalad get` on it"


def lfs_size(data: bytes) -> int | None:
    """The size in bytes that a git LFS pointer says its content has; None for any other text."""
    found = re.search(rb"^size (\d+)$", data, re.MULTILINE) if data.startswith(LFS_MARK) else None
    return int(found[1]) if found else None


def identifies_content(key: str | None) -> bool:
    """Whether the same key means the same bytes, because it holds a digest of them."""
    return _OF_CONTENT.match(key or "") is not None


def pointer_key(data: bytes) -> str | None:
    """The key that an unlocked, unfetched file's text points to."""
    if not data.startswith(POINTER_MARK):
        return None
    first_line = data.split(b"\n", 1)[0].strip()
    return first_line.decode("utf-8", "surrogateescape").rsplit("/", 1)[-1]


@dataclass(frozen=True, slots=True)
class AnnexKey:
    """What a git-annex key says of the content: its size in bytes, and a digest. None where it does not say.

    Source: git-annex's pages "internals/key_format" (`BACKEND-s123-m1234--NAME`) and "backends" (with E at the
    backend's end, the file's extension follows the digest).
    """

    size: int | None
    algorithm: str | None
    digest: str | None

    @classmethod
    def parse(cls, key: str | None) -> "AnnexKey":
        """Read a key; None, and what is no key, says nothing."""
        fields, separator, name = (key or "").partition("--")
        if not separator:
            return cls(None, None, None)
        backend, *rest = fields.split("-")
        size = next((int(part[1:]) for part in rest if re.fullmatch(r"s\d+", part)), None)
        hashed = re.fullmatch(r"(MD5|SHA1|SHA224|SHA256|SHA384|SHA512)E?", backend)
        if not hashed:
            return cls(size, None, None)
        return cls(size, hashed[1].lower(), name.partition(".")[0].lower())
