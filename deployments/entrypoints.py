"""Where the flows' code is, and how a run finds it again.

In a clone of the repository nothing is installed: a deployment names a file, and its runs work in the clone. From an
installed package a deployment names a module (`flows.push_bids.push_bids`), which its runs import wherever they are.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import yaml  # type: ignore[import-untyped]

CODE = Path(__file__).resolve().parent.parent  # the folder that holds flows, tasks and deployments
IN_A_CLONE = (CODE / "prefect.yaml").is_file()
BIN = ".venv/bin/" if IN_A_CLONE else ""  # where people find Prefect's command
WORKER = "make worker" if IN_A_CLONE else "bids-push worker"  # what starts a worker
STAGING = f"{'make staging ROOT=' if IN_A_CLONE else 'bids-push staging '}/scratch/staging"

#: The pull step of a run that has its code already. Without any, Prefect copies the folder that the worker works in.
STAY = {"prefect.deployments.steps.set_working_directory": {"directory": "."}}


@contextmanager
def deployments_file(name: str) -> Iterator[tuple[Path, str]]:
    """The folder to run Prefect's command line in, and the file of deployments that it is to be given.

    Args:
        name: of the file, relative to the clone.
    """
    if IN_A_CLONE:
        yield CODE, name
        return
    with TemporaryDirectory(prefix="bids-push-") as folder:
        stated = (CODE / "deployments" / Path(name).name).read_text()
        (Path(folder) / "prefect.yaml").write_text(by_module(stated))
        yield Path(folder), "prefect.yaml"


def by_module(stated: str) -> str:
    """A file of deployments whose flows are named as modules, and whose runs need be in no folder."""
    everything = yaml.safe_load(stated)
    for deployment in everything["deployments"]:
        file, _, flow = deployment["entrypoint"].partition(":")
        deployment["entrypoint"] = ".".join([*Path(file).with_suffix("").parts, flow])
    return str(yaml.safe_dump({**everything, "pull": [STAY]}, sort_keys=False))
