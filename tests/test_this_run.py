"""Which of a schedule's nights does the work of the others, and what a run is called."""

from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from prefect.client.schemas.objects import FlowRun, FlowRunPolicy

from tasks.runs import this_run
from tasks.runs.this_run import ThisRun, later_night, ui_link

DUE = datetime(2026, 11, 24, 2, 0, tzinfo=UTC)
OF = {"repo_id": "lab/x"}
DEPLOYMENT = uuid4()
Knows = Callable[..., list[Any]]


def night(days: int = 0, **fields: Any) -> FlowRun:
    """A run of the schedule, so many days after this one was due."""
    given = {"flow_id": uuid4(), "deployment_id": DEPLOYMENT, "auto_scheduled": True, "parameters": OF, "run_count": 1}
    given |= {"name": f"night {days}", "expected_start_time": DUE + timedelta(days=days)}
    return FlowRun(**(given | fields))


@pytest.fixture
def knows(monkeypatch: pytest.MonkeyPatch) -> Knows:
    """Has this run be the first, and the server know the others; returns what it was asked for."""

    def do(own: FlowRun, *others: FlowRun) -> list[Any]:
        asked: list[Any] = []

        class Client:
            def read_flow_runs(self, flow_run_filter: Any, sort: Any) -> list[FlowRun]:
                asked.append(flow_run_filter)
                return sorted(others, key=lambda one: one.expected_start_time or DUE, reverse="DESC" in sort.value)

        monkeypatch.setattr(this_run, "get_client", lambda **_: nullcontext(Client()))
        monkeypatch.setattr(ThisRun, "flow_run", staticmethod(lambda: own))
        return asked

    return do


@pytest.mark.parametrize(
    ("others", "left_to"),
    [
        pytest.param([], None, id="none"),
        pytest.param([night(1), night(3), night(2)], "night 3", id="the latest"),
        pytest.param([night(0)], None, id="one of the same time"),
        pytest.param([night(-1)], None, id="an earlier one"),
        pytest.param([night(2, auto_scheduled=False), night(1)], "night 1", id="a person's is none"),
        pytest.param([night(2, parameters={"repo_id": "lab/y"}), night(1)], "night 1", id="of another dataset"),
        pytest.param([night(2, expected_start_time=None)], None, id="one that is due at no time"),
    ],
)
def test_a_night_is_left_to_the_latest_one_of_the_same_schedule_and_parameters(
    others: list[FlowRun], left_to: str | None, knows: Knows
) -> None:
    asked = knows(night(), *others)
    found = later_night()
    assert (found and found.name) == left_to
    (of,) = asked
    assert of.deployment_id.any_ == [DEPLOYMENT] and of.expected_start_time.after_ == DUE
    assert datetime.now(UTC) - of.expected_start_time.before_ < timedelta(minutes=1)
    assert {one.value for one in of.state.type.any_} == {"SCHEDULED", "PENDING", "RUNNING", "PAUSED", "COMPLETED"}


@pytest.mark.parametrize(
    "fields",
    [
        {"auto_scheduled": False},
        {"run_count": 2},
        {"empirical_policy": FlowRunPolicy(pause_keys={"gate-1-1"})},
        {"expected_start_time": None},
    ],
    ids=["a person's", "a retry", "at its gate", "due at no time"],
)
def test_a_run_that_is_no_fresh_night_is_left_to_no_other(fields: dict[str, Any], knows: Knows) -> None:
    asked = knows(night(**fields), night(1))
    assert later_night() is None and not asked


@pytest.mark.parametrize(
    ("ui", "link"), [("http://ui/", "[all](http://ui/a/b)"), ("http://ui", "[all](http://ui/a/b)"), (None, "all")]
)
def test_a_link_leads_to_the_ui_where_one_is_known(ui: str | None, link: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Setting:
        @staticmethod
        def value() -> str | None:
            return ui

    monkeypatch.setattr(this_run, "PREFECT_UI_URL", Setting)
    assert ui_link("all", "a/b") == link
