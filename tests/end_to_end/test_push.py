"""The chain as its users run it: deployments, a worker, a gate that suspends, processes that are killed."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deployments.demo_data import make_dataset
from deployments.local_stack import Stack, wait_until
from deployments.runs import Runs, runs_of
from tasks.disk.files import sha256_of
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.hub.errors import RepoMissing, Transient
from tasks.record.remote import RECORD
from tasks.values.models import PublicationRecord
from tests.conftest import SESSIONS
from tests.processes import wait_for_process

MANY = 40  # sessions: enough that a run can be killed in the middle of its commits

LOAD = """
import hashlib, json, sys
from datasets import load_dataset
rows = load_dataset(sys.argv[1], "anat_T1w", split="train")
raw = load_dataset(sys.argv[1], split="train", streaming=True).decode(False)
print(json.dumps({
    "shapes": [row["nifti"].shape for row in rows],
    "sha256": {row["path"]: hashlib.sha256(row["nifti"]["bytes"]).hexdigest() for row in raw},
}))
"""


@pytest.fixture
def runs(worker: Stack) -> Iterator[Runs]:
    with runs_of(f"{worker.ui}/api") as runs:
        yield runs


@pytest.fixture
def target(worker: Stack, repo_id: str) -> Hub:
    return Hub(Target(worker.endpoint, repo_id), worker.token)


@pytest.fixture
def staging(worker: Stack, target: Hub) -> Staging:
    return Staging.of(worker.staging_root, target.target)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bids") / "many"
    make_dataset(folder, sessions=MANY)
    return folder


def published(target: Hub) -> int:
    try:
        record, _ = PublicationRecord.read(target.read(RECORD, target.head()) or b"")
    except (RepoMissing, Transient):  # not made yet, or made between two looks
        return 0
    return len(record.shards)


def test_a_run_from_the_command_line_waits_at_its_gate_and_cleans_up_when_approved(
    worker: Stack, runs: Runs, target: Hub, staging: Staging, bids: Path
) -> None:
    repo = target.target.repo_id
    given = {"source": bids, "repo_id": repo, "defacing": "no faces"}
    parameters = [word for name, value in given.items() for word in ("--param", f"{name}={value}")]
    worker.run("prefect", "deployment", "run", "push-bids/manual", *parameters)
    (run,) = [r.id for r in runs.client.read_flow_runs() if r.parameters.get("repo_id") == repo]
    at_gate = runs.wait(run, {"PAUSED"})
    assert at_gate.name.startswith(f"push {repo}, ") and repo in at_gate.tags
    assert published(target) == SESSIONS == len(staging.receipts())

    assert runs.decide(run, decision="yes", confirm_repo=repo) is not None  # refused by the form itself
    assert runs.decide(run, decision="delete", confirm_repo="lab/another") is None
    wait_until("the gate asks again", lambda: asked_again(runs, run, at_gate.state.id), 120)  # type: ignore[union-attr]
    assert len(staging.receipts()) == SESSIONS

    assert runs.decide(run, decision="delete", confirm_repo=repo, note="looks good") is None
    ended = runs.wait(run)
    assert ended.state is not None and ended.state.name == "CleanedUp", ended.state
    assert not list(staging.folder.rglob("*.parquet")) and not staging.receipts()
    assert published(target) == SESSIONS


def asked_again(runs: Runs, run: UUID, first: UUID) -> bool:
    state = runs.read(run).state
    return state is not None and state.type.value == "PAUSED" and state.id != first


@pytest.mark.parametrize("lost", ["nothing", "what was staged"])
def test_a_run_killed_in_the_middle_is_finished_by_the_next_with_the_missing_work_only(
    worker: Stack, runs: Runs, target: Hub, staging: Staging, many: Path, lost: str
) -> None:
    parameters: dict[str, Any] = {
        "source": str(many), "repo_id": target.target.repo_id, "defacing": "no faces",
    }  # fmt: skip
    first = runs.start("push-bids/manual", **parameters)
    wait_until("some shards are on the Hub", lambda: published(target) >= MANY // 3, 180)
    wait_for_process(first).send_signal(signal.SIGKILL)
    runs.wait(first, {"CRASHED", "FAILED"})
    on_hub = published(target)  # with the commit that the Hub was still making when its sender died
    assert on_hub < MANY
    if lost != "nothing":
        shutil.rmtree(staging.shards)
        shutil.rmtree(staging.results, ignore_errors=True)
    intact = {r.path for r in staging.receipts() if staging.intact(r)} - set(recorded(target))

    second = runs.start("push-bids/manual", **parameters)
    runs.wait(second, {"PAUSED"})
    done = runs.figures(second)
    assert done["shards sent"] == MANY - on_hub
    assert done.get("shards embedded", 0) == MANY - on_hub - len(intact)
    assert published(target) == MANY
    assert sorted(recorded(target)) == sorted(p for p in target.listing(target.head()).files if p.startswith("data/"))


def recorded(target: Hub) -> list[str]:
    record, damaged = PublicationRecord.read(target.read(RECORD, target.head()) or b"")
    assert not damaged
    return list(record.shards)


def test_what_was_published_loads_with_datasets_and_has_the_bytes_of_the_sources(
    worker: Stack, runs: Runs, target: Hub, bids: Path
) -> None:
    run = runs.start("push-bids/manual", source=str(bids), repo_id=target.target.repo_id, defacing="no faces")
    runs.wait(run, {"PAUSED"})
    command = [sys.executable, "-c", LOAD, target.target.repo_id]
    done = subprocess.run(command, env=worker.environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    loaded = json.loads(done.stdout.splitlines()[-1])
    sources = {p.relative_to(bids).as_posix(): sha256_of(p) for p in bids.rglob("*.nii.gz")}
    assert loaded["sha256"] == sources
    assert len(loaded["shapes"]) == len(list(bids.rglob("*_T1w.nii.gz")))
    assert all(len(shape) == 3 for shape in loaded["shapes"])
