"""The fast lane has no server, whatever a test of it tries; and what takes long comes first."""

import subprocess
import sys

import pytest

from tests.lanes import APART, FAST, FAST_WHOLE, LONGEST, SERVED, TESTS

pytest_plugins = ["pytester"]

CONFTEST = """
import pytest
from tests.lanes import pytest_collection_modifyitems, serves_nobody

@pytest.fixture
def hub_server():
    return "a server"

@pytest.fixture
def hub():
    return "a repo on a Hub"

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
    pytester.makeini("[pytest]\nmarkers =\n    server: needs a server\n    slow: takes long")
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


def test_a_target_on_a_hub_is_in_the_fast_lane_if_no_server_is_asked_for_beside_it(pytester: pytest.Pytester) -> None:
    ran(pytester, "pass", "hub", "-m", FAST).assert_outcomes(passed=1)
    ran(pytester, "pass", "hub, hub_server", "-m", FAST).assert_outcomes(deselected=1)
    ran(pytester, "pass", "hub", "-m", "not server").assert_outcomes(deselected=1)  # in any other lane it is served


def test_one_that_asks_and_starts_processes_that_serve_nobody_is_in_the_fast_lane(pytester: pytest.Pytester) -> None:
    body = (
        "import subprocess, sys\nsubprocess.run([sys.executable, '-c', 'import socket; socket.socket()'], check=True)"
    )
    ran(pytester, body, "", "-m", "not server").assert_outcomes(passed=1)


def test_the_files_that_come_first_are_there() -> None:
    there = {f"{path.parent.name}/{path.name}" for path in TESTS.rglob("test_*.py")}
    assert set(LONGEST) <= there


def test_what_is_passed_over_for_the_fast_lane_is_there() -> None:
    assert {path.relative_to(TESTS).as_posix() for path in TESTS.rglob("*")} >= SERVED | APART


@pytest.mark.slow
def test_no_test_of_the_fast_lane_is_passed_over_with_its_file() -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-m", FAST_WHOLE]
    done = subprocess.run([*command, *(TESTS / one for one in SERVED)], capture_output=True, text=True)
    assert done.returncode == pytest.ExitCode.NO_TESTS_COLLECTED, done.stdout


def test_a_file_that_is_passed_over_for_the_fast_lane_is_not_imported(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nmarkers =\n    server: needs a server\n    slow: takes long")
    pytester.makeconftest(
        "import tests.lanes\nfrom tests.lanes import pytest_ignore_collect\n\n"
        "tests.lanes.TESTS = __import__('pathlib').Path(__file__).parent"
    )
    pytester.makepyfile(test_watch="raise SystemExit", test_names="def test_it(): ...")
    pytester.runpytest_inprocess("-p", "no:cacheprovider", "-m", FAST).assert_outcomes(passed=1)
