"""Takes the pictures of the page and of a report in the README, light and dark, with Playwright and a Chromium.

    python docs/draw_pages.py --weights runs/tiny-imagenet --photos photographs --run runs/demo

Writes docs/pictures/page-light.png, page-dark.png, report-light.png and report-dark.png.
"""

import argparse
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

FOLDER = Path(__file__).parent / "pictures"
WIDTH, HEIGHT = 1200, 900  # px
TEXT, LONG = 800, 1400  # px of a report that are shown
SCHEMES = ("light", "dark")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", required=True, help="a run folder, of the page")
    parser.add_argument("--photos", required=True, help="a folder of images")
    parser.add_argument("--run", required=True, help="the run folder whose report is shown")
    options = parser.parse_args()
    browser_path = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=browser_path, args=["--no-sandbox"])
        with served(options.weights, options.photos) as address:
            for scheme in SCHEMES:
                page = opened(browser, scheme, address)
                page.get_by_text("where hidden").first.wait_for(timeout=60_000)
                page.get_by_text("Nearest in the gallery").first.wait_for()
                page.wait_for_timeout(2000)  # until pictures have faded in
                keep(page, f"page-{scheme}.png")
        for scheme in SCHEMES:
            page = opened(browser, scheme, (Path(options.run).resolve() / "report.html").as_uri())
            begins = page.get_by_role("heading", name="In words").bounding_box()
            assert begins is not None
            part = {"x": (WIDTH - TEXT) / 2, "y": begins["y"] - 20, "width": TEXT, "height": LONG}
            keep(page, f"report-{scheme}.png", full_page=True, clip=part)
        browser.close()


def opened(browser: Browser, scheme: str, address: str) -> Page:
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme=scheme)
    page.goto(address)
    return page


def keep(page: Page, name: str, **what: Any) -> None:
    """A picture of what is seen, in few colours, which halves the file."""
    FOLDER.mkdir(exist_ok=True)
    page.screenshot(path=FOLDER / name, **what)
    with Image.open(FOLDER / name) as picture:
        few = picture.convert("RGB").quantize(200, dither=Image.Dither.NONE)
    few.save(FOLDER / name, optimize=True)
    page.close()


@contextmanager
def served(weights: str, photos: str) -> Iterator[str]:
    """The address of the page, which ends with the block."""
    words = [sys.executable, "-m", "maekit", "app", "--weights", weights, "--gallery", photos, "--port", "0"]
    with subprocess.Popen(words, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        address = next(word for line in process.stderr for word in line.split() if word.startswith("http://"))
        threading.Thread(target=process.stderr.read, daemon=True).start()  # so that it never waits for a reader
        try:
            yield address
        finally:
            process.terminate()


if __name__ == "__main__":
    main()
