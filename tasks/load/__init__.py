"""Load: turns a folder into a `Dataset`, with all of its files and, for images and recordings, what describes them.

How it works:

1. `tree` walks the folder once, sets aside hidden files, those outside of the dataset proper and what the operator
   excludes (`exclude_include`), and finds the roots of derivatives and nested datasets.
2. `tables` reads participants, sessions and scans.
3. `texts` reads the small files that are published as they are, those of `code` and `stimuli` among them. `rows` says
   what any other file is: an image, a recording, a file beside them (a sidecar, a table, ...), or something that is not
   published as a row.
4. `sidecars` gives each of them its metadata by the inheritance principle; `annex` gives it its key, size and time.
5. Every file is accounted for: it is a row, is carried as a text, or stands in `unpublished` with the reason. At the
   end all folders are listed once more. They must hold exactly the images and recordings that were accounted for.

A recording that is a folder has a row for each of its files, and what describes it stands in the first of them.

No image and no recording is opened. bids2table parses the names. Its index is not used, because it gives no rows for a
root with a dot in its name, and reads a damaged sidecar as an empty one.
"""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.logging import get_run_logger

from tasks.bids.annex import require_fetched, unfetched
from tasks.bids.names import Name, parse
from tasks.bids.not_fetched import absent
from tasks.bids.text import NotText, decode, from_json
from tasks.load.annex import file_facts
from tasks.load.errors import (
    EmptyDataset,
    IncompleteIndex,
    NotABidsDataset,
    UnreadableFolder,
    UnreadableSidecar,
    UnreadableTable,
    listed,
)
from tasks.load.exclude_include import Choice
from tasks.load.rows import NOBODYS, Place, place, place_all_the_same, place_of_other, why_not
from tasks.load.sidecars import EVENT_SUFFIXES, SIDECAR_EXTENSIONS, Sidecars
from tasks.load.stimuli import left_out_stimuli
from tasks.load.tables import PARTICIPANTS, Tables, some_of
from tasks.load.texts import (
    NO_TEXT,
    TAKEN,
    TOO_LARGE,
    TRANSFORMS,
    in_large_folders,
    is_text,
    is_transform,
    read_loose,
    read_text,
)
from tasks.load.tree import (
    DESCRIPTION,
    RAW,
    Folder,
    RecordingFolder,
    is_subject_folder,
    left_out,
    looks_like_row,
    walk,
)
from tasks.values.format import number
from tasks.values.kinds import Kind, counted, in_recording_folder, is_image, kind_of
from tasks.values.left_out import NO_TEXT_THERE, UNREADABLE, What, by_kind, images_by_folder, in_order
from tasks.values.models import Dataset, Image, undescribed
from tasks.values.our_paths import is_reserved

__all__ = [
    "EmptyDataset",
    "IncompleteIndex",
    "NotABidsDataset",
    "UnreadableFolder",
    "UnreadableSidecar",
    "UnreadableTable",
    "load",
    "load_dataset",
]


def load(source: Path, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> Dataset:
    """Load the BIDS dataset at `source`, raw data and derivatives, without opening an image or a recording.

    A file that was not fetched from git-annex or git LFS is loaded with the size that its key or pointer states. Only
    its own shard fails, when it is staged.

    Args:
        source: the root of the tree.
        exclude: patterns of files that are not to be published, as .gitignore has them, relative to `source`.
        include: patterns of files that are to be published although they are hidden, outside the dataset proper, or
            named by `exclude`.

    Raises:
        BadInput: a pattern cannot be read.
        NotABidsDataset: there is no such folder, or no dataset_description.json in it.
        EmptyDataset: there is no file in it that would be a row, or sidecars alone.
        UnreadableFolder: a folder cannot be listed.
        UnreadableSidecar: a sidecar that applies to an image cannot be read, or is no JSON object.
        UnreadableTable: participants.tsv, a sessions table or a scans table is not fetched or cannot be opened.
        IncompleteIndex: the tree holds other images or recordings than the index: it changed while it was read.
    """
    choice = Choice(exclude, include)
    source = Path(os.path.abspath(source))  # noqa: PTH100 - resolve() would leave the tree through a linked root
    description = _description(source)
    derivative = description.get("DatasetType") == "derivative"
    name = str(description.get("Name") or "").strip() or source.name
    return _Loader(source, name, description, derivative, choice).dataset()


def _description(source: Path) -> dict[str, object]:
    """Return dataset_description.json, which makes a folder a BIDS dataset.

    Raises:
        NotABidsDataset: there is none.
        UnreadableSidecar: it cannot be read.
    """
    if not source.is_dir():
        what = "is not a folder" if source.exists() else "does not exist"
        raise NotABidsDataset(
            f"{source} {what}. If its disk is not mounted, mount it. Else give the folder that holds {DESCRIPTION}."
        )
    path = source / DESCRIPTION
    if not os.path.lexists(path):
        raise NotABidsDataset(_without_description(source))
    try:
        data = path.read_bytes()
        require_fetched(data)
        description = from_json(decode(data))
    except FileNotFoundError as error:
        raise UnreadableSidecar(f"{path} is {unfetched(error)}.") from error
    except (OSError, NotText, ValueError) as error:
        raise UnreadableSidecar(f"{path} cannot be read: {error}. Correct it: it must hold a JSON object.") from error
    if not isinstance(description, dict):
        raise UnreadableSidecar(f"{path} must hold a JSON object ({{...}}).")
    return description


def _without_description(source: Path) -> str:
    """Return what to tell a person whose folder has no dataset_description.json."""
    inner = sorted(path.parent.name for path in source.glob(f"*/{DESCRIPTION}"))
    if inner:
        return f"{source} is no BIDS dataset, but holds some: push one of them.{listed(inner)}"
    if any(is_subject_folder(path.name) for path in source.glob("sub-*")):
        return (
            f"{source} has subjects, but no {DESCRIPTION}, which BIDS requires. The least that will do: "
            '{"Name": "...", "BIDSVersion": "1.10.0", "License": "..."}. Write it there, and push again.'
        )
    return (
        f"{source} is no BIDS dataset: it has neither a {DESCRIPTION} nor a sub-* folder. A BIDS dataset has both, "
        "and its images in sub-<label>/[ses-<label>/]<datatype>/ (https://bids-specification.readthedocs.io). If its "
        "disk is not mounted, mount it."
    )


#: The columns of tables that are joined, by kind and suffix. What is recorded beside (`physio`, `stim`) has none.
COLUMNS_OF: Mapping[tuple[Kind, str], tuple[str, ...]] = {
    ("image", "asl"): ("aslcontext",),
    ("image", "m0scan"): ("aslcontext",),
    ("image", "pet"): ("blood",),
    **{
        ("recording", suffix): ("channels", "electrodes", "coordsystem")
        for suffix in ("eeg", "meg", "ieeg", "emg", "nirs", "motion")
    },
}


class _Loader:
    """The state of one load: the tree, and where each of its files has gone."""

    def __init__(
        self, source: Path, name: str, description: dict[str, object], derivative: bool, choice: Choice
    ) -> None:
        self.source, self.name, self.description, self.choice = source, name, description, choice
        self.root = str(source)
        self.tree = walk(source, name if derivative else RAW, derivative, choice)
        self.folders, self.left_out = self.tree.folders, self.tree.left_out
        self.tables = Tables(source, self.folders)
        self.sidecars = Sidecars(source, self.tree.ignored)
        self.texts: dict[str, bytes] = {}
        self.if_readable: set[str] = set()
        self.executable: set[str] = set()
        self.has_modes = not file_facts(f"{source}/{DESCRIPTION}", was_read=True).executable
        """Whether modes say anything here. On a disk without modes (FAT, NTFS, CIFS), each file is executable."""
        self.images: list[Image] = []
        self._ignored = frozenset(self.tree.ignored)
        self._pending: list[tuple[Folder, str, Name, Place, Kind]] = []
        self.files: list[Image] = []
        self._rest: dict[str, tuple[Folder, Name, str]] = {}
        """Files that are neither images nor recordings nor texts: path -> its folder, its name, and why it is no text
        although its place and its name are those of one.
        """
        self._not_rows = self.tree.kept_out

    def dataset(self) -> Dataset:
        """Go through all files, then through all images and recordings, and return the dataset."""
        for folder in self.folders:
            for name in folder.files:
                self._take(folder, name)
            for name in folder.loose:
                self._take_loose(folder, name)
        rows = [self._image(*pending) for pending in self._pending]
        for recording in self.tree.recordings:
            rows += self._parts(recording)
        self.images = sorted((*self.images, *rows), key=lambda image: image.path)
        texts_as_rows = self._thin_out()
        self._take_the_rest()
        self.sidecars.require_sound()
        self._require_complete()
        return Dataset(
            root=self.root,
            name=self.name,
            description=self.description,
            images=tuple(self.images),
            files=tuple(sorted(self.files, key=lambda file: file.path)),
            texts=self.texts,
            if_readable=frozenset(self.if_readable),
            texts_as_rows=texts_as_rows,
            executable=frozenset(self.executable) if self.has_modes else None,
            participants=tuple(self.tables.participants),
            sessions=tuple(self.tables.sessions),
            unpublished=in_order(self.left_out),
            notes=tuple(self._notes()),
            told=(*self.choice.told(), *self._empty(), *self._without_modes()),
        )

    def _take(self, folder: Folder, name: str) -> None:
        """Decide what a file is, and enter it there."""
        path = folder.below(name)
        parsed = parse(path[len(folder.root.path) :].lstrip("/"))
        if looks_like_row(name):
            kind: Kind = "image" if is_image(name) else "recording"
            where = place(folder, parsed, kind)
            if isinstance(where, Place):
                self._pending.append((folder, path, parsed, where, kind))
            elif self.choice.names(path):
                self.images.append(self._unnamed(folder, path, parsed, kind))
            else:
                self._leave(path, *why_not(kind, where))
                self._not_rows.add(path)
            return
        no_text = self._carry(path) if is_text(folder, name) else ""
        if parsed.extension in SIDECAR_EXTENSIONS and parsed.suffix:
            self.sidecars.add(folder, path, parsed)
        if path not in self.texts:
            self._rest[path] = folder, parsed, no_text

    def _take_loose(self, folder: Folder, name: str) -> None:
        """Take a file of `code` or `stimuli` that `include` does not name: a text, or a table too large to be one."""
        path, kept_out = folder.below(name), folder.kept_out
        assert kept_out is not None
        why = self._carry(path, read_loose)
        if not why:
            self.if_readable.add(path)
        elif why == TOO_LARGE and kind_of(path) == "table":
            parsed = parse(path[len(folder.root.path) :].lstrip("/"))
            self.files.append(self._file(folder, path, parsed, NOBODYS, "table"))
        else:
            reason = f"{kept_out.reason}: {NO_TEXT_THERE if why == NO_TEXT else why}"
            self._leave(path, reason, kept_out.reason)

    def _carry(self, path: str, read: Callable[[Path], bytes | str] = read_text) -> str:
        """Add a file to the texts, or return why it is not published as it is."""
        if is_reserved(path):
            return TAKEN
        data = read(self.source / path)
        if isinstance(data, str):
            return data
        self.texts[path] = data
        if file_facts(f"{self.root}/{path}", was_read=True).executable:
            self.executable.add(path)
        return ""

    def _thin_out(self) -> frozenset[str]:
        """Make rows of the texts of folders that have too many, and return them."""
        out = in_large_folders(self.texts.keys(), {folder.root.path for folder in self.folders if not folder.kept_out})
        by_path = {folder.path: folder for folder in self.folders} if out else {}
        for path in sorted(out):
            folder = by_path[path.rpartition("/")[0]]
            name = parse(path[len(folder.root.path) :].lstrip("/"))
            self.files.append(self._file(folder, path, name, NOBODYS, kind_of(path)))
            del self.texts[path]
        self.if_readable -= out
        self.executable -= out
        return frozenset(out)

    def _take_the_rest(self) -> None:
        """Make a row of each file that is neither an image nor a recording nor a text, or leave it out."""
        set_aside = self.sidecars.set_aside()
        for path, (folder, name, no_text) in self._rest.items():
            kind, wanted = kind_of(path), path in self.sidecars.used or self.choice.names(path)
            transform = name.suffix == "xfm" and name.extension in TRANSFORMS and is_transform(self.source / path)
            found = place_of_other(folder, name, kind, no_text, wanted, looked_through=transform)
            if path in set_aside:
                self._leave(path, UNREADABLE, name.kind)
            elif isinstance(found, str):
                self._leave(path, found, name.kind)
            else:
                self.files.append(self._file(folder, path, name, found, kind))

    def _file(self, folder: Folder, path: str, name: Name, where: Place, kind: Kind, **joined: Any) -> Image:
        """Return the row of a file, with what is joined to it by fields of its row: of most files nothing."""
        return Image(
            path=path,
            **self._facts(path, was_read=self.sidecars.was_read(path)),
            dataset=folder.root.name,
            sub=where.sub,
            ses=where.ses,
            datatype=name.datatype,
            suffix=name.suffix or "",
            entities=where.entities,
            extra_entities=where.extra_entities,
            kind=kind,
            **joined,
        )

    def _unnamed(self, folder: Folder, path: str, name: Name, kind: Kind) -> Image:
        """Return the row of an image or a recording that `include` names, and BIDS does not.

        It has no datatype and no suffix, so it is in no config but that of all images or recordings; and nothing is
        joined to it, since nobody can know what applies.
        """
        row = self._file(folder, path, name, place_all_the_same(folder, name), kind)
        return replace(row, datatype=None, suffix="")

    def _leave(self, path: str, reason: str, kind: str, what: What | None = None) -> None:
        self.left_out.append(left_out(self.root, path, reason, kind, what))

    def _parts(self, recording: RecordingFolder) -> list[Image]:
        """Return the rows of a recording that is a folder, one for each of its files."""
        folder, top = recording.parent, recording.parent.below(recording.name)
        name = parse(top[len(folder.root.path) :].lstrip("/"))
        where = place(folder, name, "recording")
        if not isinstance(where, Place):
            named = [path for path in recording.files if self.choice.names(path)]
            for path in sorted({*recording.files} - {*named}):
                self._leave(path, *why_not("recording", where), "recording")
            return [self._unnamed(folder, path, name, "recording") for path in named]
        if not recording.files:
            return []
        first = replace(self._image(folder, recording.files[0], name, where, "recording"), scan=self.tables.scan(top))
        bare = undescribed(first)
        return [first, *(self._of_file(bare, path) for path in recording.files[1:])]

    def _of_file(self, row: Image, path: str) -> Image:
        """Return the row of another file of the same recording."""
        return replace(row, path=path, **self._facts(path))

    def _facts(self, path: str, was_read: bool = False) -> dict[str, Any]:
        """Return what is known about a file without reading it, by fields of its row."""
        known = file_facts(f"{self.root}/{path}", was_read)._asdict()
        return known if self.has_modes else known | {"executable": None}

    def _image(self, folder: Folder, path: str, name: Name, where: Place, kind: Kind) -> Image:
        """Return the row of an image or a recording, with what describes it."""
        bval = self.sidecars.text(folder, name, ".bval")
        bvec = self.sidecars.text(folder, name, ".bvec")
        metadata, sidecars = self.sidecars.metadata(folder, name)
        events, events_metadata = self._events(folder, name)
        return self._file(
            folder,
            path,
            name,
            where,
            kind,
            metadata=metadata,
            sidecars=sidecars,
            bval=bval and bval[1],
            bvec=bvec and bvec[1],
            events=events,
            events_metadata=events_metadata,
            **self._tables(folder, name, kind),
            participant=self.tables.participant(folder.root, where.sub),
            session=self.tables.session(folder.root, where.sub, where.ses),
            scan=self.tables.scan(path),
        )

    def _tables(self, folder: Folder, name: Name, kind: Kind) -> dict[str, Any]:
        """Return the tables beside an image or a recording that apply to it, by column."""
        columns = COLUMNS_OF.get((kind, name.suffix or ""), ())
        return {column: self.sidecars.joined(folder, name, column) for column in columns}

    def _events(self, folder: Folder, name: Name) -> tuple[str | None, str | None]:
        """Return the events of a time series, and the description of their columns.

        The description comes from the sidecars of the events file itself.
        """
        found = self.sidecars.text(folder, name, ".tsv", "events") if name.suffix in EVENT_SUFFIXES else None
        if found is None:
            return None, None
        path, text = found
        at = folder
        while at.path != path.rpartition("/")[0] and at.parent is not None:
            at = at.parent
        return text, self.sidecars.metadata(at, parse(path[len(at.root.path) :].lstrip("/")))[0]

    def _require_complete(self) -> None:
        """Check that the tree holds exactly the images and recordings that are rows, or are listed as left out.

        Raises:
            EmptyDataset: there is no file to publish as a row, or there are sidecars alone, of files that are missing.
            IncompleteIndex: the tree holds others.
        """
        sidecars_alone = all(file.kind == "sidecar" for file in self.files) and not self.folders[0].root.derivative
        if not (self.images or self.files) or (not self.images and sidecars_alone):
            beside = [f"{number(len(self.files), 'sidecar')} of files that are not here"] if self.files else []
            kinds = [*beside, *(f"{count:,} {kind}" for kind, count in by_kind(self.left_out).items())]
            raise EmptyDataset(
                f"{self.source} is a BIDS dataset without an image, a recording or a table to publish (in a sub- "
                f"folder, named as BIDS says). If its disk is not mounted, mount it. What is in it:"
                f"{listed(kinds or ['nothing else'])}"
            )
        known = self._not_rows.union(image.path for image in self.images)
        known -= {image.path for image in self.images if in_recording_folder(image.path)}
        there = {folder.below(name) for folder in self.folders for name in self._rows_in(folder)}
        if there != known:
            lines = [f"{path}: {'new' if path in there else 'gone'}" for path in sorted(there ^ known)]
            raise IncompleteIndex(
                f"the images and recordings in {self.source} are not those that were indexed a moment ago, so "
                f"something writes to it:{listed(lines)}\nPush again when that has ended."
            )

    def _rows_in(self, folder: Folder) -> list[str]:
        """Return the names of the images and recordings that a folder holds now."""
        try:
            names = os.listdir(f"{self.root}/{folder.path}")  # noqa: PTH208 - pathlib doubles the cost
        except FileNotFoundError:
            return []
        return [name for name in names if looks_like_row(name)]

    def _notes(self) -> list[str]:
        """Return sentences that a person should know about this dataset."""
        notes = [*self.tree.notes, *self._named_in_bidsignore(), *self.tables.notes]
        if not self.images:
            notes.append(
                "There is neither an image nor a recording to publish: all rows are sidecars, tables and others."
            )
        subjects = {f"sub-{image.sub}" for image in self.images if image.sub is not None and image.dataset == RAW}
        if not any(PARTICIPANTS in folder.files for folder in self.folders if not folder.path):
            notes.append("There is no participants.tsv: the column `participant` is empty.")
        elif (unknown := subjects - self.tables.subjects) and PARTICIPANTS in self.tables.used:
            notes.append(
                f"participants.tsv has no row for {len(unknown)} of {len(subjects)} subjects: {some_of(unknown)}."
            )
        if set_aside := self.sidecars.set_aside():
            notes.append(
                f"Sidecars that .bidsignore names and that cannot be read: {len(set_aside)} ({some_of(set_aside)}). "
                "Their images are published without that metadata."
            )
        if self.sidecars.preferred:
            notes.append(
                f"Sidecars that are not the only one at their level: {len(self.sidecars.preferred)}. Each image has "
                "the metadata of the one whose name says most about it."
            )
        if unjoined := self.sidecars.several:
            notes.append(
                f"Several files that say the same of one recording or image, for example electrodes in two spaces: "
                f"{some_of(unjoined)}. Nobody can know which of them is meant, so their column is empty there."
            )
        if several := self.sidecars.ambiguous:
            notes.append(
                f"Sidecars of which nobody can know which one is meant: {some_of(several)}. BIDS allows one at a "
                "level; the images there have the metadata of neither."
            )
        return notes + left_out_stimuli((image.events for image in self.images), self.left_out)

    def _empty(self) -> list[str]:
        """Return a sentence about files that are empty, which staging refuses, or none."""
        empty = [
            image.path
            for image in self.images
            if image.fetched and not image.size and not in_recording_folder(image.path)
        ]
        if not empty:
            return []
        return [
            f"Empty, so that the shards they are in fail: {number(len(empty), 'file')} ({some_of(empty)}). Restore "
            "them, or name them in `exclude`."
        ]

    def _without_modes(self) -> list[str]:
        """Return a sentence if the modes of the files say nothing, or none."""
        if self.has_modes:
            return []
        return [
            f"Which files are programs cannot be told here, and is left as it is published: by its mode even "
            f"{DESCRIPTION} is one, as on a disk without modes (FAT, NTFS, CIFS). If the disk has modes, take its "
            "executable bit away (chmod -x)."
        ]

    def _named_in_bidsignore(self) -> list[str]:
        """Return a sentence about the files that are published although a .bidsignore names them, or none."""
        images = self._ignored.intersection(image.path for image in self.images)
        others = self._ignored.intersection((*self.texts, *(file.path for file in self.files)))
        if not (images or others):
            return []
        return [
            f"Published although .bidsignore names them, which only keeps the validator from looking at them: "
            f"{counted((*images, *others))} ({some_of(images or others)}). To leave files out, name them in `exclude`."
        ]


@task(name="load", task_run_name="load the dataset", cache_policy=NO_CACHE, persist_result=False)
def load_dataset(source: Path, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> Dataset:
    """Do `load` as a task, and log what was found and what is left out: images first, by their folders."""
    dataset = load(source, exclude, include)
    log = get_run_logger()
    log.info("%s: %s in %s.", dataset.name, counted(row.path for row in dataset.rows), dataset.root)
    for (reason, folder), count in images_by_folder(dataset.unpublished).items():
        log.warning("Left out of %s: %s: %s", folder, number(count, "image"), reason)
    for kind, count in by_kind(one for one in dataset.unpublished if one.what != "image").items():
        log.warning("Left out: %s: %s", number(count, "file"), kind)
    for sentence in (*dataset.notes, *dataset.told):
        log.warning("%s", sentence)
    if not_here := absent(dataset.rows, source):
        log.warning("%s", not_here)
    return dataset
