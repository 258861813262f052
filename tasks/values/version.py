"""Which version of bids-push this is."""

import tomllib
from functools import cache
from importlib import metadata
from pathlib import Path

NAME = "bids-push"


@cache
def version() -> str:
    """The version: of the clone that this code lies in, or else of the package that is installed.

    In a clone nothing need be installed, and what is installed beside it may be another version.
    """
    project = Path(__file__).parents[2] / "pyproject.toml"
    stated = tomllib.loads(project.read_text()).get("project", {}) if project.is_file() else {}
    return str(stated["version"]) if stated.get("name") == NAME else metadata.version(NAME)


def tool_version() -> str:
    """Name and version, as the card gives them."""
    return f"{NAME} {version()}"
