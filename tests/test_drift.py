"""What somebody else has changed in the repo is named before it is mended, and what they have not is not."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.disk.staging import Staging
from tasks.record.accepted import Accepted, read_accepted, write_accepted
from tasks.record.change import Change
from tasks.record.drift import drift_around, replaced_texts
from tasks.record.remote import CARD, INDEX, RECORD, Correction, Remote
from tasks.values.models import (
    DatasetIdentity,
    ImageContent,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    PublishedText,
    ShardSpec,
)

SHARD, TEXT = "data/sub-01/sub-01.parquet", "bids/README"
MINE, THEIRS = b"mine", b"ours"  # as long as each other
IMAGE = ImageContent(path="sub-01/anat/sub-01_T1w.nii.gz", size=1, sha256="a" * 64)
LINE = PublishedShard(path=SHARD, digest="1" * 64, sha256="2" * 64, size=9, rows=1, images=(IMAGE,))
SPEC = ShardSpec("sub-01", SHARD, (), "1" * 64)
DATASET = DatasetIdentity(name="Some", subjects=1, images=1, size=1)


def listed(path: str, data: bytes = b"x") -> ListedFile:
    return ListedFile(path, len(data), hashlib.sha256(data).hexdigest())


def listing(*paths: str, **texts: bytes) -> Listing:
    files = {path: listed(path) for path in (CARD, INDEX, RECORD, SHARD, *paths)}
    return Listing("c" * 40, files | {f"bids/{name}": listed(f"bids/{name}", data) for name, data in texts.items()})


def without(here: Listing, *paths: str) -> Listing:
    return Listing(here.commit, {path: file for path, file in here.files.items() if path not in paths})


REMOTE = Remote("c" * 40, PublicationRecord(shards={SHARD: LINE}, dataset=DATASET))
TEXTS = {TEXT: MINE}


def told(remote: Remote, here: Listing) -> dict[str, str]:
    return {one.path: one.what for one in drift_around(remote, here, TEXTS, [SPEC])}


@pytest.mark.parametrize(
    ("before", "was"),
    [(None, "was taken out of the record"), (LINE.model_copy(update={"rows": 2}), "is about other files")],
)
def test_a_line_that_was_read_from_its_shard_is_told_with_what_the_record_had(
    before: PublishedShard | None, was: str
) -> None:
    remote = replace(REMOTE, corrected=(Correction(before, LINE),))
    assert told(remote, listing()) == {SHARD: f"its line {was}: what the shard holds was read from the shard itself"}


def test_a_repo_that_is_as_it_was_published_has_no_drift() -> None:
    assert told(REMOTE, listing()) == {}
    assert told(REMOTE, listing(README=MINE)) == {}  # a run that was killed had it committed, or somebody else has
    assert told(Remote("", PublicationRecord()), Listing("", {})) == {}  # nothing was ever published
    assert told(Remote("", PublicationRecord()), Listing("", {CARD: listed(CARD)})) == {}


@pytest.mark.parametrize(("gone", "what"), [(CARD, "what people wrote on it"), (INDEX, "written anew")])
def test_a_card_or_an_index_that_was_taken_out_is_named(gone: str, what: str) -> None:
    (found,) = told(REMOTE, without(listing(), gone)).items()
    assert found[0] == gone and what in found[1]


def test_a_record_that_was_taken_out_is_named_only_where_there_are_shards() -> None:
    nothing = Remote("c" * 40, PublicationRecord())
    assert told(nothing, without(listing(), RECORD)).keys() == {RECORD}
    assert told(nothing, without(listing(), RECORD, SHARD)) == {}


def test_a_line_that_was_taken_out_is_named_by_its_shard_and_a_damaged_one_once() -> None:
    lacks = Remote("c" * 40, PublicationRecord(dataset=DATASET))
    assert told(lacks, listing()).keys() == {SHARD}
    damaged = replace(lacks, damaged=(f"line 1: it is that of {SHARD}, and cannot be read",))
    assert told(damaged, listing()) == {RECORD: damaged.damaged[0]}
    assert told(lacks, without(listing(), SHARD)) == {}  # neither line nor shard: it was never published


def test_a_file_in_the_place_of_a_text_that_is_to_be_published_is_named_unless_it_is_the_same() -> None:
    assert told(REMOTE, listing(README=THEIRS)).keys() == {TEXT}
    published = PublishedText(path=TEXT, size=4, sha256=hashlib.sha256(MINE).hexdigest())
    record = REMOTE.record.model_copy(update={"texts": {TEXT: published}})
    assert told(replace(REMOTE, record=record), listing(README=THEIRS)) == {}  # told elsewhere: it was published
    older = REMOTE.record.model_copy(update={"dataset": None})  # of a version that kept no list of texts
    assert told(replace(REMOTE, record=older), listing(README=THEIRS)) == {}


def test_a_published_text_is_replaced_where_the_repo_has_other_bytes_or_none() -> None:
    published = PublishedText(path=TEXT, size=4, sha256=hashlib.sha256(MINE).hexdigest())
    record = REMOTE.record.model_copy(update={"texts": {TEXT: published}})
    assert replaced_texts(TEXTS, record, listing(README=MINE)) == []
    assert replaced_texts(TEXTS, record, listing(README=THEIRS)) == [TEXT] == replaced_texts(TEXTS, record, listing())
    assert replaced_texts(TEXTS, REMOTE.record, listing()) == []  # it was not published yet


def test_what_a_person_accepted_as_gone_counts_until_it_is_back_or_published_otherwise(tmp_path: Path) -> None:
    staging = Staging(tmp_path)
    assert read_accepted(staging) == Accepted()
    change = Change(1, gone=(IMAGE.path,))
    record = REMOTE.record
    assert Accepted().after(change, False, record, ()) == Accepted()
    accepted = Accepted().after(change, True, record, ())
    assert accepted.gone == {IMAGE.path: IMAGE.sha256} and accepted.within(record) == {IMAGE.path}
    write_accepted(staging, accepted)
    assert read_accepted(staging) == accepted
    quiet = Change(1)
    assert accepted.after(quiet, False, record, ()) == accepted
    assert accepted.after(quiet, False, record, {IMAGE.path}) == Accepted()  # it is back
    assert accepted.within(PublicationRecord()) == frozenset()
    other = LINE.model_copy(update={"images": (replace(IMAGE, sha256="b" * 64),)})
    assert accepted.within(PublicationRecord(shards={SHARD: other})) == frozenset()
    (tmp_path / "accepted-changes.json").write_text("{")
    assert read_accepted(staging) == Accepted()
