"""`bids-push staging`: what is staged on this machine, for which target, and which run's gate is open on it.

It reads the staging root (BIDS_PUSH_STAGING_ROOT, or the folder that is named). If a Prefect server answers, it also
reads what has become of the run that opened each gate. Runs that ended at their gates first get the states that say so
on the server (`tasks.runs.ended_gates`). Nothing else is changed.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter
from prefect.exceptions import ObjectNotFound
from prefect.settings import PREFECT_API_URL

from deployments.automations import OURS
from deployments.entrypoints import STAGING
from deployments.runs import NOT_A_SERVER
from tasks.approve import read_gate
from tasks.disk.paths import printable, staging_root_of
from tasks.disk.staging import SHARD_SUFFIX, Staging
from tasks.report.evidence import Gate
from tasks.runs.ended_gates import name_ended_gates
from tasks.values.errors import PushError
from tasks.values.format import in_units, number

NAMED = 5  # names of strangers that are listed for a target


@dataclass(frozen=True)
class StagedTarget:
    """One target's folder, as it is now."""

    folder: Path
    gate: Gate | None
    shards: int
    """The number of shards that are staged whole."""
    shard_bytes: int
    other_bytes: int
    """The bytes of half-written shards and leftovers: files of ours that no receipt explains."""
    strangers: Mapping[str, str] = field(default_factory=dict)
    """What is not of bids-push: name -> what it is, such as a link, a FIFO, or somebody else's file."""


def targets(root: Path) -> list[StagedTarget]:
    """Return every target below the staging root, the largest first. A folder that is a link is not followed."""
    folders = (
        [path for path in root.iterdir() if not path.is_symlink() and path.is_dir()] if os.path.lexists(root) else []
    )
    found = [staged_target(Staging(folder)) for folder in folders]
    return sorted(found, key=lambda target: -(target.shard_bytes + target.other_bytes))


def links(root: Path) -> list[str]:
    """Return the names below the staging root that are links. bids-push stages nothing there."""
    return sorted(printable(path.name) for path in root.iterdir() if path.is_symlink())


def staged_target(staging: Staging) -> StagedTarget:
    """Return what is in one target's folder, by its receipts."""
    sizes = {entry.name: entry.status.st_size for entry in staging.ours()}
    whole = [receipt for receipt in staging.receipts() if sizes.get(receipt.file) == receipt.size]
    explained = {receipt.file for receipt in whole}
    rest = sum(
        count for name, count in sizes.items() if name.endswith((SHARD_SUFFIX, ".part")) and name not in explained
    )
    shard_bytes = sum(receipt.size for receipt in whole)
    return StagedTarget(staging.folder, read_gate(staging), len(whole), shard_bytes, rest, staging.strangers())


def id_of(run: str) -> UUID:
    """Return a run's id as the server has it. If somebody has edited the gate's file, return one that no run has."""
    try:
        return UUID(run)
    except ValueError:
        return UUID(int=0)


def states(runs: Sequence[str]) -> dict[str, str]:
    """Return the names of the states that these runs are in, as far as a Prefect server knows."""
    if not PREFECT_API_URL.value():
        return {}
    found: dict[str, str] = {}
    try:
        with get_client(sync_client=True) as client:
            name_ended_gates(client, FlowRunFilter(), OURS)
            for run in runs:
                try:
                    state = client.read_flow_run(id_of(run)).state
                except ObjectNotFound:
                    found[run] = "not known to this server"
                else:
                    found[run] = state.name or "" if state else ""
    except NOT_A_SERVER as error:
        print(
            f"PREFECT_API_URL: the Prefect server at {PREFECT_API_URL.value()} does not answer "
            f"({str(error).splitlines()[0]}); gates are as written here.\n",
            file=sys.stderr,
        )
    return found


def gate_line(gate: Gate | None, state: str | None, staged: bool) -> str:
    """Return one line that says whose gate it is, and what has become of it.

    Args:
        gate: the target's gate, if a run has claimed it.
        state: the name of that run's state, if it is known.
        staged: whether anything is left in the folder.
    """
    if gate is None:
        return "no run has claimed it"
    if gate.opened_at_commit is None:
        return f"no gate is open; the last run was {gate.flow_run_name}" + (f" ({state})" if state else "")
    if state is None:
        return f"gate opened by {gate.flow_run_name}, run {gate.flow_run_id}"
    if state in ("Suspended", "Paused"):
        return f"GATE OPEN: {gate.flow_run_name}, run {gate.flow_run_id}"
    again = "; to ask again about what is staged: cleanup-staging/cleanup" if staged else ""
    return f"gate of {gate.flow_run_name}, which is {state}{again}"


def main(folder: Path | None = None) -> int:
    """Print what is staged, target by target, and whose gate each is.

    Args:
        folder: the staging root; None for BIDS_PUSH_STAGING_ROOT.

    Returns:
        The exit code: 0 if all of it could be listed, else 1.
    """
    try:
        root = staging_root_of(folder or "", "the folder")
        found = targets(root)
    except (PushError, OSError) as error:
        print(f"Nothing can be listed: {error}", file=sys.stderr)
        return 1
    if not root.exists():
        print(
            f"There is no folder {root}: nothing has been staged there. If the worker stages elsewhere, set "
            f"BIDS_PUSH_STAGING_ROOT as it has it, or name the folder: {STAGING}"
        )
        return 0
    print(f"Staged in {root}: {in_units(sum(t.shard_bytes + t.other_bytes for t in found))}")
    known = states([target.gate.flow_run_id for target in found if target.gate])
    for target in found:
        gate = target.gate
        print(f"\n{gate.target if gate and gate.target else printable(target.folder.name)}")
        rest = f", and {in_units(target.other_bytes)} that no receipt explains" if target.other_bytes else ""
        print(f"  {number(target.shards, 'shard')}, {in_units(target.shard_bytes)}{rest}")
        print(f"  {gate_line(gate, known.get(gate.flow_run_id) if gate else None, target.shards > 0)}")
        print(f"  {printable(target.folder)}")
        if target.strangers:
            print(f"  not of bids-push, neither opened nor removed: {number(len(target.strangers), 'name')}")
        for name, why in list(target.strangers.items())[:NAMED]:
            print(f"    {name}: {why}")
        if len(target.strangers) > NAMED:
            print(f"    and {len(target.strangers) - NAMED:,} more")
    for name in links(root):
        print(f"\n{name}: a symlink, which is not followed")
    return 0


if __name__ == "__main__":
    from deployments.commands import alone

    alone("staging")
