"""The operator's page names every state in which a run of ours can end, and no other."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import flows
import tasks
from deployments.local_stack import REPO
from tasks.values.errors import PushError

#: Prefect's own states that an operator meets and has to act on.
PREFECTS = {"Suspended", "Cancelled", "Crashed", "Late"}
#: The calls that give a state its name, ours (an error's own name is given in `flows.connect`) and an automation's.
STATES = {"Completed", "Failed", "Cancelled", "Crashed", "Suspended", "Paused", "State", "ChangeFlowRunState"}

PAGE = REPO / "docs" / "operating.md"
STATES_HEADING = "## States: how a run ends, and what to do"
INSIDE_HEADING = "### Inside other states"


def sources(*folders: str) -> Iterator[ast.AST]:
    for folder in folders:
        for path in sorted((REPO / folder).rglob("*.py")):
            yield from ast.walk(ast.parse(path.read_text()))


def called(node: ast.AST) -> str | None:
    """The name of what is called here, without its module."""
    if not isinstance(node, ast.Call):
        return None
    return getattr(node.func, "id", None) or getattr(node.func, "attr", None)


@cache
def named_states() -> set[str]:
    """Every name that our code gives to a state."""
    return {
        part.value
        for node in sources("flows", "tasks", "deployments")
        if isinstance(node, ast.Call) and called(node) in STATES
        for keyword in node.keywords
        if keyword.arg == "name"
        for part in ast.walk(keyword.value)
        if isinstance(part, ast.Constant) and isinstance(part.value, str)
    }


@cache
def errors() -> set[str]:
    """Every error for people that is ever made: one that only stands above others, and is never made, is none."""
    for package in (tasks, flows):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            importlib.import_module(module.name)
    made = {name for node in sources("flows", "tasks") if (name := called(node))}
    return {one.__name__ for one in below(PushError) if not one.__subclasses__() or one.__name__ in made}


def below(error: type[PushError]) -> Iterator[type[PushError]]:
    for one in error.__subclasses__():
        if one.__module__.split(".")[0] in ("tasks", "flows"):  # tests make some of their own
            yield one
            yield from below(one)


def table_after(heading: str, page: Path) -> list[str]:
    """What stands in the first column of the first table below a heading, without the table's head."""
    (below_it,) = re.findall(rf"^{re.escape(heading)}\n(.*?)(?=^#|\Z)", page.read_text(), re.MULTILINE | re.DOTALL)
    rows = [line for line in below_it.splitlines() if line.startswith("|")]
    return [row.split("|")[1].strip() for row in rows[2:]]


def names(cells: list[str]) -> list[str]:
    return [re.sub(r" \(.*\)$", "", name) for cell in cells for name in cell.split(", ")]


def documented() -> list[str]:
    return names(table_after(STATES_HEADING, PAGE)) + names(table_after(INSIDE_HEADING, PAGE))


def test_every_error_and_every_state_is_in_the_operators_table() -> None:
    assert (errors() | named_states()) - set(documented()) == set()


def test_the_operators_table_has_no_state_that_no_code_has_and_none_twice() -> None:
    assert set(documented()) - errors() - named_states() == PREFECTS
    assert len(documented()) == len(set(documented()))


def test_the_readme_names_only_states_that_there_are() -> None:
    cells = table_after("## When something goes wrong", REPO / "README.md")
    listed = {name for cell in cells for name in re.findall(r"`(\w+)`", cell)}
    assert listed and listed - set(names(table_after(STATES_HEADING, PAGE))) == set()
