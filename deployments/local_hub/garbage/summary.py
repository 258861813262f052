"""A plan in a few sentences, for the person who decides."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from deployments.local_hub.garbage.plan import Looked, Plan
from deployments.local_hub.html import human
from deployments.local_hub.shell import files

REASONS_SHOWN = 12
STRANGERS_SHOWN = 5


def lines(plan: Plan, looked: Looked, path: Path, root: Path) -> Iterator[str]:
    """What would go and why, what stays, and how to go on."""
    stay = "stays: a commit needs it, or it was" if looked.kept == 1 else "stay: a commit needs them, or they were"
    yield f"{files(looked.kept, looked.kept_bytes)} {stay} sent or"
    yield f"promised in the last {'day' if plan.keep_days == 1 else f'{plan.keep_days:g} days'}."
    if looked.strangers:
        shown = ", ".join(looked.strangers[:STRANGERS_SHOWN])
        yield f"{len(looked.strangers):,} others are none of the Hub's files and are left alone: {shown}"
    if not plan.items and not plan.commits:
        yield "Nothing can be removed."
        return
    yield f"{files(len(plan.items), plan.size)} can be removed:"
    counts, sizes = Counter(item.why for item in plan.items), Counter[str]()
    for item in plan.items:
        sizes[item.why] += item.size
    for why, size in sizes.most_common(REASONS_SHOWN):
        yield f"  {counts[why]:,} ({human(size)}): {why}"
    if len(counts) > REASONS_SHOWN:
        yield f"  and {len(counts) - REASONS_SHOWN:,} more reasons"
    for repo, count in Counter(commit.name for commit in plan.commits).items():
        commits = "commit" if count == 1 else "commits"
        with_them = "its texts" if count == 1 else "their texts"
        yield f"  {count:,} {commits} of {repo} that no branch, tag or pull request reaches, with {with_them}"
    yield f"Each of them is in {path}. Once you have read it, stop the server, and make a backup if you want one:"
    yield f"  gc run {path} --root {root}                              # asks first"
    yield f"  gc run {path} --root {root} --yes-delete {plan.size}     # in a script"
