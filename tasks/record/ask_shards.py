"""Reads from a shard in the repo which rows it holds, where its line in the record cannot be relied on.

The record says which rows a published shard has, and so which rows would go if the shard was replaced or removed.
Anybody who may write to the repo may take a line out, or edit one. So before a shard in the repo is replaced, its
`path` column is read

- if the record has no line for it, or one that is about other bytes than the repo has: the record may be an older one;
- if nobody vouches for the record: its files are not those with which the index was written, or there is no index to
  tell. Then the shards that would leave the repo are read too, and those that are held back for some rows;
- if the record was edited, and neither record nor dataset know the shard: its line may have gone along with
  participants who have withdrawn.

A shard that would lose rows of which the record says nothing gets a line that says so (`Remote.corrected`). From there
on it is treated as any other: it is held back, and a person is asked. Where the record is as a push has left it,
nothing is read. Whoever edits the index to go with the lines can hide rows; they could as well delete the shard.

A file that cannot be read is no shard of ours, or the Hub sends other bytes than it holds. Before one is replaced or
removed, all of it is read, and its sha256 tells.
"""

from collections.abc import Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from tempfile import TemporaryFile
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE
from pydantic import ValidationError

from tasks.hub.client import Hub
from tasks.hub.remote_file import RemoteFile
from tasks.hub.retries import RETRIES
from tasks.record.published import Work, disagreement
from tasks.record.remote import Correction, Remote
from tasks.record.removals import is_our_shard
from tasks.values.errors import PushError
from tasks.values.models import ImageContent, Listing, PublishedShard, ShardSpec

AT_ONCE = 8  # shards that are read at the same time
#: In a line that was read from a shard: nobody knows the digest that the shard was made with. No plan has this one, so
#: such a shard is never taken for one that is published as it is to be.
NO_DIGEST = "0" * 64


class ShardUnreadable(PushError):
    """The Hub sends other bytes of a shard than it lists, so nobody knows which rows would go if it was replaced."""


def to_ask(work: Work, remote: Remote, listing: Listing) -> tuple[str, ...]:
    """Return the shards of the repo that may hold rows which the record does not name, and which would go.

    Args:
        work: what is to be done, by the record alone.
        remote: the record.
        listing: what the repo holds.
    """
    record = remote.record
    kept = (
        [path for path, line in record.shards.items() if disagreement(line, listing) is None] if record.vouched else []
    )
    paths = {spec.path for spec in work.missing}.difference(kept)
    if not record.vouched:
        paths |= {spec.path for spec in work.held_back} | work.removals.shards.keys()
    if record.edited:
        known = record.shards.keys() | {spec.path for spec in (*work.done, *work.missing, *work.held_back)}
        paths |= listing.files.keys() - known
    return tuple(sorted(path for path in paths if path in listing.files and is_our_shard(path)))


def read_lines(
    hub: Hub, paths: Sequence[str], listing: Listing, going: Collection[str] = ()
) -> dict[str, PublishedShard]:
    """Read from shards themselves which files they hold.

    Args:
        hub: the target.
        paths: the shards.
        listing: what the repo holds.
        going: those that would be replaced or removed.

    Returns:
        A line for each shard by its path. A file that is no shard of ours has no line, because it holds no row of ours.

    Raises:
        Transient: the Hub does not answer.
        ShardUnreadable: it sends other bytes than it lists, of a shard that would be replaced or removed.
    """
    with ThreadPoolExecutor(AT_ONCE) as threads:
        found = threads.map(lambda path: _read_line(hub, listing, path, path in going), paths)
        return {line.path: line for line in found if line is not None}


def _read_line(hub: Hub, listing: Listing, path: str, going: bool) -> PublishedShard | None:
    listed = listing.files[path]
    files = _files_in(pa.PythonFile(RemoteFile(hub, path, listed.size, listing.commit)))
    if files is None and going and listed.sha256:
        files = _files_in_all_of(hub, path, listing)
    if files is None or (sha256 := listed.sha256 or hub.sha256_of(path, listing.commit)) is None:
        return None
    return PublishedShard(path=path, digest=NO_DIGEST, sha256=sha256, size=listed.size, rows=len(files), images=files)


def _files_in_all_of(hub: Hub, path: str, listing: Listing) -> tuple[ImageContent, ...] | None:
    """Return what `_files_in` returns of all of a file, once its bytes are known to be those that are listed.

    Raises:
        ShardUnreadable: they are others.
    """
    with TemporaryFile() as whole:
        _, sha256 = hub.read_back(path, listing.commit, whole)
        if sha256 != listing.files[path].sha256:
            raise ShardUnreadable(
                f"the Hub sends other bytes of {path} than it lists, and the record does not say for certain what that "
                "shard holds, since somebody has edited it or the shard. So nobody can know which rows would go if it "
                "was replaced. Nothing was staged, sent or removed. Start again later. If it stays so, the stored file "
                "is damaged: delete it on the Hub, where its history keeps it, and push again."
            )
        return _files_in(whole)


def _files_in(file: IO[bytes] | pa.NativeFile) -> tuple[ImageContent, ...] | None:
    """Return the files that a shard says it holds, or None if it is no shard of ours."""
    try:
        with pq.ParquetFile(file) as parquet:
            table = parquet.read(["path", "size", "sha256"])
        return tuple(ImageContent(**row) for row in table.to_pylist())
    except (pa.ArrowException, ValidationError, LookupError, TypeError, ValueError, OSError):
        return None


@task(
    name="ask-shards",
    task_run_name="read from {count} on the Hub which rows they hold",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def ask_shards(
    hub: Hub, paths: Sequence[str], listing: Listing, going: Collection[str], count: str
) -> dict[str, PublishedShard]:
    """Do `read_lines` as a task. `count` says in the UI how many shards they are."""
    return read_lines(hub, paths, listing, going)


def corrected(remote: Remote, plan: Sequence[ShardSpec], held: Mapping[str, PublishedShard]) -> Remote:
    """Return what the target holds, with lines that name the rows which the record does not.

    Args:
        remote: what the target holds, by its record.
        plan: the shards of the dataset.
        held: what the shards say themselves.
    """
    planned = {row.path for spec in plan for row in spec.rows}
    paths = {spec.path for spec in plan}
    corrections = []
    for path, line in held.items():
        before, rows = remote.record.shards.get(path), {file.path for file in line.images}
        if path in paths and (before is None or before.sha256 != line.sha256) and rows <= planned:
            continue  # nothing would go: the shard is published anew, with its line
        if before is not None and rows == {file.path for file in before.images}:
            continue
        corrections.append(Correction(before, line))
    return replace(
        remote,
        record=remote.record.with_lines(one.line for one in corrections),
        corrected=tuple(corrections),
    )
