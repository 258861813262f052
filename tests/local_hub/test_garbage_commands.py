"""`gc plan` and `gc run` as people call them: asked, refused, killed at any instant; and clients that come back."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from huggingface_hub import HfApi, hf_hub_download

from tests.local_hub.running import PROJECT, SERVER, RunningHub, client_environment

LONG = 40 * 24 * 3600.0  # seconds
UPLOAD = """
import sys
from huggingface_hub import HfApi
api = HfApi()
api.create_repo(sys.argv[1], repo_type="dataset", exist_ok=True)
for path in sys.argv[2:]:
    name = path.rpartition("/")[2]
    api.upload_file(path_or_fileobj=path, path_in_repo=name, repo_id=sys.argv[1], repo_type="dataset")
"""


def age(root: Path) -> None:
    """Everything in the store was sent and promised so much earlier."""
    with closing(sqlite3.connect(root / "hub.sqlite3")) as database, database:
        database.execute("UPDATE holding SET promised = promised - ?", (LONG,))
        database.execute("UPDATE xorb SET promised = promised - ?", (LONG,))
    for path in [*root.glob("content/*/*"), *root.glob("xorbs/*/*")]:
        os.utime(path, (time.time() - LONG, time.time() - LONG))


def gc(root: Path, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
    command = [*SERVER, "gc", *arguments, "--root", str(root)]
    return subprocess.run(command, cwd=PROJECT, input=typed, capture_output=True, text=True, check=False)


def upload(hub: RunningHub, home: Path, token: str, repo: str, *paths: Path, xet: bool) -> None:
    environment = client_environment(hub, home, token, xet=xet)
    subprocess.run([sys.executable, "-c", UPLOAD, repo, *map(str, paths)], env=environment, check=True)


def files(folder: Path, count: int) -> list[Path]:
    folder.mkdir()
    for number in range(count):
        (folder / f"{number}.bin").write_bytes(os.urandom(200_000))
    return sorted(folder.iterdir())


def test_a_client_that_remembers_what_was_removed_sends_it_again_and_it_is_served(
    fresh: RunningHub, tmp_path: Path
) -> None:
    [one, two] = files(tmp_path / "files", 2)
    with fresh as hub:
        token = hub.token("alice")
        upload(hub, tmp_path / "home", token, "alice/first", one, two, xet=True)
        upload(hub, tmp_path / "home", token, "alice/second", two, xet=True)
        HfApi(hub.endpoint, token=token).delete_repo("alice/first", repo_type="dataset")
        hub.stop()
        age(hub.root)
        before = len(list(hub.root.glob("xorbs/*/*")))
        said = gc(hub.root, "plan", str(tmp_path / "plan"))
        assert said.returncode == 0 and "can be removed" in said.stdout, said
        run = gc(hub.root, "run", str(tmp_path / "plan"), typed=f"{hub.root.name}\n")
        assert run.returncode == 0, run
        assert len(list(hub.root.glob("xorbs/*/*"))) < before
        assert hub.check() == (0, "")

        hub.start()
        upload(hub, tmp_path / "home", token, "alice/first", one, two, xet=True)  # the same home: with its memory
        for repo, path in (("alice/first", one), ("alice/first", two), ("alice/second", two)):
            got = hf_hub_download(
                repo, path.name, repo_type="dataset", endpoint=hub.endpoint, token=token, local_dir=tmp_path / "got"
            )
            assert Path(got).read_bytes() == path.read_bytes()
            Path(got).unlink()
        hub.stop()
        assert hub.check() == (0, "")


def test_it_asks_and_does_nothing_without_the_right_word_or_number(fresh: RunningHub, tmp_path: Path) -> None:
    [one] = files(tmp_path / "files", 1)
    plan = tmp_path / "plan"
    with fresh as hub:
        token = hub.token("alice")
        upload(hub, tmp_path / "home", token, "alice/first", one, xet=False)
        HfApi(hub.endpoint, token=token).delete_repo("alice/first", repo_type="dataset")
        age(hub.root)
        said = gc(hub.root, "plan", str(plan))  # while it serves
        assert "1 file (200.0 kB) can be removed" in said.stdout and "--yes-delete 200000" in said.stdout
        assert plan.stat().st_mode & 0o777 == 0o600
        assert gc(hub.root, "plan", str(plan)).returncode == 2  # no plan is written over
        served = gc(hub.root, "run", str(plan), "--yes-delete", "200000")
        assert served.returncode == 1 and "stop it first" in served.stderr
        hub.stop()
        for arguments, typed in (
            ((), ""), ((), "\n"), ((), "yes\n"), ((), f"{hub.root.name.upper()}\n"),
            (("--yes-delete", "0"), ""), (("--yes-delete", "199999"), ""), (("--yes-delete", "-1"), hub.root.name),
        ):  # fmt: skip
            refused = gc(hub.root, "run", str(plan), *arguments, typed=typed)
            assert refused.returncode != 0 and "Traceback" not in refused.stderr, refused
            assert len(list(hub.root.glob("content/*/*"))) == 1
        done = gc(hub.root, "run", str(plan), "--yes-delete", "200000")
        assert done.returncode == 0 and "Removed 1 file (200.0 kB) and 0 commits" in done.stdout
        assert list(hub.root.glob("content/*/*")) == []
        again = gc(hub.root, "run", str(plan), "--yes-delete", "200000")
        assert again.returncode == 0 and "1 file of the plan was gone already" in again.stdout


@pytest.fixture
def killed_often(fresh: RunningHub, tmp_path: Path) -> tuple[Path, Path, dict[str, bytes]]:
    """A store with a plan for LFS objects, xorbs and commits; and what has to be served from it after all."""
    kept, gone = files(tmp_path / "kept", 2), files(tmp_path / "gone", 4)
    with fresh as hub:
        token = hub.token("alice")
        upload(hub, tmp_path / "home", token, "alice/kept", kept[0], xet=True)
        upload(hub, tmp_path / "home", token, "alice/kept", kept[1], xet=False)
        upload(hub, tmp_path / "other", token, "alice/gone", *gone[:2], xet=True)
        upload(hub, tmp_path / "other", token, "alice/gone", *gone[2:], xet=False)
        HfApi(hub.endpoint, token=token).delete_repo("alice/gone", repo_type="dataset")
        hub.stop()
    age(fresh.root)
    assert gc(fresh.root, "plan", str(tmp_path / "plan")).returncode == 0
    return fresh.root, tmp_path / "plan", {path.name: path.read_bytes() for path in kept}


def test_killed_at_any_instant_it_leaves_a_whole_store_and_nothing_that_is_needed_is_gone(
    killed_often: tuple[Path, Path, dict[str, bytes]], tmp_path: Path
) -> None:
    root, plan, kept = killed_often
    planned = {item["digest"]: item["size"] for item in map(json.loads, plan.read_text().splitlines()[1:])}
    all_files = {path.name for path in [*root.glob("content/*/*"), *root.glob("xorbs/*/*")]}
    assert len(planned) >= 3 and planned.keys() < all_files
    shutil.copytree(root, tmp_path / "saved")
    words = [str(tmp_path / "saved"), str(root), str(plan), str(sum(planned.values()))]
    done = subprocess.run(
        [sys.executable, "-m", "tests.local_hub.killed_removals", *words],
        cwd=PROJECT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outcomes = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [outcome["damage"] for outcome in outcomes if outcome["damage"]] == []
    assert all(all_files - planned.keys() <= set(outcome["files"]) <= all_files for outcome in outcomes)
    assert {outcome["code"] for outcome in outcomes[:-1]} == {-signal.SIGKILL} and outcomes[-1]["code"] == 0
    # killed before, within and after the transaction, and between any two files
    assert {len(outcome["files"]) for outcome in outcomes} == set(
        range(len(all_files - planned.keys()), len(all_files) + 1)
    )
    assert sum(len(outcome["files"]) == len(all_files) for outcome in outcomes) > 10
    assert set(outcomes[-1]["files"]) == all_files - planned.keys()
    with RunningHub(root) as hub:
        api = HfApi(hub.endpoint, token=hub.token("alice"))
        for name, content in kept.items():
            got = api.hf_hub_download("alice/kept", name, repo_type="dataset", local_dir=tmp_path / "got")
            assert Path(got).read_bytes() == content
