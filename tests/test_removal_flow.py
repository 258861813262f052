"""What a push leaves on the Hub when the dataset has less than was published: all of it, and a word about it.

On the real local Hub and a real Prefect server, as functions: no deployment stands behind these runs, so no gate opens,
and nothing may leave the repo whatever `removed` says. Gates are in tests/end_to_end/test_removals.py.
"""

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd

from tasks.hub.client import Hub
from tasks.record.remote import INDEX, RECORD
from tasks.values.models import PublicationRecord
from tests.conftest import SESSIONS
from tests.end_to_end.nights import images_of, images_on
from tests.figures import figures
from tests.test_flows import on_hub, push, shards_on

pytestmark = pytest.mark.usefixtures("prefect_server", "with_token")


@pytest.fixture(autouse=True)
def _may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", "1")  # these tests are about what happens behind that check


def unmounted(bids: Path) -> None:
    """All subject folders but one are empty, as where a disk is not mounted."""
    for subject in sorted(path for path in bids.rglob("sub-*") if path.is_dir() and path.name.count("_") == 0)[1:]:
        empty(subject)


def empty(folder: Path) -> None:
    if folder.exists():
        shutil.rmtree(folder)
        folder.mkdir()


def without_func(bids: Path) -> None:
    """Every func/ folder is empty."""
    for folder in sorted(bids.rglob("func")):
        empty(folder)


@pytest.mark.parametrize("damage", [unmounted, without_func])
def test_a_dataset_that_lost_most_of_its_images_takes_nothing_from_the_hub(
    own_bids: Path, target: Hub, root: Path, damage: Callable[[Path], None]
) -> None:
    push(own_bids, target, root)
    published, files = images_of(own_bids), shards_on(target)
    damage(own_bids)
    assert len(images_of(own_bids)) < len(published) - 2
    for removed in ("keep", "delete"):
        night = push(own_bids, target, root, removed=removed)
        assert night.type.value == "COMPLETED", night.message
        assert shards_on(target) == files
    assert images_on(target) == published
    assert "still on the Hub" in (night.message or "") and "removed=ask" in (night.message or "")


def test_a_shard_that_would_lose_rows_is_held_back_and_the_others_go_on(
    bids: Path, own_bids: Path, target: Hub, root: Path
) -> None:
    push(own_bids, target, root)
    before, published = shards_on(target), images_of(own_bids)
    bold = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    held = f"data/{bold.parts[-4]}/{bold.parts[-4]}_{bold.parts[-3]}.parquet"
    bold.unlink()
    other = next(path for path in sorted(own_bids.rglob("*_T1w.nii.gz")) if path.parts[-4:-2] != bold.parts[-4:-2])
    shutil.copyfile(
        next(one for one in own_bids.rglob("*_T1w.nii.gz") if one.read_bytes() != other.read_bytes()), other
    )

    night = push(own_bids, target, root)
    after = shards_on(target)
    assert [path for path in after if after[path] != before[path]] == [
        f"data/{other.parts[-4]}/{other.parts[-4]}_{other.parts[-3]}.parquet"
    ]
    assert images_on(target)[str(bold.relative_to(own_bids))] == published[str(bold.relative_to(own_bids))]
    counted = figures(night)
    assert (counted["shards sent"], counted["shards embedded"]) == (1, 1)
    assert not list(root.rglob(f"{Path(held).stem}.*.parquet"))[1:]  # and the held one was not staged again
    assert f"1 image of 1 shard held back as published ({bold.name})" in (night.message or "")
    quiet = push(own_bids, target, root)
    assert quiet.name == "NothingToPublish" and "1 shard held back" in (quiet.message or "")
    assert bold.name in (quiet.message or "")

    # the image comes back as it was: no shard is left to send, and nothing to decide
    shutil.copy2(bids / bold.relative_to(own_bids), bold)
    back = push(own_bids, target, root)
    assert back.type.value == "COMPLETED" and "Withdrawn" not in (back.message or "")
    assert shards_on(target) == after and figures(back).get("shards sent", 0) == 0  # the card alone counts it again


def test_a_field_that_is_stripped_and_stays_in_a_shard_that_is_held_back_is_told_until_somebody_has_decided(
    own_bids: Path, target: Hub, root: Path
) -> None:
    push(own_bids, target, root)
    gone = sorted(own_bids.glob("sub-*/ses-*/anat/*_T1w.json"))[0]
    field = next(iter(json.loads(gone.read_text())))
    gone.unlink()
    held = f"{gone.parts[-4]}_{gone.parts[-3]}"
    for _ in range(2):
        said = push(own_bids, target, root, strip=[field]).message or ""
        assert (
            f"strip does not reach 1 shard that must stay as published until somebody decides about what is no longer "
            f"in the dataset ({held})" in said
        ), said
        assert "what is new or changed there waits too" in said
    still = [path for path in shards_on(target) if field.encode() in (target.read(path, target.head()) or b"")]
    assert [Path(path).stem for path in still] == [held]
    card = (target.read("README.md", target.head()) or b"").decode()
    assert f"`{field}`. What the source no longer has and is still here is as it was published before." in card
    push(own_bids, target, root)
    assert "strip does not reach" not in (push(own_bids, target, root).message or "")


def test_withdrawn_texts_and_tables_stay_and_are_named(own_bids: Path, target: Hub, root: Path) -> None:
    phenotype = own_bids / "phenotype"
    phenotype.mkdir(exist_ok=True)
    (phenotype / "scores.tsv").write_text("participant_id\tscore\nsub-M2001\t3\n")
    push(own_bids, target, root)
    gone = ("bids/participants.tsv", "bids/phenotype/scores.tsv", "tables/participants.parquet")
    before = on_hub(target)
    assert set(gone) <= set(before)
    (own_bids / "participants.tsv").unlink()
    (phenotype / "scores.tsv").unlink()
    for removed in ("keep", "ask"):
        night = push(own_bids, target, root, removed=removed)
        assert "3 texts (participants.tsv, phenotype/scores.tsv, tables/participants.parquet)" in (night.message or "")
        assert {path: on_hub(target).get(path) for path in gone} == {path: before[path] for path in gone}
    index = json.loads(target.read(INDEX, target.head()) or b"{}")
    assert set(gone) <= {text["path"] for text in index["texts"]}


def test_a_repo_of_an_older_version_has_no_removable_text_and_gets_its_index_with_the_next_commit(
    own_bids: Path, target: Hub, root: Path
) -> None:
    push(own_bids, target, root)
    text = (own_bids / "CHANGES").read_text() if (own_bids / "CHANGES").exists() else ""
    (own_bids / "participants.tsv").unlink()
    target.commit([CommitOperationAdd(INDEX, b'{"texts": []}')], "As an older version left it", target.head())
    night = push(own_bids, target, root)
    assert "participants.tsv" not in (night.message or "") and "bids/participants.tsv" in on_hub(target)
    (own_bids / "CHANGES").write_text(text + "1.0.9 2026-11-24\n  - One less\n")
    push(own_bids, target, root)
    record, _ = PublicationRecord.read(b"", target.read(INDEX, target.head()) or b"")
    assert (
        record.dataset is not None
        and "bids/dataset_description.json" in record.texts
        and "bids/participants.tsv" not in record.texts
    )


def test_a_record_that_names_other_peoples_files_is_no_order_and_no_dead_end(
    own_bids: Path, target: Hub, root: Path
) -> None:
    push(own_bids, target, root)
    head = target.head()
    lines = (target.read(RECORD, head) or b"").splitlines()
    line = json.loads(lines[0])
    foreign = [
        line | {"path": path} for path in ("README.md", "models/weights.bin", "data/../README.md", "nowhere.bin")
    ]
    ghost = line | {"path": "data/sub-ghost/sub-ghost.parquet"}
    operations = [
        CommitOperationAdd(
            RECORD, b"\n".join([*lines, *(json.dumps(one).encode() for one in (*foreign, ghost))]) + b"\n"
        ),
        CommitOperationAdd("models/weights.bin", b"another tool's"),
    ]
    target.commit(operations, "By hand", head)
    night = push(own_bids, target, root, removed="ask")
    assert night.type.value == "COMPLETED" and "Withdrawn" not in (night.message or ""), night.message
    (own_bids / "CHANGES").write_text("1.0.9 2026-11-24\n  - One more\n")
    night = push(own_bids, target, root, removed="ask")
    assert night.type.value == "COMPLETED", night.message
    files = on_hub(target)
    assert {"README.md", "models/weights.bin"} <= set(files) and len(shards_on(target)) == SESSIONS
    record, damaged = PublicationRecord.read(target.read(RECORD, target.head()) or b"")
    assert not damaged and set(record.shards) == set(shards_on(target))


def test_delete_of_earlier_versions_is_taken_as_ask_with_a_word_in_the_log(
    own_bids: Path, target: Hub, root: Path, caplog: pytest.LogCaptureFixture
) -> None:
    push(own_bids, target, root)
    shutil.rmtree(sorted(own_bids.glob("sub-*"))[0])
    before = shards_on(target)
    with caplog.at_level(logging.WARNING):
        state = push(own_bids, target, root, removed="delete")
    assert state.type.value == "COMPLETED" and shards_on(target) == before
    said = [record.getMessage() for record in caplog.records]
    assert any("removed=delete is taken as ask" in line for line in said), said
    assert any("push-bids/manual with removed=ask" in line for line in said), said
