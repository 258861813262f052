"""Transfer: sends the content of staged shards that the Hub does not have. Nothing becomes visible.

- A large shard is sent alone and small ones together, so that a kill costs little, and there is one round trip for each
  group. Several groups are sent at the same time (`flows.publish`), each by a call of its own: hf_xet has one session
  for the whole process, which any number of threads may use, and an upload of its own for each call.
- The Hub remembers what was sent: content is addressed by its hash. So a run that follows a kill sends none of those
  bytes again.
- Every byte is hashed twice on its way. Our hash is of what is on the disk: it is taken as the shard is written, and
  once more before the group is sent, unless this very process has written the file and nobody has touched it since.
  The client's hash is of what is sent: hf_xet takes it as it cuts the file up. By git-LFS the client hashes the file
  before it sends it, and a Hub may take what comes; so the file must be untouched afterwards too. A shard may be
  committed (`tasks.commit`) only if all of this agrees with the receipt. Any other shard is handed back, to be staged
  again.
- Before a shard is committed, it is known whether the repo takes it, and as what kind of file (`tasks.hub.repo_rules`).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from huggingface_hub import CommitOperationAdd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.disk.staging import Staging
from tasks.hub.budget import Fence
from tasks.hub.client import Hub
from tasks.hub.repo_rules import require_kept
from tasks.hub.retries import RETRIES, retry_while_busy
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


class Batches(Generic[S]):
    """Groups shards in their order, with up to `max_shards` and about `max_bytes` in a group.

    A shard larger than `max_bytes` is a group of its own, and does not wait for others.
    """

    def __init__(self, max_shards: int, max_bytes: int) -> None:
        self._max_shards, self._max_bytes = max_shards, max_bytes
        self._begun: list[S] = []
        self._size = 0

    def add(self, shard: S) -> Iterator[tuple[S, ...]]:
        """Take a shard, and yield the groups that are full now."""
        if self._size + shard.size > self._max_bytes:
            yield from self.rest()
        self._begun.append(shard)
        self._size += shard.size
        if len(self._begun) >= self._max_shards or self._size >= self._max_bytes:
            yield from self.rest()

    def rest(self) -> Iterator[tuple[S, ...]]:
        """Yield the group that has been begun, if there is one."""
        begun, self._begun, self._size = tuple(self._begun), [], 0
        if begun:
            yield begun


def transfer(
    hub: Hub, staging: Staging, group: Sequence[Receipt], fence: Fence = lambda: None
) -> tuple[Transferred, ...]:
    """Send the content of a group of staged shards. Any number of threads may send different groups.

    Args:
        hub: the target.
        staging: where the shards are staged.
        group: the shards' receipts.
        fence: is called before anything is sent.

    Returns:
        The shards that were sent and are what their receipts say. A shard that is not among them is damaged: its staged
        file is not what its receipt says, or it was changed while it was read.
    """
    fence()
    intact = [receipt for receipt in group if staging.intact(receipt)]
    sent = [Transferred(one, CommitOperationAdd(one.path, path_or_fileobj=staging.folder / one.file)) for one in intact]
    if not sent:
        return ()
    try:
        hub.preupload([one.operation for one in sent], "shards")
    except Exception:
        if all(staging.intact(receipt) for receipt in intact):
            raise
        return transfer(hub, staging, group, fence)  # a file was taken away while it was read: send the others
    require_kept(hub, [one.operation for one in sent])
    return tuple(
        one
        for one in sent
        if one.operation.upload_info.sha256.hex() == one.receipt.sha256 and staging.intact(one.receipt)
    )


@task(name="transfer", task_run_name="transfer {label}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def transfer_group(
    hub: Hub, staging: Staging, group: Sequence[Receipt], fence: Fence, label: str
) -> tuple[Transferred, ...]:
    """Do `transfer` as a task. `label` names the group in the UI."""
    return retry_while_busy(lambda: transfer(hub, staging, group, fence), get_run_logger().warning, fence)
