"""Texts and tables as BIDS datasets hold them: in several encodings, and without guessing types.

BIDS asks for UTF-8 (specification, "File formats"). Datasets also come as UTF-8 with a byte order mark, as UTF-16 from
Windows, and as Latin-1. A table is tab-separated without quoting ("Tabular files"). `n/a` is a missing value; every
other value is the string that stands there, so that the label "None" and the number "007" stay what they are.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Row = Mapping[str, str | None]

MAX_DEPTH = 100  # objects and lists in each other: BIDS metadata has a handful, and Python's reader stops at some 900
MISSING = "n/a"  # BIDS specification, "Tabular files": the one way to write a missing value

#: UTF-32 comes before UTF-16, because UTF-16's mark is the first half of UTF-32's.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LINE_END = re.compile(r"\r\n|\r|\n")  # not str.splitlines, which also cuts at U+0085, U+2028 and others


class NotText(ValueError):
    """The bytes are no text in any encoding that is read here."""


class BadTable(ValueError):
    """The text is no table of tab-separated values. The message names the line."""


class TooDeep(ValueError):
    """JSON has objects and lists nested so deep that it cannot be worked with."""


def decode(data: bytes) -> str:
    """Decode UTF-8 (with or without mark), UTF-16, UTF-32 (with mark) or Latin-1.

    Latin-1 is read as Windows-1252, a superset of it that people's editors write. Web browsers do the same.

    Raises:
        NotText: the bytes are binary, or cut in the middle of a UTF-16 character.
    """
    try:
        for mark, encoding in _MARKS:
            if data.startswith(mark):
                return data.decode(encoding)
        if b"\0" in data:
            return data.decode(_unmarked_utf16(data))
    except UnicodeDecodeError as error:
        raise NotText(f"not readable as {error.encoding}") from error
    for encoding in ("utf-8", "cp1252"):
        try:
            return data.decode(encoding)
        except UnicodeDecodeError:
            continue
    return data.decode("latin-1")


def _unmarked_utf16(data: bytes) -> str:
    """Return the UTF-16 codec of a text without a mark, judged by its zero bytes.

    Text in Latin letters has a zero byte in nearly every character.

    Raises:
        NotText: the zero bytes are not those of UTF-16.
    """
    even, odd = data[0::2].count(0), data[1::2].count(0)
    if len(data) % 2 == 0 and max(even, odd) > 0.7 * len(data) / 2 and min(even, odd) == 0:
        return "utf-16-be" if even else "utf-16-le"
    raise NotText("it holds zero bytes: binary, not text")


def read_table(text: str) -> list[Row]:
    """Return the rows of a tab-separated table, each as column name -> value. `n/a` and missing last cells are None.

    Raises:
        BadTable: two columns have the same name, or a row has more values than there are columns.
    """
    lines = LINE_END.split(text.removeprefix("\ufeff"))
    columns = lines[0].rstrip("\t").split("\t")
    columns = [column.strip() for column in columns]
    twice = [number for number, column in enumerate(columns, start=1) if columns.count(column) > 1]
    if twice:  # the message does not name them: if the header line was forgotten, the name is a value
        raise BadTable(f"line 1: the columns {twice[0]} and {twice[1]} have the same name")
    rows: list[Row] = []
    for number, line in enumerate(lines[1:], start=2):
        if not line.strip():
            continue
        cells = line.split("\t")
        if any(cell.strip() for cell in cells[len(columns) :]):
            raise BadTable(f"line {number}: {len(cells)} values for {len(columns)} columns")
        values = [None if cell.strip() == MISSING else cell for cell in cells[: len(columns)]]
        values += [None] * (len(columns) - len(values))
        rows.append(dict(zip(columns, values, strict=True)))
    return rows


def columns_of(rows: Iterable[Row]) -> list[str]:
    """Return the names of all columns, in the order in which the rows first have them."""
    return list(dict.fromkeys(name for row in rows for name in row))


def from_json(text: str, strict: bool = True, pairs: Callable[[list[tuple[str, Any]]], Any] | None = None) -> Any:
    """Return the value of a JSON text. NaN and Infinity, which JSON does not know, become texts: `"NaN"`.

    Args:
        text: the text.
        strict: whether line breaks and other control characters in a string are an error.
        pairs: makes an object's value of its keys and values; a dict of them by default.

    Raises:
        TooDeep: it is nested more than `MAX_DEPTH` levels deep.
        ValueError: it is no JSON.
    """
    try:
        value = json.loads(text, parse_constant=str, strict=strict, object_pairs_hook=pairs)
    except RecursionError as error:
        raise TooDeep(f"it is nested more than {MAX_DEPTH} levels deep") from error
    if text.count("[") + text.count("{") > MAX_DEPTH and _depth(value) > MAX_DEPTH:
        raise TooDeep(f"it is nested more than {MAX_DEPTH} levels deep")
    return value


def _depth(value: object) -> int:
    """Return how deep objects and lists are nested."""
    depth, level = 0, [value]
    while level := [one for one in level if isinstance(one, dict | list)]:
        depth += 1
        level = [inner for one in level for inner in (one.values() if isinstance(one, dict) else one)]
    return depth


def to_json(value: object) -> str:
    """Return a value as JSON text: readable where possible, and always valid Unicode (a lone surrogate is escaped).

    Raises:
        ValueError: the value holds a number that JSON cannot write.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if text.isascii():
        return text
    try:
        text.encode()
    except UnicodeEncodeError:
        return json.dumps(value, allow_nan=False)
    return text
