"""The dataset's own small files, published as they are: what a reader of the dataset should find beside the shards.

These are the files at a root (README, CHANGES, LICENSE, dataset_description.json, participants.tsv and .json,
.bidsignore, root-level sidecars and tables) and those in `phenotype/` (BIDS specification, "Modality agnostic files").
"""

from pathlib import Path

from tasks.bids.annex import require_fetched
from tasks.bids.text import NotText, decode
from tasks.load.tree import IGNORE_FILE, Folder
from tasks.values.format import size

MAX_TEXT = 5_000_000  # bytes: room for any table of people; a larger file is data, and counts as left out
TOO_LARGE = f"larger than {size(MAX_TEXT)}, as no text should be"
NOT_FETCHED = "not fetched"
TAKEN = "its place in the repo is taken by a file that a push writes"
_EXTENSIONS = (".json", ".tsv", ".csv", ".txt", ".md", ".rst", ".cff", ".bib", ".bval", ".bvec")
_NAMES = ("README", "CHANGES", "LICENSE", "LICENCE", "COPYING", "CITATION", "AUTHORS", "NOTICE")
_PHENOTYPE = "phenotype"


def is_text(folder: Folder, name: str) -> bool:
    """Return whether a file is published as it is, judged by its place and name."""
    inside = folder.path[len(folder.root.path) :].lstrip("/")
    return inside in ("", _PHENOTYPE) and (name in _NAMES or name.lower().endswith(_EXTENSIONS) or name == IGNORE_FILE)


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
