"""The names that a target may have: the Hub's rule for repos, and git's rule for branches.

A name is checked twice. The form refuses one that does not match a pattern, before a run starts. The flow says in a
sentence what is wrong, for people who start it in another way.

Both rules are other people's. The rule for a repo is huggingface_hub's (`validate_repo_id`), the one for a branch is
that of `git check-ref-format --branch`. We add two things: a repo must have a namespace, and a branch must not be a
full ref (`refs/...`), because the Hub keeps those for pull requests and conversions.
"""

import re

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
    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        problem = " ".join(str(error).split())
    else:
        if "/" in repo_id:
            return None
        problem = f"{repo_id!r} has no namespace."
    return f"repo_id: {problem} Give namespace/name alone, for example my-lab/my-dataset."


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
