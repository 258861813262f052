"""`check`: reads the whole store again and names what is damaged or missing."""

from __future__ import annotations

import contextlib
import hashlib
import re
import zlib
from collections.abc import Iterator

from deployments.local_hub.git import BLOB, COMMIT, TAG, TREE
from deployments.local_hub.hub import Hub

_KINDS = {COMMIT: b"commit", TREE: b"tree", BLOB: b"blob", TAG: b"tag"}


def damage(hub: Hub) -> Iterator[str]:
    """A line for each thing that is not as it was stored; nothing if all is well."""
    yield from hub.database.damage()
    yield from _git_objects(hub)
    yield from _missing_objects(hub)
    for line in (*hub.content.damage(), *hub.xet.damage(), *_missing_content(hub)):
        yield from (f"{line}{where}" for where in [_paths(hub, line)])


def _git_objects(hub: Hub) -> Iterator[str]:
    for repo, oid, kind, data in hub.database.read().execute("SELECT repo, oid, kind, data FROM git_object"):
        try:
            raw = zlib.decompress(data)
        except zlib.error as error:
            yield f"repo {repo}: git object {oid} cannot be unpacked: {error}"
            continue
        header = _KINDS.get(kind, b"?") + b" " + str(len(raw)).encode() + b"\0"
        if hashlib.sha1(header + raw, usedforsecurity=False).hexdigest() != oid:
            yield f"repo {repo}: git object {oid} is not what its id says"


def _missing_objects(hub: Hub) -> Iterator[str]:
    for repo in hub.database.read().execute("SELECT id, type, namespace, name FROM repo").fetchall():
        label = f"{repo[1]} {repo[2]}/{repo[3]}"
        known = {row[0] for row in hub.database.read().execute("SELECT oid FROM git_object WHERE repo = ?", (repo[0],))}
        seen: set[str] = set()
        waiting = list(hub.git.refs(repo[0]).values())
        while waiting:
            oid = waiting.pop()
            if oid in seen:
                continue
            seen.add(oid)
            if oid not in known:
                yield f"{label}: git object {oid} is missing"
                continue
            waiting.extend(_targets(hub, repo[0], oid))


def _targets(hub: Hub, repo: int, oid: str) -> list[str]:
    try:
        found = hub.git.read(repo, oid)
        if found is None or found[0] == BLOB:
            return []
        if found[0] == TREE:
            return [entry.oid for entry in hub.git.tree(repo, oid).values()]
        if found[0] == TAG:
            return [hub.git.peel(repo, oid)]
        commit = hub.git.commit(repo, oid)
        return [commit.tree, *commit.parents]
    except (zlib.error, ValueError, LookupError):
        return []  # named already by the pass over the objects


def _missing_content(hub: Hub) -> Iterator[str]:
    query = (
        "SELECT repo.type, repo.namespace, repo.name, holding.sha256, holding.size, holding.xet FROM holding"
        " JOIN repo ON repo.id = holding.repo ORDER BY repo.id, holding.sha256"
    )
    for kind, namespace, name, sha256, size, xet in hub.database.read().execute(query):
        path = hub.content.path(sha256)
        if path.is_file():
            if path.stat().st_size != size:
                yield f"{kind} {namespace}/{name}: content {sha256} has {path.stat().st_size} bytes, not {size}"
        elif xet is None:
            yield f"{kind} {namespace}/{name}: content {sha256} ({size} bytes) is missing"


def _paths(hub: Hub, line: str) -> str:
    """The files at the heads of branches whose content a line speaks of, for the person who reads it."""
    digests = re.findall(r"[0-9a-f]{64}", line)
    marks = ",".join("?" * len(digests))
    rows = hub.database.read().execute(f"SELECT repo, oid FROM git_object WHERE sha256 IN ({marks})", digests)
    blobs = set(rows.fetchall())
    found = []
    for repo_id in {repo for repo, _ in blobs}:
        repo = hub.repos.by_id(repo_id)
        assert repo is not None
        for ref, oid in hub.git.refs(repo_id).items():
            if ref.startswith("refs/heads/"):
                with contextlib.suppress(LookupError, zlib.error, ValueError):  # a damaged tree is named by itself
                    items = hub.listing.items(repo, hub.git.peel(repo_id, oid), "", recursive=True)
                    found += [f"{repo.path}/{path}" for path, entry in items if (repo_id, entry.oid) in blobs]
    return f" ({', '.join(found[:10])})" if found else ""
