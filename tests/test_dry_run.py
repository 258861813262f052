"""What a dry run says, part by part: what would be pushed, what changed, and what stands in the way."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.published import Drift, Work
from tasks.record.removals import PublishedFile, Removals
from tasks.report.dry_run import Rehearsal, dry_run
from tasks.report.sentences import written_anew
from tasks.values.models import (
    Dataset,
    ImageContent,
    PublicationRecord,
    PublishedShard,
    ShardSpec,
)
from tasks.values.preflight_rules import Checked, Finding, Statement
from tests import bids_examples as bids
from tests.bids_examples import Content, Link

HUB = Hub(Target("https://hub.example", "lab/some"), "")
CLEAN = Checked(Statement("no faces"))
ONE, TWO = "sub-01/anat/sub-01_T1w.nii.gz", "sub-02/anat/sub-02_T1w.nii.gz"
KEY = "MD5E-s1000--0123.nii.gz"


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    """Two subjects with an image of 4 bytes each, the first with a sidecar that is a file beside it."""
    files: dict[str, Content] = {ONE: b"abcd", TWO: b"efgh", "sub-01/anat/sub-01_T1w.json": {"EchoTime": 1}}
    return load(bids.write(tmp_path, {"dataset_description.json": bids.description(), **files}))


def of(dataset: Dataset) -> tuple[ShardSpec, ...]:
    return tuple(plan(dataset, {}))


def work(send: tuple[ShardSpec, ...] = (), stage: tuple[ShardSpec, ...] = (), **fields: object) -> Work:
    return replace(Work(done=(), send=send, stage=stage, drift=()), **fields)  # type: ignore[arg-type]


def line(spec: ShardSpec, *paths: str) -> PublishedShard:
    sha256 = hashlib.sha256(b"a").hexdigest()
    images = tuple(ImageContent(path=path, size=4, sha256=sha256) for path in paths)
    return PublishedShard(path=spec.path, digest=spec.digest, sha256=sha256, size=9, rows=1, images=images)


def told(dataset: Dataset, work: Work, record: PublicationRecord | None = None, **more: object) -> list[str]:
    """The parts of what a dry run says."""
    checked = more.pop("checked", CLEAN)
    found = Rehearsal(dataset, of(dataset), work, record or PublicationRecord(), checked, **more)  # type: ignore[arg-type]
    said = dry_run(HUB, found)
    return said.rstrip("\n").split("\n\n")


def test_a_first_push_is_all_of_it_counted_by_suffix(dataset: Dataset) -> None:
    first, second = of(dataset)
    said = told(dataset, work(send=(second,), stage=(first,)))
    assert said[0] == f"# Dry run: {dataset.name} to lab/some" and said[1] == "Nothing was staged or sent."
    sizes = 4 + 4 + dataset.files[0].size
    assert said[3] == (
        f"2 shards of 2, {sizes} bytes, with 3 rows. On the Hub already: 0. Staged already, to send: 1. To embed and "
        "send: 1."
    )
    rows = said[4].splitlines()[2:]
    assert (
        rows[0] == "| T1w | 2 | 8 bytes | 2 |"
        and len(rows) == 2
        and f"| 1 | {dataset.files[0].size} bytes | 1 |" in rows[1]
    )
    assert said[5:7] == ["## What changed since the last time", "Nothing is published yet: all of it is new."]
    assert said[-3:] == ["# Before publication", "Faces: no faces.", "Nothing was found."]


def test_a_quiet_night_changes_nothing_and_says_so(dataset: Dataset) -> None:
    specs = of(dataset)
    record = PublicationRecord(shards={spec.path: line(spec, ONE) for spec in specs})
    said = told(dataset, work(done=specs), record)
    assert said[3].startswith("0 shards of 2, 0 bytes, with 0 rows. On the Hub already: 2.") and "Nothing." in said
    said = told(dataset, work(done=specs), record, texts=["bids/README"])
    assert "No shard." in said and "Texts and tables: 1 file (bids/README)." in said


def test_a_shard_that_is_new_or_changed_is_told_with_the_files_that_came_and_went(dataset: Dataset) -> None:
    first, second = of(dataset)
    record = PublicationRecord(shards={first.path: line(first, ONE, "sub-01/anat/sub-01_T2w.nii.gz")})
    removals = Removals(shards={"data/sub-03/sub-03.parquet": ("x_T1w.nii.gz",)},
                        published={"data/sub-03/sub-03.parquet": PublishedFile(size=1, sha256="0" * 64)})  # fmt: skip
    said = told(dataset, work(stage=(first, second), removals=removals), record)
    at = said.index("## What changed since the last time")
    changed = next(one for one in said[at:] if "new shard" in one)
    assert changed == f"1 new shard, 1 changed. No longer in the dataset: {removals.sentence()}."
    table = said[said.index(changed) + 1].splitlines()
    assert [row.split(" | ")[1:] for row in table[2:]] == [["changed", "1", "1 |"], ["new", "1", "0 |"]]
    said = told(dataset, work(removals=removals), record)
    assert f"0 new shards, 0 changed. No longer in the dataset: {removals.sentence()}." in said


def test_what_would_stop_the_push_is_said_first_and_in_its_place(dataset: Dataset) -> None:
    said = told(dataset, work(), stops=[ValueError("Too much changed.\n  Look at it.")], other="Another dataset?")
    assert said[1] == "**The push would stop**, see below. Nothing was staged or sent."
    at = said.index("## What changed since the last time")
    assert said[at + 1 : at + 4] == ["Too much changed.", "Look at it.", "Another dataset?"]
    found = Checked(Statement("no faces"), (Finding("personal-data", "Name", ("a.json",), 1),))
    assert told(dataset, work(), checked=found)[1].startswith("**The push would stop**")
    warned = Checked(Statement("no faces"), (Finding("device", "StationName", ("a.json",), 1),))
    assert told(dataset, work(), checked=warned)[1] == "Nothing was staged or sent."


def test_what_somebody_else_changed_on_the_hub_is_listed(dataset: Dataset) -> None:
    said = told(dataset, work(drift=(Drift("a", "gone"),)))
    assert said[said.index("## Changed on the Hub") + 1] == "| file | what |\n|---|---|\n| a | gone |"
    assert "## Changed on the Hub" not in told(dataset, work())


def test_files_that_are_not_on_this_machine_are_told_with_what_becomes_of_their_shard(tmp_path: Path) -> None:
    files: dict[str, Content] = {ONE: b"abcd", TWO: Link(f"../../.git/annex/objects/a/b/{KEY}/{KEY}")}
    dataset = load(bids.write(tmp_path, {"dataset_description.json": bids.description(), **files}))
    said = told(dataset, work(stage=of(dataset)))
    here = said[said.index("## Not on this machine") + 1]
    assert TWO in here and here.endswith("The shard of an image that is not here fails; the others go on.")


def test_shards_that_a_newer_version_lays_out_otherwise_are_told_once(dataset: Dataset) -> None:
    first, second = of(dataset)
    record = PublicationRecord(shards={spec.path: line(spec, ONE) for spec in (first, second)})
    both = work(stage=(first, second))
    assert written_anew(PublicationRecord(), both) == ""
    assert "the shards that have some are written anew once (1 shard);" in written_anew(record, both)
    assert written_anew(record, work(stage=(second,))) == ""  # it has no file beside its image
    with_files = PublicationRecord(shards={first.path: line(first, ONE, "sub-01/anat/sub-01_T1w.json")})
    assert written_anew(with_files, both) == ""  # it publishes files already
    older = record.model_copy(update={"layout": 1})
    told = written_anew(older, both)
    assert told.startswith("What is published was made by an older bids-push, in layout 1; this version writes layout ")
    assert "So every shard is written anew once (2 shards); " in told and written_anew(older, work()) == ""
