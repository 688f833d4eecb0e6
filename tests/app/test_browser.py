"""The page in a real browser: what a person does with it, by mouse, keys and finger.

Needs Playwright and a Chromium that is installed (Debian's package will do), and for the rules of accessibility the npm
package axe-core in node_modules: `make browser` brings what is missing. Without them these tests are skipped, and fail
where MAEKIT_BROWSER is `required`, as in .ci/run.
"""

import os
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from served import classifies, painter, picture, pixels, served

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
AXE = Path(__file__).parents[2] / "node_modules/axe-core/axe.min.js"
REQUIRED = os.environ.get("MAEKIT_BROWSER") == "required"
if not REQUIRED:
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed: pip install playwright")
from playwright import sync_api as playwright  # noqa: E402

pytestmark = pytest.mark.skipif(CHROMIUM is None and not REQUIRED, reason="no Chromium is installed: make browser")


@pytest.fixture(scope="module")
def site(tmp_path_factory, photos, reader):
    folder = tmp_path_factory.mktemp("browser")
    weights = (painter(folder / "painter.safetensors"), classifies(folder / "classifier.safetensors"))
    with served(reader, weights=weights, gallery=str(photos), batch_size=16) as site:
        yield site


@pytest.fixture(scope="module")
def chromium():
    assert CHROMIUM, "no Chromium is installed: make browser"
    arguments = ["--no-sandbox"] if os.geteuid() == 0 else []  # which root cannot have
    playwright.expect.set_options(timeout=30_000)  # the first upload waits for a process to start
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


@pytest.fixture
def visit(chromium, site):
    """Opens the page, and afterwards looks whether it kept to itself and made no error."""
    contexts, errors, elsewhere = [], [], []

    def open_page(address="/", **options):
        context = chromium.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(20_000)
        page.on("console", lambda said: errors.append(said.text) if said.type in ("error", "warning") else None)
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.on(
            "request",
            lambda asked: None if re.match(f"{site.url}/|data:|blob:", asked.url) else elsewhere.append(asked.url),
        )
        page.goto(site.url + address)
        page.wait_for_selector("body[data-ready]")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not elsewhere
    assert [error for error in errors if "status of 415" not in error] == []  # which is what a hostile file is told


def said(page, text):
    playwright.expect(page.locator("#said")).to_contain_text(text)


def cell(page, row, column):
    return page.locator(f"#board [role=row]:nth-child({row}) [role=gridcell]:nth-child({column})")


def painted(page):
    """The source of the reconstruction, once it is that of the mask that is shown."""
    playwright.expect(page.locator(".compare img").first).to_have_attribute("src", re.compile("^data:"))
    playwright.expect(page.locator("[aria-busy=true]")).to_have_count(0)
    return page.locator(".compare img").first.get_attribute("src")


def until(page, holds):
    """Wait for what a request that is on its way brings about."""
    for _ in range(200):
        if holds():
            return
        page.wait_for_timeout(50)
    raise AssertionError("not within ten seconds")


def test_it_begins_with_a_picture_a_mask_and_what_is_made_of_it(visit):
    page = visit()
    assert page.locator("#board [role=gridcell]").count() == 16
    assert page.locator("#board [aria-selected=true]").count() == 12
    assert painted(page).startswith("data:image/png")
    assert page.locator("#images [aria-checked=true]").count() == 1
    page.wait_for_selector(".bars li")
    assert page.locator(".bars li").count() == 5
    page.wait_for_selector(".near button")
    assert page.locator(".near button").count() == 16
    assert "12 of 16" in page.locator("#said").inner_text()

    page.locator(".compare-figure input").fill("40")
    assert page.locator(".compare").get_attribute("style") == "--cut: 40%;"
    box = page.locator(".compare").bounding_box()
    page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + 9)
    assert page.locator(".compare-figure input").input_value() == "75"


def test_mouse_and_keys(visit):
    page = visit()
    page.click("#clear")
    said(page, "nothing is hidden")
    page.locator("#board").scroll_into_view_if_needed()
    box = page.locator("#board").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] - 5, box["y"] + 5)  # at once, yet over all four
    page.mouse.up()
    said(page, "4 of 16")
    before = painted(page)
    assert [cell(page, 1, column).get_attribute("aria-selected") for column in range(1, 5)] == ["true"] * 4
    cell(page, 1, 1).click()
    said(page, "3 of 16")
    until(page, lambda: painted(page) != before)
    assert page.locator("#kind").input_value() == "painted"

    page.click("#clear")
    cell(page, 1, 1).focus()
    page.keyboard.press("Space")
    said(page, "1 of 16")
    page.keyboard.press("Shift+ArrowRight")
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Enter")
    said(page, "3 of 16")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "row 2, column 2: hidden"
    page.keyboard.press("End")
    page.keyboard.press("Space")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "row 2, column 4: hidden"
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement.getAttribute('aria-label')") == "row 2, column 4: hidden"


def test_touch(visit):
    page = visit(has_touch=True, is_mobile=True, viewport={"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    page.locator("#clear").tap()
    cell(page, 2, 3).tap()
    said(page, "1 of 16")
    box = page.locator("#board").bounding_box()
    finger = page.context.new_cdp_session(page)
    places = [{"x": box["x"] + share * box["width"], "y": box["y"] + 0.9 * box["height"]} for share in (0.1, 0.4, 0.9)]
    for kind, at in (
        ("touchStart", places[:1]),
        ("touchMove", places[1:2]),
        ("touchMove", places[2:]),
        ("touchEnd", []),
    ):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": at})
    said(page, "5 of 16")
    assert painted(page)


def test_sliders_seeds_kinds_and_statistics(visit):
    page = visit()
    first = painted(page)
    page.locator("#ratio").fill("50")
    said(page, "8 of 16")
    page.select_option("#kind", "grid")
    said(page, "12 of 16")
    page.select_option("#kind", "random")
    page.locator("#ratio").fill("75")
    playwright.expect(page).to_have_url(re.compile(r"mask=random.*ratio=0\.75"))
    until(page, lambda: painted(page) == first)
    page.click("#another")
    playwright.expect(page).to_have_url(re.compile("seed=1"))
    until(page, lambda: painted(page) != first)
    page.check("input[value=original]")
    playwright.expect(page.locator(".note").first).to_contain_text("That is a leak")


def test_a_link_brings_back_what_was_seen(visit, site):
    page = visit()
    page.locator("#images button").nth(2).click()
    page.click("#invert")
    said(page, "4 of 16")
    before = painted(page)
    again = visit(page.url.removeprefix(site.url))
    said(again, "4 of 16")
    assert painted(again) == before
    again.evaluate("location.hash = 'image=sample:boat&mask=block&ratio=0.5&seed=4&statistics=original'")
    said(again, "8 of 16")
    assert again.locator("#kind").input_value() == "block"
    assert again.locator("#seed").input_value() == "4"
    assert again.locator("input[value=original]").is_checked()


def test_an_upload_is_shown_saved_and_kept_where_that_is_asked_for(visit, tmp_path, site):
    (tmp_path / "one.png").write_bytes(picture())
    page = visit()
    page.set_input_files("#file", tmp_path / "one.png")
    playwright.expect(page).to_have_url(re.compile("image=[0-9a-f]{64}"))
    painted(page)
    with page.expect_download() as caught:
        page.get_by_role("button", name="Save picture").first.click()
    saved = pixels(Path(caught.value.path()).read_bytes())
    assert saved.shape[1] > 3 * 160
    with page.expect_download() as caught:
        page.click("#save-mask")
    assert np.array_equal(pixels(Path(caught.value.path()).read_bytes())[..., 0] // 255, _mask(page))

    hash_of_it = page.url.partition("#")[2]
    page.check("#keep")
    page.wait_for_timeout(300)
    other = page.context.new_page()
    other.goto(f"{site.url}/#{hash_of_it}")
    other.wait_for_selector("body[data-ready]")
    assert other.locator("#missing").is_hidden()
    stranger = visit(f"/#{hash_of_it}")
    assert stranger.locator("#missing").is_visible()
    stranger.set_input_files("#file", tmp_path / "one.png")
    stranger.wait_for_selector("#missing", state="hidden")


def _mask(page):
    states = page.eval_on_selector_all("#board [role=gridcell]", "all => all.map(one => one.ariaSelected === 'true')")
    return np.array(states, np.uint8).reshape(4, 4)


def test_a_hostile_file_is_told_on_the_page_and_the_next_one_works(visit, tmp_path):
    page = visit()
    hostile = tmp_path / "cat.png"
    hostile.write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>window.ran = 1</script></svg>")
    page.set_input_files("#file", hostile)
    page.wait_for_selector("#problem:not([hidden])")
    assert "no JPEG, PNG or WebP" in page.locator("#problem").inner_text()
    with hostile.open("wb") as file:
        file.truncate(20_000_001)
    page.set_input_files("#file", hostile)
    playwright.expect(page.locator("#problem")).to_contain_text("20 MB")
    assert page.evaluate("window.ran") is None
    Image.new("RGB", (40, 40), "teal").save(hostile)
    page.set_input_files("#file", hostile)
    page.wait_for_selector("#problem", state="hidden")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
@pytest.mark.skipif(not (AXE.exists() or REQUIRED), reason="axe-core is not installed: make browser")
def test_no_serious_finding_of_axe(visit, width, scheme):
    page = visit(viewport={"width": width, "height": 900}, color_scheme=scheme)
    painted(page)
    page.wait_for_selector(".near button")
    page.check("input[value=original]")
    page.evaluate(AXE.read_text())
    found = page.evaluate("axe.run()")
    bad = [
        (one["id"], one["nodes"][0]["html"]) for one in found["violations"] if one["impact"] in ("serious", "critical")
    ]
    assert bad == []
    assert len(found["passes"]) > 10


@pytest.mark.parametrize(("event", "holder"), [("drop", "dataTransfer"), ("paste", "clipboardData")])
def test_a_picture_is_taken_that_is_dropped_or_pasted(visit, event, holder):
    page = visit()
    before = page.locator("#under").get_attribute("src")
    page.evaluate(
        """async ([event, holder]) => {
          const canvas = document.createElement("canvas");
          canvas.width = canvas.height = 40;
          canvas.getContext("2d").fillRect(0, 0, 20, 40);
          const blob = await new Promise((done) => canvas.toBlob(done));
          const files = new DataTransfer();
          files.items.add(new File([blob], "given.png", { type: "image/png" }));
          if (event === "drop") window.dispatchEvent(new DragEvent("dragenter", { cancelable: true }));
          const told = new Event(event, { cancelable: true });
          Object.defineProperty(told, holder, { value: files });
          window.dispatchEvent(told);
        }""",
        [event, holder],
    )
    playwright.expect(page.locator("#keeping")).to_be_visible()  # which a picture of one's own has alone
    until(page, lambda: page.locator("#under").get_attribute("src") != before)
    playwright.expect(page.locator("#drop")).to_be_hidden()
