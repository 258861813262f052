"""Slices for people: of the images that the Hub sent back, at the gate; of an image of each kind, on the card.

One axial mid-slice an image, grey, contrast between the 1st and 99th percentile, turned so that anterior is up, with
square pixels. At the gate all slices stand side by side in one low and wide strip, because Prefect's older UI crops a
tall picture and the newer one pushes the form's fields below the fold. What goes on a card is public: the slice is
axial by the image's affine, never by the order of its axes, since a sagittal slice shows a profile.
"""

import base64
import io
from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
from PIL import Image as Picture
from PIL import ImageDraw

from tasks.evidence import Slice

MAX_SLICES = 5  # slices in the strip: more would be too small to see
HEIGHT = 96  # pixels; looked at in both UIs: whole in the older one, and the newer one shows the fields below it
GAP = 4  # pixels between slices
LABEL = 14  # pixels for the suffix above a slice, where no UI crops it
CARD_HEIGHT = 200  # pixels of a slice on the card: four stand side by side, and its PNG has at most 120 kB


def middle_slice(volume: npt.NDArray[np.generic], path: str, suffix: str, zooms: Sequence[float]) -> Slice | None:
    """The middle axial slice of a 3-D volume; for a mask, the one that shows most of it. None for what has no slices.

    Args:
        volume: voxels, shape (x, y, z).
        path: the image's path in the dataset, for the caption.
        suffix: the BIDS suffix, for the label.
        zooms: voxel sizes in mm, at least (x, y).
    """
    if volume.ndim != 3 or 0 in volume.shape or volume.dtype.kind not in "biuf":
        return None
    z = int(np.argmax(np.count_nonzero(volume, axis=(0, 1)))) if suffix == "mask" else volume.shape[2] // 2
    png = _png(volume[:, :, z], zooms, HEIGHT - LABEL)
    return Slice(path=path, suffix=suffix, png=png)


def axial_slice(file: Path, suffix: str) -> bytes | None:
    """The PNG of the middle axial slice of a NIfTI file's first volume; for a mask, of the slice that shows most of it.

    None where there is no such slice, or where the header does not say which way the axes run.

    Raises:
        OSError, ValueError, EOFError, ImageFileError, zlib.error: the file cannot be read.
    """
    image = nibabel.Nifti1Image.from_filename(file) if _is_nifti1(file) else nibabel.Nifti2Image.from_filename(file)
    header = image.header
    known = header["qform_code"] > 0 or header["sform_code"] > 0
    directions = nibabel.io_orientation(image.affine)  # of each axis: along which of right, front and up, which way
    if image.ndim < 3 or 0 in image.shape or not known or np.isnan(directions).any():
        return None
    if image.get_data_dtype().kind not in "biuf":
        return None
    axes = [int(np.flatnonzero(directions[:, 0] == direction)[0]) for direction in range(3)]
    first = (0,) * (image.ndim - 3)
    up = axes[2]
    if suffix == "mask":
        filled = np.count_nonzero(np.asanyarray(image.dataobj[(..., *first)]), axis=(axes[0], axes[1]))
        middle = int(np.argmax(filled))
    else:
        middle = image.shape[up] // 2
    index: list[slice | int] = [slice(None)] * 3
    index[up] = middle
    plane = np.asanyarray(image.dataobj[(*index, *first)])
    plane = plane if axes[0] < axes[1] else plane.T
    plane = plane[:: int(directions[axes[0], 1]), :: int(directions[axes[1], 1])]
    zooms = header.get_zooms()
    return _png(plane, (zooms[axes[0]], zooms[axes[1]]), CARD_HEIGHT)


def _is_nifti1(file: Path) -> bool:
    return bool(nibabel.Nifti1Image.path_maybe_image(file)[0])


def _png(across_and_front: npt.NDArray[np.generic], zooms: Sequence[float], height: int) -> bytes:
    """A slice, axes to the right and to the front, as a grey PNG with square pixels."""
    plane: npt.NDArray[np.float32] = np.nan_to_num(np.rot90(across_and_front).astype(np.float32))
    low, high = np.percentile(plane, [1, 99])
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    grey = np.clip((plane - low) / ((high - low) or 1.0) * 255, 0, 255).astype(np.uint8)
    across, down = (float(zoom) or 1.0 for zoom in zooms[:2])
    width = max(1, round(height * (plane.shape[1] * across) / (plane.shape[0] * down)))
    picture = Picture.fromarray(grey).resize((min(width, 3 * height), height), Picture.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return buffer.getvalue()


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
