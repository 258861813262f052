"""A person's browser: headless Chromium on the real server, in both of Prefect's UIs.

Screenshots are left in `test-output/ui/`, to be looked at: what looks wrong there is wrong.
"""

import json
import re
import shutil
from collections.abc import Iterator
from http import HTTPStatus

import pytest
from playwright.sync_api import Browser, Locator, Page, Playwright, Response, TimeoutError, expect, sync_playwright

from deployments.local_stack import REPO

SHOTS = REPO / "test-output" / "ui"
CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")  # None: the one that Playwright has fetched
QUIET = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip
# Without a graphics card, the graph of a run is drawn by the processors, at every frame while its page is open, and
# takes one and a half of them. No test asks what is on that canvas, so it stays empty (`make pictures` has it drawn).
UNDRAWN = ["--disable-software-rasterizer"]
FRAME = 100  # milliseconds from one frame of a page's scripts to the next; Playwright's own go on as ever
SLOWLY = f"""
const next = window.requestAnimationFrame.bind(window);
window.requestAnimationFrame = draw => setTimeout(() => next(draw), {FRAME});
window.cancelAnimationFrame = clearTimeout;
"""
#: Whether nothing of a page moves that comes to an end (a turning wheel does not).
FADED_IN = """() => document.getAnimations().every(one =>
    one.playState !== "running" || one.effect?.getComputedTiming().iterations === Infinity)"""
expect.set_options(timeout=30_000)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    SHOTS.mkdir(parents=True, exist_ok=True)
    with sync_playwright() as playwright, launched(playwright) as browser:
        yield browser


def launched(playwright: Playwright) -> Browser:
    """A browser that draws what tests look at, and no more."""
    return playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *UNDRAWN])


@pytest.fixture
def last_looks(browser: Browser, request: pytest.FixtureRequest) -> Iterator[None]:
    """Leave a screenshot of each page as the test left it: what a failure looked like."""
    yield
    for context in browser.contexts:
        for number, page in enumerate(context.pages):
            page.screenshot(path=SHOTS / f"last-{request.node.name.removeprefix('test_')}-{number}.png")
        context.close()


def open_page(browser: Browser, scheme: str = "light", zone: str | None = None) -> Page:
    """A page of a new visitor, who likes it light or dark, and lives in this time zone."""
    context = browser.new_context(viewport={"width": 1280, "height": 900}, timezone_id=zone, reduced_motion="reduce")
    context.add_init_script(SLOWLY)
    page = context.new_page()
    page.set_default_timeout(60_000)
    prefer(page, scheme)
    return page


def shot(page: Page, name: str, full_page: bool = False) -> None:
    """Leave a screenshot of a page, once what it fades in is there: a page fades in over a few of its frames."""
    page.wait_for_timeout(5 * FRAME)
    page.wait_for_function(FADED_IN)
    page.screenshot(path=SHOTS / name, full_page=full_page)


def prefer(page: Page, scheme: str) -> None:
    """Light or dark from the next page on: the newer UI asks the browser, the older one its own memory."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.add_init_script(f"localStorage.setItem('color-scheme', {json.dumps(json.dumps(scheme))})")


def open_form(page: Page, version: str) -> None:
    """Press Resume on a run's page, which the newer UI ("/v2") has in a menu."""
    expect(page.get_by_text("Suspended").first).to_be_visible()
    if version:
        page.get_by_role("button", name="Open menu").click()
        page.get_by_role("menuitem", name="Resume").click()
    else:
        page.get_by_role("button", name="Resume").click()


def field(page: Page, name: str) -> Locator:
    """A field of a form in the older UI, which ties no label to its input."""
    label = page.locator(".schema-form-property__label", has_text=re.compile(rf"^\s*{name}\s*(\(Optional\))?\s*$"))
    return page.locator(".schema-form-property", has=label)


def choose(chosen: Locator, value: str, after: int) -> None:
    """Choose a value of a list in the older UI, by the keyboard: the one that comes after so many others."""
    chosen.locator(".p-select-button__control").focus()
    for key in ["Enter", *["ArrowDown"] * after, "ArrowDown", "Enter"]:
        chosen.page.keyboard.press(key)
    expect(chosen.locator(".p-select-button__value")).to_have_text(value)


def send(page: Page, button: Locator, route: str, method: str = "POST") -> Response:
    """Press a form's button, and again where that came to nothing, as a person would.

    Prefect's server on SQLite answers 503 when two would write at once: its own client comes again by itself, the UI
    says "Oops" and leaves the form open. And a message that slides over the button takes the click.
    """
    for _ in range(10):
        try:
            with page.expect_request(
                lambda one: one.method == method and one.url.endswith(route), timeout=10_000
            ) as sent:
                button.click()
        except TimeoutError:
            continue
        response = sent.value.response()
        if response is not None and response.status != HTTPStatus.SERVICE_UNAVAILABLE:
            return response
    raise AssertionError(f"{route} was not answered, however often the button was pressed")


def saved(page: Page, button: Locator, route: str) -> bool:
    """Press a button that changes something that is there: whether the server has taken it.

    Where a busy one has refused, the page shows what it was told, and not what is so: look at a fresh one.
    """
    try:
        with page.expect_response(
            lambda one: one.request.method == "PATCH" and bool(re.search(route, one.url)), timeout=10_000
        ) as answer:
            button.click(timeout=10_000)
    except TimeoutError:
        return False
    return answer.value.ok


def flip(page: Page, switch: Locator, on: bool, route: str) -> None:
    """Turn a switch on or off, and look at a fresh page whether it is."""
    for _ in range(10):
        page.reload()
        expect(switch).to_be_visible()
        if switch.get_attribute("aria-checked") == str(on).lower():
            return
        saved(page, switch, route)
    raise AssertionError(f"the switch is not {'on' if on else 'off'}, however often it was turned")
