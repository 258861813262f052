"""The steps of a flow, each made after those that it follows, so that the run's graph in the UI shows the chain.

Prefect draws an arrow where a task is given another one's future or state. Ours are given values, wrapped so that
Prefect does not walk through them (a dataset has as many parts as files), so the arrows are named by hand: `Steps.take`
runs a task and remembers that it ran, as what comes next comes after it.
"""

from collections.abc import Iterable
from typing import Any, ParamSpec, TypeVar, cast

from prefect import Task
from prefect.client.schemas.objects import State, StateDetails
from prefect.states import Completed
from prefect.utilities.annotations import quote

P = ParamSpec("P")
T = TypeVar("T")


class Steps:
    """What a flow run has done so far, as far as the next step has to know."""

    def __init__(self) -> None:
        self.last: tuple[State[Any], ...] = ()
        """The step that the next one comes after."""

    def take(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a task after the last step; its result. What comes next comes after it."""
        result, ran = run_after(self.last, task, *args, **kwargs)
        self.last = (ran,)
        return result


def run_after(after: Iterable[State[Any]], task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, State[Any]]:
    """Run a task after others: its result, and that it ran.

    Raises:
        Exception: what the task has raised.
    """
    run = cast(Any, task)  # the typed overloads have no place for wait_for
    state: State[T] = run(*args, **kwargs, wait_for=list(after), return_state=True)
    return state.result(), that_ran(state)


def that_ran(state: State[Any]) -> State[Any]:
    """A state that says which task run has ended, and nothing of how: the next step may come after it."""
    return Completed(data="ran", state_details=StateDetails(task_run_id=state.state_details.task_run_id))


def quoted(value: T) -> T:
    """A task's argument that Prefect hands over without walking through it: that takes longer than the task."""
    return cast(T, quote(value))
