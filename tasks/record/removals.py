"""Removals: what is published and no longer in the dataset. It stays on the Hub until a person decides otherwise.

How it works: `find_removals` compares the publication record with the plan, and with the texts that would be published
now. Something that the record names and the dataset does not have is a removal under two conditions: the repo holds it
as the record says, and it lies in a folder of ours by strict patterns (`tasks.values.our_paths`, and the one below).
Anybody may have edited the record, so what it says is data, not an order. There are three kinds of removal:

- a *shard* that the plan no longer has;
- *rows* of a shard that the plan still has. Its new version would not have these rows, so the whole shard is held back;
- a *text* or table of the dataset that would no longer be published.

A line of the record is `lost` if it stands for nothing: its file is neither in the repo nor in the dataset, or is none
of ours. The next commit drops such lines from the record, and no file with them.

A person's decision to keep removals is remembered beside the staged shards (`tasks.record.kept_removals`). Nothing here
removes anything: only `tasks.remove` does.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import PurePosixPath

from pydantic import Field

from tasks.values.format import number
from tasks.values.kinds import counted
from tasks.values.models import (
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    PublishedText,
    Sha256,
    ShardSpec,
    Value,
)
from tasks.values.our_paths import is_hashed, is_shard, is_text, shard_path

NAMED = 3  # of each kind in a sentence; the artifacts have all
LONGEST = 1000  # characters of the longest path in the repo that is taken for one of ours: BIDS names are far shorter

#: The names that `tasks.plan` makes: `sub-01/sub-01_ses-1.parquet`, `tpl-X/tpl-X.parquet`.
_SHARD = re.compile(r"((?:sub|tpl|group)-[A-Za-z0-9-]+)/(\1(?:_ses-[A-Za-z0-9-]+)?)\.parquet", re.ASCII)
#: The tables that `tasks.card.side_files` makes besides the texts.
_TABLE = re.compile(r"tables/[a-z]+\.parquet", re.ASCII)
#: The pictures that `tasks.card.pictures` makes.
_PICTURE = re.compile(r"pictures/\w+\.png", re.ASCII)
#: An image of a kind that the card may have a picture of.
_IMAGE = re.compile(r"(?:.*/)?(?P<datatype>\w+)/[^/]*_(?P<suffix>[A-Za-z0-9]+)\.nii(?:\.gz)?", re.ASCII)


def is_our_shard(path: str) -> bool:
    """Return whether a path in the repo is one that a shard of ours can have."""
    if not is_shard(path) or len(path) > LONGEST:
        return False
    found = _SHARD.fullmatch("/".join(path.rsplit("/", 2)[1:]))
    return found is not None and path == shard_path(found[1], found[2], is_hashed(path))


def is_our_text(path: str) -> bool:
    """Return whether a path in the repo is one that a text or a table of the dataset can have."""
    return is_text(path) and len(path) <= LONGEST and (path.startswith("bids/") or _TABLE.fullmatch(path) is not None)


def is_our_picture(path: str) -> bool:
    """Return whether a path in the repo is one that a picture of the card can have."""
    return len(path) <= LONGEST and _PICTURE.fullmatch(path) is not None


class PublishedFile(Value):
    """The size and sha256 of a file as we published it."""

    size: int = Field(ge=0)
    sha256: Sha256


class Removals(Value):
    """What is published and no longer in the dataset. It is false if it is empty."""

    shards: Mapping[str, tuple[str, ...]] = {}
    """Path of a shard -> paths of its images and files of recordings."""
    rows: Mapping[str, tuple[str, ...]] = {}
    """Path of a shard that is held back -> paths of the files that its new version would no longer have."""
    texts: tuple[str, ...] = ()
    published: Mapping[str, PublishedFile] = {}
    """Each file that is named above, as it is published. A shard that would lose rows is as the repo holds it: somebody
    else may have changed it, and what a person approves is about the shard that they are shown.
    """

    def __bool__(self) -> bool:
        return bool(self.shards or self.rows or self.texts)

    @property
    def images(self) -> frozenset[str]:
        """The paths in the dataset of all images and files of recordings that would leave the repo."""
        return frozenset(image for images in (*self.shards.values(), *self.rows.values()) for image in images)

    @property
    def inside(self) -> tuple[str, ...]:
        """The images and files of recordings that would leave as rows of shards which stay."""
        return tuple(path for of in self.rows.values() for path in of)

    @property
    def files(self) -> frozenset[str]:
        """The paths in the dataset of everything that would leave the repo.

        For a table that a push makes, its path in the repo.
        """
        return self.images | {path.removeprefix("bids/") for path in self.texts}

    @property
    def size(self) -> int:
        """The bytes of the shards and texts that would leave the repo whole."""
        return sum(self.published[path].size for path in (*self.shards, *self.texts))

    def within(self, other: "Removals") -> bool:
        """Return whether the other one names all of this too, with the same bytes."""
        same = all(other.published.get(path) == file for path, file in self.published.items())
        rows = all(set(images) <= set(other.rows.get(path, ())) for path, images in self.rows.items())
        return same and rows and set(self.shards) <= set(other.shards) and set(self.texts) <= set(other.texts)

    def without(self, decided: "Removals") -> "Removals":
        """Return these removals without those that somebody has decided about, with the same bytes.

        A shard is published with all of its rows. So of the rows that it would lose, either all are left out here or
        none.
        """

        decided_here = {path for path in self.shards if path in decided.shards}
        decided_here |= {path for path, images in self.rows.items() if set(images) <= set(decided.rows.get(path, ()))}
        decided_here |= set(self.texts) & set(decided.texts)
        return self.excluding(path for path in decided_here if decided.published.get(path) == self.published[path])

    def excluding(self, paths: Iterable[str]) -> "Removals":
        """Return these removals without the files at these paths in the repo."""
        left = self.published.keys() - set(paths)
        return Removals(
            shards={path: of for path, of in self.shards.items() if path in left},
            rows={path: of for path, of in self.rows.items() if path in left},
            texts=tuple(path for path in self.texts if path in left),
            published={path: file for path, file in self.published.items() if path in left},
        )

    def joined(self, other: "Removals") -> "Removals":
        """Return these removals together with the others. If both name the same file, the other's entry counts."""
        return Removals(
            shards={**self.shards, **other.shards},
            rows={**self.rows, **other.rows},
            texts=tuple(dict.fromkeys((*self.texts, *other.texts))),
            published={**self.published, **other.published},
        )

    def allows(self, path: str, now: "Removals") -> bool:
        """Return whether all rows that a shard would lose are named here, and it is still the shard that was meant.

        Args:
            path: the shard's path in the repo.
            now: what would go now.
        """
        named = set(now.rows[path]) <= set(self.rows.get(path, ()))
        return named and self.published.get(path) == now.published[path]

    def sentence(self) -> str:
        """Return one line that counts the removals and names the first of each kind."""
        parts = []
        if self.shards:
            inside = counted(path for of in self.shards.values() for path in of)
            parts.append(f"{number(len(self.shards), 'shard')} with {inside} ({_names(self.shards)})")
        if self.rows:
            shards = number(len(self.rows), "shard")
            names = _names(self.inside)
            waits = "what is new or changed there waits too"
            parts.append(f"{counted(self.inside)} of {shards} held back as published ({names}); {waits}")
        if self.texts:
            parts.append(f"{number(len(self.texts), 'text')} ({_names(self.texts)})")
        return "; ".join(parts)


def as_file(one: PublishedShard | PublishedText) -> PublishedFile:
    """Return the file that a line of the record describes."""
    return PublishedFile(size=one.size, sha256=one.sha256)


def _names(paths: Iterable[str]) -> str:
    names = [_name(path) for path in paths]
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


def _name(path: str) -> str:
    """Return what a sentence calls a shard, a text or an image."""
    if is_our_shard(path):
        return PurePosixPath(path).stem
    return path.removeprefix("bids/") if is_our_text(path) else PurePosixPath(path).name


def find_removals(
    plan: Sequence[ShardSpec], record: PublicationRecord, listing: Listing, texts: Collection[str]
) -> Removals:
    """Find what is published and no longer in the dataset.

    Args:
        plan: the shards of the dataset.
        record: what was published.
        listing: what the repo holds.
        texts: paths in the repo of the texts and tables that would be published now.
    """
    planned = {spec.path: spec for spec in plan}
    shards, rows = {}, {}
    for path, line in sorted(record.shards.items()):
        listed, spec = listing.files.get(path), planned.get(path)
        if listed is None or not is_our_shard(path):
            continue
        if spec is not None:
            if gone := rows_gone(spec, line):
                rows[path] = gone
        elif listed.sha256 == line.sha256:  # the bytes that we published, whatever size somebody wrote into the line
            shards[path] = tuple(image.path for image in line.images)
    gone_texts = tuple(
        path
        for path, text in sorted(record.texts.items())
        if path not in texts and is_our_text(path) and holds_text(listing.files.get(path), text)
    )
    named: dict[str, PublishedShard | PublishedText] = {path: record.shards[path] for path in (*shards, *rows)}
    named |= {path: record.texts[path] for path in gone_texts}
    published = {path: as_file(line) for path, line in named.items()}
    published |= {path: _as_listed(listing.files[path], record.shards[path]) for path in rows}
    return Removals(shards=shards, rows=rows, texts=gone_texts, published=published)


def _as_listed(listed: ListedFile, line: PublishedShard) -> PublishedFile:
    """Return a shard as the repo holds it.

    A listing has no sha256 of a file outside LFS; then the recorded one is taken.
    """
    return PublishedFile(size=listed.size, sha256=listed.sha256) if listed.sha256 else as_file(line)


def rows_gone(spec: ShardSpec, line: PublishedShard) -> tuple[str, ...]:
    """Return the images of a published shard that its new version would no longer have."""
    now = {image.path for image in spec.rows}
    return tuple(image.path for image in line.images if image.path not in now)


def holds_text(listed: ListedFile | None, text: PublishedText) -> bool:
    """Return whether the repo holds a text as it was published, as far as its listing shows.

    For a file in git itself the listing has no sha256; then the size decides.
    """
    return listed is not None and listed.size == text.size and listed.sha256 in (None, text.sha256)


def lost_lines(
    plan: Sequence[ShardSpec], record: PublicationRecord, listing: Listing, texts: Collection[str]
) -> dict[str, str]:
    """Return the lines of the record that stand for nothing: path -> sha256.

    The next commit drops them, and no file with them. The parameters are those of `find_removals`.
    """
    planned = {spec.path for spec in plan}
    shards = {
        path: line.sha256
        for path, line in record.shards.items()
        if path not in planned and (path not in listing.files or not is_our_shard(path))
    }
    return shards | {
        path: text.sha256
        for path, text in record.texts.items()
        if path not in texts and (path not in listing.files or not is_our_text(path))
    }


def kinds_of(images: Iterable[str]) -> set[str]:
    """Return the kinds of these images (`anat_T1w`). The card's pictures are named by kind."""
    found = (_IMAGE.fullmatch(image) for image in images)
    return {f"{kind['datatype']}_{kind['suffix']}" for kind in found if kind is not None}


def pictures_of(removals: Removals, listing: Listing, shown: Collection[str]) -> tuple[str, ...]:
    """Return the pictures in the repo that leave it with the removed images.

    These are the pictures of their kinds that the new card does not show. A picture that the new card shows is drawn
    anew from an image that stays. One that no card shows any more may be a slice of an image that is removed.

    Args:
        removals: what is removed.
        listing: what the repo holds.
        shown: paths in the repo of the pictures that the new card shows.
    """
    paths = (f"pictures/{kind}.png" for kind in sorted(kinds_of(removals.images)))
    return tuple(path for path in paths if path in listing.files and path not in shown)
