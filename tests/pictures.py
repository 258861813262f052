"""The pictures of the README: the gate, the run's page and the card, as the demo shows them. `make pictures`.

A cut of the demo is published on this machine, and a browser looks at it while its gate is open. The pictures are to
be looked at before they are committed. Where the run was, and on which machine, is nobody's business: both are replaced
by names of an example before a picture is taken.
"""

import io
import shutil
import socket

from PIL import Image
from playwright.sync_api import Browser, FloatRect, Locator, Page, ViewportSize, expect, sync_playwright

from deployments import demo
from deployments.local_stack import REPO, Stack, running
from deployments.runs import runs_of
from tests.end_to_end.browsing import CHROMIUM, QUIET, prefer

PICTURES = REPO / "docs" / "pictures"
SESSIONS = 24  # of the demo's dataset: as many as make a run that can be looked at, in a minute
COLOURS = 128  # of a picture: fewer than a screen has, and more than these pages need
LARGEST = 120_000  # bytes of a picture
UI = ViewportSize(width=1280, height=900)  # the gate's form is whole in it
NARROW = ViewportSize(width=640, height=900)  # so that the card can be read beside the gate
MENU = 256  # pixels at the left of the Prefect UI that are no part of the run's page
CANVAS_SECONDS = 4.0  # for the graph of a run: it is drawn on a canvas, which says nothing

#: Replaces a text wherever it stands on the page.
REPLACE = """
names => {
  const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walk.nextNode()) {
    for (const [from, to] of names) {
      if (walk.currentNode.data.includes(from)) {
        walk.currentNode.data = walk.currentNode.data.replaceAll(from, to);
      }
    }
  }
}
"""


def main() -> None:
    """Run the demo to its gate, take the pictures, and end it."""
    PICTURES.mkdir(parents=True, exist_ok=True)
    data = demo.dataset(SESSIONS)
    folder = demo.new_folder()
    with running(folder) as stack, runs_of(f"{stack.ui}/api") as runs, sync_playwright() as playwright:
        demo.deploy(stack, data)
        run = runs.start(demo.DEPLOYMENT)
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        try:
            page = browser.new_context(viewport=UI).new_page()
            prefer(page, "light")
            page.goto(f"{stack.ui}/runs/flow-run/{run}")  # which is at hand then, as soon as the run waits
            runs.wait(run, {"PAUSED"})
            take_run_and_gate(page, stack)
            take_card(browser, stack)
        finally:
            browser.close()
    shutil.rmtree(folder)


def take_run_and_gate(page: Page, stack: Stack) -> None:
    """The page of the run, and the form of its gate. At once, since the graph reaches to the present time."""
    page.reload()
    expect(page.get_by_text("Suspended").first).to_be_visible()
    page.wait_for_timeout(CANVAS_SECONDS * 1000)
    below = box_of(page.get_by_text("Task Runs", exact=True))
    keep(page, stack, "run.png", FloatRect(x=MENU, y=0, width=UI["width"] - MENU, height=below["y"] - 16))
    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("img", name="slices of images that the Hub sent back")).to_be_in_viewport(ratio=0.99)
    keep(page, stack, "gate.png", box_of(page.locator(".p-modal__card")))


def take_card(browser: Browser, stack: Stack) -> None:
    """The part of the card that says what is in the dataset, and shows it."""
    page = browser.new_context(viewport=NARROW).new_page()
    page.goto(f"{stack.endpoint}/datasets/{demo.REPO_ID}")
    top, below = (box_of(page.get_by_role("heading", name=name)) for name in ("What is in it", "Columns"))
    page.wait_for_load_state("networkidle")
    keep(page, stack, "card.png", FloatRect(x=0, y=top["y"] - 8, width=NARROW["width"], height=below["y"] - top["y"]))


def box_of(found: Locator) -> FloatRect:
    """Where something is on its page."""
    expect(found.first).to_be_visible()
    box = found.first.bounding_box()
    assert box is not None
    return box


def keep(page: Page, stack: Stack, name: str, part: FloatRect) -> None:
    """Keep a part of the page as a small picture, with the names of an example."""
    where = [(str(stack.staging_root), "/scratch/staging"), (f" on {socket.gethostname()}", " on lab-server")]
    page.evaluate(REPLACE, where)
    shot = Image.open(io.BytesIO(page.screenshot(full_page=True, clip=part))).convert("RGB")
    path = PICTURES / name
    shot.quantize(COLOURS, dither=Image.Dither.NONE).save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(REPO)}: {shot.width} x {shot.height} pixels, {size:,} bytes")
    if size > LARGEST:
        raise SystemExit(f"{name} has more than {LARGEST:,} bytes")


if __name__ == "__main__":
    main()
