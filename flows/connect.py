"""What both flows do first: read their parameters, reach the Hub, and find the staging folder."""

from pathlib import Path
from typing import Annotated, cast

from prefect.blocks.system import Secret
from pydantic import BeforeValidator, Field

from tasks.errors import BadInput
from tasks.hub import Hub
from tasks.settings import Settings
from tasks.staging import Staging

#: What the form refuses before anything starts. The Hub's own rules are stricter; it has the last word.
RepoId = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][^\s~^:?*\[\\]*$")]
#: Fields that may stay empty. Strings, because the form shows `X | None` as a switch between two types.
MaybeEmpty = BeforeValidator(lambda value: "" if value is None else str(value))
Folder = Annotated[str, MaybeEmpty]
BlockName = Annotated[str, Field(pattern=r"^[a-z0-9-]*$"), MaybeEmpty]


def connect(repo_id: str, revision: str, token_block: str) -> Hub:
    """The target on its Hub. A token comes from the environment, or from the Secret block of that name.

    Raises:
        BadInput: there is no such block.
    """
    if not token_block:
        return Hub.connect(repo_id, revision)
    try:
        block = cast(Secret[str], Secret.load(token_block))
    except ValueError as error:
        raise BadInput(
            f"there is no Secret block named {token_block!r} on the Prefect server. Make it in the UI under Blocks, or "
            "leave token_block empty and set HF_TOKEN in the worker's environment."
        ) from error
    return Hub.connect(repo_id, revision, str(block.get()))


def staging_of(hub: Hub, staging_root: str) -> Staging:
    """The target's folder below the staging root of the parameter, or of this machine's settings."""
    return Staging.of(
        (Path(staging_root) if staging_root else Settings().staging_root).expanduser().resolve(), hub.target
    )
