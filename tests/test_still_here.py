"""Who leaves out a pattern of `include` is told that the files are in the dataset, and how they stay published."""

from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from tasks.hub.client import Hub
from tasks.load import load
from tasks.record.still_here import Why, gone_or_left_out, in_words, still_here
from tasks.values.models import Dataset
from tests.bids_examples import IMAGE, Content, description, write
from tests.figures import artifacts
from tests.test_flows import push, shards_on

T1W, BINARY, HIDDEN, SOURCE = (
    "sub-01/anat/sub-01_T1w.nii.gz",
    "code/tool.bin",
    ".heudiconv/info.tsv",
    "sourcedata/a.dcm",
)
REPORT, SCRIPT, T2W = "sub-01/sub-01_report.html", "code/run.py", "sub-01/anat/sub-01_T2w.nii.gz"
FILES: dict[str, Content] = {
    "dataset_description.json": description(),
    "README": "A dataset.\n",
    T1W: IMAGE,
    T2W: IMAGE,
    BINARY: b"\x7fELF\0",
    HIDDEN: b"x\n",
    SOURCE: b"DICM",
    REPORT: "<html/>",
    SCRIPT: b"print()\n",
}
INCLUDE = ["code/", ".heudiconv/", "sourcedata/", "*.html"]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return write(tmp_path / "bids", FILES)


def here(dataset: Dataset) -> dict[str, Why]:
    return still_here([*FILES, "sub-02/anat/sub-02_T1w.nii.gz", ".heudiconv/gone.tsv", "sourcedata/gone.dcm"], dataset)


def test_what_no_pattern_names_any_more_is_told_from_what_is_excluded_and_from_what_is_gone(source: Path) -> None:
    no_pattern = dict.fromkeys((BINARY, HIDDEN, SOURCE, REPORT), "include")
    pushed = dict.fromkeys(("dataset_description.json", "README", T1W, T2W, SCRIPT), "elsewhere")
    found = here(load(source))
    assert found == {**no_pattern, **pushed} and list(found) == sorted(found)  # as they are named to people
    without = {path: why for path, why in pushed.items() if path != T1W}
    assert here(load(source, exclude=["*_T1w.nii.gz"], include=["README"])) == {**no_pattern, **without, T1W: "exclude"}
    assert here(load(source, include=INCLUDE)) == dict.fromkeys(FILES, "elsewhere")


def test_each_reason_is_said_with_its_files_and_the_way_out() -> None:
    said = in_words({"a": "include", "b": "exclude", "c": "elsewhere", "d": "other", "e": "include"})
    assert said == (
        "Still in the dataset, and no pattern of include names them any more. If they should stay published, give the "
        "include that named them in every run: 2 files (a, e). "
        "Still in the dataset, and exclude names it. If it should stay published, take that pattern out of exclude: "
        "1 file (b). "
        "Still in the dataset, and published in another place of the repo now: the same file as a text below bids/, or "
        "in a shard: 1 file (c). "
        "Still in the dataset, and left out of this push. The dry run says why: 1 file (d)."
    )
    assert in_words({}) == ""


@pytest.mark.parametrize(
    ("here", "said"),
    [
        ([], "no longer in the dataset"),
        (["a"], "no longer in the dataset or left out of the push"),
        (["a", "b"], "left out of the push"),
    ],
)
def test_what_is_still_in_the_dataset_is_not_called_gone_from_it(here: list[str], said: str) -> None:
    assert gone_or_left_out(["a", "b"], here) == said


@pytest.fixture
def published(prefect_server: Any, with_token: None, source: Path, target: Hub, root: Path) -> Hub:
    pushed(source, target, root, include=INCLUDE)
    return target


def pushed(source: Path, target: Hub, root: Path, **parameters: Any) -> State[Any]:
    return push(source, target, root, **parameters)


def test_a_pattern_of_include_that_is_left_out_takes_nothing_and_the_state_and_the_dry_run_say_what_it_named(
    published: Hub, source: Path, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", "1")
    before = shards_on(published)
    dry = pushed(source, published, root, dry_run=True)
    (text,) = (str(data) for key, data in artifacts(dry).items() if key.startswith("dry-run-"))
    night = pushed(source, published, root)
    again = pushed(source, published, root, removed="ask")
    for said in (text, night.message or "", again.message or ""):
        assert "no pattern of include names them any more" in said and "4 files (" in said, said
        assert "the same file as a text below bids/, or in a shard: 1 file (code/run.py)" in said
        assert "no longer in the dataset" not in said.lower()
    assert shards_on(published) == before
    back = pushed(source, published, root, include=INCLUDE)
    assert "no pattern" not in (back.message or "")  # a night without it has published the script as a text: that stays
    assert "Still in the dataset, and published in another place" in (back.message or "")


def test_where_too_much_would_go_the_stop_says_that_it_is_in_the_dataset(
    published: Hub, source: Path, root: Path
) -> None:
    state = pushed(source, published, root, exclude=["*_T1w.nii.gz"], include=INCLUDE)
    assert state.name == "TooMuchChanged" and "exclude names it" in (state.message or ""), state.message
    assert T1W in (state.message or "").split("exclude names it")[1]
