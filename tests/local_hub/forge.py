"""Xorbs and shards made by hand, right or wrong: what a client that cheats, or a damaged one, would send."""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass, field
from typing import Any

from blake3 import blake3
from huggingface_hub.utils import get_session

from deployments.local_hub.xet.hashes import (
    ChunkTree,
    chunk_hash,
    file_hash,
    from_text,
    range_hash,
    to_text,
)
from deployments.local_hub.xet.shard import (
    BOOKEND,
    HEADER,
    HEADER_VERSION,
    RECORD,
    TAG,
    WITH_METADATA,
    WITH_VERIFICATION,
)
from tests.local_hub.running import RunningHub


def chunk(data: bytes, *, scheme: int = 0, packed: int | None = None, unpacked: int | None = None) -> bytes:
    """One chunk of a xorb; lengths are true unless given."""
    header = bytes([0]) + (len(data) if packed is None else packed).to_bytes(3, "little")
    return header + bytes([scheme]) + (len(data) if unpacked is None else unpacked).to_bytes(3, "little") + data


@dataclass
class Content:
    """Some content in one xorb, and the shard that describes it; every field can be falsified."""

    chunks: list[bytes]
    sha256: str = ""
    file_hash: bytes = b""
    proof: bytes = b""
    start: int = 0
    end: int = 0
    size: int = 0
    xorb_hash: bytes = b""
    flags: int = WITH_VERIFICATION | WITH_METADATA
    file_entries: int = 1
    hashes: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.hashes = [chunk_hash(each) for each in self.chunks]
        tree = ChunkTree()
        for digest, each in zip(self.hashes, self.chunks, strict=True):
            tree.add(digest, len(each))
        self.xorb_hash = tree.root()
        self.file_hash = file_hash(tree)
        self.proof = range_hash(b"".join(self.hashes))
        self.end = len(self.chunks)
        self.size = len(self.data)
        self.sha256 = hashlib.sha256(self.data).hexdigest()

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def xorb(self) -> bytes:
        return b"".join(chunk(each) for each in self.chunks)

    @property
    def shard(self) -> bytes:
        records = HEADER.pack(TAG, HEADER_VERSION, 0)
        records += RECORD.pack(self.file_hash, self.flags, self.file_entries, 0, 0)
        records += RECORD.pack(self.xorb_hash, 0, self.size, self.start, self.end)
        records += RECORD.pack(self.proof, 0, 0, 0, 0)
        records += RECORD.pack(from_text(self.sha256), 0, 0, 0, 0)
        records += RECORD.pack(BOOKEND, 0, 0, 0, 0)
        records += RECORD.pack(BOOKEND, 0, 0, 0, 0)
        return records


@dataclass
class Store:
    """The Hub's Xet store as one repo's writer sees it."""

    hub: RunningHub
    dataset: str
    token: str
    address: str = ""

    def access(self, scope: str = "write") -> dict[str, str]:
        address = f"{self.hub.endpoint}/api/datasets/{self.dataset}/xet-{scope}-token/main"
        answer = get_session().get(address, headers={"authorization": f"Bearer {self.token}"})
        assert answer.status_code == 200, answer.text
        self.address = answer.json()["casUrl"]
        return {"authorization": f"Bearer {answer.json()['accessToken']}"}

    def put_xorb(self, digest: bytes, body: bytes, scope: str = "write") -> Any:  # type: ignore[no-untyped-def]
        headers = self.access(scope)
        return get_session().post(f"{self.address}/v1/xorbs/default/{to_text(digest)}", content=body, headers=headers)

    def put_shard(self, body: bytes, version: int = 1) -> Any:  # type: ignore[no-untyped-def]
        headers = self.access()
        return get_session().post(f"{self.address}/v{version}/shards", content=body, headers=headers)

    def commit(self, path: str, sha256: str, size: int) -> Any:  # type: ignore[no-untyped-def]
        lines = (
            '{"key": "header", "value": {"summary": "forged"}}\n{"key": "lfsFile", "value": '
            f'{{"path": "{path}", "algo": "sha256", "oid": "{sha256}", "size": {size}}}}}\n'
        )
        address = f"{self.hub.endpoint}/api/datasets/{self.dataset}/commit/main"
        return get_session().post(address, content=lines, headers={"authorization": f"Bearer {self.token}"})


def reference_root(chunks: list[tuple[bytes, int]]) -> bytes:
    """The tree's root by the specification's own words, level by level over whole lists."""
    from deployments.local_hub.xet.hashes import NODE_KEY

    while len(chunks) > 1:
        level = []
        position = 0
        while position < len(chunks):
            cut = len(chunks)
            for index in range(position + 2, min(position + 9, len(chunks))):
                if struct.unpack("<4Q", chunks[index][0])[3] % 4 == 0 or index == position + 8:
                    cut = index + 1
                    break
            group = chunks[position:cut]
            text = "".join(f"{to_text(digest)} : {size}\n" for digest, size in group)
            level.append((blake3(text.encode(), key=NODE_KEY).digest(), sum(size for _, size in group)))
            position = cut
        chunks = level
    return chunks[0][0] if chunks else bytes(32)
