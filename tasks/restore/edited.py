"""What to do where somebody has edited the publication record by hand: that is said, with the last commit before it.

A push publishes over such a record and mends it. Who restores may have neither the dataset nor the right to write, so
the way out for them is an earlier commit, whose record is as a push has written it.
"""

from prefect import task
from prefect.cache_policies import NO_CACHE

from tasks.hub.client import Hub
from tasks.hub.retries import RETRIES
from tasks.record.remote import Remote, read_remote
from tasks.values.errors import PushError

LOOKED_AT = 20  # earlier commits whose records are read; a few requests each


def edited(remote: Remote) -> bool:
    """Return whether somebody has edited the record, or damaged it: each push writes it whole, in one commit."""
    return bool(remote.damaged)


@task(
    name="look-back",
    task_run_name="look for the last commit whose record nobody has edited",
    cache_policy=NO_CACHE,
    persist_result=False,
    **RETRIES,
)
def last_unedited(hub: Hub, commit: str) -> str:
    """Return the last commit below this one whose record is as a push has written it; empty if none can be found."""
    try:
        for earlier in hub.history(commit)[1 : LOOKED_AT + 1]:
            remote = read_remote(hub, earlier)
            if (remote.record.shards or remote.record.texts) and not edited(remote):
                return earlier
    except PushError:
        pass  # a Hub without a list of commits, or that is away by now: it is said without a commit
    return ""


def way_out(remote: Remote, earlier: str = "") -> str:
    """Return the sentences about a record that somebody has edited.

    Args:
        remote: what the repo holds.
        earlier: the last commit whose record nobody has edited; empty if it is not known.
    """
    what = "; ".join(remote.damaged[:3]) + ("; and more" if remote.damaged[3:] else "")
    where = f"commit {earlier}" if earlier else "a commit before that, from the repo's list of commits"
    return (
        f"Somebody has edited the publication record on the Hub by hand, or damaged it ({what}). It may name too few "
        f"files, or say wrong things of them. Two ways out: restore {where}, by giving it as the revision; or have "
        "push-bids started once by those who publish the dataset, which reads what the shards hold and writes the "
        "record anew, and then start this again."
    )
