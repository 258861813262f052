"""Restore: brings the files of a published dataset back from the Hub, with their paths, bytes and modes.

How it works: the record says which files each shard has (`wanted`). What is there already with the right bytes is kept,
and a shard whose files are all there is not fetched. Of any other shard, first its end is fetched, which says where
each file is in it (`shard`, `pages`), and then the missing files, as streams. A file's bytes go through a sha256 into a
temporary file beside its place, and get their name only if they are right and on the disk (`target_folder`).

One file that cannot be restored costs no other: it is named, with the reason. Two things stop everything: a Hub that
does not answer, and a disk that is full. The next run goes on from there.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass, field
from functools import partial
from typing import TypeVar

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.disk.paths import printable
from tasks.hub.client import Hub
from tasks.hub.errors import NoToken, OversizedFile, Refused, RepoMissing
from tasks.hub.retries import RETRIES, RETRIES_AT_THE_START, retry_while_busy
from tasks.record.remote import Remote, read_remote
from tasks.restore.pages import NotOfOurs
from tasks.restore.shard import RemoteShard, Row
from tasks.restore.target_folder import Arrivals, Into, NotRestored, has_sha256
from tasks.restore.wanted import Wanted, WantedShard
from tasks.values.errors import PushError
from tasks.values.format import number
from tasks.values.models import ImageContent, ListedFile, Listing

GROUP_BYTES = 256 << 20  # bytes of the files that one task run restores: what is shown as done at once
GROUP_SHARDS = 128
#: Shards of a task run that are restored at the same time. While one waits for the disk, the other receives.
STREAMS = 2

Item = TypeVar("Item")


@dataclass
class Outcome:
    """What became of some files. It outlives a try that failed, so that the next one goes on from it."""

    restored: dict[str, int] = field(default_factory=dict)
    """Path -> bytes of the files that were written."""
    there: dict[str, int] = field(default_factory=dict)
    """Path -> bytes of the files that were there already, with the right bytes."""
    failures: dict[str, str] = field(default_factory=dict)
    """Path -> why a file is not restored."""
    not_executable: list[str] = field(default_factory=list)
    """Paths of files that were there already, are executable as published, and are not here."""

    def found(self, into: Into, path: str, size: int, executable: bool) -> None:
        """Note that a file was there already, with the right bytes."""
        self.there[path] = size
        if executable and not into.is_executable(path):
            self.not_executable.append(path)

    def knows(self, path: str) -> bool:
        """Return whether it is known what became of a file."""
        return path in self.restored or path in self.there or path in self.failures

    @contextmanager
    def naming(self, *paths: str) -> Iterator[None]:
        """Run a block that restores these files.

        If it raises, note why those that are missing were not restored, and go on.
        """
        try:
            yield
        except NotRestored as error:
            self._fail(paths, str(error))
        except NotOfOurs as error:
            self._fail(paths, f"its shard is damaged on the Hub, or not of bids-push: {error}")
        except (Refused, OversizedFile) as error:
            self._fail(paths, str(error))
        except OSError as error:
            self._fail(paths, f"the system refuses to read or write it: {error.strerror or error}")

    def arrivals(self, into: Into) -> Arrivals:
        """Return what takes files for a folder, and notes here what became of each."""
        return Arrivals(into, self.naming, self.restored.__setitem__)

    def _fail(self, paths: Sequence[str], why: str) -> None:
        self.failures |= {path: why for path in paths if not self.knows(path)}


@task(
    name="read-published",
    task_run_name="read what is published",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES_AT_THE_START,
)
def read_published(hub: Hub) -> tuple[Remote, Listing]:
    """Read the record and the listing at the commit that the revision names now. It needs no right to write.

    Raises:
        NoToken: the repo is not to be seen without a token, and there is none.
        RepoMissing: there is no such repo or revision.
    """
    try:
        remote = read_remote(hub, hub.head())
    except RepoMissing as error:
        if hub.token:
            raise
        raise NoToken(
            f"{error} No token is set: if the repo is private, set HF_TOKEN, or name a Prefect Secret block in "
            "token_block. The role `read` is enough."
        ) from error
    return remote, hub.listing(remote.commit)


@task(name="look", task_run_name="look at what is there", cache_policy=NO_CACHE, persist_result=False)
def look_at(into: Into, wanted: Wanted) -> None:
    """Make the folder ready: it can be written to, leftovers of killed runs are gone, and the missing files fit.

    Raises:
        CannotWrite, DiskFull: it cannot be made so.
    """
    into.prepare()
    if removed := into.remove_leftovers(path for path, _ in wanted.sizes()):
        get_run_logger().info("Removed %s, which a killed run had left half written.", number(removed, "file"))
    into.require_room(wanted.sizes())


def groups(shards: Sequence[WantedShard]) -> Iterator[tuple[WantedShard, ...]]:
    """Cut shards into groups for a task run each: a large one, or small ones together."""
    group: list[WantedShard] = []
    size = 0
    for shard in shards:
        if group and (size + shard.size > GROUP_BYTES or len(group) == GROUP_SHARDS):
            yield tuple(group)
            group, size = [], 0
        group.append(shard)
        size += shard.size
    if group:
        yield tuple(group)


@task(
    name="restore",
    task_run_name="restore {label}",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def restore_group(
    hub: Hub, commit: str, into: Into, shards: Sequence[WantedShard], outcome: Outcome, label: str
) -> Outcome:
    """Restore the files of some shards.

    Args:
        hub: the target.
        commit: the commit.
        into: the folder.
        shards: the shards.
        outcome: what an earlier try has done. It is added to, and returned.
        label: the shards in a few words, for people.

    Raises:
        Transient: the Hub does not answer.
        DiskFull: the disk is full.
    """
    say = get_run_logger().warning

    def restored(shard: WantedShard) -> None:
        retry_while_busy(partial(restore_shard, hub, commit, into, shard, outcome), say)

    _at_once(restored, shards)
    return outcome


def _at_once(work: Callable[[Item], None], items: Iterable[Item]) -> None:
    """Do the work of several items at the same time. After an error those that have begun end, and no other begins."""
    with ThreadPoolExecutor(STREAMS) as pool:
        futures = [pool.submit(copy_context().run, work, item) for item in items]
        try:
            for future in futures:
                future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def restore_shard(hub: Hub, commit: str, into: Into, shard: WantedShard, outcome: Outcome) -> None:
    """Restore the files of a shard that are not there yet. Arguments and errors are those of `restore_group`."""
    missing: dict[str, ImageContent] = {}
    for file in shard.files:
        if outcome.knows(file.path):
            continue
        with outcome.naming(file.path):
            if into.has(file.path, file.size, has_sha256(file.sha256)):
                outcome.found(into, file.path, file.size, bool(file.mode))
            else:
                missing[file.path] = file
    if missing:
        _fetch(RemoteShard(hub, shard, commit), into, missing, outcome)


def _fetch(remote: RemoteShard, into: Into, missing: dict[str, ImageContent], outcome: Outcome) -> None:
    """Write the missing files of a shard."""
    with outcome.naming(*missing):
        rows = [_row(remote, file, outcome) for file in missing.values()]
        with outcome.arrivals(into) as arrivals:
            for row, chunks in remote.contents(row for row in rows if row):
                arrivals.put(row.path, row.size, row.sha256, chunks, bool(missing[row.path].mode))
        into.flush(missing)


def _row(remote: RemoteShard, file: ImageContent, outcome: Outcome) -> Row | None:
    """Return a file's row if it says the same of the file as the record does."""
    row = remote.rows.get(file.path)
    if row and row.has_bytes and (row.size, row.sha256) == (file.size, file.sha256):
        return row
    what = (
        "has no row for it" if not row else "has another size or sha256 for it" if row.has_bytes else "lacks its bytes"
    )
    outcome.failures[file.path] = f"its shard {remote.shard.path} {what}: somebody has changed the shard or the record"
    return None


@task(name="restore-texts", task_run_name="restore the texts", cache_policy=NO_CACHE, persist_result=False, **RETRIES)
def restore_texts(hub: Hub, commit: str, into: Into, wanted: Wanted, outcome: Outcome) -> Outcome:
    """Restore the dataset's own texts. Arguments and errors are those of `restore_group`."""
    say = get_run_logger().warning

    def restored(path: str) -> None:
        if not outcome.knows(path):
            with outcome.naming(path):
                arguments = wanted.texts[path], outcome, path in wanted.executable
                retry_while_busy(partial(restore_text, hub, commit, into, path, *arguments), say)

    _at_once(restored, wanted.texts)
    into.flush(wanted.texts)
    return outcome


def restore_text(
    hub: Hub, commit: str, into: Into, path: str, listed: ListedFile, outcome: Outcome, executable: bool
) -> None:
    """Restore a text that is not there yet. Arguments and errors are those of `restore_group`."""
    if into.has(path, listed.size, lambda stream: listed.holds(stream.read())):
        outcome.found(into, path, listed.size, executable)
        return
    data = hub.read(listed.path, commit)
    if data is None or not listed.holds(data):
        raise NotRestored("the Hub sends other bytes than it lists")
    with outcome.arrivals(into) as arrivals:
        arrivals.put(path, len(data), hashlib.sha256(data).hexdigest(), [data], executable)


class NotAllRestored(PushError):
    """Some files were not restored; the others were."""


NAMED = 20  # files that are named in a state; an artifact has all of them


def not_all(failures: dict[str, str]) -> str:
    """Return the sentence that names files which were not restored, and why."""
    listed = "\n".join(f"  {printable(path)}: {why}" for path, why in sorted(failures.items())[:NAMED])
    more = f"\n  and {len(failures) - NAMED:,} more" if len(failures) > NAMED else ""
    return f"{listed}{more}"
