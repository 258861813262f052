"""The client of a target: what the Hub's refusals mean for people, and what the Hub is asked and answers."""

from pathlib import Path

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, constants
from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import hf_raise_for_status

from tasks.disk.staging import Target
from tasks.hub import reading
from tasks.hub.client import Hub
from tasks.hub.connection import require_address, require_token
from tasks.hub.errors import (
    HubUnreachable,
    NoSuchFile,
    NotAllowed,
    NoToken,
    OversizedFile,
    Refused,
    RepoMissing,
    StaleHead,
    StaleParent,
    TokenRejected,
    Transient,
    as_push_error,
)
from tasks.hub.lacking import RouteMissing, TooLargeForHub
from tasks.hub.newest_head import NewestHead
from tasks.values.errors import BadInput, PushError

NO_GOOD = "Invalid credentials in Authorization header"  # the Hub's own words of a token
NO_FILE = {"X-Error-Code": "EntryNotFound"}
SOME = Target("https://hub.lab", "lab/some", "night")


def answered(status: int, headers: dict[str, str] | None = None) -> PushError:
    """What an answer of the Hub is for people."""
    path = "datasets/lab/some/resolve/main/a.tsv" if headers == NO_FILE else "api/datasets/lab/some"
    request = httpx2.Request("GET", f"https://hub.lab/{path}")
    response = httpx2.Response(status, headers={"X-Error-Message": "so it is", **(headers or {})}, request=request)
    with pytest.raises(httpx2.HTTPError) as caught:
        hf_raise_for_status(response)
    explained = as_push_error(caught.value, "https://hub.lab", "looking")
    assert explained is not None
    return explained


@pytest.mark.parametrize(
    ("status", "headers", "kind", "words"),
    [
        (401, {"X-Error-Message": NO_GOOD}, TokenRejected, "looking: https://hub.lab does not accept the token"),
        (401, {}, RepoMissing, "has no such dataset repo, or it is private"),  # what the Hub says of a private repo
        (403, {}, NotAllowed, "looking: the token may not do that"),
        (403, {"X-Error-Code": "GatedRepo"}, NotAllowed, "people have to ask for access to this repo"),
        (404, {"X-Error-Code": "RepoNotFound"}, RepoMissing, "has no such dataset repo"),
        (404, {"X-Error-Code": "RevisionNotFound"}, RepoMissing, "the revision is not there"),
        (404, NO_FILE, NoSuchFile, "answered 404"),  # a file is not there, and the repo is
        (405, {}, RouteMissing, "has no route GET /api/datasets/lab/some (it answered 405: so it is)"),
        (405, {"X-Error-Code": "RepoNotFound"}, RouteMissing, "has no route"),
        (413, {}, TooLargeForHub, "takes no request of this size to GET /api/datasets/lab/some"),
        (412, {}, StaleParent, "looking: so it is"),
        (408, {}, Transient, "answered 408"),
        (429, {}, Transient, "answered 429"),
        (500, {}, Transient, "answered 500"),
        (501, {}, RouteMissing, "has no route"),
        (503, {}, Transient, "answered 503"),
        (400, {}, Refused, "answered 400"),
        (409, {}, Refused, "answered 409"),
        (499, {}, Refused, "answered 499"),
    ],
)
def test_a_refusal_is_named_by_what_a_person_can_do_about_it(
    status: int, headers: dict[str, str], kind: type[PushError], words: str
) -> None:
    error = answered(status, headers)
    assert type(error) is kind and words in str(error)


@pytest.mark.parametrize(
    ("status", "headers", "seconds"),
    [
        (429, {"Retry-After": "7"}, 7.0),
        (503, {"Retry-After": "7"}, 7.0),
        (429, {"RateLimit": '"api";r=0;t=55'}, 55.0),
        (503, {"RateLimit": '"api";r=0;t=55'}, None),  # the limit is not why it does not answer
        (429, {"Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        (500, {}, None),
    ],
)
def test_a_hub_that_says_when_to_ask_again_is_believed(
    status: int, headers: dict[str, str], seconds: float | None
) -> None:
    error = answered(status, headers)
    assert isinstance(error, Transient) and error.retry_after == seconds


@pytest.mark.parametrize("kind", [RuntimeError, ConnectionError, OSError])
@pytest.mark.parametrize(("status", "named"), [(401, TokenRejected), (403, NotAllowed), (503, Transient)])
def test_what_xet_was_answered_is_told_by_its_status(
    kind: type[Exception], status: int, named: type[PushError]
) -> None:
    error = kind(f"Data processing error: HTTP status client error ({status} Some Words) for url")
    explained = as_push_error(error, "https://hub.lab", "sending")
    assert type(explained) is named and str(explained).startswith("sending: ")


@pytest.mark.parametrize(
    "error", [httpx2.ConnectError("refused"), httpx2.ReadTimeout("late"), ConnectionError("cut"), TimeoutError("late")]
)
def test_a_hub_that_does_not_answer_is_named_with_the_way_out(error: Exception) -> None:
    explained = as_push_error(error, "https://hub.lab", "sending")
    assert type(explained) is HubUnreachable
    assert f"sending: the Hub at https://hub.lab does not answer ({type(error).__name__}: " in str(explained)


def test_what_the_hub_did_not_cause_is_no_error_of_its_own() -> None:
    assert as_push_error(ValueError("a bug"), "https://hub.lab", "sending") is None
    assert as_push_error(OSError(28, "No space left on device"), "https://hub.lab", "sending") is None
    assert type(as_push_error(HFValidationError("a name"), "https://hub.lab", "sending")) is BadInput


@pytest.mark.parametrize("endpoint", ["https://huggingface.co", "http://127.0.0.1:8080", "http://[::1]:8080/hub"])
def test_an_address_of_a_hub_is_taken(endpoint: str) -> None:
    require_address(endpoint)


@pytest.mark.parametrize(
    "endpoint", ["", "huggingface.co", "ftp://hub", "https://", "https://a b", "http://[::1", "/x"]
)
def test_what_is_no_address_is_told_with_an_example_of_one(endpoint: str) -> None:
    with pytest.raises(BadInput, match=r"HF_ENDPOINT: .* is no address of a Hub.*for example https://huggingface.co"):
        require_address(endpoint)


@pytest.mark.parametrize("token", ["", "hf_a b", "hf_a\n", "hf_ü", "\thf_a"])
def test_what_cannot_be_a_token_is_told_and_not_shown(token: str) -> None:
    with pytest.raises(BadInput, match="a space, a line break or a letter") as caught:
        require_token(token)
    assert not token or token not in str(caught.value)
    require_token("hf_!~aZ09")


def test_without_a_token_a_target_can_be_read_and_not_published_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(NoToken, match="set HF_TOKEN"):
        Hub.connect("lab/some", "main")
    assert Hub.connect("lab/some", "main", to_read=True) == Hub(Target(constants.ENDPOINT, "lab/some"), "")
    assert Hub.connect("lab/some", "night", "hf_given").token == "hf_given"
    with pytest.raises(BadInput):
        Hub.connect("lab/some", "main", "hf given", to_read=True)
    monkeypatch.setenv("HF_TOKEN", "hf_set")
    assert Hub.connect("lab/some", "main", to_read=True).token == "hf_set"
    assert Hub.connect("lab/some", "night").target == Target(constants.ENDPOINT, "lab/some", "night")


def test_pages_for_people_are_at_the_revision_and_their_names_are_quoted() -> None:
    hub, page = Hub(SOME, "hf_"), "https://hub.lab/datasets/lab/some"
    assert hub.url() == page
    assert hub.url("a b/c.tsv") == f"{page}/blob/night/a%20b/c.tsv"
    assert hub.url("a", "refs/pr/1") == f"{page}/blob/refs%2Fpr%2F1/a"
    assert hub.branch_url() == f"{page}/tree/night"
    assert Hub(Target("https://hub.lab", "lab/some"), "hf_").branch_url() == page
    assert Hub(Target("https://hub.lab", "lab/some", "a/b"), "hf_").branch_url() == f"{page}/tree/a%2Fb"
    assert hub.commit_url("c0ffee") == f"{page}/commit/c0ffee"


def committed(hub: Hub, path: str, data: bytes) -> str:
    return hub.commit([CommitOperationAdd(path, data)], f"Add {path}", hub.head())


def test_every_file_at_a_commit_is_listed_large_ones_with_their_sha256(hub: Hub) -> None:
    first = committed(hub, "a.txt", b"small")
    second = committed(hub, "data/b.parquet", b"PAR1" * 1000)
    assert hub.listing(first).files.keys() == {".gitattributes", "a.txt"}
    files = hub.listing(second).files
    assert files.keys() == {".gitattributes", "a.txt", "data/b.parquet"}
    assert (files["a.txt"].size, files["a.txt"].sha256) == (5, None)
    shard = files["data/b.parquet"]
    assert shard.size == 4000 and shard.sha256 == hub.sha256_of("data/b.parquet", second)
    assert hub.listed(["data/b.parquet", "none"], second) == {"data/b.parquet": shard}
    assert hub.listed(["data/b.parquet"], first) == {} == hub.listed([], second)


def test_more_files_than_fit_into_a_question_are_all_asked_about(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    names = [f"{number}.txt" for number in range(5)]
    commit = hub.commit([CommitOperationAdd(name, b"a text") for name in names], "Add five", hub.head())
    monkeypatch.setattr(reading, "PATHS_A_REQUEST", 2)
    assert hub.listed(names, commit).keys() == set(names)


def test_a_text_that_is_not_there_is_none_and_one_larger_than_any_of_ours_is_named(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    commit = committed(hub, "a.txt", b"four")
    assert hub.read("a.txt", commit) == b"four" and hub.read("b.txt", commit) is None
    assert hub.sha256_of("b.txt", commit) is None
    with pytest.raises(RepoMissing):
        hub.read("a.txt", "f" * 40)
    monkeypatch.setattr(reading, "LARGEST_TEXT", 4)
    assert hub.read("a.txt", commit) == b"four"
    monkeypatch.setattr(reading, "LARGEST_TEXT", 3)
    with pytest.raises(OversizedFile, match=f"a.txt in {hub.target} has more than "):
        hub.read("a.txt", commit)


def test_a_part_of_a_file_comes_as_asked_and_one_beyond_its_end_is_told(hub: Hub) -> None:
    commit = committed(hub, "data/b.parquet", bytes(range(200)))
    assert b"".join(hub.stream("data/b.parquet", commit, 10, 5)) == bytes(range(10, 15))
    with pytest.raises(HubUnreachable, match="3 bytes of 5 did not come"):
        list(hub.stream("data/b.parquet", commit, 198, 5))
    with pytest.raises(Refused):
        list(hub.stream("data/b.parquet", commit, 200, 1))
    with pytest.raises(Refused):
        list(hub.stream("data/none.parquet", commit, 0, 1))


def test_a_commit_on_another_parent_than_the_head_is_refused(hub: Hub) -> None:
    before = hub.head()
    made = committed(hub, "a.txt", b"one")
    assert hub.newest.commit == made == hub.head()
    with pytest.raises(StaleParent):
        hub.commit([CommitOperationAdd("b.txt", b"two")], "Too late", before)
    assert hub.newest.commit == made == hub.head()


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were made, in seconds; none of them takes any time."""
    pauses: list[float] = []
    monkeypatch.setattr("tasks.hub.heads.time.sleep", pauses.append)
    return pauses


@pytest.fixture
def behind(hub: Hub, tmp_path: Path) -> Hub:
    """A branch whose head is older than a commit of the same history that was seen before."""
    hub.api.create_branch(hub.target.repo_id, repo_type="dataset", branch="night", revision=hub.head())
    later = committed(hub, "a.txt", b"later")
    newest = NewestHead(tmp_path / "head")
    newest.note(later)
    return Hub(Target(hub.target.endpoint, hub.target.repo_id, "night"), hub.token, newest)


def test_a_head_older_than_one_seen_before_is_waited_for_and_then_named_and_the_next_run_takes_it(
    behind: Hub, waits: list[float], tmp_path: Path
) -> None:
    seen = str(behind.newest.commit)
    with pytest.raises(StaleHead, match=rf"for 180 s the Hub has named \w{{12}} as the head of .* than {seen[:12]}"):
        behind.head()
    assert waits == [1, 2, 4, 8, *[15] * 11]
    assert behind.head() == NewestHead(tmp_path / "head").commit != seen and len(waits) == 15


def test_a_head_that_the_hub_does_not_know_yet_is_waited_for_too(hub: Hub, waits: list[float]) -> None:
    head = hub.head()
    with pytest.raises(StaleHead):
        hub.head(at_least="f" * 40)
    assert hub.head(at_least=head) == head and len(waits) == 15


def test_a_newer_head_of_somebody_else_is_the_head(hub: Hub, waits: list[float]) -> None:
    seen = hub.head()
    newer = committed(Hub(hub.target, hub.token), "a.txt", b"theirs")
    assert hub.newest.commit == seen != newer == hub.head(at_least=seen) == hub.newest.commit and waits == []


def test_a_name_with_other_capitals_is_another_repos_and_the_hubs_own_is_told(hub: Hub) -> None:
    other = Hub(Target(hub.target.endpoint, hub.target.repo_id.upper()), hub.token)
    assert other.head() == hub.head() == hub.head(as_spelled=True)
    with pytest.raises(BadInput, match=f"is called {hub.target.repo_id} on the Hub"):
        other.head(as_spelled=True)


def test_a_repo_is_not_pushed_to_under_the_name_that_it_had_before_it_was_moved(hub: Hub) -> None:
    now = f"{hub.target.repo_id}-Now"
    hub.api.move_repo(hub.target.repo_id, now, repo_type="dataset")
    assert hub.head()
    with pytest.raises(BadInput, match=f"has been moved, and is called {now} on the Hub"):
        hub.head(as_spelled=True)


def test_a_repo_and_a_branch_are_there_once_they_are_made(counted: Hub) -> None:
    night = Hub(Target(counted.target.endpoint, counted.target.repo_id, "night"), counted.token)
    assert not counted.exists() and not counted.prepare(private=True, make=False) and not counted.exists()
    assert counted.wrong_setup(private=True) is None
    assert counted.prepare(private=True) and counted.exists() and not night.exists()
    assert night.prepare(private=True, make=False) and night.exists() and night.prepare(private=True)
    assert night.head() == counted.head()


def test_the_newest_head_outlives_the_process_and_what_is_no_commit_is_none(tmp_path: Path) -> None:
    file = tmp_path / "head"
    assert NewestHead().commit is NewestHead(file).commit is None
    newest = NewestHead(file)
    newest.note("c0ffee" * 6 + "c0ff")
    assert newest.commit == NewestHead(file).commit == "c0ffee" * 6 + "c0ff"
    newest.note(None)
    assert newest.commit is NewestHead(file).commit is None
    for damaged in (b"c0ffee", b"\xff\xfe", b"c0ffee" * 6 + b"c0ffe"):
        file.write_bytes(damaged)
        assert NewestHead(file).commit is None
    file.write_text("c0ffee" * 6 + "c0ff\n")
    before = file.stat().st_mtime_ns, file.stat().st_ino
    NewestHead(file).note("c0ffee" * 6 + "c0ff")  # as it is already
    assert (file.stat().st_mtime_ns, file.stat().st_ino) == before
    gone = NewestHead(tmp_path / "none" / "head")
    gone.note("c0ffee" * 6 + "c0ff")  # a folder that is not there costs the next run's memory alone
    assert gone.commit == "c0ffee" * 6 + "c0ff"
