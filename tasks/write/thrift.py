"""The part of Thrift's compact protocol in which a Parquet file's headers and footer are written.

A value is a pair of the protocol's type code and its encoding, so that a struct can put the code into its field
headers, and a list into its own header. Only what `tasks.write` needs is here, and only writing. Source: the Apache
Thrift page "Thrift Compact protocol encoding".
"""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

Value = tuple[int, bytes]

_TRUE, _FALSE, _I16, _I32, _I64, _BINARY, _LIST, _STRUCT = 1, 2, 4, 5, 6, 8, 9, 12
_SHORT_LIST = 15  # elements: from here on the length does not fit into the list's header byte

#: A footer has thousands of numbers and fields, nearly all of them small. Looking them up takes less time than making
#: them.
_ONE_BYTE = tuple(bytes([number]) for number in range(0x80))
_FIELD = {(step, kind): bytes([step << 4 | kind]) for step in range(1, 16) for kind in range(1, 13)}


def varint(number: int) -> bytes:
    """Return an unsigned number as ULEB128: seven bits a byte, the lowest first."""
    if number < 0x80:
        return _ONE_BYTE[number]
    if number < 0x4000:
        return bytes((number & 0x7F | 0x80, number >> 7))
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def zigzag(number: int) -> bytes:
    """Return the encoding of a signed number of any size."""
    return varint(number << 1 if number >= 0 else ~(number << 1))


def boolean(value: bool) -> Value:
    """Return a boolean field of a struct. Its value is in its type code."""
    return (_TRUE if value else _FALSE), b""


def i16(number: int) -> Value:
    """Return a signed 16-bit number."""
    return _I16, zigzag(number)


def i32(number: int) -> Value:
    """Return a signed 32-bit number, or an enum."""
    return _I32, zigzag(number)


def i64(number: int) -> Value:
    """Return a signed 64-bit number."""
    return _I64, zigzag(number)


def binary(value: bytes | str) -> Value:
    """Return bytes, or text as UTF-8."""
    encoded = value.encode() if isinstance(value, str) else value
    return _BINARY, varint(len(encoded)) + encoded


def items(values: Sequence[Value]) -> Value:
    """Return a list of at least one value, all of one type."""
    kind = values[0][0]
    size = len(values)
    header = bytes([size << 4 | kind]) if size < _SHORT_LIST else bytes([0xF0 | kind]) + varint(size)
    return _LIST, header + b"".join(encoded for _, encoded in values)


def struct(fields: Mapping[int, Value | None]) -> Value:
    """Return a struct of the fields that are not None. Their ids must ascend."""
    parts: list[bytes] = []
    last = 0
    for field, value in fields.items():
        if value is not None:
            kind, content = value
            parts += (_FIELD.get((field - last, kind)) or bytes([kind]) + zigzag(field), content)
            last = field
    return _STRUCT, b"".join(parts) + b"\0"


class Place(NamedTuple):
    """A place in a struct for the encoding of a value that is known later."""

    kind: int


A_NUMBER_OF_32_BITS, A_NUMBER_OF_64_BITS, A_STRUCT = Place(_I32), Place(_I64), Place(_STRUCT)


class Template(NamedTuple):
    """A struct or a list with places in it. What stands around them is encoded once, for as many as there will be."""

    kind: int
    around: tuple[bytes, ...]
    """What stands before the first place, between each two, and after the last."""

    def filled(self, *places: bytes) -> Value:
        """Return the value with these encodings in its places, in their order."""
        parts = [self.around[0]]
        for place, rest in zip(places, self.around[1:], strict=True):
            parts += (place, rest)
        return self.kind, b"".join(parts)


def template(fields: Mapping[int, Value | Template | Place]) -> Template:
    """Return a struct of these fields, in which some are places. Their ids must ascend."""
    around, last = [b""], 0
    for field, value in fields.items():
        kind = value.kind if isinstance(value, Template | Place) else value[0]
        around[-1] += _FIELD.get((field - last, kind)) or bytes([kind]) + zigzag(field)
        last = field
        if isinstance(value, Place):
            around.append(b"")
        elif isinstance(value, Template):
            around[-1] += value.around[0]
            around += value.around[1:]
        else:
            around[-1] += value[1]
    around[-1] += b"\0"
    return Template(_STRUCT, tuple(around))


def of_one(item: Template) -> Template:
    """Return a list of one item in which there are places."""
    first, *others = item.around
    return Template(_LIST, (bytes([1 << 4 | item.kind]) + first, *others))
