"""How a repo is set up: made if it is missing, private and gated as asked, with its branch, and open for writing."""

from contextlib import suppress
from typing import Literal

from huggingface_hub.errors import HfHubHTTPError
from huggingface_hub.hf_api import DatasetInfo

from tasks.hub.errors import Refused, RepoIsNotGated, RepoIsPublic, RepoMissing
from tasks.hub.heads import Heads
from tasks.hub.lacking import RouteMissing
from tasks.hub.pages import Pages
from tasks.values.errors import PushError
from tasks.values.models import Gated

MADE_WITH_IT = ".gitattributes"  # a Hub makes each repo with this file in it


class Setup(Heads, Pages):
    """The setup of a target's repo."""

    def prepare(self, private: bool, gated: Gated = "no", make: bool = True) -> bool:
        """Make the repo and the revision if they are missing, and check that the token may write to the repo.

        This is done before a single image is read, so that a run of hours does not fail at its first commit.

        A new repo is set up as asked before anything is in it: who may see it, and whether people have to ask for
        access. The settings of an existing repo are not changed; they must be as asked. The one exception is an
        existing repo that holds nothing yet: a run was killed after it had made the repo, so it is gated now.

        Args:
            private: whether the repo must be private.
            gated: how people have to ask for access. `no` never opens a gate that somebody has set.
            make: whether to make a repo that is missing.

        Returns:
            Whether there is a repo now.

        Raises:
            RepoIsPublic, RepoIsNotGated: an existing repo is not as asked.
        """
        repo_id = self.target.repo_id
        try:
            with self.explained(f"checking the token for {repo_id}"):
                self.api.whoami()
        except RouteMissing:
            self._does_without("cannot say whose the token is", "the next answers show whether it is a good one")
        found = self._found()
        if found is None and not make:
            return False
        if found is None:
            with self.explained(f"opening the dataset repo {repo_id}"):
                self.api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True)
            self.newest.note(None)  # what was seen was of another repo of this name
            found = self._settings()
        self._check_write()
        if problem := self._problem(found, private, gated):
            raise problem
        if gated != "no" and not found.gated:
            self._gate(gated)
        self._make_branch()
        return True

    def wrong_setup(self, private: bool, gated: Gated = "no") -> PushError | None:
        """Return an error if an existing repo is not set up as asked.

        None if it is, or if there is no repo yet.
        """
        found = self._found()
        return self._problem(found, private, gated) if found else None

    def _problem(self, found: DatasetInfo, private: bool, gated: Gated) -> PushError | None:
        """Return an error if the settings of a repo show more to more people than was asked for, or None."""
        if private and found.private is None:
            return RepoIsPublic(
                f"{self.target.endpoint} does not say whether {self.url()} is private, and this run was to publish to "
                "a private repo: nothing was staged or sent. Look who may read it; if everybody who can may have the "
                "dataset, start again with private=false."
            )
        if private and not found.private:
            return RepoIsPublic(
                f"{self.url()} is there already and public, and this run was to publish to a private repo: nothing was "
                "staged or sent by it, and what the repo holds already can be read by everybody. Make the repo private "
                f"in its settings ({self.url()}/settings); or, if everybody may have the dataset, start again with "
                "private=false."
            )
        open_to_more = not found.gated or (gated == "manual" and found.gated != "manual")
        if gated != "no" and open_to_more and (found.gated or self._holds_anything()):
            how = "gives access to everybody who asks" if found.gated else "asks nobody for anything"
            return RepoIsNotGated(
                f"{self.url()} is there already and {how}, and this run was to publish with gated={gated}: nothing was "
                f"staged or sent. Set up its access requests ({gated}) in its settings ({self.url()}/settings); or, if "
                f"that is as it should be, start again with gated={found.gated or 'no'}."
            )
        return None

    def _holds_anything(self) -> bool:
        """Return whether the repo holds a file other than the one that a Hub makes with each repo.

        The main branch and this revision are looked at.
        """
        for revision in {"main", self.target.revision}:
            with suppress(RepoMissing), self.explained(f"listing {self.target.repo_id}"):
                tree = self.api.list_repo_tree(
                    self.target.repo_id, repo_type="dataset", revision=revision, recursive=True
                )
                if any(entry.path != MADE_WITH_IT for entry in tree):
                    return True
        return False

    def _found(self) -> DatasetInfo | None:
        """Return the repo's settings, or None if there is no such repo for this token.

        A Hub that lacks the route is found out right after, when the repo is made, or its head is read.
        """
        try:
            return self._settings(believed=True)
        except RepoMissing:
            return None

    def _settings(self, believed: bool = False) -> DatasetInfo:
        with self.explained(f"looking at {self.target.repo_id}", believed):
            return self._info(None, "private", "gated")

    def _gate(self, gated: Literal["auto", "manual"]) -> None:
        """Have people ask for access to a repo that holds nothing yet, and look whether they have to.

        Raises:
            RepoIsNotGated: the Hub does not do it.
        """
        said = "it took the setting, and the repo is as before"
        try:
            with self.explained(f"having people ask for access to {self.target.repo_id}"):
                self.api.update_repo_settings(self.target.repo_id, repo_type="dataset", gated=gated)
            if self._settings().gated == gated:
                return
        except (RouteMissing, Refused) as error:
            said = str(error)
        raise RepoIsNotGated(
            f"{self.target.endpoint} does not have people ask for access to {self.url()}, and this run was to publish "
            f"with gated={gated}: nothing was staged or sent, and the repo holds nothing ({said}) If everybody who may "
            "see the repo may have the dataset, start again with gated=no; else publish to a Hub that has access "
            "requests."
        )

    def _check_write(self) -> None:
        """Check that the token may write to the repo.

        A Hub that has no route for this question answers it at the first write.
        """
        try:
            with self.explained(f"checking that the token may write to {self.target.repo_id}"):
                self.api.auth_check(self.target.repo_id, repo_type="dataset", write=True)
        except RouteMissing:
            self._does_without("cannot say whether the token may write", "the first write will show it")

    def _make_branch(self) -> None:
        repo_id, revision = self.target.repo_id, self.target.revision
        if revision == "main":
            return
        try:
            with self.explained(f"opening the branch {revision} of {repo_id}"):
                self.api.create_branch(repo_id, repo_type="dataset", branch=revision)
        except RouteMissing:
            if not self.exists():
                raise
        except Refused as error:
            if not isinstance(error.__cause__, HfHubHTTPError) or error.__cause__.response.status_code != 409:
                raise
        else:
            self.newest.note(None)  # what was seen was of another branch of this name
