"""Transfer and commit against a Hub that fails, and clients that are killed: what is retried, what is sent, what lands.

The Hub is the real local one behind a layer that breaks requests and counts them (`tests.counted_hub`).
"""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import constants

from deployments.local_stack import REPO, wait_until
from tasks.commit import commit
from tasks.commit.other_files import Besides
from tasks.disk.files import sha256_of
from tasks.disk.staging import RECEIPT_SUFFIX, Staging
from tasks.hub.client import Hub
from tasks.hub.errors import NotAllowed, TokenRejected, Transient
from tasks.hub.retries import retry_while_busy
from tasks.record.remote import Remote, read_remote
from tasks.transfer import transfer
from tasks.values.errors import PushError
from tasks.values.models import Receipt
from tests.counted_hub import CountedHub
from tests.hub_within import Breakable

Staged = Callable[[int], list[Receipt]]
CHANGES = Besides(lambda record, existing: f"---\nlicense: cc0-1.0\n---\n{len(record.shards)} shards\n", {})
AT_ONCE = 1  # requests that are refused before a person hears of it

#: Transfers shards one after the other, and says when each is sent.
TRANSFER = """
import sys
from pathlib import Path
from tasks.hub.client import Hub
from tasks.disk.staging import RECEIPT_SUFFIX, Staging, Target
from tasks.transfer import transfer
endpoint, repo, folder, token = sys.argv[1:]
hub, staging = Hub(Target(endpoint, repo), token), Staging(Path(folder))
for receipt in staging.receipts():
    assert transfer(hub, staging, [receipt])
    print(receipt.name, flush=True)
"""


@pytest.fixture
def hub(counted: Hub) -> Hub:
    counted.prepare(private=True)
    return counted


@pytest.fixture(params=["xet", "lfs"])
def transport(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", request.param == "lfs")
    return str(request.param)


def publish(hub: Hub, staging: Staging, receipts: list[Receipt], before: Remote | None = None) -> Remote:
    sent = transfer(hub, staging, receipts)
    lines = [one.line() for one in receipts]
    return commit(hub, before or read_remote(hub), lines, [one.operation for one in sent], CHANGES)


def commits(hub: Hub) -> int:
    return len(hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset"))


def holds(hub: Hub, receipts: list[Receipt]) -> bool:
    files = hub.listing(hub.head()).files
    return all(one.path in files and files[one.path].sha256 == one.sha256 for one in receipts)


# What only a person can mend fails at once, and says what to do.


@pytest.mark.parametrize("path", ["/preupload/", "xet-write-token", "/v1/xorbs/", "/shards", "/commit/"])
@pytest.mark.parametrize(
    ("status", "error", "what_to_do"),
    [(401, TokenRejected, "HF_TOKEN"), (403, NotAllowed, "write role")],
)
def test_a_refusal_fails_at_once_whichever_request_it_answers(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, path: str, status: int, error: type[PushError],
    what_to_do: str,
) -> None:  # fmt: skip
    receipts = [unheard_of(staging, one) for one in staged(1)]
    server.break_on({"fault": "status", "path": path, "status": status, "times": -1})
    with pytest.raises(error, match=what_to_do):
        publish(hub, staging, receipts)
    assert server.broken <= AT_ONCE, f"it was asked {server.broken} times"
    assert commits(hub) == 1


def unheard_of(staging: Staging, receipt: Receipt) -> Receipt:
    """A staged shard with bytes that are new to the Hub and to the client's caches."""
    file = staging.folder / receipt.file
    file.write_bytes(os.urandom(receipt.size))
    fresh = receipt.model_copy(update={"sha256": sha256_of(file)})
    file.with_suffix(RECEIPT_SUFFIX).write_text(fresh.model_dump_json())
    return fresh


# What passes by itself is told apart from it.


@pytest.mark.parametrize("path", ["/preupload/", "xet-write-token", "/v1/xorbs/", "/commit/"])
@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_hub_that_cannot_answer_now_is_worth_another_try_and_the_try_succeeds(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, path: str, status: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(
        "huggingface_hub.utils._http.time.sleep", lambda seconds: None
    )  # between the client's own tries
    receipts = [unheard_of(staging, one) for one in staged(1)]
    server.break_on({"fault": "status", "path": path, "status": status, "times": 9, "retry_after": 0})
    with pytest.raises(Transient, match=str(status)):
        publish(hub, staging, receipts)
    server.break_on()
    publish(hub, staging, receipts)
    assert holds(hub, receipts)


def test_a_pause_that_the_hub_asks_for_is_waited_out_and_said(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(1)
    said: list[str] = []
    server.break_on({"fault": "status", "path": "/commit/", "status": 429, "retry_after": 2, "times": 2})
    began = time.monotonic()
    retry_while_busy(lambda: publish(hub, staging, receipts), said.append)
    assert time.monotonic() - began >= 4
    assert len(said) == 2 and "asks for a pause of 2 s" in said[0] and "429" in said[0]
    assert holds(hub, receipts) and commits(hub) == 2


# Commits: each lands once, whatever becomes of its answer.


def test_a_commit_whose_answer_was_lost_is_recognised_and_not_made_again(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(2)
    breakable.break_on({"fault": "lose_response", "path": "/commit/"})
    after = publish(hub, staging, receipts)
    assert breakable.broken == 1
    assert after.commit == hub.head() and commits(hub) == 2 and holds(hub, receipts)


def test_a_commit_of_the_card_alone_whose_answer_was_lost_is_not_made_again(breakable: Breakable, hub: Hub) -> None:
    breakable.break_on({"fault": "lose_response", "path": "/commit/"})
    after = commit(hub, read_remote(hub), [], [], CHANGES)
    assert after.commit == hub.head() and commits(hub) == 2


def test_a_commit_cut_on_its_way_does_not_land_and_lands_once_when_tried_again(
    breakable: Breakable, hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(2)
    before = read_remote(hub)
    breakable.break_on({"fault": "cut_request", "path": "/commit/", "bytes": 100})
    with pytest.raises(Transient):
        publish(hub, staging, receipts, before)
    assert commits(hub) == 1
    publish(hub, staging, receipts, before)
    assert commits(hub) == 2 and holds(hub, receipts)


def test_lines_that_two_writers_commit_in_turns_are_all_in_the_record(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(6)
    heads = {0: read_remote(hub), 1: read_remote(hub)}  # neither hears of the other but by a refused commit
    for number, receipt in enumerate(receipts):
        heads[number % 2] = publish(hub, staging, [receipt], heads[number % 2])
    assert set(read_remote(hub).record.shards) == {one.path for one in receipts}
    assert commits(hub) == 1 + len(receipts) and holds(hub, receipts)


# What was sent is not sent again.


def test_content_that_was_sent_before_a_kill_is_not_sent_again_after_it(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, transport: str, tmp_path: Path
) -> None:
    receipts = [unheard_of(staging, one) for one in staged(6)]
    home = tmp_path / "home"
    start = len(server.asked())
    with sender(hub, staging, home, transport) as process:
        assert process.stdout is not None
        sent = [process.stdout.readline().strip() for _ in range(3)]
        process.send_signal(signal.SIGKILL)
        process.wait()
    wait_until("the server has noted the killed request", lambda: len(server.asked()) > start, 30)
    killed = server.content_received(start)
    assert all(sent) and commits(hub) == 1

    again = len(server.asked())
    with sender(hub, staging, home, transport) as process:
        assert process.wait() == 0
    whole = sum(one.size for one in receipts)
    left = sum(one.size for one in receipts if one.name not in sent)
    assert server.content_received(again) <= left * 1.02
    assert killed + server.content_received(again) <= (whole + max(one.size for one in receipts)) * 1.02


def test_another_machine_sends_nothing_that_the_hub_has(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, transport: str, tmp_path: Path
) -> None:
    staged(2)
    for home in ("one machine", "another machine"):
        start = len(server.asked())
        with sender(hub, staging, tmp_path / home, transport) as process:
            assert process.wait() == 0
    assert server.content_received(start) == 0


def sender(hub: Hub, staging: Staging, home: Path, transport: str) -> "subprocess.Popen[str]":
    environment = {**os.environ, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": str(int(transport == "lfs"))}
    command = [sys.executable, "-c", TRANSFER, hub.target.endpoint, hub.target.repo_id, str(staging.folder), hub.token]
    return subprocess.Popen(command, cwd=REPO, env=environment, stdout=subprocess.PIPE, text=True)


def test_a_shard_changed_while_it_was_sent_is_not_committed(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged, transport: str
) -> None:
    """The hash that the client takes while it sends is the last word, whatever was believed before."""
    (receipt,) = staged(1)
    file = staging.folder / receipt.file
    assert transfer(hub, staging, [receipt])
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert transfer(hub, Believing(staging.folder), [receipt]) == ()


class Believing(Staging):
    """A staging folder that looks at nothing: as if the file had changed right after it was looked at."""

    def intact(self, receipt: Receipt) -> bool:
        return True


def test_a_hub_killed_while_it_receives_is_worth_another_try_and_loses_nothing(
    server: CountedHub, hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(3)
    first = publish(hub, staging, receipts[:1])
    server.kill()
    with pytest.raises(Transient, match="does not answer"):
        publish(hub, staging, receipts[1:], first)
    server.start()
    publish(hub, staging, receipts[1:], first)
    assert holds(hub, receipts)
