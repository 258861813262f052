"""The two lanes: tests that need a server, and the fast lane of those that need none (`make test-fast`).

Nobody marks a test for it. One that uses a fixture which starts a server, a browser or a database, however many
fixtures are between, is marked `server`. While any other test runs, nothing may listen and no server may be started:
whoever tries is told so, and the test fails. So no test is in the fast lane by mistake.

A file without a test of the fast lane is not even imported for it.

The files that take longest come first, so that in the end no tester has a long one before it while others have none.
"""

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

#: The fixtures that start one, by the names that they have in whichever module.
STARTS_ONE = frozenset(
    {
        "another_server",
        "breakable",
        "browser",
        "composed",
        "counted",
        "fresh",
        "hub",
        "hub_server",
        "prefect",
        "server",
        "suites_command",
        "told",
    }
)
#: Of these, those that give a Hub, a target on one or a Prefect server within the test's own process where the lane is
#: the fast one. So the same tests are in both lanes: there by the clients alone, here over a connection, and by Xet.
WITHIN_IN_FAST = frozenset({"breakable", "counted", "hub", "prefect"})
OF_THE_HUB = "local_hub"  # the folder of the local Hub's own tests, whose `hub` is a server
#: What the command line of a server, a database or a browser has in it.
SERVER = re.compile(r"-m prefect\b|prefect server|uvicorn|_hub serve|faults serve|postgres|initdb|chrom(e|ium)")
#: The files that take more than a minute, the longest first; those with a worker follow each other.
LONGEST = (
    "end_to_end/test_missed_nights.py",
    "end_to_end/test_gate.py",
    "end_to_end/test_nights.py",
    "end_to_end/test_deploy.py",
    "end_to_end/test_readme.py",
    "end_to_end/test_removals.py",
    "end_to_end/test_ui.py",
    "end_to_end/test_push.py",
    "end_to_end/test_decide.py",
    "end_to_end/test_preflight.py",
    "end_to_end/test_names.py",
    "tests/test_year.py",
    "tests/test_removal_gate.py",
    "end_to_end/test_wheel.py",
    "tests/test_nothing_is_lost.py",
    "tests/test_flows.py",
    "tests/test_gates.py",
    "tests/test_status.py",
    "tests/test_stage.py",
    "tests/test_two_writers.py",
    "tests/test_demo_data.py",
)
#: What the command line says after `-m` for the fast lane.
FAST = "not server and not slow"
#: The same lane in other words, for which no file is passed over: `tests/test_lanes.py` asks for it.
FAST_WHOLE = "not slow and not server"
#: The folders whose tests are of a running thing. The few that need no server are not worth what the folders import.
APART = frozenset({"deployed", "end_to_end"})
#: The files without a test of the fast lane: `tests/test_lanes.py` looks whether that is still so.
SERVED = frozenset(
    {
        "local_hub/test_accounts.py",
        "local_hub/test_budgets.py",
        "local_hub/test_commits.py",
        "local_hub/test_datasets.py",
        "local_hub/test_durability.py",
        "local_hub/test_faults.py",
        "local_hub/test_garbage_commands.py",
        "local_hub/test_hostile.py",
        "local_hub/test_lfs.py",
        "local_hub/test_listing.py",
        "local_hub/test_live_store.py",
        "local_hub/test_pages.py",
        "local_hub/test_permissions.py",
        "local_hub/test_private_bytes.py",
        "local_hub/test_refs.py",
        "local_hub/test_revocation.py",
        "local_hub/test_xet.py",
        "test_bad_input.py",
        "test_in_flight.py",
        "test_left_out_flow.py",
        "test_nothing_is_lost.py",
        "test_push_again.py",
        "test_removal_flow.py",
        "test_removal_gate.py",
        "test_restore.py",
        "test_status.py",
        "test_streaming.py",
        "test_two_writers.py",
        "test_verification_nights.py",
        "test_watch.py",
    }
)
TESTS = Path(__file__).parent
WAY_OUT = "a test of the fast lane needs no server: have it use a fixture that starts one (tests/lanes.py), or none"

_running: list[str] = []
"""The tests that run now, the innermost last; empty for one that may start a server."""
_hooked: list[bool] = []


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Pass over what has no test of the fast lane, if that lane is asked for."""
    if config.option.markexpr != FAST or not collection_path.is_relative_to(TESTS):
        return None
    return collection_path.relative_to(TESTS).as_posix() in SERVED | APART or None


def is_fast(config: pytest.Config) -> bool:
    """Whether the fast lane is asked for."""
    return config.option.markexpr in (FAST, FAST_WHOLE)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark the tests that need a server, and have the longest files come first."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(f"{item.path.parent.name}/{item.path.name}", len(places)))
    for item in items:
        within = is_fast(config) and item.path.parent.name != OF_THE_HUB
        starts_one = STARTS_ONE - WITHIN_IN_FAST if within else STARTS_ONE
        if starts_one.intersection(getattr(item, "fixturenames", ())):
            item.add_marker("server")


@pytest.fixture(autouse=True)
def serves_nobody(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """While a test of the fast lane runs, nobody listens and nothing is started that does."""
    _watch_commands()
    monkeypatch.setattr(socket.socket, "listen", _listen)
    _running.append("" if request.node.get_closest_marker("server") else request.node.nodeid)
    try:
        yield
    finally:
        _running.pop()


def _listen(listener: socket.socket, *backlog: int) -> None:
    """`socket.listen`, refused in the fast lane; processes of one program may talk over a socket without a port."""
    if _running[-1:] not in ([], [""]) and listener.family != socket.AF_UNIX:
        pytest.fail(f"It listens at {listener.getsockname()}; {WAY_OUT}.")
    super(socket.socket, listener).listen(*backlog)


def _watch_commands() -> None:
    if not _hooked:
        sys.addaudithook(_heard)  # for good: Python takes no hook away
        _hooked.append(True)


def _heard(event: str, arguments: tuple[Any, ...]) -> None:
    """Refuse to start a server while a test of the fast lane runs."""
    if event != "subprocess.Popen" or _running[-1:] in ([], [""]):
        return
    command = arguments[1]
    words = command if isinstance(command, str) else " ".join(str(word) for word in command)
    if SERVER.search(words):
        pytest.fail(f"It starts {words[:200]!r}; {WAY_OUT}.")
