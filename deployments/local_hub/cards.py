"""Cards: the YAML block at the top of README.md, read and checked (Hub documentation, "Dataset Cards")."""

from __future__ import annotations

import re
from typing import Any

from deployments.local_hub import yaml_values
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
        raise ValueError(f"The card's YAML cannot be read: {error}") from None
    if not isinstance(data, dict):
        raise ValueError("The card's YAML must be a mapping")
    return data


def validate(content: str) -> tuple[list[str], list[str]]:
    """Errors and warnings about a card's metadata, as /api/validate-yaml gives them."""
    try:
        data = card_data(content)
    except ValueError as error:
        return [str(error)], []
    return [], [] if data else ["empty or missing yaml metadata in repo card"]


def check_card(data: bytes) -> None:
    """Raise 400 if a README.md about to be committed has metadata that cannot be read."""
    try:
        card_data(data.decode())
    except UnicodeDecodeError:
        raise bad_request(f"{CARD} must be UTF-8") from None
    except ValueError as error:
        raise bad_request(f"Invalid metadata in {CARD}: {error}") from None
