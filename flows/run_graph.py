"""The steps of a flow, each run after those that it follows, so that the run's graph in the UI shows the chain.

Prefect draws an arrow if a task is given another task's future or state. Our tasks are given values, wrapped so that
Prefect does not walk through them (a dataset has as many parts as files). So the arrows are named by hand: `Steps.take`
runs a task and remembers that it ran, and the next step comes after it.
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
    """The steps that a flow run has done so far, as far as the next step has to know them."""

    def __init__(self) -> None:
        self.last: tuple[State[Any], ...] = ()
        """The steps after which the next one comes."""

    def take(self, task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a task after the last step, and return its result. The next step comes after this one."""
        result, ran = run_after(self.last, task, *args, **kwargs)
        self.last = (ran,)
        return result


def run_after(after: Iterable[State[Any]], task: Task[P, T], *args: P.args, **kwargs: P.kwargs) -> tuple[T, State[Any]]:
    """Run a task after others.

    Returns:
        Its result, and a state that says that it ran.

    Raises:
        Exception: whatever the task raised.
    """
    run = cast(Any, task)  # the typed overloads have no place for wait_for
    state: State[T] = run(*args, **kwargs, wait_for=list(after), return_state=True)
    return state.result(), that_ran(state)


def that_ran(state: State[Any]) -> State[Any]:
    """Return a state that names the task run which has ended, and not how it ended. The next step may come after it."""
    return Completed(data="ran", state_details=StateDetails(task_run_id=state.state_details.task_run_id))


def quoted(value: T) -> T:
    """Wrap a task's argument so that Prefect does not walk through it, which would take longer than the task."""
    return cast(T, quote(value))
