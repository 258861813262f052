"""The columns of a published dataset: one schema for any BIDS dataset, and a file's row in it.

There are few types: text, one 64-bit number (`size`), bytes (`content`), and the struct of `datasets`' Nifti feature. A
row has its file's bytes in `nifti` if it is an image, and in `content` if it is anything else. Each column is
nullable, as in `datasets`' own files. The file has no `ARROW:schema` entry. These Parquet types map to exactly these
Arrow types without it, and the bytes of the entry would depend on a library.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from operator import attrgetter

import pyarrow as pa

from tasks.values.kinds import KINDS, Kind
from tasks.values.models import DESCRIPTIONS, ENTITIES, Image

_TEXTS = ("extra_entities", "path")

#: The names of the columns, in their order.
COLUMNS = (
    "kind", "dataset", "sub", "ses", "datatype", "suffix", *ENTITIES, *_TEXTS, "size", "sha256", "nifti", "content",
    *DESCRIPTIONS,
)  # fmt: skip

#: Columns whose smallest and largest value stand in the footer, so that a reader with `filters` skips whole row groups.
#: The others have nothing to prune by: sha256 is random, descriptions are long, images are opaque.
PRUNABLE = frozenset(("kind", "dataset", "sub", "ses", "datatype", "suffix", *ENTITIES, "path", "size"))


def _feature(column: str) -> dict[str, str]:
    if column == "nifti":
        return {"_type": "Nifti"}
    return {"dtype": {"size": "int64", "content": "binary"}.get(column, "string"), "_type": "Value"}


#: `datasets` reads its Features from this, under the key `huggingface`. It is written out here and not by `datasets`,
#: because the next version of that may order or name something differently.
HUGGINGFACE = json.dumps({"info": {"features": {column: _feature(column) for column in COLUMNS}}})


def _arrow_type(column: str) -> pa.DataType:
    if column == "nifti":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return {"size": pa.int64(), "content": pa.binary()}.get(column, pa.string())


#: The schema that pyarrow reads from any shard.
ARROW_SCHEMA = pa.schema([(column, _arrow_type(column)) for column in COLUMNS], metadata={"huggingface": HUGGINGFACE})


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column as Parquet stores it: a column without structs, or one part of a struct."""

    path: tuple[str, ...]

    @property
    def prunable(self) -> bool:
        """Whether its smallest and largest value stand in the footer."""
        return self.path[0] in PRUNABLE

    @property
    def level(self) -> int:
        """The definition level of a value that is not null: every name on the path is optional."""
        return len(self.path)


IMAGE_BYTES = Leaf(("nifti", "bytes"))
OTHER_BYTES = Leaf(("content",))
#: Where the bytes of a row's file are, by its kind.
BYTES_OF: Mapping[Kind, Leaf] = {kind: IMAGE_BYTES if kind == "image" else OTHER_BYTES for kind in KINDS}
LEAVES = tuple(
    leaf
    for column in COLUMNS
    for leaf in ((IMAGE_BYTES, Leaf(("nifti", "path"))) if column == "nifti" else (Leaf((column,)),))
)

Cell = str | int | None
Row = tuple[Cell, ...]
"""A file's row without the file's bytes, in the order of `LEAVES`."""

_of_descriptions = attrgetter(*DESCRIPTIONS)


def row_of(image: Image, sha256: str) -> Row:
    """Return a file's row."""
    extra = dict(sorted(image.extra_entities.items()))
    return (
        image.kind,
        image.dataset,
        image.sub,
        image.ses,
        image.datatype,
        image.suffix,
        *map(image.entities.get, ENTITIES),
        json.dumps(extra, ensure_ascii=False) if extra else None,
        image.path,
        image.size,
        sha256,
        None,  # nifti.bytes
        image.path.rpartition("/")[2] if image.kind == "image" else None,
        None,  # content
        *_of_descriptions(image),
    )
