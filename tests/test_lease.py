"""One run per target, across processes and machines that share the Prefect server, and nobody holds it for ever."""

import errno
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from itertools import count
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Completed, Crashed, Failed, Pending, Retrying, Running, Suspended

from deployments.local_stack import REPO, Stack
from tasks.disk.staging import Staging, Target, TargetBusy
from tasks.runs import lease as module
from tasks.runs.lease import Lease, TargetLost, holding, variable_name
from tasks.runs.this_run import ThisRun

pytestmark = pytest.mark.usefixtures("prefect")
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
    first = ThisRun(sys.argv[3], "the-first", 1, False)
    with holding(Staging(Path(sys.argv[1])), Target("http://hub", sys.argv[2]), first):
        print("held", flush=True)
        time.sleep(600)
work()
"""


@pytest.fixture
def target() -> Target:
    return Target("http://hub", f"lab/leased-{os.getpid()}-{next(_numbers)}")


@pytest.fixture
def client(prefect: None) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


def run(name: str) -> ThisRun:
    return ThisRun(name, name, 1, False)


@pytest.fixture
def first(client: SyncPrefectClient) -> FlowRun:
    """A run that works, as the server knows it."""
    return client.create_flow_run(flow(named_first), state=Running())


def named_first() -> None:
    """The function of the flow that the server is told of. It is never called."""


@pytest.fixture
def another_process(
    prefect_server: Stack, staging: Staging, target: Target, first: FlowRun
) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the target: for this one to meet it, the server has to be one that both reach."""
    command = [sys.executable, "-c", HOLD, str(staging.folder), target.repo_id, str(first.id)]
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


@pytest.mark.parametrize("elsewhere", [False, True], ids=["on this machine", "on another machine"])
@pytest.mark.parametrize("left", [Suspended(), Cancelled()], ids=["at its gate", "cancelled"])
def test_a_run_that_comes_while_another_is_about_to_let_go_waits_for_it(
    left: State,
    elsewhere: bool,
    another_process: "subprocess.Popen[str]",
    first: FlowRun,
    client: SyncPrefectClient,
    target: Target,
    staging: Staging,
    tmp_path: Path,
) -> None:
    client.set_flow_run_state(first.id, left, force=True)
    ending = threading.Timer(2.0, another_process.send_signal, [signal.SIGINT])
    ending.start()
    with holding(Staging(tmp_path) if elsewhere else staging, target, run("next")) as lease:
        ending.join()
        lease.require()


def test_a_run_at_its_gate_whose_process_does_not_let_go_is_waited_for_no_longer_than_it_may_take(
    another_process: "subprocess.Popen[str]",
    first: FlowRun,
    client: SyncPrefectClient,
    target: Target,
    staging: Staging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client.set_flow_run_state(first.id, Suspended(), force=True)
    monkeypatch.setattr(module, "ENDING", 3.0)
    since = time.monotonic()
    with pytest.raises(TargetBusy), holding(staging, target, run("next")):
        pass
    assert time.monotonic() - since >= 3.0


def test_a_folder_that_is_locked_before_any_run_is_named_is_waited_for(
    target: Target, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "UNNAMED", 60.0)
    locked, letting_go = threading.Event(), threading.Event()

    def hold() -> None:
        with staging.held():
            locked.set()
            letting_go.wait(30)

    holder = threading.Thread(target=hold)
    holder.start()
    locked.wait(30)
    threading.Timer(1.5, letting_go.set).start()
    with holding(staging, target, run("next")):
        assert letting_go.is_set()
    holder.join()


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


def test_a_renewed_lease_is_not_taken_over(client: SyncPrefectClient, target: Target) -> None:
    held = Lease(target, run("first"), "one machine")
    held.take(client)
    for _ in range(3):
        before = last_sign_of_life(client, held)
        held.renew(client)
        assert last_sign_of_life(client, held) > before  # by the server's clock, from which the silence is counted
        with pytest.raises(TargetBusy):
            Lease(target, run("second"), "another machine").take(client)
    held.require()
    held.give_back(client)


def last_sign_of_life(client: SyncPrefectClient, lease: Lease) -> datetime:
    found = client.request("GET", "/variables/name/{name}", path_params={"name": lease.name}).json()
    return datetime.fromisoformat(found["updated"])


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


def test_a_run_that_never_took_its_lease_or_gave_it_back_does_not_hold_the_target(
    client: SyncPrefectClient, target: Target
) -> None:
    lease = Lease(target, run("first"), "one machine")
    for change in (lambda: None, lambda: lease.give_back(client)):
        change()
        with pytest.raises(TargetLost) as raised:
            lease.require()
        assert str(raised.value) == (
            f"this run does not hold {target} any more: it has let go of it, or has never taken it. It stops here, so "
            "that two runs never publish at once. What was committed stays, and the next run goes on from it."
        )
        lease.take(client)
        lease.require()
    lease.give_back(client)


def test_a_run_that_could_not_take_the_lease_does_not_hold_the_target(
    client: SyncPrefectClient, target: Target
) -> None:
    held_by("first", target, client)
    second = Lease(target, run("second"), "another machine")
    with pytest.raises(TargetBusy):
        second.take(client)
    with pytest.raises(TargetLost):
        second.require()


def test_of_two_runs_that_take_over_at_once_one_wins(client: SyncPrefectClient, target: Target) -> None:
    Lease(target, run("dead"), "this machine").take(client)
    first, second = Lease(target, run("first"), "this machine"), Lease(target, run("second"), "another machine")
    first.take(client)  # same place: the folder's lock has shown that the dead run is dead
    with pytest.raises(TargetBusy, match="first"):
        second.take(client)


# A server that answers otherwise.


class Answering:
    """A Prefect server whose answer to every request is one of these, in order; of the last one there is no end."""

    def __init__(self, *answers: Exception | None) -> None:
        self.answers = list(answers)
        self.asked = 0

    def request(self, method: str, path: str, **options: Any) -> None:
        self.asked += 1
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer


def refusal(status: int) -> httpx.HTTPStatusError:
    return httpx.HTTPStatusError("", request=httpx.Request("GET", "http://server"), response=httpx.Response(status))


def answering(*answers: Exception | None) -> Any:
    return Answering(*answers)


def held_by(name: str, target: Target, client: SyncPrefectClient) -> Lease:
    lease = Lease(target, run(name), "one machine")
    lease.take(client)
    return lease


def test_the_servers_variable_of_a_target_says_which_run_has_it_and_where(
    client: SyncPrefectClient, target: Target
) -> None:
    lease = Lease(target, ThisRun("the-id", "the name", 1, False), "one machine")
    lease.take(client)
    found = client.request("GET", "/variables/name/{name}", path_params={"name": variable_name(target)}).json()
    assert found["value"] == {"run": "the-id", "name": "the name", "place": "one machine"}


def test_a_target_of_any_name_has_a_variable_that_prefect_takes_and_no_other_target_has(
    client: SyncPrefectClient,
) -> None:
    names = ("lab.north/7T.trt_rest-v1.2", "lab.north/7t.trt_rest-v1.2", "lab-north/7t-trt_rest-v1-2")
    targets = [Target("http://hub", f"{name}-{os.getpid()}") for name in names]
    assert len({variable_name(one) for one in targets}) == len(targets)
    for one in targets:
        assert re.fullmatch(r"bids-push-[a-z0-9_-]+", variable_name(one))
        held_by("a run", one, client).give_back(client)


def test_who_has_the_target_is_told_with_the_seconds_since_its_last_sign_of_life_and_until_it_is_free(
    client: SyncPrefectClient, target: Target
) -> None:
    held_by("first", target, client)
    time.sleep(3)
    with pytest.raises(TargetBusy) as raised:
        Lease(target, run("second"), "another machine").take(client)
    said = re.fullmatch(
        rf"the run first works on {re.escape(str(target))}, on one machine; its last sign of life was (\d+) s ago. "
        r"Wait for it to end, or cancel it in the Prefect UI. If it was killed, the target is free in (\d+) s.",
        str(raised.value),
    )
    assert said is not None
    silent, free = map(int, said.groups())
    assert 1 <= silent < 60 and 119 <= silent + free <= 121


def test_a_variable_that_somebody_wrote_by_hand_is_a_lease_of_nobody_that_runs_out(
    client: SyncPrefectClient, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.create_variable(VariableCreate(name=variable_name(target), value="mine"))
    lease = Lease(target, run("a run"), "one machine")
    with pytest.raises(TargetBusy, match="the run None works on"):
        lease.take(client)
    monkeypatch.setattr(module, "LEASE_SECONDS", -60.0)
    lease.take(client)
    monkeypatch.undo()
    lease.require()


def test_a_run_that_others_are_always_faster_than_gives_way(
    client: SyncPrefectClient, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_by("faster", target, client)
    freed: list[SyncPrefectClient] = []
    monkeypatch.setattr(Lease, "_free", lambda lease, client: freed.append(client))
    with pytest.raises(TargetBusy) as raised:
        Lease(target, run("slower"), "another machine").take(client)
    assert str(raised.value) == f"other runs keep taking {target}. Wait for them to end."
    assert freed == [client] * module.TRIES


def test_a_lease_that_is_gone_when_it_is_to_be_freed_is_free(client: SyncPrefectClient, target: Target) -> None:
    Lease(target, run("a run"), "one machine")._free(client)  # of nobody
    with pytest.raises(httpx.HTTPStatusError):
        Lease(target, run("a run"), "one machine")._free(answering(refusal(500)))


@pytest.mark.parametrize("answer", [refusal(500), refusal(503), httpx.ConnectError("away")])
def test_a_server_that_is_busy_or_away_takes_nobodys_lease_and_renews_none(
    client: SyncPrefectClient, target: Target, answer: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(module, "_now", lambda: clock)
    lease = held_by("a run", target, client)
    clock += module.LEASE_SECONDS
    lease.renew(answering(answer))
    lease.require()
    clock += 1
    with pytest.raises(TargetLost) as raised:
        lease.require()
    assert str(raised.value) == (
        f"this run does not hold {target} any more: the Prefect server did not answer for 121 s. It stops here, so "
        "that two runs never publish at once. What was committed stays, and the next run goes on from it."
    )
    lease.renew(client)  # it is back, and nobody has taken the target over meanwhile
    lease.require()


def test_a_sign_of_life_counts_from_when_it_was_sent(
    client: SyncPrefectClient, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = 1000.0
    monkeypatch.setattr(module, "_now", lambda: clock)
    lease = held_by("a run", target, client)

    class Slow(Answering):
        def request(self, method: str, path: str, **options: Any) -> None:
            nonlocal clock
            clock += module.LEASE_SECONDS + 1  # that the answer takes

    lease.renew(Slow())  # type: ignore[arg-type]
    with pytest.raises(TargetLost):
        lease.require()


def test_a_lease_that_was_taken_over_is_lost_whatever_the_server_says_later(
    client: SyncPrefectClient, target: Target
) -> None:
    lease = held_by("a run", target, client)
    lease.renew(answering(refusal(404)))
    for later in (refusal(503), httpx.ConnectError("away"), None):
        lease.renew(answering(later))
        with pytest.raises(TargetLost, match=r"any more: another run has taken it over. It stops here"):
            lease.require()


@pytest.mark.parametrize("answer", [refusal(404), refusal(500), httpx.ConnectError("away")])
def test_a_lease_that_cannot_be_given_back_ends_no_run(
    client: SyncPrefectClient, target: Target, answer: Exception
) -> None:
    held_by("a run", target, client).give_back(answering(answer))


@pytest.mark.parametrize("answer", [refusal(503), refusal(500), httpx.ConnectError("away")])
def test_a_sign_of_life_that_the_server_has_not_taken_is_given_again_soon_and_then_no_sooner_than_ever(
    target: Target, answer: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_AGAIN", 0.01)
    waited: list[float] = []
    lease, server = Lease(target, run("a run"), "one machine"), answering(answer, answer, None, answer, refusal(404))

    class Ended(threading.Event):
        def wait(self, seconds: float | None = None) -> bool:
            waited.append(seconds or 0.0)
            return len(waited) > 6

    module._renew(lease, server, Ended())
    every = module.RENEW_EVERY
    assert waited == [every, 0.01, 0.01, every, 0.01, every, every] and server.asked == 6  # lost: no hurry any more


def test_a_lease_is_renewed_again_and_again_whatever_goes_wrong_until_the_run_ends(
    target: Target, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "RENEW_EVERY", 0.01)
    lease, ended = Lease(target, run("a run"), "one machine"), threading.Event()
    server = answering(ValueError("a bug"), None)
    renewing = threading.Thread(target=module._renew, args=(lease, server, ended))
    renewing.start()
    deadline = time.monotonic() + 60
    while server.asked < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    assert server.asked >= 5 and renewing.is_alive()
    ended.set()
    renewing.join(60)
    assert not renewing.is_alive()
    (record,) = [one for one in caplog.records if one.name.endswith("bids_push.lease")]
    assert record.getMessage() == "The lease on the target could not be renewed; trying again."
    assert record.exc_info and isinstance(record.exc_info[1], ValueError)


def test_a_target_is_held_with_a_lease_that_is_renewed_and_given_back(
    client: SyncPrefectClient, target: Target, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    def updated() -> str:
        found = client.request("GET", "/variables/name/{name}", path_params={"name": variable_name(target)})
        return str(found.json()["updated"])

    monkeypatch.setattr(module, "RENEW_EVERY", 0.1)
    with holding(staging, target, run("a run")):
        taken, deadline = updated(), time.monotonic() + 60
        while updated() == taken:
            assert time.monotonic() < deadline
        place = client.request("GET", "/variables/name/{name}", path_params={"name": variable_name(target)}).json()
        assert place["value"]["place"].startswith(f"{socket.gethostname()}:{staging.folder}:")
    with pytest.raises(httpx.HTTPStatusError, match="404"):
        updated()


# How long a run waits for another one to let go.


@pytest.fixture
def looked(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What the clock said: a look takes half a second, and nothing else does. So the last is how long was waited."""
    looked: list[float] = []

    def now() -> float:
        looked.append(len(looked) / 2)
        return looked[-1]

    monkeypatch.setattr(module, "_now", now)
    monkeypatch.setattr(module, "LOOK_EVERY", 0.0)
    monkeypatch.setattr(module, "ENDING", 7.0)
    monkeypatch.setattr(module, "UNNAMED", 4.0)
    return looked


@pytest.mark.parametrize(
    ("state", "waited"),
    [
        (Running(), 0.5),
        (Retrying(), 0.5),
        (Suspended(), 7),
        (Pending(), 7),
        (Completed(), 7),
        (Failed(), 7),
        (Cancelled(), 7),
        (Crashed(), 7),
    ],
    ids=str,
)
def test_a_run_waits_for_one_that_does_not_work_any_more_and_for_no_other(
    looked: list[float],
    client: SyncPrefectClient,
    target: Target,
    staging: Staging,
    state: State,
    waited: float,
) -> None:
    holder = client.create_flow_run(flow(named_first), state=state)
    client.create_variable(VariableCreate(name=variable_name(target), value={"run": str(holder.id)}))
    with staging.held(), pytest.raises(TargetBusy), holding(staging, target, run("next")):
        pass
    assert looked[-1] == waited


@pytest.mark.parametrize(
    "value",
    ["by hand", ["by", "hand"], 1, {"name": "a run"}, {"run": "by hand"}, {"run": 1}, {"run": str(UUID(int=1))}],
)
def test_a_lease_that_names_no_run_of_the_server_is_not_waited_for(
    looked: list[float], client: SyncPrefectClient, target: Target, staging: Staging, value: Any
) -> None:
    client.create_variable(VariableCreate(name=variable_name(target), value=value))
    with staging.held(), pytest.raises(TargetBusy), holding(staging, target, run("next")):
        pass
    assert looked[-1] == 0.5


def test_a_folder_that_stays_locked_with_no_run_named_is_waited_for_for_seconds(
    looked: list[float], client: SyncPrefectClient, target: Target, staging: Staging
) -> None:
    with staging.held(), pytest.raises(TargetBusy), holding(staging, target, run("next")):
        pass
    assert looked[-1] == 4


def test_a_run_that_comes_back_to_its_gate_waits_whoever_is_named(
    looked: list[float], client: SyncPrefectClient, target: Target, staging: Staging, first: FlowRun
) -> None:
    back = ThisRun("1", "back", 1, True, asked=True)
    with staging.held(), pytest.raises(TargetBusy), holding(staging, target, back):
        pass
    assert looked[-1] == 7
    looked.clear()
    client.create_variable(VariableCreate(name=variable_name(target), value={"run": str(first.id)}))
    with staging.held(), pytest.raises(TargetBusy), holding(staging, target, back):
        pass
    assert looked[-1] == 7


@pytest.mark.parametrize(
    ("answers", "waited"),
    [([500], 0.5), ([503], 0.5), ([httpx.ConnectError("away")], 0.5), ([404], 4), ([404, 404, 500], 1.5)],
    ids=str,
)
def test_a_server_that_cannot_say_who_has_the_target_is_not_waited_for(
    looked: list[float], target: Target, answers: list[Any], waited: float
) -> None:
    server = answering(*(refusal(answer) if isinstance(answer, int) else answer for answer in answers))
    with pytest.raises(TargetBusy, match="theirs"):
        module._once_let_go(theirs, server, target, run("next"))
    assert looked[-1] == waited


@pytest.mark.parametrize("later", [refusal(500), httpx.ConnectError("away")])
def test_a_server_that_cannot_say_what_the_run_does_is_not_waited_for(
    looked: list[float], client: SyncPrefectClient, target: Target, later: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = client.create_flow_run(flow(named_first), state=Suspended())
    client.create_variable(VariableCreate(name=variable_name(target), value={"run": str(holder.id)}))

    def away(run: UUID) -> FlowRun:
        raise later

    monkeypatch.setattr(client, "read_flow_run", away)
    with pytest.raises(TargetBusy, match="theirs"):
        module._once_let_go(theirs, client, target, run("next"))
    assert looked[-1] == 0.5


def theirs() -> None:
    raise TargetBusy("it is theirs")


def test_without_locks_of_the_file_system_the_lease_alone_keeps_two_runs_apart(
    target: Target, staging: Staging, client: SyncPrefectClient, first: FlowRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on Lustre without `flock`. A run that died is told from one that lives by its last sign of life alone."""

    def no_locks(_descriptor: int, _operation: int) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr("fcntl.flock", no_locks)
    the_first, works = ThisRun(str(first.id), "the-first", 1, False), pytest.raises(TargetBusy, match="the-first works")
    with holding(staging, target, the_first), works, holding(staging, target, run("another")):
        pass
    with holding(staging, target, run("after-it")) as lease:
        lease.require()
        lease._id = None  # as a killed process gives nothing back
    with pytest.raises(TargetBusy, match=r"after-it works on .* free in \d+ s"), holding(staging, target, run("next")):
        pass
    monkeypatch.setattr(module, "LEASE_SECONDS", -60.0)  # as if a lease had run out a minute ago
    with holding(staging, target, run("next")):
        pass
