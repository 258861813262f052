"""The fast lane has no server, whatever a test of it tries; and what takes long comes first."""

from pathlib import Path

import pytest

from tests.lanes import LONGEST

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from tests.lanes import pytest_collection_modifyitems, serves_nobody

@pytest.fixture
def hub_server():
    return "a server"

@pytest.fixture
def target(hub_server):
    return f"a repo on {hub_server}"
"""
LISTENS = """
import socket
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    listener.listen()
"""


def ran(pytester: pytest.Pytester, body: str, uses: str = "", *options: str) -> pytest.RunResult:
    """A run of pytest on one test."""
    pytester.makeini("[pytest]\nmarkers = server: needs a server")
    pytester.makeconftest(CONFTEST)
    lines = "\n".join(f"    {line}" for line in body.strip().splitlines())
    pytester.makepyfile(f"def test_it({uses}):\n{lines}\n")
    return pytester.runpytest_inprocess("-p", "no:cacheprovider", *options)


@pytest.mark.parametrize(
    "body",
    [
        LISTENS,
        "import asyncio\nasyncio.run(asyncio.start_server(print, '127.0.0.1', 0))",
        "import http.server\nhttp.server.HTTPServer(('127.0.0.1', 0), None)",
        "import subprocess\nsubprocess.Popen(['true', '-m', 'prefect', 'server', 'start'])",
        "import subprocess\nsubprocess.Popen(['true', '-m', 'deployments.local_hub', 'serve', '--root', '/srv/hub'])",
        "import subprocess\nsubprocess.Popen(['true', '-m', 'uvicorn', 'prefect.server.api.server:create_app'])",
    ],
    ids=["a socket", "asyncio", "a web server", "prefect server start", "the local Hub", "Prefect's own for tests"],
)
def test_a_test_of_the_fast_lane_that_starts_a_server_fails_and_says_what_to_do(
    pytester: pytest.Pytester, body: str
) -> None:
    result = ran(pytester, body)
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(["*a test of the fast lane needs no server*"])


def test_one_that_uses_a_servers_fixture_may_listen_and_is_not_in_the_fast_lane(pytester: pytest.Pytester) -> None:
    ran(pytester, LISTENS, "target").assert_outcomes(passed=1)
    ran(pytester, LISTENS, "target", "-m", "not server").assert_outcomes(deselected=1)


def test_one_that_asks_and_starts_processes_that_serve_nobody_is_in_the_fast_lane(pytester: pytest.Pytester) -> None:
    body = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import socket; socket.socket()'], check=True)"
    )
    ran(pytester, body, "", "-m", "not server").assert_outcomes(passed=1)


def test_the_files_that_come_first_are_there() -> None:
    tests = Path(__file__).parent
    there = {f"{path.parent.name}/{path.name}" for path in tests.rglob("test_*.py")}
    assert set(LONGEST) <= there
