"""One wave of work: which shards this run does, how they are sent with all that goes along, and what that leaves.

A wave is the part of the work that fits into the room for staging. Its commits bring more than its shards: the card
with its pictures, the dataset's texts, the record, and a removal that a person has approved.
"""

from dataclasses import replace
from functools import partial

from flows.find_work import find_again
from flows.messages import log_waiting
from flows.publish import publish_missing
from flows.publishing import Publishing
from flows.run_graph import quoted
from flows.target import HeldTarget
from flows.values import Found, Order, SentWave, Wave
from flows.verification import expected_on_hub
from tasks.card import About, CardVersions, Pictures, card, draw_pictures, pictures_on, same_card
from tasks.commit.other_files import Besides, as_recorded, outdated
from tasks.record.change import identity_of
from tasks.record.modes import executable_files, other_modes
from tasks.record.published import Work
from tasks.record.remote import Remote
from tasks.record.removals import Removals
from tasks.report.evidence import Evidence, RemovalPlan, copies
from tasks.report.progress import Progress
from tasks.values.models import Dataset, PublicationRecord
from tasks.values.settings import Settings


def nothing_to_send(order: Order, found: Found) -> bool:
    """Return whether the target holds all that it is to hold: shards, texts, card and record."""
    shown = pictures_on(found.remote.card, found.listing)
    return not (found.work.missing or besides_shards(order, found, shown).any(found.remote))


def next_wave(held: HeldTarget, order: Order, found: Found) -> Wave:
    """Return the part of the work that there is room for, and log what has to wait."""
    limit = order.max_staged_bytes or Settings().max_staged_bytes
    wave = Wave(*found.work.wave(limit, held.staging.staged_bytes()))
    log_waiting(wave)
    return wave


def draw(held: HeldTarget, found: Found) -> Pictures:
    """Return the card's pictures, of images that this run leaves on the Hub."""
    images = to_draw(found.dataset, found.work, found.remote.record)
    before = pictures_on(found.remote.card, found.listing)
    return held.steps.take(draw_pictures, quoted(images), before, found.known_contents())


def to_draw(dataset: Dataset, work: Work, record: PublicationRecord) -> Dataset:
    """Return the dataset with only the images that this run leaves on the Hub. The card shows slices of no others."""
    images = [image for spec in (*work.done, *work.missing) for image in spec.rows]
    for spec in work.held_back:
        published = {image.path for image in record.shards[spec.path].images}
        images += [image for image in spec.rows if image.path in published]
    return replace(dataset, images=tuple(images))


def besides_shards(order: Order, found: Found, pictures: Pictures, removal: RemovalPlan | None = None) -> Besides:
    """Return what the commits have to bring besides shards: the card with these pictures, texts, record, a removal."""
    about = About(found.checked, pictures, CardVersions.of(found.dataset))
    executable = executable_files(found.dataset, found.remote.record)
    return Besides(
        card_of=partial(card, found.dataset, order.repo_id, about=about),
        texts={**outdated(found.texts, found.listing), **pictures.files},
        recorded=as_recorded(found.texts, executable),
        dataset=identity_of(found.dataset),
        remove=removal,
        leaving=removal.rows if removal else {},
        lost=found.work.lost,
        planned=found.remote.record,
        record=found.remote.to_mend,
        corrected=found.remote.corrected,
        same_card=same_card,
        executable=executable,
        modes=other_modes(found.work.done, found.remote.record, executable),
    )


def send(
    held: HeldTarget,
    order: Order,
    found: Found,
    wave: Wave,
    pictures: Pictures,
    removal: RemovalPlan | None = None,
) -> SentWave:
    """Stage, transfer and commit a wave, with all that its commits bring besides shards."""
    work = wave.work
    held.staging.require_room(sum(spec.room for spec in work.stage))
    besides = besides_shards(order, found, pictures, removal)
    texts = {**found.texts, **pictures.files}
    later = frozenset(spec.path for spec in wave.waiting)

    def plan_again() -> tuple[Work, Remote, Besides]:
        left, remote, listing = find_again(held, order, found, later)
        return left, remote, besides.planned_again(remote, texts, listing, left.done, left.removals.rows)

    size = sum(spec.size for spec in work.missing)
    progress = Progress(len(found.shards), len(work.done), len(work.missing), size)
    publishing = Publishing(held, found.folder, found.shards, found.contents, progress)
    after = publish_missing(publishing, work, found.remote, besides, plan_again)
    progress.leave(f"push-{held.run.id}", f"What this run did for {held.hub.target}")
    return SentWave(wave, after, tuple(sorted(besides.texts)), publishing.failed)


def evidence_of(held: HeldTarget, found: Found, sent: SentWave, asked: Removals | None = None) -> Evidence:
    """Return what this run leaves to be verified, and to be shown at its gate.

    Args:
        held: the target.
        found: what was found.
        sent: what was sent.
        asked: the removals that the gate asks about.
    """
    in_place = sent.shards | {spec.path for spec in found.work.done}
    lines = sent.after.record.shards
    staged = (held.staging.read_receipt(spec) for spec in found.shards if spec.path in in_place)
    receipts = (receipt.beside(lines.get(receipt.path)) for receipt in staged if receipt)
    return Evidence(
        expected_on_hub(found.remote.record, sent.after.record, found.listing, in_place),
        copies(held.staging, receipts),
        sent.shards,
        held.status.drift,
        found.work.removals,
        asked or Removals(),
        found.named,
        found.here,
        source=found.folder,
        waiting=len(sent.wave.waiting),
        checked=found.checked,
        left_out=found.dataset.left_out,
        texts=found.texts,
        whole=True,
        own_commit=sent.after.commit,
        read=(found.remote.record, found.listing),
    )
