"""One request as its handler sees it, and what handlers share. The table of routes and the application build on it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from concurrent.futures import Executor
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import quote

from starlette.requests import Request
from starlette.responses import Response

from deployments.local_hub.accounts import ANONYMOUS, Identity
from deployments.local_hub.errors import HubError, bad_request, repo_not_found, token_needed
from deployments.local_hub.hub import Hub
from deployments.local_hub.repos import Repo, RepoType

COOKIE = "hub_page"  # signed: who looks at pages in this browser

REPO_TYPES: dict[str, RepoType] = {"models": "model", "datasets": "dataset", "spaces": "space"}

Value = TypeVar("Value")


@dataclass
class Call:
    """One request as its handler sees it: the parts of its path unquoted, its body parsed, its caller known."""

    hub: Hub
    request: Request
    params: dict[str, str]
    identity: Identity = ANONYMOUS
    body: dict[str, Any] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """The address the caller used for this Hub, without a slash at the end."""
        return str(self.request.base_url).rstrip("/")

    @property
    def user(self) -> str:
        """The caller's account; 401 for an anonymous one."""
        if self.identity.name is None:
            raise token_needed()
        return self.identity.name

    @property
    def query(self) -> dict[str, str]:
        """The query's parameters."""
        return dict(self.request.query_params)

    def flag(self, name: str) -> bool:
        """Whether a query parameter is switched on."""
        return self.query.get(name, "").lower() in ("1", "true")

    async def work(self, function: Callable[..., Value], *arguments: object, pool: Executor | None = None) -> Value:
        """Run something that blocks on the Hub's threads, or on those of another pool."""
        return await asyncio.get_running_loop().run_in_executor(pool or self.hub.workers, function, *arguments)

    async def blocks(self, blocks: Iterator[bytes], pool: Executor | None = None) -> AsyncIterator[bytes]:
        """The blocks of an iterator that reads from disk, each fetched on the Hub's threads, or on those of a pool."""
        while (block := await self.work(next, blocks, None, pool=pool)) is not None:
            yield block

    def repo(self, *, write: bool = False) -> Repo:
        """The repo that the path names; 404 if the caller may not see it, 401 or 403 if they may not write to it.

        A name that it had before leads to the same path with its present one (307), so that links go on working.
        """
        repo_type = REPO_TYPES[self.params.get("type") or "models"]
        namespace, name = self.params["namespace"], self.params["name"]
        try:
            repo = self.hub.repos.find(self.identity, repo_type, namespace, name)
        except HubError:
            moved = self.hub.repos.moved(self.identity, repo_type, namespace, name)
            if moved is None or not (leads_to := self._leads_to(moved)):
                raise
            raise HubError(307, f"The repo is called {moved.full_name} now", headers=leads_to) from None
        if write:
            self.hub.accounts.require_write(self.identity, repo.namespace)
        return repo

    def _leads_to(self, repo: Repo) -> dict[str, str]:
        """The header that sends the caller to the same path of a repo, which its own path names otherwise.

        None if the name is quoted there in a way that nobody needs: it would lead to itself.
        """
        asked = self.request.scope["raw_path"].decode("latin-1")
        former = f"/{quote(self.params['namespace'])}/{quote(self.params['name'])}"
        query = self.request.scope["query_string"].decode("latin-1")
        if former not in asked:
            return {}
        return {"Location": asked.replace(former, f"/{repo.full_name}", 1) + (f"?{query}" if query else "")}

    def sign(self, purpose: str, lifetime: float, repo: Repo, **claims: Any) -> str:
        """A permission of the caller's for one repo, good without the token (`signing`) as long as the token is."""
        return self.hub.signer.sign(purpose, lifetime, repo=repo.id, token=self.identity.token, **claims)

    def signed(self, claims: dict[str, Any], *, write: bool = False) -> Repo:
        """The repo of a permission, and its holder as the caller; refused where the holder may not do so any more."""
        self.identity = self.hub.accounts.holder(claims.get("token", ""))  # "": signed before 0.9, by nobody known
        repo = self.hub.repos.by_id(claims["repo"])
        if repo is None or not self.hub.repos.visible(self.identity, repo):
            raise repo_not_found()
        if write:
            self.hub.accounts.require_write(self.identity, repo.namespace)
        return repo

    def once_more(self) -> None:
        """Look again who is calling, after a body that may have taken hours: 401 if the token was revoked meanwhile."""
        self.identity = self.hub.accounts.holder(self.identity.token)

    def may_write(self, repo: Repo) -> bool:
        """Whether the caller may write to the repo, and so see what no commit of it names yet."""
        return self.hub.accounts.role_in(self.identity, repo.namespace) == "write"


Handler = Callable[[Call], Response | Awaitable[Response]]


def text_of(body: dict[str, Any], name: str, default: str | None = None) -> str:
    """A text field of a JSON body; 400 where it is missing or no text."""
    value = body.get(name, default)
    if value is None and default is not None:
        value = default
    if not isinstance(value, str):
        raise bad_request(f"{name!r} must be a text")
    return value
