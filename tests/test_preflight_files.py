"""Preflight of files beside images: sidecars, tables and surfaces are looked through, and stripped, as files too."""

import gzip
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow.parquet as pq
import pytest
from nibabel.cifti2.cifti2 import Cifti2Header, Cifti2Image, Cifti2MetaData
from nibabel.cifti2.cifti2_axes import BrainModelAxis, ScalarAxis
from nibabel.gifti.gifti import GiftiDataArray, GiftiImage, GiftiMetaData

from tasks.card.body import _allowed
from tasks.disk.content_cache import ContentCache
from tasks.disk.staging import Staging
from tasks.embed import Changed
from tasks.load import load
from tasks.load.rows import LOOKED_THROUGH
from tasks.plan import plan
from tasks.preflight import check, check_images, headers_of, sidecars_and_tables, strip_fields
from tasks.preflight.readable import read_rows
from tasks.preflight.xml_metadata import metadata
from tasks.report.sentences import stopped
from tasks.stage import stage
from tasks.values.models import Dataset, ImageContent
from tasks.values.preflight_rules import Checked, Finding, Statement
from tests import bids_examples as bids
from tests.bids_examples import Content

STATED = Statement("no faces")
SIDECAR = "sub-01/anat/sub-01_FLAIR.json"
SCANS = "sub-01/sub-01_scans.tsv"
CSV = "sub-01/beh/sub-01_task-x_beh.csv"
BEH = "sub-01/beh/sub-01_task-x_beh.tsv"
CONFOUNDS = "derivatives/p/sub-01/func/sub-01_task-x_desc-confounds_timeseries.tsv"
DEFLATED = f"{CONFOUNDS}.gz"
PREPROCESSED = "derivatives/p/sub-01/func/sub-01_task-x_physio_preprocessed.tsv"
NO_NAMES = "not numbers alone, and line 1 has numbers where the names of the columns belong"
VALUES = "line 1: values in it, where the names of the columns belong"
RETURNS = " (a carriage return within a line counts as its end; many editors do not show it)"
A_UID = "1.3.12.2.1107.5.2.32.35131.2014031013020823190024702"
SESSIONS = "sub-01/sub-01_sessions.tsv"
SAME = "line 1: the columns 1 and 2 have the same name"
SURFACE = "derivatives/p/sub-01/anat/sub-01_hemi-L_pial.surf.gii"
GREY = "derivatives/p/sub-01/func/sub-01_task-x_space-fsLR_bold.dscalar.nii"


def in_files(root: Path, files: dict[str, Content], **choice: list[str]) -> tuple[Finding, ...]:
    """What is found in these files of a dataset when it is about to be published."""
    dataset = load(bids.one_subject(root, files), **choice)
    assert set(files) <= {file.path for file in dataset.files}
    return headers_of(dataset.rows, root)


def rules(found: Iterable[Finding]) -> set[tuple[str, str]]:
    return {(one.rule, one.field) for one in found}


def zipped(text: str) -> bytes:
    return gzip.compress(text.encode(), mtime=0)


def surface(pairs: dict[str, str]) -> bytes:
    """A GIFTI file with this metadata at its vertices."""
    meta = GiftiMetaData(pairs)
    array = GiftiDataArray(np.zeros((4, 3), np.float32), intent="NIFTI_INTENT_POINTSET", meta=meta)
    data = GiftiImage(darrays=[array]).to_xml()
    assert isinstance(data, bytes)
    return data


def grey(pairs: dict[str, str], descrip: str = "") -> bytes:
    """A CIFTI file with this metadata."""
    brain = BrainModelAxis.from_surface(np.arange(4), 4, "CortexLeft")
    axes = (ScalarAxis(["x"]), brain)
    header = Cifti2Header.from_axes(axes)
    header.matrix.metadata = Cifti2MetaData(pairs)
    image = Cifti2Image(np.zeros((1, 4), np.float32), header)
    image.nifti_header["descrip"] = descrip.encode()
    image.update_headers()
    data = bytearray(image.to_bytes())
    data[508:524] = b"ConnDenseScalar\0"  # the field intent_name as CIFTI-2 has it, and nibabel leaves empty
    return bytes(data)


# --- what is found ---


@pytest.mark.parametrize(
    ("path", "content", "expected"),
    [
        (SIDECAR, {"PatientName": "Doe^John"}, {("personal-data", "PatientName")}),
        (SIDECAR, {"a": [{"patient_id": 7}]}, {("personal-data", "patient_id")}),
        (SIDECAR, {"StudyInstanceUID": "1.2.3"}, {("unique-identifier", "StudyInstanceUID")}),
        (SIDECAR, {"AcquisitionDate": "2019-01-02"}, {("date", "AcquisitionDate")}),
        (SIDECAR, {"PatientAge": "092Y"}, {("age-over-89", "PatientAge")}),
        (SIDECAR, {"InstitutionName": "X"}, {("institution", "InstitutionName")}),
        (SIDECAR, {"StationName": "X"}, {("device", "StationName")}),
        (SIDECAR, {"ProtocolName": "X"}, {("free-text", "ProtocolName")}),
        (SIDECAR, '{"PatientName": "Doe", "PatientName": ""}', {("personal-data", "PatientName")}),
        (SIDECAR, {"EchoTime": 0.003}, set()),
        (SIDECAR, '{"dob": "1960-01-02",}', {("unreadable", "not JSON: line 1, column 22")}),
        (SIDECAR, b"", set()),
        (BEH, [["onset", "surname"], ["1", "Doe"]], {("personal-data", "surname")}),
        (BEH, [["onset", "name"], ["1", "dog"]], set()),
        (BEH, [["participant_id", "name"], ["sub-05", "Roe"]], {("personal-data", "name")}),
        (BEH, [["onset", "age"], ["1", "95"]], {("age-over-89", "age")}),
        (BEH, [["onset", "at"], ["1", "2019-01-02T03:04:05"]], {("date", "at")}),
        (BEH, "onset\tdob\n1\n", {("unreadable", "line 2: 1 cell, and 2 in the first line")}),
        (BEH, b"\0\1\2", {("unreadable", "not UTF-8: it holds zero bytes: binary, not text")}),
        (PREPROCESSED, "0.5\t0.5\t-1e-3\n0.5\tn/a\t7\n", set()),
        (PREPROCESSED, "0.5\t0.5\n2019-01-02\t7\n", {("unreadable", f"line 2: {NO_NAMES}")}),
        (PREPROCESSED, "0.5\t0.5\n7\tDoe\n", {("unreadable", f"line 2: {NO_NAMES}")}),
        (PREPROCESSED, "0.5\t0.5\n" * (1 << 20) + "7\tDoe\n", {("unreadable", f"line 1,048,577: {NO_NAMES}")}),
        (PREPROCESSED, "0.1\t5\t3\n0.2\tJohn Doe\t4\n", {("unreadable", f"line 2: {NO_NAMES}")}),
        (PREPROCESSED, "3\t4\tRose\n5\t6\tDoe\n", set()),  # a first line that may be names of columns
        (PREPROCESSED, "Doe\t1.5\t2\nRoe\t2.5\t3\n", {("unreadable", VALUES)}),
        (BEH, "1\t2\t3\n4\t5\t6\n", set()),
        (CSV, "1,2\n3,Doe\n", {("unreadable", f"line 2: {NO_NAMES}")}),
        (BEH, "onset\ttrial\n1.5\r\tDoe\n", {("unreadable", f"line 2: 1 cell, and 2 in the first line{RETURNS}")}),
        (BEH, "onset\ttrial\r\n1.5\tx\r\n", set()),
        (SESSIONS, "30\t30\n40\t40\n", {("unreadable", SAME)}),
        (CSV, "0.5,0.5\n1,2\n", set()),
        (BEH, [["onset", "of"], ["1", A_UID]], {("unique-identifier", "of")}),
        (SCANS, [["filename", "of"], ["anat/gone.nii", A_UID]], {("unique-identifier", "of")}),
        (BEH, [["onset", "of"], ["1", "1.2.3"], ["2", "1.2.840.10008.5.1.4.1.1.4.1.2"]], set()),
        (CSV, "onset,surname\r\n1,Doe\r\n", {("personal-data", "surname")}),
        (CSV, "onset,a\n1,2,Doe\n", {("unreadable", "line 2: 3 cells, and 2 in the first line")}),
        (SCANS, [["filename", "acq_time"], ["anat/gone.nii", "2019-01-02"]], {("date", "acq_time")}),
        (SCANS, [["filename", "name"], ["anat/gone.nii", "Doe"]], {("personal-data", "name")}),
        (CONFOUNDS, [["csf", "email"], ["1", "doe@lab.example"]], {("personal-data", "email")}),
        (CONFOUNDS, [["csf", "name"], ["1", "n/a"]], set()),
        (DEFLATED, zipped("csf\tsurname\n1\tDoe\n"), {("personal-data", "surname")}),
        (DEFLATED, zipped("0.1\t-2e3\tn/a\n0.1\tn/a\tnan\n"), set()),
        (DEFLATED, zipped("0.1\t0.1\n2019-01-02\t1\n"), {("unreadable", "line 2: not numbers alone")}),
        (DEFLATED, zipped("0.1\t0.1\n0.2\tDoe\n"), {("unreadable", "line 2: not numbers alone")}),
        ("sub-01/dwi/sub-01_dwi.bvec", "0 1 0\nDoe\n", {("unreadable", "line 2: not numbers alone")}),
        ("sub-01/dwi/sub-01_dwi.bval", "0 1000", set()),
    ],
)  # fmt: skip
def test_each_rule_is_applied_to_a_file_that_no_image_uses(
    tmp_path: Path, path: str, content: Content, expected: set[tuple[str, str]]
) -> None:
    found = in_files(tmp_path, {path: content})
    assert rules(found) == expected
    assert all(one.files == (path,) for one in found)
    assert "Doe" not in repr(found)


@pytest.mark.parametrize(
    ("pairs", "expected"),
    [
        ({"UserName": "doe"}, {("header-text", "{} UserName")}),
        ({"PatientName": "Doe^John"}, {("personal-data", "PatientName")}),
        ({"SubjectID": "MRN-7713"}, {("header-text", "{} SubjectID")}),
        ({"SubjectID": "sub-01"}, set()),
        ({"AcquisitionDate": "2019-03-12"}, {("date", "AcquisitionDate")}),
        ({"Date": "Tue Mar 12 10:00:00 2019"}, {("header-text", "{} Date")}),
        ({"WorkingDirectory": "/home/doe/x"}, {("header-text", "{}")}),
        ({"AnatomicalStructurePrimary": "CortexLeft", "UserName": "unknown", "Name": "lh.pial"}, set()),
    ],
)
@pytest.mark.parametrize("form", ["GIFTI", "CIFTI"])
def test_what_programs_and_people_wrote_into_surfaces_is_found(
    tmp_path: Path, form: str, pairs: dict[str, str], expected: set[tuple[str, str]]
) -> None:
    files: dict[str, Content] = {SURFACE: surface(pairs)} if form == "GIFTI" else {GREY: grey(pairs)}
    found = in_files(tmp_path, files)
    assert rules(found) == {(rule, field.format(form)) for rule, field in expected}
    assert not [value for value in ("Doe^John", "MRN-7713", "/home/doe", "2019") if value in repr(found)]


def test_the_nifti_header_of_a_cifti_file_is_looked_at_as_that_of_an_image(tmp_path: Path) -> None:
    assert rules(in_files(tmp_path, {GREY: grey({}, "J. Doe")})) == {("header-text", "descrip")}


def test_a_surface_that_names_a_file_elsewhere_is_looked_at_for_that_name(tmp_path: Path) -> None:
    text = b'<GIFTI><DataArray ExternalFileName="/home/doe/vertices.dat" /></GIFTI>'
    assert rules(in_files(tmp_path, {SURFACE: text})) == {("header-text", "GIFTI")}


@pytest.mark.parametrize(
    ("path", "data", "reason"),
    [
        (SURFACE, b"<GIFTI><MD>", "not XML: line 1, column 11"),
        (
            SURFACE,
            b'<!DOCTYPE GIFTI [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;">]><GIFTI><MD><Name>&b;</Name></MD></GIFTI>',
            "XML that declares entities",
        ),
        (SURFACE, b"", None),
        (GREY, b"no header" * 100, "no NIfTI header"),
    ],
)
def test_a_surface_that_cannot_be_read_is_named(tmp_path: Path, path: str, data: bytes, reason: str | None) -> None:
    assert rules(in_files(tmp_path, {path: data})) == ({("unreadable", reason)} if reason else set())


def test_the_bytes_of_vertices_cost_no_memory_and_hide_nothing_that_stands_behind_them() -> None:
    middle = b"<Data>" + b"QUFB" * (64 << 10) + b"</Data>"
    tail = b"<MD><Name><![CDATA[UserName]]></Name><Value><![CDATA[doe & co]]></Value></MD><!-- by doe -->"
    text = b"<GIFTI>" + middle + tail + b"</GIFTI>"
    parts = [text[start : start + 1000] for start in range(0, len(text), 1000)]
    assert list(metadata(parts)) == [("UserName", "doe & co"), ("comment", " by doe ")]


def test_every_format_that_is_published_unasked_is_looked_through() -> None:
    assert set(LOOKED_THROUGH) <= set(sidecars_and_tables._LOOKS)


def test_a_large_table_is_looked_through_to_its_last_line(tmp_path: Path) -> None:
    lines = ["onset\tat", *["1\tnothing of note"] * 600_000]
    found = in_files(tmp_path / "date", {BEH: "\n".join([*lines, "1\t2019-01-02"]) + "\n"})
    assert rules(found) == {("date", "at")}
    found = in_files(tmp_path / "short", {BEH: "\n".join([*lines, "1"]) + "\n"})
    assert rules(found) == {("unreadable", "line 600,002: 1 cell, and 2 in the first line")}
    found = in_files(tmp_path / "utf-16", {BEH: "\n".join(lines).encode("utf-16")})
    assert rules(found) == {("unreadable", "larger than 8 MiB, and not UTF-8")}


def test_a_json_that_cannot_be_read_stops_the_push_and_is_named_with_the_way_on(tmp_path: Path) -> None:
    found = in_files(tmp_path, {SIDECAR: '{"PatientName": "Doe" "x"}'})
    result = Checked(STATED).with_more(found)
    said = stopped(result)
    assert SIDECAR in said and "To allow it: unreadable:not JSON: line 1, column 23" in said and "in exclude" in said
    assert "Doe" not in said
    assert not Checked(Statement(allow=(result.stops[0].entry,))).with_more(found).stops


def test_what_came_in_by_include_in_an_unknown_format_is_not_looked_through(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "sub-01/anat/notes.txt": "PatientName: Doe",
        "code/tool/a.json": {"PatientName": "Doe"},
    }
    found = in_files(tmp_path, files, include=["notes.txt", "/code/"])
    assert [(one.rule, one.files) for one in found] == [("personal-data", ("code/tool/a.json",))]


# --- which files are opened, and how often a finding counts ---


def test_only_files_that_are_about_to_be_published_are_looked_through(tmp_path: Path) -> None:
    other = SIDECAR.replace("sub-01", "sub-02")
    root = bids.one_subject(tmp_path, {SIDECAR: {"PatientName": "Doe"}, other: {"PatientName": "Roe"}})
    dataset, result = check(load(root), STATED)
    assert not result.findings
    shards = [spec for spec in plan(dataset, {}) if spec.name == "sub-02"]
    assert [one.files for one in check_images.fn(shards, root)] == [(other,)]
    assert check_images.fn([], root) == ()


def test_a_file_that_is_not_here_is_left_to_staging(tmp_path: Path) -> None:
    link = bids.Link(f"../../.git/annex/objects/a/b/MD5E-s9--{'0' * 32}.json/MD5E-s9--{'0' * 32}.json")
    root = bids.one_subject(tmp_path, {SIDECAR: link, BEH: [["onset", "surname"], ["1", "Doe"]], DEFLATED: b"\x1f\x8b"})
    dataset = load(root)
    (root / BEH).unlink()
    assert {file.path for file in dataset.files} >= {SIDECAR, BEH, DEFLATED}
    assert headers_of(dataset.rows, root) == ()


T1W, TASK = "sub-01/anat/sub-01_T1w", "sub-01/func/sub-01_task-x"
ABOVE = "sub-01/sub-01_T1w.json"
BOLD: dict[str, Content] = {f"{TASK}_bold.nii.gz": bids.IMAGE}


@pytest.mark.parametrize(
    ("files", "where"),
    [
        ({f"{T1W}.json": {"PatientName": "Doe"}}, (f"{T1W}.json",)),
        ({f"{T1W}.json": {"EchoTime": 1}, ABOVE: {"PatientName": "Doe"}}, (ABOVE,)),
        ({**BOLD, f"{TASK}_events.tsv": [["onset", "surname"], ["1", "Doe"]]}, (f"{TASK}_events.tsv",)),
        ({**BOLD, f"{TASK}_events.tsv": "onset\n1\tDoe\n"}, (f"{TASK}_events.tsv",)),
        (
            {**BOLD, f"{TASK}_events.tsv": "onset\n1\n", "sub-01/sub-01_task-x_events.json": {"PatientName": "Doe"}},
            ("sub-01/sub-01_task-x_events.json",),
        ),
        ({SCANS: [["filename", "name"], [f"{T1W[7:]}.nii.gz", "Doe"]]}, (SCANS,)),
        (
            {"sub-01/eeg/sub-01_eeg.edf": b"1", "sub-01/eeg/sub-01_space-x_electrodes.tsv": "name\tsurname\nCz\tDoe\n"},
            ("sub-01/eeg/sub-01_space-x_electrodes.tsv",),
        ),
        (
            {"sub-01/eeg/sub-01_eeg.edf": b"1", "sub-01/eeg/sub-01_space-x_coordsystem.json": {"PatientName": "Doe"}},
            ("sub-01/eeg/sub-01_space-x_coordsystem.json",),
        ),
        (
            {"sub-01/dwi/sub-01_dwi.nii": bids.IMAGE, "sub-01/dwi/sub-01_dwi.bval": "0 Doe"},
            ("sub-01/dwi/sub-01_dwi.bval",),
        ),
    ],
)  # fmt: skip
def test_what_an_image_has_from_a_file_and_the_file_itself_count_once(
    tmp_path: Path, files: dict[str, Content], where: tuple[str, ...]
) -> None:
    dataset, result = check(load(bids.one_subject(tmp_path, files)), STATED)
    in_the_file = [one for one in headers_of(dataset.rows, tmp_path) if one.rule != "recording-unchecked"]
    for findings in (result.findings, in_the_file, result.with_more(in_the_file).findings):
        assert [(one.files, one.count) for one in findings] == [(where, 1)]


def test_a_value_that_a_nearer_sidecar_replaces_is_found_in_its_file(tmp_path: Path) -> None:
    files = {f"{T1W}.json": {"PatientName": "anonymous"}, ABOVE: {"PatientName": "Doe"}}
    dataset, result = check(load(bids.one_subject(tmp_path, files)), STATED)
    assert not result.stops
    assert [one.files for one in headers_of(dataset.rows, tmp_path)] == [(ABOVE,)]


def test_a_day_in_the_name_of_a_sidecar_is_found(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"sub-01/beh/sub-01_task-x_acq-20190724_beh.tsv": "onset\n1\n"})
    (stop,) = check(load(root), STATED)[1].stops
    assert (stop.rule, stop.files) == ("personal-path", ("sub-01/beh/sub-01_task-x_acq-(date)_beh.tsv",))


# --- allow ---


@pytest.mark.parametrize("allow", ["personal-data", "personal-data:PatientName"])
def test_the_card_says_the_same_of_what_is_lifted_in_the_night_after(tmp_path: Path, allow: str) -> None:
    files = {SIDECAR: {"PatientName": "Doe"}, f"{T1W}.json": {"AcquisitionDate": "2019-01-02"}}
    statement = Statement("no faces", (allow, "date"))
    dataset, quiet = check(load(bids.one_subject(tmp_path, files)), statement)
    publishing = quiet.with_more(headers_of(dataset.rows, tmp_path))
    assert not publishing.stops and {one.rule for one in publishing.lifted} == {"personal-data", "date"}
    field = allow.partition(":")[2]
    expected = {"personal-data": {field} if field else set(), "date": {"AcquisitionDate"}}
    assert _allowed(publishing) == _allowed(quiet) == expected


def test_an_entry_is_not_told_to_lift_nothing_by_a_run_that_has_not_opened_the_file(tmp_path: Path) -> None:
    files = {SIDECAR: {"PatientName": "Doe"}}
    _, quiet = check(load(bids.one_subject(tmp_path, files)), Statement("no faces", ("personal-data:PatientName",)))
    assert not quiet.stops and not quiet.idle


# --- strip ---


def staged(dataset: Dataset, folder: Path) -> tuple[dict[str, bytes], list[ImageContent]]:
    """The bytes of each file as the staged shards hold them, by path, and what the receipts say of them."""
    files: dict[str, bytes] = {}
    contents: list[ImageContent] = []
    for spec in plan(dataset, {}):
        receipt = stage(spec, Path(dataset.root), Staging(folder))
        contents += receipt.images
        for row in pq.read_table(folder / receipt.file).to_pylist():
            files[row["path"]] = row["content"] or row["nifti"]["bytes"]
    return files, contents


STRIPPED: dict[str, Content] = {
    SIDECAR: {"PatientName": "Doe^J", "EchoTime": 0.5, "a": [{"PatientName": ["Doe^J"]}]},
    f"{T1W}.json": {"PatientName": "Doe^J"},
    "sub-01/anat/sub-01_PDw.json": '{"Pati\\u0065ntName": "Doe^J", "half": "\\ud800"}',
    BEH: "onset\tPatientName\r\n1\tDoe^J\r\n",
    CSV: 'onset,PatientName\r\n1,"Doe^J"\r\n',
    DEFLATED: zipped("csf\tPatientName\n1\tDoe^J\n"),
    SCANS: [["filename", "PatientName"], [f"{T1W[7:]}.nii.gz", "Doe^J"]],
}
KEPT: dict[str, Content] = {
    "sub-01/anat/sub-01_T2w.json": b'{ "EchoTime":\t0.5,  "Note": "of the PatientNames" }\r\n',
    "sub-01/beh/sub-01_task-y_beh.tsv": "onset\tword\r\n1\tPatientName\r\n",
    CONFOUNDS: b"csf\r1\r",
    DEFLATED.replace("task-x", "task-y"): gzip.compress(b"csf\n1\n", 1),
    "sub-01/dwi/sub-01_dwi.bval": "0  1000\n",
}


def test_what_is_stripped_is_in_no_byte_of_a_staged_shard_and_all_other_files_are_as_in_the_source(
    tmp_path: Path,
) -> None:
    root = bids.one_subject(tmp_path / "bids", STRIPPED | KEPT)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    dataset, result = check(load(root), Statement("no faces", (), ("PatientName",)))
    assert not result.stops and not result.unstripped
    assert not headers_of(dataset.rows, root)

    files, contents = staged(dataset, tmp_path / "staging")
    assert files.keys() == {*STRIPPED, *KEPT, f"{T1W}.nii.gz"}
    shards = [path.read_bytes() for path in (tmp_path / "staging").rglob("*.parquet")]
    inflated = [gzip.decompress(data) for path, data in files.items() if path.endswith(".gz")]
    assert shards and not [data for data in (*shards, *inflated) if b"Doe^J" in data]
    assert {path: files[path] for path in KEPT} == {path: (root / path).read_bytes() for path in KEPT}
    assert json.loads(files[SIDECAR]) == {"EchoTime": 0.5, "a": [{}]}
    assert files[BEH] == b"onset\n1\n" and gzip.decompress(files[DEFLATED]) == b"csf\n1\n"
    assert {one.path: one.size for one in contents} == {path: len(data) for path, data in files.items()}
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_second_night_with_the_same_strip_has_nothing_to_do(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path / "bids", STRIPPED | KEPT)
    statement = Statement("no faces", (), ("PatientName",))
    first, second, whole = check(load(root), statement)[0], check(load(root), statement)[0], load(root)
    _, contents = staged(first, tmp_path / "staging")
    assert [spec.digest for spec in plan(first, {})] == [spec.digest for spec in plan(second, {})]
    known = {content.path: content for content in contents}
    for spec in plan(second, {}):
        lines = [known[row.path] for row in spec.rows]
        assert ContentCache(tmp_path / "cache" / "contents.jsonl", root).unchanged(spec.rows, lines)
    assert not {spec.digest for spec in plan(first, {})} & {spec.digest for spec in plan(whole, {})}


def test_a_table_that_is_not_deflated_anew_has_the_same_bytes_whatever_zlib_is_there(tmp_path: Path) -> None:
    text = "csf\tPatientName\n" + "1\tDoe^J\n" * 50_000  # two blocks of 64 KiB
    root = bids.one_subject(tmp_path, {DEFLATED: zipped(text)})
    dataset, _ = check(load(root), Statement("no faces", (), ("PatientName",)))
    (content,) = [file.content for file in dataset.files if file.path == DEFLATED]
    left = b"csf\n" + b"1\n" * 50_000
    assert content is not None and gzip.decompress(content) == left
    assert content[:10] == bytes.fromhex("1f8b08000000000000ff") and content[15 : 15 + 65_535] == left[:65_535]


@pytest.mark.parametrize(
    ("path", "text"),
    [
        (SIDECAR, '{"dob": "1960-01-02",}'),
        (BEH, "onset\tdob\n1\n"),
        (DEFLATED, zipped("csf\tdob\tdob\n1\t1960\t1\n")),
    ],
)
def test_a_file_that_may_have_a_stripped_field_and_cannot_be_read_is_left_out_with_the_reason(
    tmp_path: Path, path: str, text: str | bytes
) -> None:
    dataset, result = check(load(bids.one_subject(tmp_path, {path: text})), Statement("no faces", (), ("dob",)))
    assert not dataset.files and not result.stops
    (gone,) = [one for one in dataset.unpublished if one.path == path]
    assert gone.reason == "cannot be read, and may have a field that is stripped"


def test_a_damaged_or_absent_table_is_left_to_staging_and_not_left_out(tmp_path: Path) -> None:
    link = bids.Link("../nowhere.json")
    files = {DEFLATED: zipped("csf\tdob\n" + os.urandom(4000).hex() + "\n")[:-900], SIDECAR: link}
    dataset, _ = check(load(bids.one_subject(tmp_path, files)), Statement("no faces", (), ("dob",)))
    assert {file.path for file in dataset.files} == {DEFLATED, SIDECAR}


def test_a_sidecar_that_is_fetched_after_strip_has_looked_for_it_is_not_published_with_the_field(
    tmp_path: Path,
) -> None:
    data = b'{"dob": "1960-01-02"}'
    pointer = f"/annex/objects/MD5-s{len(data)}--{hashlib.md5(data).hexdigest()}\n"
    root = bids.one_subject(tmp_path / "bids", {SIDECAR: pointer})
    times = (root / SIDECAR).stat()
    dataset, _ = check(load(root), Statement("no faces", (), ("dob",)))
    (root / SIDECAR).write_bytes(data)
    os.utime(root / SIDECAR, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(Changed, match=SIDECAR):
        staged(dataset, tmp_path / "staging")


def test_a_field_that_only_a_file_beside_the_images_has_counts_as_found(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {SIDECAR: {"Remark": "Doe"}})
    assert not check(load(root), Statement("no faces", (), ("Remark",)))[1].unstripped


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("path", "comma"), [(BEH, "\t"), (CSV, ",")])
def test_a_table_is_read_whichever_line_ends_it_has(path: str, comma: str, end: str) -> None:
    lines = (("onset", "what they said"), ("1", "yes"), ("2", "no, never" if comma == "\t" else '"no, never"'))
    data = "".join(comma.join(line) + end for line in lines).encode()
    assert read_rows(path, data) == [
        {"onset": "1", "what they said": "yes"},
        {"onset": "2", "what they said": "no, never"},
    ]


@pytest.mark.parametrize(
    ("path", "data", "stays"),
    [
        (BEH, b"onset\tscore\n" + b"1\t2\n" * 40, True),
        (BEH, b"onset\tsurname\n" + b"1\tDoe\n" * 40, False),
        (BEH, b"onset\tscore\r" + b"1\tsurname\r" * 40, True),  # it is in no name of a column
        (BEH, b"onset\tsc\0re\n" + b"1\t2\n" * 40, False),  # nobody can say which columns these are
        (CSV, b"onset,surname\n" + b"1,Doe\n" * 40, False),
        (SIDECAR, b'{"Manufacturer": "a name", "Score": 1}'.ljust(200), False),  # it may be anywhere in it
    ],
)
def test_of_a_file_that_is_too_large_to_be_stripped_the_names_of_its_columns_decide_whether_it_is_published(
    path: str, data: bytes, stays: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(strip_fields, "MAX_WHOLE", 100)
    dataset = load(bids.one_subject(tmp_path, {path: data}))
    left, _ = strip_fields.stripped(dataset, ("surname",))
    assert [file.path for file in left.files if file.path == path] == [path] * stays
    reasons = {one.path: one.reason for one in left.unpublished}
    assert reasons.get(path) == (None if stays else "cannot be read, and may have a field that is stripped")


def test_where_an_included_file_names_a_stripped_field_is_said(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"sub-01/anat/notes.txt": "surname Doe", "sub-01/anat/other.txt": "Surnames"})
    _, result = check(load(root, include=["*.txt"]), Statement("no faces", (), ("surname",)))
    (sentence,) = result.unstripped
    assert "surname is named in sub-01/anat/notes.txt, which strip does not change" in sentence


def test_nibabel_reads_the_surfaces_that_these_tests_make(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {SURFACE: surface({"a": "b"}), GREY: grey({"a": "b"})})
    of_surface: Any = nibabel.load(root / SURFACE)
    of_grey: Any = nibabel.load(root / GREY)
    assert of_surface.darrays[0].meta["a"] == "b" and of_grey.header.matrix.metadata["a"] == "b"
