"""Listings are complete: every page, every path, sizes and digests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, HfFileSystem, RepoFile, RepoFolder
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError

from tests.local_hub.running import RunningHub

TIMES = 5


def test_twelve_thousand_files_are_listed_on_all_pages(api: HfApi, dataset: str) -> None:
    paths = [f"data/sub-{number % 240:03d}/scan-{number}.txt" for number in range(12_000)]
    for start in range(0, len(paths), 4000):
        operations = [CommitOperationAdd(path, path.encode()) for path in paths[start : start + 4000]]
        api.create_commit(dataset, operations, commit_message=f"from {start}", repo_type="dataset")

    listed = list(api.list_repo_tree(dataset, recursive=True, repo_type="dataset"))

    assert {item.path for item in listed if isinstance(item, RepoFile)} == {*paths, ".gitattributes"}
    assert sum(isinstance(item, RepoFolder) for item in listed) == 241
    assert len(listed) == 12_000 + 1 + 241


def test_one_folder_is_listed_without_what_is_below_it(api: HfApi, dataset: str) -> None:
    api.create_commit(
        dataset,
        [CommitOperationAdd(path, b"x") for path in ("a/1.txt", "a/b/2.txt", "a b/ü.txt")],
        commit_message="three",
        repo_type="dataset",
    )

    assert {item.path for item in api.list_repo_tree(dataset, "a", repo_type="dataset")} == {"a/1.txt", "a/b"}
    assert {item.path for item in api.list_repo_tree(dataset, "a b", repo_type="dataset")} == {"a b/ü.txt"}
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree(dataset, "nowhere", repo_type="dataset"))


def test_each_path_knows_the_last_commit_that_changed_it(api: HfApi, dataset: str) -> None:
    first = api.create_commit(
        dataset, [CommitOperationAdd("a/1.txt", b"1"), CommitOperationAdd("a/2.txt", b"2")],
        commit_message="both", repo_type="dataset",
    )  # fmt: skip
    second = api.upload_file(path_or_fileobj=b"3", path_in_repo="a/2.txt", repo_id=dataset, repo_type="dataset")

    one, two = api.get_paths_info(dataset, ["a/1.txt", "a/2.txt"], expand=True, repo_type="dataset")

    assert one.last_commit is not None
    assert two.last_commit is not None
    assert (one.last_commit.oid, two.last_commit.oid) == (first.oid, second.oid)


def test_paths_that_do_not_exist_are_left_out(api: HfApi, dataset: str) -> None:
    found = api.get_paths_info(dataset, [".gitattributes", "no.txt", "no/no.txt"], repo_type="dataset")
    assert [item.path for item in found] == [".gitattributes"]


def test_a_thousand_files_are_listed_and_looked_up_in_well_under_a_tenth_of_a_second(
    hub: RunningHub, api: HfApi, dataset: str
) -> None:
    paths = [f"data/sub-{number % 30:02d}/scan-{number}.txt" for number in range(1000)]
    operations = [CommitOperationAdd(path, os.urandom(5).hex().encode()) for path in paths]
    api.create_commit(dataset, operations, commit_message="thousand", repo_type="dataset")

    begin = hub.processor_seconds
    for _ in range(TIMES):
        listed = list(api.list_repo_tree(dataset, recursive=True, repo_type="dataset"))
        found = api.get_paths_info(dataset, paths, repo_type="dataset")
        assert len(listed) == 1032
        assert len(found) == 1000

    assert (hub.processor_seconds - begin) / TIMES < 2 * 0.1


def test_ranges_of_a_file_are_read_in_place(api: HfApi, hub: RunningHub, dataset: str, token: str) -> None:
    content = os.urandom(300_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.parquet", repo_id=dataset, repo_type="dataset")
    files = HfFileSystem(endpoint=hub.endpoint, token=token, use_listings_cache=False, skip_instance_cache=True)

    with files.open(f"datasets/{dataset}/a.parquet", "rb", block_size=10_000) as file:
        file.seek(123_456)
        middle = file.read(1000)
        file.seek(-7, os.SEEK_END)
        end = file.read()

    assert middle == content[123_456:124_456]
    assert end == content[-7:]
    assert files.info(f"datasets/{dataset}/a.parquet")["size"] == 300_000


def test_a_range_beyond_the_end_is_refused(api: HfApi, hub: RunningHub, dataset: str, token: str) -> None:
    from huggingface_hub.utils import get_session

    api.upload_file(path_or_fileobj=b"12345", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    address = f"{hub.endpoint}/datasets/{dataset}/resolve/main/a.txt"
    bearer = {"authorization": f"Bearer {token}"}

    beyond = get_session().get(address, headers={**bearer, "range": "bytes=5-9"})
    inside = get_session().get(address, headers={**bearer, "range": "bytes=1-3"})
    tail = get_session().get(address, headers={**bearer, "range": "bytes=-2"})

    assert (beyond.status_code, beyond.headers["content-range"]) == (416, "bytes */5")
    assert (inside.status_code, inside.content, inside.headers["content-range"]) == (206, b"234", "bytes 1-3/5")
    assert tail.content == b"45"


def test_local_files_are_verified_against_the_hub(api: HfApi, dataset: str, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("text")
    (tmp_path / "b.parquet").write_bytes(os.urandom(1000))
    api.upload_folder(folder_path=tmp_path, repo_id=dataset, repo_type="dataset")
    api.hf_hub_download(dataset, ".gitattributes", repo_type="dataset", local_dir=tmp_path)

    assert not api.verify_repo_checksums(dataset, repo_type="dataset", local_dir=tmp_path).mismatches
    (tmp_path / "b.parquet").write_bytes(os.urandom(1000))
    [wrong] = api.verify_repo_checksums(dataset, repo_type="dataset", local_dir=tmp_path).mismatches
    assert wrong["path"] == "b.parquet"


def test_too_many_paths_at_once_are_refused(api: HfApi, dataset: str) -> None:
    with pytest.raises(HfHubHTTPError):
        api.get_paths_info(dataset, [f"{number}" for number in range(1001)], repo_type="dataset")


def test_lfs_files_of_every_branch_are_listed_once(api: HfApi, dataset: str) -> None:
    def put(path: str, content: bytes, branch: str) -> None:
        api.upload_file(
            path_or_fileobj=content, path_in_repo=path, repo_id=dataset, repo_type="dataset", revision=branch
        )

    put("a.parquet", b"of both", "main")
    api.create_branch(dataset, branch="draft", repo_type="dataset")
    put("b.parquet", b"of the draft alone", "draft")
    put("b.txt", b"not in LFS", "draft")

    listed = [(file.filename, file.ref) for file in api.list_lfs_files(dataset, repo_type="dataset")]
    assert listed == [("a.parquet", "refs/heads/main"), ("b.parquet", "refs/heads/draft")]
