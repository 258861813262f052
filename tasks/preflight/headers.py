"""NIfTI headers: finds free text and extensions, in which converters have left names, dates and whole DICOM headers.

Only the first bytes of an image are read and, where it has extensions, the first bytes of each, wherever it begins.
Nothing that is found there is kept, neither a text nor its length.
Source: nifti1.h and nifti2.h, the fields data_type, db_name, descrip, aux_file, intent_name, and "Extended header".
"""

import gzip
import re
import struct
import zlib
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import IO, Literal, NamedTuple, cast

from tasks.preflight.many_files import look_into_each
from tasks.preflight.names import is_placeholder
from tasks.values.models import Image
from tasks.values.preflight_rules import Findings, RuleName

READ = 4096  # bytes of a file: a NIfTI header is 352 or 544
GZIP = b"\x1f\x8b"
MAX_EXTENSIONS = 1024  # of one image: a chain that somebody made to keep readers busy ends here
DICOM = 2  # the registered code of a DICOM header
CIFTI = 32  # that of the metadata of CIFTI files

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
    r"|FreeSurfer(?: [A-Z][a-z]{2} [ \d]\d \d{4})?|nibabel|ITK|dsr|mat|Mask|mask"
    r"|Conn(?:Dense|Parcel|PP|Unknown)[A-Za-z]*",  # the intents of CIFTI-2
)
_CODES = {2: "DICOM", 4: "AFNI", 6: "comment", 8: "XCEDE", 10: "JIM", 12: "workflow", 14: "FreeSurfer", 16: "pypickle",
          18: "MiND", 32: "CIFTI", 40: "eval", 42: "MATLAB", 44: "quantiphyse", 46: "MRS"}  # fmt: skip


def check_headers(images: Iterable[Image], root: Path, found: Findings) -> None:
    """Look at the headers of these images. Staging reports an image that cannot be read."""
    images = list(images)
    headers = look_into_each(lambda image: _in_file(root / image.path), images)
    for image, fields in zip(images, headers, strict=True):
        for rule, field in fields:
            found.add(rule, field, image.path)


def _in_file(path: Path) -> list[tuple[RuleName, str]]:
    """Return the rules that an image's header breaks, each with the field. There are none if it cannot be read."""
    try:
        with path.open("rb", buffering=0) as file:
            return in_header(cast(IO[bytes], file))
    except (OSError, zlib.error):
        return []


def in_header(file: IO[bytes]) -> list[tuple[RuleName, str]]:
    """Return the rules that an image's header breaks, each with the field.

    Raises:
        OSError, zlib.error: it cannot be read.
    """
    header = _header(file)
    return [*_texts(header), *_extensions(file, header)] if header else []


def is_nifti(file: IO[bytes]) -> bool:
    """Return whether a file begins with a NIfTI header."""
    return _header(file) is not None


def extension(file: IO[bytes], code: int, step: int) -> Iterator[bytes]:
    """Yield the bytes of the first extension with a code, in parts; nothing if an image has none.

    Args:
        file: the image.
        code: the registered code.
        step: the most bytes of a part.
    """
    header = _header(file)
    found = (one for one in _all_extensions(file, header) if one[0] == code) if header else iter(())
    for _, start, size in islice(found, 1):
        stream = _inflated(file)
        stream.seek(start)
        while size and (part := stream.read(min(size, step))):
            size -= len(part)
            yield part


def _inflated(file: IO[bytes]) -> IO[bytes]:
    """Return an image's bytes from the first on, inflated if they are deflated."""
    file.seek(0)
    zipped = file.read(2) == GZIP
    file.seek(0)
    return cast(IO[bytes], gzip.GzipFile(fileobj=file)) if zipped else file


class _Header(NamedTuple):
    data: bytes
    version: Literal[1, 2]
    order: str
    """The byte order, as struct has it."""
    end: float
    """The byte at which the voxels begin."""

    @property
    def length(self) -> int:
        """The length of the header in bytes; four bytes follow that say whether there are extensions."""
        return 348 if self.version == 1 else 540


def _header(file: IO[bytes]) -> _Header | None:
    """Return an image's header, or None if its first bytes are none."""
    file.seek(0)
    data = file.read(READ)
    if data[:2] == GZIP:
        data = zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(data, READ)
    for order in "<>":
        size = struct.unpack_from(f"{order}i", data)[0] if len(data) >= 352 else 0
        if size == 348:
            return _Header(data, 1, order, struct.unpack_from(f"{order}f", data, 108)[0])
        if size == 540 and len(data) >= 544:
            return _Header(data, 2, order, struct.unpack_from(f"{order}q", data, 168)[0])
    return None


def _texts(header: _Header) -> Iterator[tuple[RuleName, str]]:
    for field, (start, length) in _FIELDS[header.version].items():
        text = header.data[start : start + length].split(b"\0", 1)[0].decode("latin-1").strip()
        if not is_placeholder(text) and not _HARMLESS.fullmatch(text):
            yield "header-text", field


def _extensions(file: IO[bytes], header: _Header) -> list[tuple[RuleName, str]]:
    """Return an image's extensions by their registered codes."""
    codes = [code for code, _, _ in islice(_all_extensions(file, header), MAX_EXTENSIONS + 1)]
    found: list[tuple[RuleName, str]] = []
    for code in codes[:MAX_EXTENSIONS]:
        rule: RuleName = "dicom-header" if code == DICOM else "header-extension"
        found.append((rule, f"extension {code} ({_CODES.get(code, 'of no registered program')})"))
    if len(codes) > MAX_EXTENSIONS:
        found.append(("dicom-header", f"more than {MAX_EXTENSIONS:,} extensions"))
    return found


def _all_extensions(file: IO[bytes], header: _Header) -> Iterator[tuple[int, int, int]]:
    """Yield the code of each extension, the byte at which its content begins, and the bytes of that."""
    if header.data[header.length : header.length + 1] == b"\0":
        return
    stream, at = _inflated(file), header.length + 4
    while at + 8 <= header.end:
        try:
            stream.seek(at)
            head = stream.read(8)
        except (OSError, EOFError, zlib.error):  # damaged: staging names it
            return
        if len(head) < 8:
            return
        size, code = struct.unpack(f"{header.order}2i", head)
        if size < 8:
            return
        yield code, at + 8, size - 8
        at += size
