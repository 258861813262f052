"""Files beside images and recordings: finds personal, device and free-text fields in sidecars, tables and surfaces.

How it works:

1. Only the files that a run is about to publish are opened. Of a file from which fields are stripped, what is left is
   looked at.
2. JSON and tables are judged as `fields` and `tables` judge what the images have from them, so that what was found
   there is found again in the same field of the same file, and counts once. It is looked at here too because a file may
   hold what no image has: a nearer sidecar says something else, or no image uses it.
3. Of a table, a portion at a time is in memory. A deflated one has no line of names in BIDS (specification, "Compressed
   tabular files"), so it has to be numbers.
4. Surfaces (GIFTI) and grey-ordinates (CIFTI) have metadata in XML: pairs of a name and a value, most of them written
   by programs. Whatever may identify a person is a finding, and so is the date of a visit; the rest counts as free text
   in a header.

Nobody has said how to look through other files. They are published if `include` names them, and are not opened.
"""

import gzip
import zlib
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from io import BytesIO
from pathlib import Path
from threading import Lock
from typing import IO, cast

from tasks.bids.annex import stand_in
from tasks.bids.text import LINE_END, NotText, decode
from tasks.preflight.description import of_a_visit
from tasks.preflight.fields import check_json
from tasks.preflight.headers import CIFTI, extension, in_header, is_nifti
from tasks.preflight.many_files import look_into_each
from tasks.preflight.names import is_about_people, names_a_date, needs_no_columns, rule_of
from tasks.preflight.readable import NotReadable, names_nothing, no_numbers, no_values_but_numbers, read_rows
from tasks.preflight.recordings.said import said, tells
from tasks.preflight.tables import broken_by_table, check_rows
from tasks.preflight.xml_metadata import Pair, metadata
from tasks.values.models import Image
from tasks.values.preflight_rules import STOPS, Finding, Findings, RuleName

LARGE = 1 << 20  # bytes: of files that are larger, one at a time is in memory
MAX_WHOLE = 64 << 20  # bytes of a file that has to be in memory as a whole; no JSON of BIDS has a tenth of it
PORTION = 8 << 20  # bytes of a table that are looked through at a time
STEP = 256 << 10  # bytes of an XML text
START = 1024  # bytes by which the stand-in of a file that is not fetched is known


def check_beside(files: Iterable[Image], root: Path, found: Findings) -> None:
    """Look through these sidecars, tables and surfaces. Staging reports a file that is not there or not fetched."""
    one_at_a_time = Lock()

    def broken(file: Image) -> tuple[Finding, ...]:
        with one_at_a_time if file.size > LARGE or file.path.lower().endswith(".gz") else nullcontext():
            return _broken(file, root)

    for findings in look_into_each(broken, files):
        found.add_all(findings)


def _broken(file: Image, root: Path) -> tuple[Finding, ...]:
    """Return what is found in one file."""
    look = next((look for ending, look in _LOOKS.items() if file.path.lower().endswith(ending)), None)
    if look is None:
        return ()
    found = Findings()
    try:
        with _opened(file, root) as stream:
            if not stand_in(stream.read(START)):
                stream.seek(0)
                look(file, stream, found)
    except NotReadable as error:
        found.add("unreadable", str(error), file.path)
    except NotText as error:
        found.add("unreadable", f"not UTF-8: {error}", file.path)
    except (OSError, EOFError, zlib.error):  # not there, or damaged: staging names it
        return ()
    return found.grouped()


def _opened(file: Image, root: Path) -> IO[bytes]:
    """Return what is published of a file, opened."""
    if file.content is not None:
        return BytesIO(file.content)
    return open(f"{root}/{file.path}", "rb")  # noqa: PTH123 - thousands: pathlib costs half as much


def _whole(stream: IO[bytes]) -> bytes:
    """Return all bytes of a file.

    Raises:
        NotReadable: there are too many.
    """
    data = stream.read(MAX_WHOLE + 1)
    if len(data) > MAX_WHOLE:
        raise NotReadable(f"larger than {MAX_WHOLE >> 20} MiB, so it is not looked through")
    return data


def _json(file: Image, stream: IO[bytes], found: Findings) -> None:
    check_json(file.path, _whole(stream), found)


def _numbers(file: Image, stream: IO[bytes], found: Findings) -> None:
    if why := no_numbers(decode(_whole(stream))):
        raise NotReadable(why)


def _by_commas(file: Image, stream: IO[bytes], found: Findings) -> None:
    check_rows(file.path, read_rows(file.path, _whole(stream)), {}, found, is_about_people(file.path))


def _deflated(file: Image, stream: IO[bytes], found: Findings) -> None:
    """Look through a deflated table: one without names of columns, or, where the first line is words, one with them."""
    inflated = cast(IO[bytes], gzip.GzipFile(fileobj=stream))
    if not _begins_with_numbers(inflated):
        _by_names(file, inflated, found)
    elif why := _no_numbers_alone(inflated):
        raise NotReadable(why)


def _by_tabs(file: Image, stream: IO[bytes], found: Findings) -> None:
    """Look through a table: numbers alone tell nothing, unless its rows may be people."""
    if needs_no_columns(file.path) and _begins_with_numbers(stream):
        if why := _no_numbers_alone(stream):
            raise NotReadable(names_nothing(why))
        return
    _by_names(file, stream, found)


def _begins_with_numbers(stream: IO[bytes]) -> bool:
    """Return whether the first line of a table has no names of columns; the stream is at its start again."""
    start = stream.read(STEP).decode("latin-1")
    stream.seek(0)
    return no_values_but_numbers(LINE_END.split(start, maxsplit=1)[0]) is None


def _no_numbers_alone(stream: IO[bytes]) -> str | None:
    """Return why a table does not consist of numbers alone, or None if it does."""
    before = 0
    for text in _portions(stream):
        if why := no_values_but_numbers(text, before):
            return why
        before += _line_ends(text)
    return None


def _by_names(file: Image, stream: IO[bytes], found: Findings) -> None:
    """Look through a table by tabs. Each portion but the first has the first line put before it."""
    of_people, head, before = is_about_people(file.path), "", 0
    for text in _portions(stream):
        for one in broken_by_table(f"{head}{text}", of_people, before):
            if one.rule == "unreadable":
                raise NotReadable(one.field)
            found.add(one.rule, one.field, file.path)
        before += _line_ends(text) - (0 if head else 1)
        head = head or f"{LINE_END.split(text, maxsplit=1)[0]}\n"


def _portions(stream: IO[bytes]) -> Iterator[str]:
    """Yield the text of a table in portions of whole lines.

    Raises:
        NotReadable: it is large, and its lines cannot be told apart without reading all of it.
        NotText: it is binary.
    """
    data = stream.read(PORTION)
    if len(data) < PORTION:
        yield decode(data)
        return
    if b"\0" in data or data.startswith((BOM_UTF16_BE, BOM_UTF16_LE)):
        raise NotReadable(f"larger than {PORTION >> 20} MiB, and not UTF-8")
    while more := stream.read(PORTION):
        end = max(data.rfind(b"\n"), data.rfind(b"\r") if b"\n" not in data else -1) + 1
        if not end:
            raise NotReadable(f"a line of more than {PORTION >> 20} MiB")
        yield decode(data[:end])
        data = data[end:] + more
    if data:
        yield decode(data)


def _line_ends(text: str) -> int:
    return text.replace("\r\n", "\n").replace("\r", "\n").count("\n")


def _gifti(file: Image, stream: IO[bytes], found: Findings) -> None:
    _tell(file, "GIFTI", metadata(iter(lambda: stream.read(STEP), b"")), found)


def _cifti(file: Image, stream: IO[bytes], found: Findings) -> None:
    """Look at the NIfTI header, and at the metadata in the extension that every CIFTI file has."""
    if not is_nifti(stream):
        raise NotReadable("no NIfTI header")
    for rule, field in in_header(stream):
        if field != f"extension {CIFTI} (CIFTI)":
            found.add(rule, field, file.path)
    _tell(file, "CIFTI", metadata(extension(stream, CIFTI, STEP)), found)


def _tell(file: Image, form: str, pairs: Iterable[Pair], found: Findings) -> None:
    """Note what the metadata of a file says about people, judged by the names of its fields."""
    for name, value in pairs:
        one = said(form, name, value)
        if not tells(one, file.sub):
            continue
        rule: RuleName | None = "date" if names_a_date(name) and of_a_visit(name) else rule_of(name)
        found.add(rule or "header-text", name if rule in STOPS else one.field, file.path)


_LOOKS: dict[str, Callable[[Image, IO[bytes], Findings], None]] = {
    ".json": _json, ".bval": _numbers, ".bvec": _numbers, ".tsv": _by_tabs, ".tsv.gz": _deflated, ".csv": _by_commas,
    ".gii": _gifti, ".nii": _cifti,
}  # fmt: skip
