"""How the card came about: the dataset's version, the commit of its git tree, the version of bids-push."""

import re
from dataclasses import dataclass
from pathlib import Path

from tasks.bids.text import NotText, decode
from tasks.values.models import Dataset
from tasks.values.version import tool_version

#: The first line of CHANGES that begins an entry (BIDS specification, "CHANGES": CPAN changelog convention).
_ENTRY = re.compile(r"^\s*v?(\d[\w.+-]*)(?=\s|$)", re.MULTILINE)
_OBJECT_ID = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class CardVersions:
    """The versions that a card names. One that is not known is empty."""

    dataset: str = ""
    commit: str = ""
    """The commit of the dataset's git tree, as a whole object id."""
    tool: str = ""

    @classmethod
    def of(cls, dataset: Dataset) -> "CardVersions":
        """Return what can be known about a dataset without asking anybody."""
        return cls(_version(dataset), _commit(Path(dataset.root)), tool_version())


def _version(dataset: Dataset) -> str:
    """Return the newest entry of CHANGES. By the convention it is the first one."""
    try:
        found = _ENTRY.search(decode(dataset.texts.get("CHANGES", b"")))
    except NotText:
        return ""
    return found.group(1) if found else ""


def _commit(root: Path) -> str:
    """Return the commit at the head of the git tree whose root the dataset is; empty if there is none.

    The files in `.git` are read here (git documentation, "gitrepository-layout"), because a worker need not have git,
    and git refuses to read the tree of another user.
    """
    try:
        folder = _git_folder(root / ".git")
        head = _line_of(folder / "HEAD")
        found = _target_of(folder, head.removeprefix("ref: ")) if head.startswith("ref: ") else head
    except (OSError, ValueError):
        return ""
    return found if _OBJECT_ID.fullmatch(found) else ""


def _git_folder(path: Path) -> Path:
    """Return the folder that `.git` is, or the one that it names: in a submodule or a second work tree it is a file."""
    if path.is_dir():
        return path
    return path.parent / _line_of(path).removeprefix("gitdir: ")


def _target_of(folder: Path, reference: str) -> str:
    """Return the commit that a branch is at, from its own file, or from the one that `git pack-refs` makes of many."""
    common = folder / _line_of(folder / "commondir") if (folder / "commondir").is_file() else folder
    if (common / reference).is_file():
        return _line_of(common / reference)
    with (common / "packed-refs").open(encoding="utf-8") as packed:
        names = (line.split() for line in packed if not line.startswith(("#", "^")))
        return next((commit for commit, name in names if name == reference), "")


def _line_of(path: Path) -> str:
    """Return the line of a file that has one.

    Raises:
        OSError: the file cannot be read.
        ValueError: it is not UTF-8, or is no ordinary file.
    """
    if not path.is_file():
        raise ValueError(f"{path} is no file")
    return path.read_text(encoding="utf-8").strip()
