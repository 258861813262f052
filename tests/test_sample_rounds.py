"""Which shards are read back: every published one once in a stated number of nights, whatever comes and goes."""

import json
import random
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import process_time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.disk.sample_rounds import Round, key, read_round, write_round
from tasks.values.models import PublishedShard

NOW = datetime(2026, 11, 24, 2, tzinfo=UTC)


def shard(number: int, content: int = 0) -> PublishedShard:
    name = f"sub-{number:06}"
    sha256 = f"{number:032x}{content:032x}"
    return PublishedShard(path=f"data/{name}/{name}.parquet", digest="0" * 64, sha256=sha256, size=1, rows=0, images=())


@dataclass
class Nights:
    """A target that is verified night after night, and when each shard was read back last."""

    nights: int
    least: int = 3
    kept: Round | None = None
    published: dict[str, PublishedShard] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)
    """Nights that have passed since a shard's bytes were read back, or since the night before it came."""
    longest: int = 0
    read: list[int] = field(default_factory=list)
    """Shards read back in each night."""

    def night(self, sent: list[PublishedShard], gone: list[str] = (), unreadable: float = 0.0) -> set[str]:  # type: ignore[assignment]
        for path in gone:
            del self.published[path], self.waits[path]
        for one in sent:
            self.published[one.path], self.waits[one.path] = one, 0
        self.waits = {path: nights + 1 for path, nights in self.waits.items()}
        now = NOW + timedelta(days=len(self.read))
        shards = list(self.published.values())
        tonight = (self.kept or Round(now, self.nights)).begun(shards, self.nights, now)
        chosen = tonight.choose(shards, {one.path for one in sent}, self.least)
        self.longest = max([self.longest, *self.waits.values()])
        self.read.append(len(chosen))
        self.waits |= {one.path: 0 for one in chosen}
        self.kept = tonight.after(chosen)
        return {one.path for one in chosen}


changes = st.tuples(st.integers(0, 40), st.integers(0, 12), st.integers(0, 12))
"""Shards that come, go and change in a night."""


@pytest.mark.slow
@given(
    st.integers(1, 40),
    st.integers(1, 5),
    st.lists(changes, min_size=1, max_size=300),
    st.randoms(use_true_random=False),
)
def test_no_shard_waits_longer_than_the_stated_nights_whatever_comes_goes_and_changes(
    nights: int, least: int, history: list[tuple[int, int, int]], draw: random.Random
) -> None:
    target, numbers = Nights(nights, least), iter(range(1_000_000))
    for number, (come, go, change) in enumerate(history):
        gone = draw.sample(sorted(target.published), min(go, len(target.published)))
        staying = sorted(target.published.keys() - set(gone))
        changed = draw.sample(staying, min(change, len(staying)))
        sent = [shard(next(numbers)) for _ in range(come)]
        sent += [shard(int(path[-14:-8]), number + 1) for path in changed]
        target.night(sent, gone)
        assert target.longest <= nights


def test_shards_that_are_sent_every_night_do_not_take_the_places_of_the_others_for_ever() -> None:
    target = Nights(nights=20)
    target.night([shard(number) for number in range(200)])
    for night in range(200):  # more is sent each night than it reads back
        target.night([shard(number, night + 1) for number in range(30)])
    assert target.longest <= 20
    assert max(target.read) <= 2 * 10  # the night's ten places twice: those sent, and those due


def test_quiet_nights_read_back_the_same_number_each_and_all_of_it_in_one_round() -> None:
    target = Nights(nights=30)
    seen = target.night([shard(number) for number in range(902)])
    for _ in range(28):
        seen |= target.night([])
    assert target.kept is not None and target.kept.number == 1 and target.kept.left() == 902 - 29 * 31
    seen |= target.night([])
    assert len(seen) == 902 and set(target.read) == {31}
    assert (target.kept.left(), target.kept.read_in_it()) == (0, 902)
    target.night([])
    assert (target.kept.number, target.kept.read_in_it(), target.kept.first) == (2, 31, 31)
    assert target.kept.left() == 902 - 31
    assert target.kept.since == NOW + timedelta(days=30)


def test_a_small_target_is_read_back_three_shards_a_night() -> None:
    target = Nights(nights=30)
    target.night([shard(number) for number in range(10)])
    assert [len(target.night([])) for _ in range(5)] == [3] * 5
    assert target.kept is not None and target.kept.number == 2


def test_what_was_just_sent_is_read_back_first_and_counts() -> None:
    target = Nights(nights=5, least=1)
    target.night([shard(number) for number in range(20)])
    sent = [shard(100), shard(101)]
    chosen = target.night(sent)
    assert {one.path for one in sent} <= chosen and len(chosen) == 5


def test_a_changed_shard_is_another_one_and_a_round_does_not_wait_for_it() -> None:
    target = Nights(nights=4, least=1)
    target.night([shard(number) for number in range(4)])
    for _ in range(3):
        target.night([])
    assert target.kept is not None and (target.kept.left(), target.kept.read_in_it()) == (0, 4)
    before = target.kept
    target.night([shard(0, 1), shard(1, 1)])
    assert target.kept.number == before.number + 1 and shard(0, 1).path in {
        one.path for one in target.published.values()
    }
    assert len(target.kept.read) + len(target.kept.unread) == 4


def test_what_was_read_back_before_it_changed_is_to_be_read_back() -> None:
    target = Nights(nights=4, least=1)
    target.night([shard(number) for number in range(4)])
    for _ in range(3):
        target.night([])
    target.night([shard(number, 1) for number in range(4)])  # a night reads one of them back
    assert target.kept is not None and (len(target.kept.read), len(target.kept.unread)) == (1, 3)


def test_a_shard_that_failed_holds_its_round_open_and_is_due_again() -> None:
    kept, shards = Round(NOW, 3), [shard(number) for number in range(6)]
    for _ in range(12):
        tonight = kept.begun(shards, 3, NOW)
        chosen = tonight.choose(shards, (), 1)
        assert len(chosen) <= 3  # one that is long overdue takes one place of the two, and no more
        kept = tonight.after(one for one in chosen if one != shards[2])
    assert kept.number == 1 and kept.left() == 1
    assert shards[2] in kept.begun(shards, 3, NOW).choose(shards, (), 1)


@pytest.mark.slow
def test_a_smaller_number_of_nights_is_reached_without_reading_everything_at_once() -> None:
    target = Nights(nights=100)
    target.night([shard(number) for number in range(600)])
    for _ in range(150):
        target.night([])
    target.nights, target.longest = 30, 0
    target.waits = dict.fromkeys(target.waits, 0)  # the promise counts from now
    for _ in range(90):
        target.night([])
    assert target.longest <= 30 and max(target.read) == 20


def test_the_round_is_the_same_after_it_was_kept_in_a_file(tmp_path: Path) -> None:
    target = Nights(nights=7)
    for night in range(20):
        target.night([shard(5 * night + number, night) for number in range(8)])
    assert target.kept is not None
    kept = replace(target.kept, unread={"f" * 16: 20, "0" * 16: 19, "1" * 16: 20})
    assert len({*kept.read.values()}) > 1
    write_round(tmp_path / "round.json", kept)
    assert read_round(tmp_path / "round.json", 99, NOW) == (kept, "")


@pytest.mark.parametrize("name", ["first", "agreed", "read", "unread"])
def test_a_file_that_tells_of_a_night_that_has_not_been_is_damaged(tmp_path: Path, name: str) -> None:
    """A round may begin with the night that comes next, and nothing was read in that one yet."""
    path, last = tmp_path / "round.json", 8 if name in ("first", "agreed") else 7
    for told in (last, last + 1):
        write_round(path, replace(Round(NOW, 7, night=7), **{name: {"0" * 16: told} if "read" in name else told}))  # type: ignore[arg-type]
        assert bool(read_round(path, 7, NOW)[1]) is (told > last)


def test_another_number_of_nights_counts_from_the_night_in_which_it_was_first_asked_for() -> None:
    shards = [shard(number) for number in range(60)]
    kept = Round(NOW, 100, night=50, agreed=3, read={key(one): 1 + number for number, one in enumerate(shards[:50])})
    tonight = kept.begun(shards, 30, NOW)
    assert (tonight.night, tonight.nights, tonight.agreed) == (51, 30, 51)
    assert tonight.choose(shards, (), 1) == shards[:2]  # two a night are all of them in thirty
    for night in (52, 53):
        tonight = tonight.begun(shards, 30, NOW)
        assert (tonight.night, tonight.nights, tonight.agreed) == (night, 30, 51)


@pytest.mark.parametrize("night", [0, 10])
def test_what_no_night_has_seen_yet_is_read_back_before_what_was_read_last(night: int) -> None:
    """A cleanup reads some back in no night of its own."""
    shards = [shard(number) for number in range(3)]
    kept = Round(NOW, 100, night=night, read={key(one): night for one in shards[1:]})
    assert kept.choose(shards, (), 1) == shards[:1]
    assert len(kept.choose(shards, (), 3)) == 3
    assert kept.choose([], (), 3) == []


def test_of_those_that_are_due_at_once_the_longest_unread_are_read_back_first() -> None:
    """All are due at once where the number of nights was larger before."""
    shards = [shard(number) for number in range(20)]
    ages = {key(one): number for number, one in enumerate(shards)}
    kept = Round(NOW, 5, night=50, agreed=50, read={one: date for one, date in ages.items() if date % 2})
    kept = replace(kept, unread={one: date for one, date in ages.items() if not date % 2})
    assert kept.choose(shards[::-1], (), 3) == shards[:4]


def test_what_a_cleanup_reads_back_before_any_night_is_kept_too(tmp_path: Path) -> None:
    shards, path = [shard(number) for number in range(4)], tmp_path / "round.json"
    write_round(path, read_round(path, 2, NOW)[0].after(shards[:1]))
    kept, said = read_round(path, 2, NOW)
    assert not said and len(kept.read) == 1
    tonight = kept.begun(shards, 2, NOW)
    assert tonight.number == 1 and len({one.path for one in tonight.choose(shards, (), 1)}) == 2


@pytest.mark.parametrize("damage", ["lost", "cut", "empty", "other", "future", "folder"])
def test_a_lost_or_damaged_file_begins_a_new_round_and_says_so(tmp_path: Path, damage: str) -> None:
    path, target = tmp_path / "round.json", Nights(nights=7)
    target.night([shard(number) for number in range(9)])
    assert target.kept is not None
    write_round(path, target.kept)
    good = path.read_text()
    path.unlink()
    if damage == "folder":
        path.mkdir()
    elif damage != "lost":
        later = json.dumps({**json.loads(good), "read": {"9999": ["0" * 16]}})
        path.write_text({"cut": good[:-9], "empty": "", "other": "[]", "future": later}[damage])
    why = "there is no round.json of an earlier one here" if damage == "lost" else "round.json cannot be read"
    said = f"A new round of reading the published shards back begins: {why}."
    assert read_round(path, 7, NOW) == (Round(NOW, 7), said)


@pytest.mark.slow
def test_a_hundred_thousand_shards_cost_a_few_seconds_and_megabytes(tmp_path: Path) -> None:
    shards = [shard(number) for number in range(100_000)]
    path = tmp_path / "round.json"
    write_round(path, Round(NOW, 30).begun(shards, 30, NOW).after(shards[:50_000]))
    start = process_time()
    kept, _ = read_round(path, 30, NOW)
    tonight = kept.begun(shards, 30, NOW)
    write_round(path, tonight.after(tonight.choose(shards, (), 3)))
    assert process_time() - start < 8
    assert path.stat().st_size < 3_000_000
