"""What a run of push-bids has counted, and left to read."""

from typing import Any

from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from deployments.runs import Runs


def figures(state: State[Any]) -> dict[str, Any]:
    """What the run that ended in this state counted, from the artifact that it left."""
    run = state.state_details.flow_run_id
    assert run is not None
    with get_client(sync_client=True) as client:
        return Runs(client).figures(run)


def artifacts(state: State[Any]) -> dict[str, Any]:
    """The data of the artifacts of the run that ended in this state, by key."""
    run = state.state_details.flow_run_id
    assert run is not None
    with get_client(sync_client=True) as client:
        return Runs(client).artifacts(run)
