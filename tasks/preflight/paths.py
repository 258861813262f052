"""Paths: finds dates, e-mail addresses and names of people in the names of files and folders that are published.

The names of files that are left out are published too, in bids/left_out.tsv. What is found in them is taken out there.

Only three things are looked for, since nothing else can be known: eight digits that are a day later than 1925, in files
that belong to a subject; text with the form of an e-mail address; and the names of people in participants.tsv, as it is
before anything is stripped. A finding shows the path of its file, so what was found is taken out of it:
`sub-01/ses-(date)/...`.
"""

import re
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from tasks.bids.text import Row
from tasks.preflight.names import LAST_SHIFTED_YEAR, NAMES, is_placeholder, plain
from tasks.preflight.tables import PARTICIPANTS, rows_of
from tasks.values.left_out import in_order
from tasks.values.models import Dataset
from tasks.values.preflight_rules import Findings

KINDS = 3  # of what is looked for in a path
SHORTEST = 3  # letters of a name: a shorter one is in too many labels

_EXTENSION = re.compile(r"(?:\.nii)?(?:\.[A-Za-z]{2,4})?$")
_SUBJECT = re.compile(r"(?:^|/)(?=sub-)")
_EIGHT_DIGITS = re.compile(r"(?<!\d)(\d{8})(?:\d{6})?(?!\d)")
#: What every path has in which a date or an address is found: the quick look at each of them.
_ASKS = re.compile(r"\d{8}|@")
_ADDRESS = re.compile(r"[A-Za-z0-9.%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}")
_LABEL = re.compile(r"(?:^|[/_])(?:(?P<entity>[a-z]+)-)?(?P<label>[^/_-]+)")
#: Entities whose labels are words of the study, and no person's (BIDS specification, appendix "Entities").
_OF_THE_STUDY = frozenset(("task", "desc", "space", "atlas", "seg", "label", "acq", "rec", "dir", "mod", "ce", "trc"))
_WORD = re.compile(r"[A-Z]?[^\W\d_A-Z]+|[A-Z]+")
_LETTERS = re.compile(r"[^\W\d_]+")


def check_paths(dataset: Dataset, published: Dataset, found: Findings) -> None:
    """Look through the paths of all files that are rows, and of texts.

    Args:
        dataset: the dataset as it was loaded.
        published: the same without what is stripped.
        found: where to note what is found.
    """
    names = _names_of(dataset)
    for path in (*(row.path for row in published.rows), *published.texts):
        for what, shown in _in_path(path, names):
            found.add("personal-path", what, shown)


def hide_in_left_out(dataset: Dataset, published: Dataset) -> Dataset:
    """Return the dataset with what was found taken out of the paths of files that are left out, for the table of them.

    Args:
        dataset: the dataset as it was loaded.
        published: the same without what is stripped.
    """
    names = _names_of(dataset)
    hidden = (replace(one, path=_hidden(one.path, names)) for one in published.unpublished)
    return replace(published, unpublished=in_order(hidden))


def _hidden(path: str, names: Collection[str]) -> str:
    for _ in range(KINDS):
        for _, shown in _in_path(path, names):
            path = shown
            break
    return _ADDRESS.sub("(address)", path)  # also one that ends the path, and may be a name with an extension


def _in_path(path: str, names: Collection[str]) -> Iterator[tuple[str, str]]:
    """Yield what is found in a path, each with the path without it."""
    if not (names or _ASKS.search(path)):
        return
    stem = _EXTENSION.sub("", path, count=1)
    ending = path[len(stem) :]
    if _ADDRESS.search(stem):
        yield "e-mail address", _ADDRESS.sub("(address)", stem) + ending
    subject = _SUBJECT.search(path)
    if subject and any(map(_is_a_day, _EIGHT_DIGITS.findall(stem[subject.end() :]))):
        yield "date", _EIGHT_DIGITS.sub("(date)", stem) + ending
    if names and (spelled := [word for name, word in _words_in(stem).items() if name in names]):
        longest_first = sorted(map(re.escape, spelled), key=len, reverse=True)
        yield f"name in {PARTICIPANTS}", re.sub("|".join(longest_first), "(name)", stem) + ending


def _is_a_day(digits: str) -> bool:
    """Return whether eight digits are a day later than 1925 and not in the future."""
    try:
        day = datetime.strptime(digits, "%Y%m%d").replace(tzinfo=UTC)
    except ValueError:
        return False
    return day.year > LAST_SHIFTED_YEAR and day <= datetime.now(UTC)


def _names_of(dataset: Dataset) -> frozenset[str]:
    """Return the names of people that participants.tsv holds, in small letters: each word, and all of them together."""
    words = {word for name in _people(dataset) for word in name}
    return full_names_of(dataset) | {word for word in words if len(word) >= SHORTEST}


def full_names_of(dataset: Dataset) -> frozenset[str]:
    """Return the names of people that participants.tsv holds, in small letters: `johndoe` and `doejohn`."""
    full = {"".join(words) for name in _people(dataset) if len(name) > 1 for words in (name, reversed(name))}
    return frozenset(name for name in full if len(name) >= SHORTEST)


def _people(dataset: Dataset) -> Iterator[list[str]]:
    """Yield the words of each name that participants.tsv holds, in small letters."""
    rows: Sequence[Row] = dataset.participants
    rows = rows or rows_of(PARTICIPANTS, dataset.texts.get(PARTICIPANTS, b"")) or ()
    columns = [column for column in (rows[0] if rows else ()) if plain(column) in NAMES]
    for row in rows if columns else ():
        yield [plain(word) for column in columns for word in _spoken(row.get(column))]


def _spoken(value: str | None) -> list[str]:
    """Return the words of a name. A name with digits has none: it is a number of the study, such as `control01`."""
    if value is None or is_placeholder(value) or any(map(str.isdigit, value)):
        return []
    return _LETTERS.findall(value)


def _words_in(stem: str) -> dict[str, str]:
    """Return the words of the labels in a path: `john`, `doe` and `johndoe` of `sub-JohnDoe`, each as it is spelt."""
    words: dict[str, str] = {}
    for label in _LABEL.finditer(stem):
        if label["entity"] not in _OF_THE_STUDY:
            words.update((plain(word), word) for word in _WORD.findall(label["label"]))
            words.update((plain(word), word) for word in _LETTERS.findall(label["label"]))
    return words
