"""Strip: leaves fields that the operator named out of everything that is published. The source is never touched.

A field is a key of a JSON object at any depth, or a column of a table. It is taken out of the metadata of the images,
of the rows of tables that they carry, and of the dataset's own texts, so that a sidecar published under `bids/` does
not say what the metadata column leaves out. dataset_description.json stays as it is, because it is about the dataset.
"""

import csv
import io
import json
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any

from tasks.bids.text import MISSING, NotText, Row, columns_of, decode, to_json
from tasks.preflight.fields import parsed
from tasks.preflight.tables import rows_of
from tasks.values.errors import BadInput
from tasks.values.left_out import LeftOut, in_order
from tasks.values.models import Dataset, Image

#: Columns by which a row is found (BIDS specification, "Data summary files").
NEEDED = ("participant_id", "session_id", "filename")
LEFT_OUT = "texts that cannot be read, and name a field that is stripped"
_DESCRIPTION = "dataset_description.json"


def stripped(dataset: Dataset, fields: Collection[str]) -> Dataset:
    """Return the dataset without these fields.

    Raises:
        BadInput: one of them is needed to know what a row is about.
    """
    needed = [field for field in fields if field in NEEDED]
    if needed:
        raise BadInput(f"strip: {', '.join(needed)} says what a row of a table is about, and cannot be left out.")
    if not fields:
        return dataset
    of_json = lru_cache(maxsize=None)(lambda text: _without(text, fields, _json))
    of_events = lru_cache(maxsize=None)(lambda text: _without(text, fields, _table))
    texts = {path: _text(path, data, fields) for path, data in dataset.texts.items()}
    gone = [
        LeftOut(path, "other", "cannot be read, and names a field that is stripped", LEFT_OUT, len(dataset.texts[path]))
        for path, data in texts.items()
        if data is None
    ]
    return replace(
        dataset,
        images=tuple(_image(image, of_json, of_events) for image in dataset.images),
        texts={path: data for path, data in texts.items() if data is not None},
        participants=_rows(dataset.participants, fields),
        sessions=_rows(dataset.sessions, fields),
        unpublished=in_order((*dataset.unpublished, *gone)),
    )


def _image(image: Image, of_json: Callable[[str], str], of_events: Callable[[str], str]) -> Image:
    texts: dict[str, Any] = {
        name: of_json(text)
        for name in ("metadata", "events_metadata", "participant", "session", "scan")
        if (text := getattr(image, name)) is not None
    }
    if image.events is not None:
        texts["events"] = of_events(image.events)
    changed = {name: text for name, text in texts.items() if text != getattr(image, name)}
    return replace(image, **changed) if changed else image


def _without(text: str, fields: Collection[str], how: Callable[[str, Collection[str]], str]) -> str:
    """Return a text without the fields. If it names none of them, it is the same object."""
    return how(text, fields) if any(_named(field, text) for field in fields) else text


def _named(field: str, text: str) -> bool:
    """Return whether a text may have the field, as it is or as JSON escapes it."""
    return field in text or json.dumps(field)[1:-1] in text


def _json(text: str, fields: Collection[str]) -> str:
    return to_json(_pruned(json.loads(text), fields))


def _pruned(value: object, fields: Collection[str]) -> object:
    """Return a JSON value without these keys, at any depth."""
    if isinstance(value, list):
        return [_pruned(item, fields) for item in value]
    if isinstance(value, Mapping):
        return {key: _pruned(item, fields) for key, item in value.items() if key not in fields}
    return value


def _table(text: str, fields: Collection[str]) -> str:
    rows = rows_of("events.tsv", text.encode("utf-8", "surrogatepass"))
    if rows is None:
        return ""  # no table, and it names a field that must not be published
    return _as_tsv(rows, fields) if set(columns_of(rows)) & set(fields) else text


def _as_tsv(rows: Sequence[Row], fields: Collection[str]) -> str:
    columns = [column for column in columns_of(rows) if column not in fields]
    lines = [columns, *([MISSING if row.get(name) is None else str(row[name]) for name in columns] for row in rows)]
    return "".join("\t".join(line) + "\n" for line in lines)


def _rows(rows: Sequence[Row], fields: Collection[str]) -> tuple[Row, ...]:
    return tuple({name: value for name, value in row.items() if name not in fields} for row in rows)


def _text(path: str, data: bytes, fields: Collection[str]) -> bytes | None:
    """Return a text of the dataset without the fields, or None if it may have them and cannot be read."""
    ending = path.rpartition(".")[2].lower()
    try:
        names_one = any(_named(field, decode(data)) for field in fields)
    except NotText:
        return None
    if ending not in ("json", "tsv", "csv") or path.endswith(_DESCRIPTION) or not names_one:
        return data
    if ending == "json":
        value = parsed(data)
        return None if value is None else json.dumps(_pruned(value, fields), indent=4, ensure_ascii=False).encode()
    rows = rows_of(path, data)
    if rows is None:
        return None
    if not set(columns_of(rows)) & set(fields):
        return data
    if ending == "tsv":
        return _as_tsv(rows, fields).encode()
    sink = io.StringIO()
    writer = csv.DictWriter(sink, [name for name in columns_of(rows) if name not in fields], lineterminator="\n")
    writer.writeheader()
    writer.writerows(_rows(rows, fields))
    return sink.getvalue().encode()
