"""Sending content to a repo, and making it visible in a commit."""

from collections.abc import Iterable, Sequence

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, constants

from tasks.hub.budget import COMMITS, Fence
from tasks.hub.connection import Connection
from tasks.hub.lacking import XET_OFF, RouteMissing, TooLargeForHub, answer_behind


class Sending(Connection):
    """Content that is sent to a target, and commits."""

    def preupload(self, operations: Sequence[CommitOperationAdd], what: str = "files") -> None:
        """Send the content of these files. Content that the Hub has is not sent again, and nothing becomes visible.

        To a Hub without Xet it goes by git-LFS, in this process from then on. A Hub that refuses so much at once is
        sent less at once.

        Args:
            operations: the files.
            what: what they are, for an error's message.

        Raises:
            RouteMissing: the Hub takes content neither by Xet nor by git-LFS.
            TooLargeForHub: the Hub refuses a file by itself.
        """
        parts = [operations]
        try:
            with self.explained(f"sending {len(operations)} {what} to {self.target}"):
                self._preupload(operations)
            return
        except RouteMissing as error:
            self._send_by_lfs(error)
        except TooLargeForHub:
            if len(operations) < 2:
                raise
            half = len(operations) // 2
            parts = [operations[:half], operations[half:]]
        for part in parts:
            self.preupload(part, what)

    def _send_by_lfs(self, error: RouteMissing) -> None:
        """Send by git-LFS from now on, in the whole process, if the missing route is one of Xet."""
        answer = answer_behind(error)
        if answer is None or not answer.by_xet:
            raise error
        constants.HF_HUB_DISABLE_XET = True
        self._does_without(
            f"does not take content by Xet (it answered {answer.status} to {answer.route})",
            f"it is sent by git-LFS. {XET_OFF}=1 in the worker's environment says so beforehand",
        )

    def _preupload(self, operations: Sequence[CommitOperationAdd]) -> None:
        self.api.preupload_lfs_files(
            self.target.repo_id,
            operations,
            repo_type="dataset",
            revision=self.target.revision,
            free_memory=False,  # the same operations are committed next, perhaps more than once
        )

    def wait_for_turn(self, fence: Fence) -> None:
        """Wait until the Hub allows one more commit. The fence is asked meanwhile."""
        COMMITS.wait_for_turn(self.target.endpoint, fence)

    def commit(
        self, operations: Iterable[CommitOperationAdd | CommitOperationDelete], message: str, parent: str
    ) -> str:
        """Make files visible in one commit on top of `parent`.

        Returns:
            The id of the commit.

        Raises:
            StaleParent: the revision does not point at `parent`, or no longer does.
        """
        try:
            with self.explained(f"committing to {self.target}"):
                made = self.api.create_commit(
                    self.target.repo_id,
                    operations,
                    commit_message=message,
                    repo_type="dataset",
                    revision=self.target.revision,
                    parent_commit=parent,
                ).oid
        finally:
            COMMITS.made(self.target.endpoint)  # also if its answer was lost: it may be there
        self.newest.note(made)
        return made
