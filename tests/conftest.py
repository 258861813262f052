"""The ground that the tests stand on: one real local Hub and one real Prefect server for the whole run.

Nothing of bids-push is replaced. The endpoint is fixed before huggingface_hub is imported, because the client reads
HF_ENDPOINT once. A test gets a repo and a staging folder of its own, so tests do not see each other. The server's
database is SQLite, or, where the environment has TEST_DATABASE=postgresql, a PostgreSQL of the run's own. Where it has
TEST_STACK, Hub and server run already, for many runs one after the other (`tests.mutants`), and stay.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from deployments.local_stack import Stack, clean_environment

_THERE = json.loads(os.environ.get("TEST_STACK", "{}"))  # of a stack that runs: folder, hub_port, prefect_port, token
_HOME = Path(_THERE.pop("folder", "") or tempfile.mkdtemp(prefix="bids-push-tests-"))
STACK = Stack(
    _HOME,
    **_THERE,
    settings={
        "BIDS_PUSH_BATCH_SHARDS": "4",  # there are commits to be killed between
        "PREFECT_WORKER_QUERY_SECONDS": "0.5",
        "PREFECT_SERVER_SERVICES_LATE_RUNS_AFTER_SECONDS": "5",  # instead of 15
    },
)
for _name in set(os.environ) - set(clean_environment()):
    del os.environ[_name]
os.environ |= {name: value for name, value in STACK.environment.items() if name.startswith(("HF_", "PREFECT_", "DO_"))}
os.environ.pop("HF_TOKEN", None)

from hypothesis import HealthCheck, settings  # noqa: E402
from prefect.events.worker import EventsWorker  # noqa: E402
from prefect.logging.handlers import APILogWorker  # noqa: E402

from deployments.demo_data import make_dataset  # noqa: E402
from tasks.disk.staging import Staging, Target  # noqa: E402
from tasks.hub.client import Hub  # noqa: E402
from tasks.load import load  # noqa: E402
from tasks.plan import plan  # noqa: E402
from tasks.stage import stage  # noqa: E402
from tasks.values.models import Receipt, ShardSpec  # noqa: E402
from tasks.write import WRITER_SETTINGS  # noqa: E402
from tests import bids_examples  # noqa: E402
from tests.postgres import QUICK, postgres  # noqa: E402

#: A busy machine is slow, which says nothing of the code.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

_numbers = count(1)
SESSIONS = 6  # sessions in the tests' dataset: every suffix, and a session with two T1w


@pytest.fixture(scope="session")
def _database() -> Iterator[None]:
    """The server's database, which outlives the server."""
    wanted = os.environ.get("TEST_DATABASE", "sqlite")
    assert wanted in ("sqlite", "postgresql"), f"TEST_DATABASE={wanted}: it is sqlite or postgresql"
    if wanted == "sqlite":
        yield
        return
    with postgres(**QUICK) as cluster:
        STACK.database = cluster.connection_url("prefect")
        yield


@pytest.fixture(scope="session", autouse=True)
def _stack_ends(_database: None) -> Iterator[None]:
    yield
    for worker in (APILogWorker, EventsWorker):  # what they still hold has nowhere to go once the server has ended
        worker.drain_all(timeout=10)
    if not _THERE:
        STACK.stop()
        shutil.rmtree(_HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def hub_server() -> Stack:
    """The local Hub, with an account `lab` whose token may write."""
    if not (_THERE or "hub" in STACK.processes):
        STACK.start_hub()
        STACK.token = STACK.make_token("lab")
    return STACK


@pytest.fixture(scope="session")
def prefect_server(hub_server: Stack) -> Stack:
    """The same with a Prefect server."""
    if not (_THERE or "prefect" in STACK.processes):
        STACK.start_prefect()
    return STACK


@pytest.fixture(scope="session")
def worker(prefect_server: Stack) -> Stack:
    """The same with the deployments, a worker and the watch."""
    if "worker" not in STACK.processes:
        STACK.deploy()
        STACK.start_worker()
        STACK.start_watch("--every", "1")  # instead of 10
    return STACK


@pytest.fixture
def repo_id() -> str:
    """The name of a repo that does not exist yet, on a Hub that other runs may have used as well."""
    return f"lab/dataset-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def hub(hub_server: Stack, repo_id: str) -> Hub:
    """An empty target of its own."""
    hub = Hub(Target(hub_server.endpoint, repo_id), hub_server.token)
    hub.prepare(private=True)
    return hub


@pytest.fixture(scope="session")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS dataset of six sessions, which no test may change."""
    folder = tmp_path_factory.mktemp("bids") / "ds004884"
    make_dataset(folder, sessions=SESSIONS)
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tree of ds004884 with a few bytes in place of each image, which no test may change."""
    return bids_examples.ds004884(tmp_path_factory.mktemp("whole") / "ds004884")


@pytest.fixture
def own_bids(bids: Path, tmp_path: Path) -> Path:
    """A copy of it, which the test may change."""
    return Path(shutil.copytree(bids, tmp_path / "own-bids", copy_function=shutil.copy2))


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    """An empty staging folder."""
    return Staging(tmp_path / "staging" / "target")


@pytest.fixture(scope="session")
def shards(bids: Path) -> tuple[ShardSpec, ...]:
    """The plan of the dataset."""
    return plan(load(bids), WRITER_SETTINGS)


@pytest.fixture
def staged(shards: tuple[ShardSpec, ...], bids: Path, staging: Staging) -> Callable[[int], list[Receipt]]:
    """Stages the first so many shards for real."""
    return lambda number: [stage(spec, bids, staging) for spec in shards[:number]]
