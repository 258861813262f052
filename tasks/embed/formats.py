"""What an image's own bytes say of it: the NIfTI header and the gzip stream."""

import struct
import zlib
from math import prod
from typing import Literal, NamedTuple, cast

from isal import igzip_lib

GZIP_MAGIC = b"\x1f\x8b"  # RFC 1952, ID1 and ID2
INFLATED_STEP = 1 << 20  # bytes that a compressed step may become at once: a run of zeros grows a thousandfold

#: What isal raises; its type stubs call it a value.
DamagedStream = cast(type[Exception], igzip_lib.IsalError)


#: NIfTI datatype code -> bits a voxel (nifti1.h, DT_*; NIfTI-2 has the same). More telling than `bitpix`, which some
#: tools leave wrong and no reader looks at.
BITS = {
    2: 8, 4: 16, 8: 32, 16: 32, 32: 64, 64: 64, 128: 24, 256: 8, 512: 16, 768: 32, 1024: 64, 1280: 64, 1536: 128,
    1792: 128, 2048: 256, 2304: 32,
}  # fmt: skip


class Header(NamedTuple):
    """What a NIfTI header says: its version, 1 or 2, and the bytes that the file must have at least."""

    version: Literal[1, 2]
    size: int


def nifti_header(header: bytes) -> Header | None:
    """Read a NIfTI header; None where there is none.

    Source: nifti1.h and nifti2.h, the fields sizeof_hdr, magic, dim, datatype, bitpix and vox_offset, in either byte
    order. Only single files (`n+1`, `n+2`): BIDS has no others.
    """
    version: Literal[1, 2]
    for order in "<>":
        try:
            sizeof = struct.unpack_from(f"{order}i", header)[0]
            if sizeof == 348 and header[344:348] == b"n+1\0":
                dimensions = struct.unpack_from(f"{order}8h", header, 40)
                datatype, bits = struct.unpack_from(f"{order}2h", header, 70)
                offset = struct.unpack_from(f"{order}f", header, 108)[0]
                version, first = 1, 352
            elif sizeof == 540 and header[4:12] == b"n+2\0\r\n\x1a\n":
                dimensions = struct.unpack_from(f"{order}8q", header, 16)
                datatype, bits = struct.unpack_from(f"{order}2h", header, 12)
                offset = struct.unpack_from(f"{order}q", header, 168)[0]
                version, first = 2, 544
            else:
                continue
            rank = dimensions[0]
            if not 1 <= rank <= 7 or min(dimensions[1 : rank + 1]) < 0:
                return None
            voxels = prod(dimensions[1 : rank + 1])
            return Header(version, int(offset or first) + int(-(-voxels * BITS.get(datatype, bits) // 8)))
        except (struct.error, ValueError, OverflowError):
            continue
    return None


def inflated_start(data: bytes, size: int) -> bytes:
    """The first `size` bytes of what a gzip stream that begins with `data` holds, or fewer where `data` ends before.

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
                if not GZIP_MAGIC.startswith(data[:2]):
                    raise DamagedStream("something else follows its end")
                self._member = igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP)
            self.size += len(self._member.decompress(data, INFLATED_STEP))
            while not self._member.eof and not self._member.needs_input:
                self.size += len(self._member.decompress(b"", INFLATED_STEP))
            if not self._member.eof:
                return
            data, self._member = self._member.unused_data, None
