"""Tables: finds personal columns, real dates, UIDs and high ages in participants, sessions, scans, phenotype, and in
the tables beside images and recordings (events, channels, electrodes, aslcontext, blood).

A table that cannot be read is a finding itself, and so are b-values and directions that are not numbers.
"""

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path

from tasks.bids.text import Row, columns_of, decode, read_table, to_json
from tasks.preflight.fields import parsed
from tasks.preflight.names import (
    is_about_people,
    is_over_89,
    is_recent_date,
    is_uid,
    names_a_date,
    names_an_age,
    rule_of,
    says_nothing,
    years_in_name,
    years_of,
)
from tasks.preflight.nearest import nearest
from tasks.preflight.readable import NotReadable, no_numbers, no_table, read_rows
from tasks.values.models import Dataset
from tasks.values.preflight_rules import Finding, Findings

PARTICIPANTS = "participants.tsv"
PERSON = "participant_id"
#: Dates from 1900 to 2999. Each begins with a character that is written out, which `re` finds ten times as fast as any
#: digit: events of EEG may have gigabytes.
_LOOKS_LIKE_A_DATE = (
    *(re.compile(r"19\d\d[-/]\d"), re.compile(r"2\d\d\d[-/]\d")),
    *(re.compile(rf"{before}(?:19|2\d)\d\d(?<=[a-zA-Z]{before}\d{{4}})") for before in "- "),  # after a month
)
#: UIDs of DICOM as `is_uid` knows them, by the first of their numbers.
_LOOKS_LIKE_A_UID = tuple(re.compile(rf"{re.escape(root)}\.\d+\.\d") for root in ("1.2", "1.3", "2.16", "2.25"))
_BESIDE = ("events", "channels", "electrodes", "aslcontext", "blood")  # columns of the rows, and names of files
_GRADIENTS = (".bval", ".bvec")


def check_tables(dataset: Dataset, found: Findings) -> None:
    """Look through every table that would be published, as rows of the images or as a text."""
    check_rows(PARTICIPANTS, dataset.participants, _units(dataset, PARTICIPANTS), found)
    by_file: dict[str, list[Row]] = {}
    for row in dataset.sessions:
        subject = row.get("participant_id")
        by_file.setdefault(f"{subject}/{subject}_sessions.tsv", []).append(row)
    for path, rows in by_file.items():
        check_rows(path, rows, {}, found)
    for path, data in dataset.texts.items():
        if path.lower().endswith((".tsv", ".csv")):
            _check_text(path, data, dataset, found)
        elif path.lower().endswith(_GRADIENTS) and (why := no_numbers(decode(data))):
            found.add("unreadable", why, path)
    _check_rows_of_images(dataset, found)
    for column in _BESIDE:
        _check_beside(dataset, column, found)
    _check_gradients(dataset, found)


def _check_text(path: str, data: bytes, dataset: Dataset, found: Findings) -> None:
    """Look through a table among the texts. If participants.tsv has been joined, its rows are looked at elsewhere."""
    try:
        rows = read_rows(path, data)
    except NotReadable as error:
        found.add("unreadable", str(error), path)
        return
    if path != PARTICIPANTS or not dataset.participants:
        check_rows(path, rows, _units(dataset, path), found, of_people=is_about_people(path))


def rows_of(path: str, data: bytes) -> list[Row] | None:
    """Return the rows of a table among the texts, or None if it cannot be read as a table."""
    try:
        return read_rows(path, data)
    except NotReadable:
        return None


def _units(dataset: Dataset, path: str) -> dict[str, float]:
    """Return the years of one unit for each column whose unit is in the table's data dictionary."""
    dictionary = parsed(dataset.texts.get(f"{path.rpartition('.')[0]}.json", b""))
    if not isinstance(dictionary, Mapping):
        return {}
    entries = {name: entry for name, entry in dictionary.items() if isinstance(entry, Mapping)}
    return {name: years_of(str(entry["Units"])) for name, entry in entries.items() if entry.get("Units")}


def check_rows(
    path: str, rows: Sequence[Row], units: Mapping[str, float], found: Findings, of_people: bool = True
) -> None:
    """Look through one table, column by column. A table that names the participant of each row is about people."""
    columns = columns_of(rows)
    of_people = of_people or PERSON in columns
    for column in columns:
        values = [value for row in rows if (value := row.get(column)) is not None]
        rule = rule_of(column, of_people)
        if rule is not None and not all(says_nothing(column, value) for value in values):
            found.add(rule, column, path)
            continue
        if any(is_uid(column, value) for value in values):
            found.add("unique-identifier", column, path)
        named = names_a_date(column)
        if any(is_recent_date(value, named) for value in values):
            found.add("date", column, path)
        if names_an_age(column):
            years = units.get(column) or years_in_name(column)
            if any(is_over_89(value, years) for value in values):
                found.add("age-over-89", column, path)


def _check_rows_of_images(dataset: Dataset, found: Findings) -> None:
    """Look through the rows of scans tables, and the rows of people and visits of derivatives and nested datasets."""
    root = Path(dataset.root)
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
            check_rows("", [json.loads(text)], {}, broken)
            for finding in broken.grouped():
                found.add(finding.rule, finding.field, nearest(root, image, name))


def _check_beside(dataset: Dataset, column: str, found: Findings) -> None:
    """Look through the tables of one kind beside images and recordings: whether they are tables, their columns, dates.

    Most files have one of a few texts, and each text is looked at once.
    """
    root = Path(dataset.root)
    judged: dict[str, tuple[Finding, ...]] = {}
    for image in dataset.images:
        text = getattr(image, column)
        if text is None:
            continue
        if text not in judged:
            judged[text] = broken_by_table(text, of_people=False)
        for broken in judged[text]:
            found.add(broken.rule, broken.field, nearest(root, image, f"*_{column}.tsv"))


def broken_by_table(text: str, of_people: bool, before: int = 0) -> tuple[Finding, ...]:
    """Return what is found in a tab-separated table. Its cells are looked at if a column, a date or a UID asks for it.

    Args:
        text: the table, or its first line and a part of the others.
        of_people: whether its rows are about people.
        before: how many lines of the file stand between the first and the others.
    """
    broken = Findings()
    head = [name.strip() for name in re.split(r"[\r\n]", text, maxsplit=1)[0].split("\t")]
    of_people = of_people or PERSON in head
    asks = any(rule_of(name, of_people) or names_a_date(name) or names_an_age(name) for name in head)
    if why := no_table(text, before):
        broken.add("unreadable", why, "")
    elif asks or any(pattern.search(text) for pattern in (*_LOOKS_LIKE_A_DATE, *_LOOKS_LIKE_A_UID)):
        check_rows("", read_table(text), {}, broken, of_people)
    return broken.grouped()


def _check_gradients(dataset: Dataset, found: Findings) -> None:
    """Check that the b-values and directions of images are numbers, so that they say nothing else."""
    root = Path(dataset.root)
    reason = lru_cache(maxsize=None)(no_numbers)
    for image in dataset.images:
        for text, ending in ((image.bval, "bval"), (image.bvec, "bvec")):
            if text is not None and (why := reason(text)):
                found.add("unreadable", why, nearest(root, image, f"*{image.suffix}.{ending}"))
