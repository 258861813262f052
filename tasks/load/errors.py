"""The errors of a dataset as a whole, which keep it from being loaded."""

from collections.abc import Sequence

from tasks.values.errors import PushError

SHOWN = 10  # files named in one message: enough to see the pattern, few enough to read


class NotABidsDataset(PushError):
    """The source is no BIDS dataset."""


class EmptyDataset(PushError):
    """A BIDS dataset that has no image to publish."""


class UnreadableFolder(PushError):
    """A folder of the dataset cannot be listed."""


class UnreadableSidecar(PushError):
    """A sidecar that applies to an image, or dataset_description.json, cannot be read."""


class UnreadableTable(PushError):
    """participants.tsv, a sessions.tsv or a scans.tsv is not fetched, or cannot be opened."""


class IncompleteIndex(PushError):
    """The tree no longer holds the images of the index: it changed while it was read."""


def listed(lines: Sequence[str]) -> str:
    """Return the lines one below the other; only the first ones if there are many."""
    more = [f"... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
    return "".join(f"\n  {line}" for line in [*lines[:SHOWN], *more])
