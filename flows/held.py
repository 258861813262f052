"""A run and the target that it holds: how a flow takes it, and how it ends in a state that people can read."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Failed

from flows.connect import connect, staging_of
from flows.steps import Steps
from tasks.approve import Superseded, read_gate
from tasks.errors import PushError
from tasks.hub import Hub
from tasks.lease import Lease, holding
from tasks.run import ThisRun
from tasks.staging import Staging
from tasks.status import StatusBoard, with_link


@dataclass(frozen=True)
class Held:
    """The target that this run holds, and no other run with it."""

    hub: Hub
    staging: Staging
    run: ThisRun
    lease: Lease
    status: StatusBoard
    steps: Steps


def on_target(work: Callable[[Held], State], repo_id: str, revision: str, token_block: str, staging_root: str) -> State:
    """Do a flow's work while it holds its target; the state in which the run ends.

    A `PushError` ends the run Failed with its sentence, in the state and in the log, without a stack trace; a run that
    lost its gate to a newer one ends Cancelled. Any other exception is a bug, and keeps its own. Each state says where
    the target stands.
    """
    hub: Hub | None = None
    try:
        hub = connect(repo_id, revision, token_block)
        staging = staging_of(hub, staging_root)
        run = ThisRun.of(hub.target)
        with holding(staging, hub.target, run) as lease:
            status = StatusBoard.of(hub, staging, run)
            try:
                state = work(Held(hub, staging, run, lease, status, Steps()))
            except PushError as error:
                state = ended_by(error)
            return status.ended(state, read_gate(staging))
    except PushError as error:  # the target could not be held: another run shows how it stands, if any does
        return ended_by(error) if hub is None else with_link(ended_by(error), hub.target)


def ended_by(error: PushError) -> State:
    """The state of a run that an error has ended."""
    state: State[Any]
    if isinstance(error, Superseded):
        get_run_logger().warning("%s", error)
        state = Cancelled(name="Superseded", message=str(error))
    else:
        get_run_logger().error("%s", error)
        state = Failed(name=type(error).__name__, message=str(error))
    return state
