"""The chain: load, preflight, plan, stage, upload, verify, approve (suspended), cleanup."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

from huggingface_hub import constants
from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import BeforeValidator, Field

from flows.connect import BlockName, Folder, RepoId, Revision, source_of
from flows.held import Held, on_target
from flows.publish import Push
from flows.removal import (
    asked_already,
    nothing_removed,
    planned_removal,
    removed_state,
    settled,
    to_ask,
    to_draw,
)
from flows.steps import unseen
from flows.tail import Approved, tail, tail_again
from flows.verified import published, verified
from tasks import report as words
from tasks.approve import at_its_gate, claim, has_claimed, read_gate
from tasks.card import About, Made, card, draw_pictures, pictures_on, same_card, side_files
from tasks.change import change, identity_of
from tasks.contents import FILE as CACHE
from tasks.contents import Contents
from tasks.errors import PushError
from tasks.evidence import Evidence
from tasks.findings import Checked, Defacing, PreflightStopped, Statement, Stop
from tasks.hub import Hub
from tasks.lineage import artifact_key
from tasks.load import load_dataset
from tasks.models import Dataset, Gated, Image, Listing, PublicationRecord, Removed, ShardSpec, Verification
from tasks.plan import plan_shards
from tasks.preflight import check_dataset, check_images
from tasks.progress import Progress
from tasks.published import RECORD, Published, read_target, read_target_again
from tasks.removals import find_removals
from tasks.resume import Drift, Work, decide
from tasks.run import later_night, named_for_the_night
from tasks.settings import Settings, stage_workers
from tasks.staging import Target
from tasks.status import is_open, status_at
from tasks.upload import Changes, as_published, outdated
from tasks.write import WRITER_SETTINGS

#: Threads, because embedding reads, writes and hashes, and all three release the GIL.
WORKERS = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=stage_workers()))


#: Lists that may stay empty, which the form sends as nothing.
MaybeNone = BeforeValidator(lambda value: [] if value is None else value)
Rules = Annotated[list[Stop], MaybeNone]
Fields = Annotated[list[str], MaybeNone]
Bytes = Annotated[int, Field(ge=0), BeforeValidator(lambda value: value or 0)]
Count = Bytes


class ShardsFailed(PushError):
    """Some shards could not be staged. The others are published; no gate opens."""


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
    strip: Fields = [],  # noqa: B006 - Prefect reads the default for the form, and nobody changes it
    allow: Rules = [],  # noqa: B006
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
        removed: What to do about shards, images and texts that are published and that the dataset no longer has. They
            stay on the Hub until a person decides otherwise. keep: name them in the run's state. ask: also open the
            gate for them, where you decide whether exactly these leave the repo.
        strip: Fields of sidecars and columns of tables that are left out of what is published. The source is not
            touched.
        allow: Rules that would stop this push, and that you lift. Each stands on the card and in the run.
        gated: Whether people have to ask for access on the Hub. auto: they get it at once; manual: you decide. A repo
            that is there already and asks nobody stops the push. no leaves a repo as it is.
        validate_bids: Also run the BIDS validator, if it is installed on the worker (make validator); its errors stop
            the push.
        staging_root: Where shards wait until you let them go. Empty: BIDS_PUSH_STAGING_ROOT of the worker.
        max_staged_bytes: How many bytes may be staged at a time. A run publishes what fits, opens its gate, and says
            how many shards wait for the next run. 0: BIDS_PUSH_MAX_STAGED_BYTES of the worker, or no limit.
        token_block: The name of a Prefect Secret block that holds the Hub's token. Empty: HF_TOKEN of the worker.
        accept_changes: Only when a push has stopped because too much of what is published is gone or has other bytes,
            and all of it is meant: the number of images that it named. For one run; another night has another number.
    """
    if night := later_night():
        return skipped(night, status_at(Target(constants.ENDPOINT, repo_id, revision)))
    statement = Statement(defacing, tuple(allow), tuple(strip))

    def work(held: Held) -> State:
        if gate := at_its_gate(held.staging, held.run):
            return tail_again(held, verification, gate, partial(publish, held))
        return publish(held)

    def publish(held: Held, approved: Approved | None = None) -> State:
        hub, staging, steps = held.hub, held.staging, held.steps
        folder = source_of(source)
        dataset = steps.take(load_dataset, folder)
        dataset, checked = steps.take(check_dataset, unseen(dataset), statement, validate_bids)
        if checked.stops and not dry_run:
            show_findings(hub, checked)
            raise PreflightStopped(words.stopped(checked))
        shards = steps.take(plan_shards, unseen(dataset), WRITER_SETTINGS)
        target, listing = steps.take(read_target, hub, make=not dry_run, private=private, gated=gated)
        contents = Contents(staging.folder / CACHE, folder)
        texts = side_files(dataset)
        going = approved.gate.removals if approved else None
        todo = decide(shards, target.record, listing, contents.unchanged, staging.read_whole, texts, going)
        todo = replace(todo, drift=(*todo.drift, *(Drift(RECORD, what) for what in target.damaged)))
        say_what_is_there(held, todo)
        changed = change(dataset, shards, target.record, contents.sha256, settled(held, going))
        if not dry_run:
            changed.require(Settings().max_change, accept_changes)
        if going is not None:
            todo = todo.only(going)
        if todo.missing:
            in_headers = steps.take(check_images, unseen(todo.missing), folder)
            checked = checked.with_more(in_headers)
        if dry_run:
            stops = changed.problem(Settings().max_change, accept_changes), hub.wrong_setup(private, gated)
            return show_dry_run(held, dataset, shards, todo, target.record, checked, [one for one in stops if one])

        about = About(checked, pictures_on(target.card, listing), Made.of(dataset))
        changes = Changes(
            card_of=partial(card, dataset, repo_id, about=about),
            texts=outdated(texts, listing),
            published=as_published(texts),
            dataset=identity_of(dataset),
            lost=todo.lost,
            planned=target.record,
            record=bool(target.damaged),
            same_card=same_card,
        )
        asked = to_ask(held, removed, todo.removals)
        quiet = not (approved or todo.missing or changes.any(target) or has_claimed(staging, held.run.id))
        if quiet and asked_already(held, asked):
            return nothing_to_publish(held, todo, verification, target, listing)
        show_findings(hub, checked)
        known = known_contents(todo, target.record, contents)
        drawn = to_draw(dataset, todo, target.record)
        pictures = about.pictures if quiet else steps.take(draw_pictures, unseen(drawn), about.pictures, known)
        changes = replace(
            changes,
            card_of=partial(card, dataset, repo_id, about=replace(about, pictures=pictures)),
            texts={**changes.texts, **pictures.files},
        )
        if not approved:
            claim(staging, hub.target, held.run)
        wave, waiting = todo.wave(max_staged_bytes or Settings().max_staged_bytes, staging.staged_bytes())
        log_waiting(wave, waiting)
        removal = planned_removal(held, approved, wave, target, listing, pictures) if approved else None
        if approved and removal is not None and not removal:
            return nothing_removed(held, approved, removal)
        changes = replace(changes, remove=removal)
        staging.require_room(sum(spec.room for spec in wave.stage))

        later = {spec.path for spec in waiting}
        own = {**texts, **pictures.files}

        def plan_again() -> tuple[Work, Published, Changes]:
            found, files = steps.take(read_target_again, hub)
            rest = [spec for spec in shards if spec.path not in later]
            left = decide(rest, found.record, files, contents.unchanged, staging.read_whole, texts, going)
            left = left if going is None else left.only(going)
            return left, found, changes.again(found, own, files)

        size = sum(spec.size for spec in wave.missing)
        progress = Progress(len(shards), len(todo.done), len(wave.missing), size)
        push = Push(hub, held.lease, folder, shards, staging, contents, progress, steps)
        done = target if quiet else push.publish(wave, target, changes, plan_again)
        progress.leave(f"push-{held.run.id}", f"What this run did for {hub.target}")
        lines = {**target.record.shards, **done.record.shards}  # what somebody took out meanwhile, verification names
        left = find_removals(shards, done.record, replace(listing, commit=done.commit), texts)
        held.status.published(
            on_hub=sum(lines[spec.path].digest == spec.digest for spec in shards if spec.path in lines),
            failed=sorted(push.failed),
            held=len(todo.held),
            removals=left,
        )
        sent = frozenset(spec.path for spec in wave.missing) - push.failed.keys()
        in_place = sent | {spec.path for spec in todo.done}
        evidence = Evidence(
            published(target.record, done.record, listing, in_place),
            [receipt for spec in shards if spec.path in in_place and (receipt := staging.read_receipt(spec))],
            sent,
            todo.drift,
            todo.removals,
            asked,
            source=folder,
            waiting=len(waiting),
            checked=checked,
            left_out=dataset.left_out,
            texts=texts,
            whole=True,
            made=done.commit,
        )
        if approved and removal:
            return removed_state(held, approved, removal, evidence, verification, sorted(push.failed))
        if push.failed:
            return shards_failed(held, verification, evidence, failures(push.failed, len(shards)))
        return tail(held, verification, evidence)

    return on_target(work, repo_id, revision, token_block, staging_root)


def say_what_is_there(held: Held, work: Work) -> None:
    """Say in the log, and keep for the target's status, what is on the Hub already, what is staged, and what is not."""
    log = get_run_logger()
    planned = len(work.done) + len(work.missing) + len(work.held)
    log.info(
        "%s of %s were on the Hub; %s to do: %s staged already, %s to embed.",
        f"{len(work.done):,}",
        words.number(planned, "shard"),
        f"{len(work.missing):,}",
        f"{len(work.send):,}",
        f"{len(work.stage):,}",
    )
    for drift in work.drift:
        log.warning("Changed on the Hub by somebody else: %s: %s", drift.path, drift.what)
    if work.removals:
        log.warning("No longer in the dataset, and still on the Hub: %s.", work.removals.sentence())
    held.status.learn(
        planned=planned,
        on_hub=len(work.done),
        to_send=len(work.send),
        to_embed=len(work.stage),
        held=len(work.held),
        removals=work.removals,
        failed=(),
    )
    if work.missing:
        held.status.show("Running", read_gate(held.staging))


def skipped(later: FlowRun, status: str) -> State:
    """The end of a night that was missed, or came while another was at work, where a later one is due or done."""
    due = f" of {later.expected_start_time.astimezone():%Y-%m-%d %H:%M}" if later.expected_start_time else ""
    why = f"Nothing was done: this night could not begin when it was due, and the one{due} does its work too."
    return Completed(name="Skipped", message="\n".join(filter(None, (why, status))))


def log_waiting(wave: Work, waiting: Sequence[ShardSpec]) -> None:
    """Say what has to wait until staged shards are let go."""
    if waiting:
        get_run_logger().warning(
            "max_staged_bytes: this run publishes %s shards; %s wait until the staged ones are let go at the gate. "
            "Start the run again then, or leave it to the nightly run.",
            f"{len(wave.missing):,}",
            f"{len(waiting):,}",
        )


def show_findings(hub: Hub, checked: Checked) -> None:
    """Say in the log, one line each, what was found, and leave all of it as an artifact."""
    log = get_run_logger()
    for finding in checked.warnings:
        log.warning("Check before publication: %s", finding)
    for finding in checked.lifted:
        log.warning("Allowed, although it would stop the push: %s", finding)
    if checked.statement.strip:
        log.info("Stripped from what is published: %s", ", ".join(checked.statement.strip))
    log.info("Faces: %s.", checked.statement.defacing)
    if checked.findings:
        create_markdown_artifact(
            words.findings(checked),
            key=artifact_key("findings", hub.target),
            description=f"What was found before the publication of {hub.target}",
        )


def known_contents(work: Work, record: PublicationRecord, contents: Contents) -> Callable[[Image], str | None]:
    """The sha256 of an image: of the record, where its shard is published as it is, else of its bytes now."""
    published = {content.path: content.sha256 for spec in work.done for content in record.shards[spec.path].images}
    return lambda image: published.get(image.path) or contents.sha256(image)


def show_dry_run(
    held: Held,
    dataset: Dataset,
    shards: Sequence[ShardSpec],
    work: Work,
    record: PublicationRecord,
    checked: Checked,
    stops: Sequence[PushError],
) -> State:
    """Leave what would be done as an artifact; `stops` is what would end the push before it stages."""
    create_markdown_artifact(
        words.dry_run(held.hub, dataset, shards, work, record, checked, stops),
        key=f"dry-run-{held.run.id}",
        description=f"Dry run for {held.hub.target}",
    )
    missing = f"{words.number(len(work.missing), 'shard')} of {len(shards):,} would be published"
    if checked.stops:
        missing = f"The push would stop: {', '.join(sorted({one.rule for one in checked.stops}))}. Else {missing}"
    told = "".join(f"\nThe push would stop: {type(one).__name__}. {one}" for one in stops)
    return Completed(name="DryRun", message=f"{missing}. Nothing was sent.{told}")


def shards_failed(held: Held, verification: Verification, evidence: Evidence, failed: str) -> State:
    """The end of a run that could not stage all shards, once what it and others have published is verified."""
    try:
        verified(held, verification, evidence)
    except PushError as error:
        raise type(error)(f"{error}\n{failed}") from error
    raise ShardsFailed(failed)


def nothing_to_publish(
    held: Held, work: Work, verification: Verification, target: Published, listing: Listing
) -> State:
    """The end of a night with nothing changed: what is on the Hub is verified, at the commit that was read."""
    everything = published(target.record, target.record, listing, {spec.path for spec in work.done})
    read = target.record, listing
    verified(held, verification, Evidence(everything, (), whole=True, commit=target.commit, read=read))
    staged = held.staging.receipts()
    gate = read_gate(held.staging)
    ask = (
        f"{gate.flow_run_name} waits at its gate for a decision about them."
        if gate and is_open(gate)
        else "cleanup-staging/cleanup asks about them."
    )
    left = f" {words.size(sum(r.size for r in staged))} are still staged: {ask}" if staged else ""
    held_back = f" Besides, {words.number(len(work.held), 'shard')} held back." if work.held else ""
    return Completed(
        name="NothingToPublish",
        message=f"All {words.number(len(work.done), 'shard')} are on {held.hub.target} already.{held_back}{left}",
    )


def failures(failed: Mapping[str, PushError], total: int) -> str:
    """The sentence in which a run ends when shards could not be staged."""
    listed = "\n".join(f"  {Path(path).stem}: {why}" for path, why in sorted(failed.items())[:20])
    more = f"\n  and {len(failed) - 20} more" if len(failed) > 20 else ""
    return (
        f"{len(failed)} of {words.number(total, 'shard')} could not be staged; the others are published. Nothing was "
        f"deleted, and no gate was opened. Mend these and start the run again:\n{listed}{more}"
    )
