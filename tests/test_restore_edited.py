"""A restore from a repo whose record somebody has edited says so, and what to do: it is no dead end for anybody."""

from dataclasses import replace

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from tasks.commit import commit
from tasks.commit.other_files import Besides, as_recorded
from tasks.hub.client import Hub
from tasks.record.remote import INDEX, RECORD, Remote, read_remote
from tasks.restore.edited import edited, last_unedited, way_out
from tasks.restore.wanted import NothingPublished, Subset, wanted
from tasks.values.errors import BadInput
from tasks.values.models import ListedFile, Listing, PublicationRecord
from tests.hub_within import Breakable
from tests.test_restore_parts import remote_of

T1W = "sub-1/ses-a/anat/sub-1_ses-a_T1w.nii.gz"


def test_where_somebody_edited_the_record_a_part_that_it_does_not_name_is_told_with_the_way_out() -> None:
    remote, listing = remote_of(a=[T1W])
    with pytest.raises(BadInput) as told:
        wanted(remote, listing, Subset(subjects=["2"]), "lab/x")
    assert str(told.value).endswith("The nearest one is '1', of 1 subject.")
    by_hand = replace(remote, damaged=("its lines were edited",))
    with pytest.raises(BadInput, match="Somebody has edited the publication record") as told:
        wanted(by_hand, listing, Subset(subjects=["2"]), "lab/x")
    assert "The nearest one is '1'" in str(told.value)
    assert "restore a commit before that, from the repo's list of commits" in str(told.value)


def test_a_repo_without_a_record_is_told_apart_from_one_whose_record_somebody_took_out() -> None:
    _, listing = remote_of(a=[T1W])
    nothing = Remote("commit", PublicationRecord())
    theirs = Listing("commit", {"data/train.parquet": ListedFile("data/train.parquet", 1, None)})
    with pytest.raises(NothingPublished, match="Check the repo's name") as told:
        wanted(nothing, theirs, Subset(), "x")
    assert "somebody" not in str(told.value)
    shards = {path.replace("/a", "/sub-a"): file for path, file in listing.files.items()}
    with pytest.raises(NothingPublished, match="somebody has taken the record out: restore a commit before that"):
        wanted(nothing, Listing("commit", shards), Subset(), "x")


def test_the_last_commit_whose_record_nobody_edited_is_found_below_those_that_somebody_did(
    breakable: Breakable, counted: Hub
) -> None:
    counted.prepare(private=True)
    texts = {"bids/README": b"mine"}
    card = "---\nlicense: cc0-1.0\n---\n"
    first = commit(counted, read_remote(counted), [], [], Besides(lambda *_: card, texts, as_recorded(texts))).commit
    head = first
    for by_hand in (CommitOperationAdd(INDEX, b"{"), CommitOperationAdd(RECORD, b"{"), CommitOperationDelete(INDEX)):
        head = counted.commit([by_hand], "By hand", head)
    remote = read_remote(counted)
    assert edited(remote) and last_unedited.fn(counted, head) == first
    assert f"restore commit {first}, by giving it as the revision" in way_out(remote, first)
    assert last_unedited.fn(counted, first) == ""  # below it, nothing was published
    breakable.break_on({"fault": "status", "status": 404, "path": "/commits/", "times": -1})
    assert last_unedited.fn(counted, head) == ""
