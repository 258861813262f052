"""Publishes a dataset as a push does, and brings it back, both without Prefect: what the tests of restore share."""

import sys
from collections.abc import Sequence
from pathlib import Path

from tasks.card import side_files
from tasks.commit import commit
from tasks.commit.other_files import Besides, as_recorded
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.load import load
from tasks.plan import plan
from tasks.record.modes import executable_files
from tasks.record.remote import Remote, read_remote
from tasks.restore import Outcome, restore_shard, restore_text
from tasks.restore.target_folder import Into
from tasks.restore.wanted import Subset, wanted
from tasks.stage import stage
from tasks.transfer import transfer
from tasks.write import WRITER_SETTINGS

#: The command that is `back` in a process of its own, and says when it begins: endpoint, repo, token and folder follow.
RESTORE = [sys.executable, "-m", "tests.way_back"]


def publish(hub: Hub, source: Path, staging: Staging, include: Sequence[str] = ()) -> str:
    """Publish a dataset as a push does, without a flow, and return the commit."""
    dataset = load(source, include=include)
    texts = side_files(dataset)
    receipts = [stage(spec, source, staging) for spec in plan(dataset, WRITER_SETTINGS)]
    sent = [one.operation for one in transfer(hub, staging, receipts)]
    remote = read_remote(hub)
    executable = executable_files(dataset, remote.record)
    besides = Besides(lambda record, existing: "---\nlicense: cc0-1.0\n---\n", texts, as_recorded(texts, executable))
    after = commit(hub, remote, [one.line().with_modes(executable) for one in receipts], sent, besides)
    assert isinstance(after, Remote)
    return after.commit


def back(hub: Hub, folder: Path) -> Outcome:
    """Restore all of what is published, file by file."""
    into, outcome, remote = Into(folder), Outcome(), read_remote(hub)
    found = wanted(remote, hub.listing(remote.commit), Subset(), hub.target.repo_id)
    into.prepare()
    into.remove_leftovers(path for path, _ in found.sizes())
    for shard in found.shards:
        restore_shard(hub, remote.commit, into, shard, outcome)
    for path, listed in found.texts.items():
        restore_text(hub, remote.commit, into, path, listed, outcome, path in found.executable)
    outcome.failures |= found.refused
    return outcome


def files(folder: Path) -> dict[str, bytes]:
    """Every file below a folder, those with hidden names too."""
    found = (path for path in folder.rglob("*") if path.is_file() and not path.is_symlink())
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


if __name__ == "__main__":
    endpoint, repo, token, place = sys.argv[1:]
    print("begins", flush=True)
    sys.exit(bool(back(Hub(Target(endpoint, repo), token), Path(place)).failures))
