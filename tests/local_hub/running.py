"""A local Hub as a process of its own: started, killed, started again over the same folder and port."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from types import TracebackType

import httpx2
import psutil

PROJECT = Path(__file__).resolve().parents[2]
SERVER = (sys.executable, "-m", "deployments.local_hub")
START_LIMIT = 30  # seconds


class RunningHub:
    """The server over `root`; `options` go to its `serve` command; with `faults` it can be made to fail."""

    def __init__(self, root: Path, *options: str, faults: bool = False):
        self.root = root
        module = "tests.local_hub.faults" if faults else "deployments.local_hub"
        self._command = [sys.executable, "-m", module, "serve", "--root", str(root), *options]
        self._port = 0
        self._log = root.with_suffix(".log")
        self.endpoint = ""
        self.process: subprocess.Popen[str] | None = None

    def start(self) -> RunningHub:
        with self._log.open("a") as log:
            self.process = subprocess.Popen(
                [*self._command, "--port", str(self._port)], stdout=subprocess.PIPE, stderr=log, text=True, cwd=PROJECT
            )
        assert self.process.stdout is not None
        self.endpoint = self.process.stdout.readline().strip()
        assert self.endpoint.startswith("http://127.0.0.1:"), self.log
        self._port = int(self.endpoint.rpartition(":")[2])
        return self

    def stop(self) -> int:
        """SIGTERM; the exit code."""
        return self._end(signal.SIGTERM)

    def kill(self) -> int:
        """SIGKILL: no chance to tidy up."""
        return self._end(signal.SIGKILL)

    def _end(self, how: signal.Signals) -> int:
        assert self.process is not None
        self.process.send_signal(how)
        code = self.process.wait(START_LIMIT)
        assert self.process.stdout is not None
        self.process.stdout.close()
        self.process = None
        return code

    def break_on(self, *rules: dict[str, object]) -> None:
        """From now on break these requests and no others (`faults`)."""
        httpx2.post(f"{self.endpoint}/_faults", json=list(rules)).raise_for_status()

    @property
    def broken(self) -> int:
        """How many requests were broken since the rules were set."""
        return int(httpx2.post(f"{self.endpoint}/_faults").json()["broken"])

    def token(self, name: str, role: str = "write", *options: str) -> str:
        return self.command("token", name, "--role", role, *options).strip()

    def command(self, command: str, *arguments: str) -> str:
        done = subprocess.run(
            [*SERVER, command, *arguments, "--root", str(self.root)],
            capture_output=True, text=True, cwd=PROJECT, check=True,
        )  # fmt: skip
        return done.stdout

    def check(self) -> tuple[int, str]:
        done = subprocess.run(
            [*SERVER, "check", "--root", str(self.root)], capture_output=True, text=True, cwd=PROJECT, check=False
        )
        return done.returncode, done.stdout

    def half_received(self) -> set[str]:
        """The names of the bodies that are not received in full, uploads in parts that are under way among them."""
        return {path.name for path in (self.root / "tmp").iterdir()}

    def leaves_nothing(self, beside: Collection[str] = ()) -> bool:
        """Whether no body is left half received `beside` what other tests left. A cut one goes in time: wait for it."""
        deadline = time.monotonic() + START_LIMIT
        while self.half_received() - set(beside):
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    @property
    def log(self) -> str:
        return self._log.read_text()

    @property
    def peak_memory(self) -> int:
        """The most memory the server has held so far, in bytes."""
        assert self.process is not None
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return next(int(line.split()[1]) * 1024 for line in status.splitlines() if line.startswith("VmHWM"))

    @property
    def processor_seconds(self) -> float:
        """What the server has computed so far, which other work on this machine does not stretch as it does a wait."""
        assert self.process is not None
        used = psutil.Process(self.process.pid).cpu_times()
        return float(used.user + used.system)

    @property
    def open_files(self) -> int:
        assert self.process is not None
        return int(psutil.Process(self.process.pid).num_fds())

    def __enter__(self) -> RunningHub:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.process is not None:
            self.kill()


def client_environment(hub: RunningHub, home: Path, token: str, *, xet: bool) -> dict[str, str]:
    """The environment of a client process that talks to this Hub alone, with nothing of this machine's own set-up."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGINGFACE"))}
    return {
        **kept, "HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token,
        "HF_HUB_DISABLE_XET": "0" if xet else "1", "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
    }  # fmt: skip
