"""Which images and recordings are rows: whether BIDS names them so, and to which subject and session they belong."""

from dataclasses import dataclass

from tasks.bids.names import WORD, Name, folder_label
from tasks.load.tree import Folder
from tasks.values.kinds import IMAGE_EXTENSIONS, Kind
from tasks.values.models import ENTITIES

UNNAMED = "without a BIDS name"
OUTSIDE_SUBJECTS = "outside the subjects' folders of a raw dataset"
CONTRADICTION = "whose name and folder contradict each other"
#: The same of one file, after "an image" or "a recording".
_OF_ONE = {UNNAMED: "whose name is none of BIDS"}
_A = {"image": "an image", "recording": "a recording"}

_KNOWN = frozenset((*ENTITIES, "sub", "ses"))
_COLUMNS = frozenset(ENTITIES)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose image or recording it is, and its entities: those with a column, and the others."""

    sub: str | None
    ses: str | None
    entities: dict[str, str]
    extra_entities: dict[str, str]


def why_not(kind: Kind, reason: str) -> tuple[str, str]:
    """Return why a file is no row, once for it and once for all of them, from a reason of `place`."""
    return f"{_A[kind]} {_OF_ONE.get(reason, reason)}", f"{kind}s {reason}"


def place(folder: Folder, name: Name, kind: Kind) -> Place | str:
    """Return whose image or recording this is, or the reason if it cannot be published as a row.

    A raw dataset's images lie in sub- folders. A derivative's images may lie anywhere below its root, and may belong to
    no subject: templates and group results (BIDS specification, "BIDS Derivatives").
    """
    if (
        (kind == "image" and name.extension not in IMAGE_EXTENSIONS)
        or not WORD.fullmatch(name.suffix or "")
        or not name.entities
    ):
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
