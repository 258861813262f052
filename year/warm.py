"""`python -m year.warm`: the process that has everything imported, and forks one process for each flow run.

A process of a worker's takes seconds to import Prefect, pyarrow and the client before its flow begins. This one does
it once. Each line on its standard input is a flow run, as JSON: `{"run": id, "environment": {...}}`; it answers with a
line when the run's process has begun (`{"pid": ...}`), and one when it has ended (`{"status": ...}`). A run's process
is a real one: it is suspended by ending, and can be killed.
"""

import json
import os
import sys
import traceback
from contextlib import suppress
from typing import Any
from uuid import UUID

LEASE = "YEAR_LEASE_SECONDS"  # in the environment: after how long without a sign of life a run counts as dead
RENEWALS = 6  # of a lease, in the time after which it runs out: as many as ever
PAUSES = [0.05, 0.1, 0.1, 0.1, 0.1]  # seconds before each further try of a task: as many tries as ever, at a fast clock


def main() -> int:
    """Fork a process for each run that is asked for, one at a time, until the standard input ends.

    Returns:
        The exit code 0.
    """
    hurry()
    flows = imported()
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what the flows print goes to the log
    for line in sys.stdin:
        asked = json.loads(line)
        pid = os.fork()
        if pid == 0:
            work(flows, asked["run"], asked["environment"])
        print(json.dumps({"pid": pid}), file=answers)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": status}), file=answers)
    return 0


def hurry() -> None:
    """Cut the waits between tries short, and the lease too, if the environment has `LEASE`."""
    from tasks import commit
    from tasks.hub import heads
    from tasks.hub.retries import RETRIES, RETRIES_AT_THE_START
    from tasks.runs import lease

    if seconds := float(os.environ.get(LEASE, 0)):
        lease.LEASE_SECONDS, lease.RENEW_EVERY = seconds, seconds / RENEWALS

    for retries in (RETRIES, RETRIES_AT_THE_START):
        retries["retry_delay_seconds"] = PAUSES[: retries["retries"]]

    heads.STALE_PAUSES = (0.05, 0.1, 0.1, 0.1, 0.1)
    commit.BEHIND_PAUSES = (0.05, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1)


def imported() -> dict[str, Any]:
    """Import everything that the flows need, and return the flows by their names."""
    import datasets  # noqa: F401 - the flows import it late, and a night should not pay for it
    import hf_xet  # noqa: F401
    import nibabel  # noqa: F401
    import pyarrow.parquet  # noqa: F401

    from flows.cleanup_staging import cleanup_staging
    from flows.push_bids import push_bids

    return {flow.name: flow for flow in (push_bids, cleanup_staging)}


def work(flows: dict[str, Any], run: str, environment: dict[str, str]) -> None:
    """Run a flow run in this process, as Prefect's own entry point does, and end the process. It does not return.

    Args:
        flows: the flows by their names.
        run: the id of the flow run.
        environment: more environment variables.
    """
    code = 1
    try:
        os.environ |= environment
        os.environ["PREFECT__FLOW_RUN_ID"] = run
        execute(flows, UUID(run))
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, this process ends here
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)


def execute(flows: dict[str, Any], run: UUID) -> None:
    """Execute the flow run to its end, or to its gate."""
    from prefect.client.orchestration import get_client
    from prefect.events.worker import EventsWorker
    from prefect.exceptions import Abort, Pause
    from prefect.flow_engine import run_flow
    from prefect.logging.handlers import APILogWorker
    from prefect.states import Pending
    from prefect.utilities.engine import propose_state_sync

    with get_client(sync_client=True) as client:
        found = client.read_flow_run(run)
        flow = flows[client.read_flow(found.flow_id).name]
        if not propose_state_sync(client, Pending(), run).is_pending():  # as a worker does
            return  # it waits for another one
        found = client.read_flow_run(run)
    with suppress(Abort, Pause):
        run_flow(flow, flow_run=found, return_type="state")
    for worker in (APILogWorker, EventsWorker):
        worker.drain_all(timeout=10)


if __name__ == "__main__":
    raise SystemExit(main())
