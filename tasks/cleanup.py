"""Cleanup: the only code in bids-push that deletes staged files, and the last step of every push.

Deleting is a value before it is an act. `plan_cleanup` computes a `CleanupPlan` from what a person approved, from the
verification that followed the approval, and from what is on the disk; `execute` carries it out. Right before each
unlink it checks again that

- the file has a name that bids-push gives, in the target's own folder, and is reached without following a symlink (each
  folder on the way is opened with O_NOFOLLOW, and the file is unlinked relative to the folder opened last),
- it is an ordinary file (`tasks.disk.untrusted`): no link, no FIFO, no second name elsewhere,
- a shard has the bytes that its receipt describes. This is known by the identity that it got when it was staged, or
  else (it was copied, restored, or staged by an older version) by its sha256. Any other file must be the one that was
  planned, by its identity,
- the Hub holds a shard with the same size and sha256. The Hub is asked about `ASK_AT_ONCE` shards at a time, right
  before those are unlinked.

`find_leftovers` sorts what else is in the folder. Some shards belong to no gate, because they have an older digest, or
were withdrawn. Such a shard is **stale** if the Hub is proved to have its bytes, at the head of the target or at the
commit that its receipt remembers. Otherwise it is an **only copy**, and nobody can remove it here. A shard whose
published bytes failed verification counts as an only copy too. Half-written files, receipts without a shard, and
results that nothing explains are copies of nothing, and count as stale too. Stale files are removed only if the form
says so, after the same checks.

What fails a check stays, and is listed with the reason. Files that bids-push did not make are never touched. An
interrupted cleanup can be repeated: a file that is gone already is no error. The staging root itself is never removed.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.disk.failed_shards import read_failed
from tasks.disk.staging import OURS, RECEIPT_SUFFIX, SHARD_SUFFIX, Staging, receipt_name, result_name
from tasks.disk.untrusted import Entry, identity, looked_at, opened, sha256_below, sha256_in
from tasks.hub.client import Hub
from tasks.hub.errors import RepoMissing
from tasks.hub.retries import RETRIES, retry_while_busy
from tasks.report.evidence import (
    Approval,
    Choice,
    CleanupPlan,
    CleanupResult,
    Gate,
    Kept,
    Kind,
    Leftovers,
    OnlyCopy,
    StagedFile,
    VerificationReport,
    shown_as,
)
from tasks.values.errors import PushError
from tasks.values.models import ListedFile, Receipt
from tasks.values.our_paths import other_path, shard_path

ASK_AT_ONCE = 50  # shards: two requests to the Hub before each group of so many is unlinked

ListedAt = Callable[[Sequence[str], str], Mapping[str, ListedFile]]
"""A function that returns what the Hub lists at these repo paths: at a commit, or ("") at the head of the target."""

GONE = "it is gone already"
NOTHING_ELSE = Leftovers()
DOUBTED = "what the Hub has for this shard failed verification, and was not right since"
UNPROVED = "nothing proves that the Hub has these bytes, at the head or at the commit that had them first"


class NotApproved(PushError):
    """A cleanup was asked for, and no person approved it."""


def find_leftovers(staging: Staging, explained: Sequence[Receipt], listed_at: ListedAt) -> Leftovers:
    """Sort what else is in the folder, besides the shards of these receipts and the files that belong to them.

    Args:
        staging: the target's folder.
        explained: the receipts of the shards that a gate is about.
        listed_at: says what the Hub lists.
    """
    receipts = {receipt.file: receipt for receipt in (*staging.receipts(), *explained)}
    ours, strangers = staging.ours(), staging.strangers()
    staying = {receipt.file for receipt in explained} | {name for name in strangers if name.endswith(SHARD_SUFFIX)}
    others = [entry for entry in ours if entry.name.endswith(SHARD_SUFFIX) and entry.name not in staying]
    found = [_candidate(staging, entry, receipts.get(entry.name)) for entry in others]
    candidates = [candidate for candidate in found if isinstance(candidate, StagedFile)]
    doubted, _ = read_failed(staging)
    proved = _proved([candidate for candidate in candidates if candidate.path not in doubted], listed_at)
    only = [copy for copy in found if isinstance(copy, OnlyCopy)]
    only += [
        OnlyCopy(file=one.file, size=one.size, why=DOUBTED if one.path in doubted else UNPROVED)
        for one in candidates
        if one.file not in proved
    ]
    staying |= {copy.file for copy in only}
    needed = {_receipt_beside(file) for file in staying}
    needed |= {result_name(receipt) for receipt in receipts.values() if receipt.file in staying}
    beside: dict[str, list[str]] = {}
    for file in proved:
        for name in (_receipt_beside(file), *([result_name(receipts[file])] if file in receipts else [])):
            beside.setdefault(name, []).append(file)
    rest = [
        StagedFile(
            file=entry.name,
            size=entry.status.st_size,
            kind="stale",
            identity=identity(entry.status),
            beside=tuple(beside.get(entry.name, ())),
        )
        for entry in ours
        if not entry.name.endswith(SHARD_SUFFIX) and entry.name not in needed
    ]
    return Leftovers(
        stale=(*proved.values(), *rest),
        only_copies=tuple(sorted(only, key=lambda copy: copy.file)),
        strangers=strangers,
    )


def _receipt_beside(file: str) -> str:
    return file.removesuffix(SHARD_SUFFIX) + RECEIPT_SUFFIX


def _candidate(staging: Staging, entry: Entry, receipt: Receipt | None) -> StagedFile | OnlyCopy:
    """Return a staged shard that no gate is about, with the bytes to ask the Hub for.

    If there is no receipt, the Hub is asked at the paths in the repo that the shard's name belongs to.

    Returns:
        What may be removed if the Hub has it, or an only copy.
    """
    found = identity(entry.status)
    if receipt is not None and receipt.identity == found:
        sha256 = receipt.sha256
    else:
        try:
            sha256, found = sha256_below(staging.folder, entry.name)
        except OSError as error:
            return OnlyCopy(file=entry.name, size=found.size, why=f"it cannot be read: {error.strerror}")
    if receipt is not None and (found.size, sha256) != (receipt.size, receipt.sha256):
        return OnlyCopy(file=entry.name, size=found.size, why="its bytes are not those of its receipt")
    _, subject, name = entry.name.split("/")
    return StagedFile(
        file=entry.name,
        size=found.size,
        kind="stale",
        identity=found,
        path=receipt.path if receipt else shard_path(subject, name.rsplit(".", 2)[0], hashed=False),
        shard_size=found.size,
        sha256=sha256,
        commit=receipt.commit if receipt else "",
    )


def _proved(candidates: Sequence[StagedFile], listed_at: ListedAt) -> dict[str, StagedFile]:
    """Return the shards that the Hub holds, by their staged files.

    A shard counts if the Hub holds it at the head, or else at the commit that it names.
    """
    at_head = [candidate.model_copy(update={"commit": ""}) for candidate in candidates]
    in_other_folder = [one.model_copy(update={"path": other_path(one.path)}) for one in at_head if one.path]
    proved: dict[str, StagedFile] = {}
    for asked in (at_head, in_other_folder, [candidate for candidate in candidates if candidate.commit]):
        asked = [candidate for candidate in asked if candidate.file not in proved]
        on_hub = _ask(asked, listed_at)
        proved |= {candidate.file: candidate for candidate in asked if _not_on_hub(candidate, on_hub) is None}
    return proved


def plan_cleanup(
    staging: Staging, gate: Gate, approval: Approval, report: VerificationReport, leftovers: Leftovers = NOTHING_ELSE
) -> CleanupPlan:
    """Work out which files are removed.

    These are the files that the person saw and approved, and that the last verification found on the Hub.

    Args:
        staging: the target's folder.
        gate: what the person saw.
        approval: what they decided.
        report: what the verification after that found.
        leftovers: what else is in the folder now, if they decided to remove stale files too.

    Raises:
        NotApproved: the gate is another run's, or the decision is not to delete.
    """
    if approval.decision is not Choice.DELETE:
        raise NotApproved("the decision at the gate was to keep the staged files")
    if not gate.is_answered_by(approval):
        raise NotApproved("the gate was not opened by this run, so its approval does not count here")
    verified = {(check.path, check.size, check.sha256) for check in report.checks}
    seen = set(gate.shown)
    stale = _as_shown(gate, leftovers) if approval.remove_stale else []
    leaving = {leftover.file for leftover in stale}
    why_not = {copy.file: f"it is the only copy: {copy.why}" for copy in leftovers.only_copies}
    going: list[Receipt] = []
    kept: list[Kept] = []
    receipts = [receipt for receipt in staging.receipts() if receipt.file not in leaving]
    for receipt in receipts:
        if shown_as(receipt) not in seen:
            kept.append(Kept(file=receipt.file, why=why_not.pop(receipt.file, "it was not shown at the gate")))
        elif (receipt.path, receipt.size, receipt.sha256) not in verified:
            kept.append(Kept(file=receipt.file, why="the last verification did not find it on the Hub"))
        else:
            going.append(receipt)
    let_go = {receipt.file for receipt in going}
    kept += [Kept(file=file, why=why) for file, why in why_not.items() if file not in let_go]
    needed = {result_name(receipt) for receipt in receipts if receipt.file not in let_go}
    sharing: dict[str, list[str]] = {}
    for receipt in going:
        sharing.setdefault(result_name(receipt), []).append(receipt.file)
    files: list[StagedFile] = []
    for receipt in going:  # a result that several shards share goes with the last of them, if none of them stays
        name = result_name(receipt)
        with_result = name not in needed and sharing[name][-1] == receipt.file
        files += _files_of(staging, receipt, sharing[name] if with_result else [])
    planned = {staged.file for staged in files}
    files += [leftover for leftover in stale if leftover.file not in planned | needed]
    return CleanupPlan(folder=staging.folder, files=tuple(files), kept=tuple(kept))


def _as_shown(gate: Gate, leftovers: Leftovers) -> list[StagedFile]:
    """Return the present stale files that are as the gate showed them.

    A shard is compared by its bytes, any other file by its identity.
    """
    shown = {leftover.file: leftover for leftover in gate.stale}

    def same(now: StagedFile, then: StagedFile | None) -> bool:
        if then is None or not now.is_shard:
            return then is not None and now.identity == then.identity
        return (now.shard_size, now.sha256) == (then.shard_size, then.sha256)

    going = [leftover for leftover in leftovers.stale if same(leftover, shown.get(leftover.file))]
    files = {leftover.file for leftover in going}
    return [leftover for leftover in going if files.issuperset(leftover.beside)]  # what explains a shard stays with it


def _files_of(staging: Staging, receipt: Receipt, sharing_result: Sequence[str]) -> list[StagedFile]:
    """Return the files of one shard in order: the shard, Prefect's result (if no other shard needs it), the receipt."""
    names: list[tuple[str, Kind, tuple[str, ...]]] = [(receipt.file, "shard", ())]
    names += [(result_name(receipt), "result", tuple(sharing_result))] if sharing_result else []
    names += [(receipt_name(receipt), "receipt", (receipt.file,))]
    on_hub = {"path": receipt.path, "shard_size": receipt.size, "sha256": receipt.sha256}
    found = [_staged_file(staging, name, kind, beside) for name, kind, beside in names]
    files = [staged.model_copy(update=on_hub) for staged in found if staged is not None]
    return [one.model_copy(update={"identity": receipt.identity}) if one.is_shard else one for one in files]


def _staged_file(staging: Staging, name: str, kind: Kind, beside: tuple[str, ...]) -> StagedFile | None:
    try:
        status = (staging.folder / name).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return None
    return StagedFile(file=name, size=status.st_size, kind=kind, identity=identity(status), beside=beside)


def execute(plan: CleanupPlan, listed_at: ListedAt) -> CleanupResult:
    """Carry out a plan. Check everything again right before each unlink."""
    removed: list[StagedFile] = []
    gone: list[str] = []
    refused: list[Kept] = []
    stay: set[str] = set()  # shards that were refused: what explains them stays too
    for batch in _by_shards(plan.files, ASK_AT_ONCE):
        on_hub = _ask(batch, listed_at)
        for staged in batch:
            why_not = "its shard stays" if stay.intersection(staged.beside) else _not_on_hub(staged, on_hub)
            why_not = why_not or _unlink(plan.folder, staged)
            if why_not is None:
                removed.append(staged)
            elif why_not == GONE:
                gone.append(staged.file)
            else:
                refused.append(Kept(file=staged.file, why=why_not))
                stay.add(staged.file)
    _remove_empty_folders(plan.folder, [*gone, *(staged.file for staged in removed)])
    return CleanupResult(removed=tuple(removed), gone_before=tuple(gone), refused=tuple(refused))


def _ask(files: Iterable[StagedFile], listed_at: ListedAt) -> dict[tuple[str, str], ListedFile]:
    """Ask what the Hub holds of these shards now, each at its own commit.

    Returns:
        Commit and path -> the file as the Hub lists it.
    """
    paths: dict[str, set[str]] = {}
    for staged in files:
        if staged.path is not None:
            paths.setdefault(staged.commit, set()).add(staged.path)
    return {(commit, path): file for commit in paths for path, file in listed_at(sorted(paths[commit]), commit).items()}


def _not_on_hub(staged: StagedFile, on_hub: Mapping[tuple[str, str], ListedFile]) -> str | None:
    """Return why the Hub's content does not allow this file to be removed, or None if it does."""
    if staged.path is None or staged.sha256 is None:
        return UNPROVED if staged.is_shard else None
    where = f"at commit {staged.commit[:12]}" if staged.commit else "at the head of the target"
    listed = on_hub.get((staged.commit, staged.path))
    if listed is None:
        return f"the Hub does not hold {staged.path} {where}"
    if (listed.size, listed.sha256) != (staged.shard_size, staged.sha256):
        return f"the Hub holds other bytes for {staged.path} {where}"
    return None


def _unlink(folder: Path, staged: StagedFile) -> str | None:
    """Unlink one file if it is still what was planned.

    Returns:
        Why it was not unlinked, or None if it was.
    """
    name = PurePosixPath(staged.file)
    if not OURS.fullmatch(staged.file) or ".." in name.parts:
        return "bids-push gives no such name"
    try:
        with opened(folder, name.parts[:-1]) as parent:
            why_not = _changed(parent, name.name, staged)
            if why_not is None:
                os.unlink(name.name, dir_fd=parent)
            return why_not
    except FileNotFoundError:
        return GONE
    except OSError as error:
        return f"{error.strerror}"


def _changed(parent: int, name: str, staged: StagedFile) -> str | None:
    """Return why this file is not what was planned, or None if it is.

    Raises:
        OSError: it is not there, is no ordinary file, or changes while it is read.
    """
    found = identity(looked_at(parent, name))
    if staged.identity == found:
        return None
    if not staged.is_shard:
        return "it has changed since the cleanup was planned"
    sha256, found = sha256_in(parent, name)
    if (found.size, sha256) != (staged.shard_size, staged.sha256):
        return "its bytes are not those of its receipt"
    return None


def _by_shards(files: Sequence[StagedFile], count: int) -> Iterator[list[StagedFile]]:
    """Yield the files in order, in batches with the files of at most `count` shards."""
    batch: list[StagedFile] = []
    shards: set[str | None] = set()
    for staged in files:
        if staged.path not in shards and len(shards) >= count:
            yield batch
            batch, shards = [], set()
        batch.append(staged)
        shards.add(staged.path)
    if batch:
        yield batch


def _remove_empty_folders(folder: Path, files: Iterable[str]) -> None:
    """Remove the folders that these files were in, if nothing is left in them. `rmdir` refuses any other folder."""
    left = {parent for file in files for parent in PurePosixPath(file).parents if parent.name}
    for below in sorted(left, reverse=True):  # the reverse order has a folder before the one that it is in
        with suppress(OSError), opened(folder, below.parts[:-1]) as parent:
            os.rmdir(below.name, dir_fd=parent)  # if something is in it, or it is a link, it stays


def asking(hub: Hub) -> ListedAt:
    """Return a function that asks the Hub what it holds. A commit that has left the history holds nothing."""

    def listed_at(paths: Sequence[str], commit: str) -> Mapping[str, ListedFile]:
        try:
            return hub.listed(paths, commit or hub.head())
        except RepoMissing:
            if not commit:
                raise
            return {}

    return listed_at


@task(
    name="leftovers",
    task_run_name="look at what else is staged",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def look_for_leftovers(hub: Hub, staging: Staging, explained: Sequence[Receipt]) -> Leftovers:
    """Do `find_leftovers` as a task."""
    return retry_while_busy(lambda: find_leftovers(staging, explained, asking(hub)), get_run_logger().warning)


@task(name="cleanup", task_run_name="clean up what was let go", cache_policy=NO_CACHE, persist_result=False)
def clean_up(hub: Hub, plan: CleanupPlan) -> CleanupResult:
    """Do `execute` as a task that asks the Hub."""
    log = get_run_logger()
    result = execute(plan, asking(hub))
    for kept in result.refused:
        log.warning("Not removed: %s: %s", kept.file, kept.why)
    return result
