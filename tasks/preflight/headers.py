"""NIfTI headers: finds free text and extensions, in which converters have left names, dates and whole DICOM headers.

Only the first bytes of an image are read, and where it has extensions, the first bytes of each, however far on it is.
Nothing that is found in them is kept, neither a text nor its length.
Source: nifti1.h and nifti2.h, the fields data_type, db_name, descrip, aux_file, intent_name, and "Extended header".
"""

import gzip
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import IO, cast

from tasks.preflight.names import is_placeholder
from tasks.values.models import Image
from tasks.values.preflight_rules import Findings, RuleName

READ = 4096  # bytes of a file: a NIfTI header is 352 or 544
GZIP = b"\x1f\x8b"
READERS = 8  # threads: the time is spent waiting for the disk
MAX_EXTENSIONS = 1024  # of one image: a chain that somebody made to keep readers busy ends here
DICOM = 2  # the registered code of a DICOM header

#: Field -> offset and length in bytes, by NIfTI version.
_FIELDS = {
    1: {"data_type": (4, 10), "db_name": (14, 18), "descrip": (148, 80), "aux_file": (228, 24), "intent_name": (328, 16)},  # noqa: E501
    2: {"descrip": (240, 80), "aux_file": (320, 24), "intent_name": (508, 16)},
}  # fmt: skip
#: What programs write about themselves, which is nobody's name.
_HARMLESS = re.compile(
    r"(?:FSL ?)?\d+(?:\.\d+)+(?:[:+-][0-9a-f.]+)?"  # FSL, FreeSurfer
    r"|(?:TE|Time|phase|mb|dwell|PE|TR|TI|FA|te|b)=[-+\d.]+(?:[; ]+(?:TE|Time|phase|mb|dwell|PE|TR|TI|FA|te|b)=[-+\d.]+)*"  # dcm2niix  # noqa: E501
    r"|spm(?:\d+)? ?- ?[a-z -]+|SPM(?:\d+)? compatible|4D image|3D image"
    r"|FreeSurfer(?: [A-Z][a-z]{2} [ \d]\d \d{4})?|nibabel|ITK|dsr|mat|Mask|mask",
)
_CODES = {2: "DICOM", 4: "AFNI", 6: "comment", 8: "XCEDE", 10: "JIM", 12: "workflow", 14: "FreeSurfer", 16: "pypickle",
          18: "MiND", 32: "CIFTI", 40: "eval", 42: "MATLAB", 44: "quantiphyse", 46: "MRS"}  # fmt: skip


def check_headers(images: Iterable[Image], root: Path, found: Findings) -> None:
    """Look at the headers of these images. Staging reports an image that cannot be read."""
    with ThreadPoolExecutor(READERS) as readers:
        images = list(images)
        headers = readers.map(lambda image: _in_header(root / image.path), images, chunksize=32)
        for image, fields in zip(images, headers, strict=True):
            for rule, field in fields:
                found.add(rule, field, image.path)


def _start(path: Path) -> bytes:
    """Return the first bytes of an image, inflated, or nothing if it cannot be read."""
    try:
        with path.open("rb", buffering=0) as stream:
            data = stream.read(READ)
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, READ) if data[:2] == GZIP else data
    except (OSError, zlib.error):
        return b""


def _in_header(path: Path) -> list[tuple[RuleName, str]]:
    """Return the rules that an image's header breaks, each with the field."""
    data = _start(path)
    for order in "<>":
        size = struct.unpack_from(f"{order}i", data)[0] if len(data) >= 352 else 0
        if size == 348:
            end = struct.unpack_from(f"{order}f", data, 108)[0]
            return [*_texts(data, 1), *_extensions(path, data, order, 348, end)]
        if size == 540 and len(data) >= 544:
            end = struct.unpack_from(f"{order}q", data, 168)[0]
            return [*_texts(data, 2), *_extensions(path, data, order, 540, end)]
    return []


def _texts(data: bytes, version: int) -> Iterator[tuple[RuleName, str]]:
    for field, (start, length) in _FIELDS[version].items():
        text = data[start : start + length].split(b"\0", 1)[0].decode("latin-1").strip()
        if not is_placeholder(text) and not _HARMLESS.fullmatch(text):
            yield "header-text", field


def _extensions(path: Path, start: bytes, order: str, header: int, end: float) -> list[tuple[RuleName, str]]:
    """Return an image's extensions by their registered codes.

    Args:
        path: the image.
        start: its first bytes.
        order: the byte order, as struct has it.
        header: the length of the header in bytes; four bytes follow that say whether there are extensions.
        end: where the voxels begin.
    """
    if start[header : header + 1] == b"\0":
        return []
    with path.open("rb") as file:
        zipped = file.read(2) == GZIP
        file.seek(0)
        stream = cast(IO[bytes], gzip.GzipFile(fileobj=file)) if zipped else file
        codes = list(islice(_codes(stream, order, header + 4, end), MAX_EXTENSIONS + 1))
    found: list[tuple[RuleName, str]] = []
    for code in codes[:MAX_EXTENSIONS]:
        rule: RuleName = "dicom-header" if code == DICOM else "header-extension"
        found.append((rule, f"extension {code} ({_CODES.get(code, 'of no registered program')})"))
    if len(codes) > MAX_EXTENSIONS:
        found.append(("dicom-header", f"more than {MAX_EXTENSIONS:,} extensions"))
    return found


def _codes(stream: IO[bytes], order: str, at: int, end: float) -> Iterator[int]:
    """Yield the codes of the extensions from byte `at` on, one after the other."""
    while at + 8 <= end:
        try:
            stream.seek(at)
            head = stream.read(8)
        except (OSError, EOFError, zlib.error):  # damaged: staging names it
            return
        if len(head) < 8:
            return
        size, code = struct.unpack(f"{order}2i", head)
        if size < 8:
            return
        yield code
        at += size
