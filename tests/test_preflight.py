"""Preflight: what should not be published is found, named without its value, and stops the push or warns."""

import codecs
import json
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest

from tasks.card import side_files
from tasks.load import load
from tasks.plan import plan
from tasks.preflight import check, headers_of
from tasks.preflight.validator import COMMAND, ValidatorCrashed, ValidatorMissing
from tasks.report.sentences import findings, stopped
from tasks.values.errors import BadInput
from tasks.values.models import Dataset
from tasks.values.rules import RULES, STOPS, Checked, Finding, Statement
from tests import bids_examples as bids
from tests.bids_examples import Content
from tests.planted import PLANTED

STATED = Statement(defacing="no faces")


def checked(root: Path, statement: Statement = STATED, validate: bool = False) -> Checked:
    return check(load(root), statement, validate)[1]


def found(root: Path, statement: Statement = STATED) -> dict[tuple[str, str], Finding]:
    return {(one.rule, one.field): one for one in checked(root, statement).findings}


def everything(dataset: Dataset) -> str:
    """All that would be published of a dataset but its images."""
    rows = [repr(image) for image in dataset.images]
    return "\n".join([*rows, *(data.decode("latin-1") for data in side_files(dataset).values())])


# --- ds004884 ---

#: What people typed at the scanner. The names of studies in it are those of researchers.
KNOWN_WARNINGS = {
    ("free-text", "ImageComments"): 2292,
    ("free-text", "ProcedureStepDescription"): 4936,
    ("free-text", "ProtocolName"): 4936,
    ("free-text", "SeriesDescription"): 4936,
}


@pytest.mark.slow
def test_ds004884_passes_with_the_statement_on_faces_and_its_warnings_are_the_known_ones(whole: Path) -> None:
    result = checked(whole, Statement("defaced"))

    assert not result.stops
    assert {(one.rule, one.field): one.count for one in result.findings} == KNOWN_WARNINGS
    for one in result.findings:
        assert all((whole / file).is_file() and one.field in (whole / file).read_text() for file in one.files)


@pytest.mark.slow
def test_without_the_statement_it_stops_and_says_what_to_give(whole: Path) -> None:
    (stop,) = checked(whole, Statement()).stops

    assert (stop.rule, stop.count) == ("defacing", 4936)  # all images but the 228 lesion masks
    assert '"defaced", "no faces"' in RULES["defacing"].mend


# --- planted ---


def test_everything_that_was_planted_is_found_and_named_without_its_value(planted: Path) -> None:
    dataset, result = check(load(planted), STATED)
    findings = [*result.findings, *headers_of(dataset.images, planted)]

    assert PLANTED.keys() <= {(one.rule, one.field) for one in findings}
    extra = {(one.rule, one.field) for one in findings} - PLANTED.keys()
    assert extra == {("free-text", "SeriesDescription")}  # of the dataset itself
    said = repr(findings)
    assert not [value for value in PLANTED.values() if value in said]
    for one in findings:
        assert all((planted / file).is_file() for file in one.files), one


def test_what_was_planted_is_found_in_its_file(planted: Path) -> None:
    result = found(planted)

    assert result["date", "acq_time"].files[0].endswith("_scans.tsv")
    assert result["age-over-89", "age_at_scan"].files[0].endswith("_sessions.tsv")
    assert result["personal-data", "email"].files == ("participants.tsv",)
    assert result["personal-data", "surname"].files == ("phenotype/wab.tsv",)
    (sidecar,) = result["personal-data", "PatientName"].files
    assert PLANTED["personal-data", "PatientName"] in (planted / sidecar).read_text()


def test_what_is_stripped_is_nowhere_in_what_would_be_published_and_is_no_finding(planted: Path) -> None:
    fields = {field for (rule, field) in PLANTED if rule not in ("header-text", "header-extension", "licence-unknown")}
    dataset, result = check(load(planted), Statement("no faces", (), tuple(fields)))

    assert {one.rule for one in result.findings} == {"free-text", "licence-unknown"}
    assert {one.field for one in result.warnings} == {"SeriesDescription"}
    said = everything(dataset)
    gone = [value for (_, field), value in PLANTED.items() if field in fields]
    assert all(value in everything(load(planted)) for value in gone)
    assert not [value for value in gone if value in said]


# --- rules, one by one ---


def of_sidecar(fields: object) -> Callable[[Path], Path]:
    return lambda root: bids.one_subject(root, {"sub-01/anat/sub-01_T1w.json": fields})


def of_participants(*rows: list[str]) -> Callable[[Path], Path]:
    return lambda root: bids.one_subject(root, {"participants.tsv": list(rows)})


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"PatientName": "Doe^John"}, {("personal-data", "PatientName")}),
        ({"Patient's Name": "Doe^John"}, {("personal-data", "Patient's Name")}),
        ({"a": [{"patient_id": 7}]}, {("personal-data", "patient_id")}),
        ({"PatientName": ["", "Doe^John"]}, {("personal-data", "PatientName")}),
        ({"PatientName": ""}, set()),
        ({"Operator": "Mrs. Roe"}, {("personal-data", "Operator")}),
        ({"00100010": {"vr": "PN", "Value": [{"Alphabetic": "Doe^John"}]}}, {("personal-data", "00100010")}),
        ({"(0010,0030)": "19600102"}, {("personal-data", "(0010,0030)")}),
        ({"00100040": {"vr": "CS", "Value": ["F"]}, "00101030": 71.5, "00180050": 1.0}, set()),
        ({"StudyID": "1"}, set()),
        ({"StudyID": 12}, set()),
        ({"StudyID": "4711"}, {("personal-data", "StudyID")}),
        ({"StudyID": ["1", "97-3120"]}, {("personal-data", "StudyID")}),
        ({"PatientName": "anonymous", "PatientID": None, "AccessionNumber": "n/a"}, set()),
        ({"PerformingPhysicianName": "X"}, {("personal-data", "PerformingPhysicianName")}),
        ({"SeriesInstanceUID": "1.2"}, {("unique-identifier", "SeriesInstanceUID")}),
        ({"SOPClassUID": "1.2.840.10008.5.1.4.1.1.4"}, set()),
        (
            {"seriesinstanceuid": "1.2", "UID": "3"},
            {("unique-identifier", "seriesinstanceuid"), ("unique-identifier", "UID")},
        ),
        ({"ReferencedSOPInstanceUIDs": ["1.2"]}, {("unique-identifier", "ReferencedSOPInstanceUIDs")}),
        ({"Fluid": "water", "liquid": 1, "CerebrospinalFluid": 0.2, "druid": "x"}, set()),
        ({"AcquisitionDateTime": "1903-02-01T12:00:00"}, set()),
        ({"AcquisitionDateTime": "1926-01-01T12:00:00"}, {("date", "AcquisitionDateTime")}),
        ({"StudyDate": 20190312}, {("date", "StudyDate")}),
        ({"ContentDate": "12 March 2019"}, {("date", "ContentDate")}),
        ({"Remark": "2019-03-12 10:00"}, {("date", "Remark")}),
        ({"AcquisitionTime": "14:21:37.345", "ConversionSoftwareVersion": "v1.0.20231010"}, set()),
        ({"PatientAge": "092Y"}, {("age-over-89", "PatientAge")}),
        ({"PatientAge": "011M", "PatientSex": "F", "PatientWeight": 92}, set()),
        ({"InstitutionalDepartmentName": "X"}, {("institution", "InstitutionalDepartmentName")}),
        ({"StationName": "X"}, {("device", "StationName")}),
        ({"StudyDescription": "X"}, {("free-text", "StudyDescription")}),
    ],
)
def test_fields_of_sidecars(tmp_path: Path, fields: object, expected: set[tuple[str, str]]) -> None:
    assert found(of_sidecar(fields)(tmp_path)).keys() == expected


@pytest.mark.parametrize(
    ("column", "value", "rule"),
    [
        ("age", "89", None),
        ("age", "89.9", None),
        ("age", "90", "age-over-89"),
        ("Age", "93,5", "age-over-89"),
        ("age", "89+", None),
        ("age", "90+", None),
        ("ageAtScan", "101", "age-over-89"),
        ("age_months", "100", None),
        ("age_months", "1100", "age-over-89"),
        ("patient_age", "91 years", "age-over-89"),
        ("stage", "95", None),
        ("page", "95", None),
        ("language", "99", None),
        ("wab_days", "8798", None),
        ("acq_time", "1925-12-31T10:00:00", None),
        ("acq_time", "1926-01-01T10:00:00", "date"),
        ("acq_time", "13:45:00", None),
        ("visit_date", "03.04.2019", "date"),
        ("visit_date", "3/4/19", "date"),
        ("visit", "2019-04-03", "date"),
        ("score", "03.04.2019", None),
        ("scandate", "03.04.2019", "date"),
        ("MRIDate", "03.04.2019", "date"),
        ("admissiondate", "03.04.2019", "date"),
        ("last_update", "03.04.2019", "date"),
        ("date_of_visit", "03.04.2019", "date"),
        ("Left-Caudate", "3012", None),
        ("Left-Caudate", "19991231", None),
        ("candidate", "03.04.2019", None),
        ("dob", "1920-01-01", "personal-data"),
        ("Date of birth", "01/02/1960", "personal-data"),
        ("name", "John", "personal-data"),
        ("Phone number", "12345", "personal-data"),
        ("trial_name", "John", None),
        ("operator", "Roe", "personal-data"),
        ("birth_year", "1961", "personal-data"),
        ("YOB", "1961", "personal-data"),
        ("Vorname", "Hans", "personal-data"),
        ("Geburtsdatum", "2.1.1961", "personal-data"),
        ("Straße", "Am Weg 3", "personal-data"),
        ("PLZ", "14195", "personal-data"),
        ("Prénom", "Jean", "personal-data"),
        ("date_de_naissance", "02/01/1961", "personal-data"),
        ("Teléfono", "91 123", "personal-data"),
        ("Fecha de nacimiento", "1961", "personal-data"),
        ("city", "Berlin", "personal-data"),
        ("latitude", "52.45", "personal-data"),
        ("national_id", "1234", "personal-data"),
        ("study_id", "7", None),
        ("study_id", "70012", "personal-data"),
        ("fluid", "water", None),
        ("capacity", "3", None),
        ("dominant", "x", None),
        ("wab_type", "None", None),
    ],
)
def test_columns_of_tables(tmp_path: Path, column: str, value: str, rule: str | None) -> None:
    root = of_participants(["participant_id", column], ["sub-01", value], ["sub-02", "n/a"])(tmp_path)
    assert found(root).keys() == ({(rule, column)} if rule else set())


def test_the_unit_of_an_age_is_that_of_the_data_dictionary(tmp_path: Path) -> None:
    files: dict[str, Content] = {"participants.tsv": [["participant_id", "age"], ["sub-01", "120"]]}
    assert found(bids.one_subject(tmp_path / "years", files))
    files["participants.json"] = {"age": {"Description": "at the scan", "Units": "months"}}
    assert not found(bids.one_subject(tmp_path / "months", files))


def test_a_data_dictionary_describes_fields_and_holds_no_values(tmp_path: Path) -> None:
    words = {"PatientID": {"Description": "never published", "Levels": {"a": "2019-01-01"}}, "age": {"Maximum": "99"}}
    assert not found(bids.one_subject(tmp_path, {"participants.json": words}))


def test_a_field_that_many_images_inherit_is_named_once_with_the_file_it_is_in(tmp_path: Path) -> None:
    root = bids.two_sessions(tmp_path)
    (root / "T1w.json").write_text(json.dumps({"InstitutionName": "X"}))
    finding = found(root)["institution", "InstitutionName"]
    assert (finding.files, finding.count) == (("T1w.json",), 1)


def test_events_are_searched_for_people_and_dates_and_a_stimulus_may_have_a_name(tmp_path: Path) -> None:
    stem = "sub-01/func/sub-01_task-x"
    files = {
        f"{stem}_bold.nii.gz": bids.IMAGE,
        f"{stem}_events.tsv": [["onset", "name", "surname", "at"], ["1", "dog", "Doe", "2019-01-02T03:04:05"]],
    }
    result = found(bids.one_subject(tmp_path, files))
    assert result.keys() == {("personal-data", "surname"), ("date", "at")}
    assert result["date", "at"].files == (f"{stem}_events.tsv",)


@pytest.mark.parametrize(
    ("licence", "rule"), [("CC0", None), ("CCBY4", None), ("", "licence-missing"), ("ask us", "licence-unknown")]
)
def test_a_licence_must_be_stated_and_be_one_of_the_hubs(tmp_path: Path, licence: str, rule: str | None) -> None:
    root = bids.one_subject(tmp_path, {"dataset_description.json": bids.description(License=licence)})
    assert {one.rule for one in checked(root).stops} == ({rule} if rule else set())


def test_images_in_which_no_face_can_be_seen_need_no_statement(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"derivatives/m/sub-01/anat/sub-01_desc-x_mask.nii.gz": bids.IMAGE})
    assert found(root, Statement())["defacing", ""].count == 1
    (root / "sub-01/anat/sub-01_T1w.nii.gz").unlink()
    assert not found(root, Statement())


def test_a_rule_is_lifted_by_its_name_alone_and_stays_in_sight(tmp_path: Path) -> None:
    root = of_sidecar({"PatientName": "Doe^John", "StudyDate": "2019-01-01"})(tmp_path)
    result = checked(root, Statement("no faces", ("date",)))
    assert [one.rule for one in result.stops] == ["personal-data"]
    assert [one.rule for one in result.lifted] == ["date"]
    assert {rule for rule in RULES if rule in STOPS} == set(STOPS)


@pytest.mark.parametrize(
    ("path", "column", "rule"),
    [
        ("desc-aseg_dseg.tsv", "name", None),
        ("task-rest_channels.tsv", "name", None),
        ("task-sums_events.tsv", "operator", None),
        ("task-sums_events.tsv", "email", "personal-data"),
        ("channels_of_the_ward.tsv", "name", "personal-data"),
        ("phenotype/people.tsv", "name", "personal-data"),
        ("phenotype/people.csv", "operator", "personal-data"),
    ],
)
def test_a_column_is_judged_by_what_its_table_is_about(
    tmp_path: Path, path: str, column: str, rule: str | None
) -> None:
    separator = "," if path.endswith(".csv") else "\t"
    text = f"index{separator}{column}\n1{separator}Roe\n"
    result = checked(bids.one_subject(tmp_path, {path: text}))
    assert [(stop.rule, stop.field) for stop in result.stops] == ([(rule, column)] if rule else [])


def test_a_table_of_people_that_could_not_be_joined_is_looked_through_all_the_same(tmp_path: Path) -> None:
    table = [["id", "email"], ["sub-01", "somebody@example.org"]]
    result = checked(bids.one_subject(tmp_path, {"participants.tsv": table}))
    assert [(stop.rule, stop.field, stop.files) for stop in result.stops] == [
        ("personal-data", "email", ("participants.tsv",))
    ]


# --- what cannot be read cannot be checked ---


def unreadable(root: Path, statement: Statement = STATED) -> dict[str, str]:
    """The files that cannot be read, each with the reason."""
    return {one.files[0]: one.field for one in checked(root, statement).findings if one.rule == "unreadable"}


@pytest.mark.parametrize(
    ("path", "text", "reason"),
    [
        ("phenotype/a.json", '{"dob": "1960-01-02",}', "not JSON: line 1, column 22"),
        ("phenotype/a.json", '{"a": 1}\n{"dob": "1960"}', "not JSON: line 2, column 1"),
        ("task-x_bold.JSON", "dob: 1960-01-02", "not JSON: line 1, column 1"),
        ("phenotype/a.json", "[" * 100_000, "JSON that is nested too deeply to be looked through"),
        ("phenotype/a.json", "[" * 101 + "]" * 101, "JSON that is nested too deeply to be looked through"),
        ("phenotype/a.json", '{"a": ' + "9" * 5000 + "}", "not JSON: a number in it has too many digits"),
        ("phenotype/a.tsv", "participant_id\tage\nsub-01\t30\tDoe", "line 2: 3 cells, and 2 in the first line"),
        ("phenotype/a.tsv", "participant_id\tage\tname\nsub-01\tDoe", "line 2: 2 cells, and 3 in the first line"),
        ("phenotype/a.tsv", "participant_id\tdob\tdob\n", "line 1: the columns 2 and 3 have the same name"),
        ("phenotype/a.tsv", "# of the ward\nparticipant_id\tdob\n", "line 1: no tab in it"),
        ("phenotype/a.tsv", "ward\nparticipant_id\tdob\n", "line 2: 2 cells, and 1 in the first line"),
        ("phenotype/a.tsv", "participant_id;dob\nsub-01;1960\n", "line 1: no tab in it"),
        ("phenotype/a.tsv", "participant_id dob\nsub-01 1960\n", "line 1: no tab in it"),
        ("phenotype/a.tsv", "sub-01\tDoe\nsub-02\tRoe\n", "line 1: values in it"),
        ("phenotype/a.tsv", "01\t1960-01-02\n02\t1961-01-02\n", "line 1: values in it"),
        ("phenotype/a.csv", "participant_id;dob\nsub-01;1960\n", "line 1: no comma in it"),
        ("phenotype/a.csv", "participant_id,age\nsub-01,30,Doe\n", "line 2: 3 cells, and 2 in the first line"),
        ("phenotype/a.csv", "participant_id,age,name\nsub-01,Doe\n", "line 2: 2 cells, and 3 in the first line"),
        ("phenotype/a.csv", "participant_id,dob,dob\nsub-01,1960,\n", "line 1: the columns 2 and 3 have the same"),
        ("phenotype/a.csv", 'participant_id,a,name\nsub-01,"1,Doe\n', "line 2: its quotes do not match"),
        ("dwi.bval", "0 1000\nDoe 1960\n", "line 2: not numbers alone"),
    ],
)
def test_a_text_that_cannot_be_read_stops_the_push_with_the_place_and_without_a_value(
    tmp_path: Path, path: str, text: str, reason: str
) -> None:
    result = checked(bids.one_subject(tmp_path, {path: text}))
    (stop,) = result.stops
    assert (stop.rule, stop.files) == ("unreadable", (path,)) and stop.field.startswith(reason)
    for said in (stopped(result), findings(result)):
        assert reason in said and "in exclude" in said and "Doe" not in said and "1960" not in said


@pytest.mark.parametrize(
    ("path", "data"),
    [
        ("phenotype/a.json", codecs.BOM_UTF8 + b'{"a": 1}'),
        ("phenotype/a.json", '{"a": "gr\u00fcn"}'.encode("utf-16")),
        ("phenotype/a.json", '{"a": "gr\u00fcn"}'.encode("latin-1")),
        ("phenotype/a.json", b'{"a": NaN, "b": [Infinity]}'),
        ("phenotype/a.json", b'{"a": "one\ttwo\nthree"}\r\n\r\n'),
        ("phenotype/a.json", b""),
        ("phenotype/a.tsv", codecs.BOM_UTF8 + b"participant_id\tscore\r\nsub-01\t1\r\n\r\n"),
        ("phenotype/a.tsv", b"participant_id\tscore\t\t\nsub-01\t1\t\t\nsub-02\t\n\n"),
        ("phenotype/a.tsv", "participant_id\tscore\nsub-01\t\u00e4\n".encode("latin-1")),
        ("phenotype/a.tsv", b"participant_id\tscore\rsub-01\t1\r"),
        ("phenotype/a.tsv", b"participant_id\n"),
        ("phenotype/a.tsv", b""),
        ("phenotype/a.csv", b'participant_id,remark,,\r\nsub-01,"a ""b"",\nc",,\r\n,,,\r\n'),
        ("phenotype/a.csv", b""),
        ("dwi.bvec", b"0 1e-3, nan\n-.5 +1E+2 inf\n"),
        ("README", b"gr\xfcn, {, \t"),
        ("derivatives/x/dataset_description.json", b'{"Name": "a "quoted" word"}'),  # as ds001226's
    ],
)
def test_ordinary_quirks_of_texts_stop_nobody(tmp_path: Path, path: str, data: bytes) -> None:
    assert not checked(bids.one_subject(tmp_path, {path: data})).stops


def test_an_events_table_that_cannot_be_read_is_named_although_only_its_text_is_published(tmp_path: Path) -> None:
    stem = "sub-01/func/sub-01_task-x"
    events = "onset\tduration\n1\t2\tDoe\n"
    files = {f"{stem}_bold.nii.gz": bids.IMAGE, f"{stem}_events.tsv": events}
    root = bids.one_subject(tmp_path, files)
    assert unreadable(root) == {f"{stem}_events.tsv": "line 2: 3 cells, and 2 in the first line"}
    assert "Doe" in everything(load(root))


def test_directions_of_an_image_that_are_words_are_named(tmp_path: Path) -> None:
    stem = "sub-01/dwi/sub-01_dwi"
    root = bids.one_subject(tmp_path, {f"{stem}.nii.gz": bids.IMAGE, f"{stem}.bval": "0", f"{stem}.bvec": "Doe"})
    assert unreadable(root) == {f"{stem}.bvec": "line 1: not numbers alone"}


def test_a_key_that_an_object_has_twice_hides_no_value(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"phenotype/a.json": '{"PatientName": "Doe", "age": [95], "PatientName": ""}'})
    assert found(root).keys() == {("personal-data", "PatientName"), ("age-over-89", "age")}


def test_what_cannot_be_read_is_published_if_somebody_says_so_or_left_out_by_exclude(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"phenotype/a.tsv": "participant_id\tage\nsub-01\t30\tDoe"})
    result = checked(root, Statement("no faces", ("unreadable",)))
    assert not result.stops and [one.rule for one in result.lifted] == ["unreadable"]
    dataset, result = check(load(root, exclude=["phenotype/a.tsv"]), Statement("no faces"))
    assert not result.stops and "phenotype/a.tsv" not in dataset.texts


# --- strip ---


def test_strip_takes_a_field_from_rows_and_texts_changes_the_digest_and_leaves_the_source(tmp_path: Path) -> None:
    root = bids.two_sessions(tmp_path)
    before = {path: path.read_bytes() for path in root.rglob("*") if path.is_file()}
    dataset = load(root)
    left, _ = check(dataset, Statement("no faces", (), ("RepetitionTime", "group", "quality")))

    assert "RepetitionTime" not in everything(left) and "RepetitionTime" in everything(dataset)
    assert b"participant_id\tage\nsub-01\t34\n" in side_files(left)["bids/participants.tsv"]
    assert all("group" not in row for row in left.participants)
    assert all("quality" not in (image.scan or "") for image in left.images)
    assert side_files(left)["bids/README"] == before[root / "README"]
    changed = {a.name for a, b in zip(plan(dataset, {}), plan(left, {}), strict=True) if a.digest != b.digest}
    assert changed == {"sub-01_ses-a", "sub-01_ses-b", "sub-02"}  # all have a participant's row
    assert {path: path.read_bytes() for path in root.rglob("*") if path.is_file()} == before


def test_a_text_that_names_a_stripped_field_and_cannot_be_read_is_left_out_and_counted(tmp_path: Path) -> None:
    files = {"phenotype/a.tsv": "participant_id\tdob\tdob\n", "task-x_bold.json": '{"dob": ', "notes.txt": "dob?"}
    left, _ = check(load(bids.one_subject(tmp_path, files)), Statement("no faces", (), ("dob",)))
    assert set(left.texts) == {"dataset_description.json", "notes.txt"}
    assert 2 in left.left_out.values()


def test_a_column_that_says_what_a_row_is_about_cannot_be_stripped(tmp_path: Path) -> None:
    with pytest.raises(BadInput, match="participant_id"):
        checked(bids.one_subject(tmp_path), Statement("no faces", (), ("participant_id",)))


# --- headers ---


def image_with(
    descrip: bytes = b"", extensions: list[nibabel.nifti1.Nifti1Extension] | None = None, nifti2: bool = False
) -> bytes:
    kind = nibabel.Nifti2Image if nifti2 else nibabel.Nifti1Image
    image = kind(np.zeros((4, 3, 2), np.int16), np.eye(4))
    image.header["descrip"] = descrip
    for extension in extensions or []:
        image.header.extensions.append(extension)
    return image.to_bytes()


@pytest.mark.parametrize("nifti2", [False, True])
@pytest.mark.parametrize(
    ("descrip", "told"),
    [
        (b"", False),
        (b"FSL5.0", False),
        (b"6.0.5:9e026117", False),
        (b"TE=30;Time=142137.345", False),
        (b"J. Doe", True),
    ],
)
def test_text_in_a_header_is_told_unless_a_program_is_known_to_write_it(
    tmp_path: Path, descrip: bytes, told: bool, nifti2: bool
) -> None:
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T2w.nii": image_with(descrip, nifti2=nifti2)})
    findings = headers_of(load(root).images, root)
    assert [(one.rule, one.field) for one in findings] == ([("header-text", "descrip")] if told else [])


def test_header_extensions_are_told_by_their_registered_names(tmp_path: Path) -> None:
    extensions = [nibabel.nifti1.Nifti1Extension(code, b"Doe^John") for code in ("comment", "afni", 999)]
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T2w.nii": image_with(extensions=extensions)})
    told = [one.field for one in headers_of(load(root).images, root)]
    assert told == ["extension 4 (AFNI)", "extension 6 (comment)", "extension 999 (of no registered program)"]


def test_images_that_cannot_be_read_are_left_to_staging(tmp_path: Path) -> None:
    files = {"sub-01/anat/sub-01_T2w.nii.gz": b"", "sub-01/anat/sub-01_FLAIR.nii.gz": b"\x1f\x8bnonsense"}
    root = bids.one_subject(tmp_path, files | {"sub-01/anat/sub-01_PDw.nii": os.urandom(4000)})
    dataset = load(root)
    (root / "sub-01/anat/sub-01_T1w.nii.gz").unlink()
    assert headers_of(dataset.images, root) == ()


# --- the validator ---


@pytest.fixture
def validator(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Puts a program of the validator's name in its place."""
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin" / "python"))
    monkeypatch.setenv("PATH", "/usr/bin:/bin")

    def install(script: str) -> None:
        program = tmp_path / "bin" / COMMAND
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(program.stat().st_mode | stat.S_IXUSR)

    return install


def test_a_validator_that_is_asked_for_and_not_there_is_said_with_the_way_to_get_it(
    tmp_path: Path, validator: Callable[[str], None]
) -> None:
    with pytest.raises(ValidatorMissing, match="make validator"):
        checked(bids.one_subject(tmp_path / "d"), validate=True)


def test_the_validators_errors_stop_by_code_and_file_and_its_words_are_not_repeated(
    tmp_path: Path, validator: Callable[[str], None]
) -> None:
    issue = {"code": "TSV_VALUE", "subCode": "age", "location": "/participants.tsv", "issueMessage": "Doe^John"}
    validator(f"""[ "$1 $2 $3" = "--ignoreWarnings --format json" ] || exit 2
echo '{json.dumps({"issues": {"issues": [issue]}})}'; exit 16""")
    (stop,) = checked(bids.one_subject(tmp_path / "d"), validate=True).stops
    assert (stop.rule, stop.field, stop.files) == ("bids-validity", "TSV_VALUE age", ("participants.tsv",))
    assert "Doe" not in repr(stop)


@pytest.mark.parametrize("script", ["exit 1", "echo '{}'; exit 0", 'echo \'{"issues": {"issues": []}}\'; exit 16'])
def test_any_other_exit_of_the_validator_is_a_crash(
    tmp_path: Path, validator: Callable[[str], None], script: str
) -> None:
    validator(script)
    with pytest.raises(ValidatorCrashed, match="by hand"):
        checked(bids.one_subject(tmp_path / "d"), validate=True)


@pytest.mark.slow
def test_the_real_validator_finds_the_demo_dataset_valid_and_a_broken_one_not(bids: Path, own_bids: Path) -> None:
    assert not checked(bids, validate=True).stops
    (own_bids / "dataset_description.json").write_text('{"Name": "Without a version", "License": "CC0"}')
    assert {one.rule for one in checked(own_bids, validate=True).stops} == {"bids-validity"}
