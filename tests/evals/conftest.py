"""A browser for the tests of pages: Debian's chromium, driven by Playwright; nothing is downloaded."""

import shutil
from urllib.parse import urlsplit

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
PATIENCE = 60_000  # milliseconds, for a busy machine


@pytest.fixture(scope="session")
def browser():
    """Chromium; a test that needs it is skipped where there is none."""
    if CHROMIUM is None:
        pytest.skip("no chromium is installed (apt-get install chromium)")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        # As root, as in containers, chromium starts without its sandbox only; pages here are our own.
        made = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


@pytest.fixture
def open_page(browser):
    """Opens pages; fails for errors on them, and for requests to other hosts than those of the pages."""
    context = browser.new_context()
    context.set_default_timeout(PATIENCE)
    wrong, allowed = [], set()

    def watch(page):
        page.on("pageerror", lambda error: wrong.append(f"page error: {error}"))
        page.on("console", lambda said: wrong.append(said.text) if said.type == "error" else None)
        page.on("requestfailed", lambda request: wrong.append(f"failed: {request.url}"))
        page.on("request", lambda request: wrong.append(f"request: {request.url}") if foreign(request.url) else None)

    def foreign(url):
        return not url.startswith(("data:", "blob:", "file:")) and urlsplit(url).netloc not in allowed

    context.on("page", watch)

    def opened(url):
        allowed.add(urlsplit(url).netloc)
        page = context.new_page()
        page.goto(url)
        return page

    opened.wrong = wrong
    yield opened
    context.close()
    assert not wrong
