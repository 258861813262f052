"""A shard that came back from the Hub: what it is compared with, and what is said of one that is not right.

The Hub is one that sends whatever bytes a test gives it, so that the shard is damaged in one thing and no other. What a
real Hub sends, and what a whole verification makes of it, is in `tests/test_verify.py`.
"""

import errno
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from threading import Lock
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from tasks.bids.pictures import MAX_SLICES
from tasks.disk.failed_shards import Cause, Failure
from tasks.disk.staging import Staging
from tasks.embed import Check
from tasks.hub.ahead import AHEAD_BYTES, AT_ONCE, Ahead
from tasks.hub.errors import HubUnreachable
from tasks.stage import stage
from tasks.values.models import ImageContent, PublishedShard, ShardSpec
from tasks.verify import ReadBack
from tests.images import image_of, nifti1, nifti2, recordings, spec_of, zipped
from tests.layout_1 import as_layout_1, rewritten
from tests.test_decode import DATATYPE, LARGE, PIXDIM, changed

COMMIT = "c" * 40
T1W = "sub-1/anat/sub-1_T1w.nii.gz"
EEG = "sub-1/eeg/sub-1_task-rest_eeg.eeg"
MASK = "derivatives/masks/sub-1/anat/sub-1_label-lesion_mask.nii.gz"


class Sends:
    """A Hub that sends these bytes, whichever shard it is asked for, and keeps what it was asked."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.asked: list[tuple[str, str]] = []

    def read_back(self, path: str, commit: str, into: BinaryIO) -> tuple[int, str]:
        self.asked.append((path, commit))
        into.write(self.data)
        return len(self.data), hashlib.sha256(self.data).hexdigest()


def staged(root: Path, spec: ShardSpec, check: Check = "full") -> tuple[PublishedShard, bytes]:
    """The line of a shard in the record, and the shard."""
    staging = Staging(root / "staging")
    receipt = stage(spec, root, staging, check)
    return receipt.line(), (staging.folder / receipt.file).read_bytes()


@pytest.fixture(scope="module")
def shard(tmp_path_factory: pytest.TempPathFactory) -> tuple[PublishedShard, bytes]:
    """A session with images of several suffixes and kinds, and recordings; of them an empty file."""
    root = tmp_path_factory.mktemp("session")
    return staged(root, recordings(root))


def read(line: PublishedShard, data: bytes, found: ReadBack | None = None) -> Failure | None:
    """What is wrong with a shard of which these bytes came."""
    return (found or ReadBack()).read(Ahead(Sends(data), (), COMMIT), line, COMMIT)  # type: ignore[arg-type]


def sent_as_it_is(line: PublishedShard, data: bytes, **facts: Any) -> PublishedShard:
    """The line of a shard that was published with these bytes, whatever is in them."""
    return line.model_copy(update={"size": len(data), "sha256": hashlib.sha256(data).hexdigest(), **facts})


def of_images(tmp_path: Path, *images: tuple[str, bytes], check: Check = "full") -> tuple[ReadBack, str | None]:
    """Stage images and read the shard back: what was read, and what is wrong with it."""
    spec = spec_of(*(image_of(tmp_path, f"sub-1/anat/sub-1_{name}", data) for name, data in images))
    found = ReadBack()
    failure = read(*staged(tmp_path, spec, check), found)
    return found, failure.what if failure else None


# The bytes.


def test_a_shard_that_came_as_it_was_sent_is_right_and_each_image_in_it_was_read_to_its_end(
    shard: tuple[PublishedShard, bytes],
) -> None:
    line, data = shard
    found, hub = ReadBack(), Sends(data)
    assert found.read(Ahead(hub, (), COMMIT), line, COMMIT) is None  # type: ignore[arg-type]
    assert hub.asked == [(line.path, COMMIT)]
    assert found.size == line.size and found.images == 7


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: data[:100] + bytes([data[100] ^ 1]) + data[101:],
        lambda data: data[:-1],
        lambda data: data + b"\0",
        lambda _: b"",
    ],
    ids=["a bit", "cut", "longer", "nothing"],
)
def test_other_bytes_than_those_of_the_receipt_are_a_failure_whatever_they_are(
    shard: tuple[PublishedShard, bytes], damage: Callable[[bytes], bytes]
) -> None:
    line, data = shard
    came = damage(data)
    what = (
        f"{len(came)} bytes came back, sha256 {hashlib.sha256(came).hexdigest()[:12]}; expected {line.size} bytes, "
        f"{line.sha256[:12]}"
    )
    found = ReadBack()
    assert read(line, came, found) == Failure(
        path=line.path, what=what, cause=Cause.OTHER_BYTES, size=line.size, sha256=line.sha256
    )
    assert found.size == len(came) and not found.images


@pytest.mark.parametrize("facts", [{"size": 1}, {"sha256": "0" * 64}])
def test_size_and_sha256_are_both_compared(shard: tuple[PublishedShard, bytes], facts: dict[str, Any]) -> None:
    line, data = shard
    failure = read(line.model_copy(update=facts), data)
    assert failure is not None and failure.cause is Cause.OTHER_BYTES


def test_what_was_read_at_a_commit_is_not_read_again_there_and_is_at_another_one(
    shard: tuple[PublishedShard, bytes],
) -> None:
    line, data = shard
    other = line.model_copy(update={"path": "data/sub-2/sub-2.parquet"})
    found, hub = ReadBack(), Sends(data)
    for _ in range(2):
        for one, commit in ((line, COMMIT), (line, "d" * 40), (other, COMMIT)):
            assert found.read(Ahead(hub, (), commit), one, commit) is None  # type: ignore[arg-type]
    assert hub.asked == [(line.path, COMMIT), (line.path, "d" * 40), (other.path, COMMIT)]
    assert found.size == 3 * line.size and found.images == 21
    bad = Sends(data[:-1])
    for _ in range(2):
        failure = found.read(Ahead(bad, (), "e" * 40), line, "e" * 40)  # type: ignore[arg-type]
        assert failure is not None and failure.cause is Cause.OTHER_BYTES
    assert len(bad.asked) == 1


# The Parquet file, and the files in it. The shard comes as it was sent, and what was sent is wrong.


def where(table: pa.Table, path: str) -> pa.ChunkedArray:
    return pc.equal(table["path"], path)


def put(table: pa.Table, column: str, value: pa.ChunkedArray) -> pa.Table:
    return table.set_column(table.schema.get_field_index(column), table.schema.field(column), value)


def without(path: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: table.filter(pc.invert(where(table, path)))


def twice(path: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: pa.concat_tables([table, table.filter(where(table, path))])


def renamed(path: str, to: str) -> Callable[[pa.Table], pa.Table]:
    return lambda table: put(table, "path", pc.if_else(where(table, path), to, table["path"]))


def emptied(path: str, column: str) -> Callable[[pa.Table], pa.Table]:
    def empty(table: pa.Table) -> pa.Table:
        cells = table[column].to_pylist()
        left = [None if path == one else cell for one, cell in zip(table["path"].to_pylist(), cells, strict=True)]
        return put(table, column, pa.chunked_array([pa.array(left, table.schema.field(column).type)]))

    return empty


OTHER_BYTES = "came back with other bytes than its source file has"


@pytest.mark.parametrize(
    ("change", "more_rows", "what"),
    [
        (without(T1W), 0, "10 rows came back, expected 11"),
        (twice(T1W), 0, "12 rows came back, expected 11"),
        (without(T1W), -1, f"images missing: {T1W}"),
        (without(EEG), -1, f"files missing: {EEG}"),
        (lambda table: without(EEG)(without(T1W)(table)), -2, f"files missing: {T1W}, {EEG}"),
        (lambda table: without(MASK)(without(T1W)(table)), -2, f"images missing: {T1W}, {MASK}"),
        (twice(T1W), 1, f"the image {T1W} {OTHER_BYTES}"),
        (twice(EEG), 1, f"the recording {EEG} {OTHER_BYTES}"),
        (renamed(T1W, "sub-1/anat/sub-1_T2w.nii.gz"), 0, f"the image sub-1/anat/sub-1_T2w.nii.gz {OTHER_BYTES}"),
        (renamed(EEG, "sub-1/other.txt"), 0, f"the file sub-1/other.txt {OTHER_BYTES}"),
        (renamed(EEG, "sub-1/a_events.tsv"), 0, f"the table sub-1/a_events.tsv {OTHER_BYTES}"),
        (emptied(T1W, "nifti"), 0, f"the image {T1W} {OTHER_BYTES}"),
        (emptied(EEG, "content"), 0, f"the recording {EEG} {OTHER_BYTES}"),
    ],
)  # fmt: skip
def test_a_shard_that_holds_other_files_than_the_record_says_fails_with_what_is_wrong(
    shard: tuple[PublishedShard, bytes], change: Callable[[pa.Table], pa.Table], more_rows: int, what: str
) -> None:
    line, data = shard
    assert line.rows == 11
    data = rewritten(data, change)
    line = sent_as_it_is(line, data, rows=line.rows + more_rows)
    assert read(line, data) == Failure(
        path=line.path, what=what, cause=Cause.CONTENT, size=line.size, sha256=line.sha256
    )


@pytest.mark.parametrize("path", [T1W, EEG, MASK])
def test_a_file_that_is_another_one_in_the_record_fails(shard: tuple[PublishedShard, bytes], path: str) -> None:
    line, data = shard
    images = tuple(replace(one, sha256="0" * 64) if one.path == path else one for one in line.images)
    failure = read(line.model_copy(update={"images": images}), data)
    assert failure is not None and failure.what.endswith(f" {path} {OTHER_BYTES}")


def test_a_file_that_the_record_has_and_the_shard_has_not_is_missing(shard: tuple[PublishedShard, bytes]) -> None:
    line, data = shard
    more = ImageContent(path="sub-1/anat/sub-1_T2w.nii.gz", size=1, sha256="0" * 64)
    failure = read(line.model_copy(update={"images": (*line.images, more)}), data)
    assert failure is not None and failure.what == f"images missing: {more.path}"


def test_whether_images_and_other_files_are_in_one_row_group_or_in_many_is_all_the_same(
    shard: tuple[PublishedShard, bytes],
) -> None:
    line, data = shard
    with pq.ParquetFile(pa.BufferReader(data)) as parquet:
        assert parquet.num_row_groups > 1
    together = rewritten(data, lambda table: table, one_group=True)
    found = ReadBack()
    assert read(sent_as_it_is(line, together), together, found) is None and found.images == 7


def test_of_layout_1_the_images_are_compared_and_a_cell_without_one_is_a_failure(
    shard: tuple[PublishedShard, bytes],
) -> None:
    line, data = shard
    old = as_layout_1(data)
    images = tuple(one for one in line.images if ".nii" in one.path)
    assert read(sent_as_it_is(line, old, rows=len(images), images=images), old) is None
    empty = rewritten(old, emptied(T1W, "nifti"))
    failure = read(sent_as_it_is(line, empty, rows=len(images), images=images), empty)
    assert failure is not None and failure.what == f"the image {T1W} {OTHER_BYTES}"


@pytest.mark.parametrize(
    ("data", "what"),
    [
        (b"no Parquet at all", "it cannot be opened: ArrowInvalid: "),
        (b"", "it cannot be opened: ArrowInvalid: "),
        (b"PAR1" + bytes(100) + (4).to_bytes(4, "little") + b"PAR1", "it cannot be opened: OSError: "),
    ],
    ids=["text", "nothing", "a footer of zeroes"],
)
def test_what_is_no_parquet_file_cannot_be_opened(shard: tuple[PublishedShard, bytes], data: bytes, what: str) -> None:
    line = sent_as_it_is(shard[0], data)
    failure = read(line, data)
    assert failure is not None and failure.cause is Cause.CONTENT
    assert failure.what.startswith(what) and len(failure.what) > len(what) and "None" not in failure.what


def test_a_disk_of_this_machine_that_fails_is_no_failure_of_a_shard(
    shard: tuple[PublishedShard, bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pq, "ParquetFile", fails)
    with pytest.raises(OSError, match="Input/output error"):
        read(*shard)


# The images.


def test_whatever_staging_takes_is_verified(tmp_path: Path) -> None:
    image = nifti1(LARGE) + bytes(16 * 27000)
    images = {
        "T1w.nii.gz": zipped(nifti2(LARGE)),
        "T2w.nii": nifti2(LARGE, order=">"),
        "FLAIR.nii.gz": zipped(changed(image, PIXDIM, "f", float("nan"))),
        "PDw.nii.gz": zipped(changed(image, PIXDIM, "f", 0)),
        "T2star.nii.gz": zipped(changed(image, DATATYPE, "h", 128)),
        "angio.nii.gz": zipped(changed(image, DATATYPE, "h", 1792)),
        "inplaneT1.nii": nifti1((5,)),
        "PDT2.nii.gz": zipped(nifti1(LARGE)) + bytes(512),
        "mask.nii.gz": zipped(nifti1(LARGE)[:700]) + zipped(nifti1(LARGE)[700:]),
    }
    found, wrong = of_images(tmp_path, *images.items())
    assert wrong is None
    assert found.images == len(images)
    assert {shown.suffix for shown in found.slices} < {name.partition(".")[0] for name in images}
    assert len(found.slices) == MAX_SLICES


@pytest.mark.parametrize("shape", [LARGE, (30, 30, 30, 20)])
def test_a_damaged_image_that_was_published_is_named_when_it_is_read_back(tmp_path: Path, shape: Any) -> None:
    data = bytearray(zipped(nifti1(shape)))
    start = int(len(data) * 0.6)
    data[start : start + 512] = bytes(512)
    found, wrong = of_images(tmp_path, ("T1w.nii.gz", bytes(data)), ("T2w.nii", nifti1()), check="trailer")
    assert wrong is not None and wrong.startswith(
        "it is damaged: the image sub-1/anat/sub-1_T1w.nii.gz: its gzip stream"
    )
    assert [shown.suffix for shown in found.slices] in ([], ["T2w"])


def suffixes(found: ReadBack) -> list[str]:
    return [shown.suffix for shown in found.slices]


def images_of(tmp_path: Path, *names: str) -> Sequence[tuple[str, bytes]]:
    return [(name, zipped(nifti1(LARGE, seed=number))) for number, name in enumerate(names)]


def test_one_image_of_each_suffix_is_shown_of_all_shards_together_and_of_no_more_than_five(tmp_path: Path) -> None:
    found = ReadBack()
    for number, names in enumerate(
        (["T1w.nii.gz", "run-2_T1w.nii.gz"], ["T1w.nii.gz", "T2w.nii.gz", "PDw.nii.gz"],
         ["FLAIR.nii.gz", "PDT2.nii.gz", "T2star.nii.gz", "mask.nii.gz"])
    ):  # fmt: skip
        root = tmp_path / str(number)
        spec = spec_of(*(image_of(root, f"sub-1/anat/sub-1_{name}", data) for name, data in images_of(root, *names)))
        assert read(*staged(root, spec), found) is None
    assert suffixes(found) == ["T1w", "T2w", "PDw", "FLAIR", "PDT2"]
    assert found.slices[0].path == "sub-1/anat/sub-1_T1w.nii.gz"
    assert found.images == 9


def test_an_image_that_cannot_be_drawn_leaves_the_picture_to_the_next_of_its_suffix(tmp_path: Path) -> None:
    line = ("run-1_T1w.nii", nifti1((5,)))
    found, wrong = of_images(tmp_path, line, ("run-2_T1w.nii", nifti1(LARGE)))
    assert wrong is None and found.images == 2
    assert [shown.path for shown in found.slices] == ["sub-1/anat/sub-1_run-2_T1w.nii"]


# What is read while another shard is looked at.


class Slow(Sends):
    """A Hub that answers each question late, and knows how many it was asked at the same time."""

    def __init__(self) -> None:
        super().__init__(b"bytes of a shard")
        self.lock = Lock()
        self.under_way = self.most = self.sent = 0
        self.chunks: dict[str, int] = {}
        self.wrong: dict[str, list[Exception]] = {}

    def read_back(self, path: str, commit: str, into: BinaryIO) -> tuple[int, str]:
        with self.lock:
            self.under_way += 1
            self.most = max(self.most, self.under_way)
            wrong = self.wrong[path].pop(0) if self.wrong.get(path) else None
        try:
            for _ in range(self.chunks.get(path, 1)):
                time.sleep(0.02)
                into.write(b"")
                self.sent += 1
        finally:
            with self.lock:
                self.under_way -= 1
        if wrong:
            raise wrong
        return super().read_back(path, commit, into)


def lines(count: int, size: int = 16) -> list[PublishedShard]:
    line = PublishedShard(path="", digest="0" * 64, sha256="0" * 64, size=size, rows=1, images=())
    return [line.model_copy(update={"path": f"data/sub-{number}/sub-{number}.parquet"}) for number in range(count)]


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def taken(ahead: Ahead, shard: PublishedShard) -> bytes:
    with ahead.take(shard).file as file:
        file.seek(0)
        return file.read()


def test_the_next_shards_are_read_while_one_is_looked_at_and_each_of_them_once() -> None:
    hub, shards = Slow(), lines(20)
    with Ahead(hub, shards, COMMIT) as ahead:  # type: ignore[arg-type]
        assert [taken(ahead, shard) for shard in shards] == [hub.data] * 20
    assert hub.most == AT_ONCE
    assert sorted(hub.asked) == sorted((shard.path, COMMIT) for shard in shards)


@pytest.mark.parametrize(("size", "most"), [(AHEAD_BYTES // 2, 3), (AHEAD_BYTES // 2 + 1, 2), (AHEAD_BYTES + 1, 1)])
def test_no_more_of_the_disk_is_taken_ahead_than_it_says(size: int, most: int) -> None:
    hub, shards = Slow(), lines(6, size)
    with Ahead(hub, shards, COMMIT) as ahead:  # type: ignore[arg-type]
        for shard in shards:
            taken(ahead, shard)
    assert hub.most == most  # with the one that is asked for
    assert len(hub.asked) == 6


def test_a_shard_of_which_the_reading_failed_may_be_asked_for_again() -> None:
    hub, (first, second, third) = Slow(), lines(3)
    hub.wrong[second.path] = [HubUnreachable("away"), HubUnreachable("still away")]
    with Ahead(hub, (first, second, third), COMMIT) as ahead:  # type: ignore[arg-type]
        assert taken(ahead, first) == hub.data
        for _ in range(2):
            with pytest.raises(HubUnreachable):
                ahead.take(second)
        assert taken(ahead, second) == taken(ahead, third) == hub.data


def test_a_run_that_ends_waits_for_no_shard_that_is_on_its_way() -> None:
    hub, shards = Slow(), lines(4)
    hub.chunks = {shard.path: 500 for shard in shards[1:]}  # ten seconds for each
    with pytest.raises(KeyboardInterrupt), Ahead(hub, shards, COMMIT) as ahead:  # type: ignore[arg-type]
        taken(ahead, shards[0])
        raise KeyboardInterrupt
    assert hub.sent < 100 and hub.under_way == 0


def test_a_reading_that_ends_early_begins_no_more_and_leaves_no_file_open() -> None:
    before = open_files()
    hub, shards = Slow(), lines(40)
    with pytest.raises(KeyError), Ahead(hub, shards, COMMIT) as ahead:  # type: ignore[arg-type]
        taken(ahead, shards[0])
        raise KeyError("something else")
    assert len(hub.asked) <= 2 * AT_ONCE
    assert open_files() == before
