"""What people decided to keep on the Hub although the dataset no longer has it: what, when, in which run, and why.

The decisions are kept beside the staged shards. Nobody is asked about them again, until a run that somebody started by
hand asks again (`removed="ask again"`). From then on they are open, until a person has answered: a later night asks
about them too, and takes the question over if it takes the gate over.

The file is a memory: without it, people are asked once more. Nothing here removes anything.
"""

from collections.abc import Iterable
from datetime import datetime
from functools import reduce

from pydantic import ValidationError

from tasks.disk.files import write_whole
from tasks.disk.staging import Staging
from tasks.record.removals import Removals
from tasks.values.models import Value

KEPT = "kept-removals.json"  # in the target's staging folder


class Keeping(Value):
    """A person's decision to keep removals on the Hub."""

    removals: Removals
    at: datetime | None = None
    """The time of the decision; None if it was made with a version that did not remember it."""
    flow_run_id: str = ""
    flow_run_name: str = ""
    """The run at whose gate it was decided; empty if that is not known."""
    note: str = ""
    """What the person wrote at the gate: nothing else says who they are."""
    open_again: bool = False
    """Whether somebody has had this asked again. It is no decision any more, until there is an answer."""


class _Keepings(Value):
    """The file."""

    decisions: tuple[Keeping, ...]


def read_keepings(staging: Staging) -> tuple[Keeping, ...]:
    """Return the decisions, the oldest first; none if there is no readable file."""
    try:
        data = staging.read(staging.folder / KEPT)
    except OSError:
        return ()
    try:
        return _Keepings.model_validate_json(data).decisions
    except ValidationError:
        return _of_earlier_versions(data)


def _of_earlier_versions(data: bytes) -> tuple[Keeping, ...]:
    """Return what earlier versions kept: the removals alone."""
    try:
        removals = Removals.model_validate_json(data)
    except ValidationError:
        return ()
    return (Keeping(removals=removals),) if removals else ()


def read_kept(staging: Staging) -> Removals:
    """Return the removals that nobody is to be asked about, since a person decided to keep them on the Hub."""
    return all_of(keeping for keeping in read_keepings(staging) if not keeping.open_again)


def all_of(keepings: Iterable[Keeping]) -> Removals:
    """Return the removals of all of these decisions."""
    return reduce(Removals.joined, (keeping.removals for keeping in keepings), Removals())


def keep(staging: Staging, keeping: Keeping) -> None:
    """Remember a decision. It takes the place of earlier ones about the same files.

    Raises:
        OSError: the file cannot be written.
    """
    _write(staging, (*_without(staging, keeping.removals), keeping))


def forget(staging: Staging, removals: Removals) -> None:
    """Forget the decisions about these files, because a person has decided otherwise since.

    Raises:
        OSError: the file cannot be written.
    """
    before, after = read_keepings(staging), _without(staging, removals)
    if after != before:
        _write(staging, after)


def open_again(staging: Staging, removals: Removals) -> None:
    """Have these files asked about again, as far as they were kept. What else was kept stays so.

    Raises:
        OSError: the file cannot be written.
    """
    asked = []
    for keeping in read_keepings(staging):
        part = keeping.removals.excluding(keeping.removals.published.keys() - removals.published.keys())
        if part:
            asked.append(keeping.model_copy(update={"removals": part, "open_again": True}))
    _write(staging, (*_without(staging, removals), *asked))


def _without(staging: Staging, removals: Removals) -> tuple[Keeping, ...]:
    """Return the decisions without the files that these removals name. A decision about no other file is left out."""
    left = (
        keeping.model_copy(update={"removals": keeping.removals.excluding(removals.published)})
        for keeping in read_keepings(staging)
    )
    return tuple(keeping for keeping in left if keeping.removals)


def _write(staging: Staging, keepings: Iterable[Keeping]) -> None:
    write_whole(staging.folder / KEPT, _Keepings(decisions=tuple(keepings)).model_dump_json(indent=1).encode())
