"""Small BIDS datasets, made on the spot: one for each rule that loading has to follow.

`write(root, files)` makes a tree from path -> content: an `Image` becomes a real NIfTI file of a few voxels, a mapping
a JSON file, a list of rows a TSV file, text and bytes themselves. The functions make datasets that several tests use.
"""

import gzip
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import nibabel
import numpy as np

from deployments.demo_data import source

Content = object  # Image | Link | bytes | str | Mapping | list of rows


@dataclass(frozen=True)
class Image:
    """A NIfTI image to be; another `fill` is another content of the same size."""

    fill: int = 1
    shape: tuple[int, ...] = (4, 3, 2)


@dataclass(frozen=True)
class Link:
    """A symbolic link to be."""

    target: str


@cache
def nifti(image: Image, compressed: bool) -> bytes:
    """The bytes of a small image, the same on any day."""
    data = np.full(image.shape, image.fill, dtype=np.int16)
    raw = nibabel.Nifti1Image(data, np.eye(4)).to_bytes()
    return gzip.compress(raw, mtime=0) if compressed else raw


def write(root: Path, files: Mapping[str, Content]) -> Path:
    """Make the files below `root`, and return it."""
    for path, content in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            file.symlink_to(content.target)
        else:
            file.write_bytes(_bytes(path, content))
    return root


def _bytes(path: str, content: Content) -> bytes:
    if isinstance(content, bytes):
        return content
    if isinstance(content, str):
        return content.encode()
    if isinstance(content, Image):
        return nifti(content, path.endswith(".gz"))
    if isinstance(content, list):
        return "".join("\t".join(row) + "\n" for row in content).encode()
    return json.dumps(content).encode()


def description(**fields: object) -> dict[str, object]:
    """A dataset_description.json."""
    return {"Name": "A small dataset", "BIDSVersion": "1.10.0", "License": "CC0"} | fields


IMAGE = Image()


def one_subject(root: Path, more: Mapping[str, Content] | None = None) -> Path:
    """A raw dataset with one T1w image, and whatever else the test is about."""
    files = {"dataset_description.json": description(), "sub-01/anat/sub-01_T1w.nii.gz": IMAGE}
    return write(root, files | dict(more or {}))


def two_sessions(root: Path) -> Path:
    """Two subjects, one with two sessions, with tables, inherited sidecars, and masks without a description."""
    return write(
        root,
        {
            "dataset_description.json": description(),
            "README": "A README.\n",
            "participants.tsv": [["participant_id", "age", "group"], ["sub-01", "34", "None"], ["sub-02", "n/a", "A"]],
            "participants.json": {"age": {"Description": "age at the first visit", "Units": "years"}},
            "task-rest_bold.json": {"TaskName": "rest", "RepetitionTime": 2.0},
            "sub-01/sub-01_sessions.tsv": [["session_id", "acq_time"], ["ses-a", "1877-01-01"], ["ses-b", "n/a"]],
            "sub-01/ses-a/sub-01_ses-a_scans.tsv": [
                ["filename", "quality"],
                ["func/sub-01_ses-a_task-rest_bold.nii.gz", "n/a"],
                ["anat/sub-01_ses-a_T1w.nii.gz", "good"],
            ],
            "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz": IMAGE,
            "sub-01/ses-a/anat/sub-01_ses-a_T1w.json": {"EchoTime": 0.00285},
            "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.nii.gz": IMAGE,
            "sub-01/ses-a/func/sub-01_ses-a_task-rest_bold.json": {"RepetitionTime": 1.5},
            "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii": IMAGE,
            "sub-02/anat/sub-02_T1w.nii.gz": IMAGE,
            "derivatives/masks/sub-01/ses-a/anat/sub-01_ses-a_desc-lesion_mask.nii.gz": IMAGE,
            "derivatives/masks/sub-01/ses-a/anat/sub-01_ses-a_desc-lesion_mask.json": {"Type": "Lesion"},
        },
    )


def ds004884(root: Path) -> Path:
    """The whole tree of OpenNeuro ds004884: its texts as published, and a few bytes in place of each image."""
    for path, text in source.texts().items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(text)
    for image in source.images():
        file = root / image.path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(b"placeholder")
    return root


def rows_of(text: str) -> Sequence[Mapping[str, str | None]]:
    """The rows of a TSV text, read in the plainest way."""
    head, *lines = [line.split("\t") for line in text.splitlines() if line]
    return [{key: None if cell == "n/a" else cell for key, cell in zip(head, line, strict=True)} for line in lines]


def move_session(bids: Path, session: Path, to: Path) -> None:
    """Move a session and its masks out of a dataset, to the same places below another folder."""
    for part in (session, bids / "derivatives" / "lesion_masks" / session.parent.name / session.name):
        if part.exists():
            there = to / part.relative_to(bids)
            there.parent.mkdir(parents=True, exist_ok=True)
            shutil.move(part, there)
