"""The first rows of a shard, and where its files are: of Parquet, what bids-push writes and nothing else.

Bytes that are none of it end in whatever error they lead to; who calls has them all be one (`budget.as_not_shown`).
Data pages of version 1, values in PLAIN encoding, definition levels as RLE runs, no codec, no dictionary.
Source: parquet-format, parquet.thrift and "Encodings.md"; Apache Thrift, "Thrift Compact protocol encoding".
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from deployments.local_hub.preview.budget import NotShownError, Source

MAGIC = b"PAR1"
FOOTER_LIMIT = 8 * 1024 * 1024  # bytes
PAGE_LIMIT = 1024 * 1024  # bytes read of a page of texts: the first rows are there
HEADER_LIMIT = 128  # bytes of a page's header, and of the levels and length before a file's bytes
VALUES_LIMIT = 100_000  # read of a footer: 60 columns and a few row groups have a tenth
DEPTH_LIMIT = 16
GROUPS = 8  # row groups looked at

BYTE_ARRAY, INT64 = 6, 2  # Type
UNCOMPRESSED = 0  # CompressionCodec
DATA_PAGE = 0  # PageType
PLAIN, RLE = 0, 3  # Encoding

Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column chunk: the type of its values, and where its first page is."""

    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class Group:
    """A row group."""

    rows: int
    columns: dict[Path, Column]


@dataclass(frozen=True, slots=True)
class Shard:
    """A shard: the rows that it says it has, and its first row groups."""

    rows: int
    groups: tuple[Group, ...]


def open_shard(source: Source) -> Shard:
    """Read the footer. NotShownError for what is no shard."""
    if source.size < 12 or source.read(source.size - 4, source.size) != MAGIC:
        raise NotShownError("it is no Parquet file")
    (length,) = struct.unpack("<I", source.read(source.size - 8, source.size - 4))
    if length > FOOTER_LIMIT:
        raise NotShownError("its footer is too large to be shown here")
    return _shard(_Thrift(source.read(source.size - 8 - length, source.size - 8)))


def _shard(thrift: _Thrift) -> Shard:
    """FileMetaData, as far as its first row groups."""
    rows, groups = 0, list[Group]()
    for field, kind in thrift.fields():
        if field == 3:
            rows = thrift.value(kind)
        elif field == 4:
            _, count = thrift.list_header()
            groups = [_group(thrift.struct()) for _ in range(min(count, GROUPS))]
            break
        else:
            thrift.value(kind)
    if rows < 1 or not groups:
        raise NotShownError("it has no rows")
    return Shard(rows, tuple(groups))


def _group(described: dict[int, Any]) -> Group:
    columns: dict[Path, Column] = {}
    for chunk in described[1]:
        about = chunk[3]
        if about[4] != UNCOMPRESSED or 11 in about:
            raise NotShownError("it is no shard of files as bids-push writes them")
        columns[tuple(part.decode() for part in about[3])] = Column(about[1], about[9])
    if described[3] < 0:
        raise NotShownError("it is damaged: a row group has no rows")
    return Group(described[3], columns)


# pages


@dataclass(frozen=True, slots=True)
class _Page:
    """A page: how many rows it has, its first byte after the header, its bytes, and where the next one begins."""

    rows: int
    start: int
    size: int

    @property
    def stop(self) -> int:
        return self.start + self.size


def _page(source: Source, offset: int) -> _Page:
    thrift = _Thrift(source.read(offset, min(offset + HEADER_LIMIT, source.size)))
    header = thrift.struct()
    data = header[5]
    if header[1] != DATA_PAGE or header[2] != header[3] or data[2] != PLAIN or data[3] != RLE:
        raise NotShownError("it is no shard of files as bids-push writes them")
    if header[3] < 0 or data[1] < 1:
        raise NotShownError("it is damaged: a page has no rows")
    return _Page(data[1], offset + thrift.position, header[3])


def texts(source: Source, group: Group, path: Path, rows: int) -> list[str | None]:
    """The first texts of a column, a None for each null; fewer than `rows` where they are very long."""
    return [None if each is None else each.decode("utf-8", "replace") for each in _plain(source, group, path, rows)]


def numbers(source: Source, group: Group, path: Path, rows: int) -> list[int | None]:
    """The first numbers of a column, a None for each null."""
    values = _plain(source, group, path, rows)
    return [None if each is None else int.from_bytes(each, "little", signed=True) for each in values]


def _plain(source: Source, group: Group, path: Path, rows: int) -> list[bytes | None]:
    if path not in group.columns:
        return [None] * rows
    column = group.columns[path]
    page = _page(source, column.offset)
    data = source.read(page.start, min(page.stop, page.start + PAGE_LIMIT))
    defined, position = _levels(data, min(rows, page.rows), len(path))
    take = _number_at if column.type == INT64 else _text_at
    found: list[bytes | None] = []
    for there in defined:
        value, position = take(data, position) if there else (None, position)
        if position > len(data):
            break  # the rest of the page was not read
        found.append(value)
    return found


def _levels(data: bytes, rows: int, highest: int) -> tuple[list[bool], int]:
    """Which of the first rows have a value, and where the values begin."""
    (length,) = struct.unpack_from("<I", data)
    thrift = _Thrift(data[4 : 4 + length])
    defined: list[bool] = []
    while len(defined) < rows:
        run = thrift.varint()
        if run & 1 or not run:
            raise NotShownError("it is no shard of files as bids-push writes them")
        defined += [thrift.byte() == highest] * min(run >> 1, rows - len(defined))
    return defined, 4 + length


def _text_at(data: bytes, position: int) -> tuple[bytes, int]:
    if position + 4 > len(data):
        return b"", len(data) + 1
    (length,) = struct.unpack_from("<I", data, position)
    return data[position + 4 : position + 4 + length], position + 4 + length


def _number_at(data: bytes, position: int) -> tuple[bytes, int]:
    return data[position : position + 8], position + 8


def files(source: Source, group: Group, path: Path, rows: int) -> Iterator[tuple[int, int] | None]:
    """Where the files of the first rows are, as the first byte and the one after the last; None for each null."""
    if path not in group.columns:
        return
    offset, done = group.columns[path].offset, 0
    while done < rows:
        page = _page(source, offset)
        if page.rows == 1:
            yield _file(source, page, len(path))
        else:  # one page of nulls is all that a row group without such files has
            yield from [None] * min(page.rows, rows - done)
        done += page.rows
        offset = page.stop


def _file(source: Source, page: _Page, highest: int) -> tuple[int, int] | None:
    begin = source.read(page.start, min(page.stop, page.start + HEADER_LIMIT, source.size))
    (there,), position = _levels(begin, 1, highest)
    if not there:
        return None
    (length,) = struct.unpack_from("<I", begin, position)
    start = page.start + position + 4
    if start + length != page.stop:
        raise NotShownError("it is damaged: a file has another length than its page")
    return start, start + length


# Thrift


class _Thrift:
    """Reads Thrift's compact protocol; ValueError or LookupError for what is none."""

    def __init__(self, data: bytes):
        self._data = data
        self.position = 0
        self._left = VALUES_LIMIT
        self._depth = 0
        self._readers: dict[int, Callable[[], Any]] = {
            1: lambda: True, 2: lambda: False, 3: self.byte, 4: self._zigzag, 5: self._zigzag, 6: self._zigzag,
            7: self._double, 8: self._binary, 9: self._list, 10: self._list, 12: self.struct,
        }  # fmt: skip

    def byte(self) -> int:
        value = self._data[self.position]
        self.position += 1
        return value

    def varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            each = self.byte()
            value |= (each & 0x7F) << shift
            if each < 0x80:
                return value
        raise ValueError("a number without an end")

    def value(self, kind: int) -> Any:
        self._left -= 1
        if self._left < 0:
            raise ValueError("too many values")
        return self._readers[kind]()

    def fields(self) -> Iterator[tuple[int, int]]:
        """The number and type of each field of a struct, whose value has to be read before the next one."""
        field = 0
        while header := self.byte():
            field = field + (header >> 4) if header >> 4 else self._zigzag()
            yield field, header & 0x0F

    def struct(self) -> dict[int, Any]:
        self._deeper(1)
        found = {field: self.value(kind) for field, kind in self.fields()}
        self._deeper(-1)
        return found

    def list_header(self) -> tuple[int, int]:
        """The type of a list's values, and how many there are."""
        header = self.byte()
        return header & 0x0F, self.varint() if header >> 4 == 15 else header >> 4

    def _list(self) -> list[Any]:
        self._deeper(1)
        kind, count = self.list_header()
        # in a list, a boolean has a byte of its own
        found = [self.byte() == 1 if kind in (1, 2) else self.value(kind) for _ in range(count)]
        self._deeper(-1)
        return found

    def _deeper(self, by: int) -> None:
        self._depth += by
        if self._depth > DEPTH_LIMIT:
            raise ValueError("nested too deep")

    def _zigzag(self) -> int:
        value = self.varint()
        return value >> 1 ^ -(value & 1)

    def _double(self) -> float:
        self.position += 8
        (value,) = struct.unpack("<d", self._data[self.position - 8 : self.position])
        return float(value)

    def _binary(self) -> bytes:
        length = self.varint()
        self.position += length
        if self.position > len(self._data):
            raise ValueError("a text that ends early")
        return self._data[self.position - length : self.position]
