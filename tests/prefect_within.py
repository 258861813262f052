"""Prefect's own server inside the process of a test: no socket, no port, no other process. So the fast lane may ask it.

Its application answers what Prefect's own clients send, with their patience; httpx hands the request over in memory and
not over a connection. Its database is SQLite in memory, with the tables as the server's models have them: to make them
by its hundred migrations takes longer than the tests. What is no request is not there: its services, and events.
"""

import asyncio
import sqlite3
from collections.abc import Coroutine, Iterator
from contextlib import closing, contextmanager
from email.utils import formatdate
from functools import cache, partial
from threading import Thread
from typing import Any, TypeVar

import httpx
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.events.clients import NullEventsClient
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.server.api.server import create_app
from prefect.server.database import provide_database_interface
from prefect.server.database.configurations import AioSqliteConfiguration
from prefect.server.database.dependencies import temporary_database_config
from prefect.settings import PREFECT_API_URL

T = TypeVar("T")
SHARED = "file::memory:?cache=shared"
TABLES = sqlite3.connect(":memory:", check_same_thread=False)
SENT, SENT_ASYNC = httpx.HTTPTransport.handle_request, httpx.AsyncHTTPTransport.handle_async_request


application = cache(partial(create_app, ephemeral=True))


class Handed:
    """Hands each request for the server to its application, which runs in an event loop of its own."""

    def __init__(self) -> None:
        self.server = httpx.URL(PREFECT_API_URL.value())
        self._application = httpx.ASGITransport(application(), raise_app_exceptions=False)
        self._loop = asyncio.new_event_loop()
        self._thread = Thread(target=self._loop.run_forever, name="prefect within", daemon=True)
        self._thread.start()

    def is_for(self, request: httpx.Request) -> bool:
        """Whether a request is for the server, and not for any other one."""
        return request.url.netloc == self.server.netloc

    def handle(self, transport: httpx.HTTPTransport, request: httpx.Request) -> httpx.Response:
        if not self.is_for(request):
            return SENT(transport, request)
        request.read()
        return self.do(self._answer(request))

    async def handle_async(self, transport: httpx.AsyncHTTPTransport, request: httpx.Request) -> httpx.Response:
        if not self.is_for(request):
            return await SENT_ASYNC(transport, request)
        await request.aread()
        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(self._answer(request), self._loop))

    async def _answer(self, request: httpx.Request) -> httpx.Response:
        answer = await self._application.handle_async_request(request)
        body = httpx.ByteStream(b"".join([piece async for piece in answer.aiter_raw()]))
        headers = {**answer.headers, "Date": formatdate(usegmt=True)}  # which uvicorn adds
        return httpx.Response(answer.status_code, headers=headers, stream=body, request=request)

    def do(self, what: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result()

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


async def make_tables(memory: sqlite3.Connection) -> None:
    """Make the tables: in a process that has made them before, as a copy of those, which costs less than the tests."""
    if not TABLES.execute("SELECT name FROM sqlite_master").fetchone():
        database = provide_database_interface()
        for table in database.Base.metadata.tables.values():
            once = {index.name: index for index in table.indexes}  # one of them is declared twice
            table.indexes.intersection_update(once.values())
        async with (await database.engine()).begin() as connection:
            await connection.run_sync(database.Base.metadata.create_all)
        memory.backup(TABLES)
    else:
        TABLES.backup(memory)


async def disconnect() -> None:
    await (await provide_database_interface().engine()).dispose()


@contextmanager
def prefect_within() -> Iterator[None]:
    """While the block lasts, a new server in this process answers whatever Prefect's clients ask."""
    handed = Handed()
    memory = sqlite3.connect(SHARED, uri=True, check_same_thread=False)  # the database lasts while this is open
    database = AioSqliteConfiguration(connection_url=f"sqlite+aiosqlite:///{SHARED}&uri=true&check_same_thread=false")
    with closing(memory), temporary_database_config(database), pytest.MonkeyPatch.context() as patch:
        handed.do(make_tables(memory))
        patch.setattr(httpx.HTTPTransport, "handle_request", lambda own, request: handed.handle(own, request))
        patch.setattr(
            httpx.AsyncHTTPTransport, "handle_async_request", lambda own, request: handed.handle_async(own, request)
        )
        EventsWorker.set_client_override(NullEventsClient)
        try:
            yield
        finally:
            for worker in (APILogWorker, EventsWorker):  # what they still hold is for this server
                worker.drain_all(timeout=10)
            EventsWorker.set_client_override(None)
            handed.do(disconnect())
            handed.end()


def warmed() -> None:
    """Have all of it imported and compiled, for processes that are forked from this one."""
    with prefect_within(), get_client(sync_client=True) as client:
        client.create_variable(VariableCreate(name="warm", value=1))
        client.request("GET", "/variables/name/{name}", path_params={"name": "warm"})
