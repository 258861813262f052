import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete
from hypothesis import given
from hypothesis import strategies as st

from deployments.local_stack import Stack
from tasks.commit import commit
from tasks.commit.other_files import Besides, outdated
from tasks.disk.staging import Staging, Target
from tasks.hub.client import Hub
from tasks.hub.errors import HubUnreachable, NotAllowed, RepoMissing, TokenRejected
from tasks.record.remote import CARD, INDEX, RECORD, read_remote
from tasks.record.removals import as_file
from tasks.report.evidence import RemovalPlan
from tasks.transfer import Batches, transfer
from tasks.values.models import ImageContent, PublicationRecord, PublishedShard, Receipt

Staged = Callable[[int], list[Receipt]]
TEXTS = {"bids/CHANGES": b"1.0.0\n"}
CHANGES = Besides(lambda record, existing: f"---\nlicense: cc0-1.0\n---\n{len(record.shards)} shards\n", TEXTS)


def receipt(number: int, size: int) -> Receipt:
    content = ImageContent(path="x", size=size, sha256="0" * 64)
    name = f"sub-{number}"
    return Receipt(path=f"data/{name}.parquet", digest="1" * 64, sha256="2" * 64, size=size, rows=1,
                   images=(content,), name=name, file=f"shards/{name}.parquet")  # fmt: skip


@given(st.lists(st.integers(0, 100), max_size=40), st.integers(1, 8), st.integers(1, 150))
def test_batches_keep_the_order_lose_nothing_and_respect_both_limits(sizes: list[int], count: int, limit: int) -> None:
    receipts = [receipt(number, size) for number, size in enumerate(sizes)]
    batches: Batches[Receipt] = Batches(count, limit)
    made = [batch for one in receipts for batch in batches.add(one)] + list(batches.rest())
    assert [one for batch in made for one in batch] == receipts
    for batch in made:
        assert 1 <= len(batch) <= count
        assert len(batch) == 1 or sum(one.size for one in batch) <= limit


def publish(hub: Hub, staging: Staging, receipts: list[Receipt]) -> str:
    return commit(hub, read_remote(hub), lines(receipts), sent(hub, staging, receipts), CHANGES).commit


def lines(receipts: list[Receipt]) -> list[PublishedShard]:
    return [one.line() for one in receipts]


def sent(hub: Hub, staging: Staging, receipts: list[Receipt]) -> list[CommitOperationAdd]:
    return [one.operation for one in transfer(hub, staging, receipts)]


def commits(hub: Hub) -> int:
    return len(hub.api.list_repo_commits(hub.target.repo_id, repo_type="dataset"))


def test_a_batch_appears_in_one_commit_with_the_record_the_card_and_the_texts(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts, before = staged(2), commits(hub)
    head = publish(hub, staging, receipts)
    assert commits(hub) == before + 1
    files = hub.listing(head).files
    for one in receipts:
        assert (files[one.path].size, files[one.path].sha256) == (one.size, one.sha256)
    record, damaged = PublicationRecord.read(hub.read(RECORD, head) or b"")
    assert record.shards == {one.path: one.line() for one in receipts} and not damaged
    assert (hub.read(CARD, head) or b"").endswith(b"2 shards\n")
    assert hub.read("bids/CHANGES", head) == b"1.0.0\n"


def test_a_commit_without_the_card_leaves_the_one_that_is_there_and_is_known_when_its_answer_was_lost(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    first, second = staged(2)
    publish(hub, staging, [first])
    before, without = read_remote(hub), replace(CHANGES, texts={}, with_card=False)
    made = commit(hub, before, lines([second]), sent(hub, staging, [second]), without)
    assert (hub.read(CARD, made.commit) or b"").endswith(b"1 shards\n")
    assert made == read_remote(hub) and len(made.record.shards) == 2
    again = commit(hub, before, lines([second]), sent(hub, staging, [second]), without)
    assert again.commit == made.commit


def test_a_repo_without_a_card_gets_one_with_each_commit(hub: Hub, staging: Staging, staged: Staged) -> None:
    before = replace(read_remote(hub), card=None)
    made = commit(hub, before, lines(staged(1)), sent(hub, staging, staged(1)), replace(CHANGES, with_card=False))
    assert (hub.read(CARD, made.commit) or b"").endswith(b"1 shards\n")


def test_what_was_transferred_is_not_visible_before_its_commit(hub: Hub, staging: Staging, staged: Staged) -> None:
    before = hub.head()
    transfer(hub, staging, staged(1))
    assert hub.head() == before
    assert not [path for path in hub.listing(before).files if path.startswith("data/")]


def test_a_commit_made_by_somebody_else_in_between_loses_nothing(hub: Hub, staging: Staging, staged: Staged) -> None:
    first, second = staged(2)
    stale = read_remote(hub)
    publish(hub, staging, [first])
    hub.commit([CommitOperationAdd("notes.md", b"by hand")], "A person's commit", hub.head())
    after = commit(hub, stale, lines([second]), sent(hub, staging, [second]), CHANGES)
    assert set(after.record.shards) == {first.path, second.path}
    assert {first.path, second.path, "notes.md"} <= set(hub.listing(after.commit).files)


def test_a_batch_that_landed_while_its_answer_was_lost_is_not_committed_again(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(1)
    before = read_remote(hub)
    landed = commit(hub, before, lines(receipts), sent(hub, staging, receipts), CHANGES)
    count = commits(hub)
    again = commit(hub, before, lines(receipts), sent(hub, staging, receipts), CHANGES)  # of the first nobody heard
    assert (again.commit, commits(hub)) == (landed.commit, count)


@pytest.mark.parametrize("gone", ["shard", "line", "text", "index", "card", "record"])
def test_of_a_batch_whose_answer_was_lost_what_somebody_took_out_before_the_next_look_is_committed_again(
    hub: Hub, staging: Staging, staged: Staged, gone: str
) -> None:
    (receipt,) = staged(1)
    before = read_remote(hub)
    landed = commit(hub, before, lines([receipt]), sent(hub, staging, [receipt]), CHANGES)
    paths = {"shard": receipt.path, "text": "bids/CHANGES", "index": INDEX, "card": CARD, "record": RECORD}
    by_hand = CommitOperationDelete(paths[gone]) if gone in paths else CommitOperationAdd(RECORD, b"")
    meddled = hub.commit([by_hand], "By hand", landed.commit)
    again = commit(hub, before, lines([receipt]), sent(hub, staging, [receipt]), CHANGES)
    assert again.contested and again.commit == hub.head() not in (landed.commit, meddled)
    assert {*paths.values()} <= hub.listing(again.commit).files.keys()
    assert read_remote(hub).record.shards == {receipt.path: receipt.line()}


def test_a_staged_shard_that_was_damaged_is_handed_back_and_the_others_are_sent(
    hub: Hub, staging: Staging, staged: Staged
) -> None:
    receipts = staged(6)  # one is left as it is: flipped, cut, emptied, lost, swapped with another
    files = [staging.folder / one.file for one in receipts]
    data = bytearray(files[0].read_bytes())
    data[len(data) // 2] ^= 1
    files[0].write_bytes(data)
    files[1].write_bytes(files[1].read_bytes()[:-1])
    files[2].write_bytes(b"")
    files[3].unlink()
    shutil.copyfile(files[5], files[4])
    assert [one.receipt for one in transfer(hub, staging, receipts)] == receipts[5:]


def test_removed_shards_leave_the_repo_and_the_record_in_one_commit(hub: Hub, staging: Staging, staged: Staged) -> None:
    first, second = staged(2)
    publish(hub, staging, [first, second])
    before = commits(hub)
    target = read_remote(hub)
    plan = RemovalPlan(commit=target.commit, shards={first.path: as_file(first.line())})
    after = commit(hub, target, [], [], Besides(CHANGES.card_of, {}, remove=plan))
    assert commits(hub) == before + 1
    assert set(after.record.shards) == {second.path}
    assert first.path not in hub.listing(after.commit).files and second.path in hub.listing(after.commit).files


def test_only_texts_that_differ_are_outdated(hub: Hub, staging: Staging, staged: Staged) -> None:
    listing = hub.listing(publish(hub, staging, staged(1)))
    assert outdated(TEXTS, listing) == {}
    assert outdated({"bids/CHANGES": b"1.0.1\n", "bids/new": b""}, listing) == {
        "bids/CHANGES": b"1.0.1\n",
        "bids/new": b"",
    }


def test_a_hub_that_is_not_there_is_named_and_the_way_out_too(repo_id: str) -> None:
    hub = Hub(Target("http://127.0.0.1:9", repo_id), "hf_anything")
    with pytest.raises(HubUnreachable, match=r"127\.0\.0\.1:9 does not answer.*HF_ENDPOINT"):
        hub.prepare(private=True)


def test_a_wrong_token_is_refused_before_anything_is_made(hub_server: Stack, repo_id: str) -> None:
    with pytest.raises(TokenRejected, match="does not accept the token"):
        Hub(Target(hub_server.endpoint, repo_id), "hf_wrong").prepare(private=True)
    with pytest.raises(RepoMissing):
        Hub(Target(hub_server.endpoint, repo_id), hub_server.token).head()


def test_a_token_that_may_only_read_is_refused_before_anything_is_sent(hub: Hub, hub_server: Stack) -> None:
    reader = Hub(hub.target, hub_server.make_token("lab", "read"))
    with pytest.raises(NotAllowed, match="write role"):
        reader.prepare(private=True)


def test_a_namespace_of_somebody_else_is_refused(hub_server: Stack) -> None:
    hub_server.make_token("somebody")
    with pytest.raises(NotAllowed, match="write role"):
        Hub(Target(hub_server.endpoint, "somebody/their-dataset"), hub_server.token).prepare(private=True)


def test_a_revision_is_made_as_a_branch_and_leaves_main_alone(
    hub: Hub, staging: Staging, staged: Staged, hub_server: Stack
) -> None:
    main = hub.head()
    branch = Hub(Target(hub.target.endpoint, hub.target.repo_id, "v2"), hub_server.token)
    branch.prepare(private=True)
    head = publish(branch, staging, staged(1))
    assert branch.head() == head
    assert hub.head() == main


def test_the_token_is_in_no_repr_and_no_error(hub: Hub, hub_server: Stack, tmp_path: Path) -> None:
    assert hub_server.token not in repr(hub)
    with pytest.raises(RepoMissing) as failure:
        Hub(Target(hub_server.endpoint, "lab/no-such-dataset"), hub_server.token).head()
    assert hub_server.token not in str(failure.value)
