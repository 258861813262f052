"""The record survives a round, and whatever somebody makes of its lines: data, reported, and no order."""

import hashlib
import json
import tracemalloc
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.record.record_files import files_to_write
from tasks.values.models import (
    LAYOUT_VERSION,
    MOST_DAMAGED,
    RECORD,
    WITHOUT_INDEX,
    DatasetIdentity,
    Identity,
    ImageContent,
    ListedFile,
    PublicationRecord,
    PublishedShard,
    PublishedText,
    Receipt,
)
from tasks.values.our_paths import is_shard, is_text

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
contents = st.builds(ImageContent, path=paths, size=st.integers(0, 2**40), sha256=digests)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,20}", fullmatch=True)
lines = st.builds(
    PublishedShard,
    path=st.builds("data/{}/{}.parquet".format, names, names),
    digest=digests,
    sha256=digests,
    size=st.integers(0, 2**40),
    rows=st.integers(0, 10**6),
    images=st.lists(contents, max_size=4).map(tuple),
)
texts = st.builds(PublishedText, path=st.builds("bids/{}".format, names), size=st.integers(0, 2**30), sha256=digests)
counts = st.integers(0, 2**50)
identities = st.builds(DatasetIdentity, name=paths, doi=paths, subjects=counts, images=counts, size=counts)
records = st.builds(
    lambda shards, texts, dataset: PublicationRecord().updated(shards, texts=texts, dataset=dataset),
    st.lists(lines, max_size=6),
    st.lists(texts, max_size=3),
    st.none() | identities,
)


def apart_from_files(record: PublicationRecord) -> PublicationRecord:
    """A record without a word about the files that it was read from."""
    return record.model_copy(update={"files": (), "vouched": True, "edited": False})


def written(record: PublicationRecord) -> tuple[bytes, bytes]:
    """The lines and the index of a record, as a commit that writes all of it anew has them."""
    made = files_to_write(PublicationRecord(), record, (), anew=True)
    return made.written[RECORD], made.record.dump_index()


@pytest.mark.slow
@given(records)
def test_a_record_reads_back_as_it_was_written_and_is_written_the_same(record: PublicationRecord) -> None:
    read, damaged = PublicationRecord.read(*written(record))
    assert (apart_from_files(read), damaged, read.edited) == (record, (), False)
    assert (read.dump(), read.dump_index()) == written(record) == written(read)


@pytest.mark.slow
@given(records, st.lists(lines, max_size=3))
def test_adding_lines_keeps_all_the_others(record: PublicationRecord, added: list[PublishedShard]) -> None:
    after = record.updated(added)
    last = {shard.path: shard for shard in added}
    assert after.shards == {**record.shards, **last}


def test_a_damaged_line_costs_its_own_shard_only_and_is_reported() -> None:
    shards = [
        PublishedShard(path=f"data/{name}/{name}.parquet", digest="a" * 64, sha256="b" * 64, size=1, rows=1, images=())
        for name in "abc"
    ]
    text = PublicationRecord().updated(shards).dump().splitlines(keepends=True)
    read, damaged = PublicationRecord.read(text[0] + text[1][:40] + b"\n" + text[2])
    assert sorted(read.shards) == ["data/a/a.parquet", "data/c/c.parquet"]
    assert damaged == ("line 2: it is that of data/b/b.parquet, and cannot be read; it is written anew",)


def test_a_damaged_index_costs_no_shard_and_is_reported() -> None:
    shard = PublishedShard(path="data/a/a.parquet", digest="a" * 64, sha256="b" * 64, size=1, rows=1, images=())
    read, damaged = PublicationRecord.read(PublicationRecord().updated([shard]).dump(), b'{"texts": [')
    assert apart_from_files(read) == PublicationRecord().updated([shard]) and read.edited
    assert damaged == ("index: it cannot be read, and is written anew",)


@pytest.mark.parametrize(
    ("index", "layout"),
    [
        pytest.param(b'{"layout": 1, "texts": []}', 1, id="older"),
        pytest.param(b'{"layout": 3, "texts": {"by": "path"}}', 3, id="newer, with fields of another shape"),
        pytest.param(b'\xef\xbb\xbf{"layout": 3}', 3, id="newer, with a byte order mark"),
        pytest.param(b'{"layout": "3"}', LAYOUT_VERSION, id="damaged"),
        pytest.param(b"{", LAYOUT_VERSION, id="no JSON"),
        pytest.param(b"", WITHOUT_INDEX, id="none, as early versions left it"),
    ],
)
def test_the_layout_is_read_whatever_else_the_index_holds(index: bytes, layout: int) -> None:
    shard = PublishedShard(path="data/a/a.parquet", digest="a" * 64, sha256="b" * 64, size=1, rows=1, images=())
    record, _ = PublicationRecord.read(PublicationRecord().updated([shard]).dump(), index)
    assert record.layout == layout and sorted(record.shards) == [shard.path]
    assert PublicationRecord.read(record.dump(), record.dump_index())[0].layout == layout
    assert record.updated(remove=["bids/README"]).layout == layout  # no shard is written
    assert record.updated([shard]).layout == LAYOUT_VERSION


def test_a_repo_with_nothing_in_it_has_our_layout() -> None:
    assert PublicationRecord.read(b"")[0].layout == LAYOUT_VERSION


LINE = {"path": "data/a/a.parquet", "digest": "a" * 64, "sha256": "b" * 64, "size": 5, "rows": 1, "images": []}


def line(**changed: object) -> bytes:
    return json.dumps(LINE | changed).encode() + b"\n"


def listed(*files: ListedFile) -> Callable[[object], dict[str, ListedFile]]:
    return lambda paths: {file.path: file for file in files}


@pytest.mark.parametrize(
    "path",
    ["README.md", "../x.parquet", "/data/a/a.parquet", "data/x.parquet", "models/a/a.parquet", "data/a/a\n.parquet",
     "data/../../a.parquet", "bids/shards.jsonl", "", "data/a/\u0000.parquet"],
)  # fmt: skip
def test_a_line_for_a_path_that_is_none_of_ours_counts_for_nothing_and_is_reported(path: str) -> None:
    read, damaged = PublicationRecord.read(line(path=path) + line())
    assert sorted(read.shards) == ["data/a/a.parquet"]
    assert damaged == ("line 1: no shard has such a path",)


@pytest.mark.parametrize(
    "path", ["README.md", "../x", "bids/shards.jsonl", "bids/record/index.json", "data/a/a.parquet"]
)
def test_a_text_that_is_none_of_ours_counts_for_nothing_and_is_reported(path: str) -> None:
    texts = [{"path": one, "size": 1, "sha256": "c" * 64} for one in (path, "bids/README")]
    read, damaged = PublicationRecord.read(line(), json.dumps({"texts": texts}).encode())
    assert sorted(read.texts) == ["bids/README"] and sorted(read.shards) == ["data/a/a.parquet"]
    assert len(damaged) == 1 and damaged[0].startswith("index: 1 of its texts")


@pytest.mark.parametrize("held", [0, 1, 2])
def test_of_lines_for_one_shard_the_one_counts_that_the_repo_holds(held: int) -> None:
    shas = [digit * 64 for digit in "123"]
    text = b"".join(line(sha256=sha) for sha in shas)
    read, damaged = PublicationRecord.read(text, b"", listed(ListedFile("data/a/a.parquet", 5, shas[held])))
    assert read.shards["data/a/a.parquet"].sha256 == shas[held]
    assert [one.split(":")[0] for one in damaged] == ["line 2", "line 3"]


def test_of_lines_for_one_shard_that_the_repo_holds_otherwise_or_not_the_last_counts() -> None:
    text = line(sha256="1" * 64) + line(sha256="2" * 64)
    for files in (listed(), listed(ListedFile("data/a/a.parquet", 6, "1" * 64))):
        read, damaged = PublicationRecord.read(text, b"", files)
        assert read.shards["data/a/a.parquet"].sha256 == "2" * 64 and len(damaged) == 1


@pytest.mark.parametrize(
    "text",
    [line().replace(b"5", b"NaN"), line(size=1e300), line(size=True), line(size="5"), line(size=5.0), line(size=-1),
     line(size=10**30), line().replace(b"5", b"9" * 10_000), line(sha256="B" * 64), line(images=[1] * 100_000),
     line(images={}), line(path=["data/a/a.parquet"]), b"[" * 1_000_000, b'{"a":' * 1_000_000, b"null\n", b"[]\n",
     line().replace(b"data/a", b"\\ud800/a"), line().replace(b"data/a", b"\xff/a"), b"\0" * 1000, b"x" * 10_000_000],
    ids=range(20),
)  # fmt: skip
def test_a_line_that_is_none_is_reported_in_one_short_sentence(text: bytes) -> None:
    good = line(path="data/b/b.parquet")
    read, damaged = PublicationRecord.read(text.rstrip(b"\n") + b"\n" + good)
    assert sorted(read.shards) == ["data/b/b.parquet"]
    assert len(damaged) == 1 and damaged[0].startswith("line 1: ") and len(damaged[0]) < 200


@pytest.mark.parametrize(
    "index", [b"[]", b"null", b"3", b'"x"', b"\xff", b"{", b'{"texts": 3}', b'{"layout": NaN}', b"[" * 10**6]
)
def test_an_index_that_is_no_object_costs_no_shard_and_is_reported(index: bytes) -> None:
    read, damaged = PublicationRecord.read(line(), index)
    assert sorted(read.shards) == ["data/a/a.parquet"] and not read.texts and read.dataset is None
    assert len(damaged) == 1 and damaged[0].startswith("index: ")


def test_a_mark_and_line_ends_of_another_system_are_no_damage() -> None:
    text = b"\xef\xbb\xbf" + line().replace(b"\n", b"\r\n") + b"\r\n" + line(path="data/b/b.parquet").rstrip()
    read, damaged = PublicationRecord.read(text, b'\xef\xbb\xbf{"texts": []}\r\n')
    assert sorted(read.shards) == ["data/a/a.parquet", "data/b/b.parquet"] and damaged == ()


@pytest.mark.parametrize(
    ("text", "edited"),
    [
        pytest.param(line(), False, id="as it was written"),
        pytest.param(line() + line(path="data/b/b.parquet"), True, id="a line more"),
        pytest.param(line(digest="c" * 64), True, id="another value"),
        pytest.param(line().replace(b": ", b":"), True, id="another spelling"),
        pytest.param(b"", True, id="emptied, or taken away"),
    ],
)
def test_lines_that_are_not_those_of_the_index_were_edited_and_are_told(text: bytes, edited: bool) -> None:
    _, index = written(PublicationRecord.read(line())[0])
    index = index.replace(hashlib.sha256(PublicationRecord.read(line())[0].dump()).hexdigest().encode(),
                          hashlib.sha256(line()).hexdigest().encode())  # fmt: skip
    read, damaged = PublicationRecord.read(text, index)
    told = ("its lines were edited",) if edited else ()
    assert (read.edited, read.vouched, damaged) == (edited, not edited, told)


def test_an_index_of_an_earlier_version_says_nothing_about_edits() -> None:
    read, damaged = PublicationRecord.read(line(), b'{"layout": 2, "texts": []}')
    assert not read.edited and not read.vouched and not damaged


def test_whoever_changes_a_record_vouches_for_it() -> None:
    shard = PublishedShard(path="data/a/a.parquet", digest="a" * 64, sha256="b" * 64, size=1, rows=1, images=())
    record = PublicationRecord().model_copy(update={"vouched": False, "edited": True})
    for changed in (record.updated(), record.updated([shard])):
        assert changed.vouched and not changed.edited
    assert record.edited and not record.vouched  # the one that was read stays as it is


def test_lines_without_an_index_are_vouched_for_by_nobody() -> None:
    read, damaged = PublicationRecord.read(line())
    assert read.edited and not read.vouched and not damaged
    assert PublicationRecord.read(b"")[0].vouched


def test_a_file_of_another_kind_is_reported_in_a_few_lines() -> None:
    read, damaged = PublicationRecord.read(b"not a record\n" * 50_000)
    assert not read.shards and len(damaged) == MOST_DAMAGED + 1 and damaged[-1] == "and 49,980 more"


@given(st.binary(max_size=300), st.binary(max_size=300))
def test_whatever_the_bytes_are_they_give_a_record_of_ours_that_reads_back(text: bytes, index: bytes) -> None:
    assert_ours(text, index)


@pytest.mark.slow
@given(st.lists(lines, max_size=3), st.data())
def test_whatever_somebody_does_to_the_bytes_of_a_record_it_stays_ours(
    shards: list[PublishedShard], data: st.DataObject
) -> None:
    text = bytearray(PublicationRecord().updated(shards).dump())
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(text)))
        text[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
    assert_ours(bytes(text), b"")


def assert_ours(text: bytes, index: bytes) -> None:
    read, damaged = PublicationRecord.read(text, index)
    assert all(is_shard(path) and path == one.path for path, one in read.shards.items())
    assert all(is_text(path) for path in read.texts) and all(len(one) < 300 for one in damaged)
    again, damaged = PublicationRecord.read(*written(read))
    assert (apart_from_files(again), damaged, again.edited) == (apart_from_files(read), (), False)


# --- what 100,000 shards take ---

MANY = 2000


def line_of(number: int) -> PublishedShard:
    sub = f"sub-{number:06}"
    image = ImageContent(path=f"{sub}/anat/{sub}_T1w.nii.gz", size=800, sha256=f"{number:064x}")
    one = LINE | {"path": f"data/{sub}/{sub}.parquet", "digest": f"{number:064x}", "sha256": f"{number + 1:064x}"}
    return PublishedShard.model_validate(one | {"images": (image,)})


def receipt_of(line: PublishedShard) -> Receipt:
    sub = line.path.split("/")[1]
    identity = Identity(inode=1 << 40, size=5, mtime_ns=1 << 60, ctime_ns=1 << 60)
    file = f"shards/{sub}/{sub}.{line.digest[:12]}.parquet"
    return Receipt(**dict(line), name=sub, file=file, result=f"stage-2-{line.digest}", identity=identity)


def taken(make: Callable[[], object]) -> float:
    """Make `MANY` values, and return the bytes that each takes as long as all of them are there."""
    tracemalloc.start()
    try:
        made = make()
        assert made is not None
        return tracemalloc.get_traced_memory()[0] / MANY
    finally:
        tracemalloc.stop()


def test_a_line_that_is_read_again_is_not_kept_twice_and_one_that_differs_is() -> None:
    record = PublicationRecord().updated(map(line_of, range(MANY)))
    text, index = written(record)
    other = record.with_lines([line_of(1).model_copy(update={"size": 6})])
    found, _ = PublicationRecord.read(text, index, known=other.shards)
    assert found.shards == record.shards
    assert {path for path, one in found.shards.items() if one is not other.shards[path]} == {line_of(1).path}
    alone = taken(lambda: PublicationRecord.read(text, index))
    assert taken(lambda: PublicationRecord.read(text, index, known=record.shards)) < alone / 4


def test_receipts_of_very_many_shards_take_little_and_less_beside_the_lines_of_the_record() -> None:
    lines = [line_of(number) for number in range(MANY)]
    texts = [receipt_of(line).model_dump_json() for line in lines]
    alone = taken(lambda: [Receipt.model_validate_json(text) for text in texts])
    beside = taken(
        lambda: [Receipt.model_validate_json(text).beside(line) for text, line in zip(texts, lines, strict=True)]
    )
    assert beside < 1100 and alone < 2000, (beside, alone)  # bytes a shard


def test_a_receipt_beside_the_line_of_another_shard_is_as_it_was() -> None:
    receipt = receipt_of(line_of(1))
    assert receipt.beside(None) is receipt and receipt.beside(line_of(2)) is receipt
    same = receipt.beside(line_of(1))
    assert same == receipt and same.model_dump_json() == receipt.model_dump_json()
