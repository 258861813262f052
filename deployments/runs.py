"""Runs of a Prefect server, as a client sees them: start one, wait for its state, decide at its gate.

It does over the API what the UI's buttons do. The demo, the end-to-end tests and the soak use it.
"""

import json
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    ArtifactFilter,
    ArtifactFilterFlowRunId,
    FlowRunFilter,
    FlowRunFilterId,
    LogFilter,
    LogFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State, TaskRun
from prefect.client.schemas.responses import SetStateStatus
from prefect.client.schemas.sorting import LogSort
from pydantic import ValidationError

#: What Prefect's client raises if the address is none, nobody answers there, or something else than a Prefect server
#: does.
NOT_A_SERVER = (httpx.HTTPError, httpx.InvalidURL, json.JSONDecodeError, ValidationError)
PAGE = 200  # task runs a request: the most that the server gives
FORM_SECONDS = 30.0  # seconds for a gate's form to be stored, and for a busy server to take an answer
NO_FORM_YET = "Run input schema not found."
ENDED = frozenset({"COMPLETED", "FAILED", "CRASHED", "CANCELLED"})


class RunError(Exception):
    """A run did not come to the expected state."""


class Runs:
    """The runs of one server."""

    def __init__(self, client: SyncPrefectClient) -> None:
        self.client = client

    def start(self, deployment: str, env: Mapping[str, str] | None = None, **parameters: Any) -> UUID:
        """Start a run of a deployment, which a worker then picks up.

        Args:
            deployment: as `flow/deployment`.
            env: environment variables for the run.
            parameters: of the flow.

        Returns:
            The run's id.
        """
        found = self.client.read_deployment_by_name(deployment)
        made = self.client.create_flow_run_from_deployment(
            found.id, parameters=parameters, job_variables={"env": dict(env)} if env else None
        )
        return made.id

    def read(self, run: UUID) -> FlowRun:
        """Return the run as it is now."""
        return self.client.read_flow_run(run)

    def wait(self, run: UUID, types: Collection[str] = ENDED, seconds: float = 600.0) -> FlowRun:
        """Wait until the run is in a state of one of these types, and return it.

        Raises:
            RunError: it ended in another state, or did not get there within `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            found = self.read(run)
            state = found.state
            if state is not None and state.type.value in types:
                return found
            if state is not None and state.type.value in ENDED:
                raise RunError(f"the run {found.name} ended {state.name}: {state.message}")
            if time.monotonic() > deadline:
                raise RunError(f"the run {found.name} is {state and state.name} after {seconds:.0f} s")
            time.sleep(0.4)

    def decide(self, run: UUID, **form: Any) -> str | None:
        """Send the gate's form. Return None if the server took it, else why it did not.

        Two problems pass, and the form is sent again: Prefect sets the state Suspended before it stores the form, and a
        busy server says that it is busy.
        """
        deadline = time.monotonic() + FORM_SECONDS
        while True:
            reason, passes = self._send(run, form)
            if not passes or time.monotonic() > deadline:
                return reason
            time.sleep(0.5)

    def questions(self, run: FlowRun) -> list[str]:
        """Return the fields of the form of the gate at which a run waits.

        Prefect stores the form after it sets the state, so this waits for it.
        """
        keyset = (run.state and run.state.state_details.run_input_keyset) or {}
        path = {"id": str(run.id), "key": keyset.get("schema", "")}
        deadline = time.monotonic() + FORM_SECONDS
        while True:
            try:
                answer = self.client.request("GET", "/flow_runs/{id}/input/{key}", path_params=path)
                return list(json.loads(answer.text)["properties"])
            except httpx.HTTPStatusError as error:
                passes = (httpx.codes.NOT_FOUND, httpx.codes.SERVICE_UNAVAILABLE)
                if error.response.status_code not in passes or time.monotonic() > deadline:
                    raise
            time.sleep(0.5)

    def _send(self, run: UUID, form: dict[str, Any]) -> tuple[str | None, bool]:
        """Send the form once.

        Returns:
            Why the server did not take it, or None; and whether it may take it soon.
        """
        try:
            answer = self.client.resume_flow_run(run, run_input=form)
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.SERVICE_UNAVAILABLE:
                raise
            return "the Prefect server is busy (503): send the form again", True
        if answer.status is SetStateStatus.ACCEPT:
            return None, False
        reason = getattr(answer.details, "reason", None) or str(answer.status)
        return reason, reason == NO_FORM_YET

    def set_state(self, run: UUID, state: State[Any], force: bool = False) -> None:
        """Set the run's state by hand, as `Change state` and `Retry` (with force) in the UI do."""
        self.client.set_flow_run_state(run, state, force=force)

    def history(self, run: UUID) -> list[str]:
        """Return the names of the states that the run has been in, in order."""
        return [state.name or "" for state in self.client.read_flow_run_states(run)]

    def logs(self, run: UUID) -> str:
        """Return what the run has logged, a line for each record."""
        only = LogFilter(flow_run_id=LogFilterFlowRunId(any_=[run]))
        return "\n".join(log.message for log in self.client.read_logs(only, limit=200, sort=LogSort.TIMESTAMP_ASC))

    def task_runs(self, run: UUID) -> list[TaskRun]:
        """Return every task run of a run."""
        only = FlowRunFilter(id=FlowRunFilterId(any_=[run]))
        found: list[TaskRun] = []
        while page := self.client.read_task_runs(flow_run_filter=only, limit=PAGE, offset=len(found)):
            found += page
        return found

    def artifacts(self, run: UUID) -> dict[str, Any]:
        """Return the data of the run's artifacts, by key. If several have one key, the newest counts."""
        only = ArtifactFilter(flow_run_id=ArtifactFilterFlowRunId(any_=[run]))
        found = sorted(self.client.read_artifacts(artifact_filter=only), key=lambda artifact: str(artifact.created))
        return {artifact.key or str(artifact.id): artifact.data for artifact in found}

    def figures(self, run: UUID) -> dict[str, Any]:
        """Return what a run of push-bids has done, by its final figures: `shards sent`, `bytes sent`, …"""
        table = self.artifacts(run)[f"push-{run}"]
        return {row["what"]: row["value"] for row in (json.loads(table) if isinstance(table, str) else table)}


@contextmanager
def runs_of(api_url: str) -> Iterator[Runs]:
    """Open the runs of the server at this address of an API."""
    from prefect.settings import PREFECT_API_URL, temporary_settings

    with temporary_settings({PREFECT_API_URL: api_url}), get_client(sync_client=True) as client:
        yield Runs(client)
