"""What is published: every image that the repo serves, counted from the record.

So a half-published dataset has a true card, and so has one that lacks images which the repo still serves.
"""

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.bids.names import folder_label, parse
from tasks.values.models import ENTITIES, Dataset, Image, ImageContent, PublicationRecord


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of a set of images. `size` is bytes."""

    images: int
    subjects: int
    sessions: int
    size: int


@dataclass(frozen=True, slots=True)
class PublishedImages:
    """The images that are on the Hub, sorted by path, and their sizes as they were embedded."""

    images: tuple[Image, ...]
    sizes: dict[str, int]
    planned: int
    """The number of images of the dataset, on the Hub or not."""
    kept: int = 0
    """How many of `images` the dataset no longer has: nobody has approved that they are removed from the Hub."""
    nifti2: frozenset[str] = frozenset()
    """The paths of the images in NIfTI-2."""

    @classmethod
    def of(cls, dataset: Dataset, record: PublicationRecord) -> "PublishedImages":
        """Return the images that are in the record, those that the dataset no longer has included."""
        contents = {content.path: content for shard in record.shards.values() for content in shard.images}
        here = [image for image in dataset.images if image.path in contents]
        lacking = contents.keys() - {image.path for image in here}
        kept = [_from_its_path(contents[path], dataset) for path in lacking]
        return cls(
            images=tuple(sorted((*here, *kept), key=lambda image: image.path)),
            sizes={path: content.size for path, content in contents.items()},
            planned=len(dataset.images),
            kept=len(kept),
            nifti2=frozenset(path for path, content in contents.items() if content.nifti == 2),
        )

    @property
    def missing(self) -> int:
        """The number of images of the dataset that are not on the Hub yet."""
        return self.planned - (len(self.images) - self.kept)

    def count(self, images: Sequence[Image] | None = None) -> Counts:
        """Count these images, or all."""
        images = self.images if images is None else images
        return Counts(
            images=len(images),
            subjects=len({image.sub for image in images if image.sub is not None}),
            sessions=len({(image.sub, image.ses) for image in images if image.ses is not None}),
            size=sum(self.sizes[image.path] for image in images),
        )

    def kinds(self) -> dict[tuple[str, str], list[Image]]:
        """Return the images by datatype ("" for none) and suffix, in the order of both."""
        found: dict[tuple[str, str], list[Image]] = defaultdict(list)
        for image in self.images:
            found[image.datatype or "", image.suffix].append(image)
        return dict(sorted(found.items()))


def _from_its_path(content: ImageContent, dataset: Dataset) -> Image:
    """Return an image that the dataset no longer has, as far as its path says what it is.

    The path is the record's, and anybody may have written that: it is read as a name and never opened.
    """
    derivative, path = _place(content.path)
    name = parse(path)
    folders = path.split("/")[:-1]
    raw = next((one.dataset for one in dataset.images if _place(one.path)[0] is None), "raw")
    return Image(
        path=content.path,
        size=content.size,
        mtime_ns=0,
        dataset=derivative or raw,
        sub=name.entities.get("sub") or folder_label(folders, "sub"),
        ses=name.entities.get("ses") or folder_label(folders, "ses"),
        datatype=name.datatype if name.suffix else None,
        suffix=name.suffix or "",
        entities={key: value for key, value in name.entities.items() if key in ENTITIES and value},
    )


def _place(path: str) -> tuple[str | None, str]:
    """Return the derivative that a path belongs to, or None, and the path within it."""
    found = re.fullmatch(r"derivatives/([^/]+)/(.+)", path, re.DOTALL)
    return (found[1], found[2]) if found else (None, path)
