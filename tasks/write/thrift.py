"""The part of Thrift's compact protocol in which a Parquet file's headers and footer are written.

A value is a pair of the protocol's type code and its encoding, so that a struct can put the code into its field
headers, and a list into its own header. Only what `tasks.write` needs is here, and only writing. Source: the Apache
Thrift page "Thrift Compact protocol encoding".
"""

from collections.abc import Mapping, Sequence

Value = tuple[int, bytes]
Begun = tuple[bytes, int]  # the first fields of a struct, encoded, and the id of the last of them

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
    encoded = bytearray()
    while number > 0x7F:
        encoded.append(number & 0x7F | 0x80)
        number >>= 7
    encoded.append(number)
    return bytes(encoded)


def _zigzag(number: int) -> bytes:
    return varint(number << 1 if number >= 0 else ~(number << 1))


def boolean(value: bool) -> Value:
    """Return a boolean field of a struct. Its value is in its type code."""
    return (_TRUE if value else _FALSE), b""


def i16(number: int) -> Value:
    """Return a signed 16-bit number."""
    return _I16, _zigzag(number)


def i32(number: int) -> Value:
    """Return a signed 32-bit number, or an enum."""
    return _I32, _zigzag(number)


def i64(number: int) -> Value:
    """Return a signed 64-bit number."""
    return _I64, _zigzag(number)


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


def struct(fields: Mapping[int, Value | None], before: Begun = (b"", 0)) -> Value:
    """Return a struct of the fields that are not None. Their ids must ascend, and come after those in `before`."""
    return _STRUCT, begun(fields, before)[0] + b"\0"


def begun(fields: Mapping[int, Value | None], before: Begun = (b"", 0)) -> Begun:
    """Return the first fields of a struct."""
    encoded, last = before
    parts = [encoded]
    for field, value in fields.items():
        if value is not None:
            kind, content = value
            parts += (_FIELD.get((field - last, kind)) or bytes([kind]) + _zigzag(field), content)
            last = field
    return b"".join(parts), last
