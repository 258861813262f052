"""The gate: suspends the run until a person decides, with the evidence in front of them.

The process ends while the run is suspended. Days later a new process starts the flow from the top. What the gate showed
is kept in the staging folder (`gate.json`), because the person's decision is about exactly that: only what was shown
may be removed.

The form has a field for each thing that there is to decide (staged files, removals on the Hub), and no default for a
decision, so no path approves by itself. The repo's name must be typed. A wrong name makes the run ask again. The key of
the suspension carries the run's count, so a Retry asks again too.

The Suspended state's message says that a person is awaited, until when, and about what.
"""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, cast

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.exceptions import Abort, Pause
from prefect.input import RunInput
from prefect.input.run_input import keyset_from_paused_state
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Failed, Suspended
from prefect.utilities.engine import propose_state_sync
from pydantic import Field, ValidationError, create_model

from tasks.disk.files import write_whole
from tasks.disk.staging import Staging, Target
from tasks.disk.untrusted import NOT_ORDINARY
from tasks.report.evidence import Approval, Choice, Fate, Gate
from tasks.runs.ended_gates import gate_key, status_line, tag_as_waiting
from tasks.runs.this_run import ThisRun, target_tag
from tasks.values.errors import PushError


class NotThisRepo(PushError):
    """The name typed into the form is not the repo's."""


class Superseded(PushError):
    """A newer run has taken over the gate to which this run comes back."""


class CannotAsk(PushError):
    """The run cannot be suspended at its gate."""


class GateElsewhere(PushError):
    """The gate to which this run comes back is not in the staging folder that this worker sees."""


Fence = Callable[[], None]
"""A function that raises if this run does not hold the target any more."""


class GateForm(RunInput):
    """The form of any gate. `Question.form` gives it the fields, in the order in which people see them."""


def read_gate(staging: Staging) -> Gate | None:
    """Return the target's gate if a run has claimed it, else None.

    A damaged file counts as no gate: nobody's approval is read into it.
    """
    try:
        return Gate.model_validate_json(staging.read(staging.gate))
    except (*NOT_ORDINARY, ValidationError):
        return None


def at_its_gate(staging: Staging, run: ThisRun) -> Gate | None:
    """Return the gate that this run opened before, if it comes back to it: resumed by a person, or retried. Else None.

    Raises:
        Superseded: another run has claimed the target since. An answer given here is about older evidence.
        GateElsewhere: the run was asked before, and what it showed is not here.
    """
    gate = read_gate(staging)
    if gate is not None and gate.flow_run_id == run.id:
        return gate if gate.opened_at_commit is not None else None
    if not run.asked:
        return None
    if gate is not None:
        raise Superseded(superseded_by(gate.flow_run_name))
    raise GateElsewhere(
        f"this run was asked about staged files that are not in {staging.folder} on this machine: it was resumed by a "
        "worker on another machine, or the folder was moved. Nothing was deleted. Run cleanup-staging/cleanup on the "
        "machine that has them (`make staging` there lists them)."
    )


def superseded_by(name: str) -> str:
    """Return the sentence with which a run ends if another run has taken over its gate."""
    return (
        f"The newer run {name} works on the same target and has taken this gate over: what it sends or removes is not "
        "in the evidence shown here. Nothing was deleted. Decide at the gate of that run; if it has opened none, start "
        "cleanup-staging/cleanup. Removals that were asked about here stay on the Hub: the next push with removed=ask "
        "asks about them again, and cleanup-staging/cleanup never does."
    )


def write_gate(staging: Staging, gate: Gate) -> None:
    """Keep the gate in its file, whole and flushed to the disk, before anyone is asked."""
    write_whole(staging.gate, gate.model_dump_json(indent=1).encode())


def has_claimed(staging: Staging, flow_run_id: str) -> bool:
    """Return whether an earlier start of this run has begun to publish, so that its gate is still to come."""
    gate = read_gate(staging)
    return gate is not None and gate.flow_run_id == flow_run_id


def claim(staging: Staging, target: Target, run: ThisRun) -> list[str]:
    """Take the target's gate for this run, before it publishes anything.

    Returns:
        The names of the runs that lose their gates.
    """
    superseded = supersede(target_tag(target), run)
    write_gate(staging, Gate(flow_run_id=run.id, flow_run_name=run.name, target=str(target)))
    return superseded


def supersede(tag: str, newer: ThisRun) -> list[str]:
    """Cancel the older runs that wait at the gate of the target with this tag.

    One target has at most one open gate, because the older evidence does not show what the newer run publishes.

    Returns:
        The names of the cancelled runs.
    """
    superseded = []
    with get_client(sync_client=True) as client:
        suspended = FlowRunFilter.model_validate({"tags": {"all_": [tag]}, "state": {"type": {"any_": ["PAUSED"]}}})
        for run in client.read_flow_runs(flow_run_filter=suspended):
            if str(run.id) == newer.id:
                continue
            message = superseded_by(newer.name) + status_line(run.state)
            state: State[Any] = Cancelled(name="Superseded", message=message)
            client.set_flow_run_state(run.id, state, force=True)
            tag_as_waiting(client, run, waits=False)
            superseded.append(run.name)
    return superseded


@dataclass(frozen=True)
class Question:
    """What a person is asked, and for how long."""

    evidence: str
    """Markdown that is shown above the form. It is short, because a long text hides the form's fields."""
    picture: str
    """Markdown of a picture below the evidence. It is left out if there is a mistake to tell of instead."""
    files: str
    """Where the staged files are, as the form says it. Empty if there are none to decide about."""
    waits: str
    """What the run's page says while the run waits."""
    expires: datetime
    """The time when the question is closed. The server then ends the run, and nothing is deleted."""
    removals: str = ""
    """What is on the Hub and no longer in the dataset, in one line. Empty if that is not to be decided."""
    stale: bool = True
    """Whether there may be leftovers in the staging folder."""
    copies: bool = True
    """Whether staged copies of what the Hub holds are shown, not leftovers alone."""

    def form(self, mistake: str) -> type[GateForm]:
        """Return the form, with what was wrong with the last answer."""
        shown = f"**Not accepted:** {mistake}\n\n{self.evidence}" if mistake else self.evidence + self.picture
        fields: dict[str, Any] = {}
        if self.files:
            copies = "remove the staged copies of what the Hub holds"
            leftovers = "remove the stale files, if you say so below; no staged copy is to be decided about"
            what = f"delete: {copies if self.copies else leftovers} ({self.files}). keep: leave everything."
            fields["decision"] = (Choice, Field(title="Decision", description=what))
        if self.removals:
            what = f"remove: take from the repo {self.removals}. keep: leave it."
            fields["removals"] = (Fate, Field(title="Removals", description=what))
        what = "Type the repo's name (namespace/name), to confirm it."
        fields["confirm_repo"] = (str, Field(title="Repo name", description=what))
        if self.files and (self.stale or not self.removals):  # a form with one more field crops what stands above it
            what = "Also remove leftovers of older or broken runs."
            fields["remove_stale"] = (bool, Field(default=False, title="Remove stale files too", description=what))
        told = "the log, told with what is kept" if self.removals else "the run's log"
        what = f"Why, and who you are: kept in {told}."
        fields["note"] = (str, Field(default="", title="Note", description=what))
        return create_model("CleanupForm", __base__=GateForm, **fields).with_initial_data(description=shown)

    def message(self, mistake: str) -> str:
        """Return what the state of the run says, with what was wrong with the last answer."""
        return f"Not accepted: {mistake}\n{self.waits}" if mistake else self.waits


def ask(repo_id: str, run: ThisRun, question: Question, fence: Fence = lambda: None) -> Approval:
    """Suspend the run until a person decides.

    This must be called in a flow run of a deployment, outside of any task. Each further question has a key of its own,
    so an answer is never read twice.

    Args:
        repo_id: the name that has to be typed.
        run: this run.
        question: what the person sees.
        fence: raises if the run does not hold the target any more. Then another run may have a gate by now, and this
            one opens none: a target has one at most.

    Returns:
        What they decided, once the repo's name is right.

    Raises:
        CannotAsk: the server does not let the run wait, because somebody has changed its state meanwhile.
    """
    mistake, attempt = "", 0
    while True:
        attempt += 1
        key = gate_key(run.count, attempt)
        try:
            form = suspend(question.form(mistake), key, question.expires, question.message(mistake), fence)
            answer = form.model_dump()
            require_name(answer["confirm_repo"], repo_id)
            return Approval(flow_run_id=run.id, **answer)
        except ValidationError as error:
            problem = error.errors()[0]
            mistake = f"{'.'.join(map(str, problem['loc']))}: {problem['msg']}."
        except NotThisRepo as error:
            mistake = str(error)
        mistake += " Nothing was deleted. Please decide again."


def suspend(form: type[GateForm], key: str, expires: datetime, message: str, fence: Fence) -> GateForm:
    """Return the answer to the question with this key. The first time, suspend the run, which ends this process.

    This is Prefect's `suspend_flow_run` with a message. Prefect's own takes no message for the state, and setting the
    state a second time would undo the answer of somebody who was faster.

    Raises:
        CannotAsk: the run is in a state in which it cannot be suspended.
    """
    run = ThisRun.flow_run()
    state: State[Any] = Suspended(pause_expiration_time=expires, pause_key=key, message=message)
    keyset = keyset_from_paused_state(state)
    state.state_details.run_input_keyset = {str(what): key for what, key in keyset.items()}
    fence()
    with get_client(sync_client=True) as client:
        try:
            now = propose_state_sync(client, state, run.id)
        except Abort as error:
            raise CannotAsk(cannot_ask(str(error))) from error
        if now.is_running():  # asked before, and resumed
            return cast(GateForm, form.load(keyset))
        if not now.is_paused():
            raise CannotAsk(cannot_ask(f"the run is {now.name} by now."))
        try:
            fence()
        except PushError as error:  # this process stood still just then
            client.set_flow_run_state(run.id, Failed(name=type(error).__name__, message=str(error)), force=True)
            raise
        form.save(keyset)
        tag_as_waiting(client, run)
    get_run_logger().warning("%s", message)  # a run's page opens with its log; the state's message is under Details
    raise Pause(state=now)


def cannot_ask(why: str) -> str:
    """Return the sentence that ends a run which could not ask."""
    return (
        f"the gate could not be opened: {why} Nothing was deleted, and what is staged stays. Retry the run, or run "
        "cleanup-staging/cleanup."
    )


def require_name(typed: str, repo_id: str) -> None:
    """Check that the person typed the name of this repo.

    Raises:
        NotThisRepo: they typed another one.
    """
    if typed.strip() != repo_id:
        shown = typed.strip().replace("`", "'")[:100]
        raise NotThisRepo(f"the repo name typed was `{shown}`, and this gate is about `{repo_id}`.")
