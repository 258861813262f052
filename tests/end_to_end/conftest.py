"""What the end-to-end tests share: a client of the server, and runs of push-bids brought to their gates."""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from deployments.local_stack import Stack, StackError, wait_until
from deployments.runs import Runs, runs_of
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tests.end_to_end.browsing import browser, last_looks  # noqa: F401 - fixtures

GATE_SECONDS = 240.0  # for a run to come to its gate, on a machine that has other work too
ALERT_SECONDS = 120.0  # for an automation to act; an event that Prefect has dropped is not waited for any longer
ATTEMPTS = 1 if os.environ.get("TEST_DATABASE") == "postgresql" else 3  # see `seen_to`


@dataclass
class Pushed:
    """A run of push-bids on a target of its own."""

    runs: Runs
    stack: Stack
    run: UUID
    repo_id: str
    revision: str = "main"

    @property
    def target(self) -> Target:
        return Target(self.stack.endpoint, self.repo_id, self.revision)

    @property
    def hub(self) -> Hub:
        return Hub(self.target, self.stack.token)

    @property
    def staging(self) -> Staging:
        return Staging.of(self.stack.staging_root, self.target)

    def shards(self) -> set[str]:
        """The names of the staged shards."""
        return {path.name for path in self.staging.folder.rglob("*.parquet")}

    def at_gate(self) -> "Pushed":
        self.runs.wait(self.run, {"PAUSED"}, GATE_SECONDS)
        return self

    def approve(self, **form: Any) -> str | None:
        return self.runs.decide(self.run, **{"decision": "delete", "confirm_repo": self.repo_id, "note": "", **form})

    def ended(self) -> tuple[str, str]:
        """The name and the message of the state in which the run ends."""
        state = self.runs.wait(self.run, seconds=GATE_SECONDS).state
        assert state is not None
        return state.name or "", state.message or ""


Push = Callable[..., Pushed]


def seen_to(what: str, happens: Callable[[int], Pushed], true: Callable[[Pushed], bool]) -> Pushed:
    """Have happen what an automation should see to, until it does: the run that it has seen to.

    On SQLite, Prefect drops an event where its server is busy (docs/operating.md), so it may have to happen again, in
    another run, whose number is given. Three in a row are no accident. On PostgreSQL once is enough.
    """
    for number in range(ATTEMPTS):
        pushed = happens(number)
        with suppress(StackError):
            wait_until(what, lambda run=pushed: true(run), ALERT_SECONDS)  # type: ignore[misc]
            return pushed
    raise AssertionError(f"{what}: not so in {ATTEMPTS} of {ATTEMPTS} runs")


def a_worker_is_online(runs: Runs) -> bool:
    workers = runs.client._client.post("/work_pools/bids-push/workers/filter", json={}).json()
    return any(worker["status"] == "ONLINE" for worker in workers)


@pytest.fixture
def runs(worker: Stack) -> Iterator[Runs]:
    with runs_of(f"{worker.ui}/api") as found:
        yield found


@pytest.fixture
def push(runs: Runs, worker: Stack, repo_id: str, bids: Path) -> Push:
    """Starts a run of push-bids/manual (or of another deployment) on the tests' dataset."""

    def start(deployment: str = "push-bids/manual", env: dict[str, str] | None = None, **parameters: Any) -> Pushed:
        given = {"repo_id": repo_id, **parameters}
        if deployment.startswith("push-bids/"):
            given = {"source": str(bids), "defacing": "no faces"} | given
        run = runs.start(deployment, env, **given)
        return Pushed(runs, worker, run, given["repo_id"], given.get("revision", "main"))

    return start
