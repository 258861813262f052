"""What people see of a run: the evidence at the gate, the artifacts, the sentence in the run's state.

Markdown, as the Prefect UI renders it. The evidence above the form is a few lines and one low picture, since more
would be cropped or hide the form's fields; all of it is in the artifact. Nothing here decides anything.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path

from tasks.evidence import CleanupPlan, CleanupResult, Evidence, Gate, Leftovers, Removal, Shown, VerificationReport
from tasks.findings import RULES, Checked, Finding
from tasks.hub import Hub
from tasks.models import Dataset, PublicationRecord, Receipt, ShardSpec
from tasks.pictures import strip
from tasks.resume import Work

LISTED_IN_A_STATE = 5  # fields of a rule in a run's message; the artifact has all
IN_A_STATE = 2  # files of a field in it
NEXT_WAVE = "start push-bids again once they are gone, or leave it to the nightly."
NAMED = 3  # shards in a sentence
LISTED = 50  # rows of a list in an artifact; a longer one says how many more there are


def size(count: int) -> str:
    """Bytes for people, in decimal units as the Hub shows them."""
    amount = float(count)
    for unit in ("bytes", "kB", "MB", "GB"):
        if amount < 1000:
            return f"{amount:.0f} {unit}" if unit in ("bytes", "kB") else f"{amount:.1f} {unit}"
        amount /= 1000
    return f"{amount:.2f} TB"


def number(count: int, noun: str) -> str:
    """A count with its noun: `1 shard`, `902 shards`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def cell(text: str) -> str:
    """Text that cannot break a Markdown table."""
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ").replace("`", "'")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, cut at `LISTED` rows with a line that says so."""
    lines = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    lines += [f"| {' | '.join(cell(text) for text in row)} |" for row in rows[:LISTED]]
    if len(rows) > LISTED:
        lines.append(f"\n... and {len(rows) - LISTED:,} more")
    return "\n".join(lines)


def moment(when: datetime) -> str:
    """A time for people, as this machine's clock shows it, with its zone: `2026-12-24 18:05 UTC+01:00`."""
    local = when.astimezone()
    return f"{local:%Y-%m-%d %H:%M} {timezone(local.utcoffset() or timedelta())}"


@dataclass(frozen=True)
class Where:
    """What a person at the gate has to know beside the evidence: which files it is about, and how long there is."""

    folder: Path
    """The target's staging folder."""
    machine: str
    expires: datetime
    """When this question is closed. One that is asked again waits as long anew."""

    @property
    def files(self) -> str:
        """The folder, and whose."""
        return f"{self.folder} on {self.machine}"


def waiting(target: str, receipts: Sequence[Receipt], where: Where, stale: Sequence[Removal] = ()) -> str:
    """What the state of a run at its gate says: what to do, and in a second line, what about."""
    staged = f"{number(len(receipts), 'shard')}, {size(sum(receipt.size for receipt in receipts))}"
    sure = "All of it is on the Hub and verified"
    if not receipts:
        staged, sure = stale_files(stale), "The Hub is proved to have each shard among them"
    return (
        f"Waits for a person: press Resume on this page, by {moment(where.expires)} (in the newer UI, Resume is in "
        "the menu at the top right).\n"
        f"{target}: {staged}, staged in {where.files}. {sure}; "
        "nothing is deleted unless somebody decides so."
    )


def stale_files(stale: Sequence[Removal]) -> str:
    """Stale files in a few words."""
    return f"{number(len(stale), 'stale file')}, {size(sum(file.size for file in stale))}"


def nothing_staged(leftovers: Leftovers) -> str:
    """The sentence in which a run ends that has nothing to ask about."""
    only = leftovers.only_copies
    nothing = "Nothing is staged here that could go; no gate was opened."
    if not only:
        return nothing
    stays, them = ("stays", "it") if len(only) == 1 else ("stay", "them")
    return (
        f"{nothing} {number(len(only), 'staged shard')} {stays}, since the Hub is not proved to have {them}: the first "
        f"is {only[0].file} ({only[0].why})."
    )


def gone_already(gone: Sequence[Shown], shown: int) -> str:
    """The sentence about shards that the gate has shown, and that are not there any more as it showed them."""
    named = ", ".join(entry.path.rsplit("/")[-1] for entry in gone[:NAMED])
    more = f" and {len(gone) - NAMED:,} more" if len(gone) > NAMED else ""
    were = "was" if len(gone) == 1 else "were"
    return f"{len(gone):,} of {number(shown, 'shown shard')} {were} gone or changed already: {named}{more}."


def how_verified(report: VerificationReport) -> str:
    """In one phrase, what was checked and how."""
    listed = f"{number(len(report.checks), 'shard')}, {size(report.size)}, match the listing"
    if not report.read_back:
        return listed
    return (
        f"{listed}; {report.read_back:,} of them read back byte for byte ({size(report.bytes_read_back)}) and "
        f"{number(report.images_decoded, 'image')} in them decoded"
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
    """The Markdown above the form: one short paragraph, and one low picture. The older UI crops what is higher."""
    freed = size(sum(receipt.size for receipt in receipts))
    images = number(sum(receipt.rows for receipt in receipts), "image")
    stale = f" Beside them: {stale_files(gate.stale)}."
    more = f" {number(gate.waiting, 'shard')} more wait for this room: {NEXT_WAVE}"
    if not receipts:
        text = (
            f"Remove **{stale_files(gate.stale)}** of **[{hub.target}]({hub.url()})**, staged by older or broken runs? "
            "The Hub is proved to have each shard among them. To remove them, decide *delete* and tick *Remove stale "
            f"files too*. {artifact}. Closes {moment(where.expires)}.\n"
        )
        return text, ""
    lost = f"**{cell(gone_already(gone, len(gate.shown)))}** "
    text = (
        f"{lost if gone else ''}Delete **{freed}** ({number(len(receipts), 'shard')}, {images}) of "
        f"**[{hub.target}]({hub.url()})**? On the Hub at [{report.commit[:12]}]({hub.commit_url(report.commit)}): "
        f"{len(report.checks):,} match the listing, {report.read_back:,} were read back. {artifact}. "
        f"Closes {moment(where.expires)}."
        f"{stale if gate.stale else ''}{more if gate.waiting else ''}\n"
    )
    picture = strip(report.slices)
    return text, f"\n![slices of images that the Hub sent back]({picture})\n" if picture else ""


def evidence(
    hub: Hub, report: VerificationReport, found: Evidence, leftovers: Leftovers, where: Where | None = None
) -> str:
    """The whole evidence, as a Markdown artifact."""
    parts = [
        f"# Evidence for {hub.target}",
        f"Repo: [{hub.target.repo_id}]({hub.url()}), revision `{hub.target.revision}`, commit "
        f"[{report.commit}]({hub.commit_url(report.commit)})",
        f"Verified ({report.level}): {how_verified(report)}.",
        f"Staged here, and removed if you decide so: {number(len(found.receipts), 'shard')}, "
        f"{size(sum(receipt.size for receipt in found.receipts))}, with "
        f"{number(sum(receipt.rows for receipt in found.receipts), 'image')}.",
    ]
    if where:
        parts.append(
            f"Staged in `{cell(str(where.folder))}` on the machine {where.machine}. The gate closes "
            f"{moment(where.expires)}; where it asks again, it waits as long anew. Nothing is deleted when it closes."
        )
    if found.waiting:
        parts.append(
            f"Not published yet: {number(found.waiting, 'shard')}. They wait for the room that these take: {NEXT_WAVE}"
        )
    picture = strip(report.slices)
    if picture:
        shown = "\n".join(f"- {cell(shown.suffix)}: `{cell(shown.path)}`" for shown in report.slices)
        parts += ["## As the Hub sends it back", f"![mid-slices]({picture})", f"Axial mid-slices, decoded:\n\n{shown}"]
    read = [check for check in report.checks if check.how == "read back"]
    if read:
        rows = [[check.path, size(check.size), f"{check.rows}", check.sha256[:16]] for check in read]
        parts += ["## Read back, byte for byte", table(["shard", "size", "images", "sha256"], rows)]
    if found.checked.lifted or found.checked.statement.strip:
        parts += ["## Stated by the operator", _statement(found.checked)]
    if found.drift:
        parts += [
            "## Changed on the Hub by somebody else",
            table(["file", "what"], [[d.path, d.what] for d in found.drift]),
        ]
    if found.removed:
        parts += ["## Published, and no longer in the dataset", table(["shard"], [[path] for path in found.removed])]
    parts += _left_out(found.left_out)
    parts += _leftovers(leftovers)
    return "\n\n".join(parts) + "\n"


def _leftovers(leftovers: Leftovers) -> list[str]:
    """What else is in the staging folder."""
    parts: list[str] = []
    if leftovers.only_copies:
        parts += [
            "## Only copies",
            "The Hub is not proved to have these. They stay, whatever you decide. What is still in the dataset is sent "
            "by the next run of push-bids; look at the others before you remove them by hand.",
            table(["file", "size", "why"], [[copy.file, size(copy.size), copy.why] for copy in leftovers.only_copies]),
        ]
    if leftovers.stale:
        rows = [[file.file, size(file.size), _what_is_stale(file)] for file in leftovers.stale]
        parts += [
            "## Stale files in the staging folder",
            "Leftovers of older or broken runs. They go only if the form says so.",
            table(["file", "size", "what"], rows),
        ]
    if leftovers.strangers:
        parts += [
            "## Not of bids-push",
            "These are in the staging folder, and are neither opened nor removed.",
            table(["name", "why"], [[name, why] for name, why in leftovers.strangers.items()]),
        ]
    return parts


def _what_is_stale(file: Removal) -> str:
    if not file.is_shard:
        return "a copy of nothing"
    return f"on the Hub, {f'in its history at {file.commit[:12]}' if file.commit else 'at the head'}"


def stopped(checked: Checked) -> str:
    """The sentence in which a run ends that must not publish, with the ways on."""
    stops = checked.stops
    lines = []
    for rule in dict.fromkeys(finding.rule for finding in stops):
        lines.append(f"  {rule}: {RULES[rule].what}. {RULES[rule].mend}")
        of_rule = [finding for finding in stops if finding.rule == rule]
        lines += [f"    {_where(finding)}" for finding in of_rule[:LISTED_IN_A_STATE]]
        if len(of_rule) > LISTED_IN_A_STATE:
            lines.append(f"    and {len(of_rule) - LISTED_IN_A_STATE} more fields")
    names = sorted({finding.rule for finding in stops})
    return (
        f"Nothing was staged or sent: {number(len(names), 'rule')} stop{'s' if len(names) == 1 else ''} this push.\n"
        + "\n".join(lines)
        + f"\nTo publish it all the same, name the rule in allow ({', '.join(names)}): the card then says so."
    )


def _where(finding: Finding, code: bool = False) -> str:
    """A field, how many files have it, and the first of them; as Markdown, names are set as code."""
    field, files = finding.field or "images", finding.files if code else finding.files[:IN_A_STATE]
    named = ", ".join(f"`{cell(file)}`" for file in files) if code else ", ".join(files)
    more = ", ..." if finding.count > len(files) else ""
    return f"{f'`{cell(field)}`' if code else field} in {number(finding.count, 'file')}: {named}{more}"


def findings(checked: Checked) -> str:
    """Everything that was found, as a Markdown artifact."""
    return f"# Before publication\n\n{_found(checked)}\n"


def _found(checked: Checked) -> str:
    """What was found, by what it means for the push and by rule. Lists, since the UI cuts off a table's long cells."""
    parts = [_statement(checked)]
    for head, found in (
        ("Stops the push", checked.stops),
        ("Allowed, although it would stop the push", checked.lifted),
        ("To be looked at", checked.warnings),
    ):
        parts += [f"## {head}"] if found else []
        for name in dict.fromkeys(finding.rule for finding in found):
            rule, of_rule = RULES[name], [finding for finding in found if finding.rule == name]
            lines = [f"- {_where(finding, code=True)}" for finding in of_rule[:LISTED]]
            if len(of_rule) > LISTED:
                lines.append(f"- ... and {len(of_rule) - LISTED:,} more fields")
            parts += [f"**{name}**: {rule.what}. {cell(rule.mend)} Source: {rule.source}.", "\n".join(lines)]
    return "\n\n".join(parts if checked.findings else [*parts, "Nothing was found."])


def _statement(checked: Checked) -> str:
    statement = checked.statement
    lines = [f"Faces: {statement.defacing}."]
    if statement.allow:
        lines.append(f"Allowed: {', '.join(statement.allow)}.")
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
) -> str:
    """What a run would do, as a Markdown artifact."""
    rows_there: Counter[str] = Counter(image.suffix for image in dataset.images)
    rows: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for image in (image for shard in work.missing for image in shard.images):
        rows[image.suffix] += 1
        sizes[image.suffix] += image.size
    by_suffix = [
        [suffix, f"{rows[suffix]:,}", size(sizes[suffix]), f"{count:,}"] for suffix, count in rows_there.most_common()
    ]
    verdict = "**The push would stop**, see below. " if checked.stops else ""
    parts = [
        f"# Dry run: {dataset.name} to {hub.target}",
        f"{verdict}Nothing was staged or sent.",
        "## What would be pushed",
        f"{number(len(work.missing), 'shard')} of {len(shards):,}, {size(sum(s.size for s in work.missing))}, with "
        f"{number(sum(rows.values()), 'row')}. On the Hub already: {len(work.done):,}. Staged already, to send: "
        f"{len(work.send):,}. To embed and send: {len(work.stage):,}.",
        table(["suffix", "rows to push", "size", "in the dataset"], by_suffix),
        "## What changed since the last time",
        _changed(work, record),
    ]
    if work.drift:
        parts += ["## Changed on the Hub", table(["file", "what"], [[d.path, d.what] for d in work.drift])]
    if work.removed:
        parts += ["## No longer in the dataset", table(["shard"], [[path] for path in work.removed])]
    parts += _left_out(dataset.left_out)
    return "\n\n".join([*parts, "# Before publication", _found(checked)]) + "\n"


def _changed(work: Work, record: PublicationRecord) -> str:
    """The shards that are new or other than the record says, with the images that came, went, or may differ."""
    if not record.shards:
        return "Nothing is published yet: all of it is new."
    rows = []
    for shard in work.missing:
        line = record.shards.get(shard.path)
        before = {image.path for image in line.images} if line else set()
        now = {image.path for image in shard.images}
        what = "new" if line is None else "changed"
        rows.append([shard.name, what, f"{len(now - before):,}", f"{len(before - now):,}"])
    if not rows and not work.removed:
        return "Nothing."
    gone = f" {number(len(work.removed), 'shard')} no longer in the dataset." if work.removed else ""
    new = sum(row[1] == "new" for row in rows)
    head = f"{number(new, 'new shard')}, {len(rows) - new:,} changed.{gone}"
    return "\n\n".join([head, table(["shard", "what", "images added", "images gone"], rows)] if rows else [head])


def _left_out(left_out: Mapping[str, int]) -> list[str]:
    """The files of the dataset that are not published, counted by kind."""
    rows = [[kind, f"{count:,}"] for kind, count in sorted(left_out.items())]
    return ["## Left out", table(["kind", "files"], rows)] if rows else []


def cleanup(plan: CleanupPlan, result: CleanupResult, note: str, gone: str = "") -> str:
    """What was freed, what stayed and why, and what was `gone` before, as a Markdown artifact."""
    counts = Counter(removal.kind for removal in result.removed)
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
