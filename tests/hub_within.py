"""The local Hub inside the process of a test: no socket, no port, no other process. So the fast lane may ask it.

It is the Hub of `deployments.local_hub`, whole: its application answers what huggingface_hub's own client sends, which
is handed over in memory and not over a connection. What goes past that client is not there: Xet (content is sent by
LFS), `datasets`, DuckDB. It can be made to fail as a served one can (`tests.local_hub.faults`), but for what breaks a
connection, and it counts what it is asked (`tests.counted_hub`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Protocol

import httpx2
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from starlette.types import Message

from deployments.local_hub.app import Application
from deployments.local_hub.hub import Hub as Server
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tests.counted_hub import Asked
from tests.local_hub.faults import FaultLayer


class Breakable(Protocol):
    """A Hub that can be made to fail, and that knows what it was asked; served, or within this process."""

    def break_on(self, *rules: dict[str, object]) -> None:
        """From now on break these requests and no others (`tests.local_hub.faults`)."""

    def asked(self, since: int = 0) -> list[Asked]:
        """The requests that were answered, from the `since`-th on."""


class Handed(httpx2.BaseTransport):
    """Hands each request to the Hub's application, which runs in an event loop of its own."""

    def __init__(self, server: Server):
        self._server = server
        self._application = FaultLayer(Application(server), server.root)
        self._asked: list[Asked] = []
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="hub within", daemon=True)
        self._thread.start()

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        return asyncio.run_coroutine_threadsafe(self._answer(request, request.read()), self._loop).result()

    async def _answer(self, request: httpx2.Request, body: bytes) -> httpx2.Response:
        path, _, query = request.url.raw_path.partition(b"?")
        scope = {
            "type": "http", "http_version": "1.1", "method": request.method, "scheme": request.url.scheme,
            "path": request.url.path, "raw_path": path, "query_string": query, "root_path": "",
            "headers": [(name.lower(), value) for name, value in request.headers.raw],
            "server": (request.url.host, request.url.port), "client": ("within", 0),
        }  # fmt: skip
        left = [body]
        status, headers, content = 0, [], bytearray()
        never = asyncio.Event()

        async def receive() -> Message:
            if not left:
                await never.wait()  # the caller does not go away before it has its answer
            return {"type": "http.request", "body": left.pop(), "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status, headers
            if message["type"] == "http.response.start":
                status, headers = message["status"], message["headers"]
            else:
                content.extend(message.get("body", b""))

        await self._application(scope, receive, send)
        self._asked.append(Asked(request.method, request.url.path, len(body), status, len(content)))
        return httpx2.Response(status, headers=headers, stream=httpx2.ByteStream(bytes(content)), request=request)

    def break_on(self, *rules: dict[str, object]) -> None:
        self._application.break_on(*rules)

    def asked(self, since: int = 0) -> list[Asked]:
        return self._asked[since:]

    def hub(self, repo_id: str) -> Hub:
        """A target whose repo does not exist yet, with the token of somebody who may write there."""
        token = self._server.accounts.create_token(repo_id.partition("/")[0], "write")
        return Hub(Target(constants.ENDPOINT, repo_id), token)

    def close(self) -> None:
        """The client's session was closed; the Hub goes on for the next one."""

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@contextmanager
def hub_within(folder: Path) -> Iterator[Handed]:
    """A Hub over `folder` that answers huggingface_hub's client while the block lasts."""
    server = Server(folder, serving=True)
    handed = Handed(server)
    xet, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
    set_client_factory(lambda: httpx2.Client(transport=handed, follow_redirects=True, timeout=None))
    try:
        yield handed
    finally:
        set_client_factory(default_client_factory)
        constants.HF_HUB_DISABLE_XET = xet
        handed.end()
        server.close()
