"""What is written is what every reader reads."""

import errno
import gzip
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import duckdb
import fastparquet
import nibabel
import numpy as np
import polars
import pyarrow as pa
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.disk.staging import Staging
from tasks.stage import stage
from tasks.values.kinds import Kind
from tasks.values.models import DESCRIPTIONS, ENTITIES, Image, ShardSpec
from tasks.write import (
    ARROW_SCHEMA,
    COLUMNS,
    LARGEST_FILE,
    WRITER_SETTINGS,
    ShardWriter,
    row_groups,
    row_of,
    writing_order,
)
from tests import counted
from tests.images import recordings, session, sparse, spec_of

MIB = 1 << 20
VIEWER_LIMIT = 286 * MIB  # the Hub's viewer refuses a larger row group


def expected(image: Image, data: bytes) -> dict[str, object]:
    """The row that a reader must see."""
    return {
        "kind": image.kind,
        "dataset": image.dataset,
        "sub": image.sub,
        "ses": image.ses,
        "datatype": image.datatype,
        "suffix": image.suffix,
        **{entity: image.entities.get(entity) for entity in ENTITIES},
        "extra_entities": dict(image.extra_entities) or None,
        "path": image.path,
        "size": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
        "nifti": {"bytes": data, "path": image.path.split("/")[-1]} if image.kind == "image" else None,
        "content": data if image.kind == "recording" else None,
        **{name: getattr(image, name) for name in DESCRIPTIONS},
    }


def seen(row: dict[str, object]) -> dict[str, object]:
    """A row as a reader gave it; JSON text is compared by what it says."""
    extra = row["extra_entities"]
    return row | {"extra_entities": json.loads(extra) if isinstance(extra, str) else None}


def with_pyarrow(file: Path) -> list[dict[str, Any]]:
    return pq.read_table(file).to_pylist()


def with_pyarrow_dataset(file: Path) -> list[dict[str, Any]]:
    return pyarrow.dataset.dataset(file).to_table().to_pylist()


def with_duckdb(file: Path) -> list[dict[str, Any]]:
    return duckdb.sql(f"select * from '{file}'").to_arrow_table().to_pylist()


def with_polars(file: Path) -> list[dict[str, Any]]:
    return polars.read_parquet(file).to_dicts()


def with_polars_lazily(file: Path) -> list[dict[str, Any]]:
    return polars.scan_parquet(file).collect(engine="streaming").to_dicts()


def with_fastparquet(file: Path) -> list[dict[str, Any]]:
    frame = fastparquet.ParquetFile(str(file)).to_pandas()
    # fastparquet takes structs apart, puts them last, and has NaN for null
    rows = [
        {name: None if isinstance(value, float) and np.isnan(value) else value for name, value in row.items()}
        for row in frame.to_dict("records")
    ]
    return [{name: _struct(row) if name == "nifti" else row[name] for name in COLUMNS} for row in rows]


def _struct(row: dict[str, Any]) -> dict[str, Any] | None:
    """The image of a row, as other readers give it."""
    return {"bytes": row["nifti.bytes"], "path": row["nifti.path"]} if row["nifti.path"] is not None else None


def with_datasets(file: Path, **options: object) -> list[dict[str, Any]]:
    loaded = datasets.load_dataset(
        "parquet", data_files=str(file), split="train", cache_dir=str(file.parent / "cache"), **options
    )
    return list(loaded.cast_column("nifti", datasets.Nifti(decode=False)))


def with_datasets_streaming(file: Path) -> list[dict[str, Any]]:
    return with_datasets(file, streaming=True)


@pytest.mark.parametrize(
    "read",
    [
        with_pyarrow,
        with_pyarrow_dataset,
        with_duckdb,
        with_polars,
        with_polars_lazily,
        with_fastparquet,
        with_datasets,
        with_datasets_streaming,
    ],
)
@pytest.mark.parametrize("made", [session, recordings])
def test_every_reader_sees_every_row_null_and_byte(
    tmp_path: Path, read: Any, made: Callable[[Path], ShardSpec]
) -> None:
    spec = made(tmp_path / "bids")
    receipt = stage(spec, tmp_path / "bids", Staging(tmp_path / "staging"))
    rows = read(tmp_path / "staging" / receipt.file)
    assert [list(row) for row in rows] == [list(COLUMNS)] * len(spec.images)
    assert [seen(row) for row in rows] == [
        expected(image, (tmp_path / "bids" / image.path).read_bytes()) for image in spec.images
    ]


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A staged session."""
    folder = tmp_path_factory.mktemp("session")
    receipt = stage(session(folder / "bids"), folder / "bids", Staging(folder / "staging"))
    return folder / "staging" / receipt.file


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(("suffix", "count"), [("bold", 3), ("T1w", 1), ("mask", 1)])
def test_datasets_loads_a_config_of_one_suffix(shard: Path, streaming: bool, suffix: str, count: int) -> None:
    rows = with_datasets(shard, streaming=streaming, filters=[[("suffix", "==", suffix)]])
    assert [row["suffix"] for row in rows] == [suffix] * count


def test_nibabel_decodes_every_image(shard: Path) -> None:
    for row in with_pyarrow(shard):
        data = row["nifti"]["bytes"]
        kind = nibabel.Nifti2Image if row["suffix"] == "dwi" else nibabel.Nifti1Image
        image = kind.from_bytes(gzip.decompress(data) if row["nifti"]["path"].endswith(".gz") else data)
        assert image.shape == ((4, 5, 6, 3) if row["suffix"] == "bold" else (4, 5, 6))
        assert 300 < np.asanyarray(image.dataobj).mean() < 700  # the byte order was not lost


def test_datasets_decodes_images_in_streaming(shard: Path) -> None:
    # datasets 5.2.0 decodes NIfTI-1 only
    first = [[("suffix", "!=", "dwi")]]
    loaded = datasets.load_dataset("parquet", data_files=str(shard), split="train", streaming=True, filters=first)
    images = [row["nifti"] for row in loaded]
    assert [image.shape for image in images] == [(4, 5, 6)] * 2 + [(4, 5, 6, 3)] * 3 + [(4, 5, 6)]
    assert all(isinstance(image, nibabel.Nifti1Image) for image in images)


def test_the_arrow_schema_and_the_features_are_in_the_file(shard: Path) -> None:
    assert pq.read_schema(shard).equals(ARROW_SCHEMA, check_metadata=True)
    assert ARROW_SCHEMA.names == list(COLUMNS)
    features = datasets.Features.from_arrow_schema(pq.read_schema(shard))
    assert features["nifti"] == datasets.Nifti()
    assert features["size"] == datasets.Value("int64")
    assert features["content"] == datasets.Value("binary")
    texts = [name for name in COLUMNS if name not in ("nifti", "content", "size")]
    assert [features[name] for name in texts] == [datasets.Value("string")] * len(texts)
    # written out by us, and the same as datasets would write today
    assert features.arrow_schema == ARROW_SCHEMA
    assert json.loads(features.arrow_schema.metadata[b"huggingface"]) == json.loads(str(WRITER_SETTINGS["huggingface"]))


def test_nothing_in_the_file_names_a_library_or_its_version(shard: Path) -> None:
    metadata = pq.read_metadata(shard)
    assert metadata.created_by == "bids-push"
    assert list(metadata.metadata) == [b"huggingface"]
    assert pa.__version__.encode() not in shard.read_bytes()


def test_the_writers_settings_are_json() -> None:
    assert json.loads(json.dumps(WRITER_SETTINGS)) == WRITER_SETTINGS


def groups_of(file: Path) -> list[pq.RowGroupMetaData]:
    metadata = pq.read_metadata(file)
    return [metadata.row_group(number) for number in range(metadata.num_row_groups)]


def test_each_row_group_holds_one_dataset_datatype_and_suffix(shard: Path) -> None:
    suffixes = [pq.ParquetFile(shard).read_row_group(number, columns=["suffix"])["suffix"].to_pylist()
                for number in range(len(groups_of(shard)))]  # fmt: skip
    assert suffixes == [["FLAIR"], ["T1w"], ["dwi"], ["bold"] * 3, ["mask"]]


def test_a_reader_of_one_suffix_prunes_the_other_row_groups(shard: Path) -> None:
    fragment = next(iter(pyarrow.dataset.dataset(shard).get_fragments()))
    field = pyarrow.dataset.field

    def kept(wanted: pyarrow.dataset.Expression) -> list[int]:
        return [group.id for piece in fragment.split_by_row_group(wanted) for group in piece.row_groups]

    assert kept(field("suffix") == "T1w") == [1]
    assert kept((field("datatype") == "anat") & (field("dataset") == "raw")) == [0, 1]
    assert kept(field("task") == "rest") == [3]
    assert kept(field("label").is_valid()) == [4]
    assert kept(field("size") > 10**9) == []
    assert kept(field("suffix") == "sbref") == []


def test_the_bytes_have_no_statistics_and_no_codec(shard: Path) -> None:
    for group in groups_of(shard):
        for column in (group.column(number) for number in range(group.num_columns)):
            assert column.compression == "UNCOMPRESSED"
            assert not column.has_dictionary_page
            assert column.has_offset_index
            if column.path_in_schema == "nifti.bytes":
                assert column.statistics is None
            else:
                nulls = column.statistics.null_count
                assert nulls + column.statistics.num_values == group.num_rows


#: Sizes of sessions of ds004884, in bytes; its bold and dwi, here short, are 20 to 300 MB.
SESSIONS = {
    "sub-M2119": {"T1w": 4333654, "T2w": 4086956, "bold": 10098339, "dwi": 20784090, "sbref": 2701426},
    "sub-M2075": {"T1w": 3890658, "T2w": 4091338, "bold": 10430062, "dwi": 18839261},
    "sub-M2086": {"FLAIR": 5077818, "T1w": 4214047, "T2w": 4111770, "bold": 29085670},
    "sub-M2201": {"FLAIR": 19852491, "T1w": 4830897, "T2w": 4237004, "bold": 10876815},
    "sub-M2001": {"bold": 31489719, "dwi": 18643972},
}
DATATYPES = {"bold": "func", "sbref": "dwi", "dwi": "dwi"}


@pytest.fixture(scope="module")
def remote(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Shards of `SESSIONS` on a file system that counts."""
    root = tmp_path_factory.mktemp("remote")
    staging = Staging(root / "staging")
    urls = []
    for sub, sizes in SESSIONS.items():
        paths = sorted((f"{sub}/{DATATYPES.get(suffix, 'anat')}/{sub}_{suffix}.nii", suffix) for suffix in sizes)
        images = [sparse(root, path, sizes[suffix]) for path, suffix in paths]
        urls.append(f"counted://{root}/staging/{stage(spec_of(*images, name=sub), root, staging).file}")
    return urls


def fetched_by(urls: list[str], **options: object) -> tuple[int, int]:
    """The rows that `datasets` streams, and the bytes that it fetches for them."""
    loaded = datasets.load_dataset("parquet", data_files=urls, split="train", streaming=True, **options)
    if "nifti" in loaded.features:
        loaded = loaded.cast_column("nifti", datasets.Nifti(decode=False))
    counted.fetched.clear()
    return sum(1 for _ in loaded), counted.fetched_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["T1w", "T2w", "bold", "dwi", "sbref", "FLAIR"])
def test_streaming_one_suffix_fetches_less_than_twice_the_bytes_of_its_images(remote: list[str], suffix: str) -> None:
    sizes = [session[suffix] for session in SESSIONS.values() if suffix in session]
    rows, fetched = fetched_by(remote, filters=[[("suffix", "==", suffix)]])
    assert rows == len(sizes)
    assert sum(sizes) < fetched < 2 * sum(sizes)


def test_streaming_everything_but_the_images_fetches_none_of_them(remote: list[str]) -> None:
    rows, fetched = fetched_by(remote, columns=[name for name in COLUMNS if name != "nifti"])
    assert rows == sum(map(len, SESSIONS.values()))
    assert fetched < 500_000


@pytest.mark.parametrize(
    ("sizes", "groups"),
    [
        ([1], [1]),
        ([64, 64], [2]),
        ([64, 64, 1], [2, 1]),
        ([300, 60, 60, 60, 300], [1, 2, 1, 1]),
        ([129, 129], [1, 1]),
    ],
)
def test_a_row_group_ends_where_its_images_would_be_over_128_mib(sizes: list[int], groups: list[int]) -> None:
    images = [Image(f"{size}.nii", size * MIB, 0, "raw", "1", None, "func", "bold") for size in sizes]
    cut = list(row_groups(images))
    assert [len(group) for group in cut] == groups
    assert [image for group in cut for image in group] == images


def test_sidecars_and_tables_share_a_row_group_and_files_of_other_formats_have_their_own() -> None:
    kinds: list[Kind] = ["image", "recording", "sidecar", "sidecar", "table", "other", "other"]
    files = [Image(f"{number}", 1, 0, "raw", "1", None, "func", f"s{number}", kind=kind)
             for number, kind in enumerate(kinds)]  # fmt: skip
    assert [[file.kind for file in group] for group in row_groups(files)] == [
        ["image"], ["recording"], ["sidecar", "sidecar", "table"], ["other", "other"],
    ]  # fmt: skip


@pytest.mark.slow
def test_at_a_real_size_every_image_has_a_page_and_every_row_group_is_one_the_viewer_takes(tmp_path: Path) -> None:
    sizes = [60, 60, 120, 270, 60]
    images = [sparse(tmp_path, f"sub-1/func/sub-1_run-{run}_bold.nii", size * MIB) for run, size in enumerate(sizes)]
    receipt = stage(spec_of(*images), tmp_path, Staging(tmp_path / "staging"))
    file = tmp_path / "staging" / receipt.file
    assert [group.num_rows for group in groups_of(file)] == [2, 1, 1, 1]
    assert all(group.total_byte_size < VIEWER_LIMIT for group in groups_of(file))
    assert receipt.size - sum(image.size for image in images) < 100_000
    lengths = duckdb.sql(f"select path, octet_length(nifti.bytes) from '{file}'").fetchall()
    assert lengths == [(image.path, image.size) for image in images]
    # one by one, which is how `datasets` reads them
    for batch, content in zip(pq.ParquetFile(file).iter_batches(1, columns=["nifti"]), receipt.images, strict=True):
        assert hashlib.sha256(batch["nifti"].field("bytes")[0].as_buffer()).hexdigest() == content.sha256


def test_an_image_that_no_page_can_hold_is_never_begun(tmp_path: Path) -> None:
    refused = pytest.raises(ValueError, match="does not fit into a page")
    with (tmp_path / "shard").open("wb") as stream, refused:
        writer = ShardWriter(stream)
        writer.begin_file(LARGEST_FILE + 1, "image")
    assert writer.size == 4


class FullForAMoment(io.FileIO):
    """A file that takes one write less than it is given."""

    refused = False

    def write(self, data: Any) -> int:  # type: ignore[override]
        if not self.refused and len(data) == 9:
            self.refused = True
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(data)


def test_one_write_that_failed_fails_the_shard_even_if_later_ones_do_not(tmp_path: Path) -> None:
    failed = pytest.raises(OSError, match="No space left")
    with failed, FullForAMoment(tmp_path / "shard", "wb") as stream:
        writer = ShardWriter(stream)
        writer.begin_file(9, "image")
        writer.write(b"nine here")
        writer.end_row_group(0, [row_of(Image("a.nii", 9, 0, "raw", None, None, None, "T1w"), "0" * 64)])
        writer.close()


def test_rows_and_images_that_do_not_agree_are_never_written(tmp_path: Path) -> None:
    with (tmp_path / "shard").open("wb") as stream:
        writer = ShardWriter(stream)
        writer.begin_file(10, "image")
        writer.write(b"only nine")
        image = Image("a.nii", 10, 0, "raw", None, None, None, "T1w")
        with pytest.raises(ValueError, match="do not agree"):
            writer.end_row_group(0, [row_of(image, "0" * 64)])


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=300) | st.text("ab", min_size=0).map(lambda t: t * 99)
MAYBE = st.none() | TEXT


@st.composite
def _image(draw: st.DrawFn) -> tuple[Image, bytes]:
    data = draw(st.binary(min_size=1, max_size=2000))
    image = Image(
        path=draw(TEXT),
        size=len(data),
        mtime_ns=0,
        dataset=draw(TEXT),
        sub=draw(MAYBE),
        ses=draw(MAYBE),
        datatype=draw(st.sampled_from([None, "anat", "func"])),
        suffix=draw(st.sampled_from(["T1w", "bold", ""])),
        entities=draw(st.dictionaries(st.sampled_from(ENTITIES), TEXT)),
        extra_entities=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
        **{name: draw(MAYBE) for name in ("metadata", "bval", "bvec", "events", "participant", "session", "scan")},  # type: ignore[arg-type]
    )
    return image, data


def require_true_bounds(file: Path) -> None:
    """The smallest and largest value in the footer are those of the column chunk."""
    for number, group in enumerate(groups_of(file)):
        table = pq.ParquetFile(file).read_row_group(number)
        for column in (group.column(index) for index in range(group.num_columns)):
            if column.statistics is not None and column.statistics.has_min_max:
                values = [value for value in table[column.path_in_schema].to_pylist() if value is not None]
                values.sort(key=lambda value: value.encode() if isinstance(value, str) else value)
                assert (column.statistics.min, column.statistics.max) == (values[0], values[-1])


@pytest.mark.slow
@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(images=st.lists(_image(), min_size=1, max_size=12))
def test_whatever_is_put_in_is_read_back(tmp_path: Path, images: Any) -> None:
    file = tmp_path / "any.parquet"
    data = {id(image): content for image, content in images}
    with file.open("wb") as stream:
        writer = ShardWriter(stream)
        groups = list(row_groups(image for image, _ in images))
        for number in writing_order(groups):
            for image in groups[number]:
                writer.begin_file(image.size, image.kind)
                writer.write(data[id(image)])
            digests = [hashlib.sha256(data[id(image)]).hexdigest() for image in groups[number]]
            writer.end_row_group(number, list(map(row_of, groups[number], digests)))
        writer.close()
    assert hashlib.sha256(file.read_bytes()).hexdigest() == writer.sha256
    table = pq.read_table(file)
    table.validate(full=True)
    rows = [expected(image, content) for image, content in images]
    assert [seen(row) for row in table.to_pylist()] == rows
    for suffix in ("T1w", "bold", ""):  # the statistics never hide a row
        wanted = [row["path"] for row in rows if row["suffix"] == suffix]
        assert pq.read_table(file, filters=[("suffix", "==", suffix)])["path"].to_pylist() == wanted
    require_true_bounds(file)
    for row in rows[:3]:
        found = pq.read_table(file, filters=[("path", "==", row["path"])])["path"].to_pylist()
        assert found == [other["path"] for other in rows if other["path"] == row["path"]]
