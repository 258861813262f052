"""Python's search for cycles: rarer while a run works, and afterwards as it was."""

import gc
from collections.abc import Iterator

import pytest

from tasks.runs.few_collections import few_collections


@pytest.fixture(autouse=True)
def as_python_begins() -> Iterator[None]:
    before, enabled = gc.get_threshold(), gc.isenabled()
    gc.enable()
    gc.set_threshold(700, 10, 10)
    yield
    gc.set_threshold(*before)
    if not enabled:
        gc.disable()


def searches(objects: int = 100_000) -> int:
    """Return how many searches there are while this many objects are made and kept."""
    before = sum(generation["collections"] for generation in gc.get_stats())
    kept = [[number] for number in range(objects)]
    assert len(kept) == objects
    return sum(generation["collections"] for generation in gc.get_stats()) - before


def test_there_are_far_fewer_searches_in_a_run_than_before_and_after_it() -> None:
    before = searches()
    with few_collections():
        during = searches()
    assert before > 100
    assert 0 < during <= before / 10
    assert searches() > 100


def test_they_are_as_they_were_after_a_run_that_failed() -> None:
    with pytest.raises(OSError, match="gone"), few_collections():
        raise OSError("gone")
    assert searches() > 100


@pytest.mark.parametrize("threshold", [(50_000, 5, 5), (0, 10, 10)], ids=["rarer still", "none at all"])
def test_what_somebody_has_made_rarer_stays_so(threshold: tuple[int, int, int]) -> None:
    gc.set_threshold(*threshold)
    with few_collections():
        assert searches() <= 2
    assert gc.get_threshold() == threshold


def test_what_only_refers_to_itself_is_found_in_a_run_all_the_same() -> None:
    class Cycle:
        alive = 0

        def __init__(self) -> None:
            self.me = self
            Cycle.alive += 1

        def __del__(self) -> None:
            Cycle.alive -= 1

    with few_collections():
        for _ in range(100_000):
            Cycle()
        assert Cycle.alive < 30_000
