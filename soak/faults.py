"""What goes wrong in a round: one process killed at a random instant, and often something else besides."""

import random
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from uuid import UUID

import httpx2
import psutil
from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from deployments.local_stack import wait_until
from soak.rig import Rig
from tasks.values.errors import PushError

GRACE = 90.0  # seconds that a run may go on by itself after something else was killed under it

#: How often each process is the one that is killed.
VICTIMS = {"flow": 35, "flow as it writes a shard": 15, "hub": 20, "worker": 15, "prefect server": 15}

COMMIT = "/commit/"
ROUTES = ("/preupload/", "xet-write-token", "/v1/xorbs/", "/v2/shards", COMMIT, "/tree/", "/resolve/")


def kill(rig: Rig, run: UUID, victim: str, after: float) -> None:
    """Kill one process with SIGKILL, and start at once again what the run needs.

    Args:
        rig: the servers and the target.
        run: the run that is at work.
        victim: the process, by its name in `VICTIMS`.
        after: the seconds of the run's work before the kill.
    """
    process = rig.wait_for_work(run)
    if victim == "flow as it writes a shard":
        wait_for_a_write(rig, process, after)
    else:
        with suppress(psutil.TimeoutExpired):
            process.wait(after)  # it may be over sooner: then the kill falls into its end
    if victim.startswith("flow"):
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGKILL)
    elif victim == "worker":
        rig.stack.processes["worker"].kill()
        rig.stack.start_worker()
    elif victim == "hub":
        rig.stack.processes["hub"].kill()
        rig.stack.start_hub()
    else:
        rig.stack.processes["prefect"].kill()
        rig.stack.start_prefect()
    rig.let_end(run, 0.0 if victim.startswith("flow") else GRACE)


def wait_for_a_write(rig: Rig, process: psutil.Process, after: float) -> None:
    """Wait until a shard is half written.

    Args:
        rig: the servers and the target.
        process: the process that works for the run.
        after: seconds. A tenth of them is waited first, and all of them are waited for a half-written shard.
    """
    time.sleep(after / 10)  # staging is over long before the sending is
    deadline = time.monotonic() + after
    while time.monotonic() < deadline and process.is_running():
        with suppress(FileNotFoundError):  # it was finished between the listing and the look at its size
            if any(part.stat().st_size for part in rig.staging.shards.rglob("*.parquet.part")):
                return
        time.sleep(0.0005)


def hub_fault(rig: Rig, draw: random.Random) -> str:
    """Let some requests to the Hub fail while the run works, and return a few words that say how."""
    kind = draw.choice(["status 500", "status 503", "status 429", "lose_response", "cut_request"])
    path = COMMIT if kind == "lose_response" and draw.random() < 0.7 else draw.choice(ROUTES)
    rule: dict[str, object] = {"fault": kind, "path": path, "after": draw.randrange(4), "times": draw.randrange(1, 3)}
    if kind.startswith("status"):
        rule |= {"fault": "status", "status": int(kind[-3:])} | ({"retry_after": 1} if kind == "status 429" else {})
    elif kind == "cut_request":
        rule |= {"bytes": draw.randrange(200_000)}
    rig.break_on(rule)
    return f"hub: {kind}"


def damage(rig: Rig, draw: random.Random) -> str | None:
    """Damage a staged shard by hand, after the kill.

    Returns:
        A few words that say how; None if fewer than two shards are staged.
    """
    shards = sorted(rig.staging.shards.rglob("*.parquet"))
    if len(shards) < 2:
        return None
    one, other = draw.sample(shards, 2)
    receipt = one.with_suffix(".receipt.json")
    data = one.read_bytes()
    middle = len(data) // 2
    kinds: dict[str, Callable[[], object]] = {
        "truncated": lambda: one.write_bytes(data[: draw.randrange(len(data))]),
        "a byte flipped": lambda: one.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :]),
        "emptied": lambda: one.write_bytes(b""),
        "deleted": one.unlink,
        "swapped with another": lambda: one.write_bytes(other.read_bytes()),
        "receipt missing": lambda: receipt.unlink(missing_ok=True),
        "receipt damaged": lambda: receipt.write_bytes(receipt.read_bytes()[:100]) if receipt.exists() else None,
    }
    kind = draw.choice(sorted(kinds))
    kinds[kind]()
    return f"staged shard {kind}"


def somebody_else(rig: Rig, draw: random.Random) -> str | None:
    """Commit to the target as somebody else, after the kill.

    Returns:
        A few words that say what; None if there is no repo yet.
    """
    hub = rig.hub
    try:
        head = hub.head()
        shards = sorted(path for path in hub.listing(head).files if path.startswith("data/"))
        kind = draw.choice(["a file added", "a shard deleted", "a shard replaced"] if shards else ["a file added"])
        path = draw.choice(shards) if shards else ""
        operations: dict[str, CommitOperationAdd | CommitOperationDelete] = {
            "a file added": CommitOperationAdd("notes.md", b"by hand"),
            "a shard deleted": CommitOperationDelete(path),
            "a shard replaced": CommitOperationAdd(path or "-", b"not a shard" * 1000),
        }
        hub.commit([operations[kind]], "By hand", head)
    except PushError:
        return None
    return f"somebody else: {kind}"


def approved_and_killed(rig: Rig, run: UUID, draw: random.Random) -> None:
    """Let the cleanup begin at the gate, and kill it at a random instant."""
    wait_until("the run's first process has ended", lambda: rig.process_of(run) is None, GRACE)
    rig.runs.decide(run, decision="delete", confirm_repo=rig.hub.target.repo_id, note="soak")
    process = rig.wait_for_process(run)
    with suppress(psutil.TimeoutExpired):
        process.wait(draw.uniform(0, 8))
    rig.let_end(run, 0.0)


def mended(rig: Rig) -> None:
    """Let the Hub answer every request as it should from now on.

    Raises:
        AssertionError: the Hub does not answer at all.
    """
    for _ in range(50):
        try:
            rig.break_on()
        except httpx2.TransportError:
            time.sleep(0.1)
        else:
            return
    raise AssertionError("the Hub does not answer")
