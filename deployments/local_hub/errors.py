"""Refusals in the Hub's shape: a status, `X-Error-Code` and `X-Error-Message` headers, and JSON `{"error": ...}`.

The client chooses its exception by the code (huggingface_hub, utils/_http.py, hf_raise_for_status), so each refusal
that it tells apart is named once here.
"""

from __future__ import annotations

import json


class HubError(Exception):
    """A request that is refused: HTTP status, message for a person, the Hub's error code and extra headers."""

    def __init__(self, status: int, message: str, code: str | None = None, headers: dict[str, str] | None = None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.code = code
        self.headers = headers or {}


def is_unicode(parsed: object) -> bool:
    """Whether all text in parsed JSON can be stored: JSON's escapes can name half a character, UTF-8 cannot."""
    try:
        json.dumps(parsed, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def bad_request(message: str) -> HubError:
    """The request cannot be understood or does not hold together."""
    return HubError(400, message)


def bad_path(message: str) -> HubError:
    """A path that no repo may contain; the Hub's status for it."""
    return HubError(422, message)


def invalid_token() -> HubError:
    """The token is unknown or has expired; the client tells this sentence apart from a missing repository."""
    return HubError(401, "Invalid credentials in Authorization header")


def token_needed() -> HubError:
    """Something that an anonymous caller may not do."""
    return HubError(401, "Invalid username or password.")


def forbidden(message: str) -> HubError:
    """The account is known and may not do this."""
    return HubError(403, message)


def repo_not_found() -> HubError:
    """No such repo, or a private one seen from outside: the two must look the same."""
    return HubError(404, "Repository not found", "RepoNotFound")


def repo_gated(path: str, *, signed_in: bool) -> HubError:
    """A repo that is no secret, and whose content is for those of its namespace; the Hub's own sentences."""
    if signed_in:
        return HubError(403, f"Access to {path} is restricted and you are not in the authorized list.", "GatedRepo")
    return HubError(401, f"Access to {path} is restricted. You must be authenticated to access it.", "GatedRepo")


def revision_not_found(revision: str) -> HubError:
    """Neither branch, tag, pull request nor commit."""
    return HubError(404, f"Invalid rev id: {revision}", "RevisionNotFound")


def entry_not_found(path: str, commit: str | None = None) -> HubError:
    """No such file or folder; the commit is sent along because the client caches the absence under it."""
    return HubError(404, f"Entry not found: {path}", "EntryNotFound", {"X-Repo-Commit": commit} if commit else None)


def conflict(message: str) -> HubError:
    """The name exists already."""
    return HubError(409, message)


def branch_moved() -> HubError:
    """`parentCommit` is no longer the head of the branch; the Hub's own sentence."""
    return HubError(412, "The branch was updated since you opened this page. Please refresh and try again.")


def too_large(limit: int) -> HubError:
    """A body over `limit` bytes where the protocol has no need of one."""
    return HubError(413, f"Payload too large: at most {limit} bytes")
