"""The repo's own rules: what its .gitignore keeps out of every commit, and what its .gitattributes keeps out of LFS."""

from collections.abc import Iterable

from huggingface_hub import CommitOperationAdd
from pathspec import GitIgnoreSpec

from tasks.hub.client import Hub
from tasks.values.errors import PushError

LFS_RULE = "*.parquet filter=lfs diff=lfs merge=lfs -text"


class IgnoredByRepo(PushError):
    """The repo's .gitignore keeps a file of ours out of every commit."""


class NotInLfs(PushError):
    """The repo's .gitattributes keeps shards out of LFS, so that the Hub would not store them as large files."""


def require_kept(hub: Hub, operations: Iterable[CommitOperationAdd], large: bool = True) -> None:
    """Check that the repo takes these files, as the Hub answered when the client asked about them.

    Without this check, the client silently leaves an ignored file out of the commit, and sends a file that is not for
    LFS as a text.

    Args:
        hub: the target.
        operations: the files.
        large: whether they must be stored in LFS.

    Raises:
        IgnoredByRepo: the repo's .gitignore names one of them.
        NotInLfs: the repo keeps one of them out of LFS, with `large`.
    """
    for operation in operations:
        path = operation.path_in_repo
        if operation._should_ignore:
            raise IgnoredByRepo(
                f"{path} cannot be published: .gitignore of {hub.target} keeps it out of every commit"
                f"{_by_rule(hub, '.gitignore', path)}. Take that rule out of the file on the Hub, and start again. "
                "Nothing of this batch was committed; what is staged stays."
            )
        if large and operation._upload_mode != "lfs":
            raise NotInLfs(
                f"{path} cannot be published: .gitattributes of {hub.target} keeps it out of LFS, where shards "
                f"belong{_by_rule(hub, '.gitattributes', path)}. Take that rule out of the file on the Hub, or write "
                f"as its last line: {LFS_RULE}. Then start again. Nothing of this batch was committed; what is staged "
                "stays."
            )


def _by_rule(hub: Hub, file: str, path: str) -> str:
    """Return the last line of a file of rules that is about a path, as part of a sentence; empty if there is none."""
    lines = (hub.read(file, hub.head()) or b"").decode(errors="replace").splitlines()
    found = ""
    for number, line in enumerate(lines, start=1):
        words = line.split()
        pattern = line if file == ".gitignore" else " ".join(words[:1])
        if pattern and not pattern.startswith(("#", "!")) and GitIgnoreSpec.from_lines([pattern]).match_file(path):
            found = f", by line {number}: {line.strip()}"
    return found
