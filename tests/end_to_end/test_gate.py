"""The gate as people use it, and every way around it that was ever found, on a real server, worker and Hub."""

import re
import socket
from pathlib import Path
from typing import Any

import psutil
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from prefect.exceptions import PrefectHTTPStatusError
from prefect.states import Cancelling, Completed, Scheduled

from deployments.local_stack import Stack, wait_until
from deployments.watch import watching
from tasks.report.sentences import moment
from tasks.runs.ended_gates import WAITS
from tests.end_to_end.conftest import GATE_SECONDS, Push, Pushed
from tests.processes import wait_for_process

EXPECTED_SHARDS = 6


def flow_processes(stack: Stack) -> list[psutil.Process]:
    """The processes in which the worker runs flows."""
    worker = psutil.Process(stack.processes["worker"].popen.pid)
    return worker.children(recursive=True)


def test_whatever_is_not_a_decision_asks_again_and_so_does_a_retry_of_an_approved_run(
    push: Push, worker: Stack
) -> None:
    pushed = push().at_gate()
    staged = pushed.shards()
    assert len(staged) == EXPECTED_SHARDS
    wait_until("the process is gone while the gate waits", lambda: not flow_processes(worker), 30)

    # what the run shows: its name, how far it came, where to look, and the repo as an asset
    assert re.fullmatch(rf"push {pushed.repo_id}, \d{{4}}-\d\d-\d\d \d\d:\d\d", pushed.runs.read(pushed.run).name)
    shown = pushed.runs.artifacts(pushed.run)
    kinds = ("evidence", "repo", "commit", "push-progress", f"push-{pushed.run}")
    assert all(any(key.startswith(kind) for key in shown) for kind in kinds), list(shown)
    (commit,) = (str(data) for key, data in shown.items() if key.startswith("commit"))
    assert pushed.hub.head() in commit
    assert materialized(pushed) == [f"{worker.endpoint}/datasets/{pushed.repo_id}"]

    # that a person is awaited, where to press, until when, and about which files on which machine
    state = pushed.runs.read(pushed.run).state
    assert state is not None and state.state_details.pause_timeout is not None
    until = moment(state.state_details.pause_timeout)
    assert WAITS in pushed.runs.read(pushed.run).tags
    (evidence,) = (str(data) for key, data in shown.items() if key.startswith("evidence"))
    for told in (state.message or "", form_description(pushed) + form_schema(pushed), evidence, last_log(pushed)):
        assert until in told and str(pushed.staging.folder) in told and socket.gethostname() in told
    assert "press Resume" in (state.message or "") and "press Resume" in last_log(pushed)

    # the server refuses a form that is not filled in, and the gate stays open
    for wrong in ({}, {"decision": "yes", "confirm_repo": pushed.repo_id}, {"decision": "delete"}):
        assert pushed.runs.decide(pushed.run, **wrong)
    assert pushed.runs.read(pushed.run).state.name == "Suspended"  # type: ignore[union-attr]

    # set to Scheduled by hand: nobody has decided
    pushed.runs.set_state(pushed.run, Scheduled())
    pushed.at_gate()
    assert pushed.shards() == staged

    # another repo's name
    assert pushed.approve(confirm_repo="lab/another") is None
    pushed.at_gate()
    assert "`lab/another`" in form_description(pushed) and pushed.shards() == staged

    # approved, but by then the Hub holds something else
    receipt = pushed.staging.receipts()[0]
    data = (pushed.staging.folder / receipt.file).read_bytes()
    pushed.hub.commit([CommitOperationDelete(receipt.path)], "Tidy up", pushed.hub.head())
    assert pushed.approve() is None
    name, message = pushed.ended()
    assert WAITS not in pushed.runs.read(pushed.run).tags
    assert name == "VerificationFailed" and receipt.path in message and "Nothing was deleted" in message
    assert pushed.shards() == staged

    # the Hub is mended and the run retried: the approval given before counts no more
    pushed.hub.commit([CommitOperationAdd(receipt.path, data)], "Put it back", pushed.hub.head())
    pushed.runs.set_state(pushed.run, Scheduled(name="AwaitingRetry"), force=True)
    pushed.at_gate()
    assert pushed.shards() == staged

    assert pushed.approve() is None
    name, message = pushed.ended()
    assert name == "CleanedUp" and pushed.shards() == set()


def materialized(pushed: Pushed) -> list[str]:
    """The assets that the run has materialized, as the server's lineage knows them."""
    event, run = "prefect.asset.materialization.succeeded", f"prefect.flow-run.{pushed.run}"
    only = {"filter": {"event": {"name": [event]}, "related": {"id": [run]}}}
    found: list[dict[str, Any]] = []

    def there() -> bool:
        found[:] = pushed.runs.client._client.post("/events/filter", json=only).json()["events"]
        return bool(found)

    wait_until("the asset is recorded", there, 30)
    return [event["resource"]["prefect.resource.id"] for event in found]


def last_log(pushed: Pushed) -> str:
    """What the run has logged right before it was suspended; logs come a moment later than states."""
    wait_until("the log is there", lambda: "Waits for a person" in pushed.runs.logs(pushed.run), 30)
    logs = pushed.runs.logs(pushed.run)
    return logs[logs.index("Waits for a person") :]


def form_description(pushed: Pushed) -> str:
    """The Markdown above the form of the gate that is open now."""
    return form_part(pushed, "description")


def form_schema(pushed: Pushed) -> str:
    """The fields of the form, with what stands beside them."""
    return form_part(pushed, "schema")


def form_part(pushed: Pushed, part: str) -> str:
    """A part of the form of the gate that is open now; the run writes it right after it is suspended."""
    runs, run = pushed.runs, pushed.run
    keyset = runs.read(run).state.state_details.run_input_keyset
    found: list[str] = []

    def there() -> bool:
        try:
            found.append(runs.client._client.get(f"/flow_runs/{run}/input/{keyset[part]}").text)
        except PrefectHTTPStatusError:
            return False
        return True

    wait_until("the form is there", there, 30)
    return found[0]


def test_a_suspended_gate_outlives_its_worker_and_the_server_and_a_rejection_keeps_everything(
    push: Push, worker: Stack
) -> None:
    pushed = push().at_gate()
    staged = pushed.shards()
    wait_until("the process is gone while the gate waits", lambda: not flow_processes(worker), 60)
    worker.processes["worker"].kill()
    worker.processes["prefect"].kill()
    assert f"GATE OPEN: push {pushed.repo_id}" not in worker.run("deployments.staging")  # nobody can say now
    worker.start_prefect()
    worker.start_worker()
    assert f"GATE OPEN: push {pushed.repo_id}" in worker.run("deployments.staging")
    assert pushed.runs.read(pushed.run).state.name == "Suspended"  # type: ignore[union-attr]
    assert pushed.approve(decision="keep", note="not yet") is None
    name, message = pushed.ended()
    assert name == "Kept" and "cleanup-staging/cleanup" in message
    assert pushed.shards() == staged

    # what was kept goes when cleanup-staging is asked to, through a gate of its own
    tail = push("cleanup-staging/cleanup").at_gate()
    assert tail.shards() == staged
    assert tail.approve() is None
    assert tail.ended()[0] == "CleanedUp" and tail.shards() == set()
    listed = worker.run("deployments.staging").split(pushed.repo_id + "\n")[1]
    assert listed.strip().startswith("0 shards, 0 bytes\n  no gate is open")


def test_a_newer_nightly_takes_the_gate_over_and_an_approved_one_waits_for_its_slot(
    push: Push, worker: Stack, bids: Path, own_bids: Path, repo_id: str
) -> None:
    older = push("push-bids/nightly", source=str(own_bids)).at_gate()
    change_a_session(own_bids)
    newer = push("push-bids/nightly", source=str(own_bids)).at_gate()
    name, message = older.ended()
    assert older.runs.read(older.run).state.type.value == "CANCELLED"  # type: ignore[union-attr]
    assert name == "Superseded" and newer.runs.read(newer.run).name in message
    assert older.approve() is not None  # nothing is left to decide there
    assert len(newer.shards()) == EXPECTED_SHARDS + 1  # the changed session is staged twice

    # approved while another nightly has the only slot: it waits, and keeps its approval
    other = push("push-bids/nightly", repo_id=f"{repo_id}-other")
    other.runs.wait(other.run, {"RUNNING"})
    busy = wait_for_process(other.run)
    busy.suspend()
    assert newer.approve() is None
    waits = "AwaitingConcurrencySlot"
    wait_until("the approved run waits", lambda: waits in newer.runs.history(newer.run), GATE_SECONDS)
    busy.resume()
    assert newer.ended()[0] == "CleanedUp"
    assert len(other.at_gate().shards()) == EXPECTED_SHARDS

    # a night with nothing new asks nobody
    again = push("push-bids/nightly", source=str(own_bids))
    assert again.ended()[0] == "NothingToPublish"
    assert "Suspended" not in again.runs.history(again.run)

    # what the changed session was before is on the Hub in its history alone: a gate of its own lets it go
    (before,) = newer.shards()
    tail = push("cleanup-staging/cleanup").at_gate()
    assert "Remove **" in form_description(tail) and "stale file" in form_description(tail)
    shown = tail.runs.artifacts(tail.run)
    (evidence,) = (str(data) for key, data in shown.items() if key.startswith("evidence"))
    assert before in evidence and "in its history at" in evidence and "Only copies" not in evidence
    assert tail.approve(remove_stale=True) is None
    assert tail.ended()[0] == "CleanedUp" and tail.shards() == set()


def change_a_session(dataset: Path) -> None:
    """Edit the metadata of one session: its shard has to be published anew."""
    scans = sorted(dataset.glob("sub-*/ses-*/anat/*_T1w.json"))
    assert scans
    scans[0].write_text(scans[0].read_text().rstrip().removesuffix("}") + ', "EditedByHand": true}')


def test_a_gate_that_ends_without_a_decision_is_named_so_whenever_somebody_looks_and_deletes_nothing(
    push: Push, worker: Stack, repo_id: str
) -> None:
    worker.processes["watch"].stop()  # nobody looks
    late = push(env={"BIDS_PUSH_GATE_DAYS": str(8 / 86400)}, repo_id=f"{repo_id}-late")
    cancelled = push(repo_id=f"{repo_id}-cancelled").at_gate()
    completed = push(repo_id=f"{repo_id}-completed").at_gate()
    still_open = push(repo_id=f"{repo_id}-open").at_gate()
    gates = (late, cancelled, completed, still_open)
    runs = cancelled.runs
    automations = [automation.id for automation in runs.client.read_automations() if automation.enabled]
    for automation in automations:
        runs.client.pause_automation(automation)  # and nothing listens
    try:
        runs.set_state(cancelled.run, Cancelling())
        runs.set_state(completed.run, Completed())
        assert late.ended()[0] == "Failed" and cancelled.ended()[0] == "Cancelled"

        assert f"push {cancelled.repo_id}" in worker.run("deployments.watch", "--once")  # somebody looks
    finally:
        worker.start_watch("--every", "1")
        for automation in automations:
            runs.client.resume_automation(automation)
    states = [gate.runs.read(gate.run).state for gate in gates]
    assert [state and state.name for state in states] == ["GateTimedOut", "GateCancelled", "Completed", "Suspended"]
    for gate in (late, cancelled):
        message = gate.ended()[1]
        assert "Nothing more is deleted" in message and "cleanup-staging/cleanup" in message
        assert gate.approve() is not None
    assert [WAITS in runs.read(gate.run).tags for gate in gates] == [False, False, False, True]

    # many looks, with no patience at all, change nothing of a gate that is open, nor of runs that have ended
    before = [runs.history(gate.run) for gate in gates]
    with watching(silence=0.0) as watch:
        for _ in range(10):
            watch.look()
    assert [runs.history(gate.run) for gate in gates] == before
    for gate in gates:
        assert len(gate.shards()) == EXPECTED_SHARDS

    # a run on the same target names what it finds, with nobody watching
    worker.processes["watch"].stop()
    runs.set_state(still_open.run, Cancelling())
    push(repo_id=still_open.repo_id).ended()
    assert runs.history(still_open.run)[-1] == "GateCancelled"
    worker.start_watch("--every", "1")
