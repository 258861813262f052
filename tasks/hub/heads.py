"""The head of a target, as the Hub names it. One that is older than one seen before is not taken for the head."""

import time

from tasks.hub.budget import warn
from tasks.hub.connection import Connection
from tasks.hub.errors import Refused, RepoMissing, StaleHead
from tasks.hub.lacking import RouteMissing
from tasks.values.errors import BadInput

STALE_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between looks at a head that is too old; the last one repeats
STALE_PATIENCE = 180.0  # seconds to wait in all for a head that is too old


class Heads(Connection):
    """The head of a target."""

    def head(self, as_spelled: bool = False, at_least: str | None = None) -> str:
        """Return the commit that the revision points at now.

        A Hub that names an older commit than before is behind, so this waits for it. The repo's history tells which
        commit is older. A history that was written anew (squashed or forced) has no older and newer; then the head
        counts as it is.

        Args:
            as_spelled: whether to refuse a repo that is called otherwise on the Hub. It finds a repo under any
                capitals, and under the name that it had before it was moved; and one repo must not be two targets.
            at_least: a commit that the head must not be older than, besides all heads seen before.

        Raises:
            StaleHead: the Hub stays behind for longer than `STALE_PATIENCE`.
            BadInput: the repo is called otherwise.
        """
        waited, pauses = 0.0, iter(STALE_PAUSES)
        pause = STALE_PAUSES[0]
        while True:
            found = self._head(as_spelled)
            later = next((seen for seen in (self.newest.commit, at_least) if seen and self._before(found, seen)), None)
            if later is None:
                self.newest.note(found)
                return found
            if waited >= STALE_PATIENCE:
                self.newest.note(None)  # from the next run on, the head that is named then counts
                raise StaleHead(
                    f"for {waited:.0f} s the Hub has named {found[:12]} as the head of {self.target}, which is older "
                    f"than {later[:12]}, which was there already. One of its machines may be behind: start again when "
                    "the Hub is well. If somebody has set the branch back on purpose, or made the repo anew, start "
                    "again too: the next run takes it as it is."
                )
            pause = next(pauses, pause)
            warn(
                f"The Hub names {found[:12]} as the head of {self.target}, which is older than {later[:12]}, seen "
                f"before. Looking again in {pause:.0f} s."
            )
            time.sleep(pause)
            waited += pause

    def exists(self) -> bool:
        """Return whether the repo and the revision exist."""
        try:
            self.head()
        except RepoMissing:
            return False
        return True

    def _head(self, as_spelled: bool) -> str:
        """Return the commit that the Hub names as the head."""
        repo_id = self.target.repo_id
        with self.explained(f"reading the head of {self.target}"):
            found = self._info(self.target.revision, "sha")
        if as_spelled and found.id != repo_id and found.id.lower() == repo_id.lower():
            raise BadInput(f"repo_id: {repo_id} is called {found.id} on the Hub. Write its capitals as they are there.")
        if as_spelled and found.id.lower() != repo_id.lower():
            raise BadInput(
                f"repo_id: {repo_id} has been moved, and is called {found.id} on the Hub. Write that name: under two "
                "names two runs would work at one repo."
            )
        if found.sha is None:
            raise Refused(f"{self.target.endpoint} named no commit for {self.target}")
        return found.sha

    def _before(self, commit: str, later: str) -> bool:
        """Return whether `later` was made on top of `commit`, as far as the Hub can say."""
        if commit == later:
            return False
        try:
            if later in self.history(commit):
                return False
        except (RepoMissing, RouteMissing, Refused):
            return False  # a Hub that has no list of commits to tell by
        try:
            return commit in self.history(later)
        except (RepoMissing, RouteMissing, Refused):
            return True  # a Hub that does not know the later one yet is behind: the route itself has just answered

    def history(self, commit: str) -> list[str]:
        """Return a commit and all commits below it, the newest first."""
        with self.explained(f"reading the history of {self.target}"):
            found = self.api.list_repo_commits(self.target.repo_id, repo_type="dataset", revision=commit)
        return [one.commit_id for one in found]
