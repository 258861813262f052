"""The tables of people, visits and scans (BIDS specification, "Data summary files").

They are participants.tsv at a root, `sub-*_sessions.tsv` in a subject's folder, and `*_scans.tsv` in the folder of a
subject or a session. Each row becomes a JSON text in the rows of the images that it is about.
"""

from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from tasks.bids.annex import require_fetched, unfetched
from tasks.bids.text import BadTable, NotText, Row, decode, read_table, to_json
from tasks.load.errors import UnreadableTable
from tasks.load.tree import Folder, Root

PARTICIPANTS = "participants.tsv"
NAMED = 5  # of what a note is about


def read(source: Path, path: str) -> list[Row]:
    """Read the rows of a table of the dataset.

    Raises:
        UnreadableTable: it is not fetched, or the system does not let it be read.
        NotText: it is no text.
        BadTable: it is no table.
    """
    try:
        data = (source / path).read_bytes()
        require_fetched(data)
    except FileNotFoundError as error:
        raise UnreadableTable(f"{path} is {unfetched(error)}, and push again.") from error
    except OSError as error:
        raise UnreadableTable(f"{path} cannot be read: {error}. Look at that file and its disk.") from error
    return read_table(decode(data))


def labelled(value: str | None, prefix: str) -> str:
    """Return `sub-01` both for `sub-01` and for `01`, which some tables have."""
    return value if (value or "").startswith(prefix) else f"{prefix}{value}"  # type: ignore[return-value]


def some_of(names: Collection[str]) -> str:
    """Return the first few of these names, sorted, for a note."""
    return ", ".join(sorted(names)[:NAMED]) + (", ..." if len(names) > NAMED else "")


class Tables:
    """The rows of every table of the tree, found by what they are about.

    A table that is none, or that does not say what its rows are about, leaves one column of the images empty, and that
    is noted. The dataset is published all the same.
    """

    def __init__(self, source: Path, folders: Iterable[Folder]) -> None:
        self.used: set[str] = set()
        self.notes: list[str] = []
        self.participants: list[Row] = []
        self.sessions: list[Row] = []
        self.subjects: set[str] = set()
        """The subjects that the participants.tsv of the tree's root names."""
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
        """Read a file if it is one of the tables, and keep its rows."""
        path, at_root = folder.below(name), folder.path == folder.root.path
        if at_root and name == PARTICIPANTS:
            self._take_participants(folder.root, path)
        elif not at_root and name.endswith("_sessions.tsv"):
            self._take_sessions(folder.root, name.split("_")[0], path)
        elif not at_root and name.endswith("_scans.tsv"):
            rows = self._rows(path, "filename", "scan")
            named = [(folder.below((row["filename"] or "").removeprefix("./")), to_json(row)) for row in rows]
            self._of_scan |= self._one_each(path, named, "scan")

    def _take_participants(self, root: Root, path: str) -> None:
        rows = self._rows(path, "participant_id", "participant")
        named = [(labelled(row["participant_id"], "sub-"), to_json(row)) for row in rows]
        self._of_participant[root.path] = self._one_each(path, named, "participant")
        if not root.path:
            self.participants, self.subjects = rows, {subject for subject, _ in named}

    def _take_sessions(self, root: Root, subject: str, path: str) -> None:
        rows = self._rows(path, "session_id", "session")
        named = [(labelled(row["session_id"], "ses-"), to_json(row)) for row in rows]
        for session, text in self._one_each(path, named, "session").items():
            self._of_session[root.path, subject, session] = text
        if not root.path:
            self.sessions += [{"participant_id": subject} | dict(row) for row in rows]

    def _rows(self, path: str, needed: str, column: str) -> list[Row]:
        """Return the rows of a table, or none if they do not say what they are about. That is noted.

        Args:
            path: the table.
            needed: the table's column that says what a row is about.
            column: the column of the images that the rows are for.
        """
        try:
            rows = read(self._source, path)
        except (NotText, BadTable) as error:
            self.notes.append(
                f"{path} cannot be read as a table ({error}), so its rows are not in the column `{column}`."
            )
            return []
        if rows and needed not in rows[0]:
            self.notes.append(
                f"{path} has no column {needed}, which BIDS requires, so its rows are not in the column `{column}`."
            )
            return []
        self.used.add(path)
        return rows

    def _one_each(self, path: str, named: Sequence[tuple[str, str]], column: str) -> dict[str, str]:
        """Return the row of each name. A name that has rows which differ has none, and is noted.

        Args:
            path: the table.
            named: names and rows.
            column: the column of the images that the rows are for.
        """
        rows: dict[str, set[str]] = {}
        for name, text in named:
            rows.setdefault(name, set()).add(text)
        several = [name for name, texts in rows.items() if len(texts) > 1]
        if several:
            self.notes.append(
                f"{path} has rows that differ for {len(several)} of {len(rows)} ({some_of(several)}). Which of them is "
                f"about an image cannot be known, so the column `{column}` is empty there."
            )
        return {name: min(texts) for name, texts in rows.items() if len(texts) == 1}
