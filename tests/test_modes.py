"""Modes: a file that may be executed comes back so, and a mode alone sends no shard and makes no night busy."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from prefect.client.schemas.objects import State

from flows.push_bids import push_bids
from flows.restore_bids import restore_bids
from tasks.disk.sample_rounds import Round
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.modes import changed_modes, executable_files, other_modes
from tasks.record.remote import INDEX, RECORD, read_remote
from tasks.values.models import Dataset, ImageContent, PublicationRecord, PublishedShard, PublishedText
from tasks.verify import Reading, verify
from tests.bids_examples import IMAGE, Content, description, write
from tests.counted_hub import CountedHub
from tests.way_back import back, files, publish

T1W, SIDECAR = "sub-01/anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.json"
MEG4 = "sub-01/meg/sub-01_task-x_meg.ds/sub-01_task-x_meg.meg4"
SCRIPT, MODULE = "code/run_analysis.sh", "code/module.py"
CONTENTS: dict[str, Content] = {
    "dataset_description.json": description(),
    "README": "A dataset.\n",
    SCRIPT: b"#!/bin/sh\n",
    MODULE: b"print()\n",
    T1W: IMAGE,
    SIDECAR: {"EchoTime": 0.03},
    MEG4: b"MEG41CP\0",
    "sub-02/anat/sub-02_T1w.nii.gz": IMAGE,
}
EXECUTABLE = {"README": 0o711, SCRIPT: 0o755, T1W: 0o744, SIDECAR: 0o4755, MEG4: 0o6777}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A dataset in which no file is executable."""
    with umask(0o022):
        return write(tmp_path / "bids", CONTENTS)


@pytest.fixture
def target(counted: Hub) -> Hub:
    counted.prepare(private=True)
    return counted


@contextmanager
def umask(mask: int) -> Iterator[None]:
    before = os.umask(mask)
    try:
        yield
    finally:
        os.umask(before)


def set_modes(source: Path, modes: dict[str, int]) -> None:
    for path, mode in modes.items():
        (source / path).chmod(mode)


def modes_of(folder: Path) -> dict[str, int]:
    return {path: (folder / path).stat().st_mode & 0o7777 for path in files(folder)}


def record_of(dataset: Dataset, executable: set[str]) -> PublicationRecord:
    """The record of a dataset, as if these files had been executable when it was published."""
    zero = "0" * 64
    lines = (
        PublishedShard(
            path=spec.path,
            digest=spec.digest,
            sha256=zero,
            size=1,
            rows=len(spec.rows),
            images=tuple(ImageContent(path=row.path, size=row.size, sha256=zero) for row in spec.rows),
        )
        for spec in plan(dataset, {})
    )
    texts = (
        PublishedText(path=f"bids/{path}", size=1, sha256=zero, mode="755" if path in executable else "")
        for path in dataset.texts
    )
    return PublicationRecord().updated([line.with_modes(executable) for line in lines], (), texts)


@pytest.mark.parametrize(("mask", "executable", "ordinary"), [(0o022, 0o755, 0o644), (0o077, 0o700, 0o600)])
def test_a_file_that_its_owner_may_execute_comes_back_so_by_the_umask_and_with_no_other_rights(
    target: Hub, source: Path, staging: Staging, tmp_path: Path, mask: int, executable: int, ordinary: int
) -> None:
    set_modes(source, EXECUTABLE)
    publish(target, source, staging)
    with umask(mask):
        assert not back(target, tmp_path / "back").failures
    assert files(tmp_path / "back") == files(source)
    assert modes_of(tmp_path / "back") == {path: executable if path in EXECUTABLE else ordinary for path in CONTENTS}


def test_where_no_file_is_executable_record_and_index_say_nothing_of_modes(
    target: Hub, source: Path, staging: Staging
) -> None:
    commit = publish(target, source, staging)
    assert b"mode" not in (target.read(RECORD, commit) or b"mode") + (target.read(INDEX, commit) or b"mode")


def test_a_mode_is_in_no_digest_so_no_shard_is_another_one_for_it(source: Path) -> None:
    before = plan(load(source), {})
    set_modes(source, EXECUTABLE)
    assert [one.digest for one in plan(load(source), {})] == [one.digest for one in before]


@pytest.mark.parametrize("mode", ["644", "4755", "", 755, 493, None, ["755"]])
def test_another_mode_in_the_record_makes_no_line_unreadable_and_no_file_executable(mode: object) -> None:
    one = {"path": T1W, "size": 1, "sha256": "0" * 64, "mode": mode}
    shard = {"path": "data/sub-01/sub-01.parquet", "digest": "0" * 64, "sha256": "0" * 64, "size": 1, "rows": 1}
    index = {"layout": 2, "texts": [{**one, "path": "bids/README"}]}
    lines = json.dumps({**shard, "images": [one]}).encode()
    record, damaged = PublicationRecord.read(lines, json.dumps(index).encode())
    assert not damaged
    assert [image.mode for image in record.shards[shard["path"]].images] == [""]
    assert record.texts["bids/README"].mode == ""


def test_what_is_not_fetched_keeps_the_mode_that_is_published(source: Path) -> None:
    (source / T1W).unlink()
    (source / T1W).symlink_to("../../.git/annex/objects/Xx/Yy/MD5E-s352--0/MD5E-s352--0")
    dataset = load(source)
    record = record_of(dataset, {T1W, SIDECAR})
    assert executable_files(dataset, record) == {T1W}
    assert changed_modes(dataset, record) == (SIDECAR,)


@pytest.mark.parametrize("mode", [0o444, 0o555])
def test_a_file_in_git_annex_is_executable_if_its_object_is_and_not_since_a_link_is(source: Path, mode: int) -> None:
    key = source / ".git/annex/objects/Xx/Yy/MD5E-s10--0/MD5E-s10--0"
    key.parent.mkdir(parents=True)
    (source / SCRIPT).rename(key)
    key.chmod(mode)
    (source / SCRIPT).symlink_to(Path("..") / key.relative_to(source))
    assert executable_files(load(source), PublicationRecord()) == ({SCRIPT} if mode & 0o100 else set())


def test_on_a_disk_without_modes_those_that_are_published_stay_and_it_is_said(source: Path) -> None:
    record = record_of(load(source), {SCRIPT, SIDECAR})
    set_modes(source, dict.fromkeys(CONTENTS, 0o777))
    dataset = load(source)
    assert executable_files(dataset, record) == {SCRIPT, SIDECAR}
    assert not changed_modes(dataset, record)
    assert not other_modes(plan(dataset, {}), record, executable_files(dataset, record))
    assert any("FAT, NTFS, CIFS" in sentence for sentence in dataset.told)


def test_a_shard_whose_modes_are_in_the_record_is_verified_by_its_receipt_which_has_none(
    target: Hub, source: Path, staging: Staging
) -> None:
    set_modes(source, EXECUTABLE)
    commit = publish(target, source, staging)
    record = read_remote(target, commit).record
    receipts = staging.receipts()
    assert any(record.shards[one.path] != one.line() for one in receipts)
    assert not verify(
        target, [one.line() for one in receipts], "listing", Reading(Round(datetime.now(UTC), nights=30))
    ).failures


# Whole runs.


@pytest.fixture
def hub(prefect_server: Any, counted_by_flows: Hub) -> Hub:
    return counted_by_flows


def push(source: Path, hub: Hub, root: Path, **parameters: Any) -> State[Any]:
    return push_bids(
        source, hub.target.repo_id, defacing="no faces", staging_root=root, return_state=True, **parameters
    )


def published_modes(hub: Hub) -> set[str]:
    record = read_remote(hub).record
    rows = {image.path for line in record.shards.values() for image in line.images if image.mode}
    return rows | {path.removeprefix("bids/") for path, text in record.texts.items() if text.mode}


def commits(hub: Hub) -> int:
    return len(hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset"))


def test_a_mode_alone_is_published_by_one_commit_without_a_shard_and_the_night_after_it_is_idle(
    server: CountedHub, hub: Hub, source: Path, root: Path, tmp_path: Path
) -> None:
    push(source, hub, root)
    before, made, since = hub.listing(hub.head()).files, commits(hub), len(server.asked())
    for modes, executable in (
        (EXECUTABLE, {*EXECUTABLE}),
        ({T1W: 0o644, SCRIPT: 0o644}, {*EXECUTABLE} - {T1W, SCRIPT}),
    ):
        set_modes(source, modes)
        foretold = push(source, hub, root, dry_run=True)
        state = push(source, hub, root)
        made += 1
        assert foretold.name == "DryRun" and "the modes of" in (state.message or ""), state.message
        assert published_modes(hub) == executable and commits(hub) == made
        assert push(source, hub, root).name == "NothingToPublish" and commits(hub) == made
    after = hub.listing(hub.head()).files
    assert {path for path in after if after[path] != before.get(path)} == {RECORD, INDEX}
    assert after.keys() == before.keys() and server.content_received(since) == 0


def test_a_shard_that_is_sent_anyway_brings_the_modes_of_its_files(hub: Hub, source: Path, root: Path) -> None:
    push(source, hub, root)
    set_modes(source, EXECUTABLE)
    (source / SIDECAR).write_text('{"EchoTime": 0.04}')
    made = commits(hub)
    push(source, hub, root)
    assert published_modes(hub) == {*EXECUTABLE} and commits(hub) == made + 1
    assert push(source, hub, root).name == "NothingToPublish"


def test_modes_that_changed_while_somebody_else_committed_are_published_on_top_of_theirs(
    hub: Hub, source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(source, hub, root)
    set_modes(source, EXECUTABLE)
    send = Hub.commit

    def after_theirs(self: Hub, *arguments: Any) -> str:
        monkeypatch.setattr(Hub, "commit", send)
        theirs = CommitOperationAdd("theirs.txt", b"by somebody else\n")
        self.api.create_commit(self.target.repo_id, [theirs], commit_message="theirs", repo_type="dataset")
        return send(self, *arguments)

    monkeypatch.setattr(Hub, "commit", after_theirs)
    push(source, hub, root)
    assert published_modes(hub) == {*EXECUTABLE} and "theirs.txt" in hub.listing(hub.head()).files


def test_a_file_that_was_there_stays_as_it_is_and_the_state_says_that_it_is_not_executable(
    hub: Hub, source: Path, root: Path, tmp_path: Path
) -> None:
    set_modes(source, EXECUTABLE)
    push(source, hub, root)
    into = Path(shutil.copytree(source, tmp_path / "back"))
    set_modes(into, dict.fromkeys(CONTENTS, 0o640))
    (into / MEG4).unlink()
    state = restore_bids(hub.target.repo_id, str(into), return_state=True)
    assert state.name == "Restored" and "4 files (README, " in (state.message or ""), state.message
    assert modes_of(into) == {path: 0o755 if path == MEG4 else 0o640 for path in CONTENTS}
