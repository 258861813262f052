"""A soak of pushes on a real SLURM of two nodes: in each round something is lost, and nothing may be.

`python -m soak.cluster --rounds 100 [--seed 1]`. In each round a dataset is pushed to a repo of its own, and in the
middle of it one of these happens (`FAULTS`): a machine's process is killed, a job is cancelled or reaches its walltime,
a node is cut off for longer than the scheduler waits and comes back, or the run itself is killed, and another follows.

A node that is cut off works on, and nothing that it sends arrives (`soak.partition`). Where that cannot be had (it
needs root, and programs of Debian's), its processes are stopped instead, and the first line says so.

Afterwards the Hub has to hold, byte for byte, what a push by threads publishes; no shard was staged twice but what was
in flight; no task run is left Running. The executions are counted in a log of the soak's own (`tests.executions`).
"""

import argparse
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import psutil

from benchmarks.large_push import tree
from deployments import local_stack
from deployments.local_stack import REPO, Stack, StackError, running, wait_until
from deployments.runs import Runs, runs_of
from soak import partition
from soak.partition import Partition
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.values.errors import PushError
from tests.executions import FOLDER, Executions
from tests.processes import wait_for_process
from tests.slurm import Slurm, slurm

local_stack.START_SECONDS = 400.0  # a busy machine is slow, which says nothing of the code
SHARDS, MEGABYTES = 12, 9  # each is a part: larger than what is staged together
RATE = 6.0  # MB a second that a machine reads, so that there is a middle
CUT_OFF = 12  # seconds of silence after which the scheduler gives a machine's work to others
DEPLOYMENT = "push-bids/manual"


@dataclass
class Ground:
    """What the rounds stand on."""

    stack: Stack
    nodes: Slurm
    runs: Runs
    source: Path
    folder: Path
    executions: Executions
    cable: Partition | None
    """Cuts a job off. None: it is stopped instead."""
    reference: dict[str, tuple[int, str | None]]

    @property
    def setting(self) -> dict[str, str]:
        """What the worker has in its environment."""
        prologue = [
            *([self.cable.entering] if self.cable else []),
            f"export HF_TOKEN={self.stack.token} HF_ENDPOINT={self.stack.endpoint}",
            f"export PREFECT_API_URL={self.stack.ui}/api PYTHONPATH={REPO} {FOLDER}={self.executions.folder}",
            f"export HOME={self.folder}/home/$SLURM_JOB_ID HF_HOME={self.folder}/home/$SLURM_JOB_ID",
            f"mkdir -p $HOME; export BENCH_SOURCE_MB_PER_S={RATE}",
        ]
        return {
            **self.nodes.setting(self.folder, prologue, "benchmarks.slow_source", memory="2GB"),
            "BIDS_PUSH_BATCH_SHARDS": "3",
            "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{CUT_OFF}s",
        }

    def push(self, repo_id: str, **env: str) -> UUID:
        """Start a push."""
        return self.runs.start(DEPLOYMENT, env=env, source=str(self.source), repo_id=repo_id, defacing="no faces")

    def published(self, repo_id: str) -> dict[str, tuple[int, str | None]]:
        """The size and sha256 of each file of the dataset on the Hub."""
        hub = Hub(Target(self.stack.endpoint, repo_id), self.stack.token)
        try:
            files = hub.listing(hub.head()).files
        except PushError:
            return {}
        return {path: (file.size, file.sha256) for path, file in files.items() if path.startswith("data/")}

    def job_processes(self, job: str) -> list[psutil.Process]:
        """The processes of a job."""
        found = []
        for process in psutil.process_iter():
            with suppress(psutil.Error):
                if process.environ().get("SLURM_JOB_ID") == job:
                    found.append(process)
        return found


Fault = Callable[[Ground, UUID, random.Random], None]


def kill_a_machine(ground: Ground, _run: UUID, draw: random.Random) -> None:
    """SIGKILL the process of a machine that works."""
    staged = {one.shard for one in ground.executions.of("staged")}
    working = [one.process for one in ground.executions.of("begun") if one.shard not in staged]
    with suppress(ProcessLookupError):
        os.kill(draw.choice(working or [one.process for one in ground.executions.of("begun")]), signal.SIGKILL)


def cancel_a_job(ground: Ground, _run: UUID, draw: random.Random) -> None:
    """End a job as its owner or an administrator does."""
    if jobs := sorted(ground.nodes.jobs()):
        ground.nodes.ask("scancel", draw.choice(jobs))


def end_a_jobs_time(ground: Ground, _run: UUID, draw: random.Random) -> None:
    """Have a job reach its walltime."""
    if jobs := sorted(ground.nodes.jobs()):
        ground.nodes.ask("scontrol", "update", f"JobId={draw.choice(jobs)}", "TimeLimit=0:01")


def cut_a_node_off(ground: Ground, _run: UUID, draw: random.Random) -> None:
    """Cut a job off for longer than the scheduler waits, and let it be reached again."""
    jobs = sorted(ground.nodes.jobs())
    if not jobs:
        return
    job, seconds = draw.choice(jobs), CUT_OFF + draw.uniform(1, 8)
    if ground.cable:
        ground.cable.cut(job)
        time.sleep(seconds)
        assert ground.cable.heal(), "nothing was sent by the node that was cut off, or to it"
        return
    stopped = ground.job_processes(job)
    for process in stopped:
        with suppress(psutil.Error):
            process.suspend()
    time.sleep(seconds)
    for process in stopped:
        with suppress(psutil.Error):
            process.resume()


def kill_the_run(ground: Ground, run: UUID, _draw: random.Random) -> None:
    """SIGKILL the process of the run."""
    wait_for_process(run).send_signal(signal.SIGKILL)
    ground.runs.wait(run, {"CRASHED", "FAILED"})


FAULTS: dict[str, Fault] = {
    "machine killed": kill_a_machine,
    "job cancelled": cancel_a_job,
    "walltime reached": end_a_jobs_time,
    "node cut off": cut_a_node_off,
    "run killed": kill_the_run,
}


def play(ground: Ground, number: int, draw: random.Random, only: str | None) -> tuple[str, list[str], int, int]:
    """Play one round.

    Returns:
        The fault, what is wrong afterwards, how many shards were in flight when it happened, and how many were staged
        again.
    """
    repo_id, name = f"lab/soak-{number}", only or draw.choice(sorted(FAULTS))
    (ground.executions.folder / "log").unlink(missing_ok=True)
    runs = [ground.push(repo_id, **ground.setting)]
    many = draw.randrange(1, SHARDS - 1)
    wait_until("it is in the middle", lambda: len(ground.executions.of("begun")) > many, 300)
    begun, staged = ({one.shard for one in ground.executions.of(what)} for what in ("begun", "staged"))
    in_flight = len(begun - staged)
    FAULTS[name](ground, runs[0], draw)
    if name == "run killed":
        runs.append(ground.push(repo_id, **ground.setting))
    wrong = []
    try:
        ground.runs.wait(runs[-1], {"PAUSED"}, 400)
    except Exception as error:  # noqa: BLE001 - whatever it is, the round is lost by it
        wrong.append(f"{error}")
    if ground.published(repo_id) != ground.reference:
        wrong.append(
            f"the Hub holds {len(ground.published(repo_id))} of {len(ground.reference)} shards as they should be"
        )
    again = sum(Counter(one.shard for one in ground.executions.of("staged")).values()) - len(ground.reference)
    if again > in_flight:
        wrong.append(f"{again} shards were staged again, and {in_flight} were in flight")
    try:
        wait_until("no task run is left Running", lambda: not going_on(ground.runs, runs), 90)
    except StackError:
        wrong.append(f"left Running: {going_on(ground.runs, runs)}")
    try:
        wait_until("all jobs are gone", lambda: not ground.nodes.jobs(), 90)
    except StackError:
        wrong.append(f"jobs are left: {ground.nodes.jobs()}")
    for run in runs:
        if ground.runs.read(run).state_name == "Suspended":
            ground.runs.decide(run, decision="keep", confirm_repo=repo_id, note="")
            ground.runs.wait(run)
    return name, wrong, in_flight, again


def going_on(runs: Runs, of: list[UUID]) -> list[str]:
    """The names of the task runs that the server shows as going on."""
    return [one.name for run in of for one in runs.task_runs(run) if one.state_name in ("Running", "Pending")]


def main() -> int:
    """Play the rounds, and say what came of them.

    Returns:
        The exit code: 1 if anything is wrong after a round, else 0.
    """
    parser = argparse.ArgumentParser(prog="python -m soak.cluster", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--fault", choices=sorted(FAULTS), help="this one in each round")
    options = parser.parse_args()
    seed = options.seed if options.seed is not None else random.randrange(1 << 32)
    if why := partition.why_not():
        print(f"A node that is cut off is stopped instead: {why}.", flush=True)
    else:
        partition.in_own_network([sys.executable, "-m", "soak.cluster", *sys.argv[1:]])
    here = REPO / ".soak"
    here.mkdir(exist_ok=True)
    source = tree(here / f"cluster-{SHARDS}-{MEGABYTES}", SHARDS, MEGABYTES)
    wrong: list[str] = []
    faults: Counter[str] = Counter()
    flying = repeated = 0
    with (
        tempfile.TemporaryDirectory(prefix="soak-", dir="/tmp") as short,  # sockets have short paths
        running(here / "cluster-stack", account="lab") as stack,
        slurm(Path(short) / "s") as nodes,
        runs_of(f"{stack.ui}/api") as runs,
        nullcontext() if why else partition.partition() as cable,
    ):
        folder = Path(short)
        ground = Ground(stack, nodes, runs, source, folder, Executions(folder / "executions"), cable, {})
        runs.wait(ground.push("lab/reference"), {"PAUSED"})
        ground.reference = ground.published("lab/reference")
        print(f"seed {seed}; {len(ground.reference)} shards", flush=True)
        for number in range(options.rounds):
            began = time.monotonic()
            name, found, in_flight, again = play(ground, number, random.Random(f"{seed}-{number}"), options.fault)
            faults[name] += 1
            flying, repeated = flying + in_flight, repeated + again
            wrong += [f"round {number}, {name}: {one}" for one in found]
            shutil.rmtree(stack.staging_root, ignore_errors=True)
            print(
                f"{number:4d} {'LOST' if found else 'ok  '} {name}; {in_flight} in flight, {again} staged again; "
                f"{time.monotonic() - began:.0f} s" + "".join(f"\n       {one}" for one in found),
                flush=True,
            )
    print(f"cluster_soak_rounds {sum(faults.values())} rounds")
    for name, many in sorted(faults.items()):
        print(f"cluster_soak_fault[{name}] {many} times")
    print(f"cluster_soak_in_flight {flying} shards")
    print(f"cluster_soak_staged_again {repeated} shards")
    print(f"cluster_soak_wrong {len(wrong)} findings")
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
