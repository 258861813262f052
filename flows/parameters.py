"""The parameters of the flows: what the fields of their forms in the UI take, and how what was typed is read."""

from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from tasks.values.names import BRANCH_PATTERN, REPO_ID_PATTERN
from tasks.values.preflight_rules import Entry

BLOCK_NAME = "[a-z0-9-]+"  # Prefect's rule


def _trimmed(value: Any) -> Any:
    """Return a text from the form without the spaces around it, which copying brings along."""
    return value.strip() if isinstance(value, str) else value


#: Names. The form takes what their patterns match. For any other name, `flows.connect` says what is wrong with it.
RepoId = Annotated[str, BeforeValidator(_trimmed), Field(json_schema_extra={"pattern": REPO_ID_PATTERN})]
Revision = Annotated[str, BeforeValidator(_trimmed), Field(json_schema_extra={"pattern": BRANCH_PATTERN})]
#: Fields that may stay empty. They are strings, because the form shows `X | None` as a switch between two types.
MaybeEmpty = BeforeValidator(lambda value: "" if value is None else str(value))
Folder = Annotated[str, MaybeEmpty]
BlockName = Annotated[
    str, Field(json_schema_extra={"pattern": rf"^\s*(?:{BLOCK_NAME})?\s*$"}), BeforeValidator(_trimmed), MaybeEmpty
]
#: Lists that may stay empty. The form sends an empty list as nothing.
MaybeNone = BeforeValidator(lambda value: [] if value is None else value)
Texts = Annotated[list[str], MaybeNone]
Entries = Annotated[list[Entry], MaybeNone]
#: Whole numbers that may stay empty, which is 0.
Count = Annotated[int, Field(ge=0), BeforeValidator(lambda value: value or 0)]
