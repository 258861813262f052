"""Writes a shard: Parquet whose images stream through it, a cache-sized step at a time.

pyarrow holds an image whole and walks its memory again to copy, encode, write and hash it. Here an image's bytes are
written and hashed as they come, so the memory is the step's, not the image's, and the sha256 of the whole shard is
known when the last byte is written. The same rows give the same bytes, whatever is installed.

How the file is laid out:

    PAR1
    images              nifti.bytes of every row group, the largest first: one data page an image, which is header,
                        definition level, length, the file's bytes as they are
    every other column  row group by row group, one data page a column: here because the images' sha256 is known now
    offset indexes      where each page is
    footer              schema, column chunks, statistics; `huggingface`: the Features
    footer's length, PAR1

The row groups stand in the footer in the order of the rows; where their column chunks are is free (parquet-format,
"README.md", row group). A row group is a run of images of one dataset, datatype and suffix (`row_groups`). What is
not an image is together at the end, so that one small read beside the footer's gets it for all rows. The small images
are at the end too: `datasets` streams through a buffer that reads 5 MiB further than asked, unless the file ends
before, and behind a T1w of 4 MB that would be more than the image.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, groupby
from struct import pack
from typing import BinaryIO

from tasks.values.models import Image
from tasks.write.footer import CREATED_BY, RowGroup, footer, offset_index
from tasks.write.pages import LONGEST_BOUND, Chunk, Page, levels, page, page_header, statistics
from tasks.write.schema import ARROW_SCHEMA, COLUMNS, HUGGINGFACE, IMAGE_BYTES, LEAVES, PRUNABLE, Row, row_of

__all__ = [
    "ARROW_SCHEMA",
    "COLUMNS",
    "LARGEST_IMAGE",
    "WRITER_SETTINGS",
    "ShardWriter",
    "row_groups",
    "row_of",
    "writing_order",
]

#: Bytes of images after which a row group is closed. A reader holds a row group whole, some of them twice, and the
#: Hub's viewer refuses one over 286 MiB. An image that is larger has a row group of its own.
ROW_GROUP_BYTES = 128 << 20

#: Bytes of the largest image: its page's size, with the levels and the length, is a signed 32-bit number, and so are
#: the offsets of Arrow's `binary`.
LARGEST_IMAGE = (1 << 31) - 1 - 64

#: Whatever of the writer decides a shard's bytes. The rest is in `tasks.values.models.LAYOUT_VERSION`.
WRITER_SETTINGS = {
    "created_by": CREATED_BY,
    "huggingface": HUGGINGFACE,
    "longest_bound": LONGEST_BOUND,
    "prunable": sorted(PRUNABLE),
    "row_group_bytes": ROW_GROUP_BYTES,
}

MAGIC = b"PAR1"
STEP = 256 << 10  # bytes: read, hashed and written while they are in the processor's caches
WRITE_OUT = 8 << 20  # bytes after which the disk's work is begun: without that, the fsync at the end finds all of it


def row_groups(images: Iterable[Image]) -> Iterator[tuple[Image, ...]]:
    """Cut images into row groups, in their order.

    A row group holds one dataset, datatype and suffix, so that who reads `anat_T1w` prunes every other row group by
    its statistics, and no more than `ROW_GROUP_BYTES` unless a single image is larger.
    """
    for _, run in groupby(images, key=lambda image: (image.dataset, image.datatype, image.suffix)):
        group: list[Image] = []
        held = 0
        for image in run:
            if group and held + image.size > ROW_GROUP_BYTES:
                yield tuple(group)
                group, held = [], 0
            group.append(image)
            held += image.size
        yield tuple(group)


def writing_order(groups: Sequence[Sequence[Image]]) -> list[int]:
    """The order in which the images of row groups are written: the largest first, by number."""
    return sorted(range(len(groups)), key=lambda number: -sum(image.size for image in groups[number]))


class ShardWriter:
    """Writes one shard to a file, from its first byte to its last.

    For each row group: for each image `begin_image`, then its bytes through `write`, by way of `room` or not; then
    `end_row_group` with the rows. At the end `close`. A shard has at least one row.

    It writes in the caller's thread. One more thread, to write while the next bytes are read and hashed, was tried: it
    took a third more of the processor with one shard at a time and was no faster, and slower with two
    (`benchmarks.stage`).
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self._begun = 0
        self.room = memoryview(bytearray(STEP))
        """Where the next of an image's bytes may be read to, to be given to `write`."""
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
        # POSIX_FADV_DONTNEED on dirty pages begins to write them and keeps them; only clean ones would be dropped
        if hasattr(os, "posix_fadvise"):
            self._stream.flush()
            os.posix_fadvise(self._stream.fileno(), self._begun, self.size - self._begun, os.POSIX_FADV_DONTNEED)
        self._begun = self.size

    def begin_image(self, size: int) -> None:
        """Begin the page of an image of `size` bytes, which must follow through `write`.

        Raises:
            ValueError: `size` is over `LARGEST_IMAGE`; such a page would be written in silence and never read.
        """
        if size > LARGEST_IMAGE:
            raise ValueError(f"an image of {size} bytes does not fit into a page")
        before = levels([IMAGE_BYTES.level]) + pack("<I", size)
        header = page_header(1, len(before) + size)
        self._pages.append(Page(self.size, len(header) + len(before) + size, len(self._pages)))
        self.write(header + before)

    def end_row_group(self, number: int, rows: Sequence[Row]) -> None:
        """Say that the images since the last row group are the row group `number`, from 0, with these rows."""
        pages = tuple(self._pages)
        if len(rows) != len(pages) or pages[-1].offset + pages[-1].size != self.size:
            raise ValueError("the rows and the images of a row group do not agree")
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

    def _row_group(self, rows: Sequence[Row], images: tuple[Page, ...]) -> RowGroup:
        chunks = []
        pages = bytearray()
        for leaf in LEAVES:
            if leaf is IMAGE_BYTES:
                chunks.append(Chunk(leaf, len(rows), images, None))
                continue
            cells = [row[leaf.path] for row in rows]
            data = page(leaf, cells)
            chunks.append(
                Chunk(leaf, len(rows), (Page(self.size + len(pages), len(data), 0),), statistics(leaf, cells))
            )
            pages += data
        self.write(pages)
        return RowGroup(len(rows), tuple(chunks))
