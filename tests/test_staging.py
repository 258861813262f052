import errno
import fcntl
import hashlib
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from deployments.staging import main, staged_target, targets
from tasks.approve import read_gate, write_gate
from tasks.disk.staging import (
    FLUSHED_ABOVE,
    CannotWrite,
    DiskFull,
    Staging,
    Target,
    TargetBusy,
    receipt_name,
    result_key,
    result_name,
)
from tasks.disk.untrusted import ChangedMeanwhile, NotOrdinary, identity, oddity, read_below
from tasks.report.evidence import Gate
from tasks.values.models import Receipt, ShardSpec

HOLD = """
import sys, time
from pathlib import Path
from tasks.disk.staging import Staging
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


@pytest.mark.parametrize("error", ["ENOLCK", "ENOSYS", "EOPNOTSUPP"])
def test_a_file_system_without_locks_holds_nothing_and_one_that_has_them_does(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, error: str
) -> None:
    with staging.held() as held:
        assert held

    def refused(_: int, asked: int) -> None:
        """A kernel that knows the question, and has no answer."""
        known = asked in (fcntl.LOCK_SH | fcntl.LOCK_NB, fcntl.LOCK_EX | fcntl.LOCK_NB)
        raise OSError(getattr(errno, error) if known else errno.EINVAL, "")

    monkeypatch.setattr(fcntl, "flock", refused)
    with staging.held() as held:
        assert not held


def test_the_lock_may_be_taken_by_whoever_the_umask_lets_and_is_no_program(staging: Staging) -> None:
    before = os.umask(0)
    try:
        with staging.held():
            assert stat.S_IMODE(staging.lock.stat().st_mode) == 0o666
    finally:
        os.umask(before)


def test_a_staging_folder_is_its_owners_alone_and_one_that_is_there_keeps_its_rights(
    staging: Staging, tmp_path: Path
) -> None:
    before = os.umask(0)
    try:
        staging.require_room(1)
        assert stat.S_IMODE(staging.folder.stat().st_mode) == 0o700
        deep = Staging(tmp_path / "a disk" / "a root" / "target")
        deep.require_room(1)
        assert stat.S_IMODE(deep.folder.stat().st_mode) == 0o700
        shared = Staging(tmp_path / "shared")
        shared.folder.mkdir(mode=0o770)
        for folder, mode in ((staging, 0o700), (shared, 0o770)):
            with folder.held():
                assert stat.S_IMODE(folder.folder.stat().st_mode) == mode
    finally:
        os.umask(before)


def test_a_lock_that_is_a_link_is_not_followed(staging: Staging, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    staging.folder.mkdir(parents=True)
    staging.lock.symlink_to(elsewhere)
    with pytest.raises(CannotWrite), staging.held():
        pass
    assert not elsewhere.exists()


def test_a_disk_without_room_is_refused_before_anything_is_written(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr("tasks.disk.staging.shutil.disk_usage", lambda _: usage(10**9, 9 * 10**8, 10**8))
    with pytest.raises(DiskFull, match=r"0\.10 GB free, and 0\.27 GB are needed.*BIDS_PUSH_STAGING_ROOT"):
        staging.require_room(200_000_000)
    staging.require_room(0)
    staging.require_room(20_000_000)


def test_a_staged_shard_is_intact_until_a_byte_of_it_changes(
    staged: Callable[[int], list[Receipt]], staging: Staging
) -> None:
    (receipt,) = staged(1)
    file = staging.folder / receipt.file
    assert staging.intact(receipt)
    good = file.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 1
    for damaged in (bytes(flipped), good[:-1], b"", good + b"x"):
        file.write_bytes(damaged)
        assert not staging.intact(receipt)
    file.write_bytes(good)
    assert staging.intact(receipt)


def test_a_shard_whose_receipt_is_missing_damaged_or_of_another_shard_is_not_staged(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    staged(2)
    first, second = (staging.receipt_file(spec) for spec in shards[:2])
    good = first.read_bytes()
    for damaged in (b"", good[:50], b"{}", second.read_bytes()):
        first.write_bytes(damaged)
        assert staging.read_receipt(shards[0]) is None
    first.unlink()
    assert staging.read_receipt(shards[0]) is None


def test_a_file_that_is_written_to_while_it_is_hashed_is_not_intact(
    staged: Callable[[int], list[Receipt]], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    (receipt,) = staged(1)
    file = staging.folder / receipt.file
    digest = hashlib.file_digest

    def meanwhile(*given: Any) -> object:
        found = digest(*given)
        file.write_bytes(b"x" * receipt.size)
        return found

    monkeypatch.setattr("hashlib.file_digest", meanwhile)
    assert not Staging(staging.folder).intact(receipt)
    assert not Staging(staging.folder).intact(receipt)


def test_a_file_is_hashed_once_by_a_process_and_again_when_somebody_has_written_to_it(
    staged: Callable[[int], list[Receipt]], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    (receipt,) = staged(1)
    file = staging.folder / receipt.file
    read = []
    digest = hashlib.file_digest
    monkeypatch.setattr("hashlib.file_digest", lambda *given: (read.append(1), digest(*given))[1])  # type: ignore[func-returns-value]
    assert staging.intact(receipt) and not read  # it was staged by this very process
    fresh = Staging(staging.folder)
    assert fresh.intact(receipt) and fresh.intact(receipt) and len(read) == 1
    good = file.read_bytes()
    before = file.stat()
    file.write_bytes(bytes(receipt.size))
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    for one in (staging, fresh):
        assert not one.intact(receipt)
    file.write_bytes(good)
    assert staging.intact(receipt) and fresh.intact(receipt)


def test_a_receipt_records_the_identity_that_the_staged_file_has_under_its_name(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    for receipt, spec in zip(staged(2), shards, strict=False):
        found = (staging.folder / receipt.file).stat()
        assert receipt.identity == identity(found)
        assert staging.read_receipt(spec) == receipt


def test_a_file_of_the_folder_has_the_identity_that_it_has_and_one_that_is_not_there_has_none(
    staging: Staging, staged: Callable[[int], list[Receipt]]
) -> None:
    (receipt,) = staged(1)
    assert staging.identity_of(receipt.file) == identity((staging.folder / receipt.file).lstat()) == receipt.identity
    assert staging.identity_of("shards/sub-9/none.parquet") is None


def test_a_receipt_remembers_the_first_commit_that_held_its_shard(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    first, second, third = staged(3)
    other = third.model_copy(update={"sha256": "0" * 64})
    gone = second.model_copy(update={"file": second.file.replace("sub-", "sub-x")})
    staging.remember([first, other, gone], "a" * 40)
    staging.remember([first], "b" * 40)
    found = {receipt.path: receipt for receipt in staging.receipts()}
    assert [found[one.path].commit for one in (first, second, third)] == ["a" * 40, "", ""]
    assert found[first.path] == first.model_copy(update={"commit": "a" * 40})
    assert staging.intact(found[first.path])


def test_a_receipt_that_another_version_has_written_remembers_its_commit_too_and_once(
    staged: Callable[[int], list[Receipt]], staging: Staging
) -> None:
    (receipt,) = staged(1)
    written = staging.folder / receipt_name(receipt)
    written.write_text(json.dumps(json.loads(written.read_text()) | {"of another version": 1}))
    staging.remember([receipt], "a" * 40)
    (noted,) = staging.receipts()
    assert noted == receipt.model_copy(update={"commit": "a" * 40})
    before = written.stat().st_ino
    staging.remember([noted, receipt], "b" * 40)
    assert staging.receipts() == [noted] and written.stat().st_ino == before
    first, second = staged(2)
    staging.remember([first.model_copy(update={"commit": "b" * 40}), second], "c" * 40)
    assert {receipt.path: receipt.commit for receipt in staging.receipts()} == {first.path: "", second.path: "c" * 40}


def test_a_receipt_that_describes_another_file_than_the_one_beside_it_is_none(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    first, second = staged(2)
    written = staging.folder / receipt_name(first)
    for file in (second.file, "gate.json", "../x.parquet", "/etc/hostname", f"./{first.file}"):
        written.write_text(json.dumps(json.loads(written.read_text()) | {"file": file}))
        assert staging.receipts() == [second]
        assert staging.read_receipt(shards[0]) is None


@pytest.mark.parametrize("what", ["a symlink", "a FIFO", "a folder", "a hard link", "a device"])
@pytest.mark.parametrize("which", ["shard", "receipt", "gate", "status"])
def test_what_is_no_ordinary_file_is_not_opened_and_is_named(
    staged: Callable[[int], list[Receipt]],
    shards: tuple[ShardSpec, ...],
    staging: Staging,
    tmp_path: Path,
    which: str,
    what: str,
) -> None:
    (receipt,) = staged(1)
    name = {"shard": receipt.file, "receipt": receipt_name(receipt), "gate": "gate.json", "status": "status.json"}[
        which
    ]
    file = staging.folder / name
    if which in ("gate", "status"):
        write_gate(staging, Gate(flow_run_id="run", flow_run_name="run"))
        staging.gate.replace(file)
    real = tmp_path / "real"
    file.rename(real)
    make = {
        "a symlink": lambda: file.symlink_to(real),
        "a FIFO": lambda: os.mkfifo(file),
        "a folder": lambda: file.mkdir(),
        "a hard link": lambda: file.hardlink_to(real),
        "a device": lambda: file.symlink_to("/dev/zero"),
    }
    make[what]()
    assert list(staging.strangers()) == [name] and staging.strangers()[name].startswith("it ")
    fresh = Staging(staging.folder)  # each of these would wait for ever at a FIFO that it opened
    assert read_gate(fresh) is None
    assert fresh.receipts() == ([] if which == "receipt" else [receipt])
    assert fresh.staged_bytes() == (0 if which == "shard" else receipt.size)
    assert fresh.staged_shards() == ({} if which in ("shard", "receipt") else {receipt.file: receipt.size})
    assert (fresh.read_whole(shards[0]) is None) == (which in ("shard", "receipt"))
    assert fresh.intact(receipt) == (which != "shard")
    target = staged_target(fresh)
    assert target.strangers == staging.strangers()
    assert target.shards == (which not in ("shard", "receipt"))


def test_what_somebody_else_put_into_the_folder_is_named_and_not_counted(
    staged: Callable[[int], list[Receipt]],
    staging: Staging,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    (receipt,) = staged(1)
    subject = (staging.folder / receipt.file).parent
    (subject / "mine.parquet").write_bytes(b"mine")
    (staging.folder / os.fsdecode(b"caf\xe9")).write_bytes(b"mine")
    (tmp_path / "elsewhere").mkdir()
    for link in (staging.folder / "more", staging.folder.parent / "another-target"):
        link.symlink_to(tmp_path / "elsewhere")
    shutil.copy(staging.folder / receipt.file, tmp_path / "elsewhere" / "sub-1.0123456789ab.parquet")
    (staging.shards / "sub-link").symlink_to(tmp_path / "elsewhere")
    assert staging.staged_bytes() == receipt.size and staging.staged_shards() == {receipt.file: receipt.size}
    assert staging.strangers() == {
        "caf?": "its name is not UTF-8",
        "more": "it is a symlink",
        f"shards/{subject.name}/mine.parquet": "bids-push gives no such name",
        "shards/sub-link": "it is a symlink",
    }
    assert [target.folder for target in targets(staging.folder.parent)] == [staging.folder]
    assert main(staging.folder.parent) == 0
    said = capsys.readouterr().out
    assert "not of bids-push, neither opened nor removed: 4 names" in said
    assert "mine.parquet: bids-push gives no such name" in said and "caf?: its name is not UTF-8" in said
    assert "another-target: a symlink, which is not followed" in said


def test_a_shard_counts_as_staged_only_with_its_receipt(
    staged: Callable[[int], list[Receipt]], staging: Staging
) -> None:
    first, second, third = staged(3)
    (staging.folder / receipt_name(second)).unlink()
    (staging.folder / third.file).rename(staging.folder / f"{third.file}.part")
    assert staging.staged_shards() == {first.file: first.size}
    assert Staging(staging.folder.parent / "nothing").staged_shards() == {}


@pytest.mark.parametrize("which", ["folder", "shards", "results"])
def test_a_target_whose_folder_leads_elsewhere_is_not_worked_on(staging: Staging, tmp_path: Path, which: str) -> None:
    link = getattr(staging, which)
    link.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotWrite, match=rf"{link} is a symlink.*may be reached through a link\.$"), staging.held():
        pass
    assert not list((tmp_path / "elsewhere").iterdir())
    assert staging.receipts() == [] and staging.staged_bytes() == 0


def test_a_staging_root_that_is_reached_through_a_link_works(
    staged: Callable[[int], list[Receipt]], staging: Staging, tmp_path: Path
) -> None:
    staged(1)
    (tmp_path / "link").symlink_to(staging.folder.parent)
    through = Staging(tmp_path / "link" / staging.folder.name)
    with through.held():
        assert len(through.receipts()) == 1 and through.intact(through.receipts()[0])


def test_a_receipt_that_is_too_large_to_be_one_is_not_read(
    staged: Callable[[int], list[Receipt]], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    (receipt,) = staged(1)
    size = (staging.folder / receipt_name(receipt)).stat().st_size
    monkeypatch.setattr("tasks.disk.untrusted.LARGEST_TEXT", size)
    assert staging.receipts() == [receipt]
    monkeypatch.setattr("tasks.disk.untrusted.LARGEST_TEXT", size - 1)
    assert staging.receipts() == []


# --- where things are, and what they are called ---


def test_a_target_is_named_by_its_repo_and_by_its_branch_if_that_is_not_main(tmp_path: Path) -> None:
    assert str(Target("http://hub", "lab/data")) == "lab/data"
    assert str(Target("http://hub", "lab/data", "v2")) == "lab/data at v2"
    target = Target("http://hub", "lab/data")
    assert Staging.of(tmp_path, target).folder == tmp_path / target.slug


def test_a_shard_is_staged_in_its_subjects_folder_with_its_receipt_beside_it_for_people_to_read(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    (receipt,) = staged(1)
    spec = shards[0]
    _, subject, _ = spec.path.split("/")
    assert receipt.file == f"shards/{subject}/{spec.name}.{spec.digest[:12]}.parquet"
    text = staging.receipt_file(spec).read_text()
    assert f'\n "path": "{spec.path}",\n' in text
    staging.remember([receipt], "c" * 40)
    assert f'\n "commit": "{"c" * 40}"' in staging.receipt_file(spec).read_text()
    assert staging.name_of(spec) == receipt.file


def test_a_receipt_of_another_path_or_digest_is_not_that_of_a_shard_although_its_file_has_the_name(
    staged: Callable[[int], list[Receipt]], shards: tuple[ShardSpec, ...], staging: Staging
) -> None:
    (receipt,) = staged(1)
    alike = shards[0].digest[:12] + "0" * 52
    assert staging.read_receipt(shards[0]) == receipt
    for other in ({"digest": alike}, {"path": receipt.path.replace("data/", "other/")}):
        changed = receipt.model_copy(update=other)
        staging.receipt_file(shards[0]).write_text(changed.model_dump_json())
        assert staging.receipts() == [changed] and staging.read_receipt(shards[0]) is None


def test_a_result_has_the_name_that_the_receipt_remembers_or_else_that_of_the_shards_digest(
    staged: Callable[[int], list[Receipt]],
) -> None:
    (receipt,) = staged(1)
    assert result_name(receipt.model_copy(update={"result": "stage-abc"})) == "results/stage-abc"
    assert result_name(receipt.model_copy(update={"result": ""})) == f"results/{result_key(receipt.digest)}"


def test_results_count_as_ours_and_so_do_shards_and_receipts_and_nothing_else(
    staged: Callable[[int], list[Receipt]], staging: Staging
) -> None:
    (receipt,) = staged(1)
    result = staging.folder / result_name(receipt)
    result.parent.mkdir(exist_ok=True)
    result.write_bytes(b"{}")
    (staging.folder / "mine").mkdir()
    (staging.folder / "mine" / Path(receipt.file).name).write_bytes(b"mine")
    write_gate(staging, Gate(flow_run_id="run", flow_run_name="run"))
    names = sorted((receipt.file, receipt_name(receipt), result_name(receipt)))
    assert sorted(entry.name for entry in staging.ours()) == names


# --- a disk that does not take what is written ---


@pytest.mark.parametrize(
    ("error", "raised", "said"),
    [
        (
            OSError(errno.ENOSPC, "No space left on device"),
            DiskFull,
            "the disk of {0} is full (No space left on device). Free some room there, or set BIDS_PUSH_STAGING_ROOT "
            "(or the staging_root parameter) to a larger disk, and run again: what is staged stays.",
        ),
        (
            OSError(errno.EACCES, "Permission denied"),
            CannotWrite,
            "nothing can be staged in {0} (Permission denied). Give the user who runs this the right to write there, "
            "or set BIDS_PUSH_STAGING_ROOT (or the staging_root parameter) to a folder that can be made.",
        ),
        (
            OSError("strange"),
            CannotWrite,
            "nothing can be staged in {0} (strange). Give the user who runs this the right to write there, or set "
            "BIDS_PUSH_STAGING_ROOT (or the staging_root parameter) to a folder that can be made.",
        ),
    ],
)
def test_a_small_file_is_written_whole_or_the_disk_is_told_of_with_the_way_out(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, error: OSError, raised: type[Exception], said: str
) -> None:
    file = staging.folder / "small.json"
    staging.write(file, b"{}")
    assert file.read_bytes() == b"{}"

    def refuse(path: Path, *_: object) -> None:
        raise error

    monkeypatch.setattr("tasks.disk.staging.write_whole", refuse)
    with pytest.raises(raised) as refused:
        staging.write(file, b"more")
    assert str(refused.value) == said.format(file) and file.read_bytes() == b"{}"


@pytest.mark.parametrize(
    ("needed", "reserve"), [(1, 64 << 20), (20_000_000, 64 << 20), (10**10, 10**8), (10**10 + 99, 10**8)]
)
def test_what_is_to_be_staged_has_to_fit_with_a_hundredth_to_spare_and_64_mib_at_the_least(
    staging: Staging, monkeypatch: pytest.MonkeyPatch, needed: int, reserve: int
) -> None:
    usage = namedtuple("usage", "total used free")
    asked: list[Path] = []

    def free(room: int) -> None:
        monkeypatch.setattr(
            "tasks.disk.staging.shutil.disk_usage",
            lambda path: (asked.append(path), usage(10**12, 0, room))[1],  # type: ignore[func-returns-value]
        )

    free(needed + reserve)
    staging.require_room(needed)
    free(needed + reserve - 1)
    with pytest.raises(DiskFull) as refused:
        staging.require_room(needed)
    assert set(asked) == {staging.folder}
    gigabytes = [f"{count / 10**9:.2f} GB" for count in (needed + reserve - 1, needed + reserve)]
    assert str(refused.value) == (
        f"the disk of {staging.folder} has {gigabytes[0]} free, and {gigabytes[1]} are needed to stage what is missing "
        "on the Hub. Free some room there, or set BIDS_PUSH_STAGING_ROOT (or the staging_root parameter) to a larger "
        "disk. Nothing was staged or sent."
    )


def test_a_receipt_that_a_machine_leaves_half_written_has_the_machine_in_its_name(
    staged: Callable[[int], list[Receipt]], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    (receipt,) = staged(1)
    there = {path for path in staging.shards.rglob("*") if path.is_file()}

    def dies(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("os.replace", dies)
    monkeypatch.setattr("os.rename", dies)
    with pytest.raises(KeyboardInterrupt):
        Staging(staging.folder, writer="0123abcd").write_receipt(receipt)
    (left,) = {path for path in staging.shards.rglob("*") if path.is_file()} - there
    assert ".0123abcd." in left.name


def test_receipts_of_large_shards_alone_are_flushed_to_the_disk(
    staged: Callable[[int], list[Receipt]],
    shards: tuple[ShardSpec, ...],
    staging: Staging,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (receipt,) = staged(1)
    flushed: list[int] = []
    fsync = os.fsync

    def counted(descriptor: int) -> None:
        flushed.append(descriptor)
        fsync(descriptor)

    monkeypatch.setattr("os.fsync", counted)
    for size, flushes in ((FLUSHED_ABOVE + 1, True), (FLUSHED_ABOVE, False), (1, False)):
        flushed.clear()
        staging.write_receipt(receipt.model_copy(update={"size": size}))
        assert bool(flushed) == flushes
    flushed.clear()
    staging.write_receipt(receipt)
    staging.remember([receipt], "c" * 40)
    assert not flushed and staging.receipts()[0].commit == "c" * 40


# --- files that go while they are looked at ---


def test_a_file_that_is_gone_since_its_folder_was_read_hides_no_other(
    staged: Callable[[int], list[Receipt]], staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    staged(3)
    files, real = {entry.name for entry in staging.ours()}, os.stat
    gone: list[str] = []

    def meanwhile(path: Any, *given: Any, **options: Any) -> os.stat_result:
        if path in gone:
            raise FileNotFoundError(path)
        return real(path, *given, **options)

    monkeypatch.setattr("os.stat", meanwhile)
    for file in files:  # a folder is read in any order, so each is the first one once
        gone[:] = [Path(file).name]
        assert {entry.name for entry in staging.ours()} == files - {file}


def test_whatever_is_neither_file_nor_folder_is_told_by_its_kind() -> None:
    nameless = os.stat_result((0, 1, 1, 1, 0, 0, 0, 0, 0, 0))  # a kind that this system does not know
    assert oddity(nameless) == "it is not a regular file"


def test_a_small_file_that_is_too_large_to_be_one_is_told_with_the_limit(
    staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.disk.untrusted.LARGEST_TEXT", 3 << 20)
    staging.write(staging.folder / "small.json", bytes((3 << 20) + 1))
    with pytest.raises(OSError, match="larger than 3 MiB"):
        read_below(staging.folder, "small.json")


def test_the_errors_of_files_have_the_systems_numbers_by_which_a_run_knows_them_for_the_machines_doing() -> None:
    assert (NotOrdinary("it is a FIFO").errno, NotOrdinary("it is a FIFO").strerror) == (errno.EINVAL, "it is a FIFO")
    assert ChangedMeanwhile().errno == errno.ESTALE and "while it was read" in str(ChangedMeanwhile())
