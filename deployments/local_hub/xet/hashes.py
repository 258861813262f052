"""The hashes of Xet: BLAKE3 with a key for each purpose, chunks joined to a tree whose root names a xorb or a file.

A hash is 32 bytes; its text has them as four little-endian 64-bit numbers, so it is not the hex of the bytes.
Source: Hub documentation, "Xet Protocol Specification", section Hashing.
"""

from __future__ import annotations

import re
import struct

from blake3 import blake3

HASH_SIZE = 32  # bytes
ZERO = bytes(HASH_SIZE)

# The protocol's keys: what a BLAKE3 digest is for is part of it.
CHUNK_KEY = bytes.fromhex("6697f5775b9550de3135cbaca597181c9de421109beb2b58b4d0b04b93adf229")
NODE_KEY = bytes.fromhex("017ec5c7a5472996fd946666b48a02e65ddd536f37c76dd2f86352e64a53713f")
VERIFICATION_KEY = bytes.fromhex("7f1857d6ce56ed66127ff913e7a5c3f3a4cd26d5b5db49e64124987f28fb94c3")

BRANCHING = 4  # a node ends at a child whose hash divides by this
MIN_CHILDREN = 3  # before which it does not look for such a child
MAX_CHILDREN = 2 * BRANCHING + 1

TEXT = re.compile(r"[0-9a-f]{64}")
_WORDS = struct.Struct("<4Q")


def to_text(digest: bytes) -> str:
    """A hash as the protocol writes it."""
    return "{:016x}{:016x}{:016x}{:016x}".format(*_WORDS.unpack(digest))


def from_text(text: str) -> bytes:
    """The bytes of a hash; ValueError for what is none."""
    if not TEXT.fullmatch(text):
        raise ValueError(f"{text!r} is no Xet hash")
    return _WORDS.pack(*(int(text[start : start + 16], 16) for start in range(0, 64, 16)))


def chunk_hash(data: bytes) -> bytes:
    """The hash of a chunk's bytes, unpacked."""
    return blake3(data, key=CHUNK_KEY).digest()


def range_hash(hashes: bytes) -> bytes:
    """What a shard shows for a chunk range: only someone who knows its chunks can compute it."""
    return blake3(hashes, key=VERIFICATION_KEY).digest()


def is_dedup_key(digest: bytes) -> bool:
    """Whether clients ask about this chunk by itself (one in 1,024)."""
    return int.from_bytes(digest[24:32], "little") % 1024 == 0


class ChunkTree:
    """The root over a sequence of chunks, computed as they come; memory holds a few nodes a level at any size."""

    def __init__(self) -> None:
        self._waiting: list[list[tuple[bytes, int]]] = [[]]  # by level, the children of the node not yet closed
        self._counts: list[int] = [0]

    def add(self, digest: bytes, size: int) -> None:
        """The next chunk: its hash and its bytes unpacked."""
        self._push(0, digest, size)

    def _push(self, level: int, digest: bytes, size: int) -> None:
        if level == len(self._waiting):
            self._waiting.append([])
            self._counts.append(0)
        children = self._waiting[level]
        children.append((digest, size))
        self._counts[level] += 1
        if len(children) == MAX_CHILDREN or (len(children) >= MIN_CHILDREN and digest[24] % BRANCHING == 0):
            self._close(level)

    def _close(self, level: int) -> None:
        children = self._waiting[level]
        text = "".join(f"{to_text(digest)} : {size}\n" for digest, size in children)
        total = sum(size for _, size in children)
        self._waiting[level] = []
        self._push(level + 1, blake3(text.encode(), key=NODE_KEY).digest(), total)

    def root(self) -> bytes:
        """The hash over all chunks; nothing may be added afterwards."""
        level = 0
        while level < len(self._waiting):
            if self._waiting[level]:
                if self._counts[level] == 1:
                    return self._waiting[level][0][0]
                self._close(level)
            level += 1
        return ZERO


def file_hash(tree: ChunkTree) -> bytes:
    """The hash of a file from the tree over its chunks."""
    root = tree.root()
    return ZERO if root == ZERO else blake3(root, key=ZERO).digest()
