"""`datasets` and the command line, in processes of their own: pushed, loaded, streamed, uploaded, downloaded."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from huggingface_hub import HfApi

from tests.local_hub.running import RunningHub, client_environment

PUSH_AND_LOAD = """
import sys
from datasets import Dataset, load_dataset
name = sys.argv[1]
rows = {"sub": [f"M{i:04d}" for i in range(500)], "size": list(range(500))}
Dataset.from_dict(rows).push_to_hub(name, private=True)
whole = load_dataset(name, split="train")
assert whole[499] == {"sub": "M0499", "size": 499}, whole[499]
streamed = list(load_dataset(name, split="train", streaming=True))
assert streamed == [dict(zip(rows, row)) for row in zip(*rows.values())]
"""


def test_a_dataset_is_pushed_loaded_and_streamed(
    hub: RunningHub, api: HfApi, token: str, transport: str, tmp_path: Path
) -> None:
    environment = client_environment(hub, tmp_path / "home", token, xet=transport == "xet")
    done = subprocess.run(
        [sys.executable, "-c", PUSH_AND_LOAD, f"alice/pushed-{transport}"],
        env=environment, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"alice/pushed-{transport}" in [info.id for info in api.list_datasets(author="alice")]


def test_the_command_line_says_who_one_is_uploads_and_downloads(
    hub: RunningHub, api: HfApi, dataset: str, token: str, transport: str, tmp_path: Path
) -> None:
    environment = client_environment(hub, tmp_path / "home", token, xet=transport == "xet")
    source = tmp_path / "source"
    (source / "data").mkdir(parents=True)
    (source / "data" / "a.parquet").write_bytes(b"\0\1" * 50_000)
    (source / "notes.txt").write_text("text")

    def hf(*arguments: str) -> str:
        command = [str(Path(sys.executable).with_name("hf")), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr[-3000:]
        return done.stdout

    assert "alice" in hf("auth", "whoami")
    hf("upload", dataset, str(source), ".", "--repo-type", "dataset")
    hf("download", dataset, "--repo-type", "dataset", "--local-dir", str(tmp_path / "target"))

    for name in ("data/a.parquet", "notes.txt"):
        assert (tmp_path / "target" / name).read_bytes() == (source / name).read_bytes()
