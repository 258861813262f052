"""The automations that tell people about bids-push's runs, as data. `deployments.deploy` makes them.

They are alerts and nothing more. A busy server drops events, so nothing that a run's state says, and nothing that is
deleted, depends on one.

Prefect names the event of a state change after the state's *name*, and our runs end in states with names of their own
(`CleanedUp`, `ShardsFailed`). So no list of names of final states is here: what matters is the state's type.
"""

from collections.abc import Sequence
from datetime import timedelta
from uuid import UUID

from prefect.client.schemas.filters import FlowFilter
from prefect.events.actions import ActionTypes, DoNothing, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture

PREFIX = "bids-push: "  # how the names of ours begin
FLOWS = ["push-bids", "cleanup-staging"]
OURS = FlowFilter.model_validate({"name": {"any_": FLOWS}})
NIGHTLY = "nightly"  # the tag of deployments that run unattended

GATE_OPEN = timedelta(days=1)  # how long nobody has decided at a gate
TOGETHER = timedelta(minutes=5)  # what a run does after it failed (another name for its state) is no second alert

#: Earlier versions made these to name the states of runs. They missed events, so `deployments.watch` does it now.
GONE = [f"{PREFIX}{name}" for name in ("zombie run", "gate timed out", "gate cancelled")]

BODY = """{{ flow_run.name }} is {{ flow_run.state.name }}: {{ flow_run.state.message }}
{{ flow_run | ui_url }}"""

Match = dict[str, str | list[str]]
OF_OURS: Match = {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)}
OF_A_NIGHTLY: Match = {"prefect.resource.role": "tag", "prefect.resource.id": f"prefect.tag.{NIGHTLY}"}
ANY_RUN: Match = {"prefect.resource.id": "prefect.flow-run.*"}


def automations(notify: UUID | None) -> list[AutomationCore]:
    """Return all automations.

    Args:
        notify: the notification block that alerts go to; None for the event feed alone.
    """

    def alert(subject: str) -> ActionTypes:
        if notify is None:
            return DoNothing()
        return SendNotification(block_document_id=notify, subject=f"{PREFIX}{subject}", body=BODY)

    return [
        gate_open(alert("a gate is waiting for a decision")),
        nightly_failed(alert("a nightly has failed")),
        nightly_late(alert("a nightly has not started")),
    ]


def gate_open(action: ActionTypes, within: timedelta = GATE_OPEN, match: Match = ANY_RUN) -> AutomationCore:
    """Return the automation for a gate at which nobody has decided for a day.

    A run that leaves its gate always passes one of these states first.
    """
    left = ["Resuming", "Scheduled", "Pending", "Running", "AwaitingConcurrencySlot", "AwaitingRetry",
            "Superseded", "Cancelling", "Cancelled", "GateCancelled", "Failed", "GateTimedOut", "Crashed",
            "Completed"]  # fmt: skip
    return automation(
        "gate open for a day",
        "Nobody has decided at a gate for a day. Nothing is deleted until somebody does.",
        silence(after="Suspended", until=left, within=within, match=match),
        action,
    )


def nightly_failed(action: ActionTypes) -> AutomationCore:
    """Return the automation for a nightly that ended Failed or Crashed, whatever its state is named."""
    return automation(
        "nightly failed",
        "A nightly ended Failed or Crashed. Its state's message says what to do.",
        event("*", {"prefect.state-type": ["FAILED", "CRASHED"]}, [OF_OURS, OF_A_NIGHTLY], within=TOGETHER),
        action,
    )


def nightly_late(action: ActionTypes) -> AutomationCore:
    """Return the automation for a nightly that no worker picked up."""
    return automation(
        "nightly late",
        "No worker picked a nightly up. Is one running, for the work pool bids-push?",
        event("Late", related=[OF_OURS, OF_A_NIGHTLY], within=TOGETHER),
        action,
    )


def automation(name: str, description: str, trigger: EventTrigger, action: ActionTypes) -> AutomationCore:
    """Return an automation of ours."""
    return AutomationCore(name=f"{PREFIX}{name}", description=description, trigger=trigger, actions=[action])


def event(
    name: str, match: Match | None = None, related: Sequence[Match] = (OF_OURS,), within: timedelta = timedelta(0)
) -> EventTrigger:
    """Return a trigger for an event of a run of ours.

    There is one alert for all events `within` this time of each other.
    """
    return EventTrigger(
        expect={f"prefect.flow-run.{name}"},
        match={**ANY_RUN, **(match or {})},
        match_related=list(related),
        for_each={"prefect.resource.id"},
        posture=Posture.Reactive,
        threshold=1,
        within=within,
    )


def silence(after: str, until: Sequence[str], within: timedelta, match: Match) -> EventTrigger:
    """Return a trigger for a run of ours which, after one event, did not have any of the others in time."""
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
