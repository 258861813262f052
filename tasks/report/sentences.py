"""What people see of a run: the evidence at the gate, the artifacts, the sentence in the run's state.

The texts are Markdown, as the Prefect UI renders it. The evidence above the form is a few lines and one low picture,
since a longer one would be cropped or would hide the form's fields. The artifact has all of it. Nothing here decides
anything.
"""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from types import MappingProxyType

from tasks.bids.not_fetched import absent
from tasks.bids.pictures import strip
from tasks.disk.files import TEMPORARY_SUFFIX
from tasks.hub.client import Hub
from tasks.record.kept_removals import Keeping
from tasks.record.published import Drift, Work
from tasks.record.removals import Removals
from tasks.record.still_named import subjects_of
from tasks.report.evidence import (
    Approval,
    CleanupPlan,
    CleanupResult,
    Evidence,
    Gate,
    Leftovers,
    RemovalPlan,
    Shown,
    StagedFile,
    VerificationReport,
)
from tasks.values.errors import PushError
from tasks.values.format import number, size
from tasks.values.kinds import DATA, counted, is_data, noun
from tasks.values.left_out import LeftOut, by_folder, by_kind, by_reason, images_by_folder
from tasks.values.models import LAYOUT_VERSION, Dataset, PublicationRecord, Receipt, ShardSpec, Slice
from tasks.values.our_paths import LEFT_OUT
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


def cell(text: str) -> str:
    """Return a text so that it cannot break a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("`", "'")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], whole: bool = False) -> str:
    """Return a Markdown table. Unless it has to be whole, it is cut at `LISTED` rows, with a line that says so."""
    shown = len(rows) if whole else LISTED
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell(text) for text in row)} |" for row in rows[:shown]]
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
    staged = f"copies of {number(len(receipts), 'shard')}, {size(sum(receipt.size for receipt in receipts))}"
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
        still: the part of it that is withdrawn now; None if the sentence before has named just that.
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
    return f"{number(len(stale), 'stale file')}, {size(sum(file.size for file in stale))}"


def drifted(drift: Sequence[Drift]) -> str:
    """Return a sentence about what somebody else has changed in the repo; empty if nobody has."""
    if not drift:
        return ""
    first = "; ".join(f"{one.path}: {one.what}" for one in drift[:NAMED])
    more = f"; and {len(drift) - NAMED:,} more" if len(drift) > NAMED else ""
    return f"Changed on the Hub by somebody else: {first}{more}."


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
    listed = f"{number(len(report.checks), 'shard')}, {size(report.size)}, match the listing"
    if not report.read_back:
        return listed
    read = f"{listed}; {report.read_back:,} of them read back byte for byte ({size(report.bytes_read_back)})"
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


def gate_form(
    hub: Hub,
    report: VerificationReport,
    receipts: Sequence[Receipt],
    gate: Gate,
    where: Where,
    gone: Sequence[Shown],
    artifact: str,
) -> tuple[str, str]:
    """Return the Markdown above the form: a short paragraph for each question, and one low picture.

    The older UI crops anything higher.
    """
    more = f" {number(gate.waiting, 'shard')} more wait for this room: {NEXT_WAVE}" if gate.waiting else ""
    two = bool(gate.removals and (receipts or gate.stale))
    questions = [_delete(hub, report, receipts, gate, where)] if receipts else []
    questions += [_remove_stale(hub, gate.stale, where)] if gate.stale and not receipts else []
    questions += [_remove(hub, report, gate.removals)] if gate.removals else []
    if two:
        questions = [_both(hub, report, receipts, gate, where)]
    changed = f"Changed on the Hub by somebody else: {number(gate.drift, 'file')}. " if gate.drift else ""
    lost = f"**{cell(gone_already(gone, len(gate.shown)))}** " if gone else ""
    closes = "" if two else f" Closes {moment(where.expires)}."  # the run's message says it too
    end = f"{changed}{artifact}.{closes}{more}"
    text = f"{lost}{' '.join(questions)} {end}\n"
    # above two decisions it would be cropped; beside removals alone people would think that it shows what is removed
    picture = strip(report.slices) if receipts and not two else ""
    return text, f"\n![slices of images that the Hub sent back]({picture})\n" if picture else ""


def _delete(hub: Hub, report: VerificationReport, receipts: Sequence[Receipt], gate: Gate, where: Where) -> str:
    """Return the question about the staged files, which are copies of what the Hub holds."""
    freed = size(sum(receipt.size for receipt in receipts))
    stale = f" Beside them: {stale_files(gate.stale)}." if gate.stale else ""
    paths = {receipt.path for receipt in receipts}
    return (
        f"Delete the copies on {cell(where.machine)}, **{freed}** ({number(len(receipts), 'shard')}, "
        f"{_inside(receipts)}), of **[{hub.target}]({hub.url()})**? The Hub keeps them: "
        f"{_checked(hub, report, paths)}.{stale}"
    )


def _inside(receipts: Sequence[Receipt]) -> str:
    """Return how many images, files of recordings and other files these shards hold."""
    return counted(image.path for receipt in receipts for image in receipt.images)


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


def _remove(hub: Hub, report: VerificationReport, removals: Removals) -> str:
    """Return the question about removals. What they are stands beside the form's field."""
    checked = _checked(hub, report, {*removals.shards, *removals.rows})
    verified_at = f" Verified {checked}." if checked else ""
    return (
        f"Remove **{_counted(removals)}**, no longer in the dataset, from **[{hub.target}]({hub.url()})**? They leave "
        f"its head; its history keeps them.{verified_at}"
    )


def _both(hub: Hub, report: VerificationReport, receipts: Sequence[Receipt], gate: Gate, where: Where) -> str:
    """Return both questions, each with what was verified for it, in three lines.

    The older UI crops a longer text above two decisions; the evidence has all.
    """
    shards = {receipt.path for receipt in receipts}
    staged = stale_files(gate.stale)
    if receipts:
        freed = size(sum(receipt.size for receipt in receipts))
        staged = f"{freed}, {number(len(shards), 'shard')}, {_read_back(report, shards):,} read back"
    removals = {*gate.removals.shards, *gate.removals.rows}
    read = f", {_read_back(report, removals):,} read back" if removals else ""
    commit = f"[{report.commit[:12]}]({hub.commit_url(report.commit)})"
    return (
        f"**Staged copies** on {cell(where.machine)}: {staged}. **On the Hub**, no longer in the dataset: "
        f"{_counted(gate.removals)}{read}, of **[{hub.target}]({hub.url()})** at {commit}."
    )


def asked_about(gate: Gate) -> str:
    """Return what a gate asks to be removed, in one line with the texts that still name the subjects."""
    names = first([path.removeprefix("bids/") for path in gate.named])
    return f"{gate.removals.sentence()}{f', still named in {names}' if names else ''}"


def no_longer_asked(gate: Gate) -> str:
    """Return what a run says that takes over a gate about removals, and does not ask about them itself."""
    return (
        f"{gate.flow_run_name} waited for a decision about removals on the Hub ({gate.removals.sentence()}). This run "
        "has taken its gate over and asks about staged files alone. The removals stay on the Hub: the next push with "
        "removed=ask asks about them again."
    )


def _counted(removals: Removals) -> str:
    """Return the numbers of removals in a few words: `1 shard, 2 texts`."""
    counts = [
        number(len(removals.shards), "shard") if removals.shards else "",
        counted(removals.inside) if removals.rows else "",
        number(len(removals.texts), "text") if removals.texts else "",
    ]
    return ", ".join(filter(None, counts))


def evidence(
    hub: Hub, report: VerificationReport, evidence: Evidence, leftovers: Leftovers, where: Where | None = None
) -> str:
    """Return the whole evidence, as a Markdown artifact: a part for each question, and then what belongs to both."""
    parts = [
        f"# Evidence for {hub.target}",
        f"Repo: [{hub.target.repo_id}]({hub.url()}), revision `{hub.target.revision}`, commit "
        f"[{report.commit}]({hub.commit_url(report.commit)})",
        f"Verified ({report.level}): {how_verified(report)}." if report.checks else f"{verified(report)} {UNVERIFIED}",
    ]
    if where:
        parts.append(
            f"The gate closes {moment(where.expires)}; where it asks again, it waits as long anew. Nothing is deleted "
            "when it closes."
        )
    parts += _staged(evidence, leftovers, where)
    parts += _sent_back(report, evidence)
    parts += _removals(evidence.removals, evidence.asked, report, evidence.named)
    if evidence.drift:
        parts += [
            "## Changed on the Hub by somebody else",
            table(["file", "what"], [[d.path, d.what] for d in evidence.drift]),
        ]
    if evidence.checked.lifted or evidence.checked.statement.strip:
        parts += ["## Stated by the operator", _statement(evidence.checked)]
    parts += _left_out(evidence.left_out)
    return "\n\n".join(parts) + "\n"


def _staged(evidence: Evidence, leftovers: Leftovers, where: Where | None) -> list[str]:
    """Describe what is in the staging folder: what the decision on the staged files is about, and what stays."""
    parts: list[str] = []
    if receipts := evidence.receipts:
        parts.append(
            f"Staged here, and removed from this machine if you decide `delete`: "
            f"{number(len(receipts), 'shard')}, {size(sum(receipt.size for receipt in receipts))}, with "
            f"{_inside(receipts)}. These are copies: the Hub keeps what "
            "it has."
        )
    if evidence.waiting:
        shards = number(evidence.waiting, "shard")
        parts.append(f"Not published yet: {shards}. They wait for the room that these take: {NEXT_WAVE}")
    parts += _leftovers(leftovers)
    if where:
        folder = f"The folder is `{cell(str(where.folder))}` on the machine {where.machine}."
        parts = [folder, *(parts or ["Nothing is staged there."])]
    return ["## Staged copies", *parts] if parts else []


def _sent_back(report: VerificationReport, evidence: Evidence) -> list[str]:
    """Show what the Hub sent back of everything that stays there, whatever is decided."""
    slices = [shown for shown in report.slices if shown.path not in evidence.asked.images]
    read = [check for check in report.checks if check.how == "read back" and check.path not in evidence.asked.published]
    parts = ["## As the Hub sends it back", *_pictures(slices)] if slices else []
    if read:
        rows = [[check.path, size(check.size), f"{check.rows}", check.sha256[:16]] for check in read]
        what = "images" if all(check.images == check.rows for check in read) else "files"
        parts += ["## Read back, byte for byte", table(["shard", "size", what, "sha256"], rows)]
    return parts


def _pictures(slices: Sequence[Slice]) -> list[str]:
    """Show slices of images, and say of which."""
    if not slices:
        return []
    shown = "\n".join(f"- {cell(one.suffix)}: `{cell(one.path)}`" for one in slices)
    return [f"![mid-slices]({strip(slices)})", f"Axial mid-slices, decoded:\n\n{shown}"]


def _leftovers(leftovers: Leftovers) -> list[str]:
    """Describe what else is in the staging folder."""
    parts: list[str] = []
    if leftovers.only_copies:
        parts += [
            "### Only copies",
            "The Hub is not proved to have these. They stay, whatever you decide. What is still in the dataset is sent "
            "by the next run of push-bids; look at the others before you remove them by hand.",
            table(["file", "size", "why"], [[copy.file, size(copy.size), copy.why] for copy in leftovers.only_copies]),
        ]
    if leftovers.stale:
        rows = [[file.file, size(file.size), _what_is_stale(file)] for file in leftovers.stale]
        parts += [
            "### Stale files in the staging folder",
            "Leftovers of older or broken runs. They go only if the form says so.",
            table(["file", "size", "what"], rows),
        ]
    if leftovers.strangers:
        parts += [
            "### Not of bids-push",
            "These are in the staging folder, and are neither opened nor removed.",
            table(["name", "why"], [[name, why] for name, why in leftovers.strangers.items()]),
        ]
    return parts


def _what_is_stale(file: StagedFile) -> str:
    if file.file.endswith(TEMPORARY_SUFFIX):
        return f"{'an empty' if not file.size else 'an unfinished'} file that a run left when it broke off"
    if not file.is_shard:
        return "a copy of nothing"
    return f"on the Hub, {f'in its history at {file.commit[:12]}' if file.commit else 'at the head'}"


def _removals(
    removals: Removals,
    asked: Removals,
    report: VerificationReport | None = None,
    named: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> list[str]:
    """Describe what is on the Hub and no longer in the dataset, how it was verified, and what it means to remove it.

    Args:
        removals: all of it.
        asked: the part that the gate asks about.
        report: the verification.
        named: paths of texts that stay published -> the subjects that they still name.
    """
    if not removals:
        return []
    what = (
        "If you decide `remove`, they leave the head of the repo in one commit; its history keeps them, for everybody "
        "who may read the repo. What is in the dataset again by then stays. If you decide `keep`, nobody is asked "
        'about these again, until a run is started with `removed="ask again"`, and each run\'s state goes on naming '
        "them."
        if asked
        else "They stay: a run of a deployment with `removed=ask` asks a person about them."
    )
    parts = ["## On the Hub, no longer in the dataset", what]
    parts += [f"**{cell(still_named_in(named))}**"] if named else []
    parts += _named(asked or removals, report)
    parts += _pictures([shown for shown in report.slices if shown.path in asked.images]) if report else []
    rest = removals.without(asked) if asked else Removals()
    if rest:
        parts += ["### Not asked about, since somebody decided to keep it", *_named(rest, report)]
    return parts


def _named(removals: Removals, report: VerificationReport | None) -> list[str]:
    """Return the tables of removals."""
    parts: list[str] = []
    published = removals.published
    how = {check.path: check.how for check in report.checks} if report else {}
    if removals.shards:
        rows = [
            [path, size(published[path].size), f"{len(of)}", *([how.get(path, "not in this run")] if report else [])]
            for path, of in removals.shards.items()
        ]
        inside = noun(path for of in removals.shards.values() for path in of)
        parts.append(table(["shard", "size", f"{inside}s", *(["verified by"] if report else [])], rows))
    if removals.rows:
        rows = [[image, path, size(published[path].size)] for path, of in removals.rows.items() for image in of]
        one = noun(removals.inside)
        held = f"{one.capitalize()}s of shards that are held back"
        parts.append(f"{held}: their published version stays unless you decide `remove`.")
        parts.append(table([one, "shard", "size of the shard"], rows))
    if removals.texts:
        parts.append(table(["text or table", "size"], [[path, size(published[path].size)] for path in removals.texts]))
    return parts


def removed(hub: Hub, plan: RemovalPlan, note: str, before: str, after: str) -> str:
    """Describe what was removed from the Hub, and what stayed and why, as a Markdown artifact."""
    parts = [
        f"# Removed from {hub.target}",
        gone_from_the_hub(plan),
        f"The last commit that has it: [{before[:12]}]({hub.commit_url(before)}). The head: "
        f"[{after[:12]}]({hub.commit_url(after)}).",
    ]
    if note:
        parts.append(f"Note: {cell(note)}")
    if plan.paths:
        parts.append(table(["file"], [[path] for path in plan.paths]))
    if plan.rows:
        rows = [[one, path] for path, of in plan.rows.items() for one in of]
        parts.append(table([noun(plan.inside), "shard"], rows))
    if plan.kept:
        parts += ["## Approved, and not removed", table(["file", "why"], [[kept.file, kept.why] for kept in plan.kept])]
    return "\n\n".join(parts) + "\n"


def what_was_removed(plan: RemovalPlan) -> str:
    """Return in a phrase what was removed: `2 shards, 1 image of 1 shard, 1 text and 1 picture`."""
    counts = [
        number(len(plan.shards), "shard") if plan.shards else "",
        f"{counted(plan.inside)} of {number(len(plan.rows), 'shard')}" if plan.rows else "",
        number(len(plan.texts), "text") if plan.texts else "",
        number(len(plan.pictures), "picture") if plan.pictures else "",
    ]
    return ", ".join(filter(None, counts)) or "nothing"


def whose(shards: Iterable[str]) -> str:
    """Return in a phrase whose these shards are: `of 2 subjects (sub-02, sub-05)`; empty if there are none.

    Args:
        shards: paths in the repo.
    """
    names = subjects_of(shards)
    what = "subject" if all(name.startswith("sub-") for name in names) else "folder"  # of a template, or a group
    return f"of {number(len(names), what)} ({first(names)})" if names else ""


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
        lines += [f"    {_where(finding)}. To allow it: {finding.entry}" for finding in of_rule[:LISTED_IN_A_STATE]]
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


def _where(finding: Finding, code: bool = False) -> str:
    """Return a field, how many files have it, and the first of them. With `code`, names are set as Markdown code."""
    field, files = finding.field or "images", finding.files if code else finding.files[:IN_A_STATE]
    named = ", ".join(f"`{cell(file)}`" for file in files) if code else ", ".join(files)
    more = ", ..." if finding.count > len(files) else ""
    return f"{f'`{cell(field)}`' if code else field} in {number(finding.count, 'file')}: {named}{more}"


def findings(checked: Checked) -> str:
    """Return everything that was found, as a Markdown artifact."""
    return f"# Before publication\n\n{_found(checked)}\n"


def _found(checked: Checked) -> str:
    """Return what was found, by what it means for the push and by rule.

    These are lists, because the UI cuts off the long cells of a table.
    """
    parts = [_statement(checked)]
    for head, found in (
        ("Stops the push", checked.stops),
        ("Allowed, although it would stop the push", checked.lifted),
        ("To be looked at", checked.warnings),
    ):
        parts += [f"## {head}"] if found else []
        for name in dict.fromkeys(finding.rule for finding in found):
            rule, of_rule = RULES[name], [finding for finding in found if finding.rule == name]
            lines = [_listed(checked, finding) for finding in of_rule[:LISTED]]
            if len(of_rule) > LISTED:
                lines.append(f"- ... and {len(of_rule) - LISTED:,} more fields")
            parts += [f"**{name}**: {rule.what}. {cell(rule.mend)} Source: {rule.source}.", "\n".join(lines)]
    parts[1:1] = [cell(sentence) for sentence in (*checked.unstripped, *([idle(checked)] if checked.idle else []))]
    return "\n\n".join(parts if checked.findings else [*parts, "Nothing was found."])


def _listed(checked: Checked, finding: Finding) -> str:
    """Return a line for a finding; with the entry that lifts it if it stops the push."""
    entry = f". To allow it: `{cell(finding.entry)}`" if finding in checked.stops else ""
    return f"- {_where(finding, code=True)}{entry}"


def _statement(checked: Checked) -> str:
    statement = checked.statement
    lines = [f"Faces: {statement.defacing}."]
    if checked.lifted:
        lines.append(f"Allowed: {', '.join(f'`{cell(one.entry)}`' for one in checked.lifted)}.")
    if statement.strip:
        lines.append(f"Stripped from what is published: {', '.join(f'`{cell(name)}`' for name in statement.strip)}.")
    return " ".join(lines)


def dry_run(
    hub: Hub,
    dataset: Dataset,
    shards: Sequence[ShardSpec],
    work: Work,
    record: PublicationRecord,
    checked: Checked,
    stops: Sequence[PushError] = (),
    texts: Collection[str] = (),
    other: str = "",
) -> str:
    """Describe what a run would do, as a Markdown artifact.

    Args:
        hub: the target.
        dataset: the dataset.
        shards: its plan.
        work: what is left to do.
        record: what is published.
        checked: what the check before publication found.
        stops: the errors that would end the run before it stages.
        texts: the texts and tables that the repo does not hold as they are now.
        other: a sentence that says that this looks like another dataset, if it does.
    """
    rows_there: Counter[str] = Counter(image.suffix for image in dataset.images)
    rows: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    rows_there[BESIDE] = len(dataset.files)
    for image in (image for shard in work.missing for image in shard.rows):
        what = image.suffix if image.kind in DATA else BESIDE
        rows[what] += 1
        sizes[what] += image.size
    by_suffix = [
        [suffix, f"{rows[suffix]:,}", size(sizes[suffix]), f"{count:,}"]
        for suffix, count in rows_there.most_common()
        if count
    ]
    verdict = "**The push would stop**, see below. " if checked.stops or stops else ""
    parts = [
        f"# Dry run: {dataset.name} to {hub.target}",
        f"{verdict}Nothing was staged or sent.",
        "## What would be pushed",
        f"{number(len(work.missing), 'shard')} of {len(shards):,}, {size(sum(s.size for s in work.missing))}, with "
        f"{number(sum(rows.values()), 'row')}. On the Hub already: {len(work.done):,}. Staged already, to send: "
        f"{len(work.send):,}. To embed and send: {len(work.stage):,}.",
        table(["suffix", "rows to push", "size", "in the dataset"], by_suffix),
        *_not_here(dataset),
        "## What changed since the last time",
        *(cell(line.strip()) for one in stops for line in str(one).splitlines()),
        cell(other),
        cell(written_anew(record, work)),
        _changed(work, record, texts),
        f"Texts and tables: {some_of(sorted(texts), 'file')}." if texts else "",
    ]
    parts = list(filter(None, parts))
    if work.drift:
        parts += ["## Changed on the Hub", table(["file", "what"], [[d.path, d.what] for d in work.drift])]
    parts += _removals(work.removals, Removals())
    parts += _not_published(dataset.unpublished)
    if to_know := (*dataset.told, *dataset.notes):
        parts += ["## To know about the dataset", "\n".join(f"- {cell(sentence)}" for sentence in to_know)]
    return "\n\n".join([*parts, "# Before publication", _found(checked)]) + "\n"


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
            f"Layout {LAYOUT_VERSION}: what is published has layout {record.layout}, so every shard is written anew "
            f"once ({number(len(known), 'shard')}); {not_sent}"
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


def _not_here(dataset: Dataset) -> list[str]:
    """Describe the files whose content is not on this machine."""
    not_here = absent(dataset.rows, Path(dataset.root))
    if not_here is None:
        return []
    one = "an image" if not_here.noun == "image" else "a file"
    return ["## Not on this machine", f"{not_here} The shard of {one} that is not here fails; the others go on."]


def _changed(work: Work, record: PublicationRecord, texts: Collection[str]) -> str:
    """Describe the shards that are new or differ from the record, with the files that came, went, or may differ."""
    if not record.shards:
        return "Nothing is published yet: all of it is new."
    rows = []
    files: set[str] = set()
    for shard in work.missing:
        line = record.shards.get(shard.path)
        before = {image.path for image in line.images} if line else set()
        now = {image.path for image in shard.rows}
        files |= now | before
        what = "new" if line is None else "changed"
        rows.append([shard.name, what, f"{len(now - before):,}", f"{len(before - now):,}"])
    if not rows and texts:
        return "No shard."
    if not rows and not work.removals:
        return "Nothing."
    gone = f" No longer in the dataset: {cell(work.removals.sentence())}." if work.removals else ""
    new = sum(row[1] == "new" for row in rows)
    head = f"{number(new, 'new shard')}, {len(rows) - new:,} changed.{gone}"
    one = noun(files)
    return "\n\n".join([head, table(["shard", "what", f"{one}s added", f"{one}s gone"], rows)] if rows else [head])


def _left_out(left_out: Mapping[str, int]) -> list[str]:
    """Describe the files of the dataset that are not published, counted by kind, in the order that is given."""
    rows = [[kind, f"{count:,}"] for kind, count in left_out.items()]
    return ["## Left out", table(["kind", "files"], rows)] if rows else []


def _not_published(unpublished: Sequence[LeftOut]) -> list[str]:
    """Describe the files of the dataset that are not published: the images by folder, all of them, then the rest.

    Of the rest, the folders in which most is left out come first.
    """
    if not unpublished:
        return []
    images = images_by_folder(unpublished)
    parts = ["## Left out"]
    if images:
        rows = [[reason, folder, f"{count:,}"] for (reason, folder), count in images.items()]
        parts += [f"{number(sum(images.values()), 'image')}:", table(["reason", "folder", "images"], rows, whole=True)]
    rest = [one for one in unpublished if one.what != "image"]
    sums = [
        [reason, f"{of.recording:,}", f"{of.other:,}", size(of.size) if of.size else ""]
        for reason, of in by_reason(rest).items()
    ]
    if sums:
        head = ["reason", "recordings", "other files", "size"]
        parts += [f"{number(sum(one.files for one in rest), 'other file')}:", table(head, sums, whole=True)]
        folders = sorted(by_folder(rest).items(), key=lambda of: -of[1])
        parts += [table(["reason", "folder", "files"], [[*where, f"{count:,}"] for where, count in folders])]
        parts += [table(["kind", "files"], [[kind, f"{count:,}"] for kind, count in by_kind(rest).items()])]
    return [*parts, f"Each with its size and the reason: `bids/{LEFT_OUT}` in the repo, once it is published."]


def cleanup(plan: CleanupPlan, result: CleanupResult, note: str, gone: str = "") -> str:
    """Describe what was freed, and what stayed and why, as a Markdown artifact.

    Args:
        plan: the plan of the cleanup.
        result: what it did.
        note: the person's note; empty if there is none.
        gone: a sentence about what was gone before; empty if nothing was.
    """
    counts = Counter(staged.kind for staged in result.removed)
    parts = [
        f"# Freed {size(result.freed)}",
        ", ".join(number(count, f"{kind} file") for kind, count in sorted(counts.items())) + f" of `{plan.folder}`.",
    ]
    if gone:
        parts.append(cell(gone))
    if note:
        parts.append(f"Note: {cell(note)}")
    stayed = [[kept.file, kept.why] for kept in (*plan.kept, *result.refused)]
    if stayed:
        parts += ["## Not removed", table(["file", "why"], stayed)]
    return "\n\n".join(parts) + "\n"
