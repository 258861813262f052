"""What went wrong with a Hub, for people: the errors, and which of them a client's exception means.

There are two sorts: errors that pass by themselves (`Transient`: worth another try), and errors that a person has to
mend. Those of a route that a Hub lacks are in `tasks.hub.lacking`.
"""

import httpx2
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from huggingface_hub.utils import parse_ratelimit_headers

from tasks.hub.budget import COMMITS_USED_UP
from tasks.hub.lacking import (
    NO_ROUTE,
    Answer,
    answer_behind,
    came_through_the_client,
    in_a_line,
    lfs_failed,
    route_missing,
    too_large,
)
from tasks.values.errors import BadInput, PushError


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
