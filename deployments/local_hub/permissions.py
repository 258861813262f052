"""The store is its owner's alone: what is in it are people's scans, and the machine may be shared.

New files are closed by the process's umask. A store of before 0.9 is closed once, when it is first served.
"""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from deployments.local_hub.database import Database

OTHERS = 0o077  # the bits of group and others

logger = logging.getLogger("local_hub")


def own_files_only() -> None:
    """From now on this process makes no file or folder that others may open."""
    os.umask(OTHERS)


def close_store(root: Path, database: Database) -> None:
    """Take from group and others what they may do with the files of an older store, and say so; once for each store."""
    if database.read().execute("SELECT 1 FROM setting WHERE key = 'closed'").fetchone() is not None:
        return
    closed = failed = 0
    for path in _all(root):
        mode = stat.S_IMODE(path.lstat().st_mode)
        if path.is_symlink() or not mode & OTHERS:
            continue
        try:
            path.chmod(mode & ~OTHERS)
            closed += 1
        except PermissionError:
            failed += 1
    if closed:
        logger.warning(
            "Other users of this machine could open %d files and folders of %s. They cannot now", closed, root
        )
    if failed:
        logger.warning("%d files and folders of %s belong to another user and stay open to others", failed, root)
        return  # looked at again at the next start
    with database.write() as connection:
        connection.execute("INSERT OR IGNORE INTO setting VALUES ('closed', x'01')")


def _all(root: Path) -> Iterator[Path]:
    yield root
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            yield Path(folder, name)
