"""What should not be published is not, in whole runs: nothing of it is sent, and no value stands in what a run leaves.

On the real Prefect server and the real local Hub. The values are those of `tests.planted`; they are searched for in the
files of the server (its database has logs, artifacts, states and parameters), of the worker, of the results and of the
staging, and in all that the Hub gives out.
"""

import io
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State

from deployments.local_stack import Stack, wait_until
from deployments.runs import Runs
from flows.push_bids import push_bids
from tasks.hub.client import Hub
from tasks.record.remote import CARD
from tasks.values.preflight_rules import STOPS
from tests.end_to_end.conftest import Push
from tests.figures import artifacts
from tests.planted import PLANTED
from tests.processes import process_of

IN_HEADERS = ("descrip", "aux_file", "extension 6 (comment)")
pytestmark = pytest.mark.usefixtures("with_token")
FIELDS = [field for _, field in PLANTED if field not in (*IN_HEADERS, "License")]


def push_here(source: Path, target: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "not stated", **parameters}
    return push_bids(source, target.target.repo_id, staging_root=root, return_state=True, **given)


def logged(state: State[Any], words: str) -> str:
    """The run's log, once these words are in it."""
    run = state.state_details.flow_run_id
    assert run is not None
    with get_client(sync_client=True) as client:
        wait_until(f"{words!r} is logged", lambda: words in Runs(client).logs(run), 30)
        return Runs(client).logs(run)


def left_behind(folder: Path) -> Iterator[tuple[Path, bytes]]:
    """The files below a folder, but shards: they are what the operator decided to publish."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.name.endswith((".parquet", ".part")):
            yield path, path.read_bytes()


def told(files: Iterable[tuple[object, bytes]], values: Iterable[str] = tuple(PLANTED.values())) -> list[str]:
    """Which of the values stand in which of the files."""
    spelled = [value.encode() for value in values]
    return [f"{value!r} in {path}" for path, data in files for value in spelled if value in data]


def test_a_run_stops_before_anything_is_sent_and_no_value_is_in_what_it_leaves(
    planted: Path, push: Push, worker: Stack, runs: Runs
) -> None:
    log = worker.processes["worker"].log
    before = log.stat().st_size
    pushed = push(source=str(planted), defacing="not stated")
    name, message = pushed.ended()
    wait_until("the run's process has ended", lambda: process_of(pushed.run) is None, 60)
    said = log.read_bytes()[before:]
    assert b"Nothing was staged or sent" in said and b"Traceback" not in said

    assert name == "PreflightStopped"
    assert {field for (rule, field) in PLANTED if rule == "date"} <= set(message.replace("\n", " ").split())
    for rule in ("personal-data", "unique-identifier", "date", "age-over-89", "licence-unknown", "defacing"):
        assert f"  {rule}: " in message
    assert not pushed.hub.exists() and not pushed.shards()
    (findings,) = [data for key, data in runs.artifacts(pushed.run).items() if key.startswith("findings-")]
    assert all(field in findings for _, field in PLANTED if field not in IN_HEADERS)
    wait_until("the run's log is there", lambda: "Nothing was staged or sent" in runs.logs(pushed.run), 30)

    files = list(left_behind(worker.folder))
    assert told([("findings", findings.encode()), ("message", message.encode()), *files]) == []
    assert told([("its log", runs.logs(pushed.run).encode())]) == []
    assert "exception" not in runs.logs(pushed.run)
    assert told(files, ["PatientBirthDate"])  # what must be there is found, in these very files


def test_a_wrong_path_is_told_in_a_sentence_and_no_stack_trace(push: Push, worker: Stack, runs: Runs) -> None:
    log = worker.processes["worker"].log
    before = log.stat().st_size
    pushed = push(source="/no/such/folder")
    assert pushed.ended()[0] == "NotABidsDataset"
    wait_until("the run's process has ended", lambda: process_of(pushed.run) is None, 60)
    wait_until("the run's log is there", lambda: "/no/such/folder" in runs.logs(pushed.run), 30)
    for said in (log.read_bytes()[before:].decode(), runs.logs(pushed.run)):
        assert "Traceback" not in said


def test_a_dry_run_shows_all_of_it_and_publishes_nothing(planted: Path, target: Hub, tmp_path: Path) -> None:
    state = push_here(planted, target, tmp_path / "root", dry_run=True)

    assert state.name == "DryRun" and "The push would stop: age-over-89" in (state.message or "")
    (shown,) = (data for key, data in artifacts(state).items() if key.startswith("dry-run-"))
    assert all(f"`{field}`" in shown for _, field in PLANTED)
    assert "7 shards of 7" in shown and "| T1w | " in shown and "all of it is new" in shown
    assert told([("artifact", shown.encode()), *left_behind(tmp_path / "root")]) == []
    assert not target.exists()


def test_what_is_stripped_is_not_on_the_hub_and_what_is_lifted_stands_on_the_card(
    planted: Path, target: Hub, tmp_path: Path, worker: Stack
) -> None:
    root = tmp_path / "root"
    parameters: dict[str, Any] = {"strip": FIELDS, "allow": ["licence-unknown", "defacing"]}
    state = push_here(planted, target, root, **parameters)
    assert state.name == "Staged", state.message

    given = dict(on_the_hub(target))
    stripped = [PLANTED[key] for key in PLANTED if key[1] in FIELDS]
    assert told(given.items(), stripped) == []
    assert told(given.items(), ["ConversionSoftware"])  # metadata that was kept is found there
    card = given[CARD].decode()
    assert f"license: other\nlicense_name: {PLANTED['licence-unknown', 'License']}\n" in card
    assert "**Faces:** nothing was stated." in card
    assert "Rule `defacing`" in card and "(`License`). Rule `licence-unknown`" in card and "`PatientName`" in card
    log = logged(state, "Allowed, although it would stop the push: licence-unknown")
    assert "header-text: descrip in 1 file" in log and "header-extension: extension 6 (comment) in 1 file" in log
    files = [("log", log.encode()), *left_behind(root), *left_behind(worker.folder / "prefect")]
    assert told(files) == []

    again = push_here(planted, target, root, **parameters)
    assert again.name == "NothingToPublish", again.message


def on_the_hub(target: Hub) -> Iterator[tuple[str, bytes]]:
    """Every file of the repo; of shards, all columns but the images."""
    head = target.head()
    for path in target.listing(head).files:
        data = target.read(path, head) or b""
        if path.endswith(".parquet"):
            names = [name for name in pq.read_schema(io.BytesIO(data)).names if name != "nifti"]
            data = repr(pq.read_table(io.BytesIO(data), columns=names).to_pylist()).encode()
        yield path, data


def test_a_rule_that_is_none_is_refused_at_once_with_those_there_are(
    bids: Path, target: Hub, tmp_path: Path, push: Push
) -> None:
    state = push_here(bids, target, tmp_path, allow=["personal"])
    assert state.type.value == "FAILED"
    assert all(f"'{rule}'" in (state.message or "") for rule in STOPS)
    with pytest.raises(Exception, match="'personal' does not match"):
        push(allow=["personal"])


def test_a_repo_is_gated_before_anything_is_in_it_and_no_run_opens_a_gate_that_somebody_set(
    bids: Path, target: Hub, tmp_path: Path
) -> None:
    repo = target.target.repo_id
    state = push_here(bids, target, tmp_path, defacing="no faces", private=False, gated="manual")
    assert state.name == "Staged", state.message
    assert target.api.dataset_info(repo).gated == "manual"
    with pytest.raises(HfHubHTTPError):
        HfApi(target.target.endpoint, token=False).dataset_info(repo)
    assert push_here(bids, target, tmp_path, defacing="no faces", private=False).name == "NothingToPublish"
    assert target.api.dataset_info(repo).gated == "manual"
