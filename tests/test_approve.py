"""The gate alone: whose it is, what is asked in which words, and what counts as a person's answer.

A run here does nothing but ask. It is suspended on a Prefect server, and the test does what a worker does once
somebody has answered: it starts the flow again. Gates of whole pushes are in test_removal_gate.py and end_to_end.
"""

import os
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest
from prefect import flow
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import FlowRun, State
from prefect.exceptions import Abort, Pause
from prefect.flow_engine import run_flow
from prefect.states import Cancelled, Cancelling, Scheduled

from deployments.runs import Runs
from tasks.approve import (
    CannotAsk,
    GateElsewhere,
    GateForm,
    NotThisRepo,
    Question,
    Superseded,
    ask,
    at_its_gate,
    claim,
    has_claimed,
    read_gate,
    require_name,
    write_gate,
)
from tasks.disk.staging import Staging, Target
from tasks.report.evidence import Approval, Choice, Fate, Gate
from tasks.runs.ended_gates import WAITS, gate_key
from tasks.runs.lease import TargetLost
from tasks.runs.this_run import ThisRun

_numbers = count(1)
EXPIRES = datetime.now(UTC) + timedelta(days=3)
STATUS = "Status of the target: here"
QUESTION = Question(
    "what was verified", "\n\n![picture](there)", "3 files in /staging", f"It waits.\n{STATUS}", EXPIRES
)
OURS = ThisRun("our-run", "push ours", 1, True)
RETURNED = ThisRun("our-run", "push ours", 1, True, asked=True)


def gate(run: str, name: str = "push theirs", commit: str | None = "c" * 40) -> Gate:
    return Gate(flow_run_id=run, flow_run_name=name, opened_at_commit=commit)


# Whose gate it is.


def test_a_gate_that_was_never_written_or_is_damaged_is_none(staging: Staging) -> None:
    assert read_gate(staging) is None
    write_gate(staging, gate("our-run"))
    assert read_gate(staging) == gate("our-run")
    staging.gate.write_text('{"flow_run_id": 1')
    assert read_gate(staging) is None


def test_a_run_comes_back_to_the_gate_that_it_has_opened_and_to_no_other(staging: Staging) -> None:
    write_gate(staging, gate("our-run"))
    for run in (OURS, RETURNED):
        assert at_its_gate(staging, run) == gate("our-run")
    write_gate(staging, gate("our-run", commit=None))  # it has claimed the target, and was not asked yet
    for run in (OURS, RETURNED):
        assert at_its_gate(staging, run) is None


def test_a_run_that_was_never_asked_has_no_gate_to_come_back_to(staging: Staging) -> None:
    assert at_its_gate(staging, OURS) is None
    write_gate(staging, gate("their-run"))
    assert at_its_gate(staging, OURS) is None


def test_a_run_whose_gate_another_one_has_taken_over_is_told_which_and_where_to_decide(staging: Staging) -> None:
    write_gate(staging, gate("their-run"))
    with pytest.raises(Superseded) as raised:
        at_its_gate(staging, RETURNED)
    assert str(raised.value) == (
        "The newer run push theirs works on the same target and has taken this gate over: what it sends or removes is "
        "not in the evidence shown here. Nothing was deleted. Decide at the gate of that run; if it has opened none, "
        "start cleanup-staging/cleanup. Removals that were asked about here stay on the Hub: the next push with "
        "removed=ask asks about them again, and cleanup-staging/cleanup never does."
    )


def test_a_run_that_comes_back_on_a_machine_without_its_staged_files_is_told_so(staging: Staging) -> None:
    with pytest.raises(GateElsewhere) as raised:
        at_its_gate(staging, RETURNED)
    assert str(raised.value) == (
        f"this run was asked about staged files that are not in {staging.folder} on this machine: it was resumed by a "
        "worker on another machine, or the folder was moved. Nothing was deleted. Run cleanup-staging/cleanup on the "
        "machine that has them (`make staging` there lists them)."
    )


def test_the_target_is_claimed_by_the_run_whose_gate_is_there_and_by_no_other(staging: Staging) -> None:
    assert has_claimed(staging, "our-run") is False
    write_gate(staging, gate("our-run", commit=None))
    assert has_claimed(staging, "our-run") is True
    assert has_claimed(staging, "their-run") is False


# What is asked.


def fields(question: Question, mistake: str = "") -> dict[str, Any]:
    """The form as the server and the UI have it."""
    schema = question.form(mistake).model_json_schema()
    assert schema["title"] == "CleanupForm"
    shown = schema["properties"].items()
    return {name: (one.get("title"), one["description"], name in schema["required"]) for name, one in shown}


DECISION = ("Decision", "delete: remove the staged copies of what the Hub holds (3 files in /staging). keep: leave "
            "everything.", True)  # fmt: skip
REMOVALS = ("Removals", "remove: take from the repo 1 shard: sub-1. keep: leave it.",
            True)  # fmt: skip
NAME = ("Repo name", "Type the repo's name (namespace/name), to confirm it.", True)
STALE = ("Remove stale files too", "Also remove leftovers of older or broken runs.", False)
NOTE = ("Note", "Why, and who you are: kept in the run's log.", False)
NOTE_ON_REMOVALS = (
    "Note",
    "Why, and who you are: kept in the log, told with what is kept.",
    False,
)


@pytest.mark.parametrize(
    ("files", "removals", "stale", "asked"),
    [
        ("3 files in /staging", "", True, {"decision": DECISION, "remove_stale": STALE}),
        ("3 files in /staging", "", False, {"decision": DECISION, "remove_stale": STALE}),
        ("3 files in /staging", "1 shard: sub-1", False, {"decision": DECISION, "removals": REMOVALS}),
        ("3 files in /staging", "1 shard: sub-1", True,
         {"decision": DECISION, "removals": REMOVALS, "remove_stale": STALE}),
        ("", "1 shard: sub-1", True, {"removals": REMOVALS}),
    ],
)  # fmt: skip
def test_the_form_has_a_field_for_each_thing_to_decide_and_no_decision_is_made_beforehand(
    files: str, removals: str, stale: bool, asked: dict[str, Any]
) -> None:
    question = Question("evidence", "", files, "waits", EXPIRES, removals, stale)
    form = fields(question)
    assert form == asked | {"confirm_repo": NAME, "note": NOTE_ON_REMOVALS if removals else NOTE}
    order = ("decision", "removals", "confirm_repo", "remove_stale", "note")
    assert list(form) == [name for name in order if name in form]
    assert question.form("").model_fields["note"].default == ""


def test_where_leftovers_alone_are_staged_the_form_speaks_of_no_copies() -> None:
    """Copies on the Hub are nothing that `delete` would have to do with."""
    decision = fields(Question("evidence", "", "files", "waits", EXPIRES, copies=False))["decision"]
    assert decision == (
        "Decision",
        "delete: remove the stale files, if you say so below; no staged copy is to be decided about (files). keep: "
        "leave everything.",
        True,
    )


def test_leftovers_stay_unless_the_form_says_otherwise() -> None:
    assert QUESTION.form("").model_fields["remove_stale"].default is False
    assert Question("evidence", "", "files", "waits", EXPIRES, "a removal").form("").model_fields["remove_stale"]


def test_the_evidence_stands_above_the_form_and_a_mistake_above_the_evidence() -> None:
    assert QUESTION.form("")._description == "what was verified\n\n![picture](there)"
    assert QUESTION.form("Wrong.")._description == "**Not accepted:** Wrong.\n\nwhat was verified"
    assert QUESTION.message("") == QUESTION.waits
    assert QUESTION.message("Wrong.") == f"Not accepted: Wrong.\n{QUESTION.waits}"


def test_only_the_repos_own_name_confirms_whatever_stands_around_it() -> None:
    require_name(" lab/one\n", "lab/one")
    for typed in ("lab/two", "", "one", "LAB/ONE", "lab/one lab/one"):
        with pytest.raises(NotThisRepo):
            require_name(typed, "lab/one")
    with pytest.raises(NotThisRepo) as raised:
        require_name(" `" + "x" * 200 + " ", "lab/one")
    assert str(raised.value) == f"the repo name typed was `'{'x' * 99}`, and this gate is about `lab/one`."


# What counts as an answer, whoever brings it: here, those who answer at once.


@dataclass(frozen=True)
class Shown:
    """One question as it was asked."""

    text: str
    key: str
    expires: datetime
    message: str


class Answers:
    """People who answer one after the other, and what each was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *answers: dict[str, Any]) -> None:
        self._left = list(answers)
        self.shown: list[Shown] = []
        monkeypatch.setattr("tasks.approve.suspend", self._suspend)

    def _suspend(
        self, form: type[GateForm], key: str, expires: datetime, message: str, fence: Callable[[], None]
    ) -> GateForm:
        fence()
        self.shown.append(Shown(form._description or "", key, expires, message))
        return form.model_validate(self._left.pop(0))


BOTH = Question("evidence", "", "files", "It waits.", EXPIRES, "1 shard: sub-1")
REMOVALS_ALONE = Question("evidence", "", "", "It waits.", EXPIRES, "1 shard: sub-1")
RIGHT = {"confirm_repo": "lab/one"}


@pytest.mark.parametrize(
    ("question", "answer", "decided"),
    [
        (QUESTION, {"decision": "keep"}, {"decision": Choice.KEEP}),
        (QUESTION, {"decision": "delete", "note": "me"}, {"decision": Choice.DELETE, "note": "me"}),
        (QUESTION, {"decision": "delete", "remove_stale": True}, {"decision": Choice.DELETE, "remove_stale": True}),
        (BOTH, {"decision": "keep", "removals": "remove"}, {"decision": Choice.KEEP, "removals": Fate.REMOVE}),
        (BOTH, {"decision": "delete", "removals": "keep"}, {"decision": Choice.DELETE, "removals": Fate.KEEP}),
        (REMOVALS_ALONE, {"removals": "remove"}, {"removals": Fate.REMOVE}),
        (REMOVALS_ALONE, {"removals": "keep"}, {"removals": Fate.KEEP}),
    ],
)
def test_what_a_person_decided_is_what_comes_back_and_nothing_that_was_not_asked(
    question: Question, answer: dict[str, Any], decided: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    people = Answers(monkeypatch, RIGHT | answer)
    assert ask("lab/one", ThisRun("our-run", "push ours", 3, True), question) == Approval(
        flow_run_id="our-run", **decided
    )
    (shown,) = people.shown
    assert shown == Shown(question.evidence + question.picture, gate_key(3, 1), EXPIRES, question.waits)


DECIDE_AGAIN = "Nothing was deleted. Please decide again."


@pytest.mark.parametrize(
    ("question", "wrong", "mistake"),
    [
        (QUESTION, {"decision": "delete", "confirm_repo": "lab/two"},
         "the repo name typed was `lab/two`, and this gate is about `lab/one`."),
        (QUESTION, {"decision": "delete", "confirm_repo": ""},
         "the repo name typed was ``, and this gate is about `lab/one`."),
        (QUESTION, {"decision": "perhaps"}, "decision: Input should be 'delete' or 'keep'."),
        (QUESTION, {"decision": None}, "decision: Input should be 'delete' or 'keep'."),
        (QUESTION, {}, "decision: Field required."),
        (QUESTION, {"decision": "delete", "confirm_repo": None}, "confirm_repo: Input should be a valid string."),
        (QUESTION, {"decision": "delete", "remove_stale": "perhaps"},
         "remove_stale: Input should be a valid boolean, unable to interpret input."),
        (BOTH, {"decision": "delete"}, "removals: Field required."),
        (BOTH, {"removals": "remove"}, "decision: Field required."),
        (BOTH, {"decision": "keep", "removals": "delete"}, "removals: Input should be 'remove' or 'keep'."),
        (REMOVALS_ALONE, {}, "removals: Field required."),
    ],
)  # fmt: skip
def test_an_answer_that_is_no_decision_is_told_and_asked_again_under_a_key_of_its_own(
    question: Question, wrong: dict[str, Any], mistake: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = RIGHT | {name: "keep" for name in ("decision", "removals") if name in question.form("").model_fields}
    people = Answers(monkeypatch, RIGHT | wrong, RIGHT | wrong, right)
    approval = ask("lab/one", OURS, question)
    assert Choice.DELETE is not approval.decision and approval.removals is not Fate.REMOVE
    again = f"{mistake} {DECIDE_AGAIN}"
    told = f"**Not accepted:** {again}\n\n{question.evidence}"
    assert people.shown == [
        Shown(question.evidence + question.picture, gate_key(1, 1), EXPIRES, question.waits),
        Shown(told, gate_key(1, 2), EXPIRES, f"Not accepted: {again}\n{question.waits}"),
        Shown(told, gate_key(1, 3), EXPIRES, f"Not accepted: {again}\n{question.waits}"),
    ]


def test_a_run_that_holds_its_target_no_more_takes_no_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    people = Answers(monkeypatch, RIGHT | {"decision": "delete"})

    def lost() -> None:
        raise TargetLost("another run has it")

    with pytest.raises(TargetLost):
        ask("lab/one", OURS, QUESTION, lost)
    assert not people.shown


# A run that is suspended on a Prefect server, and goes on.


class Asking:
    """A run of a deployment of its own that asks, and whatever it was told."""

    def __init__(
        self,
        target: Target,
        question: Question,
        before: Callable[[FlowRun], None] = lambda _: None,
        fence: Callable[[], None] = lambda: None,
    ) -> None:
        self.target = target
        self.approvals: list[Approval] = []
        self.refused: list[str] = []

        @flow(name="asks")
        def asks() -> None:
            run = ThisRun.of(target)
            before(ThisRun.flow_run())
            try:
                self.approvals.append(ask(target.repo_id, run, question, fence))
            except CannotAsk as error:
                self.refused.append(str(error))

        self._flow = asks
        with get_client(sync_client=True) as client:
            made = client.create_deployment(client.create_flow(asks), f"asks-{target.slug}")
            self.id = client.create_flow_run_from_deployment(made).id
        self.go()

    def go(self) -> None:
        """Do what a worker does: start the flow (again)."""
        with suppress(Abort, Pause):
            run_flow(self._flow, self.read(), return_type="state")

    def read(self) -> FlowRun:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(self.id)

    def answer(self, **form: Any) -> None:
        with get_client(sync_client=True) as client:
            assert Runs(client).decide(self.id, **{"confirm_repo": self.target.repo_id, **form}) is None

    def state(self) -> tuple[str, str]:
        state = self.read().state
        assert state is not None
        return state.name or "", state.message or ""

    def keyset(self) -> dict[str, str]:
        """Under which keys the server has the form that is open, and the answer."""
        state = self.read().state
        assert state is not None and state.state_details.run_input_keyset is not None
        return state.state_details.run_input_keyset


@pytest.fixture
def target(prefect: None) -> Target:
    return Target("http://hub", f"lab/asked-{os.getpid()}-{next(_numbers)}")


@pytest.mark.parametrize("lost", [1, 2], ids=["before it asks", "while it asks"])
def test_a_run_that_lost_its_target_leaves_no_gate_open(target: Target, lost: int) -> None:
    """Another run has taken the target over, and has a gate of its own: one target has one at most."""
    asked: list[int] = []

    def fence() -> None:
        asked.append(1)
        if len(asked) == lost:
            raise TargetLost("another run has it")

    asking = Asking(target, QUESTION, fence=fence)
    state = asking.read().state
    assert state is not None and state.is_failed() and "another run has it" in (state.message or "")
    assert WAITS not in asking.read().tags and not asking.approvals
    with get_client(sync_client=True) as client:
        been = [(one.name, one.message) for one in client.read_flow_run_states(asking.id)]
    assert ("TargetLost", "another run has it") in been or lost == 1  # before it fails of that: nobody may press Resume


def test_a_run_waits_until_a_person_decides_and_goes_on_with_what_they_decided(
    target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    asking = Asking(target, QUESTION)
    assert asking.state() == ("Suspended", QUESTION.waits)
    assert QUESTION.waits in [record.getMessage() for record in caplog.records]  # a run's page opens with its log
    run = asking.read()
    assert run.state is not None and run.state.state_details.pause_timeout == EXPIRES
    assert run.state.state_details.pause_key == gate_key(1, 1)
    assert WAITS in run.tags and not asking.approvals
    asking.answer(decision="delete", remove_stale=True, note="me")
    asking.go()
    given = Approval(flow_run_id=str(asking.id), decision=Choice.DELETE, remove_stale=True, note="me")
    assert asking.approvals == [given] and asking.state()[0] == "Completed"


def test_nobody_is_asked_twice_in_one_start_of_a_run_and_anew_in_a_retry(target: Target) -> None:
    asking = Asking(target, Question("evidence", "", "", "It waits.", EXPIRES, "1 shard: sub-1"))
    asking.answer(removals="keep")
    asking.go()
    assert asking.approvals == [Approval(flow_run_id=str(asking.id), removals=Fate.KEEP)]
    with get_client(sync_client=True) as client:
        client.set_flow_run_state(asking.id, Scheduled(name="AwaitingRetry"), force=True)
    asking.go()
    assert asking.state()[0] == "Suspended" and len(asking.approvals) == 1


def test_another_repos_name_is_told_and_the_same_is_asked_again(target: Target) -> None:
    asking = Asking(target, QUESTION)
    for wrong in ("lab/another", "lab/third"):
        asking.answer(decision="delete", confirm_repo=wrong)
        asking.go()
        mistake = f"the repo name typed was `{wrong}`, and this gate is about `{target.repo_id}`."
        told = f"Not accepted: {mistake} Nothing was deleted. Please decide again.\n{QUESTION.waits}"
        assert asking.state() == ("Suspended", told) and not asking.approvals
    asking.answer(decision="keep")
    asking.go()
    assert asking.approvals == [Approval(flow_run_id=str(asking.id), decision=Choice.KEEP)]


def test_an_answer_that_is_no_decision_is_told_and_the_same_is_asked_again(target: Target) -> None:
    asking = Asking(target, QUESTION)
    response = asking.keyset()["response"]
    asking.answer(decision="delete")
    with get_client(sync_client=True) as client:  # the server refuses such a form; somebody wrote it past the server
        client.request("DELETE", "/flow_runs/{id}/input/{key}", path_params={"id": asking.id, "key": response})
        wrong = {"key": response, "value": '{"decision": "perhaps", "confirm_repo": "lab/another"}'}
        client.request("POST", "/flow_runs/{id}/input", path_params={"id": asking.id}, json=wrong)
    asking.go()
    name, message = asking.state()
    assert name == "Suspended" and not asking.approvals
    assert message.startswith("Not accepted: decision: Input should be 'delete' or 'keep'. Nothing was deleted.")


@pytest.mark.parametrize(
    ("state", "why"), [(Cancelled(), "CANCELLED"), (Cancelling(), "the run is Cancelling by now.")]
)
def test_a_run_that_somebody_ends_before_it_can_ask_deletes_nothing_and_says_what_to_do(
    target: Target, state: State[Any], why: str
) -> None:
    def end(run: FlowRun) -> None:
        with get_client(sync_client=True) as client:
            client.set_flow_run_state(run.id, state, force=True)

    asking = Asking(target, QUESTION, before=end)
    (refused,) = asking.refused
    assert refused.startswith("the gate could not be opened: ") and why in refused and not asking.approvals
    assert refused.endswith(
        " Nothing was deleted, and what is staged stays. Retry the run, or run cleanup-staging/cleanup."
    )


# One target has at most one open gate.


def test_a_run_that_begins_to_publish_takes_over_the_gates_of_its_target_and_of_no_other(
    target: Target, staging: Staging, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Target(target.endpoint, target.repo_id, "another-branch")
    oldest, itself, older, elsewhere = (Asking(of, QUESTION) for of in (target, target, target, other))
    decided = Asking(target, QUESTION)
    decided.answer(decision="keep")
    decided.go()
    newer = ThisRun(str(itself.id), "push newer", 1, True)
    listed = SyncPrefectClient.read_flow_runs

    def itself_first(client: SyncPrefectClient, **only: Any) -> list[FlowRun]:  # the server has them in any order
        return sorted(listed(client, **only), key=lambda run: run.id != itself.id)

    monkeypatch.setattr(SyncPrefectClient, "read_flow_runs", itself_first)
    assert sorted(claim(staging, target, newer)) == sorted([oldest.read().name, older.read().name])
    claimed = Gate(flow_run_id=newer.id, flow_run_name="push newer", target=str(target))
    assert read_gate(staging) == claimed
    for one in (oldest, older):
        name, message = one.state()
        assert name == "Superseded" and message.startswith("The newer run push newer works on the same target")
        assert message.endswith(f"\n{STATUS}") and WAITS not in one.read().tags
        assert one.read().state.is_cancelled()  # type: ignore[union-attr]
    for one in (elsewhere, itself):
        assert one.state()[0] == "Suspended" and WAITS in one.read().tags
    assert decided.state()[0] == "Completed"
