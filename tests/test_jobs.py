"""The jobs by which machines come: one that the batch system refuses is asked for again, and the run says so."""

import asyncio
import json
import logging
import os
import stat
from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any, cast

import dask
import pytest
from dask_jobqueue.slurm import SLURMJob

from flows import jobs as module
from flows.cluster import Cluster, ClusterUnavailable, _class_of, _runner
from flows.jobs import Jobs
from flows.part import stage_and_send
from tasks.values.errors import BadInput
from tasks.values.settings import Settings

SBATCH = """#!/bin/sh
# refuses as often as the file `refusals` has letters, with the words of the file `words`
letters=$(cat {folder}/refusals)
if [ -n "$letters" ]; then
    printf %s "${{letters#?}}" > {folder}/refusals
    cat {folder}/words >&2
    exit 1
fi
echo Submitted batch job 42
"""


@pytest.fixture
def batch_system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of an `sbatch` that can be told to refuse."""
    sbatch = tmp_path / "sbatch"
    sbatch.write_text(SBATCH.format(folder=tmp_path))
    sbatch.chmod(sbatch.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setattr(module, "AGAIN", 0.01)
    return tmp_path


def submit(jobs: Jobs, folder: Path, refusals: int, words: str) -> str:
    (folder / "refusals").write_text("x" * refusals)
    (folder / "words").write_text(words)
    told = jobs.told(SLURMJob)
    job = told(scheduler="tcp://127.0.0.1:1", name="n", cores=1, memory="1GB")
    taken: str = asyncio.run(job._submit_job("script"))
    return taken


def test_a_job_that_is_refused_for_a_while_is_asked_for_until_it_is_taken(
    batch_system: Path, caplog: pytest.LogCaptureFixture
) -> None:
    ended: list[bool] = []
    jobs = Jobs(logging.getLogger("jobs"), lambda: ended.append(True))
    with caplog.at_level(logging.INFO):
        assert "42" in submit(jobs, batch_system, 3, "sbatch: error: Unable to contact slurm controller")
    assert caplog.text.count("refused a job: sbatch: error: Unable to contact slurm controller") == 3
    assert "job 42" in caplog.text and jobs.asked == ["42"] and not ended and not jobs.given_up
    assert jobs.of_machine == {"n": "42"}


@pytest.mark.parametrize(
    ("refusals", "words"),
    [
        (99, "sbatch: error: invalid partition specified: normal"),
        (99, "sbatch: error: Memory specification can not be satisfied"),
        (module.REFUSALS + 1, "sbatch: error: Unable to contact slurm controller"),
    ],
)
def test_a_refusal_that_asking_does_not_change_ends_the_wait_and_is_quoted(
    batch_system: Path, refusals: int, words: str
) -> None:
    ended: list[bool] = []
    jobs = Jobs(logging.getLogger("jobs"), lambda: ended.append(True))
    with pytest.raises(RuntimeError):
        submit(jobs, batch_system, refusals, words)
    assert ended == [True] and jobs.given_up == words


def test_once_a_job_was_taken_a_refusal_of_further_ones_ends_nothing(batch_system: Path) -> None:
    """A limit of jobs is reached: those that run go on."""
    ended: list[bool] = []
    jobs = Jobs(logging.getLogger("jobs"), lambda: ended.append(True))
    submit(jobs, batch_system, 0, "")
    submit(jobs, batch_system, 4, "sbatch: error: QOSMaxSubmitJobPerUserLimit: job violates limits, invalid")
    assert not ended and jobs.asked == ["42", "42"]


def test_a_run_that_ends_asks_for_no_more(batch_system: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "AGAIN", 600.0)
    jobs = Jobs(logging.getLogger("jobs"), lambda: None)
    jobs.close()
    with pytest.raises(RuntimeError):
        submit(jobs, batch_system, 99, "sbatch: error: Unable to contact slurm controller")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("dask_jobqueue.SlurmCluster", "dask_jobqueue.SLURMCluster: dask_jobqueue has no SlurmCluster"),
        ("dask_jobqueue.SLRUMCluster", "dask_jobqueue.SLURMCluster"),
        ("dask_jobque.SLURMCluster", "make cluster"),
        ("slurm", "neither an address"),
    ],
)
def test_a_class_that_is_not_there_is_told_with_the_one_that_was_meant(name: str, says: str) -> None:
    with pytest.raises(BadInput, match=says):
        _class_of(name)


def test_the_log_says_that_no_machine_has_come_which_was_lost_and_when_one_comes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    jobs = Jobs(logging.getLogger("jobs"), lambda: None, asked=["7", "8"])
    with caplog.at_level(logging.INFO):
        came, said = jobs._look([], [], frozenset(), -module.SAY_EVERY)
        assert jobs._look([], [], came, said) == (came, said)  # said a moment ago
        came, said = jobs._look(["tcp://a of job 7", "tcp://b of job 8"], ["A machine was lost."], came, said)
        came, said = jobs._look(["tcp://b of job 8", "tcp://c"], [], came, said)
        came, said = jobs._look(["tcp://a of job 7"], [], came, said)  # told before
        jobs._look([], [], came, said - module.SAY_EVERY - 1)
    assert [record.getMessage() for record in caplog.records] == [
        "No machine of the cluster has come yet (jobs 7, 8). The run waits for one.",
        "A machine was lost.",
        "2 machines (tcp://a of job 7, tcp://b of job 8) of the cluster have come.",
        "1 machine (tcp://c) of the cluster has come.",
        "No machine of the cluster is there now (jobs 7, 8). The run waits for one.",
    ]


class Dask:
    """Dask's client, as far as it is asked: two machines, one of which was lost with work."""

    def __init__(self) -> None:
        self.threads = {"tcp://a": 8, "tcp://b": 4}
        self.events: list[tuple[float, dict[str, Any]]] = []
        self.cancelled = Event()

    def scheduler_info(self, n_workers: int) -> dict[str, Any]:
        assert n_workers == -1  # all of them
        workers = {at: {"name": f"machine of {at}", "nthreads": count} for at, count in self.threads.items()}
        return {"workers": workers}

    def get_events(self, topic: str) -> list[tuple[float, dict[str, Any]]]:
        return self.events

    def run(self, function: Callable[..., Any], *arguments: Any, on_error: str) -> dict[str, Any]:
        return {address: function(*arguments) for address in self.threads}

    def cancel(self, futures: list[Any]) -> None:
        self.cancelled.set()


class Runner:
    """Prefect's task runner for Dask, once it is there."""

    def __init__(self, client: Dask | None) -> None:
        self._client, self.submitted = client, list[Any]()

    @property
    def client(self) -> Dask:
        if self._client is None:
            raise OSError("nobody answers")
        return self._client

    def submit(self, task: Any, parameters: dict[str, Any], wait_for: list[Any]) -> Any:
        self.submitted.append((task, parameters, wait_for))
        return SimpleNamespace(wrapped_future=Future[None]())


def of(client: Dask | None, jobs: Jobs | None = None) -> tuple[Cluster, Runner]:
    runner = Runner(client)
    return Cluster(runner, "slurm", jobs or Jobs(logging.getLogger("jobs"), lambda: None)), runner  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("threads", "at_a_time"), [({}, 16), ({"a": 4}, 16), ({"a": 8, "b": 1}, 18), ({"a": 30, "b": 10}, 80)]
)
def test_two_parts_a_thread_are_asked_for_and_some_before_a_machine_has_come(
    threads: dict[str, int], at_a_time: int
) -> None:
    dask = Dask()
    dask.threads = threads
    assert of(dask)[0].parts_at_a_time == at_a_time


def test_a_machine_that_was_lost_with_work_is_told_once() -> None:
    dask = Dask()
    cluster, _ = of(dask)
    dask.events += [
        (1.0, {"action": "add-worker", "worker": "tcp://a"}),
        (2.0, {"action": "remove-worker", "worker": "tcp://b", "processing-tasks": {}}),
        (3.0, {"action": "remove-worker", "worker": "tcp://a", "processing-tasks": {"x": 1, "y": 2}}),
    ]
    assert cluster._lost() == [
        "A machine of the cluster (tcp://a) was lost with 2 parts, which others do again."
    ]  # fmt: skip
    assert cluster._lost() == []
    dask.events.append((4.0, {"action": "remove-worker", "worker": "tcp://c", "processing-tasks": {"z": 1}}))
    assert [one.split()[5] for one in cluster._lost()] == ["(tcp://c)"]


@pytest.mark.parametrize("processes", ["", "-0", "-1"], ids=["one process", "the first of two", "the second"])
def test_a_machine_that_came_by_a_job_is_told_with_it(processes: str) -> None:
    dask, jobs = Dask(), Jobs(logging.getLogger("jobs"), lambda: None)
    jobs.was_taken("42", "machine of tcp://a")
    dask.threads = {f"tcp://a{processes}": 1, "tcp://b": 1}
    cluster, _ = of(dask, jobs)
    assert cluster.parts_at_a_time  # who is there is seen
    for at in dask.threads:
        dask.events.append((1.0, {"action": "remove-worker", "worker": at, "processing-tasks": {"x": 1}}))
    assert cluster._lost() == [
        f"A machine of the cluster (tcp://a{processes} of job 42) was lost with 1 part, which others do again.",
        "A machine of the cluster (tcp://b) was lost with 1 part, which others do again.",
    ]


def test_machines_are_waited_for_until_there_are_enough_or_none_more_will_come() -> None:
    jobs = Jobs(logging.getLogger("jobs"), lambda: None)
    cluster, _ = of(Dask(), jobs)
    assert cluster.wait_for(2, 60) == 2
    assert cluster.wait_for(3, 0) == 2
    jobs.given_up = "it refuses each job"
    assert cluster.wait_for(3, 60) == 2
    assert cluster.ask(lambda text: text.upper(), "ready") == {"tcp://a": "READY", "tcp://b": "READY"}


def test_parts_that_were_asked_for_are_waited_for_no_more_once_the_wait_is_given_up() -> None:
    dask = Dask()
    cluster, runner = of(dask)
    cluster.give_up()
    assert cluster.parts_at_a_time and not dask.cancelled.wait(0.1)  # nothing was asked for
    part: Any = object()
    future = cluster.submit(part, iter(["a state"]))  # type: ignore[arg-type]
    assert runner.submitted == [(stage_and_send, {"part": part}, ["a state"])]
    cluster.give_up()
    assert dask.cancelled.wait(60) and future


def test_a_cluster_that_cannot_be_reached_ends_the_run_with_its_name_and_what_it_said() -> None:
    with pytest.raises(ClusterUnavailable, match=r"BIDS_PUSH_CLUSTER=slurm cannot be used .*OSError: nobody answers"):
        of(None)[0].wait_for(1, 0)


@pytest.fixture
def set_to(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Settings]:
    """Sets the environment as an operator does; returns the settings."""

    def do(**settings: Any) -> Settings:
        for name, value in settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            monkeypatch.setenv(f"BIDS_PUSH_{name.upper()}", text)
        return Settings()

    return do


@pytest.mark.parametrize(
    ("settings", "at_least", "made"),
    [
        ({"cluster": "tcp://10.0.0.1:8786"}, 0, ("tcp://10.0.0.1:8786", None, {}, {})),
        ({"cluster": "tcp://10.0.0.1:8786"}, 3, ("tcp://10.0.0.1:8786", None, {}, {})),
        ({"cluster": "distributed.LocalCluster"}, 0, (None, "LocalCluster", {}, {})),
        ({"cluster": "distributed.LocalCluster", "cluster_arguments": {"threads_per_worker": 2}}, 3,
         (None, "LocalCluster", {"n_workers": 3, "threads_per_worker": 2}, {})),
        ({"cluster": "distributed.LocalCluster", "cluster_arguments": {"n_workers": 1}}, 3,
         (None, "LocalCluster", {"n_workers": 1}, {})),
        ({"cluster": "distributed.LocalCluster", "cluster_adapt": {"maximum": 9}}, 3,
         (None, "LocalCluster", {}, {"maximum": 9, "minimum": 3})),
        ({"cluster": "distributed.LocalCluster", "cluster_adapt": {"minimum": 5}}, 3,
         (None, "LocalCluster", {}, {"minimum": 5})),
        ({"cluster": "distributed.LocalCluster", "cluster_adapt": {"maximum_jobs": 9}}, 3,
         (None, "LocalCluster", {}, {"maximum_jobs": 9, "minimum_jobs": 3})),
        ({"cluster": "distributed.LocalCluster", "cluster_adapt": {"maximum": 9}}, 0,
         (None, "LocalCluster", {}, {"maximum": 9})),
    ],
)  # fmt: skip
def test_a_cluster_is_reached_or_made_as_the_settings_say_with_as_many_machines_as_are_asked_for(
    settings: dict[str, Any], at_least: int, made: tuple[Any, ...], set_to: Callable[..., Settings]
) -> None:
    jobs = Jobs(logging.getLogger("jobs"), lambda: None)
    runner: Any = _runner(set_to(**settings), jobs, at_least)
    of_class = runner.cluster_class and runner.cluster_class.__name__
    assert (runner.address, of_class, runner.cluster_kwargs, runner.adapt_kwargs) == made
    patience = dask.config.get("distributed.scheduler.no-workers-timeout")
    assert patience == f"{Settings().cluster_patience}h"


def test_jobs_of_a_batch_system_have_a_name_and_are_told_of(set_to: Callable[..., Settings]) -> None:
    jobs = Jobs(logging.getLogger("jobs"), lambda: None)
    settings = set_to(cluster="dask_jobqueue.SLURMCluster", cluster_arguments={"cores": 2})
    arguments = cast(Any, _runner(settings, jobs, 0)).cluster_kwargs
    assert arguments["job_name"] == "bids-push" and arguments["cores"] == 2
    assert issubclass(arguments["job_cls"], SLURMJob) and arguments["job_cls"] is not SLURMJob


@pytest.mark.parametrize("more", [{"cluster_arguments": {"cores": 2}}, {"cluster_adapt": {"maximum": 9}}])
def test_how_to_make_a_cluster_that_is_there_already_is_no_setting(
    more: dict[str, Any], set_to: Callable[..., Settings]
) -> None:
    jobs = Jobs(logging.getLogger("jobs"), lambda: None)
    with pytest.raises(BadInput, match="the address of a cluster that is there already"):
        _runner(set_to(cluster="tcp://10.0.0.1:8786", **more), jobs, 0)
