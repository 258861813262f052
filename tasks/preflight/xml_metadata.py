"""The metadata of GIFTI and CIFTI files: pairs of a name and a value in XML.

The text is read in steps, and nothing of it is kept but the pairs. Base64 of the vertices goes by unread. A text that
declares entities is refused, because a few lines of them may stand for gigabytes.
Source: GIFTI Surface Data Format 1.0, "MetaData"; CIFTI-2, "MetaData".
"""

from collections.abc import Iterable, Iterator, Mapping
from xml.parsers import expat

from tasks.preflight.readable import NotReadable

Pair = tuple[str, str]

MAX_PAIRS = 100_000  # of one file: a time series has a few for each of its volumes
MAX_CHARACTERS = 16 << 20  # of all names and values together: a chain of commands has some thousands


class _Reader:
    """Collects the pairs of an XML text while it is fed."""

    def __init__(self) -> None:
        self.pairs: list[Pair] = []
        self._name = ""
        self._text: list[str] = []
        self._count = self._length = 0
        self._parser = parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.StartElementHandler = self._start
        parser.EndElementHandler = self._end
        parser.CommentHandler = lambda text: self._pair("comment", text)
        parser.EntityDeclHandler = self._refuse

    def feed(self, data: bytes, last: bool = False) -> list[Pair]:
        """Take the next bytes, and return the pairs that are complete."""
        try:
            self._parser.Parse(data, last)
        except expat.ExpatError as error:
            raise NotReadable(f"not XML: line {error.lineno:,}, column {error.offset:,}") from error
        pairs, self.pairs = self.pairs, []
        return pairs

    def _start(self, tag: str, attributes: Mapping[str, str]) -> None:
        if outside := attributes.get("ExternalFileName"):
            self._pair("ExternalFileName", outside)
        if tag == "MD":
            self._name = ""
        self._text = []
        self._parser.CharacterDataHandler = self._collect if tag in ("Name", "Value") else None

    def _end(self, tag: str) -> None:
        if tag == "Name":
            self._name = "".join(self._text).strip()
        elif tag == "Value":
            self._pair(self._name, "".join(self._text).strip())
        self._parser.CharacterDataHandler = None

    def _collect(self, text: str) -> None:
        self._length += len(text)
        if self._length > MAX_CHARACTERS:
            raise NotReadable("more metadata than is looked through")
        self._text.append(text)

    def _pair(self, name: str, value: str) -> None:
        self._count += 1
        if self._count > MAX_PAIRS:
            raise NotReadable("more metadata than is looked through")
        self.pairs.append((name, value))

    def _refuse(self, *_: object) -> None:
        raise NotReadable("XML that declares entities")


def metadata(parts: Iterable[bytes]) -> Iterator[Pair]:
    """Yield the pairs of name and value in an XML text, with its comments.

    Args:
        parts: the text, in parts. If there are none, there is no text and no pair.

    Raises:
        NotReadable: it is no XML, declares entities, or has too much metadata.
    """
    reader, there = _Reader(), False
    for part in parts:
        there = True
        text, padding, _ = part.partition(b"\0")  # an extension is padded with zeros, and XML has none
        yield from reader.feed(text)
        if padding:
            break
    if there:
        yield from reader.feed(b"", last=True)
