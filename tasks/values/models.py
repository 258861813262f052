"""The values that pass between the stages.

What this process makes itself, and trusts, is a frozen dataclass: an `Image`, a `Dataset`, a `ShardSpec`. What is read
back from a disk or from the Hub may be damaged, so it is a pydantic model: a `Receipt`, a `PublicationRecord`, a
`VerificationReport`.

Sizes are bytes. Digests are sha256 in lower-case hexadecimal. Paths are POSIX and relative: to the dataset's root, to
the repo, or to the target's staging folder, as each field says.
"""

import codecs
import hashlib
import io
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, Self

from huggingface_hub.utils.sha import git_hash
from pydantic import BaseModel, BeforeValidator, ConfigDict, FailFast, Field, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from tasks.values.kinds import Kind
from tasks.values.left_out import LeftOut, by_kind
from tasks.values.our_paths import is_hashed, is_shard, is_text

#: Goes into every digest. It is raised when bids-push itself changes what it writes, and never for an upgraded library.
LAYOUT_VERSION = 2
#: The layout of a repo with shards in hashed folders. The shards themselves are as before, so no digest has it. A
#: version that does not know such paths would take their lines for damaged ones; a newer layout stops it.
HASHED_FOLDERS = 3

#: The BIDS entities that have a column, in the order of the specification (appendix "Entities"), without `sub` and
#: `ses`. They are fixed here and not taken from a library, so that a newer BIDS schema does not change the published
#: schema. An entity that is not in this list is kept in `extra_entities`.
ENTITIES = (
    "tpl", "cohort", "sample", "task", "tracksys", "acq", "nuc", "voi", "ce", "trc", "stain", "rec", "dir", "run",
    "mod", "echo", "flip", "inv", "mt", "part", "proc", "hemi", "space", "split", "recording", "chunk", "atlas",
    "seg", "scale", "res", "den", "label", "desc",
)  # fmt: skip

#: The columns of texts that describe a row's file, in their order. Each is a field of `Image`.
DESCRIPTIONS = (
    "metadata", "bval", "bvec", "events", "events_metadata", "aslcontext", "blood", "channels", "electrodes",
    "coordsystem", "participant", "session", "scan",
)  # fmt: skip

#: The most bytes that a row takes besides its image and its texts, even with a row group of its own: page headers,
#: indexes, and its part of the footer.
ROW_OVERHEAD = 8 << 10

Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0, le=1 << 60)]
"""A number of bytes or rows. It is no larger than any disk holds, so that every format can write a sum of them."""
Verification = Literal["listing", "sample", "full"]
#: Earlier versions had "delete", which removed files unattended. Now a person is asked instead.
Removed = Annotated[
    Literal["keep", "ask", "ask again"], BeforeValidator(lambda value: "ask" if value == "delete" else value)
]
Gated = Literal["no", "auto", "manual"]
EXECUTABLE: Literal["755"] = "755"
#: A file's mode, as far as it is kept: what git keeps of one. Another value, of a newer version or by somebody's hand,
#: says nothing, and makes no line of the record unreadable.
Mode = Annotated[
    Literal["", "755"],
    BeforeValidator(lambda value: value if value == EXECUTABLE else ""),
    Field(exclude_if=lambda value: not value),
]


@dataclass(frozen=True, slots=True)
class Image:
    """One file of the dataset, most often an image: a row of the publication without the file's bytes.

    `path` is relative to the dataset's root, so the path of a derivative's image begins with `derivatives/`. Entities
    are text, never numbers: `run-01` is "01". JSON and TSV stay text, as they are in the source.
    """

    path: str
    size: int
    mtime_ns: int
    dataset: str
    """ "raw", or the name of the derivative's folder."""
    sub: str | None
    ses: str | None
    datatype: str | None
    suffix: str
    entities: Mapping[str, str] = field(default_factory=dict)
    extra_entities: Mapping[str, str] = field(default_factory=dict)
    annex_key: str | None = None
    """git-annex's name for the content, if the tree is an annex. `tasks.bids.annex` says which keys identify the
    content.
    """
    metadata: str | None = None
    """The sidecars that apply, merged by the inheritance principle: a JSON object as text."""
    bval: str | None = None
    bvec: str | None = None
    events: str | None = None
    """The events.tsv that applies, as text."""
    events_metadata: str | None = None
    aslcontext: str | None = None
    """Of perfusion images: the aslcontext.tsv that applies, as text."""
    blood: str | None = None
    """Of PET images: the blood.tsv that applies, as text."""
    channels: str | None = None
    """Of recordings: the channels.tsv that applies, as text."""
    electrodes: str | None = None
    """Of recordings: the electrodes.tsv that applies, as text."""
    coordsystem: str | None = None
    """Of recordings: the coordsystem.json that applies, a JSON object as text."""
    participant: str | None = None
    """This subject's row of participants.tsv: a JSON object as text. `n/a` is null, every other value is a string."""
    session: str | None = None
    scan: str | None = None
    sidecars: tuple[str, ...] = ()
    """The JSON files whose fields are in `metadata`, the nearest first. They tell people where a field stands, and are
    not published.
    """
    ctime_ns: int = 0
    inode: int = 0
    """With size, mtime and ctime, this shows whether anybody has written to the file (`tasks.disk.content_cache`). It
    is in no digest.
    """
    fetched: bool = True
    """Whether the content was on this machine when the dataset was loaded. It is in no digest."""
    executable: bool | None = False
    """Whether its owner may execute the file; None if nobody can know. It is in no digest: the record has it."""
    kind: Kind = "image"
    content: bytes | None = None
    """The bytes that are published instead of the file's, since fields were stripped from it. None: the file's own."""


def undescribed(image: Image) -> Image:
    """Return a row without the texts that describe its file."""
    texts: dict[str, Any] = dict.fromkeys(DESCRIPTIONS)
    return replace(image, sidecars=(), **texts)


@dataclass(frozen=True, slots=True)
class Dataset:
    """A BIDS dataset as loaded: every file that is published, and what describes the images and recordings."""

    root: str
    name: str
    description: Mapping[str, object]
    """dataset_description.json."""
    images: tuple[Image, ...]
    """Images and the files of recordings, sorted by path."""
    files: tuple[Image, ...] = ()
    """The other files that are rows, sorted by path: sidecars, tables, and more. None of the texts is among them."""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    """The dataset's own small files, published as they are under `bids/`: path in the dataset -> bytes."""
    if_readable: frozenset[str] = frozenset()
    """The texts of `code` and `stimuli` that nobody has named: one that cannot be read as what its name says is left
    out, and stops nothing.
    """
    texts_as_rows: frozenset[str] = frozenset()
    """Those of `files` that are texts, and would be published as such if their folder had fewer entries."""
    executable: frozenset[str] | None = frozenset()
    """The texts that their owner may execute; None if nobody can know, of the rows neither."""
    participants: tuple[Mapping[str, str | None], ...] = ()
    sessions: tuple[Mapping[str, str | None], ...] = ()
    unpublished: tuple[LeftOut, ...] = ()
    """Every file of the tree that is not published, with the reason: images first, then recordings, then the rest."""
    notes: tuple[str, ...] = ()
    """Sentences for a person to read before the dataset is published, for example that it has no participants.tsv."""
    told: tuple[str, ...] = ()
    """Sentences for the operator alone, for example that a pattern of `exclude` matches nothing."""

    @property
    def rows(self) -> tuple[Image, ...]:
        """All files that are rows."""
        return self.images + self.files

    @property
    def left_out(self) -> dict[str, int]:
        """What is not published: kind (a file extension or a reason) -> number of files."""
        return by_kind(self.unpublished)


@dataclass(frozen=True, slots=True)
class ShardSpec:
    """A shard to be made: its name, its images in the order of its rows, and the digest that decides its bytes."""

    name: str
    """For example `sub-M2001_ses-1253`. It stays the same when other shards come and go."""
    path: str
    """The path in the repo, for example `data/sub-M2001/sub-M2001_ses-1253.parquet`."""
    images: tuple[Image, ...]
    """Images and the files of recordings."""
    digest: str
    files: tuple[Image, ...] = ()
    """The files beside them."""

    @property
    def rows(self) -> tuple[Image, ...]:
        """All of its files, in the order of its rows."""
        return self.images + self.files

    @property
    def size(self) -> int:
        """The bytes of its files. The shard itself is a little larger."""
        return sum(image.size for image in self.rows)

    @property
    def room(self) -> int:
        """The most bytes that the shard and its receipt can take on the disk."""
        texts = sum(len(text) for image in self.rows for text in _texts(image) if text)
        return self.size + 4 * texts + ROW_OVERHEAD * (len(self.rows) + 1)


def _texts(image: Image) -> tuple[str | None, ...]:
    return (image.path, *(getattr(image, column) for column in DESCRIPTIONS))


class Value(BaseModel):
    """A frozen value that is read back from a disk or from the Hub.

    Unknown fields are ignored; a missing one is an error.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    def model_post_init(self, _: object) -> None:
        """Share the set of the fields' names that pydantic makes anew for each value.

        Of the values of 100,000 shards these sets are the larger half. A frozen value never changes its own, and a copy
        of it gets a copy of the set.
        """
        names = self.__pydantic_fields_set__
        object.__setattr__(self, "__pydantic_fields_set__", _NAMES.setdefault(frozenset(names), names))


PARTS = ConfigDict(extra="ignore")
"""Of small values of which others have very many: they are read and checked as any `Value`, and take a third of it."""

_NAMES: dict[frozenset[str], set[str]] = {}
"""The names of the fields that values were given, each combination once."""


@pydantic_dataclass(frozen=True, slots=True, config=PARTS)
class ImageContent:
    """The bytes that an image, or any other file that is a row, had when it was embedded."""

    path: str
    size: Count
    sha256: Sha256
    nifti: Literal[1, 2] = 1
    """The version of the NIfTI format. A record names it only if it is 2."""
    mode: Mode = ""
    """Its mode in the dataset, if it is executable. A record has it, and a receipt has not: it may change while the
    bytes stay.
    """


class PublishedShard(Value):
    """One line of the publication record: a shard, and the files in it, which are `images` whatever they are."""

    path: str
    digest: Sha256
    sha256: Sha256
    size: Count
    rows: Count
    images: Annotated[tuple[ImageContent, ...], FailFast()]

    def with_modes(self, executable: Collection[str]) -> Self:
        """Return the same line with these files executable, as far as it has them, and no others."""
        if all((image.path in executable) == bool(image.mode) for image in self.images):
            return self
        images = (replace(image, mode=EXECUTABLE if image.path in executable else "") for image in self.images)
        return self.model_copy(update={"images": tuple(images)})

    def same_but_modes(self, other: "PublishedShard | None") -> bool:
        """Return whether another line says the same, whatever the modes of the files are."""
        return other is not None and (self == other or self.with_modes(()) == other.with_modes(()))


@pydantic_dataclass(frozen=True, slots=True, config=PARTS)
class Identity:
    """A file as the kernel knows it.

    Another file has another identity, and so does the same file once somebody has written to it, because nobody can set
    a ctime.
    """

    inode: int
    size: int
    mtime_ns: int
    ctime_ns: int


class Receipt(PublishedShard):
    """The result of staging a shard: its line for the publication record, and where the staged file is.

    The receipt is written beside the shard, after it. So a shard without a receipt is an unfinished one.
    """

    name: str
    file: str
    """The path of the staged file, relative to the target's staging folder."""
    result: str = Field("", pattern=r"^(stage-\d+-[0-9a-f]{64})?$")
    """The file name of Prefect's result that also holds this receipt, in the folder of results. One result may hold
    several receipts. Cleanup removes it with the shard, so a receipt that names any other file there counts as damaged.
    """
    identity: Identity | None = None
    """The identity of the staged file right after it got its name. A file that still has it still has the bytes of this
    receipt. None in the receipts of older versions.
    """
    commit: str = Field("", pattern=r"^([0-9a-f]{40,64})?$")
    """The first commit of the target that is known to hold the shard as it is staged. This is no proof. It says at
    which commit to ask the Hub for one if the head has something else by then.
    """

    def line(self) -> PublishedShard:
        """Return the shard's line for the publication record."""
        values = {name: getattr(self, name) for name in PublishedShard.model_fields}  # they were checked as a receipt's
        return PublishedShard.model_construct(**values)

    def beside(self, line: PublishedShard | None) -> "Receipt":
        """Return the same receipt, which shares with an equal line what both say: half of what it takes in memory."""
        if line is None or any(getattr(self, name) != value for name, value in line):
            return self
        return Receipt.model_construct(**{**dict(self), **dict(line)})  # all of it was checked when it was read


class PublishedText(Value):
    """One of the dataset's own texts or tables, as it was published."""

    path: str
    """The path in the repo, for example `bids/README` or `tables/participants.parquet`."""
    size: Count
    sha256: Sha256
    mode: Mode = ""
    """Its mode in the dataset, if it is executable."""


class DatasetIdentity(Value):
    """The dataset that was published last. It shows a person when a different dataset is about to be published."""

    name: str
    doi: str = ""
    subjects: Count
    images: Count
    """The number of rows: images, and files of recordings."""
    size: Count
    """Bytes of the images and recordings."""
    recordings: Count = 0
    """The number of `images` that are files of recordings."""


class RecordIndex(Value):
    """The record's index, `bids/record/index.json` in the dataset repo: what the record says besides its lines."""

    layout: int = LAYOUT_VERSION
    """The newest layout that a shard of the repo was written with, or `HASHED_FOLDERS` if one lies in such a folder."""
    dataset: DatasetIdentity | None = None
    texts: tuple[PublishedText, ...] = ()
    """Sorted by path."""
    segments: tuple[str, ...] = ()
    """The files that the record's lines are in besides the first, the oldest first (`tasks.record.record_files`)."""
    lines_sha256: Mapping[str, Sha256] = {}
    """The sha256 of each file that the lines are in. A file with another one was edited by somebody else. It is empty
    if a version before 0.9 has written the index.
    """


class RecordFile(Value):
    """One of the files that hold the record's lines."""

    path: str
    size: Count = 0
    sha256: str = ""
    """Empty if the file is, or is not there yet."""
    shards: tuple[str, ...] = ()
    """The paths of the shards that a segment has a line of, sorted; empty for the first file."""

    @classmethod
    def of(cls, path: str, data: bytes, shards: Iterable[str] = ()) -> "RecordFile":
        """Return the file that has these bytes."""
        sha256 = hashlib.sha256(data).hexdigest() if data else ""
        return cls(path=path, size=len(data), sha256=sha256, shards=tuple(sorted(shards)))


class _Removed(Value):
    """A line of a segment that says that a shard has no line any more."""

    path: str
    removed: Literal[True]


class _Layout(Value):
    """The part of an index that is read first, because an index of another layout may hold anything else."""

    layout: int = LAYOUT_VERSION


#: The layout of a repo whose record has no index: an early version has published it.
WITHOUT_INDEX = 1

RECORD = "bids/shards.jsonl"  # the first of the files that the record's lines are in
MOST_DAMAGED = 20  # mistakes in a record that are named one by one; in a file of another kind every line is one


class PublicationRecord(Value):
    """What is published: the record's index, and one line for each shard.

    The lines are `bids/shards.jsonl` in the dataset repo, sorted by path, and segments beside it if there are many.
    """

    shards: Mapping[str, PublishedShard] = {}
    texts: Mapping[str, PublishedText] = {}
    """The texts by path. Empty if the repo was published by a version without the index."""
    dataset: DatasetIdentity | None = None
    layout: int = LAYOUT_VERSION
    """The newest layout that a shard of the repo was written with, or `HASHED_FOLDERS`; ours if nothing says so."""
    files: tuple[RecordFile, ...] = ()
    """The files that it was read from, or is written to: the first, and the segments, the oldest first."""
    vouched: bool = True
    """Whether the index says that these files are as they were written with it. An index of a version before 0.9 says
    nothing of it, and none at all says nothing either.
    """
    edited: bool = False
    """Whether somebody else has edited these files, or the index: they do not belong together."""

    @classmethod
    def read(
        cls,
        text: bytes,
        index: bytes = b"",
        listed: "Listed" = lambda _: {},
        segments: Mapping[str, bytes | None] | None = None,
        known: Mapping[str, PublishedShard] | None = None,
    ) -> tuple["PublicationRecord", tuple[str, ...]]:
        """Read a record from its JSON lines and its index.

        Anybody who may write to the repo may have edited both files, so they are data and not orders. A line that
        cannot be read, or that names a path which is none of ours, costs only its own shard or text: that one counts as
        not published by us, and is reported.

        Args:
            text: the JSON lines.
            index: the index; empty if there is none.
            listed: returns what the repo holds at given paths. It is asked only about shards that have two lines; the
                line that the repo agrees with counts.
            segments: the segments' bytes by their paths, the oldest first; None for one that is not there.
            known: lines that are in memory already, by their shards' paths. What says the same is not kept twice.

        Returns:
            The record, and what is wrong with its files: `MOST_DAMAGED` mistakes one by one, then their number.
        """
        shards, _, damaged = _read_lines(text, listed, known or {})
        files = [RecordFile.of(RECORD, text)] if text else []
        for name, data in (segments or {}).items():
            if data is None:
                damaged.append(f"{name}: it is not in the repo; its lines are written anew, with their shards")
                continue
            newer, removed, wrong = _read_lines(data, listed, known or {})
            shards = {path: one for path, one in shards.items() if path not in removed} | newer
            damaged += [f"{name}: {what}" for what in wrong]
            files.append(RecordFile.of(name, data, {*newer, *removed}))
        try:
            found = RecordIndex.model_validate_json(_unmarked(index), strict=True) if index else RecordIndex()
        except ValidationError:
            damaged.append("index: it cannot be read, and is written anew")
            found, edited = RecordIndex(), ["index"]
        else:
            edited = _edited(found.lines_sha256, files)
            if edited and not damaged:  # what is damaged was edited, too, and is told already
                of = ("" if name == RECORD else f"{name}: " for name in edited)
                damaged = [f"{name}its lines were edited" for name in of]
        texts = {one.path: one for one in found.texts if is_text(one.path)}
        if more := len(found.texts) - len(texts):
            damaged.append(f"index: {more} of its texts are named twice, or are none of a dataset's texts")
        if len(damaged) > MOST_DAMAGED:
            damaged[MOST_DAMAGED:] = [f"and {len(damaged) - MOST_DAMAGED:,} more"]
        layout = _layout(index) if index or not text else WITHOUT_INDEX
        told = bool(found.lines_sha256)
        record = cls(
            shards=shards,
            texts=texts,
            dataset=found.dataset,
            layout=layout,
            files=tuple(files),
            vouched=(told or not text) and not edited,
            edited=bool(edited) or bool(text and not index),
        )
        return record, tuple(damaged)

    def dump(self) -> bytes:
        """Return all of the JSON lines. The same record always gives the same bytes."""
        return self.dump_lines(self.shards)

    def dump_lines(self, paths: Iterable[str]) -> bytes:
        """Return the JSON lines of these shards. For a shard without a line, the line says that it was removed."""
        return b"".join(self._line(path) for path in sorted(paths))

    def _line(self, path: str) -> bytes:
        line: Value = self.shards.get(path) or _Removed(path=path, removed=True)
        return line.model_dump_json(exclude_defaults=True).encode() + b"\n"

    def dump_index(self) -> bytes:
        """Return the index as JSON. The same record always gives the same bytes."""
        texts = tuple(self.texts[path] for path in sorted(self.texts))
        segments = tuple(file.path for file in self.files[1:])
        lines_sha256 = {file.path: file.sha256 for file in self.files if file.sha256}
        return (
            RecordIndex(
                layout=self.layout, dataset=self.dataset, texts=texts, segments=segments, lines_sha256=lines_sha256
            )
            .model_dump_json(indent=1, exclude=None if segments else {"segments"})
            .encode()
            + b"\n"
        )

    def with_lines(self, lines: Iterable["PublishedShard"]) -> "PublicationRecord":
        """Return a copy with these lines in place of those of the same shards. The shards themselves are unchanged."""
        return self.model_copy(update={"shards": {**self.shards, **{line.path: line for line in lines}}})

    def updated(
        self,
        add: Iterable[PublishedShard] = (),
        remove: Iterable[str] = (),
        texts: Iterable[PublishedText] = (),
        dataset: DatasetIdentity | None = None,
    ) -> "PublicationRecord":
        """Return a copy in which shards and texts are added or replaced, and others are removed.

        Args:
            add: the shards to add, or to put in the place of those with the same path.
            remove: the paths of the shards and texts to remove.
            texts: the texts to add or to replace.
            dataset: the dataset's new identity; None keeps the present one.
        """
        add, remove = tuple(add), tuple(remove)
        shards, kept = dict(self.shards), dict(self.texts)
        for path in remove:
            shards.pop(path, None)
            kept.pop(path, None)
        layout = self._layout(add, shards)
        shards.update((shard.path, shard) for shard in add)
        kept.update((text.path, text) for text in texts)
        changed = {"shards": shards, "texts": kept, "dataset": dataset or self.dataset, "layout": layout}
        ours = {"vouched": True, "edited": False}  # whoever writes it vouches for it
        # It is not validated again: for 100,000 lines that takes longer than all else of a commit.
        return self.model_copy(update=changed | ours)

    def _layout(self, add: Iterable[PublishedShard], kept: Iterable[str]) -> int:
        """Return the layout of a repo that has these shards more, and keeps those at these paths."""
        if not add:
            return self.layout
        is_new = any(is_hashed(shard.path) for shard in add)
        hashed = is_new or (self.layout >= HASHED_FOLDERS and any(map(is_hashed, kept)))
        return HASHED_FOLDERS if hashed else LAYOUT_VERSION


def segments_in(index: bytes) -> tuple[str, ...] | None:
    """Return the segments that an index names, or None if it cannot be read. An index that is missing names none."""
    try:
        return RecordIndex.model_validate_json(_unmarked(index), strict=True).segments if index else None
    except ValidationError:
        return None


def _edited(written: Mapping[str, str], files: Iterable[RecordFile]) -> list[str]:
    """Return the files of the record that are missing, or are not those with which the index was written.

    Args:
        written: the sha256 of each file by the index; empty if it names none.
        files: the files that are there.
    """
    there = {file.path: file.sha256 for file in files}
    return (
        sorted(path for path in written.keys() | there.keys() if written.get(path) != there.get(path))
        if written
        else []
    )


def _layout(index: bytes) -> int:
    """Return the layout that an index names, even if nothing else of it can be read; ours if it names none."""
    try:
        return _Layout.model_validate_json(_unmarked(index), strict=True).layout if index else LAYOUT_VERSION
    except ValidationError:
        return LAYOUT_VERSION


#: The path in a line of the record that may be damaged.
_PATH = re.compile(rb'"path"\s*:\s*"([\x20-\x7e]+?)"')


def _read_lines(
    text: bytes, listed: "Listed", known: Mapping[str, PublishedShard]
) -> tuple[dict[str, PublishedShard], set[str], list[str]]:
    """Return the shards by path, the paths that have no line any more, and a sentence for each damaged line."""
    shards: dict[str, PublishedShard] = {}
    removed: set[str] = set()
    twice: dict[str, list[PublishedShard]] = {}
    damaged: list[str] = []
    for number, line in enumerate(io.BytesIO(_unmarked(text)), start=1):
        if not line.strip():
            continue
        try:
            shard = PublishedShard.model_validate_json(line, strict=True)
        except ValidationError:
            if gone := _removed(line):
                removed.add(gone)
            else:
                damaged.append(f"line {number}: {_unreadable(line)}")
            continue
        if not is_shard(shard.path):
            damaged.append(f"line {number}: no shard has such a path")
            continue
        if shard.path in shards:
            damaged.append(f"line {number}: {shard.path} has a line already; the one counts that the repo holds")
            twice.setdefault(shard.path, [shards[shard.path]]).append(shard)
        same = known.get(shard.path)
        shards[shard.path] = same if same is not None and same == shard else shard
    files = listed(sorted(twice)) if twice else {}
    for path, lines in twice.items():
        file = files.get(path)
        held = [line for line in lines if file and (file.size, file.sha256) == (line.size, line.sha256)]
        shards[path] = (held or lines)[-1]
    return shards, removed.difference(shards), damaged


def _removed(line: bytes) -> str | None:
    """Return the path of the shard that a line takes out of the record, or None if it is any other line."""
    try:
        return _Removed.model_validate_json(line, strict=True).path
    except ValidationError:
        return None


def _unreadable(line: bytes) -> str:
    """Return what a damaged line of the record means, with the path of its shard where that can still be read."""
    found = _PATH.search(line)
    path = found[1].decode() if found else ""
    if not is_shard(path):
        return "it cannot be read, and names no shard; it is taken out"
    return f"it is that of {path}, and cannot be read; it is written anew"


def _unmarked(data: bytes) -> bytes:
    """Return the bytes without the byte order mark that some editors put before UTF-8."""
    return data.removeprefix(codecs.BOM_UTF8)


@dataclass(frozen=True, slots=True)
class ListedFile:
    """One file as the Hub lists it at a commit."""

    path: str
    size: int
    sha256: str | None
    """The sha256 that the committing client claimed for a file in LFS or Xet; None for a file in git itself."""
    blob_id: str | None = None
    """git's id of a file in git itself."""

    def holds(self, data: bytes) -> bool:
        """Return whether these bytes are the listed file, judged by the sha256 or git's id in the listing."""
        if self.size != len(data):
            return False
        if self.sha256 is not None:
            return self.sha256 == hashlib.sha256(data).hexdigest()
        return self.blob_id == git_hash(data)


Listed = Callable[[Sequence[str]], Mapping[str, ListedFile]]
"""A function that takes paths and returns those that the repo holds, each as it is listed."""


@dataclass(frozen=True, slots=True)
class Listing:
    """Every file of the repo at one pinned commit."""

    commit: str
    files: Mapping[str, ListedFile]


class Slice(Value):
    """One slice of an image, as a PNG."""

    path: str
    suffix: str
    png: bytes

    model_config = Value.model_config | {"ser_json_bytes": "base64", "val_json_bytes": "base64"}
