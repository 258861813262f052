"""Ports that nobody else takes between the moment when they are chosen and the one when a server listens there.

The kernel gives connections ports of a range of its own, so one of that range which is free now may be taken later, by
any client on this machine. These are below it, and each is this process's until the process ends.
"""

import os
import socket
from pathlib import Path
from tempfile import gettempdir

from filelock import FileLock, Timeout

COMMON = Path("/tmp") if Path("/tmp").is_dir() else Path(gettempdir())  # whatever TMPDIR a run of the tests has
FIRST, END = 20_000, 32_000  # Linux, macOS and Windows give connections higher ones
_held: list[FileLock] = []


def own_port() -> int:
    """A port of the loopback on which nobody listens, and which no other process of these tests is given.

    Raises:
        RuntimeError: there is none.
    """
    folder = COMMON / f"bids-push-ports-{os.getuid()}"
    folder.mkdir(exist_ok=True)
    for number in range(FIRST, END):
        lock = FileLock(folder / f"{number}.lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            continue
        if is_free(number):
            _held.append(lock)
            return number
        lock.release()
    raise RuntimeError(f"No port is free between {FIRST} and {END}.")


def is_free(number: int) -> bool:
    """Whether nobody listens at a port of the loopback."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", number))
        except OSError:
            return False
    return True
