"""What a night does about what is left out: a repo gets its table, and what was left out before is published."""

from pathlib import Path

import pytest

from tasks.card import side_files
from tasks.hub.client import Hub
from tasks.values.left_out import NO_NAME
from tests.end_to_end.nights import images_of, images_on
from tests.figures import artifacts
from tests.test_flows import push, shards_on

pytestmark = pytest.mark.usefixtures("prefect_server", "with_token")
TABLE = "bids/left_out.tsv"


def test_a_repo_without_the_table_gets_it_by_a_night_that_sends_no_shard(
    own_bids: Path, target: Hub, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_bids / "poster.pdf").write_bytes(b"%PDF")
    with monkeypatch.context() as earlier:
        earlier.setattr(
            "flows.find_work.side_files", lambda of: {k: v for k, v in side_files(of).items() if k != TABLE}
        )
        push(own_bids, target, root)
    shards = shards_on(target)
    assert shards and target.read(TABLE, target.head()) is None

    night = push(own_bids, target, root)
    assert night.type.value == "COMPLETED", night.message
    assert f"Committed without a shard, as {target.head()[:12]}: 1 file ({TABLE})" in (night.message or "")
    assert f"poster.pdf\t4\t{NO_NAME}\n".encode() in (target.read(TABLE, target.head()) or b"")
    head = target.head()
    assert push(own_bids, target, root).name == "NothingToPublish"
    assert target.head() == head and shards_on(target) == shards


def test_what_an_earlier_version_left_out_is_published_without_a_question(
    own_bids: Path, target: Hub, root: Path
) -> None:
    first, *others = sorted(path.name for path in own_bids.glob("sub-*"))
    push(own_bids, target, root, exclude=[f"{name}/" for name in others])
    assert {path.split("/")[1] for path in shards_on(target)} == {first}

    (own_bids / ".bidsignore").write_text("".join(f"/{name}/\n" for name in others))
    dry = push(own_bids, target, root, dry_run=True)
    (text,) = (str(data) for key, data in artifacts(dry).items() if key.startswith("dry-run-"))
    assert "Published although .bidsignore names them" in text and "would stop" not in text
    night = push(own_bids, target, root)
    assert night.name == "Staged", night.message
    assert images_on(target) == images_of(own_bids)


def test_a_pattern_that_cannot_be_read_ends_the_run_before_anything_is_made(
    bids: Path, target: Hub, root: Path
) -> None:
    state = push(bids, target, root, exclude=["../other"])
    assert state.name == "BadInput" and "leads out of the dataset" in (state.message or "")
    assert not target.exists()
