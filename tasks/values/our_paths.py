"""Which paths of a dataset repo are ours: the folders that a push writes to, and nothing else.

Anybody with write access to the repo may have edited the publication record. So a line of it is believed only for a
path that one of our pushes could have written. It is never a reason to touch another path: a person's README, a file of
another tool, or a path that leads out of its folder.

- A shard is `data/<folder>/<name>.parquet`, with names as `tasks.plan` makes them. In a repo of very many subjects it
  is `data/<two digits>/<folder>/<name>.parquet`, with the first digits of the sha256 of the folder's name.
- A text of the dataset is below `bids/`, except for the record's own names there.
- A table is `tables/<name>.parquet`.
"""

import hashlib
import re
from pathlib import PurePosixPath

SHARDS = "data"  # the folder of the repo in which the shards are
HASHED = 2  # hexadecimal digits of a hashed folder: 256 of them

#: Names as `tasks.plan` makes them from entities and labels. Dots are allowed because other versions may use them.
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
_SHARD = re.compile(rf"{SHARDS}/(?:[0-9a-f]{{{HASHED}}}/)?{_NAME}/{_NAME}\.parquet")
#: The publication record's own names below `bids/`, in upper or lower case, since some file systems do not tell them
#: apart.
_RECORD = re.compile(r"(?:shards\.jsonl|record(?:/.*)?)", re.IGNORECASE | re.DOTALL)
#: The table of what is not published (`tasks.values.left_out`), below `bids/`.
LEFT_OUT = "left_out.tsv"
#: The path of a text: a folder of ours, then parts that are not empty, `.` or `..`. The names are the dataset's own.
_TEXT = re.compile(r"bids(?:/(?!\.{0,2}(?:/|\Z))[^/]+)+", re.DOTALL)
#: The tables that `tasks.card` makes.
_TABLE = re.compile(r"tables/[a-z]+\.parquet")
MOST = 4096  # bytes of a path; Linux takes no longer one


def is_shard(path: str) -> bool:
    """Return whether a push could have published a shard at this path."""
    return len(path) <= MOST and _SHARD.fullmatch(path) is not None


def shard_path(folder: str, name: str, hashed: bool) -> str:
    """Return the path in the repo of a shard.

    Args:
        folder: the name of its folder: `sub-01`.
        name: its own name: `sub-01_ses-1`.
        hashed: whether its folder lies in one of the 256 hashed ones, as in a repo of very many subjects.
    """
    within = f"{hashlib.sha256(folder.encode()).hexdigest()[:HASHED]}/" if hashed else ""
    return f"{SHARDS}/{within}{folder}/{name}.parquet"


def is_hashed(path: str) -> bool:
    """Return whether a shard's folder lies in a hashed one."""
    return path.count("/") == 3


def other_path(path: str) -> str:
    """Return where the same shard would be if its folder lay in a hashed one, or in none if it does."""
    shard = PurePosixPath(path)
    return shard_path(shard.parent.name, shard.stem, not is_hashed(path))


def is_text(path: str) -> bool:
    """Return whether a push could have published a text or table of the dataset at this path."""
    if not (path.isprintable() and len(path) <= MOST):
        return False
    if _TABLE.fullmatch(path):
        return True
    return _TEXT.fullmatch(path) is not None and not is_record(path.removeprefix("bids/"))


def is_record(name: str) -> bool:
    """Return whether a name below `bids/` belongs to the publication record.

    A text of the dataset with such a name is not published.
    """
    return _RECORD.fullmatch(name) is not None


def is_reserved(name: str) -> bool:
    """Return whether a name below `bids/` is one of our own files, so that no text of the dataset can have it there."""
    return is_record(name) or name.lower() == LEFT_OUT
