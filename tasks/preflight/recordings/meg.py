"""Headers of FIF (read by mne) and of the files in a CTF folder.

Sources: mne's `Info`, and what its `anonymize_info` takes out of it; the FIF tags (kind, type, size and next, each four
bytes); of CTF, the file formats of the CTF MEG software: the fields of a .res4 file at fixed places, and the named
fields of .infods and .acq files.
"""

import re
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from threading import Lock
from typing import Any

from tasks.preflight.recordings.said import MAX_TEXT, NotChecked, Said, in_lines, in_xml, kind_of

#: FIF: the subject's fields that are about a person; sex, hand, weight and height are none of them alone.
_SUBJECT: tuple[str, ...] = ("his_id", "last_name", "first_name", "middle_name")
_MNE_DATE = (2000, 1, 1)  # of a recording that mne has anonymised: its other dates are shifted by as much
_ALONE = Lock()  # mne's settings are those of the whole process
#: The tags of a FIF file without a recording (cross-talk): blocks, matrices, names of channels.
_FIF_TAG = struct.Struct(">iIii")
_FIF_PEOPLE = frozenset((*range(400, 420), 212, *range(500, 505)))  # subject, experimenter, project
_FIF_TAGS = 100_000  # more than these are no cross-talk

#: .res4: field -> offset and length in bytes.
_RES4: dict[str, tuple[int, int]] = {
    "description": (520, 256), "run name": (1360, 32), "run title": (1392, 256), "run descriptor": (1680, 32),
    "subject id": (1712, 32), "operator": (1744, 32),
}  # fmt: skip
_RES4_DATES = ((778, 255), (1033, 255))  # time and date, in either order
_RES4_LENGTH = 1836  # where the length of the run's description is, which stands at byte 1844
_RES4_TEXT = 1844
_TIME = re.compile(r"\d{1,2}:\d\d(?::\d\d)?(?: *[ap]m)?", re.IGNORECASE)
#: A named field of .infods and .acq: its name, the type 10 (text), its length.
_PERSIST = re.compile(rb"_((?:PATIENT|PROCEDURE|DATASET)_[A-Z_]+)\0\0\0\x0a(....)", re.DOTALL)
_PERSIST_TEXTS = re.compile(
    r"PATIENT_(?:ID|NAME|PACS|INSTITUTE)|PROCEDURE_(?:ACCESSION|COMMENTS|LOCATION|SITE|TITLE)"
    r"|DATASET_(?:COMMENTS|OPERATOR|KEYWORDS)"
)
_PERSIST_DATES = re.compile(r"BIRTHDATE|DATETIME")
_CTF_SAMPLES = re.compile(r"\.(?:\d+_)?meg4$", re.IGNORECASE)


def fif(path: Path) -> Iterator[Said]:
    """Yield what the header of a FIF file says.

    Raises:
        NotChecked: there is no reader for it, since mne is not installed.
        Exception: whatever mne raises of a file that it cannot read.
    """
    if "_acq-crosstalk" in path.name:
        _check_no_people(path)
        return
    try:
        import mne
    except ImportError as error:
        raise NotChecked from error
    with _ALONE, mne.use_log_level("CRITICAL"):  # it warns in words of the header
        info: Any = mne.io.read_info(path)
    subject = info["subject_info"] or {}
    for name in _SUBJECT:
        yield Said(f"FIF subject_info.{name}", subject.get(name), "id")
    yield Said("FIF subject_info.id", subject.get("id"), "id")
    for name in ("experimenter", "description", "proj_name"):
        yield Said(f"FIF {name}", info[name], "text")
    yield Said("FIF device_info.site", (info["device_info"] or {}).get("site"), "text")
    for record in info["proc_history"] or ():
        yield Said("FIF proc_history.experimenter", record.get("experimenter"), "text")
    measured = info["meas_date"]
    yield Said("FIF meas_date", measured, "date")
    if measured is None or (measured.year, measured.month, measured.day) != _MNE_DATE:
        yield from _other_dates(info, subject)


def _other_dates(info: Any, subject: Any) -> Iterator[Said]:
    """Yield the dates of a recording beside the one at which it was made."""
    yield Said("FIF subject_info.birthday", subject.get("birthday"), "date")
    yield Said("FIF helium_info.meas_date", (info["helium_info"] or {}).get("meas_date"), "date")
    stamps = [("proc_history.date", record["date"][0]) for record in info["proc_history"] or () if "date" in record]
    if info["meas_id"]:
        stamps.append(("meas_id", info["meas_id"]["secs"]))
    for name, seconds in stamps:
        if seconds:  # 0 is no date
            yield Said(f"FIF {name}", datetime.fromtimestamp(int(seconds), UTC), "date")


def _check_no_people(path: Path) -> None:
    """Look through the tags of a FIF file without a recording.

    Raises:
        NotChecked: it has tags about people or dates, or it is damaged.
    """
    with path.open("rb") as file:
        for _ in range(_FIF_TAGS):
            head = file.read(_FIF_TAG.size)
            if not head:
                return
            kind, _, size, follows = _FIF_TAG.unpack(head)
            if kind in _FIF_PEOPLE:
                raise NotChecked
            if follows < 0:
                return
            file.seek(follows) if follows else file.seek(size, 1)
    raise NotChecked


def ctf(path: Path) -> Iterator[Said]:
    """Yield what a file in a CTF folder says.

    Raises:
        NotChecked: it is a .res4 file that ends within its header, or a text that is too long.
    """
    ending = path.suffix.lower()
    if _CTF_SAMPLES.search(path.name):
        return
    with path.open("rb") as file:
        data = file.read(MAX_TEXT + 1)
    if len(data) > MAX_TEXT:
        raise NotChecked
    if ending == ".res4":
        yield from _res4(data)
    elif ending == ".xml":
        yield from in_xml("CTF", data)
    elif fields := list(_persisted(data)):
        yield from fields
    elif b"\0" not in data:
        where = ending[1:] if ending in (".hist", ".hc", ".txt", ".eeg", ".newds", ".mrk", ".cls", ".cfg") else "text"
        yield from in_lines(f"CTF {where}", data.decode("latin-1"))
    elif ending not in (".hz", ".hz2", ".bak", ".acq", ".infods"):
        raise NotChecked


def _res4(data: bytes) -> Iterator[Said]:
    if len(data) < _RES4_TEXT or not data.startswith(b"MEG4"):
        raise NotChecked
    for field, place in _RES4.items():
        yield Said(f"CTF {field}", _text(data, *place), "id")
    for place in _RES4_DATES:
        text = _text(data, *place)
        yield Said("CTF date", "" if _TIME.fullmatch(text) else text, "date")
    length = max(0, struct.unpack_from(">i", data, _RES4_LENGTH)[0])
    yield Said("CTF run description", _text(data, _RES4_TEXT, length), "text")


def _persisted(data: bytes) -> Iterator[Said]:
    """Yield the named texts of an .infods or .acq file."""
    for found in _PERSIST.finditer(data):
        name = found[1].decode()
        text = _text(data, found.end(), struct.unpack(">i", found[2])[0])
        if _PERSIST_DATES.search(name):
            yield Said(f"CTF {name}", text, "date")
        else:
            kind = "id" if _PERSIST_TEXTS.match(name) else kind_of(name)
            yield Said(f"CTF {name}" if kind == "id" else "CTF infods", text, kind)


def _text(data: bytes, start: int, length: int) -> str:
    return data[start : start + max(0, length)].split(b"\0", 1)[0].decode("latin-1").strip()
