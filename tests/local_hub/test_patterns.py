"""Patterns of a .gitignore as git itself reads them, and within a budget whatever they are."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from deployments.local_hub.errors import HubError
from deployments.local_hub.patterns import Budget, Matcher, patterns

ATOMS = [
    "a",
    "b",
    "*",
    "?",
    "a*",
    "*b",
    "[ab]",
    "[!a]",
    "[^b]",
    "**",
    "a.b",
    "\\*",
    "\\a",
    "*.t",
    "*a*b*",
    "[]b]",
    "a ",
]
NAMES = ["a", "b", "c", "ab", "a.b", "x.t", "aab", "*", "]", "a "]


def some_patterns(chance: random.Random) -> str:
    lines = []
    for _ in range(chance.randint(1, 3)):
        line = "/".join(chance.choice(ATOMS) for _ in range(chance.randint(1, 3)))
        lines.append(("!" if chance.random() < 0.2 else "") + ("/" if chance.random() < 0.2 else "") + line)
        lines[-1] += "/" if chance.random() < 0.2 else ""
    return "\n".join(lines) + "\n"


def test_paths_are_ignored_as_git_ignores_them(tmp_path: Path) -> None:
    chance = random.Random(16)
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    for _ in range(60):
        text = some_patterns(chance)
        (tmp_path / ".gitignore").write_text(text)
        paths = {"/".join(chance.choice(NAMES) for _ in range(chance.randint(1, 4))) for _ in range(40)}
        asked = ["git", "-C", str(tmp_path), "check-ignore", "--no-index", "--stdin", "-z"]
        answer = subprocess.run(asked, input="\0".join(paths).encode(), capture_output=True, check=False).stdout
        matcher = Matcher(text, Budget())
        assert {path for path in paths if matcher.ignored(path)} == set(answer.decode().split("\0")) - {""}, text


@pytest.mark.parametrize(
    "text",
    [
        "*a*a*a*a*a*a*a*a*b\n" * 1000, ("*a" * 500 + "b\n") * 100, ("a/**/" * 150 + "b\n") * 100, "[" * 1000 + "\n",
        ("**/a/" * 200 + "b\n") * 100, "x\n" * 2001, ("*" + "a" * 120 + "b*" + "a" * 120 + "\n") * 400, "x" * 200_000,
    ],
    ids=["stars", "many stars", "any depth", "brackets", "any depth first", "many", "near misses", "long"],
)  # fmt: skip
def test_the_worst_patterns_are_matched_or_refused_by_their_cost(text: str) -> None:
    names = ["a" * 250 + str(number) for number in range(1000)] + ["/".join(["a"] * 500)]
    try:
        matcher = Matcher(text, Budget())
        assert not any(matcher.ignored(path) for path in names)
    except HubError as error:
        assert error.status == 413


def test_brackets_that_are_not_closed_match_nothing() -> None:
    matcher = Matcher("[\na[b\n[!\n[]\n\\[\n", Budget())
    assert [name for name in ("[", "a[b", "ab", "!", "]") if matcher.ignored(name)] == ["["]


def test_a_usual_file_of_patterns_over_a_full_request_is_within_the_budget() -> None:
    text = "*.pyc\n__pycache__/\n/build\n.venv\n*.log\nfoo/**/bar\n# a comment\n!keep.log\n" * 60
    matcher = Matcher(text, Budget())
    paths = [f"sub-{number:03}/ses-01/anat/sub-{number:03}_ses-01_T1w.nii.gz" for number in range(256)]
    assert not any(matcher.ignored(path) for path in paths)
    assert len(patterns(text)) == 7 * 60
