"""What a list of patterns names, as a .gitignore does: the lines of a .bidsignore, or what an operator leaves out.

Some datasets name their files one by one, in thousands of lines. Such a line is looked up. Only lines with a pattern
are tried on every file. Where a line takes something back in (`!`), the order matters, so all of them are tried.
"""

from collections.abc import Iterable

from pathspec import GitIgnoreSpec

_OF_PATTERNS = frozenset("*?[]\\!#")


class Ignored:
    """The rules of one .bidsignore, or of one list of patterns."""

    def __init__(self, lines: Iterable[str]) -> None:
        rules = list(lines)
        named = [] if any(line.startswith("!") for line in rules) else [line for line in rules if _names_a_path(line)]
        self._paths = frozenset(line.removeprefix("/") for line in named)
        left = set(named)
        self._rules = GitIgnoreSpec.from_lines(line for line in rules if line not in left)

    def has(self, path: str) -> bool:
        """Return whether the rules name a file.

        Args:
            path: the file's path, relative to the folder of the rules.
        """
        if self._paths:
            end = len(path)
            while end > 0:
                if path[:end] in self._paths:
                    return True
                end = path.rfind("/", 0, end)
        return self._rules.match_file(path)


def _names_a_path(line: str) -> bool:
    """Return whether a line names one file or folder by its path from the root, without a pattern.

    A name without a slash is one at any depth, and a slash at the end is for folders alone.
    """
    return "/" in line and not line.endswith("/") and line == line.strip() and not _OF_PATTERNS.intersection(line)
