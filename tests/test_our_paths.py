"""Which paths of a repo are ours: all that a push writes, and nothing that a line of the record may name beside it."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.card import side_files
from tasks.load import load
from tasks.values.models import ShardSpec
from tasks.values.our_paths import is_shard, is_text

FOREIGN = [
    "", "/", ".", "..", "README.md", ".gitattributes", "data", "data/", "data/x.parquet", "data//x.parquet",
    "data/a/b/x.parquet", "data/../bids/x.parquet", "data/../x.parquet", "data/sub-1/..parquet", "data/.a/x.parquet",
    "/data/sub-1/x.parquet", "../data/sub-1/x.parquet", "Data/sub-1/x.parquet", "data/sub-1/x.parquet/",
    "data/sub-1/x.parquet\n", "data/sub-1/x\n.parquet", "data/sub-1/x\u202e.parquet", "data/sub-1/x\0.parquet",
    "data\\sub-1\\x.parquet", "data/sub-1/x.txt", "data/sub-1/.parquet", "other/sub-1/x.parquet",
    "bids", "bids/", "bids/..", "bids/../README.md", "bids/./README", "bids//README", "bids/a/../b", "bids/README/",
    "bids/shards.jsonl", "bids/Shards.JSONL", "bids/record", "bids/record/index.json", "bids/RECORD/index.json",
    "bids/RE\nADME", "bids/x\x7f", "bids/\ud800", "tables", "tables/", "tables/..", "/bids/README", "code/x",
    "pictures/x.png", "bids/" + 5000 * "x",
]  # fmt: skip


@pytest.mark.parametrize("path", FOREIGN)
def test_a_path_that_no_push_writes_is_not_ours(path: str) -> None:
    assert not is_shard(path) and not is_text(path)


@pytest.mark.slow
def test_every_path_that_a_push_writes_is_ours(whole: Path, shards: tuple[ShardSpec, ...]) -> None:
    dataset = load(whole)
    assert side_files(dataset) and all(is_text(path) for path in side_files(dataset))
    assert all(is_shard(spec.path) for spec in shards)
    assert is_text("bids/phenotype/Fragebogen für Ältere (2).tsv") and is_text("tables/participants.parquet")
    assert is_shard("data/sub-01/sub-01_ses-pre-0a1b2c3d.parquet") and is_shard("data/group-raw/group-raw.parquet")


@given(st.text())
def test_no_path_of_ours_leads_out_of_its_folder(path: str) -> None:
    for one in (path, f"data/{path}", f"data/{path}.parquet", f"data/{path}/{path}.parquet", f"bids/{path}"):
        if is_shard(one) or is_text(one):
            assert not Path("/", one).is_relative_to("/..") and ".." not in one.split("/") and one.isprintable()
            assert Path(one).as_posix() == one and one.split("/")[0] in ("data", "bids", "tables")
