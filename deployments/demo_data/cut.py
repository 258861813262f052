"""Orders the sessions so that the first N of them stand for the whole dataset, for every N.

The cut of N is thus a part of the cut of N + 1. The first few show each thing that sessions of this dataset can have,
as early as can be; the others follow in an order that a hash of their names decides, which favours nothing.
"""

import hashlib
from collections import Counter, defaultdict
from functools import lru_cache

from deployments.demo_data.source import images


@lru_cache(maxsize=1)
def ordered_sessions() -> tuple[str, ...]:
    """Gives all sessions, as `sub-*/ses-*`, the most telling first."""
    shows = _what_sessions_show()
    waiting = sorted(shows, key=lambda session: hashlib.sha256(session.encode()).hexdigest())
    everything = set().union(*shows.values())
    order: list[str] = []
    seen: set[str] = set()
    while seen != everything:
        best = max(waiting, key=lambda session: len(shows[session] - seen))  # of equals, the first by hash
        waiting.remove(best)
        order.append(best)
        seen |= shows[best]
    # a subject that came back: what a longitudinal dataset is about
    subject = order[0].partition("/")[0]
    again = next((session for session in waiting if session.startswith(f"{subject}/")), None)
    if again is not None:
        waiting.remove(again)
        order.append(again)
    return (*order, *waiting)


def _what_sessions_show() -> dict[str, set[str]]:
    """Gives for each session the suffixes it has, and those it has more than once."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for image in images():
        counts[image.session][image.suffix] += 1
    return {
        session: {f"{suffix} x{min(count, 2)}" for suffix, most in found.items() for count in range(1, most + 1)}
        for session, found in counts.items()
    }
