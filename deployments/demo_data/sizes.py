"""Decides how large each image is: its grid, its number of volumes and the depth of its grey values.

The wish is an image's share of the total. A small total is dealt out by a power of the true sizes (true ** 0.375): the
order stays, and a T1w of 4 MB gets a picture although a diffusion series of 100 MB stands beside it. A total that
nears the true one is dealt out in proportion. What a file of a given grid will have in bytes is known to about a
percent, from the bits that its voxels need (`bits_per_voxel`), so the scale that meets the total is found by trying.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

from deployments.demo_data.phantom import B0, FIELD_OF_VIEW_MM, SCALP_MM, Grid, Head, diffusion, head_of
from deployments.demo_data.source import Image, b_values, images, sidecar

DEFAULT_BYTES = 300_000_000  # of all sessions together
# the part of the true bytes from which on sizes are in proportion to the true ones
PROPORTIONAL_FROM = 0.05
# from this size on, voxels have 12 bits instead of 8: finer greys, and more bytes for each voxel computed
DEEP_FROM_BYTES = 1_000_000
FILE_OVERHEAD_BYTES = 380  # header, code table and trailer, compressed
# Voxels of a volume under which a picture is no longer one. A series has so many volumes that it must do with less.
MIN_VOXELS = {"dwi": 26 * 32 * 3, "bold": 28 * 35 * 5, "sbref": 28 * 35 * 5}
MIN_VOXELS_ANAT = 40 * 50 * 7
MAX_SLICE_MM = 12.0  # few slices make a slab, not a head in bricks


@dataclass(frozen=True)
class Layout:
    """What an image's file holds; `volumes` is None where it is 3-D."""

    image: Image
    grid: Grid
    volumes: int | None
    seconds: float  # from one volume to the next
    deep: bool

    @property
    def data_bytes(self) -> int:
        """The voxels' size, uncompressed."""
        return self.grid.voxels * (self.volumes or 1) * (1 if self.image.suffix == "mask" else 2)


@dataclass(frozen=True)
class _Facts:
    """What an image brings to its layout, whatever its size."""

    image: Image
    weight: float  # true bytes ** 0.375
    volumes: int | None
    seconds: float
    signal: float  # the part that diffusion leaves, on average; 0 where nothing is lost
    reference: str  # of a mask: the path of the image whose grid it shares


@lru_cache(maxsize=1)
def _facts() -> dict[str, _Facts]:
    return {image.path: _facts_of(image) for image in images()}


def _facts_of(image: Image) -> _Facts:
    # 0.375 = 1/4 + 1/8: square roots round the same everywhere, powers need not
    quarter = math.sqrt(math.sqrt(image.true_bytes))
    weight = quarter * math.sqrt(quarter)
    volumes, seconds, signal, reference = None, 0.0, 0.0, ""
    if image.suffix in ("dwi", "bold"):
        seconds = float(sidecar(image)["RepetitionTime"])
        # BIDS: a diffusion series has a volume for each b-value, and is 4-D even with one
        volumes = len(b_values(image)) if image.suffix == "dwi" else 0
        if volumes:
            signal = math.fsum(diffusion(b).grey for b in b_values(image)) / volumes / B0.grey
    elif image.suffix == "mask":
        # by its name: one of the published SpatialReferences says "Text"
        reference = image.path.partition("lesion_masks/")[2].replace("_desc-lesion_mask", "")
    return _Facts(image, weight, volumes, seconds, signal, reference)


def plan(chosen: Sequence[Image], total_bytes: int) -> list[Layout]:
    """Gives the layouts of images that have about so many bytes in all, compressed; more where pictures need more."""
    facts = [_facts()[image.path] for image in chosen]
    weights = math.fsum(fact.weight for fact in facts)
    true_bytes = sum(image.true_bytes for image in chosen)
    even = min(1.0, total_bytes / true_bytes / PROPORTIONAL_FROM)
    shares = [(1 - even) * fact.weight / weights + even * fact.image.true_bytes / true_bytes for fact in facts]
    scale = float(total_bytes)
    layouts: list[Layout] = []
    for _ in range(8):
        layouts = _lay_out(facts, [share * scale for share in shares])
        expected = math.fsum(expected_bytes(layout) for layout in layouts)
        if abs(expected - total_bytes) < 0.002 * total_bytes:
            break
        scale *= total_bytes / expected
    return layouts


@lru_cache(maxsize=1)
def default_plan() -> dict[str, Layout]:
    """Gives the layouts of the whole dataset at its default size, by path."""
    return {layout.image.path: layout for layout in plan(images(), DEFAULT_BYTES)}


def _lay_out(facts: Sequence[_Facts], wishes: Sequence[float]) -> list[Layout]:
    made = {
        fact.image.path: _layout(fact, wish)
        for fact, wish in zip(facts, wishes, strict=True)
        if fact.image.suffix != "mask"
    }
    # a mask lies on the grid of the image on which it was drawn
    for fact in facts:
        if fact.image.suffix == "mask":
            made[fact.image.path] = Layout(fact.image, made[fact.reference].grid, None, 0.0, False)
    return [made[fact.image.path] for fact in facts]


def _layout(fact: _Facts, wish: float) -> Layout:
    """Chooses the grid whose file comes nearest to the wish in bytes."""
    suffix = fact.image.suffix
    deep = wish >= DEEP_FROM_BYTES
    volumes = fact.volumes
    bits = 8 * max(0.0, wish - FILE_OVERHEAD_BYTES)
    voxels = bits / bits_per_voxel(fact.image, deep, 0.5)
    if volumes == 0:
        volumes = _bold_volumes(voxels)
    least = MIN_VOXELS.get(suffix, MIN_VOXELS_ANAT)
    head = head_of(fact.image.subject)
    grid = make_grid(max(least, voxels / (volumes or 1)))
    # once more, now that the part of the grid that the head fills is known
    voxels = bits / bits_per_voxel(fact.image, deep, filled(grid, head))
    return Layout(fact.image, make_grid(max(least, voxels / (volumes or 1))), volumes, fact.seconds, deep)


def _bold_volumes(voxels: float) -> int:
    """Gives a run's number of volumes, growing with the cube root of all its voxels: 8 at 64 kB, 30 at 4 MB."""
    count = 6
    while count < 120 and 216 * (count + 1) ** 3 <= voxels:
        count += 1
    return count


def make_grid(voxels: float) -> Grid:
    """Gives a grid of about so many voxels: few thick slices where there are few, isotropic where there are many."""
    side = math.sqrt(math.sqrt(240 * voxels))  # along x, if slices = side ** 2 / 300 and y has 1.25 times x
    # an odd number: the middle slice then is at height 0, where the ventricles and the lesion are
    slices = max(3, min(int(side), int(side * side / 300))) // 2 * 2 + 1
    across = math.sqrt(voxels / slices / 1.25)
    best = min(
        ((x, round(voxels / slices / x)) for x in range(int(across) - 2, int(across) + 4)),
        key=lambda pair: abs(pair[0] * pair[1] * slices - voxels),
    )
    thickness = min(MAX_SLICE_MM, FIELD_OF_VIEW_MM[2] / slices)
    return Grid((*best, slices), (FIELD_OF_VIEW_MM[0] / best[0], FIELD_OF_VIEW_MM[1] / best[1], thickness))


def filled(grid: Grid, head: Head) -> float:
    """Gives the part of the grid that a head fills: an ellipsoid, cut above and below."""
    x, y, z = (half * size for half, size in zip(SCALP_MM, head.size, strict=True))
    thickness = grid.shape[2] * grid.voxel_mm[2]
    cut = min(1.0, thickness / 2 / z)
    area = math.pi * x * y / (FIELD_OF_VIEW_MM[0] * FIELD_OF_VIEW_MM[1])
    return area * 2 * cut * z * (1 - cut * cut / 3) / thickness


class Bits(NamedTuple):
    """Bits that a voxel needs, compressed, fitted to 600 files of 5 kB to 30 MB; right to 1 or 2 percent."""

    air: float
    head: float  # more than air
    bright: float = 0.0  # more in a diffusion series, times the part of its signal that its b-values leave


BITS = {
    ("anat", False): Bits(1.61, 7.84),
    ("anat", True): Bits(9.2, 5.1),
    ("bold", False): Bits(1.69, 5.56),
    ("bold", True): Bits(9.23, 5.09),
    ("dwi", False): Bits(1.52, 3.77, 2.82),
    ("dwi", True): Bits(9.19, 3.12, 2.72),
}
MASK_BITS = 1.0


def bits_per_voxel(image: Image, deep: bool, part: float) -> float:
    """Gives the bits that a voxel needs where a head fills a part of the grid."""
    if image.suffix == "mask":
        return MASK_BITS
    bits = BITS[image.suffix if image.suffix in ("bold", "dwi") else "anat", deep]
    return bits.air + part * (bits.head + bits.bright * _facts()[image.path].signal)


def expected_bytes(layout: Layout) -> float:
    """Gives the size of a layout's file."""
    bits = bits_per_voxel(layout.image, layout.deep, filled(layout.grid, head_of(layout.image.subject)))
    return FILE_OVERHEAD_BYTES + layout.grid.voxels * (layout.volumes or 1) * bits / 8
