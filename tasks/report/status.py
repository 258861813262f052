"""Where a target stands, at a glance: one artifact for each target, which every run on it keeps up to date.

What a run has found is kept in the target's staging folder (`status.json`). So a run that ends before it knows anything
(a dataset that cannot be loaded, a Hub that is away) still shows what the run before it knew. The file is a memory for
people, and never a ground for a decision: it may be lost or damaged without harm.

The artifact's key is the same for all runs. So the UI lists what the runs have left as versions of one artifact, the
newest first. The last sentence of every run's state leads to the version which that run has left.
"""

import re
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import cast
from uuid import UUID

import httpx
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.logging import get_run_logger
from prefect.settings import PREFECT_UI_URL
from pydantic import ValidationError

from tasks.disk.failed_shards import WHAT, read_failed, unsound_shards
from tasks.disk.files import write_whole
from tasks.disk.sample_rounds import Round
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.record.change import TooMuchChanged
from tasks.record.kept_removals import Keeping, read_keepings, read_kept
from tasks.record.published import Drift, Work
from tasks.record.removals import Removals
from tasks.record.still_here import Why, gone_or_left_out, in_words
from tasks.report.evidence import Gate, VerificationFailed, VerificationReport
from tasks.report.lineage import artifact_key
from tasks.report.sentences import ASK_AGAIN, LISTED, cell, drifted, kept_by, still_named_in, table
from tasks.runs.ended_gates import STATUS, newest_version
from tasks.runs.this_run import ThisRun, target_tag, ui_link
from tasks.values.format import in_units, number
from tasks.values.kinds import counted
from tasks.values.models import Value, Verification

LAST_RUNS = 10  # runs in the artifact's table
NAMED = 5  # shards that a sentence names
WAITING = ("Suspended", "Paused")  # states of a run that waits at its gate


class Verified(Value):
    """The last time that a run verified the target."""

    at: datetime
    commit: str
    level: Verification
    shards: int
    read_back: int


class Rotation(Value):
    """How far the round is in which every published shard is read back."""

    number: int
    since: datetime
    read: int
    """The number of shards that were read back in it."""
    shards: int
    """The number of shards that are published."""
    left: int
    """The number of shards to be read back before it ends."""
    nights: int
    """The number of nights that this takes at the present pace."""
    once_in: int
    """The number of nights in which each shard is read back once."""


class Ended(Value):
    """How the last run on the target ended."""

    run: str
    """Its name."""
    state: str
    at: datetime
    why: str
    """The first sentence of its message."""


class Looked(Value):
    """A time at which a run looked at the target."""

    run: str
    """Its name."""
    id: str
    at: datetime
    drift: tuple[tuple[str, str], ...] = ()
    """The first of what somebody else had changed by then, each as its path and what it is."""
    more: int = 0
    """How many more there were."""


class TargetStatus(Value):
    """What is known about a target, from the last run that could tell. The numbers are of shards."""

    planned: int | None = None
    """The shards of the dataset; None until a run has loaded it."""
    on_hub: int = 0
    to_send: int = 0
    """Staged here, and not on the Hub."""
    to_embed: int = 0
    """Neither staged here nor on the Hub."""
    held_back: int = 0
    """On the Hub in a version that has more files than the dataset. They are held back until a person decides."""
    removals: Removals = Removals()
    """What is on the Hub and no longer in the dataset."""
    named: Mapping[str, tuple[str, ...]] = {}
    """Paths of texts that stay published -> the subjects of `removals` that they still name."""
    here: Mapping[str, Why] = {}
    """The files of `removals` that are still in the dataset, and that the push leaves out: path -> why."""
    failed: tuple[str, ...] = ()
    """Paths of shards that could not be staged."""
    earlier: tuple[str, ...] = ()
    """Those of them of which the Hub keeps an earlier version."""
    there: bool = False
    """Whether the repo was seen on the Hub."""
    looked: Looked | None = None
    """The last time that a run compared the target with its dataset: the numbers are of then."""
    changed: Looked | None = None
    """The last time that a run looked for what somebody else had changed, though it may have stopped at that."""
    ended: Ended | None = None
    verified: Verified | None = None
    rotation: Rotation | None = None


@dataclass
class StatusBoard:
    """The status of the target that this run holds."""

    hub: Hub
    staging: Staging
    run: ThisRun
    known: TargetStatus = field(default_factory=TargetStatus)
    artifact: UUID | None = None
    """The version that this run left last."""
    checked: str = ""
    """A sentence about what this run has verified."""
    drift: tuple[Drift, ...] = ()
    """What this run found changed on the Hub by somebody else."""
    anew: str = ""
    """A sentence about shards that this run writes anew because bids-push lays them out otherwise now."""
    unstripped: str = ""
    """A sentence about shards that `strip` does not reach, because they stay as they were published."""
    committed: str = ""
    """A sentence about what this run has committed besides shards, if it has committed none of those."""
    rehearses: bool = False
    """Whether this is a dry run: what it finds, by parameters that no other run may have, is kept for none of them."""

    @classmethod
    def of(cls, hub: Hub, staging: Staging, run: ThisRun) -> "StatusBoard":
        """Return the board with what earlier runs knew."""
        try:
            known = TargetStatus.model_validate_json(staging.read(staging.status))
        except (OSError, ValidationError):
            known = TargetStatus()
        return cls(hub, staging, run, known)

    def learn(self, **found: object) -> None:
        """Keep what this run has found.

        Args:
            found: fields of `TargetStatus`.

        Raises:
            OSError: the file cannot be written.
        """
        self.known = TargetStatus.model_validate(self.known.model_dump() | found)
        if self.rehearses:
            return
        write_whole(self.staging.status, self.known.model_dump_json(indent=1).encode(), durable=False)

    def found_changed(self, drift: Sequence[Drift]) -> None:
        """Keep what somebody else has changed on the Hub, besides what this run has found in other files before."""
        again = {one.path for one in drift}
        self.drift = tuple(dict.fromkeys((*(one for one in self.drift if one.path not in again), *drift)))
        first = tuple((one.path, one.what) for one in self.drift[:LISTED])
        self.learn(changed=self._look(first, len(self.drift) - len(first)))

    def _look(self, drift: tuple[tuple[str, str], ...] = (), more: int = 0) -> Looked:
        return Looked(run=self.run.name, id=self.run.id, at=datetime.now(UTC), drift=drift, more=more)

    def found(self, work: Work, named: Mapping[str, Sequence[str]], here: Mapping[str, Why], there: bool) -> None:
        """Keep what a comparison of the target with its dataset has found.

        Args:
            work: what is left to do.
            named: paths of texts that stay published -> the withdrawn subjects that they still name.
            here: files that would leave the repo and are still in the dataset -> why they are left out.
            there: whether the repo is on the Hub.
        """
        self.learn(
            planned=len(work.done) + len(work.missing) + len(work.held_back),
            on_hub=len(work.done),
            to_send=len(work.send),
            to_embed=len(work.stage),
            held_back=len(work.held_back),
            removals=work.removals,
            named=named,
            here=here,
            failed=(),
            earlier=(),
            there=there,
            looked=self._look(),
        )

    def published(
        self,
        on_hub: int,
        failed: Sequence[str],
        earlier: Sequence[str],
        held_back: int,
        removals: Removals,
        named: Mapping[str, Sequence[str]],
        here: Mapping[str, Why],
    ) -> None:
        """Keep what the Hub holds after this run has sent what it could.

        Args:
            on_hub: the number of shards on the Hub.
            failed: the paths of shards that could not be staged.
            earlier: the paths of those of which the Hub keeps an earlier version.
            held_back: the number of shards that are held back.
            removals: what is on the Hub and no longer in the dataset.
            named: paths of texts that stay published -> the subjects of `removals` that they still name.
            here: the files of `removals` that are still in the dataset -> why they are left out.
        """
        missing = max((self.known.planned or on_hub) - on_hub - held_back - len(earlier), 0)
        self.learn(
            on_hub=on_hub,
            to_send=0,
            to_embed=missing,
            failed=failed,
            earlier=earlier,
            held_back=held_back,
            removals=removals,
            named=named,
            here=here,
            there=True,
        )

    def verified(self, report: VerificationReport, sentence: str) -> None:
        """Keep that the target was verified now.

        Args:
            report: the verification.
            sentence: says what was verified.
        """
        self.checked = sentence
        self.learn(
            verified=Verified(
                at=datetime.now(UTC),
                commit=report.commit,
                level=report.level,
                shards=len(report.checks),
                read_back=report.read_back,
            )
        )

    def rotated(self, kept: Round, places: int) -> None:
        """Keep how far the round is in which every shard is read back.

        Args:
            kept: the round.
            places: the number of shards read back in a night.
        """
        left = kept.left()
        self.learn(
            rotation=Rotation(
                number=kept.number,
                since=kept.since,
                read=kept.read_in_it(),
                shards=len(kept.read) + len(kept.unread),
                left=left,
                nights=-(-left // places),
                once_in=kept.nights,
            )
        )

    def show(self, now: str, gate: Gate | None) -> None:
        """Leave the status as an artifact.

        Args:
            now: what this run does, or the name of the state in which it ends.
            gate: the target's gate, whichever run opened it.
        """
        try:
            runs = last_runs(target_tag(self.hub.target))
            text = markdown(self, now, gate, runs)
            key = artifact_key("target", self.hub.target)
            made = create_markdown_artifact(text, key=key, description=f"{self.hub.target}: {self.sentence()}")
            self.artifact = cast(UUID, made)  # in async code the same function gives a coroutine
        except httpx.HTTPError as error:  # people miss a page; the run's work must not fail for it
            get_run_logger().warning("The status of the target could not be shown: %s", error)

    def sentence(self) -> str:
        """Return one line that says where the target stands."""
        known = self.known
        if known.planned is None:
            return "no run has compared it with its dataset yet"
        missing = known.to_send + known.to_embed + len(known.earlier)
        parts = [f"{known.on_hub:,} of {number(known.planned, 'shard')} on the Hub, {missing:,} to do"]
        parts += [f"{number(len(known.failed), 'shard')} failed"] if known.failed else []
        parts += [f"{number(known.held_back, 'shard')} held back"] if known.held_back else []
        withdrawn = len(known.removals.shards) + len(known.removals.texts)
        parts += [f"{withdrawn:,} withdrawn"] if withdrawn else []
        unsound = read_failed(self.staging)[0]
        parts += [f"{number(len(unsound), 'shard')} failed verification"] if unsound else []
        return "; ".join(parts)

    def ended(self, state: State, gate: Gate | None) -> State:
        """Return the state in which the run ends, with what a person has to know about the target."""
        why = first_sentence(state.message or "")
        ended = Ended(run=self.run.name, state=state.name or "", at=datetime.now(UTC), why=why)
        try:
            self.learn(ended=ended)
        except OSError as error:  # the disk may be why the run ends: its state must say that, and not this
            get_run_logger().warning("The status of the target could not be kept: %s", error.strerror)
        self.show(state.name or "", gate)
        said = state.name == VerificationFailed.__name__  # its own message says it, with what to do
        mistaken = (
            state.name == TooMuchChanged.__name__
        )  # what looks withdrawn there is a mistake, or is yet to be said
        message = self.message(state.message or "", gate, name_failed=not said, name_withdrawn=not mistaken)
        return state.model_copy(update={"message": message})

    def message(
        self,
        said: str,
        gate: Gate | None,
        here: bool = False,
        name_failed: bool = True,
        name_withdrawn: bool = True,
    ) -> str:
        """Return a state's message with the sentences that people need to know about the target.

        They say what was committed and verified, what failed or is withdrawn, and where the target's status is.

        Args:
            said: what the run itself says.
            gate: the target's gate, whichever run opened it.
            here: whether this run waits at it.
            name_failed: whether to name the shards that failed verification.
            name_withdrawn: whether to name what is withdrawn.
        """
        unsound = unsound_shards(read_failed(self.staging)[0]) if name_failed else ""
        where = status_at(self.hub.target, self.artifact)
        withdrawn = self.withdrawn(gate, here) if name_withdrawn else ""
        here_too = (self.anew, self.unstripped, self.committed, self.checked, drifted(self.drift))
        return "\n".join(filter(None, (said, *here_too, unsound, withdrawn, where)))

    def withdrawn(self, gate: Gate | None, here: bool = False) -> str:
        """Return a sentence about what is published and no longer in the dataset; empty if there is nothing.

        Args:
            gate: the target's gate, whichever run opened it.
            here: whether this run waits at it.
        """
        removals = self.known.removals
        if not removals:
            return ""
        undecided = removals.without(read_kept(self.staging))
        kept = [kept_by(keeping, still if still != removals else None) for keeping, still in self.kept()]
        they, them = ("The others", "the others") if kept else ("They", "them")
        if not undecided:
            decide = ""
        elif gate is not None and gate.removals and here:
            decide = f"{they} are to be decided at this gate."
        elif gate is not None and gate.removals == undecided and is_open(gate):
            decide = f"{gate.flow_run_name} waits at its gate for a decision about {them}."
        else:
            decide = f"{they} stay unless a person decides otherwise: run push-bids/manual with removed=ask."
        left_out = self.known.here
        said = f"Withdrawn: {gone_or_left_out(removals.files, left_out)}, and still on the Hub: {removals.sentence()}."
        named = still_named_in(self.known.named)
        return " ".join(filter(None, (said, in_words(left_out), *kept, ASK_AGAIN if kept else "", decide, named)))

    def kept(self) -> list[tuple[Keeping, Removals]]:
        """Return the decisions that keep withdrawn files on the Hub, each with what it keeps there now."""
        removals = self.known.removals
        decisions = (keeping for keeping in read_keepings(self.staging) if not keeping.open_again)
        found = ((keeping, removals.without(removals.without(keeping.removals))) for keeping in decisions)
        return [(keeping, still) for keeping, still in found if still]


def status_at(target: Target, artifact: UUID | None = None) -> str:
    """Return a sentence that says where a target's status is; empty if there is none.

    Args:
        target: the target.
        artifact: the version of the status; None is the newest.
    """
    artifact = artifact or newest(target)
    ui = PREFECT_UI_URL.value()
    if artifact is None:
        return ""
    where = f"{ui.rstrip('/')}/artifacts/artifact/{artifact}" if ui else artifact_key("target", target)
    return f"{STATUS} {where}"


def newest(target: Target) -> UUID | None:
    """Return the newest version of the target's status, or None if there is none or the server cannot say."""
    with get_client(sync_client=True) as client:
        return newest_version(client, artifact_key("target", target))


def is_open(gate: Gate | None) -> bool:
    """Return whether a run waits at this gate of a target, according to the Prefect server."""
    return gate is not None and gate.opened_at_commit is not None and _state_of(gate.flow_run_id) in WAITING


def last_runs(tag: str) -> list[FlowRun]:
    """Return the last runs on the target with this tag, the newest first."""
    on_target = FlowRunFilter.model_validate({"tags": {"all_": [tag]}})
    with get_client(sync_client=True) as client:
        return client.read_flow_runs(flow_run_filter=on_target, sort=FlowRunSort.START_TIME_DESC, limit=LAST_RUNS)


def markdown(board: StatusBoard, now: str, gate: Gate | None, runs: Sequence[FlowRun]) -> str:
    """Return the text of the status artifact."""
    hub, known, target = board.hub, board.known, board.hub.target
    staged = board.staging.staged_shards()
    all_versions = f"artifacts/key/{artifact_key('target', target)}"
    here = f"`{board.staging.folder}` on {socket.gethostname()}"
    rows = [
        ["in the dataset", f"{known.planned:,}"] if known.planned is not None else ["in the dataset", "not known yet"],
        ["on the Hub, as they are in the dataset", f"{known.on_hub:,}"],
        ["missing on the Hub, staged here", f"{known.to_send:,}"],
        ["missing on the Hub, to be embedded", f"{known.to_embed:,}"],
        ["could not be staged in the last run", f"{len(known.failed):,}"],
        ["of these, on the Hub in an earlier version", f"{len(known.earlier):,}"],
        ["on the Hub, their newer version held back for a decision", f"{known.held_back:,}"],
        ["withdrawn: on the Hub, no longer in the dataset", f"{len(known.removals.shards):,}"],
        ["staged here, until somebody lets them go", f"{len(staged):,}, {in_units(sum(staged.values()))}"],
    ]
    parts = [
        f"# {target}",
        f"**{board.sentence()}.** {_repo(hub, known)} Staging folder: {here}.",
        f"As of {datetime.now(UTC):%Y-%m-%d %H:%M} UTC, when {cell(board.run.name)} was {now}. "
        f"{ui_link('All versions, the newest first', all_versions)}.",
        _ended(known.ended),
        _counted(known.looked, board.run),
        table(["shards", ""], rows),
        _verified(hub, known.verified),
        _rotation(known.rotation),
        _gate(gate, board.run, now),
    ]
    unsound, damaged = read_failed(board.staging)
    if damaged:
        parts.append(f"**{cell(damaged)}**")
    if unsound:
        rows = [
            [Path(one.path).stem, f"{one.since:%Y-%m-%d %H:%M} UTC", WHAT[one.cause], one.what]
            for one in unsound.values()
        ]
        parts += [
            "## Failed verification",
            "Each run reads them back, and ends VerificationFailed, until their bytes are right.",
            table(["shard", "since", "", "found"], rows),
        ]
    parts += _withdrawn(board, gate, here=now in WAITING)
    parts += _drift(known.changed)
    parts += _not_staged(known) if known.failed else []
    lines = [
        [
            run.name,
            now if str(run.id) == board.run.id else (run.state.name or "" if run.state else ""),
            f"{run.start_time:%Y-%m-%d %H:%M} UTC" if run.start_time else "",
        ]
        for run in runs
    ]
    parts = [part for part in parts if part]
    return "\n\n".join([*parts, "## Last runs", table(["run", "state", "started"], lines)]) + "\n"


def first_sentence(message: str) -> str:
    """Return the first sentence of a state's message."""
    line = next(iter(message.splitlines()), "")
    return re.split(r"(?<=[.!?]) (?=[A-Z])", line, maxsplit=1)[0]


def _repo(hub: Hub, known: TargetStatus) -> str:
    """Lead to the repo, if there is one to lead to."""
    there = known.there or known.verified
    return f"[The repo]({hub.branch_url()})." if there else f"No run has seen the repo {hub.target} on the Hub yet."


def _ended(last: Ended | None) -> str:
    """Say how the last run ended, and why."""
    if last is None:
        return ""
    return (
        f"The last run that ended, {cell(last.run)}: **{last.state}**, {last.at:%Y-%m-%d %H:%M} UTC. {cell(last.why)}"
    )


def _counted(looked: Looked | None, run: ThisRun) -> str:
    """Say when the counts were made."""
    if looked is None:
        return ""
    who = "this run" if looked.id == run.id else f"an earlier run, {cell(looked.run)}"
    return f"The counts are those of {who}, which compared dataset and Hub {looked.at:%Y-%m-%d %H:%M} UTC."


def _drift(looked: Looked | None) -> list[str]:
    """Describe what the last run that looked has found changed on the Hub by somebody else."""
    if looked is None or not looked.drift:
        return []
    more = f" The first {len(looked.drift):,} of {len(looked.drift) + looked.more:,}:" if looked.more else ""
    return [
        "## Changed on the Hub by somebody else",
        f"Found by {cell(looked.run)}, {looked.at:%Y-%m-%d %H:%M} UTC.{more}",
        table(["file", "what"], looked.drift),
    ]


def _not_staged(known: TargetStatus) -> list[str]:
    """Name the shards that could not be staged, and what the Hub has of them."""
    earlier = set(known.earlier)
    rows = [[Path(path).stem, "its earlier version" if path in earlier else "nothing"] for path in known.failed]
    return ["## Not staged", table(["shard", "the Hub keeps"], rows)]


def _withdrawn(board: StatusBoard, gate: Gate | None, here: bool) -> list[str]:
    """Describe what is published and no longer in the dataset, and who decides about it."""
    removals = board.known.removals
    rows = [[Path(path).stem, counted(files)] for path, files in removals.shards.items()]
    rows += [[Path(path).stem, f"held back: {file}"] for path, files in removals.rows.items() for file in files]
    rows += [[path, "text or table"] for path in removals.texts]
    if not rows:
        return []
    parts = ["## Withdrawn", cell(board.withdrawn(gate, here)), table(["published", "what"], rows)]
    kept = [_kept(keeping, still) for keeping, still in board.kept()]
    return [*parts, "### Kept, as decided", table(["kept", "when", "at the gate of", "note"], kept)] if kept else parts


def _kept(keeping: Keeping, still: Removals) -> list[str]:
    """Return the row of one decision to keep."""
    when = f"{keeping.at:%Y-%m-%d %H:%M} UTC" if keeping.at else "not known"
    run = ui_link(keeping.flow_run_name, f"runs/flow-run/{keeping.flow_run_id}")
    return [still.sentence(), when, run if keeping.flow_run_id else "not known", keeping.note]


def _verified(hub: Hub, last: Verified | None) -> str:
    if last is None:
        return "Never verified from this staging folder."
    back = f", {last.read_back:,} of them read back" if last.read_back else ""
    return (
        f"Last verified ({last.level}): {last.at:%Y-%m-%d %H:%M} UTC at commit "
        f"[{last.commit[:12]}]({hub.commit_url(last.commit)}): {number(last.shards, 'shard')}{back}."
    )


def _rotation(round_: Rotation | None) -> str:
    """Say how far the round is in which every shard is read back."""
    if round_ is None:
        return "No run has read published shards back in turn yet."
    once = f"Each published shard is read back once in {number(round_.once_in, 'night')} that verify it."
    progress = f"Round {round_.number:,}, since {round_.since:%Y-%m-%d}: {round_.read:,} of {round_.shards:,} read back"
    if not round_.left:
        return f"{once} {progress}; it is complete, and the next night begins the next."
    return f"{once} {progress}; at this pace it takes {number(round_.nights, 'more night')}."


def _gate(gate: Gate | None, run: ThisRun, now: str) -> str:
    """Say whether somebody has to decide, and where."""
    if gate is None or gate.opened_at_commit is None:
        return "No gate is open."
    where = ui_link(cell(gate.flow_run_name), f"runs/flow-run/{gate.flow_run_id}")
    state = now if gate.flow_run_id == run.id else _state_of(gate.flow_run_id)
    if state in WAITING:
        until = f" until {gate.expires:%Y-%m-%d %H:%M} UTC" if gate.expires else ""
        return f"**The gate is open{until}**: decide at {where}."
    return f"No gate is open; the last one was that of {where}: {state}."


def _state_of(flow_run_id: str) -> str:
    with get_client(sync_client=True) as client:
        try:
            state = client.read_flow_run(UUID(flow_run_id)).state
        except ObjectNotFound:
            return "not known to this server"
    return state.name or "" if state else ""
