"""The parts of a restore without a Hub: what is wanted, what a damaged shard costs, and how a file gets its name."""

import errno
import fcntl
import hashlib
import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Barrier
from typing import Any, cast

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.hub.errors import OversizedFile, Refused
from tasks.load import load
from tasks.plan import plan
from tasks.record.remote import Remote
from tasks.restore import NAMED, STREAMS, Outcome, _at_once, groups, not_all, restore_shard
from tasks.restore.pages import NotOfOurs, read_struct
from tasks.restore.target_folder import MEANWHILE, Into, NotRestored
from tasks.restore.wanted import A_FOLDER, TWICE, Subset, WantedShard, problem, wanted
from tasks.stage import stage
from tasks.values.errors import BadInput
from tasks.values.kinds import is_image
from tasks.values.models import (
    HASHED_FOLDERS,
    ImageContent,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    PublishedText,
    Receipt,
)
from tasks.write import WRITER_SETTINGS
from tests.layout_1 import as_layout_1, rewritten
from tests.recorded_dataset import EEG, PHYSIO, T1W, with_recordings

NAME = "sub-1/anat/sub-1_T1w.nii"


class LocalHub:
    """Gives parts of a file as a Hub does."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def stream(self, path: str, commit: str, start: int, size: int) -> Iterator[bytes]:
        for at in range(start, start + size, 5000):
            yield self._data[at : min(at + 5000, start + size)]


@given(st.binary(max_size=300))
def test_what_is_no_struct_is_told_and_nothing_else(data: bytes) -> None:
    with suppress(NotOfOurs):
        assert isinstance(read_struct(data), dict)


def test_a_byte_that_is_another_one_anywhere_costs_files_of_its_shard_and_none_comes_wrong(
    staged: Callable[[int], list[Receipt]], bids: Path, tmp_path: Path
) -> None:
    (receipt,) = staged(1)
    (file,) = tmp_path.rglob("*.parquet")
    data = file.read_bytes()
    shard = WantedShard(receipt.path, receipt.size, receipt.images)
    places = st.one_of(st.integers(0, len(data) - 1), st.integers(len(data) - 40_000, len(data) - 1))

    @settings(max_examples=40)
    @given(places, st.integers(1, 255))
    def try_it(place: int, change: int) -> None:
        damaged = bytearray(data)
        damaged[place] ^= change
        outcome = Outcome()
        with TemporaryDirectory(dir=tmp_path) as folder:
            restore_shard(cast(Hub, LocalHub(bytes(damaged))), "commit", Into(Path(folder)), shard, outcome)
            came = {path for path in Path(folder).rglob("*") if path.is_file()}
            assert {path.relative_to(folder).as_posix() for path in came} == outcome.restored.keys()
            assert all(path.read_bytes() == (bids / path.relative_to(folder)).read_bytes() for path in came)
        assert {image.path for image in receipt.images} == outcome.restored.keys() | outcome.failures.keys()

    try_it()


@pytest.fixture
def recorded(staging: Staging, tmp_path: Path) -> tuple[Path, Receipt, bytes]:
    """A dataset, and its shard with an image, EEG and physio: its receipt, and its bytes."""
    source = with_recordings(tmp_path / "recorded")
    spec = next(spec for spec in plan(load(source), WRITER_SETTINGS) if EEG in {one.path for one in spec.images})
    receipt = stage(spec, source, staging)
    return source, receipt, (staging.folder / receipt.file).read_bytes()


def restored(data: bytes, receipt: Receipt, into: Path) -> Outcome:
    """What becomes of the files of a shard that the Hub sends so."""
    outcome = Outcome()
    into.mkdir(exist_ok=True)
    shard = WantedShard(receipt.path, len(data), receipt.images)
    restore_shard(cast(Hub, LocalHub(data)), "commit", Into(into), shard, outcome)
    return outcome


def with_kind(table: pa.Table, kind: str | None) -> pa.Table:
    return table.set_column(table.column_names.index("kind"), "kind", pa.array([kind] * table.num_rows, pa.string()))


def test_an_image_and_recordings_come_out_of_one_shard_byte_for_byte(
    recorded: tuple[Path, Receipt, bytes], tmp_path: Path
) -> None:
    source, receipt, data = recorded
    outcome = restored(data, receipt, tmp_path / "back")
    assert outcome.restored.keys() == {image.path for image in receipt.images} > {EEG, PHYSIO, T1W}
    assert all((tmp_path / "back" / path).read_bytes() == (source / path).read_bytes() for path in outcome.restored)


def test_a_sidecar_with_fields_stripped_comes_as_it_was_published(staging: Staging, tmp_path: Path) -> None:
    source, left = with_recordings(tmp_path / "recorded"), b'{"TaskName": "rest"}'
    (spec,) = (spec for spec in plan(load(source), WRITER_SETTINGS) if T1W in {one.path for one in spec.images})
    sidecar = EEG.replace(".edf", ".json")
    stripped = [replace(one, content=left, size=len(left)) if one.path == sidecar else one for one in spec.files]
    receipt = stage(replace(spec, files=tuple(stripped)), source, staging)
    outcome = restored((staging.folder / receipt.file).read_bytes(), receipt, tmp_path / "back")
    assert outcome.restored[sidecar] == len(left) and (tmp_path / "back" / sidecar).read_bytes() == left
    assert (source / sidecar).read_bytes() != left


def test_a_shard_of_layout_1_comes_as_before(recorded: tuple[Path, Receipt, bytes], tmp_path: Path) -> None:
    source, receipt, data = recorded
    images = tuple(one for one in receipt.images if is_image(one.path))
    old = rewritten(data, lambda table: table if pc.all(table["nifti"].is_valid()).as_py() else table.slice(0, 0))
    outcome = restored(as_layout_1(old), receipt.model_copy(update={"images": images}), tmp_path / "back")
    assert not outcome.failures and len(outcome.restored) == len(images) == 2
    assert all((tmp_path / "back" / path).read_bytes() == (source / path).read_bytes() for path in outcome.restored)


@pytest.mark.parametrize(
    ("change", "one_group", "why"),
    [
        pytest.param(lambda table: with_kind(table, "surface"), False, "a kind that this version", id="unknown kind"),
        pytest.param(lambda table: with_kind(table, None), False, "a kind that this version", id="no kind"),
        pytest.param(lambda table: table, True, "images and other files in a row group", id="two columns"),
        pytest.param(lambda table: table.drop_columns(["content"]), False, "content is missing", id="no content"),
    ],
)
def test_a_hostile_shard_is_refused_by_the_names_of_its_files_and_costs_no_file_of_another(
    recorded: tuple[Path, Receipt, bytes],
    staged: Callable[[int], list[Receipt]],
    staging: Staging,
    tmp_path: Path,
    change: Callable[[pa.Table], pa.Table],
    one_group: bool,
    why: str,
) -> None:
    _, receipt, data = recorded
    outcome = restored(rewritten(data, change, one_group), receipt, tmp_path / "back")
    assert outcome.failures.keys() == {image.path for image in receipt.images} and not outcome.restored
    assert all(why in said and "damaged on the Hub, or not of bids-push" in said for said in outcome.failures.values())
    (other,) = staged(1)
    assert not restored((staging.folder / other.file).read_bytes(), other, tmp_path / "back").failures


def test_a_row_that_says_recording_and_has_no_content_is_refused_and_the_others_of_its_shard_come(
    recorded: tuple[Path, Receipt, bytes], tmp_path: Path
) -> None:
    _, receipt, data = recorded

    def without_content(table: pa.Table) -> pa.Table:
        if EEG not in table["path"].to_pylist():
            return table
        nothing = pa.nulls(table.num_rows, table.schema.field("content").type)
        return table.set_column(table.column_names.index("content"), table.schema.field("content"), nothing)

    outcome = restored(rewritten(data, without_content), receipt, tmp_path / "back")
    assert outcome.failures.keys() == {EEG} and not (tmp_path / "back" / EEG).exists()
    assert outcome.restored.keys() == {image.path for image in receipt.images} - {EEG}


@pytest.mark.parametrize("links", [True, False])
def test_what_comes_to_be_there_while_a_file_is_fetched_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def refused(*arguments: object, **named: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    if not links:
        monkeypatch.setattr(os, "link", refused)

    def chunks() -> Iterator[bytes]:
        yield b"theirs"
        (tmp_path / NAME).write_bytes(b"mine")

    outcome = Outcome()
    with outcome.arrivals(Into(tmp_path)) as arrivals:
        arrivals.put(NAME, 6, hashlib.sha256(b"theirs").hexdigest(), chunks())
    assert outcome.failures == {NAME: MEANWHILE} and not outcome.restored
    assert [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()] == [b"mine"]


def test_a_leftover_goes_and_what_another_run_writes_stays(tmp_path: Path) -> None:
    folder = (tmp_path / NAME).parent
    folder.mkdir(parents=True)
    dead, alive, yours = (folder / name for name in (f".bids-push-{'0' * 16}.part", f".bids-push-{'1' * 16}.part", "x"))
    for file in (dead, alive, yours):
        file.write_bytes(b"half")
    (folder / f".bids-push-{'2' * 16}.part").symlink_to(yours)
    with alive.open("wb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        assert Into(tmp_path).remove_leftovers([NAME]) == 1
    assert not dead.exists() and alive.exists() and yours.read_bytes() == b"half"


@pytest.mark.parametrize("path", ["/a", "a/../b", "..", "a//b", "./a", "a/", "", "a/.GIT/config", "a\0b", "a\nb"])
def test_a_path_that_no_dataset_has_is_refused(path: str) -> None:
    assert problem(path)


@pytest.mark.parametrize(
    "path", ["README", NAME, "sub-ä/anat/x.nii.gz", "a b/c.nii", "..a/b..nii", ".gitmodules/x.nii"]
)
def test_a_path_that_a_dataset_may_have_is_taken(path: str) -> None:
    assert problem(path) is None


def remote_of(**shards: list[str]) -> tuple[Remote, Listing]:
    """A target whose shards have files with these paths, each with its own bytes."""
    lines, listed = {}, {}
    for name, paths in shards.items():
        path = f"data/{name}/{name}.parquet"
        images = tuple(
            ImageContent(path=one, size=1, sha256=hashlib.sha256(f"{name}{one}".encode()).hexdigest()) for one in paths
        )
        facts: dict[str, Any] = {"digest": "0" * 64, "sha256": "0" * 64, "size": 100, "rows": len(paths)}
        lines[path] = PublishedShard(path=path, images=images, **facts)
        listed[path] = ListedFile(path, 100, "0" * 64)
    return Remote("commit", PublicationRecord(shards=lines)), Listing("commit", listed)


def test_a_file_that_has_the_path_of_a_folder_is_refused_and_what_is_in_the_folder_comes() -> None:
    found = wanted(*remote_of(a=["x/y", "z"], b=["x/y/w.nii"]), Subset(), "lab/x")
    assert found.refused == {"x/y": A_FOLDER}
    assert [path for path, _ in found.sizes()] == ["z", "x/y/w.nii"]


def test_a_derivatives_images_belong_to_their_subject_too() -> None:
    raw, derived, other = NAME, f"derivatives/x/{NAME}", "sub-2/func/sub-2_bold.nii"
    published = remote_of(a=[raw, derived], b=[other])
    assert [path for path, _ in wanted(*published, Subset(subjects=["1"]), "x").sizes()] == [raw, derived]
    assert [path for path, _ in wanted(*published, Subset(datatypes=["func"]), "x").sizes()] == [other]


#: What is published of two subjects, one with two sessions, and of nobody.
PUBLISHED = [
    SESSIONS := "sub-1/sub-1_sessions.tsv",
    SUBJECTS_BOLD := "sub-1/sub-1_task-x_bold.json",
    SCANS_A := "sub-1/ses-a/sub-1_ses-a_scans.tsv",
    T1W_A := "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz",
    JSON_A := "sub-1/ses-a/anat/sub-1_ses-a_T1w.json",
    BOLD_A := "sub-1/ses-a/func/sub-1_ses-a_task-x_bold.nii.gz",
    SCANS_B := "sub-1/ses-b/sub-1_ses-b_scans.tsv",
    BEH_B := "sub-1/ses-b/beh/sub-1_ses-b_task-y_beh.tsv",
    SESSIONS_2 := "sub-2/sub-2_sessions.tsv",
    T1W_2 := "sub-2/ses-c/anat/sub-2_ses-c_T1w.nii.gz",
    FLAT := "derivatives/flat/sub-1_ses-a_desc-x_mask.nii.gz",
    FLAT_JSON := "derivatives/flat/sub-2_ses-c_desc-x_mask.json",
    GROUP := "derivatives/flat/group/desc-y_stat.tsv",
    TEMPLATE := "derivatives/flat/tpl-X/tpl-X_T1w.nii.gz",
]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ({"subjects": ["1"]}, {*PUBLISHED} - {SESSIONS_2, T1W_2, FLAT_JSON, TEMPLATE}),
        ({"sessions": ["a"]}, {SESSIONS, SUBJECTS_BOLD, SCANS_A, T1W_A, JSON_A, BOLD_A, FLAT, GROUP}),
        ({"sessions": ["b"]}, {SESSIONS, SUBJECTS_BOLD, SCANS_B, BEH_B, GROUP}),
        ({"datatypes": ["anat"], "sessions": ["ses-c"]}, {SESSIONS_2, T1W_2, FLAT_JSON, GROUP}),
        ({"datatypes": ["beh"]}, {SESSIONS, SUBJECTS_BOLD, SCANS_B, BEH_B, GROUP}),
        ({"subjects": ["1"], "datatypes": ["func"]}, {SESSIONS, SUBJECTS_BOLD, SCANS_A, BOLD_A, GROUP}),
        ({"paths": ["*_T1w.*"]}, {T1W_A, JSON_A, T1W_2, TEMPLATE}),
        ({"paths": ["sub-1", "/derivatives/*/group/", "!sub-*.tsv"]}, {SUBJECTS_BOLD, T1W_A, JSON_A, BOLD_A, GROUP}),
        ({"sessions": ["a"], "paths": ["anat/", "*_sessions.tsv"]}, {SESSIONS, T1W_A, JSON_A}),
        ({"paths": ["/participants.tsv"]}, set()),
    ],
)  # fmt: skip
def test_a_part_has_the_files_beside_too_and_those_above_what_is_asked_for(
    asked: dict[str, list[str]], found: set[str]
) -> None:
    assert set(Subset(**asked).of(PUBLISHED, ["participants.tsv"], "lab/x")) == found


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ({"datatypes": ["pet"]}, "datatypes: lab/x has no file of 'pet'. The nearest one is 'beh', of 3 datatypes."),
        ({"sessions": ["b"], "datatypes": ["anat"]}, "sessions and datatypes: lab/x has no file of all of these"),
        ({"subjects": ["2"], "paths": ["participants.tsv"]}, "subjects and paths: lab/x has no file of all of these"),
        ({"paths": ["sub-1/ses-a/anat/sub-1_ses-a_T1W.json"]}, f"The nearest path is '{JSON_A}'"),
        ({"paths": ["!sub-3/", "*"]}, "has no file that '!sub-3/' matches"),
        ({"paths": ["~/data"]}, "leads out of the dataset"),
    ],
)  # fmt: skip
def test_a_part_that_has_no_file_is_told_with_what_there_is(asked: dict[str, list[str]], said: str) -> None:
    with pytest.raises(BadInput) as told:
        Subset(**asked).of(PUBLISHED, ["participants.tsv"], "lab/x")
    assert said in str(told.value)


def test_a_repo_without_sidecars_as_files_is_known_as_one_that_an_older_version_may_have_published() -> None:
    remote, listing = remote_of(a=[T1W_A, BOLD_A])
    assert wanted(remote, listing, Subset(), "x").beside  # by one that vouches for its record: there are none
    earlier = replace(remote, record=remote.record.model_copy(update={"vouched": False}))
    assert not wanted(earlier, listing, Subset(), "x").beside
    assert wanted(*remote_of(a=[T1W_A, JSON_A]), Subset(paths=["*.nii.gz"]), "x").beside


def test_small_shards_are_restored_together_and_a_large_one_alone() -> None:
    sizes = [1, 1, 300 << 20, 1, *[1] * 200]
    shards = [WantedShard(str(number), size, ()) for number, size in enumerate(sizes)]
    assert [len(group) for group in groups(shards)] == [2, 1, 128, 73]


def test_shards_of_a_group_are_restored_at_the_same_time() -> None:
    together = Barrier(STREAMS, timeout=60)  # it breaks, and so does the test, where one waits for the other to end

    def waits(number: int) -> None:
        together.wait()

    _at_once(waits, range(2 * STREAMS))


def test_what_a_newer_version_has_published_and_this_one_cannot_read_is_told_with_the_way_out() -> None:
    remote, listing = remote_of(a=["x"])
    damaged = replace(remote, damaged=("line 2: its path is none that a shard has",))
    assert wanted(damaged, listing, Subset(), "lab/x").refused["the publication record"].startswith("it is damaged")
    newer = damaged.record.model_copy(update={"layout": HASHED_FOLDERS + 1})
    said = wanted(replace(damaged, record=newer), listing, Subset(), "lab/x").refused["the publication record"]
    assert "a newer bids-push has published this (layout 4; this version knows 3 at most)" in said and "Update" in said


def test_a_text_that_a_later_push_has_in_a_shard_comes_once_where_both_have_the_same_bytes() -> None:
    remote, listing = remote_of(a=["code/run.py", "code/other.py"])
    held = {image.path: image.sha256 for line in remote.record.shards.values() for image in line.images}
    texts = [
        PublishedText(path="bids/code/run.py", size=1, sha256=held["code/run.py"]),
        PublishedText(path="bids/code/other.py", size=1, sha256="f" * 64),
    ]
    files = {text.path: ListedFile(text.path, 1, None, "0" * 40) for text in texts}  # in git itself: without a sha256
    remote = replace(remote, record=remote.record.updated(texts=texts))
    found = wanted(remote, Listing("commit", {**listing.files, **files}), Subset(), "lab/x")
    assert sorted(path for path, _ in found.sizes()) == ["code/other.py", "code/run.py"] and not found.texts
    assert found.refused == {"code/other.py": TWICE}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (NotRestored("a folder is in its place"), "a folder is in its place"),
        (NotOfOurs("no footer"), "its shard is damaged on the Hub, or not of bids-push: no footer"),
        (Refused("the Hub refuses it"), "the Hub refuses it"),
        (OversizedFile("it is too large"), "it is too large"),
        (OSError(errno.EACCES, "Permission denied"), "the system refuses to read or write it: Permission denied"),
        (OSError("no words"), "the system refuses to read or write it: no words"),
    ],
)
def test_a_file_that_is_not_restored_has_its_reason_and_one_of_which_the_end_is_known_keeps_it(
    error: Exception, said: str
) -> None:
    outcome = Outcome(restored={"a": 1}, there={"b": 2}, failures={"c": "known before"})
    with outcome.naming("a", "b", "c", "d", "e"):
        raise error
    assert outcome.failures == {"c": "known before", "d": said, "e": said}
    with pytest.raises(ZeroDivisionError), outcome.naming("f"):
        raise ZeroDivisionError
    assert not outcome.knows("f")


def test_of_many_files_that_are_not_restored_the_first_are_named_and_the_others_counted() -> None:
    why = {f"sub-{number:02}": "it is gone" for number in range(NAMED + 2)}
    lines = not_all(why).splitlines()
    assert lines[0] == "  sub-00: it is gone" and lines[NAMED - 1 :] == ["  sub-19: it is gone", "  and 2 more"]
    assert not_all(dict(sorted(why.items())[:NAMED])).splitlines() == lines[:NAMED]


def test_a_file_that_is_there_and_not_executable_as_it_was_published_is_told() -> None:
    class Folder:
        def is_executable(self, path: str) -> bool:
            return path == "code/run.sh"

    outcome = Outcome()
    for path, published in (("code/run.sh", True), ("code/other.sh", True), ("README", False)):
        outcome.found(cast(Into, Folder()), path, 3, published)
    assert outcome.there == dict.fromkeys(("code/run.sh", "code/other.sh", "README"), 3)
    assert outcome.not_executable == ["code/other.sh"]
