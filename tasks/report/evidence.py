"""The values of the last part of a push: verification, gate, decision and cleanup.

All of them are kept in files or shown to people, so they are pydantic models like those of `tasks.values.models`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from pydantic.dataclasses import dataclass as pydantic_dataclass

from tasks.disk.failed_shards import FailedShard, Failure, explained
from tasks.disk.staging import SHARD_SUFFIX, Staging
from tasks.record.published import Drift
from tasks.record.removals import PublishedFile, Removals
from tasks.record.still_here import Why
from tasks.values.errors import PushError
from tasks.values.models import (
    PARTS,
    Identity,
    Listing,
    PublicationRecord,
    PublishedShard,
    Receipt,
    Slice,
    Value,
    Verification,
)
from tasks.values.preflight_rules import Checked

Kind = Literal["shard", "receipt", "result", "stale"]


class VerificationFailed(PushError):
    """The Hub does not hold what it should. No gate opens."""


@pydantic_dataclass(frozen=True, slots=True, config=PARTS)
class ShardCheck:
    """One shard, and how it was checked."""

    path: str
    size: int
    sha256: str
    rows: int
    how: Literal["listing", "read back"]
    recordings: int = 0
    """The number of rows that are files of recordings."""
    beside: int = 0
    """The number of rows that are other files, beside images and recordings."""

    @property
    def images(self) -> int:
        """The number of rows that are images."""
        return self.rows - self.recordings - self.beside


class VerificationReport(Value):
    """What a verification compared, at which commit, and with what result."""

    repo_id: str
    revision: str
    commit: str
    level: Verification
    checks: tuple[ShardCheck, ...] = ()
    failures: tuple[Failure, ...] = ()
    gone: tuple[str, ...] = ()
    """Paths of shards that had failed before and that the record no longer has."""
    images_decoded: int = 0
    bytes_read_back: int = 0
    slices: tuple[Slice, ...] = ()
    """Mid-slices of images as the Hub sent them back, for the person at the gate."""

    @property
    def read_back(self) -> int:
        """The number of shards whose bytes were read back."""
        return sum(check.how == "read back" for check in self.checks)

    @property
    def size(self) -> int:
        """The bytes of the shards that were verified."""
        return sum(check.size for check in self.checks)

    @property
    def right(self) -> tuple[str, ...]:
        """The paths of the shards whose bytes came back and were right."""
        return tuple(check.path for check in self.checks if check.how == "read back")

    def require_good(
        self, since: Mapping[str, FailedShard] = MappingProxyType({}), staged: Callable[[Failure], str] = lambda _: ""
    ) -> "VerificationReport":
        """Return this report if nothing failed.

        Args:
            since: shards that had already failed before, by path.
            staged: says in a sentence what is left of a shard in the staging folder.

        Raises:
            VerificationFailed: something failed; the message names the shards, what differs, and what to do.
        """
        if not self.failures:
            return self
        count = len(self.failures)
        are = "is not on the Hub as it" if count == 1 else "are not on the Hub as they"
        raise VerificationFailed(
            f"{count:,} of {count + len(self.checks):,} {are} should be, at commit "
            f"{self.commit[:12]} of {self.repo_id}. Nothing was deleted, and no gate was opened.\n"
            f"{explained(self.failures, since, staged)}"
        )


@dataclass(frozen=True)
class Evidence:
    """What a run brings to its gate."""

    expected: Sequence[PublishedShard]
    """What the Hub must hold."""
    receipts: Sequence[Receipt]
    """The staged shards that may be removed."""
    sent: frozenset[str] = frozenset()
    """Paths of the shards that this run has sent. They are read back first."""
    drift: Sequence[Drift] = ()
    removals: Removals = field(default_factory=Removals)
    """What is on the Hub and no longer in the dataset."""
    asked: Removals = field(default_factory=Removals)
    """The part of `removals` that this run's gate asks about: what nobody has decided to keep, or nothing."""
    named: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Paths of texts that stay published -> the subjects of `removals` that they still name."""
    here: Mapping[str, Why] = field(default_factory=dict)
    """The files of `removals` that are still in the dataset, and that the push leaves out: path -> why."""
    source: Path | None = None
    """The dataset's folder, if this run has read it."""
    waiting: int = 0
    """The number of shards that had no room in the staging folder. The next run publishes them."""
    checked: Checked = field(default_factory=Checked)
    """What was found before the publication, and what the operator stated."""
    left_out: Mapping[str, int] = field(default_factory=dict)
    """The files of the dataset that are not published, as in `Dataset.left_out`."""
    texts: Mapping[str, bytes] = field(default_factory=dict)
    """The dataset's own texts that the Hub must hold too: path in the repo -> bytes."""
    whole: bool = False
    """Whether `expected` is everything that is published, and not only what is staged here."""
    own_commit: str | None = None
    """The commit that this run made last. A head that is older is not accepted."""
    commit: str | None = None
    """The commit to look at; None for the head."""
    read: tuple[PublicationRecord, Listing] | None = None
    """What this run has already read from the Hub. It is not fetched again for the same commit."""


class Choice(StrEnum):
    """What a person decides at the gate about the staged files."""

    DELETE = "delete"
    KEEP = "keep"


class Fate(StrEnum):
    """What a person decides at the gate about what is on the Hub and no longer in the dataset."""

    REMOVE = "remove"
    KEEP = "keep"


class StagedFile(Value):
    """A file of the staging folder that may be removed, and what has to hold for that."""

    file: str
    """Relative to the target's staging folder."""
    size: int
    kind: Kind
    identity: Identity | None = None
    """For a shard: the identity with which it has the bytes below, or None if that is not known, and then it is hashed.
    For any other file: the identity that was found when the cleanup was planned.
    """
    path: str | None = None
    """The shard's path in the repo, for a file that may be removed only while the Hub holds the shard."""
    shard_size: int = 0
    sha256: str | None = None
    commit: str = ""
    """The commit of its history at which the Hub holds the shard; empty for the head of the target."""
    beside: tuple[str, ...] = ()
    """Staged shards that this file belongs to. If one of them stays, the file stays too."""

    @property
    def is_shard(self) -> bool:
        """Whether it is a whole shard. A shard is removed only while the Hub is proved to have its bytes."""
        return self.file.endswith(SHARD_SUFFIX)


class OnlyCopy(Value):
    """A staged shard that the Hub is not proved to have. It cannot be removed here, whatever anybody decides."""

    file: str
    size: int
    why: str


class Leftovers(Value):
    """What else is in the staging folder, besides the shards that a gate is about."""

    stale: tuple[StagedFile, ...] = ()
    """What is removed if the form says so: copies of nothing, and shards whose bytes the Hub is proved to have."""
    only_copies: tuple[OnlyCopy, ...] = ()
    strangers: Mapping[str, str] = {}
    """Files that are none of ours: name -> what it is. They are neither opened nor removed."""


class Shown(Value):
    """A staged shard as the gate showed it."""

    file: str
    path: str
    size: int
    sha256: str


class Gate(Value):
    """The gate of one target: which run's it is, and what it showed. It is kept in the staging folder."""

    flow_run_id: str
    flow_run_name: str
    target: str = ""
    """For people: the repo, and the revision if it is not main."""
    opened_at_commit: str | None = None
    """None while the run is still publishing."""
    expires: datetime | None = None
    """The time when the question that was asked first is closed."""
    artifact: str | None = None
    """The id of the artifact with all of the evidence."""
    shown: tuple[Shown, ...] = ()
    stale: tuple[StagedFile, ...] = ()
    """Leftovers that no receipt of the plan explains. They are removed only if the form says so."""
    waiting: int = 0
    """The number of shards of the plan that had no room here. The next run publishes them."""
    removals: Removals = Removals()
    """What it asks about among the things that are on the Hub and no longer in the dataset."""
    named: Mapping[str, tuple[str, ...]] = {}
    """Paths of texts that stay published -> the subjects of `removals` that they still name."""
    here: Mapping[str, Why] = {}
    """The files of `removals` that are still in the dataset, and that the push leaves out: path -> why."""
    drift: int = 0
    """The number of files that somebody else has changed on the Hub."""

    def is_answered_by(self, approval: "Approval") -> bool:
        """Return whether an approval was given at this gate, by the run that opened it."""
        return self.flow_run_id == approval.flow_run_id and self.opened_at_commit is not None


def shown_as(receipt: Receipt) -> Shown:
    """Return a staged shard as the gate shows it."""
    return Shown(file=receipt.file, path=receipt.path, size=receipt.size, sha256=receipt.sha256)


def copies(staging: Staging, receipts: Iterable[Receipt]) -> list[Receipt]:
    """Return the receipts whose shard is staged with the right size. Any other file is no copy of what was sent."""
    return [receipt for receipt in receipts if staging.size_of(receipt.file) == receipt.size]


def not_as_shown(staging: Staging, gate: Gate) -> list[Shown]:
    """Return the shards of a gate that are no longer there as it showed them.

    They have another receipt, no file, or another size. A file whose bytes were changed at the same size is found by
    the cleanup, right before it would be removed.
    """
    receipts = {shown_as(receipt) for receipt in staging.receipts()}
    return [shown for shown in gate.shown if shown not in receipts or staging.size_of(shown.file) != shown.size]


def receipts_at(staging: Staging, gate: Gate) -> list[Receipt]:
    """Return the receipts of the shards that a gate showed. A shard with another receipt by now has none here."""
    shown = frozenset(gate.shown)
    return [receipt for receipt in staging.receipts() if shown_as(receipt) in shown]


def still_there(receipts: Iterable[Receipt], gone: Iterable[Shown]) -> list[Receipt]:
    """Return these receipts without those of shards that are gone."""
    without = frozenset(gone)
    return [receipt for receipt in receipts if shown_as(receipt) not in without]


class Approval(Value):
    """What a person decided at a gate, and at which run's gate."""

    flow_run_id: str
    decision: Choice | None = None
    """The decision on the staged files; None if there was nothing staged to decide about."""
    removals: Fate | None = None
    """The decision on removals; None if there were none to decide about."""
    remove_stale: bool = False
    note: str = ""


class Kept(Value):
    """One file that stays, and why."""

    file: str
    why: str


class CleanupPlan(Value):
    """What is removed, what stays, and why. It is computed and shown before it is executed."""

    folder: Path
    files: tuple[StagedFile, ...] = ()
    kept: tuple[Kept, ...] = ()

    @property
    def size(self) -> int:
        """The bytes that would be freed."""
        return sum(staged.size for staged in self.files)


class CleanupResult(Value):
    """What a cleanup has done."""

    removed: tuple[StagedFile, ...] = ()
    gone_before: tuple[str, ...] = ()
    refused: tuple[Kept, ...] = ()

    @property
    def freed(self) -> int:
        """The bytes that were freed."""
        return sum(staged.size for staged in self.removed)


class RemovalPlan(Value):
    """What leaves the repo, what stays, and why. It is computed before it is executed."""

    commit: str
    """The head for which it was computed."""
    shards: Mapping[str, PublishedFile] = {}
    texts: Mapping[str, PublishedFile] = {}
    pictures: tuple[str, ...] = ()
    """Pictures of the card that show images which leave the repo."""
    rows: Mapping[str, tuple[str, ...]] = {}
    """Path of a shard -> the files that its new version no longer has."""
    kept: tuple[Kept, ...] = ()

    @property
    def paths(self) -> tuple[str, ...]:
        """Every file that leaves the repo."""
        return (*self.shards, *self.texts, *self.pictures)

    @property
    def inside(self) -> tuple[str, ...]:
        """The files that leave as rows of shards which stay."""
        return tuple(path for of in self.rows.values() for path in of)

    def __bool__(self) -> bool:
        return bool(self.shards or self.texts or self.rows)
