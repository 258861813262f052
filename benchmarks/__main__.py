"""Every benchmark, one after the other: `name value unit`, a line a figure."""

import subprocess
import sys
from pathlib import Path

FOLDER = Path(".bench")
PARTS = (
    "benchmarks.stage",
    "benchmarks.plan",
    "benchmarks.record",
    "benchmarks.hub",
    "benchmarks.large_push",
    "benchmarks.small_shards",
    "benchmarks.resume",
    "benchmarks.restore",
    "benchmarks.cluster",
)

if __name__ == "__main__":
    wanted = sys.argv[1:] or PARTS
    FOLDER.mkdir(exist_ok=True)
    failed = [part for part in wanted if subprocess.run([sys.executable, "-m", part], check=False).returncode]
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")
