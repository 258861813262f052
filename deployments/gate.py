"""`bids-push gate`: the open gates of a Prefect server, and a decision at one of them, without a browser.

Without arguments it lists the gates that are open. With a repo (or a run's id) it sends the form that the UI sends, and
waits for the result. A worker starts the run again, which checks the form, and verifies the Hub once more before
anything is removed. A gate asks about staged files, about what is on the Hub and no longer in the dataset (removals),
or about both: its form says which. On a terminal it asks for what is missing on the command line. Nothing has a default
that decides.

Exit code 0: the decision was taken (or the gates were listed). 1: it was not, and what is printed last says why.
"""

import signal
import sys
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from shutil import get_terminal_size
from textwrap import wrap
from typing import Any
from uuid import UUID

import httpx
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, PREFECT_UI_URL, temporary_settings

from deployments.automations import OURS
from deployments.defaults import CHOICES
from deployments.entrypoints import WORKER
from deployments.runs import ENDED, Runs, runs_of
from tasks.report.sentences import moment
from tasks.runs.ended_gates import is_open_gate, name_ended_gates, read_runs

WAITING = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
#: How each decision is asked for on a terminal.
ASKED = {
    "decision": "Decision (delete: remove the staged copies; keep: leave everything): ",
    "removals": "Removals (remove: take from the repo what the dataset no longer has; keep: leave it there): ",
}
WAITS_FOR = "Waits for a person"  # the beginning of the line that says where to press in the UI
TRIES = 3  # tries of each request before the server counts as busy
LOOK_EVERY = 0.5  # seconds
AWAY = 120.0  # seconds that the server may be away after the form was sent
WIDTH, NARROWEST = 100, 40  # columns of what is printed about a decision, on a wide and on a narrow terminal
NO_WORKER = 60.0  # seconds without a worker that takes the run up, before that is said


class NoDecision(Exception):
    """Nothing was decided. The message says why: in one line, unless it is what a run has to say."""


@dataclass(frozen=True)
class Given:
    """What the command line says. What it does not say is None, or empty."""

    gate: str | None = None
    """The repo, or the id of the run."""
    decision: str | None = None
    removals: str | None = None
    confirm_repo: str | None = None
    remove_stale: bool = False
    note: str = ""


def main(given: Given) -> int:
    """List the open gates, or decide at one.

    Args:
        given: what the command line says.

    Returns:
        The exit code: 0 if the list was printed, or the decision was carried out; else 1.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, signal.default_int_handler)
    url = PREFECT_API_URL.value()
    if not url:
        return failed("No Prefect server is named: set PREFECT_API_URL=http://<host>:4200/api.")
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: TRIES}), runs_of(url) as runs:
            gates = open_gates(runs)
            if given.gate is None:
                print_gates(gates)
                return 0
            gate = the_gate(gates, given.gate)
            print(decide(runs, gate, form_of(given, gate, runs.questions(gate))))
            return 0
    except NoDecision as error:
        return failed(str(error))
    except KeyboardInterrupt:
        return failed("Stopped. A form that was sent before counts: its run goes on.")
    except httpx.HTTPStatusError as error:
        if error.response.status_code == httpx.codes.UNAUTHORIZED:
            return failed(f"The Prefect server at {url} asks for another login: set PREFECT_API_AUTH_STRING.")
        return failed(f"The Prefect server at {url} answers {error.response.status_code}; try again.")
    except httpx.TransportError:
        return failed(f"The Prefect server at {url} does not answer. Is PREFECT_API_URL right?")


def failed(why: str) -> int:
    """Print why nothing was decided, and return the exit code for it."""
    print(why, file=sys.stderr)
    return 1


def open_gates(runs: Runs) -> list[FlowRun]:
    """Return the runs that wait at a gate, the oldest first.

    Runs that ended at their gates meanwhile get the states that say so.
    """
    name_ended_gates(runs.client, FlowRunFilter(), OURS)
    found = [run for run in read_runs(runs.client, WAITING, OURS) if is_open_gate(run.state)]
    return sorted(found, key=lambda run: str(run.state and run.state.timestamp))


def print_gates(gates: Sequence[FlowRun]) -> None:
    """Print the list for people."""
    if not gates:
        print("No gate is open.")
    for gate in gates:
        print(described(gate))


def described(gate: FlowRun) -> str:
    """Return a few lines about one gate: whose it is, when it opened and closes, what it asks about, where to look."""
    state = gate.state
    if state is None:
        return gate.name
    expires = state.state_details.pause_timeout
    ui = PREFECT_UI_URL.value()
    lines = [
        f"{target_of(gate)}: {gate.name}, run {gate.id}",
        f"  open since {moment(state.timestamp)}" + (f", closes {moment(expires)}" if expires else ""),
        *(f"  {line}" for line in (state.message or "").splitlines() if not line.startswith(WAITS_FOR)),
        *([f"  {ui.rstrip('/')}/runs/flow-run/{gate.id}"] if ui else []),
    ]
    return "\n".join(lines)


def target_of(gate: FlowRun) -> str:
    """Return the repo of a run, and its revision if it is not main."""
    repo, revision = gate.parameters.get("repo_id", ""), gate.parameters.get("revision", "main")
    return str(repo) if revision == "main" else f"{repo} at {revision}"


def the_gate(gates: Sequence[FlowRun], wanted: str) -> FlowRun:
    """Return the one open gate of this repo, or of the run with this id.

    Raises:
        NoDecision: there is none, or more than one.
    """
    found = [gate for gate in gates if wanted in (gate.parameters.get("repo_id"), str(gate.id))]
    if not found:
        names = ", ".join(sorted({target_of(gate) for gate in gates}))
        raise NoDecision(f"No gate is open for {wanted}. Open are: {names or 'none'}.")
    if len(found) > 1:
        ids = ", ".join(f"{gate.id} ({target_of(gate)}, {gate.name})" for gate in found)
        raise NoDecision(f"{len(found)} gates are open for {wanted}. Give the id of the run instead: {ids}.")
    return found[0]


def form_of(options: Given, gate: FlowRun, questions: Collection[str]) -> dict[str, object]:
    """Return the form with the answers of the command line. The person is asked for what is missing there.

    Args:
        options: the command line.
        gate: the run that waits.
        questions: the fields of its form.

    Returns:
        The answers by field.

    Raises:
        NoDecision: something is missing, and nobody is there to be asked. Or the command line decides about something
            that the gate does not ask.
    """
    given = {name: getattr(options, name) for name in CHOICES}
    for name, decision in given.items():
        if decision is not None and name not in questions:
            raise NoDecision(
                f"This gate does not ask for --{name}: leave it out. "
                f"It asks about: {' and '.join(decisions_in(questions))}."
            )
    missing = [name for name in CHOICES if name in questions and given[name] is None]
    confirmed, note = options.confirm_repo, options.note
    if missing or confirmed is None:
        if not sys.stdin.isatty():
            give = " and ".join(f"--{one} {CHOICES[one][0]} (or keep)" for one in decisions_in(questions))
            raise NoDecision(f"Give {give} and --confirm-repo NAME: there is no terminal to ask on.")
        print(described(gate))
        given |= {one: typed(ASKED[one], CHOICES[one]) for one in missing}
        confirmed = confirmed if confirmed is not None else typed("Type the repo's name: ")
        note = note or input("Note (why, and who you are; may stay empty): ")
    stale = {"remove_stale": options.remove_stale} if "remove_stale" in questions else {}
    return {one: given[one] for one in decisions_in(questions)} | {"confirm_repo": confirmed, **stale, "note": note}


def decisions_in(questions: Collection[str]) -> list[str]:
    """Return the decisions that a gate asks for."""
    return [name for name in CHOICES if name in questions]


def typed(question: str, choices: Sequence[str] = ()) -> str:
    """Return what a person types. Ask again until it is not empty, and is one of the choices.

    Raises:
        NoDecision: they have closed their terminal.
    """
    while True:
        try:
            answer = input(question).strip()
        except EOFError as error:
            raise NoDecision("Nothing was decided.") from error
        if answer and (not choices or answer in choices):
            return answer


def tell(line: str) -> None:
    """Print a line at once, so that it comes before what is printed after it, even through a pipe."""
    print(line, flush=True)


def decide(runs: Runs, gate: FlowRun, form: dict[str, object], say: Callable[[str], None] = tell) -> str:
    """Send the form and wait for the result.

    Returns:
        The end of the run, for people to read: its name, and its sentences below.

    Raises:
        NoDecision: the server or the run did not take it.
    """
    refused = runs.decide(gate.id, **form)
    if refused:
        raise NoDecision(f"Refused by the server: {' '.join(refused.split())}")
    say(f"Sent to {gate.name}; waiting for what becomes of it ...")
    ended = next_stop(runs, gate.id, gate.state_id, say)
    state = ended.state
    if state is not None and is_open_gate(state):
        raise NoDecision(f"Asked again: {(state.message or '').partition(chr(10))[0]}")
    if state is None or state.type.value != "COMPLETED":
        raise NoDecision(f"Not done: {readable(state)}")
    return f"Decided: {readable(state)}"


def readable(state: State[Any] | None) -> str:
    """Return a state for a terminal: its name, and its message below, a paragraph for each of its lines."""
    name, message = (state.name or "", state.message or "") if state else ("", "")
    width = max(min(get_terminal_size((WIDTH, 24)).columns, WIDTH), NARROWEST)
    lines = [
        wrap(line.strip(), width, initial_indent="  ", subsequent_indent="    ", break_long_words=False,
             break_on_hyphens=False)
        for line in message.splitlines()
    ]  # fmt: skip
    return "\n".join([name, *(part for line in lines for part in line)])


def next_stop(runs: Runs, run: UUID, before: UUID | None, say: Callable[[str], None]) -> FlowRun:
    """Wait until the run has ended, or waits at its gate again, and return it."""
    sent, said = time.monotonic(), False
    while True:
        found = read_through_outages(runs, run)
        state = found.state
        if state is not None and (state.type.value in ENDED or (is_open_gate(state) and state.id != before)):
            return found
        if not said and state is not None and state.type.value == "SCHEDULED" and time.monotonic() - sent > NO_WORKER:
            say(f"No worker has taken the run up yet ({WORKER}); the form is kept. Ctrl-C stops the waiting only.")
            said = True
        time.sleep(LOOK_EVERY)


def read_through_outages(runs: Runs, run: UUID) -> FlowRun:
    """Read the run, and wait for a server that is busy or away: it has the form already.

    Raises:
        NoDecision: the server has been away for too long, or no longer knows the run.
    """
    deadline = time.monotonic() + AWAY
    while True:
        try:
            return runs.read(run)
        except ObjectNotFound as error:
            raise NoDecision("The run was deleted from the server meanwhile.") from error
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if time.monotonic() > deadline:
                raise NoDecision("The form was sent, and the server does not answer any more: look again.") from error
        time.sleep(LOOK_EVERY)


if __name__ == "__main__":
    from deployments.commands import alone

    alone("gate")
