"""Load: every image of a BIDS tree, with what describes it, or an error that says what to do."""

import json
import os
import re
import subprocess
import sys
import unicodedata
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.load import (
    EmptyDataset,
    IncompleteIndex,
    NotABidsDataset,
    UnreadableFolder,
    UnreadableSidecar,
    UnreadableTable,
    load,
)
from tasks.load.annex import file_facts
from tasks.values.kinds import counted
from tasks.values.models import ENTITIES, Dataset
from tests import bids_examples as bids
from tests.bids_examples import IMAGE, Image, Link

KEY = "SHA256E-s4321--" + "a" * 64 + ".nii.gz"


def by_path(dataset: Dataset) -> dict[str, Any]:
    return {image.path: image for image in dataset.images}


def only_image(dataset: Dataset) -> Any:
    (image,) = dataset.images
    return image


def metadata_of(dataset: Dataset, path: str) -> object:
    text = next(image for image in dataset.images if image.path == path).metadata
    return None if text is None else json.loads(text)


# --- which images there are, and what their names say ---


def test_raw_images_and_those_of_derivatives_are_rows_with_their_entities(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))

    found = [(i.dataset, i.sub, i.ses, i.datatype, i.suffix, dict(i.entities)) for i in dataset.images]
    assert found == [
        ("masks", "01", "a", "anat", "mask", {"desc": "lesion"}),
        ("raw", "01", "a", "anat", "T1w", {}),
        ("raw", "01", "a", "func", "bold", {"task": "rest"}),
        ("raw", "01", "b", "anat", "T1w", {}),
        ("raw", "02", None, "anat", "T1w", {}),
    ]
    assert [image.path for image in dataset.images] == sorted(image.path for image in dataset.images)


def test_size_times_and_inode_are_those_of_the_file(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path)
    image = only_image(load(root))

    stat = (root / "sub-01/anat/sub-01_T1w.nii.gz").stat()
    assert (image.size, image.mtime_ns) == (stat.st_size, stat.st_mtime_ns)
    assert (image.ctime_ns, image.inode) == (stat.st_ctime_ns, stat.st_ino)


def test_run_01_stays_the_word_01(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"sub-02/func/sub-02_task-x_run-01_echo-2_bold.nii.gz": IMAGE})

    bold = next(image for image in load(root).images if image.suffix == "bold")
    assert bold.entities == {"task": "x", "run": "01", "echo": "2"}


def test_an_entity_that_has_no_column_is_kept_apart(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"sub-02/anat/sub-02_acq-a_site-north_T1w.nii.gz": IMAGE})

    image = next(image for image in load(root).images if image.sub == "02")
    assert (image.entities, image.extra_entities) == ({"acq": "a"}, {"site": "north"})
    assert "site" not in ENTITIES


def test_a_stray_word_in_a_name_does_not_make_two_images_share_a_sidecar(tmp_path: Path) -> None:
    root = bids.write(
        tmp_path,
        {
            "dataset_description.json": bids.description(),
            "sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
            "derivatives/m/sub-01/anat/sub-01_T1w_desc-lesion_mask.nii.gz": IMAGE,
            "derivatives/m/sub-01/anat/sub-01_T1w_desc-lesion_mask.json": {"on": "T1w"},
            "derivatives/m/sub-01/anat/sub-01_T2w_desc-lesion_mask.nii.gz": IMAGE,
            "derivatives/m/sub-01/anat/sub-01_T2w_desc-lesion_mask.json": {"on": "T2w"},
        },
    )
    dataset = load(root)

    assert metadata_of(dataset, "derivatives/m/sub-01/anat/sub-01_T1w_desc-lesion_mask.nii.gz") == {"on": "T1w"}
    assert metadata_of(dataset, "derivatives/m/sub-01/anat/sub-01_T2w_desc-lesion_mask.nii.gz") == {"on": "T2w"}


@pytest.mark.parametrize("name", ["ds004884-1.0.2", "we[ird] dir", ".hidden", "a{b}*?", "sub-01", "derivatives", "ü"])
def test_the_name_of_the_datasets_folder_does_not_matter(tmp_path: Path, name: str) -> None:
    assert len(load(bids.two_sessions(tmp_path / name)).images) == 5


def test_a_dataset_can_be_loaded_from_within_as_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(bids.two_sessions(tmp_path))

    assert len(load(Path()).images) == 5


def test_the_same_tree_in_another_folder_gives_the_same_images(tmp_path: Path) -> None:
    here, there = load(bids.two_sessions(tmp_path / "a")), load(bids.two_sessions(tmp_path / "b.c"))

    assert [(i.path, i.size, i.metadata, i.dataset) for i in here.images] == [
        (i.path, i.size, i.metadata, i.dataset) for i in there.images
    ]


def test_a_session_that_only_the_folder_names_is_taken_from_there(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"sub-02/ses-x/anat/sub-02_T1w.nii.gz": IMAGE})

    assert [image.ses for image in load(root).images] == [None, "x"]


# --- derivatives and nested datasets ---


def test_derivatives_are_named_for_their_folder_described_or_not(tmp_path: Path) -> None:
    image = "sub-01/anat/sub-01_desc-a_T1w.nii.gz"
    root = bids.one_subject(
        tmp_path,
        {
            f"derivatives/plain/{image}": IMAGE,
            f"derivatives/described-1.2/{image}": IMAGE,
            "derivatives/described-1.2/dataset_description.json": bids.description(DatasetType="derivative"),
            f"derivatives/group of them/inner/{image}": IMAGE,
            f"derivatives/plain/derivatives/second/{image}": IMAGE,
            f"derivatives/raw/{image}": IMAGE,
            "derivatives/sub-01/anat/sub-01_desc-b_T1w.nii.gz": IMAGE,
        },
    )
    names = {i.path.removesuffix(image): i.dataset for i in load(root).images if i.path.startswith("derivatives")}

    assert names == {
        "derivatives/plain/": "plain",
        "derivatives/described-1.2/": "described-1.2",
        "derivatives/group of them/inner/": "group of them/inner",
        "derivatives/plain/derivatives/second/": "plain/second",
        "derivatives/raw/": "derivatives/raw",
        "derivatives/sub-01/anat/sub-01_desc-b_T1w.nii.gz": "derivatives",
    }


def test_a_sidecar_applies_within_its_own_dataset_only(tmp_path: Path) -> None:
    root = bids.one_subject(
        tmp_path,
        {
            "T1w.json": {"from": "raw"},
            "derivatives/a/sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
            "derivatives/b/T1w.json": {"from": "b"},
            "derivatives/b/sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
        },
    )
    dataset = load(root)

    assert metadata_of(dataset, "sub-01/anat/sub-01_T1w.nii.gz") == {"from": "raw"}
    assert metadata_of(dataset, "derivatives/a/sub-01/anat/sub-01_T1w.nii.gz") is None
    assert metadata_of(dataset, "derivatives/b/sub-01/anat/sub-01_T1w.nii.gz") == {"from": "b"}


def test_a_derivatives_images_carry_the_raw_datasets_participants_and_sessions(tmp_path: Path) -> None:
    mask = next(image for image in load(bids.two_sessions(tmp_path)).images if image.suffix == "mask")

    assert json.loads(mask.participant or "") == {"participant_id": "sub-01", "age": "34", "group": "None"}
    assert json.loads(mask.session or "") == {"session_id": "ses-a", "acq_time": "1877-01-01"}


def test_templates_and_group_results_of_derivatives_are_nobodys(tmp_path: Path) -> None:
    root = bids.one_subject(
        tmp_path,
        {
            "derivatives/t/tpl-A/anat/tpl-A_res-1_T1w.nii.gz": IMAGE,
            "derivatives/t/group/task-rest_desc-mean_bold.nii.gz": IMAGE,
        },
    )
    found = [(i.sub, i.suffix, dict(i.entities)) for i in load(root).images if i.dataset == "t"]
    assert found == [(None, "bold", {"task": "rest", "desc": "mean"}), (None, "T1w", {"tpl": "A", "res": "1"})]


def test_a_derivative_dataset_can_be_pushed_on_its_own(tmp_path: Path) -> None:
    files = {
        "dataset_description.json": bids.description(Name="fMRIPrep", DatasetType="derivative"),
        "sub-01/func/sub-01_task-x_desc-preproc_bold.nii.gz": IMAGE,
        "group/desc-mean_T1w.nii.gz": IMAGE,
    }
    assert {image.dataset for image in load(bids.write(tmp_path, files)).images} == {"fMRIPrep"}
    assert len(load(tmp_path).images) == 2


def test_a_dataset_nested_in_another_is_loaded_with_its_own_participants(tmp_path: Path) -> None:
    root = bids.one_subject(
        tmp_path,
        {
            "participants.tsv": [["participant_id", "age"], ["sub-01", "1"]],
            "pilot/dataset_description.json": bids.description(),
            "pilot/participants.tsv": [["participant_id", "age"], ["sub-01", "2"]],
            "pilot/sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
        },
    )
    ages = {image.dataset: json.loads(image.participant or "")["age"] for image in load(root).images}
    assert ages == {"raw": "1", "pilot": "2"}


def test_linked_folders_are_followed_and_loops_are_not(tmp_path: Path) -> None:
    elsewhere = bids.write(tmp_path / "elsewhere", {"sub-01/anat/sub-01_desc-a_T1w.nii.gz": IMAGE})
    root = bids.one_subject(tmp_path / "ds", {"sub-01/again": Link("../.."), "sub-01/self": Link("self")})
    (root / "derivatives").mkdir()
    (root / "derivatives/linked").symlink_to(elsewhere)
    dataset = load(root)

    assert [image.dataset for image in dataset.images] == ["linked", "raw"]
    assert dataset.left_out["links to a folder above them"] == 1


# --- what is not a row is counted ---


def test_images_that_bids_does_not_name_are_counted_with_the_reason(tmp_path: Path) -> None:
    dataset = load(
        bids.one_subject(
            tmp_path,
            {
                "sub-01/anat/foo.nii.gz": IMAGE,
                "sub-01/anat/sub-01_T1w.v2.nii.gz": IMAGE,
                "sub-01/anat/sub-01_T1W.NII.GZ": IMAGE,
                "rejected/sub-01_T1w.nii.gz": IMAGE,
                "sub-01/anat/sub-02_T1w.nii.gz": IMAGE,
                "sub-01/ses-a/anat/sub-01_ses-b_T1w.nii.gz": IMAGE,
            },
        )
    )
    assert [image.path for image in dataset.images] == ["sub-01/anat/sub-01_T1w.nii.gz"]
    assert dataset.left_out == {
        "images without a BIDS name": 3,
        "images outside the subjects' folders of a raw dataset": 1,
        "images whose name and folder contradict each other": 2,
    }


def test_what_is_no_row_is_counted_by_kind(tmp_path: Path) -> None:
    dataset = load(
        bids.one_subject(
            tmp_path,
            {
                "sub-01/eeg/eeg.json": {},
                "sub-01/eeg/channels.tsv": "name\n",
                "sub-01/eeg/foo_eeg.edf": b"\0",
                "sub-01/anat/lh.pial.surf.gii": "<GIFTI/>",
                "sub-01/func/sub-01_desc-report_bold.html": "<html>",
                "sub-01/meg/sub-02_task-x_meg.ds/a.meg4": b"\0",
                "sub-01/meg/sub-02_task-x_meg.ds/b.res4": b"\0",
                "sub-01/anat/notes.pdf": b"%PDF",
                "sub-01/anat/Makefile": "all:",
                "derivatives/freesurfer/sub-01/label/lh.BA1_exvivo.label": "#!ascii",
            },
        )
    )
    assert dataset.left_out == {
        "recordings without a BIDS name": 1,
        "*.json": 1,
        "*.tsv": 1,
        "*.gii": 1,
        "*_bold.html": 1,
        "recordings whose name and folder contradict each other": 2,
        "*.pdf": 1,
        "*.label": 1,
        "files without an extension": 1,
    }


# --- recordings ---


def test_a_recording_is_a_row_with_its_sidecars_and_tables(tmp_path: Path) -> None:
    eeg = "sub-01/ses-a/eeg/sub-01_ses-a"
    files: dict[str, object] = {
        f"{eeg}_task-rest_run-01_eeg.edf": b"0" * 300,
        "task-rest_eeg.json": {"EEGReference": "Cz"},
    }
    files |= {f"{eeg}_task-rest_run-01_eeg.json": {"PowerLineFrequency": 50}}
    files |= {f"{eeg}_task-rest_run-01_channels.tsv": [["name", "type"], ["Fz", "EEG"]]}
    files |= {f"{eeg}_task-rest_run-01_events.tsv": [["onset", "duration"], ["1", "0"]]}
    files |= {f"{eeg}_space-CapTrak_electrodes.tsv": [["name", "x"], ["Fz", "1"]]}
    files |= {f"{eeg}_space-CapTrak_coordsystem.json": {"EEGCoordinateUnits": "mm"}}
    files |= {"participants.tsv": [["participant_id", "age"], ["sub-01", "30"]]}
    files |= {"sub-01/ses-a/sub-01_ses-a_scans.tsv": [["filename", "operator"], ["eeg/x.edf", "n/a"]]}
    dataset = load(bids.one_subject(tmp_path, files))
    row = by_path(dataset)[f"{eeg}_task-rest_run-01_eeg.edf"]

    assert (row.kind, row.sub, row.ses, row.datatype, row.suffix, row.size) == (
        "recording", "01", "a", "eeg", "eeg", 300,
    )  # fmt: skip
    assert row.entities == {"task": "rest", "run": "01"}
    assert json.loads(row.metadata) == {"EEGReference": "Cz", "PowerLineFrequency": 50}
    assert row.channels == "name\ttype\nFz\tEEG\n" and row.events == "onset\tduration\n1\t0\n"
    assert row.electrodes == "name\tx\nFz\t1\n" and json.loads(row.coordsystem) == {"EEGCoordinateUnits": "mm"}
    assert json.loads(row.participant) == {"participant_id": "sub-01", "age": "30"}
    assert dataset.left_out == {} and dataset.notes == ()


def test_electrodes_in_two_spaces_are_no_column_and_that_is_noted(tmp_path: Path) -> None:
    ieeg = "sub-01/ieeg/sub-01"
    files: dict[str, object] = {f"{ieeg}_task-x_ieeg.edf": b"0"}
    files |= {f"{ieeg}_space-{space}_electrodes.tsv": [["name"], [space]] for space in ("ACPC", "MNI")}
    dataset = load(bids.one_subject(tmp_path, files))

    assert by_path(dataset)[f"{ieeg}_task-x_ieeg.edf"].electrodes is None
    assert any(
        "space-ACPC_electrodes.tsv and" in note and "their column is empty there" in note for note in dataset.notes
    )
    assert {file.path for file in dataset.files} == {
        f"{ieeg}_space-{space}_electrodes.tsv" for space in ("ACPC", "MNI")
    }


def test_of_electrodes_in_a_space_and_in_none_those_in_none_are_the_column(tmp_path: Path) -> None:
    ieeg = "sub-01/ieeg/sub-01"
    files: dict[str, object] = {f"{ieeg}_task-x_ieeg.edf": b"0", f"{ieeg}_electrodes.tsv": [["name"], ["own"]]}
    files |= {f"{ieeg}_space-MNI_electrodes.tsv": [["name"], ["MNI"]]}

    assert by_path(load(bids.one_subject(tmp_path, files)))[f"{ieeg}_task-x_ieeg.edf"].electrodes == "name\nown\n"


def test_physiology_beside_eeg_has_not_the_channels_of_the_eeg(tmp_path: Path) -> None:
    eeg = "sub-01/eeg/sub-01_task-x"
    files: dict[str, object] = {f"{eeg}_eeg.edf": b"0", f"{eeg}_physio.tsv.gz": b"1"}
    rows = by_path(load(bids.one_subject(tmp_path, files | {f"{eeg}_channels.tsv": [["name"], ["Cz"]]})))

    assert (rows[f"{eeg}_eeg.edf"].channels, rows[f"{eeg}_physio.tsv.gz"].channels) == ("name\nCz\n", None)


def test_perfusion_and_pet_images_have_their_tables(tmp_path: Path) -> None:
    files: dict[str, object] = {"sub-01/perf/sub-01_asl.nii.gz": IMAGE, "sub-01/pet/sub-01_pet.nii.gz": IMAGE}
    files |= {"sub-01/perf/sub-01_aslcontext.tsv": [["volume_type"], ["control"]]}
    files |= {"sub-01/pet/sub-01_recording-manual_blood.tsv": [["time"], ["0"]]}
    rows = by_path(load(bids.one_subject(tmp_path, files)))

    assert rows["sub-01/perf/sub-01_asl.nii.gz"].aslcontext == "volume_type\ncontrol\n"
    assert rows["sub-01/pet/sub-01_pet.nii.gz"].blood == "time\n0\n"
    assert rows["sub-01/anat/sub-01_T1w.nii.gz"].aslcontext is rows["sub-01/anat/sub-01_T1w.nii.gz"].blood is None


def test_a_recording_that_is_a_folder_has_a_row_a_file_and_is_described_in_the_first(tmp_path: Path) -> None:
    top = "sub-01/meg/sub-01_task-x_meg.ds"
    files: dict[str, object] = {f"{top}/{name}": name.encode() for name in ("BadChannels", "x.meg4", "hz.ds/y.res4")}
    files |= {f"{top}/.lock": b"", f"{top}/sub-01_T1w.nii.gz": IMAGE, "sub-01/meg/sub-01_task-x_meg.json": {"a": 1}}
    files |= {"sub-01/sub-01_scans.tsv": [["filename", "quality"], ["meg/sub-01_task-x_meg.ds", "good"]]}
    dataset = load(bids.one_subject(tmp_path, files))
    rows = {path: row for path, row in by_path(dataset).items() if row.kind == "recording"}

    assert list(rows) == [f"{top}/{name}" for name in ("BadChannels", "hz.ds/y.res4", "sub-01_T1w.nii.gz", "x.meg4")]
    assert {(row.sub, row.datatype, row.suffix, row.entities["task"]) for row in rows.values()} == {
        ("01", "meg", "meg", "x")
    }
    first, *others = rows.values()
    assert json.loads(first.metadata) == {"a": 1} and json.loads(first.scan)["quality"] == "good"
    assert {(row.metadata, row.scan, row.participant) for row in others} == {(None, None, None)}
    assert [row.size for row in rows.values()] == [(tmp_path / path).stat().st_size for path in rows]


def test_a_file_of_a_recordings_folder_is_counted_with_the_recordings_whatever_its_name_is() -> None:
    top = "sub-01/meg/sub-01_task-x_meg.ds"
    assert counted([f"{top}/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.nii.gz"]) == "1 image and 1 file of recordings"


def test_what_says_what_the_arrays_of_a_zarr_are_is_a_row_although_it_is_hidden(tmp_path: Path) -> None:
    top = "sub-01/micr/sub-01_sample-A_SPIM.ome.zarr"
    files: dict[str, object] = {f"{top}/{name}": name.encode() for name in (".zattrs", ".zgroup", "0/.zarray", "0/0.0")}
    dataset = load(bids.one_subject(tmp_path, files | {f"{top}/.DS_Store": b"", "sub-01/micr/.zattrs": b""}))

    assert {path for path, row in by_path(dataset).items() if row.kind == "recording"} == files.keys()
    assert dataset.left_out == {"hidden files and folders, such as .git": 2}


def test_empty_files_are_told_before_anything_is_staged_but_for_those_of_a_recordings_folder(tmp_path: Path) -> None:
    meg = "sub-01/meg/sub-01_task-x_meg.ds"
    files: dict[str, object] = {"sub-01/eeg/sub-01_eeg.edf": b"", f"{meg}/BadChannels": b"", f"{meg}/a.meg4": b"1"}
    (sentence,) = load(bids.one_subject(tmp_path, files)).told

    assert "shards they are in fail: 1 file (sub-01/eeg/sub-01_eeg.edf)" in sentence


def test_a_dataset_of_recordings_alone_is_loaded(tmp_path: Path) -> None:
    files: dict[str, object] = {
        "dataset_description.json": bids.description(),
        "sub-01/eeg/sub-01_task-x_eeg.bdf": b"1",
    }
    assert [row.path for row in load(bids.write(tmp_path, files)).images] == ["sub-01/eeg/sub-01_task-x_eeg.bdf"]


def test_an_excluded_file_of_a_recordings_folder_is_left_out(tmp_path: Path) -> None:
    top = "sub-01/meg/sub-01_task-x_meg.ds"
    dataset = load(bids.one_subject(tmp_path, {f"{top}/a.meg4": b"1", f"{top}/b.bak": b"2"}), exclude=["*.bak"])

    assert f"{top}/a.meg4" in by_path(dataset) and f"{top}/b.bak" not in by_path(dataset)
    assert dataset.left_out == {"named by `exclude`": 1}


def test_a_recording_that_comes_while_the_tree_is_indexed_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = bids.one_subject(tmp_path, {"sub-01/eeg/sub-01_eeg.edf": b"1"})

    def read(path: str, was_read: bool) -> Any:
        (root / "sub-01/eeg/sub-01_task-new_eeg.edf").write_bytes(b"2")
        return file_facts(path, was_read)

    monkeypatch.setattr("tasks.load.file_facts", read)
    with pytest.raises(IncompleteIndex, match=r"sub-01_task-new_eeg\.edf: new"):
        load(root)


# --- what is left out ---


def test_folders_outside_the_dataset_proper_are_counted_and_not_indexed(tmp_path: Path) -> None:
    image = "sub-01/anat/sub-01_T1w.nii.gz"
    dataset = load(
        bids.one_subject(
            tmp_path,
            {f"sourcedata/{image}": IMAGE, "sourcedata/dicom/1.dcm": b"", "code/run.py": "", "stimuli/a.png": b""}
            | {f".git/annex/{image}": IMAGE, f".datalad/{image}": IMAGE, "sub-01/.DS_Store": b""},
        )
    )
    assert [i.path for i in dataset.images] == [image]
    assert dataset.left_out == {
        "in sourcedata/": 2,
        "in stimuli/": 1,
        "hidden files and folders, such as .git": 3,
    }


def test_what_bidsignore_names_is_published_and_told_by_the_rules_of_gitignore_from_its_own_root(
    tmp_path: Path,
) -> None:
    dataset = load(
        bids.one_subject(
            tmp_path,
            {
                ".bidsignore": "# a comment\n*_T2w.nii.gz\n!sub-03_T2w.nii.gz\n/extra_data/\nsub-0[4-5]/**\n/README\n",
                "README": "A README.",
                "sub-02/anat/sub-02_T2w.nii.gz": IMAGE,
                "sub-03/anat/sub-03_T2w.nii.gz": IMAGE,
                "sub-04/anat/sub-04_T1w.nii.gz": IMAGE,
                "extra_data/table.tsv": "a\n",
                "derivatives/d/.bidsignore": "/sub-01/\n",
                "derivatives/d/sub-01/anat/sub-01_T1w.nii.gz": IMAGE,
                "derivatives/d/sub-02/anat/sub-02_T1w.nii.gz": IMAGE,
            },
        )
    )
    assert len(dataset.images) == 6 and "README" in dataset.texts
    (note,) = [note for note in dataset.notes if "bidsignore" in note]
    assert "3 images and 1 other file (derivatives/d/sub-01/anat/sub-01_T1w.nii.gz, sub-02/anat/sub-02_T2w" in note
    assert dataset.left_out == {"*.tsv": 1}
    assert {".bidsignore", "derivatives/d/.bidsignore"} <= dataset.texts.keys()


@pytest.mark.parametrize(
    "content", [Link(f".git/annex/objects/a/b/{KEY}/{KEY}"), f"/annex/objects/{KEY}\n", b"\0", "[z-a]*\n"]
)
def test_a_bidsignore_that_cannot_be_read_is_noted(tmp_path: Path, content: object) -> None:
    dataset = load(bids.one_subject(tmp_path, {".bidsignore": content}))
    assert len(dataset.images) == 1
    assert any(note.startswith(".bidsignore cannot be read (") for note in dataset.notes)


def test_a_broken_sidecar_that_bidsignore_names_costs_its_own_metadata_and_is_listed(tmp_path: Path) -> None:
    names: dict[str, object] = {
        "sub-01/anat/sub-01_T1w.json": "{} {}",
        "T1w.json": {"EchoTime": 3},
        "sub-01/dwi/sub-01_dwi.bval": b"\0\1\2",
    }
    names |= {"sub-01/dwi/sub-01_dwi.nii.gz": IMAGE, ".bidsignore": "sub-01_T1w.json\n*.bval\n"}
    dataset = load(bids.one_subject(tmp_path, names))

    assert [image.metadata for image in dataset.images if image.suffix == "T1w"] == ['{"EchoTime": 3}']
    assert [image.bval for image in dataset.images if image.suffix == "dwi"] == [None]
    assert {one.path for one in dataset.unpublished if one.reason == "it cannot be read"} == {
        "sub-01/anat/sub-01_T1w.json",
        "sub-01/dwi/sub-01_dwi.bval",
    }
    assert any("2 (sub-01/anat/sub-01_T1w.json, sub-01/dwi/" in note for note in dataset.notes)


def test_a_name_that_is_not_utf8_is_counted(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path)
    os.close(os.open(os.fsencode(root) + b"/sub-01/anat/sub-01_acq-\xff_T1w.nii.gz", os.O_CREAT))

    dataset = load(root)
    assert (len(dataset.images), dataset.left_out) == (1, {"names that are not UTF-8": 1})


def test_pipes_are_counted_and_never_opened(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path)
    os.mkfifo(root / "README")
    os.mkfifo(root / "sub-01/anat/sub-01_T2w.nii.gz")

    (root / "CHANGES").symlink_to("README")

    assert load(root).left_out == {"pipes, sockets and devices": 3}


def test_a_folder_named_like_an_image_is_none(tmp_path: Path) -> None:
    dataset = load(bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T2w.nii.gz/sub-01_T2w.mgz": b""}))

    assert (len(dataset.images), dataset.left_out) == (1, {"*_T2w.mgz": 1})


def test_every_file_of_the_tree_is_an_image_or_metadata_or_a_text_or_counted(tmp_path: Path) -> None:
    root = bids.two_sessions(tmp_path)
    bids.write(root, {"sub-01/ses-a/eeg/sub-01_ses-a_eeg.edf": b"", "notes.docx": b"", "sub-02/foo.nii": IMAGE})
    dataset = load(root)

    files = sum(path.is_file() for path in root.rglob("*"))
    metadata = 3 + 2  # JSON beside images; the sessions and the scans table
    assert files == len(dataset.images) + metadata + len(dataset.texts) + sum(dataset.left_out.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("(root / 'sub-01/anat/sub-01_T2w.nii.gz').touch()", "sub-01/anat/sub-01_T2w.nii.gz: new"),
        ("(root / 'sub-02/anat/sub-02_T1w.nii.gz').unlink()", "sub-02/anat/sub-02_T1w.nii.gz: gone"),
        ("shutil.rmtree(root / 'sub-02')", "sub-02/anat/sub-02_T1w.nii.gz: gone"),
    ],
)
@pytest.mark.slow
def test_a_tree_that_changes_while_it_is_read_is_an_error_with_the_names(
    tmp_path: Path, change: str, said: str
) -> None:
    bids.one_subject(tmp_path, {"T1w.json": {}, "sub-02/anat/sub-02_T1w.nii.gz": IMAGE})
    script = f"""
import shutil, sys
from pathlib import Path
from tasks.load import IncompleteIndex, load
root, changed = Path(sys.argv[1]), []
def someone_else(event, args):
    if event == "open" and str(args[0]).endswith("T1w.json") and not changed:
        changed.append(True)
        {change}
sys.addaudithook(someone_else)
try:
    load(root)
except IncompleteIndex as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert said in done.stdout


# --- git-annex and DataLad ---


def test_an_unfetched_locked_image_is_loaded_with_the_key_and_its_size(tmp_path: Path) -> None:
    root = bids.one_subject(
        tmp_path, {"sub-02/anat/sub-02_T1w.nii.gz": Link(f"../../.git/annex/objects/Xm/2z/{KEY}/{KEY}")}
    )
    dataset = load(root)

    image = dataset.images[1]
    assert (image.annex_key, image.size) == (KEY, 4321)
    assert [one.fetched for one in dataset.images] == [True, False]
    assert not [note for note in dataset.notes if "annex" in note]  # that is for who publishes, and not for the card


def test_a_fetched_locked_image_has_its_key_and_the_size_of_the_content(tmp_path: Path) -> None:
    content = bids.nifti(IMAGE, compressed=True)
    root = bids.one_subject(
        tmp_path,
        {
            f".git/annex/objects/Xm/2z/{KEY}/{KEY}": content,
            "sub-02/anat/sub-02_T1w.nii.gz": Link(f"../../.git/annex/objects/Xm/2z/{KEY}/{KEY}"),
        },
    )
    image = load(root).images[1]
    stat = (root / f".git/annex/objects/Xm/2z/{KEY}/{KEY}").stat()
    assert (image.annex_key, image.size, image.mtime_ns) == (KEY, len(content), stat.st_mtime_ns)
    assert (image.ctime_ns, image.inode) == (stat.st_ctime_ns, stat.st_ino)  # of the content, not of the link


@pytest.mark.parametrize(
    ("key", "size"),
    [
        (KEY, 4321),
        ("MD5E-s7--d41d8cd98f00b204e9800998ecf8427e.nii.gz", 7),
        ("WORM-s12-m1400000000--sub-01_T1w.nii.gz", 12),
        ("URL--http&c%%example.org%a--b.nii.gz", 0),
    ],
)
def test_an_unlocked_pointer_file_is_known_as_unfetched(tmp_path: Path, key: Any, size: int) -> None:
    root = bids.one_subject(tmp_path, {"sub-02/anat/sub-02_T1w.nii.gz": f"/annex/objects/{key}\n"})

    image = load(root).images[1]
    assert (image.annex_key, image.size) == (key, size)


def test_a_pointer_of_git_lfs_is_known_as_unfetched_with_the_size_of_its_content(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4321\n"
    dataset = load(bids.one_subject(tmp_path, {"sub-02/anat/sub-02_T1w.nii.gz": pointer}))

    assert (dataset.images[1].annex_key, dataset.images[1].size) == (None, 4321)
    assert not dataset.images[1].fetched


def test_a_subdatasets_link_and_a_plain_link_are_told_apart(tmp_path: Path) -> None:
    elsewhere = bids.write(tmp_path, {"store/image.nii.gz": IMAGE})
    root = bids.one_subject(
        tmp_path / "ds",
        {
            "sub-02/anat/sub-02_T1w.nii.gz": Link(f"../../../.git/modules/ds/annex/objects/1/2/{KEY}/{KEY}"),
            "sub-03/anat/sub-03_T1w.nii.gz": Link(str(elsewhere / "store/image.nii.gz")),
            "sub-04/anat/sub-04_T1w.nii.gz": Link("nowhere.nii.gz"),
        },
    )
    found = [(image.annex_key, image.size) for image in load(root).images[1:]]
    assert found == [(KEY, 4321), (None, len(bids.nifti(IMAGE, True))), (None, 0)]


def test_an_unfetched_sidecar_is_an_error_that_says_how_to_fetch_it(tmp_path: Path) -> None:
    key = f".git/annex/objects/1/2/{KEY}/{KEY}"
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T1w.json": Link(f"../../{key}")})
    with pytest.raises(UnreadableSidecar, match=r"sub-01_T1w.json: not fetched .*datalad get"):
        load(root)

    unlocked = bids.one_subject(tmp_path / "b", {"T1w.json": f"/annex/objects/{KEY}\n"})
    with pytest.raises(UnreadableSidecar, match=r"T1w.json: not fetched .*datalad get"):
        load(unlocked)


def test_unfetched_participants_are_an_error_and_an_unfetched_readme_is_counted(tmp_path: Path) -> None:
    link = Link(f".git/annex/objects/1/2/{KEY}/{KEY}")
    dataset = load(bids.one_subject(tmp_path / "a", {"README": link, "CHANGES": f"/annex/objects/{KEY}\n"}))
    assert dataset.left_out == {"files without an extension": 2}

    with pytest.raises(UnreadableTable, match=r"participants.tsv is not fetched .*datalad get"):
        load(bids.one_subject(tmp_path / "b", {"participants.tsv": link}))


def test_a_text_that_git_lfs_has_not_fetched_is_never_taken_for_the_text_itself(tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 4321\n"
    dataset = load(bids.one_subject(tmp_path / "readme", {"README": pointer}))
    assert dataset.left_out == {"files without an extension": 1}
    assert "README" not in dataset.texts

    for number, (name, error) in enumerate({
        "participants.tsv": UnreadableTable,
        "T1w.json": UnreadableSidecar,
        "dataset_description.json": UnreadableSidecar,
    }.items()):  # fmt: skip
        with pytest.raises(error, match=rf"{re.escape(name)}.*not fetched from git LFS: run `git lfs pull`"):
            load(bids.one_subject(tmp_path / str(number), {name: pointer}))


# --- the inheritance principle ---


def test_all_levels_are_merged_and_the_nearest_wins(tmp_path: Path) -> None:
    dataset = load(
        bids.write(
            tmp_path,
            {
                "dataset_description.json": bids.description(),
                "bold.json": {"a": 1, "b": 1, "c": 1, "d": 1},
                "sub-01/sub-01_bold.json": {"b": 2, "c": 2, "d": 2},
                "sub-01/ses-x/sub-01_ses-x_task-t_bold.json": {"c": 3, "d": 3},
                "sub-01/ses-x/func/sub-01_ses-x_task-t_run-1_bold.nii.gz": IMAGE,
                "sub-01/ses-x/func/sub-01_ses-x_task-t_run-1_bold.json": {"d": 4},
            },
        )
    )
    assert only_image(dataset).metadata == '{"a": 1, "b": 2, "c": 3, "d": 4}'


def test_a_sidecar_with_another_suffix_or_an_entity_the_image_lacks_does_not_apply(tmp_path: Path) -> None:
    root = bids.one_subject(
        tmp_path,
        {
            "T2w.json": {"wrong": "suffix"},
            "acq-a_T1w.json": {"wrong": "entity"},
            "sub-02_T1w.json": {"wrong": "subject"},
            "sub-01/sub-01_T1w.json": {"right": True},
        },
    )
    assert metadata_of(load(root), "sub-01/anat/sub-01_T1w.nii.gz") == {"right": True}


def test_of_tables_the_nearest_counts_alone(tmp_path: Path) -> None:
    root = bids.one_subject(
        tmp_path,
        {
            "dwi.bval": "0 1000\n",
            "dwi.bvec": "0 1\n0 0\n0 0\n",
            "sub-01/dwi/sub-01_dwi.nii.gz": IMAGE,
            "sub-01/dwi/sub-01_dwi.bval": "0 2000\n",
            "task-t_events.tsv": "onset\tduration\n1\t2\n",
            "task-t_events.json": {"onset": {"Units": "s"}, "x": 1},
            "sub-01/func/sub-01_task-t_run-1_bold.nii.gz": IMAGE,
            "sub-01/func/sub-01_task-t_run-2_bold.nii.gz": IMAGE,
            "sub-01/func/sub-01_task-t_run-2_events.tsv": "onset\tduration\n",
            "sub-01/func/sub-01_task-t_run-2_events.json": {"x": 2},
            "sub-01/func/sub-01_task-t_run-1_sbref.nii.gz": IMAGE,
        },
    )
    images = by_path(load(root))
    dwi = images["sub-01/dwi/sub-01_dwi.nii.gz"]
    assert (dwi.bval, dwi.bvec) == ("0 2000\n", "0 1\n0 0\n0 0\n")
    first = images["sub-01/func/sub-01_task-t_run-1_bold.nii.gz"]
    assert first.events == "onset\tduration\n1\t2\n"
    assert json.loads(first.events_metadata) == {"onset": {"Units": "s"}, "x": 1}
    second = images["sub-01/func/sub-01_task-t_run-2_bold.nii.gz"]
    assert second.events == "onset\tduration\n"
    assert json.loads(second.events_metadata) == {"onset": {"Units": "s"}, "x": 2}
    assert images["sub-01/func/sub-01_task-t_run-1_sbref.nii.gz"].events is None
    assert images["sub-01/anat/sub-01_T1w.nii.gz"].bval is None


def test_of_two_sidecars_at_one_level_of_which_nobody_can_know_which_is_meant_neither_is_taken(tmp_path: Path) -> None:
    dataset = load(
        bids.one_subject(
            tmp_path,
            {
                "bold.json": {"top": True},
                "sub-01/func/sub-01_task-t_run-1_bold.nii.gz": IMAGE,
                "sub-01/func/sub-01_run-1_bold.json": {"a": 1},
                "sub-01/func/sub-01_task-t_bold.json": {"a": 2},
            },
        )
    )
    assert metadata_of(dataset, "sub-01/func/sub-01_task-t_run-1_bold.nii.gz") == {"top": True}
    (note,) = (note for note in dataset.notes if "nobody can know" in note)
    assert "sub-01/func/sub-01_run-1_bold.json and sub-01/func/sub-01_task-t_bold.json" in note


def test_of_sidecars_at_one_level_the_one_that_names_what_all_of_them_name_is_meant(tmp_path: Path) -> None:
    dataset = load(
        bids.one_subject(
            tmp_path,
            {
                "bold.json": {"of": "all"},
                "task-t_bold.json": {"of": "the task"},
                "task-t_rec-dico_bold.json": {"of": "the reconstruction"},
                "sub-01/func/sub-01_task-t_rec-dico_bold.nii.gz": IMAGE,
                "sub-01/func/sub-01_task-t_bold.nii.gz": IMAGE,
                "sub-01/func/sub-01_task-u_bold.nii.gz": IMAGE,
            },
        )
    )
    runs = "sub-01/func/sub-01_task-"
    assert metadata_of(dataset, f"{runs}t_rec-dico_bold.nii.gz") == {"of": "the reconstruction"}
    assert metadata_of(dataset, f"{runs}t_bold.nii.gz") == {"of": "the task"}
    assert metadata_of(dataset, f"{runs}u_bold.nii.gz") == {"of": "all"}


def test_of_two_sidecars_at_one_level_an_image_has_the_one_with_its_own_name(tmp_path: Path) -> None:
    dataset = load(
        bids.one_subject(
            tmp_path,
            {
                "T2w.json": {"of": "all", "top": True},
                "sub-01/anat/sub-01_T2w.json": {"of": "the subject"},
                "sub-01/anat/sub-01_run-3_T2w.json": {"of": "the run"},
                "sub-01/anat/sub-01_run-3_T2w.nii.gz": IMAGE,
                "sub-01/anat/sub-01_run-4_T2w.nii.gz": IMAGE,
            },
        )
    )
    assert metadata_of(dataset, "sub-01/anat/sub-01_run-3_T2w.nii.gz") == {"of": "the run", "top": True}
    assert metadata_of(dataset, "sub-01/anat/sub-01_run-4_T2w.nii.gz") == {"of": "the subject", "top": True}
    assert any(note.startswith("Sidecars that are not the only one at their level: 1.") for note in dataset.notes)


def test_an_fmriprep_image_has_the_sidecar_of_its_own_name_and_that_is_noted(tmp_path: Path) -> None:
    anat = "derivatives/fmriprep/sub-01/anat/sub-01_"
    dataset = load(
        bids.one_subject(
            tmp_path,
            {
                f"{anat}desc-preproc_T1w.nii.gz": IMAGE,
                f"{anat}desc-preproc_T1w.json": {"native": True},
                f"{anat}space-MNI_desc-preproc_T1w.nii.gz": IMAGE,
                f"{anat}space-MNI_desc-preproc_T1w.json": {"Resolution": 2},
            },
        )
    )
    assert metadata_of(dataset, f"{anat}space-MNI_desc-preproc_T1w.nii.gz") == {"Resolution": 2}
    assert metadata_of(dataset, f"{anat}desc-preproc_T1w.nii.gz") == {"native": True}
    assert any(note.startswith("Sidecars that are not the only one at their level: 1.") for note in dataset.notes)


def test_values_are_as_the_sidecar_has_them(tmp_path: Path) -> None:
    text = '{"b": 0.1, "a": [1, 2.0, 1e-05, 123456789012345678901], "n": null, "u": "\\u00e4\\ud800", "t": true}'
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T1w.json": text})

    metadata = only_image(load(root)).metadata
    assert json.loads(metadata) == json.loads(text)
    assert metadata.startswith('{"a": [1, 2.0, 1e-05, 123456789012345678901], "b": 0.1, "n": null')
    assert metadata.encode()  # valid Unicode, although the sidecar has half a character


def test_nan_and_infinity_become_words_so_that_every_reader_can_parse_the_metadata(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"T1w.json": '{"a": NaN, "b": [Infinity, -Infinity]}'})

    assert only_image(load(root)).metadata == '{"a": "NaN", "b": ["Infinity", "-Infinity"]}'


def test_where_a_key_is_written_does_not_change_the_metadata(tmp_path: Path) -> None:
    up = bids.one_subject(tmp_path / "a", {"T1w.json": {"z": 1}, "sub-01/anat/sub-01_T1w.json": {"a": 2}})
    down = bids.one_subject(tmp_path / "b", {"sub-01/anat/sub-01_T1w.json": {"z": 1, "a": 2}})

    assert only_image(load(up)).metadata == only_image(load(down)).metadata


# --- encodings ---


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be", "utf-32", "latin-1"])
def test_texts_are_read_in_the_encoding_they_have(tmp_path: Path, encoding: str) -> None:
    table = f"participant_id\tname\nsub-01\tJosé {'x' * 30}\n"
    root = bids.one_subject(
        tmp_path,
        {
            "participants.tsv": table.encode(encoding),
            "sub-01/anat/sub-01_T1w.json": f'{{"Site": "Jülich {"x" * 30}"}}'.encode(encoding),
        },
    )
    image = only_image(load(root))
    assert json.loads(image.participant or "") == {"participant_id": "sub-01", "name": f"José {'x' * 30}"}
    assert json.loads(image.metadata) == {"Site": f"Jülich {'x' * 30}"}


@pytest.mark.parametrize(("byte", "letter"), [(b"\x92", "’"), (b"\x81", "\x81")])
def test_latin_1_is_read_as_windows_writes_it_and_no_byte_of_it_is_refused(
    tmp_path: Path, byte: bytes, letter: str
) -> None:
    root = bids.one_subject(tmp_path, {"T1w.json": b'{"Site": "a' + byte + b'b"}'})

    assert json.loads(only_image(load(root)).metadata) == {"Site": f"a{letter}b"}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'{"a": 1,}', "not JSON"),
        (b"", "not JSON"),
        (b"[1]", "not a JSON object"),
        (b"\x00\x01\x02\x00\xff\x00\x00\x00\x00", "binary"),
        (b'\xff\xfe{\x00"', "utf-16"),
        (b'{"a": 1e999}', "too large"),
        (b'{"a": ' * 100_000, "nested more than 100 levels"),
        (b'{"a": ' * 100 + b"[1]" + b"}" * 100, "nested more than 100 levels"),
    ],
)
def test_a_sidecar_that_cannot_be_read_is_an_error_with_its_name(tmp_path: Path, content: bytes, reason: str) -> None:
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T1w.json": content})

    with pytest.raises(UnreadableSidecar, match=rf"(?s)sub-01/anat/sub-01_T1w\.json: .*{reason}"):
        load(root)


def test_a_sidecar_as_deep_as_may_be_is_read(tmp_path: Path) -> None:
    deep = b'{"a": ' * 99 + b"[1]" + b"}" * 99
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T1w.json": deep})

    assert json.loads(only_image(load(root)).metadata) == json.loads(deep)


def test_all_unreadable_sidecars_are_named_at_once(tmp_path: Path) -> None:
    files: dict[str, object] = {}
    for number in range(10, 24):
        files[f"sub-{number}/anat/sub-{number}_T1w.nii.gz"] = IMAGE
        files[f"sub-{number}/anat/sub-{number}_T1w.json"] = "{"
    with pytest.raises(UnreadableSidecar) as error:
        load(bids.one_subject(tmp_path, files))

    assert "14 sidecar(s)" in str(error.value)
    assert "sub-10_T1w.json" in str(error.value) and "... and 4 more" in str(error.value)


def test_a_broken_sidecar_that_applies_to_no_image_does_not_stop_loading(tmp_path: Path) -> None:
    dataset = load(bids.one_subject(tmp_path, {"sub-01/eeg/sub-01_eeg.json": "{"}))

    assert [(file.path, file.kind) for file in dataset.files] == [("sub-01/eeg/sub-01_eeg.json", "sidecar")]


# --- participants, sessions, scans, phenotype ---


def test_participants_are_read_without_guessing_types(tmp_path: Path) -> None:
    table = 'participant_id\tage\ttype\tcode\nsub-01\t034\tNone\tNA\nsub-02\tn/a\t""\t\nsub-03\t1.50\tnan\tTrue\n'
    dataset = load(bids.one_subject(tmp_path, {"participants.tsv": table}))

    assert [dict(row) for row in dataset.participants] == [
        {"participant_id": "sub-01", "age": "034", "type": "None", "code": "NA"},
        {"participant_id": "sub-02", "age": None, "type": '""', "code": ""},
        {"participant_id": "sub-03", "age": "1.50", "type": "nan", "code": "True"},
    ]
    assert only_image(dataset).participant == '{"participant_id": "sub-01", "age": "034", "type": "None", "code": "NA"}'


def test_missing_participants_are_noted_and_leave_the_column_empty(tmp_path: Path) -> None:
    dataset = load(bids.one_subject(tmp_path))

    assert only_image(dataset).participant is None
    assert dataset.notes == ("There is no participants.tsv: the column `participant` is empty.",)


def test_a_subject_without_a_row_is_noted(tmp_path: Path) -> None:
    table = [["participant_id", "age"], ["sub-01", "1"], ["sub-77", "2"]]
    files = {"participants.tsv": table, "sub-02/anat/sub-02_T1w.nii.gz": IMAGE}
    dataset = load(bids.one_subject(tmp_path, files))

    assert [image.participant is None for image in dataset.images] == [False, True]
    assert dataset.notes == ("participants.tsv has no row for 1 of 2 subjects: sub-02.",)


def test_windows_line_ends_short_rows_and_labels_without_sub_are_understood(tmp_path: Path) -> None:
    dataset = load(bids.one_subject(tmp_path, {"participants.tsv": "participant_id\tage\tsex\r\n01\t34\r\n\r\n"}))

    assert json.loads(only_image(dataset).participant) == {"participant_id": "01", "age": "34", "sex": None}


def test_the_tables_of_sessions_and_scans_reach_the_images_they_are_about(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))
    images = by_path(dataset)

    t1w = images["sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"]
    assert json.loads(t1w.session or "") == {"session_id": "ses-a", "acq_time": "1877-01-01"}
    assert json.loads(t1w.scan or "") == {"filename": "anat/sub-01_ses-a_T1w.nii.gz", "quality": "good"}
    assert json.loads(images["sub-01/ses-b/anat/sub-01_ses-b_T1w.nii"].session)["acq_time"] is None
    assert images["sub-01/ses-b/anat/sub-01_ses-b_T1w.nii"].scan is None
    assert [dict(row) for row in dataset.sessions] == [
        {"participant_id": "sub-01", "session_id": "ses-a", "acq_time": "1877-01-01"},
        {"participant_id": "sub-01", "session_id": "ses-b", "acq_time": None},
    ]


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("{0}\tage\n{1}\t1\t2\n", "line 2: 3 values for 2 columns"),
        ("{0}\tage\tage\n", "columns 2 and 3 have the same name"),
        ("id\tage\n{1}\t1\n", "has no column {0}, which BIDS requires"),
        ("{0}\tage\n{1}\t1\n{1}\t2\n", "has rows that differ for 1 of 1"),
        (b"\x00\x01\x02", "binary"),
    ],
)
@pytest.mark.parametrize(
    ("path", "key", "row", "column"),
    [
        ("participants.tsv", "participant_id", "sub-01", "participant"),
        ("sub-01/sub-01_sessions.tsv", "session_id", "ses-a", "session"),
        ("sub-01/ses-a/sub-01_ses-a_scans.tsv", "filename", "anat/sub-01_ses-a_T1w.nii.gz", "scan"),
    ],
)
def test_a_table_that_cannot_be_trusted_costs_its_own_join_and_is_noted(
    tmp_path: Path, path: str, key: str, row: str, column: str, table: bytes | str, reason: str
) -> None:
    root = bids.two_sessions(tmp_path)
    before = by_path(load(root))["sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"]
    bids.write(root, {path: table.format(key, row) if isinstance(table, str) else table})
    dataset = load(root)
    after = by_path(dataset)["sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"]

    assert getattr(before, column) is not None and getattr(after, column) is None
    assert replace(after, **{column: getattr(before, column)}) == before
    note = next(note for note in dataset.notes if path in note)
    assert reason.format(key) in note and f"column `{column}`" in note


def test_a_subject_with_a_row_a_visit_has_no_row_and_the_others_have_theirs(tmp_path: Path) -> None:
    table = "participant_id\tvisit\nsub-01\t1\nsub-01\t2\nsub-02\t1\nsub-02\t1\n"
    files = {"participants.tsv": table, "sub-02/anat/sub-02_T1w.nii.gz": IMAGE}
    dataset = load(bids.one_subject(tmp_path, files))

    assert [image.participant for image in dataset.images] == [None, '{"participant_id": "sub-02", "visit": "1"}']
    assert [row["visit"] for row in dataset.participants] == ["1", "2", "1", "1"]
    assert dataset.notes == (
        "participants.tsv has rows that differ for 1 of 2 (sub-01). Which of them is about an image cannot be known, "
        "so the column `participant` is empty there.",
    )


def test_the_datasets_own_texts_are_carried_byte_for_byte(tmp_path: Path) -> None:
    texts = {
        "README.md": "# Über\n".encode("utf-16"),
        "CHANGES": b"1.0\r\n",
        "LICENSE": b"CC0",
        "participants.tsv": b"participant_id\nsub-01\n",
        "participants.json": b"{}",
        "phenotype/wab.tsv": b"participant_id\twab\nsub-01\tNone\n",
        "phenotype/wab.json": b"{}",
        "derivatives/d/dataset_description.json": b'{"Name": "d", "BIDSVersion": "1.10.0"}',
    }
    others = {"poster.pdf": b"%PDF", "huge.tsv": b"x" * 5_000_001, "sub-01/README": b"", "binary.txt": b"\0\1\2"}
    dataset = load(bids.one_subject(tmp_path, texts | others))

    assert dataset.texts.keys() == texts.keys() | {"dataset_description.json"}
    assert {path: dataset.texts[path] for path in texts} == texts
    assert dataset.left_out == {"*.pdf": 1, "files without an extension": 1, "*.txt": 1}
    assert [(file.path, file.kind, file.sub) for file in dataset.files] == [("huge.tsv", "table", None)]


# --- what is no dataset ---


def test_a_path_that_is_not_there_or_is_a_file_is_no_dataset(tmp_path: Path) -> None:
    with pytest.raises(NotABidsDataset, match="does not exist"):
        load(tmp_path / "nowhere")
    (tmp_path / "file").touch()
    with pytest.raises(NotABidsDataset, match="is not a folder"):
        load(tmp_path / "file")


def test_a_folder_without_description_and_subjects_is_told_what_bids_needs(tmp_path: Path) -> None:
    with pytest.raises(NotABidsDataset, match="neither a dataset_description"):
        load(tmp_path)


def test_a_raw_dataset_without_description_is_told_the_least_that_will_do(tmp_path: Path) -> None:
    bids.write(tmp_path, {"sub-01/anat/sub-01_T1w.nii.gz": IMAGE})

    with pytest.raises(NotABidsDataset) as error:
        load(tmp_path)
    least = json.loads(re.search(r"\{.*?\}", str(error.value)).group())
    bids.write(tmp_path, {"dataset_description.json": least})
    assert len(load(tmp_path).images) == 1


def test_a_folder_of_datasets_is_told_to_push_one_of_them(tmp_path: Path) -> None:
    bids.one_subject(tmp_path / "first")
    bids.one_subject(tmp_path / "second")

    with pytest.raises(NotABidsDataset, match=r"(?s)push one of them.*first.*second"):
        load(tmp_path)


def test_a_dataset_of_tables_alone_is_loaded_and_noted_as_such(tmp_path: Path) -> None:
    table = "sub-01/beh/sub-01_task-stroop_beh.tsv"
    bids.write(tmp_path, {"dataset_description.json": bids.description(), table: b"trial\tspeed\n1\t2\n"})
    dataset = load(tmp_path)
    assert not dataset.images and [(file.path, file.kind, file.sub) for file in dataset.files] == [
        (table, "table", "01")
    ]
    assert any(note.startswith("There is neither an image nor a recording") for note in dataset.notes)


def test_a_derivative_of_sidecars_alone_is_loaded(tmp_path: Path) -> None:
    """As MRIQC's: its measures are JSON files."""
    description = {**bids.description(), "DatasetType": "derivative"}
    bids.write(tmp_path, {"dataset_description.json": description, "sub-01/anat/sub-01_T1w.json": {"cnr": 3.1}})
    assert [file.path for file in load(tmp_path).files] == ["sub-01/anat/sub-01_T1w.json"]


def test_a_dataset_without_an_image_or_a_recording_says_what_is_in_it(tmp_path: Path) -> None:
    bids.write(tmp_path, {"dataset_description.json": bids.description(), "sub-01/eeg/sub-01_eeg.json": b"{}"})

    (tmp_path / "poster.pdf").touch()
    says = r"(?s)without an image, a recording or a table.*\n  1 sidecar of files that are not here\n  1 \*\.pdf"
    with pytest.raises(EmptyDataset, match=says):
        load(tmp_path)


def test_sidecars_that_are_not_fetched_are_told_with_the_one_command_for_all_of_them(tmp_path: Path) -> None:
    link = Link("../../.git/annex/objects/a/b/MD5E-s9--c.tsv/MD5E-s9--c.tsv")
    files: dict[str, object] = {"sub-01/anat/sub-01_T1w.json": link}
    for sub in ("01", "02"):
        eeg = f"sub-{sub}/eeg/sub-{sub}_task-x"
        files |= {f"{eeg}_eeg.edf": b"1", f"{eeg}_events.tsv": link, f"{eeg}_channels.tsv": link}

    with pytest.raises(UnreadableSidecar, match=r"(?s)5 sidecar.*sub-01_task-x_events\.tsv: not fetched") as told:
        load(bids.one_subject(tmp_path, files))
    command = "git annex get --include='*_T1w.json' --or --include='*_channels.tsv' --or --include='*_events.tsv'"
    assert f"`{command}` fetches all" in str(told.value)


@pytest.mark.parametrize("content", ["{", "[]", b"\0\1\2", '{"Name": ' + "[" * 100_000])
def test_a_description_that_cannot_be_read_is_an_error(tmp_path: Path, content: bytes | str) -> None:
    with pytest.raises(UnreadableSidecar, match=r"dataset_description\.json"):
        load(bids.one_subject(tmp_path, {"dataset_description.json": content}))


def test_a_derivatives_broken_description_still_marks_its_root(tmp_path: Path) -> None:
    root = bids.one_subject(
        tmp_path, {"derivatives/d/dataset_description.json": "", "derivatives/d/sub-01/anat/sub-01_T1w.nii.gz": IMAGE}
    )
    assert [image.dataset for image in load(root).images] == ["d", "raw"]


def test_a_folder_that_cannot_be_listed_stops_the_load(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path)
    deep = root / "sub-01"
    while len(str(deep)) < os.pathconf(root, "PC_PATH_MAX") - 200:
        deep = deep / ("d" * 180)
    deep.mkdir(parents=True)
    inside = os.open(deep, os.O_RDONLY)
    try:
        for _ in range(2):  # deeper than a path can be written
            os.mkdir("d" * 180, dir_fd=inside)
            inside, outer = os.open("d" * 180, os.O_RDONLY, dir_fd=inside), inside
            os.close(outer)
    finally:
        os.close(inside)

    with pytest.raises(UnreadableFolder, match="cannot be listed"):
        load(root)


# --- a whole published dataset ---


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Dataset]:
    root = bids.ds004884(tmp_path_factory.mktemp("whole") / "ds004884-1.0.2")
    return root, load(root)


@pytest.mark.slow
def test_ds004884_is_loaded_whole(whole: tuple[Path, Dataset]) -> None:
    _, dataset = whole

    assert Counter((image.dataset, image.suffix) for image in dataset.images) == {
        ("raw", "T1w"): 447,
        ("raw", "T2w"): 441,
        ("raw", "FLAIR"): 235,
        ("raw", "bold"): 1402,
        ("raw", "dwi"): 2089,
        ("raw", "sbref"): 322,
        ("lesion_masks", "mask"): 228,
    }
    assert sum(image.events is not None for image in dataset.images) == 894
    assert sum(image.bval is not None and image.bvec is not None for image in dataset.images) == 2089
    assert (len({i.sub for i in dataset.images}), len({(i.sub, i.ses) for i in dataset.images})) == (230, 902)
    assert Counter(file.kind for file in dataset.files) == {"sidecar": 9342}
    assert (dataset.left_out, dataset.notes) == ({}, ())


@pytest.mark.slow
def test_every_participants_value_of_ds004884_is_as_in_the_table(whole: tuple[Path, Dataset]) -> None:
    root, dataset = whole
    table = {row["participant_id"]: row for row in bids.rows_of((root / "participants.tsv").read_text())}

    assert len(table) == len(dataset.participants) == 245
    for image in dataset.images:
        assert json.loads(image.participant or "") == table[f"sub-{image.sub}"]
    types = Counter(json.loads(image.participant or "")["wab_type"] for image in dataset.images)
    assert types["None"] > 0 and types[None] > 0


@pytest.mark.slow
def test_every_sidecar_of_ds004884_is_merged_as_the_principle_says(whole: tuple[Path, Dataset]) -> None:
    root, dataset = whole
    sidecars: dict[Path, list[tuple[set[str], str, dict[str, object]]]] = {}
    for path in root.rglob("*.json"):
        *entities, suffix = path.stem.split("_")
        sidecars.setdefault(path.parent, []).append((set(entities), suffix, json.loads(path.read_bytes())))

    for image in dataset.images:
        parts = image.path.split("/")
        top = root / "derivatives/lesion_masks" if parts[0] == "derivatives" else root
        *entities, suffix = parts[-1].removesuffix(".nii.gz").split("_")
        expected: dict[str, object] = {}
        folder, levels = (root / image.path).parent, []
        while folder != top.parent:
            levels.append(folder)
            folder = folder.parent
        for level in reversed(levels):
            for names, of_suffix, values in sidecars.get(level, []):
                if of_suffix == suffix and names <= set(entities):
                    expected |= values
        assert json.loads(image.metadata or "") == expected, image.path


@pytest.mark.slow
def test_bids2table_finds_the_same_images_in_ds004884(whole: tuple[Path, Dataset]) -> None:
    import bids2table

    root, dataset = whole
    plain_name = root.with_name("ds004884")  # bids2table gives no rows for a name with a dot
    root.rename(plain_name)
    try:
        found = set()
        for top in bids2table.find_bids_datasets(plain_name):
            for row in bids2table.index_dataset(top).select(["root", "path", "ext"]).to_pylist():
                if row["ext"] in (".nii", ".nii.gz"):
                    found.add(str((Path(row["root"]) / row["path"]).relative_to(plain_name)))
    finally:
        plain_name.rename(root)
    assert found == {image.path for image in dataset.images}


def test_a_name_in_composed_or_decomposed_letters_stays_as_it_is(tmp_path: Path) -> None:
    label = unicodedata.normalize("NFD", "é")
    root = bids.one_subject(tmp_path, {f"sub-{label}/anat/sub-{label}_T1w.nii.gz": Image(fill=2)})

    assert label in {image.sub for image in load(root).images}


@pytest.mark.parametrize("there", [False, True], ids=["a path that is not there", "an empty folder"])
def test_a_source_whose_disk_may_not_be_mounted_says_so(tmp_path: Path, there: bool) -> None:
    source = tmp_path / "My Data.v2"
    if there:
        source.mkdir()
    with pytest.raises(NotABidsDataset, match=r"My Data\.v2 .*If its disk is not mounted, mount it\."):
        load(source)
