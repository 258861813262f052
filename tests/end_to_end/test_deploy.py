"""`make deploy`, the parameter form's rules, the alerts, and the token that must show nowhere."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from uuid import UUID

import psutil
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.blocks.system import Secret
from prefect.client.schemas.actions import DeploymentUpdate, WorkPoolUpdate
from prefect.client.schemas.schedules import CronSchedule
from prefect.events.actions import DoNothing, SendNotification
from prefect.exceptions import PrefectHTTPStatusError

from deployments.automations import GONE, automation, automations, event, gate_open
from deployments.deploy import NOTIFY, POOL
from deployments.local_stack import REPO, Stack, wait_until
from deployments.runs import Runs
from deployments.watch import read_leases
from tests.end_to_end.conftest import GATE_SECONDS, Push, Pushed, seen_to


@pytest.fixture(scope="module")
def told() -> Iterator[tuple[str, list[str]]]:
    """Somebody who is told: the address of a webhook, and what was sent to it."""
    said: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            said.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Nothing."""

    with HTTPServer(("127.0.0.1", 0), Listener) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}/", said
        server.shutdown()
        thread.join()


def test_deploying_again_changes_nothing_that_a_person_has_set(runs: Runs, worker: Stack) -> None:
    client = runs.client
    client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=7))
    nightly = client.read_deployment_by_name("push-bids/nightly")
    (schedule,) = nightly.schedules
    assert not schedule.active and schedule.schedule.timezone == "UTC"
    assert nightly.concurrency_options.collision_strategy == "ENQUEUE"
    at_half_past_three = CronSchedule(cron="30 3 * * *", timezone="Europe/Berlin")
    client.update_deployment_schedule(nightly.id, schedule.id, active=True, schedule=at_half_past_three)
    mine = {"source": "/srv/bids/mine", "repo_id": "lab/mine"}
    client.update_deployment(nightly.id, DeploymentUpdate(parameters=mine))
    turned_off = client.read_automations_by_name("bids-push: nightly late")[0]
    client.pause_automation(turned_off.id)
    try:
        worker.deploy()
        assert client.read_work_pool(POOL).concurrency_limit == 7
        nightly = client.read_deployment_by_name("push-bids/nightly")
        assert [(schedule.active, schedule.schedule) for schedule in nightly.schedules] == [(True, at_half_past_three)]
        assert nightly.parameters == {**mine, "defacing": "not stated"}  # asked for since these were set
        names = [automation.name for automation in client.read_automations()]
        assert sorted(names) == sorted(automation.name for automation in automations(None))
        assert not client.read_automations_by_name("bids-push: nightly late")[0].enabled
    finally:
        client.resume_automation(turned_off.id)
        (schedule,) = client.read_deployment_by_name("push-bids/nightly").schedules
        client.update_deployment_schedule(nightly.id, schedule.id, active=False)
        client.update_work_pool(POOL, WorkPoolUpdate(concurrency_limit=None))


def test_deploying_mends_what_earlier_versions_have_left_once_and_nothing_of_anybody_else(
    runs: Runs, worker: Stack
) -> None:
    """Their automations go; removed=delete, which a run refuses by now, is ask."""
    client = runs.client
    mine = automation("mine", "Somebody's own.", event("Cancelled"), DoNothing()).model_copy(update={"name": "zombies"})
    others = client.create_automation(mine)
    for name in GONE:
        client.create_automation(mine.model_copy(update={"name": name}))
    nightly = client.read_deployment_by_name("push-bids/nightly")
    theirs = nightly.parameters | {"source": "/srv/bids/mine", "removed": "delete"}
    client.update_deployment(nightly.id, DeploymentUpdate(parameters=theirs, enforce_parameter_schema=False))
    try:
        said = worker.run("deployments.deploy")
        assert (
            all(name in said for name in GONE)
            and "push-bids/nightly: removed=delete of earlier versions is removed=ask now" in said
        )
        names = {found.name for found in client.read_automations()}
        assert not names & set(GONE) and "zombies" in names
        found = client.read_deployment_by_name("push-bids/nightly").parameters
        assert found == theirs | {"removed": "ask"}
        again = worker.run("deployments.deploy")
        assert "Removed" not in again and "is removed=ask now" not in again
    finally:
        client.update_deployment(nightly.id, DeploymentUpdate(parameters=nightly.parameters))
        client.delete_automation(others)


def test_the_demo_is_not_deployed_where_people_work(runs: Runs, worker: Stack) -> None:
    deployed = sorted(f"{found.name}" for found in runs.client.read_deployments())
    assert deployed == ["cleanup", "manual", "nightly", "restore"]


def test_deploying_to_nowhere_says_what_to_set(worker: Stack) -> None:
    environment = {name: value for name, value in worker.environment.items() if name != "PREFECT_API_URL"}
    done = subprocess.run(
        [sys.executable, "-m", "deployments.deploy"], cwd=REPO, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and "PREFECT_API_URL=" in done.stderr and "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        {"repo_id": "no-namespace"},
        {"repo_id": "https://huggingface.co/datasets/lab/x"},
        {"revision": ""},
        {"verification": "none"},
        {"removed": "everything"},
        {"private": "perhaps"},
        {"source": None},
        {"token_block": "hf_NotABlock"},
    ],
)
def test_parameters_that_cannot_be_right_are_refused_before_anything_starts(push: Push, wrong: dict[str, Any]) -> None:
    with pytest.raises(PrefectHTTPStatusError) as refused:
        push(**wrong)
    assert refused.value.response.status_code in (409, 422)


def test_every_parameter_of_the_forms_is_described(runs: Runs) -> None:
    for name in ("push-bids/manual", "push-bids/nightly", "cleanup-staging/cleanup", "restore-bids/restore"):
        schema = runs.client.read_deployment_by_name(name).parameter_openapi_schema
        for field, what in schema["properties"].items():
            assert len(what.get("description", "")) > 15, f"{name}: {field}"


def test_a_gate_left_open_a_nightly_that_failed_and_one_that_never_began_are_told_to_somebody(
    push: Push, runs: Runs, worker: Stack, repo_id: str, told: tuple[str, list[str]]
) -> None:
    url, said = told
    block = CustomWebhookNotificationBlock(
        name="alerts", url=url, json_data={"subject": "{{subject}}", "body": "{{body}}"}
    )
    block_id = UUID(str(block.save(NOTIFY, overwrite=True)))
    worker.deploy()
    quick = gate_open(SendNotification(block_document_id=block_id, subject="open", body=BODY), timedelta(seconds=10))
    quick_id = runs.client.create_automation(quick.model_copy(update={"name": "quick"}))

    def waits(number: int) -> Pushed:
        return push(repo_id=f"{repo_id}-waits-{number}").at_gate()

    def never_begins(number: int) -> Pushed:
        return push("push-bids/nightly", source="/no/such/folder", repo_id=f"{repo_id}-late-{number}")

    def fails(number: int) -> Pushed:
        failed = push("push-bids/nightly", source="/no/such/folder", repo_id=f"{repo_id}-fails-{number}")
        failed.ended()
        assert runs.read(failed.run).state.type.value == "FAILED"  # type: ignore[union-attr]
        return failed

    def tells(words: str) -> Callable[[Pushed], bool]:
        return lambda pushed: any(str(pushed.run) in s and words in s for s in said)

    try:
        seen_to("somebody is told of the gate", waits, tells("open"))
        worker.processes["worker"].kill()
        seen_to("somebody is told of the late one", never_begins, tells("nightly has not started"))
        worker.start_worker()
        failed = seen_to("somebody is told of the failed one", fails, tells("nightly has failed"))
        assert any(failed.ended()[1][:40] in json.loads(s)["body"] for s in said)
    finally:
        runs.client.delete_automation(quick_id)


BODY = "{{ flow_run.name }} {{ flow_run | ui_url }}"


def test_a_run_whose_machine_died_is_marked_and_the_next_one_goes_on(push: Push, runs: Runs, worker: Stack) -> None:
    hub = worker.processes["hub"]
    os.killpg(hub.popen.pid, signal.SIGSTOP)  # so that the run is busy until it dies
    try:
        pushed = push()
        wait_until("it holds its target", lambda: str(pushed.run) in read_leases(runs.client), GATE_SECONDS)
        die(worker)
    finally:
        os.killpg(hub.popen.pid, signal.SIGCONT)
    assert runs.read(pushed.run).state.name == "Running"  # type: ignore[union-attr]
    quick = worker.start("quick-watch", ["deployments.watch", "--every", "0.5", "--silence", "2"])
    wait_until("it is marked", lambda: runs.history(pushed.run)[-1] == "Zombie", GATE_SECONDS)
    quick.stop()
    state = runs.read(pushed.run).state
    assert state is not None and state.type.value == "CRASHED" and "Start the run again" in (state.message or "")
    worker.start_worker()
    assert push(repo_id=pushed.repo_id).at_gate().shards()


def die(worker: Stack) -> None:
    """What a power cut does to the worker and to all that it runs."""
    process = worker.processes["worker"]
    family = psutil.Process(process.popen.pid).children(recursive=True)
    process.kill()
    for child in family:
        if child.is_running():
            child.kill()


def test_a_token_from_a_block_works_and_shows_nowhere(push: Push, runs: Runs, worker: Stack) -> None:
    token = worker.token
    Secret(value=token).save("hub-token", overwrite=True)
    without = {"HF_TOKEN": ""}
    pushed = push(env=without, token_block="hub-token", verification="full")
    missing = push(env=without, token_block="no-such-block", repo_id=f"{pushed.repo_id}-a")
    none = push(env=without, repo_id=f"{pushed.repo_id}-b")
    pushed.at_gate()
    assert pushed.approve() is None
    assert pushed.ended()[0] == "CleanedUp"
    name, message = missing.ended()
    assert name == "BadInput" and "no-such-block" in message and "Blocks" in message
    name, message = none.ended()
    assert name == "NoToken" and "HF_TOKEN" in message

    run = runs.read(pushed.run)
    shown = {
        "the run": run.model_dump_json(),
        "its logs": runs.logs(pushed.run),
        "its artifacts": json.dumps(runs.artifacts(pushed.run), default=str),
        "its events": runs.client._client.post(
            "/events/filter", json={"filter": {"resource": {"id": [f"prefect.flow-run.{pushed.run}"]}}}
        ).text,
        "the deployments": json.dumps([d.model_dump(mode="json") for d in runs.client.read_deployments()]),
        "the worker's log": worker.processes["worker"].log.read_text(errors="replace"),
    }
    assert len(shown["its logs"]) > 100 and len(shown["its artifacts"]) > 1000
    assert [where for where, text in shown.items() if token in text] == []
    assert [str(path) for path in files_with(token.encode(), pushed.staging.folder.parent)] == []
    assert [str(path) for path in files_with(token.encode(), worker.folder / "prefect" / "storage")] == []


def files_with(what: bytes, folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if path.is_file() and what in path.read_bytes():
            yield path
