"""A shard is staged whole, with its receipt, or not at all; and the same images give the same bytes."""

import errno
import hashlib
import json
import os
import pickle
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tasks.disk.files import sha256_of
from tasks.disk.staging import RECEIPT_SUFFIX, CannotWrite, DiskFull, Staging
from tasks.embed import BadImage, Truncated, Unfetched
from tasks.stage import NotUnicode, stage
from tasks.values.errors import PushError
from tasks.values.models import ImageContent, Receipt, ShardSpec
from tests.images import image_of, nifti1, put, session, sparse, spec_of, zipped

MIB = 1 << 20

#: Of the shard that `test_the_bytes_of_a_shard_are_these` stages.
GOLDEN = "22dce05d62b3aec35393cb305e2bc2f03dd99112798fe3bb9eb717e57e20f79a"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "bids"


@pytest.fixture
def staging(tmp_path: Path) -> Staging:
    return Staging(tmp_path / "staging")


def files_in(folder: Path) -> dict[str, int]:
    """Every file below a folder, and its size."""
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in folder.rglob("*") if not path.is_dir()}


def anywhere(receipt: Receipt) -> Receipt:
    """A receipt but for what the file system says of the one file."""
    return receipt.model_copy(update={"identity": None})


def test_a_shard_is_staged_beside_its_receipt(root: Path, staging: Staging) -> None:
    spec = session(root)
    receipt = stage(spec, root, staging)
    shard = staging.shard_file(spec)
    assert staging.folder / receipt.file == shard
    assert staging.read_receipt(spec) == receipt
    assert staging.intact(receipt)
    assert (receipt.sha256, receipt.size) == (sha256_of(shard), shard.stat().st_size)
    assert (receipt.path, receipt.digest, receipt.name, receipt.rows) == (spec.path, spec.digest, spec.name, 7)
    assert receipt.images == tuple(
        ImageContent(
            path=image.path,
            size=image.size,
            sha256=sha256_of(root / image.path),
            nifti=2 if image.suffix == "dwi" else 1,
        )
        for image in spec.images
    )
    assert set(files_in(staging.folder)) == {receipt.file, receipt.file.replace(".parquet", ".receipt.json")}


def test_the_rows_stand_in_the_order_of_the_spec(root: Path, staging: Staging) -> None:
    spec = session(root)
    mixed = replace(spec, images=tuple(random.Random(4).sample(spec.images, len(spec.images))))
    receipt = stage(mixed, root, staging)
    paths = pq.read_table(staging.folder / receipt.file)["path"].to_pylist()
    assert paths == [image.path for image in mixed.images] != [image.path for image in spec.images]


def test_the_same_images_give_the_same_bytes_wherever_and_whenever_they_are_staged(tmp_path: Path) -> None:
    receipts = []
    for place in ("here", "there"):
        root = tmp_path / place / "bids"
        spec = session(root)
        os.utime(root / spec.images[0].path, ns=(1, 1))
        spec = replace(spec, images=(replace(spec.images[0], mtime_ns=1), *spec.images[1:]), digest="d" * 64)
        receipts.append(anywhere(stage(spec, root, Staging(tmp_path / place / "staging"), check="full")))
    assert receipts[0] == receipts[1]


def test_the_bytes_of_a_shard_are_these(root: Path, staging: Staging) -> None:
    """Another sha256 here means that every published shard changes: raise LAYOUT_VERSION with it."""
    data = nifti1()
    images = [
        image_of(root, "sub-1/anat/sub-1_T1w.nii", data, metadata='{"a": 1}', extra_entities={"b": "2", "a": "1"}),
        image_of(root, "sub-1/func/sub-1_task-rest_bold.nii", data, events="onset\n", participant="{}"),
    ]
    folder = "sub-1/meg/sub-1_task-rest_meg.ds"
    images += [image_of(root, f"{folder}/{name}", name.encode(), kind="recording") for name in ("a.meg4", "b.res4")]
    assert stage(spec_of(*images), root, staging).sha256 == GOLDEN


def test_any_number_of_workers_stages_the_same(tmp_path: Path, root: Path) -> None:
    images = [image_of(root, f"sub-{i}/anat/sub-{i}_T1w.nii.gz", zipped(nifti1((40, 40, 40), i))) for i in range(12)]
    specs = [spec_of(image, name=f"sub-{number}") for number, image in enumerate(images)]

    def staged(workers: int) -> list[str]:
        staging = Staging(tmp_path / f"staging-{workers}")
        with ThreadPoolExecutor(workers) as pool:
            return [receipt.sha256 for receipt in pool.map(lambda spec: stage(spec, root, staging), specs)]

    assert staged(1) == staged(4)


def test_one_bad_image_leaves_no_shard_and_no_receipt_and_the_next_shard_goes_on(root: Path, staging: Staging) -> None:
    spec = session(root)
    cut = zipped(nifti1((30, 30, 30)))[:-100]
    bad = image_of(root, "sub-2/anat/sub-2_T1w.nii.gz", cut)
    with pytest.raises(Truncated, match=r"sub-2/anat/sub-2_T1w\.nii\.gz"):
        stage(spec_of(spec.images[0], bad, name="sub-2"), root, staging)
    assert list(files_in(staging.folder).values()) == [0]
    assert next(iter(files_in(staging.folder))).endswith(".parquet.part")
    assert staging.intact(stage(spec, root, staging))


def test_a_shard_that_failed_is_staged_by_the_next_attempt(root: Path, staging: Staging) -> None:
    path = "sub-1/anat/sub-1_T1w.nii.gz"
    image = image_of(root, path, zipped(nifti1()))
    data = (root / path).read_bytes()
    (root / path).unlink()
    (root / path).symlink_to("../../.git/annex/objects/KEY/KEY")
    with pytest.raises(Unfetched):
        stage(spec_of(image), root, staging)
    put(root, ".git/annex/objects/KEY/KEY", data)
    os.utime(root / path, ns=(image.mtime_ns, image.mtime_ns))
    receipt = stage(spec_of(image), root, staging)
    assert staging.intact(receipt)
    assert set(files_in(staging.folder)) == {receipt.file, receipt.file.replace(".parquet", ".receipt.json")}


def test_every_error_of_an_image_is_one_for_a_person() -> None:
    assert issubclass(BadImage, PushError)


@pytest.mark.parametrize("text", [{"metadata": '"\udc80"'}, {"path": "sub-1/anat/sub-1_T1w\udc80.nii"}])
def test_what_is_not_unicode_is_an_error_that_says_where_and_quotes_nothing(
    root: Path, staging: Staging, text: dict[str, Any]
) -> None:
    path = text.get("path", "sub-1/anat/sub-1_T1w.nii")
    image = replace(image_of(root, path, nifti1()), **text)
    with pytest.raises(NotUnicode, match=r"sub-1 .* at its character \d") as error:
        stage(spec_of(replace(image, datatype="anat"), name="sub-1"), root, staging)
    assert "T1w" not in str(error.value)
    assert list(files_in(staging.folder).values()) == [0]


def in_the_way(staging: Staging, spec: ShardSpec, what: str) -> None:
    shard = staging.shard_file(spec)
    if what == "a file in the folder's place":
        put(shard.parent.parent, shard.parent.name, b"")
    else:
        names = {"shard": shard, "part": shard.with_name(shard.name + ".part"), "receipt": staging.receipt_file(spec)}
        names[what].mkdir(parents=True)


@pytest.mark.parametrize("what", ["shard", "part", "receipt", "a file in the folder's place"])
def test_something_in_the_way_is_an_error_that_names_it(root: Path, staging: Staging, what: str) -> None:
    spec = session(root)
    in_the_way(staging, spec, what)
    with pytest.raises(CannotWrite, match=r"sub-1 cannot be written to .*shards/sub-1.*Move away what is there"):
        stage(spec, root, staging)
    assert staging.read_receipt(spec) is None
    assert not any(path.endswith(".part") and size for path, size in files_in(staging.folder).items())


def test_a_folder_that_may_not_be_written_is_an_error_that_names_it(root: Path, staging: Staging) -> None:
    spec = session(root)
    staging.folder.mkdir()
    staging.folder.chmod(0o555)
    user = os.geteuid()
    if user == 0:  # for whom every folder may be written
        os.seteuid(65534)
    try:
        with pytest.raises(CannotWrite, match=r"Permission denied.*give the user who runs this the right"):
            stage(spec, root, staging)
    finally:
        os.seteuid(user)


@contextmanager
def no_file_above(size: int) -> Iterator[None]:
    """In this process no file grows larger than this, in bytes: the kernel refuses, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("what", ["a symlink", "a hard link", "a FIFO"])
def test_what_has_the_temporary_name_of_a_shard_is_neither_followed_nor_emptied(
    root: Path, staging: Staging, tmp_path: Path, what: str
) -> None:
    spec = spec_of(sparse(root, "sub-1/func/sub-1_bold.nii", MIB))
    shard = staging.shard_file(spec)
    shard.parent.mkdir(parents=True)
    part = shard.with_name(shard.name + ".part")
    precious = tmp_path / "precious"
    precious.write_bytes(b"mine")
    if what == "a FIFO":
        os.mkfifo(part)
    else:
        (part.symlink_to if what == "a symlink" else part.hardlink_to)(precious)
    with pytest.raises(CannotWrite, match="Move away what is there"):
        stage(spec, root, staging)
    assert precious.read_bytes() == b"mine" and os.path.lexists(part)
    assert not shard.exists() and staging.read_receipt(spec) is None


@pytest.mark.parametrize("which", ["the target's folder", "shards", "the subject's folder"])
def test_nothing_is_staged_through_a_link(root: Path, staging: Staging, tmp_path: Path, which: str) -> None:
    spec = spec_of(sparse(root, "sub-1/func/sub-1_bold.nii", MIB))
    subject = staging.shard_file(spec).parent
    link = {"the target's folder": staging.folder, "shards": staging.shards, "the subject's folder": subject}[which]
    link.parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "elsewhere").mkdir()
    link.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CannotWrite, match=f"{link} is a symlink"):
        stage(spec, root, staging)
    assert not list((tmp_path / "elsewhere").iterdir())


def test_a_full_disk_is_an_error_that_says_where_and_what_to_do(root: Path, staging: Staging) -> None:
    spec = spec_of(sparse(root, "sub-1/func/sub-1_bold.nii", 20 * MIB))
    shard = staging.shard_file(spec)
    with no_file_above(10 * MIB), pytest.raises(DiskFull, match=r"large.*BIDS_PUSH_STAGING_ROOT") as caught:
        stage(spec, root, staging)
    assert str(staging.folder) in str(caught.value)
    assert isinstance(caught.value.__cause__, OSError)
    assert caught.value.__cause__.errno == errno.EFBIG
    assert shard.with_name(shard.name + ".part").stat().st_size == 0  # what did not fit takes no room
    assert staging.read_receipt(spec) is None
    assert not shard.exists()


def python(code: str, *arguments: object) -> subprocess.Popen[str]:
    """A process of its own that runs `code`."""
    command = [sys.executable, "-c", code, *map(str, arguments)]
    here = Path(__file__).parent.parent
    return subprocess.Popen(command, cwd=here, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


STAGE_UNDER_A_LIMIT = """
import resource, signal, sys
from pathlib import Path
from tasks.stage import stage
from tasks.disk.staging import DiskFull, Staging
from tests.images import image_at, spec_of
root, folder = map(Path, sys.argv[1:])
spec = spec_of(image_at(root, "sub-1/func/sub-1_bold.nii"))
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (10 << 20, 10 << 20))
try:
    stage(spec, root, Staging(folder))
except DiskFull as error:
    print(error)
"""


@pytest.mark.slow
def test_a_file_that_cannot_grow_any_more_gives_its_room_back(root: Path, staging: Staging) -> None:
    sparse(root, "sub-1/func/sub-1_bold.nii", 20 * MIB)
    said, _ = python(STAGE_UNDER_A_LIMIT, root, staging.folder).communicate()
    assert "sub-1 does not fit into" in said
    assert list(files_in(staging.folder).values()) == [0]


STAGE_UNTIL_KILLED = """
import itertools, os, pickle, sys
from pathlib import Path
from tasks.stage import stage
from tasks.disk.staging import Staging
root, specs = Path(sys.argv[1]), pickle.loads(Path(sys.argv[2]).read_bytes())
for line in sys.stdin:  # of a folder; one process imports everything, and forks another for each
    child = os.fork()
    if child == 0:
        for number in itertools.count():
            for spec in specs:
                stage(spec, root, Staging(Path(line.strip()) / f"{number:04d}"))
    print(child, flush=True)
    os.waitpid(child, 0)
    print("killed", flush=True)
"""


@pytest.mark.slow
def test_whenever_the_process_is_killed_nothing_looks_finished_that_is_not(tmp_path: Path, root: Path) -> None:
    specs = [
        spec_of(*(image_of(root, f"sub-{sub}/anat/sub-{sub}_run-{run}_T1w.nii", nifti1((90, 90, 60), 9 * sub + run))
                  for run in range(3)), name=f"sub-{sub}")
        for sub in range(8)
    ]  # fmt: skip
    put(tmp_path, "specs", pickle.dumps(specs))
    start = time.monotonic()
    whole = {spec.name: anywhere(stage(spec, root, Staging(tmp_path / "undisturbed"))) for spec in specs}
    seconds = time.monotonic() - start
    moments = random.Random(0)
    finished = []
    forks = python(STAGE_UNTIL_KILLED, root, tmp_path / "specs")
    assert forks.stdin is not None and forks.stdout is not None
    for attempt in range(15):
        folder = tmp_path / f"killed-{attempt}"
        print(folder, file=forks.stdin, flush=True)
        process = int(forks.stdout.readline())  # it never ends, however fast it is
        while len(list(folder.rglob(f"*{RECEIPT_SUFFIX}"))) < attempt // 2:  # it is somewhere behind this shard
            time.sleep(0.001)
        time.sleep(moments.uniform(0, seconds / len(specs)))
        os.kill(process, signal.SIGKILL)
        assert forks.stdout.readline() == "killed\n"
        staging = Staging(max(folder.glob("*"), default=folder / "0000"))  # the one that it was at
        finished.append(len(staging.receipts()))
        for receipt in staging.receipts():
            assert anywhere(receipt) == whole[receipt.name]
            assert staging.intact(receipt)
        for shard in staging.shards.rglob("*.parquet"):  # what has its final name is whole, receipt or not
            assert sha256_of(shard) == whole[shard.name.split(".")[0]].sha256
        again = [anywhere(staging.read_receipt(spec) or stage(spec, root, staging)) for spec in specs]
        assert again == list(whole.values())
        assert not list(staging.folder.rglob("*.part"))
        shutil.rmtree(folder)
    forks.communicate()
    assert len(set(finished)) > 1  # it was killed at different moments
    assert min(finished) < len(specs)


PEAK = """
import json, sys
from pathlib import Path
from tasks.stage import stage
from tasks.disk.staging import Staging
from tests.images import image_at, spec_of

def resident(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key)) / 1024

root, folder = map(Path, sys.argv[1:])
images = [image_at(root, path.relative_to(root).as_posix()) for path in sorted(root.rglob("*.nii"))]
before = resident("VmRSS")
stage(spec_of(*images), root, Staging(folder))
print(json.dumps([before, resident("VmHWM")]))
"""


@pytest.mark.slow
def test_the_memory_of_staging_does_not_grow_with_the_session(tmp_path: Path, root: Path) -> None:
    for run, size in enumerate((60, 300, 120, 220)):
        sparse(root, f"sub-1/func/sub-1_run-{run}_bold.nii", size * MIB)
    said, _ = python(PEAK, root, tmp_path / "staging").communicate()
    before, peak = json.loads(said)
    assert peak - before < 30  # MB, for 700 MB of images
    assert peak < 400


def test_an_image_is_read_once(root: Path, staging: Staging, monkeypatch: pytest.MonkeyPatch) -> None:
    image = image_of(root, "sub-1/anat/sub-1_T1w.nii.gz", zipped(nifti1((50, 50, 50))))
    read = []
    readv = os.readv

    def counted(descriptor: int, buffers: list[memoryview]) -> int:
        read.append(readv(descriptor, buffers))
        return read[-1]

    monkeypatch.setattr(os, "readv", counted)
    stage(spec_of(image), root, staging, check="full")
    assert sum(read) == image.size


def test_the_sha256_of_every_image_is_in_its_row(root: Path, staging: Staging) -> None:
    spec = session(root)
    table = pq.read_table(staging.folder / stage(spec, root, staging).file, columns=["sha256", "nifti"])
    for row in table.to_pylist():
        assert row["sha256"] == hashlib.sha256(row["nifti"]["bytes"]).hexdigest()


def test_an_image_at_the_root_without_a_subject_is_a_row_of_nulls(root: Path, staging: Staging) -> None:
    image = image_of(root, "T1w.nii", nifti1(), datatype=None)
    receipt = stage(ShardSpec("root", "data/root/root.parquet", (image,), "e" * 64), root, staging)
    row = pq.read_table(staging.folder / receipt.file).to_pylist()[0]
    assert (row["sub"], row["ses"], row["datatype"], row["suffix"]) == (None, None, None, "T1w")
