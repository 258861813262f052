"""What a round may meet after its clean run: hazards that are no kill, on a target that is published and at its gate.

Each is a function that brings the hazard about, and returns what was lost by it, in sentences. The target must be as it
was before, or as an undisturbed push leaves it. Some wind the target back first, as hazards of the first push.
"""

import math
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import psutil
from huggingface_hub import CommitOperationAdd

from deployments.local_stack import wait_until
from soak.judge import reference_of
from soak.rig import REPO_ID, Rig
from tasks.hub.client import Hub
from tasks.runs.lease import variable_name
from tasks.values.errors import PushError
from year.rig import PUSH, RUN_SECONDS, Warm, deployed
from year.warm import LEASE

DONE = frozenset({"PAUSED", "COMPLETED", "FAILED", "CANCELLED", "CRASHED"})
LEASE_SECONDS = 8.0  # of the two machines of `stopped_beyond_its_lease`: long for a busy machine, short for a soak
TURNED_AWAY = 3  # how often the other machine may find the target held after all
FOREIGN = "foreign/"
FOREIGN_COMMITS = 6
SHARDS = r"/resolve/[^/]+/data/"

Reference = dict[str, bytes]


def half_mounted(here: Rig, draw: random.Random, reference: Reference) -> list[str]:
    """Run a night in which three of four subjects' folders are empty."""
    before, staged = reference_of(here), here.staged()
    with unmounted(here.source, draw):
        name = ended(here, here.push())
    lost = changed(before, reference_of(here)) + gone(staged, here.staged())
    return lost + expected({"TooMuchChanged"}, name)


def swapped_at_the_gate(here: Rig, draw: random.Random, reference: Reference) -> list[str]:
    """Let two staged files change places while the run waits, and let a person let all of them go."""
    run = here.push()
    if ended(here, run) != "Suspended":
        run = here.at_gate()
    staged = here.staged()
    one, other = draw.sample(sorted(staged), 2)
    meanwhile = one.with_name("between")
    for file, to in ((one, meanwhile), (other, one), (meanwhile, other)):
        file.rename(to)
    wait_until("the run's first process has ended", lambda: here.process_of(run) is None, RUN_SECONDS)
    here.runs.decide(run, decision="delete", confirm_repo=REPO_ID, note="soak")
    here.runs.wait(run, DONE - {"PAUSED"})
    left = here.staged()
    lost = [
        f"{file.name} was not what the gate had shown, and was removed" for file in (one, other) if file not in left
    ]
    return lost + changed(reference, without_foreign(reference_of(here)))


def other_bytes(here: Rig, draw: random.Random, reference: Reference) -> list[str]:
    """Let the Hub send other bytes for every shard, and then the right ones again."""
    staged = here.staged()
    here.break_on({"fault": "other_bytes", "method": "GET", "path": SHARDS, "times": -1})
    told = expected({"VerificationFailed"}, ended(here, here.push(verification=draw.choice(["sample", "full"]))))
    here.break_on()
    again = expected({"NothingToPublish", "Suspended", "NothingStaged"}, ended(here, here.push(verification="full")))
    return told + again + changed(reference, without_foreign(reference_of(here))) + gone(staged, here.staged())


def stale_head(here: Rig, draw: random.Random, reference: Reference) -> list[str]:
    """Let the Hub answer with an old head in a first push, one to three times."""
    here.retire()
    here.wind_back()
    times = draw.randrange(1, 4)
    here.break_on({"fault": "stale", "path": rf"/api/datasets/{REPO_ID}(/revision/[^/]+)?$", "times": times})
    name = ended(here, here.push())
    here.break_on()
    return expected({"Suspended"}, name) + changed(reference, reference_of(here))


def foreign_writer(here: Rig, draw: random.Random, reference: Reference) -> list[str]:
    """Let somebody else commit again and again while a first push works."""
    here.retire()
    here.wind_back()
    enough = threading.Event()
    written: list[str] = []
    writer = threading.Thread(target=commit_now_and_then, args=(here.hub, enough, written, draw.uniform(0.1, 0.8)))
    run = here.push()
    here.wait_for_work(run)
    writer.start()
    name = ended(here, run)
    enough.set()
    writer.join()
    now = reference_of(here)
    lost = [f"{path}, somebody else's, is gone" for path in written if path not in now]
    return lost + expected({"Suspended"}, name) + changed(reference, without_foreign(now))


def stopped_beyond_its_lease(here: Rig, draw: random.Random, reference: Reference) -> list[str]:
    """Let a machine stand still in its push for longer than its lease.

    Another machine publishes a newer dataset meanwhile.
    """
    here.retire()
    here.wind_back()
    newer = edited(here, draw)
    with machines(here) as (sleeper, other):
        deployment = deployed(here.runs)[PUSH]
        run = make(here, deployment, here.source, here.stack.staging_root)
        pid = sleeper.begin(run, {})
        # one that is stopped before it holds the target is a later run than the other, and not a lost one
        wait_until("the run holds the target", lambda: holder_of(here) == run, RUN_SECONDS)
        if sleeper.ended(draw.uniform(0.0, 6.0)):
            return []  # it was too fast to be stopped
        if not stands_still(pid):
            return []  # and so was this one: it came to its end at that moment
        try:
            wait_until("the lease is over", lambda: silent(here) > LEASE_SECONDS + 1, RUN_SECONDS)
            for _ in range(TURNED_AWAY):
                second = make(here, deployment, newer, here.stack.folder / "other-machine")
                other.run(second, {})
                name = state_of(here, second)
                if name != "TargetBusy":  # a sign of life from before the stop came in late: rightly turned away
                    break
            published = reference_of(here)
        finally:
            os.kill(pid, signal.SIGCONT)
        if not sleeper.ended(RUN_SECONDS):
            os.kill(pid, signal.SIGKILL)
            return ["the machine that stood still does not come to an end"]
        lost = changed(published, reference_of(here))
        if name == "Suspended" and state_of(here, run) == name and state_of(here, second) == name:
            lost.append("two gates are open")
    shutil.rmtree(newer)
    return [f"{one} (stood still: {state_of(here, run)}, the other: {name})" for one in lost] + expected(
        {"Suspended"}, name
    )


def silent(here: Rig) -> float:
    """Return for how many seconds the lease of the target has not been renewed, by the server's clock.

    A server that is busy may take in what a process has sent before it was stopped. A lease that was given back by then
    is silent for ever.
    """
    lease = here.runs.client.read_variable_by_name(variable_name(here.hub.target))
    if lease is None or lease.updated is None:
        return math.inf
    return (datetime.now(UTC) - lease.updated).total_seconds()  # the server's clock is this machine's


def stands_still(pid: int) -> bool:
    """Stop a process with SIGSTOP, and return whether it stands still. One that has just ended does not."""
    with suppress(ProcessLookupError, psutil.NoSuchProcess):
        os.kill(pid, signal.SIGSTOP)
        process = psutil.Process(pid)
        ends = psutil.STATUS_STOPPED, psutil.STATUS_ZOMBIE
        wait_until("the process stands still", lambda: process.status() in ends, RUN_SECONDS)
        return bool(process.status() == psutil.STATUS_STOPPED)
    return False


def holder_of(here: Rig) -> UUID | None:
    """Return the id of the run that has the lease of the target, or None."""
    lease = here.runs.client.read_variable_by_name(variable_name(here.hub.target))
    return UUID(lease.value["run"]) if lease is not None and isinstance(lease.value, dict) else None


Hazard = Callable[[Rig, random.Random, Reference], list[str]]
HAZARDS: dict[str, Hazard] = {
    "half-mounted source": half_mounted,
    "swapped at the gate": swapped_at_the_gate,
    "other bytes": other_bytes,
    "stale head": stale_head,
    "foreign writer": foreign_writer,
    "SIGSTOP beyond the lease": stopped_beyond_its_lease,
}


def ended(here: Rig, run: UUID) -> str:
    """Wait until a run ends, or waits at its gate, and return the name of its state."""
    state = here.runs.wait(run, DONE).state
    return "" if state is None else (state.name or "")


def state_of(here: Rig, run: UUID) -> str:
    """Return the name of a run's present state."""
    state = here.runs.read(run).state
    return "" if state is None else (state.name or "")


def expected(names: set[str], name: str) -> list[str]:
    """Return what is wrong with the name of a state, if it is not one of these."""
    return [] if name in names else [f"ended {name}, not {' or '.join(sorted(names))}"]


def changed(before: Reference, after: Reference) -> list[str]:
    """Return a sentence for each file of the target that has other bytes now."""
    return [
        f"{path} was changed" for path in sorted(before.keys() | after.keys()) if before.get(path) != after.get(path)
    ]


def gone(before: dict[Path, str], after: dict[Path, str]) -> list[str]:
    """Return a sentence for each staged file that is gone."""
    return [f"{file.name} was removed from the staging" for file in sorted(before.keys() - after.keys())]


def without_foreign(files: Reference) -> Reference:
    """Return the files of a target without those of somebody else."""
    return {path: data for path, data in files.items() if not path.startswith(FOREIGN) and path != "notes.md"}


@contextmanager
def unmounted(source: Path, draw: random.Random) -> Iterator[None]:
    """Leave the folders of three of four subjects empty for as long as the block runs."""
    folders = sorted(source.glob("sub-*"))
    aside = source.parent / "unmounted"
    aside.mkdir(exist_ok=True)
    taken = draw.sample(folders, len(folders) * 3 // 4)
    for folder in taken:
        folder.rename(aside / folder.name)
        folder.mkdir()
    try:
        yield
    finally:
        for folder in taken:
            folder.rmdir()
            (aside / folder.name).rename(folder)


def commit_now_and_then(hub: Hub, enough: threading.Event, written: list[str], every: float) -> None:
    """Commit as somebody else until it is enough, or until there are `FOREIGN_COMMITS` of their files.

    Args:
        hub: the target.
        enough: ends it.
        written: the paths of the files that were committed are added to it.
        every: seconds from one commit to the next.
    """
    while not enough.wait(every) and len(written) < FOREIGN_COMMITS:
        path = f"{FOREIGN}{len(written)}.txt"
        try:
            hub.commit([CommitOperationAdd(path, os.urandom(16))], "By somebody else", hub.head())
        except PushError:
            continue  # the push was faster, or the repo is not there yet
        written.append(path)


def edited(here: Rig, draw: random.Random) -> Path:
    """Make a copy of the dataset in which one image has other bytes and the same size, and return its folder."""
    newer = here.source.parent / "newer"
    shutil.rmtree(newer, ignore_errors=True)
    shutil.copytree(here.source, newer, copy_function=shutil.copy2)
    image = draw.choice(sorted(newer.rglob("*_T1w.nii.gz")))
    data = bytearray(image.read_bytes())
    data[9] ^= 1  # the header's "operating system" byte
    image.write_bytes(data)
    return newer


def make(here: Rig, deployment: UUID, source: Path, staging_root: Path) -> UUID:
    """Make a flow run of a deployment that has no work pool, and return its id."""
    parameters = {
        "source": str(source),
        "repo_id": REPO_ID,
        "defacing": "no faces",
        "staging_root": str(staging_root),
    }
    return here.runs.client.create_flow_run_from_deployment(deployment, parameters=parameters).id


@contextmanager
def machines(here: Rig) -> Iterator[tuple[Warm, Warm]]:
    """Start two machines on the same Prefect server and Hub, each with caches of its own, and with a short lease."""
    shutil.rmtree(here.stack.folder / "other-machine", ignore_errors=True)
    log = here.stack.folder / "machines.log"
    settings = {LEASE: str(LEASE_SECONDS)}
    one = Warm(here.stack, log, **settings)
    other = Warm(here.stack, log, HF_HOME=str(here.stack.folder / "other-machine" / "hf"), **settings)
    try:
        yield one, other
    finally:
        one.stop()
        other.stop()
