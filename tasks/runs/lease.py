"""Keeps two runs from working on one target: a lock on this machine, and a lease on the Prefect server for the others.

How it works:

- On this machine the target's staging folder is locked (`Staging.held`). The kernel lets go when the process dies,
  however it dies, so the run that follows a kill starts at once. A file system without locks leaves it to the lease.
- Between machines and worker processes that share the Prefect server, a Variable on the server names the run that has
  the target. It is made only if there is none of that name, and renewed every `RENEW_EVERY` seconds, or as soon after
  that as the server has time. Another run takes it over in two cases: it has not been renewed for `LEASE_SECONDS` by
  the server's own clock, or it was left by a dead process of this very machine and folder, which the lock has shown.
  Taking over deletes the Variable by its id. So if two runs try at the same moment, one of them finds nothing to
  delete, and loses.
- A run whose lease was taken over, or that could not renew it in time, stops before its next transfer, and before each
  request that commits. This includes a run that was stopped or asleep between two tries, because its seconds go on
  meanwhile.

Prefect's own global concurrency limits lease their slots too, but the server keeps those leases in its memory. When the
server is killed, the slot stays taken, and no lease is left to expire. A Variable is in its database.

A run that has come to its gate or its end lets go a moment after the server says so, and more than a moment after it
if the server is busy. A run that comes in between waits for that.

Runs on different Prefect servers do not see each other. There the Hub keeps them apart, because every commit names its
parent.
"""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from contextvars import copy_context
from datetime import datetime
from email.utils import parsedate_to_datetime
from typing import Any, TypeVar
from uuid import UUID

import httpx
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.logging import get_logger

from tasks.disk.staging import Staging, Target, TargetBusy
from tasks.runs.this_run import ThisRun
from tasks.values.errors import PushError

T = TypeVar("T")

LEASE_SECONDS = 120.0  # seconds without a sign of life after which a run counts as dead
RENEW_EVERY = 20.0  # seconds
ENDING = 60.0  # seconds that the process of a run which is at its gate or its end has to let go
UNNAMED = 5.0  # seconds that a folder may be locked while no lease names the run: before it is taken, or given back
LOOK_EVERY = 0.5  # seconds
ASK_EVERY = 5.0  # seconds between two questions of one process on another machine
#: A clock that goes on while the process is stopped and, on systems that have such a clock, while the machine sleeps.
CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
TRIES = 5  # takeovers lost to others in a row before this run gives way
#: Seconds before the first further tries of a request that the server was too busy for. One with SQLite is so for a
#: moment at nearly every end of a run, which writes its states then; Prefect's client waits 2 seconds at least.
SOON = (0.1, 0.2, 0.4)
#: A sign of life has no more tries than these: Prefect's client would wait 16 and 32 seconds before the next two. A run
#: of 100,000 shards kept a server with SQLite so busy that it took none of the few in two minutes.
SIGN_OF_LIFE = "sign of life"
RENEW_AGAIN = 1.0  # seconds after a sign of life that the server did not take


def _now() -> float:
    return time.clock_gettime(CLOCK)


def soon_again(answer: httpx.Response) -> None:
    """Let Prefect's client try a request again soon if the server is busy and does not say how long.

    After a few tries any other request waits as long as Prefect's client would have it, and a sign of life has failed.

    Raises:
        HTTPStatusError: the server has no time for a sign of life.
    """
    asked = answer.request.extensions
    tries: int = asked.get("tries", 0)
    if answer.status_code != httpx.codes.SERVICE_UNAVAILABLE:
        return
    if tries < len(SOON):
        asked["tries"] = tries + 1
        answer.headers.setdefault("Retry-After", str(SOON[tries]))
    elif SIGN_OF_LIFE in asked:
        answer.raise_for_status()


class TargetLost(PushError):
    """Another run may work on the target by now."""


def variable_name(target: Target) -> str:
    """Return the name of a target's Variable.

    Prefect takes a-z, 0-9, - and _; the hash in the slug keeps targets apart.
    """
    return f"bids-push-{target.slug}".lower().replace(".", "-")


class Lease:
    """This run's lease of a target on the Prefect server."""

    def __init__(self, target: Target, run: ThisRun, place: str) -> None:
        self.name = variable_name(target)
        self._target = target
        self._value = {"run": run.id, "name": run.name, "place": place}
        self._id: UUID | None = None
        self._renewed = _now()
        self._lost = False

    def take(self, client: SyncPrefectClient) -> None:
        """Take the lease, from a dead run if need be.

        Raises:
            TargetBusy: another run that is alive has it.
        """
        for _ in range(TRIES):
            self._renewed = _now()
            try:
                self._id = client.create_variable(VariableCreate(name=self.name, value=self._value)).id
                return
            except ObjectAlreadyExists:
                self._free(client)
        raise TargetBusy(f"other runs keep taking {self._target}. Wait for them to end.")

    def _free(self, client: SyncPrefectClient) -> None:
        """Remove the lease of a dead run. Do nothing if it is gone already.

        Raises:
            TargetBusy: the run is alive.
        """
        with _gone_is_fine():
            answer = client.request("GET", "/variables/name/{name}", path_params={"name": self.name})
            found = answer.json()
            now = parsedate_to_datetime(answer.headers["Date"])
            silent = (now - datetime.fromisoformat(found["updated"])).total_seconds()
            holder: dict[str, Any] = found["value"] if isinstance(found["value"], dict) else {}
            if holder.get("place") != self._value["place"] and silent < LEASE_SECONDS:
                raise TargetBusy(
                    f"the run {holder.get('name')} works on {self._target}, on {holder.get('place')}; its last sign of "
                    f"life was {max(silent, 0):.0f} s ago. Wait for it to end, or cancel it in the Prefect UI. If it "
                    f"was killed, the target is free in {LEASE_SECONDS - silent:.0f} s."
                )
            client.request("DELETE", "/variables/{id}", path_params={"id": found["id"]})

    def renew(self, client: SyncPrefectClient) -> bool:
        """Give a sign of life. If the lease is gone, another run has taken it over.

        Returns:
            Whether that is settled. Where the server was busy, or away, another try is due soon.
        """
        at, value = _now(), {"value": self._value}
        sign: dict[str, Any] = {"path_params": {"id": self._id}, "json": value, "extensions": {SIGN_OF_LIFE: True}}
        try:
            client.request("PATCH", "/variables/{id}", **sign)
        except httpx.HTTPStatusError as error:
            self._lost = self._lost or error.response.status_code == httpx.codes.NOT_FOUND
            return self._lost
        except httpx.TransportError:
            return False  # the server does not answer: there is time until the lease runs out
        self._renewed = at
        return True

    def give_back(self, client: SyncPrefectClient) -> None:
        """Let the next run have the target at once. A lease that cannot be given back expires."""
        given, self._id = self._id, None
        with _gone_is_fine(), suppress(httpx.HTTPError):
            client.request("DELETE", "/variables/{id}", path_params={"id": given})

    def require(self) -> None:
        """Check that the target is still this run's.

        Raises:
            TargetLost: it is not, or it was never taken, or the server has not answered for too long.
        """
        silent = _now() - self._renewed
        if self._id is None:
            why = "it has let go of it, or has never taken it"
        elif self._lost:
            why = "another run has taken it over"
        elif silent > LEASE_SECONDS:
            why = f"the Prefect server did not answer for {silent:.0f} s"
        else:
            return
        raise TargetLost(
            f"this run does not hold {self._target} any more: {why}. It stops here, so that two runs never publish "
            "at once. What was committed stays, and the next run goes on from it."
        )


class LeaseFromAfar:
    """The question whether a target is still a run's, for a process on another machine that works for that run.

    It is a fence: calling it raises if the target is not. It asks the server every `ASK_EVERY` seconds at most.
    """

    def __init__(self, target: Target, run_id: str) -> None:
        self._target, self._run_id = target, run_id
        self._name = variable_name(target)
        self._seen = self._asked = -LEASE_SECONDS

    def __call__(self) -> None:
        """Check that the target is still the run's.

        Raises:
            TargetLost: it is not, or the server has not answered for too long.
        """
        now = _now()
        if now - self._asked < ASK_EVERY:
            return
        self._asked = now
        try:
            with get_client(sync_client=True) as client:
                answer = client.request("GET", "/variables/name/{name}", path_params={"name": self._name})
            holder = answer.json()["value"]
        except httpx.HTTPStatusError as error:
            if error.response.status_code != httpx.codes.NOT_FOUND:
                return self._not_answered(now)
            holder = None
        except httpx.TransportError:
            return self._not_answered(now)
        if not isinstance(holder, dict) or holder.get("run") != self._run_id:
            raise self._lost("it has let go of it, or another run has taken it over")
        self._seen = now

    def _not_answered(self, now: float) -> None:
        if now - self._seen > LEASE_SECONDS:
            raise self._lost("the Prefect server does not answer this machine")

    def _lost(self, why: str) -> TargetLost:
        return TargetLost(
            f"the run that this machine works for does not hold {self._target} any more: {why}. The work stops here. "
            "What is staged stays, and nothing of it becomes visible; the next run goes on from it."
        )


@contextmanager
def _gone_is_fine() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPStatusError as error:
        if error.response.status_code != httpx.codes.NOT_FOUND:
            raise


@contextmanager
def holding(staging: Staging, target: Target, run: ThisRun) -> Iterator[Lease]:
    """Hold a target while the block runs. Wait for the process of a run that is at its gate or its end to let go.

    Raises:
        TargetBusy: another run works on the target.
    """
    settings = {"event_hooks": {"response": [soon_again]}}
    with ExitStack() as lock, get_client(httpx_settings=settings, sync_client=True) as client:
        locked = _once_let_go(lambda: lock.enter_context(staging.held()), client, target, run)
        lease = Lease(target, run, _place(staging) if locked else f"{socket.gethostname()}, without a lock: {run.id}")
        _once_let_go(lambda: lease.take(client), client, target, run)
        ended = threading.Event()
        arguments = (_renew, lease, client, ended)
        renewing = threading.Thread(target=copy_context().run, args=arguments, name="lease", daemon=True)
        renewing.start()
        try:
            yield lease
        finally:
            ended.set()
            renewing.join()
            lease.give_back(client)


def _place(staging: Staging) -> str:
    """Return what tells the lock of a staging folder on this machine from any other."""
    file = staging.lock.stat()
    return f"{socket.gethostname()}:{staging.folder}:{file.st_dev}:{file.st_ino}"


def _once_let_go(take: Callable[[], T], client: SyncPrefectClient, target: Target, run: ThisRun) -> T:
    """Take a lock or a lease, and return what that gives. If the run that has it is about to let go, wait for that.

    Raises:
        TargetBusy: that run works, or does not let go.
    """
    since = _now()
    while True:
        try:
            return take()
        except TargetBusy:
            patience = ENDING if run.asked else _patience(client, target)
            if _now() - since >= patience:
                raise
            time.sleep(LOOK_EVERY)


def _patience(client: SyncPrefectClient, target: Target) -> float:
    """Return how many seconds to wait for the run that has the target to let go: none while it works."""
    try:
        found = client.request("GET", "/variables/name/{name}", path_params={"name": variable_name(target)})
        holder = found.json()["value"]
    except httpx.HTTPStatusError as error:
        return UNNAMED if error.response.status_code == httpx.codes.NOT_FOUND else 0.0
    except httpx.HTTPError:
        return 0.0
    try:
        state = client.read_flow_run(UUID(str(holder["run"]))).state
    except (TypeError, KeyError, ValueError, ObjectNotFound, httpx.HTTPError):  # a lease of no run of this server
        return 0.0
    return 0.0 if state is None or state.is_running() else ENDING


def _renew(lease: Lease, client: SyncPrefectClient, ended: threading.Event) -> None:
    log, pause = get_logger("bids_push.lease"), RENEW_EVERY
    while not ended.wait(pause):
        pause = RENEW_EVERY
        try:
            if not lease.renew(client):
                pause = RENEW_AGAIN
        except Exception:
            log.warning("The lease on the target could not be renewed; trying again.", exc_info=True)
