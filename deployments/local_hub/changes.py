"""What a commit added, changed and removed, for the pages: file by file, as far as a person reads."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

from deployments.local_hub.git import FOLDER_MODE, CommitInfo, Entry, Git

LIMIT = 2000  # files of one commit that are looked at; a first one may have a hundred thousand


@dataclass(frozen=True, slots=True)
class Change:
    """A file that differs from the commit before."""

    path: str
    before: str | None
    """Its blob in the commit before; None where it was added."""
    after: str | None
    """Its blob now; None where it was removed."""

    @property
    def kind(self) -> str:
        """What became of it."""
        return "added" if self.before is None else "removed" if self.after is None else "changed"


@dataclass(frozen=True)
class Changes:
    """What a commit did, by path; `more` where it did so much that not all was looked at."""

    files: tuple[Change, ...]
    more: bool

    def summary(self) -> str:
        """In a few words: how many files were added, changed and removed."""
        counts = {kind: sum(one.kind == kind for one in self.files) for kind in ("added", "changed", "removed")}
        words = ", ".join(f"{count:,} {kind}" for kind, count in counts.items() if count) or "nothing changed"
        return f"{words}, and more" if self.more else words


class History:
    """The changes of commits, each worked out once while people look."""

    def __init__(self, git: Git):
        self._git = git
        self.of = lru_cache(maxsize=512)(self._of)

    def _of(self, repo: int, commit: CommitInfo) -> Changes:
        """What a commit did to what its first parent had."""
        before = self._git.commit(repo, commit.parents[0]).tree if commit.parents else None
        found: list[Change] = []
        for change in self._between(repo, before, commit.tree):
            if len(found) == LIMIT:
                return Changes(tuple(sorted(found, key=lambda one: one.path)), more=True)
            found.append(change)
        return Changes(tuple(sorted(found, key=lambda one: one.path)), more=False)

    def _between(self, repo: int, before: str | None, after: str) -> Iterator[Change]:
        """Each file that differs. Folders that are the same are not opened."""
        root = None if before is None else Entry(FOLDER_MODE, before)
        pending: list[tuple[str, Entry | None, Entry | None]] = [("", root, Entry(FOLDER_MODE, after))]
        while pending:
            path, was, now = pending.pop()
            if was == now:
                continue
            old = was.oid if was is not None and not was.is_folder else None
            new = now.oid if now is not None and not now.is_folder else None
            if old or new:
                yield Change(path, old, new)
            inner_was = self._git.tree(repo, was.oid) if was is not None and was.is_folder else {}
            inner_now = self._git.tree(repo, now.oid) if now is not None and now.is_folder else {}
            prefix = f"{path}/" if path else ""
            names = sorted({*inner_was, *inner_now}, reverse=True)
            pending.extend((prefix + name, inner_was.get(name), inner_now.get(name)) for name in names)
