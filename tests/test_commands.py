"""The command bids-push: its help, its completion, and what it says where something is not installed."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from deployments.commands import bids_push
from tasks.values.version import version
from tests.test_house import LOCAL_HUB_ALONE

REPO = Path(__file__).resolve().parent.parent
COMMANDS = ("deploy", "worker", "gate", "restore", "staging", "watch", "cluster", "demo", "local-hub", "completion")
LOCAL_HUB = ("serve", "token", "revoke", "check", "export", "backup", "gc")
#: Runs the command in a process of its own, in which some modules cannot be imported.
WITHOUT = """
import sys
sys.modules.update(dict.fromkeys({missing!r}))
from deployments.commands import bids_push
bids_push(prog_name="bids-push")
"""


def command(*arguments: str, missing: tuple[str, ...] = (), **environment: str) -> subprocess.CompletedProcess[str]:
    """What the command says in a process of its own, without the modules that are missing."""
    return subprocess.run(
        [sys.executable, "-c", WITHOUT.format(missing=missing), *arguments],
        cwd=REPO,
        env={"PATH": os.environ["PATH"], **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_the_help_names_each_command_with_a_sentence_and_needs_no_library_but_click() -> None:
    done = command("--help", missing=("prefect", "pyarrow", "huggingface_hub", "pydantic"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.partition("Commands:")[2].splitlines()
    told = {name: what.strip() for name, _, what in (line.strip().partition(" ") for line in lines) if name}
    assert tuple(told) == COMMANDS
    assert all(what.endswith(".") and not what.endswith("...") for what in told.values()), told


@pytest.mark.parametrize("name", [*COMMANDS, *(f"local-hub {name}" for name in LOCAL_HUB)])
def test_each_command_explains_itself(name: str) -> None:
    done = CliRunner().invoke(bids_push, [*name.split(), "--help"])
    assert done.exit_code == 0 and done.output.startswith(f"Usage: bids-push {name}")
    options = [line for line in done.output.splitlines() if line.startswith("  --")]
    assert all("  " in line.strip() or line.endswith("]") for line in options), "an option without a word on it"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["gate", "watch", "local_hub"])
def test_the_old_calls_have_the_same_options(name: str) -> None:
    old = subprocess.run(
        [sys.executable, "-m", f"deployments.{name}", "--help"], cwd=REPO, capture_output=True, text=True, check=False
    )
    new = CliRunner().invoke(bids_push, [name.replace("_", "-"), "--help"])
    usage, *rest = old.stdout.split("\n\n")
    assert usage.startswith(f"Usage: python -m deployments.{name} ")
    assert " ".join(rest).split() == " ".join(new.output.split("\n\n")[1:]).split()


def test_the_version_is_that_of_the_clone() -> None:
    assert command("--version").stdout.strip() == f"bids-push, version {version()}"


@pytest.mark.parametrize(
    ("typed", "completed"),
    [
        ("bids-push st", {"staging"}),
        ("bids-push gate --decision ", {"delete", "keep"}),
        ("bids-push local-hub ", set(LOCAL_HUB)),
        ("bids-push watch --s", {"--silence"}),
    ],
)
def test_a_shell_completes_what_was_begun(typed: str, completed: set[str]) -> None:
    words = typed.split(" ")
    done = command(
        missing=("prefect", "huggingface_hub"),
        _BIDS_PUSH_COMPLETE="bash_complete",
        COMP_WORDS=typed,
        COMP_CWORD=str(len(words) - 1),
    )
    assert {line.partition(",")[2] for line in done.stdout.splitlines()} == completed, done.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_needs_for_it_is_printed(shell: str) -> None:
    done = CliRunner().invoke(bids_push, ["completion", shell])
    assert done.exit_code == 0 and f"_BIDS_PUSH_COMPLETE={shell}_complete" in done.output


@pytest.mark.parametrize("arguments", ["serve --port 0", "token me --role write", "check"])
def test_without_what_the_local_hub_needs_a_sentence_says_what_to_install(arguments: str, tmp_path: Path) -> None:
    (tmp_path / "hub.sqlite3").touch()
    done = command("local-hub", *arguments.split(), "--root", str(tmp_path), missing=LOCAL_HUB_ALONE)
    assert done.returncode == 1 and done.stdout == "" and len(done.stderr.splitlines()) == 1, done.stderr
    assert "bids-push[local-hub]" in done.stderr and "make local-hub" in done.stderr


def test_what_the_worker_is_given_is_prefects() -> None:
    done = command("worker", "--name", "mine", "--limit", "2", missing=("deployments.worker",))
    assert "No such option" not in done.stderr and "deployments.worker" in done.stderr
