"""Upload: send the content of staged shards (transfer), then make a batch of them visible (commit).

How it works:

1. `batches` groups shards by count and by bytes, so that neither a kill nor a round trip a shard costs much.
2. `transfer` sends a batch's content and only what the Hub does not have. Nothing becomes visible.
3. `commit` makes the batch visible in one git commit, together with the publication record, the card and the
   dataset's own texts that are true after it. Repo and record cannot drift apart by a crash between the two.
4. A commit is always made on top of the head that was read (`parent_commit`). When it fails, the head is read again
   before anything is decided: the lines of the batch in the record there mean that it landed and only its answer was
   lost; a head that moved means that somebody else committed, and the batch is committed on top of theirs.

What the remote holds in the end is `tasks.verify`'s question, not this module's: a call that returned proves nothing.
"""

import hashlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from huggingface_hub.utils.sha import git_hash
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.logging import get_run_logger

from tasks.errors import PushError
from tasks.hub import Hub, StaleParent, Transient
from tasks.models import ListedFile, Listing, PublicationRecord, PublishedShard, Receipt
from tasks.published import CARD, RECORD, Published, read_published
from tasks.staging import Staging

COMMIT_TRIES = 8  # heads in a row that somebody else moved under us before the run says so
RETRY_DELAYS = [2.0, 10.0, 30.0, 60.0, 120.0]  # seconds; jitter is added, so that many runs do not come back at once
PATIENCE = 15 * 60.0  # seconds that one call waits in all for a Hub that asks for a pause

T = TypeVar("T")
CardOf = Callable[[PublicationRecord, str | None], str]
"""The card that is true for a record, given the card that is on the Hub now."""


class StagedShardDamaged(PushError):
    """A staged shard is not what its receipt says any more. It is not sent."""


class ContestedTarget(PushError):
    """Others keep committing to the target."""


@dataclass(frozen=True)
class Changes:
    """What else a commit has to bring about, besides its shards."""

    card_of: CardOf
    texts: Mapping[str, bytes]
    """The dataset's own texts that the repo does not hold as they are now: repo path -> bytes."""
    remove: tuple[str, ...] = ()
    """Shards to remove from the repo."""
    record: bool = False
    """Whether the record on the Hub has to be written anew, since lines of it are damaged."""

    def any(self, target: Published) -> bool:
        """Whether anything is to be done, the target being as it is."""
        return bool(self.texts or self.remove or self.record or self.card_of(target.record, target.card) != target.card)

    def made(self) -> "Changes":
        """What is left after a commit that brought all of it about: the card goes with each."""
        return Changes(self.card_of, {})


def batches(receipts: Iterable[Receipt], max_shards: int, max_bytes: int) -> Iterator[tuple[Receipt, ...]]:
    """Group shards for a commit, in the order they come, up to `max_shards` and about `max_bytes` a group.

    A shard larger than `max_bytes` is a batch of its own.
    """
    batch: list[Receipt] = []
    size = 0
    for receipt in receipts:
        if batch and (len(batch) >= max_shards or size + receipt.size > max_bytes):
            yield tuple(batch)
            batch, size = [], 0
        batch.append(receipt)
        size += receipt.size
    if batch:
        yield tuple(batch)


def transfer(hub: Hub, staging: Staging, batch: Sequence[Receipt]) -> list[CommitOperationAdd]:
    """Send the content of a batch of staged shards; the operations that commit them.

    The receipts were checked by this very process: it has written the files a moment ago, or hashed them when it
    decided what to send. Here a file's size and its receipt on the disk are looked at once more.

    Raises:
        StagedShardDamaged: a file is not what its receipt says.
    """
    operations = [_operation(staging, receipt) for receipt in batch]
    with hub.explained(f"sending {len(batch)} shards to {hub.target}"):
        hub.preupload(operations)
    return operations


def _operation(staging: Staging, receipt: Receipt) -> CommitOperationAdd:
    path = staging.folder / receipt.file
    try:
        damaged = path.stat().st_size != receipt.size or receipt != staging.receipt_of(receipt)
    except FileNotFoundError:
        damaged = True
    if damaged:
        raise StagedShardDamaged(
            f"{receipt.name}: the staged file {path} is not what its receipt says. It was not sent; start the run "
            "again, which stages it anew."
        )
    operation = CommitOperationAdd(path_in_repo=receipt.path, path_or_fileobj=path)
    operation.upload_info.sha256 = bytes.fromhex(receipt.sha256)  # known, so the client need not read it twice
    return operation


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
        record = before.record.updated(shards, remove)
        card = changes.card_of(record, before.card)
        files = {**changes.texts, RECORD: record.dump(), CARD: card.encode()}
        everything: list[CommitOperationAdd | CommitOperationDelete] = [
            *operations,
            *(CommitOperationAdd(path_in_repo=path, path_or_fileobj=data) for path, data in sorted(files.items())),
            *(CommitOperationDelete(path) for path in remove if path in before.record.shards),
        ]
        try:
            return Published(hub.commit(everything, _message(shards, remove), before.commit), record, card)
        except (StaleParent, Transient) as failure:
            before = read_published(hub)
            if landed(before.record, shards, remove):
                return before
            if isinstance(failure, Transient):
                raise
    raise ContestedTarget(
        f"somebody else committed to {hub.target} {COMMIT_TRIES} times while this batch was being committed. The "
        "shards are sent and staged; start the run again when the other writer is done."
    )


def landed(record: PublicationRecord, shards: Sequence[PublishedShard], remove: Sequence[str]) -> bool:
    """Whether a batch is in the record already: its commit was made, and only the answer was lost."""
    if not (shards or remove):
        return False
    return all(record.shards.get(shard.path) == shard for shard in shards) and not any(
        path in record.shards for path in remove
    )


def outdated(texts: Mapping[str, bytes], listing: Listing) -> dict[str, bytes]:
    """The texts that the repo does not hold as they are now, by the object ids in the listing."""
    return {path: data for path, data in texts.items() if not _holds(listing.files.get(path), data)}


def _holds(listed: ListedFile | None, data: bytes) -> bool:
    if listed is None or listed.size != len(data):
        return False
    if listed.sha256 is not None:
        return listed.sha256 == hashlib.sha256(data).hexdigest()
    return listed.blob_id == git_hash(data)


def _message(shards: Sequence[PublishedShard], remove: Sequence[str]) -> str:
    parts = []
    if shards:
        names = [Path(shard.path).stem for shard in shards]
        span = names[0] if len(names) == 1 else f"{names[0]} to {names[-1]}"
        parts.append(f"Publish {len(names)} shard{'s' * (len(names) > 1)}: {span}")
    if remove:
        parts.append(f"Remove {len(remove)} shard{'s' * (len(remove) > 1)} that the dataset no longer has")
    return "; ".join(parts) or "Update the card and the dataset's own texts"


def patiently(work: Callable[[], T], say: Callable[[str], None]) -> T:
    """Do `work`, waiting as long as the Hub asks for when it says how long (Retry-After, RateLimit)."""
    waited = 0.0
    while True:
        try:
            return work()
        except Transient as busy:
            if busy.retry_after is None or waited + busy.retry_after > PATIENCE:
                raise
            say(f"The Hub asks for a pause of {busy.retry_after:.0f} s ({busy}); waiting it out.")
            time.sleep(busy.retry_after)
            waited += max(busy.retry_after, 1.0)


def passes(_task: object, _run: TaskRun, state: State[Any]) -> bool:
    """Whether a task's failure may pass by itself, for Prefect's retries; what a person has to mend fails at once."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, Transient)


@task(
    name="transfer",
    task_run_name="transfer {label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=passes,
)
def transfer_batch(hub: Hub, staging: Staging, batch: Sequence[Receipt], label: str) -> list[CommitOperationAdd]:
    """`transfer` as a task; `label` names the batch in the UI."""
    return patiently(lambda: transfer(hub, staging, batch), get_run_logger().warning)


@task(
    name="commit",
    task_run_name="commit {label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=passes,
)
def commit_batch(
    hub: Hub,
    before: Published,
    shards: Sequence[PublishedShard],
    operations: Sequence[CommitOperationAdd],
    changes: Changes,
    label: str,
) -> Published:
    """`commit` as a task; `label` names the batch in the UI."""
    return patiently(lambda: commit(hub, before, shards, operations, changes), get_run_logger().warning)
