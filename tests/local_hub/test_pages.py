"""Pages for people: what a link in an artifact leads to."""

from __future__ import annotations

import os
from html import unescape

import httpx2
import psutil
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

from tests.local_hub.conftest import travel_by
from tests.local_hub.running import RunningHub

TIMES = 5
CARD = b"""---
license: cc0-1.0
pretty_name: Aphasia scans
---
# Aphasia scans

| subject | images |
|---|---|
| M2001 | 4 |

<script>alert(1)</script> and [a link](https://example.org)
"""


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> str:
    return travel_by("lfs", monkeypatch)


@pytest.fixture
def shown(api: HfApi, dataset: str) -> str:
    operations = [
        CommitOperationAdd("README.md", CARD),
        CommitOperationAdd("data/sub-M2001/sub-M2001_ses-1.parquet", os.urandom(2_500_000)),
        CommitOperationAdd("bids/<odd> & name.txt", b"text with <b>tags</b>"),
    ]
    made = api.create_commit(dataset, operations, commit_message="Publish <1> session", repo_type="dataset")
    api.update_repo_settings(dataset, private=False, repo_type="dataset")
    return str(made.commit_url)


def test_a_repo_shows_its_files_sizes_last_commit_and_card(hub: RunningHub, dataset: str, shown: str) -> None:
    page = httpx2.get(f"{hub.endpoint}/datasets/{dataset}").text
    assert "Publish &lt;1&gt; session" in page
    assert f'href="/datasets/{dataset}/tree/main/data"' in page
    assert "4 files, 2.5 MB" in page
    assert "<h1>Aphasia scans</h1>" in page
    assert "<td>M2001</td>" in page
    assert "license: cc0-1.0" in page
    assert "<script>" not in page


def test_a_picture_of_the_card_that_lies_in_the_repo_is_found(hub: RunningHub, api: HfApi, dataset: str) -> None:
    png = b"\x89PNG and so on"
    card = b"| a |\n|---|\n| ![a slice](pictures/a.png) ![far](https://example.org/b.png) |\n"
    operations = [CommitOperationAdd("README.md", card), CommitOperationAdd("pictures/a.png", png)]
    commit = api.create_commit(dataset, operations, commit_message="x", repo_type="dataset").oid
    api.update_repo_settings(dataset, private=False, repo_type="dataset")
    page = httpx2.get(f"{hub.endpoint}/datasets/{dataset}").text
    source = f"/datasets/{dataset}/resolve/{commit}/pictures/a.png"
    assert f'<img src="{source}" alt="a slice"' in page and 'src="https://example.org/b.png"' in page
    assert httpx2.get(f"{hub.endpoint}{source}", follow_redirects=True).content == png


def test_a_gated_repo_is_shown_to_those_of_its_namespace_alone(hub: RunningHub, api: HfApi, dataset: str) -> None:
    api.update_repo_settings(dataset, private=False, repo_type="dataset")
    assert httpx2.get(f"{hub.endpoint}/datasets/{dataset}").status_code == 200
    api.update_repo_settings(dataset, gated="auto", repo_type="dataset")
    assert httpx2.get(f"{hub.endpoint}/datasets/{dataset}").status_code == 401
    assert httpx2.get(f"{hub.endpoint}/api/datasets/{dataset}").status_code == 401
    assert api.dataset_info(dataset).gated == "auto"
    api.update_repo_settings(dataset, gated=False, repo_type="dataset")
    assert httpx2.get(f"{hub.endpoint}/datasets/{dataset}").status_code == 200
    assert api.dataset_info(dataset).gated is False


def test_a_comment_in_the_card_is_not_shown(hub: RunningHub, api: HfApi, dataset: str) -> None:
    card = b"<!-- a note to who edits this -->\n\n# Brains\n\n<!-- two\nlines -->\n\n`<!-- code -->`\n"
    api.upload_file(path_or_fileobj=card, path_in_repo="README.md", repo_id=dataset, repo_type="dataset")
    api.update_repo_settings(dataset, repo_type="dataset", private=False)
    page = httpx2.get(f"{hub.endpoint}/datasets/{dataset}").text
    assert "Brains" in page and "&lt;!-- code --&gt;" in page
    assert "a note" not in page and "two" not in page


def test_folders_files_history_and_commits_are_reached_from_there(hub: RunningHub, dataset: str, shown: str) -> None:
    base = f"{hub.endpoint}/datasets/{dataset}"
    folder = httpx2.get(f"{base}/tree/main/data/sub-M2001").text
    assert "sub-M2001_ses-1.parquet" in folder
    assert "2.5 MB" in folder
    text = httpx2.get(f"{base}/blob/main/bids/%3Codd%3E%20&%20name.txt").text
    assert "text with &lt;b&gt;tags&lt;/b&gt;" in text
    assert "<odd>" not in text
    assert "initial commit" in httpx2.get(f"{base}/commits/main").text
    assert "Publish &lt;1&gt; session" in httpx2.get(shown).text
    assert dataset in httpx2.get(hub.endpoint).text


def test_a_browser_signs_in_once_and_sees_private_repos_without_being_able_to_write(
    hub: RunningHub, api: HfApi, dataset: str, token: str
) -> None:
    address = f"{hub.endpoint}/datasets/{dataset}"
    with httpx2.Client(headers={"accept": "text/html"}, follow_redirects=True) as browser:
        outside = browser.get(address)
        assert outside.status_code == 404
        assert f"/login?next=%2Fdatasets%2F{dataset.replace('/', '%2F')}" in outside.text
        assert browser.post(f"{hub.endpoint}/login", data={"token": "hf_wrong"}).status_code == 401
        inside = browser.post(f"{hub.endpoint}/login", data={"token": token, "next": f"/datasets/{dataset}"})
        assert inside.status_code == 200
        assert ".gitattributes" in inside.text
        assert dataset in browser.get(hub.endpoint).text
        assert token not in str(browser.cookies)
        assert browser.post(f"{hub.endpoint}/api/datasets/{dataset}/branch/x", json={}).status_code == 404
        elsewhere = {"token": token, "next": "//example.org/"}
        assert browser.post(f"{hub.endpoint}/login", data=elsewhere).url.host == "127.0.0.1"
        browser.get(f"{hub.endpoint}/logout")
        assert browser.get(address).status_code == 404


def test_a_page_of_a_thousand_files_is_there_in_a_fraction_of_a_second(
    hub: RunningHub, api: HfApi, dataset: str
) -> None:
    operations = [CommitOperationAdd(f"data/{number}.txt", b"%d" % number) for number in range(1000)]
    api.create_commit(dataset, operations, commit_message="many", repo_type="dataset")
    api.update_repo_settings(dataset, private=False, repo_type="dataset")
    begin = hub.processor_seconds
    for _ in range(TIMES):
        assert httpx2.get(f"{hub.endpoint}/datasets/{dataset}/tree/main/data").text.count("<tr>") == 1001
    assert (hub.processor_seconds - begin) / TIMES < 0.2


def test_a_full_disk_is_said_plainly_and_what_was_there_stays(
    hub: RunningHub, api: HfApi, dataset: str, token: str
) -> None:
    before = hub.half_received()
    first = api.upload_file(path_or_fileobj=b"x", path_in_repo="a.txt", repo_id=dataset, repo_type="dataset")
    assert hub.process is not None
    server = psutil.Process(hub.process.pid)
    unlimited = server.rlimit(psutil.RLIMIT_FSIZE)
    # files of the server may not grow beyond a few megabytes: the same error at the same place as a full disk
    server.rlimit(psutil.RLIMIT_FSIZE, (30_000_000, unlimited[1]))
    try:
        body = b'{"key": "header", "value": {"summary": "x"}}\n' + b" " * 40_000_000
        answer = httpx2.post(
            f"{hub.endpoint}/api/datasets/{dataset}/commit/main", content=body,
            headers={"authorization": f"Bearer {token}"},
        )  # fmt: skip
    finally:
        server.rlimit(psutil.RLIMIT_FSIZE, unlimited)
    assert answer.status_code == 507
    assert "cannot store" in answer.json()["error"]
    assert hub.leaves_nothing(beside=before)
    assert api.dataset_info(dataset).sha == first.oid


def test_the_settings_page_says_who_sees_a_repo_and_how_that_is_changed(
    hub: RunningHub, api: HfApi, dataset: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    address = f"{hub.endpoint}/datasets/{dataset}"
    assert httpx2.get(f"{address}/settings").status_code == 404  # a private one is nobody else's business
    api.update_repo_settings(dataset, private=False, repo_type="dataset")
    page = httpx2.get(f"{address}/settings").text
    assert "It is <b>public</b>" in page and "everybody who reaches this Hub" in page
    assert f'href="/datasets/{dataset}/settings"' in httpx2.get(address).text

    lines = unescape(page.partition("<pre>")[2].partition("</pre>")[0])
    exec(lines.replace("HfApi()", "api"), {"api": api})  # what the page says to type
    info = api.dataset_info(dataset)
    assert info.private and info.gated == "auto"


def test_files_are_searched_by_parts_of_their_paths(hub: RunningHub, api: HfApi, dataset: str, shown: str) -> None:
    address = f"{hub.endpoint}/datasets/{dataset}"
    page = httpx2.get(address, params={"search": "SUB-m2001 parquet"}).text
    assert ">data/sub-M2001/sub-M2001_ses-1.parquet</a>" in page and "1 file<" in page
    assert "odd" not in unescape(page.split("<table>")[1])
    assert "No file has all of that" in httpx2.get(address, params={"search": "sub-M2001 T2w"}).text
    hostile = httpx2.get(address, params={"search": '"><script>alert(1)</script>' + "x" * 9000})
    assert hostile.status_code == 200 and "<script>" not in hostile.text
    inside = httpx2.get(f"{address}/tree/main/bids", params={"search": "parquet"}).text
    assert "No file has all of that" in inside


def test_the_history_says_what_each_commit_added_changed_and_removed(
    hub: RunningHub, api: HfApi, dataset: str, shown: str
) -> None:
    made = api.create_commit(
        dataset,
        [
            CommitOperationAdd("README.md", b"# Another\n"),
            CommitOperationAdd("bids/new.txt", b"new"),
            CommitOperationDelete("bids/<odd> & name.txt"),
        ],
        commit_message="Some of each",
        repo_type="dataset",
    )
    address = f"{hub.endpoint}/datasets/{dataset}"
    history = httpx2.get(f"{address}/commits/main").text
    assert "1 added, 1 changed, 1 removed" in history and "3 added" in history
    page = httpx2.get(f"{address}/commit/{made.oid}").text
    for kind, path in (("added", "bids/new.txt"), ("changed", "README.md"), ("removed", "bids/<odd> & name.txt")):
        assert f'<td class="{kind}">{kind}</td>' in page
        assert f">{path}</a>" in unescape(page)
    link = page.split('class="removed"')[1].split('href="')[1].split('"')[0]
    assert "text with &lt;b&gt;tags" in httpx2.get(hub.endpoint + unescape(link)).text
    first = httpx2.get(f"{address}/commit/{api.list_repo_commits(dataset, repo_type='dataset')[-1].commit_id}").text
    assert "1 added" in first and ".gitattributes" in first
