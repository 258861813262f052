"""Turns a folder as a person typed it into a path that the rest of the code can rely on.

`~` is the home of the user that the worker runs as. Symlinks are kept. So a root works if it is reached through a link
with a plain name, whatever bytes its real path has. A path that itself has bytes which are not UTF-8 cannot work: no
log, parameter or state on the Prefect server can hold it.
"""

import os
from pathlib import Path

from tasks.values.errors import BadInput
from tasks.values.names import is_unicode
from tasks.values.settings import Settings


def as_typed(text: str | Path, name: str) -> Path:
    """Return the absolute path for what somebody typed.

    Args:
        text: what was typed.
        name: the parameter or setting, for the message.

    Raises:
        BadInput: it cannot be a path, or the Prefect server cannot hold it.
    """
    typed = str(text)
    if typed != typed.strip() and not os.path.lexists(typed):  # for example a line break from copying
        typed = typed.strip()
    if "\0" in typed:
        raise BadInput(f"{name}: {typed!r} has a NUL character in it, which no path has. Correct it.")
    try:
        path = Path(os.path.abspath(Path(typed).expanduser()))  # noqa: PTH100 - resolve() would follow symlinks
    except (RuntimeError, OSError) as error:
        raise BadInput(f"{name}: {printable(typed)} cannot be used ({error}). Give the whole path.") from error
    if not is_unicode(str(path)):
        raise BadInput(
            f"{name}: {printable(path)} has bytes in its name that are not UTF-8, which the Prefect server cannot "
            "hold. Make a symlink to it under a plain name, and give that: ln -s <the folder> /data/my-dataset"
        )
    return path


def staging_root_of(staging_root: str | Path, name: str = "staging_root") -> Path:
    """Return the staging root as typed, or this machine's setting if nothing was typed.

    Raises:
        BadInput: it cannot be a path, or it is a link to nowhere.
    """
    given = (staging_root, name) if staging_root else (Settings().staging_root, "BIDS_PUSH_STAGING_ROOT")
    path = as_typed(*given)
    if os.path.islink(path) and not os.path.lexists(os.path.realpath(path)):  # noqa: PTH114 - is_symlink() may raise
        raise BadInput(
            f"{given[1]}: {path} is a symlink to {path.readlink()}, which is not there: perhaps a disk is not mounted. "
            "Mount it, or make that folder."
        )
    return path


def resolved(path: Path) -> Path:
    """Return the folder without symlinks, or the path as it is if the real one cannot be written as text."""
    try:
        real = path.resolve()
    except (RuntimeError, OSError):  # a loop of symlinks, or a folder that may not be read
        return path
    return real if is_unicode(str(real)) else path


def printable(path: str | Path) -> str:
    """Return a path for people to read, with `?` in place of bytes that are not UTF-8."""
    return str(path).encode("utf-8", "replace").decode()
