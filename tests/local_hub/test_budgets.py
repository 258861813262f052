"""Whatever is sent, it is answered, costs little memory, and those who send good requests are served meanwhile."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub import HfApi

from deployments.local_hub.xet.hashes import from_text, range_hash, to_text
from deployments.local_hub.xet.shard import (
    BOOKEND,
    HEADER,
    HEADER_VERSION,
    RECORD,
    TAG,
    WITH_METADATA,
    WITH_VERIFICATION,
)
from tests.local_hub.conftest import a_hub_alone
from tests.local_hub.forge import Content, Store, chunk
from tests.local_hub.running import RunningHub
from tests.local_hub.test_hostile import commit, file
from tests.local_hub.test_yaml_values import WORST

MEMORY = 300_000_000  # bytes the server may hold
PATIENCE = 60  # seconds, after which a request counts as one that hangs

_numbers = itertools.count(1)


hub, token, transport = a_hub_alone("budgets")  # whose memory tells of these tests alone


@pytest.fixture
def open_dataset(hub: RunningHub, token: str) -> str:
    name = f"alice/open-{next(_numbers)}"
    HfApi(hub.endpoint, token=token).create_repo(name, repo_type="dataset")
    return name


# what only JSON can say


def card(text: str) -> dict[str, object]:
    return file("README.md", f"---\n{text}\n---\nText".encode())


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("release_date: 2024-01-05", "2024-01-05T00:00:00.000Z"), ("release_date: .nan", None),
        ("release_date: -.inf", None), ("release_date: 2024-01-05T10:00:00Z", "2024-01-05T10:00:00.000Z"),
        ("release_date: 123456789012345678901234567890", 1.2345678901234568e29), ("release_date: no", "no"),
        ("release_date: !!binary aGk=", "aGk="), ("release_date: {2024-01-05: 1}", {"2024-01-05": 1}),
        ("release_date: !!set {a}", {"a": None}), ("release_date: 0x" + "f" * 300, None),
    ],
)  # fmt: skip
def test_a_card_that_json_cannot_say_is_answered_as_the_hub_does_and_takes_no_repo_down(
    hub: RunningHub, open_dataset: str, token: str, text: str, value: object
) -> None:
    assert commit(hub, open_dataset, token, card(text)).status_code == 200
    answer = httpx2.get(f"{hub.endpoint}/api/datasets/{open_dataset}")
    assert answer.status_code == 200
    assert answer.json()["cardData"] == {"release_date": value}
    assert [each["rfilename"] for each in answer.json()["siblings"]] == [".gitattributes", "README.md"]
    assert httpx2.get(f"{hub.endpoint}/datasets/{open_dataset}").status_code == 200


def test_a_card_from_before_the_check_takes_no_repo_down_either(hub: RunningHub, open_dataset: str, token: str) -> None:
    commit(hub, open_dataset, token, card("a: 1"))
    body = {"files": [{"path": "README.md", "size": 1, "sample": ""}]}
    answer = httpx2.post(f"{hub.endpoint}/api/datasets/{open_dataset}/preupload/main", json=body, headers=bearer(token))
    assert answer.status_code == 200
    refused = commit(hub, open_dataset, token, card(WORST["aliases"]))
    assert (refused.status_code, "characters" in refused.json()["error"]) == (400, True)


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


def test_a_small_card_is_validated_for_anybody_and_a_large_one_for_accounts(hub: RunningHub, token: str) -> None:
    def validated(content: str, headers: dict[str, str] | None = None) -> int:
        address = f"{hub.endpoint}/api/validate-yaml"
        return httpx2.post(address, json={"content": content, "repoType": "dataset"}, headers=headers).status_code

    large = "---\n" + "a: |\n" + "  text\n" * 12_000 + "\n---\n"
    assert validated("---\nlicense: mit\n---\n") == 200
    assert validated("---\nlicense: [\n---\n") == 400
    assert validated(large) == 401
    assert validated(large, bearer(token)) == 200


# what is hostile


@dataclass
class Scene:
    """A public repo that a writer has filled with what is worst, and who is asked about it."""

    hub: RunningHub
    token: str
    dataset: str
    store: Store = field(init=False)
    tiny: Content = field(init=False)

    def __post_init__(self) -> None:
        self.store = Store(self.hub, self.dataset, self.token)
        self.tiny = Content([os.urandom(9) for _ in range(2000)])
        assert self.store.put_xorb(self.tiny.xorb_hash, self.tiny.xorb).status_code == 200
        text = ("<!--\n" * 12_000).encode()
        assert commit(self.hub, self.dataset, self.token, file("README.md", text)).status_code == 200

    def ask(self, method: str, path: str, *, anonymous: bool = False, **options: Any) -> int:
        headers = {} if anonymous else bearer(self.token)
        answer = httpx2.request(method, self.hub.endpoint + path, headers=headers, timeout=PATIENCE, **options)
        return answer.status_code

    def api(self, route: str) -> str:
        return f"/api/datasets/{self.dataset}/{route}"

    def validate(self, text: str, *, anonymous: bool = False) -> int:
        body = {"content": f"---\n{text}\n---\n", "repoType": "dataset"}
        return self.ask("POST", "/api/validate-yaml", json=body, anonymous=anonymous)

    def preupload(self, ignore: str) -> int:
        files = [{"path": "a" * 250 + str(number), "size": 5, "sample": ""} for number in range(1000)]
        return self.ask("POST", self.api("preupload/main"), json={"files": files, "gitIgnore": ignore})

    def raw_commit(self, raw: bytes) -> int:
        return self.ask("POST", self.api("commit/main"), content=raw)

    def shard(self, files: bytes, version: int = 1) -> int:
        body = HEADER.pack(TAG, HEADER_VERSION, 0) + files + RECORD.pack(BOOKEND, 0, 0, 0, 0) * 2
        return int(self.store.put_shard(body, version).status_code)


def xet_file(scene: Scene, terms: int, start: int, end: int, *, wrong: bool = True) -> bytes:
    content = scene.tiny
    size = sum(len(each) for each in content.chunks[start:end])
    begin = RECORD.pack(bytes(32) if wrong else content.file_hash, WITH_VERIFICATION | WITH_METADATA, terms, 0, 0)
    proof = range_hash(b"".join(content.hashes[start:end]))
    entries = RECORD.pack(content.xorb_hash, 0, size, start, end) * terms
    return begin + entries + RECORD.pack(proof, 0, 0, 0, 0) * terms + RECORD.pack(from_text("0" * 64), 0, 0, 0, 0)


def lines(*steps: Mapping[str, object]) -> bytes:
    header = {"key": "header", "value": {"summary": "hostile"}}
    return b"".join(json.dumps(step).encode() + b"\n" for step in (header, *steps))


def big_lfs(scene: Scene) -> int:
    objects = [{"oid": hashlib.sha256(bytes([n])).hexdigest(), "size": 500 * 10**9} for n in range(60)]
    answer = httpx2.post(
        f"{scene.hub.endpoint}/datasets/{scene.dataset}.git/info/lfs/objects/batch",
        json={"operation": "upload", "transfers": ["multipart"], "objects": objects},
        headers=bearer(scene.token), timeout=PATIENCE,
    )  # fmt: skip
    assert len(answer.content) < 4_000_000
    return answer.status_code


HOSTILE: dict[str, Callable[[Scene], int]] = {
    **{f"YAML, {name}": (lambda scene, text=text: scene.validate(text)) for name, text in WORST.items()},  # type: ignore[misc]
    "YAML without a token": lambda scene: scene.validate("- a: [1, 2]\n" * 60_000, anonymous=True),
    "a card of comments": lambda scene: scene.ask("GET", f"/datasets/{scene.dataset}", anonymous=True),
    "patterns": lambda scene: scene.preupload("*a*a*a*a*a*a*a*a*b"),
    "many patterns": lambda scene: scene.preupload("*a*a*a*a*b\n" * 100_000),
    "lists in JSON": lambda scene: scene.ask("POST", "/api/validate-yaml", content=b"[" + b"[]," * 1_300_000 + b"[]]"),
    "deep JSON": lambda scene: scene.ask("POST", scene.api("paths-info/main"), content=b"[" * 3_000_000),
    "much LFS": big_lfs,
    "lists in a commit": lambda scene: scene.raw_commit(lines() + b'{"key": "file", "value": [' + b"[]," * 9_000_000),
    "a commit of nothing": lambda scene: scene.raw_commit(lines() + b"\n" * 20_000_000),
    "a commit of steps": lambda scene: scene.raw_commit(
        lines() + b'{"key": "deletedFile", "value": {"path": "a"}}\n' * 200_000
    ),
    "a large file in a commit": lambda scene: scene.raw_commit(lines(file("large.bin", bytes(20_000_000)))),
    "folders put and deleted": lambda scene: scene.raw_commit(
        lines(
            *(file(f"d{number}/x", b"") for number in range(5_000)),
            *({"key": "deletedFolder", "value": {"path": f"d{number}"}} for number in range(5_000)),
        )
    ),
    "a card in a commit": lambda scene: scene.raw_commit(lines(card(WORST["lists"]))),
    "many terms": lambda scene: scene.shard(xet_file(scene, 200_000, 0, 1)),
    "many terms, with progress": lambda scene: scene.shard(xet_file(scene, 200_000, 0, 1), 2),
    "long terms": lambda scene: scene.shard(xet_file(scene, 500, 0, 2000)),
    "a false count": lambda scene: scene.shard(RECORD.pack(bytes(32), WITH_VERIFICATION, 2**32 - 1, 0, 0)),
    "a xorb of bombs": lambda scene: int(
        scene.store.put_xorb(bytes(32), b"".join(chunk(b"x" * 9, unpacked=128 * 1024) for _ in range(8000))).status_code
    ),
    "an unknown chunk": lambda scene: (
        httpx2.get(
            f"{scene.store.address}/v1/chunks/default/{to_text(bytes(32))}", headers=scene.store.access()
        ).status_code
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_each_is_answered_and_takes_little_memory(hub: RunningHub, open_dataset: str, token: str, name: str) -> None:
    scene = Scene(hub, token, open_dataset)
    assert HOSTILE[name](scene) < 500
    assert hub.peak_memory < MEMORY


def test_good_requests_are_answered_right_while_hostile_ones_come_from_three_sides(
    hub: RunningHub, open_dataset: str, token: str, tmp_path: Path
) -> None:
    scene = Scene(hub, token, open_dataset)
    good = HfApi(hub.endpoint, token=hub.token("carol", "write", "--org", "lab"))
    name = f"lab/good-{next(_numbers)}"
    good.create_repo(name, repo_type="dataset", private=True)
    told: Counter[str] = Counter()

    def attack(share: int) -> None:
        try:
            for number, each in enumerate(HOSTILE.values()):
                if number % 3 == share:
                    told["refused" if each(scene) < 500 else "failed"] += 1
        except httpx2.HTTPError as error:
            told[f"hung: {error!r}"] += 1

    attackers = [threading.Thread(target=attack, args=(share,)) for share in range(3)]
    for each in attackers:
        each.start()
    served = 0
    while any(each.is_alive() for each in attackers):
        served += serve_well(good, name, served, tmp_path)
    for each in attackers:
        each.join()

    assert told == {"refused": len(HOSTILE)}
    assert served
    assert len(good.list_repo_files(name, repo_type="dataset")) == 1 + 2 * served
    assert hub.peak_memory < MEMORY
    assert "Traceback" not in hub.log


def serve_well(api: HfApi, name: str, number: int, tmp_path: Path) -> int:
    """Two files sent, looked for and brought back, right in each byte; raises otherwise."""
    content, text = os.urandom(50_000), f"text {number}".encode()
    for path, data in ((f"{number}.bin", content), (f"{number}.txt", text)):
        api.upload_file(path_or_fileobj=data, path_in_repo=path, repo_id=name, repo_type="dataset")
        local = api.hf_hub_download(name, path, repo_type="dataset", cache_dir=tmp_path)
        assert Path(local).read_bytes() == data
    assert api.dataset_info(name, timeout=PATIENCE).private
    return 1
