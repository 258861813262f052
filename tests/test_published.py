"""The table of states in `tasks.record.published`, row by row, and what holds for every mixture of them."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from tasks.disk.staging import Staging
from tasks.record.published import FOREIGN_PARQUET, Drift, Work, decide
from tasks.record.removals import Removals, find_removals
from tasks.values.models import (
    Image,
    ImageContent,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    PublishedText,
    Receipt,
    ShardSpec,
)

IMAGE = Image(path="sub-1/anat/sub-1_T1w.nii.gz", size=5, mtime_ns=1, dataset="raw", sub="1", ses=None,
              datatype="anat", suffix="T1w")  # fmt: skip


def spec(name: str, digest: str = "d" * 64) -> ShardSpec:
    return ShardSpec(name=name, path=f"data/{name}/{name}.parquet", images=(IMAGE,), digest=digest)


def line(of: ShardSpec) -> PublishedShard:
    content = ImageContent(path=IMAGE.path, size=IMAGE.size, sha256="e" * 64)
    return PublishedShard(path=of.path, digest=of.digest, sha256="f" * 64, size=9, rows=1, images=(content,))


def with_rows(of: ShardSpec, *paths: str) -> PublishedShard:
    """A line with these images; its digest is that of an older plan."""
    images = tuple(ImageContent(path=path, size=5, sha256="e" * 64) for path in paths)
    return line(of).model_copy(update={"images": images, "rows": len(images), "digest": "0" * 64})


def listing(*files: ListedFile) -> Listing:
    return Listing("c" * 40, {file.path: file for file in files})


def receipt(of: ShardSpec) -> Receipt:
    return Receipt(**line(of).model_dump(), name=of.name, file=f"shards/x/{of.name}.parquet")


def listed(shard: PublishedShard) -> ListedFile:
    return ListedFile(shard.path, shard.size, shard.sha256)


def work(
    plan: list[ShardSpec],
    record: list[PublishedShard],
    files: list[ListedFile],
    staged: Mapping[str, Receipt] | None = None,
    unchanged: bool = True,
) -> Work:
    receipts = staged or {}
    return decide(
        plan,
        PublicationRecord().updated(record),
        Listing("c" * 40, {file.path: file for file in files}),
        lambda images, contents: unchanged,
        lambda wanted: receipts.get(wanted.path),
    )


ONE = spec("sub-1")


def test_a_shard_that_record_and_listing_agree_on_is_done_whatever_is_staged() -> None:
    for staged in ({}, {ONE.path: receipt(ONE)}):
        assert work([ONE], [line(ONE)], [listed(line(ONE))], staged).done == (ONE,)


def test_a_shard_that_is_not_on_the_hub_is_sent_if_it_is_staged_and_staged_if_not() -> None:
    assert work([ONE], [], [], {ONE.path: receipt(ONE)}).send == (ONE,)
    assert work([ONE], [], []).stage == (ONE,)


def test_a_changed_digest_is_staged_again() -> None:
    old = line(spec("sub-1", "0" * 64))
    found = work([ONE], [old], [listed(old)])
    assert found.stage == (ONE,) and not found.drift


def test_an_image_changed_in_place_is_staged_again_though_the_digest_is_the_same() -> None:
    found = work([ONE], [line(ONE)], [listed(line(ONE))], {ONE.path: receipt(ONE)}, unchanged=False)
    assert found.stage == (ONE,)


def test_a_shard_replaced_or_deleted_on_the_hub_is_drift_and_is_published_again() -> None:
    replaced = replace(listed(line(ONE)), sha256="0" * 64)
    for files in ([], [replaced], [replace(listed(line(ONE)), size=1)]):
        found = work([ONE], [line(ONE)], files, {ONE.path: receipt(ONE)})
        assert found.send == (ONE,)
        assert [drift.path for drift in found.drift] == [ONE.path]


def test_a_line_of_the_record_that_has_lost_an_image_is_drift_and_its_shard_is_published_again() -> None:
    edited = line(ONE).model_copy(update={"images": line(ONE).images[:-1]})
    found = work([ONE], [edited], [listed(edited)], {ONE.path: receipt(ONE)}, unchanged=False)
    assert found.stage == (ONE,)
    (drift,) = found.drift
    assert drift.path == ONE.path
    assert drift.what == "its line in the record was edited: the shard is published anew, with its line"


def test_a_shard_that_somebody_added_to_data_is_drift() -> None:
    stranger = ListedFile("data/stranger.parquet", 3, "1" * 64)
    found = work([ONE], [line(ONE)], [listed(line(ONE)), stranger])
    assert [drift.path for drift in found.drift] == ["data/stranger.parquet"]
    assert found.done == (ONE,)


def test_a_published_shard_that_the_plan_no_longer_has_is_a_removal() -> None:
    gone = spec("sub-2")
    found = work([ONE], [line(ONE), line(gone)], [listed(line(ONE)), listed(line(gone))])
    assert dict(found.removals.shards) == {gone.path: (IMAGE.path,)}
    assert found.done == (ONE,) and not found.missing and not found.drift


def test_a_shard_that_would_lose_rows_is_held_back_whole_whatever_is_staged() -> None:
    published = with_rows(ONE, IMAGE.path, "sub-1/func/sub-1_task-x_bold.nii.gz")
    for staged in ({}, {ONE.path: receipt(ONE)}):
        found = work([ONE, spec("sub-2")], [published], [listed(published)], staged)
        assert found.held_back == (ONE,) and [one.name for one in found.missing] == ["sub-2"]
        assert dict(found.removals.rows) == {ONE.path: ("sub-1/func/sub-1_task-x_bold.nii.gz",)}


def test_rows_that_a_person_approved_hold_nothing_back_and_any_other_row_does() -> None:
    published = with_rows(ONE, IMAGE.path, "a", "b")
    approved = find_removals([ONE], PublicationRecord().updated([published]), listing(listed(published)), ())
    assert dict(approved.rows) == {ONE.path: ("a", "b")}
    for rows, image, held in (
        ((IMAGE.path, "a", "b"), "", ()),  # as it was shown
        ((IMAGE.path, "a"), "", ()),  # one of the rows came back and is published: less goes than was approved
        ((IMAGE.path, "a", "c"), "", (ONE,)),  # a row that nobody was shown
        ((IMAGE.path, "a", "b"), "0" * 64, (ONE,)),  # the same rows of a shard that was published anew since
    ):
        now = with_rows(ONE, *rows)
        same = now.model_copy(update={"sha256": image or published.sha256})
        record = PublicationRecord().updated([same])
        found = decide([ONE], record, listing(listed(same)), lambda *_: True, lambda _: None, (), approved)
        assert found.held_back == held and found.stage == (() if held else (ONE,))
    everything_else = work([ONE, spec("sub-2")], [published], [listed(published)])
    assert everything_else.only(approved).missing == ()


def test_rows_of_a_shard_that_is_not_on_the_hub_hold_nothing_back() -> None:
    published = with_rows(ONE, IMAGE.path, "a")
    found = work([ONE], [published], [])
    assert found.stage == (ONE,) and not found.removals and [drift.path for drift in found.drift] == [ONE.path]


def test_a_line_whose_shard_is_neither_in_the_repo_nor_in_the_dataset_is_dropped_and_reported() -> None:
    gone, foreign = line(spec("sub-2")), line(ONE).model_copy(update={"path": "README.md"})
    found = work([ONE], [line(ONE), gone, foreign], [listed(line(ONE)), listed(foreign)])
    assert dict(found.lost) == {gone.path: gone.sha256, "README.md": foreign.sha256}
    assert sorted(drift.path for drift in found.drift) == ["README.md", gone.path] and not found.removals


def test_a_shard_that_somebody_replaced_on_the_hub_is_no_removal_but_drift() -> None:
    gone = line(spec("sub-2"))
    for replaced in (replace(listed(gone), sha256="0" * 64), replace(listed(gone), sha256=None)):
        found = work([ONE], [line(ONE), gone], [listed(line(ONE)), replaced])
        assert not found.removals and [drift.path for drift in found.drift] == [gone.path]


def test_a_withdrawn_shard_in_whose_line_somebody_edited_the_size_can_still_be_removed() -> None:
    gone = line(spec("sub-2"))
    edited = gone.model_copy(update={"size": gone.size + 1})
    found = work([ONE], [line(ONE), edited], [listed(line(ONE)), listed(gone)])
    assert found.removals.shards.keys() == {gone.path} and [drift.path for drift in found.drift] == [gone.path]


def test_whether_an_image_has_changed_is_asked_of_the_record_and_of_the_receipt_each_for_itself() -> None:
    asked: list[tuple[object, object]] = []
    content = ImageContent(path=IMAGE.path, size=IMAGE.size, sha256="1" * 64)
    kept = receipt(ONE).model_copy(update={"images": (content,)})

    def unchanged(images: Iterable[Image], contents: Iterable[ImageContent]) -> bool:
        asked.append((images, contents))
        return contents == kept.images

    record = PublicationRecord().updated([line(ONE)])
    found = decide([ONE], record, Listing("c" * 40, {ONE.path: listed(line(ONE))}), unchanged, lambda spec: kept)
    assert found.send == (ONE,)
    assert asked == [(ONE.images, line(ONE).images), (ONE.images, kept.images)]


def test_what_the_repo_and_the_record_disagree_about_is_said() -> None:
    there = listed(line(ONE))
    for files, what in (
        ([], "the record has it, and it is not in the repo"),
        ([replace(there, size=8)], "8 bytes in the repo, 9 in the record"),
        ([replace(there, sha256="0" * 64)], "sha256 000000000000 in the repo, ffffffffffff in the record"),
    ):
        assert work([ONE], [line(ONE)], files).drift == (Drift(ONE.path, what),)
    stranger = ListedFile("data/stranger.parquet", 3, "1" * 64)
    assert work([ONE], [], [stranger]).drift == (Drift(stranger.path, FOREIGN_PARQUET),)


def test_only_shards_of_nobody_in_data_are_drift_and_not_those_that_the_plan_or_the_record_has() -> None:
    two = spec("sub-2")
    others = [ListedFile(path, 3, "1" * 64) for path in ("data/notes.txt", "mine/x.parquet", "README.md")]
    half_committed = ListedFile(ONE.path, 3, "1" * 64)
    withdrawn = listed(line(two))
    assert not work([ONE], [line(two)], [*others, half_committed, withdrawn]).drift


def test_work_that_is_done_again_is_only_that_of_the_damaged_shards() -> None:
    specs = [spec(f"sub-{number}") for number in range(4)]
    before = Work((specs[3],), (specs[1],), (specs[0], specs[2]), (), Removals())
    again = before.to_stage_again([specs[1].path, specs[2].path, "data/unknown.parquet"])
    assert (again.done, again.send, again.stage) == ((specs[3],), (), (specs[1], specs[2]))


def test_the_work_of_a_removal_is_the_shards_that_were_held_back_for_it_staged_already_or_not() -> None:
    one, two, three, four = (spec(f"sub-{number}") for number in range(4))
    mine = Work((), (one, two), (three, four), ()).only(Removals(rows={two.path: ("a",), three.path: ("b",)}))
    assert (mine.send, mine.stage) == ((two,), (three,))


def test_a_published_text_that_the_dataset_no_longer_has_is_a_removal_and_one_that_nobody_has_is_dropped() -> None:
    here, withdrawn, nowhere = (
        PublishedText(path=f"bids/{name}", size=3, sha256="1" * 64) for name in ("README", "CHANGES", "gone.tsv")
    )
    record = PublicationRecord().updated(texts=[here, withdrawn, nowhere])
    there = listing(ListedFile(here.path, 3, None), ListedFile(withdrawn.path, 3, None))
    found = decide([], record, there, lambda *_: True, lambda _: None, texts={here.path})
    assert found.removals.texts == (withdrawn.path,) and dict(found.lost) == {nowhere.path: nowhere.sha256}
    assert not found.drift


def test_a_line_of_the_record_about_a_file_that_is_none_of_ours_is_said_once() -> None:
    foreign = line(ONE).model_copy(update={"path": "README.md"})
    for file, what in (
        (listed(foreign), "the record has it, and it is nothing of ours: it stays"),
        (replace(listed(foreign), size=8), "8 bytes in the repo, 9 in the record"),
    ):
        assert work([], [foreign], [file]).drift == (Drift("README.md", what),)


def test_a_wave_that_fits_to_the_byte_waits_for_nothing() -> None:
    all_of_it = work([ONE, spec("sub-2")], [], [])
    room = 2 * ONE.room
    assert all_of_it.wave(room, 0) == (all_of_it, ())
    assert all_of_it.wave(room - 1, 0)[1] == all_of_it.stage[1:]


states = st.lists(
    st.tuples(
        st.sampled_from(["same", "other digest", "none"]),  # the record
        st.sampled_from(["same", "other sha256", "other size", "none"]),  # the listing
        st.booleans(),  # staged
    ),
    max_size=12,
)


@given(states)
def test_every_shard_is_in_exactly_one_place_and_only_an_agreed_one_is_done(
    mixture: list[tuple[str, str, bool]],
) -> None:
    plan, record, files, staged = [], [], [], {}
    for number, (recorded, seen, is_staged) in enumerate(mixture):
        one = spec(f"sub-{number}")
        plan.append(one)
        if recorded != "none":
            record.append(line(one if recorded == "same" else spec(one.name, "0" * 64)))
        if seen != "none":
            file = listed(line(one))
            files.append(
                replace(file, sha256="0" * 64) if seen == "other sha256" else
                replace(file, size=1) if seen == "other size" else file
            )  # fmt: skip
        if is_staged:
            staged[one.path] = receipt(one)
    found = work(plan, record, files, staged)
    assert sorted(s.path for s in (*found.done, *found.send, *found.stage)) == sorted(s.path for s in plan)
    for one, (recorded, seen, is_staged) in zip(plan, mixture, strict=True):
        assert (one in found.done) == (recorded == "same" and seen == "same")
        assert (one in found.send) == (one not in found.done and is_staged)
    assert [s.path for s in found.missing] == sorted(s.path for s in (*found.send, *found.stage))


@given(st.lists(st.integers(0, 400), max_size=12), st.integers(1, 500_000), st.integers(0, 400_000))
def test_a_wave_fits_its_limit_keeps_the_order_and_loses_no_shard(sizes: list[int], limit: int, staged: int) -> None:
    specs = tuple(
        ShardSpec(
            f"sub-{number}", f"data/sub-{number}/sub-{number}.parquet", (replace(IMAGE, size=size * 1000),), "d" * 64
        )
        for number, size in enumerate(sizes)
    )
    all_of_it = work(list(specs), [], [])
    wave, waiting = all_of_it.wave(limit, staged)
    assert (*wave.stage, *waiting) == all_of_it.stage
    room = staged + sum(spec.room for spec in wave.stage)
    assert room <= limit or wave.stage == () or (len(wave.stage) == 1 and not staged)
    assert all_of_it.wave(None, staged) == (all_of_it, ())
    assert not all_of_it.stage or wave.stage or staged  # with nothing to let go, the work never stands still


def test_a_shard_never_takes_more_room_than_was_foreseen(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    for spec, receipt in zip(shards, staged(len(shards)), strict=True):
        assert receipt.size + staging.receipt_file(spec).stat().st_size <= spec.room
