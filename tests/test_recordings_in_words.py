"""Wherever rows are counted for people, images, files of recordings and others are told apart."""

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.bids.not_fetched import absent
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.change import Change, change, identity_of
from tasks.record.published import Work
from tasks.record.removals import PublishedFile, Removals
from tasks.report.artifacts import evidence, removed
from tasks.report.dry_run import Rehearsal, dry_run
from tasks.report.evidence import Evidence, Gate, Leftovers, RemovalPlan, ShardCheck, VerificationReport
from tasks.report.gate_text import gate_text
from tasks.report.sentences import Where, how_verified, written_anew
from tasks.restore.wanted import Subset
from tasks.values.errors import BadInput
from tasks.values.kinds import counted, noun
from tasks.values.models import (
    LAYOUT_VERSION,
    Dataset,
    DatasetIdentity,
    ImageContent,
    PublicationRecord,
    PublishedShard,
    Receipt,
)
from tasks.values.preflight_rules import Checked
from tasks.write import WRITER_SETTINGS
from tests.recorded_dataset import EEG, EMPTY, MEG4, PHYSIO, T1W, with_recordings

HUB = Hub(Target("http://127.0.0.1:1", "lab/some"), "no token")
WHERE = Where(Path("/staging/lab--some"), "scanner-7", datetime(2026, 12, 24, 18, 5, tzinfo=UTC))
SHA, SHARD = "0" * 64, "data/sub-01/sub-01_ses-a.parquet"
FILE = PublishedFile(size=1_000_000, sha256=SHA)
IMAGES, RECORDINGS = (T1W, T1W.replace("T1w", "T2w")), (EEG, PHYSIO, MEG4)
BESIDE = (T1W.replace(".nii.gz", ".json"), EEG.replace("_eeg.edf", "_channels.tsv"))
#: Rows of a shard, and what they are counted as.
COUNTED = [(IMAGES, "2 images"), (IMAGES[:1] + RECORDINGS, "1 image and 3 files of recordings"),
           (RECORDINGS, "3 files of recordings"), (IMAGES + BESIDE, "2 images and 2 other files"),
           (IMAGES[:1] + RECORDINGS + BESIDE, "1 image, 3 files of recordings and 2 other files"),
           (BESIDE, "2 files")]  # fmt: skip


def line_of(paths: tuple[str, ...]) -> PublishedShard:
    images = tuple(ImageContent(path=path, size=9, sha256=SHA) for path in paths)
    return PublishedShard(path=SHARD, digest=SHA, sha256=SHA, size=2_000_000, rows=len(paths), images=images)


def receipt_of(paths: tuple[str, ...]) -> Receipt:
    return Receipt(**dict(line_of(paths)), name="sub-01_ses-a", file="shards/sub-01_ses-a.parquet")


def report_of(paths: tuple[str, ...]) -> VerificationReport:
    files, beside = sum(path in RECORDINGS for path in paths), sum(path in BESIDE for path in paths)
    check = ShardCheck(SHARD, 2_000_000, SHA, len(paths), "read back", recordings=files, beside=beside)
    of = {"repo_id": "lab/some", "revision": "main", "commit": "c" * 40, "level": "sample", "checks": (check,)}
    decoded = {"images_decoded": check.images, "bytes_read_back": 2_000_000}
    return VerificationReport.model_validate({**of, **decoded})


@pytest.fixture
def dataset(tmp_path: Path) -> Dataset:
    return load(with_recordings(tmp_path / "recorded"))


@pytest.mark.parametrize(("paths", "words"), COUNTED)
def test_the_gate_and_its_evidence_count_what_is_staged(paths: tuple[str, ...], words: str) -> None:
    gate = Gate(flow_run_id="1", flow_run_name="push", opened_at_commit="c" * 40)
    text = gate_text(HUB, report_of(paths), [receipt_of(paths)], gate, WHERE, (), "All of the evidence").above
    assert f"**2.0 MB** (1 shard, {words}), of" in text
    shown = evidence(HUB, report_of(paths), Evidence((), [receipt_of(paths)]), Leftovers())
    assert f"1 shard, 2.0 MB, with {words}. These are copies" in shown
    assert f"| shard | size | {noun(paths)}s | sha256 |" in shown


def test_of_a_shard_without_images_nothing_is_said_to_be_decoded() -> None:
    read = "1 shard, 2.0 MB, match the listing; 1 of them read back byte for byte (2.0 MB)"
    assert how_verified(report_of(RECORDINGS)) == read
    assert how_verified(report_of(BESIDE)) == read
    assert how_verified(report_of(IMAGES[:1] + RECORDINGS + BESIDE)) == f"{read} and 1 image in them decoded"


@pytest.mark.parametrize(("paths", "words"), COUNTED)
def test_removals_count_what_leaves(paths: tuple[str, ...], words: str) -> None:
    whole = Removals(shards={SHARD: paths}, published={SHARD: FILE})
    assert whole.sentence() == f"1 shard with {words} (sub-01_ses-a)"
    rows = Removals(rows={SHARD: paths}, published={SHARD: FILE})
    assert rows.sentence().startswith(f"{words} of 1 shard held back as published (")
    gate = Gate(flow_run_id="1", flow_run_name="push", opened_at_commit="c" * 40, removals=rows)
    assert f"Remove **{words}**" in gate_text(HUB, report_of(paths), [], gate, WHERE, (), "").above
    one = noun(paths)
    shown = evidence(HUB, report_of(paths), Evidence((), [], removals=rows, asked=rows), Leftovers())
    assert f"{one.capitalize()}s of shards that are held back" in shown and f"| {one} | shard |" in shown
    shown = evidence(HUB, report_of(paths), Evidence((), [], removals=whole, asked=whole), Leftovers())
    assert f"| shard | size | {one}s | verified by |" in shown
    gone = removed(HUB, RemovalPlan(commit="c" * 40, rows={SHARD: paths}), "", "c" * 40, "d" * 40)
    assert f"{words} of 1 shard" in gone and f"| {one} | shard |" in gone


def test_a_push_that_stops_names_files_where_recordings_are_among_what_is_published(dataset: Dataset) -> None:
    lines = [line_of((T1W, EEG, PHYSIO))]
    found = change(replace(dataset, images=()), (), PublicationRecord().updated(lines), lambda _: None)
    said = found.message(0.1, 0)
    assert "3 of 3 published files are gone from the dataset" in said and "  3 files gone: " in said
    assert "image" not in said.replace("images or", "")
    said = Change(published_images=9, back={EEG: "2026-11-01"}, recordings=True).message(0.1, 0)
    assert "1 file that a person has had removed from the Hub (on 2026-11-01) is in the dataset again" in said


def test_another_dataset_is_described_by_its_images_and_recordings(dataset: Dataset) -> None:
    before = DatasetIdentity(name="Rest", subjects=1, images=2, size=9)
    said = Change(published_images=2, before=before, now=identity_of(dataset)).looks_other()
    assert "'Rest' (1 subjects, 2 images)" in said
    assert "'A small dataset' (2 subjects, 3 images and 6 files of recordings)" in said


def test_what_is_not_here_is_counted_by_its_sort(dataset: Dataset) -> None:
    images = [replace(one, fetched=one.path not in (EEG, T1W)) for one in dataset.images]
    assert str(absent(images, Path(dataset.root))).startswith(
        "1 of 3 images and 1 of 6 files of recordings are not on this"
    )
    alone = [one for one in images if one.kind == "image"]
    assert str(absent(alone, Path(dataset.root))).startswith("1 of 3 images is not on this machine")


def test_a_part_that_nothing_is_in_is_told_of_files_where_there_are_recordings() -> None:
    with pytest.raises(BadInput, match="lab/x has no file of 'dwi'"):
        Subset(datatypes=["dwi"]).of([T1W, EEG], (), "lab/x")
    with pytest.raises(BadInput, match="lab/x has no image of 'dwi'"):
        Subset(datatypes=["dwi"]).of([T1W], (), "lab/x")
    assert Subset(subjects=["02"], datatypes=["meg"]).of([T1W, EMPTY], (), "lab/x") == {EMPTY}


def test_a_dry_run_counts_files_added_and_says_that_shards_are_written_anew_for_the_layout(dataset: Dataset) -> None:
    shards = plan(dataset, WRITER_SETTINGS)
    old = PublicationRecord().updated([line_of((T1W,))]).model_copy(update={"layout": 1})
    work = Work((), (), shards, ())
    text = dry_run(HUB, Rehearsal(dataset, shards, work, old, Checked()))
    assert "| shard | what | files added | files gone |" in text
    anew = "in layout 1; this version writes layout 2. So every shard is written anew once (1 shard)"
    assert anew in text and anew in written_anew(old, work)
    with_files = line_of(tuple(row.path for row in shards[0].rows))
    for record, some in ((old.updated([with_files]), work), (old, Work(shards, (), (), ()))):
        assert written_anew(record, some) == ""  # brought over already; nothing to do
    without = written_anew(old.updated([line_of((T1W,))]), work)
    assert without.startswith("Sidecars and tables are published as files now") and "once (1 shard)" in without
    assert PublicationRecord().layout == LAYOUT_VERSION == 2


def test_nothing_is_no_recording() -> None:
    assert counted([]) == "0 images" and noun([]) == "image"
