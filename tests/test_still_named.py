"""Which texts still name a subject whose shards are withdrawn, and which subjects count as withdrawn."""

import pytest

from tasks.record.still_named import still_named, subjects_gone, subjects_of
from tests.test_published import spec


@pytest.mark.parametrize(
    ("shards", "subjects"),
    [
        ([], ()),
        (["data/sub-2/sub-2_ses-b.parquet", "data/sub-1/sub-1.parquet", "data/sub-2/sub-2_ses-a.parquet"],
         ("sub-1", "sub-2")),
        (["data/group-raw/group-raw.parquet"], ("group-raw",)),
    ],
)  # fmt: skip
def test_a_shard_is_its_subjects(shards: list[str], subjects: tuple[str, ...]) -> None:
    assert subjects_of(shards) == subjects


def test_a_subject_with_another_shard_in_the_dataset_is_not_withdrawn_and_a_group_is_no_subject() -> None:
    gone = ["data/sub-1/sub-1.parquet", "data/sub-2/sub-2_ses-a.parquet", "data/group-raw/group-raw.parquet"]
    left = spec("sub-2")
    assert left.path == "data/sub-2/sub-2.parquet"
    assert subjects_gone(gone, [left]) == {"sub-1"}
    assert subjects_gone(gone, []) == {"sub-1", "sub-2"} and subjects_gone([], [left]) == frozenset()


TABLE = "participant_id\tage\nsub-01\t30\nsub-02\t31\n"


@pytest.mark.parametrize(
    ("path", "text", "named"),
    [
        pytest.param("bids/participants.tsv", TABLE, ("sub-02",), id="a row"),
        pytest.param("bids/participants.tsv", TABLE.replace("sub-", ""), ("sub-02",), id="a row without sub-"),
        pytest.param("bids/participants.tsv", TABLE.replace("sub-02", " 02 "), ("sub-02",), id="a row with spaces"),
        pytest.param("bids/phenotype/SCORES.TSV", "participant_id\tx\n02\t1\n05\t1\n", ("sub-02", "sub-05"), id="two"),
        pytest.param("bids/phenotype/x.tsv", "x\tparticipant_id\n1\t02\n", (), id="another first column"),
        pytest.param("bids/phenotype/x.tsv", "x\ty\n02\t05\n", (), id="numbers that are no labels"),
        pytest.param("bids/x.tsv", "x\ty\n1\tsub-02/anat/x.nii.gz\n", ("sub-02",), id="a path in any table"),
        pytest.param("bids/README", "Of sub-02's scan, see CHANGES.", ("sub-02",), id="the label in a text"),
        pytest.param("bids/x.json", '{"participant_id": "02"}', (), id="no table"),
        pytest.param("bids/scores", "participant_id\tx\n02\t1\n", ("sub-02",), id="a table of any name"),
        pytest.param("bids/README", "sub-021, sub-0, xsub-02, SUB-02", (), id="other labels"),
        pytest.param("bids/participants.tsv", "participant_id\tage\nsub-01\t30\n", (), id="others alone"),
        pytest.param("bids/participants.tsv", "participant_id\tage\nn/a\t30\n\t1\n", (), id="a row of nobody"),
        pytest.param("bids/participants.tsv", "participant_id\tage\n", (), id="no row"),
        pytest.param("bids/participants.tsv", "a\ta\nsub-02\t1\n", ("sub-02",), id="a damaged table"),
        pytest.param("bids/participants.tsv", "", (), id="nothing"),
    ],
)
def test_a_text_names_a_subject_by_a_row_or_by_the_whole_label(path: str, text: str, named: tuple[str, ...]) -> None:
    for encoding in ("utf-8", "utf-16"):
        found = still_named({"sub-02", "sub-05"}, {path: text.encode(encoding)})
        assert found == ({path: named} if named else {})


def test_files_that_are_no_texts_name_nobody_and_nobody_is_looked_for_if_nobody_is_gone() -> None:
    table = {"tables/participants.parquet": b"PAR1\0\xff\0sub-02\0\0\1", "bids/participants.tsv": TABLE.encode()}
    assert still_named(frozenset({"sub-02"}), table) == {"bids/participants.tsv": ("sub-02",)}
    assert still_named(frozenset(), table) == {}


def test_the_table_of_what_is_left_out_is_made_by_a_push_and_nobody_can_take_a_name_out_of_it() -> None:
    assert still_named({"sub-02"}, {"bids/left_out.tsv": b"sub-02/anat/sub-02_T1w.nii.gz\t1\tnamed"}) == {}
