"""Shards that failed verification: why, what to do about it, and the file that remembers them.

Each failure has a cause, and each cause has its own way out. Where the Hub sends other bytes than it was sent, for
example, publishing the shard again changes nothing: the Hub already has content with that sha256, and takes it from
nobody anew.

A shard that failed stays failed. `failed.json` in the target's staging folder keeps it, and every later run reads it
back, at any level of verification. It leaves the file in two cases only: the bytes that are published by then came back
and were right, or the record no longer has the shard. A verification that could not look (the Hub is away, a token has
expired) changes nothing in the file.

The file makes runs stricter, never laxer. If it is lost or damaged, a run still makes its own checks, and says so.
"""

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from pathlib import Path

from pydantic import ValidationError

from tasks.disk.files import write_whole
from tasks.disk.staging import Staging, refused
from tasks.values.models import Value

LISTED = 20  # shards of a cause that a message names


class Cause(StrEnum):
    """Why a shard is not on the Hub as it should be, as far as it can be told from here."""

    CHANGED = "changed"
    RECORD = "record"
    REGULAR = "regular"
    SHORT_LISTING = "short listing"
    OTHER_BYTES = "other bytes"
    NOT_SERVED = "not served"
    CONTENT = "content"


WHAT: Mapping[Cause, str] = {
    Cause.CHANGED: "The repo does not list what was published",
    Cause.RECORD: "The publication record does not have what was published",
    Cause.REGULAR: "The repo holds it as text in git, and not as a large file",
    Cause.SHORT_LISTING: "The Hub's listing leaves out what the Hub has",
    Cause.OTHER_BYTES: "The Hub sends other bytes than it lists",
    Cause.NOT_SERVED: "The Hub lists it, and does not send it",
    Cause.CONTENT: "The Hub sends it as it was staged, and what is in it is damaged",
}
ASK_THE_HUB = (
    "Sending it again does not help: the Hub has content with that sha256 already, and does not take it anew. Tell "
    "those who run the Hub: the repo, the commit and these paths. Keep what is staged, and the dataset, until it is "
    "right."
)
WAY_OUT: Mapping[Cause, str] = {
    Cause.CHANGED: "Somebody changed the repo. Start the run again: it publishes anew what the dataset still has.",
    Cause.RECORD: "Somebody changed the record. Start the run again: it publishes anew what the dataset still has.",
    Cause.REGULAR: (
        "A rule in the repo's .gitattributes makes it so. Take that rule out, so that *.parquet has filter=lfs, and "
        "start the run again: it publishes anew what the dataset still has."
    ),
    Cause.SHORT_LISTING: (
        "Asked for by name, the Hub has these files, so a page of its listing was short, and nothing has to be sent. "
        "Start the run again later; if it stays so, tell those who run the Hub."
    ),
    Cause.OTHER_BYTES: ASK_THE_HUB,
    Cause.NOT_SERVED: ASK_THE_HUB,
    Cause.CONTENT: (
        "Sending it again does not help. Mend the file in the dataset (its gzip stream or its header is damaged), and "
        "start the run again: it publishes the shard anew."
    ),
}
#: Causes for which the staged file may be the only good copy.
KEEP_STAGED = frozenset({Cause.OTHER_BYTES, Cause.NOT_SERVED})


class Failure(Value):
    """One shard, or one of the dataset's texts, that is not on the Hub as it should be."""

    path: str
    what: str
    """What was found."""
    cause: Cause = Cause.CHANGED
    size: int = 0
    """Bytes that it should have."""
    sha256: str = ""
    """The sha256 that it should have."""


class FailedShard(Failure):
    """A failure that is kept until the shard's bytes came back right."""

    since: datetime
    commit: str
    """The last commit at which it was found."""


def read_failed(staging: Staging) -> tuple[dict[str, FailedShard], str]:
    """Read the shards that failed and have not been right since.

    Returns:
        The failed shards by path, and a sentence that says that the file is damaged; it is empty if the file is sound.
    """
    path = staging.failed
    try:
        entries = json.loads(staging.read(path))["shards"]
        if not isinstance(entries, list):
            raise TypeError("no list")
    except FileNotFoundError:
        return {}, ""
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        entries, lost = [], True
    else:
        lost = False
    found: dict[str, FailedShard] = {}
    for entry in entries:
        try:
            shard = FailedShard.model_validate(entry)
        except ValidationError:
            lost = True
        else:
            found[shard.path] = shard
    return found, DAMAGED.format(path=path) if lost else ""


DAMAGED = (
    "{path} is damaged: shards may have failed verification that are not known any more. A run with verification=full "
    "reads all of them back."
)


def write_failed(staging: Staging, failed: Mapping[str, FailedShard]) -> None:
    """Keep the failed shards in the file. Where none failed and there is no file yet, none is made.

    Raises:
        DiskFull, CannotWrite: the file cannot be written.
    """
    path = staging.failed
    if not failed and not path.exists():
        return
    shards = [failed[name].model_dump(mode="json") for name in sorted(failed)]
    try:
        write_whole(path, json.dumps({"shards": shards}, indent=1).encode())
    except OSError as error:
        raise refused(path, error) from error


def still_failed(
    before: Mapping[str, FailedShard],
    failures: Iterable[Failure],
    right: Iterable[str],
    gone: Iterable[str],
    commit: str,
    now: datetime,
) -> dict[str, FailedShard]:
    """Return the shards that count as failed after a verification, by path.

    Args:
        before: the shards that counted as failed before it.
        failures: what this verification found.
        right: paths whose bytes came back in it and were right.
        gone: paths that the record no longer has.
        commit: the commit that it looked at.
        now: the time from which a newly found shard counts as failed.
    """
    over = {*right, *gone}
    kept = {path: shard for path, shard in before.items() if path not in over}
    for failure in failures:
        since = kept[failure.path].since if failure.path in kept else now
        kept[failure.path] = FailedShard(**failure.model_dump(), since=since, commit=commit)
    return kept


def explained(
    failures: Sequence[Failure],
    since: Mapping[str, FailedShard],
    staged: Callable[[Failure], str],
) -> str:
    """Say what failed, grouped by cause, and what to do about each.

    Args:
        failures: what was found.
        since: the shards that had already failed before, by path.
        staged: says what is staged of a shard; asked only where that may be the only good copy.
    """
    by_cause: dict[Cause, list[Failure]] = defaultdict(list)
    for failure in failures:
        by_cause[failure.cause].append(failure)
    parts = []
    for cause in (cause for cause in Cause if cause in by_cause):
        parts.append(f"{WHAT[cause]}:")
        for failure in by_cause[cause][:LISTED]:
            before = f" (failed since {since[failure.path].since:%Y-%m-%d})" if failure.path in since else ""
            copy = f" {staged(failure)}" if cause in KEEP_STAGED else ""
            parts.append(f"  {failure.path}: {failure.what}{before}.{copy}")
        if len(by_cause[cause]) > LISTED:
            parts.append(f"  and {len(by_cause[cause]) - LISTED:,} more")
        parts.append(WAY_OUT[cause])
    return "\n".join(parts)


def staged_copy(staging: Staging, failure: Failure) -> str:
    """Say in a sentence what is staged of a shard whose bytes the Hub does not have."""
    receipts = [one for one in staging.receipts() if (one.path, one.sha256) == (failure.path, failure.sha256)]
    if not receipts:
        return "It is not staged here any more."
    if whole := next(filter(staging.intact, receipts), None):  # of several with the same bytes, one may be damaged
        return f"It is still staged here, intact: {staging.folder / whole.file}"
    return f"The staged file is not intact: {staging.folder / receipts[0].file}"


def unsound_shards(failed: Mapping[str, FailedShard], count: int = 5) -> str:
    """Return a sentence that names the failed shards, for a run that did not look at them; empty if there are none."""
    if not failed:
        return ""
    names = ", ".join(Path(path).stem for path in sorted(failed)[:count])
    more = f" and {len(failed) - count:,} more" if len(failed) > count else ""
    shards = f"{len(failed):,} shard{'s' * (len(failed) > 1)}"
    return f"Failed verification, and not right since: {shards}: {names}{more}."
