"""Card: what the Hub, `datasets` and people read of a dataset is true, runs, shows well, and keeps their edits."""

import io
import os
import re
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml  # type: ignore[import-untyped]
from dulwich import porcelain
from huggingface_hub import DatasetCard, RepoCard
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from deployments.local_stack import Stack
from tasks.bids.licence import Licence, licence
from tasks.card import About, CardVersions, Pictures, UnreadableCard, card, draw, same_card, side_files
from tasks.card.counts import PublishedRows
from tasks.disk.staging import Staging
from tasks.load import load
from tasks.plan import plan
from tasks.stage import stage
from tasks.values.models import Dataset, ImageContent, PublicationRecord, PublishedShard, ShardSpec
from tasks.values.preflight_rules import Checked, Finding, Statement
from tests import bids_examples as bids
from tests.bids_examples import IMAGE

REPO = "lab/small"


def published(*shards: ShardSpec) -> PublicationRecord:
    zero = "0" * 64
    return PublicationRecord().updated(
        PublishedShard(
            path=shard.path,
            digest=shard.digest,
            sha256=zero,
            size=1,
            rows=len(shard.rows),
            images=tuple(ImageContent(path=one.path, size=one.size, sha256=zero) for one in shard.rows),
        )
        for shard in shards
    )


def card_of(root: Path, repo_id: str = REPO, existing: str | None = None, about: About | None = None) -> str:
    dataset = load(root)
    return card(dataset, repo_id, published(*plan(dataset, {})), existing, about)


def yaml_of(text: str) -> dict[str, Any]:
    return yaml.safe_load(re.match(r"---\n(.*?)\n---\n", text, re.DOTALL).group(1))


def html_of(text: str) -> str:
    body = re.sub(r"\A---\n.*?\n---\n", "", text, flags=re.DOTALL)
    return MarkdownIt("commonmark").enable("table").render(body)


def rows_in(html: str) -> list[list[str]]:
    """The cells of every table row, as a reader sees them."""
    rows = re.findall(r"<tr>\s*(.*?)\s*</tr>", html, re.DOTALL)
    cells = [re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row, re.DOTALL) for row in rows]
    return [[re.sub(r"<[^>]+>", "", cell) for cell in row] for row in cells]


def publish(root: Path, repo: Path) -> None:
    """Write the repo as it would be on the Hub: shards, the tables, the card."""
    dataset = load(root)
    record, staging = PublicationRecord(), Staging(repo.parent / "staging")
    for shard in plan(dataset, {}):
        receipt = stage(shard, root, staging)
        (repo / shard.path).parent.mkdir(parents=True, exist_ok=True)
        (staging.folder / receipt.file).rename(repo / shard.path)
        record = record.updated([receipt.line()])
    for path, data in side_files(dataset).items():
        (repo / path).parent.mkdir(parents=True, exist_ok=True)
        (repo / path).write_bytes(data)
    (repo / "README.md").write_text(card(dataset, str(repo), record, None))


def code_on(text: str) -> list[str]:
    """The blocks of Python on a card."""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


# --- what `datasets` makes of it ---


@pytest.fixture
def repo(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    publish(bids.two_sessions(tmp_path / "bids"), tmp_path / "repo")
    return tmp_path / "repo"


@pytest.mark.parametrize("streaming", [True, False])
@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ("default", 5),
        ("anat_T1w", 3),
        ("anat_mask", 1),
        ("func_bold", 1),
    ],
)
def test_each_config_of_images_loads_the_images_of_its_kind(
    repo: Path, config: str, expected: int, streaming: bool
) -> None:
    how = {"streaming": True} if streaming else {"writer_batch_size": 1}
    rows = list(datasets.load_dataset(str(repo), config, split="train", **how))

    assert len(rows) == expected
    if config != "default":
        assert {f"{row['datatype']}_{row['suffix']}" for row in rows} == {config}
    assert {row["nifti"].shape for row in rows} == {IMAGE.shape}


def test_the_tables_load_as_words_and_nulls(repo: Path) -> None:
    participants = datasets.load_dataset(str(repo), "participants", split="train").to_list()
    assert participants == [
        {"participant_id": "sub-01", "age": "34", "group": "None"},
        {"participant_id": "sub-02", "age": None, "group": "A"},
    ]
    sessions = datasets.load_dataset(str(repo), "sessions", split="train").to_list()
    assert [row["session_id"] for row in sessions] == ["ses-a", "ses-b"]


def test_without_a_name_all_images_are_loaded(repo: Path) -> None:
    assert len(list(datasets.load_dataset(str(repo), split="train", streaming=True))) == 5


def test_the_lines_of_code_on_the_card_run(repo: Path, capsys: pytest.CaptureFixture[str]) -> None:
    blocks = re.findall(r"```python\n(.*?)```", (repo / "README.md").read_text(), re.DOTALL)
    assert len(blocks) == 3
    assert "streaming=True" in blocks[0] and "writer_batch_size=1" in blocks[1]
    assert all("fragment_scan_options=scan" in block for block in blocks[:2])

    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert len(names["images"]) == 3
    printed = capsys.readouterr().out
    assert "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz (4, 3, 2)" in printed
    assert printed.endswith("session_id\tacq_time\nses-a\t1877-01-01\nses-b\tn/a\n\n")  # sub-01_sessions.tsv


def test_an_image_too_large_to_decode_is_shown_to_be_read_by_volumes_and_the_lines_run(
    repo: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    dataset = load(repo.parent / "bids")
    record = published(*plan(dataset, {}))
    assert "nibabel.Nifti" not in card(dataset, str(repo), record, None)
    grown = [
        shard.model_copy(update={"images": tuple(
            replace(one, size=300_000_000) if "bold" in one.path else one for one in shard.images)})
        for shard in record.shards.values()
    ]  # fmt: skip
    text = card(dataset, str(repo), record.updated(grown), None)
    assert "Images of up to 300.0 MB are among them (in `func_bold`)" in text

    names: dict[str, Any] = {}
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert '"func_bold"' in blocks[2]
    for block in (blocks[0], blocks[2]):
        exec(block, names)
    assert names["row"]["suffix"] == "bold" and names["image"].shape == (4, 3, 2)


def test_images_in_nifti_2_are_counted_with_the_class_that_reads_them(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))
    record = published(*plan(dataset, {}))
    shard = record.shards["data/sub-01/sub-01_ses-a.parquet"]
    second = replace(shard.images[0], nifti=2)
    record = record.updated([shard.model_copy(update={"images": (second, *shard.images[1:])})])
    text = card(dataset, REPO, PublicationRecord.read(record.dump())[0], None)
    assert "1 image is in NIfTI-2, which `datasets` 5.2.0 does not decode" in text
    assert "nibabel.Nifti2Image.from_stream(stream)" in text


# --- the YAML ---


def test_the_yaml_says_what_the_hub_asks_for(tmp_path: Path) -> None:
    text = card_of(bids.two_sessions(tmp_path))

    data: Any = DatasetCard(text).data
    assert data.license == "cc0-1.0"
    assert data.pretty_name == "A small dataset"
    assert data.tags == ["bids", "neuroimaging", "nifti", "mri", "fmri"]
    assert data.size_categories == ["n<1K"]
    configs = {config["config_name"]: config for config in yaml_of(text)["configs"]}
    assert list(configs) == ["default", "anat_T1w", "anat_mask", "func_bold", "files", "participants", "sessions"]
    assert configs["default"]["filters"] == [["kind", "==", "image"]]
    assert configs["anat_T1w"]["filters"] == [
        ["kind", "==", "image"],
        ["datatype", "==", "anat"],
        ["suffix", "==", "T1w"],
    ]
    assert configs["files"]["filters"] == [["kind", "in", ["sidecar", "table", "other"]]]


def record_with(images: int) -> PublicationRecord:
    """A record of so many images of one shard."""
    contents = tuple(
        ImageContent(path=f"sub-01/func/sub-01_task-rest_run-{run}_bold.nii.gz", size=1, sha256="0" * 64)
        for run in range(images)
    )
    zero, path = "0" * 64, "data/sub-01/sub-01.parquet"
    line = PublishedShard(path=path, digest=zero, sha256=zero, size=1, rows=images, images=contents)
    return PublicationRecord().updated([line])


@pytest.mark.parametrize(
    ("images", "category"),
    [(1, "n<1K"), (999, "n<1K"), (1_000, "1K<n<10K"), (9_999, "1K<n<10K"), (10_000, "10K<n<100K")],
)
def test_the_size_category_is_that_of_the_images_that_the_repo_serves(images: int, category: str) -> None:
    text = card(Dataset("/", "none", {}, ()), REPO, record_with(images), None)

    assert yaml_of(text)["size_categories"] == [category]


@pytest.mark.parametrize(
    ("path", "tags"),
    [
        ("anat/sub-01_T1w", {"mri"}),
        ("func/sub-01_task-rest_bold", {"mri", "fmri"}),
        ("dwi/sub-01_dwi", {"mri", "diffusion-mri"}),
        ("perf/sub-01_asl", {"mri"}),
        ("fmap/sub-01_phasediff", {"mri"}),
        ("pet/sub-01_pet", {"pet"}),
        ("mrs/sub-01_svs", {"mrs"}),
    ],
)
def test_the_tags_are_those_of_the_methods_that_the_images_come_from(tmp_path: Path, path: str, tags: set[str]) -> None:
    files = {"dataset_description.json": bids.description(), f"sub-01/{path}.nii.gz": IMAGE}
    text = card_of(bids.write(tmp_path, files))

    assert set(yaml_of(text)["tags"]) - {"bids", "neuroimaging", "nifti"} == tags


def test_a_name_with_anything_in_it_leaves_yaml_and_markdown_whole(tmp_path: Path) -> None:
    name = '"It\'s": a | *b* <script>\n# c `d` [e](f) --- {g} %'
    root = bids.one_subject(tmp_path, {"dataset_description.json": bids.description(Name=name)})
    text = card_of(root)

    shown = " ".join(name.split())
    assert yaml_of(text)["pretty_name"] == shown
    assert re.search(r"<h1>(.*?)</h1>", html_of(text)).group(1) == shown.replace('"', "&quot;").replace(
        "<", "&lt;"
    ).replace(">", "&gt;")


@pytest.mark.parametrize(
    ("stated", "identifier"),
    [
        ("CC0", "cc0-1.0"),
        ("CCO license", "cc0-1.0"),
        ("CC-0", "cc0-1.0"),
        ("CC0 1.0 Universal License", "cc0-1.0"),
        ("This dataset is made available under CC0.", "cc0-1.0"),
        ("https://creativecommons.org/publicdomain/zero/1.0/", "cc0-1.0"),
        ("PDDL (https://opendatacommons.org/licenses/pddl/1-0/)", "pddl"),
        ("This dataset is made available under the Public Domain Dedication and License \nv1.0, whose ...", "pddl"),
        ("CCBY4", "cc-by-4.0"),
        ("CC-BY-4.0", "cc-by-4.0"),
        (" Creative Commons Attribution 4.0 International License", "cc-by-4.0"),
        ("Creative Commons Attribution-NonCommercial 4.0 International License", "cc-by-nc-4.0"),
        ("CC BY-NC-SA 4.0", "cc-by-nc-sa-4.0"),
        ("Attribution under http://creativecommons.org/licenses/by-nc-nd/3.0/", "cc-by-nc-nd-3.0"),
        ("ODbL (https://opendatacommons.org/licenses/odbl/summary/)", "odbl"),
        ("BSD 3-Clause", "bsd-3-clause"),
        ("MIT", "mit"),
        ("GNU General Public License", "gpl"),
        ("n/a", "unknown"),
        ("", "unknown"),
        (None, "unknown"),
        ("CC BY-ND", "other"),
        ("CC BY 9.0", "other"),
        ("Custom", "other"),
        ("Property of MIT; its use is prohibited.", "other"),
        ("All rights reserved, not released under CC0", "other"),
    ],
)
def test_licences_are_the_hubs_only_where_that_is_sure(stated: str | None, identifier: str) -> None:
    assert licence(stated).identifier == identifier


def test_another_licence_keeps_its_words_and_its_address(tmp_path: Path) -> None:
    words = "Please see the file named license.txt at https://osf.io/ktv7m/."
    assert licence(words) == Licence("other", words, "https://osf.io/ktv7m/")

    front = yaml_of(card_of(bids.one_subject(tmp_path, {"dataset_description.json": bids.description(License=words)})))
    assert (front["license"], front["license_name"]) == ("other", words)
    assert front["license_link"] == "https://osf.io/ktv7m/"


# --- the body ---


def test_the_card_counts_what_is_published_and_not_what_is_planned(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))
    tables, first, *more = plan(dataset, {})
    text = card(dataset, REPO, published(first), None)

    assert "3 images of 1 subject in 1 session," in text
    assert "**Publication is under way:** 3 of 5 images and 4 of 5 other files of the BIDS dataset are here" in text
    assert [row[3] for row in rows_in(html_of(text))[1:4]] == ["1", "1", "1"]
    assert "5 of 5 images and 4 of 5 other files" in card(dataset, REPO, published(first, *more), None)
    assert "under way" not in card(dataset, REPO, published(tables, first, *more), None)


def test_the_card_counts_what_the_repo_serves_although_the_dataset_no_longer_has_it(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))
    record = published(*plan(dataset, {}))
    less = replace(dataset, images=tuple(one for one in dataset.images if one.sub == "02"), files=())
    all_of_it, text = card(dataset, REPO, record, None), card(less, REPO, record, None)

    assert "5 images of 2 subjects in 2 sessions," in text and "under way" not in text
    assert rows_in(html_of(text)) == rows_in(html_of(all_of_it))
    assert yaml_of(text)["configs"] == yaml_of(all_of_it)["configs"]
    assert "4 images and 5 other files of what is here are no longer in the BIDS dataset" in text
    assert "no longer" not in all_of_it


def test_a_derivative_that_is_no_longer_in_the_dataset_is_still_named_as_one(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))
    less = replace(dataset, images=tuple(one for one in dataset.images if one.dataset == "raw"))

    assert len(less.images) == len(dataset.images) - 1
    assert "derivatives: `masks`" in card(less, REPO, published(*plan(dataset, {})), None)


@pytest.mark.slow
@given(st.lists(st.text(max_size=40) | st.from_regex(r"(derivatives/)?(sub-|ses-|_|/|anat|T1w|\.){0,9}"), max_size=5))
def test_whatever_paths_somebody_wrote_into_the_record_there_is_a_card(paths: list[str]) -> None:
    contents = tuple(ImageContent(path=path, size=1, sha256="0" * 64) for path in paths)
    line = PublishedShard(path="data/x/x.parquet", digest="0" * 64, sha256="0" * 64, size=1, rows=1, images=contents)
    text = card(Dataset("/", "none", {}, ()), REPO, PublicationRecord().updated([line]), None)

    rows = PublishedRows.of(Dataset("/", "none", {}, ()), PublicationRecord().updated([line]))
    counts = rows.count()
    assert counts.images + counts.files + len(rows.beside) == len(set(paths))
    assert not paths or counts.in_words() in text


def test_a_card_before_the_first_shard_has_no_config_that_would_not_load(tmp_path: Path) -> None:
    text = card(load(bids.two_sessions(tmp_path)), REPO, PublicationRecord(), None)

    assert "configs" not in yaml_of(text)
    assert "load_dataset" not in text


def test_figures_are_by_kind_of_image(tmp_path: Path) -> None:
    html = html_of(card_of(bids.two_sessions(tmp_path)))

    assert [row[:6] for row in rows_in(html)[:4]] == [
        ["config", "datatype", "suffix", "images", "subjects", "sessions"],
        ["anat_T1w", "anat", "T1w", "3", "2", "2"],
        ["anat_mask", "anat", "mask", "1", "1", "1"],
        ["func_bold", "func", "bold", "1", "1", "1"],
    ]


def test_the_data_dictionary_has_every_column_and_survives_pipes_and_line_ends(tmp_path: Path) -> None:
    root = bids.one_subject(
        tmp_path,
        {
            "participants.tsv": [["participant_id", "a|b", "plain"], ["sub-01", "1", "2"]],
            "participants.json": {"a|b": {"Description": "one | two\nthree", "Levels": {"x|y": "`z`"}, "Units": "m_s"}},
        },
    )
    rows = rows_in(html_of(card_of(root)))

    assert ["a|b", "one | two three", "m_s", "x|y `z`"] in rows
    assert ["plain", "", "", ""] in rows


def test_phenotype_tables_are_named_and_carried(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path, {"phenotype/wab.tsv": [["participant_id", "wab"], ["sub-01", "None"]]})

    assert "Phenotype tables are under `bids/`: `phenotype/wab.tsv`." in card_of(root)
    assert side_files(load(root))["bids/phenotype/wab.tsv"] == b"participant_id\twab\nsub-01\tNone\n"


def test_what_was_left_out_and_what_to_know_is_on_the_card(tmp_path: Path) -> None:
    files = {"sub-01/anat/foo.nii.gz": IMAGE, "sub-01/eeg/foo_eeg.edf": b"1", "sub-01/anat/sub-01_T1w.pdf": b"12"}
    html = html_of(card_of(bids.one_subject(tmp_path, files)))

    assert "<h2>What was left out</h2>" in html
    assert ["*_T1w.pdf", "1"] in rows_in(html)
    assert ["an image whose name is none of BIDS", "1", "", "", "67 bytes"] in rows_in(html)
    assert ["a recording whose name is none of BIDS", "", "1", "", "1 bytes"] in rows_in(html)
    assert "3 files of the BIDS dataset are not published here." in html and "bids/left_out.tsv" in html
    assert "<li>There is no participants.tsv: the column `participant` is empty.</li>" in html


def test_where_all_is_published_the_card_does_not_say_that_something_was_left_out(tmp_path: Path) -> None:
    html = html_of(card_of(bids.one_subject(tmp_path)))

    assert "What was left out" not in html and "<h2>What to know</h2>" in html


def test_of_many_kinds_left_out_the_commonest_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    files = {f"sub-01/anat/{number}.x{kind}": b"" for kind in range(35) for number in range(1 if kind < 6 else 2)}
    rows = rows_in(html_of(card_of(bids.one_subject(tmp_path, files))))

    assert ["*.x34", "2"] in rows and ["*.x5", "1"] not in rows
    assert ["5 other kinds", "5"] in rows


def test_authors_citation_ethics_and_doi_are_those_of_the_description(tmp_path: Path) -> None:
    fields = {
        "Authors": ["A. One", "B. *Two*"],
        "HowToAcknowledge": "Cite https://example.org/a_b_c. Thanks",
        "Funding": ["Grant 1"],
        "EthicsApprovals": ["Board X"],
        "DatasetDOI": "doi:10.18112/openneuro.ds1.v1",
    }
    html = html_of(card_of(bids.one_subject(tmp_path, {"dataset_description.json": bids.description(**fields)})))

    for line in (
        "A. One, B. *Two*",
        'Cite <a href="https://example.org/a_b_c">https://example.org/a_b_c</a>. Thanks',
        "Grant 1",
        "Board X",
        '<a href="https://doi.org/10.18112/openneuro.ds1.v1">',
    ):
        assert line in html


def test_a_readme_in_utf16_is_shown_with_its_paragraphs(tmp_path: Path) -> None:
    readme = "Größe *matters*\r\n- not a list\r\n\r\n_____\r\nSecond".encode("utf-16")
    html = html_of(card_of(bids.one_subject(tmp_path, {"README.txt": readme})))

    assert "<p>Größe *matters*<br />\n- not a list</p>\n<hr />\n<p>Second</p>" in html


@pytest.mark.parametrize(
    "left_open", ["<!-- hidden", "<pre>", "<script>", "<![CDATA[", "```\ncode", "~~~~ python\n```"]
)
def test_a_readme_in_markdown_cannot_break_out_of_its_section(tmp_path: Path, left_open: str) -> None:
    readme = f"# Title\n\n<!-- bids-push:end -->\n\n{left_open}\n# never closed\n<!-- bids-push:end -->"
    root = bids.one_subject(tmp_path, {"README.md": readme})
    text = card_of(root)

    assert "<h3>Title</h3>" in html_of(text)
    edited = text + "\nWritten by a person after the block.\n"
    again = card_of(root, existing=edited)
    assert again == edited
    assert "<p>Written by a person after the block.</p>" in html_of(again)


def test_dataset_without_people_or_sessions_reads_well(tmp_path: Path) -> None:
    files = {
        "dataset_description.json": bids.description(Name="Atlas", DatasetType="derivative"),
        "tpl-A/anat/tpl-A_T1w.nii.gz": IMAGE,
    }
    assert "\n1 image, " in card_of(bids.write(tmp_path, files))


# --- people's edits ---


def test_a_second_push_of_the_same_dataset_changes_nothing(tmp_path: Path) -> None:
    root = bids.two_sessions(tmp_path)

    first = card_of(root)
    assert card_of(root, existing=first) == first


def test_what_people_write_around_the_block_stays_and_the_block_is_brought_up_to_date(tmp_path: Path) -> None:
    root = bids.two_sessions(tmp_path)
    begin, block, end = re.split(r"(<!-- bids-push:begin.*bids-push:end -->)", card_of(root), flags=re.DOTALL)
    edited = f"{begin}Before.\n\n{block.replace('5 images', '999 images')}\n\n## Our own notes\n\nAfter.{end}"
    text = card_of(root, existing=edited)

    assert text == f"{begin}Before.\n\n{block}\n\n## Our own notes\n\nAfter.{end}"


def test_a_card_that_a_person_wrote_keeps_all_of_it(tmp_path: Path) -> None:
    theirs = """---
# why this licence: ask the board
language: [en]
tags:
- stroke
viewer: false  # too large
configs:
- config_name: mine
  data_files: extra/*.csv
---

# Written by hand

Text.
"""
    text = card_of(bids.two_sessions(tmp_path), existing=theirs.replace("\n", "\r\n"))

    assert "# why this licence: ask the board\nlanguage: [en]\n" in text
    assert "viewer: false  # too large\n" in text
    assert text.index("# Written by hand\n\nText.") < text.index("<!-- bids-push:begin")
    front = yaml_of(text)
    assert front["tags"] == ["stroke", "bids", "neuroimaging", "nifti", "mri", "fmri"]
    assert [c["config_name"] for c in front["configs"]][-2:] == ["sessions", "mine"]


def test_our_keys_follow_the_dataset_and_configs_of_kinds_that_are_gone_go(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))
    first = card(dataset, REPO, published(*plan(dataset, {})), None)
    less = replace(
        dataset,
        name="Renamed",
        images=tuple(one for one in dataset.images if one.suffix == "T1w"),
        files=(),
        description=dict(dataset.description) | {"License": "Custom"},
        sessions=(),
    )
    front = yaml_of(card(less, REPO, published(*plan(less, {})), first))

    assert (front["pretty_name"], front["license"], front["license_name"]) == ("Renamed", "other", "Custom")
    assert [config["config_name"] for config in front["configs"]] == ["default", "anat_T1w", "participants"]
    assert "filters" not in front["configs"][0]
    back = yaml_of(card(dataset, REPO, published(*plan(dataset, {})), card(less, REPO, published(), first)))
    assert back["license"] == "cc0-1.0" and "license_name" not in back


def test_a_licence_named_by_hand_stays_where_the_dataset_names_none(tmp_path: Path) -> None:
    description = bids.description()
    del description["License"]
    root = bids.one_subject(tmp_path, {"dataset_description.json": description})

    assert yaml_of(card_of(root))["license"] == "unknown"
    assert yaml_of(card_of(root, existing="---\nlicense: cc-by-4.0\n---\n"))["license"] == "cc-by-4.0"


@pytest.mark.parametrize(
    "front", ["a: [", "- a\n- b", "a: b: c", "date: 2026-13-45", "a: " + "[" * 600 + "]" * 600, "a: !!int one"]
)
def test_yaml_that_cannot_be_read_is_an_error_that_says_where(tmp_path: Path, front: str) -> None:
    with pytest.raises(UnreadableCard, match=r"top of README\.md on the Hub"):
        card_of(bids.one_subject(tmp_path), existing=f"---\n{front}\n---\nbody\n")


# --- the files beside the shards ---


def test_side_files_are_the_datasets_texts_and_its_tables(tmp_path: Path) -> None:
    dataset = load(bids.two_sessions(tmp_path))
    files = side_files(dataset)

    assert sorted(files) == [
        "bids/README",
        "bids/dataset_description.json",
        "bids/left_out.tsv",
        "bids/participants.json",
        "bids/participants.tsv",
        "bids/task-rest_bold.json",
        "tables/participants.parquet",
        "tables/sessions.parquet",
    ]
    assert files["bids/README"] == b"A README.\n"
    table = pq.read_table(io.BytesIO(files["tables/participants.parquet"]))
    assert table.to_pylist() == [dict(row) for row in dataset.participants]
    assert set(table.schema.types) == {pa.string()}


def test_side_files_are_the_same_bytes_every_time(tmp_path: Path) -> None:
    here, there = bids.two_sessions(tmp_path / "a"), bids.two_sessions(tmp_path / "b")

    assert side_files(load(here)) == side_files(load(there))


def test_a_file_of_the_dataset_never_takes_the_place_of_one_that_a_push_writes(tmp_path: Path) -> None:
    texts = {"shards.jsonl": b"", "README": b"", "left_out.tsv": b"theirs"}
    files = side_files(replace(load(bids.one_subject(tmp_path)), texts=texts))

    assert files == {"bids/README": b"", "bids/left_out.tsv": b"path\tsize\treason\n"}


def test_a_dataset_without_tables_has_no_tables(tmp_path: Path) -> None:
    dataset: Dataset = load(bids.one_subject(tmp_path))

    assert list(side_files(dataset)) == ["bids/dataset_description.json", "bids/left_out.tsv"]
    assert "Participants" not in card_of(tmp_path)


def test_the_card_of_ds004884_is_as_the_dataset_is(whole: Path, hub_server: Stack) -> None:
    text = card_of(whole, about=About(Checked(Statement("defaced")), Pictures(), CardVersions.of(load(whole))))

    assert "5,164 images of 230 subjects in 902 sessions" in text
    rows = {row[0]: row[3:6] for row in rows_in(html_of(text))[1:8]}
    assert rows["func_bold"] == ["1,402", "220", "850"] and rows["anat_mask"] == ["228", "228", "228"]
    assert "stroke who have experienced speech and language impairments" in text  # the README, which is UTF-16
    for words in (
        "**Faces** were removed from the images that showed them",
        "**DOI:** <https://doi.org/10.18112/openneuro.ds004884.v1.0.2>",
        "**Funding:** National Institute of Health Grant P50DC014664;",
        "**Ethics approvals:** All data acquired from studies that were approved",
        "**How to cite:** Gibson M, Newman-Norlund R",
        "| `wab_aq` | WAB (Western Aphasia Battery-Revised) Aphasia Quotient | Score |",
        "**Version of the dataset:** 1.0.2",
        "**Published with:** bids-push ",
    ):
        assert words in text


def test_the_yaml_of_ds004884_follows_the_hubs_rules(whole: Path, hub_server: Stack) -> None:
    text = card_of(whole)
    RepoCard(text).validate(repo_type="dataset")  # the Hub is asked

    data = DatasetCard(text).data.to_dict()
    assert data["license"] == "cc0-1.0"
    assert data["pretty_name"] == "Aphasia Recovery Cohort (ARC) Dataset"
    assert re.fullmatch(r"n<1K|\d+[KMB]<n<\d+[KMB]", *data["size_categories"])
    assert all(isinstance(tag, str) and re.fullmatch(r"[\w-]+", tag) for tag in data["tags"])
    names = [config["config_name"] for config in data["configs"]]
    assert len(names) == len(set(names)) == 10 and all(re.fullmatch(r"[\w.-]+", name) for name in names)
    assert {key for config in data["configs"] for key in config} == {"config_name", "data_files", "filters"}


# --- what was stated, and how it was made ---


def test_what_the_operator_stated_lifted_and_stripped_is_on_the_card(tmp_path: Path) -> None:
    findings = (
        Finding("date", "acq_time", ("a_scans.tsv",), 1),
        Finding("date", "StudyDate", ("b.json",), 7),
        Finding("defacing", "", ("c.nii",), 1),
    )
    allowed = ("date", "defacing", "unreadable", "personal-data:name")
    statement = Statement("not defaced, sharing permitted", allowed, ("Stat|ion", "Other"))
    text = card_of(bids.two_sessions(tmp_path), about=About(Checked(statement, findings)))

    html = html_of(text)
    assert "<strong>Faces were not removed.</strong>" in html
    assert "dates later than 1925, so not shifted ones (<code>StudyDate</code>, <code>acq_time</code>)" in html
    assert "Rule <code>defacing</code>" in html
    assert "unreadable" not in html and "personal-data" not in html  # they have lifted nothing
    assert "<strong>Left out</strong> of the metadata, the sidecars and the tables: <code>Other</code>," in html
    assert "Before it was published" not in card_of(tmp_path)


WHOLE = Path(__file__).parent / "card_of_a_small_dataset.md"


def test_the_whole_card_reads_as_somebody_has_read_it(tmp_path: Path) -> None:
    """Whoever changes a text of the card reads the whole of it once more, and puts it into the file."""
    root = bids.two_sessions(tmp_path)
    more = {"HowToAcknowledge": "Cite it.", "Acknowledgements": "All of them", "Funding": ["A fund", "Another"],
            "EthicsApprovals": ["A board"], "ReferencesAndLinks": ["https://example.org/a"],
            "SourceDatasets": [{"DOI": "doi:10.1/a", "URL": "https://example.org", "Version": "2"}],
            "GeneratedBy": [{"Name": "Converter", "Version": "3"}], "DatasetDOI": "doi:10.1/b",
            "Authors": ["A. Person", "B. Person"], "License": "CC0"}  # fmt: skip
    bids.write(root, {"dataset_description.json": bids.description(**more), "phenotype/iq.tsv": "participant_id\n",
                      "sub-02/anat/sub-02_scan.pdf": b"%PDF", "sub-02/sub-02_notes.docx": b"PK"})  # fmt: skip
    dataset = load(root)
    statement = Statement("defaced", ("date",), ("StationName",))
    checked = Checked(statement, (Finding("date", "acq_time", ("a_scans.tsv",), 1),))
    pictures = draw(dataset, Pictures(), lambda image: "a" * 64, lambda told: None)
    about = About(checked, pictures, CardVersions("1.0", "c" * 40, "bids-push 0"))
    text = card(dataset, REPO, published(*plan(dataset, {})), None, about)
    assert re.sub(r"\d+ bytes", "some bytes", text) == WHOLE.read_text()  # as many as this zlib makes


def test_a_newer_bids_push_alone_is_no_reason_for_another_card(tmp_path: Path) -> None:
    root = bids.two_sessions(tmp_path)
    older, newer = (
        card_of(root, about=About(versions=CardVersions("1.0", "c" * 40, f"bids-push {n}"))) for n in (1, 2)
    )

    assert older != newer and same_card(newer, older)
    assert not same_card(newer, None)
    assert not same_card(newer.replace("5 images", "6 images"), older)


def test_the_commit_of_the_datasets_git_tree_is_on_the_card_and_that_of_a_tree_around_it_is_not(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path / "around" / "dataset", {"CHANGES": "v2.1.0 2026-01-01\n  - new\n1.0.0\n"})
    for folder in (root.parent, root):
        assert CardVersions.of(load(root)).commit == ""
        porcelain.init(str(folder))
        commit = porcelain.commit(str(folder), message=b"x", author=b"a <a@b>", committer=b"a <a@b>").decode()
    assert CardVersions.of(load(root)).commit == commit
    assert commit in card_of(root, about=About(versions=CardVersions.of(load(root))))
    assert CardVersions.of(load(root)).dataset == "2.1.0"


def test_the_commit_is_found_in_packed_references_a_second_work_tree_and_a_detached_head(tmp_path: Path) -> None:
    root = bids.one_subject(tmp_path / "dataset")
    identity = ("-c", "user.name=a", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), (*identity, "commit", "-qm", "x"), ("pack-refs", "--all")):
        git(root, *words)
    commit = git(root, "rev-parse", "HEAD")
    second = tmp_path / "second"
    git(root, "worktree", "add", "-q", "-b", "other", str(second))
    assert [CardVersions.of(load(tree)).commit for tree in (root, second)] == [commit, commit]
    git(root, "checkout", "-q", "--detach")
    assert CardVersions.of(load(root)).commit == commit


@pytest.mark.parametrize("head", ["", "ref: refs/heads/none", "ref: ../../../secret", "\0", "not an id"])
def test_a_head_that_names_no_commit_is_left_out(tmp_path: Path, head: str) -> None:
    root = bids.one_subject(tmp_path / "dataset")
    (tmp_path / "secret").write_text("a secret")
    (root / ".git").mkdir()
    (root / ".git" / "HEAD").write_text(head)
    assert CardVersions.of(load(root)).commit == ""


def git(folder: Path, *words: str) -> str:
    """What git says, with no settings of this machine's."""
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder.parent), "GIT_CONFIG_NOSYSTEM": "1"}
    done = subprocess.run(["git", *words], cwd=folder, env=environment, capture_output=True, text=True, check=True)
    return done.stdout.strip()
