"""The one place that deletes on the Hub: what is planned, and what is refused right before the commit."""

import ast
from dataclasses import replace
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from hypothesis import given
from hypothesis import strategies as st

from deployments.local_stack import REPO
from tasks.commit import commit
from tasks.commit.other_files import Besides, as_recorded
from tasks.hub.client import Hub
from tasks.record.remote import Remote, read_remote
from tasks.record.removals import Removals, find_removals
from tasks.remove import RemovalNotApproved, RemovalRefused, deletions, plan_removal, require_gone
from tasks.report.evidence import Approval, Choice, Fate, Gate, RemovalPlan, VerificationFailed
from tasks.runs.lease import TargetLost
from tasks.values.models import ListedFile, Listing, PublicationRecord
from tests.test_removals import BOLD, FOREIGN, ONE, SHA, T1W, TWO, line, listing_of, record_of, removals, text

HEAD = "d" * 40
README = "bids/README"
RUN = "6b1f1e1c-3f0e-4d7a-9a52-1f3d1c1d2e3f"
RECORD = record_of([line(ONE, T1W), line(TWO, T1W, BOLD)], [text(README)])
SHOWN = Removals(
    shards={ONE: (T1W,)},
    rows={TWO: (BOLD,)},
    texts=(README,),
    published={
        ONE: {"size": 9, "sha256": SHA},
        TWO: {"size": 9, "sha256": SHA},
        README: {"size": 4, "sha256": SHA},
    },
)


KEEP = "the decision at the gate was to keep on the Hub what the dataset no longer has"
OTHER_GATE = "the gate was not opened by this run, so its approval does not count here"


def planned(
    gate: dict[str, Any] | None = None,
    approval: dict[str, Any] | None = None,
    now: Removals = SHOWN,
    record: PublicationRecord = RECORD,
    listing: Listing | None = None,
    readme: str = SHA,
    pictures: tuple[str, ...] = ("pictures/anat_T1w.png",),
) -> RemovalPlan:
    opened = {"flow_run_id": RUN, "flow_run_name": "push", "opened_at_commit": HEAD, "removals": SHOWN, **(gate or {})}
    decided = {"flow_run_id": RUN, "removals": "remove", **(approval or {})}
    target, there = Remote(HEAD, record), {README: readme}
    listing = listing or listing_of(record)
    return plan_removal(Gate(**opened), Approval(**decided), now, target, listing, there, pictures)


def why(plan: RemovalPlan, path: str) -> str:
    (kept,) = (kept.why for kept in plan.kept if kept.file == path)
    return kept


def test_what_was_shown_approved_and_is_still_no_longer_in_the_dataset_goes() -> None:
    plan = planned()
    assert set(plan.paths) == {ONE, README, "pictures/anat_T1w.png"} and dict(plan.rows) == {TWO: (BOLD,)}
    assert not plan.kept and len(plan.inside) == 1 and plan.commit == HEAD
    assert [operation.path_in_repo for operation in deletions(plan, Remote(HEAD, RECORD))] == list(plan.paths)
    assert planned(pictures=("pictures/anat_T1w.png", *FOREIGN)).pictures == ("pictures/anat_T1w.png", "pictures/a.png")
    assert not any(operation.is_folder for operation in deletions(plan, Remote(HEAD, RECORD)))


@pytest.mark.parametrize(
    ("gate", "approval", "says"),
    [
        ({}, {"removals": "keep"}, KEEP),
        ({}, {"removals": None, "decision": "delete"}, KEEP),
        ({}, {"flow_run_id": "another"}, OTHER_GATE),
        ({"flow_run_id": "another"}, {}, OTHER_GATE),
        ({"opened_at_commit": None}, {}, OTHER_GATE),
    ],
)
def test_without_an_approval_at_this_runs_own_open_gate_nothing_is_planned(
    gate: dict[str, Any], approval: dict[str, Any], says: str
) -> None:
    with pytest.raises(RemovalNotApproved) as refused:
        planned(gate, approval)
    assert str(refused.value) == says


def test_what_the_gate_did_not_show_stays_though_it_is_no_longer_in_the_dataset() -> None:
    plan = planned(gate={"removals": removals(texts=(README,))})
    assert plan.texts.keys() <= {README} and not plan.shards and not plan.rows
    assert not planned(gate={"removals": Removals()}).paths


def test_what_came_back_or_was_published_anew_since_stays() -> None:
    back = planned(now=Removals())
    assert not back and not back.paths and len(back.kept) == 3
    assert why(back, ONE) == "it is in the dataset again, or somebody else changed it in the repo"
    assert why(back, TWO) == "its images are in the dataset again (approved: 1 image)"

    other = {"sha256": "0" * 64}
    anew = record_of(
        [line(ONE, T1W).model_copy(update=other), line(TWO, T1W, BOLD).model_copy(update=other)],
        [text(README).model_copy(update=other)],
    )
    now = find_removals((), anew, listing_of(anew), ())
    now = now.model_copy(update={"rows": {TWO: (BOLD,)}})
    plan = planned(now=now, record=anew, readme="0" * 64)
    assert not plan.paths and not plan.rows
    assert {why(plan, ONE), why(plan, README)} == {"it was published with other bytes since the gate showed it"}


def test_rows_go_only_where_all_of_those_that_would_go_were_approved() -> None:
    more = SHOWN.model_copy(update={"rows": {TWO: (BOLD, T1W)}})
    assert TWO not in planned(now=more).rows
    assert why(planned(now=more), TWO) == "it is not as the gate showed it (approved: 1 image)"
    both = {"removals": SHOWN.model_copy(update={"rows": {TWO: (BOLD, T1W)}})}
    assert dict(planned(gate=both).rows) == {TWO: (BOLD,)}  # one image came back: the other goes
    assert TWO not in planned(record=record_of([line(ONE, T1W)], [text(README)])).rows


def test_what_somebody_replaced_or_took_away_on_the_hub_stays_as_it_is() -> None:
    files = dict(listing_of(RECORD).files)
    replaced = Listing(HEAD, files | {ONE: replace(files[ONE], sha256="0" * 64)})
    assert ONE not in planned(listing=replaced).shards
    assert why(planned(listing=replaced), ONE) == "the repo holds other bytes than we published"
    assert why(planned(readme="0" * 64), README) == "the repo holds other bytes than we published"
    gone = Listing(HEAD, {path: file for path, file in files.items() if path != ONE})
    assert why(planned(listing=gone), ONE) == "it is gone from the repo already"


def test_the_cards_pictures_go_with_a_shard_or_with_rows_and_with_nothing_else() -> None:
    for only in ({"shards": {ONE: (T1W,)}}, {"rows": {TWO: (BOLD,)}}):
        asked = Removals(published=SHOWN.published, **only)
        assert planned(gate={"removals": asked}).pictures == ("pictures/anat_T1w.png",)
    assert planned(now=Removals()).pictures == ()


def test_a_record_without_the_line_removes_nothing() -> None:
    bare = record_of([line(TWO, T1W, BOLD)])
    plan = planned(record=bare, listing=listing_of(RECORD))
    assert not plan.shards and not plan.texts and dict(plan.rows) == {TWO: (BOLD,)}


@given(st.lists(st.sampled_from(FOREIGN), min_size=1, max_size=5))
def test_whatever_gate_and_record_say_nothing_foreign_is_planned_nor_carried_out(names: list[str]) -> None:
    record = record_of([line(name, T1W) for name in names], [text(name, size=9) for name in names])
    lies = removals(dict.fromkeys(names, (T1W,)), texts=tuple(names))
    files = {name: ListedFile(name, 9, SHA) for name in names}
    plan = planned({"removals": lies}, now=lies, record=record, listing=Listing(HEAD, files), pictures=tuple(names))
    assert set(plan.paths) <= {"pictures/a.png"}
    assert {kept.why for kept in plan.kept} == {"it lies in no folder of ours"}
    for name in names:
        for field in ({"shards": {name: lies.published[name]}}, {"texts": {name: lies.published[name]}}):
            with pytest.raises(RemovalRefused):
                deletions(RemovalPlan(commit=HEAD, **field), Remote(HEAD, record))
        if name != "pictures/a.png":
            with pytest.raises(RemovalRefused):
                deletions(RemovalPlan(commit=HEAD, pictures=(name,)), Remote(HEAD, record))


def test_right_before_the_commit_a_head_that_moved_and_a_line_that_changed_are_refused() -> None:
    plan = planned()
    with pytest.raises(RemovalRefused) as refused:
        deletions(plan, Remote("e" * 40, RECORD))
    assert str(refused.value) == (
        "somebody else committed to the repo since it was looked at. Nothing was removed from the Hub. Retry the run, "
        "which asks again, or leave it to the next night with removed=ask."
    )
    with pytest.raises(RemovalRefused, match=r"^data/x\.png is no picture of the card\. Nothing was removed"):
        deletions(RemovalPlan(commit=HEAD, pictures=("data/x.png",)), Remote(HEAD, RECORD))
    for record in (
        record_of([line(TWO, T1W, BOLD)], [text(README)]),
        record_of([line(ONE, T1W, sha256="0" * 64), line(TWO)], [text(README)]),
        record_of([line(ONE, T1W), line(TWO)]),
        record_of([line(ONE, T1W), line(TWO)], [text(README, size=5)]),
    ):
        with pytest.raises(RemovalRefused, match="as the gate showed it"):
            deletions(plan, Remote(HEAD, record))


def card(record: PublicationRecord, existing: str | None) -> str:
    return f"---\nlicense: cc0-1.0\n---\n{len(record.shards)} shards\n"


def with_a_text(hub: Hub, path: str = README, data: bytes = b"text") -> Remote:
    """A repo that holds one text of ours, and a file of somebody else."""
    texts = as_recorded({path: data})
    commit(hub, read_remote(hub), [], [], Besides(card, {path: data}, recorded=texts))
    hub.commit([CommitOperationAdd("bids/by-hand.md", b"mine")], "By hand", hub.head())
    return read_remote(hub)


def plan_for(target: Remote) -> RemovalPlan:
    published = {path: {"size": one.size, "sha256": one.sha256} for path, one in target.record.texts.items()}
    return RemovalPlan.model_validate({"commit": target.commit, "texts": published})


def test_a_removal_is_one_commit_with_the_record_that_is_true_after_it(hub: Hub) -> None:
    target = with_a_text(hub)
    plan, before = plan_for(target), len(hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset"))
    with pytest.raises(VerificationFailed, match="bids/README"):
        require_gone(hub, plan, target.commit)
    after = commit(hub, target, [], [], Besides(card, {}, remove=plan))
    assert len(hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset")) == before + 1
    assert README not in hub.listing(after.commit).files and "bids/by-hand.md" in hub.listing(after.commit).files
    assert read_remote(hub).record.texts == {} and not Besides(card, {}, remove=plan).after_commit().remove
    require_gone(hub, plan, after.commit)
    require_gone(hub, RemovalPlan(commit=after.commit), after.commit)
    short = target.commit[:12]
    with pytest.raises(VerificationFailed, match=f"^1 of 1 files that were removed are in .* at commit {short}: bids/"):
        require_gone(hub, plan, target.commit)  # of the commit that is asked about, and not of the head

    # the same commit again, of whose answer nobody heard: it is recognised, and nothing is committed twice
    again = commit(hub, target, [], [], Besides(card, {}, remove=plan))
    assert again.commit == after.commit


def test_a_removal_on_a_head_that_somebody_moved_removes_nothing(hub: Hub) -> None:
    target = with_a_text(hub)
    plan = plan_for(target)
    hub.commit([CommitOperationAdd("notes.md", b"by hand")], "A person's commit", hub.head())
    with pytest.raises(RemovalRefused, match="somebody else committed"):
        commit(hub, target, [], [], Besides(card, {}, remove=plan))
    assert README in hub.listing(hub.head()).files and README in read_remote(hub).record.texts


def test_a_run_that_lost_its_target_removes_nothing(hub: Hub) -> None:
    def lost() -> None:
        raise TargetLost("another run has taken it over")

    target = with_a_text(hub)
    with pytest.raises(TargetLost):
        commit(hub, target, [], [], Besides(card, {}, remove=plan_for(target)), lost)
    assert hub.head() == target.commit


def test_a_removal_is_not_planned_anew_when_a_run_meets_somebody_else(hub: Hub) -> None:
    target = with_a_text(hub)
    again = Besides(card, {}, remove=plan_for(target)).planned_again(target, {}, hub.listing(target.commit), (), {})
    assert again.remove is None


def test_lines_that_stand_for_nothing_go_with_the_next_commit_and_no_file_with_them(hub: Hub) -> None:
    sha256 = with_a_text(hub).record.texts[README].sha256

    def after(lost: dict[str, str], data: bytes) -> PublicationRecord:
        return commit(hub, read_remote(hub), [], [], Besides(card, {"bids/new": data}, lost=lost)).record

    assert README in after({README: sha256}, b"1").texts  # its file is there
    hub.commit([CommitOperationDelete(README)], "By hand", hub.head())
    assert README in after({README: "0" * 64}, b"2").texts  # published anew since it was read
    assert README not in after({README: sha256, "bids/other": SHA}, b"3").texts
    assert "bids/by-hand.md" in hub.listing(hub.head()).files


#: Everything in the client's API by which something leaves a repo or a branch.
DELETES = {
    "CommitOperationDelete", "CommitOperationCopy", "delete_file", "delete_files", "delete_folder", "delete_repo",
    "delete_branch", "delete_tag", "super_squash_history", "permanently_delete_lfs_files", "upload_folder", "move_repo",
    "delete_patterns",
}  # fmt: skip


def test_no_other_code_can_delete_anything_on_the_hub() -> None:
    found: set[tuple[str, str | None]] = set()
    for path in sorted([*(REPO / "flows").rglob("*.py"), *(REPO / "tasks").rglob("*.py")]):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", None) or getattr(node.func, "attr", None)
                named = {name, *(keyword.arg for keyword in node.keywords)}
                found |= {(path.relative_to(REPO).as_posix(), one) for one in named & DELETES}
    assert found == {("tasks/remove.py", "CommitOperationDelete")}


def test_a_decision_has_no_default() -> None:
    approval = Approval(flow_run_id=RUN)
    assert approval.decision is None and approval.removals is None
    assert {Choice.DELETE, Choice.KEEP} == set(Choice) and {Fate.REMOVE, Fate.KEEP} == set(Fate)
