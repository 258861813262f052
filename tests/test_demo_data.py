"""The demo dataset: the published tree, with images that any tool reads and a person recognises."""

import collections
import gzip
import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal import isal_zlib

from deployments.demo_data import BusyFolderError, NotOurFolderError, make_dataset, source
from deployments.demo_data.__main__ import main
from deployments.demo_data.cut import ordered_sessions
from deployments.demo_data.deflate import GzipEncoder
from deployments.demo_data.phantom import T1W, T2W, head_of, paint
from deployments.demo_data.sizes import default_plan, make_grid
from tests.conftest import SESSIONS

CUT = SESSIONS
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def cut(bids: Path) -> Path:
    return bids


def images_in(out: Path) -> list[str]:
    return sorted(path.relative_to(out).as_posix() for path in out.rglob("*.nii.gz"))


def contents(out: Path) -> dict[str, str]:
    return {
        path.relative_to(out).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in out.rglob("*")
        if path.is_file() and path.name != ".demo-data.json"
    }


def loaded(path: Path) -> Any:
    """An image, of whichever of nibabel's classes."""
    return nib.load(path)


def voxels(path: Path) -> Any:
    return np.asarray(loaded(path).dataobj)


def masks_in(out: Path) -> list[Path]:
    return sorted((out / "derivatives").rglob("*_mask.nii.gz"))


def drawn_on(out: Path, mask: Path) -> Path:
    return out / mask.relative_to(out / "derivatives/lesion_masks").as_posix().replace("_desc-lesion_mask", "")


@pytest.mark.slow
@pytest.mark.timeout(1800)  # 300 MB of pictures
def test_the_whole_dataset_has_every_published_path_at_the_default_size(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "all")

    table = gzip.decompress((source.DATA / "images.tsv.gz").read_bytes()).decode().splitlines()[1:]
    assert images_in(made.out) == sorted(line.split("\t")[0] for line in table)
    assert (made.sessions, made.subjects, made.images, made.files) == (902, 230, 5164, 5164 + 9351)
    assert len({source.session_of(path) for path in images_in(made.out)}) == 902
    on_disk = sum((made.out / path).stat().st_size for path in images_in(made.out))
    assert made.image_bytes == on_disk == pytest.approx(300_000_000, rel=0.05)
    # nothing that a Hub could store once
    assert len({digest for path, digest in contents(made.out).items() if path.endswith(".nii.gz")}) == 5164


def test_sidecars_are_there_byte_for_byte_and_only_those_of_the_cut(cut: Path) -> None:
    with tarfile.open(source.DATA / "sidecars.tar.xz") as archive:
        published = {member.name: archive.extractfile(member).read() for member in archive if member.isfile()}
    sessions = {"", *ordered_sessions()[:CUT]}
    expected = {name: text for name, text in published.items() if source.session_of(name) in sessions}

    made = {
        path.relative_to(cut).as_posix(): path.read_bytes()
        for path in cut.rglob("*")
        if path.is_file() and not path.name.endswith(".nii.gz") and path.name != ".demo-data.json"
    }

    assert made == expected
    assert len((cut / "participants.tsv").read_text().splitlines()) == 246


def test_every_image_decodes_and_has_the_size_that_its_header_says(cut: Path) -> None:
    for path in images_in(cut):
        packed = (cut / path).read_bytes()
        raw = gzip.decompress(packed)  # checks CRC and size
        assert isal_zlib.decompress(packed, 31) == raw
        assert packed[3:9] == bytes(6), "no name and no time in the gzip header"
        image = nib.Nifti1Image.from_bytes(raw)
        assert len(raw) == 352 + image.header.get_data_dtype().itemsize * np.prod(image.shape)
        assert np.asarray(image.dataobj).max() > 0
        assert image.header.get_xyzt_units() == ("mm", "sec")
        assert image.header["qform_code"] == image.header["sform_code"] == 1
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), rtol=1e-5)
        assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
        assert all(0.5 <= zoom <= 12.5 for zoom in image.header.get_zooms()[:3])


def test_series_are_4d_with_a_volume_for_each_b_value_and_single_images_are_3d(cut: Path) -> None:
    seen: collections.Counter[str] = collections.Counter()
    for path in images_in(cut):
        image = loaded(cut / path)
        suffix = path.removesuffix(".nii.gz").rpartition("_")[2]
        seen[suffix] += 1
        if suffix in ("bold", "dwi"):
            metadata = json.loads((cut / path.replace(".nii.gz", ".json")).read_text())
            assert image.ndim == 4
            assert image.header.get_zooms()[3] == pytest.approx(metadata["RepetitionTime"])
        else:
            assert image.ndim == 3
        if suffix == "dwi":
            assert image.shape[3] == len((cut / path.replace(".nii.gz", ".bval")).read_text().split())
        if suffix == "bold":
            assert image.shape[3] >= 6
    assert set(seen) == {"T1w", "T2w", "FLAIR", "bold", "dwi", "sbref", "mask"}


def test_the_lesion_is_bright_where_the_mask_says_and_inside_the_brain(cut: Path) -> None:
    masks = masks_in(cut)
    assert masks
    for path in masks:
        reference = drawn_on(cut, path)
        mask, image = loaded(path), loaded(reference)
        np.testing.assert_array_equal(mask.affine, image.affine)
        lesion = voxels(path).astype(bool)
        signal = voxels(reference)
        layout = default_plan()[reference.relative_to(cut).as_posix()]
        brain = paint(head_of(layout.image.subject), layout.grid, []).brain.transpose(2, 1, 0)
        assert lesion[..., lesion.shape[2] // 2].any(), "the middle slice shows it"
        assert not (lesion & ~brain).any()
        assert np.median(signal[lesion]) > 1.5 * np.median(signal[brain & ~lesion])


def test_the_lesion_is_bright_in_flair_at_the_same_place(cut: Path) -> None:
    compared = 0
    for path in masks_in(cut):
        mask = loaded(path)
        for flair in sorted(drawn_on(cut, path).parent.glob("*_FLAIR.nii.gz")):
            image = loaded(flair)
            # the voxels of the FLAIR whose centres lie in the mask, through both affines
            grid = np.stack(np.meshgrid(*map(np.arange, image.shape), indexing="ij"), -1)
            there = nib.affines.apply_affine(np.linalg.inv(mask.affine) @ image.affine, grid).round().astype(int)
            valid = ((there >= 0) & (there < mask.shape)).all(-1)
            lesion = np.zeros(image.shape, bool)
            lesion[valid] = voxels(path)[tuple(there[valid].T)] > 0
            signal = voxels(flair)
            assert np.median(signal[lesion]) > 1.5 * np.median(signal[~lesion & (signal > 40)])
            compared += 1
    assert compared


def test_diffusion_signal_falls_with_the_b_value(cut: Path) -> None:
    for path in [path for path in images_in(cut) if path.endswith("_dwi.nii.gz")]:
        b = np.array((cut / path.replace(".nii.gz", ".bval")).read_text().split(), float)
        means = voxels(cut / path).astype(float).mean(axis=(0, 1, 2))
        by_shell = [means[b == shell].mean() for shell in sorted(set(b)) if shell % 100 == 0]
        assert by_shell == sorted(by_shell, reverse=True)


@pytest.mark.slow
def test_the_same_bytes_every_time(cut: Path, tmp_path: Path) -> None:
    code = f"from pathlib import Path; from deployments.demo_data import make_dataset; make_dataset(Path('x'), {CUT})"
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=True)
    assert contents(tmp_path / "x") == contents(cut)


def test_the_bytes_are_those_that_were_made_elsewhere(cut: Path) -> None:
    """Pinned: another Python, numpy or zlib gives the same. A change here is a change of LAYOUT_VERSION."""
    together = hashlib.sha256(json.dumps(sorted(contents(cut).items())).encode()).hexdigest()
    assert together[:16] == "5c542c97a936ff85"


@pytest.mark.parametrize("sessions", [1, 2, 3, 6, 24, 300])
def test_a_smaller_cut_is_a_part_of_a_larger_one(sessions: int) -> None:
    assert set(ordered_sessions()[:sessions]) < set(ordered_sessions()[: sessions + 1])
    assert len(set(ordered_sessions())) == 902


def test_a_cut_of_six_shows_all_that_sessions_can_have(cut: Path) -> None:
    by_session: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    for path in images_in(cut):
        by_session[source.session_of(path)][path.removesuffix(".nii.gz").rpartition("_")[2]] += 1
    for suffix in ("T1w", "T2w", "FLAIR", "bold", "dwi", "sbref", "mask"):
        assert any(suffix in counts for counts in by_session.values())
        assert (
            suffix == "mask" or any(counts[suffix] == 2 for counts in by_session.values()) or suffix in ("dwi", "sbref")
        )
    assert any(counts["T1w"] == 2 for counts in by_session.values())
    assert len({session.partition("/")[0] for session in by_session}) < CUT, "a subject that came back"


@pytest.mark.slow
@pytest.mark.parametrize(("sessions", "total"), [(1, 1_000_000), (1, 30_000_000), (8, 3_000_000), (8, 60_000_000)])
def test_the_total_is_met_within_five_percent(tmp_path: Path, sessions: int, total: int) -> None:
    made = make_dataset(tmp_path / "out", sessions, total)
    assert made.image_bytes == pytest.approx(total, rel=0.05)


@pytest.mark.slow
def test_images_are_in_proportion_to_the_true_ones_when_there_is_room_and_do_not_compress(tmp_path: Path) -> None:
    made = make_dataset(tmp_path / "out", sessions=1, total_bytes=60_000_000)
    true_bytes = {image.path: image.true_bytes for image in source.images()}
    big = [path for path in images_in(made.out) if true_bytes[path] > 10_000_000]
    ratios = [(made.out / path).stat().st_size / true_bytes[path] for path in big]
    assert max(ratios) < 1.1 * min(ratios)
    largest = (made.out / max(big, key=true_bytes.__getitem__)).read_bytes()
    assert len(gzip.compress(largest, 6)) > 0.95 * len(largest)


def test_images_of_one_subject_show_one_head_and_those_of_another_another() -> None:
    grid = make_grid(30_000)
    one, other = (paint(head_of(subject), grid, [T1W, T2W]) for subject in ("sub-M2001", "sub-M2002"))
    assert (one.head != other.head).any()
    assert (one.lesion != other.lesion).any()
    heads = {image.subject for image in source.images()}
    assert len({head_of(subject) for subject in heads}) == 230


def test_a_second_run_makes_only_what_is_missing_or_cut_off(cut: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    make_dataset(out, sessions=2)
    whole = contents(out)
    gone, short, altered, *others = images_in(out)
    text = out / "participants.tsv"
    (out / gone).unlink()
    (out / short).write_bytes((out / short).read_bytes()[:-9])
    (out / altered).with_name(f".{Path(altered).name}.part").write_bytes(b"left by a kill")
    text.write_text("half")
    (out / altered).unlink()
    untouched = {path: (out / path).stat().st_mtime_ns for path in others}

    made = make_dataset(out, sessions=2)

    assert made.images_made == 3
    assert contents(out) == whole
    assert {path: (out / path).stat().st_mtime_ns for path in others} == untouched


def test_a_folder_grows_to_a_larger_cut(cut: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    first = make_dataset(out, sessions=2)
    second = make_dataset(out, sessions=CUT)
    assert second.images_made == second.images - first.images
    assert contents(out) == contents(cut)


@pytest.mark.slow
def test_a_run_that_was_killed_is_completed_by_the_next(cut: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen(
        [sys.executable, "-m", "deployments.demo_data", str(out), "--sessions", str(CUT)], cwd=ROOT
    )
    while not images_in(out):
        assert process.poll() is None
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    left = len(images_in(out))

    made = make_dataset(out, sessions=CUT)

    assert made.images_made >= made.images - left
    assert contents(out) == contents(cut)


def test_a_folder_with_something_else_is_refused_and_left_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    assert main([str(tmp_path), "--sessions", "1"]) == 2
    assert "not empty" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_a_file_in_place_of_the_folder_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("mine")
    assert main([str(tmp_path / "file")]) == 2
    assert "is a file" in capsys.readouterr().err


def test_a_folder_of_another_size_is_refused(cut: Path) -> None:
    with pytest.raises(NotOurFolderError, match="6 sessions at the default size"):
        make_dataset(cut, sessions=CUT, total_bytes=5_000_000)
    with pytest.raises(NotOurFolderError, match="6 sessions"):
        make_dataset(cut, sessions=CUT - 1)


@pytest.mark.slow
def test_two_runs_do_not_write_into_one_folder(tmp_path: Path) -> None:
    out = tmp_path / "out"
    process = subprocess.Popen([sys.executable, "-m", "deployments.demo_data", str(out)], cwd=ROOT)  # it takes minutes
    try:
        while not images_in(out):
            assert process.poll() is None
            time.sleep(0.005)
        with pytest.raises(BusyFolderError, match="Another run"):
            make_dataset(out)
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("arguments", [["--sessions", "0"], ["--sessions", "903"], ["--bytes", "0"]])
def test_figures_that_make_no_sense_are_refused_before_anything_is_made(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    assert main([str(tmp_path / "out"), *arguments]) == 2
    assert "between 1 and 902" in (error := capsys.readouterr().err) or "more than 0" in error
    assert not (tmp_path / "out").exists()


def test_the_command_prints_what_is_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(tmp_path / "out"), "--sessions", "1"]) == 0
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["sessions"] == "1"
    assert lines["subjects"] == "1"
    assert list(lines) == ["sessions", "subjects", "images", "bytes", "seconds"]


def test_a_total_too_small_for_pictures_is_exceeded_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([str(tmp_path / "out"), "--sessions", "1", "--bytes", "1000"]) == 0
    assert "would not be readable" in capsys.readouterr().out
    smallest = min(min(loaded(tmp_path / "out" / path).shape[:2]) for path in images_in(tmp_path / "out"))
    assert smallest >= 24


@settings(max_examples=150, deadline=None)
@given(pieces=st.lists(st.binary(max_size=400), max_size=6), expected=st.binary(max_size=50))
def test_any_bytes_come_back_from_the_encoder_whatever_was_expected(pieces: Any, expected: Any) -> None:
    encoder = GzipEncoder(np.bincount(np.frombuffer(expected, np.uint8), minlength=256).astype(np.int64))
    packed = b"".join(part for piece in pieces for part in encoder.feed(np.frombuffer(piece, np.uint8)))
    packed += encoder.finish()
    assert gzip.decompress(packed) == isal_zlib.decompress(packed, 31) == b"".join(pieces)


def test_the_encoder_keeps_to_the_longest_code_that_the_format_allows() -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 60:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    encoder = GzipEncoder(np.array([*fibonacci, *[0] * 196], np.int64))
    data = np.tile(np.arange(256, dtype=np.uint8), 3000)
    packed = b"".join(encoder.feed(data)) + encoder.finish()
    assert gzip.decompress(packed) == data.tobytes()
