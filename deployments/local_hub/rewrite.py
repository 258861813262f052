"""Content that is deleted for good: no commit names it any more, and no reader of the repo gets a byte of it.

This is what `HfApi.permanently_delete_lfs_files` asks for. How it works:

- Every ref's history is written anew without the files: folders and commits that had them are other objects with other
  ids, and so is each commit after the first of these; author, date and message stay. Commits before it stay as they
  are. A commit that did nothing but add such a file stays too, and does nothing now.
- The new objects are stored a few at a time, and nobody sees them. Then one short transaction moves all refs, if none
  has moved meanwhile; else what came is rewritten too, and it is tried again. Who commits on an old head is told that
  the branch has moved (412).
- The holding is marked as deleted, in that same transaction. From then on the repo is as if the content had never been
  sent: also the old commits, which stay findable by their ids as after a squash, show the file and give nothing of it.
- The bytes and the old history stay in the store, as what a squash leaves (`garbage`): a person removes them with `gc`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping

from dulwich.objects import Commit, ObjectID, Tag

from deployments.local_hub.database import Database
from deployments.local_hub.errors import HubError
from deployments.local_hub.git import COMMIT, IDS_PER_QUERY, TAG, Entry, Git, Packed, pack, tree_of
from deployments.local_hub.holdings import Holdings
from deployments.local_hub.repos import Repo

BATCH_OBJECTS = 500  # of one transaction: others write in between
BATCH_BYTES = 4 * 1024 * 1024  # the same; a folder of 10,000 files has half a MB
ROUNDS = 5  # that leave the writers alone; the last one rewrites what came meanwhile in its own transaction


class Rewriter:
    """Deletes content from repos of one Hub."""

    def __init__(self, database: Database, git: Git, holdings: Holdings):
        self._database = database
        self._git = git
        self._holdings = holdings

    def delete(self, repo: Repo, digests: Collection[str]) -> tuple[str, ...]:
        """Take content (sha256) out of a repo and all of its history; the refs that moved. Once more is as once.

        Raises 404, and nothing is changed, for content that the repo never had. Time and new objects grow with the
        folders that the history has from the first commit with such a file on.
        """
        self._require_known(repo.id, digests)
        history = _History(self._git, self._database, repo.id, self._blobs(repo.id, digests))
        for attempt in range(1, ROUNDS + 1):
            before = self._git.refs(repo.id)
            after = history.rewrite(before)
            with self._database.write() as connection:
                now, blobs = self._git.refs(repo.id, connection), self._blobs(repo.id, digests)
                if blobs != history.gone:
                    history = _History(self._git, self._database, repo.id, blobs)
                elif now == before:
                    return self._finish(connection, repo.id, now, after, history, digests)
                if attempt == ROUNDS:
                    after = history.rewrite(now, connection)
                    return self._finish(connection, repo.id, now, after, history, digests)
        raise AssertionError("the last round is the last one")

    def _finish(
        self, connection: sqlite3.Connection, repo: int, before: Mapping[str, str], after: Mapping[str, str],
        history: _History, digests: Iterable[str],
    ) -> tuple[str, ...]:  # fmt: skip
        """Move the refs and forget the content, in the caller's transaction."""
        moved = tuple(ref for ref, oid in before.items() if after[ref] != oid)
        for ref in moved:
            self._git.move_ref(connection, repo, ref, after[ref])
        self._follow_discussions(connection, repo, history)
        self._holdings.mark_deleted(connection, repo, digests)
        return moved

    def _require_known(self, repo: int, digests: Iterable[str]) -> None:
        for sha256 in digests:
            if not (self._holdings.ever(repo, sha256) or self._git.names(repo, sha256)):
                raise HubError(404, f"The repo has no LFS file with the sha256 {sha256}")

    def _blobs(self, repo: int, digests: Collection[str]) -> frozenset[str]:
        """The pointers that name the content, by their ids."""
        wanted, found = sorted(digests), set[str]()
        for start in range(0, len(wanted), IDS_PER_QUERY):
            some = wanted[start : start + IDS_PER_QUERY]
            query = f"SELECT oid FROM git_object WHERE repo = ? AND sha256 IN ({','.join('?' * len(some))})"
            found.update(row[0] for row in self._database.read().execute(query, (repo, *some)))
        return frozenset(found)

    def _follow_discussions(self, connection: sqlite3.Connection, repo: int, history: _History) -> None:
        """Have pull requests that were merged name the commit that it is now."""
        query = "SELECT number, merged FROM discussion WHERE repo = ? AND merged NOT NULL"
        for number, merged in connection.execute(query, (repo,)).fetchall():
            if (now := history.commits.get(merged, merged)) != merged:
                connection.execute(
                    "UPDATE discussion SET merged = ? WHERE repo = ? AND number = ?", (now, repo, number)
                )


class _History:
    """A repo's history without some files: what each commit and folder is instead, as far as it was asked."""

    def __init__(self, git: Git, database: Database, repo: int, blobs: frozenset[str]):
        self._git = git
        self._database = database
        self._repo = repo
        self.gone = blobs
        self._folders: dict[str, str | None] = {}
        self._waiting: list[Packed] = []
        self._bytes = 0
        self._connection: sqlite3.Connection | None = None
        self.commits: dict[str, str] = {}

    def rewrite(self, refs: Mapping[str, str], connection: sqlite3.Connection | None = None) -> dict[str, str]:
        """What each ref points at instead; new objects go into the caller's transaction, or into some of their own."""
        self._connection = connection
        after = {ref: self._target(oid) for ref, oid in refs.items()}
        self._store()
        return after

    def _store(self) -> None:
        waiting, self._waiting, self._bytes = self._waiting, [], 0
        if self._connection is not None:
            self._put(self._connection, waiting)
        elif waiting:
            with self._database.write() as own:
                self._put(own, waiting)

    def _put(self, connection: sqlite3.Connection, waiting: Iterable[Packed]) -> None:
        for packed in waiting:
            self._git.add_packed(connection, self._repo, packed)

    def _target(self, oid: str) -> str:
        found = self._git.read(self._repo, oid)
        if found is None or found[0] != TAG:
            return self._commit(oid)
        made = Tag.from_string(found[1])
        target = made.object[1].decode()
        now = self._commit(target)
        if now == target:
            return oid
        made.object = (Commit, ObjectID(now.encode()))
        return self._add(pack(made))

    def _commit(self, head: str) -> str:
        """A commit's place in the new history, after that of all before it. Histories are deep: no recursion."""
        waiting = [head]
        while waiting:
            oid = waiting[-1]
            if oid not in self.commits:
                before = [parent for parent in self._git.commit(self._repo, oid).parents if parent not in self.commits]
                if before:
                    waiting += before
                    continue
                self.commits[oid] = self._new_commit(oid)
            waiting.pop()
        return self.commits[head]

    def _new_commit(self, oid: str) -> str:
        info = self._git.commit(self._repo, oid)
        tree = self._folder(info.tree) or self._add(pack(tree_of({})))
        parents = tuple(self.commits[parent] for parent in info.parents)
        if (tree, parents) == (info.tree, info.parents):
            return oid
        found = self._git.read(self._repo, oid)
        assert found is not None and found[0] == COMMIT
        made = Commit.from_string(found[1])
        made.tree = ObjectID(tree.encode())
        made.parents = [ObjectID(parent.encode()) for parent in parents]
        return self._add(pack(made))

    def _folder(self, oid: str) -> str | None:
        """A folder without the files; None if nothing is left in it. A path has at most 512 folders."""
        if oid not in self._folders:
            folder = self._git.tree(self._repo, oid)
            kept = dict(self._kept(folder.items()))
            changed = kept != folder
            new = self._add(pack(tree_of(kept))) if kept and changed else oid
            self._folders[oid] = new if kept or not folder else None
        return self._folders[oid]

    def _kept(self, entries: Iterable[tuple[str, Entry]]) -> Iterator[tuple[str, Entry]]:
        for name, entry in entries:
            if entry.is_folder:
                inner = self._folder(entry.oid)
                if inner is not None:
                    yield name, Entry(entry.mode, inner)
            elif entry.oid not in self.gone:
                yield name, entry

    def _add(self, packed: Packed) -> str:
        self._waiting.append(packed)
        self._bytes += len(packed.data)
        if len(self._waiting) >= BATCH_OBJECTS or self._bytes >= BATCH_BYTES:
            self._store()
        return packed.oid
