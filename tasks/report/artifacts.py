"""The artifacts of a run, as Markdown: the evidence at its gate, what was removed or freed, what the check found.

Nothing here decides anything. What a dry run shows is in `tasks.report.dry_run`.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from tasks.bids.pictures import side_by_side
from tasks.disk.files import TEMPORARY_SUFFIX
from tasks.hub.client import Hub
from tasks.record.removals import Removals
from tasks.record.still_here import Why, gone_or_left_out, in_words
from tasks.report.evidence import (
    CleanupPlan,
    CleanupResult,
    Evidence,
    Leftovers,
    RemovalPlan,
    StagedFile,
    VerificationReport,
)
from tasks.report.sentences import (
    LISTED,
    NEXT_WAVE,
    UNVERIFIED,
    Where,
    cell,
    contents,
    gone_from_the_hub,
    how_verified,
    idle,
    moment,
    still_named_in,
    table,
    verified,
)
from tasks.values.format import in_units, number
from tasks.values.kinds import noun
from tasks.values.models import Slice
from tasks.values.preflight_rules import RULES, Checked, Finding


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
    parts += removals_part(evidence.removals, evidence.asked, report, evidence.named, evidence.here)
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
            f"{number(len(receipts), 'shard')}, {in_units(sum(receipt.size for receipt in receipts))}, with "
            f"{contents(receipts)}. These are copies: the Hub keeps what "
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
    """Show what the Hub sent back of the shards that stay there, whatever is decided."""
    slices = [shown for shown in report.slices if shown.path not in evidence.asked.images]
    read = [check for check in report.checks if check.how == "read back" and check.path not in evidence.asked.published]
    parts = ["## As the Hub sends it back", *_pictures(slices)] if slices else []
    if read:
        rows = [[check.path, in_units(check.size), f"{check.rows}", check.sha256[:16]] for check in read]
        what = "images" if all(check.images == check.rows for check in read) else "files"
        parts += ["## Read back, byte for byte", table(["shard", "size", what, "sha256"], rows)]
    return parts


def _pictures(slices: Sequence[Slice]) -> list[str]:
    """Show slices of images, and say of which."""
    if not slices:
        return []
    shown = "\n".join(f"- {cell(one.suffix)}: `{cell(one.path)}`" for one in slices)
    return [f"![mid-slices]({side_by_side(slices)})", f"Axial mid-slices, decoded:\n\n{shown}"]


def _leftovers(leftovers: Leftovers) -> list[str]:
    """Describe what else is in the staging folder."""
    parts: list[str] = []
    if leftovers.only_copies:
        parts += [
            "### Only copies",
            "The Hub is not proved to have these. They stay, whatever you decide. What is still in the dataset is sent "
            "by the next run of push-bids; look at the others before you remove them by hand.",
            table(
                ["file", "size", "why"],
                [[copy.file, in_units(copy.size), copy.why] for copy in leftovers.only_copies],
            ),
        ]
    if leftovers.stale:
        rows = [[file.file, in_units(file.size), _what_is_stale(file)] for file in leftovers.stale]
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


def removals_part(
    removals: Removals,
    asked: Removals,
    report: VerificationReport | None = None,
    named: Mapping[str, Sequence[str]] = MappingProxyType({}),
    here: Mapping[str, Why] = MappingProxyType({}),
) -> list[str]:
    """Describe what is on the Hub and no longer in the dataset, how it was verified, and what it means to remove it.

    Args:
        removals: all of it.
        asked: the part that the gate asks about.
        report: the verification.
        named: paths of texts that stay published -> the subjects that they still name.
        here: files among them that are still in the dataset -> why the push leaves them out.
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
    parts = [f"## On the Hub, {gone_or_left_out(removals.files, here)}", what]
    parts += [f"**{cell(in_words(here))}**"] if here else []
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
            [
                path,
                in_units(published[path].size),
                f"{len(of)}",
                *([how.get(path, "not in this run")] if report else []),
            ]
            for path, of in removals.shards.items()
        ]
        inside = noun(path for of in removals.shards.values() for path in of)
        parts.append(table(["shard", "size", f"{inside}s", *(["verified by"] if report else [])], rows))
    if removals.rows:
        rows = [[image, path, in_units(published[path].size)] for path, of in removals.rows.items() for image in of]
        one = noun(removals.inside)
        held = f"{one.capitalize()}s of shards that are held back"
        parts.append(f"{held}: their published version stays unless you decide `remove`.")
        parts.append(table([one, "shard", "size of the shard"], rows))
    if removals.texts:
        parts.append(
            table(["text or table", "size"], [[path, in_units(published[path].size)] for path in removals.texts])
        )
    return parts


def _left_out(left_out: Mapping[str, int]) -> list[str]:
    """Describe the files of the dataset that are not published, counted by kind, in the order that is given."""
    rows = [[kind, f"{count:,}"] for kind, count in left_out.items()]
    return ["## Left out", table(["kind", "files"], rows)] if rows else []


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
        f"# Freed {in_units(result.freed)}",
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


def findings(checked: Checked) -> str:
    """Return everything that was found, as a Markdown artifact."""
    return f"# Before publication\n\n{found_part(checked)}\n"


def found_part(checked: Checked) -> str:
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
            parts += [f"**{name}**: {rule.what}. {rule.mend} Source: {rule.source}.", "\n".join(lines)]
    parts[1:1] = [cell(sentence) for sentence in (*checked.unstripped, *([idle(checked)] if checked.idle else []))]
    return "\n\n".join(parts if checked.findings else [*parts, "Nothing was found."])


def _listed(checked: Checked, finding: Finding) -> str:
    """Return an item for a finding, with its files; with the entry that lifts it if it stops the push.

    Each file has a line of its own: the UI breaks lines between the names of long ones.
    """
    entry = f". To allow it: `{cell(finding.entry)}`" if finding in checked.stops else ""
    more = ["  - ..."] if finding.count > len(finding.files) else []
    files = [f"  - `{cell(file)}`" for file in finding.files]
    head = f"- `{cell(finding.field or 'images')}` in {number(finding.count, 'file')}{entry}"
    return "\n".join([head, *files, *more])


def _statement(checked: Checked) -> str:
    statement = checked.statement
    lines = [f"Faces: {statement.defacing}."]
    if checked.lifted:
        lines.append(f"Allowed: {', '.join(f'`{cell(one.entry)}`' for one in checked.lifted)}.")
    if statement.strip:
        lines.append(f"Stripped from what is published: {', '.join(f'`{cell(name)}`' for name in statement.strip)}.")
    return " ".join(lines)
