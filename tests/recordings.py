"""Recordings that are written by their own programs, or by hand after the specification, with or without a person.

`PLANTED` has what is put into each format: each value stands nowhere else, so that it can be searched for.
"""

import struct
import zlib
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import h5py
import mne
import numpy as np
from PIL import ExifTags, TiffImagePlugin
from PIL import Image as Picture
from PIL.PngImagePlugin import PngInfo
from scipy import io

#: Field of a finding -> what was planted there.
EDF = {
    "EDF patient id": "MRN-7713-Z",
    "EDF birth date": "17-AUG-1951",
    "EDF patient name": "Quillfeather_Aldous",
    "EDF patient comment": "deaf since Whitsun",
    "EDF start date": "23-JUL-2019",
    "EDF examination number": "ACC-99120-Q",
    "EDF technician": "Brackenbury",
    "EDF recording comment": "Umbershire ward",
}
BRAINVISION = {
    "BrainVision DataFile": "QuentinRavenscroft.eeg",
    "BrainVision MarkerFile": "Ravenscroft_Q.vmrk",
    "BrainVision Operator": "Ottoline Thistlewick",
    "BrainVision comment": "Peregrine moved a lot",
}
MARKERS = {
    "BrainVision MarkerFile": "",
    "BrainVision date": "20190724142137345000",
    "BrainVision comment marker": "Hesperus coughs",
}
FIF = {
    "FIF subject_info.id": "99017713",
    "FIF subject_info.his_id": "MRN-8824-Z",
    "FIF subject_info.last_name": "Fotherwick",
    "FIF subject_info.first_name": "Nedwardine",
    "FIF subject_info.middle_name": "Zylberstein",
    "FIF subject_info.birthday": "1948-02-11",
    "FIF experimenter": "Wimborne the younger",
    "FIF description": "Peregrine wept",
    "FIF proj_name": "Study of Madame Zylberstein",
    "FIF device_info.site": "Saint Wystan Infirmary",
    "FIF meas_date": "2018-03-05",
}
EEGLAB = {
    "EEGLAB subject": "Aldous Quillfeather",
    "EEGLAB filename": "quillfeather_a.set",
    "EEGLAB comments": "Quillfeather was early",
    "EEGLAB filepath": "/home/brackenbury/eeg",
    "EEGLAB history": "EEG = pop_fileio('C:\\Users\\ottoline\\x.bdf');",
}
SNIRF = {
    "SNIRF SubjectID": "Quillfeather, A",
    "SNIRF MeasurementDate": "2017-11-29",
    "SNIRF OperatorName": "Brackenbury of Umber",
    "SNIRF": "mail to aldous@quillfeather.example",
}
NWB = {
    "NWB session_start_time": "2019-05-06T10:00:00+02:00",
    "NWB timestamps_reference_time": "2019-05-07T10:00:00+02:00",
    "NWB experimenter": "Thistlewick, O.",
    "NWB institution": "Umbershire General",
    "NWB notes": "Fotherwick fainted",
    "NWB subject_id": "MRN-5521-Q",
    "NWB date_of_birth": "1950-12-24T00:00:00",
    "NWB description": "grandson of Hesperus",
}
CTF = {
    "CTF subject id": "MRN-3119-C",
    "CTF operator": "Wystan Gallowgate",
    "CTF run title": "Madame Quillfeather",
    "CTF description": "seen by Hesperus",
    "CTF date": "24-Jul-2016",
    "CTF run description": "Whitsun, with nurse",
}
TIFF = {
    "TIFF Artist": "Perpetua Blackwater",
    "TIFF DateTime": "2018:04:03 11:12:13",
    "TIFF HostComputer": "UMBER-WARD-4",
    "TIFF ImageDescription": "liver of Peregrine",
    "TIFF private tag": "Operator: Blackwater junior",
}
PNG = {"PNG Author": "Perpetua Whitewater", "PNG Comment": "slide of Ned", "PNG Creation_Time": "2018-04-09"}


def edf(patient: str, recording: str, start: str = "01.01.85", bdf: bool = False) -> bytes:
    """An EDF+ or BDF+ file with one signal and one record (EDF+ specification, 2.1)."""
    version = b"\xffBIOSEMI" if bdf else b"0       "
    texts = [(patient, 80), (recording, 80), (start, 8), ("14.21.37", 8), ("512", 8), ("EDF+C", 44), ("1", 8),
             ("1", 8), ("1", 4), ("Fp1", 16), ("AgAgCl", 80), ("uV", 8), ("-100", 8), ("100", 8), ("-2048", 8),
             ("2047", 8), ("HP:0.1Hz", 80), ("10", 8), ("", 32)]  # fmt: skip
    return version + b"".join(text.encode("latin-1").ljust(length) for text, length in texts) + bytes(20)


def planted_edf(bdf: bool = False) -> bytes:
    """With all of `EDF`."""
    of = {field.partition(" ")[2]: value for field, value in EDF.items()}
    patient = f"{of['patient id']} M {of['birth date']} {of['patient name']} {of['patient comment']}"
    recording = f"Startdate {of['start date']} {of['examination number']} {of['technician']} Device-7"
    return edf(patient, f"{recording} {of['recording comment']}", "23.07.19", bdf)


def vhdr(data: str = "sub-01_task-rest_eeg.eeg", more: str = "", comment: str = "", codepage: str = "UTF-8") -> bytes:
    """A BrainVision header (Core Data Format 1.0)."""
    text = (
        "Brain Vision Data Exchange Header File Version 1.0\r\n; Data created by the Vision Recorder\r\n\r\n"
        f"[Common Infos]\r\nCodepage={codepage}\r\nDataFile={data}\r\n{more}DataFormat=BINARY\r\n"
        "NumberOfChannels=1\r\nSamplingInterval=1000\r\n\r\n[Channel Infos]\r\nCh1=Fp1,,0.5,µV\r\n\r\n"
        f"[Comment]\r\n{comment}"
    )
    return text.encode("utf-8" if codepage == "UTF-8" else "cp1252")


#: What the recorder itself writes into the comment.
RECORDER = """
A m p l i f i e r  S e t u p
============================
Number of channels: 2
Sampling Rate [Hz]: 1000
Sampling Interval [µS]: 1000
Channels
--------
#     Name      Phys. Chn.    Resolution / Unit   Low Cutoff [s]   High Cutoff [Hz]
1     Fp1         1                0.5 µV             10              1000

S o f t w a r e  F i l t e r s
==============================
Disabled

Data Electrodes Selected Impedance Measurement Range: 0 - 100 kOhm
Impedance [kOhm] at 13:44:42 :
Fp1:          3
Gnd:          Out of Range!
"""


def planted_vhdr(codepage: str = "UTF-8") -> bytes:
    """With all of `BRAINVISION`."""
    of = BRAINVISION
    more = f"MarkerFile={of['BrainVision MarkerFile']}\r\nOperator={of['BrainVision Operator']}\r\n"
    return vhdr(of["BrainVision DataFile"], more, RECORDER + of["BrainVision comment"], codepage)


def vmrk(*markers: str) -> bytes:
    """A BrainVision marker file."""
    lines = "".join(f"Mk{number}={marker}\r\n" for number, marker in enumerate(markers, start=1))
    head = "Brain Vision Data Exchange Marker File, Version 1.0\r\n\r\n[Common Infos]\r\nCodepage=UTF-8\r\n"
    return f"{head}DataFile=sub-01_task-rest_eeg.eeg\r\n\r\n[Marker Infos]\r\n{lines}".encode()


def planted_vmrk() -> bytes:
    """With all of `MARKERS`."""
    of = MARKERS
    return vmrk(
        f"New Segment,,1,1,0,{of['BrainVision date']}",
        f"Comment,{of['BrainVision comment marker']},50,1,0",
        "Stimulus,S  1,60,1,0",
    )


def raw() -> Any:
    """A recording of mne with all of `FIF` in it."""
    made = mne.io.RawArray(np.zeros((2, 50)), mne.create_info(2, 100.0, "eeg"), verbose="ERROR")
    made.set_meas_date(datetime.fromisoformat(FIF["FIF meas_date"]).replace(tzinfo=UTC))
    of = {field.rpartition(".")[2].removeprefix("FIF "): value for field, value in FIF.items()}
    names = {name: of[name] for name in ("his_id", "last_name", "first_name", "middle_name")}
    made.info["subject_info"] = {**names, "id": int(of["id"]), "birthday": date.fromisoformat(of["birthday"]), "sex": 1}
    made.info["device_info"] = {"type": "a", "model": "b", "serial": "c", "site": of["site"]}
    for name in ("experimenter", "description"):
        made.info[name] = of[name]
    with made.info._unlock():
        made.info["proj_name"] = of["proj_name"]
    return made


def fif(path: Path, made: Any) -> bytes:
    """The bytes of a recording of mne as a FIF file."""
    file = path / "written_meg.fif"
    made.save(file, overwrite=True, verbose="ERROR")
    data = file.read_bytes()
    file.unlink()
    return data


def eeglab(path: Path, flat: bool = False, newer: bool = False, **fields: str) -> bytes:
    """An EEGLAB .set: of one struct, of its fields as variables, or as MATLAB 7.3 writes it."""
    file = path / "written.set"
    struct_: dict[str, Any] = {"setname": "", "subject": "", "comments": "", "nbchan": 2, "data": np.zeros((2, 9))}
    struct_ |= fields
    if not newer:
        io.savemat(file, struct_ if flat else {"EEG": struct_})
    else:
        with h5py.File(file, "w", userblock_size=512) as made:
            for name, value in struct_.items():
                _as_matlab_7_3(made, name, value)
    data = file.read_bytes()
    file.unlink()
    return data


def _as_matlab_7_3(made: Any, name: str, value: Any) -> None:
    """Write a field of the struct: a text is a column of numbers, and an empty one is the two of its shape."""
    if not isinstance(value, str):
        made[f"EEG/{name}"] = value
        return
    letters = np.array([[ord(letter)] for letter in value], np.uint16) if value else np.zeros(2, np.uint64)
    one = made.create_dataset(f"EEG/{name}", data=letters)
    one.attrs["MATLAB_class"] = np.bytes_("char")
    one.attrs["MATLAB_empty"] = int(not value)


def planted_eeglab(path: Path, flat: bool = False, newer: bool = False) -> bytes:
    """With all of `EEGLAB`."""
    return eeglab(path, flat, newer, **{field.partition(" ")[2]: value for field, value in EEGLAB.items()})


def hdf5(path: Path, texts: dict[str, str], **attributes: str) -> bytes:
    """An HDF5 file of texts."""
    file = path / "written.h5"
    with h5py.File(file, "w") as made:
        for name, text in texts.items():
            made[name] = text
        made.attrs.update(attributes)
        made["nirs/data1/dataTimeSeries"] = np.zeros((3, 2))
    data = file.read_bytes()
    file.unlink()
    return data


def snirf(path: Path, **tags: str) -> bytes:
    """A SNIRF file with these tags."""
    always = {"formatVersion": "1.1", "nirs/metaDataTags/LengthUnit": "mm"}
    return hdf5(path, always | {f"nirs/metaDataTags/{name}": value for name, value in tags.items()})


def planted_snirf(path: Path) -> bytes:
    """With all of `SNIRF`."""
    of = {field.partition(" ")[2] or "Quillfeather_note_of": value for field, value in SNIRF.items()}
    return snirf(path, **of)


def planted_nwb(path: Path) -> bytes:
    """With all of `NWB`."""
    subject = ("subject_id", "date_of_birth", "description")
    roots = ("session_start_time", "timestamps_reference_time")
    texts = {"file_create_date": "2020-01-02T03:04:05", "identifier": "a1b2", "session_description": "rest"}
    for field, value in NWB.items():
        name = field.partition(" ")[2]
        place = "general/subject/" if name in subject else "" if name in roots else "general/"
        texts[place + name] = value
    return hdf5(path, texts, nwb_version="2.8.0")


def res4(**fields: str) -> bytes:
    """The start of a CTF .res4 file (places: the CTF file formats)."""
    data = bytearray(4000)
    data[:8] = b"MEG41RS\0"
    places = {"description": 520, "time": 778, "date": 1033, "run_title": 1392, "subject_id": 1712, "operator": 1744}
    for name, place in places.items():
        value = fields.get(name, "").encode()
        data[place : place + len(value)] = value
    text = fields.get("run_description", "").encode()
    struct.pack_into(">i", data, 1836, len(text))
    data[1844 : 1844 + len(text)] = text
    return bytes(data)


def planted_res4() -> bytes:
    """With all of `CTF`."""
    fields = {field.removeprefix("CTF ").replace(" ", "_"): value for field, value in CTF.items()}
    return res4(time="14:21", **fields)


def infods(**fields: str) -> bytes:
    """A CTF .infods file: named fields, texts of type 10."""
    data = b"WS1_\0\0\0\0"
    for name, value in fields.items():
        label = f"_{name}".encode()
        data += struct.pack(">i", len(label)) + label + struct.pack(">ii", 10, len(value)) + value.encode()
    return data + struct.pack(">i", 10) + b"EndOfParam"


def tiff(path: Path, *, saved: Any = None, type_: Any = 2, **tags: Any) -> bytes:
    """A TIFF with these tags, by the names that Pillow has for them; `private` is one that nobody has registered.

    Args:
        path: a folder to write in.
        saved: what else Pillow is told of the file.
        type_: of the tags' values, as TIFF numbers them: text by default.
        tags: name -> value.
    """
    info = TiffImagePlugin.ImageFileDirectory_v2()
    numbers = {tag.name: int(tag) for tag in ExifTags.Base}
    for name, value in tags.items():
        number = numbers.get(name, 65000)
        info[number] = value
        info.tagtype[number] = type_
    file = path / "written.tif"
    Picture.new("L", (4, 4)).save(file, **{"tiffinfo": info, **(saved or {})})
    data = file.read_bytes()
    file.unlink()
    return data


def planted_tiff(path: Path) -> bytes:
    """With all of `TIFF`."""
    return tiff(path, **{field.partition(" ")[2].replace(" tag", ""): value for field, value in TIFF.items()})


def planted_png(path: Path) -> bytes:
    """With all of `PNG`: a plain text, a deflated one, and one in UTF-8."""
    info = PngInfo()
    info.add_text("Author", PNG["PNG Author"])
    info.add_text("Comment", PNG["PNG Comment"], zip=True)
    info.add_itxt("Creation Time", PNG["PNG Creation_Time"])
    file = path / "written.png"
    Picture.new("L", (4, 4)).save(file, pnginfo=info)
    data = file.read_bytes()
    file.unlink()
    return data


def png_chunk(kind: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


OME = """<?xml version="1.0" encoding="UTF-8"?>
<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" Creator="a program 1.0">
<Experimenter ID="Experimenter:0" FirstName="Perpetua" LastName="Graywater" Email="p@graywater.example"
 Institution="Umber Institute"/>
<Image ID="Image:0"><AcquisitionDate>2018-07-06T05:04:03</AcquisitionDate><Pixels SizeX="4" SizeY="4"/></Image>
</OME>"""
