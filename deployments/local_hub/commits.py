"""Commits: steps (`steps`) become one git commit, in one transaction.

Content that was not received and verified for this repo cannot be committed.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

from deployments.local_hub.cards import CARD
from deployments.local_hub.database import Database
from deployments.local_hub.discussions import Discussions
from deployments.local_hub.errors import bad_request, branch_moved, conflict, forbidden, revision_not_found
from deployments.local_hub.git import SHORT_OID, Git, pointer
from deployments.local_hub.repos import Repo
from deployments.local_hub.steps import CardRule, Step, check_message, prepare, steps
from deployments.local_hub.trees import TreeEdit

Stored = Callable[[int, str], int | None]  # bytes of content (a sha256) that a repo holds and that is there, or None


@dataclass(frozen=True)
class Committed:
    """What a commit made: its id, and the pull request it opened, if any."""

    oid: str
    ref: str
    pull_request: int | None = None


class Commits:
    """Writes history: the only place where refs of a repo move."""

    def __init__(self, database: Database, git: Git, stored: Stored, discussions: Discussions):
        self._database = database
        self._discussions = discussions
        self._git = git
        self._stored = stored
        self.most_entries = 0
        """How many entries a folder may have after a commit; 0 is any number."""

    def initial(self, connection: sqlite3.Connection, repo: Repo, author: str, files: dict[str, bytes]) -> str:
        """The first commit of a new repo, on main."""
        tree = TreeEdit(self._git, connection, repo.id, None)
        for path, data in files.items():
            tree.put(path, self._git.add_blob(connection, repo.id, data))
        oid = self._git.add_commit(
            connection, repo.id, tree=tree.write(), parents=(), author=author, message="initial commit", now=time.time()
        )
        self._git.set_ref(connection, repo.id, "refs/heads/main", oid)
        return oid

    def commit(
        self, repo: Repo, revision: str, author: str, body: BinaryIO, prepared: BinaryIO, *, create_pr: bool
    ) -> Committed:
        """Apply one commit to a branch (or a pull request's ref), or on top of it as a new pull request.

        `prepared` is a file for its steps, which are read from `body` before the transaction begins.

        Raises 400 for what does not hold together, 404 for an unknown branch or a deletion of nothing, 412 when the
        branch is not at `parentCommit`.
        """
        ref = self.writable_ref(self._database.read(), repo, revision)
        header = prepare(body, prepared, self._card_rule(repo, ref))
        prepared.seek(0)
        with self._database.write() as connection:
            ref = self.writable_ref(connection, repo, revision)
            head = self._git.resolve(repo.id, ref, connection)
            if not _is_at(header.parent, head):
                raise branch_moved()
            tree = TreeEdit(self._git, connection, repo.id, self._git.commit(repo.id, head, connection).tree)
            for step in steps(prepared):
                self._apply(connection, repo, tree, step)
            self._require_room(tree, ref)
            oid = self._git.add_commit(
                connection,
                repo.id,
                tree=tree.write(),
                parents=[head],
                author=author,
                message=header.message,
                now=time.time(),
            )
            number = None
            if create_pr:
                number = self._discussions.open(
                    connection,
                    repo,
                    title=header.message.split("\n", 1)[0],
                    author=author,
                    base=ref,
                    status="open",
                    description=header.description,
                )
                ref = f"refs/pr/{number}"
            self._git.set_ref(connection, repo.id, ref, oid)
        return Committed(oid, ref, number)

    def _card_rule(self, repo: Repo, ref: str) -> CardRule:
        """What a commit's card has to be; one that is here already, from before a rule, may be sent once more."""
        present = self._git.entry(repo.id, self._git.resolve(repo.id, ref), CARD)
        return CardRule(repo.type, None if present is None else present.oid)

    def _require_room(self, tree: TreeEdit, ref: str) -> None:
        """Raises 400, in the real Hub's words, where a changed folder has more entries than it may."""
        if self.most_entries and (full := tree.larger_than(self.most_entries)):
            raise bad_request(
                "Your push was rejected because it contains too many files per directory. Each directory in your git "
                f"repo can only contain up to {self.most_entries} files. Offending reference: {ref} Offending "
                f"directories: {' '.join(f'/{path}/'.replace('//', '/') for path in full)}"
            )

    def writable_ref(self, connection: sqlite3.Connection, repo: Repo, revision: str) -> str:
        """The ref that a commit to this revision moves; 404 for what is neither a branch nor a pull request."""
        refs = self._git.refs(repo.id, connection)
        for name in (f"refs/heads/{revision}", revision):
            if name in refs and name.startswith(("refs/heads/", "refs/pr/", "refs/convert/")):
                return name
        raise revision_not_found(revision)

    def _apply(self, connection: sqlite3.Connection, repo: Repo, tree: TreeEdit, step: Step) -> None:
        if step.kind in ("delete", "delete folder"):
            tree.delete(step.path, folders_only=step.kind == "delete folder")
        elif step.packed is not None:
            named = step.packed.named
            if named is not None and self._stored(repo.id, named[0]) != named[1]:
                raise bad_request(f"{step.path} is an LFS pointer to content that was not uploaded to this repo")
            tree.put(step.path, self._git.add_packed(connection, repo.id, step.packed))
        else:
            self._put_content(connection, repo, tree, step)

    def _put_content(self, connection: sqlite3.Connection, repo: Repo, tree: TreeEdit, step: Step) -> None:
        held = self._stored(repo.id, step.sha256)
        if held is None:
            raise bad_request(f"{step.path}: its content (sha256 {step.sha256}) was not uploaded to this repo")
        if step.size is not None and step.size != held:
            raise bad_request(
                f"{step.path}: the size is given as {step.size}, but its content (sha256 {step.sha256})"
                f" has {held} bytes"
            )
        tree.put(step.path, self._git.add_blob(connection, repo.id, pointer(step.sha256, held)))

    # branches, tags, history

    def create_branch(self, repo: Repo, branch: str, start: str | None, *, overwrite: bool = False) -> None:
        """Start a branch at a revision (main without one)."""
        with self._database.write() as connection:
            ref = f"refs/heads/{branch}"
            if ref in self._git.refs(repo.id, connection) and not overwrite:
                raise conflict(f"Reference {ref} already exists")
            self._git.move_ref(connection, repo.id, ref, self._git.resolve(repo.id, start or "main", connection))

    def delete_branch(self, repo: Repo, branch: str) -> None:
        """Remove a branch; main stays."""
        if branch == "main":
            raise forbidden("Cannot delete refs/heads/main")
        self._delete_ref(repo, f"refs/heads/{branch}", branch)

    def create_tag(self, repo: Repo, tag: str, revision: str, message: str | None, author: str) -> None:
        """Name a revision; with a message the tag is an object of its own."""
        with self._database.write() as connection:
            ref = f"refs/tags/{tag}"
            if ref in self._git.refs(repo.id, connection):
                raise conflict(f"Tag reference exists already: {ref}")
            target = self._git.resolve(repo.id, revision, connection)
            if message:
                target = self._git.add_tag(
                    connection,
                    repo.id,
                    name=tag,
                    target=target,
                    author=author,
                    message=check_message(message),
                    now=time.time(),
                )
            self._git.set_ref(connection, repo.id, ref, target)

    def delete_tag(self, repo: Repo, tag: str) -> None:
        """Remove a tag."""
        self._delete_ref(repo, f"refs/tags/{tag}", tag)

    def merge(self, repo: Repo, number: int, author: str) -> str:
        """Bring a pull request's changes to its branch by a commit with both as parents; returns that commit.

        Raises 409 where both sides changed a path since they parted.
        """
        with self._database.write() as connection:
            opened = self._discussions.get(repo, number, connection)
            if opened.base is None or opened.status == "merged":
                raise bad_request(f"#{number} is no pull request that could be merged")
            base = self._git.resolve(repo.id, opened.base, connection)
            head = self._git.resolve(repo.id, f"refs/pr/{number}", connection)
            common = self._git.common_ancestor(repo.id, base, head, connection)
            ours = self._git.changes(repo.id, common, base, connection)
            theirs = self._git.changes(repo.id, common, head, connection)
            both = sorted(path for path in ours.keys() & theirs.keys() if ours[path] != theirs[path])
            if both:
                raise conflict(f"Both sides changed {', '.join(both[:5])}")
            tree = TreeEdit(self._git, connection, repo.id, self._git.commit(repo.id, base, connection).tree)
            for path, blob in sorted(theirs.items(), key=lambda change: change[1] is not None):  # deletions first
                if blob is not None:
                    tree.put(path, blob)
                elif tree.get(path) is not None:
                    tree.delete(path)
            oid = self._git.add_commit(
                connection,
                repo.id,
                tree=tree.write(),
                parents=[base, head],
                author=author,
                message=f"{opened.title} (#{number})",
                now=time.time(),
            )
            self._git.set_ref(connection, repo.id, opened.base, oid)
            self._discussions.merged(connection, repo, number, author, oid)
        return oid

    def start_pull_request(self, repo: Repo, title: str, author: str, description: str) -> int:
        """Open an empty pull request onto main, as a draft; returns its number."""
        with self._database.write() as connection:
            number = self._discussions.open(
                connection,
                repo,
                title=title,
                author=author,
                base="refs/heads/main",
                status="draft",
                description=description,
            )
            head = self._git.resolve(repo.id, "refs/heads/main", connection)
            self._git.set_ref(connection, repo.id, f"refs/pr/{number}", head)
        return number

    def _delete_ref(self, repo: Repo, ref: str, name: str) -> None:
        with self._database.write() as connection:
            if not self._git.delete_ref(connection, repo.id, ref):
                raise revision_not_found(name)

    def squash(self, repo: Repo, branch: str, message: str, author: str) -> str:
        """Replace a branch's history by one commit with the same files and no parent."""
        with self._database.write() as connection:
            ref = self.writable_ref(connection, repo, branch)
            head = self._git.resolve(repo.id, ref, connection)
            oid = self._git.add_commit(
                connection,
                repo.id,
                tree=self._git.commit(repo.id, head, connection).tree,
                parents=(),
                author=author,
                message=check_message(message),
                now=time.time(),
            )
            self._git.move_ref(connection, repo.id, ref, oid)
        return oid


def _is_at(parent: object, head: str) -> bool:
    """Whether a commit that was made on `parent`, an id or its first 7 characters or more, may follow this head."""
    if parent is None:
        return True
    return isinstance(parent, str) and SHORT_OID.fullmatch(parent) is not None and head.startswith(parent)
