"""What is to be restored: which files, from which shards, into which paths.

The record says which files each shard has, and the listing which texts there are. Both are data that anybody may have
written who may write to the repo. So a path that no file of a dataset can have, or that two files want, is refused by
name, and costs no other file.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches

from tasks.bids.names import folder_label, parse, subject_of
from tasks.record.remote import Remote
from tasks.values.errors import BadInput, PushError
from tasks.values.format import number
from tasks.values.kinds import noun, recording_of
from tasks.values.models import ImageContent, ListedFile, Listing, PublishedShard
from tasks.values.our_paths import LEFT_OUT, MOST, is_text

TEXTS = "bids/"  # the folder of the repo in which the dataset's own texts are

NOT_IN_REPO = "its shard is not in the repo at this commit"
TOO_LARGE = "the record says that it is larger than its shard"
TWICE = "another file of the repo has this path too, with other bytes; that one was taken"
A_FOLDER = "it is the folder of another file of the repo"


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

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield the path and the bytes of each file."""
        for shard in self.shards:
            for file in shard.files:
                yield file.path, file.size
        for path, text in self.texts.items():
            yield path, text.size


@dataclass(frozen=True, slots=True)
class Subset:
    """The part of a dataset that is wanted. What is empty is not asked about."""

    subjects: Sequence[str] = ()
    sessions: Sequence[str] = ()
    datatypes: Sequence[str] = ()

    def has(self, path: str) -> bool:
        """Return whether an image or a file of a recording is in the subset."""
        return all(_label(what, path) in values for what, values in self._asked().items())

    def require(self, paths: Collection[str], where: str) -> None:
        """Check that each value is that of a file, and that a file has them all.

        Args:
            paths: the images and files of recordings.
            where: the repo and the commit, for the message.

        Raises:
            BadInput: it is not so. The message has the nearest value that there is.
        """
        one = noun(paths)
        for what, values in self._asked().items():
            there = sorted({label for path in paths if (label := _label(what, path))})
            for value in values:
                if value not in there:
                    raise BadInput(f"{what}: {where} has no {one} of {value!r}. {_nearest(what, value, there)}")
        if not any(self.has(path) for path in paths):
            raise BadInput(
                f"{' and '.join(self._asked())}: {where} has no {one} of all of these at once. Ask for less."
            )

    def _asked(self) -> dict[str, set[str]]:
        asked = {"subjects": self.subjects, "sessions": self.sessions, "datatypes": self.datatypes}
        return {what: {_bare(what, value) for value in values} for what, values in asked.items() if values}


def _bare(what: str, value: str) -> str:
    """Return a value without its prefix: `01` of `sub-01`."""
    return value.strip().removeprefix({"subjects": "sub-", "sessions": "ses-"}.get(what, ""))


def _label(what: str, path: str) -> str | None:
    """Return a file's subject, session or datatype, or None if it has none. Those of a recording are its folder's."""
    if what == "subjects":
        return subject_of(path)
    if what == "sessions":
        return folder_label(path.split("/")[:-1], "ses")
    return parse(recording_of(path)).datatype


def _nearest(what: str, value: str, there: Sequence[str]) -> str:
    if not there:
        return f"It has no {what} at all: leave the field empty."
    nearest = get_close_matches(value, there, n=1, cutoff=0.0)
    return f"The nearest one is {nearest[0]!r}, of {number(len(there), what.removesuffix('s'))}."


def wanted(remote: Remote, listing: Listing, subset: Subset, where: str) -> Wanted:
    """Return the files to restore: the images and recordings of the subset, and every text.

    Args:
        remote: the record, at one commit.
        listing: every file of the repo, at the same commit.
        subset: the part that is wanted.
        where: the repo and the commit, for messages.

    Raises:
        NothingPublished: there is no record, or it names nothing.
        BadInput: a value of the subset matches nothing.
    """
    record = remote.record
    if not (record.shards or record.texts or remote.damaged):
        raise NothingPublished(
            f"{where} holds no dataset that bids-push has published: there is no publication record in it. Check the "
            "repo's name and the revision; a repo of another tool is downloaded with `hf download`."
        )
    subset.require([image.path for shard in record.shards.values() for image in shard.images], where)
    plan = _Plan({"the publication record": _damage(remote.damaged)} if remote.damaged else {})
    shards = [plan.shard(record.shards[path], listing, subset) for path in sorted(record.shards)]
    own = record.texts or listing.files  # the records of older versions name no texts
    texts = {path.removeprefix(TEXTS): path for path in sorted(own) if _is_of_the_dataset(path)}
    found = {name: file for name, path in texts.items() if (file := plan.text(name, listing.files.get(path)))}
    return plan.without_folders([shard for shard in shards if shard.files], found)


def _is_of_the_dataset(path: str) -> bool:
    """Return whether a file of the repo is a text of the dataset, and not one that a push has written itself."""
    return path.startswith(TEXTS) and is_text(path) and path != TEXTS + LEFT_OUT


def _damage(damaged: Sequence[str]) -> str:
    places = ", ".join(what.partition(":")[0] for what in damaged)
    return f"it is damaged ({places}), so files may be missing that nobody knows of"


@dataclass
class _Plan:
    """The paths that are taken so far, and those that are refused."""

    refused: dict[str, str]
    taken: dict[str, str] = field(default_factory=dict)
    """Path -> the sha256 or git's id of the file that takes it."""

    def shard(self, line: PublishedShard, listing: Listing, subset: Subset) -> WantedShard:
        """Return a shard with those of its files that are wanted and can be had."""
        listed = listing.files.get(line.path)
        files = [image for image in line.images if subset.has(image.path)]
        if listed is None:
            self.refused |= {image.path: NOT_IN_REPO for image in files}
            return WantedShard(line.path, 0, ())
        self.refused |= {image.path: TOO_LARGE for image in files if image.size > listed.size}
        fitting = (image for image in files if image.size <= listed.size)
        mine = tuple(image for image in fitting if self._takes(image.path, image.sha256))
        return WantedShard(line.path, listed.size, mine)

    def text(self, name: str, listed: ListedFile | None) -> ListedFile | None:
        """Return a text if it can be had."""
        if listed is None:
            self.refused[name] = "the record names it, and it is not in the repo at this commit"
            return None
        return listed if self._takes(name, listed.sha256 or listed.blob_id or "") else None

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
        """Return what is left if no file has the path of another one's folder."""
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
        return "its path is none that a file of a dataset has"
    if ".git" in map(str.lower, parts):
        return "its path is within git's own folder"
    return None
