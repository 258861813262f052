"""Limits as the real Hub has them, off unless `serve --limits` says so: to see what a client makes of them.

- Requests are of three kinds (`api`, `resolvers`, `pages`). Each has a number that an account, or an address without
  one, may send in a window of fixed length. Each answer says how many are left, in the RateLimit headers
  (https://huggingface.co/docs/hub/rate-limits). What is over it is answered 429, and does nothing.
- An account may make so many commits in an hour. The real Hub tells of it in the text of its refusal alone. The headers
  there are those of the requests, of which many are left.
- A folder of a repo may have so many entries: a commit that would leave more in one is refused whole, and the refusal
  names the folder (huggingface/datasets#7956 has the real Hub's words). `deployments.local_hub.commits` counts them.

Content (LFS, Xet) has no limit.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Self

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.local_hub.accounts import Accounts
from deployments.local_hub.app import refusal
from deployments.local_hub.errors import HubError

UNLIMITED = ("/lfs", "/cas")  # content


@dataclass(frozen=True)
class Limits:
    """How much an account may do; 0 is any number."""

    api: int = 0
    resolvers: int = 0
    pages: int = 0
    commits: int = 0
    entries: int = 0
    """Entries of one folder."""
    window: int = 300
    """Seconds in which the requests are counted."""
    hour: int = 3600
    """Seconds in which the commits are counted."""

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `api=1000,commits=128`. Raises ValueError with what is wrong."""
        names = [field.name for field in fields(cls)]
        values: dict[str, int] = {}
        for part in text.split(","):
            name, _, value = part.partition("=")
            if name not in names or not value.isdigit():
                raise ValueError(f"{part!r} is no limit: NAME=NUMBER, with a name of {', '.join(names)}")
            values[name] = int(value)
        return cls(**values)


class Limited:
    """The ASGI layer that counts."""

    def __init__(self, app: ASGIApp, accounts: Accounts, limits: Limits, clock: Callable[[], float] = time.monotonic):
        self._app = app
        self._accounts = accounts
        self._limits = limits
        self._clock = clock
        self._asked: dict[tuple[str, str], tuple[int, int]] = {}
        """By caller and kind: the window's number, and the requests in it."""
        self._committed: dict[str, deque[float]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or refuse it."""
        kind = kind_of(scope["path"]) if scope["type"] == "http" else ""
        if not kind:
            await self._app(scope, receive, send)
            return
        caller = self._caller(scope)
        headers, refused = self._counted(caller, kind)
        if not refused and scope["method"] == "POST" and "/commit/" in scope["path"]:
            refused = self._commits_used_up(caller)

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(headers)
            await send(message)

        await (refusal(refused) if refused else self._app)(scope, receive, with_headers)

    def _caller(self, scope: Scope) -> str:
        name = None
        with suppress(HubError):  # a token that is none: the Hub says so
            name = self._accounts.identify(Headers(scope=scope).get("authorization")).name
        return name or f"address {(scope.get('client') or ['unknown'])[0]}"

    def _counted(self, caller: str, kind: str) -> tuple[dict[str, str], HubError | None]:
        """Count a request; the headers of its answer, and why it is refused, if it is."""
        limit, window = getattr(self._limits, kind), self._limits.window
        if not limit:
            return {}, None
        number, into = divmod(self._clock(), window)
        at, asked = self._asked.get((caller, kind), (0, 0))
        asked = asked + 1 if at == int(number) else 1
        self._asked[caller, kind] = int(number), asked
        headers = {
            "RateLimit": f'"{kind}";r={max(limit - asked, 0)};t={int(window - into)}',
            "RateLimit-Policy": f'"fixed window";"{kind}";q={limit};w={window}',
        }
        over = f"We had to rate limit you: you hit the quota of {limit} {kind} requests in {window} s."
        return headers, HubError(429, over) if asked > limit else None

    def _commits_used_up(self, caller: str) -> HubError | None:
        """Count a commit; why it is refused, if it is."""
        limit, now = self._limits.commits, self._clock()
        if not limit:
            return None
        made = self._committed.setdefault(caller, deque())
        while made and made[0] <= now - self._limits.hour:
            made.popleft()
        if len(made) >= limit:
            return HubError(
                429,
                f"You have exceeded the rate limit for repository commits ({limit} per hour). You can retry this "
                "action in about 1 hour.",
            )
        made.append(now)
        return None


def kind_of(path: str) -> str:
    """The kind of a request; empty for what has no limit."""
    if path.startswith(UNLIMITED):
        return ""
    if "/resolve/" in path:
        return "resolvers"
    return "api" if path.startswith("/api/") else "pages"
