"""git-annex's names for contents: what a key says, and the stand-in for a file that was not fetched.

A key is `BACKEND-s123--NAME` (git-annex, "internals/key_format"); an unlocked file that was not fetched is a small
text, `/annex/objects/KEY` (git-annex, "internals/pointer file").
"""

import re
from dataclasses import dataclass

POINTER_MARK = b"/annex/objects/"


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
