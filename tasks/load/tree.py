"""The walk: finds every folder and file of the tree once, and the dataset of the tree that each belongs to.

A tree holds a raw dataset, its derivatives, and datasets nested in those. Each has a root, and a sidecar or a table
applies only within its own root. A root is a folder with a dataset_description.json. Below `derivatives/`, where that
file is often forgotten, a folder with sub- folders in it is a root too, or else the folder directly below
`derivatives/`.

Some files are listed as left out and not indexed: those in `sourcedata`, hidden ones, and what the operator excludes.
Names of hidden files, and of those in `sourcedata`, are not given: their folder stands for them, with a count.

`code` and `stimuli` are no part of the dataset proper either (BIDS specification, "Source vs. raw vs. derived data"),
but they belong to it. Their files are kept apart (`Folder.loose`): nothing in them applies to an image, and only texts
are published. What `include` names there is indexed like any other file.

What .bidsignore names is indexed like any other file, and noted: it silences the validator, and people publish those
files. It has the rules of .gitignore, and is relative to its own root. It is a file of BIDS', and published itself.
"""

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tasks.bids.annex import require_fetched, unfetched
from tasks.bids.ignored import Ignored
from tasks.bids.text import decode
from tasks.load.annex import content_size
from tasks.load.errors import UnreadableFolder
from tasks.load.exclude_include import OUTSIDE, SOURCEDATA, Choice
from tasks.values.kinds import IMAGE_EXTENSIONS, is_image, recording_folder
from tasks.values.left_out import EXCLUDED, LeftOut, What, is_recording, what_is

RAW = "raw"
DESCRIPTION = "dataset_description.json"
IGNORE_FILE = ".bidsignore"
HIDDEN = "hidden files and folders, such as .git"
HIDDEN_FOLDER = "a hidden folder, not looked into"
LOOPS = "links to a folder above them"
SPECIAL = "pipes, sockets and devices"
NOT_UTF8 = "names that are not UTF-8"

_SUBJECT_FOLDER = re.compile(r"sub-[^/]+")


#: Files that say what the arrays of a Zarr are: hidden by their names, and of no use to anybody if they are missing
#: (Zarr storage specification, version 2).
ZARR_METADATA = frozenset((".zarray", ".zattrs", ".zgroup", ".zmetadata"))


@dataclass(frozen=True, slots=True)
class Root:
    """One dataset of the tree. `path` is relative to the root of the tree, and "" for that root itself."""

    path: str
    name: str
    derivative: bool
    marked: bool
    """Whether something shows that it is a root. If not, a folder below may still turn out to be one."""


@dataclass(frozen=True, slots=True)
class KeptOut:
    """A folder from which only the files that `include` names are published."""

    path: str
    reason: str
    hidden: bool = False
    unnamed: bool = False
    """Whether the folder stands for its files, which are not named."""
    texts: bool = False
    """Whether its texts are published all the same."""


@dataclass(slots=True)
class Folder:
    """A folder of the tree, and the names of its files, sorted."""

    path: str
    root: Root
    parent: "Folder | None"
    files: list[str] = field(default_factory=list)
    loose: list[str] = field(default_factory=list)
    """Names of files of `code` and `stimuli` that are published if they are texts."""
    kept_out: KeptOut | None = None

    def below(self, name: str) -> str:
        """Return the path of an entry of this folder."""
        return f"{self.path}/{name}" if self.path else name


@dataclass(slots=True)
class RecordingFolder:
    """A folder that is one recording: the folder that it is in, its name, and the paths of its files, sorted."""

    parent: Folder
    name: str
    files: list[str] = field(default_factory=list)


@dataclass(slots=True)
class Tree:
    """The whole walk: its folders, each before those in it, and what was not indexed."""

    folders: list[Folder]
    left_out: list[LeftOut]
    recordings: list["RecordingFolder"]
    kept_out: set[str]
    """Files in these folders that were not indexed although their names are those of images or recordings."""
    ignored: list[str]
    """Files that were indexed although a .bidsignore names them."""
    notes: list[str]


def looks_like_row(name: str) -> bool:
    """Return whether a file is a NIfTI volume or a recording, judged by its name."""
    return is_image(name) or is_recording(name)


def is_subject_folder(name: str) -> bool:
    """Return whether a folder's name says that it holds a subject."""
    return _SUBJECT_FOLDER.fullmatch(name) is not None


def walk(source: Path, name: str, derivative: bool, choice: Choice) -> Tree:
    """Walk the tree below `source`. Links to folders are followed, except those that lead back up.

    Args:
        source: the root of the tree.
        name: the name of the dataset there.
        derivative: whether that dataset is a derivative.
        choice: what the operator leaves out and brings back.

    Raises:
        UnreadableFolder: a folder may not be listed.
    """
    walker = _Walker(str(source), choice)
    walker.enter(Folder("", Root("", name, derivative, marked=True), None), [])
    return Tree(walker.folders, walker.all_left_out(), walker.recordings, walker.kept_out, walker.ignored, walker.notes)


def left_out(source: str, path: str, reason: str, kind: str = "", what: What | None = None) -> LeftOut:
    """Return the entry of one file, with its size.

    Args:
        source: the root of the tree.
        path: the file's path, relative to it.
        reason: why it is not published.
        kind: what it is counted as; empty for the reason.
        what: what it is, if its name does not say it.
    """
    return LeftOut(path, what or what_it_is(path.rpartition("/")[2]), reason, kind, content_size(f"{source}/{path}"))


def what_it_is(name: str) -> What:
    """Return whether a file is an image (CIFTI included), a recording, or anything else, by its name."""
    return "image" if name.lower().endswith(IMAGE_EXTENSIONS) else what_is(name)


class _Walker:
    """The state of one walk."""

    def __init__(self, source: str, choice: Choice) -> None:
        self.source, self.choice = source, choice
        self.folders: list[Folder] = []
        self.left_out: list[LeftOut] = []
        self.recordings: list[RecordingFolder] = []
        self.kept_out: set[str] = set()
        self.ignored: list[str] = []
        self.notes: list[str] = []
        self._unnamed: dict[KeptOut, tuple[int, int]] = {}
        """Folders that stand for files which are not published: how many, and their bytes."""

    def enter(self, folder: Folder, ignored: list[tuple[str, Ignored]]) -> None:
        """Enter the folder, then the folders in it."""
        files, folders = self._entries(folder)
        if folder.parent is not None:
            folder.root = _root_of(folder, files, folders)
        at_root = folder.root.path == folder.path
        if at_root and IGNORE_FILE in files and (rules := self._ignore_rules(folder.below(IGNORE_FILE))):
            ignored = [*ignored, (folder.path, rules)]
        self.folders.append(folder)
        for name in files:
            self._take(folder, name, ignored)
        for name in folders:
            path = folder.below(name)
            kept_out = _kept_out(folder, name, at_root)
            shut = kept_out is not None and kept_out is not folder.kept_out and not kept_out.texts
            if kept_out and shut and not self.choice.reaches(path):
                self._leave_all(kept_out)
            elif recording_folder(name) and not kept_out:
                self.recordings.append(self._recording(folder, name, ignored))
            else:
                self.enter(Folder(path, folder.root, folder, kept_out=kept_out), ignored)

    def all_left_out(self) -> list[LeftOut]:
        """Return what was left out, once the walk is at its end."""
        return [*self.left_out, *(_folder_entry(*one) for one in self._unnamed.items())]

    def _take(self, folder: Folder, name: str, ignored: list[tuple[str, Ignored]]) -> None:
        """Index a file, or leave it out."""
        path, kept_out = folder.below(name), folder.kept_out
        hidden = name.startswith(".") and not (name == IGNORE_FILE and folder.path == folder.root.path)
        self.choice.see(path)
        if hidden and not self.choice.brings_back(path, hidden=True):
            self._leave_unnamed(kept_out if kept_out and kept_out.unnamed else _hidden_in(folder.path), path)
        elif kept_out and not (hidden or kept_out.texts or self.choice.brings_back(path, kept_out.hidden)):
            self._leave_kept_out(kept_out, path)
        elif _is_not_utf8(path):
            self._leave(path, NOT_UTF8)
        elif self.choice.leaves_out(path):
            self._leave(path, EXCLUDED)
        elif kept_out and kept_out.texts and not (hidden or self.choice.brings_back(path, kept_out.hidden)):
            folder.loose.append(name)
            self._note_ignored(path, ignored)
        else:
            folder.files.append(name)
            self._note_ignored(path, ignored)
            return
        if looks_like_row(name):
            self.kept_out.add(path)

    def _note_ignored(self, path: str, ignored: list[tuple[str, Ignored]]) -> None:
        if any(rules.has(path[len(root) + 1 :] if root else path) for root, rules in ignored):
            self.ignored.append(path)

    def _leave(self, path: str, reason: str, kind: str = "", what: What | None = None) -> None:
        self.left_out.append(left_out(self.source, path, reason, kind, what))

    def _leave_unnamed(self, kept_out: KeptOut, path: str) -> None:
        """Leave out a file for which its folder stands.

        Bytes of hidden files are not added up: programs write them all the time, and that is no news.
        """
        files, size = self._unnamed.get(kept_out, (0, 0))
        more = 0 if kept_out.hidden else content_size(f"{self.source}/{path}") or 0
        self._unnamed[kept_out] = files + 1, size + more

    def _leave_kept_out(self, kept_out: KeptOut, path: str) -> None:
        """Leave out a file of a folder that is not published."""
        if kept_out.unnamed:
            self._leave_unnamed(kept_out, path)
        else:
            self._leave(path, NOT_UTF8 if _is_not_utf8(path) else kept_out.reason)

    def _leave_all(self, kept_out: KeptOut) -> None:
        """Leave out a folder with all that is in it."""
        if kept_out.hidden:
            self.left_out.append(_hidden_folder(kept_out.path))
            return
        for path in self._below(kept_out.path, kept_out):
            self._leave_kept_out(kept_out, path)

    def _recording(self, folder: Folder, name: str, ignored: list[tuple[str, Ignored]]) -> RecordingFolder:
        """Index the files of a recording that is a folder."""
        found = RecordingFolder(folder, name)
        for path in self._below(folder.below(name)):
            if _is_not_utf8(path):
                self._leave(path, NOT_UTF8, what="recording")
            elif self.choice.leaves_out(path):
                self._leave(path, EXCLUDED, what="recording")
            elif not os.path.isfile(f"{self.source}/{path}") and os.path.exists(f"{self.source}/{path}"):  # noqa: PTH110, PTH113 - a zarr has thousands
                self._leave(path, SPECIAL, what="recording")
            else:
                found.files.append(path)
                self._note_ignored(path, ignored)
        return found

    def _below(self, top: str, kept_out: KeptOut | None = None) -> Iterator[str]:
        """Yield the files below a folder that is not indexed, sorted. Folders stand for the hidden ones."""
        unnamed = kept_out if kept_out and kept_out.unnamed else None
        for at, folders, files in os.walk(f"{self.source}/{top}"):
            folder = at[len(self.source) + 1 :]
            if not unnamed:
                self.left_out += [_hidden_folder(f"{folder}/{name}") for name in folders if name.startswith(".")]
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(files):
                path = f"{folder}/{name}"
                self.choice.see(path)
                if name.startswith(".") and name not in ZARR_METADATA:
                    self._leave_unnamed(unnamed or _hidden_in(folder), path)
                else:
                    yield path

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
                    if looks_like_row(entry.name):
                        self.kept_out.add(folder.below(entry.name))
                    if not _is_folder(entry):
                        self.left_out.append(LeftOut(folder.below(entry.name), what_it_is(entry.name), SPECIAL))
                    elif entry.is_symlink() and _leads_back(entry.path, top):
                        self.left_out.append(LeftOut(folder.below(entry.name), "other", LOOPS))
                    else:
                        folders.append(entry.name)
        except OSError as error:
            raise UnreadableFolder(
                f"the folder {top} cannot be listed ({error.strerror}). Nothing is published from a tree that can "
                "only be seen in part: give the worker's user the right to read and enter it, or move it "
                "out of the dataset."
            ) from error
        return sorted(files), sorted(folders)

    def _ignore_rules(self, path: str) -> Ignored | None:
        """Return the rules of a .bidsignore, or None if they cannot be read. That is noted."""
        try:
            data = Path(self.source, path).read_bytes()
            require_fetched(data)
            return Ignored(decode(data).splitlines())
        except (OSError, ValueError, re.error) as error:
            reason = unfetched(error) if isinstance(error, FileNotFoundError) else str(error)
            self.notes.append(f"{path} cannot be read ({reason}), so the files that it names are not counted here.")
            return None


def _kept_out(folder: Folder, name: str, at_root: bool) -> KeptOut | None:
    """Return why a folder in this one is not published, or None if it is."""
    path = folder.below(name)
    if name.startswith("."):
        return _hidden_in(path)
    if folder.kept_out is None and at_root and name in OUTSIDE:
        return KeptOut(path, f"in {name}/", unnamed=name == SOURCEDATA, texts=name != SOURCEDATA)
    return folder.kept_out


def _hidden_in(folder: str) -> KeptOut:
    """Return that the hidden files of a folder are not published."""
    return KeptOut(folder, "hidden", hidden=True, unnamed=True)


def _hidden_folder(path: str) -> LeftOut:
    """Return the entry of a hidden folder.

    Nothing in it is counted, because git writes to its folder with each command.
    """
    return LeftOut(f"{path}/", "other", HIDDEN_FOLDER, HIDDEN)


def _folder_entry(kept_out: KeptOut, counts: tuple[int, int]) -> LeftOut:
    """Return the entry of a folder that stands for files, with their number and bytes."""
    files, size = counts
    path, kind = f"{kept_out.path or '.'}/", HIDDEN if kept_out.hidden else ""
    return LeftOut(path, "other", kept_out.reason, kind, None if kept_out.hidden else size, files, counted=True)


def _is_not_utf8(path: str) -> bool:
    return not path.isascii() and any("\ud800" <= character <= "\udfff" for character in path)


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
    if folder.kept_out and folder.kept_out.path == folder.path:
        return _nested(folder.path, marked=True)
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
