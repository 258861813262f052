"""What has to stay: decided at one moment of the database, from what it says and from nothing else."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import NoReturn

from dulwich.objects import Commit as GitCommit

from deployments.local_hub.git import COMMIT
from deployments.local_hub.history import reached, unpacked
from deployments.local_hub.promises import STEP
from deployments.local_hub.xet.store import Ranges

REPO_LABEL = {"model": "", "dataset": "datasets/", "space": "spaces/"}


class StoreDamagedError(RuntimeError):
    """A history cannot be read to its end, so nobody can say what it needs."""


@dataclass(frozen=True)
class Commit:
    """A commit of a repo that no ref reaches; `date` in seconds since the epoch."""

    repo: int
    oid: str
    date: float


@dataclass
class Needed:
    """What has to stay, and why the rest need not.

    `contents` are digests that some repo needs, `xorbs` those of the files made of them, and those promised of late.
    `reached` has each repo's objects that stay, `commits` those that nothing reaches. `reasons` says of content that
    some repo holds and none needs where it was.
    """

    contents: set[str] = field(default_factory=set)
    xorbs: set[bytes] = field(default_factory=set)
    reached: dict[int, set[str]] = field(default_factory=dict)
    commits: list[Commit] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)


def needed(
    connection: sqlite3.Connection, since: float, expendable: Collection[tuple[int, str]] | None = None
) -> Needed:
    """What has to stay of what the connection sees, which has to be one moment.

    What was made, left or promised after `since` (seconds since the epoch) stays. `expendable`, where it is given, are
    the commits, by repo and id, that a person let go: every other commit stays, whether a ref reaches it or not.
    Raises StoreDamagedError where a history cannot be read to its end.
    """
    found = Needed()
    # promises are noted a day late at most
    since -= STEP
    for repo, label in repos(connection):
        named = _history(connection, repo, label, since, expendable, found)
        _content(connection, repo, label, since, named, found)
    for (xorb,) in connection.execute("SELECT hash FROM xorb WHERE promised >= ?", (since,)):
        found.xorbs.add(xorb)
    for sha256, ranges in connection.execute("SELECT sha256, ranges FROM reconstruction"):
        if sha256 in found.contents:
            found.xorbs.update(each.xorb for each in Ranges(ranges))
    return found


def repos(connection: sqlite3.Connection) -> list[tuple[int, str]]:
    """Every repo's number, and its name as in addresses."""
    rows = connection.execute("SELECT id, type, namespace, name FROM repo ORDER BY id").fetchall()
    return [(repo, f"{REPO_LABEL[kind]}{namespace}/{name}") for repo, kind, namespace, name in rows]


def _history(
    connection: sqlite3.Connection, repo: int, label: str, since: float,
    expendable: Collection[tuple[int, str]] | None, found: Needed,
) -> set[str]:  # fmt: skip
    """The digests that the history which stays names; notes what it reaches and which commits it does not."""

    def damaged(oid: str, why: str) -> NoReturn:
        raise StoreDamagedError(
            f"{label}: git object {oid} {why}. While a history cannot be read, nobody can say what it needs, and"
            " nothing is removed: see what `check` says, and mend it first"
        )

    stays: set[str] = set()
    named: set[str] = set()

    def keep(*start: str) -> None:
        for each in reached(connection, repo, start, stays, damaged):
            if each.named is not None:
                named.add(each.named[0])

    refs = connection.execute("SELECT oid FROM ref WHERE repo = ?", (repo,)).fetchall()
    late = connection.execute("SELECT oid FROM abandoned WHERE repo = ? AND moment >= ?", (repo, since)).fetchall()
    keep(*(oid for (oid,) in refs + late))
    unreached = [each for each in _commits(connection, repo, damaged) if each.oid not in stays]
    for each in unreached:
        if each.date >= since or (expendable is not None and (repo, each.oid) not in expendable):
            keep(each.oid)
    found.reached[repo] = stays
    found.commits += [each for each in unreached if each.oid not in stays]
    return named


def _commits(connection: sqlite3.Connection, repo: int, damaged: object) -> Iterator[Commit]:
    query = "SELECT oid, data FROM git_object WHERE repo = ? AND kind = ?"
    for oid, data in connection.execute(query, (repo, COMMIT)).fetchall():
        try:
            made = GitCommit.from_string(unpacked(oid, COMMIT, data))
        except ValueError as error:
            damaged(oid, str(error))  # type: ignore[operator]
        yield Commit(repo, oid, float(made.commit_time))


def _content(
    connection: sqlite3.Connection, repo: int, label: str, since: float, named: set[str], found: Needed
) -> None:
    ever = {
        row[0]
        for row in connection.execute("SELECT sha256 FROM git_object WHERE repo = ? AND sha256 NOT NULL", (repo,))
    }
    for sha256, promised in connection.execute("SELECT sha256, promised FROM holding WHERE repo = ?", (repo,)):
        if sha256 in named or promised >= since:
            found.contents.add(sha256)
        elif sha256 in ever:
            found.reasons[sha256] = f"no branch, tag or pull request of {label} reaches it any more"
        else:
            found.reasons[sha256] = f"sent to {label} and never committed"
    found.contents |= named
