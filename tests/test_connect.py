"""Where a run's token comes from, and in which words an error of the machine's storage ends a run."""

import errno
from typing import Any

import pytest
from huggingface_hub import constants
from prefect.blocks.system import Secret

from flows import target
from flows.connect import connect
from flows.target import ended_by
from tasks.approve import Superseded
from tasks.hub.errors import NoToken
from tasks.values.errors import BadInput, PushError


class Log:
    """What is logged, by level."""

    def __init__(self) -> None:
        self.said: list[tuple[str, str]] = []

    def __getattr__(self, level: str) -> Any:
        return lambda text, *values: self.said.append((level, text % values))


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    found = Log()
    monkeypatch.setattr(target, "get_run_logger", lambda: found)
    return found


@pytest.fixture
def block(monkeypatch: pytest.MonkeyPatch) -> None:
    """Secret blocks: `hub-token` holds one, `empty` blanks, `number` a number, and there is no other."""
    held: dict[str, Any] = {"hub-token": " hf_of_the_lab\n", "empty": " ", "number": 7}

    def load(name: str) -> Secret[Any]:
        if name not in held:
            raise ValueError(f"Unable to find block document named {name}")
        return Secret(value=held[name])

    monkeypatch.setattr(Secret, "load", load)
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_worker")


@pytest.mark.parametrize(("name", "token"), [("hub-token", "hf_of_the_lab"), ("", "hf_of_the_worker")])
@pytest.mark.usefixtures("block")
def test_a_token_is_the_blocks_that_is_named_or_the_workers(name: str, token: str) -> None:
    hub = connect("lab/x", "main", name)
    assert hub.token == token and (hub.target.repo_id, hub.target.revision) == ("lab/x", "main")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("hf_aSecretThatSomebodyTyped", "give the name of a Secret block"),
        ("another", "there is no Secret block named 'another'"),
        ("empty", "the Secret block 'empty' holds no token"),
        ("number", "the Secret block 'number' holds no token"),
    ],
)
@pytest.mark.usefixtures("block")
def test_a_block_that_gives_no_token_is_named_and_a_token_in_place_of_its_name_is_not_shown(
    name: str, said: str
) -> None:
    with pytest.raises(BadInput) as error:
        connect("lab/x", "main", name)
    assert str(error.value).startswith(f"token_block: {said}") and "Secret" in str(error.value)
    assert "hf_" not in str(error.value)


@pytest.mark.parametrize("to_read", [False, True])
def test_a_hubs_address_or_a_token_that_cannot_be_one_is_refused_before_the_hub_is_asked(
    to_read: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_a b")
    with pytest.raises(BadInput, match="token"):
        connect("lab/x", "main", "", to_read)
    monkeypatch.setattr(constants, "ENDPOINT", "hub.lab")
    with pytest.raises(BadInput, match=r"HF_ENDPOINT: 'hub\.lab' is no address of a Hub"):
        connect("lab/x", "main", "", to_read)


def test_without_a_token_a_target_is_read_and_not_written_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.hub.connection.get_token", lambda: None)
    assert connect("lab/x", "v1", "", to_read=True).token == ""
    with pytest.raises(NoToken, match="set HF_TOKEN in the worker's environment"):
        connect("lab/x", "v1", "")


@pytest.mark.parametrize(("repo_id", "revision"), [("no slash or / spaces", "main"), ("lab/x", "a..b")])
def test_a_name_that_cannot_be_is_refused_before_a_token_is_looked_for(repo_id: str, revision: str) -> None:
    with pytest.raises(BadInput):
        connect(repo_id, revision, "NO BLOCK")


@pytest.mark.parametrize(
    ("code", "name", "what_to_do"),
    [
        (errno.ENOSPC, "DiskFull", "Free some room there"),
        (errno.EDQUOT, "DiskFull", "Free some room there"),
        (errno.EROFS, "StorageFailed", "Look at that disk"),
        (errno.EACCES, "StorageFailed", "the rights of the user"),
        (errno.ESTALE, "StorageFailed", "Look at that disk"),
    ],
)
def test_what_the_storage_refuses_ends_a_run_with_a_name_the_file_and_what_to_do(
    code: int, name: str, what_to_do: str, log: Log
) -> None:
    state = ended_by(OSError(code, "the system's words", "/data/a"))
    assert (state.type.value, state.name) == ("FAILED", name)
    said = state.message or ""
    assert said.startswith("/data/a: the system's words. ") and what_to_do in said
    assert log.said == [("error", state.message)]


def test_a_run_that_lost_its_gate_ends_cancelled_and_what_is_a_bug_keeps_its_trace(log: Log) -> None:
    superseded, failed = ended_by(Superseded("a newer run has it")), ended_by(PushError("it is not so"))
    assert (superseded.type.value, superseded.name, superseded.message) == (
        "CANCELLED", "Superseded", "a newer run has it",
    )  # fmt: skip
    assert (failed.type.value, failed.name, failed.message) == ("FAILED", "PushError", "it is not so")
    assert log.said == [("warning", "a newer run has it"), ("error", "it is not so")]
    with pytest.raises(OSError, match="a bug"):
        ended_by(OSError(errno.ENOENT, "a bug", "/data/a"))
