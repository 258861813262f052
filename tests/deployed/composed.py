"""What compose.yaml would run in containers, run as plain processes on the loopback.

No container engine is needed, and none is imitated beyond this: the file is read with the values that an operator would
give it, host names and ports become those of this machine, each service's command runs with the service's own
environment and nothing else, in a copy of what the Dockerfile copies, and the service's own health check says when it
is there. PostgreSQL is a real one (`tests.postgres`) in the place of the database's container.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from deployments.local_stack import REPO, START_SECONDS, Process, StackError, wait_until
from tests.ports import own_port

DEPLOYMENTS = REPO / "deployments"
BIN = Path(sys.executable).parent
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


def interpolated(text: str, values: Mapping[str, str]) -> str:
    """The compose file with the operator's values: `${NAME:?why}` must have one, `${NAME:-default}` may."""

    def value(found: re.Match[str]) -> str:
        name, kind, rest = found.groups()
        if not values.get(name) and kind != "-":
            raise StackError(f"compose.yaml needs {name} ({rest})")
        return values.get(name) or rest

    return VARIABLE.sub(value, text)


def image(folder: Path) -> Path:
    """What the Dockerfile puts into the image: what .dockerignore lets into the build."""
    let_in = (REPO / ".dockerignore").read_text().splitlines()
    for line in (DEPLOYMENTS / "Dockerfile").read_text().splitlines():
        if line.startswith("COPY "):
            _, what, where = line.split()
            assert f"!{what}" in let_in, f".dockerignore keeps {what} out"
            goal = folder / where
            if (REPO / what).is_dir():
                shutil.copytree(REPO / what, goal, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                goal.mkdir(parents=True, exist_ok=True)
                shutil.copy2(REPO / what, goal)
    return folder


@dataclass
class Composed:
    """The services of compose.yaml on this machine."""

    folder: Path
    values: Mapping[str, str]
    """What stands in the operator's compose.env."""
    database_port: int
    server_port: int
    worker_port: int = field(default_factory=own_port)
    hub_port: int = field(default_factory=own_port)
    more: Mapping[str, str] = field(default_factory=dict)
    """More environment for each service, as an image sets it."""
    processes: dict[str, Process] = field(default_factory=dict)

    def __post_init__(self) -> None:
        services = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())["services"]
        self.services: dict[str, Any] = yaml.safe_load(interpolated(yaml.safe_dump(services), self.values))
        self.code = image(self.folder / "image")

    def here(self, text: str) -> str:
        """A value of the file with the hosts and the ports of this machine."""
        for there, here in (
            ("http://server:4200", f"http://127.0.0.1:{self.server_port}"),
            ("127.0.0.1:4200", f"127.0.0.1:{self.server_port}"),
            ("127.0.0.1:8080", f"127.0.0.1:{self.worker_port}"),
            ("127.0.0.1:8123", f"127.0.0.1:{self.hub_port}"),
        ):
            text = text.replace(there, here)
        whole = {"0.0.0.0": "127.0.0.1", "4200": str(self.server_port), "database": "127.0.0.1",
                 "5432": str(self.database_port), "/tmp/prefect-ui": str(self.folder / "ui"),
                 "8123": str(self.hub_port), "/srv/hub": str(self.folder / "hub"),
                 "/srv/hub-backup": str(self.folder / "hub-backup")}  # fmt: skip
        return whole.get(text, text)

    def environment(self, name: str) -> dict[str, str]:
        """A service's own environment, and none of ours. No git on the PATH: the image has none."""
        own = {key: self.here(str(value)) for key, value in self.services[name].get("environment", {}).items()}
        home = {"HOME": str(self.folder), "PREFECT_HOME": str(self.folder / f"prefect-{name}"), "PATH": f"{BIN}:/bin"}
        return {**home, "PREFECT_WORKER_WEBSERVER_PORT": str(self.worker_port), **self.more, **own}

    def command(self, what: list[str]) -> list[str]:
        """A command of the file, run by this Python's virtual environment."""
        program, *arguments = (self.here(str(word)) for word in what)
        return [str(BIN / program), *arguments]

    def run(self, name: str) -> str:
        """Run a service that ends; what it printed."""
        done = subprocess.run(
            self.command(self.services[name]["command"]),
            cwd=self.code, env=self.environment(name), capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise StackError(f"{name} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")
        return done.stdout

    def start(self, name: str) -> Process:
        """Start a service, and wait until its health check, where it has one, is content."""
        log = self.folder / f"{name}.log"
        with log.open("ab") as output:
            popen = subprocess.Popen(
                self.command(self.services[name]["command"]),
                cwd=self.code, env=self.environment(name), stdin=subprocess.DEVNULL, stdout=output,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        process = self.processes[name] = Process(name, popen, log)
        if "healthcheck" in self.services[name]:
            wait_until(f"{name} is healthy", lambda: self.healthy(name), START_SECONDS, process)
        return process

    def healthy(self, name: str) -> bool:
        """What the service's health check says."""
        _, *check = self.services[name]["healthcheck"]["test"]
        done = subprocess.run(self.command(check), env=self.environment(name), capture_output=True, check=False)
        return done.returncode == 0

    def stop(self) -> None:
        """End every service, the last one first."""
        for process in reversed(self.processes.values()):
            process.stop()
