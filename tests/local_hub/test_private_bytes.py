"""Nobody has a byte of a repo that they may not read, by whatever route they ask, and whatever digest they know.

alice has a private repo and a public one which share a xorb: the public file is its first chunk, the rest is secret.
bob has an account and a repo of his own, carol may write where the shared chunk is too, and some have no account.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import sqlite3
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi
from huggingface_hub.utils import get_session

from deployments.local_hub.xet.hashes import to_text
from tests.local_hub.conftest import travel_by
from tests.local_hub.forge import Content, Store
from tests.local_hub.running import RunningHub, client_environment
from tests.local_hub.test_xet import DOWNLOAD, UPLOAD, run

PIECE = 64  # bytes: too many to be equal by chance
_numbers = itertools.count(1)


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    return travel_by("xet", monkeypatch)


def within(start: int, content: Content, *chunks: bytes) -> Content:
    """A file of some chunks of another's xorb, the first of them at `start`."""
    part = Content(list(chunks))
    part.xorb_hash, part.start, part.end = content.xorb_hash, start, start + len(chunks)
    return part


@dataclass
class Scene:
    """The repos, what is secret, and what a stranger was answered so far."""

    hub: RunningHub
    alice: str
    bob: str
    private: str = ""
    public: str = ""
    own: str = ""
    content: Content = field(default_factory=lambda: Content([os.urandom(size) for size in (5000, 7000, 9000)]))
    answers: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        number = next(_numbers)
        self.private, self.public, self.own = f"alice/private-{number}", f"alice/open-{number}", f"bob/own-{number}"
        for name, private in ((self.private, True), (self.public, False)):
            HfApi(self.hub.endpoint, token=self.alice).create_repo(name, repo_type="dataset", private=private)
        HfApi(self.hub.endpoint, token=self.bob).create_repo(self.own, repo_type="dataset")
        owner = Store(self.hub, self.private, self.alice)
        assert owner.put_xorb(self.content.xorb_hash, self.content.xorb).status_code == 200
        self.publish(owner, self.content, "secret.bin")
        self.publish(Store(self.hub, self.public, self.alice), self.shared, "shared.bin")

    @property
    def shared(self) -> Content:
        return within(0, self.content, self.content.chunks[0])

    @property
    def secret(self) -> bytes:
        return b"".join(self.content.chunks[1:])

    def publish(self, store: Store, content: Content, path: str) -> None:
        assert store.put_shard(content.shard).status_code == 200
        assert store.commit(path, content.sha256, content.size).status_code == 200

    def stranger(self, dataset: str) -> Store:
        """A repo's store as bob sees it."""
        return Store(self.hub, dataset, self.bob)

    def ask(self, method: str, address: str, token: str = "", **options: Any) -> Any:  # type: ignore[no-untyped-def]
        """Ask, and keep what was answered."""
        headers = dict(options.pop("headers", {}))
        if token:
            headers["authorization"] = f"Bearer {token}"
        answer = get_session().request(method, address, headers=headers, **options)
        self.answers.append(answer.content)
        return answer

    def reading(self, dataset: str, token: str) -> dict[str, str]:
        """What a reader's Xet requests carry."""
        headers = {"authorization": f"Bearer {token}"} if token else {}
        answer = get_session().get(f"{self.hub.endpoint}/api/datasets/{dataset}/xet-read-token/main", headers=headers)
        assert answer.status_code == 200, answer.text
        return {"authorization": f"Bearer {answer.json()['accessToken']}", "cas": answer.json()["casUrl"]}

    def leaked(self) -> int:
        """How many pieces of what is secret were answered, the hashes of secret chunks too."""
        answers = b"\n".join(self.answers)
        pieces = [self.secret[start : start + PIECE] for start in range(0, len(self.secret) - PIECE, PIECE)]
        hashes = self.content.hashes[1:]
        return sum(piece in answers for piece in [*pieces, *hashes, *(to_text(each).encode() for each in hashes)])


@pytest.fixture
def scene(hub: RunningHub, token: str) -> Scene:
    return Scene(hub, token, hub.token("bob"))


def fetches(scene: Scene, version: str, dataset: str, content: Content, token: str) -> list[tuple[str, int, int]]:
    """The addresses of a file's bytes as a reconstruction names them, each with its first and last byte."""
    access = scene.reading(dataset, token)
    name, cas = to_text(content.file_hash), access.pop("cas")
    routes = {"1": f"/v1/reconstructions/{name}", "2": f"/v2/reconstructions/{name}"}
    answer = scene.ask("GET", cas + routes.get(version, f"/v1/reconstructions?file_id={name}"), headers=access).json()
    found = []
    for ranges in answer["xorbs" if version == "2" else "fetch_info"].values():
        for each in ranges:
            for octets in [one["bytes"] for one in each["ranges"]] if version == "2" else [each["url_range"]]:
                found.append((each["url"], octets["start"], octets["end"]))
    return found


@pytest.mark.parametrize("version", ["1", "2", "several"])
def test_the_address_of_a_public_files_bytes_opens_those_bytes_and_no_others(scene: Scene, version: str) -> None:
    [(url, start, end)] = fetches(scene, version, scene.public, scene.shared, "")
    right = scene.ask("GET", url, headers={"range": f"bytes={start}-{end}"})
    assert (right.status_code, right.content[8:]) == (206, scene.shared.data)

    for header in (
        None, "bytes=0-", f"bytes={start}-{end + 1}", f"bytes={start}-999999", f"bytes={end + 1}-", "bytes=-9000",
        f"bytes={end + 1}-{end + 7000}", f"bytes={start}-{end},{end + 1}-20000", "bytes=0-,0-", "bytes=abc", "",
        f"Bytes={end}-30000", f"bytes={end}-{'9' * 18}", f"bytes= {end + 1}-20000", "lines=0-9",
    ):  # fmt: skip
        scene.ask("GET", url, headers={} if header is None else {"range": header})
        scene.ask("HEAD", url, headers={} if header is None else {"range": header})
    scene.ask("GET", url + "?start=0&stop=20000", headers={"range": "bytes=5500-20000"})

    assert scene.leaked() == 0


@pytest.mark.parametrize("account", ["", "bob"])
def test_a_private_repo_is_closed_on_every_route_and_at_any_range(scene: Scene, account: str) -> None:
    caller = scene.bob if account else ""
    head = HfApi(scene.hub.endpoint, token=scene.alice).dataset_info(scene.private).sha
    for name, revision in itertools.product((scene.private, scene.public, scene.own), ("main", head, str(head)[:7])):
        for route in (
            "resolve/{}/secret.bin", "blob/{}/secret.bin", "tree/{}", "raw/{}/secret.bin", "commit/{}", "commits/{}",
        ):  # fmt: skip
            address = f"{scene.hub.endpoint}/datasets/{name}/{route.format(revision)}"
            for span in (None, "bytes=0-", "bytes=0-0,1-20000", "bytes=-20000", "bytes=5000-5100"):
                headers = {} if span is None else {"range": span}
                answer = scene.ask("GET", address, caller, headers=headers)
                private = name == scene.private or "secret" in address or revision != "main"
                assert answer.status_code == 404 or not private, address
        for route in (f"tree/{revision}", f"revision/{revision}", f"commits/{revision}", "lfs-files", "refs"):
            scene.ask("GET", f"{scene.hub.endpoint}/api/datasets/{name}/{route}", caller)
    answer = scene.ask("GET", f"{scene.hub.endpoint}/api/datasets/{scene.private}/xet-read-token/main", caller)
    assert answer.status_code == 404
    assert scene.leaked() == 0


@pytest.mark.parametrize("account", ["", "bob"])
def test_the_hash_of_a_private_file_opens_it_in_no_repo_that_one_may_read(scene: Scene, account: str) -> None:
    name = to_text(scene.content.file_hash)
    for dataset in (scene.public, scene.own):
        access = scene.reading(dataset, scene.bob if account else "")
        cas = access.pop("cas")
        for route in (f"/v1/reconstructions/{name}", f"/v2/reconstructions/{name}"):
            assert scene.ask("GET", cas + route, headers=access).status_code == 404
        several = f"/v1/reconstructions?file_id={name}&file_id={to_text(scene.shared.file_hash)}"
        assert name not in scene.ask("GET", cas + several, headers=access).json()["files"]
    assert scene.leaked() == 0


def asked_about(store: Store, chunk: bytes) -> Any:  # type: ignore[no-untyped-def]
    access = store.access()
    return get_session().get(f"{store.address}/v1/chunks/default-merkledb/{to_text(chunk)}", headers=access)


def test_who_asks_about_a_public_chunk_is_not_told_of_the_private_ones_beside_it(scene: Scene) -> None:
    answer = asked_about(scene.stranger(scene.own), scene.content.hashes[0])
    scene.answers.append(answer.content)
    assert scene.leaked() == 0


def test_who_may_write_where_a_chunk_is_shared_is_told_of_that_chunk_alone(scene: Scene) -> None:
    lab = f"lab/shared-{next(_numbers)}"
    HfApi(scene.hub.endpoint, token=scene.alice).create_repo(lab, repo_type="dataset", private=True)
    scene.publish(Store(scene.hub, lab, scene.alice), scene.shared, "shared.bin")
    carol = Store(scene.hub, lab, scene.hub.token("carol", "write", "--org", "lab"))

    answer = asked_about(carol, scene.content.hashes[0])
    scene.answers.append(answer.content)

    assert answer.status_code == 200
    assert scene.content.hashes[0] in answer.content
    assert scene.leaked() == 0
    assert carol.put_shard(scene.content.shard).status_code == 400
    assert carol.put_shard(scene.shared.shard).status_code == 200


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("part", ["whole", "one chunk"])
def test_who_knows_the_hashes_of_private_chunks_cannot_make_a_file_of_them(
    scene: Scene, version: int, part: str
) -> None:
    wanted = scene.content if part == "whole" else within(1, scene.content, scene.content.chunks[1])
    for thief in (scene.stranger(scene.own),):
        answer = thief.put_shard(wanted.shard, version)
        assert "was not uploaded" in answer.text
        assert thief.commit("stolen.bin", wanted.sha256, wanted.size).status_code == 400
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{wanted.sha256}\nsize {wanted.size}\n"
        lines = [{"key": "header", "value": {"summary": "x"}}]
        lines.append({"key": "file", "value": {"path": "stolen.bin", "content": pointer, "encoding": "utf-8"}})
        address = f"{scene.hub.endpoint}/api/datasets/{scene.own}/commit/main"
        body = "\n".join(json.dumps(line) for line in lines)
        assert scene.ask("POST", address, scene.bob, content=body).status_code == 400
        access = scene.reading(scene.own, scene.bob)
        cas = access.pop("cas")
        for route in ("/v1/reconstructions/", "/v2/reconstructions/"):
            address = cas + route + to_text(wanted.file_hash)
            assert scene.ask("GET", address, headers=access).status_code == 404
    assert scene.leaked() == 0


def test_what_others_have_is_not_told_by_a_refusal_or_an_acceptance(scene: Scene) -> None:
    """Private content and content that is nowhere are answered alike."""
    thief = scene.stranger(scene.own)
    nowhere = Content([os.urandom(len(chunk)) for chunk in scene.content.chunks])

    def told(content: Content) -> list[object]:
        access = thief.access()
        xorb = f"{thief.address}/v1/xorbs/default/{to_text(content.xorb_hash)}"
        batch = {"operation": "upload", "objects": [{"oid": content.sha256, "size": content.size}]}
        objects = f"{scene.hub.endpoint}/datasets/{scene.own}.git/info/lfs/objects/batch"
        asked = scene.ask("POST", objects, scene.bob, json=batch).json()["objects"][0]
        refusal = thief.put_shard(content.shard).text.replace(to_text(content.xorb_hash), "X")
        return [
            get_session().head(xorb, headers=access).status_code,
            refusal.replace(to_text(content.file_hash), "F"),
            asked_about(thief, content.hashes[0]).status_code,
            sorted(asked["actions"]),
            thief.put_xorb(content.xorb_hash, content.xorb).json(),
            thief.put_shard(content.shard).json(),
            thief.commit("mine.bin", content.sha256, content.size).status_code,
        ]

    assert told(scene.content) == told(nowhere)


def test_content_that_was_sent_to_a_public_repo_is_not_public_before_a_commit_names_it(scene: Scene) -> None:
    owner = Store(scene.hub, scene.public, scene.alice)
    draft = Content([os.urandom(6000)])
    owner.put_xorb(draft.xorb_hash, draft.xorb)
    owner.put_shard(draft.shard)
    access = scene.reading(scene.public, "")
    address = f"{access.pop('cas')}/v2/reconstructions/{to_text(draft.file_hash)}"
    copy = {"target": {"type": "dataset", "name": scene.own}, "files": [{"sha256": draft.sha256}]}
    duplicate = f"{scene.hub.endpoint}/api/datasets/{scene.public}/lfs-files/duplicate"

    assert scene.ask("GET", address, headers=access).status_code == 404
    assert scene.ask("POST", duplicate, scene.bob, json=copy).json()["failed"]
    assert owner.commit("draft.bin", draft.sha256, draft.size).status_code == 200
    assert scene.ask("GET", address, headers=access).status_code == 200
    assert scene.ask("POST", duplicate, scene.bob, json=copy).json()["failed"] == []


def test_a_copy_between_repos_takes_what_one_may_read_and_nothing_else(scene: Scene) -> None:
    into = {"type": "dataset", "name": scene.own}
    for source, content, status in (
        (scene.private, scene.content, 404), (scene.public, scene.content, 200), (scene.own, scene.content, 200),
    ):  # fmt: skip
        address = f"{scene.hub.endpoint}/api/datasets/{source}/lfs-files/duplicate"
        body = {"target": into, "files": [{"sha256": content.sha256}]}
        answer = scene.ask("POST", address, scene.bob, json=body)
        assert answer.status_code == status
        assert status == 404 or answer.json()["failed"]
    thief = scene.stranger(scene.own)
    assert thief.commit("stolen.bin", scene.content.sha256, scene.content.size).status_code == 400

    address = f"{scene.hub.endpoint}/api/datasets/{scene.public}/lfs-files/duplicate"
    copied = scene.ask("POST", address, scene.bob, json={"target": into, "files": [{"sha256": scene.shared.sha256}]})
    assert copied.json()["failed"] == []
    assert thief.commit("copied.bin", scene.shared.sha256, scene.shared.size).status_code == 200
    [(url, start, end)] = fetches(scene, "2", scene.own, scene.shared, scene.bob)
    body = scene.ask("GET", url, headers={"range": f"bytes={start}-{end}"}).content
    assert hashlib.sha256(body[8:]).hexdigest() == scene.shared.sha256
    assert scene.leaked() == 0


def test_a_public_repo_that_is_made_private_closes_what_it_had_opened(scene: Scene) -> None:
    access = scene.reading(scene.public, "")
    address = f"{access.pop('cas')}/v2/reconstructions/{to_text(scene.shared.file_hash)}"
    [(url, start, end)] = fetches(scene, "2", scene.public, scene.shared, "")

    HfApi(scene.hub.endpoint, token=scene.alice).update_repo_settings(scene.public, private=True, repo_type="dataset")

    assert scene.ask("GET", address, headers=access).status_code == 401
    assert scene.ask("GET", url, headers={"range": f"bytes={start}-{end}"}).status_code == 403


def test_clients_go_on_working_where_a_public_and_a_private_repo_share_chunks(
    hub: RunningHub, api: HfApi, token: str, tmp_path: Path
) -> None:
    """alice's second upload builds on chunks of her first, bob has to send what he has, and anybody may download."""
    number = next(_numbers)
    private, public, own = f"alice/all-{number}", f"alice/some-{number}", f"bob/same-{number}"
    for name in (private, public):
        api.create_repo(name, repo_type="dataset", private=name == private)
    bob = hub.token("bob")
    HfApi(hub.endpoint, token=bob).create_repo(own, repo_type="dataset")
    shared = os.urandom(6_000_000)
    (tmp_path / "shared.parquet").write_bytes(shared)
    (tmp_path / "all.parquet").write_bytes(os.urandom(5_000_000) + shared + os.urandom(5_000_000))
    digest = hashlib.sha256(shared).hexdigest()

    def upload(home: str, user: str, name: str, file: str) -> None:
        environment = client_environment(hub, tmp_path / home, user, xet=True)
        run(UPLOAD, environment, name, file, str(tmp_path / file))

    upload("one", token, private, "all.parquet")
    upload("one", token, public, "shared.parquet")
    upload("two", token, public, "all.parquet")
    upload("bob", bob, own, "shared.parquet")

    for home, user, name in (("none", "", public), ("other", bob, own)):
        environment = client_environment(hub, tmp_path / home, user, xet=True)
        assert run(DOWNLOAD, environment, name, "shared.parquet") == digest


def test_a_repo_that_is_deleted_and_made_again_takes_the_same_upload_from_the_same_machine(
    hub: RunningHub, api: HfApi, token: str, tmp_path: Path
) -> None:
    """The client remembers which xorbs it sent, and does not send them again."""
    name = f"alice/again-{next(_numbers)}"
    environment = client_environment(hub, tmp_path / "home", token, xet=True)
    (tmp_path / "a.parquet").write_bytes(os.urandom(3_000_000))
    for _ in range(2):
        api.create_repo(name, repo_type="dataset")
        run(UPLOAD, environment, name, "a.parquet", str(tmp_path / "a.parquet"))
        assert api.get_paths_info(name, "a.parquet", repo_type="dataset")[0].size == 3_000_000
        api.delete_repo(name, repo_type="dataset")


#: What a store's tables about Xet were before 0.9, and how they held what is in it now.
OLDER = """
CREATE TABLE xorb_holder (
    xorb BLOB NOT NULL, repo INTEGER NOT NULL REFERENCES repo ON DELETE CASCADE,
    PRIMARY KEY (xorb, repo)) WITHOUT ROWID;
INSERT INTO xorb_holder SELECT xorb, repo FROM given;
CREATE TABLE xet_file (hash TEXT PRIMARY KEY, size INTEGER NOT NULL, sha256 TEXT NOT NULL, ranges BLOB NOT NULL);
INSERT OR IGNORE INTO xet_file SELECT hash, size, sha256, ranges FROM reconstruction;
DROP TABLE given; DROP TABLE reconstruction; DROP TABLE xorb_sender;
"""


def test_a_store_of_an_older_version_serves_what_it_holds_and_opens_nothing_else(fresh: RunningHub) -> None:
    with fresh as hub:
        scene = Scene(hub, hub.token("alice", "write", "--org", "lab"), hub.token("bob"))
        hub.stop()
        with sqlite3.connect(hub.root / "hub.sqlite3") as database:
            database.executescript(OLDER)
        database.close()
        hub.start()

        for dataset, content in ((scene.private, scene.content), (scene.public, scene.shared)):
            [(url, start, end)] = fetches(scene, "2", dataset, content, scene.alice)
            body = get_session().get(url, headers={"range": f"bytes={start}-{end}"}).content
            assert content.chunks[0] in body
        scene.answers.clear()
        scene.answers.append(asked_about(scene.stranger(scene.own), scene.content.hashes[0]).content)
        assert scene.stranger(scene.own).put_shard(scene.content.shard).status_code == 400
        lent = Store(hub, scene.public, scene.alice)
        assert lent.put_shard(scene.content.shard).status_code == 200  # alice may write to both
        assert scene.leaked() == 0
        assert hub.check() == (0, "")


def test_two_accounts_that_share_a_machine_do_not_inherit_what_its_client_remembers(
    hub: RunningHub, api: HfApi, token: str, tmp_path: Path
) -> None:
    """The client knows which xorbs it has sent by the store's address, whoever it was then."""
    number = next(_numbers)
    bob = hub.token("bob")
    (tmp_path / "a.parquet").write_bytes(os.urandom(3_000_000))
    for user, name in ((token, f"alice/first-{number}"), (bob, f"bob/second-{number}"), (token, f"lab/third-{number}")):
        HfApi(hub.endpoint, token=user).create_repo(name, repo_type="dataset", private=True)
        environment = client_environment(hub, tmp_path / "home", user, xet=True)
        run(UPLOAD, environment, name, "a.parquet", str(tmp_path / "a.parquet"))
        digest = hashlib.sha256((tmp_path / "a.parquet").read_bytes()).hexdigest()
        assert run(DOWNLOAD, environment, name, "a.parquet") == digest
