"""What is in a repo at a commit: folders page by page, single paths, and the last commit of each."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import Any

from deployments.local_hub.errors import entry_not_found
from deployments.local_hub.git import CommitInfo, Entry, Git
from deployments.local_hub.holdings import Holdings
from deployments.local_hub.repos import Repo

WALKS_KEPT = 8  # flattened listings kept for the pages that follow
HISTORY_LIMIT = 10_000  # commits looked through for a path's last change; older ones are shown as this far back

Item = tuple[str, Entry]


def iso(seconds: float) -> str:
    """A time as the Hub writes it: 2026-11-22T20:15:00.000Z."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


class Listing:
    """Listings of all repos of one Hub."""

    def __init__(self, git: Git, holdings: Holdings):
        self._git = git
        self._holdings = holdings
        self._walks: OrderedDict[tuple[str, str, bool], list[Item]] = OrderedDict()
        self._lock = threading.Lock()

    def items(self, repo: Repo, commit: str, path: str, *, recursive: bool) -> Sequence[Item]:
        """Every path under a folder with its entry, parents before children; 404 for no such folder."""
        folder = self._git.entry(repo.id, commit, path)
        if folder is None or not folder.is_folder:
            raise entry_not_found(path, commit)
        key = (folder.oid, path, recursive)
        with self._lock:
            found = self._walks.get(key)
        if found is None:
            found = list(self._walk(repo, path, folder.oid, recursive=recursive))
            with self._lock:
                self._walks[key] = found
                while len(self._walks) > WALKS_KEPT:
                    self._walks.popitem(last=False)
        return found

    def _walk(self, repo: Repo, path: str, tree: str, *, recursive: bool) -> Iterator[Item]:
        prefix = f"{path}/" if path else ""
        for name, entry in self._git.tree(repo.id, tree).items():
            yield prefix + name, entry
            if recursive and entry.is_folder:
                yield from self._walk(repo, prefix + name, entry.oid, recursive=True)

    def paths(self, repo: Repo, commit: str, paths: Iterable[str]) -> list[Item]:
        """Those of the paths that exist, as the client gave them."""
        found = []
        for path in paths:
            cleaned = path.strip("/")
            entry = self._git.entry(repo.id, commit, cleaned) if cleaned else None
            if entry is not None:
                found.append((cleaned, entry))
        return found

    def describe(self, repo: Repo, commit: str, items: Sequence[Item], *, expand: bool = False) -> list[dict[str, Any]]:
        """Items as the tree and paths-info routes show them."""
        blobs = self._git.blobs(repo.id, (entry.oid for _, entry in items if not entry.is_folder))
        xet = self._holdings.xet_hashes(repo.id, (blob.sha256 for blob in blobs.values() if blob.sha256))
        last = self.last_commits(repo, commit, items) if expand else {}
        described = []
        for path, entry in items:
            if entry.is_folder:
                item: dict[str, Any] = {"type": "directory", "oid": entry.oid, "size": 0, "path": path}
            else:
                blob = blobs[entry.oid]
                item = {"type": "file", "oid": entry.oid, "size": blob.size, "path": path}
                if blob.sha256:
                    item["lfs"] = {"oid": blob.sha256, "size": blob.size, "pointerSize": blob.blob_size}
                    if blob.sha256 in xet:
                        item["xetHash"] = xet[blob.sha256]
            if expand:
                change = last[path]
                item["lastCommit"] = {"id": change.oid, "title": change.title, "date": iso(change.date)}
                if not entry.is_folder:
                    item["securityFileStatus"] = None
            described.append(item)
        return described

    def history(self, repo: Repo, commit: str) -> Iterator[CommitInfo]:
        """The commits from this one back, first parents only: branches of this Hub are never merged otherwise."""
        oid: str | None = commit
        while oid is not None:
            info = self._git.commit(repo.id, oid)
            yield info
            oid = info.parents[0] if info.parents else None

    def last_commits(self, repo: Repo, commit: str, items: Sequence[Item]) -> dict[str, CommitInfo]:
        """For each path the newest commit that changed it."""
        waiting = {path: entry.oid for path, entry in items}
        found: dict[str, CommitInfo] = {}
        newer: CommitInfo | None = None
        for depth, older in enumerate(self.history(repo, commit)):
            if not waiting:
                break
            if newer is not None:
                changed = self._changed(repo, older, waiting)
                if depth >= HISTORY_LIMIT:
                    changed = list(waiting)
                for path in changed:
                    found[path] = newer
                    del waiting[path]
            newer = older
        if newer is not None:
            found.update(dict.fromkeys(waiting, newer))
        return found

    def _changed(self, repo: Repo, older: CommitInfo, waiting: dict[str, str]) -> list[str]:
        changed = []
        folders: dict[str, Entry | None] = {}
        for path, oid in waiting.items():
            parent, _, name = path.rpartition("/")
            if parent not in folders:
                folders[parent] = self._git.entry(repo.id, older.oid, parent)
            folder = folders[parent]
            before = None
            if folder is not None and folder.is_folder:
                before = self._git.tree(repo.id, folder.oid).get(name)
            if before is None or before.oid != oid:
                changed.append(path)
        return changed
