"""One Hub for the whole package, accounts with different rights, and a fresh dataset for each test."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import HfApi, constants

from tests.local_hub.running import RunningHub

_numbers = itertools.count(1)


def pytest_configure(config: pytest.Config) -> None:
    # the public client's own use of its HTTP library; nothing here can change it
    config.addinivalue_line("filterwarnings", "ignore:Use 'content=:DeprecationWarning")


MakeRepo = Callable[..., str]


@pytest.fixture(scope="package", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        home = tmp_path_factory.mktemp("hf-home")
        patch.setenv("HF_HOME", str(home))
        patch.setenv("HF_XET_CACHE", str(home / "xet"))
        patch.setattr(constants, "HF_TOKEN_PATH", str(home / "token"))
        patch.setattr(constants, "HF_HUB_CACHE", str(home / "hub"))
        yield


@pytest.fixture(scope="package")
def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
    with RunningHub(tmp_path_factory.mktemp("hub") / "root") as running:
        yield running


@pytest.fixture(scope="package")
def token(hub: RunningHub) -> str:
    return hub.token("alice", "write", "--org", "lab")


def a_hub_alone(name: str) -> tuple[Any, Any, Any]:
    """The fixtures of a module that has a Hub for its tests alone: `hub`, `token`, and `transport`, which is LFS."""

    @pytest.fixture(scope="module")
    def hub(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHub]:
        with RunningHub(tmp_path_factory.mktemp(name) / "root") as running:
            yield running

    @pytest.fixture(scope="module")
    def token(hub: RunningHub) -> str:
        return hub.token("alice", "write", "--org", "lab")

    @pytest.fixture
    def transport(monkeypatch: pytest.MonkeyPatch) -> str:
        return travel_by("lfs", monkeypatch)

    return hub, token, transport


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """How content travels; "lfs" is what HF_HUB_DISABLE_XET=1 does to the client.

    Modules whose subject does not depend on it name one by overriding this fixture.
    """
    return travel_by(str(request.param), monkeypatch)


def travel_by(transport: str, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", transport == "lfs")
    return transport


@pytest.fixture
def api(hub: RunningHub, token: str, transport: str) -> HfApi:
    return HfApi(hub.endpoint, token=token)


@pytest.fixture
def dataset(api: HfApi) -> str:
    """The name of a new, empty, private dataset of alice's."""
    name = f"alice/scans-{next(_numbers)}"
    api.create_repo(name, repo_type="dataset", private=True)
    return name


@pytest.fixture
def fresh(tmp_path: Path) -> RunningHub:
    """A Hub of the test's own, which it starts and may end."""
    return RunningHub(tmp_path / "hub")


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """An empty download cache."""
    return tmp_path / "cache"
