"""The automations that watch bids-push on a self-hosted server, as data; `deployments.deploy` makes them.

Prefect names the event of a state change after the state's *name*, and our runs end in states with names of their own
(`CleanedUp`, `ShardsFailed`). So nothing here lists names of final states: what matters is the state's type, and any
event of a run is a sign of life.
"""

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

TO_DECIDE = "To decide after all, run cleanup-staging/manual for the same repo."

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
    return AutomationCore(
        name=f"{PREFIX}gate open for a day",
        description="Nobody has decided at a gate for a day. Nothing is deleted until somebody does.",
        trigger=EventTrigger(
            after={"prefect.flow-run.Suspended"},
            expect={f"prefect.flow-run.{name}" for name in left},
            match=match,
            match_related=OF_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[action],
    )


def nightly_failed(action: ActionTypes) -> AutomationCore:
    """A nightly that ended Failed or Crashed, whatever its state is named."""
    return AutomationCore(
        name=f"{PREFIX}nightly failed",
        description="A nightly ended Failed or Crashed. Its state's message says what to do.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.*"},
            match={**ANY_RUN, "prefect.state-type": ["FAILED", "CRASHED"]},
            match_related=[OF_OURS, OF_A_NIGHTLY],
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=TOGETHER,
        ),
        actions=[action],
    )


def nightly_late(action: ActionTypes) -> AutomationCore:
    """A nightly that no worker picked up."""
    return AutomationCore(
        name=f"{PREFIX}nightly late",
        description="No worker picked a nightly up. Is one running, for the work pool bids-push?",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Late"},
            match=ANY_RUN,
            match_related=[OF_OURS, OF_A_NIGHTLY],
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
            within=TOGETHER,
        ),
        actions=[action],
    )


def zombie(within: timedelta = SILENCE, match: Match = ANY_RUN) -> AutomationCore:
    """A run whose process is gone with its worker: it would be Running, and hold its slot, for ever.

    Any event of the run is a sign of life, so that a run that has ended or waits at its gate, in a state of whatever
    name, is none. The server refuses to crash a run that has ended.
    """
    return AutomationCore(
        name=f"{PREFIX}zombie run",
        description="A run sends no heartbeat: its process, worker or machine is gone. It is marked Crashed.",
        trigger=EventTrigger(
            after={"prefect.flow-run.heartbeat"},
            expect={"prefect.flow-run.*"},
            match=match,
            match_related=OF_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Proactive,
            threshold=1,
            within=within,
        ),
        actions=[
            ChangeFlowRunState(
                state=StateType.CRASHED,
                name="Zombie",
                message="No sign of life: the run's process, its worker or its machine is gone. Nothing is lost and "
                "nothing was deleted unasked. Start the run again: it does only the work that is missing.",
            )
        ],
    )


def gate_timed_out(match: Match = ANY_RUN) -> AutomationCore:
    """A gate that reached its timeout: Prefect fails the run without saying what that means here."""
    return renamed(
        "gate timed out",
        "Names the state of a run whose gate reached its timeout (BIDS_PUSH_GATE_DAYS).",
        EventTrigger(
            expect={"prefect.flow-run.Failed"},
            match={**match, "prefect.state-message": list(NEVER_RESUMED)},
            match_related=OF_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        StateType.FAILED,
        "GateTimedOut",
        "Nobody decided at this gate in time, so it was closed. Nothing was deleted: everything is on the Hub and "
        f"still staged. {TO_DECIDE}",
    )


def gate_cancelled() -> AutomationCore:
    """A gate that a person has cancelled: no process of ours runs then that could say what it means."""
    return renamed(
        "gate cancelled",
        "Names the state of a run that was cancelled at its gate.",
        EventTrigger(  # it fires too where somebody has decided before: the message is true of that as well
            after={"prefect.flow-run.Suspended"},
            expect={"prefect.flow-run.Cancelled"},
            match=ANY_RUN,
            match_related=OF_OURS,
            for_each={"prefect.resource.id"},
            posture=Posture.Reactive,
            threshold=1,
        ),
        StateType.CANCELLED,
        "GateCancelled",
        "This run was cancelled at its gate, or after it. Nothing more is deleted: what is staged stays, and the Hub "
        f"was verified to hold it. {TO_DECIDE}",
    )


def renamed(
    what: str, description: str, trigger: EventTrigger, state: StateType, name: str, message: str
) -> AutomationCore:
    """An automation that gives a state a name and a message of ours, where Prefect's own say nothing."""
    action = ChangeFlowRunState(state=state, name=name, message=message)
    return AutomationCore(name=f"{PREFIX}{what}", description=description, trigger=trigger, actions=[action])
