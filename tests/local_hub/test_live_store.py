"""A store that is kept well while people write to it: `check` and `backup` beside eight writers."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from tests.local_hub.conftest import travel_by
from tests.local_hub.running import PROJECT, SERVER, RunningHub

WRITERS = 8
DAY = 24 * 3600.0


@dataclass
class Acknowledged:
    """What the Hub said yes to: each commit with its repo, and the digest of the file that it brought."""

    commits: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Repo, commit, path, sha256."""


@contextmanager
def writing(hub: RunningHub, token: str) -> Iterator[Acknowledged]:
    """Eight people commit while the block lasts; two of them delete branches and repos again."""
    done = threading.Event()
    told = Acknowledged()

    def write(writer: int) -> None:
        api = HfApi(hub.endpoint, token=token)
        repo = f"alice/scans-{writer // 2}"  # two write to one repo
        for number in range(100_000):
            if done.is_set():
                return
            data = os.urandom(40_000)
            path = f"sub-{writer}/{number % 7}/{number}.bin"

            def added(path: str = path, data: bytes = data) -> list[CommitOperationAdd]:
                return [CommitOperationAdd(path, data), CommitOperationAdd(f"{path}.json", path.encode())]

            made = api.create_commit(repo, added(), commit_message=f"{number}", repo_type="dataset")
            told.commits.append((repo, made.oid, path, hashlib.sha256(data).hexdigest()))
            if writer == 0:
                api.create_branch(repo, branch=f"b{number}", repo_type="dataset")
                api.delete_branch(repo, branch=f"b{number}", repo_type="dataset")
            elif writer == 1:
                passing = f"alice/passing-{number}"
                api.create_repo(passing, repo_type="dataset")
                api.create_commit(passing, added(), commit_message="passing", repo_type="dataset")
                api.delete_repo(passing, repo_type="dataset")

    first = HfApi(hub.endpoint, token=token)
    for number in range(WRITERS // 2):
        first.create_repo(f"alice/scans-{number}", repo_type="dataset", exist_ok=True)
    writers = [threading.Thread(target=write, args=(writer,)) for writer in range(WRITERS)]
    for thread in writers:
        thread.start()
    try:
        yield told
    finally:
        done.set()
        for thread in writers:
            thread.join()


@pytest.mark.parametrize("way", ["lfs", "xet"])
def test_check_beside_eight_writers_gives_no_false_alarm_and_names_all_damage(
    fresh: RunningHub, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    travel_by(way, monkeypatch)
    with fresh as hub:
        token = hub.token("alice")
        with writing(hub, token) as told:
            for _ in range(3):
                before = len(told.commits)
                assert hub.check() == (0, "")
                while len(told.commits) < before + 5:
                    time.sleep(0.01)
            folder = "content" if way == "lfs" else "xorbs"
            damaged, missing, *_ = sorted((hub.root / folder).glob("*/*"), key=lambda path: path.stat().st_mtime)
            damaged.write_bytes(damaged.read_bytes()[:-1] + b"\xff")
            missing.unlink()
            status, found = hub.check()
        assert status == 1
        lines = found.splitlines()
        assert {path.name for path in (damaged, missing)} == {
            path.name for path in (damaged, missing) if any(path.name in line for line in lines)
        }
        assert all(damaged.name in line or missing.name in line or "file" in line for line in lines), found


def backup(root: Path, target: Path) -> subprocess.Popen[str]:
    command = [*SERVER, "backup", str(target), "--root", str(root)]
    return subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def holds(target: Path, acknowledged: list[tuple[str, str, str, str]]) -> None:
    """The copy is whole, and served it gives each of these commits with its file, byte for byte."""
    assert RunningHub(target).check() == (0, "")
    modes = {path.name: path.stat().st_mode & 0o777 for path in [target, *target.rglob("*")]}
    wrong = {name: oct(mode) for name, mode in modes.items() if mode not in (0o600, 0o700)}
    assert wrong == {}
    with RunningHub(target) as copy:
        api = HfApi(copy.endpoint, token=copy.token("alice"))
        for repo in {repo for repo, *_ in acknowledged}:
            commits = {each.commit_id for each in api.list_repo_commits(repo, repo_type="dataset")}
            assert {oid for name, oid, *_ in acknowledged if name == repo} <= commits
        for repo, oid, path, sha256 in acknowledged[:: max(len(acknowledged) // 10, 1)]:
            got = api.hf_hub_download(repo, path, repo_type="dataset", revision=oid, local_dir=target.parent / "got")
            assert hashlib.sha256(Path(got).read_bytes()).hexdigest() == sha256


@pytest.mark.parametrize("way", ["lfs", "xet"])
def test_a_backup_beside_eight_writers_killed_again_and_again_has_every_commit_of_before_it_began(
    fresh: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    travel_by(way, monkeypatch)
    target = tmp_path / "copies" / "hub"
    with fresh as hub:
        token = hub.token("alice")
        with writing(hub, token) as told:
            copied, whole = False, list[tuple[str, str, str, str]]()
            for files in (0, 3, 8, 20):  # killed when the copy has so many more files, and before it has any
                have, acknowledged = set(target.glob("*/*/*")), list(told.commits)
                running = backup(hub.root, target)
                while running.poll() is None and len(set(target.glob("*/*/*")) - have) < files:
                    time.sleep(0.002)
                running.send_signal(signal.SIGKILL)
                running.communicate()
                if running.returncode == 0:  # it was through before it was killed
                    copied, whole = True, acknowledged
                # what it was before: no Hub, or a whole one
                assert RunningHub(target).check()[0] == (0 if copied else 2)
                if files == 8:
                    copied, whole = True, list(told.commits)
                    said, _ = (done := backup(hub.root, target)).communicate()
                    assert done.returncode == 0, said
            last = list(told.commits)
            assert len(last) > len(whole) > 0
            said, _ = (done := backup(hub.root, target)).communicate()
            assert done.returncode == 0, said
        assert hub.process is not None and hub.process.poll() is None
    holds(target, last)


def test_a_second_backup_copies_only_what_is_new_and_none_writes_over_what_is_no_copy(
    fresh: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    travel_by("lfs", monkeypatch)
    target, other = tmp_path / "copy", tmp_path / "other"
    with fresh as hub:
        api = HfApi(hub.endpoint, token=hub.token("alice"))
        api.create_repo("alice/scans", repo_type="dataset")

        def publish(name: str) -> None:
            content = os.urandom(50_000)
            api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id="alice/scans", repo_type="dataset")

        publish("a.bin")
        assert "1 file (50.0 kB) new, 0 files (0 B) as before" in hub.command("backup", str(target))
        publish("b.bin")
        assert "1 file (50.0 kB) new, 1 file (50.0 kB) as before" in hub.command("backup", str(target))
        assert "0 files (0 B) new, 2 files (100.0 kB) as before" in hub.command("backup", str(target))

        with RunningHub(target):
            assert "was served since" in refused(hub, target)
        assert "was served since" in refused(hub, target)
        RunningHub(other).token("bob")
        assert "another store" in refused(hub, other)
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine" / "notes.txt").write_text("mine")
        assert "notes.txt" in refused(hub, tmp_path / "mine")
        assert [path.name for path in (tmp_path / "mine").iterdir()] == ["notes.txt"]
        for within in (hub.root / "copy", hub.root, hub.root.parent):
            assert "lie in each other" in refused(hub, within)
        assert hub.check() == (0, "")


def refused(hub: RunningHub, target: Path) -> str:
    """The sentence with which a backup is refused."""
    running = backup(hub.root, target)
    said, _ = running.communicate()
    assert running.returncode == 1 and "Traceback" not in said, said
    return said


def test_a_backup_names_what_the_store_has_not_whole_and_keeps_the_copy_of_it_that_is(
    fresh: RunningHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    travel_by("lfs", monkeypatch)
    with fresh as hub:
        api = HfApi(hub.endpoint, token=hub.token("alice"))
        api.create_repo("alice/scans", repo_type="dataset")
        contents = {name: os.urandom(50_000) for name in ("a.bin", "b.bin", "c.bin", "d.bin")}
        paths = {}
        for name, content in contents.items():
            api.upload_file(path_or_fileobj=content, path_in_repo=name, repo_id="alice/scans", repo_type="dataset")
            digest = hashlib.sha256(content).hexdigest()
            paths[name] = Path("content", digest[:2], digest)
            if name == "a.bin":
                (hub.root / paths["a.bin"]).chmod(0o644)  # of an older version, and copied, since others may open it
                hub.command("backup", str(tmp_path / "copy"))
        (hub.root / paths["a.bin"]).write_bytes(b"0" * 50_000)
        (hub.root / paths["b.bin"]).write_bytes(b"0" * 50_000)
        (hub.root / paths["c.bin"]).unlink()
        running = backup(hub.root, tmp_path / "copy")
        said, _ = running.communicate()
        assert running.returncode == 1 and "Traceback" not in said
        assert str(paths["b.bin"]) in said and str(paths["c.bin"]) in said and str(paths["d.bin"]) not in said
        assert (tmp_path / "copy" / paths["a.bin"]).read_bytes() == contents["a.bin"]
        assert not (tmp_path / "copy" / paths["b.bin"]).exists()
        assert (tmp_path / "copy" / paths["d.bin"]).read_bytes() == contents["d.bin"]
