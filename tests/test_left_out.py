"""Every file of a dataset is published or stands in bids/left_out.tsv, and the operator says what is which."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from prefect.utilities.callables import parameter_schema
from prefect.utilities.schema_tools import validate

from flows.push_bids import push_bids
from tasks.card import side_files
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.load import EmptyDataset, load
from tasks.record.published import Work
from tasks.report.dry_run import Rehearsal, dry_run
from tasks.values.errors import BadInput
from tasks.values.left_out import BY_INCLUDE, CONTRADICTS, NO_NAME, NO_TEXT_THERE, NOT_LOOKED_THROUGH
from tasks.values.models import Dataset, PublicationRecord
from tasks.values.preflight_rules import Checked
from tests import bids_examples as bids
from tests.bids_examples import IMAGE, Link

TABLE = "bids/left_out.tsv"
T1W = "sub-01/anat/sub-01_T1w.nii.gz"


def rows_of(dataset: Dataset) -> list[tuple[str, str, str]]:
    """The rows of the table: path, size, reason."""
    head, *lines = side_files(dataset)[TABLE].decode().removesuffix("\n").split("\n")
    assert head == "path\tsize\treason"
    rows = [tuple(line.split("\t")) for line in lines]
    return [(json.loads(f'"{path}"'), size, reason) for path, size, reason in rows]


def test_a_dataset_of_which_all_is_published_has_a_table_with_its_header_alone(tmp_path: Path) -> None:
    assert side_files(load(bids.two_sessions(tmp_path)))[TABLE] == b"path\tsize\treason\n"


def test_images_come_first_then_recordings_then_the_rest_each_with_size_and_reason(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "poster.pdf": b"%PDF",
        "code/lib.so": b"\x7fELF\0\0\0",
        "sub-01/anat/acq-a_T1w.nii": b"12345",
        "sub-01/anat/foo.nii": b"12345",
        "sub-01/anat/sub-02_T1w.json": "{}",
        "sub-01/eeg/foo_eeg.vhdr": b"123",
        "sub-01/eeg/eeg.json": "{ }",
        "sub-01/eeg/sub-01_photo.jpg": b"a face",
        "sub-01/meg/sub-02_task-x_meg.ds/a.meg4": b"1",
    }
    assert rows_of(load(bids.one_subject(tmp_path, files))) == [
        ("sub-01/anat/acq-a_T1w.nii", "5", f"an image whose name is none of BIDS; {BY_INCLUDE}"),
        ("sub-01/anat/foo.nii", "5", f"an image whose name is none of BIDS; {BY_INCLUDE}"),
        ("sub-01/eeg/foo_eeg.vhdr", "3", f"a recording whose name is none of BIDS; {BY_INCLUDE}"),
        (
            "sub-01/meg/sub-02_task-x_meg.ds/a.meg4",
            "1",
            f"a recording whose name and folder contradict each other; {BY_INCLUDE}",
        ),
        ("code/lib.so", "7", f"in code/: {NO_TEXT_THERE}"),
        ("poster.pdf", "4", NO_NAME),
        ("sub-01/anat/sub-02_T1w.json", "2", CONTRADICTS),
        ("sub-01/eeg/eeg.json", "3", NO_NAME),
        ("sub-01/eeg/sub-01_photo.jpg", "6", NOT_LOOKED_THROUGH),
    ]


def test_a_recording_by_its_format_that_its_name_does_not_call_one_is_listed_as_a_recording(tmp_path: Path) -> None:
    files: dict[str, object] = {"sub-01/eeg/sub-01_rest.edf": b"1", "sub-01/eeg/Sub-01 Task Rest.EDF": b"12"}
    (first, second) = load(bids.one_subject(tmp_path, files)).unpublished

    assert {first.what, second.what} == {"recording"}
    assert "its name does not say so (_eeg," in first.reason and first.reason == second.reason


def test_names_of_hidden_files_and_of_those_in_sourcedata_are_not_in_it(tmp_path: Path) -> None:
    files = {"sourcedata/Doe/Doe.dcm": b"123", "sourcedata/.Doe": b"12", ".git/Doe": b"", "code/.Doe.swp": b""}
    files |= {"sub-01/anat/._sub-01_T1w.nii.gz": b"", "sub-01/anat/.Doe": b"", ".Doe": b""}
    dataset = load(bids.one_subject(tmp_path, files))

    assert rows_of(dataset) == [
        ("./", "n/a", "hidden: 1 file"),
        (".git/", "n/a", "a hidden folder, not looked into"),
        ("code/", "n/a", "hidden: 1 file"),
        ("sourcedata/", "5", "in sourcedata/: 2 files"),
        ("sub-01/anat/", "n/a", "hidden: 2 files"),
    ]


def test_a_hidden_folder_within_a_recording_is_in_it_and_one_within_sourcedata_is_not(tmp_path: Path) -> None:
    meg = "sub-01/meg/sub-01_task-x_meg.ds"
    files = {f"{meg}/a.meg4": b"1", f"{meg}/.cache/Doe": b"", "sourcedata/raw/.Doe/Doe": b"", "sourcedata/raw/a": b"12"}
    dataset = load(bids.one_subject(tmp_path, files))

    assert rows_of(dataset) == [
        ("sourcedata/", "2", "in sourcedata/: 1 file"),
        (f"{meg}/.cache/", "n/a", "a hidden folder, not looked into"),
    ]


def test_a_sidecar_that_applies_to_nothing_is_not_in_it_but_a_row(tmp_path: Path) -> None:
    files = {"sub-01/anat/sub-01_acq-a_desc-x_T1w.nii.gz": IMAGE, "sub-01/anat/sub-01_T1w.json": {"EchoTime": 1}}
    files |= {"sub-01/anat/sub-01_acq-a_T1w.json": {}, "sub-01/anat/sub-01_desc-x_T1w.json": {}}
    files |= {"sub-01/sub-01_scans.tsv": [["filename"], ["anat/sub-01_T1w.nii.gz"]], "sub-01/sub-01_scans.json": {}}
    dataset = load(bids.one_subject(tmp_path, files))

    assert not rows_of(dataset)
    assert {file.path for file in dataset.files} == files.keys() - {"sub-01/anat/sub-01_acq-a_desc-x_T1w.nii.gz"}


def test_the_table_is_the_same_whether_content_was_fetched_or_not(tmp_path: Path) -> None:
    data = b"a poster"
    key = f"SHA256E-s{len(data)}--{hashlib.sha256(data).hexdigest()}.pdf"
    path = "sub-01/eeg/poster.pdf"
    link = Link(f"../../.git/annex/objects/a/b/{key}/{key}")
    trees: dict[str, dict[str, object]] = {
        "fetched": {path: data, ".git/x": b""},
        "locked": {path: link, ".git/x": b""},
        "unlocked": {path: f"/annex/objects/{key}\n", ".git/y": b"", ".git/z": b""},
    }
    tables = {side_files(load(bids.one_subject(tmp_path / name, files)))[TABLE] for name, files in trees.items()}
    assert len(tables) == 1 and f"{path}\t{len(data)}\t".encode() in tables.pop()


def test_any_file_name_has_one_line_and_can_be_read_back(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path)
    names = [b"a\tb.pdf", b"a\nb.pdf", b'"a.pdf', b"a\\b.pdf", b"\xff.pdf", "ä.pdf".encode()]
    for name in names:
        os.close(os.open(os.fsencode(root) + b"/" + name, os.O_CREAT))

    assert {os.fsencode(path) for path, _, _ in rows_of(load(root))} == set(names)


@pytest.mark.parametrize(
    ("exclude", "include", "published"),
    [
        (["sub-02/"], [], {"sub-01", "sub-03"}),
        (["/sub-0[12]/anat/*.nii.gz"], [], {"sub-03"}),
        (["/sub-*/", "!/sub-02/"], [], {"sub-02"}),
        (["sub-*"], ["*_T1w.nii.gz"], {"sub-01", "sub-02", "sub-03"}),
        (["sub-*"], ["sub-01/", "!sub-01/anat/", "sub-03"], {"sub-03"}),
        ([], ["sub-01/"], {"sub-01", "sub-02", "sub-03"}),
    ],
)
def test_exclude_leaves_out_and_include_wins(
    tmp_path: Path, exclude: list[str], include: list[str], published: set[str]
) -> None:
    files = {f"sub-{number}/anat/sub-{number}_T1w.nii.gz": IMAGE for number in ("02", "03")}
    dataset = load(bids.one_subject(tmp_path, files), exclude, include)

    assert {f"sub-{image.sub}" for image in dataset.images} == published
    left = {path.split("/")[0] for path, _, reason in rows_of(dataset) if reason == "named by `exclude`"}
    assert left == {"sub-01", "sub-02", "sub-03"} - published and not dataset.told


def test_a_sidecar_a_text_or_a_table_that_exclude_names_is_in_no_column_and_not_below_bids(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path), exclude=["/participants.tsv", "/README", "task-rest_bold.json"])

    assert not dataset.participants and not any(image.participant for image in dataset.images)
    assert not any("TaskName" in (image.metadata or "") for image in dataset.images)
    assert not {"README", "participants.tsv", "task-rest_bold.json"} & dataset.texts.keys()
    assert dataset.left_out == {"named by `exclude`": 3}


def test_include_brings_back_what_is_hidden_or_outside_only_where_it_names_it(tmp_path: Path) -> None:
    image = "sub-01/anat/sub-01_T2w.nii.gz"
    files: dict[str, object] = {
        f"{folder}/{image}": IMAGE for folder in (".old", ".git/annex", "sourcedata", "code/test")
    }
    root = bids.one_subject(tmp_path, {**files, "sourcedata/README": "raw", "sub-01/.notes": ""})

    def found(*include: str) -> set[str]:
        return {one.path for one in load(root, include=include).images} - {T1W}

    assert found() == found("*.nii.gz", "sub-01/", "*", "**/*_T2w.nii.gz") == set()
    assert found("sourcedata/") == {f"sourcedata/{image}"}
    assert found("/sourcedata/sub-01/**", ".old/") == {f"sourcedata/{image}", f".old/{image}"}
    assert found("code/test/") == {f"code/test/{image}"}
    back = load(root, include=["sourcedata/"])
    assert {one.dataset for one in back.images} == {"raw", "sourcedata"} and "sourcedata/README" in back.texts


def test_a_pattern_that_matches_nothing_is_told_with_the_number_of_files(tmp_path: Path) -> None:
    dataset = load(bids.one_subject(tmp_path), ["sub-1O/", "sub-*"], ["sub-01", ".old/"])
    assert [sentence.partition(" of the dataset")[0] for sentence in dataset.told] == [
        "exclude: 'sub-1O/' matches none of the 2 files",
        "include: '.old/' matches none of the 2 files",
    ]


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("", "it is empty"),
        ("  ", "it is empty"),
        ("# sub-01", "a comment"),
        ("a\nb", "more than one line"),
        ("../other/sub-01", "leads out of the dataset"),
        ("sub-01/../../x", "leads out of the dataset"),
        ("~/data", "leads out of the dataset"),
        ("!", "no pattern"),
        ("/", "no pattern"),
        ("[z-a]*", "no pattern"),
        ("sub-[01", "no pattern"),
        ("sub\\", "no pattern"),
    ],
)
def test_a_pattern_that_cannot_be_read_or_leaves_the_dataset_is_refused_with_a_sentence(
    tmp_path: Path, pattern: str, why: str
) -> None:
    root = bids.one_subject(tmp_path)
    for parameter in ("exclude", "include"):
        with pytest.raises(BadInput, match=why) as refused:
            load(root, **{parameter: [pattern]})
        assert str(refused.value).startswith(f"{parameter}: {pattern!r} cannot be used")


def test_where_exclude_leaves_no_image_the_error_says_so(tmp_path: Path) -> None:
    with pytest.raises(EmptyDataset, match="1 named by `exclude`"):
        load(bids.one_subject(tmp_path), exclude=["sub-01/"])


def test_every_file_is_published_or_listed_and_none_is_both(tmp_path: Path) -> None:
    root = bids.two_sessions(tmp_path)
    bids.write(root, {"sub-01/ses-a/eeg/sub-01_ses-a_eeg.edf": b"", "notes.docx": b"", "sub-02/foo.nii": IMAGE})
    dataset = load(root, exclude=["ses-b/", "/README"])

    every = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file()}
    listed = {path for path, _, _ in rows_of(dataset)}
    published = {row.path for row in dataset.rows} | dataset.texts.keys()
    assert listed | published == every and not listed & published


def test_the_dry_run_counts_every_image_by_reason_and_folder_and_then_the_rest(tmp_path: Path) -> None:
    files: dict[str, object] = {f"sub-01/anat/old{number}/foo.nii.gz": IMAGE for number in range(60)}
    files |= {f"sub-{number}/func/bar.nii.gz": IMAGE for number in range(10, 22)}
    files |= {f"sub-01/anat/{number}.x{number}": b"1" for number in range(70)}
    surfaces = {f"derivatives/freesurfer/sub-{number}/surf/lh.pial": b"12" for number in range(10, 22)}
    files |= {**surfaces, "derivatives/freesurfer/sub-10/stats/aseg.stats": "1"}
    dataset = load(bids.one_subject(tmp_path, files), exclude=["nothing"])
    hub = Hub(Target("https://hub.example", "lab/some"), "")
    text = dry_run(hub, Rehearsal(dataset, (), Work((), (), (), ()), PublicationRecord(), Checked())).replace(
        "\\*", "*"
    )

    assert "72 images:" in text
    assert f"| 12 | sub-*/func/ | an image whose name is none of BIDS; {BY_INCLUDE} |".replace("`", "'") in text
    assert all(f"| 1 | sub-*/anat/old{number}/ |" in text for number in range(60))
    reason = NO_NAME.replace("`", "'")
    assert f"83 other files, by the reason:\n\n- 83 files, 95 bytes: {reason}\n" in text
    folders = [line for line in text.splitlines() if line.endswith(f" | {reason} |")]
    assert folders == [
        f"| 70 | sub-*/anat/ | {reason} |",
        f"| 12 | derivatives/freesurfer/sub-*/surf/ | {reason} |",
        f"| 1 | derivatives/freesurfer/sub-*/stats/ | {reason} |",
    ]
    assert "exclude: 'nothing' matches none" in text and "There is no participants.tsv" in text


def test_the_form_explains_both_fields_and_the_nightly_takes_them() -> None:
    schema: dict[str, Any] = parameter_schema(push_bids).model_dump()
    (nightly,) = (
        one["parameters"]
        for one in yaml.safe_load((Path(__file__).parent.parent / "prefect.yaml").read_text())["deployments"]
        if one["name"] == "nightly"
    )
    for field in ("exclude", "include"):
        asked = schema["properties"][field]
        assert asked["type"] == "array" and asked["default"] == [] and len(asked["description"]) > 100
        assert not validate({**nightly, field: ["sub-07/", "!*_T2w.nii.gz"]}, schema)
