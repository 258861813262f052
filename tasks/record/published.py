"""What is left to do: one decision over the plan, the record, the listing and the receipts.

| on the Hub                                                          | staged here                     | then                   |
|---------------------------------------------------------------------|---------------------------------|------------------------|
| record has the digest and the content, listing its sha256 and size  | any                             | nothing (`done`)       |
| anything else                                                       | receipt, file has its size      | `send`                 |
| anything else                                                       | none, other size, other digest  | `stage`, then send     |
| record and listing disagree                                         | any                             | also `drift`           |
| a shard, rows of a shard or a text that the dataset no longer has   | any                             | `removals`             |
| ... a shard that would lose rows, unless a person approved them     | any                             | `held_back`: nothing   |
| neither, or a path that is none of ours                             | any                             | `lost`, and `drift`    |

The decision reads nothing itself. It asks two functions for what is costly to know (the content of an image, what is
staged), and only about the shards where the answer matters. The bytes of a staged file are hashed when it is about to
be sent (`tasks.transfer`); one that is damaged then is staged again by the same run.
"""  # noqa: E501

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

from tasks.record.removals import Removals, find_removals, lost_lines
from tasks.values.models import Image, ImageContent, Listing, PublicationRecord, PublishedShard, Receipt, ShardSpec

Unchanged = Callable[[Iterable[Image], Iterable[ImageContent]], bool]
"""A function that returns whether images have the bytes that a record or a receipt says."""
Staged = Callable[[ShardSpec], Receipt | None]
"""A function that returns the receipt of a staged shard or None, as far as it can be told without reading the shard."""


@dataclass(frozen=True, slots=True)
class Drift:
    """A difference between the repo and its record: somebody else changed the repo."""

    path: str
    what: str


@dataclass(frozen=True, slots=True)
class Work:
    """What a run has to do."""

    done: tuple[ShardSpec, ...]
    send: tuple[ShardSpec, ...]
    stage: tuple[ShardSpec, ...]
    drift: tuple[Drift, ...]
    removals: Removals = field(default_factory=Removals)
    """What is published and no longer in the dataset. It stays on the Hub until a person decides otherwise."""
    held_back: tuple[ShardSpec, ...] = ()
    """Shards whose new version would lose published rows. Until a person decides, their published version stays."""
    lost: Mapping[str, str] = field(default_factory=dict)
    """Lines of the record that stand for nothing: path -> sha256. The next commit drops them."""

    @property
    def missing(self) -> tuple[ShardSpec, ...]:
        """The shards that have to be sent, whether or not they are staged already, sorted by path."""
        return tuple(sorted((*self.send, *self.stage), key=lambda spec: spec.path))

    def to_stage_again(self, paths: Iterable[str]) -> "Work":
        """Return the work that is left if the staged files of these shards turned out to be damaged."""
        damaged = set(paths)
        return replace(self, send=(), stage=tuple(spec for spec in self.missing if spec.path in damaged))

    def only(self, removals: Removals) -> "Work":
        """Return the work of removing what a person approved: only the shards that were held back for it."""
        mine = removals.rows
        return replace(
            self,
            send=tuple(spec for spec in self.send if spec.path in mine),
            stage=tuple(spec for spec in self.stage if spec.path in mine),
        )

    def wave(self, limit: int | None, staged: int) -> tuple["Work", tuple[ShardSpec, ...]]:
        """Return the part of the work that keeps the staging within `limit`, and the shards that have to wait.

        If nothing is staged yet, one shard is staged however large it is. No gate could make room for it, and the work
        must not stand still for ever.

        Args:
            limit: bytes that may be staged, or None for any number.
            staged: bytes that are staged already.
        """
        if limit is None:
            return self, ()
        for number, spec in enumerate(self.stage):
            if staged and staged + spec.room > limit:
                return replace(self, stage=self.stage[:number]), self.stage[number:]
            staged += spec.room
        return self, ()


FOREIGN_PARQUET = (
    "Parquet in data/ that the record does not know, and that readers load as a part of the dataset: if it has to go, "
    "delete it on the Hub"
)


def disagreement(shard: PublishedShard, listing: Listing) -> str | None:
    """Return how the listing contradicts the record's line for a shard, or None if they agree."""
    listed = listing.files.get(shard.path)
    if listed is None:
        return "the record has it, and it is not in the repo"
    if listed.size != shard.size:
        return f"{listed.size} bytes in the repo, {shard.size} in the record"
    if listed.sha256 != shard.sha256:
        return f"sha256 {str(listed.sha256)[:12]} in the repo, {shard.sha256[:12]} in the record"
    return None


def decide(
    plan: Sequence[ShardSpec],
    record: PublicationRecord,
    listing: Listing,
    unchanged: Unchanged,
    staged: Staged,
    texts: Collection[str] = (),
    approved: Removals | None = None,
) -> Work:
    """Sort the plan's shards by what is left to do for them, and name what somebody else changed in the repo.

    Args:
        plan: the shards of the dataset.
        record: what was published.
        listing: what the repo holds.
        unchanged: says whether images have the bytes that a record or a receipt says.
        staged: gives the receipt of a staged shard.
        texts: paths in the repo of the texts and tables that would be published now.
        approved: what a person approved to be removed. A shard that loses only such rows is not held back for them.
    """
    done: list[ShardSpec] = []
    send: list[ShardSpec] = []
    stage: list[ShardSpec] = []
    held_back: list[ShardSpec] = []
    edited: list[Drift] = []
    removals = find_removals(plan, record, listing, texts)
    approved = approved or Removals()
    for spec in plan:
        line = record.shards.get(spec.path)
        if spec.path in removals.rows and not approved.allows(spec.path, removals):
            held_back.append(spec)
            continue
        if (
            line is not None
            and line.digest == spec.digest
            and disagreement(line, listing) is None
            and unchanged(spec.rows, line.images)
        ):
            done.append(spec)
            continue
        if line is not None and line.digest == spec.digest and _paths(line.images) != _paths(spec.rows):
            edited.append(
                Drift(spec.path, "its line in the record was edited: the shard is published anew, with its line")
            )
        receipt = staged(spec)
        intact = receipt is not None and unchanged(spec.rows, receipt.images)
        (send if intact else stage).append(spec)
    lost = lost_lines(plan, record, listing, texts)
    drift = _drift(record, listing, {spec.path for spec in plan}, lost)
    seen = {one.path for one in drift}
    drift += tuple(one for one in edited if one.path not in seen)
    return Work(tuple(done), tuple(send), tuple(stage), drift, removals, tuple(held_back), lost)


def _paths(rows: Iterable[Image | ImageContent]) -> list[str]:
    """Return the paths of a shard's files. Its digest covers them."""
    return sorted(row.path for row in rows)


def _drift(
    record: PublicationRecord, listing: Listing, planned: Collection[str], lost: Mapping[str, str]
) -> tuple[Drift, ...]:
    """Return what somebody else changed in the repo."""
    drift = [Drift(path, what) for path, line in record.shards.items() if (what := disagreement(line, listing))]
    named = {one.path for one in drift}
    drift += [
        Drift(path, "the record has it, and it is nothing of ours: it stays")
        for path in lost
        if path in listing.files and path not in named
    ]
    drift += [
        Drift(path, FOREIGN_PARQUET)
        for path in listing.files
        if path.startswith("data/") and path.endswith(".parquet") and path not in record.shards and path not in planned
    ]
    return tuple(drift)
