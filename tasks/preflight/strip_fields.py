"""Strip: leaves fields that the operator named out of everything that is published. The source is never touched.

A field is a key of a JSON object at any depth, or a column of a table. It is taken out of the metadata of the images,
of the rows of tables that they carry, and of the dataset's own texts, so that a sidecar published under `bids/` does
not say what the metadata column leaves out. The fields that BIDS gives dataset_description.json stay, because they are
about the dataset. Where a field is named and not taken out, that is said.

Spaces around a name, and several in it, are no matter: findings show names without them.
"""

import csv
import io
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tasks.bids.text import MISSING, NotText, Row, columns_of, decode, to_json
from tasks.preflight.description import OF_BIDS
from tasks.preflight.fields import is_description, names_in, parsed
from tasks.preflight.readable import NotReadable, read_json
from tasks.preflight.tables import rows_of
from tasks.values.errors import BadInput
from tasks.values.left_out import LeftOut, in_order
from tasks.values.models import Dataset, Image
from tasks.values.preflight_rules import SHOWN, one_line

#: Columns by which a row is found (BIDS specification, "Data summary files").
NEEDED = ("participant_id", "session_id", "filename")
LEFT_OUT = "texts that cannot be read, and name a field that is stripped"
#: Texts that are looked through as JSON or as tables.
_READ = ("json", "tsv", "csv")


class _Fields:
    """The fields to strip, and which of them have been seen."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = dict.fromkeys(map(one_line, names))
        self.seen: set[str] = set()
        self._words = [max(name.split(), key=len, default="") for name in self.names]

    def has(self, name: str) -> bool:
        """Return whether a key or a column is one of them."""
        name = one_line(name)
        if name not in self.names:
            return False
        self.seen.add(name)
        return True

    def may_be_in(self, text: str) -> bool:
        """Return whether a text may name one of them, as it is or as Python escapes it in JSON."""
        return any(word in text or json.dumps(word)[1:-1] in text for word in self._words)


def stripped(dataset: Dataset, names: Iterable[str]) -> tuple[Dataset, tuple[str, ...]]:
    """Return the dataset without these fields, and sentences about those that are nowhere, or are not taken out.

    Raises:
        BadInput: one of them is needed to know what a row is about.
    """
    fields = _Fields(names)
    needed = [name for name in fields.names if name in NEEDED]
    if needed:
        raise BadInput(f"strip: {', '.join(needed)} says what a row of a table is about, and cannot be left out.")
    if not fields.names:
        return dataset, ()
    of_json = lru_cache(maxsize=None)(lambda text: _json(text, fields) if fields.may_be_in(text) else text)
    of_table = lru_cache(maxsize=None)(lambda text: _table(text, fields) if fields.may_be_in(text) else text)
    texts = {path: _text(path, data, fields) for path, data in dataset.texts.items()}
    gone = [
        LeftOut(path, "other", "cannot be read, and names a field that is stripped", LEFT_OUT, len(dataset.texts[path]))
        for path, data in texts.items()
        if data is None
    ]
    left = replace(
        dataset,
        description=_described(dataset.description, fields),
        images=tuple(_image(image, of_json, of_table) for image in dataset.images),
        texts={path: data for path, data in texts.items() if data is not None},
        participants=_rows(dataset.participants, fields),
        sessions=_rows(dataset.sessions, fields),
        unpublished=in_order((*dataset.unpublished, *gone)),
    )
    return left, tuple(_unstripped(left, fields))


def _unstripped(left: Dataset, fields: _Fields) -> Iterator[str]:
    """Yield a sentence for each field that is nowhere, and for each that is named where it is not taken out."""
    for name in fields.names:
        if places := _where_left(left, name):
            more = ", ..." if len(places) > SHOWN else ""
            yield (
                f"strip: {name} is named in {', '.join(places[:SHOWN])}{more}, which strip does not change. Look at it "
                "there, and take out yourself what should not be published."
            )
        elif name not in fields.seen:
            yield f"strip: {name} is no field of a sidecar and no column of a table here, so nothing is left out by it."


def _where_left(left: Dataset, name: str) -> list[str]:
    """Return the texts that strip does not change, and that have the name as a word or as a field of BIDS'."""
    spelled = r"\s+".join(map(re.escape, name.split()))
    word = re.compile(rf"(?<!\w){spelled}(?!\w)")
    places = []
    for path, data in left.texts.items():
        if is_description(path):
            found = name in map(one_line, names_in(parsed(data)))
        else:
            found = not path.lower().endswith(_READ) and word.search(decode(data)) is not None
        places += [path] if found else []
    return sorted(places)


def _image(image: Image, of_json: Callable[[str], str], of_table: Callable[[str], str]) -> Image:
    texts: dict[str, Any] = {
        name: of_json(text)
        for name in ("metadata", "events_metadata", "coordsystem", "participant", "session", "scan")
        if (text := getattr(image, name)) is not None
    }
    texts |= {
        name: of_table(text)
        for name in ("events", "channels", "electrodes", "aslcontext", "blood")
        if (text := getattr(image, name)) is not None
    }
    changed = {name: text for name, text in texts.items() if text != getattr(image, name)}
    return replace(image, **changed) if changed else image


def _json(text: str, fields: _Fields) -> str:
    return to_json(_pruned(json.loads(text), fields))


def _pruned(value: object, fields: _Fields) -> object:
    """Return a JSON value without these keys, at any depth."""
    if isinstance(value, list):
        return [_pruned(item, fields) for item in value]
    if isinstance(value, Mapping):
        return {key: _pruned(item, fields) for key, item in value.items() if not fields.has(key)}
    return value


def _table(text: str, fields: _Fields) -> str:
    rows = rows_of("events.tsv", text.encode("utf-8", "surrogatepass"))
    if rows is None:
        return ""  # no table, and it names a field that must not be published
    return _as_tsv(rows, fields) if any(map(fields.has, columns_of(rows))) else text


def _as_tsv(rows: Sequence[Row], fields: _Fields) -> str:
    columns = _kept(rows, fields)
    lines = [columns, *([MISSING if row.get(name) is None else str(row[name]) for name in columns] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def _kept(rows: Sequence[Row], fields: _Fields) -> list[str]:
    return [column for column in columns_of(rows) if not fields.has(column)]


def _rows(rows: Sequence[Row], fields: _Fields) -> tuple[Row, ...]:
    kept = _kept(rows, fields)
    return tuple({name: row[name] for name in kept if name in row} for row in rows)


def _described(description: Mapping[str, object], fields: _Fields) -> dict[str, object]:
    """Return a dataset_description.json without the fields. Those that BIDS gives it stay as they are."""
    return {
        key: value if key in OF_BIDS else _pruned(value, fields)
        for key, value in description.items()
        if key in OF_BIDS or not fields.has(key)
    }


def _text(path: str, data: bytes, fields: _Fields) -> bytes | None:
    """Return a text of the dataset without the fields, or None if it may have them and cannot be read."""
    ending = path.rpartition(".")[2].lower()
    try:
        text = decode(data)
    except NotText:
        return None
    if ending == "json" and (fields.may_be_in(text) or "\\u" in text):  # JSON may spell any letter so
        return _json_text(path, data, fields)
    return _table_text(path, data, fields) if ending in _READ and fields.may_be_in(text) else data


def _json_text(path: str, data: bytes, fields: _Fields) -> bytes | None:
    try:
        if not any(map(fields.has, names_in(read_json(data, every=True)))):
            return data
    except NotReadable:
        return None
    value = parsed(data)
    if is_description(path) and isinstance(value, dict):
        left: object = _described(value, fields)
    else:
        left = _pruned(value, fields)
    return json.dumps(left, indent=4, ensure_ascii=False).encode()


def _table_text(path: str, data: bytes, fields: _Fields) -> bytes | None:
    rows = rows_of(path, data)
    if rows is None:
        return None
    if not any(map(fields.has, columns_of(rows))):
        return data
    if path.lower().endswith(".tsv"):
        return _as_tsv(rows, fields).encode()
    sink = io.StringIO()
    writer = csv.DictWriter(sink, _kept(rows, fields), lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(rows, fields))
    return sink.getvalue().encode()
