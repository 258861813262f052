"""A real Dask scheduler and worker processes, each with a home of its own, as machines of a cluster have them."""

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from deployments.local_stack import REPO, Process, Stack, clean_environment, wait_until
from tests.executions import FOLDER, Executions
from tests.ports import is_free, own_port

#: How soon a scheduler takes a silent process for dead; nannies start a killed one again.
DASK = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": "30s",
    "DASK_DISTRIBUTED__ADMIN__LOW_LEVEL_LOG_LENGTH": "0",
    "DASK_DISTRIBUTED__VERSION": "2",
    "DASK_LOGGING__DISTRIBUTED": "warning",
}


@dataclass
class Machines:
    """A scheduler, and the machines that have joined it."""

    folder: Path
    environment: Mapping[str, str]
    """What every machine has in its environment."""
    processes: dict[str, Process] = field(default_factory=dict)
    port: int = field(default_factory=own_port)

    @property
    def executions(self) -> Executions:
        """What they did."""
        return Executions(self.folder / "executions")

    @property
    def address(self) -> str:
        """The scheduler's address."""
        return f"tcp://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start the scheduler."""
        arguments = "--host", "127.0.0.1", "--port", str(self.port), "--no-dashboard"
        self._start("scheduler", "dask_scheduler", *arguments)
        wait_until("the scheduler listens", lambda: not is_free(self.port), 60, self.processes["scheduler"])

    def join(self, name: str, *arguments: str, **environment: str) -> Process:
        """Have a machine of one thread join, with a home of its own."""
        fixed = "--nthreads", "1", "--name", name, "--no-dashboard", "--host", "127.0.0.1"
        local = "--local-directory", str(self.folder / name), "--preload", "tests.executions"
        return self._start(name, "dask_worker", self.address, *fixed, *local, *arguments, **environment)

    def _start(self, name: str, command: str, *arguments: str, **environment: str) -> Process:
        home = self.folder / name
        home.mkdir(parents=True, exist_ok=True)
        log = home / "log"
        own = {"HOME": str(home), "HF_HOME": str(home / "hf"), "PREFECT_HOME": str(home / "prefect")}
        own[FOLDER] = str(self.executions.folder)
        with log.open("ab") as stream:
            popen = subprocess.Popen(
                [sys.executable, "-m", f"distributed.cli.{command}", *arguments],
                cwd=REPO,
                env=clean_environment() | DASK | dict(self.environment) | own | environment,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes[name] = Process(name, popen, log)
        return self.processes[name]

    def stop(self) -> None:
        """End all of it."""
        for process in reversed(self.processes.values()):
            process.stop()


def environment_of(stack: Stack) -> dict[str, str]:
    """What a machine needs in its environment to work for a run of this stack."""
    return {
        "HF_ENDPOINT": stack.endpoint,
        "HF_TOKEN": stack.token,
        "PREFECT_API_URL": f"{stack.ui}/api",
        "PYTHONPATH": str(REPO),
        **{name: value for name, value in os.environ.items() if name.startswith("BIDS_PUSH_")},
    }


@contextmanager
def machines(
    folder: Path, environment: Mapping[str, str], names: tuple[str, ...] = (), *arguments: str
) -> Iterator[Machines]:
    """A scheduler with these machines, which are given these arguments. All of it ends with the block."""
    running = Machines(folder, environment)
    try:
        running.start()
        for name in names:
            running.join(name, *arguments)
        yield running
    finally:
        running.stop()
