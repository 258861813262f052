"""Stages a shard: embeds its images and writes them as Parquet, in one pass over each image, and then its receipt.

The two halves are `tasks.embed` (files -> checked bytes) and `tasks.write` (bytes and rows -> Parquet). A shard gets
its name when it is whole and on the disk. It counts as staged when its receipt is there too. Before that, a crash or an
error leaves nothing but a `.part` file, which the next attempt overwrites.

`stage_group` is *the* cached task. One run of it stages one large shard, or some small ones together, because a task
run takes longer than staging a small shard. Groups are cut from the whole plan, by the shards' names alone. So they are
the same in every run, whatever is missing in it, and a group that an earlier run has staged comes back through
Prefect's cache.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.logging import get_run_logger

from tasks.disk.files import whole_file
from tasks.disk.staging import FLUSHED_ABOVE, NO_ROOM, CannotWrite, DiskFull, Staging, result_key
from tasks.disk.untrusted import identity
from tasks.embed import Check, embed
from tasks.hub.budget import Fence
from tasks.runs.lease import TargetLost
from tasks.values.errors import PushError
from tasks.values.models import Identity, ImageContent, Receipt, ShardSpec, Value
from tasks.values.settings import Settings
from tasks.write import ShardWriter, row_groups, row_of, writing_order

#: How many small shards (up to `FLUSHED_ABOVE`) one task run stages. From the first number on, a group ends at the next
#: name that `_ends_group`, which is one in 16. It ends at the second number at the latest. The average is about 30.
FEWEST_TOGETHER, MOST_TOGETHER = 16, 48


class NotUnicode(PushError):
    """A name or a text of the dataset is not Unicode, so no table can hold it."""


class NotStaged(PushError):
    """Some shards of a group could not be staged. The others are staged."""

    def __init__(self, receipts: tuple[Receipt, ...], failures: Mapping[str, PushError]) -> None:
        super().__init__(receipts, failures)
        self.receipts = receipts
        self.failures = failures
        """The errors, by the shard's path in the repo."""

    def __repr__(self) -> str:
        return f"NotStaged({', '.join(self.failures)})"  # Prefect logs it, and a receipt names each file

    def __str__(self) -> str:
        first = [str(error) for error in self.failures.values()][:5]
        more = len(self.failures) - len(first)
        return "\n".join([*first, *([f"and {more} more"] if more else [])])


def stage(
    spec: ShardSpec,
    root: Path,
    staging: Staging,
    check: Check = "full",
    result: str = "",
    fence: Fence = lambda: None,
) -> Receipt:
    """Embed one shard's images, write it into the staging folder, and then write its receipt.

    Memory does not grow with the shard. Nothing is kept between calls, so any number of threads may stage different
    shards.

    Args:
        spec: the shard.
        root: the dataset's folder.
        staging: where to stage.
        check: how much of an image's gzip stream is checked.
        result: the name of Prefect's result that will hold the receipt too.
        fence: is called before the shard gets its name. What it raises leaves no shard.

    Raises:
        BadImage: an image cannot be published as it is (`tasks.embed` has the kinds). There is no shard and no receipt.
        DiskFull: the staging disk is full.
        CannotWrite: something is in the way in the staging folder.
        NotUnicode: a name or a text has bytes that are not UTF-8.
    """
    file = staging.shard_file(spec)
    try:
        staging.require_own_folders(file.parent)
        receipt = _write(spec, file, root, staging, check, result, fence)
        staging.write_receipt(receipt)
    except UnicodeEncodeError as error:
        raise NotUnicode(
            f"{spec.name} has a name or a text that is not UTF-8, at its character {error.start}. Rename the file, or "
            "mend the sidecar."  # the value is not shown, because it may be about a person
        ) from error
    except OSError as error:
        if error.errno in NO_ROOM:
            raise DiskFull(
                f"{spec.name} does not fit into {staging.folder} ({error.strerror}). Free some room there, or set "
                "BIDS_PUSH_STAGING_ROOT (or the staging_root parameter) to a larger disk, and run again: what is "
                "staged stays."
            ) from error
        raise CannotWrite(
            f"{spec.name} cannot be written to {error.filename or file} ({error.strerror}). Move away what is there, "
            "or give the user who runs this the right to write there."
        ) from error
    return receipt


def _write(
    spec: ShardSpec, file: Path, root: Path, staging: Staging, check: Check, result: str, fence: Fence
) -> Receipt:
    groups = list(row_groups(spec.rows))
    contents: dict[int, list[ImageContent]] = {}
    with whole_file(file, durable=spec.size > FLUSHED_ABOVE, writer=staging.writer) as stream:
        writer = ShardWriter(stream)
        for number in writing_order(groups):
            embedded = [embed(image, root, writer, check) for image in groups[number]]
            rows = [row_of(image, content.sha256) for image, content in zip(groups[number], embedded, strict=True)]
            writer.end_row_group(number, rows)
            contents[number] = embedded
        writer.close()
        stream.flush()
        written = identity(os.fstat(stream.fileno()))
        fence()
    images = tuple(content for number in range(len(groups)) for content in contents[number])
    return Receipt(
        path=spec.path,
        digest=spec.digest,
        sha256=writer.sha256,
        size=writer.size,
        rows=len(images),
        images=images,
        name=spec.name,
        file=file.relative_to(staging.folder).as_posix(),
        result=result,
        identity=_identity(file, written),
    )


def _identity(file: Path, written: Identity) -> Identity | None:
    """Return the identity of a shard under its name if it is the file that was written, else None.

    A rename changes only the ctime.
    """
    found = identity(file.lstat())
    return found if replace(found, ctime_ns=written.ctime_ns) == written else None


@dataclass(frozen=True)
class Group:
    """Shards of the plan that one task run stages: one large shard, or small ones that follow each other."""

    specs: tuple[ShardSpec, ...]

    @property
    def paths(self) -> frozenset[str]:
        """The paths of its shards in the repo."""
        return frozenset(spec.path for spec in self.specs)

    @property
    def key(self) -> str:
        """The cache key: what would be staged, by the digests of all its shards, whichever of them a run asks for."""
        if len(self.specs) == 1:
            return result_key(self.specs[0].digest)
        return result_key(hashlib.sha256("\n".join(spec.digest for spec in self.specs).encode()).hexdigest())

    @property
    def label(self) -> str:
        """The group's name in a few words."""
        first = self.specs[0].name
        return first if len(self.specs) == 1 else f"{first} and {len(self.specs) - 1} more"


def groups(plan: Iterable[ShardSpec]) -> Iterator[Group]:
    """Cut a plan into groups. A shard that comes or goes changes its own group, and at most a few after it."""
    small: list[ShardSpec] = []
    for spec in plan:
        if spec.size > FLUSHED_ABOVE:
            yield Group((spec,))
            continue
        small.append(spec)
        if len(small) >= FEWEST_TOGETHER and (_ends_group(spec) or len(small) == MOST_TOGETHER):
            yield Group(tuple(small))
            small = []
    if small:
        yield Group(tuple(small))


def _ends_group(spec: ShardSpec) -> bool:
    return zlib.crc32(spec.path.encode(errors="surrogateescape")) % 16 == 0


class StagedGroup(Value):
    """The result of staging a group."""

    receipts: tuple[Receipt, ...]
    """The receipts of all shards of the group that are staged by now: those that were asked for, and those that were
    there.
    """


def _key(_context: object, parameters: dict[str, Any]) -> str:
    group: Group = parameters["group"]
    return group.key


@task(
    name="stage",
    task_run_name="stage {group.label}",
    cache_key_fn=_key,
    persist_result=True,
    result_serializer="json",
    cache_result_in_memory=False,
)
def stage_group(
    group: Group,
    missing: frozenset[str],
    redo: Mapping[str, Identity | None],
    root: Path,
    staging: Staging,
    fence: Fence = lambda: None,
) -> StagedGroup:
    """Stage the shards of a group that are missing on the Hub: *the* cached task.

    A cached result says that the shards were staged once, not that their files are still there. So the caller looks at
    the disk first, and asks with `refresh_cache` for a group in which a file is missing.

    Args:
        group: the group, as it is in the plan.
        missing: the paths (in the repo) of the shards that are wanted.
        redo: the shards among them that are embedded even if a staged file seems to be there, each with the identity
            of the file that is not to be used, if there is one. A file that came after that is the work of another try
            of this very task, on a machine that was lost. The others are embedded only if there is none, so that
            losing Prefect's results costs no embedding.
        root: the dataset's folder.
        staging: where to stage.
        fence: is called before each shard gets its name. What it raises ends the task.

    Raises:
        NotStaged: some could not be staged. An error is no result, so the next run tries them again.
        TargetLost: the fence says so.
    """
    log, settings = get_run_logger(), Settings()
    receipts: list[Receipt] = []
    failures: dict[str, PushError] = {}
    for spec in group.specs:
        receipt = staging.read_whole(spec)
        if receipt and spec.path in redo and staging.identity_of(receipt.file) == redo[spec.path]:
            receipt = None
        try:
            if receipt is None and spec.path in missing:
                receipt = stage(spec, root, staging, settings.check, group.key, fence)
        except TargetLost:  # of the run, and not of this shard
            raise
        except PushError as error:
            log.error("%s", error)
            failures[spec.path] = error
        receipts += [receipt] if receipt else []
    if failures:
        raise NotStaged(tuple(receipts), failures)
    return StagedGroup(receipts=tuple(receipts))
