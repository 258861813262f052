"""Which files are rows: whether BIDS names them so, and to which subject and session they belong."""

from dataclasses import dataclass
from functools import lru_cache

from tasks.bids.names import WORD, Name, folder_label
from tasks.load.texts import NOT_FETCHED, TAKEN, TOO_LARGE
from tasks.load.tree import Folder
from tasks.values.kinds import IMAGE_EXTENSIONS, Kind
from tasks.values.left_out import BY_INCLUDE, CONTRADICTS, NO_NAME, NO_SUFFIX, NOT_LOOKED_THROUGH, what_is
from tasks.values.models import ENTITIES

UNNAMED = "without a BIDS name"
OUTSIDE_SUBJECTS = "outside the subjects' folders of a raw dataset"
CONTRADICTION = "whose name and folder contradict each other"
#: The same of one file, after "an image" or "a recording".
_OF_ONE = {UNNAMED: "whose name is none of BIDS"}
_A = {"image": "an image", "recording": "a recording"}

#: What the check before publication looks through, besides sidecars and tables: surfaces and grey-ordinates.
LOOKED_THROUGH = (".gii", ".nii")

_KNOWN = frozenset((*ENTITIES, "sub", "ses"))
_COLUMNS = frozenset(ENTITIES)


@dataclass(frozen=True, slots=True)
class Place:
    """Whose file it is, and its entities: those with a column, and the others."""

    sub: str | None
    ses: str | None
    entities: dict[str, str]
    extra_entities: dict[str, str]


#: Of a file that belongs to no subject and has no name of BIDS.
NOBODYS = Place(None, None, {}, {})


def why_not(kind: Kind, reason: str) -> tuple[str, str]:
    """Return why a file is no row, worded for this file and worded for all such files, from a reason of `place`."""
    return f"{_A[kind]} {_OF_ONE.get(reason, reason)}; {BY_INCLUDE}", f"{kind}s {reason}"


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
    folder_sub, folder_ses = _labels(folder)
    sub, ses = name.entities.get("sub"), name.entities.get("ses")
    if folder_sub is None and not folder.root.derivative:
        return OUTSIDE_SUBJECTS
    if sub is None and (folder_sub is not None or not _KNOWN & name.entities.keys()):
        return UNNAMED
    if (folder_sub or sub) != sub or (folder_ses and ses and folder_ses != ses):
        return CONTRADICTION
    return _place(sub, ses or folder_ses, name)


def place_all_the_same(folder: Folder, name: Name) -> Place:
    """Return whose file this is, judged by its folders alone, where its name does not say so or says something else."""
    return _place(*_labels(folder), name)


def place_of_other(
    folder: Folder, name: Name, kind: Kind, no_text: str, wanted: bool, looked_through: bool = False
) -> Place | str:
    """Return whose file this is if it is neither an image nor a recording, or the reason why it is no row.

    Args:
        folder: its folder.
        name: its name.
        kind: what it is.
        no_text: for a file with the place and name of a text, why it is not published as one; else empty.
        wanted: whether it is a row whatever its name and format are, as `include` names it, or as its content is a part
            of another row.
        looked_through: whether somebody has looked through it, whatever its format is.
    """
    by_kind = kind in ("sidecar", "table")
    if no_text:  # a shard takes it, or says that it is not here and how to fetch it
        sound = by_kind and no_text in (TOO_LARGE, NOT_FETCHED, TAKEN)
        return place_all_the_same(folder, name) if wanted or sound else no_text
    found = place(folder, name, kind)
    if wanted:
        return found if isinstance(found, Place) else place_all_the_same(folder, name)
    if what_is(name.extension) == "recording":
        return NO_SUFFIX
    if isinstance(found, str):
        return CONTRADICTS if found == CONTRADICTION else NO_NAME
    return found if by_kind or looked_through or name.extension.endswith(LOOKED_THROUGH) else NOT_LOOKED_THROUGH


def _labels(folder: Folder) -> tuple[str | None, str | None]:
    """Return the subject and the session in whose folders, within its dataset, a folder is."""
    return _labels_in(folder.path[len(folder.root.path) :])


@lru_cache(maxsize=16)  # the files of a folder follow one another
def _labels_in(path: str) -> tuple[str | None, str | None]:
    inside = path.lstrip("/").split("/")
    return folder_label(inside, "sub"), folder_label(inside, "ses")


def _place(sub: str | None, ses: str | None, name: Name) -> Place:
    rest = {key: value for key, value in name.entities.items() if key not in ("sub", "ses") and value}
    return Place(
        sub=sub,
        ses=ses,
        entities={key: value for key, value in rest.items() if key in _COLUMNS},
        extra_entities={key: value for key, value in rest.items() if key not in _COLUMNS},
    )
