"""The pages for people name what there is: every link leads somewhere, every file and test that is named is there."""

import re
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parent.parent
PAGES = [REPO / "README.md", REPO / "CONTRIBUTING.md", *sorted((REPO / "docs").glob("*.md"))]
FOLDERS = ("flows", "tasks", "deployments", "tests", "soak", "year", "benchmarks", "docs", "requirements")
LINK = re.compile(r"\]\(([^)\s]+)\)")
QUOTED = re.compile(r"`([^`\n]+)`")
LARGEST_PICTURE = 120_000  # bytes: a README is opened on slow lines too


def without_blocks(page: Path) -> str:
    return re.sub(r"^ *```.*?^ *```$", "", page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page: Path) -> set[str]:
    """What the headings of a page are called in a link, by the rule of GitHub."""
    heads = re.findall(r"^#+ (.+)$", without_blocks(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_within_the_repository_leads_somewhere(page: Path) -> None:
    for link in LINK.findall(without_blocks(page)):
        path, _, anchor = link.partition("#")
        if "://" in link:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_file_that_a_page_names_is_there(page: Path) -> None:
    for name in QUOTED.findall(without_blocks(page)):
        if name.split("/")[0] in FOLDERS and "/" in name and not set(name) & set("<> *"):
            assert (REPO / name).exists(), name


def test_every_test_that_a_page_names_is_there() -> None:
    tests = "".join(path.read_text() for path in (REPO / "tests").rglob("test_*.py"))
    there = set(re.findall(r"def (test_\w+)\(", tests))
    named = {name for page in PAGES for name in re.findall(r"`(test_\w+)`", page.read_text())}
    assert named and named <= there


def test_the_pictures_are_small() -> None:
    pictures = sorted((REPO / "docs" / "pictures").iterdir())
    assert [picture.name for picture in pictures] == ["card.png", "gate.png", "run.png"]
    assert all(picture.stat().st_size <= LARGEST_PICTURE for picture in pictures)
