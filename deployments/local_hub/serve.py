"""Running the server: one uvicorn process on one socket, quiet, ended cleanly by SIGTERM or Ctrl-C."""

from __future__ import annotations

import ctypes
import logging
import signal
import socket
import sys
from dataclasses import replace

import uvicorn
from starlette.types import ASGIApp

from deployments.local_hub.app import Application
from deployments.local_hub.hub import Hub
from deployments.local_hub.limits import Limited, Limits
from deployments.local_hub.permissions import close_store

SHUTDOWN_GRACE = 5  # seconds that requests under way have to finish after SIGTERM
KEEP_ALIVE = 75  # seconds; longer than clients keep idle connections, so that none is closed under a request
M_MMAP_THRESHOLD, M_ARENA_MAX = -3, -8  # malloc.h
LARGE_BLOCK = 256 * 1024  # bytes
HEAD_LIMIT = 64 * 1024  # bytes of a request's line and headers


def give_back_memory() -> None:
    """Have large blocks of memory returned to the system when they are free, where the C library is glibc.

    By itself it keeps what each thread has held at most, which is a large body times the number of threads.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, LARGE_BLOCK)
        mallopt(M_ARENA_MAX, 2)


def served(hub: Hub, limits: Limits) -> ASGIApp:
    """The application, and what counts its requests where there are limits."""
    application = Application(hub)
    hub.commits.most_entries = limits.entries
    return application if replace(limits, entries=0) == Limits() else Limited(application, hub.accounts, limits)


def serve(hub: Hub, host: str, port: int, limits: Limits = Limits()) -> None:  # noqa: B008 - a value, never changed
    """Serve until told to stop; prints the endpoint on stdout once connections are taken."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # the protocol spelled out: asyncio switches Nagle's delay (40 ms an answer) off only for sockets that name TCP
    with socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # a client that vanished is noticed
        listener.bind((host, port))
        listener.listen(1024)
        name = f"[{host}]" if family == socket.AF_INET6 else host
        logging.basicConfig(
            stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        give_back_memory()
        close_store(hub.root, hub.database)
        config = uvicorn.Config(
            served(hub, limits), log_config=None, log_level="warning", access_log=False, lifespan="off",
            server_header=False, timeout_keep_alive=KEEP_ALIVE, timeout_graceful_shutdown=SHUTDOWN_GRACE,
            h11_max_incomplete_event_size=HEAD_LIMIT,
        )  # fmt: skip
        server = uvicorn.Server(config)

        def stop(number: int, frame: object) -> None:
            # before uvicorn takes the signals, and after: it ends in peace and then raises the signal once more
            server.should_exit = True

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        # the socket listens already: whoever reads the line can connect at once
        print(f"http://{name}:{listener.getsockname()[1]}", flush=True)
        server.run(sockets=[listener])
