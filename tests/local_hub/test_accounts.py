"""Who may do what: roles, organisations, private repos that look as if they did not exist."""

from __future__ import annotations

import itertools
import sqlite3
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, RepositoryNotFoundError
from huggingface_hub.utils import build_hf_headers, get_session

from tests.local_hub.conftest import travel_by
from tests.local_hub.running import RunningHub

_numbers = itertools.count(1)


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    return travel_by("lfs", monkeypatch)


def anonymous(hub: RunningHub) -> HfApi:
    return HfApi(hub.endpoint, token=False)


def status(error: pytest.ExceptionInfo[HfHubHTTPError]) -> int:
    return int(error.value.response.status_code)


def test_whoami_names_the_account_its_organisations_and_the_role_of_its_token(hub: RunningHub, api: HfApi) -> None:
    me = api.whoami()
    assert (me["name"], [org["name"] for org in me["orgs"]]) == ("alice", ["lab"])
    assert me["auth"]["accessToken"]["role"] == "write"


def test_a_wrong_token_is_refused_as_such_even_for_what_is_public(hub: RunningHub, api: HfApi) -> None:
    wrong = HfApi(hub.endpoint, token="hf_" + "x" * 32)
    with pytest.raises(HfHubHTTPError, match="Invalid") as refusal:
        wrong.whoami()
    assert status(refusal) == 401


def test_a_gated_repo_says_so_to_others_and_a_private_one_that_is_gated_does_not(
    hub: RunningHub, api: HfApi, dataset: str, tmp_path: Path
) -> None:
    api.update_repo_settings(dataset, private=False, gated="auto", repo_type="dataset")
    stranger = HfApi(hub.endpoint, token=hub.token("bob", "read"))
    with pytest.raises(
        GatedRepoError, match=f"Access to dataset {dataset} is restricted and you are not in"
    ) as refusal:
        stranger.hf_hub_download(dataset, ".gitattributes", repo_type="dataset", cache_dir=tmp_path)
    assert status(refusal) == 403
    with pytest.raises(GatedRepoError) as refusal:
        anonymous(hub).auth_check(dataset, repo_type="dataset")
    assert status(refusal) == 401
    assert dataset not in [found.id for found in stranger.list_datasets(author="alice")]
    clone = f"{hub.endpoint}/datasets/{dataset}.git/info/refs?service=git-upload-pack"
    assert "Basic" in httpx2.get(clone).headers["www-authenticate"]  # so that git asks for a token

    api.update_repo_settings(dataset, private=True, repo_type="dataset")
    with pytest.raises(RepositoryNotFoundError) as none:
        stranger.auth_check(dataset, repo_type="dataset")
    assert status(none) == 404 and not isinstance(none.value, GatedRepoError)


def test_a_token_stops_working_when_its_time_is_over(hub: RunningHub) -> None:
    late = HfApi(hub.endpoint, token=hub.token("bob", "write", "--valid-for", "0"))
    with pytest.raises(HfHubHTTPError) as refusal:
        late.whoami()
    assert status(refusal) == 401


def test_revoked_tokens_stop_working_at_once(hub: RunningHub) -> None:
    former = HfApi(hub.endpoint, token=hub.token("erin"))
    assert former.whoami()["name"] == "erin"
    assert hub.command("revoke", "erin").strip() == "1 token"
    with pytest.raises(HfHubHTTPError) as refusal:
        former.whoami()
    assert status(refusal) == 401


def test_a_private_repo_looks_missing_to_everyone_else(hub: RunningHub, api: HfApi, dataset: str) -> None:
    other = HfApi(hub.endpoint, token=hub.token("bob"))
    for outsider in (other, anonymous(hub)):
        for seen in (dataset, "alice/there-is-no-such-repo"):
            with pytest.raises(RepositoryNotFoundError) as refusal:
                outsider.dataset_info(seen)
            assert status(refusal) == 404
            assert refusal.value.server_message == "Repository not found"
        with pytest.raises(RepositoryNotFoundError):
            outsider.hf_hub_download(dataset, ".gitattributes", repo_type="dataset")
    assert dataset not in get_session().get(hub.endpoint).text


def test_a_public_repo_is_read_by_all_and_written_by_its_owner_alone(hub: RunningHub, api: HfApi) -> None:
    name = f"alice/public-{next(_numbers)}"
    api.create_repo(name, repo_type="dataset", private=False)
    assert anonymous(hub).dataset_info(name).private is False
    bob = HfApi(hub.endpoint, token=hub.token("bob"))
    for outsider, expected in ((bob, 403), (anonymous(hub), 401)):
        with pytest.raises(HfHubHTTPError) as refusal:
            outsider.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=name, repo_type="dataset")
        assert status(refusal) == expected


def test_a_read_token_reads_and_does_not_write(hub: RunningHub, api: HfApi, dataset: str) -> None:
    reader = HfApi(hub.endpoint, token=hub.token("alice", "read"))
    assert reader.dataset_info(dataset).private
    with pytest.raises(HfHubHTTPError, match="role 'write' is needed") as refusal:
        reader.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    assert status(refusal) == 403


def test_members_of_an_organisation_write_or_read_as_their_role_there_says(hub: RunningHub, api: HfApi) -> None:
    name = f"lab/shared-{next(_numbers)}"
    api.create_repo(name, repo_type="dataset", private=True)
    writer = HfApi(hub.endpoint, token=hub.token("carol", "write", "--org", "lab"))
    reader = HfApi(hub.endpoint, token=hub.token("dave", "write", "--org", "lab:read"))

    writer.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=name, repo_type="dataset")
    assert "a.txt" in reader.list_repo_files(name, repo_type="dataset")
    with pytest.raises(HfHubHTTPError) as refusal:
        reader.upload_file(path_or_fileobj=b"y", path_in_repo="a.txt", repo_id=name, repo_type="dataset")
    assert status(refusal) == 403


def test_nobody_creates_repos_in_a_namespace_that_is_not_theirs(hub: RunningHub, api: HfApi) -> None:
    bob = HfApi(hub.endpoint, token=hub.token("bob"))
    with pytest.raises(HfHubHTTPError, match="rights to write under the namespace") as refusal:
        bob.create_repo("alice/intruder", repo_type="dataset")
    assert status(refusal) == 403


def test_a_name_that_is_taken_is_a_conflict_and_exist_ok_accepts_it(api: HfApi, dataset: str) -> None:
    with pytest.raises(HfHubHTTPError) as refusal:
        api.create_repo(dataset, repo_type="dataset")
    assert status(refusal) == 409
    assert api.create_repo(dataset, repo_type="dataset", exist_ok=True).repo_id == dataset


def test_a_deleted_repo_is_gone_and_its_name_is_free(api: HfApi, dataset: str) -> None:
    api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    api.delete_repo(dataset, repo_type="dataset")

    with pytest.raises(RepositoryNotFoundError):
        api.dataset_info(dataset)
    api.create_repo(dataset, repo_type="dataset")
    assert api.list_repo_files(dataset, repo_type="dataset") == [".gitattributes"]


def test_a_repo_is_renamed_and_made_public(hub: RunningHub, api: HfApi, dataset: str) -> None:
    api.move_repo(dataset, f"{dataset}-moved", repo_type="dataset")
    api.update_repo_settings(f"{dataset}-moved", private=False, repo_type="dataset")
    assert anonymous(hub).dataset_info(f"{dataset}-moved").private is False


def test_the_name_that_a_repo_had_leads_to_it_until_another_is_called_so(
    hub: RunningHub, api: HfApi, dataset: str, cache: Path
) -> None:
    """For everything that people and programs have kept: pages, downloads, listings, and commits."""
    api.upload_file(path_or_fileobj=b"first", path_in_repo="a é.txt", repo_id=dataset, repo_type="dataset")
    now = f"{dataset}-Now"
    api.move_repo(dataset, now, repo_type="dataset")

    assert api.dataset_info(dataset).id == now
    assert "a é.txt" in api.list_repo_files(dataset, repo_type="dataset")
    local = api.hf_hub_download(dataset, "a é.txt", repo_type="dataset", cache_dir=cache)
    assert Path(local).read_bytes() == b"first"
    api.upload_file(path_or_fileobj=b"second", path_in_repo="b.txt", repo_id=dataset, repo_type="dataset")
    assert "b.txt" in api.list_repo_files(now, repo_type="dataset")
    page = httpx2.get(
        f"{hub.endpoint}/datasets/{dataset}", headers=build_hf_headers(token=api.token), follow_redirects=True
    )
    assert page.is_success and str(page.url).endswith(now)

    api.create_repo(dataset, repo_type="dataset")
    assert api.list_repo_files(dataset, repo_type="dataset") == [".gitattributes"]


def test_a_private_repo_that_was_moved_is_not_betrayed_by_its_old_name(
    hub: RunningHub, api: HfApi, dataset: str
) -> None:
    api.move_repo(dataset, f"{dataset}-secret", repo_type="dataset")
    answers = [httpx2.get(f"{hub.endpoint}/api/datasets/{name}") for name in (dataset, "alice/never")]
    assert [(one.status_code, one.text, one.headers.get("location")) for one in answers] == [
        (404, answers[0].text, None)
    ] * 2


def test_tokens_are_kept_as_digests_and_never_logged(hub: RunningHub, api: HfApi, token: str) -> None:
    api.whoami()
    with sqlite3.connect(hub.root / "hub.sqlite3") as database:
        stored = database.execute("SELECT digest FROM token").fetchall()
    assert all(len(digest) == 32 for (digest,) in stored)
    for path in [*hub.root.rglob("*"), hub.root.with_suffix(".log")]:
        if path.is_file():
            assert token.encode() not in path.read_bytes()
