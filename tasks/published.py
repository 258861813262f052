"""What a target holds: the publication record and the card, read at one commit.

The record is the durable side of resuming: whoever has the dataset and a token can go on from it, on any machine,
with no local state.
"""

from dataclasses import dataclass

from tasks.hub import Hub
from tasks.models import PublicationRecord

RECORD = "bids/shards.jsonl"
CARD = "README.md"


@dataclass(frozen=True)
class Published:
    """What the target holds at one commit, as far as a commit of ours has to know."""

    commit: str
    record: PublicationRecord
    card: str | None = None
    damaged: tuple[str, ...] = ()
    """What is wrong with lines of the record that cannot be read."""


def read_published(hub: Hub, commit: str | None = None) -> Published:
    """The record and the card at the target's head, or at `commit`."""
    commit = commit or hub.head()
    text = hub.read(RECORD, commit)
    record, damaged = PublicationRecord.read(text) if text else (PublicationRecord(), ())
    card = hub.read(CARD, commit)
    return Published(commit, record, card.decode(errors="replace") if card else None, damaged)
