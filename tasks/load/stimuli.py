"""Stimuli: which of the files that events name in `stim_file` are not published.

Their paths are relative to `stimuli/` at the dataset's root (BIDS specification, "Task events"); some datasets write
the folder too.
"""

from collections.abc import Iterable

from tasks.bids.text import LINE_END, MISSING
from tasks.load.tables import some_of
from tasks.values.left_out import LeftOut

FOLDER = "stimuli/"
_COLUMN = "stim_file"


def left_out_stimuli(events: Iterable[str | None], unpublished: Iterable[LeftOut]) -> list[str]:
    """Return a sentence about stimuli that events name and that are left out, or none.

    Args:
        events: the events of each image and recording, as text.
        unpublished: what is left out.
    """
    out = {one.path for one in unpublished if one.path.startswith(FOLDER)}
    if not out:
        return []
    named = {path for text in {text for text in events if text} for path in _named_in(text)}
    if not (missing := named & out):
        return []
    return [
        f"Stimuli that events name in `{_COLUMN}` and that are left out: {len(missing):,} of {len(named):,} "
        f"({some_of(missing)}). If their owners let you share them, `include` with {FOLDER!r} publishes them."
    ]


def _named_in(text: str) -> set[str]:
    """Return the paths of the stimuli that a table of events names, relative to the dataset's root."""
    head, *lines = LINE_END.split(text)
    columns = [name.strip() for name in head.removeprefix("\ufeff").split("\t")]
    if _COLUMN not in columns:
        return set()
    at = columns.index(_COLUMN)
    values = {cells[at].strip() for cells in (line.split("\t") for line in lines) if len(cells) > at}
    return {FOLDER + value.lstrip("./").removeprefix(FOLDER) for value in values - {"", MISSING}}
