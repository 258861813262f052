"""What both flows do first: reach the Hub, find the staging folder, and end in a state that people can read."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, ParamSpec, cast

from prefect.blocks.system import Secret
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.states import Cancelled, Failed
from pydantic import BeforeValidator, Field

from tasks.approve import Superseded
from tasks.errors import BadInput, PushError
from tasks.hub import Hub
from tasks.settings import Settings
from tasks.staging import Staging

P = ParamSpec("P")

#: What the form refuses before anything starts. The Hub's own rules are stricter; it has the last word.
RepoId = Annotated[str, Field(pattern=r"^[\w.-]+/[\w.-]+$")]
Revision = Annotated[str, Field(pattern=r"^[A-Za-z0-9][^\s~^:?*\[\\]*$")]
#: Fields that may stay empty. Strings, because the form shows `X | None` as a switch between two types.
MaybeEmpty = BeforeValidator(lambda value: "" if value is None else str(value))
Folder = Annotated[str, MaybeEmpty]
BlockName = Annotated[str, MaybeEmpty, Field(pattern=r"^[a-z0-9-]*$")]


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


def ends_readably(flow: Callable[P, State]) -> Callable[P, State]:
    """Let a flow end Failed with the sentence of its `PushError`, in the state and in the log, without a stack trace.

    A run that lost its gate to a newer one ends Cancelled. Any other exception is a bug, and keeps its own.
    """

    @wraps(flow)
    def run(*args: P.args, **kwargs: P.kwargs) -> State:
        state: State[Any]
        try:
            return flow(*args, **kwargs)
        except Superseded as error:
            get_run_logger().warning("%s", error)
            state = Cancelled(name="Superseded", message=str(error))
        except PushError as error:
            get_run_logger().error("%s", error)
            state = Failed(name=type(error).__name__, message=str(error))
        return state

    return run
