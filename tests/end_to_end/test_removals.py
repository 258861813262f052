"""Removals as people decide them: a gate that names what the dataset no longer has, and what becomes of each answer."""

import json
import shutil
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from playwright.sync_api import Browser, Page, expect

from deployments.local_stack import Stack
from tasks.record.remote import INDEX, RECORD
from tasks.values.models import PublicationRecord
from tests.bids_examples import move_session
from tests.end_to_end.browsing import choose, field, open_form, open_page, send, shot
from tests.end_to_end.conftest import GATE_SECONDS, Push, Pushed
from tests.end_to_end.nights import images_of, images_on
from tests.end_to_end.test_decide import command
from tests.end_to_end.test_gate import form_description, form_schema

GATE_MILLISECONDS = GATE_SECONDS * 1000
pytestmark = pytest.mark.usefixtures("last_looks")
Night = Callable[..., Pushed]


@pytest.fixture
def night(push: Push, own_bids: Path) -> Night:
    """A run on the test's own dataset that asks about removals, read back in full; these datasets are small, so that
    one subject is a large part of them."""

    def start(**parameters: Any) -> Pushed:
        given = {"source": str(own_bids), "removed": "ask", "verification": "full", "private": False, **parameters}
        return push(env={"BIDS_PUSH_MAX_CHANGE": "1"}, **given)

    return start


def published(night: Night) -> Pushed:
    """The first night: all of the dataset is on the Hub, and nothing is staged any more."""
    first = night().at_gate()
    assert first.approve() is None and first.ended()[0] == "CleanedUp"
    return first


def withdraw(bids: Path, to: Path) -> str:
    """Move the first session out of the dataset; the name of its shard."""
    session = sorted(bids.glob("sub-*/ses-*"))[0]
    move_session(bids, session, to)
    return f"{session.parent.name}_{session.name}"


def path_of(shard: str) -> str:
    return f"data/{shard.partition('_')[0]}/{shard}.parquet"


def files_on(pushed: Pushed) -> set[str]:
    return set(pushed.hub.listing(pushed.hub.head()).files)


def record_on(pushed: Pushed) -> PublicationRecord:
    hub, head = pushed.hub, pushed.hub.head()
    record, damaged = PublicationRecord.read(hub.read(RECORD, head) or b"", hub.read(INDEX, head) or b"")
    assert not damaged
    return record


def message(pushed: Pushed) -> str:
    state = pushed.runs.read(pushed.run).state
    return (state and state.message) or ""


def test_a_withdrawn_session_and_text_leave_in_one_verified_commit_when_somebody_approved_them_in_the_browser(
    browser: Browser, night: Night, own_bids: Path, tmp_path: Path, worker: Stack
) -> None:
    scores = own_bids / "phenotype" / "scores.tsv"
    scores.parent.mkdir(exist_ok=True)
    scores.write_text("participant_id\tscore\nsub-M2001\t3\n")
    first = published(night)
    hub = first.hub
    shard = withdraw(own_bids, tmp_path / "away")
    scores.unlink()
    gone = {path_of(shard), "bids/phenotype/scores.tsv"}
    before = files_on(first)
    assert gone <= before

    # the gate opens though nothing is staged, and names what it is about, everywhere
    gate = night().at_gate()
    assert files_on(gate) >= gone and not gate.shards()
    (evidence,) = (str(data) for key, data in gate.runs.artifacts(gate.run).items() if key.startswith("evidence"))
    assert "## On the Hub, no longer in the dataset" in evidence and all(path in evidence for path in gone)
    for told in (message(gate), form_schema(gate)):
        assert shard in told and "phenotype/scores.tsv" in told
    assert '"decision"' not in form_schema(gate) and "1 shard, 1 text" in form_description(gate)
    waiting = gate.runs.read(gate.run).state
    # the next night changes nothing: it says that the gate waits, and leaves it open
    quiet = night()
    name, said = quiet.ended()
    assert name == "NothingToPublish" and f"{gate.runs.read(gate.run).name} waits at its gate" in said and shard in said
    still = gate.runs.read(gate.run).state
    assert still is not None and waiting is not None and still.id == waiting.id

    # what is no decision removes nothing
    for wrong in ({"confirm_repo": gate.repo_id}, {"removals": "yes", "confirm_repo": gate.repo_id}):
        assert gate.runs.decide(gate.run, **wrong)
    assert gate.runs.decide(gate.run, removals="remove", confirm_repo="lab/another", note="") is None
    gate.at_gate()
    assert "`lab/another`" in form_description(gate) and files_on(gate) >= gone

    head = hub.head()
    page = open_page(browser)
    look_at_the_form(page, worker, gate, shard, "gate-removals")
    decide_on_removals(page, worker, gate, "remove")
    expect(page.get_by_text("Removed", exact=True).first).to_be_visible(timeout=GATE_MILLISECONDS)
    name, said = gate.ended()
    assert name == "Removed" and "1 shard, 1 text, of 1 subject" in said and "Withdrawn" not in said
    assert shard.partition("_")[0] in said and "history still has it" in said
    page.goto(f"{worker.ui}/runs/flow-run/{gate.run}")
    expect(page.get_by_text("Removed", exact=True).first).to_be_visible()
    shot(page, "removed.png")

    commits = [commit.commit_id for commit in hub.api.list_repo_commits(gate.repo_id, repo_type="dataset")]
    assert commits[1] == head, "the removal is one commit on top of what was shown"
    assert files_on(gate) == before - gone and images_on(hub) == images_of(own_bids)
    record = record_on(gate)
    assert set(record.shards) == {path for path in files_on(gate) if path.startswith("data/")}
    assert not gone & {*record.shards, *record.texts} and record.dataset is not None
    assert gone <= set(hub.listing(head).files)  # the history has it
    page.goto(hub.url())
    shot(page, "removed-repo.png", full_page=True)
    (freed,) = (str(data) for key, data in gate.runs.artifacts(gate.run).items() if key.startswith("removed"))
    assert all(path in freed for path in gone)
    name, said = night().ended()
    assert name == "NothingToPublish" and "Withdrawn" not in said


def look_at_the_form(page: Page, worker: Stack, gate: Pushed, shard: str, name: str, *more: str) -> None:
    """The form in both UIs: what it asks about, and its fields, without scrolling; a picture of each is left."""
    for version in ("", "/v2"):
        page.goto(f"{worker.ui}{version}/runs/flow-run/{gate.run}")
        open_form(page, version)
        page.get_by_role("dialog").get_by_text(shard).first.wait_for()
        shot(page, f"{name}-{version.strip('/') or 'v1'}.png")
        for text in ("Type the repo's name", shard, "no longer in the dataset", *more):
            expect(page.get_by_role("dialog").get_by_text(text).first).to_be_in_viewport(ratio=0.99)


def decide_on_removals(page: Page, worker: Stack, gate: Pushed, decision: str) -> None:
    """Fill in the form in the older UI, and send it."""
    page.goto(f"{worker.ui}/runs/flow-run/{gate.run}")
    page.get_by_role("button", name="Resume").click()
    choose(field(page, "Removals"), decision, after=["remove", "keep"].index(decision))
    field(page, "Repo name").locator("textarea").fill(gate.repo_id)
    assert send(page, page.get_by_role("button", name="Submit"), "/resume").ok


def test_staged_files_and_removals_are_decided_at_one_gate_from_the_command_line(
    browser: Browser, night: Night, own_bids: Path, tmp_path: Path, worker: Stack
) -> None:
    first = night().at_gate()
    shard = withdraw(own_bids, tmp_path / "away")
    gate = night().at_gate()  # the files of the night before are staged still
    assert first.ended()[0] == "Superseded" and gate.shards()
    look_at_the_form(open_page(browser), worker, gate, shard, "gate-both", "remove the staged copies")
    asked = form_description(gate)
    assert "**Staged copies** on" in asked and "**On the Hub**, no longer in the dataset: 1 shard, 1 read back" in asked
    assert gate.hub.head()[:12] in asked and "still named in participants.tsv" in form_schema(gate)
    for arguments, why in (
        (["--decision", "delete", "--confirm-repo", gate.repo_id], "--removals remove (or keep)"),
        (["--removals", "remove", "--confirm-repo", gate.repo_id], "--decision delete (or keep)"),
    ):
        code, _, said = command(worker, gate.repo_id, *arguments)
        assert code == 1 and why in said and len(said.splitlines()) == 1, said
    assert shard in command(worker)[1] and path_of(shard) in files_on(gate)
    answer = ["--decision", "delete", "--removals", "remove", "--confirm-repo", gate.repo_id, "--note", "me"]
    code, said, _ = command(worker, gate.repo_id, *answer)
    assert code == 0 and "Decided: Removed" in said and "freed" in said, said
    assert max(len(line) for line in said.splitlines() if "http" not in line) <= 100 and len(said.splitlines()) > 4
    assert path_of(shard) not in files_on(gate) and images_on(gate.hub) == images_of(own_bids)
    assert {Path(name).stem.partition(".")[0] for name in gate.shards()} <= {shard}
    assert_it_does_not_come_back_by_itself(night, own_bids, tmp_path / "away", gate, shard)


def test_rows_that_somebody_took_out_of_the_record_leave_only_by_the_gate_that_named_them(
    night: Night, own_bids: Path
) -> None:
    first = published(night)
    one, other = sorted(own_bids.rglob("*_bold.nii.gz"))[:2]
    shards = {path_of("_".join(image.parts[-4:-2])) for image in (one, other)}
    one.unlink()
    take_lines_out(first, shards)
    gate = night().at_gate()
    assert one.name in message(gate) and one.name in form_schema(gate)
    # after the gate was opened, another image goes and is hidden in the same way: nobody has approved that
    other.unlink()
    take_lines_out(first, shards)
    assert gate.runs.decide(gate.run, decision="keep", removals="remove", confirm_repo=gate.repo_id) is None
    gate.ended()
    there = {Path(path).name for path in images_on(gate.hub)}
    assert other.name in there
    again = night().at_gate()
    assert other.name in form_schema(again)
    assert again.runs.decide(again.run, decision="keep", removals="remove", confirm_repo=again.repo_id) is None
    assert again.ended()[0] == "Removed" and images_on(again.hub) == images_of(own_bids)


def take_lines_out(pushed: Pushed, shards: Collection[str]) -> None:
    """Take the lines of these shards out of the record, as somebody who edits the repo by hand."""
    hub, head = pushed.hub, pushed.hub.head()
    lines = (hub.read(RECORD, head) or b"").splitlines(keepends=True)
    left = [line for line in lines if json.loads(line)["path"] not in shards]
    assert len(left) == len(lines) - len(shards)
    hub.commit([CommitOperationAdd(RECORD, b"".join(left))], "By hand", head)


def assert_it_does_not_come_back_by_itself(night: Night, bids: Path, away: Path, gate: Pushed, shard: str) -> None:
    """What was removed and is in the dataset again is published once somebody has given the number, and only then."""
    head, back = gate.hub.head(), sum(path.is_file() for path in away.rglob("*"))
    shutil.copytree(away, bids, dirs_exist_ok=True)
    state, _ = night(removed="keep").ended()
    stopped = night(removed="keep")
    assert (state, stopped.ended()[0], gate.hub.head()) == ("RemovedCameBack", "RemovedCameBack", head)
    assert f"accept_changes={back}." in message(stopped) and shard.partition("_")[0] in message(stopped)
    night(removed="keep", accept_changes=back).at_gate()
    assert path_of(shard) in files_on(gate) and images_on(gate.hub) == images_of(bids)
    assert night(removed="keep").ended()[0] != "RemovedCameBack"
