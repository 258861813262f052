"""A shard on the Hub. Only the parts that are wanted are fetched, as streams.

One request brings the end of the shard: the footer, the columns beside the files' bytes, and the small files too. The
other files come in streams, one stream for all files that follow each other. So a file whose bytes are there already
costs nothing, and no file is ever in memory whole.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.hub.client import Hub
from tasks.hub.remote_file import RemoteFile
from tasks.restore.pages import ENDING, NotOfOurs, Page, footer_size, pages
from tasks.restore.wanted import WantedShard
from tasks.values.kinds import KINDS, Kind

GAP = 64 << 10  # bytes between two files that are rather fetched than asked around: a request takes longer
IMAGE_BYTES, OTHER_BYTES = ("nifti", "bytes"), ("content",)
#: The columns that hold the files' bytes, by the kind of the row. A shard of layout 1 has images alone, and no kinds.
CONTENT: Mapping[Kind, tuple[str, ...]] = {kind: IMAGE_BYTES if kind == "image" else OTHER_BYTES for kind in KINDS}


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a shard without its file's bytes, and where these are in the shard."""

    path: str
    size: int
    sha256: str
    start: int
    page: int
    """The first byte of the page that the file is the end of."""

    @property
    def has_bytes(self) -> bool:
        """Whether the shard has its bytes: the page of a null is too short for any."""
        return self.start > self.page

    @property
    def stop(self) -> int:
        """The first byte after the file's."""
        return self.start + self.size


@dataclass(frozen=True)
class RemoteShard:
    """A shard at one commit."""

    hub: Hub
    shard: WantedShard
    commit: str

    @cached_property
    def rows(self) -> Mapping[str, Row]:
        """The rows by path.

        Raises:
            NotOfOurs: the shard is not written as bids-push writes one, or it is damaged.
        """
        try:
            return self._rows()
        except (pa.ArrowException, LookupError, TypeError, ValueError, OSError) as error:
            raise NotOfOurs(f"it cannot be read ({type(error).__name__})") from error

    def _rows(self) -> dict[str, Row]:
        size = footer_size(self.read(self.shard.size - ENDING, ENDING))
        footer = self.read(self.shard.size - ENDING - size, size)
        with pq.ParquetFile(pa.PythonFile(self._file, mode="r")) as parquet:
            layout_1 = "kind" not in parquet.schema_arrow.names
            lengths = [parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups)]
            table = parquet.read(["path", "size", "sha256", *([] if layout_1 else ["kind"])], use_threads=False)
        columns = [table.column(name).to_pylist() for name in ("path", "size", "sha256")]
        kinds: list[Kind] = ["image"] * table.num_rows if layout_1 else table.column("kind").to_pylist()
        if not set(kinds) <= CONTENT.keys():
            raise NotOfOurs("it has rows of a kind that this version of bids-push does not know")
        columns_of = [CONTENT[kind] for kind in kinds]
        found = {column: pages(footer, column, self.read) for column in sorted(set(columns_of))}
        places: list[Page] = []
        first = 0
        for group, length in enumerate(lengths):
            of_group = set(columns_of[first : first + length])
            if len(of_group) > 1:
                raise NotOfOurs("it has images and other files in a row group")
            for column in of_group:
                places += _single(found[column][group])
            first += length
        if len(places) != table.num_rows:
            raise NotOfOurs(f"it has {len(places)} pages of files for {table.num_rows} rows")
        return {
            path: Row(path, size, sha256, page.start + page.size - size, page.start)
            for path, size, sha256, page in zip(*columns, places, strict=True)
        }

    def read(self, start: int, size: int) -> bytes:
        """Return some bytes of the shard, from memory if they are there.

        Raises:
            NotOfOurs: the shard has no such part, or nothing of ours is as large.
        """
        try:
            return self._file.part(start, size)
        except ValueError as error:
            raise NotOfOurs(str(error)) from error

    def contents(self, rows: Iterable[Row]) -> Iterator[tuple[Row, Iterator[bytes | memoryview]]]:
        """Yield rows, each with its file's bytes as they come. The bytes of one end where the next one is asked for.

        Raises:
            Transient: the Hub does not answer, or stops in the middle.
            NotOfOurs: a row's bytes are said to be outside of the shard.
        """
        ordered = sorted(rows, key=lambda row: row.start)
        if any(row.start < 0 or row.size < 0 or row.stop > self.shard.size for row in ordered):
            raise NotOfOurs("it says of a file that it is outside of the shard")
        for row in ordered:
            if row.start >= self._file.tail_start:
                yield row, iter([self.read(row.start, row.size)])
        for run in _runs([row for row in ordered if row.start < self._file.tail_start]):
            start, stop = run[0].start, max(row.stop for row in run)
            if start == stop:  # no byte to ask for
                yield from ((row, iter(())) for row in run)
                continue
            with closing(self.hub.stream(self.shard.path, self.commit, start, stop - start)) as chunks:
                stream = _Stream(chunks, start)
                yield from ((row, stream.part(row.start, row.stop)) for row in run)

    @cached_property
    def _file(self) -> RemoteFile:
        return RemoteFile(self.hub, self.shard.path, self.shard.size, self.commit)


def _single(group: Sequence[Page]) -> Iterator[Page]:
    """Yield the pages of a row group, each of which must hold one row."""
    for number, page in enumerate(group):
        if page.first_row != number:
            raise NotOfOurs("it has more than one file in a page")
        yield page


def _runs(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Yield rows that follow each other in the shard, with little between them."""
    run = list(rows[:1])
    for before, row in pairwise(rows):
        if not before.stop <= row.start <= before.stop + GAP:
            yield run
            run = []
        run.append(row)
    if run:
        yield run


class _Stream:
    """The bytes of a shard as they come.

    Parts are taken out of them in their order, and the bytes between are passed over.
    """

    def __init__(self, chunks: Iterator[bytes], start: int) -> None:
        self._chunks = chunks
        self._at = start
        self._here = memoryview(b"")

    def part(self, start: int, stop: int) -> Iterator[memoryview]:
        """Yield the bytes from `start` to `stop`, which are positions in the shard."""
        while self._at < stop:
            if not self._here:
                self._here = memoryview(next(self._chunks, b"") or self._ended())
            if self._at < start:
                self._take(start - self._at)
            else:
                yield self._take(stop - self._at)

    def _take(self, most: int) -> memoryview:
        taken, self._here = self._here[:most], self._here[most:]
        self._at += len(taken)
        return taken

    def _ended(self) -> bytes:
        raise NotOfOurs("it ends before its last file")
