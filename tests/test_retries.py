"""How long a Hub that asks for a pause is waited for, by a clock that a test can turn."""

from collections.abc import Callable

import pytest
from prefect.client.schemas.objects import TaskRun
from prefect.states import Failed

from tasks.hub.budget import LOOK_EVERY, wait
from tasks.hub.errors import HubUnreachable, NotAllowed, Transient
from tasks.hub.retries import passes, retry_while_busy


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in seconds; none of them takes any time."""
    pauses: list[float] = []
    monkeypatch.setattr("tasks.hub.budget.time.sleep", pauses.append)
    return pauses


def busy(*pauses: float | None) -> Callable[[], str]:
    """A Hub that asks for these pauses, one after the other, and then answers."""
    asked = iter(pauses)

    def work() -> str:
        for pause in asked:
            error = Transient("the Hub is busy.")
            error.retry_after = pause
            raise error
        return "an answer"

    return work


def test_a_hub_that_says_how_long_is_waited_for_as_long_and_each_wait_is_told(slept: list[float]) -> None:
    told: list[str] = []
    assert retry_while_busy(busy(30, 90.4), told.append) == "an answer"
    assert slept == [30, 90.4]
    assert told == [
        "The Hub asks for a pause of 30 s (the Hub is busy.) Waiting it out.",
        "The Hub asks for a pause of 90 s (the Hub is busy.) Waiting it out.",
    ]


def test_a_hub_that_asks_for_no_time_gets_a_second_each_time(slept: list[float]) -> None:
    assert retry_while_busy(busy(0, 0.2, 1), lambda _: None) == "an answer"
    assert slept == [1, 1, 1]


def test_the_waits_are_counted_together_and_end_with_the_patience(slept: list[float]) -> None:
    assert Transient.patience == 15 * 60
    assert retry_while_busy(busy(400, 500), lambda _: None) == "an answer"  # all of it, to the second
    assert slept == [400, 500]
    with pytest.raises(Transient, match="busy"):
        retry_while_busy(busy(400, 400, 101), lambda _: None)
    assert slept == [400, 500, 400, 400]
    with pytest.raises(Transient):
        retry_while_busy(busy(901), lambda _: None)
    with pytest.raises(Transient):
        retry_while_busy(busy(*[0.0] * 901), lambda _: None)
    assert len(slept) == 4 + 900


class Ended(Exception):
    """The run has ended."""


@pytest.mark.parametrize("waits", ["for the Hub that asks", "within the work"])
def test_a_run_that_ends_waits_for_no_hub(slept: list[float], waits: str) -> None:
    def fence() -> None:
        if len(slept) == 3:
            raise Ended

    work = busy(300) if waits == "for the Hub that asks" else lambda: wait(300)
    with pytest.raises(Ended):
        retry_while_busy(work, lambda _: None, fence)
    assert slept == [LOOK_EVERY] * 3


def test_a_hub_that_does_not_say_how_long_is_left_to_prefect(slept: list[float]) -> None:
    with pytest.raises(Transient):
        retry_while_busy(busy(None), lambda _: None)
    assert slept == []


def test_only_what_may_pass_by_itself_is_tried_again() -> None:
    run = TaskRun(task_key="a", dynamic_key="0")
    for error, again in ((Transient("busy"), True), (HubUnreachable("away"), True), (NotAllowed("no"), False),
                         (ValueError("a bug"), False)):  # fmt: skip
        assert passes(None, run, Failed(data=error)) is again
