"""Images and recordings without a name of BIDS: `include` brings them, and they are checked as all others are."""

from pathlib import Path

import pytest

from tasks.card.counts import PublishedRows
from tasks.card.front import front_matter
from tasks.disk.staging import Staging
from tasks.load import load
from tasks.plan import plan
from tasks.preflight import check, headers_of
from tasks.stage import stage
from tasks.values.kinds import kind_of
from tasks.values.models import Dataset, PublicationRecord
from tasks.values.preflight_rules import Statement
from tests import bids_examples as bids
from tests.bids_examples import IMAGE, Content

T1W = "sub-01/anat/sub-01_T1w.nii.gz"
EDF = b"0       " + b"X X X X".ljust(80) + b"Startdate 12-MAR-2019 X X X".ljust(80) + b"12.03.1910.00.00"
UNNAMED: dict[str, Content] = {
    "sub-01/anat/T1w copy.nii.gz": IMAGE,
    "sub-01/ses-a/anat/sub-01_ses-b_T1w.nii.gz": IMAGE,
    "rejected/sub-01_T1w.nii.gz": IMAGE,
    "group mean.nii": IMAGE,
    "sub-01/eeg/pilot_eeg.vhdr": b"Brain Vision",
    "sub-01/meg/sub-02_task-x_meg.ds/a.meg4": b"1",
}


def included(root: Path, files: dict[str, Content], include: tuple[str, ...] = ("*",)) -> Dataset:
    return load(bids.one_subject(root, files), include=include)


@pytest.mark.parametrize("path", UNNAMED)
def test_include_brings_an_image_or_a_recording_without_a_name_of_bids_with_nothing_joined_to_it(
    tmp_path: Path, path: str
) -> None:
    sidecars: dict[str, Content] = {"T1w.json": {"EchoTime": 1}, "meg.json": {"x": 1}, "eeg.json": {"x": 1}}
    assert path in {one.path for one in load(bids.one_subject(tmp_path, {path: UNNAMED[path]} | sidecars)).unpublished}

    dataset = load(tmp_path, include=[path])
    assert not dataset.unpublished and not dataset.told
    (row,) = [row for row in dataset.images if row.path == path]
    folders = path.split("/")[:-1]
    assert (row.sub, row.ses) == ("01" if "sub-01" in folders else None, "a" if "ses-a" in folders else None)
    assert (row.kind, row.datatype, row.suffix, row.metadata) == (kind_of(path), None, "", None)
    (shard,) = [spec.path for spec in plan(dataset, {}) if row in spec.images]
    assert shard.startswith("data/sub-01/" if row.sub else "data/group-raw/")


def test_only_the_files_of_a_recording_that_include_names_come(tmp_path: Path) -> None:
    folder = "sub-01/meg/sub-02_task-x_meg.ds"
    dataset = included(tmp_path, {f"{folder}/a.meg4": b"1", f"{folder}/b.res4": b"1"}, ("*.meg4",))
    assert [one.path for one in dataset.unpublished] == [f"{folder}/b.res4"]
    assert [row.path for row in dataset.images if row.path != T1W] == [f"{folder}/a.meg4"]


def test_readers_find_it_among_all_images_and_in_no_other_config(tmp_path: Path, staging: Staging) -> None:
    dataset = included(tmp_path, {"group mean.nii": IMAGE, "sub-01/anat/T1w copy.nii.gz": IMAGE})
    lines = [stage(spec, tmp_path, staging).line() for spec in plan(dataset, {})]
    configs = front_matter(dataset, PublishedRows.of(dataset, PublicationRecord().updated(lines)))["configs"]
    assert isinstance(configs, list)
    assert [config["config_name"] for config in configs] == ["default", "anat_T1w"]
    assert "filters" not in configs[0]


def test_its_header_is_looked_at_and_so_is_that_of_a_recording_by_its_format_alone(tmp_path: Path) -> None:
    named = bids.nifti(IMAGE, compressed=False)
    files: dict[str, Content] = {
        "scan.nii": named[:148] + b"Jane Doe".ljust(80, b"\0") + named[228:],
        "sub-01/eeg/night.edf": EDF.ljust(256),
        "sub-01/eeg/pilot_eeg.xyz": b"1",
    }
    dataset = included(tmp_path, files)
    found = {(one.rule, one.files) for one in headers_of(dataset.rows, tmp_path)}
    assert found == {
        ("header-text", ("scan.nii",)),
        ("recording-header", ("sub-01/eeg/night.edf",)),
        ("recording-unchecked", ("sub-01/eeg/pilot_eeg.xyz",)),
    }


@pytest.mark.parametrize("path", ["sub-01/anat/scan.nii.gz", "scan.nii.gz"])
def test_it_needs_the_statement_on_faces_whoever_it_is_of(tmp_path: Path, path: str) -> None:
    root = bids.write(tmp_path, {"dataset_description.json": bids.description(), "a/README": "x", path: IMAGE})
    (finding,) = [one for one in check(load(root, include=[path]), Statement())[1].stops if one.rule == "defacing"]
    assert finding.files == (path,)
