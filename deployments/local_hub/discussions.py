"""Discussions and pull requests of a repo: title, state and what happened, in the shape the client reads.

A pull request is a discussion with a branch to merge into; its commits are under `refs/pr/{number}` (`commits`).
"""

from __future__ import annotations

import json
import secrets
import sqlite3
import time
from dataclasses import dataclass
from typing import Any

from deployments.local_hub.database import Database
from deployments.local_hub.errors import HubError
from deployments.local_hub.listing import iso
from deployments.local_hub.repos import Repo

_COLUMNS = "number, title, author, created, status, base, description, merged, events"


@dataclass(frozen=True)
class Discussion:
    """One discussion; `base` is the ref a pull request goes to, None where it is none."""

    number: int
    title: str
    author: str
    created: float
    status: str
    base: str | None
    description: str
    merged: str | None
    events: list[dict[str, Any]]


class Discussions:
    """The discussions of all repos of one Hub."""

    def __init__(self, database: Database):
        self._database = database

    def open(
        self, connection: sqlite3.Connection, repo: Repo, *, title: str, author: str, base: str | None, status: str,
        description: str,
    ) -> int:  # fmt: skip
        """Begin one in the caller's transaction; its number is never given again in this repo."""
        query = "SELECT COALESCE(MAX(number), 0) + 1 FROM discussion WHERE repo = ?"
        number = int(connection.execute(query, (repo.id,)).fetchone()[0])
        events = [_event("comment", author, _comment(description, author))]
        connection.execute(
            f"INSERT INTO discussion (repo, {_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (repo.id, number, title, author, time.time(), status, base, description, None, json.dumps(events)),
        )
        return number

    def get(self, repo: Repo, number: int, connection: sqlite3.Connection | None = None) -> Discussion:
        """One discussion, or 404."""
        query = f"SELECT {_COLUMNS} FROM discussion WHERE repo = ? AND number = ?"
        row = (connection or self._database.read()).execute(query, (repo.id, number)).fetchone()
        if row is None:
            raise HubError(404, f"There is no discussion #{number}")
        return _from_row(row)

    def all(self, repo: Repo) -> list[Discussion]:
        """All of a repo's, the newest first."""
        query = f"SELECT {_COLUMNS} FROM discussion WHERE repo = ? ORDER BY number DESC"
        rows = self._database.read().execute(query, (repo.id,))
        return [_from_row(row) for row in rows]

    def comment(self, repo: Repo, number: int, author: str, text: str) -> dict[str, Any]:
        """Add a comment; the event."""
        return self._happened(repo, number, _event("comment", author, _comment(text, author)))

    def edit_comment(self, repo: Repo, number: int, event_id: str, author: str, text: str) -> dict[str, Any]:
        """Change one's own comment; the event."""
        with self._database.write() as connection:
            events = self.get(repo, number, connection).events
            for event in events:
                if (event["id"], event["type"], event["author"]["name"]) == (event_id, "comment", author):
                    event["data"] = {**_comment(text, author), "edited": True}
                    self._keep(connection, repo, number, events)
                    return event
        raise HubError(404, "There is no such comment of yours")

    def retitle(self, repo: Repo, number: int, author: str, title: str) -> dict[str, Any]:
        """Give it another title; the event."""
        old = self.get(repo, number).title
        return self._happened(repo, number, _event("title-change", author, {"from": old, "to": title}), title=title)

    def change_status(self, repo: Repo, number: int, author: str, status: str) -> dict[str, Any]:
        """Open or close it; the event."""
        return self._happened(repo, number, _event("status-change", author, {"status": status}), status=status)

    def merged(self, connection: sqlite3.Connection, repo: Repo, number: int, author: str, oid: str) -> None:
        """Mark a pull request as merged by a commit, in the transaction that makes the commit."""
        events = [
            *self.get(repo, number, connection).events,
            _event("status-change", author, {"status": "merged"}),
        ]
        self._keep(connection, repo, number, events, status="merged", merged=oid)

    def _happened(self, repo: Repo, number: int, event: dict[str, Any], **changed: str) -> dict[str, Any]:
        with self._database.write() as connection:
            self._keep(connection, repo, number, [*self.get(repo, number, connection).events, event], **changed)
        return event

    def _keep(
        self, connection: sqlite3.Connection, repo: Repo, number: int, events: list[dict[str, Any]], **changed: str
    ) -> None:
        columns = {"events": json.dumps(events), **changed}
        assignments = ", ".join(f"{column} = ?" for column in columns)
        connection.execute(
            f"UPDATE discussion SET {assignments} WHERE repo = ? AND number = ?", (*columns.values(), repo.id, number)
        )


def _from_row(row: Any) -> Discussion:
    number, title, author, created, status, base, description, merged, events = row
    return Discussion(number, title, author, created, status, base, description, merged, json.loads(events))


def _event(kind: str, author: str, data: dict[str, Any]) -> dict[str, Any]:
    now = iso(time.time())
    return {"id": secrets.token_hex(12), "type": kind, "createdAt": now, "author": {"name": author}, "data": data}


def _comment(text: str, author: str) -> dict[str, Any]:
    latest = {"raw": text, "html": "", "updatedAt": iso(time.time()), "author": {"name": author}}
    return {"edited": False, "hidden": False, "latest": latest, "history": []}
