"""Many small shards, pushed for real: what grows with their number, and how fast.

For each number of shards: a dataset of as many subjects with one small image each, a new local Hub that counts what it
is asked, and three runs in processes of their own. The first publishes all, the second finds nothing to do, and before
the third one image has changed. Figures are of the run alone: its seconds from the first line after the imports to the
end, its peak of memory, and what the Hub was asked and sent. For every two numbers, the exponent of the growth between
them (1.0: as the number of shards). Processor seconds are the run's own, without the servers'.

With `--kill` each number is pushed once more, to a new Hub: the process gets SIGKILL when three fifths of the shards
are on the Hub, and a second one finishes. How many shards' bytes were sent in both tells what the kill cost.

    python -m benchmarks.many_shards [--shards 1000 10000] [--kill]
"""

import argparse
import json
import math
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi

from deployments.local_stack import REPO, Stack, wait_until
from tests import bids_examples
from tests.counted_hub import CONTENT, Asked, CountedHub
from tests.images import nifti1

PLACE = REPO / ".bench"
REPO_ID = "lab/many"

PUSH = """
import json, resource, sys, time
from flows.push_bids import push_bids
from tasks.report.progress import Progress

spent = {}
leave = Progress.leave

def kept(progress, *arguments):
    spent.update(progress.seconds)
    return leave(progress, *arguments)

Progress.leave = kept
start = time.time()
state = push_bids(sys.argv[1], sys.argv[2], staging_root=sys.argv[3], defacing="no faces", return_state=True)
seconds = state.timestamp.timestamp() - start  # then Prefect waits for its thread of heartbeats, up to a second
assert state.name == sys.argv[4], (state.name, state.message)
used = resource.getrusage(resource.RUSAGE_SELF)
processor, peak = used.ru_utime + used.ru_stime, used.ru_maxrss * 1024
print(json.dumps({"seconds": seconds, "processor": processor, "peak": peak, "stages": spent}))
"""


@dataclass(frozen=True)
class Run:
    """What one run took."""

    seconds: float
    processor: float
    """Seconds of it, imports included."""
    peak: float
    """Bytes of memory."""
    stages: dict[str, float]
    """Seconds of what this process did for each stage; stages overlap."""
    requests: int
    commits: int
    received: int
    """Bytes that the Hub was sent."""

    def figures(self) -> Iterator[tuple[str, float, str]]:
        yield "s", self.seconds, "s"
        yield "processor_s", self.processor, "s"
        yield "peak_mb", self.peak / 1e6, "MB"
        yield "requests", self.requests, "requests"
        yield "commits", self.commits, "commits"
        yield "handed_over_mb", self.received / 1e6, "MB"
        for stage, seconds in self.stages.items():
            yield f"{stage.split(',')[0].replace(' ', '_')}_s", seconds, "s"


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.many_shards", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--shards", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--kill", action="store_true", help="and push each number once more, killed and resumed")
    options = parser.parse_args()
    before: tuple[int, dict[str, float]] | None = None
    for count in options.shards:
        measured: dict[str, float] = {}
        for name, run in runs(count):
            for figure, value, unit in run.figures():
                measured[f"{name}_{figure}"] = value
                print(f"{name}_{count}_shards_{figure} {value:.2f} {unit}", flush=True)
        if before:
            for name, value in measured.items():
                if value > 0 and before[1].get(name, 0) > 0:
                    exponent = math.log(value / before[1][name]) / math.log(count / before[0])
                    print(f"{name}_exponent_{before[0]}_to_{count} {exponent:.2f} exponent", flush=True)
        before = count, measured
        if options.kill:
            for figure, value, unit in killed(count):
                print(f"killed_{count}_shards_{figure} {value:.2f} {unit}", flush=True)
    return 0


def runs(count: int) -> Iterator[tuple[str, Run]]:
    """The three runs on a dataset of so many shards, by name."""
    PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        source = dataset(Path(folder) / "source", count)
        with stack_and_hub(Path(folder)) as (stack, hub):
            environment = stack.environment | {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token("lab")}
            yield "publish", run(environment, hub, source, Path(folder) / "staging", "Staged")
            yield "idle_night", run(environment, hub, source, Path(folder) / "staging", "NothingToPublish")
            next(source.glob("sub-*/anat/*.nii")).write_bytes(nifti1((2, 2, 3)))
            yield "one_changed", run(environment, hub, source, Path(folder) / "staging", "Staged")


def killed(count: int) -> Iterator[tuple[str, float, str]]:
    """What a SIGKILL costs when three fifths of the shards are on the Hub: figures of the run that finishes."""
    with tempfile.TemporaryDirectory(dir=PLACE) as folder:
        source = dataset(Path(folder) / "source", count)
        staging = Path(folder) / "staging"
        with stack_and_hub(Path(folder)) as (stack, hub):
            environment = stack.environment | {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": hub.token("lab")}
            api = HfApi(hub.endpoint, token=environment["HF_TOKEN"])
            quiet = subprocess.DEVNULL
            first = subprocess.Popen(
                command(source, staging, "Staged"), cwd=REPO, env=environment, stdout=quiet, stderr=quiet
            )
            wait_until("the repo is there", lambda: api.repo_exists(REPO_ID, repo_type="dataset"), 600)
            wait_until("three fifths are on the Hub", lambda: published(api) >= count * 3 // 5, 7200)
            first.send_signal(signal.SIGKILL)
            first.wait()
            before = len(hub.asked())
            yield "on_hub", published(api), "shards"
            yield "sent", contents(hub.asked()), "contents"
            resumed = run(environment, hub, source, staging, "Staged")
            yield from (("resume_" + name, value, unit) for name, value, unit in resumed.figures())
            yield "resume_sent", contents(hub.asked(before)), "contents"
            yield "on_hub_after", published(api), "shards"


def published(api: HfApi) -> int:
    """How many shards the repo's commits say that they publish."""
    commits = api.list_repo_commits(REPO_ID, repo_type="dataset")
    said = (re.match(r"Publish ([0-9,]+) shard", commit.title) for commit in commits)
    return sum(int(found.group(1).replace(",", "")) for found in said if found)


def contents(asked: list[Asked]) -> int:
    """How many uploads of content the Hub took: xorbs, or files by LFS."""
    return sum(one.status < 300 and one.method in {"POST", "PUT"} and bool(CONTENT.search(one.path)) for one in asked)


def dataset(folder: Path, count: int) -> Path:
    """A dataset of so many subjects, each with an image of its own."""
    files: dict[str, bids_examples.Content] = {"dataset_description.json": bids_examples.description()}
    image = nifti1((2, 2, 2))
    for number in range(count):
        sub = f"sub-{number:06}"
        files[f"{sub}/anat/{sub}_T1w.nii"] = image[:-4] + number.to_bytes(4, "little")
    return bids_examples.write(folder, files)


@contextmanager
def stack_and_hub(folder: Path) -> Iterator[tuple[Stack, CountedHub]]:
    """A Prefect server, and a Hub that has nothing yet."""
    (folder / "stack").mkdir()
    stack = Stack(folder / "stack")
    hub = CountedHub(folder / "hub")
    try:
        stack.start_prefect()
        with hub:
            yield stack, hub
    finally:
        stack.stop()


def run(environment: dict[str, str], hub: CountedHub, source: Path, staging: Path, state: str) -> Run:
    """A run in a process of its own, which has to end in this state."""
    since = len(hub.asked())
    asked_for = command(source, staging, state)
    done = subprocess.run(asked_for, cwd=REPO, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    said = json.loads(done.stdout.splitlines()[-1])
    asked = hub.asked(since)
    commits = sum("/commit/" in one.path and one.method == "POST" for one in asked)
    received = sum(one.received for one in asked)
    return Run(said["seconds"], said["processor"], said["peak"], said["stages"], len(asked), commits, received)


def command(source: Path, staging: Path, state: str) -> list[str]:
    return [sys.executable, "-c", PUSH, *map(str, (source, REPO_ID, staging, state))]


if __name__ == "__main__":
    raise SystemExit(main())
