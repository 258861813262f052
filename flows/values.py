"""The values that pass along a push: what was ordered, what was found, and what came of it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from prefect.client.schemas.objects import State

from tasks.disk.content_cache import ContentCache
from tasks.record.change import Change
from tasks.record.published import Work
from tasks.record.remote import Remote
from tasks.record.removals import Removals
from tasks.record.still_here import Why
from tasks.report.evidence import Approval, Gate
from tasks.values.errors import PushError
from tasks.values.models import Dataset, Gated, Image, Listing, Removed, ShardSpec, Verification
from tasks.values.preflight_rules import Checked, Statement


@dataclass(frozen=True)
class Order:
    """What the operator has ordered. `push_bids` explains the fields."""

    source: Path
    repo_id: str
    exclude: tuple[str, ...]
    include: tuple[str, ...]
    statement: Statement
    dry_run: bool
    private: bool
    gated: Gated
    verification: Verification
    removed: Removed
    validate_bids: bool
    max_staged_bytes: int
    accept_changes: int


@dataclass(frozen=True)
class Found:
    """A dataset, its plan, the target, and how they compare."""

    folder: Path
    """The dataset's folder."""
    dataset: Dataset
    checked: Checked
    shards: tuple[ShardSpec, ...]
    """The plan."""
    remote: Remote
    listing: Listing
    contents: ContentCache
    texts: dict[str, bytes]
    """The dataset's own texts and tables: path in the repo -> bytes."""
    work: Work
    changed: Change
    approved: Removals | None
    """What a person approved to be removed; None if nobody was asked."""
    named: Mapping[str, tuple[str, ...]]
    """Paths of the texts that still name a subject whose shards are withdrawn -> these subjects."""
    here: Mapping[str, Why]
    """The files that would leave the repo and are still in the dataset: path -> why the push leaves them out."""

    def known_contents(self) -> Callable[[Image], str | None]:
        """Return a function that gives the sha256 of an image.

        It comes from the record if the image's shard is published as it is, else from the image's present bytes.
        """
        lines = self.remote.record.shards
        published = {content.path: content.sha256 for spec in self.work.done for content in lines[spec.path].images}
        return lambda image: published.get(image.path) or self.contents.sha256(image)


@dataclass(frozen=True)
class Wave:
    """The part of the work that this run does, and the shards that have to wait for room in the staging folder."""

    work: Work
    waiting: tuple[ShardSpec, ...] = ()


@dataclass(frozen=True)
class SentWave:
    """What came of a wave."""

    wave: Wave
    after: Remote
    """What the target holds now."""
    texts: tuple[str, ...] = ()
    """The paths of the texts and pictures that had to be committed too, sorted."""
    failed: Mapping[str, PushError] = field(default_factory=dict)
    """The errors of the shards that could not be staged, by the shard's path in the repo."""

    @property
    def shards(self) -> frozenset[str]:
        """The paths of the shards that were sent."""
        return frozenset(spec.path for spec in self.wave.work.missing).difference(self.failed)


@dataclass(frozen=True)
class Approved:
    """The removals that a person approved at this run's gate, after the staged files were decided."""

    gate: Gate
    approval: Approval
    staged: State | None
    """The state that says what became of the staged files; None if there were none to decide about."""
