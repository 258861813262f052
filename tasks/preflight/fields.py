"""Sidecars: finds personal, device and free-text fields in the JSON that is published with the images.

It looks at what would be published: the merged metadata of each image, and the JSON files among the dataset's own
texts; a text that is no JSON is a finding itself. The merged metadata of thousands of images has few different sets of
fields. So the names are judged once for each set, and values are looked at only if a name asks for it. To say in which
file a field is, only the sidecars that several images share are read. A field that none of them has is in the image's
own sidecar.
"""

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path

from tasks.preflight.names import (
    is_over_89,
    is_recent_date,
    is_uid,
    names_a_date,
    names_an_age,
    rule_of,
    says_nothing,
)
from tasks.preflight.nearest import nearest
from tasks.preflight.readable import NotReadable, read_json
from tasks.values.models import Dataset, Image
from tasks.values.preflight_rules import Findings, RuleName

#: What a data dictionary says about a column (BIDS specification, "Tabular files"). A field of such an object is no
#: value.
_DICTIONARY = frozenset(
    ("LongName", "Description", "Levels", "Units", "TermURL", "HED", "Delimiter", "Format", "Maximum", "Minimum",
     "Derivative")
)  # fmt: skip
#: What an element of DICOM in JSON has (PS3.18, annex F.2), and kinds of value that say what it is, whatever its tag
#: (PS3.5, table 6.2-1): a person's name, an age, and days.
_ELEMENT = frozenset(("vr", "Value", "InlineBinary", "BulkDataURI"))
_KINDS_OF_VALUE = {"PN": "PersonName", "AS": "PatientAge", "DA": "Date", "DT": "Date"}
_DESCRIPTION = "dataset_description.json"
#: The start of a date, or of a UID.
_ASKS = re.compile(r'"(?=\d)(?:\d{4}[-/]\d|\d{1,2}[ -][A-Za-z]{3}|(?:1\.[23]|2\.16|2\.25)\.\d)')


def check_fields(dataset: Dataset, found: Findings) -> None:
    """Look through the metadata of all images, and through the JSON texts."""
    files = _Files(dataset)
    texts: dict[str, list[Image]] = {}
    for image in dataset.images:
        if image.metadata:
            texts.setdefault(image.metadata, []).append(image)
    judged: dict[tuple[str, ...], tuple[str, ...]] = {}
    for text, images in texts.items():
        metadata = json.loads(text)
        shape = tuple(metadata)
        if shape not in judged:
            judged[shape] = tuple(name for name in shape if _asks(name))
        part = {name: metadata[name] for name in judged[shape]}
        if '{"' in text[1:] or _ASKS.search(text):  # it has objects in it, or a date or UID under any name
            part = metadata
        for rule, name in set(broken_by(part)):
            for image in images:
                for file in files.with_field(image, name):
                    found.add(rule, name, file)
    for column, ending in (("events_metadata", "*events.json"), ("coordsystem", "*coordsystem.json")):
        of_column = {text: image for image in dataset.images if (text := getattr(image, column))}
        for text, image in of_column.items():
            for rule, name in set(broken_by(json.loads(text))):
                found.add(rule, name, nearest(Path(dataset.root), image, ending))
    for path, data in dataset.texts.items():
        if path.lower().endswith(".json") and not is_description(path):
            check_json(path, data, found)


def is_description(path: str) -> bool:
    """Return whether a text is the dataset_description.json of the dataset, or of one in it."""
    return path.rpartition("/")[2] == _DESCRIPTION


def check_json(path: str, data: bytes, found: Findings) -> None:
    """Look through one JSON text."""
    try:
        broken = set(broken_by(read_json(data, every=True)))
    except NotReadable as error:
        found.add("unreadable", str(error), path)
        return
    for rule, name in broken:
        found.add(rule, name, path)


def _asks(name: str) -> bool:
    return rule_of(name) is not None or names_a_date(name) or names_an_age(name)


def broken_by(value: object) -> Iterator[tuple[RuleName, str]]:
    """Yield the rules that the fields of a JSON value break, at any depth, each with the field."""
    if isinstance(value, list):
        for item in value:
            if isinstance(item, list | dict):
                yield from broken_by(item)
    if not isinstance(value, dict):
        return
    for name, item in value.items():
        if isinstance(item, dict) and item and item.keys() <= _DICTIONARY:
            continue
        yield from _broken_by(name, *_of_element(name, item))


def _broken_by(name: str, meant: str, item: object) -> Iterator[tuple[RuleName, str]]:
    """Yield the rules that one field breaks.

    Args:
        name: the field.
        meant: what it is judged as.
        item: its value.
    """
    if not isinstance(item, list | dict):
        yield from ((broken, name) for broken in _broken_by_plain(meant, item))
        return
    rule = rule_of(meant)
    if rule is not None and _says_something(meant, item):
        yield rule, name
    else:
        yield from broken_by(item)
    if names_an_age(meant) and any(map(is_over_89, _leaves(item))):
        yield "age-over-89", name
    if rule is None:
        named = names_a_date(meant)
        texts = list(_leaves(item, numbers=False))
        if any(is_recent_date(one, named) for one in (_leaves(item) if named else texts)):
            yield "date", name
        if any(is_uid(meant, one) for one in texts):
            yield "unique-identifier", name


@lru_cache(maxsize=4096, typed=True)  # the sidecars of a study say the same over and over
def _broken_by_plain(meant: str, value: object) -> tuple[RuleName, ...]:
    """Return the rules that a field with a plain value breaks."""
    rule = rule_of(meant)
    broken: list[RuleName] = [rule] if rule is not None and not says_nothing(meant, value) else []
    if names_an_age(meant) and is_over_89(value):
        broken.append("age-over-89")
    if rule is None:
        named, text = names_a_date(meant), isinstance(value, str)
        if (named or text) and is_recent_date(value, named):
            broken.append("date")
        if text and is_uid(meant, value):
            broken.append("unique-identifier")
    return tuple(broken)


def _of_element(name: str, item: object) -> tuple[str, object]:
    """Return what a field is judged as, and its value. An element of DICOM in JSON has it within an object."""
    if not (isinstance(item, dict) and "vr" in item and item.keys() <= _ELEMENT):
        return name, item
    kind = _KINDS_OF_VALUE.get(str(item["vr"]), name)
    return (name if rule_of(name) else kind), item.get("Value", [])


def _says_something(name: str, value: object) -> bool:
    """Return whether a field of this name holds anything that a person may be known by, at any depth."""
    if isinstance(value, dict | list):
        return any(_says_something(name, one) for one in (value.values() if isinstance(value, dict) else value))
    return not says_nothing(name, value)


def _leaves(value: object, numbers: bool = True) -> Iterator[object]:
    """Yield the plain values of a field, but not those of fields in it; without `numbers`, the texts alone.

    Sidecars of pipelines have lists of thousands of numbers in them.
    """
    for item in value if isinstance(value, list) else [value]:
        if isinstance(item, str):
            yield item
        elif isinstance(item, list):
            yield from _leaves(item, numbers)
        elif numbers and not isinstance(item, dict):
            yield item


def parsed(data: bytes) -> object:
    """Return the value of a JSON text, or None if it is no JSON."""
    try:
        return read_json(data)
    except NotReadable:
        return None


class _Files:
    """Finds in which file of the dataset a field stands."""

    def __init__(self, dataset: Dataset) -> None:
        self._root = Path(dataset.root)
        self._users = Counter(path for image in dataset.images for path in image.sidecars)
        self._fields = lru_cache(maxsize=256)(self._fields_of)

    def with_field(self, image: Image, name: str) -> Iterator[str]:
        """Yield the sidecars of an image that have the field: the shared ones, or else its own.

        Its own is not read if it is the only one that can have the field.
        """
        shared = [path for path in image.sidecars if self._users[path] > 1 and name in self._fields(path)]
        own = [path for path in image.sidecars if self._users[path] == 1]
        if not shared and len(own) > 1:
            shared = [path for path in own if name in self._fields(path)]
        yield from shared or [(own or image.sidecars or [image.path])[0]]

    def _fields_of(self, path: str) -> frozenset[str]:
        try:
            value = parsed((self._root / path).read_bytes())
        except OSError:
            return frozenset()
        return frozenset(names_in(value))


def names_in(value: object) -> Iterator[str]:
    """Yield the names of all fields of a JSON value."""
    if isinstance(value, Mapping):
        yield from value
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from names_in(item)
