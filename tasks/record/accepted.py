"""Images that a person has accepted as gone from the dataset, by giving the exact number (`accept_changes`).

If removals are kept (`removed="keep"`), an image that was withdrawn stays published, and is missing from the dataset
every night from then on. The number is asked for only once: after that, these images with these published bytes no
longer count as a change. An image that comes back is forgotten here, so that a disk that is not mounted on another
night is noticed again.

The file lies beside the staged shards, and only helps. Without it, or with a damaged one, the number is asked for
again.
"""

from collections.abc import Collection, Mapping

from pydantic import ValidationError

from tasks.disk.staging import Staging
from tasks.record.change import Change
from tasks.values.models import PublicationRecord, Sha256, Value

ACCEPTED = "accepted-changes.json"  # in the target's staging folder


class Accepted(Value):
    """Published images that a person has accepted as gone from the dataset."""

    gone: Mapping[str, Sha256] = {}
    """Path in the dataset -> sha256 of the published image."""

    def within(self, record: PublicationRecord) -> frozenset[str]:
        """Return the paths that are still published with the bytes that were meant."""
        published = images_of(record)
        return frozenset(path for path, sha256 in self.gone.items() if published.get(path) == sha256)

    def after(self, change: Change, accepted: bool, record: PublicationRecord, there: Collection[str]) -> "Accepted":
        """Return what counts as accepted after a run that goes on.

        Args:
            change: the change that the run has found.
            accepted: whether a person gave the number for it.
            record: what is published.
            there: the images that the dataset has.
        """
        published = images_of(record)
        gone = self.within(record).difference(there) | (set(change.gone) if accepted else set())
        return Accepted(gone={path: published[path] for path in sorted(gone)})


def images_of(record: PublicationRecord) -> dict[str, str]:
    """Return every published image: path in the dataset -> sha256."""
    return {content.path: content.sha256 for line in record.shards.values() for content in line.images}


def read_accepted(staging: Staging) -> Accepted:
    """Read what was accepted. It is empty if there is no file, or none that can be read."""
    try:
        return Accepted.model_validate_json(staging.read(staging.folder / ACCEPTED))
    except (OSError, ValidationError):
        return Accepted()


def write_accepted(staging: Staging, accepted: Accepted) -> None:
    """Write what was accepted to its file.

    Raises:
        DiskFull, CannotWrite: the disk does not take the file.
    """
    staging.write(staging.folder / ACCEPTED, accepted.model_dump_json(indent=1).encode())
