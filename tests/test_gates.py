"""What a gate tells and does where something has changed until somebody comes back to it.

On a real Hub and a real Prefect server, without a worker (`tests.gated`): with one, see end_to_end/test_gate.py. In the
fast lane both are within this process.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from huggingface_hub import CommitOperationAdd
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.client.schemas.objects import FlowRun, State
from prefect.states import Cancelled, Failed

from deployments.runs import Runs
from tasks.approve import read_gate, write_gate
from tasks.hub.client import Hub
from tasks.record.kept_removals import read_keepings
from tasks.record.remote import RECORD
from tasks.runs.ended_gates import NEVER_RESUMED, WAITS, name_ended_gates, name_its_end
from tests.bids_examples import move_session
from tests.conftest import SESSIONS
from tests.figures import artifacts
from tests.gated import Gated, said

pytestmark = pytest.mark.usefixtures("prefect")
Nights = Callable[..., Gated]


@pytest.fixture
def nights(counted_by_flows: Hub, bids: Path, tmp_path: Path) -> Nights:
    """Makes nights of the tests' dataset on a target of its own, at a revision."""

    def of(revision: str = "main", source: Path = bids) -> Gated:
        target = replace(counted_by_flows.target, revision=revision)
        return Gated(target, source, tmp_path / "root", counted_by_flows.token)

    return of


def shards(gated: Gated) -> set[str]:
    """The names of the staged shards."""
    return {path.name for path in gated.staging.folder.rglob("*.parquet")}


def form_description(run: FlowRun) -> str:
    """The Markdown above the form of the gate that is open now."""
    keyset = (run.state and run.state.state_details.run_input_keyset) or {}
    path = {"id": str(run.id), "key": keyset["description"]}
    with get_client(sync_client=True) as client:
        return client.request("GET", "/flow_runs/{id}/input/{key}", path_params=path).text


def history(run: FlowRun) -> list[str]:
    with get_client(sync_client=True) as client:
        return Runs(client).history(run.id)


def test_what_a_gate_shows_is_written_down_and_the_form_leads_to_all_of_the_evidence(
    nights: Nights, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_GATE_DAYS", "3")
    here = nights()
    run = here.night(verification="sample")
    gate, state = read_gate(here.staging), run.state
    assert gate is not None and state is not None
    assert (gate.flow_run_id, gate.target, gate.opened_at_commit) == (
        str(run.id),
        str(here.hub.target),
        here.hub.head(),
    )
    assert {one.file for one in gate.shown} == {one.file for one in here.staging.receipts()}
    closes = gate.expires
    assert closes is not None and state.state_details.pause_timeout == closes
    assert timedelta(days=2.9) < closes - datetime.now(UTC) <= timedelta(days=3)
    assert f"artifacts/artifact/{gate.artifact})" in form_description(run)
    shown = {key: str(data) for key, data in artifacts(state).items()}
    (evidence,) = (text for key, text in shown.items() if key.startswith("evidence-"))
    assert f"{SESSIONS} shards" in evidence and str(here.staging.folder) in evidence
    with get_client(sync_client=True) as client:
        assert Runs(client).questions(run) == ["decision", "confirm_repo", "remove_stale", "note"]
    (status,) = (text for key, text in shown.items() if key.startswith("target-"))
    assert "Suspended" in status and run.name in status


def test_what_was_kept_is_asked_about_again_by_a_cleanup_and_goes_from_this_machine_alone(nights: Nights) -> None:
    here = nights()
    assert said(here.answer(here.night(), decision="keep"))[0] == "Kept"
    on_hub, staged = here.files(), shards(here)
    assert len(staged) == SESSIONS
    gate = here.cleanup()
    assert said(gate)[0] == "Suspended" and shards(here) == staged
    name, message = said(here.answer(gate, decision="delete"))
    assert name == "CleanedUp" and f"the Hub lists all of it at {here.hub.head()[:12]}" in message, message
    assert not shards(here) and not here.staging.receipts() and here.files() == on_hub
    closed = read_gate(here.staging)
    assert closed is not None and closed.opened_at_commit is None and not closed.shown
    name, message = said(here.cleanup())
    assert name == "NothingStaged" and str(here.staging.folder) in message


def test_copies_and_a_session_that_was_withdrawn_are_decided_at_one_gate(
    nights: Nights, own_bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", "1")  # one subject of these is a large part
    here = nights(source=own_bids)
    assert said(here.answer(here.night(), decision="keep"))[0] == "Kept"
    before = here.files()
    session = sorted(own_bids.glob("sub-*/ses-*"))[0]
    move_session(own_bids, session, tmp_path / "away")
    shard = f"data/{session.parent.name}/{session.parent.name}_{session.name}.parquet"
    (own_bids / "CHANGES").write_text("1.0.9 2026-11-24\n  - One less\n")
    image = sorted(own_bids.rglob("*_T1w.nii.gz"))[-1]
    shutil.copyfile(sorted(own_bids.rglob("*_T1w.nii.gz"))[0], image)  # its shard is staged and sent

    gate = here.night()
    assert said(gate)[0] == "Suspended" and Path(shard).stem in said(gate)[1] and here.files() == before
    assert "no longer in the dataset" in form_description(gate)
    shown = read_gate(here.staging)
    assert shown is not None and set(shown.removals.shards) == {shard} and len(shown.shown) == SESSIONS - 1
    name, message = said(here.answer(gate, decision="delete", removals="remove"))
    assert name == "Removed" and "1 shard" in message and "of 1 subject" in message, message
    assert before - here.files() == {shard} and here.files() <= before
    assert "freed" in caplog.text + message
    assert said(here.night())[0] == "NothingToPublish" and here.files() == before - {shard}

    # it is back: nobody publishes it again without the number of files
    shutil.copytree(tmp_path / "away", own_bids, dirs_exist_ok=True, copy_function=shutil.copy2)
    assert shard not in here.files() and said(here.night())[0] not in ("Suspended", "NothingToPublish")
    assert shard not in here.files()


def test_a_session_that_was_withdrawn_alone_is_asked_about_once_and_stays_if_a_person_says_so(
    nights: Nights, own_bids: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", "1")  # one subject of these is a large part
    here = nights(source=own_bids)
    assert said(here.answer(here.night(), decision="delete"))[0] == "CleanedUp"
    before = here.files()
    session = sorted(own_bids.glob("sub-*/ses-*"))[0]
    move_session(own_bids, session, tmp_path / "away")
    gate = here.night()
    assert said(gate)[0] == "Suspended" and not shards(here)
    with get_client(sync_client=True) as client:
        assert Runs(client).questions(gate) == ["removals", "confirm_repo", "note"]
    assert said(here.answer(gate, removals="keep", note="until the board has met"))[0] == "Kept"
    (kept,) = read_keepings(here.staging)
    assert (kept.note, kept.flow_run_name) == ("until the board has met", gate.name)
    assert [Path(path).stem for path in kept.removals.shards] == [f"{session.parent.name}_{session.name}"]
    name, message = said(here.night())
    assert name == "NothingToPublish" and 'with the note "until the board has met"' in message
    assert here.files() == before


@pytest.mark.parametrize(
    ("ends", "name"),
    [(Cancelled(), "GateCancelled"), (Failed(message=f"It was paused {NEVER_RESUMED}"), "GateTimedOut")],
    ids=["cancelled", "timed out"],
)
def test_a_gate_at_which_nobody_decided_is_named_so_once_and_waits_for_nobody(
    nights: Nights, ends: State[Any], name: str
) -> None:
    here = nights()
    run = here.night()
    of = FlowRunFilter.model_validate({"id": {"any_": [run.id]}})
    with get_client(sync_client=True) as client:
        name_ended_gates(client, of)
        assert said(here.read(run.id))[0] == "Suspended" and WAITS in here.read(run.id).tags
        client.set_flow_run_state(run.id, ends, force=True)
        assert name_its_end(client, run) == name
        named = here.read(run.id)
        assert said(named)[0] == name and "what is staged stays" in said(named)[1]
        name_ended_gates(client, of)
    again = here.read(run.id)
    assert again.state and named.state and again.state.id == named.state.id and WAITS not in again.tags
    assert len(shards(here)) == SESSIONS


@pytest.mark.slow
def test_two_targets_that_differ_only_in_revision_share_nothing_and_what_is_not_ours_stays(
    nights: Nights, tmp_path: Path
) -> None:
    other, main = nights("other"), nights()
    one = other.night(revision="other")  # first: a branch that is cut from a published main has nothing to publish
    two = main.night()
    assert said(one)[0] == said(two)[0] == "Suspended" and main.staging.folder != other.staging.folder
    staged = shards(main)

    # a file of the other one swapped for a link, and a file that nobody planned
    first = other.staging.folder / other.staging.receipts()[0].file
    precious = tmp_path / "precious.parquet"
    first.rename(precious)
    first.symlink_to(precious)
    foreign = first.with_name("thesis.docx")
    foreign.write_text("mine")
    name, message = said(other.answer(one, decision="delete", remove_stale=True))
    assert name == "CleanupRefused" and first.name in message and "it is a symlink" in message
    assert precious.exists() and first.is_symlink() and foreign.read_text() == "mine"
    assert shards(other) == {first.name} and shards(main) == staged

    # approved on a machine that does not have what the gate has shown
    elsewhere = tmp_path / "elsewhere"
    main.staging.folder.rename(elsewhere)
    name, message = said(main.answer(two, decision="delete"))
    assert name == "GateElsewhere" and str(main.staging.folder) in message and "cleanup-staging/cleanup" in message
    assert {path.name for path in elsewhere.rglob("*.parquet")} == staged


def test_a_shard_that_is_gone_when_somebody_comes_back_is_told(nights: Nights) -> None:
    here = nights()
    run = here.night()
    receipt = here.staging.receipts()[0]
    (here.staging.folder / receipt.file).unlink()
    again = here.answer(run, decision="delete", confirm_repo="lab/another")
    told = f"1 of {SESSIONS} shown shards was gone or changed already: {Path(receipt.path).name}"
    assert said(again)[0] == "Suspended" and "`lab/another`" in form_description(again)
    assert told in form_description(again) and f"{SESSIONS - 1} shards" in form_description(again)
    done = here.answer(again, decision="delete")
    name, message = said(done)
    assert name == "CleanedUp" and told in message and not shards(here)
    assert done.state is not None
    assert any(told in str(data) for key, data in artifacts(done.state).items() if key.startswith("freed"))


def test_a_wave_says_at_its_gate_what_waits_and_a_gate_that_was_taken_over_meanwhile_deletes_nothing(
    nights: Nights,
) -> None:
    here = nights()
    wave = here.night(max_staged_bytes=1_000_000)
    staged = shards(here)
    waiting = SESSIONS - len(staged)
    assert said(wave)[0] == "Suspended" and 0 < waiting < SESSIONS
    assert f"{waiting} shard{'s' * (waiting > 1)} more wait" in form_description(wave)

    gate = read_gate(here.staging)
    assert gate is not None
    write_gate(here.staging, gate.model_copy(update={"flow_run_id": str(uuid4()), "flow_run_name": "push the newer"}))
    after = here.answer(wave, decision="delete")
    name, message = said(after)
    assert name == "Superseded" and "push the newer" in message and shards(here) == staged
    assert after.state is not None and after.state.type.value == "CANCELLED"


def test_shards_that_fail_are_listed_while_the_others_are_published_and_no_gate_opens(
    nights: Nights, own_bids: Path
) -> None:
    broken = sorted(own_bids.glob("sub-*/ses-*/anat/*_T1w.nii.gz"))[0]
    broken.write_bytes(broken.read_bytes()[:-100])
    here = nights(source=own_bids)
    run = here.night()
    name, message = said(run)
    assert name == "ShardsFailed" and broken.name in message
    assert run.state is not None
    table = str(artifacts(run.state)["failed-shards"])
    assert broken.name in table and "sub-" in table
    assert len(shards(here)) == SESSIONS - 1 and "Suspended" not in history(run)


def test_a_quiet_night_sends_people_to_the_gate_that_is_open(nights: Nights) -> None:
    here = nights()
    run = here.night()
    name, message = said(here.night())
    assert name == "NothingToPublish" and f"still staged: {run.name} waits at its gate" in message
    assert said(here.read(run.id))[0] == "Suspended"
    assert said(here.answer(run, decision="keep"))[0] == "Kept"
    assert "cleanup-staging/cleanup asks about them" in said(here.night())[1]


def test_a_gate_counts_the_files_that_somebody_else_changed_and_not_the_lines_in_them(nights: Nights) -> None:
    here = nights()
    assert said(here.answer(here.night(), decision="keep"))[0] == "Kept"
    head = here.hub.head()
    lines = (here.hub.read(RECORD, head) or b"") + b"no line\nnor this\n"
    here.hub.commit([CommitOperationAdd(RECORD, lines)], "By hand", head)
    again = here.night()
    assert f"{RECORD}: line {SESSIONS + 1}: it cannot be read" in said(again)[1] and "and more there." in said(again)[1]
    assert "Changed on the Hub by somebody else: 1 file." in form_description(again)
