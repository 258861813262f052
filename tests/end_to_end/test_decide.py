"""Deciding at a gate from the command line, as an operator does who has no browser."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from deployments.local_stack import REPO, Stack, clean_environment, wait_until
from tests.end_to_end.conftest import Push, Pushed
from tests.ports import own_port


def command(worker: Stack, *arguments: str) -> tuple[int, str, str]:
    """What the command said, and its exit code; there is no terminal to ask on."""
    done = subprocess.run(
        [sys.executable, "-m", "deployments.gate", *arguments],
        cwd=REPO,
        env=worker.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


def test_open_gates_are_listed_and_decided_from_the_command_line(push: Push, worker: Stack) -> None:
    other = push(revision="other").at_gate()  # first: a branch that is cut from a published main has nothing to publish
    main = push().at_gate()
    staged = main.shards()
    repo = main.repo_id

    code, listed, _ = command(worker)
    assert code == 0
    for gate in (main, other):
        state = gate.runs.read(gate.run).state
        assert state is not None
        assert str(gate.run) in listed and str(gate.staging.folder) in listed
        assert f"{worker.ui}/runs/flow-run/{gate.run}" in listed
    assert f"{repo} at other" in listed and f"{len(staged)} shards" in listed and "closes 20" in listed

    # what is no decision decides nothing, and says why in one line
    for arguments, why in (
        (["lab/no-such", "--decision", "delete", "--confirm-repo", "lab/no-such"], "No gate is open for lab/no-such"),
        ([repo, "--decision", "delete", "--confirm-repo", repo], "2 gates are open"),
        ([str(main.run), "--confirm-repo", repo], "--decision"),
        ([str(main.run), "--decision", "delete"], "--confirm-repo"),
        ([str(main.run), "--decision", "delete", "--confirm-repo", "lab/another"], "Asked again: Not accepted"),
    ):
        code, _, said = command(worker, *arguments)
        assert code == 1 and why in said and len(said.splitlines()) == 1, said
        assert main.shards() == staged and other.shards()

    # the gate that asks again takes the right name
    code, said, _ = command(worker, str(main.run), "--decision", "delete", "--confirm-repo", repo, "--note", "me")
    assert code == 0 and "Decided: CleanedUp" in said
    assert main.shards() == set()
    wait_until("the run's log has the note", lambda: "Note: me" in main.runs.logs(main.run), 30)

    # on a terminal, what is missing is asked
    code, said = typed(worker, other, "perhaps", "keep", repo, "by hand")
    assert code == 0 and "Decided: Kept" in said and other.shards()
    assert other.runs.history(other.run)[-1] == "Kept"
    assert "No gate is open for" in command(worker, repo, "--decision", "keep", "--confirm-repo", repo)[2]


def typed(worker: Stack, gate: Pushed, *answers: str) -> tuple[int, str]:
    """The command on a terminal at which somebody types these lines; its exit code, and what was on the screen."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        [sys.executable, "-m", "deployments.gate", gate.repo_id],
        cwd=REPO,
        env=worker.environment,
        stdin=theirs,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        os.write(ours, "".join(f"{answer}\n" for answer in answers).encode())
        said, _ = process.communicate(timeout=300)
    os.close(theirs)
    os.close(ours)
    return process.returncode, said


@pytest.mark.parametrize("named", [False, True])
def test_without_a_server_the_command_says_what_to_set_in_one_line(tmp_path: Path, named: bool) -> None:
    url = f"http://127.0.0.1:{own_port()}/api"
    environment = clean_environment() | {"PREFECT_HOME": str(tmp_path)} | ({"PREFECT_API_URL": url} if named else {})
    done = subprocess.run(
        [sys.executable, "-m", "deployments.gate"], cwd=REPO, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert (url if named else "PREFECT_API_URL=") in done.stderr
