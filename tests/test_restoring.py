"""What docs/restoring.md says today: its lines of code bring every image and text back, byte for byte."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from deployments.local_stack import REPO, Stack
from tasks.card import side_files
from tasks.commit import commit
from tasks.commit.besides import Besides, as_recorded
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.load import load
from tasks.record.remote import read_remote
from tasks.transfer import transfer
from tasks.values.models import Receipt


def test_the_pages_lines_bring_back_every_image_and_text_with_its_bytes(
    hub: Hub, staging: Staging, staged: Callable[[int], list[Receipt]], bids: Path, hub_server: Stack, tmp_path: Path
) -> None:
    dataset, receipts = load(bids), staged(100)
    texts = side_files(dataset)
    besides = Besides(lambda record, existing: "---\nlicense: cc0-1.0\n---\n", texts, as_recorded(texts))
    operations = [one.operation for one in transfer(hub, staging, receipts)]
    commit(hub, read_remote(hub), [one.line() for one in receipts], operations, besides)
    (lines,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", (REPO / "docs" / "restoring.md").read_text(), re.DOTALL)
        if "snapshot_download" in block
    )

    environment = {**os.environ, "HF_TOKEN": hub_server.token, "HF_HOME": str(tmp_path / "home")}
    own = lines.replace("my-lab/my-dataset", hub.target.repo_id)
    done = subprocess.run(
        [sys.executable, "-c", own], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stderr[-3000:]
    back = {file.relative_to(tmp_path / "my-dataset").as_posix(): file for file in (tmp_path / "my-dataset").rglob("*")}
    files = {name for name, file in back.items() if file.is_file()}
    assert files == {image.path for image in dataset.images} | set(dataset.texts)
    assert all(back[name].read_bytes() == (bids / name).read_bytes() for name in files)
