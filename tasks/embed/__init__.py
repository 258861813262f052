"""Reads an image once: its bytes go to the shard as they come, and by the end they are checked.

What one pass tells, a cache-sized step at a time: the sha256; the digest in the git-annex key, where there is one;
whether nibabel can load an image with this NIfTI header (in the first step); whether all that the header speaks of is
there; and whether the gzip stream is sound, by the CRC and the size of every member. With `check="trailer"` the stream
is not inflated, and only its end is looked at: that sees a file that was cut off, and no damage within.

Before and after, size and mtime are what the plan saw. Where only ctime is another one after the reading (something
may have set the time back, and a backup that makes hard links does no harm), the bytes are read once more and compared.
Whatever does not hold is an error (`tasks.embed.errors`) that names the file and the way out; then nothing of its shard
is kept.
"""

import hashlib
import struct
import zlib
from pathlib import Path
from typing import Literal, Protocol

from tasks.bids.annex import AnnexKey
from tasks.bids.nifti import (
    GZIP_MAGIC,
    HEADER_SIZE,
    DamagedStream,
    Header,
    Inflation,
    NotLoadable,
    end_of_extensions,
    inflated_start,
    nifti_header,
    nifti_version,
)
from tasks.embed.errors import (
    BadImage,
    Changed,
    Corrupt,
    Empty,
    KeyMismatch,
    Missing,
    NotNifti,
    TooLarge,
    Truncated,
    Unfetched,
    Unloadable,
    Unreadable,
    against_key,
    corrupt,
    or_get,
    unloadable,
)
from tasks.embed.source import Source
from tasks.values.models import Image, ImageContent

__all__ = [
    "BadImage",
    "Changed",
    "Check",
    "Corrupt",
    "Empty",
    "KeyMismatch",
    "Missing",
    "NotNifti",
    "TooLarge",
    "Truncated",
    "Unfetched",
    "Unloadable",
    "Unreadable",
    "embed",
]

Check = Literal["trailer", "full"]

HEADER = 32 << 10  # bytes of a file, compressed or not, that hold its NIfTI header
STEP = 256 << 10  # bytes, where an image is inflated apart from its embedding


class Sink(Protocol):
    """Where an image's bytes go: `tasks.write.ShardWriter`."""

    room: memoryview
    """Where the next of its bytes are read to."""

    def begin_image(self, size: int) -> None:
        """Make ready for an image of `size` bytes."""

    def write(self, data: memoryview) -> None:
        """Take the next of its bytes, a filled part of `room`."""


def embed(image: Image, root: Path, sink: Sink, check: Check = "full") -> ImageContent:
    """Send an image's bytes to `sink`, and say which they were.

    `root` is the dataset's folder. `check="trailer"` does not inflate a .nii.gz, and compares no CRC.

    Raises:
        BadImage: one of its kinds. What `sink` got until then must not be kept.
    """
    path = root / image.path
    with Source(image, path) as source:
        checks = _Checks(image, path, check)
        sink.begin_image(image.size)
        for step in source.steps(sink.room):
            try:
                checks.see(step)
            except BadImage:
                source.require_unchanged()  # what is being written to is not damaged
                raise
            sink.write(step)
        source.require_unchanged(checks.sha256)
    checks.require_key()
    _require_whole(image, path, checks)
    version = checks.header.version if checks.header else 1
    return ImageContent(path=image.path, size=image.size, sha256=checks.sha256, nifti=version)


class _Checks:
    """What is learnt of an image while its bytes go by: those of the file at `path`."""

    def __init__(self, image: Image, path: Path, check: Check) -> None:
        self._image = image
        self._path = path
        self._content = hashlib.sha256()
        self._key = AnnexKey.parse(image.annex_key)
        if self._key.size not in (None, image.size):
            raise against_key(image, f"{self._key.size} bytes", image.size)
        self._digest = self._content if self._key.algorithm in (None, "sha256") else self._key.hasher()
        self.inflation = Inflation() if check == "full" and _compressed(image) else None
        self.header: Header | None = None
        """None until the first step. Its size is that of the inflated file."""
        self.end = b""
        """The last four bytes so far."""

    @property
    def sha256(self) -> str:
        return self._content.hexdigest()

    def see(self, step: memoryview) -> None:
        if self.header is None:
            self.header = _header(self._image, self._path, bytes(step[:HEADER]))
        self._content.update(step)
        if self._digest is not self._content:
            self._digest.update(step)
        if self.inflation:
            _inflate(self._image, self.inflation, step)
        self.end = (self.end + bytes(step[-4:]))[-4:]

    def require_key(self) -> None:
        if self._key.digest not in (None, self._digest.hexdigest()):
            expected = f"{self._key.algorithm} {self._key.digest}"
            raise against_key(self._image, expected, self._digest.hexdigest())


def _compressed(image: Image) -> bool:
    return image.path.endswith(".gz")


def _header(image: Image, path: Path, start: bytes) -> Header:
    """The header that the file begins with; `start` is its first bytes, inflated here where the file is gzip."""
    if start.startswith(GZIP_MAGIC) != _compressed(image):
        kind = "not gzip" if _compressed(image) else "gzip"
        raise NotNifti(f"{image.path} is {kind}, against its name. Rename it, or add it to .bidsignore.")
    try:
        inflated = inflated_start(start, HEADER_SIZE) if _compressed(image) else start[:HEADER_SIZE]
        if nifti_version(inflated) and (needed := end_of_extensions(inflated)) > len(inflated):
            inflated = _with_extensions(image, path, start, needed)
        header = nifti_header(inflated)
    except zlib.error as error:
        raise corrupt(image, error) from error
    except NotLoadable as error:
        raise unloadable(image, error) from error
    if header is None:
        raise NotNifti(f"{image.path} has no NIfTI header. Restore it{or_get(image)}, or add it to .bidsignore.")
    return header


def _with_extensions(image: Image, path: Path, start: bytes, needed: int) -> bytes:
    """The first `needed` bytes of the inflated file. Where they are not all in `start`, they are read from the file.

    Raises:
        Truncated: there are fewer.
        zlib.error: the gzip stream is damaged.
    """
    inflated = inflated_start(start, needed) if _compressed(image) else start[:needed]
    if len(inflated) < needed and len(start) < image.size:
        up_to = (
            4 * needed + HEADER if _compressed(image) else needed
        )  # small gzip members are longer than what they hold
        with Source(image, path) as source:
            longer = b"".join(bytes(step) for step in source.steps(memoryview(bytearray(STEP)), up_to))
        inflated = inflated_start(longer, needed) if _compressed(image) else longer
    if len(inflated) < needed:
        raise Truncated(
            f"{image.path} is truncated: its header says that the voxels begin at byte {needed}, and there are "
            f"{len(inflated)}. Restore it{or_get(image)}."
        )
    return inflated


def _inflate(image: Image, inflation: Inflation, data: memoryview) -> None:
    try:
        inflation.feed(data)
    except DamagedStream as error:
        raise corrupt(image, error) from error


def _require_whole(image: Image, path: Path, checks: _Checks) -> None:
    """Compare the size in the header with the one at the file's end.

    A gzip stream ends in its inflated size modulo 2^32 (RFC 1952, ISIZE). With `check="trailer"` that is all that is
    looked at; where it differs, the file is truncated, or it is one of the few that are longer than they need be,
    padded, or made of several members: only these are inflated to tell, which reads them a second time.
    """
    needed = checks.header.size if checks.header else 0
    found = image.size
    if _compressed(image):
        if not checks.inflation and struct.unpack("<I", checks.end.rjust(4, b"\0"))[0] == needed & 0xFFFFFFFF:
            return
        inflation = checks.inflation or _inflated(image, path)
        found = inflation.size
        if not inflation.complete:
            raise Truncated(
                f"{image.path} is truncated: its gzip stream breaks off where {found} of {needed} bytes are inflated. "
                f"Restore it{or_get(image)}."
            )
    if found < needed:
        raise Truncated(
            f"{image.path} is truncated: its header says {needed} bytes, and there are {found}. "
            f"Restore it{or_get(image)}."
        )


def _inflated(image: Image, path: Path) -> Inflation:
    inflation = Inflation()
    room = memoryview(bytearray(STEP))
    with Source(image, path) as source:
        for step in source.steps(room):
            _inflate(image, inflation, step)
        source.require_unchanged()
    return inflation
