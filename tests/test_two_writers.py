"""Two runs that publish to one repo: one stopped for longer than its lease, and two whose leases nobody compares.

Runs are processes of their own. Those on different Prefect servers do not see each other's lease, so here each has a
lease of another name; the Hub is the real local one, and counts what it is asked.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from prefect.client.schemas.objects import State

from deployments.local_stack import REPO, wait_until
from flows.push_bids import push_bids
from tasks.commit import commit
from tasks.commit.other_files import Besides
from tasks.hub.client import Hub
from tasks.record.remote import CARD, read_remote
from tasks.runs import lease
from tasks.values.kinds import is_image
from tasks.values.models import ImageContent, PublicationRecord, PublishedShard, ShardSpec
from tests.conftest import SESSIONS
from tests.counted_hub import CountedHub
from tests.figures import figures

pytestmark = pytest.mark.usefixtures("prefect_server")
STRANGER = "data/sub-stranger/sub-stranger.parquet"
EDITED = "bids/README.txt"
LEASE = 15.0  # seconds in these tests: longer than a busy machine takes to renew, and not two minutes

#: A push that says when it is ready, begins when it is told to, and says how it ended. Its lease has a name of its own
#: where it is given one, as on another Prefect server.
PUSH = """
import sys
source, repo, root, server, seconds = sys.argv[1:]
from tasks.runs import lease
lease.LEASE_SECONDS, lease.RENEW_EVERY = float(seconds), 1.0
if server:
    lease.variable_name = lambda target: f"bids-push-{server}-{target.slug.lower().replace('.', '-')}"
from flows.push_bids import push_bids
print("ready", flush=True)
sys.stdin.readline()
state = push_bids(source, repo, defacing="no faces", staging_root=root, return_state=True)
print("ended", state.name, flush=True)
"""


@pytest.fixture
def hub(counted_by_flows: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    monkeypatch.setenv("BIDS_PUSH_BATCH_SHARDS", "1")  # many commits, to come between
    monkeypatch.setenv("BIDS_PUSH_TRANSFER_SHARDS", "1")
    return counted_by_flows


@contextmanager
def pusher(source: Path, hub: Hub, root: Path, server: str, seconds: float) -> Iterator["subprocess.Popen[str]"]:
    """A push as a process, which waits to be told to begin."""
    environment = {**os.environ, "HF_ENDPOINT": hub.target.endpoint, "HF_HOME": str(root / "home")}
    command = [sys.executable, "-c", PUSH, str(source), hub.target.repo_id, str(root), server, str(seconds)]
    root.mkdir()
    with (root / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=REPO, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def begin(*processes: "subprocess.Popen[str]") -> None:
    """Once all are ready, have them begin at the same moment."""
    for process in processes:
        heard(process, "ready")
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()


def heard(process: "subprocess.Popen[str]", word: str) -> str:
    """The rest of the line that begins with a word, as soon as the process says it."""
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith(word):
            return line.removeprefix(word).strip()
    raise AssertionError(f"the process ended and has not said {word!r}")


def push(source: Path, hub: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", **parameters}
    return push_bids(source, hub.target.repo_id, staging_root=root, return_state=True, **given)


def history(hub: Hub) -> list[str]:
    return [one.commit_id for one in hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset")]


def images_of(*sources: Path) -> set[str]:
    return {
        path.relative_to(source).as_posix() for source in sources for path in source.rglob("*.nii.gz") if path.is_file()
    }


def true_record(hub: Hub) -> PublicationRecord:
    """The record, which says of every shard of the repo what it is, once, and of no other."""
    published = read_remote(hub)
    files = hub.listing(published.commit).files
    shards = {path: (one.size, one.sha256) for path, one in files.items() if path.startswith("data/")}
    assert not published.damaged
    assert {path: (one.size, one.sha256) for path, one in published.record.shards.items()} == shards
    texts = {path: one.size for path, one in published.record.texts.items()}
    assert texts == {path: files[path].size for path in texts}
    assert f"\n{len(images(published.record)):,} images of " in (hub.read(CARD, published.commit) or b"").decode()
    return published.record


def images(record: PublicationRecord) -> list[ImageContent]:
    return [one for shard in record.shards.values() for one in shard.images if is_image(one.path)]


# One lease, and a process that was stopped.


def test_a_run_that_is_stopped_for_longer_than_its_lease_commits_nothing_over_the_run_that_took_over(
    server: CountedHub, own_bids: Path, bids: Path, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.prepare(private=True)
    one, other = sorted(own_bids.rglob("*_T1w.nii.gz"))[:2]
    shutil.copyfile(other, one)  # the second version
    server.break_on({"fault": "status", "path": "/commit/", "status": 429, "retry_after": 3})
    with pusher(bids, hub, tmp_path / "one machine", "", LEASE) as stopped:
        begin(stopped)
        wait_until("its first commit is refused for now", lambda: server.broken == 1, 120)
        stopped.send_signal(signal.SIGSTOP)
        assert len(history(hub)) == 1
        monkeypatch.setattr(lease, "LEASE_SECONDS", LEASE)
        monkeypatch.setattr(lease, "RENEW_EVERY", 1.0)
        ended: list[State[Any]] = []

        def done() -> bool:
            ended.append(push(own_bids, hub, tmp_path / "another machine"))
            return ended[-1].name != "TargetBusy"

        wait_until("another machine has taken over and published", done, 120)
        assert len(ended) > 1 and ended[-1].name == "Staged", ended[-1].message
        commits, record = history(hub), true_record(hub)
        stopped.send_signal(signal.SIGCONT)
        assert heard(stopped, "ended") == "TargetLost"
    assert history(hub) == commits and true_record(hub) == record
    assert {image.path for image in images(record)} == images_of(own_bids)


# Two leases that do not know of each other.


@pytest.mark.parametrize("same", [True, False], ids=["the same dataset", "different datasets"])
def test_two_pushes_at_once_from_different_servers_leave_every_shard_once_and_lose_nothing(
    bids: Path, hub: Hub, tmp_path: Path, same: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", "1")  # what the other has and this dataset has not stops nobody here
    sources = (
        [bids, bids] if same else [part(bids, tmp_path / "a", slice(0, 4)), part(bids, tmp_path / "b", slice(2, 6))]
    )
    with (
        pusher(sources[0], hub, tmp_path / "one", "one", 120) as one,
        pusher(sources[1], hub, tmp_path / "other", "other", 120) as other,
    ):
        begin(one, other)
        ends = {heard(one, "ended"), heard(other, "ended")}
    assert ends <= {"Staged", "NothingToPublish"}
    found = images(true_record(hub))
    assert {image.path for image in found} == images_of(*sources) and len(found) == len(images_of(*sources))


def test_of_two_pushes_of_different_datasets_one_stops_when_it_finds_the_other_and_loses_nothing(
    server: CountedHub, bids: Path, hub: Hub, tmp_path: Path
) -> None:
    hub.prepare(private=True)
    server.break_on({"fault": "slow", "path": "/commit/", "delay": 1.0, "times": -1})
    sources = part(bids, tmp_path / "a", slice(0, 4)), part(bids, tmp_path / "b", slice(2, 6))
    with (
        pusher(sources[0], hub, tmp_path / "one", "one", 120) as one,
        pusher(sources[1], hub, tmp_path / "other", "other", 120) as other,
    ):
        begin(one, other)
        ends = [heard(one, "ended"), heard(other, "ended")]
    assert "TooMuchChanged" in ends and set(ends) <= {"TooMuchChanged", "Staged"}
    published, record = read_remote(hub), true_record(hub)
    assert set(record.shards) == set.union(*(set(record_at(hub, commit).shards) for commit in history(hub)))
    assert published.record == record


def record_at(hub: Hub, commit: str) -> PublicationRecord:
    return read_remote(hub, commit).record


def part(source: Path, to: Path, which: slice) -> Path:
    """A copy of the dataset with some of its sessions."""
    shutil.copytree(source, to)
    kept = sorted(source.glob("sub-*/ses-*"))[which]
    for session in sorted(to.rglob("ses-*")):
        if session.is_dir() and session.name not in {one.name for one in kept}:
            shutil.rmtree(session)
    return to


def test_what_somebody_publishes_otherwise_while_a_run_works_is_named_and_planned_again_by_what_is_there(
    server: CountedHub, bids: Path, shards: tuple[ShardSpec, ...], hub: Hub, tmp_path: Path
) -> None:
    hub.prepare(private=True)
    server.break_on({"fault": "slow", "path": "/commit/", "delay": 1.0, "times": -1})
    somebody = Somebody(Hub(hub.target, hub.token), [spec.path for spec in shards])
    somebody.start()
    state = push(bids, hub, tmp_path / "root")
    somebody.join()
    assert state.name == "Staged", state.message
    assert len(somebody.published) > 1 and somebody.commit in history(hub)
    published = read_remote(hub)
    files = hub.listing(published.commit).files
    assert {path: one.sha256 for path, one in published.record.shards.items()} == {
        path: files[path].sha256 for path in (*(spec.path for spec in shards), STRANGER)
    }
    assert {image.path for image in images(published.record)} == images_of(bids)
    assert f"{EDITED}: edited in the repo: the dataset's own takes its place" in (state.message or "")
    assert hub.read(EDITED, published.commit) == (bids / "README.txt").read_bytes()
    assert hub.read(EDITED, somebody.commit) == b"by hand"
    counted = figures(state)
    assert counted["shards embedded"] == SESSIONS and counted["shards sent"] == SESSIONS
    assert push(bids, hub, tmp_path / "root").name == "NothingToPublish"


class Somebody(threading.Thread):
    """Somebody who publishes all other shards with other bytes, and one more, once the first of a run is on the Hub.

    They edit a text of the dataset too, in the same commit.
    """

    def __init__(self, hub: Hub, paths: list[str]) -> None:
        super().__init__(daemon=True)
        self._hub = hub
        self._paths = paths
        self.commit = ""
        self.published: set[str] = set()

    def run(self) -> None:
        wait_until("a run has published its first shard", lambda: bool(read_remote(self._hub).record.shards), 120)
        before = read_remote(self._hub)
        wanted = [*(path for path in self._paths if path not in before.record.shards), STRANGER]
        data = {path: b"PAR1\0" + os.urandom(100) for path in wanted}
        lines = [
            PublishedShard(path=path, digest="9" * 64, sha256=sha256(one).hexdigest(), size=len(one), rows=0, images=())
            for path, one in data.items()
        ]
        operations = [CommitOperationAdd(path, one) for path, one in data.items()]
        self._hub.preupload(operations)
        operations.append(CommitOperationAdd(EDITED, b"by hand"))
        besides = Besides(lambda record, existing: existing or "", {})
        after = commit(self._hub, before, lines, operations, besides)
        self.commit, self.published = after.commit, set(data) - after.overtaken
