"""What a machine of a cluster does with its part, and how a run takes it: the machines are threads of this process."""

from collections.abc import Callable, Iterable
from concurrent.futures import Future
from contextlib import nullcontext
from pathlib import Path
from typing import Any, cast

import pytest
from distributed.client import FutureCancelledError
from distributed.scheduler import KilledWorker, NoValidWorkerError, NoWorkerError, WorkerState
from huggingface_hub import constants
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.logging import disable_run_logger

from flows.cluster import Cluster, ClusterUnavailable, PartLost
from flows.jobs import Jobs
from flows.part import Asked, Done, Errand, Part, stage_and_send
from flows.push_bids import push_bids
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.record.remote import RECORD
from tasks.stage import Group
from tasks.values.errors import BadInput
from tasks.values.models import PublicationRecord
from tests.bids_examples import IMAGE, description, write
from tests.figures import artifacts, figures

SUBJECTS = 6
BROKEN = "sub-4"


class Threads:
    """A cluster whose machines are threads of this process, for two parts at a time."""

    parts_at_a_time = 2

    def __init__(self) -> None:
        self.done: dict[int, Done] = {}
        self.going_on = self.most = 0

    def submit(self, part: Part, after: Iterable[State[Any]]) -> PrefectFuture[Done]:
        self.going_on += 1
        self.most = max(self.most, self.going_on)
        submit = cast(Callable[..., PrefectFuture[Done]], stage_and_send.submit)  # its overloads know no wait_for
        return submit(part, wait_for=list(after))

    def result(self, part: Part, future: PrefectFuture[Done]) -> Done:
        self.going_on -= 1
        self.done[part.number] = future.result()
        return self.done[part.number]


@pytest.fixture
def machines(monkeypatch: pytest.MonkeyPatch) -> Threads:
    """The machines of a run, each part of which is a group of two shards."""
    found = Threads()
    monkeypatch.setattr("flows.publish.cluster", lambda _: nullcontext(found))
    monkeypatch.setattr("tasks.stage.MOST_TOGETHER", 2)
    monkeypatch.setattr("tasks.stage.FEWEST_TOGETHER", 2)
    monkeypatch.setenv("BIDS_PUSH_PART_BYTES", "1")
    return found


@pytest.fixture
def source(tmp_path: Path) -> Path:
    subjects = [f"sub-{number}" for number in range(SUBJECTS)]
    images = {f"{subject}/anat/{subject}_T1w.nii.gz": IMAGE for subject in subjects}
    return write(tmp_path / "bids", {"dataset_description.json": description(), **images})


def push(source: Path, hub: Hub, root: Path) -> State[Any]:
    given = {"defacing": "no faces", "staging_root": root, "verification": "full"}
    return push_bids(source, hub.target.repo_id, return_state=True, **given)


def on_hub(hub: Hub) -> dict[str, tuple[int, str]]:
    """Size and sha256 of the shards that the record has, each of which the Hub has so."""
    record, _ = PublicationRecord.read(hub.read(RECORD, hub.head()) or b"")
    files = hub.listing(hub.head()).files
    found = {path: (line.size, line.sha256) for path, line in record.shards.items()}
    assert found == {path: (file.size, file.sha256) for path, file in files.items() if path.startswith("data/")}
    return found


@pytest.mark.usefixtures("prefect")
def test_machines_do_a_part_each_and_no_more_at_a_time_than_keep_them_busy_and_all_of_it_is_published(
    machines: Threads, source: Path, counted_by_flows: Hub, root: Path
) -> None:
    state = push(source, counted_by_flows, root)
    assert state.name == "Staged", state
    published = on_hub(counted_by_flows)
    assert len(published) == SUBJECTS and figures(state)["shards sent"] == SUBJECTS
    assert sorted(machines.done) == [1, 2, 3] and machines.most == 2 and not machines.going_on
    for done in machines.done.values():
        assert [one.receipt for one in done.sent] == done.receipts and len(done.receipts) == 2 and not done.failed
        assert len(done.ended) == 2  # it staged, and it sent
    staged = Staging.of(root, counted_by_flows.target).receipts()
    assert {one.path: (one.size, one.sha256) for one in staged} == published


@pytest.mark.usefixtures("prefect")
def test_a_shard_that_a_machine_cannot_stage_is_named_and_the_others_of_its_part_are_published(
    machines: Threads, source: Path, counted_by_flows: Hub, root: Path
) -> None:
    image = source / BROKEN / "anat" / f"{BROKEN}_T1w.nii.gz"
    image.write_bytes(image.read_bytes()[:-9])
    state = push(source, counted_by_flows, root)
    assert state.name == "ShardsFailed" and image.name in (state.message or "")
    assert set(on_hub(counted_by_flows)) == {
        f"data/sub-{number}/sub-{number}.parquet" for number in range(SUBJECTS) if f"sub-{number}" != BROKEN
    }
    assert [path for done in machines.done.values() for path in done.failed] == [f"data/{BROKEN}/{BROKEN}.parquet"]
    assert BROKEN in str(artifacts(state)["failed-shards"])


@pytest.mark.parametrize("unseen", ["the dataset", "the staging folder", "the Hub"])
def test_a_machine_that_does_not_see_what_the_run_sees_says_which_and_where(
    unseen: str, counted_by_flows: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "42")
    folders = {name: tmp_path / name for name in ("the dataset", "the staging folder") if name != unseen}
    for folder in folders.values():
        folder.mkdir()
    hub = Target("http://another", "lab/x") if unseen == "the Hub" else counted_by_flows.target
    errand = Errand(tmp_path / "the dataset", tmp_path / "the staging folder", hub, "", "run")
    with disable_run_logger(), pytest.raises(BadInput, match="job 42, of the cluster, ") as said:
        stage_and_send.fn(Part(1, errand, ()))
    words = [f"does not see {unseen} at {tmp_path / unseen}."]
    if unseen == "the Hub":
        words = [f"speaks to the Hub at {constants.ENDPOINT}, and the run to http://another.", "Set HF_ENDPOINT alike"]
    assert all(one in str(said.value) for one in words)


@pytest.mark.parametrize(
    ("lost", "error", "words"),
    [
        (
            KilledWorker("part", WorkerState.__new__(WorkerState), 3),
            PartLost,
            "part 7: sub-1 and 1 more was lost with each process",
        ),
        (
            NoWorkerError("part", 300.0),
            ClusterUnavailable,
            "no machine of the cluster is there for part 7: sub-1 and 1 more",
        ),
        (NoValidWorkerError("part", set(), set(), {}, 300.0), ClusterUnavailable, "for part 7: sub-1 and 1 more"),
        (
            FutureCancelledError("part", "it was cancelled"),
            ClusterUnavailable,
            "for part 7: sub-1 and 1 more (part cancelled for reason: it was",
        ),
        (BadInput("the Hub is another"), BadInput, "the Hub is another"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else "",
)
def test_a_part_that_no_machine_has_done_ends_the_run_with_a_name(
    lost: Exception, error: type[Exception], words: str
) -> None:
    asked = Asked(Group(()), frozenset({"data/sub-2/sub-2.parquet", "data/sub-1/sub-1.parquet"}), {})
    part = Part(7, Errand(Path(), Path(), Target("http://hub", "lab/x"), "", ""), (asked,))
    future = Future[Done]()
    future.set_exception(lost)
    machines = Cluster(None, "slurm", Jobs(None, lambda: None))  # type: ignore[arg-type]
    with pytest.raises(error) as said:
        machines.result(part, future)  # type: ignore[arg-type]
    assert words in str(said.value)
