"""The newest head of a target that this machine has seen, so that an older one is noticed.

A Hub may be many machines, and the one that answers may be behind: it names a head from before a commit that was made a
moment ago. A plan made from it publishes again what is there already; a verification by it misses what was just sent.
So each head that was read and each commit that was made is noted here, and in a file beside the staging. While the Hub
names an earlier commit, `tasks.hub.heads` waits.

The file only helps. Without it, or with a damaged one, the first head that comes counts.
"""

import re
from contextlib import suppress
from pathlib import Path

from tasks.disk.files import write_whole

FILE = "head"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class NewestHead:
    """The newest head of one target.

    It is kept in memory and, if a file is given, in the file for the runs that follow.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._commit: str | None = None
        with suppress(OSError, ValueError):
            self._commit = _commit_in(file.read_text()[:100]) if file else None

    @property
    def commit(self) -> str | None:
        """The newest head, or None if none is known."""
        return self._commit

    def note(self, commit: str | None) -> None:
        """Note the newest head. None means that none is known, because the repo or its history was made anew."""
        if commit == self._commit:
            return
        self._commit = commit
        if self._file:
            with suppress(OSError):  # without it, only the next run's memory is lost
                write_whole(self._file, (commit or "").encode(), durable=False)


def _commit_in(text: str) -> str | None:
    found = _COMMIT.fullmatch(text.strip())
    return found[0] if found else None
