"""Requests no honest client sends: refused in the Hub's shape, with nothing changed and nothing told."""

from __future__ import annotations

import asyncio
import base64
import json
import re
import socket
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.local_hub.conftest import a_hub_alone
from tests.local_hub.fuzz import prepared, send_all
from tests.local_hub.running import RunningHub

hub, token, transport = a_hub_alone("hostile")  # whose log tells of these tests alone


def commit(hub: RunningHub, dataset: str, token: str, *steps: object, raw: bytes | None = None) -> httpx2.Response:
    lines = [{"key": "header", "value": {"summary": "hostile"}}, *steps]
    body = raw if raw is not None else b"".join(json.dumps(line).encode() + b"\n" for line in lines)
    address = f"{hub.endpoint}/api/datasets/{dataset}/commit/main"
    return httpx2.post(address, content=body, headers={"authorization": f"Bearer {token}"})


def file(path: object, content: bytes = b"x") -> dict[str, object]:
    value = {"path": path, "content": base64.b64encode(content).decode(), "encoding": "base64"}
    return {"key": "file", "value": value}


def refused(answer: httpx2.Response) -> bool:
    """Whether an answer is a refusal as the Hub words it."""
    message = answer.json()["error"]
    return 400 <= answer.status_code < 500 and bool(message) and "X-Error-Message" in answer.headers


@pytest.mark.parametrize(
    "path",
    [
        "../a.txt", "a/../../b.txt", "/etc/passwd", "a//b.txt", "./a.txt", "a/./b", "..", ".", "", "a/", "a\0b", "a\nb",
        ".git/config", ".GIT/config", "a/.git/hooks/pre-commit", ".git./x", ".git /x", "git~1/x", "a\\..\\b", "\x7f",
        "x" * 300, "/".join(["abc"] * 400), "\ud800", 7, None, ["a"], {"a": 1},
    ],
)  # fmt: skip
def test_a_path_that_no_repo_may_contain_is_refused(
    hub: RunningHub, api: HfApi, dataset: str, token: str, path: object
) -> None:
    head = api.dataset_info(dataset).sha
    assert refused(commit(hub, dataset, token, file("fine.txt"), file(path)))
    assert refused(commit(hub, dataset, token, {"key": "deletedFile", "value": {"path": path}}))
    assert api.dataset_info(dataset).sha == head


def test_a_file_and_a_folder_cannot_share_a_name(hub: RunningHub, api: HfApi, dataset: str, token: str) -> None:
    assert commit(hub, dataset, token, file("a/b.txt")).status_code == 200
    assert refused(commit(hub, dataset, token, file("a")))
    assert refused(commit(hub, dataset, token, file("a/b.txt/c.txt")))
    assert refused(commit(hub, dataset, token, file("new"), file("new/inner.txt")))


@pytest.mark.parametrize(
    "raw",
    [
        b"", b"\n", b"no json\n", b"[]\n", b"{}\n", b'{"key": "header"}\n', b'{"key": "header", "value": {}}\n',
        b'{"key": "header", "value": {"summary": ""}}\n', b'{"key": "header", "value": {"summary": 5}}\n',
        b'{"key": "file", "value": {"path": "a", "content": ""}}\n', b"[" * 100_000, b'{"key":"header","value":' * 5000,
        b'{"key": "header", "value": {"summary": "x"}}\n{"key": "unknown", "value": {}}\n',
        b'{"key": "header", "value": {"summary": "x"}}\n'
        b'{"key": "file", "value": {"path": "a", "content": "%%", "encoding": "base64"}}\n',
        b'{"key": "header", "value": {"summary": "x", "parentCommit": 5}}\n',
        b'{"key": "header", "value": {"summary": "x"}}\n'
        b'{"key": "lfsFile", "value": {"path": "a", "algo": "md5", "oid": "x"}}\n',
        b'{"key": "header", "value": {"summary": "half a character: \\ud800"}}\n',
        b'{"key": "header", "value": {"summary": "a\\u0000b"}}\n',
        b'{"key": "header", "value": {"summary": "x"}}\n' + b'{"key": "file", "value": {"path": "' + b"x" * 34_000_000,
        b'{"key": "header", "value": {"summary": "' + b"x" * 100_000 + b'"}}\n', b"\xff\xfe\n",
    ],
)  # fmt: skip
def test_a_commit_that_makes_no_sense_is_refused(
    hub: RunningHub, api: HfApi, dataset: str, token: str, raw: bytes
) -> None:
    head = api.dataset_info(dataset).sha
    assert refused(commit(hub, dataset, token, raw=raw))
    assert api.dataset_info(dataset).sha == head


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    body=st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
        max_leaves=10,
    ),
    route=st.sampled_from(
        ["preupload/main", "paths-info/main", "branch/x", "tag/main", "super-squash/main", "lfs-files/duplicate",
         "lfs-verify", "discussions", "discussions/1/comment", "discussions/1/status", "discussions/1/merge"]
    ),
    keys=st.lists(
        st.sampled_from(["files", "paths", "startingPoint", "tag", "message", "target", "oid", "size", "title"])
    ),
)  # fmt: skip
def test_no_json_makes_a_route_fail_in_another_way_than_refusing(
    hub: RunningHub, api: HfApi, dataset: str, token: str, body: object, route: str, keys: list[str]
) -> None:
    for each in (body, dict.fromkeys(keys, body), {"files": [body], "objects": [body], "parts": [body]}):
        answer = httpx2.post(
            f"{hub.endpoint}/api/datasets/{dataset}/{route}",
            content=json.dumps(each).encode(),  # by hand: Infinity too, which the client's own encoder refuses
            headers={"authorization": f"Bearer {token}", "content-type": "application/json"},
        )
        assert answer.status_code < 500, answer.text


@pytest.mark.parametrize(
    ("route", "body"),
    [
        ("tag/main", {"tag": "v1", "message": "half \ud800"}), ("tag/main", {"tag": "\ud800"}),
        ("tag/main", {"tag": "v2", "message": "a\0b"}), ("super-squash/main", {"message": "a\0b"}),
        ("discussions", {"title": "\ud800 title", "description": "x"}), ("branch/x", {"startingPoint": "\ud800"}),
    ],
)  # fmt: skip
def test_text_that_cannot_be_stored_is_refused(
    hub: RunningHub, api: HfApi, dataset: str, token: str, route: str, body: dict[str, str]
) -> None:
    answer = httpx2.post(
        f"{hub.endpoint}/api/datasets/{dataset}/{route}", content=json.dumps(body).encode(),
        headers={"authorization": f"Bearer {token}"},
    )  # fmt: skip
    assert refused(answer)


def test_headers_that_make_no_sense_are_survived(hub: RunningHub, api: HfApi, dataset: str, token: str) -> None:
    commit(hub, dataset, token, file("a.txt"))
    address = f"{hub.endpoint}/datasets/{dataset}/resolve/main/a.txt"
    for name, value in [
        ("host", "[::1"), ("host", "a:b:c"), ("range", "bytes=" + "9" * 5000 + "-"), ("range", "bytes=-"),
        ("range", "bytes=5-1"), ("range", "lines=1-2"), ("x-forwarded-proto", "gopher"), ("accept", "text/html"),
        ("cookie", "hub_page=forged.forged"),
    ]:  # fmt: skip
        headers = {"authorization": f"Bearer {token}", name: value}
        for target in (address, f"{hub.endpoint}/api/datasets/{dataset}/tree/main", f"{hub.endpoint}/nowhere/at/all"):
            assert httpx2.get(target, headers=headers).status_code < 500


def test_json_beyond_all_measure_is_refused_in_little_memory(hub: RunningHub, dataset: str, token: str) -> None:
    before = hub.peak_memory
    body = b'{"files": [' + b'{"path": "a", "size": 1},' * 2_000_000 + b"]}"
    answer = httpx2.post(
        f"{hub.endpoint}/api/datasets/{dataset}/preupload/main", content=body,
        headers={"authorization": f"Bearer {token}"},
    )  # fmt: skip
    assert answer.status_code == 413
    assert hub.peak_memory - before < 60_000_000


@pytest.mark.parametrize(
    "target",
    [
        "/datasets/{name}/resolve/main/../../../../etc/passwd", "/datasets/{name}/resolve/main/%00",
        "/datasets/{name}/resolve/main/%2e%2e/%2e%2e/hub.sqlite3", "/datasets/../../etc",
        "/datasets/{name}/resolve/main/..%2f..%2fhub.sqlite3",
        "/datasets/{name}/resolve/..%2f..%2fmain/a", "/api/datasets/{name}/tree/main/..%2f..", "/%ff%fe",
        "/api/datasets/{name}/tree/main?cursor=-1", "/api/datasets/{name}/tree/main?cursor=x&limit=9e9",
        "/api/datasets/{name}/tree/main?limit=%F0%9F%98%80", "/api/datasets/{name}/commits/%ff", "/" + "a" * 20_000,
        "/api/datasets/{name}/revision/" + "f" * 39, "/cas/x/v1/reconstructions/zz", "/cas/x/v1/chunks/default/..%2f",
        "/cas/x/xorb/a.b/../../hub.sqlite3", "/lfs/..%2f..%2fhub.sqlite3", "/datasets/{name}/blob/main/..%2f..%2fx",
        "/api/datasets/{name}/discussions/99999999999999999999", "/api/users/..%2f/overview",
    ],
)  # fmt: skip
def test_an_address_that_tries_to_leave_the_repo_is_refused(
    hub: RunningHub, dataset: str, token: str, target: str
) -> None:
    # by hand, because clients tidy such addresses up before they send them
    host, port = hub.endpoint.removeprefix("http://").split(":")
    path = target.format(name=dataset)
    request = f"GET {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {token}\r\nConnection: close\r\n\r\n"
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(request.encode())
        answer = b""
        while block := connection.recv(65536):
            answer += block
    assert answer.split(b" ")[1][:1] == b"4", answer[:300]
    assert b"root:" not in answer
    assert b"SQLite" not in answer


def test_a_file_is_never_served_as_a_page_of_this_hub(hub: RunningHub, api: HfApi, dataset: str, token: str) -> None:
    commit(
        hub, dataset, token, file("page.html", b"<script>alert(1)</script>"), file("README.md", b"<script>x</script>")
    )
    bearer = {"authorization": f"Bearer {token}"}
    raw = httpx2.get(f"{hub.endpoint}/datasets/{dataset}/resolve/main/page.html", headers=bearer)
    assert "html" not in raw.headers["content-type"]
    assert raw.headers["x-content-type-options"] == "nosniff"
    for page in ("", "/blob/main/page.html", "/commits/main"):
        shown = httpx2.get(f"{hub.endpoint}/datasets/{dataset}{page}", headers=bearer)
        assert shown.status_code == 200
        assert "<script>" not in shown.text


@pytest.mark.parametrize("name", ["", "a b", "../x", "x" * 200, "a--b", "a..b", "-a", "x.git", ".hidden", "ü"])
def test_names_the_hub_would_not_take_are_refused(hub: RunningHub, token: str, name: str) -> None:
    answer = httpx2.post(
        f"{hub.endpoint}/api/repos/create", json={"name": name, "type": "dataset"},
        headers={"authorization": f"Bearer {token}"},
    )  # fmt: skip
    assert refused(answer)


@pytest.mark.parametrize("authorization", ["Bearer", "Basic YTpi", "Bearer \x7f", "hf_x", "Bearer " + "x" * 9000])
def test_an_authorization_that_is_none_is_refused(
    hub: RunningHub, api: HfApi, dataset: str, authorization: str
) -> None:
    answer = httpx2.get(f"{hub.endpoint}/api/datasets/{dataset}", headers={"authorization": authorization})
    assert answer.status_code == 401
    assert refused(answer)


def test_the_log_has_no_traceback_and_no_token_after_all_this(hub: RunningHub, token: str, tmp_path: Path) -> None:
    httpx2.get(f"{hub.endpoint}/api/datasets/x/y", headers={"authorization": "Bearer hf_" + "secret" * 5})
    assert "Traceback" not in hub.log
    assert token not in hub.log
    assert "hf_secret" not in hub.log
    assert (hub.root / "hub.sqlite3").stat().st_mode & 0o077 == 0


def test_whatever_is_asked_of_any_route_the_hub_answers_and_does_not_fail(hub: RunningHub) -> None:
    """A small piece of what `python -m tests.local_hub.fuzz` sends. How long it takes is not asked here."""
    outcome = asyncio.run(send_all(hub.endpoint, range(1500), 7, prepared(hub)))
    assert "Traceback" not in hub.log
    assert sum(outcome.statuses.values()) > 1400 and outcome.statuses[200] > 100
    assert [one for one in outcome.bad if not re.search(r": 2\d\d after|: 4\d\d after", one)] == []
