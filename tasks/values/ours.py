"""Which paths of a dataset repo are ours: the folders that a push writes to, and nothing beside them.

A line of the publication record is data that anybody with write access to the repo may have edited. What stands there
is believed for a path that a push of ours could have written, and is never a reason to touch another: a person's
README, a file of another tool, a path that leads out of its folder.

- A shard: `data/<folder>/<name>.parquet`, with names as `tasks.plan` makes them.
- A text of the dataset below `bids/` (all but the record's own names there), a table `tables/<name>.parquet`.
"""

import re

#: Names as `tasks.plan` makes them from entities and labels, and dots, which other versions may use.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_SHARD = re.compile(rf"data/{_NAME}/{_NAME}\.parquet")
#: Below `bids/`, the publication record's own names, however a file system writes them.
_RECORD = re.compile(r"(?:shards\.jsonl|record(?:/.*)?)", re.IGNORECASE | re.DOTALL)
#: A path of a text: a folder of ours, and parts that are neither empty nor `.` nor `..`. Names are the dataset's own.
_TEXT = re.compile(r"bids(?:/(?!\.{0,2}(?:/|\Z))[^/]+)+", re.DOTALL)
#: What `tasks.card` makes of the dataset's tables.
_TABLE = re.compile(r"tables/[a-z]+\.parquet")
MOST = 4096  # bytes of a path; Linux takes no longer one


def is_shard(path: str) -> bool:
    """Whether this is the path of a shard that a push could have published."""
    return len(path) <= MOST and _SHARD.fullmatch(path) is not None


def is_text(path: str) -> bool:
    """Whether this is the path of a text or table of the dataset that a push could have published."""
    if not (path.isprintable() and len(path) <= MOST):
        return False
    if _TABLE.fullmatch(path):
        return True
    return _TEXT.fullmatch(path) is not None and not is_record(path.removeprefix("bids/"))


def is_record(name: str) -> bool:
    """Whether a name below `bids/` is the publication record's: a text of the dataset that has it is not published."""
    return _RECORD.fullmatch(name) is not None
