"""What a target holds: the publication record and the card, read at one commit.

The record is what makes resuming possible. Whoever has the dataset and a token can go on from it, on any machine, with
no local state.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.hub.client import Hub
from tasks.hub.retries import RETRIES, RETRIES_AT_THE_START
from tasks.record.published import Drift
from tasks.record.record_files import in_order, is_segment
from tasks.record.removals import is_our_shard
from tasks.values.errors import PushError
from tasks.values.models import (
    HASHED_FOLDERS,
    RECORD,
    Gated,
    ListedFile,
    Listing,
    PublicationRecord,
    PublishedShard,
    segments_in,
)

__all__ = [
    "CARD",
    "INDEX",
    "RECORD",
    "Correction",
    "NewerLayout",
    "Remote",
    "find_edited",
    "read_remote",
    "read_target",
    "read_target_again",
    "require_known",
]

INDEX = "bids/record/index.json"
CARD = "README.md"


class NewerLayout(PushError):
    """A newer bids-push has published to this target, with shards that this one does not know."""


@dataclass(frozen=True)
class Remote:
    """What the target holds at one commit, as far as it matters for the next commit of ours."""

    commit: str
    record: PublicationRecord
    card: str | None = None
    damaged: tuple[str, ...] = ()
    """What is wrong with the record: lines that cannot be read, or that are none of ours."""
    contested: bool = False
    """Whether somebody else was found to have committed since this was read. There may be more to do by now."""
    overtaken: frozenset[str] = frozenset()
    """Paths that were to be committed and were not: somebody else has published them since they were planned."""
    corrected: tuple["Correction", ...] = ()
    """Lines of `record` that are not in the repo's record: they were read from shards (`tasks.record.ask_shards`)."""
    seconds: float = field(default=0.0, compare=False)
    """How long the Hub took to commit this; 0 for what was read."""

    def shards_in(self, listing: Listing) -> tuple[str, ...]:
        """Return the paths of the shards that the repo has: those of the record first, then what else is listed."""
        own = self.record.shards
        paths = (*sorted(own), *sorted(path for path in listing.files if path not in own))
        return tuple(filter(is_our_shard, paths))

    @property
    def to_mend(self) -> bool:
        """Whether the record in the repo has to be written anew."""
        return bool(self.damaged or self.corrected)


@dataclass(frozen=True, slots=True)
class Correction:
    """A line of the record that says what a shard in the repo holds, where the record's own says something else."""

    before: PublishedShard | None
    """The line as the record has it; None if it has none."""
    line: PublishedShard


def read_remote(hub: Hub, at: str | None = None, known: Mapping[str, PublishedShard] | None = None) -> Remote:
    """Read the record and the card at the target's head, or at the commit `at`.

    Args:
        hub: the target.
        at: a commit; None for the head.
        known: lines of shards that are in memory already, by path. They are not kept twice.
    """
    commit = at or hub.head()
    text, index = hub.read(RECORD, commit), hub.read(INDEX, commit)
    segments = {path: hub.read(path, commit) for path in _segments(hub, text, index, commit)}
    record, damaged = PublicationRecord.read(
        text or b"", index or b"", lambda paths: hub.listed(paths, commit), segments, known
    )
    card = hub.read(CARD, commit)
    return Remote(commit, record, card.decode(errors="replace") if card else None, damaged)


def _segments(hub: Hub, text: bytes | None, index: bytes | None, commit: str) -> list[str]:
    """Return the paths of the record's segments, the oldest first: by the index, or by their names if it is damaged."""
    named = segments_in(index or b"")
    if named is not None and all(map(is_segment, named)):
        return list(dict.fromkeys(named))
    return in_order(hub.listing(commit).files) if text or index else []


def require_known(hub: Hub, remote: Remote) -> Remote:
    """Return what a target holds if no newer bids-push has published it. A push of ours would undo what that one did.

    Raises:
        NewerLayout: one has.
    """
    if remote.record.layout <= HASHED_FOLDERS:
        return remote
    says, ours = remote.record.layout, HASHED_FOLDERS
    raise NewerLayout(
        f"{hub.target} was published by a newer bids-push: its record ({INDEX}) says layout {says}, and this version "
        f"knows {ours} at most. A push from here would put older shards in the place of its own, so no more is sent, "
        "and nothing is removed. Update bids-push on this machine, and start again. If no newer version has ever "
        f"published there, somebody has edited `layout` in {INDEX}: correct it on the Hub."
    )


@task(
    name="read-target",
    task_run_name="read what the Hub has",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES_AT_THE_START,
)
def read_target(hub: Hub, write: bool, make: bool, private: bool, gated: Gated = "no") -> tuple[Remote, Listing]:
    """Read what the target holds at its head: the record and the card, and every file.

    Args:
        hub: the target.
        write: whether to check that the token may write, and that the repo is set up as asked. A branch that is
            missing in a repo is then made.
        make: whether to make a repo that is missing. A target that does not exist holds nothing.
        private: whether the repo must be private.
        gated: how people have to ask for access.

    Raises:
        NewerLayout: a newer bids-push has published there.
    """
    there = hub.prepare(private, gated, make) if write else hub.exists()
    if not there:
        return Remote("", PublicationRecord()), Listing("", {})
    remote = require_known(hub, read_remote(hub, hub.head(as_spelled=True)))
    return remote, hub.listing(remote.commit)


@task(
    name="read-target-again",
    task_run_name="read what somebody else has committed",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def read_target_again(hub: Hub) -> tuple[Remote, Listing]:
    """Read what the target holds by now, after somebody else has committed to it while this run worked.

    Raises:
        NewerLayout: a newer bids-push has published there by now.
    """
    remote = require_known(hub, read_remote(hub))
    return remote, hub.listing(remote.commit)


@task(
    name="find-edited-texts",
    task_run_name="look for texts that somebody else has edited",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES_AT_THE_START,
)
def find_edited(hub: Hub, record: PublicationRecord, listing: Listing, replaced: Collection[str]) -> tuple[Drift, ...]:
    """Return the texts that somebody else has edited or taken away, and that are about to be replaced.

    The listing has no sha256 of a file in git itself, so one that still has its published size is read.

    Args:
        hub: the target.
        record: what is published.
        listing: every file of the repo.
        replaced: the paths of published texts that the repo does not hold as they are to be published now.
    """
    edited: list[Drift] = []
    for path in sorted(replaced):
        published, listed = record.texts[path], listing.files.get(path)
        if listed is None:
            edited.append(Drift(path, "it was taken out of the repo: the dataset's own is published anew"))
        elif listed.size != published.size or _sha256(hub, listed, listing.commit) != published.sha256:
            kept = f"the dataset's own takes its place, and commit {listing.commit[:12]} keeps theirs"
            edited.append(Drift(path, f"edited in the repo: {kept}"))
    return tuple(edited)


def _sha256(hub: Hub, listed: ListedFile, commit: str) -> str | None:
    return listed.sha256 or hub.sha256_of(listed.path, commit)
