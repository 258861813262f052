"""A Hub with limits: a run keeps to them, is never refused for them, and says when it waits, why and for how long.

By a clock that only the waits turn, on a local Hub within the test's own process.
"""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd
from huggingface_hub.utils import get_session
from starlette.types import ASGIApp

from deployments.local_hub.app import Application
from deployments.local_hub.limits import Limited, Limits
from tasks.hub import budget
from tasks.hub.budget import Commits, Requests
from tasks.hub.client import Hub
from tasks.hub.errors import CommitsUsedUp
from tasks.hub.retries import retry_while_busy
from tests.hub_within import hub_within

REPO = "lab/data"


class Clock:
    """A time that passes while somebody waits, and a little with each look at it.

    Threads that wait at the same time wait side by side: each from the moment of its own last look.
    """

    def __init__(self) -> None:
        self.now = 1000.0
        self._lock = threading.Lock()
        self._looked = threading.local()

    def monotonic(self) -> float:
        with self._lock:
            self.now += 0.001
            self._looked.at = self.now
            return self.now

    def sleep(self, seconds: float) -> None:
        with self._lock:
            self._looked.at = getattr(self._looked, "at", self.now) + seconds
            self.now = max(self.now, self._looked.at)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(budget, "time", SimpleNamespace(monotonic=clock.monotonic, sleep=clock.sleep))
    return clock


@pytest.fixture
def warned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the run's log was warned of waits."""
    warned: list[str] = []
    monkeypatch.setattr(budget, "warn", warned.append)
    return warned


class Limiting:
    """A target on a Hub with limits, and the answers that it gave."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.statuses: list[int] = []
        get_session().event_hooks["response"].append(lambda answer: self.statuses.append(answer.status_code))

    @property
    def refused(self) -> int:
        return self.statuses.count(429)


Opened = Callable[[Limits], Limiting]


@pytest.fixture
def opened(tmp_path: Path, clock: Clock, warned: list[str], monkeypatch: pytest.MonkeyPatch) -> Iterator[Opened]:
    """Opens the repo on a Hub with these limits, for a process that knows nothing of them yet."""
    monkeypatch.setattr("tasks.hub.connection.REQUESTS", Requests())
    monkeypatch.setattr("tasks.hub.sending.COMMITS", Commits())
    with contextmanager(_opened)(tmp_path, clock) as opened:
        yield opened


def _opened(folder: Path, clock: Clock) -> Iterator[Opened]:
    ends = []

    def opened(limits: Limits) -> Limiting:
        def limited(application: ASGIApp) -> ASGIApp:
            assert isinstance(application, Application)
            return Limited(application, application.hub.accounts, limits, clock.monotonic)

        within = hub_within(folder / "hub", REPO, limited)
        hub = within.__enter__()
        ends.append(within)
        limiting = Limiting(hub)
        hub.api.create_repo(REPO, repo_type="dataset")
        return limiting

    try:
        yield opened
    finally:
        for within in ends:
            within.__exit__(None, None, None)


def test_a_run_that_needs_more_requests_than_the_hub_allows_waits_and_is_never_refused(
    opened: Opened, clock: Clock, warned: list[str]
) -> None:
    limiting = opened(Limits(api=20, window=300))
    start = clock.now
    for _ in range(100):
        limiting.hub.head()
    assert limiting.refused == 0
    assert 4 * 300 < clock.now - start < 7 * 300  # a hundred requests in windows of twenty
    assert 4 <= len(warned) <= 6  # each wait once
    assert all("allows no more requests (api) for" in line and "until it counts anew" in line for line in warned)


def test_requests_that_are_sent_at_the_same_time_are_counted_before_the_hub_has_answered(
    opened: Opened, warned: list[str]
) -> None:
    limiting = opened(Limits(api=30, window=300))
    limiting.hub.head()
    threads = [threading.Thread(target=lambda: [limiting.hub.head() for _ in range(20)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert limiting.statuses.count(200) >= 121 and limiting.refused == 0
    assert warned


def test_the_kinds_of_requests_have_limits_of_their_own(opened: Opened, clock: Clock, warned: list[str]) -> None:
    limiting = opened(Limits(api=1000, resolvers=5, window=300))
    head = limiting.hub.head()
    start = clock.now
    for _ in range(6):
        limiting.hub.read(".gitattributes", head)
    assert limiting.refused == 0 and clock.now - start > 200
    assert [line.partition(" allows")[2] for line in warned] == [warned[0].partition(" allows")[2]]
    assert "(resolvers)" in warned[0]


def test_a_hub_without_limits_is_never_waited_for(opened: Opened, clock: Clock, warned: list[str]) -> None:
    limiting = opened(Limits())
    start = clock.now
    for _ in range(50):
        limiting.hub.head()
    assert not warned and clock.now - start < 5


def test_a_run_that_ends_does_not_wait_for_the_hub_to_count_anew(opened: Opened, clock: Clock) -> None:
    limiting = opened(Limits(api=5, window=300))
    start = clock.now

    class Ends(Exception):
        pass

    def ending() -> None:
        if clock.now - start > 20:
            raise Ends

    with pytest.raises(Ends):
        retry_while_busy(lambda: [limiting.hub.head() for _ in range(20)], lambda _: None, ending)
    assert clock.now - start < 30


def test_a_hub_that_would_be_waited_for_longer_than_a_quarter_of_an_hour_answers_for_itself(
    clock: Clock, warned: list[str]
) -> None:
    requests, start = Requests(), clock.now
    address = httpx2.Request("GET", "https://hub.example/api/datasets/lab/data")
    headers = {"RateLimit": '"api";r=0;t=86400', "RateLimit-Policy": '"fixed window";"api";q=9;w=86400'}
    requests.after(httpx2.Response(200, headers=headers, request=address))
    requests.before(address)
    assert clock.now - start < 1 and not warned


def test_an_answer_that_was_long_on_its_way_does_not_give_back_what_was_asked_since(clock: Clock) -> None:
    requests, start = Requests(), clock.now
    address = httpx2.Request("GET", "https://hub.example/api/datasets/lab/data")
    said = {"RateLimit": '"api";r=3;t=100', "RateLimit-Policy": '"fixed window";"api";q=9;w=300'}
    requests.after(httpx2.Response(200, headers=said, request=address))
    for _ in range(2):
        requests.before(address)
    requests.after(httpx2.Response(200, headers=said, request=address))  # of before these two
    requests.before(address)
    assert clock.now - start < 1
    requests.before(address)
    assert clock.now - start > 99


def committed(hub: Hub, number: int) -> None:
    hub.wait_for_turn(lambda: None)
    hub.commit([CommitOperationAdd(f"{number}.txt", b"x")], f"commit {number}", hub.head())


def test_no_more_commits_are_made_in_an_hour_than_the_setting_says(
    opened: Opened, clock: Clock, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_COMMITS_PER_HOUR", "3")
    limiting, start = opened(Limits(commits=3)), clock.now
    for number in range(7):
        committed(limiting.hub, number)
    assert limiting.refused == 0
    assert 2 * 3600 <= clock.now - start < 2 * 3600 + 60
    assert len(warned) == 2 and "3 commits were made" in warned[0] and "Waiting 60 min" in warned[0]


def test_on_hugging_face_a_run_keeps_under_its_limit_by_itself_and_elsewhere_to_none(
    clock: Clock, warned: list[str]
) -> None:
    commits, start = Commits(), clock.now
    for endpoint, made in (("http://127.0.0.1:8123", 500), ("https://huggingface.co", 120)):
        for _ in range(made):
            commits.wait_for_turn(endpoint, lambda: None)
            commits.made(endpoint)
    assert not warned and clock.now - start < 10
    commits.wait_for_turn("https://huggingface.co", lambda: None)
    assert clock.now - start >= 3600 and "120 commits" in warned[0]


def test_a_wait_for_a_commit_ends_with_the_run(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BIDS_PUSH_COMMITS_PER_HOUR", "1")
    commits = Commits()
    commits.made("http://hub.example")

    def lost() -> None:
        raise CommitsUsedUp("the target is somebody else's by now")

    with pytest.raises(CommitsUsedUp, match="somebody else's"):
        commits.wait_for_turn("http://hub.example", lost)


def test_commits_that_somebody_else_has_used_up_are_waited_for_until_the_hub_allows_more(
    opened: Opened, clock: Clock
) -> None:
    limiting, start = opened(Limits(commits=3)), clock.now
    for number in range(3):
        committed(limiting.hub, number)
    pauses: list[str] = []
    retry_while_busy(lambda: committed(limiting.hub, 4), pauses.append)
    assert "4.txt" in limiting.hub.listing(limiting.hub.head()).files
    assert 3600 <= clock.now - start < 3600 + 700
    assert limiting.refused == len(pauses) == 6
    assert "pause of 10 min" in pauses[0] and "repository commits (3 per hour)" in pauses[0]
