"""Where a target stands: in one artifact, in the sentence of each run's state, and in the run's graph."""

import re
import shutil
import time
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationDelete
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from deployments.local_stack import Stack
from flows.cleanup_staging import cleanup_staging
from flows.push_bids import push_bids
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.record.kept import Keeping, keep
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
        and f"## Not staged\n\n| shard |\n|---|\n| {image.parts[-4]}_{image.parts[-3]} |" in text
    )
    assert counted(text)["on the Hub, as they are in the dataset"] == f"{SESSIONS - 1}"
    image.write_bytes(content)
    text = shown(push(own_bids, target, tmp_path), target)
    assert "1 shard failed" not in text and "## Not staged" not in text


def test_a_run_that_knows_nothing_shows_what_the_one_before_it_knew(bids: Path, target: Hub, tmp_path: Path) -> None:
    push(bids, target, tmp_path)
    state = push(tmp_path / "unmounted", target, tmp_path)
    assert state.type.value == "FAILED" and "/artifacts/artifact/" in (state.message or "")
    text = shown(state, target)
    assert f"**{SESSIONS} of {SESSIONS} shards on the Hub, 0 to do.**" in text
    assert text.count("| push ") == 2 and f"| {state.name} |" in text


def test_a_damaged_memory_is_none(bids: Path, target: Hub, tmp_path: Path) -> None:
    push(bids, target, tmp_path)
    next(tmp_path.glob("lab--*/status.json")).write_bytes(b'{"planned": "many"')
    state = push(tmp_path / "unmounted", target, tmp_path)
    assert "no run has compared it with its dataset yet" in shown(state, target)


def test_every_step_of_the_chain_hangs_on_the_first_in_the_runs_graph(bids: Path, target: Hub, tmp_path: Path) -> None:
    state = push(bids, target, tmp_path)
    chain = ["load", "check", "plan", "read", "check", "draw", "stage", "transfer", "commit", "verify"]
    nodes: dict[str, Any] = {}
    deadline = time.monotonic() + 60
    with get_client(sync_client=True) as client:
        while len(nodes) < len(chain) + 2 and time.monotonic() < deadline:
            answer = client._client.get(f"/flow_runs/{state.state_details.flow_run_id}/graph-v2").json()
            nodes = {id: node for id, node in answer["nodes"] if node["kind"] == "task-run"}
    verb = {id: node["label"].split()[0] for id, node in nodes.items()}
    arrows = {(verb[parent["id"]], verb[id]) for id, node in nodes.items() for parent in node["parents"]}
    assert set(pairwise(chain)) <= arrows
    assert [verb[id] for id, node in nodes.items() if not node["parents"]] == ["load"]
