"""A push knows its dataset: the ways in which a disk, a path or a person can make most of it look gone, one by one.

The dataset has 12 subjects with 3 images each, so 36 are published, and more than 3 of them stop a push.
"""

import gzip
import json
import os
import re
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from prefect.client.schemas.objects import State

from flows.push_bids import push_bids
from tasks.disk.content_cache import ContentCache
from tasks.disk.files import sha256_of
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.accepted import ACCEPTED
from tasks.record.change import Change, TooMuchChanged, change
from tasks.record.removed_before import RemovedBefore, write_removed
from tasks.values.models import ImageContent, PublicationRecord, PublishedShard
from tasks.values.settings import Settings
from tasks.write import WRITER_SETTINGS
from tests.bids_examples import Image, description, write
from tests.counted_hub import CountedHub

SUBJECTS = 12
EACH = ("anat/sub-{0}_T1w", "func/sub-{0}_task-rest_run-1_bold", "func/sub-{0}_task-rest_run-2_bold")
PUBLISHED = SUBJECTS * len(EACH)


def labels(count: int = SUBJECTS) -> list[str]:
    return [f"{number:02}" for number in range(1, count + 1)]


def make(root: Path, subjects: Iterable[str] | None = None, study: int = 0) -> Path:
    files: dict[str, object] = {"dataset_description.json": description(Name="Rest", DatasetDOI="10.0/rest")}
    for number, label in enumerate(subjects or labels()):
        for which, name in enumerate(EACH):
            path = f"sub-{label}/{name.format(label)}"
            files[f"{path}.nii.gz"] = Image(fill=1 + 1000 * study + 10 * number + which)
            files[f"{path}.json"] = {"EchoTime": 0.03}
    return write(root, files)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    return make(tmp_path / "rest")


def record_of(root: Path) -> PublicationRecord:
    """The record of a push of all of it."""
    lines = []
    for spec in plan(load(root), WRITER_SETTINGS):
        images = tuple(
            ImageContent(path=image.path, size=image.size, sha256=sha256_of(root / image.path)) for image in spec.images
        )
        lines.append(
            PublishedShard(path=spec.path, digest=spec.digest, sha256="0" * 64, size=1, rows=len(images), images=images)
        )
    dataset = change(load(root), (), PublicationRecord(), lambda _: None).now
    return PublicationRecord().updated(lines, dataset=dataset)


def compared(root: Path, record: PublicationRecord, settled: Iterable[str] = ()) -> Change:
    """What a night finds that knows nothing of the night before."""
    dataset = load(root)
    contents = ContentCache(root.parent / "cache" / "contents", root)
    return change(dataset, plan(dataset, WRITER_SETTINGS), record, contents.sha256, frozenset(settled))


def images_of(root: Path, pattern: str = "sub-*/*/*.nii.gz") -> list[Path]:
    return sorted(root.glob(pattern))


# What stops: each makes the tree at `bids` what a night would find, and says how many images are then gone or other.


def subjects_that_are_not_mounted(bids: Path) -> int:
    for folder in sorted(bids.glob("sub-*"))[1:]:
        shutil.rmtree(folder)
        folder.mkdir()
    return 33


def subjects_that_are_not_there(bids: Path) -> int:
    for folder in sorted(bids.glob("sub-*"))[6:]:
        shutil.rmtree(folder)
    return 18


def an_empty_datatype(bids: Path) -> int:
    for folder in bids.glob("sub-*/func"):
        shutil.rmtree(folder)
        folder.mkdir()
    return 24


def one_kind_of_image_filtered_away(bids: Path) -> int:
    for image in images_of(bids, "sub-*/anat/*_T1w.nii.gz"):
        image.unlink()
    return 12


def another_study_with_other_subjects(bids: Path) -> int:
    shutil.rmtree(bids)
    make(bids, [f"S{label}" for label in labels()], study=1)
    return 36


def another_study_with_the_same_subjects(bids: Path) -> int:
    shutil.rmtree(bids)
    make(bids, study=1)
    return 36


def a_smaller_study_with_the_same_first_subjects(bids: Path) -> int:
    shutil.rmtree(bids)
    make(bids, labels(3), study=1)
    return 36


def half_a_copy(bids: Path) -> int:
    for image in images_of(bids)[len(images_of(bids)) // 2 :]:
        image.unlink()
    return 18


def a_changed_prefix(bids: Path) -> int:
    for label in labels():
        (bids / f"sub-{label}").rename(bids / f"sub-M{label}")
        for file in (bids / f"sub-M{label}").glob("*/*"):
            file.rename(file.with_name(file.name.replace(f"sub-{label}", f"sub-M{label}")))
    return 36


def sessions_introduced(bids: Path) -> int:
    for label in labels():
        for file in sorted((bids / f"sub-{label}").glob("*/*")):
            new = bids / f"sub-{label}" / "ses-1" / file.parent.name / file.name.replace("_", "_ses-1_", 1)
            new.parent.mkdir(parents=True, exist_ok=True)
            file.rename(new)
    return 36


def images_converted_again(bids: Path) -> int:
    """Same voxels, another compression: other bytes."""
    for image in images_of(bids):
        image.write_bytes(gzip.compress(gzip.decompress(image.read_bytes()), compresslevel=1, mtime=1))
    return 36


def images_unpacked(bids: Path) -> int:
    for image in images_of(bids):
        image.with_suffix("").write_bytes(gzip.decompress(image.read_bytes()))
        image.unlink()
    return 36


def images_mixed_up_between_subjects(bids: Path) -> int:
    contents = [image.read_bytes() for image in images_of(bids)]
    for image, data in zip(images_of(bids), contents[3:] + contents[:3], strict=True):
        image.write_bytes(data)
    return 36


def zeroed_by_a_disk(bids: Path) -> int:
    for image in images_of(bids)[:8]:
        image.write_bytes(bytes(image.stat().st_size))
    return 8


def replaced_at_the_same_size_and_time(bids: Path) -> int:
    for number, image in enumerate(images_of(bids)[:6]):
        before = image.stat()
        image.write_bytes(image.read_bytes()[:-8] + number.to_bytes(8, "little"))
        os.utime(image, ns=(before.st_atime_ns, before.st_mtime_ns))
    return 6


def truncated_by_a_full_disk(bids: Path) -> int:
    for image in images_of(bids)[-5:]:
        os.truncate(image, 40)
    return 5


def the_links_of_another_machine(bids: Path) -> int:
    """Images that link to a disk that is not here, and not into an annex."""
    for image in images_of(bids, "sub-0*/func/*.nii.gz"):
        image.unlink()
        image.symlink_to(f"/nowhere/{image.name}")
    return 0  # what is linked to nowhere is still named: staging stops its shards, and nothing goes


def folders_in_capitals(bids: Path) -> int:
    for folder in sorted(bids.glob("sub-*")):
        folder.rename(folder.with_name(folder.name.upper()))
    make(bids, ["99"])
    return 36


def just_more_than_a_tenth(bids: Path) -> int:
    for image in images_of(bids)[:4]:
        image.unlink()
    return 4


STOPS: list[Callable[[Path], int]] = [
    subjects_that_are_not_mounted,
    subjects_that_are_not_there,
    an_empty_datatype,
    one_kind_of_image_filtered_away,
    another_study_with_other_subjects,
    another_study_with_the_same_subjects,
    a_smaller_study_with_the_same_first_subjects,
    half_a_copy,
    a_changed_prefix,
    sessions_introduced,
    images_converted_again,
    images_unpacked,
    images_mixed_up_between_subjects,
    zeroed_by_a_disk,
    replaced_at_the_same_size_and_time,
    truncated_by_a_full_disk,
    folders_in_capitals,
    just_more_than_a_tenth,
]


@pytest.mark.parametrize("way", STOPS, ids=lambda way: way.__name__)
def test_a_dataset_that_lost_or_changed_too_much_is_stopped_with_the_exact_number(
    bids: Path, way: Callable[[Path], int]
) -> None:
    record = record_of(bids)
    count = way(bids)
    found = compared(bids, record)
    with pytest.raises(TooMuchChanged) as stopped:
        found.require(Settings().max_change, accepted=0)
    assert f"{count} of {PUBLISHED} published images" in str(stopped.value)
    assert f"accept_changes={count}." in str(stopped.value)
    found.require(Settings().max_change, accepted=count)
    for wrong in (count - 1, count + 1):
        with pytest.raises(TooMuchChanged, match="is not the number"):
            found.require(Settings().max_change, accepted=wrong)


# What goes on: each is meant, or small, or harmless.


def nothing(bids: Path) -> int:
    return 0


def exported_again_with_new_sidecars(bids: Path) -> int:
    for sidecar in bids.rglob("*_*.json"):
        sidecar.write_text(json.dumps({"EchoTime": 0.03, "ConversionSoftware": "another"}))
    for image in images_of(bids):
        os.utime(image, ns=(1, 1))
    return 0


def twice_as_many_subjects(bids: Path) -> int:
    make(bids, [f"N{label}" for label in labels()], study=2)
    return 0


def a_new_name(bids: Path) -> int:
    (bids / "dataset_description.json").write_text(json.dumps(description(Name="Rest, revised", DatasetDOI="10.0/new")))
    return 0


def one_subject_withdrawn(bids: Path) -> int:
    shutil.rmtree(bids / "sub-03")
    return 3


def a_few_images_replaced(bids: Path) -> int:
    for image in images_of(bids)[:3]:
        image.write_bytes(gzip.compress(gzip.decompress(image.read_bytes())[:-2] + b"\x07\x07", mtime=0))
    return 3


def an_ignore_file_that_names_subjects(bids: Path) -> int:
    (bids / ".bidsignore").write_text("sub-0*\n")
    return 0


def moved_to_another_disk(bids: Path) -> int:
    shutil.move(bids, bids.with_name("moved"))
    shutil.copytree(bids.with_name("moved"), bids)
    return 0


@pytest.mark.parametrize(
    "way",
    [
        nothing,
        exported_again_with_new_sidecars,
        twice_as_many_subjects,
        a_new_name,
        one_subject_withdrawn,
        a_few_images_replaced,
        an_ignore_file_that_names_subjects,
        moved_to_another_disk,
        the_links_of_another_machine,
    ],
    ids=lambda way: way.__name__,
)
def test_what_is_small_or_no_change_of_an_image_goes_on(bids: Path, way: Callable[[Path], int]) -> None:
    record = record_of(bids)
    count = way(bids)
    found = compared(bids, record)
    assert found.count == count
    found.require(Settings().max_change, accepted=0)


def test_what_exclude_leaves_out_counts_as_gone(bids: Path, tmp_path: Path) -> None:
    record, contents = record_of(bids), ContentCache(tmp_path / "contents", bids)
    found = change(load(bids, exclude=["sub-0*/"]), (), record, contents.sha256)
    assert found.count == 27 and found.exceeds(Settings().max_change)
    assert change(load(bids, exclude=["sub-0*/"], include=["sub-0*"]), (), record, contents.sha256).count == 0


def test_the_message_says_that_it_looks_like_another_dataset_only_where_its_name_or_doi_differ(bids: Path) -> None:
    record = record_of(bids)
    half_a_copy(bids)
    assert "another dataset" not in compared(bids, record).message(0.1, 0)
    a_new_name(bids)
    message = compared(bids, record).message(0.1, 0)
    assert "looks like another dataset" in message
    assert "'Rest', DOI 10.0/rest (12 subjects, 36 images)" in message
    assert "'Rest, revised', DOI 10.0/new (6 subjects, 18 images)" in message


def test_the_message_names_subjects_first_since_people_think_in_them_and_then_images(bids: Path) -> None:
    for label in ("01", "02"):  # a mask of theirs stays: that is not the subject
        mask = bids / f"derivatives/m/sub-{label}/anat/sub-{label}_desc-x_mask.nii.gz"
        mask.parent.mkdir(parents=True)
        shutil.copy(images_of(bids)[0], mask)
    record = record_of(bids)
    for label in ("01", "02", "03", "04"):
        shutil.rmtree(bids / f"sub-{label}")
    for image in (images_of(bids, f"sub-{label}/*/*.nii.gz")[0] for label in ("05", "06")):
        image.write_bytes(gzip.compress(b"another one" + bytes(200)))
    _, subjects, others, gone, changed, *_ = compared(bids, record).message(0.1, 0).splitlines()
    assert subjects == "  4 subjects wholly gone: sub-01, sub-02, sub-03 and 1 more"
    assert others == "  2 subjects with images that are gone or have other bytes: sub-05, sub-06"
    assert gone.startswith("  12 images gone: sub-01/") and changed.startswith("  2 images with other bytes: sub-05/")


def test_what_a_person_has_decided_about_is_not_counted_again(bids: Path) -> None:
    record = record_of(bids)
    gone = [image.relative_to(bids).as_posix() for image in images_of(bids)[:6]]
    for folder in ("sub-01", "sub-02"):
        shutil.rmtree(bids / folder)
    assert compared(bids, record).count == 6
    assert compared(bids, record, settled=gone[:5]).gone == (gone[5],)
    assert compared(bids, record, settled=gone).count == 0


@pytest.mark.parametrize(
    ("settled", "told"),
    [
        (0, None),
        (1, "  1 more published image is gone and not counted here: a person has decided about that, or is being asked "
            "at a gate."),
        (2, "  2 more published images are gone and not counted here: a person has decided about that, or is being "
            "asked at a gate."),
    ],
)  # fmt: skip
def test_whoever_counts_what_is_gone_gets_the_numbers_of_the_message(
    bids: Path, settled: int, told: str | None
) -> None:
    record = record_of(bids)
    gone = [image.relative_to(bids).as_posix() for image in images_of(bids)[:9]]
    for label in ("01", "02", "03"):
        shutil.rmtree(bids / f"sub-{label}")
    found = compared(
        bids, record, settled=[*gone[:settled], images_of(bids)[0].relative_to(bids).as_posix(), "no/such"]
    )
    message = found.message(0.1, 0)
    assert f"{9 - settled} of {PUBLISHED} published images are gone" in message
    assert f"accept_changes={9 - settled}." in message
    assert [line for line in message.splitlines() if "not counted" in line] == ([told] if told else [])


def test_an_image_that_was_settled_as_gone_and_is_back_with_other_bytes_counts(bids: Path) -> None:
    record = record_of(bids)
    image = images_of(bids)[0]
    image.write_bytes(gzip.compress(b"another one" + bytes(200)))
    assert compared(bids, record, settled=[image.relative_to(bids).as_posix()]).count == 1


def test_a_new_repo_has_nothing_that_could_have_changed(bids: Path) -> None:
    found = compared(bids, PublicationRecord())
    assert found.count == 0 and not found.exceeds(0)
    found.require(0, accepted=0)


@pytest.mark.parametrize(("part", "stops"), [("0", True), ("0.08", True), ("0.09", False), ("1", False)])
def test_how_much_is_too_much_is_a_setting_of_the_machine(
    bids: Path, monkeypatch: pytest.MonkeyPatch, part: str, stops: bool
) -> None:
    monkeypatch.setenv("BIDS_PUSH_MAX_CHANGE", part)
    record = record_of(bids)
    one_subject_withdrawn(bids)
    assert compared(bids, record).exceeds(Settings().max_change) is stops


# On the Hub


def push(source: Path, target: Hub, root: Path, **parameters: Any) -> State[Any]:
    given = {"defacing": "no faces", **parameters}
    return push_bids(source, target.target.repo_id, staging_root=root, return_state=True, **given)


@pytest.mark.parametrize("removed", ["keep", "ask"])
@pytest.mark.parametrize(
    "way",
    [subjects_that_are_not_mounted, an_empty_datatype, another_study_with_the_same_subjects],
    ids=lambda way: way.__name__,
)
def test_such_a_night_stages_nothing_commits_nothing_and_says_the_number(
    bids: Path, target: Hub, tmp_path: Path, way: Callable[[Path], int], removed: str
) -> None:
    root = tmp_path / "staging-root"
    assert push(bids, target, root).type.value == "COMPLETED"
    head, staged = target.head(), sorted(root.rglob("*.parquet"))
    count = way(bids)
    state = push(bids, target, root, removed=removed)
    assert (state.type.value, state.name) == ("FAILED", "TooMuchChanged")
    assert f"{count} of {PUBLISHED} published images" in (state.message or "")
    assert target.head() == head and sorted(root.rglob("*.parquet")) == staged
    wrong = push(bids, target, root, removed=removed, accept_changes=count - 1)
    assert wrong.name == "TooMuchChanged" and target.head() == head
    dry = push(bids, target, root, removed=removed, dry_run=True)
    assert dry.name == "DryRun" and f"accept_changes={count}" in (dry.message or "")


def test_the_exact_number_lets_this_night_on_and_no_other(bids: Path, target: Hub, tmp_path: Path) -> None:
    root = tmp_path / "staging-root"
    push(bids, target, root)
    before = target.listing(target.head()).files
    count = images_converted_again(bids)
    state = push(bids, target, root, accept_changes=count)
    assert state.type.value == "COMPLETED", state.message
    after = target.listing(target.head()).files
    shards = [path for path in before if re.match("data/", path)]
    assert len(shards) == SUBJECTS and all(after[path].sha256 != before[path].sha256 for path in shards)
    zeroed_by_a_disk(bids)
    again = push(bids, target, root, accept_changes=count)
    assert again.name == "TooMuchChanged" and "is not the number that is found now" in (again.message or "")


def test_what_was_accepted_to_be_gone_is_not_asked_about_in_the_nights_after(
    bids: Path, target: Hub, tmp_path: Path
) -> None:
    root, head = tmp_path / "staging-root", target.head
    push(bids, target, root)
    count = subjects_that_are_not_there(bids)
    assert push(bids, target, root, accept_changes=count).type.value == "COMPLETED"
    before = head()
    quiet = push(bids, target, root)
    assert (quiet.type.value, head()) == ("COMPLETED", before), quiet.message
    # more than that is asked about, and only what is more is counted
    image = sorted(bids.rglob("*_T1w.nii.gz"))[0]
    for folder in sorted(bids.glob("sub-*"))[:2]:
        shutil.rmtree(folder)
    stopped = push(bids, target, root)
    assert stopped.name == "TooMuchChanged" and not image.exists(), stopped.message
    assert f"{PUBLISHED // SUBJECTS * 2} of {PUBLISHED} published images" in (stopped.message or "")


def test_what_goes_little_by_little_is_accepted_by_nobody_and_stops_once_it_is_much(
    bids: Path, target: Hub, tmp_path: Path
) -> None:
    root, (one, other, *_) = tmp_path / "staging-root", sorted(bids.glob("sub-*"))
    push(bids, target, root)
    shutil.rmtree(one)
    assert push(bids, target, root).type.value == "COMPLETED"
    shutil.rmtree(other)
    state = push(bids, target, root)
    assert state.name == "TooMuchChanged" and f"{2 * len(EACH)} of {PUBLISHED} published" in (state.message or "")


def test_an_accepted_subject_that_came_back_and_is_gone_again_is_asked_about(
    bids: Path, target: Hub, tmp_path: Path
) -> None:
    root, aside = tmp_path / "staging-root", tmp_path / "aside"
    push(bids, target, root)
    shutil.copytree(bids, aside, symlinks=True)
    count = subjects_that_are_not_there(bids)
    assert push(bids, target, root, accept_changes=count).type.value == "COMPLETED"
    shutil.copytree(aside, bids, symlinks=True, dirs_exist_ok=True)
    assert push(bids, target, root).type.value == "COMPLETED"
    assert subjects_that_are_not_there(bids) == count
    again = push(bids, target, root)
    assert again.name == "TooMuchChanged" and f"accept_changes={count}" in (again.message or "")


def test_what_is_gone_and_was_confirmed_with_what_is_back_is_not_counted_again(
    bids: Path, target: Hub, tmp_path: Path
) -> None:
    root, (one, other, *_) = tmp_path / "staging-root", sorted(bids.glob("sub-*"))
    push(bids, target, root)
    make(bids, ["N1"], study=2)
    back = [file.relative_to(bids).as_posix() for file in (bids / "sub-N1").rglob("*.*")]
    write_removed(Staging.of(root, target.target), RemovedBefore(images=dict.fromkeys(back, "2026-11-20")))
    shutil.rmtree(one)
    stopped = push(bids, target, root)
    count = len(EACH) + len(back)
    assert stopped.name == "RemovedCameBack" and f"accept_changes={count}." in (stopped.message or "")
    assert push(bids, target, root, accept_changes=count).type.value == "COMPLETED"
    shutil.rmtree(other)
    state = push(bids, target, root)
    assert state.type.value == "COMPLETED", state.message


def test_a_memory_of_what_was_accepted_that_is_damaged_or_of_other_bytes_counts_for_nothing(
    bids: Path, target: Hub, tmp_path: Path
) -> None:
    root = tmp_path / "staging-root"
    push(bids, target, root)
    count = subjects_that_are_not_there(bids)
    assert push(bids, target, root, accept_changes=count).type.value == "COMPLETED"
    (memory,) = root.rglob(ACCEPTED)
    kept = memory.read_bytes()
    for damaged in (kept[: len(kept) // 2], re.sub(rb'"[0-9a-f]{64}"', b'"' + b"0" * 64 + b'"', kept), b"[]"):
        memory.write_bytes(damaged)
        assert push(bids, target, root).name == "TooMuchChanged", damaged


@pytest.mark.usefixtures("prefect_server")
def test_what_was_accepted_stays_so_when_the_answer_of_a_commit_that_brought_a_part_of_it_is_lost(
    bids: Path, server: CountedHub, counted_by_flows: Hub, tmp_path: Path
) -> None:
    hub, root = counted_by_flows, tmp_path / "staging-root"
    push(bids, hub, root)
    count = subjects_that_are_not_mounted(bids)
    image = sorted(bids.rglob("*_T1w.nii.gz"))[0]
    image.write_bytes(bytes_of_another(image))
    server.break_on({"fault": "lose_response", "method": "POST", "path": "/commit/"})
    state = push(bids, hub, root, accept_changes=count + 1)
    assert server.broken == 1
    assert (state.type.value, state.name) == ("COMPLETED", "Staged"), state.message


def bytes_of_another(image: Path) -> bytes:
    """The bytes of an image, and as good a gzip, in another file."""
    data = bytearray(image.read_bytes())
    data[9] ^= 1  # the header's "operating system" byte
    return bytes(data)
