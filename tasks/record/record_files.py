"""The files of the publication record: which of them a commit writes, so that it costs by its batch.

A record that is small, up to `WHOLE` bytes, is one file, `bids/shards.jsonl`, which every commit writes anew. To write
a large one anew with each commit would cost the square of its size over a whole push. So a commit then adds a *segment*
beside it, `bids/record/lines-000007-0.jsonl`, with the lines that it changes:

- a line in a later file counts instead of the line of the same path in an earlier one;
- a line with `"removed": true` says that the path has none any more;
- `bids/record/index.json` names the segments, the oldest first. If it cannot be read, they are found by their names.

`FAN` segments of one level become one of the next level, and once the segments hold as many bytes as the first file,
all becomes that file again (as a log-structured merge tree does it). So a line is written a few times, however many
commits there are, and a reader needs a few dozen requests at most. The files that a merge replaces leave the repo in
the same commit. No other file is ever removed for this, and only a file that was read at the parent commit.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tasks.values.models import RECORD, PublicationRecord, RecordFile

WHOLE = 1 << 20  # bytes: as much as a commit may write each time without anybody noticing
FAN = 8

_SEGMENT = re.compile(r"bids/record/lines-(\d{6,12})-(\d)\.jsonl")
TOP = 9  # the highest level: 8 ** 9 commits


def is_segment(path: str) -> bool:
    """Return whether a path in the repo is that of a segment."""
    return _SEGMENT.fullmatch(path) is not None


def in_order(paths: Iterable[str]) -> list[str]:
    """Return the paths of segments among these, the oldest first."""
    return sorted(filter(is_segment, paths), key=_number)


def _number(path: str) -> int:
    found = _SEGMENT.fullmatch(path)
    assert found is not None
    return int(found[1])


def _level(path: str) -> int:
    found = _SEGMENT.fullmatch(path)
    assert found is not None
    return int(found[2])


@dataclass(frozen=True)
class RecordChange:
    """What a commit does to the files of the record."""

    record: PublicationRecord
    """The record that is true after it, with the files that it is in."""
    written: dict[str, bytes]
    """Path in the repo -> bytes."""
    merged: tuple[RecordFile, ...] = ()
    """The segments whose lines are in a written file now. They leave the repo with the same commit."""


def files_to_write(
    before: PublicationRecord,
    after: PublicationRecord,
    touched: Collection[str],
    anew: bool = False,
    whole: int = WHOLE,
) -> RecordChange:
    """Return which files of the record a commit writes, and which it takes away, besides the index.

    Args:
        before: the record at the commit below.
        after: the record that is true after the commit.
        touched: the paths of the shards whose lines may differ between both.
        anew: whether to write all of it, because something in it is damaged.
        whole: bytes up to which a record is one file.
    """
    first, *segments = before.files or (RecordFile(path=RECORD),)
    lines = after.dump_lines(touched)
    inside = sum(segment.size for segment in segments) + len(lines)
    if anew or first.size + inside <= whole or inside > first.size:
        data = after.dump()
        files = (RecordFile.of(RECORD, data),)
        return RecordChange(_with(after, files), {RECORD: data}, tuple(segments))
    if not touched:
        return RecordChange(_with(after, before.files), {})
    level, paths = 0, set(touched)
    merged: list[RecordFile] = []
    while level < TOP and len(newest := _newest(segments, level)) >= FAN - 1:
        segments, merged = segments[: -len(newest)], [*merged, *newest]
        paths |= {path for one in newest for path in one.shards}
        level += 1
    data = after.dump_lines(paths)
    number = 1 + max((_number(one.path) for one in before.files[1:]), default=0)
    made = RecordFile.of(f"bids/record/lines-{number:06d}-{level}.jsonl", data, paths)
    return RecordChange(_with(after, (first, *segments, made)), {made.path: data}, tuple(merged))


def _newest(segments: list[RecordFile], level: int) -> list[RecordFile]:
    """Return the segments of this level at the end of the list."""
    number = len(segments)
    while number and _level(segments[number - 1].path) == level:
        number -= 1
    return segments[number:]


def _with(record: PublicationRecord, files: tuple[RecordFile, ...]) -> PublicationRecord:
    return record.model_copy(update={"files": files})
