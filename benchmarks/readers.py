"""The card's `load_dataset` lines at true sizes: images of 60 to 300 MB, several GB of shards, and the peak memory.

The shards are a dataset on this disk with the card's configs (`filters:` over the same files). Each line runs in a
process of its own, goes through every row, decodes each image where it streams, and ends as it ends: with its rows
and its peak, or with the error. Every one must stay under 2 GB; those named `without` show what happens when the
parameter is left out.

    python -m benchmarks.readers [FOLDER, default .bench]
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from benchmarks.made import image
from tasks.models import ShardSpec
from tasks.stage import stage
from tasks.staging import Staging

SESSIONS = int(os.environ.get("BENCH_READERS_SESSIONS", 10))

#: Compressed bytes; one session in two has a T1w, and the largest bold is as large as ds004884's.
MB = 1_000_000
SIZES = {
    "anat/{}_T1w": 60 * MB,
    "dwi/{}_run-1_dwi": 110 * MB,
    "dwi/{}_run-2_dwi": 60 * MB,
    "func/{}_task-rest_bold": 300 * MB,
}

CARD = """---
configs:
- config_name: default
  data_files: data/*/*.parquet
  default: true
- config_name: anat_T1w
  data_files: data/*/*.parquet
  filters: [[suffix, "==", T1w]]
- config_name: func_bold
  data_files: data/*/*.parquet
  filters: [[suffix, "==", bold]]
- config_name: dwi_dwi
  data_files: data/*/*.parquet
  filters: [[suffix, "==", dwi]]
---
"""

CONFIGS = ("default", "anat_T1w", "func_bold", "dwi_dwi")


def dataset(folder: Path) -> Path:
    """The published dataset, made if it is not there yet."""
    published = folder / "published"
    if (published / "README.md").exists():
        return published
    for number in range(SESSIONS):
        sub = f"sub-{number:03}"
        images = tuple(
            image(folder / "images", f"{sub}/{path.format(sub)}.nii.gz", size)
            for path, size in SIZES.items()
            if "T1w" not in path or number % 2
        )
        spec = ShardSpec(sub, f"data/{sub}/{sub}.parquet", images, hashlib.sha256(sub.encode()).hexdigest())
        receipt = stage(spec, folder / "images", Staging(folder / "staging"))
        (published / spec.path).parent.mkdir(parents=True, exist_ok=True)
        (folder / "staging" / receipt.file).replace(published / spec.path)
        shutil.rmtree(folder / "images")
    (published / "README.md").write_text(CARD)
    return published


def one_line(published: str, config: str, options: str) -> None:
    """Load and go through every row; print what came of it as JSON."""
    import datasets

    datasets.disable_progress_bars()
    cache = Path(published).parent / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    peak = Peak()
    began = time.perf_counter()
    ending, rows = "loaded", 0
    try:
        parameters = json.loads(options)
        loaded = datasets.load_dataset(published, config, split="train", cache_dir=str(cache), **parameters)
        for row in loaded:
            rows += 1
            assert row["nifti"].shape[:2] == (100, 100)
            del row
    except Exception as error:  # noqa: BLE001 how it fails is the figure
        ending = f"{type(error).__name__}: {str(error.__cause__ or error)[:90]}"
    print(json.dumps([ending, rows, time.perf_counter() - began, peak.stop()]))
    shutil.rmtree(cache, ignore_errors=True)


class Peak:
    """The most private memory of this process in MB; the pages of a mapped file are the kernel's to take back."""

    def __init__(self) -> None:
        self._most = 0.0
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._ended.wait(0.02):
            with Path("/proc/self/status").open() as status:
                kilobytes = next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))
            self._most = max(self._most, kilobytes / 1024)

    def stop(self) -> float:
        self._ended.set()
        self._thread.join()
        return self._most


def main(folder: Path) -> None:
    published = dataset(folder)
    size = sum(path.stat().st_size for path in published.rglob("*.parquet"))
    print(f"readers_shards {size / 1e9:.2f} GB")
    lines = [(f"streaming_{config}", config, {"streaming": True}) for config in CONFIGS]
    lines += [(f"writer_batch_size_1_{config}", config, {"writer_batch_size": 1}) for config in CONFIGS]
    lines += [(f"without_{config}", config, {}) for config in CONFIGS]
    for name, config, options in lines:
        command = [sys.executable, "-m", "benchmarks.readers", str(published), config, json.dumps(options)]
        run = subprocess.run(command, capture_output=True, text=True, check=False)
        if run.returncode:
            print(
                f"readers_{name}_failed 1 ({run.stderr.strip().splitlines()[-1:]}, exit {run.returncode})", flush=True
            )
            continue
        ending, rows, seconds, peak = json.loads(run.stdout.splitlines()[-1])
        print(f"readers_{name}_peak_mb {peak:.0f} MB ({ending}, {rows} rows, {seconds:.0f} s)", flush=True)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        one_line(*sys.argv[1:4])
    else:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else ".bench") / "readers")
