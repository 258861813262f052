"""Besides: what commits have to bring besides their shards: texts, card, record, and approved removals."""

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field, replace
from operator import eq

from tasks.record.modes import is_executable, other_modes
from tasks.record.remote import Correction, Remote
from tasks.report.evidence import RemovalPlan
from tasks.values.models import (
    EXECUTABLE,
    DatasetIdentity,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedText,
    ShardSpec,
)
from tasks.values.our_paths import is_text

CardOf = Callable[[PublicationRecord, str | None], str]
"""A function that returns the card for a record, given the card that is on the Hub now."""
SameCard = Callable[[str, str | None], bool]
"""A function that returns whether a card says the same as the one on the Hub. Then it is no reason for a commit."""


@dataclass(frozen=True)
class Besides:
    """What commits have to bring besides their shards."""

    card_of: CardOf
    texts: Mapping[str, bytes]
    """The dataset's own texts that the repo does not hold as they are now: path in the repo -> bytes."""
    recorded: tuple[PublishedText, ...] = ()
    """All of the dataset's own texts, as the record will hold them."""
    dataset: DatasetIdentity | None = None
    """Which dataset this is, for the record."""
    remove: RemovalPlan | None = None
    """What a person approved to be removed from the repo."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Lines of the record that stand for nothing: path -> sha256. The next commit drops them, and no file with them."""
    planned: PublicationRecord | None = None
    """The record that all of this was planned from. None means the record that the first commit is made on."""
    record: bool = False
    """Whether the record on the Hub has to be written anew because some of its lines are damaged or were edited."""
    same_card: SameCard = eq
    corrected: tuple[Correction, ...] = ()
    """Lines for the record that were read from shards, in place of lines that somebody edited or took out."""
    with_card: bool = True
    """Whether the commit brings the card too. A repo without a card gets one with each commit."""
    executable: frozenset[str] = frozenset()
    """The paths of the dataset's files that are executable."""
    modes: tuple[Correction, ...] = ()
    """Lines for the record of shards that stay as they are, while modes of their files have changed."""
    leaving: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Rows that a person approved to be removed: path of a shard -> the files that its new version no longer has. They
    leave with the commit that brings that version, which may be any of a run's.
    """

    def any(self, remote: Remote) -> bool:
        """Return whether there is anything to do for the target as it is now."""
        record = remote.record
        removal = bool(self.remove and self.remove.paths)
        if self.texts or removal or self.lost or self.record or self.modes or (self.dataset and not record.dataset):
            return True
        if any(record.texts.get(text.path) != text for text in self.recorded):
            return True
        return not self.same_card(self.card_of(remote.record, remote.card), remote.card)

    def after_commit(self) -> "Besides":
        """Return what is left after a commit with all of it. What becomes of the card is said for each commit."""
        return replace(self, texts={}, remove=None, lost={}, record=False, corrected=(), modes=())

    def planned_again(
        self,
        remote: Remote,
        texts: Mapping[str, bytes],
        listing: Listing,
        done: Iterable[ShardSpec],
        rows: Mapping[str, tuple[str, ...]],
    ) -> "Besides":
        """Return the same, planned again from what the target holds by now.

        A removal is for one head. It was committed on that head or refused, and is not planned again without a person.

        Args:
            remote: what the target holds.
            texts: all of the dataset's own texts.
            listing: every file of the repo.
            done: the shards that are published as they are to be.
            rows: path of a shard -> the files that its new version would no longer have, by now.
        """
        texts = outdated(texts, listing)
        return replace(
            self,
            texts=texts,
            remove=None,
            planned=remote.record,
            record=remote.to_mend,
            corrected=remote.corrected,
            modes=other_modes(done, remote.record, self.executable),
            leaving={path: rows[path] for path in self.leaving if path in rows},
        )


def outdated(texts: Mapping[str, bytes], listing: Listing) -> dict[str, bytes]:
    """Return the texts that the repo does not hold as they are now, by the object ids in the listing."""
    return {path: data for path, data in texts.items() if not holds(listing.files.get(path), data)}


def as_recorded(texts: Mapping[str, bytes], executable: Collection[str] = ()) -> tuple[PublishedText, ...]:
    """Return the texts as the record holds them. A text whose path is none of ours is in no record.

    Args:
        texts: path in the repo -> bytes.
        executable: the paths of the dataset's files that are executable.
    """
    return tuple(
        PublishedText(
            path=path,
            size=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            mode=EXECUTABLE if is_executable(path, executable) else "",
        )
        for path, data in sorted(texts.items())
        if is_text(path)
    )


def holds(listed: ListedFile | None, data: bytes) -> bool:
    """Return whether a file of the repo has these bytes, by its object id."""
    return listed is not None and listed.holds(data)
