"""What a page shows of a shard: its first rows and slices, for who may read it, within a budget whatever it holds."""

from __future__ import annotations

import gzip
import hashlib
import io
import itertools
import random
import re
import resource
import struct
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from nibabel.orientations import axcodes2ornt, ornt_transform
from PIL import Image as Pixels

from deployments.local_hub import preview
from deployments.local_hub.preview import Budget, NotShownError, Picture, Preview, nifti
from deployments.local_hub.preview.budget import INFLATE_LIMIT, READ_LIMIT, SECONDS, Source
from tasks.disk.staging import Staging
from tasks.stage import stage
from tasks.values.models import ShardSpec
from tests.images import image_of, nifti1, nifti2, recordings, session, spec_of, zipped
from tests.local_hub.forge import Content
from tests.local_hub.kept_store import KeptStore

SIZE = 24  # voxels of a side
FASTEST = 0.5  # seconds that are allowed over the budget: a busy machine


@dataclass
class Bytes:
    """A file, and what was read of it."""

    data: bytes
    read: list[tuple[int, int]] = field(default_factory=list)

    def __call__(self, start: int, stop: int) -> bytes:
        self.read.append((start, stop))
        return self.data[start:stop]

    @property
    def total(self) -> int:
        return sum(stop - start for start, stop in self.read)


def shown(data: bytes | Bytes) -> Preview:
    read = data if isinstance(data, Bytes) else Bytes(data)
    return preview.of(read, len(read.data), Budget())


def shard_of(folder: Path, spec: ShardSpec) -> bytes:
    receipt = stage(spec, folder / "bids", Staging(folder / "staging"))
    return (folder / "staging" / receipt.file).read_bytes()


def picture_of(data: bytes) -> Picture:
    return nifti.middle_slice(Source(Bytes(data), len(data), Budget()), 0, len(data))


def pixels(picture: Picture) -> Any:
    return np.asarray(Pixels.open(io.BytesIO(picture.png)))


# what is shown


def test_the_first_rows_and_images_of_a_session_are_shown(tmp_path: Path) -> None:
    spec = session(tmp_path / "bids")
    found = shown(shard_of(tmp_path, spec))
    assert found.total == len(spec.images) == 7
    assert [(row.path, row.kind, row.sub, row.ses, row.size) for row in found.rows] == [
        (image.path, "image", "1", "", image.size) for image in spec.images
    ]
    assert list(found.pictures) == [image.path for image in spec.images[:3]]
    assert all(isinstance(picture, Picture) for picture in found.pictures.values())


def test_recordings_have_rows_and_no_picture(tmp_path: Path) -> None:
    spec = recordings(tmp_path / "bids")
    found = shown(shard_of(tmp_path, spec))
    assert [(row.path, row.kind) for row in found.rows] == [(image.path, image.kind) for image in spec.images]
    kinds = {row.path: row.kind for row in found.rows}
    assert set(kinds.values()) == {"image", "recording"}
    assert {kinds[path] for path in found.pictures} == {"image"}


def test_only_the_first_rows_of_a_long_session_are_read(tmp_path: Path) -> None:
    images = [
        image_of(tmp_path / "bids", f"sub-1/func/sub-1_run-{run}_bold.nii.gz", zipped(nifti1((40, 40, 20), seed=run)))
        for run in range(60)
    ]
    read = Bytes(shard_of(tmp_path, spec_of(*images)))
    found = shown(read)
    assert (len(found.rows), found.total, len(found.pictures)) == (preview.ROWS, 60, preview.PICTURES)
    assert read.total < len(read.data) / 4


VOLUME = np.arange(SIZE**3, dtype=np.int16).reshape(SIZE, SIZE, SIZE) % 5
VOLUME[16:, 4:20, 8:16] += 100  # the right half of the patient (RAS+)
VOLUME[4:20, 18:, 8:16] += 50  # what is in front


WAYS = ["".join(way) for axes in itertools.permutations(("RL", "AP", "SI")) for way in itertools.product(*axes)]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("code", ["sform", "qform"])
def test_however_the_axes_lie_the_slice_is_axial_with_the_front_up(way: str, code: str) -> None:
    """A sagittal slice shows a profile."""
    turn = ornt_transform(axcodes2ornt("RAS"), axcodes2ornt(way))
    oriented = nibabel.Nifti1Image(VOLUME, np.eye(4)).as_reoriented(turn)
    made = nibabel.Nifti1Image(np.asanyarray(oriented.dataobj), oriented.affine)
    made.header["sform_code"], made.header["qform_code"] = (1, 0) if code == "sform" else (0, 1)
    seen = pixels(picture_of(gzip.compress(made.to_bytes())))
    assert seen.shape == (SIZE, SIZE)
    axial = VOLUME[:, :, SIZE // 2]
    if "I" in way:
        axial = VOLUME[:, :, SIZE - 1 - SIZE // 2]
    upright = axial.T[::-1].astype(float)
    assert np.corrcoef(seen.ravel(), upright.ravel())[0, 1] > 0.99


KINDS = {
    "NIfTI-1": nifti1((9, 8, 7)), "NIfTI-2": nifti2((9, 8, 7)), "other bytes": nifti1((9, 8, 7), order=">"),
    "four dimensions": nifti1((9, 8, 7, 3)), "NIfTI-2, other bytes": nifti2((9, 8, 7), order=">"),
}  # fmt: skip


def in_parts(data: bytes) -> bytes:
    return gzip.compress(data[:99]) + gzip.compress(b"") + gzip.compress(data[99:])


@pytest.mark.parametrize("data", KINDS.values(), ids=KINDS)
@pytest.mark.parametrize(
    "packed", [bytes, gzip.compress, lambda data: gzip.compress(data[:99]) + gzip.compress(data[99:])]
)
def test_every_kind_of_file_gives_the_slice_that_nibabel_gives(data: bytes, packed: Callable[[bytes], bytes]) -> None:
    kind = nibabel.Nifti2Image if data[4:7] == b"n+2" else nibabel.Nifti1Image
    volume = np.asanyarray(kind.from_bytes(data).dataobj)
    plane = volume.reshape(*volume.shape[:3], -1)[:, :, 3, 0].T[::-1].astype(float)
    seen = pixels(picture_of(packed(data)))
    assert seen.shape == (8, 9)
    assert np.corrcoef(seen.ravel(), plane.ravel())[0, 1] > 0.99


@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f4", "f8", "u8", "i8"])
def test_every_plain_type_of_voxels_is_shown(kind: str) -> None:
    ramp = np.tile(np.arange(60).astype(kind), (40, 5, 1)).transpose(2, 0, 1)
    seen = pixels(picture_of(nibabel.Nifti1Image(ramp, np.eye(4), dtype=np.dtype(kind)).to_bytes()))
    assert seen[0, 0] == 0 and seen[0, -1] == 255 and (np.diff(seen[0].astype(int)) >= 0).all()


def test_what_rises_in_the_file_and_falls_in_the_image_is_shown_as_it_is_meant() -> None:
    data = bytearray(nifti1((9, 8, 7)))
    straight = pixels(picture_of(bytes(data)))
    struct.pack_into("<f", data, 112, -1.0)
    assert (pixels(picture_of(bytes(data))) == 255 - straight).all()


def test_voxels_that_are_no_squares_and_large_slices_have_the_size_that_they_should() -> None:
    image = nibabel.Nifti1Image(np.zeros((700, 500, 3), np.uint8), np.diag([1, 0.5, 1, 1]))
    picture = picture_of(image.to_bytes())
    assert max(pixels(picture).shape) <= nifti.SIDE
    assert picture.width == nifti.SHOWN and abs(picture.width / picture.height - 2.8) < 0.1


def test_no_number_is_a_black_pixel_and_one_value_is_a_picture_too() -> None:
    volume = np.ones((9, 8, 7), np.float32)
    assert pixels(picture_of(nibabel.Nifti1Image(volume, np.eye(4)).to_bytes())).max() == 0
    volume[:4] = [np.nan, np.inf, -np.inf, 0][0]
    volume[5] = np.inf
    seen = pixels(picture_of(nibabel.Nifti1Image(volume, np.eye(4)).to_bytes()))
    assert seen[0, 0] == 0 and seen[0, 5] == 255


def test_a_large_image_is_read_to_the_slice_and_no_further() -> None:
    volume = np.random.default_rng(0).integers(0, 99, (256, 256, 200), dtype=np.int16)
    data = gzip.compress(nibabel.Nifti1Image(volume, np.eye(4)).to_bytes(), 1)
    read = Bytes(data)
    begun = time.process_time()
    nifti.middle_slice(Source(read, len(data), Budget()), 0, len(data))
    assert read.total < 0.55 * len(data)
    assert time.process_time() - begun < 1


# what is hostile


def header(**changes: tuple[str, int, Any]) -> bytes:
    """A NIfTI-1 image of which some fields say something else."""
    data = bytearray(nifti1((9, 8, 7)))
    for layout, offset, value in changes.values():
        struct.pack_into(layout, data, offset, *value)
    return bytes(data)


def of_dimensions(*dim: int, offset: float = 352.0) -> bytes:
    return header(dim=("<8h", 40, dim), offset=("<f", 108, (offset,)))


MILLION = gzip.compress(bytes(1_000_000), mtime=0)


def bomb(size: int, front: bytes = b"") -> bytes:
    """A gzip file of zeros that is a thousandth of what it holds, in parts of a million."""
    return gzip.compress(front) + MILLION * (size // 1_000_000)


def in_one_part(size: int) -> bytes:
    packer = zlib.compressobj(9, wbits=31)
    start = of_dimensions(3, 2000, 2000, 2000, 1, 1, 1, 1)
    return b"".join(packer.compress(each) for each in (start, bytes(size))) + packer.flush()


def wide(*shape: int) -> bytes:
    """A header of a NIfTI-2 image with dimensions that nobody can read."""
    data = bytearray(nifti2((1, 1, 1)))
    struct.pack_into("<8q", data, 16, len(shape), *shape, *[1] * (7 - len(shape)))
    return bytes(data)


HOSTILE: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "text": lambda: b"text" * 100,
    "a cut header": lambda: nifti1()[:100],
    "no voxels": lambda: nifti1()[:352],
    "two files": lambda: header(magic=("4s", 344, (b"ni1\0",))),
    "no dimensions": lambda: of_dimensions(0, 1, 1, 1, 1, 1, 1, 1),
    "too many dimensions": lambda: of_dimensions(8, 1, 1, 1, 1, 1, 1, 1),
    "an empty side": lambda: of_dimensions(3, 9, 0, 7, 1, 1, 1, 1),
    "a negative side": lambda: of_dimensions(3, 9, -8, 7, 1, 1, 1, 1),
    "huge": lambda: of_dimensions(3, 32767, 32767, 32767, 1, 1, 1, 1),
    "huger": lambda: wide(2**62, 2**62, 2**62),
    "endlessly thin": lambda: bomb(3_000_000_000, wide(1, 1, 2**40)),
    "endlessly thin across": lambda: bomb(3_000_000_000, sideways(wide(1, 1, 2**40))),
    "endlessly long": lambda: wide(2**40, 1, 1),
    "colours": lambda: header(kind=("<2h", 70, (128, 24))),
    "complex": lambda: header(kind=("<2h", 70, (32, 64))),
    "an unknown type": lambda: header(kind=("<2h", 70, (31999, 64))),
    "voxels at no number": lambda: header(offset=("<f", 108, (float("nan"),))),
    "voxels at the end of all": lambda: header(offset=("<f", 108, (float("inf"),))),
    "voxels in the header": lambda: header(offset=("<f", 108, (-5.0,))),
    "voxels far away": lambda: bomb(3_000_000_000, header(offset=("<f", 108, (1e12,)))),
    "a bomb": lambda: bomb(3_000_000_000, of_dimensions(3, 2000, 2000, 2000, 1, 1, 1, 1)),
    "a bomb in one part": lambda: in_one_part(300_000_000),
    "a bomb of text": lambda: bomb(100_000_000),
    "empty parts without an end": lambda: gzip.compress(b"", mtime=0) * 500_000,
    "a cut gzip": lambda: gzip.compress(nifti1((64, 64, 64)))[:5000],
    "a broken gzip": lambda: b"\x1f\x8b" + random.Random(0).randbytes(5000),
    "gzip in gzip": lambda: gzip.compress(gzip.compress(nifti1())),
}


def sideways(data: bytes) -> bytes:
    """A NIfTI-2 image whose first axis goes up."""
    changed = bytearray(data)
    struct.pack_into("<i", changed, 348, 1)
    struct.pack_into("<12d", changed, 400, 0, 0, 1, 0, 0, 1, 0, 0, 1, 0, 0, 0)
    return bytes(changed)


@pytest.mark.parametrize("make", HOSTILE.values(), ids=HOSTILE)
def test_an_image_that_is_none_or_too_much_has_no_picture_and_costs_little(make: Callable[[], bytes]) -> None:
    data = make()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    budget = Budget()
    with pytest.raises(NotShownError) as refused:
        nifti.middle_slice(Source(Bytes(data), len(data), budget), 0, len(data))
    assert re.fullmatch(r"(it|its|the) [a-zA-Z :,]+", str(refused.value))
    assert time.process_time() - begun < SECONDS + FASTEST
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000
    assert budget.read > -READ_LIMIT and budget.inflated > -INFLATE_LIMIT / 2


ODD_AND_FINE = {
    "no affine": header(),
    "an affine of nothing": header(code=("<2h", 252, (1, 1)), rows=("<12f", 280, [0.0] * 12)),
    "an affine of no numbers": header(code=("<2h", 252, (1, 1)), rows=("<12f", 280, [float("nan")] * 12)),
    "a turn that is none": header(code=("<2h", 252, (1, 0)), turn=("<3f", 256, (9.0, 9.0, float("inf")))),
    "voxels without a size": header(zooms=("<8f", 76, [0.0] * 8)),
    "voxels of no size": header(zooms=("<8f", 76, [float("nan")] * 8)),
    "voxels like needles": header(zooms=("<8f", 76, [1, 1e-30, 1e30, 1, 1, 1, 1, 1])),
    "a slope of no number": header(slope=("<f", 112, (float("nan"),))),
    "one voxel": nifti1((1, 1, 1)),
    "two dimensions": nifti1((9, 8)),
    "a long line": nifti1((1, 30000, 1)),
}


@pytest.mark.parametrize("data", ODD_AND_FINE.values(), ids=ODD_AND_FINE)
def test_an_odd_header_is_a_picture_of_a_sensible_size(data: bytes) -> None:
    picture = picture_of(data)
    assert 0 < min(picture.width, picture.height) <= max(picture.width, picture.height) == nifti.SHOWN
    assert max(pixels(picture).shape) <= nifti.SIDE


def written(compression: str = "none", **options: Any) -> bytes:
    """A shard as another writer has it."""
    sink = io.BytesIO()
    table = pa.table({"path": ["a", "b"], "kind": ["image", "image"], "size": [1, 2]})
    pq.write_table(table, sink, compression=compression, **options)
    return sink.getvalue()


def footer(data: bytes) -> bytes:
    return b"PAR1" + data + struct.pack("<I", len(data)) + b"PAR1"


NO_SHARDS: dict[str, Callable[[], bytes]] = {
    "nothing": lambda: b"",
    "magic alone": lambda: b"PAR1PAR1",
    "text": lambda: b"text" * 1000,
    "a footer longer than the file": lambda: b"PAR1" + struct.pack("<I", 2**31) + b"PAR1",
    "an empty footer": lambda: footer(b""),
    "a footer of nothing": lambda: footer(b"\0"),
    "deep structs": lambda: footer(b"\x1c" * 5_000_000),
    "deep lists": lambda: footer(b"\x19" + b"\x19" * 5_000_000),
    "many values": lambda: footer(b"\x19\xf5\xff\xff\xff\xff\x07" + b"\x02" * 8_000_000),
    "many fields": lambda: footer(b"\x15\x02" * 4_000_000),
    "a number without an end": lambda: footer(b"\x16" + b"\xff" * 1000),
    "a text longer than all": lambda: footer(b"\x18\xff\xff\xff\xff\x07"),
    "an unknown type": lambda: footer(b"\x1f\x00"),
    "snappy": lambda: written("snappy"),
    "a dictionary": written,
    "pages of version 2": lambda: written(use_dictionary=False, data_page_version="2.0"),
}


@pytest.mark.parametrize("make", NO_SHARDS.values(), ids=NO_SHARDS)
def test_what_is_no_shard_of_ours_has_no_rows_and_costs_little(make: Callable[[], bytes]) -> None:
    data = make()
    before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(NotShownError):
        shown(data)
    assert time.process_time() - begun < SECONDS + FASTEST
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_shard_with_any_byte_changed_is_shown_or_not_and_nothing_else_happens(tmp_path: Path) -> None:
    good = shard_of(tmp_path, session(tmp_path / "bids"))
    draw = random.Random(0)
    outcomes = {"shown": 0, "not shown": 0}
    tail = len(good) - 20_000  # where footer and pages of texts are
    for _ in range(1500):
        data = bytearray(good)
        for _ in range(draw.choice((1, 1, 2, 8))):
            place = draw.randrange(tail, len(data)) if draw.random() < 0.8 else draw.randrange(len(data))
            data[place] = draw.choice((0, 0xFF, data[place] ^ 1 << draw.randrange(8)))
        if draw.random() < 0.1:
            del data[draw.randrange(len(data)) : draw.randrange(len(data))]
        begun = time.process_time()
        try:
            found = shown(bytes(data))
        except NotShownError:
            outcomes["not shown"] += 1
        else:
            outcomes["shown"] += 1
            assert len(found.rows) <= preview.ROWS and len(found.pictures) <= preview.PICTURES
            assert all(len(row.path) <= preview.TEXT for row in found.rows)
        assert time.process_time() - begun < SECONDS + FASTEST
    assert min(outcomes.values()) > 50


def test_the_rows_are_shown_also_where_the_pictures_use_up_the_budget(tmp_path: Path) -> None:
    images = [
        image_of(tmp_path / "bids", f"sub-1/anat/sub-1_run-{run}_T1w.nii", nifti1((50, 50, 50), seed=run))
        for run in range(3)
    ]
    data = shard_of(tmp_path, spec_of(*images))
    found = preview.of(Bytes(data), len(data), Budget(read=10_000))
    assert [row.path for row in found.rows] == [image.path for image in images]
    assert set(found.pictures.values()) == {"it is too large to be shown here"}


# on the page


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KeptStore:
    return KeptStore(tmp_path / "hub", monkeypatch)


@pytest.fixture
def shard(tmp_path: Path) -> bytes:
    colours = header(kind=("<2h", 70, (128, 24))) + bytes(2 * 9 * 8 * 7)
    images = [
        image_of(tmp_path / "bids", "sub-1/anat/sub-1_T1w.nii.gz", zipped(nifti1((30, 40, 20)))),
        image_of(tmp_path / "bids", "sub-1/anat/sub-1_acq-<b>_T2w.nii.gz", zipped(colours)),
    ]
    return shard_of(tmp_path, spec_of(*images))


def page_of(client: Any, repo: str, path: str = "a.parquet", **more: Any) -> Any:
    return client.get(f"/datasets/{repo}/blob/main/{path}", **more)


@pytest.mark.parametrize("way", ["lfs", "xet"])
def test_the_page_of_a_shard_has_its_rows_and_slices(store: KeptStore, shard: bytes, way: str) -> None:
    with store.served() as client:
        repo = store.repo("scans")
        content = Content([shard[start : start + 10_000] for start in range(0, len(shard), 10_000)])
        store.commit(repo, {"a.parquet": store.send(repo, shard) if way == "lfs" else store.send_xet(repo, content)})
        page = page_of(client, repo).text
    assert "<h2>2 files</h2>" in page and '<td class="path">sub-1/anat/sub-1_T1w.nii.gz</td>' in page
    assert page.count("<img") == page.count('src="data:image/png;base64,') == 1
    assert "No picture: its voxels are no plain numbers." in page
    assert "<b>" not in page and "sub-1_acq-&lt;b&gt;_T2w.nii.gz" in page
    assert re.search(r'<td class="n">\d+\.\d kB</td>', page)


def test_who_may_not_read_the_repo_gets_none_of_it_whoever_looked_before(store: KeptStore, shard: bytes) -> None:
    with store.served() as client:
        repo = store.repo("scans")
        store.commit(repo, {"a.parquet": store.send(repo, shard)})
        mine = page_of(client, repo)
        assert "<img" in mine.text and mine.headers["cache-control"] == "no-store"
        for headers in (
            {"authorization": ""},
            {"authorization": f"Bearer {store.hub.accounts.create_token('eve', 'write')}"},
        ):
            theirs = page_of(client, repo, headers=headers)
            assert theirs.status_code in (401, 404) and "<img" not in theirs.text and "T1w" not in theirs.text
        store.ask("POST", f"/api/datasets/{repo}/lfs-files/batch", json={"deletions": {"sha": [sha_of(shard)]}})
        assert page_of(client, repo).status_code == 404


def sha_of(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def test_any_other_parquet_file_and_a_damaged_one_have_a_page_without_rows(store: KeptStore, shard: bytes) -> None:
    with store.served() as client:
        repo = store.repo("scans")
        files = {"a.parquet": store.send(repo, shard), "b.parquet": store.send(repo, written())}
        store.commit(repo, files)
        other = page_of(client, repo, "b.parquet")
        assert other.status_code == 200 and "download" in other.text and "<table" not in other.text
        assert "Its rows are not shown: it is no shard of files as bids-push writes them." in other.text
        lost = store.root / "content" / files["a.parquet"][:2] / files["a.parquet"]
        lost.write_bytes(shard[:1000])
        for spoil in (lambda: None, lost.unlink):
            spoil()
            page = page_of(client, repo)
            assert page.status_code == 200 and "<table" not in page.text
            assert "Its rows are not shown: the store does not have all of it." in page.text


def test_who_comes_when_many_look_gets_the_page_without_rows_at_once(
    store: KeptStore, shard: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    with store.served() as client:
        repo = store.repo("scans")
        store.commit(repo, {"a.parquet": store.send(repo, shard)})
        store.hub.previews_waiting = 4
        assert "Others look at shards just now" in page_of(client, repo).text
        store.hub.previews_waiting = 0
        monkeypatch.setattr(preview, "of", lambda *_: 1 / 0)
        assert page_of(client, repo).status_code == 500
        assert store.hub.previews_waiting == 0
