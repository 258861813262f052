"""What an image's own bytes say about it: the NIfTI header and the gzip stream.

nibabel decides whether an image can be loaded, because readers use nibabel. It is asked with the header alone, without
a voxel: does the header pass nibabel's checks, does it give a shape, a datatype and an affine, and can a voxel of that
datatype be scaled as the header says. Asking takes 0.1 ms, so `_usual` recognizes an ordinary header first (5 us), and
everything else goes to nibabel. tests/test_nifti.py compares the two.

We refuse two kinds of header that nibabel opens without finding an image. One is the header of a pair of files (`ni1`,
`ni2`) in a single file, since its voxels are elsewhere. The other has no dimensions, or a dimension below zero.
"""

import io
import logging
import math
import struct
import zlib
from math import prod
from typing import Any, BinaryIO, Literal, NamedTuple, cast

import numpy as np
from isal import igzip, igzip_lib
from nibabel.arrayproxy import ArrayProxy
from nibabel.nifti1 import Nifti1Header
from nibabel.nifti2 import Nifti2Header

GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, ID1 and ID2
INFLATED_STEP = 256 << 10  # bytes that one step may inflate to: zeros grow a thousandfold; 1 MiB costs 10 % more
HEADER_SIZE = 544  # bytes: the header of NIfTI-2, the longer one, with the flag for extensions

#: The exception that isal raises. Its type stubs call it a value.
DamagedStream = cast(type[Exception], igzip_lib.IsalError)

#: The datatype codes that every reader knows (nifti1.h, DT_*; NIfTI-2 has the same) -> bytes of a voxel: whole numbers,
#: floating point and complex. More reliable than `bitpix`, which some tools leave wrong and no reader looks at.
_BYTES = {2: 1, 4: 2, 8: 4, 16: 4, 32: 8, 64: 8, 256: 1, 512: 2, 768: 4, 1024: 8, 1280: 8, 1792: 16}
LARGEST_EXTENSIONS = 256 << 20  # bytes: they are held in memory, and no program writes a thousandth of it

#: nibabel logs every header that it mends on reading. Nobody here needs to hear of that.
_SILENT = logging.Logger("headers")
_SILENT.addHandler(logging.NullHandler())


class NotLoadable(ValueError):
    """nibabel cannot load an image with this header. The text is nibabel's reason."""


class Header(NamedTuple):
    """What a NIfTI header says: its version, 1 or 2, and the least number of bytes that the file must have."""

    version: Literal[1, 2]
    size: int


class Layout(NamedTuple):
    """Where an image's voxels are, as nibabel reads its header."""

    version: Literal[1, 2]
    header: Any
    """nibabel's `Nifti1Header` or `Nifti2Header`."""
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int
    """Bytes before the first voxel."""

    @property
    def voxels(self) -> int:
        """The number of voxels in all volumes."""
        return prod(self.shape)

    @property
    def size(self) -> int:
        """The least number of bytes that the file must have, inflated."""
        first = 352 if self.version == 1 else 544
        return (self.offset or first) + self.voxels * self.dtype.itemsize


def nifti_version(start: bytes) -> Literal[1, 2] | None:
    """Return the NIfTI version of a file by its first bytes (inflated), or None if it is no single NIfTI file.

    Source: nifti1.h and nifti2.h, the fields sizeof_hdr and magic, in either byte order. Only single files count
    (`n+1`, `n+2`), since BIDS has no others. As in nibabel, NIfTI-1 is known by its magic, and NIfTI-2 by its size.
    """
    if start[344:348] == b"n+1\0":
        return 1
    if len(start) >= 540 and start[4:8] == b"n+2\0" and start[:4] in (struct.pack("<i", 540), struct.pack(">i", 540)):
        return 2
    return None


def end_of_extensions(start: bytes) -> int:
    """Return how many bytes nibabel reads to know the header. Where extensions follow the header, they count too.

    Args:
        start: the first `HEADER_SIZE` bytes of a file that `nifti_version` knows, or the whole file if it is shorter.

    Raises:
        NotLoadable: it would be more than `LARGEST_EXTENSIONS` bytes.
    """
    end, rank, offset = (348, ("h", 40), ("f", 108)) if nifti_version(start) == 1 else (540, ("q", 16), ("q", 168))
    if start[end : end + 1] in (b"", b"\0"):
        return end
    for order in "<>":
        first: float = struct.unpack_from(f"{order}{offset[0]}", start, offset[1])[0]
        if 0 <= struct.unpack_from(f"{order}{rank[0]}", start, rank[1])[0] <= 7 and end <= first:
            if first > LARGEST_EXTENSIONS:
                raise NotLoadable(f"its voxels begin at byte {first:.0f}, behind {LARGEST_EXTENSIONS} bytes and more")
            return int(first)
    return end


def nifti_header(start: bytes) -> Header | None:
    """Read a NIfTI header. Return None if there is none.

    Args:
        start: the first bytes of the file, inflated: as many as `end_of_extensions` says.

    Raises:
        NotLoadable: there is a header, and nibabel cannot load an image with it.
    """
    version = nifti_version(start)
    if version is None:
        return None
    size = _usual(start, version)
    return Header(version, size if size is not None else layout(io.BytesIO(start)).size)


def _usual(start: bytes, version: Literal[1, 2]) -> int | None:
    """Return the least bytes of a file with this header, or None if the header is out of the ordinary in any way."""
    for order in "<>":
        sizeof = struct.unpack_from(f"{order}i", start)[0]
        if version == 1:
            dimensions = struct.unpack_from(f"{order}8h", start, 40)
            datatype = struct.unpack_from(f"{order}h", start, 70)[0]
            offset, slope, intercept = struct.unpack_from(f"{order}3f", start, 108)
            qform, sform = struct.unpack_from(f"{order}2h", start, 252)
            right, extended, first = sizeof == 348, start[348:349], 352
        else:
            datatype = struct.unpack_from(f"{order}h", start, 12)[0]
            dimensions = struct.unpack_from(f"{order}8q", start, 16)
            offset, slope, intercept = struct.unpack_from(f"{order}q2d", start, 168)
            qform, sform = struct.unpack_from(f"{order}2i", start, 344)
            right, extended, first = sizeof == 540 and start[8:12] == b"\r\n\x1a\n", start[540:541], 544
        rank = dimensions[0]
        if not (right and 1 <= rank <= 7 and datatype in _BYTES):
            continue
        shape = dimensions[1 : rank + 1]
        plain = min(shape) >= 0 and extended in (b"", b"\0")
        oriented = (
            1 <= sform <= 5 or sform == qform == 0
        )  # a quaternion may be none, and nibabel takes other codes for 0
        placed = first <= offset < math.inf and oriented
        scaled = slope == 0 or not math.isfinite(slope) or math.isfinite(intercept)
        if plain and placed and scaled:
            return int(offset) + int(prod(shape)) * _BYTES[datatype]
    return None


def layout(stream: BinaryIO) -> Layout:
    """Let nibabel read a header, and return where the voxels are.

    Args:
        stream: the inflated file, from its beginning.

    Raises:
        NotLoadable: nibabel cannot load an image with this header, or there is none.
        OSError, EOFError, zlib.error, DamagedStream: the stream cannot be read.
    """
    start = stream.read(HEADER_SIZE)
    version = nifti_version(start)
    if version is None:
        raise NotLoadable("it has no NIfTI header")
    start += stream.read(max(0, end_of_extensions(start) - len(start)))
    try:
        return _by_nibabel(start, version)
    except Exception as error:
        raise NotLoadable(str(error) or type(error).__name__) from error


def _by_nibabel(start: bytes, version: Literal[1, 2]) -> Layout:
    header = (Nifti1Header if version == 1 else Nifti2Header).from_fileobj(io.BytesIO(start), check=False)
    header.check_fix(logger=_SILENT)
    header.get_best_affine()
    shape, dtype, offset = tuple(map(int, header.get_data_shape())), header.get_data_dtype(), header.get_data_offset()
    if not 1 <= int(header["dim"][0]) <= 7 or min(shape) < 0 or offset < 0:
        raise NotLoadable(f"its dimensions are {shape}, and its voxels begin at byte {offset}")
    slope, intercept = header.get_slope_inter()
    scaling = (1.0 if slope is None else slope, 0.0 if intercept is None else intercept)
    np.asanyarray(ArrayProxy(io.BytesIO(bytes(dtype.itemsize)), ((1,), dtype, 0, *scaling), mmap=False))
    return Layout(version, header, shape, dtype, int(offset))


def inflated(zipped: BinaryIO) -> BinaryIO:
    """Return the stream inside a gzip file. Reading it to its end compares the CRC and size of every member."""
    return cast(BinaryIO, igzip.IGzipFile(fileobj=zipped))  # type: ignore[no-untyped-call]


def inflated_start(data: bytes, size: int) -> bytes:
    """Return the first bytes of the content of a gzip stream.

    Args:
        data: the beginning of the gzip stream.
        size: how many inflated bytes to return; fewer come back if `data` ends before.

    Raises:
        zlib.error: the stream is damaged.
    """
    start = b""
    while data.startswith(GZIP_MAGIC) and len(start) < size:
        member = zlib.decompressobj(zlib.MAX_WBITS | 16)
        start += member.decompress(data, size - len(start))
        data = member.unused_data
    return start


class Inflation:
    """A gzip stream that is inflated only to count its bytes. The CRC and size of every member are compared on the way.

    Source: RFC 1952: a stream has one or more members. Zeros may follow the last one.
    """

    def __init__(self) -> None:
        self._member: igzip_lib.IgzipDecompressor | None = None
        self.size = 0

    @property
    def complete(self) -> bool:
        """Whether the bytes fed so far end at the end of a member."""
        return self._member is None

    def feed(self, data: memoryview | bytes) -> None:
        """Inflate the next bytes of the stream.

        Raises:
            DamagedStream: the stream is damaged.
        """
        while len(data):
            if self._member is None:
                data = bytes(data).lstrip(b"\0")
                if not data:
                    return
                if not GZIP_MAGIC.startswith(data[:2]):
                    raise DamagedStream("something else follows its end")
                self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self.size += len(self._member.decompress(data, INFLATED_STEP))
            while not self._member.eof and not self._member.needs_input:
                self.size += len(self._member.decompress(b"", INFLATED_STEP))
            if not self._member.eof:
                return
            data, self._member = self._member.unused_data, None
