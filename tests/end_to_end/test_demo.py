"""The demo unattended: what a newcomer runs first, from a home that has nothing in it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.local_stack import REPO


@pytest.fixture
def told(tmp_path: Path) -> str:
    """What `make demo-once SESSIONS=4` prints."""
    homes = {"HOME": "home", "HF_HOME": "hf", "PREFECT_HOME": "prefect"}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "HF_"))}
    environment = kept | {name: str(tmp_path / folder) for name, folder in homes.items()}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.demo", "--once", "--sessions", "4"],
        cwd=REPO, env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-2000:]}\n{done.stderr[-3000:]}"
    return done.stdout


@pytest.mark.timeout(600)  # half a minute on a quiet machine
def test_all_of_the_demo_holds_and_what_was_staged_loads_again_whatever_its_kind(told: str) -> None:
    assert "All of it held." in told
    (rows,) = (line for line in told.splitlines() if line.split()[:1] == ["rows"])
    images, others = (int(word.replace(",", "")) for word in rows.split() if word[0].isdigit())
    assert images > 20 and others > images, rows
