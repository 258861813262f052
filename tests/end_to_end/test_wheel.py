"""The wheel: what is in it, and a push by it alone, from a folder that has nothing of the repository.

The environment is a new one with the wheel and what requirements/run.txt pins in it, and nothing else. These are links
to the distributions that the tests run on, so that nothing is downloaded: whether the pins install is for tests/pins.py
to say.
"""

import os
import subprocess
import sys
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import psutil
import pytest
from packaging.requirements import Requirement

from deployments.local_stack import REPO, STOP_SECONDS, Stack
from deployments.runs import runs_of
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.record.remote import CARD
from tasks.values.version import version
from tests.end_to_end.conftest import GATE_SECONDS
from tests.end_to_end.nights import images_of, images_on

#: Of what lies beside the code: this serves a clone of the repository.
FOR_A_CLONE = ("Dockerfile", "compose.yaml", "compose.env.example", "compose.env", "systemd", "cluster")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(REPO))
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of an environment in which the wheel is installed."""
    home = tmp_path_factory.mktemp("installed")
    venv.create(home, with_pip=False)
    (packages,) = home.glob("lib/python*/site-packages")
    for library in run_requirements():
        for name in {file.parts[0] for file in library.files or ()} - {"..", "__pycache__"}:
            if not (packages / name).exists():  # a namespace that several share
                (packages / name).symlink_to(Path(str(library.locate_file(name))))
    python = str(home / "bin" / "python")
    pip("--python", python, "install", "--no-deps", str(wheel))
    pip("--python", python, "check")  # what the wheel says that it requires is what the pins bring
    return home / "bin"


def run_requirements() -> Iterator[Distribution]:
    """The distributions that a run needs on this machine, by the pins."""
    for line in (REPO / "requirements" / "run.txt").read_text().splitlines():
        if line.startswith((" ", "#")):
            continue  # a hash of the pin before
        pin = Requirement(line.rstrip("\\ "))
        if pin.marker is None or pin.marker.evaluate():
            found = distribution(pin.name)
            assert found.version in pin.specifier, f"{found.name} {found.version} is not the pinned one: make dev"
            yield found


def pip(*arguments: str) -> None:
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments]
    offline = {**os.environ, "PIP_NO_INDEX": "1"}
    done = subprocess.run(command, env=offline, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_wheel_holds_all_of_the_code_and_the_files_beside_it(wheel: Path) -> None:
    folders = (REPO / name for name in ("flows", "tasks", "deployments"))
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file()]
    needed = {path.relative_to(REPO) for path in files if "__pycache__" not in path.parts}
    needed = {path for path in needed if not set(FOR_A_CLONE) & set(path.parts)}
    packed = {Path(name) for name in ZipFile(wheel).namelist() if ".dist-info/" not in name}
    assert packed == needed | {Path("deployments/prefect.yaml")}
    assert wheel.name.startswith(f"bids_push-{version()}-")


def test_a_push_by_an_installed_package_from_a_folder_that_is_no_clone(
    hub_server: Stack, installed: Path, bids: Path, repo_id: str, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    with server(tmp_path / "stack", hub_server) as stack:

        def types(program: str, *arguments: str) -> str:
            done = subprocess.run(
                [installed / program, *arguments],
                cwd=elsewhere, env=stack.environment, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                check=False,
            )  # fmt: skip
            assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
            return done.stdout

        where = "import deployments, flows, tasks; print(deployments.__file__, flows.__file__, tasks.__file__)"
        assert str(REPO) not in types("python", "-c", where)
        assert types("python", "-c", "import importlib.util as of; print(of.find_spec('pytest'))") == "None\n"
        assert types("bids-push", "--version").strip() == f"bids-push, version {version()}"
        assert "bids-push worker" in types("bids-push", "deploy")
        command = [str(installed / "bids-push"), "worker"]
        with subprocess.Popen(command, cwd=elsewhere, env=stack.environment, start_new_session=True) as worker:
            try:
                asked: dict[str, Any] = {"source": str(bids), "repo_id": repo_id, "defacing": "no faces"}
                with runs_of(f"{stack.ui}/api") as runs:
                    run = runs.start("push-bids/manual", **asked)
                    runs.wait(run, {"PAUSED"}, GATE_SECONDS)
                decision = ("--decision", "delete", "--confirm-repo", repo_id)
                assert "Decided: CleanedUp" in types("bids-push", "gate", repo_id, *decision)
            finally:
                end(worker)

    hub = Hub(Target(hub_server.endpoint, repo_id), hub_server.token)
    assert images_on(hub) == images_of(bids)
    assert f"bids-push {version()}".encode() in (hub.read(CARD, hub.head()) or b"")
    assert list(elsewhere.iterdir()) == []


def end(worker: "subprocess.Popen[bytes]") -> None:
    """End a worker; at once, with the Prefect worker below it, if it has not ended in time."""
    worker.terminate()
    try:
        worker.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        for process in (*psutil.Process(worker.pid).children(recursive=True), worker):
            process.kill()


@contextmanager
def server(folder: Path, hub_server: Stack) -> Iterator[Stack]:
    """A Prefect server of its own, whose deployments no other test shares, and the local Hub of all tests."""
    folder.mkdir()
    stack = Stack(folder, hub_port=hub_server.hub_port, token=hub_server.token)
    try:
        stack.start_prefect()
        yield stack
    finally:
        stack.stop()
