"""Any name that the Hub takes is a target, by the real rules: huggingface_hub's, git's and Prefect's own."""

import re
import string
import subprocess
from pathlib import Path
from typing import Any

import httpx2
import pytest
from huggingface_hub.utils import HFValidationError, validate_repo_id
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from prefect.client.schemas.actions import ArtifactCreate, VariableCreate
from prefect.client.schemas.objects import State
from prefect.types.names import ArtifactKey, ValidAssetKey
from pydantic import TypeAdapter

from deployments.local_stack import Stack
from flows.cleanup_staging import cleanup_staging
from flows.push_bids import push_bids
from tasks.disk.staging import Target
from tasks.hub.client import Hub
from tasks.report.lineage import artifact_key, asset_key, repo_asset, source_asset
from tasks.runs.lease import variable_name
from tasks.runs.this_run import target_tag
from tasks.values.names import BRANCH_PATTERN, REPO_ID_PATTERN, branch_problem, repo_id_problem
from tests.conftest import SESSIONS
from tests.figures import artifacts

LONG = "A" + 47 * "b." + "C"  # 96 characters
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

repo_ids = some.from_regex(r"[A-Za-z0-9_.-]{1,12}/[A-Za-z0-9_.-]{1,96}", fullmatch=True)
almost_repo_ids = some.text(string.ascii_letters + "0-._/ é\n", max_size=12) | repo_ids
branches = some.text(some.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12) | some.text(
    "aZ._-/@{}~^:?*[\\ #%&+~lock\nü", min_size=1, max_size=12
)


def accepted_by_the_hub(repo_id: str) -> bool:
    try:
        validate_repo_id(repo_id)
    except HFValidationError:
        return False
    return "/" in repo_id


@pytest.fixture(scope="module")
def git_repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("git")
    subprocess.run(["git", "init", "--quiet", folder], check=True)
    return folder


def accepted_by_git(branch: str, folder: Path) -> bool:
    command = ["git", "check-ref-format", "--branch", branch]
    return subprocess.run(command, cwd=folder, capture_output=True, check=False).returncode == 0


@many
@given(almost_repo_ids)
@example(f"lab/{LONG}")
@example(f"lab/{LONG}x")
@example("_lab_/_x_")
@example("lab/x.git")
@example("a--b/x")
@example("lab.git/x")
@example("lab")
@example("datasets/lab/x")
def test_a_repo_name_is_taken_by_form_and_flow_where_the_hubs_client_takes_it(repo_id: str) -> None:
    good = accepted_by_the_hub(repo_id)
    assert (repo_id_problem(repo_id) is None) == good
    if repo_id == repo_id.strip():
        assert (re.search(REPO_ID_PATTERN, repo_id) is not None) == good


@many
@given(branch=branches)
@example(branch="@")
@example(branch="HEAD")
@example(branch="a@{b")
@example(branch="{a}")
@example(branch="a.lock/b")
@example(branch="a./b")
@example(branch="-x")
@example(branch="x/.y")
@example(branch="a\\b")
@example(branch="ümlaut")
@example(branch="x" * 300)
def test_a_branch_is_taken_by_form_and_flow_where_git_takes_it(branch: str, git_repo: Path) -> None:
    good = accepted_by_git(branch, git_repo) and not branch.startswith("refs/")
    assert (branch_problem(branch) is None) == good
    if branch == branch.strip():
        assert (re.search(BRANCH_PATTERN, branch) is not None) == good


@pytest.mark.parametrize("branch", ["refs/pr/1", "", "\udcff"])
def test_what_is_a_full_ref_or_nothing_or_no_unicode_is_no_branch(branch: str) -> None:
    assert "is no name for a branch" in (branch_problem(branch) or "")


def names_of(target: Target, source: Path = Path("/data/x")) -> dict[str, str]:
    hub = Hub(target, "hf_x")
    return {
        "folder": target.slug,
        "lease": variable_name(target),
        "tag": target_tag(target),
        "artifact key": artifact_key("repo", target),
        "asset key": repo_asset(hub).key,
    }


targets = some.builds(
    Target,
    some.sampled_from(["https://huggingface.co", "http://127.0.0.1:8080"]),
    repo_ids.filter(accepted_by_the_hub),
    branches.filter(lambda name: branch_problem(name) is None),
)


@many
@given(targets)
@example(Target("https://huggingface.co", f"{LONG}/{LONG}", "ü" * 200))
@example(Target("https://huggingface.co", "lab/Aphasia", "Dev-1"))
def test_every_name_of_a_target_is_one_that_prefect_and_the_disk_take(target: Target) -> None:
    names = names_of(target)
    VariableCreate(name=names["lease"], value={})
    TypeAdapter(ArtifactKey).validate_python(ArtifactCreate(key=names["artifact key"]).key)
    TypeAdapter(ValidAssetKey).validate_python(names["asset key"])
    assert names["folder"].isprintable() and len(names["folder"].encode()) <= 255 - len(".damaged")
    assert "/" not in names["folder"] and names["folder"] not in (".", "..")


def spelled_otherwise(target: Target) -> list[Target]:
    repo_id, revision = target.repo_id, target.revision
    return [
        Target(target.endpoint, repo_id.swapcase(), revision),
        Target(target.endpoint, repo_id.replace(".", "-"), revision),
        Target(target.endpoint, repo_id, revision.swapcase()),
        Target(target.endpoint, repo_id, revision + "#"),
        Target(target.endpoint, repo_id, revision + "%"),
        Target(target.endpoint, repo_id, revision + "_"),
        Target(target.endpoint, repo_id, "main"),
        Target("http://another", repo_id, revision),
    ]


@pytest.mark.slow
@many
@given(targets)
@example(Target("https://huggingface.co", f"lab/{LONG}", "x" * 600))
def test_two_targets_share_no_name_even_where_capitals_do_not_count(target: Target) -> None:
    mine = names_of(target)
    for other in spelled_otherwise(target):
        if other != target:
            for kind, name in names_of(other).items():
                same = name == mine[kind] if kind == "asset key" else name.casefold() == mine[kind].casefold()
                assert not same, (kind, other)


def test_targets_that_worked_before_keep_their_folder_and_their_lease() -> None:
    target = Target("https://huggingface.co", "my-lab/data_1.0", "feature/x")
    assert target.slug == "my-lab--data_1.0--feature--x-6b5f162809"
    assert variable_name(target) == "bids-push-my-lab--data_1-0--feature--x-6b5f162809"


@pytest.mark.parametrize(
    "path", ["/data/plain", "/data/my data (1) [x] #1 50%?", "/data/a\nb", "/data/ü", "/" + "x" * 900]
)
def test_every_folder_has_an_asset_key_of_its_own_that_prefect_takes(path: str) -> None:
    TypeAdapter(ValidAssetKey).validate_python(source_asset(Path(path)).key)
    assert source_asset(Path(path)).key != source_asset(Path(path + "#")).key != source_asset(Path(path + "_")).key
    assert asset_key("file:///data/plain") == "file:///data/plain"


# Through the flow, on a real Prefect server and the local Hub.


def push(source: Path, repo_id: str, root: Path, revision: str = "main", **parameters: Any) -> State[Any]:
    return push_bids(
        source,
        repo_id,
        defacing="no faces",
        revision=revision,
        private=False,
        staging_root=root,
        return_state=True,
        **parameters,
    )


@pytest.mark.parametrize(
    ("repo_id", "revision"),
    [
        ("lab/Aphasia", "main"),
        ("lab/ARC.v1", "main"),
        ("Some-Lab.2/a-b_C", "main"),
        ("_Lab_/_x_", "main"),
        (f"lab/{LONG}", "main"),
        ("lab/branches", "Dev-1"),
        ("lab/branches", "dev-1"),
        ("lab/branches", "feature/Dev-1"),
        ("lab/branches", "fix#7+100%&{a}"),
        ("lab/branches", "ümlaut"),
        ("lab/branches", "_" + "x" * 240),
        ("lab/branches", "@"),
    ],
)
def test_any_name_is_published_found_again_and_linked(
    bids: Path, prefect_server: Stack, root: Path, monkeypatch: pytest.MonkeyPatch, repo_id: str, revision: str
) -> None:
    token = prefect_server.make_token(repo_id.split("/")[0])
    monkeypatch.setenv("HF_TOKEN", token)
    state = push(bids, repo_id, root, revision)
    assert (state.type.value, state.name) == ("COMPLETED", "Staged"), state.message
    target = Hub(Target(prefect_server.endpoint, repo_id, revision), token)
    head = target.head()
    assert sum(path.startswith("data/") for path in target.listing(head).files) == SESSIONS
    left = [found[1] for data in artifacts(state).values() if (found := re.fullmatch(r"\[.*\]\((.*)\)", str(data)))]
    assert len(left) == 2
    pages = [target.branch_url(), target.url("README.md"), target.url("bids/participants.tsv", head), *left]
    assert {page: httpx2.get(page).status_code for page in pages} == dict.fromkeys(pages, 200)
    again = push(bids, repo_id, root, revision)
    assert again.name == "NothingToPublish" and target.head() == head
    verified = cleanup_staging(repo_id, revision, staging_root=root, return_state=True)
    assert verified.name == "Staged" and f"{SESSIONS} shards" in (verified.message or "")
    assert len(list(root.iterdir())) == 1  # the target's folder, with the cache of known contents in it


def test_a_name_that_differs_only_in_capitals_is_the_same_repo_and_the_run_says_how_it_is_spelled(
    bids: Path, prefect_server: Stack, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", prefect_server.token)
    push(bids, "lab/Spelled", root)
    target = Hub(Target(prefect_server.endpoint, "lab/Spelled"), prefect_server.token)
    head = target.head()
    state = push(bids, "lab/spelled", root)
    assert (state.type.value, state.name) == ("FAILED", "BadInput")
    assert "lab/spelled is called lab/Spelled on the Hub" in (state.message or "")
    assert target.head() == head


@pytest.mark.parametrize("given", [" lab/trimmed ", "lab/trimmed\n"])
def test_spaces_around_a_name_are_taken_off(
    bids: Path, prefect_server: Stack, root: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", prefect_server.token)
    state = push(bids, given, root, " main ", dry_run=True)
    assert state.name == "DryRun", state.message


@pytest.mark.parametrize(
    ("given", "near"),
    [
        ("my lab/My dataset (2024)", "my-lab/My-dataset-2024"),
        ("lab/Z\u00fcrich -- rest..state.", "lab/Zurich-rest.state"),
        ("https://huggingface.co/datasets/lab/x.git", "lab/x"),
        ("lab/" + "x" * 200, "lab/" + "x" * 96),
        ("dataset", None),
        ("lab/\u8cc7\u6599", None),
    ],
)
def test_a_name_that_cannot_be_is_answered_in_plain_words_with_the_nearest_that_can(
    given: str, near: str | None
) -> None:
    said = repo_id_problem(given) or ""
    assert f"The nearest one: {near}." in said if near else "For example: my-lab/my-dataset." in said
    assert "letters without accents, digits, _, - and ." in said and "alphanumeric" not in said and "regex" not in said
    assert near is None or repo_id_problem(near) is None


@pytest.mark.parametrize(
    ("repo_id", "revision", "says"),
    [
        ("a/b/c", "main", "it has more than one /. Give namespace/name alone"),
        ("my lab/my dataset", "main", "' ' may not be in it"),
        ("dataset", "main", "'dataset' is no name for a repo: it has no namespace"),
        ("https://huggingface.co/datasets/lab/x", "main", "The nearest one: lab/x."),
        ("lab/x", "my branch", "' ' may not be in it"),
        ("lab/x", "", "it is empty"),
        ("lab/x", "refs/pr/1", "it is a full ref"),
    ],
)
def test_a_name_that_the_hub_refuses_ends_in_a_sentence(
    bids: Path, prefect_server: Stack, root: Path, repo_id: str, revision: str, says: str
) -> None:
    state = push(bids, repo_id, root, revision)
    assert (state.type.value, state.name) == ("FAILED", "BadInput")
    assert says in (state.message or "") and "\n" not in (state.message or "")
