"""The inheritance principle (BIDS specification, "Common principles", "The Inheritance Principle").

A metadata file applies to an image if it lies in the image's folder or in one above it within the same dataset, has the
image's suffix, and names only entities that the image has with the same value. All JSON files that apply are merged
from the top down. Of bval, bvec and events.tsv files only the nearest counts.

BIDS allows one file of a level to apply, and there are datasets with several. Then the one with the image's own name is
meant; the official validator takes it so. fMRIPrep writes a complete sidecar for each image, and
`desc-preproc_T1w.json` beside `space-MNI_desc-preproc_T1w.json` is not meant for the image in MNI space. Where none has
the image's name, it is the one that names all entities that the others name. If there is no such file either, nobody
can know which is meant, so none is taken. Both cases are noted.

If many sidecars lie in one folder, they are looked up, and not tried one by one. The sidecars of a folder are grouped
by the entities that they name, and an image's own entities say which one of each group can apply.
"""

import shlex
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from tasks.bids.annex import NOT_IN_ANNEX, require_fetched, unfetched
from tasks.bids.names import Name, parse
from tasks.bids.text import NotText, decode, from_json, to_json
from tasks.load.errors import UnreadableSidecar, listed
from tasks.load.tree import Folder

SIDECAR_EXTENSIONS = (".json", ".tsv", ".bval", ".bvec")
KEPT = 256  # sidecars kept parsed: those of the levels above are used again and again, those beside an image once

#: Images that events are about: time series of a task (BIDS specification, "Task events": func, pet and mrs files).
EVENT_SUFFIXES = frozenset(
    ("bold", "cbv", "phase", "pet", "svs", "mrsi", "unloc", "eeg", "meg", "ieeg", "emg", "nirs", "motion")
)
#: The files that are joined as a column of their name, their extensions, and the entities in their names that the file
#: they are about does not have: the space of electrodes, the recording of blood samples (BIDS specification,
#: "Electrodes description", "Coordinate system JSON", "Blood recording data").
JOINED: Mapping[str, tuple[str, frozenset[str]]] = {
    "aslcontext": (".tsv", frozenset()),
    "blood": (".tsv", frozenset(("recording",))),
    "channels": (".tsv", frozenset()),
    "electrodes": (".tsv", frozenset(("space",))),
    "coordsystem": (".json", frozenset(("space",))),
}

_Level = dict[tuple[str, ...], dict[tuple[str, ...], list[str]]]


class Sidecars:
    """All metadata files of the tree. They are found by the image that they apply to, and read when they are needed."""

    def __init__(self, source: Path, ignored: Collection[str] = ()) -> None:
        """Begin without a file.

        Args:
            source: the root of the tree.
            ignored: files that a .bidsignore names. One of them that cannot be read costs its own metadata alone.
        """
        self._root = str(source)
        self._ignored = frozenset(ignored)
        self.used: set[str] = set()
        """Files of which the content is in a row."""
        self.unreadable: dict[str, str] = {}
        self.ambiguous: dict[str, None] = {}
        """Sidecars of one level of which none is meant, as a text."""
        self.several: dict[str, None] = {}
        """Files of which none is joined as a column, since nobody can know which one is meant, as a text."""
        self.preferred: set[str] = set()
        """Sidecars that are meant, and are not the only ones at their level."""
        self._levels: dict[str, dict[tuple[str, str], _Level]] = {}
        self._parsed = lru_cache(maxsize=KEPT)(self._parse)
        self._text = lru_cache(maxsize=KEPT)(self._read)

    def add(self, folder: Folder, path: str, name: Name) -> None:
        """Enter a metadata file of a folder."""
        keys = tuple(sorted(name.entities))
        of_folder = self._levels.setdefault(folder.path, {})
        level = of_folder.setdefault((name.suffix or "", name.extension), defaultdict(dict))
        level[keys].setdefault(tuple(map(name.entities.__getitem__, keys)), []).append(path)

    def metadata(self, folder: Folder, name: Name) -> tuple[str | None, tuple[str, ...]]:
        """Return the merged JSON sidecars of an image, and their paths, the nearest first.

        Keys are sorted, so that it does not matter which file a key is in.
        """
        paths = tuple(self._applicable(folder, name, name.suffix or "", ".json"))
        if not paths:
            return None, ()
        merged = self._parsed(paths[-1])
        for path in reversed(paths[:-1]):
            merged = merged | self._parsed(path)
        try:
            return to_json(dict(sorted(merged.items()))), paths
        except ValueError:
            self.unreadable[paths[0]] = "a number in it is too large for JSON"
            return None, paths

    def text(self, folder: Folder, name: Name, extension: str, suffix: str | None = None) -> tuple[str, str] | None:
        """Return the path and the text of an image's nearest metadata file with this extension, or None.

        The text is empty if the file cannot be read; `require_sound` then says why.
        """
        path = next(self._applicable(folder, name, suffix or name.suffix or "", extension), None)
        if path is None:
            return None
        text = self._text(path)
        return None if text is None and path in self._ignored else (path, text or "")

    def joined(self, folder: Folder, name: Name, suffix: str) -> str | None:
        """Return the text of the file with this suffix that is joined to an image or a recording, or None.

        If several are about it, for example electrodes in two spaces, it is the one whose name says least. If there is
        none such, nobody can know which one is meant; it is noted.
        """
        extension, ignoring = JOINED[suffix]
        at: Folder | None = folder
        while at is not None and at.root is folder.root:
            level = self._levels.get(at.path, {}).get((suffix, extension))
            found = _matching(level, name.entities, ignoring) if level else []
            if found:
                return self._joined(found, extension)
            at = at.parent
        return None

    def _joined(self, found: Sequence[str], extension: str) -> str | None:
        path = found[0] if len(found) == 1 else self._least(found)
        if path is None:
            self.several[" and ".join(sorted(found))] = None
            return None
        self.used.add(path)
        if extension == ".json":
            parsed = self._parsed(path)
            return to_json(parsed) if parsed else None
        return self._text(path)

    def _least(self, found: Sequence[str]) -> str | None:
        """Return the file whose name has the fewest entities, or None if several have."""
        named = {path: len(parse(path.rpartition("/")[2]).entities) for path in found}
        least = [path for path in found if named[path] == min(named.values())]
        return least[0] if len(least) == 1 else None

    def was_read(self, path: str) -> bool:
        """Return whether this file applies to an image or a recording, and could be read."""
        return path in self.used and path not in self.unreadable

    def set_aside(self) -> frozenset[str]:
        """Return the sidecars that apply, cannot be read, and are named by a .bidsignore."""
        return self._ignored.intersection(self.unreadable)

    def require_sound(self) -> None:
        """Check that every sidecar that applies could be read, or is named by a .bidsignore.

        Raises:
            UnreadableSidecar: one could not be read.
        """
        if damaged := self.unreadable.keys() - self._ignored:
            files = [f"{path}: {self.unreadable[path]}" for path in sorted(damaged)]
            annexed = [path for path in damaged if self.unreadable[path] == NOT_IN_ANNEX]
            raise UnreadableSidecar(
                f"{len(files)} sidecar(s) cannot be read, so the metadata of the images they apply to is not known:"
                f"{listed(files)}{_fetching(annexed)}\nCorrect them, or name them in `exclude` to publish the images "
                "without them."
            )

    def _applicable(self, folder: Folder, name: Name, suffix: str, extension: str) -> Iterator[str]:
        """Yield the metadata files that apply, the nearest first, and of each level one."""
        at: Folder | None = folder
        while at is not None and at.root is folder.root:
            levels = self._levels.get(at.path)
            level = levels.get((suffix, extension)) if levels else None
            if level:
                found = _matching(level, name.entities)
                taken = self._preferred(found) if len(found) > 1 else found
                self.used.update(taken)
                yield from taken
            at = at.parent

    def _preferred(self, found: Sequence[str]) -> Sequence[str]:
        """Return the one of several files of a level that is meant, or none.

        All of them apply to the image, so a file with the image's own name has every entity that any of them has.
        """
        named = {path: parse(path.rpartition("/")[2]).entities.keys() for path in found}
        every = set().union(*named.values())
        meant = [path for path, names in named.items() if names == every]
        if len(meant) == 1:
            self.preferred.add(meant[0])
            return meant
        self.ambiguous[" and ".join(sorted(found))] = None
        return ()

    def _parse(self, path: str) -> dict[str, object]:
        text = self._read(path)
        if text is None:
            return {}
        try:
            value = from_json(text)
        except ValueError as error:
            self.unreadable[path] = f"not JSON: {error}"
            return {}
        if not isinstance(value, dict):
            self.unreadable[path] = "not a JSON object ({...})"
            return {}
        return value

    def _read(self, path: str) -> str | None:
        try:
            with open(f"{self._root}/{path}", "rb") as stream:  # noqa: PTH123 - thousands: pathlib costs half as much
                data = stream.read()
            require_fetched(data)
            return decode(data)
        except FileNotFoundError as error:
            self.unreadable[path] = unfetched(error)
        except OSError as error:
            self.unreadable[path] = error.strerror or str(error)
        except NotText as error:
            self.unreadable[path] = str(error)
        return None


def _fetching(paths: Iterable[str]) -> str:
    """Return the one command that fetches these files from git-annex.

    It fetches no image or recording, and is empty if there are no files.
    """
    endings = sorted({f"*{path[max(path.rfind('_'), path.rfind('/') + 1) :]}" for path in paths})
    if not endings:
        return ""
    every = " --or ".join(f"--include={shlex.quote(ending)}" for ending in endings)
    return f"\nIn the dataset's folder, `git annex get {every}` fetches all that git-annex has not."


def _matching(level: _Level, entities: Mapping[str, str], ignoring: Collection[str] = ()) -> list[str]:
    """Return the files of one level that name only entities which the image has with the same value.

    Args:
        level: the files.
        entities: those of the image.
        ignoring: entities that a file may name whatever the image has.
    """
    found: list[str] = []
    for keys, files in level.items():
        if not any(key in ignoring for key in keys):
            if all(key in entities for key in keys):
                found += files.get(tuple(entities[key] for key in keys), ())
            continue
        for values, paths in files.items():
            named = zip(keys, values, strict=True)
            if all(key in ignoring or entities.get(key) == value for key, value in named):
                found += paths
    return found
