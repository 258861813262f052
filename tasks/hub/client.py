"""The Hub as bids-push needs it: one target, read at pinned commits, with errors for people.

Everything goes through huggingface_hub's public client, so the endpoint may be huggingface.co or any server that speaks
the same protocol. Each call is made inside `explained`, which turns the client's exceptions into `PushError`s. There
are two sorts: errors that pass by themselves (`Transient`: worth another try), and errors that a person has to mend.

A Hub need not have every route (`tasks.hub.lacking`). What a run can do without, it goes on without, and says so once:
who the token is of, whether it may write, the check of a card's YAML, the question for some files by name, Xet. What it
cannot do without ends it with `RouteMissing`, which names the route.

What is read is true for one commit only, so every method that reads takes the commit to read at. A head that is older
than one seen before is not taken for the head (`Hub.head`).
"""

import hashlib
import io
import os
import re
import time
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, BinaryIO, Literal, cast
from urllib.parse import quote

import httpx2
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token, hf_hub_url
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.hf_api import DatasetInfo, RepoFile
from huggingface_hub.utils import (
    build_hf_headers,
    disable_progress_bars,
    get_session,
    hf_raise_for_status,
    parse_ratelimit_headers,
)
from huggingface_hub.utils._xet import abort_xet_session

from tasks.disk.staging import Target
from tasks.hub.budget import COMMITS, COMMITS_USED_UP, REQUESTS, Fence, warn
from tasks.hub.lacking import (
    NEEDED,
    NO_ROUTE,
    XET_OFF,
    Answer,
    RouteMissing,
    TooLargeForHub,
    answer_behind,
    came_through_the_client,
    in_a_line,
    lfs_failed,
    route_missing,
    too_large,
)
from tasks.hub.newest_head import NewestHead
from tasks.values.errors import BadInput, PushError
from tasks.values.models import Gated, ListedFile, Listing

#: The number of tries by hf_xet itself, which says nothing while it waits (by default it goes on for six minutes).
#: After these the task is tried again, where people see it. hf_xet reads this when its session begins.
os.environ.setdefault("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "2")
if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
    disable_progress_bars()  # groups that are sent at the same time would write their bars over each other

CANNOT_CHECK = "cannot check the YAML of a card"
MADE_WITH_IT = ".gitattributes"  # a Hub makes each repo with this file in it
PATHS_A_REQUEST = 100  # paths in one paths-info request; keeps the answer small
STALE_PAUSES = (1.0, 2.0, 4.0, 8.0, 15.0)  # seconds between looks at a head that is too old; the last one repeats
STALE_PATIENCE = 180.0  # seconds to wait in all for a head that is too old
#: Bytes of the largest text that is read into memory whole. The record of 100,000 shards has about 100 MB.
LARGEST_TEXT = 256 << 20


class NoToken(PushError):
    """No token is configured."""


class TokenRejected(PushError):
    """The Hub does not know the token, or it has expired."""


class NotAllowed(PushError):
    """The token may not do this to the repo."""


class RepoMissing(PushError):
    """The repo or the revision does not exist, or it is private and this token may not see it."""


class Refused(PushError):
    """The Hub refused the request."""


class NoSuchFile(Refused):
    """The Hub says that it has no such file at that commit."""


class StaleParent(PushError):
    """Somebody else committed to the revision since it was read."""


class StaleHead(PushError):
    """The Hub names a head that is older than one it named before."""


class OversizedFile(PushError):
    """A text in the repo is too large to be what it should be."""


class RepoIsPublic(PushError):
    """The repo exists already and everybody may read it, although a private one was asked for."""


class RepoIsNotGated(PushError):
    """The repo exists already and people need not ask for access, although that was asked for."""


class Transient(PushError):
    """The Hub could not answer this time. Another try may succeed."""

    retry_after: float | None = None  # seconds, if the Hub said so
    patience: float = 15 * 60.0  # seconds that one call waits in all if the Hub asks for pauses


class CommitsUsedUp(Transient):
    """The account has made as many commits in an hour as the Hub allows."""

    retry_after = 10 * 60.0  # the Hub says "in about 1 hour", which may be up to an hour too much
    patience = 2 * 3600.0


class HubUnreachable(Transient):
    """The Hub gave no answer at all."""


def break_off() -> None:
    """Break off what is being sent through Xet in all threads: it raises there at once. What is sent later is not."""
    abort_xet_session()  # type: ignore[no-untyped-call]


def as_push_error(error: Exception, endpoint: str, what: str) -> PushError | None:
    """Return the error for people that a client's exception means, or None if the Hub did not cause it.

    Args:
        error: what the client raised.
        endpoint: the Hub's address.
        what: what was being done, for the message.
    """
    if isinstance(error, HFValidationError):
        return BadInput(f"{what}: {error}")
    if isinstance(error, HfHubHTTPError):
        return _as_refusal(error, endpoint, what)
    if cause := lfs_failed(error):
        return as_push_error(cause.error, endpoint, f"{what}, {cause.path}")
    answer = answer_behind(error)
    if isinstance(error, httpx2.TransportError | OSError | RuntimeError) and answer and answer.by_xet:
        return _explained(answer, answer.words, endpoint, what)
    if isinstance(error, httpx2.TransportError | ConnectionError | TimeoutError):
        return HubUnreachable(
            f"{what}: the Hub at {endpoint} does not answer ({type(error).__name__}: {in_a_line(str(error))}). Check "
            "the network and HF_ENDPOINT; what is staged or restored stays, and the next run goes on from here."
        )
    if isinstance(error, ValueError | LookupError | TypeError | AttributeError) and came_through_the_client(error):
        return _unreadable(error, answer, endpoint, what)
    return None


def _as_refusal(error: HfHubHTTPError, endpoint: str, what: str) -> PushError:
    said = in_a_line(error.server_message or str(error).strip().splitlines()[0])
    answer = Answer.of(error.response, said)
    if answer.status in NO_ROUTE and answer.status != 404:  # whatever code comes with it
        return route_missing(what, endpoint, answer)
    if isinstance(error, RevisionNotFoundError):
        return RepoMissing(f"{what}: the revision is not there ({said}).")
    if isinstance(error, GatedRepoError):
        return NotAllowed(
            f"{what}: people have to ask for access to this repo ({said}). Ask on its page on the Hub, with the "
            "account of the token in HF_TOKEN, and start again when it is granted."
        )
    if isinstance(error, EntryNotFoundError) and "/resolve/" in answer.url.path:
        return NoSuchFile(f"{what}: {endpoint} answered {answer.status}: {said}")
    if isinstance(error, RepositoryNotFoundError):
        # The client takes a 401 without a code for a private repo, so the repo's own error comes before the status.
        return _repo_missing(said, endpoint, what)
    if answer.status == 429 and COMMITS_USED_UP.search(said):
        return CommitsUsedUp(f"{what}: {endpoint} allows no more commits for now ({said}).")
    explained = _explained(answer, said, endpoint, what)
    if isinstance(explained, Transient):
        explained.retry_after = _retry_after(error.response)
    return explained


def _explained(answer: Answer, said: str, endpoint: str, what: str) -> PushError:
    """Return the error for people that an answer means.

    A 404 is taken for a repo that is missing. `Hub.explained` looks whether it is the route instead.

    Args:
        answer: the answer.
        said: the Hub's own words.
        endpoint: the Hub's address.
        what: what was being done.
    """
    status = answer.status
    if status == 401:
        return TokenRejected(f"{what}: {endpoint} does not accept the token ({said}). Make a new one, set HF_TOKEN.")
    if status == 403 and answer.is_elsewhere(endpoint):
        return Transient(
            f"{what}: the store at {answer.host} does not take the address that {endpoint} has signed for it (403: "
            f"{said}). It may have expired; the next try asks for another one. If it stays so, compare the two clocks."
        )
    if status == 403:
        return NotAllowed(f"{what}: the token may not do that ({said}). It needs the write role for this namespace.")
    if status == 404:
        return _repo_missing(said, endpoint, what)
    if status in NO_ROUTE:
        return route_missing(what, endpoint, answer)
    if status == 412:
        return StaleParent(f"{what}: {said}")
    if status == 413:
        return too_large(what, endpoint, answer)
    if status in (408, 429) or status >= 500:
        return Transient(f"{what}: {endpoint} answered {status} ({said}). The next try goes on from here.")
    return Refused(f"{what}: {endpoint} answered {status}: {said}")


def _repo_missing(said: str, endpoint: str, what: str) -> RepoMissing:
    return RepoMissing(
        f"{what}: {endpoint} has no such dataset repo, or it is private and the token is not of an account that may "
        f"see it ({said}). Check the repo's name and HF_TOKEN."
    )


def _unreadable(error: Exception, answer: Answer | None, endpoint: str, what: str) -> PushError:
    """Return the error for people if the client cannot make sense of an answer, which may be a refusal all the same."""
    said = in_a_line(f"{type(error).__name__}: {error}")
    if answer and answer.status >= 400:
        return _explained(answer, said, endpoint, what)
    return Refused(
        f"{what}: {endpoint} answered something that huggingface_hub cannot read ({said}). It may be a page of a proxy "
        "or of a login, or a Hub that speaks another version of the protocol. Check HF_ENDPOINT."
    )


def _retry_after(response: httpx2.Response) -> float | None:
    """Return the seconds to wait by Retry-After, or by the RateLimit headers of a 429; None if the Hub did not say."""
    said = response.headers.get("Retry-After", "")
    if said.isdigit():
        return float(said)
    limit = parse_ratelimit_headers(response.headers) if response.status_code == 429 else None
    return float(limit.reset_in_seconds) if limit else None


def require_address(endpoint: str) -> None:
    """Check that HF_ENDPOINT is an address at all.

    Raises:
        BadInput: it is not.
    """
    try:
        url = httpx2.URL(endpoint)
        good = endpoint.startswith(("http://", "https://")) and url.host != "" and not re.search(r"\s", endpoint)
    except httpx2.InvalidURL:
        good = False
    if not good:
        raise BadInput(
            f"HF_ENDPOINT: {endpoint!r} is no address of a Hub. Set it to one, for example https://huggingface.co, in "
            "the worker's environment, or unset it."
        )


def require_token(token: str) -> None:
    """Check that a token can be sent at all. The token is never shown, whatever is wrong with it.

    Raises:
        BadInput: it has characters that no token has.
    """
    if not re.fullmatch(r"[!-~]+", token):
        raise BadInput(
            "the token for the Hub has a space, a line break or a letter in it that no token has, perhaps from "
            "copying. Copy it once more: into HF_TOKEN of the worker's environment, or into the Secret block."
        )


@dataclass(frozen=True)
class Hub:
    """One target on its Hub. The token is never shown in a repr, a log, an artifact or a result."""

    target: Target
    token: str = field(repr=False)
    newest: NewestHead = field(default_factory=NewestHead, repr=False, compare=False)
    """The newest head seen so far."""
    lacks: set[str] = field(default_factory=set, repr=False, compare=False)
    """What this run has found that the Hub lacks, and goes on without."""

    @classmethod
    def connect(cls, repo_id: str, revision: str, token: str | None = None, to_read: bool = False) -> "Hub":
        """Return the target on the endpoint that huggingface_hub is set up for (HF_ENDPOINT).

        Args:
            repo_id: the repo.
            revision: the branch; to read, also a tag or a commit.
            token: the token; None for the one that is configured.
            to_read: whether the target is only read. That needs no token where everybody may see the repo.

        Raises:
            NoToken: no token was given, and none is configured.
            BadInput: HF_ENDPOINT is no address, or the token cannot be one.
        """
        require_address(constants.ENDPOINT)
        token = token or get_token()
        if not token and to_read:
            return cls(Target(constants.ENDPOINT, repo_id, revision), "")
        if not token:
            raise NoToken(
                "no token for the Hub: set HF_TOKEN in the worker's environment, run `hf auth login` there, or name a "
                "Prefect Secret block in the token_block parameter. It needs the write role for the repo's namespace."
            )
        require_token(token)
        return cls(Target(constants.ENDPOINT, repo_id, revision), token)

    @cached_property
    def api(self) -> HfApi:
        """huggingface_hub's client for this endpoint and token."""
        return _Api(self, endpoint=self.target.endpoint, token=self.token or False)  # False: none, and not its own one

    @contextmanager
    def explained(self, what: str, believed: bool = False) -> Iterator[None]:
        """Turn what the client raises in this block into a `PushError`.

        Args:
            what: what is being done; the message begins with it.
            believed: whether a 404 is taken for a repo that is missing, without a look at other routes.
        """
        REQUESTS.watch(get_session())
        try:
            yield
        except PushError:
            raise
        except Exception as error:
            explained = as_push_error(error, self.target.endpoint, what)
            if explained is None:
                raise
            raise (explained if believed else self._what_is_missing(explained, error, what)) from error

    def _what_is_missing(self, explained: PushError, error: Exception, what: str) -> PushError:
        """Return the error for people that a 404 means: that the repo, a file in it, or the route is missing."""
        answer = answer_behind(error)
        if answer is None or answer.status != 404 or not isinstance(explained, RepoMissing | NoSuchFile):
            return explained
        if cause := lfs_failed(error):
            what = f"{what}, {cause.path}"
        repo_id = self.target.repo_id
        if answer.is_of_a_file(repo_id) and isinstance(explained, NoSuchFile):
            return explained
        if answer.is_about(repo_id) and not self._is_there(answer.revision(repo_id), what):
            return explained
        if answer.is_of_a_file(repo_id):
            return NoSuchFile(f"{what}: {self.target.endpoint} answered 404")
        return route_missing(what, self.target.endpoint, answer)

    def _is_there(self, revision: str | None, what: str) -> bool:
        """Return whether any route shows the repo, at a revision if there is one, after another route did not.

        Raises:
            Transient: the Hub cannot answer this.
        """
        repo_id = self.target.repo_id

        def by_its_files() -> object:
            return next(iter(self.api.list_repo_tree(repo_id, repo_type="dataset", revision=revision)), None)

        def by_its_branches() -> bool:
            found = self.api.list_repo_refs(repo_id, repo_type="dataset")
            return revision is None or revision in (one.name for one in (*found.branches, *found.tags))

        for look in (lambda: self.api.dataset_info(repo_id, revision=revision), by_its_files, by_its_branches):
            try:
                if look() is not False:
                    return True
            except Exception as error:
                explained = as_push_error(error, self.target.endpoint, what)
                if explained is None or isinstance(explained, Transient):
                    raise explained or error from error
        return False

    def _does_without(self, lacks: str, how: str) -> None:
        """Note that the Hub lacks something that a run can do without, and say so once."""
        if lacks not in self.lacks:
            self.lacks.add(lacks)
            warn(f"{self.target.endpoint} {lacks}; {how}.")

    def url(self, path: str = "", at: str | None = None) -> str:
        """Return the address of the page for people of the repo, or of a file in it.

        Args:
            path: the file; empty for the repo itself.
            at: the commit or branch of the file; None is the target's revision.
        """
        page = f"{self.target.endpoint}/datasets/{self.target.repo_id}"
        return f"{page}/blob/{quote(at or self.target.revision, safe='')}/{quote(path)}" if path else page

    def branch_url(self) -> str:
        """Return the address of the page for people of the target: the repo at its revision."""
        revision = self.target.revision
        return self.url() if revision == "main" else f"{self.url()}/tree/{quote(revision, safe='')}"

    def commit_url(self, commit: str) -> str:
        """Return the address of the page for people of a commit."""
        return f"{self.url()}/commit/{commit}"

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

    def _info(self, revision: str | None, *fields: Any) -> DatasetInfo:
        """Return these fields of the Hub's information about the repo.

        All of the information would name every file, which takes long in a large repo.
        """
        info = None
        with suppress(BadRequestError):  # of a Hub that does not know what is asked
            info = self.api.dataset_info(self.target.repo_id, revision=revision, expand=list(fields))
        if any(getattr(info, name, None) is None for name in fields):  # this Hub cannot give single fields
            info = self.api.dataset_info(self.target.repo_id, revision=revision)
        return cast(DatasetInfo, info)

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

    def exists(self) -> bool:
        """Return whether the repo and the revision exist."""
        try:
            self.head()
        except RepoMissing:
            return False
        return True

    def head(self, as_spelled: bool = False, at_least: str | None = None) -> str:
        """Return the commit that the revision points at now.

        A Hub that names an older commit than before is behind, so this waits for it. The repo's history tells which
        commit is older. A history that was written anew (squashed or forced) has no older and newer; then the head
        counts as it is.

        Args:
            as_spelled: whether to refuse a repo whose name has other capitals on the Hub. The Hub finds a repo under
                any capitals, and one repo must not be two targets.
            at_least: a commit that the head must not be older than, besides all heads seen before.

        Raises:
            StaleHead: the Hub stays behind for longer than `STALE_PATIENCE`.
            BadInput: the name has other capitals.
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

    def _head(self, as_spelled: bool) -> str:
        """Return the commit that the Hub names as the head."""
        repo_id = self.target.repo_id
        with self.explained(f"reading the head of {self.target}"):
            found = self._info(self.target.revision, "sha")
        if as_spelled and found.id != repo_id and found.id.lower() == repo_id.lower():
            raise BadInput(f"repo_id: {repo_id} is called {found.id} on the Hub. Write its capitals as they are there.")
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

    def listing(self, commit: str) -> Listing:
        """Return every file at `commit`, from all pages of the listing."""
        with self.explained(f"listing {self.target}"):
            tree = self.api.list_repo_tree(self.target.repo_id, repo_type="dataset", revision=commit, recursive=True)
            files = {entry.path: _listed(entry) for entry in tree if isinstance(entry, RepoFile)}
        return Listing(commit, files)

    def listed(self, paths: Sequence[str], commit: str) -> dict[str, ListedFile]:
        """Return those of these files that exist at `commit`."""
        found: dict[str, ListedFile] = {}
        try:
            for start in range(0, len(paths), PATHS_A_REQUEST):
                part = list(paths[start : start + PATHS_A_REQUEST])
                with self.explained(f"asking {self.target} for {len(part)} files"):
                    entries = self.api.get_paths_info(self.target.repo_id, part, repo_type="dataset", revision=commit)
                found |= {entry.path: _listed(entry) for entry in entries if isinstance(entry, RepoFile)}
        except RouteMissing:
            self._does_without("cannot be asked for some files by name", "all of the repo's files are listed instead")
            files = self.listing(commit).files
            found = {path: files[path] for path in paths if path in files}
        return found

    def read_back(self, path: str, commit: str, into: BinaryIO) -> tuple[int, str]:
        """Stream a file's bytes into `into`, as the Hub sends them now.

        The client's own downloads verify nothing. So the caller compares what this returns with a receipt.

        Returns:
            The number of bytes and their sha256, both taken here.
        """
        digest, size = hashlib.sha256(), 0
        for chunk in self._stream(path, commit, f"reading {path} back from {self.target}", httpx2.codes.OK, {}):
            digest.update(chunk)
            size += len(chunk)
            into.write(chunk)
        return size, digest.hexdigest()

    def stream(self, path: str, commit: str, start: int, size: int) -> Generator[bytes, None, None]:
        """Yield a part of a file's bytes as they come, as the Hub sends them now. They are not verified.

        Args:
            path: the file.
            commit: the commit of the file.
            start: the first byte.
            size: how many bytes, at least one.

        Raises:
            Refused: the file is not there, is shorter, or this Hub sends no parts of files.
            HubUnreachable: fewer bytes came.
        """
        what, left = f"reading {path} from {self.target}", size
        asked = {"Range": f"bytes={start}-{start + size - 1}"}
        for chunk in self._stream(path, commit, what, httpx2.codes.PARTIAL_CONTENT, asked):
            left -= len(chunk)
            yield chunk
        if left:
            raise HubUnreachable(f"{what}: {left} bytes of {size} did not come. The next try goes on from here.")

    def _stream(
        self, path: str, commit: str, what: str, expected: httpx2.codes, more: Mapping[str, str]
    ) -> Iterator[bytes]:
        """Yield what the Hub answers to a GET of a file, as it is stored.

        Args:
            path: the file.
            commit: the commit of the file.
            what: what is being done, for an error's message.
            expected: the status of an answer that holds what was asked for.
            more: more headers of the request.
        """
        url = hf_hub_url(self.target.repo_id, path, repo_type="dataset", revision=commit, endpoint=self.target.endpoint)
        headers = {**build_hf_headers(token=self.token or False), "Accept-Encoding": "identity", **more}
        with (
            self.explained(what),
            get_session().stream("GET", url, headers=headers, follow_redirects=True) as response,
        ):
            if response.is_error:
                response.read()  # the error's body, for its message
            hf_raise_for_status(response)
            if (response.status_code, expected) == (httpx2.codes.OK, httpx2.codes.PARTIAL_CONTENT):
                raise RouteMissing(
                    f"{what}: {self.target.endpoint} sends whole files alone, and no parts of them as "
                    f"asked for (Range), which this needs; {NEEDED}."
                )
            if response.status_code != expected:
                raise Refused(f"{what}: {self.target.endpoint} answered {response.status_code} and not {expected}.")
            yield from response.iter_raw()

    def read(self, path: str, commit: str) -> bytes | None:
        """Return a text's bytes at `commit`, or None if there is no such file.

        Raises:
            OversizedFile: it is larger than any text that a push writes.
        """
        buffer = _Text(f"{path} in {self.target}")
        try:
            self.read_back(path, commit, buffer)
        except NoSuchFile as error:
            self._require_not_listed(path, commit, error)
            return None
        return buffer.getvalue()

    def _require_not_listed(self, path: str, commit: str, error: NoSuchFile) -> None:
        """Check that a file which the Hub did not send is not in the repo.

        A Hub that sends no files would look like one whose repo holds no record, and all would be published anew.

        Raises:
            RouteMissing: the repo holds the file.
        """
        answer = answer_behind(error)
        if answer and self.listed([path], commit):
            raise route_missing(f"reading {path}, which {self.target} holds", self.target.endpoint, answer) from error

    def sha256_of(self, path: str, commit: str) -> str | None:
        """Return the sha256 of a small file's bytes at `commit`, or None if there is no such file."""
        data = self.read(path, commit)
        return None if data is None else hashlib.sha256(data).hexdigest()

    def preupload(self, operations: Sequence[CommitOperationAdd], what: str = "files") -> None:
        """Send the content of these files. Content that the Hub has is not sent again, and nothing becomes visible.

        A Hub without Xet is sent it by git-LFS, in this process from then on; one that refuses so much at once is sent
        less at once.

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
        """Send by git-LFS from now on, in all of this process, if the route that is missing is one of Xet."""
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


class _Api(HfApi):
    """huggingface_hub's client, which goes on without what a commit does not need."""

    def __init__(self, hub: Hub, **options: Any) -> None:
        super().__init__(**options)
        self._hub = hub

    def _validate_yaml(self, content: str, *, repo_type: str | None = None, token: bool | str | None = None) -> None:
        """Have the Hub check a card's YAML, if it can. The client asks before each commit with a card."""
        if CANNOT_CHECK in self._hub.lacks:
            return
        what = f"having the card of {self._hub.target} checked"
        with self._hub.explained(what):
            question = {"content": content, "repoType": repo_type}
            headers = self._build_hf_headers(token=token)
            response = get_session().post(f"{self.endpoint}/api/validate-yaml", json=question, headers=headers)
            if response.status_code in NO_ROUTE:
                self._hub._does_without(CANNOT_CHECK, "the card is committed as it is")
            elif response.status_code == httpx2.codes.BAD_REQUEST:
                raise Refused(f"{what}: {self.endpoint} does not take it ({in_a_line(response.text)}).")
            else:
                hf_raise_for_status(response)


class _Text(io.BytesIO):
    """A buffer for a text, up to a size that no text of ours has."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name = name

    def write(self, data: Any) -> int:
        """Take more bytes.

        Raises:
            OversizedFile: it would be more than `LARGEST_TEXT`.
        """
        if self.tell() + len(data) > LARGEST_TEXT:
            raise OversizedFile(
                f"{self._name} has more than {LARGEST_TEXT >> 20} MiB, which no such file of a push has. Restore an "
                "older version of it on the Hub, or delete it there and start again: it is written anew, and what it "
                "no longer says is published again."
            )
        return super().write(data)


def _listed(entry: RepoFile) -> ListedFile:
    if entry.lfs is None:
        return ListedFile(entry.path, entry.size, None, entry.blob_id)
    return ListedFile(entry.path, entry.lfs.size, entry.lfs.sha256, entry.blob_id)
