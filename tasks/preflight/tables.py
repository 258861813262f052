"""Tables: finds personal columns, real dates and high ages in participants, sessions, scans, phenotype and events."""

import csv
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.bids.text import BadTable, NotText, Row, columns_of, decode, read_table, to_json
from tasks.preflight.fields import parsed
from tasks.preflight.names import (
    is_over_89,
    is_placeholder,
    is_recent_date,
    names_a_date,
    names_an_age,
    rule_of,
    years_in_name,
    years_of,
)
from tasks.values.findings import Finding, Findings
from tasks.values.models import Dataset, Image

PARTICIPANTS = "participants.tsv"
_LOOKS_LIKE_A_DATE = re.compile(r"\d{4}[-/]\d")
_EVENTS = "events.tsv"


def check_tables(dataset: Dataset, found: Findings) -> None:
    """Look through every table that would be published, as rows of the images or as a text."""
    _check(PARTICIPANTS, dataset.participants, _units(dataset, PARTICIPANTS), found)
    by_file: dict[str, list[Row]] = {}
    for row in dataset.sessions:
        subject = row.get("participant_id")
        by_file.setdefault(f"{subject}/{subject}_sessions.tsv", []).append(row)
    for path, rows in by_file.items():
        _check(path, rows, {}, found)
    for path, data in dataset.texts.items():
        if path != PARTICIPANTS and path.lower().endswith((".tsv", ".csv")):
            of_people = not path.endswith(_EVENTS)
            _check(path, rows_of(path, data) or [], _units(dataset, path), found, of_people)
    _check_rows_of_images(dataset, found)
    _check_events(dataset, found)


def rows_of(path: str, data: bytes) -> list[Row] | None:
    """Return the rows of a table among the texts, or None if it cannot be read as a table."""
    try:
        if path.lower().endswith(".csv"):
            return [dict(row) for row in csv.DictReader(decode(data).splitlines(), restkey="", restval=None)]
        return read_table(decode(data))
    except (NotText, BadTable, csv.Error):
        return None


def _units(dataset: Dataset, path: str) -> dict[str, float]:
    """Return the years of one unit for each column whose unit is in the table's data dictionary."""
    dictionary = parsed(dataset.texts.get(f"{path.rpartition('.')[0]}.json", b""))
    if not isinstance(dictionary, Mapping):
        return {}
    entries = {name: entry for name, entry in dictionary.items() if isinstance(entry, Mapping)}
    return {name: years_of(str(entry["Units"])) for name, entry in entries.items() if entry.get("Units")}


def _check(path: str, rows: Sequence[Row], units: Mapping[str, float], found: Findings, of_people: bool = True) -> None:
    """Look through one table, column by column."""
    for column in columns_of(rows):
        values = [value for row in rows if (value := row.get(column)) is not None]
        rule = rule_of(column, of_people)
        if rule is not None and not all(map(is_placeholder, values)):
            found.add(rule, column, path)
            continue
        named = names_a_date(column)
        if any(is_recent_date(value, named) for value in values):
            found.add("date", column, path)
        if names_an_age(column):
            years = units.get(column) or years_in_name(column)
            if any(is_over_89(value, years) for value in values):
                found.add("age-over-89", column, path)


def _check_rows_of_images(dataset: Dataset, found: Findings) -> None:
    """Look through the rows of scans tables, and the rows of people and visits of derivatives and nested datasets."""
    files = _Tables(Path(dataset.root))
    seen = {to_json(row) for row in dataset.participants}  # these are looked at as tables
    seen.update(to_json({name: row[name] for name in row if name != "participant_id"}) for row in dataset.sessions)
    for image in dataset.images:
        texts = [(image.scan, "*_scans.tsv")]
        if image.dataset != "raw":
            texts += [(image.participant, PARTICIPANTS), (image.session, "*_sessions.tsv")]
        for text, name in texts:
            if text is None or text in seen:
                continue
            seen.add(text)
            broken = Findings()
            _check("", [json.loads(text)], {}, broken)
            for finding in broken.grouped():
                found.add(finding.rule, finding.field, files.above(image, name))


def _check_events(dataset: Dataset, found: Findings) -> None:
    """Look through events: the names of their columns, and dates.

    Most files have one of a few texts, and each text is looked at once.
    """
    files = _Tables(Path(dataset.root))
    judged: dict[str, tuple[Finding, ...]] = {}
    for image in dataset.images:
        text = image.events
        if text is None:
            continue
        if text not in judged:
            head = re.split(r"[\r\n]", text, maxsplit=1)[0].split("\t")
            asks = any(rule_of(name.strip()) or names_a_date(name.strip()) for name in head)
            judged[text] = _broken(text) if asks or _LOOKS_LIKE_A_DATE.search(text) else ()
        for broken in judged[text]:
            found.add(broken.rule, broken.field, files.above(image, f"*_{_EVENTS}"))


def _broken(text: str) -> tuple[Finding, ...]:
    broken = Findings()
    _check("", rows_of(_EVENTS, text.encode("utf-8", "surrogatepass")) or [], {}, broken, of_people=False)
    return broken.grouped()


class _Tables:
    """Finds the file that a row of an image comes from. It is looked for only if something was found in the row."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def above(self, image: Image, pattern: str) -> str:
        """Return the nearest table of that name that is about the image, in its folder or above.

        If there is none, return the image.
        """
        for folder in PurePosixPath(image.path).parents:
            names = sorted(path.name for path in (self._root / folder).glob(pattern))
            about = [name for name in names if _is_about(name, image)]
            if about:
                return (folder / about[0]).as_posix()
        return image.path


def _is_about(table: str, image: Image) -> bool:
    """Return whether each entity in a table's name is one of the image's."""
    own = set(image.path.rpartition("/")[2].split("_"))
    return all(part in own for part in table.split("_")[:-1])
