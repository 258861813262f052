"""Card: the dataset's page on the Hub, and the small files that go with the shards.

README.md is YAML for the Hub and `datasets` (`front`) and a block of Markdown for people (`body`). Both are written
from the dataset, the publication record (`counts`), and what else is known (`About`: what the operator stated, the
pictures, versions). A person may write before and after the block, and add to the YAML. Only our keys, and what stands
between our two markers, are rewritten.
"""

import io
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.parquet as pq

from tasks.bids.text import Row, columns_of
from tasks.card import markdown as md
from tasks.card.body import body
from tasks.card.counts import PublishedRows
from tasks.card.front import PARTICIPANTS, SESSIONS, UnreadableCard, front_matter, merged, split
from tasks.card.pictures import Picture, Pictures, draw, draw_pictures, pictures_on
from tasks.card.versions import CardVersions
from tasks.values.left_out import as_table
from tasks.values.models import Dataset, PublicationRecord
from tasks.values.our_paths import LEFT_OUT, is_reserved
from tasks.values.preflight_rules import Checked

__all__ = [
    "About",
    "CardVersions",
    "Picture",
    "Pictures",
    "UnreadableCard",
    "card",
    "draw",
    "draw_pictures",
    "pictures_on",
    "same_card",
    "side_files",
]

BEGIN = "<!-- bids-push:begin (rewritten by every push: write before this line, or after the end) -->"
END = "<!-- bids-push:end -->"
MADE = "<!-- bids-push:made -->"
_BLOCK = re.compile(r"<!-- bids-push:begin[^\n]*-->.*?<!-- bids-push:end -->", re.DOTALL)
_MADE = re.compile(rf"{MADE}.*?{MADE}", re.DOTALL)
_LONE_MARKER = re.compile(r"<!-- bids-push:(?:begin|end)[^\n]*-->\n?")


def side_files(dataset: Dataset) -> dict[str, bytes]:
    """Return the dataset's own texts, its tables of people and visits as Parquet, and the table of what was left out.

    Returns:
        Path in the repo -> bytes.
    """
    files = {f"bids/{path}": data for path, data in sorted(dataset.texts.items()) if not is_reserved(path)}
    files[f"bids/{LEFT_OUT}"] = as_table(dataset.unpublished)
    for path, rows in ((PARTICIPANTS, dataset.participants), (SESSIONS, dataset.sessions)):
        if rows:
            files[path] = _parquet(rows)
    return files


@dataclass(frozen=True, slots=True)
class About:
    """What a card says that is neither in the dataset nor in the record."""

    checked: Checked = field(default_factory=Checked)
    pictures: Pictures = field(default_factory=Pictures)
    versions: CardVersions = field(default_factory=CardVersions)


def card(
    dataset: Dataset, repo_id: str, record: PublicationRecord, existing: str | None, about: About | None = None
) -> str:
    """Return README.md of the repo.

    Args:
        dataset: the dataset.
        repo_id: the repo's name.
        record: what is published.
        existing: the card that is on the Hub now, or None.
        about: what else the card says.

    Raises:
        UnreadableCard: the YAML of the existing card cannot be read.
    """
    here = PublishedRows.of(dataset, record)
    front, text = split((existing or "").replace("\r\n", "\n"))
    about = about or About()
    words = body(dataset, repo_id, here, about.checked, about.pictures, _origin(about.versions))
    block = f"{BEGIN}\n\n{words}\n\n{END}"
    return f"---\n{merged(front_matter(dataset, here), front)}---\n\n{_replaced(text, block).strip()}\n"


def same_card(one: str, other: str | None) -> bool:
    """Return whether two cards say the same about the dataset, whatever made them.

    A newer bids-push, or a commit of the dataset's git tree that changes nothing here, is mentioned when something is
    published anyway. It is no reason to publish.
    """
    return other is not None and _MADE.sub("", one) == _MADE.sub("", other)


def _origin(versions: CardVersions) -> str:
    """Return where the published dataset comes from, between marks by which it is found again."""
    lines = []
    if versions.dataset:
        lines.append(f"- **Version of the dataset:** {md.text(versions.dataset)}")
    if versions.commit:
        lines.append(f"- **Commit of its git tree:** {md.code(versions.commit)}")
    if versions.tool:
        lines.append(f"- **Published with:** {md.text(versions.tool)}")
    return "\n".join([MADE, "", *lines, "", MADE]) if lines else ""


def _replaced(text: str, block: str) -> str:
    """Return the body with the block in its place, or at the end if it has none yet."""
    found = _BLOCK.search(text)
    if found:
        return text[: found.start()] + block + text[found.end() :]
    return f"{_LONE_MARKER.sub('', text).rstrip()}\n\n{block}"


def _parquet(rows: tuple[Row, ...]) -> bytes:
    """Return a small table as Parquet, every column a string."""
    names = columns_of(rows)
    columns = [_texts(row.get(name) for row in rows) for name in names]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(columns, names), sink, compression="zstd")
    return sink.getvalue()


def _texts(values: Iterable[str | None]) -> pa.StringArray:
    """Return a column of texts. `pa.array` would import pandas first, which takes longer than all else of a night."""
    column = pa.lib.StringBuilder()
    column.append_values(values)
    return column.finish()
