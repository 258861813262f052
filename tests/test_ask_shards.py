"""Which shards of the repo are asked what they hold, what they say, and what the record says then.

On a Hub, with pushes, it is in tests/test_edited_record.py.
"""

import hashlib
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import IO, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.hub.client import Hub
from tasks.hub.errors import HubUnreachable
from tasks.record.ask_shards import NO_DIGEST, ShardUnreadable, corrected, read_lines, to_ask
from tasks.record.published import Work, decide
from tasks.record.remote import Correction, Remote
from tasks.values.models import ListedFile, Listing, PublicationRecord, PublishedShard, Receipt, ShardSpec
from tests.test_published import IMAGE, line, listed, listing, spec, with_rows
from tests.test_restore_parts import LocalHub

GONE = "sub-1/anat/sub-1_T2w.nii.gz"
ONE, TWO, THREE = spec("sub-1"), spec("sub-2"), spec("sub-3")


def remote(*lines: PublishedShard, edited: bool = False) -> Remote:
    """A target with these lines in its record."""
    record = PublicationRecord().updated(lines).model_copy(update={"edited": edited, "vouched": not edited})
    return Remote("c" * 40, record)


def compared(plan: list[ShardSpec], there: Remote, files: Listing) -> Work:
    return decide(plan, there.record, files, lambda *_: True, lambda _: None)


def asked(plan: list[ShardSpec], there: Remote, files: Listing) -> tuple[str, ...]:
    return to_ask(compared(plan, there, files), there, files)


def held(of: ShardSpec, *paths: str) -> PublishedShard:
    """What a shard in the repo says of itself."""
    return with_rows(of, *paths).model_copy(update={"digest": NO_DIGEST})


def test_a_shard_in_the_repo_without_a_line_is_asked_and_one_that_is_not_in_the_repo_is_not() -> None:
    there = remote(line(TWO))
    assert asked([ONE, TWO, THREE], there, listing(listed(line(ONE)), listed(line(TWO)))) == (ONE.path,)


def test_a_file_in_no_place_of_ours_is_never_asked() -> None:
    odd = replace(ONE, path="data/elsewhere/sub-1.parquet")
    assert asked([odd], remote(), listing(listed(line(odd)))) == ()


def test_nothing_is_asked_of_shards_that_are_replaced_held_back_or_withdrawn_while_the_record_is_as_we_wrote_it() -> (
    None
):
    lines = line(ONE).model_copy(update={"digest": "0" * 64}), with_rows(TWO, IMAGE.path, GONE), line(THREE)
    files = listing(*map(listed, lines))
    work = compared([ONE, TWO], remote(*lines), files)
    assert work.missing == (ONE,) and work.held_back == (TWO,) and list(work.removals.shards) == [THREE.path]
    assert to_ask(work, remote(*lines), files) == ()


def test_a_shard_whose_line_is_about_other_bytes_is_asked_and_keeps_its_line_unless_it_holds_what_nothing_has() -> None:
    """The record may be one of an earlier commit, or the shard is somebody else's."""
    old = line(ONE).model_copy(update={"sha256": "5" * 64})
    files = listing(listed(line(ONE)))
    assert asked([ONE], remote(old), files) == (ONE.path,)
    assert not corrected(remote(old), [ONE], {ONE.path: held(ONE, IMAGE.path)}).corrected
    found = corrected(remote(old), [ONE], {ONE.path: held(ONE, IMAGE.path, GONE)})
    assert compared([ONE], found, files).removals.rows == {ONE.path: (GONE,)}


def test_lines_of_an_earlier_version_are_vouched_for_by_nobody_and_shards_of_others_stay_theirs() -> None:
    there = replace(remote(line(ONE).model_copy(update={"digest": "0" * 64})))
    there = replace(there, record=there.record.model_copy(update={"vouched": False}))
    assert asked([ONE], there, listing(listed(line(ONE)), listed(line(TWO)))) == (ONE.path,)


def test_where_the_record_was_edited_a_shard_that_nobody_knows_is_asked_too_and_withdrawn_if_it_is_one() -> None:
    files = listing(listed(line(ONE)), listed(line(TWO)))
    there = remote(line(ONE), edited=True)
    assert asked([ONE], there, files) == (TWO.path,)
    found = corrected(there, [ONE], {TWO.path: held(TWO, GONE)})
    removals = compared([ONE], found, listing(listed(line(ONE)), listed(held(TWO, GONE)))).removals
    assert removals.shards == {TWO.path: (GONE,)}


def test_a_withdrawn_shard_that_somebody_replaced_is_theirs_and_not_asked() -> None:
    """Its line is about other bytes: no removal is made of it, and it stays."""
    files = listing(listed(line(ONE)), listed(line(THREE).model_copy(update={"sha256": "5" * 64})))
    assert asked([ONE], remote(line(ONE), line(THREE), edited=True), files) == ()


def test_all_of_them_are_asked_where_somebody_edited_the_record_and_what_is_done_is_not() -> None:
    done = spec("sub-4")
    lines = (
        line(ONE).model_copy(update={"digest": "0" * 64}),
        with_rows(TWO, IMAGE.path, GONE),
        line(THREE),
        line(done),
    )
    files = listing(*map(listed, lines))
    assert asked([ONE, TWO, done], remote(*lines, edited=True), files) == (ONE.path, TWO.path, THREE.path)


def test_a_shard_without_a_line_has_one_if_it_holds_a_row_that_would_go_and_is_held_back_for_it() -> None:
    files = listing(listed(line(ONE)), listed(line(TWO)))
    own = {ONE.path: held(ONE, IMAGE.path, GONE), TWO.path: held(TWO, IMAGE.path)}
    found = corrected(remote(), [ONE, TWO], own)
    assert found.corrected == (Correction(None, own[ONE.path]),) and found.to_mend
    assert found.record.shards == {ONE.path: own[ONE.path]}
    work = compared([ONE, TWO], found, files)
    assert work.held_back == (ONE,) and work.removals.rows == {ONE.path: (GONE,)} and work.missing == (TWO,)


def test_a_line_that_names_other_rows_than_the_shard_holds_is_corrected_in_both_directions() -> None:
    hidden, made_up = with_rows(ONE, IMAGE.path), with_rows(TWO, IMAGE.path, GONE)
    own = {ONE.path: held(ONE, IMAGE.path, GONE), TWO.path: held(TWO, IMAGE.path)}
    found = corrected(remote(hidden, made_up, edited=True), [ONE, TWO], own)
    assert found.corrected == (Correction(hidden, own[ONE.path]), Correction(made_up, own[TWO.path]))
    work = compared([ONE, TWO], found, listing(listed(hidden), listed(made_up)))
    assert work.held_back == (ONE,) and work.missing == (TWO,)


def test_a_line_that_names_the_rows_that_the_shard_holds_stays_as_it_is() -> None:
    lines = with_rows(ONE, IMAGE.path, GONE), line(TWO)
    there = remote(*lines, edited=True)
    own = {ONE.path: held(ONE, GONE, IMAGE.path), TWO.path: held(TWO, IMAGE.path)}
    found = corrected(there, [ONE, TWO], own)
    assert found == there and not found.to_mend
    hidden = held(THREE, IMAGE.path, GONE)
    for plan in ([ONE, TWO, THREE], [TWO, replace(ONE, path="data/sub-0/sub-0.parquet"), THREE]):
        found = corrected(there, plan, {plan[1].path: held(plan[1], IMAGE.path), **own, THREE.path: hidden})
        assert [one.line for one in found.corrected] == [hidden]  # those that are right before it hide it from nobody


def test_a_shard_that_was_asked_and_is_not_planned_is_corrected_by_its_own_rows() -> None:
    """It is withdrawn: the gate names all that would leave with it."""
    hidden = line(THREE).model_copy(update={"images": (), "rows": 0})
    found = corrected(remote(hidden, edited=True), [ONE], {THREE.path: held(THREE, IMAGE.path, GONE)})
    removals = compared([ONE], found, listing(listed(hidden))).removals
    assert removals.shards == {THREE.path: (IMAGE.path, GONE)}


def test_a_shard_whose_line_was_read_from_itself_is_never_taken_for_one_that_is_published_as_planned() -> None:
    own = held(ONE, IMAGE.path)
    there = replace(remote(own), corrected=(Correction(line(ONE), own),))
    assert compared([ONE], there, listing(listed(own))).missing == (ONE,)


# Asking, of parts of a file as a Hub gives them.

PATH = ONE.path


def ask(data: bytes) -> PublishedShard | None:
    """What a shard with these bytes says of itself."""
    file = ListedFile(PATH, len(data), "9" * 64)
    return read_lines(cast(Hub, OneFile(data)), [PATH], listing(file)).get(PATH)


class OneFile(LocalHub):
    """A Hub that holds one file, at one commit."""

    def stream(self, path: str, commit: str, start: int, size: int) -> Iterator[bytes]:
        assert (path, commit) == (PATH, listing().commit)
        return super().stream(path, commit, start, size)

    def sha256_of(self, path: str, commit: str) -> str | None:
        return "8" * 64 if (path, commit) == (PATH, listing().commit) else None


def test_of_a_shard_that_is_listed_without_a_sha256_it_is_taken_from_its_bytes() -> None:
    data = parquet(path=["a"], size=[1], sha256=["1" * 64])
    (own,) = read_lines(cast(Hub, OneFile(data)), [PATH], listing(ListedFile(PATH, len(data), None))).values()
    assert own.sha256 == "8" * 64


def parquet(**columns: list[object]) -> bytes:
    """A Parquet file of somebody else's."""
    stream = io.BytesIO()
    pq.write_table(pa.table(columns), stream)
    return stream.getvalue()


def test_a_shard_says_which_files_it_holds_with_their_sizes_and_sha256(
    staged: Callable[[int], list[Receipt]], tmp_path: Path
) -> None:
    (receipt,) = staged(1)
    (file,) = tmp_path.rglob("*.parquet")
    own = ask(file.read_bytes())
    assert own is not None
    assert [(one.path, one.size, one.sha256) for one in own.images] == [
        (one.path, one.size, one.sha256) for one in receipt.images
    ]
    assert (own.path, own.digest, own.sha256) == (PATH, NO_DIGEST, "9" * 64)
    assert (own.size, own.rows) == (receipt.size, receipt.rows)


def test_parquet_of_somebody_else_with_our_three_columns_is_held_for_a_shard() -> None:
    own = ask(parquet(path=["a", "b"], size=[1, 2], sha256=["1" * 64, "2" * 64], theirs=[True, False]))
    assert own is not None and [one.path for one in own.images] == ["a", "b"]


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"not a shard" * 1000, id="no Parquet"),
        pytest.param(b"PAR1" + b"\xff" * 1000 + b"PAR1", id="a footer beyond its beginning"),
        pytest.param(parquet(text=["a"]), id="other columns"),
        pytest.param(parquet(path=["a"], size=[-1], sha256=["1" * 64]), id="a size that is none"),
        pytest.param(parquet(path=["a"], size=[1], sha256=["?"]), id="a digest that is none"),
        pytest.param(parquet(path=[None], size=[1], sha256=["1" * 64]), id="no path"),
        pytest.param(parquet(path=[7], size=[1], sha256=["1" * 64]), id="a path that is a number"),
    ],
)
def test_what_is_no_shard_of_ours_holds_nothing_of_ours(data: bytes) -> None:
    assert ask(data) is None


def test_a_shard_of_which_any_byte_is_another_one_is_read_or_is_none(
    staged: Callable[[int], list[Receipt]], tmp_path: Path
) -> None:
    staged(1)
    (file,) = tmp_path.rglob("*.parquet")
    data = file.read_bytes()

    @settings(max_examples=100)
    @given(st.integers(len(data) - 20_000, len(data) - 1), st.integers(1, 255))
    def try_it(place: int, change: int) -> None:
        damaged = bytearray(data)
        damaged[place] ^= change
        own = ask(bytes(damaged))
        assert own is None or own.path == PATH

    try_it()


class Lying(OneFile):
    """A Hub that sends other bytes of its file in parts, and as a whole what it is told to."""

    def __init__(self, parts: bytes, whole: bytes) -> None:
        super().__init__(parts)
        self._whole, self.read = whole, 0

    def read_back(self, path: str, commit: str, into: IO[bytes]) -> tuple[int, str]:
        assert (path, commit) == (PATH, listing().commit)
        self.read += 1
        return into.write(self._whole), hashlib.sha256(self._whole).hexdigest()


SHARD = parquet(path=["a"], size=[1], sha256=["1" * 64])
OTHER = b"not what was sent" * 100


def lied_about(going: bool, whole: bytes, held: bytes = SHARD) -> tuple[tuple[str, ...] | None, int]:
    """Which files a shard that cannot be read in parts turns out to hold, and how often all of it was read."""
    hub, file = Lying(OTHER, whole), ListedFile(PATH, len(OTHER), hashlib.sha256(held).hexdigest())
    own = read_lines(cast(Hub, hub), [PATH], listing(file), [PATH] if going else []).get(PATH)
    return tuple(one.path for one in own.images) if own else None, hub.read


def test_a_shard_that_would_go_and_that_the_hub_sends_otherwise_in_parts_is_read_as_a_whole() -> None:
    assert lied_about(going=True, whole=SHARD) == (("a",), 1)


def test_of_a_shard_that_would_go_and_of_which_other_bytes_come_nobody_can_know_what_it_holds() -> None:
    with pytest.raises(ShardUnreadable, match=rf"other bytes of {PATH} than it lists.*delete it on the Hub"):
        lied_about(going=True, whole=OTHER)


def test_what_the_hub_holds_and_is_no_shard_of_ours_is_none_when_all_of_it_is_read() -> None:
    assert lied_about(going=True, whole=OTHER, held=OTHER) == (None, 1)


def test_a_shard_that_nothing_replaces_is_not_read_as_a_whole() -> None:
    assert lied_about(going=False, whole=OTHER) == (None, 0)


class Silent:
    """A Hub that does not answer."""

    def stream(self, *_: object) -> Iterator[bytes]:
        raise HubUnreachable("no answer")


def test_of_a_hub_that_does_not_answer_nothing_is_known() -> None:
    with pytest.raises(HubUnreachable):
        read_lines(cast(Hub, Silent()), [PATH], listing(ListedFile(PATH, 1000, "9" * 64)))
