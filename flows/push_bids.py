"""The chain: load, check, plan, stage, transfer, commit, verify, approve (suspended), cleanup."""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, cast

from huggingface_hub import constants
from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import BeforeValidator, Field

from flows.connect import BlockName, Folder, RepoId, Revision
from flows.find_work import Found, Order, find, find_again, rehearsed
from flows.messages import (
    earlier_of,
    failures,
    log_waiting,
    nothing_to_publish,
    say_what_is_committed,
    say_what_is_published,
    shards_failed,
    show_dry_run,
    show_findings,
    skipped,
)
from flows.publish import Publishing
from flows.removal import (
    asked_already,
    nothing_removed,
    planned_removal,
    remember_removed,
    removed_state,
    to_ask,
    to_draw,
)
from flows.run_graph import quoted
from flows.target import HeldTarget, on_target
from flows.verification import expected_on_hub
from flows.verify_to_cleanup import Approved, tail, tail_again
from tasks.approve import at_its_gate, claim, has_claimed
from tasks.bids.not_fetched import absent
from tasks.card import About, CardVersions, Pictures, card, draw_pictures, pictures_on, same_card
from tasks.commit.other_files import Besides, as_recorded, outdated
from tasks.disk.staging import Target
from tasks.record.change import identity_of
from tasks.record.modes import changed_modes, executable_files, other_modes
from tasks.record.published import Work
from tasks.record.remote import Remote
from tasks.record.removals import Removals
from tasks.report.evidence import Evidence, copies
from tasks.report.progress import Progress
from tasks.report.status import status_at
from tasks.runs.this_run import later_night, named_for_the_night
from tasks.values.errors import PushError
from tasks.values.models import Gated, Removed, Verification
from tasks.values.preflight_rules import Defacing, Entry, Statement
from tasks.values.settings import Settings, stage_workers

#: Threads are enough, because embedding reads, writes and hashes, and all three release the GIL.
WORKERS = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=stage_workers()))


#: Lists that may stay empty. The form sends an empty list as nothing.
MaybeNone = BeforeValidator(lambda value: [] if value is None else value)
Entries = Annotated[list[Entry], MaybeNone]
Fields = Annotated[list[str], MaybeNone]
Patterns = Fields
Bytes = Annotated[int, Field(ge=0), BeforeValidator(lambda value: value or 0)]
Count = Bytes


@flow(
    name="push-bids",
    flow_run_name=partial(named_for_the_night, "push"),
    task_runner=WORKERS,
    persist_result=False,
)
def push_bids(
    source: Path,
    repo_id: RepoId,
    defacing: Defacing,
    dry_run: bool = False,
    revision: Revision = "main",
    private: bool = True,
    verification: Verification = "sample",
    removed: Removed = "keep",
    exclude: Patterns = [],  # noqa: B006 - Prefect reads the default for the form, and nobody changes it
    include: Patterns = [],  # noqa: B006
    strip: Fields = [],  # noqa: B006
    allow: Entries = [],  # noqa: B006
    gated: Gated = "no",
    validate_bids: bool = False,
    staging_root: Folder = "",
    max_staged_bytes: Bytes = 0,
    token_block: BlockName = "",
    accept_changes: Count = 0,
) -> State:
    """Publish a BIDS dataset on the Hugging Face Hub, verify it there, and ask before anything staged is deleted.

    Only what is missing on the Hub is embedded and sent, so the same run may be started every night. Before anything is
    staged or sent, the dataset is searched for what should not be published: a dataset with images of heads needs your
    statement on `defacing`.

    Args:
        source: The BIDS dataset's folder, as the worker sees it.
        repo_id: The dataset repo on the Hub, as namespace/name. Made if it is missing.
        defacing: Your statement on the faces in images of heads; it stands on the card. defaced: faces were removed.
            no faces: none can be recognised (skull-stripped, phantoms, animals). not defaced, sharing permitted: faces
            are there, and the participants' consent and your ethics board allow to share them. not stated: a dataset
            without images of heads is published, any other is not.
        dry_run: Load, check, plan and compare, publish nothing, and show what would be done.
        revision: The branch to publish on.
        private: Whether the repo is private. One that is there already and public stops the push; nothing changes it.
        verification: listing: compare every shard's size and sha256 with the Hub's listing. sample: and read some
            shards back, byte for byte. full: and read every shard back.
        removed: What to do about shards, rows and texts that are published and that the dataset no longer has. They
            stay on the Hub until a person decides otherwise. keep: name them in the run's state. ask: also open the
            gate for them, where you decide whether exactly these leave the repo, once for each. ask again: also about
            what somebody decided to keep there; a night that a schedule starts takes it as ask.
        exclude: Patterns of files that are not published, as a .gitignore has them, relative to source, such as
            sub-07/, *_T2w.nii.gz or /derivatives/old/. What is published already and is named here is a removal.
        include: Patterns of files that are published although exclude names them; although BIDS has no name for them
            or their format is not looked through, such as *.html: to name one is to say that you have looked; or
            although they are hidden, in sourcedata, or no text in code or stimuli (a stimulus: see that its licence
            lets you). What is hidden or there comes back only by a pattern that names the folder.
        strip: Fields of sidecars and columns of tables that are left out of what is published, of the files themselves
            too. The source is not touched.
        allow: What would stop this push, and you lift. personal-data:name lifts the findings of that rule in that
            field, personal-data alone all that it finds; what stops the push names the entry that lifts it. What was
            lifted stands on the card and in the run, an entry that lifts nothing in the run. Lift unreadable only for
            tables and JSON that you have looked through yourself: nothing else has.
        gated: Whether people have to ask for access on the Hub. auto: they get it at once; manual: you decide. A repo
            that is there already and asks nobody stops the push. no leaves a repo as it is.
        validate_bids: Also run the BIDS validator, if it is installed on the worker (make validator); its errors stop
            the push.
        staging_root: Where shards wait until you let them go. Empty: BIDS_PUSH_STAGING_ROOT of the worker.
        max_staged_bytes: How many bytes may be staged at a time. A run publishes what fits, opens its gate, and says
            how many shards wait for the next run. 0: BIDS_PUSH_MAX_STAGED_BYTES of the worker, or no limit.
        token_block: The name of a Prefect Secret block that holds the Hub's token. Empty: HF_TOKEN of the worker.
        accept_changes: Only when a push has stopped because too much of what is published is gone or has other bytes,
            or because what was removed is back, and all of it is meant: the number of files that it named. For one
            run; another night has another number.
    """
    if night := later_night():
        return skipped(night, status_at(Target(constants.ENDPOINT, repo_id, revision)))
    order = Order(
        source=source,
        repo_id=repo_id,
        exclude=tuple(exclude),
        include=tuple(include),
        statement=Statement(defacing, tuple(allow), tuple(strip)),
        dry_run=dry_run,
        private=private,
        gated=gated,
        verification=verification,
        removed=removed,
        validate_bids=validate_bids,
        max_staged_bytes=max_staged_bytes,
        accept_changes=accept_changes,
    )

    def body(held: HeldTarget) -> State:
        if gate := at_its_gate(held.staging, held.run):
            return tail_again(held, verification, gate, partial(push, held, order))
        return push(held, order)

    return on_target(body, repo_id, revision, token_block, staging_root)


def push(held: HeldTarget, order: Order, approved: Approved | None = None) -> State:
    """Do a night's work, or the removal that a person approved, and return the state in which the run ends."""
    found = find(held, order, approved.gate.removals if approved else None)
    if order.dry_run:
        return show_dry_run(held, rehearsed(held, order, found))
    asked = Removals() if approved else to_ask(held, order.removed, found.work.removals)
    besides = besides_shards(order, found)
    quiet = not (approved or found.work.missing or besides.any(found.remote) or has_claimed(held.staging, held.run.id))
    if quiet and asked_already(held, asked):
        return nothing_to_publish(held, found.work, order.verification, found.remote, found.listing)
    show_findings(held.hub, found.checked)
    if not approved:
        claim(held.staging, held.hub.target, held.run)
    if quiet:
        return tail(held, order.verification, evidence_of(held, found, found.work, found.remote, asked))
    return publish(held, order, found, besides, asked, approved)


def publish(
    held: HeldTarget, order: Order, found: Found, besides: Besides, asked: Removals, approved: Approved | None
) -> State:
    """Stage, send and commit what is missing (or remove what was approved), verify it, and ask about what is staged."""
    limit = order.max_staged_bytes or Settings().max_staged_bytes
    wave, waiting = found.work.wave(limit, held.staging.staged_bytes())
    log_waiting(wave, waiting)
    pictures = draw(held, found)
    besides = replace(
        besides,
        card_of=partial(card, found.dataset, order.repo_id, about=about(found, pictures)),
        texts={**besides.texts, **pictures.files},
    )
    if approved:
        removal = planned_removal(held, approved, wave, found.remote, found.listing, pictures)
        if not removal:
            return nothing_removed(held, approved, removal)
        remember_removed(held, removal, found.remote.record)
        besides = replace(besides, remove=removal, leaving=removal.rows)
    later = frozenset(spec.path for spec in waiting)
    after, failed = send(held, order, found, wave, later, besides, {**found.texts, **pictures.files})
    if not approved and failed.keys() >= {spec.path for spec in wave.missing}:
        say_what_is_committed(
            held, found.remote, after, besides.texts, changed_modes(found.dataset, found.remote.record)
        )
    say_what_is_published(
        held, found.shards, found.work, found.remote, after, found.listing, found.texts, failed, found.here
    )
    evidence = evidence_of(held, found, wave, after, asked, failed, waiting=len(waiting))
    if approved and besides.remove:
        return removed_state(held, approved, besides.remove, evidence, order.verification, sorted(failed))
    if failed:
        earlier = earlier_of(failed, after.record, found.listing)
        not_here = absent(found.dataset.rows, found.folder)
        return shards_failed(held, order.verification, evidence, failures(failed, len(found.shards), earlier, not_here))
    return tail(held, order.verification, evidence)


def send(
    held: HeldTarget,
    order: Order,
    found: Found,
    wave: Work,
    later: frozenset[str],
    besides: Besides,
    texts: Mapping[str, bytes],
) -> tuple[Remote, dict[str, PushError]]:
    """Stage, transfer and commit a wave.

    Args:
        held: the target.
        order: what was ordered.
        found: what was found.
        wave: the work to do.
        later: the paths of shards that have to wait for room.
        besides: what the commits have to bring besides shards.
        texts: every text and picture that the repo is to hold.

    Returns:
        What the target holds then, and the errors of the shards that could not be staged, by path in the repo.
    """
    hub, staging = held.hub, held.staging
    staging.require_room(sum(spec.room for spec in wave.stage))

    def plan_again() -> tuple[Work, Remote, Besides]:
        work, remote, listing = find_again(held, order, found, later)
        return work, remote, besides.planned_again(remote, texts, listing, work.done, work.removals.rows)

    size = sum(spec.size for spec in wave.missing)
    progress = Progress(len(found.shards), len(wave.done), len(wave.missing), size)
    publishing = Publishing(hub, held.lease, found.folder, found.shards, staging, found.contents, progress, held.steps)
    after = publishing.publish(wave, found.remote, besides, plan_again)
    progress.leave(f"push-{held.run.id}", f"What this run did for {hub.target}")
    return after, publishing.failed


def besides_shards(order: Order, found: Found) -> Besides:
    """Return what the commits have to bring besides shards."""
    shown = about(found, pictures_on(found.remote.card, found.listing))
    executable = executable_files(found.dataset, found.remote.record)
    return Besides(
        card_of=partial(card, found.dataset, order.repo_id, about=shown),
        texts=outdated(found.texts, found.listing),
        recorded=as_recorded(found.texts, executable),
        dataset=identity_of(found.dataset),
        lost=found.work.lost,
        planned=found.remote.record,
        record=found.remote.to_mend,
        corrected=found.remote.corrected,
        same_card=same_card,
        executable=executable,
        modes=other_modes(found.work.done, found.remote.record, executable),
    )


def about(found: Found, pictures: Pictures) -> About:
    """Return what the card says that is neither in the dataset nor in the record."""
    return About(found.checked, pictures, CardVersions.of(found.dataset))


def draw(held: HeldTarget, found: Found) -> Pictures:
    """Return the card's pictures, of images that this run leaves on the Hub."""
    images = to_draw(found.dataset, found.work, found.remote.record)
    before = pictures_on(found.remote.card, found.listing)
    return held.steps.take(draw_pictures, quoted(images), before, found.known_contents())


def evidence_of(
    held: HeldTarget,
    found: Found,
    wave: Work,
    after: Remote,
    asked: Removals,
    failed: Mapping[str, PushError] = MappingProxyType({}),
    waiting: int = 0,
) -> Evidence:
    """Return what this run leaves to be verified, and to be shown at its gate."""
    sent = frozenset(spec.path for spec in wave.missing) - failed.keys()
    in_place = sent | {spec.path for spec in found.work.done}
    receipts = (held.staging.read_receipt(spec) for spec in found.shards if spec.path in in_place)
    return Evidence(
        expected_on_hub(found.remote.record, after.record, found.listing, in_place),
        copies(held.staging, filter(None, receipts)),
        sent,
        held.status.drift,
        found.work.removals,
        asked,
        found.named,
        found.here,
        source=found.folder,
        waiting=waiting,
        checked=found.checked,
        left_out=found.dataset.left_out,
        texts=found.texts,
        whole=True,
        own_commit=after.commit,
        read=(found.remote.record, found.listing),
    )
