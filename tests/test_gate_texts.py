"""What people read at a gate and after their answer, question by question: form, evidence, states, commit, terminal."""

import io
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from PIL import Image as Picture
from prefect.client.schemas.objects import State
from prefect.states import Completed

from deployments.gate import readable
from flows.open_gate import question_of
from tasks.commit import subject_line
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.record.kept_removals import Keeping
from tasks.record.published import Drift
from tasks.record.removals import PublishedFile, Removals
from tasks.report.artifacts import evidence
from tasks.report.evidence import (
    Evidence,
    Gate,
    Leftovers,
    RemovalPlan,
    ShardCheck,
    StagedFile,
    VerificationReport,
    shown_as,
)
from tasks.report.gate_text import GateText, gate_text
from tasks.report.sentences import (
    Where,
    after_a_removal,
    gone_from_the_hub,
    kept_by,
    moment,
    still_named_in,
    waiting,
    whose,
)
from tasks.values.models import PublishedShard, Receipt, Slice

HUB = Hub(Target("http://127.0.0.1:1", "lab/some"), "no token")
WHERE = Where(Path("/staging/lab--some"), "scanner-7", datetime(2026, 12, 24, 18, 5, tzinfo=UTC))
SHA, COMMIT = "0" * 64, "c" * 40
STAYS, GOES = "data/sub-1/sub-1.parquet", "data/sub-2/sub-2.parquet"
IMAGE, GONE = "sub-1/anat/sub-1_T1w.nii.gz", "sub-2/anat/sub-2_T1w.nii.gz"
FILE = PublishedFile(size=1_000_000, sha256=SHA)
GOING = Removals(shards={GOES: (GONE,)}, published={GOES: FILE})
STALE = StagedFile(file="old.parquet", size=3_000, kind="stale")
NAMED = {"bids/participants.tsv": ("sub-2",)}


def receipt(path: str = STAYS) -> Receipt:
    name = Path(path).stem
    of = {"path": path, "name": name, "digest": SHA, "file": f"{name}.parquet", "size": 2_000_000, "sha256": SHA}
    images = [
        {"path": f"sub-1/anat/sub-1_{suffix}.nii.gz", "size": 1, "sha256": SHA} for suffix in ("T1w", "T2w", "PDw")
    ]
    return Receipt.model_validate({**of, "rows": 3, "images": images})


def png() -> bytes:
    """A small picture."""
    buffer = io.BytesIO()
    Picture.new("L", (4, 4)).save(buffer, "PNG")
    return buffer.getvalue()


def checks(*paths: str, how: Literal["listing", "read back"] = "read back") -> tuple[ShardCheck, ...]:
    return tuple(ShardCheck(path, 2_000_000, SHA, rows=3, how=how) for path in paths)


def report(*paths: str) -> VerificationReport:
    slices = tuple(Slice(path=path, suffix="T1w", png=png()) for path in (IMAGE, GONE))
    of = {"repo_id": "lab/some", "revision": "main", "commit": COMMIT, "level": "sample"}
    return VerificationReport.model_validate({**of, "checks": checks(*paths), "slices": slices})


def gate(**fields: object) -> Gate:
    return Gate.model_validate({"flow_run_id": "1", "flow_run_name": "push", "opened_at_commit": COMMIT, **fields})


def text_of(open_gate: Gate, *receipts: Receipt, checked: VerificationReport | None = None) -> GateText:
    return gate_text(HUB, checked or report(STAYS, GOES), receipts, open_gate, WHERE, (), "All of the evidence")


def form(open_gate: Gate, *receipts: Receipt, checked: VerificationReport | None = None) -> tuple[str, str]:
    said = text_of(open_gate, *receipts, checked=checked)
    return said.above, said.picture


def decision_at(open_gate: Gate) -> str:
    """What stands beside the form's field about staged files."""
    form = question_of(open_gate, text_of(open_gate), "It waits.", WHERE).form("")
    return str(form.model_fields["decision"].description)


# The form.


def test_the_question_about_staged_files_says_that_they_are_copies_on_which_machine_and_that_the_hub_keeps_them() -> (
    None
):
    text, picture = form(gate(), receipt())
    assert text == (
        f"Delete the copies on scanner-7, **2.0 MB** (1 shard, 3 images), of **[lab/some]({HUB.url()})**? The Hub "
        f"keeps them: at [{COMMIT[:12]}]({HUB.commit_url(COMMIT)}), 1 of 1 match the listing, 1 read back. All of the "
        f"evidence. Closes {moment(WHERE.expires)}.\n"
    )
    assert picture.startswith("\n![slices")
    assert " Beside them: 1 stale file, 3 kB. All of" in form(gate(stale=(STALE,)), receipt())[0]


@pytest.mark.parametrize("stale", [(), (STALE,)], ids=["no stale file", "a stale file"])
def test_the_form_of_a_gate_that_shows_copies_says_that_delete_removes_them(stale: tuple[StagedFile, ...]) -> None:
    of = gate(shown=(shown_as(receipt()),), stale=stale)
    assert decision_at(of).startswith("delete: remove the staged copies of what the Hub holds (")


def test_the_form_of_a_gate_that_shows_stale_files_alone_speaks_of_no_copies_that_would_be_removed() -> None:
    said = decision_at(gate(stale=(STALE,)))
    assert said.startswith("delete: remove the stale files, if you say so below; no staged copy is to be decided about")


def test_both_questions_have_a_head_each_with_what_was_verified_for_it_and_no_picture_stands_above_them() -> None:
    only_listed = report().model_copy(update={"checks": (*checks(STAYS), *checks(GOES, how="listing"))})
    text, picture = form(gate(removals=GOING, drift=2), receipt(), checked=only_listed)
    commit = f"[{COMMIT[:12]}]({HUB.commit_url(COMMIT)})"
    assert text == (
        "**Staged copies** on scanner-7: 2.0 MB, 1 shard, 1 read back. **On the Hub**, no longer in the dataset: 1 "
        f"shard, 0 read back, of **[lab/some]({HUB.url()})** at {commit}. Changed on the Hub by somebody else: 2 "
        "files. All of the evidence.\n"
    )
    assert not picture
    read = form(gate(removals=GOING), receipt(), checked=report(GOES))[0]
    assert "2.0 MB, 1 shard, 0 read back" in read and "1 shard, 1 read back, of" in read


def test_a_gate_about_leftovers_or_about_texts_asks_both_with_no_verification_that_was_none() -> None:
    text, picture = form(gate(removals=GOING, stale=(STALE,)))
    assert text.startswith("**Staged copies** on scanner-7: 1 stale file, 3 kB. **On the Hub**") and not picture
    texts = Removals(texts=("bids/x.tsv",), published={"bids/x.tsv": FILE})
    assert "no longer in the dataset: 1 text, of **[lab/some]" in form(gate(removals=texts), receipt())[0]


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({}, "1 shard with 1 image (sub-2)"),
        (NAMED, "1 shard with 1 image (sub-2), still named in participants.tsv"),
        ({f"bids/{n}.tsv": ("sub-2",) for n in "abcd"},
         "1 shard with 1 image (sub-2), still named in a.tsv, b.tsv, c.tsv and 1 more"),
    ],
)  # fmt: skip
def test_what_is_to_be_removed_is_told_beside_its_field_with_the_texts_that_still_name_it(
    named: dict[str, tuple[str, ...]], said: str
) -> None:
    assert text_of(gate(removals=GOING, named=named)).removals == said


def test_the_question_about_removals_tells_how_they_were_verified_and_not_how_others_were() -> None:
    only_listed = report().model_copy(update={"checks": (*checks(STAYS), *checks(GOES, how="listing"))})
    text, _ = form(gate(removals=GOING), checked=only_listed)
    assert "Verified at [" in text and "1 of 1 match the listing, 0 read back" in text
    assert "erified" not in form(gate(removals=GOING), checked=report(STAYS))[0]
    rows = Removals(rows={GOES: (GONE,)}, published={GOES: FILE})  # of a shard that stays
    assert "1 of 1 match the listing, 1 read back" in form(gate(removals=rows), checked=report(GOES))[0]
    assert "1 image, 1 read back, of" in form(gate(removals=rows), receipt(), checked=report(GOES))[0]


def test_a_question_about_removals_alone_has_no_head_and_tells_of_no_verification_that_was_none() -> None:
    text, picture = form(gate(removals=GOING), checked=report())
    assert text.startswith("Remove **1 shard**") and "erified" not in text and not picture
    assert "Changed on the Hub" not in text


def test_a_run_that_waits_says_that_copies_are_staged() -> None:
    said = waiting("lab/some", [receipt()], WHERE).splitlines()[1]
    assert said == (
        "lab/some: copies of 1 shard, 2.0 MB, staged in /staging/lab--some on scanner-7. The Hub lists all of it as it "
        "was sent; nothing is deleted unless somebody decides so."
    )


# The evidence.


def parts(text: str) -> dict[str, str]:
    """The parts of the evidence, by their heads."""
    first, *others = text.split("\n## ")
    return {"": first} | {part.partition("\n")[0]: part.partition("\n")[2] for part in others}


def found(**fields: object) -> Evidence:
    given: dict[str, object] = {"expected": [], "receipts": [receipt()], "removals": GOING, "asked": GOING, **fields}
    return Evidence(**given)  # type: ignore[arg-type]


def test_the_evidence_for_each_question_stands_under_its_own_head() -> None:
    only = Leftovers(stale=(STALE,))
    text = parts(evidence(HUB, report(STAYS, GOES), found(named=NAMED, drift=[Drift("x", "gone")]), only, WHERE))
    assert list(text) == [
        "", "Staged copies", "As the Hub sends it back", "Read back, byte for byte",
        "On the Hub, no longer in the dataset", "Changed on the Hub by somebody else",
    ]  # fmt: skip
    staged, seen, read = text["Staged copies"], text["As the Hub sends it back"], text["Read back, byte for byte"]
    removals = text["On the Hub, no longer in the dataset"]
    assert "`/staging/lab--some` on the machine scanner-7" in staged and "### Stale files" in staged
    assert "removed from this machine if you decide `delete`: 1 shard, 2.0 MB, with 3 images" in staged
    # what stays, and what goes, are shown apart
    assert IMAGE in seen and GONE not in seen and STAYS in read and GOES not in read
    assert GONE in removals and IMAGE not in removals and "![mid-slices]" in removals
    assert f"| {GOES} | 1.0 MB | 1 | read back |" in removals and "participants.tsv (sub-2)" in removals
    assert 'removed="ask again"' in removals


def test_what_somebody_decided_to_keep_stands_apart_from_what_is_asked() -> None:
    kept = {STAYS: (IMAGE,)}
    every = Removals(shards={**kept, **GOING.shards}, published={STAYS: FILE, GOES: FILE})
    removals = parts(evidence(HUB, report(STAYS), found(removals=every), Leftovers()))[
        "On the Hub, no longer in the dataset"
    ]
    asked, rest = removals.split("### Not asked about, since somebody decided to keep it")
    assert GOES in asked and STAYS not in asked and STAYS in rest and GOES not in rest
    assert f"| {GOES} | 1.0 MB | 1 | not in this run |" in asked and f"| {STAYS} | 1.0 MB | 1 | read back |" in rest


def test_what_no_gate_asks_about_is_named_with_the_way_to_be_asked() -> None:
    text = evidence(HUB, report(STAYS), found(asked=Removals()), Leftovers())
    assert "`removed=ask` asks a person about them" in text and "Not asked about" not in text and GOES in text


@pytest.mark.parametrize("asked", [GOING, Removals()])
def test_evidence_without_removals_says_nothing_of_them(asked: Removals) -> None:
    text = evidence(HUB, report(STAYS), found(removals=Removals(), asked=asked), Leftovers())
    assert "no longer in the dataset" not in text


def test_evidence_without_staged_files_says_that_there_are_none() -> None:
    text = parts(evidence(HUB, report(), found(receipts=[]), Leftovers(), WHERE))
    assert "Nothing is staged there." in text["Staged copies"]
    assert "Nothing was verified at commit" in text[""] and "no answer deletes one as a copy" in text[""]
    assert "Staged copies" not in parts(evidence(HUB, report(), found(receipts=[]), Leftovers()))


# What was kept.


AT = datetime(2026, 11, 25, 9, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("note", "who"),
    [
        pytest.param("me, until the board says so", 'with the note "me, until the board says so"', id="a note"),
        pytest.param("two\n  lines", 'with the note "two lines"', id="lines"),
        pytest.param("x" * 120, f'with the note "{"x" * 120}"', id="the longest"),
        pytest.param("x" * 121, f'with the note "{"x" * 120}..."', id="a longer one"),
        pytest.param(" ", "with no note of who decided", id="none"),
    ],
)
def test_a_decision_to_keep_is_told_with_its_time_its_run_and_its_note(note: str, who: str) -> None:
    keeping = Keeping(
        removals=GOING, at=AT, flow_run_id="1", flow_run_name="push lab/some, 2026-11-24 02:00", note=note
    )
    assert kept_by(keeping, GOING) == (
        f"Kept there, as decided on {moment(AT)} at the gate of push lab/some, 2026-11-24 02:00, {who}: 1 shard with 1 "
        "image (sub-2)."
    )


def test_a_decision_about_what_was_just_named_does_not_name_it_again() -> None:
    keeping = Keeping(removals=GOING, at=AT, flow_run_name="push", note="me")
    assert kept_by(keeping, None) == (
        f'Kept there, as decided on {moment(AT)} at the gate of push, with the note "me".'
    )


def test_a_decision_of_which_nothing_was_noted_is_told_so() -> None:
    said = kept_by(Keeping(removals=GOING), GOING)
    assert said == (
        "Kept there, as somebody decided at a gate (when and at which was not noted then): 1 shard with 1 image "
        "(sub-2)."
    )


# Texts that still name a subject.


@pytest.mark.parametrize(
    ("named", "said"),
    [
        ({}, ""),
        (NAMED, "Still named in 1 text that stays published: participants.tsv (sub-2). Take that out of the dataset "
                "too; the next run publishes it so."),
        ({f"bids/phenotype/{n}.tsv": [f"sub-{one}" for one in range(5)] for n in "abcd"},
         "Still named in 4 texts that stay published: "
         + ", ".join(f"phenotype/{n}.tsv (sub-0, sub-1, sub-2 and 2 more)" for n in "abc")
         + " and 1 more. Take that out of the dataset too; the next run publishes it so."),
    ],
)  # fmt: skip
def test_texts_that_still_name_who_is_withdrawn_are_told(named: dict[str, list[str]], said: str) -> None:
    assert still_named_in(named) == said


# After a removal.


PLAN = RemovalPlan(commit=COMMIT, shards={GOES: FILE}, pictures=("pictures/x.png",))


@pytest.mark.parametrize(
    ("shards", "said"),
    [
        ([], ""),
        ([GOES], "of 1 subject (sub-2)"),
        ([STAYS, GOES, GOES.replace("sub-2.p", "sub-2_ses-1.p")], "of 2 subjects (sub-1, sub-2)"),
        ([f"data/sub-{n}/sub-{n}.parquet" for n in (5, 4, 3, 2, 1)], "of 5 subjects (sub-1, sub-2, sub-3 and 2 more)"),
        (["data/group-raw/group-raw.parquet"], "of 1 folder (group-raw)"),
    ],
)
def test_shards_are_told_by_whose_they_are(shards: list[str], said: str) -> None:
    assert whose(shards) == said


def test_a_removal_names_the_subjects_also_of_images_and_none_where_only_texts_go() -> None:
    assert gone_from_the_hub(PLAN) == "Removed from the Hub, as approved: 1 shard, 1 picture, of 1 subject (sub-2)."
    rows = RemovalPlan(commit=COMMIT, rows={STAYS: (IMAGE,)})
    assert gone_from_the_hub(rows) == "Removed from the Hub, as approved: 1 image of 1 shard, of 1 subject (sub-1)."
    texts = RemovalPlan(commit=COMMIT, texts={"bids/x.tsv": FILE})
    assert gone_from_the_hub(texts) == "Removed from the Hub, as approved: 1 text."


def test_after_a_removal_what_is_staged_named_and_in_the_history_still_is_told_with_the_way_out() -> None:
    named = {"bids/participants.tsv": ("sub-2", "sub-3"), "bids/phenotype/x.tsv": ("sub-3",)}
    staged, texts, history = after_a_removal(PLAN, named, [receipt(), receipt(GOES)], WHERE.files)
    assert staged.startswith("Still staged in /staging/lab--some on scanner-7: copies of 1 shard that held")
    assert "cleanup-staging/cleanup" in staged
    assert "1 text that stays published: participants.tsv (sub-2)." in texts  # sub-3 was not removed
    for words in ("history still has it", "everybody who may read", "LFS files", "by hand", "a local Hub cannot"):
        assert words in history


def test_after_a_removal_nothing_is_told_of_copies_and_texts_where_there_are_none() -> None:
    staged, texts, history = after_a_removal(PLAN, {}, [receipt()], WHERE.files)
    assert not staged and not texts and history
    rows = RemovalPlan(commit=COMMIT, rows={STAYS: (IMAGE,)})
    staged, texts, _ = after_a_removal(rows, {"bids/participants.tsv": ("sub-1",)}, [receipt()], WHERE.files)
    assert "copies of 1 shard" in staged and not texts  # the subject is in the dataset


# The commit.


def line(path: str) -> PublishedShard:
    return PublishedShard(path=path, digest=SHA, sha256=SHA, size=1, rows=0, images=())


ROWS = RemovalPlan(commit=COMMIT, rows={STAYS: (IMAGE,), GOES: (GONE,)})
TEXT = RemovalPlan(commit=COMMIT, texts={"bids/x.tsv": FILE})


@pytest.mark.parametrize(
    ("shards", "plan", "subject"),
    [
        ([], None, "Update the card and the dataset's own texts"),
        ([STAYS], None, "Publish 1 shard of 1 subject"),
        ([GOES, STAYS], None, "Publish 2 shards of 2 subjects"),
        ([], PLAN, "Remove 1 shard, 1 picture of 1 subject, as approved"),
        ([STAYS, GOES], ROWS,
         "Publish 2 shards of 2 subjects; Remove 2 images of 2 shards of 2 subjects, as approved"),
        ([STAYS], ROWS, "Publish 1 shard of 1 subject; Remove 1 image of 1 shard of 1 subject, as approved"),
        ([STAYS], RemovalPlan(commit=COMMIT, rows={GOES: (GONE,)}), "Publish 1 shard of 1 subject"),
        ([], TEXT, "Remove 1 text, as approved"),
        ([], PLAN.model_copy(update={"rows": ROWS.rows}), "Remove 1 shard, 1 picture of 1 subject, as approved"),
    ],
)  # fmt: skip
def test_a_commit_says_how_much_it_publishes_and_removes_and_names_nobody(
    shards: list[str], plan: RemovalPlan | None, subject: str
) -> None:
    assert subject_line([line(path) for path in shards], plan, plan.rows if plan else {}) == subject


def test_a_later_commit_of_a_removal_says_which_part_of_it_leaves_with_it() -> None:
    removal = "Publish 1 shard of 1 subject; Remove 1 image of 1 shard of 1 subject, as approved"
    assert subject_line([line(GOES)], None, ROWS.rows) == removal
    assert subject_line([], None, ROWS.rows) == "Update the card and the dataset's own texts"


# On a terminal.


def test_an_end_is_printed_as_its_name_and_a_paragraph_a_line_no_wider_than_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    link = f"http://prefect.lab/artifacts/artifact/{'0' * 60}"
    state: State[Any] = Completed(
        name="Removed", message=f"{'some words ' * 30}\nVerified.\n\nStatus of the target: {link}"
    )
    for columns, widest in (("60", 60), ("300", 100), ("1", 40)):
        monkeypatch.setenv("COLUMNS", columns)
        name, *lines = readable(state).splitlines()
        assert name == "Removed" and "  Verified." in lines and lines[0].startswith("  some words")
        assert max(len(text) for text in lines if link not in text) in range(widest - 12, widest + 1)
        assert any(link in text for text in lines)  # a link is never broken
        assert all(text.startswith("  ") for text in lines)
    monkeypatch.delenv("COLUMNS")
    assert readable(None) == "" and readable(Completed(name="Kept")) == "Kept"


def test_a_gate_that_asks_about_files_of_the_dataset_says_so_where_it_asks_and_in_the_evidence() -> None:
    here = dict.fromkeys(GOING.files, "include")
    asks = gate(removals=GOING, here=here)
    assert "left out of the push, from **[lab/some]" in form(asks)[0]
    assert "no pattern of include names" in text_of(asks).removals and "in every run" in text_of(asks).removals
    text = evidence(HUB, report(STAYS, GOES), found(here=here), Leftovers(), WHERE)
    assert "## On the Hub, left out of the push" in text and "no pattern of include names" in text
