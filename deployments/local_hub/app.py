"""The ASGI application: finds the route, says who is calling, reads what a handler needs, answers in the Hub's shape.

How it works:

- `routes` is one table. A route that takes a body of bounded size gets it read and parsed; one that streams reads
  it itself. Plain handlers run on the Hub's threads, coroutine handlers in the event loop.
- URLs are matched before they are unquoted: a revision such as `refs%2Fpr%2F1` is one part of a path.
- Every refusal is a `HubError`; anything else that escapes is a 500 with its traceback in the log, never in the answer.
"""

from __future__ import annotations

import contextlib
import errno
import inspect
import json
import logging
import re
import uuid
from concurrent.futures import Executor
from dataclasses import replace
from typing import Any
from urllib.parse import parse_qs, unquote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from deployments.local_hub.accounts import Identity
from deployments.local_hub.call import COOKIE, Call, Handler
from deployments.local_hub.errors import HubError, bad_request, is_unicode, too_large
from deployments.local_hub.html import error_page
from deployments.local_hub.hub import Hub
from deployments.local_hub.routes import BY_PASSWORD, HEAVY, LONG, match

logger = logging.getLogger("local_hub")

NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}  # a disk, quota or limit that is full

JSON_LIMIT = 4 * 1024 * 1024  # bytes of a JSON or form body: 1,000 samples of 512 bytes and their paths need half
JSON_VALUES = 200_000  # about, of one body: each takes a hundred bytes of memory
PARSED_AT_ONCE = 64 * 1024  # bytes of a body that is parsed in the event loop; a larger one has to queue
URL_LIMIT = 16 * 1024  # bytes


class Application:
    """The ASGI callable over one Hub."""

    def __init__(self, hub: Hub):
        self.hub = hub
        self._match = match

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        request = Request(scope, receive)
        request_id = uuid.uuid4().hex[:16]
        try:
            response = await self._answer(request)
        except ClientDisconnect:
            return
        except HubError as error:
            response = refusal(error)
            if "text/html" in request.headers.get("accept", ""):
                response = error_page(error, scope["path"])
        except Exception as error:
            logger.exception("%s %r failed (request %s)", scope["method"], _loggable(scope["path"]), request_id)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                response = refusal(HubError(507, f"The Hub cannot store this: {error.strerror}"))
            else:
                response = refusal(HubError(500, f"Internal error; the server's log has the rest under {request_id}"))
        response.headers["X-Request-Id"] = request_id
        await response(scope, receive, send)

    def _identify(self, request: Request, *, password: bool) -> Identity:
        authorization = request.headers.get("authorization")
        if authorization is None and request.method in ("GET", "HEAD") and (cookie := request.cookies.get(COOKIE)):
            claims = self.hub.signer.check("page", cookie)
            with contextlib.suppress(HubError):  # signed out with its token
                if claims is not None and "token" in claims:
                    holder = self.hub.accounts.holder(claims["token"])
                    return replace(holder, role="read")  # a browser reads, whatever the token could do
        return self.hub.accounts.identify(authorization, password=password)

    async def _answer(self, request: Request) -> Response:
        raw_path: bytes = request.scope["raw_path"].split(b"?")[0]
        if len(raw_path) > URL_LIMIT:
            raise HubError(414, "The URL is too long")
        handler, body, quoted = self._match(request.method, raw_path)
        try:
            params = {name: unquote(value, errors="strict") for name, value in quoted.items() if value is not None}
        except UnicodeDecodeError:
            raise bad_request("The URL is not UTF-8") from None
        call = Call(self.hub, request, params)
        if body != "xet":  # Xet has tokens of its own, which its handlers check
            call.identity = self._identify(request, password=handler in BY_PASSWORD)
        if body in ("json", "form"):
            data = await _read_body(request)
            if len(data) > PARSED_AT_ONCE:
                call.body = await call.work(_parsed, data, body, request, pool=self.hub.heavy)
            else:
                call.body = _parsed(data, body, request)
        if inspect.iscoroutinefunction(handler):
            answer: Response = await handler(call)
            return answer
        return await call.work(_run, handler, call, pool=self._threads(handler))

    def _threads(self, handler: Handler) -> Executor | None:
        """Where a handler runs; None for the threads of most."""
        return self.hub.heavy if handler in HEAVY else self.hub.histories if handler in LONG else None


def _run(handler: Handler, call: Call) -> Response:
    response = handler(call)
    assert isinstance(response, Response)
    return response


async def _read_body(request: Request) -> bytes:
    data = bytearray()
    async for piece in request.stream():
        data += piece
        if len(data) > JSON_LIMIT:
            raise too_large(JSON_LIMIT)
    return bytes(data)


def _parsed(data: bytes, kind: str, request: Request) -> dict[str, Any]:
    if not data:
        return {}
    if kind == "form" and "json" not in request.headers.get("content-type", ""):
        try:
            return dict(parse_qs(data.decode(), keep_blank_values=True, max_num_fields=10_000))
        except ValueError:
            raise bad_request("The form cannot be read") from None
    if data.count(b",") + data.count(b"[") + data.count(b"{") > JSON_VALUES:
        raise HubError(413, f"The body has more than {JSON_VALUES} values")
    try:
        parsed = json.loads(data)
    except (ValueError, RecursionError):
        raise bad_request("The body is no JSON") from None
    if not isinstance(parsed, dict):
        raise bad_request("The body must be a JSON object")
    if b"\\ud" in data.lower() and not is_unicode(parsed):
        raise bad_request("The body has text that is not Unicode")
    return parsed


def _loggable(path: str) -> str:
    """A path for the log: of those that carry a signed permission, the first part alone."""
    first = path.split("/")[1:2]
    return f"/{first[0]}/..." if first and first[0].startswith(("lfs", "cas")) else path


def refusal(error: HubError) -> Response:
    """A HubError as an answer."""
    # a header is one line of plain characters; the JSON has the sentence as it is
    message = re.sub(r"[^ -~]+", "?", " ".join(error.message.split()))[:1000]
    headers = {"X-Error-Message": message, **error.headers}
    if error.code:
        headers["X-Error-Code"] = error.code
    return JSONResponse({"error": error.message}, error.status, headers)
