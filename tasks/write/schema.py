"""The columns of a published dataset: one schema for any BIDS dataset, and an image's row in it.

The types are few: text, one 64-bit number (`size`), and the struct of `datasets`' Nifti feature. Each is nullable, as
`datasets` makes its own. The file has no `ARROW:schema` entry: these Parquet types map to exactly these Arrow types
without it, and its bytes would be a library's.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from tasks.values.models import ENTITIES, Image

_TEXTS = ("extra_entities", "path")
_DESCRIPTIONS = ("metadata", "bval", "bvec", "events", "events_metadata", "participant", "session", "scan")

#: The names of the columns, in their order.
COLUMNS = (
    "dataset", "sub", "ses", "datatype", "suffix", *ENTITIES, *_TEXTS, "size", "sha256", "nifti", *_DESCRIPTIONS,
)  # fmt: skip

#: Whose smallest and largest value stand in the footer, so that a reader with `filters` leaves whole row groups out.
#: The others have nothing to prune by: sha256 is random, descriptions are long, images are opaque.
PRUNABLE = frozenset(("dataset", "sub", "ses", "datatype", "suffix", *ENTITIES, "path", "size"))


def _feature(column: str) -> dict[str, str]:
    if column == "nifti":
        return {"_type": "Nifti"}
    return {"dtype": "int64" if column == "size" else "string", "_type": "Value"}


#: What `datasets` reads its Features from, under the key `huggingface`; written out here and not by `datasets`, whose
#: next version may order or name something otherwise.
HUGGINGFACE = json.dumps({"info": {"features": {column: _feature(column) for column in COLUMNS}}})


def _arrow_type(column: str) -> pa.DataType:
    if column == "nifti":
        return pa.struct({"bytes": pa.binary(), "path": pa.string()})
    return pa.int64() if column == "size" else pa.string()


#: What pyarrow reads from any shard.
ARROW_SCHEMA = pa.schema([(column, _arrow_type(column)) for column in COLUMNS], metadata={"huggingface": HUGGINGFACE})


@dataclass(frozen=True, slots=True)
class Leaf:
    """A column that Parquet stores: what is left of a column when structs are taken apart."""

    path: tuple[str, ...]

    @property
    def prunable(self) -> bool:
        """Whether its smallest and largest value stand in the footer."""
        return self.path[0] in PRUNABLE

    @property
    def level(self) -> int:
        """The definition level of a value that is there: every name on the path is optional."""
        return len(self.path)


IMAGE_BYTES = Leaf(("nifti", "bytes"))
LEAVES = tuple(
    leaf
    for column in COLUMNS
    for leaf in ((IMAGE_BYTES, Leaf(("nifti", "path"))) if column == "nifti" else (Leaf((column,)),))
)

Cell = str | int | None
Row = Mapping[tuple[str, ...], Cell]


def row_of(image: Image, sha256: str) -> Row:
    """An image's row, by leaf, all but its bytes."""
    extra = dict(sorted(image.extra_entities.items()))
    cells: dict[str, Cell] = {
        "dataset": image.dataset,
        "sub": image.sub,
        "ses": image.ses,
        "datatype": image.datatype,
        "suffix": image.suffix,
        **{entity: image.entities.get(entity) for entity in ENTITIES},
        "extra_entities": json.dumps(extra, ensure_ascii=False) if extra else None,
        "path": image.path,
        "size": image.size,
        "sha256": sha256,
        **{column: getattr(image, column) for column in _DESCRIPTIONS},
    }
    return {(column,): cell for column, cell in cells.items()} | {("nifti", "path"): image.path.rsplit("/", 1)[-1]}
