"""Shards: for each file its chunk ranges, for each new xorb its chunks; records of 48 bytes behind a header of 48.

Read one record at a time from a stream, so a shard of any size takes little memory, and nothing is allocated because a
count says so. Lookup tables and a footer may follow; they repeat what was read and are not looked at. The other way
round, `write_xorbs` makes the shard that answers a question about known chunks.
Source: Hub documentation, "Xet Protocol Specification", section Shards.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from deployments.local_hub.xet.hashes import HASH_SIZE
from deployments.local_hub.xet.xorb import MAX_CHUNKS, XetFormatError, Xorb

TAG = b"HFRepoMetaData\0" + bytes((85, 105, 103, 69, 106, 123, 129, 87, 131, 165, 189, 217, 92, 205, 209, 74, 169))
HEADER = struct.Struct("<32sQQ")  # tag, version, bytes of the footer
HEADER_VERSION = 2
FOOTER = struct.Struct("<9Q32sQQ6Q4Q")
FOOTER_VERSION = 1
RECORD = struct.Struct("<32s4I")
RECORD_SIZE = 48  # bytes
BOOKEND = b"\xff" * HASH_SIZE  # ends a section

WITH_VERIFICATION = 1 << 31
WITH_METADATA = 1 << 30

BODY_LIMIT = 72 * 1024 * 1024  # bytes; clients cut shards at 64 MiB
NEVER = 2**64 - 1  # an expiry


@dataclass(frozen=True, slots=True)
class Term:
    """Chunks `start` to `end` of one xorb, `size` bytes unpacked; `proof` is the range hash over them."""

    xorb: bytes
    start: int
    end: int
    size: int
    proof: bytes


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of a file as they came, 96 bytes each: a shard may have very many of them."""

    entries: bytes
    proofs: bytes

    def __len__(self) -> int:
        return len(self.proofs) // RECORD_SIZE

    def __iter__(self) -> Iterator[Term]:
        pairs = zip(RECORD.iter_unpack(self.entries), RECORD.iter_unpack(self.proofs), strict=True)
        for (xorb, _, size, start, end), (proof, *_) in pairs:
            if not start < end <= MAX_CHUNKS:
                raise XetFormatError(f"a chunk range is out of bounds: {start} to {end}")
            yield Term(xorb, start, end, size, proof)


@dataclass(frozen=True, slots=True)
class ShardFile:
    """A file as a shard describes it; `sha256` as the client claims it, in Xet's byte order."""

    hash: bytes
    terms: Terms
    sha256: bytes | None


@dataclass(frozen=True, slots=True)
class ShardXorb:
    """A xorb as a shard describes it: its chunks' hashes, one after the other, and their unpacked sizes."""

    hash: bytes
    hashes: bytes
    sizes: tuple[int, ...]


def read(stream: BinaryIO) -> Iterator[ShardFile | ShardXorb]:
    """The files of a shard, then its xorbs; XetFormatError where the bytes are no shard."""
    header = stream.read(HEADER.size)
    if len(header) < HEADER.size:
        raise XetFormatError("the shard ends inside its header")
    tag, version, _ = HEADER.unpack(header)
    if tag != TAG or version != HEADER_VERSION:
        raise XetFormatError("this is no shard, or of a version that is not known")
    while (begin := _record(stream))[0] != BOOKEND:
        yield _file(stream, begin)
    while (begin := _record(stream))[0] != BOOKEND:
        yield _xorb(stream, begin)


def _record(stream: BinaryIO) -> tuple[bytes, int, int, int, int]:
    record = stream.read(RECORD_SIZE)
    if len(record) < RECORD_SIZE:
        raise XetFormatError("the shard ends inside a section")
    return RECORD.unpack(record)


def _records(stream: BinaryIO, count: int) -> bytes:
    # as many as the stream really has: a false count ends in an error, not in memory
    here = stream.tell()
    left = stream.seek(0, os.SEEK_END) - here
    stream.seek(here)
    if left < count * RECORD_SIZE:
        raise XetFormatError("the shard ends inside a file")
    return stream.read(count * RECORD_SIZE)


def _file(stream: BinaryIO, begin: tuple[bytes, int, int, int, int]) -> ShardFile:
    digest, flags, count, _, _ = begin
    if not flags & WITH_VERIFICATION:
        raise XetFormatError("a file comes without the hashes that prove its chunks are known")
    terms = Terms(_records(stream, count), _records(stream, count))
    sha256 = _record(stream)[0] if flags & WITH_METADATA else None
    return ShardFile(digest, terms, sha256)


def _xorb(stream: BinaryIO, begin: tuple[bytes, int, int, int, int]) -> ShardXorb:
    digest, _, count, _, _ = begin
    if not 0 < count <= MAX_CHUNKS:
        raise XetFormatError(f"a xorb cannot have {count} chunks")
    hashes = bytearray()
    sizes = []
    for _ in range(count):
        chunk, _, size, _, _ = _record(stream)
        hashes += chunk
        sizes.append(size)
    return ShardXorb(digest, bytes(hashes), tuple(sizes))


def write_xorbs(xorbs: Iterable[tuple[bytes, Xorb, int]]) -> bytes:
    """A whole shard without files, with lookup tables and footer: what a client puts into its cache of known chunks.

    Each xorb comes with a bit for each chunk that may be told of. Another has its place and nothing else: a hash of
    zeros, which no chunk has, and no size.
    """
    records = bytearray(RECORD.pack(BOOKEND, 0, 0, 0, 0))
    files_end = HEADER.size + len(records)
    xorb_lookup: list[tuple[int, int]] = []
    chunk_lookup: list[tuple[int, int, int]] = []
    index = 0
    packed_total = unpacked_total = 0
    for digest, xorb, told in sorted(xorbs, key=lambda known: struct.unpack("<4Q", known[0])):
        xorb_lookup.append((_short(digest), index))
        chunks = bytearray()
        unpacked = packed = 0
        for number in range(told.bit_length()):
            if not told >> number & 1:
                chunks += RECORD.pack(bytes(HASH_SIZE), unpacked, 0, 0, 0)
                continue
            chunk, size = xorb.hash_range(number, number + 1), xorb.unpacked(number, number + 1)
            chunks += RECORD.pack(chunk, unpacked, size, 0, 0)
            chunk_lookup.append((_short(chunk), index, number))
            unpacked += size
            start, end = xorb.packed(number, number + 1)
            packed += end - start
        records += RECORD.pack(digest, 0, told.bit_length(), unpacked, packed) + chunks
        index += 1 + told.bit_length()
        packed_total += packed
        unpacked_total += unpacked
    records += RECORD.pack(BOOKEND, 0, 0, 0, 0)
    lookup_start = HEADER.size + len(records)
    chunk_lookup.sort()
    lookups = b"".join(struct.pack("<QI", *entry) for entry in xorb_lookup)
    chunk_start = lookup_start + len(lookups)
    lookups += b"".join(struct.pack("<QII", *entry) for entry in chunk_lookup)
    footer_start = lookup_start + len(lookups)
    footer = FOOTER.pack(
        FOOTER_VERSION, HEADER.size, files_end, lookup_start, 0, lookup_start, len(xorb_lookup), chunk_start,
        len(chunk_lookup), bytes(HASH_SIZE), 0, NEVER, 0, 0, 0, 0, 0, 0,
        packed_total, unpacked_total, unpacked_total, footer_start,
    )  # fmt: skip
    return HEADER.pack(TAG, HEADER_VERSION, FOOTER.size) + bytes(records) + lookups + footer


def _short(digest: bytes) -> int:
    return int.from_bytes(digest[:8], "little")
