"""Small shards are staged in groups that stay the same, and what was staged comes back through Prefect's cache."""

import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationDelete
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State, TaskRun

from deployments.demo_data import make_dataset, source
from deployments.runs import Runs
from flows.push_bids import push_bids
from tasks.bids.names import parse
from tasks.disk.staging import FLUSHED_ABOVE
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.remote import read_remote
from tasks.stage import MOST_TOGETHER, Group, groups
from tasks.values.models import Dataset, Image, ShardSpec
from tasks.write import WRITER_SETTINGS
from tests.figures import figures

SMALL, PUBLISHED = 120, 80  # sessions of a dataset, and those of them that stay on the Hub


@pytest.fixture(scope="module")
def plan_of_902() -> tuple[ShardSpec, ...]:
    """The plan of ds004884, made from the names of its images alone: groups look at nothing else."""
    images = tuple(named(image.path) for image in source.images())
    return plan(Dataset(root="", name="ds004884", description={}, images=images), WRITER_SETTINGS)


def named(path: str) -> Image:
    """An image of a few bytes with this path."""
    found = parse(path)
    entities = dict(found.entities)
    assert found.suffix is not None
    return Image(
        path=path,
        size=11,
        mtime_ns=0,
        dataset="lesion_masks" if path.startswith("derivatives/") else "raw",
        sub=entities.pop("sub"),
        ses=entities.pop("ses"),
        datatype=found.datatype,
        suffix=found.suffix,
        entities=entities,
    )


def test_every_shard_is_in_one_group_and_a_task_run_stages_about_thirty(plan_of_902: tuple[ShardSpec, ...]) -> None:
    cut = list(groups(plan_of_902))
    assert len(plan_of_902) == 902
    assert [spec for group in cut for spec in group.specs] == list(plan_of_902)
    assert max(len(group.specs) for group in cut) <= MOST_TOGETHER
    assert 24 < len(cut) < 45
    assert len({group.key for group in cut}) == len({group.label for group in cut}) == len(cut)
    assert all(group.label.split()[0] == group.specs[0].name for group in cut)
    assert {group.label for group in groups(plan_of_902[:1])} == {plan_of_902[0].name}


def test_a_large_shard_is_a_group_of_its_own_and_ends_no_other(plan_of_902: tuple[ShardSpec, ...]) -> None:
    number = 300
    image = replace(plan_of_902[number].images[0], size=FLUSHED_ABOVE + 1)
    large = replace(plan_of_902[number], images=(image,))
    cut = list(groups((*plan_of_902[:number], large, *plan_of_902[number + 1 :])))
    assert Group((large,)) in cut
    before = {group.key for group in groups(plan_of_902)}
    assert sum(group.key not in before for group in cut) <= 4


@pytest.mark.parametrize("change", ["one comes", "one goes", "one changes"])
def test_a_shard_that_comes_goes_or_changes_leaves_the_other_groups_as_they_are(
    plan_of_902: tuple[ShardSpec, ...], change: str
) -> None:
    before = {group.key for group in groups(plan_of_902)}
    for number in range(0, 902, 45):
        one = plan_of_902[number]
        others = {
            "one comes": (replace(one, name=one.name + "a", path=one.path.replace(".parquet", "a.parquet")), one),
            "one goes": (),
            "one changes": (replace(one, digest="0" * 64),),
        }[change]
        after = list(groups((*plan_of_902[:number], *others, *plan_of_902[number + 1 :])))
        changed = [group for group in after if group.key not in before]
        assert len(changed) <= (1 if change == "one changes" else 4)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("small") / "ds004884"
    make_dataset(folder, sessions=SMALL, total_bytes=SMALL * 20_000)
    return folder


@pytest.fixture
def target(target: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("BIDS_PUSH_BATCH_SHARDS", "90")
    return target


def push(source: Path, target: Hub, root: Path) -> State[Any]:
    return push_bids(source, target.target.repo_id, defacing="no faces", staging_root=str(root), return_state=True)


def staging_runs(state: State[Any], expected: int) -> list[TaskRun]:
    """The task runs in which the run has staged, once the server has recorded all of them."""
    run = state.state_details.flow_run_id
    assert run is not None
    found: list[TaskRun] = []
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while len(found) < expected and time.monotonic() < deadline:
            found = [task for task in Runs(client).task_runs(run) if task.name.startswith("stage ")]
    return found


def names(runs: list[TaskRun]) -> Counter[str]:
    return Counter(run.state.name or "" for run in runs if run.state)


def test_what_is_staged_and_not_on_the_hub_comes_back_cached_and_only_what_is_gone_is_staged_again(
    small: Path, target: Hub, tmp_path: Path
) -> None:
    shards = plan(load(small), WRITER_SETTINGS)
    push(small, target, tmp_path)
    lost = {spec.path for spec in shards[PUBLISHED:]}
    cut = [group for group in groups(shards) if group.paths & lost]
    assert 1 < len(cut) < len(list(groups(shards)))
    assert lose_and_push(small, target, tmp_path, lost, cut) == {"Cached": len(cut)}
    assert lose_and_push(small, target, tmp_path, lost, cut, gone=1) == {"Cached": len(cut) - 1, "Completed": 1}
    assert lose_and_push(small, target, tmp_path, lost, cut, gone=len(cut)) == {"Completed": len(cut)}


def lose_and_push(
    source: Path, target: Hub, root: Path, lost: set[str], cut: list[Group], gone: int = 0
) -> Counter[str]:
    """Lose shards on the Hub, and the staged files of some groups, and push again: the states of what was staged.

    What the Hub, the run's figures and the record say is the same in each case.
    """
    target.commit([CommitOperationDelete(path) for path in sorted(lost)], "lost", target.head())
    again = [spec for group in cut[:gone] for spec in group.specs if spec.path in lost]
    for spec in again:
        next(root.rglob(f"{spec.name}.*.parquet")).unlink()
    state = push(source, target, root)
    counted = figures(state)
    assert (counted["shards sent"], counted.get("shards embedded", 0)) == (len(lost), len(again))
    assert counted.get("shards found staged", 0) == len(lost) - len(again)
    assert len(read_remote(target).record.shards) == SMALL
    assert lost <= target.listing(target.head()).files.keys()
    return names(staging_runs(state, len(cut)))


def test_a_group_of_which_some_failed_is_no_result_and_is_tried_again(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    image = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    state = push(own_bids, target, tmp_path)
    assert state.name == "ShardsFailed" and names(staging_runs(state, 1)) == {"Failed": 1}
    image.write_bytes(content)
    state = push(own_bids, target, tmp_path)
    assert state.name == "Staged" and names(staging_runs(state, 1)) == {"Completed": 1}
    assert figures(state)["shards sent"] == 1


def test_a_result_that_knows_fewer_shards_than_are_asked_for_now_is_made_again(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    push(own_bids, target, tmp_path)
    first, second, *_ = sorted(read_remote(target).record.shards)
    (folder,) = tmp_path.glob("lab--*")
    receipt = next(folder.rglob(f"{Path(first).stem}.*.receipt.json"))
    hidden = receipt.read_bytes()
    receipt.unlink()
    target.commit([CommitOperationDelete(second)], "one is lost", target.head())
    (result,) = (folder / "results").iterdir()
    result.unlink()  # what is remembered next does not know the first
    push(own_bids, target, tmp_path)
    receipt.write_bytes(hidden)
    target.commit([CommitOperationDelete(first)], "another is lost", target.head())
    state = push(own_bids, target, tmp_path)
    assert state.name == "Staged" and figures(state)["shards found staged"] == 1
    assert first in target.listing(target.head()).files
