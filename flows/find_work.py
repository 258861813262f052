"""What a push finds before it does anything: the dataset, what the target holds, and what is left to do.

The steps are the same in every run: a night, a dry run, and a run that comes back with a person's approval days later.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flows.compare import accept, changed_since, compare
from flows.connect import source_of
from flows.messages import say_what_was_found, show_findings
from flows.run_graph import quoted
from flows.target import HeldTarget
from flows.values import Found, Order
from tasks.bids.not_fetched import absent
from tasks.card import side_files
from tasks.commit.other_files import outdated
from tasks.disk.content_cache import FILE as CACHE
from tasks.disk.content_cache import ContentCache
from tasks.load import load_dataset
from tasks.plan import plan_shards
from tasks.preflight import check_dataset, check_images
from tasks.record.modes import changed_modes
from tasks.record.published import Work
from tasks.record.remote import Remote, read_target, read_target_again
from tasks.record.removals import Removals
from tasks.record.still_here import still_here
from tasks.record.still_named import still_named, subjects_gone
from tasks.report import sentences
from tasks.report.dry_run import Rehearsal
from tasks.values.errors import PushError
from tasks.values.format import number
from tasks.values.models import Dataset, Listing, PublicationRecord, ShardSpec
from tasks.values.preflight_rules import Checked, PreflightStopped
from tasks.values.settings import Settings
from tasks.write import WRITER_SETTINGS


class NothingFetched(PushError):
    """No shard of a dataset can be made, because content is missing on this machine, and nothing is published yet."""


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
    found = Found(
        folder, dataset, checked, shards, remote, listing, contents, texts, work, changed, approved, named, here
    )
    say_what_was_found(held, found)
    work = work if approved is None else work.only(approved)
    if work.missing and not new:
        checked = with_headers(held, order, checked, work.missing, folder)
    return replace(found, work=work, checked=checked)


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
