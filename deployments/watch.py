"""`bids-push watch`: says what became of runs that have no process to say it themselves.

How it works: every `EVERY` seconds it asks the server for its records (not for events, which a busy server drops):

- which runs of ours the server itself ended at their gates. It names them `GateCancelled` or `GateTimedOut`
  (`tasks.runs.ended_gates`);
- which runs are Running, and whose leases are renewed (`tasks.runs.lease`: a Variable, every 20 s while a run works). A
  run that has shown no sign of life for `SILENCE` is marked Crashed, `Zombie`, which frees its slot;
- which task runs were lost with a run that has crashed. They are marked Crashed too (`tasks.runs.lost_task_runs`).

A sign of life is any change: another state, or a renewed lease. The watch compares what it sees with what it saw
before, so no two clocks are compared. It counts only the time in which the server answered, so a run that could not
renew its lease because the server was away still has all of `SILENCE` left. Right before a run is marked, the watch
looks at it again. A run that waits at its gate or has ended is not Running, and is never marked.

It keeps nothing: several may watch one server, and it may be stopped and started at any time. `make worker` starts one
beside the worker.
"""

import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowFilter, FlowRunFilter
from prefect.client.schemas.objects import FlowRun, StateType
from prefect.client.schemas.responses import OrchestrationResult, SetStateStatus
from prefect.settings import PREFECT_API_URL, PREFECT_CLIENT_MAX_RETRIES, PREFECT_UI_URL, temporary_settings
from prefect.states import Crashed

from deployments.automations import OURS
from deployments.defaults import EVERY, SILENCE
from tasks.report.lineage import key_of
from tasks.runs.ended_gates import PAGE, STATUS, ended_plainly, name_its_end, newest_version, read_runs, untag_the_ended
from tasks.runs.lost_task_runs import name_those_of_killed_runs

LOOK_BACK = timedelta(days=1)  # of ends that were seen before: far more than clocks differ, and few runs
TRIES = 2  # of a request to a busy server, before the watch says that it waits

ZOMBIE = (
    "No sign of life: the run's process, its worker or its machine is gone. Nothing is lost and nothing was deleted "
    "unasked. Start the run again: it does only the work that is missing."
)

#: The flows whose runs hold a lease for as long as they work. A run of any other flow would look dead.
LEASED = FlowFilter.model_validate({"name": {"any_": ["push-bids", "cleanup-staging"]}})
RUNNING = FlowRunFilter.model_validate({"state": {"type": {"any_": ["RUNNING"]}}})

Sign = tuple[UUID, str | None]
"""What changes while a run lives: the id of its state, and the time when its lease was renewed."""


@dataclass
class Quiet:
    """How many seconds a run has shown only this sign while the server answered."""

    sign: Sign
    seconds: float = 0.0


class Watch:
    """One watch over the runs of a server."""

    def __init__(self, client: SyncPrefectClient, every: float = EVERY, silence: float = SILENCE) -> None:
        self._client = client
        self._every = every
        self._silence = silence
        self._quiet: dict[UUID, Quiet] = {}
        self._settled: set[UUID] = set()
        """States of runs that ended after their gates. The watch need not look at them again."""
        self._named_at: datetime | None = None
        self._looked: float | None = None

    def look(self) -> list[str]:
        """Look at all runs once.

        Returns:
            What was done, in sentences.

        Raises:
            httpx.HTTPError: the server did not answer. The watch still knows what it has seen before.
        """
        before, self._looked = self._looked, None
        done = [*self.name_ended_gates(), *self._mark_the_dead(before)]
        name_those_of_killed_runs(self._client, flows=OURS)
        self._looked = time.monotonic()
        return done

    def name_ended_gates(self) -> list[str]:
        """Name the runs that ended at their gates: all of them the first time, then those of the last day."""
        now = datetime.now(UTC)
        of = FlowRunFilter()
        if self._named_at is not None:
            of = FlowRunFilter.model_validate({"end_time": {"after_": self._named_at - LOOK_BACK}})
        done = []
        for run in ended_plainly(self._client, of, OURS):
            if run.state_id in self._settled:
                continue
            name = name_its_end(self._client, run)
            if name:
                done.append(f"{run.name} ended at its gate: {name}.")
            elif run.state_id:
                self._settled.add(run.state_id)
        untag_the_ended(self._client, FlowRunFilter(), OURS)
        self._named_at = now
        return done

    def _mark_the_dead(self, before: float | None) -> list[str]:
        """Count the silence of each run since the last look, and mark those that are gone.

        If the server was away, no silence is counted.
        """
        # A watch that was itself asleep, with its machine, has seen nothing meanwhile.
        passed = 0.0 if before is None else min(time.monotonic() - before, 3 * self._every)
        leases = read_leases(self._client)
        running = {run.id: run for run in read_runs(self._client, RUNNING, LEASED)}
        quiet = {}
        for run in running.values():
            known, sign = self._quiet.get(run.id), sign_of(run, leases)
            quiet[run.id] = Quiet(sign, known.seconds + passed) if known and known.sign == sign else Quiet(sign)
        self._quiet = quiet
        dead = [run for run in running.values() if quiet[run.id].seconds > self._silence]
        return [
            f"{run.name} has shown no sign of life for {quiet[run.id].seconds:.0f} s: Zombie."
            for run in dead
            if self._mark(run)
        ]

    def _mark(self, run: FlowRun) -> bool:
        """Mark a run as dead, unless it has given a sign this very moment. Return whether it was marked."""
        now = self._client.read_flow_run(run.id)
        if now.state is None or now.state.type is not StateType.RUNNING:
            return False
        if sign_of(now, read_leases(self._client)) != self._quiet[run.id].sign:
            return False
        answer: OrchestrationResult[Any] = self._client.set_flow_run_state(
            run.id, Crashed(name="Zombie", message=ZOMBIE + self._status_of(now))
        )
        return answer.status is SetStateStatus.ACCEPT  # the server refuses it for a run that has just ended

    def _status_of(self, run: FlowRun) -> str:
        """Return the line that leads to the status of a run's target; empty if no run has left one."""
        slugs = [tag.removeprefix("target:") for tag in run.tags if tag.startswith("target:")]
        artifact = newest_version(self._client, key_of("target", slugs[0])) if slugs else None
        ui = PREFECT_UI_URL.value()
        return f"\n{STATUS} {ui.rstrip('/')}/artifacts/artifact/{artifact}" if artifact and ui else ""


def sign_of(run: FlowRun, leases: dict[str, str]) -> Sign:
    """Return a run's sign of life: its state, and the lease that it holds, if any."""
    return run.state_id or run.id, leases.get(str(run.id))


def read_leases(client: SyncPrefectClient) -> dict[str, str]:
    """Return when the lease of each run that holds one was renewed, by the server's clock."""
    found: dict[str, str] = {}
    offset = 0
    while page := client.request("POST", "/variables/filter", json={"limit": PAGE, "offset": offset}).json():
        offset += len(page)
        found |= {
            str(variable["value"]["run"]): f"{variable['id']} {variable['updated']}"
            for variable in page
            if isinstance(variable["value"], dict) and "run" in variable["value"]
        }
    return found


class Patient:
    """A watch that says once when the server goes away, and once when it is back."""

    def __init__(self, watch: Watch, say: Callable[[str], None]) -> None:
        self._watch = watch
        self._say = say
        self._away = False

    def look(self) -> None:
        """Look once. If the server is busy or absent, leave it to the next look.

        Raises:
            httpx.HTTPStatusError: the server refuses, so waiting does not help.
        """
        try:
            done = self._watch.look()
        except (httpx.TransportError, httpx.HTTPStatusError) as error:
            if isinstance(error, httpx.HTTPStatusError) and not passes(error):
                raise
            if not self._away:
                self._say(f"The Prefect server at {PREFECT_API_URL.value()} does not answer; the watch waits for it.")
            self._away = True
            return
        if self._away:
            self._say("The Prefect server answers again.")
        self._away = False
        for line in done:
            self._say(line)


def passes(error: httpx.HTTPStatusError) -> bool:
    """Return whether a server that answers like this may answer differently soon."""
    return error.response.status_code == httpx.codes.TOO_MANY_REQUESTS or error.response.is_server_error


@contextmanager
def watching(every: float = EVERY, silence: float = SILENCE) -> Iterator[Watch]:
    """Open a watch over the server that PREFECT_API_URL names."""
    with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: TRIES}), get_client(sync_client=True) as client:
        yield Watch(client, every, silence)


def say(line: str) -> None:
    """Print a line with the time, at once."""
    print(f"{datetime.now().astimezone():%Y-%m-%d %H:%M:%S} watch: {line}", flush=True)


def main(once: bool = False, every: float = EVERY, silence: float = SILENCE) -> int:
    """Watch until Ctrl-C.

    Args:
        once: whether to name the runs that ended at their gates, and end then.
        every: seconds between two looks.
        silence: seconds after which a run counts as dead.

    Returns:
        The exit code: 1 if there is no server that can be watched, else 0.
    """
    for ending in (signal.SIGINT, signal.SIGTERM):  # said here, since a shell's background job ignores SIGINT
        signal.signal(ending, signal.default_int_handler)
    if not PREFECT_API_URL.value():
        print("No Prefect server is named: set PREFECT_API_URL=http://<host>:4200/api.", file=sys.stderr)
        return 1
    try:
        with watching(every, silence) as watch:
            if once:
                for line in watch.name_ended_gates():
                    say(line)
                return 0
            patient = Patient(watch, say)
            while True:
                patient.look()
                time.sleep(every)
    except KeyboardInterrupt:
        return 0
    except (httpx.TransportError, httpx.HTTPStatusError) as error:
        print(f"The Prefect server at {PREFECT_API_URL.value()} cannot be watched: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    from deployments.commands import alone

    alone("watch")
