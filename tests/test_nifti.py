"""What staging takes is what nibabel loads: neither an image less nor one that no reader could use."""

import gzip
import itertools
import math
import struct
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from tasks.bids.decode import Undecodable, decode
from tasks.bids.nifti import layout, nifti_header
from tasks.embed import BadImage, Unloadable, embed
from tests.images import image_of, nifti1, nifti2, zipped
from tests.test_embed import Collected

PATH = "sub-1/anat/sub-1_T1w.nii"
MAKE = {1: nifti1, 2: nifti2}
#: Field -> offset and format, by NIfTI version (nifti1.h, nifti2.h).
FIELDS = {
    1: {"sizeof_hdr": (0, "i"), "rank": (40, "h"), "dim1": (42, "h"), "dim2": (44, "h"), "dim3": (46, "h"),
        "dim4": (48, "h"), "datatype": (70, "h"), "bitpix": (72, "h"), "qfac": (76, "f"), "pixdim1": (80, "f"),
        "vox_offset": (108, "f"), "slope": (112, "f"), "intercept": (116, "f"), "glmin": (144, "i"),
        "qform": (252, "h"), "sform": (254, "h"), "quatern_b": (256, "f"), "srow": (280, "f")},
    2: {"sizeof_hdr": (0, "i"), "datatype": (12, "h"), "bitpix": (14, "h"), "rank": (16, "q"), "dim1": (24, "q"),
        "dim2": (32, "q"), "dim3": (40, "q"), "dim4": (48, "q"), "qfac": (104, "d"), "pixdim1": (112, "d"),
        "vox_offset": (168, "q"), "slope": (176, "d"), "intercept": (184, "d"), "qform": (344, "i"),
        "sform": (348, "i"), "quatern_b": (352, "d"), "srow": (400, "d")},
}  # fmt: skip
CODES = (*range(65), 127, 128, 129, 255, 256, 257, 511, 512, 768, 1024, 1280, 1536, 1792, 2048, 2304, 4096, -1, 32767)


def with_fields(version: int, order: str, **values: float) -> bytes:
    """A small image with other values in its header, and with voxels enough for the largest datatype."""
    data = bytearray(MAKE[version]((2, 3, 2), order=order)[: 352 if version == 1 else 544])
    for name, value in values.items():
        if name in FIELDS[version]:
            at, kind = FIELDS[version][name]
            struct.pack_into(order + kind, data, at, value if kind in "fd" else int(value))
    return bytes(data) + bytes(range(256)) * 16


def nibabel_loads(folder: Path, data: bytes) -> bool:
    """Whether a person can open this file and read all its voxels, and it has dimensions."""
    file = folder / "image.nii"
    file.write_bytes(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image: Any = nibabel.load(file, mmap=False)
            if math.prod(image.shape) * image.get_data_dtype().itemsize > len(data):
                return False  # said without asking: nibabel takes the memory first, and then finds too few bytes
            np.asanyarray(image.dataobj)
    except Exception:  # noqa: BLE001 - whatever it raises, it does not load
        return False
    return bool(1 <= image.header["dim"][0] <= 7 and min(image.shape) >= 0)


def staging_takes(folder: Path, data: bytes) -> bool:
    try:
        embed(image_of(folder, PATH, data), folder, Collected())
    except BadImage:
        return False
    return True


def verification_takes(data: bytes) -> bool:
    try:
        decode(pa.py_buffer(data))
    except Undecodable:
        return False
    return True


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("version", [1, 2])
def test_staging_takes_a_datatype_if_and_only_if_nibabel_loads_it_and_so_does_verification(
    tmp_path: Path, version: int, order: str
) -> None:
    taken = []
    for code, slope in itertools.product(CODES, (0, 1, 2)):
        data = with_fields(version, order, datatype=code, slope=slope)
        loads = nibabel_loads(tmp_path, data)
        assert staging_takes(tmp_path, data) == loads, (code, slope)
        assert verification_takes(data) == loads, (code, slope)
        taken += [code] if loads and slope == 0 else []
    assert {2, 4, 8, 16, 32, 64, 128, 256, 512, 768, 1024, 1280, 1792, 2304} <= set(taken)
    assert not {0, 1, 3, 255, -1, 4096} & set(taken)


NUMBERS = st.one_of(
    st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 352.0, 544.0, 353.0, 368.0, 348.0, 27307.0, 1e30, -1e30]),
    st.sampled_from([float("nan"), float("inf"), float("-inf")]),
)
WHOLE = st.sampled_from([-2, -1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 256, 348, 540, 27307, 32767, -32768])
VALUES = {
    "sizeof_hdr": st.sampled_from([0, 348, 540, 1543569408]),
    "datatype": st.sampled_from(CODES),
    **dict.fromkeys(("rank", "dim1", "dim2", "dim3", "dim4", "bitpix", "qform", "sform", "glmin"), WHOLE),
    **dict.fromkeys(("qfac", "pixdim1", "slope", "intercept", "quatern_b", "srow"), NUMBERS),
}


@pytest.mark.slow
@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    st.sampled_from([1, 2]),
    st.sampled_from("<>"),
    st.dictionaries(st.sampled_from(sorted(VALUES)), st.none(), max_size=4).flatmap(
        lambda chosen: st.fixed_dictionaries({name: VALUES[name] for name in chosen})
    ),
)
@example(1, "<", {"qform": 1, "quatern_b": float("inf"), "sform": -2})  # nibabel takes the sform's code for 0
@example(1, ">", {"qform": 1, "quatern_b": 2.0})
@example(1, "<", {"slope": 1.0, "intercept": float("inf")})
@example(1, "<", {"dim1": -1, "dim2": 1, "dim3": 1, "glmin": 5})  # as FreeSurfer writes a long vector
@example(1, "<", {"sizeof_hdr": 0})
@example(2, "<", {"dim1": -2, "dim2": 0})
def test_whatever_a_header_says_staging_takes_it_if_and_only_if_nibabel_loads_it(
    tmp_path_factory: pytest.TempPathFactory, version: Any, order: Any, values: Any
) -> None:
    folder = tmp_path_factory.getbasetemp()
    data = with_fields(version, order, **values)
    loads = nibabel_loads(folder, data)
    assert staging_takes(folder, data) == loads
    assert verification_takes(data) == loads


NO_NUMBERS = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize(
    ("version", "offset"),
    [*itertools.product([1, 2], [0, 100, 352, 400, 544, 560, 1e4, -16]), *itertools.product([1], NO_NUMBERS)],
)
def test_a_header_that_misplaces_its_voxels_is_taken_where_nibabel_finds_them(
    tmp_path: Path, version: Any, offset: Any
) -> None:
    data = with_fields(version, "<", vox_offset=offset)
    loads = nibabel_loads(tmp_path, data)
    assert staging_takes(tmp_path, data) == loads
    assert verification_takes(data) == loads


@pytest.mark.parametrize("make", [nifti1, nifti2])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(
    "shape", [(5,), (5, 4), (5, 4, 3), (5, 4, 3, 2), (5, 4, 1, 2, 3), (2,) * 6, (2,) * 7, (0, 4, 3)]
)
def test_one_to_seven_dimensions_are_taken(tmp_path: Path, make: Any, order: str, shape: Any) -> None:
    data = make(shape, order=order)
    assert nibabel_loads(tmp_path, data) and staging_takes(tmp_path, data) and verification_takes(data)
    assert layout(pa.BufferReader(data)).shape == shape
    assert nifti_header(data[:544]).size == len(data)


def extended(version: int, *extensions: bytes, flag: int = 1, lie: int = 0) -> bytes:
    """A small image with header extensions."""
    image = MAKE[version]((2, 3, 2))
    first = 352 if version == 1 else 544
    body = b"".join(extensions)
    data = bytearray(image[:first]) + body + image[first:]
    data[first - 4] = flag
    at, kind = FIELDS[version]["vox_offset"]
    struct.pack_into("<" + kind, data, at, first + len(body) + lie)
    return bytes(data)


def extension(size: int, code: int = 6, said: int | None = None) -> bytes:
    return struct.pack("<2i", size if said is None else said, code) + b"a comment"[: size - 8].ljust(size - 8, b" ")


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    "extensions",
    [
        (extension(32),),
        (extension(32), extension(16, code=44)),
        (extension(160_000),),
        (extension(32, said=0),),
        (extension(32, said=3200),),
        (extension(32, said=4),),
        (extension(16),) * 40,
    ],
    ids=["one", "two", "large", "without a size", "longer than there is room", "shorter than its head", "forty"],
)
@pytest.mark.parametrize("zip_it", [False, True])
def test_header_extensions_are_taken_if_and_only_if_nibabel_reads_them(
    tmp_path: Path, version: int, extensions: Any, zip_it: bool
) -> None:
    data = extended(version, *extensions)
    loads = nibabel_loads(tmp_path, data)
    if zip_it:
        image = image_of(tmp_path, PATH + ".gz", gzip.compress(data, 0))
        if loads:
            embed(image, tmp_path, Collected())
        else:
            with pytest.raises(Unloadable):
                embed(image, tmp_path, Collected())
    else:
        assert staging_takes(tmp_path, data) == loads
    assert verification_takes(zipped(data) if zip_it else data) == loads


def test_an_image_that_nibabel_cannot_load_is_named_with_the_reason_and_the_way_out(tmp_path: Path) -> None:
    image = image_of(tmp_path, PATH, with_fields(1, "<", datatype=1))
    with pytest.raises(Unloadable, match=rf"{PATH} cannot be loaded by nibabel \(data code 1 not supported\).*Convert"):
        embed(image, tmp_path, Collected())


def test_the_header_of_a_pair_of_files_in_one_alone_is_no_image(tmp_path: Path) -> None:
    data = bytearray(nifti1())
    data[344:348] = b"ni1\0"
    assert nifti_header(bytes(data)) is None
    assert not staging_takes(tmp_path, bytes(data)) and not verification_takes(bytes(data))


def test_odd_but_loadable_pixdims_are_fine(tmp_path: Path) -> None:
    for value in (float("nan"), 0.0, -1.0, float("inf")):
        for version in (1, 2):
            assert staging_takes(tmp_path, with_fields(version, "<", pixdim1=value)), value
