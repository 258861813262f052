"""What a person decided about staged files, carried out: what goes, what stays, and what the gate asks about then."""

from collections.abc import Callable
from hashlib import sha256

from huggingface_hub import CommitOperationAdd

from flows.carry_out import clean_up_staged
from flows.target import HeldTarget
from tasks.approve import read_gate, write_gate
from tasks.disk.staging import receipt_name
from tasks.report.evidence import Approval, Choice, Fate, Gate, ShardCheck, VerificationReport, shown_as
from tasks.values.models import Receipt

Held = Callable[..., None]


def staged(held: HeldTarget, name: str) -> Receipt:
    """A shard in the staging folder, with its receipt."""
    data = f"PAR1 of {name}".encode()
    receipt = Receipt(
        path=f"data/{name}/{name}.parquet",
        digest="d" * 64,
        sha256=sha256(data).hexdigest(),
        size=len(data),
        rows=1,
        images=(),
        name=name,
        file=f"shards/{name}/{name}.{'d' * 12}.parquet",
    )
    file = held.staging.folder / receipt.file
    file.parent.mkdir(parents=True)
    file.write_bytes(data)
    (held.staging.folder / receipt_name(receipt)).write_text(receipt.model_dump_json())
    return receipt


def verified(held: HeldTarget, receipts: list[Receipt]) -> VerificationReport:
    """Both shards are on the Hub, and were found there."""
    held.hub.prepare(private=True)
    files = [CommitOperationAdd(one.path, (held.staging.folder / one.file).read_bytes()) for one in receipts]
    held.hub.preupload(files)
    commit = held.hub.commit(files, "Two shards", held.hub.head())
    checks = (ShardCheck(path=one.path, size=one.size, sha256=one.sha256, rows=1, how="listing") for one in receipts)
    target = held.hub.target
    return VerificationReport(
        repo_id=target.repo_id, revision=target.revision, commit=commit, level="listing", checks=tuple(checks)
    )


def gate_of(held: HeldTarget, receipts: list[Receipt], commit: str) -> Gate:
    shown = tuple(map(shown_as, receipts))
    gate = Gate(flow_run_id=held.run.id, flow_run_name=held.run.name, opened_at_commit=commit, shown=shown)
    write_gate(held.staging, gate)
    return gate


def shown(held: HeldTarget) -> list[str]:
    """The paths of the shards that the gate asks about now."""
    gate = read_gate(held.staging)
    assert gate is not None
    return [one.path for one in gate.shown]


def test_what_was_let_go_is_removed_and_the_gate_asks_nothing_more(while_held: Held) -> None:
    def look(held: HeldTarget) -> None:
        receipts = [staged(held, "sub-1"), staged(held, "sub-2")]
        report = verified(held, receipts)
        gate = gate_of(held, receipts, report.commit)
        approval = Approval(flow_run_id=held.run.id, decision=Choice.DELETE)
        state = clean_up_staged(held, gate, report, receipts, approval)
        assert (state.type.value, state.name) == ("COMPLETED", "CleanedUp")
        assert f"the Hub lists all of it at {report.commit[:12]}." in (state.message or "")
        assert held.staging.receipts() == [] and shown(held) == []

    while_held(look)


def test_what_could_not_be_removed_is_named_and_a_retry_asks_about_it_alone(while_held: Held) -> None:
    def look(held: HeldTarget) -> None:
        receipts = [staged(held, "sub-1"), staged(held, "sub-2")]
        report = verified(held, receipts)
        gate = gate_of(held, receipts, report.commit)
        file = held.staging.folder / receipts[1].file
        file.write_bytes(b"x" * receipts[1].size)  # of the same size, so only the last look before the unlink sees it
        approval = Approval(flow_run_id=held.run.id, decision=Choice.DELETE)
        state = clean_up_staged(held, gate, report, receipts, approval)
        assert (state.type.value, state.name) == ("FAILED", "CleanupRefused")
        message = state.message or ""
        assert f"not removed, the first being {receipts[1].file}: its bytes are not those of its receipt" in message
        assert "To be asked about what else is staged, Retry the run." in message
        assert file.exists() and shown(held) == [receipts[1].path]

    while_held(look)


def test_where_a_removal_is_still_to_be_done_the_gate_asks_about_no_file_any_more(while_held: Held) -> None:
    def look(held: HeldTarget) -> None:
        receipts = [staged(held, "sub-1")]
        report = verified(held, receipts)
        gate = gate_of(held, receipts, report.commit)
        (held.staging.folder / receipts[0].file).write_bytes(b"x" * receipts[0].size)
        approval = Approval(flow_run_id=held.run.id, decision=Choice.DELETE, removals=Fate.REMOVE)
        state = clean_up_staged(held, gate, report, receipts, approval)
        assert state.name == "CleanupRefused" and "run cleanup-staging/cleanup." in (state.message or "")
        assert shown(held) == []

    while_held(look)
