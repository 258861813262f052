"""The repo as anybody reads it: its files at the head of a branch, the rows of its shards, the lines of its record.

Read with huggingface_hub's client and pyarrow alone. Every byte of a commit is read: a listing is what somebody
claimed.
"""

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow.parquet as pq
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.utils import get_session

from year.world import Row, as_json, sha256

RECORD = "bids/shards.jsonl"
INDEX = "bids/record/index.json"
CARD = "README.md"
_rows: dict[str, dict[str, Row] | None] = {}  # by a shard's sha256: most shards are the same in most nights


@dataclass(frozen=True)
class Line:
    """A line of the record."""

    digest: str
    sha256: str
    size: int
    rows: int
    images: Mapping[str, str]
    """The sha256 of each file in the shard, by its path."""


@dataclass(frozen=True)
class Head:
    """Every file of the repo at its head."""

    commit: str = ""
    files: Mapping[str, bytes] = field(default_factory=dict)
    corrected: Mapping[str, Line] = field(default_factory=dict)
    """Lines that count instead of the record's own, by path."""

    @cached_property
    def shards(self) -> dict[str, dict[str, Row] | None]:
        """The rows of each file in data/, by path; None for one that is no shard."""
        return {path: rows_of(data) for path, data in self.files.items() if path.startswith("data/")}

    @cached_property
    def record(self) -> dict[str, Line]:
        """The lines that can be read, by path."""
        lines = {}
        for text in self.files.get(RECORD, b"").splitlines():
            try:
                line = json.loads(text)
                images = {image["path"]: image["sha256"] for image in line["images"]}
                lines[line["path"]] = Line(line["digest"], line["sha256"], line["size"], line["rows"], images)
            except (ValueError, KeyError, TypeError):
                continue
        return lines | dict(self.corrected)

    @property
    def record_was_edited(self) -> bool:
        """Whether the record's lines are others than its index was written with, or no index says so."""
        written: Mapping[str, str] = self.index.get("lines_sha256", {})
        return dict(written) != {RECORD: sha256(self.files.get(RECORD, b""))}

    def line_of(self, path: str) -> Line | None:
        """Return the line that a shard would have by its own rows; None if it is none."""
        rows, data = self.shards.get(path), self.files.get(path, b"")
        if rows is None:
            return None
        return Line("0" * 64, sha256(data), len(data), len(rows), {row: of.sha256 for row, of in rows.items()})

    @property
    def record_lines(self) -> int:
        """The number of lines of the record, whatever is in them."""
        return len(self.files.get(RECORD, b"").splitlines())

    @cached_property
    def index(self) -> dict[str, Any]:
        """The record's index; empty if it cannot be read."""
        try:
            found = json.loads(self.files.get(INDEX, b"{}"))
        except ValueError:
            return {}
        return found if isinstance(found, dict) else {}

    @property
    def texts(self) -> dict[str, str]:
        """The sha256 of each text that the index says was published, by its path."""
        try:
            return {text["path"]: text["sha256"] for text in self.index.get("texts", ())}
        except (KeyError, TypeError):
            return {}


def rows_of(data: bytes) -> dict[str, Row] | None:
    """Return the rows of a shard by their files' paths, or None if the bytes are no shard."""
    key = sha256(data)
    if key not in _rows:
        _rows[key] = _read_rows(data)
    return _rows[key]


def _read_rows(data: bytes) -> dict[str, Row] | None:
    try:
        table = pq.read_table(io.BytesIO(data))
    except (OSError, ValueError):
        return None
    rows = {}
    for row in table.to_pylist():
        content = row["nifti"]["bytes"] if row["kind"] == "image" else row["content"]
        assert row["size"] == len(content) and row["sha256"] == sha256(content), f"{row['path']}: size or sha256 column"
        participant = json.loads(row["participant"] or "{}")
        participant.pop("participant_id", None)
        metadata = as_json(json.loads(row["metadata"] or "{}"))
        assert row["path"] not in rows, f"{row['path']} stands twice in a shard"
        rows[row["path"]] = Row(row["sha256"], metadata, as_json(participant))
    return rows


@dataclass
class Repo:
    """The repo on its Hub, as its owner and as strangers use it."""

    endpoint: str
    repo_id: str
    token: str = field(repr=False)

    @cached_property
    def api(self) -> HfApi:
        """The owner's client."""
        return HfApi(endpoint=self.endpoint, token=self.token)

    def commit_at_head(self) -> str:
        """Return the commit that the branch is at; empty if there is no repo."""
        try:
            return self.api.dataset_info(self.repo_id).sha or ""
        except RepositoryNotFoundError:
            return ""

    def head(self, known: Head) -> Head:
        """Read every file at the head.

        Args:
            known: a head that was read before. It is returned as it is if nobody has committed since.
        """
        commit = self.commit_at_head()
        if commit == known.commit:
            return known
        paths = self.api.list_repo_files(self.repo_id, repo_type="dataset", revision=commit)
        return Head(commit, {path: self.read(path, commit) for path in paths})

    def read(self, path: str, commit: str) -> bytes:
        """Return a file's bytes as the Hub sends them."""
        url = f"{self.endpoint}/datasets/{self.repo_id}/resolve/{commit}/{path}"
        answer = get_session().get(url, headers={"authorization": f"Bearer {self.token}"}, follow_redirects=True)
        answer.raise_for_status()
        return answer.content

    def commit(self, message: str, add: Mapping[str, bytes] | None = None, delete: tuple[str, ...] = ()) -> None:
        """Commit as somebody who is not bids-push.

        Args:
            message: the commit's message.
            add: the files to add or to replace: path -> bytes.
            delete: the paths of the files to delete.
        """
        operations: list[CommitOperationAdd | CommitOperationDelete] = [
            CommitOperationAdd(path, data) for path, data in (add or {}).items()
        ]
        operations += [CommitOperationDelete(path) for path in delete]
        self.api.create_commit(self.repo_id, operations, commit_message=message, repo_type="dataset")
