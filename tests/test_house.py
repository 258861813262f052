"""The house: which room may know which, read from the imports themselves."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
#: What the stages share, from the ground up: each knows itself and those before it.
ROOMS = ("values", "bids", "disk", "hub", "record", "runs", "report")
#: Stages that are parts of another one, in the words of the chain: `stage (embed, write)`; a removal is a commit.
PARTS = {"stage": {"embed", "write"}, "embed": {"write"}, "commit": {"transfer", "remove"}}
FILES = sorted((REPO / "tasks").rglob("*.py"))


def module_of(file: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(file.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


def imports_of(file: Path) -> Iterator[str]:
    """The modules of ours that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def part_of(module: str) -> str:
    """The room or the stage of a module of tasks."""
    return module.split(".")[1]


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_room_knows_those_below_it_and_a_stage_knows_no_other_stage(file: Path) -> None:
    if module_of(file) == "tasks":
        return
    own = part_of(module_of(file))
    known = {part_of(module) for module in imports_of(file) if module.startswith("tasks.")} - {own}
    allowed = ROOMS[: ROOMS.index(own)] if own in ROOMS else {*ROOMS, *PARTS.get(own, ())}
    assert known <= set(allowed)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_task_knows_neither_flow_nor_deployment(file: Path) -> None:
    assert not [module for module in imports_of(file) if module.startswith(("flows", "deployments", "tests"))]


def test_every_room_says_in_one_line_what_it_holds() -> None:
    for room in ROOMS:
        assert ast.get_docstring(ast.parse((REPO / "tasks" / room / "__init__.py").read_text()))
