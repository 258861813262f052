"""Any name through a deployment's form, a worker and the gate; and what the form does not take."""

from pathlib import Path

import pytest
from prefect.exceptions import PrefectHTTPStatusError

from tests.end_to_end.conftest import Push


def test_a_target_with_capitals_and_signs_goes_through_the_gate_and_a_tilde_is_the_workers_home(
    push: Push, bids: Path, repo_id: str, tmp_path: Path
) -> None:
    (tmp_path / "my data").symlink_to(bids)
    name = repo_id.replace("dataset", "ARC.v1_Set")
    pushed = push(
        repo_id=name,
        revision="feature/Dev-1#7",
        source="~/my data",
        staging_root="~/staging",
        env={"HOME": str(tmp_path)},
    ).at_gate()
    staged = list((tmp_path / "staging").rglob("*.parquet"))
    assert len(staged) == 6
    assert pushed.approve(confirm_repo=name.lower()) is None
    pushed.at_gate()
    assert pushed.approve() is None
    assert pushed.ended()[0] == "CleanedUp"
    assert not list((tmp_path / "staging").rglob("*.parquet"))


def test_a_bad_setting_of_the_worker_is_named_by_the_run(push: Push) -> None:
    name, message = push(env={"BIDS_PUSH_STAGE_WORKERS": "-3", "BIDS_PUSH_CHECK": "most"}).ended()
    assert name == "BadInput" and "BIDS_PUSH_STAGE_WORKERS: '-3'" in message and "BIDS_PUSH_CHECK: 'most'" in message


@pytest.mark.parametrize(
    "wrong",
    [
        {"repo_id": "lab/a--b"},
        {"repo_id": "lab/x.git"},
        {"repo_id": f"lab/{'x' * 97}"},
        {"repo_id": "lab/my dataset"},
        {"revision": "refs/pr/1"},
        {"revision": "a..b"},
        {"revision": "my branch"},
        {"revision": "-x"},
        {"token_block": "hf_AbCdEf"},
    ],
)
def test_a_name_that_the_hub_or_git_refuses_is_refused_by_the_form(push: Push, wrong: dict[str, str]) -> None:
    with pytest.raises(PrefectHTTPStatusError) as refused:
        push(**wrong)
    assert refused.value.response.status_code in (409, 422)
