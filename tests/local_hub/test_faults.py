"""The fault layer breaks what it is told to and nothing else, and the Hub behind it stays whole."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import get_session

from tests.local_hub.conftest import travel_by
from tests.local_hub.faults import flip_byte
from tests.local_hub.running import RunningHub


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with RunningHub(tmp_path_factory.mktemp("faults") / "root", faults=True) as running:
        yield running


@pytest.fixture(scope="module")
def token(hub: RunningHub) -> str:
    return hub.token("alice")


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    return travel_by("lfs", monkeypatch)


@pytest.fixture(autouse=True)
def _mended(hub: RunningHub) -> Iterator[None]:
    yield
    hub.break_on()


def test_a_status_with_retry_after_is_waited_for_and_passed_by_the_client(
    hub: RunningHub, api: HfApi, dataset: str
) -> None:
    hub.break_on({"fault": "status", "status": 503, "retry_after": 0, "path": "/preupload/", "times": 2})
    api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    assert hub.broken == 2
    assert api.file_exists(dataset, "a.txt", repo_type="dataset")


def test_a_commit_whose_response_is_lost_is_on_the_hub(hub: RunningHub, api: HfApi, dataset: str) -> None:
    hub.break_on({"fault": "lose_response", "path": "/commit/main"})
    with pytest.raises(httpx2.TransportError):
        api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    assert [commit.title for commit in api.list_repo_commits(dataset, repo_type="dataset")] == [
        "Upload a.txt with huggingface_hub",
        "initial commit",
    ]


def test_a_commit_cut_in_its_body_changes_nothing(hub: RunningHub, api: HfApi, dataset: str) -> None:
    head = api.dataset_info(dataset).sha
    hub.break_on({"fault": "cut_request", "path": "/commit/main", "bytes": 100_000})
    operations = [CommitOperationAdd(f"{number}.txt", os.urandom(20_000).hex().encode()) for number in range(50)]
    with pytest.raises(httpx2.TransportError):
        api.create_commit(dataset, operations, commit_message="cut", repo_type="dataset")
    assert api.dataset_info(dataset).sha == head
    assert hub.leaves_nothing()


def test_an_upload_cut_in_its_body_leaves_nothing_and_succeeds_when_sent_again(
    hub: RunningHub, api: HfApi, dataset: str, cache: Path
) -> None:
    content = os.urandom(8_000_000)
    hub.break_on({"fault": "cut_request", "method": "PUT", "path": "/lfs/", "bytes": 3_000_000})
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")
    assert hub.broken == 1
    local = api.hf_hub_download(dataset, "a.bin", repo_type="dataset", cache_dir=cache)
    assert Path(local).read_bytes() == content
    assert hub.leaves_nothing()


def test_a_xorb_cut_in_its_body_leaves_nothing_and_is_sent_again_by_the_client(
    hub: RunningHub, api: HfApi, dataset: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    travel_by("xet", monkeypatch)
    content = os.urandom(8_000_000)
    hub.break_on({"fault": "cut_request", "path": "/v1/xorbs/", "bytes": 3_000_000})
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")
    assert hub.broken == 1
    assert hub.leaves_nothing()
    local = api.hf_hub_download(dataset, "a.bin", repo_type="dataset", cache_dir=cache)
    assert Path(local).read_bytes() == content


def test_a_shard_whose_response_is_lost_is_sent_again_without_harm(
    hub: RunningHub, api: HfApi, dataset: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    travel_by("xet", monkeypatch)
    content = os.urandom(500_000)
    hub.break_on({"fault": "lose_response", "path": "/v2/shards"})
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")
    assert hub.broken == 1
    local = api.hf_hub_download(dataset, "a.bin", repo_type="dataset", cache_dir=cache)
    assert Path(local).read_bytes() == content


def test_a_download_cut_in_its_body_is_resumed_by_the_client(
    hub: RunningHub, api: HfApi, dataset: str, cache: Path
) -> None:
    content = os.urandom(8_000_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")
    hub.break_on({"fault": "cut_response", "method": "GET", "path": "/resolve/", "bytes": 3_000_000})
    local = api.hf_hub_download(dataset, "a.bin", repo_type="dataset", cache_dir=cache)
    assert hub.broken == 1
    assert Path(local).read_bytes() == content


def test_dropped_pages_cut_a_listing_short_in_silence(hub: RunningHub, api: HfApi, dataset: str) -> None:
    operations = [CommitOperationAdd(f"data/{number}.txt", b"x") for number in range(1500)]
    api.create_commit(dataset, operations, commit_message="many", repo_type="dataset")
    hub.break_on({"fault": "drop_pages", "path": "/tree/"})
    assert len(list(api.list_repo_tree(dataset, recursive=True, repo_type="dataset"))) == 1000
    assert len(list(api.list_repo_tree(dataset, recursive=True, repo_type="dataset"))) == 1502


def test_a_slow_answer_comes_in_the_end(hub: RunningHub, api: HfApi, dataset: str) -> None:
    hub.break_on({"fault": "slow", "path": "/refs", "delay": 0.3})
    assert api.list_repo_refs(dataset, repo_type="dataset").branches[0].name == "main"
    assert hub.broken == 1


def test_other_bytes_come_as_often_as_asked_for_and_the_store_is_whole(
    hub: RunningHub, api: HfApi, dataset: str, cache: Path
) -> None:
    content = os.urandom(5_000)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")
    url = f"{hub.endpoint}/datasets/{dataset}/resolve/main/a.bin"
    headers = {"authorization": f"Bearer {api.token}"}
    hub.break_on({"fault": "other_bytes", "method": "GET", "path": "/resolve/.*bin"})
    first, second = (get_session().get(url, headers=headers, follow_redirects=True).content for _ in range(2))
    assert sum(a != b for a, b in zip(first, content, strict=True)) == 1
    assert second == content
    assert hub.check()[0] == 0


def test_a_stale_head_is_the_one_before_for_so_many_answers(hub: RunningHub, api: HfApi, dataset: str) -> None:
    before = api.dataset_info(dataset).sha
    hub.break_on({"fault": "stale", "path": f"/api/datasets/{dataset}$", "times": 2})
    assert api.dataset_info(dataset).sha == before and hub.broken == 0
    api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    seen = [api.dataset_info(dataset).sha for _ in range(4)]
    assert seen[:2] == [before, before] and seen[2] == seen[3] != before
    assert hub.broken == 2


@pytest.mark.parametrize(("fault", "done"), [("hold", False), ("hold_response", True)])
def test_a_held_request_is_answered_by_nothing_until_the_rules_are_set_anew(
    hub: RunningHub, api: HfApi, dataset: str, fault: str, done: bool
) -> None:
    before = api.dataset_info(dataset).sha
    hub.break_on({"fault": fault, "method": "POST", "path": "/commit/"})
    with ThreadPoolExecutor(1) as other:
        operation = CommitOperationAdd("a.txt", b"x")
        committing = other.submit(api.create_commit, dataset, [operation], commit_message="held", repo_type="dataset")
        deadline = time.monotonic() + 30
        while not hub.broken and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not committing.done()
        assert (api.dataset_info(dataset).sha != before) is done
        hub.break_on()
        with pytest.raises(httpx2.TransportError):
            committing.result()


def test_a_server_that_accepts_anything_lists_a_digest_its_bytes_do_not_have(
    hub: RunningHub, api: HfApi, dataset: str, cache: Path
) -> None:
    operation = CommitOperationAdd("a.bin", b"what was meant" * 100)
    operation.upload_info.sha256 = hashlib.sha256(b"something else").digest()
    with pytest.raises(RuntimeError) as refusal:
        api.preupload_lfs_files(dataset, [operation], repo_type="dataset")
    assert "The body's sha256 is" in str(refusal.value.__cause__)

    hub.break_on({"fault": "accept_anything", "method": "PUT", "path": "/lfs/"})
    operation = CommitOperationAdd("a.bin", b"what was meant" * 100)
    operation.upload_info.sha256 = hashlib.sha256(b"something else").digest()
    api.create_commit(dataset, [operation], commit_message="false", repo_type="dataset")

    [info] = api.get_paths_info(dataset, "a.bin", repo_type="dataset")
    local = api.hf_hub_download(dataset, "a.bin", repo_type="dataset", cache_dir=cache)
    assert info.lfs is not None
    assert info.lfs.sha256 == hashlib.sha256(b"something else").hexdigest()
    assert Path(local).read_bytes() == b"what was meant" * 100


def test_a_flipped_bit_comes_back_to_the_client_and_check_names_the_file(
    hub: RunningHub, api: HfApi, dataset: str, cache: Path
) -> None:
    content = os.urandom(100_000)
    digest = hashlib.sha256(content).hexdigest()
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")
    flip_byte(hub.root, digest)
    local = api.hf_hub_download(dataset, "a.bin", repo_type="dataset", cache_dir=cache)
    assert Path(local).read_bytes() != content
    code, found = hub.check()
    assert code == 1
    assert digest in found
