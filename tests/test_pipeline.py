"""What a run has going on at the same time: which thread decides, and how it ends after an error or a signal."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

import pytest

from flows.pipeline import Closed, Pipeline
from tasks.hub.errors import Transient
from tasks.hub.retries import retry_while_busy

SECONDS = 60  # that a test waits for another thread at most


def test_work_is_done_at_the_same_time_and_what_follows_in_the_main_thread() -> None:
    both = threading.Barrier(2, timeout=SECONDS)  # neither goes on alone
    told: list[threading.Thread] = []
    with Pipeline(2) as pipeline:
        for _ in range(2):
            pipeline.begin(both.wait, lambda done: told.append(threading.current_thread()))
        pipeline.run()
    assert told == [threading.main_thread()] * 2


def test_what_follows_may_begin_more_and_the_run_is_through_when_nothing_goes_on() -> None:
    done: list[int] = []

    def next_one(future: Future[int]) -> None:
        done.append(future.result())
        if done[-1] < 5:
            pipeline.begin(lambda: done[-1] + 1, next_one)

    with Pipeline(1) as pipeline:
        pipeline.begin(lambda: 1, next_one)
        pipeline.run()
    assert done == [1, 2, 3, 4, 5]


def test_the_first_error_is_the_one_that_is_raised_once_the_others_have_ended_by_themselves() -> None:
    failed, ended = threading.Event(), threading.Event()

    def good() -> None:
        assert failed.wait(SECONDS)
        ended.set()

    def fails() -> None:
        raise ConnectionError("the first")

    def fails_too() -> None:
        assert failed.wait(SECONDS)
        raise ValueError("a later one")

    def follows(future: Future[None]) -> None:
        with suppress(ConnectionError):
            future.result()
        failed.set()
        future.result()

    with pytest.raises(ConnectionError, match="the first"), Pipeline(3) as pipeline:
        for work in (good, fails, fails_too):
            pipeline.begin(work, follows)
        pipeline.run()
    assert ended.is_set()


@pytest.mark.parametrize("end", [ConnectionError, KeyboardInterrupt])
def test_nothing_more_begins_in_a_run_that_ends_and_a_wait_for_a_busy_hub_is_given_up(end: type[BaseException]) -> None:
    waits = threading.Event()
    tries: list[int] = []

    def busy() -> None:
        tries.append(1)
        waits.set()
        error = Transient("busy")
        error.retry_after = 10 * SECONDS
        raise error

    begun: list[Future[None]] = []
    with pytest.raises(end), Pipeline(1) as pipeline:
        queued: Callable[[], None] = lambda: tries.append(2)  # noqa: E731 - the thread never comes to it
        pipeline.begin(lambda: retry_while_busy(busy, lambda _: None, pipeline.require_open), begun.append)
        pipeline.begin(queued, begun.append)
        assert waits.wait(SECONDS)
        raise end
    with pytest.raises(Closed):
        pipeline.require_open()
    assert tries == [1]
