"""Writes the header of a NIfTI-1 file: 348 bytes, little-endian, and the 4 bytes that say that no extension follows.

Fields and codes: https://nifti.nimh.nih.gov/pub/dist/src/niftilib/nifti1.h. qform and sform say the same: scanner
coordinates in mm, axes to the right, to the front and up, the middle of the grid at the origin.
"""

import struct

DATA_OFFSET = 352
INT16, UINT8 = (4, 16), (2, 8)  # datatype code, bits per voxel
_MM_AND_SECONDS = 2 | 8
_SCANNER = 1


def header(
    shape: tuple[int, int, int],
    voxel_mm: tuple[float, float, float],
    *,
    volumes: int | None = None,
    seconds: float = 0.0,
    datatype: tuple[int, int] = INT16,
) -> bytes:
    """Gives the 352 bytes before the voxels. `volumes` makes it 4-D, `seconds` is the time from one to the next."""
    dim = (3, *shape, 1, 1, 1, 1) if volumes is None else (4, *shape, volumes, 1, 1, 1)
    pixdim = (1.0, *voxel_mm, seconds if volumes is not None else 0.0, 0.0, 0.0, 0.0)
    origin = tuple(-(count - 1) / 2 * size for count, size in zip(shape, voxel_mm, strict=True))
    rows = [[0.0] * 3 + [origin[axis]] for axis in range(3)]
    for axis in range(3):
        rows[axis][axis] = voxel_mm[axis]
    return b"".join(
        [
            struct.pack("<i35xB", 348, 0),
            struct.pack("<8h", *dim),
            struct.pack("<3f4h", 0, 0, 0, 0, *datatype, 0),
            struct.pack("<8f", *pixdim),
            struct.pack("<3fhBB", DATA_OFFSET, 1, 0, 0, 0, _MM_AND_SECONDS),
            struct.pack("<4f2i", 0, 0, 0, 0, 0, 0),
            bytes(80 + 24),  # descrip and aux_file: nothing to tell
            struct.pack("<2h", _SCANNER, _SCANNER),
            struct.pack("<6f", 0, 0, 0, *origin),
            struct.pack("<12f", *(value for row in rows for value in row)),
            bytes(16),
            b"n+1\x00",
            bytes(4),
        ]
    )
