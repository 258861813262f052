"""The local Hub with things going wrong on purpose: the same server behind a layer that breaks what it is told to.

The layer wraps the Hub's application from outside; the Hub's own code knows nothing of it. It is started by
`RunningHub(..., faults=True)`, and rules are set over HTTP while it runs (`RunningHub.break_on`). A rule names requests
by method and by a regular expression on the path, how many of them to leave alone first (`after`), how many to break
(`times`, -1 for all), and what happens to them (`fault`):

- `status`: answered with `status` at once, with Retry-After if `retry_after` (seconds) and X-Error-Code if `code` is
  given; no work is done.
- `lose_response`: the work is done, then the connection is reset.
- `cut_request`: the connection is reset after `bytes` bytes of the body arrived.
- `cut_response`: the connection is reset after `bytes` bytes of the body went out.
- `slow`: `delay` seconds pass before each piece of the answer.
- `drop_pages`: a listing's first page is all there is: the Link header is removed.
- `other_bytes`: one bit of the answer's body is another one, as where a store or a proxy is damaged; with `what` "all",
  one bit of each byte.
- `stale`: the first `times` answers that would differ from the first one are the first one again, as from a cache.
- `hold`: nothing is done and nothing is answered until the rules are set anew; then the connection is reset.
- `hold_response`: the work is done, and the answer is held likewise. Both stop a client at a moment of one's choice.
- `old_head`: what it says of a repo names `commit` as the head, as a machine does that is behind.
- `leave_out`: entries of a listing whose path matches `what` are not in it.
- `accept_anything`: an LFS body is stored under the digest that was announced, whatever it hashes to; some servers do.
"""

from __future__ import annotations

import asyncio
import base64
import json
import re
import sqlite3
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTROL = "/_faults"


@dataclass
class Rule:
    fault: str
    method: str = ".*"
    path: str = ".*"
    after: int = 0
    times: int = 1
    status: int = 503
    retry_after: float | None = None
    bytes: int = 0
    delay: float = 0.0
    first: dict[str, list[Message]] = field(default_factory=dict)
    commit: str = ""
    what: str = ""
    code: str = ""

    def applies(self, scope: Scope) -> bool:
        if not re.fullmatch(self.method, scope["method"]) or not re.search(self.path, scope["path"]):
            return False
        if self.after > 0:
            self.after -= 1
            return False
        if self.times == 0:
            return False
        if self.fault != "stale":  # which counts the answers that it has changed
            self.times -= 1
        return True


class FaultLayer:
    def __init__(self, app: ASGIApp, root: Path):
        self._app = app
        self._root = root
        self._rules: list[Rule] = []
        self._broken = 0
        self._set_anew = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        if scope["path"] == CONTROL:
            await self._control(receive, send)
            return
        for rule in self._rules:
            if rule.applies(scope):
                self._broken += 1
                await getattr(self, f"_{rule.fault}")(rule, scope, receive, send)
                return
        await self._app(scope, receive, send)

    def break_on(self, *rules: dict[str, Any]) -> None:
        """From now on break these requests and no others."""
        self._rules = [Rule(**rule) for rule in rules]
        self._broken = 0
        self._set_anew.set()
        self._set_anew = asyncio.Event()

    async def _control(self, receive: Receive, send: Send) -> None:
        body = await _body(receive)
        if body:
            self.break_on(*json.loads(body))
        answer = json.dumps({"broken": self._broken}).encode()
        await _answer(send, 200, answer)

    async def _status(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        await _body(receive)
        headers = [] if rule.retry_after is None else [(b"retry-after", str(rule.retry_after).encode())]
        headers += [(b"x-error-code", rule.code.encode())] if rule.code else []
        await _answer(send, rule.status, b'{"error": "broken on purpose"}', headers)

    async def _lose_response(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        async def swallow(message: Message) -> None:
            pass

        await self._app(scope, receive, swallow)
        _reset(receive)

    async def _cut_request(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        left = rule.bytes

        async def cut() -> Message:
            nonlocal left
            message = await receive()
            left -= len(message.get("body", b""))
            if left < 0:
                _reset(receive)
                return {"type": "http.disconnect"}
            return message

        await self._app(scope, cut, send)

    async def _cut_response(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        left = rule.bytes

        async def cut(message: Message) -> None:
            nonlocal left
            if left < 0:
                return
            body = message.get("body", b"")
            if len(body) > left:
                await send({**message, "body": body[:left], "more_body": True})
                await asyncio.sleep(0.05)  # what was sent should arrive before the reset does
                left = -1
                _reset(receive)
                return
            left -= len(body)
            await send(message)

        await self._app(scope, receive, cut)

    async def _slow(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        async def slow(message: Message) -> None:
            await asyncio.sleep(rule.delay)
            await send(message)

        await self._app(scope, receive, slow)

    async def _drop_pages(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        async def drop(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [(name, value) for name, value in message["headers"] if name != b"link"]
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, drop)

    async def _other_bytes(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        damaged = False

        async def damage(message: Message) -> None:
            nonlocal damaged
            body = message.get("body", b"")
            if body and rule.what == "all":
                message = {**message, "body": bytes(byte ^ 1 for byte in body)}
            elif body and not damaged:
                damaged, middle = True, len(body) // 2
                body = body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :]
                message = {**message, "body": body}
            await send(message)

        await self._app(scope, receive, damage)

    async def _stale(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        if answer[0]["status"] != 200:
            self._broken -= 1  # what is not there yet is no older answer
            for message in answer:
                await send(message)
            return
        first = rule.first.setdefault(f"{scope['path']}?{scope['query_string']!r}", answer)
        if _body_of(first) == _body_of(answer):
            self._broken -= 1
        else:
            rule.times -= 1
        for message in first:
            await send(message)

    async def _hold(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        await self._set_anew.wait()
        _reset(receive)

    async def _hold_response(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        async def swallow(message: Message) -> None:
            pass

        self._broken -= 1  # it counts once the work is done
        await self._app(scope, receive, swallow)
        self._broken += 1
        await self._set_anew.wait()
        _reset(receive)

    async def _old_head(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        said: list[Message] = []

        async def keep(message: Message) -> None:
            said.append(message)

        await self._app(scope, receive, keep)
        body = json.loads(b"".join(message.get("body", b"") for message in said))
        await _answer(send, said[0]["status"], json.dumps(body | {"sha": rule.commit}).encode())

    async def _leave_out(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        answer: list[Message] = []

        async def keep(message: Message) -> None:
            answer.append(message)

        await self._app(scope, receive, keep)
        entries = json.loads(b"".join(message.get("body", b"") for message in answer))
        left = [entry for entry in entries if not re.search(rule.what, entry["path"])]
        links = [header for header in answer[0]["headers"] if header[0] == b"link"]
        await _answer(send, answer[0]["status"], json.dumps(left).encode(), links)

    async def _accept_anything(self, rule: Rule, scope: Scope, receive: Receive, send: Send) -> None:
        signed = scope["path"].rpartition("/")[2].partition(".")[0]
        claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(signed + "=" * (-len(signed) % 4)))
        body = await _body(receive)
        path = self._root / "content" / claims["oid"][:2] / claims["oid"]
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(body)
        with sqlite3.connect(self._root / "hub.sqlite3", timeout=30) as database:
            row = (claims["repo"], claims["oid"], claims["size"], None, time.time())
            columns = "repo, sha256, size, xet, pushed, promised"
            database.execute(f"INSERT OR REPLACE INTO holding ({columns}) VALUES (?, ?, ?, ?, ?, 0)", row)
        await _answer(send, 200, b"")


def _body_of(answer: list[Message]) -> bytes:
    parts: list[bytes] = [message.get("body", b"") for message in answer]
    return b"".join(parts)


async def _body(receive: Receive) -> bytes:
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            return body


async def _answer(send: Send, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": status, "headers": [length, *(headers or [])]})
    await send({"type": "http.response.body", "body": body})


def _reset(receive: Receive) -> None:
    receive.__self__.transport.abort()  # type: ignore[attr-defined]  # uvicorn's cycle: ASGI has no word for it


def flip_byte(root: Path, sha256: str | None = None) -> Path:
    """Turn one bit in the middle of stored content (or of any xorb), as a failing disk would; the damaged file."""
    pattern = "xorbs/*/*" if sha256 is None else f"content/*/{sha256}"
    path = sorted(root.glob(pattern))[0]
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    return path


def main() -> int:
    """The Hub's own commands, the server behind the layer."""
    from deployments.local_hub import __main__ as commands
    from deployments.local_hub import serve as server

    application = server.Application  # type: ignore[attr-defined]
    server.Application = lambda hub: FaultLayer(application(hub), hub.root)  # type: ignore
    return commands.main()


if __name__ == "__main__":
    sys.exit(main())
