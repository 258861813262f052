"""The process in which a worker runs a flow, for those who kill it: tests, the soak and the benchmarks."""

from contextlib import suppress
from uuid import UUID

import psutil

from deployments.local_stack import wait_until

PICK_UP_SECONDS = 120.0  # for a worker to pick a run up, on a machine that has other work too


def process_of(run: UUID) -> psutil.Process | None:
    """The process that works for a flow run (not its worker), if there is one now."""
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get("PREFECT__FLOW_RUN_ID") == str(run) and process.status() != psutil.STATUS_ZOMBIE:
                return process
    return None


def wait_for_process(run: UUID) -> psutil.Process:
    """The same, as soon as it is there.

    Raises:
        StackError: no process works for the run within two minutes.
    """
    found: list[psutil.Process] = []

    def there() -> bool:
        process = process_of(run)
        if process is not None:
            found.append(process)
        return process is not None

    wait_until(f"a process works for the run {run}", there, PICK_UP_SECONDS)
    return found[0]
