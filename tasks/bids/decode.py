"""Decodes one image from its first byte to its last, as a reader of the published dataset would.

The bytes are those that the Hub sent back. nibabel reads the header (NIfTI-1 or -2, in either byte order) and every
voxel of every volume. Then the stream is read to its end, so that the CRC and size of each gzip member are compared
even where no reader looks. Voxels are read some millions at a time and in their own datatype, so memory does not grow
with the image. One exception says in a sentence what is wrong.
"""

import gzip
import zlib
from typing import BinaryIO

import pyarrow as pa
from nibabel.arrayproxy import ArrayProxy

from tasks.bids.nifti import GZIP_MAGIC, DamagedStream, NotLoadable, inflated, layout
from tasks.bids.pictures import middle_slice
from tasks.values.models import Slice

SLAB = 2 << 20  # voxels that are read at a time: 32 MB of the largest datatype
STEP = 1 << 20  # bytes that are read at a time after the voxels


class Undecodable(ValueError):
    """An image cannot be read to its end. The text gives the reason, worded to follow the image's name."""


def decode(data: pa.Buffer) -> None:
    """Read an image to its end.

    Args:
        data: the bytes of a .nii or .nii.gz file.

    Raises:
        Undecodable: it cannot be read, or something in it is damaged.
    """
    try:
        with _opened(data) as stream:
            _read(stream)
    except NotLoadable as error:
        raise Undecodable(f"nibabel cannot load it: {error}") from error
    except EOFError as error:
        raise Undecodable("its gzip stream breaks off") from error
    except (gzip.BadGzipFile, zlib.error, DamagedStream) as error:
        raise Undecodable(f"its gzip stream is damaged: {error}") from error
    except MemoryError:
        raise
    except Exception as error:
        raise Undecodable(f"it cannot be read to its end: {error or type(error).__name__}") from error


def _read(stream: BinaryIO) -> None:
    found = layout(stream)
    flat = ArrayProxy(stream, ((found.voxels,), found.dtype, found.offset), mmap=False)
    for first in range(0, found.voxels, SLAB):
        flat[first : first + SLAB]
    while stream.read(STEP):
        pass


def _opened(data: pa.Buffer) -> BinaryIO:
    """Return the inflated bytes of an image as a stream."""
    raw = pa.BufferReader(data)
    return inflated(raw) if data[:2].to_pybytes() == GZIP_MAGIC else raw


def picture(path: str, suffix: str, data: pa.Buffer) -> Slice | None:
    """Return the middle slice of an image that `decode` has read, to show to a person; None if it cannot be drawn.

    Args:
        path: the image's path in the dataset.
        suffix: its BIDS suffix.
        data: the bytes of a .nii or .nii.gz file.
    """
    with _opened(data) as stream:
        return middle_slice(stream, path, suffix)
