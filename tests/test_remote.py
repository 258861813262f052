"""What a target holds, as a run reads it when it begins: repo, record, and texts that somebody else has edited."""

import hashlib

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from tasks.hub.client import Hub
from tasks.hub.errors import RepoIsPublic
from tasks.record.published import Drift
from tasks.record.remote import (
    CARD,
    INDEX,
    RECORD,
    NewerLayout,
    Remote,
    find_edited,
    read_remote,
    read_target,
    read_target_again,
)
from tasks.values.models import HASHED_FOLDERS, LAYOUT_VERSION, Listing, PublicationRecord, PublishedText, RecordIndex

NOTHING = (Remote("", PublicationRecord()), Listing("", {}))


def read(hub: Hub, write: bool = True, make: bool = True, private: bool = True) -> tuple[Remote, Listing]:
    return read_target.fn(hub, write, make, private)


def test_a_target_that_is_not_there_holds_nothing_and_is_made_only_if_that_is_asked_for(counted: Hub) -> None:
    assert read(counted, make=False) == NOTHING == read(counted, write=False)
    assert not counted.exists()
    remote, listing = read(counted)
    assert remote.commit == listing.commit == counted.head() and listing.files.keys() == {".gitattributes"}
    assert remote == Remote(counted.head(), PublicationRecord()) and read(counted, write=False) == (remote, listing)


def test_a_run_that_publishes_looks_how_the_repo_is_set_up_and_one_that_only_reads_does_not(counted: Hub) -> None:
    read(counted, private=False)
    with pytest.raises(RepoIsPublic):
        read(counted, private=True)
    assert read(counted, write=False, private=True)[0].commit == counted.head()


def test_the_card_is_read_as_it_is_and_an_empty_one_is_none(hub: Hub) -> None:
    assert read_remote(hub).card is None
    for data, card in ((b"# Mine\n", "# Mine\n"), (b"", None)):
        commit = hub.commit([CommitOperationAdd(CARD, data)], "By hand", hub.head())
        assert read_remote(hub).card == read_remote(hub, commit).card == card
    before = hub.head()
    hub.commit([CommitOperationAdd(CARD, b"later")], "By hand", before)
    assert read_remote(hub, before).card is None  # as it was at that commit


def test_a_target_that_a_newer_version_has_published_is_left_to_it(hub: Hub) -> None:
    for layout in (LAYOUT_VERSION, HASHED_FOLDERS, HASHED_FOLDERS + 1):
        index = RecordIndex(layout=layout).model_dump_json().encode()
        hub.commit([CommitOperationAdd(RECORD, b""), CommitOperationAdd(INDEX, index)], "By hand", hub.head())
        if layout <= HASHED_FOLDERS:
            assert read(hub)[0].commit == read_target_again.fn(hub)[1].commit == hub.head()
            continue
        with pytest.raises(NewerLayout, match=f"says layout {layout}, and this version knows {HASHED_FOLDERS} at most"):
            read(hub)
        with pytest.raises(NewerLayout, match="no more is sent, and nothing is removed"):
            read_target_again.fn(hub)


def test_a_text_that_somebody_edited_or_took_out_is_told_and_one_that_is_as_published_is_not(hub: Hub) -> None:
    texts = {f"bids/{name}": data for name, data in (("a", b"four"), ("b", b"four"), ("c", b"four"), ("d", b"four"))}
    record = PublicationRecord(
        texts={
            path: PublishedText(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest())
            for path, data in texts.items()
        }
    )
    hub.commit([CommitOperationAdd(path, data) for path, data in texts.items()], "A run", hub.head())
    hub.commit(
        [
            CommitOperationAdd("bids/b", b"five"),
            CommitOperationAdd("bids/c", b"longer"),
            CommitOperationDelete("bids/d"),
        ],
        "By hand",
        hub.head(),
    )
    listing = hub.listing(hub.head())
    kept = f"the dataset's own takes its place, and commit {listing.commit[:12]} keeps theirs"
    assert find_edited.fn(hub, record, listing, list(texts)) == (
        Drift("bids/b", f"edited in the repo: {kept}"),
        Drift("bids/c", f"edited in the repo: {kept}"),
        Drift("bids/d", "it was taken out of the repo: the dataset's own is published anew"),
    )
    assert find_edited.fn(hub, record, listing, ()) == ()
