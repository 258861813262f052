"""Preflight of recordings: what their headers say about people is found, and what cannot be read is said to be so."""

import builtins
import gzip
import json
import struct
import subprocess
import sys
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import ExifTags, TiffImagePlugin
from PIL import Image as Picture
from scipy import io

from tasks.card.body import _allowed
from tasks.preflight import headers_of
from tasks.preflight.recordings import format_of, texts
from tasks.preflight.recordings.said import Kind, Said, in_value, tells
from tasks.report.artifacts import findings
from tasks.report.sentences import stopped
from tasks.values.models import Image
from tasks.values.preflight_rules import RULES, Checked, Finding, Statement
from tests import recordings

EDF, VHDR, VMRK, SET, FIF, SNIRF, NWB, TIFF, PNG, RES4 = (
    "sub-01/eeg/sub-01_task-rest_eeg.edf",
    "sub-01/eeg/sub-01_task-rest_eeg.vhdr",
    "sub-01/eeg/sub-01_task-rest_eeg.vmrk",
    "sub-01/eeg/sub-01_task-rest_eeg.set",
    "sub-01/meg/sub-01_task-rest_meg.fif",
    "sub-01/nirs/sub-01_task-rest_nirs.snirf",
    "sub-01/ieeg/sub-01_task-rest_ieeg.nwb",
    "sub-01/micr/sub-01_sample-A_TEM.tif",
    "sub-01/micr/sub-01_sample-A_TEM.png",
    "sub-01/meg/sub-01_task-rest_meg.ds/sub-01_task-rest_meg.res4",
)
Written = bytes | Callable[[Path], bytes]


def checked(root: Path, files: Mapping[str, Written]) -> tuple[Finding, ...]:
    """What is found in these files, written below the root."""
    images = []
    for path, written in files.items():
        file = root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(written if isinstance(written, bytes) else written(root))
        images.append(Image(path, 1, 0, "raw", "01", None, "eeg", "eeg"))
    return headers_of(images, root)


def entries(found: tuple[Finding, ...]) -> set[str]:
    return {one.entry for one in found}


def headers(*fields: str) -> set[str]:
    return {f"recording-header:{field}" for field in fields}


@pytest.fixture
def without_readers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker on which the extra is not installed."""
    import_ = builtins.__import__

    def refuse(name: str, *more: Any) -> Any:
        if name.partition(".")[0] in ("mne", "h5py", "scipy"):
            raise ImportError(f"No module named {name!r}")
        return import_(name, *more)

    monkeypatch.setattr(builtins, "__import__", refuse)


# --- planted ---

PLANTED: list[tuple[str, Written, Mapping[str, str]]] = [
    (EDF, recordings.planted_edf(), recordings.EDF),
    (
        EDF.replace(".edf", ".bdf"),
        recordings.planted_edf(bdf=True),
        {field.replace("EDF", "BDF"): value for field, value in recordings.EDF.items()},
    ),
    (VHDR, recordings.planted_vhdr(), recordings.BRAINVISION),
    (VHDR, recordings.planted_vhdr("ANSI"), recordings.BRAINVISION),
    (VMRK, recordings.planted_vmrk(), {k: v for k, v in recordings.MARKERS.items() if v}),
    (SET, recordings.planted_eeglab, recordings.EEGLAB),
    (SET, lambda path: recordings.planted_eeglab(path, flat=True), recordings.EEGLAB),
    (SET, lambda path: recordings.planted_eeglab(path, newer=True), recordings.EEGLAB),
    (SNIRF, recordings.planted_snirf, recordings.SNIRF),
    (NWB, recordings.planted_nwb, recordings.NWB),
    (RES4, recordings.planted_res4(), recordings.CTF),
    (TIFF, recordings.planted_tiff, recordings.TIFF),
    (PNG, recordings.planted_png, recordings.PNG),
    (FIF, lambda path: recordings.fif(path, recordings.raw()), recordings.FIF),
]


@pytest.mark.parametrize(("path", "written", "planted"), PLANTED)
def test_each_field_that_tells_who_it_was_is_found_and_no_value_is_in_what_is_said(
    tmp_path: Path, path: str, written: Written, planted: Mapping[str, str]
) -> None:
    found = checked(tmp_path, {path: written})

    assert entries(found) == headers(*planted)
    data = (tmp_path / path).read_bytes()
    told = Checked(Statement(), found)
    everything = "\n".join([*map(repr, found), *map(str, found), findings(told), stopped(told)])
    for value in planted.values():
        assert value not in everything
    if path not in (FIF, SET, NWB, PNG):  # there, letters are numbers, deflated or apart
        assert all(value.encode() in data for value in planted.values())
    assert all(one.files == (path,) for one in found)


@pytest.mark.parametrize(("path", "written", "planted"), PLANTED[:1])
def test_what_was_found_stops_the_push_until_it_is_allowed(
    tmp_path: Path, path: str, written: Written, planted: Mapping[str, str]
) -> None:
    found = checked(tmp_path, {path: written})
    name = "recording-header:EDF patient name"
    assert name in {one.entry for one in Checked(Statement(), found).stops}
    assert name not in {one.entry for one in Checked(Statement(allow=(name,)), found).stops}
    assert not Checked(Statement(allow=("recording-header",)), found).stops


def test_an_entry_about_recordings_is_on_the_card_in_the_nights_that_publish_nothing_too() -> None:
    quiet = Checked(Statement(allow=("recording-unchecked:KIT",)))
    assert _allowed(quiet) == {"recording-unchecked": {"KIT"}}
    assert not quiet.idle


# --- harmless ---


@pytest.mark.parametrize(
    ("path", "written"),
    [
        (EDF, recordings.edf("X X X X", "Startdate X X X X")),
        (EDF, recordings.edf("", "")),
        (EDF, recordings.edf("sub-01 F X X", "Startdate 01-JAN-1985 X X BioSemi")),
        (EDF, recordings.edf("01 F 01-JAN-1900 sub-01", "Startdate X X X X", "01.01.00")),
        (EDF, recordings.edf("0 X X mne_anonymize", "Startdate 01-JAN-2000 X mne_anonymize X", "01.01.00")),
        (EDF, recordings.edf("anonymous", "n/a")),
        (VHDR, recordings.vhdr()),
        (VHDR, recordings.vhdr("$b.eeg", comment=recordings.RECORDER)),
        (VHDR, recordings.vhdr("sub-01_ses-02_task-rest_eeg.eeg", codepage="ANSI", comment=recordings.RECORDER)),
        (VMRK, recordings.vmrk("New Segment,,1,1,0,00000000000000000000", "Comment,BAD_blink,5,1,0")),
        (VMRK, recordings.vmrk("New Segment,,1,1,0,19240724142137345000", "New Segment,,9,1,0")),
        (SET, lambda path: recordings.eeglab(path, subject="sub-01", filename="sub-01_task-rest_eeg.set")),
        (SET, lambda path: recordings.eeglab(path, newer=True, subject="01", setname="BDF file resampled")),
        (SET, lambda path: recordings.eeglab(path, comments="Original file: raw/x.bdf", filepath="./eeg")),
        (SNIRF, lambda path: recordings.snirf(path, SubjectID="1", MeasurementDate="unknown", MeasurementTime="10:00")),
        (SNIRF, lambda path: recordings.snirf(path, SubjectID="sub-01", MeasurementDate="1921-03-04", Model="X2")),
        (RES4, recordings.res4(subject_id="sub-01", time="10:00", date="", operator="")),
        (
            TIFF,
            lambda path: recordings.tiff(path, Software="of 2019-07-23", ImageDescription='{"shape": [4]}'),
        ),
        (TIFF, lambda path: recordings.tiff(path, DateTime="1920:01:01 00:00:00", ImageDescription="ImageJ=1.53\n")),
    ],
)
def test_what_names_nobody_is_no_finding(tmp_path: Path, path: str, written: Written) -> None:
    assert checked(tmp_path, {path: written}) == ()


@pytest.mark.parametrize("days", [None, 40_000])
def test_a_recording_that_mne_has_anonymised_is_no_finding(tmp_path: Path, days: int | None) -> None:
    made = recordings.raw().anonymize(daysback=days, verbose="ERROR")
    assert checked(tmp_path, {FIF: recordings.fif(tmp_path, made)}) == ()


def test_another_subjects_label_is_a_finding(tmp_path: Path) -> None:
    assert entries(checked(tmp_path, {EDF: recordings.edf("sub-02 F X X", "")})) == headers("EDF patient id")
    assert entries(checked(tmp_path, {EDF: recordings.edf("sub-011 F X X", "")})) == headers("EDF patient id")


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        ("trace", "made on 2019-07-23 by a program", True),
        ("trace", "23.07.2019", True),
        ("trace", "Tue Jul 23 14:21:37 2019", True),
        ("trace", "EEGLAB 2021.1, version 14.1.2", False),
        ("trace", "1919-07-23", False),
        ("trace", "somebody@somewhere.example", True),
        ("trace", r"C:\Users\somebody\data", True),
        ("trace", "/data/raw/x.edf", False),
        ("date", "23/07/19", True),
        ("date", "Whitsun", True),
        ("date", "1919-07-23", False),
        ("date", "20190723", True),
        ("date", "", False),
        ("date", "2000-01-01", False),
        ("text", "xxx", False),
        ("id", "SUB-01", False),
        ("id", "1", False),
        ("id", "12", True),
    ],
)
def test_what_tells_who_and_when(kind: Kind, value: str, told: bool) -> None:
    assert tells(Said("field", value, kind), "01") is told


def test_a_value_is_in_no_trace_of_an_error() -> None:
    assert "Quillfeather" not in repr(Said("EDF patient name", "Quillfeather", "id"))


# --- other formats ---


def test_ome_xml_names_its_experimenters_and_the_day(tmp_path: Path) -> None:
    path = "sub-01/micr/sub-01_sample-A_FLUO.ome.tif"
    found = checked(tmp_path, {path: lambda root: recordings.tiff(root, ImageDescription=recordings.OME)})
    names = ("AcquisitionDate", "Email", "FirstName", "Institution", "LastName")
    assert entries(found) == headers(*(f"OME-XML {name}" for name in names))


def test_a_tag_of_a_name_that_is_a_persons_is_not_shown(tmp_path: Path) -> None:
    found = checked(tmp_path, {SNIRF: lambda root: recordings.snirf(root, QuillfeatherA="q@quillfeather.example")})
    assert entries(found) == headers("SNIRF")


def test_files_of_a_ctf_folder_are_looked_at_each_as_what_it_is(tmp_path: Path) -> None:
    folder = "sub-01/meg/sub-01_task-rest_meg.ds/"
    people = {"PATIENT_NAME_LAST": "Ravenscroft", "PATIENT_SEX": "1", "DATASET_COLLECTIONDATETIME": "20160724142137"}
    files: dict[str, Written] = {
        f"{folder}sub-01_task-rest_meg.meg4": b"MEG41CP\0" + b"2019-07-23 Ravenscroft",
        f"{folder}sub-01_task-rest_meg.infods": recordings.infods(**people),
        f"{folder}sub-01_task-rest_meg.hist": b"OPERATOR: Ravenscroft\nDATE:\nrun 1\n",
        f"{folder}MarkerFile.mrk": b"PATH OF DATASET:\n/home/ravenscroft/a.ds\n",
        f"{folder}BadChannels": b"MLC11\n",
        f"{folder}hz.ds/a.hz": b"\0\1",  # of the machine: no text
        f"{folder}odd.bin": b"\0\1Ravenscroft",
    }
    found = {one.entry: one.files[0].rpartition(".")[2] for one in checked(tmp_path, files)}
    assert found == {
        "recording-header:CTF PATIENT_NAME_LAST": "infods",
        "recording-header:CTF DATASET_COLLECTIONDATETIME": "infods",
        "recording-header:CTF hist": "hist",
        "recording-header:CTF mrk": "mrk",
        "recording-unchecked:CTF": "bin",
    }


def test_json_and_xml_of_folders_are_looked_through_and_chunks_have_no_header(tmp_path: Path) -> None:
    zarr, mff = "sub-01/micr/sub-01_sample-A_SPIM.ome.zarr/", "sub-01/eeg/sub-01_task-rest_eeg.mff/"
    subject = b"<patient><fields><field><name>localIdentifier</name><data>Ravenscroft</data></field></fields></patient>"
    found = checked(
        tmp_path,
        {
            f"{zarr}.zattrs": json.dumps({"omero": {"PatientName": "Ravenscroft", "name": "a"}}).encode(),
            f"{zarr}0/.zarray": b'{"chunks": [4, 4], "zarr_format": 2}',
            f"{zarr}0/0/1": b"2019-07-23 PatientName",
            f"{zarr}0/1.0": b"2019-07-23 PatientName",
            f"{mff}subject.xml": subject,
            f"{mff}info.xml": b"<fileInfo><recordTime>2017-09-20T09:55:44-04:00</recordTime></fileInfo>",
            f"{mff}signal1.bin": b"2019-07-23",
        },
    )
    assert entries(found) == headers("Zarr PatientName", "MFF localIdentifier", "MFF recordTime")


def test_samples_beside_a_header_have_none_and_alone_nobody_knows_what_they_are(tmp_path: Path) -> None:
    alone = checked(tmp_path, {VHDR.replace(".vhdr", ".eeg"): b"2019-07-23"})
    assert entries(alone) == {"recording-unchecked:.eeg"}
    assert checked(tmp_path, {VHDR: recordings.vhdr(), VHDR.replace(".vhdr", ".eeg"): b"2019-07-23"}) == ()
    set_: dict[str, Written] = {SET: lambda root: recordings.eeglab(root), SET.replace(".set", ".fdt"): b"2019-07-23"}
    assert checked(tmp_path, set_) == ()


@pytest.mark.parametrize(
    ("path", "data", "unchecked"),
    [
        ("sub-01/func/sub-01_task-rest_physio.tsv.gz", gzip.compress(b"0.1\t-2e-3\tn/a\n" * 99999, mtime=0), None),
        ("sub-01/func/sub-01_task-rest_physio.tsv.gz", gzip.compress(b"cardiac\ttrigger\n1\t2\n", mtime=0), "physio"),
        ("sub-01/func/sub-01_task-rest_stim.tsv.gz", gzip.compress(b"", mtime=0), "stim"),
        ("sub-01/func/sub-01_task-rest_stim.tsv.gz", b"\x1f\x8bnonsense", None),  # staging refuses it
        ("sub-01/motion/sub-01_task-walk_tracksys-a_motion.tsv", b"1.0\t2.0\n", None),
        ("sub-01/motion/sub-01_task-walk_tracksys-a_motion.tsv", b"", "motion"),
        ("sub-01/meg/sub-01_acq-calibration_meg.dat", b"111 0.1 -2.5e-3\n112 0.2 1\n", None),
        ("sub-01/meg/sub-01_acq-calibration_meg.dat", b"made by Ravenscroft\n", "MEG calibration"),
    ],
)
def test_tables_without_names_are_numbers(tmp_path: Path, path: str, data: bytes, unchecked: str | None) -> None:
    assert entries(checked(tmp_path, {path: data})) == ({f"recording-unchecked:{unchecked}"} if unchecked else set())


def test_a_damaged_stream_in_a_recordings_folder_is_unchecked_since_staging_takes_it_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = "sub-01/meg/sub-01_task-rest_meg.mff/notes.tsv.gz"  # read as a table, which no format of ours does so far
    monkeypatch.setattr("tasks.preflight.recordings.format_of", lambda path, root: ("MFF", texts.numbers))
    assert entries(checked(tmp_path, {path: b"\x1f\x8bnonsense"})) == {"recording-unchecked:MFF"}


def test_messages_of_an_eye_tracker_are_looked_through_to_the_last(tmp_path: Path) -> None:
    path = "sub-01/func/sub-01_task-rest_recording-eye1_physioevents.tsv.gz"
    lines = b"10\tn/a\tblink\tn/a\n" * 80_000
    assert checked(tmp_path, {path: gzip.compress(lines)}) == ()
    found = checked(tmp_path, {path: gzip.compress(lines + b"11\tn/a\tn/a\tDATE: Tue Jul 23 14:21:37 2019")})
    assert entries(found) == headers("eye tracker message")
    two = gzip.compress(lines) + gzip.compress(b"11\tn/a\tn/a\tDATE: Tue Jul 23 14:21:37 2019")  # two members
    assert entries(checked(tmp_path, {path: two})) == headers("eye tracker message")
    cut = gzip.compress(np.random.default_rng(1).bytes(9999))[:5000]
    assert "recording-unchecked:physioevents" not in entries(checked(tmp_path, {path: cut}))  # staging refuses it


def fif_tags(*kinds: int) -> bytes:
    return b"".join(struct.pack(">iIii4x", kind, 3, 4, 0) for kind in kinds)


def test_cross_talk_has_nobody_in_it_unless_it_says_who(tmp_path: Path) -> None:
    path = "sub-01/meg/sub-01_acq-crosstalk_meg.fif"
    assert checked(tmp_path, {path: fif_tags(100, 101, 104, 204, 105)}) == ()
    for data in (fif_tags(100, 104, 401), fif_tags(100)[:7]):
        assert entries(checked(tmp_path, {path: data})) == {"recording-unchecked:FIF"}


@pytest.mark.parametrize("kind", [212, 400, 419, 500, 504])
def test_cross_talk_that_names_a_subject_an_experimenter_or_a_project_is_not_looked_through(
    tmp_path: Path, kind: int
) -> None:
    path = "sub-01/meg/sub-01_acq-crosstalk_meg.fif"
    assert entries(checked(tmp_path, {path: fif_tags(100, kind)})) == {"recording-unchecked:FIF"}
    assert checked(tmp_path, {path: fif_tags(100, 211, 213, 399, 420, 499, 505)}) == ()  # beside these, others' tags


TIFF_TAGS = (
    "DocumentName", "PageName", "DateTime", "Artist", "HostComputer", "Copyright", "DateTimeOriginal",
    "DateTimeDigitized", "UserComment", "XPComment", "XPAuthor", "CameraOwnerName",
)  # fmt: skip


@pytest.mark.parametrize("name", TIFF_TAGS)
def test_a_tag_of_a_tiff_is_named_as_the_standards_name_it(tmp_path: Path, name: str) -> None:
    said = "2018:04:03 11:12:13" if "Date" in name else "Perpetua <perpetua@example.org>"
    found = checked(tmp_path, {TIFF: lambda path: recordings.tiff(path, **{name: said})})
    assert entries(found) == headers(f"TIFF {name}")


def second_image() -> Picture.Image:
    """An image that has an artist."""
    info = TiffImagePlugin.ImageFileDirectory_v2()
    info[ExifTags.Base.Artist] = "Perpetua"
    image = Picture.new("L", (4, 4))
    image.encoderinfo = {"tiffinfo": info}
    return image


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("Artist", lambda path: recordings.tiff(path, saved={"big_tiff": True}, Artist="Perpetua")),
        ("Artist", lambda path: recordings.tiff(path, saved={"save_all": True, "append_images": [second_image()]})),
        ("UserComment", lambda path: recordings.tiff(path, type_=4, ExifOffset={37510: b"of Perpetua"})),
        ("XPAuthor", lambda path: recordings.tiff(path, type_=3, XPAuthor=tuple(b"P\0e\0r\0p\0e\0t\0u\0a\0"))),
        ("XPAuthor", lambda path: recordings.tiff(path, type_=7, XPAuthor=b"P\0e\0r\0p\0e\0t\0u\0a\0")),
    ],
    ids=["BigTIFF", "its second image", "Exif", "letters as numbers", "letters as bytes"],
)
def test_wherever_and_however_a_tiff_has_its_tags_they_are_found(tmp_path: Path, name: str, written: Written) -> None:
    assert entries(checked(tmp_path, {TIFF: written})) == headers(f"TIFF {name}")


@pytest.mark.parametrize("name", ["DateTime", "DateTimeOriginal", "DateTimeDigitized"])
@pytest.mark.parametrize(("said", "is_found"), [("1919:04:03 11:12:13", False), ("the day after Easter", True)])
def test_a_date_of_a_tiff_may_be_one_that_was_shifted_and_nothing_else(
    tmp_path: Path, name: str, said: str, is_found: bool
) -> None:
    found = checked(tmp_path, {TIFF: lambda path: recordings.tiff(path, **{name: said})})
    assert entries(found) == (headers(f"TIFF {name}") if is_found else set())


def test_a_brainvision_header_of_more_than_64_mib_is_not_looked_through(tmp_path: Path) -> None:
    def large(root: Path) -> bytes:
        return recordings.vhdr().ljust((64 << 20) + 1)

    assert entries(checked(tmp_path, {VHDR: large})) == {"recording-unchecked:BrainVision"}


# --- what cannot be read ---


@pytest.mark.parametrize("path", [EDF, VHDR, VMRK, SET, FIF, SNIRF, NWB, TIFF, PNG, RES4])
@pytest.mark.parametrize("data", [b"", b"Ravenscroft", bytes(5000)])
def test_a_damaged_or_empty_recording_is_unchecked_and_the_others_are_checked(
    tmp_path: Path, path: str, data: bytes
) -> None:
    other = "sub-01/eeg/sub-01_task-other_eeg.edf"
    found = {one.entry: one.files for one in checked(tmp_path, {path: data, other: recordings.edf("Doe", "")})}
    assert found.pop("recording-header:EDF patient") == (other,)
    assert found == {f"recording-unchecked:{format_of(path, tmp_path)[0]}": (path,)}


@pytest.mark.parametrize(
    ("path", "start"), [(SET, b"MATLAB"), (SNIRF, b"\x89HDF"), (NWB, b"\x89HDF"), (PNG, b"\x89PNG")]
)
def test_a_file_of_the_right_kind_without_what_the_format_demands_is_unchecked(
    tmp_path: Path, path: str, start: bytes
) -> None:
    file = tmp_path / "made"
    if path == SET:
        io.savemat(file, {"x": 1}, appendmat=False)
    elif path == PNG:
        file.write_bytes(recordings.planted_png(tmp_path)[:8])
    else:
        with h5py.File(file, "w") as made:
            made["x"] = 1
    data = file.read_bytes()
    assert data.startswith(start)
    assert entries(checked(tmp_path, {path: data})) == {f"recording-unchecked:{format_of(path, tmp_path)[0]}"}


@pytest.mark.parametrize(("path", "written", "planted"), PLANTED)
def test_wherever_a_recording_is_cut_off_the_check_goes_on(
    tmp_path: Path, path: str, written: Written, planted: Mapping[str, str]
) -> None:
    checked(tmp_path, {path: written})
    data = (tmp_path / path).read_bytes()
    for part in (3, 9, 50):
        found = checked(tmp_path, {path: data[: len(data) // part]})
        assert {one.rule for one in found} <= {"recording-header", "recording-unchecked"}
        assert not any(value and value in repr(found) for value in planted.values())


@pytest.mark.parametrize(
    ("path", "form"),
    [
        ("sub-01/ieeg/sub-01_task-rest_ieeg.mefd/a.timd/a.segd/a.tmet", "MEFD"),
        ("sub-01/meg/sub-01_task-rest_meg.con", "KIT"),
        ("sub-01/meg/sub-01_task-rest_meg/sub-01_task-rest_meg.con", "KIT"),
        ("sub-01/meg/sub-01_task-rest_meg/sub-01_task-rest_markers.mrk", "KIT"),
        ("sub-01/meg/sub-01_task-rest_meg/config", "BTi/4D"),
        ("sub-01/meg/sub-01_task-rest_run-01_meg/c,rfDC", "BTi/4D"),
        ("sub-01/meg/sub-01_task-rest_meg/notes.txt", "BTi/4D"),
        ("sub-01/eeg/sub-01_task-rest_eeg.cnt", ".cnt"),
        ("sub-01/eeg/sub-01_task-rest_eeg.RavenscroftQ", "an unknown format"),
    ],
)
def test_a_format_without_a_reader_is_unchecked_by_its_name(tmp_path: Path, path: str, form: str) -> None:
    found = checked(tmp_path, {path: b"anything"})
    assert entries(found) == {f"recording-unchecked:{form}"}
    assert not Checked(Statement(allow=(found[0].entry,)), found).stops


@pytest.mark.usefixtures("without_readers")
def test_without_the_extra_its_formats_are_unchecked_and_the_way_out_is_named_while_the_others_are_read(
    tmp_path: Path,
) -> None:
    for name in ("mne", "h5py", "scipy"):
        with pytest.raises(ImportError):
            __import__(name)
    hdf5 = b"\x89HDF\r\n\x1a\n" + bytes(100)
    files: dict[str, Written] = dict.fromkeys((SET, SNIRF, NWB, FIF), hdf5)
    files |= {SET.replace("rest", "old"): b"MATLAB 5.0 MAT-file" + bytes(200), EDF: recordings.planted_edf()}
    files |= {VHDR: recordings.vhdr(), TIFF: lambda root: recordings.tiff(root, Artist="Ravenscroft")}
    found = checked(tmp_path, files)
    formats = ("EEGLAB", "FIF", "NWB", "SNIRF")
    assert entries(found) == headers(*recordings.EDF, "TIFF Artist") | {f"recording-unchecked:{one}" for one in formats}
    assert "make recordings" in RULES["recording-unchecked"].mend
    assert all(one in RULES["recording-unchecked"].mend for one in formats)


def test_a_reader_that_fails_in_any_way_is_unchecked_and_what_it_says_is_not_handed_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    import mne

    def fail(*_: object, **__: object) -> None:
        mne.utils.warn("Quillfeather was born in 1951")
        warnings.warn("Quillfeather was born in 1951", stacklevel=1)
        raise KeyError("Quillfeather")

    monkeypatch.setattr(mne.io, "read_info", fail)
    found = checked(tmp_path, {FIF: b"anything"})
    assert entries(found) == {"recording-unchecked:FIF"}
    assert "Quillfeather" not in repr(found) + "".join(capfd.readouterr())
    assert not recwarn.list


def test_a_recording_that_is_not_there_or_not_fetched_is_left_to_staging(tmp_path: Path) -> None:
    pointer = b"/annex/objects/SHA256E-s100--0123.edf\n"
    assert checked(tmp_path, {EDF: pointer, FIF: b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n"}) == ()
    (tmp_path / EDF).unlink()
    assert headers_of([Image(EDF, 1, 0, "raw", "01", None, "eeg", "eeg")], tmp_path) == ()


def test_an_image_is_read_as_an_image_and_no_recording(tmp_path: Path) -> None:
    images = ("sub-01/anat/sub-01_T1w.nii", "sub-01/anat/sub-01_T2w.nii.gz", "sub-01/micr/sub-01_sample-A_SPIM.nii")
    assert checked(tmp_path, dict.fromkeys(images, b"no image")) == ()


@pytest.mark.slow
def test_no_reader_is_imported_before_a_file_needs_it() -> None:
    code = "import sys, tasks.preflight; print(*{'mne', 'h5py', 'scipy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""


def test_a_value_that_is_missing_or_a_yes_or_no_says_nothing_of_anybody() -> None:
    said = in_value("json", {"PatientName": None, "deidentified": True, "of": [{"PatientID": False}, "Doe"]})
    assert [one.value for one in said] == ["Doe"]
