"""Eight writers, four readers and a scrub at one local Hub, all at once.

`python -m tests.local_hub.stress [--minutes 10]`. Each writer commits files, small and large, to a repo of its own and
to one that all share; it goes by Xet or by LFS. Readers download what was committed and compare it with what was sent.
`check` reads the whole store again and again meanwhile. It exits 1 if a commit or a byte is lost, if `check` finds
damage, or if the server's memory grows.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median

import httpx2
import psutil
from huggingface_hub import HfApi
from huggingface_hub.utils import build_hf_headers

from tests.local_hub.running import PROJECT, SERVER, RunningHub

WRITERS, READERS = 8, 4
SHARED = "lab/shared"
GROWTH = 1.25  # of the median memory from the second third to the last

#: A writer is a process, since a client goes by Xet or by LFS as a whole. It prints what was committed.
WRITER = """
import hashlib, os, random, sys, time
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.utils import disable_progress_bars
disable_progress_bars()
endpoint, token, number, seconds, shared = sys.argv[1:6]
api, draw, ends, count = HfApi(endpoint, token=token), random.Random(int(number)), time.monotonic() + float(seconds), 0
while time.monotonic() < ends:
    count += 1
    repo = shared if count % 3 == 0 else f"lab/own-{number}"
    data = draw.randbytes(draw.choice((10, 3000, 200_000, 3_000_000)))
    name = f"w{number}/{count}" + draw.choice((".txt", ".parquet"))
    for attempt in range(50):
        try:
            made = api.create_commit(repo, [CommitOperationAdd(name, data)], commit_message=name, repo_type="dataset")
            break
        except Exception as error:
            if "412" not in str(error) and "updated since" not in str(error):
                raise
    print(repo, name, hashlib.sha256(data).hexdigest(), made.oid, flush=True)
"""


@dataclass
class Seen:
    """What was committed, read and found."""

    committed: list[tuple[str, str, str, str]] = field(default_factory=list)
    """Repo, path, sha256 and commit."""
    read: int = 0
    scrubs: int = 0
    wrong: list[str] = field(default_factory=list)
    memory: list[float] = field(default_factory=list)
    """Of the server, in MB, a second apart."""


def write(hub: RunningHub, token: str, number: int, seconds: float, seen: Seen) -> None:
    """Run a writer to its end."""
    way = {"HF_HUB_DISABLE_XET": "1"} if number % 2 else {}
    home = hub.root.parent / f"home-{number}"
    command = [sys.executable, "-c", WRITER, hub.endpoint, token, str(number), str(seconds), SHARED]
    environment = {**os.environ, "HF_HOME": str(home), "HF_ENDPOINT": hub.endpoint, **way}
    with subprocess.Popen(
        command, env=environment, cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout and process.stderr
        for line in process.stdout:
            repo, path, sha256, commit = line.split()
            seen.committed.append((repo, path, sha256, commit))
        said = process.stderr.read()
    if process.returncode:
        seen.wrong.append(f"writer {number} ended with {process.returncode}: {said[-500:]}")


def read(hub: RunningHub, token: str, number: int, ends: float, seen: Seen) -> None:
    """Read what was committed, at its commit or at the head, until the end."""
    draw, headers = random.Random(number), build_hf_headers(token=token)
    with httpx2.Client(timeout=60) as client:
        while time.monotonic() < ends:
            if not seen.committed:
                time.sleep(0.1)
                continue
            repo, path, sha256, commit = draw.choice(seen.committed)
            revision = draw.choice((commit, "main"))
            answer = client.get(f"{hub.endpoint}/datasets/{repo}/resolve/{revision}/{path}", headers=headers)
            seen.read += 1
            if answer.status_code != 200 or hashlib.sha256(answer.content).hexdigest() != sha256:
                seen.wrong.append(f"{repo} {path} at {revision}: {answer.status_code}, {len(answer.content)} bytes")


def scrub(hub: RunningHub, _token: str, _number: int, ends: float, seen: Seen) -> None:
    """Read the whole store again, again and again."""
    while time.monotonic() < ends:
        command = [*SERVER, "check", "--root", str(hub.root)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
        seen.scrubs += 1
        if done.returncode:
            seen.wrong.append(f"check: {done.stdout[-500:]}{done.stderr[-500:]}")


def weigh(hub: RunningHub, _token: str, _number: int, ends: float, seen: Seen) -> None:
    """Note the server's memory, second by second."""
    assert hub.process is not None
    server = psutil.Process(hub.process.pid)
    while time.monotonic() < ends:
        seen.memory.append(server.memory_info().rss / 1e6)
        time.sleep(1)


def in_the_end(hub: RunningHub, token: str, seen: Seen) -> None:
    """Compare what is there with all that was committed."""
    api = HfApi(hub.endpoint, token=token)
    for repo in {repo for repo, *_ in seen.committed}:
        commits = {one.commit_id for one in api.list_repo_commits(repo, repo_type="dataset")}
        files = set(api.list_repo_files(repo, repo_type="dataset"))
        for _, path, _, commit in (one for one in seen.committed if one[0] == repo):
            if commit not in commits or path not in files:
                seen.wrong.append(f"lost: {repo} {path}, committed as {commit}")


def run(folder: Path, seconds: float) -> Seen:
    """All of it, for so long."""
    seen = Seen()
    with RunningHub(folder / "hub") as hub:
        token = hub.token("alice", "write", "--org", "lab")
        api = HfApi(hub.endpoint, token=token)
        for repo in (SHARED, *(f"lab/own-{number}" for number in range(WRITERS))):
            api.create_repo(repo, repo_type="dataset", private=True)
        ends = time.monotonic() + seconds
        work: list[tuple[Callable[..., None], int, float]] = [(write, number, seconds) for number in range(WRITERS)]
        work += [(read, number, ends) for number in range(READERS)] + [(scrub, 0, ends), (weigh, 0, ends)]
        threads = [
            threading.Thread(target=what, args=(hub, token, number, until, seen)) for what, number, until in work
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        in_the_end(hub, token, seen)
        if "Traceback" in hub.log:
            seen.wrong.append("the server's log has a traceback")
    third = len(seen.memory) // 3
    if third and median(seen.memory[-third:]) > GROWTH * median(seen.memory[third : 2 * third]):
        seen.wrong.append("the server's memory grows")
    return seen


def main() -> int:
    """Stress a Hub, and say what came of it; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.local_hub.stress", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--minutes", type=float, default=10.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seen = run(Path(folder), 60 * options.minutes)
    third = max(len(seen.memory) // 3, 1)
    print(f"hub_stress_commits {len(seen.committed)} commits")
    print(f"hub_stress_reads {seen.read} files")
    print(f"hub_stress_scrubs {seen.scrubs} times")
    print(
        f"hub_stress_memory {median(seen.memory[third : 2 * third]):.0f} MB, then {median(seen.memory[-third:]):.0f} MB"
    )
    print(f"hub_stress_wrong {len(seen.wrong)} findings")
    print("\n".join(seen.wrong[:30]), file=sys.stderr)
    return 1 if seen.wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
