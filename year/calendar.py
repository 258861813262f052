"""The loop over the nights: what happens, the run, what people decide, and the oracle after each.

A night goes so: the script's events; somebody who has come for a gate of an earlier night decides; the nightly run;
where it stops since too much has changed and the change is meant, the same with the number that it names (now and then
with a wrong one before); somebody who is still there decides at its gate. What the oracle finds wrong ends the year.
"""

import hashlib
import json
import random
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from uuid import UUID

from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled

from deployments.local_stack import wait_until
from tests.counted_hub import CONTENT
from year import script
from year.oracle import STOPPED, Asked, Disagreement, Oracle, Seen, agree, is_shard
from year.people import Answer, Appointment, appointment
from year.repo import Head, Repo
from year.rig import CLEANUP, PUSH, REPO_ID, Rig
from year.script import Night, Scene, mounted
from year.world import Dataset, World

SUBJECTS = 10  # in the first night
CLOSES = 60.0  # seconds for the server to close a gate whose time is over
DAY = 24 * 3600.0  # seconds


@dataclass
class Tally:
    """The sums over all nights."""

    nights: int = 0
    events: Counter[str] = field(default_factory=Counter)
    states: Counter[str] = field(default_factory=Counter)
    answers: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    runs: int = 0
    removed: int = 0
    """Removals that were carried out."""


@dataclass
class Year:
    """One year on one rig."""

    rig: Rig
    seed: int
    kinds: Mapping[str, tuple[int, script.Event]]
    say: Callable[[str], None]
    oracle: Oracle = field(default_factory=Oracle)
    tally: Tally = field(default_factory=Tally)
    appointment: Appointment | None = None
    ended: dict[UUID, str] = field(default_factory=dict)
    """The runs whose gates ended without a decision -> the name that the next run has to give to their state."""
    done: list[str] = field(default_factory=list)
    """What has happened in this night, in a few words each. They are printed as one line."""

    def __post_init__(self) -> None:
        draw = random.Random(f"{self.seed}-begin")
        world, another = (World(self._empty(name), draw) for name in ("dataset", "another"))
        world.begin(SUBJECTS)
        another.begin(SUBJECTS // 2)
        repo = Repo(self.rig.hub.endpoint, REPO_ID, self.rig.token)
        self.scene = Scene(world, self.rig, repo, Head(), draw, another)

    def _empty(self, name: str) -> Path:
        folder = self.rig.folder / "lab" / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        return folder

    # Nights.

    def live(self, nights: int) -> None:
        """Live so many nights.

        Raises:
            Disagreement: the oracle found something wrong; the message says in which night.
        """
        for number in range(1, nights + 1):
            start = time.monotonic()
            self.done = []
            try:
                self.night(number)
            except Disagreement as error:
                raise Disagreement(
                    f"night {number}, seed {self.seed}: {error}\n  {'; '.join(self.done)}\n  Again: python -m year "
                    f"--seed {self.seed} --until {number}"
                ) from error
            self.tally.nights += 1
            self.tally.seconds += time.monotonic() - start
            self.say(f"{number:4d} {time.monotonic() - start:4.1f} s  {'; '.join(self.done)}")

    def night(self, number: int) -> None:
        """Live one night.

        Args:
            number: the night's number, from 1.

        Raises:
            Disagreement: the oracle found something wrong.
        """
        scene, draw = self.scene, random.Random(f"{self.seed}-{number}")
        scene.draw = scene.world.draw = draw
        scene.head = scene.repo.head(scene.head)  # a night without a run may have had a stranger
        night = script.happen(scene, self.kinds, first=number == 1)
        self.tally.events.update(night.kinds)
        self.done += night.told
        self.oracle.notes = list(scene.notes)
        if any(kind.startswith("stranger") for kind in night.kinds):
            self.oracle.quiet = None
        with mounted(scene.world, night) as (source, dataset):
            self.somebody_comes(number, dataset)
            if not night.skipped:
                self.run(number, night, source, dataset, draw)
                self.somebody_comes(number, dataset)
        self.one_gate_at_most()
        if self.appointment is None and draw.random() < 0.15 and number > 1:
            self.clean_up(number, draw)

    def run(self, number: int, night: Night, source: Path, dataset: Dataset | None, draw: random.Random) -> None:
        """Do the nightly run, and what its operator does after it.

        Args:
            number: the night's number.
            night: what is special about it.
            source: the folder that the run is given, unless the night has another one.
            dataset: what that folder says; None if it is no dataset.
            draw: the source of what is random in it.
        """
        if night.source is not None:
            source = night.source
            dataset = self.scene.another.dataset if source == self.scene.another.root else None
        removed = self.scene.removed
        asked = Asked(dataset, removed, night.verification, hub=night.hub, ignores=bool(self.scene.undo))
        seen, run = self.push(source, asked, night)
        if seen.state in STOPPED and not (night.unmounted or night.source):
            assert dataset is not None
            many = self.oracle.too_many(seen.after, dataset)
            if draw.random() < 0.3:
                self.push(source, replace(asked, accept_changes=many + 1), night)
            seen, run = self.push(source, replace(asked, accept_changes=many), night)
        if seen.state == "Suspended":
            self.appointment = appointment(draw, run, REPO_ID, number)
            if night.gate_seconds:
                wait_until("the server has closed the gate", lambda: not self.waits(run), CLOSES)
                self.gate_ends("GateTimedOut")

    def push(self, source: Path, asked: Asked, night: Night) -> tuple[Seen, UUID]:
        """Do a run of push-bids and have it judged. Return what was seen, and the run's id."""
        parameters = {"accept_changes": asked.accept_changes} if asked.accept_changes else {}
        run = self.rig.start(
            PUSH,
            source=str(source),
            repo_id=REPO_ID,
            defacing="defaced",
            removed=asked.removed,
            verification=asked.verification,
            staging_root=str(self.rig.staging_root),
            **parameters,
        )
        seen = self.watched(run, night)
        self.oracle.push(seen, asked)
        if not seen.killed:
            self.ended_gates_are_named()
        if self.appointment and not self.waits(self.appointment.run):
            agree(self.oracle.takes_over, f"a run that ended {seen.state} took an open gate over")
            self.appointment = None
            if seen.state != "Suspended":
                self.oracle.gate = None
        return seen, run

    def clean_up(self, number: int, draw: random.Random) -> None:
        """Have a person ask, by cleanup-staging, about what is still staged."""
        run = self.rig.start(CLEANUP, repo_id=REPO_ID, staging_root=str(self.rig.staging_root))
        seen = self.watched(run)
        self.oracle.cleanup(seen)
        if seen.state == "Suspended":
            self.appointment = appointment(draw, run, REPO_ID, number)

    # People.

    def somebody_comes(self, number: int, dataset: Dataset | None) -> None:
        """Let somebody decide at the open gate, if they are to come by now."""
        waits, gate = self.appointment, self.oracle.gate
        if waits is None or waits.how == "never" or waits.night > number or gate is None:
            return
        if waits.how == "cancels":
            self.rig.runs.set_state(waits.run, Cancelled(), force=True)
            self.gate_ends("GateCancelled")
            return
        fields = self.fields_of(waits.run)
        agree(("removals" in fields) == bool(gate.removals.files), f"the form asks for {sorted(fields)}")
        for answer in waits.answers(fields):
            self.answer(waits.run, answer, dataset)
            if self.appointment is None:
                return

    def fields_of(self, run: UUID) -> set[str]:
        """Return the names of the fields of the form at a gate."""
        state = self.rig.runs.read(run).state
        assert state is not None
        key = (state.state_details.run_input_keyset or {})["schema"]
        schema = json.loads(self.rig.runs.client.read_flow_run_input(run, key))
        return set(schema["properties"])

    def answer(self, run: UUID, answer: Answer, dataset: Dataset | None) -> None:
        """Send one form, let the run go on, and have it judged."""
        refused = self.rig.runs.decide(run, **answer.form)
        what = ", ".join(f"{name} {value}" for name, value in answer.form.items() if name in ("decision", "removals"))
        what += (
            " and stale files" if answer.form.get("remove_stale") and answer.form.get("decision") == "delete" else ""
        )
        what = what if answer.right else f"wrongly: {what}"
        self.done.append(f"answered {what}")
        self.tally.answers[what] += 1
        agree(refused is None, f"the server did not take the form {dict(answer.form)}: {refused}")
        second = self.rig.runs.decide(run, **{**answer.form, "note": "a second person"})
        agree(second is not None, "a second person's answer was taken as well")
        before = self.scene.head.record
        seen = self.watched(run)
        self.oracle.decided(seen, answer.form, answer.right, dataset)
        self.tally.removed += len(before.keys() - seen.after.record.keys())
        if seen.state != "Suspended":
            self.appointment = None

    def gate_ends(self, name: str) -> None:
        """Note that the gate has ended without a decision, and that the next run has to give it this name."""
        assert self.appointment is not None
        self.done.append(name)
        self.tally.answers[name] += 1
        self.ended[self.appointment.run] = name
        self.appointment = self.oracle.gate = None

    def ended_gates_are_named(self) -> None:
        """Check that the gates at which nobody decided have the right names by now.

        Raises:
            Disagreement: one has not.
        """
        for run, name in self.ended.items():
            state = self.rig.runs.read(run).state
            agree(state is not None and state.name == name, f"a gate that ended is {state and state.name}, not {name}")
        self.ended.clear()

    def waits(self, run: UUID) -> bool:
        """Return whether a run waits at its gate."""
        state = self.rig.runs.read(run).state
        return state is not None and state.is_paused()

    def one_gate_at_most(self) -> None:
        """Check that at most one gate is open, and that it is the one that the oracle knows of.

        Raises:
            Disagreement: it is not so.
        """
        from prefect.client.schemas.filters import FlowRunFilter

        waiting = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
        open_gates = [one for one in self.rig.runs.client.read_flow_runs(flow_run_filter=waiting) if ours(one)]
        agree(len(open_gates) <= 1, f"{len(open_gates)} gates are open")
        known = {self.appointment.run} if self.appointment and self.oracle.gate else set()
        agree({one.id for one in open_gates} == known, f"open: {[one.name for one in open_gates]}, known: {known}")

    # What is seen from outside.

    def watched(self, run: UUID, night: Night | None = None) -> Seen:
        """Have a run work, while what goes wrong in the night goes wrong.

        Returns:
            The run as it was seen from outside.
        """
        scene, hub = self.scene, self.rig.hub
        night = night or Night()
        away, kill = night.hub == "away", night.kill
        environment = {"BIDS_PUSH_GATE_DAYS": f"{night.gate_seconds / DAY:.9f}"} if night.gate_seconds else {}
        before, staged = scene.repo.head(scene.head), self.staged()
        if away:
            hub.stop()
        elif night.rules:
            hub.break_on(*night.rules)
        asked = len(hub.asked())
        try:
            found = self.rig.work(run, (lambda: hub.broken > 0) if kill else None, **environment)
        finally:
            if away:
                hub.start()
            else:
                hub.break_on()
        requests = hub.asked(asked)
        ended = found.state
        if night.gate_seconds and ended is not None and ended.name == "GateTimedOut":  # before anybody could look
            ended = [one for one in self.rig.runs.client.read_flow_run_states(run) if one.name == "Suspended"][-1]
        killed = ended is not None and ended.name == "Crashed" and kill
        scene.head = scene.repo.head(before)
        state = "" if ended is None else (ended.name or "")
        self.tally.runs += 1
        self.tally.states["killed" if killed else state] += 1
        self.done.append("killed" if killed else state)
        content = sum(one.received for one in requests if one.method in {"POST", "PUT"} and CONTENT.search(one.path))
        return Seen(
            before=before,
            after=scene.head,
            staged_before=staged,
            staged_after=self.staged(),
            state=state,
            message=(ended.message or "") if ended else "",
            evidence="\n".join(str(data) for data in self.rig.runs.artifacts(run).values()),
            commits=sum(one.method == "POST" and script.COMMIT in one.path and one.status == 200 for one in requests),
            content=content,
            read_back={path for one in requests if one.method == "GET" and (path := resolved(one.path))},
            killed=killed,
        )

    def staged(self) -> dict[str, str]:
        """Return the staged shards.

        Returns:
            File -> its sha256, and after it the words "without a receipt", if none lies beside it.
        """
        staged = {}
        for path in sorted(self.rig.staging_root.rglob("*.parquet")):
            receipt = path.with_suffix(".receipt.json").exists()
            digest = hashlib.sha256(path.read_bytes()).hexdigest()
            staged["/".join(path.parts[-3:])] = digest if receipt else f"{digest} without a receipt"
        return staged


def ours(run: FlowRun) -> bool:
    """Return whether a run is one on the year's repo."""
    return run.parameters.get("repo_id") == REPO_ID


def resolved(path: str) -> str | None:
    """Return the shard that a request has asked for; None if it has asked for something else."""
    shard = path.partition("/resolve/")[2].partition("/")[2]
    return shard if is_shard(shard) else None
