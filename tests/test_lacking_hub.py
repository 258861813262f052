"""Hubs that lack something: a run ends as it would on a whole one, or in a state that names the route and the way out.

Each route that a push, an idle night, a removal and a restore ask for is taken away, one by one, with each answer by
which servers say that they have no such route. It is the local Hub within this process, behind a layer that answers in
its place (`tests.lacking`); content goes by git-LFS. By Xet, and in whole flows, it is in `tests/test_lacking_xet.py`.
"""

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send

from deployments.local_hub import lfs
from tasks.commit import commit
from tasks.commit.other_files import Besides, as_recorded
from tasks.disk.sample_rounds import Round
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.hub.errors import NotAllowed, Refused, RepoIsNotGated, RepoIsPublic, RepoMissing, TokenRejected, Transient
from tasks.hub.lacking import RouteMissing, TooLargeForHub
from tasks.record.remote import INDEX, RECORD, read_remote
from tasks.record.removals import Removals
from tasks.remove import plan_removal
from tasks.report.evidence import Approval, Gate
from tasks.stage import stage
from tasks.transfer import transfer
from tasks.values.errors import PushError
from tasks.values.models import PublishedShard, Receipt, ShardSpec
from tasks.verify import Reading, verify
from tests.hub_within import hub_within
from tests.lacking import (
    BATCH,
    BRANCH,
    COMMIT,
    COMMITS,
    COMPLETE,
    CREATE,
    FILE,
    INFO,
    INFO_AT,
    JSON,
    MAY_WRITE,
    PAGE,
    PATHS_INFO,
    PREUPLOAD,
    PUT,
    PUT_PART,
    REFUSALS,
    SETTINGS,
    TREE,
    VERIFY,
    WHOAMI,
    YAML,
    Lacking,
    Refusal,
    refuse,
)
from tests.way_back import back, files

Staged = Callable[[int], list[Receipt]]
Made = tuple[Staging, list[Receipt]]

#: Every route that a push, an idle night, a removal and a restore ask for by git-LFS.
ASKED = {
    WHOAMI, INFO, INFO_AT, CREATE, MAY_WRITE, TREE, PATHS_INFO, PREUPLOAD, BATCH, PUT, VERIFY, YAML, COMMIT, FILE
}  # fmt: skip
#: Those without which a run goes on, and ends as it would with them.
DISPENSABLE = {WHOAMI, MAY_WRITE, PATHS_INFO, YAML}
#: Those that git-LFS asks for in place of PUT, where a shard goes in parts.
IN_PARTS = {PUT_PART, COMPLETE}
PART = 2_000  # bytes of a part: a shard has several
NO_ROOM = b'{"objects": [{"oid": "1", "size": 1, "error": {"message": "no room left", "code": 507}}]}'
RUN = "6b1f1e1c-3f0e-4d7a-9a52-1f3d1c1d2e3f"


@pytest.fixture
def lacking() -> Lacking:
    return Lacking()


@pytest.fixture
def target(lacking: Lacking, repo_id: str, tmp_path: Path) -> Iterator[Hub]:
    """A target whose repo does not exist yet, on a Hub within this process."""
    with hub_within(tmp_path / "served", repo_id, lacking.before) as hub:
        yield hub


def anew(hub: Hub) -> Hub:
    """The same target as the next run has it, which knows nothing of what was found before."""
    return Hub(hub.target, hub.token)


class Life:
    """A push, an idle night, a removal that was approved, and a restore, of two shards and a text."""

    def __init__(self, staging: Staging, receipts: list[Receipt], into: Path):
        self._staging, self._receipts, self._into = staging, receipts, into
        self._texts = {"bids/README": b"About this dataset\n"}

    def besides(self, **more: Any) -> Besides:
        return Besides(card, self._texts, as_recorded(self._texts), **more)

    def push(self, hub: Hub) -> None:
        hub.prepare(private=True)
        before = read_remote(hub)
        missing = [one for one in self._receipts if one.path not in before.record.shards]
        sent = transfer(hub, self._staging, missing)
        assert len(sent) == len(missing)
        if sent:
            operations = [one.operation for one in sent]
            commit(hub, before, [one.line() for one in missing], operations, self.besides())
        report = verify(hub, self.lines(), "full", Reading(Round(datetime.now(UTC), nights=30)))
        assert not report.failures and report.images_decoded

    def night(self, hub: Hub) -> None:
        hub.prepare(private=True)
        assert not verify(hub, self.lines(), "sample", Reading(Round(datetime.now(UTC), nights=30))).failures

    def removal(self, hub: Hub) -> None:
        before, gone = read_remote(hub), self.lines()[0]
        if gone.path not in before.record.shards:
            return
        shown = Removals(
            shards={gone.path: tuple(image.path for image in gone.images)},
            published={gone.path: {"size": gone.size, "sha256": gone.sha256}},
        )
        gate = Gate(flow_run_id=RUN, flow_run_name="push", opened_at_commit=before.commit, removals=shown)
        approval = Approval(flow_run_id=RUN, removals="remove")
        plan = plan_removal(gate, approval, shown, before, hub.listing(before.commit), {}, ())
        assert plan.paths == (gone.path,)
        commit(hub, before, [], [], self.besides(remove=plan))
        assert hub.listed([one.path for one in self.lines()], hub.head()).keys() == {self.lines()[1].path}

    def restore(self, hub: Hub) -> None:
        assert not back(Hub(hub.target, hub.token), self._into).failures

    def restored(self) -> dict[str, bytes]:
        return files(self._into)

    def lines(self) -> list[PublishedShard]:
        return [one.line() for one in self._receipts]

    def live(self, hub: Hub) -> None:
        """All of it, each part as a run of its own."""
        for part in (self.push, self.night, self.restore, self.removal):
            part(anew(hub))


def card(record: Any, existing: str | None) -> str:
    return f"---\nlicense: cc0-1.0\n---\n{len(record.shards)} shards\n"


def on_hub(hub: Hub) -> dict[str, tuple[str | None, str | None]]:
    return {path: (file.sha256, file.blob_id) for path, file in hub.listing(hub.head()).files.items()}


@pytest.fixture(scope="module")
def made(shards: Sequence[ShardSpec], bids: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    """Two staged shards, which no test may change."""
    staging = Staging(tmp_path_factory.mktemp("made") / "target")
    return staging, [stage(spec, bids, staging) for spec in shards[:2]]


@pytest.fixture
def life(made: Made, tmp_path: Path) -> Life:
    return Life(*made, tmp_path / "back")


@dataclass(frozen=True)
class Whole:
    """What a life comes to on a Hub that lacks nothing."""

    on_hub: dict[str, tuple[str | None, str | None]]
    files: dict[str, bytes]
    asked: Mapping[str, int]


@pytest.fixture(scope="module")
def whole(made: Made, tmp_path_factory: pytest.TempPathFactory) -> Whole:
    folder, lacking = tmp_path_factory.mktemp("whole"), Lacking()
    with hub_within(folder / "served", "lab/whole", lacking.before) as hub:
        Life(*made, folder / "back").live(hub)
        asked = dict(lacking.asked)
        return Whole(on_hub(hub), files(folder / "back"), asked)


# Every route that is asked for, missing in every way.


def test_a_push_a_night_a_removal_and_a_restore_ask_for_these_routes_and_no_other(whole: Whole) -> None:
    assert whole.asked.keys() == ASKED
    assert len(whole.files) > 2 and any(sha256 for sha256, _ in whole.on_hub.values())


def test_an_idle_night_asks_as_often_as_it_needs_and_for_nothing_that_it_only_might(
    target: Hub, life: Life, lacking: Lacking
) -> None:
    life.push(target)
    lacking.asked.clear()
    life.night(anew(target))
    # twice the head; once for the settings; the listing; record, index and card, and the shards that are read back
    expected = {WHOAMI: 1, MAY_WRITE: 1, INFO: 1, INFO_AT: 1, TREE: 1, FILE: 5}
    assert lacking.asked == expected


@pytest.mark.parametrize("route", sorted(ASKED - DISPENSABLE))
def test_a_route_that_a_run_needs_is_named_however_it_is_missing_and_a_run_ends_as_ever_once_it_is_there(
    target: Hub, life: Life, lacking: Lacking, whole: Whole, route: str
) -> None:
    for name, refusal in list(REFUSALS.items())[: 1 if route == VERIFY else None]:  # what is there is not asked about
        lacking.lacks = {route: refusal}
        with pytest.raises(RouteMissing) as missing:
            life.live(target)
        message = str(missing.value)
        assert re.search(rf"has no route {asked_for(route, target)} \(it answered {refusal.status}", message), name
        assert says_what_to_do(message), name
    lacking.lacks.clear()
    life.live(anew(target))
    assert on_hub(target) == whole.on_hub
    assert life.restored() == whole.files


@pytest.mark.parametrize("refusal", REFUSALS)
def test_without_the_routes_that_a_run_can_do_without_it_ends_as_with_them(
    target: Hub, life: Life, lacking: Lacking, whole: Whole, refusal: str
) -> None:
    lacking.lacks = dict.fromkeys(DISPENSABLE, REFUSALS[refusal])
    life.live(target)
    assert lacking.refused.keys() == DISPENSABLE
    assert on_hub(target) == whole.on_hub
    assert life.restored() == whole.files


@pytest.fixture
def target_in_parts(lacking: Lacking, repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The same on a Hub to which git-LFS sends each shard in several parts."""
    monkeypatch.setattr(lfs, "PART_SIZE", PART)
    with hub_within(tmp_path / "served", repo_id, lacking.before, multipart_above=0) as hub:
        yield hub


def test_a_shard_that_is_sent_in_parts_asks_for_these_routes_and_no_other(
    target_in_parts: Hub, life: Life, lacking: Lacking, whole: Whole
) -> None:
    life.live(target_in_parts)
    assert lacking.asked.keys() == (ASKED - {PUT}) | IN_PARTS
    assert lacking.asked[PUT_PART] > 2 * lacking.asked[COMPLETE] > 2
    assert on_hub(target_in_parts) == whole.on_hub
    assert life.restored() == whole.files


@pytest.mark.parametrize("route", sorted(IN_PARTS | {BATCH, VERIFY}))
def test_a_route_for_parts_is_named_however_it_is_missing_and_a_run_ends_as_ever_once_it_is_there(
    target_in_parts: Hub, life: Life, lacking: Lacking, whole: Whole, route: str
) -> None:
    for name, refusal in list(REFUSALS.items())[: 1 if route == VERIFY else None]:  # what is there is not asked about
        lacking.lacks = {route: refusal}
        with pytest.raises(RouteMissing) as missing:
            life.live(target_in_parts)
        message = str(missing.value)
        asked = asked_for(route, target_in_parts)
        assert re.search(rf"has no route {asked} \(it answered {refusal.status}", message), (name, message)
        assert says_what_to_do(message), name
        assert lacking.refused[route], name
    lacking.lacks.clear()
    life.live(anew(target_in_parts))
    assert on_hub(target_in_parts) == whole.on_hub
    assert life.restored() == whole.files


def asked_for(route: str, hub: Hub) -> str:
    """A pattern for what a message says of a route: the request itself, without what it is signed with."""
    path = route.replace("{type=datasets|spaces}", "datasets").replace("{type}", "datasets")
    path = path.replace("{namespace}/{name}", hub.target.repo_id).replace("{signed}", "...")
    return "[^ ]+".join(re.escape(part) for part in re.split(r"\{.*?\}", path))


def says_what_to_do(message: str) -> bool:
    return any(way in message for way in ("Ask those who run the Hub", "by hand on the Hub", "another Hub is needed"))


@pytest.mark.parametrize("refusal", ["text", "EntryNotFound", "RepoNotFound", "501"])
@pytest.mark.parametrize("route", sorted(ASKED - DISPENSABLE - {CREATE, BATCH, PUT, VERIFY}))
def test_a_route_that_goes_away_after_a_push_is_named_by_the_next_runs_and_the_hub_stays_as_it_is(
    target: Hub, life: Life, lacking: Lacking, route: str, refusal: str
) -> None:
    life.push(target)
    before = on_hub(target)
    lacking.lacks = {route: REFUSALS[refusal]}
    with pytest.raises(RouteMissing):
        life.night(anew(target))
        life.removal(anew(target))
    lacking.lacks.clear()
    assert on_hub(target) == before


def test_a_hub_that_sends_no_files_does_not_look_like_an_empty_one(target: Hub, life: Life, lacking: Lacking) -> None:
    life.push(target)
    for refusal in ("EntryNotFound", "text"):
        lacking.lacks = {FILE: REFUSALS[refusal]}
        with pytest.raises(RouteMissing, match=f"reading {RECORD}, which {target.target} holds"):
            read_remote(anew(target))


def test_a_file_that_is_not_there_is_none_though_the_hub_says_so_in_no_words_of_its_own(
    target: Hub, lacking: Lacking
) -> None:
    target.prepare(private=True)
    lacking.lacks = {FILE: REFUSALS["text"]}
    assert target.read(INDEX, target.head()) is None


def test_a_repo_that_is_not_there_is_told_as_before(target: Hub) -> None:
    for ask in (target.head, lambda: target.listing("main"), lambda: target.read(RECORD, "main")):
        with pytest.raises(RepoMissing, match="has no such dataset repo"):
            ask()
    target.prepare(private=True)
    with pytest.raises(RepoMissing, match="the revision is not there"):
        Hub(Target(target.target.endpoint, target.target.repo_id, "night"), target.token).head()


def test_what_the_hub_lacks_is_said_once_in_a_run(
    target: Hub, life: Life, lacking: Lacking, caplog: pytest.LogCaptureFixture
) -> None:
    lacking.lacks = dict.fromkeys(DISPENSABLE, REFUSALS["page"])
    life.push(target)
    life.night(target)
    life.removal(target)
    said = [record.message for record in caplog.records if record.name == "prefect.bids_push.hub"]
    assert len(said) == len(DISPENSABLE) == len(set(said)), said
    assert lacking.refused[YAML] == 1


# A branch.


def test_a_branch_that_is_there_needs_no_route_that_makes_it(target: Hub, life: Life, lacking: Lacking) -> None:
    target.prepare(private=True)
    night = Hub(Target(target.target.endpoint, target.target.repo_id, "night"), target.token)
    lacking.lacks = {BRANCH: REFUSALS["text"]}
    with pytest.raises(RouteMissing, match=r"/branch/night .*Make the branch by hand"):
        night.prepare(private=True)
    lacking.lacks.clear()
    target.api.create_branch(target.target.repo_id, repo_type="dataset", branch="night")
    lacking.lacks = {BRANCH: REFUSALS["text"]}
    life.push(anew(night))
    assert night.head() != target.head() and life.lines()[0].path in on_hub(night)


def test_a_hub_without_a_history_is_believed_about_its_head(target: Hub, lacking: Lacking) -> None:
    target.prepare(private=True)
    first = target.head()
    target.newest.note("f" * 40)
    for refusal in REFUSALS.values():
        lacking.lacks = {COMMITS: refusal}
        assert target.head(at_least="e" * 40) == first


# Who may see the repo.


@pytest.mark.parametrize("status", [400, 404, 405, 422, 501])
@pytest.mark.parametrize("gated", ["auto", "manual"])
def test_where_a_hub_cannot_have_people_ask_for_access_nothing_is_published(
    target: Hub, lacking: Lacking, gated: Any, status: int
) -> None:
    lacking.lacks = {SETTINGS: Refusal(status, b'{"error": "gated is not possible"}', JSON)}
    with pytest.raises(RepoIsNotGated, match=rf"gated={gated}: nothing was staged or sent.*start again with gated=no"):
        target.prepare(True, gated)
    assert on_hub(target).keys() <= {".gitattributes"}
    lacking.lacks.clear()
    assert anew(target).prepare(True, gated)


def test_a_hub_that_takes_the_setting_and_does_nothing_is_not_believed(target: Hub, lacking: Lacking) -> None:
    lacking.lacks = {SETTINGS: Refusal(200, b"{}", JSON)}
    with pytest.raises(RepoIsNotGated, match="it took the setting, and the repo is as before"):
        target.prepare(True, "manual")


def test_a_token_that_may_not_set_up_access_is_told_so(target: Hub, lacking: Lacking) -> None:
    lacking.lacks = {SETTINGS: Refusal(403, b'{"error": "not yours"}', JSON)}
    with pytest.raises(NotAllowed, match="write role"):
        target.prepare(True, "manual")


@pytest.mark.parametrize("private", [True, False])
def test_a_hub_that_does_not_say_whether_a_repo_is_private_is_published_to_where_that_does_not_matter(
    target: Hub, lacking: Lacking, private: bool
) -> None:
    target.prepare(private=True)
    lacking.lacks = {INFO: Refusal(200, json.dumps({"id": target.target.repo_id, "siblings": []}).encode(), JSON)}
    if private:
        with pytest.raises(RepoIsPublic, match="does not say whether"):
            anew(target).prepare(private=True)
    else:
        assert anew(target).prepare(private=False)


def test_a_hub_that_gives_no_single_fields_is_asked_for_all_of_them(repo_id: str, tmp_path: Path, life: Life) -> None:
    def strict(application: ASGIApp) -> ASGIApp:
        async def answer(scope: Scope, receive: Receive, send: Send) -> None:
            if b"expand" in scope["query_string"] and "/tree/" not in scope["path"]:
                await refuse(Refusal(400, b'{"error": "expand is not known"}', JSON), send)
            else:
                await application(scope, receive, send)

        return answer

    with hub_within(tmp_path / "strict", repo_id, strict) as hub:
        life.live(hub)


# Too much at once.


@pytest.mark.parametrize(("route", "number"), [(PREUPLOAD, 4), (BATCH, 2), (COMMIT, 4), (COMMIT, 2)])
def test_a_hub_that_refuses_so_much_at_once_is_sent_less_at_once(
    target: Hub, staging: Staging, staged: Staged, lacking: Lacking, tmp_path: Path, route: str, number: int
) -> None:
    life = Life(staging, staged(number), tmp_path / "back")
    other = Hub(Target(target.target.endpoint, f"{target.target.repo_id}-other"), target.token)
    lacking.largest = {route: 1 << 30}
    life.push(other)
    lacking.largest = {route: max(lacking.bodies[route]) - 1}  # all of the shards with what they bring are too much
    life.push(target)
    assert lacking.refused[route]
    found = read_remote(target)
    assert found.record.shards == {one.path: one for one in life.lines()} and not found.damaged
    commits = target.api.list_repo_commits(target.target.repo_id, repo_type="dataset")
    for made in commits[:-1]:  # the record of each commit is true for it
        then, there = read_remote(target, made.commit_id), target.listing(made.commit_id).files
        assert {path for path in there if path.startswith("data/")} == then.record.shards.keys()
    assert len(commits) > 2 if route == COMMIT else len(commits) == 2


@pytest.mark.parametrize("route", [PREUPLOAD, BATCH, COMMIT, PUT])
def test_a_hub_that_refuses_even_one_is_named_with_the_limit_to_look_for(
    target: Hub, life: Life, lacking: Lacking, route: str
) -> None:
    lacking.largest = {route: 10}
    with pytest.raises(TooLargeForHub, match=r"413.*client_max_body_size"):
        life.push(target)
    assert on_hub(target).keys() <= {".gitattributes"}
    lacking.largest.clear()
    life.push(anew(target))


# What is sent by git-LFS is told as what is sent by Xet.


@pytest.mark.parametrize("route", [BATCH, PUT, VERIFY])
@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, TokenRejected, "does not accept the token"), (403, NotAllowed, "write role"),
        (404, RouteMissing, "has no route"), (409, Refused, "answered 409"), (507, Transient, "answered 507"),
    ],
)  # fmt: skip
def test_a_refusal_of_what_is_sent_by_lfs_is_named_with_its_file_and_shows_nothing_that_is_signed(
    target: Hub, life: Life, lacking: Lacking, route: str, status: int, kind: type[PushError], words: str
) -> None:
    lacking.lacks = {route: Refusal(status, b"planted words of the store")}
    with pytest.raises(kind, match=words) as caught:
        life.push(target)
    if route != BATCH:
        assert any(f"{one.path}: " in str(caught.value) for one in life.lines())
    assert not re.search(r"[\w-]{65,}", str(caught.value))
    assert type(caught.value) is kind


def test_a_shard_that_changes_between_its_hash_and_its_sending_is_not_committed_though_the_hub_takes_anything(
    target: Hub, staging: Staging, staged: Staged, lacking: Lacking
) -> None:
    target.prepare(private=True)
    other, same = staged(2)
    file = staging.folder / other.file
    lacking.on = {BATCH: lambda: file.write_bytes(bytes(other.size))}
    lacking.lacks = {PUT: Refusal(200, b""), VERIFY: Refusal(200, b"{}", JSON)}  # a Hub that looks at nothing
    assert [one.receipt for one in transfer(target, staging, [other, same])] == [same]
    assert lacking.refused[PUT] == 2


@pytest.mark.parametrize(
    ("route", "answer"),
    [
        (route, answer)
        for route in (BATCH, PREUPLOAD, INFO_AT, TREE, PATHS_INFO, COMMIT)
        for answer in (b"", PAGE, b"[]", b"{}", b'{"objects": [{"oid": 1}]}', NO_ROOM)
        if route != TREE or answer[:2] not in (b"[]", b"{}")  # a listing without files, which verification tells
    ],
)
def test_an_answer_that_nobody_can_read_is_a_state_and_no_stack_trace(
    target: Hub, life: Life, lacking: Lacking, route: str, answer: bytes
) -> None:
    target.prepare(private=True)
    lacking.lacks = {route: Refusal(200, answer, JSON)}
    with suppress(Refused):
        life.push(anew(target))
    lacking.lacks.clear()
    life.push(anew(target))


def test_a_repo_that_somebody_makes_between_two_looks_is_looked_at_again(
    repo_id: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first look says that it is not there, and the second, which is to tell it from a missing route, shows it."""
    with hub_within(tmp_path / "hub", repo_id) as hub:
        look = Hub._is_there

        def made_meanwhile(self: Hub, revision: str | None, what: str) -> bool:
            Hub(hub.target, hub.token).prepare(private=True)
            return look(self, revision, what)

        with monkeypatch.context() as meanwhile, pytest.raises(Transient, match="a moment later"):
            meanwhile.setattr(Hub, "_is_there", made_meanwhile)
            hub.head()
        assert hub.head()
