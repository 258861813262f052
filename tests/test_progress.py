"""The counts of a run, and the line that says how far it is."""

import time
from collections.abc import Callable

import pytest

from tasks.report.progress import Progress
from tasks.values.models import ImageContent, Receipt


@pytest.fixture
def pass_by(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets seconds pass by a clock of the test's own."""
    now = [0.0]
    monkeypatch.setattr("tasks.report.progress.time.monotonic", lambda: now[0])

    def passed(seconds: float) -> None:
        now[0] += seconds

    return passed


def receipt(name: str, size: int = 1_100, image: int = 1_000) -> Receipt:
    content = ImageContent(path=f"{name}_T1w.nii.gz", size=image, sha256="0" * 64)
    return Receipt(path=f"data/{name}.parquet", digest="1" * 64, sha256="2" * 64, size=size, rows=2,
                   images=(content,), name=name, file=f"shards/{name}.parquet")  # fmt: skip


def of_100() -> Progress:
    """A run with much to do, so that nothing is shown on the server within its first seconds."""
    clock = time.monotonic()
    return Progress(1_200, 900, 100, 100_000, _started=clock, _shown=clock)


@pytest.mark.usefixtures("pass_by")
def test_what_is_staged_found_damaged_and_sent_is_counted() -> None:
    run = of_100()
    run.staged(receipt("a"), embedded=True)
    for name in ("b", "c"):
        run.staged(receipt(name), embedded=False)
    assert run.counts == {"shards embedded": 1, "shards found staged": 2, "bytes staged": 3_300, "rows": 6}
    run.damaged(receipt("b"))
    run.damaged(receipt("b"))  # it was embedded in this run by now
    run.damaged(receipt("a"))
    assert (run.counts["shards found staged"], run.counts["shards found damaged"]) == (1, 3)
    run.committed([receipt("a"), receipt("c")])
    run.committed([])
    assert (run.counts["commits"], run.counts["shards sent"], run.counts["bytes sent"]) == (2, 2, 2_200)


def test_a_line_says_how_far_a_run_is_and_how_long_it_takes_at_that_pace(pass_by: Callable[[float], None]) -> None:
    run = of_100()
    assert run.sentence() == (
        "900 of 1,200 shards were on the Hub; 100 to do: 0 found staged, 0 embedded, 0 sent; 0 bytes of 100 kB, "
        "0 bytes/s"
    )
    run.staged(receipt("a"), embedded=False)
    run.staged(receipt("b"), embedded=True)
    pass_by(4)
    run.committed([receipt("a", image=10_000)])
    assert run.sentence() == (
        "900 of 1,200 shards were on the Hub; 100 to do: 1 found staged, 1 embedded, 1 sent; 10 kB of 100 kB, 2 kB/s, "
        "about 1 min left"
    )
    pass_by(6)
    run._images_sent = 150_000  # the images were larger than planned
    assert run.sentence().endswith("; 150 kB of 100 kB, 15 kB/s")
    run.failures.append({"shard": "c"})
    run.counts["shards failed"] = 1
    assert run.sentence().endswith("; 1 shard failed")


def test_the_seconds_of_a_stage_are_added_up_also_of_what_goes_on_at_the_same_time(
    pass_by: Callable[[float], None],
) -> None:
    run = of_100()
    first = run.timer("transfer")
    pass_by(2)
    second = run.timer("transfer")
    pass_by(3)
    first()
    second()
    assert dict(run.seconds) == {"transfer": 8}
