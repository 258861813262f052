"""Nights that a schedule makes: the nightly deployment as a person has set it, and the runs that came of it by itself.

`Nightly.night()` lets one night come: the schedule is on until a run of it has started, and nothing else is done. The
deployment is shared by all tests, so `its_own` puts its parameters and its schedule back, however a test ends.
"""

import hashlib
import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from typing import Any
from uuid import UUID

import pyarrow.parquet as pq
from prefect.client.schemas.actions import DeploymentUpdate
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterId
from prefect.client.schemas.objects import FlowRun
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import IntervalSchedule
from prefect.client.schemas.sorting import FlowRunSort

from deployments.local_stack import Stack, wait_until
from deployments.runs import Runs
from tasks.hub.client import Hub
from tests.end_to_end.conftest import GATE_SECONDS, Pushed

NAME = "push-bids/nightly"
SOON = timedelta(seconds=10)  # until a night comes: the scheduler looks every 2 seconds what was changed
AGAIN = timedelta(minutes=1)  # should the scheduler of a busy machine have missed it
LOOK_EVERY = 0.5  # seconds: each look costs the server time that the nights need
NIGHT_SECONDS = 180.0  # for a night to come and its run to start, on a machine that has other work too


@dataclass
class Nightly:
    """The deployment, and its runs since the test began."""

    runs: Runs
    stack: Stack
    before: frozenset[UUID] = frozenset()

    @cached_property
    def deployment(self) -> UUID:
        """The id of the deployment."""
        return self.read().id

    def read(self) -> DeploymentResponse:
        """The deployment as it is now."""
        return self.runs.client.read_deployment_by_name(NAME)

    def set(self, source: Path, repo_id: str, **parameters: Any) -> None:
        """Give it its parameters."""
        given = {"source": str(source), "repo_id": repo_id, "defacing": "no faces", **parameters}
        self.runs.client.update_deployment(self.read().id, DeploymentUpdate(parameters=given))

    def turn(self, on: bool, schedule: Any = None) -> None:
        """Turn its schedule on or off, and change it, if one is given."""
        found = self.read()
        (one,) = found.schedules
        self.runs.client.update_deployment_schedule(found.id, one.id, active=on, schedule=schedule)

    def made(self) -> list[FlowRun]:
        """Its runs since the test began, those to come too, in the order in which they are due."""
        only = DeploymentFilter(id=DeploymentFilterId(any_=[self.deployment]))
        found = self.runs.client.read_flow_runs(
            deployment_filter=only, sort=FlowRunSort.EXPECTED_START_TIME_ASC, limit=200
        )
        return [run for run in found if run.id not in self.before]

    def started(self) -> list[FlowRun]:
        """Those that have begun."""
        return [run for run in self.made() if run.start_time is not None]

    def night(self) -> Pushed:
        """The next night, as soon as it has begun. Nobody starts its run but the schedule."""
        before = {run.id for run in self.started()}
        self.turn(True, IntervalSchedule(interval=AGAIN, anchor_date=datetime.now(UTC) + SOON, timezone="UTC"))
        found: list[FlowRun] = []

        def begun() -> bool:
            found[:] = [run for run in self.started() if run.id not in before]
            return bool(found)

        try:
            wait_until("a night has come", begun, NIGHT_SECONDS, every=LOOK_EVERY)
        finally:
            self.turn(False)
        (run,) = found
        assert run.created_by is not None and run.created_by.type == "SCHEDULE"
        return Pushed(self.runs, self.stack, run.id, run.parameters["repo_id"])


@contextmanager
def its_own(runs: Runs, stack: Stack) -> Iterator[Nightly]:
    """The nightly for one test: its runs are counted from here, and all that was set is put back in the end."""
    nightly = Nightly(runs, stack)
    nightly.before = frozenset(run.id for run in nightly.made())
    found = nightly.read()
    (schedule,) = found.schedules
    try:
        yield nightly
    finally:
        nightly.turn(False, schedule.schedule)
        runs.client.update_deployment(found.id, DeploymentUpdate(parameters=found.parameters))
        settle(nightly)


def settle(nightly: Nightly) -> None:
    """Wait until no run of it works any more, so that the slot is free for the next test."""
    busy = {"PENDING", "RUNNING", "CANCELLING"}
    wait_until(
        "no night works any more",
        lambda: not any(run.state is not None and run.state.type.value in busy for run in nightly.made()),
        GATE_SECONDS,
        every=LOOK_EVERY,
    )


def images_of(source: Path) -> dict[str, str]:
    """The sha256 of each image of a dataset, by its path."""
    images = [path for path in source.rglob("*.nii.gz") if path.is_file()]
    return {str(path.relative_to(source)): hashlib.sha256(path.read_bytes()).hexdigest() for path in images}


def images_on(hub: Hub) -> dict[str, str]:
    """The sha256 of each image that the head of the repo holds: of its bytes there, not of what a record says."""
    found: dict[str, str] = {}
    head = hub.head()
    for path in shards_on(hub):
        rows = pq.read_table(io.BytesIO(hub.read(path, head) or b""), columns=["path", "nifti"])
        for row in filter(itemgetter("nifti"), rows.to_pylist()):
            assert row["path"] not in found, f"{row['path']} is in two shards"
            if row["nifti"]:
                found[row["path"]] = hashlib.sha256(row["nifti"]["bytes"]).hexdigest()
    return found


def shards_on(hub: Hub) -> dict[str, str | None]:
    """The sha256 of each shard at the head of the repo, by its path."""
    files = hub.listing(hub.head()).files
    return {path: file.sha256 for path, file in files.items() if path.startswith("data/")}
