"""What a file's name says (BIDS specification, "Filenames"): entities, suffix, extension, datatype.

bids2table does the parsing. Three decisions are ours: whether a file is an image that BIDS names, to which subject and
session it belongs, and that the run of `run-01` stays the text "01".
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from bids2table import parse_bids_entities

from tasks.load.tree import IMAGE_EXTENSIONS, Folder
from tasks.values.models import ENTITIES

UNNAMED = "images without a BIDS name"
OUTSIDE_SUBJECTS = "images outside the subjects' folders of a raw dataset"
CONTRADICTION = "images whose name and folder contradict each other"

_WORD = re.compile(r"[A-Za-z0-9]+")
_KNOWN = frozenset((*ENTITIES, "sub", "ses"))
_COLUMNS = frozenset(ENTITIES)


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
        if any(self.entities.values()) and self.suffix and _WORD.fullmatch(self.suffix) and self.extension:
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
    found = parse_bids_entities(path)
    suffix, datatype = found.pop("suffix", None), found.pop("datatype", None)
    name = path.rpartition("/")[2]
    if name.count("_") > len(found):  # sub-01_T2w_desc-lesion_mask: "T2w" tells two files apart, so it must count
        found |= {part: "" for part in name.split("_")[:-1] if "-" not in part}
    return found, suffix, datatype


@dataclass(frozen=True, slots=True)
class Place:
    """Whose image it is, and its entities: those with a column, and the others."""

    sub: str | None
    ses: str | None
    entities: dict[str, str]
    extra_entities: dict[str, str]


def place(folder: Folder, name: Name) -> Place | str:
    """Return whose image this is, or the reason if it cannot be published as a row.

    A raw dataset's images lie in sub- folders. A derivative's images may lie anywhere below its root, and may belong to
    no subject: templates and group results (BIDS specification, "BIDS Derivatives").
    """
    if name.extension not in IMAGE_EXTENSIONS or not _WORD.fullmatch(name.suffix or "") or not name.entities:
        return UNNAMED
    inside = folder.path[len(folder.root.path) :].lstrip("/").split("/")
    folder_sub = next((part[4:] for part in inside if part.startswith("sub-")), None)
    folder_ses = next((part[4:] for part in inside if part.startswith("ses-")), None)
    sub, ses = name.entities.get("sub"), name.entities.get("ses")
    if folder_sub is None and not folder.root.derivative:
        return OUTSIDE_SUBJECTS
    if sub is None and (folder_sub is not None or not _KNOWN & name.entities.keys()):
        return UNNAMED
    if (folder_sub or sub) != sub or (folder_ses and ses and folder_ses != ses):
        return CONTRADICTION
    rest = {key: value for key, value in name.entities.items() if key not in ("sub", "ses") and value}
    return Place(
        sub=sub,
        ses=ses or folder_ses,
        entities={key: value for key, value in rest.items() if key in _COLUMNS},
        extra_entities={key: value for key, value in rest.items() if key not in _COLUMNS},
    )
