"""What was acknowledged stays, what was not leaves nothing: killed servers, killed clients, damaged stores."""

from __future__ import annotations

import hashlib
import os
import sqlite3
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from tests.local_hub.faults import flip_byte
from tests.local_hub.running import PROJECT, SERVER, RunningHub, client_environment

COMMIT_UNTIL_KILLED = """
import hashlib, os, sys
from huggingface_hub import CommitOperationAdd, HfApi
api, number = HfApi(), 0
while True:
    content = os.urandom(300_000)
    operations = [CommitOperationAdd(f"{number}.bin", content), CommitOperationAdd(f"{number}.txt", b"%d" % number)]
    made = api.create_commit("alice/scans", operations, commit_message=f"{number}", repo_type="dataset")
    print(number, made.oid, hashlib.sha256(content).hexdigest(), flush=True)
    number += 1
"""
UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().upload_file(path_or_fileobj=sys.argv[1], path_in_repo="a.bin", repo_id="alice/scans", repo_type="dataset")
"""


def incoming(hub: RunningHub) -> list[Path]:
    return list((hub.root / "tmp").iterdir())


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_a_server_killed_again_and_again_loses_no_acknowledged_commit_and_shows_no_half_of_one(
    fresh: RunningHub, tmp_path: Path, xet: bool
) -> None:
    with fresh as hub:
        token = hub.token("alice")
        HfApi(hub.endpoint, token=token).create_repo("alice/scans", repo_type="dataset")
        acknowledged: list[list[str]] = []
        for round_number in range(3):
            environment = client_environment(hub, tmp_path / f"home-{round_number}", token, xet=xet)
            client = subprocess.Popen(
                [sys.executable, "-c", COMMIT_UNTIL_KILLED], env=environment, stdout=subprocess.PIPE, text=True,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
            assert client.stdout is not None
            for _ in range(3 + round_number):
                acknowledged.append(client.stdout.readline().split())
            time.sleep(0.013 * round_number)  # the next commit is somewhere on its way
            hub.kill()
            acknowledged += [line.split() for line in _drained(client)]
            hub.start()

            api = HfApi(hub.endpoint, token=token)
            commits = {commit.commit_id for commit in api.list_repo_commits("alice/scans", repo_type="dataset")}
            assert {oid for _, oid, _ in acknowledged} <= commits
            files = {item.path: item for item in api.list_repo_tree("alice/scans", repo_type="dataset")}
            assert {path.removesuffix(".bin") for path in files if path.endswith(".bin")} == {
                path.removesuffix(".txt") for path in files if path.endswith(".txt")
            }
            last_number, _, digest = acknowledged[-1]
            assert files[f"{last_number}.bin"].lfs.sha256 == digest or len(files) % 2 == 1
            assert not incoming(hub)
        hub.stop()
        assert hub.check() == (0, "")


def _drained(client: subprocess.Popen[str]) -> list[str]:
    timer = threading.Timer(0.5, client.kill)  # the client would try for minutes to reach the server
    timer.start()
    assert client.stdout is not None
    lines = client.stdout.readlines()
    client.wait()
    client.stdout.close()
    timer.cancel()
    return lines


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_a_client_killed_while_it_sends_leaves_nothing_and_its_next_upload_works(
    fresh: RunningHub, tmp_path: Path, xet: bool
) -> None:
    content = os.urandom(150_000_000)
    (tmp_path / "a.bin").write_bytes(content)
    with fresh as hub:
        token = hub.token("alice")
        api = HfApi(hub.endpoint, token=token)
        head = api.create_repo("alice/scans", repo_type="dataset") and api.dataset_info("alice/scans").sha
        environment = client_environment(hub, tmp_path / "home", token, xet=xet)
        client = subprocess.Popen([sys.executable, "-c", UPLOAD, str(tmp_path / "a.bin")], env=environment)
        while not incoming(hub) and client.poll() is None:
            time.sleep(0.002)
        client.kill()
        client.wait()
        deadline = time.monotonic() + 20
        while incoming(hub) and time.monotonic() < deadline:
            time.sleep(0.02)
        assert not incoming(hub)
        assert api.dataset_info("alice/scans").sha == head

        subprocess.run([sys.executable, "-c", UPLOAD, str(tmp_path / "a.bin")], env=environment, check=True)

        [info] = api.get_paths_info("alice/scans", "a.bin", repo_type="dataset")
        assert info.lfs.sha256 == hashlib.sha256(content).hexdigest()
        hub.stop()
        assert hub.check() == (0, "")


@pytest.mark.parametrize("xet", [True, False], ids=["xet", "lfs"])
def test_a_large_file_takes_little_memory_on_its_way_in_and_out(fresh: RunningHub, tmp_path: Path, xet: bool) -> None:
    with (tmp_path / "a.bin").open("wb") as file:
        for _ in range(300):
            file.write(os.urandom(1_000_000))
    download = (
        "import sys; from huggingface_hub import hf_hub_download\n"
        "hf_hub_download('alice/scans', 'a.bin', repo_type='dataset', local_dir=sys.argv[1])"
    )
    with fresh as hub:
        token = hub.token("alice")
        HfApi(hub.endpoint, token=token).create_repo("alice/scans", repo_type="dataset")
        environment = client_environment(hub, tmp_path / "home", token, xet=xet)
        subprocess.run([sys.executable, "-c", UPLOAD, str(tmp_path / "a.bin")], env=environment, check=True)
        for way in (xet, False):  # what came by Xet is also put together by the server
            environment = client_environment(hub, tmp_path / "home", token, xet=way)
            target = tmp_path / f"got-{way}"
            subprocess.run([sys.executable, "-c", download, str(target)], env=environment, check=True)
            subprocess.run(["cmp", str(tmp_path / "a.bin"), str(target / "a.bin")], check=True)
            (target / "a.bin").unlink()
        assert hub.peak_memory < 200_000_000


def test_a_hundred_megabytes_of_small_files_in_one_commit_take_little_memory(fresh: RunningHub) -> None:
    with fresh as hub:
        api = HfApi(hub.endpoint, token=hub.token("alice"))
        api.create_repo("alice/scans", repo_type="dataset")
        operations = [CommitOperationAdd(f"{number}.json", b'"%064d"' % number * 60_000) for number in range(25)]
        api.create_commit("alice/scans", operations, commit_message="large", repo_type="dataset")
        assert len(api.list_repo_files("alice/scans", repo_type="dataset")) == 26
        assert hub.peak_memory < 200_000_000


def test_a_restarted_server_answers_at_once(fresh: RunningHub) -> None:
    with fresh as hub:
        api = HfApi(hub.endpoint, token=hub.token("alice"))
        api.create_repo("alice/scans", repo_type="dataset")
        operations = [CommitOperationAdd(f"data/{number}.txt", b"%d" % number) for number in range(5000)]
        api.create_commit("alice/scans", operations, commit_message="many", repo_type="dataset")
        assert hub.stop() == 0
        hub.start()
        assert len(api.list_repo_files("alice/scans", repo_type="dataset")) == 5001
        assert hub.processor_seconds < 5  # it looks through nothing


def test_a_folder_is_served_by_one_server_alone(fresh: RunningHub) -> None:
    with fresh as hub:
        second = subprocess.run(
            [*SERVER, "serve", "--root", str(hub.root), "--port", "0"], capture_output=True, text=True, cwd=PROJECT,
            check=False,
        )  # fmt: skip
        assert second.returncode == 1
        assert "already serves" in second.stderr
        assert httpx2.get(hub.endpoint).status_code == 200


def test_two_writers_at_once_lose_no_change(fresh: RunningHub) -> None:
    with fresh as hub:
        api = HfApi(hub.endpoint, token=hub.token("alice"))
        api.create_repo("alice/scans", repo_type="dataset")

        def write(writer: int) -> None:
            for number in range(15):
                content = f"{writer} {number}".encode()
                path = f"{writer}/{number}.txt"
                api.upload_file(path_or_fileobj=content, path_in_repo=path, repo_id="alice/scans", repo_type="dataset")

        writers = [threading.Thread(target=write, args=(writer,)) for writer in range(4)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert len(api.list_repo_files("alice/scans", repo_type="dataset")) == 61
        assert len(api.list_repo_commits("alice/scans", repo_type="dataset")) == 61


def test_one_parent_is_continued_by_one_of_many_who_try(fresh: RunningHub) -> None:
    with fresh as hub:
        api = HfApi(hub.endpoint, token=hub.token("alice"))
        api.create_repo("alice/scans", repo_type="dataset")
        head = api.dataset_info("alice/scans").sha
        outcomes: list[int] = []

        def attempt(writer: int) -> None:
            try:
                api.create_commit(
                    "alice/scans", [CommitOperationAdd(f"{writer}.txt", b"x")], commit_message="race",
                    repo_type="dataset", parent_commit=head,
                )  # fmt: skip
                outcomes.append(200)
            except HfHubHTTPError as error:
                outcomes.append(error.response.status_code)

        writers = [threading.Thread(target=attempt, args=(writer,)) for writer in range(6)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join()
        assert sorted(outcomes) == [200, 412, 412, 412, 412, 412]


def test_check_names_each_kind_of_damage(fresh: RunningHub, tmp_path: Path) -> None:
    with fresh as hub:
        token = hub.token("alice")
        api = HfApi(hub.endpoint, token=token)
        api.create_repo("alice/scans", repo_type="dataset")
        contents = {"lfs.bin": os.urandom(100_000), "gone.bin": os.urandom(100_000), "xet.bin": os.urandom(100_000)}
        for name, content in contents.items():
            (tmp_path / "a.bin").write_bytes(content)
            environment = client_environment(hub, tmp_path / "home", token, xet=name == "xet.bin")
            code = UPLOAD.replace("a.bin", name)
            subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.bin")], env=environment, check=True)
        hub.stop()
    assert fresh.check() == (0, "")

    digests = {name: hashlib.sha256(content).hexdigest() for name, content in contents.items()}
    flip_byte(fresh.root, digests["lfs.bin"])
    (fresh.root / "content" / digests["gone.bin"][:2] / digests["gone.bin"]).unlink()
    xorb = flip_byte(fresh.root)
    with sqlite3.connect(fresh.root / "hub.sqlite3") as database:
        [(commit,)] = database.execute("SELECT oid FROM git_object WHERE kind = 1 LIMIT 1").fetchall()
        database.execute("UPDATE git_object SET data = ? WHERE oid = ?", (zlib.compress(b"other"), commit))

    status, found = fresh.check()

    assert status == 1
    for named in (digests["lfs.bin"], digests["gone.bin"], xorb.name, digests["xet.bin"], commit):
        assert named in found
    assert "lfs.bin" in found


def test_content_that_went_missing_is_asked_for_again(fresh: RunningHub, tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(os.urandom(100_000))
    with fresh as hub:
        token = hub.token("alice")
        HfApi(hub.endpoint, token=token).create_repo("alice/scans", repo_type="dataset")
        environment = client_environment(hub, tmp_path / "home", token, xet=False)
        for _ in range(2):
            subprocess.run([sys.executable, "-c", UPLOAD, str(tmp_path / "a.bin")], env=environment, check=True)
            [path] = (hub.root / "content").glob("*/*")
            path.unlink()


def test_what_is_stored_is_a_repository_that_git_itself_reads(fresh: RunningHub, tmp_path: Path) -> None:
    with fresh as hub:
        api = HfApi(hub.endpoint, token=hub.token("alice"))
        api.create_repo("alice/scans", repo_type="dataset")
        for number in range(3):
            operations = [CommitOperationAdd(f"sub-{number}/a b/ü-{each}.txt", b"%d" % each) for each in range(20)]
            api.create_commit("alice/scans", operations, commit_message=f"commit {number}", repo_type="dataset")
        api.create_tag("alice/scans", tag="v1", tag_message="the first", repo_type="dataset")
        head = api.dataset_info("alice/scans").sha
        hub.stop()

    target = tmp_path / "scans.git"
    done = subprocess.run(
        [*SERVER, "export", "datasets/alice/scans", str(target), "--root", str(fresh.root)], cwd=PROJECT, check=True
    )
    assert done.returncode == 0

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "--git-dir", str(target), *arguments], capture_output=True, text=True, check=True
        ).stdout

    git("fsck", "--strict", "--full")
    assert git("rev-parse", "main").strip() == head
    assert git("rev-parse", "v1^{commit}").strip() == head
    assert git("log", "--format=%s", "main").split("\n")[:3] == ["commit 2", "commit 1", "commit 0"]
    assert len(git("ls-tree", "-r", "--name-only", "main").splitlines()) == 61
