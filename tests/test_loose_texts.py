"""code/ and stimuli/: texts that can be looked through are published, all else there only if `include` names it."""

from pathlib import Path

import pytest

from tasks.card import card, side_files
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.load import load
from tasks.load.texts import MAX_TEXT
from tasks.plan import plan
from tasks.preflight import check
from tasks.record.published import Work
from tasks.report.dry_run import Rehearsal, dry_run
from tasks.values.loose import Loose, loose
from tasks.values.models import Dataset, PublicationRecord
from tasks.values.preflight_rules import Checked, Statement
from tests import bids_examples as bids
from tests.bids_examples import IMAGE, Content, Link

EVENTS = "sub-01/func/sub-01_task-x_events.tsv"
BOLD = "sub-01/func/sub-01_task-x_bold.nii.gz"


def checked(root: Path, files: dict[str, Content], include: tuple[str, ...] = ()) -> tuple[Dataset, Checked]:
    """A dataset with these files, as it would be published, and what was found in it."""
    return check(load(bids.one_subject(root, files), include=include), Statement("no faces"))


def reasons(dataset: Dataset) -> dict[str, str]:
    return {one.path: one.reason for one in dataset.unpublished}


TEXTS: dict[str, Content] = {
    "code/run.py": b"print()\n",
    "code/Makefile": b"all:\n\ttrue\n",
    "code/lib/größe.m": "% größe\n".encode("cp1252"),
    "code/empty.R": b"",
    "code/windows.txt": "a\r\n".encode("utf-16"),
    "code/log.txt": b"\x1b[31mdone\x1b[0m\n",
    "code/analysis.ipynb": {"cells": [{"source": ["1 + 1"]}]},
    "code/subjects.csv": "participant_id,x\nsub-01,1\n",
    "stimuli/words.txt": b"house\ntree\n",
    "stimuli/a/list.tsv": "word\nhouse\n",
    "derivatives/p/code/run.sh": b"#!/bin/sh\n",
}


@pytest.mark.parametrize("path", TEXTS)
def test_a_text_in_code_or_stimuli_is_published_as_it_is(tmp_path: Path, path: str) -> None:
    dataset, found = checked(tmp_path, {path: TEXTS[path]})

    assert path not in reasons(dataset)
    assert side_files(dataset)[f"bids/{path}"] == (tmp_path / path).read_bytes()
    assert not found.findings
    assert [spec.path for spec in plan(dataset, {})] == ["data/sub-01/sub-01.parquet"]


NO_TEXTS: dict[str, Content] = {
    "stimuli/face.png": b"\x89PNG",
    "stimuli/drawing.svg": b"<svg/>",
    "stimuli/word.wav": b"RIFF\0\0",
    "stimuli/brain.nii.gz": IMAGE,
    "stimuli/sub-01_task-x_stim.dat": b"\x01\x02",
    "stimuli/not_here.png": Link("../.git/annex/objects/a/b/MD5E-s9--0.png/MD5E-s9--0.png"),
    "code/report.html": b"<html/>",
    "code/model.mat": b"MATLAB 5.0 MAT-file \x0b\x00\x01",
    "code/figures.ipynb": {"cells": [{"outputs": [{"data": {"image/png": "iVBORw0KGgo" * 100}}]}]},
    "code/figures_in_lines.ipynb": {"image/png": f"{'iVBORw0KGgoAAAANSUhEUgAAA' * 3}\n" * 20},
    "code/lib.so": b"\x7fELF\x02\x01",
}  # fmt: skip


@pytest.mark.parametrize("path", NO_TEXTS)
def test_what_is_shown_played_or_no_text_is_left_out_with_the_reason_unless_include_names_its_folder(
    tmp_path: Path, path: str
) -> None:
    folder = path.split("/")[0]
    dataset, _ = checked(tmp_path, {path: NO_TEXTS[path]}, include=("*.png", "*_stim.*", "*.nii.gz", "*.html"))
    assert reasons(dataset) == {
        path: f"in {folder}/: it is no text, so nobody looks through it before publication; `include` publishes it all "
        "the same"
    }
    assert dataset.left_out == {f"in {folder}/": 1}

    included = load(tmp_path, include=[f"{folder}/"])
    assert path in {row.path for row in included.rows}, included.unpublished


def test_a_table_or_json_there_that_cannot_be_read_is_left_out_and_stops_nothing_unless_include_names_it(
    tmp_path: Path,
) -> None:
    files: dict[str, Content] = {
        "code/a.csv": b"name;born\nJane;1970\n",
        "code/a.json": b"{// options\n}",
        "stimuli/a.tsv": b"a\tb\n1\n",
        "code/b.json": {"fine": 1},
    }
    dataset, found = checked(tmp_path, files)
    assert not found.stops
    assert reasons(dataset) == {
        path: f"it cannot be read, so nobody looks through it before publication ({why})"
        for path, why in {
            "code/a.csv": "line 1: no comma in it, so its columns cannot be told apart",
            "code/a.json": "not JSON: line 1, column 2",
            "stimuli/a.tsv": "line 2: 1 cell, and 2 in the first line",
        }.items()
    }
    assert dataset.texts.keys() >= {"code/b.json"}

    _, found = check(load(tmp_path, include=["code/"]), Statement("no faces"))
    assert {one.rule for one in found.stops} == {"unreadable"}


def test_tables_and_json_there_are_looked_through_as_everywhere(tmp_path: Path) -> None:
    files: dict[str, Content] = {"code/config.json": {"PatientName": "Doe"}, "code/ids.csv": "surname,age\nDoe,95\n"}
    _, found = checked(tmp_path, files)
    assert {(one.rule, one.field) for one in found.stops} == {
        ("personal-data", "PatientName"),
        ("personal-data", "surname"),
        ("age-over-89", "age"),
    }


def test_a_large_table_there_is_a_row_of_nobodys_and_another_large_text_is_left_out(tmp_path: Path) -> None:
    line = b"1\t2\n"
    files: dict[str, Content] = {
        "stimuli/sub-01/features.tsv": b"a\tb\n" + line * (MAX_TEXT // len(line)),
        "code/large.m": b"%" * 900 + b"\n" + b"% a\n" * (MAX_TEXT // 4),
    }
    dataset = load(bids.one_subject(tmp_path, files))
    (row,) = dataset.files
    assert (row.path, row.sub, row.kind) == ("stimuli/sub-01/features.tsv", None, "table")
    assert [spec.path for spec in plan(dataset, {})] == [
        "data/group-stimuli/group-stimuli.parquet",
        "data/sub-01/sub-01.parquet",
    ]
    assert reasons(dataset) == {"code/large.m": "in code/: larger than 5.0 MB, as no text should be"}


def test_hidden_files_there_and_what_exclude_names_stay_out(tmp_path: Path) -> None:
    files: dict[str, Content] = {"code/.env": b"x", "code/.git/config": b"x", "code/a.py": b"x", "code/b.py": b"x"}
    dataset = load(bids.one_subject(tmp_path, files), exclude=["/code/a.py"])
    assert [path for path in dataset.texts if path.startswith("code/")] == ["code/b.py"]
    assert reasons(dataset) == {
        "code/": "hidden",
        "code/.git/": "a hidden folder, not looked into",
        "code/a.py": "named by `exclude`",
    }


def test_nothing_in_code_applies_to_an_image_and_a_dataset_in_it_has_no_subjects(tmp_path: Path) -> None:
    inner = "code/tests/data"
    files: dict[str, Content] = {
        "code/T1w.json": {"EchoTime": 1},
        f"{inner}/dataset_description.json": bids.description(),
        f"{inner}/participants.tsv": "participant_id\nsub-77\n",
        f"{inner}/sub-77/anat/sub-77_T1w.nii.gz": IMAGE,
        f"{inner}/sub-77/anat/sub-77_T1w.json": {"EchoTime": 2},
    }
    dataset, _ = checked(tmp_path, files)
    assert [(image.path, image.metadata) for image in dataset.images] == [("sub-01/anat/sub-01_T1w.nii.gz", None)]
    assert dataset.texts.keys() >= files.keys() - {f"{inner}/sub-77/anat/sub-77_T1w.nii.gz"}
    assert not any("sub-77" in (row.get("participant_id") or "") for row in dataset.participants)


def test_what_include_names_there_keeps_the_place_that_it_had_before_texts_were_published(tmp_path: Path) -> None:
    files: dict[str, Content] = {"code/README": b"x", "code/run.py": b"x", "code/sub-01/fix.py": b"x"}
    dataset = load(bids.one_subject(tmp_path, files), include=["code/"])
    assert {row.path: row.sub for row in dataset.files} == {"code/run.py": None, "code/sub-01/fix.py": "01"}
    assert "code/README" in dataset.texts and not dataset.if_readable


@pytest.mark.parametrize(
    ("path", "text", "expected"),
    [
        ("code/a.py", "# by j.roe@lab.example", ("address", "e-mail address")),
        ("code/a.sh", "cd /home/jdoe/data", ("address", "home folder")),
        ("code/a.m", r"cd('C:\Users\jdoe')", ("address", "home folder")),
        ("code/a.py", "git clone git@github.com:a/b.git; see https://x.org/home/page; cd ~/data; a @ b.T", None),
        ("README.md", "Write to j.roe@lab.example", None),
        ("code/a.R", "x <- 'Doe, Jane'  # moved", ("personal-text", "name in participants.tsv")),
        ("README.md", "Thanks to jane doe.", ("personal-text", "name in participants.tsv")),
        ("code/a.py", "jane = max(doe)", None),
        ("code/a.py", f"login('hf_{'a' * 34}')", ("personal-text", "token")),
        ("code/a.sh", f"export AWS=AKIA{'Q' * 16}", ("personal-text", "token")),
        ("README", f"-----BEGIN RSA PRIVATE KEY-----\n{'MIIE' * 16}\n", ("personal-text", "private key")),
        ("code/a.py", "if '-----BEGIN PRIVATE KEY-----' in text: hf_token = os.environ['HF_TOKEN']", None),
    ],
)
def test_a_text_is_searched_for_what_can_be_known(
    tmp_path: Path, path: str, text: str, expected: tuple[str, str] | None
) -> None:
    people: dict[str, Content] = {"participants.tsv": "participant_id\tname\nsub-01\tJane Doe\n"}
    dataset = load(bids.one_subject(tmp_path, {path: text.encode(), **people}))
    stripped, found = check(dataset, Statement("no faces", strip=("name",)))

    here = [one for one in found.findings if path in one.files]
    assert [(one.rule, one.field) for one in here] == ([expected] if expected else [])
    assert all(one.stops == (one.rule == "personal-text") for one in here)
    assert path in stripped.texts


def test_stimuli_that_events_name_and_that_are_left_out_are_counted(tmp_path: Path) -> None:
    events = "onset\tstim_file\n1\tface.png\n2\tstimuli/house.png\n3\tn/a\n4\tword.txt\n5\tnowhere.png\n"
    stimuli: dict[str, Content] = {"stimuli/face.png": b"\x89", "stimuli/house.png": b"\x89", "stimuli/word.txt": b"x"}
    root = bids.one_subject(tmp_path, {BOLD: IMAGE, EVENTS: events, "stimuli/other.png": b"\x89", **stimuli})

    (said,) = [note for note in load(root).notes if "stim_file" in note]
    assert "left out: 2 of 4 (stimuli/face.png, stimuli/house.png)" in said
    assert not any("stim_file" in note for note in load(root, include=["/stimuli/"]).notes)


def test_how_many_texts_of_each_folder_are_published_and_how_many_files_stay_out_is_counted(tmp_path: Path) -> None:
    named: dict[str, Content] = {
        "code/tool.bin": b"\x7fELF\0",
        "stimuli/face.png": b"\x89PNG",
        "stimuli/b.wav": b"RIFF\0",
    }
    files: dict[str, Content] = {**TEXTS, **named, "sub-01/anat/sub-01_T1w.pdf": b"%PDF"}
    dataset, _ = checked(tmp_path, files)
    texts = {name: sum(f"{name}/" in path for path in TEXTS) for name in ("code", "stimuli")}
    assert loose(dataset) == {"code": Loose(texts["code"], 1), "stimuli": Loose(texts["stimuli"], 2)}
    dataset, _ = checked(tmp_path, {}, include=("stimuli/",))
    assert loose(dataset) == {"code": Loose(texts["code"], 1)}


def test_a_dataset_without_these_folders_has_nothing_to_count(tmp_path: Path) -> None:
    assert loose(checked(tmp_path, {})[0]) == {}


def test_card_and_dry_run_say_how_much_of_code_and_stimuli_is_published(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "code/a.py": b"1\n", "code/b.py": b"2\n", "code/tool.bin": b"\x7fELF\0", "stimuli/words.txt": b"house\n",
        "stimuli/face.png": b"\x89PNG", "stimuli/b.wav": b"RIFF\0",
    }  # fmt: skip
    dataset, found = checked(tmp_path, files)
    said = card(dataset, "lab/some", PublicationRecord(), None)
    assert (
        "**Code and stimuli** are under `bids/` as far as they are texts: 2 texts of `code` and 1 text of `stimuli`; "
        "1 file of `code` and 2 files of `stimuli` not, as said under What was left out"
    ) in said
    assert "in stimuli/: it is no text, so nobody looks through it before publication" in said
    hub = Hub(Target("http://hub.test", "lab/some"), "")
    rehearsal = Rehearsal(dataset, plan(dataset, {}), Work((), (), (), ()), PublicationRecord(), found)
    told = dry_run(hub, rehearsal)
    assert "| code/ | 2 | 1 |" in told and "| stimuli/ | 1 | 2 |" in told
    assert '`exclude=["/code/", "/stimuli/"]`' in told


# --- a folder with more texts than a folder of the repo may have entries ---


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.load.texts.MOST_ENTRIES", 3)


MANY: dict[str, Content] = {f"code/{number}.py": f"# {number}\n" for number in range(4)}
WAYS: dict[str, dict[str, Content]] = {
    "in one folder": MANY,
    "in folders of their own": {f"code/{number}/run.py": b"\n" for number in range(4)},
    "deeper": {f"derivatives/p/code/a/{number}.py": b"\n" for number in range(4)},
    "in phenotype": {f"phenotype/{number}.json": {"a": {"Units": "s"}} for number in range(4)},
    "at the root": {f"task-{number}_bold.json": {"RepetitionTime": 2.0} for number in range(4)},
}


@pytest.mark.usefixtures("few")
@pytest.mark.parametrize("files", WAYS.values(), ids=WAYS)
def test_the_texts_of_a_folder_with_too_many_are_rows_of_a_shard(tmp_path: Path, files: dict[str, Content]) -> None:
    dataset, found = checked(tmp_path, files)
    rows = {row.path: row for row in dataset.files}
    assert files.keys() <= rows.keys() and not files.keys() & {*dataset.texts, *reasons(dataset)}
    assert not found.findings and "dataset_description.json" in dataset.texts
    (shard,) = [spec for spec in plan(dataset, {}) if files.keys() & {row.path for row in spec.rows}]
    assert shard.name.startswith("group-") and files.keys() <= {row.path for row in shard.rows}
    folders = [path.rpartition("/")[0] for path in side_files(dataset) if path.startswith("bids/")]
    assert max(folders.count(one) for one in folders) <= 4  # that of the root, with what BIDS wants there


@pytest.mark.usefixtures("few")
def test_of_a_folder_that_has_just_as_many_each_text_is_published_as_it_is(tmp_path: Path) -> None:
    dataset, _ = checked(tmp_path, dict(list(MANY.items())[:3]))
    assert {*MANY} - {"code/3.py"} <= dataset.texts.keys() and not dataset.texts_as_rows


@pytest.mark.usefixtures("few")
def test_texts_that_are_rows_are_looked_through_too_and_are_executable_as_they_were(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {**MANY, "code/0.py": "# write to jane.doe@uni.example\n"})
    (root / "code/1.py").chmod(0o755)
    dataset, found = check(load(root), Statement("no faces"))
    assert [(one.rule, one.files) for one in found.findings] == [("address", ("code/0.py",))]
    assert [row.path for row in dataset.files if row.executable] == ["code/1.py"]
