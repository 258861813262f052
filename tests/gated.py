"""Runs that wait at their gates, in the process of the test: a real server, a deployment, and no worker.

A run is suspended by the flow, as anywhere; what a worker does, starting the flow again once somebody has answered, the
test does itself. So a gate costs no processes, and the test may change the world between question and answer.
"""

from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, Pause
from prefect.flow_engine import run_flow
from prefect.states import Scheduled

from deployments.runs import Runs
from flows.cleanup_staging import cleanup_staging
from flows.push_bids import push_bids
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub


class Gated:
    """Nights and cleanups on one target, of deployments of the test's own."""

    def __init__(self, target: Target, source: Path, root: Path, token: str) -> None:
        self.hub, self.source, self.root = Hub(target, token), source, root
        self.staging = Staging.of(root, target)
        with get_client(sync_client=True) as client:
            self.deployments = {
                flow.name: client.create_deployment(
                    client.create_flow_from_name(flow.name), f"gated-{target.slug}", enforce_parameter_schema=False
                )
                for flow in (push_bids, cleanup_staging)
            }

    def night(self, **parameters: Any) -> FlowRun:
        """A run that asks about removals, brought to its gate or to its end; read back by listing alone."""
        given = {"source": str(self.source), "defacing": "no faces", "removed": "ask", **parameters}
        return self._start(push_bids, given)

    def cleanup(self, **parameters: Any) -> FlowRun:
        """A run of cleanup-staging, brought to its gate or to its end; read back by listing alone."""
        return self._start(cleanup_staging, parameters)

    def _start(self, flow: Flow[..., Any], parameters: dict[str, Any]) -> FlowRun:
        of = {"repo_id": self.hub.target.repo_id, "staging_root": str(self.root), "verification": "listing"}
        with get_client(sync_client=True) as client:
            run = client.create_flow_run_from_deployment(self.deployments[flow.name], parameters=of | parameters)
        return self.go(run.id)

    def go(self, run: UUID) -> FlowRun:
        """Do what a worker does: start the flow (again); the run as it is then."""
        found = self.read(run)
        flow = push_bids if found.deployment_id == self.deployments[push_bids.name] else cleanup_staging
        with suppress(Abort, Pause):
            run_flow(flow, found, return_type="state")
        return self.read(run)

    def answer(self, run: FlowRun, **form: Any) -> FlowRun:
        """Answer at the gate, with the repo's name; the run as it is once the flow went on."""
        self.send(run, **form)
        return self.go(run.id)

    def send(self, run: FlowRun, **form: Any) -> None:
        """Answer at the gate; nobody has gone on with the run yet."""
        with get_client(sync_client=True) as client:
            refused = Runs(client).decide(run.id, **{"confirm_repo": self.hub.target.repo_id, "note": "me", **form})
        assert refused is None, refused

    def retry(self, run: FlowRun) -> FlowRun:
        """Press Retry."""
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, Scheduled(name="AwaitingRetry"), force=True)
        return self.go(run.id)

    def read(self, run: UUID) -> FlowRun:
        """The run as the server has it."""
        with get_client(sync_client=True) as client:
            return client.read_flow_run(run)

    def files(self) -> set[str]:
        """The paths at the head of the repo."""
        return set(self.hub.listing(self.hub.head()).files)


def said(run: FlowRun) -> tuple[str, str]:
    """The name of the state that a run is in, and its message."""
    state: State[Any] | None = run.state
    assert state is not None
    return state.name or "", state.message or ""
