"""The code that deletes, tested hardest: what it removes, and everything that it must refuse."""

import errno
import hashlib
import json
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.cleanup import DOUBTED, UNPROVED, ListedAt, NotApproved, asking, execute, find_leftovers, plan_cleanup
from tasks.disk.failed_shards import Cause, FailedShard, write_failed
from tasks.disk.staging import Staging, Target, receipt_name, result_name
from tasks.disk.untrusted import identity
from tasks.hub.client import Hub
from tasks.hub.errors import RepoMissing
from tasks.report.evidence import (
    Approval,
    Choice,
    CleanupPlan,
    CleanupResult,
    Gate,
    Kept,
    Leftovers,
    ShardCheck,
    StagedFile,
    VerificationReport,
    shown_as,
)
from tasks.stage import stage
from tasks.values.models import ListedFile, Receipt, ShardSpec
from tasks.values.our_paths import other_path

Staged = Callable[[int], list[Receipt]]
RUN = "the-run"
YES = Approval(flow_run_id=RUN, decision=Choice.DELETE)


def report(receipts: Sequence[Receipt]) -> VerificationReport:
    checks = [ShardCheck(path=r.path, size=r.size, sha256=r.sha256, rows=r.rows, how="listing") for r in receipts]
    return VerificationReport(repo_id="lab/x", revision="main", commit="c" * 40, level="listing", checks=tuple(checks))


def gate(receipts: Sequence[Receipt], stale: tuple[StagedFile, ...] = ()) -> Gate:
    return Gate(flow_run_id=RUN, flow_run_name="run", opened_at_commit="c" * 40,
                shown=tuple(shown_as(r) for r in receipts), stale=stale)  # fmt: skip


def on_hub(receipts: Sequence[Receipt]) -> Mapping[str, ListedFile]:
    return {r.path: ListedFile(r.path, r.size, r.sha256) for r in receipts}


@dataclass
class History:
    """A Hub's answers: what it holds of some paths at a commit; the head is the empty one."""

    commits: dict[str, Mapping[str, ListedFile]]
    asked: list[tuple[tuple[str, ...], str]] = field(default_factory=list)

    def __call__(self, paths: Sequence[str], commit: str) -> Mapping[str, ListedFile]:
        self.asked.append((tuple(paths), commit))
        there = self.commits.get(commit, {})
        return {path: there[path] for path in paths if path in there}


def head(receipts: Sequence[Receipt]) -> History:
    return History({"": on_hub(receipts)})


def clean(staging: Staging, receipts: Sequence[Receipt], held: Mapping[str, ListedFile] | None = None) -> CleanupResult:
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts))
    return execute(plan, head(receipts) if held is None else History({"": held}))


def files(staging: Staging) -> set[str]:
    return {p.relative_to(staging.folder).as_posix() for p in staging.folder.rglob("*") if not p.is_dir()}


def test_what_was_approved_and_verified_goes_with_its_receipts_and_empty_folders(
    staging: Staging, staged: Staged
) -> None:
    receipts = staged(3)
    expected = sum((staging.folder / r.file).stat().st_size + (staging.folder / receipt_name(r)).stat().st_size
                   for r in receipts)  # fmt: skip
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts))
    assert plan.size == expected
    result = execute(plan, head(receipts))
    assert result.freed == expected and not result.refused
    assert files(staging) == set()
    assert staging.folder.is_dir() and not staging.shards.exists()


def test_nothing_goes_without_the_decision_to_delete(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    keep = Approval(flow_run_id=RUN, decision=Choice.KEEP)
    with pytest.raises(NotApproved, match=r"^the decision at the gate was to keep the staged files$"):
        plan_cleanup(staging, gate(receipts), keep, report(receipts))


def test_an_approval_of_another_run_or_of_a_gate_that_was_never_open_does_not_count(
    staging: Staging, staged: Staged
) -> None:
    receipts = staged(1)
    other = Approval(flow_run_id="another-run", decision=Choice.DELETE)
    with pytest.raises(
        NotApproved, match=r"^the gate was not opened by this run, so its approval does not count here$"
    ):
        plan_cleanup(staging, gate(receipts), other, report(receipts))
    claimed = Gate(flow_run_id=RUN, flow_run_name="run")
    with pytest.raises(
        NotApproved, match=r"^the gate was not opened by this run, so its approval does not count here$"
    ):
        plan_cleanup(staging, claimed, YES, report(receipts))


def test_a_shard_that_the_gate_did_not_show_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(3)
    plan = plan_cleanup(staging, gate(receipts[:2]), YES, report(receipts))
    assert [(kept.file, kept.why) for kept in plan.kept] == [(receipts[2].file, "it was not shown at the gate")]
    execute(plan, head(receipts))
    assert files(staging) == {receipts[2].file, receipt_name(receipts[2])}


def test_a_shard_that_the_last_verification_did_not_find_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(2)
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts[:1]))
    assert [(kept.file, kept.why) for kept in plan.kept] == [
        (receipts[1].file, "the last verification did not find it on the Hub")
    ]
    assert {file.path for file in plan.files} == {receipts[0].path}


@pytest.mark.parametrize("other", [{"path": "data/x/x.parquet"}, {"size": 1}, {"sha256": "0" * 64}])
def test_a_shard_that_was_verified_with_another_path_size_or_sha256_stays(
    staging: Staging, staged: Staged, other: dict[str, object]
) -> None:
    receipts = staged(1)
    checked = report([receipts[0].model_copy(update=other)])
    plan = plan_cleanup(staging, gate(receipts), YES, checked)
    assert plan.files == () and [kept.file for kept in plan.kept] == [receipts[0].file]


@pytest.mark.parametrize("field", ["file", "path", "size", "sha256"])
def test_a_shard_that_the_gate_showed_as_another_one_stays(staging: Staging, staged: Staged, field: str) -> None:
    first, second = staged(2)
    shown = shown_as(first).model_copy(update={field: getattr(second, field)})
    plan = plan_cleanup(staging, gate([]).model_copy(update={"shown": (shown,)}), YES, report([first, second]))
    assert plan.files == () and [kept.file for kept in plan.kept] == [first.file, second.file]


@pytest.mark.parametrize("change", ["gone", "other size", "other sha256", "in git, not LFS"])
def test_a_shard_that_the_hub_lost_since_stays(staging: Staging, staged: Staged, change: str) -> None:
    receipts = staged(2)
    held = dict(on_hub(receipts))
    lost = held.pop(receipts[0].path)
    if change != "gone":
        held[lost.path] = {
            "other size": replace(lost, size=lost.size + 1),
            "other sha256": replace(lost, sha256="0" * 64),
            "in git, not LFS": replace(lost, sha256=None),
        }[change]
    result = clean(staging, receipts, held)
    assert {receipts[0].file, receipt_name(receipts[0])} == files(staging)
    what = f"does not hold {lost.path}" if change == "gone" else f"holds other bytes for {lost.path}"
    assert [kept.why for kept in result.refused] == [f"the Hub {what} at the head of the target", "its shard stays"]


def test_a_hub_that_does_not_answer_in_the_middle_stops_the_cleanup(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts))

    def unreachable(paths: Sequence[str], commit: str) -> Mapping[str, ListedFile]:
        raise ConnectionError

    with pytest.raises(ConnectionError):
        execute(plan, unreachable)
    assert {receipts[0].file, receipt_name(receipts[0])} == files(staging)


def planned(staging: Staging, receipts: Sequence[Receipt]) -> CleanupPlan:
    return plan_cleanup(staging, gate(receipts), YES, report(receipts))


def test_a_file_swapped_for_a_symlink_is_not_followed_and_stays(
    staging: Staging, staged: Staged, tmp_path: Path
) -> None:
    receipts = staged(1)
    plan = planned(staging, receipts)
    precious = tmp_path / "precious.parquet"
    file = staging.folder / receipts[0].file
    file.rename(precious)
    file.symlink_to(precious)
    result = execute(plan, head(receipts))
    assert precious.exists() and file.is_symlink()
    assert (receipts[0].file, "it is a symlink") in {(kept.file, kept.why) for kept in result.refused}


def test_a_folder_swapped_for_a_symlink_is_not_entered(staging: Staging, staged: Staged, tmp_path: Path) -> None:
    receipts = staged(1)
    plan = planned(staging, receipts)
    subject = (staging.folder / receipts[0].file).parent
    elsewhere = tmp_path / "elsewhere"
    subject.rename(elsewhere)
    subject.symlink_to(elsewhere)
    result = execute(plan, head(receipts))
    assert len(list(elsewhere.iterdir())) == 2
    assert subject.is_symlink() and not result.removed


def test_the_targets_folder_itself_swapped_for_a_symlink_is_not_entered(
    staging: Staging, staged: Staged, tmp_path: Path
) -> None:
    receipts = staged(1)
    plan = planned(staging, receipts)
    staging.folder.rename(tmp_path / "elsewhere")
    staging.folder.symlink_to(tmp_path / "elsewhere")
    result = execute(plan, head(receipts))
    assert not result.removed and (tmp_path / "elsewhere" / receipts[0].file).exists()


def overwrite(file: Path, data: bytes) -> None:
    """Other bytes in the same file, with the mtime that it had."""
    before = file.stat()
    file.write_bytes(data)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))


def other_bytes(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.mark.parametrize("when", ["before the plan", "after the plan"])
@pytest.mark.parametrize("change", [other_bytes, lambda data: data + b"x", lambda data: b""])
def test_a_staged_file_that_was_overwritten_stays_with_its_receipt(
    staging: Staging, staged: Staged, when: str, change: Callable[[bytes], bytes]
) -> None:
    receipts = staged(2)
    file = staging.folder / receipts[0].file
    mine = change(file.read_bytes())
    if when == "before the plan":
        overwrite(file, mine)
    plan = planned(staging, receipts)
    if when == "after the plan":
        overwrite(file, mine)
    result = execute(plan, head(receipts))
    assert file.read_bytes() == mine
    assert [(kept.file, kept.why) for kept in result.refused] == [
        (receipts[0].file, "its bytes are not those of its receipt"),
        (receipt_name(receipts[0]), "its shard stays"),
    ]
    assert files(staging) == {receipts[0].file, receipt_name(receipts[0])}


@pytest.mark.parametrize("how", ["copied", "touched", "renamed away and back", "of an older version"])
def test_a_file_of_another_identity_with_the_same_bytes_goes(staging: Staging, staged: Staged, how: str) -> None:
    receipts = staged(1)
    file = staging.folder / receipts[0].file
    if how == "copied":
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data)
    elif how == "touched":
        os.utime(file, ns=(1, 1))
    elif how == "renamed away and back":
        file.rename(file.with_name("away")).rename(file)
    else:
        written = staging.folder / receipt_name(receipts[0])
        old = json.loads(written.read_text())
        del old["identity"], old["commit"]
        written.write_text(json.dumps(old))
    assert not clean(staging, receipts).refused
    assert files(staging) == set()


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[None]:
    """An entry for each time that a file is hashed."""
    hashed: list[None] = []
    digest = hashlib.file_digest

    def noted(file: Any, algorithm: Any) -> Any:
        hashed.append(None)
        return digest(file, algorithm)

    monkeypatch.setattr("hashlib.file_digest", noted)
    return hashed


def test_a_file_that_is_as_it_was_staged_is_not_read_again(
    staging: Staging, staged: Staged, hashed: list[None]
) -> None:
    receipts = staged(2)
    os.utime(staging.folder / receipts[1].file, ns=(1, 1))
    clean(staging, receipts)
    assert len(hashed) == 1 and files(staging) == set()


def test_a_file_that_changes_while_it_is_hashed_stays(
    staging: Staging, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = staged(1)
    file = staging.folder / receipts[0].file
    data = file.read_bytes()
    os.utime(file, ns=(1, 1))  # so that it is hashed
    digest = hashlib.file_digest

    def slow(*given: Any) -> object:
        found = digest(*given)
        file.write_bytes(other_bytes(data))
        return found

    monkeypatch.setattr("hashlib.file_digest", slow)
    result = clean(staging, receipts)
    assert file.read_bytes() == other_bytes(data)
    assert result.refused[0].why == "it changed while it was read"


@pytest.mark.parametrize("which", [receipt_name, result_name])
def test_a_receipt_or_a_result_that_is_not_what_was_planned_stays(
    staging: Staging, staged: Staged, which: Callable[[Receipt], str]
) -> None:
    receipts = staged(1)
    staging.results.mkdir()
    (staging.folder / result_name(receipts[0])).write_bytes(b"a result")
    plan = planned(staging, receipts)
    file = staging.folder / which(receipts[0])
    overwrite(file, other_bytes(file.read_bytes()))
    result = execute(plan, head(receipts))
    assert result.refused == (Kept(file=which(receipts[0]), why="it has changed since the cleanup was planned"),)
    assert files(staging) == {which(receipts[0])}


@pytest.mark.parametrize("what", ["a symlink", "a FIFO", "a folder", "a socket", "a hard link"])
def test_what_is_no_ordinary_file_is_neither_opened_nor_removed(
    staging: Staging, staged: Staged, tmp_path: Path, what: str
) -> None:
    receipts = staged(2)
    file = staging.folder / receipts[0].file
    precious = tmp_path / "precious"
    file.rename(precious)
    put_there(what, file, precious)
    for find in (staging.receipts, staging.staged_bytes, staging.ours):
        find()  # an open of a FIFO would wait for ever
    assert not staging.intact(receipts[0]) or what == "a hard link"
    result = clean(staging, receipts)
    assert os.path.lexists(file) and precious.exists()
    named = {"a symlink": "symlink", "a FIFO": "FIFO", "a folder": "folder", "a socket": "socket",
             "a hard link": "hard link"}[what]  # fmt: skip
    assert [kept.file for kept in result.refused] == [receipts[0].file, receipt_name(receipts[0])]
    assert named in result.refused[0].why
    assert named in staging.strangers()[receipts[0].file]
    found = find_leftovers(staging, [], head(receipts))
    assert not found.stale and not found.only_copies and receipts[0].file in found.strangers


def put_there(what: str, file: Path, precious: Path) -> None:
    if what == "a symlink":
        file.symlink_to(precious)
    elif what == "a FIFO":
        os.mkfifo(file)
    elif what == "a folder":
        file.mkdir()
    elif what == "a hard link":
        file.hardlink_to(precious)
    else:
        here = Path.cwd()
        os.chdir(file.parent)  # the path of a socket may have 108 bytes
        try:
            socket.socket(socket.AF_UNIX).bind(file.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize(
    "name",
    [
        "../outside.parquet",
        "/etc/hostname",
        "shards/../../outside.0123456789ab.parquet.part",
        "shards/../outside.0123456789ab.parquet.part",
    ],
)
def test_a_name_that_leaves_its_folder_is_refused(staging: Staging, staged: Staged, name: str) -> None:
    staged(1)
    outside = staging.folder / name if name.startswith("shards") else staging.folder.parent / Path(name).name
    outside.write_bytes(b"mine")
    file = StagedFile(file=name, size=4, identity=identity(outside.stat()), kind="stale")
    result = execute(CleanupPlan(folder=staging.folder, files=(file,)), head([]))
    assert outside.read_bytes() == b"mine"
    why = UNPROVED if file.is_shard else "bids-push gives no such name"
    assert [(kept.file, kept.why) for kept in result.refused] == [(name, why)]


def test_foreign_files_stay_and_so_do_their_folders(staging: Staging, staged: Staged) -> None:
    receipts = staged(2)
    notes = staging.folder / "notes.txt"
    beside = (staging.folder / receipts[0].file).parent / "my-analysis.csv"
    for foreign in (notes, beside):
        foreign.write_text("mine")
    clean(staging, receipts)
    assert files(staging) == {p.relative_to(staging.folder).as_posix() for p in (notes, beside)}


def test_an_interrupted_cleanup_can_be_repeated(staging: Staging, staged: Staged) -> None:
    receipts = staged(3)
    plan = planned(staging, receipts)
    (staging.folder / receipts[0].file).unlink()
    result = execute(plan, head(receipts))
    assert result.gone_before == (receipts[0].file,) and not result.refused
    again = execute(plan, head(receipts))
    assert not again.removed and not again.refused and files(staging) == set()


def test_the_hub_is_asked_before_each_batch_is_unlinked_and_not_once_for_all(
    staging: Staging, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.cleanup.ASK_AT_ONCE", 2)
    receipts = staged(5)
    there: list[int] = []

    def listed_at(paths: Sequence[str], commit: str) -> Mapping[str, ListedFile]:
        there.append(sum((staging.folder / r.file).exists() for r in receipts))
        return on_hub(receipts)

    execute(planned(staging, receipts), listed_at)
    assert there == [5, 3, 1]


@pytest.mark.slow
@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_shown_verified_held_or_tampered_with_only_what_is_all_of_it_goes(
    data: st.DataObject, shards: Sequence[ShardSpec], bids: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    from tasks.stage import stage

    staging = Staging(tmp_path_factory.mktemp("staging"))
    receipts = [stage(spec, bids, staging) for spec in shards[:4]]
    subset = st.sets(st.sampled_from(range(4)))
    shown, verified, held, tampered = (data.draw(subset) for _ in range(4))
    plan = plan_cleanup(staging, gate([receipts[n] for n in shown]), YES, report([receipts[n] for n in verified]))
    for number in tampered:
        file = staging.folder / receipts[number].file
        overwrite(file, other_bytes(file.read_bytes()))
    execute(plan, head([receipts[n] for n in held]))
    left = {n for n in range(4) if (staging.folder / receipts[n].file).exists()}
    assert left == set(range(4)) - ((shown & verified & held) - tampered)


# Prefect's results: small shards share one


def test_a_result_that_several_shards_share_goes_with_the_last_of_them_and_stays_while_one_stays(
    staging: Staging, shards: tuple[ShardSpec, ...], bids: Path
) -> None:
    receipts = [stage(spec, bids, staging, result="stage-1-" + "a" * 64) for spec in shards[:3]]
    result = staging.results / receipts[0].result
    result.parent.mkdir()
    result.write_bytes(b"three receipts")
    assert find_leftovers(staging, receipts, head([])) == Leftovers()
    plan = plan_cleanup(staging, gate(receipts[:2]), YES, report(receipts))
    execute(plan, head(receipts))
    assert result.exists() and files(staging) == {
        receipts[2].file, receipt_name(receipts[2]), result_name(receipts[2])
    }  # fmt: skip
    assert clean(staging, receipts[2:]).freed > 0
    assert files(staging) == set()


@pytest.mark.parametrize("name", ["notes.txt", "stage-1-" + "a" * 64 + "\n"])
def test_a_receipt_that_names_a_file_of_somebody_else_as_its_result_takes_nothing_along(
    staging: Staging, staged: Staged, name: str
) -> None:
    receipts = staged(1)
    precious = staging.results / name
    precious.parent.mkdir(parents=True, exist_ok=True)
    precious.write_bytes(b"not ours")
    written = staging.folder / receipt_name(receipts[0])
    written.write_text(json.dumps(json.loads(written.read_text()) | {"result": name}))
    clean(staging, receipts)
    assert precious.read_bytes() == b"not ours" and (staging.folder / receipts[0].file).exists()


# What else is staged: stale files, only copies, strangers

STALE_TOO = YES.model_copy(update={"remove_stale": True})
EARLIER = "e" * 40  # the commit that held the stale shards first


def remove_stale(
    staging: Staging, hub: ListedAt, approval: Approval = STALE_TOO, seen: Leftovers | None = None
) -> CleanupResult:
    """What a gate about nothing but leftovers comes to."""
    found = find_leftovers(staging, [], hub)
    shown = gate([], (seen or found).stale)
    return execute(plan_cleanup(staging, shown, approval, report([]), found), hub)


def test_a_shard_that_was_never_on_the_hub_is_an_only_copy_and_stays_whatever_the_form_says(
    staging: Staging, staged: Staged
) -> None:
    """Staged and never sent, its source gone since."""
    receipts = staged(2)
    found = find_leftovers(staging, receipts[:1], head(receipts[:1]))
    assert [(copy.file, copy.size, copy.why) for copy in found.only_copies] == [
        (receipts[1].file, receipts[1].size, UNPROVED)
    ]
    assert found.stale == ()
    # not even where a gate of an older version, or somebody's edit of it, offered it as stale
    offered = [
        StagedFile(file=name, size=(staging.folder / name).stat().st_size, kind="stale",
                identity=identity((staging.folder / name).stat()), sha256=receipts[1].sha256,
                shard_size=receipts[1].size)
        for name in (receipts[1].file, receipt_name(receipts[1]))
    ]  # fmt: skip
    plan = plan_cleanup(staging, gate(receipts[:1], tuple(offered)), STALE_TOO, report(receipts[:1]), found)
    assert [(kept.file, kept.why) for kept in plan.kept] == [(receipts[1].file, f"it is the only copy: {UNPROVED}")]
    execute(plan, head(receipts[:1]))
    assert files(staging) == {receipts[1].file, receipt_name(receipts[1])}
    result = execute(CleanupPlan(folder=staging.folder, files=tuple(offered[:1])), head(receipts))
    assert [kept.why for kept in result.refused] == [UNPROVED]
    assert files(staging) == {receipts[1].file, receipt_name(receipts[1])}


@pytest.mark.parametrize("where", ["at the head", "in the history"])
def test_a_stale_shard_goes_where_the_hub_has_its_bytes_and_only_if_the_form_says_so(
    staging: Staging, staged: Staged, where: str
) -> None:
    receipts = staged(2)
    staging.remember(receipts, EARLIER)
    newer = {path: replace(file, sha256="0" * 64) for path, file in on_hub(receipts).items()}
    hub = head(receipts) if where == "at the head" else History({"": newer, EARLIER: on_hub(receipts)})
    found = find_leftovers(staging, [], hub)
    assert {one.file for one in found.stale} == files(staging) and not found.only_copies
    assert {one.commit for one in found.stale if one.is_shard} == {"" if where == "at the head" else EARLIER}
    assert not remove_stale(staging, hub, YES).removed
    assert not remove_stale(staging, hub, seen=Leftovers()).removed  # not shown
    assert len(files(staging)) == 4
    hub.asked.clear()
    assert not remove_stale(staging, hub).refused
    assert files(staging) == set()
    assert (tuple(sorted(on_hub(receipts))), "" if where == "at the head" else EARLIER) in hub.asked


@pytest.mark.parametrize("change", [{"size": 1}, {"sha256": "0" * 64}, {"sha256": None}, None])
def test_a_commit_that_a_receipt_names_proves_nothing_where_the_hub_has_other_bytes_there(
    staging: Staging, staged: Staged, change: dict[str, object] | None
) -> None:
    receipts = staged(1)
    staging.remember(receipts, EARLIER)
    there = {path: replace(file, **change) for path, file in on_hub(receipts).items()} if change else {}  # type: ignore[arg-type]
    found = find_leftovers(staging, [], History({EARLIER: there}))
    assert not found.stale and [copy.why for copy in found.only_copies] == [UNPROVED]


def test_the_proof_is_asked_for_again_right_before_a_stale_shard_goes(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    staging.remember(receipts, EARLIER)
    hub = History({EARLIER: on_hub(receipts)})
    found = find_leftovers(staging, [], hub)
    plan = plan_cleanup(staging, gate([], found.stale), STALE_TOO, report([]), found)
    result = execute(plan, History({"": on_hub([])}))
    assert result.refused[0].why == f"the Hub does not hold {receipts[0].path} at commit {EARLIER[:12]}"
    assert result.refused[1].why == "its shard stays" and len(files(staging)) == 2


def test_a_stale_shard_that_was_overwritten_is_an_only_copy(staging: Staging, staged: Staged) -> None:
    receipts = staged(3)
    for receipt in receipts[:2]:
        file = staging.folder / receipt.file
        overwrite(file, other_bytes(file.read_bytes()))
    found = find_leftovers(staging, receipts[2:], head(receipts))
    why = "its bytes are not those of its receipt"
    assert [(copy.file, copy.why) for copy in found.only_copies] == [(receipt.file, why) for receipt in receipts[:2]]
    assert not found.stale


def test_only_copies_are_listed_by_their_names(staging: Staging, staged: Staged) -> None:
    receipts = staged(3)
    file = staging.folder / receipts[1].file
    overwrite(file, other_bytes(file.read_bytes()))
    found = find_leftovers(staging, [], head([]))
    assert [copy.file for copy in found.only_copies] == [receipt.file for receipt in receipts]


def test_what_was_an_only_copy_and_is_shown_and_verified_since_goes_and_is_not_said_to_be_kept(
    staging: Staging, staged: Staged
) -> None:
    receipts = staged(1)
    found = find_leftovers(staging, [], head([]))
    assert [copy.file for copy in found.only_copies] == [receipts[0].file]
    plan = plan_cleanup(staging, gate(receipts), YES, report(receipts), found)
    assert receipts[0].file in {one.file for one in plan.files} and plan.kept == ()


def test_a_stale_shard_that_was_overwritten_at_the_gate_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    seen = find_leftovers(staging, [], head(receipts))
    plan = plan_cleanup(staging, gate([], seen.stale), STALE_TOO, report([]), seen)
    file = staging.folder / receipts[0].file
    overwrite(file, other_bytes(file.read_bytes()))
    assert [kept.why for kept in execute(plan, head(receipts)).refused] == [
        "its bytes are not those of its receipt", "its shard stays"
    ]  # fmt: skip
    assert len(files(staging)) == 2


def test_a_stale_shard_is_looked_up_where_its_receipt_says_and_without_one_where_its_name_belongs(
    staging: Staging, staged: Staged
) -> None:
    first, second = staged(2)
    moved = first.model_copy(update={"path": "data/elsewhere/x.parquet"})
    (staging.folder / receipt_name(first)).write_text(moved.model_dump_json())
    (staging.folder / receipt_name(second)).unlink()
    dotted = staging.shards / "sub-1" / "sub-1.5_ses-1.0123456789ab.parquet"
    dotted.parent.mkdir()
    dotted.write_bytes((staging.folder / second.file).read_bytes())
    there = ListedFile("data/sub-1/sub-1.5_ses-1.parquet", second.size, second.sha256)
    hub = History({"": {**on_hub([moved, second]), there.path: there}})
    found = find_leftovers(staging, [], hub)
    assert sorted(one.path or "" for one in found.stale if one.is_shard) == sorted(
        [moved.path, second.path, there.path]
    )
    assert [commit for _, commit in hub.asked] == [""]  # there is nothing to ask any other commit for
    assert not remove_stale(staging, hub).refused and files(staging) == set()


def test_a_stale_shard_that_is_as_it_was_staged_is_never_read_and_another_once_a_time(
    staging: Staging, staged: Staged, hashed: list[None]
) -> None:
    receipts = staged(2)
    os.utime(staging.folder / receipts[1].file, ns=(1, 1))
    hub = head(receipts)
    found = find_leftovers(staging, [], hub)
    assert len(hashed) == 1
    execute(plan_cleanup(staging, gate([], found.stale), STALE_TOO, report([]), found), hub)
    assert len(hashed) == 1 and files(staging) == set()


@pytest.mark.parametrize("receipt", ["missing", "damaged"])
@pytest.mark.parametrize("known", ["as planned", "in a hashed folder", "nowhere"])
def test_a_shard_without_a_readable_receipt_is_hashed_and_looked_up_at_the_head(
    staging: Staging, staged: Staged, receipt: str, known: str
) -> None:
    receipts = staged(1)
    written = staging.folder / receipt_name(receipts[0])
    written.unlink()
    if receipt == "damaged":
        written.write_bytes(b"{")
    hashed = {other_path(path): replace(file, path=other_path(path)) for path, file in on_hub(receipts).items()}
    at_head = {"as planned": on_hub(receipts), "in a hashed folder": hashed, "nowhere": {}}[known]
    hub = History({"": at_head, EARLIER: on_hub(receipts)})
    there = files(staging)
    found = find_leftovers(staging, [], hub)
    assert {one.file for one in found.stale} == (set() if known == "nowhere" else there)
    assert {one.path for one in found.stale if one.is_shard} == at_head.keys()
    assert {commit for _, commit in hub.asked} == {""}
    only_copies = [receipts[0].file] if known == "nowhere" else []
    assert [copy.file for copy in found.only_copies] == only_copies
    plan = plan_cleanup(staging, gate([], found.stale), STALE_TOO, report([]), found)
    assert [(kept.file, kept.why) for kept in plan.kept] == [
        (file, f"it is the only copy: {UNPROVED}") for file in only_copies
    ]
    assert not remove_stale(staging, hub).refused
    assert files(staging) == (there if known == "nowhere" else set())


def test_a_shard_that_cannot_be_read_is_an_only_copy(
    staging: Staging, staged: Staged, monkeypatch: pytest.MonkeyPatch
) -> None:
    receipts = staged(1)
    (staging.folder / receipt_name(receipts[0])).unlink()

    def broken(stream: BinaryIO, name: str) -> object:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr("hashlib.file_digest", broken)
    (copy,) = find_leftovers(staging, [], head(receipts)).only_copies
    assert copy.why == "it cannot be read: Input/output error" and copy.size == receipts[0].size


def test_copies_of_nothing_go_if_the_form_says_so_and_what_others_need_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(3)  # the last one is an only copy
    folder = (staging.folder / receipts[0].file).parent
    half = folder / "sub-old_ses-1.0123456789ab.parquet.part"
    lone = folder / "sub-old_ses-2.0123456789ab.receipt.json"
    result = staging.results / f"stage-1-{'b' * 64}"
    needed = staging.folder / result_name(receipts[2])
    foreign = [folder / "thesis.docx", folder / "mine.parquet", staging.results / "notes", staging.folder / "x.part",
               folder / "sub-1.0123456789ab.parquet\n", folder / "sub-1.0123456789AB.parquet"]  # fmt: skip
    staging.results.mkdir()
    for file in (half, lone, result, needed, *foreign):
        file.write_bytes(b"some bytes")
    found = find_leftovers(staging, receipts[:2], head(receipts[:2]))
    ours = {file.relative_to(staging.folder).as_posix() for file in (half, lone, result)}
    assert {one.file for one in found.stale} == ours and {one.size for one in found.stale} == {10}
    assert set(found.strangers) == {file.relative_to(staging.folder).as_posix() for file in foreign}
    for approval, kept in ((YES, True), (STALE_TOO, False)):
        plan = plan_cleanup(staging, gate(receipts[:2], found.stale), approval, report(receipts[:2]), found)
        execute(plan, head(receipts[:2]))
        assert [half.exists(), lone.exists(), result.exists()] == [kept] * 3
    assert files(staging) == {
        *(file.relative_to(staging.folder).as_posix() for file in (*foreign, needed)),
        receipts[2].file,
        receipt_name(receipts[2]),
    }


def test_a_leftover_that_is_another_file_than_the_gate_has_shown_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    half = (staging.folder / receipts[0].file).with_suffix(".parquet.part")
    half.write_bytes(b"half")
    seen = find_leftovers(staging, receipts, head(receipts))
    overwrite(half, b"more")
    now = find_leftovers(staging, receipts, head(receipts))
    plan = plan_cleanup(staging, gate([], seen.stale), STALE_TOO, report([]), now)
    assert plan.files == () and half.read_bytes() == b"more"


@pytest.mark.parametrize("other", [{"shard_size": 1}, {"sha256": "0" * 64}])
def test_a_stale_shard_that_has_other_bytes_than_the_gate_has_shown_stays(
    staging: Staging, staged: Staged, other: dict[str, object]
) -> None:
    receipts = staged(1)
    now = find_leftovers(staging, [], head(receipts))
    shown = tuple(one.model_copy(update=other) if one.is_shard else one for one in now.stale)
    plan = plan_cleanup(staging, gate([], shown), STALE_TOO, report([]), now)
    assert plan.files == ()  # nor its receipt
    assert [kept.file for kept in plan.kept] == [receipts[0].file]


def test_a_half_written_file_that_is_none_is_a_stranger_and_not_stale(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    half = (staging.folder / receipts[0].file).with_suffix(".parquet.part")
    os.mkfifo(half)
    found = find_leftovers(staging, receipts, head(receipts))
    assert not found.stale
    assert found.strangers == {half.relative_to(staging.folder).as_posix(): "it is a FIFO"}


def test_a_result_that_a_stale_shard_shares_with_one_that_stays_is_kept(
    staging: Staging, shards: tuple[ShardSpec, ...], bids: Path
) -> None:
    receipts = [stage(spec, bids, staging, result="stage-1-" + "a" * 64) for spec in shards[:3]]
    result = staging.results / receipts[0].result
    result.parent.mkdir()
    result.write_bytes(b"three receipts")
    assert not remove_stale(staging, head(receipts[:2])).refused
    assert files(staging) == {result_name(receipts[2]), receipts[2].file, receipt_name(receipts[2])}
    hub = head(receipts)
    found = find_leftovers(staging, [], hub)
    plan = plan_cleanup(staging, gate([], found.stale), STALE_TOO, report([]), found)
    refused = execute(plan, History({})).refused  # the Hub has lost the shard meanwhile
    assert len(refused) == 3 and result.exists()


def test_a_stale_result_that_a_shard_staged_since_has_come_to_need_stays(
    staging: Staging, shards: tuple[ShardSpec, ...], bids: Path
) -> None:
    result = staging.results / ("stage-1-" + "a" * 64)
    result.parent.mkdir(parents=True)
    result.write_bytes(b"a receipt")
    found = find_leftovers(staging, [], head([]))
    assert [one.file for one in found.stale] == [f"results/{result.name}"]
    stage(shards[0], bids, staging, result=result.name)
    plan = plan_cleanup(staging, gate([], found.stale), STALE_TOO, report([]), found)
    assert plan.files == () and not execute(plan, head([])).removed and result.exists()


def test_a_stale_shard_stays_while_what_the_hub_has_for_it_fails_verification(staging: Staging, staged: Staged) -> None:
    receipts = staged(2)
    failure = FailedShard(path=receipts[0].path, what="other bytes came back", cause=Cause.OTHER_BYTES,
                          since=datetime.now(UTC), commit=EARLIER)  # fmt: skip
    write_failed(staging, {failure.path: failure})
    found = find_leftovers(staging, [], head(receipts))
    assert [(copy.file, copy.why) for copy in found.only_copies] == [(receipts[0].file, DOUBTED)]
    assert not remove_stale(staging, head(receipts)).refused
    assert files(staging) == {receipts[0].file, receipt_name(receipts[0]), "failed.json"}


def test_a_name_with_the_form_of_a_shard_that_is_not_utf8_is_a_stranger(staging: Staging, staged: Staged) -> None:
    receipts = staged(1)
    odd = staging.shards / "sub-1" / os.fsdecode(b"caf\xe9.0123456789ab.parquet")
    odd.parent.mkdir()
    odd.write_bytes(b"mine")
    found = find_leftovers(staging, receipts, head(receipts))
    assert found.strangers == {"shards/sub-1/caf?.0123456789ab.parquet": "its name is not UTF-8"}
    clean(staging, receipts)
    assert odd.exists()


def test_an_empty_folder_of_somebody_else_stays(staging: Staging, staged: Staged) -> None:
    receipts = staged(2)
    own = staging.folder / "my-notes"
    beside = staging.shards / "sub-mine"
    for folder in (own, beside):
        folder.mkdir()
    clean(staging, receipts)
    assert own.is_dir() and beside.is_dir() and sorted(staging.folder.iterdir()) == [own, staging.shards]


class AnotherHub(Hub):
    """A Hub of which only what is listed at its commits is known; its head is `EARLIER`."""

    def head(self, as_spelled: bool = False, at_least: str | None = None) -> str:
        return EARLIER

    def listed(self, paths: Sequence[str], commit: str) -> dict[str, ListedFile]:
        if commit not in (EARLIER, "f" * 40):
            raise RepoMissing(f"no commit {commit}")
        return {path: ListedFile(path, 1, commit) for path in paths}


def test_a_commit_that_is_gone_from_the_history_holds_nothing_and_a_repo_that_is_gone_is_an_error() -> None:
    hub = AnotherHub(Target("http://hub", "lab/x"), "token")
    listed_at = asking(hub)
    assert listed_at(["a"], "") == {"a": ListedFile("a", 1, EARLIER)}
    assert listed_at(["a"], "f" * 40) == {"a": ListedFile("a", 1, "f" * 40)}
    assert listed_at(["a"], "0" * 40) == {}

    class Gone(AnotherHub):
        def head(self, as_spelled: bool = False, at_least: str | None = None) -> str:
            return "0" * 40

    with pytest.raises(RepoMissing):
        asking(Gone(hub.target, "token"))(["a"], "")


def test_the_history_of_a_real_hub_proves_a_shard_and_a_commit_that_is_none_proves_nothing(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(1)
    file = staging.folder / receipts[0].file
    add = CommitOperationAdd(receipts[0].path, file)
    had = hub.commit([add], "Publish", hub.head())
    hub.commit([CommitOperationDelete(receipts[0].path)], "Withdraw", had)
    assert find_leftovers(staging, [], asking(hub)).only_copies  # nobody remembers where it was
    staging.remember(receipts, had)
    assert not find_leftovers(staging, [], asking(hub)).only_copies
    written = staging.folder / receipt_name(receipts[0])
    written.write_text(written.read_text().replace(had, "0" * 40))
    assert find_leftovers(staging, [], asking(hub)).only_copies
    staging.folder.joinpath(receipt_name(receipts[0])).write_text(written.read_text().replace("0" * 40, had))
    assert not remove_stale(staging, asking(hub)).refused
    assert files(staging) == set()
