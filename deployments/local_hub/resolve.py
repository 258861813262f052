"""Downloads: GET and HEAD /.../resolve/{revision}/{path}, whole or a range, streamed from disk block by block."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from urllib.parse import quote

from starlette.responses import Response, StreamingResponse

from deployments.local_hub.call import Call
from deployments.local_hub.content import read_range
from deployments.local_hub.errors import HubError, entry_not_found
from deployments.local_hub.git import BlobInfo, Entry
from deployments.local_hub.repos import Repo

RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
TEXT_ENDINGS = (".md", ".txt", ".json", ".jsonl", ".tsv", ".csv", ".yaml", ".yml", ".bval", ".bvec", ".py", "README")


async def resolve(call: Call) -> Response:
    """The file's bytes, with the headers the client reads: commit, ETag, size, and how to get it over Xet."""
    repo, commit, path, entry, blob = await call.work(_find, call)
    headers = await call.work(_headers, call, repo, commit, path, entry, blob)
    if blob.sha256 is not None:
        return await send_content(call, repo, blob.sha256, blob.size, headers)
    status, start, stop = _part(call, blob.size, headers)
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    data = await call.work(call.hub.git.blob, repo.id, entry.oid)
    return Response(data[start:stop], status, headers)


async def send_content(call: Call, repo: Repo, sha256: str, size: int, headers: dict[str, str]) -> Response:
    """Content that a repo holds, or the range of it that is asked for, block by block."""
    status, start, stop = _part(call, size, headers)
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    content = await call.work(_content, call, repo, sha256, start, stop)
    return StreamingResponse(call.blocks(content), status, headers)


def _part(call: Call, size: int, headers: dict[str, str]) -> tuple[int, int, int]:
    """The status, and the first byte and the one after the last, of what is asked for. It goes into the headers."""
    asked = _range(call.request.headers.get("range"), size)
    start, stop = asked or (0, size)
    if asked is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    return (200 if asked is None else 206), start, stop


def _find(call: Call) -> tuple[Repo, str, str, Entry, BlobInfo]:
    repo = call.repo()
    revision, path = call.params["revision"], call.params["path"]
    if revision == "refs":  # refs/pr/1 that came unquoted
        kind, _, rest = path.partition("/")
        name, _, path = rest.partition("/")
        revision = f"refs/{kind}/{name}"
    commit = call.hub.git.resolve(repo.id, revision)
    entry = call.hub.git.entry(repo.id, commit, path)
    if entry is None or entry.is_folder:
        raise entry_not_found(path, commit)
    blob = call.hub.git.blobs(repo.id, [entry.oid])[entry.oid]
    if blob.sha256 is not None and call.hub.holdings.was_deleted(repo.id, blob.sha256):
        raise entry_not_found(path, commit)
    return repo, commit, path, entry, blob


def _headers(call: Call, repo: Repo, commit: str, path: str, entry: Entry, blob: BlobInfo) -> dict[str, str]:
    name = path.rpartition("/")[2]
    etag = f'"{blob.sha256 or entry.oid}"'
    headers = {
        "X-Repo-Commit": commit,
        "ETag": etag,
        "Accept-Ranges": "bytes",
        # files are other people's: never run as a page of this Hub
        "Content-Type": "text/plain; charset=utf-8" if path.endswith(TEXT_ENDINGS) else "application/octet-stream",
        "X-Content-Type-Options": "nosniff",
        "Content-Security-Policy": "default-src 'none'; sandbox",
        "Content-Disposition": f"inline; filename*=UTF-8''{quote(name)}",
    }
    if blob.sha256 is not None:
        xet_hash = call.hub.holdings.xet_hashes(repo.id, [blob.sha256]).get(blob.sha256)
        if xet_hash is not None:
            route = f"{call.endpoint}/api/{repo.type}s/{repo.full_name}/xet-read-token/{commit}"
            headers["X-Xet-Hash"] = xet_hash
            headers["Link"] = f'<{route}>; rel="xet-auth"'
        headers["X-Linked-Etag"] = etag
        headers["X-Linked-Size"] = str(blob.size)
    return headers


def _range(header: str | None, size: int) -> tuple[int, int] | None:
    """First byte and the one after the last; None for the whole.

    Several ranges at once, and what is no range, are answered with the whole, as RFC 9110 allows; 416 beyond the end.
    """
    found = RANGE.fullmatch(header.strip()) if header else None
    if found is None or size == 0 or found[1] == found[2] == "":
        return None
    if found[1] == "":
        start, stop = max(size - int(found[2]), 0), size
    else:
        start, stop = int(found[1]), min(int(found[2]) + 1, size) if found[2] else size
    if start >= stop:
        raise HubError(416, f"The file has {size} bytes", headers={"Content-Range": f"bytes */{size}"})
    return start, stop


def content_reader(call: Call, repo: Repo, sha256: str) -> Callable[[int, int], bytes]:
    """What gives the bytes from one to another of content that a repo holds."""
    return lambda start, stop: b"".join(_content(call, repo, sha256, start, stop))


def _content(call: Call, repo: Repo, sha256: str, start: int, stop: int) -> Iterator[bytes]:
    path = call.hub.content.path(sha256)
    held = call.hub.holdings.size(repo.id, sha256) is not None
    if held and path.is_file():
        return read_range(path, start, stop)
    found = call.hub.xet.by_sha256(repo.id, sha256) if held else None
    if found is None and call.hub.holdings.was_deleted(repo.id, sha256):
        raise HubError(404, "This content was deleted from the repo")  # since the address was given
    if found is None:
        raise HubError(500, f"The content of this file (sha256 {sha256}) is missing from the store")
    return call.hub.xet.read(found, start, stop)
