"""Images that a person has accepted as gone: these, with these published bytes, until they are back."""

import pytest

from tasks.disk.staging import Staging
from tasks.record.accepted import ACCEPTED, Accepted, images_of, read_accepted, write_accepted
from tasks.record.change import Change
from tasks.values.models import ImageContent, PublicationRecord, PublishedShard

A, B, C, D = (f"sub-{name}/anat/sub-{name}_T1w.nii.gz" for name in "abcd")
OLD, NEW = "1" * 64, "2" * 64


def record_of(**shards: dict[str, str]) -> PublicationRecord:
    """A record of shards with images of these sha256."""
    return PublicationRecord().updated(
        PublishedShard(
            path=f"data/sub-{name}/sub-{name}.parquet",
            digest="0" * 64,
            sha256="0" * 64,
            size=1,
            rows=len(images),
            images=tuple(ImageContent(path=path, size=1, sha256=sha256) for path, sha256 in images.items()),
        )
        for name, images in shards.items()
    )


def gone(*paths: str) -> Change:
    return Change(published_images=4, gone=paths)


RECORD = record_of(x={A: OLD, B: OLD}, y={C: OLD, D: NEW})


def test_every_image_of_every_shard_is_published_with_its_bytes() -> None:
    assert images_of(RECORD) == {A: OLD, B: OLD, C: OLD, D: NEW}


def test_only_what_is_published_with_the_bytes_that_were_meant_counts_as_accepted() -> None:
    accepted = Accepted(gone={A: OLD, C: NEW, D: OLD, "sub-e/anat/sub-e_T1w.nii.gz": OLD})
    assert accepted.within(RECORD) == {A}


def test_a_change_that_nobody_gave_the_number_for_is_not_remembered() -> None:
    assert Accepted().after(gone(A, D), accepted=False, record=RECORD, there=[B, C]) == Accepted()


def test_a_change_that_somebody_gave_the_number_for_is_remembered_with_its_published_bytes() -> None:
    after = Accepted().after(gone(D, A), accepted=True, record=RECORD, there=[B, C])
    assert after == Accepted(gone={A: OLD, D: NEW})


@pytest.mark.parametrize("accepted", [True, False])
def test_what_was_accepted_before_stays_until_it_is_back_or_published_otherwise(accepted: bool) -> None:
    before = Accepted(gone={A: OLD, B: OLD, C: NEW})
    after = before.after(gone(), accepted, RECORD, there=[B, D])
    assert after == Accepted(gone={A: OLD})


def test_what_was_accepted_comes_back_from_its_file(staging: Staging) -> None:
    assert read_accepted(staging) == Accepted()
    write_accepted(staging, Accepted(gone={A: OLD, D: NEW}))
    assert read_accepted(staging) == Accepted(gone={A: OLD, D: NEW})


@pytest.mark.parametrize("text", ["", "{", "[]", '{"gone": []}', '{"gone": {"sub-a": "no sha256"}}', "\xff"])
def test_a_damaged_file_accepts_nothing(staging: Staging, text: str) -> None:
    write_accepted(staging, Accepted(gone={A: OLD}))
    (staging.folder / ACCEPTED).write_text(text, encoding="latin-1")
    assert read_accepted(staging) == Accepted()


def test_a_folder_in_the_place_of_the_file_accepts_nothing(staging: Staging) -> None:
    (staging.folder / ACCEPTED).mkdir(parents=True)
    assert read_accepted(staging) == Accepted()
