"""The browser of these tests: Debian's chromium, or the one that the variable CAMJAX_BROWSER names."""

import os
import shutil

import pytest

BROWSER = os.environ.get("CAMJAX_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
NO_BROWSER = (
    "no browser: install Debian's chromium (apt-get install chromium), or set CAMJAX_BROWSER to the path of one."
)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]


@pytest.fixture(scope="session")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="make test-browser installs playwright")
    if BROWSER is None:
        pytest.skip(NO_BROWSER)
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=BROWSER, args=ARGUMENTS)
        yield started
        started.close()
