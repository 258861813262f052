"""A version's tag, by `.ci/tag`: which commit gets it, and when none does."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

TAG = Path(__file__).resolve().parent.parent / ".ci" / "tag"
#: Without the settings of whoever runs the test.
SOMEBODY = {"GIT_CONFIG_GLOBAL": os.devnull} | {
    f"GIT_{role}_{what}": f"{what.lower()}@example.org"
    for role in ("AUTHOR", "COMMITTER")
    for what in ("NAME", "EMAIL")
}


class Project:
    """A git repository with a version and a changelog."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.git("init", "--quiet", "--initial-branch", "main")

    def run(self, *command: str | Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(command, cwd=self.folder, env=os.environ | SOMEBODY, capture_output=True, text=True,
                              check=False)  # fmt: skip

    def git(self, *arguments: str) -> str:
        done = self.run("git", *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def commit(self, version: str, told: Sequence[str], description: str = "") -> str:
        """Commit this version, and a changelog that has headings for these."""
        (self.folder / "pyproject.toml").write_text(
            f'[project]\nversion = "{version}"\ndescription = "{description}"\n'
        )
        (self.folder / "CHANGELOG.md").write_text("".join(f"## {one} (2026-11-30)\n" for one in told))
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", version)
        return self.git("rev-parse", "HEAD")

    def tag(self, *options: str) -> int:
        return self.run(TAG, *options).returncode

    @property
    def tags(self) -> dict[str, str]:
        """Each tag, and the commit that has it."""
        return {name: self.git("rev-parse", f"{name}^{{commit}}") for name in self.git("tag").split()}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_a_version_is_tagged_once_at_the_commit_that_raised_its_number(project: Project) -> None:
    project.commit("0.1.0", ["0.1.0"])
    raised = project.commit("0.2.0", ["0.2.0", "0.1.0"])
    project.commit("0.2.0", ["0.2.0", "0.1.0"], "what came after it")
    assert project.tag() == 0 and project.tags == {"v0.2.0": raised}
    assert project.git("tag", "--list", "--format=%(contents:subject)") == "bids-push 0.2.0"
    written = project.git("rev-parse", "v0.2.0")
    assert project.tag() == 0 and project.git("rev-parse", "v0.2.0") == written


def test_a_tag_that_is_there_stays_where_somebody_has_put_it(project: Project) -> None:
    raised = project.commit("0.1.0", ["0.1.0"])
    later = project.commit("0.1.0", ["0.1.0"], "a mend that belongs to it")
    project.git("tag", "v0.1.0")
    assert project.tag("--all") == 0 and project.tags == {"v0.1.0": later} != {"v0.1.0": raised}


def test_each_version_of_the_history_is_tagged_if_all_are_asked_for(project: Project) -> None:
    commits = {f"v{version}": project.commit(version, ["0.10.0", "0.2.0", "0.1.0"])
               for version in ("0.1.0", "0.2.0", "0.10.0")}  # fmt: skip
    project.commit("0.2.0", ["0.10.0", "0.2.0", "0.1.0"], "a step back")
    assert project.tag("--all") == 0 and project.tags == commits


@pytest.mark.parametrize("told", [["0.1.0"], ["0.2.0.1"], ["10.2.0"], ["0x2x0"]], ids=" ".join)
def test_a_version_that_the_changelog_does_not_tell_of_is_refused(project: Project, told: list[str]) -> None:
    project.commit("0.2.0", told)
    done = project.run(TAG)
    assert done.returncode == 1 and "CHANGELOG.md has no heading for 0.2.0" in done.stderr and not project.tags


def test_without_the_history_that_says_which_commit_raised_it_no_commit_is_guessed(project: Project) -> None:
    project.commit("0.1.0", ["0.1.0"])
    project.commit("0.1.0", ["0.1.0"], "what came after it")
    project.git("clone", "--quiet", "--depth", "1", f"file://{project.folder}", "shallow")
    project.folder /= "shallow"
    done = project.run(TAG)
    assert done.returncode == 1 and "git fetch --unshallow" in done.stderr
