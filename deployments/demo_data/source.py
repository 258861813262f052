"""Reads what the package brings along: the list of images with their true sizes, and every other file as published.

Where both come from, and their licence: data/README.md.
"""

import gzip
import json
import tarfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

DATA = Path(__file__).parent / "data"


@dataclass(frozen=True)
class Image:
    """One image of the published dataset."""

    path: str
    true_bytes: int

    @property
    def suffix(self) -> str:
        """The BIDS suffix: T1w, bold, mask, ..."""
        return self.stem.rpartition("_")[2]

    @property
    def stem(self) -> str:
        """The path without its extension; the sidecars' paths begin with it."""
        return self.path.removesuffix(".nii.gz")

    @property
    def session(self) -> str:
        """Subject and session, as in `sub-M2001/ses-1253`."""
        return session_of(self.path)

    @property
    def subject(self) -> str:
        """As in `sub-M2001`."""
        return self.session.partition("/")[0]


def session_of(path: str) -> str:
    """Gives `sub-*/ses-*` of a path, raw or in a derivative; an empty text for a file of the whole dataset."""
    folders = path.split("/")[:-1]
    return "/".join(part for part in folders if part.startswith(("sub-", "ses-")))


@lru_cache(maxsize=1)
def images() -> tuple[Image, ...]:
    """Gives all images, sorted by path."""
    lines = gzip.decompress((DATA / "images.tsv.gz").read_bytes()).decode().splitlines()[1:]
    rows = (line.split("\t") for line in lines)
    return tuple(sorted((Image(path, int(size)) for path, size in rows), key=lambda image: image.path))


@lru_cache(maxsize=1)
def texts() -> dict[str, bytes]:
    """Gives all other files, path to content."""
    found = {}
    with tarfile.open(DATA / "sidecars.tar.xz") as archive:
        for member in archive:
            content = archive.extractfile(member) if member.isfile() else None
            if content is not None:
                found[member.name.removeprefix("./")] = content.read()
    return found


def sidecar(image: Image) -> dict[str, Any]:
    """Gives an image's metadata: the file beside it, over what it inherits from the root of the dataset."""
    merged: dict[str, Any] = {}
    tasks = [part for part in image.stem.split("_") if part.startswith("task-")]
    inherited = [f"{task}_{image.suffix}.json" for task in tasks]
    for path in [*inherited, f"{image.stem}.json"]:
        if path in texts():
            merged |= json.loads(texts()[path])
    return merged


def b_values(image: Image) -> tuple[float, ...]:
    """Gives the b-value of each volume, in s/mm^2."""
    return tuple(float(value) for value in texts()[f"{image.stem}.bval"].split())
