"""What is in a repo at a commit: folders page by page, single paths, and the last commit of each."""

from __future__ import annotations

import threading
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Sequence, Set
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


def _main_first(ref: tuple[str, str]) -> tuple[bool, bool, str]:
    name = ref[0]
    return name != "refs/heads/main", not name.startswith("refs/heads/"), name


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

    def lfs_files(self, repo: Repo, gone: Set[str] = frozenset()) -> Iterator[tuple[str, str, str, int]]:
        """Ref, path, sha256 and bytes of the LFS files: of each branch's head, then what only older commits have.

        `gone` is content (sha256) that is not looked for. A folder of the history is opened once; where all content is
        in the heads, none of the history is.
        """
        pointers = {oid: named for oid, named in self._git.pointers(repo.id).items() if named[0] not in gone}
        unseen = dict(pointers)
        refs = sorted(self._git.refs(repo.id).items(), key=_main_first)
        for ref, oid in refs:
            if ref.startswith("refs/heads/"):
                for path, entry in self.items(repo, oid, "", recursive=True):
                    if entry.oid in pointers:
                        unseen.pop(entry.oid, None)
                        yield ref, path, *pointers[entry.oid]
        opened: set[str] = set()
        commits: set[str] = set()
        for ref, oid in refs:
            waiting = deque([self._git.peel(repo.id, oid)])
            while waiting and unseen:
                commit = waiting.popleft()
                if commit in commits:
                    continue
                commits.add(commit)
                info = self._git.commit(repo.id, commit)
                waiting += info.parents
                for path, blob in self._unopened(repo, "", info.tree, opened):
                    if (found := unseen.pop(blob, None)) is not None:
                        yield ref, path, *found

    def _unopened(self, repo: Repo, prefix: str, tree: str, opened: set[str]) -> Iterator[tuple[str, str]]:
        """The files of a folder and of those in it, each folder once."""
        if tree in opened:
            return
        opened.add(tree)
        for name, entry in self._git.tree(repo.id, tree).items():
            if entry.is_folder:
                yield from self._unopened(repo, f"{prefix}{name}/", entry.oid, opened)
            else:
                yield prefix + name, entry.oid

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
