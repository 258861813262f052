"""What the machines of a cluster really did, in a log of the tests' own: Prefect counts a run that is done twice once.

Dask's workers load this module (`--preload tests.executions`). It writes a line as a shard is begun and one as it is
staged, with the process that did it; and it holds a shard back for as long as the file `hold` says so, so that a test
can do something to the process meanwhile.
"""

import os
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

FOLDER = "TEST_EXECUTIONS"  # the environment variable with the folder of the log


@dataclass(frozen=True)
class Execution:
    """A shard that a process has begun, or staged."""

    what: str
    shard: str
    process: int


class Executions:
    """The log, as a test reads it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def __iter__(self) -> Iterator[Execution]:
        for line in (self.folder / "log").read_text().splitlines() if (self.folder / "log").exists() else []:
            what, shard, process = line.split()
            yield Execution(what, shard, int(process))

    def of(self, what: str) -> list[Execution]:
        """All that were begun, or staged."""
        return [one for one in self if one.what == what]

    def hold(self, but: Iterable[str] = ()) -> None:
        """Hold back each shard as soon as it is begun, but for these."""
        (self.folder / "hold").write_text("\n".join(but))

    def let_go(self) -> None:
        (self.folder / "hold").unlink(missing_ok=True)


def dask_setup(_worker: object) -> None:
    """Called by Dask in each worker process, when it begins."""
    import tasks.stage

    folder, real = Path(os.environ[FOLDER]), tasks.stage._write

    def note(what: str, shard: str) -> None:
        with (folder / "log").open("a") as stream:
            stream.write(f"{what} {shard} {os.getpid()}\n")

    def is_held(shard: str) -> bool:
        try:
            return shard not in (folder / "hold").read_text().splitlines()
        except FileNotFoundError:
            return False

    def noted(spec: Any, *rest: Any) -> Any:
        note("begun", spec.name)
        while is_held(spec.name):
            time.sleep(0.05)
        receipt = real(spec, *rest)
        note("staged", spec.name)
        return receipt

    tasks.stage._write = noted  # type: ignore[assignment]
