"""The public suites over the local Hub: huggingface_hub's live tests, and the Hub's tests of `datasets`.

`python -m tests.local_hub.suites FOLDER [--suite NAME] [--only EXPRESSION]`. FOLDER has the sources in it, as
`FOLDER/huggingface_hub` and `FOLDER/datasets`, or one of them; they are not in this repository. A suite runs over a new
local Hub with the accounts that it expects, in a process and a home of its own, on the client that is beside its tests
(`src/`), or with `--installed` on the one that bids-push uses, for tests of the same version. Nothing leaves the
machine: whatever asks another host is refused at once.

What may fail stands in suites_expected.txt, a line each: a test, `*` for any text in it, and the reason. It exits 1 if
another test fails, and 2 if there is nothing to run or something is missing to run it with.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.local_hub.running import RunningHub, client_environment

EXPECTED = Path(__file__).with_name("suites_expected.txt")
PLUGIN = Path(__file__).with_name("suite_plugin")
TEST_LIMIT = 120  # seconds for one test: those that upload over and over take some ten
NOBODY = "http://127.0.0.1:9"  # the port "discard", where nobody listens: the proxy of all other hosts


@dataclass(frozen=True)
class Suite:
    """What is run of a project's tests, and how it learns of the Hub."""

    name: str
    files: tuple[str, ...]
    """Those with live tests, in its folder `tests`; those that a version does not have are passed over."""
    partly: tuple[str, ...]
    """Files of which only the tests that use `fixture` are live."""
    fixture: str
    chosen: str
    """pytest's `-m`."""
    module: str
    """The module of its tests that names the Hub and the accounts."""
    needs: tuple[str, ...]
    """Modules that its tests import or that are plugins of pytest; what installs one has the same name with '-'."""
    constants: Callable[[RunningHub], dict[str, str]]
    """What the constants of `module` have to be; makes the accounts."""


def _of_huggingface_hub(hub: RunningHub) -> dict[str, str]:
    return {
        "ENDPOINT_STAGING": hub.endpoint,
        "TOKEN": hub.token("__DUMMY_HUB_USER__", "write", "--org", "valid_org"),
        "OTHER_TOKEN": hub.token("DVUser"),
        "ENTERPRISE_TOKEN": hub.token("EnterpriseAdmin", "write", "--org", "EnterpriseOrgPrivate"),
    }


def _of_datasets(hub: RunningHub) -> dict[str, str]:
    return {"CI_HUB_ENDPOINT": hub.endpoint, "CI_HUB_USER_TOKEN": hub.token("__DUMMY_DATASETS_USER__")}


SUITES = (
    Suite(
        "huggingface_hub",
        (
            "test_auth.py", "test_cli_discussions.py", "test_commit_api.py", "test_commit_scheduler.py",
            "test_copy_files.py", "test_eval_results.py", "test_file_download.py", "test_hf_api.py",
            "test_hf_file_system.py", "test_lfs.py", "test_repocard.py", "test_repocard_data.py",
            "test_snapshot_download.py", "test_upload_pipeline.py", "test_verification.py",
            "test_xet_download.py", "test_xet_progress_reporting.py", "test_xet_upload.py",
        ),
        ("test_cli.py",),
        "repo_factory",
        "not production and not inference",
        "tests.testing_constants",
        ("pytest_mock", "pytest_timeout"),
        _of_huggingface_hub,
    ),
    Suite(
        "datasets",
        ("test_hub.py", "test_upstream_hub.py"),
        ("test_file_utils.py", "test_inspect.py", "test_load.py"),
        "hf_token",
        "",
        "tests.fixtures.hub",
        ("pytest_timeout", "zstandard"),
        _of_datasets,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What became of a suite's tests, by their names; `failed` with what each says."""

    passed: frozenset[str]
    failed: dict[str, str]
    skipped: frozenset[str]
    finished: bool
    """Whether pytest came to its end."""


@dataclass(frozen=True)
class Line:
    """A line of suites_expected.txt."""

    pattern: str
    reason: str

    def names(self, test: str) -> bool:
        """Whether it is this test's."""
        return re.fullmatch(".*".join(map(re.escape, self.pattern.split("*"))), test, re.DOTALL) is not None


def read_expected(path: Path) -> tuple[Line, ...]:
    """The failures that are expected. ValueError for a line without a reason."""
    lines = []
    for number, text in enumerate(path.read_text().splitlines(), 1):
        if not text.strip() or text.startswith("#"):
            continue
        pattern, _, reason = text.partition("  # ")
        if not reason.strip():
            raise ValueError(f"{path.name}, line {number}: a test, two spaces, '# ' and the reason why it may fail")
        lines.append(Line(pattern.strip(), reason.strip()))
    return tuple(lines)


def run(suite: Suite, folder: Path, hub: RunningHub, work: Path, only: str = "", *, installed: bool = False) -> Outcome:
    """Run the live tests of the suite that lies in `folder` over this Hub; `work` is for its home and its log."""
    home, results = work / "home", work / "results.jsonl"
    (work / "tmp").mkdir(parents=True)
    home.mkdir()
    results.touch()
    pointed = {"results": str(results), "module": suite.module, "constants": suite.constants(hub),
               "partly": suite.partly, "fixture": suite.fixture}  # fmt: skip
    beside = () if installed else (folder / "src",)
    path = (PLUGIN, *beside, folder, *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    environment = {
        **client_environment(hub, home / "hf", "", xet=True),
        "HOME": str(home), "TMPDIR": str(work / "tmp"), "PYTHONPATH": os.pathsep.join(map(str, path)),
        "POINTED_AT_LOCAL_HUB": json.dumps(pointed),
        "HTTPS_PROXY": NOBODY, "HTTP_PROXY": NOBODY, "NO_PROXY": "127.0.0.1,localhost",
    }  # fmt: skip
    for name in ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_HUB_DISABLE_IMPLICIT_TOKEN", "HF_HUB_DISABLE_XET"):
        del environment[name]  # the suites set these themselves, test by test
    files = [f"tests/{name}" for name in (*suite.files, *suite.partly) if (folder / "tests" / name).is_file()]
    # pytest-env would set huggingface_hub's staging mode, which takes the endpoint from nowhere but its own code
    command = [
        sys.executable, "-m", "pytest", "-p", "pointed_at_local_hub", "-p", "no:cacheprovider", "-p", "no:env",
        "--continue-on-collection-errors", f"--timeout={TEST_LIMIT}", "-m", suite.chosen, "-k", only, *files,
    ]  # fmt: skip
    with (work / "log").open("w") as log:
        subprocess.run(command, cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False)
    return _read(results)


def _read(results: Path) -> Outcome:
    lines = [json.loads(line) for line in results.read_text().splitlines()]
    said = [line for line in lines if "test" in line]
    failed = {line["test"]: line["says"] for line in reversed(said) if line["outcome"] == "failed"}
    apart = {
        outcome: frozenset(line["test"] for line in said if line["outcome"] == outcome) - set(failed)
        for outcome in ("passed", "skipped")
    }
    return Outcome(apart["passed"], failed, apart["skipped"], any("finished" in line for line in lines))


def judge(suite: str, outcome: Outcome, expected: Iterable[Line]) -> tuple[str, bool]:
    """What is said of a suite, and whether all is as expected."""
    names = {line: [test for test in outcome.failed if line.names(f"{suite}/{test}")] for line in expected}
    known = {test for tests in names.values() for test in tests}
    new = {test: says for test, says in outcome.failed.items() if test not in known}
    mended = [
        line.pattern
        for line, tests in names.items()
        if not tests and any(line.names(f"{suite}/{test}") for test in outcome.passed)
    ]
    counts = f"passed {len(outcome.passed)}, expected {len(known)}, new {len(new)}"
    report = [f"{suite}: {counts}" + (f", skipped {len(outcome.skipped)}" if outcome.skipped else "")]
    report += [f"  new: {suite}/{test}: {says}" for test, says in sorted(new.items())]
    report += [f"  passes now: {pattern}" for pattern in mended]
    ran = bool(outcome.passed or outcome.failed)
    if not outcome.finished or not ran:
        report.append("  pytest did not come to its end" if not outcome.finished else "  no test ran")
    return "\n".join(report), not new and outcome.finished and ran


def missing(suites: Sequence[Suite]) -> list[str]:
    """What these suites need and is not here, by the names under which it is installed."""
    needed = {module for suite in suites for module in suite.needs}
    return sorted(module.replace("_", "-") for module in needed if importlib.util.find_spec(module) is None)


def main(arguments: Sequence[str] | None = None, suites: Sequence[Suite] = SUITES) -> int:
    """Run those of the suites that are there, and say what came of it; the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.local_hub.suites", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("folder", type=Path, help="where the sources huggingface_hub/ and datasets/ are")
    parser.add_argument("--suite", choices=[suite.name for suite in suites], help="this one alone")
    parser.add_argument("--only", default="", metavar="EXPRESSION", help="these tests alone: pytest's -k")
    parser.add_argument(
        "--installed", action="store_true", help="over the installed client, not the one beside the tests"
    )
    parser.add_argument(
        "--expected", type=Path, default=EXPECTED, metavar="FILE", help="the failures that are expected"
    )
    parser.add_argument("--keep", type=Path, metavar="DIR", help="a new folder, in which logs and the Hub's store stay")
    options = parser.parse_args(arguments)
    wanted = [suite for suite in suites if options.suite in (None, suite.name)]
    there = [suite for suite in wanted if (options.folder / suite.name / "tests").is_dir()]
    if not there:
        print(
            f"{options.folder} has none of {', '.join(suite.name for suite in wanted)} in it. For the version that is "
            f"installed: git clone --depth 1 --branch vX.Y.Z https://github.com/huggingface/huggingface_hub, and "
            f"--branch X.Y.Z https://github.com/huggingface/datasets",
            file=sys.stderr,
        )
        return 2
    if lacking := missing(there):
        print(f"These tests need more than bids-push does: .venv/bin/pip install {' '.join(lacking)}", file=sys.stderr)
        return 2
    expected, well = read_expected(options.expected), True
    with tempfile.TemporaryDirectory() as temporary:
        work = (options.keep or Path(temporary)).resolve()
        for suite in there:
            own = work / suite.name
            own.mkdir(parents=True)
            with RunningHub(own / "hub") as hub:
                folder = (options.folder / suite.name).resolve()
                outcome = run(suite, folder, hub, own / "run", options.only, installed=options.installed)
            report, as_expected = judge(suite.name, outcome, expected)
            print(report, flush=True)
            well &= as_expected
    return 0 if well else 1


if __name__ == "__main__":
    raise SystemExit(main())
