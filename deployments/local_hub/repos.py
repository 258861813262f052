"""Repositories: created, found, renamed and deleted; what is in them is git's (`git`) and the content store's."""

from __future__ import annotations

import re
import sqlite3
import time
from dataclasses import dataclass
from typing import Any, Literal

from deployments.local_hub.accounts import Accounts, Identity
from deployments.local_hub.database import Database
from deployments.local_hub.errors import bad_request, conflict, repo_gated, repo_not_found

RepoType = Literal["model", "dataset", "space"]

# huggingface_hub, utils/_validators.py: 1 to 96 of these characters, no "--" or "..", no ".git" at the end
NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?")

COLUMNS = "id, type, namespace, name, private, created, gated"
REPO_URL_PREFIX: dict[RepoType, str] = {"model": "", "dataset": "datasets/", "space": "spaces/"}


@dataclass(frozen=True)
class Repo:
    """One repository; `id` is the database's and is never given to another repo."""

    id: int
    type: RepoType
    namespace: str
    name: str
    private: bool
    created: float
    gated: str | None = None
    """"auto" or "manual" where people have to ask for access."""

    @property
    def full_name(self) -> str:
        """Namespace and name, as in URLs."""
        return f"{self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        """Where the repo is for people and downloads: `datasets/lab/scans`, or `lab/net` for a model."""
        return REPO_URL_PREFIX[self.type] + self.full_name


class Repos:
    """The registry of one Hub."""

    def __init__(self, database: Database, accounts: Accounts):
        self._database = database
        self._accounts = accounts

    def create(
        self, connection: sqlite3.Connection, repo_type: RepoType, namespace: str, name: str, *, private: bool
    ) -> Repo:
        """Register a new repo inside the caller's transaction; 409 where the name is taken."""
        _check_name(name)
        if _find(connection, repo_type, namespace, name) is not None:
            raise conflict(
                "You already created this repo"
                if repo_type == "model"
                else f"You already created this {repo_type} repo"
            )
        now = time.time()
        cursor = connection.execute(
            "INSERT INTO repo (type, namespace, name, private, created) VALUES (?, ?, ?, ?, ?)",
            (repo_type, namespace, name, private, now),
        )
        assert cursor.lastrowid is not None
        return Repo(cursor.lastrowid, repo_type, namespace, name, private, now)

    def find(self, identity: Identity, repo_type: RepoType, namespace: str, name: str) -> Repo:
        """The repo, if the caller may see it. A private one is otherwise as if it did not exist; a gated one is none's
        secret, and says that it is gated.
        """
        repo = _find(self._database.read(), repo_type, namespace, name)
        if repo is None or not self.visible(identity, repo):
            if repo is not None and not repo.private:
                raise repo_gated(f"{repo.type} {repo.full_name}", signed_in=identity.name is not None)
            raise repo_not_found()
        return repo

    def moved(self, identity: Identity, repo_type: RepoType, namespace: str, name: str) -> Repo | None:
        """The repo that was called so before it was moved, if the caller may see it."""
        query = "SELECT repo FROM former_name WHERE type = ? AND namespace = ? AND name = ?"
        row = self._database.read().execute(query, (repo_type, namespace, name)).fetchone()
        repo = None if row is None else self.by_id(row[0])
        return repo if repo is not None and self.visible(identity, repo) else None

    def visible(self, identity: Identity, repo: Repo) -> bool:
        """Whether the caller may read the repo. A gated one is its namespace's: nobody can ask for access here."""
        return not (repo.private or repo.gated) or self._accounts.role_in(identity, repo.namespace) is not None

    def named(self, path: str) -> Repo | None:
        """The repo at a path as in URLs (`datasets/lab/scans`), whoever asks; None if there is none."""
        return next((repo for repo in self._all() if repo.path.lower() == path.strip("/").lower()), None)

    def by_id(self, repo_id: int) -> Repo | None:
        """The repo a signed URL or token speaks of, if it still exists."""
        query = f"SELECT {COLUMNS} FROM repo WHERE id = ?"
        row = self._database.read().execute(query, (repo_id,)).fetchone()
        return None if row is None else _repo(row)

    def listed(self, identity: Identity, repo_type: RepoType | None = None) -> list[Repo]:
        """Every repo the caller may see, the newest first."""
        return [repo for repo in self._all() if repo_type in (None, repo.type) and self.visible(identity, repo)]

    def _all(self) -> list[Repo]:
        query = f"SELECT {COLUMNS} FROM repo ORDER BY id DESC"
        rows = self._database.read().execute(query)
        return [_repo(row) for row in rows]

    def set_private(self, repo: Repo, private: bool) -> None:
        """Change who may see the repo."""
        with self._database.write() as connection:
            connection.execute("UPDATE repo SET private = ? WHERE id = ?", (private, repo.id))

    def set_gated(self, repo: Repo, gated: str | None) -> None:
        """Change whether people have to ask for access."""
        with self._database.write() as connection:
            connection.execute("UPDATE repo SET gated = ? WHERE id = ?", (gated, repo.id))

    def move(self, repo: Repo, namespace: str, name: str) -> None:
        """Give the repo another name; 409 where it is taken. The one that it had leads to it from now on."""
        _check_name(name)
        with self._database.write() as connection:
            if _find(connection, repo.type, namespace, name) is not None:
                raise conflict(f"A {repo.type} repository called {namespace}/{name} already exists")
            connection.execute("UPDATE repo SET namespace = ?, name = ? WHERE id = ?", (namespace, name, repo.id))
            former = (repo.type, repo.namespace, repo.name, repo.id)
            connection.execute("INSERT OR REPLACE INTO former_name VALUES (?, ?, ?, ?)", former)

    def delete(self, repo: Repo) -> None:
        """Remove the repo, its history and its claim on content; content files other repos may share stay."""
        with self._database.write() as connection:
            connection.execute("DELETE FROM repo WHERE id = ?", (repo.id,))


def _check_name(name: str) -> None:
    if not NAME.fullmatch(name) or "--" in name or ".." in name or name.endswith((".git", ".ipynb")):
        raise bad_request(f"Invalid repo name: {name!r}: letters, digits, '-', '_' and '.', at most 96 of them")


def _repo(row: tuple[Any, ...]) -> Repo:
    """A row of the database: its `COLUMNS`."""
    return Repo(row[0], row[1], row[2], row[3], bool(row[4]), row[5], row[6])


def _find(connection: sqlite3.Connection, repo_type: str, namespace: str, name: str) -> Repo | None:
    query = f"SELECT {COLUMNS} FROM repo WHERE type = ? AND namespace = ? AND name = ?"
    row = connection.execute(query, (repo_type, namespace, name)).fetchone()
    return None if row is None else _repo(row)
