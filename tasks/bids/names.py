"""What a file's name says (BIDS specification, "Filenames"): entities, suffix, extension, datatype.

bids2table does the parsing. We add two things: the run of `run-01` stays the text "01", and a stray word counts.
"""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from bids2table import parse_bids_entities

WORD = re.compile(r"[A-Za-z0-9]+")


@dataclass(frozen=True, slots=True)
class Name:
    """A parsed file name."""

    entities: dict[str, str]
    """In the order of the name. A stray word between underscores is an entity without a value."""
    suffix: str | None
    datatype: str | None
    extension: str

    @property
    def kind(self) -> str:
        """The kind of the file, for people: `*_eeg.edf`, or `*.pdf` if the name is not BIDS's."""
        if any(self.entities.values()) and self.suffix and WORD.fullmatch(self.suffix) and self.extension:
            return f"*_{self.suffix}{self.extension}"
        last = self.extension.rpartition(".")[2]
        return f"*.{last}" if last else "files without an extension"


def parse(path: str) -> Name:
    """Parse a path that is relative to its dataset's root."""
    dot = path.find(".", max(path.rfind("/"), path.rfind("_")) + 1)
    stem, extension = (path[:dot], path[dot:]) if dot >= 0 else (path, "")
    return Name(*_parse_stem(stem), extension)


@lru_cache(maxsize=16)  # an image and the sidecars of its name follow one another, and are parsed once
def _parse_stem(path: str) -> tuple[dict[str, str], str | None, str | None]:
    """Return entities, suffix and datatype of a path without its extension."""
    folder, _, name = path.rpartition("/")
    found = parse_bids_entities(name)
    suffix, datatype = found.pop("suffix", None), _datatype(folder)
    suffix = suffix and sys.intern(suffix)
    if name.count("_") > len(found):  # sub-01_T2w_desc-lesion_mask: "T2w" tells two files apart, so it must count
        found |= {part: "" for part in name.split("_")[:-1] if "-" not in part}
    return found, suffix, datatype


@lru_cache(maxsize=16)  # the files of a folder follow one another
def _datatype(folder: str) -> str | None:
    found = parse_bids_entities(f"{folder}/_").get("datatype")
    return found and sys.intern(found)


def folder_label(folders: Sequence[str], entity: str) -> str | None:
    """Return the label that the first folder with this entity gives: "01" of `sub-01`; None if there is none."""
    prefix = f"{entity}-"
    return next((name.removeprefix(prefix) for name in folders if name.startswith(prefix)), None)


def subject_of(path: str) -> str | None:
    """Return the label of the subject in whose folder a file lies ("01" of `sub-01/anat/...`), or None."""
    return folder_label(path.split("/")[:-1], "sub")
