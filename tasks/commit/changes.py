"""What else a commit has to bring about, besides its shards: texts, card, record, and what was approved to go."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from operator import eq

from tasks.record.remote import Remote
from tasks.report.evidence import RemovalPlan
from tasks.values.models import DatasetIdentity, ListedFile, Listing, PublicationRecord, PublishedText
from tasks.values.ours import is_text

CardOf = Callable[[PublicationRecord, str | None], str]
"""The card that is true for a record, given the card that is on the Hub now."""
SameCard = Callable[[str, str | None], bool]
"""Whether a card says what the one on the Hub says, so that it is no reason for a commit."""


@dataclass(frozen=True)
class Changes:
    """What else a commit has to bring about, besides its shards."""

    card_of: CardOf
    texts: Mapping[str, bytes]
    """The dataset's own texts that the repo does not hold as they are now: repo path -> bytes."""
    published: tuple[PublishedText, ...] = ()
    """All of the dataset's own texts, as the record will hold them."""
    dataset: DatasetIdentity | None = None
    """Which dataset this is, for the record."""
    remove: RemovalPlan | None = None
    """What a person approved to be removed from the repo."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Lines of the record that stand for nothing, path -> sha256: they go with the next commit, and no file."""
    planned: PublicationRecord | None = None
    """The record that all of this was planned from. Without it, the one that the first commit is made on."""
    record: bool = False
    """Whether the record on the Hub has to be written anew, since lines of it are damaged."""
    same_card: SameCard = eq

    def any(self, remote: Remote) -> bool:
        """Whether anything is to be done, the target being as it is."""
        record = remote.record
        removal = bool(self.remove and self.remove.paths)
        if self.texts or removal or self.lost or self.record or (self.dataset and not record.dataset):
            return True
        if any(record.texts.get(text.path) != text for text in self.published):
            return True
        return not self.same_card(self.card_of(remote.record, remote.card), remote.card)

    def made(self) -> "Changes":
        """What is left after a commit that brought all of it about: the card goes with each."""
        return replace(self, texts={}, remove=None, lost={}, record=False)

    def again(self, found: Remote, texts: Mapping[str, bytes], listing: Listing) -> "Changes":
        """The same, planned anew from what the target holds by now; `texts` are all of the dataset's own.

        A removal is of one head, and was committed on it, or refused: it is not planned anew without a person.
        """
        texts = outdated(texts, listing)
        return replace(self, texts=texts, remove=None, planned=found.record, record=bool(found.damaged))


def outdated(texts: Mapping[str, bytes], listing: Listing) -> dict[str, bytes]:
    """The texts that the repo does not hold as they are now, by the object ids in the listing."""
    return {path: data for path, data in texts.items() if not holds(listing.files.get(path), data)}


def as_published(texts: Mapping[str, bytes]) -> tuple[PublishedText, ...]:
    """The texts as the record holds them. One with a name that cannot be told apart from others' stands in none."""
    return tuple(
        PublishedText(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in sorted(texts.items())
        if is_text(path)
    )


def holds(listed: ListedFile | None, data: bytes) -> bool:
    """Whether a file of the repo has these bytes, by its object id."""
    return listed is not None and listed.holds(data)
