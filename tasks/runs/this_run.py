"""This run, as the Prefect server knows it: its id and name, whether a deployment stands behind it, its tags."""

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
from tasks.runs.gates import GATE_KEY, WAITS, name_ended_gates


@dataclass(frozen=True)
class ThisRun:
    """The flow run that this process works for."""

    id: str
    name: str
    count: int
    """Prefect's count of this run's starts: a Retry raises it, a resume does not."""
    deployed: bool
    """Only a run of a deployment can be suspended: somebody has to start its process again."""
    asked: bool = False
    """Whether it was suspended at its gate before, so that this start is a return to it."""

    @classmethod
    def of(cls, target: Target) -> "ThisRun":
        """The run of the current context, tagged with its repo and its target so that people and runs find it.

        Runs of the target that ended at their gates since get the names of that.
        """
        run = cls.flow_run()
        tags = {*run.tags, target.repo_id, target_tag(target)} - {WAITS}
        with get_client(sync_client=True) as client:
            if tags != set(run.tags):
                client.update_flow_run(run.id, tags=sorted(tags))
            with suppress(httpx.HTTPError):  # it is about other runs: whoever comes next names them
                name_ended_gates(client, FlowRunFilter.model_validate({"tags": {"all_": [target_tag(target)]}}))
        asked = any(key.startswith(GATE_KEY) for key in run.empirical_policy.pause_keys or ())
        return cls(str(run.id), run.name, run.run_count, run.deployment_id is not None, asked)

    @staticmethod
    def flow_run() -> FlowRun:
        """Prefect's own record of the run of the current context, as it was when this process started."""
        context = FlowRunContext.get()
        if context is None or context.flow_run is None:
            raise RuntimeError("not in a flow run")
        return context.flow_run


def later_night() -> FlowRun | None:
    """A later night of the schedule that has made this run, on the same parameters, which does this one's work.

    After days without a worker or a server every night that was missed is due at once; so are those that came while a
    long one was working. They come in any order: the latest that is due, or has begun, does the work of all before it.
    A run that a person has started, or that has begun before (it was at its gate, or is retried), is no such night.
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
    """A run's name: what it does, to which repo, and the night (or the minute) it was due, in the worker's time.

    A run that is resumed days later keeps the name it has.
    """
    name = runtime.flow_run.name or ""
    if name.startswith(f"{verb} "):
        return name
    due = runtime.flow_run.scheduled_start_time.astimezone()
    return f"{verb} {runtime.flow_run.parameters['repo_id']}, {due:%Y-%m-%d %H:%M}"


def target_tag(target: Target) -> str:
    """The tag by which the runs of one target find each other on the server."""
    return f"target:{target.slug}"


def ui_link(text: str, path: str) -> str:
    """A Markdown link to a page of the Prefect UI, or the text alone where no UI is known."""
    ui = PREFECT_UI_URL.value()
    return f"[{text}]({ui.rstrip('/')}/{path})" if ui else text
