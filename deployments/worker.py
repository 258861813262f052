"""`bids-push worker`: a Prefect worker for the work pool bids-push, and the watch over its runs, in one command.

The worker is a process of its own, and gets whatever is typed after the command. This process watches
(`deployments.watch`) until the worker ends. It passes Ctrl-C and SIGTERM on to the worker once, and the worker ends as
it always does.
"""

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from types import FrameType

import httpx
from prefect.client.orchestration import get_client
from prefect.logging import get_logger
from prefect.settings import PREFECT_API_URL

from deployments.defaults import EVERY
from deployments.deploy import POOL
from deployments.entrypoints import BIN, WORKER
from deployments.watch import Patient, say, watching
from tasks.values.errors import PushError
from tasks.values.settings import Settings


def main(arguments: Sequence[str]) -> int:
    """Work and watch, and return the worker's exit code."""
    if not PREFECT_API_URL.value():
        print(
            f"No Prefect server is named. Start one ({BIN}prefect server start), then: "
            f"PREFECT_API_URL=http://<host>:4200/api {WORKER}",
            file=sys.stderr,
        )
        return 1
    try:
        Settings()
    except PushError as error:
        print(error, file=sys.stderr)
        return 1
    wait_for_the_server()
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", POOL, *arguments]
    worker = subprocess.Popen(command, start_new_session=True)  # so that a Ctrl-C comes to it once, from here
    for ending in (signal.SIGINT, signal.SIGTERM):
        signal.signal(ending, _forward(worker))
    try:
        with watching() as watch:
            patient = Patient(watch, say)
            while True:
                try:
                    return worker.wait(EVERY)
                except subprocess.TimeoutExpired:
                    _look(patient)
    finally:
        if worker.poll() is None:
            worker.terminate()


def wait_for_the_server() -> None:
    """Wait until the Prefect server answers.

    A worker that starts before it would end at once, with a message of its own.
    """
    told = False
    with get_client(sync_client=True) as client:
        while client.api_healthcheck() is not None:
            if not told:
                print(
                    f"The Prefect server at {PREFECT_API_URL.value()} does not answer yet; waiting for it.", flush=True
                )
            told = True
            time.sleep(EVERY)


def _forward(worker: "subprocess.Popen[bytes]") -> Callable[[int, FrameType | None], None]:
    return lambda which, _: worker.send_signal(which)


def _look(patient: Patient) -> None:
    """Let the watch look once. Its troubles are never the worker's."""
    log = get_logger("bids_push.watch")
    try:
        patient.look()
    except httpx.HTTPStatusError as error:
        log.error("The Prefect server refuses the watch: %s", str(error).splitlines()[0])
    except Exception:
        log.exception("A look of the watch went wrong; the worker works on.")


if __name__ == "__main__":
    from deployments.commands import alone

    alone("worker")
