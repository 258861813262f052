"""`export`: a repo's history as a bare git repository, for `git log` and for leaving: LFS files are pointers there."""

from __future__ import annotations

from pathlib import Path

from dulwich.objects import ObjectID, ShaFile
from dulwich.refs import Ref
from dulwich.repo import Repo as GitRepository

from deployments.local_hub.hub import Hub
from deployments.local_hub.repos import Repo


def export(hub: Hub, repo: Repo, target: Path) -> int:
    """Write every object and ref of a repo to a new folder; returns how many objects. FileExistsError if it exists."""
    target.mkdir(parents=True)
    written = GitRepository.init_bare(str(target))
    count = 0
    try:
        for oid, _ in hub.git.objects(repo.id):
            found = hub.git.read(repo.id, oid)
            assert found is not None
            written.object_store.add_object(ShaFile.from_raw_string(*found))
            count += 1
        for name, oid in hub.git.refs(repo.id).items():
            written.refs[Ref(name.encode())] = ObjectID(oid.encode())
        written.refs.set_symbolic_ref(Ref(b"HEAD"), Ref(b"refs/heads/main"))
    finally:
        written.close()
    return count
