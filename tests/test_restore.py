"""What a restore brings back from the Hub, and what it leaves alone: on a real local Hub and a real Prefect server."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows.restore_bids import restore_bids
from tasks.hub.client import Hub
from tasks.load import load
from tests.test_flows import push

pytestmark = pytest.mark.usefixtures("prefect_server", "with_token")


def restore(hub: Hub, into: Path, **parameters: Any) -> State[Any]:
    return restore_bids(hub.target.repo_id, str(into), return_state=True, **parameters)


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, those with hidden names too."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def test_every_image_and_text_comes_back(bids: Path, target: Hub, root: Path, tmp_path: Path) -> None:
    push(bids, target, root)
    state = restore(target, tmp_path / "back")
    assert (state.type.value, state.name) == ("COMPLETED", "Restored"), state.message
    print(state.message)
    dataset = load(bids)
    wanted = {image.path for image in dataset.images} | set(dataset.texts)
    assert files(tmp_path / "back") == {path: (bids / path).read_bytes() for path in wanted}
