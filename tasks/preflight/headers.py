"""NIfTI headers: finds free text and extensions, in which converters have left names, dates and whole DICOM headers.

Only the first bytes of an image are read, and nothing that is found in them is kept, neither a text nor its length.
Source: nifti1.h and nifti2.h, the fields data_type, db_name, descrip, aux_file, intent_name, and "Extended header".
"""

import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tasks.preflight.names import is_placeholder
from tasks.values.models import Image
from tasks.values.rules import Findings, RuleName

READ = 4096  # bytes of a file: a NIfTI header is 352 or 544, and an extension that matters is named at its start
READERS = 8  # threads: the time is spent waiting for the disk
MAX_EXTENSIONS = 16  # of one image: a damaged chain ends here

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
        starts = readers.map(lambda image: _in_header(_start(root / image.path)), images, chunksize=32)
        for image, fields in zip(images, starts, strict=True):
            for rule, field in fields:
                found.add(rule, field, image.path)


def _start(path: Path) -> bytes:
    """Return the first bytes of an image, inflated, or nothing if it cannot be read."""
    try:
        with path.open("rb", buffering=0) as stream:
            data = stream.read(READ)
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, READ) if data[:2] == b"\x1f\x8b" else data
    except (OSError, zlib.error):
        return b""


def _in_header(data: bytes) -> list[tuple[RuleName, str]]:
    """Return the rules that a header breaks, each with the field."""
    for order in "<>":
        size = struct.unpack_from(f"{order}i", data)[0] if len(data) >= 352 else 0
        if size == 348:
            offset = struct.unpack_from(f"{order}f", data, 108)[0]
            return [*_texts(data, 1), *_extensions(data, order, 348, offset)]
        if size == 540 and len(data) >= 544:
            return [*_texts(data, 2), *_extensions(data, order, 540, struct.unpack_from(f"{order}q", data, 168)[0])]
    return []


def _texts(data: bytes, version: int) -> Iterator[tuple[RuleName, str]]:
    for field, (start, length) in _FIELDS[version].items():
        text = data[start : start + length].split(b"\0", 1)[0].decode("latin-1").strip()
        if not is_placeholder(text) and not _HARMLESS.fullmatch(text):
            yield "header-text", field


def _extensions(data: bytes, order: str, end: int, offset: float) -> Iterator[tuple[RuleName, str]]:
    """Yield the extensions that begin within the bytes that were read, by their registered codes."""
    at = end + 4
    if data[end : end + 1] in (b"", b"\0"):
        return
    for _ in range(MAX_EXTENSIONS):
        if at + 8 > len(data) or not at + 8 <= offset:
            return
        size, code = struct.unpack_from(f"{order}2i", data, at)
        if size < 8:
            return
        yield "header-extension", f"extension {code} ({_CODES.get(code, 'of no registered program')})"
        at += size
