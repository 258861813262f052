"""Commits: from the client's NDJSON to one git commit, in one transaction.

The body is a line a step: a header (summary, description, parentCommit), then files with their bytes, files whose
content was sent before (LFS or Xet, named by sha256), and deletions. The lines are read from a spool file one at a
time, so memory holds one small file, never the body. Content that was not received and verified for this repo cannot
be committed.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

from deployments.local_hub.cards import CARD, check_card
from deployments.local_hub.database import Database
from deployments.local_hub.discussions import Discussions
from deployments.local_hub.errors import (
    HubError,
    bad_request,
    branch_moved,
    conflict,
    forbidden,
    is_unicode,
    revision_not_found,
)
from deployments.local_hub.git import Git, parse_pointer, pointer
from deployments.local_hub.repos import Repo
from deployments.local_hub.trees import TreeEdit, check_path

SHA256 = re.compile(r"[0-9a-f]{64}")
MESSAGE_LIMIT = 64 * 1024  # bytes of a commit's message
LINE_LIMIT = 32 * 1024 * 1024  # bytes of a line, all of which is in memory at once: a file of 24 MiB in base64

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

    def commit(self, repo: Repo, revision: str, author: str, body: BinaryIO, *, create_pr: bool) -> Committed:
        """Apply one commit to a branch (or a pull request's ref), or on top of it as a new pull request.

        Raises 400 for what does not hold together, 404 for an unknown branch or a deletion of nothing, 412 when the
        branch is not at `parentCommit`.
        """
        with self._database.write() as connection:
            ref = self.writable_ref(connection, repo, revision)
            head = self._git.resolve(repo.id, ref, connection)
            tree = TreeEdit(self._git, connection, repo.id, self._git.commit(repo.id, head, connection).tree)
            header = self._apply(connection, repo, tree, head, _lines(body))
            oid = self._git.add_commit(
                connection,
                repo.id,
                tree=tree.write(),
                parents=[head],
                author=author,
                message=_message(header),
                now=time.time(),
            )
            number = None
            if create_pr:
                number = self._discussions.open(
                    connection,
                    repo,
                    title=_message(header).split("\n", 1)[0],
                    author=author,
                    base=ref,
                    status="open",
                    description=str(header.get("description") or ""),
                )
                ref = f"refs/pr/{number}"
            self._git.set_ref(connection, repo.id, ref, oid)
        return Committed(oid, ref, number)

    def writable_ref(self, connection: sqlite3.Connection, repo: Repo, revision: str) -> str:
        """The ref that a commit to this revision moves; 404 for what is neither a branch nor a pull request."""
        refs = self._git.refs(repo.id, connection)
        for name in (f"refs/heads/{revision}", revision):
            if name in refs and name.startswith(("refs/heads/", "refs/pr/", "refs/convert/")):
                return name
        raise revision_not_found(revision)

    def _apply(
        self, connection: sqlite3.Connection, repo: Repo, tree: TreeEdit, head: str, lines: Iterable[bytes]
    ) -> dict[str, Any]:
        header: dict[str, Any] | None = None
        for line in lines:
            if not line.strip():
                continue
            key, value = _step(line)
            if header is None:
                if key != "header":
                    raise bad_request("The first line of a commit must be its header")
                header = value
                if header.get("parentCommit") not in (None, head):
                    raise branch_moved()
            elif key == "file":
                self._put_file(connection, repo, tree, value)
            elif key == "lfsFile":
                self._put_content(connection, repo, tree, value)
            elif key in ("deletedFile", "deletedFolder"):
                # as on the Hub, "deletedFile" may name a folder too: the client sends it for a path without a slash
                path = check_path(str(value.get("path", "")).rstrip("/"))
                tree.delete(path, folders_only=key == "deletedFolder")
            else:
                raise bad_request(f"Unknown step in a commit: {key!r}")
        if header is None:
            raise bad_request("A commit needs a header")
        return header

    def _put_file(self, connection: sqlite3.Connection, repo: Repo, tree: TreeEdit, value: dict[str, Any]) -> None:
        path = check_path(value.get("path"))
        content, encoding = value.get("content"), value.get("encoding", "utf-8")
        if not isinstance(content, str) or encoding not in ("base64", "utf-8"):
            raise bad_request(f"{path}: content must be text, in base64 or utf-8")
        try:
            data = base64.b64decode(content, validate=True) if encoding == "base64" else content.encode()
        except (binascii.Error, ValueError):
            raise bad_request(f"{path}: the content is not valid {encoding}") from None
        named = parse_pointer(data)
        if named is not None and self._stored(repo.id, named[0]) != named[1]:
            raise bad_request(f"{path} is an LFS pointer to content that was not uploaded to this repo")
        if path == CARD:
            check_card(data)
        tree.put(path, self._git.add_blob(connection, repo.id, data))

    def _put_content(self, connection: sqlite3.Connection, repo: Repo, tree: TreeEdit, value: dict[str, Any]) -> None:
        path = check_path(value.get("path"))
        sha256, size = value.get("oid"), value.get("size")
        if value.get("algo") != "sha256" or not isinstance(sha256, str) or not SHA256.fullmatch(sha256):
            raise bad_request(f"{path}: an LFS file is named by its sha256")
        held = self._stored(repo.id, sha256)
        if held is None:
            raise bad_request(f"{path}: its content (sha256 {sha256}) was not uploaded to this repo")
        if size is not None and size != held:
            raise bad_request(
                f"{path}: the size is given as {size}, but its content (sha256 {sha256}) has {held} bytes"
            )
        tree.put(path, self._git.add_blob(connection, repo.id, pointer(sha256, held)))

    # branches, tags, history

    def create_branch(self, repo: Repo, branch: str, start: str | None, *, overwrite: bool = False) -> None:
        """Start a branch at a revision (main without one)."""
        with self._database.write() as connection:
            ref = f"refs/heads/{branch}"
            if ref in self._git.refs(repo.id, connection) and not overwrite:
                raise conflict(f"Reference {ref} already exists")
            self._git.set_ref(connection, repo.id, ref, self._git.resolve(repo.id, start or "main", connection))

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
            self._git.set_ref(connection, repo.id, ref, oid)
        return oid


def _lines(body: BinaryIO) -> Iterator[bytes]:
    while line := body.readline(LINE_LIMIT + 1):
        if len(line) > LINE_LIMIT:
            raise HubError(413, f"A file in a commit has at most {LINE_LIMIT * 3 // 4} bytes; larger ones go by LFS")
        yield line


def _step(line: bytes) -> tuple[str, dict[str, Any]]:
    try:
        step = json.loads(line)
    except (ValueError, RecursionError):
        raise bad_request("A line of the commit is no JSON") from None
    if not isinstance(step, dict) or not isinstance(step.get("key"), str) or not isinstance(step.get("value"), dict):
        raise bad_request('A line of the commit must be {"key": ..., "value": {...}}')
    if b"\\u" in line and not is_unicode(step):
        raise bad_request("A line of the commit has text that is not Unicode")
    return step["key"], step["value"]


def _message(header: dict[str, Any]) -> str:
    summary, description = header.get("summary"), header.get("description") or ""
    if not isinstance(summary, str) or not summary.strip() or not isinstance(description, str):
        raise bad_request("A commit needs a summary")
    return check_message(f"{summary}\n\n{description}" if description.strip() else summary)


def check_message(message: str) -> str:
    """A message that git can hold: no NUL, at most 64 KiB."""
    if "\0" in message:
        raise bad_request("A message must not contain NUL")
    if len(message.encode()) > MESSAGE_LIMIT:
        raise HubError(413, f"A message has at most {MESSAGE_LIMIT} bytes")
    return message
