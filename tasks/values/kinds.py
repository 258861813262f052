"""The kinds of rows: which files are images, which are recordings, and how both are counted for people."""

import re
from collections.abc import Iterable
from typing import Literal

from tasks.values.format import number

#: What a row's file is: a NIfTI volume, whose bytes are in the column `nifti`, or a part of a recording, whose bytes
#: are in `content`.
Kind = Literal["image", "recording"]

IMAGE_EXTENSIONS = (".nii", ".nii.gz")
#: CIFTI-2 (surfaces and grey-ordinates in a NIfTI-2 container) ends in .nii and is no volume.
_CIFTI = re.compile(r"\.[dps][a-z]*\.nii$")
#: Folders that hold one recording of which the files are parts: CTF MEG, OME-Zarr, MEF3, EGI (BIDS specification,
#: "Magnetoencephalography", "Microscopy", "Intracranial Electroencephalography").
_RECORDING_FOLDER = re.compile(r".*_([A-Za-z0-9]+)(\.(?:ds|ome\.zarr|zarr|mefd|mff))")


def is_image(path: str) -> bool:
    """Return whether a file is a NIfTI volume by its extension, and no part of a recording that is a folder."""
    named_so = path.lower().endswith(IMAGE_EXTENSIONS) and not _CIFTI.search(path)
    return named_so and not in_recording_folder(path)


def recording_folder(name: str) -> str | None:
    """Return the kind of a folder that is one recording (`*_meg.ds`), judged by its name, or None if it is none."""
    found = _RECORDING_FOLDER.fullmatch(name)
    return f"*_{found[1]}{found[2]}" if found else None


def recording_of(path: str) -> str:
    """Return the path of the recording that a file is a part of: of the folder (`*_meg.ds`) if it is one."""
    parts = path.split("/")
    number = next((number for number, name in enumerate(parts[:-1]) if recording_folder(name)), len(parts) - 1)
    return "/".join(parts[: number + 1])


def in_recording_folder(path: str) -> bool:
    """Return whether a file is a part of a recording that is a folder."""
    return any(map(recording_folder, path.split("/")[:-1]))


def recordings(paths: Iterable[str]) -> int:
    """Return how many of these files are files of recordings."""
    return sum(not is_image(path) for path in paths)


def counted(paths: Iterable[str]) -> str:
    """Return how many images and files of recordings these are: `3 images and 1 file of recordings`."""
    paths = list(paths)
    files = recordings(paths)
    return both(len(paths) - files, files)


def both(images: int, files: int) -> str:
    """Return these numbers of images and of files of recordings, for people; of the latter only if there are any."""
    if not files:
        return number(images, "image")
    of_recordings = f"{number(files, 'file')} of recordings"
    return f"{number(images, 'image')} and {of_recordings}" if images else of_recordings


def noun(paths: Iterable[str]) -> Literal["image", "file"]:
    """Return what one of these files is called where they are counted or listed together."""
    return "image" if all(map(is_image, paths)) else "file"
