"""The way back: the files of a published dataset, from the Hub into a folder."""

from functools import partial
from typing import Any, cast

from prefect import flow
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import TaskRunner, ThreadPoolTaskRunner

from flows.connect import connect
from flows.parameters import BlockName, RepoId, Revision, Texts
from flows.restoring import Restoring, folder_of
from flows.run_graph import Steps, quoted
from flows.target import ended_by
from tasks.restore import look_at, read_published
from tasks.restore.wanted import Subset, wanted
from tasks.runs.this_run import named_for_the_night
from tasks.values.errors import PushError

#: Groups of shards at the same time, and in each of them `tasks.restore.STREAMS` shards. A shard holds about a
#: megabyte; receiving, hashing and writing release the GIL.
WORKERS = cast(TaskRunner[PrefectFuture[Any]], ThreadPoolTaskRunner(max_workers=4))


@flow(
    name="restore-bids",
    flow_run_name=partial(named_for_the_night, "restore"),
    task_runner=WORKERS,
    persist_result=False,
)
def restore_bids(
    repo_id: RepoId,
    into: str,
    revision: Revision = "main",
    subjects: Texts = [],  # noqa: B006 - Prefect reads the default for the form, and nobody changes it
    sessions: Texts = [],  # noqa: B006
    datatypes: Texts = [],  # noqa: B006
    paths: Texts = [],  # noqa: B006
    token_block: BlockName = "",
) -> State:
    """Bring a published dataset, or a part of it, back from the Hub into a folder, each file checked by its sha256.

    What is in the folder already with the right bytes is not fetched again, so the same run goes on after any end.
    Nothing in the folder is overwritten. A repo that everybody may read needs no token, any other one to read.

    Args:
        repo_id: The dataset repo on the Hub, as namespace/name.
        into: The folder for the dataset, as the worker sees it. Made if it is missing.
        revision: A branch, a tag or a commit.
        subjects: Only these subjects, as sub-01 or 01. Empty: all. Files at the dataset's root always come.
        sessions: Only these sessions, as ses-1 or 1. Empty: all.
        datatypes: Only these datatypes, for example anat. Empty: all.
        paths: Only the files that these patterns name, as .gitignore has them, relative to the dataset's root: sub-01/,
            *_T1w.nii.gz, derivatives/fmriprep/. One with ! before it takes files out again. Empty: all.
        token_block: The name of a Prefect Secret block that holds the Hub's token. Empty: HF_TOKEN of the worker.
    """
    try:
        hub, folder, steps = connect(repo_id, revision, token_block, to_read=True), folder_of(into), Steps()
        remote, listing = steps.take(read_published, hub)
        where = f"{hub.target} (commit {remote.commit[:12]})"
        files = wanted(remote, listing, Subset(subjects, sessions, datatypes, paths), where)
        steps.take(look_at, folder, quoted(files))
        restoring = Restoring(hub, remote, folder, files, where, steps)
        return restoring.done()
    except (PushError, OSError) as error:
        return ended_by(error)
