"""The card of a dataset with recordings: what loads, what the lines of code give, what is counted, how it reads."""

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import duckdb
import mne  # type: ignore[import-untyped]
import numpy as np
import pandas  # type: ignore[import-untyped]
import polars
import pyarrow.dataset
import pyarrow.parquet as pq
import pytest
from huggingface_hub import DatasetCard

from tasks.card import About, Pictures, card, draw
from tasks.load import load
from tasks.plan import plan
from tasks.values.models import PublicationRecord
from tasks.values.preflight_rules import Checked, Statement
from tests import bids_examples as bids
from tests.bids_examples import IMAGE
from tests.eeg_files import CHANNELS, RATE, brainvision, edf
from tests.test_card import REPO, card_of, code_on, html_of, publish, published, rows_in, yaml_of

CTF = "sub-01/meg/sub-01_task-rest_meg.ds"
SPIM = "sub-01/micr/sub-01_sample-A_SPIM"
#: Files of the same datatypes and suffixes as images and recordings, or of their own; one is empty.
BESIDE = {
    "sub-01/anat/sub-01_T1w.json": b'{"EchoTime": 0.003}\n',
    "sub-01/eeg/sub-01_task-rest_eeg.json": b'{ "TaskName" : "rest" }',
    "sub-01/eeg/sub-01_task-rest_channels.tsv": b"name\ttype\r\nCz\tEEG\r\n",
    "sub-01/func/sub-01_task-rest_bold.json": b"{}",
    "sub-01/func/sub-01_task-rest_physio.json": b'{"StartTime": 0}',
    "sub-01/func/sub-01_task-rest_events.tsv": b"",
    "sub-01/anat/sub-01_hemi-L_T1w.surf.gii": b"<GIFTI/>",
    "sub-01/micr/sub-01_sample-A_SPIM.json": b"{}",
}


def triple(path: str, seed: int = 0) -> dict[str, bytes]:
    """A BrainVision recording at a path without its extension."""
    folder, _, name = path.rpartition("/")
    return {f"{folder}/{file}": data for file, data in brainvision(name, seed).items()}


def eeg_study(root: Path) -> Path:
    """Recordings alone: two of BrainVision and one EDF, with channels, events and a pulse."""
    return bids.write(
        root,
        {
            "dataset_description.json": bids.description(Name="An EEG study"),
            "participants.tsv": [["participant_id", "age"], ["sub-01", "34"], ["sub-02", "n/a"]],
            "task-rest_eeg.json": {"TaskName": "rest"},
            **triple("sub-01/eeg/sub-01_task-rest_run-1_eeg", seed=1),
            **triple("sub-01/eeg/sub-01_task-rest_run-2_eeg", seed=2),
            "sub-01/eeg/sub-01_task-rest_channels.tsv": [["name", "type"], ["Cz", "EEG"]],
            "sub-01/eeg/sub-01_task-rest_run-1_physio.tsv.gz": bids.nifti(IMAGE, True),
            "sub-02/eeg/sub-02_task-rest_eeg.edf": edf(),
        },
    )


def both(root: Path) -> Path:
    """Images and recordings, two of one datatype and suffix among them, and files of every other kind beside them."""
    return bids.one_subject(
        root,
        {
            **triple("sub-01/eeg/sub-01_task-rest_eeg"),
            **{f"{CTF}/{name}": name.encode() for name in ("BadChannels", "hz.ds/a.hist", "x.meg4", "x.res4")},
            f"{SPIM}.nii.gz": IMAGE,
            f"{SPIM}.ome.tif": b"II*\0",
            "sub-01/func/sub-01_task-rest_bold.nii.gz": IMAGE,
            "sub-01/func/sub-01_task-rest_physio.tsv.gz": bids.nifti(IMAGE, True),
            **BESIDE,
        },
    )


# --- the configs ---


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A published dataset with images and recordings."""
    folder = tmp_path_factory.mktemp("both")
    publish(both(folder / "bids"), folder / "repo")
    return folder / "repo"


CONFIGS = {
    "default": {"image": 3},
    "anat_T1w": {"image": 1},
    "func_bold": {"image": 1},
    "micr_SPIM": {"image": 1},
    "eeg_eeg": {"recording": 3},
    "func_physio": {"recording": 1},
    "meg_meg": {"recording": 4},
    "micr_SPIM_recordings": {"recording": 1},
    "files": {"sidecar": 5, "table": 2, "other": 1},
}


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize("config", CONFIGS)
def test_each_config_loads_the_files_of_its_kind_and_no_other(
    repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, config: str, streaming: bool
) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    how = {"streaming": True} if streaming else {"writer_batch_size": 1}
    rows = list(datasets.load_dataset(str(repo), config, split="train", **how))

    assert {kind: sum(row["kind"] == kind for row in rows) for kind in {row["kind"] for row in rows}} == CONFIGS[config]
    for row in rows:
        if row["kind"] == "image":
            assert row["nifti"].shape == IMAGE.shape and row["content"] is None
        else:
            assert row["content"] == (repo.parent / "bids" / row["path"]).read_bytes() and row["nifti"] is None
            assert hashlib.sha256(row["content"]).hexdigest() == row["sha256"] and len(row["content"]) == row["size"]
    if config == "files":
        assert {row["path"]: row["content"] for row in rows} == BESIDE


def test_the_configs_are_those_with_images_then_those_with_recordings_then_the_files_beside(repo: Path) -> None:
    assert [config["config_name"] for config in yaml_of((repo / "README.md").read_text())["configs"]] == list(CONFIGS)


def test_a_reader_of_one_config_passes_over_all_other_row_groups(repo: Path) -> None:
    (file,) = (repo / "data").rglob("*.parquet")
    for config in yaml_of((repo / "README.md").read_text())["configs"]:
        wanted = pq.filters_to_expression(config["filters"])
        (fragment,) = pyarrow.dataset.dataset(file).get_fragments()
        kept = fragment.subset(filter=wanted)
        assert sum(group.num_rows for group in kept.row_groups) == sum(CONFIGS[config["config_name"]].values())


def test_duckdb_and_polars_find_a_recordings_bytes_and_its_tables(tmp_path: Path) -> None:
    root = eeg_study(tmp_path / "bids")
    publish(root, tmp_path / "repo")
    files, path = f"{tmp_path}/repo/data/**/*.parquet", "sub-01/eeg/sub-01_task-rest_run-2_eeg.eeg"
    expected = ((root / path).read_bytes(), "name\ttype\nCz\tEEG\n")

    asked = f"select content, channels from '{files}' where kind = 'recording' and path = '{path}'"
    assert duckdb.sql(asked).fetchall() == [expected]
    found = polars.scan_parquet(files).filter(polars.col("path") == path).select("content", "channels").collect()
    assert found.rows() == [expected]


def test_every_reader_of_parquet_has_the_files_beside_byte_for_byte(repo: Path) -> None:
    files, beside = f"{repo}/data/**/*.parquet", ["sidecar", "table", "other"]
    (one,) = (repo / "data").rglob("*.parquet")

    asked = duckdb.sql(f"select path, content from '{files}' where kind in {tuple(beside)} and nifti is null")
    assert dict(asked.fetchall()) == BESIDE
    wanted = polars.scan_parquet(files).filter(polars.col("kind").is_in(beside), polars.col("nifti").is_null())
    assert dict(wanted.select("path", "content").collect().rows()) == BESIDE
    table = pandas.read_parquet(one, columns=["path", "content"], filters=[("kind", "in", beside)])
    assert dict(zip(table["path"], table["content"], strict=True)) == BESIDE
    rows = pq.read_table(one, filters=[("kind", "in", beside)]).to_pylist()
    assert {row["path"]: row["content"] for row in rows} == BESIDE
    assert {row["nifti"] for row in rows} == {row["metadata"] for row in rows} == {None}


def test_without_an_image_default_is_every_file_of_a_recording(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    publish(eeg_study(tmp_path / "bids"), tmp_path / "repo")

    rows = list(datasets.load_dataset(str(tmp_path / "repo"), split="train", streaming=True))
    assert len(rows) == 8 and {row["kind"] for row in rows} == {"recording"}


def test_with_images_alone_no_filter_asks_for_a_column_that_older_shards_lack(tmp_path: Path) -> None:
    configs = yaml_of(card_of(bids.one_subject(tmp_path)))["configs"]

    assert "filters" not in configs[0]
    assert all("kind" not in {column for column, *_ in config.get("filters", ())} for config in configs)


def test_configs_of_rows_that_are_gone_go_and_those_of_people_stay(tmp_path: Path) -> None:
    dataset = load(both(tmp_path))
    first = card(dataset, REPO, published(*plan(dataset, {})), None)
    theirs = [f"- config_name: {name}\n  data_files: data/**/*.parquet\n  filters:\n  - [kind, {how}]\n"
              for name, how in (("mine", "==, recording"), ("tables", "in, [table]"))]  # fmt: skip
    edited = first.replace("configs:\n", f"configs:\n{''.join(theirs)}", 1)
    less = replace(dataset, images=tuple(one for one in dataset.images if one.datatype == "anat"), files=())

    configs = yaml_of(card(less, REPO, published(*plan(less, {})), edited))["configs"]
    assert [config["config_name"] for config in configs] == ["default", "anat_T1w", "mine", "tables"]
    assert "filters" not in configs[0]


def test_before_the_first_image_the_files_beside_are_the_one_config_of_shards(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))
    tables, *_ = plan(dataset, {})
    text = card(dataset, REPO, published(tables), card(dataset, REPO, published(*plan(dataset, {})), None))

    assert [config["config_name"] for config in yaml_of(text)["configs"]] == ["files", "participants", "sessions"]
    assert "No image and no recording is published yet." in text
    assert "Other files of the BIDS tree are in the config `files`: 1 table (" in text


# --- the lines of code ---


def run(block: str) -> dict[str, Any]:
    """Run a block of a card, and return its names."""
    names: dict[str, Any] = {}
    exec(block, names)
    return names


@pytest.mark.parametrize(
    ("files", "name"),
    [
        ({"sub-01/eeg/sub-01_task-rest_eeg.edf": edf(seed=3)}, "sub-01/eeg/sub-01_task-rest_eeg"),
        (
            {**triple("sub-01/eeg/sub-01_task-a_eeg", 3), **triple("sub-01/eeg/sub-01_task-b_eeg", 4)},
            "sub-01/eeg/sub-01_task-a_eeg",
        ),
        (
            {"sub-02/ieeg/sub-02_task-x_ieeg.edf": edf(), **triple("sub-01/ieeg/sub-01_task-x_ieeg", 3)},
            "sub-01/ieeg/sub-01_task-x_ieeg",
        ),
    ],
)
def test_the_cards_lines_open_the_first_recording_with_mne(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], files: dict[str, bytes], name: str
) -> None:
    description = {"dataset_description.json": bids.description()}
    root = bids.write(tmp_path / "bids", description | files)  # type: ignore[operator]
    publish(root, tmp_path / "repo")
    block, *_ = code_on((tmp_path / "repo" / "README.md").read_text())

    names = run(block)
    (opened,) = [root / path for path in files if path.startswith(f"{name}.") and path.endswith((".edf", ".vhdr"))]
    expected = mne.io.read_raw(opened, verbose="error").get_data()
    assert names["name"] == name and f"{name} {RATE:.1f} {list(CHANNELS)}" in capsys.readouterr().out
    assert names["raw"].get_data().shape == (len(CHANNELS), 2 * RATE) and (names["raw"].get_data() == expected).all()


def test_a_recording_in_several_fif_files_is_opened_whole(tmp_path: Path) -> None:
    info = mne.create_info(4, 1000.0, "mag")
    whole = mne.io.RawArray(np.random.default_rng(0).normal(size=(4, 400_000)), info, verbose="error")
    root = bids.write(tmp_path / "bids", {"dataset_description.json": bids.description()})
    first = root / "sub-01/meg/sub-01_task-rest_meg.fif"
    first.parent.mkdir(parents=True)
    whole.save(first, split_size="3MB", split_naming="bids", verbose="error")
    parts = len(list(first.parent.iterdir()))
    assert parts > 1
    publish(root, tmp_path / "repo")
    text = (tmp_path / "repo" / "README.md").read_text()

    assert f"\n1 recording in {parts} files of 1 subject, " in text
    assert run(code_on(text)[0])["raw"].n_times == whole.n_times


def test_what_calibrates_a_meg_is_a_file_and_neither_counted_nor_opened_as_a_recording(tmp_path: Path) -> None:
    calibration = {"sub-01_acq-calibration_meg.dat": b"1", "sub-01_acq-crosstalk_meg.fif": b"12"}
    root = bids.write(
        tmp_path / "bids",
        {"dataset_description.json": bids.description()}
        | {f"sub-01/meg/{name}": data for name, data in calibration.items()}
        | {"sub-01/meg/sub-01_task-rest_meg.fif": b""},
    )
    raw = mne.io.RawArray(np.ones((1, 100)), mne.create_info(1, 100.0, "mag"), verbose="error")
    raw.save(root / "sub-01/meg/sub-01_task-rest_meg.fif", overwrite=True, verbose="error")
    publish(root, tmp_path / "repo")
    text = (tmp_path / "repo" / "README.md").read_text()

    assert "\n1 recording in 3 files of 1 subject, " in text
    assert run(code_on(text)[0])["name"] == "sub-01/meg/sub-01_task-rest_meg"


def test_all_files_of_a_ctf_folder_are_there_when_it_is_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = bids.write(
        tmp_path / "bids",
        {"dataset_description.json": bids.description()}
        | {f"{CTF}/{name}": name.encode() for name in ("BadChannels", "hz.ds/a.hist", "x.meg4", "x.res4")}
        | {f"{CTF.replace('rest', 'rust')}/x.meg4": b"another one"},
    )
    publish(root, tmp_path / "repo")
    seen: dict[str, bytes] = {}

    def opened(path: Path, preload: bool) -> Any:
        assert path.name == CTF.rpartition("/")[2] and preload
        above = path.parents[2]  # the temporary folder
        seen.update({str(file.relative_to(above)): file.read_bytes() for file in above.rglob("*") if file.is_file()})
        return mne.io.RawArray([[0.0]], mne.create_info(1, 1.0), verbose="error")

    monkeypatch.setattr(mne.io, "read_raw", opened)
    run(code_on((tmp_path / "repo" / "README.md").read_text())[0])
    names = ("BadChannels", "hz.ds/a.hist", "x.meg4", "x.res4")
    assert seen == {f"{CTF}/{name}": name.encode() for name in names}


def test_a_card_of_images_and_recordings_has_lines_for_both_and_they_run(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = code_on((repo / "README.md").read_text())

    assert len(blocks) == 4
    assert run(blocks[0])["row"]["nifti"].shape == IMAGE.shape
    assert run(blocks[2])["raw"].ch_names == list(CHANNELS)


def test_the_lines_for_a_file_beside_print_a_text_where_there_is_one_and_else_how_many_bytes_it_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    surface = {"sub-01/anat/sub-01_hemi-L_pial.surf.gii": b"<GIFTI/>"}
    for name, more, said in (
        ("text", surface | {"sub-01/anat/sub-01_T1w.json": b'{"EchoTime": 0.003}'}, '{"EchoTime": 0.003}\n'),
        ("other", surface, "8\n"),
    ):
        publish(bids.one_subject(tmp_path / name, more), tmp_path / f"{name}-repo")
        run(code_on((tmp_path / f"{name}-repo" / "README.md").read_text())[-1])
        assert capsys.readouterr().out == said


def test_a_path_that_somebody_wrote_into_the_record_is_in_no_line_of_code(tmp_path: Path) -> None:
    dataset = load(bids.one_subject(tmp_path))
    (line,) = published(*plan(dataset, {})).shards.values()
    theirs = replace(line.images[0], path='a")\n```\n# mine\n.json')
    record = PublicationRecord().updated([line.model_copy(update={"images": (*line.images, theirs)})])
    text = card(dataset, REPO, record, None)

    assert "mine" not in text and len(code_on(text)) == 2
    assert "rows of the config `files`, their bytes in `content`" in text


@pytest.mark.parametrize("path", ["func/sub-01_task-x_physio.tsv.gz", "ieeg/sub-01_task-x_ieeg.nwb"])
def test_of_recordings_that_mne_does_not_open_the_lines_give_the_bytes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], path: str
) -> None:
    files = {"dataset_description.json": bids.description(), f"sub-01/{path}": bids.nifti(IMAGE, path.endswith(".gz"))}
    root = bids.write(tmp_path / "bids", files)
    publish(root, tmp_path / "repo")
    (block,) = code_on((tmp_path / "repo" / "README.md").read_text())

    assert run(block)["row"]["content"] == (root / f"sub-01/{path}").read_bytes()
    assert f"sub-01/{path}" in capsys.readouterr().out


# --- the figures, and the words ---


def test_recordings_are_counted_as_recordings_and_as_files(tmp_path: Path) -> None:
    text = card_of(both(tmp_path))

    assert "\n3 images and 4 recordings in 9 files of 1 subject, " in text
    assert "one row per image and per file of a recording, one Parquet file per subject." in text
    table = rows_in(html_of(text))
    assert table[0] == ["config", "datatype", "suffix", "images", "recordings", "files", "subjects", "size"]
    assert ["eeg_eeg", "eeg", "eeg", "", "1", "3", "1"] in [row[:7] for row in table]
    assert ["meg_meg", "meg", "meg", "", "1", "4", "1", "35 bytes"] in table
    assert ["micr_SPIM", "micr", "SPIM", "1", "", "", "1", "67 bytes"] in table
    assert ["micr_SPIM_recordings", "micr", "SPIM", "", "1", "1", "1", "4 bytes"] in table


def test_the_card_of_recordings_alone_speaks_of_no_image(tmp_path: Path) -> None:
    stated = About(Checked(Statement("no faces", strip=("SubjectCode",))))
    text = card_of(eeg_study(tmp_path), about=stated)
    data: Any = DatasetCard(text).data

    assert "\n4 recordings in 8 files of 2 subjects, " in text and "one row per file, one" in text
    assert data.tags == ["bids", "neuroimaging", "eeg"] and data.size_categories == ["n<1K"]
    said = text[: text.index("## Columns")] + text[text.index("## Participants") :]
    assert not re.search(r"image|nifti|[Ff]aces", said.replace("neuroimaging", ""))
    assert "`SubjectCode`" in said
    assert "is the config `participants`" in said


def test_files_under_way_and_withdrawn_are_counted_as_files_where_there_are_recordings(tmp_path: Path) -> None:
    dataset = load(eeg_study(tmp_path))
    first, second = plan(dataset, {})
    less = replace(dataset, images=tuple(one for one in dataset.images if one.sub == "01"))

    assert "8 of 9 files of the BIDS dataset are here so far" in card(dataset, REPO, published(first), None)
    text = card(less, REPO, published(first, second), None)
    assert "1 file of what is here is no longer in the BIDS dataset" in text
    without = card(replace(less, files=()), REPO, published(first, second), None)
    assert "2 files of what is here are no longer in the BIDS dataset" in without


def test_a_recording_that_the_dataset_no_longer_has_is_still_counted_as_one(tmp_path: Path) -> None:
    dataset = load(both(tmp_path))
    record = published(*plan(dataset, {}))
    less = replace(dataset, images=tuple(one for one in dataset.images if one.datatype == "anat"))
    all_of_it, text = card(dataset, REPO, record, None), card(less, REPO, record, None)

    assert rows_in(html_of(text)) == rows_in(html_of(all_of_it))
    assert yaml_of(text)["configs"] == yaml_of(all_of_it)["configs"]
    assert code_on(text) == code_on(all_of_it)


@pytest.mark.parametrize(
    ("path", "tags"),
    [
        ("eeg/sub-01_task-x_eeg.edf", {"eeg"}),
        ("ieeg/sub-01_task-x_ieeg.edf", {"ieeg"}),
        ("meg/sub-01_task-x_meg.fif", {"meg"}),
        ("nirs/sub-01_task-x_nirs.snirf", {"nirs"}),
        ("emg/sub-01_task-x_emg.bdf", {"emg"}),
        ("motion/sub-01_task-x_tracksys-a_motion.tsv", {"motion"}),
        ("micr/sub-01_sample-A_SEM.png", {"microscopy"}),
        ("func/sub-01_task-x_physio.tsv.gz", set()),
    ],
)
def test_the_tags_are_those_of_the_methods_that_the_recordings_come_from(
    tmp_path: Path, path: str, tags: set[str]
) -> None:
    root = bids.write(tmp_path, {"dataset_description.json": bids.description(), f"sub-01/{path}": b"1"})

    assert set(yaml_of(card_of(root))["tags"]) - {"bids", "neuroimaging"} == tags


def test_pictures_are_of_images_alone(tmp_path: Path) -> None:
    told: list[str] = []
    draw(load(eeg_study(tmp_path)), Pictures(), lambda _: "0" * 64, told.append)

    assert not told


def test_the_card_of_a_derivative_says_what_it_was_made_by_and_from(tmp_path: Path) -> None:
    description = bids.description(
        Name="Preprocessed",
        DatasetType="derivative",
        GeneratedBy=[{"Name": "fMRIPrep", "Version": "23.1.0"}, "none", {"CodeURL": "x"}],
        SourceDatasets=[{"DOI": "doi:10.1/x", "Version": "1.0"}],
    )
    image = "sub-01/anat/sub-01_desc-preproc_T1w.nii.gz"
    text = card_of(bids.write(tmp_path, {"dataset_description.json": description, image: IMAGE}))

    assert "All of it is a derivative: `Preprocessed` (column `dataset`)." in text
    assert "- **Made by:** fMRIPrep 23.1.0\n- **Made from:** doi:10.1/x 1.0\n" in text
