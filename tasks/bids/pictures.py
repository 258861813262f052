"""Slices for people: of the images that the Hub sent back, at the gate; of an image of each kind, on the card.

One axial mid-slice an image, grey, contrast between the 1st and 99th percentile, turned so that anterior is up, with
square pixels. At the gate all slices stand side by side in one low and wide strip, because Prefect's older UI crops a
tall picture and the newer one pushes the form's fields below the fold. What goes on a card is public: the slice is
axial by the image's affine, never by the order of its axes, since a sagittal slice shows a profile.

An image that cannot be drawn, for whatever reason, is an image without a picture: whether it is sound is asked
elsewhere.
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
HEIGHT = 96  # pixels; looked at in both UIs: whole in the older one, and the newer one shows the fields below it
GAP = 4  # pixels between slices
LABEL = 14  # pixels for the suffix above a slice, where no UI crops it
LARGEST_DRAWN = 1 << 28  # voxels of what is read for a picture, 2 GB as floats: a header may speak of any number
CARD_HEIGHT = 200  # pixels of a slice on the card: four stand side by side, and its PNG has at most 120 kB


def middle_slice(stream: BinaryIO, path: str, suffix: str) -> Slice | None:
    """The middle axial slice of an image's first volume; for a mask, the one that shows most of it.

    None where there is no such slice, or where it cannot be drawn.

    Args:
        stream: the inflated NIfTI file, from its beginning.
        path: the image's path in the dataset, for the caption.
        suffix: the BIDS suffix, for the label.
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
    """nibabel's header, and the voxels where they can be drawn in grey: in three dimensions or more, and real."""
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
    """The slice with the most voxels that are not zero, the first of several."""
    planes = (_plane(voxels, z, first) for z in range(voxels.shape[2]))
    return max(planes, key=np.count_nonzero)


def axial_slice(file: Path, suffix: str) -> bytes | None:
    """The PNG of the middle axial slice of a NIfTI file's first volume; for a mask, of the slice that shows most of it.

    None where there is no such slice, where the header does not say which way the axes run, or where it cannot be drawn
    or read.
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
    directions = nibabel.io_orientation(header.get_best_affine())  # of each axis: which of right, front and up, and how
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
    """A slice, axes to the right and to the front, as a grey PNG with square pixels."""
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
    """A voxel's size in mm; 1 where the header has none that could be one."""
    size = abs(float(zoom))
    return size if 1e-6 < size < math.inf else 1.0


def strip(slices: Sequence[Slice]) -> str:
    """The slices side by side, labelled, as a `data:` URI of a PNG; empty where there are none."""
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
