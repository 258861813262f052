"""What is not published, and why: an entry for each file of the tree, and the table of them that the repo has.

The table is `bids/left_out.tsv`. Its columns are `path`, `size` (bytes, `n/a` if nothing states it) and `reason`:
images first, then recordings, then the rest, each sorted by path. A path is written as in a JSON string, because a file
name may hold a tab. A path that ends in "/" is a folder, and stands for files that are not named.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from operator import attrgetter
from typing import Literal

from tasks.values.format import number

What = Literal["image", "recording", "other"]
ORDER: tuple[What, ...] = ("image", "recording", "other")
HEAD = ("path", "size", "reason")
MISSING = "n/a"

EXCLUDED = "named by `exclude`"
UNREADABLE = "it cannot be read"
NO_SUFFIX = "in a recording's format, and its name does not say so (_eeg, _meg, ... before the extension)"
BY_INCLUDE = "`include` publishes it all the same"
CONTRADICTS = f"its name and its folder contradict each other; {BY_INCLUDE}"
NO_NAME = f"its name or place is none of BIDS; {BY_INCLUDE}"
NOT_LOOKED_THROUGH = f"in a format that is not looked through before publication; {BY_INCLUDE}"
NO_TEXT_THERE = f"it is no text, so nobody looks through it before publication; {BY_INCLUDE}"
NOT_READABLE_THERE = f"{UNREADABLE}, so nobody looks through it before publication"

#: The suffixes of recordings (BIDS specification: EEG, MEG, iEEG, EMG, NIRS, motion, physiological recordings,
#: microscopy). A JSON file with such a suffix describes one.
RECORDINGS = frozenset((
    "eeg", "meg", "ieeg", "emg", "nirs", "motion", "physio", "physioevents", "stim",
    "TEM", "SEM", "uCT", "BF", "DF", "PC", "DIC", "FLUO", "CONF", "PLI", "CARS", "2PE", "MPE", "SR", "NLO", "OCT",
    "SPIM", "XPCT",
))  # fmt: skip
#: The extensions of formats that hold nothing but recordings (BIDS specification, the formats of each datatype).
FORMATS = (".edf", ".bdf", ".vhdr", ".vmrk", ".fdt", ".fif", ".snirf", ".nwb", ".sqd", ".kdf")
_LABELLED = re.compile(r"(^|/)(sub|ses)-[^/]+")


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not published, or a folder that stands for several."""

    path: str
    """Relative to the dataset's root. It ends in "/" if it stands for files that are not named."""
    what: What
    reason: str
    kind: str = ""
    """What it is counted as, for people: `*_eeg.edf`. Empty if that is the reason."""
    size: int | None = None
    """Bytes, of all files that it stands for; None if that is not known."""
    files: int = 1
    counted: bool = False
    """Whether it is a folder that stands for files which were counted."""

    def why(self) -> str:
        """Return the reason as the table has it, with the number of files that are not named."""
        return f"{self.reason}: {number(self.files, 'file')}" if self.counted else self.reason


def is_recording(name: str) -> bool:
    """Return whether a file is one of a recording by the suffix of its name, as BIDS has it."""
    stem, dot, extension = name.rpartition("_")[2].partition(".")
    return bool(dot) and stem in RECORDINGS and extension.lower() != "json"


def what_is(name: str) -> What:
    """Return what a file that is no image is: a recording, by its suffix or its format, or anything else."""
    return "recording" if is_recording(name) or name.lower().endswith(FORMATS) else "other"


def in_order(entries: Iterable[LeftOut]) -> tuple[LeftOut, ...]:
    """Return the entries in the order of the table."""
    of: dict[What, list[LeftOut]] = {what: [] for what in ORDER}
    for one in entries:
        of[one.what].append(one)
    return tuple(one for what in ORDER for one in sorted(of[what], key=attrgetter("path", "reason")))


def by_kind(entries: Iterable[LeftOut]) -> dict[str, int]:
    """Return the number of files of each kind, sorted by kind: those of images come first."""
    counts: Counter[str] = Counter()
    of_images = set()
    for one in entries:
        kind = one.kind or one.reason
        counts[kind] += one.files
        if one.what == "image":
            of_images.add(kind)
    return {kind: counts[kind] for kind in sorted(counts, key=lambda kind: (kind not in of_images, kind))}


@dataclass(slots=True)
class Sum:
    """How many files a reason leaves out, by what they are, and their bytes as far as they are known."""

    image: int = 0
    recording: int = 0
    other: int = 0
    size: int = 0


def by_reason(entries: Iterable[LeftOut]) -> dict[str, Sum]:
    """Return the sum of each reason, in the order of the table: what leaves out images comes first."""
    sums: dict[str, Sum] = {}
    for one in entries:
        found = sums.setdefault(one.reason, Sum())
        setattr(found, one.what, getattr(found, one.what) + one.files)
        found.size += one.size or 0
    return sums


def images_by_folder(entries: Iterable[LeftOut]) -> Mapping[tuple[str, str], int]:
    """Return how many images each reason leaves out in each folder: (reason, folder) -> number, sorted."""
    return by_folder(one for one in entries if one.what == "image")


def by_folder(entries: Iterable[LeftOut]) -> Mapping[tuple[str, str], int]:
    """Return how many of these files each reason leaves out in each folder: (reason, folder) -> number, sorted.

    The folders of subjects and sessions are taken together: `sub-*/ses-*/anat/`.
    """
    counts: Counter[tuple[str, str]] = Counter()
    for one in entries:
        counts[one.reason, _folder(one.path)] += one.files
    return dict(sorted(counts.items()))


def _folder(path: str) -> str:
    folder = path.rpartition("/")[0]
    return _LABELLED.sub(r"\1\2-*", folder) + "/" if folder else "./"


def as_table(entries: Iterable[LeftOut]) -> bytes:
    """Return the table of these entries, which are in order. It has a header even if there are none."""
    lines = ["\t".join(HEAD)]
    lines += [
        f"{json.dumps(one.path, ensure_ascii=False)[1:-1]}\t{MISSING if one.size is None else one.size}\t{one.why()}"
        for one in entries
    ]
    return ("\n".join(lines) + "\n").encode("utf-8", "backslashreplace")
