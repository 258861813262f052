"""The demo: the whole chain on this machine, against the local Hub, with a real Prefect server, worker and UI.

`make demo` starts everything, runs push-bids/demo on the tree of ds004884, prints where to look, and waits at the gate
until Ctrl-C. `make demo-once` does the same unattended: it types a wrong name first, approves through the API, loads
the result with `load_dataset`, and exits 0 only if all of it held. Each demo has a new folder below `.demo/`; the
images are made once.
"""

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

from huggingface_hub import HfApi
from prefect.client.schemas.objects import FlowRun

from deployments.demo_data import make_dataset
from deployments.entrypoints import CODE, IN_A_CLONE, deployments_file
from deployments.local_stack import Stack, StackError, running
from deployments.runs import ENDED, RunError, Runs, runs_of

REPO_ID = "demo/ds004884"
DEMO = (CODE if IN_A_CLONE else Path.cwd()) / ".demo"
DATASET = DEMO / "ds004884"
DEPLOYMENT = "push-bids/demo"

#: This is run in a process of its own, as a scientist would do it: nothing of bids-push is imported.
LOAD = """
import json, sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], "anat_T1w", split="train", streaming=True)
first = next(iter(rows))
images = load_dataset(sys.argv[1], split="train", streaming=True).remove_columns("nifti")
files = load_dataset(sys.argv[1], "files", split="train", streaming=True).remove_columns("content")
print(json.dumps({
    "shape": first["nifti"].shape, "sub": first["sub"], "participant": first["participant"],
    "images": sum(1 for _ in images), "files": sum(1 for _ in files),
    "T1w": sum(1 for _ in rows.remove_columns("nifti")),
}))
"""


class DemoFailed(Exception):
    """Something that the demo shows did not hold."""


def main(unattended: bool, sessions: int | None) -> int:
    """Run the demo from its start to its end.

    Args:
        unattended: whether it approves its gate itself, loads the result, and ends.
        sessions: how many sessions of the dataset are made; None for all.

    Returns:
        The exit code: 0 if everything held, or somebody stopped the demo; else 1.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):  # said here, since a shell's background job ignores SIGINT
        signal.signal(ending, signal.default_int_handler)
    try:
        data = dataset(sessions)
        with running(new_folder()) as stack, runs_of(f"{stack.ui}/api") as runs:
            deploy(stack, data)
            return once(stack, runs) if unattended else attended(stack, runs)
    except KeyboardInterrupt:
        print(f"\nStopped: the server, the worker and the local Hub have ended. What they made is in {DEMO}.")
        return 0
    except (DemoFailed, RunError, StackError) as error:
        print(f"\nThe demo failed: {error}", file=sys.stderr)
        return 1


def dataset(sessions: int | None) -> Path:
    """Return the folder of the demo's dataset, which is made if it is missing."""
    folder = DATASET if sessions is None else DATASET.with_name(f"{DATASET.name}-{sessions}")
    print("Making the tree of ds004884 with images of its own (once) ...", flush=True)
    made = make_dataset(folder, sessions=sessions)
    size = f"{made.image_bytes / 1e6:.0f} MB"
    print(f"  {made.sessions} sessions of {made.subjects} subjects, {made.images:,} images, {size}")
    return folder


def new_folder() -> Path:
    """Return a folder for this demo: the next free number."""
    taken = [int(path.name) for path in DEMO.glob("[0-9]*") if path.name.isdigit()]
    return DEMO / str(max(taken, default=0) + 1)


def deploy(stack: Stack, data: Path) -> None:
    """Make the demo's deployment, with the dataset as the source of its runs."""
    with deployments_file("deployments/demo.yaml") as (folder, file):
        command = ("--no-prompt", "deploy", "--name", "demo", "--prefect-file", file, "--param", f"source={data}")
        stack.run("prefect", *command, folder=folder)


def attended(stack: Stack, runs: Runs) -> int:
    """Start the run, print where to look, and wait for Ctrl-C. It does not return."""
    run = runs.start(DEPLOYMENT)
    print(
        f"""
Prefect UI      {stack.ui}
This run        {stack.ui}/runs/flow-run/{run}
The dataset     {stack.endpoint}/datasets/{REPO_ID}
Logs            {stack.folder}/*.log

Working ...""",
        flush=True,
    )
    at_gate = runs.wait(run, {"PAUSED"})
    print(
        f"""
The gate is open: everything is on the Hub and verified, and nothing was deleted.
Open the run above and press Resume. Choose a decision, type {REPO_ID}, submit.
Ctrl-C stops everything that was started here.""",
        flush=True,
    )
    print(f"\nDecided: {decided(runs, at_gate)}", flush=True)
    print("Ctrl-C stops everything that was started here.", flush=True)
    while True:
        time.sleep(3600)


def decided(runs: Runs, at_gate: FlowRun) -> str:
    """Wait until somebody has decided, and print each time that the gate asks again. Return how the run ended."""
    asked = at_gate.state_id
    while True:
        run = runs.read(at_gate.id)
        state = run.state
        if state is not None and state.type.value in ENDED:
            return f"{state.name}: {state.message}"
        if state is not None and state.type.value == "PAUSED" and state.id != asked:
            asked = state.id
            why = (state.message or "").splitlines()[:1]
            print("\nThe gate asks again.", *why, flush=True)
        time.sleep(1)


def once(stack: Stack, runs: Runs) -> int:
    """Push, decide at the gate, load the result, and push again, and check each of these.

    Returns:
        The exit code 0.

    Raises:
        DemoFailed: something did not hold.
        RunError: a run did not come to the expected state.
    """
    seconds: dict[str, float] = {}
    with timed(seconds, "push, to the open gate"):
        run = runs.start(DEPLOYMENT)
        runs.wait(run, {"PAUSED"})
    staged = staged_bytes(stack)
    expect(staged > 0, "something is staged while the gate is open")
    with timed(seconds, "gate: a wrong name asks again"):
        refuse_wrong_name(runs, run)
        expect(staged_bytes(stack) == staged, "a wrong name deletes nothing")
    with timed(seconds, "gate approved, verified again, cleaned up"):
        refusal = runs.decide(run, decision="delete", confirm_repo=REPO_ID, note="make demo-once")
        expect(refusal is None, f"the server takes the form ({refusal})")
        ended = runs.wait(run)
    expect(ended.state is not None and ended.state.name == "CleanedUp", f"the run ends cleaned up, not {ended.state}")
    expect(staged_bytes(stack) == 0, "no staged shard is left")
    with timed(seconds, "load_dataset"):
        loaded = load_it(stack)
    with timed(seconds, "the same again, with nothing changed"):
        again = runs.wait(runs.start(DEPLOYMENT), {"COMPLETED"})
        expect(again.state is not None and again.state.name == "NothingToPublish", f"a second run ends {again.state}")
    show(stack, runs, ended, loaded, staged, seconds)
    return 0


def refuse_wrong_name(runs: Runs, run: UUID) -> None:
    """Type another repo's name, and wait until the gate asks again.

    Raises:
        DemoFailed: it does not ask again.
    """
    before = runs.read(run).state
    runs.decide(run, decision="delete", confirm_repo="demo/another-dataset", note="a slip")
    deadline = time.monotonic() + 120
    while True:
        state = runs.read(run).state
        if state is not None and before is not None and state.type.value == "PAUSED" and state.id != before.id:
            return
        expect(state is None or state.type.value not in {"COMPLETED", "FAILED", "CRASHED"}, f"it asks again: {state}")
        expect(time.monotonic() < deadline, "the gate asks again within two minutes")
        time.sleep(0.2)


def load_it(stack: Stack) -> dict[str, Any]:
    """Load the published dataset as a scientist would, in a new process.

    Returns:
        What `LOAD` prints: the shape and the subject of the first T1w image, its participant, and the numbers of rows.

    Raises:
        DemoFailed: it cannot be loaded.
    """
    done = subprocess.run(
        [sys.executable, "-c", LOAD, REPO_ID], env=stack.environment, capture_output=True, text=True, check=False
    )
    expect(done.returncode == 0, f"load_dataset works:\n{done.stderr[-3000:]}")
    loaded: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    expect(len(loaded["shape"]) == 3 and loaded["T1w"] > 0, "anat_T1w decodes to 3-D images")
    return loaded


def show(
    stack: Stack, runs: Runs, run: FlowRun, loaded: dict[str, Any], staged: int, seconds: dict[str, float]
) -> None:
    """Print what was done, from what the run left behind and what was counted here.

    Args:
        stack: the servers.
        runs: the runs of the Prefect server.
        run: the run that was approved.
        loaded: the result of `load_it`.
        staged: the bytes that were staged when the gate opened.
        seconds: the time that each part took, by its name.

    Raises:
        DemoFailed: the run's figures are not those that were counted here.
    """
    left = runs.artifacts(run.id)
    figures = runs.figures(run.id)
    rows = loaded["images"] + loaded["files"]
    expect(rows == figures["rows"], f"{rows} rows load, {figures['rows']} were staged")
    expect(figures["shards sent"] == figures["shards embedded"], "every embedded shard was sent")
    expect(figures["bytes sent"] == staged, f"{figures['bytes sent']} bytes sent, {staged} were staged")
    evidence = next(data for key, data in left.items() if key.startswith("evidence"))
    print("\nAll of it held.")
    lines: list[tuple[str, object]] = [
        ("sessions", f"{figures['shards sent']:,}"),
        ("shards", f"{figures['shards sent']:,}"),
        ("rows", f"{loaded['images']:,} images, {loaded['files']:,} sidecars and others"),
        ("bytes staged", f"{staged:,}"),
        ("bytes sent", f"{figures['bytes sent']:,} in {figures['commits']} commits"),
        ("verified", next(line for line in evidence.splitlines() if line.startswith("Verified"))),
        ("freed", run.state.message if run.state else ""),
        ("commit", head_of(stack)),
        ("load_dataset", f"{loaded['T1w']} T1w images, the first of sub-{loaded['sub']}, {loaded['shape']}"),
        *((f"s, {what}", f"{spent:.1f}") for what, spent in seconds_by_stage(runs, run).items()),
        *((f"s, {what}", f"{spent:.1f}") for what, spent in seconds.items()),
    ]
    for what, value in lines:
        print(f"  {what:<46} {value}")


def head_of(stack: Stack) -> str:
    """Return the commit at which the published dataset is."""
    return str(HfApi(stack.endpoint, token=stack.token).dataset_info(REPO_ID).sha)


def seconds_by_stage(runs: Runs, run: FlowRun) -> dict[str, float]:
    """Return the seconds of the run's tasks, by stage.

    Stage and transfer overlap, and verify runs before and after the gate.
    """
    spent = dict.fromkeys(("load", "plan", "stage", "transfer", "commit", "verify", "cleanup"), 0.0)
    for task in runs.task_runs(run.id):
        stage = re.split(r"[ -]", task.name)[0]
        if stage in spent:
            spent[stage] += task.total_run_time.total_seconds()
    return spent


def staged_bytes(stack: Stack) -> int:
    """Return the bytes of the staged shards."""
    return sum(path.stat().st_size for path in stack.staging_root.rglob("*.parquet"))


def expect(true: bool, what: str) -> None:
    """Check one thing that the demo shows.

    Raises:
        DemoFailed: it is not so.
    """
    if not true:
        raise DemoFailed(what)


@contextmanager
def timed(seconds: dict[str, float], what: str) -> Iterator[None]:
    """Count the seconds of a part, and print that it has begun."""
    print(f"{what} ...", flush=True)
    start_time = time.monotonic()
    yield
    seconds[what] = time.monotonic() - start_time


if __name__ == "__main__":
    from deployments.commands import alone

    alone("demo")
