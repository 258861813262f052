"""The systemd units run what compose.yaml runs, with the same settings, and systemd knows each word in them.

`systemd-analyze verify` checks them where there is a systemd; what they run is tried in test_compose.
"""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml  # type: ignore[import-untyped]

from tests.deployed.composed import DEPLOYMENTS

UNITS = sorted((DEPLOYMENTS / "systemd").glob("*.service"))
TIMERS = sorted((DEPLOYMENTS / "systemd").glob("*.timer"))
HERE = "/srv/bids-push/.venv/bin/"
ONLY_IN_A_CONTAINER = {"HF_ENDPOINT"}  # the client's own, unless worker.env says otherwise


def values(file: Path, key: str) -> list[str]:
    """Each value of a key that a unit may give more than once."""
    return [line.removeprefix(f"{key}=") for line in file.read_text().splitlines() if line.startswith(f"{key}=")]


def command(file: Path) -> list[str]:
    (line,) = values(file, "ExecStart")
    assert line.startswith(HERE)
    return shlex.split(line.removeprefix(HERE))


def environment(file: Path) -> dict[str, str]:
    """A unit's environment, its files as their examples have them."""
    words = [word for line in values(file, "Environment") for word in line.split()]
    for path in values(file, "EnvironmentFile"):
        example = DEPLOYMENTS / "systemd" / f"{Path(path).name}.example"
        words += [line for line in example.read_text().splitlines() if line and not line.startswith("#")]
    return dict(word.split("=", 1) for word in words)


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_a_unit_runs_what_compose_runs_with_the_same_settings(file: Path) -> None:
    name = file.stem.removeprefix("bids-push-")
    service = yaml.safe_load((DEPLOYMENTS / "compose.yaml").read_text())["services"][name]
    # the Hub listens on the loopback: of the machine, and in the container on all that leads to that
    assert [*command(file), *(["--host", "0.0.0.0"] if name == "hub" else [])] == service["command"]
    ours = environment(file)
    theirs = service.get("environment", {})
    settings = {name for name in theirs if name not in ONLY_IN_A_CONTAINER}
    assert settings == ours.keys() - {"HOME", "PREFECT_HOME"}
    stated = {name: value for name, value in theirs.items() if "${" not in value}
    for name in stated.keys() - {"PREFECT_SERVER_DATABASE_HOST", "PREFECT_API_URL"}:
        if not stated[name].startswith("/"):
            assert ours[name] == stated[name], name


@pytest.mark.parametrize("file", UNITS, ids=lambda file: file.stem)
def test_systemd_knows_each_word_of_a_unit(file: Path, tmp_path: Path) -> None:
    unit = tmp_path / file.name
    unit.write_text(file.read_text().replace(HERE, f"{Path(sys.executable).parent}/"))
    if shutil.which("systemd-analyze"):
        said = subprocess.run(["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False)
        assert (said.returncode, said.stderr) == (0, "")
    assert len(UNITS) == 7


@pytest.mark.parametrize("file", TIMERS, ids=lambda file: file.stem)
def test_a_timer_starts_a_unit_that_ends_by_itself_and_catches_up_after_a_night_off(file: Path) -> None:
    unit = file.with_suffix(".service")
    assert values(unit, "Type") == ["oneshot"] and values(unit, "Restart") == []
    assert values(file, "Persistent") == ["true"] and len(values(file, "OnCalendar")) == 1
    if shutil.which("systemd-analyze"):
        calendar = ["systemd-analyze", "calendar", *values(file, "OnCalendar")]
        assert subprocess.run(calendar, capture_output=True, check=False).returncode == 0
    assert len(TIMERS) == 3


def test_a_unit_of_the_hub_may_write_to_the_folders_that_it_names_and_to_no_other() -> None:
    for file in UNITS:
        if "hub" in file.stem:
            folders = {word for word in command(file) if word.startswith("/srv/")}
            assert {path for line in values(file, "ReadWritePaths") for path in line.split()} == folders
            assert values(file, "ProtectSystem") == ["strict"] and values(file, "UMask") == ["0077"]


def test_no_secret_stands_in_what_is_in_git() -> None:
    secret = ("PASSWORD", "LOGIN", "AUTH_STRING", "TOKEN")
    examples = [*DEPLOYMENTS.glob("*.example"), *(DEPLOYMENTS / "systemd").glob("*.example")]
    lines = [line for example in examples for line in example.read_text().splitlines() if not line.startswith("#")]
    named = [line for line in lines if any(word in line.split("=")[0] for word in secret)]
    assert len(named) == 7 and all(line.endswith("=") for line in named), named
