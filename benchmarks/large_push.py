"""A push of large shards, load to verified, against `HfApi.upload_folder` of the raw tree.

`upload_folder` embeds nothing, checks nothing and verifies nothing: it is what the wire and the client's hashing cost.
The ways take turns, each in a process of its own and against a new local Hub that knows nothing, and each round's ratio
is to the `upload_folder` of that round: other work on the machine falls on both. `push_trailer` looks at the end of
each image alone (`BIDS_PUSH_CHECK=trailer`). Time counts from the first line after the imports to the end.

    python -m benchmarks.large_push [--sessions 40] [--megabytes 80] [--rounds 3]
"""

import argparse
import shutil
from pathlib import Path
from statistics import median

from benchmarks.made import nifti_gz
from benchmarks.small_shards import DATA, UPLOAD, new_stack, run
from tests import bids_examples

PUSH = """
import sys, time
from pathlib import Path
from flows.push_bids import push_bids

start = time.monotonic()
source, repo, root = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
state = push_bids(source, repo, staging_root=root, defacing="no faces", return_state=True)
spent = time.monotonic() - start
assert state.name == "Staged", (state.name, state.message)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print([spent, int(peak) / 1024])
"""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_push", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--megabytes", type=int, default=80, help="of a session, and so of a shard")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    data = tree(DATA.with_name(f"large-{options.sessions}-{options.megabytes}"), options.sessions, options.megabytes)
    rounds = [one_round(data) for _ in range(options.rounds)]
    upload, push, trailer, peak = (median(values) for values in zip(*rounds, strict=True))
    print(f"large_upload_folder_s {upload:.2f} s")
    print(f"large_push_s {push:.2f} s")
    print(f"push_vs_upload_folder {median(ours / theirs for theirs, ours, _, _ in rounds):.2f} ratio")
    print(f"push_trailer_vs_upload_folder {median(ours / theirs for theirs, _, ours, _ in rounds):.2f} ratio")
    print(f"large_push_s_trailer {trailer:.2f} s")
    print(f"large_push_peak_memory {peak:.0f} MB", flush=True)
    return 0


def one_round(data: Path) -> tuple[float, float, float, float]:
    """The seconds of `upload_folder`, of a push, of a push with the trailer's check, and the push's peak in MB."""
    with new_stack(prefect=False) as stack:
        upload = float(run(stack, UPLOAD, data, "lab/raw"))
    with new_stack() as stack:
        push, peak = run(stack, PUSH, data, "lab/push", stack.folder / "staging")
    with new_stack() as stack:
        stack.settings = {"BIDS_PUSH_CHECK": "trailer"}
        trailer, _ = run(stack, PUSH, data, "lab/push", stack.folder / "staging")
    return upload, push, trailer, peak


def tree(root: Path, sessions: int, megabytes: int) -> Path:
    """A dataset of one run of fMRI a session, made if it is not there yet."""
    if root.exists():
        return root
    unfinished = root.with_name("unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    bids_examples.write(unfinished, {"dataset_description.json": bids_examples.description()})
    for number in range(sessions):
        sub = f"sub-{number:03}"
        nifti_gz(unfinished / sub / "func" / f"{sub}_task-rest_bold.nii.gz", megabytes << 20, seed=number)
    return unfinished.rename(root)


if __name__ == "__main__":
    raise SystemExit(main())
