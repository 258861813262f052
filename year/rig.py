"""What a year runs on: a counted Hub that can be made to fail, a Prefect server, and the processes of the flow runs."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Cancelled, Crashed

from deployments.local_stack import REPO, Stack
from deployments.runs import ENDED, Runs, runs_of
from tests.counted_hub import CountedHub

REPO_ID = "lab/year"
RUN_SECONDS = 300.0  # that a flow run may take on a machine that has much other work
LOOK_EVERY = 0.02  # seconds, whether it is time for a kill
STARTS = 120.0  # seconds for the warm process to have imported everything
SETTINGS = {
    "BIDS_PUSH_BATCH_SHARDS": "5",  # a large night has several commits
    "BIDS_PUSH_TRANSFER_SHARDS": "4",
    "BIDS_PUSH_SAMPLE_NIGHTS": "8",  # each shard comes back soon
    "PREFECT_LOGGING_TO_API_ENABLED": "false",  # the runs' log is a file, which the oracle reads
    "PREFECT_LOGGING_COLORS": "false",
    "PREFECT_UI_URL": "http://prefect.lab:4200",
}
#: The deployments, of no work pool: no worker takes their runs, and they can be suspended all the same.
PUSH, CLEANUP = "push-bids/year", "cleanup-staging/year"


class RigError(Exception):
    """The rig itself does not work, so nothing can be said of the run."""


class Warm:
    """A process that has everything imported, and that forks one process for each run, one at a time."""

    def __init__(self, stack: Stack, log: Path, **settings: str) -> None:
        self.log = log
        with log.open("ab") as output:
            self._popen = subprocess.Popen(
                [sys.executable, "-m", "year.warm"],
                cwd=REPO,
                env={**stack.environment, **settings},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
            )
        self._answers: queue.Queue[dict[str, int]] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self._popen.stdout is not None
        for line in self._popen.stdout:
            self._answers.put(json.loads(line))

    def begin(self, run: UUID, environment: Mapping[str, str]) -> int:
        """Have a process begin to work on a flow run, and return its process id.

        Raises:
            RigError: none begins within `STARTS` seconds.
        """
        assert self._popen.stdin is not None
        print(json.dumps({"run": str(run), "environment": dict(environment)}), file=self._popen.stdin, flush=True)
        try:
            return self._answers.get(timeout=STARTS)["pid"]
        except queue.Empty:
            raise RigError(f"no process has begun in {STARTS:.0f} s; see {self.log}") from None

    def ended(self, seconds: float) -> bool:
        """Wait for the end of the run's process, and return whether it came within so many seconds."""
        try:
            self._answers.get(timeout=seconds)
        except queue.Empty:
            return False
        return True

    def run(self, run: UUID, environment: Mapping[str, str], kill_when: Callable[[], bool] | None = None) -> bool:
        """Run a flow run's process to its end.

        Args:
            run: the flow run.
            environment: more environment variables for the process.
            kill_when: the process is killed as soon as this returns true.

        Returns:
            Whether it was killed.

        Raises:
            RigError: it has not ended within `RUN_SECONDS`.
        """
        pid = self.begin(run, environment)
        killed = False
        deadline = time.monotonic() + RUN_SECONDS
        while not self.ended(LOOK_EVERY if kill_when else RUN_SECONDS):
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGKILL)
                raise RigError(f"the run {run} has not ended in {RUN_SECONDS:.0f} s; see {self.log}")
            if kill_when and not killed and kill_when():
                os.kill(pid, signal.SIGKILL)
                killed = True
        return killed

    def stop(self) -> None:
        """End the warm process."""
        self._popen.kill()
        self._popen.wait()


@dataclass
class Rig:
    """The servers, the one target, and the folders."""

    folder: Path
    hub: CountedHub
    runs: Runs
    warm: Warm
    token: str = field(repr=False)
    deployments: Mapping[str, UUID] = field(default_factory=dict)

    @property
    def staging_root(self) -> Path:
        """The folder in which the runs stage."""
        return self.folder / "staging"

    def leave(self) -> None:
        """Leave nothing on a server that others use: no open gate, no deployment."""
        waiting = FlowRunFilter.model_validate({"state": {"type": {"any_": ["PAUSED"]}}})
        for run in self.runs.client.read_flow_runs(flow_run_filter=waiting):
            if run.deployment_id in self.deployments.values():
                self.runs.set_state(run.id, Cancelled(), force=True)
        for deployment in self.deployments.values():
            self.runs.client.delete_deployment(deployment)

    def start(self, deployment: str, **parameters: Any) -> UUID:
        """Make a flow run of a deployment, and return its id."""
        return self.runs.client.create_flow_run_from_deployment(self.deployments[deployment], parameters=parameters).id

    def work(self, run: UUID, kill_when: Callable[[], bool] | None = None, **environment: str) -> FlowRun:
        """Have a process work on a flow run to its end or its gate. One whose process was killed is marked Crashed.

        Args:
            run: the flow run.
            kill_when: the process is killed as soon as this returns true.
            environment: more environment variables for the process.

        Returns:
            The run as it is then.
        """
        if self.warm.run(run, environment, kill_when):
            state = self.runs.read(run).state
            if state is not None and state.type.value not in ENDED:
                self.runs.set_state(run, Crashed(message="The process was killed."), force=True)
        return self.runs.read(run)


@contextmanager
def rig(folder: Path, api: str = "") -> Iterator[Rig]:
    """Start the rig, and end everything that it has started when the block ends.

    Args:
        folder: where all of it lives.
        api: the address of a Prefect server that runs already; empty to start one.
    """
    folder.mkdir(parents=True, exist_ok=True)
    hub = CountedHub(folder / "hub")
    hub.start()
    stack = Stack(folder, hub_port=int(hub.endpoint.rpartition(":")[2]), token=hub.token("lab"))
    warm = None
    try:
        if api:
            stack.settings = {"PREFECT_API_URL": api}
        else:
            stack.start_prefect()
        warm = Warm(stack, folder / "runs.log", **SETTINGS)
        with runs_of(stack.environment["PREFECT_API_URL"]) as runs:
            here = Rig(folder, hub, runs, warm, stack.token, deployed(runs))
            yield here
            here.leave()
    finally:
        if warm is not None:
            warm.stop()
        stack.stop()
        if hub.process is not None:
            hub.stop()


def deployed(runs: Runs) -> dict[str, UUID]:
    """Make the two deployments, and return their ids by their names."""
    found = {}
    for name in (PUSH, CLEANUP):
        flow, _, deployment = name.partition("/")
        flow_id = runs.client.create_flow_from_name(flow)
        found[name] = runs.client.create_deployment(flow_id, deployment, enforce_parameter_schema=False)
    return found
