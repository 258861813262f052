"""What a person has accepted to be gone from the dataset, by giving the exact number (`accept_changes`).

Where removals are kept (`removed="keep"`), an image that was withdrawn stays published, and is gone from the dataset in
every later night. The number is asked for once: these images, with these published bytes, count as a change no more.
One that comes back is forgotten here, so that a disk which is not mounted in another night is noticed again.

The file lies beside the staged shards. It is a help alone: without it, or with a damaged one, the number is asked for
again.
"""

from collections.abc import Collection, Mapping

from pydantic import ValidationError

from tasks.disk.files import write_whole
from tasks.disk.staging import Staging, refused
from tasks.record.change import Change
from tasks.values.models import PublicationRecord, Sha256, Value

ACCEPTED = "accepted-changes.json"  # in the target's staging folder


class Accepted(Value):
    """Images that are published and were accepted to be gone from the dataset."""

    gone: Mapping[str, Sha256] = {}
    """Path in the dataset -> sha256 of the published image."""

    def within(self, record: PublicationRecord) -> frozenset[str]:
        """Those that are still published with the bytes that were meant."""
        published = images_of(record)
        return frozenset(path for path, sha256 in self.gone.items() if published.get(path) == sha256)

    def after(self, change: Change, accepted: bool, record: PublicationRecord, there: Collection[str]) -> "Accepted":
        """These, as a run leaves them that goes on.

        Args:
            change: what it has found.
            accepted: whether a person gave the number of it.
            record: what is published.
            there: the images that the dataset has.
        """
        published = images_of(record)
        gone = self.within(record).difference(there) | (set(change.gone) if accepted else set())
        return Accepted(gone={path: published[path] for path in sorted(gone)})


def images_of(record: PublicationRecord) -> dict[str, str]:
    """Every published image: path in the dataset -> sha256."""
    return {content.path: content.sha256 for line in record.shards.values() for content in line.images}


def read_accepted(staging: Staging) -> Accepted:
    """What was accepted; nothing where no file is there, or none that can be read."""
    try:
        return Accepted.model_validate_json(staging.read(staging.folder / ACCEPTED))
    except (OSError, ValidationError):
        return Accepted()


def write_accepted(staging: Staging, accepted: Accepted) -> None:
    """Remember it.

    Raises:
        StagingRefused: the disk does not take the file.
    """
    path = staging.folder / ACCEPTED
    try:
        write_whole(path, accepted.model_dump_json(indent=1).encode())
    except OSError as error:
        raise refused(path, error) from error
