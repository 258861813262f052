"""The tables of people, visits and scans (BIDS specification, "Data summary files").

They are participants.tsv at a root, `sub-*_sessions.tsv` in a subject's folder, and `*_scans.tsv` in the folder of a
subject or a session. Each row becomes a JSON text in the rows of the images that it is about.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path

from tasks.bids.annex import require_fetched, unfetched
from tasks.bids.text import BadTable, NotText, Row, decode, read_table, to_json
from tasks.load.errors import UnreadableTable
from tasks.load.tree import Folder, Root

PARTICIPANTS = "participants.tsv"


def read(source: Path, path: str, needed: str) -> list[Row]:
    """Read the rows of a table of the dataset. The table must have the column `needed`.

    Raises:
        UnreadableTable: it is not fetched, is no text or no table, or has no such column.
    """
    try:
        data = (source / path).read_bytes()
        require_fetched(data)
        rows = read_table(decode(data))
    except FileNotFoundError as error:
        raise UnreadableTable(f"{path} is {unfetched(error)}, and push again.") from error
    except (OSError, NotText, BadTable) as error:
        raise UnreadableTable(f"{path} cannot be read: {error}. Correct it, or name it in .bidsignore.") from error
    if rows and needed not in rows[0]:
        raise UnreadableTable(
            f"{path} has no column {needed!r} among the {len(rows[0])} of its first line, which BIDS requires. Correct "
            "it, or name it in .bidsignore."
        )
    return rows


def labelled(value: str | None, prefix: str) -> str:
    """Return `sub-01` both for `sub-01` and for `01`, which some tables have."""
    return value if (value or "").startswith(prefix) else f"{prefix}{value}"  # type: ignore[return-value]


class Tables:
    """The rows of every table of the tree, found by what they are about."""

    def __init__(self, source: Path, folders: Iterable[Folder]) -> None:
        self.used: set[str] = set()
        self.participants: list[Row] = []
        self.sessions: list[Row] = []
        self._source = source
        self._of_participant: dict[str, dict[str, str]] = {}
        self._of_session: dict[tuple[str, str, str], str] = {}
        self._of_scan: dict[str, str] = {}
        for folder in folders:
            for name in folder.files:
                self._take(folder, name)

    def participant(self, root: Root, sub: str | None) -> str | None:
        """Return a subject's row, or None.

        For a derivative, the table at the tree's root comes before its own. For any other nested dataset, its own comes
        first.
        """
        order = ("", root.path) if root.derivative else (root.path, "")
        rows = (self._of_participant.get(path, {}).get(f"sub-{sub}") for path in order)
        return next((row for row in rows if row is not None), None)

    def session(self, root: Root, sub: str | None, ses: str | None) -> str | None:
        """Return a session's row, or None. The order of the tables is that of `participant`."""
        order = ("", root.path) if root.derivative else (root.path, "")
        rows = (self._of_session.get((path, f"sub-{sub}", f"ses-{ses}")) for path in order)
        return next((row for row in rows if row is not None), None)

    def scan(self, path: str) -> str | None:
        """Return an image's row of the scans table beside it, or None."""
        return self._of_scan.get(path)

    def _take(self, folder: Folder, name: str) -> None:
        """Read a file if it is one of the tables."""
        path, at_root = folder.below(name), folder.path == folder.root.path
        if at_root and name == PARTICIPANTS:
            self._take_participants(folder.root, read(self._source, path, "participant_id"))
        elif not at_root and name.endswith("_sessions.tsv"):
            self._take_sessions(folder.root, name.split("_")[0], read(self._source, path, "session_id"))
        elif not at_root and name.endswith("_scans.tsv"):
            for row in read(self._source, path, "filename"):
                self._of_scan[folder.below((row["filename"] or "").removeprefix("./"))] = to_json(row)
        else:
            return
        self.used.add(path)

    def _take_participants(self, root: Root, rows: Sequence[Row]) -> None:
        by_subject: dict[str, str] = {}
        for row in rows:
            subject, text = labelled(row["participant_id"], "sub-"), to_json(row)
            if by_subject.setdefault(subject, text) != text:
                raise UnreadableTable(
                    f"{PARTICIPANTS} of {root.name} has two rows for {subject}, and they differ: which one describes "
                    "the images cannot be known. Keep one (rows a visit belong into sub-*/sub-*_sessions.tsv)."
                )
        self._of_participant[root.path] = by_subject
        if not root.path:
            self.participants = list(rows)

    def _take_sessions(self, root: Root, subject: str, rows: Sequence[Row]) -> None:
        for row in rows:
            key = (root.path, subject, labelled(row["session_id"], "ses-"))
            self._of_session[key] = to_json(row)
            if not root.path:
                self.sessions.append({"participant_id": subject} | dict(row))
