"""Remove: the only code in bids-push that deletes on the Hub.

As with the cleanup of staged files, deleting is a value before it is an act. `plan_removal` computes a `RemovalPlan`
from what a person approved at this run's gate, from what is missing in the dataset *now*, and from what record and repo
hold at one commit. `deletions` turns the plan into the operations of a commit, and right before that it checks again
that

- the head is still the commit for which the plan was made (the Hub checks the same, since it is the commit's parent);
- each path lies in a folder of ours by a strict pattern, whatever the record says;
- the record has each file with the sha256 that the gate showed.

One commit (`tasks.commit`), made while the run holds its lease, contains the deletions, the record without their lines,
the card, and new versions of the shards that were held back. What is removed leaves the head; the history of the repo
keeps it.

The record's own segments go without a question when their lines move to another of its files (`merged_segments`).
"""

from collections.abc import Mapping, Sequence

from huggingface_hub import CommitOperationDelete

from tasks.hub.client import Hub
from tasks.record.record_files import RecordChange, is_segment
from tasks.record.remote import Remote
from tasks.record.removals import PublishedFile, Removals, as_file, is_our_picture, is_our_shard, is_our_text
from tasks.report.evidence import Approval, Fate, Gate, Kept, RemovalPlan, VerificationFailed
from tasks.values.errors import PushError
from tasks.values.format import number
from tasks.values.kinds import noun
from tasks.values.models import RECORD, Listing, PublishedShard, PublishedText


class RemovalNotApproved(PushError):
    """A removal was asked for, and no person approved it."""


class RemovalRefused(PushError):
    """Something changed between the approval and the removal."""


def plan_removal(
    gate: Gate,
    approval: Approval,
    now: Removals,
    remote: Remote,
    listing: Listing,
    texts_there: Mapping[str, str | None],
    pictures: Sequence[str],
) -> RemovalPlan:
    """Work out which files leave the repo: those that the gate showed, the person approved, and the dataset now lacks.

    Args:
        gate: what was shown.
        approval: what was decided there.
        now: what is no longer in the dataset, looked at after the approval.
        remote: the record at the head.
        listing: every file at the same commit.
        texts_there: the sha256 that each text shown at the gate has at the same commit; None if it is not there.
        pictures: pictures of the card that go with the removed images.

    Raises:
        RemovalNotApproved: the gate is another run's, or the decision is not to remove.
    """
    if approval.removals is not Fate.REMOVE:
        raise RemovalNotApproved("the decision at the gate was to keep on the Hub what the dataset no longer has")
    if not gate.is_answered_by(approval):
        raise RemovalNotApproved("the gate was not opened by this run, so its approval does not count here")
    approved, kept = gate.removals, []
    leaving: dict[str, PublishedFile] = {}
    for path in (*approved.shards, *approved.texts):
        why = _why_not(path, approved, now, remote, listing, texts_there)
        if why is None:
            leaving[path] = approved.published[path]
        else:
            kept.append(Kept(file=path, why=why))
    rows = {}
    for path, images in approved.rows.items():
        if path in now.rows and path in remote.record.shards and approved.allows(path, now):
            rows[path] = now.rows[path]
        else:
            back = f"its {noun(images)}s are in the dataset again"
            back = "it is not as the gate showed it" if path in now.rows else back
            kept.append(Kept(file=path, why=f"{back} (approved: {number(len(images), noun(images))})"))
    return RemovalPlan(
        commit=remote.commit,
        shards={path: file for path, file in leaving.items() if path in approved.shards},
        texts={path: file for path, file in leaving.items() if path in approved.texts},
        pictures=tuple(path for path in pictures if is_our_picture(path)) if leaving or rows else (),
        rows=rows,
        kept=tuple(kept),
    )


def _why_not(
    path: str,
    approved: Removals,
    now: Removals,
    remote: Remote,
    listing: Listing,
    texts_there: Mapping[str, str | None],
) -> str | None:
    """Return why an approved file stays after all, or None if it is removed."""
    shown, listed = approved.published.get(path), listing.files.get(path)
    is_shard = path in approved.shards
    line: PublishedShard | PublishedText | None = (remote.record.shards if is_shard else remote.record.texts).get(path)
    if listed is None:
        return "it is gone from the repo already"
    if path not in (now.shards if is_shard else now.texts):
        return "it is in the dataset again, or somebody else changed it in the repo"
    if not (is_our_shard(path) if is_shard else is_our_text(path)):
        return "it lies in no folder of ours"
    if line is None or as_file(line) != shown:
        return "it was published with other bytes since the gate showed it"
    if (listed.sha256 if is_shard else texts_there.get(path)) != line.sha256:
        return "the repo holds other bytes than we published"
    return None


def deletions(plan: RemovalPlan, before: Remote) -> list[CommitOperationDelete]:
    """Return the operations that carry out a plan on top of `before`.

    Raises:
        RemovalRefused: something is not as it is in the plan. Nothing is removed then.
    """
    if before.commit != plan.commit:
        raise RemovalRefused(_refused("somebody else committed to the repo since it was looked at"))
    record = before.record
    for path, file in plan.shards.items():
        if not is_our_shard(path) or path not in record.shards or as_file(record.shards[path]) != file:
            raise RemovalRefused(_refused(f"the record does not have {path} as the gate showed it"))
    for path, file in plan.texts.items():
        if not is_our_text(path) or path not in record.texts or as_file(record.texts[path]) != file:
            raise RemovalRefused(_refused(f"the record does not have {path} as the gate showed it"))
    for path in plan.pictures:
        if not is_our_picture(path):
            raise RemovalRefused(_refused(f"{path} is no picture of the card"))
    return [CommitOperationDelete(path, is_folder=False) for path in plan.paths]


def merged_segments(change: RecordChange) -> list[CommitOperationDelete]:
    """Return the operations that take away segments of the record whose lines the same commit writes elsewhere.

    Nobody is asked about these: they hold nothing of the dataset, and no line goes with them.

    Raises:
        RemovalRefused: something else is named, or a line would go. Nothing is removed then.
    """
    kept = {path for file in change.record.files[1:] for path in file.shards}
    whole = RECORD in change.written
    for file in change.merged:
        if not is_segment(file.path) or not (whole or kept >= set(file.shards)):
            raise RemovalRefused(_refused(f"{file.path} is no segment of the record whose lines are written elsewhere"))
    return [CommitOperationDelete(file.path, is_folder=False) for file in change.merged]


def _refused(why: str) -> str:
    return (
        f"{why}. Nothing was removed from the Hub. Retry the run, which asks again, or leave it to the next night with "
        "removed=ask."
    )


def require_gone(hub: Hub, plan: RemovalPlan, commit: str) -> None:
    """Check that what was removed is no longer in the repo at this commit.

    Raises:
        VerificationFailed: some of it is still there; the message names it.
    """
    there = sorted(hub.listed(plan.paths, commit)) if plan.paths else []
    if there:
        raise VerificationFailed(
            f"{len(there)} of {len(plan.paths)} files that were removed are in {hub.target} at commit {commit[:12]}: "
            f"{', '.join(there[:5])}. Somebody put them back, or the Hub serves an older commit. Start the run again."
        )
