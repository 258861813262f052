"""YAML of people nobody knows, as the JSON values that the Hub answers, within a budget of time and memory.

The Hub reads cards with js-yaml and answers with JSON: a date is a text such as `2024-01-05T00:00:00.000Z`, `.nan` and
`.inf` are null, `no` is a text, a key is a text, and a key that comes twice is an error. So it is here.

How it works: the parser's events are read one by one, without recursion, and each node is paid for: an alias costs what
it stands for, since the answer has that once more. What is over the budget is refused before it is made.
Source: js-yaml's default schema (its lib/type folder); YAML 1.2, section 10.3.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

TEXT_LIMIT = 512 * 1024  # characters of YAML: a card with 1,000 configs has a fifth of it
WEIGHT_LIMIT = 2 * 1024 * 1024  # characters of the answer, as far as it is counted here
NODE_WEIGHT = 20  # what a node weighs beside its text: so there are 100,000 at most
DEPTH_LIMIT = 100
NUMBER_LIMIT = 400  # characters of a number or date; a longer one is a text
EXACT = 2**53  # numbers of JavaScript are exact below

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # libyaml's where it is there: ten times as fast
CORE_TAG = "tag:yaml.org,2002:"

INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o[0-7_]+|0x[0-9a-fA-F_]+|[0-9][0-9_]*)")
FLOAT = re.compile(r"[-+]?(?:[0-9][0-9_]*(?:\.[0-9_]*)?|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?")
NO_NUMBER = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
DATE = re.compile(
    r"(\d{4})-(\d\d?)-(\d\d?)"
    r"(?:(?:[Tt]|[ \t]+)(\d\d?):(\d\d):(\d\d)(?:\.(\d*))?(?:[ \t]*(?:Z|([-+])(\d\d?)(?::(\d\d))?))?)?",
    re.ASCII,
)
WORDS: dict[str, Any] = {
    "": None, "~": None, "null": None, "Null": None, "NULL": None,
    "true": True, "True": True, "TRUE": True, "false": False, "False": False, "FALSE": False,
}  # fmt: skip


@dataclass
class _Open:
    """A list or mapping whose end has not come yet."""

    value: Any
    anchor: str | None
    key: str | None = None
    merged: list[Any] = field(default_factory=list)
    weight: int = NODE_WEIGHT


class _Reader:
    def __init__(self) -> None:
        self.result: Any = None
        self._documents = 0
        self._open: list[_Open] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._weight = 0

    def take(self, event: Any) -> None:
        """The next event of the parser."""
        if isinstance(event, yaml.DocumentStartEvent):
            self._documents += 1
            if self._documents > 1:
                raise ValueError("there is more than one document")
        elif isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, (yaml.SequenceStartEvent, yaml.MappingStartEvent)):
            _check_tag(event.tag)
            if len(self._open) == DEPTH_LIMIT:
                raise ValueError(f"it is nested more than {DEPTH_LIMIT} deep")
            if self._open and isinstance(self._open[-1].value, dict) and self._open[-1].key is None:
                raise ValueError("a key must be a text")
            self._pay(NODE_WEIGHT)
            self._open.append(_Open([] if isinstance(event, yaml.SequenceStartEvent) else {}, event.anchor))
        elif isinstance(event, (yaml.SequenceEndEvent, yaml.MappingEndEvent)):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise ValueError(f"*{event.anchor} stands for nothing before it")
            value, weight = self._anchors[event.anchor]
            self._pay(weight)
            self._put(value, weight)

    def _pay(self, weight: int) -> None:
        self._weight += weight
        if self._weight > WEIGHT_LIMIT:
            raise ValueError(f"it has more than {WEIGHT_LIMIT} characters, with what its aliases stand for")

    def _scalar(self, event: Any) -> None:
        _check_tag(event.tag)
        weight = NODE_WEIGHT + len(event.value)
        self._pay(weight)
        parent = self._open[-1] if self._open else None
        if parent is not None and isinstance(parent.value, dict) and parent.key is None:
            if event.anchor is not None:
                self._anchors[event.anchor] = (event.value, weight)
            parent.weight += weight
            self._key(parent, event.value)
            return
        value = _resolved(event.value) if _is_plain(event) or _is_core(event.tag) else event.value
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, weight)
        self._put(value, weight)

    def _key(self, parent: _Open, key: str) -> None:
        if key in parent.value and key != "<<":
            raise ValueError(f"the key {key[:100]!r} comes twice")
        parent.key = key

    def _put(self, value: Any, weight: int) -> None:
        if not self._open:
            self.result = value
            return
        parent = self._open[-1]
        parent.weight += weight
        if isinstance(parent.value, list):
            parent.value.append(value)
        elif parent.key is None:
            if not isinstance(value, str):
                raise ValueError("a key must be a text")
            self._key(parent, value)
        elif parent.key == "<<":
            parent.merged.append(value)
            parent.key = None
        else:
            parent.value[parent.key] = value
            parent.key = None

    def _close(self) -> None:
        closed = self._open.pop()
        for merged in closed.merged:
            for each in merged if isinstance(merged, list) else [merged]:
                if not isinstance(each, dict):
                    raise ValueError("what << merges must be a mapping")
                for key, value in each.items():
                    closed.value.setdefault(key, value)
        if closed.anchor is not None:
            self._anchors[closed.anchor] = (closed.value, closed.weight)
        self._put(closed.value, closed.weight)


def read(text: str) -> Any:
    """The values of a YAML text, as JSON has them. Raises ValueError with the reason for what is none or too much."""
    if len(text) > TEXT_LIMIT:
        raise ValueError(f"it has more than {TEXT_LIMIT} characters")
    reader = _Reader()
    try:
        for event in yaml.parse(text, Loader=LOADER):
            reader.take(event)
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from None
    return reader.result


def _check_tag(tag: str | None) -> None:
    if tag not in (None, "!") and not str(tag).startswith(CORE_TAG):
        raise ValueError(f"the tag {str(tag)[:100]} is not known")


def _is_plain(event: Any) -> bool:
    return bool(event.implicit[0]) and event.tag is None


def _is_core(tag: str | None) -> bool:
    return tag is not None and tag.removeprefix(CORE_TAG) in ("int", "float", "bool", "null", "timestamp")


def _resolved(text: str) -> Any:
    """What a plain scalar means."""
    if text in WORDS:
        return WORDS[text]
    if len(text) > NUMBER_LIMIT or not (text[0].isdigit() or text[0] in "+-."):
        return text
    if INTEGER.fullmatch(text):
        return _integer(text.replace("_", ""))
    if NO_NUMBER.fullmatch(text):
        return None
    if FLOAT.fullmatch(text):
        return _number(float(text.replace("_", "")))
    date = DATE.fullmatch(text)
    return text if date is None else _date(date) or text


def _integer(text: str) -> Any:
    base = {"0b": 2, "0o": 8, "0x": 16}.get(text.lstrip("+-")[:2], 10)
    if text[-1] in "box":
        return text  # a prefix without digits
    value = int(text, base)
    if abs(value) < EXACT:
        return value
    return _number(float(value)) if value.bit_length() < 1024 else None


def _number(value: float) -> Any:
    if not math.isfinite(value):
        return None
    return int(value) if value.is_integer() and abs(value) < EXACT else value


def _date(found: re.Match[str]) -> str | None:
    year, month, day, hour, minute, second, fraction, sign, off_hours, off_minutes = found.groups()
    try:
        zone = timedelta(hours=int(off_hours or 0), minutes=int(off_minutes or 0))
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0),
            int(f"{fraction or 0:0<3}"[:3]) * 1000, timezone(-zone if sign == "-" else zone),
        ).astimezone(UTC)  # fmt: skip
    except (ValueError, OverflowError):
        return None  # no day of any calendar
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
