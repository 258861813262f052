"""What failed verification: why, what to do about it, and the file that does not forget it.

Each failure has a cause, and each cause its own way out: where the Hub sends other bytes than it was sent, publishing
the shard again changes nothing, since the Hub takes content that it has, by its sha256, from nobody anew.

A shard that failed stays failed. `failed.json` in the target's staging folder keeps it, every later run reads it back
whatever its level is, and it leaves the file only when the bytes that are published by then came back and were right,
or when the record does not have it any more. A verification that could not look (a Hub that is away, a token that has
expired) changes nothing in the file. It makes runs stricter and never laxer: lost or damaged, it leaves a run with its
own checks, and is told.
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
    """Why a shard is not on the Hub as it should be, as far as can be told from here."""

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
    "Sending it again is no way out: the Hub has that sha256 already, and takes no such content anew. Tell those who "
    "run the Hub: the repo, the commit and these paths. Keep what is staged, and the dataset, until it is right."
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
        "Sending it again is no way out. Mend the image in the dataset (its gzip stream or its header is damaged), and "
        "start the run again: it publishes the shard anew."
    ),
}
#: Where the only good copy may be the one that is staged.
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
    """A failure that is kept until the shard's bytes were right."""

    since: datetime
    commit: str
    """The commit at which it was found last."""


def read_failed(staging: Staging) -> tuple[dict[str, FailedShard], str]:
    """The shards that failed and were not right since, by path, and a sentence where the file is damaged."""
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
    """Keep the failed shards, if there are any or a file that has others."""
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
    """The failed shards after a verification.

    Args:
        before: those that had failed.
        failures: what this verification found.
        right: paths whose bytes came back in it, and were right.
        gone: paths that the record does not have any more.
        commit: where it looked.
        now: since when a shard that is new here has failed.
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
    """What failed, by cause, and what to do about each.

    Args:
        failures: what was found.
        since: the shards that had failed before, too.
        staged: what becomes of the staged file of a shard, for those where it may be the only good copy.
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
    """What is staged of a shard whose bytes the Hub does not have, in a sentence."""
    receipts = [one for one in staging.receipts() if (one.path, one.sha256) == (failure.path, failure.sha256)]
    if not receipts:
        return "It is not staged here any more."
    file = staging.folder / receipts[0].file
    if staging.intact(receipts[0]):
        return f"It is still staged here, intact: {file}"
    return f"The staged file is not intact: {file}"


def named(failed: Mapping[str, FailedShard], count: int = 5) -> str:
    """The sentence about shards that are failed, for a run that has not looked at them; empty where there are none."""
    if not failed:
        return ""
    names = ", ".join(Path(path).stem for path in sorted(failed)[:count])
    more = f" and {len(failed) - count:,} more" if len(failed) > count else ""
    shards = f"{len(failed):,} shard{'s' * (len(failed) > 1)}"
    return f"Failed verification, and not right since: {shards}: {names}{more}."
