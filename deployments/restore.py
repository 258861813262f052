"""`bids-push restore`: the flow `restore_bids` in this process, for those who have no worker and no Prefect server.

Prefect starts a server of its own in this process where PREFECT_API_URL names none, and ends it with the run. Where it
names one, the run is seen in its UI.
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from prefect.settings import (
    PREFECT_API_URL,
    PREFECT_SERVER_ANALYTICS_ENABLED,
    PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS,
    temporary_settings,
)

from deployments.runs import NOT_A_SERVER
from flows.restore_bids import restore_bids

STARTS = 300  # seconds for Prefect's own server to start; its default of 20 is too short for a busy machine
#: Of that server: it tells nobody that it runs, which without internet ends in an error that has nothing to do with us.
OWN_SERVER = {PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS: STARTS, PREFECT_SERVER_ANALYTICS_ENABLED: False}


@dataclass(frozen=True)
class Given:
    """What the command line says."""

    repo: str
    into: Path
    revision: str = "main"
    subjects: tuple[str, ...] = ()
    sessions: tuple[str, ...] = ()
    datatypes: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()


def main(given: Given) -> int:
    """Restore, and print how it ended.

    Returns:
        The exit code: 0 if all of it is restored, else 1.
    """
    lists = [list(values) for values in (given.subjects, given.sessions, given.datatypes, given.paths)]
    try:
        with temporary_settings(OWN_SERVER):
            state = restore_bids(given.repo, str(given.into), given.revision, *lists, return_state=True)
    except (*NOT_A_SERVER, RuntimeError) as error:
        if isinstance(error, RuntimeError) and "Failed to reach API" not in str(error):
            raise
        print(
            f"PREFECT_API_URL: the Prefect server at {PREFECT_API_URL.value()} does not answer ({error}). Correct the "
            "address; or unset it, which needs no server.",
            file=sys.stderr,
        )
        return 1
    good = state.is_completed()
    print(state.message, file=sys.stdout if good else sys.stderr)
    return 0 if good else 1


if __name__ == "__main__":
    from deployments.commands import alone

    alone("restore")
