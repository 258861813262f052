"""What stands at a gate: the text above the fields of its form (`tasks.approve`), and beside the one about removals.

The text is Markdown, as the Prefect UI renders it: a few lines and one low picture, since a longer one would be cropped
or would hide the form's fields. The artifact with the evidence (`tasks.report.artifacts`) has all of it.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from tasks.bids.pictures import side_by_side
from tasks.hub.client import Hub
from tasks.record.removals import Removals
from tasks.record.still_here import gone_or_left_out, in_words
from tasks.report.evidence import (
    Gate,
    Shown,
    StagedFile,
    VerificationReport,
)
from tasks.report.sentences import NEXT_WAVE, Where, cell, contents, first, gone_already, moment, stale_files
from tasks.values.format import in_units, number
from tasks.values.kinds import counted
from tasks.values.models import Receipt


@dataclass(frozen=True)
class GateText:
    """All that a gate's form says of what there is to decide, as Markdown."""

    above: str
    """A short paragraph above the fields of the form."""
    picture: str
    """One low picture below it, or nothing."""
    removals: str
    """What is to leave the Hub, in one line beside its field. Empty if that is not to be decided."""


def gate_text(
    hub: Hub,
    report: VerificationReport,
    receipts: Sequence[Receipt],
    gate: Gate,
    where: Where,
    gone: Sequence[Shown],
    artifact: str,
) -> GateText:
    """Return what stands in a gate's form. The older UI crops anything higher than this.

    Args:
        hub: the target.
        report: how it was verified.
        receipts: the staged shards that the gate showed and that are still there.
        gate: what the gate showed.
        where: this machine's staging folder, and until when there is time.
        gone: what the gate showed and is not there any more.
        artifact: a link to all of the evidence.
    """
    two = bool(gate.removals and (receipts or gate.stale))
    lost = f"**{cell(gone_already(gone, len(gate.shown)))}** " if gone else ""
    changed = f"Changed on the Hub by somebody else: {number(gate.drift, 'file')}. " if gate.drift else ""
    closes = "" if two else f" Closes {moment(where.expires)}."  # the run's message says it too
    more = f" {number(gate.waiting, 'shard')} more wait for this room: {NEXT_WAVE}" if gate.waiting else ""
    question = _question(hub, report, receipts, gate, where)
    # above two decisions it would be cropped; beside removals alone people would think that it shows what is removed
    picture = side_by_side(report.slices) if receipts and not two else ""
    return GateText(
        above=f"{lost}{question} {changed}{artifact}.{closes}{more}\n",
        picture=f"\n![slices of images that the Hub sent back]({picture})\n" if picture else "",
        removals=_to_remove(gate),
    )


def _question(hub: Hub, report: VerificationReport, receipts: Sequence[Receipt], gate: Gate, where: Where) -> str:
    """Return what is asked, about the staged files, about removals, or about both."""
    if gate.removals:
        left = gone_or_left_out(gate.removals.files, gate.here)
        staged = receipts or gate.stale
        return _both(hub, report, receipts, gate, where, left) if staged else _remove(hub, report, gate.removals, left)
    if receipts:
        return _delete(hub, report, receipts, gate, where)
    return _remove_stale(hub, gate.stale, where) if gate.stale else ""


def _delete(hub: Hub, report: VerificationReport, receipts: Sequence[Receipt], gate: Gate, where: Where) -> str:
    """Return the question about the staged files, which are copies of what the Hub holds."""
    freed = in_units(sum(receipt.size for receipt in receipts))
    stale = f" Beside them: {stale_files(gate.stale)}." if gate.stale else ""
    paths = {receipt.path for receipt in receipts}
    return (
        f"Delete the copies on {cell(where.machine)}, **{freed}** ({number(len(receipts), 'shard')}, "
        f"{contents(receipts)}), of **[{hub.target}]({hub.url()})**? The Hub keeps them: "
        f"{_checked(hub, report, paths)}.{stale}"
    )


def _checked(hub: Hub, report: VerificationReport, paths: Collection[str]) -> str:
    """Say in a few words how many of these shards were verified, how, and at which commit. Empty if none was."""
    commit = f"[{report.commit[:12]}]({hub.commit_url(report.commit)})"
    checks = [check for check in report.checks if check.path in paths]
    read = f"{_read_back(report, paths):,} read back"
    return f"at {commit}, {len(checks):,} of {len(paths):,} match the listing, {read}" if checks else ""


def _read_back(report: VerificationReport, paths: Collection[str]) -> int:
    """Return how many of these shards were read back."""
    return sum(check.how == "read back" for check in report.checks if check.path in paths)


def _remove_stale(hub: Hub, stale: Sequence[StagedFile], where: Where) -> str:
    """Return the question about stale files, for a gate at which nothing else is staged."""
    return (
        f"Remove **{stale_files(stale)}** of **[{hub.target}]({hub.url()})**, staged on {cell(where.machine)} by older "
        "or broken runs? The Hub is proved to have each shard among them. To remove them, decide *delete* and tick "
        "*Remove stale files too*."
    )


def _remove(hub: Hub, report: VerificationReport, removals: Removals, left: str) -> str:
    """Return the question about removals that left the dataset so. What they are stands beside the form's field."""
    checked = _checked(hub, report, {*removals.shards, *removals.rows})
    verified_at = f" Verified {checked}." if checked else ""
    return (
        f"Remove **{_counted(removals)}**, {left}, from **[{hub.target}]({hub.url()})**? They leave its head; its "
        f"history keeps them.{verified_at}"
    )


def _both(
    hub: Hub, report: VerificationReport, receipts: Sequence[Receipt], gate: Gate, where: Where, left: str
) -> str:
    """Return both questions, each with what was verified for it, in three lines.

    The older UI crops a longer text above two decisions; the evidence has all.
    """
    shards = {receipt.path for receipt in receipts}
    staged = stale_files(gate.stale)
    if receipts:
        freed = in_units(sum(receipt.size for receipt in receipts))
        staged = f"{freed}, {number(len(shards), 'shard')}, {_read_back(report, shards):,} read back"
    removals = {*gate.removals.shards, *gate.removals.rows}
    read = f", {_read_back(report, removals):,} read back" if removals else ""
    commit = f"[{report.commit[:12]}]({hub.commit_url(report.commit)})"
    return (
        f"**Staged copies** on {cell(where.machine)}: {staged}. **On the Hub**, {left}: "
        f"{_counted(gate.removals)}{read}, of **[{hub.target}]({hub.url()})** at {commit}."
    )


def _to_remove(gate: Gate) -> str:
    """Return what a gate asks to be removed, with the texts that still name the subjects. Empty if it asks for none."""
    names = first([path.removeprefix("bids/") for path in gate.named])
    here = f" ({in_words(gate.here)})" if gate.here else ""
    return f"{gate.removals.sentence()}{f', still named in {names}' if names else ''}{here}"


def _counted(removals: Removals) -> str:
    """Return the numbers of removals in a few words: `1 shard, 2 texts`."""
    counts = [
        number(len(removals.shards), "shard") if removals.shards else "",
        counted(removals.inside) if removals.rows else "",
        number(len(removals.texts), "text") if removals.texts else "",
    ]
    return ", ".join(filter(None, counts))
