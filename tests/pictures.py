"""The pictures of the README: the gate, the run's page and the card, as the demo shows them. `make pictures`.

A cut of the demo is published on this machine, and a browser looks at it while its gate is open. The pictures are to
be looked at before they are committed. Where the run was, and on which machine, is nobody's business: both are replaced
by names of an example before a picture is taken.
"""

import io
import json
import shutil
import socket
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, expect, sync_playwright

from deployments import demo
from deployments.local_stack import REPO, Stack, running
from deployments.runs import runs_of
from tests.end_to_end.browsing import CHROMIUM, QUIET

PICTURES = REPO / "docs" / "pictures"
SESSIONS = 24  # of the demo's dataset: as many as make a run that can be looked at, in a minute
COLOURS = 128  # of a picture: fewer than a screen has, and more than these pages need
LARGEST = 120_000  # bytes of a picture
WIDTH = 1100  # pixels of the page: its text can be read where a README is a little narrower

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
        stack.run("prefect", "--no-prompt", "deploy", "--all", "--prefect-file", str(demo.DEPLOYMENT))
        run = demo.start(stack, runs, data)
        runs.wait(run, {"PAUSED"})
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        page = browser.new_context(viewport={"width": WIDTH, "height": 820}).new_page()
        page.set_default_timeout(60_000)
        page.add_init_script(f"localStorage.setItem('color-scheme', {json.dumps(json.dumps('light'))})")
        take(page, stack, f"{stack.ui}/runs/flow-run/{run}")
        browser.close()
    shutil.rmtree(folder)


def take(page: Page, stack: Stack, of_the_run: str) -> None:
    """The run's page, its gate, and the repo's page with the card."""
    page.goto(of_the_run)
    expect(page.get_by_text("Suspended").first).to_be_visible()
    page.wait_for_timeout(3000)  # the graph is drawn a while later, on a canvas that says nothing
    keep(page, stack, "run.png", 820)

    page.get_by_role("button", name="Resume").click()
    expect(page.get_by_role("img", name="slices of images that the Hub sent back")).to_be_visible()
    page.wait_for_timeout(1000)
    keep(page, stack, "gate.png", 820)

    page.goto(f"{stack.endpoint}/datasets/{demo.REPO_ID}")
    expect(page.get_by_role("heading").first).to_be_visible()
    page.wait_for_timeout(1000)
    keep(page, stack, "card.png", 820)


def keep(page: Page, stack: Stack, name: str, height: int) -> None:
    """Keep the page as a small picture of this height, with the names of an example."""
    names = [(str(stack.staging_root), "/scratch/staging"), (str(REPO), "/srv/bids-push"), (socket.gethostname(), "lab")]
    page.evaluate(REPLACE, names)
    shot = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    picture = shot.crop((0, 0, shot.width, min(height, shot.height)))
    small = picture.quantize(COLOURS, dither=Image.Dither.NONE)
    path = PICTURES / name
    small.save(path, optimize=True)
    size = path.stat().st_size
    print(f"{path.relative_to(REPO)}: {size:,} bytes")
    if size > LARGEST:
        raise SystemExit(f"{name} has more than {LARGEST:,} bytes")


if __name__ == "__main__":
    main()
