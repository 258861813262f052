"""Licences: from the words in dataset_description.json to the Hub's identifiers.

The spellings are those of the 108 datasets of bids-standard/bids-examples and of OpenNeuro. A licence that is not
surely one of the Hub's becomes `other`, with its own words as the name. So does a Creative Commons licence without a
version, because the versions differ. Source of the identifiers: Hub documentation, "Licenses".
"""

import re
from dataclasses import dataclass

UNKNOWN = "unknown"  # the Hub's identifier for "no licence was stated"
OTHER = "other"
MAX_NAME = 120  # characters of a licence's own words in the card's YAML; the whole is in dataset_description.json

#: Patterns for the whole text, in lower case and without punctuation.
_SPELLINGS = {
    "cc0-1.0": r"(?:cc ?[0o]|cc zero|creative commons (?:zero|cc0|0))(?: v?1(?: 0)?)?(?: universal)?",
    "pddl": r"pddl(?: v?1(?: 0)?)?|public domain dedication and licen[sc]e(?: v?1(?: 0)?)?",
    "odbl": r"odbl(?: v?1(?: 0)?)?|open database licen[sc]e(?: v?1(?: 0)?)?",
    "odc-by": r"odc ?by(?: v?1(?: 0)?)?|open data commons attribution(?: v?1(?: 0)?)?",
    "mit": r"mit",
    "apache-2.0": r"apache(?: licen[sc]e)?(?: version)? ?v?2(?: 0)?",
    "bsd-3-clause": r"bsd 3(?: clause)?|3 clause bsd",
    "bsd-2-clause": r"bsd 2(?: clause)?|2 clause bsd",
    "bsd": r"bsd",
    "gpl": r"(?:gnu )?gpl|gnu general(?: public)?",
    "gpl-3.0": r"gpl ?v?3(?: 0)?|gnu general public (?:licen[sc]e )?v?3(?: 0)?",
}
#: Patterns that name one licence wherever they stand, in a sentence or an address.
_PHRASES = (
    ("pddl", r"opendatacommons\.org/licen[sc]es/pddl|public domain dedication and licen[sc]e\s+v?1"),
    (
        "cc0-1.0",
        r"creativecommons\.org/publicdomain/zero/1\.0|(?<!not )(?:available|released|licensed) under (?:the )?cc[0o]\b",
    ),
    ("odbl", r"opendatacommons\.org/licen[sc]es/odbl"),
    ("odc-by", r"opendatacommons\.org/licen[sc]es/by\b"),
)
_CC_ADDRESS = re.compile(r"creativecommons\.org/licenses/(by(?:-nc)?(?:-sa|-nd)?)/(\d)(?:\.(\d))?")
_CC_WORDS = re.compile(
    r"(?:cc|creative commons)(?: cc)? ?(?:by|attribution)(?P<rest>(?: ?(?:nc|sa|nd|non ?commercial|share ?alike|"
    r"no ?deriv(?:ative)?s?))*) ?v?(?P<major>\d)(?: (?P<minor>\d))?(?: international| unported| public)*"
)
#: The versions of each Creative Commons licence that the Hub knows. It knows no others.
_CC_ON_THE_HUB = {
    "by": ("2.0", "2.5", "3.0", "4.0"),
    "by-sa": ("3.0", "4.0"),
    "by-nc": ("2.0", "3.0", "4.0"),
    "by-nd": ("4.0",),
    "by-nc-nd": ("3.0", "4.0"),
    "by-nc-sa": ("2.0", "3.0", "4.0"),
}
_ADDRESS = re.compile(r"https?://[^\s<>\"')]+")


@dataclass(frozen=True, slots=True)
class Licence:
    """A licence as the Hub has it: an identifier, and for `other` a name and perhaps an address."""

    identifier: str
    name: str | None = None
    link: str | None = None


def licence(text: object) -> Licence:
    """Return the Hub's licence for the words in `License` of dataset_description.json."""
    words = " ".join(str(text or "").split())
    if words.lower() in ("", "n/a", "na", "none", "unknown", "tbd", "todo"):
        return Licence(UNKNOWN)
    identifier = _known(words.lower().replace("\\n", " "))
    if identifier is not None:
        return Licence(identifier)
    link = _ADDRESS.search(words)
    name = words if len(words) <= MAX_NAME else words[: MAX_NAME - 3].rstrip() + "..."
    return Licence(OTHER, name, link.group().rstrip(".,;") if link else None)


def _known(words: str) -> str | None:
    """Return the identifier of the licence that is surely meant, or None if none is."""
    address = _CC_ADDRESS.search(words)
    if address:
        return _creative_commons(address.group(1), address.group(2), address.group(3))
    for identifier, phrase in _PHRASES:
        if re.search(phrase, words):
            return identifier
    plain = " ".join(re.sub(r"[^a-z0-9]+", " ", words).split())
    plain = re.sub(r"^(?:the )|(?: public)? licen[sc]e$|^licen[sc]e ", "", plain).strip()
    for identifier, spelling in _SPELLINGS.items():
        if re.fullmatch(spelling, plain):
            return identifier
    match = _CC_WORDS.fullmatch(plain)
    if match is None:
        return None
    rest = match["rest"].replace(" ", "")
    parts = ["by", *("nc" for _ in re.findall(r"nc|noncommercial", rest)[:1])]
    parts += ["sa"] if re.search(r"sa|sharealike", rest) else ["nd"] if re.search(r"nd|noderiv", rest) else []
    return _creative_commons("-".join(parts), match["major"], match["minor"])


def _creative_commons(kind: str, major: str, minor: str | None) -> str | None:
    version = f"{major}.{minor or 0}"
    return f"cc-{kind}-{version}" if version in _CC_ON_THE_HUB.get(kind, ()) else None
