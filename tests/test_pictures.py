"""Pictures: the card shows an axial slice of each kind of image, made again only when that image has changed."""

import base64
import hashlib
import io
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
from PIL import Image as Picture

from tasks.bids.pictures import CARD_HEIGHT, axial_slice, side_by_side
from tasks.card import About, Pictures, card, draw, pictures_on
from tasks.card import Picture as OnCard
from tasks.load import load
from tasks.plan import plan
from tasks.values.models import Dataset, Image, ListedFile, Listing, Slice
from tests import bids_examples as bids
from tests.test_card import html_of, published, rows_in


def head(path: Path, orientation: str, known: bool = True, volumes: int = 0) -> Path:
    """A head in a file whose axes run this way: bright in front, brighter on the right, in one slice only."""
    volume = np.zeros((10, 20, 31), np.int16)  # right, front, up
    volume[:, 10:, 15] = 500
    volume[5:, 10:, 15] = 1000
    image = nibabel.Nifti1Image(volume, np.diag([2.0, 2.0, 2.0, 1.0]))
    wanted = nibabel.orientations.axcodes2ornt(orientation)
    image = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted))
    data = np.asanyarray(image.dataobj)
    data = np.stack([data] * volumes, axis=-1) if volumes else data
    image = nibabel.Nifti1Image(data, image.affine)
    for form in (image.set_sform, image.set_qform):
        form(image.affine, code=1 if known else 0)
    nibabel.save(image, path)
    return path


def shown(png: bytes | None) -> np.ndarray:
    assert png is not None
    return np.asarray(Picture.open(io.BytesIO(png)))


@pytest.mark.parametrize("orientation", ["RAS", "LAS", "LPI", "PSR", "AIL", "SRA"])
@pytest.mark.parametrize("name", ["a_T1w.nii", "a_T1w.nii.gz"])
def test_the_slice_is_axial_whichever_way_the_axes_run(tmp_path: Path, orientation: str, name: str) -> None:
    grey = shown(axial_slice(head(tmp_path / name, orientation), "T1w"))

    height, width = grey.shape
    assert (height, width) == (CARD_HEIGHT, CARD_HEIGHT // 2)  # 20 x 10 voxels of one size: never 31, which is up
    front_left, front_right = grey[: height // 3, : width // 3].mean(), grey[: height // 3, -width // 3 :].mean()
    assert front_right > front_left > grey[-height // 3 :].mean() + 50


def test_of_a_time_series_the_first_volume_is_shown_and_of_a_mask_its_fullest_slice(tmp_path: Path) -> None:
    still, series = head(tmp_path / "a.nii", "RAS"), head(tmp_path / "b.nii", "RAS", volumes=3)
    assert axial_slice(still, "bold") == axial_slice(series, "bold")
    mask = np.zeros((8, 8, 8), np.uint8)
    mask[2:6, 2:6, 1] = 1
    nibabel.save(nibabel.Nifti1Image(mask, np.eye(4)), tmp_path / "mask.nii.gz")
    assert shown(axial_slice(tmp_path / "mask.nii.gz", "mask")).max() == 255
    assert shown(axial_slice(tmp_path / "mask.nii.gz", "T1w")).max() == 0


def test_a_mask_is_drawn_however_many_volumes_it_has_and_not_where_one_of_them_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = np.zeros((8, 8, 8, 3), np.uint8)
    volumes[2:6, 2:6, 1] = 1
    nibabel.save(nibabel.Nifti1Image(volumes, np.eye(4)), tmp_path / "mask.nii.gz")
    monkeypatch.setattr("tasks.bids.pictures.LARGEST_DRAWN", 8 * 8 * 8)
    assert shown(axial_slice(tmp_path / "mask.nii.gz", "mask")).max() == 255
    monkeypatch.setattr("tasks.bids.pictures.LARGEST_DRAWN", 8 * 8 * 8 - 1)
    assert axial_slice(tmp_path / "mask.nii.gz", "mask") is None
    assert axial_slice(tmp_path / "mask.nii.gz", "T1w") is not None  # of which one slice is read


def test_an_image_that_does_not_say_which_way_is_up_is_not_shown(tmp_path: Path) -> None:
    assert axial_slice(head(tmp_path / "a.nii", "RAS", known=False), "T1w") is None
    nibabel.save(nibabel.Nifti1Image(np.zeros((4, 4), np.int16), np.eye(4)), tmp_path / "flat.nii")
    assert axial_slice(tmp_path / "flat.nii", "T1w") is None


# --- on the card ---


def sha256_in(root: Path) -> Any:
    return lambda image: hashlib.sha256((root / image.path).read_bytes()).hexdigest()


def drawn(root: Path, before: Pictures | None = None) -> tuple[Dataset, Pictures, list[str]]:
    dataset = load(root)
    told: list[str] = []
    return dataset, draw(dataset, before or Pictures(), sha256_in(root), told.append), told


def test_each_kind_has_one_picture_of_its_first_image_small_and_the_same_every_time(own_bids: Path) -> None:
    dataset, pictures, told = drawn(own_bids)

    kinds = {f"{image.datatype}_{image.suffix}" for image in dataset.images}
    assert set(pictures.shown) == kinds and not told
    assert set(pictures.files) == {f"pictures/{kind}.png" for kind in kinds}
    assert all(len(png) < 100_000 for png in pictures.files.values())
    assert drawn(own_bids)[1] == pictures
    text = card(dataset, "lab/x", published(*plan(dataset, {})), None, About(pictures=pictures))
    cells = [cell for row in rows_in(html_of(text)) for cell in row]
    assert kinds <= set(cells)
    assert html_of(text).count('<img src="pictures/') == len(kinds)
    assert 'alt="An axial slice of sub-' in html_of(text)


def test_a_picture_is_drawn_again_only_when_its_image_has_changed(own_bids: Path) -> None:
    dataset, pictures, _ = drawn(own_bids)
    text = card(dataset, "lab/x", published(*plan(dataset, {})), None, About(pictures=pictures))
    listing = Listing("c", {path: ListedFile(path, 1, None) for path in pictures.files})
    there = pictures_on(text, listing)
    assert there == Pictures(pictures.shown)
    assert not drawn(own_bids, there)[1].files

    one = own_bids / pictures.shown["anat_T1w"].image
    one.write_bytes(next(p for p in sorted(own_bids.rglob("*_T1w.nii.gz")) if p != one).read_bytes())
    assert set(drawn(own_bids, there)[1].files) == {"pictures/anat_T1w.png"}
    lost = pictures_on(text, Listing("c", {}))
    assert set(drawn(own_bids, lost)[1].files) == set(pictures.files)
    assert pictures_on(None, listing) == Pictures()


def test_a_kind_that_cannot_be_shown_is_told_and_left_out(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"sub-01/anat/sub-01_T2w.nii.gz": b"no image"})
    _, pictures, told = drawn(root)
    assert set(pictures.shown) == {"anat_T1w"} and len(told) == 1 and "anat_T2w" in told[0]


def test_a_picture_names_its_image_and_what_its_bytes_were() -> None:
    picture = OnCard("pictures/anat_T1w.png", "sub-01/anat/sub-01_T1w.nii.gz", "0123456789ab")
    listing = Listing("c", {picture.path: ListedFile(picture.path, 1, None)})
    assert pictures_on(f"| {picture.markdown()} |", listing).shown == {"anat_T1w": picture}


def test_images_of_one_path_are_told_apart_by_their_bytes() -> None:
    image = Image("sub-01/anat/sub-01_T1w.nii.gz", 1, 1, "raw", "01", None, "anat", "T1w")
    dataset = Dataset("/nowhere", "x", {}, (image,))
    there = Pictures({"anat_T1w": OnCard("pictures/anat_T1w.png", image.path, "0" * 12)})
    assert draw(dataset, there, lambda _: "0" * 64, lambda _: None).shown == there.shown
    assert draw(dataset, there, lambda _: "1" * 64, lambda _: None).shown == {}


def test_slices_stand_side_by_side_four_pixels_apart_and_fill_their_sheet() -> None:
    def square(level: int) -> bytes:
        sink = io.BytesIO()
        Picture.new("L", (30, 82), level).save(sink, "PNG")
        return sink.getvalue()

    slices = [Slice(path=f"{name}.nii", suffix=name, png=square(level)) for name, level in (("a", 100), ("b", 200))]
    sheet = Picture.open(io.BytesIO(base64.b64decode(side_by_side(slices).partition(",")[2])))
    assert sheet.size == (30 + 4 + 30, 96) and side_by_side([]) == ""
    assert [sheet.getpixel((x, 50)) for x in (0, 29, 30, 33, 34, 63)] == [100, 100, 0, 0, 200, 200]
