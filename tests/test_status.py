"""Where a target stands: in one artifact, in the sentence of each run's state, and in the run's graph."""

import json
import re
import shutil
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import State

from deployments.local_stack import Stack, wait_until
from flows.cleanup_staging import cleanup_staging
from flows.push_bids import push_bids
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.record.kept_removals import Keeping, keep
from tasks.record.remote import RECORD
from tasks.report.lineage import artifact_key
from tasks.report.status import TargetStatus
from tests.conftest import SESSIONS
from tests.figures import artifacts


def push(source: Path, target: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", "staging_root": str(root), **parameters}
    return push_bids(source, target.target.repo_id, return_state=True, **given)


def shown(state: State[Any], target: Hub) -> str:
    """The target's artifact as the run that ended in this state has left it."""
    return str(artifacts(state)[artifact_key("target", target.target)])


def counted(text: str) -> dict[str, str]:
    """The table of the artifact."""
    rows = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows if len(row) == 2}


def withdraw(bids: Path) -> str:
    """Take a session out of the dataset; the name of its shard."""
    gone = sorted(bids.glob("sub-*/ses-*"))[0]
    for folder in (gone, bids / "derivatives" / "lesion_masks" / gone.parent.name / gone.name):
        shutil.rmtree(folder, ignore_errors=True)
    return f"{gone.parent.name}_{gone.name}"


def test_the_artifact_says_what_is_on_the_hub_staged_missing_and_when_it_was_verified(
    bids: Path, target: Hub, tmp_path: Path, prefect_server: Stack
) -> None:
    state = push(bids, target, tmp_path)
    text = shown(state, target)
    assert f"**{SESSIONS} of {SESSIONS} shards on the Hub, 0 to do.**" in text
    rows = counted(text)
    assert rows["in the dataset"] == rows["on the Hub, as they are in the dataset"] == f"{SESSIONS}"
    assert rows["staged here, until somebody lets them go"].startswith(f"{SESSIONS}, ")
    assert "Last verified (sample): 20" in text and target.head()[:12] in text
    assert "| Staged |" in text and str(next(tmp_path.glob("lab--*"))) in text
    # each state leads there
    link = re.search(rf"{prefect_server.ui}/artifacts/artifact/(\S+)", state.message or "")
    with get_client(sync_client=True) as client:
        assert link and client._client.get(f"/artifacts/{link[1]}").json()["data"] == text

    # what is lost on the Hub is to do again, and what is not staged any more is to be embedded
    lost, other = sorted(path for path in target.listing(target.head()).files if path.startswith("data/"))[:2]
    target.commit([CommitOperationDelete(lost), CommitOperationDelete(other)], "lost", target.head())
    next(tmp_path.rglob(f"{Path(lost).stem}.*.parquet")).unlink()
    state = push(bids, target, tmp_path, dry_run=True)
    rows = counted(shown(state, target))
    assert rows["on the Hub, as they are in the dataset"] == f"{SESSIONS - 2}"
    assert rows["missing on the Hub, staged here"] == rows["missing on the Hub, to be embedded"] == "1"


def test_a_withdrawn_session_stands_in_every_nights_state_with_the_way_to_decide(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    push(own_bids, target, tmp_path)
    name = withdraw(own_bids)
    for removed in ("keep", "ask", "delete"):  # no deployment stands behind these runs, so they can only tell
        night = push(own_bids, target, tmp_path, removed=removed)
        assert night.type.value == "COMPLETED"
        said = "Withdrawn: no longer in the dataset, and still on the Hub: 1 shard with "
        assert said in (night.message or "") and f"({name})" in (night.message or "")
        assert "push-bids/manual with removed=ask" in (night.message or "")
        text = shown(night, target)
        assert "## Withdrawn" in text and f"| {name} | " in text and "; 1 withdrawn" in text
    assert name in (cleanup_staging(target.target.repo_id, staging_root=str(tmp_path), return_state=True).message or "")


def test_a_withdrawn_subject_stands_there_with_who_kept_it_and_with_texts_that_still_name_it(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    push(own_bids, target, tmp_path)
    subject = withdraw(own_bids).partition("_")[0]
    night = push(own_bids, target, tmp_path)
    named = f"Still named in 1 text that stays published: participants.tsv ({subject})."
    assert named in (night.message or "") and named in shown(night, target)

    staging = Staging.of(tmp_path, target.target)
    removals = TargetStatus.model_validate_json(staging.status.read_bytes()).removals
    decision = {"at": datetime.now(UTC), "flow_run_id": "the-run", "flow_run_name": "push then", "note": "me"}
    keep(staging, Keeping(removals=removals, **decision))  # type: ignore[arg-type]
    table = own_bids / "participants.tsv"
    rows = [row for row in table.read_text().splitlines(keepends=True) if not row.startswith(subject)]
    table.write_text("".join(rows))
    night = push(own_bids, target, tmp_path)
    message, text = night.message or "", shown(night, target)
    assert "Still named" not in message + text and "removed=ask." not in message
    for told in (message, text):
        assert 'at the gate of push then, with the note "me". To be asked about that again' in told
    kept = text.partition("### Kept, as decided")[2].partition("##")[0]
    assert removals.sentence() in kept and "[push then](" in kept and "/runs/flow-run/the-run)" in kept
    assert kept.rstrip().endswith("| me |")


def test_what_failed_stands_there_until_it_is_mended(own_bids: Path, target: Hub, tmp_path: Path) -> None:
    image = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    text = shown(push(own_bids, target, tmp_path), target)
    assert (
        "1 shard failed" in text
        and f"## Not staged\n\n| shard | the Hub keeps |\n|---|---|\n| {image.parts[-4]}_{image.parts[-3]} | nothing |"
        in text
    )
    assert counted(text)["on the Hub, as they are in the dataset"] == f"{SESSIONS - 1}"
    image.write_bytes(content)
    text = shown(push(own_bids, target, tmp_path), target)
    assert "1 shard failed" not in text and "## Not staged" not in text


def test_of_a_shard_that_could_not_be_staged_the_hub_keeps_its_earlier_version_and_that_is_said(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    push(own_bids, target, tmp_path)
    image = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    content = image.read_bytes()
    image.write_bytes(content[: len(content) // 2])
    state = push(own_bids, target, tmp_path)
    name = f"{image.parts[-4]}_{image.parts[-3]}"
    assert state.name == "ShardsFailed"
    assert f"{name} (the Hub keeps its earlier version): " in (state.message or "")
    text = shown(state, target)
    rows = counted(text)
    assert rows["of these, on the Hub in an earlier version"] == "1" and f"| {name} | its earlier version |" in text
    assert rows["missing on the Hub, to be embedded"] == rows["missing on the Hub, staged here"] == "0"
    assert f"{SESSIONS - 1} of {SESSIONS} shards on the Hub, 1 to do; 1 shard failed" in text


def test_after_a_night_that_stopped_it_says_why_and_of_when_the_counts_are(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    before = push(own_bids, target, tmp_path)
    assert "The counts are those of this run" in shown(before, target)
    for _ in range(3):
        withdraw(own_bids)
    state = push(own_bids, target, tmp_path)
    assert state.name == "TooMuchChanged"
    text = shown(state, target)
    assert re.search(
        r"The last run that ended, push lab/.*: \*\*TooMuchChanged\*\*, 20\d\d-.* UTC\. Nothing was staged", text
    )
    assert "published images are gone from the dataset" in text
    assert re.search(r"The counts are those of an earlier run, push lab/.* compared dataset and Hub 20\d\d-", text)


def test_what_somebody_else_changed_is_named_by_a_night_that_stops_too(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    push(own_bids, target, tmp_path)
    target.commit([CommitOperationAdd("bids/README.txt", b"mine")], "By hand", target.head())
    for _ in range(3):
        withdraw(own_bids)
    state = push(own_bids, target, tmp_path)
    assert state.name == "TooMuchChanged"
    assert "Changed on the Hub by somebody else: bids/README.txt: edited in the repo" in (state.message or "")
    assert "| bids/README.txt | edited in the repo" in shown(state, target)


def test_what_somebody_else_changed_stands_in_the_status_of_the_run_that_found_it_before_it_is_overwritten(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    """A colleague corrects a word in participants.tsv on the Hub, adds to README, and takes CHANGES away."""
    push(own_bids, target, tmp_path)
    files = {name: (own_bids / name).read_bytes() for name in ("participants.tsv", "README.txt")}
    theirs = files["participants.tsv"].replace(b"sub-", b"SUB-", 1)
    readme = files["README.txt"] + b"mine"
    by_hand: list[CommitOperationAdd | CommitOperationDelete] = [
        CommitOperationAdd("bids/participants.tsv", theirs),
        CommitOperationAdd("bids/README.txt", readme),
        CommitOperationDelete("bids/participants.json"),
    ]
    edited = target.commit(by_hand, "By hand", target.head())

    dry = push(own_bids, target, tmp_path, dry_run=True)
    state = push(own_bids, target, tmp_path)
    for one in (dry, state):
        assert "Changed on the Hub by somebody else: " in (one.message or "")
        text = shown(one, target)
        assert "## Changed on the Hub by somebody else\n\nFound by push lab/" in text
        for name in files:
            assert f"| bids/{name} | edited in the repo: the dataset's own takes its place" in text
        assert f"commit {edited[:12]} keeps theirs" in text and "| bids/participants.json | it was taken out" in text
    head = target.head()
    assert target.read("bids/participants.tsv", head) == files["participants.tsv"]
    assert target.read("bids/participants.tsv", edited) == theirs
    assert f"Committed without a shard, as {head[:12]}: 3 files (bids/README.txt, " in (state.message or "")
    night = push(own_bids, target, tmp_path)
    assert "somebody else" not in (night.message or "") + shown(night, target)


def test_a_text_that_changed_in_the_dataset_alone_is_nobody_elses_doing_and_the_night_says_what_it_committed(
    own_bids: Path, target: Hub, tmp_path: Path
) -> None:
    push(own_bids, target, tmp_path / "first")
    (own_bids / "README.txt").write_text("Written anew")
    state = push(own_bids, target, tmp_path / "another machine")
    assert state.name == "NothingStaged" and "somebody else" not in (state.message or "")
    assert f"Committed without a shard, as {target.head()[:12]}: 1 file (bids/README.txt)" in (state.message or "")


def test_lines_of_the_record_that_were_taken_out_or_damaged_are_told_by_their_shards(
    bids: Path, target: Hub, tmp_path: Path
) -> None:
    push(bids, target, tmp_path)
    lines = (target.read(RECORD, target.head()) or b"").splitlines(keepends=True)
    gone, damaged = (str(json.loads(line)["path"]) for line in lines[:2])
    text = lines[1].replace(b'"size":', b'"sise":', 1) + b"".join(lines[2:])
    target.commit([CommitOperationAdd(RECORD, text)], "By hand", target.head())
    state = push(bids, target, tmp_path)
    said = state.message or ""
    assert f"{gone}: its line was taken out of the record" in said
    assert f"{RECORD}: line 1: it is that of {damaged}, and cannot be read" in said
    assert said.count(damaged) == 1 and "Field required" not in said
    assert f"| {gone} | its line was taken out" in shown(state, target)
    assert "somebody else" not in (push(bids, target, tmp_path).message or "")


def test_a_dry_run_leads_to_no_repo_that_is_not_there_yet(bids: Path, target: Hub, tmp_path: Path) -> None:
    text = shown(push(bids, target, tmp_path, dry_run=True), target)
    assert target.url() not in text and f"No run has seen the repo {target.target} on the Hub yet." in text
    text = shown(push(bids, target, tmp_path), target)
    assert f"[The repo]({target.url()})" in text


def test_a_run_that_knows_nothing_shows_what_the_one_before_it_knew(bids: Path, target: Hub, tmp_path: Path) -> None:
    push(bids, target, tmp_path)
    state = push(tmp_path / "unmounted", target, tmp_path)
    assert state.type.value == "FAILED" and "/artifacts/artifact/" in (state.message or "")
    text = shown(state, target)
    assert f"**{SESSIONS} of {SESSIONS} shards on the Hub, 0 to do.**" in text
    assert text.count("| push ") == 2 and f"| {state.name} |" in text


def test_what_a_dry_run_finds_by_parameters_of_its_own_is_kept_for_no_other_run(
    bids: Path, target: Hub, tmp_path: Path
) -> None:
    push(bids, target, tmp_path)
    subject = sorted(path.name for path in bids.glob("sub-*"))[0]
    assert subject in (push(bids, target, tmp_path, dry_run=True, exclude=[f"{subject}/"]).message or "")
    state = push(tmp_path / "unmounted", target, tmp_path)
    assert state.type.value == "FAILED" and "Withdrawn" not in (state.message or "")
    assert f"**{SESSIONS} of {SESSIONS} shards on the Hub, 0 to do.**" in shown(state, target)


def test_a_damaged_memory_is_none(bids: Path, target: Hub, tmp_path: Path) -> None:
    push(bids, target, tmp_path)
    next(tmp_path.glob("lab--*/status.json")).write_bytes(b'{"planned": "many"')
    state = push(tmp_path / "unmounted", target, tmp_path)
    assert "no run has compared it with its dataset yet" in shown(state, target)


def test_a_memory_that_cannot_be_written_hides_not_why_the_run_ended(
    bids: Path, target: Hub, tmp_path: Path, prefect_server: Stack
) -> None:
    push(bids, target, tmp_path)
    memory = next(tmp_path.glob("lab--*/status.json"))
    memory.unlink()
    memory.mkdir()
    state = push(tmp_path / "unmounted", target, tmp_path)
    assert state.name == "NotABidsDataset" and "/artifacts/artifact/" in (state.message or "")
    assert "**NotABidsDataset**" in shown(state, target)


def test_every_step_of_the_chain_hangs_on_the_first_in_the_runs_graph(bids: Path, target: Hub, tmp_path: Path) -> None:
    state = push(bids, target, tmp_path)
    chain = ["load", "check", "read", "plan", "check", "make", "draw", "stage", "transfer", "commit", "verify"]
    with get_client(sync_client=True) as client:
        wait_until(
            "the graph shows the chain",  # the server learns of task runs by events, a moment later
            lambda: set(pairwise(chain)) <= graph(client, state)[0],
            60,
            every=0.5,
        )
        assert graph(client, state)[1] == ["load"]


def graph(client: SyncPrefectClient, state: State[Any]) -> tuple[set[tuple[str, str]], list[str]]:
    """The arrows of a run's graph, and the task runs to which none leads, all by their first words."""
    answer = client._client.get(f"/flow_runs/{state.state_details.flow_run_id}/graph-v2").json()
    nodes = {id: node for id, node in answer["nodes"] if node["kind"] == "task-run"}
    verb = {id: node["label"].split()[0] for id, node in nodes.items()}
    arrows = {(verb[parent["id"]], verb[id]) for id, node in nodes.items() for parent in node["parents"]}
    return arrows, [verb[id] for id, node in nodes.items() if not node["parents"]]
