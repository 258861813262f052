"""A repo that was published with another layout: an older one is brought over once, a newer one is left alone."""

import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from deployments.demo_data import make_dataset
from flows.push_bids import push_bids
from tasks.commit import commit
from tasks.commit.other_files import Besides
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.kept_removals import Keeping, keep, read_kept
from tasks.record.published import disagreement
from tasks.record.remote import INDEX, NewerLayout, read_remote
from tasks.record.removals import Removals, as_file
from tasks.stage import stage
from tasks.transfer import transfer
from tasks.values.models import HASHED_FOLDERS, LAYOUT_VERSION, PublishedShard, Receipt
from tasks.write import WRITER_SETTINGS
from tests.bids_examples import Content, description, move_session, write
from tests.counted_hub import CountedHub
from tests.layout_1 import publish_as_before_0_8, publish_as_layout_1, say_layout
from tests.test_streaming import noise

IMAGE_BYTES = 24_000_000  # of 3 sessions: images of some MB, as scanners make them
ANEW = f"in layout 1; this version writes layout {LAYOUT_VERSION}. So every shard is written anew once"


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("large") / "ds004884"
    make_dataset(folder, sessions=3, total_bytes=IMAGE_BYTES)
    return folder


def push(source: Path, hub: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", "verification": "full", **parameters}
    return push_bids(source, hub.target.repo_id, staging_root=root, return_state=True, **given)


def lines_of(source: Path, folder: Path) -> dict[str, PublishedShard]:
    """The lines that a push of today gives, its shards made in a folder."""
    made = Staging(folder / "anew")
    return {spec.path: stage(spec, source, made).line() for spec in plan(load(source), WRITER_SETTINGS)}


def lines_on(hub: Hub) -> dict[str, PublishedShard]:
    """The lines of the record, each of which the repo holds."""
    head = hub.head()
    remote, listing = read_remote(hub, head), hub.listing(head)
    assert not remote.damaged
    assert not [path for path, line in remote.record.shards.items() if disagreement(line, listing)]
    return dict(remote.record.shards)


@pytest.mark.usefixtures("prefect_server")
def test_a_repo_of_layout_1_is_brought_over_once_and_its_images_are_not_sent_again(
    server: CountedHub, counted_by_flows: Hub, large: Path, staging: Staging, root: Path, tmp_path: Path
) -> None:
    hub = counted_by_flows
    old, new = publish_as_layout_1(hub, large, staging), lines_of(large, tmp_path)
    assert lines_on(hub) == old and new.keys() >= old.keys() and not set(new.values()) & set(old.values())

    start = len(server.asked())
    state = push(large, hub, root)
    sent = server.content_received(start)
    assert state.name == "Staged", state.message
    assert f"{ANEW} ({len(old)} shards)" in str(state.message)
    assert "not sent again" in str(state.message)
    assert "Changed on the Hub" not in str(state.message) and "No longer in the dataset" not in str(state.message)
    assert f"Verified (full) at commit {hub.head()[:12]}: {len(new)} shards" in str(state.message)
    assert lines_on(hub) == new
    assert read_remote(hub).record.layout == LAYOUT_VERSION
    size = sum(line.size for line in new.values())
    assert 0 < sent < size / 10, f"{sent:,} of {size:,} bytes were sent"

    night = push(large, hub, root)
    assert night.name == "NothingToPublish" and "Layout" not in str(night.message)


@pytest.mark.usefixtures("prefect_server")
def test_a_repo_without_sidecars_gets_them_in_one_night_and_its_images_are_not_sent_again(
    server: CountedHub, counted_by_flows: Hub, staging: Staging, root: Path, tmp_path: Path
) -> None:
    image = "sub-0{0}/ses-a/anat/sub-0{0}_ses-a_T1w"
    files: dict[str, Content] = {"dataset_description.json": description()}
    for sub in (1, 2, 3):
        files |= {f"{image.format(sub)}.nii": noise(3_000_352), f"{image.format(sub)}.json": {"EchoTime": sub}}
        files[f"sub-0{sub}/sub-0{sub}_sessions.tsv"] = [["session_id"], ["ses-a"]]
    hub, source = counted_by_flows, write(tmp_path / "bids", files)
    old, new = publish_as_before_0_8(hub, source, staging), lines_of(source, tmp_path)
    assert [len(line.images) for line in old.values()] == [1, 1, 1]
    assert [len(line.images) for line in new.values()] == [1, 2] * 3  # a subject's sessions.tsv is in its own shard

    start = len(server.asked())
    state = push(source, hub, root)
    said = "the shards that have some are written anew once (3 shards)"
    assert state.name == "Staged" and said in str(state.message) and "Layout" not in str(state.message), state.message
    assert "No longer in the dataset" not in str(state.message)
    assert lines_on(hub) == new and not set(new.values()) & set(old.values())
    size, sent = sum(line.size for line in new.values()), server.content_received(start)
    assert 0 < sent < size / 10, f"{sent:,} of {size:,} bytes were sent"
    state = push(source, hub, root)
    assert state.name == "NothingToPublish" and "anew" not in str(state.message)


@pytest.mark.usefixtures("prefect_server")
def test_what_was_withdrawn_and_kept_stays_as_layout_1_has_it_while_the_rest_is_brought_over(
    counted_by_flows: Hub, own_bids: Path, staging: Staging, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", "0.5")  # a session of these six is more than a tenth
    hub = counted_by_flows
    old = publish_as_layout_1(hub, own_bids, staging)
    gone = sorted(own_bids.glob("sub-*/ses-*"))[0]
    shard = f"data/{gone.parent.name}/{gone.parent.name}_{gone.name}.parquet"
    move_session(own_bids, gone, tmp_path / "away")
    own = Staging.of(root, hub.target)
    inside = tuple(image.path for image in old[shard].images)
    removals = Removals(shards={shard: inside}, published={shard: as_file(old[shard])})
    keep(own, Keeping(removals=removals, at=datetime.now(UTC), flow_run_name="an earlier night"))

    state = push(own_bids, hub, root, removed="ask")
    assert f"{ANEW} ({len(old) - 1} shards)" in str(state.message)
    assert "an earlier night" in str(state.message)
    now = lines_on(hub)
    assert now.keys() == old.keys() and now[shard] == old[shard]
    assert not [path for path in now.keys() - {shard} if now[path] == old[path]]
    assert read_kept(own) == removals


@pytest.mark.usefixtures("prefect_server")
def test_a_dry_run_says_that_a_repo_of_layout_1_would_be_brought_over_and_sends_nothing(
    counted_by_flows: Hub, bids: Path, staging: Staging, root: Path
) -> None:
    hub = counted_by_flows
    publish_as_layout_1(hub, bids, staging)
    head = hub.head()
    state = push(bids, hub, root, dry_run=True)
    assert state.name == "DryRun" and ANEW in str(state.message) and hub.head() == head


@pytest.mark.usefixtures("prefect_server")
def test_a_repo_of_a_newer_layout_is_refused_before_anything_is_staged(
    server: CountedHub, counted_by_flows: Hub, own_bids: Path, tmp_path: Path
) -> None:
    hub = counted_by_flows
    push(own_bids, hub, tmp_path / "first")
    head = say_layout(hub, HASHED_FOLDERS + 1, hub.head())
    shutil.rmtree(sorted(own_bids.glob("sub-*/ses-*"))[0])  # there would be something to do
    start = len(server.asked())
    state = push(own_bids, hub, tmp_path / "second")
    assert state.name == "NewerLayout"
    for words in (f"says layout {HASHED_FOLDERS + 1}", f"knows {HASHED_FOLDERS} at most", "Update bids-push", INDEX):
        assert words in str(state.message)
    assert not list((tmp_path / "second").rglob("*.parquet"))
    assert hub.head() == head and server.content_received(start) == 0


def test_a_newer_bids_push_that_commits_meanwhile_is_not_overwritten(
    counted: Hub, staging: Staging, staged: Callable[[int], list[Receipt]]
) -> None:
    counted.prepare(private=True)
    receipts = staged(2)
    besides = Besides(lambda record, existing: "---\nlicense: cc0-1.0\n---\n", {})
    operations = [one.operation for one in transfer(counted, staging, receipts)]
    lines = [receipt.line() for receipt in receipts]
    before = commit(counted, read_remote(counted), lines[:1], operations[:1], besides)
    head = say_layout(counted, HASHED_FOLDERS + 1, before.commit)
    with pytest.raises(NewerLayout, match="Update bids-push"):
        commit(counted, before, lines[1:], operations[1:], besides)
    assert counted.head() == head and read_remote(counted).record.layout == HASHED_FOLDERS + 1
