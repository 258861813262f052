"""Makes one image: paints the subject's head in the image's contrasts, adds noise, compresses.

A series repeats a few pictures (the shells of a diffusion series; rest and task of a functional run) with fresh noise
in each volume. The noise is drawn from Philox, keyed by a hash of the image's path: numpy promises that its raw stream
never changes. How often each byte value will occur is computed from the pictures and the noise's distribution, so the
code is known before the first volume is made, and one volume at a time is in memory.
"""

import hashlib
from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from deployments.demo_data import nifti, phantom
from deployments.demo_data.deflate import GzipEncoder
from deployments.demo_data.sizes import Layout

# Grey values are 0 to 250 or, deep, 0 to 4000, with noise of some of their lowest bits: (factor, in a head, in air).
# A small series has 64 levels only: the bits that this saves are voxels.
SHALLOW_SERIES = (0.25, 1, 0)
SHALLOW = (1.0, 7, 0)
DEEP = (16.0, 255, 63)
# voxels made at once (128 kB): what is computed on the way stays in a core's cache
PIECE_VOXELS = 1 << 16
TASK_VOLUMES = 3  # rest and task take turns in blocks of so many volumes
ANATOMY = {"T1w": phantom.T1W, "T2w": phantom.T2W, "FLAIR": phantom.FLAIR, "sbref": phantom.B0}


def render(layout: Layout, b_values: Sequence[float] = ()) -> Iterator[bytes]:
    """Gives the bytes of the .nii.gz, in pieces."""
    head = phantom.head_of(layout.image.subject)
    mask = layout.image.suffix == "mask"
    start = nifti.header(
        layout.grid.shape,
        layout.grid.voxel_mm,
        volumes=layout.volumes,
        seconds=layout.seconds,
        datatype=nifti.UINT8 if mask else nifti.INT16,
    )
    prefix = np.frombuffer(start, np.uint8)
    if mask:
        voxels = phantom.paint(head, layout.grid, [phantom.T2W]).lesion.astype(np.uint8).reshape(-1)
        encoder = GzipEncoder(np.bincount(voxels, minlength=256).astype(np.int64))
        volumes: Iterator[npt.NDArray[np.uint8]] = iter([voxels])
    else:
        contrasts, turns = _contrasts(layout, b_values)
        factor, in_head, in_air = DEEP if layout.deep else SHALLOW_SERIES if layout.volumes else SHALLOW
        picture = phantom.paint(head, layout.grid, contrasts)
        bases = [(signal * np.float32(factor)).astype("<i2").reshape(-1) for signal in picture.signals]
        grain = np.where(picture.head, np.uint8(in_head), np.uint8(in_air)).reshape(-1)
        encoder = GzipEncoder(_byte_counts(bases, [turns.count(index) for index in range(len(bases))], grain))
        volumes = _noisy(bases, turns, grain, layout.image.path)
    yield from encoder.feed(prefix)
    for volume in volumes:
        yield from encoder.feed(volume)
    yield encoder.finish()


def _contrasts(layout: Layout, b_values: Sequence[float]) -> tuple[list[phantom.Contrast], list[int]]:
    """Gives the contrasts that a series shows, and which of them each volume has."""
    suffix = layout.image.suffix
    if suffix == "bold":
        blocks = [volume // TASK_VOLUMES % 2 for volume in range(layout.volumes or 1)]
        task = phantom.BOLD_REST if "_task-rest_" in layout.image.path else phantom.BOLD_TASK
        return [phantom.BOLD_REST, task], blocks
    if suffix == "dwi":
        shells = sorted(set(b_values))
        return [phantom.diffusion(b) for b in shells], [shells.index(b) for b in b_values]
    return [ANATOMY[suffix]], [0]


def _noisy(
    bases: Sequence[npt.NDArray[np.int16]], turns: Sequence[int], grain: npt.NDArray[np.uint8], path: str
) -> Iterator[npt.NDArray[np.uint8]]:
    key = int.from_bytes(hashlib.sha256(f"noise {path}".encode()).digest()[:16], "little")
    stream = np.random.Philox(key=key)
    for turn in turns:
        for start in range(0, grain.size, PIECE_VOXELS):
            piece = grain[start : start + PIECE_VOXELS]
            raw = np.asarray(stream.random_raw((piece.size + 7) // 8), np.uint64).astype("<u8", copy=False)
            noise = raw.view(np.uint8)[: piece.size] & piece
            yield (bases[turn][start : start + PIECE_VOXELS] + noise).astype("<i2", copy=False).view(np.uint8)


def _byte_counts(
    bases: Sequence[npt.NDArray[np.int16]], volumes: Sequence[int], grain: npt.NDArray[np.uint8]
) -> npt.NDArray[np.int64]:
    """Gives how often each byte value is to be expected, shape (256,), to a common factor.

    A voxel's noise is any number from 0 to its grain (one less than a power of two), all equally likely.
    """
    most = int(grain.max()) + 1
    counts = np.zeros(1 << 16, np.int64)
    for level in np.unique(grain):
        span = int(level) + 1
        chosen = grain == level
        for base, times in zip(bases, volumes, strict=True):
            found = np.bincount(base[chosen], minlength=1 << 12).astype(np.int64) * (times * (most // span))
            reach = np.cumsum(np.concatenate([found, np.zeros(span, np.int64)]))
            reach[span:] -= reach[:-span].copy()
            counts[: reach.size] += reach
    by_high = counts.reshape(256, 256)
    expected: npt.NDArray[np.int64] = by_high.sum(axis=0) + by_high.sum(axis=1)
    return expected
