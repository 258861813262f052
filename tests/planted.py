"""A cut of ds004884's tree with one of everything that should not be published, and the values that were planted.

Each value is a text that stands nowhere else, so that it can be searched for in all that a run leaves behind.
"""

import gzip
import json
import struct
from pathlib import Path

from tasks.values.preflight_rules import RuleName

#: Rule and field -> what was planted there.
PLANTED: dict[tuple[RuleName, str], str] = {
    ("personal-data", "PatientName"): "Quillfeather^Aldous",
    ("personal-data", "PatientID"): "MRN-7713-Z",
    ("personal-data", "PatientBirthDate"): "1951-08-17",
    ("personal-data", "AccessionNumber"): "ACC-99120-Q",
    ("personal-data", "ReferringPhysicianName"): "Brackenbury^Ottoline",
    ("personal-data", "OtherPatientNames"): "Fotherwick^Ned",
    ("personal-data", "date_of_birth"): "1948-02-11",
    ("personal-data", "email"): "aldous@quillfeather.example",
    ("personal-data", "surname"): "Thistlewick",
    ("unique-identifier", "StudyInstanceUID"): "1.3.12.2.1107.5.2.43.166003.30000019",
    ("date", "AcquisitionDateTime"): "2019-07-23T14:21:37.345",
    ("date", "AcquisitionDate"): "20190724",
    ("date", "acq_time"): "2018-03-05T09:12:44",
    ("date", "scan_day"): "2017-11-29",
    ("age-over-89", "age"): "94.3125",
    ("age-over-89", "age_at_scan"): "95.71875",
    ("age-over-89", "PatientAge"): "97.40625",
    ("licence-unknown", "License"): "Ask Madame Zylberstein nicely",
    ("institution", "InstitutionName"): "Saint Wystan Infirmary",
    ("institution", "InstitutionAddress"): "Gallowgate 17 Umbershire",
    ("device", "DeviceSerialNumber"): "SN-166003-XK",
    ("device", "StationName"): "MRC-UMBER-04",
    ("free-text", "ProtocolName"): "protocol of Doctor Hesperus",
    ("free-text", "ImageComments"): "Peregrine moved a lot",
    ("free-text", "ProcedureStepDescription"): "Hesperus^Wimborne",
    ("header-text", "descrip"): "Head of Quentin Ravenscroft",
    ("header-text", "aux_file"): "ravenscroft_q.dcm",
    ("header-extension", "extension 6 (comment)"): "Ravenscroft came on a Tuesday",
}


def plant(root: Path) -> None:
    """Put all of them into a dataset of at least three sessions."""
    sidecars = sorted(path for path in root.glob("sub-*/ses-*/*/*.json"))
    of = {field: value for (_, field), value in PLANTED.items()}
    _add(sidecars[0], {name: of[name] for name in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber")})
    _add(sidecars[1], {"ReferringPhysicianName": of["ReferringPhysicianName"], "PatientAge": of["PatientAge"]})
    _add(sidecars[1], {"global": {"const": {"OtherPatientNames": {"Alphabetic": of["OtherPatientNames"]}}}})
    _add(sidecars[2], {name: of[name] for name in ("StudyInstanceUID", "AcquisitionDateTime", "AcquisitionDate")})
    rest = ("InstitutionName", "InstitutionAddress", "DeviceSerialNumber", "StationName", "ProtocolName",
            "ImageComments", "ProcedureStepDescription")  # fmt: skip
    _add(sidecars[3], {name: of[name] for name in rest})
    of_no_image = sidecars[0].with_name(sidecars[0].name.replace(".json", "").rpartition("_")[0] + "_PDT2.json")
    of_no_image.write_text(json.dumps({"PatientName": of["PatientName"]}))
    _add(root / "dataset_description.json", {"License": of["License"]})
    _plant_tables(root, of)
    first, second, *_ = sorted(root.glob("sub-*/ses-*/anat/*.nii.gz"))
    _rewrite(first, of["descrip"], of["aux_file"])
    _extend(second, of["extension 6 (comment)"])


def _add(path: Path, fields: dict[str, object]) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def _plant_tables(root: Path, of: dict[str, str]) -> None:
    head, *lines = (root / "participants.tsv").read_text().rstrip("\n").split("\n")
    people = [line + "\tn/a\tn/a\tn/a" for line in lines]
    people[0] = f"{lines[0]}\t{of['date_of_birth']}\t{of['age']}\t{of['email']}"
    (root / "participants.tsv").write_text("\n".join([head + "\tdate_of_birth\tage\temail", *people]) + "\n")
    session = next(root.glob("sub-*/ses-*/anat")).parent
    subject = session.parent.name
    table = f"session_id\tage_at_scan\n{session.name}\t{of['age_at_scan']}\n"
    (session.parent / f"{subject}_sessions.tsv").write_text(table)
    image = next(session.glob("anat/*.nii.gz"))
    scans = f"filename\tacq_time\nanat/{image.name}\t{of['acq_time']}\n"
    (session / f"{subject}_{session.name}_scans.tsv").write_text(scans)
    (root / "phenotype").mkdir()
    phenotype = f"participant_id\tsurname\tscan_day\n{subject}\t{of['surname']}\t{of['scan_day']}\n"
    (root / "phenotype" / "wab.tsv").write_text(phenotype)


def _rewrite(path: Path, descrip: str, aux_file: str) -> None:
    """Write into an image's header (nifti1.h: descrip at byte 148, aux_file at 228)."""
    data = bytearray(gzip.decompress(path.read_bytes()))
    struct.pack_into("80s24s", data, 148, descrip.encode(), aux_file.encode())
    path.write_bytes(gzip.compress(bytes(data), mtime=0))


def _extend(path: Path, comment: str) -> None:
    """Give an image a header extension (nifti1.h, "Extended header": size, code 6, text)."""
    data = gzip.decompress(path.read_bytes())
    extension = struct.pack("<2i56s", 64, 6, comment.encode())
    header = bytearray(data[:352])
    struct.pack_into("<f", header, 108, 352 + 64)
    header[348] = 1
    path.write_bytes(gzip.compress(bytes(header) + extension + data[352:], mtime=0))
