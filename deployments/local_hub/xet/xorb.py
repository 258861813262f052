"""Xorbs: chunks one after the other, each behind an 8-byte header, packed as they are, as LZ4 or as byte-grouped LZ4.

Nothing in a header is believed before it is checked against the limits of the format and what was really unpacked; a
xorb's name is computed again from its chunks. Source: Hub documentation, "Xet Protocol Specification", section Xorbs.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

import lz4.frame

from deployments.local_hub.xet.hashes import ChunkTree, chunk_hash

HEADER_SIZE = 8  # bytes: version, 3 bytes of packed length, scheme, 3 bytes of unpacked length
FOOTER_IDENT = b"XETBLOB"  # begins the optional footer; it repeats what is known and is not kept
FOOTER_LIMIT = 1024 * 1024  # bytes

MAX_UNPACKED_CHUNK = 128 * 1024  # bytes
MAX_PACKED_CHUNK = 2 * MAX_UNPACKED_CHUNK  # bytes
MAX_CHUNKS = 8 * 1024
MAX_UNPACKED = 64 * 1024 * 1024  # bytes
BODY_LIMIT = MAX_UNPACKED + MAX_CHUNKS * HEADER_SIZE + FOOTER_LIMIT  # bytes a sent xorb may have

STORED, LZ4, GROUPED_LZ4 = 0, 1, 2


class XetFormatError(ValueError):
    """A xorb or shard that is not what the format says, with a sentence for a person."""


@dataclass(frozen=True)
class Xorb:
    """What is known of a xorb without its data: for each chunk its hash and where it ends, packed and unpacked."""

    hashes: bytes
    packed_ends: tuple[int, ...]
    unpacked_ends: tuple[int, ...]

    @property
    def chunks(self) -> int:
        """How many chunks there are."""
        return len(self.packed_ends)

    def packed(self, start: int, end: int) -> tuple[int, int]:
        """First byte and the one after the last of chunks `start` to `end`, as stored."""
        return (self.packed_ends[start - 1] if start else 0), self.packed_ends[end - 1]

    def unpacked(self, start: int, end: int) -> int:
        """Bytes of chunks `start` to `end`, unpacked."""
        return self.unpacked_ends[end - 1] - self.unpacked_start(start)

    def unpacked_start(self, chunk: int) -> int:
        """Bytes before a chunk, unpacked."""
        return self.unpacked_ends[chunk - 1] if chunk else 0

    def hash_range(self, start: int, end: int) -> bytes:
        """The hashes of chunks `start` to `end`, one after the other."""
        return self.hashes[start * 32 : end * 32]


def unpack(scheme: int, data: bytes, size: int) -> bytes:
    """A chunk's bytes; XetFormatError unless exactly `size` of them come out."""
    if scheme == STORED:
        unpacked = data
    elif scheme in (LZ4, GROUPED_LZ4):
        reader = lz4.frame.LZ4FrameDecompressor()
        try:
            # one more than expected is enough to see that there is too much, and all that memory is spent on
            unpacked = reader.decompress(data, max_length=size + 1)
        except (RuntimeError, ValueError, EOFError) as error:
            raise XetFormatError(f"a chunk cannot be unpacked: {error}") from None
        if not reader.eof or reader.unused_data:
            raise XetFormatError("a chunk's packed data does not end where its header says")
        if scheme == GROUPED_LZ4 and len(unpacked) == size:
            unpacked = _ungroup(unpacked)
    else:
        raise XetFormatError(f"unknown packing scheme {scheme}")
    if len(unpacked) != size:
        raise XetFormatError(f"a chunk has {len(unpacked)} bytes where its header says {size}")
    return unpacked


def _ungroup(grouped: bytes) -> bytes:
    # bytes 0, 4, 8, ... come first, then 1, 5, 9, ...: put them back
    size = len(grouped)
    data = bytearray(size)
    start = 0
    for lane in range(4):
        count = (size - lane + 3) // 4
        data[lane::4] = grouped[start : start + count]
        start += count
    return bytes(data)


def read_chunks(stream: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Each chunk of a xorb: the byte after it, and what it unpacks to. Stops before a footer."""
    position = 0
    while header := stream.read(HEADER_SIZE):
        if header[: len(FOOTER_IDENT)] == FOOTER_IDENT:
            if len(stream.read(FOOTER_LIMIT)) == FOOTER_LIMIT:
                raise XetFormatError("the footer is too long")
            return
        if len(header) < HEADER_SIZE:
            raise XetFormatError("the xorb ends inside a chunk's header")
        version, scheme = header[0], header[4]
        packed, unpacked = int.from_bytes(header[1:4], "little"), int.from_bytes(header[5:8], "little")
        if version != 0:
            raise XetFormatError(f"unknown chunk version {version}")
        if not 0 < packed <= MAX_PACKED_CHUNK or not 0 < unpacked <= MAX_UNPACKED_CHUNK:
            raise XetFormatError(f"a chunk's lengths are out of bounds: {packed} packed, {unpacked} unpacked")
        data = stream.read(packed)
        if len(data) < packed:
            raise XetFormatError("the xorb ends inside a chunk")
        position += HEADER_SIZE + packed
        yield position, unpack(scheme, data, unpacked)


def parse(stream: BinaryIO) -> tuple[bytes, Xorb]:
    """A xorb's hash and index, computed from its bytes; XetFormatError if it breaks the format.

    Reads as it goes: memory holds one chunk, not the xorb.
    """
    tree = ChunkTree()
    hashes = bytearray()
    packed_ends: list[int] = []
    unpacked_ends: list[int] = []
    total = 0
    for end, chunk in read_chunks(stream):
        digest = chunk_hash(chunk)
        tree.add(digest, len(chunk))
        hashes += digest
        total += len(chunk)
        packed_ends.append(end)
        unpacked_ends.append(total)
        if len(packed_ends) > MAX_CHUNKS or total > MAX_UNPACKED:
            raise XetFormatError(f"a xorb has at most {MAX_CHUNKS} chunks and {MAX_UNPACKED} bytes")
    if not packed_ends:
        raise XetFormatError("a xorb has at least one chunk")
    return tree.root(), Xorb(bytes(hashes), tuple(packed_ends), tuple(unpacked_ends))


def pack_ends(xorb: Xorb) -> bytes:
    """The two lists of ends, for the database."""
    return struct.pack(f"<{2 * xorb.chunks}I", *xorb.packed_ends, *xorb.unpacked_ends)


def unpack_ends(hashes: bytes, ends: bytes) -> Xorb:
    """The index as the database holds it."""
    numbers = struct.unpack(f"<{len(ends) // 4}I", ends)
    half = len(numbers) // 2
    return Xorb(hashes, numbers[:half], numbers[half:])
