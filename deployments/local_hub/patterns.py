"""Patterns as in a .gitignore (gitignore(5)), matched within a budget: they are of people nobody knows.

A pattern becomes one expression for each of its parts between slashes, in which no star is ever tried again (`fnmatch`
makes them atomic), so that a match costs at most the pattern's length times the name's. `**` is found by going through
the parts once. Each match is paid for by that product; a request that costs too much is refused.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from functools import lru_cache

from deployments.local_hub.errors import HubError

TEXT_LIMIT = 128 * 1024  # characters of one file of patterns
PATTERNS_LIMIT = 2_000  # of one file, about 1 kB of memory each
LINE_LIMIT = 1024  # characters of a pattern: a path has no more
BRACKETS_LIMIT = 16  # of a pattern: each that is not closed is looked for to the end
MATCH_COST = 250  # what a match costs beside the product of the two lengths
COST_LIMIT = 250_000_000  # about a second; 256 files under 500 usual patterns cost half of it

ANY_DEPTH = None
WHOLE_CLASS = re.compile(r"\\.|\[[!^]?\]?[^\]]*\]")  # characters in brackets, or one behind a backslash


@dataclass(frozen=True)
class Pattern:
    """One line: its parts (None for `**`), and whether it takes back, or is for folders alone."""

    parts: tuple[re.Pattern[str] | None, ...]
    size: int
    negated: bool
    folders: bool


class Budget:
    """What the matches of one request may cost together."""

    def __init__(self) -> None:
        self._left = COST_LIMIT

    def pay(self, pattern: Pattern, name: str) -> None:
        """One match; 413 when it is too much."""
        self._left -= MATCH_COST + pattern.size * len(name)
        if self._left < 0:
            raise HubError(413, "Matching these paths with these patterns takes too long: ask about fewer at once")


@lru_cache(maxsize=8)
def patterns(text: str) -> tuple[Pattern, ...]:
    """The patterns of a text, a line each; 413 for one too long."""
    return tuple(found for line in lines_of(text) if (found := pattern(line)) is not None)


def lines_of(text: str) -> list[str]:
    """The lines of a file of patterns that may be some; 413 where it is too long."""
    lines = [line for line in text.splitlines() if line.strip()] if len(text) <= TEXT_LIMIT else None
    if lines is None or len(lines) > PATTERNS_LIMIT:
        raise HubError(413, f"A file of patterns has at most {PATTERNS_LIMIT} of them and {TEXT_LIMIT} characters")
    return lines


def pattern(line: str) -> Pattern | None:
    """One line; None for a blank one, a comment, and what no path can match."""
    if line.startswith("#") or len(line) > LINE_LIMIT or line.count("[") > BRACKETS_LIMIT:
        return None
    line = re.sub(r"(?<!\\) +$", "", line)
    negated = line.startswith("!")
    body = line[1:] if negated else line
    folders = body.endswith("/")
    body = body.rstrip("/")
    if not body:
        return None
    names = body.removeprefix("/").split("/")
    if any("[" in WHOLE_CLASS.sub("", name) for name in names):
        return None  # git finds nothing for brackets that are not closed
    if "/" not in body:
        names = ["**", *names]  # at any depth
    elif names[-1] == "**":
        names = [*names[:-1], "**", "*"]  # all that is inside, not the folder
    parts = tuple(ANY_DEPTH if name == "**" else re.compile(_expression(name), re.DOTALL) for name in names)
    return Pattern(parts, len(body), negated, folders)


def _expression(name: str) -> str:
    # fnmatch has no backslash: a character behind one is put into brackets, where it stands for itself
    plain = re.sub(r"\\(.)", lambda found: found[1] if found[1] in "!^]\\-" else f"[{found[1]}]", name)
    return fnmatch.translate(re.sub(r"\*+", "*", plain.replace("[^", "[!")))


class Matcher:
    """Paths against some patterns; what is found of a folder is kept for the next path in it."""

    def __init__(self, text: str, budget: Budget):
        self._patterns = patterns(text)
        self._budget = budget
        self._folders: dict[str, bool] = {}

    def ignored(self, path: str) -> bool:
        """Whether the patterns exclude a file: by its path, or a folder that it is in."""
        if not self._patterns:
            return False
        names = path.split("/")
        for depth in range(1, len(names)):
            folder = "/".join(names[:depth])
            if folder not in self._folders:
                self._folders[folder] = self._last(names[:depth], is_folder=True) is True
            if self._folders[folder]:
                return True
        return self._last(names, is_folder=False) is True

    def _last(self, names: list[str], *, is_folder: bool) -> bool | None:
        """What the last pattern that matches says: excluded, taken back, or None where none does."""
        for each in reversed(self._patterns):
            if (is_folder or not each.folders) and matches(each, names, self._budget):
                return not each.negated
        return None


def matches(pattern: Pattern, names: list[str], budget: Budget) -> bool:
    """Whether a pattern matches the whole of a path, given by its names."""
    if len(pattern.parts) == 2 and pattern.parts[0] is ANY_DEPTH and pattern.parts[1] is not ANY_DEPTH:
        budget.pay(pattern, names[-1])
        return pattern.parts[1].match(names[-1]) is not None
    reached = {0}  # how many parts may be used up by the names so far
    for name in names:
        after: set[int] = set()
        for used in _over_any_depth(pattern, reached):
            if used == len(pattern.parts):
                continue
            part = pattern.parts[used]
            budget.pay(pattern, name)
            if part is ANY_DEPTH:
                after.add(used)
            elif part.match(name):
                after.add(used + 1)
        reached = after
        if not reached:
            return False
    return len(pattern.parts) in _over_any_depth(pattern, reached)


def _over_any_depth(pattern: Pattern, reached: set[int]) -> set[int]:
    """The same with those where a `**` stands for nothing."""
    found = set(reached)
    for used in sorted(reached):
        while used < len(pattern.parts) and pattern.parts[used] is ANY_DEPTH:
            used += 1
            found.add(used)
    return found
