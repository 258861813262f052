"""One run per target, across processes and machines that share the Prefect server, and nobody holds it for ever."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client

from deployments.local_stack import REPO, Stack
from tasks.disk.staging import Staging, Target, TargetBusy
from tasks.runs import lease as module
from tasks.runs.lease import Lease, TargetLost, holding
from tasks.runs.this_run import ThisRun

pytestmark = pytest.mark.usefixtures("prefect_server")
_numbers = count(1)

#: Holds a target as a run on this machine does, says so, and works on.
HOLD = """
import sys, time
from pathlib import Path
from prefect import flow
from tasks.runs.lease import holding
from tasks.runs.this_run import ThisRun
from tasks.disk.staging import Staging, Target
@flow
def work():
    with holding(Staging(Path(sys.argv[1])), Target("http://hub", sys.argv[2]), ThisRun("1", "the-first", 1, False)):
        print("held", flush=True)
        time.sleep(600)
work()
"""


@pytest.fixture
def target() -> Target:
    return Target("http://hub", f"lab/leased-{os.getpid()}-{next(_numbers)}")


@pytest.fixture
def client(prefect_server: Stack) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def run(name: str) -> ThisRun:
    return ThisRun(name, name, 1, False)


@pytest.fixture
def another_process(staging: Staging, target: Target) -> Iterator["subprocess.Popen[str]"]:
    command = [sys.executable, "-c", HOLD, str(staging.folder), target.repo_id]
    with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        while process.stdout.readline() not in ("held\n", ""):
            pass
        yield process
        process.kill()


def test_a_run_on_another_machine_is_refused_and_told_who_works_there(
    another_process: "subprocess.Popen[str]", target: Target, tmp_path: Path
) -> None:
    with pytest.raises(TargetBusy, match=r"the-first.*last sign of life"), holding(Staging(tmp_path), target, run("x")):
        pass


def test_a_run_that_comes_back_to_its_gate_waits_for_its_own_process_to_end(
    another_process: "subprocess.Popen[str]", target: Target, staging: Staging
) -> None:
    with pytest.raises(TargetBusy), holding(staging, target, run("another")):
        pass
    ending = threading.Timer(1.0, another_process.kill)
    ending.start()
    with holding(staging, target, ThisRun("1", "the-first", 1, True, asked=True)):
        another_process.wait(10)
    ending.join()


def test_a_run_killed_on_this_machine_holds_nothing(
    another_process: "subprocess.Popen[str]", target: Target, staging: Staging
) -> None:
    another_process.send_signal(signal.SIGKILL)
    another_process.wait()
    with holding(staging, target, run("next")) as lease:
        lease.require()


def test_a_run_killed_on_another_machine_holds_the_target_until_its_lease_runs_out(
    another_process: "subprocess.Popen[str]", target: Target, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    another_process.send_signal(signal.SIGKILL)
    another_process.wait()
    elsewhere = Staging(tmp_path / "another machine")
    with (
        pytest.raises(TargetBusy, match="If it was killed, the target is free in"),
        holding(elsewhere, target, run("x")),
    ):
        pass
    monkeypatch.setattr(module, "LEASE_SECONDS", 3.0)
    deadline = time.monotonic() + 60
    while True:
        try:
            with holding(elsewhere, target, run("x")):
                return
        except TargetBusy:
            assert time.monotonic() < deadline


def test_a_target_is_free_again_when_its_run_has_ended(staging: Staging, target: Target, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), holding(staging, target, run("first")):
        raise ZeroDivisionError
    with holding(Staging(tmp_path / "another machine"), target, run("second")):
        pass


def test_two_targets_do_not_wait_for_each_other(staging: Staging, target: Target, tmp_path: Path) -> None:
    other = Target(target.endpoint, target.repo_id, "another-branch")
    with holding(staging, target, run("one")), holding(Staging(tmp_path / "other"), other, run("two")):
        pass


def test_a_renewed_lease_is_not_taken_over(
    client: SyncPrefectClient, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LEASE_SECONDS", 15.0)  # more than a busy server takes
    held = Lease(target, run("first"), "one machine")
    held.take(client)
    began = time.monotonic()
    while time.monotonic() - began < 18:
        held.renew(client)
        with pytest.raises(TargetBusy):
            Lease(target, run("second"), "another machine").take(client)
        time.sleep(1)
    held.require()
    held.give_back(client)


def test_a_run_whose_lease_was_taken_over_stops(
    client: SyncPrefectClient, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    silent, second = Lease(target, run("first"), "one machine"), Lease(target, run("second"), "another machine")
    silent.take(client)
    monkeypatch.setattr(module, "LEASE_SECONDS", -60.0)
    second.take(client)
    monkeypatch.setattr(module, "LEASE_SECONDS", 120.0)
    silent.renew(client)
    with pytest.raises(TargetLost, match="another run has taken it over"):
        silent.require()
    silent.give_back(client)  # gives back nothing: the lease is the second's
    second.renew(client)
    second.require()


def test_a_run_that_could_not_renew_its_lease_in_time_stops(
    client: SyncPrefectClient, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Lease(target, run("first"), "one machine")
    held.take(client)
    held.require()
    monkeypatch.setattr(module, "LEASE_SECONDS", -1.0)
    with pytest.raises(TargetLost, match="the Prefect server did not answer"):
        held.require()


def test_of_two_runs_that_take_over_at_once_one_wins(client: SyncPrefectClient, target: Target) -> None:
    Lease(target, run("dead"), "this machine").take(client)
    first, second = Lease(target, run("first"), "this machine"), Lease(target, run("second"), "another machine")
    first.take(client)  # same place: the folder's lock has shown that the dead run is dead
    with pytest.raises(TargetBusy, match="first"):
        second.take(client)
