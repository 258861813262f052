"""The names that a target may have: the Hub's rule for repos, and git's rule for branches.

A name is checked twice. The form refuses one that does not match a pattern, before a run starts. The flow says in a
sentence what is wrong, for people who start it in another way.

Both rules are other people's. The rule for a repo is huggingface_hub's (`validate_repo_id`), the one for a branch is
that of `git check-ref-format --branch`. We add two things: a repo must have a namespace, and a branch must not be a
full ref (`refs/...`), because the Hub keeps those for pull requests and conversions.
"""

import re
import unicodedata

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

_PART = "[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,94}[A-Za-z0-9_])?"  # of a repo's name: 1 to 96 characters
_NOT_IN_BRANCH = r"\x00-\x20\x7f~^:?*\[\\"  # git: control characters, space, and what means something in a revision

#: JSON Schema patterns for the form, in the syntax that Python and browsers share. They allow spaces around a name,
#: which are then removed.
REPO_ID_PATTERN = rf"^\s*(?!.*(?:--|\.\.))(?!.*\.git\s*$){_PART}/{_PART}\s*$"
BRANCH_PATTERN = (
    r"^\s*(?![-/.]|refs/|HEAD\s*$)(?!.*(?:\.\.|@\{|//|/\.|\.lock(?:/|\s*$)))"
    rf"[^{_NOT_IN_BRANCH}]*[^{_NOT_IN_BRANCH}/.]\s*$"
)


def repo_id_problem(repo_id: str) -> str | None:
    """Return why this cannot be the name of a repo on the Hub, or None if it can."""
    if _is_repo_id(repo_id):
        return None
    if "/" not in repo_id:
        why = "it has no namespace"
    elif found := re.search(r"[^A-Za-z0-9_./-]", repo_id):
        why = f"{found[0]!r} may not be in it"
    elif repo_id.count("/") > 1:
        why = "it has more than one /"
    elif "--" in repo_id or ".." in repo_id:
        why = "-- and .. may not be in it"
    elif repo_id.endswith(".git"):
        why = "it ends with .git"
    else:
        why = "a part of it is empty or too long, or begins or ends with - or ."
    near = nearest_repo_id(repo_id)
    instead = f"The nearest one: {near}." if near else "For example: my-lab/my-dataset."
    return (
        f"repo_id: {repo_id!r} is no name for a repo: {why}. Give namespace/name alone. Each of the two has at most 96 "
        "letters without accents, digits, _, - and ., and no - or . at its ends or twice in a row. "
        f"{instead}"
    )


def _is_repo_id(repo_id: str) -> bool:
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return False
    return "/" in repo_id


def nearest_repo_id(repo_id: str) -> str | None:
    """Return the name of a repo that is nearest to a text: without accents, with - for what may not be in it.

    Of an address, the last two parts count. None if nothing is left of one of them.
    """
    plain = unicodedata.normalize("NFKD", repo_id).encode("ascii", "ignore").decode()
    parts = [_nearest_part(part) for part in plain.strip().strip("/").removesuffix(".git").split("/")[-2:]]
    near = "/".join(parts)
    return near if _is_repo_id(near) else None


def _nearest_part(part: str) -> str:
    allowed = re.sub(r"[^A-Za-z0-9_.-]+", "-", part.strip())
    return re.sub(r"-{2,}|\.{2,}", lambda run: run[0][0], allowed).strip("-.")[:96].rstrip("-.")


def branch_problem(revision: str) -> str | None:
    """Return why this cannot be the name of a branch, or None if it can."""
    if not revision:
        why = "it is empty"
    elif not is_unicode(revision):
        why = "it is not Unicode"
    elif revision.startswith("refs/"):
        why = "it is a full ref, and a branch is wanted"
    elif found := re.search(rf"[{_NOT_IN_BRANCH}]|\.\.|@\{{|//", revision):
        why = f"{found[0]!r} may not be in it"
    elif revision == "HEAD" or revision[0] in "-/" or revision[-1] in "/.":
        why = "it is HEAD, or begins with - or /, or ends with / or ."
    elif any(part.startswith(".") or part.endswith(".lock") for part in revision.split("/")):
        why = "a part of it begins with a dot, or ends with .lock"
    else:
        return None
    return f"revision: {revision!r} is no name for a branch: {why}. Take another, for example main or v1.0."


def is_unicode(text: str) -> bool:
    """Return whether a text can be written as UTF-8.

    A path with other bytes in it cannot, nor can it go to the Prefect server.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
