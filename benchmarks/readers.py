"""The card's `load_dataset` lines at true sizes: sessions as large as ds004884's largest, and the peak memory.

The shards are a dataset on this disk with the card's configs (`filters:` over the same files). Each line runs in a
process of its own, goes through every row, and ends as it ends: with its rows and its peak, or with the error. The
lines `card_*` are the card's; those named `plain_*` show what happens when its parameters are left out, `tried_*` what
else was tried.

Where the memory of a streamed row goes, for an image of C bytes, U inflated, measured with C = 298 MB, U = 347 MB:

- `datasets` and its imports: 0.15 GB.
- While a row is read: its page C, the array that pyarrow copies it into C, a copy by the config's filter C, and of the
  row before it the batch C and the Python bytes C. pyarrow's allocator keeps two of these when they are free.
- While it is decoded: the batch C, its Python bytes C, the slice that `gzip.decompress` makes of them C, its blocks and
  their join 2 U, and the image before it, which `datasets`' generator still holds, U. No writer can change these: with
  nothing else in memory they are 2.1 GB (0.15 + 3 C + 3 U).
- With pyarrow's `pre_buffer`, which is on unless it is passed, every page of the file so far: it grows with the
  session (10 images of 150 MB, default: 3.7 GB, and 2.3 GB with it off).
- While a slow consumer decodes, pyarrow reads on until 1 GiB of batches wait: no parameter of `datasets` reaches that
  limit. With `reshard` a scan ends with its row group (func_bold of the 10 images: 2.6 GB, and 1.4 GB with it), and all
  footers are read at the start.

What each gave for one func_bold of 300 MB (VmHWM): nothing passed 3.0 GB; `pre_buffer=False` 2.7; with
ARROW_DEFAULT_MEMORY_POOL=system too 2.1 (so has `use_buffered_stream`, and more without that pool); nibabel by volumes
with `reshard` 1.7. `pyarrow.set_memory_pool` does not reach a scan. Five such images in one session: 5.4 GB, 3.9 with
`pre_buffer=False`, 2.7 with `reshard`, 2.1 with `reshard` and the system's allocator. So `datasets` decodes images of
about 100 MB within 2 GB, whatever is behind them (dwi of 110 MB: 1.5 GB); larger ones are for nibabel, as the card
then says.

The peak is of private memory (RssAnon), looked at from outside, because `gzip` keeps Python's lock where it is highest;
behind it VmHWM, which also counts the pages of mapped files that the kernel may take back.

    python -m benchmarks.readers [FOLDER, default .bench]
"""

import gzip
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path
from subprocess import DEVNULL, PIPE

from benchmarks.made import image
from tasks.disk.staging import Staging
from tasks.stage import stage
from tasks.values.models import ShardSpec

SESSIONS = int(os.environ.get("BENCH_READERS_SESSIONS", 6))

#: Compressed bytes. The largest session of ds004884 has 844 MB, its largest bold 301 MB, a dwi 106 MB in the middle;
#: one session in two has a T1w, here larger than any there.
MB = 1_000_000
SIZES = {
    "anat/{}_T1w": 60 * MB,
    **{f"dwi/{{}}_run-{run}_dwi": 110 * MB for run in (1, 2, 3, 4)},
    "func/{}_task-rest_bold": 300 * MB,
}
VOLUME = 1000  # of an image's slices of 10,000 voxels: what is read at a time where nibabel decodes

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
    import nibabel
    from pyarrow.dataset import ParquetFragmentScanOptions

    datasets.disable_progress_bars()
    began = time.perf_counter()
    ending, rows = "loaded", 0
    parameters = json.loads(options)
    how = {name: parameters.pop(name, False) for name in ("nibabel", "reshard")}
    if "pre_buffer" in parameters:
        scan = ParquetFragmentScanOptions(pre_buffer=parameters.pop("pre_buffer"))
        parameters["fragment_scan_options"] = scan
    try:
        cache = str(Path(published).parent / "cache")
        loaded = datasets.load_dataset(published, config, split="train", cache_dir=cache, **parameters)
        if how["reshard"]:
            loaded = loaded.reshard()
        if how["nibabel"]:
            loaded = loaded.cast_column("nifti", datasets.Nifti(decode=False))
        for row in loaded:
            rows += 1
            if how["nibabel"]:
                image = nibabel.Nifti1Image.from_stream(gzip.GzipFile(fileobj=BytesIO(row["nifti"]["bytes"])))
                for first in range(0, image.shape[-1], VOLUME):
                    assert image.dataobj[..., first : first + VOLUME].any()
                del image
            else:
                assert row["nifti"].shape[:2] == (100, 100)
            del row
    except Exception as error:  # noqa: BLE001 how it fails is the figure
        ending = f"{type(error).__name__}: {str(error.__cause__ or error)[:90]}"
    print(json.dumps([ending, rows, time.perf_counter() - began, in_status("self", "VmHWM")]))


def in_status(process: int | str, name: str) -> float:
    """A process's memory by its name in /proc, in MB; 0 if the process is gone."""
    try:
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024 / MB
    except (OSError, StopIteration):
        return 0


def run(published: Path, name: str, config: str, options: dict[str, object], environment: dict[str, str]) -> None:
    """One line in a process of its own, watched from here."""
    command = [sys.executable, "-m", "benchmarks.readers", str(published), config, json.dumps(options)]
    process = subprocess.Popen(command, stdout=PIPE, stderr=DEVNULL, text=True, env=os.environ | environment)
    peak = 0.0
    while process.poll() is None:
        peak = max(peak, in_status(process.pid, "RssAnon"))
        time.sleep(0.005)
    assert process.stdout is not None
    said = process.stdout.read().splitlines()
    process.stdout.close()
    shutil.rmtree(published.parent / "cache", ignore_errors=True)
    if process.returncode:
        print(f"readers_{name}_failed 1 (exit {process.returncode})", flush=True)
        return
    ending, rows, seconds, most = json.loads(said[-1])
    print(f"readers_{name}_mb {peak:.0f} MB (VmHWM {most:.0f} MB; {ending}, {rows} rows, {seconds:.0f} s)", flush=True)


#: What the card passes, and what it says to do where an image is too large for `datasets` to decode.
STREAMING: dict[str, object] = {"streaming": True, "pre_buffer": False}
ON_DISK: dict[str, object] = {"writer_batch_size": 1, "pre_buffer": False}
PLAIN: dict[str, object] = {"streaming": True}
SYSTEM = {"ARROW_DEFAULT_MEMORY_POOL": "system"}
LINES: list[tuple[str, str, dict[str, object], dict[str, str]]] = [
    *((f"card_{way}_{config}", config, options, {})
      for way, options in (("streaming", STREAMING), ("on_disk", ON_DISK)) for config in CONFIGS),
    *((f"card_{way}_{config}_by_nibabel", config, options | {"nibabel": True}, {})
      for way, options in (("streaming", STREAMING | {"reshard": True}), ("on_disk", ON_DISK))
      for config in ("default", "func_bold", "dwi_dwi")),
    *((f"plain_streaming_{config}", config, PLAIN, {}) for config in CONFIGS),
    *((f"plain_on_disk_{config}", config, {}, {}) for config in CONFIGS),
    *((f"tried_{name}_{config}", config, STREAMING | options, environment)
      for config in ("default", "func_bold", "dwi_dwi")
      for name, options, environment in (("nibabel", {"nibabel": True}, {}), ("reshard", {"reshard": True}, {}),
                                         ("system_memory_pool", {}, SYSTEM),
                                         ("reshard_system_memory_pool", {"reshard": True}, SYSTEM))),
]  # fmt: skip


def main(folder: Path) -> None:
    published = dataset(folder)
    size = sum(path.stat().st_size for path in published.rglob("*.parquet"))
    print(f"readers_shards {size / 1e9:.2f} GB")
    wanted = os.environ.get("BENCH_READERS_LINES", "")
    for name, config, options, environment in LINES:
        if name.startswith(wanted):
            run(published, name, config, options, environment)


if __name__ == "__main__":
    if len(sys.argv) > 2:
        one_line(*sys.argv[1:4])
    else:
        main(Path(sys.argv[1] if len(sys.argv) > 1 else ".bench") / "readers")
