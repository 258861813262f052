"""The shards that were sent and wait for their commit, and how many of them the next one takes.

A commit costs the Hub a time of its own, however few files it has, and the Hub allows about 128 commits an hour. So a
commit takes more shards as long as the Hub makes it fast: 100,000 shards are about 110 commits, and not 1,112 of 90
shards each. If the Hub takes long, the next commit is smaller, before one ends in a timeout. The steps and the time are
those of the client's own uploader for large folders (`_upload_pipeline` of huggingface_hub), from the number of files
that the Hub's documentation recommends (50 to 100) upwards.
"""

from collections import deque
from dataclasses import dataclass, field

from tasks.transfer import Transferred

STEPS = (50, 90, 125, 200, 250, 400, 600, 1000)  # shards in one commit
BEGIN = STEPS.index(90)
LONG = 40.0  # seconds of a commit: one that takes longer is followed by a smaller one


@dataclass
class ToCommit:
    """The shards that wait for their commit, in the order in which they were sent."""

    max_shards: int
    """In one commit, whatever the Hub's speed."""
    max_bytes: int
    """About, in one commit. A larger shard is committed alone."""
    _step: int = BEGIN
    _waiting: deque[Transferred] = field(default_factory=deque)
    _bytes: int = 0

    def __bool__(self) -> bool:
        return bool(self._waiting)

    @property
    def shards(self) -> int:
        """The number of shards that the next commit takes."""
        return min(STEPS[self._step], self.max_shards)

    @property
    def full(self) -> bool:
        """Whether there is enough for a commit."""
        return len(self._waiting) >= self.shards or self._bytes >= self.max_bytes

    def add(self, one: Transferred) -> None:
        """Let a shard wait."""
        self._waiting.append(one)
        self._bytes += one.size

    def take(self) -> tuple[Transferred, ...]:
        """Return the shards of the next commit. They wait no longer."""
        taken: list[Transferred] = []
        size = 0
        while self._waiting and len(taken) < self.shards:
            if taken and size + self._waiting[0].size > self.max_bytes:
                break
            taken.append(self._waiting.popleft())
            size += taken[-1].size
        self._bytes -= size
        return tuple(taken)

    def took(self, seconds: float, shards: int) -> None:
        """Choose the size of the next commit, after one of so many shards has taken so long."""
        if seconds > LONG:
            self._step = max(self._step - 1, 0)
        elif shards >= self.shards:
            self._step = min(self._step + 1, len(STEPS) - 1)
