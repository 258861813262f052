"""The footer of a shard: its schema, and where each column chunk and each page is.

Everything in it follows from the rows. Nothing names a library, a version or a date. Source: parquet-format,
"parquet.thrift" (the structs, by field id) and "PageIndex.md" (the offset index).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

from tasks.write import thrift
from tasks.write.pages import BYTE_ARRAY, INT64, PLAIN, RLE, UNCOMPRESSED, Chunk
from tasks.write.schema import COLUMNS, HUGGINGFACE, IMAGE_BYTES, LEAVES, OTHER_BYTES, Leaf

CREATED_BY = "bids-push"
FORMAT_VERSION = 1  # of the Parquet format: nothing that came with 2 is used
OPTIONAL = 1  # enum FieldRepetitionType
UTF8 = 0  # enum ConvertedType, for readers older than LogicalType
TYPE_DEFINED_ORDER = thrift.struct({1: thrift.struct({})})  # union ColumnOrder
STRING = thrift.struct({1: thrift.struct({})})  # union LogicalType
ENCODINGS = thrift.items([thrift.i32(PLAIN), thrift.i32(RLE)])
CODEC = thrift.i32(UNCOMPRESSED)
FILE_OFFSET = thrift.i64(0)  # of a ColumnChunk: deprecated; 0 is what the format asks of new writers


@dataclass(frozen=True, slots=True)
class RowGroup:
    """A row group that is written: its column chunks in the order of the schema."""

    rows: int
    chunks: tuple[Chunk, ...]


def offset_index(chunk: Chunk) -> bytes:
    """Return where each page of a column chunk is. With it a reader can fetch one image of a row group and not all."""
    if len(chunk.pages) == 1:
        page = chunk.pages[0]
        return _ONE_PAGE.filled(thrift.zigzag(page.offset), thrift.zigzag(page.size))[1]
    locations = [
        thrift.struct({1: thrift.i64(page.offset), 2: thrift.i32(page.size), 3: thrift.i64(page.first_row)})
        for page in chunk.pages
    ]
    return thrift.struct({1: thrift.items(locations)})[1]


def footer(groups: Sequence[RowGroup], indexes: Mapping[Chunk, tuple[int, int]]) -> bytes:
    """Return the FileMetaData struct.

    Args:
        groups: the row groups.
        indexes: for each chunk, where its offset index is and how many bytes it has.
    """
    huggingface = thrift.struct({1: thrift.binary("huggingface"), 2: thrift.binary(HUGGINGFACE)})
    fields: dict[int, thrift.Value | None] = {
        1: thrift.i32(FORMAT_VERSION),
        2: _schema(),
        3: thrift.i64(sum(group.rows for group in groups)),
        4: thrift.items([_row_group(number, group, indexes) for number, group in enumerate(groups)]),
        5: thrift.items([huggingface]),
        6: thrift.binary(CREATED_BY),
        7: thrift.items([TYPE_DEFINED_ORDER] * len(LEAVES)),
    }
    return thrift.struct(fields)[1]


@cache
def _schema() -> thrift.Value:
    elements = [thrift.struct({4: thrift.binary("schema"), 5: thrift.i32(len(COLUMNS))})]
    for leaf in LEAVES:
        if leaf == IMAGE_BYTES:
            children = sum(other.path[0] == leaf.path[0] for other in LEAVES)
            group = {3: thrift.i32(OPTIONAL), 4: thrift.binary(leaf.path[0]), 5: thrift.i32(children)}
            elements.append(thrift.struct(group))
        text = leaf not in (IMAGE_BYTES, OTHER_BYTES) and leaf.path != ("size",)
        element = {
            1: _type(leaf),
            3: thrift.i32(OPTIONAL),
            4: thrift.binary(leaf.path[-1]),
            6: thrift.i32(UTF8) if text else None,
            10: STRING if text else None,
        }
        elements.append(thrift.struct(element))
    return thrift.items(elements)


@cache
def _type(leaf: Leaf) -> thrift.Value:
    return thrift.i32(INT64 if leaf.path == ("size",) else BYTE_ARRAY)


def _row_group(number: int, group: RowGroup, indexes: Mapping[Chunk, tuple[int, int]]) -> thrift.Value:
    size = thrift.i64(sum(chunk.size for chunk in group.chunks))
    fields = {
        1: thrift.items([_column_chunk(chunk, *indexes[chunk]) for chunk in group.chunks]),
        2: size,
        3: thrift.i64(group.rows),
        5: thrift.i64(min(chunk.pages[0].offset for chunk in group.chunks)),
        6: size,
        7: thrift.i16(number),
    }
    return thrift.struct(fields)


#: The offset index of a column chunk of one page, which all but those of files are: its offset and its size are open.
_ONE_PAGE = thrift.template(
    {
        1: thrift.of_one(
            thrift.template({1: thrift.A_NUMBER_OF_64_BITS, 2: thrift.A_NUMBER_OF_32_BITS, 3: thrift.i64(0)})
        )
    }
)


def _column_chunk(chunk: Chunk, index_offset: int, index_size: int) -> thrift.Value:
    places = [thrift.zigzag(chunk.pages[0].offset), thrift.zigzag(index_offset), thrift.zigzag(index_size)]
    if chunk.statistics is not None:
        places.insert(1, chunk.statistics[1])
    return _without_places(chunk.leaf, chunk.rows, chunk.size, chunk.statistics is not None).filled(*places)


@lru_cache(maxsize=4096)
def _without_places(leaf: Leaf, rows: int, size: int, with_statistics: bool) -> thrift.Template:
    """Return what a ColumnChunk says besides the places of page and index, and the statistics.

    For an empty column this is the same in every row group.
    """
    total = thrift.i64(size)
    metadata: dict[int, thrift.Value | thrift.Place] = {
        1: _type(leaf),
        2: ENCODINGS,
        3: thrift.items([thrift.binary(name) for name in leaf.path]),
        4: CODEC,
        5: thrift.i64(rows),
        6: total,
        7: total,
        9: thrift.A_NUMBER_OF_64_BITS,
    }
    if with_statistics:
        metadata[12] = thrift.A_STRUCT
    return thrift.template(
        {
            2: FILE_OFFSET,
            3: thrift.template(metadata),
            4: thrift.A_NUMBER_OF_64_BITS,
            5: thrift.A_NUMBER_OF_32_BITS,
        }
    )
