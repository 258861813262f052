"""Staging against the disk and against today's tools, on at least 3 GB of images that are made once.

Every way stages the same sessions (T1w, T2w, bold; 80 MB each), a Parquet file a session, in a process of its own that
is told apart by `way`. The ways take turns, and each round's ratio is to the floor of that round: other work on the
machine falls on all of them. Each line is the median of the rounds.

`stage` checks each image's whole gzip stream, as is the default, and `stage_trailer` its end alone.

The floor: `cat` of all images into one file, then the sha256 of that stream. No fsync; our own staging has one a shard.
The peers hash nothing. `*_cpu_s_per_gb` is processor time, which other work on the machine moves less.
`stage_large_session_peak_mb` is one session of 8 GB in 30 images, a shard of that size (BENCH_STAGE_LARGE, in bytes).

Tried: a second thread that writes while the first reads and hashes (16 buffers of 256 KiB between them). On a quiet
machine with two cores, medians of 5 rounds over 3.34 GB, both ways in turn, with the trailer's check:

| | of the floor | GB/s, one worker | two workers | processor s/GB, one | two |
|---|---|---|---|---|---|
| a second thread | 0.95 | 0.56 | 0.93 | 2.09 | 1.75 |
| one thread (kept) | 1.00 | 0.58 | 1.03 | 1.58 | 1.65 |

    python -m benchmarks.stage [FOLDER, default .bench]
"""

import hashlib
import json
import os
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import median

from benchmarks.made import image
from tasks.disk.staging import Staging
from tasks.embed import Check
from tasks.stage import stage
from tasks.values.models import Image, ShardSpec

SESSIONS = int(os.environ.get("BENCH_STAGE_SESSIONS", 40))
ROUNDS = int(os.environ.get("BENCH_STAGE_ROUNDS", 5))
LARGE = int(os.environ.get("BENCH_STAGE_LARGE", 8_000_000_000))  # bytes of the session in `LARGE_IMAGES` images
LARGE_IMAGES = 30
SIZES = {"anat/{}_T1w": 4 << 20, "anat/{}_T2w": 4 << 20, "func/{}_task-rest_bold": 72 << 20}  # bytes


def sessions(folder: Path) -> list[ShardSpec]:
    """The sessions, made if they are not there yet."""
    specs = []
    for number in range(SESSIONS):
        sub = f"sub-{number:03}"
        images = tuple(
            image(folder / "images", f"{sub}/{path.format(sub)}.nii.gz", size) for path, size in SIZES.items()
        )
        specs.append(ShardSpec(sub, f"data/{sub}/{sub}.parquet", images, hashlib.sha256(sub.encode()).hexdigest()))
    return specs


def large_session(folder: Path) -> list[ShardSpec]:
    """One session in many large images, which are one file by many names."""
    sub = "sub-large"
    images: list[Image] = []
    for run in range(LARGE_IMAGES):
        path = f"{sub}/func/{sub}_task-rest_run-{run:02}_bold.nii.gz"
        if images and not (folder / "images" / path).exists():
            (folder / "images" / path).hardlink_to(folder / "images" / images[0].path)
        images.append(image(folder / "images", path, LARGE // LARGE_IMAGES))
    return [ShardSpec(sub, f"data/{sub}/{sub}.parquet", tuple(images), hashlib.sha256(sub.encode()).hexdigest())]


def floor(specs: list[ShardSpec], root: Path, out: Path) -> None:
    """`cat` into one file, then its sha256."""
    paths = [root / image.path for spec in specs for image in spec.images]
    with (out / "stream").open("wb") as stream:
        subprocess.run(["cat", *paths], stdout=stream, check=True)
    with (out / "stream").open("rb") as stream:
        hashlib.file_digest(stream, "sha256").hexdigest()


def workers(count: int, check: Check = "full") -> Callable[[list[ShardSpec], Path, Path], None]:
    """Our own staging in `count` threads."""

    def run(specs: list[ShardSpec], root: Path, out: Path) -> None:
        with ThreadPoolExecutor(count) as pool:
            list(pool.map(lambda spec: stage(spec, root, Staging(out), check), specs))

    return run


def push_to_hub_path(specs: list[ShardSpec], root: Path, out: Path) -> None:
    """What `Dataset.push_to_hub` does with a shard before it uploads it."""
    import datasets
    from datasets.table import embed_table_storage

    datasets.disable_progress_bars()
    for spec in specs:
        columns = {
            "path": [image.path for image in spec.images],
            "nifti": [str(root / image.path) for image in spec.images],
        }
        shard = datasets.Dataset.from_dict(columns).cast_column("nifti", datasets.Nifti())
        shard = shard.with_format("arrow").map(embed_table_storage, batched=True, batch_size=1000, keep_in_memory=True)
        shard.with_format(None).to_parquet(out / f"{spec.name}.parquet")


def plain(specs: list[ShardSpec], root: Path, out: Path) -> None:
    """Read all, `embed_table_storage`, pyarrow writes."""
    import datasets
    import pyarrow as pa
    import pyarrow.parquet as pq
    from datasets.table import embed_table_storage

    features = datasets.Features({"path": datasets.Value("string"), "nifti": datasets.Nifti()})
    for spec in specs:
        rows = [{"path": image.path, "nifti": {"bytes": None, "path": str(root / image.path)}} for image in spec.images]
        table = pa.Table.from_pylist(rows, schema=features.arrow_schema)
        pq.write_table(embed_table_storage(table), out / f"{spec.name}.parquet")


WAYS: dict[str, Callable[[list[ShardSpec], Path, Path], None]] = {
    "floor": floor,
    "stage": workers(1),
    "stage_two_workers": workers(2),
    "stage_trailer": workers(1, "trailer"),
    "stage_trailer_two_workers": workers(2, "trailer"),
    "stage_large_session": workers(1),
    "push_to_hub_path": push_to_hub_path,
    "plain_loop": plain,
}


IN_TURN = [way for way in WAYS if way != "stage_large_session"]


def one_run(way: str, folder: Path) -> None:
    """Run a way once; print its seconds, processor seconds and peak memory in MB as JSON."""
    specs = large_session(folder) if way == "stage_large_session" else sessions(folder)
    out = folder / "out"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    os.sync()
    if len(specs) > 1:
        WAYS[way](specs[:1], folder / "images", out)  # imports
    cpu, began = _cpu(), time.perf_counter()
    WAYS[way](specs, folder / "images", out)
    seconds, cpu = time.perf_counter() - began, _cpu() - cpu
    with Path("/proc/self/status").open() as status:
        peak = next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
    shutil.rmtree(out)
    print(json.dumps([seconds, cpu, peak]))


def _cpu() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


Figures = dict[str, list[float]]
"""Of each way: the seconds, the seconds of processor time, and the peak of memory in MB."""


def seconds_of_floor(way: str, figures: Figures) -> float:
    return figures["floor"][0] / figures[way][0]


def peak(way: str, figures: Figures) -> float:
    return figures[way][2]


def speed(way: str, gigabytes: float, figures: Figures) -> float:
    return gigabytes / figures[way][0]


def cpu_of_one(way: str, gigabytes: float, figures: Figures) -> float:
    return figures[way][1] / gigabytes


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    gigabytes = sum(spec.size for spec in sessions(folder)) / 1e9
    large_session(folder)  # made here: the peak is to be that of the staging

    def run(way: str) -> list[float]:
        command = [sys.executable, "-m", "benchmarks.stage", str(folder), way]
        figures: list[float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
        return figures

    rounds = [{way: run(way) for way in IN_TURN} for _ in range(ROUNDS)]

    def line(name: str, unit: str, of: Callable[[dict[str, list[float]]], float]) -> None:
        print(f"{name} {median(of(figures) for figures in rounds):.2f} {unit}", flush=True)

    print(f"stage_images {gigabytes:.2f} GB")
    line("stage_vs_floor", "ratio", lambda figures: figures["floor"][0] / figures["stage"][0])
    line("stage_two_workers_vs_one", "ratio", lambda figures: figures["stage"][0] / figures["stage_two_workers"][0])
    line("stage_peak_mb", "MB", lambda figures: figures["stage"][2])
    line("stage_two_workers_peak_mb", "MB", lambda figures: figures["stage_two_workers"][2])
    line("stage_vs_trailer", "ratio", lambda figures: figures["stage_trailer"][0] / figures["stage"][0])
    line(
        "stage_two_workers_vs_trailer",
        "ratio",
        lambda figures: figures["stage_trailer_two_workers"][0] / figures["stage_two_workers"][0],
    )
    ways = {way: way for way in ("stage_trailer", "push_to_hub_path", "plain_loop")}
    for name, way in {"stage_full_check": "stage", **ways}.items():  # the name from when it was not the default
        line(f"{name}_vs_floor", "ratio", partial(seconds_of_floor, way))
        line(f"{name}_peak_mb", "MB", partial(peak, way))
    print(f"stage_large_session_peak_mb {run('stage_large_session')[2]:.2f} MB", flush=True)
    for way in IN_TURN:
        line(f"{way}_gb_per_s", "GB/s", partial(speed, way, gigabytes))
        line(f"{way}_cpu_s_per_gb", "s/GB", partial(cpu_of_one, way, gigabytes))


if __name__ == "__main__":
    place = Path(sys.argv[1] if len(sys.argv) > 1 else ".bench") / "stage"
    if len(sys.argv) > 2:
        one_run(sys.argv[2], place.parent)
    else:
        main(place)
