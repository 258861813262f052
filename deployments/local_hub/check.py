"""`check`: reads the whole store again and names what is damaged or missing, also while a server writes to it.

What the database says of histories is read at one moment of it, so that a commit made meanwhile is seen whole or not at
all. Content comes before the line that names it and goes never while somebody reads (`locks`), so what a line names has
to be there, however old the line is.
"""

from __future__ import annotations

import contextlib
import re
import sqlite3
import zlib
from collections.abc import Iterator
from functools import partial

from deployments.local_hub.errors import HubError
from deployments.local_hub.git import BLOB, parse_pointer
from deployments.local_hub.history import reached, unpacked
from deployments.local_hub.hub import Hub


def damage(hub: Hub) -> Iterator[str]:
    """A line for each thing that is not as it was stored; nothing if all is well."""
    yield from hub.database.damage()
    with hub.database.snapshot() as moment:
        yield from _git_objects(moment)
        yield from _histories(moment)
    for line in (*hub.content.damage(), *hub.xet.damage(), *_missing_content(hub)):
        yield from (f"{line}{where}" for where in [_paths(hub, line)])


def _git_objects(moment: sqlite3.Connection) -> Iterator[str]:
    for repo, oid, kind, data, *named in moment.execute(
        "SELECT repo, oid, kind, data, sha256, content_size FROM git_object"
    ):
        try:
            raw = unpacked(oid, kind, data)
        except ValueError as error:
            yield f"repo {repo}: git object {oid} {error}"
            continue
        pointer = parse_pointer(raw) if kind == BLOB else None
        if pointer != (None if named == [None, None] else tuple(named)):
            yield f"repo {repo}: git object {oid} is listed with other content than it names"


def _histories(moment: sqlite3.Connection) -> Iterator[str]:
    for repo, *names in moment.execute("SELECT id, type, namespace, name FROM repo ORDER BY id").fetchall():
        label = f"{names[0]} {names[1]}/{names[2]}"
        refs = moment.execute("SELECT oid FROM ref WHERE repo = ?", (repo,)).fetchall()
        missing: list[str] = []
        wanted: dict[str, int] = {}
        for each in reached(moment, repo, [oid for (oid,) in refs], set(), partial(_note, missing)):
            if each.named is not None:
                wanted[each.named[0]] = each.named[1]
        yield from (f"{label}: git object {oid} is missing" for oid in missing)
        held = dict(
            moment.execute("SELECT sha256, size FROM holding WHERE repo = ? AND deleted IS NULL", (repo,)).fetchall()
        )
        for sha256, size in wanted.items():
            if held.get(sha256) != size:
                yield f"{label}: a commit has a file with content {sha256} ({size} bytes), which the repo does not hold"


def _note(missing: list[str], oid: str, why: str) -> None:
    if why == "is missing":  # any other damage is named already by the pass over the objects
        missing.append(oid)


def _missing_content(hub: Hub) -> Iterator[str]:
    query = (
        "SELECT repo.type, repo.namespace, repo.name, holding.sha256, holding.size, holding.xet, EXISTS (SELECT 1"
        " FROM reconstruction WHERE reconstruction.repo = holding.repo AND reconstruction.sha256 = holding.sha256)"
        " FROM holding JOIN repo ON repo.id = holding.repo ORDER BY repo.id, holding.sha256"
    )
    for kind, namespace, name, sha256, size, xet, built in hub.database.read().execute(query):
        path = hub.content.path(sha256)
        if path.is_file():
            if path.stat().st_size != size:
                yield f"{kind} {namespace}/{name}: content {sha256} has {path.stat().st_size} bytes, not {size}"
        elif xet is None:
            yield f"{kind} {namespace}/{name}: content {sha256} ({size} bytes) is missing"
        elif not built:
            yield f"{kind} {namespace}/{name}: what content {sha256} ({size} bytes) is made of is not known any more"


def _paths(hub: Hub, line: str) -> str:
    """The files at the heads of branches whose content a line speaks of, for the person who reads it."""
    digests = re.findall(r"[0-9a-f]{64}", line)
    marks = ",".join("?" * len(digests))
    rows = hub.database.read().execute(f"SELECT repo, oid FROM git_object WHERE sha256 IN ({marks})", digests)
    blobs = set(rows.fetchall())
    found = []
    for repo_id in {repo for repo, _ in blobs}:
        repo = hub.repos.by_id(repo_id)
        if repo is None:
            continue  # deleted a moment ago
        for ref, oid in hub.git.refs(repo_id).items():
            if ref.startswith("refs/heads/"):
                # a damaged tree is named by itself, and a repo may go meanwhile: the line stands without its files
                with contextlib.suppress(LookupError, zlib.error, ValueError, HubError):
                    items = hub.listing.items(repo, hub.git.peel(repo_id, oid), "", recursive=True)
                    found += [f"{repo.path}/{path}" for path, entry in items if (repo_id, entry.oid) in blobs]
    return f" ({', '.join(found[:10])})" if found else ""
