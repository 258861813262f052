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
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast
from uuid import UUID

from prefect import Flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import State
from prefect.context import FlowRunContext
from prefect.events.worker import EventsWorker
from prefect.futures import PrefectFuture
from prefect.logging.handlers import APILogWorker

from flows.part import Done, Part, stage_and_send
from tasks.runs.lost_task_runs import DONE_BY_ANOTHER, name_lost_task_runs
from tasks.values.errors import BadInput, PushError
from tasks.values.settings import Settings

if TYPE_CHECKING:
    import distributed
    from prefect_dask.task_runners import DaskTaskRunner

T = TypeVar("T")

NEEDS = "Install what a cluster needs beside bids-push: pip install 'bids-push[cluster]', or make cluster in a clone."
FEWEST_AT_A_TIME = 16  # parts asked for while no machine has come yet: enough for a cluster that grows by what waits
SAY_WITHIN = 10.0  # seconds that a process has at the end to say what it has done
FOR_EACH_THREAD = 2  # parts asked for: one that is worked on, and one that waits


class ClusterUnavailable(PushError):
    """The cluster cannot be made or reached, or has no machine."""


class PartLost(PushError):
    """A part of the push was lost again and again with the processes that worked on it."""


class Cluster:
    """A cluster that works for this run. It is made, or reached, when the first part is asked for."""

    def __init__(self, runner: "DaskTaskRunner", name: str) -> None:
        self._runner, self._name = runner, name
        self._ended: set[UUID] = set()
        """The task runs within parts that are known to have ended."""

    @cached_property
    def _client(self) -> "distributed.Client":
        """Dask's client.

        Raises:
            ClusterUnavailable: the cluster cannot be made or reached.
        """
        try:
            return cast("distributed.Client", self._runner.client)
        except Exception as error:
            raise ClusterUnavailable(
                f"the cluster of BIDS_PUSH_CLUSTER={self._name} cannot be used ({type(error).__name__}: {error}). "
                "Check its address, or the command by which it asks for machines, and start again: what is staged "
                "stays."
            ) from error

    def wait_for(self, machines: int, seconds: float) -> None:
        """Wait until so many processes have joined.

        Raises:
            ClusterUnavailable: fewer came in time.
        """
        try:
            cast(Any, self._client).wait_for_workers(machines, timeout=seconds)
        except TimeoutError as error:
            came = len(cast(Any, self._client).ncores())
            raise ClusterUnavailable(
                f"{came} of {machines} processes of {self._name} came within {seconds:.0f} s. Look at the cluster's "
                "queue and logs: a job that ends at once says there why."
            ) from error

    def ask(self, function: Callable[..., T], *arguments: object) -> dict[str, T | Exception]:
        """Return what a function returns in each process, by the process's address; or why it could not."""
        return cast(dict[str, T | Exception], cast(Any, self._client).run(function, *arguments, on_error="return"))

    @property
    def parts_at_a_time(self) -> int:
        """How many parts should be asked for at a time, by the threads that the cluster has now."""
        threads: dict[str, int] = cast(Any, self._client).ncores()
        return max(FEWEST_AT_A_TIME, FOR_EACH_THREAD * sum(threads.values()))

    def submit(self, part: Part, after: Iterable[State[Any]]) -> PrefectFuture[Done]:
        """Have a machine of the cluster do a part, after what is in these states."""
        task, parameters = cast(Any, stage_and_send), {"part": part}
        with _with_a_flow_of_any_process():
            return cast(PrefectFuture[Done], self._runner.submit(task, parameters, cast(Any, list(after))))

    def result(self, part: Part, future: PrefectFuture[Done]) -> Done:
        """Return what became of a part that has ended.

        Raises:
            PartLost: every process that worked on it died.
            ClusterUnavailable: there was no process for it.
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
            raise ClusterUnavailable(
                f"no process of the cluster is there for part {part.label} ({error}). Look at the cluster's queue and "
                "logs, and start again: what is staged stays."
            ) from error
        self._ended |= done.ended
        return done

    def close(self, run_id: str) -> None:
        """Have what the machines say of this run's task runs arrive, and mark those of lost machines."""
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
def cluster(run_id: str = "") -> Iterator[Cluster | None]:
    """Give the cluster of this machine's settings while the block runs, or None if there is none.

    Args:
        run_id: the flow run that it works for, if it works for one.

    Raises:
        BadInput: the setting names no cluster that can be made.
    """
    settings = Settings()
    if not settings.cluster:
        yield None
        return
    with _runner(settings) as runner:
        machines = Cluster(runner, settings.cluster)
        try:
            yield machines
        finally:
            machines.close(run_id)


def _runner(settings: Settings) -> "DaskTaskRunner":
    """Return the task runner that speaks to the cluster of the settings.

    Raises:
        BadInput: the setting names no cluster that can be made.
    """
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
    return DaskTaskRunner(
        cluster_class=_class_of(settings.cluster),
        cluster_kwargs=settings.cluster_arguments,
        adapt_kwargs=settings.cluster_adapt,
    )


def _class_of(name: str) -> Any:
    """Return a cluster's class, by its name with its module's.

    Raises:
        BadInput: there is none of this name.
    """
    module, _, last = name.rpartition(".")
    try:
        return getattr(importlib.import_module(module), last)
    except (ImportError, AttributeError, ValueError) as error:
        raise BadInput(
            f"BIDS_PUSH_CLUSTER: {name!r} is neither an address, such as tcp://10.0.0.1:8786, nor a cluster's class, "
            f"such as dask_jobqueue.SLURMCluster ({error}). {NEEDS}"
        ) from error
