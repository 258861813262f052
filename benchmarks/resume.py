"""A run killed with SIGKILL when 599 of 902 shards are on the Hub, and started again: what is embedded and sent.

The real tree of ds004884 with scaled-down images, a real Prefect server, worker and local Hub. The first run commits
shard by shard, so that it can be killed at exactly 599; what the Hub and the staging folder hold then is kept, and four
runs go on from it: with the staging intact, with the staging gone, with Prefect's results gone, and on another machine
(nothing local at all). A run from nothing is the measure. Then a night with nothing changed.
"""

import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deployments.demo_data import make_dataset
from deployments.local_stack import Stack, free_port, running, wait_until
from deployments.runs import Runs, runs_of
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.record.remote import read_remote
from tests.processes import wait_for_process

REPO_ID = "demo/ds004884"
KILL_AT = 599  # shards on the Hub: as on the day that this project exists for


def main(folder: Path = Path(".bench"), sessions: int | None = None, kill_at: int = KILL_AT) -> None:
    data = folder.resolve() / (f"ds004884-{sessions}" if sessions else "ds004884")
    make_dataset(data, sessions=sessions)
    place = folder.resolve() / f"resume-{time.time():.0f}"
    port = free_port()
    with stack_in(place, port, BIDS_PUSH_BATCH_SHARDS="1") as (stack, runs):
        killed_at = kill(stack, runs, data, kill_at)
    print(f"resume_on_hub_at_the_kill {killed_at} shards", flush=True)
    keep(place)
    for name in ("from_nothing", "staging_intact", "staging_gone", "results_gone", "another_machine"):
        restore(place, name)
        with stack_in(place, port) as (stack, runs):
            measure(name, stack, runs, data)
            if name == "staging_intact":
                measure_night(stack, runs, data)
    shutil.rmtree(place)


@contextmanager
def stack_in(place: Path, port: int, **settings: str) -> Iterator[tuple[Stack, Runs]]:
    """A stack on the Hub's store and the staging of `place`, with a Prefect server that knows nothing."""
    shutil.rmtree(place / "prefect", ignore_errors=True)
    with running(place, hub_port=port, **settings) as stack, runs_of(f"{stack.ui}/api") as runs:
        yield stack, runs


def kill(stack: Stack, runs: Runs, data: Path, at: int) -> int:
    """Start a push and kill its process when `at` shards are on the Hub; how many are there then."""
    hub = Hub(Target(stack.endpoint, REPO_ID), stack.token)
    run = runs.start("push-bids/manual", source=str(data), repo_id=REPO_ID, defacing="no faces")
    wait_until("the repo is there", hub.exists, 120)
    wait_until(f"{at} shards are on the Hub", lambda: published(hub) >= at, 1800)
    wait_for_process(run).send_signal(signal.SIGKILL)
    time.sleep(2)  # what the Hub was still doing for it
    return published(hub)


def published(hub: Hub) -> int:
    return len(hub.api.list_repo_commits(REPO_ID, repo_type="dataset")) - 1


STATE = ("hub", "staging")


def keep(place: Path) -> None:
    for name in STATE:
        shutil.copytree(place / name, place / f"{name}-kept", symlinks=True)


def restore(place: Path, scenario: str) -> None:
    """Put back what was kept at the kill, less what this scenario has lost."""
    for name in (*STATE, "hf"):
        shutil.rmtree(place / name, ignore_errors=True)
    if scenario == "from_nothing":
        return
    shutil.copytree(place / "hub-kept", place / "hub", symlinks=True)
    if scenario == "another_machine":
        return
    shutil.copytree(place / "staging-kept", place / "staging", symlinks=True)
    for target in (place / "staging").glob("demo--*"):
        if scenario == "staging_gone":
            shutil.rmtree(target)
        if scenario == "results_gone":
            shutil.rmtree(target / "results", ignore_errors=True)  # there are none for shards as small as these


def measure(name: str, stack: Stack, runs: Runs, data: Path) -> None:
    started = time.monotonic()
    run = runs.start("push-bids/manual", source=str(data), repo_id=REPO_ID, defacing="no faces")
    runs.wait(run, {"PAUSED"}, seconds=1800)
    seconds = time.monotonic() - started
    done = runs.figures(run)
    record = read_remote(Hub(Target(stack.endpoint, REPO_ID), stack.token)).record
    for what, value, unit in (
        ("published", len(record.shards), "shards"),
        ("embeds", done.get("shards embedded", 0), "shards"),
        ("transfers", done["shards sent"], "shards"),
        ("bytes_sent", done["bytes sent"], "bytes"),
        ("s", round(seconds, 1), "s"),
    ):
        print(f"resume_{name}_{what} {value} {unit}", flush=True)


def measure_night(stack: Stack, runs: Runs, data: Path) -> None:
    started = time.monotonic()
    run = runs.start("push-bids/manual", source=str(data), repo_id=REPO_ID, defacing="no faces")
    ended = runs.wait(run, {"COMPLETED"})
    assert ended.state is not None and ended.state.name == "NothingToPublish", ended.state
    tasks = runs.client.read_task_runs()
    print(f"noop_night_from_the_click_s {time.monotonic() - started:.1f} s")
    seconds = ended.total_run_time.total_seconds()
    record = read_remote(Hub(Target(stack.endpoint, REPO_ID), stack.token)).record
    print(f"noop_night_s {seconds:.1f} s")
    print(f"resume_ms_per_shard {seconds * 1000 / len(record.shards):.1f} ms")
    print(f"noop_night_task_runs {sum(task.flow_run_id == run for task in tasks)} runs", flush=True)


if __name__ == "__main__":
    numbers = [int(argument) for argument in sys.argv[1:]]
    main(Path(".bench"), *numbers)
