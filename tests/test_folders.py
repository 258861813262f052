"""Folders that hold at 100,000 subjects: none of the repo has over 5,000 entries, and no shard's path ever changes."""

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from hypothesis import given
from hypothesis import strategies as st
from prefect.client.schemas.objects import State

from deployments.local_hub.app import Application
from deployments.local_hub.hub import Hub as Server
from deployments.local_hub.limits import Limited, Limits
from deployments.local_hub.serve import served
from flows.push_bids import push_bids
from flows.restore_bids import restore_bids
from tasks import plan as plan_module
from tasks.commit import ContestedTarget, overtaken
from tasks.commit.other_files import Besides
from tasks.hub.client import Hub
from tasks.hub.errors import Refused
from tasks.plan import MOST_FOLDERS, Places, plan
from tasks.record.record_files import FAN, TOP, files_to_write
from tasks.record.remote import Remote, read_remote
from tasks.record.removals import is_our_shard
from tasks.values.models import (
    HASHED_FOLDERS,
    LAYOUT_VERSION,
    Dataset,
    Image,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
)
from tasks.values.our_paths import is_hashed, is_shard, other_path, shard_path
from tests import bids_examples
from tests.hub_within import HubWithin
from tests.images import nifti1

MOST = 5000  # entries of a folder, by the design; huggingface.co refuses a commit that leaves more than 10,000


def dataset(subjects: Iterable[str], ses: str | None = None) -> Dataset:
    images = (
        Image(path=f"sub-{one}/anat/sub-{one}_T1w.nii", size=10, mtime_ns=1, dataset="raw", sub=one, ses=ses,
              datatype="anat", suffix="T1w")
        for one in subjects
    )  # fmt: skip
    return Dataset("/somewhere", "name", {}, tuple(images))


def paths(subjects: Iterable[str], there: Iterable[str] = (), ses: str | None = None) -> dict[str, str]:
    """The path of each subject's shard."""
    return {shard.rows[0].sub or "": shard.path for shard in plan(dataset(subjects, ses), {}, there)}


def entries(files: Iterable[str]) -> Counter[str]:
    """How many entries each folder of a repo has; its root is the empty path."""
    every = set()
    for file in files:
        while file and file not in every:
            every.add(file)
            file = file.rpartition("/")[0]
    return Counter(one.rpartition("/")[0] for one in every)


# --- one hundred thousand ---


def many(number: int, there: Iterable[str] = ()) -> dict[str, str]:
    """The paths alone, which is what `paths` has, without the shards: those of 100,000 take half a minute."""
    found = Places(there).paths((("sub", str(one)),) for one in range(number))
    return {key[0][1]: path for key, path in found.items()}


def test_of_100_000_subjects_no_folder_has_over_5_000_entries() -> None:
    planned = many(100_000)
    assert len(set(planned.values())) == 100_000 and all(map(is_our_shard, planned.values()))
    assert max(entries(planned.values()).values()) < MOST / 5
    assert {sub: planned[sub] for sub in ("7", "99999")} == {
        "7": "data/82/sub-7/sub-7.parquet",  # by the first digits of `printf sub-7 | sha256sum`
        "99999": shard_path("sub-99999", "sub-99999", hashed=True),
    }


def test_a_repo_that_grew_to_100_000_subjects_keeps_its_first_ones_where_they_were() -> None:
    first = many(MOST_FOLDERS)
    assert not any(map(is_hashed, first.values()))
    then = many(100_000, first.values())
    assert then.items() >= first.items() and sum(map(is_hashed, then.values())) == 100_000 - MOST_FOLDERS
    assert max(entries(then.values()).values()) <= MOST_FOLDERS + 256 < MOST


def test_a_dataset_of_a_few_thousand_subjects_has_their_folders_side_by_side() -> None:
    assert paths(["01"]) == {"01": "data/sub-01/sub-01.parquet"}
    assert paths(["01"], ses="a") == {"01": "data/sub-01/sub-01_ses-a.parquet"}
    few, one_more = (paths(map(str, range(number))) for number in (MOST_FOLDERS, MOST_FOLDERS + 1))
    assert not any(map(is_hashed, few.values())) and all(map(is_hashed, one_more.values()))


def test_the_records_segments_stay_few_however_many_commits_there_are() -> None:
    lines = [line(f"data/sub-{number}/sub-{number}.parquet") for number in range(40)]
    record, most = PublicationRecord(), 0
    for number in range(3000):
        after = record.updated([replaced(lines[number % len(lines)], number)])
        record = files_to_write(record, after, [lines[number % len(lines)].path], whole=0).record
        most = max(most, len(record.files))
    assert most <= (FAN - 1) * (TOP + 1) + 2 < MOST


# --- the same path for ever ---


@st.composite
def nights(draw: st.DrawFn) -> list[tuple[frozenset[str], frozenset[str]]]:
    """Nights, each with the subjects of the dataset, and those whose shards the night comes to publish."""
    labels = [f"{number}" for number in range(9)] + ["a1", "A1", "ä", "b-1"]
    subjects = st.frozensets(st.sampled_from(labels))
    return draw(st.lists(st.tuples(subjects, subjects), max_size=8))


@given(nights(), st.randoms(use_true_random=False))
def test_whatever_comes_and_goes_and_wherever_runs_die_a_path_never_changes(
    lived: list[tuple[frozenset[str], frozenset[str]]], chance: random.Random
) -> None:
    there: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan_module, "MOST_FOLDERS", 4)
        for subjects, reached in lived:
            planned = paths(sorted(subjects), sorted(there.values()))
            shuffled = list(there.values())
            chance.shuffle(shuffled)
            assert paths(sorted(subjects, reverse=True), shuffled) == planned  # on any machine, in any order
            assert all(planned[sub] == path for sub, path in there.items() if sub in planned)
            there |= {sub: path for sub, path in planned.items() if sub in reached}
            assert paths(sorted(subjects), sorted(there.values())) == planned  # the run that goes on after a death
            assert len({path.casefold() for path in there.values()}) == len(there)
            assert sum(one.startswith("sub-") for one in top(there.values())) <= 4


def top(files: Iterable[str]) -> set[str]:
    return {file.split("/")[1] for file in files}


def test_where_the_record_and_the_listing_name_two_paths_the_records_counts() -> None:
    plain, hashed = "data/sub-1/sub-1.parquet", shard_path("sub-1", "sub-1", hashed=True)
    for own, other in ((plain, hashed), (hashed, plain)):
        listing = Listing("c", {path: ListedFile(path, 1, "0" * 64) for path in (own, other, "data/x/y/z.parquet")})
        remote = Remote("c", PublicationRecord().updated([line(own)]))
        assert remote.shards_in(listing) == (own, other)
        assert paths(["1"], remote.shards_in(listing)) == {"1": own}
        assert paths(
            ["1"], Remote("c", PublicationRecord()).shards_in(Listing("c", {other: listing.files[other]}))
        ) == {"1": other}


def test_shards_of_one_subject_that_the_repo_has_in_two_folders_stay_each_in_its_own() -> None:
    plain, hashed = "data/sub-1/sub-1_ses-a.parquet", shard_path("sub-1", "sub-1_ses-b", hashed=True)
    for there in ([plain, hashed], [hashed, plain]):
        assert paths(["1"], there, ses="a") == {"1": plain} and paths(["1"], there, ses="b") == {"1": hashed}


def test_a_repo_that_has_a_hashed_folder_has_its_new_subjects_in_such_ones_however_few_there_are_left() -> None:
    hashed = shard_path("sub-1", "sub-1", hashed=True)
    assert paths(["1", "2"], [hashed]) == {"1": hashed, "2": shard_path("sub-2", "sub-2", hashed=True)}
    assert paths(["1", "2"]) == {"1": "data/sub-1/sub-1.parquet", "2": "data/sub-2/sub-2.parquet"}  # one that is empty


def test_a_new_session_is_beside_those_of_its_subject() -> None:
    hashed = shard_path("sub-1", "sub-1_ses-a", hashed=True)
    assert paths(["1"], [hashed], ses="b") == {"1": hashed.replace("ses-a", "ses-b")}
    plain = [f"data/sub-{number}/sub-{number}.parquet" for number in range(MOST_FOLDERS + 50)]  # of an older version
    assert paths(["1", "x"], plain, ses="b") == {
        "1": "data/sub-1/sub-1_ses-b.parquet",
        "x": shard_path("sub-x", "sub-x_ses-b", hashed=True),
    }


def test_a_label_that_differs_in_case_from_a_published_one_leaves_that_one_where_it_is() -> None:
    first = paths(["a1"])
    both = paths(["a1", "A1"], first.values())
    assert both["a1"] == first["a1"] == "data/sub-a1/sub-a1.parquet" and both["A1"].startswith("data/sub-A1-")
    assert paths(["A1"], first.values()) == {"A1": both["A1"]}  # on a disk they would still be one folder
    together = paths(["a1", "A1"])
    assert "data/sub-a1/sub-a1.parquet" not in together.values()
    assert paths(["a1"], together.values()) == {"a1": together["a1"]}  # also when the other one has gone
    moved = [
        *first.values(),
        *together.values(),
    ]  # by an older version, which leaves the first one for a person to remove
    assert paths(["a1", "A1"], moved) == together


# --- what is ours, and what the record says ---


@pytest.mark.parametrize("ours", [shard_path("sub-1", "sub-1_ses-a", hashed=True), "data/sub-1/sub-1_ses-a.parquet"])
def test_a_shard_is_ours_in_its_own_hashed_folder_alone(ours: str) -> None:
    assert is_shard(ours) and is_our_shard(ours) and other_path(other_path(ours)) == ours != other_path(ours)
    digits = shard_path("sub-1", "sub-1", hashed=True).split("/")[1]
    for other in ("00", digits.upper(), f"{digits}0", f"{digits}/{digits}", "..", ".", ""):
        assert other != digits and not is_our_shard(f"data/{other}/sub-1/sub-1_ses-a.parquet")


def test_the_index_says_layout_3_as_long_as_a_shard_is_in_a_hashed_folder() -> None:
    plain, hashed = line("data/sub-1/sub-1.parquet"), line(shard_path("sub-2", "sub-2", hashed=True))
    record = PublicationRecord().updated([plain])
    assert record.layout == LAYOUT_VERSION == 2 and HASHED_FOLDERS == 3
    record = record.updated([hashed])
    assert record.layout == HASHED_FOLDERS
    assert record.updated([plain]).layout == record.updated(remove=[plain.path]).layout == HASHED_FOLDERS
    assert record.updated([plain], remove=[hashed.path]).layout == LAYOUT_VERSION
    again, damaged = PublicationRecord.read(record.dump(), record.dump_index())
    assert again.shards == record.shards and again.layout == HASHED_FOLDERS and not damaged


def test_a_shard_that_somebody_else_has_published_at_its_other_path_meanwhile_is_not_published_twice() -> None:
    mine = line("data/sub-1/sub-1.parquet")
    theirs = line(other_path(mine.path))
    planned = PublicationRecord().updated([line("data/sub-0/sub-0.parquet")])
    besides = replace(Besides(lambda record, card: "", {}), planned=planned)
    assert overtaken(besides, planned, [mine]) == frozenset()
    other = line("data/sub-2/sub-2.parquet")
    with pytest.raises(ContestedTarget) as contested:
        overtaken(besides, planned.updated([theirs, line(other_path(other.path))]), [other, mine])
    assert str(contested.value) == (
        f"somebody else has published {other_path(other.path)} since this run planned {other.path}, which is the same "
        "shard (2 shards so). Nothing more is committed; the shards are sent and staged. Start again: they then get "
        "the paths that are there."
    )
    with pytest.raises(ContestedTarget, match=r"planned data/sub-1/sub-1.parquet, .* \(1 shard so\)"):
        overtaken(besides, planned.updated([theirs]), [mine])
    known = planned.updated([theirs, mine])  # this run has planned with both in sight
    assert overtaken(replace(besides, planned=known), known, [mine]) == frozenset()


def line(path: str) -> PublishedShard:
    return PublishedShard(path=path, digest="a" * 64, sha256="b" * 64, size=1, rows=0, images=())


def replaced(one: PublishedShard, number: int) -> PublishedShard:
    return one.model_copy(update={"digest": f"{number:064x}"})


# --- a whole push ---


SUBJECTS, LIMIT = 120, 110


@pytest.fixture
def limited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, prefect: None) -> Iterator[Hub]:
    """A target on a Hub on which no folder may have more than `LIMIT` entries, for flows in this process."""
    monkeypatch.setattr(plan_module, "MOST_FOLDERS", 20)
    with HubWithin(tmp_path / "hub") as within:
        within.allow_entries(LIMIT)
        target = within.target("lab/many")
        monkeypatch.setenv("HF_TOKEN", target.token)
        yield target


def push(source: Path, root: Path, **more: Any) -> State[Any]:
    return push_bids(source, "lab/many", defacing="no faces", staging_root=root, return_state=True, **more)


def test_a_hub_refuses_a_commit_that_leaves_too_many_entries_in_a_folder_in_the_words_of_the_real_one(
    limited: Hub,
) -> None:
    limited.prepare(private=True)
    head = limited.head()
    files = [CommitOperationAdd(f"data/{number}.txt", b"x") for number in range(LIMIT + 1)]
    assert limited.commit(files[:LIMIT], "As many as may be", head) == limited.head()
    with pytest.raises(Refused, match=rf"only contain up to {LIMIT} files. Offending .* directories: /data/"):
        limited.commit([files[-1], CommitOperationAdd("a/b.txt", b"x")], "One more", limited.head())
    assert "a/b.txt" not in limited.listing(limited.head()).files
    limited.commit([files[-1], CommitOperationDelete("data/7.txt")], "In place of another one", limited.head())


def test_the_limit_is_one_that_serve_takes_and_needs_no_counting_of_requests(tmp_path: Path) -> None:
    with closing(Server(tmp_path / "hub", serving=True)) as server:
        assert isinstance(served(server, Limits.parse("entries=10000")), Application)
        assert server.commits.most_entries == 10_000
        assert isinstance(served(server, Limits.parse("api=5,entries=7")), Limited) and server.commits.most_entries == 7


def test_a_push_of_more_subjects_than_a_folder_may_hold_is_published_verified_and_comes_back(
    limited: Hub, tmp_path: Path, root: Path
) -> None:
    files: dict[str, bids_examples.Content] = {"dataset_description.json": bids_examples.description()}
    files |= {f"sub-{number}/anat/sub-{number}_T1w.nii": nifti1((2, 2, 1 + number % 3)) for number in range(SUBJECTS)}
    source = bids_examples.write(tmp_path / "source", files)
    state = push(source, root, verification="listing")
    assert state.name == "Staged", state.message
    record, there = read_remote(limited).record, limited.listing(limited.head()).files
    assert len(record.shards) == SUBJECTS and all(map(is_hashed, record.shards)) and record.layout == HASHED_FOLDERS
    assert there.keys() >= record.shards.keys() and max(entries(there).values()) <= LIMIT
    assert push(source, root).name == "NothingToPublish"
    restored = restore_bids("lab/many", str(tmp_path / "back"), return_state=True)
    assert restored.name == "Restored", restored.message
