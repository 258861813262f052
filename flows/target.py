"""A run and the target that it holds: how a flow takes the target, and how it ends in a state that people can read."""

import errno
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from prefect.client.schemas.objects import State
from prefect.exceptions import CancelledRun, FailedRun
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Failed

from flows.connect import connect, staging_of
from flows.run_graph import Steps
from tasks.approve import Superseded, read_gate
from tasks.disk.paths import printable
from tasks.disk.staging import NO_ROOM, DiskFull, Staging
from tasks.hub.client import Hub
from tasks.hub.newest_head import FILE as HEAD
from tasks.hub.newest_head import NewestHead
from tasks.report.status import StatusBoard, status_at
from tasks.runs.few_collections import few_collections
from tasks.runs.lease import Lease, holding
from tasks.runs.this_run import ThisRun
from tasks.values.errors import PushError

#: What the system says if a file or folder of ours cannot be used because of the machine, and not because of our code.
MACHINES_DOING = frozenset(
    {*NO_ROOM, errno.EROFS, errno.EIO, errno.ESTALE, errno.EACCES, errno.EPERM, errno.ENOTCONN, errno.EHOSTDOWN}
)


class StorageFailed(PushError):
    """The system does not let a file or folder be read or written."""


@dataclass(frozen=True)
class HeldTarget:
    """The target that this run holds. No other run holds it at the same time."""

    hub: Hub
    staging: Staging
    run: ThisRun
    lease: Lease
    status: StatusBoard
    steps: Steps
    token_block: str = ""
    """The name of the Secret block that the Hub's token came from, if it came from one."""


class WithoutTraces(logging.Filter):
    """A log filter that removes stack traces of runs and tasks which ended for a reason that a sentence explains.

    Prefect's engine logs a run that returns a Failed or Cancelled state as an "unexpected exception", after the run's
    own sentence. That record is dropped. It logs a task's `PushError` with a trace, which looks like a bug. That trace
    is removed. The traces of real bugs stay.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Return whether the record is logged, and remove the trace of a `PushError` from it."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, PushError):
            record.exc_info = None
        return not isinstance(error, FailedRun | CancelledRun)


for _logger in ("prefect.flow_runs", "prefect.task_runs", "prefect.engine"):
    logging.getLogger(_logger).addFilter(WithoutTraces())


def on_target(
    body: Callable[[HeldTarget], State], repo_id: str, revision: str, token_block: str, staging_root: str
) -> State:
    """Do the body of a flow while it holds its target, and return the state in which the run ends.

    A `PushError` ends the run Failed with its sentence, in the state and in the log, without a stack trace. So does an
    error of the machine's storage. A run that lost its gate to a newer one ends Cancelled. Any other exception is a
    bug, and keeps its trace. Each state says where the target stands.
    """
    hub: Hub | None = None
    try:
        hub = connect(repo_id, revision, token_block)
        staging = staging_of(hub, staging_root)
        hub = replace(hub, newest=NewestHead(staging.folder / HEAD))
        run = ThisRun.of(hub.target)
        with holding(staging, hub.target, run) as lease, few_collections():
            status = StatusBoard.of(hub, staging, run)
            try:
                state = body(HeldTarget(hub, staging, run, lease, status, Steps(), token_block))
            except (PushError, OSError) as error:
                state = ended_by(error)
            return status.ended(state, read_gate(staging))
    except (PushError, OSError) as error:  # the target could not be held; a run that holds it shows how it stands
        state = ended_by(error)
        where = status_at(hub.target) if hub else ""
        return state.model_copy(update={"message": "\n".join(filter(None, (state.message, where)))})


def ended_by(error: PushError | OSError) -> State:
    """Return the state of a run that an error has ended.

    Raises:
        OSError: the error itself, if it is a bug.
    """
    state: State[Any]
    if isinstance(error, OSError):
        if error.errno not in MACHINES_DOING:
            raise error
        error = _storage(error)
    if isinstance(error, Superseded):
        get_run_logger().warning("%s", error)
        state = Cancelled(name="Superseded", message=str(error))
    else:
        get_run_logger().error("%s", error)
        state = Failed(name=type(error).__name__, message=str(error))
    return state


def _storage(error: OSError) -> PushError:
    """Return the error for people if the machine's storage refuses something."""
    where = f"{printable(os.fsdecode(error.filename or 'a file'))}: {error.strerror}"
    if error.errno in NO_ROOM:
        return DiskFull(f"{where}. Free some room there, and start again: what is staged stays.")
    return StorageFailed(f"{where}. Look at that disk, and at the rights of the user who runs this; start again then.")
