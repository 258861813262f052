"""Pushes by the machines of a real Dask cluster: a scheduler and worker processes that have homes of their own."""

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import dask
import pytest
from prefect.client.schemas.objects import State

from deployments import try_cluster
from deployments.local_stack import Stack, wait_until
from deployments.runs import runs_of
from flows.push_bids import push_bids
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.record.remote import RECORD
from tests.executions import Executions
from tests.figures import figures
from tests.machines import Machines, environment_of, machines
from tests.ports import own_port

pytestmark = pytest.mark.usefixtures("prefect_server", "with_token")

opened: list[str] = []
"""The Parquet files that this process has opened since a test emptied it."""


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "open" and isinstance(arguments[0], str) and arguments[0].endswith(".parquet"):
        opened.append(arguments[0])


@pytest.fixture(scope="module")
def two(prefect_server: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    """Two machines of a cluster."""
    with machines(tmp_path_factory.mktemp("machines"), environment_of(prefect_server), ("n1", "n2")) as running:
        yield running


@pytest.fixture
def on_two(two: Machines, monkeypatch: pytest.MonkeyPatch) -> Executions:
    """This process's runs have them. Each shard is a part, so that there is something to share."""
    monkeypatch.setenv("BIDS_PUSH_CLUSTER", two.address)
    monkeypatch.setenv("BIDS_PUSH_PART_BYTES", "1")
    monkeypatch.setattr("tasks.stage.FLUSHED_ABOVE", 0)
    (two.executions.folder / "log").unlink(missing_ok=True)
    two.executions.let_go()
    return two.executions


def push(source: Path, target: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", **parameters}
    return push_bids(source, target.target.repo_id, staging_root=root, return_state=True, **given)


def published(target: Hub) -> dict[str, tuple[int, str | None]]:
    return {path: (file.size, file.sha256) for path, file in target.listing(target.head()).files.items()}


def task_runs(state: State[Any], stack: Stack) -> Counter[tuple[str, str]]:
    assert state.state_details.flow_run_id
    with runs_of(f"{stack.ui}/api") as runs:
        found = runs.task_runs(state.state_details.flow_run_id)
    return Counter((one.name.split()[0], one.state_name or "") for one in found)


def test_machines_publish_what_threads_publish_and_each_does_a_part_of_it(
    bids: Path, target: Hub, root: Path, on_two: Executions, prefect_server: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No staged byte is read by the process that commits; and a further push by threads finds nothing to do."""
    sys.addaudithook(_note)
    opened.clear()
    state = push(bids, target, root, verification="listing")
    assert (state.type.value, state.name) == ("COMPLETED", "Staged"), state.message
    assert not opened
    by_machines, shards = published(target), {path.stem.split(".")[0] for path in root.rglob("*.parquet")}
    assert Counter(one.shard for one in on_two.of("staged")) == Counter(shards)
    assert len({one.process for one in on_two.of("staged")}) == 2
    assert figures(state)["shards embedded"] == figures(state)["shards sent"] == len(shards)
    monkeypatch.delenv("BIDS_PUSH_CLUSTER")
    assert push(bids, target, root / "elsewhere").name == "NothingToPublish"
    by_threads = Hub(Target(target.target.endpoint, f"{target.target.repo_id}-t"), target.token)
    push(bids, by_threads, root / "threads", verification="listing")
    data = {path for path in by_machines if path.startswith("data/")}
    assert {path: published(by_threads)[path] for path in data} == {path: by_machines[path] for path in data}
    assert by_threads.read(RECORD, by_threads.head()) == target.read(RECORD, target.head())
    assert task_runs(state, prefect_server)["stage", "Completed"] == len(shards)


def test_what_a_killed_machine_had_in_flight_is_done_by_another_and_nothing_else_is_done_twice(
    bids: Path, target: Hub, root: Path, on_two: Executions, prefect_server: Stack
) -> None:
    """Dask does again what it knows only from a dead process. The run ends as if nothing had been; no task run is left
    `Running`."""
    on_two.hold()

    def kill_one_that_works() -> None:
        wait_until("both machines have begun", lambda: len({one.process for one in on_two.of("begun")}) == 2, 120)
        os.kill(on_two.of("begun")[0].process, signal.SIGKILL)
        on_two.let_go()

    with ThreadPoolExecutor(1) as meanwhile:
        killing = meanwhile.submit(kill_one_that_works)
        state = push(bids, target, root)
        killing.result()
    assert (state.type.value, state.name) == ("COMPLETED", "Staged"), state.message
    assert set(Counter(one.shard for one in on_two.of("staged")).values()) == {1}
    again = Counter(one.shard for one in on_two.of("begun"))
    assert sum(again.values()) == len(again) + 1  # what was in flight
    names = {name for _, name in task_runs(state, prefect_server)}
    assert not names & {"Running", "Pending"}, names


def test_a_bad_image_stops_its_shard_by_name_and_the_others_are_published(
    own_bids: Path, target: Hub, root: Path, on_two: Executions
) -> None:
    image = sorted(own_bids.rglob("*_T1w.nii.gz"))[0]
    image.write_bytes(image.read_bytes()[:-100])
    state = push(own_bids, target, root)
    assert state.name == "ShardsFailed" and image.name in (state.message or ""), state.message
    assert figures(state)["shards failed"] == 1
    assert len([path for path in published(target) if path.startswith("data/")]) == len(on_two.of("staged"))


def test_a_staged_shard_that_somebody_damaged_is_staged_again_and_one_that_is_whole_is_only_sent(
    bids: Path, target: Hub, root: Path, on_two: Executions, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By whichever machine, from the staging folder that all of them see."""
    push(bids, target, root)
    staged = sorted(root.rglob("*.parquet"))
    data = bytearray(staged[0].read_bytes())
    data[len(data) // 2] ^= 1
    staged[0].write_bytes(data)
    before = len(on_two.of("staged"))
    other = Hub(Target(target.target.endpoint, f"{target.target.repo_id}-again"), target.token)
    folder = next(path for path in root.iterdir())
    folder.rename(Staging.of(root, other.target).folder)
    state = push(bids, other, root)
    assert state.name == "Staged", state.message
    assert [one.shard for one in on_two.of("staged")[before:]] == [staged[0].name.split(".")[0]]
    assert {path: published(other)[path] for path in published(other) if path.startswith("data/")} == {
        path: published(target)[path] for path in published(target) if path.startswith("data/")
    }


def test_a_quiet_night_asks_for_no_machine(
    bids: Path, target: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(bids, target, root)
    monkeypatch.setenv("BIDS_PUSH_CLUSTER", f"tcp://127.0.0.1:{own_port()}")  # where nobody is
    assert push(bids, target, root / "another").name == "NothingToPublish"


@pytest.mark.parametrize(
    ("setting", "state_name", "says"),
    [
        ({"BIDS_PUSH_CLUSTER": "tcp://127.0.0.1:9"}, "ClusterUnavailable", "tcp://127.0.0.1:9"),
        ({"BIDS_PUSH_CLUSTER": "dask_jobqueue.SLRUMCluster"}, "BadInput", "dask_jobqueue.SLURMCluster"),
        ({"BIDS_PUSH_CLUSTER": "slurm"}, "BadInput", "neither an address"),
        ({"BIDS_PUSH_CLUSTER": "distributed.LocalCluster", "BIDS_PUSH_CLUSTER_ARGUMENTS": "{"}, "BadInput", "JSON"),
        ({"BIDS_PUSH_CLUSTER": "dask_jobqueue.SLURMCluster"}, "ClusterUnavailable", "cores"),
        (
            {"BIDS_PUSH_CLUSTER": "tcp://127.0.0.1:9", "BIDS_PUSH_CLUSTER_ARGUMENTS": '{"cores": 2}'},
            "BadInput",
            "BIDS_PUSH_CLUSTER_ARGUMENTS",
        ),
    ],
)
def test_a_setting_that_names_no_cluster_stops_the_run_and_says_what_to_do(
    bids: Path,
    target: Hub,
    root: Path,
    setting: dict[str, str],
    state_name: str,
    says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    with dask.config.set({"distributed.comm.timeouts.connect": "1s"}):
        state = push(bids, target, root)
    assert state.name == state_name and says in (state.message or ""), state


@pytest.mark.parametrize(
    ("environment", "says"),
    [
        ({"HF_ENDPOINT": "http://127.0.0.1:9"}, "HF_ENDPOINT"),
        ({"HF_TOKEN": ""}, "HF_TOKEN"),
    ],
)
def test_a_machine_that_is_set_up_otherwise_says_so(
    bids: Path,
    target: Hub,
    root: Path,
    prefect_server: Stack,
    environment: dict[str, str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    root.mkdir()
    monkeypatch.setenv("BIDS_PUSH_STAGING_ROOT", str(root))
    with machines(tmp_path / "m", environment_of(prefect_server) | environment, ("other",)) as running:
        monkeypatch.setenv("BIDS_PUSH_CLUSTER", running.address)
        state = push(bids, target, root)
        assert try_cluster.main(bids, 1, 60) == 1
    assert state.is_failed() and says in (state.message or ""), state
    (complaint,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  ")]
    assert says in complaint


def test_who_tries_the_cluster_first_is_told_whether_each_machine_is_set_up(
    bids: Path, root: Path, on_two: Executions, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BIDS_PUSH_STAGING_ROOT", str(root))
    assert try_cluster.main(bids, 2, 60) == 1
    assert capsys.readouterr().out.count(f"cannot write to the staging root {root}") == 2
    root.mkdir()
    assert try_cluster.main(bids, 2, 60) == 0
    assert capsys.readouterr().out.count("as it has to be") == 2
    assert try_cluster.main(bids.with_name("elsewhere"), 2, 60) == 1
    assert capsys.readouterr().out.count("cannot read the dataset") == 2
    assert try_cluster.main(bids, 3, 1) == 1
    assert "2 of 3 processes" in capsys.readouterr().out
    monkeypatch.delenv("BIDS_PUSH_CLUSTER")
    assert try_cluster.main(bids, 1, 1) == 1
    assert "threads of this machine" in capsys.readouterr().out


def test_a_cluster_without_a_machine_is_waited_for_and_then_named(
    bids: Path, target: Hub, root: Path, prefect_server: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the first run's staging is lost, nor its target: the next one goes on by threads."""
    own = {"DASK_DISTRIBUTED__SCHEDULER__NO_WORKERS_TIMEOUT": "1s"}
    with machines(tmp_path / "m", environment_of(prefect_server) | own) as running:
        monkeypatch.setenv("BIDS_PUSH_CLUSTER", running.address)
        state = push(bids, target, root)
    assert state.name == "ClusterUnavailable" and "queue" in (state.message or ""), state
    monkeypatch.delenv("BIDS_PUSH_CLUSTER")
    assert push(bids, target, root).name == "Staged"


def test_a_part_that_is_lost_with_each_machine_ends_the_run_with_a_name(
    bids: Path, target: Hub, root: Path, on_two: Executions
) -> None:
    on_two.hold()
    killed: set[int] = set()

    def kill_whoever_works(ended: Event) -> None:
        while not ended.wait(0.1):
            for one in on_two.of("begun"):
                if one.process not in killed:
                    killed.add(one.process)
                    os.kill(one.process, signal.SIGKILL)

    with ThreadPoolExecutor(1) as meanwhile:
        ended = Event()
        killing = meanwhile.submit(kill_whoever_works, ended)
        state = push(bids, target, root)
        ended.set()
        killing.result()
    on_two.let_go()
    assert state.name == "PartLost" and "memory" in (state.message or ""), state
    assert len(killed) >= 4  # Dask's allowed failures, and one
    assert push(bids, target, root).name == "Staged"


def test_a_scheduler_that_dies_under_a_run_ends_it_with_a_name_and_the_next_run_goes_on(
    bids: Path, target: Hub, root: Path, prefect_server: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_PART_BYTES", "1")
    monkeypatch.setattr("tasks.stage.FLUSHED_ABOVE", 0)
    with machines(tmp_path / "m", environment_of(prefect_server), ("n1", "n2")) as running:
        running.executions.hold()
        monkeypatch.setenv("BIDS_PUSH_CLUSTER", running.address)

        def kill_it() -> None:
            wait_until("both work", lambda: len(running.executions.of("begun")) == 2, 60)
            running.processes["scheduler"].popen.kill()

        with ThreadPoolExecutor(1) as meanwhile:
            killing = meanwhile.submit(kill_it)
            state = push(bids, target, root)
            killing.result()
        running.executions.let_go()
    assert state.name == "ClusterUnavailable" and state.message, state
    assert f"the scheduler of the cluster (BIDS_PUSH_CLUSTER={running.address}) went away" in state.message
    monkeypatch.delenv("BIDS_PUSH_CLUSTER")
    assert push(bids, target, root).name == "Staged"
