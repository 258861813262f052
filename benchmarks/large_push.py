"""A push of large shards, load to verified, against `HfApi.upload_folder` of the raw tree.

`upload_folder` embeds nothing, checks nothing and verifies nothing: it is what the wire and the client's hashing cost.
The ways take turns, each in a process of its own and against a new local Hub that knows nothing, and each round's ratio
is to the `upload_folder` of that round: other work on the machine falls on both. `push_trailer` looks at the end of
each image alone (`BIDS_PUSH_CHECK=trailer`). Time counts from the first line after the imports to the end.

`push_to_hub` is that of `datasets`: it embeds the images too, in shards of its own, and verifies nothing.

With `--link`, all of it is done in a network of its own, whose loopback carries so many bytes a second and no more (the
kernel's token bucket; needs root, and Debian's iproute2 and util-linux).

    python -m benchmarks.large_push [--sessions 40] [--megabytes 80] [--rounds 3] [--link 100]
"""

import argparse
import os
import shutil
import sys
from pathlib import Path
from statistics import median
from typing import NoReturn

from benchmarks.made import nifti_gz
from benchmarks.small_shards import DATA, UPLOAD, new_stack, run
from tests import bids_examples

PUSH = """
import sys, time
from pathlib import Path
from flows.push_bids import push_bids

start = time.time()
source, repo, root = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
state = push_bids(source, repo, staging_root=root, defacing="no faces", return_state=True)
spent = state.timestamp.timestamp() - start  # then Prefect waits for its thread of heartbeats, up to a second
assert state.name == "Staged", (state.name, state.message)
peak = next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM"))
print([spent, int(peak) / 1024])
"""


PUSH_TO_HUB = """
import sys, time
from pathlib import Path
from datasets import Dataset, Features, Nifti, Value

start = time.monotonic()
root = Path(sys.argv[1])
files = sorted(root.rglob("*.nii.gz"))
rows = {"path": [str(file.relative_to(root)) for file in files], "nifti": [str(file) for file in files]}
made = Dataset.from_dict(rows, features=Features({"path": Value("string"), "nifti": Nifti()}))
made.push_to_hub(sys.argv[2], num_shards=len(files))
print(time.monotonic() - start)
"""


LINKED = "BENCH_OVER_A_LINK"


def over_a_link(rate: int) -> NoReturn:
    """Do the same in a network of its own, over a link of `rate` MB/s."""
    shaped = f"tc qdisc add dev lo root tbf rate {8 * rate}mbit burst 2mb latency 100ms"
    command = ["unshare", "--net", "sh", "-c", f'ip link set lo up && {shaped} && exec "$@"', "sh", sys.executable]
    os.execvpe("unshare", [*command, "-m", "benchmarks.large_push", *sys.argv[1:]], os.environ | {LINKED: "1"})


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.large_push", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--sessions", type=int, default=40)
    parser.add_argument("--megabytes", type=int, default=80, help="of a session, and so of a shard")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--link", type=int, metavar="MB", help="with a link of so many MB a second to both servers")
    options = parser.parse_args()
    if options.link and LINKED not in os.environ:
        over_a_link(options.link)
    data = tree(DATA.with_name(f"large-{options.sessions}-{options.megabytes}"), options.sessions, options.megabytes)
    rounds = [one_round(data) for _ in range(options.rounds)]
    upload, to_hub, push, trailer, peak = (median(values) for values in zip(*rounds, strict=True))
    figures = {
        "large_upload_folder_s": (upload, "s"),
        "large_push_to_hub_s": (to_hub, "s"),
        "large_push_s": (push, "s"),
        "push_vs_upload_folder": (median(ours / theirs for theirs, _, ours, _, _ in rounds), "ratio"),
        "push_vs_push_to_hub": (median(ours / theirs for _, theirs, ours, _, _ in rounds), "ratio"),
        "push_trailer_vs_upload_folder": (median(ours / theirs for theirs, _, _, ours, _ in rounds), "ratio"),
        "large_push_s_trailer": (trailer, "s"),
        "large_push_peak_memory": (peak, "MB"),
    }
    for name, (value, unit) in figures.items():
        link = f"_over_{options.link}_mb_s" if options.link else ""
        print(f"{name}{link} {value:.2f} {unit}", flush=True)
    return 0


def one_round(data: Path) -> tuple[float, float, float, float, float]:
    """The seconds of a round, and a peak of memory.

    Returns:
        The seconds of `upload_folder`, of `push_to_hub`, of a push, and of one with the trailer's check; and the
        push's peak in MB.
    """
    with new_stack(prefect=False) as stack:
        upload = float(run(stack, UPLOAD, data, "lab/raw"))
    with new_stack(prefect=False) as stack:
        to_hub = float(run(stack, PUSH_TO_HUB, data, "lab/to-hub"))
    with new_stack() as stack:
        push, peak = run(stack, PUSH, data, "lab/push", stack.folder / "staging")
    with new_stack() as stack:
        stack.settings = {"BIDS_PUSH_CHECK": "trailer"}
        trailer, _ = run(stack, PUSH, data, "lab/push", stack.folder / "staging")
    return upload, to_hub, push, trailer, peak


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
