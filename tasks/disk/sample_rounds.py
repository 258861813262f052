"""Chooses the shards that a run reads back, so that each published shard is read once in a stated number of nights.

How it works. A night is a run that verifies the whole target and reads some of it back. Each shard has a date: the
night in which its bytes were last read back or, before the first time, the night before the one in which it was first
seen. It is due `BIDS_PUSH_SAMPLE_NIGHTS` nights after its date. A night reads back

1. what it has just sent, up to the night's places: `max(BIDS_PUSH_SAMPLE_SHARDS, shards / nights)`,
2. in the places that are left, the shards that are due first,
3. and more of those if the coming nights would not have enough places for all that is due in them. So shards that are
   sent night after night do not take the places of the others for ever.

So two readings of a shard are never further apart than the stated number of nights, whatever days the schedule runs on,
and however many shards come, go and change. A changed shard counts as a new one. Shards that are due at the same time
follow each other in the order of a hash, so that no subject is always the last.

A round ends when everything that was published at its beginning has been read back in it, or is gone, or has changed.
The next night begins the next round. Rounds are there for people: what is read depends on the dates alone.

The file (`round.json`) may be lost or damaged without harm: a new round begins, and reads everything back once.
"""

import hashlib
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path

from tasks.disk.files import write_whole
from tasks.values.models import PublishedShard, Value

KEY = 16  # hexadecimal digits that stand for a shard in the file: enough for a hundred thousand, and small


class _File(Value):
    """The content of `round.json`: the round, and its shards grouped by date."""

    number: int
    since: datetime
    first: int
    night: int
    nights: int
    agreed: int
    read: dict[int, tuple[str, ...]]
    unread: dict[int, tuple[str, ...]]


@dataclass(frozen=True)
class Round:
    """A round, and the date of each shard, as the module explains them."""

    since: datetime
    nights: int
    """The number of nights in which each shard has to be read back once."""
    number: int = 1
    first: int = 1
    """The night in which the round began."""
    night: int = 0
    """The number of nights so far, in all rounds."""
    agreed: int = 1
    """The night since which `nights` has its present value. If it was larger before, not everything is due at once."""
    read: Mapping[str, int] = field(default_factory=dict)
    """Shards whose bytes were right: key -> the night in which they were last read back."""
    unread: Mapping[str, int] = field(default_factory=dict)
    """Shards that were not read back yet: key -> the night before the one in which they were first seen."""

    def begun(self, shards: Iterable[PublishedShard], nights: int, now: datetime) -> "Round":
        """Return the round at the beginning of a night: this one, or the next one if this one has ended.

        Args:
            shards: the shards that are published.
            nights: the number of nights in which each has to be read back once.
            now: the beginning of the next round, if it begins.
        """
        night = self.night + 1
        keys = {key(shard) for shard in shards}
        read = {known: date for known, date in self.read.items() if known in keys}
        unread = {one: self.unread.get(one, night - 1) for one in keys - read.keys()}
        agreed = self.agreed if nights == self.nights else night
        tonight = replace(self, night=night, nights=nights, agreed=agreed, read=read, unread=unread)
        if self.night and not any(date < self.first for date in (*read.values(), *unread.values())):
            return replace(tonight, number=self.number + 1, first=night, since=now)
        return tonight

    def choose(self, shards: Sequence[PublishedShard], sent: Collection[str], least: int) -> list[PublishedShard]:
        """Return the shards to read back: first those that were just sent, then those that are due first.

        Args:
            shards: the shards that are published.
            sent: the paths of those that this run has just sent.
            least: the least number of shards to read back in a night.
        """
        places = self.places(len(shards), least)
        order = sorted((self._due(one), self._date(one), one, number) for number, one in enumerate(map(key, shards)))
        by_date = [(due, shards[number]) for due, _, _, number in order]
        just_sent = [shard for _, shard in by_date if shard.path in sent][:places]
        taken = {shard.path for shard in just_sent}
        others = [(max(due - self.night, 0), shard) for due, shard in by_date if shard.path not in taken]
        owed = max((number - later * places for number, (later, _) in enumerate(others, start=1)), default=0)
        return just_sent + [shard for _, shard in others[: max(places - len(just_sent), owed)]]

    def places(self, shards: int, least: int) -> int:
        """Return how many shards a night reads back if nothing is owed."""
        return max(least, -(-shards // self.nights))

    def after(self, read_back: Iterable[PublishedShard]) -> "Round":
        """Return the round after the bytes of these shards came back and were right."""
        keys = {key(shard) for shard in read_back}
        unread = {one: date for one, date in self.unread.items() if one not in keys}
        return replace(self, read={**self.read, **dict.fromkeys(keys, self.night)}, unread=unread)

    def read_in_it(self) -> int:
        """Return how many shards were read back in this round."""
        return sum(date >= self.first for date in self.read.values())

    def left(self) -> int:
        """Return how many shards have to be read back before this round ends."""
        return sum(date < self.first for date in (*self.read.values(), *self.unread.values()))

    def _date(self, one: str) -> int:
        return self.read.get(one, self.unread.get(one, self.night - 1))

    def _due(self, one: str) -> int:
        return max(self._date(one), self.agreed - 1) + self.nights


def key(shard: PublishedShard) -> str:
    """Return a short name for a shard with its present bytes."""
    return hashlib.sha256(f"{shard.path}\n{shard.sha256}".encode()).hexdigest()[:KEY]


def read_round(path: Path, nights: int, now: datetime) -> tuple[Round, str]:
    """Read a round from its file.

    Args:
        path: the file.
        nights: the number of nights of a new round.
        now: the beginning of a new round.

    Returns:
        The round that is kept, or a new one with a sentence that says why; the sentence is empty otherwise.
    """
    begins = "A new round of reading the published shards back begins"
    try:
        found = _File.model_validate_json(path.read_bytes())
        if max(found.first - 1, found.agreed - 1, *found.read, *found.unread) > found.night:
            raise ValueError("a night that has not been")
    except FileNotFoundError:
        return Round(now, nights), f"{begins}: there is no {path.name} of an earlier one here."
    except (OSError, ValueError):  # pydantic's error is a ValueError
        return Round(now, nights), f"{begins}: {path.name} cannot be read."
    kept = found.model_dump(exclude={"read", "unread"})
    return Round(**kept, read=_by_key(found.read), unread=_by_key(found.unread)), ""


def write_round(path: Path, kept: Round) -> None:
    """Keep a round in a file, whole."""
    fields = {name: getattr(kept, name) for name in _File.model_fields}
    found = _File(**{**fields, "read": _by_date(kept.read), "unread": _by_date(kept.unread)})
    write_whole(path, found.model_dump_json().encode(), durable=False)


def _by_key(by_date: Mapping[int, Sequence[str]]) -> dict[str, int]:
    return {one: date for date, keys in sorted(by_date.items()) for one in keys}


def _by_date(by_key: Mapping[str, int]) -> dict[int, tuple[str, ...]]:
    dates: dict[int, list[str]] = defaultdict(list)
    for one, date in sorted(by_key.items()):
        dates[date].append(one)
    return {date: tuple(keys) for date, keys in sorted(dates.items())}
