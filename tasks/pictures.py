"""Slices for the gate: what a person sees of the images that the Hub sent back.

One axial mid-slice an image, grey, contrast between the 1st and 99th percentile, turned so that anterior is up, with
square pixels; all slices stand side by side in one low and wide strip, because Prefect's older UI crops a tall picture
and the newer one pushes the form's fields below the fold.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from PIL import Image as Picture
from PIL import ImageDraw

from tasks.evidence import Slice

MAX_SLICES = 5  # slices in the strip: more would be too small to see
HEIGHT = 104  # pixels; looked at in both UIs: whole in the older one, and the newer one shows the fields below it
GAP = 4  # pixels between slices
LABEL = 14  # pixels for the suffix above a slice, where no UI crops it


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
    plane = np.nan_to_num(np.rot90(volume[:, :, z]).astype(np.float32))
    low, high = np.percentile(plane, [1, 99])
    if high <= low:
        low, high = float(plane.min()), float(plane.max())
    grey = np.clip((plane - low) / ((high - low) or 1.0) * 255, 0, 255).astype(np.uint8)
    across, down = (float(zoom) or 1.0 for zoom in zooms[:2])
    height = HEIGHT - LABEL
    width = max(1, round(height * (plane.shape[1] * across) / (plane.shape[0] * down)))
    picture = Picture.fromarray(grey).resize((min(width, 3 * height), height), Picture.Resampling.BICUBIC)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    return Slice(path=path, suffix=suffix, png=buffer.getvalue())


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
