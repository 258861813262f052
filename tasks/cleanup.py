"""Cleanup: the only code in bids-push that deletes, and the tail of every push.

Deleting is a value before it is an act. `plan_cleanup` computes a `CleanupPlan` from what a person approved, from the
verification made after the approval, and from what is on the disk; `execute` carries it out. Right before each
unlink it is checked again that

- the file is in the target's own folder, reached without following a symlink (each folder on the way is opened with
  O_NOFOLLOW, and the file is unlinked relative to the folder so opened),
- it is a regular file with the size and the mtime it was planned with,
- the Hub holds the shard with the same size and sha256 at the head of the target: asked for `ASK_AT_ONCE` files at a
  time, right before those are unlinked.

Whatever fails a check stays, and is listed with the reason. Files that bids-push did not make are never touched.
Interrupted, it can be repeated: what is gone already is no error. The staging root itself is never removed.
"""

import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.errors import PushError
from tasks.evidence import (
    Approval,
    Choice,
    CleanupPlan,
    CleanupResult,
    Gate,
    Kept,
    Kind,
    Removal,
    VerificationReport,
    shown_as,
)
from tasks.files import TEMPORARY_SUFFIX
from tasks.hub import Hub
from tasks.models import ListedFile, Receipt
from tasks.staging import RECEIPT_SUFFIX, Staging, result_key

ASK_AT_ONCE = 50  # shards: two requests to the Hub before each so many are unlinked
OURS = re.compile(
    rf"^(shards/[^/]+/[^/]+({re.escape(RECEIPT_SUFFIX)}|\.parquet)({re.escape(TEMPORARY_SUFFIX)})?"
    r"|results/stage-\d+-[0-9a-f]{64})$"
)

Held = Callable[[Sequence[str]], Mapping[str, ListedFile]]
"""What the Hub holds of these repo paths, at the head of the target, now."""


class NotApproved(PushError):
    """A cleanup was asked for without a person's approval."""


def stale_files(staging: Staging, receipts: Sequence[Receipt]) -> tuple[Removal, ...]:
    """Leftovers of bids-push in the folder that none of these receipts explains, known by the shape of their names."""
    explained = {name for receipt in receipts for name in (receipt.file, receipt_name(receipt), result_name(receipt))}
    names = (name for name in _files(staging.folder) if OURS.match(name) and name not in explained)
    return tuple(removal for name in names if (removal := _removal(staging, name, "stale")) is not None)


def receipt_name(receipt: Receipt) -> str:
    """Where a receipt is, relative to the target's folder."""
    return receipt.file.removesuffix(".parquet") + RECEIPT_SUFFIX


def result_name(receipt: Receipt) -> str:
    """Where Prefect's result of staging the shard is, relative to the target's folder. Small shards share one."""
    return f"results/{receipt.result or result_key(receipt.digest)}"


def plan_cleanup(staging: Staging, gate: Gate, approval: Approval, report: VerificationReport) -> CleanupPlan:
    """Work out which files go: those that the person saw, approved, and that the last verification found on the Hub.

    Raises:
        NotApproved: the gate is another run's, or the decision is not to delete.
    """
    if approval.decision is not Choice.DELETE:
        raise NotApproved("the decision at the gate was to keep the staged files")
    if gate.flow_run_id != approval.flow_run_id or gate.opened_at_commit is None:
        raise NotApproved("the gate was not opened by this run, so its approval does not count here")
    verified = {(check.path, check.size, check.sha256) for check in report.checks}
    seen = set(gate.shown)
    stale = {leftover.file: leftover for leftover in gate.stale if approval.remove_stale and OURS.match(leftover.file)}
    going: list[Receipt] = []
    kept: list[Kept] = []
    receipts = [receipt for receipt in staging.receipts() if receipt.file not in stale]
    for receipt in receipts:
        if shown_as(receipt) not in seen:
            kept.append(Kept(file=receipt.file, why="it was not shown at the gate"))
        elif (receipt.path, receipt.size, receipt.sha256) not in verified:
            kept.append(Kept(file=receipt.file, why="the last verification did not find it on the Hub"))
        else:
            going.append(receipt)
    removals: list[Removal] = []
    last = {result_name(receipt): receipt for receipt in receipts}
    leaving = {receipt.file for receipt in going}
    needed = {result_name(receipt) for receipt in receipts if receipt.file not in leaving}
    for receipt in going:  # a result that several shards share goes with the last of them, if none of them stays
        alone = last[result_name(receipt)] is receipt and result_name(receipt) not in needed
        removals += _removals(staging, receipt, with_result=alone)
    planned = {removal.file for removal in removals} | {file.file for file in kept}
    removals += [leftover for file, leftover in stale.items() if file not in planned]
    return CleanupPlan(folder=staging.folder, removals=tuple(removals), kept=tuple(kept))


def _removals(staging: Staging, receipt: Receipt, with_result: bool) -> list[Removal]:
    """The files of one shard: the shard itself, then (if no other needs it) Prefect's result, and its receipt last."""
    names: list[tuple[str, Kind]] = [(receipt.file, "shard")]
    names += [(result_name(receipt), "result")] if with_result else []
    names += [(receipt_name(receipt), "receipt")]
    on_hub = {"path": receipt.path, "shard_size": receipt.size, "sha256": receipt.sha256}
    found = (_removal(staging, name, kind) for name, kind in names)
    return [removal.model_copy(update=on_hub) for removal in found if removal is not None]


def _removal(staging: Staging, name: str, kind: Kind) -> Removal | None:
    try:
        status = (staging.folder / name).lstat()
    except FileNotFoundError:
        return None
    return Removal(file=name, size=status.st_size, mtime_ns=status.st_mtime_ns, kind=kind)


def execute(plan: CleanupPlan, held: Held) -> CleanupResult:
    """Carry out a plan, checking again right before each unlink."""
    removed: list[Removal] = []
    gone: list[str] = []
    refused: list[Kept] = []
    for batch in _by_shards(plan.removals, ASK_AT_ONCE):
        on_hub = held(sorted({removal.path for removal in batch if removal.path is not None}))
        stay: set[str] = set()  # shards whose file was refused: what explains it stays too
        for removal in batch:
            why_not = _not_on_hub(removal, on_hub) or ("its shard stays" if removal.path in stay else None)
            why_not = why_not or _unlink(plan.folder, removal)
            if why_not is None:
                removed.append(removal)
            elif why_not == GONE:
                gone.append(removal.file)
            else:
                refused.append(Kept(file=removal.file, why=why_not))
                stay.update({removal.path} if removal.path else ())
    _remove_empty_folders(plan.folder)
    return CleanupResult(removed=tuple(removed), gone_before=tuple(gone), refused=tuple(refused))


GONE = "it is gone already"


def _not_on_hub(removal: Removal, on_hub: Mapping[str, ListedFile]) -> str | None:
    if removal.path is None:
        return None
    listed = on_hub.get(removal.path)
    if listed is None:
        return f"the Hub does not hold {removal.path} at the head of the target"
    if (listed.size, listed.sha256) != (removal.shard_size, removal.sha256):
        return f"the Hub holds other bytes for {removal.path} at the head of the target"
    return None


def _unlink(folder: Path, removal: Removal) -> str | None:
    """Unlink one file if it is still the one that was planned; why not, or None."""
    name = PurePosixPath(removal.file)
    if name.is_absolute() or ".." in name.parts:
        return "its name leaves the target's folder"
    try:
        with _opened(folder, name.parts[:-1]) as parent:
            status = os.stat(name.name, dir_fd=parent, follow_symlinks=False)
            if not stat.S_ISREG(status.st_mode):
                return "it is not a regular file"
            if (status.st_size, status.st_mtime_ns) != (removal.size, removal.mtime_ns):
                return "it has changed since the cleanup was planned"
            os.unlink(name.name, dir_fd=parent)
    except FileNotFoundError:
        return GONE
    except OSError as error:
        return f"{error.strerror}"
    return None


@contextmanager
def _opened(folder: Path, parts: Sequence[str]) -> Iterator[int]:
    """A descriptor of a folder below the target's, none of the steps to it a symlink."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
    descriptor = os.open(folder, flags)
    try:
        for part in parts:
            inner = os.open(part, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
        yield descriptor
    finally:
        os.close(descriptor)


def _by_shards(removals: Sequence[Removal], count: int) -> Iterator[list[Removal]]:
    """The removals in order, the files of at most `count` shards at a time."""
    batch: list[Removal] = []
    shards: set[str | None] = set()
    for removal in removals:
        if removal.path not in shards and len(shards) >= count:
            yield batch
            batch, shards = [], set()
        batch.append(removal)
        shards.add(removal.path)
    if batch:
        yield batch


def _remove_empty_folders(folder: Path) -> None:
    """Remove the folders below the target's that nothing is left in; `rmdir` refuses any other."""
    for _, folders, _, descriptor in os.fwalk(folder, topdown=False, follow_symlinks=False):
        for name in folders:
            with suppress(OSError):  # something is in it, or it is a link: it stays
                os.rmdir(name, dir_fd=descriptor)


def _files(folder: Path) -> list[str]:
    """Every file below a folder, links included and not followed, relative and sorted."""
    return sorted(
        (Path(top) / name).relative_to(folder).as_posix()
        for top, _, names in os.walk(folder, followlinks=False)
        for name in names
    )


@task(name="cleanup", task_run_name="clean up what was let go", cache_policy=NO_CACHE, persist_result=False)
def clean_up(hub: Hub, plan: CleanupPlan) -> CleanupResult:
    """`execute` as a task, asking the Hub at the head of the target."""
    log = get_run_logger()

    def held(paths: Sequence[str]) -> Mapping[str, ListedFile]:
        return hub.listed(paths, hub.head()) if paths else {}

    result = execute(plan, held)
    for kept in result.refused:
        log.warning("Not removed: %s: %s", kept.file, kept.why)
    return result
