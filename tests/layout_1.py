"""Repos as earlier versions made them: of layout 1, with neither `kind` nor `content`; and with images alone."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd

from tasks.card import side_files
from tasks.commit import commit
from tasks.commit.other_files import Besides, as_recorded
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.change import identity_of
from tasks.record.remote import INDEX, read_remote
from tasks.stage import stage
from tasks.values.models import PublishedShard
from tasks.write import WRITER_SETTINGS

Line = TypeVar("Line", bound=PublishedShard)

CARD = "---\nlicense: cc0-1.0\n---\n"

#: The columns that layout 2 has brought.
NEW = frozenset({"kind", "content", "aslcontext", "blood", "channels", "electrodes", "coordsystem"})


def rewritten(shard: bytes, change: Callable[[pa.Table], pa.Table], one_group: bool = False) -> bytes:
    """A shard in which each row group is changed, with a page for each cell as before.

    With `one_group`, all of its rows come into one row group.
    """
    made = BytesIO()
    with pq.ParquetFile(BytesIO(shard)) as parquet:
        groups = [change(parquet.read_row_group(number)) for number in range(parquet.num_row_groups)]
    pages = {"data_page_size": 1, "write_batch_size": 1, "write_page_index": True}
    with pq.ParquetWriter(made, groups[0].schema, compression="none", use_dictionary=False, **pages) as writer:
        for table in [pa.concat_tables(groups)] if one_group else filter(len, groups):
            writer.write_table(table, row_group_size=table.num_rows)
    return made.getvalue()


def as_layout_1(shard: bytes) -> bytes:
    """A shard without the columns of layout 2, with the images alone."""

    def of_images(table: pa.Table) -> pa.Table:
        images = table.filter(table["nifti"].is_valid())
        return images.drop_columns([name for name in table.column_names if name in NEW])

    return rewritten(shard, of_images)


def publish_as_layout_1(hub: Hub, source: Path, staging: Staging) -> dict[str, PublishedShard]:
    """Publish a dataset as layout 1 had it, to a repo that never holds anything else; the lines of the record.

    Args:
        hub: the target.
        source: the dataset's folder.
        staging: a folder to make the shards in.
    """
    lines = publish_as_before_0_8(hub, source, staging, as_layout_1)
    say_layout(hub, 1, hub.head())
    return lines


def publish_as_before_0_8(
    hub: Hub, source: Path, staging: Staging, change: Callable[[bytes], bytes] = bytes
) -> dict[str, PublishedShard]:
    """Publish a dataset without the files beside its images, with each shard changed; the lines of the record."""
    hub.prepare(private=True)
    dataset = load(source)
    lines, files = {}, []
    for spec in plan(replace(dataset, files=()), WRITER_SETTINGS):
        receipt = stage(spec, source, staging)
        data = change((staging.folder / receipt.file).read_bytes())
        digest = hashlib.sha256(b"before 0.8" + spec.digest.encode()).hexdigest()
        changed = {"digest": digest, "sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        lines[spec.path] = receipt.line().model_copy(update=changed)
        files.append(CommitOperationAdd(spec.path, data))
    texts = side_files(dataset)
    besides = Besides(lambda record, existing: CARD, texts, as_recorded(texts), identity_of(dataset))
    commit(hub, read_remote(hub), list(lines.values()), files, besides)
    return lines


def say_layout(hub: Hub, layout: int, head: str) -> str:
    """Have the record's index at the head say this layout, as a push of another version does; the commit."""
    record = read_remote(hub, head).record.model_copy(update={"layout": layout})
    return hub.commit([CommitOperationAdd(INDEX, record.dump_index())], "Publish", head)
