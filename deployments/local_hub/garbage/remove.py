"""Removing what a person approved: the only code of the Hub that removes content, history, and lines about them."""

from __future__ import annotations

import errno
import os
import secrets
import sqlite3
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deployments.local_hub.database import Database
from deployments.local_hub.garbage.needed import Needed, needed
from deployments.local_hub.garbage.plan import DAY, FOLDERS, LEAST_DAYS, Item, Kind, Plan, PlanError, identity, look
from deployments.local_hub.xet.hashes import from_text, to_text
from deployments.local_hub.xet.store import Ranges


@dataclass
class Removed:
    """What became of a plan."""

    objects: int = 0
    size: int = 0
    commits: int = 0
    kept: list[str] = field(default_factory=list)
    """A sentence for each file that the plan names and that stayed, but for those that are gone already."""
    gone: int = 0
    """Files of the plan that were not there any more."""


def check(plan: Plan, root: Path, database: Database) -> None:
    """PlanError unless the plan is one for this store."""
    if plan.root != str(root.resolve()) or plan.store != identity(database):
        raise PlanError(f"This plan was made for {plan.root}, not for {root.resolve()}: make one for this store")
    if plan.keep_days < LEAST_DAYS:
        raise PlanError(f"This plan keeps what was sent in the last {plan.keep_days:g} days: at least {LEAST_DAYS:g}")


def carry_out(plan: Plan, root: Path, database: Database) -> Removed:
    """Remove what the plan names and nothing needs now.

    The caller holds the folder alone (`locks.removing`): nobody sends or promises anything meanwhile.
    """
    check(plan, root, database)
    wanted = {(item.kind, item.digest): item for item in plan.items}
    removed = Removed()
    now = time.time()
    expendable = frozenset((commit.repo, commit.oid) for commit in plan.commits)
    with database.write() as connection:
        connection.execute("PRAGMA secure_delete = ON")  # what is let go of are people's texts too
        stays = needed(connection, now - plan.keep_days * DAY, expendable)
        looked = {(item.kind, item.digest): item for item in look(root, connection, stays, now, plan.keep_days).items}
        chosen = [item for key, item in looked.items() if key in wanted and wanted[key].size == item.size]
        removed.commits = _forget_history(connection, stays, expendable)
        _forget_content(connection, root, chosen, stays)
    _unlink_all(root, database, chosen, removed)
    _tell(plan, root, {(item.kind, item.digest) for item in chosen}, removed)
    database.fold()
    return removed


# the lines of the database, in the caller's transaction


def _forget_history(connection: sqlite3.Connection, stays: Needed, expendable: frozenset[tuple[int, str]]) -> int:
    """Remove the commits that were let go and that nothing reaches, and what they alone have; returns how many."""
    going = {(each.repo, each.oid) for each in stays.commits}
    if not going <= expendable:
        raise AssertionError("a commit that nobody let go")
    for repo in sorted({repo for repo, _ in going}):
        known = {row[0] for row in connection.execute("SELECT oid FROM git_object WHERE repo = ?", (repo,))}
        lost = [(repo, oid) for oid in known - stays.reached[repo]]
        connection.executemany("DELETE FROM git_object WHERE repo = ? AND oid = ?", lost)
        connection.executemany("DELETE FROM abandoned WHERE repo = ? AND oid = ?", lost)
    return len(going)


def _forget_content(connection: sqlite3.Connection, root: Path, chosen: Iterable[Item], stays: Needed) -> None:
    """Remove what is said of the files that go, and of content that is made of them."""
    contents = {item.digest for item in chosen if item.kind == "lfs"}
    xorbs = {from_text(item.digest) for item in chosen if item.kind == "xorb"}
    without = contents | {
        sha256
        for sha256, ranges in connection.execute("SELECT sha256, ranges FROM reconstruction")
        if any(each.xorb in xorbs for each in Ranges(ranges))
    }
    if without & stays.contents or xorbs & stays.xorbs:
        raise AssertionError("content that is needed")  # undoes the transaction: nothing was removed yet
    elsewhere = {sha256 for sha256 in without - contents if (root / "content" / sha256[:2] / sha256).is_file()}
    _list(connection, "lost_content", without)
    _list(connection, "lost_holding", without - elsewhere)
    _list(connection, "lost_xorb", xorbs)
    connection.execute("DELETE FROM reconstruction WHERE sha256 IN temp.lost_content")
    connection.execute("UPDATE holding SET xet = NULL WHERE sha256 IN temp.lost_content")
    connection.execute("DELETE FROM holding WHERE sha256 IN temp.lost_holding")
    connection.execute("DELETE FROM xorb WHERE hash IN temp.lost_xorb")
    for table in ("chunk", "given", "xorb_sender"):
        connection.execute(f"DELETE FROM {table} WHERE xorb IN temp.lost_xorb")
    if xorbs:
        # clients remember by the store's address which chunks it has: they begin anew with another address
        connection.execute("UPDATE setting SET value = ? WHERE key = 'store'", (secrets.token_bytes(8),))


def _list(connection: sqlite3.Connection, name: str, keys: Iterable[str] | Iterable[bytes]) -> None:
    connection.execute(f"CREATE TEMP TABLE {name} (key PRIMARY KEY) WITHOUT ROWID")
    connection.executemany(f"INSERT INTO temp.{name} VALUES (?)", [(key,) for key in keys])


# the files


def _unlink_all(root: Path, database: Database, chosen: Iterable[Item], removed: Removed) -> None:
    named = _named(database)
    for item in chosen:
        if (item.kind, item.digest) in named:
            raise AssertionError(f"{item.digest} is named by the database again")
        try:
            _unlink(root, item)
        except FileNotFoundError:
            removed.gone += 1
        except OSError as error:
            removed.kept.append(f"{item.kind} {item.digest} stays: {error.strerror}")
        else:
            removed.objects += 1
            removed.size += item.size


def _named(database: Database) -> set[tuple[Kind, str]]:
    """Every file that a line of the database speaks of, once more after the transaction."""
    found: set[tuple[Kind, str]] = {("lfs", row[0]) for row in database.read().execute("SELECT sha256 FROM holding")}
    return found | {("xorb", to_text(row[0])) for row in database.read().execute("SELECT hash FROM xorb")}


def _unlink(root: Path, item: Item) -> None:
    """Remove one file of the store, found from folder to folder without following a link."""
    with _folder(root) as store, _folder(FOLDERS[item.kind], store) as files, _folder(item.digest[:2], files) as inner:
        found = os.stat(item.digest, dir_fd=inner, follow_symlinks=False)
        if not stat.S_ISREG(found.st_mode):
            raise OSError(errno.ELOOP, "it is a link or no file")
        if found.st_size != item.size:
            raise OSError(errno.ESTALE, f"it has {found.st_size} bytes, not {item.size}")
        os.unlink(item.digest, dir_fd=inner)


@contextmanager
def _folder(name: str | Path, within: int | None = None) -> Iterator[int]:
    follow = 0 if within is None else os.O_NOFOLLOW  # the store's own path may lead over links
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | follow, dir_fd=within)
    try:
        yield handle
    finally:
        os.close(handle)


def _tell(plan: Plan, root: Path, chosen: set[tuple[Kind, str]], removed: Removed) -> None:
    for item in plan.items:
        if (item.kind, item.digest) in chosen:
            continue
        if os.path.lexists(root / FOLDERS[item.kind] / item.digest[:2] / item.digest):
            removed.kept.append(
                f"{item.kind} {item.digest} stays: it is needed by now, was promised again, or has another size"
            )
        else:
            removed.gone += 1
