"""What every flow does first: reach the Hub, and find the folders."""

import os
import re
from pathlib import Path
from typing import Any, cast

from prefect.blocks.system import Secret

from flows.parameters import BLOCK_NAME
from tasks.disk.paths import as_typed, resolved, staging_root_of
from tasks.disk.staging import Staging
from tasks.hub.client import Hub
from tasks.load.tree import DESCRIPTION
from tasks.values.errors import BadInput
from tasks.values.names import branch_problem, repo_id_problem
from tasks.values.settings import Settings


def connect(repo_id: str, revision: str, token_block: str, to_read: bool = False) -> Hub:
    """Return the target on its Hub. The token comes from the environment, or from the Secret block of that name.

    Args:
        repo_id: the repo.
        revision: the branch; to read, also a tag or a commit.
        token_block: the name of the Secret block, or nothing.
        to_read: whether the target is only read, which may need no token.

    Raises:
        BadInput: a name or a setting cannot be used, or there is no such block.
        NoToken: no token is configured, and one is needed.
    """
    Settings()  # a bad setting is reported before anything is done
    if problem := repo_id_problem(repo_id) or branch_problem(revision):
        raise BadInput(problem)
    return Hub.connect(repo_id, revision, _token_of(token_block) if token_block else None, to_read)


def _token_of(block_name: str) -> str:
    """Return the token in a Secret block.

    Raises:
        BadInput: the name cannot be that of a block, or there is no such block.
    """
    if not re.fullmatch(BLOCK_NAME, block_name):  # the name is not shown: it may be a token
        raise BadInput(
            "token_block: give the name of a Secret block, of lower-case letters, digits and dashes; never a token. "
            "Make the block in the UI under Blocks, or leave token_block empty and set HF_TOKEN for the worker."
        )
    try:
        block = cast(Secret[Any], Secret.load(block_name))
    except ValueError as error:
        raise BadInput(
            f"token_block: there is no Secret block named {block_name!r} on the Prefect server. Make it in the UI "
            "under Blocks, or leave token_block empty and set HF_TOKEN in the worker's environment."
        ) from error
    token = block.get()
    if not isinstance(token, str) or not token.strip():
        raise BadInput(
            f"token_block: the Secret block {block_name!r} holds no token. Put the token in it as a plain text, in the "
            "UI under Blocks."
        )
    return token.strip()


def source_of(source: str | Path) -> Path:
    """Return the dataset's folder as it was typed, with `~` expanded and symlinks kept.

    A folder that is missing or is no dataset is for `load` to report.

    Raises:
        BadInput: it cannot be a path, or the user that this process runs as may not read it.
    """
    path = as_typed(source, "source")
    try:
        os.scandir(path).close()
        (path / DESCRIPTION).stat()
    except (FileNotFoundError, NotADirectoryError):
        return path
    except OSError as error:
        raise BadInput(
            f"source: {path} cannot be read ({error.strerror}). Check the path, and that the user who runs the worker "
            "may read it."
        ) from error
    return path


def staging_of(hub: Hub, staging_root: str) -> Staging:
    """Return the target's folder below the staging root of the parameter, or of this machine's settings.

    Raises:
        BadInput: the staging root cannot be a path, or is a link to nowhere.
    """
    return Staging.of(resolved(staging_root_of(staging_root)), hub.target)
