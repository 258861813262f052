"""Cards: the YAML block at the top of README.md, read and checked (Hub documentation, "Dataset Cards")."""

from __future__ import annotations

import re
from typing import Any

from deployments.local_hub import yaml_values
from deployments.local_hub.card_fields import faults
from deployments.local_hub.errors import bad_request

CARD = "README.md"
OPENING = re.compile(r"---[^\S\n]*$", re.MULTILINE)
FENCE = re.compile(r"^---[^\S\n]*$", re.MULTILINE)


def front_matter(text: str) -> tuple[str | None, str]:
    """The YAML between the first two `---` lines (None where there is no such block), and the text below it."""
    begin = len(text) - len(text.lstrip("\ufeff\n\r\t "))  # blank lines before it are allowed
    first = OPENING.match(text, begin)
    second = FENCE.search(text, first.end()) if first is not None else None
    if first is None or second is None:
        return None, text
    return text[first.end() + 1 : second.start()], text[second.end() + 1 :]


def card_data(text: str) -> dict[str, Any]:
    """The card's metadata; empty where it has none. Raises ValueError with a sentence for a person."""
    block, _ = front_matter(text)
    if block is None or not block.strip():
        return {}
    try:
        data = yaml_values.read(block)
    except ValueError as error:
        raise ValueError(f"Invalid YAML in README.md: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("Invalid YAML in README.md: it must be a mapping")
    return data


def validate(content: str, repo_type: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a card's metadata, as /api/validate-yaml gives them."""
    try:
        data = card_data(content)
    except ValueError as error:
        return [str(error)], []
    if not data:
        return [], ["empty or missing yaml metadata in repo card"]
    found = faults(data, repo_type)
    return [each.message for each in found if not each.warning], [each.message for each in found if each.warning]


def check_card(data: bytes, repo_type: str) -> None:
    """Raise 400 if a README.md about to be committed has metadata that the Hub would refuse."""
    try:
        errors, _ = validate(data.decode(), repo_type)
    except UnicodeDecodeError:
        raise bad_request(f"{CARD} must be UTF-8") from None
    if errors:
        raise bad_request(f"Invalid metadata in {CARD}: {'; '.join(errors)}")
