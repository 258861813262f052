"""A store with its Hub inside the test's own process, on which time passes as the test says."""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import pytest

from deployments.local_hub.app import Application
from deployments.local_hub.check import damage
from deployments.local_hub.garbage.plan import Plan, make
from deployments.local_hub.garbage.remove import Removed, carry_out
from deployments.local_hub.hub import Hub
from deployments.local_hub.locks import removing
from deployments.local_hub.xet.hashes import to_text
from tests.hub_within import Handed
from tests.local_hub.forge import Content

DAY = 24 * 3600.0


class KeptStore:
    """The store in `root`; `later` has days pass for everything in this process, but for the files' own times."""

    def __init__(self, root: Path, patch: pytest.MonkeyPatch):
        self.root = root
        self.days = 0.0
        real = time.time
        patch.setattr(time, "time", lambda: real() + self.days * DAY)
        with self.served():
            self.token = self.hub.accounts.create_token("alice", "write")

    def later(self, days: float) -> None:
        self.days += days

    @contextmanager
    def served(self) -> Iterator[httpx2.Client]:
        """The Hub answers while the block lasts."""
        self.hub = Hub(self.root, serving=True)
        handed = Handed(Application(self.hub))
        token = getattr(self, "token", "")
        try:
            with httpx2.Client(
                transport=handed, base_url="http://hub", headers={"authorization": f"Bearer {token}"}
            ) as client:
                self._client = client
                yield client
        finally:
            handed.end()
            self.hub.close()

    def ask(self, method: str, path: str, **more: Any) -> httpx2.Response:
        """A request that succeeds, to the Hub that is served."""
        answer = self._client.request(method, path, **more)
        assert answer.status_code < 300, answer.text
        return answer

    def repo(self, name: str) -> str:
        self.ask("POST", "/api/repos/create", json={"type": "dataset", "name": name, "private": True})
        return f"alice/{name}"

    def delete_repo(self, repo: str) -> None:
        self.ask("DELETE", "/api/repos/delete", json={"type": "dataset", "name": repo.partition("/")[2]})

    def batch(self, repo: str, sha256: str, size: int) -> dict[str, Any]:
        """What the client is told of an object before it sends it."""
        body = {"operation": "upload", "objects": [{"oid": sha256, "size": size}]}
        found: dict[str, Any] = self.ask("POST", f"/datasets/{repo}.git/info/lfs/objects/batch", json=body).json()
        return dict(found["objects"][0])

    def send(self, repo: str, data: bytes) -> str:
        """Content that comes by LFS; its sha256."""
        sha256 = hashlib.sha256(data).hexdigest()
        actions = self.batch(repo, sha256, len(data)).get("actions")
        if actions is not None:
            self.ask("PUT", actions["upload"]["href"], content=data)
        return sha256

    def xet(self, repo: str) -> tuple[str, dict[str, str]]:
        """Where the content store is, and the token for it."""
        found = self.ask("GET", f"/api/datasets/{repo}/xet-write-token/main").json()
        return found["casUrl"], {"authorization": f"Bearer {found['accessToken']}"}

    def put_xorb(self, repo: str, content: Content) -> None:
        address, headers = self.xet(repo)
        name = to_text(content.xorb_hash)
        self.ask("POST", f"{address}/v1/xorbs/default/{name}", content=content.xorb, headers=headers)

    def put_shard(self, repo: str, content: Content) -> None:
        address, headers = self.xet(repo)
        self.ask("POST", f"{address}/v1/shards", content=content.shard, headers=headers)

    def send_xet(self, repo: str, content: Content) -> str:
        self.put_xorb(repo, content)
        self.put_shard(repo, content)
        return content.sha256

    def commit(
        self, repo: str, files: Mapping[str, str | bytes], *, revision: str = "main", delete: tuple[str, ...] = (),
        query: str = "",
    ) -> str:  # fmt: skip
        """A commit of content by its sha256, or of texts; its id."""
        lines: list[dict[str, Any]] = [{"key": "header", "value": {"summary": "a commit"}}]
        for path, what in files.items():
            if isinstance(what, str):
                lines.append({"key": "lfsFile", "value": {"path": path, "algo": "sha256", "oid": what}})
            else:
                value = {"path": path, "content": base64.b64encode(what).decode(), "encoding": "base64"}
                lines.append({"key": "file", "value": value})
        lines += [{"key": "deletedFile", "value": {"path": path}} for path in delete]
        body = "\n".join(map(json.dumps, lines))
        address = f"/api/datasets/{repo}/commit/{revision.replace('/', '%2F')}{query}"
        return str(self.ask("POST", address, content=body).json()["commitOid"])

    def status(self, repo: str, revision: str, path: str) -> int:
        return self._client.get(f"/datasets/{repo}/resolve/{revision}/{path}").status_code

    def read(self, repo: str, path: str, revision: str = "main") -> bytes:
        address = f"/datasets/{repo}/resolve/{revision.replace('/', '%2F')}/{path}"
        return bytes(self.ask("GET", address).content)

    # what a system administrator does, with the server stopped

    def planned(self, keep_days: float = 30) -> Plan:
        hub = Hub(self.root)
        try:
            return make(self.root, hub.database, keep_days)[0]
        finally:
            hub.close()

    def removed(self, plan: Plan) -> Removed:
        with removing(self.root):
            hub = Hub(self.root)
            try:
                return carry_out(plan, self.root, hub.database)
            finally:
                hub.close()

    def damage(self) -> list[str]:
        hub = Hub(self.root)
        try:
            return list(damage(hub))
        finally:
            hub.close()

    def files(self) -> set[str]:
        """The digests of all content that lies in the store."""
        return {path.name for folder in ("content", "xorbs") for path in (self.root / folder).glob("*/*")}


def some_content(seed: str, chunks: int = 3) -> Content:
    """Content of a few chunks that nothing else has."""
    return Content([hashlib.sha512(f"{seed} {number}".encode()).digest() * 40 for number in range(chunks)])


def names(plan: Plan) -> set[str]:
    return {item.digest for item in plan.items}
