"""What changed since the last publication, and whether it is so much that a person has to confirm it.

A half-mounted disk, a wrong path and another study look the same from here: much of what is published is gone from the
dataset, or has other bytes. If this is more than a given part (`BIDS_PUSH_MAX_CHANGE`), the run stops before anything
is staged or sent, whatever `removed` says. To go on, a person gives the exact number of these images. A number that is
right one night is wrong the next, so it cannot be left on.

Images are compared, path by path, with the lines of the record. A new image is no change, and neither is a new name of
the dataset. Changed sidecars and tables do not count either, unless nothing but such files is published. An image whose
bytes cannot be read (not fetched, a bad disk) is not known to differ: staging says what is wrong with it, and its
published version stays.

An image that a person has had removed from the Hub, and that is in the dataset again, stops a run too, even a single
one (`tasks.record.removed_before`).
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from tasks.bids.annex import identifies_content
from tasks.bids.names import subject_of
from tasks.record.still_here import Why, in_words, still_here
from tasks.values.errors import PushError
from tasks.values.kinds import both, is_data, noun, recordings
from tasks.values.models import Dataset, DatasetIdentity, Image, ImageContent, PublicationRecord, ShardSpec

NAMED = 3  # subjects or images in a sentence

Sha256Of = Callable[[Image], str | None]
"""A function that returns the sha256 of an image's present bytes, or None if they cannot be read."""


class TooMuchChanged(PushError):
    """So much of what is published is gone or has other bytes that a person has to say that it is meant."""


class RemovedCameBack(TooMuchChanged):
    """Images that a person has had removed from the Hub are in the dataset again."""


@dataclass(frozen=True, slots=True)
class Change:
    """How a dataset differs from its published version."""

    published_images: int
    """The number of images, and files of recordings, in the record."""
    gone: tuple[str, ...] = ()
    """The published images that the dataset no longer has, by their paths in the dataset."""
    other: tuple[str, ...] = ()
    """The published images that have other bytes now, by their paths in the dataset."""
    before: DatasetIdentity | None = None
    """The dataset as it was published, if the record names it."""
    now: DatasetIdentity | None = None
    back: Mapping[str, str] = field(default_factory=dict)
    """The images that were removed from the Hub and are in the dataset again: path -> the day of the removal."""
    gone_subjects: tuple[str, ...] = ()
    """The subjects of which no published image is left in the dataset, as `sub-01`. Those of derivatives do not count
    where the subject has others.
    """
    changed_subjects: tuple[str, ...] = ()
    """The other subjects of which published images are gone or have other bytes."""
    here: Mapping[str, Why] = field(default_factory=dict)
    """Those of `gone` that are in the dataset, and that the push leaves out: path -> why."""
    decided: int = 0
    """The number of other published images that are gone, and about which a person has decided or is being asked."""
    recordings: bool = False
    """Whether there are files of recordings among all of these, published or changed."""

    @property
    def count(self) -> int:
        """The number of images that are gone, have other bytes, or were removed and came back."""
        return len(self.gone) + len(self.other) + len(self.back)

    def within(self, other: "Change") -> bool:
        """Return whether everything that changed here changed in the other one too.

        What a run has published since then no longer counts as a change, so there may be less here.
        """
        return (
            set(self.gone) <= set(other.gone)
            and set(self.other) <= set(other.other)
            and self.back.keys() <= other.back.keys()
        )

    def exceeds(self, part: float) -> bool:
        """Return whether more than this part (0 to 1) of the published images is gone or has other bytes."""
        return len(self.gone) + len(self.other) > part * self.published_images

    def asks(self, part: float) -> bool:
        """Return whether a person has to confirm this change: it exceeds this part, or something removed came back."""
        return self.exceeds(part) or bool(self.back)

    def require(self, part: float, accepted: int, meanwhile: bool = False) -> None:
        """Check that no person has to confirm this change, or that one has given the exact number.

        Args:
            part: of the published images, 0 to 1.
            accepted: the number that a person has given, or 0.
            meanwhile: whether the run has already published something, and somebody else has too.

        Raises:
            TooMuchChanged: more has changed, and the number was not given.
            RemovedCameBack: no more has changed, but what was removed is there again, and the number was not given.
        """
        if problem := self.problem(part, accepted, meanwhile):
            raise problem

    def problem(self, part: float, accepted: int, meanwhile: bool = False) -> TooMuchChanged | None:
        """Return the error that `require` raises, or None."""
        if not self.asks(part) or accepted == self.count:
            return None
        message = self.message(part, accepted, meanwhile)
        return TooMuchChanged(message) if self.exceeds(part) else RemovedCameBack(message)

    def message(self, part: float, accepted: int, meanwhile: bool = False) -> str:
        """Return what has changed, why that may be a mistake, and how to go on."""
        begun = (
            "Somebody else published to this repo while this run did, so it stops here (nothing was removed, and what "
            "was sent stays)"
            if meanwhile
            else "Nothing was staged, sent or removed"
        )
        changed = len(self.gone) + len(self.other)
        called = "file" if self.recordings else "image"
        lines = [
            f"{begun}: {self._came_back()}."
            if not self.exceeds(part)
            else f"{begun}: {changed:,} of {self.published_images:,} published {called}s are gone from "
            f"the dataset or have other bytes, and that is more than {part:.0%} (BIDS_PUSH_MAX_CHANGE).",
            *_named("wholly gone", self.gone_subjects, "subject"),
            *_named(f"with {called}s that are gone or have other bytes", self.changed_subjects, "subject"),
            *_named("gone", self.gone, called),
            *([f"  {in_words(self.here)}"] if self.here else []),
            *_named("with other bytes", self.other, called),
            *([self._not_counted(called)] if self.decided else []),
            *([f"And {self._came_back()}."] if self.back and self.exceeds(part) else []),
            *_named("removed before", tuple(self.back), called),
        ]
        if other := self.looks_other():
            lines.append(other)
        if accepted:
            lines.append(f"accept_changes was {accepted:,}, which is not the number that is found now.")
        check = (
            "Check that the disk is mounted whole, that source and repo_id belong together, and what exclude names."
            if self.exceeds(part)
            else "If they came back by mistake, from a backup for example, take them out of the dataset."
        )
        lines.append(f"{check} If all of this is meant, run the push once more with accept_changes={self.count}.")
        return "\n".join(lines)

    def _not_counted(self, called: str) -> str:
        """Return a sentence about the files that the number in this message leaves out.

        A person who counts would find them.
        """
        are = f"{called} is" if self.decided == 1 else f"{called}s are"
        return (
            f"  {self.decided:,} more published {are} gone and not counted here: a person has decided about that, or "
            "is being asked at a gate."
        )

    def _came_back(self) -> str:
        """Return how many files came back, and when they had been removed."""
        days = sorted(set(self.back.values()))
        when = f"on {days[0]}" if len(days) == 1 else f"between {days[0]} and {days[-1]}" if days else ""
        one = noun(self.back)
        who, are = (
            (f"{one} that a person has had", "is") if len(self.back) == 1 else (f"{one}s that people have had", "are")
        )
        return f"{len(self.back):,} {who} removed from the Hub ({when}) {are} in the dataset again"

    def looks_other(self) -> str:
        """Return a sentence that says that this looks like another dataset, by name and DOI; empty if it does not."""
        before, now = self.before, self.now
        if before is None or now is None or (before.name, before.doi) == (now.name, now.doi):
            return ""
        return (
            f"This looks like another dataset: the repo holds {_described(before)}; this source is {_described(now)}."
        )


def change(
    dataset: Dataset,
    shards: Collection[ShardSpec],
    record: PublicationRecord,
    sha256_of: Sha256Of,
    settled: Collection[str] = (),
    back: Mapping[str, str] | None = None,
) -> Change:
    """Compare a dataset with what the record says was published.

    Args:
        dataset: the dataset as it is now.
        shards: its plan.
        record: what is published.
        sha256_of: is asked only about images of the same size whose git-annex key does not settle the question.
        settled: published images that a person has decided about, or is being asked about. They do not count as gone.
        back: images that were removed from the Hub and are in the dataset again: path -> the day of the removal.
    """
    now = {image.path: image for image in dataset.rows}
    of_data = any(is_data(content.path) for line in record.shards.values() for content in line.images)
    digests = {spec.path: spec.digest for spec in shards}
    published: set[str] = set()
    gone: list[str] = []
    other: list[str] = []
    for path, line in record.shards.items():
        same_digest = digests.get(path) == line.digest
        for content in line.images:
            if of_data and not is_data(content.path):
                continue
            published.add(content.path)
            image = now.get(content.path)
            if image is None:
                gone.append(content.path)
            elif not (same_digest and identifies_content(image.annex_key)) and _differs(image, content, sha256_of):
                other.append(content.path)
    missing = sorted(set(gone).difference(settled))
    changed = sorted(set(other))
    wholly_gone = _wholly_gone(published, set(gone))
    with_gone = {f"sub-{label}" for path in missing if (label := subject_of(path))}
    with_other = {f"sub-{label}" for path in changed if (label := subject_of(path))}
    return Change(
        published_images=len(published),
        gone=tuple(missing),
        other=tuple(changed),
        before=record.dataset,
        now=identity_of(dataset),
        back=dict(sorted((back or {}).items())),
        gone_subjects=tuple(sorted(with_gone & wholly_gone)),
        here=still_here(missing, dataset),
        decided=len(set(gone).intersection(settled)),
        changed_subjects=tuple(sorted((with_gone | with_other) - (with_gone & wholly_gone))),
        recordings=noun((*published, *(back or {}))) == "file",
    )


def _wholly_gone(published: Collection[str], gone: Collection[str]) -> set[str]:
    """Return the subjects of which every published image is gone.

    If a subject has images outside of derivatives, these decide: a mask that is left is not the subject.
    """
    of_subject: dict[str, list[str]] = {}
    for path in published:
        if label := subject_of(path):
            of_subject.setdefault(f"sub-{label}", []).append(path)
    raw = {subject: [path for path in paths if path.startswith("sub-")] for subject, paths in of_subject.items()}
    return {subject for subject, paths in of_subject.items() if all(path in gone for path in raw[subject] or paths)}


def _differs(image: Image, published: ImageContent, sha256_of: Sha256Of) -> bool:
    """Return whether an image is known to have other bytes. This is not known of one that cannot be read."""
    if image.size == 0 or image.size == published.size:
        return sha256_of(image) not in (None, published.sha256)
    return True


def identity_of(dataset: Dataset) -> DatasetIdentity:
    """Return which dataset this is, as the record keeps it."""
    doi = str(dataset.description.get("DatasetDOI") or "").strip()
    subjects = {image.sub for image in dataset.images if image.sub is not None}
    size = sum(image.size for image in dataset.images)
    return DatasetIdentity(
        name=dataset.name,
        doi=doi,
        subjects=len(subjects),
        images=len(dataset.images),
        size=size,
        recordings=recordings(image.path for image in dataset.images),
    )


def _named(what: str, names: tuple[str, ...], noun: str) -> list[str]:
    if not names:
        return []
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    counted = f"{len(names):,} {noun}{'' if len(names) == 1 else 's'}"
    return [f"  {counted} {what}: {', '.join(names[:NAMED])}{more}"]


def _described(dataset: DatasetIdentity) -> str:
    doi = f", DOI {dataset.doi}" if dataset.doi else ""
    files = dataset.recordings
    # one image is "1 images", as in the records of older versions
    inside = both(dataset.images - files, files) if files else f"{dataset.images:,} images"
    return f"{dataset.name!r}{doi} ({dataset.subjects:,} subjects, {inside})"
