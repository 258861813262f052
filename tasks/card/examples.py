"""The card's lines of code: how to load what is in this dataset. They run as they stand."""

import re
from collections.abc import Sequence

from tasks.card import markdown as md
from tasks.card.counts import Group, PublishedRows, recording_name
from tasks.card.front import FILES
from tasks.values.format import in_units, number
from tasks.values.kinds import kind_of, recording_of
from tasks.values.models import Image

LARGEST_DECODED = 100_000_000  # bytes of the largest image that `datasets` decodes within 2 GB, whatever is in it

#: What readers of recordings alone have to know. A card with images says it of these.
RECORDINGS_ALONE = (
    "`pre_buffer=False` keeps `datasets` from holding a whole Parquet file in memory. To have all files of a config on "
    "your disk, write `writer_batch_size=1` in the place of `streaming=True`: otherwise up to a thousand of them are "
    "held in memory before one is written."
)

SPLIT = "_split-"  # before the number of a part, in the names of a recording in several FIF files

#: The datatypes that MNE is for, in the order in which one of them is the example.
OF_MNE = ("eeg", "meg", "ieeg", "nirs", "emg")
#: What `mne.io.read_raw` opens of a recording, by extension: one of its files, or the folder that it is (MNE
#: documentation, "Supported data formats"; BIDS specification, the formats of each datatype).
OPENED_BY_MNE = (".vhdr", ".edf", ".bdf", ".set", ".fif", ".snirf", ".ds", ".mefd", ".mff", ".con", ".sqd", ".kdf")


#: A path that a string of Python and Markdown leave unchanged: anybody may have written it into the record.
_SAFE = re.compile(r"[\w./+@=,~-]+")


def load(repo_id: str, published: PublishedRows) -> str:
    """Return how to load what is published, by configs that exist."""
    if not published.rows:
        return "No image and no recording is published yet."
    parts = [
        _images(repo_id, published) if published.images else "",
        _recordings(repo_id, published),
        _configs(published),
    ]
    return "\n\n".join(part for part in parts if part)


def _images(repo_id: str, published: PublishedRows) -> str:
    """Return how to load images: streamed, whole, and those that `datasets` alone cannot decode."""
    named = [name for group, name in published.configs.items() if group.kind == "image"]
    config = next((name for name in ("anat_T1w", *named) if name in named), "default")
    return f"""```python
from datasets import load_dataset
from pyarrow.dataset import ParquetFragmentScanOptions

# streaming: an image is fetched when its row is read, and none ahead
scan = ParquetFragmentScanOptions(pre_buffer=False)
images = load_dataset("{repo_id}", "{config}", split="train", streaming=True, fragment_scan_options=scan)
row = next(iter(images))
print(row["path"], row["nifti"].shape, row["participant"])
```

```python
# all of them on your disk: the Parquet files of every config are downloaded ({in_units(published.size)})
images = load_dataset("{repo_id}", "{config}", split="train", writer_batch_size=1, fragment_scan_options=scan)
```

`pre_buffer=False` and `writer_batch_size=1` are needed: images are large, and otherwise a whole file of them is held \
in memory while it is read, and up to a thousand before one is written.{_nibabel(repo_id, published)}"""


def _nibabel(repo_id: str, published: PublishedRows) -> str:
    """Return how to read images that `datasets` cannot decode, or only in much memory; empty if there are none."""
    largest = max(published.images, key=lambda image: published.sizes[image.path])
    large = published.sizes[largest.path] > LARGEST_DECODED
    if not (large or published.nifti2):
        return ""
    shown = largest if large else next(image for image in published.images if image.path in published.nifti2)
    config = published.configs.get(Group("image", shown.datatype or "", shown.suffix), "default")
    stream = 'io.BytesIO(row["nifti"]["bytes"])'
    why = []
    if large:
        why.append(
            f"Images of up to {in_units(published.sizes[largest.path])} are among them (in {md.code(config)}), and to "
            "decode one `datasets` takes about ten times its size in memory."
        )
    if published.nifti2:
        verb = "is" if len(published.nifti2) == 1 else "are"
        why.append(
            f"{number(len(published.nifti2), 'image')} {verb} in NIfTI-2, which `datasets` 5.2.0 does not decode: "
            "for these take `Nifti2Image` here."
        )
    return f"""

{" ".join(why)} nibabel reads an image a volume at a time, and `reshard` keeps those behind it from being fetched \
meanwhile; images on your disk need no `reshard`:

```python
import gzip, io, nibabel
from datasets import Nifti

images = load_dataset("{repo_id}", "{config}", split="train", streaming=True, fragment_scan_options=scan).reshard()
for row in images.cast_column("nifti", Nifti(decode=False)):
    stream = {f"gzip.open({stream})" if shown.path.endswith(".gz") else stream}
    image = nibabel.Nifti{2 if shown.path in published.nifti2 else 1}Image.from_stream(stream)
    print(row["path"], image.dataobj[..., 0].mean())
```"""


def _recordings(repo_id: str, published: PublishedRows) -> str:
    """Return how to read recordings: the first one with MNE, if it can, else the bytes of a file; empty without any."""
    groups = {group: name for group, name in published.configs.items() if group.kind == "recording"}
    if published.images and not groups:
        return ""
    with_mne = (
        _mne(repo_id, config, *opened)
        for datatype in OF_MNE
        for group, config in groups.items()
        if group.datatype == datatype and (opened := _opened_by_mne(published, published.groups[group]))
    )
    code = next(with_mne, None) or _bytes(repo_id, next(iter(groups.values()), "default"))
    return code if published.images else f"{code}\n\n{RECORDINGS_ALONE}"


def _bytes(repo_id: str, config: str) -> str:
    """Return how to read the bytes of a file of a recording."""
    return f"""Of a recording, `content` has the bytes of the file, as they are in the BIDS dataset:

```python
from datasets import load_dataset
from pyarrow.dataset import ParquetFragmentScanOptions

# streaming: a file is fetched when its row is read, and none ahead
scan = ParquetFragmentScanOptions(pre_buffer=False)
files = load_dataset("{repo_id}", "{config}", split="train", streaming=True, fragment_scan_options=scan)
row = next(iter(files))
print(row["path"], len(row["content"]), row["metadata"])
```"""


def _opened_by_mne(published: PublishedRows, every: Sequence[Image]) -> tuple[str, str, str] | None:
    """Return how to tell the files of the recording that is served first from others, and which of them MNE opens.

    A recording names its task (BIDS specification, "Magnetoencephalography" and others). What calibrates a MEG has the
    same datatype and suffix, and no task.

    Returns:
        Python for a filter, if there are files without a task among them; Python for the name that the files share; and
        the rest of the path of what is opened. None if MNE opens none of them.
    """
    rows = [row for row in every if "task" in row.entities]
    if not rows:
        return None
    only = '.filter(lambda row: row["task"])' if len(rows) < len(every) else ""
    recording = recording_name(published.first_served(rows))
    files = {row.path for row in rows if recording_name(row.path) == recording}
    for path in sorted(set(map(recording_of, files))):
        extension = next((one for one in OPENED_BY_MNE if path.endswith(one)), None)
        if extension is None:
            continue
        if SPLIT in path:
            return only, f'row["path"].partition("{SPLIT}")[0]', path[path.index(SPLIT) :]
        if path not in files:  # it is a folder
            return only, f'row["path"].partition("{extension}/")[0]', extension
        return only, 'row["path"].rpartition(".")[0]', extension
    return None


def _mne(repo_id: str, config: str, only: str, name: str, opened: str) -> str:
    """Return how to open the first recording of a config with MNE."""
    return f"""A recording may be several files. Each is a row with its bytes in `content`, and they follow one \
another. [MNE](https://mne.tools) opens them in a folder, where they find each other by their names:

```python
import itertools, mne, tempfile
from pathlib import Path
from datasets import load_dataset
from pyarrow.dataset import ParquetFragmentScanOptions

# streaming: a file is fetched when its row is read, and none ahead
scan = ParquetFragmentScanOptions(pre_buffer=False)
files = load_dataset("{repo_id}", "{config}", split="train", streaming=True, fragment_scan_options=scan)
name, rows = next(itertools.groupby(files{only}, lambda row: {name}))
with tempfile.TemporaryDirectory() as folder:
    for row in rows:
        file = Path(folder, row["path"])
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(row["content"])
    raw = mne.io.read_raw(Path(folder, name + "{opened}"), preload=True)
print(name, raw.info["sfreq"], raw.ch_names)
```"""


def tree(repo_id: str, published: PublishedRows) -> str:
    """Return how to have the dataset's files back, all of them and a single one beside images and recordings."""
    if not (published.rows or published.beside):
        return ""
    restore = (
        f"With bids-push, {md.code(f'bids-push restore {repo_id} FOLDER')} puts every file that is published here "
        "where it was in the BIDS tree, or those of a subject, session or datatype, and checks each by its sha256."
    )
    return f"{restore}\n\n{_file(repo_id, published)}" if published.beside else restore


def _file(repo_id: str, published: PublishedRows) -> str:
    """Return how to read one of the files beside images and recordings: a text, if there is one.

    It is asked for by its path, so that nothing else is fetched. If somebody broke off a stream of all of them instead,
    pyarrow would still be reading ahead when Python ends, which may then crash or never end.
    """
    paths = [path for path in published.beside if _SAFE.fullmatch(path)]
    text = next((path for path in paths if kind_of(path) != "other" and not path.endswith(".gz")), None)
    path = text or next(iter(paths), None)
    if path is None:
        return f"Sidecars, tables and other files are rows of the config {md.code(FILES)}, their bytes in `content`."
    read = 'row["content"].decode()' if text else 'len(row["content"])'
    return f"""The sidecars that apply to a file are in the columns of its row, merged. As they are in the tree, those \
at the root are texts under `bids/`; the others, and tables, are rows of the config `{FILES}`:

```python
from datasets import load_dataset

wanted = [("path", "==", "{path}")]
files = load_dataset("{repo_id}", "{FILES}", split="train", streaming=True, filters=wanted)
for row in files:
    print({read})
```"""


def _configs(published: PublishedRows) -> str:
    """Return which configs there are; empty if there is `default` alone."""
    images, recordings = (
        ", ".join(md.code(name) for group, name in published.configs.items() if group.kind == kind)
        for kind in ("image", "recording")
    )
    configs = [f"`default` ({'every image' if published.images else 'every file of a recording'})"]
    configs += [f"one for each kind of image ({images})"] if images else []
    configs += [f"one for each kind of recording ({recordings})"] if recordings else []
    configs += [f"`{FILES}` (sidecars, tables and other files of the BIDS tree)"] if published.beside else []
    *most, last = configs
    return f"The configs are {', '.join(most)} and {last}." if most else ""
