"""A gate: what it shows to a person, and what it asks them."""

import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from prefect.artifacts import create_markdown_artifact

from flows.target import HeldTarget
from tasks.approve import Question, ask, write_gate
from tasks.disk.staging import Staging
from tasks.report import artifacts, sentences
from tasks.report.evidence import Approval, Evidence, Gate, Leftovers, VerificationReport, not_as_shown, shown_as
from tasks.report.gate_text import GateText, gate_text
from tasks.report.lineage import artifact_key
from tasks.runs.this_run import ui_link
from tasks.values.models import Receipt
from tasks.values.settings import Settings


def open_gate(
    held: HeldTarget, evidence: Evidence, report: VerificationReport, leftovers: Leftovers, where: sentences.Where
) -> Gate:
    """Write down what the gate shows, and show all of it as an artifact."""
    hub, staging, run = held.hub, held.staging, held.run
    artifact = show_evidence(held, evidence, report, leftovers, where)
    gate = Gate(
        flow_run_id=run.id,
        flow_run_name=run.name,
        target=str(hub.target),
        opened_at_commit=report.commit,
        expires=where.expires,
        shown=tuple(shown_as(receipt) for receipt in evidence.receipts),
        stale=leftovers.stale,
        waiting=evidence.waiting,
        removals=evidence.asked,
        named=evidence.named if evidence.asked else {},
        here={path: why for path, why in evidence.here.items() if path in evidence.asked.files},
        drift=len({one.path for one in evidence.drift}),
        artifact=artifact,
    )
    write_gate(staging, gate)
    return gate


def where_and_until(staging: Staging) -> sentences.Where:
    """Return this machine's staging folder, and when a question that is asked now is closed."""
    expires = datetime.now(UTC) + timedelta(days=Settings().gate_days)
    return sentences.Where(staging.folder, socket.gethostname(), expires)


def show_evidence(
    held: HeldTarget, evidence: Evidence, report: VerificationReport, leftovers: Leftovers, where: sentences.Where
) -> str:
    """Show all that a gate is about as an artifact, and return its id."""
    artifact = create_markdown_artifact(
        artifacts.evidence(held.hub, report, evidence, leftovers, where),
        key=artifact_key("evidence", held.hub.target),
        description=f"Evidence for the cleanup of {held.hub.target}",
    )
    return str(artifact)


def asked(
    held: HeldTarget, gate: Gate, report: VerificationReport, receipts: Sequence[Receipt], where: sentences.Where
) -> Approval:
    """Ask what a gate shows, and return what the person decided.

    The process ends while the run waits, and a new one comes back here.
    """
    hub, run = held.hub, held.run
    artifact = ui_link("All of the evidence", f"artifacts/artifact/{gate.artifact}")
    gone = not_as_shown(held.staging, gate)
    text = gate_text(hub, report, receipts, gate, where, gone, artifact)
    waits = held.status.message(sentences.waiting(str(hub.target), receipts, where, gate.stale), gate, here=True)
    question = question_of(gate, text, waits, where)
    return ask(hub.target.repo_id, run, question, held.lease.require)


def question_of(gate: Gate, text: GateText, waits: str, where: sentences.Where) -> Question:
    """Return what a person is asked at a gate.

    What the gate showed decides it: an answer that was given before a copy changed is an answer still.
    """
    return Question(
        evidence=text.above,
        picture=text.picture,
        files=where.files if gate.shown or gate.stale else "",
        waits=waits,
        expires=where.expires,
        removals=text.removals,
        stale=bool(gate.stale),
        copies=bool(gate.shown),
    )
