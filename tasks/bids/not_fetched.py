"""Files whose content is not on this machine: how many, how many bytes, and the one command that fetches all of them.

A clone by git-annex, DataLad or git LFS has the names of all files, and the content of those that somebody fetched.
"""

import os
import shlex
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from tasks.values.format import number, size
from tasks.values.kinds import noun
from tasks.values.models import Image

FOLDERS_NAMED = 3  # in a command; more subjects than that are `sub-*`


@dataclass(frozen=True, slots=True)
class Absent:
    """Images and files of recordings whose content is not here."""

    images: int
    of: int
    """The number of all of them, with those that are here."""
    size: int
    """The bytes that git-annex keys and git LFS pointers state."""
    unsized: int
    """How many of them nothing states the size of."""
    commands: tuple[str, ...]
    """The commands that fetch all of them; none if they are links that lead nowhere, of no program that is known."""
    noun: Literal["image", "file"] = "image"
    """What all of them are called: images, or files where there are recordings among them."""

    def __str__(self) -> str:
        """Return a sentence for people."""
        bytes_of_all = f" ({self._stated()})"
        way = " and ".join(f"`{command}`" for command in self.commands)
        fetch = f" In the dataset's folder, {way} fetches all of it." if way else " Restore what the links lead to."
        be = "is" if self.images == 1 else "are"
        return f"{self.images:,} of {number(self.of, self.noun)} {be} not on this machine{bytes_of_all}.{fetch}"

    def _stated(self) -> str:
        if self.unsized == self.images:
            return "of unknown size"
        return f"{size(self.size)}{f', and {self.unsized:,} of unknown size' if self.unsized else ''}"


def absent(images: Iterable[Image], root: Path) -> Absent | None:
    """Return what is said about the files whose content is not here, or None if all of it is.

    Args:
        images: all images and files of recordings of a dataset.
        root: the dataset's folder.
    """
    images = list(images)
    gone = [image for image in images if not image.fetched]
    if not gone:
        return None
    annexed = [image.path for image in gone if image.annex_key is not None]
    commands = []
    if annexed:
        program = "datalad" if (root / ".datalad").is_dir() else "git annex"
        commands.append(f"{program} get {_pattern(annexed)}")
    if any(image.annex_key is None and image.size for image in gone):  # a pointer of git LFS states a size
        commands.append("git lfs pull")
    unsized = sum(not image.size for image in gone)
    size_of_all, called = sum(image.size for image in gone), noun(image.path for image in images)
    return Absent(len(gone), len(images), size_of_all, unsized, tuple(commands), called)


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
