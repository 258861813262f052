"""Slices for people: at the gate, of images that the Hub sent back; on the card, of one image of each kind.

A picture is one axial mid-slice of an image: grey, with the contrast between the 1st and 99th percentile, anterior up,
and square pixels. At the gate all slices stand side by side in one low and wide strip, because Prefect's older UI crops
a tall picture, and the newer one then pushes the form's fields below the fold. What goes on a card is public. There the
slice is axial by the image's affine, and never by the order of its axes, because a sagittal slice shows a profile.

An image that cannot be drawn, for whatever reason, has no picture. Whether it is sound is checked elsewhere.
"""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO

import nibabel
import numpy as np
import numpy.typing as npt
from nibabel.arrayproxy import ArrayProxy
from PIL import Image as Picture
from PIL import ImageDraw

from tasks.bids.nifti import inflated, layout
from tasks.values.models import Slice

MAX_SLICES = 5  # slices in the strip: more would be too small to see
HEIGHT = 96  # pixels; tried in both UIs: the older one shows it whole, the newer one shows the fields below it
GAP = 4  # pixels between slices
LABEL = 14  # pixels for the suffix above a slice, where no UI crops it
LARGEST_DRAWN = 1 << 28  # voxels that are read for a picture, 2 GB as floats: a header may state any number
CARD_HEIGHT = 200  # pixels of a slice on the card: four stand side by side, and its PNG has at most 120 kB


def middle_slice(stream: BinaryIO, path: str, suffix: str) -> Slice | None:
    """Return the middle axial slice of an image's first volume; for a mask, the slice that shows most of it.

    Args:
        stream: the inflated NIfTI file, from its beginning.
        path: the image's path in the dataset, for the caption.
        suffix: the BIDS suffix, for the label.

    Returns:
        The slice, or None if there is no such slice or it cannot be drawn.
    """
    try:
        header, voxels = _voxels(stream)
        if voxels is None:
            return None
        first = (0,) * (voxels.ndim - 3)
        plane = _fullest(voxels, first) if suffix == "mask" else _plane(voxels, voxels.shape[2] // 2, first)
        return Slice(path=path, suffix=suffix, png=_png(plane, header.get_zooms(), HEIGHT - LABEL))
    except Exception:  # noqa: BLE001 - as the module says
        return None


def _voxels(stream: BinaryIO) -> tuple[Any, ArrayProxy | None]:
    """Return nibabel's header, and the voxels if they are real numbers in three or more dimensions, else None."""
    found = layout(stream)
    if len(found.shape) < 3 or 0 in found.shape or found.dtype.kind not in "biuf":
        return found.header, None
    if math.prod(sorted(found.shape[:3])[1:]) > LARGEST_DRAWN:
        return found.header, None
    return found.header, ArrayProxy(stream, found.header, mmap=False)


def _plane(voxels: ArrayProxy, z: int, first: tuple[int, ...]) -> npt.NDArray[np.generic]:
    plane: npt.NDArray[np.generic] = np.asanyarray(voxels[(slice(None), slice(None), z, *first)])
    return plane


def _fullest(voxels: ArrayProxy, first: tuple[int, ...]) -> npt.NDArray[np.generic]:
    """Return the slice with the most voxels that are not zero; the first of them if several have as many."""
    planes = (_plane(voxels, z, first) for z in range(voxels.shape[2]))
    return max(planes, key=np.count_nonzero)


def axial_slice(file: Path, suffix: str) -> bytes | None:
    """Return the middle axial slice of a NIfTI file's first volume as a PNG.

    For a mask it is the slice that shows most of the mask. None if there is no such slice, if the header does not say
    which way the axes run, or if it cannot be read or drawn.
    """
    try:
        with file.open("rb") as raw:
            return _axial(inflated(raw) if file.name.endswith(".gz") else raw, suffix)
    except Exception:  # noqa: BLE001 - as the module says
        return None


def _axial(stream: BinaryIO, suffix: str) -> bytes | None:
    header, voxels = _voxels(stream)
    known = header["qform_code"] > 0 or header["sform_code"] > 0
    if voxels is None or not known:
        return None
    directions = nibabel.io_orientation(header.get_best_affine())  # of each axis: right, front or up, and its sign
    if np.isnan(directions).any():
        return None
    axes = [int(np.flatnonzero(directions[:, 0] == direction)[0]) for direction in range(3)]
    first = (0,) * (voxels.ndim - 3)
    up = axes[2]
    if suffix == "mask" and math.prod(voxels.shape[:3]) > LARGEST_DRAWN:
        return None
    if suffix == "mask":
        filled = np.count_nonzero(np.asanyarray(voxels[(..., *first)]), axis=(axes[0], axes[1]))
        middle = int(np.argmax(filled))
    else:
        middle = voxels.shape[up] // 2
    index: list[slice | int] = [slice(None)] * 3
    index[up] = middle
    plane = np.asanyarray(voxels[(*index, *first)])
    plane = plane if axes[0] < axes[1] else plane.T
    plane = plane[:: int(directions[axes[0], 1]), :: int(directions[axes[1], 1])]
    zooms = header.get_zooms()
    return _png(plane, (zooms[axes[0]], zooms[axes[1]]), CARD_HEIGHT)


def _png(across_and_front: npt.NDArray[np.generic], zooms: Sequence[float], height: int) -> bytes:
    """Return a slice as a grey PNG with square pixels.

    Args:
        across_and_front: the slice; its first axis runs to the right, its second to the front.
        zooms: the size of a voxel along these axes, in mm.
        height: of the PNG, in pixels.
    """
    with np.errstate(all="ignore"):  # infinities, and numbers beyond 32 bits
        plane: npt.NDArray[np.float32] = np.nan_to_num(np.rot90(across_and_front).astype(np.float32))
        low, high = np.percentile(plane, [1, 99])
        if high <= low:
            low, high = float(plane.min()), float(plane.max())
        grey = np.nan_to_num(np.clip((plane - low) / ((high - low) or 1.0) * 255, 0, 255)).astype(np.uint8)
    across, down = map(_size_of_voxel, zooms[:2])
    width = max(1, round(min(3.0 * height, height * (plane.shape[1] * across) / (plane.shape[0] * down))))
    picture = Picture.fromarray(grey).resize((width, height), Picture.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


def _size_of_voxel(zoom: float) -> float:
    """Return a voxel's size in mm, or 1 if the header gives no possible size."""
    size = abs(float(zoom))
    return size if 1e-6 < size < math.inf else 1.0


def side_by_side(slices: Sequence[Slice]) -> str:
    """Return the labelled slices side by side, as a `data:` URI of a PNG; empty if there are none."""
    if not slices:
        return ""
    pictures = [Picture.open(io.BytesIO(shown.png)) for shown in slices]
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    sheet = Picture.new("L", (width, HEIGHT), 0)
    pen = ImageDraw.Draw(sheet)
    x = 0
    for picture, shown in zip(pictures, slices, strict=True):
        sheet.paste(picture, (x, LABEL))
        pen.text((x + picture.width // 2, LABEL // 2), shown.suffix, fill=255, anchor="mm")
        x += picture.width + GAP
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()
