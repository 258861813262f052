"""What a push finds before it does anything: the dataset, what the target holds, and what is left to do.

The steps are the same in every run: a night, a dry run, and a run that comes back with a person's approval days later.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from flows.connect import source_of
from flows.messages import (
    say_what_is_not_stripped,
    say_what_is_there,
    say_what_is_written_anew,
    say_what_was_changed,
    show_findings,
)
from flows.removal import settled
from flows.run_graph import quoted
from flows.target import HeldTarget
from tasks.bids.not_fetched import absent
from tasks.card import side_files
from tasks.commit.other_files import outdated
from tasks.disk.content_cache import FILE as CACHE
from tasks.disk.content_cache import ContentCache
from tasks.load import load_dataset
from tasks.plan import plan_shards
from tasks.preflight import check_dataset, check_images
from tasks.record.accepted import read_accepted, write_accepted
from tasks.record.ask_shards import ask_shards, corrected, to_ask
from tasks.record.change import Change, change
from tasks.record.drift import drift_around, replaced_texts
from tasks.record.modes import changed_modes
from tasks.record.published import Work, decide
from tasks.record.remote import Remote, find_edited, read_target, read_target_again
from tasks.record.removals import Removals
from tasks.record.removed_before import read_removed, write_removed
from tasks.record.still_here import Why, still_here
from tasks.record.still_named import still_named, subjects_gone
from tasks.report import sentences
from tasks.report.dry_run import Rehearsal
from tasks.values.errors import PushError
from tasks.values.format import number
from tasks.values.models import Dataset, Gated, Image, Listing, PublicationRecord, Removed, ShardSpec, Verification
from tasks.values.preflight_rules import Checked, PreflightStopped, Statement
from tasks.values.settings import Settings
from tasks.write import WRITER_SETTINGS


class NothingFetched(PushError):
    """No shard of a dataset can be made, because content is missing on this machine, and nothing is published yet."""


@dataclass(frozen=True)
class Order:
    """What the operator has ordered. `push_bids` explains the fields."""

    source: Path
    repo_id: str
    exclude: tuple[str, ...]
    include: tuple[str, ...]
    statement: Statement
    dry_run: bool
    private: bool
    gated: Gated
    verification: Verification
    removed: Removed
    validate_bids: bool
    max_staged_bytes: int
    accept_changes: int


@dataclass(frozen=True)
class Found:
    """A dataset, its plan, the target, and how they compare."""

    folder: Path
    """The dataset's folder."""
    dataset: Dataset
    checked: Checked
    shards: tuple[ShardSpec, ...]
    """The plan."""
    remote: Remote
    listing: Listing
    contents: ContentCache
    texts: dict[str, bytes]
    """The dataset's own texts and tables: path in the repo -> bytes."""
    work: Work
    changed: Change
    approved: Removals | None
    """What a person approved to be removed; None if nobody was asked."""
    named: Mapping[str, tuple[str, ...]]
    """Paths of the texts that still name a subject whose shards are withdrawn -> these subjects."""
    here: Mapping[str, Why]
    """The files that would leave the repo and are still in the dataset: path -> why the push leaves them out."""

    def known_contents(self) -> Callable[[Image], str | None]:
        """Return a function that gives the sha256 of an image.

        It comes from the record if the image's shard is published as it is, else from the image's present bytes.
        """
        lines = self.remote.record.shards
        published = {content.path: content.sha256 for spec in self.work.done for content in lines[spec.path].images}
        return lambda image: published.get(image.path) or self.contents.sha256(image)


def find(held: HeldTarget, order: Order, approved: Removals | None) -> Found:
    """Load the dataset, check it, read the target, plan the shards, and compare.

    Args:
        held: the target.
        order: what was ordered.
        approved: what a person approved to be removed. If it is given, only that work is left, and nothing else.

    Raises:
        PreflightStopped: something should not be published as it is.
        NewerLayout: a newer bids-push has published there.
        NothingFetched: nothing is published, and nothing can be, because content is missing.
        TooMuchChanged: much of what is published is gone from the dataset or has other bytes.
        RemovedCameBack: what a person has had removed is in the dataset again.
        UnreadableMemory: nobody knows what was removed.
    """
    staging, steps, held.status.rehearses = held.staging, held.steps, order.dry_run
    folder = source_of(order.source)
    dataset = steps.take(load_dataset, folder, order.exclude, order.include)
    dataset, checked = steps.take(check_dataset, quoted(dataset), order.statement, order.validate_bids)
    if not order.dry_run:
        require_allowed(held, checked)
    remote, listing = read(held, order, make=False)
    shards = steps.take(plan_shards, quoted(dataset), WRITER_SETTINGS, quoted(remote.shards_in(listing)))
    nothing = nothing_fetched(dataset, shards, remote.record)
    if nothing and not order.dry_run:
        raise nothing
    new = not remote.commit and not order.dry_run
    if new:
        checked = with_headers(held, order, checked, shards, folder)
        remote, listing = read(held, order, make=True)
    contents, texts = ContentCache(staging.folder / CACHE, folder), side_files(dataset)
    work, remote = compare(held, shards, remote, listing, contents, texts, approved)
    changed = changed_since(held, dataset, shards, remote.record, contents, approved)
    if not order.dry_run:
        accept(held, changed, order.accept_changes, remote, dataset)
    named = still_named(subjects_gone(work.removals.shards, shards), texts)
    here = still_here(work.removals.files, dataset)
    say_what_is_there(held, work, named, here, there=bool(remote.commit))
    say_what_is_written_anew(held, work, remote.record)
    say_what_is_not_stripped(held, work, checked)
    work = work if approved is None else work.only(approved)
    if work.missing and not new:
        checked = with_headers(held, order, checked, work.missing, folder)
    return Found(
        folder, dataset, checked, shards, remote, listing, contents, texts, work, changed, approved, named, here
    )


def read(held: HeldTarget, order: Order, make: bool) -> tuple[Remote, Listing]:
    """Read what the target holds.

    Args:
        held: the target.
        order: what was ordered.
        make: whether to make a repo that is missing.
    """
    write = not order.dry_run
    task = read_target.with_options(task_run_name="make the repo") if make else read_target
    return held.steps.take(task, held.hub, write=write, make=make, private=order.private, gated=order.gated)


def with_headers(
    held: HeldTarget, order: Order, checked: Checked, shards: Sequence[ShardSpec], folder: Path
) -> Checked:
    """Return what was found, with what is in the headers of the images of these shards.

    Raises:
        PreflightStopped: something in them should not be published, and this is no dry run.
    """
    in_headers = held.steps.take(check_images, quoted(shards), folder)
    checked = checked.with_more(in_headers)
    if not order.dry_run:
        require_allowed(held, checked)
    return checked


def require_allowed(held: HeldTarget, checked: Checked) -> None:
    """Check that nothing was found that stops the push.

    Raises:
        PreflightStopped: something was. All findings are shown before.
    """
    if checked.stops:
        show_findings(held.hub, checked)
        raise PreflightStopped(sentences.stopped(checked))


def nothing_fetched(dataset: Dataset, shards: Sequence[ShardSpec], record: PublicationRecord) -> NothingFetched | None:
    """Return an error if nothing is published, and each shard of images or recordings lacks content that is not here.

    Shards of sidecars and tables alone do not count: git has these even where it has nothing else.
    """
    not_here = None if record.shards else absent(dataset.rows, Path(dataset.root))
    shards = [spec for spec in shards if spec.images]
    if not_here is None or any(all(row.fetched for row in spec.rows) for spec in shards):
        return None
    each = f"Each of the {number(len(shards), 'shard')}" if len(shards) > 1 else "The one shard"
    return NothingFetched(
        f"Nothing was made or sent: {not_here} {each} with images or recordings lacks some of them, and nothing "
        "of the dataset is published yet. Fetch them, and start again."
    )


def compare(
    held: HeldTarget,
    shards: Sequence[ShardSpec],
    remote: Remote,
    listing: Listing,
    contents: ContentCache,
    texts: Mapping[str, bytes],
    approved: Removals | None,
) -> tuple[Work, Remote]:
    """Work out what is to be done, and name what somebody else has changed.

    Where the record cannot be relied on, shards of the repo are asked what they hold.

    Returns:
        The work, and what the target holds, with the lines of these shards.
    """
    inputs = contents.unchanged, held.staging.read_whole, texts, approved
    work = decide(shards, remote.record, listing, *inputs)
    if asked := to_ask(work, remote, listing):
        lines = held.steps.take(ask_shards, held.hub, asked, listing, number(len(asked), "shard"))
        remote = corrected(remote, shards, lines)
        work = decide(shards, remote.record, listing, *inputs)
    return look_for_changes(held, work, shards, remote, listing, texts), remote


def look_for_changes(
    held: HeldTarget,
    work: Work,
    shards: Sequence[ShardSpec],
    remote: Remote,
    listing: Listing,
    texts: Mapping[str, bytes],
) -> Work:
    """Name what somebody else has changed in the record and the texts too, and return the work with all of it."""
    around = [*work.drift, *drift_around(remote, listing, texts, shards)]
    if replaced := replaced_texts(texts, remote.record, listing):
        edited = held.steps.take(find_edited, held.hub, quoted(remote.record), quoted(listing), replaced)
        around += edited
    say_what_was_changed(held, around)
    return replace(work, drift=tuple(around))


def changed_since(
    held: HeldTarget,
    dataset: Dataset,
    shards: Sequence[ShardSpec],
    record: PublicationRecord,
    contents: ContentCache,
    approved: Removals | None,
) -> Change:
    """Compare the dataset with what is published, less what a person has decided about.

    A run that carries out an approved removal publishes nothing that came back, so it asks about nothing such.
    """
    decided = settled(held, approved, record)
    back = {} if approved else read_removed(held.staging).back(dataset.rows, record)
    return change(dataset, shards, record, contents.sha256, decided, back)


def accept(held: HeldTarget, changed: Change, number: int, remote: Remote, dataset: Dataset) -> None:
    """Check that little has changed, or that a person has given the exact number of changes.

    What was accepted as gone is remembered, so it is not asked about the next night. What was removed once and is
    published again is forgotten.

    Args:
        held: the target.
        changed: what has changed.
        number: the number that a person has given, or 0.
        remote: what the target holds.
        dataset: the dataset.

    Raises:
        TooMuchChanged: neither is so.
    """
    part = Settings().max_change
    changed.require(part, number)
    before = read_accepted(held.staging)
    there = {image.path for image in dataset.images}
    after = before.after(changed, changed.asks(part), remote.record, there)
    if after != before:
        write_accepted(held.staging, after)
    removed = read_removed(held.staging)
    if (left := removed.after(dataset.rows, remote.record)) != removed:
        write_removed(held.staging, left)


def find_again(held: HeldTarget, order: Order, found: Found, waiting: frozenset[str]) -> tuple[Work, Remote, Listing]:
    """Find what is left to do after somebody else has committed while this run worked.

    What was accepted when the run began stays accepted, although a part of it is published by now. A commit of this run
    whose answer was lost looks like somebody else's too.

    Args:
        held: the target.
        order: what was ordered.
        found: what was found when the run began.
        waiting: paths of shards that have to wait, and are left out.

    Raises:
        TooMuchChanged: they have published another dataset.
    """
    remote, listing = held.steps.take(read_target_again, held.hub)
    contents = found.contents
    changed = changed_since(held, found.dataset, found.shards, remote.record, contents, found.approved)
    if not changed.within(found.changed):
        changed.require(Settings().max_change, order.accept_changes, meanwhile=True)
    rest = [spec for spec in found.shards if spec.path not in waiting]
    work, remote = compare(held, rest, remote, listing, contents, found.texts, found.approved)
    return work if found.approved is None else work.only(found.approved), remote, listing


def rehearsed(held: HeldTarget, order: Order, found: Found) -> Rehearsal:
    """Return what a dry run shows."""
    return Rehearsal(
        found.dataset,
        found.shards,
        found.work,
        found.remote.record,
        found.checked,
        would_stop(held, order, found),
        outdated(found.texts, found.listing),
        found.changed.looks_other(),
        changed_modes(found.dataset, found.remote.record),
        found.here,
    )


def would_stop(held: HeldTarget, order: Order, found: Found) -> list[PushError]:
    """Return the errors that would end this push before it stages, besides those of the check before publication."""
    nothing = nothing_fetched(found.dataset, found.shards, found.remote.record)
    too_much = found.changed.problem(Settings().max_change, order.accept_changes)
    return [one for one in (nothing, too_much, held.hub.wrong_setup(order.private, order.gated)) if one]
