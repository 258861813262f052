"""Where a row's bytes are in a shard: read from the footer and the offset indexes of a Parquet file.

pyarrow reads a column chunk whole, and a file may have 2 GiB. A shard has a data page of its own for each file, with no
codec, so the file's bytes are the end of its page, and the offset index says where that is. pyarrow cannot read an
offset index, so the few structs on the way to it are read here. Sources: parquet-format, "PageIndex.md" and
"parquet.thrift" (the structs, by field id); the Apache Thrift page "Thrift Compact protocol encoding".
"""

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

MAGIC = b"PAR1"
ENDING = 8  # bytes at the end of the file: the footer's length, and the magic word
_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _STRUCT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 12
_UNCOMPRESSED = 0  # enum CompressionCodec


class NotOfOurs(Exception):
    """A shard is not written as bids-push writes one. The message says what is wrong."""


@dataclass(frozen=True, slots=True)
class Page:
    """Where a page is in the file, with its header: its first byte, its bytes, and its first row in the row group."""

    start: int
    size: int
    first_row: int


def footer_size(ending: bytes) -> int:
    """Return the bytes of the footer, from the last `ENDING` bytes of a file.

    Raises:
        NotOfOurs: the file is no Parquet file.
    """
    if len(ending) != ENDING or ending[4:] != MAGIC:
        raise NotOfOurs("it is no Parquet file")
    size: int = struct.unpack("<I", ending[:4])[0]
    return size


def pages(footer: bytes, column: Sequence[str], read: Callable[[int, int], bytes]) -> list[list[Page]]:
    """Return the pages of a column, for each row group.

    Args:
        footer: the footer, without its length.
        column: the column's path in the schema, for example nifti, bytes.
        read: reads bytes of the file: from, how many.

    Raises:
        NotOfOurs: the column or its offset index is missing, or it is compressed.
    """
    wanted = [name.encode() for name in column]
    found = []
    for group in read_struct(footer)[4]:
        chunk = next((one for one in group[1] if one[3][3] == wanted), None)
        if chunk is None or chunk[3][4] != _UNCOMPRESSED or 4 not in chunk:
            raise NotOfOurs(f"its column {'.'.join(column)} is missing, compressed, or without an offset index")
        index = read_struct(read(chunk[4], chunk[5]))
        found.append([Page(one[1], one[2], one.get(3, 0)) for one in index[1]])
    return found


def read_struct(data: bytes) -> dict[int, Any]:
    """Return a struct's fields by id: numbers, bytes, lists, and structs.

    Raises:
        NotOfOurs: it is none.
    """
    try:
        return _Reader(data).struct()
    except (IndexError, RecursionError, struct.error) as error:
        raise NotOfOurs("its footer or an offset index is damaged") from error


class _Reader:
    """Reads values of Thrift's compact protocol, one after the other."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def struct(self) -> dict[int, Any]:
        """Read a struct."""
        fields: dict[int, Any] = {}
        last = 0
        while header := self._byte():
            step, kind = header >> 4, header & 15
            last = last + step if step else self._signed()
            fields[last] = kind == _TRUE if kind in (_TRUE, _FALSE) else self._value(kind)
        return fields

    def _value(self, kind: int) -> Any:
        if kind == _STRUCT:
            return self.struct()
        if kind in (_LIST, _SET):
            return self._list()
        if kind == _BINARY:
            return self._bytes(self._unsigned())
        if kind in (_I16, _I32, _I64):
            return self._signed()
        if kind in (_TRUE, _FALSE, _BYTE):
            return self._byte()
        if kind == _DOUBLE:
            return struct.unpack("<d", self._bytes(8))[0]
        raise NotOfOurs("its footer has a value of a kind that no Parquet file has")

    def _list(self) -> list[Any]:
        header = self._byte()
        size = header >> 4 if header >> 4 < 15 else self._unsigned()
        return [self._value(header & 15) for _ in range(size)]

    def _byte(self) -> int:
        byte = self._data[self._at]
        self._at += 1
        return byte

    def _bytes(self, size: int) -> bytes:
        found = self._data[self._at : self._at + size]
        if len(found) < size:
            raise IndexError
        self._at += size
        return found

    def _unsigned(self) -> int:
        number = shift = 0
        while (byte := self._byte()) > 0x7F:
            number |= (byte & 0x7F) << shift
            shift += 7
        return number | byte << shift

    def _signed(self) -> int:
        number = self._unsigned()
        return number >> 1 ^ -(number & 1)
