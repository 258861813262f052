"""Recordings that are text: tables of numbers (physio, stim, motion), tables of what an eye tracker said, JSON, XML.

Source: BIDS specification, "Physiological recordings", "Motion", "Compressed tabular files": tables without a first
line of names, which the JSON beside them has.
"""

import gzip
import json
import re
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from tasks.bids.text import decode
from tasks.preflight.recordings.said import MAX_TEXT, NotChecked, Said, in_value, in_xml

START = 64 << 10  # bytes of a table in which its first line ends
_GZIP = b"\x1f\x8b"
_NUMBERS = re.compile(r"(?:[-+\d.,;\s#]|e[-+]?\d|nan|inf|n/a|true|false)*", re.IGNORECASE)
_MESSAGES = 1 << 20  # bytes of a table of an eye tracker's messages that are looked through at a time


def numbers(path: Path) -> Iterator[Said]:
    """Check that a table without names begins with numbers. It says nothing then.

    Raises:
        NotChecked: it begins with words, or has nothing in it.
        OSError, zlib.error, EOFError: its gzip stream is damaged.
    """
    data = next(_parts(path, START), b"")
    first = data.partition(b"\n")[0].decode("latin-1")
    if not first.strip() or not _NUMBERS.fullmatch(first):
        raise NotChecked
    return iter(())


def messages(path: Path) -> Iterator[Said]:
    """Yield what each line of a table of messages says.

    Raises:
        NotChecked: it has nothing in it.
        OSError, zlib.error, EOFError: its gzip stream is damaged.
    """
    rest, empty = "", True
    for data in _parts(path, _MESSAGES):
        empty = False
        *lines, rest = (rest + data.decode("latin-1")).split("\n")
        yield from (Said("eye tracker message", line, "trace") for line in lines)
    if empty:
        raise NotChecked
    yield Said("eye tracker message", rest, "trace")


def _parts(path: Path, size: int) -> Iterator[bytes]:
    """Yield a file's bytes in parts, inflated if it is deflated: of every member of its gzip stream."""
    with path.open("rb") as file:
        zipped = file.read(2) == _GZIP
    with gzip.open(path) if zipped else path.open("rb") as stream:
        while data := stream.read(size):
            yield data


def text_of_numbers(path: Path) -> Iterator[Said]:
    """Check that a whole text has numbers alone, as the calibration of a MEG device has.

    Raises:
        NotChecked: it has not.
    """
    if not _NUMBERS.fullmatch(decode(_whole(path))):
        raise NotChecked
    return iter(())


def json_text(path: Path) -> Iterator[Said]:
    """Yield what the JSON beside the chunks of a Zarr store says."""
    return in_value("Zarr", json.loads(decode(_whole(path))))


def xml_text(source: str, path: Path) -> Iterator[Said]:
    """Yield what an XML file in a folder of a format says."""
    return in_xml(source, _whole(path))


def _whole(path: Path) -> bytes:
    with path.open("rb") as file:
        data = b"".join(islice(iter(lambda: file.read(1 << 20), b""), (MAX_TEXT >> 20) + 1))
    if len(data) > MAX_TEXT:
        raise NotChecked
    return data
