"""What a person has had removed from the Hub does not go back there without a word, whatever it is called by then."""

import time
from datetime import UTC, datetime
from pathlib import Path

import pytest

from tasks.disk.staging import Staging, Target
from tasks.record.change import Change, RemovedCameBack, TooMuchChanged
from tasks.record.removed_before import REMOVED, RemovedBefore, UnreadableMemory, read_removed, write_removed
from tasks.values.models import Image, ImageContent, PublicationRecord, PublishedShard

DAY = "2026-11-20"
ZERO = "0" * 64
ANAT = "sub-03/ses-1/anat/sub-03_ses-1_T1w.nii.gz"
BOLD = "sub-03/ses-1/func/sub-03_ses-1_task-rest_bold.nii.gz"
LATER = "sub-03/ses-2/anat/sub-03_ses-2_T1w.nii.gz"
SAID = (
    "{} says which images people have had removed from the Hub, and it cannot be read: {}. Nothing was staged, sent or "
    "removed. Take the file from a backup. Without it (move it away), images that were removed are published again if "
    "they are in the dataset again, and nobody is asked."
)
TEMPLATE = "derivatives/x/tpl-A/tpl-A_T1w.nii.gz"


def image(path: str) -> Image:
    subject = next((part[4:] for part in path.split("/") if part.startswith("sub-")), None)
    return Image(path, 1, 0, "raw", subject, None, "anat", "T1w")


def record_of(*paths: str) -> PublicationRecord:
    contents = tuple(ImageContent(path=path, size=1, sha256=ZERO) for path in paths)
    line = PublishedShard(path="data/s/s.parquet", digest=ZERO, sha256=ZERO, size=1, rows=len(paths), images=contents)
    return PublicationRecord().updated([line])


@pytest.mark.parametrize(
    ("removed", "dataset", "published", "back"),
    [
        pytest.param([ANAT], [ANAT], [], [ANAT], id="the same image"),
        pytest.param([ANAT], [], [], [], id="nothing came back"),
        pytest.param([ANAT], ["sub-04/anat/sub-04_T1w.nii.gz"], [], [], id="another subject"),
        pytest.param([ANAT], [LATER], [], [LATER], id="a subject that was removed whole, with a new session"),
        pytest.param([ANAT], [LATER, BOLD], [BOLD], [], id="a new session of a subject that is published otherwise"),
        pytest.param([ANAT], [ANAT, BOLD], [BOLD], [ANAT], id="one image of a subject that is published otherwise"),
        pytest.param([ANAT], [ANAT], [ANAT], [], id="its removal never happened, or somebody published it again"),
        pytest.param([TEMPLATE], [TEMPLATE, "derivatives/x/tpl-B/tpl-B_T1w.nii.gz"], [], [TEMPLATE], id="nobody's"),
    ],
)
def test_an_image_is_back_if_it_was_removed_or_its_subject_was_removed_whole(
    removed: list[str], dataset: list[str], published: list[str], back: list[str]
) -> None:
    memory = RemovedBefore(images=dict.fromkeys(removed, DAY))
    found = memory.back([image(path) for path in dataset], record_of(*published))

    assert found == dict.fromkeys(back, DAY)


def test_what_is_published_again_is_forgotten_and_what_is_about_to_be_removed_is_not() -> None:
    memory = RemovedBefore(images={ANAT: DAY, BOLD: DAY})

    assert memory.after([image(ANAT)], record_of(ANAT, BOLD)).images == {BOLD: DAY}
    assert memory.after([image(ANAT)], record_of()).images == {ANAT: DAY, BOLD: DAY}


def test_the_memory_is_kept_beside_the_staged_shards_and_grows(tmp_path: Path) -> None:
    staging = Staging.of(tmp_path, Target("http://hub", "lab/x", "main"))
    staging.folder.mkdir(parents=True)
    assert read_removed(staging) == RemovedBefore()
    write_removed(staging, RemovedBefore(images={ANAT: DAY}))
    write_removed(staging, read_removed(staging).with_more([BOLD]))

    assert read_removed(staging).images.keys() == {ANAT, BOLD} and read_removed(staging).images[ANAT] == DAY


@pytest.mark.parametrize("damage", [b"", b"{", b'{"images": [1]}', b"\xff\xfe"])
def test_a_memory_that_cannot_be_read_stops_the_run_because_nobody_knows_what_must_stay_away(
    tmp_path: Path, damage: bytes
) -> None:
    staging = Staging.of(tmp_path, Target("http://hub", "lab/x", "main"))
    staging.folder.mkdir(parents=True)
    (staging.folder / REMOVED).write_bytes(damage)

    with pytest.raises(UnreadableMemory) as stopped:
        read_removed(staging)
    assert str(stopped.value) == SAID.format(staging.folder / REMOVED, "it is not what was written")


def test_a_link_in_place_of_the_memory_is_not_followed(tmp_path: Path) -> None:
    staging = Staging.of(tmp_path, Target("http://hub", "lab/x", "main"))
    staging.folder.mkdir(parents=True)
    (tmp_path / "elsewhere").write_text('{"images": {}}')
    (staging.folder / REMOVED).symlink_to(tmp_path / "elsewhere")

    with pytest.raises(UnreadableMemory) as stopped:
        read_removed(staging)
    assert str(stopped.value) == SAID.format(staging.folder / REMOVED, "it is a symlink")


@pytest.mark.parametrize("zone", ["Pacific/Kiritimati", "Etc/GMT+12"])  # in one of them it is another day than in UTC
def test_the_day_of_a_removal_is_that_of_utc_wherever_the_machine_lives(
    zone: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", zone)
    time.tzset()
    try:
        before = datetime.now(UTC).date().isoformat()
        day = RemovedBefore().with_more([ANAT]).images[ANAT]
        assert before <= day <= datetime.now(UTC).date().isoformat()
    finally:
        monkeypatch.undo()
        time.tzset()


def test_one_image_that_is_back_stops_a_run_until_somebody_gives_the_number() -> None:
    change = Change(published_images=100, gone=("a",), back={ANAT: DAY, BOLD: DAY})

    with pytest.raises(RemovedCameBack) as stopped:
        change.require(0.1, accepted=0)
    said = str(stopped.value)
    assert "2 images that people have had removed from the Hub (on 2026-11-20) are in the dataset again" in said
    assert ANAT in said and "accept_changes=3." in said and "from a backup" in said
    with pytest.raises(RemovedCameBack, match="is not the number"):
        change.require(0.1, accepted=2)
    change.require(0.1, accepted=3)


def test_where_much_has_changed_too_one_number_is_for_both() -> None:
    change = Change(published_images=10, gone=("a", "b"), back={ANAT: DAY})

    with pytest.raises(TooMuchChanged) as stopped:
        change.require(0.1, accepted=2)
    assert type(stopped.value) is TooMuchChanged
    said = str(stopped.value)
    assert "2 of 10 published images are gone" in said and "accept_changes=3." in said
    assert "And 1 image that a person has had removed" in said and ANAT in said
    change.require(0.1, accepted=3)


def test_what_came_back_meanwhile_is_not_within_what_was_confirmed() -> None:
    before, later = Change(10, back={ANAT: DAY}), Change(10, back={ANAT: DAY, BOLD: DAY})

    assert before.within(later) and not later.within(before)
