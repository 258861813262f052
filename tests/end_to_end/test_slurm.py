"""A push on a real SLURM of two nodes: killed, finished on a new allocation, and approved when that is gone too."""

import json
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from deployments.demo_data import make_dataset
from deployments.local_stack import REPO, Stack, wait_until
from deployments.runs import Runs, runs_of
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.hub.errors import RepoMissing
from tasks.hub.lacking import RouteMissing
from tasks.load import load
from tasks.plan import plan
from tasks.stage import groups
from tasks.write import WRITER_SETTINGS
from tests.executions import FOLDER, Executions
from tests.processes import wait_for_process
from tests.slurm import Slurm, slurm

MANY = 120  # sessions: three groups or more


@pytest.fixture(scope="module")
def nodes() -> Iterator[Slurm]:
    """SLURM, in a folder whose path is short enough for its sockets."""
    folder = Path(tempfile.mkdtemp(prefix="slurm-", dir="/tmp"))
    with slurm(folder / "s") as running:
        yield running
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def setting(nodes: Slurm, worker: Stack, tmp_path: Path) -> dict[str, str]:
    """What a worker that submits to it has in its environment. A node has the token from a file, and no other way."""
    token = tmp_path / "token"
    token.write_text(worker.token)
    token.chmod(0o600)
    prologue = [
        f"export HF_TOKEN=$(cat {token}) HF_ENDPOINT={worker.endpoint} PREFECT_API_URL={worker.ui}/api",
        f"export PYTHONPATH={REPO} HOME={tmp_path}/$SLURMD_NODENAME HF_HOME={tmp_path}/$SLURMD_NODENAME",
        f"export {FOLDER}={tmp_path}/executions",
        "mkdir -p $HOME",
    ]
    return nodes.setting(tmp_path, prologue)


def published(target: Hub) -> set[str]:
    try:
        return {path for path in target.listing(target.head()).files if path.startswith("data/")}
    except (RepoMissing, RouteMissing):  # not made yet, or made between two looks
        return set()


def test_what_a_killed_run_and_a_lost_job_leave_is_finished_on_new_jobs_and_approved_without_any(
    nodes: Slurm,
    setting: dict[str, str],
    worker: Stack,
    repo_id: str,
    tmp_path: Path,
) -> None:
    make_dataset(tmp_path / "bids", sessions=MANY)
    target = Hub(Target(worker.endpoint, repo_id), worker.token)
    staging = Staging.of(worker.staging_root, target.target)
    executions = Executions(tmp_path / "executions")
    parameters = {"source": str(tmp_path / "bids"), "repo_id": repo_id, "defacing": "no faces"}
    first_group, *others = groups(plan(load(tmp_path / "bids"), WRITER_SETTINGS))
    assert len(others) >= 2
    executions.hold(but=[spec.name for spec in first_group.specs])
    with runs_of(f"{worker.ui}/api") as runs:
        first = runs.start("push-bids/manual", env=setting, **parameters)
        wait_until("a part of it is on the Hub", lambda: published(target) == first_group.paths, 240)
        assert set(nodes.jobs().values()) == {"n1", "n2"}
        wait_for_process(first).send_signal(signal.SIGKILL)
        runs.wait(first, {"CRASHED", "FAILED"})
        wait_until("its jobs have ended", lambda: not nodes.jobs(), 180)
        begun = len(executions.of("begun"))

        second = runs.start("push-bids/manual", env=setting, **parameters)
        wait_until("both nodes have begun", lambda: len(executions.of("begun")) >= begun + 2, 240)
        lost = next(iter(nodes.jobs()))
        wait_until("its machine was seen", lambda: f"of job {lost}" in runs.logs(second), 120)
        nodes.ask("scancel", lost)
        executions.let_go()
        runs.wait(second, {"PAUSED"})
        assert re.search(rf"\(tcp://\S+ of job {lost}\) was lost with [12] part", runs.logs(second))
        assert len(published(target)) == MANY
        assert runs.figures(second)["shards sent"] == MANY - len(first_group.specs)
        wait_until("the run that waits has given its jobs back", lambda: not nodes.jobs(), 60)
        wait_until("no task run is left Running", lambda: not going_on(runs, first, second), 90)

        assert runs.decide(second, decision="delete", confirm_repo=repo_id, note="") is None
        assert runs.wait(second).state_name == "CleanedUp"
    assert not list(staging.shards.rglob("*.parquet"))
    counts = Counter(one.shard for one in executions.of("staged"))
    assert len(counts) == MANY and set(counts.values()) == {1}
    logged = b"".join(path.read_bytes() for path in (tmp_path / "log").iterdir())
    assert logged and worker.token.encode() not in logged


def going_on(runs: Runs, *of: Any) -> list[str]:
    return [one.name for run in of for one in runs.task_runs(run) if one.state_name in ("Running", "Pending")]


def test_a_cluster_is_tried_before_it_is_used_and_a_job_that_slurm_never_takes_ends_a_run_with_its_words(
    setting: dict[str, str], worker: Stack, bids: Path, repo_id: str, tmp_path: Path
) -> None:
    """With no job at the least, as in the example: who tries the cluster asks for one."""
    worker.staging_root.mkdir(parents=True, exist_ok=True)
    asked_for = setting | {"BIDS_PUSH_CLUSTER_ADAPT": json.dumps({"minimum_jobs": 0, "maximum_jobs": 2})}
    done = tried(worker, asked_for, bids)
    assert done.returncode == 0 and "job 1" not in done.stderr, done.stdout + done.stderr
    assert "as it has to be" in done.stdout and "INFO" not in done.stdout + done.stderr

    arguments = json.loads(setting["BIDS_PUSH_CLUSTER_ARGUMENTS"]) | {"queue": "nowhere"}
    refused = asked_for | {"BIDS_PUSH_CLUSTER_ARGUMENTS": json.dumps(arguments)}
    done = tried(worker, refused, bids)
    assert done.returncode == 1 and "invalid partition specified: nowhere" in done.stdout
    with runs_of(f"{worker.ui}/api") as runs:
        run = runs.start("push-bids/manual", env=refused, source=str(bids), repo_id=repo_id, defacing="no faces")
        state = runs.wait(run).state
    assert state and state.name == "ClusterUnavailable"
    assert "invalid partition specified: nowhere" in (state.message or "")


def tried(worker: Stack, setting: dict[str, str], bids: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "deployments", "cluster", str(bids), "--seconds", "240"],
        cwd=REPO,
        env={**worker.environment, **setting},
        capture_output=True,
        text=True,
        check=False,
    )
