"""The newest head of a target that this machine has seen, so that an older one is noticed.

A Hub may be many machines, and the one that answers may be behind: it names a head from before a commit that was made a
moment ago. Whoever plans from it publishes what is there already; whoever verifies by it misses what was just sent. So
each head that was read, and each commit that was made, is noted here and in a file beside the staging, and
`tasks.hub.client` waits while the Hub names a commit that came before it.

The file is a help and no ground for anything else: without it, or with a damaged one, the first head that comes counts.
"""

import re
from contextlib import suppress
from pathlib import Path

from tasks.disk.files import write_whole

FILE = "head"
_COMMIT = re.compile(r"[0-9a-f]{40}")


class NewestHead:
    """The newest head of one target, in memory and, where there is a file for it, for the runs that come after."""

    def __init__(self, file: Path | None = None) -> None:
        self._file = file
        self._commit: str | None = None
        with suppress(OSError, ValueError):
            self._commit = _commit_in(file.read_text()[:100]) if file else None

    @property
    def commit(self) -> str | None:
        """It, or None where none is known."""
        return self._commit

    def note(self, commit: str | None) -> None:
        """From now on this is the newest; with None, none is known, since the repo or its history was made anew."""
        if commit == self._commit:
            return
        self._commit = commit
        if self._file:
            with suppress(OSError):  # without it nothing is lost but the next run's memory
                write_whole(self._file, (commit or "").encode(), durable=False)


def _commit_in(text: str) -> str | None:
    found = _COMMIT.fullmatch(text.strip())
    return found[0] if found else None
