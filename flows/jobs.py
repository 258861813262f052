"""The jobs by which a cluster's machines come, and what is told of them in the run's log.

dask-jobqueue asks the batch system for each job once, and a refusal ends in a trace on the worker's terminal: the run
would wait for a machine that nobody asked for. So a job that is refused is asked for again, and the run says what the
batch system said. A refusal that more asking does not change ends the run.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, field
from threading import Event, Thread
from typing import Any

from tasks.report.sentences import some_of

AGAIN = 20.0  # seconds until a job that was refused is asked for again
REFUSALS = 15  # in a row, with no job before them: five minutes
SAY_EVERY = 600.0  # seconds between two sentences that no machine has come yet
LOOK_EVERY = 3.0  # seconds between two looks at the machines
#: What batch systems say of a job that they would never take.
LASTING = re.compile(
    r"invalid|not permitted|permission denied|can not be satisfied|cannot be satisfied|not available|unknown|exceeds|"
    r"no such file|not found|unauthori[sz]ed|must be specified",
    re.IGNORECASE,
)

Log = logging.Logger | logging.LoggerAdapter[logging.Logger]


@dataclass
class Jobs:
    """What became of the jobs that a run has asked for."""

    log: Log
    gives_up: Callable[[], None]
    """Is called when the run need not wait any longer."""
    asked: list[str] = field(default_factory=list)
    """The ids of the jobs that the batch system has taken."""
    of_machine: dict[str, str] = field(default_factory=dict)
    """The ids of the jobs, by the names of the machines that come by them."""
    refused: str = ""
    """What it said last when it took none."""
    given_up: str = ""
    """What it said of jobs that it will never take."""
    _refusals: int = 0
    _closed: Event = field(default_factory=Event)

    def told(self, job_class: Any) -> Any:
        """Return a class of jobs of dask-jobqueue, which are asked for until they are taken, and told of."""
        from distributed.core import Status

        jobs = self

        class Told(job_class):  # type: ignore[misc]
            async def _submit_job(self, script_filename: str) -> str:
                while True:
                    try:
                        taken: str = await super()._submit_job(script_filename)
                        jobs.was_taken(self._job_id_from_submit_output(taken), str(self.name))
                        return taken
                    except (RuntimeError, OSError) as error:
                        jobs.was_refused(_words(error))
                        if jobs.given_up or not await jobs.is_worth_asking():
                            self.status = Status.failed  # or Dask takes it, as it closes, for one that is to come
                            raise

        Told.__name__ = job_class.__name__
        return Told

    def was_taken(self, job_id: str, machine: str) -> None:
        """Note a job that waits, or runs, and the name of the machine that comes by it."""
        self.asked.append(job_id)
        self.of_machine[machine] = job_id
        self._refusals, self.refused = 0, ""
        self.log.info("The cluster was asked for a machine: job %s.", job_id)

    def was_refused(self, words: str) -> None:
        """Note that a job was refused, and say so."""
        self._refusals, self.refused = self._refusals + 1, words
        if not self.asked and (LASTING.search(words) or self._refusals >= REFUSALS):
            self.given_up = words
            self.gives_up()
        else:
            self.log.warning("The cluster refused a job: %s. Asking again in %.0f s.", words, AGAIN)

    async def is_worth_asking(self) -> bool:
        """Wait until it is time to ask again. Return whether the run still wants machines."""
        ends = time.monotonic() + AGAIN
        while time.monotonic() < ends and not self._closed.is_set():
            await asyncio.sleep(0.2)
        return not self._closed.is_set()

    def close(self) -> None:
        """Ask for no more jobs."""
        self._closed.set()

    def watch(self, machines: Callable[[], Sequence[str]], lost: Callable[[], list[str]]) -> None:
        """Say which machines come, how long none does, and which are lost, until `close`.

        Args:
            machines: returns what each that is there is called.
            lost: returns a sentence for each that was lost since it was last asked.
        """

        def look() -> None:
            came: frozenset[str] = frozenset()
            said = -SAY_EVERY
            while not self._closed.wait(LOOK_EVERY):
                with suppress(Exception):  # the scheduler does not answer: whoever waits for a part is told
                    came, said = self._look(machines(), lost(), came, said)

        Thread(target=copy_context().run, args=(look,), name="cluster", daemon=True).start()

    def _look(
        self, there: Sequence[str], lost: Sequence[str], came: frozenset[str], said: float
    ) -> tuple[frozenset[str], float]:
        """Say what one look has shown. Return which machines have come, and when it was said that there is none."""
        for sentence in lost:
            self.log.warning("%s", sentence)
        if new := [one for one in there if one not in came]:
            have = "has" if len(new) == 1 else "have"
            self.log.info("%s of the cluster %s come.", some_of(new, "machine"), have)
        elif not there and time.monotonic() - said > SAY_EVERY:
            waits = f" (jobs {', '.join(self.asked[-20:])})" if self.asked else ""
            now = "is there now" if came else "has come yet"
            self.log.info("No machine of the cluster %s%s. The run waits for one.", now, waits)
            said = time.monotonic()
        return came.union(there), said


def _words(error: Exception) -> str:
    """Return what the batch system said, without the command and its empty output."""
    said = re.search(r"stderr:\s*(.*)", str(error), re.DOTALL | re.IGNORECASE)
    return " ".join((said[1] if said and said[1].strip() else str(error)).split())
