"""Cards: the YAML block at the top of README.md, read and checked (Hub documentation, "Dataset Cards")."""

from __future__ import annotations

from typing import Any

import yaml  # type: ignore[import-untyped]  # its stubs are a package of their own

from deployments.local_hub.errors import bad_request

CARD = "README.md"
FENCE = "---"


def front_matter(text: str) -> tuple[str | None, str]:
    """The YAML between the first two `---` lines (None where there is no such block), and the text below it."""
    lines = text.lstrip("\ufeff\n\r\t ").splitlines(keepends=True)  # blank lines before it are allowed
    if not lines or lines[0].rstrip() != FENCE:
        return None, text
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip() == FENCE:
            return "".join(lines[1:number]), "".join(lines[number + 1 :])
    return None, text


def card_data(text: str) -> dict[str, Any]:
    """The card's metadata; empty where it has none. Raises ValueError with a sentence for a person."""
    block, _ = front_matter(text)
    if block is None or not block.strip():
        return {}
    try:
        data = yaml.safe_load(block)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
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
