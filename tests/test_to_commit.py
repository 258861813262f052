"""How many shards each commit takes: by the Hub's speed, within both limits."""

from huggingface_hub import CommitOperationAdd
from hypothesis import given
from hypothesis import strategies as st

from tasks.commit.to_commit import ToCommit
from tasks.transfer import Transferred
from tasks.values.models import ImageContent, Receipt

GIB = 1 << 30


def sent(number: int, size: int = 1) -> Transferred:
    name = f"sub-{number}"
    content = ImageContent(path="x", size=size, sha256="0" * 64)
    receipt = Receipt(path=f"data/{name}.parquet", digest="1" * 64, sha256="2" * 64, size=size, rows=1,
                      images=(content,), name=name, file=f"shards/{name}.parquet")  # fmt: skip
    return Transferred(receipt, CommitOperationAdd(receipt.path, b""))


def committed(shards: int, seconds: float, waiting: ToCommit) -> list[int]:
    """The number of shards in each commit, if all are sent at once and the Hub takes so long for each commit."""
    one = sent(0)
    for _ in range(shards):
        waiting.add(one)
    sizes = []
    while waiting:
        sizes.append(len(waiting.take()))
        waiting.took(seconds, sizes[-1])
    return sizes


@given(
    st.lists(st.integers(0, 100), max_size=40),
    st.integers(1, 8),
    st.integers(1, 150),
    st.lists(st.sampled_from([1.0, 100.0]), min_size=1),
)
def test_shards_are_committed_in_their_order_each_once_and_within_both_limits(
    sizes: list[int], most: int, limit: int, seconds: list[float]
) -> None:
    shards = [sent(number, size) for number, size in enumerate(sizes)]
    waiting, made = ToCommit(most, limit), []
    for number, one in enumerate(shards):
        waiting.add(one)
        while waiting.full:
            made.append(waiting.take())
            waiting.took(seconds[number % len(seconds)], len(made[-1]))
    while waiting:
        made.append(waiting.take())
    assert [one for batch in made for one in batch] == shards
    for batch in made:
        assert 1 <= len(batch) <= most
        assert len(batch) == 1 or sum(one.size for one in batch) <= limit


def test_a_hundred_thousand_shards_take_at_most_three_hundred_commits_of_a_hub_that_is_fast() -> None:
    sizes = committed(100_000, 5.0, ToCommit(1000, 4 * GIB))
    assert sum(sizes) == 100_000 and len(sizes) <= 300
    assert sizes[0] == 90 and max(sizes) == 1000


def test_a_hub_that_takes_long_gets_smaller_commits_and_larger_ones_when_it_is_well_again() -> None:
    waiting = ToCommit(1000, 4 * GIB)
    assert waiting.shards == 90
    waiting.took(60.0, 90)
    assert waiting.shards == 50
    waiting.took(60.0, 50)
    assert waiting.shards == 50  # and no smaller: each commit has a cost of its own
    for seconds, after in ((40.0, 90), (1.0, 125), (1.0, 200), (41.0, 125)):
        waiting.took(seconds, waiting.shards)
        assert waiting.shards == after


def test_a_small_commit_that_is_fast_does_not_tell_that_a_large_one_would_be() -> None:
    waiting = ToCommit(1000, 4 * GIB)
    waiting.took(0.1, 89)
    assert waiting.shards == 90


def test_the_setting_holds_however_fast_the_hub_is() -> None:
    assert set(committed(100, 0.1, ToCommit(10, 4 * GIB))) == {10}
    assert committed(150, 0.1, ToCommit(100, 4 * GIB)) == [90, 60]


def test_a_commit_is_due_when_there_is_enough_by_number_or_by_bytes_and_not_before() -> None:
    by_number, by_bytes = ToCommit(3, 1000), ToCommit(1000, 100)
    due = []
    for number in range(3):
        by_number.add(sent(number))
        by_bytes.add(sent(number, 40))
        due.append((by_number.full, by_bytes.full))
    assert due == [(False, False), (False, False), (True, True)]
    by_number.take()
    by_bytes.take()
    exactly = ToCommit(1000, 80)
    for number in range(2):
        exactly.add(sent(number, 40))
    assert exactly.full and len(exactly.take()) == 2  # to the byte
    assert (by_number.full, by_bytes.full) == (False, False) and not by_number and by_bytes
