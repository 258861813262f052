"""The Hub that compose.yaml starts, its backup and its check, as plain processes."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from deployments.local_stack import StackError
from tests.deployed.composed import BIN, Composed

VALUES = (
    "BIDS_PUSH_URL",
    "BIDS_PUSH_LOGIN",
    "DATABASE_PASSWORD",
    "HF_TOKEN",
    "BIDS_PUSH_DATA",
    "BIDS_PUSH_STAGING_ROOT",
)


@pytest.fixture
def composed(tmp_path: Path) -> Iterator[Composed]:
    composed = Composed(tmp_path, dict.fromkeys(VALUES, "unused"), 0, 0)
    try:
        composed.start("hub")
        yield composed
    finally:
        composed.stop()


def test_the_hub_serves_and_its_backup_and_check_run_beside_it(composed: Composed) -> None:
    store, copy = composed.folder / "hub", composed.folder / "hub-backup"
    made = [
        str(BIN / "python"),
        "-m",
        "deployments.local_hub",
        "token",
        "alice",
        "--role",
        "write",
        "--root",
        str(store),
    ]
    token = subprocess.run(made, cwd=composed.code, capture_output=True, text=True, check=True).stdout.strip()
    api = HfApi(f"http://127.0.0.1:{composed.hub_port}", token=token)
    api.create_repo("alice/scans", repo_type="dataset")
    content = b"made of 5d1f30c2" * 5000
    api.upload_file(path_or_fileobj=content, path_in_repo="a.bin", repo_id="alice/scans", repo_type="dataset")

    assert f"{copy} has all that {store} had" in composed.run("hub-backup")
    assert composed.run("hub-check") == composed.run("hub-check-backup") == ""

    for file in [*store.glob("content/*/*"), *store.glob("xorbs/*/*")]:
        file.unlink()
    with pytest.raises(StackError, match="hub-check failed"):
        composed.run("hub-check")
    assert composed.run("hub-check-backup") == ""
