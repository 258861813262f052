"""Strip: leaves fields that the operator named out of everything that is published. The source is never touched.

A field is a key of a JSON object at any depth, or a column of a table. It is taken out of the metadata of the images,
of the rows of tables that they carry, of the dataset's own texts, and of the sidecars and tables that are rows, so that
no file says what the metadata column leaves out. A file that has none of the fields keeps its own bytes. The fields
that BIDS gives dataset_description.json stay, because they are about the dataset. Where a named field is not taken out,
a sentence says so.

Spaces around a name do not matter, nor how many there are between its words: findings show names without them.
"""

import csv
import gzip
import io
import json
import re
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, cast

from tasks.bids.annex import stand_in
from tasks.bids.text import LINE_END, MISSING, NotText, Row, columns_of, decode, to_json
from tasks.preflight.description import OF_BIDS
from tasks.preflight.fields import is_description, names_in, parsed
from tasks.preflight.many_files import look_into_each
from tasks.preflight.readable import NotReadable, read_json
from tasks.preflight.tables import rows_of
from tasks.values.errors import BadInput
from tasks.values.left_out import LeftOut, in_order
from tasks.values.models import Dataset, Image
from tasks.values.preflight_rules import SHOWN, one_line

#: Columns by which a row is found (BIDS specification, "Data summary files").
NEEDED = ("participant_id", "session_id", "filename")
LEFT_OUT = "files that cannot be read, and may have a field that is stripped"
#: Files that are looked through as JSON or as tables.
_READ = ("json", "tsv", "csv")
MAX_WHOLE = 64 << 20  # bytes of a file, inflated: it is held in memory, and so is what is left of it
MAX_SEARCHED = 64 << 10  # bytes of a file that strip does not change, and in which a name is looked for
START = 1024  # bytes by which the stand-in of a file that is not fetched is known
NEVER = 0  # ns: the time of modification that no file has
STORED = 65535  # bytes of a block of a gzip stream that is not deflated (RFC 1951, 3.2.4)


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
    """Return the dataset without these fields, and sentences about fields that were not found, or not taken out.

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
    files = list(look_into_each(lambda file: _file(file, Path(dataset.root), fields), dataset.files))
    gone += [
        LeftOut(file.path, "other", "cannot be read, and may have a field that is stripped", LEFT_OUT, file.size)
        for file, kept in zip(dataset.files, files, strict=True)
        if kept is None
    ]
    left = replace(
        dataset,
        description=_described(dataset.description, fields),
        images=tuple(_image(image, of_json, of_table) for image in dataset.images),
        files=tuple(file for file in files if file is not None),
        texts={path: data for path, data in texts.items() if data is not None},
        participants=_rows(dataset.participants, fields),
        sessions=_rows(dataset.sessions, fields),
        unpublished=in_order((*dataset.unpublished, *gone)),
    )
    return left, tuple(_unstripped(left, fields))


def _unstripped(left: Dataset, fields: _Fields) -> Iterator[str]:
    """Yield a sentence for each field that was not found, and for each that stands where it is not taken out."""
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
    """Return the texts and small files that strip does not change, with the name as a word or as a field of BIDS'."""
    spelled = r"\s+".join(map(re.escape, name.split()))
    word = re.compile(rf"(?<!\w){spelled}(?!\w)")
    places = []
    for path, data in left.texts.items():
        if is_description(path):
            found = name in map(one_line, names_in(parsed(data)))
        else:
            found = not path.lower().endswith(_READ) and word.search(decode(data)) is not None
        places += [path] if found else []
    root = Path(left.root)
    places += [file.path for file in left.files if _is_searched(file) and word.search(_words_of(root / file.path))]
    return sorted(places)


def _is_searched(file: Image) -> bool:
    return file.kind == "other" and file.fetched and file.size <= MAX_SEARCHED


def _words_of(path: Path) -> str:
    """Return the text of a file, or nothing if it is none, or cannot be read: staging names it."""
    try:
        return decode(path.read_bytes())
    except (OSError, NotText):
        return ""


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


def _file(file: Image, root: Path, fields: _Fields) -> Image | None:
    """Return a file beside images and recordings without the fields, or None if it may have them and cannot be read.

    One that is not fetched, or of which the gzip stream is damaged, stays as it is: it cannot be staged. If it is
    fetched meanwhile, staging takes it for one that has changed, and does not publish what nobody has stripped.
    """
    name = file.path.lower().removesuffix(".gz")
    if file.kind not in ("sidecar", "table") or not name.endswith(_READ):
        return file
    zipped = file.path.lower().endswith(".gz")
    try:
        with (root / file.path).open("rb") as stream:
            if stand_in(stream.read(START)):
                return replace(file, mtime_ns=NEVER)
            stream.seek(0)
            inflated = cast(IO[bytes], gzip.GzipFile(fileobj=stream)) if zipped else stream
            data = inflated.read(MAX_WHOLE + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error):
        return file
    except FileNotFoundError:
        return replace(file, mtime_ns=NEVER)
    except OSError:
        return None
    if len(data) > MAX_WHOLE:
        return None if name.endswith("json") or _head_may_have(data, fields) else file
    left = _text(name, data, fields)
    if left is None or left is data:
        return None if left is None else file
    content = _stored(left) if zipped else left
    return replace(file, content=content, size=len(content))


def _head_may_have(data: bytes, fields: _Fields) -> bool:
    """Return whether the first line of a table may name one of the fields."""
    try:
        return fields.may_be_in(LINE_END.split(decode(data), maxsplit=1)[0])
    except NotText:
        return True


def _stored(data: bytes) -> bytes:
    """Return a gzip stream of a file that holds its bytes as they are (RFC 1952).

    What a compressor makes of them depends on its version, and another version would then be a change of the dataset.
    """
    parts = [data[start : start + STORED] for start in range(0, len(data), STORED)] or [b""]
    blocks = [
        struct.pack("<BHH", number == len(parts), len(part), len(part) ^ 0xFFFF) + part
        for number, part in enumerate(parts, start=1)
    ]
    head, end = b"\x1f\x8b\x08" + bytes(6) + b"\xff", struct.pack("<2I", zlib.crc32(data), len(data) & 0xFFFFFFFF)
    return head + b"".join(blocks) + end


def _text(path: str, data: bytes, fields: _Fields) -> bytes | None:
    """Return a text without the fields, or None if it may have them and cannot be read. Without any it is the same."""
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
    text = json.dumps(left, indent=4, ensure_ascii=False)
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which JSON can write and UTF-8 cannot
        return json.dumps(left, indent=4).encode()


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
