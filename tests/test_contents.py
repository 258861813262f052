import os
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.contents import Contents
from tasks.files import sha256_of
from tasks.models import Image, ImageContent


@pytest.fixture
def image(tmp_path: Path) -> Image:
    path = tmp_path / "bids" / "sub-1_T1w.nii"
    path.parent.mkdir()
    path.write_bytes(b"voxels")
    return look(tmp_path, Image(path="sub-1_T1w.nii", size=0, mtime_ns=0, dataset="raw", sub="1", ses=None,
                                datatype="anat", suffix="T1w"))  # fmt: skip


def look(tmp_path: Path, image: Image) -> Image:
    status = (tmp_path / "bids" / image.path).stat()
    return replace(image, size=status.st_size, mtime_ns=status.st_mtime_ns)


def known(tmp_path: Path) -> Contents:
    return Contents(tmp_path / "cache" / "contents.sqlite", tmp_path / "bids")


def content(tmp_path: Path, image: Image) -> ImageContent:
    return ImageContent(path=image.path, size=image.size, sha256=sha256_of(tmp_path / "bids" / image.path))


def test_an_image_is_read_once_and_then_known_by_its_size_and_mtime(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    first = known(tmp_path)
    assert first.unchanged([image], [published]) and first.images_read == 1
    assert first.unchanged([image], [published]) and first.images_read == 1
    another_night = known(tmp_path)
    assert another_night.unchanged([image], [published]) and another_night.images_read == 0


def test_an_image_edited_in_place_at_the_same_size_is_noticed(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    assert known(tmp_path).unchanged([image], [published])
    path = tmp_path / "bids" / image.path
    path.write_bytes(b"VOXELS")
    os.utime(path, ns=(image.mtime_ns + 1, image.mtime_ns + 1))
    assert not known(tmp_path).unchanged([look(tmp_path, image)], [published])


def test_a_touched_image_with_the_same_bytes_is_unchanged(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    assert known(tmp_path).unchanged([image], [published])
    os.utime(tmp_path / "bids" / image.path, ns=(image.mtime_ns + 1, image.mtime_ns + 1))
    assert known(tmp_path).unchanged([look(tmp_path, image)], [published])


def test_an_image_whose_annex_key_holds_a_digest_is_not_read(tmp_path: Path, image: Image) -> None:
    annexed = replace(image, annex_key="SHA256E-s6--" + "0" * 64 + ".nii", path="not-fetched.nii", size=6)
    contents = known(tmp_path)
    assert contents.unchanged([annexed], [ImageContent(path="not-fetched.nii", size=6, sha256="1" * 64)])
    assert contents.images_read == 0


WORM, URL = "WORM-s6-m1300000000--sub-1_T1w.nii", "URL-s6--http&c%%example.org%sub-1_T1w.nii"


@pytest.mark.parametrize("key", [WORM, URL])
def test_an_image_whose_annex_key_holds_no_digest_is_known_by_its_content(
    tmp_path: Path, image: Image, key: str
) -> None:
    annexed = replace(image, annex_key=key)
    published = content(tmp_path, annexed)
    assert known(tmp_path).unchanged([annexed], [published])
    assert known(tmp_path).images_read == 0
    other = tmp_path / "bids" / image.path
    other.write_bytes(b"VOXELS")
    os.utime(other, ns=(image.mtime_ns + 1, image.mtime_ns + 1))
    assert not known(tmp_path).unchanged([look(tmp_path, annexed)], [published])
    other.unlink()
    assert not known(tmp_path).unchanged([annexed], [published.model_copy(update={"sha256": "0" * 64})])


def test_a_stand_in_is_not_taken_for_the_content_that_it_stands_for(tmp_path: Path, image: Image) -> None:
    planned = replace(image, size=4321)
    contents = known(tmp_path)
    assert contents.sha256(planned) is None
    assert contents.images_read == 0


def test_a_damaged_cache_costs_a_read_and_nothing_else(tmp_path: Path, image: Image) -> None:
    published = content(tmp_path, image)
    known(tmp_path).unchanged([image], [published])
    (tmp_path / "cache" / "contents.sqlite").write_bytes(b"no database" * 1000)
    again = known(tmp_path)
    assert again.unchanged([image], [published]) and again.images_read == 1


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
        contents = Contents(tmp_path / "cache" / "contents.sqlite", root)
        assert contents.unchanged([image], [published]) and contents.images_read == read
