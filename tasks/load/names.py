"""What a file's name says (BIDS specification, "Filenames"): entities, suffix, extension, datatype.

The parsing is bids2table's. Ours is the judgement whether a file is an image that BIDS names, and to which subject
and session it belongs; and that `run-01` stays the word "01".
"""

import re
from dataclasses import dataclass

from bids2table import parse_bids_entities

from tasks.load.tree import Folder
from tasks.models import ENTITIES

IMAGE_EXTENSIONS = (".nii", ".nii.gz")
UNNAMED = "images without a BIDS name"
OUTSIDE_SUBJECTS = "images outside the subjects' folders of a raw dataset"
CONTRADICTION = "images whose name and folder contradict each other"

#: CIFTI-2 (surfaces and grey-ordinates in a NIfTI-2 container) ends in .nii and is no volume.
_CIFTI = re.compile(r"\.[dps][a-z]*\.nii$")
_WORD = re.compile(r"[A-Za-z0-9]+")
_KNOWN = frozenset((*ENTITIES, "sub", "ses"))
_COLUMNS = frozenset(ENTITIES)


@dataclass(frozen=True, slots=True)
class Name:
    """A parsed file name."""

    entities: dict[str, str]
    """In the order of the name; a stray word between underscores is an entity without a value."""
    suffix: str | None
    extension: str
    datatype: str | None

    @property
    def kind(self) -> str:
        """What kind of file this is, for people: `*_eeg.edf`, or `*.pdf` for a name that is not BIDS's."""
        if self.entities and self.suffix and _WORD.fullmatch(self.suffix) and self.extension:
            return f"*_{self.suffix}{self.extension}"
        last = self.extension.rpartition(".")[2]
        return f"*.{last}" if last else "files without an extension"


def parse(path: str) -> Name:
    """Parse a path relative to its dataset's root."""
    found = parse_bids_entities(path)
    suffix, extension, datatype = found.pop("suffix", None), found.pop("ext", ""), found.pop("datatype", None)
    name = path.rpartition("/")[2]
    if name.count("_") > len(found):  # sub-01_T2w_desc-lesion_mask: "T2w" tells two files apart, so it must count
        found |= {part: "" for part in name.split("_")[:-1] if "-" not in part}
    return Name(found, suffix, extension, datatype)


def looks_like_image(name: str) -> bool:
    """Whether a file is a NIfTI volume by its extension, whatever the rest of its name."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not _CIFTI.search(name)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose image it is, and what its entities say, the known and the others."""

    sub: str | None
    ses: str | None
    entities: dict[str, str]
    extra_entities: dict[str, str]


def place(folder: Folder, name: Name) -> Place | str:
    """Whose image this is; or, for an image that cannot be published as a row, the reason.

    A raw dataset's images lie in sub- folders. A derivative's may lie anywhere below its root, and may be nobody's:
    templates and group results (BIDS specification, "BIDS Derivatives").
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
