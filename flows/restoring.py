"""The middle and the end of a restore: groups of shards at the same time, what is told on the way, and the state."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from time import monotonic
from typing import cast
from uuid import UUID

from prefect import Task
from prefect.artifacts import create_progress_artifact, create_table_artifact, update_progress_artifact
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture, as_completed
from prefect.logging import get_run_logger
from prefect.states import Completed

from flows.run_graph import Steps, quoted
from tasks.disk.paths import as_typed, resolved
from tasks.hub.client import Hub
from tasks.record.remote import Remote
from tasks.report.sentences import some_of
from tasks.restore import NotAllRestored, Outcome, groups, not_all, restore_group, restore_texts
from tasks.restore.edited import edited, last_unedited, way_out
from tasks.restore.target_folder import Into
from tasks.restore.wanted import THE_RECORD, Wanted, WantedShard
from tasks.values.errors import PushError
from tasks.values.format import in_units, number

SHOW_EVERY = 5.0  # seconds between updates of the progress artifact: each is a request to the Prefect server
KEPT = 10_000  # files that the artifact names

#: What does not come back, however much of a dataset is restored, and where that is said.
NOT_FILES = (
    "What is not in the repo did not come back: the files that its bids/left_out.tsv lists with the reason each, such "
    "as hidden ones and sourcedata, and fields that the push has stripped, which the card names."
)
#: The same of a repo that no version since 0.8 has published to.
NO_FILES_BESIDE = (
    "Below the root it holds neither sidecars nor tables as files. If the dataset has any, they are there after the "
    "next push with bids-push 0.8 or newer."
)


def folder_of(into: str) -> Into:
    """Return the folder that somebody typed, with `~` expanded.

    Raises:
        BadInput: it cannot be a path.
    """
    return Into(resolved(as_typed(into, "into")))


@dataclass
class Restoring:
    """The part of one run that brings the files."""

    hub: Hub
    remote: Remote
    into: Into
    wanted: Wanted
    where: str
    steps: Steps
    outcomes: list[Outcome] = field(default_factory=list)
    _artifact: UUID | None = None
    _shown: float = 0.0

    def done(self) -> State:
        """Restore all files, and return the state in which the run ends.

        Raises:
            NotAllRestored: some could not be restored; the others are.
            PushError: the Hub does not answer, or the disk is full; the message says what is restored so far.
        """
        get_run_logger().info("%s: %s to have in %s.", self.where, self._count(self._sizes), self.into.folder)
        try:
            self._restore()
        except PushError as error:
            raise type(error)(f"{error}\nSo far: {self._sentence()} Start again to go on from there.") from error
        failures = {**self.wanted.refused}
        for outcome in self.outcomes:
            failures |= outcome.failures
        if not failures:
            said = (self._sentence(), self._not_executable(), NOT_FILES, "" if self.wanted.beside else NO_FILES_BESIDE)
            return Completed(name="Restored", message=" ".join(filter(None, said)))
        by_hand = edited(self.remote)
        earlier = self.steps.take(last_unedited, self.hub, self.remote.commit) if by_hand else ""
        rows = [{"file": path, "why": why} for path, why in sorted(failures.items())[:KEPT]]
        create_table_artifact(rows, key="not-restored", description=f"{number(len(failures), 'file')} not restored")
        lost = failures.keys() - {THE_RECORD}
        parts = [
            f"{number(len(lost), 'file')} could not be restored." if lost else "",
            f"{self._sentence()} Nothing that was there was changed.",
            way_out(self.remote, earlier) if by_hand else "",
            f"See to these, and start again:\n{not_all(failures)}",
        ]
        raise NotAllRestored(" ".join(filter(None, parts)))

    def _restore(self) -> None:
        submitted = [self._submit(restore_texts, self.wanted)] if self.wanted.texts else []
        submitted += [self._submit_group(group) for group in groups(self.wanted.shards)]
        for future in as_completed(submitted):
            future.result()
            self._show()

    def _submit_group(self, shards: tuple[WantedShard, ...]) -> PrefectFuture[Outcome]:
        name = Path(shards[0].path).stem
        return self._submit(restore_group, shards, name if len(shards) == 1 else f"{name} and {len(shards) - 1} more")

    def _submit(self, task: Task[..., Outcome], wanted: object, *label: str) -> PrefectFuture[Outcome]:
        outcome = Outcome()
        self.outcomes.append(outcome)
        submit = cast(Callable[..., PrefectFuture[Outcome]], task.submit)  # its overloads know no wait_for
        arguments = self.hub, self.remote.commit, self.into, quoted(wanted), quoted(outcome), *label
        return submit(*arguments, wait_for=list(self.steps.last))

    def _show(self) -> None:
        """Update the progress artifact and the log, unless it was done a moment ago."""
        total = self._total
        done = sum(sum(sizes.values()) for sizes in self._done())
        if done < total and monotonic() - self._shown < SHOW_EVERY:
            return
        self._shown = monotonic()
        percent, what = round(100 * done / total, 1) if total else 100.0, self._sentence()
        get_run_logger().info("%s", what)
        if self._artifact is None:
            created = create_progress_artifact(percent, key="restore-progress", description=what)
            self._artifact = cast(UUID, created)  # in async code the same function gives a coroutine
        else:
            update_progress_artifact(self._artifact, progress=percent, description=what)

    @cached_property
    def _total(self) -> int:
        return sum(self._sizes)

    @cached_property
    def _sizes(self) -> list[int]:
        return [size for _, size in self.wanted.sizes()]

    def _done(self) -> Iterator[dict[str, int]]:
        for outcome in self.outcomes:
            yield outcome.restored
            yield outcome.there

    def _sentence(self) -> str:
        restored = [count for outcome in self.outcomes for count in outcome.restored.values()]
        there = [count for outcome in self.outcomes for count in outcome.there.values()]
        total = self._count(self._sizes)
        return (
            f"{total} of {self.where} were wanted in {self.into.folder}: {self._count(restored)} restored now, "
            f"{self._count(there)} there already."
        )

    def _not_executable(self) -> str:
        """Return a sentence about files that were there already without their executable bit; empty if none was."""
        paths = sorted(path for outcome in self.outcomes for path in outcome.not_executable)
        if not paths:
            return ""
        return (
            f"Published as executable, and not so in {self.into.folder}: {some_of(paths, 'file')}. Nothing that was "
            "there was changed: chmod +x makes them so."
        )

    @staticmethod
    def _count(sizes: list[int]) -> str:
        return f"{number(len(sizes), 'file')} ({in_units(sum(sizes))})"
