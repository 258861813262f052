"""People look at a repo with git, git-annex or DataLad: git's own clone, fetch and push, and git-lfs's requests."""

from __future__ import annotations

import gzip
import hashlib
import os
import subprocess
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from tests.local_hub.running import RunningHub


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    from tests.local_hub.conftest import travel_by

    return travel_by("lfs", monkeypatch)


def git(*arguments: str | Path, cwd: Path | None = None, check: bool = True) -> subprocess.CompletedProcess[str]:
    quiet = {"GIT_TERMINAL_PROMPT": "0", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_LFS_SKIP_SMUDGE": "1"}
    return subprocess.run(
        ["git", *map(str, arguments)], cwd=cwd, env=os.environ | quiet, capture_output=True, text=True, check=check
    )


def address(hub: RunningHub, repo: str, token: str = "", end: str = "") -> str:
    host = hub.endpoint.removeprefix("http://")
    return f"http://{f'anybody:{token}@' if token else ''}{host}/datasets/{repo}{end}"


def head_of(clone: Path) -> str:
    return git("rev-parse", "HEAD", cwd=clone).stdout.strip()


@pytest.mark.parametrize("end", ["", ".git"])
def test_a_clone_has_the_history_the_texts_and_pointers_in_place_of_shards(
    hub: RunningHub, token: str, api: HfApi, dataset: str, tmp_path: Path, end: str
) -> None:
    content = os.urandom(60_000)
    for number in range(3):
        api.create_commit(
            dataset,
            [
                CommitOperationAdd("README.md", f"version {number}\n".encode()),
                CommitOperationAdd(f"data/sub-{number}/shard é.parquet", content),
            ],
            commit_message=f"Commit {number}",
            repo_type="dataset",
        )
    api.create_tag(dataset, tag="v1", tag_message="the first", repo_type="dataset")
    api.create_branch(dataset, branch="draft", repo_type="dataset")
    clone = tmp_path / "clone"

    git("clone", address(hub, dataset, token, end), clone)

    assert head_of(clone) == api.dataset_info(dataset).sha
    assert (clone / "README.md").read_text() == "version 2\n"
    pointer = (clone / "data/sub-0/shard é.parquet").read_text()
    assert hashlib.sha256(content).hexdigest() in pointer and "size 60000" in pointer
    log = git("log", "--format=%s", cwd=clone).stdout.splitlines()
    assert log[:3] == ["Commit 2", "Commit 1", "Commit 0"]
    assert git("fsck", "--full", "--strict", cwd=clone).returncode == 0
    assert git("tag", cwd=clone).stdout.split() == ["v1"]
    assert "origin/draft" in git("branch", "-r", cwd=clone).stdout


def test_a_pull_brings_what_is_new_and_a_shallow_clone_is_refused_in_words(
    hub: RunningHub, token: str, api: HfApi, dataset: str, tmp_path: Path
) -> None:
    for number in range(4):
        api.upload_file(path_or_fileobj=b"x" * number, path_in_repo="a", repo_id=dataset, repo_type="dataset")
    clone = tmp_path / "clone"
    git("clone", address(hub, dataset, token), clone)
    api.upload_file(path_or_fileobj=b"new", path_in_repo="b", repo_id=dataset, repo_type="dataset")

    git("pull", "--ff-only", cwd=clone)

    assert (clone / "b").read_bytes() == b"new"
    assert head_of(clone) == api.dataset_info(dataset).sha
    done = git("clone", "--depth", "1", address(hub, dataset, token), tmp_path / "shallow", check=False)
    assert done.returncode != 0 and "does not support shallow" in done.stderr


def test_a_private_repo_is_nobodys_without_a_token_and_looks_like_none(
    hub: RunningHub, api: HfApi, dataset: str, tmp_path: Path
) -> None:
    stranger = hub.token("stranger")
    asked = [git("ls-remote", address(hub, name), check=False) for name in (dataset, "alice/none")]
    assert all("could not read Username" in one.stderr for one in asked)
    refused = [git("ls-remote", address(hub, name, stranger), check=False) for name in (dataset, "alice/none")]
    assert refused[0].returncode == refused[1].returncode != 0
    assert refused[0].stderr.replace(dataset, "") == refused[1].stderr.replace("alice/none", "")
    api.update_repo_settings(dataset, private=False, repo_type="dataset")
    assert "refs/heads/main" in git("ls-remote", address(hub, dataset)).stdout


def test_a_push_is_refused_and_says_how_content_gets_here(
    hub: RunningHub, token: str, api: HfApi, dataset: str, tmp_path: Path
) -> None:
    clone, before = tmp_path / "clone", api.dataset_info(dataset).sha
    git("clone", address(hub, dataset, token), clone)
    (clone / "mine").write_text("mine")
    git("add", "mine", cwd=clone)
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-m", "mine", cwd=clone)
    done = git("push", cwd=clone, check=False)
    assert done.returncode != 0 and "403" in done.stderr
    assert api.dataset_info(dataset).sha == before
    answer = httpx2.get(address(hub, dataset, end="/info/refs?service=git-receive-pack"), auth=("a", token))
    assert "hf upload" in answer.text


def test_a_password_that_a_browser_remembers_opens_nothing_but_what_git_asks_for(
    hub: RunningHub, token: str, api: HfApi, dataset: str
) -> None:
    """Another site's form may be sent with it: to make a repo, to delete one, to see a private one."""
    head = api.dataset_info(dataset).sha
    login, text = ("alice", token), {"Content-Type": "text/plain"}
    for method, path, body in (
        ("GET", f"/datasets/{dataset}", b""),
        ("GET", f"/api/datasets/{dataset}", b""),
        ("POST", "/api/repos/create", b'{"type": "dataset", "name": "forged"}'),
        ("DELETE", "/api/repos/delete", b'{"type": "dataset", "name": "%s"}' % dataset.encode()),
    ):
        answer = httpx2.request(method, hub.endpoint + path, content=body, headers=text, auth=login)
        assert answer.status_code == 401, path
    assert httpx2.get(address(hub, dataset, end="/info/refs?service=git-upload-pack"), auth=login).status_code == 200
    assert api.dataset_info(dataset).sha == head and not api.repo_exists("alice/forged", repo_type="dataset")


def lfs(hub: RunningHub, repo: str, sha256: str, size: int, token: str) -> dict[str, object]:
    asked = {"operation": "download", "transfers": ["basic"], "objects": [{"oid": sha256, "size": size}]}
    answer = httpx2.post(
        address(hub, repo, end=".git/info/lfs/objects/batch"), json=asked, auth=("a", token) if token else None
    )
    if answer.status_code != 200:
        return {"status": answer.status_code}
    found: dict[str, object] = answer.json()["objects"][0]
    return found


def test_git_lfs_gets_the_content_of_what_commits_name_and_of_nothing_else(
    hub: RunningHub, token: str, api: HfApi, dataset: str
) -> None:
    content, draft = os.urandom(50_000), os.urandom(40_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.parquet", repo_id=dataset, repo_type="dataset")
    api.preupload_lfs_files(dataset, [CommitOperationAdd("b.parquet", draft)], repo_type="dataset")
    sha256, hidden = hashlib.sha256(content).hexdigest(), hashlib.sha256(draft).hexdigest()
    reader = hub.token("reader")

    found = lfs(hub, dataset, sha256, len(content), token)
    href = found["actions"]["download"]["href"]  # type: ignore[index]
    assert httpx2.get(href).content == content
    part = httpx2.get(href, headers={"Range": "bytes=100-199"})
    assert (part.status_code, part.content) == (206, content[100:200])
    assert lfs(hub, dataset, sha256, len(content), reader) == {"status": 404}

    api.update_repo_settings(dataset, private=False, repo_type="dataset")
    assert "actions" in lfs(hub, dataset, sha256, len(content), reader)
    assert "error" in lfs(hub, dataset, hidden, len(draft), reader)
    assert "error" in lfs(hub, dataset, sha256, len(content) - 1, reader)
    assert "error" in lfs(hub, dataset, "0" * 64, 1, token)

    seen = lfs(hub, dataset, sha256, len(content), reader)["actions"]["download"]["href"]  # type: ignore[index]
    api.update_repo_settings(dataset, private=True, repo_type="dataset")
    assert httpx2.get(seen).status_code == 404
    assert httpx2.get(href.replace(sha256[:6], "000000") + "x").status_code == 403


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"0000",
        b"zzzz",
        b"ffff" + b"want " * 10,
        b"0032want 0000000000000000000000000000000000000000\n00000009done\n",
        b"0012deepen 999999999",
        b"00320000",
        gzip.compress(b"\0" * 50_000_000),
        b"\x1f\x8b" + b"\0" * 40,
    ],
)
def test_what_is_not_what_git_asks_for_is_refused_and_costs_nothing(
    hub: RunningHub, token: str, dataset: str, body: bytes
) -> None:
    headers = {"Content-Type": "application/x-git-upload-pack-request"}
    if body.startswith(b"\x1f\x8b"):
        headers["Content-Encoding"] = "gzip"
    answer = httpx2.post(
        address(hub, dataset, end="/git-upload-pack"), content=body, headers=headers, auth=("a", token), timeout=30
    )
    assert answer.status_code in (200, 400, 413), answer.text
    assert b"PACK" not in answer.content
    assert httpx2.get(hub.endpoint, timeout=10).status_code == 200
