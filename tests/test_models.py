from hypothesis import given
from hypothesis import strategies as st

from tasks.models import DatasetIdentity, ImageContent, PublicationRecord, PublishedShard, PublishedText

digests = st.text("0123456789abcdef", min_size=64, max_size=64)
paths = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)
contents = st.builds(ImageContent, path=paths, size=st.integers(0, 2**40), sha256=digests)
lines = st.builds(
    PublishedShard,
    path=paths,
    digest=digests,
    sha256=digests,
    size=st.integers(0, 2**40),
    rows=st.integers(0, 10**6),
    images=st.lists(contents, max_size=4).map(tuple),
)
texts = st.builds(PublishedText, path=paths, size=st.integers(0, 2**30), sha256=digests)
counts = st.integers(0, 2**50)
identities = st.builds(DatasetIdentity, name=paths, doi=paths, subjects=counts, images=counts, size=counts)
records = st.builds(
    lambda shards, texts, dataset: PublicationRecord().updated(shards, texts=texts, dataset=dataset),
    st.lists(lines, max_size=6),
    st.lists(texts, max_size=3),
    st.none() | identities,
)


@given(records)
def test_a_record_reads_back_as_it_was_written_and_is_written_the_same(record: PublicationRecord) -> None:
    read, damaged = PublicationRecord.read(record.dump(), record.dump_index())
    assert (read, damaged) == (record, ())
    assert (read.dump(), read.dump_index()) == (record.dump(), record.dump_index())


@given(records, st.lists(lines, max_size=3))
def test_adding_lines_keeps_all_the_others(record: PublicationRecord, added: list[PublishedShard]) -> None:
    after = record.updated(added)
    last = {shard.path: shard for shard in added}
    assert after.shards == {**record.shards, **last}


def test_a_damaged_line_costs_its_own_shard_only_and_is_reported() -> None:
    shards = [
        PublishedShard(path=f"data/{name}.parquet", digest="a" * 64, sha256="b" * 64, size=1, rows=1, images=())
        for name in "abc"
    ]
    text = PublicationRecord().updated(shards).dump().splitlines(keepends=True)
    read, damaged = PublicationRecord.read(text[0] + text[1][:40] + b"\n" + text[2])
    assert sorted(read.shards) == ["data/a.parquet", "data/c.parquet"]
    assert len(damaged) == 1 and damaged[0].startswith("line 2:")


def test_a_damaged_index_costs_no_shard_and_is_reported() -> None:
    shard = PublishedShard(path="data/a.parquet", digest="a" * 64, sha256="b" * 64, size=1, rows=1, images=())
    read, damaged = PublicationRecord.read(PublicationRecord().updated([shard]).dump(), b'{"texts": [')
    assert read == PublicationRecord().updated([shard])
    assert len(damaged) == 1 and damaged[0].startswith("index:")
