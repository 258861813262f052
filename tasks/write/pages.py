"""Pages and column chunks: a column's values of one row group, as Parquet stores them.

They are data pages of version 1, with PLAIN values, definition levels as RLE runs, no codec and no dictionary. NIfTI
images are compressed already. The rest is small beside them, so a codec is not worth it, since its output may change
with its version. Source: parquet-format, "Encodings.md" (PLAIN, RLE) and "parquet.thrift" (the structs, by field id).
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import groupby

from tasks.write import thrift
from tasks.write.schema import Cell, Leaf

PLAIN, RLE = 0, 3  # parquet.thrift, enum Encoding
INT64, BYTE_ARRAY = 2, 6  # enum Type
DATA_PAGE = 0  # enum PageType
UNCOMPRESSED = 0  # enum CompressionCodec

LONGEST_BOUND = 128  # bytes: a column chunk with a longer smallest or largest value has none in the footer


@dataclass(frozen=True, slots=True)
class Page:
    """The place of a page: its offset in the file, its bytes with its header, and its first row in the row group."""

    offset: int
    size: int
    first_row: int


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """A column chunk that is written: its pages, one after the other, and what the footer says about its values.

    Each chunk equals only itself, and is used as a key. Hashing its pages and statistics for that would take longer
    than writing it.
    """

    leaf: Leaf
    rows: int
    pages: tuple[Page, ...]
    statistics: thrift.Value | None

    @property
    def size(self) -> int:
        """Its bytes in the file."""
        return self.pages[0].size if len(self.pages) == 1 else sum(page.size for page in self.pages)


@lru_cache(maxsize=4096)  # short columns have the same few over and over
def page_header(values: int, size: int) -> bytes:
    """Return the header of a page.

    Source: parquet.thrift, PageHeader and DataPageHeader. The size is a signed 32-bit number.

    Args:
        values: the number of values in it, with nulls.
        size: the bytes of its levels and values.
    """
    data_page = {1: thrift.i32(values), 2: thrift.i32(PLAIN), 3: thrift.i32(RLE), 4: thrift.i32(RLE)}
    header = {1: thrift.i32(DATA_PAGE), 2: thrift.i32(size), 3: thrift.i32(size), 5: thrift.struct(data_page)}
    return thrift.struct(header)[1]


def levels(defined: Sequence[int]) -> bytes:
    """Return definition levels of at most 255, as RLE runs after their length in four bytes."""
    runs = b"".join(thrift.varint(len(list(run)) << 1) + bytes([level]) for level, run in groupby(defined))
    return struct.pack("<I", len(runs)) + runs


def plain(value: str | int) -> bytes:
    """Return a value in PLAIN encoding: an INT64, or a BYTE_ARRAY after its length."""
    if isinstance(value, int):
        return struct.pack("<q", value)
    encoded = value.encode()
    return struct.pack("<I", len(encoded)) + encoded


def page_and_statistics(leaf: Leaf, cells: Sequence[Cell]) -> tuple[bytes, thrift.Value]:
    """Return a whole page with its header, of a column that fits into memory, and what is known without reading it."""
    there = [cell for cell in cells if cell is not None]
    if not there:  # most columns are empty: there is one for each of BIDS' entities
        return _nulls(len(cells))
    # A null is the whole column: no struct of ours has a part that is null.
    body = levels([0 if cell is None else leaf.level for cell in cells]) + b"".join(map(plain, there))
    return page_header(len(cells), len(body)) + body, _statistics(leaf, there, len(cells) - len(there))


@lru_cache(maxsize=4096)
def _nulls(rows: int) -> tuple[bytes, thrift.Value]:
    """Return the page of a column without a value, and its statistics."""
    body = levels([0] * rows)
    return page_header(rows, len(body)) + body, _only_nulls_counted(rows)


def _statistics(leaf: Leaf, there: Sequence[str | int], nulls: int) -> thrift.Value:
    """Return what a reader may know about a column without reading it.

    That is the number of nulls and, for a prunable column, the smallest and largest value. Texts are ordered by their
    UTF-8 bytes (parquet.thrift, ColumnOrder), numbers as signed numbers.
    """
    if leaf.prunable:
        low, high = (_bound(pick(there, key=_order)) for pick in (min, max))
        if max(len(low), len(high)) <= LONGEST_BOUND:
            exact = thrift.boolean(True)
            bounds = {5: thrift.binary(high), 6: thrift.binary(low), 7: exact, 8: exact}
            return thrift.struct({3: thrift.i64(nulls), **bounds})
    return _only_nulls_counted(nulls)


@lru_cache(maxsize=4096)
def _only_nulls_counted(nulls: int) -> thrift.Value:
    return thrift.struct({3: thrift.i64(nulls)})


def _order(cell: str | int) -> bytes | int:
    return cell.encode() if isinstance(cell, str) else cell


def _bound(cell: str | int) -> bytes:
    return cell.encode() if isinstance(cell, str) else struct.pack("<q", cell)
