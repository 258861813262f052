import os
import signal
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.models import Receipt, ShardSpec
from tasks.staging import DiskFull, Staging, Target, TargetBusy

HOLD = """
import sys, time
from pathlib import Path
from tasks.staging import Staging
with Staging(Path(sys.argv[1])).held():
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    "other",
    [
        Target("http://hub", "lab/data", "v2"),
        Target("http://hub", "lab/data2"),
        Target("http://other", "lab/data"),
        Target("http://hub", "lab--data"),
        Target("http://hub", "Lab/data"),
    ],
)
def test_two_targets_never_share_a_folder(other: Target) -> None:
    assert Target("http://hub", "lab/data").slug.casefold() != other.slug.casefold()


def test_a_revision_with_slashes_stays_one_folder() -> None:
    assert "/" not in Target("http://hub", "lab/data", "feature/../x").slug


def test_the_same_target_is_the_same_folder_with_or_without_a_slash_behind_the_endpoint() -> None:
    assert Target("http://hub/", "lab/data").slug == Target("http://hub", "lab/data").slug


def test_a_target_is_held_by_one_process_and_let_go_when_that_process_is_killed(staging: Staging) -> None:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(staging.folder)], stdout=subprocess.PIPE, cwd=Path(__file__).parent.parent
    )
    assert holder.stdout is not None and holder.stdout.readline() == b"held\n"
    try:
        with pytest.raises(TargetBusy, match="another run works on this target"), staging.held():
            pass
    finally:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
    with staging.held():
        pass


def test_a_disk_without_room_is_refused_before_anything_is_written(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("tasks.staging.shutil.disk_usage", lambda _: usage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(DiskFull, match=r"0\.10 GB free, and 0\.27 GB are needed.*BIDS_PUSH_STAGING_ROOT"):
        staging.require_room(200_000_000)
    staging.require_room(0)
    staging.require_room(20_000_000)


def test_a_staged_shard_is_intact_until_a_byte_of_it_changes(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    (receipt,) = staged(1)
    file = staging.folder / receipt.file
    assert staging.read_intact(shards[0]) == receipt
    good = file.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for damaged in (bytes(flipped), good[:-1], b"", good + b"x"):
        file.write_bytes(damaged)
        assert staging.read_intact(shards[0]) is None
    file.write_bytes(good)
    assert staging.read_intact(shards[0]) == receipt


def test_a_shard_whose_receipt_is_missing_damaged_or_of_another_shard_is_not_staged(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    staged(2)
    first, second = (staging.receipt_file(spec) for spec in shards[:2])
    good = first.read_bytes()
    for damaged in (b"", good[:50], b"{}", second.read_bytes()):
        first.write_bytes(damaged)
        assert staging.read_intact(shards[0]) is None
    first.unlink()
    assert staging.read_intact(shards[0]) is None
