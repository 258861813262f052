"""What a header says, and whether that identifies somebody.

A reader gives each thing that a header says as a `Said`: the field, the value, and what kind of value that field holds.
`tells` judges it. So no reader decides, and no decision knows a format. A `Said` never leaves this package: a finding
has the field alone, and a field's name is taken from a file only if it is one of those that are known here.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Literal
from xml.etree import ElementTree

from tasks.preflight.names import LAST_SHIFTED_YEAR, is_placeholder, names_a_date, plain, rule_of

#: `id`: a person's number or name, which may be the subject's label. `text`: a name, or what people typed. `date`: a
#: date alone. `trace`: what programs write, in which only a date, an e-mail address or a user's folder is looked for.
Kind = Literal["id", "text", "date", "trace"]
MAX_TEXT = 64 << 20  # bytes of one XML or JSON text: the largest OME-XML is some megabytes

_IDS = frozenset(
    ("subject", "subjectid", "subjectcode", "subjectnumber", "patient", "patientid", "patientcode", "participant",
     "participantid", "hisid", "localidentifier")
)  # fmt: skip
_DATES = frozenset(
    ("recordtime", "sessionstarttime", "timestampsreferencetime", "birthday", "creationtime", "begintime", "starttime")
)
_PEOPLE = re.compile(
    r"operator|technician|experimenter|physician|doctor|investigator|author|hospital|username|userid|computer|artist"
    r"|^(?:owner|lab|user)$|(?:comments?|notes?|remarks?)$"
)
_SHOWN = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,40}")
#: mne's `anonymize_info`, and the EDF+ specification (2.1.3.3): "unknown" is written X.
_ANONYMOUS = re.compile(
    r"[x\s._0-]*|mne_anonymize|anonymi[sz]ed using a time shift.*|not (?:specified|available|known)|unspecified"
    r"|anonymous[ _](?:subject|patient)",
    re.IGNORECASE | re.DOTALL,
)
_MNE_DATE = re.compile(r"2000-?01-?01")  # the date that mne gives an anonymised recording, unless told otherwise
_YEAR = re.compile(r"(?<!\d)(1[5-9]\d\d|20\d\d)")
_NOT_NOTHING = re.compile(r"[1-9A-Za-z]")
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*"
_RECENT = r"(?:192[6-9]|19[3-9]\d|20\d\d)"
_TRACE = re.compile(
    rf"(?<!\d){_RECENT}([-/])(?:0?[1-9]|1[0-2])\1(?:0?[1-9]|[12]\d|3[01])(?!\d)"
    rf"|(?<!\d)\d{{1,2}}([-./])\d{{1,2}}\2{_RECENT}(?!\d)"
    rf"|(?<!\d)\d{{1,2}}[ .-]{{1,2}}{_MONTH}[ .,-]{{1,2}}{_RECENT}(?!\d)"
    rf"|\b{_MONTH} {{1,2}}\d{{1,2}},? (?:[\d:]+ )?{_RECENT}(?!\d)"
    r"|(?<![\w.+-])[\w.+-]{1,64}@[\w-]{1,64}\.\w"
    r"|(?:^|[\\/])(?:users|home|documents and settings)[\\/]+[^\\/\s]",
    re.IGNORECASE,
)
_LINE = re.compile(r"[\r\n|]+")
_SIGN = re.compile(r"[:=]")
#: One of these is in every trace. To look for them first is ten times as fast, and tables have millions of lines.
_HINTS = ("@", "19", "20", "home", "users", "documents")


class NotChecked(Exception):
    """A header cannot be read, so nobody has looked for people in it. It has no message: nothing is handed on."""


@dataclass(frozen=True, slots=True)
class Said:
    """One thing that a header says."""

    field: str
    """The format and the field, as a finding shows it."""
    value: object
    kind: Kind

    def __repr__(self) -> str:  # a value is in no trace of an error
        return f"Said({self.field!r})"


def tells(said: Said, label: str | None) -> bool:
    """Return whether this tells who somebody is, or when they were recorded.

    Args:
        said: what a header says.
        label: the subject's label in BIDS, without `sub-`. A name that BIDS has given tells nothing more.
    """
    if said.kind == "date":
        return _is_recent(said.value)
    text = str(said.value).strip()
    if said.kind == "trace":
        small = text.lower()
        return any(hint in small for hint in _HINTS) and _TRACE.search(text) is not None
    return not (says_nothing(text) or (label is not None and _is_label(text, label)))


def says_nothing(text: str) -> bool:
    """Return whether a text is what people and programs write in place of something that they have removed."""
    return is_placeholder(text) or _ANONYMOUS.fullmatch(text.strip()) is not None


def _is_label(text: str, label: str) -> bool:
    """Return whether a text is a subject's label, or a name that BIDS makes of it (`sub-01_task-rest_eeg.set`)."""
    named = rf"(?:sub-)?0*{re.escape(label.lstrip('0'))}(?:_[A-Za-z]+-[A-Za-z0-9+]+)*(?:_[A-Za-z0-9]+)?(?:\.[a-z.]+)?"
    return re.fullmatch(named, text, re.IGNORECASE) is not None


def _is_recent(value: object) -> bool:
    """Return whether a date is later than 1925. A text that cannot be read as a date counts as one."""
    if isinstance(value, date):  # a datetime is one too
        return value.year > LAST_SHIFTED_YEAR and (value.year, value.month, value.day) != (2000, 1, 1)
    text = str(value).strip()
    if says_nothing(text) or _MNE_DATE.match(text):
        return False
    years = [int(year) for year in _YEAR.findall(text)]
    return any(year > LAST_SHIFTED_YEAR for year in years) if years else _NOT_NOTHING.search(text) is not None


def kind_of(name: str) -> Kind:
    """Return what kind of value a field of this name holds."""
    letters = plain(name)
    if letters in _IDS:
        return "id"
    if letters in _DATES or names_a_date(name) or (rule_of(name) == "personal-data" and "birth" in letters):
        return "date"
    if rule_of(name) not in (None, "device") or _PEOPLE.search(letters):
        return "text"
    return "trace"


def said(source: str, name: str, value: object, kind: Kind | None = None) -> Said:
    """Return what a field of a file says. Its name, which the file chose, is shown only if it is a known one.

    Args:
        source: the format, and where in it if that is not the only place.
        name: of the field, as the file has it.
        value: its value.
        kind: what it holds, if its name does not tell.
    """
    known = kind_of(name)
    shown = known != "trace" and _SHOWN.fullmatch(name)
    return Said(f"{source} {name}" if shown else source, value, kind or known)


def in_value(source: str, value: object, name: str = "") -> Iterator[Said]:
    """Yield what a value of JSON says, at any depth: each plain value by the name of the field that it is in."""
    if isinstance(value, Mapping):
        for key, one in value.items():
            known = kind_of(str(key)) != "trace" or not name
            yield from in_value(source, one, str(key) if known else name)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from in_value(source, one, name)
    elif value is not None and not isinstance(value, bool):
        yield said(source, name, value)


def in_xml(source: str, data: bytes | str) -> Iterator[Said]:
    """Yield what an XML text says: attributes and texts, by their names.

    Raises:
        NotChecked: it is longer than 64 MiB.
        ElementTree.ParseError: it is no XML.
    """
    if len(data) > MAX_TEXT:
        raise NotChecked
    for element in ElementTree.fromstring(data).iter():
        tag = _local(element.tag)
        for name, value in element.attrib.items():
            yield said(source, _local(name), value)
        if element.text and element.text.strip():
            yield said(source, tag, element.text)
        named = {_local(child.tag): child.text or "" for child in element}  # MFF: <field><name>..</name><data>..
        if "name" in named and "data" in named:
            yield said(source, named["name"], named["data"])


def _local(tag: object) -> str:
    return str(tag).rpartition("}")[2]


def in_lines(field: str, text: str) -> Iterator[Said]:
    """Yield what the lines of a text say, all in one field. Some of them are `name: value` or `name = value`."""
    for line in _LINE.split(text):
        yield Said(field, line, "trace")
        sign = _SIGN.search(line)
        if sign and (kind := kind_of(line[: sign.start()].strip())) != "trace":
            yield Said(field, line[sign.end() :].strip(), kind)
