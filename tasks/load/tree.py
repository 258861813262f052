"""The walk: finds every folder and file of the tree once, and the dataset of the tree that each belongs to.

A tree holds a raw dataset, its derivatives, and datasets nested in those. Each has a root, and a sidecar or a table
applies only within its own root. A root is a folder with a dataset_description.json. Below `derivatives/`, where that
file is often forgotten, a folder with sub- folders in it is a root too, or else the folder directly below
`derivatives/`.

Some files are counted and not indexed: folders that BIDS keeps out of the dataset proper (`sourcedata`, `code`,
`stimuli`), hidden ones, and what .bidsignore names (BIDS specification, "Common principles", "Storage of derived
datasets"). .bidsignore has the rules of .gitignore, and is relative to its own root.
"""

import os
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tasks.bids.annex import require_fetched, unfetched
from tasks.bids.text import decode
from tasks.load.errors import UnreadableFolder, UnreadableIgnoreFile
from tasks.load.ignored import Ignored

RAW = "raw"
DESCRIPTION = "dataset_description.json"
OUTSIDE = ("sourcedata", "code", "stimuli")
IGNORE_FILE = ".bidsignore"
IGNORED = "files named in .bidsignore"
IGNORED_IMAGES = "images named in .bidsignore"
HIDDEN = "hidden files and folders, such as .git"
LOOPS = "links to a folder above them"
SPECIAL = "pipes, sockets and devices"
NOT_UTF8 = "names that are not UTF-8"

IMAGE_EXTENSIONS = (".nii", ".nii.gz")
#: CIFTI-2 (surfaces and grey-ordinates in a NIfTI-2 container) ends in .nii and is no volume.
_CIFTI = re.compile(r"\.[dps][a-z]*\.nii$")
_SUBJECT_FOLDER = re.compile(r"sub-[^/]+")
#: Folders that hold one recording of another modality: CTF MEG, OME-Zarr, MEF3, EGI. Their files are parts of it.
_RECORDING_FOLDER = re.compile(r".*_([A-Za-z0-9]+)(\.(?:ds|ome\.zarr|zarr|mefd|mff))")


@dataclass(frozen=True, slots=True)
class Root:
    """One dataset of the tree. `path` is relative to the root of the tree, and "" for that root itself."""

    path: str
    name: str
    derivative: bool
    marked: bool
    """Whether something shows that it is a root. If not, a folder below may still turn out to be one."""


@dataclass(slots=True)
class Folder:
    """A folder of the tree, and the names of its files, sorted."""

    path: str
    root: Root
    parent: "Folder | None"
    files: list[str] = field(default_factory=list)

    def below(self, name: str) -> str:
        """Return the path of an entry of this folder."""
        return f"{self.path}/{name}" if self.path else name


@dataclass(slots=True)
class Tree:
    """The whole walk: its folders, each before those in it, and what was counted and not indexed."""

    folders: list[Folder]
    left_out: Counter[str]
    images_kept_out: set[str]
    """Files that were not indexed although their names are those of images."""


def looks_like_image(name: str) -> bool:
    """Return whether a file is a NIfTI volume by its extension, whatever the rest of its name is."""
    return name.lower().endswith(IMAGE_EXTENSIONS) and not _CIFTI.search(name)


def is_subject_folder(name: str) -> bool:
    """Return whether a folder's name says that it holds a subject."""
    return _SUBJECT_FOLDER.fullmatch(name) is not None


def walk(source: Path, name: str, derivative: bool) -> Tree:
    """Walk the tree below `source`. Links to folders are followed, except those that lead back up.

    Args:
        source: the root of the tree.
        name: the name of the dataset there.
        derivative: whether that dataset is a derivative.

    Raises:
        UnreadableFolder: a folder may not be listed.
        UnreadableIgnoreFile: a .bidsignore cannot be read.
    """
    walker = _Walker(str(source))
    walker.enter(Folder("", Root("", name, derivative, marked=True), None), [])
    return Tree(walker.folders, walker.left_out, walker.images_kept_out)


class _Walker:
    """The state of one walk."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.folders: list[Folder] = []
        self.left_out: Counter[str] = Counter()
        self.images_kept_out: set[str] = set()

    def enter(self, folder: Folder, ignored: list[tuple[str, Ignored]]) -> None:
        """Enter the folder, then the folders in it."""
        files, folders = self._entries(folder)
        if folder.parent is not None:
            folder.root = _root_of(folder, files, folders)
        at_root = folder.root.path == folder.path
        if at_root and IGNORE_FILE in files:
            ignored = [*ignored, (folder.path, _ignore_rules(Path(self.source, folder.below(IGNORE_FILE))))]
        self.folders.append(folder)
        for name in files:
            kind = self._kept_out(name, folder.below(name), ignored)
            if kind is None:
                folder.files.append(name)
            elif name != IGNORE_FILE:
                self.left_out[kind] += 1
                if looks_like_image(name):
                    self.images_kept_out.add(folder.below(name))
        for name in folders:
            path = folder.below(name)
            if name.startswith("."):
                self.left_out[HIDDEN] += 1
            elif at_root and name in OUTSIDE:
                self.left_out[f"{name}/"] += self._count(path)
            elif recording := _RECORDING_FOLDER.fullmatch(name):
                self.left_out[f"*_{recording.group(1)}{recording.group(2)}"] += self._count(path)
            else:
                self.enter(Folder(path, folder.root, folder), ignored)

    def _entries(self, folder: Folder) -> tuple[list[str], list[str]]:
        """Return the names of the files and of the folders in a folder, sorted."""
        files, folders = [], []
        top = os.path.join(self.source, folder.path)  # noqa: PTH118 - once a folder: pathlib doubles the cost
        try:
            with os.scandir(top) as entries:
                for entry in entries:
                    if _is_file(entry):
                        files.append(entry.name)
                        continue
                    if looks_like_image(entry.name):
                        self.images_kept_out.add(folder.below(entry.name))
                    if not _is_folder(entry):
                        self.left_out[SPECIAL] += 1
                    elif entry.is_symlink() and _leads_back(entry.path, top):
                        self.left_out[LOOPS] += 1
                    else:
                        folders.append(entry.name)
        except OSError as error:
            raise UnreadableFolder(
                f"the folder {top} cannot be listed ({error.strerror}). Nothing is published from a tree that can "
                "only be seen in part: give the worker's user the right to read and enter it, or move it "
                "out of the dataset."
            ) from error
        return sorted(files), sorted(folders)

    @staticmethod
    def _kept_out(name: str, path: str, ignored: list[tuple[str, Ignored]]) -> str | None:
        """Return why a file is not indexed, or None if it is."""
        if name.startswith("."):
            return HIDDEN
        if not path.isascii() and any("\ud800" <= character <= "\udfff" for character in path):
            return NOT_UTF8
        for root, rules in ignored:
            if rules.has(path[len(root) + 1 :] if root else path):
                return IGNORED_IMAGES if looks_like_image(name) else IGNORED
        return None

    def _count(self, path: str) -> int:
        """Return the number of files below a folder that is not indexed."""
        return sum(len(files) for _, _, files in os.walk(os.path.join(self.source, path)))  # noqa: PTH118


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_file(entry: os.DirEntry[str]) -> bool:
    """Return whether it is a file, or a link that leads nowhere yet.

    A pipe does not count: it blocks whoever opens it.
    """
    try:
        return entry.is_file() or (entry.is_symlink() and not os.path.exists(entry.path))  # noqa: PTH110
    except OSError:  # a link to itself: a file that cannot be read
        return True


def _leads_back(link: str, folder: str) -> bool:
    """Return whether a link to a folder leads to the folder it is in, or to one above."""
    target, here = Path(link).resolve(), Path(folder).resolve()
    return target == here or target in here.parents


def _root_of(folder: Folder, files: list[str], folders: list[str]) -> Root:
    """Return the root that a folder belongs to: a new one, or its parent's."""
    parent = folder.parent
    assert parent is not None
    name = folder.path.rpartition("/")[2]
    has_subjects = any(map(is_subject_folder, folders))
    if DESCRIPTION in files or (has_subjects and not parent.root.marked):
        return _nested(folder.path, marked=True)
    in_derivatives = parent.path.rpartition("/")[2] == "derivatives" and parent.root.path == parent.path
    if in_derivatives and not is_subject_folder(name):
        return _nested(folder.path, marked=has_subjects)
    if name == "derivatives" and parent.root.path == parent.path:
        return _nested(folder.path, marked=has_subjects)
    return parent.root


def _nested(path: str, marked: bool) -> Root:
    """Return a root below the tree's own.

    Its name is its folder's, or that of all folders on the way if it lies deeper.
    """
    parts = path.split("/")
    name = "/".join(part for part in parts if part != "derivatives") or "derivatives"
    return Root(path, path if name == RAW else name, derivative="derivatives" in parts, marked=marked)


def _ignore_rules(path: Path) -> Ignored:
    try:
        data = path.read_bytes()
        require_fetched(data)
        return Ignored(decode(data).splitlines())
    except (OSError, ValueError) as error:
        reason = unfetched(error) if isinstance(error, FileNotFoundError) else str(error)
        raise UnreadableIgnoreFile(
            f"{path} cannot be read ({reason}), so it is not known what must not be published. Fetch or correct it."
        ) from error
