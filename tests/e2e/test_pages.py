"""Pages in a real browser: make report-check. The pictures are left in the folder of the test."""

import shutil
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


@pytest.fixture(scope="module")
def browser():
    """Headless Chromium."""
    api = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("there is no Chromium on this machine (apt install chromium)")
    with api.sync_playwright() as playwright:
        found = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield found
        found.close()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_the_report_fits_and_asks_no_host(browser, smoke, tmp_path, width, scheme):
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    addresses, problems = [], []
    page.on("request", lambda request: addresses.append(request.url))
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.goto((smoke / "run" / "student" / "report.html").as_uri())
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    assert page.locator("svg").count() == 5
    dark = "rgb(20, 23, 26)"
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == dark) == (scheme == "dark")
    page.screenshot(path=Path(tmp_path) / f"report_{width}.png", full_page=True)
    assert [one for one in addresses if not one.startswith(("file:", "data:"))] == []
    assert problems == []
