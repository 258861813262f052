"""Files that would leave the Hub although the dataset still has them, because the push leaves them out now.

A file that is published and no longer a part of what is pushed is a removal, whatever the reason. Most are gone from
the dataset. But somebody who drops a pattern from `include`, or adds one to `exclude`, is asked about files that nobody
has withdrawn. So whatever is said of removals also names the files that are still there, with the way out.
"""

import os
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import Literal

from tasks.values.format import number
from tasks.values.left_out import EXCLUDED, UNREADABLE, LeftOut
from tasks.values.models import Dataset

NAMED = 3  # files in a sentence

#: Why a file that is in the dataset is no longer published where it was.
Why = Literal["include", "exclude", "elsewhere", "other"]

_SAID: Mapping[Why, str] = {
    "include": "and no pattern of include names {them} any more. If {they} should stay published, give the include "
    "that named {them} in every run",
    "exclude": "and exclude names {them}. If {they} should stay published, take that pattern out of exclude",
    "elsewhere": "and published in another place of the repo now: the same {file} as a text below bids/, or in a shard",
    "other": "and left out of this push. The dry run says why",
}


def still_here(paths: Iterable[str], dataset: Dataset) -> dict[str, Why]:
    """Return which of these files, which would leave the Hub, the dataset still has, and why they are left out.

    Args:
        paths: relative to the dataset's root.
        dataset: the dataset as it is pushed.
    """
    left_out = {one.path: one for one in dataset.unpublished}
    pushed = {row.path for row in dataset.rows} | dataset.texts.keys()
    found = ((path, _why(path, left_out, pushed, dataset.root)) for path in sorted(set(paths)))
    return {path: why for path, why in found if why}


def _why(path: str, left_out: Mapping[str, LeftOut], pushed: Collection[str], root: str) -> Why | None:
    if path in pushed:
        return "elsewhere"
    if path in left_out:
        reason = left_out[path].reason
        return "exclude" if reason == EXCLUDED else "other" if UNREADABLE in reason else "include"
    # a folder may stand for it there; only such a one is looked for, since of all others the walk has seen each file
    unnamed = any(part.startswith(".") or part == "sourcedata" for part in path.split("/"))
    return "include" if unnamed and os.path.lexists(f"{root}/{path}") else None


def in_words(here: Mapping[str, Why]) -> str:
    """Return a sentence or more about these files, with the way out; empty if there are none."""
    by_why: dict[Why, list[str]] = defaultdict(list)
    for path, why in here.items():
        by_why[why].append(path)
    return " ".join(_sentence(why, by_why[why]) for why in _SAID if why in by_why)


def _sentence(why: Why, paths: list[str]) -> str:
    more = f" and {len(paths) - NAMED:,} more" if len(paths) > NAMED else ""
    they, them, file = ("it", "it", "file") if len(paths) == 1 else ("they", "them", "files")
    said = _SAID[why].format(they=they, them=them, file=file)
    return f"Still in the dataset, {said}: {number(len(paths), 'file')} ({', '.join(paths[:NAMED])}{more})."


def gone_or_left_out(files: Collection[str], here: Collection[str]) -> str:
    """Say in a few words whether these published files are gone from the dataset, or some of them are only left out."""
    left_out = sum(path in here for path in files)
    if not left_out:
        return "no longer in the dataset"
    return "left out of the push" if left_out == len(files) else "no longer in the dataset or left out of the push"
