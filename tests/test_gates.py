"""What a gate tells and does where something has changed until somebody comes back to it.

On a real Hub and a real Prefect server, without a worker (`tests.gated`): with one, see end_to_end/test_gate.py.
"""

from collections.abc import Callable
from pathlib import Path
from uuid import uuid4

import pytest
from huggingface_hub import CommitOperationAdd
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import FlowRun

from deployments.local_stack import Stack
from deployments.runs import Runs
from tasks.approve import read_gate, write_gate
from tasks.disk.staging import Target
from tasks.record.remote import RECORD
from tests.conftest import SESSIONS
from tests.figures import artifacts
from tests.gated import Gated, said

pytestmark = pytest.mark.usefixtures("prefect_server", "with_token")
Nights = Callable[..., Gated]


@pytest.fixture
def nights(hub_server: Stack, repo_id: str, bids: Path, tmp_path: Path) -> Nights:
    """Makes nights of the tests' dataset on a target of its own, at a revision."""

    def of(revision: str = "main", source: Path = bids) -> Gated:
        target = Target(hub_server.endpoint, repo_id, revision)
        return Gated(target, source, tmp_path / "root", hub_server.token)

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
