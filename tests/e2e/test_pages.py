"""Pages in a real browser: make report-check. The pictures are left in the folder of the test."""

import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path

import pandas as pd
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


@pytest.fixture(params=[(1280, "light"), (390, "dark")], ids=["wide", "phone"])
def page(request, browser):
    """An empty page; at the end no script may have failed, and no more than a bad upload."""
    (width, scheme), problems = request.param, []
    page = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    page.on("console", lambda message: problems.append(message.text))
    page.on("pageerror", lambda error: problems.append(str(error)))
    yield page
    assert [problem for problem in problems if "status of 422" not in problem] == []


@pytest.fixture(scope="module")
def address(smoke):
    """Where serve.py serves the student."""
    pytest.importorskip("fastapi", reason="requirements-serve.txt")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "serve.py", str(smoke / "run"), "--port", str(port)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        address = f"http://127.0.0.1:{port}/"
        while process.poll() is None:
            with suppress(urllib.error.URLError):
                urllib.request.urlopen(f"{address}health")
                break
            time.sleep(0.2)
        yield address
        process.send_signal(signal.SIGINT)


def check(page, tmp_path, name, schemes):
    """The page that ``page`` shows: it fits, follows the color scheme and asks no other host."""
    width = page.viewport_size["width"]
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.evaluate("[...document.images].every(image => image.naturalWidth > 0)")
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (background == "rgb(20, 23, 26)") == (width == 390)  # the phone is dark
    page.screenshot(path=Path(tmp_path) / f"{name}_{width}.png", full_page=True)
    assert [one for one in page.requested if not one.startswith(schemes)] == []


def opened(page, address):
    """``page`` with what is at ``address``, and a list of the addresses that it asks."""
    page.requested = []
    page.on("request", lambda request: page.requested.append(request.url))
    page.goto(address)
    return page


def test_the_report_fits_and_asks_no_host(page, smoke, tmp_path):
    opened(page, (smoke / "run" / "student" / "report.html").as_uri())
    assert page.locator("svg").count() == 5
    check(page, tmp_path, "report", ("file:", "data:"))


def test_pictures_on_the_page_get_their_verdicts(page, address, smoke, tmp_path):
    scores = pd.read_csv(smoke / "run" / "student" / "scores.csv").head(3)
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"no picture")
    opened(page, address)
    files = [*(str(smoke / "visa" / path) for path in scores["path"]), str(broken)]
    page.set_input_files("#files", files)
    page.wait_for_function("document.querySelectorAll('strong').length == 3")
    page.get_by_text("the upload: ").wait_for()
    shown = page.locator("figure small").all_inner_texts()
    for text, score in zip(shown, scores["score"], strict=True):
        assert float(text.split()[1].rstrip(",;")) == pytest.approx(score, rel=0.01)
    assert page.locator("figure img").count() == 3
    check(page, tmp_path, "page", (address, "data:", "blob:"))


def test_the_description_for_people(page, address):
    opened(page, f"{address}docs")
    assert "POST /predict" in page.inner_text("body")
    assert page.requested == [f"{address}docs"]
