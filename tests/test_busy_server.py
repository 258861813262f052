"""What a lease asks of a Prefect server that is too busy for it: again, and soon, as Prefect's own client asks."""

import time
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from prefect.client.base import PrefectHttpxSyncClient
from prefect.client.orchestration.base import BaseClient
from prefect.settings import PREFECT_CLIENT_RETRY_JITTER_FACTOR, temporary_settings

from tasks.disk.staging import Target
from tasks.runs.lease import Lease, soon_again
from tasks.runs.this_run import ThisRun


@dataclass
class Busy:
    """A server that is busy so many times, and says how long if it is told to; and Prefect's client for it."""

    busy: int
    asked_to_wait: str
    waited: list[float] = field(default_factory=list)

    def client(self, monkeypatch: pytest.MonkeyPatch) -> PrefectHttpxSyncClient:
        monkeypatch.setattr(time, "sleep", self.waited.append)
        server = httpx.MockTransport(self._answer)
        return PrefectHttpxSyncClient(
            base_url="http://server", event_hooks={"response": [soon_again]}, transport=server
        )

    def _answer(self, _: httpx.Request) -> httpx.Response:
        headers = {"Retry-After": self.asked_to_wait} if self.asked_to_wait else {}
        self.busy -= 1
        return httpx.Response(503, headers=headers) if self.busy >= 0 else httpx.Response(200, json={"id": "1"})


@pytest.mark.parametrize(
    ("busy", "asked_to_wait", "pauses"),
    [
        pytest.param(0, "", [], id="never"),
        pytest.param(1, "", [0.1], id="for a moment"),
        pytest.param(5, "", [0.1, 0.2, 0.4, 16.0, 32.0], id="for long"),
        pytest.param(1, "7", [7.0], id="and says how long"),
    ],
)
def test_a_server_that_is_busy_for_a_moment_is_asked_again_soon_and_then_as_ever(
    busy: int, asked_to_wait: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Busy(busy, asked_to_wait)
    client = server.client(monkeypatch)
    with temporary_settings({PREFECT_CLIENT_RETRY_JITTER_FACTOR: 0}):
        assert client.delete("/variables/1").status_code == 200
    assert server.waited == pauses


@pytest.mark.parametrize(
    ("busy", "asked_to_wait", "pauses"),
    [
        pytest.param(3, "", [0.1, 0.2, 0.4], id="for a second"),
        pytest.param(4, "", [0.1, 0.2, 0.4], id="for long"),
        pytest.param(99, "", [0.1, 0.2, 0.4], id="for very long"),
        pytest.param(1, "7", [7.0], id="and says how long"),
    ],
)
def test_a_sign_of_life_is_given_within_a_second_or_not_at_all(
    busy: int, asked_to_wait: str, pauses: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    server = Busy(busy, asked_to_wait)
    client: Any = BaseClient(server.client(monkeypatch))
    lease = Lease(Target("http://hub", "lab/x"), ThisRun("a run", "a run", 1, False), "one machine")
    with temporary_settings({PREFECT_CLIENT_RETRY_JITTER_FACTOR: 0}):
        assert lease.renew(client) == (busy <= len(pauses))
    assert server.waited == pauses
