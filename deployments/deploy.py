"""`bids-push deploy`: everything of bids-push on the Prefect server that PREFECT_API_URL names, in one command.

It makes the work pool if it is missing, the deployments of prefect.yaml, and the automations. It is safe to repeat. A
work pool stays as it is, and so does a schedule that somebody turned on. A deployment's parameters are not replaced by
the examples in prefect.yaml. (Prefect itself replaces all schedules of a deployment at each `prefect deploy`.)
"""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import DeploymentScheduleCreate, DeploymentUpdate
from prefect.client.schemas.filters import FlowFilter, FlowFilterName, WorkPoolFilter, WorkPoolFilterName
from prefect.client.schemas.objects import DeploymentSchedule
from prefect.client.schemas.responses import DeploymentResponse
from prefect.exceptions import PrefectHTTPStatusError
from prefect.settings import PREFECT_API_URL

from deployments.automations import FLOWS, GONE, automations
from deployments.entrypoints import BIN, WORKER, deployments_file
from deployments.runs import NOT_A_SERVER

POOL = "bids-push"
NOTIFY = "bids-push-alerts"  # the name of the notification block that alerts go to
ADDRESS = "Start one (prefect server start), or correct the address: http://<host>:4200/api"
DEMO = "push-bids/demo"
EXAMPLE = "/data/my-dataset"  # the source in prefect.yaml until somebody fills in their own


class DeployError(Exception):
    """Something could not be deployed. The message says what to do."""


def main() -> int:
    """Deploy to the server that PREFECT_API_URL names, and print what is there then or what is wrong.

    Returns:
        The exit code: 0 if everything was deployed, else 1.
    """
    try:
        deploy()
    except DeployError as error:
        print(f"Not deployed: {error}", file=sys.stderr)
        return 1
    return 0


def deploy() -> None:
    """Deploy to the server that PREFECT_API_URL names, and print what is there then.

    Raises:
        DeployError: no server is named, it cannot be used, or Prefect's command line refuses something.
    """
    url = PREFECT_API_URL.value()
    if not url:
        raise DeployError(
            f"no Prefect server is named. Start one ({BIN}prefect server start), and say where it is: "
            f"{BIN}prefect config set PREFECT_API_URL=http://<host>:4200/api"
        )
    with of_a_server(url), get_client(sync_client=True) as client:
        unreachable = client.api_healthcheck()
        if unreachable is not None:
            raise DeployError(
                f"PREFECT_API_URL: the Prefect server at {url} does not answer ({unreachable}). {ADDRESS}"
            )
        log_in(client, url)
        made = make_pool(client)
        before = read_deployments(client)
        with deployments_file("prefect.yaml") as (folder, file):
            prefect("--no-prompt", "deploy", "--all", "--prefect-file", file, folder=folder)
        deployed, kept = keep_what_people_set(client, before)
        kept += ask_instead_of_deleting(client)
        notify = notification_block(client)
        names = make_automations(client, notify)
        removed = remove_automations(client)
    print(f"Deployed to {url}:")
    print(f"  work pool    {POOL}{'' if made else ' (as it was)'}")
    print(f"  deployments  {', '.join(deployed)}")
    for line in kept:
        print(f"               {line}")
    for line in left_over(deployed):
        print(f"               {line}")
    print(f"  automations  {', '.join(names)}")
    if removed:
        print(f"               Removed, since a worker watches over what they named: {', '.join(removed)}")
    if notify is None:
        print("               Alerts show in the event feed only. To be told, make a notification block (Slack,")
        print(f"               e-mail, ...) named {NOTIFY} in the UI under Blocks, and deploy again.")
    print(f"Runs are worked on where a worker is: {WORKER}")


def log_in(client: SyncPrefectClient, url: str) -> None:
    """Check that the server takes this environment's login. Its health can be asked without one.

    Raises:
        DeployError: it asks for another login.
    """
    try:
        client.read_work_pools(limit=1)
    except PrefectHTTPStatusError as error:
        if error.response.status_code != HTTPStatus.UNAUTHORIZED:
            raise
        raise DeployError(
            f"the Prefect server at {url} asks for another login. Set PREFECT_API_AUTH_STRING to name:password, as the "
            "server has it in PREFECT_SERVER_API_AUTH_STRING."
        ) from error


@contextmanager
def of_a_server(url: str) -> Iterator[None]:
    """Turn the client's error into one for people, if the address is none or no Prefect server answers there.

    Raises:
        DeployError: it is so.
    """
    try:
        yield
    except NOT_A_SERVER as error:
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise DeployError(
            f"PREFECT_API_URL: the Prefect server at {url} does not answer as one ({first}). {ADDRESS}"
        ) from error


def prefect(*command: str, folder: Path | None = None) -> None:
    """Run a command of Prefect's command line.

    Args:
        command: the command and its arguments.
        folder: the folder in which it runs; None for that of this process.

    Raises:
        DeployError: the command failed.
    """
    done = subprocess.run(
        [sys.executable, "-m", "prefect", *command],
        cwd=folder,
        env=os.environ | {"PREFECT_API_URL": PREFECT_API_URL.value() or ""},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise DeployError(f"prefect {' '.join(command)} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")


def make_pool(client: SyncPrefectClient) -> bool:
    """Make the work pool if it is missing, and return whether it was.

    An existing one is the operator's, of whatever type.
    """
    named = WorkPoolFilter(name=WorkPoolFilterName(any_=[POOL]))
    if client.read_work_pools(work_pool_filter=named):
        return False
    prefect("work-pool", "create", POOL, "--type", "process")
    return True


def read_deployments(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """Return our deployments on the server, by `flow/deployment`."""
    ours = FlowFilter(name=FlowFilterName(any_=[*FLOWS, "restore-bids"]))
    flows = {flow.id: flow.name for flow in client.read_flows(flow_filter=ours)}
    return {f"{flows[found.flow_id]}/{found.name}": found for found in client.read_deployments(flow_filter=ours)}


def keep_what_people_set(
    client: SyncPrefectClient, before: dict[str, DeploymentResponse]
) -> tuple[list[str], list[str]]:
    """Put back what a person set in the UI and Prefect has just replaced.

    Returns:
        The names of all deployments, and sentences about what was put back.
    """
    kept = []
    after = read_deployments(client)
    for name in sorted(before.keys() & after.keys()):
        old, new = before[name], after[name]
        on = [schedule for schedule in old.schedules if schedule.active]
        if on and not any(schedule.active for schedule in new.schedules):
            put_back(client, new, on)
            kept.append(f"{name}: its schedule stays on, as it was set")
        if new.parameters.get("source") == EXAMPLE and old.parameters.get("source") not in (None, EXAMPLE):
            asked_for_since = {name: value for name, value in new.parameters.items() if name == "defacing"}
            client.update_deployment(new.id, DeploymentUpdate(parameters=asked_for_since | old.parameters))
            kept.append(f"{name}: its parameters stay as they are")
    return sorted(after), kept


def ask_instead_of_deleting(client: SyncPrefectClient) -> list[str]:
    """Rewrite `removed: delete` of earlier versions, which removed without asking, and return what to say about it."""
    said = []
    for name, found in sorted(read_deployments(client).items()):
        if found.parameters.get("removed") == "delete":
            client.update_deployment(found.id, DeploymentUpdate(parameters=found.parameters | {"removed": "ask"}))
            said.append(f"{name}: removed=delete of earlier versions is removed=ask now: a person decides at the gate")
    return said


def put_back(client: SyncPrefectClient, deployment: DeploymentResponse, on: Sequence[DeploymentSchedule]) -> None:
    """Give a deployment the schedules that were on, in place of those of prefect.yaml, which are off."""
    fields = ("schedule", "active", "max_scheduled_runs", "parameters", "slug")
    theirs = [DeploymentScheduleCreate(**{name: getattr(schedule, name) for name in fields}) for schedule in on]
    for schedule in deployment.schedules:
        client.delete_deployment_schedule(deployment.id, schedule.id)
    client.create_deployment_schedules(deployment.id, theirs)


def notification_block(client: SyncPrefectClient) -> UUID | None:
    """Return the id of the notification block that alerts go to, of whatever type, or None if there is none."""
    for document in client.read_block_documents(include_secrets=False):
        if document.name == NOTIFY:
            return document.id
    return None


def make_automations(client: SyncPrefectClient, notify: UUID | None) -> list[str]:
    """Make the automations, or bring those of the same name up to date. One that was turned off stays off.

    Returns:
        Their names.
    """
    names = []
    for automation in automations(notify):
        found = client.read_automations_by_name(automation.name)
        if found:
            automation.enabled = found[0].enabled
            client.update_automation(found[0].id, automation)
        else:
            client.create_automation(automation)
        names.append(automation.name)
    return names


def remove_automations(client: SyncPrefectClient) -> list[str]:
    """Remove the automations that earlier versions made and that are no longer used.

    Returns:
        The names of those that were there.
    """
    found = [automation for name in GONE for automation in client.read_automations_by_name(name)]
    for automation in found:
        client.delete_automation(automation.id)
    return [automation.name for automation in found]


def left_over(deployed: Sequence[str]) -> list[str]:
    """Return what to say about a deployment that earlier versions made.

    It stays, as a run at its gate may still need it.
    """
    remove = f"{DEMO} is `make demo`'s alone now; to remove it: prefect deployment delete {DEMO}"
    return [remove] if DEMO in deployed else []


if __name__ == "__main__":
    from deployments.commands import alone

    alone("deploy")
