"""Transfer: sends the content of staged shards that the Hub does not have. Nothing becomes visible.

- A large shard is sent alone and small ones together, so that a kill costs little, and there is one round trip for each
  group.
- The Hub remembers what was sent: content is addressed by its hash. So a run that follows a kill sends none of those
  bytes again.
- Every byte is hashed twice on its way. The first time is before the group is sent, unless this very process has
  written the file and nobody has touched it since. The second time is by the client while it sends. A shard may be
  committed (`tasks.commit`) only if both agree with the receipt. Any other shard is handed back, to be staged again.
- Before a shard is committed, it is known whether the repo takes it, and as what kind of file (`tasks.hub.repo_rules`).
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
from tasks.hub.repo_rules import require_kept
from tasks.values.models import Receipt


@dataclass(frozen=True)
class Transferred:
    """A shard whose content is on the Hub, with the operation that makes it visible."""

    receipt: Receipt
    operation: CommitOperationAdd

    @property
    def size(self) -> int:
        """The shard's size in bytes."""
        return self.receipt.size


class Sized(Protocol):
    """Anything with a size in bytes."""

    @property
    def size(self) -> int:
        """The size in bytes."""


S = TypeVar("S", bound=Sized)


def batches(shards: Iterable[S], max_shards: int, max_bytes: int) -> Iterator[tuple[S, ...]]:
    """Group shards in their order, with up to `max_shards` and about `max_bytes` in a group.

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
    """Send the content of a group of staged shards.

    Returns:
        The shards that were sent and are what their receipts say. A shard that is missing here is damaged: its staged
            file is not what its receipt says, or it was changed while it was read.
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
        return transfer(hub, staging, group)  # a file was taken away while it was read: send the others
    require_kept(hub, [one.operation for one in sent])
    return tuple(one for one in sent if one.operation.upload_info.sha256.hex() == one.receipt.sha256)


@task(name="transfer", task_run_name="transfer {label}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def transfer_group(hub: Hub, staging: Staging, group: Sequence[Receipt], label: str) -> tuple[Transferred, ...]:
    """Do `transfer` as a task. `label` names the group in the UI."""
    return retry_while_busy(lambda: transfer(hub, staging, group), get_run_logger().warning)
