"""Compresses a byte stream to gzip, with the same output on every machine.

What a zlib writes for the same input differs between builds (zlib, zlib-ng, ISA-L), so the demo data brings its own
encoder, as small as the format allows: one dynamic block of RFC 1951 that holds literals only, no matches. The images
are noise over a smooth picture, in which matches find next to nothing anyway. All arithmetic is on integers.

It is fast because numpy does the bit packing: two bytes at a time are looked up in a table of their joined codes, two
of those are joined to at most 60 bits, and these are shifted into place and merged into 64-bit words.
"""

import heapq
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

Ints = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]

END_OF_BLOCK = 256
MAX_CODE_BITS = 15
# RFC 1952: magic, method "deflate", no flags (no name), mtime 0, no extra flags, unknown system
GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
# bytes packed at once: the temporary arrays of one piece stay in a core's cache
PIECE = 1 << 16


def code_lengths(counts: Ints) -> list[int]:
    """Gives the Huffman code length in bits of each symbol, none over 15; every symbol gets a code."""
    weights = [int(count) + 1 for count in counts]
    while True:
        lengths = _huffman(weights)
        if max(lengths) <= MAX_CODE_BITS:
            return lengths
        weights = [(weight + 1) // 2 for weight in weights]  # flatter, and so less deep: bzip2's way


def _huffman(weights: list[int]) -> list[int]:
    # (weight, number): the number breaks ties, so that the tree is the same everywhere
    heap = [(weight, number) for number, weight in enumerate(weights)]
    heapq.heapify(heap)
    parents = [0] * (2 * len(weights) - 1)
    number = len(weights)
    while len(heap) > 1:
        first, one = heapq.heappop(heap)
        second, other = heap[0]
        parents[one] = parents[other] = number
        heapq.heapreplace(heap, (first + second, number))
        number += 1
    depths = [0] * len(parents)
    for node in range(len(parents) - 2, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[: len(weights)]


def _canonical_codes(lengths: list[int]) -> list[int]:
    """Gives each symbol's code as RFC 1951, 3.2.2 numbers them, with its bits in the order in which they are sent."""
    codes = [0] * len(lengths)
    code = 0
    for length in range(1, MAX_CODE_BITS + 1):
        for symbol, other in enumerate(lengths):
            if other == length:
                codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
                code += 1
        code <<= 1
    return codes


def _block_header(lengths: list[int]) -> tuple[int, int]:
    """Gives the bits that open the one and last block, and their number (RFC 1951, 3.2.7).

    Code lengths are sent plainly in 4 bits each: the code over them gives 0..15 a length of 4, and the three repeat
    codes none. Two distance codes of 1 bit stand for the matches that never come: a complete code, which every
    decoder takes.
    """
    fields = [(1, 1), (2, 2), (len(lengths) - 257, 5), (2 - 1, 5), (19 - 4, 4)]
    fields += [(0 if symbol in (16, 17, 18) else 4, 3) for symbol in _LENGTH_ORDER]
    fields += [(int(f"{length:04b}"[::-1], 2), 4) for length in [*lengths, 1, 1]]
    bits = size = 0
    for value, width in fields:
        bits |= value << size
        size += width
    return bits, size


_LENGTH_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)


class GzipEncoder:
    """Encodes one stream: `feed` what there is as often as needed, then `finish`. Both give bytes to be written."""

    def __init__(self, counts: Ints) -> None:
        """Takes how often each byte value is expected, shape (256,): the nearer to the truth, the smaller the file."""
        lengths = code_lengths(np.append(counts, 0))
        codes = _canonical_codes(lengths)
        self._end = codes[END_OF_BLOCK], lengths[END_OF_BLOCK]
        self._singles = list(zip(codes, lengths, strict=True))
        code = np.array(codes[:256], np.uint64)
        length = np.array(lengths[:256], np.uint64)
        # index: first byte + 256 * second byte, which is how a little-endian uint16 reads them
        self._pair_codes = (code[None, :] | (code[:, None] << length[None, :])).reshape(-1)
        self._pair_lengths = (length[None, :] + length[:, None]).reshape(-1)
        self._bits, self._size = _block_header(lengths)
        self._rest = b""
        self._crc = 0
        self._total = 0
        self._head = GZIP_HEADER

    def feed(self, data: npt.NDArray[np.uint8]) -> Iterator[bytes]:
        """Encodes a piece of the stream, shape (n,)."""
        self._crc = zlib.crc32(data.data, self._crc)
        self._total += data.size
        if self._rest:
            data = np.concatenate([np.frombuffer(self._rest, np.uint8), data])
        whole = data.size // 4 * 4
        self._rest = data[whole:].tobytes()
        yield self._drain()
        for start in range(0, whole, PIECE):
            yield self._pack(data[start : min(start + PIECE, whole)])

    def finish(self) -> bytes:
        """Closes the block and adds the trailer: CRC-32 and size of what was fed."""
        for code, length in [*(self._singles[byte] for byte in self._rest), self._end]:
            self._put(code, length)
        tail = self._bits.to_bytes((self._size + 7) // 8, "little")
        return tail + struct.pack("<II", self._crc, self._total & 0xFFFFFFFF)

    def _put(self, code: int, length: int) -> None:
        self._bits |= code << self._size
        self._size += length

    def _drain(self) -> bytes:
        """Gives the whole words that wait, and keeps less than 64 bits."""
        words = self._size // 64
        out = self._head + (self._bits & ((1 << 64 * words) - 1)).to_bytes(8 * words, "little")
        self._head = b""
        self._bits >>= 64 * words
        self._size -= 64 * words
        return out

    def _pack(self, data: npt.NDArray[np.uint8]) -> bytes:
        pairs = data.view("<u2").astype(np.intp)  # numpy looks up by intp; converting once is cheaper than twice
        codes = self._pair_codes.take(pairs)
        lengths = self._pair_lengths.take(pairs)
        quads: Words = codes[0::2] | (codes[1::2] << lengths[0::2])
        ends = np.cumsum(lengths[0::2] + lengths[1::2], dtype=np.uint64)
        ends += np.uint64(self._size)
        starts = np.concatenate([np.array([self._size], np.uint64), ends[:-1]])
        shifts = starts & np.uint64(63)
        word_of = starts >> np.uint64(6)
        # a code has at most 60 bits, so at least one starts in every word: no word is empty
        firsts = np.concatenate([[0], np.flatnonzero(word_of[1:] != word_of[:-1]) + 1])
        words = np.zeros(int(word_of[-1]) + 2, np.uint64)
        filled = np.bitwise_or.reduceat(quads << shifts, firsts)
        begin = int(word_of[0])
        words[begin : begin + filled.size] = filled
        words[0] |= np.uint64(self._bits)
        # only the last code that starts in a word can run over its end
        lasts = np.append(firsts[1:], quads.size) - 1
        over = (quads[lasts] >> np.uint64(1)) >> (np.uint64(63) - shifts[lasts])
        words[begin + 1 : begin + 1 + over.size] |= over
        whole, self._size = divmod(int(ends[-1]), 64)
        self._bits = int(words[whole]) & ((1 << self._size) - 1)
        return words[:whole].astype("<u8", copy=False).tobytes()
