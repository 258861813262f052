"""`check` on a store that others write to in the middle of it, and on damage of each kind."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from deployments.local_hub import check, history
from deployments.local_hub.check import damage
from tests.local_hub.kept_store import KeptStore, some_content

KEPT = b"kept: 3e0c77aa" * 300


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptStore:
    return KeptStore(tmp_path / "hub", monkeypatch)


def test_a_repo_that_is_deleted_or_written_to_while_it_is_checked_is_no_damage(
    store: KeptStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    reached = history.reached
    with store.served():
        deleted, written = store.repo("deleted"), store.repo("written")
        for repo in (deleted, written):
            store.commit(repo, {"a.bin": store.send(repo, KEPT), "b.bin": store.send_xet(repo, some_content("b"))})
        happened: list[str] = []

        def meanwhile(*arguments: Any) -> Iterator[Any]:
            if not happened:  # what is to be reached is known, and nothing of it was read yet
                happened.append("both")
                store.delete_repo(deleted)
                store.commit(written, {"c.bin": store.send(written, b"new" * 999)}, delete=("a.bin",))
            return reached(*arguments)

        monkeypatch.setattr(check, "reached", meanwhile)
        assert list(damage(store.hub)) == [] and happened


def changed(store: KeptStore, statement: str, *values: object) -> None:
    with closing(sqlite3.connect(store.root / "hub.sqlite3")) as database, database:
        assert database.execute(statement, values).rowcount > 0


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("DELETE FROM holding WHERE xet IS NULL", "which the repo does not hold"),
        ("UPDATE holding SET size = size + 1 WHERE xet IS NULL", "bytes, not"),
        ("DELETE FROM reconstruction", "is made of is not known"),
        ("UPDATE xorb SET ends = zeroblob(length(ends))", "its chunks lie elsewhere"),
        ("UPDATE git_object SET sha256 = NULL WHERE sha256 NOT NULL", "listed with other content"),
        ("DELETE FROM git_object WHERE kind = 2", "is missing"),
        ("UPDATE git_object SET data = x'00' WHERE kind = 1", "cannot be unpacked"),
        ("UPDATE reconstruction SET repo = 77", "a line speaks of a repo that is not there"),
    ],
)
def test_each_kind_of_damage_in_the_database_is_named(store: KeptStore, statement: str, said: str) -> None:
    with store.served():
        repo = store.repo("scans")
        store.commit(repo, {"a.bin": store.send(repo, KEPT), "b.bin": store.send_xet(repo, some_content("b"))})
    assert store.damage() == []
    changed(store, statement)
    assert any(said in line for line in store.damage())


def test_a_file_that_cannot_be_read_is_named_and_the_rest_is_read(store: KeptStore) -> None:
    with store.served():
        repo = store.repo("scans")
        first, second = store.send(repo, KEPT), store.send(repo, KEPT * 2)
    for sha256 in (first, second):
        path = store.root / "content" / sha256[:2] / sha256
        path.unlink()
        path.mkdir()
    lines = store.damage()
    assert {first, second} == {
        sha256 for sha256 in (first, second) if any("cannot be read" in line and sha256 in line for line in lines)
    }
