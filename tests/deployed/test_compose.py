"""What `deployments/compose.yaml` starts: a server behind a login, on PostgreSQL, and a worker that gets through it.

Its services run as plain processes (`tests.deployed.composed`). The people's address is `localhost`, which is not what
the server would tell browsers by itself.
"""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import httpx2
import pytest
from playwright.sync_api import Page, expect, sync_playwright
from prefect.settings import PREFECT_API_AUTH_STRING, temporary_settings
from prefect.states import Cancelling

from deployments.local_stack import Stack, StackError, wait_until
from deployments.runs import Runs, runs_of
from tests.deployed.composed import Composed
from tests.end_to_end.browsing import SHOTS, launched, open_page, shot
from tests.ports import own_port
from tests.postgres import QUICK, postgres

LOGIN = "lab:a%pass/word:with@signs"
SERVICES = {"database", "server", "deploy", "worker", "watch", "hub", "hub-backup", "hub-check", "hub-check-backup"}


@pytest.fixture(scope="module")
def composed(hub_server: Stack, tmp_path_factory: pytest.TempPathFactory, bids: Path) -> Iterator[Composed]:
    folder = tmp_path_factory.mktemp("composed")
    port = own_port()
    with postgres(**QUICK) as cluster:
        cluster.connection_url("prefect")
        values = {
            "BIDS_PUSH_URL": f"http://localhost:{port}",
            "BIDS_PUSH_LOGIN": LOGIN,
            "DATABASE_PASSWORD": cluster.password,
            "HF_TOKEN": hub_server.token,
            "HF_ENDPOINT": hub_server.endpoint,
            "BIDS_PUSH_DATA": str(bids.parent),
            "BIDS_PUSH_STAGING_ROOT": str(folder / "staging"),
        }
        composed = Composed(folder, values, cluster.port, port, more={"PREFECT_WORKER_QUERY_SECONDS": "0.5"})
        try:
            composed.start("server")
            composed.run("deploy")
            composed.start("worker")
            composed.start("watch")
            yield composed
        finally:
            composed.stop()


@pytest.fixture
def runs(composed: Composed) -> Iterator[Runs]:
    with temporary_settings({PREFECT_API_AUTH_STRING: LOGIN}), runs_of(f"{address(composed)}/api") as found:
        yield found


def address(composed: Composed) -> str:
    return composed.values["BIDS_PUSH_URL"]


def test_without_the_login_the_server_tells_nobody_anything_but_that_it_is_up(composed: Composed) -> None:
    count = f"{address(composed)}/api/flow_runs/count"
    user, _, password = LOGIN.partition(":")
    assert httpx2.post(count).status_code == HTTPStatus.UNAUTHORIZED
    assert httpx2.post(count, auth=(user, "another")).status_code == HTTPStatus.UNAUTHORIZED
    assert httpx2.post(count, auth=(user, password)).status_code == HTTPStatus.OK
    assert httpx2.get(f"{address(composed)}/api/metrics").status_code == HTTPStatus.UNAUTHORIZED
    assert "prefect_events" in httpx2.get(f"{address(composed)}/api/metrics", auth=(user, password)).text
    assert httpx2.get(f"{address(composed)}/api/health").json() is True


def test_a_browser_elsewhere_is_told_the_address_that_was_set(composed: Composed) -> None:
    told = httpx2.get(f"{address(composed)}/ui-settings").json()
    assert told["api_url"] == f"{address(composed)}/api"
    assert told["auth"] == "BASIC"


def test_deploying_with_another_login_says_what_to_set(composed: Composed) -> None:
    right = composed.services["deploy"]["environment"]["PREFECT_API_AUTH_STRING"]
    composed.services["deploy"]["environment"]["PREFECT_API_AUTH_STRING"] = "lab:another"
    try:
        with pytest.raises(StackError) as refused:
            composed.run("deploy")
    finally:
        composed.services["deploy"]["environment"]["PREFECT_API_AUTH_STRING"] = right
    assert "PREFECT_API_AUTH_STRING" in str(refused.value) and "Traceback" not in str(refused.value)


def test_the_worker_takes_a_run_through_the_login_and_finishes_it(
    composed: Composed, runs: Runs, bids: Path, repo_id: str
) -> None:
    run = runs.start("push-bids/manual", source=str(bids), repo_id=repo_id, defacing="no faces", dry_run=True)
    state = runs.wait(run).state
    assert state is not None and state.name == "DryRun", state
    for log in composed.folder.glob("*.log"):
        text = log.read_text(errors="replace")
        assert LOGIN not in text and composed.values["DATABASE_PASSWORD"] not in text, log.name


def test_the_watch_gets_through_the_login_and_names_a_gate_that_was_cancelled(
    composed: Composed, runs: Runs, bids: Path, repo_id: str
) -> None:
    run = runs.start("push-bids/manual", source=str(bids), repo_id=repo_id, defacing="no faces")
    runs.wait(run, {"PAUSED"})
    runs.set_state(run, Cancelling())
    watch = composed.processes["watch"]
    wait_until("the gate is named", lambda: runs.history(run)[-1] == "GateCancelled", 60, watch)


def test_the_browser_asks_for_the_login_and_works_after_it(composed: Composed, runs: Runs) -> None:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, launched(playwright) as browser:
        for version in ("", "/v2"):
            page = open_page(browser)
            log_in(page, f"{address(composed)}{version}", LOGIN, f"login-{version.strip('/') or 'v1'}.png")
            page.goto(f"{address(composed)}{version}/deployments")
            for name in ("manual", "nightly", "cleanup"):
                expect(page.get_by_text(name, exact=True).first).to_be_visible(timeout=30_000)
            shot(page, f"after-login-{version.strip('/') or 'v1'}.png")
            page.context.close()


def log_in(page: Page, base: str, login: str, picture: str) -> None:
    """Come to the UI as a colleague would, and give the login that it asks for."""
    page.goto(f"{base}/deployments")
    asked = page.locator("input[type=password]")
    asked.wait_for(timeout=30_000)
    shot(page, picture)
    asked.fill(login)
    page.get_by_role("button", name="Login", exact=True).click()
    page.wait_for_url(lambda url: "/login" not in url, timeout=30_000)


def test_what_must_be_set_is_asked_for_by_its_name(composed: Composed) -> None:
    for name in composed.values:
        if name == "HF_ENDPOINT":
            continue  # huggingface.co, unless it is set
        without = {key: value for key, value in composed.values.items() if key != name}
        with pytest.raises(StackError, match=name):
            Composed(composed.folder / f"without-{name}", without, 0, 0)
    assert composed.services.keys() == SERVICES
