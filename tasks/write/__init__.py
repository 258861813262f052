"""Writes a shard: a Parquet file through which the files stream, in steps that fit into the processor's cache.

pyarrow holds a file whole, and walks its memory again to copy, encode, write and hash it. Here a file's bytes are
written and hashed as they come. So the memory needed is that of a step and not of an image, and the sha256 of the whole
shard is known when the last byte is written. The same rows give the same bytes, whatever is installed.

How the file is laid out:

    PAR1
    files               of every row group, the largest first: nifti.bytes of images, content of all else. One data
                        page a file, which is header, definition level, length, the file's bytes as they are
    every other column  row group by row group, one data page a column: here because the files' sha256 is known now
    offset indexes      where each page is
    footer              schema, column chunks, statistics; `huggingface`: the Features
    footer's length, PAR1

The row groups stand in the footer in the order of the rows. Their column chunks may be anywhere (parquet-format,
"README.md", row group). A row group is a run of images or recordings of one dataset, datatype and suffix, or of files
beside them (`row_groups`).

Everything that is not a file's bytes is together at the end, so that one small read besides the footer's gets it for
all rows. The small files are near the end too. `datasets` streams through a buffer that reads 5 MiB more than asked,
unless the file ends before, and after a T1w of 4 MB that would be more than the image.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from struct import pack
from typing import BinaryIO, cast

from tasks.values.kinds import DATA, Kind
from tasks.values.models import Image
from tasks.write.footer import CREATED_BY, RowGroup, footer, offset_index
from tasks.write.pages import LONGEST_BOUND, Chunk, Page, levels, page_and_statistics, page_header
from tasks.write.schema import ARROW_SCHEMA, BYTES_OF, COLUMNS, HUGGINGFACE, LEAVES, PRUNABLE, Leaf, Row, row_of

__all__ = [
    "ARROW_SCHEMA",
    "COLUMNS",
    "LARGEST_FILE",
    "WRITER_SETTINGS",
    "ShardWriter",
    "row_groups",
    "row_of",
    "writing_order",
]

#: Bytes of files after which a row group is closed. A reader holds a row group whole, some of them twice, and the
#: Hub's viewer refuses one over 286 MiB. A file that is larger has a row group of its own.
ROW_GROUP_BYTES = 128 << 20

#: Bytes of the largest file. The size of its page, with the levels and the length, is a signed 32-bit number, and so
#: are the offsets of Arrow's `binary`.
LARGEST_FILE = (1 << 31) - 1 - 64

#: Everything in the writer that decides a shard's bytes. The rest is in `tasks.values.models.LAYOUT_VERSION`.
WRITER_SETTINGS = {
    "created_by": CREATED_BY,
    "huggingface": HUGGINGFACE,
    "longest_bound": LONGEST_BOUND,
    "prunable": sorted(PRUNABLE),
    "row_group_bytes": ROW_GROUP_BYTES,
}

MAGIC = b"PAR1"
_KIND = LEAVES.index(Leaf(("kind",)))
STEP = 256 << 10  # bytes: read, hashed and written while they are in the processor's caches
WRITE_OUT = 8 << 20  # bytes after which the disk begins to write: otherwise the fsync at the end finds all of it


def row_groups(images: Iterable[Image]) -> Iterator[tuple[Image, ...]]:
    """Cut files into row groups, in their order.

    A row group of images or recordings holds one kind, dataset, datatype and suffix, so that a reader of `anat_T1w`
    skips every other row group by its statistics. Sidecars and tables, small and of many suffixes, are together: each
    row group has a price in every column. Files of other formats have row groups of their own: in the statistics,
    `recording` lies between `other` and `table`, so a reader of recordings could not skip a row group that holds both,
    and a surface may be large. A row group holds no more than `ROW_GROUP_BYTES`, unless a single file is larger.
    """
    for _, run in groupby(images, key=_run):
        group: list[Image] = []
        held = 0
        for image in run:
            if group and held + image.size > ROW_GROUP_BYTES:
                yield tuple(group)
                group, held = [], 0
            group.append(image)
            held += image.size
        yield tuple(group)


def _run(image: Image) -> tuple[str | None, ...]:
    """Return what the files of a row group have in common."""
    if image.kind in DATA:
        return (image.kind, image.dataset, image.datatype, image.suffix)
    return ("other",) if image.kind == "other" else ()


def writing_order(groups: Sequence[Sequence[Image]]) -> list[int]:
    """Return the numbers of the row groups in the order in which their files are written: the largest first."""
    return sorted(range(len(groups)), key=lambda number: -sum(image.size for image in groups[number]))


class ShardWriter:
    """A writer for one shard, from its first byte to its last.

    For each row group, call `begin_file` for each file, and then `write` with its bytes, which may be read into
    `buffer` first. After its files, call `end_row_group` with the rows. At the end call `close`. A shard has at least
    one row.

    It writes in the caller's thread. A second thread, which writes while the next bytes are read and hashed, was tried.
    It took a third more of the processor with one shard at a time and was no faster, and it was slower with two
    (`benchmarks.stage`).
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._begun = 0
        self.buffer = memoryview(bytearray(STEP))
        """A buffer into which the next bytes of a file may be read, to be given to `write`."""
        self._pages: list[Page] = []
        self._groups: dict[int, tuple[Sequence[Row], tuple[Page, ...]]] = {}
        self.size = 0
        self.write(MAGIC)

    @property
    def sha256(self) -> str:
        """The sha256 of everything written so far, in hexadecimal."""
        return self._hash.hexdigest()

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Write and hash bytes.

        Raises:
            OSError: they could not be written.
        """
        self._hash.update(data)
        self._stream.write(data)
        self.size += len(data)
        if self.size - self._begun >= WRITE_OUT:
            self._begin_write_out()

    def _begin_write_out(self) -> None:
        # POSIX_FADV_DONTNEED begins to write dirty pages, and keeps them. It would drop only clean ones.
        if hasattr(os, "posix_fadvise"):
            self._stream.flush()
            os.posix_fadvise(self._stream.fileno(), self._begun, self.size - self._begun, os.POSIX_FADV_DONTNEED)
        self._begun = self.size

    def begin_file(self, size: int, kind: Kind) -> None:
        """Begin the page of a file of `size` bytes. The bytes must follow through `write`.

        Raises:
            ValueError: `size` is over `LARGEST_FILE`. Such a page could be written without an error and never be read.
            OSError: the page's header could not be written.
        """
        if size > LARGEST_FILE:
            raise ValueError(f"a file of {size} bytes does not fit into a page")
        before = levels([BYTES_OF[kind].level]) + pack("<I", size)
        header = page_header(1, len(before) + size)
        self._pages.append(Page(self.size, len(header) + len(before) + size, len(self._pages)))
        self.write(header + before)

    def end_row_group(self, number: int, rows: Sequence[Row]) -> None:
        """End a row group: it has the files since the last one, all of them with their bytes in one column.

        Args:
            number: the number of the row group, from 0.
            rows: the rows of its files.

        Raises:
            ValueError: the rows and the files do not agree.
        """
        pages = tuple(self._pages)
        if len(rows) != len(pages) or pages[-1].offset + pages[-1].size != self.size:
            raise ValueError("the rows and the files of a row group do not agree")
        self._groups[number] = (rows, pages)
        self._pages = []

    def close(self) -> None:
        """Write every other column, the offset indexes and the footer.

        Raises:
            OSError: something could not be written.
        """
        groups = [self._row_group(*self._groups[number]) for number in range(len(self._groups))]
        indexes: dict[Chunk, tuple[int, int]] = {}
        end = bytearray()
        for chunk in chain.from_iterable(group.chunks for group in groups):
            index = offset_index(chunk)
            indexes[chunk] = (self.size + len(end), len(index))
            end += index
        metadata = footer(groups, indexes)
        self.write(end + metadata + pack("<I", len(metadata)) + MAGIC)

    def _row_group(self, rows: Sequence[Row], files: tuple[Page, ...]) -> RowGroup:
        content = BYTES_OF[cast(Kind, rows[0][_KIND])]  # the same for all of them
        chunks = []
        pages = bytearray()
        for leaf, cells in zip(LEAVES, zip(*rows, strict=True), strict=True):
            if leaf == content:
                chunks.append(Chunk(leaf, len(rows), files, None))
                continue
            data, known = page_and_statistics(leaf, cells)
            chunks.append(Chunk(leaf, len(rows), (Page(self.size + len(pages), len(data), 0),), known))
            pages += data
        self.write(pages)
        return RowGroup(len(rows), tuple(chunks))
