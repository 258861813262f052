"""What the soak runs on: one persistent stack with a counted Hub, wound back to nothing before each round."""

import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx2
import psutil

from deployments.demo_data import make_dataset
from deployments.local_stack import START_SECONDS, Process, Stack, answers, wait_until
from deployments.runs import ENDED, Runs, runs_of
from tasks.disk.files import sha256_of
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tests.counted_hub import CONTENT, Asked, journal_of, read_journal
from tests.processes import PICK_UP_SECONDS, process_of

REPO_ID = "lab/soak"
SESSION_BYTES = 3_000_000  # of images, on average: some shards are big ones, flushed and cached, most are small
#: Each answer of the Hub takes as long as over a network, so that a run is at work most of the time, not starting up.
NETWORK: dict[str, object] = {"fault": "slow", "delay": 0.005, "times": -1}
SETTINGS = {
    "PREFECT_WORKER_QUERY_SECONDS": "0.5",
    "PREFECT_WORKER_PREFETCH_SECONDS": "0.5",
    "BIDS_PUSH_BATCH_SHARDS": "2",  # many commits, so that a kill falls between, before and into them
    "BIDS_PUSH_TRANSFER_SHARDS": "1",
}


class CountedStack(Stack):
    """A stack whose Hub counts requests and can be made to fail. Its worker is a fast one, unless it is `cold`."""

    hub_module = "tests.counted_hub"
    cold = False  # Prefect's own worker, with a new interpreter for each run
    hashed = False  # folders as of more than 4,000 subjects, by the fast worker

    @property
    def numbers(self) -> Path:
        """The folder in which the fast worker keeps the process ids of its runs."""
        return self.folder / "processes"

    def start_worker(self) -> Process:
        """Start a worker that runs what is due."""
        if self.cold:
            return super().start_worker()
        return self.start("worker", ["soak.worker", str(self.numbers), *["--hashed"] * self.hashed])

    def start_hub(self) -> Process:
        """Start the Hub behind its layers, and wait until it answers."""
        command = [self.hub_module, "serve", "--root", str(self.folder / "hub"), "--port", str(self.hub_port)]
        process = self.start("hub", command)
        wait_until("the local Hub answers", lambda: answers(f"{self.endpoint}/"), START_SECONDS, process)
        return process


@dataclass
class Rig:
    """The stack, the dataset, and the one target of all rounds."""

    stack: CountedStack
    runs: Runs
    source: Path

    @property
    def hub(self) -> Hub:
        """The target."""
        return Hub(Target(self.stack.endpoint, REPO_ID), self.stack.token)

    @property
    def staging(self) -> Staging:
        """The target's staging folder, each time as a new object, which remembers no hash."""
        return Staging.of(self.stack.staging_root, self.hub.target)

    def wind_back(self) -> None:
        """Bring back the time before the first push: an empty Hub, nothing staged, nothing in the client's caches."""
        self.stack.processes["hub"].kill()
        root = self.stack.folder / "hub"
        for folder in (root, self.stack.staging_root, self.stack.folder / "hf"):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.stack.folder / "hub-template", root)
        journal_of(root).write_bytes(b"")
        self.stack.start_hub()
        self.break_on()

    def break_on(self, *rules: dict[str, object]) -> None:
        """Let the Hub break the requests that these rules name from now on, and no others.

        Whatever the rules, each answer takes as long as over a network.
        """
        httpx2.post(f"{self.stack.endpoint}/_faults", json=[*rules, NETWORK], timeout=30).raise_for_status()

    def asked(self) -> list[Asked]:
        """Return every request to the Hub in this round, whether or not it was killed meanwhile."""
        return read_journal(self.stack.folder / "hub")

    def content_received(self) -> int:
        """Return how many bytes of shards' content the Hub was sent in this round."""
        return sum(a.received for a in self.asked() if a.method in {"POST", "PUT"} and CONTENT.search(a.path))

    def push(self, **parameters: Any) -> UUID:
        """Start a run of push-bids/manual, and return its id."""
        given = {"source": str(self.source), "repo_id": REPO_ID, "defacing": "no faces", **parameters}
        return self.runs.start("push-bids/manual", **given)

    def staged(self) -> dict[Path, str]:
        """Return the sha256 of each staged shard, by its file."""
        return {path: sha256_of(path) for path in sorted(self.staging.shards.rglob("*.parquet"))}

    def at_gate(self) -> UUID:
        """Start a run that asks about everything that is staged, wait until its gate is open, and return its id."""
        run = self.runs.start("cleanup-staging/cleanup", repo_id=REPO_ID)
        self.runs.wait(run, {"PAUSED"})
        return run

    def process_of(self, run: UUID) -> psutil.Process | None:
        """Return the process that works for a run, or None if there is none now."""
        if self.stack.cold:
            return process_of(run)
        with suppress(FileNotFoundError, psutil.NoSuchProcess, ValueError):
            process = psutil.Process(int((self.stack.numbers / str(run)).read_text()))
            return None if process.status() == psutil.STATUS_ZOMBIE else process
        return None

    def wait_for_process(self, run: UUID) -> psutil.Process:
        """Wait until a process works for a run, and return it.

        Raises:
            StackError: none does in time.
        """
        found: list[psutil.Process] = []

        def there() -> bool:
            found.extend(filter(None, [self.process_of(run)]))
            return bool(found)

        wait_until(f"a process works for the run {run}", there, PICK_UP_SECONDS)
        return found[0]

    def wait_for_work(self, run: UUID) -> psutil.Process:
        """Wait until a run holds the target, and return its process. Until then it only imports.

        Raises:
            StackError: it does not hold the target in time.
        """
        process = self.wait_for_process(run)
        held = self.staging.lock
        wait_until("the run holds the target", lambda: held.exists() or not process.is_running(), 120)
        return process

    def let_end(self, run: UUID, seconds: float) -> None:
        """Let a run end or come to its gate for so many seconds, and kill its process with SIGKILL then."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and (process := self.process_of(run)) is not None:
            with suppress(psutil.TimeoutExpired):
                process.wait(0.2)
        while (process := self.process_of(run)) is not None:
            process.send_signal(signal.SIGKILL)
            with suppress(psutil.TimeoutExpired):
                process.wait(5)

    def retire(self) -> None:
        """Cancel what is not at its end, so that no run of an earlier round is started again."""
        for run in self.runs.client.read_flow_runs(limit=50):
            if run.state is not None and run.state.type.value not in ENDED:
                self.cancel(run.id)

    def cancel(self, run: UUID) -> None:
        """End a run on the server."""
        from prefect.states import Cancelled

        self.runs.client.set_flow_run_state(run, Cancelled(), force=True)


@contextmanager
def rig(folder: Path, sessions: int, cold: bool = False, hashed: bool = False) -> Iterator[Rig]:
    """Start the rig, and end everything that it has started when the block ends.

    Args:
        folder: where all of it lives.
        sessions: the number of sessions of the dataset.
        cold: whether runs are by Prefect's own worker.
        hashed: whether the Hub's folders are those of a dataset with more than 4,000 subjects.
    """
    folder.mkdir(parents=True, exist_ok=True)
    source = folder / "ds004884"
    make_dataset(source, sessions=sessions, total_bytes=sessions * SESSION_BYTES)
    stack = CountedStack(folder / "stack", settings=SETTINGS)
    stack.cold, stack.hashed = cold, hashed
    stack.folder.mkdir(exist_ok=True)
    try:
        stack.start_hub()
        stack.token = stack.make_token("lab")
        stack.processes["hub"].stop()
        shutil.copytree(stack.folder / "hub", stack.folder / "hub-template", dirs_exist_ok=True)
        stack.start_hub()
        stack.start_prefect()
        stack.deploy()
        stack.start_worker()
        with runs_of(f"{stack.ui}/api") as runs:
            yield Rig(stack, runs, source)
    finally:
        stack.stop()
