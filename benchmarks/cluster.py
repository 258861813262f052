"""A push by two machines of a cluster against one, where each reads so many bytes a second from the source.

The machines are processes of two threads, with homes of their own, under a real Dask scheduler. Both take turns, each
against a new local Hub and a new staging folder. A shard is a part. Time counts from the first line after the imports
to the end, verification included; what one machine needs beyond reading, for each part, is the overhead.

    python -m benchmarks.cluster [--parts 8] [--megabytes 100] [--rate 10] [--rounds 3]
"""

import argparse
import tempfile
from pathlib import Path
from statistics import median

from benchmarks.large_push import PUSH, tree
from benchmarks.small_shards import DATA, new_stack, run
from tests.machines import environment_of, machines

NAMES = ("n1", "n2")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.cluster", description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--parts", type=int, default=8)
    parser.add_argument("--megabytes", type=int, default=100, help="of a part")
    parser.add_argument("--rate", type=float, default=10.0, help="MB a second that one machine reads")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    data = tree(DATA.with_name(f"large-{options.parts}-{options.megabytes}"), options.parts, options.megabytes)
    ones, twos = [], []
    for _ in range(options.rounds):
        ones.append(push(data, options.rate, NAMES[:1]))
        twos.append(push(data, options.rate, NAMES))
    size = sum(path.stat().st_size for path in data.rglob("*.nii.gz"))
    speed_up = median(one / two for one, two in zip(ones, twos, strict=True))
    print(f"cluster_one_worker_s {median(ones):.2f} s")
    print(f"cluster_two_workers_s {median(twos):.2f} s")
    print(f"cluster_two_workers_vs_one {speed_up:.2f} ratio")
    print(f"cluster_efficiency {speed_up / 2:.2f} ratio")
    print(f"cluster_part_overhead_s {(median(ones) - size / options.rate / 1e6) / options.parts:.2f} s", flush=True)
    return 0


def push(data: Path, rate: float, names: tuple[str, ...]) -> float:
    """The seconds of a push by these machines."""
    with new_stack() as stack, tempfile.TemporaryDirectory(dir=DATA.parent) as folder:
        stack.settings = {"BIDS_PUSH_PART_BYTES": "1"}
        environment = environment_of(stack) | {"BENCH_SOURCE_MB_PER_S": str(rate)}
        threads = "--nthreads", "2"  # one reads while the other sends
        with machines(Path(folder), environment, names, *threads, "--preload", "benchmarks.slow_source") as running:
            stack.settings = {**stack.settings, "BIDS_PUSH_CLUSTER": running.address}
            spent, _ = run(stack, PUSH, data, "lab/push", stack.folder / "staging")
    return float(spent)


if __name__ == "__main__":
    raise SystemExit(main())
