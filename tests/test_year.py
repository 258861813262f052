"""The year of nights: thirty of them, and an oracle that notices what it is there to notice."""

import io
import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from deployments.local_stack import Stack
from year.calendar import Year
from year.oracle import Asked, Disagreement, Gate, Oracle, Removals, Seen
from year.repo import CARD, INDEX, RECORD, Head
from year.rig import rig
from year.script import EVENTS
from year.world import Dataset, World, is_image, sha256

SEED = 11  # of seven that were tried, the one whose month has all of STATES, and 25 of 41 kinds of events
KINDS = 25  # of events, at least
STATES = {"Suspended", "CleanedUp", "Kept", "Removed", "NothingToPublish", "TooMuchChanged", "ShardsFailed"}


@pytest.mark.timeout(1800)  # a minute or so on a quiet machine
def test_thirty_nights_hold_what_the_rules_say(prefect_server: Stack, tmp_path: Path) -> None:
    with rig(tmp_path / "year", api=f"{prefect_server.ui}/api") as here:
        year = Year(here, SEED, EVENTS, print)
        year.live(30)
    assert len(year.tally.events) >= KINDS
    assert set(year.tally.states) >= STATES


# The oracle: a night that is right, and nights that are not.


def shard(dataset: Dataset, path: str) -> bytes:
    """A shard as a push writes it, as far as the oracle reads it."""
    rows = [
        {
            "path": image,
            "size": len(dataset.files[image]),
            "sha256": row.sha256,
            "kind": "image" if is_image(image) else "sidecar",
            "nifti": {"bytes": dataset.files[image], "path": image} if is_image(image) else None,
            "content": None if is_image(image) else dataset.files[image],
            "metadata": row.metadata,
            "participant": row.participant,
        }
        for image, row in dataset.shards[path].items()
    ]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(rows), sink)
    return sink.getvalue()


def line(dataset: Dataset, path: str, data: bytes) -> dict[str, Any]:
    """The record's line of it."""
    images = [{"path": image, "size": 1, "sha256": row.sha256} for image, row in dataset.shards[path].items()]
    return {
        "path": path,
        "digest": "0" * 64,
        "sha256": sha256(data),
        "size": len(data),
        "rows": len(images),
        "images": images,
    }


def published(dataset: Dataset, commit: str) -> Head:
    """The head that a push of the dataset leaves."""
    shards = {path: shard(dataset, path) for path in dataset.shards}
    return head_of(commit, dataset, shards)


def head_of(commit: str, dataset: Dataset, shards: dict[str, bytes]) -> Head:
    lines = [line(dataset, path, data) for path, data in shards.items() if path in dataset.shards]
    people = [{"participant_id": sub, **row} for sub, row in dataset.people.items()]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(people), sink)
    texts = {**dataset.texts, "tables/participants.parquet": sink.getvalue()}
    index = {"texts": [{"path": path, "size": len(data), "sha256": sha256(data)} for path, data in texts.items()]}
    record = b"".join(json.dumps(one).encode() + b"\n" for one in lines)
    return Head(commit, {**shards, **texts, CARD: b"card", RECORD: record, INDEX: json.dumps(index).encode()})


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = World(tmp_path / "dataset", random.Random(1))
    world.begin(6)
    return world


@pytest.fixture
def oracle(world: World) -> Oracle:
    """One that has seen the dataset published."""
    oracle = Oracle()
    oracle.lines = dict(published(world.dataset, "first").record)
    return oracle


def night(world: World, before: Dataset, **other: Any) -> Seen:
    """A push that did what it should: the dataset was one, and is another now."""
    staged = {f"shards/{p.split('/')[1]}/{Path(p).stem}.0123456789ab.parquet": "staged" for p in todo(world, before)}
    changes = bool(todo(world, before)) or world.dataset.texts != before.texts
    seen = Seen(
        before=published(before, "first"),
        after=published(world.dataset, "second" if changes else "first"),
        staged_before={},
        staged_after=staged,
        state="Suspended" if staged else "NothingToPublish",
        message="",
        commits=int(changes),
        read_back=list(world.dataset.shards),
    )
    return replace(seen, **other)


def todo(world: World, before: Dataset) -> list[str]:
    return [path for path, rows in world.dataset.shards.items() if before.shards.get(path) != rows]


def tampered(head: Head, path: str, data: bytes | None) -> Head:
    files = {name: content for name, content in head.files.items() if name != path}
    return Head(head.commit + "!", files if data is None else {**files, path: data})


def test_a_night_that_is_right_is_agreed_with(world: World, oracle: Oracle) -> None:
    before = world.dataset
    world.replace(world.images[0], world.image())
    oracle.push(night(world, before), Asked(world.dataset))


WRONG: dict[str, tuple[Callable[[Seen, World], Seen], str]] = {
    "a shard removed": (
        lambda seen, world: replace(seen, after=tampered(seen.after, last(world), None)),
        "was removed",
    ),
    "a shard changed that nothing asked for": (
        lambda seen, world: replace(seen, after=tampered(seen.after, last(world), b"x")),
        "was changed",
    ),
    "the new bytes not published": (
        lambda seen, world: replace(seen, after=tampered(seen.after, first(world), seen.before.files[first(world)])),
        "not what the dataset says",
    ),
    "a text removed": (lambda seen, world: replace(seen, after=tampered(seen.after, "bids/CHANGES", None)), "CHANGES"),
    "a stranger's file removed": (
        lambda seen, world: replace(seen, before=tampered(seen.before, "notes.md", b"mine")),
        "not ours",
    ),
    "a line of the record wrong": (
        lambda seen, world: replace(seen, after=tampered(seen.after, RECORD, seen.before.files[RECORD])),
        "the record says",
    ),
    "a line twice": (
        lambda seen, world: replace(seen, after=tampered(seen.after, RECORD, twice(seen.after.files[RECORD]))),
        "twice",
    ),
    "a text missing in the index": (
        lambda seen, world: replace(seen, after=tampered(seen.after, INDEX, b'{"texts": []}')),
        "the index",
    ),
    "a staged file removed": (
        lambda seen, world: replace(seen, staged_before={"shards/sub-1/sub-1.0.parquet": "it"}),
        "without a yes",
    ),
    "a shard staged for nothing": (
        lambda seen, world: replace(seen, staged_after={"shards/sub-006/sub-006.0.parquet": "it"}),
        "staged anew",
    ),
    "bytes sent twice": (lambda seen, world: replace(seen, content=1_000_000), "bytes of content"),
    "a commit a shard": (lambda seen, world: replace(seen, commits=9), "commits"),
    "no gate": (lambda seen, world: replace(seen, state="NothingToPublish"), "ended NothingToPublish"),
    "a stack trace": (lambda seen, world: replace(seen, state="Failed"), "ended Failed"),
    "nothing read back": (lambda seen, world: replace(seen, read_back=()), "read back"),
}


def first(world: World) -> str:
    return next(path for path, rows in world.dataset.shards.items() if world.images[0] in rows)


def last(world: World) -> str:
    return sorted(world.dataset.shards)[-1]


def twice(record: bytes) -> bytes:
    return record + record.splitlines()[0] + b"\n"


@pytest.mark.parametrize("what", WRONG)
def test_a_night_with_something_wrong_is_not(world: World, oracle: Oracle, what: str) -> None:
    wrong, told = WRONG[what]
    before = world.dataset
    world.replace(world.images[0], world.image())
    with pytest.raises(Disagreement, match=told):
        oracle.push(wrong(night(world, before), world), Asked(world.dataset))


def test_a_shard_that_would_lose_a_row_stays_as_it_is_and_is_named(world: World, oracle: Oracle) -> None:
    before = world.dataset
    path = first(world)
    world.take("an image", [world.images[0]])
    held = replace(night(world, before), after=published(before, "first"), staged_after={}, state="NothingToPublish",
                   commits=0, read_back=[*world.dataset.shards])  # fmt: skip
    with pytest.raises(Disagreement, match="does not name"):
        oracle.push(held, Asked(world.dataset, accept_changes=1))
    oracle.push(replace(held, message=f"held back: {path}, {Path(path).stem}"), Asked(world.dataset, accept_changes=1))
    published_all_the_same = replace(held, after=published(world.dataset, "second"), message=Path(path).stem)
    with pytest.raises(Disagreement, match="was changed"):
        oracle.push(published_all_the_same, Asked(world.dataset, accept_changes=1))


def test_a_dataset_that_is_mostly_gone_has_to_stop_and_name_the_number(world: World, oracle: Oracle) -> None:
    before = world.dataset
    for sub in world.subjects[:3]:
        world.take(sub, world.below(sub))
    many = len(before.images) - len(world.images)
    stopped = replace(night(world, before), after=published(before, "first"), staged_after={}, commits=0,
                      state="TooMuchChanged", message=f"accept_changes={many}")  # fmt: skip
    oracle.push(stopped, Asked(world.dataset))
    for wrong in (replace(stopped, state="NothingToPublish"), replace(stopped, message=f"accept_changes={many + 1}")):
        with pytest.raises(Disagreement):
            oracle.push(wrong, Asked(world.dataset))


@pytest.fixture
def at_gate(world: World, oracle: Oracle) -> tuple[Oracle, Seen]:
    """A gate that shows one staged shard and one withdrawn subject, and what is right after `delete` and `remove`."""
    before = published(world.dataset, "first")
    gone = first(world)
    sub = gone.split("/")[1]
    world.withdraw(sub)
    path = last(world)
    staged = {f"shards/{path.split('/')[1]}/{Path(path).stem}.0.parquet": sha256(before.files[path])}
    removals = Removals.of(before, [("shard", one) for one in before.record if f"/{sub}/" in one])
    oracle.gate = Gate(staged, world.dataset.shards.keys(), removals)
    shards = {path: data for path, data in before.files.items() if path in world.dataset.shards}
    return oracle, Seen(before, head_of("second", world.dataset, shards), staged, {}, "Removed", "")


DELETE = {"decision": "delete", "removals": "remove"}


def test_what_was_decided_and_done_is_agreed_with(world: World, at_gate: tuple[Oracle, Seen]) -> None:
    oracle, seen = at_gate
    oracle.decided(seen, DELETE, True, world.dataset)


@pytest.mark.parametrize(
    ("form", "told"),
    [
        ({"decision": "keep", "removals": "remove"}, "nobody had let it go"),
        ({"decision": "delete", "removals": "keep"}, "nobody had approved"),
        ({"decision": "delete"}, "nobody had approved"),
    ],
)
def test_what_nobody_decided_is_not(
    world: World, at_gate: tuple[Oracle, Seen], form: dict[str, str], told: str
) -> None:
    oracle, seen = at_gate
    with pytest.raises(Disagreement, match=told):
        oracle.decided(seen, form, True, world.dataset)


def test_a_wrong_answer_decides_nothing(world: World, at_gate: tuple[Oracle, Seen]) -> None:
    oracle, seen = at_gate
    with pytest.raises(Disagreement, match="a wrong answer"):
        oracle.decided(seen, DELETE, False, world.dataset)


def test_a_staged_file_that_was_swapped_or_is_the_only_copy_may_not_go(
    world: World, at_gate: tuple[Oracle, Seen]
) -> None:
    oracle, seen = at_gate
    swapped = dict.fromkeys(seen.staged_before, "another digest")
    with pytest.raises(Disagreement, match="not what the gate showed"):
        oracle.decided(replace(seen, staged_before=swapped), DELETE, True, world.dataset)
    oracle.gate = replace(oracle.gate, staged=swapped)  # type: ignore[type-var]
    with pytest.raises(Disagreement, match="only copy"):
        oracle.decided(replace(seen, staged_before=swapped), DELETE, True, world.dataset)


def test_a_subject_that_came_back_may_not_go_although_it_was_approved(
    world: World, at_gate: tuple[Oracle, Seen]
) -> None:
    oracle, seen = at_gate
    sub = next(iter(world.rows_away))
    world.give_back(sub)
    gone = next(path for path in seen.before.record if f"/{sub}/" in path)
    removed = replace(seen, after=tampered(published(world.dataset, "second"), gone, None))
    with pytest.raises(Disagreement, match="nobody had approved"):
        oracle.decided(removed, DELETE, True, world.dataset)


def test_what_was_approved_has_to_go(world: World, at_gate: tuple[Oracle, Seen]) -> None:
    oracle, seen = at_gate
    with pytest.raises(Disagreement, match="is still there"):
        oracle.decided(replace(seen, staged_after=seen.staged_before), DELETE, True, world.dataset)
    with pytest.raises(Disagreement, match="is still there"):
        oracle.decided(replace(seen, after=seen.before), DELETE, True, world.dataset)
