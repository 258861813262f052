"""What a run leaves for people to read: words, figures and tables, case by case."""

from html import escape
from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.record.published import Drift, Work
from tasks.record.removals import PublishedFile, Removals
from tasks.report.artifacts import cleanup, evidence, findings, removed
from tasks.report.evidence import (
    Approval,
    Choice,
    CleanupPlan,
    CleanupResult,
    Evidence,
    Fate,
    Kept,
    Leftovers,
    OnlyCopy,
    RemovalPlan,
    ShardCheck,
    Shown,
    StagedFile,
    VerificationReport,
)
from tasks.report.sentences import (
    LISTED,
    cell,
    changed_copies,
    decided,
    drifted,
    gone_already,
    how_verified,
    idle,
    not_stripped,
    nothing_staged,
    some_of,
    stopped,
    table,
    verified,
    what_was_removed,
)
from tasks.values.format import in_units, number
from tasks.values.preflight_rules import Checked, Finding, Statement

FILE = PublishedFile(size=1, sha256="0" * 64)
HUB = Hub(Target("https://hub.example", "lab/some"), "")


def report(*how: str, images: int = 0, read: int = 0) -> VerificationReport:
    """A verification of shards of 2 MB, each checked in one of these ways."""
    checks = tuple(
        ShardCheck(path=f"data/sub-{n}.parquet", size=2_000_000, sha256="0" * 64, rows=1, how=one)  # type: ignore[arg-type]
        for n, one in enumerate(how)
    )
    return VerificationReport(
        repo_id="lab/some", revision="main", commit="c" * 40, level="sample", checks=checks, images_decoded=images,
        bytes_read_back=read,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("count", "words"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1000, "1 kB"),
        (999_499, "999 kB"),
        (1_000_000, "1.0 MB"),
        (293_400_000_000, "293.4 GB"),
        (1_250_000_000_000, "1.25 TB"),
        (5_000_000_000_000_000, "5000.00 TB"),
    ],
)
def test_bytes_are_in_decimal_units_as_the_hub_shows_them(count: int, words: str) -> None:
    assert in_units(count) == words


@pytest.mark.parametrize(("count", "words"), [(0, "0 shards"), (1, "1 shard"), (2, "2 shards"), (5164, "5,164 shards")])
def test_a_count_has_its_noun(count: int, words: str) -> None:
    assert number(count, "shard") == words


@pytest.mark.parametrize(
    ("text", "safe"),
    [
        pytest.param("plain", "plain", id="plain"),
        pytest.param("a|b", "a\\|b", id="a pipe"),
        pytest.param("a\nb", "a b", id="a line end"),
        pytest.param("`code`", "'code'", id="backticks"),
        pytest.param("a\\|b", "a\\\\\\|b", id="a pipe that was escaped"),
    ],
)
def test_no_text_breaks_a_table(text: str, safe: str) -> None:
    assert cell(text) == safe


@pytest.mark.parametrize(
    "name", ["sub-*/ses-*/anat/", "code/__pycache__/", "_a_", "<b>x</b>", "[a](b)", "a_b_c.nii", "a|b", r"a\b", "5 * 3"]
)
def test_a_name_in_a_table_is_shown_as_it_is(name: str) -> None:
    shown = MarkdownIt("commonmark").enable("table").render(table(["file", "n"], [[name, "1"]]))
    assert f"<td>{escape(name)}</td>" in shown


@pytest.mark.parametrize(
    ("rows", "last"),
    [
        (1, "| 0 |"),
        (LISTED, f"| {LISTED - 1} |"),
        (LISTED + 1, "... and 1 more"),
        (LISTED + 2000, "... and 2,000 more"),
    ],
)
def test_a_long_table_is_cut_and_says_so(rows: int, last: str) -> None:
    lines = table(["number"], [[str(row)] for row in range(rows)]).splitlines()
    assert lines[:2] == ["| number |", "|---|"] and lines[-1] == last
    assert sum(line.startswith("| ") for line in lines) == 1 + min(rows, LISTED)


@pytest.mark.parametrize(
    ("paths", "sentence"),
    [
        pytest.param("", "", id="nothing"),
        pytest.param("a", "Changed on the Hub by somebody else: a: gone.", id="one"),
        pytest.param(
            "abc", "Changed on the Hub by somebody else: a: gone; b: gone; c: gone.", id="as many as are named"
        ),
        pytest.param(
            "abcde", "Changed on the Hub by somebody else: a: gone; b: gone; c: gone; and 2 more files.", id="more"
        ),
        pytest.param(
            "aabbbcda",
            "Changed on the Hub by somebody else: a: gone, and more there; b: gone, and more there; c: gone; and 1 "
            "more file.",
            id="several in a file",
        ),
    ],
)
def test_what_somebody_else_has_changed_is_named_and_the_rest_counted(paths: str, sentence: str) -> None:
    assert drifted([Drift(path, "gone") for path in paths]) == sentence


@pytest.mark.parametrize(
    ("files", "end"),
    [
        pytest.param([], "no gate was opened.", id="none"),
        pytest.param(
            ["a"], " 1 staged shard stays, since the Hub is not proved to have it: the first is a (not sent).", id="one"
        ),
        pytest.param(
            ["a", "b"],
            " 2 staged shards stay, since the Hub is not proved to have them: the first is a (not sent).",
            id="two",
        ),
    ],
)
def test_a_run_with_nothing_to_ask_about_says_which_only_copies_stay(files: list[str], end: str) -> None:
    copies = tuple(OnlyCopy(file=file, size=1, why="not sent") for file in files)
    said = nothing_staged(Leftovers(only_copies=copies), "/staging/lab on scanner-7")
    head = "Nothing is staged in /staging/lab on scanner-7 that could go; no gate was opened."
    assert said.startswith(head) and said.endswith(end)


@pytest.mark.parametrize(
    ("decision", "removals", "words"),
    [
        (Choice.DELETE, None, "staged files: delete"),
        (None, Fate.KEEP, "removals: keep"),
        (Choice.KEEP, Fate.REMOVE, "staged files: keep; removals: remove"),
        (None, None, ""),
    ],
)
def test_a_decision_is_said_in_a_few_words(decision: Choice | None, removals: Fate | None, words: str) -> None:
    assert decided(Approval(flow_run_id="1", decision=decision, removals=removals)) == words


@pytest.mark.parametrize(
    ("gone", "sentence"),
    [
        (1, "1 of 6 shown shards was gone or changed already: s0.parquet."),
        (2, "2 of 6 shown shards were gone or changed already: s0.parquet, s1.parquet."),
        (5, "5 of 6 shown shards were gone or changed already: s0.parquet, s1.parquet, s2.parquet and 2 more."),
    ],
)
def test_shards_that_are_gone_since_they_were_shown_are_named(gone: int, sentence: str) -> None:
    shown = [Shown(file=f"s{n}", path=f"data/sub/s{n}.parquet", size=1, sha256="0" * 64) for n in range(gone)]
    assert gone_already(shown, 6) == sentence


@pytest.mark.parametrize(
    ("checked", "phrase"),
    [
        pytest.param(report("listing", "listing"), "2 shards, 4.0 MB, match the listing", id="listing alone"),
        pytest.param(
            report("listing", "read back", images=3, read=2_000_000),
            "2 shards, 4.0 MB, match the listing; 1 of them read back byte for byte (2.0 MB) and 3 images in them "
            "decoded",
            id="one read back",
        ),
    ],
)
def test_what_was_checked_is_said_with_how(checked: VerificationReport, phrase: str) -> None:
    assert how_verified(checked) == phrase


@pytest.mark.parametrize(
    ("checked", "mended", "sentence"),
    [
        pytest.param(
            report("listing"),
            [],
            f"Verified (sample) at commit {'c' * 12}: 1 shard, 2.0 MB, match the listing.",
            id="one",
        ),
        pytest.param(
            report(),
            [],
            f"Nothing was verified at commit {'c' * 12}: no shard is staged here as the repo has it now.",
            id="nothing to verify",
        ),
        pytest.param(
            report("listing"),
            [f"data/sub-{n}.parquet" for n in range(5)],
            f"Verified (sample) at commit {'c' * 12}: 1 shard, 2.0 MB, match the listing. Failed before, and right "
            "again or gone: sub-0, sub-1, sub-2 and 2 more.",
            id="and five that had failed",
        ),
    ],
)
def test_a_runs_state_says_what_it_has_verified(checked: VerificationReport, mended: list[str], sentence: str) -> None:
    assert verified(checked, mended) == sentence


@pytest.mark.parametrize(
    ("plan", "phrase"),
    [
        pytest.param(RemovalPlan(commit="c"), "nothing", id="nothing"),
        pytest.param(RemovalPlan(commit="c", shards={"a": FILE, "b": FILE}), "2 shards", id="shards"),
        pytest.param(RemovalPlan(commit="c", rows={"a": ("i.nii", "j.nii")}), "2 images of 1 shard", id="rows"),
        pytest.param(
            RemovalPlan(commit="c", shards={"a": FILE}, rows={"b": ("i.nii",)}, texts={"t": FILE}, pictures=("p",)),
            "1 shard, 1 image of 1 shard, 1 text, 1 picture",
            id="all of it",
        ),
    ],
)
def test_what_was_removed_is_said_in_a_phrase(plan: RemovalPlan, phrase: str) -> None:
    assert what_was_removed(plan) == phrase


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            1,
            [
                "1 rule stops this push",
                "PatientName0 in 3 files: a.json, b.json, ...",
                "To allow it: personal-data:PatientName0\n",
            ],
        ),
        (5, ["1 rule stops this push", "PatientName4 in 3 files"]),
        (7, ["1 rule stops this push", "PatientName4 in 3 files", "    and 2 more fields"]),
    ],
)
def test_a_push_that_must_not_be_names_rules_fields_files_and_the_way_on(fields: int, words: list[str]) -> None:
    found = tuple(Finding("personal-data", f"PatientName{n}", ("a.json", "b.json", "c.json"), 3) for n in range(fields))
    said = stopped(Checked(Statement(), (*found, Finding("device", "StationName", ("a.json",), 1))))
    assert all(word in said for word in words) and "StationName" not in said
    assert said.count("To allow it: personal-data:PatientName") == min(fields, 5)
    assert said.endswith("a whole rule (personal-data): the card then says so.")


def test_a_push_that_must_not_be_says_last_which_entries_of_allow_lift_nothing() -> None:
    found = (Finding("personal-data", "Name", ("a.json",), 1),)
    checked = Checked(Statement("defaced", ("personal-data:Nmae",)), found)
    assert "Nmae" in idle(checked) and stopped(checked).endswith(f"the card then says so.\n{idle(checked)}")


@pytest.mark.parametrize(
    ("left_out", "row"),
    [
        ({}, None),
        ({"*_eeg.edf": 12, "*.surf.gii": 3}, r"| \*\_eeg.edf | 12 |"),
        ({"*.mgz": 1200}, r"| \*.mgz | 1,200 |"),
    ],
    ids=["nothing", "two kinds", "many"],
)
def test_the_evidence_counts_what_of_the_dataset_is_not_published(left_out: dict[str, int], row: str | None) -> None:
    hub = Hub(Target("http://127.0.0.1:1", "lab/some"), "no token")
    text = evidence(hub, report("listing"), Evidence([], [], left_out=left_out), Leftovers())
    assert row in text if row else "Left out" not in text


@pytest.mark.parametrize(
    ("file", "length", "words"),
    [
        ("sub-01/sub-01.part", 0, "an empty file that a run left when it broke off"),
        ("sub-01/sub-01.part", 9, "an unfinished file that a run left when it broke off"),
        ("results/stage-1", 9, "a copy of nothing"),
        ("sub-01/sub-01.parquet", 9, "on the Hub, at the head"),
    ],
)
def test_a_stale_file_is_told_by_what_it_is(file: str, length: int, words: str) -> None:
    hub = Hub(Target("https://hub.example", "lab/some"), "")
    stale = Leftovers(stale=(StagedFile(file=file, size=length, kind="stale"),))
    assert f"| {words} |" in evidence(hub, report(), Evidence((), ()), stale)


def test_staged_files_that_are_no_copies_any_more_are_named_with_what_to_do_and_none_is_no_sentence() -> None:
    folder = Path("/staging/lab--x")
    assert changed_copies([], folder) == ""
    assert changed_copies(["a.parquet"], folder) == (
        "1 staged file in /staging/lab--x is not what was staged, and stays: a.parquet. bids-push deletes no such "
        "file. Look at it, and delete it yourself."
    )
    assert "2 staged files in /staging/lab--x are not what was staged, and stay: " in changed_copies(["a", "b"], folder)


def parts(text: str) -> list[str]:
    return text.rstrip("\n").split("\n\n")


def test_what_a_cleanup_freed_is_counted_by_kind_and_what_stayed_has_its_reason() -> None:
    shard, marker = (
        StagedFile(file=name, size=1_000_000, kind=kind) for name, kind in (("a", "shard"), ("b", "stale"))
    )
    plan = CleanupPlan(folder=Path("/staging"), files=(shard, marker))
    assert parts(cleanup(plan, CleanupResult(removed=(shard, marker, shard)), "")) == [
        "# Freed 3.0 MB",
        "2 shard files, 1 stale file of `/staging`.",
    ]
    plan = plan.model_copy(update={"kept": (Kept(file="c", why="planned so"),)})
    result = CleanupResult(removed=(shard,), refused=(Kept(file="b", why="changed"),))
    said = parts(cleanup(plan, result, "who | I am", "One was gone."))
    assert said[2:5] == ["One was gone.", "Note: who \\| I am", "## Not removed"]
    assert said[5].splitlines()[2:] == ["| c | planned so |", "| b | changed |"]


def test_what_was_removed_from_the_hub_is_listed_with_the_last_commit_that_has_it() -> None:
    before, after = "b" * 40, "a" * 40
    said = parts(removed(HUB, RemovalPlan(commit=before, shards={"data/a.parquet": FILE}), "", before, after))
    assert said[0] == "# Removed from lab/some"
    assert said[2] == (
        f"The last commit that has it: [{'b' * 12}](https://hub.example/datasets/lab/some/commit/{before}). The head: "
        f"[{'a' * 12}](https://hub.example/datasets/lab/some/commit/{after})."
    )
    assert said[3:] == ["| file |\n|---|\n| data/a.parquet |"]
    plan = RemovalPlan(commit=before, rows={"data/b.parquet": ("i.nii", "j.nii")}, kept=(Kept(file="c", why="back"),))
    said = parts(removed(HUB, plan, "I am", before, after))
    assert said[3] == "Note: I am"
    assert said[4] == "| image | shard |\n|---|---|\n| i.nii | data/b.parquet |\n| j.nii | data/b.parquet |"
    assert said[5:] == ["## Approved, and not removed", "| file | why |\n|---|---|\n| c | back |"]


def test_only_copies_and_what_is_not_of_bids_push_are_told_as_such_in_the_evidence() -> None:
    leftovers = Leftovers(
        only_copies=(OnlyCopy(file="a", size=2_000_000, why="not sent"),), strangers={"notes": "mine"}
    )
    text = evidence(HUB, report("listing"), Evidence((), ()), leftovers)
    assert "### Only copies" in text and "| a | 2.0 MB | not sent |" in text
    assert "### Not of bids-push" in text and "| notes | mine |" in text and "### Stale files" not in text
    text = evidence(HUB, report("listing"), Evidence((), ()), Leftovers())
    assert "### Only copies" not in text and "### Not of bids-push" not in text


def test_what_waits_for_room_and_what_somebody_else_changed_is_in_the_evidence() -> None:
    told = evidence(HUB, report("listing"), Evidence((), (), waiting=2, drift=(Drift("a", "gone"),)), Leftovers())
    assert "Not published yet: 2 shards." in told
    assert "## Changed on the Hub by somebody else\n\n| file | what |\n|---|---|\n| a | gone |" in told
    told = evidence(HUB, report("listing"), Evidence((), ()), Leftovers())
    assert "Not published yet" not in told and "Changed on the Hub" not in told


def test_what_the_operator_stated_is_in_the_evidence() -> None:
    found = (Finding("personal-data", "Name", ("a.json",), 1),)
    checked = Checked(Statement("defaced", ("personal-data:Name",), ("StationName", "a`b")), found)
    told = evidence(HUB, report(), Evidence((), (), checked=checked), Leftovers()).partition(
        "## Stated by the operator"
    )[2]
    assert "Faces: defaced." in told and "Allowed: `personal-data:Name`." in told
    assert "Stripped from what is published: `StationName`, `a'b`." in told
    told = evidence(HUB, report(), Evidence((), (), checked=Checked(Statement("defaced"), found)), Leftovers())
    assert "## Stated by the operator" not in told


@pytest.mark.parametrize(
    ("names", "said"),
    [("a", "1 file (a)"), ("abc", "3 files (a, b, c)"), ("abcd", "4 files (a, b, c and 1 more)")],
)
def test_of_many_files_the_first_are_named(names: str, said: str) -> None:
    assert some_of(names, "file") == said


@pytest.mark.parametrize(
    ("fields", "held", "said"),
    [([], 2, ""), (["Name"], 0, ""), (["Name"], 1, "1 shard that must"), (["Name"], 4, "4 shards that must")],
)
def test_strip_says_which_shards_it_does_not_reach(fields: list[str], held: int, said: str) -> None:
    withdrawn = {f"data/sub-{n}.parquet": (f"sub-{n}_T1w.nii.gz",) for n in range(held)}
    work = Work(done=(), send=(), stage=(), drift=(), removals=Removals(shards=withdrawn))
    told = not_stripped(fields, work)
    if not said:
        assert told == ""
        return
    named = ", ".join(f"sub-{n}" for n in range(min(held, 3)))
    assert (
        f"strip does not reach {said} stay as published" in told and f"({named}{', ...' if held > 3 else ''})" in told
    )


def test_a_finding_is_listed_under_its_rule_with_the_entry_that_lifts_it_only_if_it_stops_the_push() -> None:
    assert "Nothing was found." in findings(Checked(Statement("defaced")))
    found = (
        *(Finding("personal-data", f"Name{n:03}", ("a.json",), 1) for n in range(LISTED + 2)),
        Finding("device", "StationName", ("b.json",), 1),
    )
    told = findings(Checked(Statement("defaced", ("personal-data:Name001",)), found))
    assert told.index("## Stops the push") < told.index("## Allowed, although") < told.index("## To be looked at")
    lines = [line for line in told.splitlines() if line.startswith("- ")]
    assert len(lines) == LISTED + 1 + 1 + 1  # those that stop the push, cut; the one that is lifted; the warning
    assert "- ... and 1 more fields" in lines
    assert "`Name000` in 1 file. To allow it: `personal-data:Name000`\n  - `a.json`\n- `Name002`" in told
    assert [line for line in lines if "To allow it: `personal-data:Name000`" in line] == lines[:1]
    assert not any("To allow it" in line for line in lines[-2:])
