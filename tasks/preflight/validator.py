"""BIDS validity, by the validator of the BIDS maintainers if it is installed (the extra `validator`).

It does not look for personal data, and its messages quote values. So only the code of an error, the field and the file
are taken from it.
"""

import json
import shutil
import subprocess
import sys
from pathlib import Path

from tasks.values.errors import PushError
from tasks.values.preflight_rules import Findings

COMMAND = "bids-validator-deno"
VALID, ERRORS = 0, 16  # its exit codes; any other is a crash


class ValidatorMissing(PushError):
    """The validator was asked for and is not installed."""


class ValidatorCrashed(PushError):
    """The validator ended without a result."""


def check_validity(source: Path, found: Findings) -> None:
    """Find the errors that the validator names in a dataset. Warnings are not asked for.

    Raises:
        ValidatorMissing: it is not installed.
        ValidatorCrashed: it ended without a result.
    """
    beside = str(Path(sys.executable).parent)  # of this virtual environment, whether it is activated or not
    program = shutil.which(COMMAND, path=beside) or shutil.which(COMMAND)
    if program is None:
        raise ValidatorMissing(
            f"validate_bids is on, and {COMMAND} is not installed on this worker. Install it with `make validator` "
            "(or the extra `validator`), or turn validate_bids off."
        )
    command = [program, "--ignoreWarnings", "--format", "json", str(source.absolute())]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, check=False)
    if done.returncode not in (VALID, ERRORS):
        raise ValidatorCrashed(_crashed(done.returncode))
    try:
        issues = json.loads(done.stdout)["issues"]["issues"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValidatorCrashed(_crashed(done.returncode)) from error
    for issue in issues:
        field = " ".join(str(issue[key]) for key in ("code", "subCode") if issue.get(key))
        found.add("bids-validity", field, str(issue.get("location") or "/").lstrip("/") or "the dataset")
    if done.returncode == ERRORS and not issues:
        raise ValidatorCrashed(_crashed(done.returncode))


def _crashed(code: int) -> str:
    return (
        f"{COMMAND} ended with exit code {code} and without a result, so it is not known whether the dataset is valid. "
        f"Run `{COMMAND} --ignoreWarnings <source>` by hand to see why, or turn validate_bids off."
    )
