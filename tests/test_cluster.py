"""Pushes by the machines of a real Dask cluster: a scheduler and worker processes that have homes of their own."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from deployments.local_stack import Stack
from flows.push_bids import push_bids
from tasks.hub.client import Hub
from tests.machines import Machines, environment_of, machines

pytestmark = pytest.mark.usefixtures("prefect_server", "with_token")


@pytest.fixture(scope="module")
def two_machines(prefect_server: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machines]:
    folder = tmp_path_factory.mktemp("machines")
    with machines(folder, environment_of(prefect_server), ("n1", "n2")) as running:
        yield running


@pytest.fixture
def on_two(two_machines: Machines, monkeypatch: pytest.MonkeyPatch) -> Machines:
    monkeypatch.setenv("BIDS_PUSH_CLUSTER", two_machines.address)
    monkeypatch.setenv("BIDS_PUSH_PART_BYTES", "1")  # each group is a part
    return two_machines


def push(source: Path, target: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", **parameters}
    return push_bids(source, target.target.repo_id, staging_root=root, return_state=True, **given)


def test_machines_publish_what_threads_publish(bids: Path, target: Hub, root: Path, on_two: Machines) -> None:
    state = push(bids, target, root)
    assert (state.type.value, state.name) == ("COMPLETED", "Staged"), state.message
