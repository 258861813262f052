"""Which images are rows: whether a file is an image that BIDS names, and to which subject and session it belongs."""

from dataclasses import dataclass

from tasks.bids.names import WORD, Name, folder_label
from tasks.load.tree import IMAGE_EXTENSIONS, Folder
from tasks.values.models import ENTITIES

UNNAMED = "images without a BIDS name"
OUTSIDE_SUBJECTS = "images outside the subjects' folders of a raw dataset"
CONTRADICTION = "images whose name and folder contradict each other"
#: The same of one image.
REASONS = {
    UNNAMED: "an image whose name is none of BIDS",
    OUTSIDE_SUBJECTS: "an image outside the subjects' folders of a raw dataset",
    CONTRADICTION: "an image whose name and folder contradict each other",
}

_KNOWN = frozenset((*ENTITIES, "sub", "ses"))
_COLUMNS = frozenset(ENTITIES)


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
    if name.extension not in IMAGE_EXTENSIONS or not WORD.fullmatch(name.suffix or "") or not name.entities:
        return UNNAMED
    inside = folder.path[len(folder.root.path) :].lstrip("/").split("/")
    folder_sub, folder_ses = folder_label(inside, "sub"), folder_label(inside, "ses")
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
