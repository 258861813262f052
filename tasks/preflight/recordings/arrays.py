"""Headers of SNIRF and NWB, which are HDF5 files, and of EEGLAB's .set, a MATLAB file that is HDF5 from 7.3 on.

Sources: the SNIRF specification ("/nirs(i)/metaDataTags"), the NWB schema (`NWBFile` and `general`), EEGLAB's manual
("The EEG structure"). The days on which files were written (`file_create_date` of NWB, the first line of a MATLAB file)
are no days of a recording.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Lock
from typing import Any

from tasks.preflight.recordings.said import Kind, NotChecked, Said, in_value, said

HDF5 = b"\x89HDF\r\n\x1a\n"
HDF5_PLACES = (0, 512)  # bytes: MATLAB puts a text of 512 bytes before it
MAX_TEXT = 1 << 20  # bytes of one text in an HDF5 file
MAX_TEXTS = 100_000  # texts of one file: more are a table, and no header
_ALONE = Lock()  # a .set of one struct is read whole, so one at a time

_NWB_NOTHING = frozenset(("file_create_date", "nwb_version", "namespace", "neurodata_type", "object_id"))
_NWB_KINDS: Mapping[str, Kind] = {
    "general/subject/description": "text", "general/subject/genotype": "trace", "general/notes": "text",
    "general/session_id": "trace", "session_start_time": "date", "timestamps_reference_time": "date",
}  # fmt: skip

#: EEGLAB: what samples, channels and results are in. Nothing in them was typed about a person.
_EEGLAB_DATA = frozenset(
    ("data", "times", "chanlocs", "urchanlocs", "chaninfo", "event", "urevent", "epoch", "eventdescription",
     "epochdescription", "specdata", "stats", "splinefile", "reject", "dipfit")
)  # fmt: skip
_EEGLAB_KINDS: Mapping[str, Kind] = {
    "subject": "id", "filename": "id", "datfile": "id", "comments": "text", "filepath": "trace", "history": "trace",
    "setname": "trace", "group": "trace", "condition": "trace", "session": "trace",
}  # fmt: skip
#: What EEGLAB writes into the comments by itself; a user's folder in it counts all the same.
_EEGLAB_OWN_WORDS = "Original file:"


def nirs(path: Path) -> Iterator[Said]:
    """Yield what a SNIRF file says of its recordings.

    Raises:
        NotChecked: it has none, or h5py is not installed.
    """
    with _opened(path) as file:
        groups = [name for name in file if name.startswith("nirs")]
        if not groups:
            raise NotChecked
        for group in groups:
            for name, text in _texts(file[group]["metaDataTags"]):
                yield said("SNIRF", name, text)


def nwb(path: Path) -> Iterator[Said]:
    """Yield what an NWB file says of its session, its subject, and those who made it.

    Raises:
        NotChecked: it is none, or h5py is not installed.
    """
    with _opened(path) as file:
        if "nwb_version" not in file.attrs:
            raise NotChecked
        for name, text in _texts(file, inside=("general",)):
            last = name.rpartition("/")[2]
            if last in _NWB_NOTHING:
                continue
            kind = _NWB_KINDS.get(name)
            yield Said(f"NWB {last}", text, kind) if kind else said("NWB", last, text)


def eeglab(path: Path) -> Iterator[Said]:
    """Yield what an EEGLAB .set file says.

    Raises:
        NotChecked: it is none, or scipy or h5py is not installed.
    """
    if any(_starts_at(path, place) for place in HDF5_PLACES):
        with _opened(path) as file:
            fields: Mapping[str, object] = dict(_texts(file.get("EEG", file)))
    else:
        with _ALONE:
            fields = _older_matlab(path)
    if not fields.keys() & _EEGLAB_KINDS.keys():
        raise NotChecked
    for name, value in fields.items():
        if name in _EEGLAB_DATA:
            continue
        kind = _EEGLAB_KINDS.get(name)
        if kind is None:
            yield from in_value("EEGLAB", _plain(value), name)
            continue
        text = _as_text(value)
        if name == "comments" and text.startswith(_EEGLAB_OWN_WORDS) and len(text.splitlines()) == 1:
            kind = "trace"
        yield Said(f"EEGLAB {name}", "" if text == "[]" else text, kind)


def _older_matlab(path: Path) -> Mapping[str, object]:
    """Return the fields of EEGLAB's struct from a file of MATLAB before 7.3, in which they may be variables."""
    try:
        from scipy import io
    except ImportError as error:
        raise NotChecked from error
    names = [name for name, *_ in io.whosmat(path)]
    wanted = ["EEG"] if "EEG" in names else [name for name in names if name not in _EEGLAB_DATA]
    found: dict[str, Any] = io.loadmat(path, variable_names=wanted, simplify_cells=True)
    fields: Mapping[str, object] = found["EEG"] if "EEG" in names else found
    return {name: value for name, value in fields.items() if not name.startswith("__")}


def _as_text(value: object) -> str:
    """Return a MATLAB text: an array of texts is one of lines."""
    plain = _plain(value)
    return "\n".join(map(str, plain)) if isinstance(plain, list) else str(plain).strip()


def _plain(value: object) -> object:
    """Return a value of MATLAB as JSON has it, without arrays of numbers."""
    if isinstance(value, Mapping):
        return {str(name): _plain(one) for name, one in value.items()}
    kind = getattr(getattr(value, "dtype", None), "kind", "")
    if kind in ("U", "S", "O"):
        return [_plain(one) for one in value.ravel()] if getattr(value, "ndim", 0) else str(value)  # type: ignore[attr-defined]
    if kind:
        return []
    return [_plain(one) for one in value] if isinstance(value, list | tuple) else value


def _starts_at(path: Path, place: int) -> bool:
    with path.open("rb") as file:
        file.seek(place)
        return file.read(len(HDF5)) == HDF5


def _opened(path: Path) -> Any:
    """Open an HDF5 file to read.

    Raises:
        NotChecked: h5py is not installed.
        OSError: it is no HDF5 file, or damaged.
    """
    try:
        import h5py
    except ImportError as error:
        raise NotChecked from error
    return h5py.File(path, "r", locking=False)


def _texts(group: Any, inside: tuple[str, ...] = (), at: str = "") -> Iterator[tuple[str, str]]:
    """Yield the texts in a group of an HDF5 file, each with its name; those of a part of the groups in it too.

    Args:
        group: an open group.
        inside: the groups in it of which all is wanted.
        at: what stands before the names.

    Raises:
        NotChecked: there are more than a header has.
    """
    count = 0
    for name in group:
        if group.get(name, getlink=True).__class__.__name__ == "ExternalLink":  # a file of its own
            continue
        one = group[name]
        if hasattr(one, "keys"):
            if at or name in inside:
                yield from _texts(one, inside, f"{at}{name}/")
            continue
        for text in _texts_of(one):
            count += 1
            if count > MAX_TEXTS:
                raise NotChecked
            yield f"{at}{name}", text


def _texts_of(dataset: Any) -> Iterator[str]:
    """Yield the texts of a dataset: HDF5's own, or letters as MATLAB writes them."""
    if dataset.dtype.kind in "OS" and dataset.shape is not None and dataset.size <= MAX_TEXTS:
        values = dataset[()]
        for value in [values] if isinstance(values, bytes | str) else values.ravel():
            if isinstance(value, bytes | str):
                yield value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    elif _is_matlab_text(dataset):
        yield "".join(map(chr, dataset[()].ravel()))


def _is_matlab_text(dataset: Any) -> bool:
    known = dataset.attrs.get("MATLAB_class") == b"char" and not dataset.attrs.get("MATLAB_empty", 0)
    return known and dataset.dtype.kind == "u" and dataset.size <= MAX_TEXT
