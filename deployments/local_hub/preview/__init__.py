"""What a person sees of a shard: its first rows, and the middle slice of the first NIfTI images.

How it works:

- A shard is a Parquet file as bids-push writes it: pages without a codec or a dictionary, and one page a file
  (docs/columns.md). `parquet` reads its footer and the first pages, in plain Python, and refuses any other Parquet
  file: its page says nothing of rows then. No library parses strangers' bytes here, so none can crash the server.
- `nifti` reads a header and inflates no more than it needs for one slice, without keeping what it passes over. The
  slice is axial by the image's affine: a sagittal one shows a profile.
- Everything is within one budget (`budget`): bytes read from the store, bytes inflated, seconds. What is over it, or is
  not what it says, has no picture, and a sentence in its place.
- Nothing is kept: each time a page is asked for, who may read it is asked first, and it is made anew.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from deployments.local_hub.preview import nifti, parquet
from deployments.local_hub.preview.budget import Budget, NotShownError, Read, Source, as_not_shown
from deployments.local_hub.preview.nifti import Picture

__all__ = ["Budget", "NotShownError", "Picture", "Preview", "Row", "of"]

ROWS = 20  # shown of a shard
PICTURES = 3  # of its first images
TEXT = 300  # characters of a cell


@dataclass(frozen=True)
class Row:
    """A file of a shard; `size` in bytes."""

    kind: str
    path: str
    sub: str
    ses: str
    size: int


@dataclass(frozen=True)
class Preview:
    """The first rows of a shard, how many it says it has, and the pictures of images by their paths, or why not."""

    rows: tuple[Row, ...]
    total: int
    pictures: dict[str, Picture | str]


def of(read: Read, size: int, budget: Budget) -> Preview:
    """The preview of a shard of `size` bytes, of which `read(start, stop)` gives a part

    Raises NotShownError for any other file.
    ."""
    with as_not_shown():
        return _of(Source(read, size, budget))


def _of(source: Source) -> Preview:
    shard = parquet.open_shard(source)
    rows: list[Row] = []
    images: dict[str, tuple[int, int]] = {}
    for group in shard.groups:
        wanted = min(ROWS - len(rows), group.rows)
        found = [Row(*cells) for cells in _cells(source, group, wanted)]
        for row, file in zip(found, parquet.files(source, group, ("nifti", "bytes"), len(found)), strict=False):
            if file is not None and row.kind == "image" and len(images) < PICTURES:
                images[row.path] = file
        rows += found
        if len(rows) >= ROWS or len(found) < wanted:
            break
    # the rows come first: pictures may use up the budget
    return Preview(tuple(rows), shard.rows, {path: _picture(source, file) for path, file in images.items()})


def _cells(source: Source, group: parquet.Group, rows: int) -> Iterator[tuple[str, str, str, str, int]]:
    texts: Sequence[list[str | None]] = [
        parquet.texts(source, group, (name,), rows) for name in ("kind", "path", "sub", "ses")
    ]
    sizes = parquet.numbers(source, group, ("size",), rows)
    for kind, path, sub, ses, size in zip(*texts, sizes, strict=False):
        yield _short(kind), _short(path), _short(sub), _short(ses), max(size or 0, 0)


def _short(text: str | None) -> str:
    return (text or "")[:TEXT]


def _picture(source: Source, file: tuple[int, int]) -> Picture | str:
    try:
        return nifti.middle_slice(source, *file)
    except NotShownError as error:
        return str(error)
