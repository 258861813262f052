"""The flows as functions, on a real Prefect server and the real local Hub: what they publish, and how they end.

In the fast lane both are within this process.
"""

import gzip
import hashlib
import json
import os
import shutil
from collections import namedtuple
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import nibabel
import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants
from prefect import flow
from prefect.client.schemas.objects import FlowRun, State

from deployments.demo_data import make_dataset
from deployments.local_stack import Stack
from flows import wave
from flows.cleanup_staging import cleanup_staging
from flows.push_bids import push_bids
from flows.target import HeldTarget, on_target
from tasks.approve import Question, ask
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.record.remote import CARD, INDEX, RECORD
from tasks.stage import stage
from tasks.values.models import PublicationRecord, ShardSpec
from tests.conftest import SESSIONS
from tests.figures import artifacts, figures

Change = CommitOperationAdd | CommitOperationDelete
pytestmark = pytest.mark.usefixtures("prefect")


@pytest.fixture
def target(counted_by_flows: Hub) -> Hub:
    """A target whose repo does not exist yet."""
    return counted_by_flows


def push(source: Path, target: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", **parameters}
    return push_bids(source, target.target.repo_id, staging_root=root, return_state=True, **given)


def shards_on(target: Hub) -> dict[str, tuple[int, str | None]]:
    files = target.listing(target.head()).files
    return {path: (file.size, file.sha256) for path, file in files.items() if path.startswith("data/")}


def staged(root: Path) -> set[Path]:
    return set(root.rglob("*.parquet"))


def test_a_dataset_is_published_with_its_record_card_and_texts_and_stays_staged(
    bids: Path, target: Hub, root: Path
) -> None:
    state = push(bids, target, root)
    assert (state.type.value, state.name) == ("COMPLETED", "Staged"), state.message
    assert "cleanup-staging/cleanup" in (state.message or "")
    head = target.head()
    record, damaged = PublicationRecord.read(target.read(RECORD, head) or b"")
    assert not damaged
    assert {path: (line.size, line.sha256) for path, line in record.shards.items()} == shards_on(target)
    assert len(record.shards) == len(staged(root)) == SESSIONS
    assert b"load_dataset" in (target.read(CARD, head) or b"")
    assert target.read("bids/participants.tsv", head) == (bids / "participants.tsv").read_bytes()


def test_nothing_changed_publishes_nothing_and_stages_nothing(bids: Path, target: Hub, root: Path) -> None:
    push(bids, target, root)
    head = target.head()
    again = push(bids, target, root)
    assert again.name == "NothingToPublish" and target.head() == head
    elsewhere = push(bids, target, root / "another-machine")
    assert elsewhere.name == "NothingToPublish" and target.head() == head
    assert not staged(root / "another-machine")


def test_one_image_changed_sends_one_shard_and_renames_none(own_bids: Path, target: Hub, root: Path) -> None:
    push(own_bids, target, root)
    before = shards_on(target)
    one, other = sorted(own_bids.rglob("*_T1w.nii.gz"))[:2]
    shutil.copyfile(other, one)
    state = push(own_bids, target, root)
    after = shards_on(target)
    assert set(after) == set(before)
    assert sum(after[path] != before[path] for path in after) == 1
    assert figures(state)["shards sent"] == 1


@pytest.mark.slow
def test_an_image_edited_in_place_at_the_same_size_is_published_again(own_bids: Path, target: Hub, root: Path) -> None:
    push(own_bids, target, root)
    before = shards_on(target)
    image = sorted(own_bids.rglob("*_T1w.nii.gz"))[0]
    data = bytearray(image.read_bytes())
    data[9] ^= 1  # the header's "operating system" byte: another file, and as good a gzip
    image.write_bytes(data)
    push(own_bids, target, root)
    assert sum(shards_on(target)[path] != before[path] for path in before) == 1


@pytest.mark.slow
def test_what_somebody_wrote_into_the_record_is_reported_and_repaired_and_touches_nothing_else(
    own_bids: Path, target: Hub, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Lines for files of theirs, one twice, and one whose shard is neither in the repo nor in the dataset any more."""
    push(own_bids, target, root)
    lines = (target.read(RECORD, target.head()) or b"").splitlines()
    gone = sorted(own_bids.glob("sub-*/ses-*"))[0]
    path = f"data/{gone.parent.name}/{gone.parent.name}_{gone.name}.parquet"
    for folder in (gone, own_bids / "derivatives" / "lesion_masks" / gone.parent.name / gone.name):
        shutil.rmtree(folder, ignore_errors=True)
    theirs = [json.dumps(json.loads(lines[-1]) | {"path": name}).encode() for name in ("notes.md", "../x", "README.md")]
    text = b"\n".join([*lines, *theirs, lines[1], b"no line"])
    by_hand: list[Change] = [
        CommitOperationAdd("notes.md", b"theirs"),
        CommitOperationDelete(path),
        CommitOperationAdd(RECORD, text),
    ]
    target.commit(by_hand, "By hand", target.head())
    assert push(own_bids, target, root, dry_run=True).name == "DryRun"
    state = push(own_bids, target, root)
    assert state.type.value == "COMPLETED", state.message
    assert f"Changed on the Hub by somebody else: {path}: the record has it" in (state.message or "")
    for said in (
        f"{path}: the record has it, and it is not in the repo",
        "line 7: no shard has such a path",
        "line 10: ",
    ):
        assert said in caplog.text
    head = target.head()
    record, damaged = PublicationRecord.read(target.read(RECORD, head) or b"")
    assert not damaged and set(record.shards) == set(shards_on(target)) and len(record.shards) == SESSIONS - 1
    assert target.read("notes.md", head) == b"theirs" and b"load_dataset" in (target.read(CARD, head) or b"")
    assert push(own_bids, target, root).name == "NothingToPublish" and target.head() == head


@pytest.mark.slow
def test_a_record_that_somebody_took_away_and_a_file_in_the_way_of_a_text_are_named_in_the_state(
    bids: Path, target: Hub, root: Path
) -> None:
    target.prepare(private=True)
    target.commit([CommitOperationAdd("bids/participants.tsv", b"theirs")], "By hand", target.head())
    first = push(bids, target, root)
    assert "bids/participants.tsv: not published from here" in (first.message or "")
    assert target.read("bids/participants.tsv", target.head()) == (bids / "participants.tsv").read_bytes()
    target.commit([CommitOperationDelete(RECORD), CommitOperationDelete(INDEX)], "By hand", target.head())
    second = push(bids, target, root)
    assert second.type.value == "COMPLETED" and f"{RECORD}: it is not in the repo" in (second.message or "")
    target.commit([CommitOperationDelete(INDEX)], "By hand", target.head())
    third = push(bids, target, root)
    assert third.type.value == "COMPLETED" and f"{INDEX}: it is not in the repo" in (third.message or "")
    fourth = push(bids, target, root)
    assert fourth.name == "NothingToPublish" and "somebody else" not in (fourth.message or "")


def test_a_shard_that_somebody_deleted_or_replaced_is_published_again(bids: Path, target: Hub, root: Path) -> None:
    push(bids, target, root)
    before = shards_on(target)
    deleted, replaced = sorted(before)[:2]
    operations: list[Change] = [CommitOperationDelete(deleted), CommitOperationAdd(replaced, b"not parquet" * 9000)]
    target.commit(operations, "By hand", target.head())
    state = push(bids, target, root)
    assert shards_on(target) == before
    assert figures(state)["shards found staged"] == 2


def test_what_somebody_deletes_while_a_run_publishes_is_published_again_by_that_run(
    own_bids: Path, target: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(own_bids, target, root)
    before = shards_on(target)
    one, other, *_ = sorted(own_bids.rglob("*_T1w.nii.gz"))
    shutil.copyfile(other, one)
    deleted = sorted(before)[-1]
    draw = wave.draw

    def somebody_commits(*given: Any) -> Any:
        target.commit([CommitOperationDelete(deleted)], "By hand", target.head())
        return draw(*given)

    monkeypatch.setattr(wave, "draw", somebody_commits)
    state = push(own_bids, target, root)
    assert state.name == "Staged", state.message
    after = shards_on(target)
    assert after.keys() == before.keys() and sum(after[path] != before[path] for path in after) == 1
    assert after[deleted] == before[deleted] and figures(state)["shards sent"] == 2
    assert f"Changed on the Hub by somebody else: {deleted}" in (state.message or "")


def test_a_night_that_a_later_one_does_is_skipped_and_says_which(
    bids: Path, target: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = FlowRun(flow_id=uuid4(), expected_start_time=datetime(2026, 11, 25, 2, 0, tzinfo=UTC))
    monkeypatch.setattr("flows.push_bids.later_night", lambda: later)
    state = push(bids, target, root)
    assert (state.type.value, state.name) == ("COMPLETED", "Skipped") and not target.exists()
    due = datetime(2026, 11, 25, 2, 0, tzinfo=UTC).astimezone()
    assert f"the one of {due:%Y-%m-%d %H:%M} does its work too" in (state.message or "")


def test_a_damaged_staged_shard_is_staged_again_and_never_sent(bids: Path, target: Hub, root: Path) -> None:
    push(bids, target, root)
    before = shards_on(target)
    target.commit([CommitOperationDelete(path) for path in before], "By hand", target.head())
    flipped, cut, emptied, lost, *intact = sorted(staged(root))
    data = bytearray(flipped.read_bytes())
    data[len(data) // 2] ^= 1
    flipped.write_bytes(data)
    cut.write_bytes(cut.read_bytes()[:-100])
    emptied.write_bytes(b"")
    lost.unlink()
    state = push(bids, target, root)
    assert shards_on(target) == before
    counted = figures(state)
    assert (counted["shards embedded"], counted["shards found staged"]) == (4, len(intact))


@pytest.mark.slow
def test_losing_prefects_results_costs_no_embedding(tmp_path: Path, target: Hub, root: Path) -> None:
    bids = tmp_path / "large-sessions"
    make_dataset(bids, sessions=3, total_bytes=40_000_000)  # large enough for a task run, and a result, each
    push(bids, target, root)
    before = shards_on(target)
    target.commit([CommitOperationDelete(path) for path in before], "By hand", target.head())
    (results,) = root.glob("*/results")
    for number, path in enumerate(sorted(results.iterdir())):
        path.unlink() if number % 2 else path.write_bytes(b"damaged")
    state = push(bids, target, root)
    assert shards_on(target) == before
    assert figures(state).get("shards embedded", 0) == 0


def test_a_dry_run_publishes_nothing_and_makes_no_repo(bids: Path, target: Hub, root: Path) -> None:
    state = push(bids, target, root, dry_run=True)
    assert state.name == "DryRun" and f"{SESSIONS} shards of {SESSIONS}" in (state.message or "")
    assert not target.exists() and not staged(root)


@pytest.mark.slow
def test_what_cannot_be_read_is_in_the_dry_run_stops_the_push_and_is_published_if_somebody_says_so(
    own_bids: Path, target: Hub, root: Path
) -> None:
    broken = own_bids / "phenotype" / "ward.json"
    broken.parent.mkdir(exist_ok=True)
    broken.write_text('{"ward": "3b",}')
    dry = push(own_bids, target, root, dry_run=True)
    assert "The push would stop: unreadable" in (dry.message or "")
    (text,) = (str(data) for key, data in artifacts(dry).items() if key.startswith("dry-run-"))
    finding = text.partition("`not JSON: line 1, column 15` in 1 file")[2]
    assert finding.partition("\n")[2].startswith("  - `phenotype/ward.json`\n") and "3b" not in text
    stopped = push(own_bids, target, root)
    assert stopped.name == "PreflightStopped" and not target.exists()
    assert "name the file in exclude" in (stopped.message or "")
    assert push(own_bids, target, root, allow=["unreadable"]).name == "Staged"
    assert "Rule `unreadable`" in (target.read(CARD, target.head()) or b"").decode()
    assert target.read("bids/phenotype/ward.json", target.head()) == broken.read_bytes()


def test_a_dry_run_says_what_changed_since_the_last_time(bids: Path, own_bids: Path, target: Hub, root: Path) -> None:
    push(bids, target, root)
    before = target.head()
    changed, *_, gone = sorted(own_bids.glob("sub-*/ses-*"))
    next(changed.glob("*/*_bold.json")).write_text('{"RepetitionTime": 2.5}')
    shutil.rmtree(gone)
    state = push(own_bids, target, root, dry_run=True)
    assert state.name == "DryRun" and f"1 shard of {SESSIONS - 1}" in (state.message or "")
    (shown,) = (data for key, data in artifacts(state).items() if key.startswith("dry-run-"))
    assert f"| sub-{changed.parent.name[4:]}_{changed.name} | changed |" in shown
    assert "No longer in the dataset: 1 shard with " in shown and f"{gone.parent.name}_{gone.name}.parquet" in shown
    assert target.head() == before


def test_a_dry_run_says_which_texts_would_change_and_that_this_looks_like_another_dataset(
    own_bids: Path, target: Hub, root: Path
) -> None:
    push(own_bids, target, root)
    path = own_bids / "dataset_description.json"
    path.write_text(path.read_text().replace('"Name": "', '"Name": "Another '))
    state = push(own_bids, target, root, dry_run=True)
    said = state.message or ""
    assert f"0 shards of {SESSIONS} would be published, and 1 text" in said
    assert "This looks like another dataset: the repo holds '" in said
    (shown,) = (str(data) for key, data in artifacts(state).items() if key.startswith("dry-run-"))
    assert "Texts and tables: 1 file (bids/dataset_description.json)." in shown and "this source is 'Another " in shown


@pytest.mark.slow
def test_a_card_that_somebody_deleted_and_a_shard_that_they_replaced_are_named_before_they_are_written_anew(
    own_bids: Path, target: Hub, root: Path
) -> None:
    push(own_bids, target, root)
    target.commit([CommitOperationDelete(CARD)], "By hand", target.head())
    said = push(own_bids, target, root).message or ""
    assert f"Changed on the Hub by somebody else: {CARD}: it is not in the repo" in said
    assert "Committed without a shard" in said
    shard = sorted(shards_on(target))[0]
    target.commit([CommitOperationAdd(shard, b"theirs")], "By hand", target.head())
    said = push(own_bids, target, root).message or ""
    assert f"Changed on the Hub by somebody else: {shard}: 6 bytes in the repo" in said
    assert "Committed without a shard" not in said


@pytest.mark.slow
def test_a_card_edited_by_hand_keeps_its_edits(bids: Path, own_bids: Path, target: Hub, root: Path) -> None:
    push(bids, target, root)
    card = (target.read(CARD, target.head()) or b"").decode()
    edited = CommitOperationAdd(CARD, (card + "\n## A note by hand\n").encode())
    target.commit([edited], "By hand", target.head())
    assert push(bids, target, root).name == "NothingToPublish"
    (own_bids / "CHANGES").write_text("1.0.3 2026-11-22\n  - Something new\n")
    push(own_bids, target, root)
    assert (target.read("bids/CHANGES", target.head()) or b"").startswith(b"1.0.3")
    assert b"## A note by hand" in (target.read(CARD, target.head()) or b"")


@pytest.mark.slow
def test_an_upgrade_of_bids_push_is_told_when_something_is_published_and_is_no_reason_to_publish(
    own_bids: Path, target: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(own_bids, target, root)
    first, made = on_hub(target), commits(target)
    monkeypatch.setattr("tasks.card.versions.tool_version", lambda: "bids-push 77.0")
    assert push(own_bids, target, root).name == "NothingToPublish"
    assert (commits(target), on_hub(target)) == (made, first)
    shutil.copyfile(*reversed(sorted(own_bids.rglob("*_T1w.nii.gz"))[:2]))
    assert push(own_bids, target, root).name == "Staged"
    after = on_hub(target)
    assert commits(target) == made + 1
    assert b"bids-push 77.0" in (target.read(CARD, target.head()) or b"")
    changed = {path for path in after if path.startswith("pictures/") and after[path] != first[path]}
    assert changed == {"pictures/anat_T1w.png"}


def commits(target: Hub) -> int:
    return len(target.api.list_repo_commits(target.target.repo_id, repo_type="dataset"))


def on_hub(target: Hub) -> dict[str, tuple[str | None, str | None]]:
    return {path: (file.sha256, file.blob_id) for path, file in target.listing(target.head()).files.items()}


# Nothing is made on the Hub for a dataset of which nothing can be published.


def drop(images: Iterable[Path], root: Path) -> None:
    """Leave of images what git-annex leaves of content that was dropped."""
    for image in images:
        key = f"SHA256E-s{image.stat().st_size}--{hashlib.sha256(image.read_bytes()).hexdigest()}.nii.gz"
        kept = root / ".git/annex/objects/aa/bb" / key / key
        image.unlink()
        image.symlink_to(os.path.relpath(kept, image.parent))


def test_a_dataset_with_nothing_fetched_makes_no_repo_and_says_the_one_command(
    own_bids: Path, target: Hub, root: Path
) -> None:
    images = list(own_bids.rglob("*.nii.gz"))
    drop(images, own_bids)
    for dry_run in (True, False):
        state = push(own_bids, target, root, dry_run=dry_run)
        message = state.message or ""
        assert "NothingFetched" in (message if dry_run else state.name or "")
        assert f"{len(images)} of {len(images)} images are not on this machine" in message
        assert "`git annex get sub-* derivatives` fetches all of it" in message
        assert not target.exists()
    (shown,) = (data for key, data in artifacts(push(own_bids, target, root, dry_run=True)).items() if "dry" in key)
    assert "## Not on this machine" in shown and "`git annex get sub-* derivatives`" in shown


@pytest.mark.slow
def test_what_is_published_stays_so_if_all_content_is_dropped_later(own_bids: Path, target: Hub, root: Path) -> None:
    """As in a clone of a dataset: the keys say that the content is what is published."""
    images = list(own_bids.rglob("*.nii.gz"))
    contents = {image: image.read_bytes() for image in images}
    drop(images, own_bids)
    for image, data in contents.items():  # fetched
        there = image.parent / image.readlink()
        there.parent.mkdir(parents=True, exist_ok=True)
        there.write_bytes(data)
    assert push(own_bids, target, root).name == "Staged"
    shutil.rmtree(own_bids / ".git" / "annex")
    head = target.head()
    assert push(own_bids, target, root).name == "NothingToPublish" and target.head() == head


def test_a_dataset_without_an_image_makes_no_repo(own_bids: Path, target: Hub, root: Path) -> None:
    for image in own_bids.rglob("*.nii.gz"):
        image.unlink()
    assert push(own_bids, target, root).name == "EmptyDataset"
    assert not target.exists()


@pytest.mark.slow
def test_dicom_in_an_image_stops_before_a_repo_is_made_and_can_be_allowed(
    own_bids: Path, target: Hub, root: Path
) -> None:
    path = sorted(own_bids.rglob("*_T1w.nii.gz"))[0]
    image = nibabel.Nifti1Image(np.zeros((2, 2, 2), np.int16), np.eye(4))
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(2, b"Doe^John"))
    path.write_bytes(gzip.compress(image.to_bytes()))
    state = push(own_bids, target, root)
    assert state.name == "PreflightStopped" and "dicom-header:extension 2 (DICOM)" in (state.message or "")
    assert not target.exists()
    assert "The push would stop: dicom-header" in (push(own_bids, target, root, dry_run=True).message or "")
    allow = ["dicom-header:extension 2 (DICOM)"]
    assert push(own_bids, target, root, allow=allow).name == "Staged"
    head = target.head()
    card = (target.read(CARD, head) or b"").decode()
    assert "(`extension 2 (DICOM)`). Rule `dicom-header`" in card
    assert push(own_bids, target, root, allow=allow).name == "NothingToPublish" and target.head() == head


# Bad input: one clear message each, in the run's state, and no harm.


def test_an_unfetched_image_fails_its_shard_by_name_and_the_others_are_published(
    own_bids: Path, target: Hub, root: Path
) -> None:
    image = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    key = f"SHA256E-s{image.stat().st_size}--{'0' * 64}.nii.gz"
    image.unlink()
    image.symlink_to(os.path.relpath(own_bids / ".git/annex/objects/aa/bb" / key / key, image.parent))
    state = push(own_bids, target, root)
    assert (state.type.value, state.name) == ("FAILED", "ShardsFailed")
    assert image.name in (state.message or "")
    assert f"1 of {len(list(own_bids.rglob('*.nii.gz')))} images is not on this machine" in (state.message or "")
    assert f"`git annex get {image.relative_to(own_bids)}` fetches all of it" in (state.message or "")
    assert len(shards_on(target)) == SESSIONS - 1
    assert not list(root.glob("*/gate.json")) or json.loads(next(root.glob("*/gate.json")).read_text())["shown"] == []
    assert len(staged(root)) == SESSIONS - 1


def test_a_missing_participants_table_is_no_obstacle(own_bids: Path, target: Hub, root: Path) -> None:
    (own_bids / "participants.tsv").unlink()
    assert push(own_bids, target, root).name == "Staged"
    assert len(shards_on(target)) == SESSIONS


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda folder: None, "no such folder|does not exist"),
        (lambda folder: folder.mkdir(), "dataset_description.json"),
        (lambda folder: folder.write_text("a file"), "folder"),
    ],
    ids=["missing", "not BIDS", "a file"],
)
def test_a_source_that_is_no_bids_dataset_is_refused_before_a_repo_is_made(
    tmp_path: Path, target: Hub, root: Path, make: Any, message: str
) -> None:
    make(tmp_path / "source")
    state = push(tmp_path / "source", target, root)
    assert state.type.value == "FAILED" and str(tmp_path / "source") in (state.message or "")
    assert any(word in (state.message or "") for word in message.split("|")), state.message
    assert not target.exists()


def test_a_dataset_without_an_image_is_refused(tmp_path: Path, target: Hub, root: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    (source / "dataset_description.json").write_text('{"Name": "Empty", "BIDSVersion": "1.10.0"}')
    state = push(source, target, root)
    assert (state.type.value, state.name) == ("FAILED", "EmptyDataset")
    assert not target.exists()


@pytest.mark.usefixtures("with_token")
def test_a_repo_that_the_token_may_not_write_to_is_refused_before_anything_is_staged(
    bids: Path, hub_server: Stack, root: Path
) -> None:
    hub_server.make_token("another-lab")
    state = push_bids(bids, "another-lab/data", defacing="no faces", staging_root=root, return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "NotAllowed")
    assert "write role" in (state.message or "") and not staged(root)


def test_a_missing_token_is_named(bids: Path, target: Hub, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN")
    state = push(bids, target, root)
    assert (state.type.value, state.name) == ("FAILED", "NoToken") and "HF_TOKEN" in (state.message or "")


def test_a_hub_that_is_not_there_is_named_and_nothing_is_staged(
    bids: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setenv("HF_TOKEN", "hf_of_nobody")
    state = push_bids(bids, "lab/x", defacing="no faces", staging_root=root, return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "HubUnreachable")
    assert "http://127.0.0.1:9" in (state.message or "") and not staged(root)


def test_a_full_disk_is_refused_before_anything_is_staged_or_sent(
    bids: Path, target: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("tasks.disk.staging.shutil.disk_usage", lambda _: usage(10**9, 10**9 - 10**6, 10**6))
    state = push(bids, target, root)
    assert (state.type.value, state.name) == ("FAILED", "DiskFull")
    assert not staged(root) and not shards_on(target)


def test_a_target_that_another_run_holds_is_refused(bids: Path, target: Hub, root: Path) -> None:
    with Staging.of(root, target.target).held():
        state = push(bids, target, root)
    assert (state.type.value, state.name) == ("FAILED", "TargetBusy")


def test_cleanup_staging_without_a_deployment_verifies_and_deletes_nothing(bids: Path, target: Hub, root: Path) -> None:
    push(bids, target, root)
    state = cleanup_staging(target.target.repo_id, staging_root=root, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "Staged")
    assert len(staged(root)) == SESSIONS


def test_cleanup_staging_of_a_target_with_nothing_staged_that_may_go_says_so_and_names_an_only_copy(
    target: Hub, root: Path, shards: tuple[ShardSpec, ...], bids: Path
) -> None:
    target.prepare(private=True)
    state = cleanup_staging(target.target.repo_id, staging_root=root, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "NothingStaged")
    assert "proved" not in (state.message or "")

    receipt = stage(shards[0], bids, Staging.of(root, target.target))  # and never sent
    state = cleanup_staging(target.target.repo_id, staging_root=root, return_state=True)
    assert (state.type.value, state.name) == ("COMPLETED", "NothingStaged")
    assert f"since the Hub is not proved to have it: the first is {receipt.file}" in (state.message or "")
    assert len(staged(root)) == 1


def test_a_shard_that_was_published_remembers_the_commit_that_holds_it(bids: Path, target: Hub, root: Path) -> None:
    push(bids, target, root)
    receipts = Staging.of(root, target.target).receipts()
    assert len(receipts) == SESSIONS
    for receipt in receipts:
        (there,) = target.listed([receipt.path], receipt.commit).values()
        assert (there.size, there.sha256) == (receipt.size, receipt.sha256)


@pytest.mark.usefixtures("counted_by_flows")
def test_a_gate_that_the_server_does_not_let_open_is_named_and_deletes_nothing(root: Path) -> None:
    def body(held: HeldTarget) -> State[Any]:
        ask("lab/x", held.run, Question("evidence", "", "here", "waits", datetime.now(UTC) + timedelta(days=1)))
        raise AssertionError("nobody was asked")

    @flow(name="no-deployment")
    def no_deployment() -> State[Any]:
        return on_target(body, "lab/x", "main", "", str(root))

    state = no_deployment(return_state=True)
    assert (state.type.value, state.name) == ("FAILED", "CannotAsk")
    assert "Nothing was deleted" in (state.message or "") and "cleanup-staging/cleanup" in (state.message or "")
