"""What a dry run shows, as a Markdown artifact: what would be pushed, what changed, what is left out."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tasks.bids.not_fetched import absent
from tasks.hub.client import Hub
from tasks.record.published import Work
from tasks.record.removals import Removals
from tasks.record.still_here import Why, gone_or_left_out
from tasks.report.artifacts import found_part, removals_part
from tasks.report.sentences import (
    BESIDE,
    cell,
    idle,
    some_of,
    table,
    written_anew,
)
from tasks.values.errors import PushError
from tasks.values.format import in_units, number
from tasks.values.kinds import DATA, noun
from tasks.values.left_out import LeftOut, Sum, by_folder, by_kind, by_reason, images_by_folder
from tasks.values.loose import loose
from tasks.values.models import Dataset, PublicationRecord, ShardSpec
from tasks.values.our_paths import LEFT_OUT
from tasks.values.preflight_rules import Checked


@dataclass(frozen=True)
class Rehearsal:
    """What a dry run has found."""

    dataset: Dataset
    shards: Sequence[ShardSpec]
    """Its plan."""
    work: Work
    record: PublicationRecord
    """What is published."""
    checked: Checked
    stops: Sequence[PushError] = ()
    """The errors that would end the run before it stages, besides those of the check before publication."""
    texts: Collection[str] = ()
    """The texts and tables that the repo does not hold as they are now."""
    other: str = ""
    """A sentence that says that this looks like another dataset, if it does."""
    modes: Sequence[str] = ()
    """The published files whose modes are not as the record says."""
    here: Mapping[str, Why] = field(default_factory=dict)
    """The files that would leave the repo and are still in the dataset: path -> why the push leaves them out."""

    def sentence(self) -> str:
        """Return what the state of the run says."""
        missing = f"{number(len(self.work.missing), 'shard')} of {len(self.shards):,} would be published"
        missing += f", and {number(len(self.texts), 'text')}" if self.texts and self.record.shards else ""
        if self.checked.stops:
            rules = ", ".join(sorted({one.rule for one in self.checked.stops}))
            missing = f"The push would stop: {rules}. Else {missing}"
        stopped = "".join(f"\nThe push would stop: {type(one).__name__}. {one}" for one in self.stops)
        stopped += f"\n{idle(self.checked)}" if self.checked.idle else ""
        not_here = absent(self.dataset.rows, Path(self.dataset.root))
        stopped += f"\n{not_here}" if not_here and str(not_here) not in stopped else ""
        other = f" {self.looks_other}" if self.looks_other else ""
        return f"{missing}. Nothing was sent.{other}{stopped}"

    @property
    def looks_other(self) -> str:
        """The sentence that this looks like another dataset, unless one of the errors says it already."""
        return "" if any(self.other in str(one) for one in self.stops) else self.other


def dry_run(hub: Hub, found: Rehearsal) -> str:
    """Describe what a run would do, as a Markdown artifact."""
    dataset, shards, work, checked = found.dataset, found.shards, found.work, found.checked
    rows_there: Counter[str] = Counter(image.suffix for image in dataset.images)
    rows: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    rows_there[BESIDE] = len(dataset.files)
    for image in (image for shard in work.missing for image in shard.rows):
        what = image.suffix if image.kind in DATA else BESIDE
        rows[what] += 1
        sizes[what] += image.size
    by_suffix = [
        [suffix, f"{rows[suffix]:,}", in_units(sizes[suffix]), f"{count:,}"]
        for suffix, count in rows_there.most_common()
        if count
    ]
    verdict = "**The push would stop**, see below. " if checked.stops or found.stops else ""
    parts = [
        f"# Dry run: {dataset.name} to {hub.target}",
        f"{verdict}Nothing was staged or sent.",
        "## What would be pushed",
        f"{number(len(work.missing), 'shard')} of {len(shards):,}, {in_units(sum(s.size for s in work.missing))}, with "
        f"{number(sum(rows.values()), 'row')}. On the Hub already: {len(work.done):,}. Staged already, to send: "
        f"{len(work.send):,}. To embed and send: {len(work.stage):,}.",
        table(["suffix", "rows to push", "size", "in the dataset"], by_suffix),
        *_not_here(dataset),
        *_code_and_stimuli(dataset),
        "## What changed since the last time",
        *(cell(line.strip()) for one in found.stops for line in str(one).splitlines()),
        cell(found.looks_other),
        cell(written_anew(found.record, work)),
        _changed(work, found.record, found.texts, found.here),
        f"Texts and tables: {some_of(sorted(found.texts), 'file')}." if found.texts else "",
        f"Executable now, or no longer: {cell(some_of(found.modes, 'file'))}. The record alone is committed for this."
        if found.modes
        else "",
    ]
    parts = list(filter(None, parts))
    if work.drift:
        parts += ["## Changed on the Hub", table(["file", "what"], [[d.path, d.what] for d in work.drift])]
    parts += removals_part(work.removals, Removals(), here=found.here)
    parts += _not_published(dataset.unpublished)
    if to_know := (*dataset.told, *dataset.notes):
        parts += ["## To know about the dataset", "\n".join(f"- {cell(sentence)}" for sentence in to_know)]
    return "\n\n".join([*parts, "# Before publication", found_part(checked)]) + "\n"


def _not_here(dataset: Dataset) -> list[str]:
    """Describe the files whose content is not on this machine."""
    not_here = absent(dataset.rows, Path(dataset.root))
    if not_here is None:
        return []
    one = "an image" if not_here.noun == "image" else "a file"
    return ["## Not on this machine", f"{not_here} The shard of {one} that is not here fails; the others go on."]


def _code_and_stimuli(dataset: Dataset) -> list[str]:
    """Describe what is published of `code` and `stimuli`, and how much of them stays out."""
    found = loose(dataset)
    if not found:
        return []
    rows = [[f"{name}/", f"{of.texts:,}", f"{of.left_out:,}"] for name, of in found.items()]
    folders = ", ".join(f'"/{name}/"' for name in found)
    return [
        "## Code and stimuli",
        "Texts in these folders are published as they are, for everybody who may read the repo. What is shown, "
        "played or binary stays out, unless `include` names it: `Left out`, below, has the reasons. To publish nothing "
        f"of them: `exclude=[{folders}]`.",
        table(["folder", "texts that are published", "files that stay out"], rows, whole=True),
    ]


def _changed(work: Work, record: PublicationRecord, texts: Collection[str], here: Collection[str]) -> str:
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
    where = gone_or_left_out(work.removals.files, here).capitalize()
    leaving = f" {where}: {cell(work.removals.sentence())}." if work.removals else ""
    new = sum(row[1] == "new" for row in rows)
    head = f"{number(new, 'new shard')}, {len(rows) - new:,} changed.{leaving}"
    one = noun(files)
    return "\n\n".join([head, table(["shard", "what", f"{one}s added", f"{one}s gone"], rows)] if rows else [head])


def _files_left_out(of: Sum) -> str:
    """Return how many files a reason leaves out, and their bytes: `2 recordings and 3 other files, 5 kB`."""
    counts = [number(of.recording, "recording")] if of.recording else []
    counts += [number(of.other, "other file" if counts else "file")] if of.other else []
    return f"{' and '.join(counts)}{f', {in_units(of.size)}' if of.size else ''}"


def _not_published(unpublished: Sequence[LeftOut]) -> list[str]:
    """Describe the files of the dataset that are not published: the images by folder, all of them, then the rest.

    Of the rest, the folders in which most is left out come first. The reasons are sentences, which the UI cuts off in a
    table: so they are in lists, or the last column of one that says less without them.
    """
    if not unpublished:
        return []
    images = images_by_folder(unpublished)
    parts = ["## Left out"]
    if images:
        rows = [[f"{count:,}", folder, reason] for (reason, folder), count in images.items()]
        parts += [f"{number(sum(images.values()), 'image')}:", table(["images", "folder", "reason"], rows, whole=True)]
    rest = [one for one in unpublished if one.what != "image"]
    if rest:
        sums = [f"- {_files_left_out(of)}: {cell(reason)}" for reason, of in by_reason(rest).items()]
        parts += [f"{number(sum(one.files for one in rest), 'other file')}, by the reason:", "\n".join(sums)]
        folders = sorted(by_folder(rest).items(), key=lambda of: -of[1])
        rows = [[f"{count:,}", folder, reason] for (reason, folder), count in folders]
        parts += ["By folder:", table(["files", "folder", "reason"], rows)]
        kinds = [[kind, f"{count:,}"] for kind, count in by_kind(rest).items()]
        parts += ["By kind:", table(["kind", "files"], kinds)]
    return [*parts, f"Each with its size and the reason: `bids/{LEFT_OUT}` in the repo, once it is published."]
