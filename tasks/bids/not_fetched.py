"""Files whose content is not on this machine: how many, how many bytes, and the one command that fetches all of them.

A clone by git-annex, DataLad or git LFS has the names of all files, and the content of those that somebody fetched.
"""

import os
import shlex
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.values.format import in_units, number
from tasks.values.models import Image

Sort = Literal["image", "recording", "other"]
SORTS: tuple[Sort, ...] = ("image", "recording", "other")
FOLDERS_NAMED = 3  # in a command; more subjects than that are `sub-*`


@dataclass(frozen=True, slots=True)
class Absent:
    """Files whose content is not here."""

    of: tuple[tuple[Sort, int, int], ...]
    """Of each sort of which some are not here: how many are not, and how many there are."""
    size: int
    """The bytes that git-annex keys and git LFS pointers state."""
    unsized: int
    """How many of them nothing states the size of."""
    commands: tuple[str, ...]
    """The commands that fetch all of them; none if they are links that lead nowhere, of no program that is known."""

    @property
    def files(self) -> int:
        """How many are not here."""
        return sum(gone for _, gone, _ in self.of)

    @property
    def noun(self) -> Literal["image", "file"]:
        """What one of them is called: an image, or a file where there are others among them."""
        return "image" if all(sort == "image" for sort, _, _ in self.of) else "file"

    def __str__(self) -> str:
        """Return a sentence for people."""
        bytes_of_all = f" ({self._stated()})"
        way = " and ".join(f"`{command}`" for command in self.commands)
        fetch = f" In the dataset's folder, {way} fetches all of it." if way else " Restore what the links lead to."
        be = "is" if self.files == 1 else "are"
        parts = [f"{gone:,} of {_all(sort, of)}" for sort, gone, of in self.of]
        which = " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))
        return f"{which} {be} not on this machine{bytes_of_all}.{fetch}"

    def _stated(self) -> str:
        if self.unsized == self.files:
            return "of unknown size"
        return f"{in_units(self.size)}{f', and {self.unsized:,} of unknown size' if self.unsized else ''}"


def absent(rows: Iterable[Image], root: Path) -> Absent | None:
    """Return what is said about the files whose content is not here, or None if all of it is.

    Args:
        rows: all files that are rows. Each of them counts, because its shard fails if it is not here.
        root: the dataset's folder.
    """
    rows = list(rows)
    gone = [row for row in rows if not row.fetched]
    if not gone:
        return None
    annexed = [row.path for row in gone if row.annex_key is not None]
    commands = []
    if annexed:
        program = "datalad" if (root / ".datalad").is_dir() else "git annex"
        commands.append(f"{program} get {_pattern(annexed)}")
    if any(row.annex_key is None and row.size for row in gone):  # a pointer of git LFS states a size
        commands.append("git lfs pull")
    lacking, there = (Counter(map(_sort, some)) for some in (gone, rows))
    of = tuple((sort, lacking[sort], there[sort]) for sort in SORTS if lacking[sort])
    return Absent(of, sum(row.size for row in gone), sum(not row.size for row in gone), tuple(commands))


def _sort(row: Image) -> Sort:
    return row.kind if row.kind == "image" or row.kind == "recording" else "other"


def _all(sort: Sort, count: int) -> str:
    """Return how many files of a sort there are, for people."""
    if sort == "image":
        return number(count, "image")
    return f"{number(count, 'file')} of recordings" if sort == "recording" else f"{count:,} sidecars, tables and others"


def _pattern(paths: list[str]) -> str:
    """Return a short pattern for a shell that covers all of these files, and as few others as it can."""
    common = os.path.commonpath(paths)
    if common:
        return shlex.quote(common)
    tops = sorted({path.partition("/")[0] for path in paths})
    if len(tops) > FOLDERS_NAMED:
        others = [top for top in tops if not top.startswith("sub-")]
        tops = ["sub-*", *others] if len(others) < FOLDERS_NAMED else ["."]
    return " ".join(top if top in ("sub-*", ".") else shlex.quote(top) for top in tops)
