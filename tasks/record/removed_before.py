"""Images that a person has had removed from the Hub. If they are in the dataset again, a person is asked.

A participant who withdrew can come back by mistake: from a backup, from another copy of the dataset, from a disk that
was not there that day. Nothing about such a folder is wrong in itself, so only a memory notices it. An image counts as
one that came back if its path was removed, or if its subject was removed whole, whatever the image is called now.

The file lies beside the staged shards. It is written right before the commit that removes, so no removal is missing in
it. An image that is published again, because somebody said so or because its removal never happened, is forgotten.
"""

import datetime
from collections.abc import Collection, Mapping

from pydantic import ValidationError

from tasks.bids.names import subject_of
from tasks.disk.staging import Staging
from tasks.record.accepted import images_of
from tasks.values.errors import PushError
from tasks.values.models import Image, PublicationRecord, Value

REMOVED = "removed-images.json"  # in the target's staging folder


class UnreadableMemory(PushError):
    """The memory of what was removed is there and cannot be read, so nobody knows what must not come back."""


class RemovedBefore(Value):
    """Images that a person has had removed from the Hub."""

    images: Mapping[str, str] = {}
    """Path in the dataset -> the day on which it was removed, in UTC."""

    def back(self, images: Collection[Image], record: PublicationRecord) -> dict[str, str]:
        """Return the images of the dataset that were removed and are not published: path -> the day of the removal."""
        if not self.images:
            return {}
        published = images_of(record)
        still_there = {subject_of(path) for path in published}
        days = {subject: day for path, day in self.images.items() if (subject := subject_of(path))}
        whole = {subject: day for subject, day in days.items() if subject not in still_there}
        found = {image.path: self.images.get(image.path) or whole.get(image.sub or "") for image in images}
        return {path: day for path, day in found.items() if day and path not in published}

    def after(self, images: Collection[Image], record: PublicationRecord) -> "RemovedBefore":
        """Return the memory without the images that are in the dataset and are published again."""
        published, there = images_of(record), {image.path for image in images}
        return RemovedBefore(
            images={path: day for path, day in self.images.items() if path not in there or path not in published}
        )

    def with_more(self, images: Collection[str]) -> "RemovedBefore":
        """Return the memory with images that are removed today."""
        today = datetime.datetime.now(datetime.UTC).date().isoformat()
        return RemovedBefore(images={**self.images, **dict.fromkeys(images, today)})


def read_removed(staging: Staging) -> RemovedBefore:
    """Read which images were removed. It is empty if there is no file: nothing was removed from here.

    Raises:
        UnreadableMemory: there is a file, and it cannot be read.
    """
    path = staging.folder / REMOVED
    try:
        return RemovedBefore.model_validate_json(staging.read(path))
    except FileNotFoundError:
        return RemovedBefore()
    except (OSError, ValidationError) as error:
        reason = "it is not what was written" if isinstance(error, ValidationError) else error.strerror or str(error)
        raise UnreadableMemory(
            f"{path} says which images people have had removed from the Hub, and it cannot be read: {reason}. Nothing "
            "was staged, sent or removed. Take the file from a backup. Without it (move it away), images that were "
            "removed are published again if they are in the dataset again, and nobody is asked."
        ) from error


def write_removed(staging: Staging, removed: RemovedBefore) -> None:
    """Write which images were removed to the file.

    Raises:
        DiskFull, CannotWrite: the disk does not take the file.
    """
    staging.write(staging.folder / REMOVED, removed.model_dump_json(indent=1).encode())
