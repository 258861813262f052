"""What people read of a run: the sentences in its state and its log, and what all texts for people are made of.

Nothing here decides anything. Longer texts are in `gate_text`, `artifacts` and `dry_run`, beside it.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tasks.record.kept_removals import Keeping
from tasks.record.published import Drift, Work
from tasks.record.removals import Removals
from tasks.record.still_named import subjects_of
from tasks.report.evidence import (
    Approval,
    Gate,
    Leftovers,
    RemovalPlan,
    Shown,
    StagedFile,
    VerificationReport,
)
from tasks.values.format import in_units, number
from tasks.values.kinds import counted, is_data
from tasks.values.models import LAYOUT_VERSION, PublicationRecord, Receipt
from tasks.values.preflight_rules import RULES, Checked, Finding

LISTED_IN_A_STATE = 5  # fields of a rule in a run's message; the artifact has all
IN_A_STATE = 2  # files of a field in a run's message
NEXT_WAVE = "start push-bids again once they are gone, or leave it to the nightly."
NAMED = 3  # shards, subjects or files in a sentence
LONGEST_NOTE = 120  # characters of a person's note in a sentence
ASK_AGAIN = 'To be asked about that again, start push-bids/manual with removed="ask again".'
BESIDE = "sidecars, tables and others"  # in a table of suffixes
LISTED = 50  # rows of a list in an artifact; a longer one says how many more there are


def first(names: Sequence[str]) -> str:
    """Return the first of some names, and how many more there are: `a, b, c and 2 more`."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{', '.join(names[:NAMED])}{more}"


#: What Markdown would take for a mark in a name: `sub-*/ses-*/`, `__pycache__`, `<file>`.
_MARKS = re.compile(r"[*<\[]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])")


def cell(text: str) -> str:
    """Return a text so that it cannot break a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("`", "'")


def _plain_cell(text: str) -> str:
    return _MARKS.sub(r"\\\g<0>", cell(text))


def table(head: Sequence[str], rows: Sequence[Sequence[str]], whole: bool = False) -> str:
    """Return a Markdown table. Unless it has to be whole, it is cut at `LISTED` rows, with a line that says so."""
    shown = len(rows) if whole else LISTED
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(map(_plain_cell, row))} |" for row in rows[:shown]]
    if len(rows) > shown:
        lines.append(f"\n... and {len(rows) - shown:,} more")
    return "\n".join(lines)


def moment(when: datetime) -> str:
    """Return a time for people, by this machine's clock and with its zone: `2026-12-24 18:05 UTC+01:00`."""
    local = when.astimezone()
    return f"{local:%Y-%m-%d %H:%M} {timezone(local.utcoffset() or timedelta())}"


@dataclass(frozen=True)
class Where:
    """What a person at the gate has to know besides the evidence: which files it is about, and how long there is."""

    folder: Path
    """The target's staging folder."""
    machine: str
    expires: datetime
    """The time when this question is closed. If it is asked again, the wait begins anew."""

    @property
    def files(self) -> str:
        """The folder, and the machine that it is on."""
        return f"{self.folder} on {self.machine}"


def waiting(target: str, receipts: Sequence[Receipt], where: Where, stale: Sequence[StagedFile] = ()) -> str:
    """Return the message of a run at its gate: what to do, and in a second line what it is about."""
    press = (
        f"Waits for a person: press Resume on this page, by {moment(where.expires)} (in the newer UI, Resume is in "
        "the menu at the top right)."
    )
    if not (receipts or stale):
        return f"{press}\n{target}: nothing is staged in {where.files}; removals are to be decided."
    staged = f"copies of {number(len(receipts), 'shard')}, {in_units(sum(receipt.size for receipt in receipts))}"
    sure = "The Hub lists all of it as it was sent"
    if not receipts:
        staged, sure = stale_files(stale), "The Hub is proved to have each shard among them"
    return (
        f"{press}\n{target}: {staged}, staged in {where.files}. {sure}; nothing is deleted unless somebody decides so."
    )


def kept_by(keeping: Keeping, still: Removals | None) -> str:
    """Return a sentence about a decision to keep removals on the Hub: what is kept by it, when and where it was made.

    Args:
        keeping: the decision.
        still: the part of it that is withdrawn now; None if the sentence before this one has just named it.
    """
    what = f": {still.sentence()}." if still else "."
    note = " ".join(keeping.note.split())
    note = note if len(note) <= LONGEST_NOTE else f"{note[:LONGEST_NOTE].rstrip()}..."
    if keeping.at is None:
        return f"Kept there, as somebody decided at a gate (when and at which was not noted then){what}"
    who = f'with the note "{note}"' if note else "with no note of who decided"
    return f"Kept there, as decided on {moment(keeping.at)} at the gate of {keeping.flow_run_name}, {who}{what}"


def still_named_in(named: Mapping[str, Sequence[str]]) -> str:
    """Return a sentence about texts that stay published and still name subjects whose shards are withdrawn.

    Args:
        named: path of a text in the repo -> the subjects that it names.
    """
    if not named:
        return ""
    files = [f"{path.removeprefix('bids/')} ({first(subjects)})" for path, subjects in named.items()]
    return (
        f"Still named in {number(len(files), 'text')} that {'stays' if len(files) == 1 else 'stay'} published: "
        f"{first(files)}. Take that out of the dataset too; the next run publishes it so."
    )


def stale_files(stale: Sequence[StagedFile]) -> str:
    """Say how many stale files there are, and their size."""
    return f"{number(len(stale), 'stale file')}, {in_units(sum(file.size for file in stale))}"


def drifted(drift: Sequence[Drift]) -> str:
    """Return a sentence about the files that somebody else has changed in the repo; empty if nobody has.

    Of a file in which several things were changed, as of a record with many lines, it names the first.
    """
    files: dict[str, list[str]] = {}
    for one in drift:
        files.setdefault(one.path, []).append(one.what)
    if not files:
        return ""
    named = [f"{path}: {what[0]}{', and more there' if what[1:] else ''}" for path, what in [*files.items()][:NAMED]]
    more = [f"and {number(len(files) - NAMED, 'more file')}"] if len(files) > NAMED else []
    return f"Changed on the Hub by somebody else: {'; '.join([*named, *more])}."


def some_of(names: Sequence[str], noun: str) -> str:
    """Return how many there are and the first of them: `4 files (a, b, c and 1 more)`."""
    more = f" and {len(names) - NAMED:,} more" if len(names) > NAMED else ""
    return f"{number(len(names), noun)} ({', '.join(names[:NAMED])}{more})"


def nothing_staged(leftovers: Leftovers, folder: str) -> str:
    """Return the sentence with which a run ends that has nothing to ask about. `folder` is where it looked."""
    only = leftovers.only_copies
    nothing = f"Nothing is staged in {folder} that could go; no gate was opened."
    if not only:
        return nothing
    stays, them = ("stays", "it") if len(only) == 1 else ("stay", "them")
    return (
        f"{nothing} {number(len(only), 'staged shard')} {stays}, since the Hub is not proved to have {them}: the first "
        f"is {only[0].file} ({only[0].why})."
    )


def decided(approval: Approval) -> str:
    """Return a decision in a few words, for the log: `staged files: delete; removals: keep`."""
    parts = [f"staged files: {approval.decision.value}"] if approval.decision else []
    parts += [f"removals: {approval.removals.value}"] if approval.removals else []
    return "; ".join(parts)


def changed_copies(files: Sequence[str], folder: Path) -> str:
    """Return a sentence about staged files that are no copies any more; empty if there are none.

    Args:
        files: the files, in the staging folder.
        folder: the staging folder.
    """
    if not files:
        return ""
    are, stay, them = ("is", "stays", "it") if len(files) == 1 else ("are", "stay", "them")
    return (
        f"{number(len(files), 'staged file')} in {folder} {are} not what was staged, and {stay}: {first(files)}. "
        f"bids-push deletes no such file. Look at {them}, and delete {them} yourself."
    )


def gone_already(gone: Sequence[Shown], shown: int) -> str:
    """Return a sentence about the shards that the gate showed and that are no longer there as it showed them."""
    named = first([entry.path.rsplit("/")[-1] for entry in gone])
    were = "was" if len(gone) == 1 else "were"
    return f"{len(gone):,} of {number(shown, 'shown shard')} {were} gone or changed already: {named}."


def how_verified(report: VerificationReport) -> str:
    """Say in one phrase what was checked and how."""
    listed = f"{number(len(report.checks), 'shard')}, {in_units(report.size)}, match the listing"
    if not report.read_back:
        return listed
    read = f"{listed}; {report.read_back:,} of them read back byte for byte ({in_units(report.bytes_read_back)})"
    if not report.images_decoded:  # only images are decoded; all other files are compared
        return read
    return f"{read} and {number(report.images_decoded, 'image')} in them decoded"


def verified(report: VerificationReport, mended: Sequence[str] = ()) -> str:
    """Return the sentence in a run's state about what it has verified.

    Args:
        report: the verification.
        mended: paths of shards that had failed and are right again, or are gone.
    """
    said = f"Verified ({report.level}) at commit {report.commit[:12]}: {how_verified(report)}."
    if not report.checks:
        said = f"Nothing was verified at commit {report.commit[:12]}: no shard is staged here as the repo has it now."
    if not mended:
        return said
    return f"{said} Failed before, and right again or gone: {first([Path(path).stem for path in mended])}."


#: What it means for the answers at a gate that nothing was verified.
UNVERIFIED = (
    "So no answer deletes one as a copy of the head; leftovers go only if the Hub is proved to have them, and a "
    "removal is verified after it."
)


def no_longer_asked(gate: Gate) -> str:
    """Return the sentence of a run that takes over a gate about removals and does not ask about them itself."""
    return (
        f"{gate.flow_run_name} waited for a decision about removals on the Hub ({gate.removals.sentence()}). This run "
        "has taken its gate over and asks about staged files alone. The removals stay on the Hub: the next push with "
        "removed=ask asks about them again."
    )


def what_was_removed(plan: RemovalPlan) -> str:
    """Return in a phrase what was removed: `2 shards, 1 image of 1 shard, 1 text and 1 picture`."""
    counts = [
        number(len(plan.shards), "shard") if plan.shards else "",
        f"{counted(plan.inside)} of {number(len(plan.rows), 'shard')}" if plan.rows else "",
        number(len(plan.texts), "text") if plan.texts else "",
        number(len(plan.pictures), "picture") if plan.pictures else "",
    ]
    return ", ".join(filter(None, counts)) or "nothing"


def whose(shards: Collection[str]) -> str:
    """Return in a phrase whose these shards are: `of 2 subjects (sub-02, sub-05)`; empty if there are none.

    Args:
        shards: paths in the repo.
    """
    names = subjects_of(shards)
    return f"{of_how_many(shards)} ({first(names)})" if names else ""


def of_how_many(shards: Collection[str]) -> str:
    """Return in a phrase how many subjects these shards belong to, without names: `of 2 subjects`; empty if to none."""
    names = subjects_of(shards)
    what = "subject" if all(name.startswith("sub-") for name in names) else "folder"  # of a template, or a group
    return f"of {number(len(names), what)}" if names else ""


def gone_from_the_hub(plan: RemovalPlan) -> str:
    """Return the sentence about what was removed, and whose it was."""
    of = whose((*plan.shards, *plan.rows))
    return f"Removed from the Hub, as approved: {what_was_removed(plan)}{f', {of}' if of else ''}."


def after_a_removal(
    plan: RemovalPlan, named: Mapping[str, Sequence[str]], staged: Sequence[Receipt], where: str
) -> list[str]:
    """Return what is left to do after a removal, a sentence each.

    Args:
        plan: what was removed.
        named: path of a text that stays published -> the withdrawn subjects that it names.
        staged: what is still staged.
        where: the staging folder, and its machine.
    """
    subjects = {*subjects_of(plan.shards)}
    mine = {path: [one for one in names if one in subjects] for path, names in named.items()}
    copies = [receipt for receipt in staged if receipt.path in plan.shards or receipt.path in plan.rows]
    return [
        f"Still staged in {where}: copies of {number(len(copies), 'shard')} that held some of it or hold the rest. "
        "Run cleanup-staging/cleanup, whose gate lets them go (with remove_stale), before the history is cleared."
        if copies
        else "",
        still_named_in({path: names for path, names in mine.items() if names}),
        "The repo's history still has it, for everybody who may read the repo. To have it gone for good, the owner "
        "deletes these LFS files and squashes the history by hand (docs/publishing.md, Withdraw a participant): "
        "bids-push never does, and a local Hub cannot.",
    ]


def stopped(checked: Checked) -> str:
    """Return the message with which a run ends that must not publish, with the ways to go on."""
    stops = checked.stops
    lines = []
    for rule in dict.fromkeys(finding.rule for finding in stops):
        lines.append(f"  {rule}: {RULES[rule].what}. {RULES[rule].mend}")
        of_rule = [finding for finding in stops if finding.rule == rule]
        lines += [
            f"    {where_found(finding)}. To allow it: {finding.entry}" for finding in of_rule[:LISTED_IN_A_STATE]
        ]
        if len(of_rule) > LISTED_IN_A_STATE:
            lines.append(f"    and {len(of_rule) - LISTED_IN_A_STATE} more fields")
    names = sorted({finding.rule for finding in stops})
    return (
        f"Nothing was staged or sent: {number(len(names), 'rule')} stop{'s' if len(names) == 1 else ''} this push.\n"
        + "\n".join(lines)
        + "\nThere may be more in files that a push reads only after these: a dry run (dry_run) shows all at once."
        + "\nTo publish it all the same, give allow the entry that stands behind a field, or a whole rule "
        f"({', '.join(names)}): the card then says so." + (f"\n{idle(checked)}" if checked.idle else "")
    )


def idle(checked: Checked) -> str:
    """Return what a person should know about the entries of `allow` that lift nothing."""
    return (
        f"allow: {', '.join(checked.idle)} lift{'s' if len(checked.idle) == 1 else ''} nothing. Nothing of that name "
        "was found, so take it out, or correct it: fields are spelt as they stand in the dataset."
    )


def where_found(finding: Finding) -> str:
    """Return a field, how many files have it, and the first of them."""
    files = finding.files[:IN_A_STATE]
    more = ", ..." if finding.count > len(files) else ""
    return f"{finding.field or 'images'} in {number(finding.count, 'file')}: {', '.join(files)}{more}"


def not_stripped(fields: Sequence[str], work: Work) -> str:
    """Return a sentence about shards that stay as they were published, and that `strip` does not reach; or empty.

    Args:
        fields: the fields that are stripped.
        work: what is left to do.
    """
    paths = sorted({*(spec.path for spec in work.held_back), *work.removals.shards})
    if not (fields and paths):
        return ""
    named = f"{', '.join(Path(path).stem for path in paths[:NAMED])}{', ...' if len(paths) > NAMED else ''}"
    return (
        f"strip does not reach {number(len(paths), 'shard')} that must stay as published until somebody decides about "
        f"what is no longer in the dataset ({named}): a stripped field may still be in there. To decide, run "
        "push-bids/manual with removed=ask."
    )


def written_anew(record: PublicationRecord, work: Work) -> str:
    """Return a sentence about the shards that are written anew because bids-push is newer; empty if there are none.

    Args:
        record: what was published.
        work: what is left to do.
    """
    known = [(spec, record.shards[spec.path]) for spec in work.missing if spec.path in record.shards]
    not_sent = "the images' bytes are on the Hub already, and where it stores by Xet they are not sent again."
    if record.layout < LAYOUT_VERSION and known:
        return (
            f"What is published was made by an older bids-push, in layout {record.layout}; this version writes layout "
            f"{LAYOUT_VERSION}. So every shard is written anew once ({number(len(known), 'shard')}); {not_sent}"
        )
    if any(not is_data(file.path) for line in record.shards.values() for file in line.images):
        return ""
    with_files = sum(bool(spec.files) for spec, _ in known)
    if not with_files:
        return ""
    return (
        "Sidecars and tables are published as files now, and what is published was made by a version before 0.8. So "
        f"the shards that have some are written anew once ({number(with_files, 'shard')}); {not_sent}"
    )


def contents(receipts: Sequence[Receipt]) -> str:
    """Return how many images, files of recordings and other files these shards hold."""
    return counted(image.path for receipt in receipts for image in receipt.images)
