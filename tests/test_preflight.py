"""Preflight: what should not be published is found, named without its value, and stops the push or warns."""

import codecs
import gzip
import json
import os
import re
import stat
import struct
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import pytest
from pydantic import TypeAdapter, ValidationError

from tasks.card import side_files
from tasks.load import load
from tasks.plan import plan
from tasks.preflight import check, headers_of
from tasks.preflight.names import is_over_89, is_recent_date
from tasks.preflight.validator import COMMAND, ValidatorCrashed, ValidatorMissing
from tasks.report.artifacts import findings
from tasks.report.sentences import stopped
from tasks.values.errors import BadInput
from tasks.values.models import Dataset
from tasks.values.preflight_rules import RULES, STOPS, Checked, Entry, Finding, Statement, as_entry
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
    rows = [repr(row) for row in dataset.rows]
    files = [file.content or Path(dataset.root, file.path).read_bytes() for file in dataset.files]
    rows += [gzip.decompress(data).decode() if data[:2] == b"\x1f\x8b" else data.decode("latin-1") for data in files]
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
    findings = result.with_more(headers_of(dataset.rows, planted)).findings

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
    assert not {one.rule for one in headers_of(dataset.files, planted)} - {"free-text"}

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
        ({"00080090": {"vr": "PN", "Value": [{"Alphabetic": "Roe^Dr"}]}}, {("personal-data", "00080090")}),
        ({"00101001": {"vr": "PN", "Value": [{"Alphabetic": "anonymous"}]}, "00189999": {"vr": "PN"}}, set()),
        ({"00189999": {"vr": "PN", "Value": [{"Alphabetic": "Roe"}]}}, {("personal-data", "00189999")}),
        ({"00080050": {"vr": "SH", "Value": ["A4711"]}}, {("personal-data", "00080050")}),
        (
            {"00080020": {"vr": "DA", "Value": ["20190312"]}, "00080030": {"vr": "TM", "Value": ["142137"]}},
            {("date", "00080020")},
        ),
        (
            {"00080020": "20190312", "00189074": {"vr": "DT", "Value": ["20190312142137.1"]}},
            {("date", "00080020"), ("date", "00189074")},
        ),
        (
            {"0020000D": {"vr": "UI", "Value": ["1.2.3"]}, "00080016": {"vr": "UI", "Value": ["1.2.840.10008.5"]}},
            {("unique-identifier", "0020000D")},
        ),
        (
            {"00081140": {"vr": "SQ", "Value": [{"(0008,1070)": {"vr": "PN", "Value": [{"Alphabetic": "Roe"}]}}]}},
            {("personal-data", "(0008,1070)")},
        ),
        ({"00101010": {"vr": "AS", "Value": ["095Y"]}}, {("age-over-89", "00101010")}),
        ({"00101010": {"vr": "AS", "Value": ["045Y"]}, "00200010": {"vr": "SH", "Value": ["1"]}}, set()),
        (
            {
                "00080080": {"vr": "LO", "Value": ["X"]},
                "00181000": {"vr": "LO", "Value": ["1"]},
                "0008103E": {"vr": "LO", "Value": ["X"]},
            },
            {("institution", "00080080"), ("device", "00181000"), ("free-text", "0008103E")},
        ),
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
        (
            {"Csa": {"tReferenceImage0": "1.3.12.2.1107.5.2.32.35469.20160403134827480464630"}},
            {("unique-identifier", "tReferenceImage0")},
        ),
        ({"Frame": ["1.2.840.113619.2.55.3.2831.868.1"]}, {("unique-identifier", "Frame")}),
        ({"Frame": "2.25.329800735698586629295641978511506172918"}, {("unique-identifier", "Frame")}),
        (
            {
                "SyntaxName": "1.2.840.10008.1.2.4.90.100.1",
                "ImplementationClassUID": "1.2.276.0.7230010.3.0.3.6.5",
                "CodeList": "2.16.840.1.113883.6.96.1.1",
                "SoftwareVersion": "1.2.3.4.5.6",
            },
            set(),
        ),
        ({"Fluid": "water", "liquid": 1, "CerebrospinalFluid": 0.2, "druid": "x"}, set()),
        ({"AcquisitionDateTime": "1903-02-01T12:00:00"}, set()),
        ({"AcquisitionDateTime": "1926-01-01T12:00:00"}, {("date", "AcquisitionDateTime")}),
        ({"StudyDate": 20190312}, {("date", "StudyDate")}),
        ({"ContentDate": "12 March 2019"}, {("date", "ContentDate")}),
        ({"Remark": "2019-03-12 10:00"}, {("date", "Remark")}),
        ({"Begin": "15-Nov-2017 16:03:52"}, {("date", "Begin")}),
        ({"Begin": "3 May 2019"}, {("date", "Begin")}),
        ({"Begin": "15-Nov-1917 16:03:52", "SoftwareVersions": "EYELINK CL v5.12 May 12 2017"}, set()),
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
        ("age_months", "1079", None),
        ("age_months", "1080", "age-over-89"),
        ("age_weeks", "4696", None),  # 90 years of 365.25 days are 4,696.07 weeks
        ("age_weeks", "4697", "age-over-89"),
        ("age_days", "32872", None),
        ("age_days", "32873", "age-over-89"),
        ("age", "788939 hours", None),
        ("age", "788940 hours", "age-over-89"),
        ("patient_age", "91 years", "age-over-89"),
        ("stage", "95", None),
        ("page", "95", None),
        ("language", "99", None),
        ("wab_days", "8798", None),
        ("acq_time", "1925-12-31T10:00:00", None),
        ("acq_time", "1926-01-01T10:00:00", "date"),
        ("acq_time", "13:45:00", None),
        ("visit_date", "31.12.1925", None),
        ("visit_date", "01.01.1926", "date"),
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
        ("GebDatum", "2.1.1961", "personal-data"),
        ("Patientennummer", "4711", "personal-data"),
        ("nom_patient", "Jean", "personal-data"),
        ("Nombre del paciente", "Juan", "personal-data"),
        ("emergency contact", "Jean", "personal-data"),
        ("tel", "030 123", "personal-data"),
        ("Untersuchungsdatum", "3.4.2019", "date"),
        ("scan_datum", "03.04.2019", "date"),
        ("Fecha", "03/04/2019", "date"),
        ("fechaEscaneo", "20190403", "date"),
        ("date_irm", "03/04/2019", "date"),
        ("Datumsformat", "3.4.2019", None),
        ("Alter", "93", "age-over-89"),
        ("edad", "93", "age-over-89"),
        ("Âge", "93", "age-over-89"),
        ("alternation", "93", None),
        ("heredad", "93", None),
        ("city", "Berlin", "personal-data"),
        ("latitude", "52.45", "personal-data"),
        ("national_id", "1234", "personal-data"),
        ("study_id", "7", None),
        ("study_id", "70012", "personal-data"),
        ("ScannerSerialNumber", "35343.0", "device"),
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


def test_a_day_of_a_recording_that_is_a_folder_is_named_with_the_table_it_is_in(tmp_path: Path) -> None:
    recording = "sub-02/meg/sub-02_task-x_meg.ds"
    files: dict[str, Content] = {
        **{f"{recording}/{name}": b"x" for name in ("BadChannels", "sub-02_task-x_meg.meg4")},
        "sub-02/sub-02_scans.tsv": [["filename", "acq_time"], [recording[7:], "2019-04-29T10:29:00"]],
    }
    named = found(bids.one_subject(tmp_path, files))
    assert {key: one.files for key, one in named.items()} == {("date", "acq_time"): ("sub-02/sub-02_scans.tsv",)}


def test_events_are_searched_for_people_and_dates_and_a_stimulus_may_have_a_name(tmp_path: Path) -> None:
    stem = "sub-01/func/sub-01_task-x"
    files = {
        f"{stem}_bold.nii.gz": bids.IMAGE,
        f"{stem}_events.tsv": [["onset", "name", "surname", "at"], ["1", "dog", "Doe", "2019-01-02T03:04:05"]],
    }
    result = found(bids.one_subject(tmp_path, files))
    assert result.keys() == {("personal-data", "surname"), ("date", "at")}
    assert result["date", "at"].files == (f"{stem}_events.tsv",)


@pytest.mark.parametrize("day", ["02-Jan-2019 03:04:05", "2 January 2019", "2019/01/02"])
def test_a_day_is_found_in_any_column_of_events(tmp_path: Path, day: str) -> None:
    stem = "sub-01/func/sub-01_task-x"
    files: dict[str, Content] = {
        f"{stem}_bold.nii.gz": bids.IMAGE,
        f"{stem}_events.tsv": [["onset", "at"], ["1", day], ["2", "-2019.5"]],
    }
    assert found(bids.one_subject(tmp_path, files)).keys() == {("date", "at")}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"PatientID": "7"}, {("personal-data", "PatientID")}),
        ({"Site": {"Email": "doe@example.org"}}, {("personal-data", "Email")}),
        ({"StudyInstanceUID": "1.2.3"}, {("unique-identifier", "StudyInstanceUID")}),
        (
            {"AcquisitionDate": "2019-01-02", "Scan date": "02.01.2019"},
            {("date", "AcquisitionDate"), ("date", "Scan date")},
        ),
        ({"ReleaseDate": "2019-01-02", "StudyID": "NCT0123", "AccessionNumber": "ds1", "InstitutionName": "X"}, set()),
        (
            {"Authors": ["Doe, J."], "GeneratedBy": [{"Name": "x", "email": "a@b.org"}], "Funding": ["2019-01-02"]},
            set(),
        ),
    ],
)
@pytest.mark.parametrize("path", ["dataset_description.json", "derivatives/m/dataset_description.json"])
def test_in_a_description_what_is_no_field_of_bids_is_searched_for_people(
    tmp_path: Path, path: str, fields: dict[str, object], expected: set[tuple[str, str]]
) -> None:
    result = checked(bids.one_subject(tmp_path, {path: bids.description(**fields)}))
    assert {(one.rule, one.field) for one in result.findings} == expected
    assert all(one.files == (path,) for one in result.findings)


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


# --- allow, field by field ---


def test_an_entry_with_a_field_lifts_that_rule_in_that_field_alone(tmp_path: Path) -> None:
    root = of_sidecar({"PatientName": "Doe^John", "PatientID": "7", "StudyDate": "2019-01-01"})(tmp_path)
    result = checked(root, Statement("no faces", ("personal-data:PatientName", "date:PatientID")))
    assert [one.entry for one in result.stops] == ["personal-data:PatientID", "date:StudyDate"]
    assert [one.entry for one in result.lifted] == ["personal-data:PatientName"]
    assert result.idle == ("date:PatientID",)


def test_the_message_names_the_entry_that_lifts_each_finding_and_giving_these_publishes(tmp_path: Path) -> None:
    fields = {"Patient\u2019s  Name": "Doe^John", "(0010,0030)": "19600102", "at:time": "2019-01-01"}
    root = bids.one_subject(tmp_path, {"T1w.json": fields, "phenotype/a.tsv": "a\tb\n1\t2\t3\n"})
    result = checked(root, Statement())
    for said in (stopped(result), findings(result)):
        entries = re.findall(r"To allow it: `?(.*?)`?$", said, re.MULTILINE)
        assert len(entries) == 5
        assert not checked(root, Statement(allow=tuple(map(as_entry, entries)))).stops


@pytest.mark.parametrize("entry", ["personal-data:nmae", "date", "personal-data:patientname", "unreadable:PatientName"])
def test_an_entry_that_lifts_nothing_is_told_and_is_nowhere_called_allowed(tmp_path: Path, entry: str) -> None:
    result = checked(of_sidecar({"PatientName": "Doe"})(tmp_path), Statement("no faces", (entry,)))
    assert result.idle == (entry,) and not result.lifted
    for said in (stopped(result), findings(result)):
        assert f"{entry} lifts nothing" in said and "Allowed" not in said


@pytest.mark.parametrize(
    "entry", ["personal", "", "device", "header-text:descrip", "name:personal-data", "date:", "date: "]
)
def test_an_entry_that_is_no_rule_or_has_no_field_is_refused(entry: str) -> None:
    given = TypeAdapter[str](Entry)
    with pytest.raises(ValidationError):
        given.validate_python(entry)
    assert not re.search(given.json_schema()["pattern"], entry)


@pytest.mark.parametrize(
    ("entry", "as_found"), [("date", "date"), (" date : acq_time ", "date:acq_time"), ("date:a  b:c", "date:a b:c")]
)
def test_spaces_around_an_entry_are_no_matter(entry: str, as_found: str) -> None:
    given = TypeAdapter[str](Entry)
    assert given.validate_python(entry) == as_found and re.search(given.json_schema()["pattern"], entry)


@pytest.mark.parametrize(
    ("path", "column", "rule"),
    [
        ("desc-aseg_dseg.tsv", "name", None),
        ("desc-aseg_stats.tsv", "name", None),
        ("desc-gtmseg_morph.tsv", "name", None),
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


# --- places ---


@pytest.mark.parametrize(
    ("field", "in_json", "of_people"),
    [
        ("latitude", True, True),
        ("Longitude", True, True),
        ("GPSLatitude", True, True),
        ("home_lat", True, True),
        ("gps coordinates", True, True),
        ("longitude_of_home", True, True),
        ("lng", False, True),
        ("lat", False, True),
        ("GPS_score", False, False),
        ("platitudes", False, False),
        ("lateralization", False, False),
        ("lesion_coordinates", False, False),
    ],
)
def test_coordinates_on_earth_are_found(tmp_path: Path, field: str, in_json: bool, of_people: bool) -> None:
    found_in = lambda files: bool(checked(bids.one_subject(tmp_path, files)).stops)  # noqa: E731 - four times
    assert found_in({"T1w.json": {field: 48.137}}) == in_json
    assert not found_in({"T1w.json": {}, "task-x_events.tsv": [["onset", field], ["1", "48.137"]]})
    assert found_in({"phenotype/a.tsv": [["participant_id", field], ["sub-01", "48.137"]]}) == of_people


# --- paths ---


def in_paths(root: Path, *files: str, people: list[list[str]] | None = None) -> list[tuple[str, tuple[str, ...]]]:
    """What is found in the names of these images and texts: what it is, and the files as they are shown."""
    tables: dict[str, Content] = {"participants.tsv": people} if people else {}
    bids.one_subject(root, {**tables, **{file: bids.IMAGE if ".nii" in file else "x" for file in files}})
    statement = Statement("no faces", (), ("name", "surname", "Vorname"))
    return [(one.field, one.files) for one in checked(root, statement).stops if one.rule == "personal-path"]


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (
            "sub-01/ses-20190724/anat/sub-01_ses-20190724_T1w.nii.gz",
            "sub-01/ses-(date)/anat/sub-01_ses-(date)_T1w.nii.gz",
        ),
        ("sub-19480211/anat/sub-19480211_T1w.nii", "sub-(date)/anat/sub-(date)_T1w.nii"),
        ("sub-20190724142137/anat/sub-20190724142137_T1w.nii", "sub-(date)/anat/sub-(date)_T1w.nii"),
        ("sub-01/anat/sub-01_acq-t20190724x_T1w.nii", "sub-01/anat/sub-01_acq-t(date)x_T1w.nii"),
        ("sub-18990724/anat/sub-18990724_T1w.nii", None),
        ("sub-20190732/anat/sub-20190732_T1w.nii", None),
        ("sub-29990101/anat/sub-29990101_T1w.nii", None),
        ("sub-0120190724/anat/sub-0120190724_T1w.nii", None),
        ("derivatives/p-20190724/sub-01/anat/sub-01_desc-x_mask.nii", None),
        ("phenotype/release-20190724.txt", None),
    ],
)
def test_a_day_in_the_path_of_a_subjects_file_is_found_and_not_repeated(
    tmp_path: Path, path: str, shown: str | None
) -> None:
    assert in_paths(tmp_path, path) == ([("date", (shown,))] if shown else [])


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        ("phenotype/of_john.doe@uni.example.org.tsv", "phenotype/of_(address).tsv"),
        ("derivatives/doe@example.org/sub-01/anat/sub-01_desc-x_mask.nii.gz",
         "derivatives/(address)/sub-01/anat/sub-01_desc-x_mask.nii.gz"),
        ("derivatives/p@2/sub-01/anat/sub-01_desc-x_mask.nii.gz", None),
        ("phenotype/at@home.tsv", None),
    ],
)  # fmt: skip
def test_an_address_in_a_path_is_found_and_not_repeated(tmp_path: Path, path: str, shown: str | None) -> None:
    assert in_paths(tmp_path, path) == ([("e-mail address", (shown,))] if shown else [])


def test_the_names_of_files_that_are_left_out_stand_in_their_table_without_what_is_found_in_them(
    tmp_path: Path,
) -> None:
    people = [["participant_id", "name"], ["sub-01", "John Doe"]]
    files = {
        "participants.tsv": people,
        "notes/of_doe.py": "",
        "notes/me@lab.org": "",
        "notes/a@b.org/for-john_doe@b.org.py": "",
        "sub-01/20190724.pdf": "",
    }
    loaded = bids.one_subject(tmp_path, files)
    left, found = check(load(loaded), Statement("no faces", (), ("name",)))
    assert not [one for one in found.stops if one.rule == "personal-path"]
    table = side_files(left)["bids/left_out.tsv"].decode()
    assert [line.split("\t")[0] for line in table.splitlines()[1:]] == [
        "notes/(address)",
        "notes/(address)/for-(name)_(address).py",
        "notes/of_(name).py",
        "sub-01/(date).pdf",
    ]


@pytest.mark.parametrize(
    ("name", "path", "shown"),
    [
        ("Doe, John", "sub-JohnDoe/anat/sub-JohnDoe_T1w.nii", "sub-(name)/anat/sub-(name)_T1w.nii"),
        ("John Doe", "sub-doejohn/anat/sub-doejohn_T1w.nii", "sub-(name)/anat/sub-(name)_T1w.nii"),
        ("Doe", "sub-doe01/anat/sub-doe01_T1w.nii", "sub-(name)01/anat/sub-(name)01_T1w.nii"),
        ("M\u00fcller", "phenotype/of_muller.txt", "phenotype/of_(name).txt"),
        ("M\u00fcller", "phenotype/of_M\u00fcller.txt", "phenotype/of_(name).txt"),
        ("Rest", "sub-01/func/sub-01_task-Rest_bold.nii", None),
        ("Doe", "sub-Doehler/anat/sub-Doehler_T1w.nii", None),
        ("n/a", "sub-na/anat/sub-na_T1w.nii", None),
        ("control01", "sub-control01/anat/sub-control01_T1w.nii", None),
    ],
)
def test_a_name_of_the_participants_table_is_found_in_paths_although_it_is_stripped_there(
    tmp_path: Path, name: str, path: str, shown: str | None
) -> None:
    people = [["participant_id", "name"], ["sub-01", name]]
    assert in_paths(tmp_path, path, people=people) == ([("name in participants.tsv", (shown,))] if shown else [])


def test_names_that_no_table_gives_are_not_guessed(tmp_path: Path) -> None:
    assert in_paths(tmp_path, "sub-JohnDoe/anat/sub-JohnDoe_T1w.nii") == []


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


STEM = "sub-01/func/sub-01_task-x"
VISIT = {"sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz": bids.IMAGE}
MASK = {"derivatives/m/sub-01/anat/sub-01_desc-x_mask.nii.gz": bids.IMAGE}


@pytest.mark.parametrize(
    "files",
    [
        {"task-x_bold.json": {"PatientName": "Doe^J"}},
        {"T1w.json": {"a": [{"b": {"PatientName": ["Doe^J"]}}]}},
        {"T1w.json": {" Patient  Name ": "Doe^J"}},
        {"phenotype/a.json": '{"\\u0050atientName": "Doe^J"}'},
        {"phenotype/a.json": '{"Pr\\u00C9nom": "Doe^J"}'},
        {"phenotype/a.json": '{"PatientName": "Doe^J", "PatientName": ""}'},
        {"phenotype/a.json": '{"a": {"PatientName": "Doe^J"}, "a": {}}'},
        {"participants.tsv": [["participant_id", " Patient  Name "], ["sub-01", "Doe^J"]]},
        {"participants.json": {"age": {"PatientName": "Doe^J"}}},
        {"sub-01/sub-01_sessions.tsv": [["session_id", "name"], ["ses-a", "Doe^J"]], **VISIT},
        {"sub-01/sub-01_scans.tsv": [["filename", "name"], ["anat/sub-01_T1w.nii.gz", "Doe^J"]]},
        {"phenotype/a.tsv": [["participant_id", "first  name"], ["sub-01", "Doe^J"]]},
        {"phenotype/a.csv": "participant_id, name \r\nsub-01,Doe^J\r\n"},
        {f"{STEM}_events.tsv": [["onset", "surname"], ["1", "Doe^J"]]},
        {"task-x_events.tsv": [["onset"], ["1"]], "task-x_events.json": {"surname": "Doe^J"}},
        {"sub-01/eeg/sub-01_eeg.edf": b"1", "sub-01/eeg/sub-01_channels.tsv": [["name", "surname"], ["Cz", "Doe^J"]]},
        {"sub-01/eeg/sub-01_eeg.edf": b"1", "sub-01/eeg/sub-01_electrodes.tsv": [["name", "surname"], ["Cz", "Doe^J"]]},
        {"sub-01/eeg/sub-01_eeg.edf": b"1", "sub-01/eeg/sub-01_coordsystem.json": {"PatientName": "Doe^J"}},
        {"sub-01/pet/sub-01_pet.nii": bids.IMAGE, "sub-01/pet/sub-01_blood.tsv": [["time", "surname"], ["0", "Doe^J"]]},
        {
            "sub-01/perf/sub-01_asl.nii": bids.IMAGE,
            "sub-01/perf/sub-01_aslcontext.tsv": [["volume_type", "surname"], ["control", "Doe^J"]],
        },
        {"dataset_description.json": bids.description(PatientName="Doe^J")},
        {"derivatives/m/dataset_description.json": {"Name": "m", "PatientName": "Doe^J"}, **MASK},
        {"derivatives/m/participants.tsv": [["participant_id", "name"], ["sub-01", "Doe^J"]], **MASK},
        {"phenotype/of_dataset_description.json": {"PatientName": "Doe^J"}},
    ],
)
def test_to_strip_what_the_finding_names_leaves_it_nowhere(tmp_path: Path, files: dict[str, Content]) -> None:
    dataset = load(bids.one_subject(tmp_path, {f"{STEM}_bold.nii.gz": bids.IMAGE, **files}))
    _, before = check(dataset, STATED)
    assert "Doe^J" in everything(dataset) and before.stops
    left, after = check(dataset, Statement("no faces", (), tuple(one.field for one in before.stops)))
    assert not after.stops and not after.unstripped
    assert "Doe^J" not in everything(left) + repr(left.description)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"T1w.json": {"Patient": "Doe"}}, "strip: Name is named in dataset_description.json"),
        ({"T1w.json": {"Name": "Doe"}, "README": "Name:\tDoe"}, "Name is named in README, dataset_description.json, w"),
        ({"phenotype/a.txt": "Name Doe\n"}, "Name is named in dataset_description.json, phenotype/a.txt, which strip"),
    ],
)
def test_where_strip_does_not_reach_a_field_is_said(tmp_path: Path, files: dict[str, Content], words: str) -> None:
    dataset = load(bids.one_subject(tmp_path, files))
    left, result = check(dataset, Statement("no faces", (), ("Name",)))
    (sentence,) = result.unstripped
    assert words in sentence and "Doe" not in sentence and sentence in findings(result)
    assert left.description == dataset.description


@pytest.mark.parametrize("field", ["patientname", "PatientNames", "Nam"])
def test_a_field_to_strip_that_is_nowhere_is_said(tmp_path: Path, field: str) -> None:
    root = of_sidecar({"PatientName": "Doe"})(tmp_path)
    result = checked(root, Statement("no faces", (), (field, "PatientName")))
    assert [sentence for sentence in result.unstripped if f"strip: {field} is no field" in sentence] == [
        *result.unstripped
    ]
    assert not result.stops


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


@pytest.mark.parametrize("nifti2", [False, True])
@pytest.mark.parametrize("name", ["sub-01_T2w.nii", "sub-01_T2w.nii.gz"])
@pytest.mark.parametrize(("before", "size"), [(0, 0), (1, 5_000), (1, 3_000_000), (40, 500)])
def test_a_dicom_header_in_an_image_stops_however_far_on_it_is(
    tmp_path: Path, name: str, nifti2: bool, before: int, size: int
) -> None:
    extension = nibabel.nifti1.Nifti1Extension
    comments = [extension("comment", os.urandom(size)) for _ in range(before)]
    data = image_with(extensions=[*comments, extension(2, b"Doe^John")], nifti2=nifti2)
    path = f"sub-01/anat/{name}"
    root = bids.one_subject(tmp_path, {path: gzip.compress(data) if name.endswith(".gz") else data})
    stop = Checked(STATED, headers_of(load(root).images, root)).stops
    assert [(one.entry, one.files) for one in stop] == [("dicom-header:extension 2 (DICOM)", (path,))]
    assert not Checked(Statement(allow=(stop[0].entry,)), stop).stops


def test_as_many_extensions_as_are_looked_at_are_no_reason_to_stop(tmp_path: Path) -> None:
    extensions = [nibabel.nifti1.Nifti1Extension("comment", b"")] * 1024
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T2w.nii": image_with(extensions=extensions)})
    assert Checked(STATED, headers_of(load(root).images, root)).stops == ()


def test_a_chain_of_extensions_without_an_end_stops_and_holds_nobody_up(tmp_path: Path) -> None:
    data = bytearray(image_with())
    data[348] = 1
    struct.pack_into("<f", data, 108, 1e9)
    data[352:] = struct.pack("<2i", 8, 6) * 5000
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T2w.nii": bytes(data)})
    stops = Checked(STATED, headers_of(load(root).images, root)).stops
    assert [one.entry for one in stops] == ["dicom-header:more than 1,024 extensions"]


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


@pytest.mark.parametrize(
    ("value", "named", "found"),
    [
        ("2019-07-23", False, True), ("1925-12-31", False, False), ("1926-01-01", False, True), (20190723, True, True),
        ("20190723", False, False), ("23.07.2019", True, True), ("23.07.1925", True, False), ("23/07/19", True, True),
        ("23 July 2019", True, True), ("July 23, 2019", True, True), ("2019/07", True, True), ("soon", True, False),
        ("soon", False, False), (None, True, False), (["2019-07-23"], True, False),
    ],
)  # fmt: skip
def test_a_date_after_1925_is_known_by_its_spelling_or_by_its_fields_name(
    value: object, named: bool, found: bool
) -> None:
    assert is_recent_date(value, named) is found


@pytest.mark.parametrize(
    ("value", "years", "over"),
    [
        (89, 1.0, False), (90, 1.0, True), ("89.9", 1.0, False), ("90,5", 1.0, True), ("89+", 1.0, False),
        (">89", 1.0, False), ("90+", 1.0, False), ("91+", 1.0, True), (1079, 1 / 12, False), (1081, 1 / 12, True),
        ("old", 1.0, False), (None, 1.0, False), ("", 1.0, False),
    ],
)  # fmt: skip
def test_an_age_of_ninety_years_or_more_is_found_whatever_its_unit(value: object, years: float, over: bool) -> None:
    assert is_over_89(value, years) is over
