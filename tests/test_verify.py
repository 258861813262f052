import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants

from deployments.local_stack import Stack
from tasks.commit import commit
from tasks.commit.other_files import Besides
from tasks.disk.failed_shards import Cause, staged_copy
from tasks.disk.sample_rounds import Round
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.hub.errors import Refused, TokenRejected, Transient
from tasks.load import load
from tasks.plan import plan
from tasks.record.remote import RECORD, read_remote
from tasks.report.evidence import VerificationFailed, VerificationReport
from tasks.stage import stage
from tasks.transfer import transfer
from tasks.values.kinds import is_image
from tasks.values.models import PublicationRecord, PublishedShard, Receipt, ShardSpec
from tasks.verify import ReadBack, Reading, verify
from tasks.write import WRITER_SETTINGS
from tests.hub_within import Breakable
from tests.images import image_of, nifti1, nifti2, spec_of, zipped
from tests.layout_1 import as_layout_1
from tests.recorded_dataset import EMPTY, INNER, MEG4, PHYSIO, RECORDED, with_recordings

SUFFIXES = ("T1w", "T2w", "FLAIR", "PDw")  # of the images, a shard each


@pytest.fixture
def over_lfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The content goes as whole files, which the Hub hands out as they are by now; a xorb it checks as it reads it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def small(tmp_path: Path, staging: Staging) -> list[Receipt]:
    """Four staged shards with an image in NIfTI-1 and one in NIfTI-2 each."""
    return [stage(_small(tmp_path / "small", f"sub-{suffix}", suffix), tmp_path / "small", staging)
            for suffix in SUFFIXES]  # fmt: skip


def _small(root: Path, sub: str, suffix: str) -> ShardSpec:
    seed = SUFFIXES.index(suffix)
    one = image_of(root, f"{sub}/anat/{sub}_{suffix}.nii.gz", zipped(nifti1(seed=seed)))
    other = image_of(root, f"{sub}/anat/{sub}_run-2_{suffix}.nii", nifti2((7, 5, 6), seed=seed))
    return spec_of(one, other, name=sub)


@pytest.fixture
def published(hub: Hub, staging: Staging, small: list[Receipt]) -> list[Receipt]:
    publish_as(hub, [r.line() for r in small], [one.operation for one in transfer(hub, staging, small)])
    return small


def check(hub: Hub, receipts: list[Receipt], level: str = "full", **options: Any) -> VerificationReport:
    reading = Reading(Round(datetime.now(UTC), nights=2), **options)
    return verify(hub, [r.line() for r in receipts], level, reading)  # type: ignore[arg-type]


def stored(hub_server: Stack, receipt: Receipt) -> list[Path]:
    """The files of the Hub's store that hold a shard's bytes."""
    files = (Path(top) / name for top, _, names in os.walk(hub_server.folder / "hub") for name in names)
    return [path for path in files if path.stat().st_size == receipt.size and receipt.sha256 in str(path)]


@pytest.fixture
def recorded(hub: Hub, staging: Staging, tmp_path: Path) -> list[Receipt]:
    """Two published shards with recordings and images in them."""
    source = with_recordings(tmp_path / "recorded")
    receipts = [stage(spec, source, staging) for spec in plan(load(source), WRITER_SETTINGS)]
    publish_as(hub, receipts, [one.operation for one in transfer(hub, staging, receipts)])
    return receipts


def publish_as(hub: Hub, lines: Sequence[PublishedShard], files: list[CommitOperationAdd]) -> None:
    """Publish shards with these lines in the record, whatever is in the files."""
    besides = Besides(lambda record, existing: "---\nlicense: cc0-1.0\n---\n", {})
    commit(hub, read_remote(hub), lines, files, besides)


def test_full_reads_every_shard_back_and_decodes_every_image(hub: Hub, published: list[Receipt]) -> None:
    report = check(hub, published).require_good()
    assert report.commit == hub.head()
    assert {one.path for one in report.checks if one.how == "read back"} == {r.path for r in published}
    assert report.images_decoded == sum(is_image(one.path) for r in published for one in r.images) > 0
    assert report.bytes_read_back == sum(r.size for r in published)


def test_sample_reads_those_back_that_are_due_first_those_just_sent(hub: Hub, published: list[Receipt]) -> None:
    sent = published[2].path
    report = check(hub, published, "sample", least=1, sent=frozenset([sent]))
    assert report.read_back == 2 and len(report.checks) == 4  # half of them a night
    assert sent in report.right


@pytest.mark.parametrize("level", ["listing", "sample", "full"])
def test_a_shard_that_failed_before_is_read_back_at_any_level_beside_what_the_level_asks_for(
    hub: Hub, published: list[Receipt], level: str
) -> None:
    again = frozenset([published[3].path])
    for expected in (published, published[:3]):  # also where only the record knows it
        report = check(hub, expected, level, least=1, failed_before=again)
        assert again <= set(report.right)
        assert report.read_back == {"listing": 1, "sample": 3, "full": 4}[level] and not report.gone


def test_a_shard_that_failed_before_and_that_nobody_knows_any_more_is_gone(hub: Hub, published: list[Receipt]) -> None:
    path = "data/sub-gone/sub-gone.parquet"
    report = check(hub, published, "listing", failed_before=frozenset([path])).require_good()
    assert report.gone == (path,) and path not in {one.path for one in report.checks}


def test_listing_reads_nothing_back(hub: Hub, published: list[Receipt]) -> None:
    report = check(hub, published, "listing").require_good()
    assert (report.read_back, report.bytes_read_back, len(report.checks)) == (0, 0, 4)


def test_a_shard_deleted_on_the_hub_fails_by_name(hub: Hub, published: list[Receipt]) -> None:
    hub.commit([CommitOperationDelete(published[1].path)], "Tidy up", hub.head())
    report = check(hub, published, "listing")
    assert [failure.path for failure in report.failures] == [published[1].path]
    with pytest.raises(VerificationFailed, match=published[1].path):
        report.require_good()


def test_a_shard_replaced_on_the_hub_fails_in_the_listing_already(hub: Hub, published: list[Receipt]) -> None:
    other = CommitOperationAdd(published[0].path, b"PAR1 another file PAR1" * 1000)
    hub.commit([other], "Replace", hub.head())
    (failure,) = check(hub, published, "listing").failures
    assert failure.path == published[0].path and "22000 bytes in the repo" in failure.what


def test_a_shard_that_the_record_lost_fails(hub: Hub, published: list[Receipt]) -> None:
    record = PublicationRecord().updated(r.line() for r in published[1:])
    hub.commit([CommitOperationAdd(RECORD, record.dump())], "Edit the record", hub.head())
    (failure,) = check(hub, published, "listing").failures
    assert failure.path == published[0].path and "record" in failure.what


def test_a_byte_flipped_in_the_hubs_store_is_found_by_reading_back_and_by_nothing_less(
    over_lfs: None, hub: Hub, hub_server: Stack, published: list[Receipt]
) -> None:
    (file,) = stored(hub_server, published[3])
    good = file.read_bytes()
    data = bytearray(good)
    data[len(data) // 2] ^= 1
    file.chmod(0o644)
    file.write_bytes(data)
    try:
        assert not check(hub, published, "listing").failures
        (failure,) = check(hub, published, "full").failures
    finally:
        file.write_bytes(good)  # other tests publish the same content on this Hub
    assert failure.path == published[3].path and failure.cause is Cause.OTHER_BYTES


def test_all_of_it_is_looked_at_as_it_was_at_the_commit_that_is_named_whatever_the_head_holds_by_now(
    hub: Hub, published: list[Receipt]
) -> None:
    named = hub.head()
    emptied = CommitOperationAdd(RECORD, PublicationRecord().dump())
    hub.commit([CommitOperationDelete(published[0].path), emptied], "Tidy up", named)
    report = check(hub, published, "full", commit=named).require_good()
    assert report.commit == named and report.read_back == 4
    assert len(check(hub, published, "listing").failures) == 4


def test_what_was_expected_and_never_published_fails(hub: Hub, published: list[Receipt]) -> None:
    missing = published[0].model_copy(update={"path": "data/sub-none/sub-none.parquet"})
    (failure,) = check(hub, [*published, missing], "listing").failures
    assert failure.path == missing.path


def test_the_slices_show_images_of_different_suffixes(hub: Hub, published: list[Receipt]) -> None:
    slices = check(hub, published, "sample", least=4).slices
    assert len(slices) >= 3
    assert len({shown.suffix for shown in slices}) == len(slices)
    assert all(shown.png.startswith(b"\x89PNG") for shown in slices)


# Recordings, and shards of layout 1.


def test_recordings_are_compared_and_only_images_are_decoded_and_counted_as_such(
    hub: Hub, recorded: list[Receipt]
) -> None:
    report = check(hub, recorded).require_good()
    rows = sum(one.rows for one in recorded)
    sidecars_and_tables = 3
    assert rows == len(RECORDED) + sidecars_and_tables + 3 and report.images_decoded == 3
    assert sum(one.recordings for one in report.checks) == len(RECORDED)
    assert sum(one.beside for one in report.checks) == sidecars_and_tables
    assert sum(one.images for one in report.checks) == 3
    assert {shown.path.rpartition(".nii")[1] for shown in report.slices} == {".nii"}


@pytest.mark.parametrize("level", ["sample", "full"])
@pytest.mark.parametrize("path", [PHYSIO, MEG4, EMPTY, INNER])
def test_a_recording_with_other_bytes_than_its_source_fails_with_its_path(
    hub: Hub, staging: Staging, recorded: list[Receipt], level: str, path: str
) -> None:
    """The shard came as it was sent, and what was sent is not what the source had."""
    lines = []
    for receipt in recorded:
        images = (replace(one, sha256="0" * 64) if one.path == path else one for one in receipt.images)
        lines.append(receipt.model_copy(update={"images": tuple(images)}))
    publish_as(hub, [one.line() for one in lines], [one.operation for one in transfer(hub, staging, recorded)])
    (failure,) = check(hub, lines, level, least=2).failures
    assert failure.what == f"the recording {path} came back with other bytes than its source file has"
    assert failure.cause is Cause.CONTENT


def test_a_recording_that_is_in_the_record_and_not_in_its_shard_is_missing(
    hub: Hub, staging: Staging, recorded: list[Receipt]
) -> None:
    more = replace(recorded[0].images[0], path="sub-01/ses-a/eeg/sub-01_ses-a_task-more_eeg.edf")
    line = recorded[0].model_copy(update={"images": (*recorded[0].images, more)})
    publish_as(hub, [line.line()], [one.operation for one in transfer(hub, staging, recorded[:1])])
    (failure,) = check(hub, [line]).failures
    assert failure.what == f"files missing: {more.path}"


def test_a_shard_of_layout_1_is_verified_as_before(hub: Hub, staging: Staging, published: list[Receipt]) -> None:
    old, shards = [], []
    for receipt in published:
        data = as_layout_1((staging.folder / receipt.file).read_bytes())
        images = tuple(one for one in receipt.images if is_image(one.path))
        facts = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data), "rows": len(images), "images": images}
        old.append(receipt.model_copy(update=facts))
        shards.append((receipt.path, data))
    publish_as(hub, [one.line() for one in old], [CommitOperationAdd(*one) for one in shards])
    report = check(hub, old).require_good()
    assert report.images_decoded == sum(one.rows for one in old) and len(report.slices) >= 3
    first = old[0].images[0]
    images = (replace(first, sha256="0" * 64), *old[0].images[1:])
    other = old[0].model_copy(update={"images": images})
    publish_as(hub, [other.line()], [CommitOperationAdd(*shards[0])])
    (failure,) = check(hub, [other]).failures
    assert failure.what == f"the image {first.path} came back with other bytes than its source file has"


# A Hub that does not do as it should: by cause, and what to do about it.


@pytest.fixture
def faulty(counted: Hub, staging: Staging, small: list[Receipt]) -> tuple[Hub, list[Receipt]]:
    """A target with three shards on a Hub that can be made to fail."""
    hub = counted
    hub.prepare(private=True)
    receipts = small[:3]
    operations = [one.operation for one in transfer(hub, staging, receipts)]
    besides = Besides(lambda record, existing: "---\nlicense: cc0-1.0\n---\n", {"bids/README": b"the dataset\n"})
    commit(hub, read_remote(hub), [r.line() for r in receipts], operations, besides)
    return hub, receipts


def advice(hub: Hub, receipts: list[Receipt], staging: Staging, level: str = "full", **options: Any) -> str:
    """What a run says of the one shard that has failed."""
    report = check(hub, receipts, level, **options)
    with pytest.raises(VerificationFailed) as raised:
        report.require_good(staged=lambda failure: staged_copy(staging, failure))
    return str(raised.value)


def test_where_the_hub_sends_other_bytes_the_way_out_is_the_hub_and_the_staged_copy_is_looked_at(
    breakable: Breakable, faulty: tuple[Hub, list[Receipt]], staging: Staging
) -> None:
    hub, receipts = faulty
    breakable.break_on({"fault": "other_bytes", "path": re.escape(receipts[1].path), "times": -1})
    said = advice(hub, receipts, staging)
    file = staging.folder / receipts[1].file
    assert "1 of 3 is not on the Hub" in said and "The Hub sends other bytes than it lists" in said
    assert receipts[1].path in said and receipts[0].path not in said and receipts[2].path not in said
    assert "Sending it again does not help" in said and f"still staged here, intact: {file}" in said
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)
    assert f"The staged file is not intact: {file}" in advice(hub, receipts, staging)
    file.with_suffix(".receipt.json").unlink()
    assert "It is not staged here any more." in advice(hub, receipts, staging)


def test_where_the_hub_lists_a_shard_and_does_not_send_it_the_way_out_is_the_hub(
    breakable: Breakable, faulty: tuple[Hub, list[Receipt]], staging: Staging
) -> None:
    hub, receipts = faulty
    away = {"fault": "status", "status": 404, "code": "EntryNotFound", "times": -1}
    breakable.break_on({**away, "method": "GET", "path": re.escape(receipts[0].path)})
    said = advice(hub, receipts, staging)
    assert "lists it, and does not send it" in said and receipts[0].path in said and "still staged here" in said
    (failure,) = check(hub, receipts).failures
    assert failure.what == "the Hub says that it has no such file"


@pytest.mark.parametrize("status", [400, 409, 416])
def test_a_hub_that_refuses_to_send_a_shard_says_nothing_of_it(
    breakable: Breakable, faulty: tuple[Hub, list[Receipt]], status: int
) -> None:
    hub, receipts = faulty
    breakable.break_on({"fault": "status", "status": status, "method": "GET", "path": r"\.parquet$", "times": -1})
    with pytest.raises(Refused):
        check(hub, receipts)


def test_where_somebody_changed_the_repo_the_way_out_is_another_run(
    faulty: tuple[Hub, list[Receipt]], staging: Staging
) -> None:
    hub, receipts = faulty
    hub.commit([CommitOperationDelete(receipts[2].path)], "Tidy up", hub.head())
    said = advice(hub, receipts, staging, "listing")
    assert "Somebody changed the repo. Start the run again" in said and "staged here" not in said


def test_where_gitattributes_make_a_shard_a_text_the_way_out_is_there(
    faulty: tuple[Hub, list[Receipt]], staging: Staging
) -> None:
    hub, receipts = faulty
    rules = CommitOperationAdd(".gitattributes", b"*.parquet -filter -diff -merge text\n")
    hub.commit([rules, CommitOperationDelete(receipts[0].path)], "Rules", hub.head())
    as_text = CommitOperationAdd(receipts[0].path, path_or_fileobj=staging.folder / receipts[0].file)
    hub.commit([as_text], "The same bytes again", hub.head())
    assert hub.listing(hub.head()).files[receipts[0].path].sha256 is None
    said = advice(hub, receipts, staging, "listing")
    assert ".gitattributes" in said and receipts[0].path in said


def test_where_a_page_of_the_listing_is_short_nothing_has_to_be_sent(
    breakable: Breakable, faulty: tuple[Hub, list[Receipt]], staging: Staging
) -> None:
    hub, receipts = faulty
    breakable.break_on({"fault": "leave_out", "path": "/tree/", "what": re.escape(receipts[1].path), "times": -1})
    said = advice(hub, receipts, staging)
    assert "a page of its listing was short, and nothing has to be sent" in said and receipts[1].path in said
    gone = receipts[1].model_copy(update={"path": "data/sub-none/sub-none.parquet"})
    causes = {one.path: one.cause for one in check(hub, [*receipts, gone], "listing").failures}
    assert causes == {receipts[1].path: Cause.SHORT_LISTING, gone.path: Cause.CHANGED}


def test_a_text_of_the_dataset_that_is_not_there_as_it_is_fails(faulty: tuple[Hub, list[Receipt]]) -> None:
    hub, receipts = faulty
    texts = {"bids/README": b"the dataset\n", "bids/CHANGES": b"1.0\n"}
    assert {one.path for one in check(hub, receipts, "listing", texts=texts).failures} == {"bids/CHANGES"}
    texts = {"bids/README": b"other words\n"}
    (failure,) = check(hub, receipts, "listing", texts=texts).failures
    assert failure.path == "bids/README" and failure.what == "the repo has other text"


@pytest.mark.parametrize(("status", "error"), [(503, Transient), (429, Transient), (401, TokenRejected)])
def test_a_hub_that_cannot_be_asked_is_no_failure_of_a_shard_and_the_next_try_reads_only_what_is_left(
    breakable: Breakable, faulty: tuple[Hub, list[Receipt]], status: int, error: type[Exception]
) -> None:
    hub, receipts = faulty
    expected, found, reading = [r.line() for r in receipts], ReadBack(), Reading(Round(datetime.now(UTC), nights=2))
    third = {"method": "GET", "path": rf"/resolve/.*/{re.escape(receipts[2].path)}", "times": -1}
    breakable.break_on({"fault": "status", "status": status, **third})
    with pytest.raises(error):
        verify(hub, expected, "full", reading, found=found)
    breakable.break_on()
    start = len(breakable.asked())
    report = verify(hub, expected, "full", reading, found=found).require_good()
    assert report.read_back == 3 and report.bytes_read_back == sum(r.size for r in receipts)
    assert len({one.path for one in breakable.asked(start) if one.path.endswith(".parquet")}) == 1


def test_a_hub_that_asks_for_a_pause_is_given_it_and_the_log_says_so(
    breakable: Breakable, faulty: tuple[Hub, list[Receipt]], monkeypatch: pytest.MonkeyPatch
) -> None:
    hub, receipts = faulty
    pauses: list[float] = []
    monkeypatch.setattr("tasks.hub.budget.time.sleep", pauses.append)
    busy = {"fault": "status", "status": 429, "retry_after": 7, "method": "GET", "path": r"\.parquet$"}
    breakable.break_on({**busy, "after": 1, "times": 2})
    said: list[str] = []
    reading = Reading(Round(datetime.now(UTC), nights=2))
    report = verify(hub, [r.line() for r in receipts], "full", reading, said.append).require_good()
    assert report.read_back == 3 and pauses == [7, 7]
    assert [one[: len("The Hub asks for a pause of 7 s")] for one in said[:2]] == [
        "The Hub asks for a pause of 7 s"
    ] * 2
    assert said[2:] == ["read back 3 of 3 shards, 0 MB"]


def test_a_head_that_does_not_have_the_runs_own_commit_yet_is_waited_for(
    breakable: Breakable, faulty: tuple[Hub, list[Receipt]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another machine's run, or one that was resumed: nothing but the commit itself says what was there already."""
    hub, receipts = faulty
    before = hub.head()
    own = hub.commit([CommitOperationDelete(receipts[0].path)], "Tidy up", before)
    pauses: list[float] = []
    monkeypatch.setattr("tasks.hub.heads.time.sleep", pauses.append)
    breakable.break_on({"fault": "old_head", "path": r"/api/datasets/[^/]+/[^/]+(/revision/main)?$", "commit": before,
                        "times": 2})  # fmt: skip
    report = check(Hub(hub.target, hub.token), receipts, "listing", own_commit=own)
    assert report.commit == own and len(pauses) == 2
    assert [one.path for one in report.failures] == [receipts[0].path]


def test_what_was_read_at_the_same_commit_is_not_fetched_again_and_is_at_another(
    breakable: Breakable, faulty: tuple[Hub, list[Receipt]]
) -> None:
    hub, receipts = faulty
    head = hub.head()
    read = read_remote(hub, head).record, hub.listing(head)
    start = len(breakable.asked())
    assert check(hub, receipts, "listing", commit=head, read=read).require_good().commit == head
    assert not breakable.asked(start)
    hub.commit([CommitOperationDelete(receipts[0].path)], "Tidy up", head)
    start = len(breakable.asked())
    report = check(hub, receipts, "listing", read=read)
    assert [one.path for one in report.failures] == [receipts[0].path] and report.commit != head
    assert sum("/tree/" in one.path for one in breakable.asked(start)) == 1
