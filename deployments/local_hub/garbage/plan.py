"""A plan of what may be removed: a file that a person reads, approves and hands on to `remove`. It changes nothing."""

from __future__ import annotations

import hashlib
import json
import os
import re
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from deployments.local_hub.database import Database
from deployments.local_hub.garbage.needed import Needed, needed, repos
from deployments.local_hub.promises import STEP
from deployments.local_hub.xet.hashes import from_text, to_text
from deployments.local_hub.xet.store import Ranges

FORMAT = 1
DAY = 24 * 3600.0  # seconds
# Clients keep what they were told of chunks for three weeks (hf_xet's cache of shards), and build on it without asking.
KEEP_DAYS = 30.0
LEAST_DAYS = 1.0  # an address for an upload is good for a day

Kind = Literal["lfs", "xorb"]
FOLDERS: dict[Kind, str] = {"lfs": "content", "xorb": "xorbs"}
DIGEST = re.compile(r"[0-9a-f]{64}")


class PlanError(ValueError):
    """A plan that cannot be carried out, or a store that none can be made for; the message says why."""


@dataclass(frozen=True)
class Item:
    """A file of the store that nothing needs: its digest, bytes, the days since it was sent or promised, and why."""

    kind: Kind
    digest: str
    size: int
    age_days: float
    why: str


@dataclass(frozen=True)
class LetGo:
    """A commit that no branch, tag or pull request reaches: it goes, with the folders and texts that it alone has."""

    repo: int
    name: str
    oid: str
    age_days: float


@dataclass(frozen=True)
class Plan:
    """What may go from one store; `made` in seconds since the epoch."""

    root: str
    store: str
    made: float
    keep_days: float
    items: tuple[Item, ...]
    commits: tuple[LetGo, ...]

    @property
    def size(self) -> int:
        """Bytes of the files that it names."""
        return sum(item.size for item in self.items)


@dataclass
class Looked:
    """The files of a store, as they are now."""

    items: list[Item]
    kept: int = 0
    kept_bytes: int = 0
    strangers: list[str] = field(default_factory=list)
    """What lies there and is none of the Hub's files, by its path in the store: it is left alone."""


def identity(database: Database) -> str:
    """What a plan knows its store by; a restored copy has the same."""
    return hashlib.sha256(b"plan of what may be removed" + database.secret).hexdigest()[:16]


def make(root: Path, database: Database, keep_days: float = KEEP_DAYS) -> tuple[Plan, Looked]:
    """The plan for a store, by one moment of its database, and what was seen of its files."""
    now = time.time()
    with database.snapshot() as moment:
        stays = needed(moment, now - keep_days * DAY)
        names = dict(repos(moment))
        looked = look(root, moment, stays, now, keep_days)
    commits = tuple(LetGo(each.repo, names[each.repo], each.oid, _days(now - each.date)) for each in stays.commits)
    items = tuple(looked.items)
    return Plan(str(root.resolve()), identity(database), now, keep_days, items, commits), looked


def look(root: Path, moment: sqlite3.Connection, stays: Needed, now: float, keep_days: float) -> Looked:
    """Every file of the store that nothing needs and that nobody was promised of late."""
    since = now - keep_days * DAY - STEP
    promised = _promised(moment)
    reasons = _reasons(moment, stays)
    looked = Looked([])
    for kind, path, file in _files(root, looked.strangers):
        name = path.name
        last = max(file.st_mtime, promised.get((kind, name), 0.0))
        stay = name in stays.contents if kind == "lfs" else from_text(name) in stays.xorbs
        if stay or last >= since:
            looked.kept += 1
            looked.kept_bytes += file.st_size
        else:
            why = reasons.get((kind, name), "no line of the database names it")
            looked.items.append(Item(kind, name, file.st_size, _days(now - last), why))
    return looked


def _days(seconds: float) -> float:
    return round(seconds / DAY, 1)


def _promised(moment: sqlite3.Connection) -> dict[tuple[str, str], float]:
    found = {
        ("lfs", sha256): last for sha256, last in moment.execute("SELECT sha256, MAX(promised) FROM holding GROUP BY 1")
    }
    rows = moment.execute("SELECT hash, promised FROM xorb")
    return found | {("xorb", to_text(digest)): last for digest, last in rows}


def _reasons(moment: sqlite3.Connection, stays: Needed) -> dict[tuple[str, str], str]:
    found = {("lfs", sha256): why for sha256, why in stays.reasons.items()}
    for (digest,) in moment.execute("SELECT hash FROM xorb"):
        found["xorb", to_text(digest)] = "no file is made of it"
    for sha256, ranges in moment.execute("SELECT sha256, ranges FROM reconstruction"):
        if sha256 not in stays.contents:
            why = stays.reasons.get(sha256, "no file that stays is made of it")
            found |= {("xorb", to_text(xorb)): why for xorb in {each.xorb for each in Ranges(ranges)}}
    return found


def _files(root: Path, strangers: list[str]) -> Iterator[tuple[Kind, Path, os.stat_result]]:
    """The files under their digests; links are never followed, and what is no such file is a stranger."""
    for kind, name in FOLDERS.items():
        folder = root / name
        if folder.is_symlink() or not folder.is_dir():
            raise PlanError(
                f"{folder} is a link or no folder. What is removed has to lie in the store itself: give --root the"
                " folder that really has it, or move it there"
            )
        for inner in sorted(os.scandir(folder), key=lambda entry: entry.name):
            if not inner.is_dir(follow_symlinks=False) or not re.fullmatch("[0-9a-f]{2}", inner.name):
                strangers.append(f"{name}/{inner.name}")
                continue
            for entry in sorted(os.scandir(inner.path), key=lambda entry: entry.name):
                if (
                    entry.is_file(follow_symlinks=False)
                    and DIGEST.fullmatch(entry.name)
                    and entry.name.startswith(inner.name)
                ):
                    yield kind, Path(entry.path), entry.stat(follow_symlinks=False)
                else:
                    strangers.append(f"{name}/{inner.name}/{entry.name}")


# the file


def write(plan: Plan, path: Path) -> None:
    """Write a plan to a new file: a line that sums it up, then one for each file and commit. FileExistsError if any."""
    lines = [json.dumps(asdict(item)) for item in plan.items]
    lines += [json.dumps({"kind": "commit", **asdict(commit)}) for commit in plan.commits]
    head = {
        "plan": FORMAT, "root": plan.root, "store": plan.store, "made": plan.made, "keep_days": plan.keep_days,
        "objects": len(plan.items), "bytes": plan.size, "commits": len(plan.commits), "sha256": _digest(lines),
    }  # fmt: skip
    with path.open("x", encoding="utf-8") as file:
        file.write("\n".join([json.dumps(head), *lines]) + "\n")


def read(path: Path) -> Plan:
    """A plan as it was written; PlanError for what is none, or was changed or cut since."""
    try:
        first, *lines = path.read_text(encoding="utf-8").splitlines()
        head = json.loads(first)
        if head["plan"] != FORMAT:
            raise PlanError(f"{path} is a plan of another version of the Hub: make a new one")
        if head["sha256"] != _digest(lines):
            raise PlanError(f"{path} is not as `gc plan` wrote it: make a new one, since nobody has approved this one")
        entries = [json.loads(line) for line in lines]
        items = tuple(_item(entry) for entry in entries if entry["kind"] != "commit")
        commits = tuple(_let_go(entry) for entry in entries if entry["kind"] == "commit")
        return Plan(str(head["root"]), str(head["store"]), head["made"], head["keep_days"], items, commits)
    except PlanError:
        raise
    except (ValueError, KeyError, TypeError) as error:
        raise PlanError(f"{path} is no plan: {error}") from None


def _digest(lines: list[str]) -> str:
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()


def _item(entry: dict[str, Any]) -> Item:
    item = Item(**entry)
    if item.kind not in FOLDERS or not DIGEST.fullmatch(item.digest):
        raise ValueError(f"there is no file of a store with the name {item.digest!r}")
    return item


def _let_go(entry: dict[str, Any]) -> LetGo:
    return LetGo(**{name: value for name, value in entry.items() if name != "kind"})
