"""Texts in microscopy: the tags of TIFF (BigTIFF, OME-TIFF) and the chunks of PNG. No pixel is read.

Sources: TIFF 6.0 and the tags registered since; "OME-TIFF specification" (OME-XML in ImageDescription); PNG
specification, "Textual information" and "eXIf".
"""

import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL.TiffImagePlugin import ImageFileDirectory_v2

from tasks.preflight.recordings.said import MAX_TEXT, NotChecked, Said, in_lines, in_value, in_xml, said

MAX_IMAGES = 10_000  # of one TIFF: a chain that comes back to itself ends here
_BIG = 43  # the version of a BigTIFF
#: Tags of text -> their names; DateTime and Artist are of TIFF 6.0, the others of Exif and of Windows.
_TAGS = {
    269: "DocumentName", 270: "ImageDescription", 285: "PageName", 306: "DateTime", 315: "Artist",
    316: "HostComputer", 700: "XMP", 33432: "Copyright", 36867: "DateTimeOriginal", 36868: "DateTimeDigitized",
    37510: "UserComment", 40092: "XPComment", 40093: "XPAuthor", 42032: "CameraOwnerName",
}  # fmt: skip
_DATES = frozenset((306, 36867, 36868))
_PEOPLE = frozenset((315, 316, 37510, 40092, 40093, 42032))
_LINKED = (34665,)  # the directory of Exif
_ASCII, _BYTE, _UNDEFINED = 2, 1, 7
#: Devices and programs: nobody's name.
_HARMLESS = frozenset((271, 272, 305))

PNG = b"\x89PNG\r\n\x1a\n"


def tiff(path: Path) -> Iterator[Said]:
    """Yield what the tags of all images of a TIFF say.

    Raises:
        NotChecked: it is no TIFF, or has more images than 10,000.
        Exception: whatever Pillow raises of a damaged one.
    """
    with path.open("rb") as file:
        head = file.read(8)
        if head[:4] not in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
            raise NotChecked
        if _BIG in head[2:4]:
            head += file.read(8)
        directory = ImageFileDirectory_v2(head)
        for _ in range(MAX_IMAGES):
            yield from _of_directory(file, head, directory)
            if not directory.next:
                return
            following = directory.next
            directory = ImageFileDirectory_v2(head)
            directory.next = following
    raise NotChecked


def _of_directory(file: Any, head: bytes, directory: Any) -> Iterator[Said]:
    """Load one directory of tags, and yield what its texts say."""
    file.seek(directory.next)
    before = directory.next
    directory.load(file)
    if directory.next == before or not len(directory):
        raise NotChecked
    yield from _of_tags(directory)
    for tag in _LINKED:
        if isinstance(place := directory.get(tag), int):
            linked = ImageFileDirectory_v2(head)
            file.seek(place)
            linked.load(file)
            yield from _of_tags(linked)


def _of_tags(directory: Any) -> Iterator[Said]:
    for tag in directory:
        name, type_ = _TAGS.get(tag), directory.tagtype.get(tag)
        if tag in _HARMLESS or not (name or type_ == _ASCII):
            continue
        text = _as_text(directory[tag])
        if name == "ImageDescription":
            yield from in_description(text)
        elif name == "XMP":
            yield from in_xml("TIFF XMP", text.strip("\0 "))
        elif name is None:
            yield from in_lines("TIFF private tag", text)
        else:
            yield Said(f"TIFF {name}", text, "date" if tag in _DATES else "text" if tag in _PEOPLE else "trace")


def _as_text(value: object) -> str:
    if isinstance(value, tuple):
        return bytes(one for one in value if isinstance(one, int) and 0 < one < 256).decode("latin-1")
    return value.decode("utf-8", "replace").replace("\0", "") if isinstance(value, bytes) else str(value).strip("\0 ")


def in_description(text: str) -> Iterator[Said]:
    """Yield what an ImageDescription says: OME-XML, JSON, lines of programs, or what somebody typed."""
    start = text.lstrip("\ufeff \r\n")
    if start.startswith("<"):
        yield from in_xml("OME-XML", start)
    elif start.startswith("{"):
        yield from in_value("TIFF ImageDescription", json.loads(start))
    elif "=" in text or ": " in text:
        yield from in_lines("TIFF ImageDescription", text)
    else:
        yield Said("TIFF ImageDescription", text, "text")


def png(path: Path) -> Iterator[Said]:
    """Yield what the texts of a PNG say.

    Raises:
        NotChecked: it is none, it ends too early, or it has Exif in it, which is not read here.
    """
    with path.open("rb") as file:
        if file.read(len(PNG)) != PNG:
            raise NotChecked
        while True:
            head = file.read(8)
            if len(head) < 8:
                raise NotChecked
            size, kind = int.from_bytes(head[:4], "big"), head[4:]
            if kind == b"IEND":
                return
            if kind == b"eXIf" or (kind in _PNG_TEXTS and size > MAX_TEXT):
                raise NotChecked
            if kind in _PNG_TEXTS:
                yield from _of_chunk(kind, file.read(size))
                file.seek(4, 1)
            else:
                file.seek(size + 4, 1)


_PNG_TEXTS = frozenset((b"tEXt", b"zTXt", b"iTXt"))


def _of_chunk(kind: bytes, data: bytes) -> Iterator[Said]:
    """Yield what a chunk of text says: a keyword, and a text that may be deflated."""
    keyword, _, rest = data.partition(b"\0")
    packed = kind == b"zTXt"
    if kind == b"iTXt":
        packed = rest[:1] == b"\1"
        rest = rest[2:].split(b"\0", 2)[2]
    elif packed:
        rest = rest[1:]
    text = (zlib.decompressobj().decompress(rest, MAX_TEXT) if packed else rest).decode("utf-8", "replace")
    name = keyword.decode("latin-1")
    if name.lower() in ("description", "title", "comment"):
        yield Said(f"PNG {name}", text, "text")
    elif name.startswith("XML:"):
        yield from in_xml("PNG XMP", text)
    else:
        yield said("PNG", name.replace(" ", "_"), text)
