"""902 shards of 200 kB, load to verified, against a plain script that writes with pyarrow and calls `upload_folder`.

And against `upload_folder` of the raw tree, which writes nothing at all (`small_push_vs_upload_folder`).

And then a night with nothing changed, against bids2table's index of the tree, a listing of the repo, and a plain
download (with sha256) of as many shards as the night reads back.

Both run in turns on the same tree, each in a process of its own and against a new local Hub: one that has seen the
images before takes them in again for next to nothing, which made the plain script twice as fast in the second round as
in the first. The servers have done something small before. The time counts from the first line after the imports to the
end; of a run to the state in which it ends, as Prefect shows it. After that Prefect waits for its thread of heartbeats,
which sleeps a second at a time: `prefect_end_wait_s`, between 0 and 1 s by chance, in which nothing is done.

The plain script writes one file a session with two columns, and neither hashes, flushes to the disk, remembers nor
verifies.

    python -m benchmarks.small_shards [--sessions 902] [--rounds 3]
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deployments.demo_data import make_dataset
from deployments.local_stack import REPO, Stack
from tests import bids_examples
from tests.images import nifti1

SHARD_BYTES = 200_000
DATA = REPO / ".bench" / "small-shards"

PLAIN = """
import sys, time
from collections import defaultdict
from pathlib import Path
import pyarrow as pa, pyarrow.parquet as pq
from huggingface_hub import HfApi

root, repo, out = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
start = time.monotonic()
sessions = defaultdict(list)
for path in sorted(root.rglob("*.nii*")):
    name = path.name.split("_")
    sessions["_".join(part for part in name if part.startswith(("sub-", "ses-")))].append(path)
for name, paths in sessions.items():
    table = pa.table({"path": [str(p.relative_to(root)) for p in paths], "nifti": [p.read_bytes() for p in paths]})
    (out / "data").mkdir(parents=True, exist_ok=True)
    pq.write_table(table, out / "data" / f"{name}.parquet", compression="none", use_dictionary=False)
api = HfApi()
api.create_repo(repo, repo_type="dataset")
api.upload_folder(repo_id=repo, repo_type="dataset", folder_path=out)
print(time.monotonic() - start)
"""

UPLOAD = """
import sys, time
from huggingface_hub import HfApi

start = time.monotonic()
api = HfApi()
api.create_repo(sys.argv[2], repo_type="dataset")
api.upload_folder(repo_id=sys.argv[2], repo_type="dataset", folder_path=sys.argv[1])
print(time.monotonic() - start)
"""

PUSH = """
import sys, time
from pathlib import Path
from flows.push_bids import push_bids

start = time.time()
source, repo, root = Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3])
state = push_bids(source, repo, staging_root=root, defacing="no faces", return_state=True)
spent, ended = time.time() - start, state.timestamp.timestamp() - start
assert state.name == sys.argv[4], (state.name, state.message)
print([ended, spent - ended])
"""

FLOOR = """
import hashlib, sys, time
import bids2table
from huggingface_hub import HfApi, hf_hub_url
from huggingface_hub.utils import build_hf_headers, get_session

start = time.monotonic()
rows = sum(len(table) for table in bids2table.batch_index_dataset(list(bids2table.find_bids_datasets(sys.argv[1]))))
files = [file.path for file in HfApi().list_repo_tree(sys.argv[2], repo_type="dataset", recursive=True)]
listed = time.monotonic() - start
shards = [path for path in files if path.endswith(".parquet") and path.startswith("data/")]
for path in shards[: max(3, -(-len(shards) // 30))]:
    url = hf_hub_url(sys.argv[2], path, repo_type="dataset")
    hashlib.sha256(get_session().get(url, headers=build_hf_headers(), follow_redirects=True).content).hexdigest()
print([listed, time.monotonic() - start])
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.small_shards", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--sessions", type=int, default=902)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    data = DATA.with_name(f"{DATA.name}-{options.sessions}")
    make_dataset(data, sessions=options.sessions, total_bytes=options.sessions * SHARD_BYTES)
    plain, raw, listing, floor = [], [], [], []
    push: list[float] = []
    night: list[float] = []
    waited: list[float] = []
    for _ in range(options.rounds):
        with new_stack(prefect=False) as stack:
            raw.append(seconds(stack, UPLOAD, data, "lab/raw"))
        with new_stack(prefect=False) as stack:
            plain.append(seconds(stack, PLAIN, data, "lab/plain", stack.folder / "plain"))
        with new_stack() as stack:
            arguments = (data, "lab/push", stack.folder / "staging")
            for of, state in ((push, "Staged"), (night, "NothingToPublish")):
                ended, wait = run(stack, PUSH, *arguments, state)
                of.append(ended)
                waited.append(wait)
            index_and_list, with_sample = run(stack, FLOOR, data, "lab/push")
            listing.append(index_and_list)
            floor.append(with_sample)
    print(f"small_shards_plain_s {statistics.median(plain):.2f} s")
    print(f"small_shards_push_s {statistics.median(push):.2f} s")
    ratios = [ours / theirs for ours, theirs in zip(push, plain, strict=True)]
    print(f"small_shards_push_vs_plain {statistics.median(ratios):.2f} ratio")
    print(f"small_upload_folder_s {statistics.median(raw):.2f} s")
    ratios = [ours / theirs for ours, theirs in zip(push, raw, strict=True)]
    print(f"small_push_vs_upload_folder {statistics.median(ratios):.2f} ratio")
    print(f"prefect_end_wait_s {statistics.median(waited):.2f} s")
    print(f"noop_night_s {statistics.median(night):.2f} s")
    print(f"index_and_list_s {statistics.median(listing):.2f} s")
    print(f"index_list_and_sample_s {statistics.median(floor):.2f} s")
    nights = [ours / theirs for ours, theirs in zip(night, floor, strict=True)]
    print(f"idle_night_vs_floor {statistics.median(nights):.2f} ratio")
    print(f"resume_ms_per_shard {1000 * statistics.median(night) / options.sessions:.2f} ms")
    return 0


@contextmanager
def new_stack(prefect: bool = True) -> Iterator[Stack]:
    """A local Hub that has nothing yet, and a Prefect server if one is needed."""
    DATA.parent.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=DATA.parent) as folder:
        stack = Stack(Path(folder))
        try:
            stack.start_hub()
            stack.token = stack.make_token("lab")
            if prefect:
                stack.start_prefect()
            warm_up(stack, prefect)
            yield stack
        finally:
            stack.stop()


def warm_up(stack: Stack, prefect: bool) -> None:
    """Have servers that have worked before, as people's have: a new one builds each route when it is first asked.

    The Hub knows nothing of what is measured after that.
    """
    with tempfile.TemporaryDirectory(dir=DATA.parent) as folder:
        image = {"sub-1/anat/sub-1_T1w.nii": nifti1((2, 2, 2))}
        source = bids_examples.write(
            Path(folder) / "source", {"dataset_description.json": bids_examples.description(), **image}
        )
        run(stack, UPLOAD, source, "lab/warm-up-raw")
        if prefect:
            run(stack, PUSH, source, "lab/warm-up", Path(folder) / "staging", "Staged")


def seconds(stack: Stack, script: str, *arguments: object) -> float:
    return float(run(stack, script, *arguments))


def run(stack: Stack, script: str, *arguments: object) -> Any:
    """What a script says in its last line, in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    done = subprocess.run(command, cwd=REPO, env=stack.environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{done.stdout[-2000:]}{done.stderr[-4000:]}")
    return json.loads(done.stdout.splitlines()[-1])


if __name__ == "__main__":
    raise SystemExit(main())
