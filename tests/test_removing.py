"""A removal between a person's approval and the state in which the run ends, step by step.

The nights and gates in which these steps meet are in test_removal_gate.py and end_to_end/.
"""

import os
import socket
from collections.abc import Callable, Mapping
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter
from prefect.client.schemas.objects import Artifact, State
from prefect.states import Completed, Failed

from flows.removal import nothing_removed, planned_removal, remember_removed, removed_state
from flows.target import HeldTarget
from flows.values import Approved
from flows.wave import to_draw
from tasks.approve import read_gate, write_gate
from tasks.card import Pictures
from tasks.card.pictures import Picture
from tasks.commit import commit
from tasks.commit.other_files import Besides, as_recorded
from tasks.disk.staging import RECEIPT_SUFFIX
from tasks.record.published import Work
from tasks.record.remote import Remote, read_remote
from tasks.record.removals import PublishedFile, Removals, as_file
from tasks.record.removed_before import RemovedBefore, read_removed, write_removed
from tasks.report.artifacts import removed
from tasks.report.evidence import Approval, Evidence, Fate, Gate, Kept, RemovalPlan, VerificationFailed
from tasks.report.lineage import artifact_key
from tasks.report.sentences import after_a_removal
from tasks.values.models import (
    Dataset,
    Image,
    ImageContent,
    PublicationRecord,
    PublishedShard,
    Receipt,
    ShardSpec,
)

Held = Callable[..., None]
ONE, TWO, THREE = (f"data/sub-{name}/sub-{name}.parquet" for name in ("1", "2", "3"))
README, CHANGES, NOWHERE = "bids/README", "bids/CHANGES", "bids/phenotype/nowhere.tsv"
ANAT, FUNC = "pictures/anat_T1w.png", "pictures/func_bold.png"
WHO = "Removed from the Hub, as approved: 1 shard, of 1 subject (sub-1)."


def t1w(subject: str) -> str:
    return f"sub-{subject}/anat/sub-{subject}_T1w.nii.gz"


def bold(subject: str) -> str:
    return f"sub-{subject}/func/sub-{subject}_task-rest_bold.nii.gz"


def line(path: str, data: bytes, *images: str) -> PublishedShard:
    contents = tuple(ImageContent(path=image, size=1, sha256="e" * 64) for image in images)
    return PublishedShard(
        path=path, digest="d" * 64, sha256=sha256(data).hexdigest(), size=len(data), rows=len(images), images=contents
    )


def published(held: HeldTarget) -> Remote:
    """A target that holds three shards of two images each, two texts and two pictures."""
    data = {path: b"PAR1" + os.urandom(20) for path in (ONE, TWO, THREE)}
    lines = [line(path, data[path], t1w(name), bold(name)) for name, path in zip("123", data, strict=True)]
    texts = {README: b"read me", CHANGES: b"1.0"}
    files = [CommitOperationAdd(path, one) for path, one in {**data, ANAT: b"PNG 1", FUNC: b"PNG 2"}.items()]
    held.hub.preupload(files)
    besides = Besides(lambda record, existing: "---\nlicense: cc0-1.0\n---\n", texts, as_recorded(texts))
    return commit(held.hub, read_remote(held.hub), lines, files, besides)


def spec(path: str, *images: str) -> ShardSpec:
    rows = tuple(Image(image, 1, 0, "raw", None, None, "anat", "T1w") for image in images)
    return ShardSpec(Path(path).stem, path, rows, "d" * 64)


def approved_at(held: HeldTarget, removals: Removals, note: str = "", staged: State[Any] | None = None) -> Approved:
    gate = Gate(flow_run_id=held.run.id, flow_run_name=held.run.name, opened_at_commit="c" * 40, removals=removals)
    write_gate(held.staging, gate)
    return Approved(gate, Approval(flow_run_id=held.run.id, removals=Fate.REMOVE, note=note), staged)


def is_closed(held: HeldTarget) -> bool:
    """Whether this run's gate asks nothing any more."""
    gate = read_gate(held.staging)
    assert gate is not None and (gate.flow_run_id, gate.flow_run_name) == (held.run.id, held.run.name)
    return gate.opened_at_commit is None and not gate.removals and gate.target == str(held.hub.target)


# What leaves.


def test_what_was_approved_and_is_still_missing_leaves_with_its_pictures_and_the_log_says_what_stays(
    while_held: Held, caplog: pytest.LogCaptureFixture
) -> None:
    def look(held: HeldTarget) -> None:
        remote = published(held)
        record = remote.record
        listing = held.hub.listing(remote.commit)
        asked = Removals(
            shards={ONE: (t1w("1"), bold("1"))},
            rows={TWO: (bold("2"),), THREE: (bold("3"),)},
            texts=(README, CHANGES, NOWHERE),
            published={
                **{path: as_file(record.shards[path]) for path in (ONE, TWO, THREE)},
                **{path: as_file(record.texts[path]) for path in (README, CHANGES)},
                NOWHERE: PublishedFile(size=1, sha256="0" * 64),
            },
        )
        now = asked.excluding([CHANGES])  # it is in the dataset again
        work = Work((), (), (spec(TWO, t1w("2")),), (), removals=now)  # of the third there was no room
        drawn = Pictures({"func_bold": Picture(FUNC, bold("2"), "e" * 8)})
        held.hub.commit(
            [CommitOperationAdd(README, b"theirs!")], "By hand", remote.commit
        )  # the plan is for its commit
        plan = planned_removal(held, approved_at(held, asked), work, remote, listing, drawn)
        assert plan.commit == remote.commit
        assert plan.shards == {ONE: asked.published[ONE]} and plan.texts == {README: asked.published[README]}
        assert plan.rows == {TWO: (bold("2"),)}
        assert plan.pictures == (ANAT,)  # the other one is drawn anew, of an image that stays
        kept = {
            CHANGES: "it is in the dataset again, or somebody else changed it in the repo",
            NOWHERE: "it is gone from the repo already",
            THREE: "no room in the staging folder: it waits until staged shards are let go",
        }
        assert {one.file: one.why for one in plan.kept} == kept
        told = [one.getMessage() for one in caplog.records if one.levelname == "WARNING"]
        assert [f"Approved, and not removed: {file}: {why}" for file, why in kept.items()] == told

    while_held(look)


def test_a_text_that_the_repo_holds_with_other_bytes_than_its_line_says_stays(while_held: Held) -> None:
    def look(held: HeldTarget) -> None:
        remote = published(held)
        there = remote.record.texts[README]
        held.hub.commit([CommitOperationAdd(README, b"theirs!")], "By hand", remote.commit)
        remote = read_remote(held.hub)
        asked = Removals(texts=(README,), published={README: as_file(there)})
        work = Work((), (), (), (), removals=asked)
        listing = held.hub.listing(remote.commit)
        plan = planned_removal(held, approved_at(held, asked), work, remote, listing, Pictures())
        assert not plan
        assert plan.kept == (Kept(file=README, why="the repo holds other bytes than we published"),)

    while_held(look)


def test_images_that_are_about_to_leave_are_remembered_beside_those_that_have_left(while_held: Held) -> None:
    def look(held: HeldTarget) -> None:
        write_removed(held.staging, RemovedBefore(images={"earlier": "2026-11-20"}))
        record = PublicationRecord().updated([line(ONE, b"1", t1w("1"), bold("1")), line(TWO, b"2", t1w("2"))])
        going = RemovalPlan(commit="c" * 40, shards={ONE: as_file(record.shards[ONE])}, rows={TWO: (t1w("2"),)})
        remember_removed(held, going, record)
        images = read_removed(held.staging).images
        assert images.keys() == {"earlier", t1w("1"), bold("1"), t1w("2")} and images["earlier"] == "2026-11-20"

    while_held(look)


def test_the_card_shows_slices_of_images_alone_that_the_run_leaves_on_the_hub() -> None:
    images = [Image(path, 1, 0, "raw", None, None, "anat", "T1w") for path in "abcdefg"]
    rest = Image("beside.json", 1, 0, "raw", None, None, "anat", "T1w")
    done, sent = ShardSpec("1", ONE, (images[0],), "d", (rest,)), ShardSpec("2", TWO, (images[1],), "d")
    staged, held = ShardSpec("3", THREE, (images[2],), "d"), ShardSpec("4", "4", tuple(images[3:6]), "d")
    record = PublicationRecord().updated([line("4", b"4", "d", "f", "gone")])
    work = Work((done,), (sent,), (staged,), (), held_back=(held,))
    drawn = to_draw(Dataset("/root", "name", {}, (*images,), files=(rest,)), work, record)
    assert [image.path for image in drawn.images] == ["a", "beside.json", "b", "c", "d", "f"]
    assert (drawn.root, drawn.name, drawn.files) == ("/root", "name", (rest,))


# Where nothing is left to remove.


@pytest.mark.parametrize(
    ("kept", "said"),
    [
        ((), ""),
        (("a",), "Nothing was removed from the Hub: a: it is back."),
        (("a", "b"), "Nothing was removed from the Hub: a: it is back. And 1 more that were approved."),
        (
            tuple(f"{number:04}" for number in range(1_301)),
            "Nothing was removed from the Hub: 0000: it is back. And 1,300 more that were approved.",
        ),
    ],
    ids=["nothing kept", "one", "two", "many"],
)
def test_a_run_with_nothing_left_to_remove_ends_with_what_stays_and_why_and_its_gate_is_closed(
    while_held: Held, kept: tuple[str, ...], said: str
) -> None:
    plan = RemovalPlan(commit="c" * 40, kept=tuple(Kept(file=file, why="it is back") for file in kept))

    def look(held: HeldTarget) -> None:
        alone = nothing_removed(held, approved_at(held, Removals(texts=(README,))), plan)
        assert (alone.type.value, alone.name, alone.message) == ("COMPLETED", "Kept", said)
        assert is_closed(held)
        freed: State[Any] = Completed(name="CleanedUp", message="3 MB freed.")
        refused: State[Any] = Failed(name="CleanupRefused", message="1 file not removed.")
        for staged in (freed, refused):
            both = nothing_removed(held, approved_at(held, Removals(texts=(README,)), staged=staged), plan)
            assert (both.type, both.name, both.message) == (staged.type, staged.name, f"{staged.message} {said}")

    while_held(look)


# Once it has left.


def gone(held: HeldTarget, rows: Mapping[str, tuple[str, ...]] | None = None, **of: object) -> tuple[RemovalPlan, str]:
    """The first shard removed; the plan of that, and the head after it."""
    remote = published(held)
    plan = RemovalPlan(
        commit=remote.commit, shards={ONE: as_file(remote.record.shards[ONE])}, rows=rows or {}
    ).model_copy(update=of)
    besides = Besides(lambda record, existing: existing or "", {}, remove=plan.model_copy(update={"rows": {}}))
    return plan, commit(held.hub, remote, [], [], besides).commit


def artifacts(key: str) -> list[Artifact]:
    with get_client(sync_client=True) as client:
        return client.read_artifacts(artifact_filter=ArtifactFilter.model_validate({"key": {"any_": [key]}}))


def test_what_was_removed_is_verified_and_told_with_all_that_is_left_to_do(while_held: Held) -> None:
    def look(held: HeldTarget) -> None:
        named = {"bids/participants.tsv": ("sub-1",)}
        plan, head = gone(held, kept=(Kept(file=TWO, why="it is back"), Kept(file=THREE, why="no room")))
        staged: State[Any] = Completed(name="CleanedUp", message="3 MB freed.")
        approved = approved_at(held, Removals(), note="withdrew on 3 May", staged=staged)
        still = receipt(held, ONE)
        lines = [held_line for path, held_line in read_remote(held.hub).record.shards.items() if path != ONE]
        evidence = Evidence(lines, (), named=named, source=Path("/the/source"))
        state = removed_state(held, approved, plan, evidence, "listing", [])
        where = f"{held.staging.folder} on {socket.gethostname()}"
        assert (state.type.value, state.name) == ("COMPLETED", "Removed")
        assert (state.message or "").splitlines() == [
            f"{WHO} The head is {head[:12]}.",
            f"Not removed: 2 files, the first being {TWO}: it is back.",
            "3 MB freed.",
            *after_a_removal(plan, named, [still], where),
        ]
        assert is_closed(held)
        (artifact,) = artifacts(artifact_key("removed", held.hub.target))
        assert artifact.data == removed(held.hub, plan, "withdrew on 3 May", plan.commit, head)
        assert artifact.description == f"What was removed from {held.hub.target}"
        (link,) = artifacts(artifact_key("commit", held.hub.target))
        assert head in str(link.data)

    while_held(look)


def receipt(held: HeldTarget, path: str) -> Receipt:
    """The receipt of a staged copy of a shard."""
    file = held.staging.shard_file(spec(path, t1w("1")))
    of = line(path, b"PAR1", t1w("1")).model_dump()
    one = Receipt(**of, name=Path(path).stem, file=file.relative_to(held.staging.folder).as_posix())
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(b"PAR1")
    file.with_suffix(RECEIPT_SUFFIX).write_text(one.model_dump_json())
    assert held.staging.receipts() == [one]
    return one


def test_the_publication_is_recorded_as_made_from_the_dataset_after_the_last_step(
    while_held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded: list[tuple[Any, ...]] = []
    monkeypatch.setattr("flows.removal.record_publication", lambda *of: recorded.append(of))

    def look(held: HeldTarget) -> None:
        plan, head = gone(held)
        evidence = Evidence((), (), source=Path("/the/source"))
        removed_state(held, approved_at(held, Removals()), plan, evidence, "listing", [])
        ((hub, report, source, after),) = recorded
        assert (hub, report.commit, source) == (held.hub, head, Path("/the/source"))
        assert after and after == held.steps.last

    while_held(look)


def test_a_removal_with_nothing_beside_it_says_what_was_removed_and_that_the_history_has_it(while_held: Held) -> None:
    def look(held: HeldTarget) -> None:
        plan, head = gone(held)
        state = removed_state(held, approved_at(held, Removals()), plan, Evidence((), ()), "listing", [])
        first, history = (state.message or "").splitlines()
        assert first == f"{WHO} The head is {head[:12]}." and "history still has it" in history

    while_held(look)


def test_a_state_without_a_message_adds_nothing(while_held: Held) -> None:
    def look(held: HeldTarget) -> None:
        plan, _ = gone(held)
        approved = approved_at(held, Removals(), staged=Completed(name="CleanedUp"))
        state = removed_state(held, approved, plan, Evidence((), ()), "listing", [])
        assert len((state.message or "").splitlines()) == 2

    while_held(look)


def test_rows_of_shards_that_could_not_be_staged_have_not_left_and_the_run_fails_with_their_names(
    while_held: Held,
) -> None:
    failed = [f"data/sub-{number}/sub-{number}.parquet" for number in range(100, 121)]

    def look(held: HeldTarget) -> None:
        rows = {TWO: (bold("2"),), failed[0]: ("x",)}
        plan, head = gone(held, rows)
        state = removed_state(held, approved_at(held, Removals()), plan, Evidence((), ()), "listing", failed)
        assert (state.type.value, state.name) == ("FAILED", "ShardsFailed")
        message = state.message or ""
        assert message.startswith(
            "Removed from the Hub, as approved: 1 shard, 1 image of 1 shard, of 2 subjects (sub-1, sub-2). "
            f"The head is {head[:12]}."
        )
        assert message.endswith(
            f" Not staged, so that their published version stays: {', '.join(failed[:20])}. Mend them and start the "
            "run again."
        )
        (artifact,) = artifacts(artifact_key("removed", held.hub.target))
        assert bold("2") in str(artifact.data) and failed[0] not in str(artifact.data)

    while_held(look)


@pytest.mark.parametrize("why", ["somebody puts it back", "another shard is not right"])
def test_a_removal_after_which_the_repo_is_not_right_is_told_with_what_was_removed(while_held: Held, why: str) -> None:
    def look(held: HeldTarget) -> None:
        plan, head = gone(held)
        evidence = Evidence((), ())
        if why == "somebody puts it back":
            back = [CommitOperationAdd(ONE, b"PAR1 again")]
            held.hub.preupload(back)
            held.hub.commit(back, "By hand", head)
        else:
            evidence = replace(evidence, expected=[line(TWO, b"other bytes")])
        with pytest.raises(VerificationFailed) as raised:
            removed_state(held, approved_at(held, Removals()), plan, evidence, "listing", [])
        said = {"somebody puts it back": "1 of 1 files that were removed are in ", "another shard is not right": ""}
        assert str(raised.value).startswith(f"{WHO} After that: {said[why]}")
        assert TWO in str(raised.value) or why == "somebody puts it back"
        assert is_closed(held) and not artifacts(artifact_key("removed", held.hub.target))

    while_held(look)
