"""What a token has opened ends with it: uploads under way, Xet's tokens, addresses of bytes, the browser's cookie."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi

from deployments.local_hub.signing import Signer
from deployments.local_hub.xet.hashes import to_text
from tests.local_hub.conftest import travel_by
from tests.local_hub.forge import Content, Store
from tests.local_hub.running import RunningHub

LARGE = 600_000_000  # bytes: over what is sent in one piece
_numbers = itertools.count(1)


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    return travel_by("xet", monkeypatch)


@dataclass
class Opened:
    """All that an account of the lab can do without showing its token again."""

    hub: RunningHub
    name: str
    token: str
    dataset: str

    def __post_init__(self) -> None:
        self.bearer = {"authorization": f"Bearer {self.token}"}
        self.store = Store(self.hub, self.dataset, self.token)
        self.content = Content([os.urandom(3000)])
        assert self.store.put_xorb(self.content.xorb_hash, self.content.xorb).status_code == 200
        assert self.store.put_shard(self.content.shard).status_code == 200
        assert self.store.commit("a.bin", self.content.sha256, self.content.size).status_code == 200
        self.write, self.read = self.store.access("write"), self.store.access("read")
        self.body = os.urandom(1000)
        self.unsent = Content([os.urandom(500)])
        [self.bytes] = [
            (entry["url"], entry["ranges"][0]["bytes"])
            for entries in httpx2.get(self.file, headers=self.read).json()["xorbs"].values()
            for entry in entries
        ]
        self.put = self._batch(hashlib.sha256(self.body).hexdigest(), 1000)["href"]
        parts = self._batch(hashlib.sha256(self.body + b"large").hexdigest(), LARGE)
        self.part, self.complete = parts["header"]["5"], parts["href"]
        signed_in = httpx2.post(f"{self.hub.endpoint}/login", data={"token": self.token, "next": "/"})
        self.cookie = {"cookie": f"hub_page={signed_in.cookies['hub_page']}"}

    @property
    def file(self) -> str:
        return f"{self.store.address}/v2/reconstructions/{to_text(self.content.file_hash)}"

    def _batch(self, oid: str, size: int) -> dict[str, Any]:
        answer = httpx2.post(
            f"{self.hub.endpoint}/datasets/{self.dataset}.git/info/lfs/objects/batch",
            json={"operation": "upload", "transfers": ["multipart"], "objects": [{"oid": oid, "size": size}]},
            headers=self.bearer,
        )
        return dict(answer.json()["objects"][0]["actions"]["upload"])

    def writes(self) -> dict[str, int]:
        """Each way to write, with the status of its answer."""
        cas, unsent = self.store.address, self.unsent
        parts = json.dumps({"parts": []})
        return {
            "xorb": httpx2.post(
                f"{cas}/v1/xorbs/default/{to_text(unsent.xorb_hash)}", content=unsent.xorb, headers=self.write
            ).status_code,
            "shard": httpx2.post(f"{cas}/v1/shards", content=self.content.shard, headers=self.write).status_code,
            "shard, with progress": httpx2.post(
                f"{cas}/v2/shards", content=self.content.shard, headers=self.write
            ).status_code,
            "chunk": httpx2.get(
                f"{cas}/v1/chunks/default/{to_text(self.content.hashes[0])}", headers=self.write
            ).status_code,
            "object": httpx2.put(self.put, content=self.body).status_code,
            "part": httpx2.put(self.part, content=bytes(LARGE - 4 * 128 * 1024 * 1024)).status_code,
            "last part": httpx2.post(self.complete, content=parts).status_code,
        }

    def reads(self) -> dict[str, int]:
        """Each way to read, with the status of its answer."""
        url, octets = self.bytes
        span = {"range": f"bytes={octets['start']}-{octets['end']}"}
        page = f"{self.hub.endpoint}/datasets/{self.dataset}"
        return {
            "reconstruction": httpx2.get(self.file, headers=self.read).status_code,
            "bytes": httpx2.get(url, headers=span).status_code,
            "page": httpx2.get(page, headers=self.cookie).status_code,
        }


@pytest.fixture
def opened(hub: RunningHub, api: HfApi) -> Opened:
    number = next(_numbers)
    dataset = f"lab/shared-by-{number}"
    api.create_repo(dataset, repo_type="dataset", private=True)
    name = f"member-{number}"
    return Opened(hub, name, hub.token(name, "write", "--org", "lab"), dataset)


GOOD_WRITES = {
    "xorb": 200, "shard": 200, "shard, with progress": 200, "chunk": 200, "object": 200, "part": 200, "last part": 400,
}  # fmt: skip
REFUSED_WRITES = {
    "xorb": 401, "shard": 401, "shard, with progress": 401, "chunk": 401, "object": 403, "part": 403, "last part": 403,
}  # fmt: skip


def test_everything_that_was_opened_works_as_long_as_the_token_does(opened: Opened) -> None:
    assert opened.writes() == GOOD_WRITES
    assert opened.reads() == {"reconstruction": 200, "bytes": 206, "page": 200}


def test_what_a_revoked_token_has_opened_is_closed_with_it(opened: Opened) -> None:
    opened.hub.command("revoke", opened.name)
    assert opened.writes() == REFUSED_WRITES
    assert opened.reads() == {"reconstruction": 401, "bytes": 403, "page": 404}


@pytest.mark.parametrize("claims", [{}, {"token": ""}, {"token": "00" * 32}])
def test_what_was_signed_without_a_token_that_is_good_opens_nothing(opened: Opened, claims: dict[str, str]) -> None:
    with sqlite3.connect(opened.hub.root / "hub.sqlite3") as database:
        [(secret,)] = database.execute("SELECT value FROM setting WHERE key = 'secret'")
        [(repo,)] = database.execute("SELECT id FROM repo WHERE name = ?", (opened.dataset.partition("/")[2],))
    signer, oid = Signer(secret), hashlib.sha256(opened.body).hexdigest()
    put = signer.sign("lfs", 1000, repo=repo, oid=oid, size=1000, **claims)
    read = signer.sign("xet", 1000, repo=repo, write=False, **claims)

    assert httpx2.put(f"{opened.hub.endpoint}/lfs/{put}", content=opened.body).status_code == 403
    assert httpx2.get(opened.file, headers={"authorization": f"Bearer {read}"}).status_code == 401


def test_another_token_of_the_same_account_does_not_open_it_again(opened: Opened) -> None:
    opened.hub.command("revoke", opened.name)
    opened.hub.token(opened.name, "write")
    assert opened.writes() == REFUSED_WRITES
    assert opened.reads() == {"reconstruction": 401, "bytes": 403, "page": 404}


def test_who_may_only_read_any_more_writes_nothing_with_what_was_opened_before(opened: Opened) -> None:
    opened.hub.token(opened.name, "read", "--org", "lab:read")
    assert opened.writes() == REFUSED_WRITES
    assert opened.reads() == {"reconstruction": 200, "bytes": 206, "page": 200}


def test_a_body_whose_token_is_revoked_while_it_is_sent_is_not_kept(opened: Opened) -> None:
    def sent() -> Any:  # type: ignore[no-untyped-def]
        yield opened.body[:500]
        opened.hub.command("revoke", opened.name)
        yield opened.body[500:]

    answer = httpx2.put(opened.put, content=sent(), headers={"content-length": "1000"}, timeout=60)

    assert answer.status_code == 403
    digest = hashlib.sha256(opened.body).hexdigest()
    assert not (opened.hub.root / "content" / digest[:2] / digest).exists()


def test_a_commit_whose_token_is_revoked_while_it_is_sent_is_not_made(opened: Opened, api: HfApi) -> None:
    before = api.dataset_info(opened.dataset).sha

    def sent() -> Any:  # type: ignore[no-untyped-def]
        yield b'{"key": "header", "value": {"summary": "late"}}\n'
        opened.hub.command("revoke", opened.name)
        yield b'{"key": "deletedFile", "value": {"path": "a.bin"}}\n'

    address = f"{opened.hub.endpoint}/api/datasets/{opened.dataset}/commit/main"
    answer = httpx2.post(address, content=sent(), headers=opened.bearer, timeout=60)

    assert answer.status_code == 401
    assert api.dataset_info(opened.dataset).sha == before
