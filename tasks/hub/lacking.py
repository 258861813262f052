"""What a Hub may lack: how its answers tell that a route is not there, and what people are told then.

A Hub need not be huggingface.co. A server without a route answers 405, 501 or, most often, 404: with text, a page or
JSON, and some of them with the code of a repo or a file that is not there. So a 404 alone does not tell a missing route
from a missing repo. `tasks.hub.connection` asks for the same repo and revision by other routes then. If they are there,
the route is missing. That costs requests only where something has failed already: nothing is asked beforehand, because
the first answer of each route tells.
"""

import re
import traceback
from dataclasses import dataclass
from urllib.parse import unquote

import httpx2
from huggingface_hub import constants
from huggingface_hub.errors import HfHubHTTPError

from tasks.values.errors import PushError

#: The statuses by which a server says that it has no such route.
NO_ROUTE = frozenset({404, 405, 501})
#: How hf_xet names a status and an address in the text of its errors, which are ConnectionErrors whatever it was.
XET_STATUS = re.compile(r"HTTP status (?:client|server) error \((?P<status>\d{3})[^)]*\)")
XET_ADDRESS = re.compile(r"https?://[^\s()]+")
#: How the client names a file whose content could not be sent by LFS. What happened is in the error's cause.
LFS_FAILED = re.compile(r"Error while uploading '(?P<path>.*)' to the Hub\.", re.DOTALL)
#: The routes of a repo whose next part is a revision.
OF_A_REVISION = frozenset(
    {"revision", "tree", "paths-info", "preupload", "commit", "commits", "resolve", "xet-read-token", "xet-write-token"}
)
LONGEST_WORDS = 300  # characters of a Hub's own words; a page of a proxy may have many thousands
LONGEST_PART = 64  # characters of a part of a path that are shown; longer ones are signed, and open what they name
XET_OFF = "HF_HUB_DISABLE_XET"
NEEDED = 'docs/local-hub.md, "What a Hub must have", lists the routes that are needed'


class RouteMissing(PushError):
    """The Hub lacks a route that is needed."""


class TooLargeForHub(PushError):
    """The Hub takes no request of this size."""


@dataclass(frozen=True)
class Answer:
    """An answer of the Hub, or of its store, that was no success."""

    status: int
    url: httpx2.URL
    method: str = ""
    """Empty if it is not known: hf_xet does not say."""

    @property
    def route(self) -> str:
        """The request, for people. The parts of the address that open something are not in it."""
        parts = (part if len(part) <= LONGEST_PART else "..." for part in self.url.path.split("/"))
        return f"{self.method} {'/'.join(parts)}".strip()

    words: str = ""
    """What it says, for people."""

    @classmethod
    def of(cls, response: httpx2.Response, words: str = "") -> "Answer":
        """Return the answer that a response is, with what it says."""
        return cls(response.status_code, response.request.url, response.request.method, words)

    @property
    def host(self) -> str:
        """Whom the request was sent to."""
        return self.url.netloc.decode()

    def is_elsewhere(self, endpoint: str) -> bool:
        """Whether the request was sent to a store at another address than the Hub's own."""
        return bool(self.host) and self.url.netloc != httpx2.URL(endpoint).netloc

    @property
    def by_xet(self) -> bool:
        """Whether the request was one of Xet's own."""
        return not self.method

    def is_about(self, repo_id: str) -> bool:
        """Whether the request named the repo."""
        return f"/{repo_id}" in self.url.path

    def is_of_a_file(self, repo_id: str) -> bool:
        """Whether it asked for a file of the repo."""
        return f"/{repo_id}/resolve/" in self.url.path

    def revision(self, repo_id: str) -> str | None:
        """Return the revision that the request named, or None."""
        path = self.url.raw_path.decode().partition("?")[0]
        route, _, after = path.partition(f"/{repo_id}/")[2].partition("/")
        return unquote(after.partition("/")[0]) if route in OF_A_REVISION and after else None


def answer_behind(error: BaseException) -> Answer | None:
    """Return the answer that made the client raise an error, or None if there was none.

    The client gives up on some refusals while it reads what they say, so what it was about is looked at too.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, HfHubHTTPError | httpx2.HTTPStatusError):
            said = seen.server_message if isinstance(seen, HfHubHTTPError) else None
            return Answer.of(seen.response, in_a_line(said or ""))
        if not isinstance(seen, PushError) and (found := XET_STATUS.search(str(seen))):
            address = XET_ADDRESS.search(str(seen))
            return Answer(int(found["status"]), httpx2.URL(address[0] if address else ""), words=found[0])
        of_a_refusal = isinstance(seen.__context__, httpx2.HTTPStatusError)
        seen = seen.__cause__ or (seen.__context__ if of_a_refusal else None)
    return None


@dataclass(frozen=True)
class LfsFailure:
    """A file whose content could not be sent by git-LFS."""

    path: str
    error: Exception


def lfs_failed(error: BaseException) -> LfsFailure | None:
    """Return what made the client give up sending a file by git-LFS, or None if the error is no such one."""
    found = LFS_FAILED.fullmatch(str(error)) if isinstance(error, RuntimeError) else None
    return LfsFailure(found["path"], error.__cause__) if found and isinstance(error.__cause__, Exception) else None


def came_through_the_client(error: BaseException) -> bool:
    """Return whether huggingface_hub's code raised an error, or called what raised it."""
    frames = traceback.walk_tb(error.__traceback__)
    return any(str(frame.f_globals.get("__name__")).startswith("huggingface_hub") for frame, _ in frames)


def in_a_line(words: str) -> str:
    """Return a Hub's own words as part of a sentence: no page, and no signed address."""
    words = " ".join(words.split())
    if re.search(r"<(!doctype|html|body)\b", words, re.IGNORECASE):
        return "it sent a page"
    words = re.sub(r"(https?://[^\s'\"?]+)\?[^\s'\"]*", r"\1", words)
    words = re.sub(rf"[^\s/'\"]{{{LONGEST_PART + 1},}}", "...", words)
    return words if len(words) <= LONGEST_WORDS else f"{words[:LONGEST_WORDS]}..."


def route_missing(what: str, endpoint: str, answer: Answer) -> RouteMissing:
    """Return the error that names a route which the Hub does not have, and the way out."""
    said = f"{answer.status}: {answer.words}" if answer.words else f"{answer.status}"
    return RouteMissing(
        f"{what}: {endpoint} has no route {answer.route} (it answered {said}), and this cannot go on without it. "
        f"{_way_out(answer)} What is published and staged stays as it is."
    )


def _way_out(answer: Answer) -> str:
    path = answer.url.path
    if answer.by_xet:
        return (
            f"That route is one of Xet. Set {XET_OFF}=1 in the worker's environment, so that content is sent by "
            "git-LFS, and start again."
        )
    if path.endswith("/info/lfs/objects/batch"):
        xet = "If it has Xet, " + (
            f"unset {XET_OFF} in the worker's environment"
            if constants.HF_HUB_DISABLE_XET
            else f"install hf_xet there and do not set {XET_OFF}"
        )
        return f"That route is the one of git-LFS. {xet}, and start again; else another Hub is needed."
    if path.endswith("/api/repos/create"):
        return "Make the dataset repo by hand on the Hub, with nothing in it, and start again."
    if "/branch/" in path:
        return "Make the branch by hand on the Hub, and start again."
    return f"Ask those who run the Hub for it, or set HF_ENDPOINT to a Hub that has it; {NEEDED}."


def too_large(what: str, endpoint: str, answer: Answer | None) -> TooLargeForHub:
    """Return the error that names a request which was too large for the Hub or a proxy before it."""
    route = f" to {answer.route}" if answer else ""
    return TooLargeForHub(
        f"{what}: {endpoint} takes no request of this size{route} (it answered 413), and it cannot be cut any smaller. "
        "Ask those who run the Hub to allow larger ones: often a proxy before it has a limit of its own "
        "(`client_max_body_size` in nginx). What is published and staged stays as it is."
    )
