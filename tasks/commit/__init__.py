"""Commit: makes a batch of transferred shards visible, in one git commit with everything that is true after it.

- The publication record and the dataset's own texts go into the same commit, so that repo and record cannot drift apart
  by a crash (`batch`). So does the card, in the first commit of a run, the last one, and some between (`to_commit` has
  how many shards are in each).
- A commit is always made on top of the head that was read (`parent_commit`), by a run that holds the target's lease at
  that moment.
- If a commit fails, the head is read again before anything is decided. If the head has everything that the commit was
  to bring (`landed`), only the answer was lost.
- If the head has moved, somebody else committed. What they have not touched is committed on top of theirs. A line or a
  text that has changed since this run planned stays as they have it (`overtaken`), and the run plans again.

What the remote holds in the end is for `tasks.verify` to say, since a call that returned proves nothing.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType

from huggingface_hub import CommitOperationAdd
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_logger, get_run_logger

from tasks.commit.batch import Batch, landed
from tasks.commit.other_files import Besides
from tasks.hub.budget import Fence
from tasks.hub.client import Hub
from tasks.hub.errors import StaleHead, StaleParent, Transient
from tasks.hub.lacking import TooLargeForHub
from tasks.hub.retries import RETRIES, retry_while_busy
from tasks.record.remote import Remote, read_remote, require_known
from tasks.report.evidence import RemovalPlan
from tasks.report.sentences import of_how_many, what_was_removed
from tasks.transfer import Transferred
from tasks.values.errors import PushError
from tasks.values.format import number
from tasks.values.models import PublicationRecord, PublishedShard
from tasks.values.our_paths import other_path

NO_ROWS: Mapping[str, tuple[str, ...]] = MappingProxyType({})
COMMIT_TRIES = 8  # how often somebody else may move the head in a row before the run gives up
#: Seconds before the next try if the Hub refuses the head as too old, and still names it as the head.
BEHIND_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 30.0, 30.0)


class ContestedTarget(PushError):
    """Others keep committing to the target."""


def commit(
    hub: Hub,
    before: Remote,
    shards: Sequence[PublishedShard],
    operations: Sequence[CommitOperationAdd],
    besides: Besides,
    fence: Fence = lambda: None,
) -> Remote:
    """Commit a batch as `commit_at_once` does, or in several commits where that is too much for the Hub.

    The first of them brings the texts and the removals. Each brings the record that is true after it.

    Raises:
        TooLargeForHub: even a single shard is too much.
    """
    besides = besides if besides.planned else replace(besides, planned=before.record)
    try:
        return commit_at_once(hub, before, shards, operations, besides, fence)
    except TooLargeForHub:
        if len(shards) < 2:
            raise
        get_logger("bids_push.hub").warning(
            "%s takes no commit of %d shards at once (413). It is made in halves; BIDS_PUSH_BATCH_SHARDS=%d in the "
            "worker's environment has batches be as small from the start.",
            hub.target.endpoint,
            len(shards),
            len(shards) // 2,
        )
    half = {shard.path for shard in shards[: len(shards) // 2]}
    first, rest = (
        (
            [one for one in shards if (one.path in half) is now],
            [one for one in operations if (one.path_in_repo in half) is now],
        )
        for now in (True, False)
    )
    between = commit(hub, before, *first, besides, fence)
    after = commit(hub, between, *rest, besides.after_commit(), fence)
    return replace(
        after,
        contested=between.contested or after.contested,
        overtaken=between.overtaken | after.overtaken,
        seconds=math.inf,  # so the next commit is smaller (`to_commit`)
    )


def commit_at_once(
    hub: Hub,
    before: Remote,
    shards: Sequence[PublishedShard],
    operations: Sequence[CommitOperationAdd],
    besides: Besides,
    fence: Fence = lambda: None,
) -> Remote:
    """Commit a batch with the record, the card and the texts that are true after it.

    It is safe to call this again with the same arguments after any failure: a batch that landed is recognised, and not
    repeated. What somebody else has published since it was planned is left out, and named in the result.

    Args:
        hub: the target.
        before: what the target holds now.
        shards: the lines of the batch for the record.
        operations: the files of the batch.
        besides: what the commit has to bring besides them.
        fence: is called before each request that commits.

    Returns:
        What the target holds after the commit.

    Raises:
        ContestedTarget: somebody else committed before us, every time.
        StaleHead: the Hub refuses the head that it names, every time.
        TooLargeForHub: the Hub does not take so much in one commit.
        Transient: the Hub could not answer, and the batch has not landed so far.
        NewerLayout: a newer bids-push has published there meanwhile.
    """
    contested = False
    for pause in BEHIND_PAUSES[:COMMIT_TRIES]:
        late = overtaken(besides, before.record, shards)
        batch = Batch.of(hub, before, shards, operations, besides, late)
        if late and not batch.any():
            return replace(before, contested=True, overtaken=late)
        recorded = batch.record(before)
        record = recorded.record
        card = besides.card_of(record, before.card) if besides.with_card or before.card is None else None
        everything = batch.operations(hub, recorded, card)
        hub.wait_for_turn(fence)
        fence()
        begun = time.monotonic()
        try:
            made = hub.commit(everything, subject_line(batch.shards, besides.remove, besides.leaving), before.commit)
            seconds, shown = time.monotonic() - begun, before.card if card is None else card
            return Remote(made, record, shown, contested=contested, overtaken=late, seconds=seconds)
        except (StaleParent, Transient) as failure:
            seconds = time.monotonic() - begun
            found = read_remote(hub)
            if landed(hub, found, batch):
                return replace(found, contested=True, overtaken=late, seconds=seconds)
            if isinstance(failure, Transient):
                raise
            require_known(hub, found)
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


def overtaken(besides: Besides, now: PublicationRecord, shards: Sequence[PublishedShard]) -> frozenset[str]:
    """Return the paths that somebody else has changed in the record since it was planned from.

    Whoever changed them knew something newer than this plan, so the plan must not undo it. A change to what this plan
    would write itself does not count.

    Raises:
        ContestedTarget: they have published a shard of this plan at the other path that it may have.
    """
    planned = besides.planned or now
    sent = {shard.path: shard for shard in shards}
    if moved := [path for path in sent if path not in now.shards and other_path(path) in now.shards]:
        raise ContestedTarget(
            f"somebody else has published {other_path(moved[0])} since this run planned {moved[0]}, which is the same "
            f"shard ({number(len(moved), 'shard')} so). Nothing more is committed; the shards are sent and staged. "
            "Start again: they then get the paths that are there."
        )
    texts = {text.path: text for text in besides.recorded if text.path in besides.texts}
    lost = besides.lost
    lines = {path for path in (*sent, *lost) if now.shards.get(path) not in (planned.shards.get(path), sent.get(path))}
    written = {
        path for path in (*texts, *lost) if now.texts.get(path) not in (planned.texts.get(path), texts.get(path))
    }
    return frozenset(lines | written)


def subject_line(
    shards: Sequence[PublishedShard], remove: RemovalPlan | None, leaving: Mapping[str, tuple[str, ...]] = NO_ROWS
) -> str:
    """Return the commit's message: how much it publishes and removes.

    It names nobody. The history of the repo keeps it for ever, also when somebody has withdrawn.

    Args:
        shards: the shards of the commit.
        remove: the files that it removes.
        leaving: path of a shard -> the approved rows that its new version no longer has. Those of the commit's own
            shards leave with it.
    """
    parts = []
    if shards:
        paths = [shard.path for shard in shards]
        parts.append(f"Publish {number(len(paths), 'shard')} {of_how_many(paths)}")
    rows = {shard.path: leaving[shard.path] for shard in shards if shard.path in leaving}
    if remove := (remove or RemovalPlan(commit="")).model_copy(update={"rows": rows}):
        of = of_how_many((*remove.shards, *remove.rows))
        parts.append(f"Remove {what_was_removed(remove)}{f' {of}' if of else ''}, as approved")
    return "; ".join(parts) or "Update the card and the dataset's own texts"


@task(name="commit", task_run_name="commit {label}", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def commit_batch(
    hub: Hub, before: Remote, batch: Sequence[Transferred], besides: Besides, fence: Fence, label: str
) -> Remote:
    """Do `commit` as a task. `label` names the batch in the UI."""
    lines = [one.receipt.line().with_modes(besides.executable) for one in batch]
    operations = [one.operation for one in batch]
    return retry_while_busy(
        lambda: commit(hub, before, lines, operations, besides, fence), get_run_logger().warning, fence
    )
