import os
from collections.abc import Callable
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants

from deployments.local_stack import Stack
from tasks.evidence import VerificationFailed, VerificationReport
from tasks.hub import Hub
from tasks.models import PublicationRecord, Receipt
from tasks.published import RECORD, read_published
from tasks.staging import Staging
from tasks.upload import Changes, commit, transfer
from tasks.verify import verify

Staged = Callable[[int], list[Receipt]]


@pytest.fixture
def over_lfs(monkeypatch: pytest.MonkeyPatch) -> None:
    """The content goes as whole files, which the Hub hands out as they are by now; a xorb it checks as it reads it."""
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)


@pytest.fixture
def published(hub: Hub, staging: Staging, staged: Staged) -> list[Receipt]:
    receipts = staged(4)
    changes = Changes(lambda record, existing: "---\nlicense: cc0-1.0\n---\n", {})
    operations = [one.operation for one in transfer(hub, staging, receipts)]
    commit(hub, read_published(hub), [r.published() for r in receipts], operations, changes)
    return receipts


def check(hub: Hub, receipts: list[Receipt], level: str = "full", **options: object) -> VerificationReport:
    return verify(hub, [r.published() for r in receipts], level, **options)  # type: ignore[arg-type]


def stored(hub_server: Stack, receipt: Receipt) -> list[Path]:
    """The files of the Hub's store that hold a shard's bytes."""
    files = (Path(top) / name for top, _, names in os.walk(hub_server.folder / "hub") for name in names)
    return [path for path in files if path.stat().st_size == receipt.size and receipt.sha256 in str(path)]


def test_full_reads_every_shard_back_and_decodes_every_image(hub: Hub, published: list[Receipt]) -> None:
    report = check(hub, published).require_good()
    assert report.commit == hub.head()
    assert {one.path for one in report.checks if one.how == "read back"} == {r.path for r in published}
    assert report.images_decoded == sum(r.rows for r in published)
    assert report.bytes_read_back == sum(r.size for r in published)


def test_sample_reads_some_back_first_those_just_sent_and_the_same_ones_each_time(
    hub: Hub, published: list[Receipt]
) -> None:
    sent = published[2].path
    reports = [check(hub, published, "sample", sample_shards=2, favour=[sent]) for _ in range(2)]
    assert reports[0].checks == reports[1].checks
    assert reports[0].read_back == 2 and len(reports[0].checks) == 4
    assert sent in {one.path for one in reports[0].checks if one.how == "read back"}


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
    record = PublicationRecord().updated(r.published() for r in published[1:])
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
    assert failure.path == published[3].path and "bytes that came back are others" in failure.what


def test_what_was_expected_and_never_published_fails(hub: Hub, published: list[Receipt]) -> None:
    missing = published[0].model_copy(update={"path": "data/sub-none/sub-none.parquet"})
    (failure,) = check(hub, [*published, missing], "listing").failures
    assert failure.path == missing.path


def test_the_slices_show_images_of_different_suffixes(hub: Hub, published: list[Receipt]) -> None:
    slices = check(hub, published, "sample", sample_shards=4).slices
    assert len(slices) >= 3
    assert len({shown.suffix for shown in slices}) == len(slices)
    assert all(shown.png.startswith(b"\x89PNG") for shown in slices)
