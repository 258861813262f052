"""The dataset's own small files, published as they are: what a reader of the dataset should find beside the shards.

These are the files at a root (README, CHANGES, LICENSE, dataset_description.json, participants.tsv and .json,
.bidsignore, root-level sidecars and tables) and those in `phenotype/` (BIDS specification, "Modality agnostic files").

The texts in `code/` and `stimuli/` are published too, whatever they are called: there a file's bytes say whether it is
a text. Pictures, sounds and films are none, and neither is a text with such data in it (a notebook with its figures),
because nobody looks through it.

A folder with very many of these would be more than a Hub holds, so there they are rows of a shard (`in_large_folders`).
"""

import re
from collections.abc import Collection
from pathlib import Path

from tasks.bids.annex import require_fetched
from tasks.bids.text import NotText, decode
from tasks.load.tree import DESCRIPTION, IGNORE_FILE, Folder
from tasks.values.format import in_units

MAX_TEXT = 5_000_000  # bytes: room for any table of people; a larger file is data, and counts as left out
TOO_LARGE = f"larger than {in_units(MAX_TEXT)}, as no text should be"
NOT_FETCHED = "not fetched"
TAKEN = "its place in the repo is taken by a file that a push writes"
_EXTENSIONS = (".json", ".tsv", ".csv", ".txt", ".md", ".rst", ".cff", ".bib", ".bval", ".bvec")
_NAMES = ("README", "CHANGES", "LICENSE", "LICENCE", "COPYING", "CITATION", "AUTHORS", "NOTICE")
_PHENOTYPE = "phenotype"

NO_TEXT = "no text"
#: What is shown, played or printed, also where it is written in letters alone.
_SHOWN_OR_PLAYED = frozenset(
    (".bmp", ".eps", ".gif", ".htm", ".html", ".jpeg", ".jpg", ".pdf", ".png", ".ps", ".rtf", ".svg", ".tif", ".tiff",
     ".webp", ".aac", ".aiff", ".flac", ".m4a", ".mid", ".mp3", ".ogg", ".wav", ".wma", ".avi", ".mkv", ".mov", ".mp4",
     ".mpeg", ".mpg", ".webm", ".wmv")
)  # fmt: skip
#: Control characters that stand in no text: all but tab, line ends, form feed, the end that DOS wrote, and escape,
#: which begins the colours of a log.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0e-\x19\x1c-\x1f\x7f]")
_START = 4 << 10  # bytes by which most files that are no text are known
#: Base64 of data (a figure in a notebook, a picture in a style sheet): no word or number of people is as long.
_DATA = re.compile(r"[A-Za-z0-9+/]{1000}|(?:[A-Za-z0-9+/]{60,76}\\?[\r]?(?:\n|\\n)){12}")

#: Entries that a folder below `bids/` may have. On huggingface.co a folder has 10,000 at most.
MOST_ENTRIES = 4000

TRANSFORMS = (".txt", ".mat")  # the extensions of transforms that may be text
_TRANSFORM = 64 << 10  # bytes of a transform that is written as text: an affine one has a few hundred
#: What a linear transform is written as: numbers (FSL), and the words that ITK has around them (ITK Software Guide,
#: "Transform": the transform's class with the type and the dimensions of its numbers).
_OF_TRANSFORMS = re.compile(
    r"(?:[-+\d.,;\s]|e[-+]?\d|nan|inf|#Insight Transform File V\d|#Transform \d|(?:Fixed)?Parameters:"
    r"|Transform: [A-Z][A-Za-z0-9]{0,40}Transform(?:Base)?_(?:double|float)_\d_\d)*"
)


def is_text(folder: Folder, name: str) -> bool:
    """Return whether a file is published as it is, judged by its place and name."""
    inside = folder.path[len(folder.root.path) :].lstrip("/")
    return inside in ("", _PHENOTYPE) and (name in _NAMES or name.lower().endswith(_EXTENSIONS) or name == IGNORE_FILE)


def in_large_folders(texts: Collection[str], roots: Collection[str]) -> set[str]:
    """Return the texts that are not published as they are, because a folder on their way has too many entries.

    Args:
        texts: the paths of all texts.
        roots: the folders of the datasets. Of their own files, only those that are named by entities can be so many.
    """
    inside: dict[str, set[str]] = {}
    for path in texts:
        while path:
            folder = path.rpartition("/")[0]
            inside.setdefault(folder, set()).add(path)
            path = folder
    large = {folder for folder, entries in inside.items() if len(entries) > MOST_ENTRIES}
    named = {one for folder in large & set(roots) for one in inside[folder] if _is_named_by_entities(one)}
    below = {f"{folder}/" for folder in large.difference(roots)}
    return {path for path in texts if path in named or any(map(path.startswith, below))}


def _is_named_by_entities(path: str) -> bool:
    name = path.rpartition("/")[2]
    return "_" in name and name != DESCRIPTION and not name.startswith(_NAMES)


def read_text(path: Path) -> bytes | str:
    """Return the bytes of a text, or why it cannot be published as it is."""
    try:
        if path.stat().st_size > MAX_TEXT:
            return TOO_LARGE
        data = path.read_bytes()
        require_fetched(data)
        decode(data)
    except FileNotFoundError:
        return NOT_FETCHED
    except OSError:
        return "it cannot be read"
    except NotText:
        return "not a text, against its name"
    return data


def read_loose(path: Path) -> bytes | str:
    """Return the bytes of a text in `code` or `stimuli`, or why the file is not published as it is."""
    if path.suffix.lower() in _SHOWN_OR_PLAYED:
        return NO_TEXT
    try:
        with path.open("rb") as stream:
            start = stream.read(_START)
    except OSError:  # `read_text` says why
        start = b""
    if not _is_of_letters(start):
        return NO_TEXT
    data = read_text(path)
    return data if isinstance(data, str) or _is_of_letters(data) else NO_TEXT


def _is_of_letters(data: bytes) -> bool:
    """Return whether a text has nothing in it that a person could not read: no control character, and no base64."""
    try:
        text = decode(data)
    except NotText:
        return False
    return not (_CONTROL.search(text) or _DATA.search(text))


def is_transform(path: Path) -> bool:
    """Return whether a file is a linear transform that is written as text: numbers, and nothing that says more."""
    try:
        with path.open("rb") as stream:
            data = stream.read(_TRANSFORM + 1)
        return 0 < len(data) <= _TRANSFORM and _OF_TRANSFORMS.fullmatch(decode(data)) is not None
    except (OSError, NotText):
        return False
