"""The routes of Xet's content store: tokens from the Hub, then xorbs, shards and reconstructions with those tokens.

Source: Hub documentation, "Xet Protocol Specification", section API, and what hf_xet 1.8 sends.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import re
import time
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterator
from typing import Any

from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from deployments.local_hub.call import Call
from deployments.local_hub.content import read_range
from deployments.local_hub.errors import HubError, bad_request, forbidden, invalid_token
from deployments.local_hub.promises import promise_xorbs
from deployments.local_hub.receive import Received, receive
from deployments.local_hub.repos import Repo
from deployments.local_hub.xet import shard, xorb
from deployments.local_hub.xet.hashes import from_text, to_text
from deployments.local_hub.xet.rights import Rights
from deployments.local_hub.xet.store import ChunkRange, XetFile, trim

TOKEN_LIFETIME = 3600.0  # seconds; the client asks again before the end
URL_LIFETIME = 3600.0  # seconds a reconstruction's URLs are good for; the client asks again when they are not
FILES_LIMIT = 1000  # files of one batch of reconstructions
TERMS_LIMIT = 20_000  # chunk ranges of one answer, 500 bytes each in it: usually of half a MB of a file or more
TELEMETRY_LIMIT = 1024 * 1024  # bytes

RANGE = re.compile(r"bytes=(\d{1,18})-(\d{1,18})?")


def token(call: Call) -> Response:
    """GET .../xet-{read,write}-token/{revision}: a token for the content store, and where that is."""
    write = call.params["scope"] == "write"
    repo = call.repo(write=write)
    expires = int(time.time() + TOKEN_LIFETIME)
    signed = call.sign("xet", TOKEN_LIFETIME, repo, write=write)
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
    store = call.hub.database.store_id
    if call.identity.name is not None:
        # and another account has another address: what one has sent, another cannot build on
        store = hashlib.sha256(f"{store}/{call.identity.name.lower()}".encode()).hexdigest()[:16]
    return f"{call.endpoint}/cas/{store}"


def _granted(call: Call, *, write: bool = False) -> Repo:
    """The repo that a Xet token is for, and who asked for it as the caller; 401 where they may not do so any more."""
    scheme, _, signed = call.request.headers.get("authorization", "").partition(" ")
    claims = call.hub.signer.check("xet", signed.strip()) if scheme.lower() == "bearer" else None
    if claims is None:
        raise invalid_token()
    if write and not claims["write"]:
        raise forbidden("This Xet token is for reading")
    try:
        return call.signed(claims, write=write)
    except HubError:
        raise invalid_token() from None


def _rights(call: Call) -> Rights:
    def writable(repo_id: int) -> bool:
        repo = call.hub.repos.by_id(repo_id)
        return repo is not None and call.may_write(repo)

    return Rights(call.hub.database, call.user, writable)


def _hash(call: Call) -> bytes:
    try:
        return from_text(call.params["hash"])
    except ValueError as error:
        raise bad_request(str(error)) from None


# sending


def known_chunks(call: Call) -> Response:
    """GET /v1/chunks/{prefix}/{hash}: a shard of the chunks around one, where the caller may build on it."""
    _granted(call, write=True)
    found = call.hub.xet.known_chunks(_hash(call), _rights(call))
    if found is None:
        raise HubError(404, "This chunk is not known")
    return Response(found, media_type="application/octet-stream")


def has_xorb(call: Call) -> Response:
    """HEAD /v1/xorbs/{prefix}/{hash}: whether a xorb is here, and the caller may build on it."""
    _granted(call, write=True)
    if not call.hub.xet.has_xorb(_hash(call), _rights(call)):
        raise HubError(404, "This xorb is not here")
    promise_xorbs(call.hub.database, [_hash(call)])
    return Response()


async def put_xorb(call: Call) -> Response:
    """POST /v1/xorbs/{prefix}/{hash}."""
    _granted(call, write=True)
    digest = _hash(call)
    received = await _receive(call, xorb.BODY_LIMIT)

    def work() -> bool:
        try:
            repo, rights = _granted(call, write=True), _rights(call)  # once more: the body may have taken hours
            known = call.hub.xet.has_xorb(digest, rights)
            call.hub.xet.add_xorb(repo.id, call.user, digest, received)
        finally:
            received.discard()
        return not known  # of the caller: who else has it is not told

    return JSONResponse({"was_inserted": await call.work(work)})


async def put_shard(call: Call) -> Response:
    """POST /v1/shards: answers when every file is verified."""
    _granted(call, write=True)
    received = await _receive(call, shard.BODY_LIMIT)

    def work() -> None:
        try:
            for _ in call.hub.xet.register(_granted(call, write=True).id, _rights(call), received.path):
                pass
        finally:
            received.discard()

    async with call.hub.turn(call.user):
        await call.work(work, pool=call.hub.shards)
    return JSONResponse({"result": 1})


async def put_shard_with_progress(call: Call) -> Response:
    """POST /v2/shards: the same, telling how far it is, a JSON line at a time; an error is a line too."""
    _granted(call, write=True)
    received = await _receive(call, shard.BODY_LIMIT)
    lines = call.blocks(_progress(call, received), call.hub.shards)
    return _Progress(lines, received, call.hub.turn(call.user))


class _Progress(StreamingResponse):
    """Lines about a shard, which is forgotten when they end or their reader has gone: the generator may never know."""

    def __init__(self, lines: AsyncIterator[bytes], received: Received, turn: asyncio.Semaphore) -> None:
        super().__init__(lines, media_type="application/x-ndjson")
        self._received = received
        self._turn = turn

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            async with self._turn:
                await super().__call__(scope, receive, send)
        finally:
            self._received.discard()


def _progress(call: Call, received: Received) -> Iterator[bytes]:
    try:
        for done in call.hub.xet.register(_granted(call, write=True).id, _rights(call), received.path):
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
    repo = _granted(call)
    offset, terms = _terms(call, repo)
    described = {"offset_into_first_range": offset, "terms": _described(terms)}
    return JSONResponse({**described, "fetch_info": _fetch_info(call, repo, terms)})


def reconstruction_v2(call: Call) -> Response:
    """GET /v2/reconstructions/{hash}: the same, a URL with its ranges."""
    repo = _granted(call)
    offset, terms = _terms(call, repo)
    fetch = {
        name: [{"url": url, "ranges": [{"chunks": chunks, "bytes": octets}]} for url, chunks, octets in ranges]
        for name, ranges in _fetches(call, repo, terms).items()
    }
    return JSONResponse({"offset_into_first_range": offset, "terms": _described(terms), "xorbs": fetch})


def reconstructions(call: Call) -> Response:
    """GET /v1/reconstructions?file_id=...: several files at once."""
    repo = _granted(call)
    wanted = call.request.query_params.getlist("file_id")
    if len(wanted) > FILES_LIMIT:
        raise bad_request(f"At most {FILES_LIMIT} files")
    files = {name: _file(call, repo, name) for name in wanted}
    if sum(len(file.ranges) for file in files.values() if file is not None) > TERMS_LIMIT:
        raise HubError(413, f"These files have more than {TERMS_LIMIT} chunk ranges: ask for fewer at once")
    found = {name: list(file.ranges) for name, file in files.items() if file is not None}
    fetch = _fetch_info(call, repo, [term for terms in found.values() for term in terms])
    described = {name: _described(terms) for name, terms in found.items()}
    return JSONResponse({"files": described, "fetch_info": fetch})


def _file(call: Call, repo: Repo, name: str) -> XetFile | None:
    """A file that the caller may have: what was sent and not committed is for those who may write."""
    return call.hub.xet.file(repo.id, name, committed=not call.may_write(repo))


def _terms(call: Call, repo: Repo) -> tuple[int, list[ChunkRange]]:
    """The file's chunk ranges for the bytes asked for, and how many bytes of the first come before them."""
    file = _file(call, repo, to_text(_hash(call)))
    if file is None:
        raise HubError(404, "This file is not here")
    header = call.request.headers.get("range")
    if header is None:
        return 0, _affordable(file.ranges)
    found = RANGE.fullmatch(header.strip())
    if found is None:
        raise bad_request("The range must be bytes=FIRST-LAST")
    start = int(found[1])
    stop = min(int(found[2]) + 1, file.size) if found[2] else file.size
    if start >= stop:
        raise HubError(416, f"The file has {file.size} bytes")
    return _cut(call, file, start, stop)


def _affordable(ranges: Collection[ChunkRange]) -> list[ChunkRange]:
    if len(ranges) > TERMS_LIMIT:
        raise HubError(413, f"This has {len(ranges)} chunk ranges, over {TERMS_LIMIT}: ask for a range of its bytes")
    return list(ranges)


def _cut(call: Call, file: XetFile, start: int, stop: int) -> tuple[int, list[ChunkRange]]:
    offset = None
    terms: list[ChunkRange] = []
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
            if len(terms) > TERMS_LIMIT:
                break
        position += each.size
    assert offset is not None
    return offset, _affordable(terms)


def _described(terms: list[ChunkRange]) -> list[dict[str, Any]]:
    return [
        {"hash": to_text(term.xorb), "unpacked_length": term.size, "range": {"start": term.start, "end": term.end}}
        for term in terms
    ]


Fetch = tuple[str, dict[str, int], dict[str, int]]  # URL, chunks, bytes (the last one included)


def _fetch_info(call: Call, repo: Repo, terms: list[ChunkRange]) -> dict[str, list[dict[str, Any]]]:
    return {
        name: [{"range": chunks, "url": url, "url_range": octets} for url, chunks, octets in ranges]
        for name, ranges in _fetches(call, repo, terms).items()
    }


def _fetches(call: Call, repo: Repo, terms: list[ChunkRange]) -> dict[str, list[Fetch]]:
    """For each xorb its ranges, those that touch joined to one; each has a URL that opens its bytes alone."""
    by_xorb: dict[bytes, list[tuple[int, int]]] = defaultdict(list)
    for term in terms:
        by_xorb[term.xorb].append((term.start, term.end))
    fetches = {}
    for digest, ranges in by_xorb.items():
        index = call.hub.xet.index(digest)
        if index is None:
            raise HubError(500, f"Xorb {to_text(digest)} is missing from the store")
        name = to_text(digest)
        fetches[name] = [
            (_url(call, repo, name, start, stop), {"start": first, "end": last}, {"start": start, "end": stop - 1})
            for first, last in _joined(ranges)
            for start, stop in [index.packed(first, last)]
        ]
    return fetches


def _url(call: Call, repo: Repo, name: str, start: int, stop: int) -> str:
    signed = call.sign("xorb", URL_LIFETIME, repo, xorb=name, start=start, stop=stop)
    return f"{_address(call)}/xorb/{signed}/{name}"


def _joined(ranges: list[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(ranges):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


async def xorb_bytes(call: Call) -> Response:
    """GET /xorb/{signed}/{hash} with a Range: bytes of a xorb as stored, within the range that the URL is for.

    A xorb holds other files' chunks too, and other repos'. Without a Range, or to the end, it is all of that range.
    """
    digest = _hash(call)
    claims = await call.work(_opens, call)
    path = call.hub.xet.path(digest)
    if not path.is_file():
        raise HubError(500, f"Xorb {to_text(digest)} is missing from the store")
    header = call.request.headers.get("range")
    found = RANGE.fullmatch(header.strip()) if header else None
    if header and found is None:
        raise bad_request("The range must be bytes=FIRST-LAST")
    start, stop = claims["start"], claims["stop"]
    if found is not None:
        start, stop = int(found[1]), int(found[2]) + 1 if found[2] else stop
    if not claims["start"] <= start < stop <= claims["stop"]:
        raise forbidden(f"This URL is for bytes {claims['start']} to {claims['stop'] - 1}")
    headers = {"Content-Length": str(stop - start), "Content-Range": f"bytes {start}-{stop - 1}/*"}
    return StreamingResponse(call.blocks(read_range(path, start, stop)), 206, headers, "application/octet-stream")


def _opens(call: Call) -> dict[str, Any]:
    claims = call.hub.signer.check("xorb", call.params["signed"])
    if claims is None or claims["xorb"] != call.params["hash"]:
        raise forbidden("This URL is not valid, or not any more")
    try:
        call.signed(claims)
    except HubError:
        raise forbidden("This URL is not valid any more: who asked for it may not read this now") from None
    return claims
