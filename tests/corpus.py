"""`make corpus FOLDER=...`: what bids-push makes of real datasets, one line each.

FOLDER holds a BIDS dataset in each of its folders: OpenNeuro's trees as git has them, or bids-examples. The images'
content need not be there. Each dataset is loaded and checked as a push does it; nothing is staged or sent. A line has

- images, recordings: rows that would be published; a recording that is a folder has a row for each of its files,
- walked: files of both kinds that a plain walk of the tree finds, without hidden files and sourcedata,
- left out: those of both kinds that are not published, with the reason in bids/left_out.tsv; they and the rows of both
  kinds are what was walked, but for CIFTI, which ends in .nii and is among the others,
- sidecars, tables, others: rows beside them,
- texts: files that are published as they are, below bids/,
- other: other files that are left out,
- once: whether each file that a plain walk finds is exactly one of row, text, and left out: "yes", or how many are not,
- with sidecar, participant: how many images and recordings have these,
- stops: the rules of the check before publication that would stop the push, without the statement on faces,
- notes: how many sentences the card would have about what could not be used,

or the error that refuses the dataset. It exits 1 if a dataset is refused that has an image or a recording in a `sub-`
folder, or if a file is not exactly one of these.
"""

import argparse
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from tasks.load import load
from tasks.load.tree import DESCRIPTION
from tasks.preflight import check
from tasks.values.errors import PushError
from tasks.values.left_out import RECORDINGS, images_by_folder
from tasks.values.models import Dataset
from tasks.values.preflight_rules import Statement

HEAD = (
    *(
        "dataset",
        "images",
        "recordings",
        "walked",
        "left out",
        "sidecars",
        "tables",
        "others",
        "texts",
        "other",
        "once",
    ),
    *("with sidecar", "participant", "stops", "notes", "s"),
)


_ROW = re.compile(
    rf"\.nii(\.gz)?$|_({'|'.join(RECORDINGS)})\.(?!json$)[^_]*$|\.(edf|bdf|vhdr|vmrk|fdt|fif|snirf|nwb|sqd|kdf)$",
    re.IGNORECASE,
)
_FOLDER = re.compile(r"_[A-Za-z0-9]+\.(ds|mefd|mff|([^/]*\.)?zarr)/")


@dataclass(frozen=True)
class Line:
    """What came of one dataset."""

    cells: tuple[object, ...]
    wrong: bool = False
    said: str = ""
    """The error or the notes, for people."""


def main() -> int:
    """Print a line for each dataset of the folder, and return 1 if one is not as it should be."""
    parser = argparse.ArgumentParser(prog="python -m tests.corpus", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("folder", type=Path, help="a BIDS dataset in each of its folders")
    parser.add_argument("--say", action="store_true", help="print errors and notes below each line")
    options = parser.parse_args()
    print(*HEAD, sep="\t")
    wrong = 0
    for root in datasets_in(options.folder):
        line = line_of(root)
        print(*line.cells, sep="\t", flush=True)
        if options.say and line.said:
            print(line.said)
        wrong += line.wrong
    return 1 if wrong else 0


def datasets_in(folder: Path) -> Iterator[Path]:
    """Yield the folders that hold a dataset_description.json, or a `sub-` folder, sorted."""
    for root in sorted(folder.iterdir()):
        if (root / DESCRIPTION).exists() or any(root.glob("sub-*")):
            yield root


def line_of(root: Path) -> Line:
    """Load and check one dataset."""
    walked = sum(1 for _ in rows_below(root))
    start = time.monotonic()
    try:
        dataset = load(root)
        _, checked = check(dataset, Statement("no faces"))
    except PushError as error:
        raw = any(path.relative_to(root).parts[0].startswith("sub-") for path in rows_below(root))
        return Line((root.name, type(error).__name__, walked), raw, f"    {error}")
    rules = ",".join(sorted({finding.rule for finding in checked.stops}))
    kinds, twice = Counter(row.kind for row in dataset.rows), not_once(root, dataset)
    cells = (
        root.name,
        *(kinds[kind] for kind in ("image", "recording")),
        walked,
        sum(one.files for one in dataset.unpublished if one.what != "other"),
        *(kinds[kind] for kind in ("sidecar", "table", "other")),
        len(dataset.texts),
        sum(one.files for one in dataset.unpublished if one.what == "other"),
        len(twice) or "yes",
        sum(image.metadata is not None for image in dataset.images),
        sum(image.participant is not None for image in dataset.images),
        rules or "-",
        len(dataset.notes),
        f"{time.monotonic() - start:.1f}",
    )
    images = images_by_folder(dataset.unpublished)
    left_out = [f"    left out: {count} in {folder}: {reason}" for (reason, folder), count in images.items()]
    left_out += [f"    not exactly one of row, text and left out: {path}" for path in sorted(twice)]
    return Line(cells, bool(twice), "\n".join([*(f"    {note}" for note in dataset.notes), *left_out]))


def not_once(root: Path, dataset: Dataset) -> set[str]:
    """Return the paths of which there is not exactly one: a file, and one of a row, a text and an entry of left out.

    Folders that stand for files which are not named (hidden ones, sourcedata) are compared by their prefix alone.
    """
    folders = tuple(one.path.removeprefix("./") for one in dataset.unpublished if one.path.endswith("/"))
    walked = {path.relative_to(root).as_posix() for path in files_below(root)}
    unnamed = {path for path in walked if path.startswith(tuple(filter(None, folders))) or _hidden(path)}
    named = [one.path for one in dataset.unpublished if not one.path.endswith("/")]
    places = Counter([*(row.path for row in dataset.rows), *dataset.texts, *named])
    several = {path for path, count in places.items() if count > 1}
    return several | ((walked ^ places.keys()) - (unnamed - places.keys()))


def files_below(root: Path) -> Iterator[Path]:
    """Yield every file of the tree, and every link that leads to no folder."""
    for folder, folders, names in os.walk(root):
        links = [name for name in folders if Path(folder, name).is_symlink()]
        yield from (Path(folder, name) for name in (*names, *links))


def _hidden(path: str) -> bool:
    return any(part.startswith(".") for part in path.split("/"))


def rows_below(root: Path) -> Iterator[Path]:
    """Yield the files of the tree, and links, whose names are those of NIfTI files or of recordings."""
    for folder, folders, names in os.walk(root):  # not by what `load` goes by
        folders[:] = [name for name in folders if not name.startswith(".") and name != "sourcedata"]
        inside = _FOLDER.search(f"{folder}/") is not None
        shown = (name for name in names if not name.startswith(".") or (inside and name.startswith(".z")))
        yield from (Path(folder, name) for name in shown if inside or _ROW.search(name))


if __name__ == "__main__":
    raise SystemExit(main())
