"""One image is read to its end, and what is wrong with it is said; a picture that cannot be drawn is a missing one."""

import io
import struct
import subprocess
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pytest
from PIL import Image as Picture

from deployments.local_stack import REPO
from tasks.bids.decode import SLAB, Undecodable, decode, picture
from tasks.bids.pictures import axial_slice
from tests.images import nifti1, nifti2, zipped

NAME = "sub-1/func/sub-1_bold.nii.gz"
LARGE = (30, 30, 30)


def wrong(data: bytes) -> str:
    """What decoding says is wrong."""
    with pytest.raises(Undecodable) as caught:
        decode(pa.py_buffer(data))
    return str(caught.value)


def drawn(data: bytes, suffix: str = "T1w") -> np.ndarray | None:
    shown = picture(NAME, suffix, pa.py_buffer(data))
    return None if shown is None else np.asarray(Picture.open(io.BytesIO(shown.png)))


def changed(data: bytes, at: int, kind: str, value: float) -> bytes:
    return data[:at] + struct.pack(f"<{kind}", value) + data[at + struct.calcsize(kind) :]


@pytest.mark.parametrize("make", [nifti1, nifti2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("zip_it", [False, True])
def test_both_versions_in_both_byte_orders_are_read_and_shown(make: Any, order: str, zip_it: bool) -> None:
    data = make((4, 5, 6, 3), order=order)
    data = zipped(data) if zip_it else data
    decode(pa.py_buffer(data))
    assert drawn(data) is not None
    assert (drawn(data) == drawn(nifti1((4, 5, 6, 3)))).all()


def test_what_pads_or_follows_an_image_is_no_damage() -> None:
    image = nifti1(LARGE)
    for data in (
        image + b"more",
        zipped(image + b"more"),
        zipped(image) + bytes(512),
        zipped(image[:500]) + zipped(image[500:]),
        zipped(image) + zipped(b""),
    ):
        decode(pa.py_buffer(data))


@pytest.mark.parametrize("shape", [LARGE, (30, 30, 30, 20)])
@pytest.mark.parametrize("at", [0.3, 0.6, 0.95])
def test_zeroed_bytes_within_a_gzip_stream_are_damage_in_whichever_volume(shape: Any, at: float) -> None:
    data = bytearray(zipped(nifti1(shape)))
    start = int(len(data) * at)
    data[start : start + 512] = bytes(len(data[start : start + 512]))
    assert "gzip stream" in wrong(bytes(data))


def test_the_crc_and_the_size_of_every_member_are_compared() -> None:
    image = nifti1(LARGE)
    first, second = zipped(image[:5000]), zipped(image[5000:])
    for end in (len(first), len(first) + len(second)):
        for back in (1, 8):  # the size in the last four bytes, the CRC before them
            data = bytearray(first + second)
            data[end - back] ^= 1
            assert "its gzip stream is damaged" in wrong(bytes(data))


def test_damage_behind_the_voxels_is_damage_too() -> None:
    data = bytearray(zipped(nifti1(LARGE)) + zipped(bytes(range(256)) * 40))
    data[-7] ^= 1
    assert "its gzip stream is damaged" in wrong(bytes(data))


def test_an_image_that_ends_early_is_named_so() -> None:
    image = nifti1(LARGE)
    assert "breaks off" in wrong(zipped(image)[:-3000])
    assert "breaks off" in wrong(zipped(image)[:-3])
    for data in (image[:-1], zipped(image[:-1])):
        assert "cannot be read to its end" in wrong(data)


@pytest.mark.parametrize("zip_it", [False, True])
def test_an_image_of_several_slabs_that_lacks_its_last_byte_ends_early(zip_it: bool) -> None:
    data = nifti1((100, 100, 3 * SLAB // 10_000))[:-1]
    assert "cannot be read to its end" in wrong(zipped(data) if zip_it else data)


def test_what_is_no_image_and_what_nibabel_cannot_load_is_named_so() -> None:
    assert wrong(b"no image") == "nibabel cannot load it: it has no NIfTI header"
    assert "no NIfTI header" in wrong(zipped(b"no image"))
    assert "no NIfTI header" in wrong(b"")
    data = bytearray(nifti1())
    struct.pack_into("<h", data, 70, 1)
    assert wrong(bytes(data)) == "nibabel cannot load it: data code 1 not supported"


def test_a_long_series_is_read_without_holding_it() -> None:
    shape = (64, 64, 40, 100)  # 33 MB, and 131 MB as floats of nibabel
    header = bytearray(nifti1(shape)[:352])
    struct.pack_into("<2f", header, 112, 2.0, 1.0)
    data = pa.py_buffer(zipped(bytes(header) + bytes(2 * 64 * 64 * 40 * 100)))
    decode(data)
    tracemalloc.start()
    decode(data)
    assert tracemalloc.get_traced_memory()[1] < 16e6
    tracemalloc.stop()


PIXDIM, DATATYPE = 80, 70


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 0.0, -1.0, 1e-30, 1e30])
def test_a_pixdim_that_is_no_size_costs_the_proportions_and_not_the_verification(value: Any) -> None:
    data = bytearray(nifti1(LARGE))
    struct.pack_into("<f", data, PIXDIM, value)
    decode(pa.py_buffer(bytes(data)))
    assert drawn(bytes(data)) is not None


@pytest.mark.parametrize("code", [32, 128, 1792, 2304])
def test_a_datatype_without_a_grey_picture_is_read_and_not_shown(code: int) -> None:
    data = bytearray(nifti1(LARGE) + bytes(2 * 16 * 27000))
    struct.pack_into("<h", data, DATATYPE, code)
    decode(pa.py_buffer(bytes(data)))
    assert drawn(bytes(data)) is None


@pytest.mark.parametrize("fill", [np.nan, np.inf, -np.inf, 1e300])
def test_voxels_that_are_no_numbers_are_read_and_shown_without_a_word(
    fill: Any, recwarn: pytest.WarningsRecorder
) -> None:
    voxels = np.random.default_rng(1).normal(size=LARGE)
    voxels[10:20] = fill
    data = nibabel.Nifti1Image(voxels, np.eye(4)).to_bytes()
    decode(pa.py_buffer(data))
    assert drawn(data) is not None
    assert not recwarn.list


@pytest.mark.parametrize("shape", [(5,), (5, 4), (0, 4, 3), (5, 4, 3, 2, 2), (1, 1, 1)])
def test_images_of_any_shape_are_read_and_shown_where_they_have_slices(shape: tuple[int, ...]) -> None:
    data = nifti1(shape)
    decode(pa.py_buffer(data))
    assert (drawn(data) is not None) == (len(shape) > 2 and 0 not in shape)


def test_what_cannot_be_read_is_not_shown() -> None:
    assert drawn(b"no image") is None
    assert drawn(zipped(nifti1(LARGE))[:3000]) is None


def test_a_header_that_speaks_of_more_than_any_machine_holds_takes_no_memory(tmp_path: Path) -> None:
    data = bytearray(nifti1(LARGE))
    struct.pack_into("<3h", data, 42, 32767, 32767, 32767)
    (tmp_path / "a_mask.nii").write_bytes(data)
    tracemalloc.start()
    assert "cannot be read to its end" in wrong(bytes(data))
    for suffix in ("T1w", "mask"):
        assert drawn(bytes(data), suffix) is None
        assert axial_slice(tmp_path / "a_mask.nii", suffix) is None
    assert tracemalloc.get_traced_memory()[1] < 64e6
    tracemalloc.stop()


def test_of_a_mask_the_fullest_slice_is_shown() -> None:
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 1] = 1
    data = zipped(nibabel.Nifti1Image(mask, np.eye(4)).to_bytes())
    assert drawn(data, "mask").max() == 255
    assert drawn(data, "T1w").max() == 0


def test_nothing_is_said_to_the_terminal_about_a_header_that_nibabel_mends() -> None:
    data = bytearray(nifti1(LARGE))
    struct.pack_into("<f", data, PIXDIM, 0.0)
    code = f"import pyarrow as pa; from tasks.bids.decode import decode, picture; data = pa.py_buffer({bytes(data[:400])!r} + bytes(60000)); decode(data); picture('a', 'T1w', data)"  # noqa: E501
    done = subprocess.run([sys.executable, "-c", code], cwd=REPO, capture_output=True, text=True, check=True)
    assert done.stdout == done.stderr == ""
