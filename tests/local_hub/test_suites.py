"""The public suites over the local Hub: what of a suite's failures is expected, what is new, and what is said of it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.local_hub import suites
from tests.local_hub.running import RunningHub

CONSTANTS = 'ENDPOINT = "https://hub.example"\nWHOAMI = ENDPOINT + "/api/whoami-v2"\nTOKEN = "none"\n'
TESTS = """
import httpx2
import pytest

from .constants import ENDPOINT, TOKEN, WHOAMI

def test_asks_the_local_hub_who_it_is():
    answer = httpx2.get(WHOAMI, headers={"Authorization": f"Bearer {TOKEN}"})
    assert (WHOAMI, answer.json()["name"]) == (f"{ENDPOINT}/api/whoami-v2", "tester")

def test_asks_for_what_there_is_not():
    httpx2.post(f"{ENDPOINT}/api/collections").raise_for_status()

@pytest.mark.production
def test_is_not_chosen():
    raise AssertionError
"""
FAILS_ANEW = """
def test_fails_anew():
    raise ValueError("a new thing")
"""
ENDS_ITSELF = """
def test_ends_itself_after_a_500():
    pytest.xfail("500 Server Error")
"""
FIXTURE = """
import pytest

@pytest.fixture
def live():
    return True

def test_without_the_fixture():
    raise AssertionError

def test_with_it(live):
    assert live
"""
EXPECTED = "# why\ntiny/tests/test_live.py::test_asks_for_*  # collections\n"


def constants(hub: RunningHub) -> dict[str, str]:
    return {"ENDPOINT": hub.endpoint, "TOKEN": hub.token("tester")}


TINY = suites.Suite(
    "tiny", ("test_live.py", "test_of_another_version.py"), ("test_partly.py",), "live", "not production",
    "tests.constants", ("pytest_timeout",), constants,
)  # fmt: skip
Command = Callable[..., tuple[int, str]]


@pytest.fixture
def suites_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command over a tiny suite, which starts a Hub: the exit code, and what it says."""

    def run(tests: str, expected: str = EXPECTED, *options: str) -> tuple[int, str]:
        folder = tmp_path / "tiny" / "tests"
        folder.mkdir(parents=True)
        files = {"__init__": "", "constants": CONSTANTS, "test_live": tests, "test_partly": FIXTURE}
        for name, text in files.items():
            (folder / f"{name}.py").write_text(text)
        (tmp_path / "expected.txt").write_text(expected)
        arguments = [str(tmp_path), "--expected", str(tmp_path / "expected.txt"), *options]
        code = suites.main(arguments, suites=[TINY])
        return code, capsys.readouterr().out

    return run


def test_a_suite_that_fails_as_expected_is_well(suites_command: Command) -> None:
    assert suites_command(TESTS) == (0, "tiny: passed 2, expected 1, new 0\n")


def test_a_new_failure_is_named_with_what_it_says(suites_command: Command) -> None:
    code, said = suites_command(TESTS + FAILS_ANEW)
    assert (code, said.splitlines()) == (
        1,
        [
            "tiny: passed 2, expected 1, new 1",
            "  new: tiny/tests/test_live.py::test_fails_anew: ValueError: a new thing",
        ],
    )


def test_a_test_that_ends_itself_after_an_error_of_the_hubs_has_failed(suites_command: Command) -> None:
    code, said = suites_command(TESTS + ENDS_ITSELF)
    assert code == 1 and "test_ends_itself_after_a_500: 500 Server Error" in said


def test_an_expected_failure_that_passes_now_is_named(suites_command: Command) -> None:
    code, said = suites_command(TESTS, EXPECTED + "tiny/tests/test_live.py::test_asks_the_*  # no whoami\n")
    assert code == 0 and said.splitlines()[1:] == ["  passes now: tiny/tests/test_live.py::test_asks_the_*"]


def test_a_file_that_cannot_be_read_has_failed_and_the_others_run(suites_command: Command) -> None:
    code, said = suites_command("import nothing_of_this_name")
    assert code == 1 and said.startswith("tiny: passed 1, expected 0, new 1\n  new: tiny/tests/test_live.py: ")
    assert "No module named 'nothing_of_this_name'" in said


def test_nothing_that_ran_is_not_well(suites_command: Command) -> None:
    assert suites_command(TESTS, EXPECTED, "--only", "no_such_test") == (
        1,
        "tiny: passed 0, expected 0, new 0\n  no test ran\n",
    )


def test_a_folder_without_a_suite_is_told_how_to_get_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert suites.main([str(tmp_path)]) == 2
    assert "git clone" in capsys.readouterr().err


def test_what_is_missing_is_named_as_it_is_installed() -> None:
    needs = [suites.Suite("tiny", (), (), "", "", "", ("no_such_plugin", "pytest"), constants)]
    assert suites.missing(needs) == ["no-such-plugin"]


def test_a_line_names_a_test_as_it_is_written_but_for_a_star() -> None:
    line = suites.Line("datasets/tests/test_hub.py::test_url[*-a b]", "why")
    assert line.names("datasets/tests/test_hub.py::test_url[v1-a b]")
    assert not line.names("datasets/tests/test_hub.py::test_url[v1-a b]2")
    assert not line.names("datasets/tests/test_hub.py::test_urlv")


def test_every_line_of_what_is_expected_has_a_reason_and_a_suite(tmp_path: Path) -> None:
    assert {line.pattern.split("/")[0] for line in suites.read_expected(suites.EXPECTED)} == {
        suite.name for suite in suites.SUITES
    }
    (tmp_path / "list").write_text("datasets/tests/test_hub.py::test_url\n")
    with pytest.raises(ValueError, match="list, line 1: a test, two spaces"):
        suites.read_expected(tmp_path / "list")
