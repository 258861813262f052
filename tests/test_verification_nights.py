"""Night after night on a real Prefect server and a real local Hub: what each verifies, says, and does not forget."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from deployments.demo_data import make_dataset
from flows.cleanup_staging import cleanup_staging
from flows.push_bids import push_bids
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.report.lineage import artifact_key
from tests.counted_hub import CountedHub
from tests.figures import artifacts

pytestmark = pytest.mark.usefixtures("prefect_server")
SESSIONS = 4


@pytest.fixture
def hub(counted_by_flows: Hub) -> Hub:
    return counted_by_flows


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bids") / "few"
    make_dataset(folder, sessions=SESSIONS)
    return folder


@pytest.fixture
def own(few: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(few, tmp_path / "own", copy_function=shutil.copy2))


def push(source: Path, hub: Hub, root: Path, verification: str = "listing", **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", "verification": verification, "staging_root": root, **parameters}
    return push_bids(source, hub.target.repo_id, return_state=True, **given)


def shards_on(hub: Hub) -> list[str]:
    return sorted(path for path in hub.listing(hub.head()).files if path.startswith("data/"))


def sent_back(server: CountedHub, since: int) -> set[str]:
    """The shards that were downloaded since."""
    asked = (re.search(r"/resolve/[^/]+/(data/.*\.parquet)$", one.path) for one in server.asked(since))
    return {one[1] for one in asked if one}


def damage(server: CountedHub, path: str) -> None:
    """From now on the Hub sends other bytes for this shard."""
    server.break_on({"fault": "other_bytes", "method": "GET", "path": re.escape(path), "times": -1})


def status(state: State[Any], hub: Hub) -> str:
    return str(artifacts(state)[artifact_key("target", hub.target)])


def failed(root: Path, hub: Hub) -> list[str]:
    return [one["path"] for one in json.loads(Staging.of(root, hub.target).failed.read_bytes())["shards"]]


def test_quiet_nights_read_every_shard_back_in_the_stated_number_and_fetch_nothing_twice(
    server: CountedHub, few: Path, hub: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_SAMPLE_SHARDS", "1")
    monkeypatch.setenv("BIDS_PUSH_SAMPLE_NIGHTS", "2")
    start = len(server.asked())
    state = push(few, hub, root, "sample")
    read, everything = sent_back(server, start), shards_on(hub)
    assert len(read) == 2
    assert f"Round 1, since {state.timestamp:%Y-%m-%d}: 2 of 4 read back; at this pace it takes 1 more night." in (
        status(state, hub)
    )
    start, head = len(server.asked()), hub.head()
    quiet = push(few, hub, root, "sample")
    asked = server.asked(start)
    assert quiet.name == "NothingToPublish"
    assert f"Verified (sample) at commit {head[:12]}: 4 shards" in (quiet.message or "")
    assert "2 of them read back" in (quiet.message or "")
    assert sent_back(server, start) == set(everything) - read
    assert "Round 1" in status(quiet, hub) and "4 of 4 read back; it is complete" in status(quiet, hub)
    for once in (r"/tree/", r"shards\.jsonl$", r"record/index\.json$", r"/README\.md$"):
        assert sum(bool(re.search(once, one.path)) for one in asked) == 1, once
    start = len(server.asked())
    listed = push(few, hub, root)
    assert f"Verified (listing) at commit {head[:12]}: 4 shards" in (listed.message or "")
    assert not sent_back(server, start) and "4 of 4 read back" in status(listed, hub)
    third = push(few, hub, root, "sample")
    assert len(sent_back(server, start)) == 2 and "Round 2" in status(third, hub)


def test_a_shard_that_failed_stays_failed_at_any_level_until_its_bytes_came_back_right(
    server: CountedHub, few: Path, hub: Hub, root: Path
) -> None:
    push(few, hub, root)
    bad = shards_on(hub)[1]
    damage(server, bad)
    first = push(few, hub, root, "full")
    assert (first.type.value, first.name) == ("FAILED", "VerificationFailed")
    assert bad in (first.message or "") and "still staged here, intact" in (first.message or "")
    for night in (
        push(few, hub, root),
        cleanup_staging(hub.target.repo_id, "main", "listing", str(root), return_state=True),
    ):
        assert (night.type.value, night.name) == ("FAILED", "VerificationFailed"), night.message
        assert bad in (night.message or "") and "failed since 20" in (night.message or "")
        text = status(night, hub)
        assert "1 shard failed verification" in text and "## Failed verification" in text and Path(bad).stem in text
    # what could not be looked at is neither right nor failed
    server.break_on({"fault": "status", "status": 401, "method": "GET", "path": r"/resolve/.*parquet", "times": -1})
    before = Staging.of(root, hub.target).failed.read_bytes(), Staging.of(root, hub.target).round.read_bytes()
    away = push(few, hub, root, "full")
    assert away.name == "TokenRejected" and f"not right since: 1 shard: {Path(bad).stem}" in (away.message or "")
    assert (Staging.of(root, hub.target).failed.read_bytes(), Staging.of(root, hub.target).round.read_bytes()) == before
    assert "Verified (" not in (away.message or "")
    server.break_on()
    right = push(few, hub, root)
    assert right.name == "NothingToPublish" and "1 of them read back" in (right.message or "")
    assert f"Failed before, and right again or gone: {Path(bad).stem}." in (right.message or "")
    assert failed(root, hub) == [] and "Failed verification" not in status(right, hub)
    assert "Failed before" not in (push(few, hub, root).message or "")


def test_a_failed_shard_that_is_published_anew_leaves_the_list_once_its_new_bytes_came_back_right(
    server: CountedHub, own: Path, hub: Hub, root: Path
) -> None:
    push(own, hub, root)
    bad = shards_on(hub)[0]
    damage(server, bad)
    push(own, hub, root, "full")
    one, other = sorted(own.rglob(f"{Path(bad).parent.name}/**/*.nii.gz"))[0], sorted(own.rglob("*.nii.gz"))[-1]
    shutil.copyfile(other, one)
    still = push(own, hub, root, accept_changes=1)
    assert still.name == "VerificationFailed" and failed(root, hub) == [bad]
    server.break_on()
    shutil.copyfile(sorted(own.rglob("*.nii.gz"))[-2], one)
    right = push(own, hub, root, accept_changes=1)
    assert right.name == "Staged" and failed(root, hub) == []


def test_a_damaged_list_is_told_and_the_runs_own_checks_stand(
    server: CountedHub, few: Path, hub: Hub, root: Path
) -> None:
    push(few, hub, root)
    Staging.of(root, hub.target).failed.write_text("{")
    night = push(few, hub, root, dry_run=True)
    assert "failed.json is damaged" in status(night, hub)
    damage(server, shards_on(hub)[2])
    assert push(few, hub, root, "full").name == "VerificationFailed"
    assert failed(root, hub) == [shards_on(hub)[2]]


def test_a_night_that_publishes_texts_only_verifies_at_the_level_asked_for(
    server: CountedHub, own: Path, hub: Hub, root: Path, tmp_path: Path
) -> None:
    push(own, hub, root)
    (own / "CHANGES").write_text("1.0.9 2026-11-24\n  - Words\n")
    start = len(server.asked())
    state = push(own, hub, tmp_path / "another machine", "sample")
    assert state.name == "NothingStaged"
    assert f"Verified (sample) at commit {hub.head()[:12]}: 4 shards" in (state.message or "")
    assert len(sent_back(server, start)) == 3
    (own / "CHANGES").write_text("1.1.0 2026-11-25\n  - More words\n")
    damage(server, shards_on(hub)[0])
    assert push(own, hub, tmp_path / "another machine", "full").name == "VerificationFailed"


def test_a_run_that_could_not_stage_a_shard_verifies_the_others_and_says_both(
    server: CountedHub, own: Path, hub: Hub, root: Path
) -> None:
    image = sorted(own.rglob("*_bold.nii.gz"))[0]
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    state = push(own, hub, root)
    assert state.name == "ShardsFailed" and "Verified (listing)" in (state.message or "")
    damage(server, shards_on(hub)[0])
    state = push(own, hub, root, "full")
    assert state.name == "VerificationFailed"
    assert image.name in (state.message or "") and shards_on(hub)[0] in (state.message or "")
