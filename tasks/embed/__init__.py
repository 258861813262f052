"""Reads an image once: its bytes go to the shard as they come, and by the end they are checked.

What one pass tells, a cache-sized step at a time: the sha256; the digest in the git-annex key, where there is one;
whether the NIfTI header (in the first step) and the file's end agree on the size of the data; with `check="full"`
also the CRC of the whole gzip stream. Before and after, size and mtime are what the plan saw. Whatever does not hold
is an error (`tasks.embed.errors`) that names the file and the way out; then nothing of its shard is kept.
"""

import hashlib
import struct
import zlib
from pathlib import Path
from typing import Literal, Protocol

from tasks.annex import AnnexKey
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
    Unreadable,
    against_key,
    corrupt,
    or_get,
)
from tasks.embed.formats import GZIP_MAGIC, DamagedStream, Header, Inflation, inflated_start, nifti_header
from tasks.embed.source import Source
from tasks.models import Image, ImageContent

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
    "Unreadable",
    "embed",
]

Check = Literal["trailer", "full"]

INFLATED_HEADER = 540  # bytes: the header of NIfTI-2, the longer one
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


def embed(image: Image, root: Path, sink: Sink, check: Check = "trailer") -> ImageContent:
    """Send an image's bytes to `sink`, and say which they were.

    `root` is the dataset's folder. `check="full"` also inflates a .nii.gz to compare its CRC.

    Raises:
        BadImage: one of its kinds. What `sink` got until then must not be kept.
    """
    path = root / image.path
    with Source(image, path) as source:
        checks = _Checks(image, check)
        sink.begin_image(image.size)
        for step in source.steps(sink.room):
            checks.see(step)
            sink.write(step)
        source.require_unchanged()
    checks.require_key()
    _require_whole(image, path, checks)
    version = checks.header.version if checks.header else 1
    return ImageContent(path=image.path, size=image.size, sha256=checks.sha256, nifti=version)


class _Checks:
    """What is learnt of an image while its bytes go by."""

    def __init__(self, image: Image, check: Check) -> None:
        self._image = image
        self._content = hashlib.sha256()
        self._key = AnnexKey.parse(image.annex_key)
        if self._key.size not in (None, image.size):
            raise against_key(image, f"{self._key.size} bytes", image.size)
        other = self._key.algorithm not in (None, self._content.name)
        self._digest = hashlib.new(self._key.algorithm or "") if other else self._content
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
            self.header = _header(self._image, bytes(step[:HEADER]))
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


def _header(image: Image, start: bytes) -> Header:
    """The header that `start` begins with, inflated where the file is gzip."""
    if start.startswith(GZIP_MAGIC) != _compressed(image):
        kind = "not gzip" if _compressed(image) else "gzip"
        raise NotNifti(f"{image.path} is {kind}, against its name. Rename it, or add it to .bidsignore.")
    if _compressed(image):
        try:
            start = inflated_start(start, INFLATED_HEADER)
        except zlib.error as error:
            raise corrupt(image, error) from error
    header = nifti_header(start)
    if header is None:
        raise NotNifti(f"{image.path} has no NIfTI header. Restore it{or_get(image)}, or add it to .bidsignore.")
    return header


def _inflate(image: Image, inflation: Inflation, data: memoryview) -> None:
    try:
        inflation.feed(data)
    except DamagedStream as error:
        raise corrupt(image, error) from error


def _require_whole(image: Image, path: Path, checks: _Checks) -> None:
    """Compare the size in the header with the one at the file's end.

    A gzip stream ends in its inflated size modulo 2^32 (RFC 1952, ISIZE). Where that differs, the file is truncated,
    or it is one of the few that are longer than they need be, padded, or made of several members: only these are
    inflated to tell, which reads them a second time.
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
