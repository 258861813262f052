"""What must hold after a round: what was missing before the clean run, and what the clean run may have done for it."""

from dataclasses import dataclass, field
from pathlib import Path

from soak.rig import Rig
from tasks.disk.untrusted import identity
from tasks.hub.errors import RepoMissing
from tasks.record.published import disagreement
from tasks.record.remote import CARD, RECORD, read_remote
from tasks.values.models import Receipt

#: Bytes that Xet sends for a shard beside its content: chunk headers, and a xorb's footer.
OVERHEAD = 1.02


@dataclass(frozen=True)
class Found:
    """The Hub and the staging folder as they were when the clean run began."""

    on_hub: frozenset[str]
    """Shards that record and listing agree on."""
    staged: dict[str, Receipt]
    """Shards that are staged and intact, by their path in the repo."""
    files: dict[Path, object]
    """Every staged file, as the kernel knows it."""
    unfinished: int
    """Shards that were being staged when the run was killed: work that has to be done twice."""
    received: int
    """Content bytes that the Hub was sent so far."""


@dataclass
class Verdict:
    """The judgement of a round."""

    losses: list[str] = field(default_factory=list)
    embedded_again: int = 0
    sent_again: int = 0
    """Content bytes that the Hub was sent beyond what was missing on it."""


def look(rig: Rig) -> Found:
    """Look at the Hub and the staging folder, and return what there is now."""
    staging, hub = rig.staging, rig.hub
    try:
        published = read_remote(hub)
        listing = hub.listing(published.commit)
        lines = published.record.shards.items()
        on_hub = frozenset(path for path, line in lines if disagreement(line, listing) is None)
    except RepoMissing:
        on_hub = frozenset()
    files = {path: identity(path.stat()) for path in staging.shards.rglob("*.parquet")}
    parts = [path for path in staging.shards.rglob("*.parquet.part") if path.stat().st_size]
    staged = {receipt.path: receipt for receipt in staging.receipts() if staging.intact(receipt)}
    return Found(on_hub, staged, dict(files), len(parts), rig.content_received())


def reference_of(rig: Rig) -> dict[str, bytes]:
    """Read every file of the target back, and return path -> bytes."""
    head = rig.hub.head()
    return {path: rig.hub.read(path, head) or b"" for path in rig.hub.listing(head).files}


def judge(rig: Rig, before: Found, reference: dict[str, bytes]) -> Verdict:
    """Compare the target with the reference, byte for byte, and the clean run's work with what was missing.

    Args:
        rig: the servers and the target.
        before: what there was when the clean run began.
        reference: what an undisturbed push publishes: path in the repo -> bytes.
    """
    verdict = Verdict()
    now = reference_of(rig)
    now.pop("notes.md", None)  # somebody else's, and left alone
    for path in sorted(reference.keys() | now.keys()):
        if reference.get(path) != now.get(path):
            verdict.losses.append(f"{path}: {len(now.get(path, b''))} bytes, {len(reference.get(path, b''))} expected")
    shards = {path for path in reference if path.startswith("data/")}
    missing = shards - before.on_hub
    to_embed = missing - before.staged.keys()
    after = {path: identity(path.stat()) for path in rig.staging.shards.rglob("*.parquet")}
    embedded = sum(before.files.get(path) != found for path, found in after.items())
    verdict.embedded_again = max(embedded - len(to_embed), 0)
    allowed = sum(len(reference[path]) for path in missing) * OVERHEAD
    verdict.sent_again = max(int(rig.content_received() - before.received - allowed), 0)
    gone = before.files.keys() - after.keys()
    verdict.losses += [f"{path.name}: removed from the staging without an approval" for path in sorted(gone)]
    assert CARD in reference and RECORD in reference
    return verdict
