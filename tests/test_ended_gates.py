"""How a run that ended at its gate is told from others, by the states that the server has of it."""

import pytest
from prefect.client.schemas.objects import State, StateType
from prefect.states import Cancelled, Cancelling, Completed, Failed, Paused, Running, Suspended

from tasks.approve import Question, cannot_ask
from tasks.runs.ended_gates import GATE_KEY, NEVER_RESUMED, STATUS, gate_key, is_open_gate, name_for, status_line
from tests.test_gate_texts import WHERE

WAITS = f"Waits for a person.\n{STATUS} here"
AT_GATE: State = Suspended(pause_expiration_time=WHERE.expires, pause_key=gate_key(1, 1), message=WAITS)
TIMED_OUT: State = Failed(message=f"The flow was paused {NEVER_RESUMED}")


def test_the_key_of_a_question_is_another_one_for_each_try_and_each_start() -> None:
    assert gate_key(2, 3).startswith(GATE_KEY)
    assert len({gate_key(1, 1), gate_key(1, 2), gate_key(2, 1), gate_key(1, 12), gate_key(11, 2)}) == 5


@pytest.mark.parametrize(
    ("state", "open_"),
    [
        (AT_GATE, True),
        (Paused(pause_expiration_time=WHERE.expires, pause_key=gate_key(1, 1)), True),
        (Suspended(pause_expiration_time=WHERE.expires, pause_key="somebody's own"), False),
        (Suspended(pause_expiration_time=WHERE.expires), False),
        (Running(), False),
        (None, False),
    ],
)
def test_a_run_waits_at_a_gate_of_ours_only_if_it_is_paused_by_a_question_of_ours(
    state: State | None, open_: bool
) -> None:
    assert is_open_gate(state) is open_


@pytest.mark.parametrize(
    ("states", "name"),
    [
        pytest.param([Running(), AT_GATE, Cancelled()], "GateCancelled", id="cancelled"),
        pytest.param([AT_GATE, Cancelling(), Cancelled()], "GateCancelled", id="cancelled with a process to end"),
        pytest.param([AT_GATE, TIMED_OUT], "GateTimedOut", id="nobody decided"),
        pytest.param([AT_GATE, Failed(message="by hand")], None, id="failed otherwise"),
        pytest.param([AT_GATE, Cancelled(name="Superseded")], None, id="it has a name already"),
        pytest.param([AT_GATE, Completed()], None, id="it went on"),
        pytest.param([AT_GATE, Running(), Cancelled()], None, id="cancelled while it worked"),
        pytest.param([Running(), TIMED_OUT], None, id="it was at no gate"),
        pytest.param([AT_GATE], None, id="it still waits"),
        pytest.param([Cancelled()], None, id="it never began"),
        pytest.param([], None, id="no states"),
    ],
)
def test_only_a_run_that_the_server_ended_at_its_gate_gets_the_name_of_such_an_end(
    states: list[State], name: str | None
) -> None:
    named = name_for(states)
    assert (named and named.name) == name
    if named:
        assert named.type is (StateType.CANCELLED if name == "GateCancelled" else StateType.FAILED)
        assert str(named.message).endswith(f"\n{STATUS} here") and "what is staged stays" in str(named.message)


@pytest.mark.parametrize(
    ("message", "line"),
    [(WAITS, f"\n{STATUS} here"), ("Waits.", ""), (f"{STATUS} here\nWaits.", ""), (None, "")],
)
def test_the_last_line_of_a_waiting_run_says_where_the_status_is_if_it_has_one(message: str | None, line: str) -> None:
    assert status_line(Suspended(pause_expiration_time=WHERE.expires, message=message)) == line
    assert status_line(None) == ""


def test_a_gate_that_cannot_be_opened_says_that_nothing_was_deleted_and_what_to_do() -> None:
    said = cannot_ask("the run is Cancelled by now.")
    assert said.startswith("the gate could not be opened: the run is Cancelled by now. Nothing was deleted")
    assert said.endswith("Retry the run, or run cleanup-staging/cleanup.")


def test_an_answer_that_was_not_accepted_stands_above_the_evidence_in_the_place_of_the_picture() -> None:
    question = Question("the evidence", " a picture", "/staging", "It waits.", WHERE.expires)
    assert question.message("") == "It waits." and question.message("No.") == "Not accepted: No.\nIt waits."
    first, again = (str(question.form(mistake)._description) for mistake in ("", "No."))
    assert first == "the evidence a picture"
    assert again == "**Not accepted:** No.\n\nthe evidence"
