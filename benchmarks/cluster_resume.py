"""902 sessions pushed on a real SLURM, killed when 599 of them are on the Hub, and finished on a new allocation.

The real tree of ds004884 with scaled-down images; a real Prefect server, worker and local Hub, and a SLURM of two nodes
on this machine, each job on one of them. The first run commits shard by shard, so that its process can be killed at
exactly 599; its jobs end by themselves. The second one, with other jobs, has to publish the other 303. What each
machine stages is counted by a log of the machines' own (`tests.executions`), and what Prefect shows of both runs by
their task runs.

    python -m benchmarks.cluster_resume [--sessions 902] [--kill-at 599] [--keep]

With `--keep` the stack stays up until Enter is pressed, to look at the runs in the UI.
"""

import argparse
import shutil
import signal
import tempfile
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path
from uuid import UUID

import psutil
from huggingface_hub.errors import RepositoryNotFoundError

from benchmarks.resume import KILL_AT, published
from deployments.demo_data import make_dataset
from deployments.local_stack import REPO, StackError, running, wait_until
from deployments.runs import Runs, runs_of
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tests.executions import FOLDER, Executions
from tests.processes import wait_for_process
from tests.slurm import slurm

REPO_ID = "demo/ds004884"
DEPLOYMENT = "push-bids/manual"
PLACE = REPO / ".bench"
NEAR = 30  # shards before the kill, from which on the run goes in small steps: a commit takes less than a look


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cluster_resume", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--sessions", type=int, default=902)
    parser.add_argument("--kill-at", type=int, default=KILL_AT, help="shards on the Hub")
    parser.add_argument("--keep", action="store_true", help="wait for Enter before all of it is stopped")
    options = parser.parse_args()
    data = PLACE / ("ds004884" if options.sessions == 902 else f"ds004884-{options.sessions}")
    make_dataset(data, sessions=options.sessions)
    place = PLACE / f"cluster-resume-{time.time():.0f}"
    with (
        tempfile.TemporaryDirectory(prefix="resume-", dir="/tmp") as short,  # sockets have short paths
        running(place) as stack,
        slurm(Path(short) / "s") as nodes,
        runs_of(f"{stack.ui}/api") as runs,
    ):
        folder = Path(short)
        hub, executions = Hub(Target(stack.endpoint, REPO_ID), stack.token), Executions(folder / "executions")
        prologue = [
            f"export HF_TOKEN={stack.token} HF_ENDPOINT={stack.endpoint} PREFECT_API_URL={stack.ui}/api",
            f"export PYTHONPATH={REPO} {FOLDER}={executions.folder}",
            f"export HOME={folder}/home/$SLURM_JOB_ID HF_HOME={folder}/home/$SLURM_JOB_ID; mkdir -p $HOME",
        ]
        env = nodes.setting(folder, prologue)
        parameters = {"source": str(data), "repo_id": REPO_ID, "defacing": "no faces"}

        first = runs.start(DEPLOYMENT, env=env | {"BIDS_PUSH_BATCH_SHARDS": "1"}, **parameters)
        wait_until("the kill is near", lambda: on_hub(hub) >= options.kill_at - NEAR, 1800, every=0.01)
        jobs = nodes.jobs()
        at_the_kill = kill(wait_for_process(first), hub, options.kill_at)
        print(f"cluster_resume_on_hub_at_the_kill {at_the_kill} shards, by jobs {sorted(jobs)}", flush=True)
        runs.wait(first, {"CRASHED", "FAILED"})
        wait_until("the first run's jobs have ended", lambda: not nodes.jobs(), 240)
        staged = {one.shard for one in executions.of("staged")}

        began = time.monotonic()
        second = runs.start(DEPLOYMENT, env=env, **parameters)
        wait_until("there are new jobs", lambda: bool(nodes.jobs()), 240)
        others = nodes.jobs()
        runs.wait(second, {"PAUSED"}, 1800)
        seconds = time.monotonic() - began
        done = runs.figures(second)
        with suppress(StackError):  # those of the killed run are marked once their last events have had time to arrive
            wait_until("no task run is left Running", lambda: not going_on(runs, first, second), 120)
        counts = Counter(one.shard for one in executions.of("staged"))
        there = sum(path.startswith("data/") for path in hub.listing(hub.head()).files)
        for what, value, unit in (
            ("staged_at_the_kill", len(staged), "shards"),
            ("published", there, "shards"),
            ("sent", done["shards sent"], "shards"),
            ("staged", len(counts) - len(staged), "shards"),
            ("staged_again", sum(counts.values()) - len(counts), "shards"),
            ("left_running", len(going_on(runs, first, second)), "task runs"),
            ("s", round(seconds, 1), "s"),
        ):
            print(f"cluster_resume_{what} {value} {unit}", flush=True)
        print(f"the second run's jobs: {sorted(others)}; {stack.ui}/runs/flow-run/{second}", flush=True)
        if options.keep:
            input("Enter ends it. ")
    shutil.rmtree(place)
    return int(bool(jobs.keys() & others.keys()) or there != options.sessions)


def kill(run: psutil.Process, hub: Hub, at: int) -> int:
    """Let a run go on by the hundredth of a second, and kill it when so many shards are on the Hub; how many are."""
    while on_hub(hub) < at:
        run.resume()
        time.sleep(0.01)
        run.suspend()
        time.sleep(0.1)  # for what the Hub was still doing for it
    run.send_signal(signal.SIGKILL)
    time.sleep(1)
    return on_hub(hub)


def on_hub(hub: Hub) -> int:
    """How many shards were committed, one by one; none as long as there is no repo."""
    with suppress(RepositoryNotFoundError):
        return published(hub)
    return 0


def going_on(runs: Runs, *of: UUID) -> list[str]:
    return [one.name for run in of for one in runs.task_runs(run) if one.state_name in ("Running", "Pending")]


if __name__ == "__main__":
    raise SystemExit(main())
