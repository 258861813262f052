"""The routes of Xet's content store: tokens from the Hub, then xorbs, shards and reconstructions with those tokens.

Source: Hub documentation, "Xet Protocol Specification", section API, and what hf_xet 1.8 sends.
"""

from __future__ import annotations

import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.local_hub.accounts import Identity
from deployments.local_hub.call import Call
from deployments.local_hub.content import read_range
from deployments.local_hub.errors import HubError, bad_request, forbidden, invalid_token
from deployments.local_hub.receive import Received, receive
from deployments.local_hub.xet import shard, xorb
from deployments.local_hub.xet.hashes import from_text, to_text
from deployments.local_hub.xet.store import ChunkRange, XetFile, trim

TOKEN_LIFETIME = 3600.0  # seconds; the client asks again before the end
URL_LIFETIME = 3600.0  # seconds a reconstruction's URLs are good for; the client asks again when they are not
FILES_LIMIT = 1000  # files of one batch of reconstructions
TELEMETRY_LIMIT = 1024 * 1024  # bytes

RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?")


@dataclass(frozen=True)
class Grant:
    """What a Xet token permits: a repo, and whether content may be sent to it."""

    repo: int
    write: bool
    caller: Identity


def token(call: Call) -> Response:
    """GET .../xet-{read,write}-token/{revision}: a token for the content store, and where that is."""
    write = call.params["scope"] == "write"
    repo = call.repo(write=write)
    expires = int(time.time() + TOKEN_LIFETIME)
    signed = call.hub.signer.sign(
        "xet", TOKEN_LIFETIME, repo=repo.id, write=write, user=call.identity.name, role=call.identity.role
    )
    # Clients remember for weeks, by this address, which chunks a store has: another store has another address, or a
    # Hub begun anew on the same port could not be written to by anyone who knew the old one.
    address = _address(call)
    headers = {
        "X-Xet-Cas-Url": address,
        "X-Xet-Access-Token": signed,
        "X-Xet-Token-Expiration": str(expires),
    }
    return JSONResponse({"casUrl": address, "accessToken": signed, "exp": expires}, headers=headers)


def _address(call: Call) -> str:
    return f"{call.endpoint}/cas/{call.hub.database.store_id}"


def _grant(call: Call, *, write: bool = False) -> Grant:
    scheme, _, signed = call.request.headers.get("authorization", "").partition(" ")
    claims = call.hub.signer.check("xet", signed.strip()) if scheme.lower() == "bearer" else None
    if claims is None or call.hub.repos.by_id(claims["repo"]) is None:
        raise invalid_token()
    if write and not claims["write"]:
        raise forbidden("This Xet token is for reading")
    return Grant(claims["repo"], claims["write"], Identity(claims["user"], claims["role"]))


def _hash(call: Call) -> bytes:
    try:
        return from_text(call.params["hash"])
    except ValueError as error:
        raise bad_request(str(error)) from None


# sending


def known_chunks(call: Call) -> Response:
    """GET /v1/chunks/{prefix}/{hash}: a shard of xorbs around a chunk, where the Hub has it and the caller may know."""
    grant = _grant(call)

    @cache
    def visible(repo_id: int) -> bool:
        repo = call.hub.repos.by_id(repo_id)
        return repo is not None and call.hub.repos.visible(grant.caller, repo)

    found = call.hub.xet.known_chunks(_hash(call), visible)
    if found is None:
        raise HubError(404, "This chunk is not known")
    return Response(found, media_type="application/octet-stream")


def has_xorb(call: Call) -> Response:
    """HEAD /v1/xorbs/{prefix}/{hash}: whether a xorb is here."""
    _grant(call, write=True)
    if call.hub.xet.index(_hash(call)) is None:
        raise HubError(404, "This xorb is not here")
    return Response()


async def put_xorb(call: Call) -> Response:
    """POST /v1/xorbs/{prefix}/{hash}."""
    grant, digest = _grant(call, write=True), _hash(call)
    received = await _receive(call, xorb.BODY_LIMIT)
    inserted = await call.work(call.hub.xet.add_xorb, grant.repo, digest, received)
    return JSONResponse({"was_inserted": inserted})


async def put_shard(call: Call) -> Response:
    """POST /v1/shards: answers when every file is verified."""
    grant = _grant(call, write=True)
    received = await _receive(call, shard.BODY_LIMIT)

    def work() -> None:
        try:
            for _ in call.hub.xet.register(grant.repo, received.path):
                pass
        finally:
            received.discard()

    await call.work(work)
    return JSONResponse({"result": 1})


async def put_shard_with_progress(call: Call) -> Response:
    """POST /v2/shards: the same, telling how far it is, a JSON line at a time; an error is a line too."""
    grant = _grant(call, write=True)
    received = await _receive(call, shard.BODY_LIMIT)
    return _Progress(call.blocks(_progress(call, grant.repo, received)), received)


class _Progress(StreamingResponse):
    """Lines about a shard, which is forgotten when they end or their reader has gone: the generator may never know."""

    def __init__(self, lines: AsyncIterator[bytes], received: Received) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._received = received

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._received.discard()


def _progress(call: Call, repo: int, received: Received) -> Iterator[bytes]:
    try:
        for done in call.hub.xet.register(repo, received.path):
            yield _line({"type": "validating", "verified": done, "total": done})
        yield _line({"type": "result"})
    except HubError as error:
        yield _line({"type": "error", "message": error.message, "retryable": False})


def _line(event: dict[str, Any]) -> bytes:
    return json.dumps(event).encode() + b"\n"


async def _receive(call: Call, limit: int) -> Received:
    return await receive(call.request.stream(), call.hub.incoming, call.hub.workers, limit=limit, hashed=False)


async def telemetry(call: Call) -> Response:
    """POST /v1/telemetry: taken and forgotten."""
    total = 0
    async for piece in call.request.stream():
        total += len(piece)
        if total > TELEMETRY_LIMIT:
            raise bad_request("Too much telemetry")
    return Response(status_code=204)


# fetching


def reconstruction_v1(call: Call) -> Response:
    """GET /v1/reconstructions/{hash}: a file's chunk ranges and a URL for each range of bytes."""
    offset, terms = _terms(call)
    fetch = {
        name: [{"range": chunks, "url": url, "url_range": octets} for url, chunks, octets in ranges]
        for name, ranges in _fetches(call, terms).items()
    }
    return JSONResponse({"offset_into_first_range": offset, "terms": _described(terms), "fetch_info": fetch})


def reconstruction_v2(call: Call) -> Response:
    """GET /v2/reconstructions/{hash}: the same, a URL with its ranges."""
    offset, terms = _terms(call)
    fetch = {
        name: [{"url": url, "ranges": [{"chunks": chunks, "bytes": octets}]} for url, chunks, octets in ranges]
        for name, ranges in _fetches(call, terms).items()
    }
    return JSONResponse({"offset_into_first_range": offset, "terms": _described(terms), "xorbs": fetch})


def reconstructions(call: Call) -> Response:
    """GET /v1/reconstructions?file_id=...: several files at once."""
    grant = _grant(call)
    wanted = call.request.query_params.getlist("file_id")
    if len(wanted) > FILES_LIMIT:
        raise bad_request(f"At most {FILES_LIMIT} files")
    files = {name: call.hub.xet.held(grant.repo, name) for name in wanted}
    found = {name: list(file.ranges) for name, file in files.items() if file is not None}
    fetch = {
        name: [{"range": chunks, "url": url, "url_range": octets} for url, chunks, octets in ranges]
        for name, ranges in _fetches(call, [term for terms in found.values() for term in terms]).items()
    }
    described = {name: _described(terms) for name, terms in found.items()}
    return JSONResponse({"files": described, "fetch_info": fetch})


def _terms(call: Call) -> tuple[int, list[ChunkRange]]:
    """The file's chunk ranges for the bytes asked for, and how many bytes of the first come before them."""
    grant = _grant(call)
    file = call.hub.xet.held(grant.repo, to_text(_hash(call)))
    if file is None:
        raise HubError(404, "This file is not here")
    header = call.request.headers.get("range")
    if header is None:
        return 0, list(file.ranges)
    found = RANGE.fullmatch(header.strip())
    if found is None:
        raise bad_request("The range must be bytes=FIRST-LAST")
    start = int(found[1])
    stop = min(int(found[2]) + 1, file.size) if found[2] else file.size
    if start >= stop:
        raise HubError(416, f"The file has {file.size} bytes")
    return _cut(call, file, start, stop)


def _cut(call: Call, file: XetFile, start: int, stop: int) -> tuple[int, list[ChunkRange]]:
    offset = None
    terms = []
    position = 0
    for each in file.ranges:
        if position + each.size > start and position < stop:
            index = call.hub.xet.index(each.xorb)
            if index is None:
                raise HubError(500, f"Xorb {to_text(each.xorb)} is missing from the store")
            first, last = trim(index, each.start, each.end, max(start - position, 0), min(stop - position, each.size))
            if offset is None:
                offset = start - position - (index.unpacked_start(first) - index.unpacked_start(each.start))
            terms.append(ChunkRange(each.xorb, first, last, index.unpacked(first, last)))
        position += each.size
    assert offset is not None
    return offset, terms


def _described(terms: list[ChunkRange]) -> list[dict[str, Any]]:
    return [
        {"hash": to_text(term.xorb), "unpacked_length": term.size, "range": {"start": term.start, "end": term.end}}
        for term in terms
    ]


Fetch = tuple[str, dict[str, int], dict[str, int]]  # URL, chunks, bytes (the last one included)


def _fetches(call: Call, terms: list[ChunkRange]) -> dict[str, list[Fetch]]:
    """For each xorb its ranges, those that touch joined to one."""
    by_xorb: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for term in terms:
        by_xorb[term.xorb].append((term.start, term.end))
    fetches = {}
    for digest, ranges in by_xorb.items():
        index = call.hub.xet.index(digest)
        if index is None:
            raise HubError(500, f"Xorb {to_text(digest)} is missing from the store")
        name = to_text(digest)
        url = f"{_address(call)}/xorb/{call.hub.signer.sign('xorb', URL_LIFETIME, xorb=name)}/{name}"
        fetches[name] = [
            (url, {"start": start, "end": end}, {"start": octets[0], "end": octets[1] - 1})
            for start, end in _joined(ranges)
            for octets in [index.packed(start, end)]
        ]
    return fetches


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


async def xorb_bytes(call: Call) -> Response:
    """GET /xorb/{signed}/{hash} with a Range: bytes of a xorb as stored."""
    digest = _hash(call)
    claims = call.hub.signer.check("xorb", call.params["signed"])
    if claims is None or claims["xorb"] != call.params["hash"]:
        raise forbidden("This URL is not valid, or not any more")
    index = await call.work(call.hub.xet.index, digest)
    path = call.hub.xet.path(digest)
    if index is None or not path.is_file():
        raise HubError(500, f"Xorb {to_text(digest)} is missing from the store")
    size = index.packed_ends[-1]
    found = RANGE.fullmatch(call.request.headers.get("range", "bytes=0-").strip())
    if found is None:
        raise bad_request("The range must be bytes=FIRST-LAST")
    start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    if start >= stop:
        raise HubError(416, f"The xorb has {size} bytes")
    headers = {"Content-Length": str(stop - start), "Content-Range": f"bytes {start}-{stop - 1}/{size}"}
    return StreamingResponse(call.blocks(read_range(path, start, stop)), 206, headers, "application/octet-stream")
