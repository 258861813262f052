"""Nights that do not come when they are due: no worker, no server, a night that takes too long, a clock elsewhere.

What a data manager expects in the morning: what was missed is made up for once, by itself, and nothing is sent twice.
On a Prefect server and a worker of its own, which live in Kolkata: half an hour beside every whole hour of UTC.
"""

import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from huggingface_hub import HfApi
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.schedules import CronSchedule, RRuleSchedule

from deployments.local_stack import Stack, wait_until
from deployments.runs import Runs, runs_of
from tests.end_to_end.conftest import GATE_SECONDS, Pushed, a_worker_is_online
from tests.end_to_end.nights import LOOK_EVERY, NIGHT_SECONDS, Nightly, images_of, images_on, its_own
from tests.fixtures import start_runs_at_once
from tests.ports import own_port

KOLKATA, BERLIN = ZoneInfo("Asia/Kolkata"), ZoneInfo("Europe/Berlin")
A_ZONE = timedelta(minutes=29)  # less than any two places' times are apart
NIGHTS = 3
APART = 4  # seconds from one of these nights to the next
LOOKS = "3"  # seconds between looks of this server's scheduler at what it has to make; on the tests' other one, 15
AHEAD = timedelta(seconds=20)  # until the first of these nights: some looks, if the scheduler has time for them


@pytest.fixture(scope="module")
def elsewhere(hub_server: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """A server and a worker in another time zone, which may be killed."""
    folder = tmp_path_factory.mktemp("elsewhere")
    settings = {**hub_server.settings, "TZ": str(KOLKATA), "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": LOOKS}
    stack = Stack(folder, hub_server.hub_port, own_port(), hub_server.token, settings)
    try:
        stack.start_prefect()
        stack.deploy()
        start_runs_at_once(stack)
        stack.start_worker()
        with runs_of(f"{stack.ui}/api") as runs:  # stopped before that, it would not find its server again
            wait_until("its worker asks for work", lambda: a_worker_is_online(runs), NIGHT_SECONDS)
        yield stack
    finally:
        stack.stop()


@pytest.fixture
def nightly(elsewhere: Stack) -> Iterator[Nightly]:
    with runs_of(f"{elsewhere.ui}/api") as runs, its_own(runs, elsewhere) as nightly:
        yield nightly


def few(first: datetime) -> RRuleSchedule:
    """A schedule of three nights that are seconds apart, and no more."""
    rule = f"DTSTART:{first:%Y%m%dT%H%M%SZ}\nRRULE:FREQ=SECONDLY;INTERVAL={APART};COUNT={NIGHTS}"
    return RRuleSchedule(rrule=rule, timezone="UTC")


def come(nightly: Nightly) -> None:
    """Have the nights made that are to come: all of them, or what the scheduler of a busy machine is in time for."""
    before = len(nightly.made())
    for _ in range(3):
        nightly.turn(True, few(datetime.now(UTC) + AHEAD))
        wait_until(
            "the nights are made, or over",
            lambda: len(nightly.made()) >= before + NIGHTS or over(nightly),
            NIGHT_SECONDS,
            every=LOOK_EVERY,
        )
        if len(nightly.made()) >= before + 2:  # the fewest of which one has to give way
            return
    raise AssertionError(f"the scheduler has made {len(nightly.made()) - before} nights")


def over(nightly: Nightly) -> bool:
    """Whether the last of the nights should have been by now."""
    (schedule,) = nightly.read().schedules
    first = datetime.strptime(schedule.schedule.rrule.split()[0], "DTSTART:%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    return datetime.now(UTC) > first + timedelta(seconds=APART * NIGHTS)


def states(nightly: Nightly) -> list[str]:
    return [run.state_name or "" for run in nightly.made()]


def settled(nightly: Nightly) -> list[FlowRun]:
    """The nights, once each has come to its gate or its end."""
    last = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED", "PAUSED"}
    wait_until(
        "each night has come to its gate or its end",
        lambda: all(run.state is not None and run.state.type.value in last for run in nightly.made()),
        GATE_SECONDS,
        every=LOOK_EVERY,
    )
    return nightly.made()


def made_up_for_once(nightly: Nightly, bids: Path, repo_id: str) -> Pushed:
    """One of the nights has published all of the dataset, and waits at its gate; the others have done nothing."""
    runs = settled(nightly)
    assert len(runs) > 1
    assert states(nightly) == ["Skipped"] * (len(runs) - 1) + ["Suspended"]
    pushed = Pushed(nightly.runs, nightly.stack, runs[-1].id, repo_id)
    assert images_on(pushed.hub) == images_of(bids)
    assert commits(pushed) == once(nightly.runs, pushed)
    return pushed


def commits(pushed: Pushed) -> int:
    """The commits with data on the target."""
    api = HfApi(endpoint=pushed.stack.endpoint, token=pushed.stack.token)
    return sum(1 for commit in api.list_repo_commits(pushed.repo_id, repo_type="dataset") if "shard" in commit.title)


def once(runs: Runs, pushed: Pushed) -> int:
    """The commits that this one run says it has made."""
    return int(runs.figures(pushed.run)["commits"])


def test_nights_without_a_worker_are_made_up_for_by_one_run_when_it_is_back(
    nightly: Nightly, bids: Path, repo_id: str
) -> None:
    stack = nightly.stack
    nightly.set(bids, repo_id)
    stack.processes["worker"].kill()
    try:
        come(nightly)
        wait_until("all are late", lambda: set(states(nightly)) == {"Late"}, NIGHT_SECONDS, every=LOOK_EVERY)
    finally:
        stack.start_worker()
    made_up_for_once(nightly, bids, repo_id)


def test_nights_without_a_server_are_made_up_for_by_one_run_when_it_is_back(
    nightly: Nightly, bids: Path, repo_id: str
) -> None:
    stack = nightly.stack
    worker = stack.processes["worker"].popen.pid
    nightly.set(bids, repo_id)
    os.killpg(worker, signal.SIGSTOP)  # so that none has begun before the server is gone, however slow this machine is
    try:
        come(nightly)
        last = max(run.expected_start_time for run in nightly.made() if run.expected_start_time)
        stack.processes["prefect"].kill()
    finally:
        os.killpg(worker, signal.SIGCONT)
    try:
        wait_until("all nights are over", lambda: datetime.now(UTC) > last + timedelta(seconds=5), NIGHT_SECONDS)
    finally:
        stack.start_prefect()  # its worker has waited for it
    made_up_for_once(nightly, bids, repo_id)


def test_nights_that_come_while_another_works_wait_for_it_and_send_nothing_twice(
    nightly: Nightly, hub_server: Stack, bids: Path, repo_id: str
) -> None:
    hub = hub_server.processes["hub"]
    nightly.set(bids, repo_id)
    os.killpg(hub.popen.pid, signal.SIGSTOP)  # so that the first night takes as long as is needed
    try:
        nightly.night()
        come(nightly)
        wait_until(
            "the others are due and wait",
            lambda: set(states(nightly)[1:]) == {"AwaitingConcurrencySlot"},
            NIGHT_SECONDS,
            every=LOOK_EVERY,
        )
        assert states(nightly)[0] == "Running"
    finally:
        os.killpg(hub.popen.pid, signal.SIGCONT)
    first, *_ = settled(nightly)
    assert states(nightly) == ["Suspended", *["Skipped"] * (len(nightly.made()) - 2), "NothingToPublish"]
    pushed = Pushed(nightly.runs, nightly.stack, first.id, repo_id)
    assert images_on(pushed.hub) == images_of(bids)
    assert commits(pushed) == once(nightly.runs, pushed)
    assert pushed.approve() is None
    assert pushed.ended()[0] == "CleanedUp"


def test_a_night_comes_at_the_time_of_its_place_wherever_the_machine_lives(
    nightly: Nightly, bids: Path, repo_id: str
) -> None:
    nightly.set(bids, repo_id)
    due = (datetime.now(BERLIN) + AHEAD).replace(second=0, microsecond=0) + timedelta(minutes=1)
    nightly.turn(True, CronSchedule(cron=f"{due.minute} {due.hour} * * *", timezone=str(BERLIN)))
    wait_until("the night has begun", lambda: bool(nightly.started()), NIGHT_SECONDS + 120, every=LOOK_EVERY)
    (run,) = nightly.started()
    assert run.expected_start_time == due and run.start_time is not None
    assert abs(run.start_time - due) < A_ZONE  # a moment early by Prefect, and late on a busy machine
    pushed = Pushed(nightly.runs, nightly.stack, run.id, repo_id).at_gate()
    assert pushed.runs.read(run.id).name == f"push {repo_id}, {due.astimezone(KOLKATA):%Y-%m-%d %H:%M}"
