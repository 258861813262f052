"""On a machine that others use too, the store's files are its owner's alone."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from tests.local_hub.running import RunningHub


def open_to_others(root: Path) -> list[str]:
    """What others may do anything with, by its path in the store."""
    found = [root, *root.rglob("*")]
    return sorted(str(path.relative_to(root)) for path in found if path.stat().st_mode & 0o077)


def filled(hub: RunningHub, transport: str) -> None:
    api = HfApi(hub.endpoint, token=hub.token("alice"))
    api.create_repo(f"alice/{transport}", repo_type="dataset", private=True, exist_ok=True)
    api.upload_file(
        path_or_fileobj=os.urandom(200_000), path_in_repo="a.bin", repo_id=f"alice/{transport}", repo_type="dataset"
    )


def test_nothing_that_the_server_writes_can_be_opened_by_others(fresh: RunningHub, transport: str) -> None:
    umask = os.umask(0o022)
    try:
        with fresh as hub:
            filled(hub, transport)
            assert open_to_others(hub.root) == []
            assert list(hub.root.glob("content/*/*" if transport == "lfs" else "xorbs/*/*"))
    finally:
        os.umask(umask)


@pytest.mark.parametrize("transport", ["lfs"], indirect=True)
def test_a_store_that_others_could_open_is_closed_when_it_is_served_and_it_is_said_once(
    fresh: RunningHub, transport: str
) -> None:
    with fresh as hub:
        filled(hub, transport)
        hub.stop()
        with sqlite3.connect(hub.root / "hub.sqlite3") as database:
            database.execute("DELETE FROM setting WHERE key = 'closed'")
        database.close()
        for path in (hub.root, *hub.root.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)

        for _ in range(2):
            hub.start()
            assert open_to_others(hub.root) == []
            hub.stop()

        assert hub.log.count("They cannot now") == 1
