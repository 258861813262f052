"""What people see of a run: the evidence at the gate, the artifacts, the sentence in the run's state.

Markdown, as the Prefect UI renders it. The evidence above the form is a few lines and one low picture, since more
would be cropped or hide the form's fields; all of it is in the artifact. Nothing here decides anything.
"""

from collections import Counter
from collections.abc import Mapping, Sequence

from tasks.evidence import CleanupPlan, CleanupResult, Gate, Removal, VerificationReport
from tasks.hub import Hub
from tasks.models import Dataset, Receipt, ShardSpec
from tasks.pictures import strip
from tasks.resume import Drift, Work

NEXT_WAVE = "start push-bids again once they are gone, or leave it to the nightly."
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
    hub: Hub, report: VerificationReport, receipts: Sequence[Receipt], gate: Gate, artifact: str
) -> tuple[str, str]:
    """The Markdown above the form: two short paragraphs, and one low picture. The older UI crops what is higher."""
    freed = size(sum(receipt.size for receipt in receipts))
    images = number(sum(receipt.rows for receipt in receipts), "image")
    stale = f" Beside them: {number(len(gate.stale), 'stale file')}, {size(sum(file.size for file in gate.stale))}."
    waiting = f" {number(gate.waiting, 'shard')} more wait for this room: {NEXT_WAVE}"
    checked = f"{len(report.checks):,} match the listing, {report.read_back:,} were read back"
    text = (
        f"Delete the staged files of **[{hub.target}]({hub.url()})**? The Hub holds them at commit "
        f"[{report.commit[:12]}]({hub.commit_url(report.commit)}). {artifact}.\n\n"
        f"**{freed}** in {number(len(receipts), 'shard')} with {images}; {checked}."
        f"{stale if gate.stale else ''}{waiting if gate.waiting else ''}\n"
    )
    picture = strip(report.slices)
    return text, f"\n![slices of images that the Hub sent back]({picture})\n" if picture else ""


def evidence(
    hub: Hub,
    report: VerificationReport,
    receipts: Sequence[Receipt],
    stale: Sequence[Removal],
    drift: Sequence[Drift] = (),
    removed: Sequence[str] = (),
    unpublished: Sequence[Receipt] = (),
    waiting: int = 0,
    left_out: Mapping[str, int] | None = None,
) -> str:
    """The whole evidence, as a Markdown artifact."""
    parts = [
        f"# Evidence for {hub.target}",
        f"Repo: [{hub.target.repo_id}]({hub.url()}), revision `{hub.target.revision}`, commit "
        f"[{report.commit}]({hub.commit_url(report.commit)})",
        f"Verified ({report.level}): {how_verified(report)}.",
        f"Staged here, and removed if you decide so: {number(len(receipts), 'shard')}, "
        f"{size(sum(receipt.size for receipt in receipts))}, with {number(sum(r.rows for r in receipts), 'image')}.",
    ]
    if waiting:
        parts.append(
            f"Not published yet: {number(waiting, 'shard')}. They wait for the room that these take: {NEXT_WAVE}"
        )
    picture = strip(report.slices)
    if picture:
        shown = "\n".join(f"- {cell(shown.suffix)}: `{cell(shown.path)}`" for shown in report.slices)
        parts += ["## As the Hub sends it back", f"![mid-slices]({picture})", f"Axial mid-slices, decoded:\n\n{shown}"]
    read = [check for check in report.checks if check.how == "read back"]
    if read:
        rows = [[check.path, size(check.size), f"{check.rows}", check.sha256[:16]] for check in read]
        parts += ["## Read back, byte for byte", table(["shard", "size", "images", "sha256"], rows)]
    if drift:
        parts += ["## Changed on the Hub by somebody else", table(["file", "what"], [[d.path, d.what] for d in drift])]
    if removed:
        parts += ["## Published, and no longer in the dataset", table(["shard"], [[path] for path in removed])]
    parts += _left_out(left_out or {})
    if unpublished:
        parts += [
            "## Staged, and not on the Hub",
            "These stay, whatever you decide: the next run of push-bids sends them.",
            table(["shard", "size"], [[receipt.name, size(receipt.size)] for receipt in unpublished]),
        ]
    if stale:
        rows = [[file.file, size(file.size)] for file in stale]
        parts += [
            "## Stale files in the staging folder",
            "Leftovers of older or broken runs. They go only if the form says so.",
            table(["file", "size"], rows),
        ]
    return "\n\n".join(parts) + "\n"


def dry_run(hub: Hub, dataset: Dataset, shards: Sequence[ShardSpec], work: Work) -> str:
    """What a run would do, as a Markdown artifact."""
    by_suffix: Counter[str] = Counter()
    bytes_by_suffix: Counter[str] = Counter()
    for image in dataset.images:
        by_suffix[image.suffix] += 1
        bytes_by_suffix[image.suffix] += image.size
    rows = [[suffix, f"{count:,}", size(bytes_by_suffix[suffix])] for suffix, count in by_suffix.most_common()]
    parts = [
        f"# Dry run: {dataset.name} to {hub.target}",
        f"{number(len(shards), 'shard')} with {number(len(dataset.images), 'image')}, "
        f"{size(sum(shard.size for shard in shards))}. Nothing was staged or sent.",
        f"Published already: {len(work.done):,}. Staged already, to send: {len(work.send):,}. "
        f"To embed and send: {len(work.stage):,} ({size(sum(shard.size for shard in work.stage))}).",
        "## Images",
        table(["suffix", "images", "size"], rows),
    ]
    if work.drift:
        parts += ["## Changed on the Hub", table(["file", "what"], [[d.path, d.what] for d in work.drift])]
    if work.removed:
        parts += ["## No longer in the dataset", table(["shard"], [[path] for path in work.removed])]
    parts += _left_out(dataset.left_out)
    return "\n\n".join(parts) + "\n"


def _left_out(left_out: Mapping[str, int]) -> list[str]:
    """The files of the dataset that are not published, counted by kind."""
    rows = [[kind, f"{count:,}"] for kind, count in sorted(left_out.items())]
    return ["## Left out", table(["kind", "files"], rows)] if rows else []


def cleanup(plan: CleanupPlan, result: CleanupResult, note: str) -> str:
    """What was freed, what stayed and why, as a Markdown artifact."""
    counts = Counter(removal.kind for removal in result.removed)
    parts = [
        f"# Freed {size(result.freed)}",
        ", ".join(number(count, f"{kind} file") for kind, count in sorted(counts.items())) + f" of `{plan.folder}`.",
    ]
    if note:
        parts.append(f"Note: {cell(note)}")
    stayed = [[kept.file, kept.why] for kept in (*plan.kept, *result.refused)]
    if stayed:
        parts += ["## Not removed", table(["file", "why"], stayed)]
    return "\n\n".join(parts) + "\n"
