"""The card's pictures: one slice of one image of each kind, as a PNG in the repo.

The card itself says which image a picture shows, and which bytes that image had. So a picture is made again only if its
image is published with other bytes, and a night with nothing changed reads no image. Pictures are made only when
something is published anyway.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.bids.pictures import axial_slice
from tasks.card.counts import Group
from tasks.values.models import Dataset, Image, Listing

FOLDER = "pictures"
TRIES = 3  # images of a kind that are tried: one may not be fetched, or have no slices
DIGITS = 12  # of an image's sha256 on the card

_ON_THE_CARD = re.compile(rf"!\[[^\]\n]*\]\(({FOLDER}/(\w+)\.png) \"([^\"\n]+), sha256 ([0-9a-f]{{{DIGITS}}})\"\)")
_SAFE = re.compile(r"[\w./+@=,~-]+")  # a path that Markdown leaves unchanged

Sha256Of = Callable[[Image], str | None]


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture of one kind of image, and what it shows."""

    path: str
    """The picture's path in the repo."""
    image: str
    """The image's path in the dataset."""
    sha256: str
    """The first digits of the image's sha256."""

    def markdown(self) -> str:
        """Return the picture on the card, with everything needed to know whether it is still true."""
        name = self.image.rpartition("/")[2]
        return f'![An axial slice of {name}]({self.path} "{self.image}, sha256 {self.sha256}")'


@dataclass(frozen=True, slots=True)
class Pictures:
    """The pictures of a card by kind (`anat_T1w`), and the bytes of the new ones."""

    shown: Mapping[str, Picture] = field(default_factory=dict)
    files: Mapping[str, bytes] = field(default_factory=dict)


def pictures_on(card: str | None, listing: Listing) -> Pictures:
    """Return the pictures that a card shows and its repo holds."""
    found = _ON_THE_CARD.findall(card or "")
    return Pictures({kind: Picture(path, image, sha) for path, kind, image, sha in found if path in listing.files})


def draw(dataset: Dataset, before: Pictures, sha256_of: Sha256Of, tell: Callable[[str], None]) -> Pictures:
    """Return a picture of each kind: the present one if its image has not changed, else a new one.

    Raw images come before derivatives, then the first by path. A kind that cannot be shown is reported and passed over.

    Args:
        dataset: the dataset.
        before: the pictures that are on the card now.
        sha256_of: gives the sha256 of an image's present bytes.
        tell: is told, in a sentence, of a kind that cannot be shown.
    """
    kinds: dict[str, list[Image]] = {}
    for image in sorted(dataset.images, key=lambda image: (image.dataset != "raw", image.path)):
        if image.kind == "image" and image.datatype and _SAFE.fullmatch(image.path):
            kinds.setdefault(Group(image.kind, image.datatype, image.suffix).name, []).append(image)
    shown: dict[str, Picture] = {}
    files: dict[str, bytes] = {}
    for kind, images in sorted(kinds.items()):
        there = before.shown.get(kind)
        same = next((image for image in images if there and image.path == there.image), None)
        if there and same and (sha256_of(same) or "").startswith(there.sha256):
            shown[kind] = there
            continue
        for image in images[:TRIES]:
            sha256, png = sha256_of(image), axial_slice(Path(dataset.root) / image.path, image.suffix)
            if sha256 and png:
                shown[kind] = Picture(f"{FOLDER}/{kind}.png", image.path, sha256[:DIGITS])
                files[shown[kind].path] = png
                break
        else:
            tell(f"The card has no picture of {kind}: none of its first images has an axial slice to show.")
    return Pictures(shown, files)


@task(name="draw", task_run_name="draw the card's pictures", cache_policy=NO_CACHE, persist_result=False)
def draw_pictures(dataset: Dataset, before: Pictures, sha256_of: Sha256Of) -> Pictures:
    """Do `draw` as a task."""
    return draw(dataset, before, sha256_of, get_run_logger().info)
