"""What the operator leaves out (`exclude`) and brings back (`include`), by patterns as .gitignore has them.

Patterns are relative to the dataset's root. If several patterns of one list match a file, the last one counts, as in a
.gitignore (`!sub-01/` takes something out of the list again). `include` wins over `exclude`.

A file for which BIDS has no name, or whose format nobody looks through before publication, is published only if
`include` names it, with a wildcard or without (`*.html`).

What is not published by default (hidden files, `sourcedata`, and what is no text in `code` and `stimuli`) comes back
only by a pattern that names it: `.heudiconv/`, `sourcedata/sub-01/`. A wildcard does not reach it, so that `*.nii.gz`
publishes nothing of `.git`.
"""

from collections.abc import Sequence

from pathspec import GitIgnoreSpec

from tasks.bids.ignored import Ignored, require_pattern

#: Folders at a root that BIDS keeps out of the dataset proper (BIDS specification, "Source vs. raw vs. derived data").
SOURCEDATA = "sourcedata"
OUTSIDE = (SOURCEDATA, "code", "stimuli")


class Choice:
    """The patterns of one push, and which of them have matched something so far."""

    def __init__(self, exclude: Sequence[str] = (), include: Sequence[str] = ()) -> None:
        """Take the patterns.

        Raises:
            BadInput: one of them cannot be read, or leads out of the dataset.
        """
        for parameter, patterns in (("exclude", exclude), ("include", include)):
            for pattern in patterns:
                require_pattern(parameter, pattern)
        self._excluded, self._included = Ignored(exclude), Ignored(include)
        self._any = bool(exclude), bool(include)
        taken_back = [pattern for pattern in include if pattern.startswith("!")]
        naming = [pattern for pattern in include if pattern not in taken_back]
        self._names = {name for pattern in naming for name in pattern.split("/")}
        self._of_hidden = Ignored([*(one for one in naming if _names_hidden(one)), *taken_back])
        self._of_outside = Ignored([*(one for one in naming if set(one.split("/")) & {*OUTSIDE}), *taken_back])
        self._unmatched = [
            (parameter, pattern, GitIgnoreSpec.from_lines([pattern]).patterns[0])
            for parameter, patterns in (("exclude", exclude), ("include", include))
            for pattern in dict.fromkeys(patterns)
        ]
        self._seen = 0

    def leaves_out(self, path: str) -> bool:
        """Return whether a file that would be published is left out."""
        excludes, includes = self._any
        return excludes and self._excluded.has(path) and not (includes and self._included.has(path))

    def brings_back(self, path: str, hidden: bool) -> bool:
        """Return whether a file is published that is not published by default, since it is hidden or outside."""
        return self._any[1] and (self._of_hidden if hidden else self._of_outside).has(path)

    def names(self, path: str) -> bool:
        """Return whether `include` names a file, by a wildcard or not."""
        return self._any[1] and self._included.has(path)

    def reaches(self, folder: str) -> bool:
        """Return whether a pattern of `include` names a folder that is not published by default."""
        return folder.rpartition("/")[2] in self._names

    def see(self, path: str) -> None:
        """Note that there is such a file."""
        self._seen += 1
        if self._unmatched:
            self._unmatched = [one for one in self._unmatched if one[2].match_file(path) is None]

    def told(self) -> list[str]:
        """Return a sentence for each pattern that has matched none of the files that were seen."""
        return [
            f"{parameter}: {pattern!r} matches none of the {self._seen:,} files of the dataset. A pattern is as in "
            "a .gitignore, relative to the dataset's root."
            for parameter, pattern, _ in self._unmatched
        ]


def _names_hidden(pattern: str) -> bool:
    return any(part.startswith(".") for part in pattern.split("/"))
