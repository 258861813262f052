"""A local Hub that can be made to fail, and that keeps a journal of what it was asked and sent.

The journal is a file beside the Hub's store, a line a request, written before the end of its answer is sent: whoever
has the answer finds it there. It outlives a SIGKILL of the server.
"""

from __future__ import annotations

import json
import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tests.local_hub.faults import CONTROL, FaultLayer
from tests.local_hub.running import RunningHub

CONTENT = re.compile(r"/v1/xorbs/|(?<!info)/lfs/")  # where a shard's bytes go, by Xet and by LFS


@dataclass(frozen=True)
class Asked:
    """One request that was answered."""

    method: str
    path: str
    received: int
    """Bytes of its body."""
    status: int
    sent: int = 0
    """Bytes of the answer's body."""


class Journal:
    """The ASGI layer that writes the journal."""

    def __init__(self, app: ASGIApp, journal: Path):
        self._app = app
        self._journal = journal.open("ab", buffering=0)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] == CONTROL:
            await self._app(scope, receive, send)
            return
        received = status = sent = 0
        written = False

        def write() -> None:
            nonlocal written
            line = {"method": scope["method"], "path": scope["path"], "received": received, "status": status}
            if not written:
                self._journal.write(json.dumps(line | {"sent": sent}).encode() + b"\n")
            written = True

        async def counted_receive() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            return message

        async def seen_send(message: Message) -> None:
            nonlocal status, sent
            status = message.get("status", status)
            sent += len(message.get("body", b""))
            if message["type"] == "http.response.body" and not message.get("more_body", False):
                write()
            await send(message)

        try:
            await self._app(scope, Transported(counted_receive, receive), seen_send)
        finally:
            write()


class Transported:
    """A `receive` with the server's connection behind it, which the fault layer resets."""

    def __init__(self, receive: Receive, original: Any):
        self._receive = receive
        self.__self__ = original.__self__

    async def __call__(self) -> Message:
        return await self._receive()


class CountedHub(RunningHub):
    """The server as a process: started, killed, made to fail, and asked what it was sent."""

    def __init__(self, root: Path, *options: str):
        super().__init__(root, *options)
        self._command[2] = "tests.counted_hub"

    @property
    def journal(self) -> Path:
        return journal_of(self.root)

    def asked(self, since: int = 0) -> list[Asked]:
        """The requests that were answered, from the `since`-th on."""
        return read_journal(self.root)[since:]

    def content_received(self, since: int = 0) -> int:
        """The bytes of shards' content that arrived."""
        return sum(
            one.received for one in self.asked(since) if CONTENT.search(one.path) and one.method in {"POST", "PUT"}
        )


def read_journal(root: Path) -> list[Asked]:
    """What the Hub over `root` was asked."""
    whole, _, _ = journal_of(root).read_bytes().rpartition(b"\n")  # the last line may just be being written
    lines = whole.splitlines()
    return [Asked(**json.loads(line)) for line in lines]


def journal_of(root: Path) -> Path:
    return root.with_suffix(".requests.jsonl")


def main() -> int:
    """The Hub's own commands, the server behind the two layers."""
    from deployments.local_hub import __main__ as commands
    from deployments.local_hub import serve as server

    served = server.served

    def layered(hub: Any, limits: Any) -> Journal:
        return Journal(FaultLayer(served(hub, limits), hub.root), journal_of(hub.root))

    server.served = layered
    return commands.main()


if __name__ == "__main__":
    sys.exit(main())
