"""The kinds of rows: what a file is by its path alone, and how files are counted for people.

Anybody can tell the kind of a file by its path, so no record has to say it.
"""

import re
from collections import Counter
from collections.abc import Iterable
from functools import lru_cache
from typing import Literal

from tasks.values.format import number
from tasks.values.left_out import is_recording

#: What a row's file is: a NIfTI volume, whose bytes are in the column `nifti`; or a part of a recording, a sidecar, a
#: table or any other file, whose bytes are in `content`. A shard has its rows in this order.
Kind = Literal["image", "recording", "sidecar", "table", "other"]
KINDS: tuple[Kind, ...] = ("image", "recording", "sidecar", "table", "other")
#: The kinds that a dataset is about; the other files are beside them.
DATA: frozenset[Kind] = frozenset(("image", "recording"))

#: The extensions of metadata files and of tables (BIDS specification, "Metadata files", "Tabular files").
_BY_EXTENSION: dict[str, Kind] = {
    ".json": "sidecar", ".bval": "sidecar", ".bvec": "sidecar",
    ".tsv": "table", ".csv": "table",
}  # fmt: skip

IMAGE_EXTENSIONS = (".nii", ".nii.gz")
#: CIFTI-2 (surfaces and grey-ordinates in a NIfTI-2 container) ends in .nii and is no volume.
_CIFTI = re.compile(r"\.[dps][a-z]*\.nii$")
#: Folders that hold one recording of which the files are parts: CTF MEG, OME-Zarr, MEF3, EGI (BIDS specification,
#: "Magnetoencephalography", "Microscopy", "Intracranial Electroencephalography").
_RECORDING_FOLDER = re.compile(r".*_([A-Za-z0-9]+)(\.(?:ds|ome\.zarr|zarr|mefd|mff))")
#: The same of BTi/4D and KIT, which have no ending (appendix "MEG file formats"): a whole name of BIDS, since a folder
#: of a derivative may end in `_meg` too.
_BARE_MEG_FOLDER = re.compile(r"sub-[A-Za-z0-9+]+(?:_[a-z]+-[A-Za-z0-9+]+)+_meg")


def is_image(path: str) -> bool:
    """Return whether a file is a NIfTI volume by its extension, and no part of a recording that is a folder."""
    named_so = path.lower().endswith(IMAGE_EXTENSIONS) and not _CIFTI.search(path)
    return named_so and not in_recording_folder(path)


def recording_folder(name: str) -> str | None:
    """Return the kind of a folder that is one recording (`*_meg.ds`), judged by its name, or None if it is none."""
    found = _RECORDING_FOLDER.fullmatch(name)
    if found:
        return f"*_{found[1]}{found[2]}"
    return "*_meg/" if _BARE_MEG_FOLDER.fullmatch(name) else None


def recording_of(path: str) -> str:
    """Return the path of the recording that a file is a part of: of the folder (`*_meg.ds`) if it is one."""
    parts = path.split("/")
    number = next((number for number, name in enumerate(parts[:-1]) if recording_folder(name)), len(parts) - 1)
    return "/".join(parts[: number + 1])


def in_recording_folder(path: str) -> bool:
    """Return whether a file is a part of a recording that is a folder."""
    folders = path.rpartition("/")[0]
    if "." not in folders and "_meg" not in folders:  # as of nearly every file
        return False
    return any(map(recording_folder, folders.split("/")))


@lru_cache(maxsize=1 << 14)  # the files of a dataset of moderate size: each is asked about six times in a night
def kind_of(path: str) -> Kind:
    """Return what a file is, by its path in the dataset."""
    if is_image(path):
        return "image"
    name = path.rpartition("/")[2].lower()
    if in_recording_folder(path) or is_recording(path.rpartition("/")[2]):
        return "recording"
    if name.endswith(".tsv.gz"):
        return "table"
    return _BY_EXTENSION.get(name[name.rfind(".") :], "other")


def called(kind: Kind) -> str:
    """Return what one file of a kind is called in a sentence about it."""
    return "file" if kind == "other" else kind


def is_data(path: str) -> bool:
    """Return whether a file is what the dataset is about, an image or a part of a recording, and not beside it."""
    return kind_of(path) in DATA


def recordings(paths: Iterable[str]) -> int:
    """Return how many of these files are files of recordings."""
    return sum(kind_of(path) == "recording" for path in paths)


def counted(paths: Iterable[str]) -> str:
    """Return how many files of each sort these are: `3 images, 1 file of recordings and 5 other files`."""
    kinds = Counter(map(kind_of, paths))
    return both(kinds["image"], kinds["recording"], kinds.total() - kinds["image"] - kinds["recording"])


def both(images: int, files: int, others: int = 0) -> str:
    """Return these numbers in words for people. Zeros are left out; if all are zero, it says `0 images`.

    Args:
        images: the number of images.
        files: the number of files of recordings.
        others: the number of files beside them.
    """
    parts = [number(images, "image")] if images or not (files or others) else []
    parts += [f"{number(files, 'file')} of recordings"] if files else []
    parts += [number(others, "other file" if parts else "file")] if others else []
    return " and ".join(filter(None, (", ".join(parts[:-1]), parts[-1])))


def noun(paths: Iterable[str]) -> Literal["image", "file"]:
    """Return what one of these files is called where they are counted or listed together."""
    return "image" if all(map(is_image, paths)) else "file"
