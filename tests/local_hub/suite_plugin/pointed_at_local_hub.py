"""A pytest plugin that points a public suite at a local Hub, and writes down what became of each test.

`tests.local_hub.suites` gives it to pytest with `-p`, with this folder alone on PYTHONPATH: the suites have a package
`tests` of their own, so nothing of ours may be imported here. It is imported before the suite's conftest.py, and sets
the constants of the suite's module before any test takes them from it.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

POINTED = json.loads(os.environ["POINTED_AT_LOCAL_HUB"])
RESULTS = Path(POINTED["results"])


def point(module: Any, constants: dict[str, str]) -> None:
    """Set these constants, and put their new values into the module's other texts that have the old ones in them."""
    for name, value in constants.items():
        old = getattr(module, name)
        for other, text in list(vars(module).items()):
            if isinstance(text, str) and not other.startswith("__"):
                setattr(module, other, text.replace(old, value))


def note(**line: object) -> None:
    """One line of JSON, written at once: a process that dies leaves what it came to."""
    with RESULTS.open("a") as results:
        results.write(json.dumps(line) + "\n")


def last_line(report: Any) -> str:
    """What a failure says, in one line: the error itself where pytest has it apart, else the end of the text."""
    crash = getattr(report.longrepr, "reprcrash", None)
    text = (crash.message if crash is not None else str(report.longrepr)).strip()
    lines = [line.strip() for line in text.splitlines() if line.strip()] or ["(says nothing)"]
    return lines[0 if crash is not None else -1][:300]


def pytest_collection_modifyitems(config: Any, items: list[Any]) -> None:
    """Leave out the tests without the fixture, in the files of which only those with it are live."""
    others = [item for item in items if item.path.name in POINTED["partly"] and not _is_live(item)]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


def _is_live(item: Any) -> bool:
    return POINTED["fixture"] in getattr(item, "fixturenames", ())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Have a test that ends itself by pytest.xfail fail: `datasets` does so after a 500, which is looked for here."""
    report = yield
    if call.excinfo is not None and isinstance(call.excinfo.value, pytest.xfail.Exception):
        report.outcome, report.longrepr = "failed", str(call.excinfo.value)
        del report.wasxfail
    return report


def pytest_runtest_logreport(report: Any) -> None:
    """Note what became of a test: its call, and its setup or teardown where one fails or skips."""
    if report.failed:
        note(test=report.nodeid, outcome="failed", says=last_line(report))
    elif report.when == "call" or report.skipped:
        note(test=report.nodeid, outcome=report.outcome, says="")


def pytest_collectreport(report: Any) -> None:
    """Note a file that cannot be read, as a failure of its own."""
    if report.failed:
        note(test=report.nodeid, outcome="failed", says=last_line(report))


def pytest_sessionfinish() -> None:
    """Note that pytest came to its end."""
    note(finished=True)


point(importlib.import_module(POINTED["module"]), POINTED["constants"])
