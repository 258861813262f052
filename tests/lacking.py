"""A layer before the local Hub that lacks routes, as another server does, and notes which routes are asked for.

A route is an entry of the local Hub's own table (`deployments.local_hub.routes.TABLE`), written as there:
`POST /api/{type}/{namespace}/{name}/preupload/{revision}`. So a route is there or not for every repo and revision.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from deployments.local_hub.routes import API, CAS, TABLE, _compile

_PATTERNS = [(method, _compile(path), f"{method} {path}") for method, path, _, _ in TABLE]

INFO, INFO_AT = f"GET {API}", f"GET {API}/revision/{{revision}}"
WHOAMI, MAY_WRITE = "GET /api/whoami-v2", f"GET {API}/auth-check/write"
CREATE, SETTINGS, BRANCH = "POST /api/repos/create", f"PUT {API}/settings", f"POST {API}/branch/{{branch}}"
TREE, PATHS_INFO = f"GET {API}/tree/{{revision}}", f"POST {API}/paths-info/{{revision}}"
COMMITS, YAML = f"GET {API}/commits/{{revision}}", "POST /api/validate-yaml"
PREUPLOAD, COMMIT = f"POST {API}/preupload/{{revision}}", f"POST {API}/commit/{{revision}}"
BATCH = "POST /{type=datasets|spaces}/{namespace}/{name}.git/info/lfs/objects/batch"
PUT, VERIFY = "PUT /lfs/{signed}", f"POST {API}/lfs-verify"
PUT_PART, COMPLETE = "PUT /lfs-part/{signed}", "POST /lfs-complete/{signed}"
FILE = "GET /{type=datasets|spaces}/{namespace}/{name}/resolve/{revision}/{path*}"
XET_TOKEN = f"GET {API}/xet-{{scope=read|write}}-token/{{revision}}"
XORBS, XET_SHARDS = f"POST {CAS}/v1/xorbs/{{prefix}}/{{hash}}", f"POST {CAS}/v2/shards"


@dataclass(frozen=True)
class Refusal:
    """How a server answers that lacks a route."""

    status: int = 404
    body: bytes = b"404 page not found\n"
    kind: str = "text/plain; charset=utf-8"
    code: str = ""

    @property
    def headers(self) -> list[tuple[bytes, bytes]]:
        """The answer's headers."""
        coded = [(b"x-error-code", self.code.encode())] if self.code else []
        length = (b"content-length", str(len(self.body)).encode())
        return [(b"content-type", self.kind.encode()), length, *coded]


PAGE = b"<!doctype html><html><head><title>404</title></head><body><h1>Not Found</h1></body></html>"
JSON = "application/json"
#: How servers answer that lack a route, by a name for a test.
REFUSALS = {
    "text": Refusal(),
    "nothing": Refusal(body=b""),
    "page": Refusal(body=PAGE, kind="text/html"),
    "page-called-text": Refusal(body=PAGE),
    "json": Refusal(body=json.dumps({"detail": "Not Found"}).encode(), kind=JSON),
    "json-list": Refusal(body=b'["not", "found"]', kind=JSON),
    "json-text": Refusal(body=b'"not found"', kind=JSON),
    "no-unicode": Refusal(body=b"\xff\xfe\x00", kind=JSON),
    "RepoNotFound": Refusal(body=b'{"error": "Repository not found"}', kind=JSON, code="RepoNotFound"),
    "RevisionNotFound": Refusal(body=b'{"error": "No such revision"}', kind=JSON, code="RevisionNotFound"),
    "EntryNotFound": Refusal(body=b'{"error": "Entry not found"}', kind=JSON, code="EntryNotFound"),
    "405": Refusal(405, b"Method Not Allowed"),
    "405-RepoNotFound": Refusal(405, b"{}", JSON, "RepoNotFound"),
    "501": Refusal(501, b"Unsupported method"),
    "501-page": Refusal(501, PAGE, "text/html"),
}


class Lacking:
    """The ASGI layer. `lacks` and `largest` may be changed at any time."""

    def __init__(self) -> None:
        self.lacks: dict[str, Refusal] = {}
        """The routes that are answered so, and not by the Hub."""
        self.largest: dict[str, int] = {}
        """Bytes of the largest body that a route takes; a larger one is answered 413, as a proxy does."""
        self.on: dict[str, Callable[[], object]] = {}
        """What happens whenever a route is asked for."""
        self.bodies: dict[str, list[int]] = {}
        """Bytes of the bodies that each route of `largest` was sent."""
        self.asked: Counter[str] = Counter()
        """How often each route was asked for."""
        self.refused: Counter[str] = Counter()
        """How often each was answered in place of the Hub."""

    def before(self, application: ASGIApp) -> ASGIApp:
        """Return the Hub behind this layer."""

        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            route = route_of(scope)
            self.asked[route] += 1
            self.on.get(route, bool)()
            refusal = self.lacks.get(route)
            body = b""
            if route in self.largest and refusal is None:
                body, receive = await _read(receive)
                self.bodies.setdefault(route, []).append(len(body))
                if len(body) > self.largest[route]:
                    refusal = Refusal(413, b"<html><body>413 Request Entity Too Large</body></html>", "text/html")
            if refusal is None:
                await application(scope, receive, send)
                return
            self.refused[route] += 1
            await refuse(refusal, send)

        return answer


async def refuse(refusal: Refusal, send: Send) -> None:
    """Send it as the answer."""
    await send({"type": "http.response.start", "status": refusal.status, "headers": refusal.headers})
    await send({"type": "http.response.body", "body": refusal.body})


def route_of(scope: Scope) -> str:
    """The entry of the table that answers a request; of a HEAD, that of the GET; else the request itself."""
    path, method = scope["raw_path"].split(b"?")[0].decode("latin-1"), scope["method"]
    for of, pattern, route in _PATTERNS:
        if of == ("GET" if method == "HEAD" else method) and pattern.fullmatch(path):
            return route
    return f"{method} {path}"


async def _read(receive: Receive) -> tuple[bytes, Receive]:
    body, more = b"", True
    while more:
        message = await receive()
        body += message.get("body", b"")
        more = message.get("more_body", False)

    async def again() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    return body, again
