"""This run as the Prefect server knows it: its id and name, its tags, and whether a deployment stands behind it."""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime

import httpx
from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.sorting import FlowRunSort
from prefect.context import FlowRunContext
from prefect.settings import PREFECT_UI_URL

from tasks.disk.staging import Target
from tasks.runs.ended_gates import GATE_KEY, WAITS, name_ended_gates
from tasks.runs.lost_task_runs import name_those_of_killed_runs


@dataclass(frozen=True)
class ThisRun:
    """The flow run that this process works for."""

    id: str
    name: str
    count: int
    """Prefect's count of this run's starts. A Retry raises it, a resume does not."""
    deployed: bool
    """Whether a deployment made this run. Only such a run can be suspended, because somebody has to start its process
    again.
    """
    asked: bool = False
    """Whether it was suspended at its gate before, so that this start is a return to it."""

    @classmethod
    def of(cls, target: Target) -> "ThisRun":
        """Return the run of the current context, tagged with its repo and its target.

        People and other runs find it by these tags. Earlier runs of the target that ended at their gates get the states
        that say so.
        """
        run = cls.flow_run()
        tags = {*run.tags, target.repo_id, target_tag(target)} - {WAITS}
        with get_client(sync_client=True) as client:
            if tags != set(run.tags):
                client.update_flow_run(run.id, tags=sorted(tags))
            with suppress(httpx.HTTPError):  # this is about other runs: whoever comes next names them
                name_ended_gates(client, FlowRunFilter.model_validate({"tags": {"all_": [target_tag(target)]}}))
                name_those_of_killed_runs(client, [target_tag(target)])
        asked = any(key.startswith(GATE_KEY) for key in run.empirical_policy.pause_keys or ())
        return cls(str(run.id), run.name, run.run_count, run.deployment_id is not None, asked)

    @staticmethod
    def flow_run() -> FlowRun:
        """Return Prefect's own record of the run of the current context, as it was when this process started.

        Raises:
            RuntimeError: the code does not run in a flow run.
        """
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            raise RuntimeError("not in a flow run")
        return context.flow_run


def later_night() -> FlowRun | None:
    """Return a later run of the same schedule and parameters which does this run's work, or None.

    After days without a worker or a server, every night that was missed is due at once. So are the nights that came
    while a long one was working. They start in any order. The latest night that is due, or has begun, does the work of
    all before it.

    A run that a person has started is no such night. Neither is one that has begun before, because it was at its gate
    or is retried.
    """
    run = ThisRun.flow_run()
    if not run.auto_scheduled or run.run_count > 1 or run.empirical_policy.pause_keys or not run.expected_start_time:
        return None
    at_work = ["SCHEDULED", "PENDING", "RUNNING", "PAUSED", "COMPLETED"]
    nights = FlowRunFilter.model_validate(
        {
            "deployment_id": {"any_": [run.deployment_id]},
            "state": {"type": {"any_": at_work}},
            "expected_start_time": {"after_": run.expected_start_time, "before_": datetime.now(UTC)},
        }
    )
    with get_client(sync_client=True) as client:
        found = client.read_flow_runs(flow_run_filter=nights, sort=FlowRunSort.EXPECTED_START_TIME_DESC)
    for one in found:
        later = one.expected_start_time is not None and one.expected_start_time > run.expected_start_time
        if later and one.auto_scheduled and one.parameters == run.parameters:
            return one
    return None


def named_for_the_night(verb: str) -> str:
    """Return a run's name: what it does, to which repo, and the night (or the minute) it was due, in the worker's time.

    A run that is resumed days later keeps its name.
    """
    name = runtime.flow_run.name or ""
    if name.startswith(f"{verb} "):
        return name
    due = runtime.flow_run.scheduled_start_time.astimezone()
    return f"{verb} {runtime.flow_run.parameters['repo_id']}, {due:%Y-%m-%d %H:%M}"


def target_tag(target: Target) -> str:
    """Return the tag by which the runs of one target find each other on the server."""
    return f"target:{target.slug}"


def ui_link(text: str, path: str) -> str:
    """Return a Markdown link to a page of the Prefect UI, or the text alone if no UI is known."""
    ui = PREFECT_UI_URL.value()
    return f"[{text}]({ui.rstrip('/')}/{path})" if ui else text
