"""What a person does in the browser: start a run from its form, watch it, decide at its gate.

Headless Chromium on the real server, in both of Prefect's UIs (`tests.end_to_end.browsing`).
"""

import re
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

import pytest
from playwright.sync_api import Browser, Page, expect

from deployments.local_stack import Stack, wait_until
from deployments.runs import Runs
from tasks.runs.ended_gates import WAITS
from tests.end_to_end.browsing import choose, field, open_form, open_page, prefer, send, shot
from tests.end_to_end.conftest import GATE_SECONDS, Push, Pushed

GATE_MILLISECONDS = GATE_SECONDS * 1000
pytestmark = pytest.mark.usefixtures("last_looks")


def decide(page: Page, decision: str, repo_id: str) -> None:
    """Fill in the gate's form in the older UI, and send it."""
    page.get_by_role("button", name="Resume").click()
    choose(field(page, "Decision"), decision, after=["delete", "keep"].index(decision))
    field(page, "Repo name").locator("textarea").fill(repo_id)
    assert send(page, page.get_by_role("button", name="Submit"), "/resume").ok


def decide_in_v2(page: Page, decision: str, repo_id: str) -> None:
    """The same in the newer one."""
    page.get_by_role("button", name="Open menu").click()
    page.get_by_role("menuitem", name="Resume").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("button", name="Select Decision").click()
    page.get_by_role("option", name=decision).click()
    dialog.get_by_label("Repo name").fill(repo_id)
    assert send(page, dialog.get_by_role("button", name="Resume"), "/resume").ok


def test_a_run_is_started_watched_and_approved_in_the_browser(
    browser: Browser, runs: Runs, worker: Stack, repo_id: str, bids: Path
) -> None:
    deployment = runs.client.read_deployment_by_name("push-bids/manual").id
    page = open_page(browser)
    page.goto(f"{worker.ui}/deployments/deployment/{deployment}/run")

    # a repo without a namespace is refused before anything starts
    field(page, "source").locator("textarea").fill(str(bids))
    choose(field(page, "defacing"), "no faces", after=2)
    submit = page.get_by_role("button", name="Submit")
    field(page, "repo_id").locator("textarea").fill("no-namespace")
    assert send(page, submit, "/create_flow_run").status == HTTPStatus.CONFLICT
    expect(page.get_by_text("'no-namespace' does not match").first).to_be_visible()
    field(page, "repo_id").locator("textarea").fill(repo_id)
    assert send(page, submit, "/create_flow_run").ok
    page.wait_for_url(f"**/deployments/deployment/{deployment}*")
    (run,) = started(runs, repo_id)
    pushed = Pushed(runs, worker, run, repo_id)
    page.goto(f"{worker.ui}/runs/flow-run/{run}")

    # the gate opens, and shows what it is about
    page.get_by_role("button", name="Resume").wait_for(timeout=GATE_MILLISECONDS)
    staged = pushed.shards()
    assert staged
    expect(page.get_by_text(f"push {repo_id},").first).to_be_visible()
    take_pictures(browser, runs, worker, pushed, str(deployment))

    # another repo's name is refused by asking again
    first = runs.read(run).state
    decide(page, "delete", "lab/another")
    wait_until("the gate asks again", lambda: asked_again(runs, run, first.id if first else None), GATE_SECONDS)
    page.reload()
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_text("Not accepted:", exact=True)).to_be_visible()
    shot(page, "asked-again.png")
    assert pushed.shards() == staged
    page.reload()

    decide(page, "delete", repo_id)
    expect(page.get_by_text("CleanedUp", exact=True).first).to_be_visible(timeout=GATE_MILLISECONDS)
    assert pushed.shards() == set()
    page.get_by_text("Artifacts", exact=True).click()
    expect(page.get_by_text("What was freed").first).to_be_visible()
    shot(page, "cleaned-up.png", full_page=True)


def asked_again(runs: Runs, run: UUID, first: UUID | None) -> bool:
    """Whether the run is at its gate anew: the page may miss what was between."""
    state = runs.read(run).state
    return state is not None and state.type.value == "PAUSED" and state.id != first


def started(runs: Runs, repo_id: str) -> list[UUID]:
    """The runs on this repo, once there is one."""
    found: list[UUID] = []

    def there() -> bool:
        found[:] = [run.id for run in runs.client.read_flow_runs() if run.parameters.get("repo_id") == repo_id]
        return bool(found)

    wait_until("the run is there", there, 30)
    return found


def test_a_run_is_rejected_in_the_newer_ui(browser: Browser, worker: Stack, push: Push) -> None:
    pushed = push().at_gate()
    staged = pushed.shards()
    page = open_page(browser, "dark")
    page.goto(f"{worker.ui}/v2/runs/flow-run/{pushed.run}")
    decide_in_v2(page, "keep", pushed.repo_id)
    expect(page.get_by_text("Kept", exact=True).first).to_be_visible(timeout=GATE_MILLISECONDS)
    shot(page, "kept-v2-dark.png")
    assert pushed.shards() == staged


def take_pictures(browser: Browser, runs: Runs, worker: Stack, pushed: Pushed, deployment: str) -> None:
    """The form, the run, the gate, the evidence and the status, in both UIs, light and dark."""
    answer = runs.client._client.post(
        "/artifacts/filter", json={"artifacts": {"flow_run_id": {"any_": [str(pushed.run)]}}}
    )
    (evidence,) = (found["id"] for found in answer.json() if (found["key"] or "").startswith("evidence-"))
    state = runs.read(pushed.run).state
    status = re.search(r"Status of the target: \S+(/artifacts/artifact/\S+)", (state and state.message) or "")
    assert status is not None
    page = open_page(browser)
    for scheme, version in (("light", ""), ("dark", ""), ("light", "/v2"), ("dark", "/v2")):
        prefer(page, scheme)
        base, name = worker.ui + version, f"{version.strip('/') or 'v1'}-{scheme}.png"

        if (scheme == "dark") == bool(version):  # of what has fewer parts, one light and one dark are enough
            page.goto(f"{base}/deployments/deployment/{deployment}/run")
            expect(page.get_by_text("Your statement on the faces")).to_be_visible()
            page.set_viewport_size({"width": 1280, "height": 2300})
            shot(page, f"form-{name}")
            page.set_viewport_size({"width": 1280, "height": 900})
        else:
            page.goto(f"{base}/artifacts/artifact/{evidence}")
            expect(page.get_by_role("img", name="mid-slices")).to_be_visible()
            expect(page.get_by_role("heading", name="Read back, byte for byte")).to_be_visible()
            shot(page, f"evidence-{name}", full_page=True)
            page.goto(f"{base}{status[1]}")
            expect(page.get_by_text("6 of 6 shards on the Hub, 0 to do.").first).to_be_visible()
            expect(page.get_by_text("The gate is open").first).to_be_visible()
            shot(page, f"status-{name}", full_page=True)

        page.goto(f"{base}/runs/flow-run/{pushed.run}")
        expect(page.get_by_text("Suspended").first).to_be_visible()
        expect(page.get_by_text(WAITS).first).to_be_in_viewport()
        shot(page, f"run-{name}")
        page.get_by_text("Details", exact=True).first.click()
        says = page.get_by_text("Waits for a person: press Resume").first
        says.scroll_into_view_if_needed()
        expect(says).to_be_visible()
        shot(page, f"details-{name}")
        page.goto(f"{base}/runs/flow-run/{pushed.run}")
        open_form(page, version)
        picture = page.get_by_role("img", name="slices of images that the Hub sent back")
        expect(picture).to_be_in_viewport(ratio=0.99)
        expect(page.get_by_text("Type the repo's name")).to_be_in_viewport()
        expect(page.get_by_text(f"({pushed.staging.folder} on ")).to_be_in_viewport()
        shot(page, f"gate-{name}")
        page.goto(f"{base}/automations")
        expect(page.get_by_text("bids-push: gate open for a day")).to_be_visible()
        shot(page, f"automations-{name}")
    page.context.close()
