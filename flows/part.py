"""A part of a push that one process of a cluster does: it stages some groups of shards, and sends their content.

What comes back is small: for each shard its receipt, and the operation that makes it visible. The run that asked for
the part, and nobody else, commits (`flows.publish`). It reads no staged byte again, because the process that wrote a
shard has hashed it, and the client has hashed what it sent.

How a part dies and comes back: Dask gives it to another process. There the groups that are staged come back through
Prefect's cache, shards of a group that was begun are found with their receipts, and content that the Hub has is not
sent again. The process that was lost may live on, cut off. Its temporary files have names of their own, its shards have
the same bytes, and it stops as soon as it asks whether the target is still its run's (`LeaseFromAfar`).
"""

import os
import socket
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

from huggingface_hub import constants
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger

from flows.connect import connect
from flows.run_graph import quoted, run_after, that_ran
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.runs.lease import LeaseFromAfar
from tasks.stage import Group, NotStaged, StagedGroup, stage_group
from tasks.transfer import Batches, Transferred, transfer_group
from tasks.values.errors import BadInput, PushError
from tasks.values.models import Identity, Receipt
from tasks.values.settings import Settings

#: Where SLURM, PBS, LSF, HTCondor and Grid Engine say which job a process belongs to.
JOB_IDS = ("SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "_CONDOR_JOB_AD", "JOB_ID")


@dataclass(frozen=True)
class Asked:
    """What is asked for of a group."""

    group: Group
    missing: frozenset[str]
    """The paths (in the repo) of its shards that are wanted."""
    redo: Mapping[str, Identity | None]
    """Of these, those that are embedded even if a staged file seems to be there (`tasks.stage.stage_group`)."""
    refresh: bool = False
    """Whether Prefect's cached result is not to be used, because it is of fewer shards."""

    @property
    def size(self) -> int:
        """The bytes of the source files of the wanted shards."""
        return sum(spec.size for spec in self.group.specs if spec.path in self.missing)

    @property
    def anew(self) -> bool:
        """Whether a result in Prefect's cache is not what is asked for."""
        return self.refresh or bool(self.redo)

    def again(self, receipts: Iterable[Receipt], failed: Collection[str]) -> "Asked | None":
        """Return what has to be asked for again, because the result in Prefect's cache is of fewer shards; or None."""
        unknown = self.missing.difference((receipt.path for receipt in receipts), failed)
        if not unknown or self.refresh:
            return None
        redo = {path: identity for path, identity in self.redo.items() if path in unknown}
        return replace(self, missing=unknown, redo=redo, refresh=True)


@dataclass(frozen=True)
class Errand:
    """What every part of a run has in common."""

    source: Path
    """The dataset's folder, at the path that every machine sees."""
    staging: Path
    """The target's staging folder, at the path that every machine sees."""
    target: Target
    token_block: str
    """The name of the Secret block with the Hub's token; or "", where each machine has it in HF_TOKEN. The token itself
    never travels."""
    run_id: str


class Part:
    """Some groups to stage and to send, by one process.

    It is no dataclass, because Prefect and Dask walk through those, and a part may have thousands of values in it.
    """

    def __init__(self, number: int, errand: Errand, asked: tuple[Asked, ...]) -> None:
        self.number, self.errand, self.asked = number, errand, asked

    @property
    def label(self) -> str:
        """The part in a few words."""
        shards = sum(len(one.missing) for one in self.asked)
        first = min(path for one in self.asked for path in one.missing)
        return f"{self.number}: {Path(first).stem}" + (f" and {shards - 1} more" if shards > 1 else "")


class Done:
    """What became of a part. It is no dataclass, for the reason that `Part` is none."""

    def __init__(self, machine: str) -> None:
        self.machine = machine
        self.receipts: list[Receipt] = []
        """The receipts of the wanted shards that are staged."""
        self.sent: list[Transferred] = []
        """Those of them whose content is on the Hub. One that is missing was damaged before it could be sent."""
        self.failed: dict[str, PushError] = {}
        """Why others could not be staged, by path in the repo."""
        self.ended: set[UUID] = set()
        """The ids of the task runs that it took."""

    def took(self, state: State[Any]) -> None:
        """Note a task run that has ended in this state."""
        if state.state_details.task_run_id:
            self.ended.add(state.state_details.task_run_id)


def parts(asked: Iterable[Asked], errand: Errand, size: int, shards: int, first: int = 1) -> Iterator[Part]:
    """Put together what is asked for, in its order, to parts of about `size` bytes and at most some `shards` each."""
    begun: list[Asked] = []
    number = first
    for one in asked:
        begun.append(one)
        if sum(each.size for each in begun) >= size or sum(len(each.missing) for each in begun) >= shards:
            yield Part(number, errand, tuple(begun))
            begun, number = [], number + 1
    if begun:
        yield Part(number, errand, tuple(begun))


@task(name="part", task_run_name="part {part.label}", cache_policy=NO_CACHE, persist_result=False)
def stage_and_send(part: Part) -> Done:
    """Stage and send a part, on whichever machine this runs.

    Raises:
        BadInput: this machine is not set up as the run is.
        TargetLost: the run does not hold the target any more.
        PushError: the Hub does not take what is sent.
    """
    get_run_logger().info("On %s.", this_machine())
    hub = _hub(part.errand)
    _require_seen(part.errand)
    staging = Staging(part.errand.staging, writer=uuid4().hex[:8])
    fence = LeaseFromAfar(part.errand.target, part.errand.run_id)
    done, ran = Done(this_machine()), []
    for asked in part.asked:
        fence()
        ran.append(_stage(asked, part.errand, staging, fence, done))
    settings = Settings()
    batches = Batches[Receipt](settings.transfer_shards, settings.transfer_bytes // settings.transfers)
    groups = [group for receipt in done.receipts for group in batches.add(receipt)]
    for number, group in enumerate([*groups, *batches.rest()], start=1):
        more = f" and {len(group) - 1} more" if len(group) > 1 else ""
        label = f"{part.number}.{number}: {group[0].name}{more}"
        values = hub, staging, quoted(group), quoted(fence), label
        sent, state = run_after(ran, transfer_group, *values)
        ran = [state]
        done.took(state)
        done.sent += sent
    return done


def _stage(asked: Asked, errand: Errand, staging: Staging, fence: LeaseFromAfar, done: Done) -> State[Any]:
    """Stage a group into `done`, and return a state that says that it ran."""
    stage = stage_group.with_options(result_storage=staging.results, refresh_cache=asked.anew)
    run = cast(Callable[..., State[StagedGroup]], partial(stage, return_state=True))
    arguments = quoted(asked.group), asked.missing, quoted(asked.redo), errand.source, quoted(staging), quoted(fence)
    state = run(*arguments)
    done.took(state)
    try:
        receipts = state.result().receipts
    except NotStaged as error:
        receipts = error.receipts
        done.failed |= error.failures
    wanted = [receipt for receipt in receipts if receipt.path in asked.missing]
    done.receipts += wanted
    if again := asked.again(wanted, done.failed.keys()):
        return _stage(again, errand, staging, fence, done)
    return that_ran(state)


def this_machine() -> str:
    """Return this machine for people: its name, and the job that it runs as, if a batch system has started it."""
    job = next((os.environ[name] for name in JOB_IDS if os.environ.get(name)), "")
    return f"{socket.gethostname()}, job {job}" if job else socket.gethostname()


def _hub(errand: Errand) -> Hub:
    """Return the target on its Hub, with the token that this machine has.

    Raises:
        BadInput: this machine speaks to another Hub, or has a setting that cannot be used.
        NoToken: it has no token.
    """
    if constants.ENDPOINT.rstrip("/") != errand.target.endpoint.rstrip("/"):
        raise BadInput(
            f"{this_machine()}, of the cluster, speaks to the Hub at {constants.ENDPOINT}, and the run to "
            f"{errand.target.endpoint}. Set HF_ENDPOINT alike for the worker and for the cluster's processes "
            "(with SLURM: in job_script_prologue)."
        )
    return connect(errand.target.repo_id, errand.target.revision, errand.token_block)


def _require_seen(errand: Errand) -> None:
    """Check that this machine sees the dataset and the staging folder at the paths that the run has.

    Raises:
        BadInput: it does not.
    """
    for folder, name in ((errand.source, "the dataset"), (errand.staging, "the staging folder")):
        if not folder.is_dir():
            raise BadInput(
                f"{this_machine()}, of the cluster, does not see {name} at {folder}. Dataset and staging root have "
                "to be on storage that all machines have at one path: see docs/cluster.md."
            )
