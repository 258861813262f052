"""What is published: every image, recording and other file that the repo serves, counted from the record.

So the card is true for a dataset that is half published, and for one that lacks files which the repo still serves.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from tasks.bids.names import folder_label, parse
from tasks.values.format import number
from tasks.values.kinds import Kind, is_data, kind_of, recording_of
from tasks.values.models import ENTITIES, Dataset, Image, ImageContent, PublicationRecord

#: A part of a recording that is too long for one file (BIDS specification, appendix "Entities", `split`).
_SPLIT = re.compile(r"_split-[A-Za-z0-9]+")
#: Files of a recording's name that hold none: they calibrate a MEG (BIDS specification, "Magnetoencephalography").
_CALIBRATION = re.compile(r"_acq-(?:calibration|crosstalk)_meg\.[A-Za-z0-9]+$")


@dataclass(frozen=True, slots=True)
class Counts:
    """The numbers of a set of rows. `size` is bytes."""

    images: int
    recordings: int
    files: int
    """The files that the recordings consist of, and those that calibrate a MEG."""
    subjects: int
    sessions: int
    size: int

    def in_words(self) -> str:
        """Return how many images and recordings these are: `3 images and 12 recordings in 36 files`."""
        recordings = number(self.recordings, "recording")
        if self.files != self.recordings:
            recordings += f" in {number(self.files, 'file')}"
        if not self.files:
            return number(self.images, "image")
        return f"{number(self.images, 'image')} and {recordings}" if self.images else recordings


@dataclass(frozen=True, slots=True, order=True)
class Group:
    """Rows of one kind, datatype ("" for none) and suffix. Images come before recordings."""

    kind: Kind
    datatype: str
    suffix: str

    @property
    def name(self) -> str:
        """Its datatype and suffix in one word: `anat_T1w`."""
        return f"{self.datatype}_{self.suffix}"


@dataclass(frozen=True)
class PublishedRows:
    """The images and the files of recordings that are on the Hub, sorted by path."""

    rows: tuple[Image, ...]
    sizes: Mapping[str, int]
    """Their bytes as they were embedded, by path, in the order in which the repo serves them."""
    planned: int
    """The number of images and files of recordings of the dataset, on the Hub or not."""
    kept: int = 0
    """How many of `rows` the dataset no longer has: nobody has approved that they are removed from the Hub."""
    nifti2: frozenset[str] = frozenset()
    """The paths of the images in NIfTI-2."""
    beside: Mapping[str, int] = field(default_factory=dict)
    """The bytes of the files beside them that are on the Hub, by path, in the order in which the repo serves them."""
    beside_planned: int = 0
    """The number of files beside them of the dataset, on the Hub or not."""
    beside_kept: int = 0
    """How many of `beside` the dataset no longer has."""
    word: str = "image"
    """What a row is called, here and in the dataset: an image, or a file if there are recordings."""

    @classmethod
    def of(cls, dataset: Dataset, record: PublicationRecord) -> "PublishedRows":
        """Return the rows that are in the record, those that the dataset no longer has included."""
        contents: dict[str, ImageContent] = {}
        beside: dict[str, int] = {}
        for content in (content for path in sorted(record.shards) for content in record.shards[path].images):
            if is_data(content.path):
                contents[content.path] = content
            else:
                beside[content.path] = content.size
        here = [image for image in dataset.images if image.path in contents]
        lacking = contents.keys() - {image.path for image in here}
        kept = [_from_its_path(contents[path], dataset) for path in lacking]
        rows = tuple(sorted((*here, *kept), key=lambda image: image.path))
        return cls(
            rows=rows,
            sizes={path: content.size for path, content in contents.items()},
            planned=len(dataset.images),
            kept=len(kept),
            nifti2=frozenset(path for path, content in contents.items() if content.nifti == 2),
            beside=beside,
            beside_planned=len(dataset.files),
            beside_kept=len(beside.keys() - {file.path for file in dataset.files}),
            word="image" if all(row.kind == "image" for row in (*rows, *dataset.images)) else "file",
        )

    @property
    def missing(self) -> int:
        """The number of images and files of recordings of the dataset that are not on the Hub yet."""
        return self.planned - (len(self.rows) - self.kept)

    @property
    def beside_missing(self) -> int:
        """The number of files beside them of the dataset that are not on the Hub yet."""
        return self.beside_planned - (len(self.beside) - self.beside_kept)

    @property
    def size(self) -> int:
        """The bytes of all files that the repo serves."""
        return sum(self.sizes.values()) + sum(self.beside.values())

    @property
    def images(self) -> list[Image]:
        """The images alone."""
        return [row for row in self.rows if row.kind == "image"]

    def count(self, rows: Sequence[Image] | None = None) -> Counts:
        """Count these rows, or all."""
        rows = self.rows if rows is None else rows
        files = [row.path for row in rows if row.kind == "recording"]
        return Counts(
            images=len(rows) - len(files),
            recordings=len({recording_name(path) for path in files if not _CALIBRATION.search(path)}),
            files=len(files),
            subjects=len({row.sub for row in rows if row.sub is not None}),
            sessions=len({(row.sub, row.ses) for row in rows if row.ses is not None}),
            size=sum(self.sizes[row.path] for row in rows),
        )

    @cached_property
    def groups(self) -> dict[Group, list[Image]]:
        """The rows by kind, datatype and suffix, in the order of these."""
        found: dict[Group, list[Image]] = defaultdict(list)
        for row in self.rows:
            found[Group(row.kind, row.datatype or "", row.suffix)].append(row)
        return dict(sorted(found.items()))

    def first_served(self, rows: Iterable[Image]) -> str:
        """Return the path of the row among these that a reader of all shards meets first."""
        paths = {row.path for row in rows}
        return next(path for path in self.sizes if path in paths)

    @cached_property
    def configs(self) -> dict[Group, str]:
        """The name of the config of each group that has a datatype.

        Images and recordings may share datatype and suffix (microscopy as NIfTI and as TIFF): then the images keep the
        name, and the recordings are told apart by another word.
        """
        named = [group for group in self.groups if group.datatype]
        times = Counter(group.name for group in named)
        return {
            group: f"{group.name}_recordings" if group.kind == "recording" and times[group.name] > 1 else group.name
            for group in named
        }


def recording_name(path: str) -> str:
    """Return what all files of one recording have in common: their path without its extension, and without `split`.

    The three files of BrainVision are one recording, and so are all files of a CTF folder.
    """
    top = recording_of(path)
    dot = top.find(".", max(top.rfind("/"), top.rfind("_")) + 1)
    folder, slash, name = (top[:dot] if dot >= 0 else top).rpartition("/")
    return folder + slash + _SPLIT.sub("", name)


def _from_its_path(content: ImageContent, dataset: Dataset) -> Image:
    """Return an image or a file of a recording that the dataset no longer has, as far as its path says what it is.

    The path is the record's, and anybody may have written that: it is read as a name and never opened.
    """
    derivative, path = _place(content.path)
    name = parse(recording_of(path))
    folders = path.split("/")[:-1]
    raw = next((one.dataset for one in dataset.images if _place(one.path)[0] is None), "raw")
    return Image(
        path=content.path,
        size=content.size,
        mtime_ns=0,
        dataset=derivative or raw,
        sub=name.entities.get("sub") or folder_label(folders, "sub"),
        ses=name.entities.get("ses") or folder_label(folders, "ses"),
        datatype=name.datatype if name.suffix else None,
        suffix=name.suffix or "",
        entities={key: value for key, value in name.entities.items() if key in ENTITIES and value},
        kind=kind_of(content.path),
    )


def _place(path: str) -> tuple[str | None, str]:
    """Return the derivative that a path belongs to, or None, and the path within it."""
    found = re.fullmatch(r"derivatives/([^/]+)/(.+)", path, re.DOTALL)
    return (found[1], found[2]) if found else (None, path)
