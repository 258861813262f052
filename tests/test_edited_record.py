"""A record that somebody has edited hides nothing: what a shard of the repo holds is asked of the shard itself.

On the real local Hub and a real Prefect server, as functions. The gate that follows is in
tests/end_to_end/test_removals.py.
"""

import hashlib
import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from prefect.client.schemas.objects import State

from tasks.hub.client import Hub
from tasks.record.ask_shards import read_lines
from tasks.record.remote import INDEX, RECORD, read_remote
from tests.bids_examples import move_session
from tests.counted_hub import CountedHub
from tests.end_to_end.nights import images_of, images_on
from tests.test_flows import push, shards_on

pytestmark = pytest.mark.usefixtures("prefect_server", "with_token")
Lines = dict[str, dict[str, Any]]


@pytest.fixture(autouse=True)
def _may_change(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", "1")  # one image of these datasets is a large part of them


@pytest.fixture
def bold(own_bids: Path, target: Hub, root: Path) -> Path:
    """An image that is published, and that the dataset has no more."""
    push(own_bids, target, root)
    image = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    image.unlink()
    return image


def shard_of(image: Path) -> str:
    """The path in the repo of the shard that an image of a session is in."""
    subject, session = image.parts[-4:-2]
    return f"data/{subject}/{subject}_{session}.parquet"


def edit(hub: Hub, change: Callable[[Lines], None]) -> None:
    """Edit the lines of the record by hand."""
    text = hub.read(RECORD, hub.head()) or b""
    lines = {line["path"]: line for line in map(json.loads, text.splitlines())}
    change(lines)
    text = b"".join(json.dumps(line, separators=(",", ":")).encode() + b"\n" for line in lines.values())
    hub.commit([CommitOperationAdd(RECORD, text)], "By hand", hub.head())


def taken_out(path: str) -> Callable[[Lines], None]:
    """Take a shard's line out of the record."""
    return lambda lines: lines.__delitem__(path)


def without(path: str, image: str) -> Callable[[Lines], None]:
    """Let a shard's line not name one of its files, and be otherwise what a shard without it would have."""

    def change(lines: Lines) -> None:
        images = [one for one in lines[path]["images"] if one["path"] != image]
        assert len(images) == lines[path]["rows"] - 1
        lines[path] |= {"images": images, "rows": len(images)}

    return change


def message(state: State[Any]) -> str:
    return state.message or ""


@pytest.mark.parametrize(
    "how",
    [
        "taken out",
        "not named",
        "all taken out",
        "the record deleted",
        "the index damaged",
        "the index deleted",
        "no word of the lines in the index",
    ],
)
def test_rows_that_the_record_does_not_name_any_more_stay_and_are_named_until_somebody_decides(
    own_bids: Path, target: Hub, root: Path, bold: Path, how: str
) -> None:
    path, image = shard_of(bold), str(bold.relative_to(own_bids))
    before = shards_on(target)
    if how == "taken out":
        edit(target, taken_out(path))
    elif how == "not named":
        edit(target, without(path, image))
    elif how == "all taken out":
        edit(target, dict.clear)
    elif how == "the record deleted":
        target.commit([CommitOperationDelete(RECORD)], "By hand", target.head())
    else:
        edit(target, without(path, image))
        index = json.loads(target.read(INDEX, target.head()) or b"{}")
        index.pop("lines_sha256")
        by_hand: dict[str, CommitOperationAdd | CommitOperationDelete] = {
            "the index damaged": CommitOperationAdd(INDEX, b"{"),
            "the index deleted": CommitOperationDelete(INDEX),
            "no word of the lines in the index": CommitOperationAdd(INDEX, json.dumps(index).encode()),
        }
        target.commit([by_hand[how]], "By hand", target.head())

    night = push(own_bids, target, root)
    assert shards_on(target)[path] == before[path] and image in images_on(target)
    assert f"1 image of 1 shard held back as published ({bold.name})" in message(night)
    assert f"{path}: its line " in message(night)

    # the record says so again, for whoever comes next, and the night after has nothing to say of it
    remote = read_remote(target)
    assert not remote.damaged and image in {one.path for one in remote.record.shards[path].images}
    quiet = push(own_bids, target, root)
    assert quiet.name == "NothingToPublish" and "somebody else" not in message(quiet)
    assert f"1 image of 1 shard held back as published ({bold.name})" in message(quiet)


def test_a_record_of_an_earlier_commit_that_somebody_put_back_hides_no_row(
    own_bids: Path, target: Hub, root: Path
) -> None:
    bold, *_ = sorted(own_bids.rglob("*_bold.nii.gz"))
    data, path = bold.read_bytes(), shard_of(bold)
    bold.unlink()
    push(own_bids, target, root)
    earlier = {name: target.read(name, target.head()) or b"" for name in (RECORD, INDEX)}
    bold.write_bytes(data)
    push(own_bids, target, root)
    before = shards_on(target)
    target.commit([CommitOperationAdd(name, text) for name, text in earlier.items()], "Back", target.head())
    bold.unlink()
    night = push(own_bids, target, root)
    assert shards_on(target)[path] == before[path] and str(bold.relative_to(own_bids)) in images_on(target)
    assert f"1 image of 1 shard held back as published ({bold.name})" in message(night)


def test_a_shard_that_somebody_replaced_by_an_earlier_one_keeps_what_the_dataset_has_no_more(
    own_bids: Path, target: Hub, root: Path
) -> None:
    push(own_bids, target, root)
    bold, *_ = sorted(own_bids.rglob("*_bold.nii.gz"))
    path = shard_of(bold)
    (old,) = root.rglob(f"{Path(path).stem}.*.parquet")
    data, image = old.read_bytes(), bold.read_bytes()
    bold.unlink()
    edit(target, taken_out(path))
    target.commit([CommitOperationDelete(path)], "By hand", target.head())
    push(own_bids, target, root)
    assert str(bold.relative_to(own_bids)) not in images_on(target)
    target.commit([CommitOperationAdd(path, data)], "The old one", target.head())
    night = push(own_bids, target, root)
    assert f"1 image of 1 shard held back as published ({bold.name})" in message(night)
    assert images_on(target)[str(bold.relative_to(own_bids))] == hashlib.sha256(image).hexdigest()


@pytest.mark.parametrize("theirs", [False, True])
def test_a_withdrawn_session_whose_line_was_taken_out_is_named_as_withdrawn_and_others_files_are_not(
    own_bids: Path, target: Hub, root: Path, tmp_path: Path, theirs: bool
) -> None:
    push(own_bids, target, root)
    bold = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    path = shard_of(bold)
    move_session(own_bids, bold.parents[1], tmp_path / "away")
    edit(target, taken_out(path))
    if theirs:
        stream = io.BytesIO()
        pq.write_table(pa.table({"theirs": [1]}), stream)
        target.commit([CommitOperationAdd(path, stream.getvalue())], "Theirs", target.head())
    said = message(push(own_bids, target, root))
    assert ("1 shard with" in said and Path(path).stem in said.partition("Withdrawn")[2]) is not theirs, said
    assert path in shards_on(target)


def test_a_session_that_is_withdrawn_is_named_with_all_of_its_images_however_few_its_line_names(
    own_bids: Path, target: Hub, root: Path, tmp_path: Path
) -> None:
    push(own_bids, target, root)
    bold = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    path, of_session = shard_of(bold), [one for one in images_of(own_bids) if "/".join(bold.parts[-4:-2]) in one]
    move_session(own_bids, bold.parents[1], tmp_path / "away")

    def change(lines: Lines) -> None:
        lines[path] |= {"images": [], "rows": 0}

    edit(target, change)
    night = push(own_bids, target, root)
    assert f"1 shard with {len(of_session)} images" in message(night), message(night)
    assert set(of_session) <= set(images_on(target))


def test_a_row_that_no_shard_holds_holds_nothing_back(own_bids: Path, target: Hub, root: Path) -> None:
    push(own_bids, target, root)
    path = shard_of(sorted(own_bids.rglob("*_bold.nii.gz"))[0])

    def change(lines: Lines) -> None:
        more = [one | {"path": f"made-up-{number}"} for number, one in enumerate(lines[path]["images"])]
        lines[path]["images"] += more

    edit(target, change)
    night = push(own_bids, target, root)
    assert "held back" not in message(night) and images_on(target) == images_of(own_bids)
    assert "held back" not in message(push(own_bids, target, root))


def test_what_is_no_shard_in_the_place_of_one_without_a_line_is_replaced(
    own_bids: Path, target: Hub, root: Path
) -> None:
    push(own_bids, target, root)
    path = shard_of(sorted(own_bids.rglob("*_bold.nii.gz"))[0])
    before = shards_on(target)
    edit(target, taken_out(path))
    target.commit([CommitOperationAdd(path, b"not a shard" * 1000)], "By hand", target.head())
    assert "held back" not in message(push(own_bids, target, root))
    assert shards_on(target) == before and not read_remote(target).damaged


def test_a_shard_that_is_text_in_git_says_what_it_holds_too(own_bids: Path, target: Hub, root: Path) -> None:
    """Its listing has no sha256."""
    push(own_bids, target, root)
    path, before = sorted(shards_on(target).items())[0]
    data = (sorted(root.rglob(f"{Path(path).stem}.*.parquet"))[0]).read_bytes()
    target.commit(
        [CommitOperationAdd(".gitattributes", b"*.parquet -filter text\n"), CommitOperationDelete(path)],
        "By hand",
        target.head(),
    )
    target.commit([CommitOperationAdd(path, data)], "By hand", target.head())
    listing = target.listing(target.head())
    assert listing.files[path].sha256 is None
    (line,) = read_lines(target, [path], listing).values()
    assert (line.size, line.sha256) == before
    assert {file.path for file in line.images} <= {str(one.relative_to(own_bids)) for one in own_bids.rglob("*")}


def test_a_dry_run_names_what_an_edited_record_hides_and_leaves_the_record_as_it_is(
    own_bids: Path, target: Hub, root: Path, bold: Path
) -> None:
    edit(target, without(shard_of(bold), str(bold.relative_to(own_bids))))
    head = target.head()
    assert bold.name in message(push(own_bids, target, root, dry_run=True)) and target.head() == head


def test_the_image_comes_back_and_its_shard_is_published_as_the_dataset_has_it(
    bids: Path, own_bids: Path, target: Hub, root: Path, bold: Path
) -> None:
    before = shards_on(target)
    edit(target, taken_out(shard_of(bold)))
    push(own_bids, target, root)
    shutil.copy2(bids / bold.relative_to(own_bids), bold)
    assert "held back" not in message(push(own_bids, target, root))
    assert shards_on(target) == before and images_on(target) == images_of(own_bids)
    assert push(own_bids, target, root).name == "NothingToPublish"


def test_a_shard_without_a_line_of_which_the_hub_sends_other_bytes_stays_until_it_sends_the_right_ones(
    own_bids: Path, server: CountedHub, counted_by_flows: Hub, root: Path
) -> None:
    hub = counted_by_flows
    push(own_bids, hub, root)
    image = sorted(own_bids.rglob("*_bold.nii.gz"))[0]
    image.unlink()
    edit(hub, taken_out(shard_of(image)))
    before = shards_on(hub)
    path = f"/resolve/[^/]+/{shard_of(image)}"
    server.break_on({"fault": "other_bytes", "method": "GET", "path": path, "times": -1, "what": "all"})
    stopped = push(own_bids, hub, root)
    assert stopped.name == "ShardUnreadable" and shard_of(image) in message(stopped)
    assert shards_on(hub) == before
    server.break_on()
    assert "1 shard held back" in message(push(own_bids, hub, root))
    assert image.relative_to(own_bids).as_posix() in images_on(hub)


def test_no_shard_is_asked_where_nobody_has_edited_the_record(
    own_bids: Path, server: CountedHub, counted_by_flows: Hub, root: Path
) -> None:
    hub = counted_by_flows
    push(own_bids, hub, root)
    t1w, *more = sorted(own_bids.rglob("*_T1w.nii.gz"))
    shutil.copyfile(more[0], t1w)  # a shard is to be replaced
    sorted(own_bids.rglob("*_bold.nii.gz"))[-1].unlink()  # and one is held back
    start = len(server.asked())
    changed = push(own_bids, hub, root, verification="listing")
    assert [one.path for one in server.asked(start) if one.method == "GET" and "/data/" in one.path] == []
    assert "1 shard held back" in message(changed)
