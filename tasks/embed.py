"""Reads an image once: its bytes go to the shard as they come, and by the end they are checked.

What one pass tells, a cache-sized step at a time: the sha256; the digest in the git-annex key, where there is one;
whether the NIfTI header (in the first step) and the file's end agree on the size of the data; with `check="full"`
also the CRC of the whole gzip stream. Before and after, size and mtime are what the plan saw. Whatever does not hold
is an error that names the file and the way out; then nothing of its shard is kept.
"""

import hashlib
import os
import re
import stat
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Literal, Protocol, cast

from isal import igzip_lib

from tasks.errors import PushError
from tasks.models import Image, ImageContent
from tasks.write import LARGEST_IMAGE

Check = Literal["trailer", "full"]

STEP = 256 << 10  # bytes read, hashed and written at once: they stay in a core's own cache for all three
INFLATED_STEP = 1 << 20  # bytes that a compressed step may become at once: a run of zeros grows a thousandfold
LONGEST_POINTER = 32 << 10  # bytes; git-annex page "internals/pointer file": a larger file is never one
#: What isal raises; its type stubs call it a value.
DamagedStream = cast(type[Exception], igzip_lib.IsalError)

GZIP_MAGIC = b"\x1f\x8b"


class BadImage(PushError):
    """An image cannot be published as it is; its shard is not written."""


class Missing(BadImage):
    """The image is not there any more, or links to nothing."""


class Unfetched(BadImage):
    """Only git-annex's or git LFS's stand-in for the image is here, not its content."""


class Unreadable(BadImage):
    """The image cannot be read: permissions, a failing disk, not a file."""


class Empty(BadImage):
    """The image has no bytes."""


class TooLarge(BadImage):
    """The image is over 2 GiB, the most that one cell of a table can hold."""


class NotNifti(BadImage):
    """The file is not what its name says: no NIfTI-1 or NIfTI-2 header, or not gzip (or gzip) against its suffix."""


class Truncated(BadImage):
    """The data ends before the size in the NIfTI header is reached."""


class Corrupt(BadImage):
    """The gzip stream is damaged."""


class KeyMismatch(BadImage):
    """The content is not the one that the git-annex key names."""


class Changed(BadImage):
    """The image changed after it was planned, or while it was read."""


class Sink(Protocol):
    """Where an image's bytes go: `tasks.write.ShardWriter`."""

    def begin_image(self, size: int) -> None:
        """Make ready for an image of `size` bytes."""

    def write(self, data: memoryview) -> None:
        """Take the next of its bytes; they are overwritten afterwards."""


def embed(image: Image, root: Path, sink: Sink, check: Check = "trailer") -> ImageContent:
    """Send an image's bytes to `sink`, and say which they were.

    `root` is the dataset's folder. `check="full"` also inflates a .nii.gz to compare its CRC.

    Raises:
        BadImage: one of its kinds above. What `sink` got until then must not be kept.
    """
    path = root / image.path
    with _Source(image, path) as source:
        key = AnnexKey.parse(image.annex_key)
        if key and key.size not in (None, image.size):
            raise KeyMismatch(_against_key(image, f"{key.size} bytes", f"{image.size}"))
        content = hashlib.sha256()
        digest = hashlib.new(key.algorithm) if key and key.algorithm not in (None, content.name) else content
        inflation = Inflation() if check == "full" and image.path.endswith(".gz") else None
        end = b""
        needed = None
        sink.begin_image(image.size)
        for step in source.steps():
            if needed is None:
                needed = _needed(image, bytes(step[: min(len(step), LONGEST_POINTER)]))
            content.update(step)
            sink.write(step)
            if digest is not content:
                digest.update(step)
            if inflation:
                _inflate(image, inflation, step)
            end = (end + bytes(step[-4:]))[-4:]
        source.require_unchanged()
    if key and key.digest not in (None, digest.hexdigest()):
        raise KeyMismatch(_against_key(image, f"{key.algorithm} {key.digest}", digest.hexdigest()))
    _require_whole(image, path, needed or 0, end, inflation)
    return ImageContent(path=image.path, size=image.size, sha256=content.hexdigest())


class _Source:
    """The open file of an image, which must stay what the plan saw from open to close."""

    def __init__(self, image: Image, path: Path) -> None:
        self._image = image
        self._path = path

    def __enter__(self) -> "_Source":
        image = self._image
        try:
            # O_NONBLOCK: a pipe of that name must not hold the run until somebody writes to it
            self._descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise _absent(image, self._path) from error
        except OSError as error:
            raise _unreadable(image, error) from error
        try:
            self._require_usable()
        except BaseException:
            os.close(self._descriptor)
            raise
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._descriptor)

    def _require_usable(self) -> None:
        image = self._image
        status = os.fstat(self._descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable(f"{image.path} is not a file. Put the image there, or add it to .bidsignore.")
        if status.st_size == 0:
            raise Empty(f"{image.path} is empty. Restore it from where the dataset came from{_or_get(image)}.")
        if status.st_size > LARGEST_IMAGE:
            raise TooLarge(
                f"{image.path} has {status.st_size} bytes; one image can have at most 2 GiB. Compress it (.nii.gz), "
                "split it into parts, or add it to .bidsignore."
            )
        self._compare(status, "since it was planned")

    def _compare(self, status: os.stat_result, when: str) -> None:
        image = self._image
        if (status.st_size, status.st_mtime_ns) != (image.size, image.mtime_ns):
            raise Changed(
                f"{image.path} changed {when}: {image.size} bytes before, {status.st_size} now, modified at "
                f"{status.st_mtime_ns / 1e9:.3f} s. Run again when nothing writes to the dataset."
            )

    def steps(self) -> Iterator[memoryview]:
        """The file's bytes from first to last, each step in the same memory.

        No more than the planned size is ever handed out, so a file that grows does not overflow its page.
        """
        buffer = memoryview(bytearray(min(STEP, self._image.size)))
        left = self._image.size
        while left:
            try:
                count = os.readv(self._descriptor, [buffer[: min(left, STEP)]])
            except OSError as error:
                raise _unreadable(self._image, error) from error
            if not count:
                self._compare(os.fstat(self._descriptor), "while it was read")
                raise Unreadable(f"{self._image.path} ends {left} bytes early. Check its disk.")
            left -= count
            yield buffer[:count]

    def require_unchanged(self) -> None:
        """Compare once more, by the open file and by the name: it may have been replaced."""
        self._compare(os.fstat(self._descriptor), "while it was read")
        try:
            status = self._path.stat()
        except OSError as error:
            raise Changed(
                f"{self._image.path} went away while it was read. Run again when nothing writes to the dataset."
            ) from error
        self._compare(status, "while it was read")


def _absent(image: Image, path: Path) -> BadImage:
    if not path.is_symlink():
        return Missing(f"{image.path} is not there any more. Restore it, or run again to publish without it.")
    target = path.readlink()
    if "annex/objects/" in target.as_posix():
        return Unfetched(_unfetched(image, "git-annex"))
    return Missing(f"{image.path} is a link to {target}, which is not there. Restore it, or remove the link.")


def _unfetched(image: Image, holder: str) -> str:
    get = f"`git lfs pull --include '{image.path}'`" if holder == "git LFS" else _get(image)
    return f"{image.path} is not fetched: only {holder}'s stand-in is here. In the dataset's folder run {get}."


def _get(image: Image) -> str:
    return f"`git annex get '{image.path}'` (or `datalad get '{image.path}'`)"


def _or_get(image: Image) -> str:
    if not image.annex_key:
        return ""
    return f", for example with `git annex fsck '{image.path}'` and then {_get(image)}"


def _unreadable(image: Image, error: OSError) -> Unreadable:
    return Unreadable(
        f"{image.path} cannot be read ({error.strerror}). Check its disk, and that the user who runs this may read it."
    )


def _against_key(image: Image, expected: str, found: str) -> str:
    return (
        f"{image.path} is not the content that its git-annex key names: {expected} expected, {found} found. In the "
        f"dataset's folder run `git annex fsck '{image.path}'`, then {_get(image)}; or `git annex add` a changed image."
    )


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
    def parse(cls, key: str | None) -> "AnnexKey | None":
        """Read a key; None is none."""
        fields, separator, name = (key or "").partition("--")
        if not separator:
            return None
        backend, *rest = fields.split("-")
        size = next((int(part[1:]) for part in rest if re.fullmatch(r"s\d+", part)), None)
        hashed = re.fullmatch(r"(MD5|SHA1|SHA224|SHA256|SHA384|SHA512)E?", backend)
        if not hashed:
            return cls(size, None, None)
        return cls(size, hashed[1].lower(), name.partition(".")[0].lower())


#: NIfTI datatype code -> bits a voxel (nifti1.h, DT_*; NIfTI-2 has the same). More telling than `bitpix`, which some
#: tools leave wrong and no reader looks at.
BITS = {
    2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64, 1536: 128,
    1792: 128, 2048: 256, 2304: 32,
}  # fmt: skip


def nifti_size(header: bytes) -> int | None:
    """The bytes that a NIfTI file must have at least, by its header; None where there is no NIfTI header.

    Source: nifti1.h and nifti2.h, the fields sizeof_hdr, magic, dim, datatype, bitpix and vox_offset, in either byte
    order. Only single files (`n+1`, `n+2`): BIDS has no others.
    """
    for order in "<>":
        try:
            sizeof = struct.unpack_from(f"{order}i", header)[0]
            if sizeof == 348 and header[344:348] == b"n+1\0":
                dimensions = struct.unpack_from(f"{order}8h", header, 40)
                datatype, bits = struct.unpack_from(f"{order}2h", header, 70)
                offset = struct.unpack_from(f"{order}f", header, 108)[0]
                first = 352
            elif sizeof == 540 and header[4:12] == b"n+2\0\r\n\x1a\n":
                dimensions = struct.unpack_from(f"{order}8q", header, 16)
                datatype, bits = struct.unpack_from(f"{order}2h", header, 12)
                offset = struct.unpack_from(f"{order}q", header, 168)[0]
                first = 544
            else:
                continue
            rank = dimensions[0]
            if not 1 <= rank <= 7 or min(dimensions[1 : rank + 1]) < 0:
                return None
            voxels = prod(dimensions[1 : rank + 1])
            return int(offset or first) + int(-(-voxels * BITS.get(datatype, bits) // 8))
        except (struct.error, ValueError, OverflowError):
            continue
    return None


def _needed(image: Image, start: bytes) -> int:
    """The size in the header that `start` begins with, inflated where the file is gzip."""
    if image.size <= LONGEST_POINTER:
        if b"/annex/objects/" in start.partition(b"\n")[0]:
            raise Unfetched(_unfetched(image, "git-annex"))
        if start.startswith(b"version https://git-lfs.github.com/spec/"):
            raise Unfetched(_unfetched(image, "git LFS"))
    if start.startswith(GZIP_MAGIC) != image.path.endswith(".gz"):
        kind = "gzip" if start.startswith(GZIP_MAGIC) else "not gzip"
        raise NotNifti(f"{image.path} is {kind}, against its name. Rename it, or add it to .bidsignore.")
    header = start
    if image.path.endswith(".gz"):
        try:
            header = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(start, 540)
        except zlib.error as error:
            raise Corrupt(_corrupt(image, str(error))) from error
    size = nifti_size(header)
    if size is None:
        raise NotNifti(f"{image.path} has no NIfTI header. Restore it{_or_get(image)}, or add it to .bidsignore.")
    return size


class Inflation:
    """Inflates a gzip stream to nothing but its size, and compares every member's CRC and size on the way.

    Source: RFC 1952: a stream is one member or several, behind which there may be zeros.
    """

    def __init__(self) -> None:
        self._member: igzip_lib.IgzipDecompressor | None = None
        self.size = 0

    @property
    def complete(self) -> bool:
        """Whether what was fed so far ends where a member ends."""
        return self._member is None

    def feed(self, data: memoryview | bytes) -> None:
        """Inflate the next of the stream's bytes.

        Raises:
            DamagedStream: the stream is damaged.
        """
        while len(data):
            if self._member is None:
                data = bytes(data).lstrip(b"\0")
                if not data:
                    return
                self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self.size += len(self._member.decompress(data, INFLATED_STEP))
            while not self._member.eof and not self._member.needs_input:
                self.size += len(self._member.decompress(b"", INFLATED_STEP))
            if not self._member.eof:
                return
            data, self._member = self._member.unused_data, None


def _inflate(image: Image, inflation: Inflation, data: memoryview) -> None:
    try:
        inflation.feed(data)
    except DamagedStream as error:
        raise Corrupt(_corrupt(image, str(error))) from error


def _corrupt(image: Image, why: str) -> str:
    return f"{image.path} is a damaged gzip stream ({why}). Restore it{_or_get(image)}."


def _require_whole(image: Image, path: Path, needed: int, end: bytes, inflation: Inflation | None) -> None:
    """Compare the size in the header with the one at the file's end.

    A gzip stream ends in its inflated size modulo 2^32 (RFC 1952, ISIZE). Where that differs, the file is truncated,
    or it is one of the few that are longer than they need be, padded, or made of several members: only these are
    inflated to tell, which reads them a second time.
    """
    found = image.size
    if image.path.endswith(".gz"):
        if inflation is None and struct.unpack("<I", end.rjust(4, b"\0"))[0] == needed & 0xFFFFFFFF:
            return
        inflation = inflation or _inflated(image, path)
        found = inflation.size
        if not inflation.complete:
            raise Truncated(
                f"{image.path} is truncated: its gzip stream breaks off at {found} of {needed} bytes. "
                f"Restore it{_or_get(image)}."
            )
    if found < needed:
        raise Truncated(
            f"{image.path} is truncated: its header says {needed} bytes, and there are {found}. "
            f"Restore it{_or_get(image)}."
        )


def _inflated(image: Image, path: Path) -> Inflation:
    inflation = Inflation()
    with _Source(image, path) as source:
        for step in source.steps():
            _inflate(image, inflation, step)
        source.require_unchanged()
    return inflation
