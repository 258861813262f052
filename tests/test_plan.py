"""Plan: shards with stable names, and digests that change with what decides a shard's bytes, and with nothing else."""

import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks import plan as plan_module
from tasks.load import load
from tasks.plan import plan
from tasks.values.models import Dataset, Image, ShardSpec
from tests import bids_examples as bids

WRITER = {"row_group_bytes": 1 << 26, "compression": "zstd"}


def image(
    sub: str | None = "01", ses: str | None = "a", datatype: str | None = "anat", suffix: str = "T1w", **more: Any
) -> Image:
    folder = "/".join([f"sub-{sub}" if sub else "group", *([f"ses-{ses}"] if ses else []), datatype or "x"])
    path = more.pop("path", f"{folder}/sub-{sub}_ses-{ses}_{suffix}.nii.gz")
    defaults: dict[str, Any] = {"size": 10, "mtime_ns": 1, "dataset": "raw"}
    return Image(path=path, sub=sub, ses=ses, datatype=datatype, suffix=suffix, **defaults | more)


def dataset(*images: Image) -> Dataset:
    return Dataset("/somewhere", "name", {}, tuple(sorted(images, key=lambda one: one.path)))


def shards(*images: Image, writer: dict[str, object] = WRITER) -> tuple[ShardSpec, ...]:
    return plan(dataset(*images), writer)


def digest(one: Image, writer: dict[str, object] = WRITER) -> str:
    (shard,) = shards(one, writer=writer)
    return shard.digest


# --- which shards there are ---


def test_a_session_is_a_shard_and_a_subject_without_sessions_is_one(tmp_path: Path) -> None:
    planned = plan(load(bids.two_sessions(tmp_path)), WRITER)

    assert [(shard.path, shard.name, [one.path.rpartition("/")[2] for one in shard.rows]) for shard in planned] == [
        ("data/sub-01/sub-01.parquet", "sub-01", ["sub-01_sessions.tsv"]),
        (
            "data/sub-01/sub-01_ses-a.parquet",
            "sub-01_ses-a",
            [
                "sub-01_ses-a_T1w.nii.gz",
                "sub-01_ses-a_desc-lesion_mask.nii.gz",
                "sub-01_ses-a_task-rest_bold.nii.gz",
                "sub-01_ses-a_T1w.json",
                "sub-01_ses-a_desc-lesion_mask.json",
                "sub-01_ses-a_task-rest_bold.json",
                "sub-01_ses-a_scans.tsv",
            ],
        ),
        ("data/sub-01/sub-01_ses-b.parquet", "sub-01_ses-b", ["sub-01_ses-b_T1w.nii"]),
        ("data/sub-02/sub-02.parquet", "sub-02", ["sub-02_T1w.nii.gz"]),
    ]


def test_the_rows_of_one_suffix_lie_together() -> None:
    rows = [
        image(suffix="bold", datatype="func", path="1"),
        image(suffix="T2w", path="2"),
        image(suffix="T1w", path="3"),
        image(suffix="T2w", path="0", dataset="masks"),
        image(suffix="T1w", datatype=None, path="4"),
    ]
    (shard,) = shards(*rows)
    assert [(one.datatype, one.suffix, one.path) for one in shard.images] == [
        (None, "T1w", "4"),
        ("anat", "T1w", "3"),
        ("anat", "T2w", "0"),
        ("anat", "T2w", "2"),
        ("func", "bold", "1"),
    ]


def test_images_that_are_nobodys_have_shards_of_their_own() -> None:
    planned = shards(
        image(None, None, entities={"tpl": "MNI"}, path="derivatives/t/tpl-MNI/tpl-MNI_T1w.nii.gz", dataset="t"),
        image(None, None, entities={"task": "x"}, path="derivatives/glm/task-x_bold.nii.gz", dataset="glm"),
        image(),
    )
    assert [shard.path for shard in planned] == [
        "data/group-glm/group-glm.parquet",
        "data/sub-01/sub-01_ses-a.parquet",
        "data/tpl-MNI/tpl-MNI.parquet",
    ]


labels = st.text(st.characters(codec="utf-8", exclude_characters="/_\0"), min_size=1, max_size=12)


@given(st.sets(st.tuples(labels, labels | st.none()), min_size=1, max_size=30))
def test_whatever_the_labels_paths_are_safe_and_no_two_are_one_file_anywhere(sessions: Any) -> None:
    planned = shards(*(image(sub, ses) for sub, ses in sessions))

    paths = [shard.path for shard in planned]
    assert len({path.casefold() for path in paths}) == len(sessions)
    assert paths == sorted(paths)
    for shard in planned:
        assert shard.path == f"data/{PurePosixPath(shard.path).parent.name}/{shard.name}.parquet"
        assert shard.path.isascii() and not set(shard.path) & set(" \\:*?\"<>|[]{}%#&'+")
        assert len(shard.name) < 240


def test_labels_that_differ_in_case_alone_are_two_files_on_every_disk() -> None:
    paths = [shard.path for shard in shards(image("a1"), image("A1"), image("b1", "x"), image("b1", "X"), image("c1"))]

    assert len({path.casefold() for path in paths}) == 5
    assert "data/sub-c1/sub-c1_ses-a.parquet" in paths


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("xyz")), unique=True, min_size=2))
def test_a_shard_stays_as_it_is_when_others_come_and_go(sessions: Any) -> None:
    whole = {shard.path: shard for shard in shards(*(image(*session) for session in sessions))}

    for left in range(len(sessions)):
        part = shards(*(image(*session) for session in sessions[:left] + sessions[left + 1 :]))
        assert len(part) == len(whole) - 1
        assert all(whole[shard.path] == shard for shard in part)


def test_the_same_dataset_gives_the_same_plan_whatever_the_order_of_its_images() -> None:
    images = [image("02"), image("01"), image("01", suffix="T2w")]

    assert plan(Dataset("/a", "x", {}, tuple(images)), WRITER) == shards(*images)
    assert shards(*images, writer=dict(reversed(WRITER.items()))) == shards(*images)


# --- what the digest is about ---

words = st.text(st.characters(codec="utf-8"), max_size=8)
texts = st.none() | words
NO_TIME = dict.fromkeys(("mtime_ns", "ctime_ns", "inode"), 0)  # when which file was written: not what is in it
strings = st.dictionaries(words, words, max_size=3)
images = st.builds(
    Image,
    path=words,
    size=st.integers(0, 2**40),
    dataset=words,
    sub=st.just("01"),
    ses=st.just("a"),
    datatype=texts,
    suffix=words,
    entities=strings,
    extra_entities=strings,
    **dict.fromkeys(NO_TIME, st.integers(0, 2**60)),
    **dict.fromkeys(
        ("annex_key", "metadata", "bval", "bvec", "events", "events_metadata", "participant", "session", "scan"), texts
    ),
)


@pytest.mark.slow
@settings(max_examples=300)
@given(images, images)
def test_two_images_have_one_digest_only_if_they_differ_in_nothing_but_the_time(one: Any, other: Any) -> None:
    same = replace(one, **NO_TIME) == replace(other, **NO_TIME)

    assert (digest(one) == digest(other)) == same


@pytest.mark.parametrize("name", [field.name for field in fields(Image) if field.name not in NO_TIME])
@given(one=images, other=images)
@settings(max_examples=25)
def test_a_change_of_any_field_changes_the_digest(name: Any, one: Any, other: Any) -> None:
    changed = replace(one, **{name: getattr(other, name)})

    assert (digest(changed) == digest(one)) == (changed == one)


@given(images, st.sampled_from(sorted(NO_TIME)), st.integers(0, 2**60))
def test_the_times_and_the_inode_of_a_file_change_nothing(one: Any, name: Any, value: Any) -> None:
    assert digest(replace(one, **{name: value})) == digest(one)
    assert digest(replace(one, fetched=not one.fetched)) == digest(one)


@given(st.lists(images, min_size=1, max_size=4, unique_by=lambda one: one.path), images)
def test_an_image_more_changes_the_digest_of_its_shard_alone(rows: Any, more: Any) -> None:
    elsewhere = image("99")
    before = {shard.path: shard.digest for shard in shards(*rows, elsewhere)}
    after = {shard.path: shard.digest for shard in shards(*rows, more, elsewhere)}

    assert [path for path in before if before[path] != after[path]] == ["data/sub-01/sub-01_ses-a.parquet"]


def test_the_writers_settings_the_layout_and_the_path_are_in_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    one = image()
    found = [digest(one), digest(one, writer={}), digest(one, writer=WRITER | {"compression": "none"})]
    found.append(digest(replace(one, sub="02")))
    monkeypatch.setattr(plan_module, "LAYOUT_VERSION", plan_module.LAYOUT_VERSION + 1)  # type: ignore[attr-defined]
    found.append(digest(one))

    assert len(set(found)) == 5


def test_a_digest_is_the_same_on_any_day() -> None:
    """If this fails, every published shard would be written again: raise LAYOUT_VERSION, if that is meant."""
    one = image(entities={"task": "ü"}, metadata="{}", annex_key="MD5E-s1--a")

    assert digest(one) == "1c132d91765596b675a3387e3e241637ca533a38a55a6edfc17163df831287c9"


# --- whole datasets ---


@pytest.fixture(scope="module")
def ds004884(whole: Path) -> Dataset:
    return load(whole)


@pytest.mark.slow
def test_ds004884_is_902_shards_with_all_of_its_5164_images(ds004884: Dataset) -> None:
    planned = plan(ds004884, WRITER)

    assert len(planned) == len({shard.digest for shard in planned}) == 902
    rows = [one for shard in planned for one in shard.images]
    assert sorted(one.path for one in rows) == [one.path for one in ds004884.images]
    shard = next(shard for shard in planned if shard.path == "data/sub-M2001/sub-M2001_ses-1253.parquet")
    assert [(one.dataset, one.suffix) for one in shard.images] == [
        ("raw", "T2w"),
        ("lesion_masks", "mask"),
        ("raw", "bold"),
    ]


@pytest.mark.slow
def test_planning_opens_no_image(tmp_path: Path) -> None:
    bids.two_sessions(tmp_path)
    for path in tmp_path.rglob("*.nii*"):
        path.write_bytes(b"x" * 5000)
    script = """
import sys
from pathlib import Path
from tasks.load import load
from tasks.plan import plan
opened = []
sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" else None)
shards = plan(load(Path(sys.argv[1])), {})
print(len(shards), sum(".json" in path for path in opened) > 0, sum(".nii" in path for path in opened))
"""
    done = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True, check=True)
    assert done.stdout == "4 True 0\n"
