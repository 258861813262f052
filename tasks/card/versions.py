"""How the card came about: the dataset's version, the commit of its git tree, the version of bids-push."""

import re
import tomllib
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from dulwich.errors import NotGitRepository
from dulwich.repo import Repo

from tasks.bids.text import NotText, decode
from tasks.values.models import Dataset

#: The first line of CHANGES that begins an entry (BIDS specification, "CHANGES": CPAN changelog convention).
_ENTRY = re.compile(r"^\s*v?(\d[\w.+-]*)(?=\s|$)", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class CardVersions:
    """The versions that a card names, as far as they are known."""

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
    """The head of the git tree whose root the dataset is; a folder somewhere inside of one is not meant."""
    if not (root / ".git").exists():
        return ""
    try:
        with Repo(str(root)) as repo:
            return repo.head().decode()
    except (NotGitRepository, KeyError, OSError, ValueError):
        return ""


@cache
def tool_version() -> str:
    """The version of bids-push, from its pyproject.toml."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    return f"{project['name']} {project['version']}"
