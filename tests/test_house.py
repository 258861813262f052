"""The house: which package may know which, read from the imports themselves."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import is_dataclass
from functools import cache
from graphlib import TopologicalSorter
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prefect import Flow, Task
from prefect.cache_policies import NO_CACHE

from tasks.hub.retries import RETRY_DELAYS, RETRY_DELAYS_AT_THE_START, passes
from tasks.values.models import Value
from tests import bids_examples
from tests.images import nifti1

T = TypeVar("T")
REPO = Path(__file__).resolve().parent.parent
#: What the stages share, from the ground up: each knows itself and those before it.
SHARED = ("values", "bids", "disk", "hub", "record", "runs", "report")
#: Stages that are parts of another one, in the words of the chain: `stage (embed, write)`; a removal is a commit.
PARTS = {"stage": {"embed", "write"}, "embed": {"write"}, "commit": {"transfer", "remove"}}
FILES = sorted((REPO / "tasks").rglob("*.py"))
OURS = ("flows", "tasks", "deployments")
LOCAL_HUB = REPO / "deployments" / "local_hub"
#: What a worker does without: no other library of its brings these.
LOCAL_HUB_ALONE = ("dulwich", "lz4", "blake3")
#: What the extra `recordings` brings: a worker without it reads what it can, and says what it cannot.
RECORDINGS_ALONE = frozenset(("mne", "h5py", "scipy"))
CLUSTER_ALONE = {"dask", "distributed", "prefect_dask", "dask_jobqueue"}  # of flows.cluster and flows.jobs
PACKAGED = [file for folder in OURS for file in sorted((REPO / folder).rglob("*.py"))]


def module_of(file: Path) -> str:
    """The name by which a file is imported."""
    return ".".join(file.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__")


@cache
def imports_of(file: Path) -> tuple[str, ...]:
    """The modules of ours that a file imports, wherever in it."""
    return tuple(imports_of_nodes(ast.walk(ast.parse(file.read_text()))))


def imports_of_nodes(nodes: Iterable[ast.AST]) -> Iterator[str]:
    """The modules that these statements import."""
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module:
            yield from (f"{node.module}.{name.name}" for name in node.names)
        elif isinstance(node, ast.Import):
            yield from (name.name for name in node.names)


def part_of(module: str) -> str:
    """The shared package or the stage of a module of tasks."""
    return module.split(".")[1]


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_shared_package_knows_those_below_it_and_a_stage_knows_no_other_stage(file: Path) -> None:
    if module_of(file) == "tasks":
        return
    own = part_of(module_of(file))
    known = {part_of(module) for module in imports_of(file) if module.startswith("tasks.")} - {own}
    allowed = SHARED[: SHARED.index(own)] if own in SHARED else {*SHARED, *PARTS.get(own, ())}
    assert known <= set(allowed)


@pytest.mark.parametrize("file", FILES, ids=module_of)
def test_a_task_knows_neither_flow_nor_deployment(file: Path) -> None:
    assert not [module for module in imports_of(file) if module.startswith(("flows", "deployments", "tests"))]


def test_every_shared_package_says_in_one_line_what_it_holds() -> None:
    for package in SHARED:
        assert ast.get_docstring(ast.parse((REPO / "tasks" / package / "__init__.py").read_text()))


def test_no_module_imports_another_that_imports_it() -> None:
    files = {module_of(file): file for file in PACKAGED}
    graph = {}
    for name, file in files.items():
        nodes = [node for node in ast.parse(file.read_text()).body if not isinstance(node, ast.If)]  # not as a program
        imported = imports_of_nodes(inner for node in nodes for inner in ast.walk(node))
        graph[name] = {one if one in files else one.rpartition(".")[0] for one in imported} & files.keys()
    assert list(TopologicalSorter(graph).static_order())  # else it raises CycleError, which names them


@pytest.mark.parametrize("file", [file for file in PACKAGED if LOCAL_HUB in file.parents], ids=module_of)
def test_the_local_hub_knows_nothing_of_ours(file: Path) -> None:
    ours = [module for module in imports_of(file) if module.partition(".")[0] in (*OURS, "tests")]
    assert [module for module in ours if not module.startswith("deployments.local_hub")] == []


def test_nothing_but_the_tests_imports_the_local_hub_and_the_demo_starts_it_as_a_process() -> None:
    others = [file for file in PACKAGED if LOCAL_HUB not in file.parents]
    assert [module_of(file) for file in others if any("local_hub" in module for module in imports_of(file))] == []


@pytest.mark.parametrize("extra", [False, True])
def test_every_library_that_is_imported_is_a_dependency(extra: bool) -> None:
    project = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    stated = [*project["dependencies"], *(extras["local-hub"] if extra else extras["recordings"] + extras["cluster"])]
    dependencies = {plain(re.split(r"[<>=;\[ ]", one)[0]) for one in stated}
    files = [file for file in PACKAGED if (LOCAL_HUB in file.parents) is extra]
    modules = {module.partition(".")[0] for file in files for module in imports_of(file)}
    libraries = modules - sys.stdlib_module_names - {*OURS, "__future__"}
    distributions = packages_distributions()
    assert {name for name in libraries if not dependencies & set(map(plain, distributions[name]))} == set()
    assert not dependencies & set(LOCAL_HUB_ALONE) or extra


def test_a_worker_without_a_cluster_imports_nothing_of_one() -> None:
    imported = {
        module_of(file) for file in PACKAGED if {name.partition(".")[0] for name in imports_of(file)} & CLUSTER_ALONE
    }
    assert imported == {"flows.cluster", "flows.jobs"}
    program = f"import sys, flows.push_bids; print(sorted(set(sys.modules) & {set(CLUSTER_ALONE)!r}))"
    assert subprocess.check_output([sys.executable, "-c", program], text=True, cwd=REPO).strip() == "[]"


def test_a_night_that_finds_nothing_to_do_imports_neither_pandas_nor_datasets(tmp_path: Path) -> None:
    texts = {"dataset_description.json": bids_examples.description(), "participants.tsv": "participant_id\nsub-1\n"}
    source = bids_examples.write(tmp_path, {**texts, "sub-1/anat/sub-1_T1w.nii": nifti1((2, 2, 2))})
    program = (
        "import sys, flows.push_bids; from tasks.card import side_files; from tasks.load import load\n"
        "assert 'tables/participants.parquet' in side_files(load(sys.argv[1]))\n"
        "print(sorted(set(sys.modules) & {'pandas', 'datasets', 'matplotlib'}))"
    )
    assert subprocess.check_output([sys.executable, "-c", program, source], text=True, cwd=REPO).strip() == "[]"


def test_the_libraries_of_recordings_are_imported_where_a_file_is_read_and_nowhere_else() -> None:
    imported = {}
    for file in PACKAGED:
        if names := {name.partition(".")[0] for name in imports_of(file)} & RECORDINGS_ALONE:
            imported[module_of(file)] = names
            at_the_top = [
                node for node in ast.parse(file.read_text()).body if isinstance(node, ast.Import | ast.ImportFrom)
            ]
            assert not {name.partition(".")[0] for name in imports_of_nodes(at_the_top)} & RECORDINGS_ALONE
    assert imported == {
        "tasks.preflight.recordings.arrays": {"h5py", "scipy"},
        "tasks.preflight.recordings.meg": {"mne"},
    }


def plain(distribution: str) -> str:
    """A distribution's name as it is compared (PyPA, "Name normalization")."""
    return re.sub(r"[-_.]+", "-", distribution).lower()


#: What goes on while it lasts, and is no value.
LASTING = {
    "flows.jobs.Jobs", "flows.publishing.Publishing", "flows.restoring.Restoring", "flows.rounds.Round",
    "flows.rounds.RoundOfMachines", "flows.rounds.RoundOfThreads", "tasks.commit.to_commit.ToCommit",
    "tasks.hub.budget.Commits", "tasks.hub.budget.Requests", "tasks.hub.budget._Window", "tasks.load.tree.Folder",
    "tasks.load.tree.RecordingFolder", "tasks.load.tree.Tree", "tasks.report.progress.Progress",
    "tasks.report.status.StatusBoard", "tasks.restore.Outcome", "tasks.restore.wanted._Plan",
    "tasks.values.left_out.Sum",
}  # fmt: skip


def own(kind: type[T]) -> Iterator[tuple[str, T]]:
    """What the modules of flows and tasks define of a kind, by its whole name."""
    for file in sorted((*(REPO / "flows").rglob("*.py"), *(REPO / "tasks").rglob("*.py"))):
        module = importlib.import_module(module_of(file))
        for name, found in vars(module).items():
            if isinstance(found, kind) and getattr(found, "fn", found).__module__ == module.__name__:
                yield f"{module.__name__}.{name}", found


def test_a_value_is_never_changed_once_it_is_made() -> None:
    values: dict[str, Any] = {name: one for name, one in own(type) if is_dataclass(one)}
    assert {name for name, one in values.items() if not one.__dataclass_params__.frozen} == LASTING
    models = [one for _, one in own(type) if issubclass(one, Value)]
    assert len(models) > 10 and all(one.model_config.get("frozen") for one in models)


def test_prefect_keeps_the_result_of_a_staged_group_alone_and_only_what_asks_the_hub_is_tried_again() -> None:
    tasks = dict(own(Task))
    kept = {name for name, one in tasks.items() if one.persist_result or one.cache_policy != NO_CACHE}
    assert kept == {"tasks.stage.stage_group"} and tasks["tasks.stage.stage_group"].persist_result
    again = {name.rpartition(".")[2]: one for name, one in tasks.items() if one.retries}
    at_the_start = {name for name, one in again.items() if one.retries == len(RETRY_DELAYS_AT_THE_START)}
    assert at_the_start == {"read_target", "find_edited", "read_published"}
    assert again.keys() - at_the_start == {
        "look_for_leftovers", "commit_batch", "ask_shards", "read_target_again", "restore_group", "restore_texts",
        "last_unedited", "transfer_group", "verify_target",
    }  # fmt: skip
    for name, one in again.items():
        delays = RETRY_DELAYS_AT_THE_START if name in at_the_start else RETRY_DELAYS
        assert one.retry_delay_seconds == delays and len(delays) == one.retries, name
        assert one.retry_jitter_factor == 0.5 and one.retry_condition_fn is passes, name
    assert all(one.persist_result is False for _, one in own(Flow))


def test_what_nobody_gives_a_run_is_the_careful_choice() -> None:
    given = {
        name: {field: one["default"] for field, one in flow.parameters.properties.items() if "default" in one}
        for name, flow in ((one.name, one) for _, one in own(Flow))
    }
    anywhere = {"revision": "main", "token_block": ""}
    assert given == {
        "push-bids": {
            **anywhere, "dry_run": False, "private": True, "verification": "sample", "removed": "keep", "exclude": [],
            "include": [], "strip": [], "allow": [], "gated": "no", "validate_bids": False, "staging_root": "",
            "max_staged_bytes": 0, "accept_changes": 0,
        },
        "cleanup-staging": {**anywhere, "verification": "sample", "staging_root": ""},
        "restore-bids": {**anywhere, "subjects": [], "sessions": [], "datatypes": [], "paths": []},
    }  # fmt: skip
