"""Task runs whose process was lost: nobody is left to say how they ended, and the UI shows them as Running for ever.

Prefect keeps the states of a task run in the process that runs it, and tells the server by events. A machine of a
cluster that dies, or a run that is killed, leaves them as they were. They are marked Crashed, with a sentence in their
state and in their log.
"""

import logging
from collections.abc import Collection
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import LogCreate
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter, TaskRunFilter
from prefect.client.schemas.objects import State, TaskRun
from prefect.states import Crashed

PAGE = 200  # the most that the server gives at a time
#: How long after the end of a run its last events may still arrive.
EVENTS_ARRIVE = timedelta(seconds=30)
DONE_BY_ANOTHER = "The machine that worked on it was lost. Another one has done what was left."
KILLED = "The run was killed while this went on. The next run does what is missing."


def name_lost_task_runs(
    client: SyncPrefectClient,
    runs: FlowRunFilter,
    message: str,
    but_for: Collection[UUID] = (),
    flows: FlowFilter | None = None,
) -> int:
    """Mark the task runs of these runs that are Running or Pending as Crashed.

    Args:
        client: a client of the server.
        runs: flow runs in which nothing goes on any more.
        message: what the state says.
        flows: whose runs, if not of any flow.
        but_for: the ids of task runs that are known to have ended, whose event is late or was dropped.

    Returns:
        How many were marked.
    """
    going_on = TaskRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING", "PENDING"]}}})
    marked: set[UUID] = set()
    while True:
        found = client.read_task_runs(flow_filter=flows, flow_run_filter=runs, task_run_filter=going_on, limit=PAGE)
        lost = [one for one in found if one.id not in marked and one.id not in but_for]
        if not lost:
            return len(marked)
        for one in lost:
            state: State[Any] = Crashed(message=message)
            client.set_task_run_state(one.id, state, force=True)
            marked.add(one.id)
        client.create_logs([_line(one, message) for one in lost])


def _line(lost: TaskRun, message: str) -> LogCreate:
    """Return a line for the log of a task run, with which its page in the UI opens."""
    return LogCreate(
        name="prefect.task_runs",
        level=logging.ERROR,
        message=message,
        timestamp=datetime.now(UTC),
        flow_run_id=lost.flow_run_id,
        task_run_id=lost.id,
    )


def name_those_of_killed_runs(
    client: SyncPrefectClient, tags: Collection[str] = (), flows: FlowFilter | None = None
) -> int:
    """Mark the task runs that were lost with their run, for each run that has crashed and has all of these tags.

    Args:
        client: a client of the server.
        tags: the tags.
        flows: whose runs, if not of any flow.

    Returns:
        How many were marked.
    """
    crashed: dict[str, Any] = {
        "state": {"type": {"any_": ["CRASHED"]}},
        "end_time": {"before_": datetime.now(UTC) - EVENTS_ARRIVE},
    }
    crashed |= {"tags": {"all_": sorted(tags)}} if tags else {}
    return name_lost_task_runs(client, FlowRunFilter.model_validate(crashed), KILLED, flows=flows)
