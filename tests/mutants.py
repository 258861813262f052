"""Do the tests guard? `make mutants` changes one place of a module at a time, and sees whether a test notices.

How it works: mutmut makes the mutants (`==` for `!=`, `and` for `or`, an argument left out, another text or number) and
runs the tests that reach the changed function, the quickest first, until one fails. Each module has the tests that are
there to guard it (`GUARDS`), and no others count. All of it happens in a copy of the repository in a temporary
folder. A mutant that no test notices has to be explained in `tests/mutants_explained.txt`, with the reason why it does
not matter; an explanation of a mutant that is noticed by now is told of.

A module's tests of the fast lane come first, with a Hub within their own process where they ask one: a second or two a
mutant. Where a module has others too (`servers`), what has survived by then, and no more, is tried on all of its tests,
with a Hub and a Prefect server.

It prints one line a module (killed, timed out, survived, explained), then what survived, as diffs, and exits 1 if
anything did. mutmut leaves decorated functions alone (tasks, context managers, properties).

These servers are started once a module and used by the tests of all its mutants (`TEST_STACK`, see tests/conftest.py),
and the tests' dataset is made once. mutmut forks for each mutant, and no connection or thread survives that: so it
forks from a process that has imported the tests, and Prefect's server, and run none.

    python -m tests.mutants cleanup staging      # these modules; all of them by default
    python -m tests.mutants verify:ReadBack      # of a module what has this in its name: a function, or a class
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from deployments.local_stack import Stack
from tests.lanes import FAST, SERVED

REPO = Path(__file__).resolve().parent.parent
EXPLAINED = REPO / "tests" / "mutants_explained.txt"


@dataclass(frozen=True)
class Guards:
    """The tests that guard a module."""

    tests: Sequence[str]
    chosen: str = ""
    """Which of them, as pytest's -k; all by default."""
    servers: bool = False
    """Whether some of them need a Hub and a Prefect server. They are tried on what the others leave alive."""

    @property
    def fast(self) -> list[str]:
        """The files in which there are tests of the fast lane."""
        return [file for file in self.tests if Path(file).name not in SERVED]


#: Tests of the rounds over many nights or shards: a mutant would have them search for its smallest case.
LONG_ROUNDS = ("whatever_comes_goes", "without_reading_everything", "hundred_thousand")
#: Of what removes content from the local Hub.
GARBAGE = Guards(["tests/local_hub/test_garbage.py", "tests/local_hub/test_rewrite.py"])
GUARDS = {
    "cleanup": Guards(["tests/test_cleanup.py"], "not real_hub"),
    "staging": Guards(["tests/test_staging.py"]),
    "untrusted": Guards(["tests/test_staging.py", "tests/test_cleanup.py"], "not real_hub"),
    "retries": Guards(["tests/test_retries.py"]),
    "published": Guards(["tests/test_published.py"]),
    "removals": Guards(["tests/test_removals.py"]),
    "remove": Guards(["tests/test_remove.py", "tests/test_record_files.py"], servers=True),
    "record_files": Guards(["tests/test_record_files.py"], "not on_a_hub"),
    "ask_shards": Guards(["tests/test_ask_shards.py"]),
    "kept_removals": Guards(["tests/test_removals.py"]),
    "removed_before": Guards(["tests/test_removed_before.py"]),
    "evidence": Guards(["tests/test_evidence.py"]),
    "approve": Guards(["tests/test_approve.py"]),
    "lease": Guards(["tests/test_lease.py", "tests/test_busy_server.py"]),
    "verify": Guards(["tests/test_verify_listing.py", "tests/test_read_back.py", "tests/test_verify.py"], servers=True),
    "batch": Guards(["tests/test_commit.py", "tests/test_fencing.py"]),
    "commit": Guards(
        ["tests/test_commit.py", "tests/test_gate_texts.py", "tests/test_fencing.py", "tests/test_folders.py"]
    ),
    "to_commit": Guards(["tests/test_to_commit.py"]),
    "budget": Guards(["tests/test_budget.py", "tests/test_retries.py"]),
    "other_files": Guards(["tests/test_commit.py"]),
    "failed_shards": Guards(["tests/test_failed_shards.py"]),
    "sample_rounds": Guards(["tests/test_sample_rounds.py"], f"not ({' or '.join(LONG_ROUNDS)})"),
    "accepted": Guards(["tests/test_accepted.py"]),
    "newest_head": Guards(["tests/test_newest_head.py"]),
    "removal": Guards(["tests/test_decided.py", "tests/test_removing.py"]),
    "local_hub.garbage.needed": GARBAGE,
    "local_hub.garbage.plan": GARBAGE,
    "local_hub.garbage.remove": GARBAGE,
    "local_hub.garbage.summary": GARBAGE,
    "local_hub.rewrite": Guards(["tests/local_hub/test_rewrite.py"]),
}
LIMIT = 30.0  # seconds for a mutant's tests, added to five times what they take without it
#: pytest's options that spare each mutant half a second of a processor: it looks for no plugins, keeps no cache, and
#: does not go through all of the memory that a fork has taken over, to find what nobody has closed.
BARE = ("--disable-plugin-autoload", "-p", "timeout", "-p", "hypothesispytest", "-p", "no:unraisableexception",
        "-p", "no:cacheprovider")  # fmt: skip
COPIED = ("docs", "soak", "benchmarks", "requirements")
#: What stands in place of a mutant's status, by mutmut's word.
STATUS = {"killed": "killed", "timeout": "timed out", "survived": "survived", "no tests": "survived"}


@dataclass
class Score:
    """What became of the mutants of a module."""

    module: str
    counts: Counter[str] = field(default_factory=Counter)
    survivors: list[str] = field(default_factory=list)
    """As diffs."""
    used: set[str] = field(default_factory=set)
    """The explanations that were needed."""
    whole: bool = True
    """Whether all mutants of the module were tried."""

    def __str__(self) -> str:
        named = ", ".join(f"{self.counts[what]} {what}" for what in ("killed", "timed out", "explained", "survived"))
        odd = {what: count for what, count in self.counts.items() if what not in (*STATUS.values(), "explained")}
        return f"{self.module}: {sum(self.counts.values())} mutants: {named}{f', {odd}' if odd else ''}"


def main() -> int:
    """Test the modules that are named; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("modules", nargs="*", metavar="module", help=f"of {', '.join(GUARDS)}; all by default")
    asked = [(module, part) for one in parser.parse_args().modules for module, _, part in [one.partition(":")]]
    asked = asked or [(module, "") for module in GUARDS]
    if unknown := {module for module, _ in asked} - set(GUARDS):
        parser.error(f"no tests are named for {', '.join(sorted(unknown))}")
    explained = explanations(EXPLAINED.read_text())
    scores = []
    for module, part in asked:
        with tempfile.TemporaryDirectory(prefix="bids-push-mutants-") as folder:
            scores.append(tested(module, Path(folder), explained, part))
        print(scores[-1], flush=True)
    for score in scores:
        for diff in score.survivors:
            print(f"\nsurvived in {score.module}:\n{diff}")
        for change in sorted(explained.get(score.module, {}).keys() - score.used) if score.whole else ():
            print(f"\nexplained for {score.module}, and no mutant that survives:\n{change}")
    return 1 if any(score.survivors for score in scores) else 0


def tested(module: str, folder: Path, explained: dict[str, dict[str, str]], part: str = "") -> Score:
    """Make and test the mutants of one module, or of a part, in a copy of the repository in `folder`."""
    copy(folder)
    score = Score(module, whole=not part)
    for name, status in found(module, folder, part).items():
        if STATUS.get(status) != "survived":
            score.counts[STATUS.get(status, status)] += 1
            continue
        diff = mutmut(folder, "show", name)
        change = "\n".join(changed(diff))
        known = change in explained.get(module, {})
        score.counts["explained" if known else "survived"] += 1
        score.used |= {change} if known else set()
        score.survivors += [] if known else [diff.strip()]
    if not score.counts or score.counts["not checked"]:
        raise SystemExit(f"mutmut made no mutants of {module}, or its tests fail without any: see above.")
    return score


def found(module: str, folder: Path, part: str) -> dict[str, str]:
    """What became of each mutant: by the tests of the fast lane, and by all of them where these left it alive."""
    guards, status = GUARDS[module], {}
    if guards.fast:
        with kept_folder() as kept:
            names = [f"*{part}*"] if part else []
            status = run(module, folder, config(module, guards.fast, "-m", FAST), {"folder": kept}, *names)
        status = {name: what for name, what in status.items() if part in name}
        if not status:
            return {}
    alive = [name for name, what in status.items() if STATUS.get(what) == "survived"]
    if guards.servers and (alive or not status):
        with stack() as there:
            again = run(module, folder, config(module, guards.tests), there, *alive)
        status |= {name: what for name, what in again.items() if name in alive or not alive}
    return status


def run(module: str, folder: Path, settings: str, there: dict[str, Any], *names: str) -> dict[str, str]:
    """Test a module's mutants, or those with these names; what became of all, by name.

    Args:
        module: the module.
        folder: the copy of the repository.
        settings: mutmut's.
        there: what stands ready for the tests, see tests/conftest.py.
        names: of the mutants, or patterns of them; all by default.
    """
    (folder / "setup.cfg").write_text(settings)
    command = [sys.executable, "-m", "mutmut", "run", "--max-children", "1", *names]
    environment = os.environ | {"TEST_STACK": json.dumps(there)}
    done = subprocess.run(command, cwd=folder, check=False, stdout=sys.stderr, env=environment)
    if done.returncode:
        print(f"mutmut ended with exit code {done.returncode} on {module}", file=sys.stderr)
    return dict(statuses(folder, module)) if done.returncode == 0 else {}


@contextmanager
def kept_folder() -> Iterator[str]:
    """A folder in which the tests of many mutants keep what they share."""
    with tempfile.TemporaryDirectory(prefix="bids-push-mutants-stack-") as folder:
        yield folder


@contextmanager
def stack() -> Iterator[dict[str, Any]]:
    """A Hub and a Prefect server that run while the block does, as tests/conftest.py has to know of them."""
    with kept_folder() as folder:
        running = Stack(Path(folder))
        try:
            running.start_hub()
            running.token = running.make_token("lab")
            running.start_prefect()
            yield {name: getattr(running, name) for name in ("hub_port", "prefect_port", "token")} | {"folder": folder}
        finally:
            running.stop()


def copy(folder: Path) -> None:
    """The files of the repository as they are now, without what git ignores."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "-z"], cwd=REPO, check=True,
                            capture_output=True).stdout.decode()  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (REPO / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes((REPO / name).read_bytes())


def config(module: str, tests: Sequence[str], *more: str) -> str:
    """mutmut's settings for a module, tested by these files; pytest has these options more."""
    chosen = GUARDS[module].chosen
    options = ["-q", "-x", *BARE, *(["-k", chosen] if chosen else []), *more]
    lists = {"source_paths": ["tasks", "flows", "deployments"], "also_copy": COPIED, "pytest_add_cli_args": options,
             "pytest_add_cli_args_test_selection": tests}  # fmt: skip
    lines = [f"{name} =\n" + "".join(f"    {value}\n" for value in values) for name, values in lists.items()]
    return (
        f"[mutmut]\nonly_mutate = {file_of(module)}\ntimeout_constant = {LIMIT}\ntimeout_multiplier = 5\n"
        "use_git_change_detection = false\nprocess_isolation = forkserver\n"
        f"{''.join(lines)}"
    )


def file_of(module: str) -> str:
    """Where a module is, whichever room it is in; of a package, the file that it begins with.

    A name with dots is that of a module of `deployments`.
    """
    if "." in module:
        return f"deployments/{module.replace('.', '/')}.py"
    names, rooms = (f"{module}.py", f"{module}/__init__.py"), (REPO / "tasks", REPO / "flows")
    (found,) = (one for name in names for room in rooms for one in room.rglob(name))
    return found.relative_to(REPO).as_posix()


def statuses(folder: Path, module: str) -> Iterator[tuple[str, str]]:
    """Each mutant's name, and what became of it."""
    dotted = file_of(module).removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    for line in mutmut(folder, "results", "--all", "true").splitlines():
        name, _, status = line.strip().rpartition(": ")
        if name.startswith(f"{dotted}."):
            yield name, status


def mutmut(folder: Path, *arguments: str) -> str:
    """What a command of mutmut prints."""
    done = subprocess.run([sys.executable, "-m", "mutmut", *arguments], cwd=folder, capture_output=True, text=True)
    return done.stdout


def changed(diff: str) -> list[str]:
    """The lines that a diff takes away and adds, without their indentation."""
    return [f"{line[0]} {line[1:].strip()}" for line in diff.splitlines() if re.match(r"[-+](?![-+]{2} )", line)]


def explanations(text: str) -> dict[str, dict[str, str]]:
    """The mutants that need not be noticed, by module: their changed lines, and the reason.

    A paragraph of the file is one mutant: `module: reason`, then the lines of its diff.
    """
    found: dict[str, dict[str, str]] = {}
    for paragraph in re.split(r"\n\s*\n", text.strip()):
        head, _, lines = paragraph.partition("\n")
        module, separator, reason = head.partition(": ")
        if head.startswith("#"):
            continue
        if module not in GUARDS or not separator or not lines.startswith("- "):
            raise SystemExit(
                f"{EXPLAINED}: a paragraph is `module: reason` and a diff's lines, and this is not: {head}"
            )
        found.setdefault(module, {})[lines.strip()] = reason
    return found


if __name__ == "__main__":
    raise SystemExit(main())
