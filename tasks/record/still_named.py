"""Finds the texts that stay published and still name a subject whose shards are withdrawn.

Removing a shard takes the images from the repo, and not the subject's row in `participants.tsv` or in a table of
`phenotype/`, as long as the dataset has it there. People take the folder away and forget the row, so the gate and the
runs' states name these files, and the subjects, whose labels are in the shards' paths anyway. No other value is named.

A text names a subject in two ways: by a row of a table whose first column is `participant_id`, with or without `sub-`
(BIDS specification, "Participants file" and "Phenotypic and assessment data"), and by the label with its prefix
(`sub-02`) anywhere, as in a path. A label that is not of letters and digits, as BIDS asks, is not looked for: its
shard's path has it in another spelling.
"""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath

from tasks.bids.text import BadTable, NotText, decode, read_table
from tasks.values.models import ShardSpec
from tasks.values.our_paths import LEFT_OUT

#: A subject's label as a path or a text has it.
_LABEL = re.compile(r"(?<![A-Za-z0-9])sub-[A-Za-z0-9+]+")
_COLUMN = "participant_id"


def subjects_of(shards: Iterable[str]) -> tuple[str, ...]:
    """Return the subjects of shards, sorted: `sub-02` of `data/sub-02/sub-02_ses-1.parquet`.

    A shard that belongs to no subject is named by its folder too: `tpl-MNI`, `group-raw`.
    """
    return tuple(sorted({PurePosixPath(path).parent.name for path in shards}))


def subjects_gone(shards: Iterable[str], plan: Iterable[ShardSpec]) -> frozenset[str]:
    """Return the subjects of these withdrawn shards of whom the dataset has no other shard."""
    left = set(subjects_of(spec.path for spec in plan))
    return frozenset(name for name in subjects_of(shards) if name.startswith("sub-") and name not in left)


def still_named(subjects: Collection[str], texts: Mapping[str, bytes]) -> dict[str, tuple[str, ...]]:
    """Find the texts that name one of these subjects.

    Args:
        subjects: labels as `sub-02`.
        texts: path in the repo -> bytes.

    Returns:
        Path of a text -> the subjects that it names, both sorted. Tables that are made from a text that is named here
        (`tables/participants.parquet`) are made anew with it, and are not named.
    """
    if not subjects:
        return {}
    theirs = ((path, data) for path, data in sorted(texts.items()) if path != f"bids/{LEFT_OUT}")  # that one is ours
    found = ((path, _named_in(data) & set(subjects)) for path, data in theirs)
    return {path: tuple(sorted(names)) for path, names in found if names}


def _named_in(data: bytes) -> set[str]:
    """Return every subject that a text names."""
    try:
        text = decode(data)
    except NotText:
        return set()
    return {*_LABEL.findall(text), *_rows_of(text)}


def _rows_of(table: str) -> set[str]:
    """Return the subjects who have a row without `sub-` in a table; none if it is not one of subjects."""
    try:
        rows = read_table(table)
    except BadTable:
        return set()
    if not rows or next(iter(rows[0])) != _COLUMN:
        return set()
    return {f"sub-{label.strip()}" for row in rows if (label := row[_COLUMN])}
