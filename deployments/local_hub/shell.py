"""What the local Hub's commands share: where the store is, who may use it meanwhile, and how they end."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

if TYPE_CHECKING:
    from deployments.local_hub.hub import Hub

ROOT = click.option(
    "--root", type=click.Path(path_type=Path), required=True, metavar="DIR", help="The folder that holds everything."
)
HELP = {"help_option_names": ["-h", "--help"]}


def files(count: int, size: int) -> str:
    """So many files, of so many bytes, for a person."""
    from deployments.local_hub.html import counted, human

    return f"{counted(count)} ({human(size)})"


def clock(seconds: float) -> str:
    """A moment, in this machine's time."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def there(root: Path) -> None:
    """End here unless the folder holds a Hub: none is made by asking for it."""
    if not (root / "hub.sqlite3").is_file():
        failed(f"{root} holds no Hub", 2)


@contextmanager
def reading(root: Path) -> Iterator[None]:
    """While the block lasts nothing is removed from the store; in a sentence, where that cannot be."""
    from deployments.local_hub.locks import reading as held

    with in_a_sentence(), held(root):
        yield


@contextmanager
def removing(root: Path) -> Iterator[None]:
    """While the block lasts nobody else uses the store; in a sentence, where that cannot be."""
    from deployments.local_hub.locks import removing as held

    with in_a_sentence(), held(root):
        yield


@contextmanager
def in_a_sentence(*errors: type[Exception]) -> Iterator[None]:
    """End with the sentence of an error that has one for people."""
    from deployments.local_hub.locks import HubInUseError

    told: tuple[type[Exception], ...] = (HubInUseError, *errors)
    try:
        yield
    except told as error:
        failed(str(error), 1)


@contextmanager
def opened(root: Path, **options: Any) -> Iterator[Hub]:
    """The Hub in a folder, closed when the block ends."""
    from deployments.local_hub.hub import Hub
    from deployments.local_hub.permissions import own_files_only

    own_files_only()
    hub = Hub(root, **options)
    try:
        yield hub
    finally:
        hub.close()


def failed(why: str, code: int) -> NoReturn:
    """End with an exit code, and say why."""
    print(why, file=sys.stderr)
    raise SystemExit(code)
