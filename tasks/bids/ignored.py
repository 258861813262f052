"""What a list of patterns names, as a .gitignore does: the lines of a .bidsignore, or what a person asks for.

Some datasets name their files one by one, in thousands of lines. Such a line is looked up. Only lines with a pattern
are tried on every file. Where a line takes something back in (`!`), the order matters, so all of them are tried.
"""

import re
from collections.abc import Iterable

from pathspec import GitIgnoreSpec

from tasks.values.errors import BadInput

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


def require_pattern(parameter: str, pattern: str) -> None:
    """Check that a pattern which a person has typed can be used.

    Args:
        parameter: the parameter of the flow that it stands in, for the message.
        pattern: the pattern.

    Raises:
        BadInput: it cannot.
    """
    said = f"{parameter}: {pattern!r} cannot be used"
    if not pattern.strip() or pattern.startswith("#"):
        raise BadInput(f"{said}: it is empty, or a comment. Take it out of the list.")
    if re.search(r"[\r\n\0]", pattern):
        raise BadInput(f"{said}: it has more than one line. Give each pattern as an entry of its own.")
    if ".." in pattern.split("/") or pattern.startswith("~"):
        raise BadInput(f"{said}: it leads out of the dataset. Give a pattern relative to the dataset's root.")
    try:
        read = GitIgnoreSpec.from_lines([pattern]).patterns[0].regex is not None
    except (ValueError, re.error):
        read = False
    if not read:
        raise BadInput(
            f"{said}: it is no pattern as a .gitignore has them (https://git-scm.com/docs/gitignore), such as "
            "sub-01/, *_T2w.nii.gz or derivatives/old/."
        )
