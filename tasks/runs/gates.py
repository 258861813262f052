"""Gates on the server: their keys, and the names of runs that ended at one while no process of ours was there.

A run that waits at its gate has no process. When a person cancels it, or when its time is over, the server itself ends
it, in words of its own: `Cancelled`, and `Failed` ("... never resumed."). What that means here is said by whoever comes
next: the watch (`deployments.watch`), the next run on the target, `make staging`, `python -m deployments.gate`. They
ask for the server's record of the run's states and for no event, so it does not matter how much later they come.

A run ended at its gate if the state before its end (apart from `Cancelling`) is a suspension with a key of ours. One
that somebody had decided, or retried, and cancelled afterwards, has a `Resuming` or `Running` there: it is left alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Failed

GATE_KEY = "cleanup-"  # what the keys of our suspensions begin with
WAITS = "waits for a person"  # the tag of a run at its gate: both UIs show tags in lists and at the top of a run's page
ENDS = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})  # types of states that a run ends in
STATUS = "Status of the target:"  # how the line begins that leads to the target's status
PAGE = 200  # runs a request: the most that the server gives

NEVER_RESUMED = "never resumed."  # how Prefect's message ends: paused, suspended, or just being resumed "and never ..."

TO_DECIDE = "To decide after all, run cleanup-staging/cleanup for the same repo."
CANCELLED = (
    "This run was cancelled at its gate. Nothing more is deleted: what is staged stays, and the Hub was verified to "
    f"hold it. {TO_DECIDE}"
)
TIMED_OUT = (
    "Nobody decided at this gate in time, so it was closed. Nothing more is deleted: what is staged stays, and the Hub "
    f"was verified to hold it. {TO_DECIDE}"
)


def gate_key(run_count: int, attempt: int) -> str:
    """The key of one question at a gate: a Retry raises the count, so an answer given before it counts no more."""
    return f"{GATE_KEY}{run_count}-{attempt}"


def is_open_gate(state: State[Any] | None) -> bool:
    """Whether a run in this state waits at a gate of ours."""
    return (
        state is not None
        and state.type is StateType.PAUSED
        and (state.state_details.pause_key or "").startswith(GATE_KEY)
    )


def read_runs(client: SyncPrefectClient, runs: FlowRunFilter, flows: FlowFilter | None = None) -> Iterator[FlowRun]:
    """Every run that matches, page by page. What is done to the runs must not change which of them match."""
    offset = 0
    while page := client.read_flow_runs(
        flow_run_filter=runs, flow_filter=flows, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE, offset=offset
    ):
        yield from page
        offset += len(page)


def ended_plainly(client: SyncPrefectClient, of: FlowRunFilter, flows: FlowFilter | None = None) -> list[FlowRun]:
    """The runs that were at a gate once, and ended in one of Prefect's own states."""
    plainly = of.model_copy(
        update={"state": FlowRunFilter.model_validate({"state": {"name": {"any_": ["Cancelled", "Failed"]}}}).state}
    )
    return [run for run in read_runs(client, plainly, flows) if _was_at_a_gate(run) and _is_prefects(run.state)]


def _was_at_a_gate(run: FlowRun) -> bool:
    return any(key.startswith(GATE_KEY) for key in run.empirical_policy.pause_keys or ())


def _is_prefects(state: State[Any] | None) -> bool:
    """Whether the server itself chose this end: a person's or a run's own has another name, or another message."""
    if state is None:
        return False
    return state.name == "Cancelled" or (state.name == "Failed" and (state.message or "").endswith(NEVER_RESUMED))


def name_for(states: Sequence[State[Any]]) -> State[Any] | None:
    """The state that says what happened, for a run with these states, in order; None if it did not end at its gate."""
    if not states:
        return None
    before = [state for state in states[:-1] if state.type is not StateType.CANCELLING]
    if not before or not is_open_gate(before[-1]) or not _is_prefects(states[-1]):
        return None
    status = status_line(before[-1])
    if states[-1].name == "Cancelled":
        return Cancelled(name="GateCancelled", message=CANCELLED + status)
    return Failed(name="GateTimedOut", message=TIMED_OUT + status)


def status_line(suspended: State[Any] | None) -> str:
    """The last line of the message of a run at its gate, which says where the target's status is; empty if none."""
    last = ((suspended and suspended.message) or "").rpartition("\n")[2]
    return f"\n{last}" if last.startswith(STATUS) else ""


def name_its_end(client: SyncPrefectClient, run: FlowRun) -> str | None:
    """Give a run that ended at its gate the state that says so; its name. A state of a name of ours is left alone."""
    states = client.read_flow_run_states(run.id)
    state = name_for(states)
    if state is None:
        return None
    now = client.read_flow_run(run.id).state
    if now is None or now.id != states[-1].id:
        return None  # somebody was faster: a Retry, or another who names it
    client.set_flow_run_state(run.id, state, force=True)
    return state.name


def tag_as_waiting(client: SyncPrefectClient, run: FlowRun, waits: bool = True) -> None:
    """Tag a run as waiting at its gate, or no more. The tag comes first: the newer UI shows three of them.

    It is there for people alone, so a server that is too busy for it is no reason to fail.
    """
    with suppress(httpx.HTTPError):
        tags = sorted({*client.read_flow_run(run.id).tags} - {WAITS})
        client.update_flow_run(run.id, tags=[WAITS, *tags] if waits else tags)


def untag_the_ended(client: SyncPrefectClient, of: FlowRunFilter, flows: FlowFilter | None = None) -> None:
    """Take the tag from runs that ended at their gates, whoever ended them."""
    tags = [WAITS, *(of.tags.all_ or () if of.tags else ())]
    ended = FlowRunFilter.model_validate({"tags": {"all_": tags}, "state": {"type": {"any_": sorted(ENDS)}}})
    for run in list(read_runs(client, ended, flows)):
        tag_as_waiting(client, run, waits=False)


def name_ended_gates(client: SyncPrefectClient, of: FlowRunFilter, flows: FlowFilter | None = None) -> None:
    """Name the ends of all runs that match and ended at their gates; they wait no more."""
    for run in ended_plainly(client, of, flows):
        name_its_end(client, run)
    untag_the_ended(client, of, flows)


def newest_version(client: SyncPrefectClient, key: str) -> UUID | None:
    """The newest version of the artifact with this key; None if there is none, or nobody can say."""
    try:
        answer = client.request("GET", "/artifacts/{key}/latest", path_params={"key": key})
        return UUID(answer.json()["id"])
    except (httpx.HTTPError, ObjectNotFound):
        return None
