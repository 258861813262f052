"""What a newcomer types: the commands of README.md and docs/operating.md, in order, each block in a new shell.

The blocks are taken from the pages and run by `bash` in a copy of the repository, with an empty home and an environment
that has nothing of the last shell's. Only what a reader has to fill in is filled in. The virtual environment is the one
that the tests run in, so `make setup` finds its work done: whether the pins install is for tests/pins.py to say.
"""

import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from deployments.local_stack import REPO, STOP_SECONDS, Stack, answers, wait_until
from deployments.runs import Runs, runs_of
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tests.end_to_end.conftest import GATE_SECONDS, a_worker_is_online
from tests.end_to_end.nights import images_of, images_on
from tests.ports import own_port

SHELL_SECONDS = 240.0  # for the commands of one block, on a machine that has other work too
STAYS = re.compile(r"prefect server start|prefect worker start|make worker")  # these go on until somebody ends them
DECIDES = "deployments.gate "  # what nobody types before the run is at its gate
OWN = (".venv", ".git", ".demo", ".bench", ".soak", "test-output", "__pycache__", ".*_cache")


@dataclass
class Newcomer:
    """Somebody with an empty home, a clone of the repository, and new shells."""

    home: Path
    clone: Path
    filled_in: Mapping[str, str]
    port: int
    variables: Mapping[str, str]
    """What their machine is about, and no page: the Hub that is meant, and who is told nothing."""
    staying: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def environment(self) -> dict[str, str]:
        return {"HOME": str(self.home), "PATH": os.environ["PATH"], "LANG": "C.UTF-8", **self.variables}

    @property
    def api(self) -> str:
        return f"http://127.0.0.1:{self.port}/api"

    def fill_in(self, text: str) -> str:
        """A text of a page with a reader's own names in the places of the examples."""
        for placeholder, own in self.filled_in.items():
            text = text.replace(placeholder, own)
        return text

    def types(self, block: str) -> str:
        """Type a block into a new shell; what it printed. A shell whose last command stays is left open."""
        text = self.fill_in(block)
        if STAYS.search(text):
            self.leave_open(["bash", "-ec", text], self.environment)
            return ""
        done = subprocess.run(
            ["bash", "-ec", text],
            cwd=self.clone,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SHELL_SECONDS,
            check=False,
        )
        said = done.stdout + done.stderr
        assert done.returncode == 0 and "Traceback" not in said, f"{block}\n{said[-3000:]}"
        return said

    def leave_open(self, command: list[str], environment: Mapping[str, str]) -> None:
        """Start what stays, and wait until it is there: a server that answers, or a worker that asks for work."""
        with (self.home / f"{len(self.staying)}.log").open("wb") as log:
            self.staying.append(
                subprocess.Popen(
                    command, cwd=self.clone, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                    start_new_session=True,
                )
            )  # fmt: skip
        up = f"{command[-1].splitlines()[-1]!r} is up"
        if "server start" in command[-1]:
            wait_until(up, lambda: answers(f"{self.api}/health"), SHELL_SECONDS)
            return
        with runs_of(self.api) as runs:
            wait_until(up, lambda: a_worker_is_online(runs), SHELL_SECONDS)

    def close(self) -> None:
        """End what stays, the last first."""
        for process in reversed(self.staying):
            for how in (signal.SIGTERM, signal.SIGKILL):
                with suppress(ProcessLookupError):
                    os.killpg(process.pid, how)
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STOP_SECONDS)


@pytest.fixture
def newcomer(hub_server: Stack, bids: Path, repo_id: str, tmp_path: Path) -> Iterator[Newcomer]:
    clone, home = tmp_path / "bids-push", tmp_path / "home"
    shutil.copytree(REPO, clone, ignore=shutil.ignore_patterns(*OWN))
    home.mkdir()
    (clone / ".venv").symlink_to(sys.prefix)
    for pins in (clone / "requirements").glob("*.txt"):
        os.utime(pins, (0, 0))  # older than the virtual environment
    port = own_port()
    (tmp_path / "token").write_text(f"HF_TOKEN={hub_server.token}\n")
    filled_in = {
        "git clone <this repository> /srv/bids-push && cd /srv/bids-push": f"cd {clone}",
        "/srv/bids-push": str(clone),
        "hf_...": hub_server.token,
        "/etc/bids-push/token": str(tmp_path / "token"),
        "/scratch/staging": str(tmp_path / "staging"),
        "/scratch/bids-push": str(tmp_path / "staging"),
        "/data/my-dataset": str(bids),
        "/data/x": str(bids),
        "my-lab/my-dataset": repo_id,
        "lab/x": repo_id,
        "4200": str(port),  # somebody else may have it on this machine
        "prefect server start": f"prefect server start --port {port}",
    }
    variables = {"HF_ENDPOINT": hub_server.endpoint, "DO_NOT_TRACK": "1", "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    newcomer = Newcomer(home, clone, filled_in, port, variables)
    try:
        yield newcomer
    finally:
        newcomer.close()


def section(page: str, heading: str) -> str:
    """A section of a page, to the next heading."""
    text = (REPO / page).read_text()
    assert f"\n{heading}\n" in text, f"{page} has no {heading!r}"
    return re.split(r"\n#+ ", text.split(f"\n{heading}\n")[1])[0]


def blocks(text: str) -> list[str]:
    """The code blocks of a text, without the indent of a list."""
    found = re.findall(r"^( *)```[a-z]*\n(.*?)^ *```$", text, re.MULTILINE | re.DOTALL)
    return [re.sub(rf"^{indent}", "", block, flags=re.MULTILINE) for indent, block in found]


def published(newcomer: Newcomer, hub_server: Stack, bids: Path, repo_id: str) -> None:
    """The run that was started comes to its gate, and the Hub holds the dataset."""
    with runs_of(newcomer.api) as runs:
        (run,) = runs.client.read_flow_runs()
        Runs(runs.client).wait(run.id, {"PAUSED"}, GATE_SECONDS)
    assert images_on(Hub(Target(hub_server.endpoint, repo_id), hub_server.token)) == images_of(bids)


def test_the_readmes_steps_publish_a_dataset_when_each_is_typed_in_a_new_shell(
    newcomer: Newcomer, hub_server: Stack, bids: Path, repo_id: str
) -> None:
    steps = blocks(section("README.md", "## Publish your dataset"))
    assert len(steps) >= 4
    *before, decision = steps
    assert DECIDES in decision and not any(DECIDES in step for step in before)
    for step in before:
        newcomer.types(step)
    published(newcomer, hub_server, bids, repo_id)
    newcomer.types(decision)
    with runs_of(newcomer.api) as runs:
        (run,) = runs.client.read_flow_runs()
        ended = runs.wait(run.id, seconds=GATE_SECONDS)
    assert ended.state is not None and ended.state.name == "CleanedUp"
    assert images_on(Hub(Target(hub_server.endpoint, repo_id), hub_server.token)) == images_of(bids)


def test_the_operators_steps_work_in_new_shells_with_a_service_of_another_user_as_the_worker(
    newcomer: Newcomer, hub_server: Stack, bids: Path, repo_id: str, tmp_path: Path
) -> None:
    install = blocks(section("docs/operating.md", "## Install"))
    (unit,) = [block for block in install if block.startswith("[Service]")]
    for block in install:
        if block != unit:
            newcomer.types(block)
    for block in blocks(section("docs/operating.md", "## Deploy")):
        newcomer.types(block)
    start_service(newcomer, unit, tmp_path / "another-home")
    table = section("docs/operating.md", "## Deploy")
    (command,) = re.findall(r"`([^`]*prefect deployment run push-bids/manual[^`]*)`", table)
    newcomer.types(command)
    published(newcomer, hub_server, bids, repo_id)


def start_service(newcomer: Newcomer, unit: str, home: Path) -> None:
    """What systemd does with the unit: its variables, the file of more of them, and the command; nothing else."""
    home.mkdir()
    lines = re.sub(r"\s+#.*", "", newcomer.fill_in(unit)).splitlines()
    values = [line.partition("=")[::2] for line in lines]
    environment = {"HOME": str(home), "PATH": "/usr/bin:/bin", **newcomer.variables}
    for name, value in values:
        if name in ("Environment", "EnvironmentFile"):
            for one in Path(value).read_text().split() if name == "EnvironmentFile" else [value]:
                environment |= dict([one.split("=", 1)])
    newcomer.leave_open(shlex.split(dict(values)["ExecStart"]), environment)
