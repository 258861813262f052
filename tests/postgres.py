"""A PostgreSQL of one's own, for as long as a block lasts: a new cluster in a temporary folder, on a free port.

How it works: `initdb` makes a cluster with a password that nobody else knows, `postgres` serves it on the loopback, its
socket inside the folder, and ends by its process id. The programs are those that `pg_config` names, or Debian's.
PostgreSQL refuses to run as root; where the tests do, it runs as the user `postgres`, whom Debian's package makes.

`connection_url(name)` makes a database and gives the address that Prefect's server takes
(PREFECT_SERVER_DATABASE_CONNECTION_URL). `python -m tests.postgres` says whether there is a PostgreSQL to do it with.
"""

import os
import pwd
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.local_stack import STOP_SECONDS, StackError, wait_until
from tests.ports import own_port

USER = "prefect"
UNPRIVILEGED = "postgres"  # who serves where the tests are root
START_SECONDS = 60.0  # for a new cluster to take connections
FAST_SHUTDOWN = signal.SIGINT  # to the postmaster: end the sessions, write everything, exit
AT_ONCE = signal.SIGQUIT  # exit, and recover at the next start
MISSING = (
    "There is no PostgreSQL on this machine, on which the end-to-end tests run once more. Install it (Debian: apt "
    "install postgresql), or put its pg_config on the PATH. On SQLite alone: make test-sqlite"
)
QUICK = {"fsync": "off", "synchronous_commit": "off", "full_page_writes": "off"}
"""For a cluster that is thrown away whatever happens; a benchmark keeps PostgreSQL's own."""


class NoPostgres(Exception):
    """No PostgreSQL was found; the message says what to install."""


def programs() -> Path:
    """The folder of initdb and postgres.

    Raises:
        NoPostgres: there is none.
    """
    candidates = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda found: found.parent.name, reverse=True)
    if shutil.which("pg_config"):
        said = subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=False)
        candidates.insert(0, Path(said.stdout.strip()))
    for folder in candidates:
        if (folder / "initdb").is_file() and (folder / "postgres").is_file():
            return folder
    raise NoPostgres(MISSING)


@dataclass
class Postgres:
    """A running cluster; make one with `postgres`."""

    folder: Path
    programs: Path
    port: int = field(default_factory=own_port)
    password: str = field(default_factory=lambda: secrets.token_hex(16), repr=False)

    @property
    def log(self) -> Path:
        """What the cluster has logged."""
        return self.folder / "postgres.log"

    @property
    def environment(self) -> dict[str, str]:
        """The environment in which psql, pg_dump and pg_restore find the cluster."""
        return {
            **os.environ,
            "PGHOST": "127.0.0.1",
            "PGPORT": str(self.port),
            "PGUSER": USER,
            "PGPASSWORD": self.password,
        }

    def run(self, program: str, *arguments: str) -> str:
        """Run one of PostgreSQL's client programs to its end; what it printed."""
        command = [str(self.programs / program), *arguments]
        done = subprocess.run(command, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise StackError(f"{program} {' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
        return done.stdout

    def connection_url(self, name: str) -> str:
        """Make an empty database of this name; its address for Prefect."""
        self.run("createdb", name)
        return f"postgresql+asyncpg://{USER}:{self.password}@127.0.0.1:{self.port}/{name}"


@contextmanager
def postgres(**settings: str) -> Iterator[Postgres]:
    """A cluster with these settings of PostgreSQL's, which is gone after the block.

    Raises:
        NoPostgres: this machine has none.
    """
    found = programs()
    folder = Path(tempfile.mkdtemp(prefix="bids-push-postgres-"))
    try:
        if os.geteuid() == 0:
            shutil.chown(folder, UNPRIVILEGED, pwd.getpwnam(UNPRIVILEGED).pw_gid)
        cluster = Postgres(folder, found)
        _make(cluster)
        with _served(cluster, settings):
            yield cluster
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _make(cluster: Postgres) -> None:
    """A new cluster, whose one user has a password."""
    secret = cluster.folder / "password"
    secret.write_text(cluster.password)
    if os.geteuid() == 0:
        shutil.chown(secret, UNPRIVILEGED)
    options = ["--pgdata", str(cluster.folder / "data"), "--username", USER, "--pwfile", str(secret),
               "--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"]  # fmt: skip
    with cluster.log.open("ab") as log:
        done = _start([str(cluster.programs / "initdb"), *options], cluster, log.fileno()).wait()
    secret.unlink()
    if done:
        raise StackError(f"initdb made no cluster:\n{cluster.log.read_text(errors='replace')[-2000:]}")


@contextmanager
def _served(cluster: Postgres, settings: dict[str, str]) -> Iterator[None]:
    """The cluster takes connections."""
    command = [str(cluster.programs / "postgres"), "-D", str(cluster.folder / "data"), "-p", str(cluster.port)]
    for name, value in {
        "listen_addresses": "127.0.0.1",
        "unix_socket_directories": str(cluster.folder),
        **settings,
    }.items():
        command += ["-c", f"{name}={value}"]
    with cluster.log.open("ab") as log:
        process = _start(command, cluster, log.fileno())
    try:
        wait_until("PostgreSQL takes connections", lambda: _ready(cluster, process), START_SECONDS)
        yield
    finally:
        _end(process)


def _ready(cluster: Postgres, process: "subprocess.Popen[bytes]") -> bool:
    if process.poll() is not None:
        raise StackError(f"PostgreSQL has ended; its log ends:\n{cluster.log.read_text(errors='replace')[-2000:]}")
    asked = [str(cluster.programs / "pg_isready"), "--quiet", "--dbname", "postgres"]
    return subprocess.run(asked, env=cluster.environment, check=False).returncode == 0


def _start(command: list[str], cluster: Postgres, log: int) -> "subprocess.Popen[bytes]":
    """Start a program of the cluster's, as somebody who is not root; Ctrl-C at the terminal does not reach it."""
    somebody: Any = {"user": UNPRIVILEGED, "group": UNPRIVILEGED, "extra_groups": []}
    return subprocess.Popen(
        command,
        cwd=cluster.folder,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        **(somebody if os.geteuid() == 0 else {}),
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    for which in (FAST_SHUTDOWN, AT_ONCE):
        process.send_signal(which)
        with suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS)
            return
    process.kill()
    process.wait()


def main() -> int:
    """Say where the programs are, or what to install; the exit code."""
    try:
        print(f"PostgreSQL's programs: {programs()}")
    except NoPostgres as missing:
        print(missing, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
