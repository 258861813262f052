"""The connection to one target on its Hub: its address and token, the client, and every call explained.

Each call is made inside `explained`, which turns the client's exceptions into `PushError`s. A Hub need not have every
route (`tasks.hub.lacking`): what a run can do without, it goes on without, and says so once.
"""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self, cast

import httpx2
from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import BadRequestError
from huggingface_hub.hf_api import DatasetInfo
from huggingface_hub.utils import build_hf_headers, disable_progress_bars, get_session, hf_raise_for_status
from huggingface_hub.utils._xet import abort_xet_session

from tasks.disk.staging import Target
from tasks.hub.budget import REQUESTS, warn
from tasks.hub.errors import NoSuchFile, NoToken, Refused, RepoMissing, Transient, as_push_error
from tasks.hub.lacking import NO_ROUTE, answer_behind, in_a_line, lfs_failed, route_missing
from tasks.hub.newest_head import NewestHead
from tasks.values.errors import BadInput, PushError

#: The number of tries by hf_xet itself, which says nothing while it waits (by default it goes on for six minutes).
#: After these the task is tried again, where people see it. hf_xet reads this when its session begins.
os.environ.setdefault("HF_XET_CLIENT_RETRY_MAX_ATTEMPTS", "2")
if constants.HF_HUB_DISABLE_PROGRESS_BARS is None:
    disable_progress_bars()  # groups that are sent at the same time would write their bars over each other

CANNOT_CHECK = "cannot check the YAML of a card"


def break_off() -> None:
    """Break off what is being sent through Xet, in all threads: there it raises at once.

    Later transfers are not affected.
    """
    abort_xet_session()  # type: ignore[no-untyped-call]


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
class Connection:
    """One target on its Hub. The token is never shown in a repr, a log, an artifact or a result."""

    target: Target
    token: str = field(repr=False)
    newest: NewestHead = field(default_factory=NewestHead, repr=False, compare=False)
    """The newest head seen so far."""
    lacks: set[str] = field(default_factory=set, repr=False, compare=False)
    """What this run has found that the Hub lacks, and goes on without."""

    @classmethod
    def connect(cls, repo_id: str, revision: str, token: str | None = None, to_read: bool = False) -> Self:
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
        if f"/{repo_id}/revision/" in answer.url.path and self._answers_now(answer.url):
            return Transient(
                f"{what}: {self.target.endpoint} said that there is no such thing, and has it a moment later"
            )
        return route_missing(what, self.target.endpoint, answer)

    def _answers_now(self, url: httpx2.URL) -> bool:
        """Return whether the Hub answers what it said it has not: somebody has made the repo in between."""
        try:
            return get_session().get(url, headers=build_hf_headers(token=self.token or False)).is_success
        except httpx2.TransportError:
            return False

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


class _Api(HfApi):
    """huggingface_hub's client, which also works with a Hub that lacks what a commit does not need."""

    def __init__(self, hub: Connection, **options: Any) -> None:
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
