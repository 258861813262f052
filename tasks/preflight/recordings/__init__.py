"""Headers of recordings (EEG, MEG, iEEG, NIRS, microscopy, physiology): finds who was recorded, by whom, and when.

How it works:

1. A file's format is known by its path: the folder that it is a part of (`.ds`, `.mff`, `.zarr`, `.mefd`, `_meg`), or
   its suffix and ending.
2. Its reader yields what the header says, and reads no further than the format demands (`eeg`, `meg`, `arrays`,
   `micr`, `texts`). Samples beside a header of their own have none.
3. `said.tells` judges each of these, and one that identifies somebody is a finding of the rule `recording-header`.
4. If a format has no reader, the reader is not installed (the extra `recordings`), or it raises anything at all, that
   is a finding of the rule `recording-unchecked`: nobody has looked for people in that file.

Nothing that a header says is kept, and no error of a reader is handed on, since it may quote what it met.
"""

import gzip
import re
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePosixPath

from tasks.bids.annex import stand_in
from tasks.preflight.many_files import look_into_each
from tasks.preflight.recordings import arrays, eeg, meg, micr, texts
from tasks.preflight.recordings.said import Said, tells
from tasks.values.kinds import in_recording_folder, recording_folder
from tasks.values.models import Image
from tasks.values.preflight_rules import Findings, RuleName

Reader = Callable[[Path], Iterable[Said]]

_LABEL = re.compile(r"(?:^|/)sub-([A-Za-z0-9+]+)")
_SHORT = re.compile(r"\.[A-Za-z0-9]{1,8}")
_CHUNK = re.compile(r"(?:c|\d+)(?:[./]\d+)*")
_ZARR_JSON = frozenset((".zattrs", ".zgroup", ".zarray", ".zmetadata", "zarr.json"))
_MFF_SAMPLES = re.compile(r"signal\d+\.bin")


def check_recordings(images: Iterable[Image], root: Path, found: Findings) -> None:
    """Look at the headers of these recordings. Staging reports a file that is not there or not fetched."""
    images = list(images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a reader's warning may quote a header
        headers = look_into_each(partial(_in_header, root), (image.path for image in images))
        for image, fields in zip(images, headers, strict=True):
            for rule, field in fields:
                found.add(rule, field, image.path)


def _in_header(root: Path, path: str) -> Sequence[tuple[RuleName, str]]:
    """Return the rules that a recording's header breaks, each with the field."""
    file = root / path
    try:
        with file.open("rb") as stream:
            start = stream.read(256)
    except OSError:
        return ()
    if stand_in(start):
        return ()
    form, read = format_of(path, root)
    labels = _LABEL.findall(path)
    label = labels[-1] if labels else None
    if read is None:
        return [("recording-unchecked", form)]
    told: set[tuple[RuleName, str]] = set()
    try:
        for one in read(file):
            if tells(one, label):
                told.add(("recording-header", one.field))
    except (gzip.BadGzipFile, zlib.error, EOFError):
        if not path.endswith(".tsv.gz") or in_recording_folder(path):  # elsewhere staging refuses a damaged stream
            told.add(("recording-unchecked", form))
    except Exception:  # noqa: BLE001 - whatever a reader raises, nobody has seen the whole header
        told.add(("recording-unchecked", form))
    return sorted(told)


def _nothing(file: Path) -> Iterator[Said]:
    """Say nothing: there is no header in these bytes."""
    return iter(())


_READERS: dict[str, tuple[str, Reader | None]] = {
    ".edf": ("EDF", eeg.edf), ".bdf": ("BDF", eeg.edf), ".vhdr": ("BrainVision", eeg.brainvision),
    ".vmrk": ("BrainVision", eeg.brainvision), ".set": ("EEGLAB", arrays.eeglab), ".fif": ("FIF", meg.fif),
    ".fif.gz": ("FIF", meg.fif), ".snirf": ("SNIRF", arrays.nirs), ".nwb": ("NWB", arrays.nwb),
    ".tif": ("TIFF", micr.tiff), ".tiff": ("TIFF", micr.tiff), ".btf": ("TIFF", micr.tiff), ".png": ("PNG", micr.png),
    ".con": ("KIT", None), ".sqd": ("KIT", None), ".mrk": ("KIT", None), ".kdf": ("KRISS", None),
}  # fmt: skip
#: Samples, and the endings of the headers that one of which stands beside them.
_BESIDE = {".eeg": (".vhdr",), ".dat": (".vhdr",), ".fdt": (".set",)}


def format_of(path: str, root: Path) -> tuple[str, Reader | None]:
    """Return the name of a recording's format, and what reads its header, or None if nothing does.

    Args:
        path: of a file, relative to the dataset's root.
        root: of the dataset.
    """
    name = PurePosixPath(path).name
    for folder in reversed(PurePosixPath(path).parts[:-1]):
        if recording_folder(folder) == "*_meg/":
            return _READERS.get(PurePosixPath(name).suffix.lower(), ("BTi/4D", None))
        if found := _in_folder(folder.lower(), name):
            return found
    stem, _, extensions = name.partition(".")
    suffix, ending = stem.rpartition("_")[2], f".{extensions.lower()}"
    if ending in (".tsv", ".tsv.gz"):
        return suffix[:20], texts.messages if suffix == "physioevents" else texts.numbers
    last = ending if ending in _READERS else f".{ending.rpartition('.')[2]}"
    if last in _BESIDE and any((root / path).with_suffix(other).is_file() for other in _BESIDE[last]):
        return "samples", _nothing
    if last == ".dat" and suffix == "meg":
        return "MEG calibration", texts.text_of_numbers
    if last in _READERS:
        return _READERS[last]
    return (last if _SHORT.fullmatch(last) else "an unknown format"), None


def _in_folder(folder: str, name: str) -> tuple[str, Reader | None] | None:
    """Return the format and the reader of a file by the folder that it is a part of, or None if it is no recording."""
    if folder.endswith(".ds"):
        return "CTF", meg.ctf
    if folder.endswith(".mefd"):
        return "MEFD", None
    if folder.endswith(".zarr"):
        return "Zarr", _of_zarr(name)
    if folder.endswith(".mff"):
        xml = partial(texts.xml_text, "MFF") if name.lower().endswith((".xml", ".txt")) else None
        return "MFF", _nothing if _MFF_SAMPLES.fullmatch(name) else xml
    return None


def _of_zarr(name: str) -> Reader | None:
    if name in _ZARR_JSON:
        return texts.json_text
    if name.lower().endswith(".xml"):
        return partial(texts.xml_text, "OME-XML")
    return _nothing if _CHUNK.fullmatch(name) else None
