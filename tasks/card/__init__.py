"""Card: the dataset's page on the Hub, and the small files that go with the shards.

README.md is YAML for the Hub and `datasets` (`front`) and a block of Markdown for people (`body`), written from the
dataset and the publication record (`counts`). A person may write before and after the block and add to the YAML: only
our keys, and what stands between our two markers, are rewritten.
"""

import io
import re

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.card.body import body
from tasks.card.counts import Published
from tasks.card.front import PARTICIPANTS, SESSIONS, UnreadableCard, front_matter, merged, split
from tasks.models import Dataset, PublicationRecord
from tasks.text import Row, columns_of

__all__ = ["UnreadableCard", "card", "side_files"]

BEGIN = "<!-- bids-push:begin (rewritten by every push: write before this line, or after the end) -->"
END = "<!-- bids-push:end -->"
RECORD = "shards.jsonl"  # under bids/, the publication record's own name
_BLOCK = re.compile(r"<!-- bids-push:begin[^\n]*-->.*?<!-- bids-push:end -->", re.DOTALL)
_LONE_MARKER = re.compile(r"<!-- bids-push:(?:begin|end)[^\n]*-->\n?")


def side_files(dataset: Dataset) -> dict[str, bytes]:
    """Path in the repo -> bytes: the dataset's own texts, and its tables of people and visits as Parquet."""
    files = {f"bids/{path}": data for path, data in sorted(dataset.texts.items()) if path.casefold() != RECORD}
    for path, rows in ((PARTICIPANTS, dataset.participants), (SESSIONS, dataset.sessions)):
        if rows:
            files[path] = _parquet(rows)
    return files


def card(dataset: Dataset, repo_id: str, published: PublicationRecord, existing: str | None) -> str:
    """README.md of the repo; `existing` is the card that is on the Hub now, or None.

    Raises:
        UnreadableCard: the YAML of the existing card cannot be read.
    """
    here = Published.of(dataset, published)
    front, text = split((existing or "").replace("\r\n", "\n"))
    block = f"{BEGIN}\n\n{body(dataset, repo_id, here)}\n\n{END}"
    return f"---\n{merged(front_matter(dataset, here), front)}---\n\n{_replaced(text, block).strip()}\n"


def _replaced(text: str, block: str) -> str:
    """The body with the block in its place, or at the end where it has none yet."""
    found = _BLOCK.search(text)
    if found:
        return text[: found.start()] + block + text[found.end() :]
    return f"{_LONE_MARKER.sub('', text).rstrip()}\n\n{block}"


def _parquet(rows: tuple[Row, ...]) -> bytes:
    """A small table, every column a string."""
    columns = {name: pa.array([row.get(name) for row in rows], pa.string()) for name in columns_of(rows)}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, compression="zstd")
    return sink.getvalue()
