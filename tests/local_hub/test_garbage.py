"""What may be removed from a store, and what never: by refs, histories, promises and the days between."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import sqlite3
import time
import zlib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deployments.local_hub.garbage import remove
from deployments.local_hub.garbage.needed import Commit, StoreDamagedError, needed
from deployments.local_hub.garbage.plan import Item, LetGo, Looked, Plan, PlanError, make, read, write
from deployments.local_hub.garbage.summary import lines
from deployments.local_hub.locks import HubInUseError, reading, removing, take_for_serving
from deployments.local_hub.xet.hashes import to_text
from tests.local_hub.kept_store import KeptStore, names, some_content

LONG = 40  # days, more than what is kept by default
KEPT = b"kept: 9a8f4d1e" * 300
LOOSE = b"loose: 51c07b9d" * 300


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptStore:
    return KeptStore(tmp_path / "hub", monkeypatch)


def test_only_what_was_never_committed_goes_after_the_days_and_the_rest_is_served_as_before(store: KeptStore) -> None:
    kept, loose = some_content("kept"), some_content("loose")
    with store.served():
        repo = store.repo("scans")
        store.commit(repo, {"a.bin": store.send(repo, KEPT), "b.bin": store.send_xet(repo, kept)})
        store.send(repo, LOOSE)
        store.send_xet(repo, loose)
    assert store.planned().items == ()
    store.later(LONG)
    plan = store.planned()
    assert names(plan) == {digest(LOOSE), to_text(loose.xorb_hash)}
    assert {item.why for item in plan.items} == {"sent to datasets/alice/scans and never committed"}
    assert plan.size == len(LOOSE) + len(loose.xorb)
    assert {item.age_days for item in plan.items} == {float(LONG)}

    removed = store.removed(plan)

    assert (removed.objects, removed.size, removed.kept, removed.gone) == (2, plan.size, [], 0)
    assert store.files() == {digest(KEPT), to_text(kept.xorb_hash)}
    assert store.damage() == []
    with store.served():
        assert store.read("alice/scans", "a.bin") == KEPT
        assert store.read("alice/scans", "b.bin") == kept.data
        assert "actions" in store.batch("alice/scans", digest(LOOSE), len(LOOSE))  # it has to be sent again
        store.commit("alice/scans", {"c.bin": store.send(repo, LOOSE), "d.bin": store.send_xet(repo, loose)})
        assert store.read("alice/scans", "c.bin") == LOOSE
        assert store.read("alice/scans", "d.bin") == loose.data
    assert store.damage() == []


def test_what_was_sent_stays_to_the_last_of_the_days(store: KeptStore) -> None:
    with store.served():
        store.send(store.repo("scans"), LOOSE)
        store.send_xet("alice/scans", some_content("loose"))
    store.later(30.9)  # a promise may be noted a day late, so a day is added
    assert store.planned().items == ()
    store.later(0.2)
    assert len(store.planned().items) == 2


def batch(store: KeptStore, repo: str) -> None:
    assert "actions" not in store.batch(repo, digest(LOOSE), len(LOOSE))


def verify(store: KeptStore, repo: str) -> None:
    store.ask("POST", f"/api/datasets/{repo}/lfs-verify", json={"oid": digest(LOOSE), "size": len(LOOSE)})


def duplicate(store: KeptStore, repo: str) -> None:
    other = store.repo("other")
    body = {"target": {"type": "dataset", "name": other}, "files": [{"sha256": digest(LOOSE)}]}
    store.ask("POST", f"/api/datasets/{repo}/lfs-files/duplicate", json=body)


def sent_once_more(store: KeptStore, repo: str) -> None:
    with closing(sqlite3.connect(store.root / "hub.sqlite3")) as database, database:
        database.execute("UPDATE holding SET sha256 = 'x' WHERE sha256 = ?", (digest(LOOSE),))
    action = store.batch(repo, digest(LOOSE), len(LOOSE))["actions"]["upload"]["href"]
    with closing(sqlite3.connect(store.root / "hub.sqlite3")) as database, database:
        database.execute("UPDATE holding SET sha256 = ? WHERE sha256 = 'x'", (digest(LOOSE),))
    store.ask("PUT", action, content=LOOSE)


@pytest.mark.parametrize("route", [batch, verify, duplicate, sent_once_more])
def test_content_that_somebody_was_told_is_here_can_be_committed_for_days_after(
    store: KeptStore, route: Callable[[KeptStore, str], None]
) -> None:
    with store.served():
        repo = store.repo("scans")
        store.send(repo, LOOSE)
    store.later(LONG)
    before = store.planned()
    assert names(before) == {digest(LOOSE)}
    with store.served():
        route(store, repo)
    assert store.planned().items == ()
    store.later(25)
    removed = store.removed(before)  # a plan from before the promise
    assert removed.objects == 0 and len(removed.kept) == 1
    with store.served():
        store.commit(repo, {"a.bin": digest(LOOSE)})
        assert store.read(repo, "a.bin") == LOOSE


def has_xorb(store: KeptStore, repo: str) -> None:
    address, headers = store.xet(repo)
    store.ask("HEAD", f"{address}/v1/xorbs/default/{to_text(some_content('loose').xorb_hash)}", headers=headers)


def known_chunks(store: KeptStore, repo: str) -> None:
    address, headers = store.xet(repo)
    store.ask("GET", f"{address}/v1/chunks/default/{to_text(some_content('loose').hashes[0])}", headers=headers)


def xorb_again(store: KeptStore, repo: str) -> None:
    store.put_xorb(repo, some_content("loose"))


def shard_again(store: KeptStore, repo: str) -> None:
    store.put_shard(repo, some_content("loose"))


def batch_of_xet(store: KeptStore, repo: str) -> None:
    loose = some_content("loose")
    assert "actions" not in store.batch(repo, loose.sha256, len(loose.data))


@pytest.mark.parametrize("route", [has_xorb, known_chunks, xorb_again, shard_again, batch_of_xet])
def test_xet_content_that_somebody_was_told_is_here_can_be_built_on_for_days_after(
    store: KeptStore, route: Callable[[KeptStore, str], None]
) -> None:
    loose = some_content("loose")
    with store.served():
        repo = store.repo("scans")
        store.send_xet(repo, loose)
    store.later(LONG)
    before = store.planned()
    assert names(before) == {to_text(loose.xorb_hash)}
    with store.served():
        route(store, repo)
    assert store.planned().items == ()
    store.later(25)
    assert store.removed(before).objects == 0
    with store.served():
        store.put_shard(repo, loose)
        store.commit(repo, {"a.bin": loose.sha256})
        assert store.read(repo, "a.bin") == loose.data


def test_a_promise_costs_a_transaction_a_day_and_not_one_each_time(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        store.send(repo, LOOSE)
        store.send_xet(repo, some_content("loose"))
        changes = store.hub.database._writer.total_changes
        for _ in range(3):
            batch(store, repo)
            has_xorb(store, repo)
            known_chunks(store, repo)
        assert store.hub.database._writer.total_changes == changes
        store.later(1.5)
        batch(store, repo)
        has_xorb(store, repo)
        assert store.hub.database._writer.total_changes == changes + 2


# what a history needs


def on_a_branch(store: KeptStore, repo: str, sha256: str) -> None:
    store.ask("POST", f"/api/datasets/{repo}/branch/side", json={})
    store.commit(repo, {"a.bin": sha256}, revision="side")


def under_a_tag_with_a_message(store: KeptStore, repo: str, sha256: str) -> None:
    on_a_branch(store, repo, sha256)
    store.ask("POST", f"/api/datasets/{repo}/tag/side", json={"tag": "v1", "message": "the first"})
    store.ask("DELETE", f"/api/datasets/{repo}/branch/side")


def in_a_pull_request(store: KeptStore, repo: str, sha256: str) -> None:
    store.commit(repo, {"a.bin": sha256}, query="?create_pr=1")


def in_an_older_commit(store: KeptStore, repo: str, sha256: str) -> None:
    store.commit(repo, {"deep/er/a.bin": sha256})
    store.commit(repo, {}, delete=("deep",))


def in_what_a_merge_brought(store: KeptStore, repo: str, sha256: str) -> None:
    in_a_pull_request(store, repo, sha256)
    store.ask("POST", f"/api/datasets/{repo}/discussions/1/merge", json={})
    store.commit(repo, {}, delete=("a.bin",))
    with closing(sqlite3.connect(store.root / "hub.sqlite3")) as database, database:
        database.execute("DELETE FROM ref WHERE name = 'refs/pr/1'")  # only the merge's second parent leads there


PLACES = [on_a_branch, under_a_tag_with_a_message, in_a_pull_request, in_an_older_commit, in_what_a_merge_brought]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", ["lfs", "xet"])
def test_whatever_a_ref_reaches_stays_for_ever(
    store: KeptStore, place: Callable[[KeptStore, str, str], None], way: str
) -> None:
    loose = some_content("loose")
    with store.served():
        repo = store.repo("scans")
        place(store, repo, store.send(repo, LOOSE) if way == "lfs" else store.send_xet(repo, loose))
    store.later(4000)
    plan = store.planned(keep_days=1)
    assert (plan.items, plan.commits) == ((), ())
    assert store.removed(plan).objects == 0
    assert store.damage() == []


def branch_deleted(store: KeptStore, repo: str) -> None:
    store.ask("DELETE", f"/api/datasets/{repo}/branch/side")


def branch_forced_back(store: KeptStore, repo: str) -> None:
    store.ask("POST", f"/api/datasets/{repo}/branch/side", json={"startingPoint": "main", "overwrite": True})


def branch_squashed(store: KeptStore, repo: str) -> None:
    store.commit(repo, {}, revision="side", delete=("a.bin",))
    store.ask("POST", f"/api/datasets/{repo}/super-squash/side", json={"message": "one"})


@pytest.mark.parametrize("leave", [branch_deleted, branch_forced_back, branch_squashed])
def test_what_a_ref_has_left_stays_for_the_days_and_then_goes_with_its_commits(
    store: KeptStore, leave: Callable[[KeptStore, str], None]
) -> None:
    text = os.urandom(600).hex().encode()  # of a participant, say
    with store.served():
        repo = store.repo("scans")
        store.ask("POST", f"/api/datasets/{repo}/branch/side", json={})
        oid = store.commit(repo, {"a.bin": store.send(repo, LOOSE), "participants.tsv": text}, revision="side")
        store.commit(repo, {"kept.bin": store.send(repo, KEPT)})
    store.later(LONG)
    with store.served():
        leave(store, repo)
    store.later(30)
    assert (store.planned().items, store.planned().commits) == ((), ())
    with store.served():
        assert store.read(repo, "a.bin", oid) == LOOSE
    [packed] = sql(store, "SELECT data FROM git_object WHERE size = ?", len(text))
    assert packed[0] in on_disk(store)
    store.later(2)
    plan = store.planned()
    assert names(plan) == {digest(LOOSE)}
    assert {item.why for item in plan.items} == {
        "no branch, tag or pull request of datasets/alice/scans reaches it any more"
    }
    assert oid in {commit.oid for commit in plan.commits} and {each.name for each in plan.commits} == {
        "datasets/alice/scans"
    }

    removed = store.removed(plan)

    assert (removed.objects, removed.commits) == (1, len(plan.commits))
    assert store.files() == {digest(KEPT)}
    assert store.damage() == []
    if leave is not branch_squashed:  # whose one commit still has the text
        assert packed[0] not in on_disk(store)
    with store.served():
        assert store.status(repo, oid, "a.bin") == 404  # and not the name of content that is no more
        assert store.read(repo, "kept.bin") == KEPT
    assert store.planned(keep_days=365).commits == ()


def on_disk(store: KeptStore) -> bytes:
    """The database, with what is not folded in yet."""
    return b"".join(path.read_bytes() for path in sorted(store.root.glob("hub.sqlite3*")))


def sql(store: KeptStore, query: str, *values: object) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(store.root / "hub.sqlite3")) as database, database:
        return database.execute(query, values).fetchall()


def test_what_a_deleted_repo_alone_had_goes_and_what_another_has_too_stays(store: KeptStore) -> None:
    both, alone = some_content("both"), some_content("alone")
    with store.served():
        first, second = store.repo("first"), store.repo("second")
        store.commit(first, {"a.bin": store.send(first, KEPT), "b.bin": store.send_xet(first, both)})
        store.commit(first, {"c.bin": store.send(first, LOOSE), "d.bin": store.send_xet(first, alone)})
        store.commit(second, {"a.bin": store.send(second, KEPT), "b.bin": store.send_xet(second, both)})
    store.later(LONG)
    assert store.planned().items == ()
    with store.served():
        store.delete_repo(first)
    plan = store.planned()
    assert names(plan) == {digest(LOOSE), to_text(alone.xorb_hash)}
    assert {item.kind: item.why for item in plan.items} == {
        "lfs": "no line of the database names it", "xorb": "no file is made of it",
    }  # fmt: skip
    store.removed(plan)
    assert store.damage() == []
    with store.served():
        assert store.read(second, "a.bin") == KEPT
        assert store.read(second, "b.bin") == both.data


def test_what_a_repo_had_that_is_deleted_at_once_stays_for_the_days_since_it_was_sent(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        store.send(repo, LOOSE)
        store.send_xet(repo, some_content("loose"))
        store.delete_repo(repo)
    store.later(20)
    assert store.planned().items == ()
    store.later(20)
    assert len(store.planned().items) == 2


def test_content_whose_xorb_goes_is_still_held_where_a_young_file_has_it_too(store: KeptStore) -> None:
    loose = some_content("loose")
    with store.served():
        repo = store.repo("scans")
        store.send_xet(repo, loose)
    store.later(LONG)
    path = store.root / "content" / loose.sha256[:2] / loose.sha256
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(loose.data)
    os.utime(path, (time.time(), time.time()))
    assert store.removed(store.planned()).objects == 1
    assert store.files() == {loose.sha256} and store.damage() == []
    with store.served():
        assert "actions" not in store.batch(repo, loose.sha256, len(loose.data))
        store.commit(repo, {"a.bin": loose.sha256})
        assert store.read(repo, "a.bin") == loose.data


def test_a_young_commit_stays_though_an_older_version_has_not_noted_who_left_it(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        store.send(repo, LOOSE)
    store.later(LONG)
    with store.served():
        store.ask("POST", f"/api/datasets/{repo}/branch/side", json={})
        oid = store.commit(repo, {"a.bin": digest(LOOSE)}, revision="side")
    sql(store, "DELETE FROM ref WHERE name = 'refs/heads/side'")
    plan = store.planned()
    assert (plan.items, plan.commits) == ((), ())
    store.later(LONG)
    plan = store.planned()
    assert names(plan) == {digest(LOOSE)} and [commit.oid for commit in plan.commits] == [oid]


def test_a_xorb_stays_whole_while_one_file_of_it_is_needed(store: KeptStore) -> None:
    whole = some_content("whole", 4)
    half = some_content("whole", 4)
    half.end = 2
    part = some_content("whole", 2)
    half.file_hash, half.proof, half.sha256, half.size = part.file_hash, part.proof, part.sha256, part.size
    with store.served():
        repo = store.repo("scans")
        store.put_xorb(repo, whole)
        store.put_shard(repo, whole)
        store.put_shard(repo, half)
        store.commit(repo, {"half.bin": half.sha256})
    store.later(LONG)
    assert store.planned().items == ()
    with store.served():
        assert store.read(repo, "half.bin") == part.data


# between the plan and the deed


def commit_it(store: KeptStore, repo: str, oid: str) -> None:
    store.commit(repo, {"again.bin": digest(LOOSE)})


def branch_from_it(store: KeptStore, repo: str, oid: str) -> None:
    store.ask("POST", f"/api/datasets/{repo}/branch/back", json={"startingPoint": oid})


def tag_it(store: KeptStore, repo: str, oid: str) -> None:
    store.ask("POST", f"/api/datasets/{repo}/tag/{oid}", json={"tag": "back"})


@pytest.mark.parametrize("save", [commit_it, branch_from_it, tag_it])
def test_what_is_needed_again_after_the_plan_stays(
    store: KeptStore, save: Callable[[KeptStore, str, str], None]
) -> None:
    with store.served():
        repo = store.repo("scans")
        store.ask("POST", f"/api/datasets/{repo}/branch/side", json={})
        oid = store.commit(repo, {"a.bin": store.send(repo, LOOSE)}, revision="side")
        branch_deleted(store, repo)
    store.later(LONG)
    plan = store.planned()
    assert names(plan) == {digest(LOOSE)} and [commit.oid for commit in plan.commits] == [oid]
    with store.served():
        save(store, repo, oid)
    store.later(LONG)  # so that only the history speaks for it
    removed = store.removed(plan)
    assert removed.objects == 0 and removed.kept and removed.commits == (1 if save is commit_it else 0)
    assert store.damage() == []
    with store.served():
        path, revision = ("again.bin", "main") if save is commit_it else ("a.bin", "back")
        assert store.read(repo, path, revision) == LOOSE


def test_what_the_plan_does_not_name_stays_though_nothing_needs_it_now(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        store.ask("POST", f"/api/datasets/{repo}/branch/side", json={})
        oid = store.commit(repo, {"a.bin": store.send(repo, KEPT)}, revision="side")
        store.send(repo, LOOSE)
        other = store.send(repo, b"other" * 999)
    store.later(LONG)
    whole = store.planned()
    plan = dataclasses.replace(whole, items=tuple(item for item in whole.items if item.digest != other))
    with store.served():
        branch_deleted(store, repo)
    store.later(LONG)
    assert names(store.planned()) == {digest(KEPT), digest(LOOSE), other}
    removed = store.removed(plan)
    assert (removed.objects, removed.commits) == (1, 0)
    assert store.files() == {digest(KEPT), other}
    with store.served():
        assert store.read(repo, "a.bin", oid) == KEPT
        assert "actions" not in store.batch(repo, other, len(b"other" * 999))


# where nothing is removed


def test_while_a_history_cannot_be_read_nothing_is_planned_and_nothing_removed(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        store.commit(repo, {"deep/a.bin": store.send(repo, KEPT)})
        store.send(repo, LOOSE)
    store.later(LONG)
    plan = store.planned()
    [(tree, data)] = sql(store, "SELECT oid, data FROM git_object WHERE kind = 2 AND size < 40")
    other = sql(store, "SELECT data FROM git_object WHERE kind = 2 AND size > 40")[0][0]
    for damage in (None, other, b"no zlib"):
        sql(store, "DELETE FROM git_object WHERE oid = ?", tree)
        if damage is not None:
            repo_id = sql(store, "SELECT id FROM repo")[0][0]
            sql(store, "INSERT INTO git_object VALUES (?, ?, 2, 33, ?, NULL, NULL)", repo_id, tree, damage)
        before = store.files()
        for attempt in (store.planned, lambda: store.removed(plan)):
            with pytest.raises(StoreDamagedError, match=f"datasets/alice/scans: git object {tree}"):
                attempt()
        assert store.files() == before
    sql(store, "UPDATE git_object SET data = ? WHERE oid = ?", data, tree)
    assert store.removed(plan).objects == 1


def test_a_commit_that_no_ref_reaches_and_nobody_can_read_stops_it_too_and_is_named(store: KeptStore) -> None:
    """It may be one that somebody can still name by its id: what it needs is not known."""
    with store.served():
        repo = store.repo("scans")
        old = store.commit(repo, {"a.bin": store.send(repo, KEPT)})
        store.ask("POST", f"/api/datasets/{repo}/super-squash/main", json={"message": "one"})
    store.later(LONG)
    sql(store, "UPDATE git_object SET data = ? WHERE oid = ?", zlib.compress(b"another commit"), old)
    with pytest.raises(StoreDamagedError) as refused:
        store.planned()
    assert str(refused.value) == (
        f"datasets/{repo}: git object {old} is not what its id says. While a history cannot be read, nobody can say"
        " what it needs, and nothing is removed: see what `check` says, and mend it first"
    )


def test_the_commits_of_every_repo_that_nothing_reaches_are_named(store: KeptStore) -> None:
    left = set()
    with store.served():
        for name in ("first", "second"):
            repo = store.repo(name)
            left.add((f"datasets/{repo}", store.commit(repo, {"a.txt": b"text"})))
            store.ask("POST", f"/api/datasets/{repo}/super-squash/main", json={"message": "one"})
    store.later(LONG)
    assert left < {(commit.name, commit.oid) for commit in store.planned().commits}


def test_no_link_is_followed_and_nothing_outside_the_store_is_touched(store: KeptStore, tmp_path: Path) -> None:
    with store.served():
        repo = store.repo("scans")
        for number in range(3):
            store.send(repo, LOOSE + bytes([number]))
    store.later(LONG)
    plan = store.planned()
    assert len(plan.items) == 3
    outside = tmp_path / "outside"
    outside.mkdir()
    linked_file, linked_folder, left = (store.root / "content" / item.digest[:2] / item.digest for item in plan.items)
    (outside / linked_file.name).write_bytes(linked_file.read_bytes())
    linked_file.unlink()
    linked_file.symlink_to(outside / linked_file.name)
    linked_folder.parent.rename(outside / "folder")
    linked_folder.parent.symlink_to(outside / "folder")

    removed = store.removed(plan)

    assert removed.objects == 1 and not left.exists()
    assert {path.name for path in outside.rglob("*") if path.is_file()} == {linked_file.name, linked_folder.name}
    assert linked_file.is_symlink()
    for item in plan.items[:2]:  # nor where it became a link in the last moment
        with pytest.raises(OSError):
            remove._unlink(store.root, item)
    assert (outside / linked_file.name).exists() and (outside / "folder" / linked_folder.name).exists()

    store.later(LONG)  # the links themselves are old now too
    assert store.planned().items == ()

    (store.root / "content").rename(outside / "content")
    (store.root / "content").symlink_to(outside / "content")
    with pytest.raises(PlanError, match="is a link"):
        store.planned()


def test_a_file_that_has_another_size_than_planned_stays(store: KeptStore) -> None:
    with store.served():
        store.send(store.repo("scans"), LOOSE)
    store.later(LONG)
    plan = store.planned()
    path = store.root / "content" / digest(LOOSE)[:2] / digest(LOOSE)
    os.truncate(path, 10)
    assert store.removed(plan).objects == 0
    with pytest.raises(OSError, match="10 bytes"):
        remove._unlink(store.root, plan.items[0])
    assert path.exists()


def test_strangers_in_the_store_are_named_and_left_alone(store: KeptStore) -> None:
    with store.served():
        store.send(store.repo("scans"), LOOSE)
    folder = store.root / "content" / digest(LOOSE)[:2]
    wrong = "00" if folder.name != "00" else "11"
    for stranger in (folder / "notes.txt", folder / (wrong + "a" * 62), store.root / "xorbs" / "readme"):
        stranger.write_bytes(b"mine")
        os.utime(stranger, (0, 0))
    store.later(LONG)
    with reading(store.root), store.served():
        plan, looked = make(store.root, store.hub.database)
    assert len(looked.strangers) == 3 and names(plan) == {digest(LOOSE)}
    store.removed(plan)
    assert (folder / "notes.txt").exists() and (store.root / "xorbs" / "readme").exists()


def test_a_plan_is_read_as_it_was_written_and_no_other_is(store: KeptStore, tmp_path: Path) -> None:
    with store.served():
        repo = store.repo("scans")
        store.send(repo, LOOSE)
        store.send(repo, KEPT)
        store.ask("POST", f"/api/datasets/{repo}/branch/side", json={})
        store.commit(repo, {"a.txt": b"text"}, revision="side")
        branch_deleted(store, repo)
    store.later(LONG)
    plan, path = store.planned(), tmp_path / "plan"
    write(plan, path)
    assert read(path) == plan and len(plan.items) == 2 and len(plan.commits) == 1
    with pytest.raises(FileExistsError):
        write(plan, path)
    text = path.read_text()
    first, _, *rest = text.splitlines()
    for other in (
        "",
        "no plan",
        "[]",
        '{"plan": 2}',
        "\n".join([first, *rest]),
        text.replace(digest(LOOSE), digest(KEPT)),
    ):
        path.write_text(other)
        with pytest.raises(PlanError):
            read(path)


def test_a_plan_that_names_a_path_is_refused(store: KeptStore, tmp_path: Path) -> None:
    path = tmp_path / "plan"
    line = json.dumps({"kind": "lfs", "digest": "../../hub.sqlite3", "size": 1, "age_days": 99.0, "why": ""})
    head = {"plan": 1, "root": "", "store": "", "made": 0, "keep_days": 30, "sha256": digest(line.encode())}
    path.write_text(json.dumps(head) + "\n" + line + "\n")
    with pytest.raises(PlanError, match="no file of a store"):
        read(path)


def test_a_plan_for_another_store_or_with_too_few_days_is_refused(
    store: KeptStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.served():
        store.send(store.repo("scans"), LOOSE)
    store.later(LONG)
    plan = store.planned()
    for changed in ({"root": str(tmp_path)}, {"store": "0" * 16}, {"keep_days": 0.5}):
        with pytest.raises(PlanError):
            store.removed(dataclasses.replace(plan, **changed))  # type: ignore[arg-type]
    assert store.files() == {digest(LOOSE)}


def test_nothing_is_removed_while_a_server_serves_or_somebody_reads_and_no_server_starts_meanwhile(
    store: KeptStore,
) -> None:
    with store.served():
        store.send(store.repo("scans"), LOOSE)
    store.later(LONG)
    plan = store.planned()
    with store.served(), pytest.raises(HubInUseError, match="stop it first"):
        store.removed(plan)
    with reading(store.root), pytest.raises(HubInUseError, match="checked"):
        store.removed(plan)
    with removing(store.root):
        for attempt in (take_for_serving, lambda root: reading(root).__enter__()):
            with pytest.raises(HubInUseError):
                attempt(store.root)
    assert store.removed(plan).objects == 1


def test_xets_address_is_another_one_only_after_a_xorb_has_gone(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        store.send(repo, LOOSE)
        first = store.xet(repo)[0]
    store.later(LONG)
    store.removed(store.planned())
    with store.served():
        assert store.xet(repo)[0] == first
        store.send_xet(repo, some_content("loose"))
    store.later(LONG)
    store.removed(store.planned())
    with store.served():
        assert store.xet(repo)[0] != first
    assert sql(store, "SELECT (SELECT COUNT(*) FROM xorb) + (SELECT COUNT(*) FROM chunk) + (SELECT COUNT(*) FROM given)"
               " + (SELECT COUNT(*) FROM xorb_sender) + (SELECT COUNT(*) FROM reconstruction)") == [(0,)]  # fmt: skip


@pytest.mark.parametrize("kind", ["lfs", "xorb"])
def test_no_mistake_in_choosing_files_removes_what_is_needed(
    store: KeptStore, monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    by_xet = some_content("kept")
    with store.served():
        repo = store.repo("scans")
        store.commit(repo, {"a.bin": store.send(repo, KEPT), "b.bin": store.send_xet(repo, by_xet)})
    store.later(LONG)
    name, size = (digest(KEPT), len(KEPT)) if kind == "lfs" else (to_text(by_xet.xorb_hash), len(by_xet.xorb))
    wrong = Item(kind, name, size, 40.0, "a mistake")
    monkeypatch.setattr(remove, "look", lambda *_: Looked([wrong]))
    with pytest.raises(AssertionError, match=r"^content that is needed$"):
        store.removed(dataclasses.replace(store.planned(), items=(wrong,)))
    assert store.files() == {digest(KEPT), to_text(by_xet.xorb_hash)} and store.damage() == []


def test_no_mistake_in_choosing_commits_removes_one_that_nobody_let_go(
    store: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.served():
        repo = store.repo("scans")
        head = store.commit(repo, {"a.bin": store.send(repo, KEPT)})
        store.send(repo, LOOSE)
    store.later(LONG)
    plan, decide = store.planned(), needed

    def one_too_many(*arguments: Any) -> Any:
        found = decide(*arguments)
        found.commits.append(Commit(1, head, 0.0))
        return found

    monkeypatch.setattr(remove, "needed", one_too_many)
    with pytest.raises(AssertionError, match=r"^a commit that nobody let go$"):
        store.removed(plan)
    assert store.files() == {digest(KEPT), digest(LOOSE)} and store.damage() == []


def test_a_file_that_the_database_speaks_of_once_more_is_not_removed(
    store: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.served():
        store.send(store.repo("scans"), LOOSE)
    store.later(LONG)
    monkeypatch.setattr(remove, "_named", lambda _: {("lfs", digest(LOOSE))})
    with pytest.raises(AssertionError, match=f"^{digest(LOOSE)} is named by the database again$"):
        store.removed(store.planned())
    assert store.files() == {digest(LOOSE)}


def test_every_file_that_the_database_speaks_of_is_known_before_one_goes(store: KeptStore) -> None:
    by_xet = some_content("by xet")
    with store.served():
        repo = store.repo("scans")
        store.send(repo, LOOSE)
        store.send_xet(repo, by_xet)
        assert remove._named(store.hub.database) == {
            ("lfs", digest(LOOSE)), ("lfs", by_xet.sha256), ("xorb", to_text(by_xet.xorb_hash)),
        }  # fmt: skip


def test_files_that_are_gone_already_and_those_that_stay_are_told_of(store: KeptStore) -> None:
    datas = [LOOSE + bytes([number]) for number in range(6)]
    with store.served():
        repo = store.repo("scans")
        for data in datas:
            store.send(repo, data)
    store.later(LONG)
    plan = store.planned()
    items = [item.digest for item in plan.items]
    for name in (items[1], items[3]):
        (store.root / "content" / name[:2] / name).unlink()
    with store.served():
        store.commit(repo, {"a.bin": items[2], "b.bin": items[5]})
    removed = store.removed(plan)
    assert (removed.objects, removed.gone) == (2, 2)
    why = "stays: it is needed by now, was promised again, or has another size"
    assert removed.kept == [f"lfs {name} {why}" for name in (items[2], items[5])]


def test_files_that_go_by_themselves_at_the_last_moment_are_counted_as_gone(
    store: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.served():
        repo = store.repo("scans")
        sent = [store.send(repo, LOOSE + bytes([number])) for number in range(3)]
    store.later(LONG)
    named = remove._named

    def named_and_gone(database: Any) -> Any:
        for name in sent[:2]:
            (store.root / "content" / name[:2] / name).unlink()
        return named(database)

    monkeypatch.setattr(remove, "_named", named_and_gone)
    removed = store.removed(store.planned())
    assert (removed.objects, removed.gone, removed.kept) == (1, 2, [])


def test_a_plan_for_another_store_or_of_no_days_is_refused_with_the_reason(store: KeptStore, tmp_path: Path) -> None:
    plan = store.planned()
    with pytest.raises(PlanError) as refused:
        store.removed(dataclasses.replace(plan, root="/elsewhere"))
    here = store.root.resolve()
    assert str(refused.value) == f"This plan was made for /elsewhere, not for {here}: make one for this store"
    with pytest.raises(PlanError) as refused:
        store.removed(dataclasses.replace(plan, keep_days=0.5))
    assert str(refused.value) == "This plan keeps what was sent in the last 0.5 days: at least 1"


def a_link(path: Path) -> str:
    path.rename(path.with_suffix(".away"))
    path.symlink_to(path.with_suffix(".away"))
    return "it is a link or no file"


def other_bytes(path: Path) -> str:
    path.write_bytes(LOOSE + b"more")
    return f"it has {len(LOOSE) + 4} bytes, not {len(LOOSE)}"


@pytest.mark.parametrize("spoil", [a_link, other_bytes])
def test_a_file_that_is_another_one_at_the_last_moment_stays_and_is_told_of(
    store: KeptStore, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], str]
) -> None:
    with store.served():
        store.send(store.repo("scans"), LOOSE)
    store.later(LONG)
    plan = store.planned()
    path = store.root / "content" / digest(LOOSE)[:2] / digest(LOOSE)
    named, said = remove._named, list[str]()

    def named_and_spoilt(database: Any) -> Any:
        said.append(spoil(path))
        return named(database)

    monkeypatch.setattr(remove, "_named", named_and_spoilt)
    removed = store.removed(plan)
    assert removed.kept == [f"lfs {digest(LOOSE)} stays: {said[0]}"]
    assert (removed.objects, removed.size, removed.gone) == (0, 0, 0)
    assert path.read_bytes().startswith(LOOSE)


def test_a_store_of_before_the_promises_counts_as_promised_when_it_is_first_opened(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        store.send(repo, LOOSE)
        store.send_xet(repo, some_content("loose"))
    store.later(LONG)
    for table in ("holding", "xorb"):
        sql(store, f"ALTER TABLE {table} DROP COLUMN promised")
    sql(store, "DROP TABLE abandoned")
    assert store.planned().items == ()
    store.later(LONG)
    assert len(store.planned().items) == 2


# what a person reads of a plan


def test_the_first_line_of_a_plan_sums_it_up_and_seals_the_rest(tmp_path: Path) -> None:
    items = (Item("lfs", "a" * 64, 7, 40.0, "sent"), Item("xorb", "b" * 64, 5, 40.0, "grüße"))
    plan = Plan("/srv/hub", "store", 1.0, 30.0, items, (LetGo(1, "lab/b", "2" * 40, 40.0),))
    path = tmp_path / "plan"
    write(plan, path)
    first, *rest = path.read_text(encoding="ascii").splitlines()
    assert json.loads(first) == {
        "plan": 1, "root": "/srv/hub", "store": "store", "made": 1.0, "keep_days": 30.0, "objects": 2, "bytes": 12,
        "commits": 1, "sha256": digest("\n".join(rest).encode()),
    }  # fmt: skip
    assert read(path) == plan

    path.write_text("\n".join([first.replace('"plan": 1', '"plan": 2'), *rest]))
    with pytest.raises(PlanError) as refused:
        read(path)
    assert str(refused.value) == f"{path} is a plan of another version of the Hub: make a new one"
    path.write_text("\n".join([first, *rest[:-1]]))
    with pytest.raises(PlanError) as refused:
        read(path)
    assert str(refused.value) == (
        f"{path} is not as `gc plan` wrote it: make a new one, since nobody has approved this one"
    )


def test_a_plan_is_summed_up_by_reason_with_the_way_to_go_on(tmp_path: Path) -> None:
    items = [
        *(Item("lfs", f"{number:064}", 1000 + number, 40.0, f"reason {number:02}") for number in range(13)),
        Item("xorb", "a" * 64, 5_000_000, 40.0, "no file is made of it"),
        Item("xorb", "b" * 64, 5_000_000, 40.0, "no file is made of it"),
    ]
    commits = [LetGo(1, "datasets/lab/a", "1" * 40, 40.0)] * 1200 + [LetGo(2, "lab/b", "2" * 40, 40.0)]
    plan = Plan("/srv/hub", "store", 0.0, 30.0, tuple(items), tuple(commits))
    looked = Looked(items, 12_345, 2_000_000_000, [f"content/x{number}" for number in range(7)])
    told = list(lines(plan, looked, tmp_path / "plan", Path("/srv/hub")))
    assert told == [
        "12,345 files (2.0 GB) stay: a commit needs them, or they were sent or",
        "promised in the last 30 days.",
        "7 others are none of the Hub's files and are left alone: content/x0, content/x1, content/x2, content/x3,"
        " content/x4",
        "15 files (10.0 MB) can be removed:",
        "  2 (10.0 MB): no file is made of it",
        *(f"  1 (1.0 kB): reason {number:02}" for number in range(12, 1, -1)),
        "  and 2 more reasons",
        "  1,200 commits of datasets/lab/a that no branch, tag or pull request reaches, with their texts",
        "  1 commit of lab/b that no branch, tag or pull request reaches, with its texts",
        f"Each of them is in {tmp_path / 'plan'}. Once you have read it, stop the server, and make a backup if you want"
        " one:",
        f"  gc run {tmp_path / 'plan'} --root /srv/hub                              # asks first",
        f"  gc run {tmp_path / 'plan'} --root /srv/hub --yes-delete {plan.size}     # in a script",
    ]


def test_as_many_reasons_as_are_shown_are_all(tmp_path: Path) -> None:
    items = tuple(Item("lfs", f"{number:064}", 1, 40.0, f"reason {number}") for number in range(12))
    plan = Plan("/srv/hub", "store", 0.0, 30.0, items, ())
    told = list(lines(plan, Looked(list(items)), tmp_path / "plan", tmp_path))
    assert sum(": reason" in line for line in told) == 12 and not any("more reasons" in line for line in told)


def test_a_plan_of_nothing_says_so_and_names_no_way_on(tmp_path: Path) -> None:
    plan = Plan("/srv/hub", "store", 0.0, 7.5, (), ())
    told = list(lines(plan, Looked([], 1, 10), tmp_path / "plan", tmp_path))
    assert told == [
        "1 file (10 B) stays: a commit needs it, or it was sent or",
        "promised in the last 7.5 days.",
        "Nothing can be removed.",
    ]


def test_a_plan_of_commits_alone_is_one_too(tmp_path: Path) -> None:
    plan = Plan("/srv/hub", "store", 0.0, 30.0, (), (LetGo(1, "lab/b", "2" * 40, 40.0),))
    told = list(lines(plan, Looked([]), tmp_path / "plan", tmp_path))
    assert "0 files (0 B) can be removed:" in told and "Nothing can be removed." not in told


# a process that dies in the middle


class Died(BaseException):
    """As a SIGKILL: nothing of the process's own runs after it but what undoes nothing."""


@pytest.mark.parametrize("moment", [0, 1, 3])
def test_a_removal_that_dies_between_two_files_leaves_a_whole_store_and_the_next_plan_names_the_rest(
    store: KeptStore, monkeypatch: pytest.MonkeyPatch, moment: int
) -> None:
    with store.served():
        repo = store.repo("scans")
        store.commit(repo, {"kept.bin": store.send(repo, KEPT)})
        for number in range(2):
            store.send(repo, LOOSE + bytes([number]))
            store.send_xet(repo, some_content(f"loose {number}"))
    store.later(LONG)
    plan, left = store.planned(), moment
    assert len(plan.items) == 4
    unlink = remove._unlink

    def dies(root: Path, item: object) -> None:
        nonlocal left
        if left == 0:
            raise Died
        left -= 1
        unlink(root, item)  # type: ignore[arg-type]

    monkeypatch.setattr(remove, "_unlink", dies)
    with pytest.raises(Died):
        store.removed(plan)
    monkeypatch.setattr(remove, "_unlink", unlink)
    assert len(store.files()) == 5 - moment
    assert store.damage() == []
    with store.served():
        assert "actions" in store.batch(repo, digest(LOOSE + b"\0"), len(LOOSE) + 1)
    again = store.planned()
    assert len(again.items) == 4 - moment
    assert store.removed(again).objects == 4 - moment
    assert store.files() == {digest(KEPT)} and store.damage() == []
