"""What is published of the dataset. It is counted from the record, so that a half-published dataset has a true card."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.values.models import Dataset, Image, PublicationRecord


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of a set of images. `size` is bytes."""

    images: int
    subjects: int
    sessions: int
    size: int


@dataclass(frozen=True, slots=True)
class PublishedImages:
    """The images that are on the Hub, and their sizes as they were embedded."""

    images: tuple[Image, ...]
    sizes: dict[str, int]
    planned: int
    """The number of images of the dataset, on the Hub or not."""
    nifti2: frozenset[str] = frozenset()
    """The paths of the images in NIfTI-2."""

    @classmethod
    def of(cls, dataset: Dataset, record: PublicationRecord) -> "PublishedImages":
        """Return the images of the dataset that are in the record."""
        contents = [content for shard in record.shards.values() for content in shard.images]
        sizes = {content.path: content.size for content in contents}
        images = tuple(image for image in dataset.images if image.path in sizes)
        nifti2 = frozenset(content.path for content in contents if content.nifti == 2) & {one.path for one in images}
        return cls(images, sizes, len(dataset.images), nifti2)

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
