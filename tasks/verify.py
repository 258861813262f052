"""Verify: compares the Hub, at one pinned commit, with what is meant to be there.

There are three levels, each with everything of the one before:

- `listing`: the path, size and sha256 of every expected shard in the listing (all pages), and its line in the record.
- `sample`: some shards are read back from the Hub, byte for byte: those just sent, and those that are due
  (`tasks.disk.sample_rounds`), so that every shard comes back once in a stated number of nights.
- `full`: every shard is read back.

A shard that failed before is read back at any level (`tasks.disk.failed_shards`).

Reading back has four parts. The bytes that the Hub sends are hashed here and compared with the receipt. The Parquet
file is opened. Every file in it is hashed and compared with the sha256 that its source file had when it was embedded.
And nibabel decodes each image to its end (`tasks.bids.decode`). A sha256 in a listing is only what an uploader claimed,
and downloads through the client check nothing.

If something could not be looked at (the Hub is away, the token has expired, this machine's disk is full), no shard has
failed: the verification ends with an error of its own, and nothing is known about the target.
"""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import monotonic
from typing import BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.bids.decode import Undecodable, decode, picture
from tasks.bids.pictures import MAX_SLICES
from tasks.disk.failed_shards import Cause, Failure
from tasks.disk.sample_rounds import Round
from tasks.hub.ahead import Ahead
from tasks.hub.client import Hub
from tasks.hub.errors import NoSuchFile
from tasks.hub.retries import RETRIES, retry_while_busy
from tasks.record.published import disagreement
from tasks.record.remote import read_remote
from tasks.report.evidence import ShardCheck, VerificationReport
from tasks.values.kinds import called, is_data, is_image, kind_of, noun, recordings
from tasks.values.models import Listing, PublicationRecord, PublishedShard, Slice, Verification

SAY_EVERY = 10.0  # seconds between lines in the log about the progress
ASKED_BY_NAME = 1000  # shards missing in a listing that are asked for by name: as many as one of its pages has


@dataclass(frozen=True)
class Reading:
    """What a run reads back besides what its level asks for, and what it has read before."""

    round: Round
    """Says which shards are due."""
    least: int = 3
    """The least number of shards in a sample."""
    sent: frozenset[str] = frozenset()
    """Paths of the shards that this run has sent. The sample begins with these."""
    failed_before: frozenset[str] = frozenset()
    """Paths of shards that failed before. They are read back at any level."""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    """The dataset's own texts that the repo must hold too."""
    own_commit: str | None = None
    """The commit that this run made last. A head that is older is not accepted."""
    commit: str | None = None
    """The commit to look at; None for the head."""
    read: tuple[PublicationRecord, Listing] | None = None
    """What this run has read from the Hub already, at the commit of the listing."""


def verify(
    hub: Hub,
    expected: Sequence[PublishedShard],
    level: Verification,
    reading: Reading,
    say: Callable[[str], None] = lambda _: None,
    found: "ReadBack | None" = None,
) -> VerificationReport:
    """Compare the target, at one commit, with the shards that should be there.

    Args:
        hub: the target.
        expected: the shards that are published, as their receipts say, or the record if they were published earlier.
        level: how deep to look.
        reading: which shards to read back, and at which commit to look.
        say: is told now and then about the progress.
        found: what an earlier try has read back. It is not read again at the same commit.

    Raises:
        Transient: the Hub could not answer; nothing is known about the target then.
    """
    found = found or ReadBack()
    commit = reading.commit or hub.head(at_least=reading.own_commit)
    lines = {shard.path: shard for shard in expected}
    record, listing = _read(hub, commit, reading.read, lines)
    lines |= {
        path: record.shards[path] for path in reading.failed_before if path in record.shards and path not in lines
    }
    failures = {one.path: one for one in _listed_wrongly(hub, lines.values(), record, listing)}
    sound = [shard for path, shard in lines.items() if path not in failures]
    chosen = _chosen(sound, level, reading)
    last_said = monotonic()
    with Ahead(hub, found.unknown(chosen, commit), commit) as ahead:
        for number, shard in enumerate(chosen, start=1):
            failure = retry_while_busy(partial(found.read, ahead, shard, commit), say)
            if failure is not None:
                failures[shard.path] = failure
            if number == len(chosen) or monotonic() > last_said + SAY_EVERY:
                say(f"read back {number} of {len(chosen)} shards, {found.size / 1e6:,.0f} MB")
                last_said = monotonic()
    failures |= {one.path: one for one in _texts_wrong(reading.texts, listing)}
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
                recordings=recordings(image.path for image in shard.images),
                beside=sum(not is_data(image.path) for image in shard.images),
                how="read back" if shard.path in read else "listing",
            )
            for shard in sound
            if shard.path not in failures
        ),
        failures=tuple(failures[path] for path in sorted(failures)),
        gone=tuple(sorted(path for path in reading.failed_before if path not in lines)),
        images_decoded=found.images,
        bytes_read_back=found.size,
        slices=tuple(found.slices),
    )


def _read(
    hub: Hub,
    commit: str,
    before: tuple[PublicationRecord, Listing] | None,
    known: Mapping[str, PublishedShard],
) -> tuple[PublicationRecord, Listing]:
    """Return the record and the listing at a commit. They are fetched unless they were read before."""
    if before is not None and before[1].commit == commit:
        return before
    return read_remote(hub, commit, known).record, hub.listing(commit)


def _chosen(sound: Sequence[PublishedShard], level: Verification, reading: Reading) -> list[PublishedShard]:
    """Return the shards to read back: those that failed before, and as many as the level asks for."""
    failed_before = [shard for shard in sound if shard.path in reading.failed_before]
    others = [shard for shard in sound if shard.path not in reading.failed_before]
    if level == "listing":
        return failed_before
    return failed_before + (others if level == "full" else reading.round.choose(others, reading.sent, reading.least))


def _listed_wrongly(
    hub: Hub, shards: Iterable[PublishedShard], record: PublicationRecord, listing: Listing
) -> Iterator[Failure]:
    """Yield a failure for each shard that is not right in the listing or in the record."""
    missing = []
    for shard in shards:
        listed = listing.files.get(shard.path)
        cause, what = Cause.CHANGED, disagreement(shard, listing)
        if what is None:
            if shard.same_but_modes(record.shards.get(shard.path)):
                continue
            cause, what = Cause.RECORD, "the record has another line for it, or none"
        elif listed is None:
            missing.append(shard)
            continue
        elif listed.sha256 is None:
            cause, what = Cause.REGULAR, f"{listed.size} bytes of text, {shard.size} bytes expected"
        yield _failure(shard, cause, what.replace("in the record", "expected"))
    short = _left_out(hub, missing, listing)
    for shard in missing:
        if shard.path in short:
            yield _failure(shard, Cause.SHORT_LISTING, "it is in the repo, and not in the listing")
        else:
            yield _failure(shard, Cause.CHANGED, "it is not in the repo")


def _left_out(hub: Hub, missing: Sequence[PublishedShard], listing: Listing) -> set[str]:
    """Return which of the shards missing in a listing are there if the Hub is asked for them by name."""
    asked = [shard.path for shard in missing[:ASKED_BY_NAME]]
    there = set(hub.listed(asked, listing.commit)) if asked else set()
    return {shard.path for shard in missing} if len(there) == len(asked) else there


def _texts_wrong(texts: Mapping[str, bytes], listing: Listing) -> Iterator[Failure]:
    """Yield a failure for each of the dataset's own texts that the repo does not hold as it is."""
    for path, data in texts.items():
        listed = listing.files.get(path)
        if listed is None or not listed.holds(data):
            what = "it is not in the repo" if listed is None else "the repo has other text"
            yield Failure(path=path, what=what, size=len(data), sha256=hashlib.sha256(data).hexdigest())


def _failure(shard: PublishedShard, cause: Cause, what: str) -> Failure:
    return Failure(path=shard.path, what=what, cause=cause, size=shard.size, sha256=shard.sha256)


def _files(parquet: pq.ParquetFile, group: int) -> Iterator[tuple[str, str, pa.Buffer | None]]:
    """Yield the path, the suffix and the bytes of each file of a row group. Shards of layout 1 hold images alone."""
    columns = [name for name in ("path", "suffix", "nifti", "content") if name in parquet.schema_arrow.names]
    table = parquet.read_row_group(group, columns=columns)
    for row in zip(*(table.column(name) for name in columns), strict=True):
        path, suffix, nifti, *content = row
        cell = nifti["bytes"] if nifti.is_valid else next(iter(content), None)
        yield path.as_py(), suffix.as_py(), cell.as_buffer() if cell is not None and cell.is_valid else None


class ReadBack:
    """The shards that were read back from the Hub so far, and slices to show."""

    def __init__(self) -> None:
        self.size = 0
        """The number of bytes that came back."""
        self.images = 0
        """The number of images that were hashed, compared and decoded."""
        self.slices: list[Slice] = []
        self._known: dict[tuple[str, PublishedShard], Failure | None] = {}

    def unknown(self, shards: Iterable[PublishedShard], commit: str) -> list[PublishedShard]:
        """Return those of these shards that were not read back at this commit yet."""
        return [shard for shard in shards if (commit, shard) not in self._known]

    def read(self, ahead: Ahead, shard: PublishedShard, commit: str) -> Failure | None:
        """Read one shard back, unless that was done already.

        Returns:
            What is wrong with it, or None.

        Raises:
            Transient: the Hub does not answer; nothing is known about the shard.
        """
        if (commit, shard) not in self._known:
            self._known[commit, shard] = self._read(ahead, shard)
        return self._known[commit, shard]

    def _read(self, ahead: Ahead, shard: PublishedShard) -> Failure | None:
        try:
            copy = ahead.take(shard)
        except NoSuchFile:
            return _failure(shard, Cause.NOT_SERVED, "the Hub says that it has no such file")
        with copy.file:
            size, sha256 = copy.size, copy.sha256
            self.size += size
            if (size, sha256) != (shard.size, shard.sha256):
                what = f"{size} bytes came back, sha256 {sha256[:12]}; expected {shard.size} bytes, {shard.sha256[:12]}"
                return _failure(shard, Cause.OTHER_BYTES, what)
            try:
                what_else = self._open(copy.file, shard)
            except Undecodable as error:
                what_else = f"it is damaged: {error}"
            except (pa.ArrowException, OSError, EOFError, ValueError) as error:
                if isinstance(error, OSError) and error.errno:  # this machine's disk, and not what came back
                    raise
                what_else = f"it cannot be opened: {type(error).__name__}: {error}"
            return _failure(shard, Cause.CONTENT, what_else) if what_else else None

    def _open(self, copy: BinaryIO, shard: PublishedShard) -> str | None:
        expected = {image.path: image for image in shard.images}
        with pq.ParquetFile(copy) as parquet:
            if parquet.metadata.num_rows != shard.rows:
                return f"{parquet.metadata.num_rows} rows came back, expected {shard.rows}"
            for group in range(parquet.metadata.num_row_groups):
                for path, suffix, data in _files(parquet, group):
                    content = expected.pop(path, None)
                    if content is None or data is None or hashlib.sha256(data).hexdigest() != content.sha256:
                        return f"the {called(kind_of(path))} {path} came back with other bytes than its source file has"
                    if is_image(path):
                        self._decode(path, suffix, data)
        return f"{noun(expected)}s missing: {', '.join(expected)}" if expected else None

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
    hub: Hub, expected: Sequence[PublishedShard], level: Verification, reading: Reading, found: ReadBack
) -> VerificationReport:
    """Do `verify` at the target's head, as a task.

    A further try does not read back again what is in `found`.
    """
    return verify(hub, expected, level, reading, say=get_run_logger().info, found=found)
