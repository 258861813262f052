"""Do the pins work? `make requirements` runs this after pinning; `python -m tests.pins` does it at any other time.

Pins that install and import may still be of no use: with prefect 3.8.8 and SQLAlchemy 2.1.9 the server started, the
UI said that a schedule was on, and no schedule ever made a run. So this asks what an operator would:

1. Has each pin a wheel, for each Python that pyproject.toml allows, on Linux x86_64? Other platforms are told of.
2. From requirements/run.txt alone, in a virtual environment of its own: does a Prefect server start, does a cron
   schedule make a run, and does a worker bring it to its end? On SQLite, with a flow that does nothing.

It needs uv on the PATH and nothing but the standard library: it runs before anything is installed. It exits 1 with one
sentence that says what does not work. `--newest` checks the newest that pyproject.toml allows, and changes no file.
"""

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parent.parent
RUN = REPO / "requirements" / "run.txt"
LOCAL_HUB = REPO / "requirements" / "local-hub.txt"
DEV = REPO / "requirements" / "dev.txt"
RECORDINGS = REPO / "requirements" / "recordings.txt"
VALIDATOR = REPO / "requirements" / "validator.txt"
MUTANTS = REPO / "requirements" / "mutants.txt"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
NEEDED = "x86_64-manylinux_2_28"
TOLD_OF = ("aarch64-manylinux_2_28", "aarch64-apple-darwin", "x86_64-apple-darwin")
COMPILE = ("uv", "pip", "compile", "-q", "--upgrade", "--universal", "--python-version", PYTHONS[0],
           "--generate-hashes", "--no-emit-index-url", "--no-header", "--no-annotate")  # fmt: skip
SERVER_SECONDS = 120.0  # for a server to make its database and answer
RUN_SECONDS = 240.0  # for a schedule of every minute to make a run, and for a worker to end it, on a busy machine
STOP_SECONDS = 15.0  # between SIGTERM and SIGKILL
FLOW = '''"""A night in which nothing is done."""

from prefect import flow


@flow
def night() -> str:
    return "good"
'''


class PinsError(Exception):
    """The pins are of no use; the message says why."""


def main() -> int:
    """Check the pins; the exit code."""
    given = argparse.ArgumentParser(description="Checks that the pins install, and that their Prefect runs schedules.")
    given.add_argument("--run", type=Path, default=RUN, help="what a worker needs (requirements/run.txt)")
    given.add_argument("--dev", type=Path, default=DEV, help="what a developer needs (requirements/dev.txt)")
    given.add_argument("--newest", action="store_true", help="the newest that pyproject.toml allows, instead of these")
    given.add_argument("--python", default=sys.executable, help="the Python to run on; its path, or 3.14")
    given.add_argument("--no-wheels", action="store_true", help="leave out the check that each pin has a wheel")
    options = given.parse_args()
    with tempfile.TemporaryDirectory(prefix="bids-push-pins-") as folder:
        try:
            run, dev = newest(Path(folder)) if options.newest else (options.run, options.dev)
            if not options.no_wheels:
                check_wheels([run, LOCAL_HUB, RECORDINGS, dev, VALIDATOR, MUTANTS])
            check_schedules(run, options.python, Path(folder))
        except PinsError as error:
            print(f"These pins do not work: {error}", file=sys.stderr)
            return 1
    return 0


def newest(folder: Path) -> tuple[Path, Path]:
    """Pin the newest that pyproject.toml allows into files of this folder."""
    run, dev = folder / "run.txt", folder / "dev.txt"
    project = str(REPO / "pyproject.toml")
    call([*COMPILE, project, "-o", str(run)], "nothing resolves")
    call([*COMPILE, "--extra", "dev", "-c", str(run), project, "-o", str(dev)], "nothing resolves for developers")
    return run, dev


def call(command: Sequence[str], else_: str, **more: Any) -> str:
    """Run a command to its end; what it printed.

    Raises:
        PinsError: it failed, with the last that it said.
    """
    try:
        done: subprocess.CompletedProcess[str] = subprocess.run(
            command, capture_output=True, text=True, check=False, **more
        )
    except FileNotFoundError as error:
        raise PinsError(f"{command[0]} is not on the PATH") from error
    if done.returncode:
        raise PinsError(f"{else_}: {' '.join((done.stderr or done.stdout).split())[-600:]}")
    return done.stdout


# 1. Wheels


def check_wheels(files: Sequence[Path]) -> None:
    """Check that each pin has a wheel for Linux x86_64 in each Python that is allowed, and say which lack others.

    Raises:
        PinsError: one has none.
    """
    allowed = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]["requires-python"]
    if allowed != f">={PYTHONS[0]},<3.{int(PYTHONS[-1].split('.')[1]) + 1}":
        raise PinsError(f"pyproject.toml allows Python {allowed}, and this script checks {PYTHONS[0]} to {PYTHONS[-1]}")
    for python in PYTHONS:
        lacking = {name for file in files for name in without_wheel(file, python, NEEDED)}
        if lacking:
            raise PinsError(f"no wheel for Python {python} on {NEEDED}: {', '.join(sorted(lacking))}")
        print(f"Python {python}, {NEEDED}: a wheel for each pin", flush=True)
    for platform in TOLD_OF:
        lacking = {name for file in files for name in without_wheel(file, PYTHONS[-1], platform)}
        print(f"Python {PYTHONS[-1]}, {platform}: {'no wheel of ' + ', '.join(sorted(lacking)) if lacking else 'too'}")


def without_wheel(file: Path, python: str, platform: str) -> list[str]:
    """The pins of a file that have no wheel for this Python on this platform. uv names one at a time."""
    lacking: list[str] = []
    with tempfile.TemporaryDirectory(prefix="bids-push-pins-") as folder:
        pins = Path(folder) / "pins.txt"
        while True:
            pins.write_text(less(file.read_text(), lacking))
            command = ("uv", "pip", "install", "--dry-run", "--only-binary", ":all:", "--no-deps", "--require-hashes",
                       "--target", f"{folder}/none", "--python-version", python, "--python-platform", platform,
                       "-r", str(pins))  # fmt: skip
            try:
                call(command, "")
                return lacking
            except PinsError as error:
                named = re.search(r"Because (\S+)==\S+ has no (?:usable wheels|wheels with)", str(error))
                if named is None or named[1] in lacking:
                    raise
                lacking.append(named[1])


def less(pins: str, names: Sequence[str]) -> str:
    """The pins without those of these names: a pin is a line and the hashes that go on from it."""
    each = re.split(r"(?m)^(?=[A-Za-z0-9])", pins)
    return "".join(pin for pin in each if pin.split("==")[0].split("[")[0] not in names)


# 2. Schedules


@dataclass
class Server:
    """A Prefect server of the pins, and what belongs to it, in a folder."""

    folder: Path
    python: Path
    port: int
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def api(self) -> str:
        """The address of its API."""
        return f"http://127.0.0.1:{self.port}/api"

    @property
    def environment(self) -> dict[str, str]:
        """An environment with no setting of another Prefect."""
        own = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "PYTHON"))}
        return own | {
            "HOME": str(self.folder),
            "PREFECT_HOME": str(self.folder / "prefect"),
            "PREFECT_API_URL": self.api,
            "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
            "PREFECT_WORKER_QUERY_SECONDS": "2",
            "DO_NOT_TRACK": "1",
        }

    def start(self, name: str, *command: str) -> subprocess.Popen[bytes]:
        """Start a process of Prefect's command line, its output in a log."""
        with (self.folder / f"{name}.log").open("wb") as log:
            process = subprocess.Popen(
                [str(self.python), "-m", "prefect", *command],
                cwd=self.folder,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.processes.append(process)
        return process

    def run(self, *command: str) -> None:
        """Run Prefect's command line to its end."""
        what = f"`prefect {' '.join(command[:3])}` fails"
        call([str(self.python), "-m", "prefect", *command], what, cwd=self.folder, env=self.environment)

    def ask(self, route: str, query: object = None) -> Any:
        """What the API answers; None if it does not."""
        data = None if query is None else json.dumps(query).encode()
        request = urllib.request.Request(self.api + route, data, {"Content-Type": "application/json"})
        with (
            suppress(urllib.error.URLError, TimeoutError, ConnectionError),
            urllib.request.urlopen(request, timeout=5) as answer,
        ):
            return json.load(answer)
        return None

    def complaint(self, name: str) -> str:
        """The last error in a log, in one line, or else the last line."""
        lines = [line.strip(" |│") for line in (self.folder / f"{name}.log").read_text(errors="replace").splitlines()]
        errors = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        return (errors or [line for line in lines if line] or ["nothing"])[-1][:300]


def check_schedules(pins: Path, python: str, folder: Path) -> None:
    """Check that in an environment of these pins a schedule makes a run that ends.

    Raises:
        PinsError: it does not.
    """
    venv = folder / "venv"
    call(["uv", "venv", "-q", "--python", python, str(venv)], f"no virtual environment on {python}")
    own = str(venv / "bin" / "python")
    call(["uv", "pip", "install", "-q", "--python", own, "--require-hashes", "-r", str(pins)], "they do not install")
    version = call([own, "-c", "import platform; print(platform.python_version())"], "no Python").strip()
    (folder / "night.py").write_text(FLOW)
    with server(folder, Path(own)) as prefect:
        prefect.run("work-pool", "create", "pins", "--type", "process")
        prefect.run(
            "--no-prompt", "deploy", "night.py:night", "--name", "pins", "--pool", "pins", "--cron", "* * * * *"
        )
        prefect.start("worker", "worker", "start", "--pool", "pins")
        ended = wait(lambda: [run for run in made(prefect) if run["state_type"] == "COMPLETED"], RUN_SECONDS)
        if not ended:
            raise PinsError(no_run(prefect))
    print(f"Python {version}: the server starts, and a schedule makes runs that end Completed")


def made(prefect: Server) -> list[dict[str, Any]]:
    """The runs that the schedule has made, in the order in which they are due."""
    found = prefect.ask("/flow_runs/filter", {"sort": "EXPECTED_START_TIME_ASC"}) or []
    return [run for run in found if run["auto_scheduled"]]


def no_run(prefect: Server) -> str:
    """Why no scheduled run has ended Completed: what became of the first, and who complains."""
    runs = made(prefect)
    if not runs:
        return (
            f"the server starts, but in {RUN_SECONDS:.0f} s a schedule of every minute has made no run; the server's "
            f"log says: {prefect.complaint('server')}"
        )
    return (
        f"in {RUN_SECONDS:.0f} s no run of a schedule ended Completed; the first is {runs[0]['state_name']}, and the "
        f"worker's log says: {prefect.complaint('worker')}"
    )


def wait(found: Callable[[], Any], seconds: float) -> Any:
    """Wait until there is something; it, or nothing if there never is."""
    deadline = time.monotonic() + seconds
    while not (something := found()) and time.monotonic() < deadline:
        time.sleep(0.5)
    return something


@contextmanager
def server(folder: Path, python: Path) -> Iterator[Server]:
    """A Prefect server that answers; it and all that was started with it ends with the block."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    prefect = Server(folder, python, port)
    try:
        process = prefect.start("server", "server", "start", "--host", "127.0.0.1", "--port", str(port))
        wait(lambda: process.poll() is not None or prefect.ask("/health"), SERVER_SECONDS)
        if not prefect.ask("/health"):
            raise PinsError(f"the Prefect server does not start; its log says: {prefect.complaint('server')}")
        yield prefect
    finally:
        for process in reversed(prefect.processes):
            end(process)


def end(process: subprocess.Popen[bytes]) -> None:
    """End a process and what it started: SIGTERM, and SIGKILL to what is left."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)


if __name__ == "__main__":
    raise SystemExit(main())
