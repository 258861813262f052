"""What keeps machines that work at one staging folder out of each other's way, and one that lost its run harmless."""

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from uuid import uuid4

import pytest
from prefect import flow, task
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import VariableCreate
from prefect.client.schemas.filters import FlowRunFilter, LogFilter
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed, Crashed, Running

from flows.part import Asked, Errand, parts
from tasks.disk.files import whole_file
from tasks.disk.staging import Staging, Target
from tasks.runs import lease
from tasks.runs.lease import LeaseFromAfar, TargetLost, variable_name
from tasks.runs.lost_task_runs import EVENTS_ARRIVE, name_lost_task_runs, name_those_of_killed_runs
from tasks.stage import Group, groups, stage, stage_group
from tests.images import image_of, nifti1, session, spec_of, zipped

_numbers = count(1)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return tmp_path / "bids"


def test_two_processes_that_write_one_shard_at_once_leave_one_whole_shard(tmp_path: Path) -> None:
    """One was cut off, and its work was given to the other."""
    shard = tmp_path / "shard.parquet"
    with whole_file(shard, writer="aaaaaaaa") as late:
        late.write(b"the same b")
        with whole_file(shard, writer="bbbbbbbb") as quick:
            quick.write(b"the same bytes")
        assert shard.read_bytes() == b"the same bytes"
        late.write(b"ytes")
    assert shard.read_bytes() == b"the same bytes"
    assert [path.name for path in tmp_path.iterdir()] == ["shard.parquet"]


def test_what_a_machine_leaves_half_written_is_ours_to_be_removed_and_no_stranger(source: Path, tmp_path: Path) -> None:
    staging = Staging(tmp_path / "staging", writer="0123abcd")
    spec = session(source)

    def dies() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stage(spec, source, staging, fence=dies)
    (left,) = [path for path in staging.shards.rglob("*") if path.is_file()]
    assert ".0123abcd." in left.name and left.stat().st_size == 0
    assert [entry.name for entry in staging.ours()] == [left.relative_to(staging.folder).as_posix()]
    assert staging.strangers() == {}


def test_a_machine_whose_run_lost_the_target_gives_no_shard_its_name(source: Path, tmp_path: Path) -> None:
    staging = Staging(tmp_path / "staging", writer="0123abcd")

    def lost() -> None:
        raise TargetLost("this machine's run does not hold lab/x any more")

    with pytest.raises(TargetLost):
        stage(session(source), source, staging, fence=lost)
    assert not list(staging.shards.rglob("*.parquet")) and not staging.receipts()


@pytest.mark.usefixtures("prefect")
def test_of_a_group_that_is_done_again_only_what_was_not_done_is_embedded(source: Path, tmp_path: Path) -> None:
    """The first machine has staged one shard anew, of two whose staged files are not to be used, and was lost then."""
    staging = Staging(tmp_path / "staging")
    specs = tuple(
        spec_of(image_of(source, f"{name}/anat/{name}_T1w.nii.gz", zipped(nifti1())), name=name)
        for name in ("sub-1", "sub-2")
    )
    bad = {spec.path: stage(spec, source, staging).identity for spec in specs}
    again = stage(specs[0], source, staging)
    assert again.identity != bad[specs[0].path]

    @flow
    def work() -> None:
        paths = frozenset(spec.path for spec in specs)
        stage_group.with_options(persist_result=False, cache_key_fn=None)(Group(specs), paths, bad, source, staging)

    work()
    found = {receipt.path: receipt.identity for receipt in staging.receipts()}
    assert found[specs[0].path] == again.identity
    assert found[specs[1].path] not in (None, bad[specs[1].path])


def test_parts_are_of_about_their_size_in_the_plans_order_and_hold_every_shard_once(source: Path) -> None:
    specs = [
        spec_of(image_of(source, f"{name}/anat/{name}_T1w.nii", b"image"), name=name)
        for name in (f"sub-{number:03}" for number in range(99))
    ]
    asked = [Asked(group, group.paths, {}) for group in groups(specs)]
    errand = Errand(source, source, Target("http://hub", "lab/x"), "", "run")
    size = asked[0].size
    assert len(asked) > 2
    for limit, many in ((1, len(asked)), (size + 1, len(asked) - 1), (1 << 40, 1)):
        found = list(parts(asked, errand, limit, 512))
        assert [one for part in found for one in part.asked] == asked
        assert len(found) == min(many, len(asked)), limit
        assert [part.number for part in found] == list(range(1, len(found) + 1))
    assert len(list(parts(asked, errand, 1 << 40, 1))) == len(asked)


@pytest.fixture
def client() -> Iterator[SyncPrefectClient]:
    with get_client(sync_client=True) as client:
        yield client


@pytest.fixture
def target() -> Target:
    return Target("http://hub", f"lab/afar-{os.getpid()}-{next(_numbers)}")


@pytest.mark.usefixtures("prefect")
def test_a_machine_asks_the_server_whether_the_target_is_still_its_runs(
    client: SyncPrefectClient, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "ASK_EVERY", 0.0)
    fence = LeaseFromAfar(target, "run-1")
    with pytest.raises(TargetLost, match=r"let go"):
        fence()
    client.create_variable(VariableCreate(name=variable_name(target), value={"run": "run-1"}))
    fence()
    variable = client.read_variable_by_name(variable_name(target))
    assert variable
    client.request("PATCH", "/variables/{id}", path_params={"id": variable.id}, json={"value": {"run": "run-2"}})
    with pytest.raises(TargetLost, match=target.repo_id):
        fence()


@pytest.mark.usefixtures("prefect")
def test_a_server_that_is_away_is_borne_for_as_long_as_a_lease_lasts(
    client: SyncPrefectClient, target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lease, "ASK_EVERY", 0.0)
    client.create_variable(VariableCreate(name=variable_name(target), value={"run": "run-1"}))
    fence = LeaseFromAfar(target, "run-1")
    fence()
    monkeypatch.setattr(lease, "get_client", away)
    fence()
    now = lease._now()
    monkeypatch.setattr(lease, "_now", lambda: now + lease.LEASE_SECONDS + 1)
    with pytest.raises(TargetLost, match="does not answer"):
        fence()


def away(**_: object) -> SyncPrefectClient:
    import httpx

    raise httpx.ConnectError("nobody listens")


def works() -> None:
    """The function of the flow and the task that the server is told of. It is never called."""


def run_with_tasks(client: SyncPrefectClient, **states: object) -> FlowRun:
    """A run with task runs of these names, in these states."""
    run = client.create_flow_run(flow(name="push-bids")(works), state=Running(), tags=["mine"])
    for name, state in states.items():
        known = task(name=name)(works)
        client.create_task_run(known, run.id, str(uuid4()), name=name, state=state)  # type: ignore[arg-type]
    return run


def states_of(client: SyncPrefectClient, run: FlowRun) -> dict[str, str | None]:
    found = client.read_task_runs(flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run.id]}}))
    return {one.name: one.state_name for one in found}


@pytest.mark.usefixtures("prefect")
def test_task_runs_of_a_lost_machine_are_marked_and_those_that_are_known_to_have_ended_are_not(
    client: SyncPrefectClient,
) -> None:
    run = run_with_tasks(client, lost=Running(), late=Running(), done=Completed())
    other = run_with_tasks(client, goes_on=Running())
    found = client.read_task_runs(flow_run_filter=FlowRunFilter.model_validate({"id": {"any_": [run.id]}}))
    late = {one.id for one in found if one.name == "late"}
    this = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
    assert name_lost_task_runs(client, this, "The machine was lost.", late) == 1
    assert name_lost_task_runs(client, this, "The machine was lost.", late) == 0
    assert states_of(client, run) == {"lost": "Crashed", "late": "Running", "done": "Completed"}
    (lost,) = (one.id for one in found if one.name == "lost")
    of_run = LogFilter.model_validate({"flow_run_id": {"any_": [run.id]}})
    assert [(one.task_run_id, one.message) for one in client.read_logs(of_run)] == [(lost, "The machine was lost.")]
    assert states_of(client, other) == {"goes_on": "Running"}


@pytest.mark.usefixtures("prefect")
def test_task_runs_of_a_killed_run_are_marked_once_its_last_events_have_had_time_to_arrive(
    client: SyncPrefectClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, alive = run_with_tasks(client, lost=Running()), run_with_tasks(client, goes_on=Running())
    client.set_flow_run_state(run.id, Crashed(), force=True)
    assert name_those_of_killed_runs(client, ["mine"]) == 0
    monkeypatch.setattr("tasks.runs.lost_task_runs.EVENTS_ARRIVE", -EVENTS_ARRIVE)
    assert name_those_of_killed_runs(client, ["another's"]) == 0
    assert name_those_of_killed_runs(client, ["mine"]) == 1
    assert states_of(client, run) == {"lost": "Crashed"}
    assert states_of(client, alive) == {"goes_on": "Running"}
