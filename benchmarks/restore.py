"""A restore against `snapshot_download` of the raw tree, from the same local Hub, in turn; and the restore's memory.

The tree is uploaded once by `upload_folder`, and published once as a push does. Then the two ways take turns, each in a
new process with a cache of its own, and each timed there from the call to its return: the flow with a Prefect server on
one side, the client's own download on the other. A ratio is the download's seconds over ours: 1 is as fast. Each line
is the median of the rounds. The download flushes and compares nothing; ours compares each file's sha256 and flushes it.

    python -m benchmarks.restore [FOLDER, default .bench]
"""

import filecmp
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from huggingface_hub import HfApi
from huggingface_hub.utils import disable_progress_bars

from benchmarks.made import image
from deployments.local_stack import Stack
from tasks.commit import commit
from tasks.commit.other_files import Besides
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.remote import read_remote
from tasks.stage import stage
from tasks.transfer import transfer
from tasks.write import WRITER_SETTINGS

SESSIONS = int(os.environ.get("BENCH_RESTORE_SESSIONS", 20))
ROUNDS = int(os.environ.get("BENCH_RESTORE_ROUNDS", 5))
SIZES = {"anat/{}_T1w": 4 << 20, "anat/{}_T2w": 4 << 20, "func/{}_task-rest_bold": 72 << 20}  # bytes

DOWNLOAD = """
import sys, time
from huggingface_hub import snapshot_download
begin = time.perf_counter()
snapshot_download("bench/raw", repo_type="dataset", local_dir=sys.argv[1])
print(time.perf_counter() - begin)
"""
RESTORE = """
import re, sys, time
from pathlib import Path
from flows.restore_bids import restore_bids
begin = time.perf_counter()
state = restore_bids("bench/published", sys.argv[1], return_state=True)
assert state.name == "Restored", state
seconds, status = time.perf_counter() - begin, Path("/proc/self/status").read_text()
print(seconds, int(re.search(r"VmHWM:\\s+(\\d+)", status)[1]) / 1e3)
"""


def make_tree(folder: Path) -> Path:
    """A BIDS dataset of large images, made if it is not there yet."""
    for number in range(SESSIONS):
        sub = f"sub-{number:03}"
        for path, size in SIZES.items():
            image(folder, f"{sub}/{path.format(sub)}.nii.gz", size)
    (folder / "dataset_description.json").write_text(json.dumps({"Name": "made", "BIDSVersion": "1.10.0"}))
    return folder


def publish(stack: Stack, source: Path, staging: Staging) -> None:
    """Upload the tree as it is, and publish it as a push does."""
    api = HfApi(stack.endpoint, token=stack.token)
    api.create_repo("bench/raw", repo_type="dataset", private=True)
    api.upload_folder(repo_id="bench/raw", folder_path=source, repo_type="dataset")
    hub = Hub(Target(stack.endpoint, "bench/published"), stack.token)
    hub.prepare(private=True)
    receipts = [stage(spec, source, staging) for spec in plan(load(source), WRITER_SETTINGS)]
    sent = [one.operation for one in transfer(hub, staging, receipts)]
    commit(hub, read_remote(hub), [one.line() for one in receipts], sent, Besides(lambda record, existing: "", {}))


def timed(code: str, stack: Stack, into: Path) -> list[float]:
    """What a new process prints, with a cache of its own.

    Its memory is not what getrusage says, which begins with the peak of this process.
    """
    home = into.with_suffix(".home")
    environment = {**stack.environment, "HF_HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code, str(into)], env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    shutil.rmtree(home, ignore_errors=True)
    return [float(word) for word in done.stdout.split()]


def check(source: Path, into: Path) -> None:
    """Every image is there with its bytes; the folder goes then."""
    for file in source.rglob("*.nii.gz"):
        assert filecmp.cmp(file, into / file.relative_to(source), shallow=False), file
    shutil.rmtree(into)


def main(folder: Path) -> None:
    disable_progress_bars()
    source = make_tree(folder / "restore-tree")
    size = sum(path.stat().st_size for path in source.rglob("*.nii.gz"))
    place = folder.resolve() / f"restore-{time.time():.0f}"
    place.mkdir(parents=True)
    stack = Stack(place, settings={"PREFECT_LOGGING_LEVEL": "WARNING"})
    rounds = []
    try:
        stack.start_hub()
        stack.token = stack.make_token("bench")
        stack.start_prefect()
        publish(stack, source, Staging(place / "staging"))
        for _ in range(ROUNDS):
            (download,) = timed(DOWNLOAD, stack, place / "into")
            check(source, place / "into")
            ours, memory = timed(RESTORE, stack, place / "into")
            check(source, place / "into")
            rounds.append((download / ours, size / ours / 1e6, size / download / 1e6, memory))
    finally:
        stack.stop()
        shutil.rmtree(place)
    ratio, ours, theirs, memory = (median(values) for values in zip(*rounds, strict=True))
    print(f"restore_vs_snapshot_download {ratio:.2f} ratio")
    print(f"restore_speed {ours:.0f} MB/s")
    print(f"snapshot_download_speed {theirs:.0f} MB/s")
    print(f"restore_peak_memory {memory:.0f} MB", flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(".bench"))
