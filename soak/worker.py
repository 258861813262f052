"""`python -m soak.worker FOLDER`: a worker with everything imported, which forks one process for each run that is due.

A process of Prefect's own worker takes seconds to import what a flow needs, and there are three or four in a round. The
processes here are real ones all the same: each is suspended by ending, can be killed, and its number is in a file of
FOLDER that is named after the run.
"""

import argparse
import os
import signal
import time
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, WorkPoolFilter
from prefect.client.schemas.sorting import FlowRunSort
from prefect.states import Crashed

from deployments.local_stack import POOL
from deployments.runs import ENDED
from tasks import plan
from year.warm import imported, work

LOOK_EVERY = 0.5  # seconds


def main() -> int:
    """Fork a process for each run that is due, until this one is killed. It does not return."""
    parser = argparse.ArgumentParser(prog="python -m soak.worker", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("folder", type=Path, help="for the numbers of the runs' processes")
    parser.add_argument("--hashed", action="store_true", help="folders on the Hub as of more than 4,000 subjects")
    options = parser.parse_args()
    folder = options.folder
    folder.mkdir(parents=True, exist_ok=True)
    if options.hashed:
        plan.MOST_FOLDERS = 0
    flows = imported()
    working: dict[int, UUID] = {}
    killed: dict[UUID, int] = {}
    # one client for all looks: to make one reads certificates, which takes longer than the look
    with get_client(sync_client=True) as client:
        while True:
            reap(working, killed)
            with suppress(httpx.HTTPError):  # the Prefect server is one of those that are killed
                bury(client, killed)
                found = [run for run in due(client) if run not in working.values()]
                for run in found:
                    working[begin(flows, run, folder)] = run
            time.sleep(LOOK_EVERY)


def begin(flows: dict[str, Any], run: UUID, folder: Path) -> int:
    """Fork a process that works for a run, and return its process id."""
    pid = os.fork()
    if pid == 0:
        work(flows, str(run), {})
    (folder / str(run)).write_text(str(pid))
    return pid


def due(client: SyncPrefectClient) -> list[UUID]:
    """Return the work pool's runs whose time has come, the oldest first."""
    scheduled = FlowRunFilter.model_validate(
        {"state": {"type": {"any_": ["SCHEDULED"]}}, "next_scheduled_start_time": {"before_": datetime.now(UTC)}}
    )
    pool = WorkPoolFilter.model_validate({"name": {"any_": [POOL]}})
    runs = client.read_flow_runs(
        flow_run_filter=scheduled, work_pool_filter=pool, sort=FlowRunSort.NEXT_SCHEDULED_START_TIME_ASC
    )
    return [run.id for run in runs]


def reap(working: dict[int, UUID], killed: dict[UUID, int]) -> None:
    """Take out the processes that have ended.

    Args:
        working: process id -> run. Those that have ended are taken out of it.
        killed: run -> the number of the signal that ended its process. It is added to.
    """
    for pid in list(working):
        ended, status = os.waitpid(pid, os.WNOHANG)
        if not ended:
            continue
        run = working.pop(pid)
        if os.WIFSIGNALED(status):
            killed[run] = os.WTERMSIG(status)


def bury(client: SyncPrefectClient, killed: dict[UUID, int]) -> None:
    """Mark the runs whose processes were killed as crashed, as Prefect's worker does.

    Args:
        client: of the Prefect server.
        killed: run -> the number of the signal. A run that is marked is taken out of it.
    """
    for run, number in list(killed.items()):
        state = client.read_flow_run(run).state
        if state is not None and state.type.value not in ENDED:
            message = f"The process was ended by {signal.Signals(number).name}."
            client.set_flow_run_state(run, Crashed(message=message), force=True)
        del killed[run]


if __name__ == "__main__":
    raise SystemExit(main())
