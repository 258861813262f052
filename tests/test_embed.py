"""An image is read once, and what is wrong with it is said by its name."""

import hashlib
import os
import re
import struct
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.annex import AnnexKey, identifies_content
from tasks.embed import (
    BadImage,
    Changed,
    Check,
    Corrupt,
    Empty,
    KeyMismatch,
    Missing,
    NotNifti,
    TooLarge,
    Truncated,
    Unfetched,
    Unreadable,
    embed,
)
from tasks.embed.formats import nifti_header
from tasks.models import Image, ImageContent
from tests.images import image_at, image_of, nifti1, nifti2, put, sparse, zipped

T1W = "sub-1/anat/sub-1_T1w.nii.gz"


class Collected:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.room = memoryview(bytearray(1000))

    def begin_image(self, size: int) -> None:
        self.size = size

    def write(self, data: memoryview) -> None:
        self.data += data


def embedded(root: Path, image: Image, check: Check = "trailer") -> tuple[ImageContent, bytes]:
    sink = Collected()
    content = embed(image, root, sink, check)
    assert sink.size == len(sink.data)
    return content, sink.data


@pytest.mark.parametrize("check", ["trailer", "full"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("make", [nifti1, nifti2])
@pytest.mark.parametrize("shape", [(4, 5, 6), (9, 9, 9, 20)])
def test_every_kind_of_nifti_arrives_byte_for_byte_with_its_sha256(tmp_path, check, order, make, shape):
    data = make(shape, order=order)
    for path, stored in ((T1W, zipped(data)), ("sub-1/anat/sub-1_T2w.nii", data)):
        content, sent = embedded(tmp_path, image_of(tmp_path, path, stored), check)
        assert sent == stored
        sha256 = hashlib.sha256(stored).hexdigest()
        assert content == ImageContent(path=path, size=len(stored), sha256=sha256, nifti=1 + (make is nifti2))


def test_an_image_behind_an_annex_link_is_read_through_it(tmp_path):
    data = zipped(nifti1())
    put(tmp_path, ".git/annex/objects/aa/bb/KEY/KEY", data)
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    (tmp_path / T1W).symlink_to("../../.git/annex/objects/aa/bb/KEY/KEY")
    assert embedded(tmp_path, image_at(tmp_path, T1W))[1] == data


def planned(path: str = T1W, size: int = 100) -> Image:
    return Image(path, size, 0, "raw", "1", None, "anat", "T1w")


def refused(root: Path, image: Image, kind: type[BadImage], *words: str, check: Check = "trailer") -> None:
    """Embedding raises `kind`, and its message names the file and has the words."""
    with pytest.raises(BadImage) as caught:
        embedded(root, image, check)
    assert type(caught.value) is kind, caught.value
    for word in (image.path, *words):
        assert word in str(caught.value)


def test_an_image_that_is_gone_is_missing(tmp_path):
    refused(tmp_path, planned(), Missing, "not there any more")
    put(tmp_path, "sub-1", b"a file where a folder was")
    refused(tmp_path, planned(), Missing, "not there any more")


def test_an_annex_link_without_content_is_unfetched(tmp_path):
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    (tmp_path / T1W).symlink_to("../../.git/annex/objects/aa/bb/KEY/KEY")
    refused(tmp_path, planned(), Unfetched, f"`git annex get '{T1W}'`", f"`datalad get '{T1W}'`")


def test_any_other_link_to_nothing_is_missing(tmp_path):
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    (tmp_path / T1W).symlink_to("../elsewhere.nii.gz")
    refused(tmp_path, planned(), Missing, "a link to ../elsewhere.nii.gz")


def test_a_pointer_of_an_unlocked_annex_is_unfetched(tmp_path):
    image = image_of(tmp_path, T1W, b"/annex/objects/SHA256E-s100--" + b"0" * 64 + b".nii.gz\n")
    refused(tmp_path, image, Unfetched, "git annex get")


def test_a_pointer_of_git_lfs_is_unfetched(tmp_path):
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 100\n"
    refused(tmp_path, image_of(tmp_path, T1W, pointer), Unfetched, f"git lfs pull --include '{T1W}'")


@pytest.mark.parametrize(
    ("pointer", "way"),
    [
        (b"/annex/objects/SHA256E-s4321--" + b"0" * 64 + b".nii.gz\n", "git annex get"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4321\n", "git lfs pull"),
    ],
)
def test_a_pointer_that_was_planned_with_the_size_of_its_content_is_unfetched_and_not_changed(tmp_path, pointer, way):
    image = image_of(tmp_path, T1W, pointer)
    refused(tmp_path, replace(image, size=4321), Unfetched, way)


def test_a_folder_or_a_pipe_in_the_place_of_an_image_is_unreadable(tmp_path):
    (tmp_path / T1W).mkdir(parents=True)
    refused(tmp_path, planned(), Unreadable, "not a file")
    (tmp_path / T1W).rmdir()
    os.mkfifo(tmp_path / T1W)
    refused(tmp_path, planned(), Unreadable, "not a file")


def test_an_image_that_the_system_does_not_open_is_unreadable(tmp_path):
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    (tmp_path / T1W).symlink_to(tmp_path / T1W)  # a loop
    refused(tmp_path, planned(), Unreadable, "Check its disk")


def test_an_image_without_permission_is_unreadable(tmp_path):
    image = image_of(tmp_path, T1W, zipped(nifti1()))
    (tmp_path / T1W).chmod(0)
    user = os.geteuid()
    if user == 0:  # for whom there is nothing without permission
        os.seteuid(65534)
    try:
        refused(tmp_path, image, Unreadable, "Permission denied", "the user who runs this may read it")
    finally:
        os.seteuid(user)


def test_an_image_without_bytes_is_empty(tmp_path):
    refused(tmp_path, image_of(tmp_path, T1W, b""), Empty, "is empty")


def test_an_image_over_2_gib_is_too_large_and_not_read(tmp_path):
    image = sparse(tmp_path, "sub-1/func/sub-1_bold.nii", 2**31)
    sink = Collected()
    with pytest.raises(TooLarge, match=r"sub-1_bold\.nii .*2 GiB.*\.nii\.gz"):
        embed(image, tmp_path, sink)
    assert sink.data == b""


@pytest.mark.parametrize("check", ["trailer", "full"])
@pytest.mark.parametrize("lost", [1, 4, 8, 3000])
def test_a_truncated_gzip_image_is_truncated(tmp_path, check, lost):
    data = zipped(nifti1((20, 20, 20)))
    refused(tmp_path, image_of(tmp_path, T1W, data[:-lost]), Truncated, "breaks off", check=check)


@pytest.mark.parametrize("make", [nifti1, nifti2])
def test_an_uncompressed_image_shorter_than_its_header_says_is_truncated(tmp_path, make):
    image = image_of(tmp_path, "sub-1/anat/sub-1_T1w.nii", make()[:-1])
    refused(tmp_path, image, Truncated, f"{len(make())} bytes")


@pytest.mark.parametrize("check", ["trailer", "full"])
def test_a_whole_gzip_stream_of_too_few_voxels_is_truncated(tmp_path, check):
    image = image_of(tmp_path, T1W, zipped(nifti1()[:-10]))
    refused(tmp_path, image, Truncated, f"{len(nifti1())} bytes", f"{len(nifti1()) - 10}", check=check)


@pytest.mark.parametrize("check", ["trailer", "full"])
@pytest.mark.parametrize(
    "stored",
    [
        zipped(nifti1()[:500]) + zipped(nifti1()[500:]),
        zipped(nifti1()) + bytes(512),
        zipped(nifti1() + b"behind the voxels"),
        b"".join(zipped(nifti1()[at : at + 100]) for at in range(0, len(nifti1()), 100)) + zipped(b""),
    ],
    ids=["two members", "padded with zeros", "longer than the header says", "as bgzip writes"],
)
def test_an_unusual_gzip_file_that_holds_every_voxel_is_taken(tmp_path, check, stored):
    assert embedded(tmp_path, image_of(tmp_path, T1W, stored), check)[1] == stored


def test_an_image_whose_inflated_size_is_beyond_32_bits_is_taken_by_its_size_modulo_2_to_the_32(tmp_path):
    shape = (2000, 2000, 1000)  # 8 GB of voxels
    start = bytearray(nifti1((1, 1, 1))[:352])
    struct.pack_into("<8h", start, 40, 3, *shape, 1, 1, 1, 1)
    assert nifti_header(bytes(start)) == (1, 352 + 2 * 2000 * 2000 * 1000)
    stored = zipped(bytes(start) + bytes(5000))[:-4] + struct.pack("<I", (352 + 8_000_000_000) % 2**32)
    assert embedded(tmp_path, image_of(tmp_path, T1W, stored))[1] == stored
    refused(tmp_path, image_of(tmp_path, T1W, stored[:-1] + b"?"), Corrupt)


@pytest.mark.parametrize("stored", [b"\x1f\x8b" + bytes(300), zipped(b"no image"), zipped(bytes(400))])
def test_a_gzip_file_that_holds_no_nifti_is_refused(tmp_path, stored):
    with pytest.raises((NotNifti, Corrupt), match=re.escape(T1W)):
        embedded(tmp_path, image_of(tmp_path, T1W, stored))


@pytest.mark.parametrize(
    ("name", "stored", "words"),
    [
        ("sub-1_T1w.nii.gz", nifti1(), "is not gzip, against its name"),
        ("sub-1_T1w.nii", zipped(nifti1()), "is gzip, against its name"),
        ("sub-1_T1w.nii", b"<html>" * 100, "has no NIfTI header"),
    ],
)
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path, name, stored, words):
    refused(tmp_path, image_of(tmp_path, f"sub-1/anat/{name}", stored), NotNifti, words)


def test_a_flipped_bit_passes_the_trailer_and_not_the_full_check(tmp_path):
    data = bytearray(zipped(nifti1((30, 30, 30))))
    data[len(data) // 2] ^= 1
    image = image_of(tmp_path, T1W, bytes(data))
    assert embedded(tmp_path, image)[1] == bytes(data)
    refused(tmp_path, image, Corrupt, "damaged gzip stream", check="full")


def test_garbage_behind_the_gzip_stream_is_damage(tmp_path):
    refused(tmp_path, image_of(tmp_path, T1W, zipped(nifti1()) + b"garbage"), Corrupt, check="full")


@pytest.mark.parametrize("backend", ["SHA256E", "SHA256", "MD5E", "MD5", "SHA1E", "SHA512"])
def test_the_content_is_compared_with_the_digest_in_its_annex_key(tmp_path, backend):
    data = zipped(nifti1())
    extension = ".nii.gz" if backend.endswith("E") else ""
    digest = hashlib.new(backend.removesuffix("E"), data).hexdigest()
    good = f"{backend}-s{len(data)}--{digest}{extension}"
    assert embedded(tmp_path, image_of(tmp_path, T1W, data, annex_key=good))[1] == data
    other = f"{backend}-s{len(data)}--{digest[::-1]}{extension}"
    image = image_of(tmp_path, T1W, data, annex_key=other)
    refused(tmp_path, image, KeyMismatch, digest, digest[::-1], "git annex fsck")


def test_the_size_is_compared_with_the_one_in_the_annex_key(tmp_path):
    data = zipped(nifti1())
    image = image_of(tmp_path, T1W, data, annex_key=f"WORM-s{len(data) + 1}-m1300000000--name")
    refused(tmp_path, image, KeyMismatch, f"{len(data) + 1} bytes")


@pytest.mark.parametrize("key", [None, "", "URL--http&c%%example.org%a--b", "WORM-m13--x", "no key", "SHA3_256-s9--ab"])
def test_a_key_without_a_digest_that_is_known_asks_for_none(key):
    assert AnnexKey.parse(key).digest is None


def test_only_a_key_with_a_digest_identifies_the_content():
    digests = ("MD5E", "SHA1", "SHA256E", "SHA512", "SHA3_256", "SHA3_512E", "SKEIN256E", "BLAKE2B256E", "BLAKE2SP224")
    assert all(identifies_content(f"{backend}-s9--ab.nii.gz") for backend in digests)
    others = (
        "WORM-s9-m1300000000--sub-1_T1w.nii.gz",
        "URL-s9--http&c%%example.org%SHA256-a--b",
        "VURL--a",
        "SHA256",
        "",
        None,
    )
    assert not any(map(identifies_content, others))


def test_a_key_with_every_field_is_read():
    key = AnnexKey.parse("SHA256E-s31390-m1300000000-S10-C2--ABC.tar.gz")
    assert key == AnnexKey(31390, "sha256", "abc")


def test_an_image_that_is_not_as_planned_any_more_has_changed(tmp_path):
    image = image_of(tmp_path, T1W, zipped(nifti1()))
    os.utime(tmp_path / T1W, ns=(0, image.mtime_ns + 1))
    refused(tmp_path, image, Changed, "since it was planned", "Run again")
    image = image_of(tmp_path, T1W, zipped(nifti1()))
    with (tmp_path / T1W).open("ab") as stream:
        stream.write(b"more")
    os.utime(tmp_path / T1W, ns=(0, image.mtime_ns))
    refused(tmp_path, image, Changed, "since it was planned", f"{image.size + 4} now")


class Meanwhile(Collected):
    """A sink during whose first write something happens to the file."""

    def __init__(self, happens) -> None:
        super().__init__()
        self.happens = happens

    def write(self, data: memoryview) -> None:
        super().write(data)
        if self.happens:
            self.happens()
        self.happens = None


def _grow(file: Path) -> None:
    with file.open("ab") as stream:
        stream.write(b"more")


def _shrink(file: Path) -> None:
    os.truncate(file, 2000)


def _edit(file: Path) -> None:
    with file.open("r+b") as stream:
        stream.seek(5000)
        stream.write(b"other")
    os.utime(file, ns=(1, 1))  # the clock of a file system may be too coarse for so quick a change


def _replace(file: Path) -> None:
    other = put(file.parent, "other", zipped(nifti1((20, 20, 20), seed=9)))
    other.replace(file)


@pytest.mark.parametrize("happens", [_grow, _shrink, _edit, _replace, Path.unlink])
def test_an_image_that_changes_while_it_is_read_is_refused(tmp_path, happens):
    image = image_of(tmp_path, T1W, zipped(nifti1((20, 20, 20))))
    sink = Meanwhile(lambda: happens(tmp_path / T1W))
    with pytest.raises(Changed, match=f"{re.escape(T1W)} .*while it was read.*Run again"):
        embed(image, tmp_path, sink)
    assert len(sink.data) <= image.size
