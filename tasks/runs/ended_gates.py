"""Gates on the server: their keys, and the names of runs that ended at a gate while none of our processes was there.

A run that waits at its gate has no process. If a person cancels it, or its time is over, the server itself ends it with
a name of its own: `Cancelled`, or `Failed` ("... never resumed."). The next one to look gives it a name that says what
happened: the watch (`deployments.watch`), the next run on the target, `make staging`, `python -m deployments.gate`.
They read the run's states on the server and need no event, so it does not matter how much later they come.

A run ended at its gate if the state before its end (apart from `Cancelling`) is a suspension with a key of ours. If
somebody had decided or retried it before cancelling it, that state is `Resuming` or `Running`, and the run is left
alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.filters import (
    ArtifactCollectionFilter,
    ArtifactCollectionFilterKey,
    FlowFilter,
    FlowRunFilter,
)
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.client.schemas.sorting import FlowRunSort
from prefect.exceptions import ObjectNotFound
from prefect.states import Cancelled, Failed

GATE_KEY = "cleanup-"  # how the keys of our suspensions begin
WAITS = "waits for a person"  # the tag of a run at its gate: both UIs show tags in lists and at the top of a run's page
ENDS = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})  # types of states that a run ends in
STATUS = "Status of the target:"  # the beginning of the line that leads to the target's status
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
    """Return the key of one question at a gate.

    A Retry raises the run's count, so an answer given before the Retry no longer counts.
    """
    return f"{GATE_KEY}{run_count}-{attempt}"


def is_open_gate(state: State[Any] | None) -> bool:
    """Return whether a run in this state waits at a gate of ours."""
    return (
        state is not None
        and state.type is StateType.PAUSED
        and (state.state_details.pause_key or "").startswith(GATE_KEY)
    )


def read_runs(client: SyncPrefectClient, runs: FlowRunFilter, flows: FlowFilter | None = None) -> Iterator[FlowRun]:
    """Yield every run that matches, page by page. The caller must not change the runs so that other ones match."""
    offset = 0
    while page := client.read_flow_runs(
        flow_run_filter=runs, flow_filter=flows, sort=FlowRunSort.EXPECTED_START_TIME_DESC, limit=PAGE, offset=offset
    ):
        yield from page
        offset += len(page)


def ended_plainly(client: SyncPrefectClient, of: FlowRunFilter, flows: FlowFilter | None = None) -> list[FlowRun]:
    """Return the runs that were at a gate once, and ended in one of Prefect's own states."""
    plainly = of.model_copy(
        update={"state": FlowRunFilter.model_validate({"state": {"name": {"any_": ["Cancelled", "Failed"]}}}).state}
    )
    return [run for run in read_runs(client, plainly, flows) if _was_at_a_gate(run) and _is_prefects(run.state)]


def _was_at_a_gate(run: FlowRun) -> bool:
    return any(key.startswith(GATE_KEY) for key in run.empirical_policy.pause_keys or ())


def _is_prefects(state: State[Any] | None) -> bool:
    """Return whether the server itself chose this end.

    An end chosen by a person or a run has another name or message.
    """
    if state is None:
        return False
    return state.name == "Cancelled" or (state.name == "Failed" and (state.message or "").endswith(NEVER_RESUMED))


def name_for(states: Sequence[State[Any]]) -> State[Any] | None:
    """Return the state that says what happened to a run, or None if it did not end at its gate.

    Args:
        states: all states of the run, in order.
    """
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
    """Return the last line of a waiting run's message, which says where the target's status is.

    Empty if there is no such line.
    """
    last = ((suspended and suspended.message) or "").rpartition("\n")[2]
    return f"\n{last}" if last.startswith(STATUS) else ""


def name_its_end(client: SyncPrefectClient, run: FlowRun) -> str | None:
    """Give a run that ended at its gate the state that says so. A state that we named already is left alone.

    Returns:
        The name of the new state, or None if none was set.
    """
    states = client.read_flow_run_states(run.id)
    state = name_for(states)
    if state is None:
        return None
    now = client.read_flow_run(run.id).state
    if now is None or now.id != states[-1].id:
        return None  # somebody was faster: a Retry, or another process that names it
    client.set_flow_run_state(run.id, state, force=True)
    return state.name


def tag_as_waiting(client: SyncPrefectClient, run: FlowRun, waits: bool = True) -> None:
    """Tag a run as waiting at its gate, or take the tag away. The tag comes first, since the newer UI shows three tags.

    The tag is there for people only, so a server that is too busy for it is no reason to fail.
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
    """Name the ends of all runs that match and ended at their gates, and take their waiting tags away."""
    for run in ended_plainly(client, of, flows):
        name_its_end(client, run)
    untag_the_ended(client, of, flows)


def newest_version(client: SyncPrefectClient, key: str) -> UUID | None:
    """Return the newest version of the artifact with this key, or None if there is none or the server cannot say.

    The server's `/artifacts/{key}/latest` has the id of the collection of all versions, for which there is no page.
    """
    of_key = ArtifactCollectionFilter(key=ArtifactCollectionFilterKey(any_=[key]))
    try:
        found = client.read_latest_artifacts(artifact_filter=of_key, limit=1)
    except (httpx.HTTPError, ObjectNotFound):
        return None
    return found[0].latest_id if found else None
