"""What counts as a removal, how it is named, and that no record can name anything but our own files for one."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.card import side_files
from tasks.card.pictures import FOLDER
from tasks.disk.staging import Staging
from tasks.load import load
from tasks.record.kept_removals import KEPT, Keeping, all_of, forget, keep, open_again, read_keepings, read_kept
from tasks.record.removals import (
    LONGEST,
    Removals,
    as_file,
    find_removals,
    is_our_picture,
    is_our_shard,
    is_our_text,
    lost_lines,
    pictures_of,
)
from tasks.values.models import (
    ImageContent,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    PublishedText,
    ShardSpec,
)
from tasks.values.our_paths import shard_path
from tests.test_published import spec

SHA = "a" * 64
#: What a hand-edited record may say, and what none of our plans may ever hold.
FOREIGN = (
    "", "/", ".", "..", "README.md", ".gitattributes", "data", "data/", "data/README.md", "data/../README.md",
    "data/sub-1/../../README.md", "data/sub-1/other.parquet", "data/sub-1/sub-2.parquet", "data/sub-1/sub-1.parquet/",
    "/data/sub-1/sub-1.parquet", "data/sub-1/sub-1.parquet\n", "data//sub-1.parquet", "data/train-0000.parquet",
    "other/sub-1/sub-1.parquet", "Data/sub-1/sub-1.parquet", "data/sub-1/deeper/sub-1.parquet",
    "data/sub-é/sub-é.parquet",
    "bids", "bids/", "bids/.", "bids/..", "bids/../README.md", "bids//README", "/bids/README", "bids/a/../../x",
    "bids/./x",
    "bids/shards.jsonl", "bids/record", "bids/record/index.json", "bids/Record/INDEX.json", "BIDS/README", "bids/a\nb",
    "bids/record/\n", "tables/", "tables/../README.md", "tables/x/y.parquet", "tables/participants.csv",
    "pictures/a.png",
    "pictures/../README.md", "models/weights.bin", "a" * 5000, f"bids/{'a' * 5000}", f"data/sub-{'1' * 5000}/x.parquet",
    f"data/sub-{'1' * 600}/sub-{'1' * 600}.parquet",
)  # fmt: skip


def line(path: str, *images: str, sha256: str = SHA) -> PublishedShard:
    contents = tuple(ImageContent(path=image, size=3, sha256="b" * 64) for image in images)
    return PublishedShard(path=path, digest="c" * 64, sha256=sha256, size=9, rows=len(contents), images=contents)


def text(path: str, size: int = 4) -> PublishedText:
    return PublishedText(path=path, size=size, sha256=SHA)


def listing_of(record: PublicationRecord, **other: str) -> Listing:
    files = {path: ListedFile(path, one.size, one.sha256) for path, one in record.shards.items()}
    files |= {path: ListedFile(path, one.size, None, "0" * 40) for path, one in record.texts.items()}
    return Listing("d" * 40, files)


def found(record: PublicationRecord, plan: tuple[ShardSpec, ...] = (), texts: tuple[str, ...] = ()) -> Removals:
    return find_removals(plan, record, listing_of(record), texts)


def record_of(shards: list[PublishedShard], texts: list[PublishedText] | None = None) -> PublicationRecord:
    return PublicationRecord().updated(shards, texts=texts or [])


paths = st.one_of(st.sampled_from(FOREIGN), st.text(max_size=60), st.text("./abdist-_1\\\n", max_size=40))


@given(st.lists(paths, max_size=8))
def test_whatever_a_record_names_only_a_file_of_ours_is_a_removal(names: list[str]) -> None:
    record = record_of([line(name, "sub-1/anat/sub-1_T1w.nii") for name in names], [text(name) for name in names])
    removals = found(record)
    for path in removals.shards:
        assert is_our_shard(path)
        *_, folder, name = path.split("/")
        assert path.startswith("data/") and name.removesuffix(".parquet").split("_")[0] == folder
    for path in removals.texts:
        parts = path.split("/")
        assert parts[0] in ("bids", "tables") and not {"", ".", ".."} & set(parts)
        assert parts[1].lower() not in ("record", "shards.jsonl")
    lost = lost_lines((), record, listing_of(record), ())
    assert {*removals.shards, *removals.texts, *lost} >= set(names)  # a line is a removal, or is dropped: no dead end


@pytest.mark.parametrize("path", FOREIGN)
def test_what_is_not_ours_is_no_removal(path: str) -> None:
    assert not is_our_shard(path) and not is_our_text(path)
    assert not is_our_picture(path) or path == "pictures/a.png"
    assert not found(record_of([line(path, "x")], [text(path)]))


def test_everything_that_we_publish_can_be_removed(shards: tuple[ShardSpec, ...], bids: Path) -> None:
    assert all(is_our_shard(spec.path) for spec in shards)
    texts = side_files(load(bids))
    assert len(texts) > 5 and all(is_our_text(path) for path in texts)
    assert is_our_picture(f"{FOLDER}/anat_T1w.png")
    for path in ("data/sub-01/sub-01_ses-a-1f2e3d4c.parquet", "data/tpl-MNI/tpl-MNI.parquet", "bids/phenotype/ä b.tsv",
                 "data/group-raw/group-raw.parquet", "tables/sessions.parquet"):  # fmt: skip
        assert is_our_shard(path) or is_our_text(path)


def test_a_text_is_withdrawn_if_it_was_published_and_would_not_be_now() -> None:
    texts = [text("bids/README"), text("bids/participants.tsv"), text("tables/participants.parquet")]
    removals = found(record_of([], texts), texts=("bids/README",))
    assert removals.texts == ("bids/participants.tsv", "tables/participants.parquet") and removals.size == 8
    assert not found(record_of([]), texts=())  # an older version's record has no texts: none of them is removable


def test_a_text_that_somebody_edited_or_took_away_on_the_hub_is_no_removal() -> None:
    record = record_of([], [text("bids/a.tsv"), text("bids/b.tsv"), text("bids/c.tsv"), text("bids/d.tsv")])
    files = {
        "bids/a.tsv": ListedFile("bids/a.tsv", 5, None),
        "bids/b.tsv": ListedFile("bids/b.tsv", 4, "0" * 64),
        "bids/d.tsv": ListedFile("bids/d.tsv", 4, SHA),
    }
    listing = Listing("d" * 40, files)
    assert find_removals((), record, listing, ()).texts == ("bids/d.tsv",)
    assert set(lost_lines((), record, listing, ())) == {"bids/c.tsv"}


ONE = "data/sub-1/sub-1.parquet"
TWO = shard_path("sub-2", "sub-2", hashed=True)  # as in a repo of very many subjects
BOLD, T1W = "sub-1/func/sub-1_task-x_bold.nii.gz", "sub-1/anat/sub-1_T1w.nii.gz"


def removals(
    shards: Mapping[str, tuple[str, ...]] | None = None,
    rows: Mapping[str, tuple[str, ...]] | None = None,
    texts: tuple[str, ...] = (),
    sha256: str = SHA,
) -> Removals:
    names = (*(shards or {}), *(rows or {}), *texts)
    published = {path: {"size": 9, "sha256": sha256} for path in names}
    return Removals.model_validate({"shards": shards or {}, "rows": rows or {}, "texts": texts, "published": published})


def test_what_was_decided_covers_the_same_and_less_and_nothing_else() -> None:
    decided = removals({ONE: (T1W,)}, {TWO: ("a", "b")}, ("bids/x.tsv",))
    for covered in (
        decided,
        Removals(),
        removals({ONE: (T1W,)}),
        removals(rows={TWO: ("b",)}),
        removals(texts=("bids/x.tsv",)),
    ):
        assert covered.within(decided)
    for other in (
        removals({ONE: (T1W,)}, sha256="0" * 64),  # published anew since
        removals({TWO: ("a",)}),  # the whole shard, where rows of it were decided
        removals(rows={ONE: (T1W,)}),  # rows, where the whole shard was
        removals(rows={TWO: ("a", "c")}),
        removals(texts=("bids/y.tsv",)),
        removals(texts=("bids/x.tsv",), sha256="0" * 64),
        removals({ONE: (T1W,), "data/sub-3/sub-3.parquet": ()}),
    ):
        assert not other.within(decided)
    assert not Removals() and removals(texts=("bids/x.tsv",)) and removals(rows={TWO: ("a",)}) and removals({ONE: ()})


def test_a_sentence_counts_everything_and_names_the_first() -> None:
    shards = {f"data/sub-{number}/sub-{number}.parquet": (T1W, BOLD) for number in range(1, 6)}
    said = removals(shards, {TWO: (BOLD,)}, ("bids/phenotype/x.tsv", "tables/participants.parquet")).sentence()
    assert said == (
        "5 shards with 10 images (sub-1, sub-2, sub-3 and 2 more); 1 image of 1 shard held back as published "
        "(sub-1_task-x_bold.nii.gz); what is new or changed there waits too; 2 texts (phenotype/x.tsv, "
        "tables/participants.parquet)"
    )


def test_a_picture_goes_with_the_last_image_of_its_kind_and_one_that_the_new_card_shows_stays() -> None:
    gone = removals(
        {ONE: (T1W, "derivatives/x/sub-1/anat/sub-1_label-L_mask.nii")}, {TWO: (BOLD, "sub-2/dwi/sub-2_sbref.nii.gz")}
    )
    names = ("anat_T1w", "anat_mask", "func_bold", "dwi_dwi", "by-hand")
    files = {f"pictures/{name}.png": ListedFile(f"pictures/{name}.png", 1, None) for name in names}
    found = pictures_of(gone, Listing("d" * 40, files), {"pictures/anat_T1w.png"})
    assert found == ("pictures/anat_mask.png", "pictures/func_bold.png")


def test_a_decision_to_keep_is_remembered_with_its_run_and_a_damaged_one_is_none(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "target")
    assert read_kept(staging) == Removals() and read_keepings(staging) == ()
    kept = removals({ONE: (T1W,)}, {TWO: (BOLD,)}, ("bids/x.tsv",))
    decision = Keeping(removals=kept, at=datetime.now(UTC), flow_run_id="1", flow_run_name="push", note="me")
    keep(staging, decision)
    assert read_kept(staging) == kept and read_keepings(staging) == (decision,)
    for damaged in (b'{"shards": 3', b'{"decisions": 3}', b'{"shards": 3}', b"[]"):
        (staging.folder / KEPT).write_bytes(damaged)
        assert read_kept(staging) == Removals() and read_keepings(staging) == ()


def test_what_earlier_versions_kept_is_kept_still_though_nobody_knows_since_when(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "target")
    kept = removals({ONE: (T1W,)}, texts=("bids/x.tsv",))
    staging.folder.mkdir(parents=True)
    (staging.folder / KEPT).write_text(kept.model_dump_json(indent=1))
    assert read_kept(staging) == kept and read_keepings(staging) == (Keeping(removals=kept),)


def test_a_later_decision_takes_the_place_of_an_earlier_one_about_the_same_and_of_no_other(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "target")
    first = Keeping(removals=removals({ONE: (T1W,)}, texts=("bids/x.tsv",)), note="first")
    second = Keeping(removals=removals({ONE: (T1W,)}, {TWO: (BOLD,)}), note="second")
    keep(staging, first)
    keep(staging, second)
    assert read_keepings(staging) == (first.model_copy(update={"removals": removals(texts=("bids/x.tsv",))}), second)
    forget(staging, removals({ONE: (T1W,)}, texts=("bids/x.tsv",)))  # somebody has them removed after all
    assert read_keepings(staging) == (second.model_copy(update={"removals": removals(rows={TWO: (BOLD,)})}),)
    forget(staging, removals(rows={TWO: (BOLD,)}))
    assert read_keepings(staging) == ()


def test_what_is_to_be_asked_again_is_kept_by_nobody_until_somebody_decides_so_anew(tmp_path: Path) -> None:
    staging = Staging(tmp_path / "target")
    decision = Keeping(removals=removals({ONE: (T1W,), TWO: (BOLD,)}), note="first")
    keep(staging, decision)
    open_again(staging, removals({TWO: (BOLD,), "data/sub-3/sub-3.parquet": ()}))
    assert read_kept(staging) == removals({ONE: (T1W,)})  # of which nothing was asked
    assert [(one.note, one.open_again) for one in read_keepings(staging)] == [("first", False), ("first", True)]
    assert all_of(read_keepings(staging)) == decision.removals
    keep(staging, Keeping(removals=removals({TWO: (BOLD,)}), note="second"))
    assert read_kept(staging) == decision.removals
    assert [one.note for one in read_keepings(staging)] == ["first", "second"]


def test_removals_without_some_files_are_the_others_whole() -> None:
    every = removals({ONE: (T1W,), "data/sub-3/sub-3.parquet": ()}, {TWO: (BOLD,)}, ("bids/x.tsv", "bids/y.tsv"))
    left = every.excluding([ONE, "bids/y.tsv", "bids/of-nobody.tsv"])
    assert left == removals({"data/sub-3/sub-3.parquet": ()}, {TWO: (BOLD,)}, ("bids/x.tsv",))
    assert not every.excluding(every.published) and every.excluding([]) == every


def test_what_somebody_decided_to_keep_is_not_asked_about_again_when_more_goes() -> None:
    kept = found(record_of([line(ONE, T1W)]))
    both = found(record_of([line(ONE, T1W), line(TWO, T1W)]))
    asked = both.without(kept)
    assert set(asked.shards) == set(asked.published) == {TWO}
    assert both.within(kept.joined(asked)) and not both.without(kept.joined(asked))


def test_what_was_kept_and_is_published_with_other_bytes_by_now_is_asked_about() -> None:
    now = found(record_of([line(ONE, T1W)]))
    other = now.model_copy(update={"published": {ONE: now.published[ONE].model_copy(update={"sha256": "e" * 64})}})
    assert now.without(other) == now and not now.without(now)


def test_a_shard_of_which_more_rows_go_than_were_kept_is_asked_about_whole() -> None:
    one = Removals(rows={ONE: (T1W,)}, published={ONE: as_file(line(ONE))})
    more = Removals(rows={ONE: (T1W, BOLD)}, published={ONE: as_file(line(ONE))})
    assert more.without(one) == more and not one.without(more)


# --- what a record says that only a part of is so ---


def test_a_shard_that_would_lose_rows_names_them_and_one_that_keeps_all_of_them_is_no_removal() -> None:
    record = record_of([line(ONE, T1W, BOLD)])
    less = found(record, plan=(spec("sub-1"),))  # whose only image is the T1w
    assert less == Removals(rows={ONE: (BOLD,)}, published={ONE: as_file(record.shards[ONE])})
    assert not found(record_of([line(ONE, T1W)]), plan=(spec("sub-1"),))
    assert found(record, plan=(spec("sub-2"),)).shards == {ONE: (T1W, BOLD)}


def test_a_line_without_a_file_or_of_no_file_of_ours_hides_no_removal_after_it_and_is_dropped() -> None:
    record = record_of([line("data/README.md", "x"), line(ONE, T1W), line(TWO, BOLD)])
    listing = listing_of(record)
    listing = Listing(listing.commit, {path: file for path, file in listing.files.items() if path != ONE})
    assert find_removals((), record, listing, ()).shards == {TWO: (BOLD,)}
    assert lost_lines((), record, listing, ()) == {"data/README.md": SHA, ONE: SHA}
    assert lost_lines((spec("sub-1"),), record, listing, ()) == {"data/README.md": SHA}
    other = Listing("d" * 40, {**listing.files, TWO: ListedFile(TWO, 9, "0" * 64)})
    assert not find_removals((), record, other, ()).shards  # other bytes than the record's: drift, and no removal
    assert not found(record, plan=(spec("sub-1"),)).rows.keys() & {TWO}


def test_only_rows_that_were_all_approved_of_the_very_shard_may_go() -> None:
    one, both = removals(rows={ONE: (T1W,)}), removals(rows={ONE: (T1W, BOLD)})
    assert both.allows(ONE, one) and both.allows(ONE, both) and not one.allows(ONE, both)
    assert not both.allows(TWO, removals(rows={TWO: (T1W,)})) and not Removals().allows(ONE, one)
    assert not removals({ONE: (T1W, BOLD)}).allows(ONE, one)  # the whole shard is another question


def test_rows_of_a_shard_that_is_text_in_git_are_asked_about_as_the_record_has_it() -> None:
    """The listing has no sha256 of such a file."""
    record = record_of([line(ONE, T1W, BOLD)])
    listing = Listing("d" * 40, {ONE: ListedFile(ONE, 9, None, "0" * 40)})
    removal = find_removals((spec("sub-1", T1W),), record, listing, ())
    assert removal.rows == {ONE: (BOLD,)} and removal.published == {ONE: as_file(record.shards[ONE])}


def test_rows_of_a_shard_that_somebody_has_overwritten_since_are_another_question() -> None:
    record = record_of([line(ONE, T1W, BOLD)])
    plan = (spec("sub-1", T1W),)
    approved = find_removals(plan, record, listing_of(record), ())
    assert approved.rows == {ONE: (BOLD,)} and approved.allows(ONE, approved)
    theirs = Listing("d" * 40, {ONE: ListedFile(ONE, 9, "0" * 64)})
    now = find_removals(plan, record, theirs, ())
    assert now.rows == approved.rows and not approved.allows(ONE, now)
    assert now.allows(ONE, find_removals(plan, record, theirs, ()))  # asked about what is there now, it may go


def test_of_what_is_to_be_decided_exactly_what_was_decided_is_left_out() -> None:
    asked = removals({ONE: (T1W,)}, {TWO: ("a", "b")}, ("bids/x.tsv", "bids/y.tsv"))
    for decided, left in (
        (removals(rows={TWO: ("a", "b")}), removals({ONE: (T1W,)}, texts=("bids/x.tsv", "bids/y.tsv"))),
        (removals(rows={TWO: ("a",)}), asked),
        (removals(texts=("bids/y.tsv",)), removals({ONE: (T1W,)}, {TWO: ("a", "b")}, ("bids/x.tsv",))),
        (removals({TWO: ("a", "b")}), asked),
        (removals(rows={ONE: (T1W,)}), asked),
        (removals(texts=("bids/z.tsv",)), asked),
        (Removals(), asked),
        (asked, Removals()),
    ):
        assert asked.without(decided) == left


def test_a_sentence_names_as_many_as_it_may_and_counts_no_rest_of_none() -> None:
    shards = {f"data/sub-{number}/sub-{number}.parquet": (T1W,) for number in range(1, 4)}
    assert removals(shards).sentence() == "3 shards with 3 images (sub-1, sub-2, sub-3)"


def test_a_path_is_ours_up_to_the_longest_that_we_give() -> None:
    label = "1" * ((LONGEST - len("data/sub-/sub-.parquet")) // 2)
    shard = f"data/sub-{label}/sub-{label}.parquet"
    for path, ours in ((shard, is_our_shard), (f"bids/{'a' * (LONGEST - 5)}", is_our_text)):
        assert LONGEST - 1 <= len(path) <= LONGEST and ours(path)
    assert not is_our_text(f"bids/{'a' * (LONGEST - 4)}")
    kind = "a" * (LONGEST - len("pictures/_b.png"))
    assert is_our_picture(f"pictures/{kind}_b.png") and not is_our_picture(f"pictures/a{kind}_b.png")
