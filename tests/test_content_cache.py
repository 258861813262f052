import hashlib
import json
import os
import zlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tasks.disk.content_cache import FEW, FILE, ContentCache
from tasks.disk.files import sha256_of
from tasks.load import load
from tasks.values.models import Image, ImageContent
from tests import bids_examples as bids


@pytest.fixture
def image(tmp_path: Path) -> Image:
    path = tmp_path / "bids" / "sub-1_T1w.nii"
    path.parent.mkdir()
    path.write_bytes(b"voxels")
    return look(tmp_path, Image(path="sub-1_T1w.nii", size=0, mtime_ns=0, dataset="raw", sub="1", ses=None,
                                datatype="anat", suffix="T1w"))  # fmt: skip


def look(tmp_path: Path, image: Image) -> Image:
    status = (tmp_path / "bids" / image.path).stat()
    return replace(image, size=status.st_size, mtime_ns=status.st_mtime_ns, ctime_ns=status.st_ctime_ns,
                   inode=status.st_ino)  # fmt: skip


def known(tmp_path: Path) -> ContentCache:
    return ContentCache(tmp_path / "cache" / FILE, tmp_path / "bids")


def content(tmp_path: Path, image: Image) -> ImageContent:
    return ImageContent(path=image.path, size=image.size, sha256=sha256_of(tmp_path / "bids" / image.path))


def edit_in_place(file: Path, data: bytes) -> None:
    """Other bytes of the same size in the same file, with the mtime that it had."""
    before = file.stat()
    while file.stat().st_ctime_ns == before.st_ctime_ns:  # the clock of a file system may be coarse
        with file.open("r+b") as stream:
            stream.write(data)
        os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    after = file.stat()
    assert (after.st_size, after.st_mtime_ns, after.st_ino) == (before.st_size, before.st_mtime_ns, before.st_ino)


def test_an_image_is_read_once_and_then_known_by_what_the_file_system_says_of_it(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    first = known(tmp_path)
    assert first.unchanged([image], [published]) and first.images_read == 1
    assert first.unchanged([image], [published]) and first.images_read == 1
    another_night = known(tmp_path)
    assert another_night.unchanged([image], [published]) and another_night.images_read == 0


def test_an_image_edited_in_place_is_noticed_also_where_its_mtime_was_set_back(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    assert known(tmp_path).unchanged([image], [published])
    edit_in_place(tmp_path / "bids" / image.path, b"VOXELS")
    assert not known(tmp_path).unchanged([look(tmp_path, image)], [published])


def test_an_image_edited_at_the_same_size_is_noticed_where_ctime_does_not_tell(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    assert known(tmp_path).unchanged([image], [published])
    path = tmp_path / "bids" / image.path
    path.write_bytes(b"VOXELS")
    os.utime(path, ns=(image.mtime_ns + 1, image.mtime_ns + 1))
    assert not known(tmp_path).unchanged([replace(look(tmp_path, image), ctime_ns=image.ctime_ns)], [published])


def test_an_image_replaced_by_another_is_noticed_by_its_inode(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    assert known(tmp_path).unchanged([image], [published])
    other = tmp_path / "other"
    other.write_bytes(b"VOXELS")
    other.replace(tmp_path / "bids" / image.path)
    assert not known(tmp_path).unchanged([replace(image, inode=look(tmp_path, image).inode)], [published])


def test_a_touched_image_with_the_same_bytes_is_unchanged(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    assert known(tmp_path).unchanged([image], [published])
    os.utime(tmp_path / "bids" / image.path, ns=(image.mtime_ns + 1, image.mtime_ns + 1))
    again = known(tmp_path)
    assert again.unchanged([look(tmp_path, image)], [published]) and again.images_read == 1


# git-annex


@pytest.mark.parametrize(
    "key", ["SHA256E-s6--" + "1" * 64 + ".nii", "MD5E-s6--" + "0" * 32 + ".nii", "SHA3_256-s6--ab"]
)
def test_an_image_whose_annex_key_holds_a_digest_is_not_read(tmp_path: Path, image: Image, key: str) -> None:
    annexed = replace(image, annex_key=key, path="not-fetched.nii", size=6)
    contents = known(tmp_path)
    assert contents.unchanged([annexed], [ImageContent(path="not-fetched.nii", size=6, sha256="1" * 64)])
    assert contents.images_read == 0


def test_what_was_published_against_the_sha256_in_its_annex_key_is_published_again(
    tmp_path: Path, image: Image
) -> None:
    annexed = replace(image, annex_key="SHA256E-s6--" + "0" * 64 + ".nii")
    assert not known(tmp_path).unchanged([annexed], [content(tmp_path, annexed)])


WORM, URL = "WORM-s6-m1300000000--sub-1_T1w.nii", "URL-s6--http&c%%example.org%sub-1_T1w.nii"


@pytest.mark.parametrize("key", [WORM, URL, "SKEIN256E-s6--" + "0" * 64 + ".nii", "BLAKE2BP512-s6--ab"])
def test_an_image_whose_annex_key_holds_no_digest_that_can_be_compared_is_known_by_its_content(
    tmp_path: Path, image: Image, key: str
) -> None:
    annexed = replace(image, annex_key=key)
    published = content(tmp_path, annexed)
    assert known(tmp_path).unchanged([annexed], [published])
    assert known(tmp_path).images_read == 0
    other = tmp_path / "bids" / image.path
    edit_in_place(other, b"VOXELS")
    assert not known(tmp_path).unchanged([look(tmp_path, annexed)], [published])
    other.unlink()
    assert not known(tmp_path).unchanged([annexed], [replace(published, sha256="0" * 64)])


def test_an_unlocked_annexed_image_that_was_edited_in_place_is_noticed(tmp_path: Path) -> None:
    data = bids.nifti(bids.IMAGE, compressed=True)
    key = f"SHA256E-s{len(data)}--{'0' * 64}.nii.gz"
    root = bids.one_subject(tmp_path, {f".git/annex/objects/1/2/{key}/{key}": data})
    unlocked = root / "sub-02/anat/sub-02_T1w.nii.gz"
    unlocked.parent.mkdir(parents=True)
    unlocked.hardlink_to(root / f".git/annex/objects/1/2/{key}/{key}")  # as `git annex unlock` with annex.thin

    def night() -> tuple[Image, ImageContent, ContentCache]:
        image = load(root).images[1]
        found = ImageContent(path=image.path, size=image.size, sha256=sha256_of(unlocked))
        return image, found, ContentCache(tmp_path / "cache" / FILE, root)

    image, published, contents = night()
    assert contents.unchanged([image], [published])
    edit_in_place(unlocked, bytes(reversed(data)))
    image, _, contents = night()
    assert not contents.unchanged([image], [published])


def test_a_stand_in_is_not_taken_for_the_content_that_it_stands_for(tmp_path: Path, image: Image) -> None:
    planned = replace(image, size=4321)
    contents = known(tmp_path)
    assert contents.sha256(planned) is None
    assert contents.images_read == 0


# The file


def images_of(image: Image, count: int) -> list[Image]:
    return [replace(image, path=f"sub-{number}_T2w.nii") for number in range(count)]


def test_a_line_that_was_cut_short_costs_its_own_image_and_the_next_one_is_whole(tmp_path: Path, image: Image) -> None:
    first, second, third = images_of(image, 3)
    known(tmp_path).remember([(first, "1" * 64), (second, "2" * 64)])
    cache = tmp_path / "cache" / FILE
    cache.write_bytes(cache.read_bytes()[:-20])
    contents = known(tmp_path)
    assert contents.knows(first.path) and not contents.knows(second.path)
    contents.remember([(third, "3" * 64)])
    contents.remember([(second, "4" * 64)])
    again = known(tmp_path)
    assert [again.sha256(one) for one in (first, second, third)] == ["1" * 64, "4" * 64, "3" * 64]


def test_a_damaged_line_is_none_and_costs_a_read_not_another_digest(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    other, another = images_of(image, 2)
    known(tmp_path).remember([(other, "1" * 64), (image, published.sha256), (another, "2" * 64)])
    cache = tmp_path / "cache" / FILE
    wrong = "0" * 10 if not published.sha256.startswith("0" * 10) else "1" * 10
    cache.write_bytes(cache.read_bytes().replace(published.sha256[:10].encode(), wrong.encode()))
    again = known(tmp_path)
    assert again.unchanged([image], [published]) and again.images_read == 1
    assert again.knows(other.path) and again.knows(another.path)


@pytest.mark.parametrize(
    "data",
    [b"no cache\n" * 1000, bytes(5000), b"\n\n", *(b"%08x %b\n" % (zlib.crc32(text), text) for text in (b"{}", b"7"))],
    ids=["text", "zeros", "line ends", "another version", "a number"],
)
def test_a_file_that_is_no_cache_costs_a_read_and_nothing_else(tmp_path: Path, image: Image, data: bytes) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE).write_bytes(data)
    published = content(tmp_path, image)
    contents = known(tmp_path)
    assert contents.unchanged([image], [published]) and contents.images_read == 1
    again = known(tmp_path)
    assert again.unchanged([image], [published]) and again.images_read == 0


def _a_folder(cache: Path) -> None:
    cache.mkdir(parents=True)


def _a_pipe(cache: Path) -> None:
    cache.parent.mkdir()
    os.mkfifo(cache)


def _a_full_disk(cache: Path) -> None:
    cache.parent.mkdir()
    cache.symlink_to("/dev/full")


def _no_folder(cache: Path) -> None:
    cache.parent.write_bytes(b"a file where the folder would be")


@pytest.mark.parametrize("obstacle", [_a_folder, _a_pipe, _a_full_disk, _no_folder])
def test_a_cache_that_cannot_be_read_or_written_costs_a_read_and_nothing_else(
    tmp_path: Path, image: Image, obstacle: Any
) -> None:
    obstacle(tmp_path / "cache" / FILE)
    published = content(tmp_path, image)
    for _ in range(2):
        contents = known(tmp_path)
        assert contents.unchanged([image], [published]) and contents.images_read == 1
        assert contents.unchanged([image], [published]) and contents.images_read == 1  # within a run it is known


def test_a_read_only_cache_is_used_and_not_written(tmp_path: Path, image: Image) -> None:
    first, second = images_of(image, 2)
    known(tmp_path).remember([(first, "1" * 64)])
    cache = tmp_path / "cache" / FILE
    cache.chmod(0o444)
    contents = known(tmp_path)
    user = os.geteuid()
    if user == 0:  # who may write to every file
        os.seteuid(65534)
    try:
        contents.remember([(second, "2" * 64)])
    finally:
        os.seteuid(user)
    assert contents.sha256(first) == "1" * 64
    assert not known(tmp_path).knows(second.path)


def test_the_file_is_written_anew_when_most_of_its_lines_are_old(tmp_path: Path, image: Image) -> None:
    images = images_of(image, 100)
    cache = tmp_path / "cache" / FILE
    lengths = []
    for night in range(30):
        known(tmp_path).remember((replace(one, ctime_ns=night), f"{night:064}") for one in images)
        lengths.append(cache.read_bytes().count(b"\n"))
    assert max(lengths) <= 2 * len(images) + FEW + len(images) and lengths[-1] < lengths[-10]
    again = known(tmp_path)
    assert {again.sha256(replace(one, ctime_ns=29)) for one in images} == {f"{29:064}"} and again.images_read == 0


def test_what_is_known_already_is_not_written_again(tmp_path: Path, image: Image) -> None:
    contents = known(tmp_path)
    contents.remember([(image, "1" * 64)])
    size = (tmp_path / "cache" / FILE).stat().st_size
    contents.remember([(image, "1" * 64)])
    known(tmp_path).remember([(image, "1" * 64)])
    assert (tmp_path / "cache" / FILE).stat().st_size == size


def test_no_lock_and_no_second_file_is_needed(tmp_path: Path, image: Image) -> None:
    contents = known(tmp_path)
    contents.remember([(image, "1" * 64)])
    assert contents.sha256(image) == known(tmp_path).sha256(image) == "1" * 64
    assert [file.name for file in (tmp_path / "cache").iterdir()] == [FILE]


@pytest.mark.parametrize(
    "name", [b"caf\xe9 \xff.nii", b"a\nb\t\\.nii", "脳 \u2028\x85\x1e.nii".encode(), b'"\r\n00000000 ["']
)
def test_a_path_of_any_bytes_is_remembered(tmp_path: Path, image: Image, name: bytes) -> None:
    odd = replace(image, path=f"sub-1/{os.fsdecode(name)}")
    known(tmp_path).remember([(odd, "1" * 64), (image, "2" * 64)])
    again = known(tmp_path)
    assert (again.sha256(odd), again.sha256(image)) == ("1" * 64, "2" * 64)


def test_a_line_is_json_behind_its_crc(tmp_path: Path, image: Image) -> None:
    known(tmp_path).remember([(image, "1" * 64)])
    (line,) = (tmp_path / "cache" / FILE).read_bytes().splitlines()
    crc, _, text = line.partition(b" ")
    assert int(crc, 16) == zlib.crc32(text)
    assert json.loads(text) == [image.path, image.size, image.mtime_ns, image.ctime_ns, image.inode, "1" * 64]


def test_a_file_of_which_another_content_is_published_than_it_has_is_known_by_that(
    tmp_path: Path, image: Image
) -> None:
    stripped = replace(image, content=b"without a name")
    assert known(tmp_path).sha256(stripped) == hashlib.sha256(b"without a name").hexdigest()


def test_a_missing_image_or_one_that_was_not_published_is_a_change(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    assert not known(tmp_path).unchanged([image], [])
    (tmp_path / "bids" / image.path).unlink()
    assert not known(tmp_path).unchanged([image], [published])


def test_a_root_whose_path_is_not_utf8_is_remembered_as_any_other(tmp_path: Path, image: Image) -> None:
    odd = tmp_path / os.fsdecode(b"caf\xe9 \xff")
    (tmp_path / "bids").rename(odd)
    published = ImageContent(path=image.path, size=image.size, sha256=sha256_of(odd / image.path))
    for root, read in ((odd, 1), (odd, 0)):
        contents = ContentCache(tmp_path / "cache" / FILE, root)
        assert contents.unchanged([image], [published]) and contents.images_read == read
