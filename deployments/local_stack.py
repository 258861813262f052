"""Everything a push needs, on this machine: a local Hub, a Prefect server and a worker, each a process of its own.

The demo, the end-to-end tests and the soak use it. A stack lives in one folder (homes, logs, staging, the Hub's store)
and takes free ports on the loopback. It inherits no PREFECT_*, HF_* or BIDS_PUSH_* setting of the caller. When the
block ends, however it ends, the stack ends its processes by their ids.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2

from deployments.entrypoints import CODE

REPO = CODE
POOL = "bids-push"
START_SECONDS = 120.0  # seconds for a server to answer: Prefect migrates its database at its first start
STOP_SECONDS = 15.0  # seconds between SIGTERM and SIGKILL


class StackError(Exception):
    """A process of the stack did not start, or has ended. The message names its log."""


@dataclass
class Process:
    """One process of the stack. It leads a process group of its own."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def alive(self) -> bool:
        """Whether it is running."""
        return self.popen.poll() is None

    def kill(self) -> None:
        """Send SIGKILL at once to the process and to what it started."""
        self._signal(signal.SIGKILL)
        self.popen.wait()

    def stop(self) -> None:
        """Send SIGTERM, and later SIGKILL to what has not ended by then."""
        self._signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.popen.wait(STOP_SECONDS)
        self.kill()

    def _signal(self, which: signal.Signals) -> None:
        try:
            os.killpg(self.popen.pid, which)
        except ProcessLookupError:
            return  # all of its group has ended

    def tail(self) -> str:
        """Return the last lines of its log."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-15:])


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def clean_environment() -> dict[str, str]:
    """Return this process's environment without the settings of any Prefect, Hub or bids-push."""
    own = ("PREFECT_", "HF_", "HUGGING", "BIDS_PUSH_")
    return {name: value for name, value in os.environ.items() if not name.startswith(own)}


def wait_until(
    what: str, true: Callable[[], bool], seconds: float, process: Process | None = None, every: float = 0.1
) -> None:
    """Wait for a condition.

    Args:
        what: the condition in words, for the message.
        true: the condition.
        seconds: how long to wait.
        process: the process that should bring the condition about.
        every: seconds between one look and the next.

    Raises:
        StackError: it did not come in time, or the process has ended.
    """
    deadline = time.monotonic() + seconds
    while not true():
        if process is not None and not process.alive:
            raise StackError(
                f"{process.name} ended while waiting until {what}; its log {process.log} ends:\n{process.tail()}"
            )
        if time.monotonic() > deadline:
            ending = f"; the log {process.log} ends:\n{process.tail()}" if process else ""
            raise StackError(f"{what}: not so within {seconds:.0f} s{ending}")
        time.sleep(every)


def answers(url: str) -> bool:
    """Return whether a server answers at this address of the loopback."""
    try:
        # to read the certificates that nobody asks for here takes longer than all the rest, ten times a second
        return httpx2.get(url, timeout=2.0, verify=False).is_success
    except httpx2.TransportError:
        return False


@dataclass
class Stack:
    """A running stack. `running` makes one."""

    folder: Path
    hub_port: int = field(default_factory=free_port)
    prefect_port: int = field(default_factory=free_port)
    token: str = field(default="", repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    """More environment variables for the worker."""
    database: str = field(default="", repr=False)
    """The address of the Prefect server's database, as the server takes it. Empty: SQLite in the folder."""
    processes: dict[str, Process] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        """The address of the local Hub."""
        return f"http://127.0.0.1:{self.hub_port}"

    @property
    def ui(self) -> str:
        """The address of the Prefect UI."""
        return f"http://127.0.0.1:{self.prefect_port}"

    @property
    def staging_root(self) -> Path:
        """The folder in which the worker stages."""
        return self.folder / "staging"

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a client of this stack, for the worker and the Prefect CLI."""
        return {
            **clean_environment(),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": f"{self.ui}/api",
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "1",  # people wait for this stack
            # instead of 10, more than a run waits for its slot: each look would hand it out, and put it back
            "PREFECT_WORKER_PREFETCH_SECONDS": "1",
            "PREFECT_SERVER_DEPLOYMENTS_CONCURRENCY_SLOT_WAIT_SECONDS": "3",
            "DO_NOT_TRACK": "1",
            "HF_HOME": str(self.folder / "hf"),
            "HF_ENDPOINT": self.endpoint,
            "HF_TOKEN": self.token,
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "BIDS_PUSH_STAGING_ROOT": str(self.staging_root),
            **self.settings,
        }

    def start(self, name: str, command: Sequence[str], more: Mapping[str, str] | None = None) -> Process:
        """Start a process of the stack. Its output goes to a log beside the others.

        Args:
            name: of the process and its log.
            command: the Python module and its arguments.
            more: more environment variables.
        """
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            popen = subprocess.Popen(
                [sys.executable, "-m", *command],
                cwd=REPO,
                env={**self.environment, **(more or {})},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        process = self.processes[name] = Process(name, popen, log)
        return process

    def run(self, *command: str, folder: Path = REPO) -> str:
        """Run a Python module to its end, as a client of this stack.

        Args:
            command: the module and its arguments.
            folder: the folder in which it runs.

        Returns:
            What it printed.

        Raises:
            StackError: it failed; the message ends with what it printed.
        """
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=folder,
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise StackError(f"{' '.join(command[:4])} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def start_hub(self) -> Process:
        """Start the local Hub, and wait until it answers."""
        root = str(self.folder / "hub")
        process = self.start("hub", ["deployments.local_hub", "serve", "--root", root, "--port", str(self.hub_port)])
        wait_until("the local Hub answers", lambda: answers(f"{self.endpoint}/"), START_SECONDS, process)
        return process

    def make_token(self, name: str, role: str = "write") -> str:
        """Make an account of the local Hub and a token for it, and return the token."""
        command = ["deployments.local_hub", "token", name, "--role", role, "--root", str(self.folder / "hub")]
        return self.run(*command).strip().splitlines()[-1]

    def start_prefect(self) -> Process:
        """Start the Prefect server, and wait until it answers."""
        command = ["prefect", "server", "start", "--host", "127.0.0.1", "--port", str(self.prefect_port)]
        database = {"PREFECT_SERVER_DATABASE_CONNECTION_URL": self.database} if self.database else {}
        process = self.start("prefect", command, database)
        wait_until("the Prefect server answers", lambda: answers(f"{self.ui}/api/health"), START_SECONDS, process)
        return process

    def deploy(self) -> None:
        """Do what `make deploy` does: the work pool, the deployments and the automations."""
        self.run("deployments.deploy")

    def start_worker(self) -> Process:
        """Start a worker that runs what is due."""
        return self.start("worker", ["prefect", "worker", "start", "--pool", POOL])

    def start_watch(self, *options: str) -> Process:
        """Start the watch over the runs, as `make worker` does beside its worker."""
        return self.start("watch", ["deployments.watch", *options])

    def stop(self) -> None:
        """End every process, the worker first."""
        for process in reversed(self.processes.values()):
            process.stop()


@contextmanager
def running(folder: Path, account: str = "demo", hub_port: int | None = None, **settings: str) -> Iterator[Stack]:
    """Start a stack with its Hub, server, deployments, worker and watch.

    Everything that it started ends with the block.

    A Hub at another port is another Hub, and so another target.

    Args:
        folder: the folder of the stack.
        account: the account of the local Hub.
        hub_port: the port of an earlier Hub, to go on with it; None for a free port.
        settings: more environment variables for the worker.
    """
    folder.mkdir(parents=True, exist_ok=True)
    stack = Stack(folder, settings=settings, hub_port=hub_port or free_port())
    try:
        stack.start_hub()
        stack.token = stack.make_token(account)
        stack.start_prefect()
        stack.deploy()
        stack.start_worker()
        stack.start_watch()
        yield stack
    finally:
        stack.stop()
