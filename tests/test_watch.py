"""What the watch says of runs that have no process, on a real server, by rounds that the tests make themselves."""

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path
from uuid import UUID

import psutil
import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Cancelling, Completed, Failed, Pending, Running, Scheduled, Suspended

from deployments.local_stack import REPO, Stack, clean_environment, wait_until
from deployments.watch import Watch
from tasks.disk.staging import Target
from tasks.runs.ended_gates import WAITS, gate_key
from tasks.runs.lease import Lease
from tasks.runs.this_run import ThisRun
from tests.ports import own_port

pytestmark = pytest.mark.usefixtures("prefect_server")
_numbers = count(1)

MakeRun = Callable[..., UUID]


@pytest.fixture(scope="module", autouse=True)
def no_other_watch(prefect_server: Stack) -> Iterator[None]:
    """The end-to-end tests' watch on the same server would be faster than these."""
    others = "watch" in prefect_server.processes
    if others:
        prefect_server.processes["watch"].stop()
    yield
    if others:
        prefect_server.start_watch("--every", "1")


@flow(name="push-bids")
def ours() -> None:
    """A flow with the name of ours; the tests set the states of its runs."""


@pytest.fixture
def client(prefect_server: Stack) -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def made(client: SyncPrefectClient) -> Iterator[MakeRun]:
    """Makes a run of a deployment that has come through these states, by the server's own rules."""
    deployment = client.create_deployment(client.create_flow(ours), f"watched-{next(_numbers)}")
    runs: list[UUID] = []

    def make(*states: State, tags: tuple[str, ...] = ()) -> UUID:
        run = client.create_flow_run_from_deployment(deployment, tags=tags)
        runs.append(run.id)
        for state in (Pending(), *states):
            client.set_flow_run_state(run.id, state)
        return run.id

    yield make
    for run in runs:
        client.delete_flow_run(run)
    client.delete_deployment(deployment)


def at_gate() -> State:
    return Suspended(pause_key=gate_key(1, 1), timeout_seconds=3600)


def resumed() -> tuple[State, ...]:
    return Scheduled(name="Resuming"), Pending(), Running()


def read(client: SyncPrefectClient, run: UUID) -> FlowRun:
    return client.read_flow_run(run)


def state_of(client: SyncPrefectClient, run: UUID) -> str:
    state = read(client, run).state
    return f"{state.type.value} {state.name}" if state else ""


def lease_of(run: UUID) -> Lease:
    """The lease of a run on a target of its own, as it takes it on its machine."""
    target = Target("http://hub", f"lab/watched-{next(_numbers)}")
    return Lease(target, ThisRun(str(run), "a run", 1, True), "elsewhere")


def test_a_run_that_shows_no_sign_of_life_becomes_a_zombie_and_one_that_renews_its_lease_does_not(
    client: SyncPrefectClient, made: MakeRun
) -> None:
    alive, silent, without = made(Running()), made(Running()), made(Running())
    leases = {run: lease_of(run) for run in (alive, silent)}
    for lease in leases.values():
        lease.take(client)
    watch = Watch(client, silence=0.0)
    watch.look()
    leases[alive].renew(client)
    said = watch.look()  # also of what other tests have killed
    assert state_of(client, alive) == "RUNNING Running"
    assert state_of(client, silent) == state_of(client, without) == "CRASHED Zombie"
    assert sum(name in line for line in said for name in (read(client, silent).name, read(client, without).name)) == 2
    message = read(client, silent).state.message or ""  # type: ignore[union-attr]
    assert "No sign of life" in message and "Start the run again" in message
    for lease in leases.values():
        lease.give_back(client)


def test_silence_counts_only_while_the_watch_looks_and_the_server_answers(
    client: SyncPrefectClient, made: MakeRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made(Running())
    watch = Watch(client, silence=0.0)
    watch.look()
    with get_client(sync_client=True) as closed:
        monkeypatch.setattr(watch, "_client", closed)
    with pytest.raises(RuntimeError):  # a look that came to nothing
        watch.look()
    monkeypatch.undo()
    watch.look()
    assert state_of(client, run) == "RUNNING Running"
    watch.look()
    assert state_of(client, run) == "CRASHED Zombie"


def test_open_gates_and_runs_that_have_ended_stay_as_they_are_through_many_looks(
    client: SyncPrefectClient, made: MakeRun
) -> None:
    others = [
        made(Running(), at_gate()),
        made(Running(), at_gate(), Scheduled(name="Resuming")),
        made(Running(), Completed(name="CleanedUp")),
        made(Running(), Cancelled()),
        made(Running(), Failed(message="The flow was paused and never resumed.")),  # at a pause of somebody else's
        made(Running(), at_gate(), Cancelled(name="Superseded", message="a newer run")),
        made(Running(), at_gate(), Failed(name="VerificationFailed", message="not there")),
        made(Running(), at_gate(), *resumed(), Cancelled()),  # decided, and cancelled then
        made(Running(), at_gate(), *resumed(), Failed(message="The flow was paused and never resumed.")),
        made(Running(), at_gate(), Failed(message="by hand")),
        made(Pending()),
    ]
    before = [[state.id for state in client.read_flow_run_states(run)] for run in others]
    watch = Watch(client, silence=0.0)
    for _ in range(5):
        watch.look()
    assert [[state.id for state in client.read_flow_run_states(run)] for run in others] == before


@pytest.mark.parametrize(
    ("end", "named", "says"),
    [
        (Cancelled(), "CANCELLED GateCancelled", "Nothing more is deleted"),
        (Cancelling(), "CANCELLED GateCancelled", "cleanup-staging/cleanup"),  # as the UI does
        (Failed(message="The flow was paused and never resumed."), "FAILED GateTimedOut", "Nothing more is deleted"),
        (Failed(message="The flow was resuming and never resumed."), "FAILED GateTimedOut", "in time"),
    ],
)
def test_a_run_that_ended_at_its_gate_is_named_so_and_waits_no_more(
    client: SyncPrefectClient, made: MakeRun, end: State, named: str, says: str
) -> None:
    run = made(Running(), at_gate(), end, tags=(WAITS, "lab/x"))
    watch = Watch(client)
    (said,) = (line for line in watch.look() if read(client, run).name in line)
    assert named.split()[1] in said
    assert state_of(client, run) == named
    assert says in (read(client, run).state.message or "")  # type: ignore[union-attr]
    assert read(client, run).tags == ["lab/x"]
    before = client.read_flow_run_states(run)
    watch.look()
    assert client.read_flow_run_states(run) == before


def test_later_looks_see_ends_that_came_after_the_first(client: SyncPrefectClient, made: MakeRun) -> None:
    watch = Watch(client)
    watch.look()
    run = made(Running(), at_gate(), Cancelled())
    ended = read(client, run).end_time
    assert ended is not None and datetime.now(UTC) - ended < timedelta(minutes=5)
    watch.look()
    assert state_of(client, run) == "CANCELLED GateCancelled"


def test_a_server_that_is_away_is_waited_for_and_that_is_said_once(tmp_path: Path) -> None:
    environment = clean_environment() | {
        "PREFECT_API_URL": f"http://127.0.0.1:{own_port()}/api",
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_CLIENT_RETRY_JITTER_FACTOR": "0",
    }
    log = tmp_path / "watch.log"
    command = [sys.executable, "-m", "deployments.watch", "--every", "0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=REPO, env=environment, stdout=output, stderr=output)
    try:
        wait_until("it says that it waits", lambda: "does not answer" in log.read_text(), 120)
        once = subprocess.run([*command, "--once"], cwd=REPO, env=environment, capture_output=True, text=True)
        assert (
            once.returncode == 1
            and len(once.stderr.splitlines()) == 1
            and environment["PREFECT_API_URL"] in once.stderr
        )
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(60) == 0
    assert len(log.read_text().splitlines()) == 1


def test_one_command_works_and_watches_and_one_interrupt_ends_both(
    prefect_server: Stack, client: SyncPrefectClient, made: MakeRun, tmp_path: Path
) -> None:
    run = made(Running(), at_gate(), Cancelled())
    log = tmp_path / "worker.log"
    command = [sys.executable, "-m", "deployments.worker", "--type", "process", "--name", "both"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=REPO, env=prefect_server.environment, stdout=output, stderr=output, start_new_session=True
        )
    try:
        wait_until("the worker has started", lambda: "Worker 'both' started!" in log.read_text(), 120)
        wait_until("it watches", lambda: state_of(client, run) == "CANCELLED GateCancelled", 120)
        (worker,) = psutil.Process(process.pid).children()
    finally:
        process.send_signal(signal.SIGINT)
    process.wait(60)
    assert not worker.is_running()
    assert "Traceback" not in log.read_text()
