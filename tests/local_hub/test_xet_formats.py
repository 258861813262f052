"""The xorb and shard parsers on any bytes at all: they read or refuse, in little memory."""

from __future__ import annotations

import hashlib
import io
import tracemalloc

import lz4.frame
from hypothesis import given, settings
from hypothesis import strategies as st

from deployments.local_hub.xet import shard, xorb
from deployments.local_hub.xet.hashes import ChunkTree
from tests.local_hub.forge import Content, chunk, reference_root


def test_the_tree_over_chunks_is_the_one_of_the_specification() -> None:
    for count in [*range(1, 60), 1000, 3333]:
        chunks = [(hashlib.sha256(f"{count} {number}".encode()).digest(), number + 1) for number in range(count)]
        tree = ChunkTree()
        for digest, size in chunks:
            tree.add(digest, size)
        assert tree.root() == reference_root(chunks)


@settings(max_examples=400, deadline=None)
@given(
    data=st.binary(max_size=600),
    chunks=st.lists(st.binary(min_size=1, max_size=40), max_size=4),
    scheme=st.integers(0, 3),
)
def test_no_bytes_make_the_xorb_parser_fail_in_another_way_than_refusing(
    data: bytes, chunks: list[bytes], scheme: int
) -> None:
    packed = [lz4.frame.compress(each) if scheme in (1, 2) else each for each in chunks]
    body = b"".join(chunk(each, scheme=scheme, unpacked=len(plain)) for each, plain in zip(packed, chunks, strict=True))
    position = len(data) % (len(body) + 1)
    for candidate in (data, body, body + data, body[:position] + data + body[position:], body[:position]):
        tracemalloc.start()
        try:
            xorb.parse(io.BytesIO(candidate))
        except xorb.XetFormatError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 2_000_000


@settings(max_examples=400, deadline=None)
@given(data=st.binary(max_size=400), position=st.integers(0, 400), flip=st.integers(1, 255))
def test_no_bytes_make_the_shard_parser_fail_in_another_way_than_refusing(
    data: bytes, position: int, flip: int
) -> None:
    body = bytearray(Content([b"some chunk"]).shard)
    flipped = bytearray(body)
    flipped[position % len(body)] ^= flip
    header = bytes(body[: shard.HEADER.size])
    for candidate in (data, header + data, bytes(flipped), bytes(body[:position]), bytes(body[:position]) + data):
        tracemalloc.start()
        try:
            for _ in shard.read(io.BytesIO(candidate)):
                pass
        except xorb.XetFormatError:
            pass
        finally:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
        assert peak < 2_000_000
