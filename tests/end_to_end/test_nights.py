"""The nightly as people have it: set and turned on in the browser, then left alone, night after night.

No test here starts a run. A schedule makes it, a worker takes it when it is due, and what counts is what is on the Hub
in the morning.
"""

import re
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from playwright.sync_api import Browser, Locator, Page, expect

from deployments.demo_data import make_dataset
from deployments.local_stack import Stack, wait_until
from deployments.runs import Runs
from tests.end_to_end.browsing import choose, field, flip, open_page, saved, send, shot
from tests.end_to_end.conftest import Pushed
from tests.end_to_end.nights import LOOK_EVERY, NIGHT_SECONDS, Nightly, images_of, images_on, its_own, shards_on

pytestmark = pytest.mark.usefixtures("last_looks")
SESSIONS = 24  # of which one that is withdrawn is a small part
BERLIN = ZoneInfo("Europe/Berlin")
TRIES = 10  # a busy server on SQLite refuses what the browser sends, and the UI says "Oops"
EARLY = timedelta(seconds=0.5)  # by which Prefect's server lets a run begin too soon: it waits whole seconds, rounded


@pytest.fixture
def nightly(runs: Runs, worker: Stack) -> Iterator[Nightly]:
    with its_own(runs, worker) as nightly:
        yield nightly


def test_a_schedule_that_is_turned_on_in_the_browser_makes_a_run_that_publishes(
    browser: Browser, nightly: Nightly, bids: Path, repo_id: str
) -> None:
    deployment = nightly.read().id
    page = open_page(browser)
    page.goto(f"{nightly.stack.ui}/deployments/deployment/{deployment}/edit")
    field(page, "source").locator("textarea").fill(str(bids))
    field(page, "repo_id").locator("textarea").fill(repo_id)
    choose(field(page, "defacing"), "no faces", after=2)
    assert send(page, page.get_by_role("button", name="Save"), f"/deployments/{deployment}", "PATCH").ok

    page.goto(f"{nightly.stack.ui}/deployments/deployment/{deployment}")
    card = page.locator(".deployment-schedule-card")
    set_cron(page, card, "* * * * *")
    flip(page, card.get_by_role("switch"), True, "/schedules/")
    turned_on = datetime.now(UTC)

    # nobody touches anything
    wait_until("a run of the schedule has begun", lambda: bool(nightly.started()), NIGHT_SECONDS, every=LOOK_EVERY)
    run = nightly.started()[0]
    shot(page, "nightly-on.png")
    pushed = Pushed(nightly.runs, nightly.stack, run.id, repo_id).at_gate()
    flip(page, card.get_by_role("switch"), False, "/schedules/")

    assert run.created_by is not None and run.created_by.type == "SCHEDULE"
    assert run.start_time is not None and run.expected_start_time is not None
    assert run.expected_start_time.second == 0 and run.expected_start_time - turned_on <= timedelta(minutes=2)
    assert run.start_time - run.expected_start_time >= -EARLY
    states = nightly.runs.history(run.id)
    assert states[0] == "Scheduled" and states[-2:] == ["Running", "Suspended"], states
    assert images_on(pushed.hub) == images_of(bids)

    # off is off: no run is left that would come
    wait_until("no run is to come", lambda: all(run.start_time for run in nightly.made()), 30)
    assert pushed.approve() is None
    assert pushed.ended()[0] == "CleanedUp"
    assert images_on(pushed.hub) == images_of(bids)


def set_cron(page: Page, card: Locator, line: str) -> None:
    """Change the schedule's cron line, in the older UI."""
    for _ in range(TRIES):
        page.reload()
        card.get_by_role("button").last.click()
        page.get_by_text("Edit", exact=True).last.click()
        form = page.get_by_role("dialog").filter(has_text="Edit schedule")
        form.locator(".cron-schedule-form__row input[type=text]").first.fill(line)
        if saved(page, form.get_by_role("button", name="Save"), "/schedules/"):
            return
    raise AssertionError("the schedule was not changed, however often it was saved")


def test_two_in_the_morning_is_two_in_the_morning_on_both_sides_of_summer_time(
    browser: Browser, nightly: Nightly
) -> None:
    page = open_page(browser, zone=str(BERLIN))
    deployment = nightly.read().id
    page.goto(f"{nightly.stack.ui}/v2/deployments/deployment/{deployment}")
    set_zone_in_v2(page, "At 02:00 AM", "Berlin")
    flip(page, page.get_by_role("switch").first, True, "/schedules/")
    wait_until("nights are to come", lambda: len(nightly.made()) >= 3, 60)

    # what the browser shows, in its own time
    page.get_by_role("tab", name="Upcoming").click()
    expect(page.get_by_text(re.compile("2:00(:00)? AM")).first).to_be_visible()
    shot(page, "nightly-upcoming.png")

    for change in next_changes(BERLIN):
        first = change - timedelta(days=3)
        nightly.runs.client._client.post(
            f"/deployments/{deployment}/schedule",
            json={
                "start_time": first.isoformat(),
                "end_time": (change + timedelta(days=3)).isoformat(),
                "min_runs": 6,
            },
        ).raise_for_status()
        due = [run.expected_start_time.astimezone(BERLIN) for run in nightly.made() if run.expected_start_time]
        around = [time for time in due if abs(time - change) < timedelta(days=2.5)]
        days = [time.date() for time in around]
        assert len(days) == 5 == len(set(days)), around
        # in spring there is no 02:00 on the day of the change: that night comes with the hour after it
        expected = ["03:00" if skipped(BERLIN, time) else "02:00" for time in around]
        assert [f"{time:%H:%M}" for time in around] == expected


def set_zone_in_v2(page: Page, schedule: str, zone: str) -> None:
    """Change the schedule's time zone, in the newer UI."""
    for _ in range(TRIES):
        page.reload()
        page.get_by_text(schedule).locator("xpath=../..").get_by_role("button").last.click()
        page.get_by_role("menuitem", name="Edit").click()
        form = page.get_by_role("dialog")
        form.get_by_label("Timezone").click()
        page.get_by_placeholder("Search", exact=True).fill(zone)
        page.get_by_role("option", name=re.compile(zone)).first.click()
        if saved(page, form.get_by_role("button", name="Save"), "/schedules/"):
            return
    raise AssertionError("the schedule was not changed, however often it was saved")


def next_changes(zone: ZoneInfo) -> list[datetime]:
    """The next two noons on whose day the clocks of a place were changed."""
    noon = datetime.now(zone).replace(hour=12, minute=0, second=0, microsecond=0)
    days = [noon + timedelta(days=number) for number in range(5, 370)]
    changed = [day for day in days if (day - timedelta(days=1)).utcoffset() != day.utcoffset()]
    return changed[:2]


def skipped(zone: ZoneInfo, day: datetime) -> bool:
    """Whether the clocks of a place jump over 02:00 on this day."""
    two = datetime(day.year, day.month, day.day, 2, tzinfo=zone)
    return two.astimezone(UTC).astimezone(zone).hour != two.hour


def test_three_nights_on_a_dataset_that_grows_changes_and_shrinks(
    nightly: Nightly, tmp_path: Path, repo_id: str
) -> None:
    source = tmp_path / "lab"
    make_dataset(source, sessions=SESSIONS)
    comes, changes, goes = [one for one in sorted(path.name for path in source.glob("sub-*")) if small(source, one)][:3]
    away = tmp_path / "away"
    move(source, comes, away)
    nightly.set(source, repo_id)

    # the first night publishes all that is there
    first = nightly.night().at_gate()
    hub = first.hub
    assert images_on(hub) == images_of(source)
    before = shards_on(hub)

    # a subject comes, an image is changed in place, a subject is withdrawn
    withdrawn = {path: sha256 for path, sha256 in images_of(source).items() if goes in path}
    move(away, comes, source)
    head(source, changes).write_bytes(head(source, comes).read_bytes())
    move(source, goes, tmp_path / "withdrawn")
    second = nightly.night().at_gate()
    assert images_on(hub) == images_of(source) | withdrawn
    after = shards_on(hub)
    assert len(withdrawn) > 0 and {path for path in after if before.get(path) != after[path]} == {
        path for path in after if f"/{comes}_" in path or f"/{changes}_" in path
    }
    assert before.keys() <= after.keys()
    said = nightly.runs.read(second.run).state.message or ""  # type: ignore[union-attr]
    assert "still on the Hub: 1 shard" in said and goes in said
    assert any(goes in str(artifact) for artifact in nightly.runs.artifacts(second.run).values())
    assert first.ended()[0] == "Superseded"

    # nothing is changed: a quiet, green end, which still names who was withdrawn
    third = nightly.night()
    name, message = third.ended()
    assert name == "NothingToPublish" and shards_on(hub) == after
    assert nightly.runs.read(second.run).state.name == "Suspended"  # type: ignore[union-attr]
    assert second.approve() is None
    assert second.ended()[0] == "CleanedUp"
    assert images_on(hub) == images_of(source) | withdrawn
    assert goes in message and goes in second.ended()[1]


def small(source: Path, subject: str) -> bool:
    """Whether a subject was there once, for an image of the head among others."""
    return (
        len(list(source.glob(f"{subject}/ses-*"))) == len(list(source.glob(f"{subject}/ses-*/anat/*_T1w.nii.gz"))) == 1
    )


def head(source: Path, subject: str) -> Path:
    """The T1w image of such a subject."""
    return next(source.glob(f"{subject}/ses-*/anat/*_T1w.nii.gz"))


def move(source: Path, subject: str, to: Path) -> None:
    """Move a subject and its derivatives from one folder to another."""
    for part in [source / subject, *source.glob(f"derivatives/*/{subject}")]:
        there = to / part.relative_to(source)
        there.parent.mkdir(parents=True, exist_ok=True)
        shutil.move(part, there)
