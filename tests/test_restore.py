"""What a restore brings back from the Hub, and what it leaves alone: on a real local Hub and a real Prefect server."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from threading import Barrier, Event
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner
from huggingface_hub import CommitOperationAdd
from prefect.client.schemas.objects import State

from deployments.commands import bids_push
from deployments.local_stack import REPO
from flows.restore_bids import restore_bids
from tasks.disk.staging import DiskFull, Staging, Target
from tasks.hub import remote_file
from tasks.hub.client import Hub
from tasks.load import load
from tasks.record.remote import RECORD, read_remote
from tasks.restore import shard as shards_of
from tasks.restore.pages import NotOfOurs
from tasks.restore.target_folder import TEMPORARY
from tests.counted_hub import CountedHub
from tests.figures import artifacts
from tests.recorded_dataset import EEG, EMPTY, INNER, MEG4, OTHER_EEG, PHYSIO, RECORDED, with_recordings
from tests.way_back import RESTORE, files, publish

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture(scope="module")
def published(server: CountedHub, token: str, bids: Path, tmp_path_factory: pytest.TempPathFactory) -> Hub:
    """The tests' dataset on a Hub that counts. No test may change it."""
    hub = Hub(Target(server.endpoint, "lab/published"), token)
    hub.prepare(private=True)
    publish(hub, bids, Staging(tmp_path_factory.mktemp("staging") / "target"))
    return hub


@pytest.fixture
def hub(published: Hub, counted_by_flows: Hub) -> Hub:
    """The same, and the flows take its Hub for the only one."""
    return published


@pytest.fixture
def own(counted_by_flows: Hub) -> Hub:
    """A repo of its own, with nothing in it."""
    counted_by_flows.prepare(private=True)
    return counted_by_flows


@pytest.fixture
def into(tmp_path: Path) -> Path:
    return tmp_path / "back"


@pytest.fixture
def streamed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Shards as small as the tests' are fetched as large ones are."""
    monkeypatch.setattr(remote_file, "TAIL", 64 << 10)  # what pyarrow reads for the footer
    monkeypatch.setattr(remote_file, "BLOCK", 1)
    monkeypatch.setattr(shards_of, "GAP", 0)


def restore(hub: Hub, into: Path, **parameters: Any) -> State[Any]:
    return restore_bids(hub.target.repo_id, str(into), return_state=True, **parameters)


def name_of(state: State[Any]) -> str:
    assert state.type.value == ("COMPLETED" if state.name == "Restored" else "FAILED"), state.message
    return state.name or ""


def published_of(bids: Path) -> dict[str, bytes]:
    """The rows and texts of a dataset, which are what is published as files."""
    dataset = load(bids)
    return {path: (bids / path).read_bytes() for path in [*(one.path for one in dataset.rows), *dataset.texts]}


def not_restored(state: State[Any]) -> dict[str, str]:
    """The files that the run could not restore, and why, as its artifact has them."""
    return {row["file"]: row["why"] for row in json.loads(artifacts(state)["not-restored"])}


def fetched(server: CountedHub, since: int) -> int:
    """Bytes of shards that the Hub has sent."""
    return sum(one.sent for one in server.asked(since) if "/data/" in one.path)


@pytest.mark.parametrize("large", [False, True])
def test_every_file_that_is_published_comes_back_with_its_bytes(
    hub: Hub, bids: Path, into: Path, large: bool, request: pytest.FixtureRequest
) -> None:
    if large:
        request.getfixturevalue("streamed")
    state = restore(hub, into)
    assert name_of(state) == "Restored"
    assert files(into) == published_of(bids)
    assert any(path.endswith("_bold.json") for path in files(into)) and any(into.rglob("*.bvec"))
    assert "bids/left_out.tsv" in (state.message or "") and "0.8" not in (state.message or "")


def test_what_is_there_is_not_fetched_again(hub: Hub, server: CountedHub, bids: Path, into: Path) -> None:
    restore(hub, into)
    since = len(server.asked())
    state = restore(hub, into)
    assert name_of(state) == "Restored" and ": 0 files (0 bytes) restored now" in (state.message or "")
    assert fetched(server, since) == 0 and not [
        one for one in server.asked(since) if one.path.endswith("participants.tsv")
    ]

    gone = sorted(into.rglob("*_T1w.nii.gz"))[0]
    gone.unlink()
    since = len(server.asked())
    assert name_of(restore(hub, into)) == "Restored"
    assert len([one for one in server.asked(since) if "/data/" in one.path]) == 1
    assert files(into) == published_of(bids)


@pytest.mark.usefixtures("streamed")
def test_of_a_large_shard_only_what_is_missing_is_fetched(hub: Hub, server: CountedHub, bids: Path, into: Path) -> None:
    restore(hub, into)
    gone = max((path for path in into.rglob("*.nii.gz")), key=lambda path: path.stat().st_size)
    gone.unlink()
    since = len(server.asked())
    assert name_of(restore(hub, into)) == "Restored"
    size = (bids / gone.relative_to(into)).stat().st_size
    assert size <= fetched(server, since) <= size + remote_file.TAIL
    assert files(into) == published_of(bids)


def test_a_file_of_yours_with_other_bytes_stays_and_is_named_and_the_others_come(
    hub: Hub, bids: Path, into: Path
) -> None:
    wanted = published_of(bids)
    image, text = next(path for path in wanted if path.endswith("_T1w.nii.gz")), "dataset_description.json"
    same_size = b"x" * len(wanted[text])
    for path, mine in ((image, b"mine"), (text, same_size), ("notes/own.txt", b"own")):
        (into / path).parent.mkdir(parents=True, exist_ok=True)
        (into / path).write_bytes(mine)
    state = restore(hub, into)
    assert name_of(state) == "NotAllRestored"
    assert "2 files could not be restored" in (state.message or "")
    assert f"  {image}: a file with other bytes is there already" in (state.message or "")
    assert files(into) == {**wanted, image: b"mine", text: same_size, "notes/own.txt": b"own"}
    assert set(not_restored(state)) == {image, text}


def test_no_link_is_followed_out_of_the_folder(hub: Hub, bids: Path, into: Path, tmp_path: Path) -> None:
    outside, subject = tmp_path / "outside", sorted(bids.glob("sub-*"))[0].name
    outside.mkdir()
    (outside / "theirs").write_text("theirs")
    into.mkdir()
    (into / subject).symlink_to(outside)
    (into / "participants.tsv").symlink_to(outside / "theirs")
    (into / "dataset_description.json").symlink_to(outside / "not-there")
    state = restore(hub, into)
    assert name_of(state) == "NotAllRestored"
    assert files(outside) == {"theirs": b"theirs"}
    assert f"{subject} is a link or a file, and no folder" in (state.message or "")
    wanted = published_of(bids)
    left = {path for path in wanted if path.split("/")[0] in (subject, "participants.tsv", "dataset_description.json")}
    assert files(into) == {path: data for path, data in wanted.items() if path not in left}


def test_the_folder_itself_may_be_a_link(hub: Hub, bids: Path, into: Path, tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    into.symlink_to(tmp_path / "disk")
    assert name_of(restore(hub, into)) == "Restored"
    assert files(tmp_path / "disk") == published_of(bids)


def test_what_a_forged_record_says_reaches_no_other_place(
    own: Hub, bids: Path, into: Path, tmp_path: Path, staging: Staging
) -> None:
    before = publish(own, bids, staging)
    lines = [json.loads(line) for line in (own.read(RECORD, own.head()) or b"").splitlines()]
    forged = ["../evil.nii", "/tmp/bids-push-evil.nii", "sub-1/../../evil", ".git/hooks/post-checkout", "a//b", "a\nb"]
    lines.sort(key=lambda line: -len(line["images"]))
    images = lines[0]["images"]
    earlier, later, other, huge = (line["images"][0] for line in sorted(lines[1:5], key=lambda line: str(line["path"])))
    assert len(images) > len(forged)
    renamed = [image["path"] for image in (*images[: len(forged)], later)]
    for image, path in zip(images, forged, strict=False):
        image["path"] = path
    later["path"] = earlier["path"]  # two files want one path: the first has it
    other["sha256"] = "0" * 64
    huge["size"] = 1 << 59
    text = b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    own.commit([CommitOperationAdd(RECORD, text)], "By hand", own.head())

    state = restore(own, into)

    assert name_of(state) == "NotAllRestored"
    named = not_restored(state)
    assert {*forged, earlier["path"], other["path"], huge["path"], "the publication record"} == named.keys()
    assert "its lines were edited" in named["the publication record"]
    message = state.message or ""
    assert message.startswith(f"{len(named) - 1} files could not be restored. ")  # the record is none
    assert "Somebody has edited the publication record" in message and f"restore commit {before}" in message
    assert "have push-bids started once" in message
    assert name_of(restore(own, into.with_name("before"), revision=before)) == "Restored"
    assert files(into.with_name("before")) == published_of(bids)
    assert "another file of the repo has this path too" in named[earlier["path"]]
    assert "leads out" in named["../evil.nii"] and "git's own" in named[forged[3]]
    assert "larger than its shard" in named[huge["path"]]
    assert "has another size or sha256" in named[other["path"]]
    came, wanted = files(into), published_of(bids)
    assert came == {path: data for path, data in wanted.items() if path not in {*renamed, other["path"], huge["path"]}}
    assert [path for path in tmp_path.iterdir() if "evil" in path.name] == []
    assert not Path("/tmp/bids-push-evil.nii").exists()


def test_a_part_comes_by_subject_session_and_datatype_with_the_files_of_the_root(
    hub: Hub, bids: Path, into: Path
) -> None:
    dataset, wanted = load(bids), published_of(bids)
    one = next(image for image in dataset.images if image.datatype == "anat" and image.dataset == "raw")
    parameters = {"subjects": [f"sub-{one.sub}"], "sessions": [one.ses], "datatypes": ["anat"]}
    assert name_of(restore(hub, into, **parameters)) == "Restored"
    mine = {i.path for i in dataset.rows if (i.sub, i.ses, i.datatype) == (one.sub, one.ses, "anat")}
    assert mine and set(files(into)) == mine | set(dataset.texts)
    assert name_of(restore(hub, into, subjects=[str(one.sub)])) == "Restored"
    assert set(files(into)) == {i.path for i in dataset.rows if i.sub == one.sub} | set(dataset.texts)
    assert files(into).items() <= wanted.items()


def test_a_part_comes_by_patterns_from_the_flow_and_from_the_command_line(hub: Hub, bids: Path, into: Path) -> None:
    dataset = load(bids)
    one = next(row.path for row in dataset.rows if row.suffix == "bold" and row.kind == "image")
    assert name_of(restore(hub, into, paths=["*_bold.*", "!*.json", "!derivatives/"])) == "Restored"
    assert set(files(into)) == {row.path for row in dataset.images if row.suffix == "bold"} | set(dataset.texts)
    shutil.rmtree(into)
    done = CliRunner().invoke(bids_push, ["restore", hub.target.repo_id, str(into), "--path", one, "--path", "*.bval"])
    assert done.exit_code == 0, done.output
    found = {row.path for row in dataset.rows if row.path == one or row.path.endswith(".bval")}
    assert set(files(into)) == found | set(dataset.texts)


@pytest.mark.parametrize("large", [False, True])
def test_recordings_come_back_with_their_bytes_the_empty_file_of_a_folder_too(
    own: Hub, into: Path, tmp_path: Path, staging: Staging, request: pytest.FixtureRequest, large: bool
) -> None:
    if large:
        request.getfixturevalue("streamed")
    source = with_recordings(tmp_path / "recorded")
    publish(own, source, staging)
    state = restore(own, into)
    assert name_of(state) == "Restored" and files(into) == published_of(source)
    assert files(into).keys() >= {*RECORDED} and files(into)[EMPTY] == b""
    again = restore(own, into)
    assert name_of(again) == "Restored" and "0 files (0 bytes) restored now" in str(again.message)


BESIDE_EEG = {EEG.replace("_eeg.edf", "_eeg.json"), EEG.replace("_eeg.edf", "_channels.tsv")}
OF_FUNC = {PHYSIO, PHYSIO.replace(".tsv.gz", ".json"), PHYSIO.replace("_physio.tsv.gz", "_bold.nii.gz")}


@pytest.mark.parametrize(
    ("parameters", "wanted"),
    [
        ({"subjects": ["02"], "datatypes": ["meg"]}, {MEG4, EMPTY, INNER}),
        ({"datatypes": ["meg", "eeg"]}, {MEG4, EMPTY, INNER, EEG, *BESIDE_EEG, OTHER_EEG}),
        ({"sessions": ["a"], "datatypes": ["eeg"]}, {EEG, *BESIDE_EEG}),
        ({"sessions": ["a"], "datatypes": ["func"]}, OF_FUNC),
    ],
)
def test_a_part_takes_recordings_by_their_labels_and_files_within_a_folder_by_that_folders(
    own: Hub, into: Path, tmp_path: Path, staging: Staging, parameters: dict[str, list[str]], wanted: set[str]
) -> None:
    source = with_recordings(tmp_path / "recorded")
    publish(own, source, staging)
    assert name_of(restore(own, into, **parameters)) == "Restored"
    assert files(into).keys() - load(source).texts.keys() == wanted
    nothing = restore(own, into, datatypes=["dwi"])
    assert "has no file of 'dwi'" in str(nothing.message)


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"subjects": ["M2O12"]}, "The nearest one is 'M2012'"),
        ({"datatypes": ["fnuc"]}, "The nearest one is 'func'"),
        ({"sessions": ["ses-99999"]}, "The nearest one is"),
        ({"subjects": ["M2012"], "sessions": ["2085"]}, "all of these at once"),
        ({"subjects": ["M2012"], "paths": ["*_ses-2085_*"]}, "subjects and paths: "),
        ({"paths": ["*_bold.json", "sub-M2O12/"]}, "no file that 'sub-M2O12/' matches"),
        ({"paths": ["sub-M2O12/"]}, "The nearest path is 'sub-M2012'"),
        ({"paths": ["!*.json"]}, "only take files out again"),
        ({"paths": ["../x"]}, "leads out of the dataset"),
        ({"paths": [" "]}, "it is empty"),
    ],
)
def test_a_part_that_is_nothing_is_told_before_anything_is_written(
    hub: Hub, into: Path, parameters: dict[str, list[str]], said: str
) -> None:
    state = restore(hub, into, **parameters)
    assert name_of(state) == "BadInput" and said in (state.message or ""), state.message
    assert not into.exists()


def test_any_revision_comes_back_as_it_was(own: Hub, own_bids: Path, tmp_path: Path, staging: Staging) -> None:
    first = publish(own, own_bids, staging)
    before = published_of(own_bids)
    own.api.create_tag(own.target.repo_id, repo_type="dataset", tag="v1.0", revision=first)
    one, other = sorted(own_bids.rglob("*_T1w.nii.gz"))[:2]
    shutil.copyfile(other, one)
    publish(own, own_bids, staging)
    for revision in (first, "v1.0"):
        assert name_of(restore(own, tmp_path / revision, revision=revision)) == "Restored"
        assert files(tmp_path / revision) == before
    assert name_of(restore(own, tmp_path / "now")) == "Restored"
    assert files(tmp_path / "now") == published_of(own_bids) != before


def test_a_reader_needs_a_token_for_a_private_repo_and_none_for_a_public_one(
    own: Hub, server: CountedHub, bids: Path, into: Path, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(own, bids, staging)
    monkeypatch.delenv("HF_TOKEN")
    state = restore(own, into)
    assert name_of(state) == "NoToken" and "HF_TOKEN" in (state.message or "") and "`read`" in (state.message or "")
    monkeypatch.setenv("HF_TOKEN", server.token("lab", "read"))
    assert name_of(restore(own, into)) == "Restored"
    monkeypatch.delenv("HF_TOKEN")
    own.api.update_repo_settings(own.target.repo_id, repo_type="dataset", private=False)
    shutil.rmtree(into)
    assert name_of(restore(own, into)) == "Restored"
    assert files(into) == published_of(bids)


def test_a_repo_that_is_missing_is_no_dataset_or_has_no_such_revision_is_told(own: Hub, into: Path) -> None:
    assert name_of(restore(own, into)) == "NothingPublished"
    missing = restore(own, into, revision="v9")
    assert name_of(missing) == "RepoMissing" and "revision" in (missing.message or "")
    assert restore_bids("lab/no-such-repo", str(into), return_state=True).name == "RepoMissing"
    assert restore_bids("no-repo", str(into), return_state=True).name == "BadInput"
    assert not into.exists()


@pytest.mark.usefixtures("streamed")
def test_a_shard_that_the_hub_sends_damaged_costs_its_own_files_and_the_next_run_has_them(
    hub: Hub, server: CountedHub, bids: Path, into: Path
) -> None:
    server.break_on({"fault": "other_bytes", "path": "/resolve/.*/data/", "times": -1})
    state = restore(hub, into)
    server.break_on()
    assert name_of(state) == "NotAllRestored" and "the Hub sends other bytes" in (state.message or "")
    came, wanted = files(into), published_of(bids)
    assert came.items() <= wanted.items() and came.keys() < wanted.keys()
    assert not_restored(state).keys() == wanted.keys() - came.keys()
    assert name_of(restore(hub, into)) == "Restored"
    assert files(into) == wanted


def test_one_image_that_is_sent_damaged_is_named_and_those_beside_it_come(
    own: Hub, bids: Path, into: Path, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(own, bids, staging)
    (line, *_) = read_remote(own).record.shards.values()
    whole = Hub.stream

    def damaged(self: Hub, path: str, commit: str, start: int, size: int) -> Iterator[bytes]:
        data = bytearray(b"".join(whole(self, path, commit, start, size)))
        if path == line.path and start <= 10_000 < start + size:
            data[10_000 - start] ^= 1
        yield bytes(data)

    monkeypatch.setattr(Hub, "stream", damaged)
    state = restore(own, into)
    assert name_of(state) == "NotAllRestored"
    ((damaged_file, why),) = not_restored(state).items()
    assert "the Hub sends other bytes than were published" in why
    assert files(into) == {path: data for path, data in published_of(bids).items() if path != damaged_file}


def test_a_shard_that_is_gone_from_the_repo_costs_its_own_files(
    own: Hub, bids: Path, into: Path, staging: Staging
) -> None:
    publish(own, bids, staging)
    (line, *_) = read_remote(own).record.shards.values()
    own.api.delete_file(line.path, own.target.repo_id, repo_type="dataset")
    state = restore(own, into)
    assert name_of(state) == "NotAllRestored" and "not in the repo at this commit" in (state.message or "")
    lost = {image.path for image in line.images}
    assert files(into) == {path: data for path, data in published_of(bids).items() if path not in lost}


@pytest.mark.parametrize(
    ("error", "state_name", "said"),
    [
        (NotOfOurs("planted in the test"), "NotAllRestored", "planted in the test"),
        (OSError(errno.EIO, "planted in the test"), "NotAllRestored", "refuses to read or write it: planted"),
        (DiskFull("planted in the test"), "DiskFull", "planted in the test"),
    ],
)
def test_of_two_shards_that_are_restored_at_once_one_fails_in_the_middle_and_the_other_is_whole(
    hub: Hub, bids: Path, into: Path, error: Exception, state_name: str, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = read_remote(hub).record.shards
    fails, goes_on = sorted(lines)[:2]
    together, failed, contents = Barrier(2, timeout=120), Event(), shards_of.RemoteShard.contents

    def one_of_two(self: shards_of.RemoteShard, rows: Iterable[shards_of.Row]) -> Iterator[Any]:
        found = contents(self, rows)
        if self.shard.path in (fails, goes_on):
            together.wait()
            yield next(found)
        if self.shard.path == fails:
            failed.set()
            raise error
        if self.shard.path == goes_on:
            assert failed.wait(120)  # it goes on after the other has failed
        yield from found

    monkeypatch.setattr(shards_of.RemoteShard, "contents", one_of_two)
    state = restore(hub, into)
    came, there = files(into), published_of(bids)
    assert name_of(state) == state_name and said in (state.message or ""), state.message
    assert {image.path for image in lines[goes_on].images} <= came.keys()
    assert came.items() <= there.items()
    if state_name == "NotAllRestored":
        assert not_restored(state).keys() == there.keys() - came.keys() <= {one.path for one in lines[fails].images}
        assert not_restored(state)

    monkeypatch.setattr(shards_of.RemoteShard, "contents", contents)
    assert name_of(restore(hub, into)) == "Restored" and files(into) == there


@pytest.mark.usefixtures("streamed")
def test_a_hub_that_stops_in_the_middle_is_asked_again_and_what_came_stays(
    hub: Hub, server: CountedHub, bids: Path, into: Path
) -> None:
    server.break_on({"fault": "cut_response", "path": "/resolve/.*/data/", "after": 6, "times": 1, "bytes": 3000})
    state = restore(hub, into)
    assert server.broken == 1
    assert name_of(state) == "Restored", state.message
    assert files(into) == published_of(bids)


def test_a_busy_hub_is_waited_for(hub: Hub, server: CountedHub, into: Path) -> None:
    server.break_on({"fault": "status", "path": "/resolve/.*/data/", "times": 2, "status": 429, "retry_after": 1})
    assert name_of(restore(hub, into)) == "Restored" and server.broken == 2


def test_a_disk_without_room_is_told_before_anything_is_written(
    hub: Hub, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=1_000_000))
    state = restore(hub, into)
    assert name_of(state) == "DiskFull" and "1.0 MB free" in (state.message or "")
    assert files(into) == {}


def test_a_folder_that_cannot_be_made_is_told(hub: Hub, into: Path) -> None:
    into.write_text("a file")
    state = restore(hub, into)
    assert name_of(state) == "CannotWrite" and str(into) in (state.message or "")


def test_where_there_are_no_hard_links_a_file_gets_its_name_all_the_same_and_replaces_none(
    hub: Hub, bids: Path, into: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*arguments: object, **named: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refused)
    assert name_of(restore(hub, into)) == "Restored"
    assert files(into) == published_of(bids)


@pytest.mark.slow
def test_killed_at_any_instant_it_goes_on_and_leaves_nothing_half(
    hub: Hub, server: CountedHub, bids: Path, into: Path
) -> None:
    wanted, dice = published_of(bids), random.Random(13)
    server.break_on({"fault": "slow", "path": "/resolve/.*/data/", "times": -1, "delay": 0.1})
    for _ in range(6):
        command = [*RESTORE, hub.target.endpoint, hub.target.repo_id, hub.token, str(into)]
        with subprocess.Popen(command, cwd=REPO, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None and process.stdout.readline() == "begins\n"
            time.sleep(dice.uniform(0, 0.8))
            process.send_signal(signal.SIGKILL)
        there = files(into)
        parts = {path for path in there if TEMPORARY.fullmatch(Path(path).name)}
        assert {path: data for path, data in there.items() if path not in parts}.items() <= wanted.items()
    server.break_on()
    (into / "sub-M2012").mkdir(parents=True, exist_ok=True)  # each may have died before it made one
    (into / ".bids-push-0123456789abcdef.part").write_bytes(b"a leftover, whenever it was that the others died")
    state = restore(hub, into)
    assert name_of(state) == "Restored"
    assert files(into) == wanted
