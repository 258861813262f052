"""The machines of a cluster (`BIDS_PUSH_CLUSTER`), which stage and send the parts of a push, through Dask.

How it works: a cluster that this process makes (`dask_jobqueue.SLURMCluster`, ...) lives while a run stages and sends.
It is made when there is something to stage, so that a quiet night asks for no machine, and it has gone before the run
waits at its gate. A cluster that somebody else has made is an address, and stays.

Dask's scheduler gives a part to a process. If the process dies, the scheduler gives the part to another one, up to
`distributed.scheduler.allowed-failures` times. Prefect's own retries do not know of it. The result of a part is fetched
as soon as it is there, and let go of, because Dask does again what only a dead process had the result of.
"""

import asyncio
import importlib
import os
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from difflib import get_close_matches
from functools import cached_property
from threading import Thread
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID
from weakref import WeakSet

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.logging import get_run_logger
from prefect.logging.handlers import APILogWorker

from flows.jobs import Jobs, Log
from flows.part import Done, Part, stage_and_send
from tasks.runs.lost_task_runs import DONE_BY_ANOTHER, name_lost_task_runs
from tasks.values.errors import BadInput, PushError
from tasks.values.format import number
from tasks.values.settings import Settings

if TYPE_CHECKING:
    import distributed
    from prefect_dask.task_runners import DaskTaskRunner

T = TypeVar("T")

NEEDS = (
    "Install what a cluster needs: `make cluster` in a clone, or, beside the package, `pip install --require-hashes -r "
    "requirements/cluster.txt` of the same version."
)
FEWEST_AT_A_TIME = 16  # parts asked for while no machine has come yet: enough for a cluster that grows by what waits
SAY_WITHIN = 10.0  # seconds that a process has at the end to say what it has done
FOR_EACH_THREAD = 2  # parts asked for: one that is worked on, and one that waits
SCHEDULER_GONE = (
    "scheduler-connection-lost"  # why Dask gives a part up when its client can no longer reach the scheduler
)


class ClusterUnavailable(PushError):
    """The cluster cannot be made or reached, or has no machine."""


class PartLost(PushError):
    """A part of the push was lost again and again with the processes that worked on it."""


class Cluster:
    """A cluster that works for this run. It is made, or reached, when the first part is asked for."""

    def __init__(self, runner: "DaskTaskRunner", name: str, jobs: Jobs) -> None:
        self._runner, self._name, self.jobs = runner, name, jobs
        self._ended: set[UUID] = set()
        """The task runs within parts that are known to have ended."""
        self._waited_for: WeakSet[Any] = WeakSet()
        """Dask's futures of the parts that were asked for."""
        self._names: dict[str, str] = {}
        """The names of the processes that have joined, by their addresses."""
        self._seen = 0
        """How many of Dask's events were looked at."""

    @cached_property
    def _client(self) -> "distributed.Client":
        """Dask's client.

        Raises:
            ClusterUnavailable: the cluster cannot be made or reached.
        """
        try:
            client = cast("distributed.Client", self._runner.client)
        except Exception as error:
            raise ClusterUnavailable(
                f"the cluster of BIDS_PUSH_CLUSTER={self._name} cannot be used from this machine "
                f"({type(error).__name__}: {error}). Check the address, or BIDS_PUSH_CLUSTER_ARGUMENTS (its interface, "
                "cores, memory), and start again: what is staged stays."
            ) from error
        self.jobs.watch(lambda: [self._called(address) for address in self._threads()], self._lost)
        return client

    def _threads(self) -> dict[str, int]:
        """Return how many threads each process of the cluster has now, by its address."""
        workers = cast(Any, self._client).scheduler_info(n_workers=-1)["workers"]
        self._names |= {address: str(worker["name"]) for address, worker in workers.items()}
        return {address: worker["nthreads"] for address, worker in workers.items()}

    def _lost(self) -> list[str]:
        """Return a sentence for each process that was lost with work since this was last called."""
        events = cast(Any, self._client).get_events("all")
        new, self._seen = events[self._seen :], len(events)
        lost = [what for _, what in new if what.get("action") == "remove-worker" and what.get("processing-tasks")]
        return [
            f"A machine of the cluster ({self._called(one['worker'])}) was lost with "
            f"{number(len(one['processing-tasks']), 'part')}, which others do again."
            for one in lost
        ]

    def _called(self, address: str) -> str:
        """Return what people know a process by: its address, and its job if there is one."""
        name = self._names.get(address, "")
        of = self.jobs.of_machine
        job = of.get(name) or of.get(name.rpartition("-")[0])  # with several processes a job, each has a number more
        return f"{address} of job {job}" if job else address

    def give_up(self) -> None:
        """Let no part be waited for any more, because no machine will come."""
        if "_client" in self.__dict__ and self._waited_for:  # in a thread: this is called by the one that would do it
            Thread(target=cast(Any, self._client).cancel, args=[list(self._waited_for)], daemon=True).start()

    def wait_for(self, machines: int, seconds: float) -> int:
        """Wait until so many processes have joined, or none more will. Return how many have."""
        ends = time.monotonic() + seconds
        while len(came := self._threads()) < machines and time.monotonic() < ends and not self.jobs.given_up:
            time.sleep(0.5)
        return len(came)

    def ask(self, function: Callable[..., T], *arguments: object) -> dict[str, T | Exception]:
        """Return what a function returns in each process, by the process's address; or why it could not."""
        return cast(dict[str, T | Exception], cast(Any, self._client).run(function, *arguments, on_error="return"))

    @property
    def parts_at_a_time(self) -> int:
        """How many parts should be asked for at a time, by the threads that the cluster has now."""
        return max(FEWEST_AT_A_TIME, FOR_EACH_THREAD * sum(self._threads().values()))

    def submit(self, part: Part, after: Iterable[State[Any]]) -> PrefectFuture[Done]:
        """Have a machine of the cluster do a part, after what is in these states."""
        task, parameters = cast(Any, stage_and_send), {"part": part}
        with _with_a_flow_of_any_process():
            future = self._runner.submit(task, parameters, cast(Any, list(after)))
        self._waited_for.add(future.wrapped_future)
        return cast(PrefectFuture[Done], future)

    def result(self, part: Part, future: PrefectFuture[Done]) -> Done:
        """Return what became of a part that has ended.

        Raises:
            PartLost: every process that worked on it died.
            ClusterUnavailable: there was no process for it, or the cluster's scheduler went away.
            PushError: it could not be done.
        """
        from distributed.client import FutureCancelledError
        from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError

        try:
            done = future.result()
        except KilledWorker as error:
            raise PartLost(
                f"part {part.label} was lost with each process that worked on it. Look into the cluster's logs. Most "
                "often it is memory (give a process more of it, fewer threads, or smaller parts: "
                "BIDS_PUSH_PART_BYTES), a job's time, or a machine without bids-push, or with another version of it "
                "than this one. What is staged stays, and the next run goes on from it."
            ) from error
        except (NoWorkerError, NoValidWorkerError, FutureCancelledError, asyncio.CancelledError) as error:
            if getattr(error, "reason", "") == SCHEDULER_GONE:
                raise ClusterUnavailable(
                    f"the scheduler of the cluster (BIDS_PUSH_CLUSTER={self._name}) went away, and did not come back. "
                    "Start it again with its machines, and then this push: what is staged stays."
                ) from error
            given_up = self.jobs.given_up
            why = f"it refuses each job: {given_up}" if given_up else str(error)
            raise ClusterUnavailable(
                f"no machine of the cluster is there for part {part.label} ({why}). See "
                "to BIDS_PUSH_CLUSTER_ARGUMENTS, or to the cluster's queue and logs, and start again: what is staged "
                "stays."
            ) from error
        self._ended |= done.ended
        return done

    def close(self, run_id: str) -> None:
        """Have what the machines say of this run's task runs arrive, and mark those of lost machines."""
        self.jobs.close()
        if "_client" not in self.__dict__ or not run_id:
            return
        with suppress(Exception):  # for people alone: a run that has come this far does not fail by it
            cast(Any, self._client).run(_say_all, on_error="ignore")
            this = FlowRunFilter.model_validate({"id": {"any_": [run_id]}})
            with get_client(sync_client=True) as client:
                name_lost_task_runs(client, this, DONE_BY_ANOTHER, self._ended)


@contextmanager
def _with_a_flow_of_any_process() -> Iterator[None]:
    """Have another flow of the same name go along with what is submitted in this block.

    Prefect sends the run's flow along, and has loaded that from its file, as a module that no other process can import.
    A machine that is sent it dies of that. No part needs more of it than its name.
    """
    run = FlowRunContext.get()
    if run is None or run.flow is None:
        yield
        return
    with run.model_copy(update={"flow": Flow(_nothing, name=run.flow.name)}):
        yield


def _nothing() -> None:
    """The function of a flow that is never called."""


async def _say_all() -> None:
    """Send what this process has not yet told the Prefect server of its task runs."""
    for service in (EventsWorker, APILogWorker):
        await cast(Awaitable[Any], service.drain_all(timeout=SAY_WITHIN, at_exit=False))


@contextmanager
def cluster(run_id: str = "", log: Log | None = None, at_least: int = 0) -> Iterator[Cluster | None]:
    """Give the cluster of this machine's settings while the block runs, or None if there is none.

    Args:
        run_id: the flow run that it works for, if it works for one.
        log: what is told of machines; by default the run's log.
        at_least: how many machines a cluster that is made here asks for, whether or not there is work for them.

    Raises:
        BadInput: the setting names no cluster that can be made.
    """
    settings = Settings()
    if not settings.cluster:
        yield None
        return
    jobs = Jobs(log or get_run_logger(), lambda: machines.give_up())
    with _runner(settings, jobs, at_least) as runner:
        machines = Cluster(runner, settings.cluster, jobs)
        try:
            yield machines
        finally:
            machines.close(run_id)


def _runner(settings: Settings, jobs: Jobs, at_least: int) -> "DaskTaskRunner":
    """Return the task runner that speaks to the cluster of the settings.

    Args:
        settings: the settings.
        jobs: is told of the jobs of a batch system.
        at_least: how many machines are asked for, whether or not there is work for them.

    Raises:
        BadInput: the setting names no cluster that can be made.
    """
    os.environ.setdefault("DASK_LOGGING__DISTRIBUTED", "warning")  # which Dask reads as it is imported
    try:
        import dask
        from prefect_dask.task_runners import DaskTaskRunner
    except ImportError as error:
        raise BadInput(f"BIDS_PUSH_CLUSTER is set, and {error.name} is not installed. {NEEDS}") from error
    dask.config.set({"distributed.scheduler.no-workers-timeout": f"{settings.cluster_patience}h"})
    if "://" in settings.cluster:
        if settings.cluster_arguments or settings.cluster_adapt:
            raise BadInput(
                "BIDS_PUSH_CLUSTER is the address of a cluster that is there already, so BIDS_PUSH_CLUSTER_ARGUMENTS "
                "and BIDS_PUSH_CLUSTER_ADAPT mean nothing. Unset them, or name a cluster's class instead."
            )
        return DaskTaskRunner(address=settings.cluster)
    made, arguments, adapt = _class_of(settings.cluster), settings.cluster_arguments, settings.cluster_adapt
    if hasattr(made, "job_cls"):  # of dask-jobqueue
        arguments = {"job_name": "bids-push", **arguments, "job_cls": jobs.told(made.job_cls)}
    if at_least and adapt:
        key = "minimum_jobs" if {"minimum_jobs", "maximum_jobs"} & adapt.keys() else "minimum"
        adapt = {**adapt, key: max(at_least, int(adapt.get(key, 0)))}
    elif at_least:
        arguments = {"n_workers": at_least, **arguments}
    return DaskTaskRunner(cluster_class=made, cluster_kwargs=arguments, adapt_kwargs=adapt)


def _class_of(name: str) -> Any:
    """Return a cluster's class, by its name with its module's.

    Raises:
        BadInput: there is none of this name.
    """
    module, _, last = name.rpartition(".")
    bad = f"BIDS_PUSH_CLUSTER: {name!r} is neither an address, such as tcp://10.0.0.1:8786, nor a cluster's class, as"
    try:
        found = importlib.import_module(module)
    except (ImportError, ValueError) as error:
        raise BadInput(f"{bad} dask_jobqueue.SLURMCluster ({error}). {NEEDS}") from error
    if not hasattr(found, last):
        like = get_close_matches(last.lower(), {one.lower(): one for one in dir(found)}, 1, 0.5)
        meant = next((one for one in dir(found) if like and one.lower() == like[0]), "SLURMCluster")
        raise BadInput(f"{bad} {module}.{meant}: {module} has no {last}.")
    return getattr(found, last)
