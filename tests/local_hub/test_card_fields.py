"""What is said of a card's fields: what the Hub refuses is an error, and whatever else is odd a warning."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]
from huggingface_hub import CommitOperationAdd, HfApi, RepoCard
from huggingface_hub.errors import BadRequestError

from deployments.local_hub.card_fields import SHOWN
from deployments.local_hub.cards import validate
from tasks.bids.licence import licence
from tests.hub_within import HubWithin
from tests.local_hub.test_yaml_values import WORST

CARD_OF_OURS = Path(__file__).parent.parent / "card_of_a_small_dataset.md"


def said(text: str, repo_type: str = "dataset") -> tuple[list[str], list[str]]:
    return validate(f"---\n{text}\n---\nText", repo_type)


FILES = (
    "does not match any of the allowed types: a path, a list of paths, or a list of which each has a split and its path"
)
ERRORS = {
    "license: asdf": '"license" must be one of [apache-2.0, mit, ',
    "license: [mit, MIT]": '"license[1]" must be one of [apache-2.0, mit, ',
    "license: {en: mit}": '"license" does not match any of the allowed types',
    "license: [[mit]]": '"license" does not match any of the allowed types',
    "language: 1": '"language" must be a string',
    "language: [en, zh-CN]": '"language[1]" must only contain lowercase characters',
    "language: python": '"language" with value "python" is not valid. It must be an ISO 639-1, 639-2 or 639-3 code',
    "language: [en-us]": '"language[0]" with value "en-us" is not valid. ',
    "configs: {config_name: a}": '"configs" must be an array',
    "configs: [a]": '"configs[0]" must be of type object',
    "configs: [{data_files: a}]": '"configs[0].config_name" is required',
    "configs: [{config_name: 1, data_files: a}]": '"configs[0].config_name" must be a string',
    "configs: [{config_name: '', data_files: a}]": '"configs[0].config_name" is not allowed to be empty',
    "configs: [{config_name: a, data_files: 1}]": f'"configs[0].data_files" {FILES}',
    "configs: [{config_name: a, data_files: {train: a}}]": f'"configs[0].data_files" {FILES}',
    "configs: [{config_name: a, data_files: [{path: a}]}]": f'"configs[0].data_files" {FILES}',
    "configs: [{config_name: a, data_files: [{split: a-b, path: a}]}]": f'"configs[0].data_files" {FILES}',
    "configs: [{config_name: a, data_files: [{split: a, path: [1]}]}]": f'"configs[0].data_files" {FILES}',
    "configs: [{config_name: a, data_files: [{split: a, path: b, of: c}]}]": f'"configs[0].data_files" {FILES}',
    "configs: [{config_name: a, data_files: b}, {config_name: a, data_files: b}]":
        '"configs[1]" contains a duplicate value: config_name "a"',
    "configs: [{config_name: a, data_files: b, default: true}, {config_name: b, data_files: b, default: true}]":
        '"configs" has several default configs: "a" and "b"',
    "configs: [{config_name: a, data_files: b, default: true}, {config_name: default, data_files: b}]":
        '"configs" has several default configs: "a" and "default"',
    "dataset_info: text": '"dataset_info" must be of type object',
    "dataset_info: [{config_name: a}, 1]": '"dataset_info[1]" must be of type object',
    "a: 1\na: 2": "Invalid YAML in README.md: the key 'a' comes twice",
}  # fmt: skip

WARNINGS = {
    "license: other": '"license_name" is missing',
    "task_categories: [image-segmentation, brains]": 'The task_categories "brains" is not in the official list: bio',
    "task_categories: [[brains]]": 'The task_categories "a list" is not in the official list',
    "task_ids: [test]": 'The task_ids "test" is not in the official list: acceptability-classification,',
    "configs: [{config_name: a}]": '"configs[0]" has neither data_files nor data_dir',
    "dataset_info: {features: {a: int}}": '"dataset_info.features" must be an array',
    "dataset_info: {features: [a]}": '"dataset_info.features[0]" must have a name',
    "dataset_info: [{splits: [{name: a}, {num_bytes: 1}]}]": '"dataset_info[0].splits[1]" must have a name',
    "dataset_info: {download_size: much}": '"dataset_info.download_size" must be a number',
    "": "empty or missing yaml metadata in repo card",
}


@pytest.mark.parametrize(("text", "message"), ERRORS.items())
def test_what_the_hub_refuses_is_an_error_in_its_words(text: str, message: str) -> None:
    errors, warned = said(text)
    assert [each[: len(message)] for each in errors] == [message]
    assert warned == []


@pytest.mark.parametrize(("text", "message"), WARNINGS.items())
def test_what_the_hub_takes_is_a_warning(text: str, message: str) -> None:
    errors, warned = said(text)
    assert errors == []
    assert [each[: len(message)] for each in warned] == [message]


@pytest.mark.parametrize(
    "text",
    [
        "license: [mit, cc-by-4.0]\nlanguage: [en, ceb, code]\ntags: [a]",
        "license: other\nlicense_name: ours-1.0\nlicense_link: LICENSE",
        "license: null\nlanguage:\nconfigs:\ndataset_info:\ntask_categories:",
        "configs: []",
        "configs: [{config_name: a, data_dir: b}, {config_name: b, data_files: [c, d/*]}]",
        "configs: [{config_name: a, data_files: [{split: train, path: b}, {split: t.1, path: [c, d]}], default: true}]",
        "dataset_info: {features: [{name: a, dtype: int32}], splits: [{name: train, num_bytes: 1.0}], dataset_size: 1}",
        "dataset_info: [{config_name: a, features: []}]",
        "anything: {else: [1]}\nmodel-index: a model's",
    ],
)  # fmt: skip
def test_a_card_as_people_write_it_is_fine(text: str) -> None:
    assert said(text) == ([], [])


def test_a_models_card_is_judged_as_a_models() -> None:
    assert said("model-index: foo", "model") == (['"model-index" must be an array'], [])
    assert said("widget: foo", "model") == (['"widget" must be an array'], [])
    assert said("base_model: [gpt2, a/b]\nconfigs: foo\nmodel-index: []", "model") == ([], [])
    (error,), _ = said("base_model: /workspace/parent", "model")
    assert (
        error == '"base_model" with value "/workspace/parent" is not valid. Use a model id from https://hf.co/models.'
    )


def test_our_own_card_is_fine() -> None:
    assert validate(CARD_OF_OURS.read_text(), "dataset") == ([], [])


def test_no_error_hides_behind_many_warnings_and_no_answer_is_long() -> None:
    odd = "task_ids: [" + "x, " * 3000 + "]\n"
    errors, warned = said("dataset_info: {features: [" + "a, " * 3000 + "]}\n" + odd + "configs: [a]")
    assert errors == ['"configs[0]" must be of type object'] and len(warned) == SHOWN
    errors, _ = said("license: [" + "x, " * 3000 + "]")
    assert len(errors) == SHOWN


WORST_FIELDS = {
    "licences": "license: [" + "x, " * 25_000 + "]",
    "languages": "language: [" + "en, " * 25_000 + "X]",
    "tasks": "task_ids: [" + "xx, " * 25_000 + "]",
    "configs": "configs: [" + "{config_name: a}, " * 8_000 + "]",
    "files": "configs: [{config_name: a, data_files: [" + "b, " * 25_000 + "1]}]",
    "aliases": "a: &a [" + "b, " * 2000 + "1]\nconfigs: [" + "{config_name: a, data_files: *a}, " * 20 + "]",
    "a mapping as a task": "task_categories: [{" + ", ".join(f"k{number}: v" for number in range(8000)) + "}]",
    "a long split": "configs: [{config_name: a, data_files: [{split: " + "a." * 100_000 + ", path: b}]}]",
    "a long model": "base_model: " + "a" * 100_000,
}


@pytest.mark.parametrize("repo_type", ["dataset", "model"])
@pytest.mark.parametrize("text", [*WORST_FIELDS.values(), *WORST.values()], ids=[*WORST_FIELDS, *WORST])
def test_the_worst_card_is_judged_as_fast_as_it_is_read(text: str, repo_type: str) -> None:
    begun = time.process_time()
    errors, warned = said(text, repo_type)
    assert time.process_time() - begun < 3
    assert sum(map(len, errors + warned)) < 100_000


# over the wire, with the public client


@pytest.fixture
def api(tmp_path: Path) -> Iterator[HfApi]:
    with HubWithin(tmp_path / "hub") as within:
        api = HfApi(token=within.target("alice/scans").token)
        api.create_repo("alice/scans", repo_type="dataset")
        api.create_repo("alice/net")
        yield api


def push(api: HfApi, card: str, repo: str = "alice/scans", repo_type: str = "dataset") -> Any:
    steps = [CommitOperationAdd("README.md", card.encode()), CommitOperationAdd("a.txt", b"a")]
    return api.create_commit(repo, steps, commit_message="a card", repo_type=repo_type)


class Unasked(HfApi):
    """A client that does not ask beforehand, as those that speak the protocol themselves."""

    def _validate_yaml(self, content: str, *, repo_type: str | None = None, token: bool | str | None = None) -> None:
        pass


def test_the_client_is_told_before_it_sends_anything(api: HfApi) -> None:
    with pytest.raises(ValueError, match=r'Invalid metadata in README\.md\.\n- "license" must be one of \[apache-2\.0'):
        push(api, "---\nlicense: asdf\n---\n")
    with pytest.raises(ValueError, match='- "model-index" must be an array'):
        push(api, "---\nmodel-index: foo\n---\n", "alice/net", "model")
    with pytest.warns(UserWarning, match='The task_categories "brains" is not in the official list'):
        push(api, "---\ntask_categories: [brains]\n---\n")


def test_who_does_not_ask_beforehand_is_refused_and_nothing_is_committed(api: HfApi) -> None:
    unasked = Unasked(token=api.token)
    before = api.list_repo_commits("alice/scans", repo_type="dataset")
    with pytest.raises(BadRequestError, match=r'Invalid metadata in README\.md: "configs" must be an array') as refused:
        push(unasked, "---\nconfigs: all\n---\n")
    assert refused.value.response.status_code == 400
    assert api.list_repo_commits("alice/scans", repo_type="dataset") == before
    push(unasked, "---\ntask_categories: [brains]\n---\n")


def test_a_card_from_before_the_rules_may_stay_and_not_change(api: HfApi, monkeypatch: pytest.MonkeyPatch) -> None:
    unasked, old = Unasked(token=api.token), "---\nlicense: asdf\n---\n"
    with monkeypatch.context() as patch:
        patch.setattr("deployments.local_hub.steps.check_card", lambda *_: None)
        push(unasked, old)
    push(unasked, old)
    unasked.upload_file(path_or_fileobj=b"b", path_in_repo="b.txt", repo_id="alice/scans", repo_type="dataset")
    with pytest.raises(BadRequestError, match="must be one of"):
        push(unasked, old + "\n")


def test_repocard_validates_with_the_hubs_own_lines(api: HfApi) -> None:
    card = RepoCard(CARD_OF_OURS.read_text())
    card.validate(repo_type="dataset")
    card.data["license"] = "asdf"
    with pytest.raises(ValueError, match=r'^- Error: "license" must be one of'):
        card.validate(repo_type="dataset")


def test_each_licence_that_our_pushes_write_is_one_of_the_hubs(api: HfApi) -> None:
    for text in ("CC0", "PDDL", "CC-BY-4.0", "CC BY-NC-SA 4.0", "ODC-By", "MIT", "a contract with us", None):
        terms = licence(text)
        front = {"license": terms.identifier, **({"license_name": terms.name} if terms.name else {})}
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert said(yaml.safe_dump(front)) == ([], [])
