"""Load: sidecars, tables and other files are rows, and each file of a tree is one of row, text and left out."""

import builtins
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from flows.find_work import nothing_fetched
from tasks.bids.not_fetched import absent
from tasks.load import load
from tasks.plan import plan
from tasks.values.left_out import CONTRADICTS, NO_NAME, NO_SUFFIX, NO_TEXT_THERE, NOT_LOOKED_THROUGH
from tasks.values.models import Dataset, Image, PublicationRecord
from tests import bids_examples as bids
from tests.bids_examples import IMAGE, Content, Link
from tests.corpus import not_once

T1W = "sub-01/anat/sub-01_T1w.nii.gz"
FMRIPREP = "derivatives/fmriprep/sub-01"


def rows(dataset: Dataset) -> dict[str, Image]:
    """The rows beside images and recordings, by path."""
    return {file.path: file for file in dataset.files}


def reasons(dataset: Dataset) -> dict[str, str]:
    return {one.path: one.reason for one in dataset.unpublished}


def key(name: str, size: int = 1000) -> Link:
    """A link as git-annex leaves it for a file one folder below a subject's that was not fetched."""
    return Link(f"../../.git/annex/objects/a/b/MD5E-s{size}--0123{name}/MD5E-s{size}--0123{name}")


# --- each file is one of three ---

FOLDERS = (
    *("", "sub-01", "sub-01/anat", "sub-01/ses-a/eeg", "sub-01/meg/sub-01_task-x_meg.ds", "sub-02/func", "phenotype"),
    *(
        "sourcedata",
        "sourcedata/sub-01",
        "code",
        "stimuli/a",
        ".git/annex",
        "sub-01/.cache",
        "pilot",
        "pilot/sub-01/anat",
    ),
    *("derivatives/fmriprep/sub-01/func", "derivatives/freesurfer/sub-01_ses-a/surf", "derivatives/a/sourcedata"),
    *("derivatives/a/group", "derivatives/a", "derivatives", "sub-01/anat/sub-01_x.zarr/0"),
)
NAMES = (
    *(
        "sub-01_T1w",
        "sub-01_ses-a_task-x_eeg",
        "sub-02_bold",
        "T1w",
        "task-x_bold",
        "lh",
        "README",
        "left_out",
        "notes v2",
    ),
    *(
        "sub-01_desc-x_photo",
        "desc-mean_timeseries",
        ".bidsignore",
        ".hidden",
        "._sub-01_T1w",
        "participants",
        "LICENSE",
    ),
    *("sub-01_scans", "dataset_description"),
)
ENDINGS = (
    *(".nii.gz", ".nii", ".json", ".tsv", ".tsv.gz", ".bval", ".dtseries.nii", ".surf.gii", ".html", ".edf", ".fif"),
    *("", ".txt", ".md", ".csv", ".NII", ".JSON", ".meg4"),
)
CONTENTS: tuple[Content, ...] = (
    "{}",
    b"",
    b"\xff\xfe\0",
    "a\tb\n1\t2\n",
    Link("/nowhere"),
    "/annex/objects/MD5E-s3--0\n",
)
PATTERNS = ("*.html", "sub-01/", "code/", "sourcedata/", "*.json", ".git/", "*_T1w*", "!*.tsv", "/derivatives/a/", "*")
paths = st.tuples(st.sampled_from(FOLDERS), st.sampled_from(NAMES), st.sampled_from(ENDINGS))
patterns = st.lists(st.sampled_from(PATTERNS), max_size=2)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.dictionaries(paths, st.sampled_from(CONTENTS), max_size=40), patterns, patterns)
def test_each_file_of_any_tree_is_one_of_row_text_and_left_out(
    tree: dict[tuple[str, str, str], Content], exclude: list[str], include: list[str]
) -> None:
    described = ("dataset_description.json", "participants.tsv")  # at any root: a broken one ends the load
    files = {f"{folder}/{name}{ending}".lstrip("/"): content for (folder, name, ending), content in tree.items()}
    files = {path: content for path, content in files.items() if not path.endswith(described)}
    files = {path: "{}" if path.endswith((".json", ".tsv")) else content for path, content in files.items()}
    files = {path: "0" if path.endswith(".bval") else content for path, content in files.items()}  # it may apply
    with tempfile.TemporaryDirectory() as folder:
        root = bids.one_subject(Path(folder), {"sub-09/anat/sub-09_T1w.nii.gz": IMAGE, **files})
        dataset = load(root, exclude, ["sub-09/", *include])

        walked = {path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_symlink() or path.is_file()}
        named = [one.path for one in dataset.unpublished if not one.path.endswith("/")]
        placed = [*(row.path for row in dataset.rows), *dataset.texts, *named]
        assert len(placed) == len(set(placed)) and set(placed) <= walked
        for path in walked.difference(placed):  # those that a folder stands for
            assert "sourcedata" in path.split("/") or any(part.startswith(".") for part in path.split("/")), path
        assert not not_once(root, dataset)


def test_a_file_in_no_place_or_in_two_is_found_by_the_line_of_the_corpus(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"README": "a", "poster.pdf": b"%PDF"})
    dataset = load(root)
    assert not not_once(root, dataset)

    (root / "new.txt").touch()
    dataset.texts["poster.pdf"] = b"%PDF"  # type: ignore[index]
    assert not_once(root, dataset) == {"new.txt", "poster.pdf"}


# --- which files are rows ---


def test_sidecars_and_tables_that_bids_names_are_rows_of_their_subject_whether_they_apply_or_not(
    tmp_path: Path,
) -> None:
    files: dict[str, Content] = {
        "sub-01/anat/sub-01_T1w.json": {"EchoTime": 1},
        "sub-01/anat/sub-01_T2w.json": {"EchoTime": 2},
        "sub-01/sub-01_sessions.tsv": "session_id\nses-a\n",
        "sub-01/ses-a/sub-01_ses-a_scans.tsv": "filename\n",
        "sub-01/ses-a/func/sub-01_ses-a_task-x_run-02_events.tsv": "onset\n",
    }
    found = rows(load(bids.one_subject(tmp_path, files)))

    assert {path: (row.kind, row.sub, row.ses) for path, row in found.items()} == {
        "sub-01/anat/sub-01_T1w.json": ("sidecar", "01", None),
        "sub-01/anat/sub-01_T2w.json": ("sidecar", "01", None),
        "sub-01/sub-01_sessions.tsv": ("table", "01", None),
        "sub-01/ses-a/sub-01_ses-a_scans.tsv": ("table", "01", "a"),
        "sub-01/ses-a/func/sub-01_ses-a_task-x_run-02_events.tsv": ("table", "01", "a"),
    }
    events = found["sub-01/ses-a/func/sub-01_ses-a_task-x_run-02_events.tsv"]
    assert (events.datatype, events.suffix, events.entities) == ("func", "events", {"task": "x", "run": "02"})
    assert events.size == 6 and events.metadata is events.participant is events.scan is None


def test_what_lies_above_the_sessions_is_in_a_shard_of_the_subject(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz": IMAGE,
        "sub-01/sub-01_T1w.json": {"EchoTime": 1},
        "sub-01/sub-01_sessions.tsv": "session_id\nses-a\n",
    }
    root = bids.write(tmp_path, {"dataset_description.json": bids.description(), **files})
    shards = {spec.path: [row.path for row in spec.rows] for spec in plan(load(root), {})}
    assert shards == {
        "data/sub-01/sub-01.parquet": ["sub-01/sub-01_T1w.json", "sub-01/sub-01_sessions.tsv"],
        "data/sub-01/sub-01_ses-a.parquet": ["sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz"],
    }


@pytest.mark.parametrize("path", ["sub-01/anat/T1w.json", "sub-01/T1w.json", "anat/T1w.json"])
def test_a_sidecar_whose_fields_are_in_a_row_is_a_row_itself_whatever_its_name(tmp_path: Path, path: str) -> None:
    files: dict[str, Content] = {path: {"EchoTime": 1}, "anat/sub-01_T1w.nii.gz": IMAGE}
    dataset = load(bids.one_subject(tmp_path, files))

    applies = not path.startswith("anat/")  # no image is a row there
    assert [row.metadata for row in dataset.images] == ['{"EchoTime": 1}' if applies else None]
    assert (path in rows(dataset), path in reasons(dataset)) == (applies, not applies)


POINTER = "/annex/objects/MD5E-s1000--0123.json\n"  # as git-annex leaves an unlocked file that was not fetched


def test_a_sidecar_that_was_read_is_not_opened_again_and_one_that_applies_to_nothing_may_be_a_stand_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    applies, idle = "sub-01/anat/sub-01_T1w.json", "sub-01/anat/sub-01_T2w.json"
    opened: list[str] = []
    own = builtins.open

    def noted(file: Any, *rest: Any, **more: Any) -> Any:
        opened.append(str(file))
        return own(file, *rest, **more)

    monkeypatch.setattr(builtins, "open", noted)
    files: dict[str, Content] = {T1W: IMAGE, applies: '{"EchoTime": 0.0030000}', idle: POINTER}
    dataset = load(bids.write(tmp_path, {"dataset_description.json": bids.description(), **files}))
    assert {path: file.fetched for path, file in rows(dataset).items()} == {applies: True, idle: False}
    assert [sum(path.endswith(one) for path in opened) for one in (applies, idle)] == [1, 1]


def test_a_sidecar_that_exclude_names_is_neither_a_row_nor_in_metadata(tmp_path: Path) -> None:
    sidecar = "sub-01/anat/sub-01_T1w.json"
    dataset = load(bids.one_subject(tmp_path, {sidecar: {"EchoTime": 1}}), exclude=["*.json"])

    assert dataset.images[0].metadata is None and not dataset.files
    assert reasons(dataset) == {sidecar: "named by `exclude`", "dataset_description.json": "named by `exclude`"}


def test_what_fmriprep_writes_is_published_but_its_reports_and_warps(tmp_path: Path) -> None:
    func, anat = f"{FMRIPREP}/func/sub-01_task-x", f"{FMRIPREP}/anat/sub-01"
    published: dict[str, Content] = {
        f"{func}_desc-confounds_timeseries.tsv": "csf\n0\n",
        f"{func}_desc-confounds_timeseries.json": {},
        f"{func}_space-fsLR_den-91k_bold.dtseries.nii": b"CIFTI",
        f"{func}_space-fsLR_den-91k_bold.json": {},
        f"{func}_hemi-L_space-fsaverage5_bold.func.gii": "<GIFTI/>",
        f"{anat}_hemi-L_pial.surf.gii": "<GIFTI/>",
        f"{anat}_from-T1w_to-fsnative_mode-image_xfm.txt": "#Insight Transform File V1.0",
    }
    left: dict[str, Content] = {
        f"{anat}_from-MNI_to-T1w_mode-image_xfm.h5": b"\x89HDF",
        f"{FMRIPREP}/figures/sub-01_task-x_desc-carpetplot_bold.svg": "<svg/>",
        f"{FMRIPREP}/figures/sub-01_desc-about_T1w.html": "<html/>",
    }
    unnamed: dict[str, Content] = {
        "derivatives/fmriprep/sub-01.html": "<html/>",
        "derivatives/fmriprep/logs/CITATION.md": "cite",
        "derivatives/freesurfer/sub-01/surf/lh.pial": b"surface",
        "derivatives/freesurfer/sub-01/mri/T1.mgz": b"image",
        "derivatives/freesurfer/sub-01/stats/aseg.stats": "# subjectname sub-01",
    }
    described: dict[str, Content] = {"derivatives/fmriprep/dataset_description.json": bids.description()}
    dataset = load(bids.one_subject(tmp_path, {**published, **left, **unnamed, **described}))

    assert {row.path: (row.dataset, row.sub) for row in dataset.files} == dict.fromkeys(published, ("fmriprep", "01"))
    kinds = {path.partition(".")[2]: row.kind for path, row in rows(dataset).items()}
    assert kinds == {
        "tsv": "table", "json": "sidecar", "dtseries.nii": "other", "func.gii": "other", "surf.gii": "other",
        "txt": "other",
    }  # fmt: skip
    assert reasons(dataset) == {**dict.fromkeys(left, NOT_LOOKED_THROUGH), **dict.fromkeys(unnamed, NO_NAME)}


# --- what is left out, and brought back ---

LEFT: dict[str, tuple[Content, str]] = {
    "poster.pdf": (b"%PDF", NO_NAME),
    "extra/table.tsv": ("a\n", NO_NAME),
    "sub-01/anat/notes.tsv": ("a\n", NO_NAME),
    "sub-01/anat/lh.white.gii": ("<GIFTI/>", NO_NAME),
    "sub-01/anat/sub-02_T1w.json": ("{}", CONTRADICTS),
    "sub-01/ses-a/anat/sub-01_ses-b_T1w.json": ("{}", CONTRADICTS),
    "sub-01/anat/sub-01_photo.jpg": (b"a face", NOT_LOOKED_THROUGH),
    "sub-01/eeg/sub-01_rest.edf": (b"0", NO_SUFFIX),
    "binary.txt": (b"\0\1\2", "not a text, against its name"),
    "code/lib.so": (b"\x7fELF\0", f"in code/: {NO_TEXT_THERE}"),
}


@pytest.mark.parametrize("path", LEFT)
def test_each_file_that_is_left_out_has_its_reason_and_include_brings_it_back(tmp_path: Path, path: str) -> None:
    content, reason = LEFT[path]
    root = bids.one_subject(tmp_path, {path: content})
    dataset = load(root)
    assert reasons(dataset) == {path: reason} and not dataset.files

    back = load(root, include=[path])
    assert not reasons(back) and not back.told
    row = rows(back)[path]
    folders = path.split("/")
    assert (row.sub, row.ses) == ("01" if "sub-01" in folders else None, "a" if "ses-a" in folders else None)
    (group,) = [spec.path for spec in plan(back, {}) if row in spec.files]
    assert group.startswith("data/sub-01/" if row.sub else "data/group-")


def test_a_wildcard_brings_back_reports_and_nothing_that_is_hidden_or_outside(tmp_path: Path) -> None:
    reports = {f"{FMRIPREP}/figures/sub-01_desc-about_T1w.html", "derivatives/fmriprep/sub-01.html", "report.html"}
    files: dict[str, Content] = dict.fromkeys((*reports, "code/a.html", ".cache/a.html", "poster.pdf"), "<html/>")
    back = load(bids.one_subject(tmp_path, files), include=["*.html"])

    assert rows(back).keys() == reports and {row.kind for row in back.files} == {"other"}
    assert reasons(back).keys() == {"code/a.html", ".cache/", "poster.pdf"}


def test_a_large_phenotype_and_a_table_whose_place_is_taken_are_rows_since_they_can_be_no_texts(tmp_path: Path) -> None:
    large = "participant_id\n" * 400_000
    files: dict[str, Content] = {"phenotype/wab.tsv": large, "phenotype/wab.json": {}, "left_out.tsv": "theirs\n"}
    dataset = load(bids.one_subject(tmp_path, {**files, "phenotype/report.txt": large}))

    assert {path: (row.kind, row.sub) for path, row in rows(dataset).items()} == {
        "left_out.tsv": ("table", None),
        "phenotype/wab.tsv": ("table", None),
    }
    assert "phenotype/wab.json" in dataset.texts
    assert reasons(dataset) == {"phenotype/report.txt": "larger than 5.0 MB, as no text should be"}
    assert [spec.path for spec in plan(dataset, {}) if not spec.images] == ["data/group-raw/group-raw.parquet"]


# --- what is not here ---


def test_tables_that_were_not_fetched_are_rows_and_in_the_one_command(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "sub-01/func/sub-01_task-x_desc-confounds_timeseries.tsv": key(".tsv"),
        "sub-01/anat/sub-01_T2w.nii.gz": key(".nii.gz", 9000),
        "phenotype/wab.tsv": "/annex/objects/MD5E-s500--0123.tsv\n",
    }
    dataset = load(bids.one_subject(tmp_path, {**files, "sub-01/anat/sub-01_T1w.json": {"a": 1}}))

    assert not reasons(dataset) and {row.path for row in dataset.rows if not row.fetched} == files.keys()
    assert {path: row.size for path, row in rows(dataset).items() if not row.fetched} == {
        "sub-01/func/sub-01_task-x_desc-confounds_timeseries.tsv": 1000,
        "phenotype/wab.tsv": 500,
    }
    assert str(absent(dataset.rows, tmp_path)) == (
        "1 of 2 images and 2 of 3 sidecars, tables and others are not on this machine (10 kB). In the dataset's "
        "folder, `git annex get phenotype sub-01` fetches all of it."
    )


def test_tables_that_are_here_do_not_make_up_for_images_of_which_none_is(tmp_path: Path) -> None:
    files: dict[str, Content] = {"sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz": key(".nii.gz")}
    files |= {"sub-01/sub-01_sessions.tsv": "session_id\nses-a\n", "dataset_description.json": bids.description()}
    dataset = load(bids.write(tmp_path, files))
    shards = plan(dataset, {})
    assert len(shards) == 2

    error = nothing_fetched(dataset, shards, PublicationRecord())
    assert "1 of 1 image is not on this machine" in str(
        error
    ) and "The one shard with images or recordings lacks some of them" in str(error)


def test_a_shard_of_which_a_table_is_not_here_is_none_that_can_be_published(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"sub-01/func/sub-01_desc-confounds_timeseries.tsv": key(".tsv")})
    dataset = load(root)
    said = str(nothing_fetched(dataset, plan(dataset, {}), PublicationRecord()))
    assert "1 of 1 sidecars, tables and others is not on this machine (1 kB)" in said


# --- what people are told ---


def test_what_bidsignore_names_is_told_by_its_sort(tmp_path: Path) -> None:
    files: dict[str, Content] = {"sub-01/anat/sub-01_T1w.json": {}, "sub-01/eeg/sub-01_eeg.edf": b"0", "README": "a"}

    def note(name: str, patterns: str) -> str:
        dataset = load(bids.one_subject(tmp_path / name, {**files, ".bidsignore": patterns}))
        (found,) = (one for one in dataset.notes if "bidsignore" in one)
        return found.partition(": ")[2].partition(". To leave")[0]

    assert note("all", "sub-01/\n/README\n") == (
        f"1 image, 1 file of recordings and 2 other files ({T1W}, sub-01/eeg/sub-01_eeg.edf)"
    )
    assert note("beside", "*.json\n!/*.json\n") == "1 file (sub-01/anat/sub-01_T1w.json)"


ITK = (
    "#Insight Transform File V1.0\n#Transform 0\nTransform: MatrixOffsetTransformBase_double_3_3\n"
    "Parameters: 0.99 -1.2e-05 0 0 1 0 0 0 1 4.5 -6 7\nFixedParameters: 0 0 0\n"
)
FSL = "1  0  0  -12.5\n0  1  0  3e-07\n0  0  1  0\n0  0  0  1\n"


@pytest.mark.parametrize(
    ("ending", "content", "is_row"),
    [
        ("_xfm.txt", ITK, True),
        ("_xfm.mat", FSL, True),
        ("_xfm.mat", b"MATLAB 5.0 MAT-file, written by jdoe\0", False),
        ("_xfm.txt", ITK.replace("MatrixOffset", "Doe_"), False),
        ("_xfm.txt", f"# by jdoe\n{FSL}", False),
        ("_xfm.txt", b"", False),
        ("_xfm.txt", Link("../../../../.git/annex/objects/a/b/MD5E-s9--0.txt/MD5E-s9--0.txt"), False),
        ("_bold.txt", FSL, False),
    ],
)
def test_a_transform_that_is_numbers_is_a_row_and_any_other_is_left_out(
    tmp_path: Path, ending: str, content: Content, is_row: bool
) -> None:
    path = f"{FMRIPREP}/anat/sub-01_from-T1w_to-MNI_mode-image{ending}"
    dataset = load(bids.one_subject(tmp_path, {path: content}))
    assert (path in rows(dataset), reasons(dataset)) == (is_row, {} if is_row else {path: NOT_LOOKED_THROUGH})
