"""The newest head of a target that this machine has seen: kept for the runs that follow, and never in their way."""

from pathlib import Path

import pytest

from tasks.hub.newest_head import NewestHead

A, B = "a" * 40, "0123456789abcdef" * 2 + "b" * 8


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "head"


def test_the_newest_head_is_the_one_that_was_noted_last() -> None:
    newest = NewestHead()
    assert newest.commit is None
    for commit in (A, B, A, None, B):
        newest.note(commit)
        assert newest.commit == commit


def test_the_next_run_knows_what_the_last_one_has_noted(file: Path) -> None:
    first = NewestHead(file)
    for commit in (A, B, None, B):
        first.note(commit)
        assert first.commit == NewestHead(file).commit == commit


def test_a_head_that_is_known_already_is_not_written_again(file: Path) -> None:
    newest = NewestHead(file)
    newest.note(None)
    assert not file.exists()
    newest.note(A)
    file.unlink()
    newest.note(A)
    assert not file.exists()


def test_a_run_that_cannot_read_or_write_the_file_knows_its_own_heads(file: Path) -> None:
    (file / "something").mkdir(parents=True)
    newest = NewestHead(file)
    assert newest.commit is None
    newest.note(A)
    assert newest.commit == A and NewestHead(file).commit is None


@pytest.mark.parametrize("text", [A, f"{A}\n", f"  {A}\n\n"])
def test_white_space_around_a_head_means_nothing(file: Path, text: str) -> None:
    file.write_text(text)
    assert NewestHead(file).commit == A


@pytest.mark.parametrize(
    "text", ["", "main", A[:-1], f"{A}a", f"{A} {B}", A.upper(), f"x{A}", f"{'g' * 40}", "\xff" + A]
)
def test_a_damaged_file_names_no_head(file: Path, text: str) -> None:
    file.write_bytes(text.encode("latin-1"))
    assert NewestHead(file).commit is None


def test_only_the_first_hundred_characters_of_the_file_are_looked_at(file: Path) -> None:
    """A file as we write it has forty."""
    file.write_text(f"{A}{' ' * 60}{B * 1000}")
    assert NewestHead(file).commit == A
    file.write_text(f"{A}{' ' * 59}{B}")
    assert NewestHead(file).commit is None
