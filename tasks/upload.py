"""Upload: send the content of staged shards (transfer), then make a batch of them visible (commit).

How it works:

1. `transfer` sends the content of a group of shards, and only what the Hub does not have. Nothing becomes visible.
   A large shard goes alone and small ones together, so that a kill costs little and a round trip is paid once a group.
   What was sent is remembered where it is: content is addressed by its hash, so a run that comes after a kill sends no
   byte of it again.
2. Every byte is hashed twice on its way: before the group is sent (unless this very process has written the file and
   nobody has touched it since), and by the client while it sends. Only where both agree with the receipt may a shard
   be committed; any other is handed back, to be staged again.
3. `commit` makes a batch of transferred shards visible in one git commit, together with the publication record, the
   card and the dataset's own texts that are true after it. Repo and record cannot drift apart by a crash.
4. A commit is always made on top of the head that was read (`parent_commit`). When it fails, the head is read again
   before anything is decided: the lines of the batch in the record there mean that it landed and only its answer was
   lost; a head that moved means that somebody else committed, and the batch is committed on top of theirs.

What the remote holds in the end is `tasks.verify`'s question, not this module's: a call that returned proves nothing.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import eq
from pathlib import Path
from typing import Protocol, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.errors import PushError
from tasks.hub import Hub, StaleParent, Transient
from tasks.models import (
    DatasetIdentity,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    PublishedText,
    Receipt,
)
from tasks.patience import RETRIES, patiently
from tasks.published import CARD, INDEX, RECORD, Published, read_published
from tasks.staging import Staging

COMMIT_TRIES = 8  # heads in a row that somebody else moved under us before the run says so

CardOf = Callable[[PublicationRecord, str | None], str]
"""The card that is true for a record, given the card that is on the Hub now."""
SameCard = Callable[[str, str | None], bool]
"""Whether a card says what the one on the Hub says, so that it is no reason for a commit."""


class ContestedTarget(PushError):
    """Others keep committing to the target."""


@dataclass(frozen=True)
class Sent:
    """A shard whose content is on the Hub, and the operation that makes it visible."""

    receipt: Receipt
    operation: CommitOperationAdd

    @property
    def size(self) -> int:
        """The shard's bytes."""
        return self.receipt.size


class Sized(Protocol):
    """Anything with a size in bytes."""

    @property
    def size(self) -> int:
        """Bytes."""


S = TypeVar("S", bound=Sized)


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
    remove: tuple[str, ...] = ()
    """Shards to remove from the repo."""
    record: bool = False
    """Whether the record on the Hub has to be written anew, since lines of it are damaged."""
    same_card: SameCard = eq

    def any(self, target: Published) -> bool:
        """Whether anything is to be done, the target being as it is."""
        if self.texts or self.remove or self.record or (self.dataset and not target.record.dataset):
            return True
        return not self.same_card(self.card_of(target.record, target.card), target.card)

    def made(self) -> "Changes":
        """What is left after a commit that brought all of it about: the card goes with each."""
        return replace(self, texts={}, remove=(), record=False)


def batches(shards: Iterable[S], max_shards: int, max_bytes: int) -> Iterator[tuple[S, ...]]:
    """Group shards, in the order they come, up to `max_shards` and about `max_bytes` a group.

    A shard larger than `max_bytes` is a group of its own, and does not wait for others.
    """
    batch: list[S] = []
    size = 0
    for shard in shards:
        if batch and size + shard.size > max_bytes:
            yield tuple(batch)
            batch, size = [], 0
        batch.append(shard)
        size += shard.size
        if len(batch) >= max_shards or size >= max_bytes:
            yield tuple(batch)
            batch, size = [], 0
    if batch:
        yield tuple(batch)


def transfer(hub: Hub, staging: Staging, group: Sequence[Receipt]) -> tuple[Sent, ...]:
    """Send the content of a group of staged shards; those of them that are sent, and are what their receipts say.

    A shard that is missing in the answer is damaged: its staged file is not what its receipt says, or was changed
    while it was read.
    """
    intact = [receipt for receipt in group if staging.intact(receipt)]
    sent = [Sent(one, CommitOperationAdd(one.path, path_or_fileobj=staging.folder / one.file)) for one in intact]
    if not sent:
        return ()
    try:
        with hub.explained(f"sending {len(sent)} shards to {hub.target}"):
            hub.preupload([one.operation for one in sent])
    except Exception:
        if all(staging.intact(receipt) for receipt in intact):
            raise
        return transfer(hub, staging, group)  # a file was taken away while it was read: the others without it
    return tuple(one for one in sent if one.operation.upload_info.sha256.hex() == one.receipt.sha256)


def commit(
    hub: Hub,
    before: Published,
    shards: Sequence[PublishedShard],
    operations: Sequence[CommitOperationAdd],
    changes: Changes,
) -> Published:
    """Commit a batch with the record, the card and the texts that are true after it; what the target holds then.

    Safe to call again with the same arguments after any failure: a batch that landed is recognised, not repeated.

    Raises:
        ContestedTarget: somebody else committed before us, every time.
        Transient: the Hub could not answer, and the batch did not land (yet).
    """
    remove = changes.remove
    for _ in range(COMMIT_TRIES):
        record = before.record.updated(shards, remove, changes.published, changes.dataset)
        card = changes.card_of(record, before.card)
        files = {**changes.texts, RECORD: record.dump(), INDEX: record.dump_index(), CARD: card.encode()}
        everything: list[CommitOperationAdd | CommitOperationDelete] = [
            *operations,
            *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in sorted(files.items())),
            *(CommitOperationDelete(path) for path in remove if path in before.record.shards),
        ]
        try:
            return Published(hub.commit(everything, _message(shards, remove), before.commit), record, card)
        except (StaleParent, Transient) as failure:
            before = read_published(hub)
            if landed(before, shards, remove, card):
                return before
            if isinstance(failure, Transient):
                raise
    raise ContestedTarget(
        f"somebody else committed to {hub.target} {COMMIT_TRIES} times while this batch was being committed. The "
        "shards are sent and staged; start the run again when the other writer is done."
    )


def landed(found: Published, shards: Sequence[PublishedShard], remove: Sequence[str], card: str) -> bool:
    """Whether a commit is on the Hub already: it was made, and only its answer was lost."""
    if not (shards or remove):
        return found.card == card
    record = found.record.shards
    return all(record.get(shard.path) == shard for shard in shards) and not any(path in record for path in remove)


def outdated(texts: Mapping[str, bytes], listing: Listing) -> dict[str, bytes]:
    """The texts that the repo does not hold as they are now, by the object ids in the listing."""
    return {path: data for path, data in texts.items() if not _holds(listing.files.get(path), data)}


def as_published(texts: Mapping[str, bytes]) -> tuple[PublishedText, ...]:
    """The texts as the record holds them."""
    return tuple(
        PublishedText(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in sorted(texts.items())
    )


def _holds(listed: ListedFile | None, data: bytes) -> bool:
    return listed is not None and listed.holds(data)


def _message(shards: Sequence[PublishedShard], remove: Sequence[str]) -> str:
    parts = []
    if shards:
        names = [Path(shard.path).stem for shard in shards]
        span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        parts.append(f"Publish {len(names)} shard{'s' * (len(names) > 1)}: {span}")
    if remove:
        parts.append(f"Remove {len(remove)} shard{'s' * (len(remove) > 1)} that the dataset no longer has")
    return "; ".join(parts) or "Update the card and the dataset's own texts"


@task(name="transfer", task_run_name="transfer {label}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def transfer_group(hub: Hub, staging: Staging, group: Sequence[Receipt], label: str) -> tuple[Sent, ...]:
    """`transfer` as a task; `label` names the group in the UI."""
    return patiently(lambda: transfer(hub, staging, group), get_run_logger().warning)


@task(name="commit", task_run_name="commit {label}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def commit_batch(hub: Hub, before: Published, batch: Sequence[Sent], changes: Changes, label: str) -> Published:
    """`commit` as a task; `label` names the batch in the UI."""
    lines = [one.receipt.published() for one in batch]
    operations = [one.operation for one in batch]
    return patiently(lambda: commit(hub, before, lines, operations, changes), get_run_logger().warning)
