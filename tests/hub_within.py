"""The local Hub inside the process of a test: no socket, no port, no other process. So the fast lane may ask it.

It is the Hub of `deployments.local_hub`, whole: its application answers what huggingface_hub's own client sends, which
is handed over in memory and not over a connection. What goes past that client is not there: Xet (content is sent by
LFS), `datasets`, DuckDB. It can be made to fail and keeps a journal, as `tests.counted_hub` does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any

import httpx2
from huggingface_hub import constants, set_client_factory
from huggingface_hub.utils._http import default_client_factory
from starlette.types import ASGIApp, Message

from deployments.local_hub.app import Application
from deployments.local_hub.hub import Hub as Server
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tests.counted_hub import Asked, CountedHub, Journal, journal_of, read_journal
from tests.local_hub.faults import CONTROL, FaultLayer

Layer = Callable[[ASGIApp], ASGIApp]


class Handed(httpx2.BaseTransport):
    """Hands each request to the Hub's application, which runs in an event loop of its own."""

    def __init__(self, application: ASGIApp):
        self._application = application
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
        call = Call(body)
        await self._application(scope, call.receive, call.send)
        if call.reset:
            raise httpx2.RemoteProtocolError("Server disconnected without sending a response.", request=request)
        return httpx2.Response(
            call.status, headers=call.headers, stream=httpx2.ByteStream(bytes(call.content)), request=request
        )

    def close(self) -> None:
        """The client's session was closed; the Hub goes on for the next one."""

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Call:
    """One request, its answer, and in place of the connection that both go over: whether it was reset."""

    def __init__(self, body: bytes):
        self._left = [body]
        self.status = 0
        self.headers: list[tuple[bytes, bytes]] = []
        self.content = bytearray()
        self.reset = False
        self.transport = self  # as of a connection: what resets it asks for its transport

    def abort(self) -> None:
        self.reset = True

    async def receive(self) -> Message:
        if not self._left:
            await asyncio.Event().wait()  # the caller does not go away before it has its answer
        return {"type": "http.request", "body": self._left.pop(), "more_body": False}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status, self.headers = message["status"], message["headers"]
        else:
            self.content.extend(message.get("body", b""))


def same(application: ASGIApp) -> ASGIApp:
    return application


class HubWithin:
    """A Hub over `folder` that answers while the block lasts."""

    def __init__(self, folder: Path, layer: Layer = same, **options: Any):
        self._server = Server(folder, serving=True, **options)
        self._folder = folder
        application = layer(Application(self._server))
        self._handed = Handed(Journal(FaultLayer(application, folder), journal_of(folder)))

    def __enter__(self) -> HubWithin:
        self._xet, constants.HF_HUB_DISABLE_XET = constants.HF_HUB_DISABLE_XET, True
        set_client_factory(self._client)
        return self

    def __exit__(self, *_: object) -> None:
        set_client_factory(default_client_factory)
        constants.HF_HUB_DISABLE_XET = self._xet
        self._handed.end()
        self._server.close()

    def _client(self) -> httpx2.Client:
        return httpx2.Client(transport=self._handed, follow_redirects=True, timeout=None)

    def target(self, repo_id: str) -> Hub:
        """A target whose repo does not exist yet, and a token that may write there."""
        token = self._server.accounts.create_token(repo_id.partition("/")[0], "write")
        return Hub(Target(constants.ENDPOINT, repo_id), token)

    def break_on(self, *rules: dict[str, object]) -> None:
        """From now on break these requests and no others (`tests.local_hub.faults`)."""
        self._client().post(f"{constants.ENDPOINT}{CONTROL}", json=list(rules)).raise_for_status()

    def allow_entries(self, number: int) -> None:
        """From now on refuse a commit that leaves more entries than this in a folder."""
        self._server.commits.most_entries = number

    @property
    def broken(self) -> int:
        """How many requests were broken since the rules were set."""
        return int(self._client().post(f"{constants.ENDPOINT}{CONTROL}").json()["broken"])

    def asked(self, since: int = 0) -> list[Asked]:
        """The requests that were answered, from the `since`-th on."""
        return read_journal(self._folder)[since:]


Breakable = CountedHub | HubWithin
"""A Hub that can be made to fail and keeps a journal: a server, or one within the process of the test."""


@contextmanager
def hub_within(folder: Path, repo_id: str, layer: Layer = same, **options: Any) -> Iterator[Hub]:
    """A target whose repo does not exist yet, on a Hub over `folder` that answers while the block lasts.

    `layer` may put something before the Hub that answers in its place. `options` are the Hub's own.
    """
    with HubWithin(folder, layer, **options) as server:
        yield server.target(repo_id)
