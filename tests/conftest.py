"""Where the tests' local Hub and Prefect server are, and the environment of all that asks them.

The endpoint is fixed before huggingface_hub is imported, because the client reads HF_ENDPOINT once. The fixtures, and
the large libraries that they need, come after it, from `tests/fixtures.py`. Where the environment has TEST_STACK, Hub
and server run already, for many runs one after the other (`tests.mutants`), and stay; where it has a folder alone, the
tests' dataset does.
"""

import json
import os
import tempfile
from pathlib import Path

import pytest

from deployments.local_stack import Stack, clean_environment
from tests.lanes import pytest_collection_modifyitems, pytest_ignore_collect, serves_nobody  # noqa: F401 - for every test
from tests.ports import own_port

STANDS = json.loads(os.environ.get("TEST_STACK", "{}"))  # of a stack that runs: folder, hub_port, prefect_port, token
STAYS: str = STANDS.pop("folder", "")
HOME = Path(STAYS or tempfile.mkdtemp(prefix="bids-push-tests-"))
STACK = Stack(
    HOME,
    **(STANDS or {"hub_port": own_port(), "prefect_port": own_port()}),
    settings={
        "BIDS_PUSH_BATCH_SHARDS": "4",  # there are commits to be killed between
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "5",  # instead of 15
        # instead of 60: its quicker look at new schedules misses what a busy server is six seconds late for
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "15",
    },
)
for _name in set(os.environ) - set(clean_environment()):
    del os.environ[_name]
os.environ |= {name: value for name, value in STACK.environment.items() if name.startswith(("HF_", "PREFECT_", "DO_"))}
os.environ.pop("HF_TOKEN", None)

SESSIONS = 6  # sessions in the tests' dataset: every suffix, and a session with two T1w


def pytest_configure(config: pytest.Config) -> None:
    """Take up the fixtures, in each process that runs tests: not in the one that hands them out to others."""
    if config.getoption("dist", "no") == "no":
        config.pluginmanager.import_plugin("tests.fixtures")
