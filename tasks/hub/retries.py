"""How often, and how long, bids-push tries again when the Hub cannot answer.

Two kinds of failure pass by themselves, and there are two ways to wait:

- If the Hub says how long to wait (429 or 503 with Retry-After or RateLimit), the task waits that long. Where the Hub
  says how much it allows, a run keeps to that before it is refused (`tasks.hub.budget`).
- If it does not answer, or answers 5xx, Prefect tries again, after a longer pause each time, with jitter so that many
  runs do not come back at the same moment. The run's page shows the task as AwaitingRetry, with what the Hub said.

Everything else (a token, a role, a name) fails at once, because a person has to mend it.
"""

from collections.abc import Callable
from typing import Any, TypedDict, TypeVar

from prefect.client.schemas.objects import State, TaskRun

from tasks.hub.budget import Fence, minutes, wait, waits_fenced
from tasks.hub.errors import Transient

RETRY_DELAYS = [2.0, 10.0, 30.0, 60.0, 120.0]  # seconds before each further try; up to half is added

T = TypeVar("T")


def passes(_task: object, _run: TaskRun, state: State[Any]) -> bool:
    """Return whether a task's failure may pass by itself."""
    return isinstance(state.result(raise_on_failure=False), Transient)


class _Retries(TypedDict):
    retries: int
    retry_delay_seconds: list[float]
    retry_jitter_factor: float
    retry_condition_fn: Callable[[Any, TaskRun, State[Any]], bool]


#: Seconds before each further try of what a run does first. They are short because a wrong address should be reported
#: while somebody is looking.
RETRY_DELAYS_AT_THE_START = [2.0, 5.0]

#: The options of every task that talks to the Hub: `@task(..., **RETRIES)`.
RETRIES = _Retries(
    retries=len(RETRY_DELAYS),
    retry_delay_seconds=RETRY_DELAYS,
    retry_jitter_factor=0.5,
    retry_condition_fn=passes,
)


RETRIES_AT_THE_START = _Retries(
    retries=len(RETRY_DELAYS_AT_THE_START),
    retry_delay_seconds=RETRY_DELAYS_AT_THE_START,
    retry_jitter_factor=0.5,
    retry_condition_fn=passes,
)


def retry_while_busy(work: Callable[[], T], say: Callable[[str], None], fence: Fence | None = None) -> T:
    """Do `work`, and wait whenever the Hub asks for a pause.

    Args:
        work: what to do.
        say: is told of each pause, in a sentence.
        fence: is asked again and again while it waits, so that a run that ends waits for no Hub.

    Raises:
        Transient: the Hub does not say how long to wait, or asks for more than the error's `patience` in all.
    """
    waited = 0.0
    while True:
        try:
            with waits_fenced(fence):
                return work()
        except Transient as busy:
            if busy.retry_after is None:
                raise
            pause = max(busy.retry_after, 1.0)
            if waited + pause > busy.patience:
                raise
            say(f"The Hub asks for a pause of {minutes(pause)} ({busy}) Waiting it out.")
            wait(pause, fence)
            waited += pause
