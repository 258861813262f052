"""The chain: load, preflight, plan, stage, upload, verify, approve (suspended), cleanup."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Annotated, Any, cast

from prefect import flow
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import FlowRun, State
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.states import Completed
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner
from pydantic import BeforeValidator, Field

from flows.connect import BlockName, Folder, RepoId, Revision, connect, ends_readably, staging_of
from flows.publish import Push, unseen
from flows.tail import tail, tail_again
from tasks import report as words
from tasks.approve import at_its_gate, claim, has_claimed
from tasks.card import About, Made, card, draw_pictures, pictures_on, same_card, side_files
from tasks.contents import Contents
from tasks.errors import PushError
from tasks.evidence import Evidence
from tasks.findings import Checked, Defacing, PreflightStopped, Statement, Stop
from tasks.hub import Hub
from tasks.lease import holding
from tasks.lineage import artifact_key
from tasks.load import load_dataset
from tasks.models import Dataset, Gated, Image, PublicationRecord, Removed, ShardSpec, Verification
from tasks.plan import plan_shards
from tasks.preflight import check_dataset, check_images
from tasks.progress import Progress
from tasks.published import read_target
from tasks.resume import Work, decide
from tasks.run import ThisRun, later_night, named_for_the_night
from tasks.settings import Settings
from tasks.staging import Staging
from tasks.upload import Changes, outdated
from tasks.write import WRITER_SETTINGS

#: Threads, because embedding reads, writes and hashes, and all three release the GIL.
WORKERS = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=Settings().stage_workers))


#: Lists that may stay empty, which the form sends as nothing.
MaybeNone = BeforeValidator(lambda value: [] if value is None else value)
Rules = Annotated[list[Stop], MaybeNone]
Fields = Annotated[list[str], MaybeNone]
Bytes = Annotated[int, Field(ge=0), BeforeValidator(lambda value: value or 0)]


class ShardsFailed(PushError):
    """Some shards could not be staged. The others are published; no gate opens."""


@flow(
    name="push-bids",
    flow_run_name=partial(named_for_the_night, "push"),
    task_runner=WORKERS,
    persist_result=False,
)
@ends_readably
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
        private: Whether a repo that has to be made is private. An existing one stays as it is.
        verification: listing: compare every shard's size and sha256 with the Hub's listing. sample: and read some
            shards back, byte for byte. full: and read every shard back.
        removed: What to do with published shards that the dataset no longer has. keep: report them. delete: remove
            them from the repo, in the same commit as the record.
        strip: Fields of sidecars and columns of tables that are left out of what is published. The source is not
            touched.
        allow: Rules that would stop this push, and that you lift. Each stands on the card and in the run.
        gated: Whether people have to ask for access on the Hub. auto: they get it at once; manual: you decide. no
            leaves a repo as it is.
        validate_bids: Also run the BIDS validator, if it is installed on the worker (make validator); its errors stop
            the push.
        staging_root: Where shards wait until you let them go. Empty: BIDS_PUSH_STAGING_ROOT of the worker.
        max_staged_bytes: How many bytes may be staged at a time. A run publishes what fits, opens its gate, and says
            how many shards wait for the next run. 0: BIDS_PUSH_MAX_STAGED_BYTES of the worker, or no limit.
        token_block: The name of a Prefect Secret block that holds the Hub's token. Empty: HF_TOKEN of the worker.
    """
    if night := later_night():
        return skipped(night)
    hub = connect(repo_id, revision, token_block)
    staging = staging_of(hub, staging_root)
    run = ThisRun.of(hub.target)
    with holding(staging, hub.target, run) as lease:
        if gate := at_its_gate(staging, run):
            return tail_again(hub, staging, run, verification, gate)

        statement = Statement(defacing, tuple(allow), tuple(strip))
        dataset, checked = check_dataset(unseen(load_dataset(source)), statement, validate_bids)
        if checked.stops and not dry_run:
            show_findings(hub, checked)
            raise PreflightStopped(words.stopped(checked))
        shards = plan_shards(unseen(dataset), WRITER_SETTINGS)
        target, listing = read_target(hub, make=not dry_run, private=private, gated=gated)
        contents = Contents(staging.folder.parent / "contents.sqlite", source)
        work = decide(shards, target.record, listing, contents.unchanged, staging.read_whole)
        if work.missing:
            checked = checked.with_more(check_images(unseen(work.missing), source))
        if dry_run:
            return show_dry_run(hub, run, dataset, shards, work, target.record, checked)

        about = About(checked, pictures_on(target.card, listing), Made.of(dataset))
        changes = Changes(
            card_of=partial(card, dataset, repo_id, about=about),
            texts=outdated(side_files(dataset), listing),
            remove=work.removed if removed == "delete" else (),
            record=bool(target.damaged),
            same_card=same_card,
        )
        if not (work.missing or changes.any(target)) and not has_claimed(staging, run.id):
            return nothing_to_publish(hub, staging, work)
        show_findings(hub, checked)
        pictures = draw_pictures(unseen(dataset), about.pictures, known(work, target.record, contents))
        changes = replace(
            changes,
            card_of=partial(card, dataset, repo_id, about=replace(about, pictures=pictures)),
            texts={**changes.texts, **pictures.files},
        )
        log_drift(work)
        claim(staging, hub.target, run)
        wave, waiting = work.wave(max_staged_bytes or Settings().max_staged_bytes, staging.staged_bytes())
        log_waiting(wave, waiting)
        staging.require_room(sum(spec.room for spec in wave.stage))

        progress = Progress(len(wave.missing), sum(spec.size for spec in wave.missing))
        push = Push(hub, lease, source, staging, contents, progress)
        done = push.publish(wave, target, changes)
        progress.leave(f"push-{run.id}", f"What this run did for {hub.target}")
        if push.failed:
            raise ShardsFailed(failures(push.failed, len(shards)))

        later = {spec.path for spec in waiting}
        published = [spec for spec in shards if spec.path not in later]
        lines = {**target.record.shards, **done.record.shards}  # what somebody took out meanwhile, verification names
        expected = [lines[spec.path] for spec in published]
        receipts = [receipt for spec in published if (receipt := staging.read_receipt(spec))]
        sent = frozenset(spec.path for spec in wave.missing)
        evidence = Evidence(
            expected,
            receipts,
            sent,
            work.drift,
            work.removed,
            source=source,
            waiting=len(waiting),
            checked=checked,
            left_out=dataset.left_out,
        )
        return tail(hub, staging, run, verification, evidence)


def skipped(later: FlowRun) -> State:
    """The end of a night that was missed, or came while another was at work, where a later one is due or done."""
    return Completed(
        name="Skipped",
        message="Nothing was done: this night could not begin when it was due, and a later one of its schedule does "
        f"its work too: {later.name}.",
    )


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


def known(work: Work, record: PublicationRecord, contents: Contents) -> Callable[[Image], str | None]:
    """The sha256 of an image: of the record, where its shard is published as it is, else of its bytes now."""
    published = {content.path: content.sha256 for spec in work.done for content in record.shards[spec.path].images}
    return lambda image: published.get(image.path) or contents.sha256(image)


def show_dry_run(
    hub: Hub,
    run: ThisRun,
    dataset: Dataset,
    shards: Sequence[ShardSpec],
    work: Work,
    record: PublicationRecord,
    checked: Checked,
) -> State:
    """Leave what would be done as an artifact."""
    create_markdown_artifact(
        words.dry_run(hub, dataset, shards, work, record, checked),
        key=f"dry-run-{run.id}",
        description=f"Dry run for {hub.target}",
    )
    missing = f"{words.number(len(work.missing), 'shard')} of {len(shards):,} would be published"
    if checked.stops:
        missing = f"The push would stop: {', '.join(sorted({one.rule for one in checked.stops}))}. Else {missing}"
    return Completed(name="DryRun", message=f"{missing}. Nothing was sent.")


def nothing_to_publish(hub: Hub, staging: Staging, work: Work) -> State:
    """The end of a night with nothing changed."""
    staged = staging.receipts()
    left = (
        f" {words.size(sum(r.size for r in staged))} are still staged: cleanup-staging/cleanup asks about them."
        if staged
        else ""
    )
    return Completed(
        name="NothingToPublish",
        message=f"All {words.number(len(work.done), 'shard')} are on {hub.target} already.{left}",
    )


def log_drift(work: Work) -> None:
    """Say what somebody else changed on the Hub, and what the dataset no longer has."""
    log = get_run_logger()
    for drift in work.drift:
        log.warning("Changed on the Hub by somebody else: %s: %s", drift.path, drift.what)
    for path in work.removed:
        log.warning("Published, and no longer in the dataset: %s (removed=delete takes it from the repo)", path)


def failures(failed: dict[str, str], total: int) -> str:
    """The sentence in which a run ends when shards could not be staged."""
    listed = "\n".join(f"  {name}: {why}" for name, why in sorted(failed.items())[:20])
    more = f"\n  and {len(failed) - 20} more" if len(failed) > 20 else ""
    return (
        f"{len(failed)} of {words.number(total, 'shard')} could not be staged; the others are published. Nothing was "
        f"deleted, and no gate was opened. Mend these and start the run again:\n{listed}{more}"
    )
