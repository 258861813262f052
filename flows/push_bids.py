"""The chain: load, check, plan, stage, transfer, commit, verify, approve (suspended), cleanup."""

from functools import partial
from pathlib import Path
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows import messages, removal, wave
from flows.find_work import find, rehearsed
from flows.parameters import BlockName, Count, Entries, Folder, RepoId, Revision, Texts
from flows.target import HeldTarget, on_target
from flows.values import Approved, Found, Order, SentWave, Wave
from flows.verify_to_cleanup import tail, tail_again
from tasks.approve import at_its_gate, claim, has_claimed
from tasks.record.removals import Removals
from tasks.runs.this_run import later_night, named_for_the_night
from tasks.values.models import Gated, Removed, Verification
from tasks.values.preflight_rules import Defacing, Statement
from tasks.values.settings import stage_workers

#: Threads are enough, because embedding reads, writes and hashes, and all three release the GIL.
WORKERS = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=stage_workers()))


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
    exclude: Texts = [],  # noqa: B006 - Prefect reads the default for the form, and nobody changes it
    include: Texts = [],  # noqa: B006
    strip: Texts = [],  # noqa: B006
    allow: Entries = [],  # noqa: B006
    gated: Gated = "no",
    validate_bids: bool = False,
    staging_root: Folder = "",
    max_staged_bytes: Count = 0,
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
        return messages.skipped(night, repo_id, revision)
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
        return messages.show_dry_run(held, rehearsed(held, order, found))
    if approved:
        messages.show_findings(held.hub, found.checked)
        return remove(held, order, found, approved)
    asked = removal.to_ask(held, order.removed, found.work.removals)
    quiet = wave.nothing_to_send(order, found) and not has_claimed(held.staging, held.run.id)
    if quiet and removal.asked_already(held, asked):
        return messages.nothing_to_publish(held, order.verification, found)
    messages.show_findings(held.hub, found.checked)
    claim(held.staging, held.hub.target, held.run)
    if quiet:
        nothing_sent = SentWave(Wave(found.work), found.remote)
        return tail(held, order.verification, wave.evidence_of(held, found, nothing_sent, asked))
    return publish(held, order, found, asked)


def publish(held: HeldTarget, order: Order, found: Found, asked: Removals) -> State:
    """Stage, send and commit what is missing and has room, verify it, and ask about what is staged."""
    this_wave = wave.next_wave(held, order, found)
    pictures = wave.draw(held, found)
    sent = wave.send(held, order, found, this_wave, pictures)
    messages.say_what_is_committed(held, found, sent)
    messages.say_what_is_published(held, found, sent)
    evidence = wave.evidence_of(held, found, sent, asked)
    if sent.failed:
        return messages.shards_failed(held, order.verification, evidence, found, sent)
    return tail(held, order.verification, evidence)


def remove(held: HeldTarget, order: Order, found: Found, approved: Approved) -> State:
    """Remove from the Hub what a person approved, by the present dataset and record, and verify what is left."""
    this_wave = wave.next_wave(held, order, found)
    pictures = wave.draw(held, found)
    going = removal.planned_removal(held, approved, this_wave.work, found.remote, found.listing, pictures)
    if not going:
        return removal.nothing_removed(held, approved, going)
    removal.remember_removed(held, going, found.remote.record)
    sent = wave.send(held, order, found, this_wave, pictures, going)
    messages.say_what_is_published(held, found, sent)
    evidence = wave.evidence_of(held, found, sent)
    return removal.removed_state(held, approved, going, evidence, order.verification, sorted(sent.failed))
