"""An image is read once, and what is wrong with it is said by its name."""

import hashlib
import os
import re
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.bids.annex import AnnexKey, identifies_content
from tasks.bids.nifti import nifti_header
from tasks.embed import (
    BadImage,
    Changed,
    Check,
    Corrupt,
    Empty,
    KeyMismatch,
    Missing,
    NotGzip,
    NotNifti,
    TooLarge,
    Truncated,
    Unfetched,
    Unreadable,
    embed,
)
from tasks.values.models import Image, ImageContent
from tests.images import image_at, image_of, nifti1, nifti2, put, recorded, sparse, zipped

T1W = "sub-1/anat/sub-1_T1w.nii.gz"
EEG = "sub-1/eeg/sub-1_task-rest_eeg.edf"
PHYSIO = "sub-1/func/sub-1_task-rest_physio.tsv.gz"
MEG = "sub-1/meg/sub-1_task-rest_meg.ds"


class Collected:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.data = b""
        self.buffer = memoryview(bytearray(1000))

    def begin_file(self, size: int, kind: str) -> None:
        self.size = size

    def write(self, data: memoryview) -> None:
        self.data += data


def embedded(root: Path, image: Image, check: Check = "full") -> tuple[ImageContent, bytes]:
    sink = Collected()
    content = embed(image, root, sink, check)
    assert sink.size == len(sink.data)
    return content, sink.data


@pytest.mark.parametrize("check", ["trailer", "full"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("make", [nifti1, nifti2])
@pytest.mark.parametrize("shape", [(4, 5, 6), (9, 9, 9, 20)])
def test_every_kind_of_nifti_arrives_byte_for_byte_with_its_sha256(
    tmp_path: Path, check: Any, order: str, make: Any, shape: tuple[int, ...]
) -> None:
    data = make(shape, order=order)
    for path, stored in ((T1W, zipped(data)), ("sub-1/anat/sub-1_T2w.nii", data)):
        content, sent = embedded(tmp_path, image_of(tmp_path, path, stored), check)
        assert sent == stored
        sha256 = hashlib.sha256(stored).hexdigest()
        assert content == ImageContent(path=path, size=len(stored), sha256=sha256, nifti=2 if make is nifti2 else 1)


def test_an_image_behind_an_annex_link_is_read_through_it(tmp_path: Path) -> None:
    data = zipped(nifti1())
    put(tmp_path, ".git/annex/objects/aa/bb/KEY/KEY", data)
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    (tmp_path / T1W).symlink_to("../../.git/annex/objects/aa/bb/KEY/KEY")
    assert embedded(tmp_path, image_at(tmp_path, T1W))[1] == data


def planned(path: str = T1W, size: int = 100) -> Image:
    return Image(path, size, 0, "raw", "1", None, "anat", "T1w")


def refused(root: Path, image: Image, kind: type[BadImage], *words: str, check: Check = "full") -> None:
    """Embedding raises `kind`, and its message names the file and has the words."""
    with pytest.raises(BadImage) as caught:
        embedded(root, image, check)
    assert type(caught.value) is kind, caught.value
    for word in (image.path, *words):
        assert word in str(caught.value)


def test_an_image_that_is_gone_is_missing(tmp_path: Path) -> None:
    refused(tmp_path, planned(), Missing, "not there any more")
    put(tmp_path, "sub-1", b"a file where a folder was")
    refused(tmp_path, planned(), Missing, "not there any more")


def test_an_annex_link_without_content_is_unfetched(tmp_path: Path) -> None:
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    (tmp_path / T1W).symlink_to("../../.git/annex/objects/aa/bb/KEY/KEY")
    refused(tmp_path, planned(), Unfetched, f"`git annex get '{T1W}'`", f"`datalad get '{T1W}'`")


def test_any_other_link_to_nothing_is_missing(tmp_path: Path) -> None:
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    (tmp_path / T1W).symlink_to("../elsewhere.nii.gz")
    refused(tmp_path, planned(), Missing, "a link to ../elsewhere.nii.gz")


def test_a_dataset_whose_whole_folder_went_away_says_so_and_not_that_a_file_is_missing(tmp_path: Path) -> None:
    image = image_of(tmp_path / "bids", "sub-1/anat/sub-1_T1w.nii", nifti1())
    (tmp_path / "bids").rename(tmp_path / "unmounted")
    refused(tmp_path / "bids", image, Missing, f"the dataset's folder {tmp_path / 'bids'} is gone. Mount")


def test_a_pointer_of_an_unlocked_annex_is_unfetched(tmp_path: Path) -> None:
    image = image_of(tmp_path, T1W, b"/annex/objects/SHA256E-s100--" + b"0" * 64 + b".nii.gz\n")
    refused(tmp_path, image, Unfetched, "git annex get")


def test_a_pointer_of_git_lfs_is_unfetched(tmp_path: Path) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 100\n"
    refused(tmp_path, image_of(tmp_path, T1W, pointer), Unfetched, f"git lfs pull --include '{T1W}'")


@pytest.mark.parametrize(
    ("pointer", "way"),
    [
        (b"/annex/objects/SHA256E-s4321--" + b"0" * 64 + b".nii.gz\n", "git annex get"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4321\n", "git lfs pull"),
    ],
)
def test_a_pointer_that_was_planned_with_the_size_of_its_content_is_unfetched_and_not_changed(
    tmp_path: Path, pointer: bytes, way: str
) -> None:
    image = image_of(tmp_path, T1W, pointer)
    refused(tmp_path, replace(image, size=4321), Unfetched, way)


def test_a_folder_or_a_pipe_in_the_place_of_an_image_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / T1W).mkdir(parents=True)
    refused(tmp_path, planned(), Unreadable, "not a file")
    (tmp_path / T1W).rmdir()
    os.mkfifo(tmp_path / T1W)
    refused(tmp_path, planned(), Unreadable, "not a file")


def test_an_image_that_the_system_does_not_open_is_unreadable(tmp_path: Path) -> None:
    (tmp_path / "sub-1/anat").mkdir(parents=True)
    (tmp_path / T1W).symlink_to(tmp_path / T1W)  # a loop
    refused(tmp_path, planned(), Unreadable, "Check its disk")


def test_an_image_without_permission_is_unreadable(tmp_path: Path) -> None:
    image = image_of(tmp_path, T1W, zipped(nifti1()))
    (tmp_path / T1W).chmod(0)
    user = os.geteuid()
    if user == 0:  # for whom there is nothing without permission
        os.seteuid(65534)
    try:
        refused(tmp_path, image, Unreadable, "Permission denied", "the user who runs this may read it")
    finally:
        os.seteuid(user)


def test_an_image_without_bytes_is_empty(tmp_path: Path) -> None:
    refused(tmp_path, image_of(tmp_path, T1W, b""), Empty, "is empty")


def test_an_image_over_2_gib_is_too_large_and_not_read(tmp_path: Path) -> None:
    image = sparse(tmp_path, "sub-1/func/sub-1_bold.nii", 2**31)
    sink = Collected()
    with pytest.raises(TooLarge, match=r"sub-1_bold\.nii .*2 GiB.*\.nii\.gz"):
        embed(image, tmp_path, sink)
    assert sink.data == b""


@pytest.mark.parametrize("check", ["trailer", "full"])
@pytest.mark.parametrize("lost", [1, 4, 8, 3000])
def test_a_truncated_gzip_image_is_truncated(tmp_path: Path, check: Any, lost: int) -> None:
    data = zipped(nifti1((20, 20, 20)))
    refused(tmp_path, image_of(tmp_path, T1W, data[:-lost]), Truncated, "breaks off", check=check)


@pytest.mark.parametrize("make", [nifti1, nifti2])
def test_an_uncompressed_image_shorter_than_its_header_says_is_truncated(tmp_path: Path, make: Any) -> None:
    image = image_of(tmp_path, "sub-1/anat/sub-1_T1w.nii", make()[:-1])
    refused(tmp_path, image, Truncated, f"{len(make())} bytes")


@pytest.mark.parametrize("check", ["trailer", "full"])
def test_a_whole_gzip_stream_of_too_few_voxels_is_truncated(tmp_path: Path, check: Any) -> None:
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
def test_an_unusual_gzip_file_that_holds_every_voxel_is_taken(tmp_path: Path, check: Any, stored: Any) -> None:
    assert embedded(tmp_path, image_of(tmp_path, T1W, stored), check)[1] == stored


def test_an_image_whose_inflated_size_is_beyond_32_bits_is_taken_by_its_size_modulo_2_to_the_32(tmp_path: Path) -> None:
    shape = (2000, 2000, 1000)  # 8 GB of voxels
    start = bytearray(nifti1((1, 1, 1))[:352])
    struct.pack_into("<8h", start, 40, 3, *shape, 1, 1, 1, 1)
    assert nifti_header(bytes(start)) == (1, 352 + 2 * 2000 * 2000 * 1000)
    stored = zipped(bytes(start) + bytes(5000))[:-4] + struct.pack("<I", (352 + 8_000_000_000) % 2**32)
    assert embedded(tmp_path, image_of(tmp_path, T1W, stored), "trailer")[1] == stored
    refused(tmp_path, image_of(tmp_path, T1W, stored[:-1] + b"?"), Corrupt, check="trailer")


@pytest.mark.parametrize("stored", [b"\x1f\x8b" + bytes(300), zipped(b"no image"), zipped(bytes(400))])
def test_a_gzip_file_that_holds_no_nifti_is_refused(tmp_path: Path, stored: Any) -> None:
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
def test_a_file_that_is_not_what_its_name_says_is_refused(tmp_path: Path, name: str, stored: Any, words: str) -> None:
    refused(tmp_path, image_of(tmp_path, f"sub-1/anat/{name}", stored), NotNifti, words)


def test_a_flipped_bit_is_damage_and_only_the_trailer_does_not_see_it(tmp_path: Path) -> None:
    data = bytearray(zipped(nifti1((30, 30, 30))))
    data[len(data) // 2] ^= 1
    image = image_of(tmp_path, T1W, bytes(data))
    assert embedded(tmp_path, image, "trailer")[1] == bytes(data)
    refused(tmp_path, image, Corrupt, "damaged gzip stream")


@pytest.mark.parametrize("shape", [(40, 40, 40), (30, 30, 30, 8)])
@pytest.mark.parametrize("at", [0.2, 0.5, 0.9])
def test_512_zeroed_bytes_within_an_image_are_damage(tmp_path: Path, shape: tuple[int, ...], at: float) -> None:
    data = bytearray(zipped(nifti1(shape)))
    start = int(len(data) * at)
    data[start : start + 512] = bytes(512)
    refused(tmp_path, image_of(tmp_path, T1W, bytes(data)), Corrupt, "damaged gzip stream", "Restore it")


@pytest.mark.parametrize("member", [0, 1])
@pytest.mark.parametrize("back", [1, 8])
def test_the_crc_and_the_size_of_every_gzip_member_are_compared(tmp_path: Path, member: int, back: int) -> None:
    members = [bytearray(zipped(nifti1()[:200])), bytearray(zipped(nifti1()[200:]))]
    members[member][-back] ^= 1  # the size is in the last four bytes, the CRC in those before
    refused(tmp_path, image_of(tmp_path, T1W, b"".join(members)), Corrupt)


def test_garbage_behind_the_gzip_stream_is_damage(tmp_path: Path) -> None:
    refused(tmp_path, image_of(tmp_path, T1W, zipped(nifti1()) + b"garbage"), Corrupt)


def test_an_image_is_read_once_whatever_its_gzip_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    readv = os.readv
    monkeypatch.setattr(os, "readv", lambda descriptor, rooms: (read.append(n := readv(descriptor, rooms)), n)[1])  # type: ignore[func-returns-value]
    image = nifti1()
    for data in (zipped(nifti1((20, 20, 20))), zipped(image[:500]) + zipped(image[500:]), zipped(image) + bytes(9)):
        read.clear()
        embedded(tmp_path, image_of(tmp_path, T1W, data))
        assert sum(read) == len(data)


#: git-annex's backend -> the digest of some bytes, as coreutils and OpenSSL compute it.
DIGESTS: dict[str, Any] = {
    "MD5": hashlib.md5, "SHA1": hashlib.sha1, "SHA224": hashlib.sha224, "SHA256": hashlib.sha256,
    "SHA384": hashlib.sha384, "SHA512": hashlib.sha512, "SHA3_224": hashlib.sha3_224, "SHA3_256": hashlib.sha3_256,
    "SHA3_384": hashlib.sha3_384, "SHA3_512": hashlib.sha3_512,
    "BLAKE2B160": lambda data: hashlib.blake2b(data, digest_size=20),
    "BLAKE2B224": lambda data: hashlib.blake2b(data, digest_size=28),
    "BLAKE2B256": lambda data: hashlib.blake2b(data, digest_size=32),
    "BLAKE2B384": lambda data: hashlib.blake2b(data, digest_size=48),
    "BLAKE2B512": hashlib.blake2b,
    "BLAKE2S160": lambda data: hashlib.blake2s(data, digest_size=20),
    "BLAKE2S224": lambda data: hashlib.blake2s(data, digest_size=28),
    "BLAKE2S256": hashlib.blake2s,
}  # fmt: skip


@pytest.mark.parametrize("backend", [name + e for name in DIGESTS for e in ("", "E")])
def test_the_content_is_compared_with_the_digest_in_its_annex_key(tmp_path: Path, backend: Any) -> None:
    data = zipped(nifti1())
    extension = ".nii.gz" if backend.endswith("E") else ""
    digest = DIGESTS[backend.removesuffix("E")](data).hexdigest()
    good = f"{backend}-s{len(data)}--{digest}{extension}"
    assert embedded(tmp_path, image_of(tmp_path, T1W, data, annex_key=good))[1] == data
    other = f"{backend}-s{len(data)}--{digest[::-1]}{extension}"
    image = image_of(tmp_path, T1W, data, annex_key=other)
    refused(tmp_path, image, KeyMismatch, digest, digest[::-1], "git annex fsck")


def test_the_size_is_compared_with_the_one_in_the_annex_key(tmp_path: Path) -> None:
    data = zipped(nifti1())
    image = image_of(tmp_path, T1W, data, annex_key=f"WORM-s{len(data) + 1}-m1300000000--name")
    refused(tmp_path, image, KeyMismatch, f"{len(data) + 1} bytes")


@pytest.mark.parametrize(
    "key", [None, "", "URL--http&c%%example.org%a--b", "WORM-m13--x", "no key", "SKEIN256E-s9--ab"]
)
def test_a_key_without_a_digest_that_is_known_asks_for_none(key: str | None) -> None:
    assert AnnexKey.parse(key).digest is None


def test_only_a_key_whose_digest_can_be_computed_identifies_the_content() -> None:
    assert all(identifies_content(f"{backend}{e}-s9--ab.nii.gz") for backend in DIGESTS for e in ("", "E"))
    others = (
        "SKEIN256E-s9--ab.nii.gz",
        "SKEIN512-s9--ab",
        "BLAKE2BP512E-s9--ab.nii.gz",
        "BLAKE2SP224-s9--ab",
        "BLAKE2B-s9--ab",
        "XBLAKE3-s9--ab",
        "SHA3-s9--ab",
        "WORM-s9-m1300000000--sub-1_T1w.nii.gz",
        "URL-s9--http&c%%example.org%SHA256-a--b",
        "VURL--a",
        "SHA256",
        "",
        None,
    )
    assert not any(map(identifies_content, others))


def test_a_key_with_every_field_is_read() -> None:
    key = AnnexKey.parse("SHA256E-s31390-m1300000000-S10-C2--ABC.tar.gz")
    assert key == AnnexKey(31390, "sha256", "abc")


def test_an_image_that_is_not_as_planned_any_more_has_changed(tmp_path: Path) -> None:
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

    def __init__(self, happens: Any) -> None:
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
def test_an_image_that_changes_while_it_is_read_is_refused(tmp_path: Path, happens: Any) -> None:
    image = image_of(tmp_path, T1W, zipped(nifti1((20, 20, 20))))
    sink = Meanwhile(lambda: happens(tmp_path / T1W))
    with pytest.raises(Changed, match=f"{re.escape(T1W)} .*while it was read.*Run again"):
        embed(image, tmp_path, sink)
    assert len(sink.data) <= image.size


class AfterIt(Collected):
    """A sink that, when it has all of an image, does something to the file whose mtime it then sets back."""

    def __init__(self, file: Path, happens: Any) -> None:
        super().__init__()
        self.file, self.happens = file, happens

    def write(self, data: memoryview) -> None:
        super().write(data)
        status = self.file.stat()
        if len(self.data) == status.st_size:
            while self.file.stat().st_ctime_ns == status.st_ctime_ns:  # the clock of a file system may be coarse
                self.happens(self.file)
                os.utime(self.file, ns=(status.st_atime_ns, status.st_mtime_ns))


def test_an_image_edited_while_it_is_read_is_refused_also_where_its_mtime_was_set_back(tmp_path: Path) -> None:
    image = image_of(tmp_path, T1W, zipped(nifti1((20, 20, 20))))

    def other(file: Path) -> None:
        with file.open("r+b") as stream:
            stream.seek(5000)
            stream.write(b"other")

    with pytest.raises(Changed, match=f"{re.escape(T1W)} changed while it was read: .*its bytes are others.*Run again"):
        embed(image, tmp_path, AfterIt(tmp_path / T1W, other))


@pytest.mark.parametrize(
    "harmless",
    [lambda file: file.chmod(0o600), lambda file: (file.parent / f"{os.urandom(4).hex()}.backup").hardlink_to(file)],
    ids=["other rights", "a backup by hard link"],
)
def test_what_touches_no_byte_is_no_change_while_an_image_is_read(tmp_path: Path, harmless: Callable[..., Any]) -> None:
    data = zipped(nifti1((20, 20, 20)))
    image = image_of(tmp_path, T1W, data)
    sink = AfterIt(tmp_path / T1W, harmless)
    assert embed(image, tmp_path, sink).sha256 == hashlib.sha256(data).hexdigest()
    assert (tmp_path / T1W).stat().st_ctime_ns != image.ctime_ns


# ---- files of recordings ----


@pytest.mark.parametrize("check", ["trailer", "full"])
@pytest.mark.parametrize(
    ("path", "data"),
    [
        (EEG, bytes(range(256)) * 20),
        (EEG, b"0"),
        (PHYSIO, zipped(b"1.0\t2.0\n" * 5000)),
        (PHYSIO, zipped(b"1.0\n") + zipped(b"2.0\n")),  # two gzip members
        (f"{MEG}/sub-1_task-rest_meg.meg4", b"MEG42CP\0" + bytes(9000)),
        (f"{MEG}/inner.gz", b"no gzip, and nobody said so: a name within a recording is the maker's own"),
        (EEG, zipped(b"a recording that is gzip, with a name that does not say so")),
    ],
)
def test_a_file_of_a_recording_arrives_byte_for_byte_with_its_sha256(
    tmp_path: Path, check: Any, path: str, data: bytes
) -> None:
    content, sent = embedded(tmp_path, recorded(tmp_path, path, data), check)
    assert sent == data
    assert content == ImageContent(path=path, size=len(data), sha256=hashlib.sha256(data).hexdigest(), nifti=1)


@pytest.mark.parametrize("check", ["trailer", "full"])
def test_damage_within_a_gzip_table_of_a_recording_is_found_whatever_the_check(tmp_path: Path, check: Any) -> None:
    data = bytearray(zipped(os.urandom(5000)))
    data[-6] ^= 1  # of the CRC
    refused(tmp_path, recorded(tmp_path, PHYSIO, bytes(data)), Corrupt, "damaged gzip stream", "Restore", check=check)


@pytest.mark.parametrize("check", ["trailer", "full"])
@pytest.mark.parametrize("lost", [1, 8, 3000])
def test_a_gzip_table_of_a_recording_that_was_cut_off_is_truncated(tmp_path: Path, check: Any, lost: int) -> None:
    data = zipped(os.urandom(5000))[:-lost]
    refused(tmp_path, recorded(tmp_path, PHYSIO, data), Truncated, "its gzip stream breaks off", check=check)


def test_a_recording_named_gz_that_is_no_gzip_is_refused_without_a_word_of_nifti(tmp_path: Path) -> None:
    recording = recorded(tmp_path, PHYSIO, b"1.0\t2.0\n" * 50)
    refused(tmp_path, recording, NotGzip, "is not gzip, against its name", "`exclude`")
    with pytest.raises(NotGzip) as caught:
        embedded(tmp_path, recording)
    assert "nifti" not in str(caught.value).lower()
    assert "image" not in str(caught.value)


def test_a_recording_without_bytes_is_empty_and_a_file_within_its_folder_may_be(tmp_path: Path) -> None:
    refused(tmp_path, recorded(tmp_path, EEG, b""), Empty, "is empty")
    inside = f"{MEG}/BadChannels"
    content, sent = embedded(tmp_path, recorded(tmp_path, inside, b""))
    assert sent == b""
    assert content == ImageContent(path=inside, size=0, sha256=hashlib.sha256(b"").hexdigest(), nifti=1)


def test_a_recording_over_2_gib_is_too_large_and_is_not_told_to_be_nifti(tmp_path: Path) -> None:
    recording = recorded(tmp_path, EEG, b"")
    with (tmp_path / EEG).open("r+b") as stream:
        stream.truncate(2**31)
    sink = Collected()
    with pytest.raises(TooLarge, match=r"sub-1_task-rest_eeg\.edf .*2 GiB\. Split it into parts") as caught:
        embed(replace(recording, size=2**31), tmp_path, sink)
    assert ".nii" not in str(caught.value)
    assert sink.data == b""


@pytest.mark.parametrize("path", [EEG, PHYSIO, f"{MEG}/sub-1_task-rest_meg.meg4"])
@pytest.mark.parametrize(
    ("pointer", "way"),
    [
        (b"/annex/objects/SHA256E-s4321--" + b"0" * 64 + b".edf\n", "git annex get"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 4321\n", "git lfs pull"),
    ],
)
def test_the_stand_in_of_a_recording_is_unfetched_and_not_its_content(
    tmp_path: Path, path: str, pointer: bytes, way: str
) -> None:
    recording = recorded(tmp_path, path, pointer)
    refused(tmp_path, recording, Unfetched, way)
    refused(tmp_path, replace(recording, size=4321), Unfetched, way)


def test_the_content_of_a_recording_is_compared_with_its_annex_key(tmp_path: Path) -> None:
    data = bytes(5000)
    good = f"MD5E-s{len(data)}--{hashlib.md5(data).hexdigest()}.edf"
    assert embedded(tmp_path, recorded(tmp_path, EEG, data, annex_key=good))[1] == data
    for other in (good.replace("s5000", "s5001"), good.replace(hashlib.md5(data).hexdigest(), "0" * 32)):
        recording = recorded(tmp_path, EEG, data, annex_key=other)
        refused(tmp_path, recording, KeyMismatch, "git annex fsck", "`git annex add` a changed recording")
