"""The ground that the tests stand on: one real local Hub and one real Prefect server for the whole run.

Nothing of bids-push is replaced. A test gets a repo and a staging folder of its own, so tests do not see each other.
The server's database is SQLite, or, where the environment has TEST_DATABASE=postgresql, a PostgreSQL of the run's own.
"""

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from filelock import FileLock
from huggingface_hub import constants
from hypothesis import HealthCheck, settings
from prefect import flow
from prefect.client.schemas.actions import WorkPoolUpdate
from prefect.client.schemas.objects import State
from prefect.events.worker import EventsWorker
from prefect.logging.handlers import APILogWorker
from prefect.states import Completed

from deployments import local_stack
from deployments.demo_data import make_dataset
from deployments.local_stack import POOL, Stack
from deployments.runs import runs_of
from flows.target import HeldTarget, on_target
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.stage import stage
from tasks.values.models import Receipt, ShardSpec
from tasks.write import WRITER_SETTINGS
from tests import bids_examples
from tests.conftest import HOME, LASTS, SESSIONS, STACK, STANDS
from tests.counted_hub import CountedHub
from tests.hub_within import Breakable, HubWithin, hub_within
from tests.lanes import is_fast
from tests.planted import plant
from tests.postgres import QUICK, postgres

# A busy machine is slow, which says nothing of the code.
local_stack.START_SECONDS = 400.0
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

#: What the fixture `worker` starts.
WORKS = frozenset({"worker", "watch"})
_numbers = count(1)


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
    if not LASTS:
        STACK.stop()
        shutil.rmtree(HOME, ignore_errors=True)


@pytest.fixture(scope="session")
def hub_server() -> Stack:
    """The local Hub, with an account `lab` whose token may write."""
    if not (STANDS or "hub" in STACK.processes):
        STACK.start_hub()
        STACK.token = STACK.make_token("lab")
    return STACK


@pytest.fixture(scope="session")
def prefect_server(hub_server: Stack) -> Stack:
    """The same with a Prefect server."""
    if not (STANDS or "prefect" in STACK.processes):
        STACK.start_prefect()
    return STACK


@pytest.fixture(scope="module")
def prefect(request: pytest.FixtureRequest) -> Iterator[None]:
    """A Prefect server. In the fast lane it is within this process."""
    if not is_fast(request.config):
        request.getfixturevalue("prefect_server")
        yield
        return
    from tests.prefect_within import prefect_within  # the server's own code, which takes seconds to be imported

    with prefect_within():
        yield


@pytest.fixture(scope="session")
def deployed(prefect_server: Stack) -> Stack:
    """The same with the deployments."""
    STACK.deploy()
    start_runs_at_once(STACK)
    return STACK


@pytest.fixture
def worker(deployed: Stack) -> Stack:
    """The same with a worker and the watch, which go on for as long as the tests that follow each other need them."""
    if not WORKS & STACK.processes.keys():
        STACK.start_worker()
        STACK.start_watch("--every", "1")  # instead of 10
    return STACK


@pytest.hookimpl(trylast=True)  # once the fixtures of the test have ended, which may need them
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """Stop worker and watch where the next test needs neither: the two keep the server busy, for all of a lane."""
    if "worker" not in getattr(nextitem, "fixturenames", ()):
        for name in sorted(WORKS & STACK.processes.keys(), reverse=True):
            STACK.processes.pop(name).stop()


def start_runs_at_once(stack: Stack) -> None:
    """Have the worker start one process for a run, as a work pool does whose `command` somebody has set.

    Left to itself, Prefect's worker starts two more before it, to find the run's folder and to look after its process.
    Each imports all of Prefect, and all three are waited for. Those who start a stack of their own have them.
    """
    with runs_of(f"{stack.ui}/api") as runs:
        template = runs.client.read_work_pool(POOL).base_job_template
        template["variables"]["properties"]["command"]["default"] = f"{sys.executable} -m prefect.engine"
        runs.client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))


@pytest.fixture
def repo_id() -> str:
    """The name of a repo that does not exist yet, on a Hub that other runs may have used as well."""
    return f"lab/dataset-{os.getpid()}-{next(_numbers)}"


@pytest.fixture
def hub(request: pytest.FixtureRequest, repo_id: str, tmp_path: Path) -> Iterator[Hub]:
    """An empty target of its own. In the fast lane it is on a Hub within this process."""
    if is_fast(request.config):
        with hub_within(tmp_path / "hub", repo_id) as hub:
            hub.prepare(private=True)
            yield hub
        return
    hub_server: Stack = request.getfixturevalue("hub_server")
    hub = Hub(Target(hub_server.endpoint, repo_id), hub_server.token)
    hub.prepare(private=True)
    yield hub


@pytest.fixture
def with_token(hub_server: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """The flows that run in this process have its token, as a worker has it."""
    monkeypatch.setenv("HF_TOKEN", hub_server.token)


@pytest.fixture
def target(prefect_server: Stack, with_token: None, repo_id: str) -> Hub:
    """A target for them, whose repo does not exist yet."""
    return Hub(Target(prefect_server.endpoint, repo_id), prefect_server.token)


@pytest.fixture
def while_held(prefect: None, hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Does something with a target as a flow does, which holds it meanwhile."""
    monkeypatch.setenv("HF_TOKEN", hub.token)

    def do(what: Callable[[HeldTarget], None], **parameters: str) -> None:
        def body(held: HeldTarget) -> State:
            what(held)
            return Completed()

        @flow(name="decides", validate_parameters=False)
        def decides(removed: str = "keep") -> State:
            return on_target(body, hub.target.repo_id, "main", "", str(tmp_path / "root"))

        assert decides(**parameters, return_state=True).is_completed()

    return do


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A staging root that does not exist yet."""
    return tmp_path / "staging-root"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CountedHub]:
    """A local Hub of the module's own, which counts what it is asked and can be made to fail."""
    hub = CountedHub(tmp_path_factory.mktemp("counted") / "hub")
    with hub:
        yield hub


@pytest.fixture(scope="module")
def token(server: CountedHub) -> str:
    """The token of its account `lab`, which may write."""
    return server.token("lab")


@pytest.fixture
def breakable(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Breakable]:
    """That Hub. In the fast lane it is one within this process. In the end it fails no more."""
    if is_fast(request.config):
        with HubWithin(tmp_path / "hub") as within:
            yield within
        return
    server: CountedHub = request.getfixturevalue("server")
    yield server
    if server.process is not None:
        server.break_on()


@pytest.fixture
def counted(request: pytest.FixtureRequest, breakable: Breakable, repo_id: str) -> Hub:
    """A target of its own on that Hub, whose repo does not exist yet."""
    if isinstance(breakable, HubWithin):
        return breakable.target(repo_id)
    return Hub(Target(breakable.endpoint, repo_id), request.getfixturevalue("token"))


@pytest.fixture
def counted_by_flows(counted: Hub, monkeypatch: pytest.MonkeyPatch) -> Hub:
    """The same, and the flows that run in this process take that Hub for the only one."""
    template = constants.HUGGINGFACE_CO_URL_TEMPLATE.replace(constants.ENDPOINT, counted.target.endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "ENDPOINT", counted.target.endpoint)
    monkeypatch.setenv("HF_TOKEN", counted.token)
    return counted


@pytest.fixture(scope="session")
def bids(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BIDS dataset of six sessions, which no test may change. The first tester makes it, for all of them."""
    temporary = tmp_path_factory.getbasetemp()
    common = temporary.parent if "PYTEST_XDIST_WORKER" in os.environ else temporary
    common = HOME if LASTS else common  # for many runs, one after the other
    folder = common / "bids" / "ds004884"
    with FileLock(common / "bids.lock"):
        if not folder.exists():
            make_dataset(folder.with_name("unfinished"), sessions=SESSIONS)
            folder.with_name("unfinished").rename(folder)
    return folder


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole tree of ds004884 with a few bytes in place of each image, which no test may change."""
    return bids_examples.ds004884(tmp_path_factory.mktemp("whole") / "ds004884")


@pytest.fixture
def own_bids(bids: Path, tmp_path: Path) -> Path:
    """A copy of it, which the test may change."""
    return Path(shutil.copytree(bids, tmp_path / "own-bids", copy_function=shutil.copy2))


@pytest.fixture(scope="module")
def planted(bids: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it with everything in it that should not be published."""
    folder = tmp_path_factory.mktemp("planted") / "ds004884"
    shutil.copytree(bids, folder)
    plant(folder)
    return folder


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
