"""The automations that watch bids-push on a self-hosted server, as data; `deployments.deploy` makes them.

Prefect names the event of a state change after the state's *name*, and our runs end in states with names of their own
(`CleanedUp`, `ShardsFailed`). So nothing here lists names of final states: what matters is the state's type, and any
event of a run is a sign of life.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.objects import StateType
from prefect.events.actions import ActionTypes, ChangeFlowRunState, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

PREFIX = "bids-push: "  # names that begin so are ours
FLOWS = ["push-bids", "cleanup-staging"]
NIGHTLY = "nightly"  # the tag of deployments that run unattended

GATE_OPEN = timedelta(days=1)  # a gate that nobody has decided
SILENCE = timedelta(minutes=12)  # without a heartbeat; one is sent every PREFECT_FLOWS_HEARTBEAT_FREQUENCY = 180 s
TOGETHER = timedelta(minutes=5)  # what a run does after it failed (another name for its state) is no second alert

#: What Prefect's server says of a run whose gate has reached its timeout.
NEVER_RESUMED = ["The flow was paused and never resumed.", "The flow was suspended and never resumed."]

TO_DECIDE = "To decide after all, run cleanup-staging/cleanup for the same repo."

BODY = """{{ flow_run.name }} is {{ flow_run.state.name }}: {{ flow_run.state.message }}
{{ flow_run | ui_url }}"""

Match = dict[str, str | list[str]]
OF_OURS: Match = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
OF_A_NIGHTLY: Match = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{NIGHTLY}"}
ANY_RUN: Match = {"prefect.resource.id": "prefect.flow-run.*"}


def automations(notify: UUID | None) -> list[AutomationCore]:
    """All of them; alerts go to the notification block `notify`, or without one to the event feed alone."""

    def alert(subject: str) -> ActionTypes:
        if notify is None:
            return DoNothing()
        return SendNotification(block_document_id=notify, subject=f"{PREFIX}{subject}", body=BODY)

    return [
        gate_open(alert("a gate is waiting for a decision")),
        nightly_failed(alert("a nightly has failed")),
        nightly_late(alert("a nightly has not started")),
        zombie(),
        gate_timed_out(),
        gate_cancelled(),
    ]


def gate_open(action: ActionTypes, within: timedelta = GATE_OPEN, match: Match = ANY_RUN) -> AutomationCore:
    """A gate that nobody has decided for a day. A run that leaves its gate always passes one of these states first."""
    left = ["Resuming", "Scheduled", "Pending", "Running", "AwaitingConcurrencySlot", "AwaitingRetry",
            "Superseded", "Cancelling", "Cancelled", "GateCancelled", "Failed", "Crashed", "Completed"]  # fmt: skip
    return automation(
        "gate open for a day",
        "Nobody has decided at a gate for a day. Nothing is deleted until somebody does.",
        silence(after="Suspended", until=left, within=within, match=match),
        action,
    )


def nightly_failed(action: ActionTypes) -> AutomationCore:
    """A nightly that ended Failed or Crashed, whatever its state is named."""
    return automation(
        "nightly failed",
        "A nightly ended Failed or Crashed. Its state's message says what to do.",
        event("*", {"prefect.state-type": ["FAILED", "CRASHED"]}, [OF_OURS, OF_A_NIGHTLY], within=TOGETHER),
        action,
    )


def nightly_late(action: ActionTypes) -> AutomationCore:
    """A nightly that no worker picked up."""
    return automation(
        "nightly late",
        "No worker picked a nightly up. Is one running, for the work pool bids-push?",
        event("Late", related=[OF_OURS, OF_A_NIGHTLY], within=TOGETHER),
        action,
    )


def zombie(within: timedelta = SILENCE, match: Match = ANY_RUN) -> AutomationCore:
    """A run whose process is gone with its worker: it would be Running, and hold its slot, for ever.

    Any event of the run is a sign of life, so that a run that has ended or waits at its gate, in a state of whatever
    name, is none. The server refuses to crash a run that has ended.
    """
    return automation(
        "zombie run",
        "A run sends no heartbeat: its process, worker or machine is gone. It is marked Crashed.",
        silence(after="heartbeat", until=["*"], within=within, match=match),
        ChangeFlowRunState(
            state=StateType.CRASHED,
            name="Zombie",
            message="No sign of life: the run's process, its worker or its machine is gone. Nothing is lost and "
            "nothing was deleted unasked. Start the run again: it does only the work that is missing.",
        ),
    )


def gate_timed_out() -> AutomationCore:
    """A gate that reached its timeout: Prefect fails the run without saying what that means here."""
    return automation(
        "gate timed out",
        "Names the state of a run whose gate reached its timeout (BIDS_PUSH_GATE_DAYS).",
        event("Failed", {"prefect.state-message": list(NEVER_RESUMED)}),
        ChangeFlowRunState(
            state=StateType.FAILED,
            name="GateTimedOut",
            message="Nobody decided at this gate in time, so it was closed. Nothing was deleted: everything is on the "
            f"Hub and still staged. {TO_DECIDE}",
        ),
    )


def gate_cancelled() -> AutomationCore:
    """A gate that a person has cancelled: no process of ours runs then that could say what it means.

    It fires too where somebody has decided before, and then cancelled: the message is true of that as well.
    """
    return automation(
        "gate cancelled",
        "Names the state of a run that was cancelled at its gate.",
        event("Cancelled", after="Suspended"),
        ChangeFlowRunState(
            state=StateType.CANCELLED,
            name="GateCancelled",
            message="This run was cancelled at its gate, or after it. Nothing more is deleted: what is staged stays, "
            f"and the Hub was verified to hold it. {TO_DECIDE}",
        ),
    )


def automation(name: str, description: str, trigger: EventTrigger, action: ActionTypes) -> AutomationCore:
    """One of ours."""
    return AutomationCore(name=f"{PREFIX}{name}", description=description, trigger=trigger, actions=[action])


def event(
    name: str, match: Match | None = None, related: Sequence[Match] = (OF_OURS,), after: str = "",
    within: timedelta = timedelta(0),
) -> EventTrigger:  # fmt: skip
    """An event of a run of ours: one alert for all that come `within` this time of each other."""
    return EventTrigger(
        after={f"prefect.flow-run.{after}"} if after else set(),
        expect={f"prefect.flow-run.{name}"},
        match={**ANY_RUN, **(match or {})},
        match_related=list(related),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=within,
    )


def silence(after: str, until: Sequence[str], within: timedelta, match: Match) -> EventTrigger:
    """A run of ours of which, after one event, none of the others has come in time."""
    return EventTrigger(
        after={f"prefect.flow-run.{after}"},
        expect={f"prefect.flow-run.{name}" for name in until},
        match=match,
        match_related=OF_OURS,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        threshold=1,
        within=within,
    )
