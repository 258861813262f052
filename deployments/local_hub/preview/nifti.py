"""One slice of a NIfTI image as a picture: the middle one from below to above, in grey, anterior up.

Only the header and the bytes up to the slice are read, and what is passed over is not kept.
Source: nifti1.h and nifti2.h (NIfTI-1 and NIfTI-2), and RFC 1952 (gzip).
"""

from __future__ import annotations

import math
import struct
import sys
import zlib
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from deployments.local_hub.preview.budget import Budget, NotShownError, Source, as_not_shown

PLANE_LIMIT = 16 * 1024 * 1024  # bytes of one slice as it is stored
SIDE = 320  # pixels of the picture's longer side, at most
SHOWN = 240  # the same on the page
BLOCK = 256 * 1024  # bytes read in one go
SAMPLE = 20_000  # voxels that the contrast is chosen by
CONTRAST = (0.01, 0.99)  # of the voxels: what is black, and what is white
STRETCH = 4.0  # how much longer a voxel's side may be than its other one

# NIfTI's datatype: the array's type code
TYPES = {2: "B", 4: "h", 8: "i", 16: "f", 64: "d", 256: "b", 512: "H", 768: "I", 1024: "q", 1280: "Q"}

Plane = Sequence[Sequence[float]]
Matrix = Sequence[Sequence[float]]


@dataclass(frozen=True)
class Picture:
    """A PNG, and the pixels that it should have on the page: voxels need not be squares."""

    png: bytes
    width: int
    height: int


@dataclass(frozen=True)
class Header:
    """What is needed of a header: `size` its bytes, `order` "<" or ">", `offset` where the voxels begin, `zooms` the
    sizes of a voxel, `rotation` the directions of its axes, a column each.
    """

    size: int
    order: str
    shape: tuple[int, int, int]
    code: str
    offset: int
    zooms: tuple[float, float, float]
    rotation: Matrix
    falling: bool
    """Whether larger numbers in the file mean smaller values."""

    @property
    def item(self) -> int:
        """Bytes of a voxel."""
        return array(self.code).itemsize


def middle_slice(source: Source, start: int, stop: int) -> Picture:
    """The picture of the NIfTI image that has the bytes from `start` to `stop`. NotShownError where there is none."""
    with as_not_shown():
        stream = _stream(source, start, stop)
        header = _header(stream)
        across, up, axis = _axes(header.rotation)
        plane = _plane(stream, header, axis)
        if across > up:
            plane = list(zip(*plane, strict=True))  # its rows go along `up` from here on
        flips = (header.rotation[0][across] < 0, header.rotation[1][up] > 0)
        return _draw(plane, header, (header.zooms[across], header.zooms[up]), flips)


# the bytes


class _Plain:
    """A file that is not compressed."""

    def __init__(self, source: Source, start: int, stop: int):
        self._source, self._position, self._stop = source, start, stop

    def read(self, size: int) -> bytes:
        """The next bytes, all of them."""
        if self._position + size > self._stop:
            raise NotShownError("the image ends early")
        self._position += size
        return self._source.read(self._position - size, self._position)

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        self._position += size


class _Inflated:
    """A gzip file, which may have several parts; no more of it is inflated than is asked for."""

    def __init__(self, source: Source, start: int, stop: int):
        self._raw = _Plain(source, start, stop)
        self._left = stop - start
        self._budget: Budget = source.budget
        self._inflater = zlib.decompressobj(31)
        self._waiting = b""

    def read(self, size: int) -> bytes:
        """The next bytes, all of them."""
        found = bytearray()
        while len(found) < size:
            found += self._next(size - len(found))
        return bytes(found)

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        while size > 0:
            size -= len(self._next(min(size, BLOCK)))

    def _next(self, most: int) -> bytes:
        """At least one byte, and at most so many."""
        while True:
            if self._inflater.eof:
                self._waiting = self._inflater.unused_data
                self._inflater = zlib.decompressobj(31)
            if not self._waiting:
                if not self._left:
                    raise NotShownError("the image ends early")
                some = min(BLOCK, self._left)
                self._waiting = self._raw.read(some)
                self._left -= some
            piece = self._inflater.decompress(self._waiting, most)
            self._waiting = self._inflater.unconsumed_tail
            self._budget.pay(inflated=len(piece))
            if piece:
                return piece


_Stream = _Plain | _Inflated


def _stream(source: Source, start: int, stop: int) -> _Stream:
    packed = source.read(start, min(start + 2, stop)) == b"\x1f\x8b"
    return _Inflated(source, start, stop) if packed else _Plain(source, start, stop)


# the header


def _header(stream: _Stream) -> Header:
    first = stream.read(4)
    for order in "<>":
        (size,) = struct.unpack(f"{order}i", first)
        if size in (348, 540):
            return (_nifti1 if size == 348 else _nifti2)(first + stream.read(size - 4), order)
    raise NotShownError("it is no NIfTI image")


def _nifti1(data: bytes, order: str) -> Header:
    if data[344:347] != b"n+1":
        raise NotShownError("it is no NIfTI image in one file")
    get = _getter(data, order)
    sform = [get("4f", 280), get("4f", 296), get("4f", 312)] if get("h", 254)[0] > 0 else None
    quaternion = get("3f", 256) if get("h", 252)[0] > 0 else None
    return _checked(
        order, get("8h", 40), get("h", 70)[0], get("f", 108)[0], get("8f", 76), sform, quaternion, get("f", 112)[0], 348
    )


def _nifti2(data: bytes, order: str) -> Header:
    if data[4:7] != b"n+2":
        raise NotShownError("it is no NIfTI image in one file")
    get = _getter(data, order)
    sform = [get("4d", 400), get("4d", 432), get("4d", 464)] if get("i", 348)[0] > 0 else None
    quaternion = get("3d", 352) if get("i", 344)[0] > 0 else None
    return _checked(
        order, get("8q", 16), get("h", 12)[0], get("q", 168)[0], get("8d", 104), sform, quaternion, get("d", 176)[0],
        540,
    )  # fmt: skip


def _getter(data: bytes, order: str) -> Callable[[str, int], tuple[Any, ...]]:
    return lambda layout, offset: struct.unpack_from(order + layout, data, offset)


def _checked(
    order: str, dim: Sequence[int], datatype: int, offset: float, pixdim: Sequence[float], sform: Matrix | None,
    quaternion: Sequence[float] | None, slope: float, size: int,
) -> Header:  # fmt: skip
    if not 2 <= dim[0] <= 7 or any(length < 1 for length in dim[1 : dim[0] + 1]):
        raise NotShownError("its header has no dimensions of an image")
    shape = (dim[1], dim[2], dim[3] if dim[0] > 2 else 1)
    if datatype not in TYPES:
        raise NotShownError("its voxels are no plain numbers")
    code = TYPES[datatype]
    if not math.isfinite(offset) or not size <= offset <= 2**40:
        raise NotShownError("its header says nothing of where its voxels are")
    zooms = [abs(zoom) if math.isfinite(zoom) and zoom else 1.0 for zoom in pixdim[1:4]]
    rotation = _usable(sform) or _usable(_from_quaternion(quaternion, pixdim[0])) or _usable(_IDENTITY)
    assert rotation is not None
    falling = math.isfinite(slope) and slope < 0
    return Header(size, order, shape, code, int(offset), (zooms[0], zooms[1], zooms[2]), rotation, falling)


_IDENTITY: Matrix = ((1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0))


def _usable(matrix: Matrix | None) -> Matrix | None:
    """The matrix, each column of length one; None where it tells no directions."""
    if matrix is None or not all(math.isfinite(each) for row in matrix for each in row):
        return None
    lengths = [math.hypot(*(row[column] for row in matrix)) for column in range(3)]
    if not all(0 < length < math.inf for length in lengths):
        return None
    return [[row[column] / lengths[column] for column in range(3)] for row in matrix]


def _from_quaternion(quaternion: Sequence[float] | None, handed: float) -> Matrix | None:
    if quaternion is None or not all(math.isfinite(each) and abs(each) <= 1.01 for each in quaternion):
        return None
    b, c, d = quaternion
    a = math.sqrt(max(1.0 - b * b - c * c - d * d, 0.0))
    last = -1.0 if handed < 0 else 1.0
    return (
        (a * a + b * b - c * c - d * d, 2 * (b * c - a * d), last * 2 * (b * d + a * c)),
        (2 * (b * c + a * d), a * a + c * c - b * b - d * d, last * 2 * (c * d - a * b)),
        (2 * (b * d - a * c), 2 * (c * d + a * b), last * (a * a + d * d - b * b - c * c)),
    )


def _axes(rotation: Matrix) -> tuple[int, int, int]:
    """The voxels' axes that go most from left to right, from back to front, and from below to above."""
    above = max(range(3), key=lambda axis: abs(rotation[2][axis]))
    front = max((axis for axis in range(3) if axis != above), key=lambda axis: abs(rotation[1][axis]))
    return 3 - above - front, front, above


# the slice


def _plane(stream: _Stream, header: Header, axis: int) -> Plane:
    """The voxels of the middle slice across an axis, in rows along the first of the other two axes."""
    nx, ny, nz = header.shape
    item = header.item
    if max(nx * ny, nx * nz, ny * nz) * item > PLANE_LIMIT:
        raise NotShownError("it is too large to be shown here")
    middle = header.shape[axis] // 2
    step = -(-max(header.shape[other] for other in range(3) if other != axis) // SIDE)
    stream.skip(header.offset - header.size)
    if axis == 2:
        stream.skip(nx * ny * item * middle)
        whole = _voxels(stream.read(nx * ny * item), header)
        return [whole[row * nx : row * nx + nx : step] for row in range(0, ny, step)]
    rows: list[Sequence[float]] = []
    for number in range(nz):
        if number % step:
            stream.skip(nx * ny * item)
        elif axis == 1:
            stream.skip(nx * item * middle)
            rows.append(_voxels(stream.read(nx * item), header)[::step])
            stream.skip(nx * item * (ny - middle - 1))
        else:
            rows.append(_voxels(stream.read(nx * ny * item), header)[middle :: nx * step])
    return rows


def _voxels(data: bytes, header: Header) -> array[float]:
    found: array[float] = array(header.code, data)
    if (header.order == "<") != (sys.byteorder == "little"):
        found.byteswap()
    return found


def _draw(plane: Plane, header: Header, zooms: tuple[float, float], flips: tuple[bool, bool]) -> Picture:
    """The picture of a slice; `zooms` are the sizes of a voxel, `flips` whether to mirror it, across and up."""
    low, high = _contrast(plane)
    scale = 255.0 / (high - low)
    grey = [bytes(_grey(value, low, scale) for value in row) for row in plane]
    if header.falling:
        grey = [bytes(255 - value for value in row) for row in grey]
    if flips[0]:
        grey = [row[::-1] for row in grey]
    if flips[1]:
        grey = grey[::-1]
    return Picture(png(grey), *_on_the_page(len(grey[0]) * zooms[0], len(grey) * zooms[1]))


def _contrast(plane: Plane) -> tuple[float, float]:
    voxels = len(plane) * len(plane[0])
    every = -(-voxels // SAMPLE)
    sample = sorted(
        value for value in islice((value for row in plane for value in row), 0, None, every) if math.isfinite(value)
    )
    if not sample:
        return 0.0, 1.0
    low, high = (float(sample[int(share * (len(sample) - 1))]) for share in CONTRAST)
    if high <= low:
        low, high = float(sample[0]), float(sample[-1])
    return (low, high) if low < high and math.isfinite(high - low) else (low, low + 1.0)


def _grey(value: float, low: float, scale: float) -> int:
    level = (value - low) * scale
    return 0 if not level > 0 else 255 if level > 255 else int(level)


def _on_the_page(width: float, height: float) -> tuple[int, int]:
    ratio = min(max(width / height, 1 / STRETCH), STRETCH) if width > 0 and math.isfinite(width / height) else 1.0
    return (SHOWN, max(round(SHOWN / ratio), 1)) if ratio >= 1 else (max(round(SHOWN * ratio), 1), SHOWN)


def png(rows: Sequence[bytes]) -> bytes:
    """A grey PNG of rows of pixels, from above to below (RFC 2083)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", len(rows[0]), len(rows), 8, 0, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")
