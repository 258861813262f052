"""Xet as the client speaks it, and the refusal of all that is not what it says."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

import lz4.frame
import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.utils import get_session

from deployments.local_hub.xet.hashes import to_text
from tests.local_hub.conftest import travel_by
from tests.local_hub.forge import Content, Store, chunk
from tests.local_hub.running import RunningHub, client_environment


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    return travel_by("xet", monkeypatch)


UPLOAD = """
import sys
from huggingface_hub import HfApi
HfApi().upload_file(path_or_fileobj=sys.argv[3], path_in_repo=sys.argv[2], repo_id=sys.argv[1], repo_type="dataset")
"""
DOWNLOAD = """
import hashlib, sys
from huggingface_hub import hf_hub_download
path = hf_hub_download(sys.argv[1], sys.argv[2], repo_type="dataset")
print(hashlib.file_digest(open(path, "rb"), "sha256").hexdigest())
"""


def run(code: str, environment: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.strip()


def stored(hub: RunningHub) -> int:
    """Bytes of all xorbs in the store."""
    return sum(path.stat().st_size for path in (hub.root / "xorbs").glob("*/*"))


@pytest.fixture
def store(hub: RunningHub, dataset: str, token: str) -> Store:
    return Store(hub, dataset, token)


def test_a_second_upload_of_the_same_bytes_from_another_machine_stores_nothing(
    hub: RunningHub, api: HfApi, dataset: str, token: str, tmp_path: Path
) -> None:
    file = tmp_path / "a.parquet"
    file.write_bytes(os.urandom(20_000_000))
    run(UPLOAD, client_environment(hub, tmp_path / "one", token, xet=True), dataset, "a.parquet", str(file))
    before = stored(hub)

    run(UPLOAD, client_environment(hub, tmp_path / "two", token, xet=True), dataset, "b.parquet", str(file))

    assert stored(hub) == before
    one, two = api.get_paths_info(dataset, ["a.parquet", "b.parquet"], repo_type="dataset")
    assert one.xet_hash == two.xet_hash is not None


def test_a_file_with_a_part_changed_stores_little_more_than_the_part(
    hub: RunningHub, api: HfApi, dataset: str, token: str, tmp_path: Path
) -> None:
    content = os.urandom(20_000_000)
    changed = content[:9_000_000] + b"inserted" + content[9_000_000:]
    (tmp_path / "a.parquet").write_bytes(content)
    (tmp_path / "b.parquet").write_bytes(changed)
    run(
        UPLOAD,
        client_environment(hub, tmp_path / "one", token, xet=True),
        dataset,
        "a.parquet",
        str(tmp_path / "a.parquet"),
    )
    before = stored(hub)

    run(
        UPLOAD,
        client_environment(hub, tmp_path / "two", token, xet=True),
        dataset,
        "b.parquet",
        str(tmp_path / "b.parquet"),
    )

    assert stored(hub) - before < 1_000_000
    found = run(DOWNLOAD, client_environment(hub, tmp_path / "three", token, xet=True), dataset, "b.parquet")
    assert found == hashlib.sha256(changed).hexdigest()


@pytest.mark.parametrize("version", ["1", "2"])
def test_both_versions_of_shards_and_reconstructions_carry_a_file_of_several_xorbs(
    hub: RunningHub, api: HfApi, dataset: str, token: str, tmp_path: Path, version: str
) -> None:
    content = os.urandom(70_000_000) + b"compressible " * 1_000_000 + bytes(range(256)) * 40_000
    (tmp_path / "a.parquet").write_bytes(content)
    environment = {
        **client_environment(hub, tmp_path / "home", token, xet=True),
        "HF_XET_CLIENT_SHARD_API_VERSION": version,
        "HF_XET_CLIENT_RECONSTRUCTION_API_VERSION": version,
    }

    run(UPLOAD, environment, dataset, "a.parquet", str(tmp_path / "a.parquet"))

    assert run(DOWNLOAD, environment, dataset, "a.parquet") == hashlib.sha256(content).hexdigest()


def test_what_one_transport_uploads_the_other_downloads(
    api: HfApi, dataset: str, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = {"xet.parquet": os.urandom(2_000_000), "lfs.parquet": os.urandom(2_000_000)}
    for path, disabled in [("xet.parquet", False), ("lfs.parquet", True)]:
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", disabled)
        api.upload_file(path_or_fileobj=content[path], path_in_repo=path, repo_id=dataset, repo_type="dataset")

    for disabled in (True, False):
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", disabled)
        for path, expected in content.items():
            local = api.hf_hub_download(dataset, path, repo_type="dataset", cache_dir=cache / str(disabled))
            assert Path(local).read_bytes() == expected


def test_every_range_of_a_file_in_xorbs_can_be_read_without_xet(
    hub: RunningHub, api: HfApi, dataset: str, token: str
) -> None:
    content = os.urandom(400_000) + bytes(400_000) + b"abcd" * 100_000
    api.upload_file(path_or_fileobj=content, path_in_repo="a.parquet", repo_id=dataset, repo_type="dataset")
    address = f"{hub.endpoint}/datasets/{dataset}/resolve/main/a.parquet"

    for start, stop in [
        (0, 1),
        (1_199_999, 1_200_000),
        (0, 1_200_000),
        (65_535, 65_537),
        (399_999, 800_001),
        (7, 999_999),
    ]:
        headers = {"authorization": f"Bearer {token}", "range": f"bytes={start}-{stop - 1}"}
        assert get_session().get(address, headers=headers).content == content[start:stop]


def test_a_forged_but_true_upload_is_accepted_so_that_the_refusals_below_mean_something(store: Store) -> None:
    true = Content([os.urandom(5000), os.urandom(7000)])
    assert store.put_xorb(true.xorb_hash, true.xorb).json() == {"was_inserted": True}
    assert store.put_xorb(true.xorb_hash, true.xorb).json() == {"was_inserted": False}
    assert store.put_shard(true.shard).status_code == 200
    assert store.commit("a.bin", true.sha256, true.size).status_code == 200


def test_a_xorb_under_another_name_is_refused(store: Store) -> None:
    true, other = Content([os.urandom(5000)]), Content([os.urandom(5000)])
    answer = store.put_xorb(other.xorb_hash, true.xorb)
    assert answer.status_code == 400
    assert to_text(true.xorb_hash) in answer.json()["error"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        chunk(b"x" * 100)[:50],
        chunk(b"x" * 100) + b"\0\0\0",
        chunk(b"x" * 100, packed=0),
        chunk(b"x" * 100, packed=101),
        chunk(b"x" * 100, unpacked=99),
        chunk(b"x" * 100, unpacked=0xFFFFFF),
        chunk(b"x" * 100, scheme=1),
        chunk(b"x" * 100, scheme=77),
        b"\x07" + chunk(b"x" * 100)[1:],
        b"XETBLOB" + bytes(100),
    ],
    ids=[
        "empty", "cut in a chunk", "cut in a header", "no packed bytes", "packed beyond the end", "unpacked too short",
        "unpacked too long", "no LZ4", "unknown scheme", "unknown version", "a footer alone",
    ],
)  # fmt: skip
def test_a_xorb_that_breaks_the_format_is_refused(store: Store, body: bytes) -> None:
    true = Content([b"x" * 100])
    assert store.put_xorb(true.xorb_hash, body).status_code == 400


def test_a_chunk_that_unpacks_to_gigabytes_is_refused_in_little_memory(hub: RunningHub, store: Store) -> None:
    bomb = lz4.frame.compress(bytes(60_000_000))
    before = hub.peak_memory
    body = b"".join(chunk(bomb[:250_000], scheme=1, unpacked=128 * 1024) for _ in range(20))
    assert store.put_xorb(bytes(32), body).status_code == 400
    assert hub.peak_memory - before < 20_000_000


FORGED = bytes(range(32))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        ("sha256", hashlib.sha256(b"other").hexdigest(), "sha256"),
        ("file_hash", FORGED, "does not follow from its chunks"),
        ("proof", FORGED, "proof"),
        ("end", 3, "out of bounds"),
        ("start", 2, "out of bounds"),
        ("size", 11_999, "out of bounds"),
        ("xorb_hash", FORGED, "was not uploaded"),
        ("flags", 0, "without the hashes that prove"),
        ("file_entries", 2**32 - 1, "ends inside a file"),
    ],
    ids=["sha256", "file_hash", "proof", "end", "start", "size", "xorb_hash", "flags", "file_entries"],
)
@pytest.mark.parametrize("version", [1, 2])
def test_a_shard_that_lies_is_refused_and_its_file_cannot_be_committed(
    store: Store, version: int, field: str, value: object, reason: str
) -> None:
    content = Content([os.urandom(5000), os.urandom(7000)])
    assert store.put_xorb(content.xorb_hash, content.xorb).status_code == 200
    truth = content.sha256
    setattr(content, field, value)

    answer = store.put_shard(content.shard, version)

    if version == 1:
        assert answer.status_code == 400
        assert reason in answer.json()["error"]
    else:
        last = json.loads(answer.text.strip().splitlines()[-1])
        assert (last["type"], last["retryable"]) == ("error", False)
        assert reason in last["message"]
    assert store.commit("a.bin", truth, 12_000).status_code == 400
    assert store.commit("a.bin", content.sha256, 12_000).status_code == 400


def test_a_client_that_hangs_up_when_its_shard_is_sent_leaves_nothing(hub: RunningHub, store: Store) -> None:
    before = hub.half_received()
    content = Content([os.urandom(500)])
    store.put_xorb(content.xorb_hash, content.xorb)
    access = store.access()["authorization"]
    server = urlsplit(store.address)
    for number in range(60):
        head = (
            f"POST {server.path}/v2/shards HTTP/1.1\r\nHost: {server.netloc}\r\nAuthorization: {access}\r\n"
            f"Content-Length: {len(content.shard)}\r\n\r\n"
        )
        with socket.create_connection((server.hostname, server.port)) as connection:
            connection.sendall(head.encode() + content.shard)
            for _ in range(number % 3):  # at once, after the answer's head, or after some of its lines
                connection.recv(200)
    assert hub.leaves_nothing(beside=before)


def test_tokens_for_reading_do_not_write_and_false_ones_do_nothing(hub: RunningHub, store: Store) -> None:
    content = Content([os.urandom(500)])
    assert store.put_xorb(content.xorb_hash, content.xorb, scope="read").status_code == 403
    address = f"{store.address}/v1/xorbs/default/{to_text(content.xorb_hash)}"
    for authorization in ({}, {"authorization": "Bearer forged.token"}, {"authorization": f"Bearer {store.token}"}):
        assert get_session().post(address, content=content.xorb, headers=authorization).status_code == 401


def test_chunks_of_a_private_repo_are_not_told_to_strangers(hub: RunningHub, api: HfApi, store: Store) -> None:
    content = Content([os.urandom(50_000)])
    store.put_xorb(content.xorb_hash, content.xorb)
    store.put_shard(content.shard)
    bob = HfApi(hub.endpoint, token=hub.token("bob"))
    bob.create_repo("bob/own", repo_type="dataset", exist_ok=True)
    stranger = Store(hub, "bob/own", str(bob.token))
    address = f"{store.address}/v1/chunks/default-merkledb/{to_text(content.hashes[0])}"

    assert get_session().get(address, headers=store.access()).status_code == 200
    assert get_session().get(address, headers=stranger.access()).status_code == 404
    file = f"{store.address}/v1/reconstructions/{to_text(content.file_hash)}"
    assert get_session().get(file, headers=store.access("read")).status_code == 200
    assert get_session().get(file, headers=stranger.access("read")).status_code == 404


def test_a_reconstruction_names_the_bytes_of_the_range_asked_for(hub: RunningHub, store: Store) -> None:
    content = Content([os.urandom(5000), os.urandom(7000), os.urandom(9000)])
    store.put_xorb(content.xorb_hash, content.xorb)
    store.put_shard(content.shard)
    address = f"{store.address}/v2/reconstructions/{to_text(content.file_hash)}"

    answer = get_session().get(address, headers={**store.access("read"), "range": "bytes=6000-6099"}).json()
    beyond = get_session().get(address, headers={**store.access("read"), "range": "bytes=21000-21001"})

    assert answer["offset_into_first_range"] == 1000
    assert [term["range"] for term in answer["terms"]] == [{"start": 1, "end": 2}]
    [[fetch]] = answer["xorbs"].values()
    [octets] = [each["bytes"] for each in fetch["ranges"]]
    body = get_session().get(fetch["url"], headers={"range": f"bytes={octets['start']}-{octets['end']}"}).content
    assert body == chunk(content.chunks[1])
    assert beyond.status_code == 416
    assert get_session().get(fetch["url"].replace("/xorb/", "/xorb/x")).status_code == 403


def test_a_hub_begun_anew_on_the_same_port_is_not_mistaken_for_the_old_one(fresh: RunningHub, tmp_path: Path) -> None:
    """Clients remember what a store has; one that is wiped must not inherit that."""
    file = tmp_path / "a.parquet"
    file.write_bytes(os.urandom(3_000_000))
    with fresh as first:
        for _ in range(2):
            token = first.token("alice")
            api = HfApi(first.endpoint, token=token)
            api.create_repo("alice/scans", repo_type="dataset")
            run(
                UPLOAD,
                client_environment(first, tmp_path / "home", token, xet=True),
                "alice/scans",
                "a.parquet",
                str(file),
            )
            assert api.get_paths_info("alice/scans", "a.parquet", repo_type="dataset")[0].size == 3_000_000
            first.stop()
            shutil.rmtree(first.root)
            first.start()
