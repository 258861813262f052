"""What becomes of content that is deleted for good: of the history, of readers, of other repos, and of the bytes."""

from __future__ import annotations

import hashlib
import json
import sqlite3
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, get_session
from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, RepositoryNotFoundError

from deployments.local_hub import rewrite
from deployments.local_hub.check import damage
from deployments.local_hub.git import Git
from deployments.local_hub.hub import Hub
from deployments.local_hub.rewrite import ROUNDS
from deployments.local_hub.xet.hashes import to_text
from tests.hub_within import HubWithin
from tests.local_hub.kept_store import KeptStore, names, some_content

REPO, OTHER = "alice/scans", "alice/others"
GONE, KEPT = b"withdrawn: 5a1f" * 200, b"kept: 77c2" * 200
OF: dict[str, Any] = {"repo_type": "dataset"}


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class Scene:
    """A repo over the public client, and a second one with the same content."""

    def __init__(self, within: HubWithin):
        self.within = within
        self.server: Hub = within._server
        self.api = HfApi(token=within.target(REPO).token)
        for repo in (REPO, OTHER):
            self.api.create_repo(repo, repo_type="dataset", private=True)

    def put(self, path: str, data: bytes, repo: str = REPO, **more: Any) -> str:
        steps = [CommitOperationAdd(path, data)]
        return str(self.api.create_commit(repo, steps, commit_message=f"adds {path}", **OF, **more).oid)

    def drop(self, path: str, **more: Any) -> str:
        steps = [CommitOperationDelete(path)]
        return str(self.api.create_commit(REPO, steps, commit_message=f"drops {path}", **OF, **more).oid)

    def delete(self, *data: bytes, api: HfApi | None = None, repo: str = REPO, **more: Any) -> None:
        listed = self.api.list_lfs_files(repo, **OF)
        wanted = [file for file in listed if file.file_oid in {digest(each) for each in data}]
        (api or self.api).permanently_delete_lfs_files(repo, wanted, **OF, **more)

    def history(self, revision: str = "main") -> list[Any]:
        return self.api.list_repo_commits(REPO, revision=revision, **OF)

    def files(self, revision: str = "main", repo: str = REPO) -> set[str]:
        return set(self.api.list_repo_files(repo, revision=revision, **OF)) - {".gitattributes"}

    def listed(self, repo: str = REPO) -> list[tuple[str, str | None]]:
        return [(file.filename, file.ref) for file in self.api.list_lfs_files(repo, **OF)]

    def status(self, path: str, revision: str = "main", method: str = "GET", repo: str = REPO) -> int:
        address = f"{self.api.endpoint}/datasets/{repo}/resolve/{revision.replace('/', '%2F')}/{path}"
        return int(get_session().request(method, address, headers=self.bearer).status_code)

    def read(self, path: str, revision: str = "main", repo: str = REPO) -> bytes:
        address = f"{self.api.endpoint}/datasets/{repo}/resolve/{revision.replace('/', '%2F')}/{path}"
        return bytes(get_session().get(address, headers=self.bearer).raise_for_status().content)

    @property
    def bearer(self) -> dict[str, str]:
        return {"authorization": f"Bearer {self.api.token}"}

    def refs(self) -> dict[str, str]:
        found = self.server.repos.named(f"datasets/{REPO}")
        assert found is not None
        return self.server.git.refs(found.id)


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    with HubWithin(tmp_path / "hub") as within:
        yield Scene(within)


def test_what_is_deleted_is_in_no_listing_and_not_to_be_had_and_the_rest_is(scene: Scene, tmp_path: Path) -> None:
    scene.put("a/gone.parquet", GONE)
    scene.put("kept.parquet", KEPT)
    scene.put("text.txt", b"text")
    scene.api.create_branch(REPO, branch="draft", **OF)
    scene.put("draft.parquet", b"of the draft", revision="draft")
    assert set(scene.listed()) == {
        ("a/gone.parquet", "refs/heads/main"), ("kept.parquet", "refs/heads/main"),
        ("draft.parquet", "refs/heads/draft"),
    }  # fmt: skip

    scene.delete(GONE)

    assert set(scene.listed()) == {("kept.parquet", "refs/heads/main"), ("draft.parquet", "refs/heads/draft")}
    assert scene.files() == {"kept.parquet", "text.txt"}
    assert scene.files("draft") == {"kept.parquet", "text.txt", "draft.parquet"}
    with pytest.raises(EntryNotFoundError):
        scene.api.hf_hub_download(REPO, "a/gone.parquet", **OF, cache_dir=tmp_path / "cache")
    assert scene.read("kept.parquet") == KEPT


def test_only_what_older_commits_have_is_listed_and_can_be_deleted(scene: Scene) -> None:
    """A file that was withdrawn in a commit is what people want to get rid of; its last path is told."""
    scene.put("first.parquet", GONE)
    steps: list[Any] = [CommitOperationDelete("first.parquet"), CommitOperationAdd("d/last.parquet", GONE)]
    scene.api.create_commit(REPO, steps, commit_message="moves it", **OF)
    scene.drop("d/last.parquet")
    scene.put("kept.parquet", KEPT)
    scene.api.create_tag(REPO, tag="v1", **OF)
    assert scene.listed() == [("kept.parquet", "refs/heads/main"), ("d/last.parquet", "refs/heads/main")]
    scene.delete(GONE)
    assert scene.listed() == [("kept.parquet", "refs/heads/main")]
    for commit in scene.history():
        assert scene.files(commit.commit_id) <= {"kept.parquet"}


def everywhere(scene: Scene) -> dict[str, str]:
    """A repo whose branches, tags and pull requests all have the file; its refs before."""
    scene.put("start.txt", b"before it")
    scene.put("gone.parquet", GONE)
    scene.put("d/e/copy.parquet", GONE)
    scene.put("kept.parquet", KEPT)
    scene.api.create_branch(REPO, branch="draft", **OF)
    scene.put("draft.txt", b"draft", revision="draft")
    scene.api.create_tag(REPO, tag="light", **OF)
    scene.api.create_tag(REPO, tag="annotated", tag_message="as published", **OF)
    scene.put("proposed.txt", b"proposed", create_pr=True)
    scene.drop("gone.parquet")
    return scene.refs()


def test_no_commit_of_any_ref_names_it_and_all_else_of_the_history_stays(scene: Scene) -> None:
    before = everywhere(scene)
    told = {ref: scene.history(ref) for ref in before}
    texts = {commit.commit_id: scene.files(commit.commit_id) for commits in told.values() for commit in commits}

    scene.delete(GONE)

    after = scene.refs()
    assert set(after) == set(before) and all(after[ref] != oid for ref, oid in before.items())
    for ref, commits in told.items():
        now = scene.history(ref)
        assert [(c.title, c.authors, c.created_at) for c in now] == [
            (c.title, c.authors, c.created_at) for c in commits
        ]
        for was, commit in zip(commits, now, strict=True):
            assert scene.files(commit.commit_id) == texts[was.commit_id] - {"gone.parquet", "d/e/copy.parquet"}
            if "kept.parquet" in texts[was.commit_id]:
                assert scene.read("kept.parquet", commit.commit_id) == KEPT
        # what was before the file is as it was
        assert [c.commit_id for c in now[-2:]] == [c.commit_id for c in commits[-2:]]
    tags = {tag.name: tag for tag in scene.api.list_repo_refs(REPO, **OF).tags}
    assert tags["light"].target_commit == tags["annotated"].target_commit == after["refs/tags/light"]
    assert after["refs/tags/annotated"] != after["refs/tags/light"]  # an object of its own, as before
    assert list(damage(scene.server)) == []


def test_old_commit_ids_are_found_as_after_a_squash_and_give_nothing_of_the_file(scene: Scene) -> None:
    everywhere(scene)
    old = scene.history()[1].commit_id
    assert scene.status("gone.parquet", old) == 200
    body = {"operation": "download", "objects": [{"oid": digest(GONE), "size": len(GONE)}]}
    address = f"{scene.api.endpoint}/datasets/{REPO}.git/info/lfs/objects/batch"
    given = get_session().post(address, json=body, headers=scene.bearer).json()["objects"][0]["actions"]["download"]

    scene.delete(GONE)

    assert scene.history(old)[0].commit_id == old
    assert scene.read("kept.parquet", old) == KEPT
    for revision in (old, old[:7], "main", "light", "annotated", "draft", "refs/pr/1"):
        for method in ("GET", "HEAD"):
            assert scene.status("gone.parquet", revision, method) == 404
    page = f"{scene.api.endpoint}/datasets/{REPO}/blob/{old}/gone.parquet"
    assert get_session().get(page, headers=scene.bearer).status_code == 404
    assert get_session().get(given["href"]).status_code == 404  # an address that was given before
    told = get_session().post(address, json=body, headers=scene.bearer).json()["objects"][0]
    assert told["error"]["code"] == 404


def test_another_repo_with_the_same_content_has_all_of_it(scene: Scene) -> None:
    scene.put("gone.parquet", GONE)
    head = scene.put("same.parquet", GONE, OTHER)
    scene.delete(GONE)
    assert scene.read("same.parquet", repo=OTHER) == GONE
    assert scene.listed(OTHER) == [("same.parquet", "refs/heads/main")]
    assert scene.api.dataset_info(OTHER).sha == head


def test_content_that_was_deleted_has_to_be_sent_again_and_is_there_then(scene: Scene) -> None:
    scene.put("gone.parquet", GONE)
    scene.delete(GONE)
    lines = [
        {"key": "header", "value": {"summary": "names it"}},
        {"key": "lfsFile", "value": {"path": "again.parquet", "algo": "sha256", "oid": digest(GONE)}},
    ]
    address = f"{scene.api.endpoint}/api/datasets/{REPO}/commit/main"
    refused = get_session().post(address, content="\n".join(map(json.dumps, lines)), headers=scene.bearer)
    assert refused.status_code == 400 and "was not uploaded to this repo" in refused.json()["error"]

    scene.put("again.parquet", GONE)

    assert scene.read("again.parquet") == GONE
    assert scene.listed() == [("again.parquet", "refs/heads/main")]
    scene.delete(GONE)
    assert scene.status("again.parquet") == 404


def test_a_copy_from_the_repo_does_not_bring_it_back(scene: Scene) -> None:
    scene.put("gone.parquet", GONE)
    scene.delete(GONE)
    body = {"target": {"type": "dataset", "name": OTHER}, "files": [{"sha256": digest(GONE)}]}
    address = f"{scene.api.endpoint}/api/datasets/{REPO}/lfs-files/duplicate"
    answer = get_session().post(address, json=body, headers=scene.bearer)
    assert [each["sha256"] for each in answer.json()["failed"]] == [digest(GONE)]


def test_only_who_may_write_deletes(scene: Scene) -> None:
    scene.put("gone.parquet", GONE)
    before = scene.refs()
    reader = HfApi(token=scene.server.accounts.create_token("alice", "read"))
    with pytest.raises(HfHubHTTPError) as refused:
        scene.delete(GONE, api=reader)
    assert refused.value.response.status_code == 403
    for token in (scene.server.accounts.create_token("eve", "write"), False):
        with pytest.raises(RepositoryNotFoundError):
            scene.delete(GONE, api=HfApi(token=token))
    assert scene.refs() == before and scene.read("gone.parquet") == GONE


@pytest.mark.parametrize(
    ("deletions", "status", "says"),
    [
        ({"sha": [digest(GONE)], "rewriteHistory": False}, 501, "rewrite_history=True"),
        ({"sha": [digest(GONE), digest(b"never sent")], "rewriteHistory": True}, 404, digest(b"never sent")),
        ({"sha": ["../../etc"]}, 400, "sha256"), ({"sha": [1]}, 400, "sha256"), ({"sha": "a"}, 400, "'sha'"),
        ({"sha": [digest(GONE)] * 1001}, 400, "1000"), ([], 400, "'sha'"), (None, 400, "'sha'"),
    ],
)  # fmt: skip
def test_what_cannot_be_done_is_said_and_changes_nothing(scene: Scene, deletions: Any, status: int, says: str) -> None:
    scene.put("gone.parquet", GONE)
    before = scene.refs()
    address = f"{scene.api.endpoint}/api/datasets/{REPO}/lfs-files/batch"
    answer = get_session().post(address, json={"deletions": deletions}, headers=scene.bearer)
    assert answer.status_code == status and says in answer.json()["error"]
    assert scene.refs() == before and scene.read("gone.parquet") == GONE


def test_the_same_once_more_changes_nothing_more(scene: Scene) -> None:
    scene.put("gone.parquet", GONE)
    files = list(scene.api.list_lfs_files(REPO, **OF))
    scene.api.permanently_delete_lfs_files(REPO, files, **OF)
    once = scene.refs()
    scene.api.permanently_delete_lfs_files(REPO, files, **OF)  # as after an answer that was lost
    assert scene.refs() == once


def test_what_was_sent_and_never_committed_can_be_deleted(scene: Scene) -> None:
    scene.api.preupload_lfs_files(REPO, [CommitOperationAdd("a.parquet", GONE)], **OF)
    before = scene.refs()
    body = {"deletions": {"sha": [digest(GONE)], "rewriteHistory": True}}
    address = f"{scene.api.endpoint}/api/datasets/{REPO}/lfs-files/batch"
    assert get_session().post(address, json=body, headers=scene.bearer).json() == {"deleted": 1, "refs": []}
    assert scene.refs() == before
    upload = {"operation": "upload", "objects": [{"oid": digest(GONE), "size": len(GONE)}]}
    address = f"{scene.api.endpoint}/datasets/{REPO}.git/info/lfs/objects/batch"
    assert "actions" in get_session().post(address, json=upload, headers=scene.bearer).json()["objects"][0]


def test_a_merged_pull_request_names_the_commit_that_it_is_now(scene: Scene) -> None:
    scene.put("gone.parquet", GONE)
    scene.put("proposed.txt", b"proposed", create_pr=True)
    scene.api.merge_pull_request(REPO, 1, **OF)
    scene.delete(GONE)
    assert scene.api.get_discussion_details(REPO, 1, **OF).merge_commit_oid == scene.api.dataset_info(REPO).sha
    assert len(scene.history()) == 3  # the first parents': the first commit, the file's, the merge


# at the same time


def test_who_commits_on_an_old_head_is_told_that_the_branch_has_moved(scene: Scene) -> None:
    head = scene.put("gone.parquet", GONE)
    scene.delete(GONE)
    with pytest.raises(HfHubHTTPError) as refused:
        scene.put("b.txt", b"b", parent_commit=head)
    assert refused.value.response.status_code == 412
    scene.put("b.txt", b"b")
    assert scene.files() == {"b.txt"}


def test_while_a_history_is_rewritten_everything_else_is_answered(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what queues for the threads that read strangers' texts, however many deletions are waiting."""
    scene.put("gone.parquet", GONE)
    files = list(scene.api.list_lfs_files(REPO, **OF))
    goes_on, rewritten = threading.Event(), rewrite._History.rewrite

    def rewrite_for_long(self: Any, refs: Any, connection: Any = None) -> dict[str, str]:
        assert goes_on.wait(60)
        return rewritten(self, refs, connection)

    monkeypatch.setattr(rewrite._History, "rewrite", rewrite_for_long)
    with ThreadPoolExecutor(16) as deleting:
        asked = [deleting.submit(scene.api.permanently_delete_lfs_files, REPO, files, **OF) for _ in range(12)]
        try:
            assert deleting.submit(scene.put, "b.txt", b"b").result(timeout=30)
            assert scene.read("gone.parquet") == GONE
            page = f"{scene.api.endpoint}/datasets/{REPO}"
            shown = deleting.submit(get_session().get, page, headers=scene.bearer)
            assert shown.result(timeout=30).status_code == 200
        finally:
            goes_on.set()
        assert [each.result() for each in asked] == [None] * 12
    assert scene.files() == {"b.txt"}


@pytest.mark.parametrize("meanwhile", [1, ROUNDS - 1, ROUNDS + 3])
def test_commits_that_come_meanwhile_are_kept_and_rewritten_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, meanwhile: int
) -> None:
    """However many come: in the last round nobody else writes."""
    scene.put("gone.parquet", GONE)
    rewritten, made = rewrite._History.rewrite, list[str]()

    def rewrite_and_be_overtaken(self: Any, refs: Any, connection: Any = None) -> dict[str, str]:
        after = rewritten(self, refs, connection)
        if connection is None and len(made) < meanwhile:
            made.append(f"m{len(made)}/copy.parquet")
            scene.put(made[-1], GONE)
            scene.put(made[-1].replace("copy.parquet", "text.txt"), b"text")
        return after

    monkeypatch.setattr(rewrite._History, "rewrite", rewrite_and_be_overtaken)
    files = list(scene.api.list_lfs_files(REPO, **OF))
    scene.api.permanently_delete_lfs_files(REPO, files, **OF)

    assert len(made) == min(meanwhile, ROUNDS)
    assert scene.files() == {path.replace("copy.parquet", "text.txt") for path in made}
    assert len(scene.history()) == 2 + 2 * len(made)
    for commit in scene.history():
        assert not any(path.endswith(".parquet") for path in scene.files(commit.commit_id))
    assert scene.status(made[0]) == 404
    assert list(damage(scene.server)) == []


@pytest.mark.parametrize("round_", [1, ROUNDS])
def test_what_is_committed_for_the_first_time_meanwhile_goes_too(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, round_: int
) -> None:
    """It was sent before, so the deletion knows the content; no pointer named it when it began."""
    sent = b"sent, and in no commit yet" * 1000
    operation = CommitOperationAdd("first.parquet", sent)
    scene.api.preupload_lfs_files(REPO, [operation], **OF)
    rewritten, rounds = rewrite._History.rewrite, list[int]()

    def rewrite_and_be_overtaken(self: Any, refs: Any, connection: Any = None) -> dict[str, str]:
        after = rewritten(self, refs, connection)
        rounds.append(len(rounds) + 1)
        if connection is None and rounds[-1] < round_:
            scene.put(f"{rounds[-1]}.txt", b"text")
        if connection is None and rounds[-1] == round_:
            scene.put("first.parquet", sent)
        return after

    monkeypatch.setattr(rewrite._History, "rewrite", rewrite_and_be_overtaken)
    body = {"deletions": {"sha": [digest(sent)], "rewriteHistory": True}}
    address = f"{scene.api.endpoint}/api/datasets/{REPO}/lfs-files/batch"
    get_session().post(address, json=body, headers=scene.bearer).raise_for_status()
    assert len(rounds) == round_ + 1 and "adds first.parquet" in [commit.title for commit in scene.history()]
    assert "first.parquet" not in scene.files() and scene.status("first.parquet") == 404
    for commit in scene.history():
        assert "first.parquet" not in scene.files(commit.commit_id)
    assert list(damage(scene.server)) == []


def test_a_deletion_that_dies_before_the_refs_move_has_changed_nothing(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = everywhere(scene)
    with monkeypatch.context() as patch:
        patch.setattr(Git, "move_ref", lambda *_: 1 / 0)
        with pytest.raises(HfHubHTTPError):
            scene.delete(GONE)
    assert scene.refs() == before
    assert scene.read("gone.parquet", "light") == GONE
    assert list(damage(scene.server)) == []
    scene.delete(GONE)
    assert scene.status("gone.parquet", "light") == 404


# the bytes


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptStore:
    return KeptStore(tmp_path / "hub", monkeypatch)


def delete(store: KeptStore, repo: str, *digests: str) -> None:
    store.ask("POST", f"/api/datasets/{repo}/lfs-files/batch", json={"deletions": {"sha": digests}})


def test_the_bytes_and_the_old_history_stay_for_the_days_that_gc_keeps_and_go_then(store: KeptStore) -> None:
    by_xet = some_content("by xet")
    with store.served():
        repo = store.repo("scans")
        old = store.commit(repo, {"gone.bin": store.send(repo, GONE), "xet.bin": store.send_xet(repo, by_xet)})
        store.commit(repo, {"kept.bin": store.send(repo, KEPT)})
    store.later(100)
    with store.served():
        delete(store, repo, digest(GONE), by_xet.sha256)
        assert store.status(repo, old, "xet.bin") == store.status(repo, "main", "xet.bin") == 404
        assert store.read(repo, "kept.bin") == KEPT
    assert store.damage() == []
    assert store.planned().items == () and store.planned().commits == ()
    store.later(29)
    assert store.planned().items == () and store.planned().commits == ()
    assert {digest(GONE), to_text(by_xet.xorb_hash)} < store.files()

    store.later(2)
    plan = store.planned()
    assert names(plan) == {digest(GONE), to_text(by_xet.xorb_hash)}
    assert {item.why for item in plan.items} == {
        f"no branch, tag or pull request of datasets/{repo} reaches it any more"
    }
    assert old in {commit.oid for commit in plan.commits}
    removed = store.removed(plan)

    assert (removed.objects, removed.kept) == (2, [])
    assert store.files() == {digest(KEPT)}
    assert store.damage() == []
    with store.served():
        assert store.read(repo, "kept.bin") == KEPT
        assert store.status(repo, old, "kept.bin") == 404
        store.commit(repo, {"again.bin": store.send(repo, GONE)})
        assert store.read(repo, "again.bin") == GONE


def test_what_another_repo_needs_stays_for_ever(store: KeptStore) -> None:
    shared = some_content("shared")
    with store.served():
        repo, other = store.repo("scans"), store.repo("other")
        for each in (repo, other):
            store.commit(each, {"a.bin": store.send(each, GONE), "x.bin": store.send_xet(each, shared)})
        delete(store, repo, digest(GONE), shared.sha256)
    store.later(100)
    assert store.planned().items == ()
    store.removed(store.planned())
    with store.served():
        assert (store.read(other, "a.bin"), store.read(other, "x.bin")) == (GONE, shared.data)
        assert store.status(repo, "main", "x.bin") == 404
    assert store.damage() == []


def test_xet_gives_none_of_it_by_the_files_hash_either(store: KeptStore) -> None:
    content = some_content("by xet")
    with store.served() as client:
        repo = store.repo("scans")
        store.commit(repo, {"x.bin": store.send_xet(repo, content)})
        address, headers = store.xet(repo)
        name = to_text(content.file_hash)
        routes = [f"{address}/v{version}/reconstructions/{name}" for version in (1, 2)]
        assert {client.get(route, headers=headers).status_code for route in routes} == {200}
        delete(store, repo, content.sha256)
        assert {client.get(route, headers=headers).status_code for route in routes} == {404}
        several = client.get(f"{address}/v1/reconstructions?file_id={name}", headers=headers)
        assert several.json()["files"] == {}
        store.commit(repo, {"x.bin": store.send_xet(repo, content)})
        assert {client.get(route, headers=headers).status_code for route in routes} == {200}
        assert store.read(repo, "x.bin") == content.data


def test_a_store_of_before_has_nothing_deleted(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        store.commit(repo, {"a.bin": store.send(repo, KEPT)})
    with closing(sqlite3.connect(store.root / "hub.sqlite3")) as database, database:
        database.execute("ALTER TABLE holding DROP COLUMN deleted")
    with store.served():
        assert store.read(repo, "a.bin") == KEPT
        delete(store, repo, digest(KEPT))
        assert store.status(repo, "main", "a.bin") == 404
    assert store.damage() == []
