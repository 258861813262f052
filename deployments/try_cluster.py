"""`bids-push cluster`: are the machines of the cluster set up for a push? Nothing is pushed, and nothing is written.

It makes or reaches the cluster of this environment's settings, waits for machines, and asks each process what it would
have at hand in a run: versions, the Hub, a token, the Prefect server, and the folders.
"""

import logging
import os
import sys
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as version_of
from pathlib import Path
from typing import Any

import httpx
from huggingface_hub import constants, get_token
from prefect.settings import PREFECT_API_URL

from flows.cluster import cluster
from flows.part import this_machine
from tasks.disk.paths import resolved, staging_root_of
from tasks.values.errors import PushError
from tasks.values.settings import Settings
from tasks.values.version import version

LIBRARIES = ("prefect", "huggingface_hub", "hf-xet", "distributed", "pyarrow")  # whose values travel, or write shards


def main(source: Path | None, machines: int, seconds: float) -> int:
    """Ask the machines, and print what each of them answers.

    Args:
        source: a dataset's folder, which each has to see.
        machines: how many processes to wait for.
        seconds: how long to wait for them.

    Returns:
        The exit code: 0 if all that came are set up for a push, else 1.
    """
    try:
        return _ask(source, machines, seconds)
    except PushError as error:
        print(error, file=sys.stderr)
        return 1


def _ask(source: Path | None, machines: int, seconds: float) -> int:
    settings = Settings()
    if not settings.cluster:
        print("BIDS_PUSH_CLUSTER is not set: a push stages and sends by threads of this machine. See docs/cluster.md.")
        return 1
    staging_root = resolved(staging_root_of(""))
    os.environ["DASK_LOGGING__DISTRIBUTED"] = (
        "critical"  # what matters is said below; Dask reads this as it is imported
    )
    for name in ("dask_jobqueue", "tornado", "prefect.task_runner"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    log = logging.getLogger("bids_push.cluster")
    log.handlers = [logging.StreamHandler(sys.stdout)]
    log.setLevel(logging.INFO)
    log.propagate = False
    with cluster(log=log, at_least=machines) as made:
        assert made is not None
        print(f"Waiting up to {seconds:.0f} s for {machines} of {settings.cluster} ...", flush=True)
        came = made.wait_for(machines, seconds)
        here = look(None, staging_root)
        answers = made.ask(look, source, staging_root) if came else {}
        refused = made.jobs.given_up or made.jobs.refused
    bad = machines - came
    for name, answer in sorted(answers.items()):
        died = f"it died as it was asked ({answer}). Most often that is memory: its log{_logs(settings)} says so"
        wrong = [died] if isinstance(answer, Exception) else problems(here, answer)
        bad += bool(wrong)
        host = name if isinstance(answer, Exception) else f"{answer['host']} ({name})"
        print(
            "\n".join([f"{host}: {'not as it has to be' if wrong else 'as it has to be'}", *(f"  {w}" for w in wrong)])
        )
    if came < machines:
        why = f"The cluster refuses jobs: {refused}." if refused else "Look at its queue."
        print(f"{came} of {machines} processes came. {why} A job that ended says why in its log{_logs(settings)}.")
    if bad:
        print("Not all of it can work for a push as it is. See docs/cluster.md.")
    return 1 if bad else 0


def _logs(settings: Settings) -> str:
    folder = settings.cluster_arguments.get("log_directory")
    return f", in {folder}" if folder else ""


def look(source: Path | None, staging_root: Path, server: str = "") -> dict[str, Any]:
    """Return what this process would have at hand in a run."""
    return {
        "host": this_machine(),
        "versions": {"Python": sys.version.split()[0], "bids-push": version(), **_versions()},
        "Hub": constants.ENDPOINT.rstrip("/"),
        "token": bool(get_token()),
        "server": _server(server or PREFECT_API_URL.value() or ""),
        "folders": _folders(source, staging_root),
    }


def problems(here: dict[str, Any], there: dict[str, Any]) -> list[str]:
    """Return in sentences what a machine lacks, or has otherwise than this one."""
    found = [
        f"{name} {there['versions'].get(name)}, and {ours} here: install the same on both"
        for name, ours in here["versions"].items()
        if there["versions"].get(name) != ours
    ]
    if here["Hub"] != there["Hub"]:
        found.append(
            f"it speaks to the Hub at {there['Hub']}, and this machine to {here['Hub']}: set HF_ENDPOINT alike"
        )
    if not there["token"]:
        found.append("it has no token of the Hub: set HF_TOKEN there, or give token_block in each run")
    return [*found, *filter(None, (there["server"], *there["folders"]))]


def _versions() -> dict[str, str]:
    found = {}
    for name in LIBRARIES:
        try:
            found[name] = version_of(name)
        except PackageNotFoundError:
            found[name] = "is not installed"
    return found


def _server(address: str) -> str:
    """Return what is wrong with the Prefect server's address; "" if nothing is."""
    if not address:
        return "it knows no Prefect server: set PREFECT_API_URL there"
    try:
        httpx.get(f"{address.rstrip('/')}/health", timeout=10.0).raise_for_status()
    except httpx.HTTPError as error:
        return f"the Prefect server at {address} does not answer it ({type(error).__name__}: {error})"
    return ""


def _folders(source: Path | None, staging_root: Path) -> list[str]:
    """Return what is wrong with the folders, in sentences."""
    found = []
    if source and not os.access(source, os.R_OK | os.X_OK):
        found.append(f"it cannot read the dataset at {source}: it has to be there at the same path")
    if not os.access(staging_root, os.R_OK | os.W_OK | os.X_OK):
        found.append(
            f"it cannot write to the staging root {staging_root}: make that folder, on storage that all machines have "
            "at one path"
        )
    return found
