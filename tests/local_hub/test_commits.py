"""What is committed is what is there: through the public client, over HTTP, each way that content travels."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi
from huggingface_hub.errors import BadRequestError, EntryNotFoundError, HfHubHTTPError, RevisionNotFoundError

from tests.local_hub.running import RunningHub

TIMES = 5


def git(*arguments: str, stdin: bytes = b"") -> str:
    return subprocess.run(["git", *arguments], input=stdin, capture_output=True, check=True).stdout.decode().strip()


def test_a_small_file_and_a_large_one_come_back_as_they_were_sent(api: HfApi, dataset: str, cache: Path) -> None:
    large = os.urandom(3_000_000)
    api.upload_file(path_or_fileobj=b"hello\n", path_in_repo="notes/a.txt", repo_id=dataset, repo_type="dataset")
    api.upload_file(path_or_fileobj=large, path_in_repo="data/a.parquet", repo_id=dataset, repo_type="dataset")

    for path, expected in [("notes/a.txt", b"hello\n"), ("data/a.parquet", large)]:
        local = api.hf_hub_download(dataset, path, repo_type="dataset", cache_dir=cache)
        assert Path(local).read_bytes() == expected


def test_a_file_in_lfs_is_listed_with_the_sha256_and_size_of_its_content(api: HfApi, dataset: str) -> None:
    content = os.urandom(50_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.parquet", repo_id=dataset, repo_type="dataset")

    [info] = api.get_paths_info(dataset, "a.parquet", repo_type="dataset")

    assert info.size == len(content)
    assert info.lfs is not None
    assert info.lfs.sha256 == hashlib.sha256(content).hexdigest()


def test_ids_are_the_ones_git_computes(api: HfApi, dataset: str) -> None:
    content = os.urandom(2_000)
    digest = hashlib.sha256(content).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 2000\n".encode()
    api.create_commit(
        dataset,
        [CommitOperationAdd("plain.txt", b"some text"), CommitOperationAdd("folder/a.parquet", content)],
        commit_message="two files",
        repo_type="dataset",
    )

    plain, large = api.get_paths_info(dataset, ["plain.txt", "folder/a.parquet"], repo_type="dataset")

    assert plain.blob_id == git("hash-object", "--stdin", stdin=b"some text")
    assert large.blob_id == git("hash-object", "--stdin", stdin=pointer)


def test_upload_folder_sends_a_thousand_files_in_several_commits(
    api: HfApi, dataset: str, tmp_path: Path, cache: Path
) -> None:
    folder = tmp_path / "folder"
    expected = {}
    for number in range(1000):
        path = folder / f"sub-{number % 50:02d}" / f"scan-{number}.{'json' if number % 10 else 'parquet'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"scan {number}".encode() * 20)
        expected[str(path.relative_to(folder))] = path.read_bytes()

    api.upload_folder(folder_path=folder, repo_id=dataset, repo_type="dataset")

    local = Path(api.snapshot_download(dataset, repo_type="dataset", cache_dir=cache, max_workers=4))
    found = {str(path.relative_to(local)): path.read_bytes() for path in local.rglob("*") if path.is_file()}
    assert found.pop(".gitattributes")
    assert found == expected


def test_content_sent_ahead_is_committed_without_being_sent_again(api: HfApi, dataset: str, cache: Path) -> None:
    operations = [CommitOperationAdd(f"data/{number}.parquet", os.urandom(10_000)) for number in range(20)]
    sent = [bytes(operation.path_or_fileobj) for operation in operations]  # type: ignore[arg-type]
    api.preupload_lfs_files(dataset, operations, repo_type="dataset")

    api.create_commit(dataset, operations, commit_message="batch", repo_type="dataset")

    for number, expected in enumerate(sent):
        local = api.hf_hub_download(dataset, f"data/{number}.parquet", repo_type="dataset", cache_dir=cache)
        assert Path(local).read_bytes() == expected


def test_a_commit_on_a_branch_that_moved_is_refused_and_changes_nothing(api: HfApi, dataset: str) -> None:
    first = api.upload_file(path_or_fileobj=b"1", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    second = api.upload_file(path_or_fileobj=b"2", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")

    for parent in (first.oid, first.oid[:7]):
        with pytest.raises(HfHubHTTPError, match="The branch was updated since you opened this page") as refusal:
            api.create_commit(
                dataset, [CommitOperationAdd("b.txt", b"3")], commit_message="late", repo_type="dataset",
                parent_commit=parent,
            )  # fmt: skip
        assert refusal.value.response.status_code == 412
    assert api.dataset_info(dataset).sha == second.oid
    api.create_commit(
        dataset, [CommitOperationAdd("b.txt", b"3")], commit_message="on it", repo_type="dataset",
        parent_commit=second.oid[:8],
    )  # fmt: skip
    assert "b.txt" in api.list_repo_files(dataset, repo_type="dataset")


def test_content_that_was_never_sent_cannot_be_committed(hub: RunningHub, api: HfApi, dataset: str, token: str) -> None:
    digest = hashlib.sha256(b"never sent").hexdigest()
    lines = (
        '{"key": "header", "value": {"summary": "claim"}}\n{"key": "lfsFile", "value": '
        f'{{"path": "a.parquet", "algo": "sha256", "oid": "{digest}", "size": 10}}}}\n'
    )
    from huggingface_hub.utils import get_session

    answer = get_session().post(
        f"{hub.endpoint}/api/datasets/{dataset}/commit/main",
        content=lines,
        headers={"authorization": f"Bearer {token}"},
    )

    assert answer.status_code == 400
    assert "was not uploaded" in answer.json()["error"]
    assert not api.file_exists(dataset, "a.parquet", repo_type="dataset")


def test_content_of_one_repo_cannot_be_claimed_by_another(
    hub: RunningHub, api: HfApi, dataset: str, token: str
) -> None:
    secret = os.urandom(1000)
    api.upload_file(path_or_fileobj=secret, path_in_repo="a.parquet", repo_id=dataset, repo_type="dataset")
    mallory = HfApi(hub.endpoint, token=hub.token("mallory"))
    mallory.create_repo("mallory/loot", repo_type="dataset", exist_ok=True)
    digest = hashlib.sha256(secret).hexdigest()
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 1000\n".encode()

    with pytest.raises(BadRequestError, match="not uploaded to this repo"):
        mallory.upload_file(path_or_fileobj=pointer, path_in_repo="a.txt", repo_id="mallory/loot", repo_type="dataset")


def test_files_and_folders_are_deleted_and_copied(api: HfApi, dataset: str, cache: Path) -> None:
    content = os.urandom(5000)
    api.create_commit(
        dataset,
        [CommitOperationAdd(path, content) for path in ("a/1.parquet", "a/b/2.parquet", "a/b/3.parquet", "c.parquet")],
        commit_message="four",
        repo_type="dataset",
    )

    api.create_commit(
        dataset,
        [
            CommitOperationCopy("c.parquet", "d/e.parquet"),
            CommitOperationDelete("a/b/"),
            CommitOperationDelete("c.parquet"),
        ],
        commit_message="tidy",
        repo_type="dataset",
    )

    assert set(api.list_repo_files(dataset, repo_type="dataset")) == {".gitattributes", "a/1.parquet", "d/e.parquet"}
    local = api.hf_hub_download(dataset, "d/e.parquet", repo_type="dataset", cache_dir=cache)
    assert Path(local).read_bytes() == content


def test_deleting_what_is_not_there_is_refused(api: HfApi, dataset: str) -> None:
    with pytest.raises(EntryNotFoundError):
        api.delete_file("nothing.txt", dataset, repo_type="dataset")
    with pytest.raises(EntryNotFoundError):
        api.delete_folder("nowhere", dataset, repo_type="dataset")


def test_history_lists_commits_newest_first_with_their_author(api: HfApi, dataset: str) -> None:
    for number in range(3):
        api.create_commit(
            dataset, [CommitOperationAdd("a.txt", str(number).encode())], commit_message=f"change {number}",
            commit_description="why it changed", repo_type="dataset",
        )  # fmt: skip

    commits = api.list_repo_commits(dataset, repo_type="dataset")

    assert [commit.title for commit in commits] == ["change 2", "change 1", "change 0", "initial commit"]
    assert commits[0].message == "why it changed"
    assert commits[0].authors == ["alice"]


def test_an_older_commit_still_shows_its_own_files(api: HfApi, dataset: str, cache: Path) -> None:
    first = api.upload_file(path_or_fileobj=b"old", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    api.upload_file(path_or_fileobj=b"new", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")

    local = api.hf_hub_download(dataset, "a.txt", repo_type="dataset", revision=first.oid, cache_dir=cache)

    assert Path(local).read_bytes() == b"old"
    with pytest.raises(RevisionNotFoundError):
        api.hf_hub_download(dataset, "a.txt", repo_type="dataset", revision="0" * 40, cache_dir=cache)


def test_branches_are_started_committed_to_and_removed(api: HfApi, dataset: str) -> None:
    api.create_branch(dataset, branch="draft/one", repo_type="dataset")
    api.upload_file(
        path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset", revision="draft/one"
    )

    assert "a.txt" in api.list_repo_files(dataset, repo_type="dataset", revision="draft/one")
    assert "a.txt" not in api.list_repo_files(dataset, repo_type="dataset")
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_branch(dataset, branch="draft/one", repo_type="dataset")
    assert refusal.value.response.status_code == 409

    api.delete_branch(dataset, branch="draft/one", repo_type="dataset")
    assert [branch.name for branch in api.list_repo_refs(dataset, repo_type="dataset").branches] == ["main"]
    with pytest.raises(HfHubHTTPError):
        api.delete_branch(dataset, branch="main", repo_type="dataset")


def test_a_card_whose_metadata_cannot_be_read_is_refused(api: HfApi, dataset: str) -> None:
    with pytest.raises(ValueError, match="YAML"):
        api.upload_file(
            path_or_fileobj=b"---\nlicense: [oops\n---\n# Card", path_in_repo="README.md", repo_id=dataset,
            repo_type="dataset",
        )  # fmt: skip


def test_a_commit_of_a_hundred_files_takes_well_under_a_tenth_of_a_second(
    hub: RunningHub, api: HfApi, dataset: str
) -> None:
    seconds = 0.0
    for attempt in range(TIMES):
        operations = [CommitOperationAdd(f"{attempt}/sub-{n:03d}/s.parquet", os.urandom(500)) for n in range(100)]
        api.preupload_lfs_files(dataset, operations, repo_type="dataset")
        begin = hub.processor_seconds
        api.create_commit(dataset, operations, commit_message="hundred", repo_type="dataset")
        seconds += hub.processor_seconds - begin
    assert seconds / TIMES < 0.1
