"""What the Hub allows: requests in some minutes, and commits in an hour. A run keeps to it, and says when it waits.

- A Hub with limits says with each answer how many requests are left, and for how long (the RateLimit headers, see
  https://huggingface.co/docs/hub/rate-limits). There are three kinds, each with a limit of its own: `api`, `resolvers`
  (files) and `pages`. When none are left, the next request waits here until the Hub counts anew. It is not sent to be
  refused, since a call of many requests, such as a long listing, would begin again after that.
- No header tells how many commits are left. Hugging Face allows about 128 an hour (its refusal says how many). So the
  commits of the last hour are counted here. On other Hubs, `BIDS_PUSH_COMMITS_PER_HOUR` says how many there may be, if
  it is set.

Others may use the same account at the same time. What the Hub refuses in spite of this is worth another try
(`tasks.hub.retries`).
"""

import re
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from threading import Lock

import httpx2
from huggingface_hub.utils import parse_ratelimit_headers
from prefect.exceptions import MissingContextError
from prefect.logging import get_logger, get_run_logger

from tasks.values.settings import Settings

HOUR = 3600.0  # seconds
HUGGING_FACE = "https://huggingface.co"
COMMITS_THERE = 120  # in an hour, of about 128, so that people's own have room
LONGEST_WINDOW = 15 * 60.0  # seconds; a Hub that asks for more is asked, and answers for itself
NUMBER = "bids_push.number"  # of a request, among those of its kind
LOOK_EVERY = 1.0  # seconds between two looks whether it is still worth waiting
#: The Hub's refusal of a commit: "You have exceeded the rate limit for repository commits (128 per hour)", or, of old,
#: "You have exceeded our hourly quotas for action: commit".
COMMITS_USED_UP = re.compile(r"rate limit for repository commits|quotas for action: commit", re.IGNORECASE)

Fence = Callable[[], None]
"""A function that raises if this run may not go on."""

_fence: ContextVar[Fence | None] = ContextVar("fence", default=None)


@contextmanager
def waits_fenced(fence: Fence | None) -> Iterator[None]:
    """Let every wait in this block ask whether the run may go on. If not, the wait ends with the fence's error."""
    token = _fence.set(fence or _fence.get())
    try:
        yield
    finally:
        _fence.reset(token)


def wait(seconds: float, fence: Fence | None = None) -> None:
    """Wait, and ask the fence again and again, so that a run that ends waits for no Hub."""
    fence = fence or _fence.get()
    step = LOOK_EVERY if fence else seconds
    while seconds > 0:
        if fence:
            fence()
        time.sleep(min(step, seconds))
        seconds -= step


@dataclass
class _Window:
    left: int
    ends: float


@dataclass
class Requests:
    """The requests that the Hub still allows, by its address and the kind of request."""

    _windows: dict[tuple[str, str], _Window] = field(default_factory=dict)
    _said: dict[tuple[str, str], float] = field(default_factory=dict)
    """When the window ends of which it was said that it is waited for."""
    _begun: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many were begun so far."""
    _lock: Lock = field(default_factory=Lock)

    def watch(self, client: httpx2.Client) -> None:
        """Count the requests of a client from now on."""
        hooks = client.event_hooks
        if self.before not in hooks["request"]:
            client.event_hooks = {
                "request": [*hooks["request"], self.before],
                "response": [*hooks["response"], self.after],
            }

    def before(self, request: httpx2.Request) -> None:
        """Wait until the Hub allows this request."""
        key = request.url.host, kind_of(request.url.path)
        while (pause := self._take(key)) > 0:
            self._say(key, pause)
            wait(pause)
        with self._lock:
            self._begun[key] += 1
            request.extensions[NUMBER] = self._begun[key]

    def after(self, response: httpx2.Response) -> None:
        """Take note of how many requests are left."""
        limit = parse_ratelimit_headers(response.headers)
        if limit is None:
            return
        key = response.request.url.host, limit.resource_type
        now = time.monotonic()
        ends = now + limit.reset_in_seconds + 1  # the Hub says whole seconds
        with self._lock:
            known = self._windows.get(key)
            # those that were begun after this one, the Hub may not have counted yet
            left = limit.remaining - (self._begun[key] - response.request.extensions.get(NUMBER, self._begun[key]))
            if known and now < known.ends and abs(known.ends - ends) < 2:
                left = min(left, known.left)
            self._windows[key] = _Window(left, ends)

    def _take(self, key: tuple[str, str]) -> float:
        """Take one of the requests that are left, and return 0; or the seconds until the Hub counts anew."""
        now = time.monotonic()
        with self._lock:
            window = self._windows.get(key)
            if window is None or now >= window.ends or window.ends - now > LONGEST_WINDOW:
                return 0.0
            if window.left > 0:
                window.left -= 1
                return 0.0
            return window.ends - now

    def _say(self, key: tuple[str, str], pause: float) -> None:
        """Say once for each window that the run waits for it, in whichever thread that happens first."""
        with self._lock:
            ends = self._windows[key].ends
            if abs(self._said.get(key, 0.0) - ends) < 2:
                return
            self._said[key] = ends
        host, kind = key
        warn(f"{host} allows no more requests ({kind}) for {pause:.0f} s. Waiting until it counts anew.")


def kind_of(path: str) -> str:
    """Return the kind of a request, as the Hub counts it."""
    if "/resolve/" in path:
        return "resolvers"
    return "api" if path.startswith("/api/") else "pages"


@dataclass
class Commits:
    """The commits of this process in the last hour, by the Hub's address."""

    _made: dict[str, deque[float]] = field(default_factory=dict)
    _lock: Lock = field(default_factory=Lock)

    def wait_for_turn(self, endpoint: str, fence: Fence) -> None:
        """Wait until the Hub allows one more commit."""
        allowed = Settings().commits_per_hour or (COMMITS_THERE if endpoint == HUGGING_FACE else None)
        if allowed is None:
            return
        while (pause := self._pause(endpoint, allowed)) > 0:
            warn(
                f"{allowed} commits were made to {endpoint} within an hour, and it is not to have more. Waiting "
                f"{minutes(pause)} with the next one; what is sent meanwhile goes into it."
            )
            wait(pause, fence)

    def made(self, endpoint: str) -> None:
        """Count a commit."""
        with self._lock:
            self._made.setdefault(endpoint, deque()).append(time.monotonic())

    def _pause(self, endpoint: str, allowed: int) -> float:
        """Return the seconds until a commit is due; 0 if it is."""
        with self._lock:
            made = self._made.setdefault(endpoint, deque())
            while made and made[0] <= time.monotonic() - HOUR:
                made.popleft()
            return made[len(made) - allowed] + HOUR - time.monotonic() if len(made) >= allowed else 0.0


#: The limits are the account's, so all that this process does counts together.
REQUESTS, COMMITS = Requests(), Commits()


def minutes(seconds: float) -> str:
    """Return a pause in the unit that people would use."""
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def warn(message: str) -> None:
    """Warn in the run's log, or in our own log outside a run."""
    try:
        get_run_logger().warning(message)
    except MissingContextError:
        get_logger("bids_push.hub").warning(message)
