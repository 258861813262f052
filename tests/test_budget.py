"""A Hub with limits: a run keeps to them, is never refused for them, and says when it waits, why and for how long.

By a clock that only the waits turn, on a local Hub within the test's own process.
"""

import logging
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
from tasks.hub.budget import Commits, Requests, kind_of, minutes, wait, waits_fenced
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


ADDRESS = httpx2.Request("GET", "https://hub.example/api/datasets/lab/data")


def answer(left: int, seconds: int, request: httpx2.Request = ADDRESS) -> httpx2.Response:
    """What a Hub says that allows so many requests more in the next seconds."""
    said = {"RateLimit": f'"api";r={left};t={seconds}', "RateLimit-Policy": '"fixed window";"api";q=9;w=300'}
    return httpx2.Response(200, headers=said, request=request)


def asked(requests: Requests) -> httpx2.Request:
    """A request that is on its way."""
    request = httpx2.Request("GET", ADDRESS.url)
    requests.before(request)
    return request


def waited(clock: Clock, act: Callable[[], object]) -> float:
    """The seconds that this waits."""
    start = clock.now
    act()
    return clock.now - start


class GaveUp(Exception):
    """Somebody no longer waits."""


def give_up_waiting(clock: Clock, requests: Requests) -> None:
    """Begin to wait for the Hub, and give up soon."""

    def fence() -> None:
        if clock.now > start + 2:
            raise GaveUp

    start = clock.now
    with pytest.raises(GaveUp), waits_fenced(fence):
        asked(requests)


def test_as_many_requests_are_sent_as_the_hub_has_left_and_the_next_one_waits_a_second_longer_than_it_says(
    clock: Clock, warned: list[str]
) -> None:
    requests = Requests()
    requests.after(answer(2, 100))
    assert waited(clock, lambda: [asked(requests) for _ in range(2)]) < 0.1 and not warned
    assert 100.9 < waited(clock, lambda: asked(requests)) < 101.1  # the Hub says whole seconds
    assert waited(clock, lambda: [asked(requests) for _ in range(20)]) < 0.1  # it counts anew
    assert warned == ["hub.example allows no more requests (api) for 101 s. Waiting until it counts anew."]


def test_a_wait_of_less_than_a_second_is_waited_for_too(clock: Clock) -> None:
    requests = Requests()
    requests.after(answer(1, 100))
    asked(requests)
    clock.sleep(100.5)
    assert 0.4 < waited(clock, lambda: asked(requests)) < 0.6


def test_a_hub_that_is_waited_for_a_quarter_of_an_hour_is_waited_for(clock: Clock) -> None:
    requests = Requests()
    requests.after(answer(0, 15 * 60 - 2))
    assert waited(clock, lambda: asked(requests)) > 15 * 60 - 2


def test_requests_that_the_hub_may_not_have_counted_yet_are_counted_once(clock: Clock) -> None:
    requests = Requests()
    first, _, _ = (asked(requests) for _ in range(3))
    requests.after(answer(5, 100, first))  # and two of these five are under way
    assert waited(clock, lambda: [asked(requests) for _ in range(3)]) < 0.1
    assert waited(clock, lambda: asked(requests)) > 100


def test_requests_under_way_to_another_hub_or_of_another_kind_do_not_count(clock: Clock) -> None:
    requests = Requests()
    first = asked(requests)
    for url in ("https://other.example/api/datasets/lab/data", "https://hub.example/datasets/lab/data/resolve/main/a"):
        requests.before(httpx2.Request("GET", url))
    requests.after(answer(2, 100, first))
    assert waited(clock, lambda: [asked(requests) for _ in range(2)]) < 0.1
    assert waited(clock, lambda: asked(requests)) > 100


def test_a_hub_that_counts_anew_gives_back_all_that_it_then_says(clock: Clock) -> None:
    requests = Requests()
    requests.after(answer(1, 100))
    clock.sleep(102)
    requests.after(answer(4, 300))
    assert waited(clock, lambda: [asked(requests) for _ in range(4)]) < 0.1
    assert waited(clock, lambda: asked(requests)) > 290


def test_a_window_that_was_moved_by_the_hub_is_a_new_one(clock: Clock, warned: list[str]) -> None:
    requests = Requests()
    requests.after(answer(0, 100))
    give_up_waiting(clock, requests)
    clock.sleep(0.5)
    requests.after(answer(3, 100))  # it ends two and a half seconds later than it did
    assert waited(clock, lambda: [asked(requests) for _ in range(3)]) < 0.1
    assert waited(clock, lambda: asked(requests)) > 100
    assert len(warned) == 2


def test_a_window_that_ends_a_second_later_than_was_said_is_the_same_one(clock: Clock, warned: list[str]) -> None:
    requests = Requests()
    requests.after(answer(1, 100))
    clock.sleep(0.5)
    requests.after(answer(3, 101))
    assert waited(clock, lambda: asked(requests)) < 0.1
    assert waited(clock, lambda: asked(requests)) > 100  # of the one that was left, nothing came back
    assert len(warned) == 1


def test_each_window_that_is_waited_for_is_told_of_once_however_many_wait(clock: Clock, warned: list[str]) -> None:
    requests = Requests()
    for number in (1, 2):
        requests.after(answer(0, 50))
        for _ in range(3):
            give_up_waiting(clock, requests)
        asked(requests)
        assert len(warned) == number


def test_a_request_is_of_the_kind_that_the_hub_counts_it_as() -> None:
    kinds = {
        "/api/datasets/lab/data/revision/main": "api",
        "/datasets/lab/data/resolve/main/README.md": "resolvers",
        "/api/resolve-cache/datasets/lab/data/resolve/main/a": "resolvers",
        "/datasets/lab/data/tree/main": "pages",
        "/lab/api/": "pages",
    }
    assert {path: kind_of(path) for path in kinds} == kinds


@pytest.mark.parametrize(
    ("seconds", "said"), [(0.4, "0 s"), (99.4, "99 s"), (100, "2 min"), (600, "10 min"), (3600, "60 min")]
)
def test_a_pause_is_said_in_the_unit_that_people_would_use(seconds: float, said: str) -> None:
    assert minutes(seconds) == said


def test_a_wait_asks_each_second_whether_it_is_still_worth_it(clock: Clock) -> None:
    start, looks = clock.now, list[float]()
    wait(3.5, lambda: looks.append(round(clock.now - start, 1)))
    assert looks == [0, 1, 2, 3] and round(clock.now - start, 2) == 3.5


def test_what_a_block_asks_is_asked_within_it_and_not_after_it(clock: Clock) -> None:
    looks: list[str] = []
    with waits_fenced(lambda: looks.append("outer")):
        with waits_fenced(lambda: looks.append("inner")):
            wait(1)
        with waits_fenced(None):
            wait(1)
        wait(1, lambda: looks.append("given"))
    wait(1)
    assert looks == ["inner", "outer", "given"]


def test_a_wait_is_told_of_in_our_own_log_where_there_is_no_run(caplog: pytest.LogCaptureFixture) -> None:
    budget.warn("waiting for the Hub")
    assert [(one.name, one.levelname, one.getMessage()) for one in caplog.records] == [
        ("prefect.bids_push.hub", "WARNING", "waiting for the Hub")
    ]


def test_a_wait_is_told_of_in_the_runs_own_log(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(budget, "get_run_logger", lambda: logging.getLogger("prefect.of_the_run"))
    budget.warn("waiting for the Hub")
    assert [(one.name, one.getMessage()) for one in caplog.records] == [("prefect.of_the_run", "waiting for the Hub")]


def test_a_client_is_watched_once_and_keeps_what_it_was_watched_by(clock: Clock) -> None:
    seen: list[str] = []
    theirs = {"request": [lambda _: seen.append("request")], "response": [lambda _: seen.append("response")]}
    left = iter((2, 1, 0, 9))
    transport = httpx2.MockTransport(lambda _: answer(next(left), 100))
    with httpx2.Client(transport=transport, event_hooks=theirs) as client:
        requests = Requests()
        requests.watch(client)
        requests.watch(client)
        assert waited(clock, lambda: [client.get(ADDRESS.url) for _ in range(3)]) < 0.1
        assert waited(clock, lambda: client.get(ADDRESS.url)) > 100
    assert seen == ["request", "response"] * 4


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


def test_commits_of_more_than_an_hour_ago_do_not_count(
    clock: Clock, warned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_COMMITS_PER_HOUR", "2")
    commits, hub = Commits(), "http://hub.example"
    for pause in (0.0, 1000.0, 3600.0):  # at 0, 1000 and 4600 s
        clock.sleep(pause)
        commits.made(hub)
    assert waited(clock, lambda: commits.wait_for_turn(hub, lambda: None)) < 0.1  # that of 1000 s has just gone
    commits.made("http://other.example")
    commits.made(hub)
    clock.sleep(3599.5 - 0.01)
    assert 0.4 < waited(clock, lambda: commits.wait_for_turn(hub, lambda: None)) < 0.6
    assert warned == [
        "2 commits were made to http://hub.example within an hour, and it is not to have more. Waiting 1 s with "
        "the next one; what is sent meanwhile goes into it."
    ]


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
