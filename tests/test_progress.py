"""The counts of a run, and the line that says how far it is."""

import time
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest

from tasks.report.progress import SHOW_EVERY, Progress
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


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Any]]:
    """What is left on the server: the kind of artifact, and what it says."""
    left: list[tuple[str, Any]] = []

    def table(rows: list[dict[str, Any]], key: str, description: str) -> None:
        left.append((key, (rows, description)))

    def made(progress: float, key: str, description: str) -> UUID:
        left.append((f"made {key}", (progress, description)))
        return UUID(int=7)

    def updated(artifact: UUID, progress: float, description: str) -> None:
        assert artifact == UUID(int=7)
        left.append(("updated", (progress, description)))

    of = "tasks.report.progress"
    monkeypatch.setattr(f"{of}.create_table_artifact", table)
    monkeypatch.setattr(f"{of}.create_progress_artifact", made)
    monkeypatch.setattr(f"{of}.update_progress_artifact", updated)
    return left


def test_the_progress_is_shown_now_and_then_and_as_soon_as_all_of_it_is_sent(
    pass_by: Callable[[float], None], shown: list[tuple[str, Any]]
) -> None:
    run = Progress(4, 1, 3, 3_000, _started=0.0, _shown=0.0)
    run.committed([receipt("a")])
    assert not shown
    pass_by(SHOW_EVERY)
    run.show()
    run.committed([receipt("b")])
    assert shown == [("made push-progress", (33.3, run_said(run, "1 sent; 1 kB of 3 kB")))]
    run.committed([receipt("c")])
    assert [(kind, said[0]) for kind, said in shown[1:]] == [("updated", 100.0)] and "3 sent" in shown[1][1][1]
    nothing = Progress(4, 4, 0, 0)
    nothing.show()
    assert shown[-1][0] == "made push-progress" and shown[-1][1][0] == 100.0


def run_said(run: Progress, sent: str) -> str:
    return f"1 of 4 shards were on the Hub; 3 to do: 0 found staged, 0 embedded, {sent}, 200 bytes/s, about 0 min left"


def test_each_shard_that_failed_is_in_a_table_soon_and_in_the_end_all_are(
    pass_by: Callable[[float], None], shown: list[tuple[str, Any]]
) -> None:
    run = of_100()
    for name in "ab":
        run.failed(name, ValueError(f"{name} is broken"))
    first = {"shard": "a", "kind": "ValueError", "why": "a is broken"}
    assert shown == [("failed-shards", ([first], "1 shard could not be staged; the others are published"))]
    pass_by(SHOW_EVERY)
    run.failed("c", ValueError("c is broken"))
    key, (rows, said) = [one for one in shown if one[0] == "failed-shards"][-1]
    assert [row["shard"] for row in rows] == ["a", "b", "c"] and said.startswith("3 shards") and key == "failed-shards"
    assert run.counts["shards failed"] == 3
    run.failed("d", ValueError("d is broken"))
    run.seconds["stage"] = 1.234
    run.leave("figures", "what was counted")
    assert [row["shard"] for row in shown[-2][1][0]] == ["a", "b", "c", "d"]
    rows = [{"what": "shards failed", "value": 4}, {"what": "seconds: stage", "value": 1.23}]
    assert shown[-1] == ("figures", (rows, "what was counted"))


def test_a_run_in_which_nothing_failed_leaves_no_table_of_failures(shown: list[tuple[str, Any]]) -> None:
    of_100().leave("figures", "what was counted")
    assert shown == [("figures", ([], "what was counted"))]
