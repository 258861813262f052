"""LFS beyond the plain case: files in parts, buffers, and bodies that are not what was announced."""

from __future__ import annotations

import hashlib
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from tests.local_hub.conftest import travel_by
from tests.local_hub.running import RunningHub

PART = 128 * 1024 * 1024  # bytes


@pytest.fixture(scope="module")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with RunningHub(tmp_path_factory.mktemp("parts") / "root", "--multipart-above", "1000000") as running:
        yield running


@pytest.fixture(scope="module")
def token(hub: RunningHub) -> str:
    return hub.token("alice")


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    return travel_by("lfs", monkeypatch)


def batch(hub: RunningHub, dataset: str, token: str, oid: str, size: int) -> dict:  # type: ignore[type-arg]
    answer = get_session().post(
        f"{hub.endpoint}/datasets/{dataset}.git/info/lfs/objects/batch",
        json={"operation": "upload", "transfers": ["basic", "multipart"], "objects": [{"oid": oid, "size": size}]},
        headers={"authorization": f"Bearer {token}"},
    )
    assert answer.status_code == 200, answer.text
    return dict(answer.json()["objects"][0])


def test_a_large_file_is_sent_in_parts_and_comes_back_whole(
    hub: RunningHub, api: HfApi, dataset: str, tmp_path: Path, cache: Path
) -> None:
    file = tmp_path / "a.bin"
    file.write_bytes(os.urandom(1_000_000) * 140)
    with file.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()

    api.upload_file(path_or_fileobj=file, path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")

    local = Path(api.hf_hub_download(dataset, "a.bin", repo_type="dataset", cache_dir=cache))
    with local.open("rb") as stream:
        assert hashlib.file_digest(stream, "sha256").hexdigest() == digest


def test_a_buffer_is_uploaded(api: HfApi, dataset: str, cache: Path) -> None:
    content = os.urandom(2_000_000)
    api.upload_file(path_or_fileobj=io.BytesIO(content), path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")
    local = Path(api.hf_hub_download(dataset, "a.bin", repo_type="dataset", cache_dir=cache))
    assert local.read_bytes() == content


def test_content_that_is_there_is_not_asked_for_again(hub: RunningHub, api: HfApi, dataset: str, token: str) -> None:
    content = os.urandom(5000)
    digest = hashlib.sha256(content).hexdigest()
    assert "actions" in batch(hub, dataset, token, digest, 5000)
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id=dataset, repo_type="dataset")
    assert "actions" not in batch(hub, dataset, token, digest, 5000)
    assert batch(hub, dataset, token, digest, 4999)["error"]["code"] == 422


@pytest.mark.parametrize(
    ("body", "status"), [(b"x" * 999, 400), (b"x" * 1001, 400), (b"y" * 1000, 422)], ids=["short", "long", "other"]
)
def test_a_body_that_is_not_what_was_announced_is_refused_and_leaves_nothing(
    hub: RunningHub, dataset: str, token: str, body: bytes, status: int, api: HfApi
) -> None:
    digest = hashlib.sha256(b"x" * 1000).hexdigest()
    before = hub.half_received()
    href = batch(hub, dataset, token, digest, 1000)["actions"]["upload"]["href"]

    assert get_session().put(href, content=body).status_code == status

    assert not (hub.root / "content" / digest[:2] / digest).exists()
    assert hub.leaves_nothing(beside=before)
    assert "actions" in batch(hub, dataset, token, digest, 1000)


def test_an_upload_address_is_good_for_its_own_object_alone(
    hub: RunningHub, dataset: str, token: str, api: HfApi
) -> None:
    href = batch(hub, dataset, token, hashlib.sha256(b"x").hexdigest(), 1)["actions"]["upload"]["href"]
    signed, _, mac = href.rpartition(".")
    forged = signed[:-4] + "AAAA" + "." + mac
    assert get_session().put(forged, content=b"x").status_code == 403
    assert get_session().put(href.replace("/lfs/", "/lfs-part/"), content=b"x").status_code == 403


def test_parts_that_do_not_make_up_the_file_are_refused_and_leave_nothing(
    hub: RunningHub, dataset: str, token: str, api: HfApi
) -> None:
    digest = hashlib.sha256(b"x" * 2_000_000).hexdigest()
    before = hub.half_received()
    upload = batch(hub, dataset, token, digest, 2_000_000)["actions"]["upload"]
    etag = get_session().put(upload["header"]["1"], content=b"y" * 2_000_000).headers["etag"]

    def complete(parts: list[dict[str, object]]) -> int:
        body = json.dumps({"oid": digest, "parts": parts})
        return int(get_session().post(upload["href"], content=body).status_code)

    assert get_session().put(upload["header"]["1"], content=b"y" * 1_999_999).status_code == 400
    assert complete([]) == 400
    assert complete([{"partNumber": 1, "etag": "false"}]) == 400
    assert complete([{"partNumber": 1, "etag": etag}]) == 422
    assert complete([{"partNumber": 1, "etag": etag}]) == 404
    assert hub.leaves_nothing(beside=before)
    assert "actions" in batch(hub, dataset, token, digest, 2_000_000)
