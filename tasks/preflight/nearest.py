"""Finds the file that a text of a row comes from. It is looked for only if something was found in the text."""

from pathlib import Path, PurePosixPath

from tasks.values.kinds import recording_of
from tasks.values.models import Image

#: Entities that a file beside a row may have and the row's own has not: the space of electrodes, the recording of blood
#: samples (BIDS specification, "Electrodes description", "Blood recording data").
_OF_ITS_OWN = ("space-", "recording-")


def nearest(root: Path, image: Image, pattern: str) -> str:
    """Return the nearest file of that name that is about the image, in its folder or above, or the image.

    Args:
        root: the dataset's folder.
        image: the row.
        pattern: of the file's name, for example `*_events.tsv`.
    """
    for folder in PurePosixPath(image.path).parents:
        names = sorted(path.name for path in (root / folder).glob(pattern))
        about = sorted((len(_strange(name, image)), name) for name in names if _is_about(name, image))
        if about:
            return (folder / about[0][1]).as_posix()
    return image.path


def _is_about(name: str, image: Image) -> bool:
    """Return whether each entity in a file's name is one of the image's, or one that the image cannot have."""
    return all(part.startswith(_OF_ITS_OWN) for part in _strange(name, image))


def _strange(name: str, image: Image) -> set[str]:
    """Return the entities in a file's name that the image's has not; of a folder's file, the folder's name counts."""
    return set(name.split("_")[:-1]) - set(recording_of(image.path).rpartition("/")[2].split("_"))
