"""`gc run` of one plan over and over on a store that is put back each time, killed one instant later every time.

    python -m tests.local_hub.killed_removals SAVED ROOT PLAN BYTES

An instant is a statement of its transaction, the end of that, or the removal of a file. Each run is a process of its
own, forked from this one, which has no threads and no database open. For each it prints a line of JSON: how the process
ended, what lies in the store then, and what `check` says of it. It ends with the run that nobody killed.
"""

import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments.local_hub import database
from deployments.local_hub.check import damage
from deployments.local_hub.commands import local_hub
from deployments.local_hub.hub import Hub


def forked(work: Callable[[], None]) -> int:
    """Do it in a process of its own; its exit code, negative for a signal."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(root: Path, plan: Path, size: str, instant: int) -> None:
    left = instant

    def step(*_: object) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    write, unlink = database.Database.write, os.unlink

    @contextmanager
    def counted(self: database.Database) -> Iterator[Any]:
        with write(self) as connection:
            connection.set_trace_callback(step)
            try:
                yield connection
            finally:
                connection.set_trace_callback(None)
                step()  # right before COMMIT
        step()  # right after it

    def unlinking(*arguments: Any, **more: Any) -> None:
        step()
        unlink(*arguments, **more)

    database.Database.write = counted  # type: ignore[method-assign]
    os.unlink = unlinking  # type: ignore[assignment]
    local_hub(["gc", "run", str(plan), "--root", str(root), "--yes-delete", size], standalone_mode=False)


def look(root: Path, told: Path) -> None:
    hub = Hub(root)
    lies = sorted(path.name for folder in ("content", "xorbs") for path in (root / folder).glob("*/*"))
    told.write_text(json.dumps({"files": lies, "damage": list(damage(hub))}))
    hub.close()


def main(saved: Path, root: Path, plan: Path, size: str) -> None:
    told = root.with_suffix(".told")
    for instant in range(2000):
        shutil.rmtree(root)
        shutil.copytree(saved, root)  # with the files' times
        code = forked(lambda instant=instant: run(root, plan, size, instant))  # type: ignore[misc]
        assert forked(lambda: look(root, told)) == 0
        print(json.dumps({"code": code, **json.loads(told.read_text())}), flush=True)
        if code != -signal.SIGKILL:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4])
