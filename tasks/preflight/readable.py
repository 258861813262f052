"""Says why a text cannot be checked: invalid JSON, a table whose cells have no certain column, words for numbers.

What cannot be read cannot be checked. A reason names the place (line and column), and never what stands there. Ordinary
quirks are none: a byte order mark, UTF-16, Latin-1, any line ends, blank lines at the end, an empty file, NaN in JSON,
tabs and line ends within its strings.

A cell is judged by the name of its column. So a table is read only if every row has as many cells as the first line:
if one is missing or too much, nobody knows which, and a name may stand below `age`. A table of numbers alone that is of
one subject needs no names of columns: it tells nothing in whatever column its numbers are.
"""

import csv
import io
import json
import re
from collections.abc import Callable

from tasks.bids.text import LINE_END, NotText, Row, TooDeep, decode, from_json, read_table
from tasks.preflight.names import is_recent_date, needs_no_columns

#: What separates values in tables that are no TSV: where the first line has no tab, it shows that they are several.
_NO_TSV = re.compile(r"\S[,;| ]+\S")
_NO_CSV = re.compile(r"\S[\t;|]+\S")
#: What no column is called: a number with a fraction. Whole numbers are, as the items of a questionnaire.
_A_VALUE = re.compile(r"[-+]?\d*[.]\d+(?:e[-+]?\d+)?", re.IGNORECASE)
_RETURNS = " (a carriage return within a line counts as its end; many editors do not show it)"
_A_SUBJECT = re.compile(r"sub-[A-Za-z0-9]+")
#: What bval and bvec files hold (BIDS specification, "Diffusion imaging data"); some programs write commas.
_NUMBERS = re.compile(r"(?:[-+\d.,;\s]++|e[-+]?\d|nan|inf)*", re.IGNORECASE)

#: The same of a table, in which a value may be missing, or be whether something is so. A date is no number.
_VALUES = re.compile(r"(?:[+\d.,;\s]++|(?<!\d)-|e[-+]?\d|nan|inf|n/a|true|false)*", re.IGNORECASE)


class NotReadable(ValueError):
    """A text cannot be read as what its name says. The message says why, without a value of it."""


def read_json(data: bytes, every: bool = False) -> object:
    """Return the value of a JSON text; None for an empty one.

    Args:
        data: the text.
        every: whether a key that occurs twice in an object gets the list of its values, instead of the last of them.

    Raises:
        NotReadable: it is no JSON.
    """
    pairs: Callable[[list[tuple[str, object]]], object] = _all_values if every else dict
    try:
        text = decode(data)
        if not text.strip():
            return None
        return from_json(text, strict=False, pairs=pairs)
    except NotText as error:
        raise NotReadable(f"not UTF-8: {error}") from error
    except json.JSONDecodeError as error:
        raise NotReadable(f"not JSON: line {error.lineno:,}, column {error.colno:,}") from error
    except TooDeep as error:
        raise NotReadable("JSON that is nested too deeply to be looked through") from error
    except ValueError as error:
        raise NotReadable("not JSON: a number in it has too many digits") from error


def _all_values(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """Return a JSON object. A key that occurs more than once gets the list of its values."""
    values: dict[str, list[object]] = {}
    for name, value in pairs:
        values.setdefault(name, []).append(value)
    return {name: found[0] if len(found) == 1 else found for name, found in values.items()}


def read_rows(path: str, data: bytes) -> list[Row]:
    """Return the rows of a table, by commas if its name ends in .csv, else by tabs; none if it is numbers alone.

    Raises:
        NotReadable: some cell is in no certain column.
    """
    try:
        text = decode(data)
    except NotText as error:
        raise NotReadable(f"not UTF-8: {error}") from error
    if needs_no_columns(path) and no_values_but_numbers(text) is None:
        return []
    if path.lower().endswith(".csv"):
        return _rows_by_commas(text)
    if why := no_table(text):
        raise NotReadable(why)
    return read_table(text)


def no_table(text: str, before: int = 0) -> str | None:
    """Return why the columns of a tab-separated table are not certain, or None if they are.

    Args:
        text: the table, or its first line and a part of the others.
        before: how many lines of the file stand between the first and the others.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    lines = text.replace("\r", "\n").split("\n")  # faster than LINE_END
    head = lines[0].rstrip("\t")
    tabs = head.count("\t")
    if "\t" not in head and _NO_TSV.search(head.strip()):
        return "line 1: no tab in it, so its columns cannot be told apart"
    if why := _names_nothing(head, text, before) or _no_header(head.split("\t")):
        return why
    for number, line in enumerate(lines[1:], start=2):
        if line.count("\t") == tabs or not line or line.isspace():
            continue
        cells = line.split("\t")
        if len(cells) < tabs + 1 or any(cell.strip() for cell in cells[tabs + 1 :]):
            within = "\r" in text and "\n" in text
            return _other_length(number + before, len(cells), tabs + 1) + (_RETURNS if within else "")
    return None


def _names_nothing(head: str, text: str, before: int = 0) -> str | None:
    """Return why a table whose first line is numbers cannot be judged, or None if it is numbers alone, or has names.

    Numbers may name columns, as those of a matrix. But nobody can know what a text below a number is.
    """
    if not head.strip() or not _VALUES.fullmatch(head) or (why := no_values_but_numbers(text, before)) is None:
        return None
    return names_nothing(why)


def names_nothing(why: str) -> str:
    """Return why a table that begins with numbers cannot be judged, from why it is not numbers alone."""
    return f"{why}, and line 1 has numbers where the names of the columns belong"


def _rows_by_commas(text: str) -> list[Row]:
    reader = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""), strict=True)
    rows: list[Row] = []
    head: list[str] | None = None
    try:
        for cells in reader:
            if head is None:
                head = _without_empty_ends([cell.strip() for cell in cells])
                if len(head) == 1 and _NO_CSV.search(head[0]):
                    raise NotReadable("line 1: no comma in it, so its columns cannot be told apart")
                if why := _names_nothing(",".join(head), text) or _no_header(head):
                    raise NotReadable(why)
            elif any(cell.strip() for cell in cells):
                if len(cells) < len(head) or any(cell.strip() for cell in cells[len(head) :]):
                    raise NotReadable(_other_length(reader.line_num, len(cells), len(head)))
                rows.append(dict(zip(head, cells, strict=False)))
    except csv.Error as error:
        raise NotReadable(f"line {reader.line_num:,}: its quotes do not match, or a cell is too long") from error
    return rows


def _without_empty_ends(cells: list[str]) -> list[str]:
    """Return cells without the empty ones after the last, which spreadsheets write."""
    last = max((number for number, cell in enumerate(cells) if cell), default=0)
    return cells[: last + 1]


def _no_header(columns: list[str]) -> str | None:
    """Return why a first line does not name the columns of a table, or None if it does."""
    names = [column.strip() for column in columns]
    first = {name: number for number, name in reversed(list(enumerate(names, start=1)))}
    for number, name in enumerate(names, start=1):
        if first[name] != number:
            return f"line 1: the columns {first[name]:,} and {number:,} have the same name"
    if _A_SUBJECT.fullmatch(names[0]) or any(_A_VALUE.fullmatch(n) or is_recent_date(n, named=False) for n in names):
        return "line 1: values in it, where the names of the columns belong"
    return None


def _other_length(line: int, cells: int, columns: int) -> str:
    return f"line {line:,}: {cells:,} {'cell' if cells == 1 else 'cells'}, and {columns:,} in the first line"


def no_numbers(text: str) -> str | None:
    """Return why a text is not the numbers of a bval or bvec file, or None if it is."""
    return _not_alone(_NUMBERS, text)


def no_values_but_numbers(text: str, before: int = 0) -> str | None:
    """Return why a table without column names does not consist of numbers alone, or None if it does.

    Args:
        text: the table, or a part of its lines.
        before: how many lines of the file stand before them.
    """
    return _not_alone(_VALUES, text, before)


def _not_alone(numbers: re.Pattern[str], text: str, before: int = 0) -> str | None:
    text = text.removeprefix("\ufeff")
    if numbers.fullmatch(text):
        return None
    number = next(number for number, line in enumerate(LINE_END.split(text), start=1) if not numbers.fullmatch(line))
    return f"line {before + number:,}: not numbers alone"
