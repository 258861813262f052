"""Reads a file once: its bytes go to the shard as they come, and at the end they are checked.

One pass, in steps that fit into the processor's cache, tells the following:

- the sha256;
- the digest in the git-annex key, if there is one;
- of an image, whether nibabel can load one with this NIfTI header (in the first step);
- of an image, whether everything that the header speaks of is there;
- whether the gzip stream is sound, by the CRC and the size of every member. With `check="trailer"` an image's stream is
  not inflated, and only its end is looked at: that finds a file that was cut off, and no damage within. The streams of
  recordings and tables are always inflated: no header says how long they have to be, and verification does not decode
  them.

A file from which fields are stripped is not read here: what is left of it goes to the shard.

Before and after, size and mtime must be what the plan saw. If only the ctime has changed after the reading, the bytes
are read once more and compared: somebody may have set the time back, but a backup that makes hard links changes the
ctime too, and does no harm. If any check fails, the error (`tasks.embed.errors`) names the file and the way out, and
nothing of its shard is kept.
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
    NotGzip,
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
from tasks.values.kinds import Kind, in_recording_folder
from tasks.values.models import Image, ImageContent

__all__ = [
    "BadImage",
    "Changed",
    "Check",
    "Corrupt",
    "Empty",
    "KeyMismatch",
    "Missing",
    "NotGzip",
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
STEP = 256 << 10  # bytes, if an image is inflated apart from its embedding


class Sink(Protocol):
    """A receiver of a file's bytes: `tasks.write.ShardWriter`."""

    buffer: memoryview
    """A buffer into which the next bytes are read."""

    def begin_file(self, size: int, kind: Kind) -> None:
        """Prepare for a file of `size` bytes."""

    def write(self, data: memoryview) -> None:
        """Take the next bytes of the file, a filled part of `buffer`."""


def embed(image: Image, root: Path, sink: Sink, check: Check = "full") -> ImageContent:
    """Send the bytes of an image, or of any other file, to `sink`, and return which bytes they were.

    Args:
        image: the image or the file.
        root: the dataset's folder.
        sink: takes the bytes.
        check: with "trailer", the gzip stream of an image is not inflated, and no CRC is compared.

    Raises:
        BadImage: one of its kinds. What `sink` has got until then must not be kept.
    """
    if image.content is not None:
        return _stripped(image, image.content, sink)
    path = root / image.path
    with Source(image, path) as source:
        checks = _Checks(image, path, check)
        sink.begin_file(image.size, image.kind)
        for step in source.steps(sink.buffer):
            try:
                checks.see(step)
            except BadImage:
                source.require_unchanged()  # a file that somebody is writing to has changed, and is not damaged
                raise
            sink.write(step)
        source.require_unchanged(checks.sha256)
    checks.require_key()
    if image.kind == "image":
        _require_whole(image, path, checks)
    else:
        checks.require_end()
    version = checks.header.version if checks.header else 1
    return ImageContent(path=image.path, size=image.size, sha256=checks.sha256, nifti=version)


def _stripped(image: Image, content: bytes, sink: Sink) -> ImageContent:
    """Send the bytes that are published instead of the file's."""
    sink.begin_file(len(content), image.kind)
    sink.write(memoryview(content))
    return ImageContent(path=image.path, size=len(content), sha256=hashlib.sha256(content).hexdigest())


class _Checks:
    """What is learnt about a file while its bytes go by. `path` is its file."""

    def __init__(self, image: Image, path: Path, check: Check) -> None:
        self._image = image
        self._path = path
        self._content = hashlib.sha256()
        self._key = AnnexKey.parse(image.annex_key)
        if self._key.size not in (None, image.size):
            raise against_key(image, f"{self._key.size} bytes", image.size)
        self._digest = self._content if self._key.algorithm in (None, "sha256") else self._key.hasher()
        inflates = _compressed(image) and bool(image.size) and (check == "full" or image.kind != "image")
        self.inflation = Inflation() if inflates else None
        self.header: Header | None = None
        """None until the first step, and for what is no image. Its size is that of the inflated file."""
        self.end = b""
        """The last four bytes so far."""

    @property
    def sha256(self) -> str:
        return self._content.hexdigest()

    def see(self, step: memoryview) -> None:
        if not self.end:
            _require_gzip_as_named(self._image, bytes(step[:2]))
        if self.header is None and self._image.kind == "image":
            self.header = _header(self._image, self._path, bytes(step[:HEADER]))
        self._content.update(step)
        if self._digest is not self._content:
            self._digest.update(step)
        if self.inflation:
            _inflate(self._image, self.inflation, step)
        self.end = (self.end + bytes(step[-4:]))[-4:]

    def require_end(self) -> None:
        """Check that the gzip stream of a file that is no image is whole, if it is one."""
        if self.inflation and not self.inflation.complete:
            raise Truncated(
                f"{self._image.path} is truncated: its gzip stream breaks off. Restore it{or_get(self._image)}."
            )

    def require_key(self) -> None:
        if self._key.digest not in (None, self._digest.hexdigest()):
            expected = f"{self._key.algorithm} {self._key.digest}"
            raise against_key(self._image, expected, self._digest.hexdigest())


def _compressed(image: Image) -> bool:
    """Return whether a file has to be gzip, judged by its name. Nothing is known about the formats of `other` files."""
    return image.path.lower().endswith(".gz") and image.kind != "other" and not in_recording_folder(image.path)


def _require_gzip_as_named(image: Image, start: bytes) -> None:
    """Check that a file is gzip if its name says so, and that an image is not if its name does not."""
    is_gzip = start == GZIP_MAGIC
    if image.kind == "other" or (not image.size and image.kind != "image"):
        return
    if is_gzip == _compressed(image) or (image.kind != "image" and is_gzip):
        return
    found, error = ("gzip", NotNifti) if is_gzip else ("not gzip", NotNifti if image.kind == "image" else NotGzip)
    raise error(f"{image.path} is {found}, against its name. Rename it, or name it in `exclude`.")


def _header(image: Image, path: Path, start: bytes) -> Header:
    """Return the header at the beginning of the file.

    `start` is its first bytes, which are inflated here if it is gzip.
    """
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
        raise NotNifti(f"{image.path} has no NIfTI header. Restore it{or_get(image)}, or name it in `exclude`.")
    return header


def _with_extensions(image: Image, path: Path, start: bytes, needed: int) -> bytes:
    """Return the first `needed` bytes of the inflated file.

    They are read from the file if `start` does not hold them all.

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

    A gzip stream ends in its inflated size modulo 2^32 (RFC 1952, ISIZE). With `check="trailer"`, this is the only
    check if the sizes agree. If they differ, the file is truncated, or it is one of the few that are longer than they
    need to be, padded, or made of several members. Only such files are inflated to find out, which reads them a second
    time.
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
    buffer = memoryview(bytearray(STEP))
    with Source(image, path) as source:
        for step in source.steps(buffer):
            _inflate(image, inflation, step)
        source.require_unchanged()
    return inflation
