"""How a dataset compares with what is published of it: what is left to do, and whether too much has changed."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from flows.messages import say_what_was_changed
from flows.run_graph import quoted
from flows.target import HeldTarget
from tasks.approve import read_gate
from tasks.disk.content_cache import ContentCache
from tasks.record.accepted import read_accepted, write_accepted
from tasks.record.ask_shards import ask_shards, corrected, to_ask
from tasks.record.change import Change, change
from tasks.record.drift import drift_around, replaced_texts
from tasks.record.kept_removals import all_of, read_keepings
from tasks.record.published import Work, decide
from tasks.record.remote import Remote, find_edited
from tasks.record.removals import Removals
from tasks.record.removed_before import read_removed, write_removed
from tasks.report.status import is_open
from tasks.values.format import number
from tasks.values.models import Dataset, Listing, PublicationRecord, ShardSpec
from tasks.values.settings import Settings


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

    Raises:
        ShardUnreadable: the Hub sends other bytes of one of them than it lists.
    """
    inputs = contents.unchanged, held.staging.read_whole, texts, approved
    work = decide(shards, remote.record, listing, *inputs)
    if asked := to_ask(work, remote, listing):
        going = {spec.path for spec in shards} | work.removals.shards.keys()
        lines = held.steps.take(ask_shards, held.hub, asked, listing, going, number(len(asked), "shard"))
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


def settled(held: HeldTarget, approved: Removals | None, record: PublicationRecord) -> frozenset[str]:
    """Return the images that a person has decided about, or is being asked about. They no longer count as a change."""
    gate = read_gate(held.staging)
    asked = gate.removals.images if gate is not None and is_open(gate) else frozenset()
    decided = all_of(read_keepings(held.staging)).images | read_accepted(held.staging).within(record)
    return decided | asked | (approved.images if approved else frozenset())
