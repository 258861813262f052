"""What is to be restored: which files, from which shards, into which paths.

The record says which files each shard has, and the listing which texts there are. Anybody who may write to the repo may
have written either. So a path that no file of a dataset can have, or that two files claim, is refused by name, and all
other files come.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from difflib import get_close_matches

from tasks.bids.ignored import Ignored, require_pattern
from tasks.bids.names import folder_label, parse
from tasks.record.remote import Remote
from tasks.record.removals import is_our_shard
from tasks.restore.edited import edited, way_out
from tasks.values.errors import BadInput, PushError
from tasks.values.format import number
from tasks.values.kinds import is_data, noun, recording_of
from tasks.values.models import HASHED_FOLDERS, ImageContent, ListedFile, Listing, PublishedShard
from tasks.values.our_paths import LEFT_OUT, MOST, is_text

TEXTS = "bids/"  # the folder of the repo in which the dataset's own texts are

THE_RECORD = "the publication record"  # what is refused in its place, if somebody has edited it
NOT_IN_REPO = "its shard is not in the repo at this commit"
TOO_LARGE = "the record says that it is larger than its shard"
TWICE = "another file of the repo has this path too, with other bytes; that one was taken"
A_FOLDER = "it is the folder of another file of the repo"

COMPARED = 20_000  # paths that a pattern without a match is compared with: a second or two


class NothingPublished(PushError):
    """The repo holds no dataset that bids-push has published."""


@dataclass(frozen=True, slots=True)
class WantedShard:
    """A shard, and those of its files that are wanted."""

    path: str
    size: int
    """Bytes of the shard, as the Hub lists it."""
    files: tuple[ImageContent, ...]


@dataclass(frozen=True, slots=True)
class Wanted:
    """The files to restore. Their paths are relative to the folder that they are restored into."""

    shards: tuple[WantedShard, ...]
    texts: Mapping[str, ListedFile]
    """The texts: path -> the file in the repo."""
    refused: Mapping[str, str] = field(default_factory=dict)
    """What cannot be restored, and why."""
    beside: bool = True
    """Whether sidecars, tables and others are rows, if there are any. A version before 0.8 has published none; of a
    record that a version since 0.9 has written, it is known that there were none.
    """
    executable: frozenset[str] = frozenset()
    """The texts that are executable. Of a row, its file says it."""

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the path and the bytes of each file."""
        for shard in self.shards:
            for file in shard.files:
                yield file.path, file.size
        for path, text in self.texts.items():
            yield path, text.size


#: A file's labels, in the order in which they are asked for.
_Labels = tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Subset:
    """The part of a dataset that is wanted. A list that is empty excludes nothing."""

    subjects: Sequence[str] = ()
    sessions: Sequence[str] = ()
    datatypes: Sequence[str] = ()
    paths: Sequence[str] = ()
    """Patterns as .gitignore has them."""

    def of(self, paths: Collection[str], texts: Collection[str], where: str) -> Collection[str]:
        """Return the files of the subset: with the labels, or above those that have them; and named by the patterns.

        A sidecar or a table above the level that is asked for applies to what is below it, as sessions.tsv does to each
        session. So it comes along with its subject and session. One that belongs to no subject always comes.

        Args:
            paths: all files that are rows.
            texts: the dataset's own texts, which come in any case. A pattern may name one.
            where: the repo and the commit, for messages.

        Raises:
            BadInput: a value or a pattern is that of no file, or nothing has all of them. The message has the nearest
                one that there is.
        """
        asked = self._asked()
        labels = {path: tuple(_label(what, path) for what in asked) for path in paths} if asked else {}
        self._require_labels(labels, where)
        self._require_patterns([*paths, *texts], where)
        found = _with_those_above(labels, list(asked.values())) if asked else paths
        if not self.paths:
            return found
        named = Ignored(self.paths)
        found = {path for path in found if named.has(path)}
        if not found and not (any(map(named.has, texts)) and not asked):
            raise BadInput(_not_at_once([*asked, "paths"], paths, where))
        return found

    def _require_labels(self, labels: Mapping[str, _Labels], where: str) -> None:
        """Check that each label that is asked for occurs in a file, and that some file has all of them."""
        asked = self._asked()
        for at, (what, values) in enumerate(asked.items()):
            there = sorted({label for of_file in labels.values() if (label := of_file[at])})
            for value in values:
                if value not in there:
                    nearest = _nearest(what, value, there)
                    raise BadInput(f"{what}: {where} has no {noun(labels)} of {value!r}. {nearest}")
        if asked and not any(_has_all(of_file, list(asked.values())) for of_file in labels.values()):
            raise BadInput(_not_at_once(list(asked), labels, where))

    def _require_patterns(self, paths: Sequence[str], where: str) -> None:
        """Check that each pattern can be read and matches a file."""
        for pattern in self.paths:
            require_pattern("paths", pattern)
            if not any(map(Ignored([pattern.removeprefix("!")]).has, paths)):
                raise BadInput(
                    f"paths: {where} has no file that {pattern!r} matches. A pattern is as in a .gitignore, relative "
                    f"to the dataset's root, such as sub-01/ or *_T1w.nii.gz.{_nearest_path(pattern, paths)}"
                )
        if self.paths and all(pattern.startswith("!") for pattern in self.paths):
            raise BadInput("paths: all of these only take files out again (!). Name what is wanted before them, as *.")

    def _asked(self) -> dict[str, set[str]]:
        asked = {"subjects": self.subjects, "sessions": self.sessions, "datatypes": self.datatypes}
        return {what: {_bare(what, value) for value in values} for what, values in asked.items() if values}


def _has_all(labels: _Labels, asked: Sequence[Collection[str]]) -> bool:
    """Return whether a file has one of the labels that are asked for, of each sort that is asked for."""
    return all(label in values for label, values in zip(labels, asked, strict=True))


def _with_those_above(labels: Mapping[str, _Labels], asked: Sequence[Collection[str]]) -> set[str]:
    """Return the files that have all labels, and the sidecars, tables and others that lie above them."""
    found = {path for path, of_file in labels.items() if _has_all(of_file, asked)}
    places = {place for path in found for sub, ses in [_place(path)] for place in ((sub, ses), (sub, None))}
    for path, of_file in labels.items():
        if path not in found and not is_data(path):
            lies_above = all(label is None or label in values for label, values in zip(of_file, asked, strict=True))
            if lies_above and (_place(path)[0] is None or _place(path) in places):
                found.add(path)
    return found


def _place(path: str) -> tuple[str | None, str | None]:
    """Return whose file it is: subject and session."""
    return _label("subjects", path), _label("sessions", path)


def _not_at_once(asked: Sequence[str], paths: Collection[str], where: str) -> str:
    return f"{' and '.join(asked)}: {where} has no {noun(paths)} of all of these at once. Ask for less."


def _bare(what: str, value: str) -> str:
    """Return a value without its prefix: `01` of `sub-01`."""
    return value.strip().removeprefix({"subjects": "sub-", "sessions": "ses-"}.get(what, ""))


def _label(what: str, path: str) -> str | None:
    """Return a file's subject, session or datatype, or None if it has none.

    A recording that is a folder has its folder's.
    """
    whole = recording_of(path)
    if what == "datatypes":
        return parse(whole).datatype
    *folders, name = whole.split("/")
    entity = {"subjects": "sub", "sessions": "ses"}[what]
    # in some derivatives the name alone says it
    return folder_label(folders, entity) or folder_label(name.partition(".")[0].split("_"), entity)


def _nearest(what: str, value: str, there: Sequence[str]) -> str:
    if not there:
        return f"It has no {what} at all: leave the field empty."
    nearest = get_close_matches(value, there, n=1, cutoff=0.0)
    return f"The nearest one is {nearest[0]!r}, of {number(len(there), what.removesuffix('s'))}."


def _nearest_path(pattern: str, paths: Sequence[str]) -> str:
    """Return a sentence about the file or folder whose path, or name, is most like a pattern; empty if none is."""
    asked = pattern.removeprefix("!").strip("/")
    whole = "/" in asked
    there = {one if whole else one.rpartition("/")[2] for path in paths for one in (path, *_parents(path))}
    nearest = get_close_matches(asked, sorted(there)[:COMPARED], n=1)
    return f" The nearest path is {nearest[0]!r}." if nearest else ""


def wanted(remote: Remote, listing: Listing, subset: Subset, where: str) -> Wanted:
    """Return the files to restore: the rows of the subset, and every text.

    Args:
        remote: the record, at one commit.
        listing: every file of the repo, at the same commit.
        subset: the part that is wanted.
        where: the repo and the commit, for messages.

    Raises:
        NothingPublished: there is no record, or it names nothing.
        BadInput: a value or a pattern of the subset matches nothing.
    """
    record = remote.record
    if not (record.shards or record.texts or remote.damaged):
        raise NothingPublished(_no_record(where, any(map(is_our_shard, listing.files))))
    own = record.texts or listing.files  # the records of older versions name no texts
    texts = {path.removeprefix(TEXTS): path for path in sorted(own) if _is_of_the_dataset(path)}
    rows = [image.path for shard in record.shards.values() for image in shard.images]
    try:
        chosen = frozenset(subset.of(rows, texts.keys(), where))
    except BadInput as error:
        if edited(remote):
            raise BadInput(f"{error} {way_out(remote)}") from error
        raise
    plan = _Plan({THE_RECORD: _damage(remote)} if edited(remote) else {})
    shards = [plan.shard(record.shards[path], listing, chosen) for path in sorted(record.shards)]
    found = {
        name: file
        for name, path in texts.items()
        if (file := plan.text(name, listing.files.get(path), record.texts[path].sha256 if path in record.texts else ""))
    }
    files = plan.without_folders([shard for shard in shards if shard.files], found)
    executable = frozenset(name for name, path in texts.items() if path in record.texts and record.texts[path].mode)
    return replace(files, beside=record.vouched or not all(map(is_data, rows)), executable=executable)


def _is_of_the_dataset(path: str) -> bool:
    """Return whether a file of the repo is a text of the dataset, and not a file that pushes make."""
    return path.startswith(TEXTS) and is_text(path) and path != TEXTS + LEFT_OUT


def _no_record(where: str, has_shards: bool) -> str:
    """Return the message for a repo without a publication record."""
    nothing = f"{where} holds no dataset that bids-push has published: there is no publication record in it."
    if has_shards:
        return (
            f"{nothing} It has shards, so somebody has taken the record out: restore a commit before that, from the "
            "repo's list of commits, by giving it as the revision; or have push-bids started once by those who publish "
            "the dataset, and then start this again."
        )
    return f"{nothing} Check the repo's name and the revision; a repo of another tool is downloaded with `hf download`."


def _damage(remote: Remote) -> str:
    if remote.record.layout > HASHED_FOLDERS:
        return (
            f"a newer bids-push has published this (layout {remote.record.layout}; this version knows {HASHED_FOLDERS} "
            "at most), and files are missing that only that one knows. Update bids-push here, and start again"
        )
    places = ", ".join(what.partition(":")[0] for what in remote.damaged)
    return f"it is damaged ({places}), so files may be missing without being named here"


@dataclass
class _Plan:
    """The paths that are taken so far, and those that are refused."""

    refused: dict[str, str]
    taken: dict[str, str] = field(default_factory=dict)
    """Path -> the sha256 or git's id of the file that takes it."""

    def shard(self, line: PublishedShard, listing: Listing, chosen: Collection[str]) -> WantedShard:
        """Return a shard with those of its files that are wanted (`chosen`) and can be had."""
        listed = listing.files.get(line.path)
        files = [image for image in line.images if image.path in chosen]
        if listed is None:
            self.refused |= {image.path: NOT_IN_REPO for image in files}
            return WantedShard(line.path, 0, ())
        self.refused |= {image.path: TOO_LARGE for image in files if image.size > listed.size}
        fitting = (image for image in files if image.size <= listed.size)
        mine = tuple(image for image in fitting if self._takes(image.path, image.sha256))
        return WantedShard(line.path, listed.size, mine)

    def text(self, name: str, listed: ListedFile | None, sha256: str) -> ListedFile | None:
        """Return a text if it can be had. It may be a row too, of a shard that was published later.

        Args:
            name: its path in the dataset.
            listed: the file in the repo, of which the listing has a sha256 only if it is in LFS.
            sha256: the one that it was published with; empty if nobody knows.
        """
        if listed is None:
            self.refused[name] = "the record names it, and it is not in the repo at this commit"
            return None
        return listed if self._takes(name, listed.sha256 or sha256 or listed.blob_id or "") else None

    def _takes(self, path: str, content: str) -> bool:
        """Return whether a file gets its path."""
        if why := problem(path):
            self.refused[path] = why
            return False
        if path in self.taken:
            if self.taken[path] != content:
                self.refused[path] = TWICE
            return False
        self.taken[path] = content
        return True

    def without_folders(self, shards: Sequence[WantedShard], texts: Mapping[str, ListedFile]) -> Wanted:
        """Return the plan without files whose path is the folder of another file."""
        folders = {parent for path in self.taken for parent in _parents(path)}
        self.refused |= dict.fromkeys(self.taken.keys() & folders, A_FOLDER)
        kept = (
            WantedShard(shard.path, shard.size, tuple(file for file in shard.files if file.path not in folders))
            for shard in shards
        )
        return Wanted(tuple(kept), {path: text for path, text in texts.items() if path not in folders}, self.refused)


def _parents(path: str) -> Iterator[str]:
    """Yield the folders that a path goes through."""
    while "/" in path:
        path = path.rpartition("/")[0]
        yield path


def problem(path: str) -> str | None:
    """Return why no file of a dataset can have this path, or None if one can."""
    parts = path.split("/")
    if path.startswith("/"):
        return "its path is absolute"
    if ".." in parts:
        return "its path leads out of the folder"
    if "" in parts or "." in parts or not path.isprintable() or len(path) > MOST:
        return "no file of a dataset has such a path"
    if ".git" in map(str.lower, parts):
        return "its path is within git's own folder"
    return None
