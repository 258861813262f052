"""Stages a shard: embeds its images and writes them as Parquet, in one pass over each, then its receipt.

The two halves are `tasks.embed` (files -> checked bytes) and `tasks.write` (bytes and rows -> Parquet). A shard
appears under its name when it is whole and on the disk, and counts as staged when its receipt is there too; until
then a crash or an error leaves nothing but a `.part` file, which the next attempt overwrites.
"""

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.embed import Check, embed
from tasks.errors import PushError
from tasks.files import whole_file
from tasks.models import ImageContent, Receipt, ShardSpec
from tasks.settings import Settings
from tasks.staging import FLUSHED_ABOVE, NO_ROOM, CannotWrite, DiskFull, Staging, result_key
from tasks.write import ShardWriter, row_groups, row_of, writing_order

SMALL_AT_ONCE = 32  # small shards (up to `FLUSHED_ABOVE`) that one task run stages


class NotText(PushError):
    """A name or a text of the dataset is not Unicode, so no table can hold it."""


def stage(spec: ShardSpec, root: Path, staging: Staging, check: Check = "trailer") -> Receipt:
    """Embed and write one shard into the staging folder, then its receipt.

    `root` is the dataset's folder. Memory does not grow with the shard. Nothing is kept between calls, so any number
    of threads may stage different shards.

    Raises:
        BadImage: an image cannot be published as it is (`tasks.embed` has the kinds); no shard, no receipt.
        DiskFull: the staging disk is full.
        CannotWrite: something is in the way in the staging folder.
        NotText: a name or a text has bytes that are not UTF-8.
    """
    file = staging.shard_file(spec)
    try:
        receipt = _write(spec, root, staging, check)
        staging.write_receipt(spec, receipt)
    except UnicodeEncodeError as error:
        raise NotText(
            f"{spec.name} has a name or a text that is not UTF-8, at its character {error.start}. Rename the file, or "
            "mend the sidecar."  # what stands there may be about a person
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


def _write(spec: ShardSpec, root: Path, staging: Staging, check: Check) -> Receipt:
    file = staging.shard_file(spec)
    groups = list(row_groups(spec.images))
    contents: dict[int, list[ImageContent]] = {}
    with whole_file(file, durable=spec.size > FLUSHED_ABOVE) as stream:
        writer = ShardWriter(stream)
        for number in writing_order(groups):
            embedded = [embed(image, root, writer, check) for image in groups[number]]
            rows = [row_of(image, content.sha256) for image, content in zip(groups[number], embedded, strict=True)]
            writer.end_row_group(number, rows)
            contents[number] = embedded
        writer.close()
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
    )


def groups(specs: Iterable[ShardSpec]) -> Iterator[tuple[ShardSpec, ...]]:
    """Cut shards into what one task run stages: a large shard alone, up to `SMALL_AT_ONCE` small ones together."""
    small: list[ShardSpec] = []
    for spec in specs:
        if spec.size > FLUSHED_ABOVE:
            yield (spec,)
            continue
        small.append(spec)
        if len(small) == SMALL_AT_ONCE:
            yield tuple(small)
            small = []
    if small:
        yield tuple(small)


def _key(_context: object, parameters: dict[str, Any]) -> str:
    """The cache key: what is staged, by its digest, whichever run asks."""
    return result_key(parameters["spec"].digest)


@task(
    name="stage-shard",
    task_run_name="stage {spec.name}",
    cache_key_fn=_key,
    persist_result=True,
    result_serializer="json",
    cache_result_in_memory=False,
)
def stage_shard(spec: ShardSpec, root: Path, staging: Staging, redo: bool) -> Receipt:
    """`stage` as *the* cached task, keyed by the shard's digest.

    A cached receipt says that the shard was staged once, not that its file is still there: the caller looks at the
    disk first, and asks for a damaged or missing one with `redo` and `refresh_cache`. Without `redo`, a shard that is
    on the disk is not embedded again even if Prefect's results were lost.
    """
    receipt = None if redo else staging.read_whole(spec)
    return receipt or stage(spec, root, staging, Settings().check)


@task(name="stage-shards", task_run_name="stage {label}", cache_policy=NO_CACHE, persist_result=False)
def stage_shards(
    specs: Sequence[ShardSpec], root: Path, staging: Staging, redo: bool, label: str
) -> tuple[Receipt | PushError, ...]:
    """Small shards, several in one task run, because one takes less time than a task run. A failure fails its own only.

    Not cached: the receipts on the disk say the same, whichever shards come together the next time.
    """
    log = get_run_logger()
    done: list[Receipt | PushError] = []
    for spec in specs:
        try:
            done.append((None if redo else staging.read_whole(spec)) or stage(spec, root, staging, Settings().check))
        except PushError as error:
            log.error("%s", error)
            done.append(error)
    return tuple(done)
