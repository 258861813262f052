"""Transfer: send the content of staged shards that the Hub does not have. Nothing becomes visible.

- A large shard goes alone and small ones together, so that a kill costs little and a round trip is paid once a group.
- What was sent is remembered where it is: content is addressed by its hash, so a run that comes after a kill sends no
  byte of it again.
- Every byte is hashed twice on its way: before the group is sent (unless this very process has written the file and
  nobody has touched it since), and by the client while it sends. Only where both agree with the receipt may a shard
  be committed (`tasks.commit`); any other is handed back, to be staged again.
- Before a shard is committed it is known whether the repo takes it, and as what (`tasks.hub.rules`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from huggingface_hub import CommitOperationAdd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.hub.patience import RETRIES, retry_while_busy
from tasks.hub.rules import require_kept
from tasks.values.models import Receipt


@dataclass(frozen=True)
class Transferred:
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


def transfer(hub: Hub, staging: Staging, group: Sequence[Receipt]) -> tuple[Transferred, ...]:
    """Send the content of a group of staged shards; those of them that are sent, and are what their receipts say.

    A shard that is missing in the answer is damaged: its staged file is not what its receipt says, or was changed
    while it was read.
    """
    intact = [receipt for receipt in group if staging.intact(receipt)]
    sent = [Transferred(one, CommitOperationAdd(one.path, path_or_fileobj=staging.folder / one.file)) for one in intact]
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


@task(name="transfer", task_run_name="transfer {label}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def transfer_group(hub: Hub, staging: Staging, group: Sequence[Receipt], label: str) -> tuple[Transferred, ...]:
    """`transfer` as a task; `label` names the group in the UI."""
    return retry_while_busy(lambda: transfer(hub, staging, group), get_run_logger().warning)
