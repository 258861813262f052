"""What a lease asks of a Prefect server that is too busy for it: again, and soon, as Prefect's own client asks."""

import time
from typing import Any
from uuid import uuid4

import httpx
import pytest
from prefect.client.base import PrefectHttpxSyncClient
from prefect.client.orchestration.base import BaseClient
from prefect.settings import PREFECT_CLIENT_RETRY_JITTER_FACTOR, temporary_settings

from tasks.disk.staging import Target
from tasks.runs.lease import Lease, soon_again
from tasks.runs.this_run import ThisRun


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
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    left = [503] * busy

    def answer(_: httpx.Request) -> httpx.Response:
        headers = {"Retry-After": asked_to_wait} if asked_to_wait else {}
        return httpx.Response(left.pop(), headers=headers) if left else httpx.Response(200, json={"id": str(uuid4())})

    hooks = {"response": [soon_again]}
    server = httpx.MockTransport(answer)
    with temporary_settings({PREFECT_CLIENT_RETRY_JITTER_FACTOR: 0}):
        client = PrefectHttpxSyncClient(base_url="http://server", event_hooks=hooks, transport=server)
        assert client.delete("/variables/1").status_code == 200
    assert waited == pauses and not left


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
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    left = [503] * busy

    def answer(_: httpx.Request) -> httpx.Response:
        headers = {"Retry-After": asked_to_wait} if asked_to_wait else {}
        return httpx.Response(left.pop(), headers=headers) if left else httpx.Response(204)

    lease = Lease(Target("http://hub", "lab/x"), ThisRun("a run", "a run", 1, False), "one machine")
    hooks, server = {"response": [soon_again]}, httpx.MockTransport(answer)
    with temporary_settings({PREFECT_CLIENT_RETRY_JITTER_FACTOR: 0}):
        client: Any = BaseClient(PrefectHttpxSyncClient(base_url="http://server", event_hooks=hooks, transport=server))
        assert lease.renew(client) == (busy <= len(pauses))
    assert waited == pauses
