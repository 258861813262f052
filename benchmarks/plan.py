"""Planning against bids2table's own index of the same tree, and planning at 100,000 sessions.

`plan_vs_bids2table` is load and plan (every sidecar, table and digest) of ds004884's tree, 5,164 images with nothing
changed, over bids2table's find and index of it, which reads no sidecar: medians of interleaved runs with a warm page
cache. `preflight_vs_bids2table` is what each run's look at the sidecars and tables of that tree adds, by the same
measure.
The figures at 100,000 sessions are of `plan` alone, over made-up images of three a session, each size in a
process of its own: linear time shows as the same microseconds a session at a tenth of the size.
"""

import logging
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import bids2table

from tasks.load import load
from tasks.plan import plan
from tasks.preflight import check
from tasks.values.models import Dataset, Image
from tasks.values.preflight_rules import Statement
from tests import bids_examples

ROUNDS = 7
SESSIONS = 100_000
KINDS = (("anat", "T1w"), ("func", "bold"), ("dwi", "dwi"))


def seconds(work: Callable[[], object]) -> float:
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def cpu_seconds(work: Callable[[], object]) -> float:
    """For work that waits for nothing: the same on a busy machine."""
    began = time.process_time()
    work()
    return time.process_time() - began


def index(root: Path) -> int:
    """bids2table's index of every dataset of the tree: the number of rows."""
    roots = list(bids2table.find_bids_datasets(root))
    return sum(len(table) for table in bids2table.batch_index_dataset(roots))


def plan_vs_bids2table() -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = bids_examples.ds004884(Path(folder) / "ds004884")
        ours, theirs, looks = [], [], []
        dataset, stated = load(root), Statement("defaced")
        assert len(plan(load(root), {})) == 902 and index(root) == 9342
        for _ in range(ROUNDS):
            ours.append(seconds(lambda: plan(load(root), {})))
            theirs.append(seconds(lambda: index(root)))
            looks.append(seconds(lambda: check(dataset, stated)))
    print(f"plan_ds004884_s {statistics.median(ours):.3f} s")
    print(f"bids2table_ds004884_s {statistics.median(theirs):.3f} s")
    print(f"preflight_ds004884_s {statistics.median(looks):.3f} s")
    print(f"preflight_vs_bids2table {statistics.median(looks) / statistics.median(theirs):.2f} ratio")
    print(f"plan_vs_bids2table {statistics.median(ours) / statistics.median(theirs):.2f} ratio")


def made_up(sessions: int) -> Dataset:
    """Images of that many sessions, ten to a subject, each with a sidecar of its own."""
    images = []
    for number in range(sessions):
        sub, ses = f"{number // 10:06}", f"{number % 10}"
        for datatype, suffix in KINDS:
            path = f"sub-{sub}/ses-{ses}/{datatype}/sub-{sub}_ses-{ses}_{suffix}.nii.gz"
            metadata = f'{{"EchoTime": {number}, "PulseSequenceDetails": "{"x" * 400}"}}'
            images.append(Image(path, number, 0, "raw", sub, ses, datatype, suffix, metadata=metadata))
    return Dataset("/made/up", "made up", {}, tuple(images))


def made_up_figures(sessions: int) -> None:
    """Seconds, the MB that the plan adds to its images, and the peak of the whole process in MB: one line."""
    dataset = made_up(sessions)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB
    took = statistics.median(cpu_seconds(lambda: plan(dataset, {})) for _ in range(3))
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(took, (after - before) / 1024, after / 1024)


def at_scale() -> None:
    for sessions in (SESSIONS // 10, SESSIONS):
        command = [sys.executable, "-m", "benchmarks.plan", str(sessions)]
        line = subprocess.run(command, capture_output=True, text=True, check=True).stdout
        took, added, peak = map(float, line.split())
        print(f"plan_{sessions}_sessions_s {took:.2f} s")
        print(f"plan_{sessions}_us_per_session {took / sessions * 1e6:.1f} us")
    print(f"plan_{sessions}_added_mb {added:.0f} MB")
    print(f"plan_{sessions}_peak_mb {peak:.0f} MB")


def main() -> None:
    logging.disable(logging.WARNING)
    plan_vs_bids2table()
    at_scale()


if __name__ == "__main__":
    if len(sys.argv) > 1:
        made_up_figures(int(sys.argv[1]))
    else:
        main()
