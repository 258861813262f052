"""A push of many shards with a task run for each: is every task run on the server, and was any event dropped?

Prefect's tasks report themselves by events: what the server drops of them never stands in the UI, although the work was
done. So that no shard shares its task run with others, none counts as small here. The server's database is a new
PostgreSQL (or SQLite, to compare), with the settings of `deployments/compose.yaml`'s server, and the server has the
automations of `make deploy`, which look at each event too.

What was executed is counted without the server: a receipt on the disk for each shard. After the run the server has time
to work off what it has queued: as long as the counts still grow.

    python -m benchmarks.task_runs [--shards 10000] [--database postgresql|sqlite] [--plain]
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from deployments.local_stack import REPO, Stack
from deployments.runs import Runs, runs_of
from tests.bids_examples import Image, description, write
from tests.postgres import postgres

FOLDER = REPO / ".bench"
SETTLED_SECONDS = 30.0  # without another task run or event: the server has worked off its queues
DROPPED = ("queue is full", "queue full", "dropping", "Dropping", "dropped", "QueueFull", "dead letter")
"""What a server or a client logs when an event is lost."""

PUSH = """
import json, sys, time
from pathlib import Path

import tasks.stage

tasks.stage.FLUSHED_ABOVE = -1  # no shard is small: each has a task run of its own
from flows.push_bids import push_bids

start = time.monotonic()
state = push_bids(Path(sys.argv[1]), sys.argv[2], staging_root=sys.argv[3], defacing="no faces", return_state=True)
spent = time.monotonic() - start
assert state.name == "Staged", (state.name, state.message)
print(json.dumps({"run": str(state.state_details.flow_run_id), "seconds": spent}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.task_runs", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--database", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--plain", action="store_true", help="with Prefect's default settings")
    options = parser.parse_args()
    FOLDER.mkdir(exist_ok=True)
    data = dataset(FOLDER / f"subjects-{options.shards}", options.shards)
    with new_stack(options.database, {} if options.plain else settings()) as stack:
        done = push(stack, data)
        with runs_of(f"{stack.ui}/api") as runs:
            seconds, counted = settled(runs, done["run"])
        staged = sum(1 for _ in stack.staging_root.rglob("*.parquet"))
        logged = stack.processes["prefect"].log.read_text(errors="replace") + done["log"]
    dropped = [line for line in logged.splitlines() if any(word in line for word in DROPPED)]
    for line in dropped[:3]:
        print(f"# {line[:200]}")
    for name, value, unit in (
        ("shards_staged", staged, "shards"),
        ("staging_recorded", counted.staging, "runs"),
        ("staging_completed", counted.staging_completed, "runs"),
        ("recorded", counted.recorded, "runs"),
        ("completed_events", counted.completed_events, "events"),
        ("dropped", len(dropped), "lines"),
        ("push_s", f"{done['seconds']:.1f}", "s"),
        ("recorded_after_the_push_s", f"{seconds:.1f}", "s"),
    ):
        print(f"task_runs_{options.database}_{name} {value} {unit}", flush=True)
    every = staged == counted.staging == counted.staging_completed == options.shards
    return int(bool(dropped) or not every or counted.recorded != counted.completed_events)


def dataset(root: Path, subjects: int) -> Path:
    """A dataset of so many subjects with one small image each, all different."""
    if not root.exists():
        write(root, {"dataset_description.json": description(), "README": "Many subjects.\n"})
        for number in range(subjects):
            name = f"sub-{number:05}"
            write(root, {f"{name}/anat/{name}_T1w.nii.gz": Image(fill=number % 30_000)})
    return root


def settings() -> dict[str, str]:
    """The settings of compose.yaml's server that say how it works its events off."""
    services = yaml.safe_load((REPO / "deployments" / "compose.yaml").read_text())["services"]
    own: dict[str, str] = services["server"]["environment"]
    return {name: value for name, value in own.items() if "_SERVICES_" in name or name.endswith("_TIMEOUT")}


@contextmanager
def new_stack(database: str, settings: dict[str, str]) -> Iterator[Stack]:
    """A local Hub and a Prefect server that know nothing."""
    with tempfile.TemporaryDirectory(dir=FOLDER) as folder:
        stack = Stack(Path(folder), settings=settings)
        try:
            stack.start_hub()
            stack.token = stack.make_token("lab")
            if database == "sqlite":
                yield started(stack)
                return
            with postgres() as cluster:
                stack.database = cluster.connection_url("prefect")
                yield started(stack)
                stack.stop()  # before its database
        finally:
            stack.stop()


def started(stack: Stack) -> Stack:
    stack.start_prefect()
    stack.deploy()
    return stack


def push(stack: Stack, data: Path) -> dict[str, Any]:
    """The push's run, its seconds, and what it has logged."""
    command = [sys.executable, "-c", PUSH, str(data), "lab/many", str(stack.staging_root)]
    done = subprocess.run(command, cwd=REPO, env=stack.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return {**json.loads(done.stdout.splitlines()[-1]), "log": done.stderr}


@dataclass(frozen=True)
class Counted:
    """What the server has of a run."""

    staging: int
    """Task runs that stage."""
    staging_completed: int
    recorded: int
    """Task runs of any kind."""
    completed_events: int
    """Events that say that one of them has completed."""


def settled(runs: Runs, run: str) -> tuple[float, Counted]:
    """Seconds until the counts stay as they are, and the counts."""
    start = changed = time.monotonic()
    before = counted(runs, run)
    while time.monotonic() - changed < SETTLED_SECONDS:
        time.sleep(1)
        now = counted(runs, run)
        if now != before:
            before, changed = now, time.monotonic()
    return changed - start, before


def counted(runs: Runs, run: str) -> Counted:
    of_run = {"flow_runs": {"id": {"any_": [run]}}}
    staging: dict[str, Any] = {"name": {"like_": "stage %"}}
    completed = {**staging, "state": {"type": {"any_": ["COMPLETED"]}}}
    events = {"event": {"name": ["prefect.task-run.Completed"]}, "related": {"id": [f"prefect.flow-run.{run}"]}}
    return Counted(
        ask(runs, "/task_runs/count", {**of_run, "task_runs": staging}),
        ask(runs, "/task_runs/count", {**of_run, "task_runs": completed}),
        ask(runs, "/task_runs/count", of_run),
        ask(runs, "/events/filter", {"filter": events, "limit": 1})["total"],
    )


def ask(runs: Runs, route: str, what: dict[str, Any]) -> Any:
    return runs.client._client.post(route, json=what).raise_for_status().json()


if __name__ == "__main__":
    raise SystemExit(main())
