"""Tags, pull requests, squashed histories, ignored files: what surrounds a commit."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, HfApi
from huggingface_hub.errors import HfHubHTTPError, RevisionNotFoundError

from tests.local_hub.conftest import travel_by


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    return travel_by("lfs", monkeypatch)


def put(api: HfApi, dataset: str, path: str, content: bytes, **options: Any) -> Any:  # type: ignore[no-untyped-def]
    return api.upload_file(
        path_or_fileobj=content, path_in_repo=path, repo_id=dataset, repo_type="dataset", **options  # type: ignore[call-overload]
    )  # fmt: skip


@pytest.mark.parametrize("message", [None, "the release"])
def test_a_tag_keeps_its_commit_when_the_branch_goes_on(
    api: HfApi, dataset: str, cache: Path, message: str | None
) -> None:
    first = put(api, dataset, "a.txt", b"1")
    api.create_tag(dataset, tag="v1.0", tag_message=message, repo_type="dataset")
    put(api, dataset, "a.txt", b"2")

    [tag] = api.list_repo_refs(dataset, repo_type="dataset").tags
    assert (tag.name, tag.ref, tag.target_commit) == ("v1.0", "refs/tags/v1.0", first.oid)
    local = api.hf_hub_download(dataset, "a.txt", revision="v1.0", repo_type="dataset", cache_dir=cache)
    assert Path(local).read_bytes() == b"1"
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_tag(dataset, tag="v1.0", repo_type="dataset")
    assert refusal.value.response.status_code == 409

    api.delete_tag(dataset, tag="v1.0", repo_type="dataset")
    assert api.list_repo_refs(dataset, repo_type="dataset").tags == []
    with pytest.raises(RevisionNotFoundError):
        api.delete_tag(dataset, tag="v1.0", repo_type="dataset")


def test_a_tag_or_a_commit_cannot_be_committed_to(api: HfApi, dataset: str) -> None:
    first = put(api, dataset, "a.txt", b"1")
    api.create_tag(dataset, tag="v1", repo_type="dataset")
    for revision in ("v1", first.oid):
        with pytest.raises(RevisionNotFoundError):
            put(api, dataset, "b.txt", b"2", revision=revision)


@pytest.mark.parametrize("name", ["a..b", "with space", "x.lock", "-dash", "refs/heads/main", "a~1", "x" * 300, "a//b"])
def test_names_that_git_would_not_take_are_refused(api: HfApi, dataset: str, name: str) -> None:
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_branch(dataset, branch=name, repo_type="dataset")
    assert refusal.value.response.status_code == 400


def test_a_pull_request_holds_its_changes_apart_until_it_is_merged(api: HfApi, dataset: str) -> None:
    put(api, dataset, "old.txt", b"1")
    opened = put(api, dataset, "new.bin", os.urandom(1000), create_pr=True)
    put(api, dataset, "meanwhile.txt", b"2")
    assert opened.pr_revision == "refs/pr/1"
    assert "new.bin" in api.list_repo_files(dataset, repo_type="dataset", revision="refs/pr/1")
    assert "new.bin" not in api.list_repo_files(dataset, repo_type="dataset")
    refs = api.list_repo_refs(dataset, repo_type="dataset", include_pull_requests=True)
    assert [(ref.ref, ref.target_commit) for ref in refs.pull_requests or []] == [("refs/pr/1", opened.oid)]

    put(api, dataset, "more.txt", b"3", revision="refs/pr/1")
    api.merge_pull_request(dataset, 1, repo_type="dataset")

    files = {".gitattributes", "old.txt", "new.bin", "meanwhile.txt", "more.txt"}
    assert set(api.list_repo_files(dataset, repo_type="dataset")) == files
    details = api.get_discussion_details(dataset, 1, repo_type="dataset")
    assert (details.status, details.merge_commit_oid) == ("merged", api.dataset_info(dataset).sha)


def test_a_pull_request_against_a_path_that_changed_too_is_a_conflict(api: HfApi, dataset: str) -> None:
    put(api, dataset, "a.txt", b"1")
    put(api, dataset, "a.txt", b"theirs", create_pr=True)
    ours = put(api, dataset, "a.txt", b"ours")
    with pytest.raises(HfHubHTTPError, match=r"Both sides changed a\.txt") as refusal:
        api.merge_pull_request(dataset, 1, repo_type="dataset")
    assert refusal.value.response.status_code == 409
    assert api.dataset_info(dataset).sha == ours.oid


def test_a_squashed_branch_has_one_commit_and_the_same_files(api: HfApi, dataset: str) -> None:
    for number in range(3):
        put(api, dataset, f"{number}.bin", os.urandom(100))
    before = [(item.path, item.oid) for item in _files(api, dataset)]

    api.super_squash_history(dataset, repo_type="dataset", commit_message="one")

    assert [commit.title for commit in api.list_repo_commits(dataset, repo_type="dataset")] == ["one"]
    assert [(item.path, item.oid) for item in _files(api, dataset)] == before


class _File:
    def __init__(self, path: str, oid: str):
        self.path, self.oid = path, oid


def _files(api: HfApi, dataset: str) -> list[_File]:
    listed = api.list_repo_tree(dataset, recursive=True, repo_type="dataset")
    return [_File(item.path, item.blob_id) for item in listed if hasattr(item, "blob_id")]


def test_files_that_gitignore_names_are_not_uploaded(api: HfApi, dataset: str, tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("*.tmp\n/work/\n!keep.tmp\n")
    for name in ("a.txt", "b.tmp", "keep.tmp", "work/c.txt", "sub/work/d.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)

    api.upload_folder(folder_path=tmp_path, repo_id=dataset, repo_type="dataset")
    put(api, dataset, "later.tmp", b"x" * 10)

    expected = {".gitattributes", ".gitignore", "a.txt", "keep.tmp", "sub/work/d.txt"}
    assert set(api.list_repo_files(dataset, repo_type="dataset")) == expected


def test_gitattributes_decide_what_goes_to_lfs(api: HfApi, dataset: str) -> None:
    put(api, dataset, ".gitattributes", b"*.raw filter=lfs diff=lfs merge=lfs -text\n*.parquet -filter\n")
    operations = [
        CommitOperationAdd("text.raw", b"plain text"),
        CommitOperationAdd("text.parquet", b"plain text"),
        CommitOperationAdd("binary.dat", bytes(range(256))),
        CommitOperationAdd("plain.dat", "Grüße".encode()),
    ]
    api.create_commit(dataset, operations, commit_message="four", repo_type="dataset")
    infos = api.get_paths_info(dataset, [each.path_in_repo for each in operations], repo_type="dataset")
    assert [info.lfs is not None for info in infos] == [True, False, True, False]


def test_content_is_copied_between_repos_without_being_sent_again(
    api: HfApi, dataset: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    travel_by("xet", monkeypatch)  # the client copies between repos only what has a Xet hash
    content = os.urandom(100_000)
    put(api, dataset, "a.bin", content)
    other = f"{dataset}-copy"
    api.create_repo(other, repo_type="dataset")
    copy = CommitOperationCopy("a.bin", "b.bin", src_repo_id=dataset, src_repo_type="dataset")
    api.create_commit(other, [copy], commit_message="copy", repo_type="dataset")
    local = api.hf_hub_download(other, "b.bin", repo_type="dataset", cache_dir=cache)
    assert Path(local).read_bytes() == content
