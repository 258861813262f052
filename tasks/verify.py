"""Verify: compare the Hub, at one pinned commit, with what was meant to be there.

Three levels, each with all of the one before:

- `listing`: every expected shard's path, size and sha256 in the listing, all pages, and its line in the record.
- `sample`: some shards are read back from the Hub, byte for byte.
- `full`: every shard is read back.

Reading back means: the bytes the Hub sends are hashed here and compared with the receipt, the Parquet file is opened,
every image in it is hashed and compared with the sha256 its source file had when it was embedded, and decoded by
nibabel to its end (`tasks.decode`). A listing's sha256 alone is only what an uploader claimed, and downloads through
the client check nothing.
The bytes go through an anonymous temporary file, so that nothing has to be deleted afterwards.
"""

import hashlib
import random
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.decode import Undecodable, decode, picture
from tasks.evidence import Failure, ShardCheck, Slice, VerificationReport
from tasks.hub import Hub
from tasks.models import PublishedShard, Verification
from tasks.patience import RETRIES
from tasks.pictures import MAX_SLICES
from tasks.published import read_published
from tasks.resume import disagreement


def verify(
    hub: Hub,
    expected: Sequence[PublishedShard],
    level: Verification,
    sample_shards: int = 3,
    favour: Iterable[str] = (),
    commit: str | None = None,
    say: Callable[[str], None] = lambda _: None,
) -> VerificationReport:
    """Compare the target, at its head or at `commit`, with the shards that should be there.

    Args:
        hub: the target.
        expected: the shards of the plan, as their receipts (or, where they were published earlier, the record) say.
        level: how deep to look.
        sample_shards: how many shards `sample` reads back.
        favour: paths to draw the sample from first: what this run has sent.
        commit: the commit to look at; the head by default.
        say: told now and then how far it is.
    """
    commit = commit or hub.head()
    listing = hub.listing(commit)
    record = read_published(hub, commit).record
    failures: dict[str, str] = {}
    for shard in expected:
        what = disagreement(shard, listing)
        if what is None and record.shards.get(shard.path) != shard:
            what = "the publication record does not have it as it is"
        if what is not None:
            failures[shard.path] = what.replace("in the record", "expected").replace("the record has it", "missing")
    sound = [shard for shard in expected if shard.path not in failures]
    chosen = _sample(sound, level, sample_shards, set(favour), seed=commit)
    found = ReadBack()
    for number, shard in enumerate(chosen, start=1):
        what = found.read(hub, shard, commit)
        if what is not None:
            failures[shard.path] = what
        say(f"read back {number} of {len(chosen)} shards, {found.size / 1e6:,.0f} MB")
    read = {shard.path for shard in chosen}
    return VerificationReport(
        repo_id=hub.target.repo_id,
        revision=hub.target.revision,
        commit=commit,
        level=level,
        checks=tuple(
            ShardCheck(
                path=shard.path,
                size=shard.size,
                sha256=shard.sha256,
                rows=shard.rows,
                how="read back" if shard.path in read else "listing",
            )
            for shard in sound
            if shard.path not in failures
        ),
        failures=tuple(Failure(path=path, what=what) for path, what in sorted(failures.items())),
        images_decoded=found.images,
        bytes_read_back=found.size,
        slices=tuple(found.slices),
    )


def _sample(
    shards: Sequence[PublishedShard], level: Verification, count: int, favour: set[str], seed: str
) -> list[PublishedShard]:
    """The shards to read back. Drawn by the commit, so that a repeated verification looks at the same ones."""
    if level == "listing":
        return []
    if level == "full":
        return list(shards)
    draw = random.Random(seed)
    order = sorted(shards, key=lambda shard: (shard.path not in favour, draw.random()))
    return order[:count]


class ReadBack:
    """Shards read back from the Hub: what was read so far, and slices to show."""

    def __init__(self) -> None:
        self.size = 0
        """Bytes that came back."""
        self.images = 0
        """Images that were hashed, compared and decoded."""
        self.slices: list[Slice] = []

    def read(self, hub: Hub, shard: PublishedShard, commit: str) -> str | None:
        """Read one shard back; what is wrong with it, or None."""
        with tempfile.TemporaryFile() as copy:
            size, sha256 = hub.read_back(shard.path, commit, copy)
            self.size += size
            if (size, sha256) != (shard.size, shard.sha256):
                return f"the bytes that came back are others: {size} bytes, sha256 {sha256[:12]}, expected {shard.size} bytes, {shard.sha256[:12]}"  # noqa: E501
            copy.seek(0)
            try:
                return self._open(copy, shard)
            except Undecodable as error:
                return f"came back whole, and is damaged: {error}"
            except (pa.ArrowException, OSError, EOFError, ValueError) as error:
                return f"came back whole, but cannot be opened: {type(error).__name__}: {error}"

    def _open(self, copy: BinaryIO, shard: PublishedShard) -> str | None:
        expected = {image.path: image for image in shard.images}
        with pq.ParquetFile(copy) as parquet:
            if parquet.metadata.num_rows != shard.rows:
                return f"{parquet.metadata.num_rows} rows came back, expected {shard.rows}"
            for group in range(parquet.metadata.num_row_groups):
                table = parquet.read_row_group(group, columns=["path", "suffix", "nifti"])
                for path, suffix, nifti in zip(*(table.column(name) for name in table.column_names), strict=True):
                    content = expected.pop(path.as_py(), None)
                    data = nifti["bytes"].as_buffer()
                    if content is None or hashlib.sha256(data).hexdigest() != content.sha256:
                        return f"the image {path.as_py()} came back with other bytes than its source file has"
                    self._decode(path.as_py(), suffix.as_py(), data)
        return f"images missing: {', '.join(expected)}" if expected else None

    def _decode(self, path: str, suffix: str, data: pa.Buffer) -> None:
        try:
            decode(data)
        except Undecodable as error:
            raise Undecodable(f"the image {path}: {error}") from error
        self.images += 1
        if len(self.slices) < MAX_SLICES and suffix not in {shown.suffix for shown in self.slices}:
            shown = picture(path, suffix, data)
            self.slices += [shown] if shown else []


@task(
    name="verify",
    task_run_name="verify what the Hub has ({level})",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def verify_target(
    hub: Hub,
    expected: Sequence[PublishedShard],
    level: Verification,
    sample_shards: int,
    favour: frozenset[str] = frozenset(),
) -> VerificationReport:
    """`verify` at the target's head, as a task."""
    return verify(hub, expected, level, sample_shards, favour, say=get_run_logger().info)
