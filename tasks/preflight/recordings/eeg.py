"""Headers of EDF, BDF and BrainVision: text at a fixed place, or lines of `name=value`.

Sources: the EDF+ specification (https://www.edfplus.info/specs/edfplus.html), 2.1.3.3 and 2.1.3.4, and BioSemi's for
BDF; the "BrainVision Core Data Format 1.0" of Brain Products.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from tasks.preflight.recordings.said import NotChecked, Said, said

EDF_HEADER = 256  # bytes before the headers of the signals, in which nobody is named
BRAINVISION_MAX = 64 << 20  # bytes of a marker file: a million markers have 40 MB
BRAINVISION = re.compile(r"\W*Brain ?Vision (?:Core )?(?:Data Exchange )?(?:Header|Marker) File", re.IGNORECASE)

#: Number, sex, birth date and name; equipment, of the recording, is nobody's name.
_EDF_PERSON = re.compile(
    r"(?P<code>\S+) [MFX] (?P<birth>X|\d\d-[A-Z]{3}-\d{4}) (?P<name>\S+)(?P<more>.*)", re.IGNORECASE
)
_EDF_RECORDING = re.compile(
    r"Startdate (?P<date>\S+)(?: (?P<code>\S+))?(?: (?P<technician>\S+))?(?: \S+)?(?P<more>.*)", re.IGNORECASE
)
#: What stands for no date: EDF+ 2.1.3.4 says 01.01.85; mne's anonymised date is 2000-01-01.
_EDF_NO_DATE = re.compile(r"01\.01\.(?:85|00)|00\.00\.00|[xX .]*")
_EDF_NO_DAY = frozenset(("01-JAN-1985", "01-JAN-2000"))
_UTF8 = re.compile(rb"codepage\s*=\s*utf-?8", re.IGNORECASE)
_SECTION = re.compile(r"\[(.+)\]\s*")
#: Lines of a comment that the recorder writes: tables of channels, impedances and filters, below their headings.
_RECORDER = re.compile(
    r"[=\-_*\s]*"
    r"|[A-Za-z](?: [A-Za-z])+(?:  +[A-Za-z](?: [A-Za-z])+)*"  # A m p l i f i e r  S e t u p
    r"|#.*|\d+ {2,}\S+ {2,}.*|Channels|Disabled|Enabled"
    r"|(?:Number of channels|Sampling (?:Rate|Interval) \[.{1,3}\]):? *[\d.]+"
    r"|(?:Data Electrodes|Ground Electrode|Reference Electrode|Data/Reference).*Impedance Measurement Range.*"
    r"|Impedance \[.{1,5}\] at \d\d:\d\d:\d\d ?:?"
    r"|\S{1,12}: *(?:\d[\d.]*|Out of Range!?|Disconnected!?|\?\?\?)"
)
_MARKER = re.compile(r"Mk\d+\s*=\s*([^,]*),([^,]*)(.*)")
_MARKER_DATE = re.compile(r"\d{14,20}")
#: Descriptions that programs give to markers: numbers, codes, and what marks bad spans.
_CODE = re.compile(r"(?:[SRT] *)?\d+|(?:bad|edge)_\w+|boundary|bad(?: boundary)?|edge(?: boundary)?", re.IGNORECASE)
_SAME_NAME = "$b"  # the name of the header itself
_FILES = frozenset(("datafile", "markerfile"))


def edf(path: Path) -> Iterator[Said]:
    """Yield what the header of an EDF, EDF+, BDF or BDF+ file says.

    Raises:
        NotChecked: it has none.
    """
    with path.open("rb") as file:
        head = file.read(EDF_HEADER)
    if len(head) < EDF_HEADER or (head[:8].strip() != b"0" and head[:8] != b"\xffBIOSEMI"):
        raise NotChecked
    form = "BDF" if head[0] == 0xFF else "EDF"
    person, recording, start = (head[a:b].decode("latin-1").strip("\0 ") for a, b in ((8, 88), (88, 168), (168, 176)))
    if found := _EDF_PERSON.fullmatch(person):
        yield Said(f"{form} patient id", found["code"], "id")
        yield Said(f"{form} birth date", found["birth"], "date")
        yield Said(f"{form} patient name", found["name"], "id")
        yield Said(f"{form} patient comment", found["more"], "text")
    else:
        yield Said(f"{form} patient", person, "id")
    if found := _EDF_RECORDING.fullmatch(recording):
        yield Said(f"{form} start date", "" if found["date"].upper() in _EDF_NO_DAY else found["date"], "date")
        yield Said(f"{form} examination number", found["code"] or "", "id")
        yield Said(f"{form} technician", found["technician"] or "", "text")
        yield Said(f"{form} recording comment", found["more"], "text")
    else:
        yield Said(f"{form} recording", recording, "id")
    if not _EDF_NO_DATE.fullmatch(start):
        yield Said(f"{form} start date", start, "date")


def brainvision(path: Path) -> Iterator[Said]:
    """Yield what a .vhdr or .vmrk file says.

    Raises:
        NotChecked: it is neither, or too long.
    """
    with path.open("rb") as file:
        data = file.read(BRAINVISION_MAX + 1)
    codepage = "utf-8" if _UTF8.search(data[:4096]) else "cp1252"
    lines = data.decode(codepage, "replace").splitlines()
    if len(data) > BRAINVISION_MAX or not lines or not BRAINVISION.match(lines[0]):
        raise NotChecked
    section = ""
    for line in lines[1:]:
        heading = _SECTION.fullmatch(line)
        if heading:
            section = heading[1].lower()
        elif section == "comment":
            yield from _in_comment(line)
        elif marker := _MARKER.fullmatch(line):
            yield from _in_marker(*marker.groups())
        elif line.startswith(";"):
            yield Said("BrainVision comment", line, "trace")
        elif section != "channel infos" and "=" in line:
            yield _in_field(*map(str.strip, line.split("=", 1)))


def _in_field(name: str, value: str) -> Said:
    if name.lower() in _FILES:
        return Said(f"BrainVision {name}", "" if value.startswith(_SAME_NAME) else value, "id")
    return said("BrainVision", name, value)


def _in_comment(line: str) -> Iterator[Said]:
    if not _RECORDER.fullmatch(line.strip()):
        yield Said("BrainVision comment", line, "text")


def _in_marker(kind: str, description: str, rest: str) -> Iterator[Said]:
    """Yield what a marker says: the date of a segment, and comments that were typed while it was recorded."""
    last = rest.rpartition(",")[2].strip()
    if _MARKER_DATE.fullmatch(last):
        yield Said("BrainVision date", last, "date")
    if kind.strip().lower() == "comment" and not _CODE.fullmatch(description.strip()):
        yield Said("BrainVision comment marker", description, "text")
    else:
        yield Said("BrainVision marker", description, "trace")
