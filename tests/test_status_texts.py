"""Where a target stands, in words: the sentences and tables of its status, case by case, from what a run has found."""

from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

import pytest
from prefect.client.schemas.objects import FlowRun
from prefect.states import Completed

from tasks.disk.failed_shards import Cause, FailedShard, write_failed
from tasks.disk.sample_rounds import Round
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.record.kept_removals import Keeping, keep, open_again
from tasks.record.published import Drift, Work
from tasks.record.removals import PublishedFile, Removals
from tasks.report.evidence import Gate, ShardCheck, VerificationReport
from tasks.report.sentences import LISTED
from tasks.report.status import StatusBoard, TargetStatus, first_sentence, markdown
from tasks.runs.this_run import ThisRun

NOW = datetime(2026, 11, 29, 3, 5, tzinfo=UTC)
COMMIT = "c0ffee" * 6 + "c0ff"
A, B = ("data/sub-01/sub-01_ses-1.parquet", "data/sub-02/sub-02_ses-1.parquet")
TEXT = "bids/phenotype/old.tsv"
NOTHING = Work(done=(), send=(), stage=(), drift=())
STAY = "They stay unless a person decides otherwise: run push-bids/manual with removed=ask."


def removals(*paths: str, rows: bool = False) -> Removals:
    """Withdrawn files: shards with an image each, or, with `rows`, the image alone."""
    shards = {path: (f"{Path(path).stem}_T1w.nii.gz",) for path in paths if path != TEXT}
    texts = tuple(path for path in paths if path == TEXT)
    published = {path: PublishedFile(size=2_000_000, sha256="0" * 64) for path in paths}
    return Removals(shards={} if rows else shards, rows=shards if rows else {}, texts=texts, published=published)


@pytest.fixture
def board(tmp_path: Path) -> StatusBoard:
    """The board of a run on a target of which nothing is known yet."""
    target = Target("http://hub", "lab/some")
    return StatusBoard.of(Hub(target, "hf_"), Staging.of(tmp_path, target), ThisRun("now", "push now", 1, True))


def gate(run: str = "now", about: Removals | None = None, open_: bool = True) -> Gate:
    return Gate(
        flow_run_id=run, flow_run_name="push then", target="lab/some", opened_at_commit=COMMIT if open_ else None,
        expires=NOW, removals=about or Removals(),
    )  # fmt: skip


def text_of(board: StatusBoard, now: str = "Completed", at: Gate | None = None) -> str:
    return markdown(board, now, at, [])


def counts(board: StatusBoard) -> list[str]:
    """The second column of the table of shards."""
    table = text_of(board).partition("| shards |")[2].partition("\n\n")[0]
    return [line.split(" | ")[1].removesuffix(" |") for line in table.splitlines()[2:]]


@pytest.mark.parametrize(
    ("known", "sentence"),
    [
        pytest.param({}, "no run has compared it with its dataset yet", id="nothing is known"),
        pytest.param({"planned": 3, "on_hub": 3}, "3 of 3 shards on the Hub, 0 to do", id="all of it"),
        pytest.param(
            {"planned": 1_200, "on_hub": 1_000, "to_send": 50, "to_embed": 150},
            "1,000 of 1,200 shards on the Hub, 200 to do",
            id="some is staged and some is not",
        ),
        pytest.param(
            {"planned": 4, "on_hub": 1, "to_embed": 1, "failed": (A, B), "earlier": (B,), "held_back": 1},
            "1 of 4 shards on the Hub, 2 to do; 2 shards failed; 1 shard held back",
            id="some failed, one of them with an earlier version on the Hub, and one is held back",
        ),
        pytest.param(
            {"planned": 1, "on_hub": 1, "removals": removals(A, B, TEXT)},
            "1 of 1 shard on the Hub, 0 to do; 3 withdrawn",
            id="shards and a text are withdrawn",
        ),
    ],
)
def test_a_line_says_where_the_target_stands(board: StatusBoard, known: dict[str, object], sentence: str) -> None:
    board.learn(**known)
    assert board.sentence() == sentence


def test_a_shard_that_failed_verification_is_in_the_line_the_message_and_a_table_until_it_is_right(
    board: StatusBoard,
) -> None:
    board.learn(planned=2, on_hub=2)
    failed = FailedShard(path=A, size=1, sha256="0" * 64, what="other bytes came", cause=Cause.OTHER_BYTES,
                         since=NOW, commit=COMMIT)  # fmt: skip
    write_failed(board.staging, {A: failed})
    assert board.sentence().endswith("; 1 shard failed verification")
    text = text_of(board)
    assert (
        "## Failed verification" in text
        and "| sub-01_ses-1 | 2026-11-29 03:05 UTC | The Hub sends other bytes than it lists | other bytes came |"
        in text
    )


def test_what_a_run_found_is_what_the_next_one_knows_and_a_damaged_memory_is_none(board: StatusBoard) -> None:
    board.found(NOTHING, {TEXT: ["sub-01"]}, {"README": "exclude"}, there=True)
    after = StatusBoard.of(board.hub, board.staging, board.run).known
    assert after == board.known and after.there and after.looked and after.looked.run == "push now"
    board.staging.status.write_text("{")
    assert StatusBoard.of(board.hub, board.staging, board.run).known == TargetStatus()


def test_what_a_comparison_found_is_in_the_table(board: StatusBoard) -> None:
    assert counts(board) == ["not known yet", "0", "0", "0", "0", "0", "0", "0", "0, 0 bytes"]
    board.learn(
        planned=1_009, on_hub=1_000, to_send=2, to_embed=3, failed=(A, B), earlier=(A,), held_back=4,
        removals=removals(A, TEXT),
    )  # fmt: skip
    assert counts(board) == ["1,009", "1,000", "2", "3", "2", "1", "4", "1", "0, 0 bytes"]


@pytest.mark.parametrize(
    ("planned", "on_hub", "earlier", "held", "missing"),
    [(10, 7, 0, 0, 3), (10, 7, 1, 1, 1), (2, 7, 0, 0, 0), (None, 7, 0, 0, 0)],
)
def test_after_a_run_has_sent_what_it_could_the_rest_is_to_be_embedded(
    board: StatusBoard, planned: int | None, on_hub: int, earlier: int, held: int, missing: int
) -> None:
    board.learn(planned=planned, to_send=5)
    board.published(on_hub, [A] * earlier, [A] * earlier, held, removals(B), {}, {})
    known = board.known
    assert (known.on_hub, known.to_send, known.to_embed, known.held_back) == (on_hub, 0, missing, held)
    assert known.there and known.removals == removals(B) and known.failed == known.earlier == (A,) * earlier


def test_a_state_says_nothing_of_what_is_withdrawn_where_nothing_is(board: StatusBoard) -> None:
    assert board.withdrawn(None) == ""
    assert "## Withdrawn" not in text_of(board)


def test_what_is_withdrawn_is_named_with_the_way_to_decide(board: StatusBoard) -> None:
    board.learn(removals=removals(A, TEXT))
    said = "Withdrawn: no longer in the dataset, and still on the Hub: "
    assert board.withdrawn(None) == f"{said}{removals(A, TEXT).sentence()}. {STAY}"
    text = text_of(board)
    assert "| sub-01_ses-1 | 1 image |" in text and f"| {TEXT} | text or table |" in text and STAY in text


def test_a_row_that_is_withdrawn_is_told_as_held_back(board: StatusBoard) -> None:
    board.learn(removals=removals(A, rows=True))
    assert "| sub-01_ses-1 | held back: sub-01_ses-1_T1w.nii.gz |" in text_of(board)


def test_a_run_at_its_gate_says_that_this_is_where_removals_are_decided(board: StatusBoard) -> None:
    board.learn(removals=removals(A))
    assert board.withdrawn(gate(about=removals(A)), here=True).endswith("They are to be decided at this gate.")
    assert board.withdrawn(gate(), here=True).endswith(STAY)  # this gate asks about staged files alone
    assert board.withdrawn(gate(about=removals(B))).endswith(STAY)  # another gate, about something else
    assert board.withdrawn(gate(about=removals(A), open_=False)).endswith(STAY)


def test_texts_that_stay_and_name_who_is_withdrawn_are_told_last(board: StatusBoard) -> None:
    board.learn(removals=removals(A), named={"bids/participants.tsv": ("sub-01",)})
    assert f"{STAY} Still named in 1 text that stays published: participants.tsv (sub-01)." in board.withdrawn(None)


def test_what_somebody_decided_to_keep_is_told_with_them_and_only_the_others_are_to_be_decided(
    board: StatusBoard,
) -> None:
    board.learn(removals=removals(A, B))
    decided = {"at": NOW, "flow_run_id": "then", "flow_run_name": "push then", "note": "they agreed"}
    keep(board.staging, Keeping(removals=removals(A), **decided))  # type: ignore[arg-type]
    said = board.withdrawn(None)
    assert f'at the gate of push then, with the note "they agreed": {removals(A).sentence()}.' in said
    assert said.endswith("The others stay unless a person decides otherwise: run push-bids/manual with removed=ask.")
    kept = text_of(board).partition("### Kept, as decided")[2]
    assert f"| {removals(A).sentence()} | 2026-11-29 03:05 UTC | " in kept and "| they agreed |" in kept

    keep(board.staging, Keeping(removals=removals(A, B), **decided))  # type: ignore[arg-type]
    said = board.withdrawn(None)
    assert 'with the note "they agreed". To be asked about that again' in said and "unless a person" not in said

    open_again(board.staging, removals(A, B))  # it is no decision any more
    assert board.withdrawn(None).endswith(STAY) and "Kept, as decided" not in text_of(board)


def test_a_decision_of_an_older_version_says_what_of_it_is_not_known(board: StatusBoard) -> None:
    board.learn(removals=removals(A))
    keep(board.staging, Keeping(removals=removals(A)))
    assert "| not known | not known |" in text_of(board).partition("### Kept, as decided")[2]


def test_a_message_has_what_was_committed_verified_failed_and_withdrawn_each_in_a_line_and_only_if_it_is_so(
    board: StatusBoard,
) -> None:
    board.artifact = UUID(int=7)
    (where,) = board.message("", None).splitlines()
    assert where.startswith("Status of the target: ") and where.endswith(f"{UUID(int=7)}")
    board.anew, board.unstripped, board.committed, board.checked = "anew", "unstripped", "committed", "checked"
    board.drift = (Drift("a", "gone"),)
    board.learn(removals=removals(A))
    lines = board.message("Done.", None).splitlines()
    assert lines[:5] == ["Done.", "anew", "unstripped", "committed", "checked"]
    assert lines[5] == "Changed on the Hub by somebody else: a: gone."
    assert lines[6].startswith("Withdrawn: ") and lines[7:] == [where]
    failed = FailedShard(path=A, size=1, sha256="0" * 64, what="other bytes", since=NOW, commit=COMMIT)
    write_failed(board.staging, {A: failed})
    assert len(board.message("Done.", None).splitlines()) == 9
    assert len(board.message("Done.", None, name_failed=False).splitlines()) == 8
    assert "Withdrawn" not in board.message("Done.", None, name_withdrawn=False)


def test_what_somebody_else_changed_is_named_once_and_the_rest_counted(board: StatusBoard) -> None:
    assert "Changed on the Hub" not in text_of(board)
    board.found_changed([Drift("first", "gone")])
    board.found_changed([Drift("first", "gone"), Drift("second", "edited")])
    text = text_of(board)
    assert [one.path for one in board.drift] == ["first", "second"]
    assert "## Changed on the Hub by somebody else" in text and "Found by push now, " in text
    assert "| first | gone |" in text and "| second | edited |" in text and "The first" not in text
    board.found_changed([Drift(f"{n:04}", "gone") for n in range(LISTED)])
    assert f"The first {LISTED:,} of {LISTED + 2:,}:" in text_of(board)


def test_of_a_file_in_which_several_things_were_changed_all_are_kept_and_a_second_look_takes_their_place(
    board: StatusBoard,
) -> None:
    lines = [Drift("record", "line 1: cannot be read"), Drift("record", "line 2: cannot be read")]
    board.found_changed([*lines, Drift("other", "gone"), lines[0]])
    assert board.drift == (*lines, Drift("other", "gone"))
    assert "| record | line 1: cannot be read |\n| record | line 2: cannot be read |" in text_of(board)
    board.found_changed([Drift("record", "its lines were edited")])
    assert board.drift == (Drift("other", "gone"), Drift("record", "its lines were edited"))


def test_shards_that_could_not_be_staged_are_listed_with_what_the_hub_keeps(board: StatusBoard) -> None:
    assert "## Not staged" not in text_of(board)
    board.learn(failed=(A, B), earlier=(B,))
    listed = text_of(board).partition("## Not staged")[2]
    assert "| sub-01_ses-1 | nothing |" in listed and "| sub-02_ses-1 | its earlier version |" in listed


def test_it_says_when_and_how_the_target_was_verified(board: StatusBoard) -> None:
    assert "Never verified from this staging folder." in text_of(board)
    checks = tuple(
        ShardCheck(path=path, size=1, sha256="0" * 64, rows=1, how=how)  # type: ignore[arg-type]
        for path, how in ((A, "read back"), (B, "listing"))
    )
    report = VerificationReport(repo_id="lab/some", revision="main", commit=COMMIT, level="sample", checks=checks)
    board.verified(report, "Two are right.")
    assert board.checked == "Two are right."
    text = text_of(board)
    assert "Last verified (sample): 20" in text and f"[{COMMIT[:12]}](http://hub/datasets/lab/some/commit/" in text
    assert ": 2 shards, 1 of them read back." in text
    board.verified(report.model_copy(update={"checks": checks[1:], "level": "listing"}), "")
    assert ": 1 shard." in text_of(board) and "read back." not in text_of(board)


@pytest.mark.parametrize(
    ("unread", "said"),
    [
        (3, "1 of 4 read back; at this pace it takes 2 more nights."),
        (0, "1 of 1 read back; it is complete, and the next night begins the next."),
    ],
)
def test_it_says_how_far_the_round_is(board: StatusBoard, unread: int, said: str) -> None:
    assert "No run has read published shards back in turn yet." in text_of(board)
    round_ = Round(NOW, nights=14, number=2, night=20, first=15, read={"a": 16},
                   unread={str(n): 14 for n in range(unread)})  # fmt: skip
    board.rotated(round_, places=2)
    text = text_of(board)
    assert "Each published shard is read back once in 14 nights that verify it." in text
    assert f"Round 2, since 2026-11-29: {said}" in text


def test_it_says_of_when_the_counts_are_and_how_the_last_run_ended(board: StatusBoard) -> None:
    assert "The counts are" not in text_of(board) and "The last run that ended" not in text_of(board)
    board.found(NOTHING, {}, {}, there=False)
    assert "The counts are those of this run, which compared dataset and Hub 20" in text_of(board)
    later = StatusBoard.of(board.hub, board.staging, ThisRun("later", "push later", 1, True))
    later.learn(ended={"run": "push now", "state": "PreflightStopped", "at": NOW, "why": "A name is in it."})
    text = text_of(later)
    assert "The counts are those of an earlier run, push now, which" in text
    assert "The last run that ended, push now: **PreflightStopped**, 2026-11-29 03:05 UTC. A name is in it." in text


def test_it_leads_to_a_repo_only_where_one_was_seen(board: StatusBoard) -> None:
    assert "No run has seen the repo lab/some on the Hub yet." in text_of(board)
    board.learn(there=True)
    assert "[The repo](http://hub/datasets/lab/some)." in text_of(board)
    board.learn(there=False, verified={"at": NOW, "commit": COMMIT, "level": "full", "shards": 1, "read_back": 1})
    assert "[The repo]" in text_of(board)


def test_it_says_whether_a_person_has_to_decide_and_where(board: StatusBoard) -> None:
    assert "No gate is open." in text_of(board)
    assert "No gate is open." in text_of(board, "Suspended", gate(open_=False))
    for state in ("Suspended", "Paused"):
        assert "**The gate is open until 2026-11-29 03:05 UTC**: decide at " in text_of(board, state, gate())
    assert "**The gate is open**" in text_of(board, "Paused", gate().model_copy(update={"expires": None}))
    ended = text_of(board, "CleanedUp", gate())
    assert "No gate is open; the last one was that of " in ended and "push then" in ended and ": CleanedUp." in ended


def test_the_runs_are_listed_this_one_as_it_is_now(board: StatusBoard) -> None:
    this = UUID(int=1)
    board.run = ThisRun(str(this), "push now", 1, True)
    runs = [
        FlowRun(id=this, flow_id=this, name="push now"),
        FlowRun(id=UUID(int=2), flow_id=this, name="push then", state=Completed(name="CleanedUp"), start_time=NOW),
        FlowRun(id=UUID(int=3), flow_id=this, name="never"),
    ]
    listed = markdown(board, "Suspended", None, runs).partition("## Last runs")[2]
    assert "| push now | Suspended |  |" in listed
    assert "| push then | CleanedUp | 2026-11-29 03:05 UTC |" in listed
    assert "| never |  |  |" in listed


@pytest.mark.parametrize(
    ("message", "first"),
    [
        ("", ""),
        ("One sentence. And another.", "One sentence."),
        ("Is it 1.5 or e.g. this? Yes.", "Is it 1.5 or e.g. this?"),
        ("A line\nand the next. More", "A line"),
    ],
)
def test_of_a_message_the_first_sentence_is_kept(message: str, first: str) -> None:
    assert first_sentence(message) == first
