"""Computes heads: scalp, skull, folded cortex, white matter, deep nuclei, ventricles and the scar of a stroke.

A `Head` is drawn from the subject's name, so every image of a subject shows the same anatomy. `paint` lays its
structures over each other, from the outside in, on any grid, in as many contrasts at once as are asked for (the shells
of a diffusion series, task and rest of a functional one). Edges are blurred by about a voxel, as a scanner would.

The same numbers on every machine: only + - * / sqrt and floor in single precision, which IEEE 754 rounds exactly;
no exp, sin or pow, whose last bit depends on the library, and no float sums, whose order depends on the processor.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float32]

FIELD_OF_VIEW_MM = (160.0, 200.0, 184.0)  # right to left, back to front, bottom to top
SCALP_MM = (75.0, 94.0, 88.0)  # half axes of the largest head


class Contrast(NamedTuple):
    """The signal of each tissue, 0 to 255."""

    scalp: float
    skull: float
    fluid: float
    grey: float
    white: float
    lesion: float
    active: float = 0.0  # added where the task activates the cortex


T1W = Contrast(200, 22, 30, 112, 178, 48)
T2W = Contrast(128, 18, 238, 128, 84, 222)
FLAIR = Contrast(118, 18, 26, 140, 104, 234)
BOLD_REST = Contrast(36, 12, 214, 158, 122, 186)
BOLD_TASK = BOLD_REST._replace(active=44)
B0 = Contrast(38, 10, 244, 148, 112, 200)
_DIFFUSIVITY = Contrast(0.3, 0.3, 3.0, 0.8, 0.62, 1.5)  # um^2/ms


def diffusion(b: float) -> Contrast:
    """Gives the contrast at a b-value in s/mm^2: B0, less what diffusion takes.

    (1 + bD/4)^-4 stands for exp(-bD): as monotonic, and exact everywhere.
    """

    def left(diffusivity: float) -> float:
        quarter = 1 + b / 1000 * diffusivity / 4
        return 1 / (quarter * quarter * quarter * quarter)

    return Contrast(*(signal * left(d) for signal, d in zip(B0[:6], _DIFFUSIVITY[:6], strict=True)))


@dataclass(frozen=True)
class Head:
    """One subject's anatomy; lengths in mm, x to the right, y to the front, z up, the origin between the ventricles."""

    size: tuple[float, float, float]  # of the head, relative to the largest
    tilt: float  # of the head about the vertical axis, the tangent of half the angle
    phases: tuple[float, float, float]  # of the folds
    atrophy: float  # widens ventricles and sulci, 1 is average
    left_ventricle: float  # its size relative to the right one
    lesion_centre: tuple[float, float, float]
    lesion_size: tuple[float, float, float]


@cache
def head_of(subject: str) -> Head:
    """Draws the anatomy of a subject from its name."""
    digest = hashlib.sha256(f"head {subject}".encode()).digest()
    draws = iter(digest)

    def between(low: float, high: float) -> float:
        return low + (high - low) * (next(draws) / 255)

    return Head(
        size=(between(0.9, 1.0), between(0.9, 1.0), between(0.93, 1.0)),
        tilt=between(-0.05, 0.05),
        phases=(between(0, 1), between(0, 1), between(0, 1)),
        atrophy=between(0.75, 1.35),
        left_ventricle=between(0.9, 1.35),  # the ventricle on the side of the scar is drawn towards it
        # left middle cerebral artery, at a height that the middle slice passes through
        lesion_centre=(between(-42, -32), between(-22, 26), between(-5, 6)),
        lesion_size=(between(11, 18), between(12, 30), between(14, 26)),
    )


@dataclass(frozen=True)
class Grid:
    """A regular grid about the origin: voxels along x, y, z and their size in mm."""

    shape: tuple[int, int, int]
    voxel_mm: tuple[float, float, float]

    @property
    def voxels(self) -> int:
        """The number of voxels of a volume."""
        return self.shape[0] * self.shape[1] * self.shape[2]

    def axes(self) -> tuple[Field, Field, Field]:
        """Gives x, y and z of the voxels' centres, shaped to broadcast to (z, y, x): the order of a NIfTI file."""
        x, y, z = (
            (np.arange(count, dtype=np.float32) - np.float32((count - 1) / 2)) * np.float32(size)
            for count, size in zip(self.shape, self.voxel_mm, strict=True)
        )
        return x[None, None, :], y[None, :, None], z[:, None, None]


def _single(field: npt.NDArray[Any]) -> Field:
    """Says to the type checker that single precision stays single; converts nothing."""
    assert field.dtype == np.float32
    return field


def _wave(turns: Field) -> Field:
    """A smooth periodic curve between -1 and 1 with a period of 1: parabolas in place of a sine."""
    part = turns - np.floor(turns)
    half = part - np.float32(0.5)
    curve: Field = (np.abs(half) * np.float32(16) - np.float32(8)) * half
    return curve


class _Canvas:
    """The grid in one head's own coordinates, and the edges of shapes on it."""

    def __init__(self, head: Head, grid: Grid) -> None:
        x, y, z = grid.axes()
        # a rotation without sine and cosine: the tangent of half the angle gives both
        t = head.tilt
        cosine, sine = np.float32((1 - t * t) / (1 + t * t)), np.float32(2 * t / (1 + t * t))
        self.x = _single((x * cosine + y * sine) / np.float32(head.size[0]))
        self.y = _single((y * cosine - x * sine) / np.float32(head.size[1]))
        self.z = _single(z / np.float32(head.size[2]))
        self.blur = np.float32(max(1.5, 0.9 * grid.voxel_mm[0]))  # mm over which an edge fades

    def radius(self, centre: Sequence[float], size: Sequence[float]) -> Field:
        """Gives the distance from an ellipsoid's centre, 1 on its surface."""
        total: Field = np.zeros((1, 1, 1), np.float32)
        for axis, middle, half in zip((self.x, self.y, self.z), centre, size, strict=True):
            part = (axis - np.float32(middle)) * np.float32(1 / half)
            total = total + part * part
        return _single(np.sqrt(total))

    def inside(self, radius: Field, size_mm: float, edge: npt.NDArray[Any] | float = 1.0) -> Field:
        """Gives how far a voxel is inside of an edge, from 0 to 1."""
        depth = (edge - radius) * (np.float32(size_mm) / self.blur) + np.float32(0.5)
        return _single(np.clip(depth, np.float32(0), np.float32(1)))

    def ellipsoid(self, centre: Sequence[float], size: Sequence[float]) -> Field:
        return self.inside(self.radius(centre, size), min(size))


@dataclass(frozen=True)
class Picture:
    """What `paint` gives; every array has the shape (z, y, x)."""

    signals: list[Field]  # one for each contrast, 0 to 255
    head: npt.NDArray[np.bool_]
    brain: npt.NDArray[np.bool_]
    lesion: npt.NDArray[np.bool_]


def paint(head: Head, grid: Grid, contrasts: Sequence[Contrast]) -> Picture:
    """Computes the head on the grid in each contrast."""
    canvas = _Canvas(head, grid)
    px, py, pz = (np.float32(phase) for phase in head.phases)
    # two waves that bend each other, and change with height
    bend = _wave(canvas.x * np.float32(1 / 47) + px) + _wave(canvas.y * np.float32(1 / 59) + py)
    lift = _wave(canvas.z * np.float32(1 / 53) + pz)
    folds = _wave(canvas.x * np.float32(1 / 19) + bend * np.float32(0.22) + lift * np.float32(0.3) + pz)
    folds = folds + _wave(canvas.y * np.float32(1 / 21) - bend * np.float32(0.25) + lift * np.float32(0.25) + px)
    folds = _single(folds * np.float32(0.5))
    scalp = canvas.radius((0, 0, 0), SCALP_MM)
    brain = canvas.radius((0, 0, 0), (63, 81, 75))
    atrophy = np.float32(head.atrophy)
    # sulci: fluid between the folds, near the surface only
    sulci = _single(np.clip((folds - np.float32(0.2)) * np.float32(2.2), 0, 1)) * np.float32(0.2) * atrophy
    in_brain = canvas.inside(brain, 63, np.float32(1) - sulci)
    # the cortex follows them, about 5 mm thick
    ribbon = _single(np.clip((folds + np.float32(0.12)) * np.float32(1.3), 0, 1)) * np.float32(0.3)
    in_white = canvas.inside(brain, 63, np.float32(0.925) - ribbon)
    # the fissure between the hemispheres, open in front and behind
    fissure = _single(np.clip((atrophy - np.abs(canvas.x)) / canvas.blur + np.float32(0.5), 0, 1))
    in_fissure = fissure * np.clip((brain - np.float32(0.58)) * np.float32(12), 0, 1) * canvas.inside(brain, 63, 1.02)
    scar = canvas.radius(head.lesion_centre, head.lesion_size) + _single(folds) * np.float32(0.35)
    in_lesion = canvas.inside(scar, min(head.lesion_size)) * canvas.inside(brain, 63, 0.95)

    wide, left = head.atrophy, head.left_ventricle
    layers: list[tuple[Field, str]] = [
        (canvas.inside(scalp, 75), "scalp"),
        (canvas.inside(scalp, 75, 0.93), "skull"),
        (canvas.inside(scalp, 75, 0.875), "fluid"),
        (in_brain, "grey"),
        (in_white, "white"),
        (canvas.ellipsoid((-24, 6, 0), (8, 17, 13)), "grey"),
        (canvas.ellipsoid((24, 6, 0), (8, 17, 13)), "grey"),
        (canvas.ellipsoid((-10, -14, -1), (8, 12, 9)), "grey"),
        (canvas.ellipsoid((10, -14, -1), (8, 12, 9)), "grey"),
        (in_fissure, "fluid"),
        (canvas.ellipsoid((0, -8, -4), (2.5 * wide, 12, 10)), "fluid"),
        (canvas.ellipsoid((-8, 24, 4), (5.5 * wide * left, 13 * left, 13)), "fluid"),
        (canvas.ellipsoid((8, 24, 4), (5.5 * wide, 13, 13)), "fluid"),
        (canvas.ellipsoid((-20, -34, 5), (6.5 * wide * left, 17 * left, 13)), "fluid"),
        (canvas.ellipsoid((20, -34, 5), (6.5 * wide, 17, 13)), "fluid"),
        (canvas.ellipsoid((-11, -4, 16), (6 * wide * left, 28, 8)), "fluid"),
        (canvas.ellipsoid((11, -4, 16), (6 * wide, 28, 8)), "fluid"),
        (in_lesion, "lesion"),
    ]
    # the receiving coils see the surface better than the middle
    shading = np.float32(0.88) + scalp * scalp * np.float32(0.12)
    signals = [_lay(layers, contrast) * np.minimum(shading, 1) for contrast in contrasts]
    if any(contrast.active for contrast in contrasts):
        # naming: the back of the head sees, the temples speak
        active = in_brain * np.maximum(
            canvas.ellipsoid((0, -66, 0), (30, 18, 22)), canvas.ellipsoid((46, 4, 4), (14, 22, 16))
        )
        signals = [
            signal + active * np.float32(contrast.active) for signal, contrast in zip(signals, contrasts, strict=True)
        ]
    half = np.float32(0.5)
    return Picture(signals, layers[0][0] > 0, canvas.inside(brain, 63) > half, in_lesion > half)


def _lay(layers: Sequence[tuple[Field, str]], contrast: Contrast) -> Field:
    shape = np.broadcast_shapes(*(cover.shape for cover, _ in layers))
    signal = np.zeros(shape, np.float32)
    for cover, tissue in layers:
        signal += cover * (np.float32(getattr(contrast, tissue)) - signal)
    return signal
