"""The jobs by which machines come: one that the batch system refuses is asked for again, and the run says so."""

import asyncio
import logging
import os
import stat
from pathlib import Path

import pytest
from dask_jobqueue.slurm import SLURMJob

from flows import jobs as module
from flows.cluster import _class_of
from flows.jobs import Jobs
from tasks.values.errors import BadInput

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
