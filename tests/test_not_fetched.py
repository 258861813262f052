"""Images that are not here: how many, how many bytes, and the one command for all of them."""

import shlex
import subprocess
from pathlib import Path

import pytest

from tasks.bids.not_fetched import absent
from tasks.load import load
from tests import bids_examples as bids
from tests.bids_examples import Content, Link

KEY = "SHA256E-s1000000--0123.nii.gz"
WITHOUT_SIZE = "URL--http&c%%example.org%t1.nii.gz"
LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 2000000\n"


def link(path: str, key: str = KEY) -> Link:
    return Link(f"{'../' * path.count('/')}.git/annex/objects/aa/bb/{key}/{key}")


def sentence(root: Path, paths: list[str], **more: Content) -> str | None:
    files: dict[str, Content] = {path: link(path) for path in paths}
    dataset = load(bids.one_subject(root, files | more))
    said = absent(dataset.images, root)
    return str(said) if said else None


def image(subject: str, folder: str = "") -> str:
    return f"{folder}sub-{subject}/anat/sub-{subject}_{'desc-x_mask' if folder else 'T2w'}.nii.gz"


@pytest.mark.parametrize(
    ("paths", "pattern"),
    [
        ([image("02")], image("02")),
        ([image("02"), "sub-02/anat/sub-02_PDw.nii.gz"], "sub-02/anat"),
        ([image("02"), image("03")], "sub-02 sub-03"),
        ([image(name) for name in "abcde"], "sub-*"),
        ([*(image(name) for name in "abcd"), image("a", "derivatives/m/")], "sub-* derivatives"),
        ([image("a", "derivatives/m/"), image("b", "derivatives/m/")], "derivatives/m"),
        ([image("a", "derivatives/my masks/"), image("b", "derivatives/my masks/")], "'derivatives/my masks'"),
    ],
)
@pytest.mark.parametrize("program", ["git annex", "datalad"])
def test_one_short_command_fetches_all_that_is_not_here(
    tmp_path: Path, program: str, paths: list[str], pattern: str
) -> None:
    (tmp_path / ".datalad" / "x").mkdir(parents=True) if program == "datalad" else None
    said = sentence(tmp_path, paths) or ""
    be = "is" if len(paths) == 1 else "are"
    assert said.startswith(f"{len(paths)} of {len(paths) + 1} images {be} not on this machine ({len(paths)}.0 MB).")
    assert f"`{program} get {pattern}` fetches all of it" in said
    named = subprocess.run(["sh", "-c", f"echo {pattern}"], cwd=tmp_path, capture_output=True, check=True, text=True)
    assert all((tmp_path / path).exists() for path in shlex.split(pattern) if "*" not in path and path.count("/") < 2)
    assert len(named.stdout.split()) >= 1


def test_what_no_key_states_the_size_of_is_counted_apart(tmp_path: Path) -> None:
    one, other = image("02"), image("03")
    said = sentence(tmp_path, [one], **{other: link(other, WITHOUT_SIZE)})
    assert "(1.0 MB, and 1 of unknown size)" in (said or "")


def test_pointers_of_git_lfs_have_their_own_command(tmp_path: Path) -> None:
    said = sentence(tmp_path, [], **{image("02"): LFS})
    assert (
        said
        == "1 of 2 images is not on this machine (2.0 MB). In the dataset's folder, `git lfs pull` fetches all of it."
    )


def test_a_link_to_nowhere_has_no_command(tmp_path: Path) -> None:
    said = sentence(tmp_path, [], **{image("02"): Link("/nowhere/x.nii.gz")})
    assert "of unknown size" in (said or "") and "Restore what the links lead to" in (said or "")


def test_where_all_is_here_nothing_is_said(tmp_path: Path) -> None:
    assert sentence(tmp_path, []) is None
