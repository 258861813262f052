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
4. A commit is always made on top of the head that was read (`parent_commit`), by a run that holds the target's lease in
   that moment. When it fails, the head is read again before anything is decided. Where it has all that the commit was
   to bring (`landed`), only its answer was lost. A head that moved means that somebody else committed: what they have
   not touched is committed on top of theirs; a line or a text that changed since this run planned is left as they have
   it (`overtaken`), and the run plans again.
5. Before a shard is committed it is known whether the repo takes it, and as what: rules in its .gitignore and
   .gitattributes that keep a shard out, or out of LFS, end the run (`require_kept`).

What the remote holds in the end is `tasks.verify`'s question, not this module's: a call that returned proves nothing.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from operator import eq
from pathlib import Path
from typing import Protocol, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from pathspec import GitIgnoreSpec
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.errors import PushError
from tasks.hub import Hub, StaleHead, StaleParent, Transient
from tasks.models import (
    DatasetIdentity,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    PublishedText,
    Receipt,
)
from tasks.ours import is_text
from tasks.patience import RETRIES, patiently
from tasks.published import CARD, INDEX, RECORD, Published, read_published
from tasks.remove import RemovalPlan, deletions
from tasks.staging import Staging

COMMIT_TRIES = 8  # heads in a row that somebody else moved under us before the run says so
#: Seconds before the next try where the Hub refuses the head as too old, and names it as the head all the same.
BEHIND_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)
LFS_RULE = "*.parquet filter=lfs diff=lfs merge=lfs -text"

CardOf = Callable[[PublicationRecord, str | None], str]
"""The card that is true for a record, given the card that is on the Hub now."""
SameCard = Callable[[str, str | None], bool]
"""Whether a card says what the one on the Hub says, so that it is no reason for a commit."""
Fence = Callable[[], None]
"""Raises where this run does not hold the target any more."""


class ContestedTarget(PushError):
    """Others keep committing to the target."""


class IgnoredByRepo(PushError):
    """The repo's .gitignore keeps a file of ours out of every commit."""


class NotInLfs(PushError):
    """The repo's .gitattributes keeps shards out of LFS, so that the Hub would not store them as large files."""


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
    remove: RemovalPlan | None = None
    """What a person approved to be removed from the repo."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Lines of the record that stand for nothing, path -> sha256: they go with the next commit, and no file."""
    planned: PublicationRecord | None = None
    """The record that all of this was planned from. Without it, the one that the first commit is made on."""
    record: bool = False
    """Whether the record on the Hub has to be written anew, since lines of it are damaged."""
    same_card: SameCard = eq

    def any(self, target: Published) -> bool:
        """Whether anything is to be done, the target being as it is."""
        record = target.record
        removal = bool(self.remove and self.remove.paths)
        if self.texts or removal or self.lost or self.record or (self.dataset and not record.dataset):
            return True
        if any(record.texts.get(text.path) != text for text in self.published):
            return True
        return not self.same_card(self.card_of(target.record, target.card), target.card)

    def made(self) -> "Changes":
        """What is left after a commit that brought all of it about: the card goes with each."""
        return replace(self, texts={}, remove=None, lost={}, record=False)

    def again(self, found: Published, texts: Mapping[str, bytes], listing: Listing) -> "Changes":
        """The same, planned anew from what the target holds by now; `texts` are all of the dataset's own.

        A removal is of one head, and was committed on it, or refused: it is not planned anew without a person.
        """
        texts = outdated(texts, listing)
        return replace(self, texts=texts, remove=None, planned=found.record, record=bool(found.damaged))


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
    require_kept(hub, [one.operation for one in sent])
    return tuple(one for one in sent if one.operation.upload_info.sha256.hex() == one.receipt.sha256)


def require_kept(hub: Hub, operations: Iterable[CommitOperationAdd], large: bool = True) -> None:
    """Check that the repo takes these files, as the Hub has answered when it was asked about them.

    The client leaves an ignored file out of the commit without a word, and sends one that is not for LFS as a text.

    Raises:
        IgnoredByRepo, NotInLfs: it does not; the latter only with `large`.
    """
    for operation in operations:
        path = operation.path_in_repo
        if operation._should_ignore:
            raise IgnoredByRepo(
                f"{path} cannot be published: .gitignore of {hub.target} keeps it out of every commit"
                f"{_by_rule(hub, '.gitignore', path)}. Take that rule out of the file on the Hub, and start again. "
                "Nothing of this batch was committed; what is staged stays."
            )
        if large and operation._upload_mode != "lfs":
            raise NotInLfs(
                f"{path} cannot be published: .gitattributes of {hub.target} keeps it out of LFS, where shards "
                f"belong{_by_rule(hub, '.gitattributes', path)}. Take that rule out of the file on the Hub, or write "
                f"as its last line: {LFS_RULE}. Then start again. Nothing of this batch was committed; what is staged "
                "stays."
            )


def _by_rule(hub: Hub, file: str, path: str) -> str:
    """Which line of a file of rules is about a path, as part of a sentence: the last one that is."""
    lines = (hub.read(file, hub.head()) or b"").decode(errors="replace").splitlines()
    found = ""
    for number, line in enumerate(lines, start=1):
        words = line.split()
        pattern = line if file == ".gitignore" else " ".join(words[:1])
        if pattern and not pattern.startswith(("#", "!")) and GitIgnoreSpec.from_lines([pattern]).match_file(path):
            found = f", by line {number}: {line.strip()}"
    return found


def commit(
    hub: Hub,
    before: Published,
    shards: Sequence[PublishedShard],
    operations: Sequence[CommitOperationAdd],
    changes: Changes,
    fence: Fence = lambda: None,
) -> Published:
    """Commit a batch with the record, the card and the texts that are true after it; what the target holds then.

    Safe to call again with the same arguments after any failure: a batch that landed is recognised, not repeated.
    `fence` is asked before each request that commits. What somebody else has published since it was planned is left
    out, and named in the answer.

    Raises:
        ContestedTarget: somebody else committed before us, every time.
        StaleHead: the Hub refuses the head that it names, every time.
        Transient: the Hub could not answer, and the batch did not land (yet).
    """
    changes = changes if changes.planned else replace(changes, planned=before.record)
    contested = False
    for pause in BEHIND_PAUSES[:COMMIT_TRIES]:
        late = overtaken(changes, before.record, shards)
        batch = _Batch.of(hub, before, shards, operations, changes, late)
        if late and not batch.any():
            return replace(before, contested=True, overtaken=late)
        record = batch.record(before)
        card = changes.card_of(record, before.card)
        everything = batch.operations(hub, record, card)
        fence()
        try:
            made = hub.commit(everything, _message(batch.shards, batch.removed), before.commit)
            return Published(made, record, card, contested=contested, overtaken=late)
        except (StaleParent, Transient) as failure:
            found = read_published(hub)
            if landed(hub, found, batch):
                return replace(found, contested=True, overtaken=late)
            if isinstance(failure, Transient):
                raise
            behind = found.commit == before.commit
            contested = contested or not behind
            if behind:
                time.sleep(pause)
            before = found
    if not contested:
        raise StaleHead(
            f"the Hub refuses to commit on top of {before.commit[:12]}, which it names as the head of {hub.target}: "
            "one of its machines is behind. Start again when the Hub is well; the shards are sent and staged."
        )
    raise ContestedTarget(
        f"somebody else committed to {hub.target} {COMMIT_TRIES} times while this batch was being committed. The "
        "shards are sent and staged; start the run again when the other writer is done."
    )


def overtaken(changes: Changes, now: PublicationRecord, shards: Sequence[PublishedShard]) -> frozenset[str]:
    """Paths of which the record says something else by now than when it was planned from, and than we are to say.

    Whoever changed them had a newer look than this plan, which must not undo it.
    """
    planned = changes.planned or now
    ours = {shard.path: shard for shard in shards}
    texts = {text.path: text for text in changes.published if text.path in changes.texts}
    lost = changes.lost
    lines = {path for path in (*ours, *lost) if now.shards.get(path) not in (planned.shards.get(path), ours.get(path))}
    written = {
        path for path in (*texts, *lost) if now.texts.get(path) not in (planned.texts.get(path), texts.get(path))
    }
    return frozenset(lines | written)


@dataclass(frozen=True)
class _Batch:
    """What one commit is to bring about, on top of one head."""

    shards: tuple[PublishedShard, ...]
    sent: tuple[CommitOperationAdd, ...]
    texts: Mapping[str, bytes]
    deletions: tuple[CommitOperationDelete, ...]
    """Files that go, as a person approved."""
    forget: tuple[str, ...]
    """Lines that go, with or without a file."""
    changes: Changes

    @classmethod
    def of(
        cls,
        hub: Hub,
        before: Published,
        shards: Sequence[PublishedShard],
        operations: Sequence[CommitOperationAdd],
        changes: Changes,
        late: frozenset[str],
    ) -> "_Batch":
        """All that was planned, without what others have published since.

        Raises:
            RemovalRefused: something is not as the removal was planned.
        """
        gone = tuple(deletions(changes.remove, before)) if changes.remove else ()
        lines: dict[str, PublishedShard | PublishedText] = {**before.record.shards, **before.record.texts}
        lost = [path for path, sha256 in changes.lost.items() if path in lines and lines[path].sha256 == sha256]
        lost = [path for path in lost if path not in late]
        there = hub.listed(lost, before.commit)
        return cls(
            shards=tuple(shard for shard in shards if shard.path not in late),
            sent=tuple(operation for operation in operations if operation.path_in_repo not in late),
            texts={path: data for path, data in changes.texts.items() if path not in late},
            deletions=gone,
            forget=(*(one.path_in_repo for one in gone), *(path for path in lost if path not in there)),
            changes=changes,
        )

    @property
    def removed(self) -> tuple[str, ...]:
        """The paths of the files that go."""
        return tuple(one.path_in_repo for one in self.deletions)

    def any(self) -> bool:
        """Whether anything is left of it."""
        return bool(self.shards or self.texts or self.forget)

    def published(self) -> tuple[PublishedText, ...]:
        """The dataset's texts as the record holds them: those that others have changed since, as they have them."""
        late = self.changes.texts.keys() - self.texts.keys()
        return tuple(text for text in self.changes.published if text.path not in late)

    def record(self, before: Published) -> PublicationRecord:
        """The record that is true after the commit."""
        return before.record.updated(self.shards, self.forget, self.published(), self.changes.dataset)

    def operations(
        self, hub: Hub, record: PublicationRecord, card: str
    ) -> list[CommitOperationAdd | CommitOperationDelete]:
        """All of it as the client takes it, asked of the repo whether it keeps it."""
        files = {**self.texts, RECORD: record.dump(), INDEX: record.dump_index(), CARD: card.encode()}
        written = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in sorted(files.items())]
        with hub.explained(f"sending {len(written)} texts to {hub.target}"):
            hub.preupload(written)
        require_kept(hub, written, large=False)
        for operation in self.sent:
            operation._remote_oid = None  # of a head long ago: the client would leave out what was there then
        return [*self.sent, *written, *self.deletions]


def landed(hub: Hub, found: Published, batch: _Batch) -> bool:
    """Whether the target holds all that a commit was to bring: it was made, and only its answer was lost."""
    record, changes = found.record, batch.changes
    if any(record.shards.get(shard.path) != shard for shard in batch.shards):
        return False
    if any(record.texts.get(text.path) != text for text in batch.published()):
        return False
    if any(path in record.shards or path in record.texts for path in batch.forget):
        return False
    if (changes.dataset and record.dataset != changes.dataset) or (changes.record and found.damaged):
        return False
    if not changes.same_card(changes.card_of(record, found.card), found.card):
        return False
    return _in_place(hub, found, batch)


def _in_place(hub: Hub, found: Published, batch: _Batch) -> bool:
    """Whether the files of a commit are in the repo as it was to bring them."""
    shards = {shard.path: (shard.size, shard.sha256) for shard in batch.shards}
    files = hub.listed([*shards, *batch.texts, *batch.removed, RECORD, INDEX, CARD], found.commit)
    if not {RECORD, INDEX, CARD} <= files.keys() or files.keys() & set(batch.removed):
        return False
    if any(path not in files or (files[path].size, files[path].sha256) != as_sent for path, as_sent in shards.items()):
        return False
    return all(_holds(files.get(path), data) for path, data in batch.texts.items())


def outdated(texts: Mapping[str, bytes], listing: Listing) -> dict[str, bytes]:
    """The texts that the repo does not hold as they are now, by the object ids in the listing."""
    return {path: data for path, data in texts.items() if not _holds(listing.files.get(path), data)}


def as_published(texts: Mapping[str, bytes]) -> tuple[PublishedText, ...]:
    """The texts as the record holds them. One with a name that cannot be told apart from others' stands in none."""
    return tuple(
        PublishedText(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
        for path, data in sorted(texts.items())
        if is_text(path)
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
        parts.append(f"Remove {len(remove)} file{'s' * (len(remove) > 1)} that the dataset no longer has, as approved")
    return "; ".join(parts) or "Update the card and the dataset's own texts"


@task(name="transfer", task_run_name="transfer {label}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def transfer_group(hub: Hub, staging: Staging, group: Sequence[Receipt], label: str) -> tuple[Sent, ...]:
    """`transfer` as a task; `label` names the group in the UI."""
    return patiently(lambda: transfer(hub, staging, group), get_run_logger().warning)


@task(name="commit", task_run_name="commit {label}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def commit_batch(
    hub: Hub, before: Published, batch: Sequence[Sent], changes: Changes, fence: Fence, label: str
) -> Published:
    """`commit` as a task; `label` names the batch in the UI."""
    lines = [one.receipt.published() for one in batch]
    operations = [one.operation for one in batch]
    return patiently(lambda: commit(hub, before, lines, operations, changes, fence), get_run_logger().warning)
